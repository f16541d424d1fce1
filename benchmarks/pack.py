"""Speed and memory of packing 10,000 JPEGs of 256x256 to 64x64, of listing 100,000 files, of batches and of a stream.

    python benchmarks/pack.py [--images 10000] [--files 100000] [--rounds 3]

Bare: as many processes as there are cores, each with its share of the files, do nothing but Pillow's open, convert,
resize (Lanczos) and numpy.  Ours reads the folder, checks and hashes the files, chooses the shape, decodes, and writes
the pack.  Both run in processes of their own, one after the other.  Memory is the peak of the main process above the
import, and on top of it the largest of the others times their number (ru_maxrss, kB on Linux).  On a machine that other
programs use, the CPU seconds say more than the seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 64
STEP = 64 / 450  # s: `auto` at 64x64 on 2 cores
BARE = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
for path in sorted(Path(sys.argv[1]).rglob("*.jpg"))[int(sys.argv[2])::int(sys.argv[3])]:
    with Image.open(path) as image:
        np.asarray(image.convert("RGB").resize((int(sys.argv[4]),) * 2, Image.Resampling.LANCZOS))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", choices=WAYS, help=argparse.SUPPRESS)  # for the child processes
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        print(json.dumps(WAYS[asked.alone](asked.folder)))
        return

    with tempfile.TemporaryDirectory() as temporary:
        photos, names = Path(temporary) / "photos", Path(temporary) / "names"
        make_photos(photos, asked.images)
        make_names(names, asked.files)
        rows: dict[str, list[dict[str, float]]] = {}
        for _ in range(asked.rounds):
            for way in WAYS:
                folder = names if way == "list" else photos
                command = [sys.executable, __file__, "--alone", way, "--folder", str(folder)]
                with tempfile.TemporaryDirectory() as cache:
                    env = os.environ | {
                        "PTARMIGAN_CACHE": str(Path(temporary) / "kept" if way in ("batches", "stream") else cache)
                    }
                    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=env)
                rows.setdefault(way, []).append(json.loads(done.stdout))
        report(rows, asked.images, asked.files)


def report(rows: dict[str, list[dict[str, float]]], images: int, files: int) -> None:
    median = {way: {key: statistics.median(row[key] for row in of) for key in of[0]} for way, of in rows.items()}
    bare, pack, check, listed, batches, stream = (median[way] for way in WAYS)
    print(f"{images:,} JPEGs of 256x256 to {SIDE}x{SIDE}, {cores()} cores, medians of {len(rows['bare'])}")
    for name, row in (("bare", bare), ("pack", pack), ("check", check)):
        print(f"{name:<6} {row['seconds']:8.1f} s {row['cpu']:8.1f} CPU s {images / row['cpu']:8.0f} images/CPU s")
    for name, row in (("packing", pack), ("check", check)):
        by_time, by_cpu = bare["seconds"] / row["seconds"], bare["cpu"] / row["cpu"]
        print(f"{name} over bare: {by_time:.2f} by time, {by_cpu:.2f} by CPU")
    print(f"peak memory above the import: {pack['mib']:.0f} MiB, and {pack['others']:.0f} MiB in other processes")
    print(f"listing {files:,} files: {listed['seconds']:.2f} s, {listed['cpu']:.2f} CPU s, {listed['mib']:.0f} MiB")
    print(
        f"a batch of 64: {batches['us']:.0f} us CPU, {batches['us'] / batches['copy']:.2f} times a copy of its bytes "
        f"and their conversion to floats; with --balance {batches['balanced'] / batches['copy']:.2f} times"
    )
    print(
        f"streamed from shards on the disk, with a core for reading in steps of {1000 * STEP:.0f} ms: the first batch "
        f"takes {stream['first']:.2f} CPU s, for the others a step waits {100 * stream['waiting']:.2f} % of its time, "
        f"and {100 * stream['late']:.1f} % at most"
    )


def make_photos(folder: Path, count: int) -> None:
    """JPEGs in 10 classes: soft colours with the noise of a camera, 20 kB each."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"class {number % 10}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        colours = rng.normal(128, 60, (8, 8, 3)).clip(0, 255).astype(np.uint8)
        soft = np.asarray(Image.fromarray(colours).resize((256, 256), Image.Resampling.BICUBIC), np.int16)
        noisy = soft + rng.integers(-8, 9, (256, 256, 1), np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def make_names(folder: Path, count: int) -> None:
    """PNG files of one pixel in 100 classes: only their number costs time."""
    Image.new("L", (1, 1)).save(one := folder.with_suffix(".png"))
    content = one.read_bytes()
    for number in range(count):
        path = folder / f"class {number % 100}" / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content + str(number).encode())


def cores() -> int:
    return len(os.sched_getaffinity(0))


def cpu_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def bare(folder: Path) -> dict[str, float]:
    begun, cpu = time.perf_counter(), cpu_seconds()
    shares = [[sys.executable, "-c", BARE, folder, str(i), str(cores()), str(SIDE)] for i in range(cores())]
    running = [subprocess.Popen(share) for share in shares]
    assert not any(process.wait() for process in running)
    return {"seconds": time.perf_counter() - begun, "cpu": cpu_seconds() - cpu}


def pack(folder: Path) -> dict[str, float]:
    from ptarmigan.config import Data
    from ptarmigan.data import open_dataset

    before, begun, cpu = peak(), time.perf_counter(), cpu_seconds()
    open_dataset(folder, Data(size=str(SIDE)))
    seconds, used = time.perf_counter() - begun, cpu_seconds() - cpu
    others = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 * cores()
    return {"seconds": seconds, "cpu": used, "mib": peak() - before, "others": others}


def check(folder: Path) -> dict[str, float]:
    import ptarmigan

    checked, begun, cpu = ptarmigan.check, time.perf_counter(), cpu_seconds()
    checked(folder, size=str(SIDE))
    return {"seconds": time.perf_counter() - begun, "cpu": cpu_seconds() - cpu}


def listing(folder: Path) -> dict[str, float]:
    from ptarmigan.data.index import find_source

    before, begun, cpu = peak(), time.perf_counter(), cpu_seconds()
    find_source(folder)
    return {"seconds": time.perf_counter() - begun, "cpu": cpu_seconds() - cpu, "mib": peak() - before}


def batches(folder: Path) -> dict[str, float]:
    """CPU microseconds of a batch of 64, of one with --balance, and of copying its bytes and converting them."""
    import torch

    from ptarmigan.config import Data
    from ptarmigan.data import open_dataset
    from ptarmigan.data.batches import Batches

    torch.set_num_threads(1)
    data = open_dataset(folder, Data(size=str(SIDE)))
    images = data.images[: len(data.images) // 64 * 64].reshape(-1, 64, *data.images.shape[1:])
    plain, even = (
        Batches(data.images, data.labels, data.indices(), batch=64, seed=0, balance=balance)
        for balance in (False, True)
    )

    def copy(number: int) -> Any:
        block = torch.from_numpy(images[number % len(images)].copy())
        return block.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    times: dict[str, list[float]] = {"us": [], "balanced": [], "copy": []}
    for start in range(0, 1000, 100):
        for name, load in (
            ("us", lambda number: plain.load(64 * number)),
            ("balanced", lambda number: even.load(64 * number)),
            ("copy", copy),
        ):
            begun = time.process_time()
            for number in range(start, start + 100):
                load(number)
            times[name].append((time.process_time() - begun) / 100 * 1e6)
    return {name: statistics.median(of) for name, of in times.items()}


def stream(folder: Path) -> dict[str, float]:
    """CPU seconds until the first batch, and the share of the time that steps wait for the others.

    The time is the CPU time of the reading threads, so that other processes do not lengthen it: a step of STEP seconds
    gives them as many CPU seconds, which is one core, and a step waits as long as they work on after that.
    """
    from ptarmigan.config import Data
    from ptarmigan.data import open_dataset, windows
    from ptarmigan.data.batches import Batches

    shards = folder.with_name("shards")
    if not shards.exists():
        write_shards(shards, sorted(folder.rglob("*.jpg")))
    data = open_dataset(f"file://{shards}", Data(size=str(SIDE)))
    windows.MOST_PIECES = max(1, len(data.labels) // (10 * windows.PIECE))  # about ten windows
    with Batches(data.images, data.labels, data.indices(), batch=64, seed=0) as loader:
        begun = time.process_time()
        loader.get(0)
        first, waits = time.process_time() - begun, []
        for number in range(1, len(data.labels) // 64):
            begun = time.process_time()
            while time.process_time() - begun < STEP and is_reading(loader):
                time.sleep(0.001)
            begun = time.process_time()
            loader.get(64 * number)
            waits.append(time.process_time() - begun)
    return {"first": first, "waiting": sum(waits) / (sum(waits) + len(waits) * STEP), "late": max(waits) / STEP}


def is_reading(loader: Any) -> bool:
    """Whether images are being read ahead."""
    parts = [part for window in [*loader.windows.windows.values()] for part in window.parts]
    return not all(future.done() for future in [*parts, *loader._next.values()])


def write_shards(folder: Path, paths: list[Path]) -> None:
    folder.mkdir()
    for shard in range(10):
        with tarfile.open(folder / f"photos-{shard:03}.tar", "w") as archive:
            for path in paths[shard::10]:
                archive.add(path, path.name)
                (label := path.with_suffix(".cls")).write_text(path.parent.name)
                archive.add(label, label.name)
                label.unlink()


WAYS = {"bare": bare, "pack": pack, "check": check, "list": listing, "batches": batches, "stream": stream}

if __name__ == "__main__":
    main()
