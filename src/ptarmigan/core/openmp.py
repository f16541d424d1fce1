"""How the threads of OpenMP wait for each other, which decides the speed beside other busy processes.

By default the threads of libgomp, which torch uses on Linux, spin for some 20 ms at each barrier before they sleep.
Where the thread that they wait for is not running, because another process has its core, that keeps a core from it.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing or threading would delay the handler of Ctrl-C: `ptarmigan` imports this first
if TYPE_CHECKING:
    from threading import Thread

SPINS = "30000"  # about 2 ms; fewer cost speed on a quiet machine: benchmarks/loaded.py


def bound_spinning() -> None:
    """Let threads sleep after SPINS, unless the user has set how they wait.  libgomp reads this when torch loads it."""
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


class ShortWaits:
    """Lets the threads of this process sleep almost at once when they wait; results do not change.

    libgomp does so by itself while it has more threads than there are cores, so it is switched on by a thread with
    OpenMP threads of its own, all of which sleep.  With another OpenMP that thread has no effect.
    """

    def __init__(self) -> None:
        self.thread: Thread | None = None

    def switch(self, on: bool) -> None:
        import threading

        if on and self.thread is None:
            self.left = threading.Event()
            self.thread = threading.Thread(target=self._hold, daemon=True)
            self.thread.start()
        elif not on and self.thread is not None:
            self.left.set()
            self.thread.join()
            self.thread = None

    def _hold(self) -> None:
        import torch

        torch.ones(1 << 20).add_(1)  # large enough to be divided among threads
        self.left.wait()
