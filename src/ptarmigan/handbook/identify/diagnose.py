"""Stage 5 of source -> ... -> answer: name the fitted terms, and say what is wrong with them.

A finding is a code and the values to insert into its sentence in sentences.SENTENCES.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from ptarmigan.handbook.identify.families import WORDS
from ptarmigan.handbook.identify.measure import Measurement
from ptarmigan.handbook.identify.names import CLASS_WORDS, OUTPUTS, player_of, side_of, words_of
from ptarmigan.handbook.identify.signature import LossError, parameters_of
from ptarmigan.handbook.identify.terms import class_bases, close
from ptarmigan.handbook.identify.verdicts import HELPS, Finding, Verdict, verdict_on_d, verdict_on_g

STAND_INS = {"weight": "1", "zero": "0"}


@dataclass(frozen=True)
class Diagnosis:
    """The findings on a whole loss."""

    player: str  # D, G, or "" for a class loss whose name does not say
    source: Verdict | None  # on D's outputs
    classes: list[Verdict]
    faults: list[Finding]
    notes: list[Finding]
    turned: Diagnosis | None = None  # the findings if both players exchange the labels, where they are better


OTHER_CLASS_TERMS = {
    "brier": "squared error of probabilities", "squares": "squared error of raw class logits",
    "one_vs_all": "a sigmoid cross-entropy for each class",
}  # fmt: skip
ORIENTATION = {"targets-swapped", "sign", "sign-of-half", "direction", "other-player", "hinge-of-d", "hinge-in-g",
               "target-of-g"}  # fmt: skip


def diagnose(seen: Measurement, function: str, kind: str | None) -> Diagnosis:
    """The verdicts on a loss and its parts.  The player comes from `kind`, else from the name `function`, else from
    the measurement.
    """
    declared = next((one for one in (kind, player_of(function)) if one in ("d", "g")), None)
    named = not declared and "saturating" in function.lower() and set(seen.terms) == {"fake"}
    player = declared.upper() if declared else "G" if named else _player(seen, function) if seen.loss.scores else ""
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
    parts = [_whole(seen, player), *([source] if source else []), *classes]
    faults = [fault for part in parts for fault in part.faults]
    notes = [note for part in parts for note in part.notes]
    on_probabilities = seen.setup.on == "probabilities" and not seen.setup.array and not faults
    if on_probabilities and any(term and term.shape == "cross_entropy" for term in seen.terms.values()):
        notes.append(("float32", {}))
    return Diagnosis(player, source, classes, faults, notes)


def _player(seen: Measurement, function: str) -> str:
    """Whose loss it is, judged by its curves alone."""
    if seen.joint:
        return "G" if seen.difference and seen.difference.direction == -1 else "D"
    real, fake = seen.terms.get("real"), seen.terms.get("fake")
    if "fake" not in seen.terms or (real is not None and real.shape != "flat"):
        return "D"
    if fake is None:
        return "G" if seen.curves["fake"][0] > seen.curves["fake"][-1] else "D"
    if fake.shape == "least_squares" and close(fake.target, 0) and real is None and side_of(function) == "fake":
        return "D"  # mse_fake_loss
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
        verdict = verdict_on_g(real, fake, function)
        code, drawn = seen.loss.code, next(iter(seen.loss.trace.asked.get("real", ())), "")
        if fake is None and drawn and (drawn in code.uses.drawn or (code.inline and "real" in words_of(drawn))):
            verdict.faults, verdict.notes = [("g-of-real", {"name": drawn})], []
            return verdict
        low, high = seen.drawn.get("fake", (1.0, 1.0))
        if high > 1 + 1e-3 and not verdict.owner:
            verdict.faults = [("drawn-range", {"low": low, "high": high})]
        return verdict
    return verdict_on_d(real, fake, seen.drawn)


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
        return verdict_on_g(None, one, "")
    if one is None or zero is None:
        return _unknown(seen, player)
    is_flag, turned = "is_real" in seen.loss.reading.roles.values(), False
    is_product = one.shape == "linear" and not one.behind_sigmoid and zero.shape == "flat"
    if is_product and minus is not None and close(minus.weight, -one.weight) and close(one.offset, zero.offset):
        verdict = Verdict("wasserstein", abs(one.weight), entry="wasserstein")
        verdict.targets = f"a target ({'-1 real, 1 fake' if one.weight > 0 else '1 real, -1 fake'})"
        return verdict
    flag = next((name for name, role in seen.loss.reading.roles.items() if role == "is_real"), "real")
    if not {"real", "true", "valid"} & {*words_of(flag)} and one.direction < 0 < zero.direction:
        one, zero, turned = zero, one, True
    is_hinge = one.shape == "hinge" and minus is not None and minus.shape == "hinge_down"
    verdict = verdict_on_d(one, minus if is_hinge else zero)
    same_terms = one.shape == zero.shape and close(one.weight, zero.weight) and close(one.target, zero.target)
    if zero.shape == "flat" and one.shape == "cross_entropy":
        verdict.faults = [("half-of-bce-missing", {})]
    elif same_terms and not is_hinge:
        verdict = verdict_on_d(one, None)
        verdict.notes, verdict.faults, verdict.half = [], [("target-ignored", {})], ""
        if is_flag and one.direction > 0:
            return verdict_on_g(None, one, "")
    if one.shape == "linear" and [code for code, _ in verdict.faults] == ["sign"]:  # it has no direction of its own
        verdict.faults = []
        verdict.note("both-swapped")
    flagged = f"a flag (true for {'fake' if turned or side_of(flag) == 'fake' else 'real'})"
    verdict.targets = flagged if is_flag else f"a target (1 real, {-1 if is_hinge else 0} fake)"
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


def _flat_class(verdict: Verdict, parameter: str) -> None:
    if not {*words_of(parameter)} & (CLASS_WORDS | OUTPUTS):  # its role was guessed
        raise LossError(f"cannot tell what {parameter} is", "signature-unclear")
    verdict.fault("class-flat", parameter=parameter)


def _class_term(seen: Measurement, role: str, player: str, parameter: str) -> Verdict:
    verdict = Verdict("auxiliary_classifier", entry="auxiliary_classifier")
    term = seen.classes[role]
    if term is None:
        verdict.name = "unknown"
        verdict.note("class-unknown", parameter=parameter)
        return verdict
    shape, classes, words, verdict.scale = term.shape, seen.setup.classes, words_of(parameter), term.weight
    if shape in ("softmax_first", "sigmoid_first"):
        certain = np.array([[60.0] + [-60.0] * (classes - 1)])
        floor = class_bases(certain, np.zeros(1, np.int64))[shape][0][0]
        given = "probabilities" if seen.setup.class_on == "probabilities" else f"a {shape.removesuffix('_first')}"
        verdict.fault("class-input", given=given, floor=floor, classes=classes)
    elif shape == "nll_of_softmax":
        verdict.fault("nll-of-softmax")
    elif shape == "nll" and "logits" in words and role in seen.loss.reading.roles.values():
        verdict.fault("nll-of-logits")
    elif shape == "nll" and "log" not in words:
        verdict.note("nll")
    elif shape in ("brier", "squares", "one_vs_all"):
        verdict.name = "unknown"
        verdict.what = OTHER_CLASS_TERMS[shape]
        verdict.note("class-other", what=verdict.what)
    elif shape == "flat":
        _flat_class(verdict, parameter)
    elif shape == "cross_entropy" and term.smoothing > 1e-6:
        verdict.note("class-smoothed", smoothing=term.smoothing)
    if term.weight < 0:
        verdict.fault("class-sign")
    if role in seen.wrong_labels:
        verdict.fault("class-labels")
    return verdict


# --- the whole loss ---


def _whole(seen: Measurement, player: str) -> Verdict:
    """Reduction, coupling, gradients, and what was held fixed."""
    whole = Verdict()
    _judge_batch(seen, whole)
    _judge_gradients(seen, player, whole)
    roles = seen.loss.reading.roles
    given = [f"{name} = {STAND_INS[role]}" for name, role in roles.items() if role in STAND_INS]
    given += [f"{name} = {value:g}" if isinstance(value, float) else f"{name} = {value}"
              for name, value in seen.loss.trace.fixed.items()]  # fmt: skip
    if given:
        whole.note("given", given=", ".join(given))
    for name, kind in seen.loss.trace.criteria.items():
        is_given = name in parameters_of(seen.loss.function) and not seen.loss.code.inline
        whole.note("criterion", name=name, kind=kind, where="is a parameter" if is_given else "is not in the file")
    if seen.loss.trace.extras:
        whole.note("more", names=" and ".join(seen.loss.trace.extras))
    if seen.random:
        whole.note("random", draws=seen.setup.draws)
    return whole


def _judge_batch(seen: Measurement, whole: Verdict) -> None:
    """How the value of a batch depends on those of its images."""
    terms = {**seen.terms, **seen.classes}
    reductions = {kind for key, kind in seen.reductions.items() if getattr(terms.get(key), "shape", "") != "flat"}
    if reductions == {"sum"}:
        whole.note("sum")
    elif "sum" in reductions:
        whole.fault("sum-in-part")
    if "other" in reductions and seen.known:
        whole.fault("reduction")
    if seen.coupled == "mean" and seen.known:
        whole.fault("mean-first")
    elif seen.coupled == "max" and not seen.joint and re.search("max|min|topk", seen.loss.code.uses.text):
        whole.fault("max")
    elif seen.coupled:
        whole.note("coupled")
    if seen.class_and_source_mixed:
        whole.note("mixed-terms")


def _judge_gradients(seen: Measurement, player: str, whole: Verdict) -> None:
    through_d = player == "D" and seen.loss.has_networks
    for role in seen.gradients.detached_from_d if through_d else seen.gradients.detached:
        if player != "G":
            whole.fault("no-gradient-in-d", role=role)
        elif role not in ("real", "class_real"):
            whole.fault("no-gradient-in-g")
    if seen.gradients.plain:
        whole.fault("not-differentiable")
    scope = getattr(seen.loss.function, "__globals__", {})  # a tape takes the gradient of D's parameters alone
    if player == "D" and abs(seen.gradients.in_g) > 1e-12 and not {"tf", "tensorflow", "keras"} & scope.keys():
        first = seen.loss.code.steps_first
        whole.fault("reaches-g", optimiser=first) if first else whole.note("g-not-detached")
    if (
        player == "D"
        and seen.loss.code.bounded
        and {getattr(term, "shape", "") for term in seen.terms.values()} == {"linear"}
    ):
        whole.fault("bounded-score")
    for code in sorted(seen.loss.penalty_faults):
        whole.fault(f"penalty-{code}")
    if seen.gradients.penalty in ("dead", "subtracted"):
        whole.fault(f"penalty-{seen.gradients.penalty}")
