"""Extractors: pretrained networks that map images to features.  The SHA-256 of the file of weights is checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ptarmigan.core.devices import pick_device
from ptarmigan.core.paths import user_path
from ptarmigan.core.types import UserError, unknown
from ptarmigan.evaluation.features import efficientnet, inception

CHUNK = 16  # images per forward pass on a CPU, whose caches hold their maps; 64 are half as fast
CHUNK_GPU = 256
SOFTNESS = 1 / 32  # of the width: the standard deviation of the blur of `softened`


@dataclass(frozen=True)
class Extractor:
    """A network that maps pixels in 0..255 to features, and what a report states about it."""

    name: str
    score_name: str  # of the Fréchet distance of its features
    sha256: str  # of the weights' file
    size: int  # side of the square that the network resizes images to
    dim: int
    network: nn.Module  # [N, 1 or 3, H, W] float in 0..255 -> [N, dim]

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Tensor:
        """uint8 [N, H, W, C] -> float32 [N, dim] on the CPU; C is 1 (grey), 3 (RGB) or 4 (RGBA, composited on white).

        Raises UserError for images of another type or shape.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3, 4):
            text = f"expected images as uint8 [N, H, W, 1, 3 or 4], got {images.dtype} {list(images.shape)}"
            raise UserError(text, "data-invalid")
        device = next(self.network.parameters()).device
        out = torch.empty(len(images), self.dim)
        chunk = CHUNK if device.type == "cpu" else CHUNK_GPU
        for start in range(0, len(images), chunk):
            part = torch.from_numpy(np.array(images[start : start + chunk], order="C"))
            pixels = part.to(device).permute(0, 3, 1, 2).float().contiguous()  # contiguous: resizes twice as fast
            if pixels.shape[1] == 4:
                pixels = 255 + (pixels[:, :3] - 255) * (pixels[:, 3:] / 255)
            out[start : start + chunk] = self.network(pixels)
        return out


def softened(extractor: Extractor) -> Extractor:
    """The same network for slightly blurred images: noise that the eye overlooks no longer moves its features."""
    return replace(extractor, sha256=f"{extractor.sha256} softened", network=nn.Sequential(_Blur(), extractor.network))


class _Blur(nn.Module):
    """Blurs images [N, C, H, W] by a Gaussian whose standard deviation is SOFTNESS of their width."""

    def forward(self, images: Tensor) -> Tensor:
        channels, deviation = images.shape[1], SOFTNESS * images.shape[3]
        radius = round(3 * deviation)
        kernel = torch.arange(-radius, radius + 1, device=images.device).div(deviation).square().div(-2).exp()
        kernel = (kernel / kernel.sum()).expand(channels, 1, 1, -1)
        images = F.pad(images, (radius,) * 4, mode="replicate")
        return F.conv2d(F.conv2d(images, kernel, groups=channels), kernel.mT, groups=channels)


def _efficientnet_lite0(weights: Path | None) -> Extractor:
    network, sha256 = efficientnet.load_network(weights)
    return Extractor("EfficientNet-Lite0", "FD-EffNetLite0", sha256, efficientnet.SIZE, efficientnet.DIM, network)


def _inception(weights: Path | None) -> Extractor:
    network, sha256 = inception.load_network(weights)
    return Extractor("Inception-v3 of 2015-12-05", "FID", sha256, inception.SIZE, inception.DIM, network)


EXTRACTORS: dict[str, Callable[[Path | None], Extractor]] = {
    "efficientnet-lite0": _efficientnet_lite0,
    "inception": _inception,
}


def load_extractor(
    name: str = "efficientnet-lite0", weights: str | Path | None = None, device: str | torch.device = "cpu"
) -> Extractor:
    """The extractor of this name on a device, with weights from a file or from their usual place.

    Raises UserError for an unknown name, and for weights that are missing or do not have the expected SHA-256.
    """
    if name not in EXTRACTORS:
        raise unknown("extractor", name, EXTRACTORS)
    extractor = EXTRACTORS[name](None if weights is None else user_path(weights, "weights"))
    extractor.network.to(pick_device(device) if isinstance(device, str) else device)
    return extractor
