"""What is said of a part of a loss: names, wrongs and remedies; of what has no name its shape; of class terms all."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log

import numpy as np

from ptarmigan.handbook.identify.curves import ClassTerm, Term, class_shapes, nearest
from ptarmigan.handbook.identify.measuring import Measured
from ptarmigan.handbook.identify.roles import tokens

SHARED_D, SHARED_G = "minimax, non_saturating", "hinge, wasserstein"  # what one formula alone cannot tell apart
SAME = 1e-6  # of weights and targets; a near fit gets more
INTENT = {
    r"non_?sat": ("non_saturating",), r"(?<!non)(?<!non_)saturating|minimax": ("minimax",), r"hinge": ("hinge",),
    r"wgan|wasserstein": ("wasserstein",), r"lsgan|least_?squares": ("least_squares", "least_squares_pearson"),
    r"rpgan|relativistic": ("relativistic", "relativistic_average"),
}  # fmt: skip
HELPS = {"D": "a D that minimises it helps G", "G": "a G that minimises it helps D"}
TITLES = {
    SHARED_D: "cross-entropy", "smoothing": "cross-entropy", "minimax": "cross-entropy, saturating",
    "non_saturating": "cross-entropy", SHARED_G: "-f", "least_squares": "least squares", "hinge": "hinge",
    "least_squares_pearson": "least squares", "wasserstein": "critic's line", "relativistic": "cross-entropy of pairs",
    "relativistic_average": "cross-entropy against the other half's mean",
    "auxiliary_classifier": "class cross-entropy", "twin_classifier": "twin's class cross-entropy",
    "discriminative_classifier": "class term of 2K classes", "reacgan": "D2D-CE",
}  # fmt: skip


@dataclass
class Verdict:
    """What is said of the source part, or of all of a loss, while it is being put together."""

    name: str = "unknown"
    scale: float = 1.0
    smoothing: float | None = None
    shift: float = 0.0  # what the offset lacks, where a term is read as another than the one that was fitted
    whose: str = ""  # whose loss it is, where that is not the player
    what: str = ""  # where no name does: what it is in words
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    want: str = ""  # the entry whose code is right


def same(a: float, b: float) -> bool:
    return abs(a - b) <= 2e-3 * max(1.0, abs(b))


def raises(term: Term) -> bool | None:
    """Whether minimising a term raises the logits; None where it has an inner minimum."""
    if term.family == "cross_entropy":
        return (term.target > 0.5) == (term.weight > 0) if not same(term.target, 0.5) else None
    if term.family == "least_squares":
        return None
    return {"hinge": True, "hinge_down": False, "linear": False}[term.family] == (term.weight > 0)


def behind_sigmoid(verdict: Verdict, term: Term) -> None:
    verdict.name = "unknown"
    verdict.what = {
        "cross_entropy": "cross-entropy on logits of a probability", "linear": "a line in the probability",
        "least_squares": "least squares of a probability",
    }[term.family]  # fmt: skip
    if term.family == "cross_entropy":
        floor = log(1 + np.exp(-1)) * abs(term.weight)
        verdict.wrong.append(
            f"a sigmoid stands before a cross-entropy that has its own: a sure D still pays {floor:.3f}"
        )
    else:
        verdict.wrong.append(
            "a sigmoid stands before it: this loss takes D's raw score, and its slope dies at both ends of a sigmoid"
        )


def family_of(term: Term) -> str:
    names = {"linear": "a line", "least_squares": "a parabola", "cross_entropy": "cross-entropy", "flat": "nothing"}
    return names.get(term.family, "a hinge")


def unknown(seen: Measured, player: str) -> Verdict:
    """The shape of what has no name here, and what comes closest."""
    verdict = Verdict()
    curves = {"difference": seen.curves["difference"]} if "difference" in seen.curves else seen.curves
    for key, values in curves.items():
        seen_as = seen.shapes.get(key)
        if seen_as is None:
            continue
        of = {"difference": "r - f", "real": "r", "fake": "f"}.get(key, key.replace("output@", "the output at target "))
        verdict.notes.append(
            f"in {of} it is {seen_as.monotone}, {seen_as.bounded}, {seen_as.low} at -inf, {seen_as.high} at +inf; "
            f"at logit 0 {seen_as.value:.4g}, slope {seen_as.slope:.3g}; nearest: {nearest(values)}"
        )
        bad = {"D": {"real": "rising", "fake": "falling"}, "G": {"fake": "rising"}}[player].get(key)
        if seen_as.monotone == bad and not seen.joint:
            way = "real images down" if key == "real" else "fakes up" if player == "D" else "fakes down"
            verdict.wrong.append(f"it pushes {way}: {HELPS[player]}")
    if seen.joint == "other":
        verdict.notes.append("real and fake meet in it other than as r - f")
    return verdict


def class_part(role: str, term: ClassTerm | None, seen: Measured, player: str, parameter: str) -> Verdict:
    """The verdict on one class term."""
    verdict = Verdict("auxiliary_classifier", 1.0, want="auxiliary_classifier")
    if term is None:
        verdict.name = "unknown"
        verdict.notes.append(f"its term of {parameter} is no class loss that is known here")
        return verdict
    verdict.scale, classes = term.weight, seen.setup.classes
    sign = -1 if role == "twin_fake" and player == "G" else 1
    sure = np.full((1, classes), -60.0)
    sure[0, 0] = 60.0
    family = term.family
    if role == "twin_fake":
        verdict.name = verdict.want = "twin_classifier"
    if family == "contrast":
        verdict.name = verdict.want = "reacgan"
        verdict.notes.append(term.detail)
    if family in ("adc_d", "adc_g"):
        verdict.name = verdict.want = "discriminative_classifier"
        if family == "adc_d" and (player == "G" or role == "class_real"):
            verdict.wrong.append("a K + y label is D's, for a generated image; G asks for y, and a real image is y")
    if family in ("softmax_first", "sigmoid_first"):
        floor = float(class_shapes(sure, np.zeros(1, np.int64))[family][0][0])
        before = family.removesuffix("_first")
        given = "probabilities" if seen.setup.class_on == "probabilities" else f"a {before}"
        verdict.wrong.append(
            f"cross_entropy gets {given} and takes logits: it stays above {floor:.3f} ({classes} classes), "
            "however right D is"
        )
    elif family == "nll_of_softmax":
        verdict.wrong.append(
            "nll_loss takes log-probabilities: log_softmax, not softmax; or cross_entropy on the logits"
        )
    elif family == "nll" and "logits" in tokens(parameter):
        verdict.wrong.append("nll_loss on logits has no minimum: it takes log_softmax; cross_entropy takes logits")
    elif family == "nll" and "log" not in tokens(parameter):
        verdict.notes.append(
            "right on log-probabilities (log_softmax); on logits it has no minimum: there take cross_entropy"
        )
    elif family in ("brier", "squares", "one_vs_all"):
        whats = {
            "brier": "squared error of probabilities",
            "squares": "squared error of raw class logits",
            "one_vs_all": f"{classes} sigmoid cross-entropies",
        }
        what = whats[family]
        verdict.name, verdict.what = "unknown", what
        verdict.notes.append(
            f"its class term is {what}, not cross-entropy over the classes: nearest is F.cross_entropy"
        )
    elif family == "flat":
        verdict.wrong.append(f"{parameter} plays no part in it")
    if family == "cross_entropy" and term.smoothing > 1e-6:
        verdict.notes.append(f"its class target is smoothed: {term.smoothing:.3g} spread over all classes")
    if term.weight * sign < 0:
        verdict.wrong.append(
            "the sign of its twin term is wrong: D minimises CE(T), G maximises it"
            if role == "twin_fake"
            else "the sign of its class term is wrong: both players minimise it; only the source term is a contest"
        )
    if same(abs(term.weight) * classes, 1) and family == "cross_entropy" and classes > 2:
        verdict.notes.append(
            f"its class term is averaged over the {classes} classes too: 1/{classes} of the cross-entropy"
        )
    if role in seen.wrong_labels:
        verdict.wrong.append(
            "its class target is the other half's: for a generated image it is the class that was asked for"
        )
    return verdict
