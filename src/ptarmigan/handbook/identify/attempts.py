"""Run the stages on one loss: on each player and choice that the source shows, and each reading of the parameters."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ptarmigan.core.types import UserError
from ptarmigan.handbook.identify.answer import AUTOENCODER, OTHER, Identity, compose, other
from ptarmigan.handbook.identify.call import LossFunction, borrowed_state
from ptarmigan.handbook.identify.code import Code, code_of
from ptarmigan.handbook.identify.diagnose import diagnose
from ptarmigan.handbook.identify.families import REMEDIES, SHARED_D
from ptarmigan.handbook.identify.measure import Measurement, measure
from ptarmigan.handbook.identify.names import (
    harmless_role,
    is_loss_name,
    is_other_loss,
    names_probabilities,
    network_of,
    player_of,
    side_of,
    words_of,
)
from ptarmigan.handbook.identify.sentences import SENTENCES
from ptarmigan.handbook.identify.signature import (
    SCORES,
    LossError,
    NotAdversarial,
    Reading,
    SeveralLosses,
    Stops,
    listed,
    parameters_of,
    readings,
)

OF_STATEMENTS = {
    "reaches-g",
    "bounded-score",
    "penalty-points",
    "penalty-of-loss",
    "penalty-dead",
    "penalty-subtracted",
}  # faults


def identify_callable(function: Callable[..., Any], name: str, kind: str | None, on: str | None) -> list[Identity]:
    """The identity of a callable of this process, or of each loss if it returns several.  Raises UserError."""
    if not callable(function):
        raise UserError(f"{name}: {type(function).__name__} cannot be called", LossError.code)
    return identify_code(code_of(function, name), kind, on)


def identify_code(
    code: Code, kind: str | None, on: str | None, failures: list[UserError] | None = None
) -> list[Identity]:
    """The identities of a loss: for each player, if a flag or an optional argument says whose it is.

    Adds to `failures` why some of the choices could not be judged; raises UserError if none could.
    """
    found, failures = list[Identity](), [] if failures is None else failures
    for word, fixed, settings in code.choices():
        chosen = replace(code, name=f"{code.name} ({word!r})" if word else code.name, fixed=fixed, settings=settings)
        for label, function, also, player in _ways(chosen):
            try:
                found += _identify_several(replace(chosen, name=label, function=function), also, kind or player, on)
            except UserError as error:
                failures.append(error)
    if not found:
        raise failures.pop(0)
    alike = {(replace(one, function=""), one.function.count("[")) for one in found}
    if len(alike) == 1 and len(found) > 1 and not code.name.count("("):
        return [replace(found[0], function=code.name)]  # the choice makes no difference
    return found


def _ways(code: Code) -> Iterator[tuple[str, Callable[..., Any], tuple[str, ...], str | None]]:
    """(name, function, optional parameters to give, player) for each player and each choice that the source shows."""
    function, uses = code.function, code.uses
    try:
        parameters = inspect.signature(getattr(function, "forward", function)).parameters.values()
    except (TypeError, ValueError):
        parameters = inspect.Signature().parameters.values()
    sided = tuple(p.name for p in parameters if p.default is None and side_of(p.name))
    for p in parameters:
        flags = {"disc", "discriminator", "d", "dis", "critic"}, {"generator", "gen", "g"}
        asked = [player for player, words in zip("dg", flags, strict=True) if words & set(words_of(p.name))]
        if asked and p.name in uses.flags and p.name not in uses.called and len(words_of(p.name)) > 1:
            for value in (True, False):
                bound = functools.partial(function, **{p.name: value})
                yield f"{code.name} ({p.name}={value})", bound, (), "d" if value == (asked[0] == "d") else "g"
            return
        if p.default is p.empty and (words := uses.words.get(p.name)):
            for word in dict.fromkeys(words):
                whose = player_of(word) if player_of(word) in ("d", "g") else None
                bound = functools.partial(function, **{p.name: word})
                yield f"{code.name} ({p.name}={word!r})", bound, sided if whose == "d" else (), whose
            return
        if p.default is None and p.name in uses.optional | uses.flags and side_of(p.name):
            yield code.name, function, (p.name,), player_of(code.name) or "d"
            if player_of(code.name) != "d":
                yield f"{code.name} ({p.name}=None)", function, (), "g"
            return
    yield code.name, function, (), None


def _identify_several(code: Code, also: tuple[str, ...], kind: str | None, on: str | None) -> list[Identity]:
    name, function = code.name, code.function
    try:
        return [_identify_one(code, also, kind, on, part=bool(code.inline))]
    except SeveralLosses as several:
        found: list[Identity] = []
        keys: list[Any] = []
        player = kind or code.kind or player_of(name.rsplit(".")[-1])

        def picked(keys: list[Any]) -> Code:
            def pick(*given: Any, **named: Any) -> Any:
                out = function(*given, **named)
                return functools.reduce(lambda a, b: a + b, [out[key] for key in keys])

            return replace(code, function=functools.update_wrapper(pick, function))

        for place, key in enumerate(several.keys):
            called = code.uses.returned[place] if place < len(code.uses.returned) else str(key)
            part = replace(picked([key]), name=f"{name}[{key!r}]")
            with contextlib.suppress(UserError):
                is_half = bool(side_of(called)) and any(one.player == "D" and len(one.sides) > 1 for one in found)
                whose = kind or (player_of(called) if called else None) or ("d" if is_half else player)
                one = _identify_one(part, also, whose, on, part=True)
                is_output = bool(one.wrong and called) and not is_loss_name(called)
                is_output |= one.reduction == "none" and "wasserstein" in one.name and "loss" not in called.lower()
                if is_output or {"no-gradient-in-d", "no-gradient-in-g"} & {*one.faults}:
                    continue  # an output of D, or a detached value, is no loss
                if (is_other_loss(called, []) and len(called) > 2) or "flat" in one.faults:
                    one = other(part.name)
                found.append(one)
                keys.append(key)
        halves = {one.sides: key for key, one in zip(keys, found, strict=True) if len(one.sides) == 1}
        if player == "d" and len(halves) == 2 and not any(len(one.sides) > 1 for one in found):
            return [_identify_one(picked([*halves.values()]), also, "d", on)]
        if not found:
            raise UserError(f"{name}: {several}", several.code) from None
        return found


def _identify_one(code: Code, also: tuple[str, ...], kind: str | None, on: str | None, part: bool = False) -> Identity:
    """Run all stages on a callable that returns one loss, or on one `part` of what it returns.

    Raises UserError, or SeveralLosses if it returns more than one loss.
    """
    try:
        with borrowed_state():
            return _judged(code, also, kind, on, part)
    except LossError as error:
        raise error if isinstance(error, SeveralLosses) else UserError(f"{code.name}: {error}", error.code) from None


def _judged(code: Code, also: tuple[str, ...], kind: str | None, on: str | None, part: bool) -> Identity:
    name = code.name
    last = re.sub(r" ?\(.*?\)", "", name).rsplit(".")[-1]
    parameters = [*parameters_of(code.function, also), *(one for one in code.outer if one not in code.fixed)]
    if not parameters:
        raise LossError("it has no required parameter; a loss takes D's outputs")
    is_penalty = "grad(" in code.uses.text or ("penalty" in last and "loss" not in last)
    asks = any(network_of(called) == "D" for called in code.uses.called) and not is_penalty
    is_other = not kind and not code.inline and not asks and is_other_loss(last, parameters)
    if code.uses.is_autoencoder or is_other:
        return other(name, AUTOENCODER if code.uses.is_autoencoder else OTHER)
    player = kind or code.kind or player_of(last)
    domain = on or code.on
    if not domain and not code.inline and names_probabilities([*parameters, name]):
        domain = "probabilities"

    judge = functools.partial(_judge, also=also, part=part, last=last, parameters=parameters, player=player, kind=kind)
    try:
        return judge(code, domain)
    except NotAdversarial as reason:
        if code.inline or (asks and "penalty" not in str(reason)):
            raise
        _check_outputs(readings(parameters, last, player, code.uses), code)
        return other(name)
    except Stops as stop:
        return _stopped(code, str(stop), "G" if player == "g" else "D", domain, judge)
    except SeveralLosses:
        raise
    except LossError as first:
        error = first
    for form in dict.fromkeys((code.form, "")):
        try:
            return judge(replace(code, form=form, tolerant=True), domain)
        except SeveralLosses:
            raise
        except LossError:
            continue
    raise error


def _judge(
    code: Code, domain: str | None, *, also: tuple[str, ...], part: bool, last: str, parameters: list[str],
    player: str | None, kind: str | None
) -> Identity:  # fmt: skip
    """The answer under the most likely reading of the parameters."""

    def identify(way: Reading) -> Identity:
        seen = measure(LossFunction(code, code.function, way, also), domain, player, part)
        one = compose(seen, diagnose(seen, last, player if player in ("d", "g") else kind), code.name)
        _check_guesses(one, way, code, parameters)
        if (absent := seen.loss.trace.criteria) and not way.asks_d and player not in ("d", "g"):
            raise LossError(f"it needs {', '.join(absent)}, which is not in the file")
        if one.wrong:
            _check_evidence(seen, one, code.absent)
        return one

    return _most_likely(readings(parameters, last, player, code.uses), identify)


def _check_outputs(ways: list[Reading], code: Code) -> None:
    """Raises LossError where a loss may take outputs of D that its names do not show."""
    if re.search(r"\['\w*(score|logit|pred|real|fake)", code.uses.text):
        raise LossError("it takes D's outputs from a dict: give them as parameters")
    if not any({"D", "real", "fake", "output"} & {*way.roles.values()} for way in ways):
        raise LossError("no name shows which of its parameters is D's output", "signature-unclear")


def _check_guesses(one: Identity, way: Reading, code: Code, parameters: list[str]) -> None:
    """Raises LossError where a guess, and not the user's code, may be the cause of a fault."""
    is_unknown = way.chosen and one.name.startswith("unknown")
    if way.guessed and ("flat" in one.faults or is_unknown or (one.wrong and (code.inline or way.chosen))):
        raise LossError(f"cannot tell which of {listed(parameters)} is D's output", "signature-unclear")
    if one.name.startswith("unknown") and "target-ignored" in one.faults:
        raise LossError("no loss of D's output and a target is known that has these values")
    if code.inline and "mixed-halves" in one.faults:
        raise LossError("its halves go backward in different branches", "signature-unclear")


def _check_evidence(seen: Measurement, one: Identity, absent: frozenset[str]) -> None:
    """Raises LossError where what is not known may be the cause of a fault."""
    faults, trace = {*one.faults} - OF_STATEMENTS, seen.loss.trace
    taken = [name for name, role in seen.loss.reading.roles.items() if role in ("D", "target", *SCORES)]
    taken += [*trace.criteria, *(name for name in trace.fixed if not harmless_role(name))]
    if rests := [name for name in taken if re.split(r"(?<!^self)\.|\(", name)[0] in absent]:
        raise LossError(f"it needs {rests[0]}, from a module that is not installed")
    if faults and (names := [name for name in trace.lost if name] or [*trace.guesses]):
        raise LossError(f"it needs the value of {', '.join(names)}")
    if faults and seen.loss.sides:
        raise LossError("cannot tell surely which images are real", "signature-unclear")
    if faults and seen.setup.truth:
        raise LossError("it depends on a condition that is not known here")
    if seen.setup.on == "probabilities" and not seen.told and faults & {"sigmoid-first", "sigmoid-before-score"}:
        raise LossError("cannot tell whether D returns logits or probabilities")  # the sigmoid is the probe's own


def _stopped(
    code: Code, fault: str, player: str, domain: str | None, judge: Callable[[Code, str | None], Identity]
) -> Identity:
    """The answer on a loss that PyTorch stops: what it would be if the fault were mended, where that can be seen."""
    what = "a cross-entropy" + " that PyTorch stops" * (fault != "target-stops")
    known = replace(other(code.name), name=SHARED_D, player=player, scale=1.0, what=what)
    with contextlib.suppress(LossError):
        known = judge(replace(code, form="", on=None), "probabilities" if fault == "logits-in-bce" else domain)
    return replace(known, turned=None, faults=(fault,), wrong=(SENTENCES[fault],), notes=(), code=REMEDIES[fault])


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
    if not found:
        raise failures[0]
    way, best = min(found, key=lambda pair: (pair[1].name.startswith("unknown"), not pair[1].right))
    if not way.guessed:
        return best
    guess = ", ".join(f"{parameter} = {role}" for parameter, role in way.roles.items())
    return replace(best, notes=(*best.notes, SENTENCES["guessed"].format(roles=guess)))
