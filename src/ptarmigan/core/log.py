"""metrics.jsonl, the source of every plot, and what a person sees while a run goes on."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from ptarmigan.core.types import UserError


class Metrics:
    """RUN/metrics.jsonl: one line a tick, each with its CRC-32.

    Where two lines speak of the same images, the later attempt holds.  Without a path nothing is written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path is None:
            return
        self.attempt = 1 + max((line["attempt"] for line in read(path)), default=0)
        content = path.read_bytes() if path.exists() else b""
        if content and not content.endswith(b"\n"):  # a killed run's half line
            os.truncate(path, content.rfind(b"\n") + 1)

    def write(self, images_seen: int, **values: Any) -> None:
        if self.path is None:
            return
        line = {"images_seen": images_seen, "attempt": self.attempt, **values}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**line, "crc": _crc(line)}) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics.jsonl as they were written; a torn or damaged one is skipped."""
    for line in _lines(path):
        try:
            value = json.loads(line)
            good = value.pop("crc") == _crc(value)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        if good:
            yield value


def damaged(path: Path) -> int:
    """How many lines of a metrics.jsonl `read` leaves out."""
    return len(_lines(path)) - sum(1 for _ in read(path))


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return [line for line in text.split("\n") if line]


def _crc(line: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(line).encode())


class Display:
    """A live bar on a terminal, the named terms below it; elsewhere one plain line a tick."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[text]}"),
            console=console,
        )
        self.terms = Text()
        self.live = Live(Group(self.progress, self.terms), console=console, transient=True)
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def preparing(self, done: int, total: int) -> None:
        """Progress of reading the data."""
        self._update("reading images", done / max(total, 1), f"{done:,} of {total:,}")
        if done >= total:
            self.progress.remove_task(self.tasks.pop("reading images"))

    def tick(self, images: int, share: float, rate: float, left: float, values: dict[str, float]) -> None:
        """Progress of training: `share` of the budget done, images/s, seconds left, the means of the terms."""
        text = f"{images:,} images  {rate:,.0f}/s  {duration(left)} left"
        terms = "  ".join(f"{name} {value:.3g}" for name, value in values.items() if not name.endswith("_grad"))
        if self.console.is_terminal:
            self.terms.plain = terms
            self._update("training", share, f"{share:4.0%}  {text}")
        else:
            self.say(f"{share:4.0%}  {text}  {terms}")

    def _update(self, name: str, share: float, text: str) -> None:
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name, total=1.0, text="")
        self.progress.update(self.tasks[name], completed=share, text=text)


def duration(seconds: float) -> str:
    """Seconds in words: 45s, 2m05s, 1h10m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"
