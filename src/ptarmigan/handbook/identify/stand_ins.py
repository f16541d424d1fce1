"""The form in which a loss gets its arguments, and the devices, types and criteria that stand in for the user's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ptarmigan.handbook.identify.names import harmless_role, side_of
from ptarmigan.handbook.identify.signature import Stops

LATENT_DIM = 16
WITH_TARGET = {"binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss", "l1_loss", "smooth_l1_loss"}
TYPES = {"FloatTensor", "HalfTensor", "DoubleTensor", "BFloat16Tensor", "Tensor"}


@dataclass(frozen=True)
class Setup:
    """The form in which a loss gets its arguments."""

    on: str = "logits"  # D's outputs: logits or probabilities
    class_on: str = "logits"  # class outputs, likewise
    size: int = 8
    classes: int = 10
    array: bool = False  # numpy arrays instead of torch tensors
    form: str = "flat"  # of D's outputs: flat [N], column [N, 1], patch [N, 1, 2, 2], or a list of one scale
    side: int = 2  # of patches
    onehot: bool = False  # labels [N, K] instead of [N]
    head: str = ""  # D returns (source, class) or (source, features), or G a pair
    truth: bool = False  # whether what is not known holds
    dtype: torch.dtype = torch.float64
    draws: int = 1  # calls with different seeds that are averaged

    def tensor(self, value: Any, grad: bool = False) -> Tensor:
        return torch.tensor(value, dtype=self.dtype, requires_grad=grad and not self.array)

    def shaped(self, value: Tensor) -> Any:
        """Outputs [N] in the form that the loss takes."""
        if self.form == "column":
            return value.unsqueeze(1)
        if self.form == "patch":
            return value.view(-1, 1, 1, 1).expand(-1, 1, self.side, self.side) + 0
        features = torch.ones(len(value), 3)
        scale = value.unsqueeze(1)
        lists = {"scales": [scale], "nested": [[features, scale]], "pairs": [(scale, [features])]}
        return lists.get(self.form, value)


def is_score(x: Any) -> bool:
    """Whether a value is made of D's outputs."""
    return isinstance(x, Tensor) and x.requires_grad and not isinstance(x, nn.Parameter)


class Neutral(TorchFunctionMode):
    """Keep all tensors on the CPU and in one precision, whatever devices and types the loss asks for.

    A constant target takes the size of D's output if `fits`: the networks of the file may have another one.
    """

    def __init__(self, dtype: torch.dtype, fits: bool) -> None:
        super().__init__()
        self.dtype, self.fits = dtype, fits

    def _plain(self, x: Any) -> Any:
        if isinstance(x, torch.dtype):
            return self.dtype if x.is_floating_point else x
        if isinstance(x, torch.device) or (isinstance(x, str) and x.startswith(("cuda", "mps", "xpu"))):
            return torch.device("cpu")
        name = getattr(x, "__name__", str(x).strip("'<> ").rsplit(".")[-1])
        if isinstance(x, Tensor):
            return x
        return self.dtype if name in TYPES else torch.long if name == "LongTensor" else x

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), dict(kwargs or {})
        if name.startswith("binary_cross_entropy") and [is_score(x) for x in args[:2]] == [False, True]:
            raise Stops("exchanged")
        is_whole = name == "__getitem__" and (isinstance(args[1], str) or (type(args[1]) is int and args[0].ndim == 0))
        is_whole |= self.fits and name in ("expand", "expand_as") and not is_score(args[0])  # to an image's size
        if name == "cuda" or is_whole:  # D's answer may be a dict, and old versions of PyTorch had no scalars
            return args[0]
        if name in ("float", "half", "double", "bfloat16"):
            return args[0].to(self.dtype)
        if name in ("to", "type"):
            args = (args[0], *map(self._plain, args[1:]))
        if "device" in kwargs:
            kwargs["device"] = "cpu"
        if "dtype" in kwargs:
            kwargs["dtype"] = self._plain(kwargs["dtype"])
        if self.fits and name in WITH_TARGET and all(isinstance(x, Tensor) for x in args[:2]) and len(args) > 1:
            output, target = args[:2]
            if output.shape != target.shape and is_score(output) and target.numel() and target.min() == target.max():
                args = (output, torch.full_like(output, target.flatten()[0].item()), *args[2:])
        out = func(*args, **kwargs)
        if isinstance(out, Tensor) and out.dtype != self.dtype and out.is_floating_point() and name != "__get__":
            return out.to(self.dtype)
        return out


def harmless(name: str) -> Any:
    """A value for an argument that is not D's output: a weight of 1, a penalty of 0."""
    if side_of(name) == "fake":
        return 0.0  # a target
    return {"device": torch.device("cpu"), "zero": 0.0, "off": 0, "one": 1}.get(harmless_role(name), 1.0)
