"""What a loss does, measured: the curve of each logit, reduction, coupling, gradients, where float32 gives out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from math import inf

import numpy as np

from ptarmigan.callables import DRAWS, Array, Failed, Loss, Setup
from ptarmigan.curves import LOGITS, ClassTerm, Shape, Term, class_shapes, fit, fit_class, shape, sigmoid, softplus

ROWS = 24  # of class logits that a class term is fitted to
FAR = np.array([-1e4, -1e3, 1e3, 1e4])
LIMIT = 120  # the largest logit at which float32 is tried


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
    for _, ways in groupby(loss.setups(on), key=lambda way: (way.heads, way.size, way.onehot, way.classes, way.array, way.column, way.double)):
        found = []
        for way in ways:
            try:
                loss(way, batch(loss, way), slopes=True)
                found.append(way)
            except Failed as failure:
                failures.setdefault(way.array, str(failure))
        if found:
            return found
    code = getattr(loss.function, "__globals__", {})
    numpy_only = "torch" not in {getattr(value, "__name__", "").split(".")[0] for value in code.values()} and "np" in code
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
    ones = np.ones(setup.size)
    return given | {"target": ones, "real_target": ones, "fake_target": 0 * ones}


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
    _curves(loss, setup, seen, none=first.value.ndim == 1 and setup.size > 1)
    _joint(loss, setup, seen)
    _classes(loss, setup, seen, none=first.value.ndim == 1 and setup.size > 1)
    if not seen.random and setup.size > 1:
        _coupling(loss, setup, seen)
    _gradients(loss, replace(setup, draws=1), seen)
    if seen.known:
        _float32(loss, setup, seen)
    else:
        _shapes(loss, setup, seen)
    seen.offset = _offset(loss, setup, seen)
    return seen


def _offset(loss: Loss, setup: Setup, seen: Measured) -> float:
    """The value at logits 0 less that of the terms, for an image where all is summed."""
    sums = {key: setup.size if reduction == "sum" else 1 for key, reduction in seen.reductions.items()}
    terms = {key: term for key, term in seen.terms.items() if not key.startswith("output@") or key == "output@1"}
    if seen.joint:
        terms, sums["difference"] = {"difference": seen.difference}, max(sums.values())
    there = sum(sums[key] * float(term(np.zeros(1))[0] - term.offset) for key, term in terms.items() if term)
    there += sum(sums[key] * class_at_zero(term, setup.classes) for key, term in seen.classes.items() if term)
    return (float(constant(loss, setup)) - there) / min(sums.values())


def class_at_zero(term: ClassTerm, classes: int) -> float:
    """A class term at class logits 0, without its offset."""
    if term.family == "flat":
        return 0.0
    parts = class_shapes(np.zeros((1, classes)), np.zeros(1, np.int64))[term.family]
    spread = term.smoothing if len(parts) > 1 else 0.0
    return float(term.weight * ((1 - spread) * parts[0][0] + spread * parts[-1][0]))


def _points(loss: Loss) -> Iterator[tuple[str, str, dict[str, float]]]:
    for role in loss.scores:
        if role == "output":
            flag = "is_real" in loss.reading.roles.values()
            for target in (1.0, 0.0) if flag else (1.0, 0.0, -1.0, 0.5):
                yield f"output@{target:g}", role, {"target": target}
        else:
            yield role, role, {}


def _curves(loss: Loss, setup: Setup, seen: Measured, none: bool) -> None:
    for key, role, more in _points(loss):
        try:
            values = np.array([constant(loss, setup, **{role: t}, **more) for t in LOGITS])
        except Failed:
            if key in ("output@-1", "output@0.5"):  # a target that some losses refuse
                continue
            raise
        if not np.isfinite(values).all():
            at = LOGITS[~np.isfinite(values)]
            raise Failed(
                f"it is {values[~np.isfinite(values)][0]} at {'logit' if setup.on == 'logits' else 'probability'} "
                f"{at[0] if setup.on == 'logits' else sigmoid(at[:1])[0]:.3g} of {role}"
            )
        seen.reductions[key] = "none" if none else _reduction(loss, setup, values, {role: (LOGITS[0], LOGITS[-1], 1.0)}, more)
        seen.curves[key] = values / setup.size if seen.reductions[key] == "sum" else values
        seen.terms[key] = fit(seen.curves[key])


def _reduction(loss: Loss, setup: Setup, values: Array, span: dict[str, tuple[float | Array, ...]], more: dict[str, float]) -> str:
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


def _joint(loss: Loss, setup: Setup, seen: Measured) -> None:
    """Whether real and fake each have a term, or one of their difference."""
    if "real" not in loss.scores or "fake" not in loss.scores:
        return
    pairs = [(1.3, -0.7), (-2.1, 0.4), (3.0, 3.5), (-1.0, -4.0)]
    at = lambda r, f: float(constant(loss, setup, real=r, fake=f))  # noqa: E731
    zero = at(0, 0)
    size = max(abs(at(r, f) - zero) for r, f in pairs) or 1.0
    if all(abs(at(r, f) - at(r, 0) - at(0, f) + zero) <= 1e-5 * size for r, f in pairs):
        return
    if setup.on == "logits" and all(abs(at(r + 0.9, f + 0.9) - at(r, f)) <= 1e-5 * size for r, f in pairs):
        values = np.array([at(d / 2, -d / 2) for d in LOGITS]) / (setup.size if "sum" in seen.reductions.values() else 1)
        seen.joint, seen.difference = "difference", fit(values)
        seen.curves["difference"] = values
    else:
        seen.joint = "other"


def _classes(loss: Loss, setup: Setup, seen: Measured, none: bool) -> None:
    rng = np.random.default_rng(1)
    for role in roles_of(loss, setup):
        c = 2 * rng.standard_normal((ROWS, setup.classes))
        y = rng.integers(0, label_count(setup), ROWS)
        half = role.removeprefix("class_").removeprefix("twin_")
        named = set(loss.reading.roles.values())
        keys = [key for key in (f"labels_{half}", "labels", "labels_real", "labels_fake") if key in named] or ["labels"]
        best: ClassTerm | None = None
        for key in dict.fromkeys(keys):
            values = np.array([constant(loss, setup, **{role: row, key: float(k)}) for row, k in zip(c, y, strict=True)])
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
            corner = [float(constant(loss, setup, **{source: s, role: k})) for s in (0.0, 2.0) for k in (0 * c[0], c[0])]
            if abs(corner[0] + corner[3] - corner[1] - corner[2]) > 1e-5 * (1 + max(map(abs, corner))):
                seen.mixed = True


def _coupling(loss: Loss, setup: Setup, seen: Measured) -> None:
    """Whether the loss of a batch is made of the losses of its images, each alone."""
    there = batch(loss, setup, seed=3)
    whole = loss(setup, there).value
    alone = np.array([_single(loss, setup, there, i) for i in range(setup.size)])
    size = float(np.abs(alone).max()) + 1e-9
    if np.abs((whole if whole.ndim else whole) - (alone if whole.ndim else alone.mean())).max() <= 1e-5 * size:
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
        seen.silent = [role for role, slope in slopes.items() if abs(slope) > 1e-3 and same_slope(sum(slopes.values()) - slope, result.to_d)]
    seen.to_g = result.to_g


def same_slope(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-3 * max(1e-3, abs(a), abs(b))


def _shapes(loss: Loss, setup: Setup, seen: Measured) -> None:
    """What the curves do far out."""
    if "difference" in seen.curves:
        ends = np.array([float(constant(loss, setup, real=d / 2, fake=-d / 2)) for d in FAR])
        seen.shapes["difference"] = shape(seen.curves["difference"], LOGITS, ends)
        return
    for key, role, more in _points(loss):
        if key in seen.curves and np.ptp(seen.curves[key]) > 1e-9:
            ends = np.array([float(constant(loss, setup, **{role: t}, **more)) for t in FAR])
            seen.shapes[key] = shape(seen.curves[key], LOGITS, ends)


def _float32(loss: Loss, setup: Setup, seen: Measured) -> None:
    """The smallest whole logit, then the nearest sixteenth, at which float32 gives another value or slope."""
    single = replace(setup, double=False, draws=1)
    if seen.random or seen.joint:
        return
    for key, role, more in _points(loss):
        term = seen.terms.get(key)
        if term is None or term.family != "cross_entropy" or term.inner or key in ("output@-1", "output@0.5"):
            continue
        scale = setup.size if seen.reductions[key] == "sum" else 1
        for sign in (1, -1):
            far = float(term(np.array([sign * 50.0]))[0]) - term.offset
            if abs(far) < 1e-2 * 50 * abs(term.weight):
                continue  # this side is the flat one

            def broken(t: float, sign: int = sign) -> str:
                given = batch(loss, single, scale=0.0)
                given |= {role: np.full(single.size, sign * t)} | {k: np.full(single.size, v) for k, v in more.items()}
                result = loss(single, given, slopes=True)
                value = float(result.value.mean()) / scale
                expected = float(term(np.array([sign * t]))[0])
                if not np.isfinite(value):
                    return f"is {value}"
                if abs(value - expected) > 0.02 * abs(expected - term.offset):
                    return f"is {value - term.offset:.4g} instead of {expected - term.offset:.4g}"
                slopes = None if result.slopes is None or role in seen.detached else result.slopes[role]
                if slopes is not None and not np.isfinite(slopes).all():
                    return "has no finite gradient"
                if slopes is not None and abs(slopes.sum()) < 1e-3 * abs(term.weight):
                    return "has gradient 0"
                return ""

            try:
                first = next((t for t in range(1, LIMIT) if broken(t)), None)
            except Failed:
                continue
            if first is not None:
                steps = np.arange(first - 1, first + 1 / 32, 1 / 16)
                at = next(float(t) for t in steps if broken(float(t)))
                if at < abs(seen.float32.get(key, (inf, ""))[0]):
                    seen.float32[key] = (sign * at, broken(at + 1.0) or broken(at))
