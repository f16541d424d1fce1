"""Stage 4 of source -> ... -> answer: measure a loss, and fit a known term to each logit.

The curve over one logit is cross-entropy, a parabola, a hinge or a line, with a weight, a target and an offset.  Apart
from a hinge's margin, each family is linear in its unknowns, so linear least squares finds them.  Class terms, the
reduction, gradients and accuracy in float32 are measured as well.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from math import inf
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ptarmigan.handbook.identify.call import Array, Gradients, LossFunction, Setup
from ptarmigan.handbook.identify.signature import LABEL_ROLES, LossError
from ptarmigan.losses.conditioning import d2d_ce

LOGITS = np.linspace(-5.0, 5.0, 41)
FAR_LOGITS = np.array([-1e4, -1e3, 1e3, 1e4])
FLOAT32_LOGITS = range(1, 120)  # at which float32 is compared with float64
EXACT, NEAR = 2e-6, 5e-4  # residuals relative to the curve's range: by rounding, by an epsilon inside a logarithm
CLASS_ROWS = 24  # rows of class logits to which a class term is fitted
DRAWS = 64  # calls over which a random loss is averaged


# --- the terms ---


@dataclass(frozen=True)
class Term:
    """weight * family(t; target) + offset, of a logit t, or of sigmoid(t) if `behind_sigmoid`.

    cross_entropy: target s(-t) + (1 - target) s(t); least_squares: (t - target)^2; hinge: max(0, target - t);
    hinge_down: max(0, t - target); linear: t; flat: 0.  A hinge may leak: its flat part has a slope then.
    """

    family: str
    weight: float = 0.0
    target: float = 0.0
    offset: float = 0.0
    behind_sigmoid: bool = False
    error: float = 0.0  # largest residual, relative to the curve's range
    leak: float = 0.0  # a hinge's slope beyond its margin

    def __call__(self, t: float | Array) -> Array:
        t = sigmoid(t) if self.behind_sigmoid else np.asarray(t, np.float64)
        target = self.target
        if self.family == "cross_entropy":
            value = target * softplus(-t) + (1 - target) * softplus(t)
        elif self.family == "least_squares":
            value = (t - target) ** 2
        elif self.family in ("hinge", "hinge_down"):
            inner = target - t if self.family == "hinge" else t - target
            value = np.maximum(0, inner) + self.leak * np.minimum(0, inner)
        else:
            value = t if self.family == "linear" else 0 * t
        return np.asarray(self.weight * value + self.offset)

    @property
    def undirected_family(self) -> str:
        return self.family.removesuffix("_down")

    def turned(self, about: float) -> Term:
        """The term of the logit about - t."""
        if self.family == "cross_entropy":
            return replace(self, target=1 - self.target)
        swapped = {"hinge": "hinge_down", "hinge_down": "hinge"}.get(self.family, self.family)
        weight = -self.weight if self.family == "linear" else self.weight
        return replace(self, family=swapped, weight=weight, target=about - self.target + 0.0)

    @property
    def direction(self) -> int:
        """1 if minimising the term raises the logit, -1 if it lowers it (for least squares, from 0), else 0."""
        if self.family == "least_squares":
            return int(np.sign(self.weight * self.target))
        if self.family == "cross_entropy" and close(self.target, 0.5):
            return 0
        return int(np.sign(self(-50.0) - self(50.0)))


@dataclass(frozen=True)
class ClassTerm:
    """weight * family(c, y) + offset, of class logits c [M, K] and labels y [M]."""

    family: str
    weight: float = 0.0
    smoothing: float = 0.0  # the share of the target that is spread over all classes
    offset: float = 0.0
    error: float = 0.0
    detail: str = ""


# --- the measurement ---


@dataclass
class Measurement:
    """What was measured about one loss in one setup."""

    loss: LossFunction
    setup: Setup
    random: bool = False
    told: bool = False  # that it takes probabilities was declared
    curves: dict[str, Array] = field(default_factory=dict)  # per image, at LOGITS; keys as in LossFunction.axes
    far: dict[str, Array] = field(default_factory=dict)  # the value at FAR_LOGITS, which need not be finite
    terms: dict[str, Term | None] = field(default_factory=dict)
    reductions: dict[str, str] = field(default_factory=dict)  # none, mean, sum or other, of each term
    joint: str = ""  # how real and fake depend on each other: "", difference, average or other
    difference: Term | None = None  # the term in real - fake, if the loss depends on that alone
    classes: dict[str, ClassTerm | None] = field(default_factory=dict)
    wrong_labels: list[str] = field(default_factory=list)  # class roles that are compared with the other half's labels
    class_and_source_mixed: bool = False  # their terms are not a sum
    coupled: str = ""  # how images depend on each other: "", mean (of the logits, before the loss), max or other
    half: str = ""  # the half of the relativistic average that it is
    gradients: Gradients = field(default_factory=Gradients)
    float32: tuple[str, float, str] | None = None  # the key of a curve, the first logit that fails, and how
    offset: float = 0.0  # the value at logits 0, minus that of the terms

    @property
    def known(self) -> bool:
        """Whether every part has a term."""
        terms = [self.difference] if self.joint else list(self.terms.values())
        unknown = None in terms or None in self.classes.values()
        if self.setup.on == "probabilities" and not self.told:  # the sigmoid is the probe's own, not the loss's
            unknown |= any(term is not None and term.behind_sigmoid for term in terms)
        return not unknown and not self.class_and_source_mixed and self.joint != "other"

    @property
    def sum_factor(self) -> int:
        """The divisor that turns the value into that of one image."""
        return self.setup.size if "sum" in self.reductions.values() else 1

    def at(self, **values: float | Array) -> float:
        return self.loss.at(self.setup, **values)


def measure(loss: LossFunction, on: str | None, player: str | None, part: bool = False) -> Measurement:
    """Measure a loss on logits or on probabilities, whichever explains every term; a `part` may ignore one half.

    Raises LossError.
    """
    found: list[Measurement] = []
    failures: list[LossError] = []
    for setup in loss.setups(on):
        try:
            found.append(_measure(loss, setup, on is not None, player))
        except LossError as error:
            failures.append(error)
            continue
        if found[-1].known:
            break
    if not found:
        raise failures[0]
    best = found[-1] if found[-1].known else found[0]
    if part and len(best.terms) > 1:
        for key in [key for key, term in best.terms.items() if term and term.family == "flat"]:
            del best.terms[key], best.reductions[key]
    return best


def _measure(loss: LossFunction, setup: Setup, told: bool, player: str | None) -> Measurement:
    """Raises LossError where a value is not finite at |logit| <= 5."""
    given = loss.inputs(setup)
    first = loss(setup, given).value
    if not np.array_equal(first, loss(setup, given).value, equal_nan=True):
        raise LossError("it returns different values for the same input and seed, so it keeps a state")
    seen, text = Measurement(loss, setup, told=told), loss.code.uses.text
    if any(
        (loss.call_once(setup, given, seed=seed).value != first).any() for seed in range(1, 64 if "rand" in text else 9)
    ):
        seen.random, seen.setup = True, replace(setup, draws=8 if loss.has_networks else DRAWS)
    _measure_curves(seen, player)
    _measure_joint(seen)
    _measure_classes(seen)
    if not seen.random and "embedding" not in loss.classes:
        _measure_coupling(seen)
    seen.gradients = loss.gradients(setup)
    if seen.known and not seen.random and not seen.joint:
        _measure_float32(seen)
    _measure_offset(seen)
    return seen


def _measure_curves(seen: Measurement, player: str | None) -> None:
    """The curve over each logit, and its term."""
    for key, role, fixed in seen.loss.axes(player):
        try:
            values = np.array([seen.at(**{role: t}, **fixed) for t in LOGITS])
            seen.far[key] = np.array([seen.at(**{role: t}, **fixed) for t in FAR_LOGITS])
        except LossError:
            if key == "output@-1":  # a target that some losses reject
                continue
            raise
        bad = ~np.isfinite(values)
        if bad.any():
            t = LOGITS[bad][0]
            where = f"logit {t:.3g}" if seen.setup.on == "logits" else f"probability {sigmoid(t):.3g}"
            raise LossError(f"it is {values[bad][0]} at {where} of {role}")
        seen.reductions[key] = seen.loss.reduction(seen.setup, role, (LOGITS[0], LOGITS[-1], 1.0), **fixed)
        seen.curves[key] = values / seen.setup.size if seen.reductions[key] == "sum" else values
        seen.terms[key] = fit_curve(seen.curves[key])


def _measure_joint(seen: Measurement) -> None:
    """Whether real and fake have separate terms, or one term of their difference."""
    if not {"real", "fake"} <= set(seen.loss.scores):
        return
    zero = seen.at()
    values = {(r, f): seen.at(real=r, fake=f) for r, f in ((1.3, -0.7), (-2.1, 0.4), (3.0, 3.5), (-1.0, -4.0))}
    tolerance = 1e-5 * (max(abs(value - zero) for value in values.values()) or 1.0)
    if all(abs(v - seen.at(real=r) - seen.at(fake=f) + zero) <= tolerance for (r, f), v in values.items()):
        return
    seen.joint = "other"
    if seen.setup.on == "logits" and all(
        abs(seen.at(real=r + 0.9, fake=f + 0.9) - v) <= tolerance for (r, f), v in values.items()
    ):
        seen.joint = "difference"
        seen.curves["difference"] = np.array([seen.at(real=d / 2, fake=-d / 2) for d in LOGITS]) / seen.sum_factor
        seen.far = {"difference": np.array([seen.at(real=d / 2, fake=-d / 2) for d in FAR_LOGITS])}
        seen.difference = fit_curve(seen.curves["difference"])


def _measure_classes(seen: Measurement) -> None:
    """The term of each class output, with the labels that explain it."""
    loss, setup = seen.loss, seen.setup
    rng = np.random.default_rng(1)
    for role in loss.class_roles(setup):
        if role == "embedding":
            seen.classes[role], seen.reductions[role] = _fit_contrast(seen)
            continue
        c = 2 * rng.standard_normal((CLASS_ROWS, setup.classes))
        y = rng.integers(0, setup.label_count, CLASS_ROWS)
        half = role.removeprefix("class_").removeprefix("twin_")
        named = set(loss.reading.roles.values())
        keys = [key for key in (f"labels_{half}", "labels", "labels_real", "labels_fake") if key in named] or ["labels"]
        for key in dict.fromkeys(keys):
            values = np.array([seen.at(**{role: row, key: float(k)}) for row, k in zip(c, y, strict=True)])
            if not np.isfinite(values).all():
                raise LossError(f"it is not finite for ordinary class {setup.class_on}")
            seen.reductions[role] = loss.reduction(setup, role, c[:3])
            values = values / setup.size if seen.reductions[role] == "sum" else values
            seen.classes[role] = fit_classes(c, y, values)
            if seen.classes[role] is not None:
                if key != keys[0]:
                    seen.wrong_labels.append(role)
                break
        if loss.scores:
            source = loss.scores[-1]
            corner = [seen.at(**{source: s, role: k}) for s in (0.0, 2.0) for k in (0 * c[0], c[0])]
            if abs(corner[0] + corner[3] - corner[1] - corner[2]) > 1e-5 * (1 + max(map(abs, corner))):
                seen.class_and_source_mixed = True


def _fit_contrast(seen: Measurement) -> tuple[ClassTerm | None, str]:
    """D2D-CE (Kang et al. 2021) of embedding, proxy and labels with its margin and temperature, and its reduction.

    Image 0 is alone in its class and opposite to all others, which lie on their proxies.  Its loss is then
    log(1 + n e^-a), a = min(cos - margin, 0) / temperature: two cosines give both.  Random batches confirm them.
    """
    loss, setup, n = seen.loss, seen.setup, seen.setup.size - 1
    given = loss.inputs(setup)
    axis = np.eye(given["proxy"].shape[1])[0]
    labels = dict.fromkeys(LABEL_ROLES, 1.0 * (np.arange(setup.size) > 0))
    embedding, proxy = (np.tile(-axis, (len(given[role]), 1)) for role in ("embedding", "proxy"))
    embedding[0] = axis

    def opposed(cosine: float) -> Array:
        proxy[0] = cosine * axis
        proxy[0, 1] = np.sqrt(1 - cosine**2)
        return loss(setup, given | {"embedding": embedding, "proxy": proxy} | labels).value

    values = np.array([opposed(cosine) for cosine in (-1.0, -0.9, 1.0)])
    for reduction in ("none",) if values.ndim == 2 else ("mean", "sum"):
        first = values[:, 0] if values.ndim == 2 else values * (setup.size if reduction == "mean" else 1)
        above = first - first[2] + np.log1p(n)
        if (above[:2] <= np.log1p(n) + 1e-9).any():
            continue
        a = -np.log(np.expm1(above[:2]) / n)
        temperature = 0.1 / (a[1] - a[0])
        margin = -1.0 - a[0] * temperature
        if all(_is_contrast(seen, seed, margin, temperature, reduction) for seed in (1, 2, 3)):
            return ClassTerm("contrast", 1.0, detail=f"margin {margin:.4g}, temperature {temperature:.4g}"), reduction
    return None, "mean"


def _is_contrast(seen: Measurement, seed: int, margin: float, temperature: float, reduction: str) -> bool:
    loss, given = seen.loss, seen.loss.inputs(seen.setup, seed=seed)
    labels = torch.tensor(given["labels"]).long()
    proxy = torch.tensor(given["proxy"])
    proxy = proxy[labels] if loss.proxy_of_each_class else proxy
    known = d2d_ce(torch.tensor(given["embedding"]), proxy, labels, margin=margin, temperature=temperature).numpy()
    want = {"none": known, "mean": known.mean(), "sum": known.sum()}[reduction]
    here, one_class = (  # of one class alone the term is 0
        loss(seen.setup, given | dict.fromkeys(LABEL_ROLES, scale * given["labels"])).value for scale in (1, 0)
    )
    return bool(np.abs(here - one_class - want).max() <= 1e-5 * (1 + np.abs(want).max()))


def _measure_coupling(seen: Measurement) -> None:
    """Whether the loss of a batch is the mean or sum of the losses of its images."""
    loss, setup = seen.loss, seen.setup
    given = loss.inputs(setup, seed=3)
    whole = loss(setup, given).value
    alone = np.array([seen.at(**{role: value[i] for role, value in given.items()}) for i in range(setup.size)])
    tolerance = 1e-5 * (float(np.ptp(alone)) + 1e-9)
    if np.abs(whole - (alone if whole.ndim else alone.mean())).max() <= tolerance:
        return
    term = seen.difference
    if seen.joint == "difference" and term is not None and term.family == "cross_entropy":
        r, f = given["real"] - given["fake"].mean(), given["fake"] - given["real"].mean()
        halves = (softplus(-r), softplus(f)) if term.target == 1 else (softplus(r), softplus(-f))
        shares = {"": (0.5, 0.5), "real": (1, 0), "fake": (0, 1)}
        for half, (a, b) in shares.items():
            expected = term.weight * (a * halves[0].mean() + b * halves[1].mean()) + term.offset
            if abs(whole.mean() / seen.sum_factor - expected) <= tolerance:
                seen.joint, seen.half = "average", half
                return
    class_roles = loss.class_roles(setup)
    means = {role: given[role].mean(0) for role in loss.scores}
    of_mean = not class_roles and np.abs(whole - seen.at(**means)).max() <= tolerance
    of_max = not whole.ndim and any(abs(whole - extreme) <= tolerance for extreme in (alone.max(), alone.min()))
    seen.coupled = "mean" if of_mean else "max" if of_max else "other"


def _measure_float32(seen: Measurement) -> None:
    """The logit nearest to 0 at which a cross-entropy fails in float32."""
    failures: list[tuple[str, float, str]] = []
    for key, role, fixed in seen.loss.axes():
        term = seen.terms.get(key)
        if term is None or term.family != "cross_entropy" or term.behind_sigmoid or key == "output@-1":
            continue
        for sign in (1.0, -1.0):
            if abs(term(sign * 50.0) - term.offset) < 0.5 * abs(term.weight):
                continue  # the flat side
            with contextlib.suppress(LossError):
                failures += _float32_failure(seen, key, role, fixed, term, sign)
    seen.float32 = min(failures, key=lambda failure: abs(failure[1]), default=None)


def _float32_failure(
    seen: Measurement, key: str, role: str, fixed: dict[str, float], term: Term, sign: float
) -> list[tuple[str, float, str]]:
    """The first logit, to 1/16, at which the value is 2 % off or the gradient is lost, and what happens beyond it."""
    loss, setup = seen.loss, replace(seen.setup, double=False, draws=1)
    has_gradient = role not in seen.gradients.detached and not loss.has_networks
    scale = setup.size if seen.reductions[key] == "sum" else 1

    def failure(t: float) -> str:
        given = loss.inputs(setup, scale=0.0)
        given |= {key: np.full(setup.size, value) for key, value in ({role: sign * t} | fixed).items()}
        result = loss(setup, given, gradients=True)
        value = float(result.value.mean()) / scale - term.offset
        expected = float(term(sign * t)) - term.offset
        if not np.isfinite(value):
            return f"is {value}"
        if abs(value - expected) > 0.02 * abs(expected):
            return f"is {value:.4g} instead of {expected:.4g}"
        if not has_gradient or result.gradients is None:
            return ""
        gradient = result.gradients[role]
        if not np.isfinite(gradient).all():
            return "has no finite gradient"
        return "has gradient 0" if abs(gradient.sum()) < 1e-3 * abs(term.weight) else ""

    first = next((t for t in FLOAT32_LOGITS if failure(t)), None)
    if first is None:
        return []
    at = next(t for t in (first - 1 + step / 16 for step in range(17)) if failure(t))
    return [(key, sign * at, failure(at + 1.0) or failure(at))]


def _measure_offset(seen: Measurement) -> None:
    """The value at logits 0, minus that of the terms.  A curve's own offset includes the value of all other terms."""
    terms: dict[str, Term | ClassTerm | None] = {"difference": seen.difference}
    if not seen.joint:
        terms = {key: term for key, term in seen.terms.items() if key not in ("output@0", "output@-1")}
    value = seen.at()
    seen.offset = value
    for key, term in {**terms, **seen.classes}.items():
        reduction = seen.reductions.get(key, "sum" if seen.sum_factor > 1 else "mean")
        if term is not None and term.family != "contrast":
            seen.offset -= value - term.offset * (seen.setup.size if reduction == "sum" else 1)


# --- fitting ---

AnyTerm = TypeVar("AnyTerm", Term, ClassTerm)


def softplus(t: float | Array) -> Array:
    return np.asarray(np.logaddexp(0.0, t))


def sigmoid(t: float | Array) -> Array:
    return np.exp(-softplus(-np.asarray(t)))


def close(a: float, b: float) -> bool:
    """Whether two weights or targets are equal within the error that an epsilon inside a logarithm causes."""
    return abs(a - b) <= 2e-3 * max(1.0, abs(b))


def fit_curve(values: Array) -> Term | None:
    """The term that gives these values at LOGITS, or None."""
    if _is_constant(values):
        return Term("flat", offset=float(values.mean()))
    found = []
    for behind_sigmoid, t in ((False, LOGITS), (True, sigmoid(LOGITS))):
        (slope, offset), error = least_squares(values, [t])
        found.append(Term("linear", slope, 0.0, offset, behind_sigmoid, error))
        if not behind_sigmoid:
            found += [*_hinges(values), *_leaky(values)]
        (square, slope, offset), error = least_squares(values, [t * t, t])
        target = -slope / (2 * square) if square else inf
        found.append(Term("least_squares", square, target, offset - square * target**2, behind_sigmoid, error))
        (up, down, offset), error = least_squares(values, [softplus(-t), softplus(t)])
        weight = up + down
        is_line = abs(weight) <= 1e-3 * max(abs(up), abs(down))
        # cross-entropy of a sigmoid, combined with a line, fits nearly anything
        if not is_line and not (behind_sigmoid and abs(up / weight - 0.5) > 1):
            found.append(Term("cross_entropy", weight, _tidy(up / weight), offset, behind_sigmoid, error))
    return _best(
        [
            term
            for term in found
            if term.error <= (NEAR if term.family == "cross_entropy" and not term.behind_sigmoid else EXACT)
        ]
    )


def _hinges(values: Array) -> list[Term]:
    """A slope from one end, and a flat part up to the other."""
    found = []
    for family, end, inner, flat in (("hinge", 0, 2, -1), ("hinge_down", -1, -3, 0)):
        slope = (values[end] - values[inner]) / (LOGITS[end] - LOGITS[inner])
        if abs(slope) < 1e-9:
            continue
        target = LOGITS[end] - (values[end] - values[flat]) / slope
        weight = slope * np.sign(LOGITS[end])
        term = Term(family, _tidy(float(weight)), _tidy(float(target)), float(values[flat]))
        found.append(replace(term, error=_residual(values, term(LOGITS))))
    return found


def _leaky(values: Array) -> list[Term]:
    """Two slopes, of one sign, with a kink between them: a hinge that leaks."""
    step = LOGITS[1] - LOGITS[0]
    low, high = (values[1] - values[0]) / step, (values[-1] - values[-2]) / step
    steep = low if abs(low) > abs(high) else high
    if low * high <= 0 or abs(low - high) < 1e-6 * abs(steep):
        return []
    kink = ((values[-1] - high * LOGITS[-1]) - (values[0] - low * LOGITS[0])) / (low - high)
    family = "hinge" if steep is low else "hinge_down"
    weight, leak = (-low, high / low) if family == "hinge" else (high, low / high)
    term = Term(
        family, _tidy(float(weight)), _tidy(float(kink)), float(values[0] + low * (kink - LOGITS[0])), leak=float(leak)
    )
    return [replace(term, error=_residual(values, term(LOGITS)))]


def fit_classes(c: Array, y: NDArray[np.int64], values: Array) -> ClassTerm | None:
    """The class term that gives these values [M] at class logits c [M, K] and labels y [M], or None."""
    if _is_constant(values):
        return ClassTerm("flat", offset=float(values.mean()))
    found = []
    for family, bases in class_bases(c, y).items():
        (*parts, offset), error = least_squares(values, bases)
        weight = sum(parts)
        smoothing = _tidy(parts[1] / weight) if len(bases) > 1 and abs(weight) > 1e-9 else 0.0
        if error <= NEAR and abs(smoothing) < 1:
            found.append(ClassTerm(family, _tidy(weight), smoothing, offset, error))
    return _best(found)


def class_bases(c: Array, y: NDArray[np.int64]) -> dict[str, list[Array]]:
    """{family of class terms: the functions [M] of which it is a weighted sum}."""
    row, classes = np.arange(len(y)), c.shape[1]
    other = (y + classes // 2) % classes  # discriminative_classifier's K + y
    p, onehot = np.exp(_log_softmax(c)), np.eye(classes)[y]
    bases = {
        "nll": [-c[row, y]],
        "adc_g": [c[row, other] - c[row, y]],
        "cross_entropy": [-_log_softmax(c)[row, y], -_log_softmax(c).mean(1)],
        "adc_d": [-_log_softmax(c)[row, other]],
        "softmax_first": [-_log_softmax(p)[row, y]],
        "sigmoid_first": [-_log_softmax(sigmoid(c))[row, y]],
        "nll_of_softmax": [-p[row, y]],
        "brier": [((p - onehot) ** 2).sum(1)],
        "squares": [((c - onehot) ** 2).sum(1)],
        "one_vs_all": [(onehot * softplus(-c) + (1 - onehot) * softplus(c)).sum(1)],
    }
    return {family: basis for family, basis in bases.items() if classes > 2 or not family.startswith("adc")}


def _log_softmax(c: Array) -> Array:
    shifted = c - c.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def _best(found: list[AnyTerm]) -> AnyTerm | None:
    """The first exact term, else the nearest one."""
    exact = next((term for term in found if term.error <= EXACT), None)
    return exact or min(found, key=lambda term: term.error, default=None)


def _is_constant(values: Array) -> bool:
    return bool(np.ptp(values) <= 1e-9 * max(1.0, np.abs(values).max()))


def least_squares(values: Array, bases: list[Array]) -> tuple[list[float], float]:
    """The least-squares weights of the bases, then that of a constant, and the residual."""
    matrix = np.stack([*bases, np.ones_like(values)], 1)
    solution = np.linalg.lstsq(matrix, values, rcond=None)[0]
    return [_tidy(float(x)) for x in solution], _residual(values, matrix @ solution)


def _residual(values: Array, fitted: Array) -> float:
    return float(np.abs(values - fitted).max() / max(float(np.ptp(values)), 1e-300))


def _tidy(x: float) -> float:
    """Rounded to nine digits, so that 0.9 prints as 0.9."""
    return round(x, 9) + 0.0
