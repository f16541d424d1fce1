"""`ptarmigan cache` and PTARMIGAN_CACHE_LIMIT: what is listed, what is removed, and that nothing in use is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptarmigan.config import Data
from ptarmigan.data import open_dataset
from ptarmigan.data.cache import cache_limit, cached_packs, partial_pack
from support import call, raises

LINUX = pytest.mark.skipif(sys.platform == "win32", reason="locks of files")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PTARMIGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "packs"


@pytest.fixture
def sets(tmp_path: Path) -> list[Path]:
    """Three data sets of 20 images of 16x16, each packed in 5,120 bytes and some labels; the first is the oldest."""
    paths = [tmp_path / f"{name}.npz" for name in ("ants", "bees", "cats")]
    for number, path in enumerate(paths):
        images = np.random.default_rng(number).integers(0, 256, (20, 16, 16), np.uint8)
        np.savez(path, arr_0=images, arr_1=np.arange(20) % 2)
        open_dataset(path, Data())
    for pack in cached_packs():
        age = 9 - [path.stem for path in paths].index(Path(pack.data).stem)
        os.utime(pack.folder / "used", (1e9 - age,) * 2)
    return paths


def kept() -> list[str]:
    """The data of the packs, the longest unused first."""
    return [Path(pack.data).stem for pack in cached_packs()]


def test_each_pack_is_listed_with_its_data_images_size_and_last_use(
    sets: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TZ", "UTC")
    status, out, _ = call(monkeypatch, capsys, "cache")
    assert status == 0
    rows = [line for line in out.splitlines() if ".npz" in line]
    assert [Path(row.split()[-1]).stem for row in rows] == ["cats", "bees", "ants"]
    size = sum(file.stat().st_size for file in cached_packs()[0].folder.iterdir())
    assert all(fact in rows[2] for fact in ("20 of 16x16x1", f"{size / 1e6:.2f} MB", "2001-09-09", str(sets[0])))
    assert cached_packs()[0].name in rows[2]
    assert all(fact in out for fact in ("3 packs", str(cache), "PTARMIGAN_CACHE_LIMIT"))
    open_dataset(sets[0], Data())
    assert kept() == ["bees", "cats", "ants"]


def test_an_empty_cache_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, capsys, "cache")[0] == 0
    assert call(monkeypatch, capsys, "cache", "--clear")[0] == 0
    status, _, err = call(monkeypatch, capsys, "cache", "--clear", "1a2b3c4d")
    assert status == 2
    assert "[unknown-name]" in err


def test_named_packs_or_all_are_removed(
    sets: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ants, bees, _ = cached_packs()
    status, _, err = call(monkeypatch, capsys, "cache", ants.name)
    assert (status, len(kept())) == (2, 3)
    assert "--clear" in err
    status, _, err = call(monkeypatch, capsys, "cache", "--clear", ants.name, "nothing")
    assert (status, len(kept())) == (2, 3)
    assert "[unknown-name]" in err
    status, out, _ = call(monkeypatch, capsys, "cache", "--clear", ants.name, bees.folder.name)
    assert (status, kept()) == (0, ["cats"])
    assert str(sets[0]) in out
    features = cache.parent / "features"
    features.mkdir()
    (features / "x.safetensors").write_bytes(bytes(100))
    weights = cache.parent / "weights" / "x"
    weights.parent.mkdir()
    weights.touch()
    assert call(monkeypatch, capsys, "cache", "--clear")[0] == 0
    assert list(cache.iterdir()) == []
    assert not features.exists()
    assert weights.exists()
    assert all(path.exists() for path in sets)


@LINUX
def test_a_pack_in_use_is_kept(
    sets: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = open_dataset(sets[1], Data()).images
    name = cached_packs()[-1].name
    assert "in use" in call(monkeypatch, capsys, "cache")[1]
    status, out, _ = call(monkeypatch, capsys, "cache", "--clear")
    assert (status, kept()) == (1, ["bees"])
    assert f"kept, because a process uses it: {name}" in out
    del images
    assert call(monkeypatch, capsys, "cache", "--clear", name)[0] == 0
    assert kept() == []


HOLDS = """
import sys
from ptarmigan.config import Data
from ptarmigan.data import open_dataset
images = open_dataset(sys.argv[1], Data()).images
print("ready", flush=True)
sys.stdin.read()
print(int(images.sum()))
"""


@LINUX
@pytest.mark.slow
def test_a_pack_that_another_process_uses_is_kept_until_it_ends(
    sets: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", HOLDS, sets[0]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        assert call(monkeypatch, capsys, "cache", "--clear")[0] == 1
        assert kept() == ["ants"]
        assert int(other.communicate("", timeout=60)[0]) > 0
    assert call(monkeypatch, capsys, "cache", "--clear")[0] == 0
    assert kept() == []


def test_a_pack_that_is_being_written_is_kept_and_one_left_behind_is_not(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.mkdir(parents=True)
    with partial_pack(cache / "0123456789") as partial:
        (partial / "images").touch()
        _, out, _ = call(monkeypatch, capsys, "cache")
        assert all(fact in out for fact in ("not finished", "in use", "01234567"))
        assert call(monkeypatch, capsys, "cache", "--clear")[0] == 1
        assert partial.exists()
    left = cache / "0123456789.gone-1-00.tmp"
    left.mkdir()
    assert call(monkeypatch, capsys, "cache", "--clear")[0] == 0
    assert list(cache.iterdir()) == []


def test_packs_unused_for_the_longest_make_room_for_a_new_one(
    sets: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = max(pack.size for pack in cached_packs())
    monkeypatch.setenv("PTARMIGAN_CACHE_LIMIT", f"{3.2 * size / 1e3} kB")
    images = np.random.default_rng(9).integers(0, 256, (20, 16, 16), np.uint8)
    np.savez(tmp_path / "dogs.npz", arr_0=images, arr_1=np.arange(20) % 2)
    (removed, *_) = open_dataset(tmp_path / "dogs.npz", Data()).notices
    assert kept() == ["bees", "cats", "dogs"]
    assert all(fact in removed for fact in (str(sets[0]), "1 data set", "PTARMIGAN_CACHE_LIMIT"))
    assert not any("PTARMIGAN_CACHE_LIMIT" in notice for notice in open_dataset(tmp_path / "dogs.npz", Data()).notices)


@LINUX
def test_the_limit_removes_nothing_that_is_in_use_and_says_so(
    sets: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = open_dataset(sets[0], Data()).images
    monkeypatch.setenv("PTARMIGAN_CACHE_LIMIT", "1")
    images = np.random.default_rng(9).integers(0, 256, (20, 16, 16), np.uint8)
    np.savez(tmp_path / "dogs.npz", arr_0=images, arr_1=np.arange(20) % 2)
    (said, *_) = open_dataset(tmp_path / "dogs.npz", Data()).notices
    assert kept() == ["ants", "dogs"]
    assert used.any()
    assert all(fact in said for fact in ("2 data sets", "more than PTARMIGAN_CACHE_LIMIT", "in use"))


@pytest.mark.parametrize(
    ("text", "limit"),
    [("", None), ("20GB", 20_000_000_000), ("1.5 tb", 1_500_000_000_000), ("500M", 500_000_000), ("7", 7), ("0", 0)],
)
def test_limits(text: str, limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTARMIGAN_CACHE_LIMIT", text)
    assert cache_limit() == limit


@pytest.mark.parametrize("text", ["lots", "-1", "20 GBit", "1e9", "5 GiB"])
def test_what_is_no_size_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTARMIGAN_CACHE_LIMIT", text)
    with raises("value-invalid", "PTARMIGAN_CACHE_LIMIT", repr(text)):
        cache_limit()
