"""The split: shares, duplicates, groups, the source's own parts, and that adding images moves few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptarmigan.data.arrays import HELD_OUT, SELECT, TRAIN, UNDECIDED
from ptarmigan.data.split import assign_parts, classes_missing_a_part, group_keys, matches
from support import raises

SHARES = (0.9, 0.05, 0.05)


def keys_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**63, count).astype(np.uint64)


def undecided(count: int) -> np.ndarray:
    return np.full(count, UNDECIDED, np.int8)


def parts(labels: np.ndarray, keys: np.ndarray, shares: tuple[float, float, float] | None = SHARES) -> np.ndarray:
    return assign_parts(labels, keys, undecided(len(labels)), shares)


def counts(part: np.ndarray) -> list[int]:
    return np.bincount(part, minlength=3).tolist()


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, [1, 0, 0]), (2, [2, 0, 0]), (3, [1, 1, 1]), (10, [8, 1, 1]), (50, [44, 3, 3]), (1000, [900, 50, 50])],
)
def test_shares_of_one_class(size: int, expected: list[int]) -> None:
    part = parts(np.zeros(size, np.int64), keys_of(size))
    assert part.dtype == np.uint8
    assert abs(np.array(counts(part)) - expected).max() <= (1 if size == 50 else 0)


def test_every_class_gets_its_shares() -> None:
    labels = np.repeat([0, 1, 2], [100, 1000, 20])
    part = parts(labels, keys_of(1120), (0.8, 0.1, 0.1))
    assert [counts(part[labels == k]) for k in range(3)] == [[80, 10, 10], [800, 100, 100], [16, 2, 2]]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [((1, 0, 0), [100, 0, 0]), ((0.9, 0.1, 0), [90, 10, 0]), ((0.5, 0, 0.5), [50, 0, 50]), (None, [100, 0, 0])],
)
def test_a_share_of_zero_is_an_empty_part(shares: tuple[float, float, float] | None, expected: list[int]) -> None:
    assert counts(parts(np.zeros(100, np.int64), keys_of(100), shares)) == expected


@st.composite
def labelled(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels and keys of a small set with duplicates, within a class and across."""
    size = draw(st.integers(1, 80))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    keys = keys_of(draw(st.integers(1, 80)), seed=int(rng.integers(10**6)))
    return rng.integers(0, draw(st.integers(1, 5)), size), rng.choice(keys, size)


SPLITS = st.sampled_from(
    [SHARES, (0.8, 0.1, 0.1), (0.34, 0.33, 0.33), (0.9, 0.1, 0.0), (0.02, 0.49, 0.49), (1.0, 0.0, 0.0)]
)


@given(labelled(), SPLITS)
@settings(max_examples=150, deadline=None)
def test_one_key_has_one_part(set_: tuple[np.ndarray, np.ndarray], shares: tuple[float, float, float]) -> None:
    labels, keys = set_
    part = parts(labels, keys, shares)
    assert all(len(np.unique(part[keys == key])) == 1 for key in np.unique(keys))
    assert all((part != p).all() for p in (SELECT, HELD_OUT) if shares[p] == 0)
    assert (part == TRAIN).any()


@given(labelled(), SPLITS)
@settings(max_examples=150, deadline=None)
def test_the_order_of_the_images_has_no_part_in_it(
    set_: tuple[np.ndarray, np.ndarray], shares: tuple[float, float, float]
) -> None:
    labels, keys = set_
    turn = np.random.default_rng(0).permutation(len(labels))
    assert (parts(labels[turn], keys[turn], shares) == parts(labels, keys, shares)[turn]).all()


@given(labelled(), SPLITS)
@settings(max_examples=150, deadline=None)
def test_a_class_with_keys_of_its_own_is_in_every_part(
    set_: tuple[np.ndarray, np.ndarray], shares: tuple[float, float, float]
) -> None:
    labels, keys = set_
    keys = keys * np.uint64(8) + labels.astype(np.uint64)  # no key has two classes
    part = parts(labels, keys, shares)
    for label in np.unique(labels):
        groups = len(np.unique(keys[labels == label]))
        if groups >= 3:
            assert all((part[labels == label] == p).any() for p in range(3) if shares[p] > 0)
        elif (labels == label).sum() < 3:
            assert (part[labels == label] == TRAIN).all()


@pytest.mark.parametrize("seed", range(5))
def test_large_groups_come_out_near_the_shares(seed: int) -> None:
    """40 patients with 5 to 300 images each, every image of either class."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(40), rng.integers(5, 300, 40))
    labels = rng.integers(0, 2, len(patient))
    part = parts(labels, keys_of(40, seed)[patient], (0.8, 0.1, 0.1))
    shares = np.bincount(part) / len(part)
    assert abs(shares - (0.8, 0.1, 0.1)).max() < 0.05


def test_one_huge_group_of_copies_trains() -> None:
    keys = np.concatenate([np.full(500, 1, np.uint64), keys_of(500)])  # it is first in the order of the hashes
    part = parts(np.zeros(1000, np.int64), keys)
    assert (part[:500] == TRAIN).all()
    assert counts(part) == [900, 50, 50]


def test_a_group_is_taken_where_that_comes_nearer_to_the_share() -> None:
    keys = np.repeat(np.arange(26, dtype=np.uint64), [3] + [1] * 25)
    part = parts(np.zeros(28, np.int64), keys)  # 1.4 images are wanted: the first group has 3, the others 1
    assert (part[:3] == TRAIN).all()
    assert counts(part) == [26, 1, 1]
    keys = np.repeat(np.arange(26, dtype=np.uint64), [2] + [1] * 25)
    part = parts(np.zeros(27, np.int64), keys, (0.9, 0.0, 0.1))  # 2.7 are wanted
    assert part[:4].tolist() == [HELD_OUT] * 3 + [TRAIN]


def test_large_shares_leave_one_key_to_each_later_part() -> None:
    assert counts(parts(np.zeros(5, np.int64), keys_of(5), (0.02, 0.49, 0.49))) == [1, 2, 2]
    assert counts(parts(np.zeros(4, np.int64), keys_of(4), (0.01, 0.01, 0.98))) == [1, 1, 2]


def test_a_class_counts_what_smaller_classes_decided() -> None:
    """All keys of the small class are also the large one's: both still come out at their shares."""
    keys = keys_of(300)
    labels = np.repeat([0, 1], [30, 300])
    part = parts(labels, np.concatenate([keys[:30], keys]), (0.8, 0.1, 0.1))
    assert counts(part[labels == 0]) == [24, 3, 3]
    assert counts(part[labels == 1]) == [240, 30, 30]


def test_adding_images_moves_few_others() -> None:
    labels, keys = np.zeros(2000, np.int64), keys_of(2000)
    before = parts(labels[:1000], keys[:1000])
    assert (parts(labels[:1001], keys[:1001])[:1000] != before).sum() <= 2
    after = parts(labels, keys)[:1000]  # twice as many: of 100 not in train nearly all stay
    assert ((before != TRAIN) & (after != before)).sum() < 40
    assert (after != before).sum() < 60


def test_a_duplicate_with_two_labels_does_not_straddle() -> None:
    labels = np.repeat([0, 1], 50)
    keys = keys_of(100)
    for a in range(0, 50, 7):
        keys[50 + a] = keys[a]
    part = parts(labels, keys, (0.6, 0.2, 0.2))
    assert all(part[a] == part[50 + a] for a in range(0, 50, 7))
    assert {*part[labels == 0]} == {*part[labels == 1]} == {0, 1, 2}


def test_no_class_is_held_back_entirely_by_others() -> None:
    """Every image of a class may be a copy of an image in other classes, whose parts are decided first."""
    labels, keys = np.repeat([0, 1], 5), np.random.default_rng(0).integers(0, 2**63, 10).astype(np.uint64)
    shares, undecided = (0.2, 0.4, 0.4), np.full(20, UNDECIDED, np.int8)
    held_back = keys[assign_parts(labels, keys, undecided[:10], shares) != TRAIN]
    assert len(held_back) >= 5
    both = np.append(labels, np.full(len(held_back), 2)), np.append(keys, held_back)
    part = assign_parts(*both, undecided[: len(both[0])], shares)
    assert {*both[0][part == TRAIN]} == {0, 1, 2}
    assert all(len(np.unique(part[both[1] == key])) == 1 for key in keys)


def test_the_sources_own_parts_stand_and_the_rest_is_scaled() -> None:
    labels, keys = np.zeros(1190, np.int64), keys_of(1190)
    source_part = undecided(1190)
    source_part[950:] = HELD_OUT
    part = assign_parts(labels, keys, source_part, SHARES)
    assert counts(part) == [900, 50, 240]
    assert (part[950:] == HELD_OUT).all()
    source_part[900:950] = SELECT
    assert counts(assign_parts(labels, keys, source_part, SHARES)) == [900, 50, 240]
    assert (
        assign_parts(labels, keys, source_part, (0.5, 0.25, 0.25))
        == np.where(source_part == UNDECIDED, TRAIN, source_part)
    ).all()
    source_part[950:] = SELECT
    assert counts(assign_parts(labels, keys, source_part, SHARES)) == [853, 290, 47]


def test_split_none_keeps_a_sources_own_test_part_held_out() -> None:
    source_part = np.array([UNDECIDED] * 5 + [SELECT] * 2 + [HELD_OUT] * 3, np.int8)
    assert counts(assign_parts(np.zeros(10, np.int64), keys_of(10), source_part, None)) == [7, 0, 3]


@pytest.mark.slow
def test_a_million_images_take_seconds() -> None:
    labels = np.arange(1_000_000) % 100
    part = parts(labels, keys_of(1_000_000))
    assert counts(part) == [900_000, 50_000, 50_000]


def test_groups_are_the_match_or_its_first_group() -> None:
    paths = ["cat/p1_a.png", "dog/p1_b.png", "cat/p2_a.png"]
    for pattern in (r"p\d+", r"/(p\d+)_", r"/(p\d+)_(.)"):
        keys = group_keys(matches(paths, pattern))
        assert keys.dtype == np.uint64
        assert keys[0] == keys[1] != keys[2]
    assert len(set(group_keys(matches(paths, r"_(.)")).tolist())) == 2


@pytest.mark.parametrize("pattern", [r"p\d+", r"(p\d+)?\.png$"])
def test_a_file_without_a_group_is_named(pattern: str) -> None:
    with raises("value-invalid", "group", pattern, "cat/b.png"):
        matches(["cat/p1.png", "cat/b.png"], pattern)


def test_classes_that_miss_a_part_are_named() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    assert classes_missing_a_part(labels, np.array([0, 1, 2, 0, 2, 0], np.uint8), "abc") == ["b", "c"]
    assert classes_missing_a_part(labels, np.zeros(6, np.uint8), "abc") == []
