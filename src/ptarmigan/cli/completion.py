"""The command that lets the tab key complete commands and options."""

from __future__ import annotations

from typing import Literal

from ptarmigan.boundary import say
from ptarmigan.cli import app
from ptarmigan.cli.command import command
from ptarmigan.core.types import UserError


@command("--install-completion", name="--install-completion")
def install_completion(*, shell: Literal["bash", "zsh", "fish", "powershell"] | None = None) -> None:
    """Let the tab key complete commands and options in the shell.

    Parameters
    ----------
    shell
        the shell; default: the one that this command is given in
    """
    from cyclopts.completion.detect import ShellDetectionError, detect_shell

    try:
        shell = shell or detect_shell()
        path = app.install_completion(shell=shell)
    except ShellDetectionError:
        text = "it is not clear which shell this is; add --shell bash, zsh, fish or powershell"
        raise UserError(text, "value-invalid") from None
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}", "file-unwritable") from None
    loaded = {
        "bash": "; .bashrc loads it",
        "zsh": "; .zshrc adds its folder to fpath, and must run compinit after that",
    }
    say(f"wrote {path}{loaded.get(shell, '')}", "open a new shell: the tab key completes ptarmigan's options there")
