"""Trackers of experiments: where `train --tracker` sends the log and the grids of samples, besides the run folder."""

from __future__ import annotations

import math
import os
import secrets
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ptarmigan.core.files import make_folder, write_atomic
from ptarmigan.core.log import Metrics
from ptarmigan.core.types import UserError, unknown
from ptarmigan.sharing.film import on_white


class Tracker(Protocol):
    """What `train` calls; an exception of a call is noted, and the run goes on without the tracker."""

    def start(self, run: Path, config: Mapping[str, Any], images_seen: int) -> str:
        """Begin, or continue a run that has seen `images_seen` images -> where its charts are, in words.

        It is called again after a rollback; what was tracked beyond `images_seen` no longer counts.
        """

    def scalars(self, images_seen: int, values: Mapping[str, float]) -> None:
        """Take the finite numbers of a line of metrics.jsonl."""

    def image(self, images_seen: int, picture: Image.Image) -> None:
        """Take the RGB grid of samples of a snapshot."""

    def finish(self) -> None:
        """Write what is left."""


class TensorBoard:
    """The folder RUN/tensorboard."""

    def __init__(self) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            text = "tracker tensorboard needs tensorboardX: install it by pip install 'ptarmigan[tensorboard]'"
            raise UserError(text, "package-missing") from None
        self.open = SummaryWriter

    def start(self, run: Path, config: Mapping[str, Any], images_seen: int) -> str:
        suffix = f".{images_seen}"  # two starts in one second would write one file
        self.writer = self.open(str(run / "tensorboard"), purge_step=images_seen + 1, filename_suffix=suffix)
        table = "\n".join(f"| {name} | {value} |" for name, value in config.items())
        self.writer.add_text("config", f"| option | value |\n|---|---|\n{table}", images_seen)
        return f"to see the charts: tensorboard --logdir {shlex.quote(str(run))}"

    def scalars(self, images_seen: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, images_seen)

    def image(self, images_seen: int, picture: Image.Image) -> None:
        self.writer.add_image("samples", np.asarray(picture), images_seen, dataformats="HWC")
        self.writer.flush()

    def finish(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of wandb in the project WANDB_PROJECT or `ptarmigan`; offline where nobody has logged in."""

    def __init__(self) -> None:
        try:
            import wandb
        except ImportError:
            raise UserError("tracker wandb needs wandb: install it by pip install wandb", "package-missing") from None
        self.wandb = wandb

    def start(self, run: Path, config: Mapping[str, Any], images_seen: int) -> str:
        name = run / "wandb" / "ptarmigan-id"  # so that a resumed run continues the same one
        if not name.exists():
            make_folder(name.parent)
            write_atomic(name, secrets.token_hex(4).encode())
        mode = os.environ.get("WANDB_MODE") or ("online" if self.wandb.login(prompt=False) else "offline")
        self.run = self.wandb.init(
            project=os.environ.get("WANDB_PROJECT", "ptarmigan"), name=run.name, id=name.read_text(), resume="allow",
            dir=str(run), config=dict(config), mode=mode,
            settings=self.wandb.Settings(console="off", silent=True),  # it would write over the progress bar
        )  # fmt: skip
        self.run.define_metric("*", step_metric="images_seen")
        if mode == "online":
            return f"the charts are at {self.run.url}"
        return f"offline; to upload the run: wandb sync {shlex.quote(str(Path(self.run.dir).parent))}"

    def scalars(self, images_seen: int, values: Mapping[str, float]) -> None:
        self.run.log({**values, "images_seen": images_seen})

    def image(self, images_seen: int, picture: Image.Image) -> None:
        self.run.log({"samples": self.wandb.Image(picture), "images_seen": images_seen})

    def finish(self) -> None:
        self.run.finish()


TRACKERS: dict[str, Callable[[], Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def open_tracker(name: str | None) -> Tracker | None:
    """The tracker of this name, not yet started; raises UserError: unknown-name, package-missing."""
    if name is None:
        return None
    if name not in TRACKERS:
        raise unknown("tracker", name, TRACKERS)
    return TRACKERS[name]()


class TrackedMetrics(Metrics):
    """The log of a run, whose lines a tracker gets too; it is finished at the end of a `with` block."""

    def __init__(self, run: Path | None, say: Callable[[str], object], tracker: Tracker | None) -> None:
        super().__init__(run and run / "metrics.jsonl", say)
        self.say: Callable[[str], object] = say
        self.run, self.tracker = run, tracker if run else None
        self.config: Mapping[str, Any] = {}

    def __enter__(self) -> TrackedMetrics:
        return self

    def __exit__(self, *_: object) -> None:
        self._tell(lambda tracker: tracker.finish())

    def start(self, config: Mapping[str, Any], images_seen: int) -> None:
        """Start the tracker, and say where its charts are."""
        self.config = config
        if (run := self.run) is not None:
            self._tell(lambda tracker: self.say(f"tracker: {tracker.start(run, config, images_seen)}"))

    def write(self, images_seen: int, **values: Any) -> None:
        super().write(images_seen, **values)
        if "back_from" in values:  # a rollback
            self._tell(lambda tracker: tracker.finish())
            self.start(self.config, images_seen)
        self._tell(lambda tracker: tracker.scalars(images_seen, numbers(values)))

    def image(self, images_seen: int, grid: Path) -> None:
        """Give the tracker a grid of samples, a PNG."""

        def give(tracker: Tracker) -> None:
            with Image.open(grid, formats=["PNG"]) as picture:
                tracker.image(images_seen, on_white(picture))

        self._tell(give)

    def _tell(self, call: Callable[[Tracker], object]) -> None:
        if self.tracker is None:
            return
        try:
            call(self.tracker)
        except Exception as error:
            self.tracker = None
            why = " ".join(f"{type(error).__name__}: {error}".split())
            self.say(f"note: the tracker failed, and training goes on without it: {why}")


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers among the values of a line."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
