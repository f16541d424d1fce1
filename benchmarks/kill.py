"""Kill a run with SIGKILL at random moments, resume it each time, and compare its end with that of an unkilled run.

    python benchmarks/kill.py                      200 kills
    python benchmarks/kill.py --kills 20 --seed 1

Every second kill is aimed at a write: after its random moment it waits until a half-written file exists.  A finished
run is compared byte for byte, and the next one starts.  POSIX only, because the children are forked.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from pathlib import Path

from ptarmigan import train
from ptarmigan.core.files import Damaged, load_json

FIELDS = dict(
    images="1600",
    width=8,
    batch=16,
    latent_dim=16,
    class_dim=8,
    precision="fp32",
    device="cpu",
    snapshots=50,
    keep=2,
    live_images=10,
)


def main(
    kills: int = 200, seed: int = 0, data: Path | None = None, fields: dict[str, object] = FIELDS
) -> dict[str, int]:
    """Counts of kills, of kills that left a half-written file, and of runs compared.  Raises where a run differs."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, run = Path(folder) / "whole", Path(folder) / "run"
        begun = time.monotonic()
        assert wait(start(whole, data, fields)) == 0, "the run without kills failed"
        seconds = time.monotonic() - begun
        expected = generators(whole)
        counts = {"kills": 0, "inside a write": 0, "runs compared": 0}
        while counts["kills"] < kills or run.exists():
            left = set(run.rglob(".*.tmp"))
            child = start(run, data, fields)
            patience = draw.uniform(0, seconds / 2) if counts["kills"] < kills else float("inf")
            status = watch(child, run, left, patience, aimed=counts["kills"] % 2 == 1)
            if status is None:
                counts["kills"] += 1
                counts["inside a write"] += any(run.rglob(".*.tmp"))
                continue
            assert status == 0, f"a resumed run exited with status {status}"
            assert not list(run.rglob(".*.tmp")), "the finished run contains a half-written file"
            assert generators(run) == expected, (
                f"after {counts['kills']} kills the generator differs from that of the run without kills"
            )
            counts["runs compared"] += 1
            shutil.rmtree(run)
    return counts


def start(run: Path, data: Path | None, fields: dict[str, object]) -> int:
    """Start a child that trains; returns its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        import torch

        torch.set_num_threads(1)
        train(data, out=run, **fields)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def watch(child: int, run: Path, left: set[Path], patience: float, aimed: bool) -> int | None:
    """Kill the child after `patience` seconds; returns its exit status, or None where it was killed."""
    until, owned = time.monotonic() + patience, False
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if not owned and owner(run) == child:
            owned = True
            assert not any(path.exists() for path in left), "the next start left a half-written file in place"
        if time.monotonic() > until and (not aimed or any(run.rglob(".*.tmp"))):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.0005)


def generators(run: Path) -> list[bytes]:
    """The weights of the last and of the best generator."""
    return [(run / name / "model.safetensors").read_bytes() for name in ("generator", "best")]


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def owner(run: Path) -> int | None:
    try:
        pid: int = load_json(run / ".owner.json")["pid"]
        return pid
    except Damaged:
        return None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    begun = time.monotonic()
    counts = main(arguments.kills, arguments.seed)
    print(", ".join(f"{count} {name}" for name, count in counts.items()) + f", in {time.monotonic() - begun:.0f} s")
