"""What the machine lacks or shares: memory, and cores that other processes use."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ptarmigan.core import devices
from ptarmigan.core.devices import OtherProcesses, busy_seconds, out_of_memory


def test_free_memory_is_that_of_the_machine_and_of_its_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "CONTAINER", tmp_path)
    machine = devices.free_memory()
    if Path("/proc/meminfo").exists():
        assert machine is not None
        assert machine > 1 << 20
    (tmp_path / "memory.current").write_text("400\n")
    (tmp_path / "memory.stat").write_text("anon 350\ninactive_file 30\n")
    for limit, free in (("1000", 630), ("max", machine)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        found = devices.free_memory()
        assert found == free or (limit == "max" and found is not None)


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not execute a primitive"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("could not create a primitive descriptor for a convolution"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("cannot allocate memory"), False),
    ],
)
def test_an_error_for_want_of_memory_is_told_from_others(error: Exception, memory: bool) -> None:
    assert out_of_memory(error) is memory


def test_the_errors_of_numpy_and_torch_are_recognised() -> None:
    for ask in (lambda: np.empty(1 << 60, np.uint8), lambda: torch.empty(1 << 60, dtype=torch.uint8)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            ask()
        assert out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("others", "own", "threads", "seconds", "ranks", "said"),
    [
        (2.0, 2.0, 4, 2.0, 1, "1.0 of the 4 cores"),
        (2.0, 2.0, 3, 2.0, 1, None),  # a core is left for them
        (0.4, 8.0, 4, 2.0, 1, None),  # a quiet machine
        (0.4, 8.0, 6, 2.0, 1, None),
        (2.0, 2.0, 4, 1.0, 1, None),  # too early to say
        (2.0, 2.0, 2, 2.0, 2, None),  # the other rank's own work
        (4.0, 2.0, 2, 2.0, 2, "1.0 of the 4 cores"),
    ],
)
def test_a_run_that_shares_its_cores_says_so_once(
    others: float, own: float, threads: int, seconds: float, ranks: int, said: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    now = {"monotonic": 0.0, "process_time": 0.0, "busy": 0.0}
    for clock in ("monotonic", "process_time"):
        monkeypatch.setattr(devices.time, clock, lambda clock=clock: now[clock])
    monkeypatch.setattr(devices, "busy_seconds", lambda: now["busy"])
    monkeypatch.setattr(devices, "under_torchrun", lambda: ranks > 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    watched = OtherProcesses(torch.device("cpu"))
    now |= {"monotonic": seconds, "process_time": own, "busy": own + others}
    note = watched.note()
    assert (note is None) == (said is None)
    assert said is None or said in str(note)
    now |= {"monotonic": 4.0}
    assert note is None or watched.note() is None
    assert OtherProcesses(torch.device("cuda")).note() is None


def test_other_processes_are_watched_while_a_run_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(devices, "LOOK_AT", 0.02)
    monkeypatch.setattr(OtherProcesses, "note", lambda self: None if said else "crowded")
    with OtherProcesses(torch.device("cpu"), said.append) as watched:
        while not said:
            time.sleep(0.01)
    assert said == ["note: crowded"]
    assert not watched.thread.is_alive()


@pytest.mark.skipif(busy_seconds() is None, reason="the system does not say how busy its cores are")
def test_the_work_of_other_processes_is_measured() -> None:
    before = busy_seconds()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    after = busy_seconds()
    assert before is not None
    assert after is not None
    assert after - before > 0.25


def test_a_limit_of_memory_is_noted_where_it_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, noted in ((resource.RLIM_INFINITY, False), (8 * 10**9, False), (12 * 10**8, True)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        note = devices.little_memory()
        assert (note is not None) == noted
        assert note is None or "1.2 GB" in note
