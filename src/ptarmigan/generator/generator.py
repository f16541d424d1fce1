"""Load a trained generator, draw images from it (seed, labels, indices -> uint8), and write them as pictures."""

from __future__ import annotations

import base64
import io
import math
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn

from ptarmigan.config import Config, Model
from ptarmigan.core import files, seeding
from ptarmigan.core.devices import out_of_memory, pick_device
from ptarmigan.core.files import Damaged
from ptarmigan.core.tensor_files import load_tensors
from ptarmigan.core.types import ImageSpec, UserError, check_whole, class_name, printable, shown
from ptarmigan.generator.grid_names import GAP, shown_name, write_names
from ptarmigan.generator.header import AVERAGE, NOT_AVERAGE, find_generator, header_of, read_scores
from ptarmigan.networks import build_generator, without_weights
from ptarmigan.networks.layers import has_batch_norm_statistics

CHUNK = 256  # images per forward, however many are sampled
CHUNK_PIXELS = CHUNK * 64 * 64  # of the images in one forward, since large images need much memory
MAX_IMAGES = 10**9  # of a class in one call
MAX_PIXELS = 100_000_000  # of one picture
MAX_ROWS = 32  # classes in a picture for which no class was chosen


def at_once(height: int, width: int) -> int:
    """How many images of this size one forward takes."""
    return max(1, min(CHUNK, CHUNK_PIXELS // (height * width)))


@torch.no_grad()
def generate_images(
    generator: nn.Module, model: Model, labels: NDArray[np.int64], indices: NDArray[np.int64], seed: int
) -> NDArray[np.uint8]:
    """Images uint8 [N, H, W, C] of classes `labels` [N]; each image's latent depends only on the seed and its index."""
    training = generator.training
    generator.eval()
    size = at_once(*cast(Any, generator).sides[-1])
    parts = [slice(start, start + size) for start in range(0, len(labels), size)]
    draw = latents_of_seed(model, seed)
    out = [to_uint8(forward(generator, labels[part], draw(indices[part]))) for part in parts]
    generator.train(training)
    return np.concatenate(out)


Latents = Callable[[NDArray[np.int64]], Tensor]  # of images by their indices [N] -> [N, Z]


def latents_of_seed(model: Model, seed: int) -> Latents:
    """The latents of `sample`: each depends only on the seed and the index."""
    return partial(seeding.latents, seed, "sample", dim=model.latent_dim, kind=model.latent)


def forward(generator: nn.Module, labels: NDArray[np.int64], z: Tensor) -> Tensor:
    """Images [N, C, H, W] in [-1, 1], not clamped, of classes `labels` [N] from z [N, Z], on the generator's device."""
    device = next(generator.parameters()).device
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


def png_text(image: NDArray[np.uint8]) -> str:
    """An image uint8 [H, W, C] as a PNG in base64."""
    file = io.BytesIO()
    write_png(image_grid(image[None], 1, gap=0), file)
    return base64.b64encode(file.getvalue()).decode()


class Chunk(NamedTuple):
    """Some of the images that were asked for."""

    images: NDArray[np.uint8]  # [N, H, W, C]
    labels: NDArray[np.int64]  # [N]
    indices: NDArray[np.int64]  # [N], of the image's latent


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
        shape = f"{self.spec.size}x{self.spec.channels}"
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
            check_numbers(n, seed)
            latents = latents_of_seed(self.config.model, seed)
            if z is not None:
                given = self.latents_of(z)
                n, latents = len(given), given.__getitem__
            chunks = list(self.chunks(classes, n, latents))
            return np.concatenate([c.images for c in chunks]), np.concatenate([c.labels for c in chunks])

    def latents(self, n: int = 16, seed: int = 0) -> Tensor:
        """The latents float32 [n, latent_dim] from which `sample` draws the images of each class with this seed."""
        check_numbers(n, seed)
        return latents_of_seed(self.config.model, seed)(np.arange(n))

    def latents_of(self, z: ArrayLike | Tensor) -> Tensor:
        """Latents that a user gave, as float32 [M, latent_dim] on the CPU; raises UserError (value-invalid)."""
        size = self.config.model.latent_dim
        try:
            latents = torch.as_tensor(z).detach().to("cpu", torch.float32)
        except (TypeError, ValueError, RuntimeError):
            raise UserError(f"z: expected numbers [N, {size}], got {shown(z)}", "value-invalid") from None
        if latents.dim() != 2 or latents.shape[1] != size or not len(latents) or not latents.isfinite().all():
            got = "NaN or infinite values" if latents.shape[1:] == (size,) and len(latents) else [*latents.shape]
            raise UserError(
                f"z: expected finite numbers [N, {size}], where {size} is latent_dim, got {got}", "value-invalid"
            )
        return latents

    def labels_of(self, label: str | Sequence[str] | None) -> list[int]:
        """The labels of the classes that are named, each once, 'a,b' as a and b; raises UserError as `sample` does."""
        names: list[Any] = list(label or []) if label is None or isinstance(label, list | tuple) else [label]
        if self.config.model.conditional:
            labels = [label for name in names for label in self.spec.labels(name)]
            return list(dict.fromkeys(labels)) or list(range(self.spec.classes))
        if names and (self.spec.classes > 1 or [*map(class_name, names)] != [*map(class_name, self.spec.class_names)]):
            text = f"class {names[0]!r}: this generator is unconditional (recipe {self.config.recipe}, conditioning"
            other = ", or train with --recipe auto" if self.spec.classes > 1 else ""
            raise UserError(f"{text} none); leave --class out{other}", "options-conflict")
        return [0]

    def chunks(self, classes: Sequence[int], n: int, latents: Latents, first: int = 0) -> Iterator[Chunk]:
        """`n` images of each class from latent index `first` on, each part of `at_once` images drawn when asked."""
        of = np.array(classes, np.int64)
        size = at_once(self.spec.height, self.spec.width)
        for start in range(0, len(of) * n, size):
            positions = np.arange(start, min(start + size, len(of) * n))
            labels, indices = of[positions // n], first + positions % n
            yield Chunk(self.draw(labels, latents(indices)), labels, indices)

    def draw(self, labels: NDArray[np.int64], z: Tensor) -> NDArray[np.uint8]:
        """Images uint8 [N, H, W, C] of classes `labels` [N] from latents z [N, Z], all in one forward."""
        with torch.no_grad():
            return pixels_of(forward(self.network, labels, z))


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
    """The generator of a run folder, a generator folder, a model.safetensors, a checkpoint file or hf:user/name.

    The generator of a checkpoint is the moving average of G.  With `at`, `model` is a run folder, and the generator is
    that of its checkpoint at so many images.  Raises UserError if there is none, it is damaged, its tensors do not
    match its header, or a weight is NaN or infinite.
    """
    path = find_generator(model, at)
    tensors, meta = load_tensors(path, skip=NOT_AVERAGE)
    is_checkpoint = any(name.startswith(AVERAGE) for name in tensors)
    tensors = {name.removeprefix(AVERAGE): tensor for name, tensor in tensors.items()}
    header = header_of(path, meta)
    network = network_of(path, header.spec, header.config.model, tensors)
    if fault := first_not_finite(tensors):
        text = f"{printable(fault)} in {path} has NaN or infinite values"
        raise UserError(f"{text}: use another generator, or an earlier checkpoint with --at", "model-invalid")
    if is_checkpoint and not has_batch_norm_statistics(network):
        text = f"{path} has no statistics of batch norm, because its run was stopped before they were computed"
        raise UserError(f"{text}: use the run's generator or another checkpoint, or resume the run", "no-generator")
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
    generator: TrainedGenerator,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    path: Path,
    seed: int,
    **text: object,
) -> None:
    """Write the images of `TrainedGenerator.sample` as one picture, `grid_of` them."""
    picture, text = grid_of(generator, images, labels, seed, **text)
    save_png(picture, path, **text)


def grid_of(
    generator: TrainedGenerator, images: NDArray[np.uint8], labels: NDArray[np.int64], seed: int, **text: object
) -> tuple[Image.Image, dict[str, object]]:
    """The images of `TrainedGenerator.sample` as one picture, a row per class, or nearly square for one class; and the
    text of its PNG.

    The class is named left of its row, unless the generator is unconditional.  The PNG's text holds the seed, the
    classes and their labels from top to bottom, the number of images of each, the width of the names in pixels, the
    SHA-256 of the generator, and `text`.
    """
    classes = list(dict.fromkeys(labels.tolist()))
    columns = len(images) // len(classes) if len(classes) > 1 else math.ceil(len(images) ** 0.5)
    spec, picture, margin = generator.spec, image_grid(images, columns), 0
    if generator.config.model.conditional:
        shown = [shown_name(spec.class_names[label], label) for label in classes]
        picture, margin = write_names(picture, shown, spec.height)
    text |= {"classes": ", ".join(spec.class_names[label] for label in classes), "margin": margin}
    return picture, drawing_text(generator, classes, len(images) // len(classes), seed) | text


def drawing_text(generator: TrainedGenerator, labels: Sequence[int], n: int, seed: int) -> dict[str, object]:
    """What the text of a PNG says of how it was drawn, so that `sample --like` can draw it again."""
    return {"seed": seed, "labels": ",".join(map(str, labels)), "n": n, "generator": generator.sha256}


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
