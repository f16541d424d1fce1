"""A run's budget: when training ends, how long a tick is, and when snapshots are due."""

from __future__ import annotations

import math
import statistics
import time

from ptarmigan.config import Config, Train, has_ramp, parse_images, parse_time
from ptarmigan.core.types import UserError
from ptarmigan.game.state import TrainState

DEFAULT_TIME = "10m"
EARLIEST, LATEST = 0.05, 0.5  # shares of a time budget between which its end is fixed as an image count
TICK_SECONDS = 2.0
LEAST_STOP_SECONDS, STOP_STEPS = 10.0, 20  # a gap that is longer than both is a stop of the process, not a slow step


def plan_end(state: TrainState, train: Train) -> None:
    """Fix the end of training in images seen, or move it if the budget has changed.

    A time budget's end is computed from the mean speed so far, once the share `end_fixed_after` of it is spent, so that
    schedules and resumed runs agree; the clock counts only training steps.  Extending a finished run adds a new end,
    and its learning rates start again; extending an unfinished run moves its last end.  Both are fixed at once, from
    the mean speed so far.  Raises UserError if a changed budget is already spent.
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
                f"time {train.time}: the run has trained for {progress.clock:.0f} seconds already; give a longer time",
                "budget-spent",
            )
        progress.budget = budget
        if not seen or (not progress.ends and progress.clock < end_fixed_after(state.config) * seconds):
            progress.ends.clear()
            return
        images_left = seen / progress.clock * (seconds - progress.clock)
        images = max(seen + bool(progress.ends), round(seen + images_left))
    elif changed and images <= seen:
        raise UserError(f"images {train.images}: the run has seen {seen:,} already; give more images", "budget-spent")
    progress.budget = budget
    end = seen + math.ceil((images - seen) / train.batch) * train.batch
    if seen and not progress.ends:
        progress.end_fixed_at = seen
    if progress.ends and seen < progress.ends[-1]:
        progress.ends.pop()
    progress.ends.append(end)


def end_fixed_after(config: Config) -> float:
    """The share of a time budget after which its end is fixed: where the learning rates start to fall, 0.5 at most.

    A machine's speed varies, so the end is not fixed before the rates need it.  It is fixed at half of the budget at
    the latest, because a resumed run is bit-identical to an uninterrupted one only if it was stopped after that.  A
    ramp needs the end from the first step, so with a ramp it is fixed at 0.05.
    """
    if has_ramp(tuple(config.flat().values())):
        return EARLIEST
    return min(LATEST, max(EARLIEST, 1 - config.train.anneal))


def steps_per_tick(config: Config, seconds: float) -> int:
    """Steps between two ticks, if a step takes `seconds`: about 2 seconds, with at least 20 ticks per budget.

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


class StepClock:
    """Measures the seconds of training steps, without those in which the process was stopped (Ctrl-Z, a closed lid).

    A gap between two steps of more than 10 s and 20 usual steps is no training time, and counts as one usual step.  The
    usual step is the median over the last ticks, so that steps that have become slower soon count in full.
    """

    def __init__(self, usual: float | None) -> None:
        """`usual`: seconds of a step as far as known before the first tick."""
        self.usual = [usual] if usual else []
        self.start()

    def start(self) -> None:
        """Start a tick."""
        self.last, self.gaps = time.perf_counter(), list[float]()

    def mark(self) -> None:
        """The end of a step, or of the wait for the device."""
        now = time.perf_counter()
        self.gaps.append(now - self.last)
        self.last = now

    def close(self, steps: int) -> float:
        """Seconds of the tick's steps."""
        self.mark()
        step = statistics.median(self.usual[-9:] or self.gaps)
        longest = max(LEAST_STOP_SECONDS, STOP_STEPS * step)
        self.usual.append(sum(self.gaps) / steps)
        return sum(step if gap > longest else gap for gap in self.gaps)


def finished(state: TrainState) -> bool:
    return state.end is not None and state.images_seen >= state.end


def share_done(state: TrainState) -> float:
    """Share of the budget done: of its images, or of its time as long as a time budget's end is not fixed."""
    if state.end is None:
        return state.progress.clock / (parse_time(state.config.train.time) or 1.0)
    return state.images_seen / state.end


def seconds_left(state: TrainState, images_per_second: float) -> float:
    if state.end is None:
        return (parse_time(state.config.train.time) or 0.0) - state.progress.clock
    return (state.end - state.images_seen) / images_per_second


def snapshots_due(state: TrainState) -> int:
    """How many of the current budget's planned snapshots are due by now."""
    planned = state.config.train.snapshots
    if state.end is None:
        return int(share_done(state) * planned)
    return (state.images_seen - state.start) * planned // (state.end - state.start)
