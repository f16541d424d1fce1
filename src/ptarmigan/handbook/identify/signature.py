"""Stage 1 of signature -> call -> fit -> diagnose -> answer: which role each parameter of the user's loss has.

The roles: real, fake and output are D's outputs; target belongs to output, real_target and fake_target to the halves;
class, class_real, class_fake and twin_fake are class logits, with labels, labels_real and labels_fake; embedding goes
with proxy (one per image) or proxies (one per class); D, G and latents are networks and their input; the roles in FIXED
get a fixed value.  A clear name decides the role; a parameter with an unclear name is tried in each free role.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from ptarmigan.core.types import UserError

SCORES = ("real", "fake", "output")
CLASSES = ("class", "class_real", "class_fake", "twin_fake", "embedding")
LABEL_ROLES = ("labels", "labels_real", "labels_fake")
FIXED = ("weight", "classes", "criterion", "device", "width", "size")

OUTPUTS = {
    "pred", "preds", "prediction", "predictions", "predicted", "logit", "logits", "output", "outputs", "out", "prob",
    "probs", "probability", "probabilities", "score", "scores", "validity", "hat", "yhat", "critic", "disc", "input",
    "inputs", "sigmoid",
}  # fmt: skip
LABELS = {"label", "labels", "lbl", "lbls", "y", "digits", "onehot", "hot", "lab"}
CLASS_WORDS = {"class", "classes", "cls", "clf", "aux", "auxiliary", "category", "c", "classifier"}
TARGETS = {"target", "targets", "true", "tgt", "gt", "ones", "zeros", "valid"}
WEIGHTS = {"lam", "lambda", "lmbda", "weight", "coef", "coeff"}
EMBEDDINGS = {"embedding", "embeddings", "embed", "proxy", "proxies"}
WHOLE_NAMES = {  # without underscores, in lower case
    "classes": ("k", "numclasses", "nclasses", "nbclasses", "nclass"),
    "criterion": ("criterion", "lossfn"),
    "device": ("device",),
    "width": ("zdim", "latentdim", "nz", "noisedim"),
    "size": ("batchsize", "numimages", "bs", "nimages"),
    "latents": ("z", "noise", "latent", "latents", "znoise", "noises"),
}
NETWORKS = {"D": {"d", "netd", "discriminator", "disc", "critic", "dnet"}, "G": {"g", "netg", "generator", "gen"}}
IMAGES = {"x", "image", "images", "img", "imgs", "data", "batch"}
PLAYERS = {
    "d": {"d", "disc", "discriminator", "critic", "dis", "lossd"},
    "g": {"g", "gen", "generator", "lossg"},
    "bce": {"bce", "binary", "criterion"},
    "class": {"class", "cls", "classification", "classifier", "aux", "auxiliary", "categorical"},
}
PROBABILITIES = {"prob", "probs", "probability", "probabilities"}


class LossError(UserError):
    """The callable is not a loss that can be identified; the caller adds its name to the message."""

    code = "loss-failed"


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


def parameters_of(function: Callable[..., Any]) -> dict[str, bool]:
    """{required parameter: whether it is keyword-only}; raises LossError if the signature is hidden or empty."""
    try:
        signature = inspect.signature(getattr(function, "forward", function))  # nn.Module.__call__ takes anything
    except (TypeError, ValueError):
        raise LossError("its signature cannot be read; wrap it in a function of real and fake") from None
    named = [p for p in signature.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    given = [p for p in named if p.default is p.empty] or [p for p in named if p.default is None]
    if not given:
        raise LossError("it has no required parameter; a loss takes D's outputs")
    return {p.name: p.kind is p.KEYWORD_ONLY for p in given}


def player_of(name: str) -> str | None:
    """The kind of loss that a function's name suggests: d, g, bce or class; None where it suggests none or several."""
    words = words_of(name)
    players = [kind for word in words for kind in ("d", "g") if word in PLAYERS[kind]]
    if players:
        return players[0]  # g_negative_of_d is G's
    found = [kind for kind, known in PLAYERS.items() if known & set(words)]
    return found[0] if len(found) == 1 else None


def names_probabilities(names: list[str]) -> bool:
    """Whether one of the names denotes a probability, and not its logarithm."""
    return any(PROBABILITIES & set(words_of(name)) and "log" not in words_of(name) for name in names)


def readings(parameters: list[str], function: str, kind: str | None) -> list[Reading]:
    """The ways to read a signature, the most likely first; `kind` was declared or is suggested by the name.

    Raises LossError if a parameter's role cannot be determined.
    """
    fixed = _networks(parameters)
    networks = bool(fixed)
    sorts = {name: _sort(name) for name in parameters if name not in fixed}
    has_class = any(sort in ("class", "twin_fake", "embedding") for sort in sorts.values())
    has_target = any(sort in ("labels", "target", "is_real") for sort in sorts.values())
    one_score = list(sorts.values()).count("score") == 1 and not has_class
    unclear: list[str] = []
    for name, sort in sorts.items():
        side = _side(name)
        if sort == "class":
            fixed[name] = f"class_{side}" if side and not (side == "fake" and kind == "class") else "class"
        elif sort == "labels" and (has_class or networks):
            fixed[name] = f"labels_{side}" if side else "labels"
        elif sort in ("labels", "target"):
            words = set(words_of(name))
            side = side or ("real" if words & {"ones", "valid"} else "fake" if "zeros" in words else None)
            fixed[name] = f"{side}_target" if side and not one_score else "target"
        elif sort != "score":
            fixed[name] = sort
        elif networks and not side and IMAGES & set(words_of(name)):
            fixed[name] = "real"
        elif side and not (one_score and has_target):
            fixed[name] = side
        else:
            unclear.append(name)
    for role in fixed.values():
        alike = [name for name in fixed if fixed[name] == role and role not in ("latents", *FIXED)]
        if len(alike) > 1:
            raise LossError(
                f"{_listed(alike)} both look like {role}; bind what is not D's output with functools.partial",
                "signature-unclear",
            )
    if kind == "class" and not has_class and set(fixed.values()) & {"target", "is_real"} and len(unclear) == 1:
        return [Reading({n: {"target": "labels"}.get(fixed.get(n, ""), fixed.get(n, "class")) for n in parameters})]
    if "latents" in fixed.values() and "D" not in fixed.values():
        raise LossError("it takes latents but no discriminator, so it is not a loss", "signature-unclear")
    return _complete(parameters, fixed, unclear, function, kind)


def _complete(
    parameters: list[str], fixed: dict[str, str], unclear: list[str], function: str, kind: str | None
) -> list[Reading]:
    """The readings in which the unclear parameters take the roles that are still free."""
    taken = set(fixed.values())

    def reading(*roles: str, guessed: bool = False) -> Reading:
        every = fixed | dict(zip(unclear, roles, strict=True))
        return Reading({name: every[name] for name in parameters}, guessed)

    free = [role for role in ("real", "fake") if role not in taken]
    if not unclear:
        return [reading()]
    if len(unclear) == 1 and taken & {"target", "is_real"} and len(free) == 2:
        if "target" not in taken or kind in ("d", "g", "bce"):
            return [reading("output")]
        as_class = {name: "labels" if role == "target" else role for name, role in reading("class").roles.items()}
        return [reading("output"), Reading(as_class)]
    if len(unclear) == 1 and "labels" in taken and not taken & set(CLASSES):
        return [reading("class")]
    if len(unclear) == 1 and len(free) == 2:
        side = _side(function)
        sides = [side] if side else ["fake", "real"] if kind == "d" else ["fake"]
        return [reading(half, guessed=len(sides) > 1 or kind is None) for half in sides]
    if len(unclear) != len(free):
        raise LossError(
            f"cannot tell what {_listed(unclear)} {'is' if len(unclear) == 1 else 'are'}; name the parameters real, "
            "fake, target, class_logits, labels, D, G or z, or bind the others with functools.partial",
            "signature-unclear",
        )
    ways = [reading(*way, guessed=len(unclear) > 1) for way in permutations(free)]
    if len(unclear) == 2 and not taken and kind not in ("d", "g"):
        pairs = permutations(("class", "labels") if kind == "class" else ("output", "target"))
        more = [reading(*pair, guessed=True) for pair in pairs]
        ways = more if kind else ways + more
    return ways


def _networks(parameters: list[str]) -> dict[str, str]:
    """The parameters that are D and G themselves.  A lone lower-case d or g is taken for a logit."""
    found = {
        name: network
        for name in parameters
        for network, known in NETWORKS.items()
        if name.lower().replace("_", "") in known
    }
    sure = (
        set(found.values()) == {"D", "G"}
        or any(_sort(name) == "latents" or (IMAGES - {"x"}) & set(words_of(name)) for name in parameters)
        or any(name in ("D", "netD", "discriminator", "net_D") for name in found)
    )
    return found if sure and "D" in found.values() and len(parameters) > 1 else {}


def _sort(name: str) -> str:
    """What a name stands for, without its side: a role, or class, labels, target or score."""
    words = set(words_of(name))
    whole = name.lower().replace("_", "")
    if {"is", "real"} <= words or whole.startswith(("isreal", "realorfake")):
        return "is_real"
    if words & WEIGHTS:
        return "weight"
    for role, names in WHOLE_NAMES.items():
        if whole in names:
            return role
    if words & EMBEDDINGS:
        return next((word for word in ("proxy", "proxies") if word in words), "embedding")
    if "twin" in words or name.lower().strip("_") in ("t_fake", "fake_t"):
        return "twin_fake"
    is_output, is_label, is_class = bool(words & OUTPUTS), bool(words & LABELS), bool(words & CLASS_WORDS)
    if words & TARGETS:
        return "labels" if is_class else "target"
    if words & {"logprob", "logprobs"}:
        return "class"
    if is_label and not is_output:
        return "labels"
    return "class" if is_class or (is_label and words & {"label", "labels"}) else "score"


def _side(name: str) -> str | None:
    """Real or fake, if the name shows it."""
    words, low = set(words_of(name)), name.lower()
    if "fake" in low or words & {"gen", "generated", "generator", "neg", "negative", "synthetic", "f", "gz"}:
        return "fake"
    if {"d", "g", "z"} <= words:
        return "fake"
    return "real" if "real" in low or words & {"pos", "positive", "r", "dx"} else None


def words_of(name: str) -> list[str]:
    """The words of a name in snake or camel case, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def _listed(names: list[str]) -> str:
    *most, last = map(repr, names)
    return f"{', '.join(most)} and {last}" if most else last


def describe_error(error: BaseException, function: Callable[..., Any]) -> str:
    """An exception of the user's code in one line: its type, its text, and the line of their file."""
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    where, trace = "", error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        users = frame.f_globals.get("__ptarmigan_user__")
        if users or (code is not None and frame.f_code.co_filename == code.co_filename):
            where = f" (line {trace.tb_lineno})"
        trace = trace.tb_next
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:160]}{where}" if text else f"{type(error).__name__}{where}"
