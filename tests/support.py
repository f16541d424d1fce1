"""What several test files share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ptarmigan.game.batch
import ptarmigan.training.loop
from conftest import SMALL
from ptarmigan import UserError, cli
from ptarmigan.core.log import read_log
from ptarmigan.core.types import Batch
from ptarmigan.evaluation.features import Extractor


@contextmanager
def raises(code: str, *facts: object, kind: type[UserError] = UserError) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """Expect a UserError with this code whose text names each fact: a file, an option, a value; not its sentences."""
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code, caught.value
    for fact in facts:
        assert str(fact) in str(caught.value), caught.value


@dataclass(frozen=True)
class GivenDraws:
    """The draws of one update as a test wants them; a slice of it holds those of a part."""

    z: Tensor | None = None  # [N, Z]
    mix: Tensor | None = None  # [N]
    halves: tuple[list[Tensor], list[Tensor]] | None = None  # dropout masks for real and for fake
    change: Callable[[Tensor, str, slice], Tensor] = lambda images, half, part: images  # what D is shown
    random: Callable[[str, int], Tensor] | None = None  # purpose, count -> [N, count]
    part: slice = field(default_factory=lambda: slice(None))

    def __getitem__(self, part: slice) -> GivenDraws:
        return replace(
            self,
            z=None if self.z is None else self.z[part],
            mix=None if self.mix is None else self.mix[part],
            part=part,
        )

    def masks(self, half: str) -> list[Tensor] | None:
        if self.halves is None:
            return None
        return [mask[self.part] for mask in self.halves[("real", "fake").index(half)]]

    def seen(self, images: Tensor, half: str) -> Tensor:
        return self.change(images, half, self.part)

    def uniforms(self, purpose: str, count: int) -> Tensor:
        assert self.random is not None
        return self.random(purpose, count)[self.part]


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Run the command in this process -> exit status, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["ptarmigan", *map(str, arguments)])
    try:
        cli.main()
        status = 0
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def before_steps(monkeypatch: pytest.MonkeyPatch, action: Callable[[Any], object]) -> None:
    """Call `action(state)` before every step of a run, but not of the probe's throwaway states."""
    train_batch = ptarmigan.training.loop.train_batch

    def with_action(state: Any, *arguments: Any) -> Any:
        if state.progress.tick:
            action(state)
        return train_batch(state, *arguments)

    monkeypatch.setattr(ptarmigan.training.loop, "train_batch", with_action)


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[Any], object]) -> None:
    """Call `action(state)` before the `number`-th step that the run makes."""
    count = 0

    def counted(state: Any) -> None:
        nonlocal count
        count += 1
        if count == number:
            action(state)

    before_steps(monkeypatch, counted)


def interrupt(_: object) -> None:
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def interrupt_at(monkeypatch: pytest.MonkeyPatch, images_seen: int) -> None:
    """Ctrl-C before the step at so many images seen."""
    before_steps(monkeypatch, lambda state: interrupt(state) if state.images_seen == images_seen else None)


def plant_nan(monkeypatch: pytest.MonkeyPatch, where: str, at: int, times: int) -> None:
    """Put a NaN into the step at `at` images seen, the first `times` times that the run makes it.

    `where` is batch (one pixel of one image), weight or gradient (of D), or average (of G, which no loss reads).
    """
    train_batch, left = ptarmigan.training.loop.train_batch, times

    def with_nan(state: Any, *arguments: Any) -> Any:
        nonlocal left
        if not (state.progress.tick and state.images_seen == at and left):
            return train_batch(state, *arguments)
        left -= 1
        nan, weight = float("nan"), state.D.head.source.weight
        with pytest.MonkeyPatch.context() as patch:
            if where == "batch":
                real_batch = ptarmigan.game.batch.real_batch
                patch.setattr(ptarmigan.game.batch, "real_batch", lambda *rest: nan_in(real_batch(*rest)))
            elif where == "weight":
                weight.data.fill_(nan)
            elif where == "average":
                next(state.ema.parameters()).data.fill_(nan)
            hook = weight.register_hook(lambda gradient: gradient * nan) if where == "gradient" else None
            terms = train_batch(state, *arguments)
            if hook:
                hook.remove()
        return terms

    monkeypatch.setattr(ptarmigan.training.loop, "train_batch", with_nan)


def nan_in(batch: Batch) -> Batch:
    images = batch.images.clone()
    images[3, 0, 5, 5] = float("nan")
    return batch._replace(images=images)


@contextmanager
def at_most(mebibytes: int) -> Iterator[None]:
    """The block allocates at most this much; Linux counts the peak from where it is reset."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    yield
    assert _peak() - before < mebibytes * 1024


def _peak() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


class RandomProjection(nn.Module):
    """Pixels [N, 1 or 3, H, W] in 0..255 -> features [N, dim] of the image at 4x4."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(48, dim, generator=torch.Generator().manual_seed(0)) / 48**0.5)

    def forward(self, pixels: Tensor) -> Tensor:
        small = F.adaptive_avg_pool2d(pixels.expand(-1, 3, -1, -1), 4).flatten(1)
        return (small / 127.5 - 1) @ self.weight


def random_projection(dim: int = 16) -> Extractor:
    """An extractor that costs nothing."""
    return Extractor("Projection", "FD-Projection", 64 * "5", size=4, dim=dim, network=RandomProjection(dim).eval())


def read_ticks(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log that have the terms of a tick."""
    return [line for line in read_log(run / "metrics.jsonl") if "clock" in line]


def flags(**fields: Any) -> list[str]:
    """The small run of the tests as options of the command line, with these fields."""
    return [f"--{key.replace('_', '-')}={value}" for key, value in {**SMALL, **fields}.items()]


def command(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start ptarmigan in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "ptarmigan", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for the end -> exit status, standard output, standard error."""
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition, for ten minutes at most."""
    for _ in range(12000):
        if condition():
            return
        time.sleep(0.05)
    raise TimeoutError
