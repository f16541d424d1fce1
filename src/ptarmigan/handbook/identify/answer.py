"""One callable's identity: which loss it computes, for which player, and what is wrong with it, in words."""

from __future__ import annotations

import contextlib
import functools
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from ptarmigan.core.types import UserError
from ptarmigan.handbook.entries import ENTRIES, LOSS_ENTRIES, Value
from ptarmigan.handbook.identify import diagnose
from ptarmigan.handbook.identify.call import Failed, Loss, Several, borrowed
from ptarmigan.handbook.identify.diagnose import Verdict
from ptarmigan.handbook.identify.fit import Measured, measure, working
from ptarmigan.handbook.identify.signature import Reading, parameters_of, player_of, readings, says_probabilities

WIDTH = 110
UNSEEN = "not to be seen from D's answers: whether G's images were detached, D(G(z).detach())"


@dataclass(frozen=True)
class Identity:
    """What one callable computes: `scale` times the loss `name` of losses.py, plus `offset`, for an image."""

    function: str
    name: str  # "unknown"; several where one formula is several losses', and + the class term's
    player: str  # D, G; "" of a class term, which both players share
    scale: float
    offset: float
    reduction: str  # none, mean or sum
    on: str  # logits or probabilities
    smoothing: float | None  # D's target for real images, where it is not 1
    class_weight: float | None  # of the class term
    what: str  # in words
    even: float | None = None  # its value at the equilibrium p = q, where that is one number
    wrong: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    code: str = ""  # the right lines, where something is wrong

    @property
    def right(self) -> bool:
        return not self.wrong

    def __str__(self) -> str:
        """The answer in words, at most 110 columns wide."""
        how = [
            self.what.replace(" + -", " - "),
            *([self.reduction] if self.reduction else []),
            f"x\N{NO-BREAK SPACE}{ratio(self.scale)}",
        ]
        if abs(self.offset) > 1e-4:
            how.append(f"offset\N{NO-BREAK SPACE}{self.offset:.4g}")
        if self.even is not None:
            how.append(f"{self.even:.4g}\N{NO-BREAK SPACE}at p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}q")
        end = "." if self.wrong else ": no loss known here." if self.name.startswith("unknown") else ": right."
        start = f"{self.function}: {'WRONG: ' if self.wrong else ''}"
        lines = _wrap(start + ", ".join(how) + end, "")
        for text in self.wrong:
            lines += _wrap(text, "  wrong  ")
        for number, line in enumerate(self.code.splitlines()):
            lines.append(("  want   " if number == 0 else "         ") + line)
        for text in self.notes:
            lines += _wrap(text, "  note   ")
        return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def _wrap(text: str, label: str) -> list[str]:
    text = text if text.endswith((".", "!", ")")) or not label else text + "."
    return textwrap.wrap(
        text, WIDTH, initial_indent=label, subsequent_indent=" " * max(len(label), 4), break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip


def ratio(x: float) -> str:
    """A factor as people write it: 1/2, 2, .37."""
    fraction = Fraction(x).limit_denominator(32)
    return str(fraction) if abs(float(fraction) - x) < 1e-6 * abs(x) and x else f"{x:.4g}"


def code_of(name: str, player: str) -> str:
    """The right line or lines from the handbook."""
    lines = ENTRIES[name].code.split("\n") if name in ENTRIES else []
    start = next((i for i, line in enumerate(lines) if line.startswith(f"L_{player} =")), None)
    if start is None:
        return ""
    end = next((i for i in range(start + 1, len(lines)) if not lines[i].startswith(" ")), len(lines))
    return "\n".join(lines[start:end])


def name_of(function: Any) -> str:
    """A callable's own name; that of what a partial stands for."""
    while not hasattr(function, "__name__") and hasattr(function, "func"):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def identify_each(function: Callable[..., Any], name: str, kind: str | None, on: str | None) -> list[Identity]:
    """The identity of a callable in this process, or those of what it returns, where that is several losses.

    Raises UserError.
    """
    try:
        return [identify_one(function, name, kind, on)]
    except Several as several:
        found = []
        for key in several.keys:

            def pick(*given: Any, key: Any = key, **named: Any) -> Any:
                return function(*given, **named)[key]

            functools.update_wrapper(pick, function)
            with contextlib.suppress(UserError, Several):
                found.append(identify_one(pick, f"{name}[{key!r}]", kind or player_of(str(key)), on, part=True))
        if not found:
            raise UserError(f"{name}: {several}") from None
        return found


def identify_one(
    function: Callable[..., Any], name: str, kind: str | None, on: str | None, part: bool = False
) -> Identity:
    """The identity of a callable that returns one loss.  Raises UserError, or Several where it returns more.

    A `part` of what a function returns may well depend on one half alone.
    """
    if not callable(function):
        raise UserError(f"{name}: {type(function).__name__} cannot be called")
    hint = player_of(name)
    try:
        with borrowed():
            parameters = list(parameters_of(function))
            ways = readings(parameters, name, kind or hint)
            on = on or ("probabilities" if says_probabilities([*parameters, name]) else None)
            return _best(function, name, ways, kind, hint, on, part)
    except Several:
        raise
    except (UserError, Failed) as error:
        raise UserError(f"{name}: {error}") from None


def _best(
    function: Callable[..., Any],
    name: str,
    ways: list[Reading],
    kind: str | None,
    hint: str | None,
    on: str | None,
    part: bool,
) -> Identity:
    """The likeliest reading of the names; of readings that were guessed, one in which the loss is right."""
    found: list[Identity] = []
    failure: Failed | None = None
    for way in ways:
        try:
            found.append(_read(Loss(function, way), name, kind, hint, on, part))
        except Several:
            raise
        except Failed as failed:
            failure = failure or failed
    exchanged = _exchanged(ways[0])
    if exchanged is not None and not any(one.right and one.name != "unknown" for one in found):
        with contextlib.suppress(Failed):
            turned = _read(Loss(function, exchanged), name, kind, hint, on, part)
            if turned.right and turned.name != "unknown":
                wrong = "its output and target are exchanged: the loss takes D's answer first, then the target"
                return replace(turned, wrong=(wrong,), code="F.binary_cross_entropy_with_logits(output, target)")
    if not found:
        assert failure is not None
        raise failure
    best = min(found, key=lambda one: (one.name.startswith("unknown"), not one.right))
    way = ways[[id(one) for one in found].index(id(best))] if len(found) == len(ways) else ways[0]
    if way.guessed:
        taken = ", ".join(f"{parameter} for {role}" for parameter, role in way.roles.items())
        best = replace(best, notes=(*best.notes, f"it was read with {taken}"))
    return best


def _exchanged(way: Reading) -> Reading | None:
    turn = {"output": "target", "target": "output"}
    if set(turn) <= set(way.roles.values()):
        return Reading({name: turn.get(role, role) for name, role in way.roles.items()})
    return None


def _read(loss: Loss, name: str, kind: str | None, hint: str | None, on: str | None, part: bool) -> Identity:
    """One reading, on logits or on probabilities, whichever makes sense of it; raises Failed."""
    seen: list[Measured] = []
    failure: Failed | None = None
    for setup in working(loss, on):
        try:
            seen.append(measure(loss, setup))
        except Failed as failed:
            failure = failure or failed
        if seen and seen[-1].known:
            break
    if not seen:
        assert failure is not None
        raise failure
    best = next((one for one in seen if one.known), seen[0])
    if part:
        for role in [key for key, term in best.terms.items() if term and term.family == "flat" and len(best.terms) > 1]:
            del best.terms[role], best.reductions[role]
    declared = kind if kind in ("d", "g") else hint if hint in ("d", "g") else None
    player = declared.upper() if declared else diagnose.player_by(best) if loss.scores else ""
    return _compose(loss, best, name, player)


def _compose(loss: Loss, seen: Measured, name: str, player: str) -> Identity:
    """The verdicts on the parts as one answer."""
    parts = []
    source = diagnose.source(seen, player, name) if seen.terms else None
    if source is not None:
        parts.append(source)
    owner = {role: parameter for parameter, role in loss.reading.roles.items()}
    classes = [
        diagnose.class_part(role, term, seen, player, owner.get(role, "class logits"))
        for role, term in seen.classes.items()
    ]
    live = [part for part in classes if part.scale]
    parts += classes
    scale = parts[0].scale
    titles = [_title(source, seen.setup.on, player)] if source else []
    names = [source.name] if source else []
    class_weight = None
    if classes:
        kinds = [part.name for part in classes]
        best = next((k for k in ("unknown", "twin_classifier", "discriminative_classifier") if k in kinds), kinds[0])
        names.append(best)
        class_weight = live[0].scale / source.scale if live and source and source.scale else None
        chosen = classes[kinds.index(best)]
        title = _title(chosen, seen.setup.class_on, "")
        titles.append(f"{ratio(class_weight)} x {title}" if class_weight is not None else title)
    reductions = set(seen.reductions.values())
    reduction = reductions.pop() if len(reductions) == 1 else " and ".join(sorted(reductions))
    wrong, notes = _whole(seen, player)
    for part in parts:
        wrong, notes = wrong + part.wrong, notes + part.notes
    weights = sorted({round(part.scale, 6) for part in classes})
    if len(weights) > 1 and all(part.name == "auxiliary_classifier" and not part.wrong for part in classes):
        notes.append(f"its class terms weigh {' and '.join(map(ratio, weights))}")
    notes += _float32(seen)
    named = " + ".join(names)
    offset = 0.0 if "unknown" in named else seen.offset + (source.shift if source else 0.0)
    if seen.coupled and not wrong:
        named = "unknown" if seen.coupled == "other" else named
    return Identity(
        name, named, player, abs(scale), offset, reduction,
        seen.setup.on if source else seen.setup.class_on, source.smoothing if source else None, class_weight,
        " + ".join(titles), _even(source, classes, seen, player), 
        tuple(dict.fromkeys(wrong)), tuple(dict.fromkeys(notes)),
        _code(source, classes, player, "output@1" in seen.terms) if wrong else "",
    )  # fmt: skip


def _even(source: Verdict | None, classes: list[Verdict], seen: Measured, player: str) -> float | None:
    """The handbook's value at p = q, at this scale, of both halves."""
    halves = len(seen.terms) > 1 or player == "G"
    if source is None or source.wrong or classes or not halves or "output@1" in seen.terms or source.smoothing:
        return None
    if seen.networks and abs(seen.offset) > 1e-4:  # a penalty, of a D that stands in for another
        return None
    values = {entry.what: entry.value for entry in handbook(source.name.split(", ")[-1 if player == "D" else 0])}
    value = values.get(f"L_{player}")
    return None if value is None else source.scale * value + seen.offset


def handbook(name: str) -> tuple[Value, ...]:
    return LOSS_ENTRIES[name].values if name in LOSS_ENTRIES else ()


def _title(part: Verdict, on: str, player: str) -> str:
    whose = f"{part.whose or player}'s " if player else ""
    if part.name == "unknown":
        return f"{whose}{part.what or 'loss'} on {on}"
    smoothed = f", real target {part.smoothing:g}" if part.smoothing and part.name == "smoothing" else ""
    return f"{whose}{diagnose.TITLES[part.name]} on {on} ({part.name}{smoothed})"


def _whole(seen: Measured, player: str) -> tuple[list[str], list[str]]:
    """What is wrong with the loss as a whole: reduction, gradients, coupling."""
    wrong, notes = [], []
    if "sum" in seen.reductions.values():
        part = "" if set(seen.reductions.values()) == {"sum"} else "in part "
        wrong.append(
            f"it is {part}a sum over the batch, not a mean: twice the batch, twice the step and half of every penalty"
        )
    if "other" in seen.reductions.values():
        wrong.append("it is neither mean nor sum: it changes with the batch size in another way")
    if seen.coupled == "mean" and seen.known:
        wrong.append("it averages the logits before the loss: take the loss of each image, then the mean")
    elif seen.coupled:
        notes.append("its value for a batch is not made of those of its images alone")
    if seen.mixed:
        notes.append("its class term and its source term are not a sum")
    for role in seen.silent if player == "D" and seen.networks else seen.detached:
        if player != "G":
            wrong.append(
                f"no gradient reaches D through its {role} answer: detach G's images, D(G(z).detach()), not D's answer"
            )
        elif role not in ("real", "class_real"):
            wrong.append("no gradient reaches G: something between it and the loss is detached")
    for role in seen.crooked:
        notes.append(f"autograd's gradient in {role} is not that of the value")
    if seen.plain:
        wrong.append("it returns a plain number: there is nothing to differentiate")
    if player == "D" and seen.to_g is not None and abs(seen.to_g) > 1e-12:
        wrong.append("G is not detached: D's backward pass leaves a gradient in G; use D(G(z).detach())")
    if player == "D" and not seen.networks and "fake" in seen.terms and not seen.setup.array:
        notes.append(UNSEEN)
    if seen.random:
        notes.append(f"it draws at random in each call; these are averages of {seen.setup.draws} draws")
    return wrong, notes


def _float32(seen: Measured) -> list[str]:
    """Where float32 gives out first, of the terms that it does in."""
    if not seen.float32:
        return []
    key, (logit, how) = min(seen.float32.items(), key=lambda item: abs(item[1][0]))
    of = key if "@" not in key else f"the output at target {key.split('@')[1]}"
    cure = "" if seen.setup.on == "logits" else ": give it logits and take the sigmoid out"
    return [f"float32 is true up to logit {logit:.4g} of {of}; past it the loss {how}{cure}"]


def _code(source: Verdict | None, classes: list[Verdict], player: str, targets: bool) -> str:
    if targets and source is not None and source.want in ("non_saturating", "smoothing"):
        return "F.binary_cross_entropy_with_logits(output, target)"
    if source is None:
        want = classes[0].want
        return "F.cross_entropy(class_logits, labels)" if want == "auxiliary_classifier" else code_of(want, "D")
    if not classes:
        return code_of(source.want or "non_saturating", player)
    kind = next((part.want for part in classes if part.want != "auxiliary_classifier"), "auxiliary_classifier")
    if source.want in ("", "non_saturating", "minimax"):
        return code_of(kind, player)
    line = code_of(source.want, player)
    return f"{line}\n# and the class term as in: {code_of(kind, player).splitlines()[-1].strip()}"
