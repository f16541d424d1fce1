"""The progress of a run, as a person sees it."""

from __future__ import annotations

import importlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from ptarmigan.core.terminal import Terminal as Terminal
from ptarmigan.core.terminal import notebook_shell

TICK = 0.5  # seconds between two lines of progress, however short a tick is
SILENCE = 1.7  # seconds without a line after which `Display` says what goes on


class Display:
    """Progress of a run: on a terminal and in a notebook a live bar above the loss terms, elsewhere plain lines.

    Nothing that goes on is silent for more than SILENCE seconds.  Output that fails (a closed pipe, a full disk, a lost
    terminal) is given up, and never ends the run.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[text]}"),
            Remaining(),
            console=terminal,
        )
        self.terms = Text()
        self.live = Live(Group(self.progress, self.terms), console=terminal, transient=True, auto_refresh=False)
        self.cell = NotebookCell.find()
        self.shows_bar = terminal.is_terminal or (self.cell is not None and not terminal.quiet)
        self.tasks: dict[str, TaskID] = {}
        self.given_up = False
        self.one_at_a_time = threading.RLock()  # rich erases a line too many where two threads print above the bar
        self.activity = self.outer_activity = ""  # what goes on, in words; "" for nothing that takes time
        self.begun = self.spoke = time.monotonic()  # when `activity` was set, when the last line was printed
        self.ticked = -TICK  # when the last line of progress was printed
        self.left = threading.Event()
        self.heartbeat = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Display:
        if self.terminal.is_terminal:
            self._output(self.live.start)
        self.heartbeat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.left.set()
        self.heartbeat.join()
        self._output(self.live.stop)
        if self.cell is not None:
            self.cell.show("")

    def say(self, text: str) -> None:
        self._output(lambda: self.terminal.say(text, wrap=True))
        self.spoke = time.monotonic()

    def note(self, text: str) -> None:
        """Say a note: on a terminal what stands before its first bracket or semicolon, elsewhere the whole of it."""
        head = re.split(r" \(|; ", text, maxsplit=1)[0] if self.terminal.is_terminal else text
        self.say(f"note: {head}{' ...' * (head != text)}")

    def show(self, picture: Text) -> None:
        """Print a picture of characters, above the bar."""
        self._output(lambda: self.terminal.print(picture))

    @contextmanager
    def doing(self, what: str, at_once: bool = False) -> Iterator[None]:
        """Show `what` while the block runs; without a terminal only if nothing else is printed for SILENCE seconds,
        or `at_once`."""
        before, self.outer_activity = self.outer_activity, what
        self._set_activity(what)
        self._update(what, None, "")
        if at_once and not self.shows_bar:
            self.say(what)
        try:
            yield
        finally:
            self.outer_activity = before
            self._set_activity(before)
            self._remove(what)

    def preparing(self, what: str, done: int, total: int | None) -> None:
        """Progress of a slow task: an OnProgress.  Without a number done and a total, only `what` is shown."""
        text = f"{done:,} of {total:,}" if total else f"{done:,}" if done else ""
        if total is not None and done >= total:
            self._set_activity(self.outer_activity)
            self._remove(what)
            return
        for other in set(self.tasks) - {what, "training"}:
            self._remove(other)
        self._update(what, done / total if total else None, text)
        self._set_activity(f"{what}: {text}" if text else what)
        self._break_silence()

    def training(self) -> None:
        """From here on training is what goes on, but for what `doing` shows."""
        self.outer_activity = "training"
        self._set_activity("training")

    def tick(self, images: int, share: float, rate: float, left: float, values: dict[str, float]) -> None:
        """Progress of training: `share` of the budget done, images/s, seconds left, the means of the terms."""
        self._set_activity(self.outer_activity)
        speed = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
        text = f"{images:,} images  {speed}/s  {duration(left)} left"
        terms = "  ".join(f"{name} {value:.3g}" for name, value in values.items() if not name.endswith("_grad"))
        if self.shows_bar:
            self.terms.plain = terms
            self._update("training", share, f"{share:4.0%}  {text}")
        elif share >= 1 or time.monotonic() - self.ticked >= TICK:
            self.ticked = time.monotonic()
            self.say(f"{share:4.0%}  {text}  {terms}")

    def _set_activity(self, text: str) -> None:
        self.activity, self.begun = text, time.monotonic()

    def _update(self, name: str, share: float | None, text: str) -> None:
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name, total=1.0 if share is not None else None, text="")
        self.progress.update(self.tasks[name], completed=share or 0.0, text=text)

    def _remove(self, name: str) -> None:
        if name in self.tasks:
            self.progress.remove_task(self.tasks.pop(name))

    def _beat(self) -> None:
        while not self.left.wait(0.25):
            if self.terminal.is_terminal:
                self._output(self.live.refresh)
            elif self.cell is not None and self.shows_bar:
                self.cell.show(in_text(self.live.renderable))
            else:
                self._break_silence()

    def _break_silence(self) -> None:
        """Print a line that says what goes on, if none was printed for SILENCE seconds."""
        now = time.monotonic()
        if self.activity and not self.shows_bar and now - self.spoke >= SILENCE:
            since = now - self.begun
            self.say(self.activity + (f", {duration(since)} so far" if since >= SILENCE else ""))

    def _output(self, show: Callable[[], object]) -> None:
        if self.given_up:
            return
        with self.one_at_a_time:
            try:
                show()
            except (OSError, ValueError):
                self.given_up = True


class Remaining(TimeRemainingColumn):
    """How long a task will still take; training tells it itself."""

    def render(self, task: Task) -> Text:
        return Text() if task.description == "training" else super().render(task)


class NotebookCell:
    """A text below a cell of a notebook that can be replaced: it needs no widgets."""

    def __init__(self, handle: Any) -> None:
        self.handle, self.text = handle, ""
        self.shown = False

    @classmethod
    def find(cls) -> NotebookCell | None:
        """A place below the cell that runs; None where this process is no kernel of a notebook."""
        if notebook_shell() is None:
            return None
        return cls(importlib.import_module("IPython.display").DisplayHandle())

    def show(self, text: str) -> None:
        if text != self.text:
            (self.handle.update if self.shown else self.handle.display)({"text/plain": text}, raw=True)
            self.text, self.shown = text, True


def in_text(renderable: Any) -> str:
    """What rich would print, without colours."""
    console = Console(file=StringIO(), width=100, color_system=None, force_jupyter=False, force_terminal=False)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get().rstrip()


def duration(seconds: float) -> str:
    """Seconds as people write them: 45s, 2m05s, 1h10m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"
