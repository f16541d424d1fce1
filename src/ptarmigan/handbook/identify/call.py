"""Stage 2 of signature -> call -> fit -> diagnose -> answer: the user's loss as a function of numbers.

`LossFunction` maps logits to a value and gradients, whatever the callable takes and returns: torch or numpy, logits or
probabilities, [N] or [N, 1], labels or one-hot rows, D's outputs or the networks themselves.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptarmigan.handbook.identify.signature import (
    CLASSES,
    FIXED,
    LABEL_ROLES,
    SCORES,
    LossError,
    Reading,
    SeveralLosses,
    describe_error,
    parameters_of,
)

Array = NDArray[np.float64]
BATCH_SIZES = (8, 64, 32, 128, 16, 100, 256)  # tried in turn, because some losses hard-code theirs
CLASS_COUNTS = (10, 4, 2, 5, 100, 1000)  # likewise
LATENT_DIM = 16
EMBEDDING_DIM = 6


@dataclass(frozen=True)
class Setup:
    """The form in which a loss gets its arguments."""

    on: str = "logits"  # D's outputs: logits or probabilities
    class_on: str = "logits"  # class outputs, likewise
    size: int = 8
    classes: int = 10
    array: bool = False  # numpy arrays instead of torch tensors
    column: bool = False  # [N, 1] instead of [N]
    onehot: bool = False  # labels [N, K] instead of [N]
    class_head: bool = False  # D returns (source, class) instead of the source alone
    double: bool = True
    draws: int = 1  # calls with different seeds that are averaged

    @property
    def label_count(self) -> int:
        """Labels are below this number, so that discriminative_classifier's K + y are valid classes as well."""
        return max(self.classes // 2, 2)


@dataclass(frozen=True)
class Result:
    """What one call returned."""

    value: Array  # [] or [N]
    gradients: dict[str, Array] | None = None  # with respect to each role's logits, if autograd gives them
    d_gradient: float | None = None  # with respect to D's parameter, if the loss takes D
    g_gradient: float | None = None  # with respect to G's parameter, if the loss takes G


@dataclass
class Gradients:
    """Autograd's gradients compared with the slopes of the values."""

    plain: bool = False  # the loss returns a number instead of a tensor: there is nothing to differentiate
    detached: list[str] = field(default_factory=list)  # roles that the value depends on and the gradient does not
    detached_from_d: list[str] = field(default_factory=list)  # outputs of a given D that have no gradient in D
    wrong: list[str] = field(default_factory=list)  # roles whose gradient is not the slope of the value
    in_g: float = 0.0  # the gradient with respect to the parameter of a given G


class Stub(nn.Module):
    """A network with one parameter, which is 1 and multiplies its output."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.images = torch.zeros(0)


class StubD(Stub):
    """A discriminator that reads its outputs off the image: the logit in pixel 0, class logits in the next ones."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup

    def forward(self, images: Tensor, *labels: Any, **more: Any) -> Any:
        pixels = images.flatten(1) * self.scale
        logits = pixels[:, :1] if self.setup.column else pixels[:, 0]
        source = logits.sigmoid() if self.setup.on == "probabilities" else logits
        if not self.setup.class_head:
            return source
        c = pixels[:, 1 : self.setup.classes + 1]
        return source, c.softmax(1) if self.setup.class_on == "probabilities" else c


class StubG(Stub):
    """A generator that returns the images that were put into it."""

    def forward(self, latents: Any, *labels: Any, **more: Any) -> Tensor:
        return self.images[: len(latents)] * self.scale


@contextlib.contextmanager
def borrowed_state() -> Iterator[None]:
    """Run the user's code silently and in float64, and restore random states and defaults afterwards."""
    dtype, numpy_state, python_state = torch.get_default_dtype(), np.random.get_state(), random.getstate()
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
            np.random.set_state(numpy_state)
            random.setstate(python_state)


class LossFunction:
    """A callable under one reading of its signature."""

    def __init__(self, function: Callable[..., Any], reading: Reading) -> None:
        self.function, self.reading = function, reading
        self.keyword_only = parameters_of(function)
        roles = set(reading.roles.values())
        self.has_networks, self.has_g = "D" in roles, "G" in roles
        self.scores = [role for role in SCORES if role in roles]
        if self.has_networks:
            self.scores = [role for role in ("real", "fake") if role in roles or (role == "fake" and self.has_g)]
        self.classes = [role for role in CLASSES if role in roles]
        self.proxy_of_each_class = "proxies" in roles

    def class_roles(self, setup: Setup) -> list[str]:
        """The roles of class outputs, including those of D's class head."""
        return [f"class_{side}" for side in self.scores] if setup.class_head else self.classes

    def axes(self) -> Iterator[tuple[str, str, dict[str, float]]]:
        """Each logit over which a curve is measured: the curve's key, the logit's role, and the fixed target if any."""
        for role in self.scores:
            if role != "output":
                yield role, role, {}
                continue
            for target in (1.0, 0.0) if "is_real" in self.reading.roles.values() else (1.0, 0.0, -1.0):
                yield f"output@{target:g}", role, {"target": target}

    def setups(self, on: str | None) -> list[Setup]:
        """The setups in which the loss can be called, one for each domain; raises LossError if there are none."""
        failures: dict[bool, LossError] = {}
        for candidates in self._candidates(on):
            working = []
            for setup in candidates:
                try:
                    self(setup, self.inputs(setup), gradients=True)
                    working.append(setup)
                except SeveralLosses:
                    raise
                except LossError as error:
                    failures.setdefault(setup.array, error)
            if working:
                return working
        scope = getattr(self.function, "__globals__", {})
        modules = {getattr(value, "__name__", "").split(".")[0] for value in scope.values()}
        raise failures.get("np" in scope and "torch" not in modules, failures[False])

    def _candidates(self, on: str | None) -> Iterator[list[Setup]]:
        """Every form of the arguments, the most likely first, each in the domains that are possible."""
        labels = any(role.startswith("labels") for role in self.reading.roles.values())
        head = self.has_networks and labels
        classy = bool(self.classes) or head
        both = ("logits", "probabilities")
        on_domains = (on,) if on else both if self.scores else ("logits",)
        class_domains = ("logits",) if not classy else (on,) if on and not self.scores else both
        for class_head, size, onehot, classes, array, column, double in itertools.product(
            (True, False) if head else (False,),
            BATCH_SIZES,
            (False, True) if labels else (False,),
            CLASS_COUNTS if labels or classy else (10,),
            (False,) if self.has_networks else (False, True),
            (False, True) if self.scores else (False,),
            (True, False),
        ):
            yield [
                Setup(source_on, class_on, size, classes, array, column, onehot, class_head, double)
                for class_on in class_domains
                for source_on in on_domains
            ]

    def inputs(self, setup: Setup, scale: float = 2.0, seed: int = 0) -> dict[str, Array]:
        """Random logits and labels for each role; scale 0 sets all of them to 0."""
        rng = np.random.default_rng(seed)
        given = {role: scale * rng.standard_normal(setup.size) for role in self.scores}
        for role in self.class_roles(setup):
            given[role] = scale * rng.standard_normal((setup.size, setup.classes))
        for role in LABEL_ROLES:
            given[role] = rng.integers(0, setup.label_count if scale else 1, setup.size).astype(float)
        if "embedding" in self.classes:
            proxies = setup.classes if self.proxy_of_each_class else setup.size
            for role, count in (("embedding", setup.size), ("proxy", proxies)):
                rows = rng.standard_normal((count, EMBEDDING_DIM))
                given[role] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        ones = np.ones(setup.size)
        return given | {"target": ones, "real_target": ones, "fake_target": 0 * ones}

    def at(self, setup: Setup, **values: float | Array) -> float:
        """The loss of a batch of equal images; a role that is not named has logit 0."""
        given = self.inputs(setup, scale=0.0)
        for role, value in values.items():
            given[role] = np.broadcast_to(np.asarray(value, np.float64), given[role].shape).copy()
        return float(self(setup, given).value.flat[0])

    def reduction(self, setup: Setup, role: str, places: Sequence[float] | Array, **fixed: float) -> str:
        """none; mean if a batch twice as large gives the same value, sum if it gives twice the value; else other."""
        if self(setup, self.inputs(setup)).value.ndim:
            return "none"
        twice = replace(setup, size=2 * setup.size)
        try:
            one = [self.at(setup, **{role: t}, **fixed) for t in places]
            two = [self.at(twice, **{role: t}, **fixed) for t in places]
        except LossError:
            return "mean"  # its batch size is hard-coded
        i, j = max(((0, 1), (1, 2), (0, 2)), key=lambda pair: abs(one[pair[0]] - one[pair[1]]))
        if abs(one[i] - one[j]) < 1e-9:
            return "mean"
        ratio = round((two[i] - two[j]) / (one[i] - one[j]), 1 if setup.draws > 1 else 3)
        return {1.0: "mean", 2.0: "sum"}.get(ratio, "other")

    def gradients(self, setup: Setup) -> Gradients:
        """Compare autograd's gradients with finite differences along a random direction for each role."""
        if setup.array:
            return Gradients()
        given = self.inputs(setup, seed=5)
        result = self(setup, given, gradients=True)
        if result.gradients is None:
            return Gradients(plain=True)
        found = Gradients(in_g=result.g_gradient or 0.0)
        rng = np.random.default_rng(6)
        slopes: dict[str, float] = {}
        for role in (*self.scores, *self.class_roles(setup)):
            way = given[role] if self.has_networks else rng.standard_normal(given[role].shape)
            ends = [self(setup, given | {role: given[role] + h * way}).value.sum() for h in (1e-3, -1e-3)]
            slopes[role] = slope = float(ends[0] - ends[1]) / 2e-3
            gradient = result.gradients[role]
            if self.has_networks and not (role == "fake" and self.has_g):
                continue
            if abs(slope) > 1e-4 and not gradient.any():
                found.detached.append(role)
            elif abs(slope - (gradient * way).sum()) > 1e-2 * abs(slope) + 2e-3:
                found.wrong.append(role)
        if result.d_gradient is not None:  # the sum over D's outputs, except those that were detached
            for role, slope in slopes.items():
                others = sum(slopes.values()) - slope
                tolerance = 1e-3 * max(1e-3, abs(others), abs(result.d_gradient))
                if abs(slope) > 1e-3 and abs(others - result.d_gradient) <= tolerance:
                    found.detached_from_d.append(role)
        return found

    def __call__(self, setup: Setup, given: dict[str, Array], *, gradients: bool = False) -> Result:
        """The loss at [N] logits and targets, [N, K] class logits and [N] labels; the value averages setup.draws calls.

        Raises LossError.
        """
        results = [self.call_once(setup, given, gradients=gradients, seed=seed) for seed in range(setup.draws)]
        return replace(results[0], value=np.mean([result.value for result in results], axis=0))

    def call_once(self, setup: Setup, given: dict[str, Array], *, gradients: bool = False, seed: int = 0) -> Result:
        dtype = torch.float64 if setup.double else torch.float32
        roles = [*self.scores, *self.classes, *(("class_real", "class_fake") if setup.class_head else ())]
        roles = [role for role in roles if role in given]
        leaves = {role: torch.tensor(given[role], dtype=dtype, requires_grad=not setup.array) for role in roles}
        stubs = {"D": StubD(setup).to(dtype), "G": StubG().to(dtype)} if self.has_networks else {}
        arguments = {
            name: self._argument(role, setup, given, leaves, stubs) for name, role in self.reading.roles.items()
        }
        positional = [value for name, value in arguments.items() if not self.keyword_only.get(name)]
        named = {name: value for name, value in arguments.items() if self.keyword_only.get(name)}
        torch.default_generator.manual_seed(seed)  # torch.manual_seed is slow: it walks the stack for other devices
        torch.set_default_dtype(dtype)
        np.random.seed(seed)
        random.seed(seed)
        try:
            with torch.enable_grad():
                out = self.function(*positional, **named)
        except (Exception, SystemExit) as error:
            raise LossError(describe_error(error, self.function)) from None
        value = loss_value(out, setup.size)
        if not gradients or not isinstance(out, Tensor):
            return Result(value)
        wanted = [*leaves.values(), *(stub.scale for stub in stubs.values())]
        found: tuple[Tensor | None, ...] = (None,) * len(wanted)
        if out.requires_grad:
            try:
                found = torch.autograd.grad(out.sum(), wanted, allow_unused=True)
            except RuntimeError as error:
                raise LossError(describe_error(error, self.function)) from None
        known = [np.zeros(w.shape) if f is None else f.double().numpy() for f, w in zip(found, wanted, strict=True)]
        by_role = dict(zip((*leaves, *stubs), known, strict=True))
        return Result(
            value,
            {role: by_role[role] for role in leaves},
            float(by_role["D"]) if self.has_networks else None,
            float(by_role["G"]) if self.has_g else None,
        )

    def _argument(
        self, role: str, setup: Setup, given: dict[str, Array], leaves: dict[str, Tensor], stubs: dict[str, Stub]
    ) -> Any:
        """The value of one parameter."""
        dtype = torch.float64 if setup.double else torch.float32
        if role in ("D", "latents", *FIXED):
            return {
                "D": stubs.get("D"), "latents": torch.randn(setup.size, LATENT_DIM), "width": LATENT_DIM, "weight": 1.0,
                "classes": setup.classes, "size": setup.size, "criterion": nn.BCEWithLogitsLoss(), "device": "cpu",
            }[role]  # fmt: skip
        if role == "G":
            stubs["G"].images = _images("fake", leaves)
            return stubs["G"]
        if role == "is_real":
            return bool(given["target"][0] == 1)
        if self.has_networks and role in ("real", "fake"):
            return _images(role, leaves)
        if role in leaves:
            value = leaves[role] + 0  # not a leaf, so that it may be changed in place
            if role in CLASSES:
                value = value.softmax(1) if setup.class_on == "probabilities" and role != "embedding" else value
            else:
                value = value.sigmoid() if setup.on == "probabilities" else value
        elif role.startswith("labels"):
            value = torch.tensor(given[role]).long()
            value = nn.functional.one_hot(value, setup.classes).to(dtype) if setup.onehot else value
        else:
            value = torch.tensor(given["proxy" if role == "proxies" else role], dtype=dtype)
        if setup.column and (role in SCORES or role.endswith("target")):
            value = value.unsqueeze(1)
        return value.detach().numpy() if setup.array else value


def _images(role: str, leaves: dict[str, Tensor]) -> Tensor:
    """Images [N, 1, S, S] whose pixels are the outputs that StubD returns for them."""
    pixels = leaves[role].unsqueeze(1)
    if f"class_{role}" in leaves:
        pixels = torch.cat([pixels, leaves[f"class_{role}"]], 1)
    edge = int(np.ceil(np.sqrt(pixels.shape[1])))
    return nn.functional.pad(pixels, (0, edge * edge - pixels.shape[1])).view(-1, 1, edge, edge)


def loss_value(out: Any, size: int) -> Array:
    """What a loss returned, as [] or [N]; raises LossError or SeveralLosses."""
    if isinstance(out, tuple | list | dict):
        raise SeveralLosses(out)
    if isinstance(out, Tensor):
        out = out.detach().double().numpy()
    if not isinstance(out, int | float | np.ndarray | np.number) or isinstance(out, bool):
        raise LossError(f"it returns {type(out).__name__}, not a number")
    value = np.asarray(out)
    if value.dtype.kind not in "fiu":
        raise LossError(f"it returns an array of {value.dtype}, not of numbers")
    value = value.astype(np.float64)
    if value.size == 1 and (size != 1 or value.ndim == 0):
        return value.reshape(())
    if value.shape in ((size,), (size, 1)):
        return value.reshape(size)
    raise LossError(
        f"it returns {list(value.shape)} for a batch of {size}; a loss is one number, or one for each image "
        f"([{size}] with [{size}, 1] broadcasts to [{size}, {size}])"
    )
