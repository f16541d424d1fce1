"""Ranks under torchrun.  Without torchrun the process is rank 0 of 1, and no function here communicates."""

from __future__ import annotations

import importlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import safetensors.torch
import torch
import torch.distributed as c10d
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from ptarmigan.core.console import Terminal
from ptarmigan.core.ranks_env import under_torchrun
from ptarmigan.core.types import UserError, shorten

TIMEOUT = timedelta(minutes=30)  # the longest that a rank waits for another one: rank 0 may decode images in that time
PATIENCE = 10.0  # seconds without an exchange after which a rank says for whom it waits
LOOK = 1.0  # seconds between two looks at that


class RankLost(UserError):
    """Another rank exited, or did not communicate in time."""

    code = "rank-lost"
    status = 1
    of_one_rank = True


def world() -> int:
    return c10d.get_world_size() if c10d.is_initialized() else 1


def rank() -> int:
    return c10d.get_rank() if c10d.is_initialized() else 0


def stray_rank() -> str | None:
    """A sentence where the environment speaks of several ranks but lacks something that torchrun sets, else None."""
    named = {name: os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK") if name in os.environ}
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    if under_torchrun() or all(alone[name] == value for name, value in named.items()):
        return None
    return (
        f"{' '.join(f'{name}={value}' for name, value in named.items())} in the environment is ignored, and this "
        "process trains alone: several ranks need RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, all valid "
        "as torchrun sets them"
    )


@contextmanager
def ranks(device: torch.device) -> Iterator[None]:
    """Set up the process group that torchrun's environment describes, with nccl on GPUs and gloo elsewhere.

    A rank that waits long says so on standard error.  Raises RankLost where the ranks do not meet.
    """
    global _watch
    if not under_torchrun() or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    # Optimizers import this module at their first step.  If it is imported while a group exists, the defaults of its
    # functions keep the group alive after it is destroyed, and gloo's threads then end the process by SIGABRT.
    importlib.import_module("torch.distributed.nn")
    store = _meet()
    backend = "nccl" if device.type == "cuda" else "gloo"
    number, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    c10d.init_process_group(backend, store=store, rank=number, world_size=count, timeout=TIMEOUT)
    _watch = _Watch(PrefixStore("watch", store.clone()), number, count)  # type: ignore[attr-defined]
    _watch.start()
    try:
        yield
    except UserError as error:
        if number == 0 or error.of_one_rank:
            _watch.tell()
        raise
    finally:
        _watch.ended.set()
        _watch = None
        c10d.destroy_process_group()


def _meet() -> Store:
    """The store through which the ranks exchange their addresses; returns when all of them have come."""
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    one = f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}"
    text = f"{one} waits for the others at {place}; to train alone, unset RANK and WORLD_SIZE"
    try:
        with _said_after(PATIENCE, text):
            store: Store = next(rendezvous("env://", timeout=TIMEOUT))[0]
    except (RuntimeError, ValueError) as error:
        raise RankLost(f"{one} did not meet the others at {place} ({str(error).splitlines()[0]})") from error
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        # torchrun's store survives a restart and still holds the addresses of the dead processes (pytorch issue
        # 135712).  On several machines the restart counts may differ; docs/scaling.md says what to set there.
        store = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    return store


class _Watch(threading.Thread):
    """Says for whom the ranks wait where no exchange began for a while.

    Each rank that notices this writes the number of its last exchange to the store.  The ranks to wait for are those
    with a smaller number and those that write nothing, because they are stopped.
    """

    def __init__(self, store: Store, number: int, count: int) -> None:
        super().__init__(daemon=True)
        self.store, self.number, self.count = store, number, count
        self.ended = threading.Event()
        self.last = 0, time.monotonic()  # the number of the last exchange, and when it began
        store.set_timeout(timedelta(seconds=PATIENCE))
        store.set(str(number), "0")  # in place of what an earlier attempt wrote
        if number == 0:
            store.delete_key("told")

    def note(self) -> None:
        """Count an exchange that begins."""
        self.last = self.last[0] + 1, time.monotonic()

    def tell(self) -> None:
        """Let the others know that this rank prints why it ends, so that they need not say that they lost it."""
        with suppress(RuntimeError):
            self.store.set("told", "")

    def told(self) -> bool:
        with suppress(RuntimeError):
            return bool(self.store.check(["told"]))
        return False

    def run(self) -> None:
        said_of, due = 0, PATIENCE
        while not self.ended.wait(LOOK):
            exchange, since = self.last
            waited = time.monotonic() - since
            if exchange != said_of:
                said_of, due = exchange, PATIENCE
            if waited < PATIENCE / 2:  # the others write within this time too
                continue
            place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            text = f"rank {self.number} of {self.count} gets no answer from {place}, which rank 0 or torchrun keeps"
            with _said_after(PATIENCE / 2, text):
                names = self.behind(exchange)
            if names and waited >= due:
                _say(
                    f"rank {self.number} of {self.count} has waited {waited:.0f} s for {names} (busy, stopped or "
                    f"unreachable); training ends after {TIMEOUT.total_seconds():.0f} s"
                )
                due *= 3

    def behind(self, exchange: int) -> str:
        """The ranks that the others wait for, if this is the rank that is to name them."""
        try:
            self.store.set(str(self.number), str(exchange))
            keys = map(str, range(self.count))
            numbers = [int(self.store.get(key)) if self.store.check([key]) else -1 for key in keys]
        except RuntimeError:  # the rank that keeps the store does not answer
            return "another rank"
        if numbers.index(max(numbers)) != self.number:
            return ""
        return shorten([f"rank {other}" for other, reached in enumerate(numbers) if reached < exchange])


_watch: _Watch | None = None  # of the process group


@contextmanager
def _said_after(seconds: float, text: str) -> Iterator[None]:
    """Say a sentence if the block takes this long; it may block in C++."""
    timer = threading.Timer(seconds, _say, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _say(text: str) -> None:
    with suppress(OSError, ValueError):  # standard error may be closed
        Terminal(stderr=True).say(f"note: {text}")


@contextmanager
def first_of_each_machine() -> Iterator[None]:
    """Let local rank 0 of each machine run the block first; the others follow and find the files that it wrote.

    Its UserError is one that this rank prints, since the files of another machine may be in order.
    """
    local = int(os.environ["LOCAL_RANK"]) if world() > 1 else 0
    if local > 0:
        _exchange(c10d.barrier)
    try:
        yield
    except UserError as error:
        error.of_one_rank = world() > 1 and local == 0
        raise
    if world() > 1 and local == 0:
        _exchange(c10d.barrier)


def average(tensor: Tensor) -> Tensor:
    """The mean of a tensor over the ranks, with the same bits on each."""
    if world() == 1:
        return tensor
    out = tensor.clone(memory_format=torch.contiguous_format)
    _exchange(lambda: c10d.all_reduce(out))
    return out / world()


@torch.no_grad()
def average_(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over the ranks, in one flat all-reduce."""
    if world() == 1:
        return
    flat = average(torch.cat([tensor.reshape(-1) for tensor in tensors]))
    for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return average(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return average(gradient)


def mean(tensor: Tensor) -> Tensor:
    """`average`, differentiable: its backward averages the gradient over the ranks.

    With gradients averaged over the ranks, as training does, this is the gradient of the mean of all ranks' losses.
    """
    out: Tensor = _Mean.apply(tensor)  # type: ignore[no-untyped-call]
    return out


def gather(tensor: Tensor) -> Tensor:
    """Concatenate the rows [N, ...] of all R ranks in rank order: [R N, ...], differentiable as `mean` is.

    Over several ranks, integers become floats.
    """
    if world() == 1:
        return tensor
    rows = tensor.new_zeros(world(), *tensor.shape)
    rows[rank()] = tensor
    return mean(rows * world()).flatten(0, 1)


def broadcast(value: Any) -> Any:
    """Rank 0's value, which must be JSON, on every rank."""
    if world() == 1:
        return value
    return json.loads(_bytes(json.dumps(value).encode()))


def broadcast_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rank 0's tensors on every rank, on the CPU."""
    if world() == 1:
        return tensors
    content = (
        safetensors.torch.save({n: t.detach().cpu().contiguous() for n, t in tensors.items()}) if rank() == 0 else b""
    )
    return safetensors.torch.load(_bytes(content))


def on_first(action: Callable[[], Any]) -> Any:
    """Run `action` on rank 0 only, and return its value, which must be JSON, on every rank.

    A UserError of rank 0 is raised on every rank.
    """
    if world() == 1:
        return action()
    answer: dict[str, Any] = {}
    raised: UserError | None = None
    if rank() == 0:
        try:
            answer = {"value": action()}
        except UserError as error:
            answer, raised = {"error": str(error), "code": error.code, "status": error.status}, error
    answer = broadcast(answer)
    if "error" in answer:
        if raised is None:
            raised = UserError(answer["error"], answer["code"])
            raised.status = answer["status"]
        raise raised
    return answer["value"]


def differing(digest: bytes) -> list[int]:
    """The ranks whose digest differs from rank 0's; needs several ranks."""
    mine = torch.frombuffer(bytearray(digest), dtype=torch.uint8).to(_device())
    all_of_them = [torch.empty_like(mine) for _ in range(world())]
    _exchange(lambda: c10d.all_gather(all_of_them, mine))
    return [number for number, other in enumerate(all_of_them) if not torch.equal(other, all_of_them[0])]


def _bytes(content: bytes) -> bytes:
    size = torch.tensor([len(content)], device=_device())
    _exchange(lambda: c10d.broadcast(size, 0))
    buffer = torch.empty(int(size), dtype=torch.uint8, device=_device())
    if rank() == 0:
        buffer.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    _exchange(lambda: c10d.broadcast(buffer, 0))
    return buffer.cpu().numpy().tobytes()


def _device() -> torch.device:
    """The device on which the backend communicates."""
    return torch.device("cuda", torch.cuda.current_device()) if c10d.get_backend() == "nccl" else torch.device("cpu")


def _exchange(collective: Callable[[], Any]) -> None:
    if _watch is not None:
        _watch.note()
    try:
        collective()
    except RuntimeError as error:
        if _watch is not None and _watch.told():
            text = f"rank {rank()} of {world()} stops because another rank failed, whose message says why"
            raise UserError(text, RankLost.code) from error
        raise RankLost(
            f"rank {rank()} of {world()} lost contact with another rank, which exited or did not answer for "
            f"{TIMEOUT.total_seconds():.0f} s ({str(error).splitlines()[0]}); to resume from the last checkpoint, give "
            "the same command again, or let torchrun do it with --max-restarts"
        ) from error
