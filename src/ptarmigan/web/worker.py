"""Work of the server that takes long, one piece at a time, in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool

T = TypeVar("T")


class Worker:
    """Computes one thing at a time, so that requests share the device in turn and the server goes on to answer."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.kept: dict[str, tuple[object, Any]] = {}

    async def compute(self, work: Callable[[], T]) -> T:
        async with self.lock:
            return await run_in_threadpool(work)

    async def once(self, name: str, version: object, work: Callable[[], T]) -> T:
        """What `work()` returned when it was last called under this name with an equal version, or else returns now."""
        async with self.lock:
            if name not in self.kept or self.kept[name][0] != version:
                self.kept[name] = version, await run_in_threadpool(work)
            result: T = self.kept[name][1]
            return result
