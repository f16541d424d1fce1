"""The shapes of which a loss's curves are made, and the fit of their weights, targets and offsets.

A curve over one logit is a shape with a weight, a target and an offset.  Apart from a hinge's margin each shape is
linear in its unknowns, so linear least squares finds them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LOGITS = np.array([-5.0, -4.0, -2.6, -1.4, -0.6, 0.0, 0.6, 1.4, 2.6, 4.0, 5.0])  # of the curves
EXACT, NEAR = 2e-6, 5e-4  # residuals relative to the curve's range: by rounding, by an epsilon inside a logarithm


# --- terms of D's outputs ---


@dataclass(frozen=True)
class Term:
    """weight * shape(t; target) + offset, of a logit t, or of sigmoid(t) if `behind_sigmoid`.

    cross_entropy: target s(-t) + (1 - target) s(t); least_squares: (t - target)^2; hinge: max(0, target - t);
    hinge_down: max(0, t - target); linear: t; flat: 0.  A hinge may leak: its flat part has a slope then.
    """

    shape: str
    weight: float = 0.0
    target: float = 0.0
    offset: float = 0.0
    behind_sigmoid: bool = False
    error: float = 0.0  # largest residual, relative to the curve's range
    leak: float = 0.0  # a hinge's slope beyond its margin

    def __call__(self, t: float | Array) -> Array:
        t = sigmoid(t) if self.behind_sigmoid else np.asarray(t, np.float64)
        target = self.target
        if self.shape == "cross_entropy":
            value = target * softplus(-t) + (1 - target) * softplus(t)
        elif self.shape == "least_squares":
            value = (t - target) ** 2
        elif self.shape in ("hinge", "hinge_down"):
            inner = target - t if self.shape == "hinge" else t - target
            value = np.maximum(0, inner) + self.leak * np.minimum(0, inner)
        else:
            value = t if self.shape == "linear" else 0 * t
        return np.asarray(self.weight * value + self.offset)

    @property
    def undirected(self) -> str:
        return self.shape.removesuffix("_down")

    @property
    def scale(self) -> float:
        """The weight in units of the handbook's loss, which halves least squares."""
        return abs(self.weight) * (2 if self.shape == "least_squares" else 1)

    def turned(self, about: float) -> Term:
        """The term of the logit about - t."""
        if self.shape == "cross_entropy":
            return replace(self, target=1 - self.target)
        swapped = {"hinge": "hinge_down", "hinge_down": "hinge"}.get(self.shape, self.shape)
        weight = -self.weight if self.shape == "linear" else self.weight
        return replace(self, shape=swapped, weight=weight, target=about - self.target + 0.0)

    @property
    def direction(self) -> int:
        """1 if minimising the term raises the logit, -1 if it lowers it (for least squares, from 0), else 0."""
        if self.shape == "least_squares":
            return int(np.sign(self.weight * self.target))
        if self.shape == "cross_entropy" and close(self.target, 0.5):
            return 0
        return int(np.sign(self(-50.0) - self(50.0)))


def fit_curve(values: Array) -> Term | None:
    """The term that gives these values at LOGITS, or None."""
    if is_constant(values):
        return Term("flat", offset=float(values.mean()))
    found = _hinges(values)
    for behind_sigmoid, t in ((False, LOGITS), (True, sigmoid(LOGITS))):
        (slope, offset), error = least_squares(values, [t])
        found.insert(0, Term("linear", slope, 0.0, offset, behind_sigmoid, error))
        (square, slope, offset), error = least_squares(values, [t * t, t])
        target = -slope / (2 * square) if square else inf
        found.append(Term("least_squares", square, target, offset - square * target**2, behind_sigmoid, error))
        for epsilon in (0.0, 1e-4, 1e-3):  # inside the logarithms
            bases = [-np.log(sigmoid(t) + epsilon), -np.log(sigmoid(-t) + epsilon)]
            (up, down, offset), error = least_squares(values, bases)
            weight = up + down
            is_line = abs(weight) <= 1e-3 * max(abs(up), abs(down))
            # cross-entropy of a sigmoid, combined with a line, fits nearly anything
            if not is_line and not (behind_sigmoid and (epsilon or abs(up / weight - 0.5) > 1)):
                found.append(Term("cross_entropy", weight, _tidy(up / weight), offset, behind_sigmoid, error))
    near = [term for term in found if term.error <= (
        NEAR if term.shape == "cross_entropy" and not term.behind_sigmoid else EXACT)]  # fmt: skip
    return _best(near)


def _hinges(values: Array) -> list[Term]:
    """Two slopes with a kink between them; the lesser is 0, or has the same sign: a hinge that leaks."""
    steps = np.diff(values)[[0, -1]] / np.diff(LOGITS)[[0, -1]]
    low, high = (0.0 if abs(slope) < 1e-9 * np.abs(steps).max() else float(slope) for slope in steps)
    if low * high < 0 or abs(low - high) <= 1e-6 * max(abs(low), abs(high)):
        return []
    kink = ((values[-1] - high * LOGITS[-1]) - (values[0] - low * LOGITS[0])) / (low - high)
    shape, weight, leak = ("hinge", -low, high / low) if abs(low) > abs(high) else ("hinge_down", high, low / high)
    offset = float(values[0] + low * (kink - LOGITS[0]))
    term = Term(shape, _tidy(weight), _tidy(float(kink)), offset, leak=leak)
    return [replace(term, error=_residual(values, term(LOGITS)))]


# --- terms of class logits ---


@dataclass(frozen=True)
class ClassTerm:
    """weight * shape(c, y) + offset, of class logits c [M, K] and labels y [M]."""

    shape: str
    weight: float = 0.0
    smoothing: float = 0.0  # the share of the target that is spread over all classes
    offset: float = 0.0
    error: float = 0.0


def fit_classes(c: Array, y: NDArray[np.int64], values: Array) -> ClassTerm | None:
    """The class term that gives these values [M] at class logits c [M, K] and labels y [M], or None."""
    if is_constant(values):
        return ClassTerm("flat", offset=float(values.mean()))
    found = []
    for shape, bases in class_bases(c, y).items():
        (*parts, offset), error = least_squares(values, bases)
        weight = sum(parts)
        smoothing = _tidy(parts[1] / weight) if len(bases) > 1 and abs(weight) > 1e-9 else 0.0
        if error <= NEAR and abs(smoothing) < 1:
            found.append(ClassTerm(shape, _tidy(weight), smoothing, offset, error))
    return _best(found)


def class_bases(c: Array, y: NDArray[np.int64]) -> dict[str, list[Array]]:
    """For each shape of class terms: the functions, each with its values [M], of which the terms are a weighted sum."""
    row, classes = np.arange(len(y)), c.shape[1]
    p, onehot = np.exp(_log_softmax(c)), np.eye(classes)[y]
    return {
        "nll": [-c[row, y]],
        "cross_entropy": [-_log_softmax(c)[row, y], -_log_softmax(c).mean(1)],
        "softmax_first": [-_log_softmax(p)[row, y]],
        "sigmoid_first": [-_log_softmax(sigmoid(c))[row, y]],
        "nll_of_softmax": [-p[row, y]],
        "brier": [((p - onehot) ** 2).sum(1)],
        "squares": [((c - onehot) ** 2).sum(1)],
        "one_vs_all": [(onehot * softplus(-c) + (1 - onehot) * softplus(c)).sum(1)],
    }


# --- arithmetic ---

AnyTerm = TypeVar("AnyTerm", Term, ClassTerm)


def softplus(t: float | Array) -> Array:
    return np.asarray(np.logaddexp(0.0, t))


def sigmoid(t: float | Array) -> Array:
    return np.exp(-softplus(-np.asarray(t)))


def close(a: float, b: float) -> bool:
    """Whether two weights or targets are equal within the error that an epsilon inside a logarithm causes."""
    return abs(a - b) <= 2e-3 * max(1.0, abs(b))


def least_squares(values: Array, bases: list[Array]) -> tuple[list[float], float]:
    """The least-squares weights of the bases, then that of a constant, and the residual."""
    matrix = np.stack([*bases, np.ones_like(values)], 1)
    solution = np.linalg.lstsq(matrix, values, rcond=None)[0]
    return [_tidy(float(x)) for x in solution], _residual(values, matrix @ solution)


def is_constant(values: Array) -> bool:
    return bool(np.ptp(values) <= 1e-9 * max(1.0, np.abs(values).max()))


def _log_softmax(c: Array) -> Array:
    shifted = c - c.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def _best(found: list[AnyTerm]) -> AnyTerm | None:
    """The first exact term, else the nearest one."""
    exact = next((term for term in found if term.error <= EXACT), None)
    return exact or min(found, key=lambda term: term.error, default=None)


def _residual(values: Array, fitted: Array) -> float:
    return float(np.abs(values - fitted).max() / max(float(np.ptp(values)), 1e-300))


def _tidy(x: float) -> float:
    """Rounded to nine digits, so that 0.9 prints as 0.9."""
    return round(x, 9) + 0.0
