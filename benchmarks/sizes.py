"""The weights, arithmetic and memory of a training step at each image size.

    python benchmarks/sizes.py table      by arithmetic, for each recipe and network: rows of docs/scaling.md
    python benchmarks/sizes.py measure    the memory that steps add to this process, beside that by arithmetic; Linux

The arithmetic is that of `ptarmigan.game.memory`: a step in fp32 on tensors without values.  GFLOPs count a multiply
and an add as two, in convolutions and matrix products of a step of D and of G; R1 and R2 are counted by the share of
steps that have them.  The largest batch leaves SPARE of a GPU to CUDA, its libraries and the gaps between tensors.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ptarmigan.config import Config, resolve
from ptarmigan.core.devices import keep_freed_memory
from ptarmigan.core.types import ImageSpec
from ptarmigan.data.batches import Batches
from ptarmigan.game.batch import train_batch
from ptarmigan.game.memory import KERNELS_ON_CPU, step_bytes
from ptarmigan.game.state import TrainState
from ptarmigan.networks import build, without_weights

SIZES = (64, 128, 256, 512)
GPUS = (8, 24, 80)  # GB
SPARE = 0.15
KINDS: dict[str, dict[str, Any]] = {
    "`auto`": {"resampling": "smooth"},
    "`auto --width 64`": {"resampling": "smooth", "width": 64},
    "`dcgan`": {"recipe": "dcgan"},
    "`acgan`": {"recipe": "acgan"},
    "`auto --network r3gan`": {"network": "r3gan"},
    "`auto --network r3gan --width 96`": {"network": "r3gan", "width": 96},
    "`auto --network resnet`": {"network": "resnet"},
}
MEASURED = [  # with size and batch
    ("`auto`", 64, 32), ("`auto`", 128, 8), ("`auto`", 256, 4), ("`dcgan`", 64, 32), ("`acgan`", 64, 32),
    ("`auto --network r3gan`", 64, 16), ("`auto --network resnet`", 64, 8),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["table", "measure"])
    if parser.parse_args().what == "table":
        table()
    else:
        measure()


def game(kind: str, size: int, batch: int = 32) -> tuple[Config, ImageSpec]:
    config = resolve({"batch": batch, "images": "1M", "precision": "fp32"} | KINDS[kind])
    return config, ImageSpec(size, size, 3, tuple("0123456789"))


def table() -> None:
    fits = " | ".join(f"{gpu} GB" for gpu in GPUS)
    print(f"| size | recipe and network | weights of G, D (millions) | GFLOPs an image | MiB an image | {fits} |")
    print("|---|---|---|---|---|" + "---|" * len(GPUS))
    for size in SIZES:
        for kind in KINDS:
            config, spec = game(kind, size)
            with without_weights():
                G, D = (sum(p.numel() for p in network.parameters()) / 1e6 for network in build(spec, config.model, 0))
            flops, few, more = gigaflops(config, spec), step_bytes(config, spec, 8), step_bytes(config, spec, 16)
            image = (more - few) / 8
            most = [int(((1 - SPARE) * gpu * 1e9 - few) / image + 8) for gpu in GPUS]
            batches = " | ".join(f"{count:,}" if count > 0 else "none" for count in most)
            print(f"| {size} | {kind} | {G:.1f}, {D:.1f} | {flops:.1f} | {image / 2**20:.1f} | {batches} |", flush=True)


def gigaflops(config: Config, spec: ImageSpec) -> float:
    """Of a step, for each image of the batch, as a mean over steps with and without R1 and R2."""
    every = config.loss.penalty_every

    def flops(config: Config, images: int = 4) -> float:
        with FlopCounterMode(display=False) as counter:
            step_bytes(config, spec, images)
        return counter.get_total_flops() / images / 1e9

    plain = flops(replace(config, loss=replace(config.loss, r1=0.0, r2=0.0)))
    return plain + (flops(config) - plain) / every if config.loss.r1 else plain


def measure() -> None:
    """Print what two steps on one thread add to this process, beside what they need by arithmetic."""
    keep_freed_memory()
    torch.set_num_threads(1)
    run_steps(*game("`auto`", 16, batch=2))  # loads the libraries
    print("| recipe and network | size | batch | MiB by arithmetic | MiB measured | ratio |")
    print("|---|---|---|---|---|---|")
    for kind, size, batch in MEASURED:
        config, spec = game(kind, size, batch)
        expected, before = KERNELS_ON_CPU * step_bytes(config, spec, batch), reset_peak()
        run_steps(config, spec)
        found = memory_of("VmHWM:") - before
        mib = f"{expected / 2**20:,.0f} | {found / 2**20:,.0f} | {expected / found:.2f}"
        print(f"| {kind} | {size} | {batch} | {mib} |", flush=True)


def run_steps(config: Config, spec: ImageSpec) -> None:
    count = max(64, config.train.batch)
    shape = (count, spec.height, spec.width, spec.channels)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    batches = Batches(images, np.arange(count) % 10, np.arange(count), batch=config.train.batch, seed=0)
    state = TrainState.create(config, spec, torch.device("cpu"))
    for _ in range(2):
        train_batch(state, batches)
    batches.close()


def reset_peak() -> int:
    """Give freed memory back to the system, start to measure the peak again; returns the bytes in use."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return memory_of("VmRSS:")


def memory_of(name: str) -> int:
    """Bytes of this process by a line of the kernel's."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
