"""`ptarmigan directions`: ways to change the images of a generator, from its weights or from examples."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan.config import Data
from ptarmigan.core import files
from ptarmigan.core.console import Display, Terminal
from ptarmigan.core.paths import user_path
from ptarmigan.core.types import UserError
from ptarmigan.data import open_dataset
from ptarmigan.evaluation.features import load_extractor
from ptarmigan.generator.directions import ROWS, closed_form, learn
from ptarmigan.generator.generator import TrainedGenerator, image_grid, load, memory_errors, save_png
from ptarmigan.generator.grid_names import write_names
from ptarmigan.generator.points import save_rows

COUNT = 8  # directions of the closed form
AMOUNTS = (-3, -1.5, 0, 1.5, 3)  # standard deviations by which the images of the picture are moved
SHOWN = 3  # images that a row of the picture shows at each amount
LEAST = 5  # examples on each side
WEAK = 0.05  # share of the differences; what explains less is hardly a direction


def directions(
    model: str | Path,
    *,
    label: Sequence[str] | None = None,
    toward: str | Path | None = None,
    away: str | Path | None = None,
    out: str | Path | None = None,
    at: int | None = None,
    device: str = "auto",
) -> Path:
    """Find directions among a generator's latents and show images moved along each; returns the picture's path.

    Without examples they are the 8 that change most what the generator's first layer and its modulations compute.
    With `toward` and `away`, two folders of images, it is the one along which samples of a class become more like the
    first and less like the second.  `label` names the classes of these samples and of the picture (default: all).
    Beside the picture, X.safetensors keeps the directions for `sample`, whose `move` takes X.safetensors:NUMBER=AMOUNT.
    `out` is X.png, a new file (default: the first of directions.png, directions-2.png ... that does not exist).
    `model` and `at` are as in `load`.  Raises UserError for an unreadable model or folder, an unknown class, too few
    images, one folder without the other, and where a file exists.
    """
    out = user_path(files.unused("directions.png") if out is None else out, "out")
    rows = out.with_suffix(".safetensors")
    if (toward is None) != (away is None):
        raise UserError("--toward and --away belong together: name a folder of images with each", "options-conflict")
    with Display(Terminal(stderr=True)) as display, memory_errors():
        with display.doing("loading the generator"):
            generator = load(model, device, at=at)
        classes = generator.labels_of(label)
        files.check_new_path(out, "out", ".png")
        files.check_absent(rows, "out")
        if toward is None or away is None:
            steps = closed_form(generator, COUNT)
        else:
            steps = from_folders(generator, classes, toward, away, device, display)
        with display.doing("drawing the images"):
            grid = image_grid(moved(generator, steps, classes), SHOWN * len(AMOUNTS))
            picture, _ = write_names(grid, [*map(str, range(len(steps)))], generator.spec.height)
            save_rows(rows, generator, **{ROWS: steps})
            save_png(picture, out, amounts=" ".join(f"{amount:g}" for amount in AMOUNTS), generator=generator.sha256)
        display.say(f"wrote {rows}: ptarmigan sample takes it, as in --move {rows}:0=2")
    return out


def from_folders(
    generator: TrainedGenerator,
    classes: Sequence[int],
    toward: str | Path,
    away: str | Path,
    device: str,
    display: Display,
) -> Tensor:
    """The step [1, Z] from examples; says how much of the differences among images it explains."""
    spec = generator.spec
    shape = Data(size=spec.size, channels=spec.channels, split="none")  # type: ignore[arg-type]
    sides = []
    for option, folder in (("toward", toward), ("away", away)):
        sides.append(open_dataset(folder, shape, display.preparing).images[:])
        if len(sides[-1]) < LEAST:
            text = f"{option}: {folder} has {len(sides[-1])} images, and a direction needs at least {LEAST}"
            raise UserError(f"{text} on each side", "too-few-images")
    with display.doing("comparing the examples"):
        extractor = load_extractor(device=device)
        learnt = learn(generator, extractor, classes, sides[0], sides[1], partial(display.preparing, "sampling images"))
    text = f"explains {learnt.share:.0%} of how samples of a class differ in being like {toward} and not {away}"
    weak = ": too little to rely on; use more examples, whose only difference is the one meant"
    display.say(text + weak * (learnt.share < WEAK))
    return learnt.step


def moved(generator: TrainedGenerator, steps: Tensor, classes: Sequence[int]) -> NDArray[np.uint8]:
    """Images [M * SHOWN * len(AMOUNTS), H, W, C]: for each of `steps` [M, Z] the same images moved by each amount."""
    labels = [classes[round(at)] for at in np.linspace(0, len(classes) - 1, SHOWN)]
    z = generator.latents(SHOWN)
    amounts = torch.tensor(AMOUNTS)[:, None]
    out = []
    for step in steps:
        for label, start in zip(labels, z, strict=True):
            way = start + amounts * step
            way = way if generator.config.model.latent == "normal" else way.clamp(-1, 1)
            out.append(generator.draw(np.full(len(way), label), way))
    return np.concatenate(out)
