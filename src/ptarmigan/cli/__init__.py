"""The command line: each command is the public function of its name, imported when it is called."""

from __future__ import annotations

import sys

from cyclopts import App, CycloptsError

from ptarmigan.boundary import (
    CALL,
    abandon_broken_streams,
    check_arguments,
    check_current_folder,
    fail,
    noting_interrupts,
    open_missing_streams,
)
from ptarmigan.boundary import report as report_error
from ptarmigan.cli.help import HELP_ALL, Prose
from ptarmigan.cli.usage import usage
from ptarmigan.core.types import UserError
from ptarmigan.core.version import __version__

COMMANDS = (  # module and name, in the order of the help
    "train:train",
    "data:check",
    "draw:sample",
    "draw:interpolate",
    "draw:invert",
    "draw:directions",
    "runs:score",
    "runs:compare",
    "runs:info",
    "runs:replay",
    "share:export",
    "share:explore",
    "share:serve",
    "runs:plot",
    "runs:report",
    "runs:diagnose",
    "data:cache",
    "losses:losses",
)

app = App(
    name="ptarmigan",
    help="Train class-conditional image GANs, measure and use them, and explain their losses.",
    version=__version__,
    version_flags=["--version"],
    help_flags=["--help", "-h"],
    help_epilogue="Examples:\n  ptarmigan train photos --time 30m\n  ptarmigan help sample",
    help_formatter=Prose(),
    help_format="plaintext",  # rich needs longer to import its Markdown than to print the help
    suppress_keyboard_interrupt=False,  # main reports it
)
for place, path in enumerate(COMMANDS):
    app.command(f"ptarmigan.cli.{path}", sort_key=place)
app.command("ptarmigan.cli.completion:install_completion", name="--install-completion")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line on these arguments, by default those of the process.

    A UserError becomes one line on standard error and the error's exit status; so does any other exception, whose
    traceback goes to a file.
    """
    CALL.set(tuple(sys.argv) if arguments is None else ("ptarmigan", *arguments))
    open_missing_streams()
    try:
        with noting_interrupts() as interrupts:
            status = run([*CALL.get()[1:]])
    except CycloptsError as error:
        status = fail(usage(error), "usage", 2)
    except (Exception, KeyboardInterrupt) as error:
        status = report_error(KeyboardInterrupt() if interrupts and not isinstance(error, UserError) else error)
    finally:
        abandon_broken_streams()
    if status:
        sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run a command -> exit status."""
    check_current_folder()
    check_arguments(arguments)
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    console = None
    if not arguments or {*app.help_flags, *app.version_flags, HELP_ALL} & {*arguments}:
        from ptarmigan.core.terminal import Terminal

        console = Terminal()
        if not arguments or arguments[0].startswith("-"):
            app.resolved_commands()  # whose first sentences the help lists
    status: int | None = app(
        arguments, console=console, exit_on_error=False, print_error=False, result_action="return_value"
    )
    if sys.stdout is not None:
        sys.stdout.flush()
    return status or 0
