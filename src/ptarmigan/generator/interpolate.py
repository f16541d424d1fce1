"""`ptarmigan interpolate`: the images on the way from one image of a generator to another."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptarmigan.core import files
from ptarmigan.core.console import Display, Terminal
from ptarmigan.core.paths import user_path
from ptarmigan.core.types import UserError, check_whole, shown
from ptarmigan.generator.generator import (
    TrainedGenerator,
    check_picture,
    image_grid,
    load,
    memory_errors,
    new_folder,
    pixels_of,
    save_png,
)
from ptarmigan.generator.points import Points, images_at, is_row, load_row

MILLISECONDS = 50  # that a frame of an animation is shown
FRAMES_AT_ONCE = 32  # of one forward
Mix = Callable[[Tensor, Tensor, Tensor], Tensor]  # of two latents [Z], by the share of the second
ENDINGS = (".gif", ".webp", ".png", "")


def place(generator: TrainedGenerator, given: str, option: str) -> Points:
    """Where a walk begins or ends: a point [1] of a file, or the first image of a class under a seed.

    `given` is X.safetensors or X.safetensors:NUMBER; else CLASS, CLASS:SEED or, without classes, SEED.  A class may
    have a colon in its name.
    """
    if not isinstance(given, str):
        raise UserError(f"{option}: expected text, got {shown(given)}", "value-invalid")
    spec, conditional = generator.spec, generator.config.model.conditional
    if is_row(given) and given not in spec.class_names:
        widths = {"z": generator.config.model.latent_dim, "classes": spec.classes}
        return Points(*load_row(given, option, generator, widths))
    name: str | None = None
    if not conditional:
        seed = given
    elif given in spec.class_names or ":" not in given:
        name, seed = given, "0"
    else:
        name, _, seed = given.rpartition(":")
    if not seed.isdecimal() or len(seed) > 19 or int(seed) >= 2**63:
        shape = "SEED" if name is None else "CLASS or CLASS:SEED"
        raise UserError(f"{option}: expected {shape}, a seed from 0 to 2^63 - 1, got {given!r}", "value-invalid")
    return Points.sampled(generator, 0 if name is None else spec.label(name), int(seed))


def interpolate(
    model: str | Path,
    *,
    init: str,
    to: str,
    frames: int = 60,
    out: str | Path | None = None,
    at: int | None = None,
    device: str = "auto",
) -> Path:
    """Write the images on the way from one image to another, within a class or between two; returns the path.

    `init` and `to` are CLASS or CLASS:SEED, the first image that `sample` draws of this class with this seed (default:
    0), or SEED for a generator without classes; or X.safetensors:NUMBER, an image that `invert` found.  Class
    embeddings are mixed along a line, and so are uniform latents; normal latents along a sphere.  `out` is an
    animation X.gif or X.webp, one picture X.png, or a new folder of PNGs (default: the first of walk.gif, walk-2.gif
    ... that does not exist).  `model` and `at` are as in `load`.  Raises UserError for an unknown class, a seed or
    number of frames that is not valid, an unreadable model or file, and an `out` that exists.
    """
    out = user_path(files.unused("walk.gif") if out is None else out, "out")
    check_whole("frames", frames)
    if frames < 2:
        raise UserError(f"--frames {frames}: expected at least 2, the first and the last image", "value-out-of-range")
    if out.suffix.lower() not in ENDINGS:
        raise UserError(f"out: expected X.gif, X.webp, X.png or a folder, got {out}", "value-invalid")
    files.check_absent(out, "out")
    with Display(Terminal(stderr=True)) as display, memory_errors():
        generator = load(model, device, at=at)
        ends = place(generator, init, "from"), place(generator, to, "to")
        check_picture(generator.spec, 1, frames, "--frames")
        with display.doing("drawing the images"):
            images = images_between(generator, *ends, frames)
        with display.doing(f"writing {out}"):
            write(images, out, generator.sha256)
    return out


def images_between(generator: TrainedGenerator, start: Points, end: Points, frames: int) -> NDArray[np.uint8]:
    """Images uint8 [frames, H, W, C] on the way from one point [1] to another, both included."""
    shares = torch.linspace(0, 1, frames)
    mix: Mix = along_sphere if generator.config.model.latent == "normal" else torch.lerp
    z = torch.stack([mix(start.z[0], end.z[0], share) for share in shares])  # [frames, Z]
    way = Points(z, torch.lerp(start.classes, end.classes, shares[:, None]))
    with torch.no_grad():
        drawn = [
            images_at(generator.network, Points(*(rows[at : at + FRAMES_AT_ONCE] for rows in way)))
            for at in range(0, frames, FRAMES_AT_ONCE)
        ]
    return np.concatenate([*map(pixels_of, drawn)])


def along_sphere(first: Tensor, last: Tensor, share: Tensor) -> Tensor:
    """Latents [Z] on the great circle through two others, whose length hardly varies (Shoemake, SIGGRAPH 1985)."""
    cosine = nn.functional.cosine_similarity(first, last, 0).clamp(-1, 1)
    angle = torch.acos(cosine)
    if torch.sin(angle) < 1e-4:
        return torch.lerp(first, last, share)
    return (torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * last) / torch.sin(angle)


def write(images: NDArray[np.uint8], out: Path, sha256: str) -> None:
    """Write frames [N, H, W, C] to a new file or folder, by the ending of its name; WebP and PNG lose nothing."""
    pictures = [image_grid(image[None], 1, gap=0) for image in images]
    kind = out.suffix.lower()
    if kind == "":
        with new_folder(out) as folder:
            for number, picture in enumerate(pictures):
                save_png(picture, folder / f"{number:06d}.png", generator=sha256)
        return
    files.make_folder(out.parent)
    if kind == ".png":
        save_png(image_grid(images, math.ceil(len(images) ** 0.5)), out, generator=sha256)
        return
    how: dict[str, Any] = {"lossless": True} if kind == ".webp" else {"disposal": 2}  # a frame replaces the one before
    files.write_atomic(
        out,
        lambda file: pictures[0].save(
            file, kind[1:], save_all=True, append_images=pictures[1:], duration=MILLISECONDS, loop=0, **how
        ),
    )
