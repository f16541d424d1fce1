"""Paths and URLs as users write them."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

from ptarmigan.core.types import UserError, brief, shown

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.+)", re.DOTALL)


def url_of(path: str | os.PathLike[str]) -> str | None:
    """The URL that a path stands for, also where a Path has joined its slashes, as in s3:/bucket/x.tar; else None."""
    match = URL.fullmatch(path.as_posix() if isinstance(path, Path) else os.fspath(path))
    if match is None:
        return None
    scheme, rest = match.groups()
    return f"{scheme}:///{rest}" if scheme == "file" else f"{scheme}://{rest}"


def no_run(folder: Path) -> UserError:
    """The error where a folder has to be a run."""
    return UserError(f"{folder} is not a run of ptarmigan: name a folder that `ptarmigan train` made", "not-a-run")


def user_path(given: str | Path, what: str, *, pipe: bool = False) -> Path:
    """A path that a user gave for `what`, with ~ as the home folder; the file or folder need not exist.

    After this, asking whether the path exists or is a folder raises nothing.  With `pipe` it may be a pipe, as in
    `--config <(command)`, which can be read once.  Raises UserError: value-invalid for what cannot be a path here
    (another type, empty, with a NUL byte, too long, in an unknown home folder), file-unreadable for what the system
    does not let this user look at and for what is neither a file nor a folder.
    """
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else given
    if not isinstance(text, str):
        raise UserError(f"{what}: expected a path as text or a Path, got {shown(given)}", "value-invalid")
    named = brief(text)
    if not text:
        raise UserError(f"{what}: the path is empty; name a file or a folder", "value-invalid")
    try:
        path = Path(text).expanduser()
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            os.scandir(path).close()
            (path / "x").exists()
    except RuntimeError:
        raise UserError(
            f"{what}: {named} begins with ~, but its home folder is not known; write the whole path", "value-invalid"
        ) from None
    except ValueError:
        raise UserError(f"{what}: {named!r} cannot be the path of a file", "value-invalid") from None
    except (FileNotFoundError, NotADirectoryError):
        return path
    except OSError as error:
        code = "value-invalid" if error.errno == errno.ENAMETOOLONG else "file-unreadable"
        raise UserError(f"{what}: cannot use {named}: {error.strerror or error}", code) from None
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode) or (pipe and stat.S_ISFIFO(mode))):
        raise UserError(f"{what}: {named} is neither a file nor a folder", "file-unreadable")
    return path
