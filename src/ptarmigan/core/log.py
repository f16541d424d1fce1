"""RUN/metrics.jsonl, the source of every plot: one JSON object a line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ptarmigan.core.records import LogLine, fits
from ptarmigan.core.types import UserError


class Metrics:
    """Writes a metrics.jsonl, one line a tick, numbered by attempt; without a path nothing is written.

    A resumed run may write a second line for the same images.  The line of the later attempt counts.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path is None:
            return
        self.attempt = 1 + max((line["attempt"] for line in read_log(path)), default=0)
        content = path.read_bytes() if path.exists() else b""
        if content and not content.endswith(b"\n"):  # the process was killed while it wrote this line
            os.truncate(path, content.rfind(b"\n") + 1)

    def write(self, images_seen: int, **values: Any) -> None:
        """Append a line; raises UserError (file-unwritable)."""
        if self.path is None:
            return
        line = {"images_seen": images_seen, "attempt": self.attempt, **values}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}", "file-unwritable") from error


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics.jsonl as they were written; a damaged or torn line is skipped."""
    for text in _lines(path):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if fits(line, LogLine):
            yield line


def damaged_lines(path: Path) -> int:
    """The number of lines of a metrics.jsonl that `read_log` skips."""
    return len(_lines(path)) - sum(1 for _ in read_log(path))


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return [line for line in text.split("\n") if line]
