"""Directions among a generator's latents along which its images change in one way."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptarmigan.core.paths import user_path
from ptarmigan.core.types import UserError, printable, shown
from ptarmigan.evaluation.features import Extractor
from ptarmigan.evaluation.verdict import LinearClassifier
from ptarmigan.generator.generator import TrainedGenerator, latents_of_seed
from ptarmigan.generator.points import load_row, load_rows

ROWS = "directions"  # the name of the tensor in a file; a row is a step of one standard deviation
SAMPLES = 512  # images from which a direction is learnt
CHUNK = 32  # of them between two reports of progress
CHECKED = 4  # every fourth of them only checks the direction


class Learnt(NamedTuple):
    """A direction from examples."""

    step: Tensor  # [1, Z]
    share: float  # of the differences within a class in how much images are like the examples, which it explains


def deviation(generator: TrainedGenerator) -> float:
    """The standard deviation of a latent's entries."""
    return 1.0 if generator.config.model.latent == "normal" else 1 / math.sqrt(3)


def closed_form(generator: TrainedGenerator, count: int) -> Tensor:
    """Steps [count, Z] that change most what the first layer and the modulations compute, strongest first.

    They are eigenvectors of A'A, A being the weights that are multiplied with z (Shen and Zhou 2021, eq. 4).
    """
    model = generator.config.model
    layers = [part for part in generator.network.modules() if isinstance(part, nn.Linear)]
    of_z = [layer.weight[:, : model.latent_dim] for layer in layers if layer.in_features == model.g_inputs]
    weights = torch.cat(of_z).double().cpu()
    vectors: Tensor = torch.linalg.eigh(weights.T @ weights).eigenvectors.T.flip(0)[:count]  # [count, Z]
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return (vectors * largest.sign() * deviation(generator)).float()


def learn(
    generator: TrainedGenerator,
    extractor: Extractor,
    classes: Sequence[int],
    toward: NDArray[np.uint8],
    away: NDArray[np.uint8],
    on_images: Callable[[int, int], object],
) -> Learnt:
    """The direction along which samples of `classes` become more like images `toward` [N, H, W, C], less like `away`.

    A linear classifier of features tells the two apart.  Its score of SAMPLES images, less the mean of their class, is
    regressed on their latents.  on_images(done, total) is called as images are sampled.
    """
    labels = np.repeat([0, 1], [len(toward), len(away)])
    classifier = LinearClassifier(extractor(np.concatenate([toward, away])), labels, 2)
    indices = np.arange(SAMPLES)
    of = np.array(classes)[indices % len(classes)]
    z = latents_of_seed(generator.config.model, 0)(indices)
    scores = torch.empty(SAMPLES, dtype=torch.float64)
    for at in range(0, SAMPLES, CHUNK):
        part = slice(at, at + CHUNK)
        of_class = classifier(extractor(generator.draw(of[part], z[part])))
        scores[part] = of_class[:, 0] - of_class[:, 1]
        on_images(min(at + CHUNK, SAMPLES), SAMPLES)
    for label in classes:
        own = torch.from_numpy(of == label)
        scores[own] -= scores[own].mean()
    checked = torch.from_numpy(indices % CHECKED == 0)
    slope = ridge(z[~checked].double(), scores[~checked])
    shares = torch.corrcoef(torch.stack([z[checked].double() @ slope, scores[checked]]))[0, 1]
    step = slope / slope.norm() * deviation(generator)
    return Learnt(step[None].float(), float(shares.nan_to_num().clamp_min(0).square()))


def ridge(z: Tensor, target: Tensor) -> Tensor:
    """The slopes [Z] of a linear regression of `target` [N] on z [N, Z], slightly shrunk."""
    slopes: Tensor = torch.linalg.solve(z.T @ z + torch.eye(z.shape[1], dtype=z.dtype), z.T @ target)
    return slopes


class Named(NamedTuple):
    """A direction of a file."""

    name: str  # that of the file, with a number where it has several
    move: str  # FILE:NUMBER, as `sample` takes it before an amount
    step: Tensor  # [Z]


def all_named(paths: Sequence[str | Path], generator: TrainedGenerator) -> list[Named]:
    """Every direction of the files, in their order; raises UserError as `load_rows` does."""
    out = []
    for given in paths:
        path = user_path(given, "directions")
        (steps,) = load_rows(path, "directions", generator, {ROWS: generator.config.model.latent_dim})
        for number, step in enumerate(steps):
            name = printable(path.stem if len(steps) == 1 else f"{path.stem} {number}")
            out.append(Named(name, f"{path}:{number}", step))
    return out


def shift_of(moves: Sequence[str], generator: TrainedGenerator) -> Tensor | None:
    """The sum [1, Z] of the steps that a user named, each as FILE=AMOUNT or FILE:NUMBER=AMOUNT; None for none.

    Raises UserError as `load_row` does, and value-invalid for an amount that is no number.
    """
    total = None
    for move in moves:
        named, _, amount = move.rpartition("=") if isinstance(move, str) else ("", "", "")
        try:
            factor = float(amount)
        except ValueError:
            factor = math.nan
        if not named or not abs(factor) <= 1000:
            text = f"move: expected FILE=AMOUNT, such as smile.safetensors=2, got {shown(move)}"
            raise UserError(text, "value-invalid")
        (step,) = load_row(named, "move", generator, {ROWS: generator.config.model.latent_dim})
        total = factor * step if total is None else total + factor * step
    return total
