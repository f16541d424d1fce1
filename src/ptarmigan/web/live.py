"""What is new in the runs, as server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from starlette.concurrency import run_in_threadpool

from ptarmigan.core.types import UserError
from ptarmigan.generator.header import is_locked
from ptarmigan.web.runs import described, find_runs, signature

EVERY = 1.0  # seconds between two looks at the runs
PAUSE = 20  # times as long as a look took, before the next one: reading long logs takes 5 % of a core at most
QUIET = 15.0  # seconds after which a stream says that it is still there


class State(NamedTuple):
    """A run as it was when one last looked."""

    signature: tuple[object, ...]
    version: int  # grows with every change of any run
    training: bool
    event: bytes

    def is_old(self, run: Path) -> bool:
        """Whether there is something new; a process that was killed changes no file, and leaves the lock open."""
        return self.signature != signature(run) or (self.training and not is_locked(run))


class Live:
    """The newest state of each run.  A stream sends what changed since it last sent something, and queues nothing.

    `given` are runs and folders of runs; `private`: whether training images may be shown.
    """

    def __init__(self, given: Sequence[Path], private: bool) -> None:
        self.given, self.private = given, private
        self.runs: dict[str, Path] = {}
        self.states: dict[str, State] = {}
        self.version = self.streams = 0
        self.changed, self.ended = asyncio.Condition(), False

    def look(self) -> None:
        """Find new runs, and describe those that changed, until the server ends."""
        self.runs |= find_runs(self.given)
        for key, run in self.runs.items():
            if self.ended:
                return
            if key not in self.states or self.states[key].is_old(run):
                now, content = signature(run), described(run, self.private)
                training = content.get("state", "").startswith("training")
                event = b"data: " + msgspec.json.encode(content) + b"\n\n"  # NaN is null
                self.states[key] = State(now, self.version + 1, training, event)
                self.version += 1

    async def watch(self) -> None:
        """Look again and again, while somebody reads a stream."""
        while True:
            spent = 0.0
            if self.streams:
                begun, before = time.monotonic(), self.version
                await run_in_threadpool(self.look)
                spent = time.monotonic() - begun
                if self.version > before:
                    await self.tell()
            await asyncio.sleep(max(EVERY, PAUSE * spent))

    async def tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def end(self) -> None:
        """End all streams."""
        self.ended = True
        await self.tell()

    async def stream(self) -> AsyncIterator[bytes]:
        """The state of every run, and then each that changes."""
        seen = 0
        self.streams += 1
        try:
            while not self.ended:
                before, seen = seen, self.version
                for state in list(self.states.values()):
                    if state.version > before:
                        yield state.event
                try:
                    async with asyncio.timeout(QUIET), self.changed:
                        await self.changed.wait_for(lambda: self.version > seen or self.ended)  # noqa: B023
                except TimeoutError:
                    yield b": nothing new\n\n"
        finally:
            self.streams -= 1

    def run(self, key: str) -> Path:
        """The run of an address; raises UserError (path-not-found)."""
        if key not in self.runs:
            raise UserError(f"there is no run {key!r:.40}", "path-not-found")
        return self.runs[key]
