"""The boundary of the process: its streams and arguments, errors as one line, and the command that resumes a run."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from ptarmigan.core.ranks_env import is_rank_0, under_torchrun
from ptarmigan.core.types import OutputFailed, UserError, brief, printable, wrapped
from ptarmigan.core.version import __version__

# The program as it was called, and its arguments: `main` sets it
CALL: ContextVar[tuple[str, ...]] = ContextVar("CALL", default=("ptarmigan",))
LONGEST = 4096  # characters in an argument: as many as in a path


def check_current_folder() -> None:
    """Raise UserError (path-not-found) where the current folder was deleted: libraries end the process there."""
    try:
        os.getcwd()
    except OSError as error:
        text = f"the current folder cannot be used: {error.strerror or error}; change to another folder"
        raise UserError(text, "path-not-found") from None


def check_arguments(arguments: list[str]) -> None:
    """Raise UserError (value-invalid) for a value that no option takes: an empty one, which as a path would be this
    folder, and one of more than 4,096 characters."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
        if (value or not equals) and 0 < len(argument) <= LONGEST:
            continue
        what = option[:50] or (before[:50] if before.strip("-") and before.startswith("-") else "")
        if len(argument) > LONGEST:
            text = f"{what or 'an argument'}: the value has {len(argument):,} characters, and {LONGEST:,} are allowed"
        elif what:
            text = f"{what}: the value is empty; write it, or leave {what} out"
        else:
            text = "an argument is empty; write it"
        raise UserError(text, "value-invalid")


@contextmanager
def noting_interrupts() -> Iterator[list[int]]:
    """Note each Ctrl-C in the block; libraries may turn its KeyboardInterrupt into another error as they are imported.

    Nothing is noted where SIGINT is ignored or has another handler, or outside the main thread.
    """
    noted: list[int] = []

    def note(number: int, _: object) -> None:
        noted.append(number)
        raise KeyboardInterrupt

    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield noted
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def open_missing_streams() -> None:
    """Open those of descriptors 0 to 2 that the caller has closed, and escape what a stream's encoding lacks.

    A file that is opened later would otherwise get the number of a closed one, and be written to.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def is_writable(stream: Any) -> bool:
    """Whether what was printed to a stream can be written; a stream that the caller closed takes anything."""
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):
        return False
    return True


def abandon_broken_streams() -> None:
    """Drop what cannot be written; Python would otherwise report it when the process ends."""
    for stream in (sys.stdout, sys.stderr):
        if not is_writable(stream):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def report(error: Exception | KeyboardInterrupt) -> int:
    """Print an error of a command as one line; returns the exit status."""
    if isinstance(error, UserError):
        if not is_rank_0() and not error.of_one_rank:
            return error.status
        hints = [] if error.run is None else [f"resume with: {resume_command(error.run)}"]
        return fail(error.text, error.code, error.status, *hints)
    if isinstance(error, KeyboardInterrupt):
        return fail("interrupted", "interrupted", 130)
    return report_os_error(error) if isinstance(error, OSError) else report_unforeseen(error)


def report_os_error(error: OSError) -> int:
    """Output that cannot be written, or a file of which the system refused something that no command foresaw."""
    if isinstance(error, OutputFailed) or not is_writable(sys.stdout):
        if error.errno == errno.EPIPE:  # the reader, for example `| head`, has closed the pipe
            return 128 + 13
        return fail(f"cannot write to standard output: {error.strerror or error}", "output-failed", 74)
    if error.filename is None:
        return report_unforeseen(error)
    return fail(f"the system refused to use {error.filename}: {error.strerror or error}", "system-refused", 1)


def report_unforeseen(error: Exception) -> int:
    """One line about an exception that no code foresaw, and a report of it in a file."""
    if isinstance(error, MemoryError) or ("torch" in sys.modules and is_out_of_memory(error)):
        return fail("no memory is left for this command; close other programs, or ask for less", "out-of-memory", 1)
    what = f"{type(error).__name__}: {error}"[:300]
    try:
        where = f"a report is in {write_report(error)}"
    except Exception as failure:
        where = f"no report could be written ({failure})"
    return fail(f"an error that ptarmigan did not foresee: {what}; {where}", "internal-error", 70)


def is_out_of_memory(error: Exception) -> bool:
    from ptarmigan.core.devices import out_of_memory

    return isinstance(error, RuntimeError) and out_of_memory(error)


def write_report(error: Exception) -> Path:
    """Write the traceback, the command and the versions to a new file, in the cache's folder or the system's for
    temporary files -> its path."""
    import platform
    import tempfile
    import time
    import traceback

    def in_cache() -> Path:
        from ptarmigan.data.cache import cache_folder

        return cache_folder() / "reports"

    torch = sys.modules.get("torch")
    text = "\n".join([
        f"command   {shlex.join(CALL.get())}",
        f"versions  ptarmigan {__version__}, python {platform.python_version()}, "
        f"torch {getattr(torch, '__version__', 'not imported')}, {platform.platform()}",
        "",
        "".join(traceback.format_exception(error)),
    ])  # fmt: skip
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    places: list[Callable[[], Path]] = [in_cache, lambda: Path(tempfile.gettempdir()) / "ptarmigan-reports"]
    for place in places:
        with suppress(Exception):
            folder = place()
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
            return folder / name
    raise UserError("neither the cache nor the folder for temporary files can be written", "file-unwritable")


def say(*lines: str, wrap: bool = False) -> None:
    """Print lines to standard output, with control characters escaped; without rich, which takes long to import.

    With `wrap` a terminal shows a longer line as several, which break between words.
    """
    try:
        columns = shutil.get_terminal_size().columns if wrap and sys.stdout.isatty() else 0
        for line in map(printable, lines):
            print(wrapped(line, columns) if columns else line)
    except OSError as error:
        raise OutputFailed(error.errno, error.strerror) from None


def fail(text: str, code: str, status: int, *hints: str) -> int:
    """Print an error to standard error, if that can be written; returns the exit status."""
    from ptarmigan.core.terminal import Terminal

    terminal = Terminal(stderr=True)
    with suppress(OSError):
        terminal.say(f"ptarmigan: {brief(text)} [{code}]", style="red", wrap=True)
        for line in hints:  # commands, which stay on one line
            terminal.say(line, style="red")
    return status


def resume_command(run: Path) -> str:
    """The command that was given, with --out naming its run folder, under torchrun if that started it."""
    arguments = [*map(quote, CALL.get()[1:])]
    if not any(argument.split("=")[0] == "--out" for argument in CALL.get()[1:]):
        arguments += ["--out", quote_path(str(run))]
    return " ".join([launcher(), *arguments])


def launcher() -> str:
    """What starts this program again: torchrun on as many processes if they are there, or else the program itself.

    The options of torchrun are not known, other than the numbers of machines and of processes on each.
    """
    if not under_torchrun():
        return program()
    torchrun = "torchrun" if shutil.which("torchrun") else f"{python()} -m torch.distributed.run"
    processes = os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])
    machines = os.environ.get("GROUP_WORLD_SIZE", "1")
    several = "" if machines == "1" else f" --nnodes {quote(machines)} [and its other options]"
    return f"{torchrun}{several} --nproc-per-node {quote(processes)} -m ptarmigan"


def program() -> str:
    """`ptarmigan`, the path that it was called by if the shell finds no such program, or `python -m ptarmigan`."""
    called = Path(CALL.get()[0])
    if called.name == "__main__.py" and called.parent.name == "ptarmigan":
        return f"{python()} -m ptarmigan"
    if called.stem != "ptarmigan" or found_as("ptarmigan", str(called)):
        return "ptarmigan"
    return quote(str(called))


def python() -> str:
    return "python" if found_as("python", sys.executable) else quote(sys.executable)


def found_as(name: str, path: str) -> bool:
    """Whether the shell finds the program at `path` by its name."""
    found = shutil.which(name)
    with suppress(OSError):  # a relative path in a folder that was deleted
        return found is not None and os.path.abspath(found) == os.path.abspath(path)
    return False


def quote(text: str) -> str:
    """Text as one word for a shell, even where the terminal cannot show it; bash and zsh read $'...'."""
    with suppress(UnicodeEncodeError):
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
        if text.isprintable():
            return shlex.quote(text)
    parts = (
        f"\\{char}" if char in "'\\" else char if " " <= char <= "~" else "".join(f"\\x{byte:02x}" for byte in content)
        for char in text
        for content in [char.encode(errors="surrogateescape")]
    )
    return f"$'{''.join(parts)}'"


def quote_path(path: str) -> str:
    """A path as one word for a shell, which no command takes for a flag."""
    return quote(f"./{path}" if path.startswith("-") else path)
