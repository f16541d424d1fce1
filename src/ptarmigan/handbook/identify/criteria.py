"""Criteria that are not in the file: each is taken to be what its name says, and the answer says so."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ptarmigan.handbook.identify.names import (
    BESIDE_NETWORK,
    CRITERIA,
    LABELS,
    OTHER_LOSSES,
    PLAYERS,
    TARGETS,
    player_of,
    words_of,
)
from ptarmigan.handbook.identify.operations import target_of
from ptarmigan.handbook.identify.signature import LossError
from ptarmigan.handbook.identify.stand_ins import is_score
from ptarmigan.handbook.identify.unseen import CLEAR, Facts, Trace, Unknown, flat, needs, shown_name

KINDS = {  # what it is taken to be -> the words of its name, or of the arguments of its class
    "the hinge loss": {"hinge"},
    "the Wasserstein loss": {"wasserstein", "wgan", "wgangp", "emd"},
    "least squares": {"mse", "ls", "lsgan", "squares", "squared"},
    "": {"l1", "l2", "relativistic", "ragan", "softmax"},  # none that is known here
    "cross-entropy": {"bce", "logistic", "vanilla", "saturating", "nonsaturating", "minimax", "entropy", "binary"},
}
OF_D = {"d", "dis", "disc", "discriminator"}  # words of a flag that says whose loss it is
PLAIN = CRITERIA | PLAYERS["d"] | PLAYERS["g"] | BESIDE_NETWORK | {"self", "func", "function", "real", "fake"}


def kind_of(name: str) -> str | None:
    """What a criterion is by its name; None if the name does not say."""
    words = {*words_of(name)}
    return next((kind for kind, known in KINDS.items() if known & words), None)


def with_target(name: str, on: str, output: Any, target: Any, named: dict[str, Any]) -> tuple[Tensor, str]:
    """The value of a criterion of D's output and a target or a flag, and what it was taken to be."""
    kind = kind_of(name)
    if kind is None and {*words_of(name)} - PLAIN:
        raise LossError(f"{name} is not in the file: define it there")
    while isinstance(output, list | tuple):
        output = output[-1]
    is_flag = isinstance(target, bool)
    goal = target if isinstance(target, Tensor) else torch.full_like(output, float(target))
    if kind in (None, "cross-entropy"):
        function = F.binary_cross_entropy if on == "probabilities" else F.binary_cross_entropy_with_logits
        return function(output, goal), "cross-entropy"
    if kind == "least squares":
        return F.mse_loss(output, goal.expand_as(output)), kind
    sign = 1 if target is True else -1
    of_d = next((value for key, value in named.items() if OF_D & {*words_of(key)}), None)
    if is_flag and kind == "the Wasserstein loss":
        return -sign * output.mean(), kind
    if is_flag and kind == "the hinge loss" and of_d is not None:
        return (F.relu(1 - sign * output) if of_d else -sign * output).mean(), kind
    raise LossError(f"{name} is not in the file: define it there")


def of_outputs(name: str, on: str, real: Tensor | None, fake: Tensor | None) -> tuple[Tensor, str]:
    """The value of a player's loss of D's outputs alone, and what it was taken to be."""
    kind, player = kind_of(name), player_of(name)
    if not kind or (player == "d") != (real is not None) or player not in ("d", "g") or fake is None:
        raise LossError(f"{name} is not in the file: define it there")
    if kind == "cross-entropy" and on == "probabilities":
        return (-fake.log().mean() if real is None else -real.log().mean() - (1 - fake).log().mean()), kind
    if real is None:
        return (-fake.mean() if kind == "the hinge loss" else _of_real(kind, fake)), kind
    return _of_real(kind, real) + ((fake**2).mean() if kind == "least squares" else _of_real(kind, -fake)), kind


def _of_real(kind: str, t: Tensor) -> Tensor:
    if kind == "the hinge loss":
        t = F.relu(1 - t)
    elif kind == "least squares":
        t = (1 - t) ** 2
    else:
        t = F.softplus(-t) if kind == "cross-entropy" else -t
    return t.mean()


def judged_at_its_name(now: Trace, name: str, given: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
    """The value of a criterion that is not here, of D's outputs and perhaps a target or a flag."""
    if OTHER_LOSSES & {*words_of(name)}:  # a penalty, or a distance of features
        raise needs(Facts(name))
    values = [*given, *(value for key, value in named.items() if not OF_D & {*words_of(key)})]
    scores = [x for x in values if any(map(is_score, flat([x])))]
    rest = [x for x in values if not any(x is one for one in scores)]
    if rest and isinstance(rest[0], Unknown) and rest[0].facts.kind and not _is_target(rest[0]):  # images
        raise needs(Facts(name))
    if len(scores) == 1 and rest:
        target = target_of(next(filter(is_score, flat(scores))), rest[0])
        value, kind = with_target(name, now.setup.on, scores[0], target, named)
    elif len(scores) < 3 and all(map(is_score, scores)):
        halves = {side: next((x for x in scores if _depends_on(x, now, side)), None) for side in now.leaves}
        value, kind = of_outputs(name, now.setup.on, halves.get("real"), halves.get("fake"))
    else:
        raise needs(Facts(name))
    now.criteria[name] = kind
    return value


def _is_target(x: Unknown) -> bool:
    return bool((TARGETS | LABELS | CLEAR) & {*words_of(shown_name(x.facts))})


def _depends_on(x: Tensor, now: Trace, side: str) -> bool:
    leaves = [of[side] for of in (now.leaves, now.shifts) if side in of]
    found = torch.autograd.grad(x.sum(), leaves, retain_graph=True, allow_unused=True)
    return any(one is not None for one in found)
