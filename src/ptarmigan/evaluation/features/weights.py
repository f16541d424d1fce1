"""Pretrained weights: files are parsed only if their SHA-256 is right; batch norms are folded into convolutions."""

from __future__ import annotations

import hashlib
import io
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ptarmigan.core.types import UserError


def read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    """The tensors of a PyTorch checkpoint that has this SHA-256, on the CPU.

    Raises UserError, without parsing the file, if it cannot be read or has another SHA-256.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        text = f"cannot read the weights {path}: {error.strerror}; name another file with --weights"
        raise UserError(text, "file-unreadable") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        text = f"{path} does not have the SHA-256 {sha256}: it is damaged or holds other weights; download it again"
        raise UserError(text, "file-damaged")
    tensors: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return tensors


def load_weights(network: nn.Module, path: Path, sha256: str) -> None:
    """Load the weights of a file into their network, for evaluation; raises UserError like `read_weights`."""
    network.load_state_dict(read_weights(path, sha256))
    network.eval().requires_grad_(False)
    fold_batch_norm(network)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def fold_batch_norm(network: nn.Module) -> None:
    """Fold each batch norm, with its running statistics, into the convolution registered just before it; in place.

    w' = w g / sqrt(v + eps), b' = beta - m g / sqrt(v + eps): the same function with one fewer pass over memory.
    """
    for module in list(network.modules()):
        for (name, convolution), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(convolution, norm))
                setattr(module, norm_name, nn.Identity())
