"""Order and batches: a permutation for any size, well mixed, addressed by position; flips, prefetch, floats."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ptarmigan.core import seeding
from ptarmigan.data.batches import Batches, ClassOrder, LoadedBatch, shuffled_order, to_float

IMAGES = np.arange(12 * 3 * 4 * 3, dtype=np.uint8).reshape(12, 3, 4, 3)
LABELS = np.arange(12, dtype=np.int64) % 5


def some(**more: object) -> Batches:
    return Batches(IMAGES, LABELS, np.arange(1, 12), **({"batch": 4, "seed": 0} | more))  # type: ignore[arg-type]


@given(st.integers(1, 3000), st.integers(0, 2**63 - 1), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_permute_is_one_to_one_for_any_size(size: int, seed: int, epoch: int) -> None:
    out = seeding.permute(seed, "order", epoch, np.arange(size), size)
    assert out.dtype == np.int64
    assert sorted(out) == list(range(size))


def test_permute_answers_each_position_alone() -> None:
    whole = seeding.permute(5, "order", 2, np.arange(1000), 1000)
    assert (seeding.permute(5, "order", 2, np.array([999, 0, 17]), 1000) == whole[[999, 0, 17]]).all()


def chi_square_z(observed: np.ndarray, expected: float, freedom: int) -> float:
    return float((((observed - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


@pytest.mark.parametrize("size", [3, 5, 6, 8, 10, 16])
def test_permute_mixes_small_sets(size: int) -> None:
    """Over many epochs each place gets each image, and each pair of neighbours appears, equally often.

    With 4 Feistel rounds these z values were 13 and 29 at size 5; uniform permutations give about 0 +- 1.
    """
    epochs = 1000
    drawn = np.stack([seeding.permute(1, "order", e, np.arange(size), size) for e in range(epochs)])
    cells = np.stack([np.bincount(drawn[:, place], minlength=size) for place in range(size)])
    assert chi_square_z(cells, epochs / size, (size - 1) ** 2) < 5
    pairs = Counter(zip(drawn[:, 0].tolist(), drawn[:, 1].tolist(), strict=True))
    observed = np.array([pairs[pair] for pair in permutations(range(size), 2)])
    assert chi_square_z(observed, epochs / len(observed), len(observed) - 1) < 5


def test_permute_reaches_every_order_of_four() -> None:
    seen = Counter(tuple(seeding.permute(0, "order", e, np.arange(4), 4).tolist()) for e in range(2400))
    assert len(seen) == 24
    assert min(seen.values()) > 50


def test_permute_differs_by_seed_purpose_and_epoch() -> None:
    def drawn(seed: int, purpose: str, epoch: int) -> list[int]:
        return list(seeding.permute(seed, purpose, epoch, np.arange(100), 100))

    base = drawn(0, "order", 0)
    others = [drawn(1, "order", 0), drawn(0, "extra", 0), drawn(0, "order", 1)]
    assert all(sum(a == b for a, b in zip(base, other, strict=True)) < 10 for other in others)


@given(st.integers(1, 40), st.integers(0, 10**9), st.integers(1, 100), st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_order_is_addressed_by_position(size: int, first: int, count: int, cut: int) -> None:
    """Any way of cutting the positions into batches draws the same images, across the ends of epochs too."""
    whole = shuffled_order(3, "order", first, count, size)
    parts = [shuffled_order(3, "order", first + a, min(cut, count - a), size) for a in range(0, count, cut)]
    assert (whole == np.concatenate(parts)).all()


def test_every_epoch_holds_every_image_once_in_another_order() -> None:
    epochs = [shuffled_order(0, "order", e * 50, 50, 50) for e in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert (epochs[0] != epochs[1]).any()
    assert (epochs[1] != epochs[2]).any()


def test_a_batch_is_the_images_at_its_positions() -> None:
    with some() as batches:
        got = batches.load(20)
    expected = np.arange(1, 12)[
        [seeding.permute(0, "order", p // 11, np.array([p % 11]), 11)[0] for p in range(20, 24)]
    ]
    assert (got.indices == expected).all()
    assert got.labels.dtype == torch.int64
    assert got.labels.tolist() == LABELS[expected].tolist()
    assert got.images.shape == (4, 3, 3, 4)
    assert got.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(got.images, torch.from_numpy(IMAGES[expected]).permute(0, 3, 1, 2) / 127.5 - 1)


def test_the_ends_of_uint8_are_the_ends_of_the_range() -> None:
    out = to_float(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
    assert out.flatten().tolist() == [-1, 1]


def test_colours_of_rgba_are_those_on_white() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 9, 8, 4), np.uint8)
    images[0, 0, :, 3], images[0, 1, :, 3] = 0, 255
    seen = to_float(torch.from_numpy(images))
    assert seen.is_contiguous(memory_format=torch.channels_last)
    for image, got in zip(images, seen.add(1).mul(127.5).permute(0, 2, 3, 1).numpy(), strict=True):
        white = Image.alpha_composite(Image.new("RGBA", (8, 9), "white"), Image.fromarray(image))
        assert np.abs(got[..., :3] - np.asarray(white)[..., :3]).max() <= 1
        assert np.allclose(got[..., 3], image[..., 3])
    assert (seen[0, :3, 0] == 1).all()  # what lies behind transparent pixels is not seen


@pytest.mark.parametrize("block", [1, 3, 7, 64])
def test_blocks_of_the_order_do_not_show(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptarmigan.data.batches.BLOCK", block)
    with some() as batches:
        for seen in (0, 4, 5, 61, 0, 10**6, 62):
            assert (batches.load(seen).indices == 1 + shuffled_order(0, "order", seen, 4, 11)).all()
        assert len(batches._blocks) <= 9


def test_a_batch_may_be_larger_than_the_set() -> None:
    with some(batch=30) as batches:
        got = batches.load(0)
    assert set(got.indices[:11].tolist()) == set(got.indices[11:22].tolist()) == set(range(1, 12))


def test_purposes_have_their_own_order() -> None:
    with some(batch=11) as batches:
        assert (batches.load(0).indices != batches.load(0, "extra").indices).any()


def test_flips_only_when_asked_for_and_addressed_by_position() -> None:
    images = np.tile(np.arange(4, dtype=np.uint8), (8, 2, 1))[..., None]  # 0 1 2 3 in each row
    labels, indices = np.zeros(8, np.int64), np.arange(8)
    with Batches(images, labels, indices, batch=1000, seed=0) as plain:
        assert (plain.load(0).images == to_float(torch.from_numpy(images[:1]))).all()
    with Batches(images, labels, indices, batch=1000, seed=0, flip=True) as flipped:
        whole = flipped.load(0).images
        mirrored = whole[:, 0, 0, 0] > whole[:, 0, 0, 3]
        assert torch.equal(whole[mirrored][:1], to_float(torch.from_numpy(images[:1, :, ::-1].copy())))
        assert 430 < int(mirrored.sum()) < 570
        again = flipped.load(300).images
        assert torch.equal(again[:700], whole[300:])
    assert images[0, 0, :, 0].tolist() == [0, 1, 2, 3]  # the data are not written to


def test_prefetched_batches_are_those_loaded() -> None:
    with some() as batches:
        for seen in (0, 4, 8, 8, 40, 44, 0):  # in turn, repeated, jumping forth and back
            for purpose in ("order", "extra"):
                got, plain = batches.get(seen, purpose), batches.load(seen, purpose)
                assert (got.indices == plain.indices).all()
                assert torch.equal(got.images, plain.images)


def test_the_next_batch_is_prepared_meanwhile() -> None:
    with some() as batches:
        loaded: list[tuple[int, int]] = []
        load, ready = batches.load, threading.Event()

        def noted(seen: int, purpose: str, step: int | None) -> object:
            loaded.append((seen, threading.get_ident()))
            out = load(seen, purpose)
            if len(loaded) == 2:
                ready.set()
            return out

        batches.load = noted  # type: ignore[method-assign, assignment]
        batches.get(0)
        assert ready.wait(10)
        assert [seen for seen, _ in loaded] == [0, 4]
        assert loaded[0][1] == threading.get_ident() != loaded[1][1]
        batches.get(4)
        batches._pool.submit(int).result(10)
        assert [seen for seen, _ in loaded] == [0, 4, 8]  # 4 was not loaded again


def test_each_purpose_has_its_own_next_batch() -> None:
    with some() as batches:
        loaded: list[tuple[int, str]] = []
        load = batches.load

        def noted(seen: int, purpose: str, step: int | None) -> LoadedBatch:
            loaded.append((seen, purpose))
            return load(seen, purpose)

        batches.load = noted  # type: ignore[method-assign]
        for seen in (0, 4, 8):
            for purpose in ("order", "extra"):
                batches.get(seen, purpose)
        batches._pool.submit(int).result(10)
        assert sorted(loaded) == sorted((seen, purpose) for seen in (0, 4, 8, 12) for purpose in ("order", "extra"))
        assert len(batches._next) == 2


def test_an_error_in_the_thread_reaches_the_caller() -> None:
    with some() as batches:
        batches.get(0)
        batches._pool.submit(int).result(10)
        batches.indices = np.array([99])
        batches.get(4)
        with pytest.raises(IndexError):
            batches.get(8)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(0, 10**9), st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_the_balanced_order_gives_each_class_its_share_within_one(sizes: list[int], first: int, count: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)) * 3, sizes))
    order, classes = ClassOrder(labels), len(sizes)
    start = first // classes * classes
    drawn = np.unique(labels[order.draw(0, "order", start, count)], return_counts=True)[1]
    assert drawn.max() <= -(-count // classes)
    assert drawn.sum() == count
    assert len(drawn) == min(classes, count) or count < classes
    assert drawn.min() >= count // classes
    cut = count // 3 + 1
    parts = [order.draw(0, "order", start + a, min(cut, count - a)) for a in range(0, count, cut)]
    assert (np.concatenate(parts) == order.draw(0, "order", start, count)).all()


def test_the_balanced_order_draws_each_image_of_a_class_before_one_comes_again() -> None:
    labels = np.array([0] * 50 + [1] * 3 + [2])
    rounds = ClassOrder(labels).draw(1, "order", 0, 3 * 100).reshape(100, 3)
    assert (np.sort(labels[rounds]) == [0, 1, 2]).all()
    assert len({tuple(row) for row in labels[rounds]}) == 6
    large, small = rounds[labels[rounds] == 0], rounds[labels[rounds] == 1][:99]
    assert sorted(large[:50]) == sorted(large[50:]) == list(range(50))
    assert (large[:50] != large[50:]).any()
    assert (np.sort(small.reshape(-1, 3)) == [50, 51, 52]).all()
    assert len({tuple(row) for row in small.reshape(-1, 3)}) == 6
    others = ClassOrder(labels).draw(2, "order", 0, 300), ClassOrder(labels).draw(1, "extra", 0, 300)
    assert all((other != rounds.reshape(-1)).any() for other in others)


@pytest.mark.parametrize("block", [1, 7, 64])
def test_balanced_batches_are_addressed_by_position(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptarmigan.data.batches.BLOCK", block)
    with some(balance=True, batch=10) as batches:
        order = ClassOrder(LABELS[1:])
        for seen in (0, 4, 61, 0, 10**6):
            got = batches.load(seen)
            assert (got.indices == 1 + order.draw(0, "order", seen, 10)).all()
            assert got.labels.tolist() == LABELS[got.indices].tolist()
            if seen % 5 == 0:
                assert sorted(got.labels.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
