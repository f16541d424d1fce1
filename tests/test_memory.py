"""Memory that is short is met in words, and with parts that fit."""

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
from ptarmigan.training.loop import train
from ptarmigan.training.probe import OutOfMemory


def short(monkeypatch: pytest.MonkeyPatch, most: int, error: Exception, only_in_the_run: bool = False) -> None:
    """Let steps that compute more than `most` images at once run out of memory."""
    real = training.train_batch

    def advance(state: Any, batches: Any, *play: Any) -> Any:
        if (state.controllers or not only_in_the_run) and (state.micro_batch or 8) > most:
            raise error
        return real(state, batches, *play)

    monkeypatch.setattr(training, "train_batch", advance)


CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: 9 bytes")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), CPU, MemoryError()])
def test_what_fits_is_found_and_kept(
    error: Exception, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short(monkeypatch, 3, error)
    run = train(shapes, out=tmp_path / "run", **SMALL)
    assert load_json(run / "config.json")["micro_batch"] == 2
    train(shapes, out=run, **{**SMALL, "images": "96"})
    assert load_json(run / "config.json")["micro_batch"] == 2


def test_a_micro_batch_that_does_not_fit_names_the_one_to_try(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short(monkeypatch, 3, CPU)
    with pytest.raises(OutOfMemory, match="out of memory on cpu with 4 images at once: try --micro-batch 2"):
        train(shapes, out=tmp_path / "run", **SMALL, micro_batch=4)
    assert not (tmp_path / "run").exists()
    short(monkeypatch, 0, CPU)
    with pytest.raises(OutOfMemory, match="with 1 images at once: try a smaller --width or --size"):
        train(shapes, out=tmp_path / "run", **SMALL)


def test_memory_that_ends_in_mid_run_is_said_and_another_error_is_not_called_that(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        short(patch, 4, CPU, only_in_the_run=True)
        with pytest.raises(OutOfMemory, match="with 8 images at once: try --micro-batch 4"):
            train(shapes, out=tmp_path / "run", **SMALL)
    train(shapes, out=tmp_path / "run", **SMALL, micro_batch=4)  # the same run may go on in parts
    short(monkeypatch, 0, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        train(shapes, out=tmp_path / "other", **SMALL)


def test_reacgan_is_not_cut_into_parts(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its contrast is over the whole batch: where that does not fit, no part of it is tried."""
    short(monkeypatch, 4, CPU)
    with pytest.raises(OutOfMemory, match="with 8 images at once: try a smaller --batch, --width or --size"):
        train(shapes, out=tmp_path / "run", **SMALL, conditioning="reacgan")


FAULTS = """
import resource, torch
from ptarmigan.core.devices import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(20_000_000)  # more than malloc keeps by itself, however often it was asked
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
fresh = faults()
keep_freed_memory()
faults()
print(fresh, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_freed_memory_is_kept_and_taken_again() -> None:
    out = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    fresh, kept = map(int, out.split())
    assert fresh > 100
    assert kept < fresh / 10
