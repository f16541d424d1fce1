"""A run folder is made, locked for one process, and never taken from somebody else."""

from __future__ import annotations

import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import SMALL
from ptarmigan.core.files import load_json, save_json
from ptarmigan.training.loop import train
from ptarmigan.training.run_folder import lock, new_run
from support import (
    command,
    ended,
    flags,
    raises,
    until,
)


def test_a_run_is_locked_for_one_process_at_a_time_which_the_error_names(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with lock(run, print):
        with raises("run-locked", run, os.getpid(), os.uname().nodename), lock(run, print):
            raise AssertionError
        assert (run / ".owner.json").exists()
        (run / "checkpoints").mkdir()
    notes: list[str] = []
    save_json(run / ".owner.json", {"pid": 4321, "host": "elsewhere"})
    with lock(run, notes.append):
        assert load_json(run / ".owner.json")["pid"] == os.getpid()
    assert not (run / ".owner.json").exists()
    (note,) = notes
    assert "process 4321 on elsewhere" in note


@pytest.mark.slow
def test_a_second_process_is_refused_with_pid_and_host_and_the_first_continues(shapes: Path, tmp_path: Path) -> None:
    first = command("train", shapes, "--out", tmp_path / "run", *flags(images="1M"))
    until((tmp_path / "run" / "metrics.jsonl").exists)
    status, _, err = ended(command("train", shapes, "--out", tmp_path / "run", *flags(images="1M")))
    assert status == 2
    assert "[run-locked]" in err
    assert f"process {first.pid} on {os.uname().nodename}" in err
    assert len(err.strip().splitlines()) == 1
    assert first.poll() is None
    first.kill()
    first.communicate()
    process = command("train", shapes, "--out", tmp_path / "run", *flags(images="1M"))
    assert process.stdout is not None
    while f"process {first.pid} on" not in (line := process.stdout.readline()):
        assert line, "the stale lock was not recognised"
    while "left" not in process.stdout.readline():  # it trains
        pass
    process.send_signal(signal.SIGTERM)
    status, _, err = ended(process)
    assert status == 128 + signal.SIGTERM
    assert "[stopped]" in err
    assert not (tmp_path / "run" / ".owner.json").exists()


def test_what_a_killed_process_left_half_written_is_removed_and_nothing_else(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with lock(run, print):
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / ".000000024.safetensors.1-0123abcd.tmp").write_bytes(b"half")
        (run / "note.tmp").write_text("mine")
    with lock(run, print):
        assert [path.name for path in (run / "checkpoints").iterdir()] == []
        assert (run / "note.tmp").read_text() == "mine"


def test_a_run_that_saved_nothing_leaves_no_folder_but_one_that_was_there(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock(tmp_path / "run", print):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    with pytest.raises(ZeroDivisionError), lock(tmp_path / "mine", print):
        raise ZeroDivisionError
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize(
    "files",
    [
        {"checkpoints/notes.txt": "mine"},
        {"checkpoints/000000024.safetensors": "not ours"},
        {"config.json": "{}", ".notes.tmp": "mine"},
        {"config.json": '{"sha256": "0"}'},
        {".lock": "1234", "a/b/.syncthing.movie.mkv.tmp": "half"},
        {"generator/config.json": "{}"},
        {".ptarmigan-run": "{}"},
    ],
)
def test_a_folder_of_another_is_refused_and_nothing_in_it_changes(files: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).write_text(text)
    before = sorted((tmp_path / "x").rglob("*"))
    with raises("not-a-run", tmp_path / "x"), lock(tmp_path / "x", print):
        raise AssertionError
    assert sorted((tmp_path / "x").rglob("*")) == before
    assert all((tmp_path / "x" / name).read_text() == text for name, text in files.items())


@pytest.mark.parametrize("proof", ["config.json", "checkpoints"])
def test_a_run_of_before_markers_is_known_by_what_it_holds(proof: str, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / ".ptarmigan-run").unlink()
    if proof == "config.json":
        shutil.rmtree(tmp_path / "run" / "checkpoints")
    else:
        (tmp_path / "run" / "config.json").unlink()
    with lock(tmp_path / "run", print):
        assert (tmp_path / "run" / ".ptarmigan-run").exists()


def test_what_a_start_left_that_was_killed_at_once_is_used_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    (tmp_path / "run" / "..ptarmigan-run.12-0123abcd.tmp").write_text("{")
    with lock(tmp_path / "run", print):
        names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {".lock", ".owner.json", ".ptarmigan-run"}


def test_a_run_without_its_checkpoints_is_not_begun_anew_over_its_generator(
    shapes: Path, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    before = (tmp_path / "run" / "generator" / "model.safetensors").read_bytes()
    with raises("no-good-checkpoint", tmp_path / "run", "generator", "--out"):
        train(shapes, out=tmp_path / "run", **SMALL)
    assert (tmp_path / "run" / "generator" / "model.safetensors").read_bytes() == before


def test_runs_that_begin_at_once_get_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(new_run, ["a"] * 24))
    assert sorted(runs) == sorted(Path(f"runs/a-{number}") for number in range(1, 25))
    (tmp_path / "file").mkdir()
    monkeypatch.chdir(tmp_path / "file")
    (tmp_path / "file" / "runs").touch()
    with raises("file-unwritable", "runs", "--out"):
        new_run("a")
