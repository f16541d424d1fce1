"""What several test files need: a small labelled data set, and a cache of their own."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ptarmigan.core.clock import Clock
from ptarmigan.training import loop, start

SMALL: dict[str, Any] = dict(
    width=4, batch=8, images="48", precision="fp32", device="cpu", latent_dim=6, class_dim=4, split="none", snapshots=2
)


def pytest_configure() -> None:
    """Signals end processes as at a terminal, also where the suite runs in the background, which ignores them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("PTARMIGAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe takes one step in each precision instead of a second of steps."""
    monkeypatch.setenv("PTARMIGAN_PROBE_SECONDS", "0")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing by a second thread, and equality bit for bit wants a fixed number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class EvenClock(Clock):
    """A clock on which 0.01 s pass between two looks, so that a run with a time budget is the same on any machine."""

    def __init__(self) -> None:
        super().__init__()
        self.spent = self.start_up = 0.0

    def __enter__(self) -> EvenClock:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def seconds(self) -> float:
        self.spent += 0.01
        return self.spent


@pytest.fixture
def even_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training goes by an even clock, and expects snapshots to take as long as they do on it."""
    monkeypatch.setattr(loop, "Clock", EvenClock)
    monkeypatch.setattr(start, "snapshot_cost", lambda *_: (0.02, 0.02))


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz of 90 grey images of 16x16 in 3 classes: bars across, bars down, blots."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = rng.integers(0, 60, (90, 16, 16), np.uint8)
    for image, label in zip(images, labels, strict=True):
        at = int(rng.integers(2, 12))
        band = slice(at, at + 4)
        image[[(band, slice(None)), (slice(None), band), (band, band)][label]] += np.uint8(150)
    path = tmp_path_factory.mktemp("data") / "shapes.npz"
    np.savez(path, arr_0=images, arr_1=labels, class_names=np.array(["across", "down", "blot"]))
    return path


@pytest.fixture(scope="session")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the shapes, which a test copies before it changes anything."""
    torch.set_num_threads(1)
    return loop.train(shapes, out=tmp_path_factory.mktemp("finished") / "run", **SMALL)


@pytest.fixture(scope="session")
def base(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the shapes that others start from; its average is not its live G."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("base") / "run"
    return loop.train(shapes, out=out, **SMALL, g_blocks=1, seed=5, ema_half_life=1e9)
