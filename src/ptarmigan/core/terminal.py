"""Plain lines of text on standard output and standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ptarmigan.core.types import OutputFailed, printable, wrapped

if TYPE_CHECKING:
    from rich.table import Table

LEAST_WIDTH = 20  # columns


def notebook_shell() -> Any:
    """IPython's shell if this process is the kernel of a notebook, else None."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell if hasattr(shell, "kernel") else None


class Terminal(Console):
    """Standard output, or standard error, with `say` for text that must appear as it is.

    Raises OutputFailed where it cannot be written.
    """

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(
            emoji=False, stderr=stderr, quiet=quiet, force_jupyter=False,
            force_terminal=False if notebook_shell() is not None else None,  # ipykernel sets FORCE_COLOR
        )  # fmt: skip
        if self.width < LEAST_WIDTH:  # rich never ends where COLUMNS is 0
            self.width = LEAST_WIDTH

    def say(self, text: str, style: str | None = None, wrap: bool = False) -> None:
        """Print one line, without markup, highlighting or line breaks of rich's own.

        Names of files and classes may hold anything, so line breaks and control characters are shown escaped.  With
        `wrap` a terminal shows a longer line as several, which break between words, so that no path is divided.
        """
        text = printable(text)
        if wrap and self.is_terminal:
            text = wrapped(text, self.width)
        self.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError as error:
            raise OutputFailed(error.errno, error.strerror) from None

    def on_broken_pipe(self) -> None:
        """Pass on the BrokenPipeError being handled, where rich would end the process."""
        raise


def print_lines(*lines: str | Table) -> None:
    """Print lines and tables to standard output; a table's cells must be `printable`."""
    terminal = Terminal()
    for line in lines:
        if isinstance(line, str):
            terminal.say(line, wrap=True)
        else:
            terminal.print(line, markup=False, highlight=False)
