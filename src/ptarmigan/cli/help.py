"""The pages of --help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ptarmigan.boundary import CALL

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

HELP_ALL = "--help-all"
COMMON = (  # the options that `train --help` shows, in this order
    "--recipe", "--out", "--time", "--images", "--size", "--augment", "--from", "--config", "--device", "--seed",
)  # fmt: skip


class Prose:
    """A panel of a help page, its texts without the line breaks of their docstring."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        from cyclopts.help.formatters import DefaultFormatter
        from rich.text import Text

        for entry in panel.entries:
            text = getattr(entry.description, "primary_renderable", None)
            if isinstance(text, Text):
                entry.description.primary_renderable = Text(" ".join(text.plain.split()))
        DefaultFormatter()(console, options, panel)

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        from cyclopts.help.formatters import DefaultFormatter

        DefaultFormatter().render_usage(console, options, usage)


class Panel:
    """A panel of `train`'s help: the common options without --help-all, a section of all options with it."""

    def __init__(self, common: bool) -> None:
        self.common = common

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        from cyclopts.help.formatters import DefaultFormatter

        if self.common == (HELP_ALL in CALL.get()):
            return
        if self.common:
            panel.entries.sort(key=lambda entry: COMMON.index(entry.names[0]))
        DefaultFormatter()(console, options, panel)
        if self.common:
            console.print(f"All options, by section: ptarmigan train {HELP_ALL}")
