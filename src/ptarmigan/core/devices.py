"""The device to compute on, its memory and its determinism."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptarmigan.core.openmp import ShortWaits
from ptarmigan.core.ranks_env import under_torchrun
from ptarmigan.core.types import UserError, unknown

NO_MEMORY = re.compile(
    r"allocate memory|alloc_cpu\.cpp|bad_alloc|out of memory|_ALLOC_FAILED|can't start new thread"
    r"|could not (create|execute) a primitive(?! descriptor)|could not create a memory"
)
LEAST_MEMORY = 2 * 10**9  # bytes of address space; `import torch` and its threads take half of them
CONTAINER = Path("/sys/fs/cgroup")  # what the kernel says of this process's container
LOOK_AT = 2.0  # seconds over which the use of the cores is measured
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


def computes_bf16(device: torch.device) -> bool:
    """Whether bf16 may be faster than fp32 there: not on a CPU without instructions for it, which takes 10 times as
    long, nor on MPS."""
    if device.type != "cpu":
        return device.type == "cuda"
    has = torch.cpu.get_capabilities()
    on_x86 = "x86" in str(has.get("architecture", ""))
    native = not on_x86 or has.get("amx_bf16", False) or has.get("avx512_bf16", False)
    return bool(native) and onednn_takes_bf16()


def onednn_takes_bf16() -> bool:
    """Whether oneDNN has kernels for bf16 here; on x86 it also has some that only emulate it."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager[Any]:
    """Compute in bf16 what gains by it, or all in the tensors' own types; the meta device knows no such choice."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, torch.bfloat16, enabled=bf16)


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
    """Whether the error says that no memory is left: on the device, or on the host for numpy, a thread or a file.

    On a CPU, PyTorch's allocator, oneDNN and C++ raise a plain RuntimeError, which only its text tells from others.
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)) is not None
    )


def little_memory() -> str | None:
    """A sentence if this process may map so little memory that torch's C++ libraries, which do not check, may crash."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY or limit >= LEAST_MEMORY:
        return None
    return (
        f"this process may use {limit / 1e9:.1f} GB of memory (ulimit -v), and libraries that it calls may end it "
        f"without a word where less than {LEAST_MEMORY / 1e9:.0f} GB are allowed; raise the limit"
    )


def free_memory() -> int | None:
    """Bytes of memory that this process may still take, by the machine and its container; None if that is unknown."""
    found = []
    with suppress(OSError, ValueError, KeyError):
        found.append(1024 * numbers_in(Path("/proc/meminfo"))["MemAvailable:"])
    with suppress(OSError, ValueError, KeyError):  # "max" is no number, where the container has no limit
        most, used = (int((CONTAINER / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        found.append(most - used + numbers_in(CONTAINER / "memory.stat")["inactive_file"])
    return min(found, default=None)


def numbers_in(path: Path) -> dict[str, int]:
    """The first number after each name in a file of the system, a name a line."""
    lines = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    return {words[0]: int(words[1]) for words in lines}


class OtherProcesses:
    """How busy other processes keep the cores of this one; while they do, threads that wait leave their cores to them.

    The ranks of one machine are taken to be as busy as this one.  A thread looks every LOOK_AT seconds while the object
    is open, and `say` is told once.
    """

    def __init__(self, device: torch.device, say: Callable[[str], object] = print) -> None:
        self.watched, self.said, self.say = device.type == "cpu", False, say
        self.threads = torch.get_num_threads()  # which OpenMP keeps for each thread of Python
        self.waits, self.left = ShortWaits(), threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.start, self.busy, self.own = time.monotonic(), busy_seconds(), time.process_time()

    def __enter__(self) -> OtherProcesses:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.left.set()
        self.thread.join()
        self.waits.switch(False)

    def _watch(self) -> None:
        while not self.left.wait(LOOK_AT):
            if sentence := self.note():
                self.say(f"note: {sentence}")

    def note(self) -> str | None:
        """Look at what was since the last look; a sentence when there are more threads than cores for the first time.

        Nothing is done before LOOK_AT seconds have passed.
        """
        now = time.monotonic()
        seconds = now - self.start
        if not self.watched or seconds < LOOK_AT:
            return None
        before, own_before = self.busy, self.own
        self.start, self.busy, self.own = now, busy_seconds(), time.process_time()
        if before is None or self.busy is None:
            return None
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if under_torchrun() else 1
        others = (self.busy - before - ranks * (self.own - own_before)) / seconds
        threads, cores = ranks * self.threads, len(os.sched_getaffinity(0))
        crowded = others >= 0.5 and threads + others >= cores + 0.5
        self.waits.switch(crowded and threads > ranks)
        if not crowded or self.said:
            return None
        self.said = True
        text = f"other processes keep {others:.1f} of the {cores} cores busy, so this run is slower than alone"
        hint = f"; for several runs at once set OMP_NUM_THREADS so that their threads together are at most {cores}"
        return text + (hint if threads > ranks else "")


def busy_seconds() -> float | None:
    """Seconds that this process's cores have computed since the system started; None where it does not say."""
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
        mine = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        fields = [line.split() for line in lines if line.split(" ")[0] in mine]
        ticks = sum(int(row[at]) for row in fields for at in (1, 2, 3, 6, 7))  # user, nice, system, irq, softirq
        return ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return None


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
