"""Read many image files at once, in threads or in processes; a file that cannot be read is an answer, not an error.

Pillow releases Python's lock while it decodes and resizes, so for a few cores threads are as good.  What lies between
holds the lock: a sixth of the time of a JPEG of 256x256, most of that of an icon.  So many files are read in processes.
"""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from PIL import Image, UnidentifiedImageError

from ptarmigan.data.decode import DECODING_BYTES, Limits, Memory, Refused
from ptarmigan.data.scan import begins_as_image
from ptarmigan.data.storage import Storage

T = TypeVar("T")
Work = Callable[..., T]  # work(file, limits=...); it can be pickled
MANY = 2000  # files; from here on processes save time, although each takes about .25 s to start
MOST = 16  # processes; each takes about 50 MB
BATCH = 16  # files that are read in one go
IN_FLIGHT = 256  # files whose results may wait for their turn, which bounds the memory used
# The package gets no __init__, which imports much that a process does not use: it would take half of its start.
START = """
import sys, types
package = sys.modules["ptarmigan.data"] = types.ModuleType("ptarmigan.data")
package.__path__ = [sys.argv[1] + "/ptarmigan/data"]
sys.path.insert(0, sys.argv[1])
from ptarmigan.data.workers import main
main()
"""
READY = b"\1"
OTHERS = {  # what files that are named as images often are, by their first bytes
    "Git LFS's pointer to one; `git lfs pull` downloads it": rb"version https://git-lfs",
    "HEIC, which is not read; export it as JPEG": rb".{4}ftyp(hei[cx]|hev[cx]|mif1)",
    "a web page": rb"\s*<(!doctype )?html",
}
DAMAGED = re.compile("broken|decoder|failed to read|checksum|data stream|invalid literal|too long in file header")


class Failure(NamedTuple):
    """Why a file cannot be read: a reason in few words, which other files may share, and a detail of this file."""

    reason: str
    detail: str = ""


def read_files(
    storage: Storage, paths: Sequence[str], work: Work[T], limits: Limits, in_processes: bool = False
) -> Iterator[T | Failure]:
    """The result of work(file, limits=...) for each file, in order; in processes if that is wanted and worth it."""
    in_order = storage.order is not None  # each process would have to read what lies before its files
    count, size = min(cores(), MOST), 1 if in_order else BATCH
    with pillow_without_warnings(), ExitStack() as stack:
        processes = None
        if in_processes and not in_order and count > 1 and len(paths) >= MANY and sys.executable:
            processes = stack.enter_context(Processes(storage, work, limits.max_pixels, count))

        def read(batch: Sequence[str]) -> list[T | Failure]:
            answers: list[Any] = processes.read(batch) if processes else [None] * len(batch)
            return [
                _attempt(storage, path, work, limits) if answer is None else answer
                for path, answer in zip(batch, answers, strict=True)
            ]

        pool = stack.enter_context(ThreadPoolExecutor(count))
        stack.callback(pool.shutdown, cancel_futures=True)
        pending: deque[Future[list[T | Failure]]] = deque()
        for start in range(0, len(paths), size):
            pending.append(pool.submit(read, paths[start : start + size]))
            if len(pending) * size >= IN_FLIGHT:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _attempt(storage: Storage, path: str, work: Work[T], limits: Limits) -> T | Failure:
    try:
        with storage.open(path) as file:
            return attempt(file, work, limits)
    except OSError as error:
        return Failure(error.strerror or type(error).__name__)


def attempt(file: IO[bytes], work: Work[T], limits: Limits) -> T | Failure:
    """The result of work(file, limits=...), or why there is none."""
    try:
        return work(file, limits=limits)
    except TooLarge:
        raise
    except Exception as error:  # a damaged file can make Pillow raise anything
        return reason_of(error, file)


class TooLarge(Exception):
    """An image needs more memory than a process may use."""


class Share(Memory):
    """The memory of one process of several."""

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        if count > self.size:
            raise TooLarge
        with super().hold(count):
            yield


class Processes:
    """A process for each thread that calls `read`; they end when this does, or this process."""

    def __init__(self, storage: Storage, work: Work[Any], max_pixels: int, count: int) -> None:
        self.task = pickle.dumps((storage, work, max_pixels, DECODING_BYTES // count))
        self.of_thread = threading.local()
        self.started: list[subprocess.Popen[bytes]] = []
        self.failed = False  # to start one: then all files are read in this process

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.started:
            _end(process)

    def read(self, paths: Sequence[str]) -> list[Any]:
        """The answer for each file; None for those that are to be read in this process."""
        process = getattr(self.of_thread, "process", None) or self._start()
        if process is None:
            return [None] * len(paths)
        try:
            pickle.dump(paths, process.stdin)
            process.stdin.flush()
            answers: list[Any] = pickle.load(process.stdout)
            return answers
        except (OSError, EOFError, pickle.UnpicklingError):  # it died, perhaps of one of the files
            self.of_thread.process = None
            status = _end(process)
            if len(paths) > 1:
                return [answer for path in paths for answer in self.read([path])]
            return [Failure("it ended the process that decoded it", _ending(status))]

    def _start(self) -> Any:
        if self.failed:
            return None
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, str(Path(__file__).parents[2])],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError:
            self.failed = True
            return None
        self.started.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(OSError):
            process.stdin.write(self.task)
            process.stdin.flush()
        if process.stdout.read(1) != READY:
            self.failed = True
            return None
        self.of_thread.process = process
        return process


def _end(process: subprocess.Popen[bytes]) -> int:
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            pipe.close()  # type: ignore[union-attr]
    process.kill()
    return process.wait()


def _ending(status: int) -> str:
    with suppress(ValueError):
        return signal.Signals(-status).name
    return f"status {status}"


def main() -> None:
    """A process of `Processes`: it reads lists of paths from standard input and writes lists of answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the first ends the rest
    paths, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    storage, work, max_pixels, memory = pickle.load(paths)
    limits = Limits(max_pixels, Share(memory))
    answers.write(READY)
    answers.flush()
    with pillow_without_warnings(), suppress(EOFError, BrokenPipeError):
        while True:
            batch: list[Any] = []
            for path in pickle.load(paths):
                try:
                    batch.append(_attempt(storage, path, work, limits))
                except TooLarge:
                    batch.append(None)
            pickle.dump(batch, answers)
            answers.flush()


@contextmanager
def pillow_without_warnings() -> Iterator[None]:
    """Silence Pillow's warnings about unusual files, and lift its limit of pixels: ours is checked instead."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def reason_of(error: Exception, file: IO[bytes]) -> Failure:
    """Why a file could not be read."""
    if isinstance(error, Refused):
        return Failure(str(error), error.detail)
    if isinstance(error, UnidentifiedImageError):
        return Failure("damaged" if begins_as_image(file) else f"not an image{_what_else(file)}")
    if isinstance(error, OSError) and error.strerror:
        return Failure(error.strerror)
    text = " ".join(str(error).split()) or type(error).__name__
    if "truncated" in text.lower():
        return Failure("truncated")
    if "MAX_TEXT" in text:
        return Failure("its texts or colour profile are too large")
    return Failure("damaged" if DAMAGED.search(text) else text)


def _what_else(file: IO[bytes]) -> str:
    file.seek(0)
    head = file.read(64)
    return next((f" but {what}" for what, first in OTHERS.items() if re.match(first, head, re.I | re.S)), "")
