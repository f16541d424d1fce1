"""The order in which the images of a stream are drawn: pieces in a random order, and the images of a window of them."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from ptarmigan.core import seeding
from ptarmigan.data.stream import StreamedImages
from ptarmigan.data.workers import pillow_without_warnings

PIECE = 256  # images that lie one after another in the shards and are read together
MOST_PIECES = 32  # of a window
WINDOW_BYTES = 128 << 20  # of the decoded images of a window


@dataclass(frozen=True)
class Window:
    """The images at the global positions first .. first+M-1."""

    first: int
    at: NDArray[np.int64]  # [M] indices in the data set
    images: NDArray[np.uint8]  # [M,H,W,C]
    read: NDArray[np.bool_]  # [M] which of them are read
    parts: list[Future[None]]  # of reading them


class Windows:
    """Draws each of `indices` once per epoch; every draw is a function of (seed, purpose, position).

    The indices are divided into pieces of PIECE, and each epoch has an order of the pieces of its own.  As many pieces
    as fit into WINDOW_BYTES are a window, whose images are drawn in an order of its own.  While one window is used, the
    next is read.
    """

    def __init__(self, images: StreamedImages, indices: NDArray[np.int64], seed: int) -> None:
        self.images, self.indices, self.seed = images, indices, seed
        piece_bytes = PIECE * images.nbytes // len(images)
        self.pieces = min(max(WINDOW_BYTES // piece_bytes, 1), MOST_PIECES)
        self.windows: dict[tuple[str, int], Window] = {}  # by purpose and first position
        self.orders: dict[tuple[str, int], tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self.lock = Lock()
        self.silence = ExitStack()
        self.silence.enter_context(pillow_without_warnings())

    def draw(self, purpose: str, first: int, count: int, step: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """The indices [count] and images [count,H,W,C] at the global positions first .. first+count-1.

        step: positions to the next draw; only the images of such draws are read ahead, so a rank reads its share.
        """
        taken: list[tuple[Window, slice]] = []
        with self.lock:
            position = first
            while position < first + count:
                window = self._window(purpose, position, first, count, step)
                taken.append((window, slice(position - window.first, first + count - window.first)))
                position = window.first + len(window.at)
            following = self._window(purpose, position, first, count, step)
            kept = {following.first, *(window.first for window, _ in taken)}
            for key in [key for key in self.windows if key[0] == purpose and key[1] not in kept]:
                del self.windows[key]
        for window, rows in taken:
            for part in window.parts:
                part.result()
            if (missing := np.flatnonzero(~window.read[rows])).size:
                window.images[rows][missing] = self.images[window.at[rows][missing]]
                window.read[rows] = True
        at = np.concatenate([window.at[rows] for window, rows in taken])
        return at, np.concatenate([window.images[rows] for window, rows in taken])

    def close(self) -> None:
        for window in self.windows.values():
            for part in window.parts:
                part.cancel()
        self.silence.close()

    def _window(self, purpose: str, position: int, first: int, count: int, step: int) -> Window:
        """The window that holds a position."""
        epoch, inside = divmod(position, len(self.indices))
        pieces, starts = self._order(purpose, epoch)
        number = int(starts.searchsorted(inside, "right")) - 1
        begin = epoch * len(self.indices) + int(starts[number])
        window = self.windows.get((purpose, begin))
        if window is None:
            chosen = pieces[number * self.pieces : (number + 1) * self.pieces]
            members = (chosen[:, None] * PIECE + np.arange(PIECE)).ravel()
            members = members[members < len(self.indices)]
            order = seeding.permute(
                self.seed, f"{purpose}:window {epoch}", number, np.arange(len(members)), len(members)
            )
            at = self.indices[members[order]]
            images = np.empty((len(at), *self.images.shape[1:]), np.uint8)
            read = (np.arange(begin, begin + len(at)) - first) % step < count
            window = Window(begin, at, images, read, self.images.start(at, images, np.flatnonzero(read)))
            self.windows[purpose, begin] = window
        return window

    def _order(self, purpose: str, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The pieces in the order of an epoch, and the place in the epoch at which each window begins."""
        if (purpose, epoch) not in self.orders:
            count = -(-len(self.indices) // PIECE)
            pieces = seeding.permute(self.seed, f"{purpose}:pieces", epoch, np.arange(count), count)
            sizes = np.minimum(PIECE, len(self.indices) - pieces * PIECE)
            starts = (sizes.cumsum() - sizes)[:: self.pieces]
            for old in [key for key in self.orders if key[0] == purpose and key[1] < epoch - 1]:
                del self.orders[old]
            self.orders[purpose, epoch] = pieces, starts
        return self.orders[purpose, epoch]
