"""A run whose files or output cannot be written loses nothing that was saved."""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import SMALL
from ptarmigan import load
from ptarmigan.core.files import write_atomic
from ptarmigan.core.log import Metrics, read_log
from ptarmigan.core.types import UserError
from ptarmigan.generator import export
from ptarmigan.training import checkpoint, outputs, snapshot
from ptarmigan.training.loop import train
from ptarmigan.training.run_folder import lock
from ptarmigan.training.signals import Stopped
from support import (
    at_step,
    command,
    ended,
    flags,
    interrupt,
    raises,
    random_projection,
)


@pytest.mark.slow
@pytest.mark.parametrize("redirection", ["> /dev/full 2> err", "2> err | head -n 1", "> /dev/full 2>&1"])
def test_a_run_whose_output_cannot_be_written_ends_by_its_own_result(
    redirection: str, shapes: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "ptarmigan", "train", str(shapes), "--out", "run", *flags()]
    done = subprocess.run(["bash", "-o", "pipefail", "-c", f"{shlex.join(words)} {redirection}"], cwd=tmp_path)
    assert done.returncode == 0
    if "err" in redirection:
        assert (tmp_path / "err").read_text() == ""
    assert [path.stem for path in checkpoint.checkpoints(tmp_path / "run")] == ["000000024", "000000048"]


@pytest.mark.slow
def test_a_write_that_fails_midway_stops_the_run_in_one_line_and_the_last_checkpoint_stays_good(
    shapes: Path, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    size = (tmp_path / "run" / "checkpoints" / "000000048.safetensors").stat().st_size
    limit = size // 2  # bytes a file may have: the kernel refuses the rest of the next checkpoint
    process = command(
        "train", shapes, "--out", tmp_path / "run", *flags(images="96"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    status, _, err = ended(process)
    assert status == 2
    (line, hint) = err.strip().splitlines()
    assert "[file-unwritable]" in line
    assert "File too large" in line
    assert str(tmp_path / "run") in hint
    assert not list((tmp_path / "run").rglob("*.tmp"))
    assert (tmp_path / "run" / "checkpoints" / "000000048.safetensors").stat().st_size == size
    found, bad = checkpoint.newest(tmp_path / "run")
    assert found is not None
    assert found.meta["images_seen"] == 48
    assert not bad
    load(tmp_path / "run")


def test_older_checkpoints_go_only_after_the_new_one_is_whole(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    real = checkpoint.save_tensors

    def watched(path: Path, *rest: Any) -> str:
        before = [old.stem for old in checkpoint.checkpoints(tmp_path / "run")]
        result = real(path, *rest)
        seen.append([*before, *[old.stem for old in checkpoint.checkpoints(tmp_path / "run")]])
        return result

    monkeypatch.setattr(checkpoint, "save_tensors", watched)
    run = train(shapes, out=tmp_path / "run", **{**SMALL, "keep": 1, "snapshots": 3})
    assert seen[2] == ["000000032", "000000032", "000000048"]
    assert [path.stem for path in checkpoint.checkpoints(run)] == ["000000048"]


@pytest.mark.parametrize("name", ["samples", "generator", "best"])
def test_a_snapshot_whose_files_cannot_be_written_saves_the_checkpoint_and_goes_on(
    name: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    fields = {**SMALL, "split": "60/40/0", "live_images": 10}
    monkeypatch.setattr(snapshot, "MIN_SELECT", 2)
    monkeypatch.setattr(snapshot.features, "load_extractor", lambda **_: random_projection())
    whole = train(shapes, out=tmp_path / "whole", **fields)

    run = tmp_path / "run"
    at_step(monkeypatch, 2, lambda _: (run / name).write_text("in the way"))
    if name == "generator":
        with raises("file-unwritable", run / "generator"):
            train(shapes, out=run, **fields)
    else:
        train(shapes, out=run, **fields)
    notes = [line for line in capsys.readouterr().out.splitlines() if f"{run / name} is not a folder" in line]
    assert len(notes) == 2  # one of each snapshot
    assert [path.stem for path in checkpoint.checkpoints(run)] == ["000000024", "000000048"]
    (run / name).unlink()
    train(shapes, out=run, **fields)
    missing = [Path("samples/000000048.png"), Path("generator/model.safetensors")]
    for file in missing:
        assert (run / file).read_bytes() == (whole / file).read_bytes()


def test_a_full_disk_gives_one_note_a_snapshot(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def full(path: Path, *_: Any) -> str:
        error = OSError(28, "No space left on device")
        raise UserError(f"cannot write {path}: {error.strerror}", "file-unwritable") from error

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_tensors", full)
        patch.setattr(export, "save_tensors", full)
        with raises("file-unwritable", run / "checkpoints" / "000000048.safetensors"):
            train(shapes, out=run, **{**SMALL, "snapshots": 3})
    notes = [line for line in capsys.readouterr().out.splitlines() if "No space left" in line]
    assert len(notes) == 2
    for line in notes:
        assert line.count("No space left") == 1
        assert "checkpoint, the generator, the grid of samples" in line
    train(shapes, out=run, **{**SMALL, "snapshots": 3})
    assert [path.stem for path in checkpoint.checkpoints(run)] == ["000000032", "000000048"]


def test_a_score_that_fails_does_not_end_the_run(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def fail(*_: Any) -> float:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(snapshot, "MIN_SELECT", 2)
    monkeypatch.setattr(snapshot.features, "load_extractor", lambda **_: random_projection())
    monkeypatch.setattr(snapshot.LiveScore, "score", fail)
    run = train(shapes, out=tmp_path / "run", **{**SMALL, "split": "60/40/0"})
    assert "could not create a primitive" in capsys.readouterr().out
    assert len(checkpoint.checkpoints(run)) == 2


@pytest.mark.parametrize("at", ["generator", "README.md", "samples"])
def test_a_run_that_dies_after_its_checkpoint_writes_what_is_missing_when_it_resumes(
    at: str, shapes: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        real = outputs.export_generator if at != "samples" else outputs.save_grid

        def die(*arguments: Any) -> Any:
            if at == "README.md":
                real(*arguments)
                (arguments[0] / "README.md").unlink()
            raise KeyboardInterrupt

        patch.setattr(outputs, "save_grid" if at == "samples" else "export_generator", die)
        with pytest.raises(KeyboardInterrupt):
            train(shapes, out=tmp_path / "run", **SMALL)
    assert [path.stem for path in checkpoint.checkpoints(tmp_path / "run")] == ["000000024"]
    at_step(monkeypatch, 1, interrupt)
    with raises("stopped", kind=Stopped):
        train(shapes, out=tmp_path / "run", **SMALL)
    file = "samples/000000024.png"
    assert (tmp_path / "run" / file).read_bytes() == (finished / file).read_bytes()
    train(shapes, out=tmp_path / "run", **SMALL)
    file = "generator/model.safetensors"
    assert (tmp_path / "run" / file).read_bytes() == (finished / file).read_bytes()


def test_a_log_that_cannot_be_written_is_kept_until_it_can(tmp_path: Path) -> None:
    path, said = tmp_path / "metrics.jsonl", list[str]()
    Metrics(path).write(8)
    path.rename(tmp_path / "aside")
    path.mkdir()
    metrics = Metrics(path, said.append)
    metrics.write(16, d_adv=0.5)
    metrics.new_attempt()
    metrics.write(24)
    assert len(said) == 1
    assert str(path) in said[0]
    with raises("file-unwritable", path, "2 lines"):
        metrics.close()
    path.rmdir()
    (tmp_path / "aside").rename(path)
    metrics.write(32)
    metrics.close()
    assert [(line["images_seen"], line["attempt"]) for line in read_log(path)] == [(8, 1), (16, 2), (24, 3), (32, 3)]


def test_half_a_line_on_a_full_disk_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path)
    metrics.write(8)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        metrics.write(16)
        assert path.read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    metrics.close()
    assert [line["images_seen"] for line in read_log(path)] == [8, 16]


def test_a_run_whose_log_cannot_be_written_is_saved_and_ends_with_an_error(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with lock(tmp_path / "run", print):
        (tmp_path / "run" / "metrics.jsonl").mkdir()
    with raises("file-unwritable", "metrics.jsonl"):
        train(shapes, out=tmp_path / "run", **SMALL)
    assert load(tmp_path / "run").images_seen == 48


def no_room(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let the system refuse so many checkpoints."""
    save, left = checkpoint.save_tensors, [times]

    def refuse(path: Path, *given: Any) -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise UserError(f"cannot write {path}: {os.strerror(28)}", "file-unwritable")
        return save(path, *given)

    monkeypatch.setattr(checkpoint, "save_tensors", refuse)


def test_training_goes_on_where_a_checkpoint_cannot_be_written(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    no_room(monkeypatch, times=1)
    run = train(shapes, out=tmp_path / "run", **{**SMALL, "snapshots": 2})
    assert [path.stem for path in checkpoint.checkpoints(run)] == ["000000048"]
    assert str(run / "checkpoints" / "000000024.safetensors") in capsys.readouterr().out


def test_a_last_checkpoint_that_cannot_be_written_ends_in_an_error_and_the_command_resumes(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    at_step(monkeypatch, 5, lambda _: no_room(monkeypatch, times=1))
    with raises("file-unwritable", "000000048.safetensors", "48 images") as failed:
        train(shapes, out=run, **{**SMALL, "snapshots": 2})
    assert failed.value.run == run
    assert load(run).images_seen == 48
    train(shapes, out=run, **{**SMALL, "snapshots": 2})
    assert [path.stem for path in checkpoint.checkpoints(run)] == ["000000024", "000000048"]


@given(st.integers(0, 300))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_space_at_any_byte_leaves_the_old_file(tmp_path: Path, room: int) -> None:
    path = tmp_path / "a"
    write_atomic(path, b"old")

    def fill(file: Any) -> None:
        file.write(b"x" * min(room, 256))
        if room < 256:
            raise OSError(28, os.strerror(28))

    if room < 256:
        with raises("file-unwritable", path, "No space left on device"):
            write_atomic(path, fill)
        assert path.read_bytes() == b"old"
    else:
        write_atomic(path, fill)
        assert path.read_bytes() == b"x" * 256
    assert [left.name for left in tmp_path.iterdir()] == ["a"]
    path.unlink()
