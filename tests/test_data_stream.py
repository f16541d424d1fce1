"""Shards at a URL: what is found in them, the order in which they are drawn, and what happens when they break."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from conftest import SMALL
from ptarmigan import load, train
from ptarmigan.config import Data
from ptarmigan.core.files import load_json
from ptarmigan.core.paths import url_of
from ptarmigan.data import HELD_OUT, Dataset, open_dataset, shards, stream, windows
from ptarmigan.data.batches import Batches
from ptarmigan.data.cache import cached_packs
from ptarmigan.data.stream import take_notes
from ptarmigan.training.signals import Stopped
from support import at_step, interrupt, raises
from test_data_archives import png, to_tar
from test_data_shards import shard

MEMORY: Any = fsspec.filesystem("memory")


@pytest.fixture
def url() -> Iterator[str]:
    folder = f"memory://{uuid4().hex}"
    yield folder
    MEMORY.rm(folder, recursive=True)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of at most 12 images."""
    monkeypatch.setattr(windows, "PIECE", 4)
    monkeypatch.setattr(windows, "MOST_PIECES", 3)
    monkeypatch.setattr(stream, "WAITS", (0.0, 0.0))


def put(url: str, name: str, first: int, count: int = 20, **images: bytes) -> None:
    """A shard of images of two classes; `images` replaces some."""
    contents = {}
    for i in range(first, first + count):
        contents |= {f"{i:04d}.png": images.get(f"_{i}", png(i)), f"{i:04d}.cls": ("cat", "dog")[i % 2].encode()}
    to_tar(path := Path(f"{name}.tar"), contents)
    MEMORY.pipe_file(f"{url}/{name}.tar", path.read_bytes())


@pytest.fixture
def pets(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        put(url, f"pets-{number:03d}", 20 * number)
    return f"{url}/pets-{{000..002}}.tar"


def batches(dataset: Dataset, **options: Any) -> Batches:
    given = {"batch": 7, "seed": 0} | options
    return Batches(dataset.images, dataset.labels, dataset.indices(), **given)


def opened(url: str, **options: Any) -> Dataset:
    return open_dataset(url, Data(**({"size": "28", "channels": 3, "split": "80/0/20"} | options)))


def test_streamed_images_are_those_of_the_shards(pets: str) -> None:
    dataset = opened(pets)
    assert dataset.spec.class_names == ("cat", "dog")
    assert dataset.counts() == {"train": 48, "select": 0, "held-out": 12}
    assert all(fact in dataset.understood for fact in ("3 shards", "60 images", "2 classes"))
    assert (dataset.images[:] == np.stack([Image.open(io.BytesIO(png(i))) for i in range(60)])).all()
    assert dataset.labels.tolist() == [0, 1] * 30
    assert dataset.images[-1].shape == (28, 28, 3)
    assert "pets-002.tar" in dataset.origin(59)
    assert opened(Path(pets)).fingerprint == dataset.fingerprint  # a Path joins slashes


def test_a_shard_is_listed_once(pets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read, listed = [], shards._list_shard

    def watched(stream: Any, path: str, *rest: Any) -> Any:
        read.append(path)
        return listed(stream, path, *rest)

    monkeypatch.setattr(shards, "_list_shard", watched)
    first = opened(pets)
    put(pets.rpartition("/")[0], "pets-001", 20, _21=png(21) + b"more")
    assert opened(pets).fingerprint != first.fingerprint
    assert [path.rpartition("-")[2] for path in sorted(read)] == ["000.tar", "001.tar", "001.tar", "002.tar"]
    assert [pack.shape for pack in cached_packs() if pack.data == pets] == [(60,)]


def test_an_epoch_has_each_image_once_and_a_batch_depends_on_its_position_alone(pets: str) -> None:
    dataset = opened(pets)
    with batches(dataset, batch=10) as some:
        drawn = [some.get(position) for position in range(0, 100, 10)]
    order = np.concatenate([batch.indices for batch in drawn])
    assert sorted(order[:48]) == sorted(order[48:96]) == dataset.indices().tolist()
    assert (order[:48] != order[48:96]).any()
    for position in (70, 30, 45):
        with batches(dataset, batch=10) as other:
            loaded = other.load(position)
        assert (loaded.indices == order[position : position + 10]).all()
        assert torch.equal(loaded.images, torch.cat([batch.images for batch in drawn])[position : position + 10])
        assert torch.equal(loaded.labels, torch.from_numpy(dataset.labels[loaded.indices]))


def test_a_rank_reads_its_share_alone(pets: str) -> None:
    dataset = opened(pets)
    with batches(dataset, batch=10) as whole, batches(dataset, batch=5) as half:
        for position in range(0, 120, 10):
            assert torch.equal(half.get(position + 5, step=10).images, whole.get(position).images[5:])
        assert half.windows is not None
        assert not all(window.read.all() for window in half.windows.windows.values())


def test_what_was_not_read_ahead_is_read_when_it_is_drawn(pets: str) -> None:
    dataset = opened(pets)
    with batches(dataset, batch=10) as whole, batches(dataset, batch=5) as half:
        half.load(5, step=10)
        assert torch.equal(half.load(0).images, whole.load(0).images[:5])


def test_a_window_mixes_its_pieces_and_each_epoch_has_other_windows(pets: str) -> None:
    dataset = opened(pets, split="none")
    with batches(dataset, batch=12) as some:
        first, second, again = ((some.load(position).indices // 4).tolist() for position in (0, 12, 60))
    assert len({*first}) == len({*second}) == 3
    assert first != sorted(first, key=first.index)  # not one piece after another
    assert {*first} != {*again}
    assert {index // 5 for index in first + second} == {0, 1, 2}  # of all shards, which hold 5 pieces each


def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    pets: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {**SMALL, "live_images": 0}
    train(pets, out=tmp_path / "whole", **given)
    with monkeypatch.context() as patch:
        at_step(patch, 3, interrupt)
        with pytest.raises(Stopped):
            train(pets, out=tmp_path / "stopped", **given)
    train(pets, out=tmp_path / "stopped", **given)
    one, other = (load(tmp_path / name).network.state_dict() for name in ("whole", "stopped"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert load_json(tmp_path / "whole" / "config.json")["data"]["source"] == pets


def test_the_folder_of_the_shards_their_parts_and_names(url: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for name, first in (("train-0", 0), ("train-1", 8), ("test-0", 16)):
        MEMORY.pipe_file(f"{url}/{name}.tar", shard(tmp_path / "x.tar", first).read_bytes())
    MEMORY.pipe_file(f"{url}/classes.txt", b"cat\ndog\n")
    dataset = opened(url)
    assert dataset.spec.class_names == ("cat", "dog")
    assert dataset.counts()["held-out"] == 8
    assert set(dataset.indices(HELD_OUT)) == set(range(8))  # test-0 comes first
    assert "test is held out" in dataset.understood


def test_labels_from_json_folders_or_nowhere(url: str, tmp_path: Path) -> None:
    def found(contents: dict[str, bytes], **options: Any) -> tuple[str, ...]:
        MEMORY.pipe_file(f"{url}/x.tar", to_tar(tmp_path / "x.tar", contents).read_bytes())
        return opened(f"{url}/x.tar", **options).spec.class_names

    images = {f"{('a', 'b')[i % 2]}/{i}.png": png(i) for i in range(8)}
    assert found(images) == ("a", "b")
    moods = {f"{('a', 'b')[i % 2]}/{i}.json": b'{"mood": "%d"}' % (i // 4) for i in range(8)}
    assert found(images | moods, label_column="mood") == ("0", "1")
    with raises("unknown-name", "species"):
        found(images | moods, label_column="species")
    assert found({f"{i}.png": png(i) for i in range(8)}) == ("x",)
    with raises("labels-invalid", "120"):
        found({f"{i}.{end}": (png(0), f"{i}".encode())[end == "cls"] for i in range(120) for end in ("png", "cls")})


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda path: MEMORY.rm(path), "gone"),
        (lambda path: MEMORY.pipe_file(path, bytes(100_000)), "changed"),
        (lambda path: MEMORY.pipe_file(path, MEMORY.cat_file(path)[:2000]), "3 attempts"),
    ],
)
def test_a_shard_that_breaks_while_it_is_used_is_an_error(pets: str, change: Any, fact: str) -> None:
    dataset = opened(pets)
    change(f"{pets.rpartition('/')[0]}/pets-001.tar")
    with batches(dataset) as some, raises("file-unreadable", "pets-001.tar", fact):
        for position in range(0, 70, 7):
            some.get(position)


def test_a_shard_that_cannot_be_reached_is_tried_again(pets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, read, left = opened(pets), type(MEMORY).cat_file, [1]

    def unsteady(self: Any, *arguments: Any) -> bytes:
        if left:
            left.pop()
            raise TimeoutError("the network is down")
        return bytes(read(self, *arguments))

    monkeypatch.setattr(type(MEMORY), "cat_file", unsteady)
    with batches(dataset) as some:
        some.load(0)
    (note,) = take_notes(dataset.images)
    assert "the network is down" in note


def test_another_image_of_its_class_and_part_stands_for_one_that_is_damaged(
    url: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    good = png(7)
    put(url, "pets-0", 0, 40, _7=good[:60] + bytes(20) + good[80:])
    monkeypatch.setattr(stream, "spread", lambda indices: indices[:6])  # the sample that decides on the shape
    dataset = opened(f"{url}/pets-0.tar")
    same = [i for i in range(8, 40) if i % 2 and dataset.part[i] == dataset.part[7]]
    assert (dataset.images[7] == dataset.images[same[0]]).all()
    with batches(dataset, batch=40) as some:
        some.load(0)
    notes = take_notes(dataset.images)
    assert len(notes) == 1
    assert "pets-0.tar" in notes[0]


def test_what_cannot_be_streamed(pets: str, url: str, tmp_path: Path) -> None:
    with raises("path-not-found", "pets-003.tar"):
        opened(pets.replace("002", "003"))
    with raises("package-missing", "nothing"):
        opened("nothing://x/y.tar")
    with raises("no-images", ".zip"):
        opened(f"{url}/x.zip")
    for option, value in (("balance", True), ("group", "x"), ("labels", "x.csv")):
        with raises("options-conflict", option):
            opened(pets, **{option: value})
    content = MEMORY.cat_file(f"{url}/pets-000.tar")
    MEMORY.pipe_file(f"{url}/short.tar", content[: len(content) // 2])
    with raises("file-damaged", "short.tar"):
        opened(f"{url}/short.tar")
    MEMORY.pipe_file(f"{url}/text.tar", b"no tar at all")
    with raises("file-unreadable", "text.tar"):
        opened(f"{url}/text.tar")


def test_urls() -> None:
    assert url_of("s3://bucket/x-{0..3}.tar") == url_of(Path("s3://bucket/x-{0..3}.tar")) == "s3://bucket/x-{0..3}.tar"
    assert url_of(Path("file:///data/x.tar")) == "file:///data/x.tar"
    assert url_of("photos/cat") is url_of("C:/photos") is url_of("/a/b:/c") is None
