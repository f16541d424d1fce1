"""Stage 6 of source -> ... -> answer: combine the verdicts into one Identity, in words.

Importing this module does not import torch: the parent process only prints what the child process found.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ptarmigan.core.types import UserError
from ptarmigan.handbook.entries import ENTRIES, LOSS_ENTRIES
from ptarmigan.handbook.identify.signature import (
    LossError,
    Reading,
    SeveralLosses,
    is_other_loss,
    names_probabilities,
    parameters_of,
    player_of,
    readings,
    side_of,
    words_of,
)
from ptarmigan.handbook.identify.source import Code, code_of

if TYPE_CHECKING:
    from ptarmigan.handbook.identify.diagnose import Diagnosis, Verdict
    from ptarmigan.handbook.identify.fit import Measurement

WIDTH = 110
CODE_WITH_TARGET = "F.binary_cross_entropy_with_logits(output, target)"
CODE_OF_CLASSES = "F.cross_entropy(class_logits, labels)"
CODE_ON_PROBABILITIES = {
    CODE_WITH_TARGET: "F.binary_cross_entropy(output, target)",
    "D": "L_D = -torch.log(real).mean() - torch.log(1 - fake).mean()",
    "G": "L_G = -torch.log(fake).mean()",
}
TITLES = {  # of each name; {player} is discriminator or generator
    "minimax, non_saturating": "the {player}'s cross-entropy loss", "minimax": "the saturating {player} loss",
    "smoothing": "the {player}'s cross-entropy loss, real target {smoothing:.3g}",
    "non_saturating": "the non-saturating {player} loss", "least_squares": "the least-squares {player} loss",
    "hinge, wasserstein": "the {player} loss of hinge and Wasserstein GANs", "hinge": "the hinge {player} loss",
    "least_squares_pearson": "the least-squares {player} loss of targets -1 and 1",
    "wasserstein": "the Wasserstein {player} loss", "relativistic": "the relativistic {player} loss",
    "relativistic_average": "the relativistic average {player} loss",
    "auxiliary_classifier": "the class cross-entropy", "twin_classifier": "the twin's class cross-entropy",
    "discriminative_classifier": "the class term of 2K classes", "reacgan": "the class term D2D-CE",
}  # fmt: skip
OTHER = "not an adversarial loss"
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
    "smoothed-fakes": "labels are smoothed on {where} (real {real:.4g}, fake {fake:.4g}); do not smooth the target of "
    "fakes, because otherwise D is flat where there are no data, and bad samples get no gradient",
    "concave-hinge": "its hinge is flat where D is wrong and has no minimum: use relu(1 - real) and relu(1 + fake)",
    "leaky-hinge": "its hinge leaks: past the margin the slope is {leak:.3g}, so D's outputs grow without limit",
    "symmetric": "it is the same when real and fake are exchanged, so D is not told which is which",
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
    "max": "it is the largest loss in the batch, not the mean: the other images get no gradient",
    "penalty-dead": "its penalty teaches D nothing: autograd.grad needs create_graph=True",
    "penalty-subtracted": "its penalty is subtracted: it rewards a large gradient of D",
    # notes
    "g-not-detached": "G is not detached: right if G's gradients are zeroed before its step; use D(G(z).detach())",
    "half-of-average": "it is the {half} half alone; the {other} half, which has a gradient for G too, is missing",
    "flag-of-g": "G calls it with the target of real images",
    "given": "held fixed: {given}",
    "more": "it has more than D's outputs: the terms of {names} are held fixed and not judged",
    "scales": "it takes outputs of D at several scales, and was judged on a list of one",
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
    "both-swapped": "right as a pair: both players exchange the labels of real and fake",
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
    sides: tuple[str, ...] = ()  # the outputs of D that it depends on
    turned: Identity | None = None  # the same if both players exchange the labels, where that is better

    @property
    def right(self) -> bool:
        return not self.wrong

    def __str__(self) -> str:
        """The answer in words, at most 110 columns wide."""
        state = "WRONG: " if self.wrong else "" if self.name.startswith("unknown") else "Right: "
        lines = _wrap(f"{self.function}: {state}{self.what.replace(' + -', ' - ')}.", "")
        facts = [self.reduction, f"x {ratio(self.scale)}"]
        if abs(self.offset) > 1e-4:
            facts.append(f"offset {self.offset:.4g}")
        if self.equilibrium_value is not None:
            facts.append(f"{self.equilibrium_value:.4g} at p = q")
        if not self.name.startswith("unknown"):
            lines += _wrap(f"{self.name}: {', '.join(facts)}", "  loss   ")
        for text in self.wrong:
            lines += _wrap(text, "  wrong  ")
        for number, line in enumerate(self.code.splitlines()):
            lines.append(("  want   " if number == 0 else "         ") + line)
        for text in self.notes:
            lines += _wrap(text, "  note   ")
        return "\n".join(lines)


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
    """The identity of a callable of this process, or of each loss if it returns several.  Raises UserError."""
    if not callable(function):
        raise UserError(f"{name}: {type(function).__name__} cannot be called", LossError.code)
    return identify_code(code_of(function, name), kind, on)


def identify_code(code: Code, kind: str | None, on: str | None) -> list[Identity]:
    """The identities of a loss: for each player, if a flag or an optional argument says whose it is."""
    found, failures = list[Identity](), list[UserError]()
    for word, fixed, settings in code.choices():
        chosen = replace(code, name=f"{code.name} ({word!r})" if word else code.name, fixed=fixed, settings=settings)
        for label, function, also, player in _ways(chosen):
            try:
                found += _identify_several(replace(chosen, name=label, function=function), also, kind or player, on)
            except UserError as error:
                failures.append(error)
    if not found:
        raise failures[0]
    return found


def _ways(code: Code) -> Iterator[tuple[str, Callable[..., Any], tuple[str, ...], str | None]]:
    """(name, function, optional parameters to give, player) for each player and each choice that the source shows."""
    function, uses = code.function, code.uses
    try:
        parameters = inspect.signature(getattr(function, "forward", function)).parameters.values()
    except (TypeError, ValueError):
        parameters = inspect.Signature().parameters.values()
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
                yield f"{code.name} ({p.name}={word!r})", functools.partial(function, **{p.name: word}), (), whose
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
        return [_identify_one(code, also, kind, on)]
    except SeveralLosses as several:
        found, keys = [], []
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
                whose = kind or (player_of(called) if called else None) or player
                one = _identify_one(part, also, whose, on, part=True)
                if (is_other_loss(called, []) and len(called) > 2) or "flat" in one.faults:
                    one = _other(part.name)
                found.append(one)
                keys.append(key)
        halves = [key for key, one in zip(keys, found, strict=True) if len(one.sides) == 1]
        if player == "d" and len(halves) == 2 and not any(len(one.sides) > 1 for one in found):
            return [_identify_one(picked(halves), also, "d", on)]
        if not found:
            raise UserError(f"{name}: {several}", several.code) from None
        return found


def _other(name: str) -> Identity:
    return Identity(name, "unknown", "", 0.0, 0.0, "mean", "logits", None, None, OTHER)


def _identify_one(code: Code, also: tuple[str, ...], kind: str | None, on: str | None, part: bool = False) -> Identity:
    """Run all stages on a callable that returns one loss, or on one `part` of what it returns.

    Raises UserError, or SeveralLosses if it returns more than one loss.
    """
    from ptarmigan.handbook.identify.call import LossFunction, borrowed_state  # imports torch, which takes seconds
    from ptarmigan.handbook.identify.diagnose import diagnose
    from ptarmigan.handbook.identify.fit import measure

    name = code.name
    last = name.split(" (")[0].split("(")[0].rsplit(".")[-1] if "." in name else name
    try:
        with borrowed_state():
            outer = [one for one in code.outer if one not in code.fixed]
            parameters = [*parameters_of(code.function, also), *outer]
            if not parameters:
                raise LossError("it has no required parameter; a loss takes D's outputs")
            player = kind or code.kind or player_of(last)
            if not kind and is_other_loss(last, parameters):
                return _other(name)
            ways = readings(parameters, last, player, code.uses)
            domain = on or code.on or ("probabilities" if names_probabilities([*parameters, name]) else None)

            def identify(way: Reading) -> Identity:
                seen = measure(LossFunction(code, code.function, way, also), domain, player, part)
                one = compose(seen, diagnose(seen, last, player if player in ("d", "g") else kind), name)
                if way.guessed and "flat" in one.faults:
                    raise LossError(f"cannot tell which of {', '.join(parameters)} is D's output", "signature-unclear")
                return one

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


def compose(seen: Measurement, diagnosis: Diagnosis, function: str, is_turned: bool = False) -> Identity:
    """Combine the verdicts on the parts of a loss into one answer."""
    source, classes, player = diagnosis.source, diagnosis.classes, diagnosis.player
    on = seen.setup.on if source else seen.setup.class_on
    names, titles = [], []
    if source:
        names.append(source.name)
        titles.append(_title(source, player))
    class_weight = None
    if classes:
        first = ("unknown", "twin_classifier", "discriminative_classifier")
        chosen = min(classes, key=lambda part: first.index(part.name) if part.name in first else len(first))
        live = next((part.scale for part in classes if part.scale), None)
        class_weight = round(live / source.scale, 9) if live and source and source.scale else None
        names.append(chosen.name)
        title = _title(chosen, player)
        titles.append(title if class_weight in (None, 1) else f"{ratio(class_weight)} x {title}")
    name = " + ".join(names)
    offset = 0.0 if "unknown" in name else seen.offset + (source.shift if source else 0.0)
    if seen.coupled == "other" and not diagnosis.faults:
        name = "unknown"
    found = diagnosis.faults
    if any(code == "flat" for code, _ in found) and (
        "grad(" in seen.loss.code.uses.text or seen.gradients.penalty or seen.loss.extras
    ):
        return _other(function)
    if is_turned:  # targets as the user wrote them
        found = [(code, {k: 1 - v if k in ("target", "real", "fake") and isinstance(v, float) else v
                         for k, v in facts.items()}) for code, facts in found]  # fmt: skip
    faults = dict.fromkeys((code, SENTENCES[code].format(**facts)) for code, facts in found)
    what = f"{' + '.join(titles)}, on {on}"
    if name.startswith("unknown"):
        what = f"{titles[0] if titles and 'unknown' not in titles[0] else 'not a loss known here'}, on {on}"
    turned = compose(seen, diagnosis.turned, function, True) if diagnosis.turned else None
    return Identity(
        function=function,
        name=name,
        player=player,
        scale=abs((source or classes[0]).scale),
        offset=offset,
        reduction=" and ".join(sorted(set(seen.reductions.values()))),
        on=on,
        smoothing=source.smoothing if source else None,
        class_weight=class_weight,
        what=what,
        equilibrium_value=_equilibrium_value(seen, diagnosis),
        faults=tuple(code for code, _ in faults),
        wrong=tuple(sentence for _, sentence in faults),
        notes=tuple(dict.fromkeys(SENTENCES[code].format(**facts) for code, facts in diagnosis.notes)),
        code=_right_code(seen, diagnosis) if faults and not is_turned else "",
        sides=tuple(key for key, term in seen.terms.items() if term is None or term.family != "flat"),
        turned=turned,
    )


def _title(part: Verdict, player: str) -> str:
    if part.name == "unknown":
        return f"not a loss known here{': ' if part.what else ''}{part.what}"
    whose = {"D": "discriminator", "G": "generator"}.get(part.owner or player, "")
    return TITLES[part.name].format(player=whose, smoothing=part.smoothing or 0)


def _equilibrium_value(seen: Measurement, diagnosis: Diagnosis) -> float | None:
    """The handbook's value at p = q, at this scale, of a loss that has both halves."""
    source, player = diagnosis.source, diagnosis.player
    if source is None or source.faults or source.smoothing or diagnosis.classes or "output@1" in seen.terms:
        return None
    if len(seen.terms) < 2 and player == "D":
        return None
    if source.shift or ((seen.loss.has_networks or seen.loss.extras) and abs(seen.offset) > 1e-4):
        return None  # drift, or a penalty, whose value depends on the stub networks
    entry = LOSS_ENTRIES.get(source.name.split(", ")[-1 if player == "D" else 0])
    value = next((value.value for value in entry.values if value.what == f"L_{player}"), None) if entry else None
    return None if value is None else round(source.scale * value + seen.offset, 9)


def _right_code(seen: Measurement, diagnosis: Diagnosis) -> str:
    """The correct code, on probabilities where the user's is."""
    code, faults = _code_on_logits(seen, diagnosis), {code for code, _ in diagnosis.faults}
    cross_entropy = diagnosis.source is not None and diagnosis.source.entry in ("", "non_saturating", "minimax")
    if seen.setup.on == "logits" or diagnosis.classes or not cross_entropy or faults & {"sigmoid-first", "class-input"}:
        return code
    return CODE_ON_PROBABILITIES.get(code, CODE_ON_PROBABILITIES[diagnosis.player or "D"])


def _code_on_logits(seen: Measurement, diagnosis: Diagnosis) -> str:
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
    """Revise answers by what only a pair shows: labels that both exchange, or G's target equal to D's for fakes."""
    of_d = [one for one in found if one.player == "D"]
    of_g = [one for one in found if one.player == "G"]
    targets_are_0_and_1 = any(one.name == "least_squares" and one.right for one in of_d)
    not_seen, answers = SENTENCES["detach-not-seen"], list[Identity]()

    def families(one: Identity) -> set[str]:
        found = {*one.name.split(" + ")[0].split(", "), *(one.turned.name.split(", ") if one.turned else ())}
        squares, entropy = {"least_squares", "least_squares_pearson"}, {"minimax", "non_saturating", "smoothing"}
        return found | next((family for family in (squares, entropy) if family & found), set())

    def partner(one: Identity) -> bool:
        """Whether a loss of the other player exchanges the labels, too."""
        others = of_g if one.player == "D" else of_d
        squares = "least_squares_pearson"  # of G: its target 0 lies on either side
        return any((other.turned or (other.player == "G" and other.name == squares)) and families(other) & families(one)
                   for other in others)  # fmt: skip

    turned_squares = any(one.turned and "least_squares" in one.turned.name for one in of_d)
    for one in found:
        if one.turned and partner(one):
            one = replace(one.turned, notes=(SENTENCES["both-swapped"], *one.turned.notes))
        elif one.player == "G" and one.name == "least_squares_pearson" and one.right and turned_squares:
            one = replace(one, notes=(SENTENCES["both-swapped"],))
        elif one.player == "G" and one.name == "least_squares_pearson" and targets_are_0_and_1 and one.right:
            where, helps = " on generated images, whose target is 0", "a G that minimises it helps D"
            wrong = SENTENCES["other-player"].format(owner="D", where=where, helps=helps)
            right_code = handbook_code("least_squares", "G")
            one = replace(one, faults=("other-player",), wrong=(wrong,), notes=(), code=right_code)
        if any(not_seen in other.notes for other in answers):  # once is enough
            one = replace(one, notes=tuple(note for note in one.notes if note != not_seen))
        answers.append(one)
    return answers
