"""A NaN or infinite value rolls a run back to its last checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import ptarmigan.training.loop as training
from conftest import SMALL
from ptarmigan.core.log import read_log
from ptarmigan.core.tensor_files import load_tensors
from ptarmigan.training import checkpoint
from ptarmigan.training.loop import Diverged, train
from support import (
    plant_nan,
    raises,
)


@pytest.mark.parametrize(
    ("where", "term"), [("batch", "d_adv"), ("weight", "d_adv"), ("gradient", "d_grad"), ("average", "ema.")]
)
def test_a_run_rolls_back_with_half_the_rates_and_says_so(
    where: str, term: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    plant_nan(monkeypatch, where, at=32, times=1)
    rates: list[tuple[int, float]] = []
    update = training.train_batch

    def noted(state: Any, batches: Any, *play: Any) -> Any:
        out = update(state, batches, *play)
        rates.append((state.images_seen, state.opt_g.param_groups[0]["lr"]))
        return out

    monkeypatch.setattr(training, "train_batch", noted)
    run = train(shapes, out=tmp_path / "run", **SMALL, anneal=0, g_lr=1e-3)
    out = capsys.readouterr().out
    (note,) = [line for line in out.splitlines() if line.startswith(f"note: {term}")]
    for fact in ("24 images", "0.5", "1 of at most 3"):
        assert fact in note
    lines = list(read_log(run / "metrics.jsonl"))
    assert any(str(line.get("diverged", "")).startswith(term) for line in lines)
    (rollback,) = [line for line in lines if "back_from" in line]
    assert (rollback["images_seen"], rollback["retry"], rollback["lr_scale"]) == (24, 1, 0.5)
    assert rates[-3:] == [(32, 5e-4), (40, 5e-4), (48, 5e-4)]
    tensors, meta = load_tensors(checkpoint.checkpoints(run)[-1])
    assert meta["images_seen"] == 48
    assert meta["progress"]["rollbacks"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_before_the_first_checkpoint_a_run_rolls_back_to_its_start(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_nan(monkeypatch, "gradient", at=8, times=2)
    run = train(shapes, out=tmp_path / "run", **SMALL)
    back = [line for line in read_log(run / "metrics.jsonl") if "back_from" in line]
    assert [(line["images_seen"], line["lr_scale"]) for line in back] == [(0, 0.5), (0, 0.25)]
    assert load_tensors(checkpoint.checkpoints(run)[-1])[1]["images_seen"] == 48


def test_after_its_retries_a_run_stops_and_a_killed_one_remembers_how_many_it_had(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_nan(monkeypatch, "gradient", at=32, times=100)
    for _ in range(2):
        with raises("diverged", "d_grad", "2 rollbacks", "000000024.safetensors", kind=Diverged):
            train(shapes, out=tmp_path / "run", **SMALL, retries=2)
    assert len([line for line in read_log(tmp_path / "run" / "metrics.jsonl") if "retry" in line]) == 2
    with raises("diverged", "d_grad", 32, 40, "000000024.safetensors", kind=Diverged) as raised:
        train(shapes, out=tmp_path / "other", **SMALL, retries=0)
    assert "rollback" not in str(raised.value)
    assert raised.value.status == 1
    assert checkpoint.checkpoints(tmp_path / "other")[-1].stem == "000000024"
    assert list(read_log(tmp_path / "other" / "metrics.jsonl"))[-1]["diverged"] == "d_grad"
