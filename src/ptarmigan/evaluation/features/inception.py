"""The Inception-v3 of the FID, the TensorFlow graph of 2015-12-05 (Heusel et al. 2017, 1706.08500).

It differs from the Inception-v3 of the paper: average pools exclude the padding, the last block's pool is a maximum,
there are 1,008 logits, and pixels are resized as in TensorFlow 1.  The weights were converted from that graph;
torch-fidelity publishes them (Apache-2.0), and pytorch-fid as pt_inception-2015-12-05-6726825d.pth.  Module names are
theirs.  Both file names contain the first eight digits of the SHA-256; the other digits are those that several
independent projects recorded for torch-fidelity's file, and were not checked against the file here.
"""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptarmigan.core import files
from ptarmigan.core.types import UserError
from ptarmigan.data.cache import cache_folder
from ptarmigan.evaluation.features import weights

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
FILE = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
SIZE = 299
DIM = 2048
Kernel = int | tuple[int, int]


def resize(images: Tensor, size: int) -> Tensor:
    """Bilinear [N, C, H, W] -> [N, C, size, size] like TensorFlow 1's resize_bilinear with align_corners false.

    Output pixel i is read at i H / size: without half-pixel centres, which shifts the image up and left, and without
    antialiasing, which undersamples large images.  The FID has always been computed this way.
    """
    for dim in (3, 2):
        side = images.shape[dim]
        at = torch.arange(size, device=images.device, dtype=torch.float32) * (side / size)
        low = at.long()
        share = (at - low).view(-1, *[1] * (3 - dim))
        near, far = images.index_select(dim, low), images.index_select(dim, (low + 1).clamp(max=side - 1))
        images = near + (far - near) * share
    return images


class Conv(nn.Module):
    """Convolution, batch norm, ReLU; padded to keep the side, or not padded if `valid`."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel = 1, stride: int = 1, valid: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, 0 if valid else "same", bias=False)
        self.bn = nn.BatchNorm2d(outputs, 1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


def average_pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 1, 1)


class MixedA(nn.Module):
    """35x35: 1x1, 5x5, two 3x3, pool."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 64)
        self.branch5x5_1 = Conv(inputs, 48)
        self.branch5x5_2 = Conv(48, 64, 5)
        self.branch3x3dbl_1 = Conv(inputs, 64)
        self.branch3x3dbl_2 = Conv(64, 96, 3)
        self.branch3x3dbl_3 = Conv(96, 96, 3)
        self.branch_pool = Conv(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        one = self.branch1x1(x)
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([one, five, three, self.branch_pool(average_pool(x))], 1)


class MixedB(nn.Module):
    """35x35 -> 17x17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = Conv(inputs, 384, 3, 2, valid=True)
        self.branch3x3dbl_1 = Conv(inputs, 64)
        self.branch3x3dbl_2 = Conv(64, 96, 3)
        self.branch3x3dbl_3 = Conv(96, 96, 3, 2, valid=True)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class MixedC(nn.Module):
    """17x17: 7x7 as 1x7 and 7x1."""

    def __init__(self, inputs: int, narrow: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 192)
        self.branch7x7_1 = Conv(inputs, narrow)
        self.branch7x7_2 = Conv(narrow, narrow, (1, 7))
        self.branch7x7_3 = Conv(narrow, 192, (7, 1))
        self.branch7x7dbl_1 = Conv(inputs, narrow)
        self.branch7x7dbl_2 = Conv(narrow, narrow, (7, 1))
        self.branch7x7dbl_3 = Conv(narrow, narrow, (1, 7))
        self.branch7x7dbl_4 = Conv(narrow, narrow, (7, 1))
        self.branch7x7dbl_5 = Conv(narrow, 192, (1, 7))
        self.branch_pool = Conv(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(average_pool(x))], 1)


class MixedD(nn.Module):
    """17x17 -> 8x8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = Conv(inputs, 192)
        self.branch3x3_2 = Conv(192, 320, 3, 2, valid=True)
        self.branch7x7x3_1 = Conv(inputs, 192)
        self.branch7x7x3_2 = Conv(192, 192, (1, 7))
        self.branch7x7x3_3 = Conv(192, 192, (7, 1))
        self.branch7x7x3_4 = Conv(192, 192, 3, 2, valid=True)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)


class MixedE(nn.Module):
    """8x8: 3x3 as 1x3 and 3x1 in parallel.  `pool` is `average_pool`, in the last block `max_pool`."""

    def __init__(self, inputs: int, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 320)
        self.branch3x3_1 = Conv(inputs, 384)
        self.branch3x3_2a = Conv(384, 384, (1, 3))
        self.branch3x3_2b = Conv(384, 384, (3, 1))
        self.branch3x3dbl_1 = Conv(inputs, 448)
        self.branch3x3dbl_2 = Conv(448, 384, 3)
        self.branch3x3dbl_3a = Conv(384, 384, (1, 3))
        self.branch3x3dbl_3b = Conv(384, 384, (3, 1))
        self.branch_pool = Conv(inputs, 192)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return torch.cat([
            self.branch1x1(x),
            self.branch3x3_2a(three), self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double),
            self.branch_pool(self.pool(x)),
        ], 1)  # fmt: skip


class Inception(nn.Module):
    """Pixels [N, 1 or 3, H, W] in 0..255 -> features [N, 2048], the spatial mean of the last map."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, 2, valid=True)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3, valid=True)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = Conv(64, 80)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3, valid=True)
        self.Mixed_5b = MixedA(192, 32)
        self.Mixed_5c = MixedA(256, 64)
        self.Mixed_5d = MixedA(288, 64)
        self.Mixed_6a = MixedB(288)
        self.Mixed_6b = MixedC(768, 128)
        self.Mixed_6c = MixedC(768, 160)
        self.Mixed_6d = MixedC(768, 160)
        self.Mixed_6e = MixedC(768, 192)
        self.Mixed_7a = MixedD(768)
        self.Mixed_7b = MixedE(1280, average_pool)
        self.Mixed_7c = MixedE(2048, max_pool)
        self.fc = nn.Linear(DIM, 1008)  # the graph's logits, which the FID does not use

    def forward(self, pixels: Tensor) -> Tensor:
        return self.features(self.prepare(pixels))

    def prepare(self, pixels: Tensor) -> Tensor:
        """Pixels at 299x299 resized as in the graph, RGB, (x - 128) / 128."""
        return ((resize(pixels, SIZE) - 128) / 128).expand(-1, 3, -1, -1)

    def features(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean((2, 3))


def load_network(path: Path | None = None) -> tuple[Inception, str]:
    """The network with weights from `path`, the cache or a download, in evaluation mode, and their SHA-256.

    Raises UserError if the weights cannot be obtained or do not have the expected SHA-256.
    """
    network = Inception()
    weights.load_weights(network, path or weights_path(), SHA256)
    return network, SHA256


def weights_path() -> Path:
    """The file of weights in the cache, downloaded if it is missing; raises UserError if the download fails."""
    path = cache_folder() / "weights" / FILE
    if not path.exists():
        try:
            with urllib.request.urlopen(URL, timeout=60) as answer:
                content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            text = f"cannot download {URL}: {error}; download it on another machine and pass the file with --weights"
            raise UserError(text, "download-failed") from None
        if (found := hashlib.sha256(content).hexdigest()) != SHA256:
            text = f"the download of {URL} has the SHA-256 {found} instead of {SHA256} and was discarded; try again"
            raise UserError(text, "file-damaged")
        files.make_folder(path.parent)
        files.write_atomic(path, content)
    return path
