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
from ptarmigan.handbook.identify.names import network_of, side_of
from ptarmigan.handbook.identify.signature import (
    CLASSES,
    FIXED,
    LABEL_ROLES,
    NUMBERS,
    SCORES,
    LossError,
    Reading,
    SeveralLosses,
    Stops,
    describe_error,
    parameters_of,
)
from ptarmigan.handbook.identify.sizes import unknown_sizes
from ptarmigan.handbook.identify.stand_ins import (
    LATENT_DIM,
    Neutral,
    Setup,
    harmless,
)
from ptarmigan.handbook.identify.terms import Array
from ptarmigan.handbook.identify.unseen import NOW, PREDICTED, Facts, Trace, Unknown, network_named
from ptarmigan.handbook.identify.value import loss_value

SHAPES = [(8, 10), *((n, 10) for n in (64, 32, 128, 16, 100, 256)), *((8, k) for k in (4, 2, 5, 100, 1000))]
SECONDS_TO_TRY = 1.5
PATCHES = r"tensor [ab] \((\d+)\)|\[\d+, 1, (\d+), \d+\]"  # their side, in what PyTorch says


@dataclass(frozen=True)
class Result:
    """What one call returned."""

    value: Array  # [] or [N]
    gradients: dict[str, Array] | None = None  # with respect to each role's logits, if autograd gives them
    d_gradients: dict[str, Array] = field(default_factory=dict)  # the same through the parameters of a given D
    penalties: dict[bool, float] = field(default_factory=dict)  # the weight of penalties with and without a graph


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
        unknown_sizes(),
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
        self.has_networks, self.has_g = reading.asks_d, "G" in roles
        self.scores = ["real", "fake"] if self.has_networks else [role for role in SCORES if role in roles]
        self.classes = [role for role in CLASSES if role in roles]
        self.trace = Trace(Setup(), {})  # of the last call
        self.penalty_faults: set[str] = set()  # of all calls
        self.sides: dict[str, str] | None = {} if not self.has_networks else None  # of images that do not show theirs

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

    def setups(self, on: str | None, player: str | None) -> list[Setup]:
        """The setups in which the loss can be called, one for each domain; raises LossError if there are none."""
        failures: dict[tuple[bool, str], LossError] = {}
        if working := self._working(on, player, 2, failures):
            return working
        text = " ".join(text for _, text in failures)
        sides = [int(n) for found in re.findall(PATCHES, text) for n in found if n]
        side = next((n for n in sides if n not in (1, 2, 8, 28)), 0)  # of the file's patches
        if side and self.has_networks and (working := self._working(on, player, side, failures)):
            return working
        first = self._arrays()[0]
        told = [e for (array, text), e in failures.items()
                if array == first and ("between 0 and 1" in text) == (on == "logits")]  # fmt: skip
        raise (told or list(failures.values()))[0]

    def _working(
        self, on: str | None, player: str | None, side: int, failures: dict[tuple[bool, str], LossError]
    ) -> list[Setup]:
        """The first setups that work, with patches of this side; adds those that do not to `failures`."""
        until = time.process_time() + SECONDS_TO_TRY
        for tried, candidates in enumerate(self._candidates(on, side)):
            working: list[Setup] = []
            for setup in candidates:
                try:
                    if self.sides is None:
                        self._survey(setup, player)
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
        has_head = self.has_networks and self._answers() == 2
        has_both = has_head and "sigmoid_cross_entropy_with_logits(" in self.code.uses.text
        is_class = (
            has_head
            and not has_both
            and bool(re.search(r"(?i)cross_?entropy|nll|label|cls|class|aux", self.code.uses.text))
        )
        classy = bool(self.classes) or is_class
        both = ("logits", "probabilities")
        on_domains = (on,) if on else both if self.scores else ("logits",)
        class_domains = ("logits",) if not classy else (on,) if on and not self.scores else both
        if self.code.class_on:
            class_domains = (self.code.class_on,)
        heads: tuple[str, ...] = ("features", "maps", "first") if has_head else ("",)
        if has_both:  # TensorFlow's networks return a probability as well
            heads = ("logits" if re.search(r"logit\w*, \w+ = ", self.code.uses.text) else "both", *heads)
        uses, forms = self.code.uses, self._forms(side)
        fixed = rf"\b(?:ones|zeros|randn|rand|full|view)\([(\[]*({'|'.join(str(n) for n, _ in SHAPES[1:7])})\b"
        sizes = re.findall(fixed, uses.text)  # torch.ones(64, 1)
        shapes = sorted(SHAPES, key=lambda shape: str(shape[0]) not in sizes)
        options: tuple[Sequence[Any], ...] = (
            shapes if labels or classy else [shape for shape in shapes if shape[1] == 10],
            (torch.float64, torch.float32),  # float32 for the layers of a loss of its own
            (False, True) if labels else (False,),
            ("class", *heads) if is_class else heads,
            self._arrays(),
            forms,
            (False, True) if self.has_networks else (False,),
        )
        ways = itertools.product(*(range(len(option)) for option in options))
        for way in sorted(ways, key=lambda way: (sum(map(bool, way)), way)):  # few changes first
            (size, classes), dtype, onehot, head, array, form, truth = (o[i] for o, i in zip(options, way, strict=True))
            yield [
                Setup(source_on, class_on, size, classes, array, form, side, onehot, head, truth, dtype)
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
        uses = self.code.uses
        listed = [uses.results.get(name, name) for name in uses.listed]
        is_listed = any(network_of(name) == "D" for name in listed) if self.has_networks else any(
            names.get(name) in SCORES for name in uses.listed)  # fmt: skip
        if is_listed:
            pairs = r"for (\w+ in )?\(?(?!\w*f(ea|m))\w+, \w+\)"  # for (output, features), ... in zip(
            nested = ["pairs", "nested"] if re.search(pairs, uses.text) else ["nested", "pairs"]
            return ["scales", *nested, "flat", "column", "patch"]
        return ["flat", "column", "patch", "scales", "nested"] if self.scores else ["flat"]

    def inputs(self, setup: Setup, scale: float = 2.0, seed: int = 0) -> dict[str, Array]:
        """Random logits and labels for each role; scale 0 sets all of them to 0."""
        rng = np.random.default_rng(seed)
        given = {role: scale * rng.standard_normal(setup.size) for role in self.scores}
        for role in self.class_roles(setup):
            given[role] = scale * rng.standard_normal((setup.size, setup.classes))
        for role in LABEL_ROLES:
            given[role] = rng.integers(0, setup.classes if scale else 1, setup.size).astype(float)
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
        through_g = self.has_networks and bool(self.has_g or self.code.inline) and "fake" in result.gradients
        found = Gradients(in_g=float(np.abs(result.gradients["fake"]).sum()) if through_g else 0.0)
        for role in (*self.scores, *self.class_roles(setup)):
            moved = self(setup, given | {role: 1.001 * given[role]}).value
            if np.abs(moved - result.value).max() <= 1e-7:
                continue
            if not result.gradients[role].any() and (not self.has_networks or (role == "fake" and self.has_g)):
                found.detached.append(role)
            if role in result.d_gradients and not result.d_gradients[role].any():
                found.detached_from_d.append(role)
        if result.penalties:
            is_dead = result.penalties.get(False)
            found.penalty = "subtracted" if min(result.penalties.values()) < 0 else "dead" if is_dead else "right"
        return found

    def __call__(self, setup: Setup, given: dict[str, Array], *, gradients: bool = False) -> Result:
        """The loss at [N] logits and targets, [N, K] class logits and [N] labels; the value averages setup.draws calls.

        Raises LossError.
        """
        results = [self.call_once(setup, given, gradients=gradients, seed=seed) for seed in range(setup.draws)]
        return replace(results[0], value=np.mean([result.value for result in results], axis=0))

    def call_once(self, setup: Setup, given: dict[str, Array], *, gradients: bool = False, seed: int = 0) -> Result:
        torch.set_default_dtype(setup.dtype)
        roles = [*self.scores, *self.classes, *(self.class_roles(setup) if self.has_networks else ())]
        leaves = {role: setup.tensor(given[role], grad=True) for role in dict.fromkeys(roles) if role in given}
        out = self._returned(setup, given, leaves, seed)
        value = loss_value(out, setup.size)
        if not gradients or not isinstance(out, Tensor):
            return Result(value)
        shifts, slopes = self.trace.shifts, self.trace.slopes
        wanted = [*leaves.values(), *shifts.values(), *slopes.values()]
        found: tuple[Tensor | None, ...] = (None,) * len(wanted)
        if out.requires_grad:
            try:
                found = torch.autograd.grad(out.sum(), wanted, allow_unused=True)
            except RuntimeError as error:
                raise LossError(describe_error(error, self.function)) from None
        known = [np.zeros(w.shape) if f is None else f.double().numpy() for f, w in zip(found, wanted, strict=True)]
        of_leaves, rest = dict(zip(leaves, known, strict=False)), known[len(leaves) :]
        of_slopes = {alive: float(k) for alive, k in zip(slopes, rest[len(shifts) :], strict=True)}
        return Result(value, of_leaves, dict(zip(shifts, rest, strict=False)), of_slopes)

    def _survey(self, setup: Setup, player: str | None) -> None:
        """Call the loss once to see which images D is asked about, and whose they are."""
        self.call_once(setup, self.inputs(setup))
        asked, sides = self.trace.asked, {}
        if not asked:
            raise LossError("no output of D reaches it here")
        if player != "g" and {"made"} == {*asked}:
            raise LossError("cannot tell which images are real", "signature-unclear")
        plain = [*asked.get("", {})]
        predicted = [name for name in plain if PREDICTED.search(name)]
        if "fake" not in asked and "made" in asked:
            sides["made"] = "fake"
        elif "fake" not in asked and plain and (player == "g" or "real" in asked):
            sides[""] = "fake"
        elif "fake" not in asked and len(plain) > 1:
            if len(predicted) != 1:
                raise LossError(f"cannot tell which of {', '.join(plain)} is real", "signature-unclear")
            sides[predicted[0]] = "fake"
        elif "fake" not in asked and plain and plain == predicted:
            sides[""] = "fake"
        elif not asked.keys() - {""} and player is None and not self.code.inline:
            raise LossError(f"cannot tell whether {plain[0]} are real or generated", "signature-unclear")
        found = {sides.get(name) or sides.get(kind, "fake" if kind == "fake" else "real")
                 for kind, names in asked.items() for name in names}  # fmt: skip
        self.sides, self.scores = sides, [role for role in self.scores if role in found]
        self.has_g |= self.trace.asked_g

    def _returned(self, setup: Setup, given: dict[str, Array], leaves: dict[str, Tensor], seed: int) -> Any:
        """What the callable returns; raises LossError, or Stops where the user's own code is the cause."""
        labels = torch.tensor(given["labels"]).long()
        shifts = {role: torch.zeros_like(leaf, requires_grad=True) for role, leaf in leaves.items()}
        self.trace = Trace(setup, leaves, shifts if self.has_networks else {}, labels, self.code.settings,
                           self.sides or {}, self._answers(), tolerant=self.code.tolerant)  # fmt: skip
        NOW.append(self.trace)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed is slow: it walks the stack for other devices
        np.random.seed(seed)
        random.seed(seed)
        try:
            arguments = self._arguments(setup, given, leaves)
            for name in self.code.outer:
                self.code.place(name, self.code.fixed[name] if name in self.code.fixed else arguments[name])
            positional = [arguments[name] for name, is_keyword in self.keyword_only.items() if not is_keyword]
            named = {name: arguments[name] for name, is_keyword in self.keyword_only.items() if is_keyword}
            with torch.enable_grad(), Neutral(setup.dtype, self.has_networks and not self.code.form):
                return self.function(*positional, **named)
        except LossError:
            raise
        except (Exception, SystemExit) as error:
            if fault := self._fault_of(str(error), setup):
                raise Stops(fault) from None
            raise LossError(describe_error(error, self.function)) from None
        finally:
            NOW.pop()
            self.penalty_faults |= self.trace.penalty_faults

    def _answers(self) -> int:
        """How many values the loss unpacks from D's answer."""
        counts = [n for name, n in self.code.uses.unpacked.items()
                  if self.reading.roles.get(name) == "D" or network_of(name) == "D"]  # fmt: skip
        return max(counts, default=1)

    def _fault_of(self, text: str, setup: Setup) -> str:
        """The code of the fault for which PyTorch stops the loss with this text; "" if the probe may be the cause."""
        is_known = setup.form == self.code.form
        labels = any("labels" in role for role in self.reading.roles.values())
        causes = {
            "target should be between 0 and 1": ("target-stops", not self.trace.guesses),
            "input should be between 0 and 1": ("logits-in-bce", self.code.on == setup.on == "logits"),
            r"arget size .*\[(\d+)\].* input size .*\[\1, 1\]": ("target-shape", is_known),
            "Target 1 is out of bounds": ("one-class", is_known),
            "ype Long": ("integer-targets", "full(" in self.code.uses.text and not labels),
        }
        return next((code for part, (code, is_cause) in causes.items() if is_cause and re.search(part, text)), "")

    def _arguments(self, setup: Setup, given: dict[str, Array], leaves: dict[str, Tensor]) -> dict[str, Any]:
        """The values of the parameters."""
        fixed: dict[str, Any] = {
            "width": LATENT_DIM, "classes": setup.classes, "size": setup.size, "is_real": bool(given["target"][0] == 1),
        }  # fmt: skip
        arguments: dict[str, Any] = {}
        for name, role in self.reading.roles.items():
            if role == "is_real" and side_of(name) == "fake":
                arguments[name] = not fixed[role]
            elif role in fixed:
                arguments[name] = fixed[role]
            elif role in NUMBERS:
                arguments[name] = harmless(name)
            elif role in FIXED or self.has_networks:
                is_shown = f"{name}['" not in self.code.uses.text or re.search("real|fake", name)
                kind = (side_of(name) if is_shown else "") or (
                    "real" if name in self.code.uses.drawn or role == "image_real" else ""
                )
                net = role if role in ("D", "G") else network_named(name) if is_shown else ""
                arguments[name] = Unknown(Facts(name, kind, net, name))
            else:
                arguments[name] = self._argument(role, setup, given, leaves)
        return arguments

    def _argument(self, role: str, setup: Setup, given: dict[str, Array], leaves: dict[str, Tensor]) -> Any:
        """Outputs of D, class outputs, labels or targets, in the form that the loss takes."""
        if role in leaves:
            value = leaves[role] + 0  # not a leaf, so that it may be changed in place
            if role in SCORES:
                value = value.sigmoid() if setup.on == "probabilities" else value
            elif setup.class_on == "probabilities":
                value = value.softmax(1)
        elif role.startswith("labels"):
            value = torch.tensor(given[role]).long()
            value = nn.functional.one_hot(value, setup.classes).to(setup.dtype) if setup.onehot else value
        else:
            value = setup.tensor(given[role])
        if role in SCORES or role.endswith("target"):
            value = setup.shaped(value)
        return value.detach().numpy() if setup.array and isinstance(value, Tensor) else value
