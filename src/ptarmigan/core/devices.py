"""Where to compute: a look at the machine."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ptarmigan.core.types import UserError, unknown

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def pick_device(name: str) -> torch.device:
    """The device of a name; auto: CUDA, then Apple's MPS, then the CPU.  Raises UserError where it is missing."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, found in there.items() if found)
    if name not in there:
        raise unknown("device", name, ["auto", *there])
    if not there[name]:
        raise UserError(
            f"device: no {name} on this machine; it has {', '.join(d for d, found in there.items() if found)}"
        )
    if name == "cuda" and "LOCAL_RANK" in os.environ:  # torchrun: a GPU for each rank
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        return torch.device(name, int(os.environ["LOCAL_RANK"]))
    return torch.device(name)


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor of the host on a device; a GPU fetches it by itself, so that the host need not wait for its queue."""
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def keep_freed_memory() -> None:
    """Let glibc keep what the process frees, for steps take the same blocks again and again.

    Fresh pages are filled with zeros first: .03 to .1 of a step's time.  It lasts as long as the process does.
    Elsewhere nothing is done.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None:
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)  # older ones take no more


def out_of_memory(error: BaseException) -> bool:
    """The device has no more memory; the CPU's allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """The same bits on a GPU each time, as on the CPU; an operation that cannot is an error.  Given back at the end."""
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first use
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
