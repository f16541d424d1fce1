"""Scores of departures whose true size is known: a mixture of Gaussians seen through a linear map.

    pip install -e '.[bench]'
    python studies/known_density.py [--samples 2000] [--seeds 5]

The data are six Gaussian modes in 16 dimensions, seen through a fixed injective map to 64 features.  The densities of
the data (p) and of the "model" (q) are exact; their divergences are means over 50,000 draws of each.  There are four
families of q: one mode fades; all modes narrow; each mode shifts in its own direction; the modes are re-weighted.  Each
family is taken to the same Jensen-Shannon divergences.  Scores compare N samples with one real set of N, with 95 %
intervals over generation seeds.  Prints a table and writes studies/known-density.png.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ptarmigan.evaluation.intervals import Interval, interval
from ptarmigan.evaluation.metrics import frechet, gaussian, kid_and_fidelity, pair_statistics

MODES, DIM, FEATURES, DRAWS = 6, 16, 64, 50_000
PICTURE = Path(__file__).parent / "known-density.png"
BITS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)  # Jensen-Shannon divergences of each family; the maximum is 1
SCORES = {
    "frechet": "Fréchet distance",
    "kid": "KID",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}


class Mixture(NamedTuple):
    weights: Tensor  # [K], sum 1
    means: Tensor  # [K, DIM]
    sd: float  # of every mode, in every direction

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        modes = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, DIM, dtype=torch.float64, generator=generator)
        return self.means[modes] + self.sd * noise

    def log_density(self, x: Tensor) -> Tensor:
        squared = torch.cdist(x, self.means).square()
        log_each = -squared / (2 * self.sd**2) - DIM * math.log(self.sd * math.sqrt(2 * math.pi))
        return torch.logsumexp(log_each + self.weights.log(), dim=1)


class Row(NamedTuple):
    family: str
    bits: float  # Jensen-Shannon divergence, measured
    kl: float  # KL(p | q), nats
    scores: dict[str, Interval]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()

    generator = torch.Generator().manual_seed(0)
    weights = torch.tensor([0.25, *[0.15] * (MODES - 1)], dtype=torch.float64)
    p = Mixture(weights, 1.5 * normal(generator, MODES, DIM), sd=1.0)
    to_features = normal(generator, DIM, FEATURES) / math.sqrt(DIM)
    own = torch.nn.functional.normalize(normal(generator, MODES, DIM), dim=1)
    families: dict[str, Callable[[float], Mixture]] = {
        "one mode fades": lambda t: p._replace(weights=normalised(weights * torch.tensor([1 - t, *[1] * (MODES - 1)]))),
        "modes narrow": lambda t: p._replace(sd=1 - 0.9 * t),
        "modes shift": lambda t: p._replace(means=p.means + 3 * t * own),
        "modes re-weighted": lambda t: p._replace(
            weights=normalised(weights * torch.exp(4 * t * torch.linspace(-1, 1, MODES, dtype=torch.float64)))
        ),
    }

    real = p.sample(arguments.samples, generator) @ to_features

    def row(family: str, q: Mixture) -> Row:
        fakes = [
            q.sample(arguments.samples, torch.Generator().manual_seed(100 + s)) @ to_features
            for s in range(arguments.seeds)
        ]
        each = [scores(real, fake) for fake in fakes]
        return Row(family, *divergences(p, q), {name: interval([one[name] for one in each]) for name in SCORES})

    rows = [row("none: q = p", p)]
    print(f"{arguments.samples:,} samples against as many real; mean over {arguments.seeds} seeds +- half the interval")
    print(f"{'departure':<18} {'JSD, bits':>9} {'KL, nats':>9}  " + "  ".join(f"{name:>17}" for name in SCORES))
    show(rows[0])
    for family, of in families.items():
        for bits in BITS:
            rows.append(row(family, of(strength(p, of, bits))))
            show(rows[-1])
    draw(rows, list(families), PICTURE)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def normalised(weights: Tensor) -> Tensor:
    return weights / weights.sum()


def divergences(p: Mixture, q: Mixture) -> tuple[float, float]:
    """Jensen-Shannon divergence in bits and KL(p | q) in nats, from exact log densities at DRAWS samples of each."""
    generator = torch.Generator().manual_seed(1)
    x, y = p.sample(DRAWS, generator), q.sample(DRAWS, generator)
    log_p, log_q = (torch.stack([of.log_density(z) for z in (x, y)]) for of in (p, q))
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    halves = mean_log((log_p - log_m)[0]) + mean_log((log_q - log_m)[1])
    return halves / (2 * math.log(2)), mean_log((log_p - log_q)[0])


def mean_log(log_ratio: Tensor) -> float:
    """E log(a / b) under a.  E [b / a - 1], which is 0, is added because it removes nearly all the noise."""
    return (log_ratio + torch.expm1(-log_ratio)).mean().item()


def strength(p: Mixture, family: Callable[[float], Mixture], bits: float) -> float:
    """The parameter of a family, in [0, 1], that gives a Jensen-Shannon divergence; by bisection."""
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if divergences(p, family(middle))[0] < bits else (low, middle)
    return (low + high) / 2


def scores(real: Tensor, fake: Tensor) -> dict[str, float]:
    both = kid_and_fidelity(pair_statistics(real), pair_statistics(fake))
    return {"frechet": frechet(gaussian(real), gaussian(fake)), "kid": both.kid, **both.fidelity._asdict()}


def show(row: Row) -> None:
    cells = (f"{of.mean:8.4f} +- {of.high - of.mean:5.4f}" for of in row.scores.values())
    print(f"{row.family:<18} {row.bits:9.4f} {row.kl:9.4f}  " + "  ".join(f"{cell:>17}" for cell in cells), flush=True)


def draw(rows: list[Row], families: list[str], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(2, 3, figsize=(10, 6), sharex=True, layout="constrained")
    equal = rows[0]
    for axis, (name, title) in zip(axes.flat, SCORES.items(), strict=True):
        at_equality = equal.scores[name]
        axis.axhspan(at_equality.low, at_equality.high, color="0.88", lw=0)
        axis.axhline(at_equality.mean, color="0.55", lw=1, label="q = p, and its interval")
        for family, colour, marker in zip(families, ("#0072B2", "#D55E00", "#009E73", "#AA4499"), "os^D", strict=True):
            own = [row for row in rows if row.family == family]
            found = [row.scores[name] for row in own]
            axis.errorbar(
                [row.bits for row in own], [of.mean for of in found], [of.high - of.mean for of in found],
                color=colour, marker=marker, markersize=4.5, lw=1.5, elinewidth=1, label=family,
            )  # fmt: skip
        axis.locator_params(axis="y", nbins=5)
        axis.set_title(title, loc="left", fontsize=11, fontweight="bold")
        axis.set_xscale("log")
    for axis, scale, ticks in (
        (axes[0, 0], "log", (0.5, 1, 2, 5, 10, 20)),
        (axes[0, 1], "symlog", (0, 0.1, 0.3, 1, 3)),
    ):
        axis.set_yscale(scale, **({"linthresh": 0.1} if scale == "symlog" else {}))
        axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
    axes[0, 1].set_ylim(-0.06, 5)
    for axis in axes[1]:
        axis.set_xticks(BITS, [f"{bits:g}".lstrip("0") for bits in BITS])
        axis.minorticks_off()
        axis.set_xlabel("true Jensen-Shannon divergence, bits")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
