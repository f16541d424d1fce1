"""Find the latents and class weights from which a generator draws an image like a given one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan.core import seeding
from ptarmigan.data.batches import on_white
from ptarmigan.evaluation.features import Extractor
from ptarmigan.evaluation.verdict import LinearClassifier
from ptarmigan.generator.generator import TrainedGenerator, latents_of_seed, pixels_of
from ptarmigan.generator.points import Points, images_at

DRAWS = 256  # images among which the search looks for places to start
CHUNK = 32  # of them between two reports of progress
DRAWS_END = 0.25  # share of the time after which no more are drawn
STARTS = 4  # places from which each image is searched for
BETAS = 0.9, 0.99  # of Adam; with 0.999 as usual the steps stay small long after a steep place
LAST_RATE = 0.02  # of Adam's rate in a stage, at its end
SURE = 0.8  # weight of the start's own class
BEYOND = 2.0  # standard deviations by which a latent may be longer than is usual


class Stage(NamedTuple):
    """A part of the search."""

    what: str
    steps: int
    rate: float  # of Adam, on latents and on the logits of the class weights
    end: float  # share of the time at which it ends at the latest


FROM_STARTS = Stage("searching from several starts", 100, 0.1, 0.5)
FROM_BEST = Stage("searching by pixels", 1000, 0.1, 0.85)
WITH_FEATURES = Stage("searching by pixels and features", 40, 0.02, 1.0)

OnProgress = Callable[[str, int, int], object]


class Found(NamedTuple):
    """The images that were found."""

    points: Points
    images: NDArray[np.uint8]  # [N, H, W, C]
    pixels: list[float]  # [N], the root mean square difference from the given image, of 255
    features: list[float]  # [N], the distance in features, divided by that of two images that the generator draws
    classes: list[int] | None  # [N], the class that a classifier of drawn images sees in the given one
    in_time: bool  # whether all steps were made


class Draws(NamedTuple):
    """Images that the generator draws, from which the search starts."""

    points: Points
    images: Tensor  # [M, C, H, W] in [-1, 1]
    features: Tensor  # [M, F]


def invert_images(
    generator: TrainedGenerator,
    extractor: Extractor,
    images: NDArray[np.uint8],
    seconds: float,
    on_progress: OnProgress,
) -> Found:
    """The latents and class weights whose images are nearest to `images` [N, H, W, C], in at most about `seconds`.

    Adam minimises the difference in pixels, first from several drawn images that are near, and then that in features
    too.
    """
    begun = time.monotonic()
    draws = drawn(generator, extractor, begun + DRAWS_END * seconds, on_progress)
    target, given = as_floats(images).to(draws.images.device), extractor(images).clone().to(draws.features.device)
    compare = Comparison(draws, extractor)
    starts = compare.nearest(draws, target, given)  # [N, STARTS]
    count = starts.shape[1]
    points = softened(rows_of(draws.points, starts.flatten()))
    targets = target.repeat_interleave(count, 0)

    def search(stage: Stage, points: Points, loss_of: Callable[[Tensor], Tensor]) -> Descent:
        return descend(generator, points, loss_of, stage, begun + stage.end * seconds, on_progress)

    first = search(FROM_STARTS, points, lambda x: compare.pixels(x, targets))
    best = first.loss.view(-1, count).argmin(1) + count * torch.arange(len(images), device=first.loss.device)
    second = search(FROM_BEST, rows_of(first.points, best), lambda x: compare.pixels(x, target))
    last = search(WITH_FEATURES, second.points, lambda x: compare.pixels(x, target) + compare.features(x, given))
    with torch.no_grad():
        out = pixels_of(images_at(generator.network, last.points))
    off = (on_white(as_floats(out)) - on_white(as_floats(images))).square().mean((1, 2, 3)).sqrt() * 127.5
    away = ((extractor(out).to(given) - given).square().sum(1) / compare.feature_scale).sqrt()
    in_time = first.done and second.done and last.done
    return Found(last.points, out, off.tolist(), away.tolist(), seen(draws, given, generator), in_time)


def drawn(generator: TrainedGenerator, extractor: Extractor, end: float, on_progress: OnProgress) -> Draws:
    """At least DRAWS images with their features, and two of each class, or fewer if that takes too long."""
    classes = generator.spec.classes if generator.config.model.conditional else 1
    total = max(DRAWS, 2 * classes)
    indices = np.arange(total) // classes
    labels = seeding.permute(0, "invert", 0, np.arange(total) % classes, classes)
    latents = latents_of_seed(generator.config.model, 0)
    parts: list[tuple[Tensor, NDArray[np.uint8], Tensor]] = []
    for at in range(0, total, CHUNK):
        part = slice(at, at + CHUNK)
        z = latents(indices[part])
        images = generator.draw(labels[part], z)
        parts.append((z, images, extractor(images).clone()))  # outside of the extractor's inference mode
        on_progress("looking for places to start", min(at + CHUNK, total), total)
        if time.monotonic() > end:
            break
    z, features = torch.cat([part[0] for part in parts]), torch.cat([part[2] for part in parts])
    weights = torch.eye(generator.spec.classes)[labels[: len(z)]]
    device = next(generator.network.parameters()).device
    pixels = as_floats(np.concatenate([part[1] for part in parts]))
    return Draws(Points(z, weights), pixels.to(device), features.to(device))


class Comparison:
    """Squared differences of images, in units of that between two images that the generator draws."""

    def __init__(self, draws: Draws, extractor: Extractor) -> None:
        self.network = extractor.network
        self.pixel_scale = float(2 * on_white(draws.images).var(0).mean()) + 1e-6
        self.feature_scale = float(2 * draws.features.var(0).sum()) + 1e-6

    def nearest(self, draws: Draws, target: Tensor, given: Tensor) -> Tensor:
        """The STARTS draws [N, STARTS] nearest to target images [N, C, H, W] with features `given` [N, F]."""
        away = torch.cdist(given, draws.features).square() / self.feature_scale
        away += torch.stack([self.pixels(draws.images, image.expand_as(draws.images)) for image in target])
        return away.argsort(1)[:, :STARTS]

    def pixels(self, images: Tensor, target: Tensor) -> Tensor:
        """[N] of the pixels of images and target images [N, C, H, W]."""
        return (on_white(images) - on_white(target)).square().mean((1, 2, 3)) / self.pixel_scale

    def features(self, images: Tensor, target: Tensor) -> Tensor:
        """[N] of the features of images [N, C, H, W] and target features [N, F]."""
        shown = on_white(images)[:, :3].clamp(-1, 1)
        features: Tensor = self.network((shown + 1) * 127.5)
        return (features - target).square().sum(1) / self.feature_scale


class Descent(NamedTuple):
    """The end of a stage."""

    points: Points
    loss: Tensor  # [N]
    done: bool  # whether all its steps were made in time


def descend(
    generator: TrainedGenerator,
    start: Points,
    loss_of: Callable[[Tensor], Tensor],
    stage: Stage,
    end: float,
    on_progress: OnProgress,
) -> Descent:
    """Minimise a loss [N] of images by Adam, whose rate falls along a half cosine; returns the best points passed."""
    device = next(generator.network.parameters()).device
    z = start.z.to(device).requires_grad_()
    logits = start.classes.clamp_min(1e-6).log().to(device).requires_grad_()
    optimizer = torch.optim.Adam([z, logits], stage.rate, betas=BETAS)
    best, lowest = [z.detach().clone(), logits.detach().clone()], torch.full((len(z),), math.inf, device=device)
    begun = time.monotonic()
    for step in range(1, stage.steps + 1):
        spent = min(1.0, max(step / stage.steps, (time.monotonic() - begun) / max(end - begun, 1e-3)))
        optimizer.param_groups[0]["lr"] = stage.rate * max(LAST_RATE, (1 + math.cos(math.pi * spent)) / 2)
        loss = loss_of(images_at(generator.network, Points(z, logits.softmax(1))))
        falls = loss.detach() < lowest
        lowest = loss.detach().minimum(lowest)
        best = [torch.where(falls[:, None], now.detach(), kept) for now, kept in zip((z, logits), best, strict=True)]
        optimizer.zero_grad()
        loss.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        keep_usual(z, generator.config.model.latent)
        on_progress(stage.what, step, stage.steps)
        if time.monotonic() > end:
            break
    return Descent(Points(best[0].cpu(), best[1].softmax(1).cpu()), lowest, step == stage.steps)


@torch.no_grad()
def keep_usual(z: Tensor, kind: str) -> None:
    """Keep latents [N, Z] among those that `sample` could draw: uniform ones in [-1, 1], normal ones in a ball."""
    if kind == "normal":
        longest = math.sqrt(z.shape[1]) + BEYOND
        z.mul_((longest / z.norm(dim=1, keepdim=True)).clamp_max(1))
    else:
        z.clamp_(-1, 1)


def rows_of(points: Points, rows: Tensor) -> Points:
    """The points with these numbers [N]."""
    return Points(*(tensor[rows.cpu()] for tensor in points))


def softened(points: Points) -> Points:
    """The same points with a share of 1 - SURE of the weights spread over all classes, so that these can grow."""
    return points._replace(classes=SURE * points.classes + (1 - SURE) / points.classes.shape[1])


def seen(draws: Draws, given: Tensor, generator: TrainedGenerator) -> list[int] | None:
    """The class [N] that a linear classifier of drawn images sees in features `given` [N, F].

    None if the generator has one class, or if some class was not drawn twice.
    """
    labels = draws.points.classes.argmax(1).numpy()
    conditional = generator.config.model.conditional
    if not conditional or np.bincount(labels, minlength=generator.spec.classes).min() < 2:
        return None
    classifier = LinearClassifier(draws.features.cpu(), labels, generator.spec.classes)
    classes: list[int] = classifier(given.cpu()).argmax(1).tolist()
    return classes


def as_floats(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [N, H, W, C] -> [N, C, H, W] in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
