"""`ptarmigan sample`: draw images with a trained generator and write them as a picture, an .npz or a folder."""

from __future__ import annotations

import itertools
import math
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ptarmigan.core import files
from ptarmigan.core.console import Display, Terminal
from ptarmigan.core.paths import user_path
from ptarmigan.core.types import ImageSpec, UserError, shown
from ptarmigan.generator.directions import shift_of
from ptarmigan.generator.generator import (
    CHUNK,
    MAX_IMAGES,
    MAX_ROWS,
    Chunk,
    Latents,
    TrainedGenerator,
    check_numbers,
    check_picture,
    drawing_text,
    folder_names,
    grid_classes,
    image_grid,
    latents_of_seed,
    load,
    memory_errors,
    new_folder,
    save_grid,
    save_png,
)
from ptarmigan.generator.points import other_generator

if TYPE_CHECKING:
    from ptarmigan.commands.copies import CopyGuard

IMAGES = 16  # of each class, unless the user or a picture says how many
BLOCK = 4096  # bytes: a file takes at least so much of a disk


def sample(
    model: str | Path,
    *,
    label: Sequence[str] | None = None,
    n: int | None = None,
    seed: int | None = None,
    truncation: float | None = None,
    move: Sequence[str] | None = None,
    like: str | Path | None = None,
    reject_copies: str | Path | None = None,
    out: str | Path | None = None,
    at: int | None = None,
    device: str = "auto",
) -> Path:
    """Sample `n` images (default: 16) of each class in `label` (default: every class) into `out`; returns its path.

    `model` and `at` are as in `load`.  `truncation`, from 0 to 1, multiplies normal latents: images vary less and are
    more typical.  Each of `move`, FILE=AMOUNT or FILE:NUMBER=AMOUNT, moves the latents along a direction that
    `directions` saved, by so many standard deviations.  `like` is a PNG that ptarmigan saved: what the other arguments
    leave open, classes, n, seed and truncation, is as in it.  With `reject_copies`, the training images or 'recorded'
    for those that the run recorded, an image that is nearer to a training image than every held-out image is replaced
    by its next draw.

    `out` is X.png, one picture with a row per class, for which at most 32 classes are chosen if none is named; X.npz
    with arr_0 uint8 [N, H, W, C], arr_1 int64 [N] and class_names; or a folder, which gets a folder of PNGs for each
    class.  By default it is samples.png, or the first of samples-2.png, samples-3.png ... that does not exist.  An .npz
    and a folder take any number of images, of which few are in memory at once.  Progress and notes go to standard
    error.  Raises UserError for an unknown class, an unreadable model, values that are not valid, too little space or
    memory, and an `out` that exists: nothing is overwritten.
    """
    out = user_path(files.unused("samples.png") if out is None else out, "out")
    check_output(out)
    moves = [move] if isinstance(move, str) else list(move or ())
    with Display(Terminal(stderr=True)) as display, memory_errors():
        generator = load(model, device, at=at)
        drawing = Drawing.chosen(generator, label, n, seed, truncation, like, display)
        if label and not isinstance(label, str) and len(label) > len(drawing.labels):
            display.say("note: a class that is named more than once is drawn once")
        latents = drawing.latents(generator, shift_of(moves, generator))
        if out.suffix.lower() == ".png":
            drawing = drawing.in_picture(generator, bool(label or like), display)
        chunks = generator.chunks(drawing.labels, drawing.n, latents, drawing.first)
        guard: CopyGuard | None = None
        if reject_copies is not None:
            from ptarmigan.commands.copies import CopyGuard  # the scores that it needs take a second to import

            guard = CopyGuard.of(Path(model), generator, reject_copies, device, display)
            chunks = guard.without_copies(chunks, generator, latents)
        chunks = reported(chunks, len(drawing.labels) * drawing.n, display)
        write(generator, drawing, chunks, out, drawing.text(moves), guard)
        if guard is not None:
            display.say(f"copies of training images that were replaced: {guard.redrawn:,}")
    return out


class Drawing(NamedTuple):
    """Which images are drawn."""

    labels: list[int]
    n: int  # of each class
    seed: int
    first: int = 0  # latent index of the first image of a class
    truncation: float = 1.0

    @classmethod
    def chosen(
        cls,
        generator: TrainedGenerator,
        label: Sequence[str] | None,
        n: int | None,
        seed: int | None,
        truncation: float | None,
        like: str | Path | None,
        display: Display,
    ) -> Drawing:
        """What the user asked for, and for the rest what a picture says, or else the defaults."""
        labels = generator.labels_of(label)
        base = cls(labels, IMAGES, 0) if like is None else cls.of_picture(like, generator, display)
        drawing = cls(
            labels if label else base.labels,
            base.n if n is None else n,
            base.seed if seed is None else seed,
            base.first,
            base.truncation if truncation is None else truncation,
        )
        check_numbers(drawing.n, drawing.seed)
        check_truncation(generator, drawing.truncation)
        return drawing

    @classmethod
    def of_picture(cls, like: str | Path, generator: TrainedGenerator, display: Display) -> Drawing:
        """What the text of a PNG says; raises UserError (value-invalid, generator-differs)."""
        path = user_path(like, "like")
        try:
            with Image.open(path, formats=["PNG"]) as picture:
                text = {str(key): str(value) for key, value in picture.info.items()}
        except (OSError, ValueError, SyntaxError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or "it is not a whole PNG"
            raise UserError(f"like: cannot read {path}: {reason}", "file-unreadable") from None
        try:
            labels = [int(label) for label in text["labels"].split(",")]
            first, truncation = int(text.get("first", 0)), float(text.get("truncation", 1))
            drawing = cls(labels, int(text["n"]), int(text["seed"]), first, truncation)
            if text["generator"] != generator.sha256:
                raise other_generator("like", path)
            known = len({*labels}) == len(labels) and {*labels} <= {*generator.labels_of(None)}
            if not (known and 0 <= drawing.first < 2**62):
                raise ValueError
        except (KeyError, ValueError):
            fault = f"like: {path} does not say how it was drawn"
            raise UserError(f"{fault}; name a PNG of `ptarmigan sample` or of its page", "value-invalid") from None
        for key, option in (("moves", "--move"), ("redrawn", "--reject-copies")):
            if text.get(key, "0") != "0":
                display.say(f"note: {path} was drawn with {option}: give it again to get the same images")
        return drawing

    def in_picture(self, generator: TrainedGenerator, chosen: bool, display: Display) -> Drawing:
        """What one picture shows of it: of more than MAX_ROWS classes that nobody chose, MAX_ROWS.

        Raises UserError (value-out-of-range) where these are too many images.
        """
        drawing = self
        if not chosen and len(self.labels) > MAX_ROWS:
            drawing = self._replace(labels=grid_classes(len(self.labels)))
            text = f"note: {len(drawing.labels)} of {generator.spec.classes:,} classes, evenly spread"
            display.say(f"{text}; name classes with --class")
        check_picture(generator.spec, len(drawing.labels), drawing.n)
        return drawing

    def latents(self, generator: TrainedGenerator, shift: Tensor | None) -> Latents:
        """The latents of the images by their indices: multiplied by the truncation, then moved by `shift` [1, Z]."""
        draw = latents_of_seed(generator.config.model, self.seed)

        def changed(indices: NDArray[np.int64]) -> Tensor:
            z = self.truncation * draw(indices)
            if shift is not None:
                z = z + shift
            return z if generator.config.model.latent == "normal" else z.clamp(-1, 1)

        return changed

    def text(self, moves: Sequence[str]) -> dict[str, object]:
        """What the text of a PNG says of these images beyond `drawing_text`."""
        out: dict[str, object] = {} if self.first == 0 else {"first": self.first}
        if self.truncation != 1:
            out["truncation"] = self.truncation
        if moves:
            out["moves"] = " ".join(Path(move).name for move in moves)
        return out


def check_truncation(generator: TrainedGenerator, truncation: object) -> None:
    if isinstance(truncation, bool) or not isinstance(truncation, int | float):
        raise UserError(f"truncation: expected a number from 0 to 1, got {shown(truncation)}", "value-invalid")
    if not 0 <= truncation <= 1:
        raise UserError(f"truncation: expected a number from 0 to 1, got {truncation:g}", "value-out-of-range")
    if truncation != 1 and generator.config.model.latent != "normal":
        text = "truncation: the latents of this generator are uniform, so none is more typical than another"
        raise UserError(f"{text}; leave --truncation out", "options-conflict")


def check_output(out: Path) -> None:
    """Raise UserError for an ending that `sample` does not write (value-invalid), or a path that exists."""
    if out.suffix.lower() not in ("", ".png", ".npz") and not out.is_dir():
        text = f"out: images are saved without loss, as X.png, X.npz or a folder, and {out} is none of these"
        raise UserError(f"{text}: use --out {out.with_suffix('.png')}", "value-invalid")
    files.check_absent(out, "out")


def write(
    generator: TrainedGenerator,
    drawing: Drawing,
    chunks: Iterator[Chunk],
    out: Path,
    text: dict[str, object],
    guard: CopyGuard | None,
) -> None:
    """Write the images in the form that the ending of `out` names; a PNG's text says how they were drawn."""
    kind, labels = out.suffix.lower(), drawing.labels
    if kind != ".png":
        chunks = check_room(chunks, len(labels) * drawing.n, out)
    files.make_folder(out.parent)
    if kind == ".png":
        images, of, _ = map(np.concatenate, zip(*chunks, strict=True))
        redrawn = {} if guard is None else {"redrawn": guard.redrawn}
        save_grid(generator, images, of, out, drawing.seed, **text, **redrawn)
    elif kind == ".npz":
        files.write_atomic(out, lambda file: write_npz(file, generator.spec, labels, drawing.n, chunks))
    else:
        save_folder(generator, labels, chunks, out, drawing.seed, **text)


def reported(chunks: Iterable[Chunk], total: int, display: Display) -> Iterator[Chunk]:
    """The same chunks, each counted on the display."""
    done = 0
    display.preparing("sampling", done, total)
    for chunk in chunks:
        yield chunk
        done += len(chunk.images)
        display.preparing("sampling", done, total)


def check_room(chunks: Iterator[Chunk], total: int, out: Path) -> Iterator[Chunk]:
    """Raise UserError (file-unwritable) if the disk has no room for `total` images; returns the same chunks.

    The size is estimated from the first images, compressed as the output is.
    """
    first = next(chunks)
    tried = first.images[:16]
    each = len(zlib.compress(tried.tobytes())) / len(tried)
    if out.suffix.lower() != ".npz":
        each = math.ceil(each / BLOCK) * BLOCK
    place = next(folder for folder in out.absolute().parents if folder.exists())
    needed, free = total * each, shutil.disk_usage(place).free
    if needed > free:
        unit, scale = ("GB", 1e9) if needed >= 1e9 else ("MB", 1e6)
        text = f"out: {total:,} images need about {needed / scale:,.1f} {unit}, and {place} has {free / scale:,.1f}"
        raise UserError(f"{text} {unit} left: lower -n, or name another --out", "file-unwritable")
    return itertools.chain([first], chunks)


def write_npz(file: Any, spec: ImageSpec, classes: Sequence[int], n: int, chunks: Iterable[Chunk]) -> None:
    """Write arr_0, arr_1 and class_names as `np.savez_compressed` does, from images that come in chunks."""
    total = len(classes) * n
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:

        def write(name: str, dtype: np.dtype[Any], shape: tuple[int, ...], parts: Iterable[NDArray[Any]]) -> None:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                for part in parts:
                    member.write(part.tobytes())

        shape = total, spec.height, spec.width, spec.channels
        write("arr_0", np.dtype(np.uint8), shape, (chunk.images for chunk in chunks))
        labels = (np.full(min(CHUNK, n - at), label, np.int64) for label in classes for at in range(0, n, CHUNK))
        write("arr_1", np.dtype(np.int64), (total,), labels)
        names = np.array(spec.class_names)
        write("class_names", names.dtype, names.shape, [names])


def save_folder(
    generator: TrainedGenerator, classes: Sequence[int], chunks: Iterable[Chunk], out: Path, seed: int, **text: object
) -> None:
    """Write OUT/CLASS/INDEX.png for each image, all or none; '_' replaces characters that file names cannot have.

    The PNG's text says how the image was drawn, and `text`.
    """
    names = folder_names(generator.spec.class_names) if generator.config.model.conditional else ["images"]
    with new_folder(out) as folder:
        for label in classes:
            (folder / names[label]).mkdir(parents=True)
        for images, labels, indices in chunks:
            for image, label, index in zip(images, labels.tolist(), indices.tolist(), strict=True):
                path = folder / names[label] / f"{index % MAX_IMAGES:06d}.png"
                told = text | drawing_text(generator, [label], 1, seed) | {"first": index}
                save_png(image_grid(image[None], 1, gap=0), path, **told)
