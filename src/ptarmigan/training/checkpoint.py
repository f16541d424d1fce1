"""Checkpoints of a run: save, the newest good one, and which are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ptarmigan.core.files import Damaged, load_tensors, make_folder, save_tensors
from ptarmigan.game.state import TrainState


class Checkpoint(NamedTuple):
    path: Path
    tensors: dict[str, Tensor]
    meta: dict[str, Any]  # images_seen, controllers, and the run's record


def checkpoints(run: Path) -> list[Path]:
    """A run's checkpoints, oldest first."""
    found = [path for path in (run / "checkpoints").glob("*.safetensors") if path.stem.isdecimal()]
    return sorted(found, key=lambda path: int(path.stem))


def save(run: Path, state: TrainState, record: dict[str, Any], milestone: bool) -> Path:
    """Write the state and the run's record, whole or not at all, and only then let go of older checkpoints.

    The newest `keep` stay, and of the milestones the first and every tenth.
    """
    controllers = state.controllers
    if milestone:
        controllers["milestones"] = controllers.get("milestones", 0) + 1
        if controllers["milestones"] % 10 == 1:
            controllers["kept"] = [*controllers.get("kept", []), state.images_seen]
    path = run / "checkpoints" / f"{state.images_seen:09d}.safetensors"
    make_folder(path.parent)
    meta = {"images_seen": state.images_seen, "controllers": controllers, "record": record}
    save_tensors(path, state.tensors(), meta)
    for old in checkpoints(run)[: -state.config.train.keep]:
        if int(old.stem) not in controllers.get("kept", []):
            old.unlink()
    return path


def newest(run: Path, up_to: int | None = None) -> tuple[Checkpoint | None, list[str]]:
    """The newest good checkpoint (of at most `up_to` images), or None, and a sentence for each damaged newer one."""
    damaged: list[str] = []
    for path in reversed(checkpoints(run)):
        if up_to is not None and int(path.stem) > up_to:
            continue
        try:
            return upgrade(Checkpoint(path, *load_tensors(path))), damaged
        except Damaged as error:
            damaged.append(str(error))
    return None, damaged


def upgrade(found: Checkpoint) -> Checkpoint:
    """A checkpoint as this version reads it.

    In format 1 projection divided <e_y, phi> by sqrt(F).  With e_y / sqrt(F) D is the same, and its gradient, Adam's
    first moment, sqrt(F) times larger, the second F times; from there on the class is learnt faster.  Under spectral
    norm, which heeds no scale, nothing was divided.
    """
    name = "head.embedding.weight"
    if found.meta["format"] > 1 or f"D.{name}" not in found.tensors or "D.head.embedding.u" in found.tensors:
        return found
    root = found.tensors[f"D.{name}"].shape[-1] ** 0.5
    factors = {f"D.{name}": 1 / root, f"opt_d.{name}.exp_avg": root, f"opt_d.{name}.exp_avg_sq": root**2}
    tensors = {key: factors[key] * value if key in factors else value for key, value in found.tensors.items()}
    return found._replace(tensors=tensors)


def restore(state: TrainState, found: Checkpoint) -> None:
    """Put a checkpoint into a state of the same config."""
    state.load(found.tensors)
    state.images_seen, state.controllers = found.meta["images_seen"], found.meta["controllers"]
