"""Where memory is too small, a micro-batch that fits is found, or the error names one."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import ptarmigan.training.loop as training
from conftest import SMALL
from ptarmigan.config import resolve
from ptarmigan.core.files import load_json
from ptarmigan.core.types import ImageSpec
from ptarmigan.game.memory import Peak, step_bytes
from ptarmigan.networks import build
from ptarmigan.training import probe, start
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


GB = 10**9


@pytest.mark.parametrize(("free", "parts"), [(12 * GB, 0), (3 * GB, 2)])
def test_on_a_cpu_what_fits_is_found_by_arithmetic(
    free: int, parts: int, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """No step may run out of memory to find it, since the system would end the process."""
    monkeypatch.setattr(probe, "free_memory", lambda: free)
    monkeypatch.setattr(probe, "step_bytes", lambda config, spec, images: images * GB)
    monkeypatch.setattr(probe, "MAPS", GB)
    run = train(shapes, out=tmp_path / "run", **{**SMALL, "images": "8"})
    assert load_json(run / "config.json")["micro_batch"] == parts
    assert (f"batch 8 in parts of {parts}" in capsys.readouterr().out) == bool(parts)


def test_a_step_that_cannot_fit_on_a_cpu_is_refused_before_it(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "free_memory", lambda: 1000)
    monkeypatch.setattr(start, "train_batch", lambda *_: pytest.fail("a step was made"))
    with raises("out-of-memory", "1 images", "--width", "--size", kind=OutOfMemory):
        train(shapes, out=tmp_path / "run", **SMALL)
    with raises("out-of-memory", "4 images", "--micro-batch 2", kind=OutOfMemory):
        train(shapes, out=tmp_path / "run", **SMALL, micro_batch=4)


@pytest.mark.parametrize("network", ["dcgan", "r3gan", "resnet"])
def test_a_steps_memory_by_arithmetic(network: str) -> None:
    """It grows with images, penalties and weights; for an image it is less than `check_memory` supposes without it."""
    config, spec = resolve({**SMALL, "network": network}), ImageSpec(20, 28, 4, ("a", "b"))
    G, D = build(spec, config.model, 0)
    g, d = (sum(weight.nbytes for weight in net.parameters()) for net in (G, D))
    two, four = (step_bytes(config, spec, images) for images in (2, 4))
    assert 4 * (g + d) + g < two < four < 2 * two
    bare = replace(config, loss=replace(config.loss, r1=0.0, r2=0.0))
    assert step_bytes(bare, spec, 4) < four
    own = replace(config, loss=replace(config.loss, loss="own.py"))
    assert step_bytes(own, spec, 4) == four
    assert (four - two) / 2 < probe.MAPS * 4 * spec.height * spec.width * config.model.width


@pytest.mark.parametrize(
    "fields",
    [dict(augment="gentle"), dict(augment="ada", d_steps=2), dict(d_norm="spectral"), dict(conditioning="reacgan"),
     dict(loss="wasserstein", r1=0, r2=0, gradient_penalty=10), dict(dropout=0.5, conditioning="none")],
)  # fmt: skip
def test_a_step_without_values_takes_every_option(fields: dict[str, Any]) -> None:
    assert step_bytes(resolve(SMALL | fields), ImageSpec(16, 20, 3, ("a", "b")), 2) > 0


def test_the_peak_is_what_lives_at_once() -> None:
    with torch.device("meta"), Peak() as peak:
        x = torch.zeros(100)
        y = x + 1
        z = y.view(10, 10)
        assert (peak.now, peak.most) == (800, 800)
        del y
        x = x * 2
        assert (peak.now, peak.most) == (800, 1200)
        del z
        assert (peak.now, peak.most) == (400, 1200)


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
