"""A time budget is the user's time: snapshots, the end in images and the time left follow the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch

from conftest import SMALL
from ptarmigan.config import resolve
from ptarmigan.config.values import parse_time
from ptarmigan.core.types import ImageSpec
from ptarmigan.game.state import TrainState
from ptarmigan.training.budget import Schedule, SnapshotCost, finished, plan_end, share_done
from ptarmigan.training.messages import describe_snapshots
from support import raises


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1h 30m", 5400), ("300", 300), (30, 30), (2.5, 2.5),
        ("5min", 300), ("5 min", 300), (" 5 Minutes ", 300), ("90 seconds", 90), ("2hrs", 7200), ("1h30m5s", 5405),
    ],
)  # fmt: skip
def test_a_length_of_time_is_read_as_people_write_it(written: str | float, seconds: float) -> None:
    assert parse_time(written) == seconds
    assert parse_time(resolve({"time": written}).train.time) == seconds


@pytest.mark.parametrize("written", ["1h30", "1:30", "-3", "0", "", "soon", "5 parsecs", "10m90", True, [], "nan"])
def test_no_other_text_is_a_length_of_time(written: Any) -> None:
    with raises("value-invalid", "90s", "10m"):
        parse_time(written)


def simulate(
    picture: float = 0.5,
    scored: float = 1.0,
    image_seconds: Callable[[float], float] = lambda _: 0.001,
    given: bool = False,
    begun: float = 4.0,
    **fields: Any,
) -> Iterator[tuple[TrainState, Schedule, str]]:
    """Train with ticks of a second on a clock of our own; yields the state after each tick, snapshot and move."""
    config = resolve({**SMALL, "images": None, "snapshots": None, **fields})
    state = TrainState.create(config, ImageSpec(16, 16, 1, ("a",)), torch.device("cpu"))
    plan_end(state, config.train)
    state.progress.clock = begun
    cost = SnapshotCost(picture, scored)
    schedule = Schedule(state, cost, image_seconds(begun), given)
    while not finished(state):
        speed = image_seconds(state.progress.clock)
        left = (state.end or 10**9) - state.images_seen
        images = min(max(8, int(1 / speed) // 8 * 8), left)
        state.images_seen += images
        state.progress.clock += images * speed
        schedule.tick(state, images, images * speed)
        yield state, schedule, "tick"
        moved = schedule.move_end(state)
        if schedule.snapshot_due(state):
            timely = schedule.time_for_score(state)
            seconds = cost.scored if timely else cost.picture
            state.progress.clock += seconds
            schedule.snapshot_made(state, seconds, timely)
            yield state, schedule, "snapshot"
        elif moved:
            state.progress.clock += cost.picture
            yield state, schedule, "move"


def events(*kinds: str, **options: Any) -> list[tuple[float, int]]:
    """The clock and the images seen at the events of these kinds."""
    return [(state.progress.clock, state.images_seen) for state, _, kind in simulate(**options) if kind in kinds]


@pytest.mark.parametrize("seconds", [20, 60, 600, 3600])
@pytest.mark.parametrize("cost", [0.1, 1.0, 4.5])
def test_snapshots_take_at_most_a_twentieth_of_the_time_but_for_the_last(seconds: int, cost: float) -> None:
    at = [clock for clock, _ in events("snapshot", picture=cost / 2, scored=cost, time=f"{seconds}s")]
    assert at[-1] == pytest.approx(seconds, abs=max(5, seconds / 20))
    assert (len(at) - 1) * cost <= seconds / 20 + cost / 2
    assert len(at) <= 21
    if cost / 2 < (seconds - 4) / 20:  # an early picture
        assert at[0] < 4 + seconds / 20 + 3
        assert at[0] <= 4 + 60 + 3
    if cost < seconds / 100:
        assert len(at) > 0.75 * min(20, int(seconds / 20 / cost))
        waits = [later - before for before, later in pairwise(at[1:])]
        assert seconds < 600 or max(waits) < 1.6 * min(waits)  # below, a tick is too long for an even spread


def test_a_number_of_snapshots_is_kept_with_images_and_is_the_most_with_a_time() -> None:
    kept = [images for _, images in events("snapshot", given=True, images="100k", snapshots=4)]
    assert kept == pytest.approx([25_000, 50_000, 75_000, 100_000], abs=1000)
    assert len(events("snapshot", given=True, time="600s", snapshots=4)) == 4
    assert len(events("snapshot", given=True, time="60s", snapshots=40)) <= 3


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("after", [0.2, 0.55, 0.8])
def test_the_end_keeps_to_the_clock_where_the_speed_changes(after: float, factor: float) -> None:
    def speed(clock: float) -> float:
        return 0.001 * (factor if clock > 300 * after else 1)

    history = list(events("tick", "snapshot", "move", image_seconds=speed, time="300s"))
    assert history[-1][0] == pytest.approx(300, abs=15)
    if factor == 1:
        assert not events("move", image_seconds=speed, time="300s")


def test_the_end_stays_where_saving_a_new_one_costs_more_than_it_gains() -> None:
    def speed(clock: float) -> float:
        return 0.0013 if clock > 240 else 0.001  # the planned end misses the time by some 12 s, if it stays

    assert events("move", image_seconds=speed, time="300s", picture=1.0, scored=20.0)
    assert not events("move", image_seconds=speed, time="300s", picture=20.0, scored=20.0)


def test_the_learning_rate_needs_every_end_that_held_so_a_move_is_recorded() -> None:
    def speed(clock: float) -> float:
        return 0.002 if clock > 200 else 0.001

    ends: dict[int, int | None] = {0: None}
    state: TrainState | None = None
    for state, _, _ in simulate(image_seconds=speed, time="300s"):
        ends[state.images_seen] = state.end
    assert state is not None
    assert state.progress.moves
    last = state.images_seen
    for seen, end in ends.items():  # as a replay of the finished run sees it
        state.images_seen = seen
        assert state.end == end
    assert len(set(ends.values())) == 2 + len(state.progress.moves)
    assert last == state.progress.ends[-1]


def test_the_time_left_includes_the_snapshots_to_come() -> None:
    for fields in ({"images": "200k"}, {"time": "200s"}, {"images": "200k", "snapshots": 10, "given": True}):
        history = [
            (state.progress.clock, schedule.seconds_left(state))
            for state, schedule, kind in simulate(picture=1, scored=2, **fields)
        ]
        end = history[-1][0]
        assert history[-1][1] == 0
        for clock, left in history[:-1]:
            assert clock + left == pytest.approx(end, abs=6)


def test_a_share_of_1_is_the_end() -> None:
    shares = [share_done(state) for state, _, _ in simulate(time="60s")]
    assert shares == sorted(shares)
    assert max(share for share in shares[:-2]) < 1
    assert shares[-1] == 1


def test_a_budget_that_start_up_has_spent_ends_after_one_tick_without_a_score() -> None:
    (tick, snapshot) = events("tick", "snapshot", time="3s", scored=9.0)
    assert tick[0] < 6
    assert snapshot == (tick[0] + 0.5, tick[1])


def test_a_number_of_snapshots_that_a_time_cannot_hold_is_said() -> None:
    for seconds, number, said in ((60, 40, True), (3600, 4, False), (60, 1, False)):
        for state, schedule, _ in simulate(given=True, time=f"{seconds}s", snapshots=number):
            lines = describe_snapshots(state, schedule)
            assert any(line.startswith("note: ") and f" {number}," in line for line in lines) == said
            assert "the newest 2" in lines[0]
            assert ("each" in lines[0]) == (not lines[0].startswith("1 snapshot,"))
            break


def test_a_score_that_takes_more_than_a_quarter_of_the_time_is_left_out_for_more_training() -> None:
    def trained(scored: float, **budget: str) -> tuple[int, list[bool]]:
        history = [(s.images_seen, schedule.time_for_score(s)) for s, schedule, _ in simulate(scored=scored, **budget)]
        return history[-1][0], [timely for _, timely in history]

    images, timely = trained(40.0, time="60s")
    assert images > 50_000
    assert not any(timely)
    images, timely = trained(14.0, time="60s")
    assert images < 45_000
    assert any(timely)
    assert any(trained(40.0, images="10k")[1])
