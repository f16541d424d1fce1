"""Images/s of a training step of `auto`, 28x28 grey, beside busy processes, by how the threads of OpenMP wait.

    python benchmarks/loaded.py [--rounds 5] [--seconds 4] [--busy 0 1 2]

Each setting has a process of its own, which imports torch with these environment variables, builds the step (batch 32,
fp32) and then trains for some seconds whenever it is asked to.  `train` also does what the command does where it finds
the cores busy.  The rounds are interleaved, and rates are medians.  A busy process is a loop in Python.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
SETTINGS: dict[str, dict[str, str]] = {
    "libgomp's default": {},
    "ptarmigan's default": {},
    "train": {},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
BATCH = 32
LOOP = "while True: pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="numbers of busy processes")
    parser.add_argument("--spins", nargs="*", default=[], help="values of GOMP_SPINCOUNT to measure too")
    parser.add_argument("--child", choices=["libgomp's", "ptarmigan's", "train"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        train_when_asked(options.child)
        return
    settings = SETTINGS | {f"GOMP_SPINCOUNT={spins}": {"GOMP_SPINCOUNT": spins} for spins in options.spins}
    rates: dict[tuple[str, int], list[float]] = {(name, busy): [] for name in settings for busy in options.busy}
    with ExitStack() as stack:
        children = {name: stack.enter_context(child(name, extra)) for name, extra in settings.items()}
        for _ in range(options.rounds):
            for busy in options.busy:
                for name, process in children.items():
                    rates[name, busy].append(measure(process, options.seconds, busy))
    print("images/s beside busy processes: " + ", ".join(map(str, options.busy)))
    for name in settings:
        print(f"  {name:<24}" + "".join(f"{statistics.median(rates[name, busy]):8.0f}" for busy in options.busy))


@contextmanager
def child(name: str, extra: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process with these variables, once it is ready to train."""
    env = {key: value for key, value in os.environ.items() if key not in VARIABLES} | extra
    kind = name.split()[0] if not extra else "ptarmigan's"
    command = [sys.executable, __file__, "--child", kind]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def measure(process: subprocess.Popen[str], seconds: float, busy: int) -> float:
    """Images/s of a child beside busy processes."""
    assert process.stdin is not None
    assert process.stdout is not None
    others = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(busy)]
    try:
        time.sleep(0.2)
        process.stdin.write(f"{seconds}\n")
        process.stdin.flush()
        return float(process.stdout.readline())
    finally:
        for other in others:
            other.kill()
            other.wait()


def train_when_asked(kind: str) -> None:
    """Print a line when ready; then for each line of standard input, which names seconds, train and print images/s."""
    if kind == "libgomp's":
        import torch  # before ptarmigan can set how its threads wait
    import numpy as np

    from ptarmigan.config import resolve
    from ptarmigan.core.devices import LOOK_AT, OtherProcesses
    from ptarmigan.core.types import ImageSpec
    from ptarmigan.data.batches import Batches
    from ptarmigan.game.batch import train_batch
    from ptarmigan.game.state import TrainState

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2000, 28, 28, 1), np.uint8)
    batches = Batches(images, rng.integers(0, 10, len(images)), np.arange(len(images)), batch=BATCH, seed=0)
    config = resolve({"batch": BATCH, "images": "1000M"})
    import torch

    state = TrainState.create(config, ImageSpec(28, 28, 1, tuple(map(str, range(10)))), torch.device("cpu"))
    for _ in range(3):
        train_batch(state, batches)
    others = OtherProcesses(torch.device("cpu" if kind == "train" else "meta"))  # looks at the cores of a CPU only
    print("ready", flush=True)
    for line in sys.stdin:
        lead = time.perf_counter() + (LOOK_AT + 0.3 if kind == "train" else 0.0)
        while time.perf_counter() < lead:  # as long as it takes to notice other processes, or that they have gone
            train_batch(state, batches)
            others.note()
        begun, steps = time.perf_counter(), 0
        while time.perf_counter() - begun < float(line):
            train_batch(state, batches)
            others.note()
            steps += 1
        print(steps * BATCH / (time.perf_counter() - begun), flush=True)


if __name__ == "__main__":
    main()
