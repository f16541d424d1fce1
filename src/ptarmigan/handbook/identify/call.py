"""Stage 3 of source -> ... -> answer: the user's loss as a function of numbers.

`LossFunction` maps logits to a value and gradients, whatever the callable takes and returns: torch or numpy, logits or
probabilities, [N], [N, 1], patches or a list of scales, labels or one-hot rows, D's outputs or the networks themselves.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ptarmigan.handbook.identify.code import Code
from ptarmigan.handbook.identify.names import network_of, side_of, words_of
from ptarmigan.handbook.identify.signature import (
    CLASSES,
    FIXED,
    LABEL_ROLES,
    SCORES,
    LossError,
    Reading,
    SeveralLosses,
    Stops,
    describe_error,
    parameters_of,
)
from ptarmigan.handbook.identify.stand_ins import (
    LATENT_DIM,
    Criterion,
    Nets,
    Neutral,
    Setup,
    Stub,
    StubD,
    StubG,
    harmless,
    images_of,
)
from ptarmigan.handbook.identify.terms import Array

SHAPES = [(8, 10), *((n, 10) for n in (64, 32, 128, 16, 100, 256)), *((8, k) for k in (4, 2, 5, 100, 1000))]
SECONDS_TO_TRY = 1.5
EMBEDDING_DIM = 6
STEEP = 100.0  # a slope of D that is beyond 1 in each pixel: there a penalty grows with it
PATCHES = r"tensor [ab] \((\d+)\)|\[\d+, 1, (\d+), \d+\]"  # their side, in what PyTorch says


@dataclass(frozen=True)
class Result:
    """What one call returned."""

    value: Array  # [] or [N]
    gradients: dict[str, Array] | None = None  # with respect to each role's logits, if autograd gives them
    d_gradients: dict[str, Array] = field(default_factory=dict)  # the same through the parameters of a given D
    slope_gradient: float = 0.0  # with respect to D's slope in the image, on which penalties alone depend


@dataclass
class Gradients:
    """Autograd's gradients compared with the slopes of the values."""

    plain: bool = False  # the loss returns a number instead of a tensor: there is nothing to differentiate
    detached: list[str] = field(default_factory=list)  # roles that the value depends on and the gradient does not
    detached_from_d: list[str] = field(default_factory=list)  # outputs of a given D that have no gradient in D
    in_g: float = 0.0  # the size of the gradient that reaches a given G
    penalty: str = ""  # of D's slope in the image: right, dead (without create_graph) or subtracted


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

    def __init__(self, code: Code, function: Callable[..., Any], reading: Reading, also: tuple[str, ...] = ()) -> None:
        self.code, self.function, self.reading = code, function, reading
        self.keyword_only = parameters_of(function, also)
        roles = set(reading.roles.values())
        self.has_networks, self.has_g = bool({"D", "nets"} & roles), bool({"G", "nets"} & roles)
        self.scores = [role for role in SCORES if role in roles]
        if self.has_networks:
            self.scores = [role for role in ("real", "fake") if role in roles or (role == "fake" and self.has_g)]
        self.classes = [role for role in CLASSES if role in roles]
        self.proxy_of_each_class = "proxies" in roles
        self.extras = [name for name, role in reading.roles.items() if role in ("image_real", "image_fake")]

    def class_roles(self, setup: Setup) -> list[str]:
        """The roles of class outputs, including those of D's class head."""
        return [f"class_{side}" for side in self.scores] if setup.head == "class" else self.classes

    def axes(self, player: str | None = None) -> Iterator[tuple[str, str, dict[str, float]]]:
        """Each logit over which a curve is measured: the curve's key, the logit's role, and the fixed target if any."""
        is_flag = "is_real" in self.reading.roles.values()
        for role in self.scores:
            if role != "output":
                yield role, role, {}
                continue
            for target in ((1.0,) if player == "g" else (1.0, 0.0)) if is_flag else (1.0, 0.0, -1.0):
                yield f"output@{target:g}", role, {"target": target}

    def setups(self, on: str | None) -> list[Setup]:
        """The setups in which the loss can be called, one for each domain; raises LossError if there are none."""
        failures: dict[tuple[bool, str], LossError] = {}
        if working := self._working(on, 2, failures):
            return working
        text = " ".join(text for _, text in failures)
        sides = [int(n) for found in re.findall(PATCHES, text) for n in found if n]
        side = next((n for n in sides if n not in (1, 2, 8, 28)), 0)  # of the file's patches
        if side and self.has_networks and (working := self._working(on, side, failures)):
            return working
        first = self._arrays()[0]
        told = [e for (array, text), e in failures.items()
                if array == first and ("between 0 and 1" in text) == (on == "logits")]  # fmt: skip
        raise (told or list(failures.values()))[0]

    def _working(self, on: str | None, side: int, failures: dict[tuple[bool, str], LossError]) -> list[Setup]:
        """The first setups that work, with patches of this side; adds those that do not to `failures`."""
        until = time.process_time() + SECONDS_TO_TRY
        for tried, candidates in enumerate(self._candidates(on, side)):
            working: list[Setup] = []
            for setup in candidates:
                try:
                    self(setup, self.inputs(setup), gradients=True)
                    working.append(setup)
                except (SeveralLosses, Stops):
                    raise
                except LossError as error:
                    error.__context__ = None  # whose traceback holds the tensors
                    if not setup.head or not failures:
                        failures.setdefault((setup.array, str(error)), error)
                    if "it needs" in str(error):
                        raise
            if working:
                return working
            is_alike = len(failures) == 1 and self.has_networks and tried > 20  # its form is not the cause
            if is_alike or (tried > 20 and time.process_time() > until):
                break
        return []

    def _arrays(self) -> tuple[bool, ...]:
        """Whether to try numpy arrays or tensors first, by the modules that the loss knows."""
        scope = getattr(self.function, "__globals__", {})
        modules = {getattr(value, "__name__", "").split(".")[0] for value in list(scope.values())}
        is_array = modules & {"numpy", "tensorflow", "jax", "keras"} and "torch" not in modules
        return (False,) if self.has_networks else (True, False) if is_array else (False, True)

    def _candidates(self, on: str | None, side: int) -> Iterator[list[Setup]]:
        """Every form of the arguments, the most likely first, each in the domains that are possible."""
        labels = any(role.startswith("labels") for role in self.reading.roles.values())
        classy = bool(self.classes) or (self.has_networks and labels)
        both = ("logits", "probabilities")
        on_domains = (on,) if on else both if self.scores else ("logits",)
        class_domains = ("logits",) if not classy else (on,) if on and not self.scores else both
        if self.code.class_on:
            class_domains = (self.code.class_on,)
        heads: tuple[str, ...] = ("", "features", "maps", "first") if self.has_networks else ("",)
        if self._answers("D") == 2:
            heads = heads[1:]
        uses, forms = self.code.uses, self._forms(side)
        fixed = rf"\b(?:ones|zeros|randn|rand|full|view)\([(\[]*({'|'.join(str(n) for n, _ in SHAPES[1:7])})\b"
        sizes = re.findall(fixed, uses.text)  # torch.ones(64, 1)
        shapes = sorted(SHAPES, key=lambda shape: str(shape[0]) not in sizes)
        options: tuple[Sequence[Any], ...] = (
            shapes if labels or classy else [shape for shape in shapes if shape[1] == 10],
            (torch.float64, torch.float32),  # float32 for the layers of a loss of its own
            (False, True) if labels else (False,),
            ("class", *heads) if self.has_networks and labels else heads,
            self._arrays(),
            forms,
            ("2d", "flat", "3d") if self.has_networks or self.extras else ("2d",),
        )
        ways = itertools.product(*(range(len(option)) for option in options))
        for way in sorted(ways, key=lambda way: (sum(map(bool, way)), way)):  # few changes first
            (size, classes), dtype, onehot, head, array, form, images = (
                o[i] for o, i in zip(options, way, strict=True)
            )
            yield [
                Setup(source_on, class_on, size, classes, array, form, side, onehot, head, images, dtype)
                for class_on in class_domains
                for source_on in on_domains
            ]

    def _forms(self, side: int) -> list[str]:
        """The forms of D's outputs, the most likely first."""
        names = self.reading.roles
        if side > 2 and self.scores:
            return ["patch"]
        if self.code.form and self.has_networks:
            return [self.code.form]
        is_listed = any(name in self.code.uses.listed and role in SCORES for name, role in names.items())
        if is_listed and not self.has_networks:
            return ["scales", "nested", "flat", "column", "patch"]
        return ["flat", "column", "patch", "scales", "nested"] if self.scores else ["flat"]

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
        """Compare autograd's gradients with differences of the values."""
        if setup.array:
            return Gradients()
        given = self.inputs(setup, seed=5)
        result = self(setup, given, gradients=True)
        if result.gradients is None:
            return Gradients(plain=True)
        through_g = self.has_networks and self.has_g and "fake" in result.gradients
        found = Gradients(in_g=float(np.abs(result.gradients["fake"]).sum()) if through_g else 0.0)
        for role in (*self.scores, *self.class_roles(setup)):
            moved = self(setup, given | {role: 1.001 * given[role]}).value
            if np.abs(moved - result.value).max() <= 1e-7:
                continue
            if not result.gradients[role].any() and (not self.has_networks or (role == "fake" and self.has_g)):
                found.detached.append(role)
            if role in result.d_gradients and not result.d_gradients[role].any():
                found.detached_from_d.append(role)
        if self.has_networks or self.extras:
            ends = [self.call_once(setup, given, slope=STEEP + h).value.sum() for h in (1e-3, -1e-3)]
            rise = float(ends[0] - ends[1]) / 2e-3
            if abs(rise) > 1e-6:
                autograd = self.call_once(setup, given, gradients=True, slope=STEEP).slope_gradient
                found.penalty = "subtracted" if rise < 0 else "right" if abs(autograd) > 0.1 * rise else "dead"
        return found

    def __call__(self, setup: Setup, given: dict[str, Array], *, gradients: bool = False) -> Result:
        """The loss at [N] logits and targets, [N, K] class logits and [N] labels; the value averages setup.draws calls.

        Raises LossError.
        """
        results = [self.call_once(setup, given, gradients=gradients, seed=seed) for seed in range(setup.draws)]
        return replace(results[0], value=np.mean([result.value for result in results], axis=0))

    def call_once(
        self, setup: Setup, given: dict[str, Array], *, gradients: bool = False, seed: int = 0, slope: float = 1.0
    ) -> Result:
        torch.set_default_dtype(setup.dtype)
        roles = [*self.scores, *self.classes, *(("class_real", "class_fake") if setup.head == "class" else ())]
        leaves = {role: setup.tensor(given[role], grad=True) for role in roles if role in given}
        in_image = setup.tensor(slope, grad=True)
        stubs = self._stubs(setup, leaves, in_image)
        out = self._returned(setup, self._arguments(setup, given, leaves, stubs, in_image), seed)
        value = loss_value(out, setup.size)
        if not gradients or not isinstance(out, Tensor):
            return Result(value)
        shifts = dict(stubs["D"].shifts) if stubs else {}
        wanted = [*leaves.values(), *shifts.values(), in_image]
        found: tuple[Tensor | None, ...] = (None,) * len(wanted)
        if out.requires_grad:
            try:
                found = torch.autograd.grad(out.sum(), wanted, allow_unused=True)
            except RuntimeError as error:
                raise LossError(describe_error(error, self.function)) from None
        known = [np.zeros(w.shape) if f is None else f.double().numpy() for f, w in zip(found, wanted, strict=True)]
        of_leaves, of_shifts = dict(zip(leaves, known, strict=False)), known[len(leaves) : -1]
        return Result(value, of_leaves, dict(zip(shifts, of_shifts, strict=True)), float(known[-1]))

    def _returned(self, setup: Setup, arguments: dict[str, Any], seed: int) -> Any:
        """What the callable returns; raises LossError, or Stops where the user's own code is the cause."""
        for name in self.code.outer:
            self.code.place(name, self.code.fixed[name] if name in self.code.fixed else arguments[name])
        positional = [arguments[name] for name, is_keyword in self.keyword_only.items() if not is_keyword]
        named = {name: arguments[name] for name, is_keyword in self.keyword_only.items() if is_keyword}
        torch.default_generator.manual_seed(seed)  # torch.manual_seed is slow: it walks the stack for other devices
        np.random.seed(seed)
        random.seed(seed)
        try:
            with torch.enable_grad(), Neutral(setup.dtype):
                return self.function(*positional, **named)
        except LossError:
            raise
        except (Exception, SystemExit) as error:
            if fault := self._fault_of(str(error), setup):
                raise Stops(fault) from None
            raise LossError(describe_error(error, self.function)) from None

    def _stubs(self, setup: Setup, leaves: dict[str, Tensor], in_image: Tensor) -> dict[str, Stub]:
        if not self.has_networks:
            return {}
        of_g = StubG(setup, self._answers("G"), {"zero": torch.zeros(())})
        of_g.images = images_of("fake", setup, leaves)
        return {"D": StubD(setup, self._answers("D"), leaves, in_image), "G": of_g}

    def _answers(self, role: str) -> int:
        """How many values the loss unpacks from a network's answer."""
        counts = [n for name, n in self.code.uses.unpacked.items()
                  if self.reading.roles.get(name) == role or (role == network_of(name) == "D")]  # fmt: skip
        return max(counts, default=1)

    def _fault_of(self, text: str, setup: Setup) -> str:
        """The code of the fault for which PyTorch stops the loss with this text; "" if the probe may be the cause."""
        is_known = setup.form == self.code.form
        labels = any("labels" in role for role in self.reading.roles.values())
        causes = {
            "between 0 and 1": ("logits-in-bce", self.code.on == setup.on == "logits"),
            r"arget size .*\[(\d+)\].* input size .*\[\1, 1\]": ("target-shape", is_known),
            "Target 1 is out of bounds": ("one-class", is_known),
            "ype Long": ("integer-targets", "full(" in self.code.uses.text and not labels),
        }
        return next((code for part, (code, is_cause) in causes.items() if is_cause and re.search(part, text)), "")

    def _arguments(
        self, setup: Setup, given: dict[str, Array], leaves: dict[str, Tensor], stubs: dict[str, Stub], in_image: Tensor
    ) -> dict[str, Any]:
        """The values of the parameters."""
        pictures = {f"image_{side}": images_of(side, setup, leaves).detach().requires_grad_()
                    for side in ("real", "fake") if self.extras}  # fmt: skip
        fixed: dict[str, Any] = pictures | stubs | {
            "nets": Nets(stubs), "net": Nets({}), "latents": torch.randn(setup.size, LATENT_DIM), "width": LATENT_DIM,
            "classes": setup.classes, "size": setup.size, "is_real": bool(given["target"][0] == 1),
        }  # fmt: skip
        if self.has_networks:
            fixed |= {side: images_of(side, setup, leaves) for side in ("real", "fake")}
        arguments = {}
        for name, role in self.reading.roles.items():
            if role == "G" and "mapping" in words_of(name):
                arguments[name] = stubs["G"].method(name)
            elif role == "is_real" and side_of(name) == "fake":
                arguments[name] = not fixed[role]
            elif role in fixed:
                arguments[name] = fixed[role]
            elif role == "other_loss":
                zeros = torch.zeros(self.code.uses.unpacked.get(name, 1)).unbind()
                arguments[name] = lambda *_, zeros=zeros, **__: zeros if len(zeros) > 1 else zeros[0]
            elif role == "criterion":
                arguments[name] = Criterion(setup.on, name)
            elif role in FIXED:
                arguments[name] = harmless(name, self.code.settings | {"": setup.size})
            else:
                arguments[name] = self._argument(role, setup, given, leaves, pictures, in_image)
        return arguments

    def _argument(
        self, role: str, setup: Setup, given: dict[str, Array], leaves: dict[str, Tensor],
        pictures: dict[str, Tensor], in_image: Tensor
    ) -> Any:  # fmt: skip
        """Outputs of D, class outputs, labels or targets, in the form that the loss takes."""
        if role in leaves:
            value = leaves[role] + 0  # not a leaf, so that it may be changed in place
            if f"image_{role}" in self.reading.roles.values():
                path = pictures[f"image_{role}"].flatten(1)[:, 0]
                value = value + in_image * (path - path.detach())
            if role in SCORES:
                value = value.sigmoid() if setup.on == "probabilities" else value
            elif role != "embedding" and setup.class_on == "probabilities":
                value = value.softmax(1)
        elif role.startswith("labels"):
            value = torch.tensor(given[role]).long()
            value = nn.functional.one_hot(value, setup.classes).to(setup.dtype) if setup.onehot else value
        else:
            value = setup.tensor(given["proxy" if role == "proxies" else role])
        if role in SCORES or role.endswith("target"):
            value = setup.shaped(value)
        return value.detach().numpy() if setup.array and isinstance(value, Tensor) else value


def loss_value(out: Any, size: int) -> Array:
    """What a loss returned, as [] or [N]; raises LossError or SeveralLosses."""
    if isinstance(out, tuple | list | dict):
        raise SeveralLosses(out)
    if isinstance(out, Tensor):
        out = out.detach().double().numpy()
    elif hasattr(out, "__array__"):  # of TensorFlow or JAX
        out = np.asarray(out)
    if not isinstance(out, int | float | np.ndarray | np.number) or isinstance(out, bool):
        raise LossError(f"it returns {out if out is None else type(out).__name__}, not a number")
    if type(out) in (int, float) and out == 0:
        raise LossError(
            "it returns the number 0 here: nothing was added to it, as where a loop runs over an empty list"
        )
    value = np.asarray(out)
    if value.dtype.kind not in "fiu":
        raise LossError(f"it returns an array of {value.dtype}, not of numbers")
    value = value.astype(np.float64)
    if value.size == 1 and (size != 1 or value.ndim == 0):
        return value.reshape(())
    rest = value.shape[1:]
    is_map = len(rest) in (2, 3) and rest[0] in (1, rest[-1]) and rest[-2] == rest[-1] < 28
    if value.shape[0] == size and (rest in ((), (1,)) or is_map):
        return np.asarray(value.reshape(size, -1).mean(1))
    raise LossError(
        f"it returns {list(value.shape)} for a batch of {size}; a loss is one number, or one for each image "
        f"([{size}] with [{size}, 1] broadcasts to [{size}, {size}])"
    )
