"""Archives are read in place: the same images and classes as their folder; what is unsafe or damaged is said."""

from __future__ import annotations

import io
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import SMALL
from ptarmigan.config import Data
from ptarmigan.core.types import UserError
from ptarmigan.data import archive as module
from ptarmigan.data import open_dataset
from ptarmigan.data.archive import InOrder, open_archive
from ptarmigan.data.index import FolderSource, find_source
from support import at_most, call, raises

Contents = dict[str, bytes]  # of the files by path


def png(seed: int, ending: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (28, 28, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, ending)
    return out.getvalue()


def photos(parts: tuple[str, ...] = ("train", "test"), count: int = 6) -> Contents:
    names = [f"{part}/{kind}/{i}.png" for part in parts for kind in ("cat", "dog") for i in range(count)]
    return {name: png(seed) for seed, name in enumerate(names)}


def to_folder(path: Path, contents: Contents) -> Path:
    for name, content in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def to_zip(path: Path, contents: Contents, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def to_tar(path: Path, contents: Contents, mode: str = "w", form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, mode, format=form) as archive:  # type: ignore[call-overload]
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def source_of(path: Path) -> FolderSource:
    source = find_source(path)
    assert isinstance(source, FolderSource)
    return source


def read(source: FolderSource) -> dict[str, tuple[str, int, bytes]]:
    """{path: (class, part, content)}"""
    out = {}
    for i, path in enumerate(source.paths):
        with source.open(i) as file:
            out[path] = source.class_names[source.labels[i]], int(source.source_part[i]), file.read()
    return out


KINDS: dict[str, Callable[[Path, Contents], Path]] = {
    "x.zip": to_zip,
    "stored.zip": lambda path, contents: to_zip(path, contents, zipfile.ZIP_STORED),
    "x.tar": to_tar,
    "gnu.tar": lambda path, contents: to_tar(path, contents, form=tarfile.GNU_FORMAT),
    "old.tar": lambda path, contents: to_tar(path, contents, form=tarfile.USTAR_FORMAT),
    "x.tar.gz": lambda path, contents: to_tar(path, contents, "w:gz"),
    "x.tgz": lambda path, contents: to_tar(path, contents, "w:gz"),
    "x.tar.bz2": lambda path, contents: to_tar(path, contents, "w:bz2"),
    "x.tar.xz": lambda path, contents: to_tar(path, contents, "w:xz"),
    "no ending": to_zip,
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_is_read_as_its_folder_would_be(tmp_path: Path, kind: str) -> None:
    contents = photos() | {"train/.hidden/x.png": png(98), "__MACOSX/train/cat/._0.png": b"x", "notes.md": b"x"}
    folder = source_of(to_folder(tmp_path / "folder", contents))
    before = {path.name for path in tmp_path.iterdir()}
    source = source_of(KINDS[kind](tmp_path / kind, contents))
    assert read(source) == read(folder)
    assert read(pickle.loads(pickle.dumps(source))) == read(folder)
    assert (source.understood, source.notices) == (folder.understood, folder.notices)
    assert {path.name for path in tmp_path.iterdir()} == before | {kind}


@pytest.mark.parametrize("kind", ["x.zip", "x.tar.gz"])
def test_the_pack_of_an_archive_has_the_images_of_its_folder(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTARMIGAN_CACHE", str(tmp_path / "cache"))
    contents = photos() | {"train/cat/broken.png": png(99)[:200]}
    one = open_dataset(to_folder(tmp_path / "folder", contents), Data())
    other = open_dataset(KINDS[kind](tmp_path / kind, contents), Data())
    assert sorted(zip(one.hashes, one.labels, strict=True)) == sorted(zip(other.hashes, other.labels, strict=True))
    assert any("1 of 25 files" in notice and "broken.png" in notice for notice in other.notices)
    assert other.origin(0).startswith(f"{tmp_path / kind}/t")
    if kind == "x.zip":
        assert one.fingerprint == other.fingerprint


def test_long_and_foreign_names(tmp_path: Path) -> None:
    long, accents = f"{'a' * 120}/{'b' * 90}.png", "été/ä.png"
    contents = {long: png(0), accents: png(1)}
    expected = {long, accents}
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        assert set(source_of(to_tar(tmp_path / "x.tar", contents, form=form)).paths) == expected
    assert set(source_of(to_zip(tmp_path / "x.zip", contents)).paths) == expected
    for i, name in enumerate(["été/ä.png", "cat\\a.png"]):  # UTF-8 that does not say so, and Windows' backslashes
        path = tmp_path / f"{i}.zip"
        raw = name.encode()
        to_zip(path, {"x" * len(raw): png(0)})
        path.write_bytes(path.read_bytes().replace(b"x" * len(raw), raw))
        assert source_of(path).paths == (name.replace("\\", "/"),)


@pytest.mark.parametrize(
    "name", ["../out.png", "/etc/out.png", "cat/../../out.png", "C:/out.png", "a/" * 600 + "b.png"]
)
def test_names_that_lead_out_are_left_out_aloud(tmp_path: Path, name: str) -> None:
    contents = photos(("train",)) | {name: png(99)}
    for path in (to_zip(tmp_path / "x.zip", contents), to_tar(tmp_path / "x.tar", contents)):
        source = source_of(path)
        assert len(source.paths) == 12
        assert any("1 member" in notice and name[:20] in notice for notice in source.notices)


def test_links_special_and_encrypted_members_are_left_out_aloud(tmp_path: Path) -> None:
    path = to_tar(tmp_path / "x.tar", photos(("train",)))
    with tarfile.open(path, "a") as archive:
        for name, kind in (
            ("soft.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("fifo.png", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    source = source_of(path)
    assert len(source.paths) == 12
    assert any("2 links" in notice and "hard.png" in notice for notice in source.notices)
    assert any("1 special file" in notice for notice in source.notices)
    path = to_zip(tmp_path / "x.zip", photos(("train",)))
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("train/cat/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("train/cat/packed.png", png(98), zipfile.ZIP_BZIP2)
        archive.writestr("train/cat/secret.png", png(99))
    with zipfile.ZipFile(path) as archive:
        at = archive.start_dir
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\1\2", at) + 8] |= 1  # the flag of the last member
    path.write_bytes(content)
    source = source_of(path)
    assert len(source.paths) == 12
    for fact in ("1 link ", "1 encrypted member", "1 member compressed"):
        assert any(fact in notice for notice in source.notices), fact


def test_a_name_that_stands_twice_is_read_as_unpacking_would(tmp_path: Path) -> None:
    for path, mode in ((tmp_path / "x.tar", "w"), (tmp_path / "x.tgz", "w:gz")):
        with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
            for seed in (1, 2):
                info = tarfile.TarInfo("cat/a.png")
                info.size = len(png(seed))
                archive.addfile(info, io.BytesIO(png(seed)))
        source = source_of(path)
        assert [content for *_, content in read(source).values()] == [png(2)]
        assert any("1 name " in notice and "cat/a.png" in notice for notice in source.notices)


def test_bombs_are_left_out_or_refused(tmp_path: Path) -> None:
    contents = photos(("train",)) | {"train/cat/zeros.png": bytes(24 << 20)}
    with at_most(200):
        source = source_of(to_zip(tmp_path / "x.zip", contents))
    assert len(source.paths) == 12
    assert any("zeros.png" in notice for notice in source.notices)
    with raises("file-damaged", "x.tgz"):
        find_source(to_tar(tmp_path / "x.tgz", contents, "w:gz"))
    path = to_zip(tmp_path / "y.zip", {f"cat/{i}.png": png(0) for i in range(9)})
    content = path.read_bytes()
    first, *others = content[content.index(b"PK\1\2") :].split(b"PK\1\2")[1:]
    others = [entry[:38] + bytes(4) + entry[42:] for entry in others]  # all begin where the first member does
    path.write_bytes(content[: len(png(0)) + 60] + b"PK\1\2".join([b"", first, *others]))
    with raises("file-damaged", "y.zip"):
        find_source(path)


@pytest.mark.parametrize("kind", ["x.zip", "x.tar", "x.tar.gz", "x.tar.bz2", "x.tar.xz"])
def test_an_archive_that_ends_too_early_is_refused(tmp_path: Path, kind: str) -> None:
    path = KINDS[kind](tmp_path / kind, photos())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(UserError) as caught:
        find_source(path)
    assert caught.value.code in ("file-damaged", "file-unreadable")
    assert kind in str(caught.value)


def test_a_damaged_member_is_counted_and_the_others_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTARMIGAN_CACHE", str(tmp_path / "cache"))
    path = to_zip(tmp_path / "x.zip", photos(), zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 99] ^= 1
    path.write_bytes(content)
    dataset = open_dataset(path, Data())
    assert len(dataset.labels) == 23
    assert any("1 of 24 files" in notice and "cat/0.png" in notice for notice in dataset.notices)


def test_a_damaged_header_in_a_tar_is_no_end(tmp_path: Path) -> None:
    path = to_tar(tmp_path / "x.tar", photos())
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        content[archive.getmembers()[9].offset + 150] ^= 1
    path.write_bytes(content)
    with raises("file-unreadable", "x.tar"):
        find_source(path)


def test_arrays_and_archives_in_archives_are_refused_in_one_line(tmp_path: Path) -> None:
    for name in ("train-images-idx3-ubyte", "x.npz", "inner.zip"):
        with raises("no-images", "x.zip", "unpack"):
            find_source(to_zip(tmp_path / "x.zip", {name: b"x" * 99}))
    with raises("no-images", "x.rar"):
        (tmp_path / "x.rar").write_bytes(b"Rar!" + bytes(99))
        find_source(tmp_path / "x.rar")
    with raises("no-images", "output folder"):
        find_source(to_zip(tmp_path / "run.zip", {"run/.ptarmigan-run": b"", "run/grid.png": png(0)}))


def test_a_folder_of_archives_is_a_folder_of_their_folders(tmp_path: Path) -> None:
    contents = photos()
    for part in ("train", "test"):
        inner = {name.partition("/")[2]: content for name, content in contents.items() if name.startswith(part)}
        (tmp_path / "zips").mkdir(exist_ok=True)
        (tmp_path / "tars").mkdir(exist_ok=True)
        to_zip(tmp_path / "zips" / f"{part}.zip", inner)
        to_tar(tmp_path / "tars" / f"{part}.tar.gz", inner, "w:gz")
    folder = source_of(to_folder(tmp_path / "folder", contents))
    for name in ("zips", "tars"):
        source = source_of(tmp_path / name)
        assert read(source) == read(folder)
        assert source.understood == folder.understood
    (tmp_path / "alone").mkdir()
    assert len(source_of(to_zip(tmp_path / "alone" / "photos.zip", contents).parent).paths) == 24


def test_a_stream_is_read_once_in_its_order_and_keeps_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = open_archive(to_tar(tmp_path / "x.tgz", photos(), "w:gz"))
    assert isinstance(archive, InOrder)
    starts = 0

    def counted() -> object:
        nonlocal starts
        starts += 1
        return read()

    read, archive.read = archive.read, counted  # type: ignore[assignment]
    archive.begin()
    monkeypatch.setattr(module, "KEPT_BYTES", 3 * len(png(0)))
    monkeypatch.setattr(module, "SMALL_FILES", 0)
    names = sorted(archive.order, key=archive.order.__getitem__)
    for name in (*names, names[-2]):  # the last but one is still there
        archive.open(name).close()
    assert starts == 1
    assert archive.kept_bytes == sum(map(len, archive.kept.values())) <= module.KEPT_BYTES
    archive.open(names[0]).close()
    assert starts == 2


@pytest.mark.slow
def test_the_commands_take_a_zip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PTARMIGAN_CACHE", str(tmp_path / "cache"))
    path, run = to_zip(tmp_path / "x.zip", photos(("train",), 80)), tmp_path / "run"
    small = [f"--{name.replace('_', '-')}={value}" for name, value in (SMALL | {"split": "60/20/20"}).items()]
    train = ("train", path, *small, "--live-images=0", "--out", run)
    for command in (
        train,
        train,
        ("score", run),
        ("replay", run, "--at=16"),
        ("score", path, path),
    ):
        status, _, err = call(monkeypatch, capsys, *command)
        assert status == 0, (command, err)


@pytest.mark.slow
def test_mutated_archives_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    rng = random.Random(0)
    seeds = [KINDS[kind](tmp_path / kind, photos(("train",), 2)).read_bytes() for kind in KINDS]
    for number in range(400):
        content = bytearray(seeds[number % len(seeds)])
        for _ in range(rng.choice((1, 1, 3, 20))):
            content[rng.randrange(len(content))] = rng.choice((0, 255, rng.randrange(256)))
        if rng.random() < 0.2:
            content = content[: rng.randrange(len(content))]
        (tmp_path / "mutated").write_bytes(content)
        with at_most(500), suppress(UserError):
            source = find_source(tmp_path / "mutated")
            assert isinstance(source, FolderSource)
            for i in range(len(source.paths)):
                with suppress(OSError):
                    source.open(i).close()
