"""Several ranks are one run: the same trajectory, the same files, and an error when one of them is lost."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as c10d

from conftest import SMALL
from ptarmigan.core import dist
from ptarmigan.core.files import Damaged, load_json
from ptarmigan.core.tensor_files import load_tensors
from ptarmigan.game.batch import rank_batch
from ptarmigan.training import checkpoint
from ranks_worker import GAMES, WHOLE
from support import raises

WORKER = Path(__file__).parent / "ranks_worker.py"


def start(ranks: int, *arguments: object, restarts: int = 0, micro_batch: int = 0) -> subprocess.Popen[str]:
    launcher = [sys.executable]
    if ranks > 1:
        launcher += [
            "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", f"--max-restarts={restarts}",
        ]  # fmt: skip
    return subprocess.Popen(
        [*launcher, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MICRO_BATCH": str(micro_batch)},
    )


def play(ranks: int, data: Path, steps: int, begin: Path | str, to: Path, micro_batch: int = 0) -> None:
    to.mkdir()
    games = GAMES if micro_batch else GAMES | WHOLE
    process = start(ranks, WORKER, data, steps, begin, to, *games, micro_batch=micro_batch)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[:6000]


def equal(one: Path, two: Path) -> None:
    for name in (path.stem for path in two.iterdir()):
        (a, at), (b, bt) = (load_tensors(folder / f"{name}.safetensors") for folder in (one, two))
        assert at["images_seen"] == bt["images_seen"] == 20 * 8
        assert a.keys() == b.keys()
        for key in a:
            torch.testing.assert_close(
                a[key], b[key], rtol=1e-9, atol=1e-12, msg=lambda m, k=key, n=name: f"{n} {k}: {m}"
            )


@pytest.mark.slow
def test_ranks_and_parts_of_a_batch_give_one_trajectory_and_may_change_in_mid_run(shapes: Path, tmp_path: Path) -> None:
    play(1, shapes, 20, "-", tmp_path / "one")
    play(2, shapes, 20, "-", tmp_path / "two")
    equal(tmp_path / "one", tmp_path / "two")
    play(1, shapes, 7, "-", tmp_path / "a")
    play(2, shapes, 7, tmp_path / "a", tmp_path / "b")
    play(1, shapes, 6, tmp_path / "b", tmp_path / "c")
    equal(tmp_path / "one", tmp_path / "c")
    play(1, shapes, 20, "-", tmp_path / "parts", micro_batch=3)
    equal(tmp_path / "one", tmp_path / "parts")
    play(2, shapes, 20, "-", tmp_path / "both", micro_batch=3)
    equal(tmp_path / "one", tmp_path / "both")


def flags(**fields: Any) -> list[str]:
    return [f"--{key.replace('_', '-')}={value}" for key, value in {**SMALL, **fields}.items()]


@pytest.mark.slow
def test_a_run_on_two_ranks_survives_the_death_of_one_and_ends_the_same(shapes: Path, tmp_path: Path) -> None:
    fields = flags(images="4k", snapshots=50)
    whole = start(2, "-m", "ptarmigan", "train", shapes, "--out", tmp_path / "whole", *fields)
    out, err = whole.communicate(timeout=120)
    assert whole.returncode == 0, err
    assert "on cpu in fp32, 2 ranks" in out
    assert out.count("trained on") == 1  # one rank speaks

    process = start(2, "-m", "ptarmigan", "train", shapes, "--out", tmp_path / "run", *fields, restarts=3)
    for _ in range(1200):
        if len(checkpoint.checkpoints(tmp_path / "run")) > 1:
            break
        time.sleep(0.02)
    os.kill(load_json(tmp_path / "run" / ".owner.json")["pid"], signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "exited without releasing the run" in out
    for file in ("generator/model.safetensors", "samples/000004000.png"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "run" / file).read_bytes()


@pytest.mark.slow
def test_a_rank_that_hangs_is_reported(shapes: Path, tmp_path: Path) -> None:
    process = start(2, WORKER, "hang", shapes, tmp_path / "run")
    owner = tmp_path / "run" / ".owner.json"
    pid = None
    for _ in range(1200):
        if checkpoint.checkpoints(tmp_path / "run"):
            try:
                pid = load_json(owner)["pid"]
                break
            except Damaged:
                pass
        time.sleep(0.05)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        _, err = process.communicate(timeout=90)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert process.returncode != 0
    assert re.search("note: rank 1 of 2 has waited 1 s for rank 0 ", err)
    assert re.search("RankLost: rank 1 of 2 .*--max-restarts", err)


@pytest.mark.slow
def test_a_signal_saves_on_all_ranks(shapes: Path, tmp_path: Path) -> None:
    process = start(2, "-m", "ptarmigan", "train", shapes, "--out", tmp_path / "run", *flags(images="1M"))
    assert process.stdout is not None
    while "left" not in (line := process.stdout.readline()):
        assert line
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert "[stopped]" in err
    assert f"--out {tmp_path / 'run'}" in err
    found, bad = checkpoint.newest(tmp_path / "run")
    assert found is not None
    assert not bad


TORCHRUN = {
    "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",
}  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({}, ""),
        (TORCHRUN, ""),
        (dict(list(TORCHRUN.items())[:2]), "RANK=0 WORLD_SIZE=2"),
        ({"RANK": "1"}, "RANK=1"),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, ""),
        ({"MASTER_ADDR": "10.0.0.1"}, ""),
        *(({name: value}, f"{name}={value}") for name, value in (("WORLD_SIZE", "abc"), ("LOCAL_RANK", "x"))),
        *((TORCHRUN | {"WORLD_SIZE": value}, f"WORLD_SIZE={value}") for value in ("abc", "0", "-2", "")),
        (TORCHRUN | {"RANK": "5"}, "RANK=5"),
    ],
)
def test_ranks_that_torchrun_did_not_set_are_ignored_and_said(
    environment: dict[str, str], names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    said = dist.stray_rank()
    assert bool(said) == bool(names)
    assert said is None or names in said
    if names:
        with dist.ranks(torch.device("cpu")):
            assert (dist.rank(), dist.world()) == (0, 1)


def test_a_rank_that_no_other_meets_says_so_and_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    monkeypatch.setattr(dist, "TIMEOUT", timedelta(seconds=2))
    monkeypatch.setattr(dist, "PATIENCE", 0.2)
    with raises("rank-lost", "127.0.0.1", kind=dist.RankLost), dist.ranks(torch.device("cpu")):
        pass
    assert "rank 0 of 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("numbers", "names"),
    [
        ({0: 7, 1: 7}, ""),  # all compute
        ({0: 7}, "rank 1, rank 2"),
        ({0: 7, 1: 6, 2: 7}, "rank 1"),
        ({0: 7, 1: 8}, ""),  # this rank is late itself
    ],
)
def test_the_ranks_that_others_wait_for_are_those_behind(numbers: dict[int, int], names: str) -> None:
    store = c10d.HashStore()
    count = 3 if names else 2
    for number, exchange in numbers.items():
        if number:
            store.set(str(number), str(exchange))
    assert dist._Watch(store, 0, count).behind(numbers[0]) == names


@pytest.mark.slow
def test_an_error_of_one_rank_is_said_once(tmp_path: Path) -> None:
    process = start(2, "-m", "ptarmigan", "train", tmp_path / "missing", "--out", tmp_path / "run", *flags())
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert re.findall(r"^ptarmigan: .*(\[.+\])$", err, re.MULTILINE) == ["[path-not-found]"]


def test_a_batch_that_does_not_divide_names_the_nearest_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "world", lambda: 4)
    with raises("options-conflict", "batch: 10", "--batch 8 or 12"):
        rank_batch(10)
    with raises("options-conflict", "batch: 3", "--batch 4"):
        rank_batch(3)
    assert rank_batch(12) == 3


def test_weights_that_differ_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "world", lambda: 3)
    monkeypatch.setattr(dist, "_device", lambda: torch.device("cpu"))

    def gather(out: list[torch.Tensor], mine: torch.Tensor) -> None:
        for number, tensor in enumerate(out):
            tensor.copy_(mine if number != 1 else mine + 1)

    monkeypatch.setattr(dist.c10d, "all_gather", gather)
    assert dist.differing(b"0123") == [1]
