"""What `train` says: the data and the choice before the first step, where everything is after the last."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from ptarmigan.core import dist
from ptarmigan.core.log import duration
from ptarmigan.data import Dataset
from ptarmigan.game.augment import words
from ptarmigan.game.state import TrainState
from ptarmigan.training.auto import Choice


def describe(
    run: Path, state: TrainState, dataset: Dataset, choice: Choice | None, found: bool, say: Callable[[str], None]
) -> None:
    """What is said before the first step: the data, the choice and its reasons, and whether the run is new."""
    spec, config = state.spec, state.config
    held = ", ".join(f"{count:,} {name}" for name, count in dataset.counts().items() if count)
    size = f"{spec.height}x{spec.width} {({1: 'grey', 3: 'RGB', 4: 'RGBA'})[spec.channels]}"
    classes = "1 class" if spec.classes == 1 else f"{spec.classes} classes"
    augment = config.data.augment
    changed = "" if augment == "none" else f", augmentation {words(augment, spec.channels)}"
    say(f"{len(dataset.labels):,} images of {size} in {classes}: {held}")
    say(
        f"recipe {config.recipe}: {config.loss.loss} loss, conditioning {config.model.conditioning}"
        f"{changed}, batch {config.train.batch}, on {state.device} in {'bf16' if state.bf16 else 'fp32'}"
        + (f", {dist.world()} ranks" if dist.world() > 1 else "")
    )
    for line in [*choice.reasons, choice.expected] if choice else []:
        say(f"  {line}")
    if not found:
        say(f"a new run in {run}")
    elif state.end is not None and state.images_seen >= state.end:
        say(f"{run} is finished at {state.images_seen:,} images; a longer --time or --images trains it further")
    else:
        say(f"{run} goes on at {state.images_seen:,} images")


def finish(run: Path, state: TrainState, dataset: Dataset, say: Callable[[str], None]) -> None:
    """Where everything is, and what to try next."""
    ptarmigan, path = program(), shlex.quote(str(run))
    named = f" --class {shlex.quote(state.spec.class_names[-1])}" if state.config.model.conditioning != "none" else ""
    trained = duration(state.progress.clock)
    say(f"trained for {trained} on {state.images_seen:,} images")
    say(f"  pictures   {run / 'samples'}")
    say(f"  generator  {run / 'generator'}")
    if state.progress.best_kid is not None:
        kid, images = state.progress.best_kid, state.progress.best_images
        say(f"  best       {run / 'best'}, of {images:,} images: KID {kid:.2g} to the select part")
    say(f"  log        {run / 'metrics.jsonl'}")
    say("next:")
    say(f"  {ptarmigan} sample {path}{named} -n 64 --out samples.png")
    if dataset.counts()["held-out"] >= 10:
        say(f"  {ptarmigan} score {path}")
    say(f"  {ptarmigan} losses")


def again(run: Path) -> str:
    """The command that goes on with a run."""
    if not Path(sys.argv[0]).stem.endswith(("ptarmigan", "__main__")):
        return f"the same call with out={str(run)!r}"
    named = any(argument.split("=")[0] == "--out" for argument in sys.argv)
    return f"{program()} {shlex.join(sys.argv[1:] if named else [*sys.argv[1:], '--out', str(run)])}"


def program() -> str:
    """How this command is called from here: by its name where the shell finds it, else by the path that was used."""
    called = sys.argv[0]
    if Path(called).stem != "ptarmigan" or shutil.which("ptarmigan") == str(Path(called).absolute()):
        return "ptarmigan"
    return shlex.quote(called)
