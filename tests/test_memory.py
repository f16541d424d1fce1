"""Where memory is too small, a micro-batch that fits is found, or the error names one."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import ptarmigan.training.loop as training
from conftest import SMALL
from ptarmigan.core.files import load_json
from ptarmigan.training import start
from ptarmigan.training.loop import train
from ptarmigan.training.probe import OutOfMemory
from support import raises


def limit(monkeypatch: pytest.MonkeyPatch, most: int, error: Exception, only_in_the_run: bool = False) -> None:
    """Let steps that compute more than `most` images at once raise `error`."""
    train_batch = training.train_batch

    def limited(state: Any, *arguments: Any) -> Any:
        if (state.progress.tick or not only_in_the_run) and (state.micro_batch or 8) > most:
            raise error
        return train_batch(state, *arguments)

    for module in (training, start):  # in the run, and in the probe before it
        monkeypatch.setattr(module, "train_batch", limited)


CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: 9 bytes")


@pytest.mark.parametrize(
    "error",
    [
        CPU,
        pytest.param(torch.OutOfMemoryError("CUDA out of memory"), marks=pytest.mark.slow),
        pytest.param(MemoryError(), marks=pytest.mark.slow),
    ],
)
def test_what_fits_is_found_and_kept(
    error: Exception, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 3, error)
    run = train(shapes, out=tmp_path / "run", **{**SMALL, "images": "8"})
    assert load_json(run / "config.json")["micro_batch"] == 2
    train(shapes, out=run, **{**SMALL, "images": "16"})
    assert load_json(run / "config.json")["micro_batch"] == 2


def test_a_micro_batch_that_does_not_fit_names_the_one_to_try(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 3, CPU)
    with raises("out-of-memory", "cpu", "4 images", "--micro-batch 2", kind=OutOfMemory):
        train(shapes, out=tmp_path / "run", **SMALL, micro_batch=4)
    assert not (tmp_path / "run").exists()
    limit(monkeypatch, 0, CPU)
    with raises("out-of-memory", "1 images", "--width", "--size"):
        train(shapes, out=tmp_path / "run", **SMALL)


def test_running_out_of_memory_during_a_run_is_said_and_another_error_is_not_called_that(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        limit(patch, 4, CPU, only_in_the_run=True)
        with raises("out-of-memory", "8 images", "--micro-batch 4"):
            train(shapes, out=tmp_path / "run", **SMALL)
    train(shapes, out=tmp_path / "run", **SMALL, micro_batch=4)  # the same run may be resumed with it
    limit(monkeypatch, 0, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        train(shapes, out=tmp_path / "other", **SMALL)


def test_reacgan_is_not_split(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its contrastive term compares the whole batch: where that does not fit, no micro-batch is tried."""
    limit(monkeypatch, 4, CPU)
    with raises("out-of-memory", "8 images", "--batch", "--width", "--size") as raised:
        train(shapes, out=tmp_path / "run", **SMALL, conditioning="reacgan")
    assert "--micro-batch" not in str(raised.value)


FAULTS = """
import resource, torch
from ptarmigan.core.devices import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(20_000_000)  # more than malloc keeps by default
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
fresh = faults()
keep_freed_memory()
faults()
print(fresh, faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has the setting")
def test_freed_memory_is_kept_and_reused() -> None:
    out = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    fresh, kept = map(int, out.split())
    assert fresh > 100
    assert kept < fresh / 10
