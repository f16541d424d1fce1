"""What the later stages get of a loss: what to call, and what its source says about its names."""

from __future__ import annotations

import ast
import contextlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ptarmigan.handbook.identify.uses import Uses, uses_of


@dataclass
class Code:
    """A loss in a file, or one that is given: what to call, and the names that it reads from outside."""

    name: str
    function: Callable[..., Any]
    uses: Uses = field(default_factory=Uses)
    outer: tuple[str, ...] = ()  # names of globals, or "self.x", that are given like parameters
    place: Callable[[str, Any], None] = lambda name, value: None  # sets one of them
    kind: str | None = None  # the player, where its statements show it
    on: str | None = None  # "probabilities", where D's definition ends in a sigmoid; "logits", where in a linear layer
    bounded: bool = False  # D's definition ends in a tanh
    class_on: str | None = None  # the same, where its class output ends in a softmax
    steps_first: str = ""  # the optimiser that steps between the .backward() and its player's own step
    form: str = ""  # "column", where D's definition ends in a linear layer of one output
    inline: str = ""  # the statements of a training loop, as a function
    tolerant: bool = False  # statements that fail are left out, where no output of D takes part in them
    settings: dict[str, Any] = field(default_factory=dict)  # the defaults of the command line
    absent: frozenset[str] = frozenset()  # names, not of networks, made by modules that are not installed
    fixed: dict[str, Any] = field(default_factory=dict)  # the values of outer names that the source compares with words

    def choices(self) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
        """(word, fixed, settings) for each word with which a configuration that is not known is compared."""
        for name, words in self.uses.words.items():
            start, _, last = name.rpartition(".")
            if name in self.outer:
                return [(word, {name: word}, self.settings) for word in dict.fromkeys(words)]
            if start in self.outer and last not in self.settings:
                return [(word, {}, self.settings | {last: word}) for word in dict.fromkeys(words)]
        return [("", {}, self.settings)]


def code_of(function: Any, name: str) -> Code:
    """A callable of this process; its source is read where it can be found."""
    owner = getattr(function, "func", function)
    owner = owner if inspect.isroutine(owner) else next((c for c in type(owner).__mro__ if "__call__" in vars(c)), None)
    if not inspect.isroutine(owner):
        is_module = str(getattr(owner, "__module__", "")).startswith("torch")
        owner = getattr(type(function), "forward", None) if is_module else getattr(owner, "__call__", None)  # noqa: B004
    with contextlib.suppress(OSError, TypeError, SyntaxError):
        return Code(name, function, uses_of(ast.parse(inspect.cleandoc("\n" + inspect.getsource(owner)))))
    return Code(name, function)
