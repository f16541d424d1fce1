"""What lies at a path: each kind of source, and the sentence a user reads where it is not as it should be."""

from __future__ import annotations

import gzip
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ptarmigan.data.arrays import HELD_OUT, SELECT, UNDECIDED
from ptarmigan.data.index import ArraySource, FolderSource, find_source
from support import raises

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def put(folder: Path, *names: str) -> Path:
    """Tiny images of one colour each."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (28, 28), (i, 2 * i, 99)).save(folder / name)
    return folder


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def put_idx(
    folder: Path, part: str = "train", images: np.ndarray = IMAGES, labels: np.ndarray = LABELS, **more: object
):
    folder.mkdir(exist_ok=True)
    packed = more.get("packed", True)
    for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
        (folder / (name + ".gz" * bool(packed))).write_bytes(gzip.compress(idx(array)) if packed else idx(array))
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
    loose, empty, kinds = source.notices
    assert "1 image " in loose
    assert loose.endswith("(loose.png)")
    assert "1 folder " in empty
    assert empty.endswith("(empty)")
    assert kinds.endswith("(1 without an ending, 1 .txt)")


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


# --- IDX ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
def test_idx(tmp_path: Path, packed: bool) -> None:
    folder = put_idx(tmp_path / "set", packed=packed)
    put_idx(folder, "t10k", IMAGES[:3] + 1, LABELS[:3], packed=packed)
    source = find_source(folder)
    assert isinstance(source, ArraySource)
    arrays = source.read()
    assert (np.concatenate(list(arrays.chunks()))[..., 0] == np.concatenate([IMAGES, IMAGES[:3] + 1])).all()
    assert arrays.labels.tolist() == [*LABELS, *LABELS[:3]]
    assert arrays.source_part.tolist() == [UNDECIDED] * 6 + [HELD_OUT] * 3
    assert arrays.class_names == ("0", "1", "2")
    assert source.name == "set"


def test_idx_names_from_a_file_beside(tmp_path: Path) -> None:
    folder = put_idx(tmp_path / "set")
    (folder / "classes.txt").write_text("köt\n  dog \nant\n\n", encoding="utf-8")
    source = find_source(folder)
    assert isinstance(source, ArraySource)
    assert source.read().class_names == ("köt", "dog", "ant")
    (folder / "classes.txt").write_text("longer\nnames\nnow\n")
    assert find_source(folder).stamp != source.stamp
    (folder / "classes.txt").write_text("cat\ndog\n")
    refused(folder, "labels-invalid", folder / "classes.txt", "2 names", "3 classes (0 to 2)")
    (folder / "classes.txt").write_text("cat\ndog\ncat\n")
    refused(folder, "labels-invalid", folder / "classes.txt", "'cat'")


def test_idx_in_chunks_is_idx_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptarmigan.data.arrays.CHUNK_BYTES", 4 * 784)
    source = find_source(put_idx(tmp_path / "set"))
    assert isinstance(source, ArraySource)
    chunks = list(source.read().chunks())
    assert [len(chunk) for chunk in chunks] == [4, 2]
    assert (np.concatenate(chunks)[..., 0] == IMAGES).all()


def test_idx_that_is_not_as_it_should_be(tmp_path: Path) -> None:
    folder = put_idx(tmp_path / "set")
    images, labels = folder / "train-images-idx3-ubyte.gz", folder / "train-labels-idx1-ubyte.gz"
    whole, numbers = images.read_bytes(), labels.read_bytes()
    images.write_bytes(whole[: len(whole) // 2])
    refused(folder, "file-unreadable", images, "Compressed file ended")
    images.write_bytes(b"not gzip")
    refused(folder, "file-unreadable", images, "Not a gzipped file")
    images.write_bytes(gzip.compress(b"\0\0\x0d\x03" + bytes(100)))
    refused(folder, "file-unreadable", images, "00 00 08")
    images.write_bytes(b"")
    refused(folder, "file-unreadable", images)
    images.write_bytes(gzip.compress(idx(IMAGES)[:-800]))
    refused(folder, "file-unreadable", images, "4 of 6")
    images.write_bytes(whole)
    labels.write_bytes(gzip.compress(idx(LABELS[:5])))
    refused(folder, "data-invalid", labels, "5 labels", "6 images")
    labels.write_bytes(gzip.compress(idx(LABELS + 1)))
    refused(folder, "labels-invalid", labels, "1, 2, 3:")
    labels.unlink()
    refused(folder, "data-incomplete", images, "train-labels-idx1-ubyte.gz")
    images.rename(folder / "t10k-images-idx3-ubyte.gz")
    labels.with_name("t10k-labels-idx1-ubyte.gz").write_bytes(numbers)
    refused(folder, "data-incomplete", "t10k-images-idx3-ubyte.gz")


def test_two_idx_sets_in_one_folder(tmp_path: Path) -> None:
    put_idx(tmp_path / "set", "emnist-letters-train")
    refused(put_idx(tmp_path / "set"), "data-invalid", "(, emnist-letters-)")


# --- npz ---------------------------------------------------------------------------------------------------


def npz(folder: Path, **arrays: object) -> Path:
    np.savez_compressed(folder / "x.npz", **arrays)  # type: ignore[arg-type]
    return folder / "x.npz"


@pytest.mark.parametrize("trailing", [(), (1,), (3,), (4,)])
@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.dtype(">i4")])
def test_npz(tmp_path: Path, trailing: tuple[int, ...], kind: type) -> None:
    images = np.random.default_rng(1).integers(0, 256, (6, 20, 28, *trailing), np.uint8)
    source = find_source(npz(tmp_path, arr_0=images, arr_1=LABELS.astype(kind), class_names=np.array(["a", "bb", "ö"])))
    assert isinstance(source, ArraySource)
    arrays = source.read()
    assert (np.concatenate(list(arrays.chunks())).reshape(images.shape) == images).all()
    assert arrays.shape == (20, 28, trailing[0] if trailing else 1)
    assert arrays.labels.dtype == np.int64
    assert arrays.labels.tolist() == LABELS.tolist()
    assert arrays.class_names == ("a", "bb", "ö")
    assert all(type(name) is str for name in arrays.class_names)


def test_npz_without_labels_is_one_class_said_aloud(tmp_path: Path) -> None:
    source = find_source(npz(tmp_path, arr_0=IMAGES))
    assert isinstance(source, ArraySource)
    assert source.read().class_names == ("x",)
    assert "arr_1" in source.read().notices[0]


def test_medmnist(tmp_path: Path) -> None:
    parts = {f"{part}_images": IMAGES + i for i, part in enumerate(("train", "val", "test"))}
    labels = {f"{part}_labels": LABELS[:, None].astype(np.uint8) for part in ("train", "val", "test")}
    source = find_source(npz(tmp_path, **parts, **labels))
    assert isinstance(source, ArraySource)
    arrays = source.read()
    assert (np.concatenate(list(arrays.chunks()))[..., 0] == np.concatenate([IMAGES, IMAGES + 1, IMAGES + 2])).all()
    assert arrays.source_part.tolist() == [UNDECIDED] * 6 + [SELECT] * 6 + [HELD_OUT] * 6
    assert arrays.labels.tolist() == [*LABELS] * 3
    assert arrays.class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("arrays", "code", "facts"),
    [
        ({"x": IMAGES}, "data-incomplete", ["holds x:", "arr_0 uint8 [N,H,W,C]"]),
        ({"arr_0": IMAGES / 255.0, "arr_1": LABELS}, "data-invalid", ["[arr_0]", "float64", "uint8"]),
        ({"arr_0": IMAGES.reshape(6, 784), "arr_1": LABELS}, "data-invalid", ["[arr_0]", "[6, 784]", "[N,H,W]"]),
        ({"arr_0": IMAGES[:, :, :, None].repeat(2, 3), "arr_1": LABELS}, "data-invalid", ["28, 2]", "1, 3 or 4"]),
        ({"arr_0": IMAGES[:0], "arr_1": LABELS[:0]}, "data-invalid", ["[arr_0]", "[0, 28, 28]"]),
        ({"arr_0": np.uint8(3), "arr_1": LABELS}, "data-invalid", ["[arr_0]", "shape []"]),
        ({"arr_0": IMAGES, "arr_1": LABELS[:5]}, "data-invalid", ["[arr_1]", "5 labels", "6 images"]),
        ({"arr_0": IMAGES, "arr_1": LABELS.astype(float)}, "data-invalid", ["[arr_1]", "float64", "integer"]),
        ({"arr_0": IMAGES, "arr_1": LABELS == 1}, "data-invalid", ["[arr_1]", "bool", "integer"]),
        ({"arr_0": IMAGES, "arr_1": np.eye(6)[:, :3]}, "data-invalid", ["[arr_1]", "[6, 3]"]),
        ({"arr_0": IMAGES, "arr_1": LABELS - 1}, "labels-invalid", ["[arr_1]", "-1, 0, 1:"]),
        ({"arr_0": IMAGES, "arr_1": LABELS * 2}, "labels-invalid", ["[arr_1]", "0, 2, 4:"]),
        ({"arr_0": IMAGES, "arr_1": LABELS, "class_names": np.array(["a"])}, "labels-invalid", ["1 names", "3 "]),
        ({"arr_0": IMAGES, "arr_1": LABELS, "class_names": np.array([1, 2, 3])}, "data-invalid", ["[class_names]"]),
        ({"arr_0": IMAGES, "arr_1": LABELS.astype(object)}, "data-invalid", ["[arr_1]", "pickle"]),
        ({"arr_0": IMAGES.astype(object), "arr_1": LABELS}, "data-invalid", ["[arr_0]", "pickle"]),
        ({"arr_0": np.asfortranarray(IMAGES), "arr_1": LABELS}, "data-invalid", ["numpy.ascontiguousarray"]),
        ({"train_images": IMAGES}, "data-incomplete", ["train_images", "train_labels"]),
        (
            {"train_images": IMAGES, "train_labels": LABELS, "val_images": IMAGES[:, :20], "val_labels": LABELS},
            "data-invalid", ["[val_images]", "(20, 28)", "(28, 28)"],
        ),
    ],
)  # fmt: skip
def test_npz_that_is_not_as_it_should_be(
    tmp_path: Path, arrays: dict[str, object], code: str, facts: list[str]
) -> None:
    refused(npz(tmp_path, **arrays), code, *facts)


def test_damaged_npz(tmp_path: Path) -> None:
    path = npz(tmp_path, arr_0=IMAGES, arr_1=LABELS)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "file-unreadable", "File is not a zip file")
    path.write_bytes(b"")
    refused(path, "file-unreadable")
    middle = whole[:1000] + bytes(100) + whole[1100:]
    path.write_bytes(middle)
    refused(path, "file-unreadable", "[arr_0]")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", b"no numpy header")
    refused(path, "file-unreadable", "[arr_0]")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", b"\x93NUMPY\x01\x00\x10\x00" + b"{'descr': (\n    \n")
    refused(path, "file-unreadable", "[arr_0]")
    path.unlink()
    path.mkdir()
    refused(path, "no-images")


def test_a_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '|u1', 'fortran_order': False, 'shape': (999999999, 999, 999), }".ljust(117)
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", header + b"\n" + bytes(100))
    refused(path, "file-damaged", "[arr_0]", "100 bytes", "uint8 [999999999, 999, 999]")
