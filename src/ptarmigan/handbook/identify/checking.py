"""What else is measured of a loss: whether it couples images, whether its gradient is its own, where float32 ends."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np

from ptarmigan.handbook.identify.callables import DRAWS, Array, Failed, Loss, Setup
from ptarmigan.handbook.identify.curves import LOGITS, ClassTerm, Term, class_shapes, shape, softplus
from ptarmigan.handbook.identify.measuring import (
    Measured,
    batch,
    class_terms,
    constant,
    curves,
    joint,
    points,
    roles_of,
)

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
