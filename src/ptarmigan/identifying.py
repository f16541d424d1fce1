"""`ptarmigan losses identify`: which loss your code computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ptarmigan.contracts import UserError, unknown
from ptarmigan.identities import Identity, identify_one, name_of
from ptarmigan.judging import code_of
from ptarmigan.strangers import identify_file

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
            found.append(identify_one(loss, name_of(loss), kind, on))
    return together(found)


def together(found: list[Identity]) -> list[Identity]:
    """What only a pair shows: G's least squares with D's own target."""
    if any(one.player == "D" and one.name.startswith("least_squares") and "pearson" not in one.name for one in found):
        wrong = "this is D's loss on generated images, whose target is 0: a G that minimises it helps D"
        return [
            replace(one, wrong=(wrong,), notes=(), code=code_of("least_squares", "G"))
            if one.player == "G" and one.name == "least_squares_pearson" and one.right
            else one
            for one in found
        ]
    return found
