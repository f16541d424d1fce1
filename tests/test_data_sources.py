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

from ptarmigan.core.types import UserError
from ptarmigan.data.arrays import HELD_OUT, SELECT, UNDECIDED
from ptarmigan.data.index import ArraySource, FolderSource, find_source

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


def message(path: Path | str) -> str:
    """What the user reads; one sentence, about this path."""

    def read_source() -> None:
        source = find_source(path)
        assert isinstance(source, ArraySource)
        list(source.read().chunks())

    with pytest.raises(UserError) as caught:
        read_source()
    assert "\n" not in str(caught.value)
    assert Path(path).name in str(caught.value)
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
    assert "has no class folders: all images in it (2) are one class, 'my boots!'" in source.notices[0]


def test_what_is_passed_over_is_said(tmp_path: Path) -> None:
    put(tmp_path, "cat/a.png", "dog/b.png", "loose.png", ".hidden/x.png", "cat/.y.png", "__MACOSX/cat/a.png")
    (tmp_path / "cat/notes.txt").write_text("x")
    (tmp_path / "cat/README").write_text("x")
    (tmp_path / "empty").mkdir()
    source = folder_source(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert len(source.paths) == 2
    assert source.notices == (
        "passed over as no images: 1 without an ending, 1 .txt",
        "passed over, since they lie beside the class folders: loose.png (1 in all)",
        "folders without images are no classes: empty",
    )


def test_a_folder_may_name_its_own_parts(tmp_path: Path) -> None:
    put(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/cat/2.png", "test/dog/3.png")
    source = folder_source(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert source.paths == ("train/cat/1.png", "val/cat/2.png", "train/dog/1.png", "test/dog/3.png")
    assert source.labels.tolist() == [0, 0, 1, 1]
    assert source.source_part.tolist() == [UNDECIDED, SELECT, UNDECIDED, HELD_OUT]
    assert "(test, train, val), with class folders in each: test is held out, val selects" in source.notices[0]


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
    assert "does not exist" in message(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    text = message(tmp_path / "empty")
    assert "looked for class folders or images (PNG, JPEG, WebP, BMP, GIF), IDX files" in text
    assert text.endswith("found nothing")
    (tmp_path / "texts").mkdir()
    for name in ("a.txt", "b.txt", "c.tif", "x.npz"):
        (tmp_path / "texts" / name).write_text("x")
    assert message(tmp_path / "texts").endswith("found 2 .txt, 1 .tif, 1 .npz (give the .npz itself)")
    assert "single file and no .npz: give the folder" in message(put(tmp_path, "x.png") / "x.png")


def test_a_forbidden_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "cat/a.png")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "cat":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert "cat cannot be read: Permission denied" in message(tmp_path)


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
    assert "classes.txt has 2 names, and the labels count 3 classes (0 to 2)" in message(folder / "").replace(
        "set/", ""
    )
    (folder / "classes.txt").write_text("cat\ndog\ncat\n")
    assert "has the name 'cat' twice" in message(folder)


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
    assert "train-images-idx3-ubyte.gz cannot be read: Compressed file ended" in message(folder)
    images.write_bytes(b"not gzip")
    assert "cannot be read: Not a gzipped file" in message(folder)
    images.write_bytes(gzip.compress(b"\0\0\x0d\x03" + bytes(100)))
    assert "does not begin as an IDX file of unsigned bytes does" in message(folder)
    images.write_bytes(b"")
    assert "cannot be read" in message(folder)
    images.write_bytes(gzip.compress(idx(IMAGES)[:-800]))
    assert "ends after 4 of 6 items" in message(folder)
    images.write_bytes(whole)
    labels.write_bytes(gzip.compress(idx(LABELS[:5])))
    assert "has 5 labels for the 6 images" in message(folder)
    labels.write_bytes(gzip.compress(idx(LABELS + 1)))
    assert "has the labels 1, 2, 3: classes are numbered 0, 1, 2, ... without a gap; renumber them" in message(folder)
    labels.unlink()
    assert "has no labels beside it: train-labels-idx1-ubyte (or .gz) is missing" in message(folder)
    images.rename(folder / "t10k-images-idx3-ubyte.gz")
    labels.with_name("t10k-labels-idx1-ubyte.gz").write_bytes(numbers)
    assert "holds a test part alone (t10k-images-idx3-ubyte.gz)" in message(folder)


def test_two_idx_sets_in_one_folder(tmp_path: Path) -> None:
    put_idx(tmp_path / "set", "emnist-letters-train")
    assert "several IDX sets (, emnist-letters-)" in message(put_idx(tmp_path / "set"))


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
    assert "has no labels (arr_1): its images are one class" in source.read().notices[0]


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
    ("arrays", "text"),
    [
        ({"x": IMAGES}, "holds x: an .npz holds arr_0 uint8 [N,H,W,C]"),
        ({"arr_0": IMAGES / 255.0, "arr_1": LABELS}, "[arr_0] is float64: images are uint8, 0 to 255"),
        ({"arr_0": IMAGES.reshape(6, 784), "arr_1": LABELS}, "[arr_0] has the shape [6, 784]: [N,H,W] or"),
        ({"arr_0": IMAGES[:, :, :, None].repeat(2, 3), "arr_1": LABELS}, "with C 1, 3 or 4 is needed"),
        ({"arr_0": IMAGES[:0], "arr_1": LABELS[:0]}, "it holds no image"),
        ({"arr_0": np.uint8(3), "arr_1": LABELS}, "[arr_0] has the shape []"),
        ({"arr_0": IMAGES, "arr_1": LABELS[:5]}, "[arr_1] has 5 labels for the 6 images"),
        ({"arr_0": IMAGES, "arr_1": LABELS.astype(float)}, "[arr_1] is float64: labels are whole numbers"),
        ({"arr_0": IMAGES, "arr_1": LABELS == 1}, "[arr_1] is bool: labels are whole numbers"),
        ({"arr_0": IMAGES, "arr_1": np.eye(6)[:, :3]}, "[arr_1] has the shape [6, 3]: one whole number an image"),
        ({"arr_0": IMAGES, "arr_1": LABELS - 1}, "has the labels -1, 0, 1: classes are numbered 0, 1, 2"),
        ({"arr_0": IMAGES, "arr_1": LABELS * 2}, "has the labels 0, 2, 4: classes are numbered"),
        ({"arr_0": IMAGES, "arr_1": LABELS, "class_names": np.array(["a"])}, "has 1 names, and the labels count 3"),
        ({"arr_0": IMAGES, "arr_1": LABELS, "class_names": np.array([1, 2, 3])}, "a list of strings is needed"),
        ({"arr_0": IMAGES, "arr_1": LABELS.astype(object)}, "[arr_1] is an array of Python objects"),
        ({"arr_0": IMAGES.astype(object), "arr_1": LABELS}, "[arr_0] is an array of Python objects"),
        ({"arr_0": np.asfortranarray(IMAGES), "arr_1": LABELS}, "numpy.ascontiguousarray"),
        ({"train_images": IMAGES}, "has train_images but no train_labels"),
        (
            {"train_images": IMAGES, "train_labels": LABELS, "val_images": IMAGES[:, :20], "val_labels": LABELS},
            "[val_images] has images (20, 28)",
        ),
    ],
)  # fmt: skip
def test_npz_that_is_not_as_it_should_be(tmp_path: Path, arrays: dict[str, object], text: str) -> None:
    assert text in message(npz(tmp_path, **arrays))


def test_damaged_npz(tmp_path: Path) -> None:
    path = npz(tmp_path, arr_0=IMAGES, arr_1=LABELS)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "x.npz cannot be read: File is not a zip file" in message(path)
    path.write_bytes(b"")
    assert "cannot be read" in message(path)
    middle = whole[:1000] + bytes(100) + whole[1100:]
    path.write_bytes(middle)
    assert "[arr_0] cannot be read" in message(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", b"no numpy header")
    assert "[arr_0] cannot be read" in message(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", b"\x93NUMPY\x01\x00\x10\x00" + b"{'descr': (\n    \n")
    assert "[arr_0] cannot be read" in message(path)
    path.unlink()
    path.mkdir()
    assert "found nothing" in message(path)


def test_a_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '|u1', 'fortran_order': False, 'shape': (999999999, 999, 999), }".ljust(117)
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", header + b"\n" + bytes(100))
    assert "is damaged: 100 bytes cannot be uint8" in message(path)
