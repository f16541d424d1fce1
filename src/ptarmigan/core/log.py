"""RUN/metrics.jsonl, the source of every plot: one JSON object a line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ptarmigan.core.records import LogLine, fits
from ptarmigan.core.types import UserError


class Metrics:
    """Writes a metrics.jsonl, one line a tick, numbered by attempt; without a path nothing is written.

    A resumed run may write a second line for the same images.  The line of the later attempt counts.  Lines that the
    system refuses to write are kept and tried again at the next line; `say` is told so once.
    """

    def __init__(self, path: Path | None, say: Callable[[str], object] | None = None) -> None:
        self.path, self.say = path, say
        self.round = 1
        self.before: int | None = None  # the last attempt in the file; None: it has not been read yet
        self.unwritten: list[tuple[int, int, dict[str, Any]]] = []  # round, images seen and values of each line
        self.error: OSError | None = None

    def new_attempt(self) -> None:
        """Number the lines from here on as those of another attempt."""
        self.round += 1

    def write(self, images_seen: int, **values: Any) -> None:
        """Append a line, or keep it until the file can be written."""
        if self.path is None:
            return
        self.unwritten.append((self.round, images_seen, values))
        try:
            self._append(self.path)
        except OSError as error:
            if self.error is None and self.say is not None:
                self.say(f"note: {self._refused(error)}; training goes on, and the lines are kept for later")
            self.error = error

    def close(self) -> None:
        """Try the lines that are left once more; raises UserError (file-unwritable) if they cannot be written."""
        if self.path is None or not self.unwritten:
            return
        try:
            self._append(self.path)
        except OSError as error:
            lines = f"{len(self.unwritten):,} line{'s' * (len(self.unwritten) > 1)} of the log"
            raise UserError(f"{self._refused(error)}: {lines} are lost, the run is saved", "file-unwritable") from error

    def _refused(self, error: OSError) -> str:
        return f"cannot write {self.path}: {error.strerror or error}"

    def _append(self, path: Path) -> None:
        with path.open("ab+", buffering=0) as file:
            if self.before is None:
                file.seek(0)
                written = file.read()
                file.truncate(written.rfind(b"\n") + 1)  # the process may have been killed while it wrote a line
                self.before = max((line["attempt"] for line in _parsed(written.decode(errors="replace"))), default=0)
            size = file.seek(0, os.SEEK_END)
            lines = [{"images_seen": seen, "attempt": self.before + n, **values} for n, seen, values in self.unwritten]
            content = "".join(json.dumps(line) + "\n" for line in lines).encode()
            try:
                while content:
                    content = content[file.write(content) :]
            except OSError:
                with suppress(OSError):
                    file.truncate(size)
                raise
        self.unwritten.clear()


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics.jsonl as they were written; a damaged or torn line is skipped.

    Raises UserError (file-unreadable) where the system refuses to read it; a missing file has no lines.
    """
    return _parsed(_text(path))


def read_rows(path: Path) -> dict[int, dict[str, Any]]:
    """What a metrics.jsonl says at each number of images seen, in their order; raises UserError as `read_log` does.

    The last attempt wins: what an earlier one wrote beyond the start of a later one is left out.
    """
    rows: dict[int, dict[str, Any]] = {}
    attempt = 0
    for line in read_log(path):
        seen = line["images_seen"]
        if line["attempt"] > attempt:
            attempt = line["attempt"]
            rows = {at: row for at, row in rows.items() if at <= seen}
        rows[seen] = rows.get(seen, {}) | line
    return rows


def damaged_lines(path: Path) -> int:
    """The number of lines of a metrics.jsonl that `read_log` skips; raises UserError as it does."""
    text = _text(path)
    return sum(1 for line in text.split("\n") if line) - sum(1 for _ in _parsed(text))


def _parsed(text: str) -> Iterator[dict[str, Any]]:
    for one in text.split("\n"):
        try:
            line = json.loads(one)
        except (ValueError, RecursionError):
            continue
        if fits(line, LogLine):
            yield line


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}", "file-unreadable") from None
