"""Stage 2 of source -> signature -> call -> measure -> diagnose -> answer: which role each parameter of a loss has.

The roles are these.  real, fake and output are D's outputs.  target is the target of output; real_target and
fake_target are those of real and fake.
class, class_real and class_fake are class logits, with labels, labels_real and labels_fake.  Where a network D is
asked, all but D and G are unknown, and
what reaches D decides.  A clear name or a clear use in the source decides; an unclear parameter is tried in each free
role.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

from ptarmigan.core.types import UserError
from ptarmigan.handbook.identify.names import (
    CRITERIA,
    HARMLESS,
    IMAGES,
    LABELS,
    OTHER_LOSSES,
    OUTPUTS,
    network_of,
    side_of,
    sort_of,
    words_of,
)
from ptarmigan.handbook.identify.uses import Uses

SCORES = ("real", "fake", "output")
CLASSES = ("class", "class_real", "class_fake")
SIDED = ("score", "labels", "target")  # sorts of which real and fake have one each
LABEL_ROLES = ("labels", "labels_real", "labels_fake")
NUMBERS = ("weight", "zero", "one", "off", "device")  # get a harmless value
FIXED = (*HARMLESS, "criterion", "net", "classes", "device", "width", "size", "image_real", "image_fake")
MOST_UNCLEAR = 4  # parameters that are tried in each role
UNLIKE_D = {*CRITERIA, *OTHER_LOSSES, "network", "encoder", "enc", "extractor", "augment", "aug", "transform", "e",
            "noise", "mixing", "variable", "classifier", "inception", "sample", "to", "activation", "act", "entropy",
            "crossentropy", "hinge", "wasserstein", "squared", "error", "mae", "ce"}  # fmt: skip


class LossError(UserError):
    """The callable is not a loss that can be identified; the caller adds its name to the message."""

    code = "loss-failed"


class Stops(LossError):
    """PyTorch stops the loss, and the user's own code is the cause; `code` is that of the fault."""


class NotAdversarial(LossError):
    """No output of D reaches the value."""


class SeveralLosses(LossError):
    """The callable returns several things, under these keys."""

    def __init__(self, out: tuple[Any, ...] | list[Any] | dict[Any, Any]) -> None:
        super().__init__(f"it returns a {type(out).__name__} of {len(out)}, and none of them could be identified")
        self.keys = list(out) if isinstance(out, dict) else list(range(len(out)))


@dataclass(frozen=True)
class Reading:
    """One way to read a signature: {parameter: role} for each parameter that gets a value."""

    roles: dict[str, str]
    guessed: bool = False  # the names do not show which parameter is which
    chosen: bool = False  # nor which of them are D's outputs: a loss that is right is a proof, a fault is none
    asks_d: bool = False  # it asks a network D; else it takes D's outputs

    def renamed(self, roles: dict[str, str]) -> Reading:
        """The same with some roles renamed."""
        return replace(self, roles={name: roles.get(role, role) for name, role in self.roles.items()})


def parameters_of(function: Callable[..., Any], also: tuple[str, ...] = ()) -> dict[str, bool]:
    """{required parameter, and those `also` given: whether it is keyword-only}; raises LossError if there is none."""
    try:
        signature = inspect.signature(getattr(function, "forward", function))  # nn.Module.__call__ takes anything
    except (TypeError, ValueError):
        raise LossError("its signature cannot be read; wrap it in a function of real and fake") from None
    named = [p for p in signature.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    given = [p for p in named if p.default is p.empty or p.name in also] or [p for p in named if p.default is None]
    return {p.name: p.kind is p.KEYWORD_ONLY or p.default is not p.empty for p in given}


def readings(parameters: list[str], function: str, kind: str | None, uses: Uses) -> list[Reading]:
    """The ways to read a signature, the most likely first; `kind` was declared or is suggested by the name.

    Raises LossError if a parameter's role cannot be determined.
    """
    fixed = _networks(parameters, uses)
    if "D" in fixed.values() or any(network_of(name.rsplit(".")[-1], True) == "D" for name in uses.called):
        known = {name: sort_of(name) for name in parameters if name not in fixed}
        numbers = {name: sort for name, sort in known.items() if sort in ("device", "size", "width", "classes")}
        return [Reading({name: fixed.get(name) or numbers.get(name, "unknown") for name in parameters}, asks_d=True)]
    sorts = _sorts([name for name in parameters if name not in fixed], kind, uses)
    pictures = [name for name, sort in sorts.items() if sort == "score" and is_picture(name)]
    if len(pictures) < [*sorts.values()].count("score"):
        fixed |= {name: f"image_{side_of(name) or 'real'}" for name in pictures}
        sorts = {name: sort for name, sort in sorts.items() if name not in fixed}
    has_class = "class" in sorts.values()
    one_score = [*sorts.values()].count("score") == 1 and not has_class
    has_target = bool({"labels", "target", "is_real"} & {*sorts.values()})
    unclear: list[str] = []
    for name, sort in sorts.items():
        side = "real" if "true" in words_of(name) else side_of(name)
        if sort != "score":
            fixed[name] = _role_beside(name, sort, kind, has_class, one_score)
        elif side and not (one_score and has_target):
            fixed[name] = side
        else:
            unclear.append(name)
    if alike := _alike(fixed):
        return _guesses(parameters, fixed, alike)
    if kind == "class" and not has_class and {"target", "is_real"} & {*fixed.values()} and len(unclear) == 1:
        return [Reading({name: fixed.get(name, "class") for name in parameters}).renamed({"target": "labels"})]
    return _complete(parameters, fixed, unclear, function, kind)


def _role_beside(name: str, sort: str, kind: str | None, has_class: bool, one_score: bool) -> str:
    """The role of a parameter that is no output of D."""
    words, side = {*words_of(name)}, side_of(name)
    if sort == "class":
        return f"class_{side}" if side and not (side == "fake" and kind == "class") else "class"
    if sort == "labels" and has_class:
        return f"labels_{side}" if side else "labels"
    if sort in ("labels", "target"):
        side = side or ("real" if words & {"ones", "valid"} else "fake" if "zeros" in words else None)
        return f"{side}_target" if side and not one_score else "target"
    return sort


def is_picture(name: str) -> bool:
    return bool((IMAGES - {"x"}) & {*words_of(name)}) and not {"decision", "logits"} & {*words_of(name)}


def _sorts(names: list[str], kind: str | None, uses: Uses) -> dict[str, str]:
    """What each parameter beside the networks stands for, by its name and by what the source does with it."""
    sorts = {name: sort_of(name) for name in names}
    has_fake = any(side_of(name) == "fake" for name in names)
    has_other = any("pred" in words_of(name) or side_of(name) == "real" for name in names)
    for name, sort in sorts.items():
        if name in uses.sizes and sort == "score":
            sorts[name] = "size"
        elif (
            name in uses.flags - uses.optional and len(sorts) > 1 and sort in SIDED and not OUTPUTS & {*words_of(name)}
        ):
            sorts[name] = "is_real"
        elif sort == "target" and "true" in words_of(name) and has_fake and not has_other:
            sorts[name] = "score"
    if kind in ("d", "g") and not {"labels", "target", "is_real"} & {*sorts.values()}:
        sorts |= {name: "score" for name, sort in sorts.items() if sort == "class" and LABELS & {*words_of(name)}}
    sides = {side_of(name) for name in sorts}
    has_outputs = bool({"score", "class"} & {*sorts.values()})
    if not has_outputs and (sides >= {"real", "fake"} or ("fake" in sides and kind == "g")):
        sorts |= {name: "score" for name, sort in sorts.items() if sort in SIDED and side_of(name)}
    return sorts


def _alike(fixed: dict[str, str]) -> list[str]:
    """The parameters that have a role which only one can have; raises LossError if D is missing."""
    for role, what in (("G", "a generator"), ("latents", "latents")):
        if role in fixed.values():
            raise LossError(f"it takes {what} but no discriminator, so it is not a loss", "signature-unclear")
    for role in fixed.values():
        alike = [name for name in fixed if fixed[name] == role and role not in FIXED]
        if len(alike) > 1:
            if role not in ("real", "fake"):
                text = f"{listed(alike)} look like {role}; bind what is not D's output with functools.partial"
                raise LossError(text, "signature-unclear")
            return alike
    return []


def _guesses(parameters: list[str], fixed: dict[str, str], alike: list[str]) -> list[Reading]:
    """A reading for each of the parameters that look alike: this one is D's output, and the others are images."""
    role = fixed[alike[0]]
    return [Reading({name: fixed.get(name, "config") for name in parameters}
                    | {name: role if name == one else f"image_{role}" for name in alike}, guessed=True, chosen=True)
            for one in alike]  # fmt: skip


def _complete(
    parameters: list[str], fixed: dict[str, str], unclear: list[str], function: str, kind: str | None
) -> list[Reading]:
    """The readings in which the unclear parameters take the roles that are still free."""
    taken = set(fixed.values())
    free = [role for role in ("real", "fake") if role not in taken]

    def reading(*roles: str, guessed: bool = False) -> Reading:
        every = fixed | dict(zip(unclear, roles, strict=True))
        return Reading({name: every[name] for name in parameters}, guessed)

    if not unclear:
        return [reading()]
    if len(unclear) == 1 and taken & {"target", "is_real"} and len(free) == 2:
        if "target" not in taken or kind in ("d", "g", "bce"):
            return [reading("output")]
        return [reading("output"), reading("class").renamed({"target": "labels"})]
    if len(unclear) == 1 and "labels" in taken and not taken & {*CLASSES, "D"}:
        return [reading("class")]
    if len(unclear) == 1 and len(free) == 2:
        side = "real" if {"D", "G"} <= taken else side_of(function)
        sides = [side] if side else ["fake", "real"] if kind == "d" else ["fake"]
        return [reading(half, guessed=len(sides) > 1 or kind is None) for half in sides]
    if free and len(free) < len(unclear) <= MOST_UNCLEAR:
        every = dict.fromkeys(parameters, "config") | fixed
        return [
            Reading(every | dict(zip(some, free, strict=True)), True, True) for some in permutations(unclear, len(free))
        ]
    if len(unclear) != len(free):
        raise LossError(
            f"cannot tell what {listed(unclear)} {'is' if len(unclear) == 1 else 'are'}; name the parameters real, "
            "fake, target, class_logits, labels, D, G or z, or bind the others with functools.partial",
            "signature-unclear",
        )
    ways = [reading(*way, guessed=len(unclear) > 1) for way in permutations(free)]
    if len(unclear) == 2 and not taken and kind not in ("d", "g"):
        pairs = permutations(("class", "labels") if kind == "class" else ("output", "target"))
        more = [reading(*pair, guessed=True) for pair in pairs]
        ways = more if kind else ways + more
    return ways


def _networks(parameters: list[str], uses: Uses) -> dict[str, str]:
    """The parameters that are called: D, G, criteria and other networks.

    Where the source is not known, or hands them on, their names decide; a lone lower-case d or g is then a logit.
    """
    found: dict[str, str] = {}
    for name in parameters:
        words = {*words_of(name.removeprefix("self."))}
        network, calls = network_of(name), uses.called.get(name, [])
        is_sure = name in ("D", "netD", "discriminator", "net_D", "disc_net", "self.D")
        is_sure |= network == "G" and name.lower() in ("g", "netg", "generator", "gen")
        is_sure |= "discriminator" in name.lower() and network_of(name, strict=True) == "D"
        is_sure |= name.startswith("self.") and bool(network_of(name, strict=True))
        if network and (calls or (is_sure and len(parameters) > 1)):
            found[name] = network
        elif calls:
            is_criterion = words & CRITERIA and any(len(call.args) + len(call.keywords) > 1 for call in calls)
            found[name] = "criterion" if is_criterion or words & OTHER_LOSSES else "net"
    if "D" not in found.values():
        one = [name for name, role in found.items() if role == "net" and not UNLIKE_D & {*words_of(name)}]
        found |= {one[0]: "D"} if len(one) == 1 else {}
    context = any(sort_of(name) == "latents" or is_picture(name) for name in parameters)
    if "D" not in found.values() and (context or "G" in found.values()):
        found |= {name: "D" for name in parameters if network_of(name) == "D" and len(words_of(name)) == 1}
    return found if "D" in found.values() or uses.called else {}


def listed(names: list[str]) -> str:
    *most, last = map(repr, names)
    return f"{', '.join(most)} and {last}" if most else last


def describe_error(error: BaseException, function: Any = None) -> str:
    """An exception of the user's code in one line: its type, its text, and the line of their file or `function`."""
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    where, trace = "", error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        place = frame.f_globals.get("__ptarmigan_place__")
        if place or (code is not None and frame.f_code.co_filename == code.co_filename):
            where = f" ({place(trace.tb_lineno) if place else f'line {trace.tb_lineno}'})"
        trace = trace.tb_next
    text = str(error).replace("ptarmigan.handbook.identify.unseen.Unknown", "a value that is not known here")
    text = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return f"{type(error).__name__}: {text[:160]}{where}" if text else f"{type(error).__name__}{where}"
