"""A run's budget: when training ends, how long a tick is, and when snapshots are due."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from ptarmigan.config import Config, Train
from ptarmigan.config.sections import has_ramp
from ptarmigan.config.values import parse_images, parse_time
from ptarmigan.core.types import UserError
from ptarmigan.game.state import TrainState

DEFAULT_TIME = "10m"
EARLIEST, LATEST = 0.05, 0.5  # shares of a time budget between which its end is fixed as an image count
TICK_SECONDS = 1.5
SNAPSHOT_SHARE = 0.05  # of the time that snapshots may take
MOST_SNAPSHOTS = 20  # where the user names no number
SCORE_SHARE = 0.25  # of a time budget that one live score may take; training is worth more than that
FIRST_SECONDS = 60.0  # the first picture comes no later, where it is affordable
RECENT_SECONDS = 30.0  # of steps, from which the present speed is measured
OFF_SHARE, OFF_SECONDS = 0.02, 2.0  # the planned end is moved if it misses the time by more than both
LEAVING_SHARE = 0.4  # of the start-up's seconds, which the end of the command takes after the last snapshot


def plan_end(state: TrainState, train: Train, images_left: float | None = None) -> None:
    """Fix the end of training in images seen, or move it if the budget has changed.

    A time budget's end is fixed once the share `end_fixed_after` of it is spent, at `images_left` from here: by default
    as many as the rest of the time allows at the mean speed so far.  Extending a finished run adds a new end, and its
    learning rates start again; extending an unfinished run moves its last end.  Both are fixed at once.  Raises
    UserError if a changed budget is already spent.
    """
    progress, seen = state.progress, state.images_seen
    budget = [train.time, train.images]
    changed = progress.budget not in (None, budget)
    if progress.ends and not changed:
        return
    seconds, images = parse_time(train.time), parse_images(train.images)
    if images is None:
        assert seconds is not None
        if changed and progress.clock >= seconds:
            raise UserError(
                f"time {train.time}: the run has taken {progress.clock:.0f} seconds already; give a longer time",
                "budget-spent",
            )
        progress.budget = budget
        if not seen or (not progress.ends and progress.clock < end_fixed_after(state.config) * seconds):
            progress.ends.clear()
            return
        if images_left is None:
            images_left = seen / progress.clock * (seconds - progress.clock)
        images = max(seen + bool(progress.ends), round(seen + images_left))
    elif changed and images <= seen:
        raise UserError(f"images {train.images}: the run has seen {seen:,} already; give more images", "budget-spent")
    progress.budget = budget
    if seen and not progress.ends:
        progress.end_fixed_at = seen
    set_end(state, images)


def set_end(state: TrainState, images: float) -> None:
    """Let training end at the first whole batch from so many images seen on; an end not yet reached is moved there."""
    progress, seen, batch = state.progress, state.images_seen, state.config.train.batch
    end = seen + max(0, math.ceil((images - seen) / batch)) * batch
    if progress.ends and seen < progress.ends[-1]:
        progress.moves.append([seen, progress.ends.pop()])
    progress.ends.append(end)


def end_fixed_after(config: Config) -> float:
    """The share of a time budget after which its end is fixed: where the learning rates start to fall, 0.5 at most.

    A machine's speed varies, so the end is not fixed before the rates need it.  It is fixed at half of the budget at
    the latest, and then moves only where the speed changes (`Schedule.move_end`).  A ramp needs the end from the first
    step, so with a ramp it is fixed at 0.05.
    """
    if has_ramp(tuple(config.flat().values())):
        return EARLIEST
    return min(LATEST, max(EARLIEST, 1 - config.train.anneal))


def steps_per_tick(config: Config, seconds: float) -> int:
    """Steps between two ticks, if a step takes `seconds`: TICK_SECONDS, with at least 20 ticks per budget.

    A tick of `penalty_every` steps or more is a multiple of it, so that each tick's mean has its share of penalties.
    """
    train, every = config.train, config.loss.penalty_every
    images, time_given = parse_images(train.images), parse_time(train.time)
    steps = TICK_SECONDS / seconds
    if time_given is not None:
        steps = min(steps, time_given / seconds / 40)
    if images is not None:
        steps = min(steps, images / train.batch / 20)
    return max(1, int(steps) if steps < every else int(steps) // every * every)


def finished(state: TrainState) -> bool:
    return state.end is not None and state.images_seen >= state.end


def owes_snapshot(state: TrainState) -> bool:
    """Whether a snapshot is due here that a signal put off."""
    return state.images_seen > 0 and state.progress.owed == state.images_seen


def share_done(state: TrainState) -> float:
    """Share of the budget done: of its time, or of its images; 1 only at the end."""
    seconds, progress = parse_time(state.config.train.time), state.progress
    if finished(state):
        return 1.0
    if seconds is not None:
        return min(0.99, progress.clock / seconds)
    return state.images_seen / (state.end or math.inf)


def snapshots_due(state: TrainState) -> int:
    """How many of `snapshots` places, spread evenly over an image budget, are reached by now."""
    planned, end = state.config.train.snapshots or 0, state.end or math.inf
    return int((state.images_seen - state.start) * planned // (end - state.start))


@dataclass(frozen=True)
class SnapshotCost:
    """Seconds of a snapshot."""

    picture: float  # without the live score
    scored: float


class Schedule:
    """What one call of `train` has measured, and what follows: its snapshots, the end in images, and the time left.

    Snapshots are due at even places where the user gave their number and an image budget.  Otherwise they are as many
    as take SNAPSHOT_SHARE of the time, at most `snapshots`, and an early one, without its score, shows that all is
    well.  The one at the end is always made.  `progress.clock` is the time; it is equal on all ranks.
    """

    def __init__(
        self, state: TrainState, cost: SnapshotCost, image_seconds: float, given: bool, start_up: float = 0.0
    ) -> None:
        train, now = state.config.train, state.progress.clock
        self.begun, self.leaving = now, LEAVING_SHARE * start_up
        self.seconds = parse_time(train.time)  # the time budget
        self.image_seconds = image_seconds
        self.recent = deque[tuple[int, float]]()  # images and seconds of the last ticks
        self.scores = self.seconds is None or cost.scored - cost.picture <= SCORE_SHARE * self.seconds
        self.saving = cost.picture  # seconds of a snapshot that has no score
        self.cost = cost.scored if self.scores else cost.picture  # seconds of a snapshot
        self.spent = 0.0  # seconds, on snapshots
        self.given = (train.snapshots or MOST_SNAPSHOTS) if given else 0  # the user's number, or 0
        self.exact = given and self.seconds is None  # snapshots at even places
        self.reached = snapshots_due(state)  # how many of those at even places are behind
        self.next, self.left = math.inf, 1  # when the next snapshot is due, and how many are to come
        self.early = False  # whether the next is the early one
        if self.exact:
            return
        self.total = self._total(state)
        self.early = not given and not state.images_seen and cost.picture <= SNAPSHOT_SHARE * (self.total - now)
        self._spread(now)
        if self.early:
            self.next, self.left = now + min(self.total / MOST_SNAPSHOTS, FIRST_SECONDS), self.left + 1

    def tick(self, state: TrainState, images: int, seconds: float) -> None:
        """Learn the speed from the steps of a tick, and fix the end if it is time."""
        self.recent.append((images, seconds))
        while sum(more for _, more in self.recent) - self.recent[0][1] > RECENT_SECONDS:
            self.recent.popleft()
        self.image_seconds = sum(more for _, more in self.recent) / sum(count for count, _ in self.recent)
        plan_end(state, state.config.train, self._images_left(state) if self.seconds else None)

    def snapshot_due(self, state: TrainState) -> bool:
        if self.exact:
            return snapshots_due(state) > self.reached
        return finished(state) or state.progress.clock >= self.next

    def time_for_score(self, state: TrainState) -> bool:
        """Whether the snapshot that is due has a live score: not an early one, nor where it takes too much time."""
        late = max(OFF_SECONDS, OFF_SHARE * (self.seconds or 0.0))
        in_time = self.seconds is None or state.progress.clock + self.cost <= self.seconds + late
        return self.scores and in_time and not self.early

    def snapshot_made(self, state: TrainState, seconds: float, scored: bool) -> None:
        """Learn what a snapshot costs, and plan the next."""
        self.spent += seconds
        if scored:
            self.cost = seconds
        self.early, self.reached = False, snapshots_due(state)
        if not self.exact:
            self.total = self._total(state)
            self._spread(state.progress.clock)

    def rolled_back(self, state: TrainState) -> None:
        """Let the snapshots between the state and where it was before be made again."""
        self.reached = snapshots_due(state)

    def move_end(self, state: TrainState) -> bool:
        """Move a time budget's end if at the present speed it misses the time by more than it costs to save that.

        Returns whether it was moved: the state must then be saved at once, so that a resumed run has the same end.
        """
        if self.seconds is None or state.end is None or finished(state):
            return False
        off = abs(state.end - state.images_seen - self._images_left(state)) * self.image_seconds
        saving = 0.0 if self.snapshot_due(state) else self.saving
        if off <= max(OFF_SECONDS, OFF_SHARE * self.seconds, saving):
            return False
        images = self._images_left(state) - saving / self.image_seconds
        set_end(state, state.images_seen + max(1.0, images))
        return True

    def seconds_left(self, state: TrainState) -> float:
        """Seconds to the end of the command."""
        if state.end is None:
            return (self.seconds or 0.0) - state.progress.clock
        return (state.end - state.images_seen) * self.image_seconds + self._coming(state)

    def _images_left(self, state: TrainState) -> float:
        """Images that the rest of the time allows, after what is needed for snapshots and for leaving."""
        return max(0.0, (self.seconds or 0.0) - state.progress.clock - self._coming(state)) / self.image_seconds

    def _coming(self, state: TrainState) -> float:
        """Seconds of the snapshots to come and of leaving."""
        left = (state.config.train.snapshots or 0) - snapshots_due(state) if self.exact else self.left
        return 0.0 if finished(state) else left * self.cost + self.leaving

    def _total(self, state: TrainState) -> float:
        """What the clock shows at the end."""
        return self.seconds or state.progress.clock + ((state.end or 0) - state.images_seen) * self.image_seconds

    def _spread(self, now: float) -> None:
        """Spread as many snapshots as are affordable over the time that is left; the last is at the end."""
        allowed = SNAPSHOT_SHARE * (self.total - self.begun) - self.spent
        places = round((self.total - now) / max(self.total - self.begun, 1e-9) * (self.given or MOST_SNAPSHOTS))
        self.left = max(1, min(places, int(allowed / self.cost)))
        self.next = now + (self.total - now) / self.left if self.left > 1 else math.inf
