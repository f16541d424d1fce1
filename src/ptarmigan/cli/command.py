"""How a function becomes a command, and the options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter

from ptarmigan.config.values import as_number
from ptarmigan.core.types import UserError, shown

if TYPE_CHECKING:
    from cyclopts import Token


OPTIONS = Group("Options")


def command(*examples: str, needed: str = "", **options: Any) -> Callable[[Callable[..., Any]], App]:
    """Make a function the command of its name, whose help ends with the examples; `needed` are options it cannot lack.

    `COMMANDS` of this package lists the commands.
    """
    title = "Example:" if len(examples) == 1 else "Examples:"
    epilogue = "\n".join([title, *(f"  ptarmigan {line}" for line in examples)])
    settings: dict[str, Any] = {"help_epilogue": epilogue, "group_parameters": OPTIONS} | options

    def make(function: Callable[..., Any]) -> App:
        name = settings.get("name", function.__name__)
        words = [examples[0].partition(name)[0] + name, *arguments_of(function), *needed.split(), "[OPTIONS]"]
        app = App(**({"name": name, "usage": f"Usage: ptarmigan {' '.join(words)}"} | settings))
        app.default(function)
        return app

    return make


def arguments_of(function: Callable[..., Any]) -> Iterator[str]:
    """The arguments of a command that are no options, as its help writes them: MODEL [DATA]."""
    for argument in signature(function).parameters.values():
        name = argument.name.upper()
        if argument.kind is argument.VAR_POSITIONAL:
            yield f"[{name}...]"
        elif argument.kind is argument.POSITIONAL_ONLY:
            yield name if argument.default is argument.empty else f"[{name}]"


@contextmanager
def loading() -> Iterator[None]:
    """Say on standard error that PyTorch is imported in the block, which takes seconds."""
    from ptarmigan.core.console import Display, Terminal

    with Display(Terminal(stderr=True)) as display, display.doing("loading PyTorch"):
        yield


def whole(_: Any, tokens: Sequence[Token]) -> int:
    """Read a whole number; cyclopts itself would round 1.5 to 2."""
    token = tokens[0]
    number = as_number(int, token.value)
    if number is None:
        raise UserError(f"{token.keyword}: expected a whole number, got {shown(token.value)}", "value-invalid")
    return int(number)


Whole = Annotated[int, Parameter(converter=whole)]
WholeOrNone = Annotated[int | None, Parameter(converter=whole)]
Switch = Annotated[bool, Parameter(negative=(), show_default="off")]  # off without it, so --no-NAME is not needed
Texts = Annotated[list[str] | None, Parameter(negative_iterable=())]
Classes = Annotated[list[str] | None, Parameter(name="--class", negative_iterable=())]
Count = Annotated[int | None, Parameter(name="-n", converter=whole)]
Device = Annotated[str, Parameter(help="auto, cpu, cuda or mps")]
Model = Annotated[
    Path,
    Parameter(
        help="run folder, generator folder, model.safetensors, a checkpoint of a run, or hf:user/name[@revision] on "
        "the Hub"
    ),
]
At = Annotated[
    int | None,
    Parameter(converter=whole, help="use the run's checkpoint after this many images; default: the last generator"),
]
