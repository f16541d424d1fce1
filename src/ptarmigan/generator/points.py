"""Points among a generator's inputs, a latent with weights of the classes, and files that keep them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ptarmigan.core.files import Damaged
from ptarmigan.core.paths import user_path
from ptarmigan.core.tensor_files import load_tensors, save_tensors
from ptarmigan.core.types import UserError, shown
from ptarmigan.generator.generator import TrainedGenerator

ROW_OF_FILE = re.compile(r"(.+\.safetensors)(?::(\d{1,9}))?")  # a file, and which of its rows; the first by default


class Points(NamedTuple):
    """Inputs of a generator that may lie between its classes; a generator without classes ignores the weights."""

    z: Tensor  # [N, Z]
    classes: Tensor  # [N, K], the weights of the class embeddings, whose sum is 1

    @classmethod
    def sampled(cls, generator: TrainedGenerator, label: int, seed: int) -> Points:
        """The point [1] of the first image of a class that `sample` draws with a seed."""
        return cls(generator.latents(1, seed), torch.eye(generator.spec.classes)[label : label + 1])


def images_at(network: nn.Module, points: Points) -> Tensor:
    """Images [N, C, H, W] on the network's device, not clamped; their gradient reaches the latents and the weights."""
    device = next(network.parameters()).device
    z, classes = (tensor.to(device) for tensor in points)
    embeddings: dict[str, Tensor] = {}
    if isinstance(network.embedding, nn.Embedding):  # its table gets a row for each point
        embeddings = {"embedding.weight": classes @ network.embedding.weight}
    images: Tensor = functional_call(network, embeddings, (z, torch.arange(len(z), device=device)))
    return images


def save_rows(path: Path, generator: TrainedGenerator, **rows: Tensor) -> None:
    """Write tensors with one row for each point or direction, which belong to a generator."""
    save_tensors(path, rows, {"generator": generator.sha256})


def is_row(given: str) -> bool:
    """Whether a user named a file of rows, or one of its rows as FILE:NUMBER."""
    return ROW_OF_FILE.fullmatch(given) is not None


def load_row(given: str, option: str, generator: TrainedGenerator, widths: dict[str, int]) -> list[Tensor]:
    """The row [1, width] that FILE or FILE:NUMBER names, of each tensor in `widths`.

    Raises UserError as `load_rows` does, value-invalid, and value-out-of-range for a number that the file has not.
    """
    found = ROW_OF_FILE.fullmatch(given)
    if found is None:
        text = f"{option}: expected a file X.safetensors or X.safetensors:NUMBER, got {shown(given)}"
        raise UserError(text, "value-invalid")
    path, number = user_path(found[1], option), int(found[2] or 0)
    tensors = load_rows(path, option, generator, widths)
    if number >= (count := min(map(len, tensors))):
        text = f"{option}: {path} has the numbers 0 to {count - 1}, and not {number}"
        raise UserError(text, "value-out-of-range")
    return [tensor[number : number + 1] for tensor in tensors]


def load_rows(path: Path, option: str, generator: TrainedGenerator, widths: dict[str, int]) -> list[Tensor]:
    """All rows [M, width] of each tensor in `widths`.

    Raises UserError: file-damaged for a file of other tensors, generator-differs for one of another generator.
    """
    tensors, meta = load_tensors(path)
    if meta.get("generator", generator.sha256) != generator.sha256:
        raise other_generator(option, path)
    rows = []
    for name, width in widths.items():
        tensor = tensors.get(name)
        if tensor is None or tensor.shape[1:] != (width,) or not tensor.isfinite().all():
            raise Damaged(f"{option}: {path} has no rows {name} of {width} finite numbers: name another file")
        rows.append(tensor.float())
    return rows


def other_generator(option: str, path: Path) -> UserError:
    text = f"{option}: {path} belongs to another generator: name that one, or for a run its checkpoint with --at"
    return UserError(text, "generator-differs")
