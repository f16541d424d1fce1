"""What a loss gets in the place of the user's networks, images, configurations and devices.

The stubs of D and G run no layers: D looks up the outputs that the probe has chosen, by what each image says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ptarmigan.handbook.identify.names import harmless_role, is_batch_size, network_of, side_of, sort_of, words_of
from ptarmigan.handbook.identify.signature import LossError, Stops

LATENT_DIM = 16
MARK = 0.123  # the last pixel of an image
PIXELS = 28 * 28  # of an image that a stub of D reads: thirds of path, side and number
TYPES = {"FloatTensor", "HalfTensor", "DoubleTensor", "BFloat16Tensor", "Tensor"}
SIZES = {"dim", "dimension", "size", "nz", "num", "channels", "nc", "classes", "batch", "width", "latent", "hidden"}


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
    images: str = "flat"  # [N, P]; 2d: [N, 1, S, S]; 3d: [N, 1, 1, S, S]
    dtype: torch.dtype = torch.float64
    draws: int = 1  # calls with different seeds that are averaged

    @property
    def label_count(self) -> int:
        """Labels are below this number, so that discriminative_classifier's K + y are valid classes as well."""
        return max(self.classes // 2, 2)

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
        return {"scales": [scale], "nested": [[features, scale]], "flat": value}[self.form]


class Neutral(TorchFunctionMode):
    """Keep all tensors on the CPU and in one precision, whatever devices and types the loss asks for."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def _plain(self, x: Any) -> Any:
        if isinstance(x, torch.dtype):
            return self.dtype if x.is_floating_point else x
        if isinstance(x, torch.device) or (isinstance(x, str) and x.startswith(("cuda", "mps", "xpu"))):
            return torch.device("cpu")
        return self.dtype if str(x).strip("'<> ").rsplit(".")[-1] in TYPES and not isinstance(x, Tensor) else x

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), dict(kwargs or {})
        if name.startswith("binary_cross_entropy") and [x.requires_grad for x in args[:2]] == [False, True]:
            raise Stops("exchanged")
        if name == "cuda":
            return args[0]
        if name in ("float", "half", "double", "bfloat16"):
            return args[0].to(self.dtype)
        if name in ("to", "type"):
            args = (args[0], *map(self._plain, args[1:]))
        if "device" in kwargs:
            kwargs["device"] = "cpu"
        if "dtype" in kwargs:
            kwargs["dtype"] = self._plain(kwargs["dtype"])
        out = func(*args, **kwargs)
        if isinstance(out, Tensor) and out.dtype != self.dtype and out.is_floating_point() and name != "__get__":
            return out.to(self.dtype)
        return out


def without_mode(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Outside Neutral, whose checks cost more than the work of a stub."""

    def run(*given: Any, **more: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return forward(*given, **more)

    return run


class Config(float):
    """A configuration whose entries are those of the command line, else 1."""

    settings: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        name = str(name)  # an item has any key
        if name.startswith("__"):
            raise AttributeError(name)
        if is_batch_size(name) and "" in self.settings:
            return self.settings[""]  # the probe's
        known = self.settings.get(name)
        return config(self.settings, name) if known is None else known

    __getitem__ = __getattr__
    __iter__ = None

    def __call__(self, *given: Any, **named: Any) -> Any:
        return config(self.settings, next((x for x in given if isinstance(x, str)), ""))

    def __bool__(self) -> bool:
        return False


class Method(Config):
    """A method of a network that returns latents, or a configuration that the network holds."""

    size: int

    def __call__(self, *given: Any, **named: Any) -> Any:
        return torch.randn(self.size, LATENT_DIM)


def config(settings: dict[str, Any], name: str = "") -> Any:
    if SIZES & set(words_of(name)) or sort_of(name) == "width":
        return 10 if "classes" in name else LATENT_DIM
    if harmless_role(name) == "off":
        return None
    made = Config(0.0 if harmless_role(name) == "zero" else 1.0)
    made.settings = settings
    return made


def harmless(name: str, settings: dict[str, Any]) -> Any:
    """A value for an argument that is not D's output: a weight of 1, a penalty of 0, a configuration."""
    role = harmless_role(name)
    if side_of(name) == "fake":
        return 0.0  # a target
    if SIZES & set(words_of(name)):
        return 4
    return {"device": "cpu", "zero": 0.0, "off": 0, "one": 1, "weight": 1.0}.get(role, config(settings))


class Stub(nn.Module):
    """A network whose parameters are 0 and are added to its outputs, one for each value of each role."""

    def __init__(self, setup: Setup, answers: int, like: dict[str, Tensor]) -> None:
        super().__init__()
        self.setup, self.answers = setup, answers  # how many values it returns
        self.shifts = nn.ParameterDict({role: torch.zeros_like(value) for role, value in like.items()})
        self.images = torch.zeros(0)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__"):
                raise
            return self.method(name)

    def method(self, name: str) -> Any:
        """A method of the user's network, or a setting of it."""
        made = Method(1.0)
        made.settings, made.size = {}, self.setup.size
        return made


class StubD(Stub):
    """A discriminator that looks up its outputs: each image says its side and its number in the batch.

    Its slope in the image is `slope`, along the first third of the pixels, which are 0.
    """

    def __init__(self, setup: Setup, answers: int, leaves: dict[str, Tensor], slope: Tensor) -> None:
        super().__init__(setup, answers, leaves)
        self.leaves, self.slope = leaves, slope

    def method(self, name: str) -> Any:
        if "loss" in name:
            raise LossError(f"{name} is a method of D, which is not in the file: name the file that defines it")
        return super().method(name)

    @without_mode
    def forward(self, *given: Any, **more: Any) -> Any:
        parts = [x for one in (*given, *more.values()) for x in (one.values() if isinstance(one, dict) else [one])]
        tensors = [x for x in parts if isinstance(x, Tensor) and x.ndim > 1 and x.is_floating_point()]
        planes = [x.flatten(2) if x.ndim > 2 else x.unsqueeze(1) for x in tensors if x[0].numel() > 8]
        if not planes:  # a head on another network's output
            return next(iter(given), None)
        side, number, path, rows = self._read(planes)

        def output(role: str, weights: Tensor) -> Tensor:
            halves = [self.leaves.get(f"{role}{half}") for half in ("real", "fake")]
            known = next(half for half in halves if half is not None)
            a, b = (
                torch.zeros_like(known) if half is None else half.detach() + self.shifts[f"{role}{side}"]
                for side, half in zip(("real", "fake"), halves, strict=True)
            )
            return torch.where(weights > 0, weights * a[number], 0) + torch.where(
                weights < 1, (1 - weights) * b[number], 0
            )

        logits = output("", side) + self.slope * (path - path.detach())
        source = self.setup.shaped(logits.sigmoid() if self.setup.on == "probabilities" else logits)
        if self.setup.head == "class":
            c = output("class_", side.unsqueeze(1))
            return source, c.softmax(1) if self.setup.class_on == "probabilities" else c
        features = rows.flatten(1).detach()
        if self.answers > 2:
            return source, *[features] * (self.answers - 1)
        return {"features": (source, features), "maps": (source, [features]), "first": (features, source)}.get(
            self.setup.head, source
        )

    def _read(self, planes: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Each image's side (1: real) and number, the path of D's slope, and the images; undoes a rescaling."""
        length = max((x.shape[-1] for x in planes if is_image(x).any()), default=max(x.shape[-1] for x in planes))
        rows = torch.cat([x for x in planes if x.shape[-1] == length], 1)
        third = length // 3
        base = rows[:, :, :third].detach().mean(-1, keepdim=True)  # of pixels 0 and MARK
        scale = torch.where(is_image(rows).unsqueeze(-1), (rows[:, :, -1:].detach() - base) / MARK, 1)
        marks = (rows.detach() - torch.where(is_image(rows).unsqueeze(-1), base, 0)) / scale
        sides = marks[:, :, third : 2 * third].mean(-1)
        which = torch.where(is_image(rows) | ~is_image(rows).any(1, keepdim=True), sides, torch.inf).argmin(1)
        each = torch.arange(len(rows))
        row, mark = rows[each, which], marks[each, which]
        side = ((mark[:, third : 2 * third].mean(-1) + 1) / 2).clamp(0, 1)
        side = torch.where((side - side.round()).abs() < 0.2, side.round(), side)
        number = (mark[:, 2 * third : -1].mean(-1) * self.setup.size).round().long().clamp(0, self.setup.size - 1)
        return side, number, row[:, :third].sum(-1) / third**0.5, rows


def is_image(planes: Tensor) -> Tensor:
    """Which of the planes [N, C, P] are an image of images_of, rescaled perhaps: a flat third, then another value."""
    first, last = planes[:, :, : max(planes.shape[-1] // 3, 1)].detach(), planes[:, :, -1].detach()
    return (first.amax(-1) - first.amin(-1) < 1e-6) & (last - first[:, :, 0] > 1e-3)


class StubG(Stub):
    """A generator that returns the images that were put into it."""

    def method(self, name: str) -> Any:
        return self if {"sample", "generate", "decode", "synthesis"} & set(words_of(name)) else super().method(name)

    @without_mode
    def forward(self, *given: Any, **more: Any) -> Any:
        x = next(iter(given), None)
        x = x[0] if isinstance(x, list | tuple) and x else x
        images = self.images[: len(x) if isinstance(x, Tensor) and x.ndim else None] + self.shifts["zero"]
        images = images.view_as(x) if isinstance(x, Tensor) and x.numel() == images.numel() else images
        return (images, *[x] * (self.answers - 1)) if self.answers > 1 else images


class Nets:
    """A holder of networks, of which D and G are stubs; any other, and itself, returns its first argument."""

    def __init__(self, stubs: dict[str, Stub]) -> None:
        self.stubs = stubs

    def __getattr__(self, name: str) -> Any:
        return self.stubs.get(network_of(name) or "", Nets({}))

    def __call__(self, x: Any = None, *more: Any, **named: Any) -> Any:
        return x


class Criterion(nn.Module):
    """Cross-entropy of D's output and a target, which may be a flag or a number."""

    def __init__(self, on: str, name: str) -> None:
        super().__init__()
        if {"mse", "l1", "l2", "hinge"} & set(words_of(name)):
            raise LossError(f"{name} is not in the file: define it there")
        self.name = name
        self.loss = nn.BCELoss() if on == "probabilities" else nn.BCEWithLogitsLoss()

    def forward(self, output: Any, target: Any, *more: Any, **named: Any) -> Any:
        if isinstance(target, Tensor) and target.requires_grad:
            raise LossError(
                f"{self.name} is not in the file, and takes two outputs of D: give the file that defines it"
            )
        while isinstance(output, list | tuple):
            output = output[-1]
        return self.loss(output, target if isinstance(target, Tensor) else torch.full_like(output, float(target)))


def images_of(side: str, setup: Setup, leaves: dict[str, Tensor]) -> Tensor:
    """Images [N, 1, S, S] that say their side and their number; D's gradient passes through their first third."""
    leaf = leaves.get(side, torch.zeros(setup.size))
    third = PIXELS // 3
    path = (leaf - leaf.detach()).unsqueeze(1).expand(-1, third) / third**0.5
    number = (torch.arange(setup.size) / setup.size).unsqueeze(1).expand(-1, PIXELS - 2 * third)
    flat = torch.cat([path, torch.full((setup.size, third), 1.0 if side == "real" else -1.0), number], 1)
    flat[:, -1] = MARK
    return {"flat": flat, "2d": flat.view(-1, 1, 28, 28), "3d": flat.view(-1, 1, 1, 28, 28)}[setup.images]
