"""(seed, indices, labels) -> uint8 images, from live weights or a generator folder; grids of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import nn

from ptarmigan import files, seeding
from ptarmigan.config import Config, Model, resolve
from ptarmigan.contracts import ImageSpec, UserError
from ptarmigan.networks import build_generator

CHUNK = 256  # images a forward: the same whatever is asked for


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
        out.append(images.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
    generator.train(training)
    return np.concatenate(out)


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
    scores: dict[str, Any]
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
        config = resolve(meta["config"])
        spec = ImageSpec(**{**meta["spec"], "class_names": tuple(meta["spec"]["class_names"])})
        network = build_generator(spec, config.model)
        network.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError, UserError) as error:
        raise UserError(f"{path} is no generator that this ptarmigan can read: {error}") from None
    network.to(device).eval().requires_grad_(False)
    return Generator(network, config, spec, meta["images_seen"], meta.get("scores", {}), meta["sha256"])


def find(model: Path) -> Path:
    """The model.safetensors that a path means."""
    tried = [model / "generator" / "model.safetensors", model / "model.safetensors", model]
    for path in tried:
        if path.is_file():
            return path
    if not model.exists():
        raise UserError(f"{model} does not exist: give a run folder, a generator folder or a model.safetensors file")
    raise UserError(
        f"{model} holds no generator: {tried[0]} and {tried[1]} were looked for; a run has one from its first snapshot on"
    )
