"""`ptarmigan losses identify`: which loss your code computes, and what is wrong with it.

There are six stages, each in a module: source (the losses of a file, without running it) -> signature (the role of
each parameter) -> call (the loss as a function of numbers) -> measure (the terms that reproduce its values) ->
diagnose (their names and faults) -> answer (an Identity).  attempts runs them on one loss, child_process on a file.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from ptarmigan.core.types import UserError, unknown
from ptarmigan.handbook.identify.answer import Identity, compare_players
from ptarmigan.handbook.identify.child_process import identify_file
from ptarmigan.handbook.identify.signature import describe_error

CHOICES = {"kind": ("d", "g", "bce", "class"), "on": ("logits", "probabilities")}


class Answers(list[Identity]):
    """Answers that a notebook and the Python prompt show as the command line prints them."""

    skipped: list[str]  # a line on each loss that could not be judged

    def __repr__(self) -> str:
        return "\n".join([*map(str, self), *self.skipped])


def identify(*losses: Any, kind: str | None = None, on: str | None = None) -> Answers:
    """Identify each of `losses` from its values and gradients in float64 at chosen logits.

    A loss is a callable, which is called in this process, or "FILE.py", "FILE.ipynb", "-" (standard input)
    or "FILE.py:FUNCTION", whose imports, constants and definitions alone are executed in a child process with limits on
    time and memory.  Parameters are recognised by their names, in any order: real and fake
    (D's outputs, [N]), output and target, class_logits [N, K] and labels [N], or D, G, images and latents.  `kind`
    gives the role of the loss if names do not show it: d, g, bce (an output and a target) or class.  `on` is logits or
    probabilities.

    Raises UserError if a loss cannot be called or does not return a number, or if a file cannot be loaded.
    """
    for what, value in (("kind", kind), ("on", on)):
        if value is not None and value not in CHOICES[what]:
            raise unknown(f"value of {what}", value, CHOICES[what])
    if not losses:
        raise UserError("name a loss: FILE.py, FILE.py:FUNCTION or, in Python, a function", "no-loss")
    found: list[Identity] = []
    skipped: list[str] = []
    for loss in losses:
        if isinstance(loss, str | Path):
            of_file, lines = identify_file(str(loss), kind, on)
            found += of_file
            skipped += lines
        else:
            from ptarmigan.handbook.identify.attempts import identify_callable  # imports torch

            name = _name_of(loss)
            found += identify_callable(_instance_of(loss, name) if inspect.isclass(loss) else loss, name, kind, on)
    answers = Answers(compare_players(found, not skipped))
    answers.skipped = skipped
    return answers


def _instance_of(cls: type, name: str) -> Any:
    try:
        return cls()
    except Exception as error:
        text = f"{name}: cannot make an instance without arguments ({describe_error(error, cls)})"
        raise UserError(text, "no-instance") from None


def _name_of(function: Any) -> str:
    """A callable's own name; for a functools.partial, the name of its function."""
    while not hasattr(function, "__name__") and hasattr(function, "func"):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))
