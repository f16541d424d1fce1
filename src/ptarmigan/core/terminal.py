"""Plain lines of text on standard output and standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from ptarmigan.core.types import printable

if TYPE_CHECKING:
    from rich.table import Table


class Terminal(Console):
    """Standard output, or standard error, with `say` for text that must appear as it is.

    What cannot be written raises OSError, of which BrokenPipeError is a kind.
    """

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(emoji=False, stderr=stderr, quiet=quiet)

    def say(self, text: str, style: str | None = None) -> None:
        """Print one line, without markup, highlighting or line breaks of rich's own.

        Names of files and classes may hold anything, so line breaks and control characters are shown escaped.
        """
        self.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        """Pass on the BrokenPipeError being handled, where rich would end the process."""
        raise


def print_lines(*lines: str | Table) -> None:
    """Print lines and tables to standard output; a table's cells must be `printable`."""
    terminal = Terminal()
    for line in lines:
        if isinstance(line, str):
            terminal.say(line)
        else:
            terminal.print(line, markup=False, highlight=False)
