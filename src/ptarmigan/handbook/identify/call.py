"""Somebody's loss as a function of numbers: logits in, values and gradients out, whatever it takes and returns."""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptarmigan.handbook.identify.signature import CLASSES, GIVEN, SCORES, Reading, describe, parameters_of

Array = NDArray[np.float64]
SIZES = (8, 64, 32, 128, 16, 100, 256)  # of a batch: some losses have theirs built in
COUNTS = (10, 4, 2, 5, 100, 1000)  # of classes, likewise
LATENTS = 16
DRAWS = 32  # over which a loss with random targets is averaged


class Failed(Exception):
    """The call cannot be made, or gives what is no loss; the message is one line."""


class Several(Failed):
    """The call gives several things, under these keys."""

    def __init__(self, out: tuple[Any, ...] | list[Any] | dict[Any, Any]) -> None:
        super().__init__(f"it returns a {type(out).__name__} of {len(out)}, none of which could be identified")
        self.keys = list(out) if isinstance(out, dict) else list(range(len(out)))


@dataclass(frozen=True)
class Setup:
    """How a loss wants its arguments."""

    on: str = "logits"  # D's outputs: logits or probabilities
    class_on: str = "logits"
    size: int = 8
    classes: int = 10
    array: bool = False  # numpy, not torch
    column: bool = False  # [N, 1], not [N]
    onehot: bool = False  # labels [N, K], not [N]
    heads: bool = False  # D returns source and class, not source alone
    double: bool = True
    draws: int = 1


@dataclass
class Result:
    """What one call gave: a number [] or one an image [N], and the slope in each logit where torch knows it."""

    value: Array
    slopes: dict[str, Array] | None = None
    to_g: float | None = None  # the slope in G's own parameter, where the loss was given G
    to_d: float | None = None  # and in D's


class Stub(nn.Module):
    """A network of one parameter, 1, by which its output is multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.images = torch.zeros(0)


class StubD(Stub):
    """A discriminator that reads its answer off the image: the logit in pixel 0, class logits in those after it."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup

    def forward(self, images: Tensor, *labels: Any, **more: Any) -> Any:
        pixels = images.flatten(1) * self.scale
        logits = pixels[:, :1] if self.setup.column else pixels[:, 0]
        source = logits.sigmoid() if self.setup.on == "probabilities" else logits
        if not self.setup.heads:
            return source
        c = pixels[:, 1 : self.setup.classes + 1]
        return source, c.softmax(1) if self.setup.class_on == "probabilities" else c


class StubG(Stub):
    """A generator whose images are chosen beforehand."""

    def forward(self, latents: Any, *labels: Any, **more: Any) -> Tensor:
        return self.images[: len(latents)] * self.scale


class Loss:
    """A callable under one reading of its signature."""

    def __init__(self, function: Callable[..., Any], reading: Reading) -> None:
        self.function, self.reading = function, reading
        self.keywords = parameters_of(function)
        roles = set(reading.roles.values())
        self.per_class = "proxies" in roles
        self.networks, self.given_g = "D" in roles, "G" in roles
        self.scores = [role for role in SCORES if role in roles]
        if self.networks:
            self.scores = [role for role in ("real", "fake") if role in roles or (role == "fake" and "G" in roles)]
        self.classes = [role for role in CLASSES if role in roles]

    def __call__(self, setup: Setup, given: dict[str, Array], *, slopes: bool = False) -> Result:
        """Values at logits `given`: [N] for a score or target, [N, K] for class logits, [N] for labels.

        Raises Failed.
        """
        results = [self._once(setup, given, slopes, seed) for seed in range(setup.draws)]
        mean = Result(
            np.mean([result.value for result in results], axis=0), results[0].slopes, results[0].to_g, results[0].to_d
        )
        return mean

    def _once(self, setup: Setup, given: dict[str, Array], slopes: bool, seed: int) -> Result:
        dtype = torch.float64 if setup.double else torch.float32
        leaves = {
            role: torch.tensor(given[role], dtype=dtype, requires_grad=not setup.array)
            for role in (*self.scores, *self.classes, *(("class_real", "class_fake") if setup.heads else ()))
            if role in given
        }
        stubs: dict[str, Stub] = {"D": StubD(setup).to(dtype), "G": StubG().to(dtype)} if self.networks else {}
        arguments = {
            name: self._argument(role, setup, given, leaves, stubs) for name, role in self.reading.roles.items()
        }
        positional = [value for name, value in arguments.items() if not self.keywords.get(name)]
        named = {name: value for name, value in arguments.items() if self.keywords.get(name)}
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would walk the stack for each other device
        torch.set_default_dtype(dtype)
        np.random.seed(seed)
        random.seed(seed)
        try:
            with torch.enable_grad():
                out = self.function(*positional, **named)
        except (Exception, SystemExit) as error:
            raise Failed(describe(error, self.function)) from None
        value = number(out, setup.size)
        if not slopes or not isinstance(out, Tensor):
            return Result(value)
        own = [stub.scale for stub in stubs.values()]
        wanted = [*leaves.values(), *own]
        found: list[Tensor | None] = [None] * len(wanted)
        if out.requires_grad and wanted:
            try:
                found = list(torch.autograd.grad(out.sum(), wanted, allow_unused=True))
            except RuntimeError as error:
                raise Failed(describe(error, self.function)) from None
        plain = [np.zeros(w.shape) if g is None else g.double().numpy() for g, w in zip(found, wanted, strict=True)]
        to_d, to_g = (float(plain[-2]), float(plain[-1])) if own else (None, None)
        return Result(value, dict(zip(leaves, plain, strict=False)), to_g if self.given_g else None, to_d)

    def _argument(
        self, role: str, setup: Setup, given: dict[str, Array], leaves: dict[str, Tensor], stubs: dict[str, Stub]
    ) -> Any:
        size, dtype = setup.size, torch.float64 if setup.double else torch.float32
        if role in ("D", "latents", *GIVEN):
            fixed = {
                "D": stubs.get("D"), "latents": torch.randn(size, LATENTS), "weight": 1.0, "classes": setup.classes,
                "criterion": nn.BCEWithLogitsLoss(), "device": "cpu", "width": LATENTS, "size": size,
            }  # fmt: skip
            return fixed[role]
        if role == "G":
            stub = stubs["G"]
            stub.images = self._images("fake", setup, given, leaves)
            return stub
        if role == "is_real":
            return bool(given["target"][0] == 1)
        if self.networks and role in ("real", "fake"):
            return self._images(role, setup, given, leaves)
        value: Any
        if role in leaves:
            value = leaves[role] + 0  # not a leaf, so that it may be changed in place
            if role in CLASSES:
                value = value.softmax(1) if setup.class_on == "probabilities" and role != "embedding" else value
            else:
                value = value.sigmoid() if setup.on == "probabilities" else value
                value = value.unsqueeze(1) if setup.column else value
        elif role.startswith("labels"):
            labels = torch.tensor(given[role if role in given else "labels"]).long()
            value = nn.functional.one_hot(labels, setup.classes).to(dtype) if setup.onehot else labels
        elif role in ("proxy", "proxies"):
            value = torch.tensor(given["proxy"], dtype=dtype)
        else:
            value = torch.tensor(given[role], dtype=dtype)
            value = value.unsqueeze(1) if setup.column else value
        return value.detach().numpy() if setup.array else value

    def _images(self, role: str, setup: Setup, given: dict[str, Array], leaves: dict[str, Tensor]) -> Tensor:
        """Images [N, 1, S, S] that carry their own answers, for StubD to read."""
        pixels = [leaves[role].unsqueeze(1)]
        if f"class_{role}" in leaves:
            pixels.append(leaves[f"class_{role}"])
        flat = torch.cat(pixels, 1)
        edge = int(np.ceil(np.sqrt(flat.shape[1])))
        return nn.functional.pad(flat, (0, edge * edge - flat.shape[1])).view(-1, 1, edge, edge)

    def setups(self, on: str | None) -> Iterator[Setup]:
        """Every way to give the arguments, likeliest first."""
        labels = any(role.startswith("labels") for role in self.reading.roles.values())
        heads = self.networks and labels
        classy = bool(self.classes) or heads
        domains = ("logits", "probabilities")
        choices = itertools.product(
            (True, False) if heads else (False,),
            SIZES,
            (False, True) if labels else (False,),
            COUNTS if labels or classy else (10,),
            (False,) if self.networks else (False, True),
            (False, True) if self.scores else (False,),
            (True, False),
            domains if classy and not (on and not self.scores) else (on or "logits",) if classy else ("logits",),
            (on,) if on else domains if self.scores else ("logits",),
        )
        for head, size, onehot, classes, array, column, double, class_on, source_on in choices:
            yield Setup(source_on, class_on, size, classes, array, column, onehot, head, double)


def number(out: Any, size: int) -> Array:
    """What a loss returned as [] or [N]; raises Failed where it is no loss."""
    if isinstance(out, tuple | list | dict):
        raise Several(out)
    if isinstance(out, Tensor):
        out = out.detach().double().numpy()
    if not isinstance(out, int | float | np.ndarray | np.number) or isinstance(out, bool):
        raise Failed(f"it returns {type(out).__name__}, not a number")
    value = np.asarray(out)
    if value.dtype.kind not in "fiu":
        raise Failed(f"it returns an array of {value.dtype}, not of numbers")
    value = value.astype(np.float64)
    if value.size == 1 and (size != 1 or value.ndim == 0):
        return value.reshape(())
    if value.shape in ((size,), (size, 1)):
        return value.reshape(size)
    raise Failed(
        f"it returns {list(value.shape)} for a batch of {size}: a loss is one number, or one for each image "
        f"([{size}] against [{size}, 1] broadcasts to [{size}, {size}])"
    )


@contextlib.contextmanager
def borrowed() -> Iterator[None]:
    """Quiet, in float64, and with every random state and default given back."""
    dtype, state, mine = torch.get_default_dtype(), np.random.get_state(), random.getstate()
    with (
        torch.random.fork_rng(devices=[]),
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            np.random.set_state(state)
            random.setstate(mine)
