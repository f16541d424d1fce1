"""The verdict on a player's terms of D's outputs: their family, scale and targets, and what is wrong with them.

A finding is a code and the values to insert into its sentence in sentences.SENTENCES.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import log

import numpy as np

from ptarmigan.handbook.identify.families import FAMILIES, OF_SHAPE, SHARED_D, SHARED_G, WORDS
from ptarmigan.handbook.identify.terms import Term, close

HELPS = {"D": "a D that minimises it helps G", "G": "a G that minimises it helps D"}
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


def verdict_on_d(real: Term | None, fake: Term | None, drawn: dict[str, tuple[float, float]] | None = None) -> Verdict:
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
        verdict.note("uneven-halves", real=a, fake=b)


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
    flips = any(low < 1e-3 and high > 1 - 1e-3 for low, high in drawn.values())
    if flips and a - b > 0.5:
        verdict.note("flipped", share=max(1 - a, b))
    elif b_smoothed and a - b > 0.5:
        verdict.note("smoothed-fakes", fake=b)
    elif b_smoothed:
        verdict.fault("targets-close", real=a, fake=b)


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


def verdict_on_g(real: Term | None, fake: Term | None, function: str) -> Verdict:
    """G's loss from its terms of real and of generated images; a single term is taken as that of generated ones."""
    if fake is None:
        real, fake = None, real
    assert fake is not None
    if fake.shape == "flat":
        return Verdict(faults=[("flat", {"what": "G's images"})], entry="non_saturating")
    verdict = Verdict(scale=abs(fake.weight))
    if real is not None and real.shape != "flat":
        whole = verdict_on_d(real, fake)
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
        verdict.note("smoothed-in-g", target=target)
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
