"""A run that a signal ends saves its state, and resumes as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import ptarmigan.training.loop as training
import ptarmigan.training.signals as signals
from conftest import SMALL
from ptarmigan import load
from ptarmigan.core.log import read_rows
from ptarmigan.generator.header import state_of
from ptarmigan.training import checkpoint, snapshot, start
from ptarmigan.training.loop import train
from ptarmigan.training.signals import Stopped
from support import (
    at_step,
    before_steps,
    command,
    ended,
    flags,
    interrupt,
    interrupt_at,
    plant_nan,
    raises,
    random_projection,
    until,
)

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_happened() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "kill.py"), "--kills", "4"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 kills, ")
    assert "0 runs compared" not in done.stdout


@pytest.mark.slow
def test_two_ctrl_c_leave_a_good_checkpoint(shapes: Path, tmp_path: Path) -> None:
    process = command("train", shapes, "--out", tmp_path / "run", *flags(images="1M", snapshots=100000))
    until(lambda: checkpoint.checkpoints(tmp_path / "run"))
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    status, _, err = ended(process)
    assert status == 130
    assert err.startswith("ptarmigan: ")
    assert "Traceback" not in err
    found, bad = checkpoint.newest(tmp_path / "run")
    assert found is not None
    assert not bad


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU"])
def test_every_signal_that_ends_a_process_saves(
    name: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    at_step(monkeypatch, 2, lambda _: os.kill(os.getpid(), number))
    with raises("stopped", kind=Stopped) as stopped:
        train(shapes, out=tmp_path / "run", **SMALL)
    assert stopped.value.status == 128 + number
    assert newest(tmp_path / "run").meta["images_seen"] == 16
    assert load(tmp_path / "run").images_seen == 16
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM"])
def test_a_signal_before_the_first_step_leaves_nothing(
    name: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = getattr(signal, name)
    monkeypatch.setattr(start, "probe_job", lambda *_: signal.raise_signal(number))
    with raises("stopped", name, kind=Stopped) as stopped:
        train(shapes, out=tmp_path / "run", **SMALL)
    assert stopped.value.status == 128 + number
    assert not (tmp_path / "run").exists()
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_signal_that_is_passed_on_twice_counts_once_and_a_later_one_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: clock[0])
    with signals.catch_signals() as received:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGINT)
        assert received == [signal.SIGINT]
        clock[0] = 101.5
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def scored(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a live score at each of its two snapshots."""
    with pytest.MonkeyPatch.context() as patch:
        return train_scored(shapes, tmp_path_factory.mktemp("scored") / "run", patch)


def train_scored(shapes: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(snapshot, "MIN_SELECT", 2)
    monkeypatch.setattr(snapshot.features, "load_extractor", lambda **_: random_projection())
    return train(shapes, out=out, **{**SMALL, "split": "60/40/0", "live_images": 10})


def interrupt_in_snapshot(monkeypatch: pytest.MonkeyPatch, images_seen: int, function: str) -> None:
    """Ctrl-C at the first call of `function` in the snapshot at so many images seen."""
    real, in_snapshot = getattr(snapshot, function), list[Any]()
    save_snapshot = snapshot.save_snapshot

    def save(job: Any, state: Any, *arguments: Any) -> Any:
        in_snapshot[:] = [state]
        return save_snapshot(job, state, *arguments)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if in_snapshot and in_snapshot[0].images_seen == images_seen:
            in_snapshot.clear()
            interrupt(None)
        return real(*arguments, **options)

    monkeypatch.setattr(training, "save_snapshot", save)
    monkeypatch.setattr(snapshot, function, interrupted)


@pytest.mark.parametrize("images_seen", [24, 48])
@pytest.mark.parametrize("function", ["settle_batch_norm", "generate_images"])
def test_a_snapshot_that_ctrl_c_stops_is_made_when_the_run_resumes(
    function: str, images_seen: int, shapes: Path, scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_in_snapshot(patch, images_seen, function)
        with raises("stopped", kind=Stopped):
            train_scored(shapes, run, patch)
    assert newest(run).progress.owed == images_seen
    assert not (run / "samples" / f"{images_seen:09d}.png").exists()
    assert load(run).images_seen == images_seen
    assert "stopped" in (state_of(run) or "")
    train_scored(shapes, run, monkeypatch)
    assert state_of(run) == "finished"
    assert_same_run(run, scored)


@pytest.mark.parametrize("function", ["d_logits", "write_outputs"])
def test_a_snapshot_that_is_nearly_made_is_finished_and_not_saved_twice(
    function: str, shapes: Path, scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, saved = tmp_path / "run", list[int]()
    save = checkpoint.save
    with monkeypatch.context() as patch:
        patch.setattr(
            checkpoint, "save", lambda run, state, record: saved.append(state.images_seen) or save(run, state, record)
        )
        interrupt_in_snapshot(patch, 24, function)
        with raises("stopped", kind=Stopped):
            train_scored(shapes, run, patch)
    assert saved == [24]
    assert not newest(run).progress.owed
    train_scored(shapes, run, monkeypatch)
    assert_same_run(run, scored)


def test_a_second_signal_after_the_state_was_saved_loses_nothing(
    shapes: Path, scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, settle = tmp_path / "run", snapshot.settle_batch_norm

    def interrupt_again(state: Any, *arguments: Any) -> None:
        if state.images_seen == 32:
            raise KeyboardInterrupt
        settle(state, *arguments)

    with monkeypatch.context() as patch:
        interrupt_at(patch, 24)
        patch.setattr(snapshot, "settle_batch_norm", interrupt_again)
        with raises("stopped", "32 images", kind=Stopped):
            train_scored(shapes, run, patch)
    assert newest(run).path.stem == "000000032"
    assert load(run).images_seen == 24
    with raises("no-generator", newest(run).path, "batch norm"):
        load(run, at=32)
    train_scored(shapes, run, monkeypatch)
    assert_same_run(run, scored)


def newest(run: Path) -> checkpoint.Checkpoint:
    found, damaged = checkpoint.newest(run)
    assert found is not None
    assert not damaged
    return found


def assert_same_run(run: Path, other: Path) -> None:
    """Bit for bit, but for what the clock says."""
    for file in (
        "generator/model.safetensors",
        "best/model.safetensors",
        "samples/000000024.png",
        "samples/latest.png",
    ):
        assert (run / file).read_bytes() == (other / file).read_bytes()
    one, two = newest(run).tensors, newest(other).tensors
    assert all(torch.equal(one[name], two[name]) for name in one.keys() | two.keys())
    for row, expected in zip(logged(run), logged(other), strict=True):
        assert row.keys() == expected.keys()
        assert {k: (v, expected[k]) for k, v in row.items() if v != expected[k]} == {}


def logged(run: Path) -> list[dict[str, Any]]:
    others = {"clock", "images_per_second", "attempt", "movement"}  # movement is from a snapshot of the same call
    rows = read_rows(run / "metrics.jsonl").values()
    return [{name: value for name, value in row.items() if name not in others} for row in rows]


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with signals.catch_signals() as received:
            signal.raise_signal(signal.SIGHUP)
            assert received == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_stopping_between_rollbacks_changes_nothing(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        plant_nan(patch, "gradient", at=32, times=1)
        whole = train(shapes, out=tmp_path / "whole", **SMALL)

    def stop(state: Any) -> None:
        if state.images_seen == 32 and state.progress.rollbacks:
            interrupt(state)

    with monkeypatch.context() as patch:
        plant_nan(patch, "gradient", at=32, times=1)
        before_steps(patch, stop)
        with raises("stopped", kind=Stopped):
            train(shapes, out=tmp_path / "parts", **SMALL)
    parts = train(shapes, out=tmp_path / "parts", **SMALL)
    file = "generator/model.safetensors"
    assert (whole / file).read_bytes() == (parts / file).read_bytes()


@pytest.mark.parametrize("at", [16, 32])
def test_a_signal_in_the_step_that_diverges_stops_the_run_after_the_rollback(
    at: int, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_nan(monkeypatch, "gradient", at=at, times=1)
    at_step(monkeypatch, at // SMALL["batch"] + 1, interrupt)
    with raises("stopped", kind=Stopped) as stopped:
        train(shapes, out=tmp_path / "run", **SMALL)
    assert stopped.value.status == 128 + signal.SIGINT
    assert newest(tmp_path / "run").progress.rollbacks == 1
