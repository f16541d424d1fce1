"""What a loss does, measured: the curve over each logit, its reduction, how real and fake meet, its class terms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np

from ptarmigan.handbook.identify.callables import Array, Failed, Loss, Setup, Several
from ptarmigan.handbook.identify.contrasting import fit_contrast
from ptarmigan.handbook.identify.curves import LOGITS, ClassTerm, Shape, Term, fit, fit_class, sigmoid

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
