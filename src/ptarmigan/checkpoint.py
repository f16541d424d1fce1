"""Checkpoints of a run: save, the newest good one, and which are kept."""

from __future__ import annotations

from pathlib import Path

from ptarmigan.files import Damaged, load_tensors, save_tensors
from ptarmigan.state import TrainState


def checkpoints(run: Path) -> list[Path]:
    """A run's checkpoints, oldest first."""
    return sorted((run / "checkpoints").glob("*.safetensors"))


def save(run: Path, state: TrainState, milestone: bool) -> Path:
    """Write the state, whole or not at all, and only then let go of older ones.

    The newest `keep` stay, and of the milestones the first and every tenth.
    """
    controllers = state.controllers
    if milestone:
        controllers["milestones"] = controllers.get("milestones", 0) + 1
        if controllers["milestones"] % 10 == 1:
            controllers["kept"] = [*controllers.get("kept", []), state.images_seen]
    path = run / "checkpoints" / f"{state.images_seen:09d}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, state.tensors(), {"images_seen": state.images_seen, "controllers": controllers})
    for old in checkpoints(run)[: -state.config.train.keep]:
        if int(old.stem) not in controllers.get("kept", []):
            old.unlink()
    return path


def load_newest(run: Path, state: TrainState) -> tuple[Path | None, list[str]]:
    """Load the newest good checkpoint into `state`; returns its path, or None, and a sentence for each damaged one."""
    damaged = []
    for path in reversed(checkpoints(run)):
        try:
            tensors, meta = load_tensors(path)
        except Damaged as error:
            damaged.append(f"{error}; the one before it is used")
            continue
        state.load(tensors)
        state.images_seen, state.controllers = meta["images_seen"], meta["controllers"]
        return path, damaged
    return None, damaged
