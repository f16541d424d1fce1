"""The pack in the cache: made once, reused, whole or not at all, rebuilt when damaged, safe in a race."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from ptarmigan.config import Data
from ptarmigan.data import open_dataset, pack
from ptarmigan.data.cache import _host, cache_folder, partial_pack
from ptarmigan.data.disk import Disk
from ptarmigan.data.index import FolderSource, find_source
from ptarmigan.data.pack import Pack, content_hash, open_pack
from support import raises


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PTARMIGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "packs"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """2 classes of 6 images of unequal sizes."""
    rng = np.random.default_rng(0)
    for i in range(12):
        path = tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40 + i, 36 + 2 * i, 3), np.uint8)).save(path)
    return tmp_path / "photos"


def made(path: Path | None, data: Data = Data()) -> tuple[Pack, bool]:  # noqa: B008
    """The pack, and whether it had to be made."""
    calls: list[str] = []
    out = open_pack(find_source(path), data, lambda what, done, total: calls.append(what))
    return out, "decoding images" in calls


def entry(cache: Path) -> Path:
    (only,) = cache.iterdir()
    return only


def test_images_labels_hashes(photos: Path) -> None:
    out, _ = made(photos, Data(size="32"))
    assert out.images.shape == (12, 32, 32, 3)
    assert out.images.dtype == np.uint8
    assert not out.images.flags.writeable
    assert out.labels.tolist() == [0] * 6 + [1] * 6
    assert out.hashes.tolist() == [content_hash(image) for image in out.images]
    assert len(set(out.hashes.tolist())) == 12
    assert out.class_names == ("cat", "dog")


def test_made_once_and_anew_when_the_source_or_a_choice_changes(photos: Path) -> None:
    assert [made(photos)[1], made(photos)[1]] == [True, False]
    assert [made(photos, Data(size="32"))[1], made(photos, Data(size="32x32"))[1]] == [True, False]
    assert made(photos, Data(fit="pad"))[1]
    assert made(photos, Data(channels=1))[1]
    assert made(photos, Data(window="0,9"))[1]
    assert made(photos, Data(max_pixels=10**6))[1]
    assert not made(photos, Data(split="80/10/10", flip=True))[1]  # these do not shape the pixels
    os.utime(photos / "cat" / "00.png", ns=(5, 5))
    assert not made(photos)[1]
    Image.new("RGB", (40, 40)).save(photos / "cat" / "new.png")
    out, anew = made(photos)
    assert anew
    assert len(out.images) == 13
    (photos / "cat" / "new.png").unlink()
    assert len(made(photos)[0].images) == 12


def test_progress_counts_to_the_total(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptarmigan.data.read.CHUNK", 5)
    calls: list[tuple[str, int, int]] = []
    open_pack(find_source(photos), Data(), lambda *call: calls.append(call))
    steps = list(dict.fromkeys(what for what, _, _ in calls))
    assert steps[0] == "reading headers"
    assert steps[-1] == "decoding images"
    assert calls == [(what, done, 12) for what in steps for done in range(1, 13)]


@pytest.mark.parametrize(
    "name", ["images", "labels.npy", "hashes.npy", "source_part.npy", "source_indices.npy", "meta.json"]
)
@pytest.mark.parametrize("damage", ["truncated", "overwritten", "gone", "empty"])
def test_a_damaged_pack_is_made_anew(photos: Path, cache: Path, name: str, damage: str) -> None:
    first, _ = made(photos)
    wanted = {
        field: getattr(first, field).copy() for field in ("images", "labels", "source_part", "hashes", "source_indices")
    }
    path = entry(cache) / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        start = 0 if name == "meta.json" else len(content) // 2
        wrong = bytes(255 - byte for byte in content[start : start + 8])
        overwritten = content[:start] + wrong + content[start + 8 :]
        path.write_bytes({"truncated": content[:-1], "overwritten": overwritten, "empty": b""}[damage])
    again, anew = made(photos)
    assert anew
    assert all((getattr(again, field) == value).all() for field, value in wanted.items())
    assert str(entry(cache)) in again.notices[0]
    again, anew = made(photos)
    assert (again.notices, anew) == (first.notices, False)
    assert [path.name for path in cache.iterdir()] == [entry(cache).name]


def stop(at: int, error: BaseException | int) -> Any:
    """Progress that ends when `at` images have been decoded, by an error or a signal."""

    def on_progress(what: str, done: int, total: int | None) -> None:
        if what == "decoding images" and done == at:
            if not isinstance(error, int):
                raise error
            os.kill(os.getpid(), error)

    return on_progress


@pytest.mark.parametrize(("at", "error"), [(1, KeyboardInterrupt()), (8, RuntimeError())])
def test_a_pack_cut_short_before_its_first_chunk_or_by_an_error_is_not_left_behind(
    photos: Path, cache: Path, at: int, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptarmigan.data.read.CHUNK", 5)
    with pytest.raises(type(error)):
        open_pack(find_source(photos), Data(), stop(at, error))
    assert list(cache.iterdir()) == []
    assert made(photos)[1]


def decoded(path: Path) -> tuple[Pack, list[int]]:
    """The pack, and the counts of images that the progress of decoding went through."""
    calls: list[tuple[str, int]] = []
    out = open_pack(find_source(path), Data(), lambda what, done, total: calls.append((what, done)))
    return out, [done for what, done in calls if what == "decoding images"]


@pytest.mark.parametrize("harm", ["none", "tail", "pixel", "journal", "shape", "more files"])
def test_an_interrupted_pack_is_continued_with_what_of_it_is_whole(
    photos: Path, cache: Path, harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptarmigan.data.read.CHUNK", 5)
    with pytest.raises(KeyboardInterrupt):
        open_pack(find_source(photos), Data(), stop(12, KeyboardInterrupt()))
    partial, first = entry(cache), 11
    images, size = partial / "images", 32 * 32 * 3
    if harm == "tail":
        with open(images, "ab") as file:
            file.write(b"half an image")
        with open(partial / "journal", "ab") as file:
            file.write(b"half a record")
    elif harm == "pixel":
        content = bytearray(images.read_bytes())
        content[7 * size + 5] ^= 1
        images.write_bytes(content)
        first = 8
    elif harm == "journal":
        os.truncate(partial / "journal", 3 * 16 + 2)
        first = 4
    elif harm == "shape":
        (partial / "shape").write_text("another")
        first = 1
    elif harm == "more files":
        (partial / "labels.npy").write_bytes(b"from a kill at the end")
    out, counts = decoded(photos)
    assert counts == list(range(first, 13))
    monkeypatch.setenv("PTARMIGAN_CACHE", str(tmp_path / "other"))
    fresh = made(photos)[0]
    for name in ("images", "labels", "hashes", "source_indices"):
        assert np.array_equal(getattr(out, name), getattr(fresh, name))
    assert out.notices == fresh.notices
    assert {path.name for path in entry(cache).iterdir()} == {
        "images", "labels.npy", "hashes.npy", "source_part.npy", "source_indices.npy", "meta.json", "used",
    }  # fmt: skip


def test_a_file_that_can_be_read_when_the_pack_is_continued_takes_its_place(
    photos: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptarmigan.data.read.CHUNK", 5)
    fresh, source = made(photos)[0], find_source(photos)
    monkeypatch.setenv("PTARMIGAN_CACHE", str(tmp_path / "other"))
    (photos / "cat" / "04.png").rename(tmp_path / "away.png")
    with pytest.raises(KeyboardInterrupt):
        open_pack(source, Data(), stop(11, KeyboardInterrupt()))
    (tmp_path / "away.png").rename(photos / "cat" / "04.png")
    calls: list[int] = []
    out = open_pack(source, Data(), lambda what, done, total: what == "decoding images" and calls.append(done))
    assert calls == [11, 12]
    assert out.source_indices.tolist() == list(range(12))
    assert np.array_equal(out.images, fresh.images)
    assert np.array_equal(out.hashes, fresh.hashes)


def test_a_pack_of_arrays_is_continued_too(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 70, 70), np.uint8)
    np.savez(tmp_path / "x.npz", arr_0=images, arr_1=np.arange(40) % 2)
    monkeypatch.setattr("ptarmigan.data.arrays.CHUNK_BYTES", 70 * 70 * 10, raising=True)
    with pytest.raises(KeyboardInterrupt):
        open_pack(find_source(tmp_path / "x.npz"), Data(), stop(30, KeyboardInterrupt()))
    out, counts = decoded(tmp_path / "x.npz")
    assert counts == [30, 40]
    assert out.source_indices.tolist() == list(range(40))


def test_any_pixel_and_any_word_is_checked(photos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "BLOCK_BYTES", 3 * 28 * 28 * 5)  # 5 images
    made(photos, Data(size="28"))
    for at in (0, 5 * 2352 + 7, 12 * 2352 - 1):
        with open(entry(cache) / "images", "r+b") as file:
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ 1]))
        assert made(photos, Data(size="28"))[1]
    meta = entry(cache) / "meta.json"
    for old, new in (
        ('"cat", "dog"', '"dog", "cat"'),
        ('"formats": [', '"formats": ["GIF"'),
        ('"notices": [', '"notices": ["x", '),
    ):
        assert old in meta.read_text()
        meta.write_text(meta.read_text().replace(old, new))
        assert made(photos, Data(size="28"))[1]
    assert not made(photos, Data(size="28"))[1]


def test_of_a_huge_pack_a_sample_is_checked(photos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(photos, Data(size="28"))
    monkeypatch.setattr(pack, "BLOCK_BYTES", 2352)
    monkeypatch.setattr(pack, "CHECKED_BYTES", 4 * 2352)
    calls: list[tuple[object, ...]] = []
    open_pack(find_source(photos), Data(size="28"), lambda *call: calls.append(call))
    assert calls == [("checking images", done, 4) for done in (1, 2, 3, 4)]
    with open(entry(cache) / "images", "r+b") as file:
        file.write(bytes(2352))
    assert any(made(photos, Data(size="28"))[1] for _ in range(60))  # (2/3)^60 would miss it


def test_a_file_that_could_not_be_read_is_tried_again(photos: Path, tmp_path: Path) -> None:
    content = (photos / "cat/00.png").read_bytes()
    (photos / "cat/00.png").unlink()
    (photos / "cat/00.png").symlink_to(tmp_path / "later.png")
    (photos / "cat/02.png").write_bytes(content[:100])  # damaged for good
    source = find_source(photos)
    assert isinstance(source, FolderSource)
    paths, labels = ("cat/00.png", *source.paths[-11:]), np.repeat([0, 1], 6)
    source = replace(source, paths=paths, labels=labels, source_part=np.full(12, -1, np.int8))

    def opened() -> tuple[int, bool]:
        calls: list[str] = []
        found = open_pack(source, Data(), lambda what, *_: calls.append(what))
        return len(found.images), "decoding images" in calls

    assert [opened(), opened()] == [(10, True), (10, False)]
    (tmp_path / "later.png").write_bytes(content)
    assert [opened(), opened()] == [(11, True), (11, False)]


def test_what_dead_processes_left_is_removed_and_what_live_ones_write_is_not(photos: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    with partial_pack(cache / "live") as live, partial_pack(cache / "other") as other:
        names = (
            f"dead.{_host()}-1-00.tmp", f"empty.{_host()}-1-00.tmp", "far.host-9-1-00.tmp",
            f"kept.{_host()}-1-00.tmp", "near.host-9-1-00.tmp", "old.1-00.tmp",
        )  # fmt: skip
        for name in names:
            (cache / name).mkdir()
            (cache / name / "journal").write_bytes(b"" if "empty" in name else bytes(16))
        for folder in (cache / names[0], cache / names[2], other):
            for path in (*folder.iterdir(), folder):
                os.utime(path, (time.time() - 90_000,) * 2)
        made(photos)
        assert {path.name for path in cache.glob("*.tmp")} == {live.name, other.name, *names[3:]}
    assert {path.name for path in cache.glob("*.tmp")} == {*names[3:]}
    assert {path.name for path in cache.glob("*.lock")} == set()


KILLED = """
import os, signal, sys
import ptarmigan.data.read
from ptarmigan.config import Data
from ptarmigan.data import open_dataset
ptarmigan.data.read.CHUNK = 5
number = int(sys.argv[2])
open_dataset(
    sys.argv[1], Data(), lambda what, done, _: what == "decoding images" and done == 8 and os.kill(os.getpid(), number)
)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_process_decoded_is_not_decoded_again(photos: Path, cache: Path, number: int) -> None:
    run = subprocess.run([sys.executable, "-c", KILLED, photos, str(number)], timeout=100)
    assert run.returncode == -number
    assert len(list(cache.glob("*.tmp"))) == 1
    assert decoded(photos)[1] == list(range(6, 13))
    assert [path.name for path in cache.iterdir()] == [entry(cache).name]


def test_threads_may_race(photos: Path, cache: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        packs = list(pool.map(lambda _: made(photos)[0], range(6)))
    assert all((p.images == packs[0].images).all() for p in packs)
    entry(cache)


@pytest.mark.slow
def test_processes_may_race(photos: Path, cache: Path) -> None:
    code = (
        "import sys; from ptarmigan.config import Data; from ptarmigan.data import open_dataset;"
        "print(open_dataset(sys.argv[1], Data()).fingerprint)"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, str(photos)], stdout=subprocess.PIPE) for _ in range(3)]
    outs = {run.communicate(timeout=100)[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert outs == {open_dataset(photos, Data()).fingerprint.encode() + os.linesep.encode()}
    entry(cache)


def test_another_process_that_was_first_wins(photos: Path, cache: Path) -> None:
    inodes = []

    def other(what: str, *_: object) -> None:
        if what == "decoding images" and not inodes:
            open_pack(find_source(photos), Data())
            (whole,) = (path for path in cache.iterdir() if not path.suffix)
            inodes.append((whole / "images").stat().st_ino)

    open_pack(find_source(photos), Data(), other)
    assert [(entry(cache) / "images").stat().st_ino] == inodes


def test_too_little_room_says_how_much_is_needed_and_where(
    photos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack.shutil, "disk_usage", lambda folder: type("U", (), {"free": 12_000})())
    with raises("file-unwritable", cache, "0.01 MB", "0.04 MB", "PTARMIGAN_CACHE"):
        made(photos)
    assert list(cache.iterdir()) == []
    with tarfile.open(photos.with_suffix(".tar"), "w") as archive:
        archive.add(photos, "photos")
    with raises("file-unwritable", f"file://{photos.with_suffix('.tar')}"):  # where it can be streamed from
        made(photos.with_suffix(".tar"))


def test_a_disk_that_fills_up_meanwhile(photos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pack, "_sync", full)
    with raises("file-unwritable", cache, "space", "PTARMIGAN_CACHE"):
        made(photos)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("PTARMIGAN_CACHE", str(tmp_path / "file"))
    with raises("file-unwritable", tmp_path / "file" / "packs", "PTARMIGAN_CACHE"):
        made(photos)


@pytest.mark.parametrize(
    ("platform", "env", "expected"),
    [
        ("linux", {}, "home/.cache/ptarmigan"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/ptarmigan"),
        ("darwin", {}, "home/Library/Caches/ptarmigan"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/ptarmigan"),
        ("win32", {}, "home/AppData/Local/ptarmigan"),
        ("linux", {"PTARMIGAN_CACHE": "/p"}, "/p"),
    ],
)
def test_the_cache_folder(platform: str, env: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PTARMIGAN_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("home"))
    assert cache_folder() == Path(expected)


def test_nothing_is_pickled(photos: Path, cache: Path) -> None:
    made(photos)
    for path in entry(cache).glob("*.npy"):
        np.load(path, allow_pickle=False)
    assert json.loads((entry(cache) / "meta.json").read_text())["class_names"] == ["cat", "dog"]


class Backwards(Disk):
    """A folder whose files are to be read from the last to the first."""

    opened: ClassVar[list[str]] = []

    @property
    def order(self) -> dict[str, int]:
        return {path.relative_to(self.root).as_posix(): -n for n, path in enumerate(sorted(self.root.glob("*/*")))}

    def open(self, path: str) -> IO[bytes]:
        self.opened.append(path)
        return super().open(path)


def test_files_are_read_in_the_order_of_the_storage_and_stored_in_that_of_the_source(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, source = made(photos)[0], find_source(photos)
    assert isinstance(source, FolderSource)
    monkeypatch.setenv("PTARMIGAN_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr("ptarmigan.data.workers.cores", lambda: 1)
    monkeypatch.setattr("ptarmigan.data.read.CHUNK", 5)
    Backwards.opened.clear()
    out = open_pack(replace(source, storage=Backwards(photos)), Data())
    for name in ("images", "labels", "hashes", "source_indices"):
        assert np.array_equal(getattr(out, name), getattr(wanted, name))
    assert Backwards.opened == [*source.paths[::-1]] * (len(Backwards.opened) // 12)
