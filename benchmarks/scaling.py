"""The cost of several ranks and of micro-batches: images/s, bytes exchanged, peak memory.

python benchmarks/scaling.py speed [--rounds 5]      1 rank, 2 ranks and 2 independent processes, in turns
python benchmarks/scaling.py memory                  peak memory of a step, whole and in micro-batches
python benchmarks/scaling.py bytes                   bytes that a rank exchanges in a step
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from ptarmigan.config import Config, resolve
from ptarmigan.core import dist
from ptarmigan.core.types import ImageSpec
from ptarmigan.data.batches import Batches
from ptarmigan.game.batch import train_batch
from ptarmigan.game.state import TrainState
from ptarmigan.networks.layers import BatchNorm

GAMES: dict[str, tuple[ImageSpec, dict[str, Any]]] = {
    "auto 28x28": (ImageSpec(28, 28, 1, tuple("0123456789")), {"batch": 64}),
    "dcgan 64x64": (ImageSpec(64, 64, 3, ("all",)), {"recipe": "dcgan", "batch": 64}),
    "acgan 64x64": (ImageSpec(64, 64, 3, tuple("0123456789")), {"recipe": "acgan", "batch": 64}),
    "r3gan 64x64": (ImageSpec(64, 64, 3, tuple("0123456789")), {"network": "r3gan", "batch": 64}),
}


def game(name: str, **more: Any) -> tuple[Config, TrainState, Batches]:
    spec, given = GAMES[name]
    config = resolve({**given, "images": "1M", "precision": "fp32", **more})
    shape, count = (1024, spec.height, spec.width, spec.channels), config.train.batch // dist.world()
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=draw).numpy()
    labels = torch.randint(spec.classes, (1024,), generator=draw).numpy()
    batches = Batches(images, labels, torch.arange(1024).numpy(), batch=count, seed=0)
    state = TrainState.create(config, spec, torch.device("cpu"))
    state.micro_batch = config.train.micro_batch
    return config, state, batches


def measure_rate(name: str, seconds: float) -> None:
    """Print images/s of one process, or of all ranks under torchrun."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with dist.ranks(torch.device("cpu")):
        config, state, batches = game(name)
        for _ in range(3):
            train_batch(state, batches)
        begun, steps = time.perf_counter(), 0
        while dist.broadcast(time.perf_counter() - begun < seconds):
            train_batch(state, batches)
            steps += 1
        if dist.rank() == 0:
            print(json.dumps(steps * config.train.batch / (time.perf_counter() - begun)))
        batches.close()


def start(name: str, ranks: int, threads: int, seconds: float) -> subprocess.Popen[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    return subprocess.Popen(
        [sys.executable, *torchrun, __file__, "rate", name, "--seconds", str(seconds)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip


def rate(processes: list[subprocess.Popen[str]]) -> float:
    return sum(json.loads(process.communicate()[0]) for process in processes)


KINDS = {  # processes, ranks, threads of each
    "1 rank, 1 thread": (1, 1, 1),
    "1 rank, 2 threads": (1, 1, 2),
    "2 ranks, 1 thread each": (1, 2, 1),
    "2 independent processes": (2, 1, 1),
}


def speed(rounds: int, seconds: float) -> None:
    for name in ("auto 28x28", "dcgan 64x64"):
        rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(rounds):
            for kind, (processes, ranks, threads) in KINDS.items():
                rates[kind].append(rate([start(name, ranks, threads, seconds) for _ in range(processes)]))
        for kind, values in rates.items():
            spread = f"{min(values):.1f} to {max(values):.1f}"
            print(f"{name}  {kind:<24} {statistics.median(values):7.1f} images/s  ({len(values)} rounds: {spread})")


def peak(name: str, micro_batch: int) -> None:
    """Print the MiB that a step adds to a process that holds the weights, and its seconds."""
    torch.set_num_threads(1)
    _, state, batches = game(name, batch=256, micro_batch=micro_batch)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    train_batch(state, batches)
    seconds = time.perf_counter() - begun
    print(json.dumps([(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, seconds]))
    batches.close()


def memory() -> None:
    for name in ("auto 28x28", "r3gan 64x64"):  # micro-batches are refused where D has batch norm
        for micro_batch in (0, 64, 16):
            out = subprocess.run(
                [sys.executable, __file__, "peak", name, str(micro_batch)],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            grown, seconds = json.loads(out.stdout)
            print(
                f"{name}, batch 256, micro-batch {micro_batch or 'none':<5} {grown:8.0f} MiB  {seconds:6.2f} s a step"
            )


def exchanged_bytes() -> None:
    for name in ("auto 28x28", "dcgan 64x64", "acgan 64x64"):
        _, state, batches = game(name)
        d, g = (sum(p.numel() for p in network.parameters()) for network in (state.D, state.G))
        # D runs on real, on fake, and on fake again for G; G runs once
        called = [m for network in (state.D, state.D, state.D, state.G) for m in network.modules()]
        norms = [m.num_features for m in called if isinstance(m, BatchNorm)]
        print(
            f"{name}: gradients {4 * (d + g) / 1e6:.2f} MB (D {d:,}, G {g:,} weights), batch statistics "
            f"{4 * 4 * sum(norms) / 1e3:.1f} kB; {2 + 4 * len(norms)} exchanges"
        )
        batches.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory", "bytes", "rate", "peak"], help="rate and peak: one process")
    parser.add_argument("rest", nargs="*", help="of rate and peak: the game, and the micro-batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of measuring, for each row and round of speed")
    arguments = parser.parse_args()
    match arguments.what:
        case "speed":
            speed(arguments.rounds, arguments.seconds)
        case "memory":
            memory()
        case "bytes":
            exchanged_bytes()
        case "rate":
            measure_rate(arguments.rest[0], arguments.seconds)
        case "peak":
            peak(arguments.rest[0], int(arguments.rest[1]))


if __name__ == "__main__":
    main()
