"""(seed, indices, labels) -> uint8 images, from live weights or a generator folder; grids of them."""

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
from ptarmigan.core.types import ImageSpec, UserError
from ptarmigan.evaluation.report import headline
from ptarmigan.networks import build_generator

CHUNK = 256  # images a forward: the same whatever is asked for
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, RuntimeError, UserError)  # what an odd file raises
PLACES = ("generator/model.safetensors", "model.safetensors")  # in the folder that a model is


@torch.no_grad()
def generate(
    generator: nn.Module, model: Model, labels: NDArray[np.int64], indices: NDArray[np.int64], seed: int
) -> NDArray[np.uint8]:
    """Images uint8 [N, H, W, C] of labels [N]; the latent of each is a function of (seed, its index) alone."""
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
    """[N, C, H, W] in [-1, 1] -> uint8 [N, H, W, C]: -1 is 0, 1 is 255, the nearest between."""
    pixels: NDArray[np.uint8] = (
        images.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    )
    return pixels


def grid(images: NDArray[np.uint8], columns: int, gap: int = 2) -> Image.Image:
    """uint8 [N, H, W, C] -> one picture, row by row, on white (transparent for RGBA)."""
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    blank = (0,) * 4 if channels == 4 else (255,) * channels
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), blank, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap) + gap, (i % columns) * (width + gap) + gap
        sheet[top : top + height, left : left + width] = image
    return Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet)


def save_png(picture: Image.Image, path: Path, **text: object) -> None:
    """A PNG, whole or not at all, with `text` in its text chunks."""
    info = PngInfo()
    for key, value in text.items():
        info.add_itxt(key, str(value))
    files.write_atomic(path, lambda file: picture.save(file, "png", pnginfo=info))


@dataclass(frozen=True)
class Generator:
    """A trained generator, ready to sample: what `ptarmigan.load` returns."""

    network: nn.Module
    config: Config
    spec: ImageSpec
    images_seen: int
    fingerprint: str  # of the data set that it was trained on; '' where nobody wrote it down
    selection: str  # why this one of the generators of its run
    scores: dict[str, Any]  # extractor -> the report that `score` made
    sha256: str

    def sample(
        self, label: str | Sequence[str] | None = None, n: int = 16, seed: int = 0
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """`n` images of each class in `label` (default: every class), class by class.

        Returns images uint8 [N, H, W, C] in 0..255 and labels int64 [N] in the data's own numbering.  Image i of a
        class uses latent index i, whatever else is asked for: the same seed gives the same picture in any call.
        Raises UserError for an unknown class, with the known ones, and for a class asked of an unconditional model.
        """
        if n < 1:
            raise UserError(f"-n {n}: at least 1 image a class is needed")
        if not 0 <= seed < 2**63:
            raise UserError(f"--seed {seed}: a seed from 0 to 2^63 - 1 is needed")
        wanted = [label] if isinstance(label, str) else list(label or [])
        if self.config.model.conditioning == "none":
            if wanted and (self.spec.classes > 1 or wanted != list(self.spec.class_names)):
                raise UserError(
                    f"class {wanted[0]!r}: this generator is unconditional (recipe {self.config.recipe}, "
                    "conditioning none) and knows no classes; leave --class out, or train with --recipe auto or acgan"
                )
            chosen = [0]
        else:
            chosen = [self.spec.label(name) for name in wanted] or list(range(self.spec.classes))
        labels = np.repeat(np.array(chosen, np.int64), n)
        indices = np.tile(np.arange(n, dtype=np.int64), len(chosen))
        return generate(self.network, self.config.model, labels, indices, seed), labels


def save_grid(
    generator: Generator, images: NDArray[np.uint8], labels: NDArray[np.int64], path: Path, seed: int
) -> None:
    """What `Generator.sample` returned as one picture, a row for each class; of one class alone, nearly square.

    The PNG's text says the seed, the classes from the top and the generator's SHA-256.
    """
    classes = np.unique(labels)
    columns = len(images) // len(classes) if len(classes) > 1 else math.ceil(len(images) ** 0.5)
    names = ", ".join(generator.spec.class_names[label] for label in dict.fromkeys(labels.tolist()))
    save_png(grid(images, columns), path, seed=seed, classes=names, generator=generator.sha256)


def load(model: str | Path, device: str = "cpu") -> Generator:
    """A generator from a run folder, a generator folder, or a model.safetensors file.

    Raises UserError where there is none, it is damaged, or its content is not what its own header says.
    """
    path = find(Path(model))
    tensors, meta = files.load_tensors(path)
    try:
        config, spec = described(meta)
        with torch.device("meta"):  # no memory is taken at the word of a file: its tensors have to fit first
            network = build_generator(spec, config.model)
        fill(network, tensors)
    except UNREADABLE as error:
        raise UserError(f"{path} is no generator that this ptarmigan can read: {error}") from None
    network.to(pick_device(device)).eval().requires_grad_(False)
    return Generator(
        network, config, spec, meta["images_seen"], meta.get("fingerprint", ""), meta.get("selection", "the last"),
        scores_of(path.parent, meta["sha256"]), meta["sha256"],
    )  # fmt: skip


def described(meta: dict[str, Any]) -> tuple[Config, ImageSpec]:
    """The choices and the shape that a file's header tells; raises one of UNREADABLE where it does not."""
    return config_of(meta), ImageSpec(**{**meta["spec"], "class_names": tuple(map(str, meta["spec"]["class_names"]))})


def fill(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give a network on the meta device its tensors; raises one of UNREADABLE where they are not just those.

    So no memory is taken at the word of a file's header: its tensors have to fit first.
    """
    for name, wanted in network.state_dict().items():
        if tensors[name].dtype != wanted.dtype:
            raise TypeError(f"{name} is {tensors[name].dtype}, not {wanted.dtype}")
    network.load_state_dict(tensors, assign=True)


def scores_of(folder: Path, sha256: str) -> dict[str, Any]:
    """The reports in a generator folder, by extractor, if they are about this generator; a damaged file holds none."""
    try:
        record = files.load_json(folder / "scores.json")
    except files.Damaged:  # or not there
        return {}
    return record["reports"] if record.get("generator") == sha256 else {}


def find(model: Path) -> Path:
    """The model.safetensors that a path means."""
    tried = [*(model / place for place in PLACES), model]
    for path in tried:
        if path.is_file():
            return path
    if not model.exists():
        raise UserError(f"{model} does not exist: name a run, a generator folder or a model.safetensors")
    raise UserError(
        f"{model} holds no generator: {tried[0]} and {tried[1]} were looked for; a run has one from its first "
        "snapshot on"
    )


def sample(
    model: str | Path,
    *,
    label: Sequence[str] | None = None,
    n: int = 16,
    seed: int = 0,
    out: str | Path = "samples.png",
    device: str = "auto",
) -> Path:
    """Draw `n` images of each class in `label` (default: every class) and write them to `out`; returns its path.

    `out` is X.png, one picture with a row for each class; X.npz, arr_0 uint8 [N, H, W, C], arr_1 int64 [N] and
    class_names; or a folder, which gets one folder of PNGs for each class.  Raises UserError for an unknown class,
    an unreadable model, and an `out` that exists: nothing is overwritten.
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"out: {out} exists already and is not overwritten: name another --out, or remove it first")
    if out.suffix.lower() not in ("", ".png", ".npz") and not out.is_dir():
        raise UserError(f"out: {out} is none of X.png, X.npz and a folder")
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
    generator: Generator, images: NDArray[np.uint8], labels: NDArray[np.int64], out: Path, seed: int
) -> None:
    """OUT/CLASS/INDEX.png for each image, all of them or none; a class name that is no file name is mended."""
    unfit = re.compile(r'[<>:"/\\|?*\x00-\x1f]|^\.+$|[. ]+$')
    names = [unfit.sub("_", name) or "_" for name in generator.spec.class_names]
    if len({name.lower() for name in names}) < len(names):
        names = [f"{label} {name}" for label, name in enumerate(names)]
    if generator.config.model.conditioning == "none":
        names = ["images"]
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as beside:
            whole = Path(beside) / out.name
            for label in np.unique(labels):
                (whole / names[label]).mkdir(parents=True)
                for index, image in enumerate(images[labels == label]):
                    picture = grid(image[None], 1, gap=0)
                    save_png(picture, whole / names[label] / f"{index:06d}.png", seed=seed, generator=generator.sha256)
            whole.replace(out)
    except OSError as error:
        raise UserError(f"out: cannot write {out}: {error.strerror}") from None


def info(model: str | Path) -> dict[str, Any]:
    """What a generator knows of itself: path, classes, size, channels, recipe, loss, images seen, scores, SHA-256.

    Raises UserError where there is none or it is damaged.
    """
    generator = load(model)
    spec, config = generator.spec, generator.config
    return {
        "path": str(find(Path(model))),
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
