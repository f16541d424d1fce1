"""What lies at a path: each kind of source, and the sentence a user reads where it is not as it should be."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ptarmigan.data.arrays import HELD_OUT, SELECT, UNDECIDED
from ptarmigan.data.index import ArraySource, FolderSource, find_source
from support import raises


def put(folder: Path, *names: str) -> Path:
    """Tiny images of one colour each."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (28, 28), (i, 2 * i, 99)).save(folder / name)
    return folder


def refused(path: Path, code: str, *facts: object) -> str:
    """Expect one line with this code about this path; returns it."""

    def read() -> None:
        source = find_source(path)
        assert isinstance(source, ArraySource)
        list(source.read().chunks())

    with raises(code, path.name, *facts) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- folders -----------------------------------------------------------------------------------------------


def folder_source(path: Path) -> FolderSource:
    source = find_source(path)
    assert isinstance(source, FolderSource)
    return source


def test_class_folders_in_sorted_order(tmp_path: Path) -> None:
    put(tmp_path, "dog/b.png", "cat/z.JPG", "cat/a.jpeg", "dog/deep/er/c.webp", "cat/b.bmp", "ant/x.gif")
    source = folder_source(tmp_path)
    assert source.class_names == ("ant", "cat", "dog")
    assert source.paths == ("ant/x.gif", "cat/a.jpeg", "cat/b.bmp", "cat/z.JPG", "dog/b.png", "dog/deep/er/c.webp")
    assert source.labels.tolist() == [0, 1, 1, 1, 2, 2]
    assert (source.source_part == UNDECIDED).all()
    assert source.notices == ()


def test_a_flat_folder_is_one_class_said_aloud(tmp_path: Path) -> None:
    source = folder_source(put(tmp_path / "my boots!", "b.png", "a.png"))
    assert (source.class_names, source.name) == (("my boots!",), "my-boots")
    assert source.labels.tolist() == [0, 0]
    assert all(fact in source.notices[0] for fact in (str(tmp_path / "my boots!"), "2 images", "'my boots!'"))


def test_what_is_passed_over_is_said(tmp_path: Path) -> None:
    put(tmp_path, "cat/a.png", "dog/b.png", "loose.png", ".hidden/x.png", "cat/.y.png", "__MACOSX/cat/a.png")
    (tmp_path / "cat/notes.txt").write_text("x")
    (tmp_path / "cat/README").write_text("x")
    (tmp_path / "empty").mkdir()
    source = folder_source(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert len(source.paths) == 2
    kinds, loose, empty = source.notices
    assert kinds.endswith(": 1 without a suffix, 1 .txt")
    assert loose.endswith(": loose.png")
    assert empty.endswith(": empty")


def test_a_folder_may_name_its_own_parts(tmp_path: Path) -> None:
    put(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/cat/2.png", "test/dog/3.png")
    source = folder_source(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert source.paths == ("train/cat/1.png", "val/cat/2.png", "train/dog/1.png", "test/dog/3.png")
    assert source.labels.tolist() == [0, 0, 1, 1]
    assert source.source_part.tolist() == [UNDECIDED, SELECT, UNDECIDED, HELD_OUT]
    assert "test, train, val" in source.notices[0]


def test_classes_called_train_and_test_stay_classes(tmp_path: Path) -> None:
    assert folder_source(put(tmp_path / "a", "train/1.png", "test/1.png")).class_names == ("test", "train")
    assert folder_source(put(tmp_path / "b", "train/x/1.png", "boat/x/1.png")).class_names == ("boat", "train")
    assert folder_source(put(tmp_path / "c", "val/x/1.png", "test/x/1.png")).class_names == ("test", "val")
    assert folder_source(put(tmp_path / "d", "train/x/1.png")).class_names == ("x",)


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    put(tmp_path / "data", "cat/a.png")
    put(tmp_path / "elsewhere", "b.png", "sub/c.png")
    try:
        (tmp_path / "data/dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        (tmp_path / "elsewhere/back").symlink_to(tmp_path / "data", target_is_directory=True)
        (tmp_path / "elsewhere/self").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    except OSError:
        pytest.skip("no links here")
    source = folder_source(tmp_path / "data")
    assert [path for path in source.paths if path.startswith("cat/")] == ["cat/a.png"]
    assert source.paths[1:] == ("dog/b.png", "dog/back/cat/a.png", "dog/sub/c.png")


def test_the_stamp_changes_with_the_files_and_only_then(tmp_path: Path) -> None:
    put(tmp_path, "cat/a.png", "dog/b.png")
    stamps = [find_source(tmp_path).stamp, find_source(str(tmp_path)).stamp]
    assert stamps[0] == stamps[1]
    os.utime(tmp_path / "cat/a.png", ns=(1, 1))
    stamps.append(find_source(tmp_path).stamp)
    (tmp_path / "cat/a.png").rename(tmp_path / "cat/c.png")
    stamps.append(find_source(tmp_path).stamp)
    (tmp_path / "cat").rename(tmp_path / "cow")
    stamps.append(find_source(tmp_path).stamp)
    assert len(set(stamps)) == 4


def test_nothing_usable_says_what_was_looked_for_and_found(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "path-not-found")
    (tmp_path / "empty").mkdir()
    text = refused(tmp_path / "empty", "no-images", "PNG, JPEG, WebP, BMP, GIF", "train-images-idx3-ubyte", ".npz")
    assert text.endswith("found nothing")
    (tmp_path / "texts").mkdir()
    for name in ("a.txt", "b.txt", "c.tif", "x.npz"):
        (tmp_path / "texts" / name).write_text("x")
    refused(tmp_path / "texts", "no-images", "2 .txt, 1 .tif, 1 .npz (")
    refused(put(tmp_path, "x.png") / "x.png", "no-images", "folder")


def test_a_forbidden_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "cat/a.png")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "cat":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refused(tmp_path, "file-unreadable", tmp_path / "cat", "Permission denied")


def test_the_embedded_set() -> None:
    source = find_source(None)
    assert isinstance(source, ArraySource)
    arrays = source.read()
    assert source.name == "fashion-mnist"
    assert arrays.shape == (28, 28, 1)
    assert arrays.class_names == (
        "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
    )  # fmt: skip
    assert np.bincount(arrays.labels).sum() == 10_000
    licence = source.root.with_name("FASHION-MNIST-LICENSE").read_text(encoding="utf-8")
    assert "Zalando SE" in licence
    assert "Permission is hereby granted, free of charge" in licence
