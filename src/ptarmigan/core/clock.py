"""The user's time: what passes on the clock from a command to its end, without that in which the process is stopped."""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar

# When this process was started as a command, on time.monotonic; None: it was not, and a clock starts when it is made
COMMAND: ContextVar[float | None] = ContextVar("COMMAND", default=None)
BEAT_SECONDS = 0.5
STOP_SECONDS = 5.0  # a longer gap between two beats is a stop of the process (Ctrl-Z, a closed lid)


class Clock:
    """Seconds since the command was given, without those in which the process was stopped.

    While the clock is open a thread beats, however long one step of the program takes; so a gap without a beat is one
    in which no thread of the process ran.
    """

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.start_up = self.last - (COMMAND.get() or self.last)  # seconds that the command needed to get here
        self.spent = self.start_up
        self.lock, self.left = threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Clock:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.left.set()
        self.thread.join()

    def seconds(self) -> float:
        with self.lock:
            now = time.monotonic()
            gap = now - self.last
            self.spent += gap if gap < STOP_SECONDS else BEAT_SECONDS
            self.last = now
            return self.spent

    def add(self, seconds: float) -> None:
        """Count these seconds too, such as those of a run's earlier calls; a negative number leaves some out."""
        with self.lock:
            self.spent += seconds

    def _beat(self) -> None:
        while not self.left.wait(BEAT_SECONDS):
            self.seconds()
