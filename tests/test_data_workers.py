"""Files read in processes: the same answers in the same order as in threads, also where a process dies."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ptarmigan.data import workers
from ptarmigan.data.decode import Limits, TargetShape, decode, read_header
from ptarmigan.data.disk import Disk
from ptarmigan.data.workers import Failure, read_files

DECODE = partial(decode, shape=TargetShape(16, 16, 3))
DIES = """
import os, sys
sys.path.insert(0, sys.argv[1])
from ptarmigan.data import workers
attempt = workers._attempt
workers._attempt = lambda storage, path, *rest: os._exit(3) if path in {} else attempt(storage, path, *rest)
workers.main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Disk:
    """40 files of which 7.png is cut off and 9.png is a text."""
    rng = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(tmp_path / f"{i}.png")
    content = (tmp_path / "7.png").read_bytes()
    (tmp_path / "7.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "9.png").write_text("a text")
    return Disk(tmp_path)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The processes that are started, two at a time."""
    started: list[Any] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(workers.subprocess, "Popen", Noted)
    monkeypatch.setattr(workers, "MANY", 10)
    monkeypatch.setattr(workers, "BATCH", 4)
    monkeypatch.setattr(workers, "cores", lambda: 2)
    return started


PATHS = [f"{i}.png" for i in range(40)] + ["gone.png"]


def same(one: Any, other: Any) -> bool:
    return one == other if isinstance(one, Failure) else bool(np.array_equal(one, other))


def test_processes_give_the_answers_of_threads(folder: Disk, processes: list[Any]) -> None:
    in_threads = list(read_files(folder, PATHS, DECODE, Limits()))
    assert processes == []
    assert [i for i, answer in enumerate(in_threads) if isinstance(answer, Failure)] == [7, 9, 40]
    found = list(read_files(folder, PATHS, DECODE, Limits(), in_processes=True))
    assert all(map(same, found, in_threads))
    assert 1 <= len(processes) <= 2
    assert all(process.returncode is not None for process in processes)
    few = list(read_files(folder, PATHS[:9], DECODE, Limits(), in_processes=True))
    assert all(map(same, few, in_threads))
    assert len(processes) <= 2


@pytest.mark.parametrize("deadly", [["5.png"], ["0.png", "30.png", "39.png"]])
def test_a_file_that_ends_its_process_costs_no_other_file(
    folder: Disk, processes: list[Any], deadly: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_threads = list(read_files(folder, PATHS, DECODE, Limits()))
    monkeypatch.setattr(workers, "START", DIES.format(deadly))
    found = list(read_files(folder, PATHS, DECODE, Limits(), in_processes=True))
    for path, answer, wanted in zip(PATHS, found, in_threads, strict=True):
        if path in deadly:
            assert isinstance(answer, Failure)
            assert answer.detail == "status 3"
        else:
            assert same(answer, wanted)


def test_without_processes_all_files_are_read_in_this_one(
    folder: Disk, processes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "START", "raise SystemExit(1)")
    found = list(read_files(folder, PATHS, read_header, Limits(), in_processes=True))
    assert [getattr(header, "height", None) for header in found[:11]] == [20] * 9 + [None, 20]
    assert 1 <= len(processes) <= 2


def test_an_image_too_large_for_a_process_is_read_in_this_one(
    folder: Disk, processes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_threads = list(read_files(folder, PATHS, DECODE, Limits()))
    monkeypatch.setattr(workers, "DECODING_BYTES", 2 * 20 * 24 * 8 - 2)
    found = list(read_files(folder, PATHS, DECODE, Limits(), in_processes=True))
    assert all(map(same, found, in_threads))


def test_they_end_when_the_reader_stops_early(folder: Disk, processes: list[Any]) -> None:
    answers = read_files(folder, PATHS * 20, DECODE, Limits(), in_processes=True)
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert processes
    assert all(process.returncode is not None for process in processes)
