"""Checkpoints of a run: save one, find the newest good one, delete old ones."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ptarmigan.core.files import Damaged, make_folder
from ptarmigan.core.records import check
from ptarmigan.core.tensor_files import load_tensors, save_tensors
from ptarmigan.core.types import shorten
from ptarmigan.game.progress import Progress
from ptarmigan.game.state import TrainState
from ptarmigan.generator.header import checkpoints as checkpoints
from ptarmigan.generator.header import header_of
from ptarmigan.networks.layers import learning


class Checkpoint(NamedTuple):
    path: Path
    tensors: dict[str, Tensor]
    meta: dict[str, Any]  # a CheckpointHeader
    progress: Progress

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Raises Damaged if the file is not as `save` wrote it, and OtherFormat."""
        tensors, meta = load_tensors(path)
        header_of(path, meta, of_checkpoint=True)
        return cls(path, tensors, meta, check(path, meta["progress"], Progress))


def save(run: Path, state: TrainState, record: dict[str, Any]) -> Path:
    """Write the state and the run's record atomically, and then delete all but the newest `keep` checkpoints."""
    path = run / "checkpoints" / f"{state.images_seen:09d}.safetensors"
    make_folder(path.parent)
    meta = {"images_seen": state.images_seen, "progress": asdict(state.progress), "record": record}
    save_tensors(path, state.tensors(), meta)
    for old in checkpoints(run)[: -state.config.train.keep]:
        if int(old.stem) not in state.progress.kept:
            with suppress(OSError):  # it cannot be removed, or was removed
                old.unlink()
    return path


def size(state: TrainState) -> int:
    """Bytes of a checkpoint: the state's tensors, with both of Adam's moments, which exist from the first step on."""
    moments = sum(2 * value.nbytes for network in (state.G, state.D) for value in learning(network).values())
    others = (value.nbytes for name, value in state.tensors().items() if not name.startswith("opt_"))
    return moments + sum(others)


def newest(run: Path, up_to: int | None = None) -> tuple[Checkpoint | None, list[str]]:
    """The newest good checkpoint (of at most `up_to` images), or None, and a sentence for each damaged newer one.

    Raises OtherFormat for a checkpoint of another format.
    """
    damaged: list[str] = []
    for path in reversed(checkpoints(run)):
        if up_to is not None and int(path.stem) > up_to:
            continue
        try:
            return Checkpoint.read(path), damaged
        except Damaged as error:
            damaged.append(str(error))
    return None, damaged


def restore(state: TrainState, found: Checkpoint) -> None:
    """Load a checkpoint into a state of the same config; raises Damaged if its tensors are not those of the config."""
    seen = found.meta["images_seen"]
    expected = {
        name: (value.shape, value.dtype) for name, value in state.tensors().items() if not name.startswith("opt_")
    }
    for prefix, module in (("opt_g", state.G), ("opt_d", state.D)) if seen else ():
        for name, value in learning(module).items():
            kinds = dict.fromkeys(("exp_avg", "exp_avg_sq"), (value.shape, value.dtype))
            kinds["step"] = torch.Size(), torch.float32
            expected |= {f"{prefix}.{name}.{key}": kind for key, kind in kinds.items()}
    stored = {name: (value.shape, value.dtype) for name, value in found.tensors.items()}
    if faults := sorted(name for name in expected | stored if expected.get(name) != stored.get(name)):
        raise Damaged(f"{found.path} does not fit its config: these tensors are missing or differ: {shorten(faults)}")
    state.load(found.tensors)
    state.images_seen, state.progress = seen, copy.deepcopy(found.progress)
