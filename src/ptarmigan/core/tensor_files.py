"""Tensors and JSON in one safetensors file, written whole or not at all and checked by its SHA-256 when it is read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ptarmigan.core.files import FORMAT, check_format, damaged, write_atomic


def save_tensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> str:
    """Write tensors and JSON to one safetensors file with the SHA-256 of both in it; return the SHA-256.

    The JSON is a single metadata entry: safetensors does not fix the order of several, and equal content must give
    equal bytes.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    meta = {"format": FORMAT, **meta}
    sha256 = _digest(tensors, meta)
    text = json.dumps({**meta, "sha256": sha256}, sort_keys=True)
    write_atomic(path, safetensors.torch.save(tensors, {"ptarmigan": text}))
    return sha256


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote, onto the CPU.

    Raises Damaged where the file cannot be read, is not ours, or does not have the SHA-256 that it names;
    OtherFormat where it is whole and has another format than FORMAT.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            meta: dict[str, Any] = json.loads((file.metadata() or {})["ptarmigan"])
        tensors = safetensors.torch.load_file(path)
        sha256 = meta.pop("sha256")
        good = sha256 == _digest(tensors, meta)
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, safetensors.SafetensorError,
    ) as error:  # fmt: skip
        raise damaged(path, error) from None
    if not good:
        raise damaged(path)
    check_format(path, meta.get("format"))
    return tensors, {**meta, "sha256": sha256}


def _digest(tensors: dict[str, Tensor], meta: dict[str, Any]) -> str:
    sha = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
