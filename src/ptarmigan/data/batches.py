"""Training batches.  Each is a function of (seed, purpose, images seen), so a run resumes from `images_seen` alone."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan.core import seeding
from ptarmigan.core.devices import to_device
from ptarmigan.data.stream import StreamedImages
from ptarmigan.data.windows import Windows

BLOCK = 4096  # positions whose order is computed in one call: numpy's overhead is per call


class LoadedBatch(NamedTuple):
    images: Tensor  # [N,C,H,W] float32 in [-1, 1], channels_last
    labels: Tensor  # [N] int64
    indices: NDArray[np.int64]  # [N] in the data set


def shuffled_order(seed: int, purpose: str, first: int, count: int, size: int) -> NDArray[np.int64]:
    """Indices in [0, size) at the global positions first .. first+count-1.

    Position p is element p % size of epoch p // size; each epoch is a permutation of its own.
    """
    positions = np.arange(first, first + count)
    epochs = positions // size
    parts = [
        seeding.permute(seed, purpose, int(epoch), positions[epochs == epoch] % size, size)
        for epoch in np.unique(epochs)
    ]
    return np.concatenate(parts)


class ClassOrder:
    """An order that draws every class equally often, as `shuffled_order` does every image.

    labels [N]: the K classes are those that have labels.  Each round of K positions holds every class once, in a random
    order; round r has element r % n of permutation r // n of the n images of a class.
    """

    def __init__(self, labels: NDArray[np.int64]) -> None:
        self.by_class = labels.argsort(kind="stable")
        self.sizes = np.unique(labels, return_counts=True)[1]
        self.starts = self.sizes.cumsum() - self.sizes

    def draw(self, seed: int, purpose: str, first: int, count: int) -> NDArray[np.int64]:
        """Indices in [0, N) at the global positions first .. first+count-1."""
        classes = len(self.sizes)
        rounds = np.arange(first // classes, (first + count - 1) // classes + 1)
        positions = np.arange(rounds[0] * classes, (rounds[-1] + 1) * classes)
        order = seeding.words(seed, f"{purpose}:classes", positions, 1).reshape(-1, classes).argsort(kind="stable")
        round_of, class_of = np.repeat(rounds, classes), order.reshape(-1)
        sizes = self.sizes[class_of]
        of_epoch, each = np.unique(round_of // sizes * classes + class_of, return_inverse=True)
        keys = seeding.words(seed, f"{purpose}:members", of_epoch, seeding.ROUNDS)[each]
        members = seeding.permute_by(keys, round_of % sizes, sizes)
        start = first - int(positions[0])
        drawn: NDArray[np.int64] = self.by_class[(self.starts[class_of] + members)[start : start + count]]
        return drawn


def to_float(images: Tensor) -> Tensor:
    """uint8 [N,H,W,C] -> float32 [N,C,H,W] in [-1, 1], channels_last: 0 is -1, 255 is 1.

    RGBA images are put on white (`on_white`).
    """
    return on_white(images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1))


def on_white(images: Tensor) -> Tensor:
    """[N, C, H, W] in [-1, 1]; of RGBA the colours become those seen on white, 1 - a (1 - c) with a in [0, 1].

    What lies behind transparent pixels is arbitrary, often another colour in each file, by which D could tell every
    real image.  The colours of grey and RGB images are as they are.
    """
    if images.shape[1] != 4:
        return images
    colour, alpha = images[:, :3], images[:, 3:]
    return torch.cat([1 + (colour - 1) * ((alpha + 1) / 2), alpha], 1)


def on_colours(images: Tensor, colours: Tensor) -> Tensor:
    """RGBA images [N, 4, H, W], as `on_white` gives them -> RGB [N, 3, H, W], each on its colour [N, 3] in [-1, 1]."""
    seen, alpha = images[:, :3], images[:, 3:]
    return seen + (1 - alpha) / 2 * (colours - 1)[:, :, None, None]


def with_ground(images: Tensor, colours: Tensor | None = None) -> Tensor:
    """RGB images [N, 3, H, W] -> [N, 6, H, W]: with the colours [N, 3] that they lie on, less white; None: white.

    D is given both.  From the images alone it could not tell a generated image with an opaque background from a
    transparent real one that lies on this colour, and G would paint backgrounds.
    """
    ground = torch.zeros_like(images) if colours is None else (colours - 1)[:, :, None, None].expand_as(images)
    return torch.cat([images, ground], 1)


def on_white_for_d(images: Tensor) -> Tensor:
    """Images [N, C, H, W], as `on_white` gives them -> what D is given of them: those of RGBA on white."""
    return with_ground(images[:, :3]) if images.shape[1] == 4 else images


def copy_to_device(images: NDArray[np.uint8] | StreamedImages, device: torch.device | str) -> Tensor | None:
    """All images on a CUDA device, so that the host sends only indices; None if they exceed half of its free memory."""
    if isinstance(images, StreamedImages):
        return None
    if torch.device(device).type != "cuda" or images.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
        return None
    whole = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(images), BLOCK):  # in blocks: the pack may be larger than the host's memory
        whole[start : start + BLOCK] = torch.from_numpy(np.array(images[start : start + BLOCK]))
    return whole


class Batches:
    """Batches of some images of a data set; a thread prepares the next batch while the current one is used.

    images [N,H,W,C] uint8, labels [N]; each of `indices` is drawn once per epoch, or with `balance` every class equally
    often.  Streamed images are drawn in windows (windows.py).  With `flip`, an image is mirrored with probability 1/2.
    """

    def __init__(
        self,
        images: NDArray[np.uint8] | StreamedImages,
        labels: NDArray[np.int64],
        indices: NDArray[np.int64],
        *,
        batch: int,
        seed: int,
        flip: bool = False,
        balance: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        assert len(indices), "no image to draw from"
        self.images, self.labels, self.indices = images, labels, indices
        self.batch, self.seed, self.flip, self.device = batch, seed, flip, device
        self.classes = ClassOrder(labels[indices]) if balance else None
        self.windows = Windows(images, indices, seed) if isinstance(images, StreamedImages) else None
        self.resident = copy_to_device(images, device)
        self._pool = ThreadPoolExecutor(1, "batches")
        self._blocks: dict[tuple[str, int], NDArray[np.int64]] = {}
        self._next: dict[tuple[int, str], Future[LoadedBatch]] = {}

    def load(self, images_seen: int, purpose: str = "order", step: int | None = None) -> LoadedBatch:
        """The batch at the global positions images_seen .. images_seen+batch-1: a pure function of its arguments.

        step: positions to the batch that will be loaded next (default: `batch`), which decides what a stream reads
        ahead, and nothing else.
        """
        at, images = self._draw(images_seen, purpose, step or self.batch)
        if self.flip:
            positions = np.arange(images_seen, images_seen + self.batch)
            mirror = seeding.uniforms(self.seed, f"{purpose}:flip", positions, 1).view(-1, 1, 1, 1) < 0.5
            images = torch.where(to_device(mirror, self.device), images.flip(2), images)
        return LoadedBatch(to_float(images), to_device(torch.from_numpy(self.labels[at]), self.device), at)

    def _draw(self, first: int, purpose: str, step: int) -> tuple[NDArray[np.int64], Tensor]:
        """The indices [N] of a batch, and its images uint8 [N,H,W,C] on the device."""
        if self.windows is not None:
            at, images = self.windows.draw(purpose, first, self.batch, step)
        else:
            at = self.indices[self._order(purpose, first)]
            if self.resident is not None:
                return at, self.resident[to_device(torch.from_numpy(at), self.device)]
            images = self.images[at]
        return at, to_device(torch.from_numpy(images), self.device)

    def get(self, images_seen: int, purpose: str = "order", step: int | None = None) -> LoadedBatch:
        """`load`, then prefetch the batch `step` positions later (default: the next batch of this purpose)."""
        ready = self._next.pop((images_seen, purpose), None)
        loaded = ready.result() if ready is not None else self.load(images_seen, purpose, step)
        for stale in [key for key in self._next if key[1] == purpose]:
            self._next.pop(stale).cancel()
        following = images_seen + (self.batch if step is None else step)
        self._next[following, purpose] = self._pool.submit(self.load, following, purpose, step)
        return loaded

    def _order(self, purpose: str, first: int) -> NDArray[np.int64]:
        """The order of one batch; computed in blocks, of which the newest 8 or 9 are kept."""
        numbers = range(first // BLOCK, (first + self.batch - 1) // BLOCK + 1)
        blocks = []
        for number in numbers:
            block = self._blocks.get((purpose, number))
            if block is None:
                where = self.seed, purpose, number * BLOCK, BLOCK
                block = self.classes.draw(*where) if self.classes else shuffled_order(*where, len(self.indices))
                for old in list(self._blocks)[:-8]:
                    self._blocks.pop(old, None)
                self._blocks[purpose, number] = block
            blocks.append(block)
        start = first - numbers[0] * BLOCK
        return np.concatenate(blocks)[start : start + self.batch]

    def close(self) -> None:
        if self.windows is not None:
            self.windows.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
