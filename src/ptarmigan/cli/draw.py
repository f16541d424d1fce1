"""Commands that draw images from a generator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ptarmigan.boundary import say
from ptarmigan.cli.command import At, Classes, Count, Device, Model, Texts, Whole, WholeOrNone, command, loading


@command(
    "sample runs/photos-1",
    "sample runs/photos-1 --class cat -n 64 --seed 1 --out cats.png",
    "sample runs/photos-1 --like cats.png --truncation 0.7",
)
def sample(
    model: Model,
    /,
    *,
    label: Classes = None,
    n: Count = None,
    seed: WholeOrNone = None,
    truncation: float | None = None,
    move: Texts = None,
    like: Path | None = None,
    reject_copies: str | None = None,
    out: Path | None = None,
    at: At = None,
    device: Device = "auto",
) -> None:
    """Generate images of MODEL's classes and save them.

    Parameters
    ----------
    label
        name of a class, or several names with commas between them; may be given several times; default: all classes
    n
        number of images of each class; default: 16
    seed
        seed of the latents: image i of a class depends on the seed and i only; default: 0
    truncation
        from 0 to 1: latents are multiplied by it, so that images vary less and are more typical; default: 1
    move
        FILE:NUMBER=AMOUNT, to change the images along a direction of `ptarmigan directions`; may be given several times
    like
        X.png that ptarmigan saved: draw the same images again, but for what other options set
    reject_copies
        path of the training images, or `recorded` for those of the run: an image is drawn again if it is nearer to one
        of them than every held-out image is
    out
        X.png with one row a class; X.npz with arr_0 (images), arr_1 (labels) and class_names; or a folder of class
        folders; default: a new samples.png, samples-2.png ...
    """
    with loading():
        from ptarmigan.commands.sample import sample

    path = sample(
        model, label=label, n=n, seed=seed, truncation=truncation, move=move, like=like,
        reject_copies=reject_copies, out=out, at=at, device=device,
    )  # fmt: skip
    say(str(path))


@command(
    "interpolate runs/photos-1 --from cat --to dog:7 --out walk.gif",
    "interpolate runs/photos-1 --from inverted.safetensors:0 --to dog",
    needed="--from IMAGE --to IMAGE",
)
def interpolate(
    model: Model,
    /,
    *,
    init: Annotated[str, Parameter(name="--from")],
    to: str,
    frames: Whole = 60,
    out: Path | None = None,
    at: At = None,
    device: Device = "auto",
) -> None:
    """Save the images on the way from one image of MODEL to another, of the same class or of two.

    Parameters
    ----------
    init
        CLASS or CLASS:SEED, the first image that `sample` draws of it; SEED for a generator without classes; or
        X.safetensors:NUMBER, an image that `invert` found
    to
        the same for the last image
    frames
        number of images, both ends included
    out
        X.gif or X.webp, an animation; X.png, all images side by side; or a folder; default: a new
        walk.gif
    """
    with loading():
        from ptarmigan.generator.interpolate import interpolate

    say(str(interpolate(model, init=init, to=to, frames=frames, out=out, at=at, device=device)))


@command("invert runs/photos-1 mycat.jpg", "invert runs/photos-1 a.png b.png --out found.png")
def invert(
    model: Model,
    /,
    *images: Path,
    out: Path | None = None,
    time: str = "2m",
    at: At = None,
    device: Device = "auto",
) -> None:
    """Find the latents and the mixture of classes from which MODEL draws images most like IMAGES.

    Beside the picture, X.safetensors keeps what was found, for
    `interpolate --from X.safetensors:0`.

    Parameters
    ----------
    images
        image files
    out
        X.png, with a row for each image: the given one, then the one that was found; default: a new inverted.png
    time
        time after which the search ends with what it has found, for all images together: 90s, 2m or 1h
    """
    with loading():
        from ptarmigan.commands.invert import invert

    picture, sentences = invert(model, *images, out=out, time=time, at=at, device=device)
    say(*sentences, str(picture))


@command(
    "directions runs/photos-1", "directions runs/photos-1 --class cat --toward kittens --away old-cats --out kitten.png"
)
def directions(
    model: Model,
    /,
    *,
    label: Classes = None,
    toward: Path | None = None,
    away: Path | None = None,
    out: Path | None = None,
    at: At = None,
    device: Device = "auto",
) -> None:
    """Find directions along which the images of MODEL change in one way, and show them.

    Beside the picture, X.safetensors keeps the directions.
    `sample --move X.safetensors:0=2` then moves images along direction 0, by 2.

    Parameters
    ----------
    label
        name of a class, or several names with commas between them: look at samples of these; default: all classes
    toward
        folder of images that samples become more like along the direction; default: the directions that change images
        most
    away
        folder of images that samples become less like
    out
        X.png, with a row for each direction: three images, each at five places along it; default: a new directions.png
    """
    with loading():
        from ptarmigan.commands.directions import directions

    say(str(directions(model, label=label, toward=toward, away=away, out=out, at=at, device=device)))
