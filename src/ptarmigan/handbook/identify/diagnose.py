"""Stage 5 of source -> ... -> answer: name the fitted terms, and say what is wrong with them.

A finding is a code and the values to insert into its sentence in sentences.SENTENCES.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from math import log

import numpy as np

from ptarmigan.handbook.identify.families import FAMILIES, OF_SHAPE, SHARED_D, SHARED_G, WORDS
from ptarmigan.handbook.identify.measure import Measurement
from ptarmigan.handbook.identify.signature import player_of, words_of
from ptarmigan.handbook.identify.terms import Term, class_bases, close

HELPS = {"D": "a D that minimises it helps G", "G": "a G that minimises it helps D"}
STAND_INS = {
    "weight": "1", "zero": "0", "net": "the identity", "other_loss": "0",
}  # fmt: skip
Finding = tuple[str, dict[str, object]]  # a code, and the values in its sentence


@dataclass
class Verdict:
    """The findings on a loss's source term, or on one class term."""

    name: str = "unknown"
    scale: float = 1.0
    smoothing: float | None = None
    shift: float = 0.0  # to add to the measured offset, if the named loss differs from the fitted term by a constant
    owner: str = ""  # D or G, if it is the loss of the other player
    half: str = ""  # real or fake, if it is that half of D's loss alone
    targets: str = ""  # those of real and fake, if it takes them
    form: str = ""  # of a relativistic loss other than the handbook's
    what: str = ""  # a description, if no name fits
    faults: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    entry: str = ""  # the handbook's entry with the correct code

    def fault(self, code: str, **facts: object) -> None:
        self.faults.append((code, facts))

    def note(self, code: str, **facts: object) -> None:
        self.notes.append((code, facts))

    def rename(self, name: str) -> None:
        self.name = name
        self.entry = FAMILIES[name].entry or name


@dataclass(frozen=True)
class Diagnosis:
    """The findings on a whole loss."""

    player: str  # D, G, or "" for a class loss whose name does not say
    source: Verdict | None  # on D's outputs
    classes: list[Verdict]
    faults: list[Finding]
    notes: list[Finding]
    turned: Diagnosis | None = None  # the findings if both players exchange the labels, where they are better


ORIENTATION = {"targets-swapped", "sign", "sign-of-half", "direction", "other-player", "hinge-of-d", "hinge-in-g",
               "target-of-g"}  # fmt: skip


def diagnose(seen: Measurement, function: str, kind: str | None) -> Diagnosis:
    """The verdicts on a loss and its parts.  The player comes from `kind`, else from the name `function`, else from
    the measurement.
    """
    declared = next((one for one in (kind, player_of(function)) if one in ("d", "g")), None)
    named = not declared and "saturating" in function.lower() and set(seen.terms) == {"fake"}
    player = declared.upper() if declared else "G" if named else _player(seen) if seen.loss.scores else ""
    found = _diagnose(seen, player, function)
    if not ORIENTATION & {code for code, _ in found.faults} or seen.classes or "output@1" in seen.terms:
        return found
    for about in (0.0, 1.0):
        terms = {key: term and term.turned(about) for key, term in seen.terms.items()}
        mirrored = replace(seen, terms=terms, difference=seen.difference and seen.difference.turned(0.0),
                           curves={key: curve[::-1] for key, curve in seen.curves.items()})  # fmt: skip
        turned = _diagnose(mirrored, player, function)
        if not (ORIENTATION | {"same-targets"}) & {code for code, _ in turned.faults}:
            return replace(found, turned=turned)
    return found


def _diagnose(seen: Measurement, player: str, function: str) -> Diagnosis:
    source = _source(seen, player, function) if seen.terms else None
    parameter = {role: name for name, role in seen.loss.reading.roles.items()}
    classes = [
        _class_term(seen, role, player, parameter.get(role, "class logits"))
        for role, term in seen.classes.items()
        if not (seen.loss.has_networks and term is not None and term.shape == "flat")
    ]
    weights = sorted({round(part.scale, 6) for part in classes})
    if len(weights) > 1 and all(part.name == "auxiliary_classifier" and not part.faults for part in classes):
        classes[-1].note("class-weights", weights=" and ".join(f"{weight:.4g}" for weight in weights))
    parts = [_whole(seen, player), *([source] if source else []), *classes]
    faults = [fault for part in parts for fault in part.faults]
    notes = [note for part in parts for note in part.notes]
    on_probabilities = seen.setup.on == "probabilities" and not seen.setup.array and not faults
    if on_probabilities and any(term and term.shape == "cross_entropy" for term in seen.terms.values()):
        notes.append(("float32", {}))
    return Diagnosis(player, source, classes, faults, notes)


def _player(seen: Measurement) -> str:
    """Whose loss it is, judged by its curves alone."""
    if seen.joint:
        return "G" if seen.difference and seen.difference.direction == -1 else "D"
    real, fake = seen.terms.get("real"), seen.terms.get("fake")
    if "fake" not in seen.terms or (real is not None and real.shape != "flat"):
        return "D"
    if fake is None:
        return "G" if seen.curves["fake"][0] > seen.curves["fake"][-1] else "D"
    return "G" if fake.direction > 0 or fake.shape == "least_squares" or fake.weight < 0 else "D"


# --- D's outputs ---


def _source(seen: Measurement, player: str, function: str) -> Verdict:
    if seen.joint:
        return _difference(seen, player)
    if "output@1" in seen.terms:
        return _targets(seen, player)
    if None in seen.terms.values():
        return _unknown(seen, player)
    real, fake = seen.terms.get("real"), seen.terms.get("fake")
    live = {key: term for key, term in seen.terms.items() if term and term.shape != "flat"}
    up = {key for key, term in live.items() if term.weight < 0}
    is_line = all(term.behind_sigmoid and term.shape == "linear" for term in live.values())
    if is_line and up == {"fake" if player == "G" else "real"} and close(seen.offset, -live[up.pop()].weight):
        verdict = Verdict(what="the absolute error of a probability (L1)")  # the Wasserstein loss has no offset
        verdict.note("absolute-error")
        return verdict
    if player == "G":
        verdict = _g(real, fake, function)
        code, drawn = seen.loss.code, next((n for n, role in seen.loss.reading.roles.items() if role == "real"), "")
        is_net = "net" in seen.loss.reading.roles.values()
        if fake is None and not is_net and (drawn in code.data or (code.inline and "real" in words_of(drawn))):
            verdict.faults, verdict.notes = [("g-of-real", {"name": drawn})], []
            return verdict
        low, high = seen.drawn.get("fake", (1.0, 1.0))
        if high > 1 + 1e-3 and not verdict.owner:
            verdict.faults = [("drawn-range", {"low": low, "high": high})]
        return verdict
    return _d(real, fake, seen.drawn)


def _d(real: Term | None, fake: Term | None, drawn: dict[str, tuple[float, float]] | None = None) -> Verdict:
    """D's loss from its terms of real and of generated images, one of which may be in another function."""
    given = [term for term in (real, fake) if term is not None]
    live = [term for term in given if term.shape != "flat"]
    if not live:
        return Verdict(faults=[("flat", {"what": "D's outputs"})], entry="non_saturating")
    shape = live[0].undirected
    verdict = Verdict(scale=live[0].scale, half="real" if fake is None else "fake" if real is None else "")
    verdict.rename(OF_SHAPE[shape].name)
    if len(live) < len(given):
        missing = "real" if real is not None and real.shape == "flat" else "fake"
        verdict.fault(f"{missing}-half-missing")
    elif real and not fake and shape == "least_squares" and real.weight > 0 and real.target > 20:
        verdict.rename("wasserstein")
        verdict.scale, verdict.shift = 2 * real.weight * real.target, real.weight * real.target**2
        verdict.note("drift", weight=real.weight)
    elif real and fake and _is_drift(real, fake):
        verdict.rename("wasserstein")
        verdict.scale, verdict.shift = fake.weight, real.weight * real.target**2
        verdict.note("drift", weight=real.weight)
    elif len({(term.undirected, term.behind_sigmoid) for term in live}) > 1:
        of_real, of_fake = (WORDS[term.undirected] for term in live)
        verdict.name, verdict.what = "unknown", f"{of_real} for real, {of_fake} for fake"
        verdict.fault("mixed-halves")
    elif live[0].behind_sigmoid:
        _behind_sigmoid(verdict, live[0])
    else:
        _check_directions(verdict, real, fake)
        if real and fake and not close(abs(real.weight), abs(fake.weight)):
            _uneven(verdict, real, fake)
        if not verdict.faults and shape == "cross_entropy":
            _smoothing(verdict, real, fake, drawn or {})
        elif not verdict.faults and shape != "linear":
            {"least_squares": _square_targets, "hinge": _margins}[shape](verdict, real, fake)
    return verdict


def _is_drift(real: Term, fake: Term) -> bool:
    """Whether the halves are c r^2 - k r and k f: the Wasserstein loss with a drift penalty (Karras et al. 2018)."""
    shapes = (real.shape, fake.shape) == ("least_squares", "linear")
    return shapes and min(real.weight, fake.weight) > 0 and close(2 * real.weight * real.target / fake.weight, 1)


def _behind_sigmoid(verdict: Verdict, term: Term) -> None:
    verdict.name, verdict.what = "unknown", f"{WORDS[term.shape]} of a probability"
    if term.shape == "cross_entropy":
        verdict.fault("sigmoid-first", floor=log(1 + np.exp(-1)) * abs(term.weight))
    else:
        verdict.fault("sigmoid-before-score")


def _check_directions(verdict: Verdict, real: Term | None, fake: Term | None) -> None:
    """D raises the logits of real images and lowers those of fakes."""
    terms = [term for term in (real, fake) if term is not None]
    if terms[0].shape == "least_squares":
        if real is None or fake is None:
            if terms[0].weight < 0:
                verdict.fault("no-minimum")
            return
        if (real.weight < 0) != (fake.weight < 0):
            verdict.fault("sign-of-half")
        elif real.weight < 0:
            verdict.fault("no-minimum")
        elif real.target == fake.target:
            verdict.fault("same-targets", target=real.target)
        elif real.target < fake.target:
            verdict.fault("targets-swapped", helps=HELPS["D"])
        return
    down = real is not None and real.direction < 0
    up = fake is not None and fake.direction > 0
    if not (down or up):
        return
    if terms[0].shape == "linear" and not (down and (up or fake is None)):
        verdict.fault("sign-of-half")
    elif terms[0].shape == "linear" or all(term.weight < 0 for term in terms):
        verdict.fault("sign", helps=HELPS["D"])
    elif down and up:
        verdict.fault("targets-swapped", helps=HELPS["D"])
    else:
        verdict.fault("direction", way="real images down" if down else "fakes up", helps=HELPS["D"])


def _uneven(verdict: Verdict, real: Term, fake: Term) -> None:
    a, b = abs(real.weight), abs(fake.weight)
    targets = close(real.target, 1) and close(fake.target, 0)
    if real.shape == "cross_entropy" and targets and close(a + b, 1):
        verdict.fault("one-target-for-both", a=a, b=b, ratio=a / b)
    else:
        verdict.fault("uneven-halves", real=a, fake=b)


def _smoothing(verdict: Verdict, real: Term | None, fake: Term | None, drawn: dict[str, tuple[float, float]]) -> None:
    """Targets of a cross-entropy that are not 1 and 0."""
    a = 1.0 if real is None else real.target
    b = 0.0 if fake is None else fake.target
    a_smoothed, b_smoothed = not close(a, 1), not close(b, 0)
    for low, high in drawn.values():
        if low < -1e-3 or high > 1 + 1e-3:
            verdict.entry = "smoothing"
            verdict.fault("drawn-range", low=low, high=high)
            return
    if (a > 1 and a_smoothed) or (b < 0 and b_smoothed):
        verdict.entry = "smoothing"
        verdict.fault("target-range", target=a if a > 1 and a_smoothed else b)
        if not (a_smoothed and b_smoothed):
            return
    if a_smoothed:
        verdict.rename("smoothing")
        verdict.smoothing = round(a, 6)
    if b_smoothed:
        verdict.fault("smoothed-fakes", where="both sides" if a_smoothed else "the wrong side", real=a, fake=b)


def _square_targets(verdict: Verdict, real: Term | None, fake: Term | None) -> None:
    a, b = 0.0 if fake is None else fake.target, 1.0 if real is None else real.target
    if close(a, -1) and close(b, 1):
        verdict.rename("least_squares_pearson")
    elif not (close(a, 0) and close(b, 1)):
        given = [(half, term.target) for half, term in (("fake", fake), ("real", real)) if term]
        verdict.note("target", target=", ".join(f"{round(target, 4) + 0:g} for {half}" for half, target in given))


def _margins(verdict: Verdict, real: Term | None, fake: Term | None) -> None:
    terms = [term for term in (real, fake) if term is not None]
    margins = [sign * term.target for sign, term in ((1, real), (-1, fake)) if term is not None]
    if any(term.weight < 0 for term in terms):
        verdict.fault("concave-hinge")
    elif leak := max(term.leak for term in terms):
        verdict.fault("leaky-hinge", leak=leak)
    if not all(close(margin, 1) for margin in margins):
        verdict.note("margin", margin=" and ".join(f"{margin:.4g}" for margin in margins))


def _g(real: Term | None, fake: Term | None, function: str) -> Verdict:
    """G's loss from its terms of real and of generated images; a single term is taken as that of generated ones."""
    if fake is None:
        real, fake = None, real
    assert fake is not None
    if fake.shape == "flat":
        return Verdict(faults=[("flat", {"what": "G's images"})], entry="non_saturating")
    verdict = Verdict(scale=abs(fake.weight))
    if real is not None and real.shape != "flat":
        whole = _d(real, fake)
        squares = fake.shape == "least_squares"
        if close(fake.target, 0) if squares else not whole.faults:
            whole.faults, whole.notes, whole.what, whole.shift, whole.owner, whole.half = [], [], "", 0.0, "D", ""
            whole.fault("other-player", owner="D", where="", helps=HELPS["G"])
            whole.note("real-term-in-g")
            return whole
        verdict.note("real-term-in-g")
    verdict.rename("non_saturating" if fake.shape == "cross_entropy" else OF_SHAPE[fake.undirected].name)
    if fake.behind_sigmoid:
        _behind_sigmoid(verdict, fake)
        return verdict
    checks = {"cross_entropy": _g_cross_entropy, "least_squares": _g_squares, "linear": _g_line, "hinge": _g_hinge}
    checks[fake.undirected](verdict, fake)
    promised = [one.name for one in FAMILIES.values() if one.promised and re.search(one.promised, function.lower())]
    if promised and not verdict.faults and not set(promised) & {verdict.name, *verdict.name.split(", ")}:
        if verdict.name == "minimax":  # where D is sure of a fake it has no slope
            verdict.fault("name", promised=promised[0], name=verdict.name)
            verdict.entry = promised[0]
        elif promised[0] != "minimax":
            verdict.note("name", promised=promised[0], name=verdict.name)
    return verdict


def _g_cross_entropy(verdict: Verdict, fake: Term) -> None:
    positive, target = fake.weight > 0, fake.target
    if positive and close(target, 1):
        return
    if not positive and close(target, 0):
        verdict.rename("minimax")
        verdict.note("saturating")
    elif positive and close(target, 0):
        verdict.name, verdict.owner = SHARED_D, "D"
        verdict.fault("other-player", owner="D", where=" on generated images", helps=HELPS["G"])
    elif not positive and close(target, 1):
        verdict.fault("sign", helps=HELPS["G"])
    elif positive and 0.5 < target < 1:
        verdict.smoothing = round(target, 6)
        verdict.fault("smoothed-in-g", target=target)
    else:
        sign = "" if positive else ", and its sign is wrong"
        verdict.fault("target-of-g", target=target, sign=sign, helps=HELPS["G"])


def _g_squares(verdict: Verdict, fake: Term) -> None:
    verdict.scale = fake.scale
    if fake.weight < 0:
        verdict.fault("no-minimum")
    elif close(fake.target, 0):
        verdict.rename("least_squares_pearson")
        verdict.note("target-0-in-g")
    elif fake.target < 0:
        verdict.fault("target-of-g", target=fake.target, sign="", helps=HELPS["G"])
    elif not close(fake.target, 1):
        verdict.note("target", target=f"{fake.target:.4g}")


def _g_line(verdict: Verdict, fake: Term) -> None:
    verdict.rename(SHARED_G)
    if fake.weight > 0:
        verdict.fault("sign", helps=HELPS["G"])


def _g_hinge(verdict: Verdict, fake: Term) -> None:
    if fake.direction > 0:
        verdict.note("hinge-in-g")
    else:
        verdict.owner = "D"
        verdict.fault("hinge-of-d", helps=HELPS["G"])


def _difference(seen: Measurement, player: str) -> Verdict:
    """A loss of r - f."""
    term = seen.difference
    targets = {"cross_entropy": (0, 1), "least_squares": (-1, 1), "hinge": (-1, 1)}
    if (
        term is None
        or term.behind_sigmoid
        or term.leak
        or not any(close(term.target, target) for target in targets.get(term.undirected, ()))
    ):
        verdict = _unknown(seen, player)
        if seen.joint == "difference":
            verdict.note("relativistic-form")
            verdict.entry = "relativistic"
            curve = seen.curves["difference"]
            if player == "D" and np.ptp(curve) > 1e-9 and np.abs(curve - curve[::-1]).max() <= 1e-6 * np.ptp(curve):
                verdict.fault("symmetric")
        return verdict
    verdict = Verdict("relativistic", abs(term.weight), entry="relativistic")
    verdict.form = "" if term.shape == "cross_entropy" else f", with {WORDS[term.undirected]}"
    if seen.joint == "average":
        verdict.name, verdict.scale = "relativistic_average", abs(term.weight) / (1 if seen.half else 2)
        if seen.half:
            verdict.note("half-of-average", half=seen.half, other="real" if seen.half == "fake" else "fake")
    if (term.direction > 0) != (player == "D"):
        if term.weight > 0:
            verdict.owner = "G" if player == "D" else "D"
            verdict.fault("other-player", owner=verdict.owner, where="", helps=HELPS[player])
        else:
            verdict.fault("sign", helps=HELPS[player])
    elif term.weight < 0:
        verdict.name = "unknown"
        verdict.note("negative-pairs", player=player)
    return verdict


def _targets(seen: Measurement, player: str) -> Verdict:
    """A loss of D's output and a target."""
    one, zero, minus = (seen.terms.get(f"output@{target}") for target in ("1", "0", "-1"))
    if one is not None and set(seen.terms) == {"output@1"}:
        verdict = _g(None, one, "")
        return verdict
    if one is None or zero is None:
        return _unknown(seen, player)
    is_product = one.shape == "linear" and not one.behind_sigmoid and zero.shape == "flat"
    if is_product and minus is not None and close(minus.weight, -one.weight) and close(one.offset, zero.offset):
        verdict = Verdict("wasserstein", abs(one.weight), entry="wasserstein")
        verdict.targets = f"a target ({'-1 real, 1 fake' if one.weight > 0 else '1 real, -1 fake'})"
        return verdict
    is_hinge = one.shape == "hinge" and minus is not None and minus.shape == "hinge_down"
    verdict = _d(one, minus if is_hinge else zero)
    same_terms = one.shape == zero.shape and close(one.weight, zero.weight) and close(one.target, zero.target)
    if zero.shape == "flat" and one.shape == "cross_entropy":
        verdict.faults = [("half-of-bce-missing", {})]
    elif same_terms and not is_hinge:
        verdict = _d(one, None)
        verdict.notes, verdict.faults, verdict.half = [], [("target-ignored", {})], ""
        if "is_real" in seen.loss.reading.roles.values() and one.direction > 0:
            verdict = _g(None, one, "")
            return verdict
    if one.shape == "linear" and [code for code, _ in verdict.faults] == ["sign"]:  # it has no direction of its own
        verdict.faults = []
        verdict.note("both-swapped")
    is_flag = "is_real" in seen.loss.reading.roles.values()
    verdict.targets = "a flag (true for real)" if is_flag else f"a target (1 real, {-1 if is_hinge else 0} fake)"
    return verdict


def _unknown(seen: Measurement, player: str) -> Verdict:
    """A loss that is not known can still be seen to push the wrong way."""
    verdict = Verdict()
    wrong = {("D", "real"): 1, ("D", "fake"): -1, ("G", "fake"): 1}
    for key, values in seen.curves.items():
        sign = wrong.get((player, key), 0)
        step = sign * np.diff(values)
        if sign and not seen.joint and (step >= 0).all() and step.any():
            way = "real images down" if key == "real" else "fakes up" if player == "D" else "fakes down"
            verdict.fault("direction", way=way, helps=HELPS[player])
    return verdict


# --- class terms ---


def _class_term(seen: Measurement, role: str, player: str, parameter: str) -> Verdict:
    verdict = Verdict("auxiliary_classifier", entry="auxiliary_classifier")
    term = seen.classes[role]
    if term is None:
        verdict.name = "unknown"
        verdict.note("class-unknown", parameter=parameter)
        return verdict
    shape, classes, words = term.shape, seen.setup.classes, words_of(parameter)
    verdict.scale = term.weight
    if role == "twin_fake":
        verdict.rename("twin_classifier")
    if shape == "contrast":
        verdict.rename("reacgan")
    elif shape in ("adc_d", "adc_g"):
        verdict.rename("discriminative_classifier")
        if shape == "adc_d" and (player == "G" or role == "class_real"):
            verdict.fault("class-label")
    elif shape in ("softmax_first", "sigmoid_first"):
        certain = np.array([[60.0] + [-60.0] * (classes - 1)])
        floor = class_bases(certain, np.zeros(1, np.int64))[shape][0][0]
        on_probabilities = seen.setup.class_on == "probabilities"
        given = "probabilities" if on_probabilities else f"a {shape.removesuffix('_first')}"
        verdict.fault("class-input", given=given, floor=floor, classes=classes)
    elif shape == "nll_of_softmax":
        verdict.fault("nll-of-softmax")
    elif shape == "nll" and "logits" in words and role in seen.loss.reading.roles.values():
        verdict.fault("nll-of-logits")
    elif shape == "nll" and "log" not in words:
        verdict.note("nll")
    elif shape in ("brier", "squares", "one_vs_all"):
        verdict.name = "unknown"
        verdict.what = {
            "brier": "squared error of probabilities", "squares": "squared error of raw class logits",
            "one_vs_all": f"{classes} sigmoid cross-entropies",
        }[shape]  # fmt: skip
        verdict.note("class-other", what=verdict.what)
    elif shape == "flat":
        verdict.fault("class-flat", parameter=parameter)
    elif shape == "cross_entropy" and term.smoothing > 1e-6:
        verdict.note("class-smoothed", smoothing=term.smoothing)
    if term.weight * (-1 if role == "twin_fake" and player == "G" else 1) < 0:
        verdict.fault("twin-sign" if role == "twin_fake" else "class-sign")
    if shape == "cross_entropy" and classes > 2 and close(abs(term.weight) * classes, 1):
        verdict.note("class-averaged", classes=classes)
    if role in seen.wrong_labels:
        verdict.fault("class-labels")
    return verdict


# --- the whole loss ---


def _whole(seen: Measurement, player: str) -> Verdict:
    """Reduction, coupling and gradients."""
    whole = Verdict()
    terms = {**seen.terms, **seen.classes}
    reductions = {
        kind for key, kind in seen.reductions.items() if (one := terms.get(key)) is None or one.shape != "flat"
    }
    if "sum" in reductions:
        (whole.note if reductions == {"sum"} else whole.fault)("sum" if reductions == {"sum"} else "sum-in-part")
    if "other" in reductions and seen.known:
        whole.fault("reduction")
    if seen.coupled == "mean" and seen.known:
        whole.fault("mean-first")
    elif seen.coupled == "max" and not seen.joint:
        whole.fault("max")
    elif seen.coupled:
        whole.note("coupled")
    if seen.class_and_source_mixed:
        whole.note("mixed-terms")
    detached = seen.gradients.detached
    if player == "D" and seen.loss.has_networks:
        detached = seen.gradients.detached_from_d
    for role in detached:
        if player != "G":
            whole.fault("no-gradient-in-d", role=role)
        elif role not in ("real", "class_real"):
            whole.fault("no-gradient-in-g")
    if seen.gradients.plain:
        whole.fault("not-differentiable")
    if player == "D" and abs(seen.gradients.in_g) > 1e-12:
        whole.note("g-not-detached")
    if seen.gradients.penalty in ("dead", "subtracted"):
        whole.fault(f"penalty-{seen.gradients.penalty}")
    given = ", ".join(
        f"{name} = {STAND_INS[role]}" for name, role in seen.loss.reading.roles.items() if role in STAND_INS
    )
    if given:
        whole.note("given", given=given)
    for name, role in seen.loss.reading.roles.items():
        if role == "criterion":
            whole.note("criterion", name=name)
    if seen.loss.extras:
        whole.note("more", names=" and ".join(seen.loss.extras))
    if seen.random:
        whole.note("random", draws=seen.setup.draws)
    return whole
