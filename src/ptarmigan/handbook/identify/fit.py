"""What a curve over one logit is: cross-entropy, a parabola, a hinge, a line, with its weight and its target.

Each family is linear in its unknowns but for a hinge's margin, so that least squares finds weight, target and offset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from math import inf

import numpy as np
import torch
from numpy.typing import NDArray

from ptarmigan.handbook.identify.call import DRAWS, Array, Failed, Loss, Setup, Several
from ptarmigan.losses.conditioning import contrast

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


LENGTH = 6  # of embeddings
ROWS = 24  # of class logits that a class term is fitted to


@dataclass
class Measured:
    """What was seen of one loss under one setup."""

    setup: Setup
    curves: dict[str, Array] = field(default_factory=dict)  # per image, over LOGITS; output@1, output@0, output@-1
    terms: dict[str, Term | None] = field(default_factory=dict)
    reductions: dict[str, str] = field(default_factory=dict)  # none, mean, sum, other; of each term
    difference: Term | None = None  # the term in r - f, where only that counts
    joint: str = ""  # how real and fake meet: "", difference, average, other
    classes: dict[str, ClassTerm | None] = field(default_factory=dict)
    wrong_labels: list[str] = field(default_factory=list)  # class terms that compare with the other half's labels
    mixed: bool = False  # the class logits and the source logits meet in one term
    coupled: str = ""  # "", mean (of logits, before the loss), other
    detached: list[str] = field(default_factory=list)  # roles that the value depends on and the gradient does not
    silent: list[str] = field(default_factory=list)  # of a D that was handed over: answers that teach it nothing
    crooked: list[str] = field(default_factory=list)  # roles whose gradient is not the value's
    plain: bool = False  # a number instead of a tensor: nothing to differentiate
    networks: bool = False  # D itself was handed over
    to_g: float | None = None  # the gradient in G's own parameter
    random: bool = False
    float32: dict[str, tuple[float, str]] = field(default_factory=dict)  # role -> the logit where it gives out, and how
    shapes: dict[str, Shape] = field(default_factory=dict)  # of curves, where the whole has no name
    offset: float = 0.0  # value at logits 0, less that of the terms

    @property
    def known(self) -> bool:
        terms = [self.difference] if self.joint else list(self.terms.values())
        return None not in terms and None not in self.classes.values() and not self.mixed and self.joint != "other"


def working(loss: Loss, on: str | None) -> list[Setup]:
    """The setups that a loss can be called in, one for each domain of its logits; raises Failed with why it cannot."""
    failures: dict[bool, str] = {}
    for _, ways in groupby(
        loss.setups(on),
        key=lambda way: (way.heads, way.size, way.onehot, way.classes, way.array, way.column, way.double),
    ):
        found = []
        for way in ways:
            try:
                loss(way, batch(loss, way), slopes=True)
                found.append(way)
            except Several:
                raise
            except Failed as failure:
                failures.setdefault(way.array, str(failure))
        if found:
            return found
    code = getattr(loss.function, "__globals__", {})
    numpy_only = (
        "torch" not in {getattr(value, "__name__", "").split(".")[0] for value in code.values()} and "np" in code
    )
    raise Failed(failures.get(numpy_only, failures[False]))


def roles_of(loss: Loss, setup: Setup) -> list[str]:
    """The class roles, those that a discriminator handed over gives included."""
    if setup.heads:
        return [f"class_{side}" for side in loss.scores]
    return loss.classes


def batch(loss: Loss, setup: Setup, scale: float = 2.0, seed: int = 0) -> dict[str, Array]:
    """Random logits and labels for each role; scale 0: all logits are 0."""
    rng = np.random.default_rng(seed)
    given = {role: scale * rng.standard_normal(setup.size) for role in loss.scores}
    given |= {role: scale * rng.standard_normal((setup.size, setup.classes)) for role in roles_of(loss, setup)}
    for role in ("labels", "labels_real", "labels_fake"):
        given[role] = rng.integers(0, label_count(setup) if scale else 1, setup.size).astype(float)
    if "embedding" in loss.classes:
        rows = setup.classes if loss.per_class else setup.size
        given["embedding"], given["proxy"] = (unit(rng.standard_normal((n, LENGTH))) for n in (setup.size, rows))
    ones = np.ones(setup.size)
    return given | {"target": ones, "real_target": ones, "fake_target": 0 * ones}


def unit(rows: Array) -> Array:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def label_count(setup: Setup) -> int:
    """Labels stay in the first half, so that discriminative_classifier's K + y are classes as well."""
    return max(setup.classes // 2, 2)


def constant(loss: Loss, setup: Setup, **values: float | Array) -> Array:
    """The loss of a batch in which all images are alike, [] ; roles that are not named have logit 0."""
    given = batch(loss, setup, scale=0.0)
    for role, value in values.items():
        given[role] = np.broadcast_to(np.asarray(value, np.float64), given[role].shape).copy()
    value = loss(setup, given).value
    return value if value.ndim == 0 else value[0]


def points(loss: Loss) -> Iterator[tuple[str, str, dict[str, float]]]:
    for role in loss.scores:
        if role == "output":
            flag = "is_real" in loss.reading.roles.values()
            for target in (1.0, 0.0) if flag else (1.0, 0.0, -1.0):
                yield f"output@{target:g}", role, {"target": target}
        else:
            yield role, role, {}


def curves(loss: Loss, setup: Setup, seen: Measured, none: bool) -> None:
    for key, role, more in points(loss):
        try:
            values = np.array([constant(loss, setup, **{role: t}, **more) for t in LOGITS])
        except Failed:
            if key == "output@-1":  # a target that some losses refuse
                continue
            raise
        if not np.isfinite(values).all():
            at = LOGITS[~np.isfinite(values)]
            raise Failed(
                f"it is {values[~np.isfinite(values)][0]} at {'logit' if setup.on == 'logits' else 'probability'} "
                f"{at[0] if setup.on == 'logits' else sigmoid(at[:1])[0]:.3g} of {role}"
            )
        seen.reductions[key] = (
            "none" if none else _reduction(loss, setup, values, {role: (LOGITS[0], LOGITS[-1], 1.0)}, more)
        )
        seen.curves[key] = values / setup.size if seen.reductions[key] == "sum" else values
        seen.terms[key] = fit(seen.curves[key])


def _reduction(
    loss: Loss, setup: Setup, values: Array, span: dict[str, tuple[float | Array, ...]], more: dict[str, float]
) -> str:
    """mean where a batch of twice the size gives the same, sum where it gives twice as much."""
    ((role, places),) = span.items()
    double = replace(setup, size=2 * setup.size)
    try:
        one = [float(constant(loss, setup, **{role: t}, **more)) for t in places]
        two = [float(constant(loss, double, **{role: t}, **more)) for t in places]
    except Failed:
        return "mean"  # its batch size is built in
    at = int(np.argmax([abs(one[i] - one[j]) for i, j in ((0, 1), (1, 2), (0, 2))]))
    i, j = ((0, 1), (1, 2), (0, 2))[at]
    if abs(one[i] - one[j]) < 1e-9:
        return "mean"
    ratio = (two[i] - two[j]) / (one[i] - one[j])
    return {1.0: "mean", 2.0: "sum"}.get(round(ratio, 1 if setup.draws > 1 else 3), "other")


def joint(loss: Loss, setup: Setup, seen: Measured) -> None:
    """Whether real and fake each have a term, or one of their difference."""
    if "real" not in loss.scores or "fake" not in loss.scores:
        return
    pairs = [(1.3, -0.7), (-2.1, 0.4), (3.0, 3.5), (-1.0, -4.0)]

    def at(r: float, f: float) -> float:
        return float(constant(loss, setup, real=r, fake=f))

    zero = at(0, 0)
    size = max(abs(at(r, f) - zero) for r, f in pairs) or 1.0
    if all(abs(at(r, f) - at(r, 0) - at(0, f) + zero) <= 1e-5 * size for r, f in pairs):
        return
    if setup.on == "logits" and all(abs(at(r + 0.9, f + 0.9) - at(r, f)) <= 1e-5 * size for r, f in pairs):
        values = np.array([at(d / 2, -d / 2) for d in LOGITS]) / (
            setup.size if "sum" in seen.reductions.values() else 1
        )
        seen.joint, seen.difference = "difference", fit(values)
        seen.curves["difference"] = values
    else:
        seen.joint = "other"


def class_terms(loss: Loss, setup: Setup, seen: Measured, none: bool) -> None:
    rng = np.random.default_rng(1)
    for role in roles_of(loss, setup):
        if role == "embedding":
            seen.classes[role], seen.reductions[role] = fit_contrast(loss, setup, batch)
            continue
        c = 2 * rng.standard_normal((ROWS, setup.classes))
        y = rng.integers(0, label_count(setup), ROWS)
        half = role.removeprefix("class_").removeprefix("twin_")
        named = set(loss.reading.roles.values())
        keys = [key for key in (f"labels_{half}", "labels", "labels_real", "labels_fake") if key in named] or ["labels"]
        best: ClassTerm | None = None
        for key in dict.fromkeys(keys):
            values = np.array(
                [constant(loss, setup, **{role: row, key: float(k)}) for row, k in zip(c, y, strict=True)]
            )
            if not np.isfinite(values).all():
                raise Failed(f"it is not finite for ordinary class {setup.class_on}")
            flip: dict[str, tuple[float | Array, ...]] = {role: (c[0], c[1], c[2])}
            reduction = "none" if none else _reduction(loss, setup, values, flip, {})
            seen.reductions[role] = reduction
            values = values / setup.size if reduction == "sum" else values
            best = fit_class(c, y, values)
            if best is not None:
                if key != keys[0]:
                    seen.wrong_labels.append(role)
                break
        seen.classes[role] = best
        if loss.scores:
            source = loss.scores[-1]
            corner = [
                float(constant(loss, setup, **{source: s, role: k})) for s in (0.0, 2.0) for k in (0 * c[0], c[0])
            ]
            if abs(corner[0] + corner[3] - corner[1] - corner[2]) > 1e-5 * (1 + max(map(abs, corner))):
                seen.mixed = True


LABELS = ("labels", "labels_real", "labels_fake")
Batch = Callable[..., dict[str, Array]]


def fit_contrast(loss: Loss, setup: Setup, batch: Batch) -> tuple[ClassTerm | None, str]:
    """The term and its reduction, where the loss is D2D-CE (Kang et al. 2021) of embedding, proxy and labels.

    Image 0 is alone in its class and opposite to all others, which sit on their proxies.  Its loss is then
    log(1 + n e^-a), a = min(cos - margin, 0) / temperature: two cosines give both.  Random batches then decide.
    """
    n, there = setup.size - 1, batch(loss, setup)
    values: Array = np.array([_opposed(loss, setup, there, cosine) for cosine in (-1.0, -0.9, 1.0)])
    for reduction in ("none",) if values.ndim == 2 else ("mean", "sum"):
        first = values[:, 0] if values.ndim == 2 else values * (setup.size if reduction == "mean" else 1)
        above = first - first[2] + np.log1p(n)
        if (above[:2] <= np.log1p(n) + 1e-9).any():
            continue
        a = -np.log(np.expm1(above[:2]) / n)
        temperature = 0.1 / (a[1] - a[0])
        margin = -1.0 - a[0] * temperature
        batches = [batch(loss, setup, seed=seed) for seed in (1, 2, 3)]
        if all(_agrees(loss, setup, there, margin, temperature, reduction) for there in batches):
            return ClassTerm("contrast", 1.0, detail=f"margin {margin:.4g}, temperature {temperature:.4g}"), reduction
    return None, "mean"


def _opposed(loss: Loss, setup: Setup, there: dict[str, Array], cosine: float) -> Array:
    """The loss with image 0 at this cosine of its proxy, and nothing else to pay for."""
    axis = np.eye(there["proxy"].shape[1])[0]
    rows = np.tile(-axis, (setup.size, 1))
    rows[0] = axis
    labels = np.ones(setup.size)
    labels[0] = 0
    proxy = np.tile(-axis, (len(there["proxy"]), 1))
    proxy[0] = cosine * axis
    proxy[0, 1] = np.sqrt(1 - cosine**2)
    return loss(setup, there | {"embedding": rows, "proxy": proxy} | dict.fromkeys(LABELS, labels)).value


def _agrees(
    loss: Loss, setup: Setup, there: dict[str, Array], margin: float, temperature: float, reduction: str
) -> bool:
    labels, proxy = torch.tensor(there["labels"]).long(), torch.tensor(there["proxy"])
    proxy = proxy[labels] if loss.per_class else proxy
    known = contrast(torch.tensor(there["embedding"]), proxy, labels, margin=margin, temperature=temperature).numpy()
    want = {"none": known, "mean": known.mean(), "sum": known.sum()}[reduction]
    here = loss(setup, there | dict.fromkeys(LABELS, there["labels"])).value
    alike = loss(setup, there | dict.fromkeys(LABELS, 0 * there["labels"])).value  # of one class: the term is 0
    return bool(np.abs(here - alike - want).max() <= 1e-5 * (1 + np.abs(want).max()))


FAR = np.array([-1e4, -1e3, 1e3, 1e4])
LIMIT = 120  # the largest logit at which float32 is tried


def measure(loss: Loss, setup: Setup) -> Measured:
    """Everything that is measured; raises Failed where a value is not finite at |logit| <= 5."""
    seen = Measured(setup, networks=loss.networks)
    there = batch(loss, setup)
    first = loss(setup, there, slopes=True)
    if not np.array_equal(first.value, loss(setup, there).value, equal_nan=True):
        raise Failed("it gives another value for the same input: it keeps a state")
    if (loss._once(setup, there, False, 1).value != first.value).any():
        seen.random = True
        seen.setup = setup = replace(setup, draws=DRAWS)
    curves(loss, setup, seen, none=first.value.ndim == 1 and setup.size > 1)
    joint(loss, setup, seen)
    class_terms(loss, setup, seen, none=first.value.ndim == 1 and setup.size > 1)
    if not seen.random and "embedding" not in loss.classes:
        _coupling(loss, setup, seen)
    _gradients(loss, replace(setup, draws=1), seen)
    if seen.known:
        _float32(loss, setup, seen)
    _shapes(loss, setup, seen)
    seen.offset = _offset(loss, setup, seen)
    return seen


def _offset(loss: Loss, setup: Setup, seen: Measured) -> float:
    """The value at logits 0 less that of the terms."""
    sums = {key: setup.size if reduction == "sum" else 1 for key, reduction in seen.reductions.items()}
    terms = {key: term for key, term in seen.terms.items() if not key.startswith("output@") or key == "output@1"}
    if seen.joint:
        terms, sums["difference"] = {"difference": seen.difference}, max(sums.values())
    there = sum(sums[key] * float(term(np.zeros(1))[0] - term.offset) for key, term in terms.items() if term)
    there += sum(sums[key] * class_at_zero(term, setup.classes) for key, term in seen.classes.items() if term)
    return float(constant(loss, setup)) - there


def class_at_zero(term: ClassTerm, classes: int) -> float:
    """A class term at class logits 0, without its offset."""
    if term.family in ("flat", "contrast"):
        return 0.0
    parts = class_shapes(np.zeros((1, classes)), np.zeros(1, np.int64))[term.family]
    spread = term.smoothing if len(parts) > 1 else 0.0
    return float(term.weight * ((1 - spread) * parts[0][0] + spread * parts[-1][0]))


def _coupling(loss: Loss, setup: Setup, seen: Measured) -> None:
    """Whether the loss of a batch is made of the losses of its images, each alone."""
    there = batch(loss, setup, seed=3)
    whole = loss(setup, there).value
    alone = np.array([_single(loss, setup, there, i) for i in range(setup.size)])
    size = float(np.ptp(alone)) + 1e-9
    if np.abs(whole - (alone if whole.ndim else alone.mean())).max() <= 1e-5 * size:
        return
    scale = setup.size if "sum" in seen.reductions.values() else 1
    if seen.joint == "difference" and seen.difference is not None and seen.difference.family == "cross_entropy":
        r, f = there["real"], there["fake"]
        weight = seen.difference.weight / 2
        d = softplus(-(r - f.mean())) + softplus(f - r.mean())
        g = softplus(r - f.mean()) + softplus(-(f - r.mean()))
        shape = d if seen.difference.target == 1 else g
        if abs(float(whole.mean()) / scale - weight * float(shape.mean()) - seen.difference.offset) <= 1e-5 * size:
            seen.joint = "average"
            return
    means = {role: there[role].mean(0) for role in (*loss.scores, *roles_of(loss, setup))}
    if not roles_of(loss, setup) and np.abs(whole - float(constant(loss, setup, **means))).max() <= 1e-5 * size:
        seen.coupled = "mean"
    else:
        seen.coupled = "other"


def _single(loss: Loss, setup: Setup, there: dict[str, Array], i: int) -> float:
    return float(constant(loss, setup, **{role: value[i] for role, value in there.items()}))


def _gradients(loss: Loss, setup: Setup, seen: Measured) -> None:
    """Autograd's slopes against those of the values, along a random direction of each role."""
    if setup.array:
        return
    there = batch(loss, setup, seed=5)
    result = loss(setup, there, slopes=True)
    if result.slopes is None:
        seen.plain = True
        return
    rng = np.random.default_rng(6)
    slopes: dict[str, float] = {}
    for role in (*loss.scores, *roles_of(loss, setup)):
        way = there[role] if loss.networks else rng.standard_normal(there[role].shape)
        ends = [loss(setup, there | {role: there[role] + h * way}).value.sum() for h in (1e-3, -1e-3)]
        slope, found = (ends[0] - ends[1]) / 2e-3, result.slopes[role]
        slopes[role] = float(slope)
        if loss.networks and not (role == "fake" and loss.given_g):
            continue
        if abs(slope) > 1e-4 and not found.any():
            seen.detached.append(role)
        elif abs(slope - (found * way).sum()) > 1e-2 * abs(slope) + 2e-3:
            seen.crooked.append(role)
    if result.to_d is not None:  # D's own slope is that of all its answers, less those that were detached
        seen.silent = [
            role
            for role, slope in slopes.items()
            if abs(slope) > 1e-3 and same_slope(sum(slopes.values()) - slope, result.to_d)
        ]
    seen.to_g = result.to_g


def same_slope(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-3 * max(1e-3, abs(a), abs(b))


def _shapes(loss: Loss, setup: Setup, seen: Measured) -> None:
    """What the curves do far out."""
    if "difference" in seen.curves:
        ends = np.array([float(constant(loss, setup, real=d / 2, fake=-d / 2)) for d in FAR])
        seen.shapes["difference"] = shape(seen.curves["difference"], LOGITS, ends)
        return
    for key, role, more in points(loss):
        if key in seen.curves and np.ptp(seen.curves[key]) > 1e-9:
            ends = np.array([float(constant(loss, setup, **{role: t}, **more)) for t in FAR])
            seen.shapes[key] = shape(seen.curves[key], LOGITS, ends)


def _float32(loss: Loss, setup: Setup, seen: Measured) -> None:
    """The smallest whole logit, then the nearest sixteenth, at which float32 gives another value or slope."""
    single = replace(setup, double=False, draws=1)
    if seen.random or seen.joint:
        return
    for key, role, more in points(loss):
        term = seen.terms.get(key)
        if term is None or term.family != "cross_entropy" or term.inner or key == "output@-1":
            continue
        scale = setup.size if seen.reductions[key] == "sum" else 1
        for sign in (1.0, -1.0):
            far = float(term(np.array([sign * 50.0]))[0]) - term.offset
            if abs(far) < 0.5 * abs(term.weight):
                continue  # this side is the flat one
            try:
                found = _gives_out(loss, single, role, more, term, sign, scale, role in seen.detached or loss.networks)
            except Failed:
                continue
            if found is not None and abs(found[0]) < abs(seen.float32.get(key, (inf, ""))[0]):
                seen.float32[key] = found


def _gives_out(
    loss: Loss, single: Setup, role: str, more: dict[str, float], term: Term, sign: float, scale: float, detached: bool
) -> tuple[float, str] | None:
    """The first logit, to a sixteenth, at which a term is 2 % off or its gradient gone, and what it is past it."""

    def broken(t: float) -> str:
        given = batch(loss, single, scale=0.0)
        given |= {key: np.full(single.size, value) for key, value in ({role: sign * t} | more).items()}
        result = loss(single, given, slopes=True)
        value = float(result.value.mean()) / scale - term.offset
        expected = float(term(np.array([sign * t]))[0]) - term.offset
        if not np.isfinite(value):
            return f"is {value}"
        if abs(value - expected) > 0.02 * abs(expected):
            return f"is {value:.4g} instead of {expected:.4g}"
        slopes = None if result.slopes is None or detached else result.slopes[role]
        if slopes is not None and not np.isfinite(slopes).all():
            return "has no finite gradient"
        return "has gradient 0" if slopes is not None and abs(slopes.sum()) < 1e-3 * abs(term.weight) else ""

    first = next((t for t in range(1, LIMIT) if broken(t)), None)
    if first is None:
        return None
    at = next(t for t in (first - 1 + step / 16 for step in range(17)) if broken(t))
    return sign * at, broken(at + 1.0) or broken(at)
