"""`ptarmigan losses identify`: which loss your code computes."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptarmigan.core.types import UserError, unknown
from ptarmigan.handbook.identify.answer import UNSEEN, Identity, code_of
from ptarmigan.handbook.identify.child_process import identify_file, made
from ptarmigan.handbook.identify.diagnose import GIVEN, SWAPPED

KINDS = ("d", "g", "bce", "class")
DOMAINS = ("logits", "probabilities")


def identify(*losses: Any, kind: str | None = None, on: str | None = None) -> list[Identity]:
    """Say which loss each of `losses` computes, probing it with numbers: values and gradients in float64.

    A loss is a callable, probed in this process, or a "FILE.py" or "FILE.py:FUNCTION", run in a child process with
    limits of time and memory.  Parameters are known by their names, in any order: real and fake (D's answers, [N]),
    output and target, class_logits [N, K] and labels, or D, G, images and latents.  `kind` says what the names do not:
    d, g, bce (an output and a target) or class; `on`: logits or probabilities.

    Raises UserError where a loss cannot be called, gives no number, or a file does not load.
    """
    for what, value, choices in (("kind", kind, KINDS), ("domain", on, DOMAINS)):
        if value is not None and value not in choices:
            raise unknown(what, value, choices)
    if not losses:
        raise UserError("name a loss: FILE.py, FILE.py:FUNCTION or, in Python, a function")
    found: list[Identity] = []
    for loss in losses:
        if isinstance(loss, str | Path):
            found += identify_file(str(loss), kind, on)
        else:
            from ptarmigan.handbook.identify.answer import identify_each, name_of

            name = name_of(loss)
            found += identify_each(made(loss, name) if inspect.isclass(loss) else loss, name, kind, on)
    return together(found)


def together(found: list[Identity]) -> list[Identity]:
    """What only a pair shows: labels turned over for both players, and G's least squares with D's own target."""
    d = [one for one in found if one.player == "D"]
    turned = [one.name for one in d if len(one.wrong) == 1 and one.wrong[0].startswith(SWAPPED)]
    given = [one.name for one in found if one.player == "G" and one.wrong and one.wrong[0].startswith(GIVEN)]
    squares = any(one.name == "least_squares" and one.right for one in d)

    def again(one: Identity) -> Identity:
        if one.name in turned and one.name in given and len(one.wrong) == 1:
            note = "its labels are turned over, and those of the other player with them: right as a pair"
            return replace(one, wrong=(), notes=(note,), code="")
        if one.player == "G" and one.name == "least_squares_pearson" and squares and one.right:
            wrong = f"{GIVEN} on generated images, whose target is 0: a G that minimises it helps D"
            return replace(one, wrong=(wrong,), notes=(), code=code_of("least_squares", "G"))
        return one

    found = [again(one) for one in found]
    first = next((i for i, one in enumerate(found) if UNSEEN in one.notes), None)  # once is enough
    return [
        replace(one, notes=tuple(note for note in one.notes if note != UNSEEN or i == first))
        for i, one in enumerate(found)
    ]
