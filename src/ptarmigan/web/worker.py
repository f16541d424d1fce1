"""Work of the server that takes long, one piece at a time, in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

from ptarmigan.core.types import UserError

T = TypeVar("T")
MOST_WAITING = 64  # requests


class Worker:
    """Computes one thing at a time, so that requests share the device in turn and the server goes on to answer."""

    def __init__(self) -> None:
        self.lock, self.waiting = asyncio.Lock(), 0

    async def compute(self, work: Callable[[], T]) -> T:
        """What `work()` returns; raises UserError (server-busy) where too many requests wait already."""
        if self.waiting >= MOST_WAITING:
            raise UserError(f"{self.waiting} requests wait for the generator: try again in a while", "server-busy")
        self.waiting += 1
        try:
            async with self.lock:
                return await run_in_threadpool(work)
        finally:
            self.waiting -= 1
