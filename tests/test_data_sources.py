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
    assert all(fact in source.understood for fact in ("2 images", "one class", "'my boots!'"))
    assert source.notices == ()


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    put(tmp_path, "cat/a.png", "dog/b.png", "loose.png", ".hidden/x.png", "cat/.y.png", "__MACOSX/cat/a.png")
    (tmp_path / "cat/notes.txt").write_text("x")
    (tmp_path / "cat/README").write_text("x")
    (tmp_path / "empty").mkdir()
    source = folder_source(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert len(source.paths) == 2
    loose, empty = source.notices  # and nothing of texts, which are no images
    assert "1 image " in loose
    assert loose.endswith("(loose.png)")
    assert "1 folder " in empty
    assert empty.endswith("(empty)")


def test_a_folder_may_name_its_own_parts(tmp_path: Path) -> None:
    put(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/cat/2.png", "test/dog/3.png")
    source = folder_source(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert source.paths == ("train/cat/1.png", "val/cat/2.png", "train/dog/1.png", "test/dog/3.png")
    assert source.labels.tolist() == [0, 0, 1, 1]
    assert source.source_part.tolist() == [UNDECIDED, SELECT, UNDECIDED, HELD_OUT]
    assert "train/, val/ and test/: 4 images in 2 classes" in source.understood
    assert source.notices == ()


def test_nothing_usable_says_what_was_looked_for_and_found(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "path-not-found")
    (tmp_path / "empty").mkdir()
    text = refused(tmp_path / "empty", "no-images", "PNG, JPEG, WebP, BMP, GIF", "train-images-idx3-ubyte", ".npz")
    assert text.endswith("found nothing")
    (tmp_path / "texts").mkdir()
    for name in ("a.txt", "b.txt", "c.heic", "x.npz"):
        (tmp_path / "texts" / name).write_text("x")
    refused(tmp_path / "texts", "no-images", "2 .txt, 1 .heic, 1 .npz (")
    refused(put(tmp_path, "x.png") / "x.png", "no-images", "folder")


def test_a_forbidden_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "cat/a.png")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "cat":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refused(tmp_path, "file-unreadable", "(cat: Permission denied)")
    put(tmp_path, "dog/b.png")
    source = folder_source(tmp_path)
    assert source.class_names == ("dog",)
    assert "(cat: Permission denied)" in source.notices[0]


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
