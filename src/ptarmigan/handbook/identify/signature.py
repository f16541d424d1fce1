"""What each parameter of somebody's loss is, from its name: D's output on real images, a target, class logits, ...

A name that says what it is binds; one that does not is tried as each thing that it could be.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from ptarmigan.core.types import UserError

# Roles: real and fake, D's answers; output and target of a loss of one answer; *_target where each half has its own;
# class, class_real, class_fake, twin_fake with labels, labels_real, labels_fake; embedding with proxy, that of each
# image, or proxies, those of all classes; D, G, latents; and what is simply given.
SCORES = ("real", "fake", "output")
GIVEN = ("weight", "classes", "criterion", "device", "width", "size")
CLASSES = ("class", "class_real", "class_fake", "twin_fake", "embedding")

OUTPUTS = {
    "pred", "preds", "prediction", "predictions", "predicted", "logit", "logits", "output", "outputs", "out", "prob",
    "probs", "probability", "probabilities", "score", "scores", "validity", "hat", "yhat", "critic", "disc", "d",
    "input", "inputs", "x", "sigmoid",
}  # fmt: skip
NETWORKS = {"D": {"d", "netd", "discriminator", "disc", "critic", "dnet"}, "G": {"g", "netg", "generator", "gen"}}
PLAYERS = {
    "d": {"d", "disc", "discriminator", "critic", "dis", "lossd"},
    "g": {"g", "gen", "generator", "lossg"},
    "bce": {"bce", "binary", "criterion"},
    "class": {"class", "cls", "classification", "classifier", "aux", "auxiliary", "categorical"},
}
PICTURES = {"x", "image", "images", "img", "imgs", "data", "batch"}
PROBABLE = {"prob", "probs", "probability", "probabilities"}


@dataclass(frozen=True)
class Reading:
    """One way to read a signature: the role of each parameter that is given a value."""

    roles: dict[str, str]
    guessed: bool = False  # the names did not say which is which

    def has(self, *roles: str) -> bool:
        return any(role in roles for role in self.roles.values())


def tokens(name: str) -> list[str]:
    """The words of a name in snake or camel case, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def side(name: str) -> str | None:
    """Real or fake, where a name says so."""
    words, low = set(tokens(name)), name.lower()
    if "fake" in low or words & {"gen", "generated", "generator", "neg", "negative", "synthetic", "f", "gz"}:
        return "fake"
    if {"d", "g", "z"} <= words:
        return "fake"
    return "real" if "real" in low or words & {"pos", "positive", "r", "dx"} else None


def player_of(name: str) -> str | None:
    """Whose loss a function's name says it is: d, g, bce or class; None where it says nothing."""
    words = set(tokens(name))
    players = [kind for word in tokens(name) for kind in ("d", "g") if word in PLAYERS[kind]]
    if players:
        return players[0]  # g_negative_of_d is G's
    found = [kind for kind, known in PLAYERS.items() if words & known]
    return found[0] if len(found) == 1 else None


def says_probabilities(names: list[str]) -> bool:
    return any(PROBABLE & set(tokens(name)) and "log" not in tokens(name) for name in names)


def _what(name: str) -> str:
    """The sort of thing that a name stands for, without its side."""
    words, low = set(tokens(name)), name.lower().strip("_")
    squeezed = low.replace("_", "")
    if {"is", "real"} <= words or squeezed.startswith(("isreal", "realorfake")):
        return "is_real"
    if words & {"lam", "lambda", "lmbda", "weight", "coef", "coeff"}:
        return "weight"
    if squeezed in ("k", "numclasses", "nclasses", "nbclasses", "nclass"):
        return "classes"
    if squeezed in ("criterion", "lossfn", "device"):
        return "criterion" if squeezed != "device" else squeezed
    if squeezed in ("zdim", "latentdim", "nz", "noisedim"):
        return "width"
    if squeezed in ("batchsize", "numimages", "bs", "nimages"):
        return "size"
    if squeezed in ("z", "noise", "latent", "latents", "znoise", "noises"):
        return "latents"
    if words & {"embedding", "embeddings", "embed", "proxy", "proxies"}:
        return next((word for word in ("proxy", "proxies") if word in words), "embedding")
    if words & {"twin"} or low in ("t_fake", "fake_t"):
        return "twin"
    output = bool(words & (OUTPUTS - {"d", "x"}))
    label = bool(words & {"label", "labels", "lbl", "lbls", "y", "digits", "onehot", "hot", "lab"})
    classy = bool(words & {"class", "classes", "cls", "clf", "aux", "auxiliary", "category", "c", "classifier"})
    if words & {"target", "targets", "true", "tgt", "gt", "ones", "zeros", "valid"}:
        return "labels" if classy else "target"
    if words & {"logprob", "logprobs"}:
        return "class"
    if label and not output:
        return "labels"
    if classy or (label and output and words & {"label", "labels"}):
        return "class"
    return "score"


def readings(parameters: list[str], function: str, kind: str | None) -> list[Reading]:
    """The ways to read a signature's parameters, likeliest first; `kind` is what was declared or the name says.

    Raises UserError where a parameter could be anything.
    """
    networks = _networks(parameters)
    rest = {name: _what(name) for name in parameters if name not in networks}
    classy = [name for name, what in rest.items() if what in ("class", "twin", "embedding")]
    fixed: dict[str, str] = dict(networks)
    open_: list[str] = []
    alone = sum(what == "score" for what in rest.values()) == 1 and not classy
    for name, what in rest.items():
        where = side(name)
        if what in (*GIVEN, "latents", "is_real", "embedding", "proxy", "proxies"):
            fixed[name] = what
        elif what == "twin":
            fixed[name] = "twin_fake"
        elif what == "class":
            fixed[name] = f"class_{where}" if where and not (where == "fake" and kind == "class") else "class"
        elif what == "labels" and (classy or networks):
            fixed[name] = f"labels_{where}" if where else "labels"
        elif what in ("labels", "target"):
            ones, zeros = {"ones", "valid"} & set(tokens(name)), "zeros" in tokens(name)
            where = where or ("real" if ones else "fake" if zeros else None)
            fixed[name] = f"{where}_target" if where and not alone else "target"
        elif networks and not where and (PICTURES & set(tokens(name))):
            fixed[name] = "real"
        elif where and not (alone and any(other in ("labels", "target", "is_real") for other in rest.values())):
            fixed[name] = where
        else:
            open_.append(name)
    for role in fixed.values():
        alike = [name for name in fixed if fixed[name] == role and role not in ("latents", *GIVEN)]
        if len(alike) > 1:
            raise UserError(f"{_listed(alike)} read alike, as {role}: bind what is not D's answer by functools.partial")
    has_target = any(role in ("target", "is_real") for role in fixed.values())
    if kind == "class" and not classy and has_target and len(open_) == 1:
        return [Reading({n: {"target": "labels"}.get(fixed.get(n, ""), fixed.get(n, "class")) for n in parameters})]
    if "latents" in fixed.values() and "D" not in fixed.values():
        raise UserError("it takes latents but no discriminator: this is no loss")
    return _fill(parameters, fixed, open_, function, kind)


def _fill(
    parameters: list[str], fixed: dict[str, str], open_: list[str], function: str, kind: str | None
) -> list[Reading]:
    """Readings with the parameters whose names say too little as each thing that is missing."""
    taken = set(fixed.values())

    def ordered(more: dict[str, str]) -> dict[str, str]:
        return {name: (fixed | more)[name] for name in parameters}

    if not open_:
        return [Reading(ordered({}))]
    if len(open_) == 1 and taken & {"target", "is_real"} and not taken & {"real", "fake"}:
        output = Reading(ordered({open_[0]: "output"}))
        if "target" not in taken or kind in ("d", "g", "bce"):
            return [output]
        as_class = {name: "labels" if role == "target" else role for name, role in fixed.items()} | {open_[0]: "class"}
        return [output, Reading({name: as_class[name] for name in parameters})]
    missing = [role for role in ("real", "fake") if role not in taken]
    if len(open_) == 1 and "labels" in taken and not taken & set(CLASSES):
        return [Reading(ordered({open_[0]: "class"}))]
    if len(open_) == 1 and len(missing) == 2:
        sides = [side(function)] if side(function) else ["fake", "real"] if kind == "d" else ["fake"]
        return [Reading(ordered({open_[0]: str(half)}), len(sides) > 1 or kind is None) for half in sides]
    if len(open_) == len(missing):
        ways = [Reading(ordered(dict(zip(open_, way, strict=True))), len(open_) > 1) for way in permutations(missing)]
        if len(open_) == 2 and not taken and kind not in ("d", "g"):
            pairs: list[tuple[str, str]] = [("output", "target"), ("target", "output")]
            if kind == "class":
                pairs = [("class", "labels"), ("labels", "class")]
            more = [Reading(ordered(dict(zip(open_, pair, strict=True))), guessed=True) for pair in pairs]
            ways = more if kind else ways + more
        return ways
    raise UserError(
        f"cannot tell what {_listed(open_)} {'is' if len(open_) == 1 else 'are'}: "
        "name parameters real, fake, target, class_logits, labels, D, G or z, or bind the rest with functools.partial"
    )


def _listed(names: list[str]) -> str:
    *most, last = map(repr, names)
    return f"{', '.join(most)} and {last}" if most else last


def _networks(parameters: list[str]) -> dict[str, str]:
    """Parameters that are D and G themselves; a lone lower-case d or g is taken for a logit."""
    found: dict[str, str] = {}
    for name in parameters:
        for network, known in NETWORKS.items():
            if name.lower().replace("_", "") in known:
                found[name] = network
    both = set(found.values()) == {"D", "G"}
    company = any(_what(name) == "latents" or (PICTURES - {"x"}) & set(tokens(name)) for name in parameters)
    sure = both or company or any(name in ("D", "netD", "discriminator", "net_D") for name in found)
    return found if sure and "D" in found.values() and len(parameters) > 1 else {}


def parameters_of(function: Callable[..., Any]) -> dict[str, bool]:
    """The parameters that have to be given -> whether by keyword alone.

    Raises UserError where a callable hides them.
    """
    try:
        signature = inspect.signature(getattr(function, "forward", function))  # a module's call takes anything
    except (TypeError, ValueError):
        raise UserError("its signature cannot be read: wrap it in a function of real and fake") from None
    every = [p for p in signature.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    given = [p for p in every if p.default is p.empty] or [p for p in every if p.default is None]
    found = {p.name: p.kind is p.KEYWORD_ONLY for p in given}
    if not found:
        raise UserError("it takes no argument that has to be given: a loss is a function of D's outputs")
    return found


def describe(error: BaseException, function: Callable[..., Any]) -> str:
    """An error of somebody's code in one line: what, and in which of their lines."""
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    where, trace = "", error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if (code is not None and name == code.co_filename) or trace.tb_frame.f_globals.get("__ptarmigan_user__"):
            where = f" (line {trace.tb_lineno})"
        trace = trace.tb_next
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:160]}{where}" if text else f"{type(error).__name__}{where}"
