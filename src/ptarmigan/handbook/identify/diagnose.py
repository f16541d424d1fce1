"""What is said of a part of a loss: names, wrongs and remedies; of what has no name its shape; of class terms all."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import log

import numpy as np

from ptarmigan.handbook.identify.fit import ClassTerm, Measured, Term, class_shapes, nearest
from ptarmigan.handbook.identify.signature import tokens

SWAPPED, GIVEN = "its targets are swapped", "this is D's loss"  # how a pair with its labels turned over is known
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


def source(seen: Measured, player: str, function: str) -> Verdict:
    """The verdict on the terms of D's answers."""
    if seen.joint:
        return _difference(seen, player)
    if "output@1" in seen.terms:
        return _targets(seen, player)
    real, fake = seen.terms.get("real"), seen.terms.get("fake")
    if ("real" in seen.terms and real is None) or ("fake" in seen.terms and fake is None):
        return unknown(seen, player)
    if player == "G":
        assert fake is not None or real is not None
        return _g(real, fake if fake is not None else real, function)
    return _d(real, fake)


def player_by(seen: Measured) -> str:
    """Whose loss it is, where no name says so."""
    if seen.joint:
        return "G" if seen.difference and seen.difference.pull == -1 else "D"
    real, fake = seen.terms.get("real"), seen.terms.get("fake")
    if "output@1" in seen.terms or "fake" not in seen.terms or (real is not None and real.family != "flat"):
        return "D"
    if seen.terms.get("fake") is None and "fake" in seen.curves:
        return "G" if seen.curves["fake"][0] > seen.curves["fake"][-1] else "D"
    assert fake is not None
    return "G" if fake.pull > 0 or fake.family == "least_squares" or fake.weight < 0 else "D"


def _d(real: Term | None, fake: Term | None) -> Verdict:
    """D's loss from its terms on real and on generated images, either of which may be another function's."""
    verdict = Verdict()
    here = [term for term in (real, fake) if term is not None]
    live = [term for term in here if term.family != "flat"]
    if not live:
        return Verdict(what="flat loss", wrong=["it does not depend on D's answers"], want="non_saturating")
    family = live[0].family.removesuffix("_down")
    want = {"cross_entropy": "non_saturating", "linear": "wasserstein"}.get(family, family)
    verdict.want, verdict.scale = want, abs(live[0].weight) * (2 if family == "least_squares" else 1)
    verdict.name = SHARED_D if want == "non_saturating" else want
    if fake is None:
        verdict.notes.append("D's real half alone" + ("; on fakes it is what G minimises" if family != "hinge" else ""))
    if real is None:
        verdict.notes.append("D's fake half alone; a G that minimises it helps D")
    if len(live) < len(here) and family == "linear":
        half = "real" if real is not None and real.family == "flat" else "fake"
        verdict.wrong.append(
            f"D's {half} answer plays no part in it; a cross-entropy that is given the target first, then D's answer, "
            "looks so: the answer comes first"
        )
        verdict.name, verdict.want = "unknown", "non_saturating"
        return verdict
    if len(live) < len(here):
        half = "fake" if fake is not None and fake.family == "flat" else "real"
        verdict.wrong.append(
            "its fake half is missing: y_true = 1 for both halves leaves 0 of it"
            if half == "fake"
            else "its real half is missing: D learns nothing from real images"
        )
        return verdict
    if real and fake and (real.family, fake.family) == ("least_squares", "linear") and _drifts(real, fake):
        verdict.name = verdict.want = "wasserstein"
        verdict.scale, verdict.shift = fake.weight, real.weight * real.target**2
        verdict.notes.append(f"and {real.weight:.3g} r^2, which keeps D's answers from drifting")
        return verdict
    if len({(term.family.removesuffix("_down"), term.inner) for term in live}) > 1:
        verdict.name, verdict.what = "unknown", f"{family_of(live[0])} for real, {family_of(live[1])} for fake"
        verdict.wrong.append("its halves belong to different losses")
        return verdict
    if live[0].inner:
        behind_sigmoid(verdict, live[0])
        return verdict
    _signs(verdict, real, fake)
    if verdict.wrong:
        return verdict
    if real is not None and fake is not None and not same(abs(real.weight), abs(fake.weight)):
        _uneven(verdict, real, fake)
    details = {"cross_entropy": _smoothed, "least_squares": _squares, "hinge": _margins}
    if family in details:
        details[family](verdict, real, fake)
    return verdict


def _drifts(real: Term, fake: Term) -> bool:
    """Whether a parabola is c r^2 - k r beside k f: Wasserstein's loss, kept from drifting (Karras et al. 2018)."""
    return real.weight > 0 and fake.weight > 0 and same(2 * real.weight * real.target / fake.weight, 1)


def _signs(verdict: Verdict, real: Term | None, fake: Term | None) -> None:
    """Real images are to be pushed up, fakes down."""
    family = (real or fake or Term("flat")).family.removesuffix("_down")
    down = real is not None and raises(real) is False
    up = fake is not None and raises(fake) is True
    if family == "least_squares" and real is not None and fake is not None:
        down = up = (real.target < fake.target) != (real.weight < 0 and fake.weight < 0)
        if (real.weight < 0) != (fake.weight < 0):
            verdict.wrong.append("one of its halves has the wrong sign and no minimum")
            return
        if real.weight < 0:
            verdict.wrong.append(f"its sign is wrong: {HELPS['D']}, and it has no minimum")
            return
        if real.target == fake.target:
            verdict.wrong.append(f"both halves have the target {real.target:g}: D has nothing to tell apart")
            return
    if not (down or up):
        return
    negative = all(term.weight < 0 for term in (real, fake) if term is not None)
    if family == "linear":
        text = (
            f"its sign is wrong: {HELPS['D']}"
            if down and (up or fake is None)
            else "one of its halves has the wrong sign"
        )
    elif negative:
        text = f"its sign is wrong: it is the negative of D's loss, so {HELPS['D']}"
    elif down and up:
        text = f"{SWAPPED}: it teaches D that fakes are real; beside an ordinary G, {HELPS['D']}"
    else:
        text = f"it pushes {'real images down, as fakes' if down else 'fakes up, as real ones'}: {HELPS['D']}"
    verdict.wrong.append(text)


def _uneven(verdict: Verdict, real: Term, fake: Term) -> None:
    a, b = abs(real.weight), abs(fake.weight)
    if same(real.target, 1) and same(fake.target, 0) and same(a + b, 1) and real.family == "cross_entropy":
        verdict.wrong.append(
            f"y_true = {a:.3g} stands for both halves: it weights real by {a:.3g} and fake by {b:.3g}, D's optimum is "
            f"log({a / b:.3g} p/q) and unbounded; label smoothing is another thing: see `ptarmigan losses smoothing`"
        )
    else:
        verdict.wrong.append(
            f"its real half weighs {a:.4g} and its fake half {b:.4g}: D's optimum is not log(p/q)"
            if real.family == "cross_entropy"
            else f"its real half weighs {a:.4g}, its fake half {b:.4g}"
        )


def _smoothed(verdict: Verdict, real: Term | None, fake: Term | None) -> None:
    """Targets of a cross-entropy that are not 1 and 0."""
    a = 1.0 if real is None else real.target
    b = 0.0 if fake is None else fake.target
    if (a > 1 + SAME and not same(a, 1)) or (b < 0 and not same(b, 0)):
        verdict.wrong.append(f"a target of {a if a > 1 else b:.4g} is outside [0, 1]: the loss has no minimum")
        verdict.want = "smoothing"
        return
    if not same(a, 1):
        verdict.name, verdict.smoothing, verdict.want = "smoothing", round(a, 6), "smoothing"
    if not same(b, 0):
        sides = "both sides" if not same(a, 1) else "the wrong side"
        verdict.wrong.append(
            f"labels are smoothed on {sides} (real {a:.4g}, fake {b:.4g}): the target of fakes stays 0, or D is flat "
            "where there are no data and bad samples have no reason to move"
        )
        verdict.want = "smoothing" if not same(a, 1) else "non_saturating"


def _squares(verdict: Verdict, real: Term | None, fake: Term | None) -> None:
    b, a = (None if term is None else term.target for term in (real, fake))
    if a is not None and same(a, -1) and (b is None or same(b, 1)):
        verdict.name = verdict.want = "least_squares_pearson"
    elif not ((a is None or same(a, 0)) and (b is None or same(b, 1))):
        halves = (("fake", a), ("real", b))
        told = [f"{round(target, 4) + 0:g} for {half}" for half, target in halves if target is not None]
        verdict.notes.append(f"its target is {', '.join(told)}")


def _margins(verdict: Verdict, real: Term | None, fake: Term | None) -> None:
    margins = [term.target if term is real else -term.target for term in (real, fake) if term is not None]
    if not all(same(margin, 1) for margin in margins):
        verdict.notes.append(f"its margin is {' and '.join(f'{margin:.4g}' for margin in margins)}, not 1")


def _g(real: Term | None, fake: Term | None, function: str) -> Verdict:
    """G's loss from its terms on real and on generated images."""
    assert fake is not None
    verdict = Verdict(scale=abs(fake.weight))
    if fake.family == "flat":
        return Verdict(what="flat loss", wrong=["nothing in it depends on G's images"], want="non_saturating")
    if real is not None and real is not fake and real.family != "flat":
        whole = _d(real, fake)
        if (not whole.wrong and fake.family != "least_squares") or (
            fake.family == "least_squares" and same(fake.target, 0)
        ):
            verdict.wrong.append(f"this is D's loss: {HELPS['G']}, and its term of real images has no gradient for G")
            verdict.name, verdict.scale, verdict.want, verdict.whose = whole.name, whole.scale, whole.want, "D"
            verdict.smoothing = whole.smoothing
            return verdict
        verdict.notes.append("its term of real images has no gradient for G")
    if fake.inner:
        behind_sigmoid(verdict, fake)
        verdict.want = {"cross_entropy": "non_saturating", "linear": "wasserstein"}.get(fake.family, fake.family)
        return verdict
    {"cross_entropy": _g_cross_entropy, "least_squares": _g_squares, "linear": _g_line}.get(fake.family, _g_hinge)(
        verdict, fake
    )
    for pattern, names in INTENT.items():
        said = re.search(pattern, function.lower())
        if said and not verdict.wrong and not set(names) & set(verdict.name.split(", ")):
            verdict.wrong.append(
                "it is saturating: no gradient where D is sure of a fake; its name says non-saturating"
                if names == ("non_saturating",) and verdict.name == "minimax"
                else f"its name says {names[0]}, and it is not"
            )
            verdict.want = names[0]
    return verdict


def _g_cross_entropy(verdict: Verdict, fake: Term) -> None:
    up, target = fake.weight > 0, fake.target
    verdict.name, verdict.want = "non_saturating", "non_saturating"
    if up and same(target, 1):
        return
    if not up and same(target, 0):
        verdict.name = verdict.want = "minimax"
        verdict.notes.append(
            "its slope is 0 where D is sure of a fake; to train take non-saturating, F.softplus(-fake).mean()"
        )
    elif up and same(target, 0):
        verdict.name, verdict.whose = SHARED_D, "D"
        verdict.wrong.append(f"{GIVEN} on generated images: {HELPS['G']}")
    elif not up and same(target, 1):
        verdict.wrong.append(f"its sign is wrong: it is the negative of the non-saturating loss, so {HELPS['G']}")
    elif up and 0.5 < target < 1:
        verdict.smoothing = round(target, 6)
        verdict.wrong.append(
            f"G's target is {target:.4g}: smoothing belongs to D's target of real images alone, and G's target stays 1"
        )
    else:
        verdict.wrong.append(
            f"its target for fakes is {target:.4g}{'' if up else ', and its sign is wrong'}: {HELPS['G']}"
        )


def _g_squares(verdict: Verdict, fake: Term) -> None:
    verdict.name, verdict.want, verdict.scale = "least_squares", "least_squares", 2 * abs(fake.weight)
    if fake.weight < 0:
        verdict.wrong.append("its sign is wrong: it flees its target and has no minimum")
    elif same(fake.target, 0):
        verdict.name = verdict.want = "least_squares_pearson"
        verdict.notes.append(
            "right where D's targets are -1 and 1; where they are 0 and 1 it is D's own term, and helps D"
        )
    elif fake.target < 0:
        verdict.wrong.append(f"its target for fakes is {fake.target:.4g}, D's own: {HELPS['G']}")
    elif not same(fake.target, 1):
        verdict.notes.append(f"its target is {fake.target:.4g}")


def _g_line(verdict: Verdict, fake: Term) -> None:
    verdict.name, verdict.want = SHARED_G, "hinge"
    if fake.weight > 0:
        verdict.wrong.append(f"its sign is wrong: {HELPS['G']}")


def _g_hinge(verdict: Verdict, fake: Term) -> None:
    verdict.name, verdict.want = "hinge", "hinge"
    if raises(fake):
        verdict.wrong.append("G has no hinge: it drops the gradient of images past the margin")
    else:
        verdict.whose = "D"
        verdict.wrong.append(f"this is D's hinge on generated images: {HELPS['G']}")


def _difference(seen: Measured, player: str) -> Verdict:
    """A loss of r - f."""
    term = seen.difference
    if (
        term is None
        or term.family != "cross_entropy"
        or term.inner
        or not (same(term.target, 0) or same(term.target, 1))
    ):
        verdict = unknown(seen, player)
        if seen.joint == "difference":
            verdict.notes.append("it depends on r - f alone: relativistic in form")
            verdict.want = "relativistic"
            if term is not None and term.family == "least_squares" and (term.target > 0) != (player == "D"):
                verdict.wrong.append(f"its pairs are the wrong way round: {HELPS[player]}")
        return verdict
    verdict = Verdict("relativistic", abs(term.weight), want="relativistic")
    if seen.joint == "average":
        verdict.name, verdict.scale = "relativistic_average", abs(term.weight) / 2
        verdict.notes.append(
            "each logit against the mean of the other half: not the loss of pairs, `ptarmigan losses relativistic`"
        )
    if ((term.target > 0.5) == (term.weight > 0)) != (player == "D"):
        other = {"D": "G", "G": "D"}[player]
        verdict.whose = other if term.weight > 0 else ""
        verdict.wrong.append(
            f"this is {other}'s loss: {HELPS[player]}" if term.weight > 0 else f"its sign is wrong: {HELPS[player]}"
        )
    elif term.weight < 0:
        verdict.notes.append(
            f"it is the negative of the other player's loss: its gradient dies where {player} has most to learn"
        )
        verdict.name = "unknown"
    return verdict


def _targets(seen: Measured, player: str) -> Verdict:
    """A loss of D's answer and a target."""
    one, zero, minus = (seen.terms.get(f"output@{target}") for target in ("1", "0", "-1"))
    if one is None or zero is None:
        return unknown(seen, player)
    if (
        one.family == "linear"
        and not one.inner
        and minus is not None
        and zero.family == "flat"
        and same(minus.weight, -one.weight)
        and same(one.offset, zero.offset)
    ):
        verdict = Verdict("wasserstein", abs(one.weight), want="wasserstein")
        real = "-1 for real, 1 for fake" if one.weight > 0 else "1 for real, -1 for fake"
        verdict.notes.append(f"right with targets {real}; for G, the target of real")
        return verdict
    if one.family == "hinge" and minus is not None and minus.family == "hinge_down":
        verdict = _d(one, minus)
    elif zero.family == "flat" and one.family == "cross_entropy":
        verdict = _d(one, zero)
        verdict.wrong = [
            "the half (1 - y) log(1 - p) is missing: with target 0 it is constant, and D learns nothing from fakes"
        ]
    elif one == zero or (one.family == zero.family and same(one.weight, zero.weight) and same(one.target, zero.target)):
        verdict = _d(one, None)
        verdict.notes, verdict.wrong = [], ["it takes no notice of its target: D is told the same of both halves"]
    else:
        verdict = _d(one, zero)
    if verdict.wrong and verdict.wrong[0].startswith(SWAPPED):
        verdict.wrong = [f"{SWAPPED}: target 1 pushes down and target 0 up"]
    if player == "D":
        verdict.notes.append(
            "target 1 for real, 0 for fake; G calls it with the fakes and target 1"
            if minus is None or minus.family != "hinge_down" or one.family != "hinge"
            else "target 1 for real, -1 for fake; G's loss is -fake.mean()"
        )
    return verdict
