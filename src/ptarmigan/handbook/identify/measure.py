"""Stage 4 of source -> ... -> answer: measure a loss, and fit a known term to each logit."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import numpy as np

from ptarmigan.handbook.identify.call import Gradients, LossFunction
from ptarmigan.handbook.identify.signature import LossError
from ptarmigan.handbook.identify.stand_ins import Setup
from ptarmigan.handbook.identify.terms import (
    LOGITS,
    Array,
    ClassTerm,
    Term,
    fit_classes,
    fit_curve,
    sigmoid,
)

CLASS_ROWS = 24  # rows of class logits to which a class term is fitted
AT = 0.01  # the logit at which random targets are read: beside 0, where a formula may have a kink
DRAWS = 64  # calls over which a random loss is averaged
RARE = re.compile(
    r"random\.(random|rand|choice|binomial)\(\)?|bernoulli|flip|\brand\(1?\)"
)  # in the source: what may happen in few calls


@dataclass
class Measurement:
    """What was measured about one loss in one setup."""

    loss: LossFunction
    setup: Setup
    random: bool = False
    told: bool = False  # that it takes probabilities was declared
    curves: dict[str, Array] = field(default_factory=dict)  # per image, at LOGITS; keys as in LossFunction.axes
    terms: dict[str, Term | None] = field(default_factory=dict)
    reductions: dict[str, str] = field(default_factory=dict)  # none, mean, sum or other, of each term
    joint: str = ""  # how real and fake depend on each other: "", difference, average or other
    difference: Term | None = None  # the term in real - fake, if the loss depends on that alone
    classes: dict[str, ClassTerm | None] = field(default_factory=dict)
    wrong_labels: list[str] = field(default_factory=list)  # class roles that are compared with the other half's labels
    class_and_source_mixed: bool = False  # their terms are not a sum
    coupled: str = ""  # how images depend on each other: "", mean (of the logits, before the loss), max or other
    half: str = ""  # the half of the relativistic average that it is
    drawn: dict[str, tuple[float, float]] = field(default_factory=dict)  # the least and greatest of random targets
    gradients: Gradients = field(default_factory=Gradients)
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
    def varies(self) -> bool:
        """Whether the loss of a batch depends on its images at all, if not where all of them are equal."""
        values = [self.loss(self.setup, self.loss.inputs(self.setup, seed=seed)).value for seed in (3, 7)]
        return bool(np.abs(values[0] - values[1]).max() > 1e-9)

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
    for setup in loss.setups(on, player):
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
    if part and any(term is None or term.shape != "flat" for term in best.terms.values()):
        for key in [key for key, term in best.terms.items() if term and term.shape == "flat"]:
            del best.terms[key], best.reductions[key]
    return best


def _measure(loss: LossFunction, setup: Setup, told: bool, player: str | None) -> Measurement:
    """Raises LossError where a value is not finite at |logit| <= 5."""
    given = loss.inputs(setup)
    first = loss(setup, given).value
    if not np.array_equal(first, loss(setup, given).value, equal_nan=True):
        raise LossError("it returns different values for the same input and seed, so it keeps a state")
    seen, calls = Measurement(loss, setup, told=told), 64 if RARE.search(loss.code.uses.text) else 5
    if any((loss.call_once(setup, given, seed=seed).value != first).any() for seed in range(1, calls)):
        seen.random, seen.setup = True, replace(setup, draws=4 if loss.has_networks else DRAWS)
    _measure_curves(seen, player)
    _measure_joint(seen)
    _measure_classes(seen)
    if not seen.random:
        _measure_coupling(seen)
    if seen.random:
        _measure_drawn_targets(seen)
    seen.gradients = loss.gradients(setup)
    _measure_offset(seen)
    return seen


def _measure_curves(seen: Measurement, player: str | None) -> None:
    """The curve over each logit, and its term."""
    for key, role, fixed in seen.loss.axes(player):
        try:
            values = np.array([seen.at(**{role: t}, **fixed) for t in LOGITS])
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


def _measure_drawn_targets(seen: Measurement) -> None:
    """The range of the targets of a cross-entropy: at logit AT its slope is weight (s - target)."""
    for role, term in seen.terms.items():
        if term is None or term.shape != "cross_entropy" or "@" in role or seen.setup.array:
            continue
        slopes = []
        for seed in range(24 if seen.loss.has_networks else DRAWS):
            given = seen.loss.inputs(seen.setup, scale=0.0) | {role: np.full(seen.setup.size, AT)}
            result = seen.loss.call_once(seen.setup, given, gradients=True, seed=seed)
            slopes.append((result.d_gradients or result.gradients or {}).get(role, np.zeros(0)))
        size = 1 if seen.reductions[role] in ("sum", "none") else seen.setup.size
        targets = sigmoid(AT) - size * np.concatenate(slopes) / term.weight
        if np.ptp(targets) > 1e-6:
            seen.drawn[role] = (round(float(targets.min()), 6), round(float(targets.max()), 6))


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
        seen.difference = fit_curve(seen.curves["difference"])


def _measure_classes(seen: Measurement) -> None:
    """The term of each class output, with the labels that explain it."""
    loss, setup = seen.loss, seen.setup
    rng = np.random.default_rng(1)
    for role in loss.class_roles(setup):
        c = 2 * rng.standard_normal((CLASS_ROWS, setup.classes))
        y = rng.integers(0, setup.classes, CLASS_ROWS)
        half = role.removeprefix("class_")
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


def _measure_coupling(seen: Measurement) -> None:
    """Whether the loss of a batch is the mean or sum of the losses of its images."""
    loss, setup = seen.loss, seen.setup
    each = np.arange(setup.size) % 8  # eight images, again and again
    given = {role: value[each] for role, value in loss.inputs(setup, seed=3).items()}
    whole = loss(setup, given).value
    alone = np.array([seen.at(**{role: value[i] for role, value in given.items()}) for i in range(8)])[each]
    tolerance = 1e-5 * (float(np.ptp(alone)) + 1e-9)
    if np.abs(whole - (alone if whole.ndim else alone.mean())).max() <= tolerance:
        return
    term = seen.difference
    if seen.joint == "difference" and term is not None:
        halves = [term(given["real"] - given["fake"].mean()).mean(), term(given["real"].mean() - given["fake"]).mean()]
        for half, share in {"": 0.5, "real": 1.0, "fake": 0.0}.items():
            expected = share * halves[0] + (1 - share) * halves[1]
            if abs(whole.mean() / seen.sum_factor - expected) <= tolerance:
                seen.joint, seen.half = "average", half
                return
    class_roles = loss.class_roles(setup)
    means = {role: given[role].mean(0) for role in loss.scores}
    of_mean = not class_roles and np.abs(whole - seen.at(**means)).max() <= tolerance
    of_max = not whole.ndim and any(abs(whole - extreme) <= tolerance for extreme in (alone.max(), alone.min()))
    seen.coupled = "mean" if of_mean else "max" if of_max else "other"


def _measure_offset(seen: Measurement) -> None:
    """The value at logits 0, minus that of the terms.  A curve's own offset includes the value of all other terms."""
    terms: dict[str, Term | ClassTerm | None] = {"difference": seen.difference}
    if not seen.joint:
        terms = {key: term for key, term in seen.terms.items() if key not in ("output@0", "output@-1")}
    value = seen.at()
    seen.offset = value
    for key, term in {**terms, **seen.classes}.items():
        reduction = seen.reductions.get(key, "sum" if seen.sum_factor > 1 else "mean")
        if term is not None:
            seen.offset -= value - term.offset * (seen.setup.size if reduction == "sum" else 1)
