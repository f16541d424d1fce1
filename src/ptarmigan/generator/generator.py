"""Load a trained generator, sample images from it (seed, labels, indices -> uint8), and write them to files."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn

from ptarmigan.config import Config, Model, config_of
from ptarmigan.core import files, seeding
from ptarmigan.core.devices import pick_device
from ptarmigan.core.paths import user_path
from ptarmigan.core.tensor_files import load_tensors
from ptarmigan.core.types import ImageSpec, UserError
from ptarmigan.evaluation.report import headline
from ptarmigan.networks import build_generator

CHUNK = 256  # images per forward, however many are sampled
READ_ERRORS = (KeyError, TypeError, ValueError, AttributeError, RuntimeError, UserError)  # raised by an invalid file
GENERATOR_FILES = ("generator/model.safetensors", "model.safetensors")  # in a run folder, and in a generator folder


@torch.no_grad()
def generate_images(
    generator: nn.Module, model: Model, labels: NDArray[np.int64], indices: NDArray[np.int64], seed: int
) -> NDArray[np.uint8]:
    """Images uint8 [N, H, W, C] of classes `labels` [N]; each image's latent depends only on the seed and its index."""
    device = next(generator.parameters()).device
    training = generator.training
    generator.eval()
    out = []
    for start in range(0, len(labels), CHUNK):
        part = slice(start, start + CHUNK)
        z = seeding.latents(seed, "sample", indices[part], model.latent_dim, model.latent)
        images = generator(z.to(device), torch.from_numpy(labels[part]).to(device))
        out.append(to_uint8(images))
    generator.train(training)
    return np.concatenate(out)


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """[N, C, H, W] in [-1, 1] -> uint8 [N, H, W, C], rounded: -1 becomes 0 and 1 becomes 255."""
    pixels: NDArray[np.uint8] = (
        images.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    )
    return pixels


def image_grid(images: NDArray[np.uint8], columns: int, gap: int = 2) -> Image.Image:
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
    info = PngInfo()
    for key, value in text.items():
        info.add_itxt(key, str(value))
    files.write_atomic(path, lambda file: picture.save(file, "png", pnginfo=info))


@dataclass(frozen=True)
class TrainedGenerator:
    """A trained generator: what `ptarmigan.load` returns."""

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
        self, label: str | Sequence[str] | None = None, n: int = 16, seed: int = 0
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """`n` images of each class in `label` (default: every class), class by class.

        Returns images uint8 [N, H, W, C] in 0..255 and labels int64 [N] as numbered in the data set.  Image i of a
        class uses latent index i, so the same seed gives the same image in any call.  Raises UserError for an unknown
        class, for a class if the generator is unconditional, and for `n` or `seed` out of range.
        """
        if n < 1:
            raise UserError(f"-n {n}: expected at least 1 image per class", "value-out-of-range")
        if not 0 <= seed < 2**63:
            raise UserError(f"--seed {seed}: expected a seed from 0 to 2^63 - 1", "value-out-of-range")
        names = [label] if isinstance(label, str) else list(label or [])
        if self.config.model.conditioning == "none":
            if names and (self.spec.classes > 1 or names != list(self.spec.class_names)):
                text = f"class {names[0]!r}: this generator is unconditional (recipe {self.config.recipe}, conditioning"
                other = ", or train with --recipe auto" if self.spec.classes > 1 else ""
                raise UserError(f"{text} none); leave --class out{other}", "options-conflict")
            classes = [0]
        else:
            classes = [self.spec.label(name) for name in names] or list(range(self.spec.classes))
        labels = np.repeat(np.array(classes, np.int64), n)
        indices = np.tile(np.arange(n, dtype=np.int64), len(classes))
        return generate_images(self.network, self.config.model, labels, indices, seed), labels


def save_grid(
    generator: TrainedGenerator, images: NDArray[np.uint8], labels: NDArray[np.int64], path: Path, seed: int
) -> None:
    """Write the images of `TrainedGenerator.sample` as one picture: a row per class, or nearly square for one class.

    The PNG's text holds the seed, the classes from top to bottom and the SHA-256 of the generator.
    """
    classes = np.unique(labels)
    columns = len(images) // len(classes) if len(classes) > 1 else math.ceil(len(images) ** 0.5)
    names = ", ".join(generator.spec.class_names[label] for label in dict.fromkeys(labels.tolist()))
    save_png(image_grid(images, columns), path, seed=seed, classes=names, generator=generator.sha256)


def load(model: str | Path, device: str = "cpu") -> TrainedGenerator:
    """The generator of a run folder, a generator folder, or a model.safetensors file.

    Raises UserError if there is none, it is damaged, or its tensors do not match its header.
    """
    path = find_generator(Path(model))
    tensors, meta = load_tensors(path)
    try:
        config, spec = config_and_spec(meta)
        with torch.device("meta"):  # so that a false header cannot allocate memory before its tensors are checked
            network = build_generator(spec, config.model)
        assign_tensors(network, tensors)
        recorded = meta["images_seen"], meta["fingerprint"], meta["selection"]
    except READ_ERRORS as error:
        raise UserError(f"{path} is not a generator that this version can read: {error}", "file-damaged") from None
    network.to(pick_device(device)).eval().requires_grad_(False)
    return TrainedGenerator(network, config, spec, *recorded, read_scores(path.parent, meta["sha256"]), meta["sha256"])


def config_and_spec(meta: dict[str, Any]) -> tuple[Config, ImageSpec]:
    """The config and image spec in a file's header; raises one of READ_ERRORS if they are not valid."""
    return config_of(meta), ImageSpec(**{**meta["spec"], "class_names": tuple(map(str, meta["spec"]["class_names"]))})


def assign_tensors(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give a network on the meta device its tensors; raises one of READ_ERRORS if names, shapes or types differ."""
    for name, expected in network.state_dict().items():
        if tensors[name].dtype != expected.dtype:
            raise TypeError(f"{name} is {tensors[name].dtype}, not {expected.dtype}")
    network.load_state_dict(tensors, assign=True)


def read_scores(folder: Path, sha256: str) -> dict[str, Any]:
    """The reports in a generator folder, by extractor; {} if they are damaged or of another generator."""
    try:
        record = files.load_json(folder / "scores.json")
    except files.Damaged:  # or missing
        return {}
    return record["reports"] if record.get("generator") == sha256 else {}


def find_generator(model: Path) -> Path:
    """The model.safetensors of a run folder, a generator folder, or the file itself."""
    model = user_path(model, "model")
    tried = [*(user_path(model / name, "model") for name in GENERATOR_FILES), model]
    for path in tried:
        if path.is_file():
            return path
    if not model.exists():
        text = f"{model} does not exist: name a run, a generator folder or a model.safetensors"
        raise UserError(text, "path-not-found")
    text = f"{model} has no generator (neither {tried[0]} nor {tried[1]}); a run has one after its first snapshot"
    raise UserError(text, "no-generator")


def sample(
    model: str | Path,
    *,
    label: Sequence[str] | None = None,
    n: int = 16,
    seed: int = 0,
    out: str | Path = "samples.png",
    device: str = "auto",
) -> Path:
    """Sample `n` images of each class in `label` (default: every class) and write them to `out`; returns its path.

    `out` is X.png, one picture with a row per class; X.npz with arr_0 uint8 [N, H, W, C], arr_1 int64 [N] and
    class_names; or a folder, which gets a folder of PNGs for each class.  Raises UserError for an unknown class,
    an unreadable model, and an `out` that exists: nothing is overwritten.
    """
    out = user_path(out, "out")
    files.check_absent(out, "out")
    if out.suffix.lower() not in ("", ".png", ".npz") and not out.is_dir():
        raise UserError(f"out: expected X.png, X.npz or a folder, got {out}", "value-invalid")
    generator = load(model, device)
    images, labels = generator.sample(label, n, seed)
    files.make_folder(out.parent)
    if out.suffix.lower() == ".png":
        save_grid(generator, images, labels, out, seed)
    elif out.suffix.lower() == ".npz":
        names = np.array(generator.spec.class_names)
        files.write_atomic(out, lambda file: np.savez_compressed(file, arr_0=images, arr_1=labels, class_names=names))
    else:
        save_folder(generator, images, labels, out, seed)
    return out


def save_folder(
    generator: TrainedGenerator, images: NDArray[np.uint8], labels: NDArray[np.int64], out: Path, seed: int
) -> None:
    """Write OUT/CLASS/INDEX.png for each image, all or none; '_' replaces characters that file names cannot have."""
    invalid = re.compile(r'[<>:"/\\|?*\x00-\x1f]|^\.+$|[. ]+$')
    names = [invalid.sub("_", name) or "_" for name in generator.spec.class_names]
    if len({name.lower() for name in names}) < len(names):
        names = [f"{label} {name}" for label, name in enumerate(names)]
    if generator.config.model.conditioning == "none":
        names = ["images"]
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
            folder = Path(temporary) / out.name
            for label in np.unique(labels):
                (folder / names[label]).mkdir(parents=True)
                for index, image in enumerate(images[labels == label]):
                    picture = image_grid(image[None], 1, gap=0)
                    save_png(picture, folder / names[label] / f"{index:06d}.png", seed=seed, generator=generator.sha256)
            folder.replace(out)
    except OSError as error:
        raise UserError(f"out: cannot write {out}: {error.strerror}", "file-unwritable") from None


def info(model: str | Path) -> dict[str, Any]:
    """What a generator records: path, classes, size, channels, recipe, loss, images seen, scores, SHA-256 and more.

    Raises UserError if there is none or it is damaged.
    """
    generator = load(model)
    spec, config = generator.spec, generator.config
    return {
        "path": str(find_generator(Path(model))),
        "classes": list(spec.class_names) if config.model.conditioning != "none" else "none: unconditional",
        "size": f"{spec.height}x{spec.width}",
        "channels": spec.channels,
        "recipe": config.recipe,
        "loss": config.loss.loss,
        "conditioning": config.model.conditioning,
        "parameters": sum(parameter.numel() for parameter in generator.network.parameters()),
        "images_seen": generator.images_seen,
        "scores": [f"{name}: {headline(report)}" for name, report in generator.scores.items()] or "none yet",
        "sha256": generator.sha256,
    }
