"""Draw the two pictures of docs/game.md: games small enough to solve, played by the shipped step.

    pip install -e '.[bench]'
    python tools/draw_games.py

Writes docs/phase-portraits.png, the Dirac-GAN under each loss with and without R1, and docs/acgan-shrinks.png, where
the generator of two overlapping classes comes to rest under ACGAN and under the methods that repaired it.  The games
are in tests/solved_games.py; tests/test_solved.py proves what the pictures show.
"""

from __future__ import annotations

import io
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from solved_games import LOSSES, Plane, resting_point

DOCS = Path(__file__).parents[1] / "docs"
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "0.75"
REACH, GAMMA, RATE = 2.0, 0.5, 0.1  # half the side of the plane; the weight of R1; the learning rate of the paths
TICKS, STEPS = 15, 500  # points of the field a side; steps of a path
STARTS = ((0.0, 1.5), (0.0, -0.6))


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    torch.set_num_threads(1)
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    draw_portraits(plt, DOCS / "phase-portraits.png")
    draw_classes(plt, DOCS / "acgan-shrinks.png")


def draw_portraits(plt: Any, path: Path) -> None:
    figure, axes = plt.subplots(4, 4, figsize=(9.6, 10.2), sharex=True, sharey=True, layout="constrained")
    ticks = torch.linspace(-REACH, REACH, TICKS, dtype=torch.float64).tolist()
    for index, (name, loss) in enumerate(LOSSES.items()):
        for below, gamma in enumerate((0.0, GAMMA)):
            axis = axes[index // 4 * 2 + below, index % 4]
            plane = Plane(replace(loss, r1=gamma), RATE)
            field = torch.tensor([[plane.field(psi, theta) for psi in ticks] for theta in ticks])  # [theta, psi, 2]
            axis.streamplot(
                ticks, ticks, field[..., 0].numpy(), field[..., 1].numpy(),
                color=GREY, linewidth=0.7, arrowsize=0.7, density=0.9,
            )  # fmt: skip
            for start, colour in zip(STARTS, (BLUE, ORANGE), strict=True):
                psi, theta = zip(*plane.path(*start, steps=STEPS), strict=True)
                axis.plot(psi, theta, ".", color=colour, markersize=1.6)
                axis.plot(*start, "o", color=colour, markersize=5)
            axis.plot(0, 0, "+", color="black", markersize=9)
            axis.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
            axis.set_title(f"{name}, R1" if gamma else name, loc="left", fontsize=9, fontweight="bold")
    for axis in axes[-1]:
        axis.set_xlabel("ψ, D's slope")
    for axis in axes[:, 0]:
        axis.set_ylabel("θ, G's point")
    save(figure, path)


def draw_classes(plt: Any, path: Path) -> None:
    ends = {
        "ACGAN, C on real and fake": resting_point("auxiliary_classifier", True),
        "ACGAN, C on real alone": resting_point("auxiliary_classifier", False),
        "projection, TAC, ADC": resting_point("projection", True, 1.3, 0.75),
    }
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 2.9), sharex=True, sharey=True, layout="constrained")
    x = torch.linspace(-4.5, 4.5, 300, dtype=torch.float64)

    def density(mean: float, sd: float) -> Tensor:
        return torch.exp(-0.5 * ((x - mean) / sd).square()) / (sd * math.sqrt(2 * math.pi))

    for axis, (name, (mean, sd)) in zip(axes, ends.items(), strict=True):
        for sign, colour in ((-1, BLUE), (1, ORANGE)):
            axis.fill_between(x, density(sign, 1.0), color=colour, alpha=0.2, lw=0)
            axis.plot(x, density(sign * mean, sd), color=colour, lw=1.8)
        axis.set_title(name, loc="left", fontsize=10, fontweight="bold")
        axis.text(0.02, 0.97, f"lines: G's, N(±{mean:.3f}, {sd:.3f}²)", transform=axis.transAxes, va="top")
        axis.text(0.02, 0.89, "filled: the data, N(±1, 1)", transform=axis.transAxes, va="top")
        axis.set(xlabel="x", ylim=(0, 0.68))
    axes[0].set_ylabel("density of each class")
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write a PNG of 64 colours, a quarter of the size of a full-colour one."""
    memory = io.BytesIO()
    figure.savefig(memory, dpi=100)
    Image.open(memory).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
