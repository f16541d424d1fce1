"""Pack the networks of a run as the model of `--from base`: G's moving average and D, weights in half precision.

    python tools/base/pack.py runs/base-1

The run is one of `ptarmigan train base.npz` on a set that draw.py drew.  Its newest good checkpoint is taken.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from ptarmigan.core.tensor_files import save_tensors
from ptarmigan.core.types import UserError
from ptarmigan.generator.generator import first_not_finite
from ptarmigan.training.source_model import BASE_FILE, SourceModel

MOST_BYTES = 8_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=BASE_FILE)
    arguments = parser.parse_args()
    try:
        source = SourceModel.from_run(arguments.run)
    except UserError as error:
        parser.error(str(error))
    tensors = {f"G.{name[4:]}": tensor for name, tensor in source.tensors.items() if name.startswith("ema.")}
    tensors |= {name: tensor for name, tensor in source.tensors.items() if name.startswith("D.")}
    halves = {name: tensor.half() if is_weight(name) else tensor for name, tensor in tensors.items()}
    if name := first_not_finite(halves):
        parser.error(f"{name} has values that half precision cannot hold")
    bytes_needed = sum(tensor.nbytes for tensor in halves.values())
    if bytes_needed > MOST_BYTES:
        parser.error(f"the networks take {bytes_needed / 1e6:.1f} MB, and at most {MOST_BYTES / 1e6:.0f} are shipped")
    values = asdict(source.config)
    values["train"] |= {"time": None, "images": None, "device": "auto"}  # these describe a training run, not the model
    meta = {
        "config": values,
        "spec": asdict(source.spec),
        "images_seen": source.images_seen,
        "fingerprint": "",
        "selection": "the moving average at the end of training",
    }
    sha256 = save_tensors(arguments.out, halves, meta)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB, {source.images_seen:,} images seen, {sha256}")


def is_weight(name: str) -> bool:
    """Whether a tensor is no statistic of batch norm, whose variances half precision may not hold."""
    return "running_" not in name and "num_batches" not in name


if __name__ == "__main__":
    main()
