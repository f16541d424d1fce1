"""`ptarmigan invert`: the images of a generator that are nearest to given ones, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ptarmigan.config.values import parse_time
from ptarmigan.core import files
from ptarmigan.core.console import Display, Terminal
from ptarmigan.core.paths import user_path
from ptarmigan.core.types import UserError, printable
from ptarmigan.data.decode import Limits, TargetShape, choose_fit, decode
from ptarmigan.data.disk import open_regular
from ptarmigan.data.workers import pillow_without_warnings, reason_of
from ptarmigan.evaluation.features import load_extractor
from ptarmigan.generator.generator import TrainedGenerator, image_grid, load, memory_errors, save_png
from ptarmigan.generator.inversion import Found, invert_images
from ptarmigan.generator.points import save_rows

MOST = 64  # images in one call
LEAST_SHARE = 0.005  # of a class that is named


def invert(
    model: str | Path,
    *images: str | Path,
    out: str | Path | None = None,
    time: str = "2m",
    at: int | None = None,
    device: str = "auto",
) -> tuple[Path, list[str]]:
    """Find the latents and the mixture of classes from which a generator draws images like the given files.

    Returns the path of a picture, in which each row is a given image and the one that was found, and a sentence about
    each.  Beside it X.safetensors has a row for each image: z [N, latent_dim], and classes [N, K], the weights of the
    class embeddings; `interpolate` takes it as X.safetensors:NUMBER.  `out` is X.png, a new file (default: the first
    of inverted.png, inverted-2.png ... that does not exist).  `model` and `at` are as in `load`.  The search ends after
    `time`, all images together, with what it has found.  Raises UserError for an unreadable model or image, and where
    a file exists.
    """
    out = user_path(files.unused("inverted.png") if out is None else out, "out")
    points = out.with_suffix(".safetensors")
    seconds = parse_time(time or "")
    assert seconds is not None
    if not 1 <= len(images) <= MOST:
        raise UserError(
            f"name 1 to {MOST} images, as in `ptarmigan invert {model} a.png`; got {len(images)}", "value-out-of-range"
        )
    with Display(Terminal(stderr=True)) as display, memory_errors():
        with display.doing("loading the generator"):
            generator = load(model, device, at=at)
            given = read_images([user_path(image, "image") for image in images], generator)
            files.check_new_path(out, "out", ".png")
            files.check_absent(points, "out")
            extractor = load_extractor(device=device)
        with display.doing("searching"):
            found = invert_images(generator, extractor, given, seconds, display.preparing)
        save_rows(points, generator, **found.points._asdict())
        pairs = np.stack([given, found.images], 1).reshape(-1, *given.shape[1:])
        save_png(image_grid(pairs, 2), out, pairs="given image, then the one found", generator=generator.sha256)
        if not found.in_time:
            display.say(f"note: the search ended after {time}; a longer --time may find nearer images")
        display.say(f"wrote {points}: ptarmigan interpolate takes its rows, as in --from {points}:0")
    return out, sentences(images, found, generator)


def read_images(paths: Sequence[Path], generator: TrainedGenerator) -> NDArray[np.uint8]:
    """Image files as uint8 [N, H, W, C], fitted to the generator's shape as its training images were."""
    spec, out = generator.spec, []
    shape = TargetShape(spec.height, spec.width, spec.channels, choose_fit(spec.channels, generator.config.data))
    for path in paths:
        try:
            with open_regular(str(path)) as file, pillow_without_warnings():
                try:
                    check_single(path, Image.open(file), (spec.width, spec.height))
                    file.seek(0)
                    out.append(decode(file, shape, Limits()))
                except UserError:
                    raise
                except Exception as error:  # a damaged file can make Pillow raise anything
                    reason = reason_of(error, file).reason
                    raise UserError(f"cannot read the image {path}: {reason}", "file-unreadable") from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UserError(f"cannot read the image {path}: {reason}", "file-unreadable") from None
    return np.stack(out)


def check_single(path: Path, picture: Image.Image, size: tuple[int, int]) -> None:
    """Raise UserError for a grid of images that ptarmigan saved."""
    if "generator" in picture.info and picture.size != size:
        text = f"{path} is a grid that ptarmigan saved, not one image: `ptarmigan sample` with --out FOLDER saves each "
        raise UserError(f"{text}image in a file of its own", "value-invalid")


def sentences(images: Sequence[str | Path], found: Found, generator: TrainedGenerator) -> list[str]:
    """For each image: the classes whose mixture was found, how far the found image is, and the class of the given."""
    out, names = [], [*map(printable, generator.spec.class_names)]
    conditional = generator.config.model.conditional
    for row, image in enumerate(images):
        weights = found.points.classes[row]
        order = [label for label in weights.argsort(descending=True).tolist() if weights[label] >= LEAST_SHARE][:3]
        mixture = ", ".join(f"{names[label]} {weights[label]:.0%}" for label in order)
        text = f"{image}: found as {mixture}; " if conditional else f"{image}: "
        text += f"{found.pixels[row]:.1f} of 255 off in pixels (root mean square), "
        text += f"{found.features[row]:.0%} in features (of the distance of two samples)"
        if found.classes is not None:
            text += f"; a classifier of samples takes it for {names[found.classes[row]]}"
        out.append(text)
    return out
