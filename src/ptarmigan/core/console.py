"""The progress of a run, as a person sees it."""

from __future__ import annotations

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from ptarmigan.core.terminal import Terminal as Terminal


class Display:
    """Progress of a run: on a terminal a live bar above the loss terms, elsewhere one plain line per tick."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[text]}"),
            console=terminal,
        )
        self.terms = Text()
        self.live = Live(Group(self.progress, self.terms), console=terminal, transient=True)
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Display:
        if self.terminal.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def say(self, text: str) -> None:
        self.terminal.say(text)

    def preparing(self, what: str, done: int, total: int | None) -> None:
        """Progress of reading the data: an OnProgress."""
        self._update(what, done / max(total or 0, 1), f"{done:,} of {total:,}" if total else f"{done:,}")
        if total is not None and done >= total:
            self.progress.remove_task(self.tasks.pop(what))

    def tick(self, images: int, share: float, rate: float, left: float, values: dict[str, float]) -> None:
        """Progress of training: `share` of the budget done, images/s, seconds left, the means of the terms."""
        text = f"{images:,} images  {rate:,.0f}/s  {duration(left)} left"
        terms = "  ".join(f"{name} {value:.3g}" for name, value in values.items() if not name.endswith("_grad"))
        if self.terminal.is_terminal:
            self.terms.plain = terms
            self._update("training", share, f"{share:4.0%}  {text}")
        else:
            self.say(f"{share:4.0%}  {text}  {terms}")

    def _update(self, name: str, share: float, text: str) -> None:
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name, total=1.0, text="")
        self.progress.update(self.tasks[name], completed=share, text=text)


def duration(seconds: float) -> str:
    """Seconds as people write them: 45s, 2m05s, 1h10m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"
