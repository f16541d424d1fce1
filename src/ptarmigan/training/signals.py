"""What a run does at Ctrl-C, SIGTERM and the other signals that end a process."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptarmigan.core import dist
from ptarmigan.core.types import UserError

ENDING = (  # signals that end a process unless it handles them, but for those of its own faults
    "SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGXCPU",
    "SIGIO", "SIGPWR", "SIGBREAK",
)  # fmt: skip
ECHO_SECONDS = 1.0


class Stopped(UserError):
    """A signal stopped the run early, and its state was saved.  The exit status is 128 plus the signal's number."""

    code = "stopped"

    def __init__(self, text: str, number: int, run: Path | None = None) -> None:
        super().__init__(text)
        self.status = 128 + number
        self.run = run


class Interrupted(KeyboardInterrupt):
    """What a signal raises outside of training steps; in a snapshot, where that can be left off and made later."""


@contextmanager
def signals_stop() -> Iterator[None]:
    """Let a signal that would end the process raise Stopped instead, so that no lock or unfinished file is left.

    Ctrl-C raises KeyboardInterrupt as usual.  Several ranks are left to torchrun, because a rank that waits for others
    in C++ handles no signal.
    """
    numbers = [] if dist.world() > 1 else [n for n in ending_signals() if signal.getsignal(n) is signal.SIG_DFL]
    try:
        with handled(numbers, leave):
            yield
    except Interrupted as error:
        name = signal.Signals(error.args[0]).name
        raise Stopped(
            f"stopped by {name} outside of training; what was saved before is complete", error.args[0]
        ) from None


def leave(number: int, _: object) -> None:
    raise Interrupted(number)


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Record the first signal that would end the process in a list; a later one is handled as usual.

    What follows within ECHO_SECONDS is taken for the same one, because shells and torchrun pass on what the process has
    received already.  Signals that are ignored (nohup) or that have a handler of the caller's stay as they are, except
    that Ctrl-C and SIGTERM are always recorded.
    """
    received: list[int] = []
    first = 0.0

    def note(number: int, _: object) -> None:
        nonlocal first
        if not received:
            received.append(number)
            first = time.monotonic()
        elif time.monotonic() - first > ECHO_SECONDS:
            restore()
            signal.raise_signal(number)

    always = signal.SIGINT, signal.SIGTERM
    numbers = [n for n in ending_signals() if n in always or signal.getsignal(n) in (signal.SIG_DFL, leave)]
    with handled(numbers, note) as restore:
        yield received


def ending_signals() -> list[signal.Signals]:
    """The signals of ENDING that this system has; none outside of the main thread, which alone may handle them."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [getattr(signal, name) for name in ENDING if hasattr(signal, name)]


@contextmanager
def handled(numbers: list[signal.Signals], handler: Callable[[int, Any], None]) -> Iterator[Callable[[], None]]:
    """Handle these signals with `handler` while the block runs; yields what restores the handlers of before."""
    before = {number: signal.signal(number, handler) for number in numbers}

    def restore() -> None:
        for number, previous in before.items():
            signal.signal(number, previous)

    try:
        yield restore
    finally:
        restore()
