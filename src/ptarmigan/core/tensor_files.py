"""Tensors and JSON in one safetensors file, written whole or not at all and checked by its SHA-256 when it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ptarmigan.core.files import FORMAT, SealedTensor, damaged, read_sealed, seal_tensors, write_atomic


def save_tensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> str:
    """Write tensors and JSON to one safetensors file with the SHA-256 of both in it; return the SHA-256.

    The JSON is a single metadata entry: safetensors does not fix the order of several, and equal content must give
    equal bytes.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    meta = {"format": FORMAT, **meta}
    sha256 = seal_tensors(meta, (sealed(name, tensors[name]) for name in sorted(tensors)))
    text = json.dumps({**meta, "sha256": sha256}, sort_keys=True)
    write_atomic(path, safetensors.torch.save(tensors, {"ptarmigan": text}))
    return sha256


def load_tensors(path: Path, skip: tuple[str, ...] = ()) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote, onto the CPU, except tensors whose names start with one of `skip`.

    Raises Damaged where the file cannot be read, is not ours, or does not have the SHA-256 that it names;
    OtherFormat where it is whole and has another format than FORMAT.
    """
    tensors: dict[str, Tensor] = {}

    def visit(name: str, tensor: Tensor) -> SealedTensor:
        if not name.startswith(skip):
            tensors[name] = tensor
        return sealed(name, tensor)

    return tensors, read_sealed(path, "pt", visit)


def check_arrays(path: Path, tensors: dict[str, Tensor], types: dict[str, torch.dtype]) -> None:
    """Raise Damaged unless a file has these tensors, each of one dimension, and all of one length."""
    for name, dtype in types.items():
        if name not in tensors or tensors[name].dtype != dtype or tensors[name].ndim != 1:
            raise damaged(path, ValueError(f"it has no list {name} of {dtype}"))
    if len({len(tensors[name]) for name in types}) > 1:
        raise damaged(path, ValueError(f"{' and '.join(types)} differ in length"))


def sealed(name: str, tensor: Tensor) -> SealedTensor:
    return name, str(tensor.dtype), tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).numpy().data
