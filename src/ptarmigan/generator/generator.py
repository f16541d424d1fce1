"""Load a trained generator, sample images from it (seed, labels, indices -> uint8), and write them to files."""

from __future__ import annotations

import itertools
import math
import os
import re
import reprlib
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn

from ptarmigan.config import Config, Model
from ptarmigan.core import files, seeding
from ptarmigan.core.console import Display, Terminal
from ptarmigan.core.devices import out_of_memory, pick_device
from ptarmigan.core.files import Damaged
from ptarmigan.core.paths import user_path
from ptarmigan.core.tensor_files import load_tensors
from ptarmigan.core.types import ImageSpec, UserError, check_whole, class_name, printable
from ptarmigan.generator.grid_names import GAP, shown_name, write_names
from ptarmigan.generator.header import AVERAGE, NOT_AVERAGE, find_generator, header_of, read_scores
from ptarmigan.networks import build_generator, without_weights

CHUNK = 256  # images per forward, however many are sampled
CHUNK_PIXELS = CHUNK * 64 * 64  # of the images in one forward of `sample`, since large images need much memory
MAX_IMAGES = 10**9  # of a class in one call
MAX_PIXELS = 100_000_000  # of one picture
MAX_ROWS = 32  # classes in a picture for which no class was chosen
BLOCK = 4096  # bytes: a file takes at least so much of a disk


@torch.no_grad()
def generate_images(
    generator: nn.Module, model: Model, labels: NDArray[np.int64], indices: NDArray[np.int64], seed: int
) -> NDArray[np.uint8]:
    """Images uint8 [N, H, W, C] of classes `labels` [N]; each image's latent depends only on the seed and its index."""
    training = generator.training
    generator.eval()
    parts = (slice(start, start + CHUNK) for start in range(0, len(labels), CHUNK))
    out = [to_uint8(forward(generator, model, labels[part], indices[part], seed)) for part in parts]
    generator.train(training)
    return np.concatenate(out)


def forward(
    generator: nn.Module,
    model: Model,
    labels: NDArray[np.int64],
    indices: NDArray[np.int64],
    seed: int,
    z: Tensor | None = None,
) -> Tensor:
    """Images [N, C, H, W] in [-1, 1], not clamped, on the generator's device, from z [N, Z] or else from the seed."""
    device = next(generator.parameters()).device
    if z is None:
        z = seeding.latents(seed, "sample", indices, model.latent_dim, model.latent)
    images: Tensor = generator(z.to(device), torch.from_numpy(labels).to(device))
    return images


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """[N, C, H, W] in [-1, 1] -> uint8 [N, H, W, C], rounded: -1 becomes 0 and 1 becomes 255."""
    pixels: NDArray[np.uint8] = (
        images.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    )
    return pixels


def pixels_of(images: Tensor) -> NDArray[np.uint8]:
    """`to_uint8` of images that a user asked for; raises UserError (not-finite) if a pixel is NaN or infinite."""
    if not torch.isfinite(images).all():
        raise UserError("the generator draws NaN or infinite pixels: use another one", "not-finite")
    return to_uint8(images)


def image_grid(images: NDArray[np.uint8], columns: int, gap: int = GAP) -> Image.Image:
    """uint8 [N, H, W, C] -> one picture, row by row, on a white (RGBA: transparent) background."""
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    blank = (0,) * 4 if channels == 4 else (255,) * channels
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), blank, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap) + gap, (i % columns) * (width + gap) + gap
        sheet[top : top + height, left : left + width] = image
    return Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet)


def save_png(picture: Image.Image, path: Path, **text: object) -> None:
    """Write a PNG atomically, with `text` in its text chunks."""
    files.write_atomic(path, lambda file: write_png(picture, file, **text))


def write_png(picture: Image.Image, file: BinaryIO, **text: object) -> None:
    info = PngInfo()
    for key, value in text.items():
        info.add_itxt(key, printable(str(value)))  # a class name may have line breaks, and lone surrogates
    picture.save(file, "png", pnginfo=info)


class Chunk(NamedTuple):
    """Some of the images that were asked for."""

    images: NDArray[np.uint8]  # [N, H, W, C]
    labels: NDArray[np.int64]  # [N]
    indices: NDArray[np.int64]  # [N], of the image's latent: 0, 1, 2 ... in each class


@dataclass(frozen=True)
class TrainedGenerator:
    """A trained generator: what `ptarmigan.load` returns.

    `network(z, labels)` is the PyTorch module: z float32 [N, latent_dim] and labels int64 [N] on its device -> images
    float32 [N, C, H, W] in [-1, 1], which those of network r3gan may leave.  It is in evaluation mode, and its weights
    require no gradient; z may.  An unconditional generator does not read the labels.
    """

    network: nn.Module
    config: Config
    spec: ImageSpec
    images_seen: int
    fingerprint: str  # of the data set that it was trained on; '' if not recorded
    selection: str  # how this generator was selected among those of its run
    scores: dict[str, Any]  # extractor -> report of `score`
    sha256: str

    def __repr__(self) -> str:
        shape = f"{self.spec.height}x{self.spec.width}x{self.spec.channels}"
        return f"<TrainedGenerator of {shape} images in {self.spec.classes} classes, {self.images_seen:,} images seen>"

    def sample(
        self,
        label: str | Sequence[str] | None = None,
        n: int = 16,
        seed: int = 0,
        *,
        z: ArrayLike | Tensor | None = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """`n` images of each class in `label` (default: every class), class by class; a class named twice counts once.

        Returns images uint8 [N, H, W, C] in 0..255 and labels int64 [N] as numbered in the data set.  Image i of a
        class uses latent index i, so the same seed gives the same image in any call.  With latents `z` [M, latent_dim],
        such as those of `latents`, there are M images of each class instead, and image i is drawn from z[i].  Raises
        UserError for an unknown class, for a class if the generator is unconditional, for `n`, `seed` or `z` that are
        not valid, for images that are NaN or infinite, and where the memory does not suffice.
        """
        classes = self.labels_of(label)
        with memory_errors():
            given = None if z is None else self.latents_of(z)
            chunks = list(self.chunks(classes, n if given is None else len(given), seed, given))
            return np.concatenate([c.images for c in chunks]), np.concatenate([c.labels for c in chunks])

    def latents(self, n: int = 16, seed: int = 0) -> Tensor:
        """The latents float32 [n, latent_dim] from which `sample` draws the images of each class with this seed."""
        check_numbers(n, seed)
        model = self.config.model
        return seeding.latents(seed, "sample", np.arange(n), model.latent_dim, model.latent)

    def latents_of(self, z: ArrayLike | Tensor) -> Tensor:
        """Latents that a user gave, as float32 [M, latent_dim] on the CPU; raises UserError (value-invalid)."""
        size = self.config.model.latent_dim
        try:
            latents = torch.as_tensor(z).detach().to("cpu", torch.float32)
        except (TypeError, ValueError, RuntimeError):
            raise UserError(f"z: expected numbers [N, {size}], got {reprlib.repr(z)}", "value-invalid") from None
        if latents.dim() != 2 or latents.shape[1] != size or not len(latents) or not latents.isfinite().all():
            got = "NaN or infinite values" if latents.shape[1:] == (size,) and len(latents) else [*latents.shape]
            raise UserError(
                f"z: expected finite numbers [N, {size}], where {size} is latent_dim, got {got}", "value-invalid"
            )
        return latents

    def labels_of(self, label: str | Sequence[str] | None) -> list[int]:
        """The labels of the classes that are named, each once, 'a,b' as a and b; raises UserError as `sample` does."""
        names: list[Any] = list(label or []) if label is None or isinstance(label, list | tuple) else [label]
        if self.config.model.conditioning != "none":
            labels = [label for name in names for label in self.spec.labels(name)]
            return list(dict.fromkeys(labels)) or list(range(self.spec.classes))
        if names and (self.spec.classes > 1 or [*map(class_name, names)] != [*map(class_name, self.spec.class_names)]):
            text = f"class {names[0]!r}: this generator is unconditional (recipe {self.config.recipe}, conditioning"
            other = ", or train with --recipe auto" if self.spec.classes > 1 else ""
            raise UserError(f"{text} none); leave --class out{other}", "options-conflict")
        return [0]

    def chunks(self, classes: Sequence[int], n: int, seed: int, z: Tensor | None = None) -> Iterator[Chunk]:
        """The images of `sample` in parts of at most CHUNK, each computed when it is asked for; z [n, latent_dim]."""
        check_numbers(n, seed)
        of = np.array(classes, np.int64)
        size = max(1, min(CHUNK, CHUNK_PIXELS // (self.spec.height * self.spec.width)))
        for start in range(0, len(of) * n, size):
            positions = np.arange(start, min(start + size, len(of) * n))
            labels, indices = of[positions // n], positions % n
            with torch.no_grad():
                images = forward(
                    self.network, self.config.model, labels, indices, seed, None if z is None else z[indices]
                )
            yield Chunk(pixels_of(images), labels, indices)


def check_numbers(n: int, seed: int) -> None:
    check_whole("n", n)
    check_whole("seed", seed)
    if not 1 <= n <= MAX_IMAGES:
        raise UserError(f"-n {n}: expected 1 to {MAX_IMAGES:,} images per class", "value-out-of-range")
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed {seed}: expected a seed from 0 to 2^63 - 1", "value-out-of-range")


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn the errors of torch, of numpy and of a device that has no memory left into a UserError (out-of-memory)."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        text = "out of memory: sample fewer images at once, close other programs, or use another --device"
        raise UserError(text, "out-of-memory") from None


def load(model: str | Path, device: str = "cpu", *, at: int | None = None) -> TrainedGenerator:
    """The generator of a run folder, a generator folder, a model.safetensors or a checkpoint file.

    The generator of a checkpoint is the moving average of G.  With `at`, `model` is a run folder, and the generator is
    that of its checkpoint at so many images.  Raises UserError if there is none, it is damaged, its tensors do not
    match its header, or a weight is NaN or infinite.
    """
    path = find_generator(model, at)
    tensors, meta = load_tensors(path, skip=NOT_AVERAGE)
    tensors = {name.removeprefix(AVERAGE): tensor for name, tensor in tensors.items()}
    header = header_of(path, meta)
    network = network_of(path, header.spec, header.config.model, tensors)
    if fault := first_not_finite(tensors):
        text = f"{printable(fault)} in {path} has NaN or infinite values"
        raise UserError(f"{text}: use another generator, or an earlier checkpoint with --at", "model-invalid")
    network.to(pick_device(device)).eval().requires_grad_(False)
    try:
        scores = read_scores(path.parent, header.sha256)
    except Damaged:  # `info` says so
        scores = {}
    config, spec, images_seen, fingerprint, selection, sha256 = header
    return TrainedGenerator(network, config, spec, images_seen, fingerprint, selection, scores, sha256)


def network_of(path: Path, spec: ImageSpec, model: Model, tensors: dict[str, Tensor]) -> nn.Module:
    """The generator of a file with its tensors; raises Damaged if they are not those of its header."""
    with without_weights():  # so that a false header cannot allocate memory
        network = build_generator(spec, model)
    assign_tensors(path, network, tensors)
    return network


def assign_tensors(path: Path, network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give a network without weights the tensors of a file; raises Damaged if names, shapes or types differ."""
    expected = network.state_dict()
    for name in [*expected, *tensors]:
        kinds = [
            f"{tensor.dtype} {tuple(tensor.shape)}" if (tensor := of.get(name)) is not None else "missing"
            for of in (tensors, expected)
        ]
        if kinds[0] != kinds[1]:
            fault = f"{printable(name[:100])} is {kinds[0]}, and should be {kinds[1]}"
            raise Damaged(f"{path} does not match its header: {fault}")
    network.load_state_dict(tensors, assign=True)


def first_not_finite(tensors: dict[str, Tensor]) -> str | None:
    """The name of the first tensor with a NaN or infinite value."""
    return next((name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()), None)


def sample(
    model: str | Path,
    *,
    label: Sequence[str] | None = None,
    n: int = 16,
    seed: int = 0,
    out: str | Path | None = None,
    at: int | None = None,
    device: str = "auto",
) -> Path:
    """Sample `n` images of each class in `label` (default: every class) and write them to `out`; returns its path.

    `model` and `at` are as in `load`.  `out` is X.png, one picture with a row per class, for which at most 32 classes
    are chosen if none is named; X.npz with arr_0 uint8 [N, H, W, C], arr_1 int64 [N] and class_names; or a folder,
    which gets a folder of PNGs for each class.  By default it is samples.png, or the first of samples-2.png,
    samples-3.png ... that does not exist.  An .npz and a folder take any number of images, of which few are in memory
    at once.  Progress and notes go to standard error.  Raises UserError for an unknown class, an unreadable
    model, too little space or memory, and an `out` that exists: nothing is overwritten.
    """
    out = user_path(new_picture() if out is None else out, "out")
    with Display(Terminal(stderr=True)) as display, memory_errors():
        generator = load(model, device, at=at)
        classes = generator.labels_of(label)
        check_numbers(n, seed)
        if label and not isinstance(label, str) and len(label) > len(classes):
            display.say("note: a class that is named more than once is drawn once")
        kind = out.suffix.lower()
        if kind not in ("", ".png", ".npz") and not out.is_dir():
            text = f"out: images are saved without loss, as X.png, X.npz or a folder, and {out} is none of these"
            raise UserError(f"{text}: use --out {out.with_suffix('.png')}", "value-invalid")
        files.check_absent(out, "out")
        if kind == ".png":
            if not label and len(classes) > MAX_ROWS:
                classes = grid_classes(len(classes))
                text = f"note: {len(classes)} of {generator.spec.classes:,} classes, evenly spread"
                display.say(f"{text}; name classes with --class")
            check_picture(generator.spec, len(classes), n)
        total = len(classes) * n
        chunks = reported(generator.chunks(classes, n, seed), total, display)
        if kind != ".png":
            chunks = check_room(chunks, total, out)
        files.make_folder(out.parent)
        if kind == ".png":
            drawn = list(chunks)
            images, labels = np.concatenate([c.images for c in drawn]), np.concatenate([c.labels for c in drawn])
            save_grid(generator, images, labels, out, seed)
        elif kind == ".npz":
            files.write_atomic(out, lambda file: write_npz(file, generator.spec, classes, n, chunks))
        else:
            save_folder(generator, classes, chunks, out, seed)
    return out


def new_picture() -> Path:
    """The first of samples.png, samples-2.png ... that does not exist."""
    names = itertools.chain(["samples.png"], (f"samples-{number}.png" for number in itertools.count(2)))
    return next(path for path in map(Path, names) if not os.path.lexists(path))


def reported(chunks: Iterable[Chunk], total: int, display: Display) -> Iterator[Chunk]:
    """The same chunks, each counted on the display."""
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk.images)
        display.preparing("sampling", done, total)


def grid_classes(classes: int) -> list[int]:
    """The labels of at most MAX_ROWS classes, evenly spread, of which a picture shows a row each."""
    return [round(place) for place in np.linspace(0, classes - 1, min(classes, MAX_ROWS)).tolist()]


def check_picture(spec: ImageSpec, classes: int, n: int, option: str = "-n") -> None:
    """Raise UserError (value-out-of-range) if a grid of `n` images of each class is too large for one picture."""
    if classes * n * spec.height * spec.width > MAX_PIXELS:
        text = f"{option} {n}: {classes * n:,} images are more than a picture of at most {MAX_PIXELS:,} pixels can show"
        other = "name a folder or X.npz with --out, or " if option == "-n" else ""
        raise UserError(f"{text}; {other}lower {option}", "value-out-of-range")


def save_grid(
    generator: TrainedGenerator, images: NDArray[np.uint8], labels: NDArray[np.int64], path: Path, seed: int
) -> None:
    """Write the images of `TrainedGenerator.sample` as one picture, `grid_of` them."""
    picture, text = grid_of(generator, images, labels, seed)
    save_png(picture, path, **text)


def grid_of(
    generator: TrainedGenerator, images: NDArray[np.uint8], labels: NDArray[np.int64], seed: int
) -> tuple[Image.Image, dict[str, object]]:
    """The images of `TrainedGenerator.sample` as one picture, a row per class, or nearly square for one class; and the
    text of its PNG.

    The class is named left of its row, unless the generator is unconditional.  The PNG's text holds the seed, the
    classes from top to bottom, the width of the names in pixels, and the SHA-256 of the generator.
    """
    classes = list(dict.fromkeys(labels.tolist()))
    columns = len(images) // len(classes) if len(classes) > 1 else math.ceil(len(images) ** 0.5)
    spec, picture, margin = generator.spec, image_grid(images, columns), 0
    if generator.config.model.conditioning != "none":
        shown = [shown_name(spec.class_names[label], label) for label in classes]
        picture, margin = write_names(picture, shown, spec.height)
    names = ", ".join(spec.class_names[label] for label in classes)
    return picture, {"seed": seed, "classes": names, "margin": margin, "generator": generator.sha256}


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
    generator: TrainedGenerator, classes: Sequence[int], chunks: Iterable[Chunk], out: Path, seed: int
) -> None:
    """Write OUT/CLASS/INDEX.png for each image, all or none; '_' replaces characters that file names cannot have."""
    conditional = generator.config.model.conditioning != "none"
    names = folder_names(generator.spec.class_names) if conditional else ["images"]
    with new_folder(out) as folder:
        for label in classes:
            (folder / names[label]).mkdir(parents=True)
        for images, labels, indices in chunks:
            for image, label, index in zip(images, labels.tolist(), indices.tolist(), strict=True):
                picture = image_grid(image[None], 1, gap=0)
                save_png(picture, folder / names[label] / f"{index:06d}.png", seed=seed, generator=generator.sha256)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that is `out` once the block has written all of it; raises UserError (file-unwritable)."""
    try:
        files.make_folder(out.parent)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name[:200]}.") as temporary:
            folder = Path(temporary) / "images"
            folder.mkdir()
            yield folder
            folder.replace(out)
    except OSError as error:
        raise UserError(f"out: cannot write {out}: {error.strerror}", "file-unwritable") from None


def folder_names(class_names: Sequence[str]) -> list[str]:
    """A name for the folder of each class: unique where case is ignored, of at most 200 bytes, valid on any system."""
    invalid = re.compile(r'[<>:"/\\|?*\x00-\x1f]|^\.+$|[. ]+$')
    short = [name.encode(errors="replace")[:190].decode(errors="ignore") for name in class_names]
    names = [invalid.sub("_", name) or "_" for name in short]
    if len({class_name(name).lower() for name in names}) < len(names):
        names = [f"{label} {name}" for label, name in enumerate(names)]
    return names
