"""The probe before a run: bf16 is tried only where it can be faster, and nothing is measured for long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from conftest import SMALL
from ptarmigan.config import resolve
from ptarmigan.core import devices
from ptarmigan.core.devices import computes_bf16
from ptarmigan.core.types import ImageSpec
from ptarmigan.game.state import TrainState
from ptarmigan.training import probe as probe_module
from ptarmigan.training.probe import probe, snapshot_cost

CPU, SPEC = torch.device("cpu"), ImageSpec(16, 16, 1, ("a", "b"))


@pytest.mark.parametrize(
    ("capabilities", "onednn", "expected"),
    [
        ({"architecture": "x86_64", "amx_bf16": True, "avx512_bf16": True}, True, True),
        ({"architecture": "x86_64", "avx512_bf16": True}, True, True),
        ({"architecture": "x86_64", "avx512_f": True}, True, False),  # oneDNN emulates it
        ({"architecture": "x86_64", "avx2": True}, False, False),
        ({"architecture": "x86_64", "amx_bf16": True}, False, False),  # ONEDNN_MAX_CPU_ISA=AVX2
        ({"architecture": "aarch64"}, True, True),
        ({"architecture": "aarch64"}, False, False),
    ],
)
def test_bf16_is_tried_only_on_a_cpu_that_has_instructions_for_it(
    capabilities: dict[str, Any], onednn: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(devices, "onednn_takes_bf16", lambda: onednn)
    assert computes_bf16(CPU) == expected
    assert computes_bf16(torch.device("cuda"))
    assert not computes_bf16(torch.device("mps"))


def steps(record: list[bool], seconds: float, now: list[float]) -> Callable[[TrainState], Callable[[], None]]:
    """Steps that take so long on the fake clock, and note their precision."""

    def step_of(state: TrainState) -> Callable[[], None]:
        def step() -> None:
            record.append(state.bf16)
            now[0] += seconds * (0.5 if state.bf16 else 1)

        return step

    return step_of


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(probe_module.time, "perf_counter", lambda: now[0])
    monkeypatch.setenv("PTARMIGAN_PROBE_SECONDS", "1")
    return now


@pytest.mark.parametrize(("slower", "tried"), [(1.0, True), (20.0, False)])
def test_a_slow_convolution_ends_the_trial_of_bf16(
    slower: float, tried: bool, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_module, "computes_bf16", lambda _: True)
    real = F.conv2d

    def conv2d(images: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        now[0] += 0.01 * (slower if images.dtype == torch.bfloat16 else 1)
        return real(images, *rest, **options)

    monkeypatch.setattr(F, "conv2d", conv2d)
    record: list[bool] = []
    found = probe(resolve({**SMALL, "precision": "auto"}), SPEC, CPU, steps(record, 0.1, now))
    assert found.bf16 == tried
    assert (True in record) == tried


@pytest.mark.parametrize(("seconds", "count"), [(0.1, 16), (6.0, 2)])
def test_first_steps_that_take_long_are_the_measurement(
    seconds: float, count: int, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_module, "bf16_may_be_faster", lambda *_: True)
    record: list[bool] = []
    found = probe(resolve({**SMALL, "precision": "auto"}), SPEC, CPU, steps(record, seconds, now))
    assert (found.bf16, found.seconds) == (True, pytest.approx(seconds / 2))
    assert len(record) == count
    assert now[0] < 10


def test_a_snapshots_cost_is_estimated_without_a_live_score_too() -> None:
    config = resolve({**SMALL, "width": 1})
    picture, scored = snapshot_cost(TrainState.create(config, SPEC, CPU), None)
    assert 0.3 <= picture == scored < 5
