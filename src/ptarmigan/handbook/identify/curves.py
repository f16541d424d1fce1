"""What a curve over one logit is: cross-entropy, a parabola, a hinge, a line, with its weight and its target.

Each family is linear in its unknowns but for a hinge's margin, so that least squares finds weight, target and offset.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LOGITS = np.linspace(-5.0, 5.0, 41)
EXACT, NEAR = 2e-6, 5e-4  # of a curve's range: rounding; an epsilon inside a logarithm


@dataclass(frozen=True)
class Term:
    """weight * family(t; target) + offset.

    cross_entropy: target s(-t) + (1 - target) s(t); least_squares: (t - target)^2; hinge: max(0, target - t), and
    hinge_down: max(0, t - target); linear: t; flat: 0.  `inner` is what was put before it: a sigmoid, or nothing.
    """

    family: str
    weight: float = 0.0
    target: float = 0.0
    offset: float = 0.0
    inner: str = ""
    error: float = 0.0  # largest residual as a part of the curve's range

    def __call__(self, t: Array) -> Array:
        t = sigmoid(t) if self.inner else t
        if self.family == "cross_entropy":
            shape = self.target * softplus(-t) + (1 - self.target) * softplus(t)
        else:
            shape = {
                "least_squares": (t - self.target) ** 2, "hinge": np.maximum(0, self.target - t),
                "hinge_down": np.maximum(0, t - self.target), "linear": t,
            }.get(self.family, np.zeros_like(t))  # fmt: skip
        return self.weight * shape + self.offset

    @property
    def logarithmic(self) -> bool:
        """Whether an epsilon may stand inside its logarithm."""
        return self.family == "cross_entropy" and not self.inner

    @property
    def pull(self) -> int:
        """1 where minimising it raises the logits, -1 where it lowers them, 0 where it does either or neither."""
        value = self(np.array([-50.0, 0.0, 50.0]))
        if self.family == "flat":
            return 0
        if self.family == "least_squares":
            return int(np.sign(self.weight * self.target))
        return int(np.sign(value[0] - value[2]))


def softplus(t: Array) -> Array:
    return np.logaddexp(0.0, t)


def sigmoid(t: Array) -> Array:
    return np.exp(-np.logaddexp(0.0, -t))


def fit(values: Array, t: Array = LOGITS) -> Term | None:
    """The family that a curve belongs to, or None."""
    span = float(np.ptp(values))
    if span <= 1e-9 * max(1.0, float(np.abs(values).max())):
        return Term("flat", offset=float(values.mean()))
    found = [term for term in candidates(values, t) if term.error <= (NEAR if term.logarithmic else EXACT)]
    exact = [term for term in found if term.error <= EXACT]
    return exact[0] if exact else min(found, key=lambda term: term.error, default=None)


def nearest(values: Array, t: Array = LOGITS) -> str:
    """The loss whose shape, scaled and shifted, comes closest to a curve."""
    shapes = {
        "non_saturating": (softplus(t), softplus(-t)), "least_squares": ((t - 1) ** 2, (t + 1) ** 2, t**2),
        "hinge": (np.maximum(0, 1 - t), np.maximum(0, 1 + t)), "wasserstein": (t,),
    }  # fmt: skip
    errors = {name: min(_solve(values, [shape])[1] for shape in known) for name, known in shapes.items()}
    return min(errors, key=lambda name: errors[name])


def candidates(values: Array, t: Array) -> list[Term]:
    """The best member of each family, the plainer first, with its error."""
    found = []
    for inner, x in (("", t), ("sigmoid", sigmoid(t))):
        (slope, offset), error = _solve(values, [x])
        found.append(Term("linear", slope, 0.0, offset, inner, error))
        if not inner:
            found += _hinges(values, t)
        (square, slope, offset), error = _solve(values, [x * x, x])
        target = -slope / (2 * square) if square else inf
        found.append(Term("least_squares", square, target, offset - square * target**2, inner, error))
        (up, down, offset), error = _solve(values, [softplus(-x), softplus(x)])
        total = up + down
        sane = abs(total) > 1e-3 * max(abs(up), abs(down)) and not (inner and abs(up / total - 0.5) > 1)
        if sane:  # beside a line, a cross-entropy of a sigmoid is nearly anything
            found.append(Term("cross_entropy", total, tidy(up / total), offset, inner, error))
    return found


def _hinges(values: Array, t: Array) -> list[Term]:
    """A line that ends in a flat, on either side."""
    found = []
    for family, flat, steep in (("hinge", values[-1], values[:3]), ("hinge_down", values[0], values[-3:])):
        slope = (steep[2] - steep[0]) / (t[2] - t[0])
        if abs(slope) < 1e-9:
            continue
        weight = -slope if family == "hinge" else slope
        end = t[0] + (values[0] - flat) / weight if family == "hinge" else t[-1] - (values[-1] - flat) / weight
        term = Term(family, tidy(float(weight)), tidy(float(end)), float(flat))
        found.append(replace(term, error=_error(values, term(t))))
    return found


def _solve(values: Array, basis: list[Array]) -> tuple[list[float], float]:
    """Least squares over the basis and a constant -> coefficients, constant last, and the error."""
    matrix = np.stack([*basis, np.ones_like(values)], 1)
    solution = np.linalg.lstsq(matrix, values, rcond=None)[0]
    return [tidy(float(x)) for x in solution], _error(values, matrix @ solution)


def _error(values: Array, fitted: Array) -> float:
    return float(np.abs(values - fitted).max() / max(float(np.ptp(values)), 1e-300))


def tidy(x: float) -> float:
    """Rounded to nine digits, so that .9 reads as .9."""
    return round(x, 9) + 0.0


@dataclass(frozen=True)
class ClassTerm:
    """weight * family(c, y) + offset, of class logits c [M, K] and labels y [M]."""

    family: str
    weight: float = 0.0
    smoothing: float = 0.0  # the part of the target that is spread over all classes
    offset: float = 0.0
    error: float = 0.0
    detail: str = ""


def fit_class(c: Array, y: NDArray[np.int64], values: Array) -> ClassTerm | None:
    """The class term that gives these values [M] on class logits c [M, K] and labels y [M], or None."""
    span = float(np.ptp(values))
    if span <= 1e-9 * max(1.0, float(np.abs(values).max())):
        return ClassTerm("flat", offset=float(values.mean()))
    found = []
    for family, bases in class_shapes(c, y).items():
        solution, error = _solve(values, bases)
        weight = sum(solution[:-1])
        smoothing = tidy(solution[1] / weight) if len(bases) > 1 and abs(weight) > 1e-9 else 0.0
        if error <= NEAR and abs(smoothing) < 1:
            found.append(ClassTerm(family, tidy(weight), smoothing, solution[-1], error))
    exact = [term for term in found if term.error <= EXACT]
    return exact[0] if exact else min(found, key=lambda term: term.error, default=None)


def class_shapes(c: Array, y: NDArray[np.int64]) -> dict[str, list[Array]]:
    """Each known class term [M], with the parts that its unknowns weigh."""
    row = np.arange(len(y))
    classes = c.shape[1]
    other = (y + classes // 2) % classes  # of discriminative_classifier: K + y
    p, onehot = np.exp(log_softmax(c)), np.eye(classes)[y]
    shapes = {
        "nll": [-c[row, y]],
        "adc_g": [c[row, other] - c[row, y]],
        "cross_entropy": [-log_softmax(c)[row, y], -log_softmax(c).mean(1)],
        "adc_d": [-log_softmax(c)[row, other]],
        "softmax_first": [-log_softmax(p)[row, y]],
        "sigmoid_first": [-log_softmax(sigmoid(c))[row, y]],
        "nll_of_softmax": [-p[row, y]],
        "brier": [((p - onehot) ** 2).sum(1)],
        "squares": [((c - onehot) ** 2).sum(1)],
        "one_vs_all": [(onehot * softplus(-c) + (1 - onehot) * softplus(c)).sum(1)],
    }
    return shapes if classes > 2 else {key: basis for key, basis in shapes.items() if not key.startswith("adc")}


def log_softmax(c: Array) -> Array:
    shifted = c - c.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


@dataclass(frozen=True)
class Shape:
    """What can be said of any curve."""

    low: str  # at t = -inf
    high: str
    value: float  # at t = 0
    slope: float
    monotone: str
    bounded: str


def shape(values: Array, t: Array, far: Array) -> Shape:
    """Describe a curve from its values at `t` and at four points far out, two a side, where it may not be finite."""
    step = np.diff(values)
    monotone = "rising" if (step >= 0).all() else "falling" if (step <= 0).all() else "not monotone"
    ends = [_limit(far[1], far[0]), _limit(far[2], far[3])]
    below, above = "-inf" not in ends, "inf" not in ends
    bounded = {(True, True): "bounded", (True, False): "bounded below", (False, True): "bounded above"}.get(
        (below, above), "unbounded"
    )
    centre = len(t) // 2
    slope = (values[centre + 1] - values[centre - 1]) / (t[centre + 1] - t[centre - 1])
    return Shape(ends[0], ends[1], float(values[centre]), float(slope), monotone, bounded)


def _limit(near: float, far: float) -> str:
    if not (np.isfinite(near) and np.isfinite(far)):
        return "not finite" if np.isnan(far) or np.isnan(near) else "inf" if far > 0 else "-inf"
    if abs(far - near) <= 1e-2 * max(1.0, abs(near)):
        return f"{far:.4g}"
    return "inf" if far > near else "-inf"
