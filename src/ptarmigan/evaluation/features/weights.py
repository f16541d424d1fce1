"""Pretrained weights: no byte of them is read before its SHA-256 is known; batch norm folded into convolutions."""

from __future__ import annotations

import hashlib
import io
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ptarmigan.core.types import UserError


def read(path: Path, sha256: str) -> dict[str, Tensor]:
    """The tensors of a PyTorch checkpoint whose bytes have this SHA-256, on the CPU.

    Raises UserError where the file cannot be read or has other bytes; those are not looked into.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the weights {path}: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{path} does not have the SHA-256 {sha256}: these are other weights, or damaged ones")
    tensors: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return tensors


def install(network: nn.Module, path: Path, sha256: str) -> None:
    """Put the weights of a file into their network and make it ready to run; raises UserError as `read` does."""
    network.load_state_dict(read(path, sha256))
    network.eval().requires_grad_(False)
    fold(network)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def fold(network: nn.Module) -> None:
    """Fold each batch norm, as it is in evaluation, into the convolution registered just before it; in place.

    w' = w g / sqrt(v + eps), b' = beta - m g / sqrt(v + eps): one pass over memory less, and the same function.
    """
    for module in list(network.modules()):
        for (place, convolution), (norm_place, norm) in pairwise(list(module.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, place, fuse_conv_bn_eval(convolution, norm))
                setattr(module, norm_place, nn.Identity())
