"""What `train` prints: the data and the settings before the first step, and the paths of its files after the last."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from ptarmigan.config.values import parse_time
from ptarmigan.core import dist
from ptarmigan.core.console import duration
from ptarmigan.core.types import counted
from ptarmigan.game.augment import describe_policy
from ptarmigan.game.state import TrainState
from ptarmigan.generator.generator import MAX_ROWS
from ptarmigan.sharing.report import NAME
from ptarmigan.training import checkpoint
from ptarmigan.training.auto import Choice, advice, expectation
from ptarmigan.training.budget import SNAPSHOT_SHARE, Schedule, finished, owes_snapshot, snapshots_due
from ptarmigan.training.outputs import LATEST


def describe(
    run: Path, state: TrainState, choice: Choice | None, seconds: float | None, found: bool, say: Callable[[str], None]
) -> None:
    """Print the settings, what to expect of those that `auto` chose, and whether the run is new.

    `seconds` is the time of a step, if it was measured.
    """
    spec, config = state.spec, state.config
    augment = config.data.augment
    changed = "" if augment == "none" else f", augmentation {describe_policy(augment, spec.channels)}"
    chosen = state.micro_batch and not config.train.micro_batch
    parts = f" in parts of {state.micro_batch}, because more do not fit in memory at once" if chosen else ""
    say(
        f"recipe {config.recipe}: {config.loss.loss} loss, conditioning {config.model.conditioning}"
        f"{changed}, batch {config.train.batch}{parts}, on {state.device} in {'bf16' if state.bf16 else 'fp32'}"
        + (f", {dist.world()} ranks" if dist.world() > 1 else "")
    )
    if config.model.conditional and spec.classes > MAX_ROWS:
        say(f"  each grid of samples shows {MAX_ROWS} of the {spec.classes:,} classes, evenly spread")
    if choice and seconds:
        say(f"  {expectation(choice.setting, config.train.batch / seconds)}")
        if smaller := advice(choice.setting):
            say(f"  {smaller}")
    if not found:
        say(f"a new run in {run}; for the reasons and all notes: ptarmigan info {shlex.quote(str(run))}")
    elif finished(state) and not owes_snapshot(state):
        say(f"{run} is finished at {state.images_seen:,} images; a longer --time or --images trains it further")
    else:
        budget = parse_time(config.train.time)
        left = "" if budget is None else f", with {duration(budget - state.progress.clock)} of its time left"
        say(f"resuming {run} at {state.images_seen:,} images{left}")


def describe_snapshots(state: TrainState, schedule: Schedule) -> list[str]:
    """How many snapshots this call makes, why they are fewer than asked for, and the size of its checkpoints."""
    train = state.config.train
    count = (train.snapshots or 0) - snapshots_due(state) if schedule.exact else schedule.left
    count += owes_snapshot(state)
    size = f"a checkpoint takes {checkpoint.size(state) / 1e6:.3g} MB, and the newest {train.keep} are kept"
    cost = f"about {duration(max(1.0, schedule.cost))}" + (" each" if count > 1 else "")
    lines = [f"{counted(count, 'snapshot')}, taking {cost}; {size}"]
    if count < schedule.given and not schedule.exact:
        lines.append(
            f"note: {counted(count, 'snapshot')} instead of {schedule.given}, because together they may take at most "
            f"{SNAPSHOT_SHARE:.0%} of --time"
        )
    return lines


def finish(run: Path, state: TrainState, say: Callable[[str], None]) -> None:
    """Print how long the run trained and where its files are."""
    say(f"trained on {state.images_seen:,} images, in {duration(state.progress.clock)}")
    latest = run / "samples" / LATEST
    say(f"  picture    {latest if latest.exists() else latest.parent}")
    say(f"  generator  {run / 'generator'}")
    progress = state.progress
    if progress.best_kid is not None:
        against = (
            "no snapshot before it is better" if progress.best_images == progress.scored_at else "later ones are worse"
        )
        score = f"KID {progress.best_kid:.3g} (standard error {progress.best_error:.2g}) against the select part"
        say(f"  best       {run / 'best'}, at {progress.best_images:,} images: {score}; {against} beyond noise")
    say(f"  log        {run / 'metrics.jsonl'}")
    if (run / NAME).is_file():
        say(f"  report     {run / NAME}")
