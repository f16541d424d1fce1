"""Stage 5 of signature -> call -> fit -> diagnose -> answer: combine the verdicts into one Identity, and its text.

Importing this module does not import torch: the parent process only prints what the child process found.
"""

from __future__ import annotations

import contextlib
import functools
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ptarmigan.core.types import UserError
from ptarmigan.handbook.entries import ENTRIES, LOSS_ENTRIES
from ptarmigan.handbook.identify.signature import (
    LossError,
    Reading,
    SeveralLosses,
    names_probabilities,
    parameters_of,
    player_of,
    readings,
)

if TYPE_CHECKING:
    from ptarmigan.handbook.identify.diagnose import Diagnosis, Verdict
    from ptarmigan.handbook.identify.fit import Measurement

WIDTH = 110
CODE_WITH_TARGET = "F.binary_cross_entropy_with_logits(output, target)"
CODE_OF_CLASSES = "F.cross_entropy(class_logits, labels)"
TITLES = {
    "minimax, non_saturating": "cross-entropy", "smoothing": "cross-entropy", "minimax": "cross-entropy, saturating",
    "non_saturating": "cross-entropy", "hinge, wasserstein": "linear loss", "least_squares": "least squares",
    "least_squares_pearson": "least squares", "hinge": "hinge", "wasserstein": "linear loss",
    "relativistic": "cross-entropy of pairs", "relativistic_average": "cross-entropy against the other half's mean",
    "auxiliary_classifier": "class cross-entropy", "twin_classifier": "twin's class cross-entropy",
    "discriminative_classifier": "class term of 2K classes", "reacgan": "D2D-CE",
}  # fmt: skip
SENTENCES = {  # of faults and notes
    # D's loss, or that of an output and a target
    "flat": "it does not depend on {what}",
    "target-first": "D's {half} output has no effect: cross-entropy takes D's output first, then the target",
    "exchanged": "output and target are exchanged: the loss takes D's output first, then the target",
    "target-ignored": "it ignores its target: D learns the same from both halves",
    "fake-half-missing": "its fake half is missing, as where y_true = 1 for both halves",
    "real-half-missing": "its real half is missing: D learns nothing from real images",
    "half-of-bce-missing": "the half (1 - y) log(1 - p) is missing: D learns nothing from fakes, whose target is 0",
    "mixed-halves": "its halves belong to different losses",
    "sigmoid-first": "a sigmoid is applied before a cross-entropy that applies its own: even a D that is certain and "
    "right pays {floor:.3f}",
    "sigmoid-before-score": "a sigmoid is applied first, so the gradient vanishes at both ends; pass D's raw score",
    "sign": "its sign is wrong, as in an objective that is to be maximised: {helps}",
    "sign-of-half": "one of its halves has the wrong sign",
    "no-minimum": "its sign is wrong: it moves away from its target and has no minimum",
    "same-targets": "both halves have the target {target:g}, so D does not learn to tell real from fake",
    "targets-swapped": "its targets are swapped: D learns that fakes are real; with an ordinary loss of G, {helps}",
    "direction": "it pushes {way}: {helps}",
    "pairs-reversed": "the order of its pairs is reversed: {helps}",
    "other-player": "this is {owner}'s loss{where}: {helps}",
    "one-target-for-both": "y_true = {a:.3g} for both halves weights real by {a:.3g} and fake by {b:.3g}: D's optimum, "
    "log({ratio:.3g} p/q), is unbounded; for label smoothing see `ptarmigan losses smoothing`",
    "uneven-halves": "its real half has the weight {real:.4g} and its fake half {fake:.4g}, which shifts D's optimum",
    "target-range": "a target of {target:.4g} is outside [0, 1]: the loss has no minimum",
    "smoothed-fakes": "labels are smoothed on {where} (real {real:.4g}, fake {fake:.4g}); keep the target of fakes at "
    "0, because otherwise D is flat where there are no data, and bad samples get no gradient",
    # G's loss
    "hinge-of-d": "this is D's hinge on generated images: {helps}",
    "hinge-in-g": "G's loss has no hinge: this one drops the gradient of images past the margin",
    "smoothed-in-g": "G's target is {target:.4g}; smooth only D's target of real images, and keep G's target at 1",
    "target-of-g": "its target for fakes is {target:.4g}{sign}: {helps}",
    "name": "it is named {promised}, but it computes {name}",
    # class terms
    "class-label": "K + y is D's label for a generated image; the label of a real image, and for G, is y",
    "class-input": "cross_entropy takes logits and gets {given}: it is at least {floor:.3f} ({classes} classes)",
    "nll-of-softmax": "nll_loss takes log_softmax, not softmax; apply log_softmax, or use cross_entropy on the logits",
    "nll-of-logits": "nll_loss takes log_softmax; on logits it has no minimum: use cross_entropy",
    "class-flat": "{parameter} has no effect",
    "class-sign": "the sign of its class term is wrong: both players minimise it and differ only in the source term",
    "twin-sign": "the sign of its twin term is wrong: D minimises CE(T), G maximises it",
    "class-labels": "it uses the labels of the other half; a generated image has the label requested from G",
    # the whole loss
    "sum": "it is {part}a sum over the batch, not a mean: twice the batch doubles the step and halves every penalty",
    "reduction": "it is neither a mean nor a sum over the batch, so its scale depends on the batch size",
    "mean-first": "it averages the logits before the loss; compute the loss of each image, then average",
    "no-gradient-in-d": "no gradient reaches D through its {role} output; detach G's images, not D's output",
    "no-gradient-in-g": "no gradient reaches G: something between it and the loss is detached",
    "not-differentiable": "it returns a plain number, which has no gradient",
    "g-not-detached": "G is not detached: D's backward pass leaves a gradient in G; use D(G(z).detach())",
    # notes
    "real-half": "this is the real half of D's loss{use}",
    "fake-half": "this is the fake half of D's loss; a G that minimises it helps D",
    "drift": "it adds {weight:.3g} r^2, which keeps D's outputs from drifting",
    "target": "its target is {target}",
    "margin": "its margin is {margin}, not 1",
    "real-term-in-g": "its term of real images has no gradient for G",
    "saturating": "its slope is 0 where D is sure of a fake; to train, use the non-saturating F.softplus(-fake).mean()",
    "target-0-in-g": "right if D's targets are -1 and 1; if they are 0 and 1, it is D's own term and helps D",
    "relativistic-form": "it depends only on r - f, so it has the form of a relativistic loss",
    "average": "it compares each logit with the mean of the other half; for pairs see `ptarmigan losses relativistic`",
    "negative-pairs": "it is the negative of the other player's loss: no gradient where {player} has most to learn",
    "targets-of-product": "right with targets {targets}; in G's loss, with the target of real",
    "targets-of-d": "use target 1 for real and {fake} for fake; for G, use {g}",
    "shape": "in {of} it is {shape}; the nearest known loss is {nearest}",
    "joint": "it depends on real and fake jointly, and not only on r - f",
    "class-unknown": "its term of {parameter} is not a known class loss",
    "contrast": "{detail}",
    "nll": "right on log-probabilities (log_softmax); on logits it has no minimum: use cross_entropy",
    "class-other": "its class term is {what}, not cross-entropy over the classes (F.cross_entropy)",
    "class-smoothed": "its class target is smoothed: {smoothing:.3g} is spread over all classes",
    "class-averaged": "its class term is averaged over the {classes} classes too: 1/{classes} of the cross-entropy",
    "class-weights": "its class terms have the weights {weights}",
    "coupled": "its value for a batch is not the mean or sum of its values for each image",
    "mixed-terms": "it is not the sum of a class term and a source term",
    "wrong-gradient": "autograd's gradient with respect to {role} is not the slope of the loss's values",
    "detach-not-seen": "D's outputs do not show whether G's images are detached: D(G(z).detach())",
    "random": "it is random: the numbers are averages of {draws} calls",
    "float32": "float32 is accurate up to logit {logit:.4g} of {of}; beyond it the loss {how}{remedy}",
    "both-swapped": "both players swap the labels of real and fake, so the pair is right",
    "guessed": "its parameters were taken as {roles}",
}


@dataclass(frozen=True)
class Identity:
    """What one callable computes for an image: `scale` times the handbook's loss `name`, plus `offset`."""

    function: str
    name: str  # or "unknown"; "A, B" if both share the formula; followed by " + " and the class term's name
    player: str  # D, G; "" for a class term, which both players share
    scale: float
    offset: float
    reduction: str  # none, mean, sum or other
    on: str  # logits or probabilities
    smoothing: float | None  # D's target for real images, where it is not 1
    class_weight: float | None  # of the class term, relative to D's outputs
    what: str  # in words
    equilibrium_value: float | None = None  # the loss where p = q, where that is one number
    faults: tuple[str, ...] = ()  # codes of what is wrong
    wrong: tuple[str, ...] = ()  # the same in words
    notes: tuple[str, ...] = ()
    code: str = ""  # the correct code, if something is wrong

    @property
    def right(self) -> bool:
        return not self.wrong

    def __str__(self) -> str:
        """The answer in words, at most 110 columns wide."""
        no_break = "\N{NO-BREAK SPACE}"
        facts = [self.what.replace(" + -", " - "), self.reduction, f"x {ratio(self.scale)}".replace(" ", no_break)]
        if abs(self.offset) > 1e-4:
            facts.append(f"offset {self.offset:.4g}".replace(" ", no_break))
        if self.equilibrium_value is not None:
            facts.append(f"{self.equilibrium_value:.4g} at p = q".replace(" ", no_break))
        start = f"{self.function}: {'WRONG: ' if self.wrong else ''}"
        end = "." if self.wrong else ": not a known loss." if self.name.startswith("unknown") else ": right."
        lines = _wrap(start + ", ".join(filter(None, facts)) + end, "")
        for text in self.wrong:
            lines += _wrap(text, "  wrong  ")
        for number, line in enumerate(self.code.splitlines()):
            lines.append(("  want   " if number == 0 else "         ") + line)
        for text in self.notes:
            lines += _wrap(text, "  note   ")
        return "\n".join(lines).replace(no_break, " ")


def _wrap(text: str, label: str) -> list[str]:
    text = text if text.endswith((".", ")")) or not label else text + "."
    return textwrap.wrap(
        text, WIDTH, initial_indent=label, subsequent_indent=" " * max(len(label), 4), break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip


def ratio(x: float) -> str:
    """A factor as people write it: 1/2, 2, 0.37."""
    fraction = Fraction(x).limit_denominator(32)
    return str(fraction) if abs(float(fraction) - x) < 1e-6 * abs(x) and x else f"{x:.4g}"


def identify_callable(function: Callable[..., Any], name: str, kind: str | None, on: str | None) -> list[Identity]:
    """The identity of a callable, or of each loss if it returns several.  Raises UserError."""
    try:
        return [_identify_one(function, name, kind, on)]
    except SeveralLosses as several:
        found = []
        for key in several.keys:

            def pick(*given: Any, key: Any = key, **named: Any) -> Any:
                return function(*given, **named)[key]

            functools.update_wrapper(pick, function)
            with contextlib.suppress(UserError):
                found.append(_identify_one(pick, f"{name}[{key!r}]", kind or player_of(str(key)), on, part=True))
        if not found:
            raise UserError(f"{name}: {several}", several.code) from None
        return found


def _identify_one(
    function: Callable[..., Any], name: str, kind: str | None, on: str | None, part: bool = False
) -> Identity:
    """Run all five stages on a callable that returns one loss, or on one `part` of what it returns.

    Raises UserError, or SeveralLosses if it returns more than one loss.
    """
    from ptarmigan.handbook.identify.call import LossFunction, borrowed_state  # imports torch, which takes seconds
    from ptarmigan.handbook.identify.diagnose import diagnose
    from ptarmigan.handbook.identify.fit import measure

    if not callable(function):
        raise UserError(f"{name}: {type(function).__name__} cannot be called", LossError.code)
    try:
        with borrowed_state():
            parameters = list(parameters_of(function))
            ways = readings(parameters, name, kind or player_of(name))
            domain = on or ("probabilities" if names_probabilities([*parameters, name]) else None)

            def identify(way: Reading) -> Identity:
                seen = measure(LossFunction(function, way), domain, part)
                return compose(seen, diagnose(seen, name, kind), name)

            return _most_likely(ways, identify)
    except SeveralLosses:
        raise
    except LossError as error:
        raise UserError(f"{name}: {error}", error.code) from None


def _most_likely(ways: list[Reading], identify: Callable[[Reading], Identity]) -> Identity:
    """The identity under the first reading whose loss is known and right, else known, else can be measured."""
    found: list[tuple[Reading, Identity]] = []
    failures: list[LossError] = []
    for way in ways:
        try:
            found.append((way, identify(way)))
        except SeveralLosses:
            raise
        except LossError as error:
            failures.append(error)
    exchange = {"output": "target", "target": "output"}
    roles = ways[0].roles
    if set(exchange) <= set(roles.values()) and not any(one.right and one.name != "unknown" for _, one in found):
        with contextlib.suppress(LossError):
            one = identify(Reading({name: exchange.get(role, role) for name, role in roles.items()}))
            if one.right and one.name != "unknown":
                return replace(one, faults=("exchanged",), wrong=(SENTENCES["exchanged"],), code=CODE_WITH_TARGET)
    if not found:
        raise failures[0]
    way, best = min(found, key=lambda pair: (pair[1].name.startswith("unknown"), not pair[1].right))
    if not way.guessed:
        return best
    guess = ", ".join(f"{parameter} = {role}" for parameter, role in way.roles.items())
    return replace(best, notes=(*best.notes, SENTENCES["guessed"].format(roles=guess)))


def compose(seen: Measurement, diagnosis: Diagnosis, function: str) -> Identity:
    """Combine the verdicts on the parts of a loss into one answer."""
    source, classes, player = diagnosis.source, diagnosis.classes, diagnosis.player
    names, titles = [], []
    if source:
        names.append(source.name)
        titles.append(f"{source.owner or player}'s {_title(source, seen.setup.on)}")
    class_weight = None
    if classes:
        first = ("unknown", "twin_classifier", "discriminative_classifier")
        chosen = min(classes, key=lambda part: first.index(part.name) if part.name in first else len(first))
        live = next((part.scale for part in classes if part.scale), None)
        class_weight = live / source.scale if live and source and source.scale else None
        names.append(chosen.name)
        title = _title(chosen, seen.setup.class_on)
        titles.append(title if class_weight is None else f"{ratio(class_weight)} x {title}")
    name = " + ".join(names)
    offset = 0.0 if "unknown" in name else seen.offset + (source.shift if source else 0.0)
    if seen.coupled == "other" and not diagnosis.faults:
        name = "unknown"
    faults = dict.fromkeys((code, SENTENCES[code].format(**facts)) for code, facts in diagnosis.faults)
    return Identity(
        function=function,
        name=name,
        player=player,
        scale=abs((source or classes[0]).scale),
        offset=offset,
        reduction=" and ".join(sorted(set(seen.reductions.values()))),
        on=seen.setup.on if source else seen.setup.class_on,
        smoothing=source.smoothing if source else None,
        class_weight=class_weight,
        what=" + ".join(titles),
        equilibrium_value=_equilibrium_value(seen, diagnosis),
        faults=tuple(code for code, _ in faults),
        wrong=tuple(sentence for _, sentence in faults),
        notes=tuple(dict.fromkeys(SENTENCES[code].format(**facts) for code, facts in diagnosis.notes)),
        code=_right_code(seen, diagnosis) if faults else "",
    )


def _title(part: Verdict, on: str) -> str:
    if part.name == "unknown":
        return f"{part.what or 'loss'} on {on}"
    smoothed = f", real target {part.smoothing:g}" if part.smoothing and part.name == "smoothing" else ""
    return f"{TITLES[part.name]} on {on} ({part.name}{smoothed})"


def _equilibrium_value(seen: Measurement, diagnosis: Diagnosis) -> float | None:
    """The handbook's value at p = q, at this scale, of a loss that has both halves."""
    source, player = diagnosis.source, diagnosis.player
    if source is None or source.faults or source.smoothing or diagnosis.classes or "output@1" in seen.terms:
        return None
    if len(seen.terms) < 2 and player == "D":
        return None
    if seen.loss.has_networks and abs(seen.offset) > 1e-4:  # a penalty, whose value depends on the stub networks
        return None
    entry = LOSS_ENTRIES.get(source.name.split(", ")[-1 if player == "D" else 0])
    value = next((value.value for value in entry.values if value.what == f"L_{player}"), None) if entry else None
    return None if value is None else source.scale * value + seen.offset


def _right_code(seen: Measurement, diagnosis: Diagnosis) -> str:
    source, player = diagnosis.source, diagnosis.player
    entries = [part.entry for part in diagnosis.classes]
    if source is None:
        return CODE_OF_CLASSES if entries[0] == "auxiliary_classifier" else handbook_code(entries[0], "D")
    if "output@1" in seen.terms and source.entry in ("non_saturating", "smoothing"):
        return CODE_WITH_TARGET
    if not entries:
        return handbook_code(source.entry or "non_saturating", player)
    class_entry = next((entry for entry in entries if entry != "auxiliary_classifier"), "auxiliary_classifier")
    with_class = handbook_code(class_entry, player)
    if source.entry in ("", "non_saturating", "minimax"):
        return with_class
    return f"{handbook_code(source.entry, player)}\n# and the class term as in: {with_class.splitlines()[-1].strip()}"


def handbook_code(name: str, player: str) -> str:
    """The player's lines in the handbook's code of a loss."""
    lines = ENTRIES[name].code.split("\n") if name in ENTRIES else []
    start = next((i for i, line in enumerate(lines) if line.startswith(f"L_{player} =")), None)
    if start is None:
        return ""
    end = next((i for i in range(start + 1, len(lines)) if not lines[i].startswith(" ")), len(lines))
    return "\n".join(lines[start:end])


def compare_players(found: list[Identity]) -> list[Identity]:
    """Revise answers by what only a pair shows: labels that both players swap, or G's target equal to D's for fakes."""
    of_d = [one for one in found if one.player == "D"]
    swapped = {one.name for one in of_d if one.faults == ("targets-swapped",)}
    swapped &= {one.name for one in found if one.player == "G" and one.faults[:1] == ("other-player",)}
    targets_are_0_and_1 = any(one.name == "least_squares" and one.right for one in of_d)
    not_seen, answers = SENTENCES["detach-not-seen"], list[Identity]()
    for one in found:
        if one.name in swapped and len(one.faults) == 1:
            one = replace(one, faults=(), wrong=(), notes=(SENTENCES["both-swapped"],), code="")
        elif one.player == "G" and one.name == "least_squares_pearson" and targets_are_0_and_1 and one.right:
            where, helps = " on generated images, whose target is 0", "a G that minimises it helps D"
            wrong = SENTENCES["other-player"].format(owner="D", where=where, helps=helps)
            right_code = handbook_code("least_squares", "G")
            one = replace(one, faults=("other-player",), wrong=(wrong,), notes=(), code=right_code)
        if any(not_seen in other.notes for other in answers):  # once is enough
            one = replace(one, notes=tuple(note for note in one.notes if note != not_seen))
        answers.append(one)
    return answers
