"""The columns of a log, and what can be said of them without a limit of a finding."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

LEAST_IMAGES = 2000  # over which a column of the log must be beyond its limit
SHARE = 0.15  # of the images seen so far, over which it must be so in a longer run
LEAST_ROWS = 3  # of the log
SNAPSHOTS = 2  # in a row whose statistic must be beyond its limit
LEAST_UPDATES = 200  # of G, before which its samples are not judged
BIN_IMAGES, BIN_UPDATES, LEAST_BINS = 200, 12, 6  # over which D's loss is averaged; so many such means
MOST_JUMP = 0.3  # of one mean, so that one spike alone is no unstable loss
SPIKE, WEAK = 10.0, 1.15  # times the loss of a D that cannot decide: far above its loss, and above it

# D's loss where it answers every image alike, by the name of the loss
UNDECIDED = {
    "minimax": 2 * math.log(2), "non_saturating": 2 * math.log(2), "relativistic": math.log(2), "hinge": 2.0,
    "least_squares": 0.25, "least_squares_pearson": 1.0,
}  # fmt: skip


@dataclass(frozen=True)
class Log:
    """The columns of a log, each [T] with NaN where a row has no value, by ptarmigan's names.

    `at` [T] counts the images seen, or the steps in the log of another tool; in samples without a log it is their
    number.  `fields` are those of the run's config; {} for another tool's log.
    """

    at: Values
    columns: dict[str, Values]
    fields: Mapping[str, Any] = field(default_factory=dict)
    unit: str = "images"
    end: float | None = None  # of the budget
    run: str | None = None  # the run folder, as it was written
    train_images: int | None = None  # of the train part

    @classmethod
    def of_run(
        cls, rows: Mapping[int, Mapping[str, Any]], fields: Mapping[str, Any], run: str, train_images: int | None = None
    ) -> Log:
        """From the rows of a run's metrics.jsonl, as `core.log.read_rows` returns them."""
        names = {name for row in rows.values() for name, value in row.items() if isinstance(value, int | float)}
        columns = {
            name: np.array([as_float(row.get(name)) for row in rows.values()]) for name in names - {"images_seen"}
        }
        columns["diverged"] = np.array([1.0 if row.get("diverged") else math.nan for row in rows.values()])
        judged = ({"findings", "select_kid"} & {*row} for row in rows.values())
        columns["snapshot"] = np.array([1.0 if row else math.nan for row in judged])
        end = next((row["end"] for row in reversed([*rows.values()]) if row.get("end")), None)
        return cls(np.array([*rows], float), columns, fields, end=end, run=run, train_images=train_images)

    def until(self, at: float) -> Log:
        kept = self.at <= at
        return replace(self, at=self.at[kept], columns={name: values[kept] for name, values in self.columns.items()})

    def all(self, name: str) -> Values:
        values = self.columns.get(name, np.empty(0))
        return values[~np.isnan(values)]

    def recent(self, name: str) -> Values:
        """The values of a column over the last images, finite or not; none where the log is too short to judge."""
        span = self.span()
        if name not in self.columns or self.at[-1] - self.at[0] < span:
            return np.empty(0)
        there = ~np.isnan(self.columns[name])
        rows = max(LEAST_ROWS, int(np.count_nonzero(there & (self.at > self.at[-1] - span))))
        values = self.columns[name][there]
        return values[-rows:] if len(values) >= rows else np.empty(0)

    def span(self) -> float:
        """The images, or steps, over which a column must be beyond its limit."""
        return float(max(SHARE * self.at[-1], LEAST_IMAGES if self.unit == "images" else 0))

    @property
    def long_enough(self) -> bool:
        """Whether there is enough of the log to judge, and of its samples where they are judged."""
        if self.unit == "samples":
            return True
        rows = len(self.at) >= LEAST_ROWS and self.at[-1] - self.at[0] >= self.span()
        return rows and (not self.judged or (self.trained() and self.judged >= self.snapshots_needed))

    @property
    def judged(self) -> int:
        """How many snapshots have statistics of their samples."""
        return len(self.all("colour_gap"))

    @property
    def snapshots_needed(self) -> int:
        """How many snapshots in a row must have a statistic beyond its limit.

        One is enough for samples that a user chose, and at the end of a run that was too short for more.
        """
        finished = self.end is not None and self.at[-1] >= self.end
        return 1 if not self.fields or (finished and self.judged == 1) else SNAPSHOTS

    def trained(self, updates: int = LEAST_UPDATES) -> bool:
        """Whether G has been updated so often that its samples say something; True for samples that a user chose."""
        return not self.fields or bool(self.at[-1] >= updates * self.fields["batch"])

    def snapshots(self, name: str, updates: int = LEAST_UPDATES) -> Values:
        """The values of a statistic at the last snapshots, or of a user's samples; none where there are too few."""
        values, least = self.all(name), self.snapshots_needed
        return values[-least:] if len(values) >= least and self.trained(updates) else np.empty(0)

    def train(self, words: str, options: str = "") -> str:
        """The remedy: the command that repeats the run with other options, or the words."""
        if self.run is None or not options:
            return words
        path = f"./{self.run}" if self.run.startswith("-") else self.run
        return f"ptarmigan train --config {shlex.quote(f'{path}/config.json')} {options}"

    @property
    def times_seen(self) -> float:
        """How often each training image has been seen; 0 where their number is not known."""
        return float(self.at[-1] / self.train_images) if self.train_images else 0.0

    @property
    def undecided(self) -> float | None:
        """D's loss where it answers every image alike: by the config, or a cross-entropy that starts there."""
        if self.fields:
            return UNDECIDED.get(self.fields["loss"])
        first = np.median(self.all("d_adv")[:5]) if len(self.all("d_adv")) else 0.0
        return next((value for value in (2 * math.log(2), math.log(2)) if abs(first / value - 1) < 0.15), None)

    @property
    def floor(self) -> float:
        """The least that D's loss can be: above 0 with smoothed labels."""
        a = self.fields.get("smoothing", 1.0)
        return float(-a * math.log(a) - (1 - a) * math.log(1 - a)) if a < 1 else 0.0

    def d_share(self) -> float | None:
        """D's median loss over the last images, as a share of the loss where it answers every image alike."""
        values, undecided = self.recent("d_adv"), self.undecided
        if not len(values) or undecided is None:
            return None
        return float((np.median(values) - self.floor) / (undecided - self.floor))

    def jump(self) -> float | None:
        """How far D's loss goes up and down, as a share of the loss where it answers every image alike.

        The mean distance between the loss over some images and the mean of the losses over those before and after
        them, in the second half of a run.  None in a short run, and in the log of another tool.
        """
        undecided, losses = self.undecided, self.columns.get("d_adv", np.empty(0))
        if not self.fields or undecided is None or not len(losses):
            return None
        batch = self.fields["batch"]
        kept = ~np.isnan(losses) & (self.at > max(self.at[-1] / 2, LEAST_UPDATES * batch))
        places = self.at[kept] // max(BIN_IMAGES, BIN_UPDATES * batch)
        shares = losses[kept].clip(max=100 * undecided) / undecided
        means = np.array([shares[places == place].mean() for place in np.unique(places)])
        if len(means) < LEAST_BINS:
            return None
        return float(np.abs(means[1:-1] - (means[:-2] + means[2:]) / 2).clip(max=MOST_JUMP).mean())

    def spike(self) -> int | None:
        """The row at which D's loss was largest, if that was far above the loss of a D that cannot decide."""
        values = self.columns.get("d_adv", np.empty(0))
        if self.undecided is None or not len(values) or np.isnan(values).all():
            return None
        row = int(np.nanargmax(values))
        return row if values[row] > SPIKE * self.undecided else None

    def recovered(self, row: int) -> bool:
        """Whether the live score after a row has become as good as the best before it.

        Where none is before the row it has not; in a log without live scores D's loss must be as usual.
        """
        kids = self.columns.get("select_kid", np.empty(0))
        if np.isnan(kids).all():
            return (share := self.d_share()) is not None and share <= WEAK
        before, after = (part[~np.isnan(part)] for part in (kids[:row], kids[row:]))
        return min(len(before), len(after)) > 0 and bool(after.min() <= before.min())


def as_float(value: Any) -> float:
    """NaN for what is no number, and infinity for a number that is not finite."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return math.nan
    return float(value) if abs(value) < 1e300 else math.inf  # NaN is not below it
