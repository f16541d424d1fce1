"""The device to compute on, its memory and its determinism."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ptarmigan.core.ranks_env import under_torchrun
from ptarmigan.core.types import UserError, unknown

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


def pick_device(name: str) -> torch.device:
    """The device of this name; auto takes the first of CUDA, Apple's MPS and the CPU that the machine has.

    Raises UserError: unknown-name, or device-missing.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    devices = [device for device, found in available.items() if found]
    if name == "auto":
        name = devices[0]
    if name not in available:
        raise unknown("device", name, ["auto", *available])
    if name not in devices:
        raise UserError(f"device: this machine has no {name}; use --device {' or '.join(devices)}", "device-missing")
    if name == "cuda" and under_torchrun():  # each rank has its own GPU
        local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= count:
            text = f"device: rank {local} of this machine has no GPU of its own, because there are {count}; use "
            error = UserError(f"{text}--nproc-per-node {count}, or --device cpu", "device-missing")
            error.of_one_rank = local == count
            raise error
        torch.cuda.set_device(local)
        return torch.device(name, local)
    return torch.device(name)


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy a tensor from the host to a device; the host does not wait for a GPU to finish the work in its queue."""
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def keep_freed_memory() -> None:
    """Let glibc keep the memory that the process frees, since each step allocates blocks of the same sizes.

    The kernel fills new pages with zeros, which takes 3 to 10 % of a step's time.  The setting lasts until the process
    ends.  Where the C library has no mallopt, nothing is done.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None:
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)  # the limit of older versions


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that the device has no memory left; the CPU's allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Compute the same bits on a GPU in every run; an operation that cannot raises.  Settings are restored on exit."""
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS at its first use
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
