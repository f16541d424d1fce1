"""What is wrong with the words of a command, and what to write instead."""

from __future__ import annotations

import shlex

from cyclopts import CycloptsError, MissingArgumentError, UnknownOptionError, UnusedCliTokensError

from ptarmigan.boundary import CALL, quote
from ptarmigan.config.sections import TYPES
from ptarmigan.core.words import other_option

FLAGS_WITHOUT_VALUE = {key for key, hint in TYPES.items() if hint is bool}


def usage(error: CycloptsError) -> str:
    """What is wrong with the words of a command, and what to write."""
    command, given = "".join([*(error.command_chain or ())][:1]), [*CALL.get()]
    if isinstance(error, UnknownOptionError):
        name = (error.token.keyword or error.token.value).split("=")[0]
        if other := other_option(command, name, value_of(name, given)):
            return f"{name}: {other}"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        first = error.unused_tokens[0]
        if command == "sample":
            classes = " ".join(f"--class {quote(name)}" for name in error.unused_tokens)
            return f"unexpected argument: {shlex.join(error.unused_tokens)}; a class is named by an option: {classes}"
        before = given[given.index(first) - 1] if first in given else ""
        text = f"unexpected argument: {shlex.join(error.unused_tokens)}"
        if before.removeprefix("--").removeprefix("no-").replace("-", "_") in FLAGS_WITHOUT_VALUE:
            positive = before.replace("--no-", "--")
            return f"{text}; {before} takes no value: write {positive}, or {positive.replace('--', '--no-')}"
        return f"{text}; put text with spaces in quotes, and repeat an option for each value"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name, count = error.argument.name, error.argument.token_count()[0]
        if not any(word.split("=")[0] in error.argument.names for word in given):
            what = f": add {name} VALUE" if name.startswith("-") else ""
            return f"{name} is missing{what}; for help: ptarmigan {command} --help"
        values = "a value" if count == 1 else f"{count} values, and got {len(error.tokens_so_far)}"
        return f"{name}: expected {values}; write {name}=VALUE if the value begins with -"
    return str(error)


def value_of(option: str, given: list[str]) -> str | None:
    """The value of an option on the command line, or None."""
    for word, following in zip(given, [*given[1:], "-"], strict=True):
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
        if word == option and not following.startswith("-"):
            return following
    return None
