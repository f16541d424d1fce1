"""Array files: how IDX files and .npz archives are understood, what is refused, and how much memory that takes."""

from __future__ import annotations

import gzip
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ptarmigan.data.arrays import HELD_OUT, SELECT, UNDECIDED, Arrays
from ptarmigan.data.index import ArraySource, find_source
from support import at_most, raises

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def read(path: Path) -> Arrays:
    source = find_source(path)
    assert isinstance(source, ArraySource)
    return source.read()


def pixels(arrays: Arrays) -> np.ndarray:
    return np.concatenate(list(arrays.chunks()))


def refused(path: Path, code: str, *facts: object) -> str:
    """Expect one line with this code about this path; returns it."""
    with raises(code, path.name, *facts) as caught:
        pixels(read(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def put_idx(
    folder: Path, part: str = "train", images: np.ndarray = IMAGES, labels: np.ndarray = LABELS, **more: object
) -> Path:
    folder.mkdir(exist_ok=True)
    packed = more.get("packed", True)
    for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
        (folder / (name + ".gz" * bool(packed))).write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return folder


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
    (folder / "classes.txt").write_text("cat\ndog\nowl\ncow")
    assert read(folder).class_names == ("cat", "dog", "owl")
    assert "cow" in read(folder).understood
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
    labels.unlink()
    refused(folder, "data-incomplete", images, "train-labels-idx1-ubyte.gz")
    images.rename(folder / "t10k-images-idx3-ubyte.gz")
    labels.with_name("t10k-labels-idx1-ubyte.gz").write_bytes(numbers)
    refused(folder, "data-incomplete", "t10k-images-idx3-ubyte.gz")


def test_emnist(tmp_path: Path) -> None:
    """Labels from 1, names in a file of their own, and images that the files hold transposed."""
    folder = put_idx(tmp_path / "set", "emnist-letters-train", labels=LABELS + 1, packed=False)
    put_idx(folder, "emnist-letters-test", IMAGES[:2], LABELS[:2] + 1, packed=False)
    arrays = read(folder)
    assert arrays.class_names == ("1", "2", "3")
    assert arrays.labels.tolist() == [*LABELS, 0, 1]
    assert (pixels(arrays)[:6, ..., 0] == IMAGES.swapaxes(1, 2)).all()
    assert all(fact in arrays.understood for fact in ("transposed", "1, 2, 3", "emnist-letters-train-images"))
    stamp = find_source(folder).stamp
    (folder / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n3 67 99\n4 68 100\n")
    assert read(folder).class_names == ("A", "B", "C")
    assert find_source(folder).stamp != stamp
    (folder / "emnist-letters-mapping.txt").write_text("1 A\n")
    refused(folder, "file-unreadable", "emnist-letters-mapping.txt")


def test_an_idx_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    folder = put_idx(tmp_path / "set", packed=False)
    images = folder / "train-images-idx3-ubyte"
    images.write_bytes(struct.pack(">HBB3I", 0, 8, 3, 10_000, 28, 28) + bytes(784))
    refused(folder, "file-unreadable", images, "7,840,000 bytes")


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


READ = [  # labels -> numbers, names, what is said of them
    (LABELS + 1, [0, 1, 2], "1 2 3", "1, 2, 3"),
    (np.array([-1, 0, 7])[LABELS], [0, 1, 2], "-1 0 7", "-1, 0, 7"),
    (np.array([2**63 + 5, 0, 7], np.uint64)[LABELS], [2, 0, 1], f"0 7 {2**63 + 5}", "0, 7"),
    (LABELS.astype(np.float32), [0, 1, 2], "0 1 2", "float32"),
    (LABELS[:, None], [0, 1, 2], "0 1 2", ""),
    (LABELS == 1, [0, 1, 0], "False True", "true"),
    (np.eye(3, dtype=np.uint8)[LABELS], [0, 1, 2], "0 1 2", "one-hot"),
    (np.eye(3)[LABELS] == 1, [0, 1, 2], "0 1 2", "one-hot"),
    (np.eye(5)[LABELS + 1], [0, 1, 2], "1 2 3", "one-hot"),
    (np.array(["b 10", "b 9", "a"])[LABELS], [2, 1, 0], "a|b 9|b 10", "words"),
    (np.array(["b\xfc".encode(), b"\xfc", b"a"])[LABELS], [1, 2, 0], "a b\xfc \xfc", "words"),
    (np.array(["10", "9", "-"])[LABELS][:, None], [1, 0, 2], "9 10 -", "words"),
]


@pytest.mark.parametrize(("labels", "numbers", "names", "said"), READ)
def test_labels_that_are_certain(tmp_path: Path, labels: np.ndarray, numbers: list[int], names: str, said: str) -> None:
    arrays = read(npz(tmp_path, arr_0=IMAGES, arr_1=labels))
    assert arrays.labels.dtype == np.int64
    assert arrays.labels.tolist() == [numbers[label] for label in LABELS]
    assert arrays.class_names == tuple(names.split("|" if "|" in names else " "))
    counts = f"6 images in {len(arrays.class_names)} classes"
    assert arrays.understood.startswith(counts)
    assert (said in arrays.understood) if said else arrays.understood == counts


CONTRAST = IMAGES.copy()
CONTRAST[:, 0, :2] = (0, 255)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (CONTRAST.astype(np.int64), "0 (black) to 255 (white)"),
        (CONTRAST.astype(np.float32), "0 (black) to 255 (white)"),
        (CONTRAST / 255, "0 (black) to 1 "),
        ((CONTRAST / 255).astype(np.float16), "0 (black) to 1 "),
        ((CONTRAST / 127.5 - 1).astype(np.float32), "-1 (black) to 1"),
        (np.stack([CONTRAST] * 3, 1), "channels first"),
        (CONTRAST[:, None], "channels first"),
        ((np.stack([CONTRAST] * 4, 1) / 255).astype(">f4"), "channels first; values 0 (black) to 1 "),
        (np.asfortranarray(CONTRAST), ""),
        (np.asfortranarray(np.stack([CONTRAST] * 3, 3)), ""),
    ],
)
def test_images_that_are_certain(
    tmp_path: Path, images: np.ndarray, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptarmigan.data.arrays.CHUNK_BYTES", 4 * images[0].nbytes)
    arrays = read(npz(tmp_path, arr_0=images, arr_1=LABELS))
    found = pixels(arrays)
    assert found.dtype == np.uint8
    assert found.shape[1:] == arrays.shape
    assert (found == CONTRAST[..., None]).all()
    assert arrays.understood.startswith("6 images in 3 classes")
    assert (said in arrays.understood) if said else arrays.understood == "6 images in 3 classes"


PARTED = (IMAGES, LABELS, IMAGES[:3] + 1, LABELS[:3])


@pytest.mark.parametrize(
    "keys",
    [
        "x_train y_train x_test y_test", "X_train Y_train X_val Y_val", "train_x train_y test_x test_y",
        "training_data training_targets eval_data eval_targets", "images_train labels_train images_dev labels_dev",
        "x y x_test y_test",
    ],
)  # fmt: skip
def test_the_keys_of_parts(tmp_path: Path, keys: str) -> None:
    arrays = read(npz(tmp_path, **dict(zip(keys.split(), PARTED, strict=True))))
    assert (pixels(arrays)[..., 0] == np.concatenate(PARTED[::2])).all()
    assert arrays.labels.tolist() == [*LABELS, *LABELS[:3]]
    part = SELECT if "val" in keys.lower().split("_")[-1] or "dev" in keys else HELD_OUT
    assert arrays.source_part.tolist() == [UNDECIDED] * 6 + [part] * 3
    assert all(key in arrays.understood for key in keys.split())
    assert ("held out" in arrays.understood) == (part == HELD_OUT)


@pytest.mark.parametrize("keys", ["images labels", "image label", "X y", "data targets", "arr_0 y"])
def test_the_keys_of_a_whole_set(tmp_path: Path, keys: str) -> None:
    arrays = read(npz(tmp_path, **dict(zip(keys.split(), PARTED, strict=False)), ids=np.arange(6)))
    assert arrays.labels.tolist() == LABELS.tolist()
    assert (arrays.source_part == UNDECIDED).all()
    assert "ids" in arrays.notices[0]


def test_a_single_array_of_any_name_is_the_images(tmp_path: Path) -> None:
    arrays = read(npz(tmp_path, faces=IMAGES))
    assert (pixels(arrays)[..., 0] == IMAGES).all()
    assert arrays.class_names == ("x",)
    assert "faces" in arrays.understood


NAMES = np.array(["a", "b", "c"])


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (LABELS + 1, NAMES, "abc"), (LABELS * 2, NAMES, "abc"), (LABELS * 2, np.array([*"abcdef"]), "ace"),
        (LABELS + 1, NAMES[:2], "2 names"), (LABELS + 1, np.array([*"abcd"]), "4 names"),
        (NAMES[LABELS], NAMES[::-1], "abc"), (NAMES[LABELS], NAMES[:2], "class_names"),
    ],
)  # fmt: skip
def test_names_belong_to_labels(tmp_path: Path, labels: np.ndarray, names: np.ndarray, expected: str) -> None:
    path = npz(tmp_path, arr_0=IMAGES, arr_1=labels, class_names=names)
    if expected.islower() and "_" not in expected and len(expected) == 3:
        assert read(path).class_names == tuple(expected)
    else:
        refused(path, "labels-invalid", expected)


@pytest.mark.parametrize(
    ("arrays", "code", "facts"),
    [
        ({"a": IMAGES, "b": LABELS}, "data-incomplete", ["holds a, b;", "arr_0"]),
        ({"x": IMAGES, "images": IMAGES, "y": LABELS}, "data-incomplete", ["images and x"]),
        ({"x_train": IMAGES, "train_images": IMAGES}, "data-incomplete", ["train_images and x_train"]),
        ({"x_test": IMAGES, "y_test": LABELS}, "data-incomplete", ["holds x_test, y_test"]),
        ({"x": IMAGES, "x_train": IMAGES, "y": LABELS, "y_train": LABELS}, "data-incomplete", ["holds x"]),
        ({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES}, "data-incomplete", ["x_test has no labels"]),
        ({"x": IMAGES, "y": LABELS, "y_test": LABELS}, "data-incomplete", ["y_test has no images"]),
        ({"arr_0": IMAGES.reshape(6, 784), "arr_1": LABELS}, "data-invalid", ["[arr_0]", "[6, 784]", "reshape"]),
        ({"arr_0": IMAGES[:, :, :, None].repeat(2, 3), "arr_1": LABELS}, "data-invalid", ["28, 2]", "1, 3 or 4"]),
        ({"arr_0": np.zeros((6, 3, 28, 3), np.uint8), "arr_1": LABELS}, "data-invalid", ["[6, 3, 28, 3]"]),
        ({"arr_0": np.zeros((28, 28, 3), np.uint8)}, "data-invalid", ["[28, 28, 3]", "one image"]),
        ({"arr_0": np.zeros((6, 4, 9), np.uint8)}, "data-invalid", ["4x9", "8 to 8,192"]),
        ({"arr_0": IMAGES[:0], "arr_1": LABELS[:0]}, "data-invalid", ["[arr_0]", "[0, 28, 28]"]),
        ({"arr_0": np.uint8(3), "arr_1": LABELS}, "data-invalid", ["[arr_0]", "shape []"]),
        ({"arr_0": IMAGES > 9, "arr_1": LABELS}, "data-invalid", ["[arr_0]", "bool", "uint8"]),
        ({"arr_0": IMAGES % 2, "arr_1": LABELS}, "data-invalid", ["[arr_0]", "0 to 1", "255"]),
        ({"arr_0": IMAGES.astype(np.uint16) * 200, "arr_1": LABELS}, "data-invalid", ["uint16", "uint8"]),
        ({"arr_0": IMAGES / 255 - 0.5, "arr_1": LABELS}, "data-invalid", ["float64", "-0.5 to 0.5", "uint8"]),
        ({"arr_0": IMAGES / 100, "arr_1": LABELS}, "data-invalid", ["float64", "0 to 2.55"]),
        ({"arr_0": IMAGES / 255 / 2, "arr_1": LABELS}, "data-invalid", ["float64", "0 to 0.5"]),
        ({"arr_0": np.where(IMAGES == 0, np.nan, IMAGES), "arr_1": LABELS}, "data-invalid", ["[arr_0]", "NaN"]),
        ({"arr_0": IMAGES, "arr_1": LABELS[:5]}, "data-invalid", ["[arr_1]", "5 labels", "6 images"]),
        ({"arr_0": IMAGES, "arr_1": np.int64(1)}, "data-invalid", ["[arr_1]", "0 labels", "6 images"]),
        ({"arr_0": IMAGES, "arr_1": LABELS + 0.5}, "labels-invalid", ["[arr_1]", "float64", "whole"]),
        ({"arr_0": IMAGES, "arr_1": np.full(6, np.nan)}, "labels-invalid", ["[arr_1]", "float64", "whole"]),
        ({"arr_0": IMAGES, "arr_1": np.eye(6)[:, :3]}, "data-invalid", ["[arr_1]", "[6, 3]", "single 1"]),
        ({"arr_0": IMAGES, "arr_1": np.ones((6, 3), int)}, "data-invalid", ["[arr_1]", "[6, 3]", "single 1"]),
        ({"arr_0": IMAGES, "arr_1": np.ones((6, 2, 2))}, "data-invalid", ["[arr_1]", "[6, 2, 2]"]),
        ({"arr_0": IMAGES, "arr_1": np.array(["a", "", "b"])[LABELS]}, "labels-invalid", ["[arr_1]", "empty"]),
        ({"arr_0": IMAGES, "arr_1": LABELS * 1j}, "data-invalid", ["[arr_1]", "complex128"]),
        ({"arr_0": IMAGES, "arr_1": LABELS, "class_names": np.array(["a"])}, "labels-invalid", ["1 names", "3 "]),
        ({"arr_0": IMAGES, "arr_1": LABELS, "class_names": np.array([*"aba"])}, "labels-invalid", ["'a' twice"]),
        ({"arr_0": IMAGES, "arr_1": LABELS, "class_names": np.array([1, 2, 3])}, "data-invalid", ["[class_names]"]),
        ({"arr_0": IMAGES, "arr_1": LABELS.astype(object)}, "data-invalid", ["[arr_1]", "pickle", "dtype=str"]),
        ({"arr_0": IMAGES.astype(object), "arr_1": LABELS}, "data-invalid", ["[arr_0]", "pickle"]),
        ({"train_images": IMAGES}, "data-incomplete", ["train_images has no labels"]),
        (
            {"train_images": IMAGES, "train_labels": LABELS, "val_images": IMAGES[:, :20], "val_labels": LABELS},
            "data-invalid", ["[val_images]", "[20, 28]", "[28, 28]"],
        ),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES / 255, "y_test": LABELS},
            "data-invalid", ["[x_test]", "float64", "uint8"],
        ),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": NAMES[LABELS]},
            "labels-invalid", ["[y_train]", "words"],
        ),
    ],
)  # fmt: skip
def test_npz_that_is_not_as_it_should_be(
    tmp_path: Path, arrays: dict[str, object], code: str, facts: list[str]
) -> None:
    refused(npz(tmp_path, **arrays), code, *facts)


def test_many_small_images_come_in_small_chunks_and_the_range_of_values_is_reported(tmp_path: Path) -> None:
    images = np.tile(np.linspace(0, 1, 64).reshape(1, 8, 8), (3000, 1, 1))
    calls: list[tuple[object, ...]] = []
    source = find_source(npz(tmp_path, arr_0=images, arr_1=np.arange(3000) % 2))
    assert isinstance(source, ArraySource)
    chunks = list(source.read(lambda *call: calls.append(call)).chunks())
    assert [len(chunk) for chunk in chunks] == [1024, 1024, 952]
    assert calls == [("reading the range of values", 3000, 3000)]


def test_a_label_for_each_image_is_no_class(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (100, 8, 8), np.uint8)
    refused(npz(tmp_path, arr_0=images, arr_1=np.arange(100)), "labels-invalid", "100 different labels for 100 images")


def npy(shape: tuple[int, ...], kind: str = "|u1") -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


def bomb(path: Path, shape: tuple[int, ...]) -> Path:
    """Grey images, a thousand times smaller in the file than in memory."""
    left = int(np.prod(shape))
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("arr_0.npy", "w", force_zip64=True) as file,
    ):
        file.write(npy(shape))
        while left:
            count = min(left, 4 << 20)
            file.write(bytes([200]) * count)
            left -= count
    return path


@pytest.mark.parametrize("shape", [(2, 9000, 9000), (1, 5000, 5000, 3), (2, 9, 5_000_000), (2_000_000, 7, 7)])
def test_images_too_large_or_too_small_are_refused_unread(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = bomb(tmp_path / "x.npz", shape)
    with at_most(8):
        refused(path, "data-invalid", f"{shape[1]}x{shape[2]}")


def test_large_images_are_read_one_at_a_time(tmp_path: Path) -> None:
    path = bomb(tmp_path / "x.npz", (6, 4096, 4096))  # 16 MB each
    with at_most(70):
        arrays = read(path)
        assert sum(len(chunk) for chunk in arrays.chunks()) == 6
    assert arrays.shape == (4096, 4096, 1)


def test_words_that_are_no_characters(tmp_path: Path) -> None:
    for number in (0x110000, 2**32 - 1):
        words = np.full(6, number, np.uint32).view("U1")
        refused(npz(tmp_path, arr_0=IMAGES, arr_1=words), "file-unreadable", "[arr_1]")
        refused(npz(tmp_path, arr_0=IMAGES, arr_1=LABELS, class_names=words[:3]), "file-unreadable", "[class_names]")


def test_what_a_library_says_of_a_damaged_file_is_cut(tmp_path: Path) -> None:
    path = npz(tmp_path, arr_0=IMAGES, arr_1=LABELS)
    whole = bytearray(path.read_bytes())
    whole[26:28] = b"\xff\x7f"  # the length of a name
    path.write_bytes(whole)
    assert len(refused(path, "file-unreadable")) < 500


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


# --- .npy files ----------------------------------------------------------------------------------------------


def npy_files(folder: Path, **arrays: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_files_side_by_side(tmp_path: Path, order: str) -> None:
    arrays = read(npy_files(tmp_path / "set", images=np.asarray(IMAGES, order=order), labels=LABELS))
    assert np.array_equal(pixels(arrays)[..., 0], IMAGES)
    assert arrays.labels.tolist() == LABELS.tolist()
    assert "images with labels" in arrays.understood


def test_npy_files_in_parts_with_names(tmp_path: Path) -> None:
    folder = npy_files(tmp_path / "set", x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:3], y_test=LABELS[:3])
    (folder / "classes.txt").write_text("ant\nbee\ncat\n")
    arrays = read(tmp_path)  # in the only folder below
    assert arrays.class_names == ("ant", "bee", "cat")
    assert arrays.source_part.tolist() == [UNDECIDED] * 6 + [HELD_OUT] * 3
    np.save(folder / "class_names.npy", np.array(["x", "y", "z"]))
    assert read(folder).class_names == ("x", "y", "z")


def test_npy_files_that_are_not_certain(tmp_path: Path) -> None:
    refused(npy_files(tmp_path / "a", left=IMAGES, right=IMAGES), "data-incomplete", "left, right")
    folder = npy_files(tmp_path / "b", images=IMAGES, labels=LABELS)
    np.save(folder / "labels.npy", np.array([{}] * 6, object), allow_pickle=True)
    refused(folder, "data-invalid", "labels.npy", "pickle")
    (folder / "labels.npy").write_bytes((folder / "images.npy").read_bytes()[:-1])
    refused(folder, "file-damaged", "labels.npy")


# --- CIFAR's binary version ----------------------------------------------------------------------------------

COLOURED = np.random.default_rng(1).integers(0, 256, (6, 3, 32, 32), np.uint8)


def records(*labels: np.ndarray) -> bytes:
    columns = [one.astype(np.uint8)[:, None] for one in labels]
    return np.concatenate([*columns, COLOURED[: len(labels[0])].reshape(len(labels[0]), -1)], 1).tobytes()


def test_cifar_10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptarmigan.data.arrays.CHUNK_BYTES", 4 * 3073)
    folder = tmp_path / "cifar" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, labels in (("data_batch_1", LABELS), ("data_batch_2", LABELS[::-1]), ("test_batch", LABELS[:2])):
        (folder / f"{name}.bin").write_bytes(records(labels))
    (folder / "batches.meta.txt").write_text("airplane\nautomobile\nbird\n\n")
    arrays = read(tmp_path / "cifar")
    assert arrays.class_names == ("airplane", "automobile", "bird")
    assert arrays.labels.tolist() == [*LABELS, *LABELS[::-1], *LABELS[:2]]
    assert arrays.source_part.tolist() == [UNDECIDED] * 12 + [HELD_OUT] * 2
    assert np.array_equal(pixels(arrays)[:6], COLOURED.transpose(0, 2, 3, 1))
    assert "test_batch.bin (held out)" in arrays.understood
    (folder / "test_batch.bin").write_bytes(records(LABELS)[:-1])
    refused(folder, "file-damaged", "test_batch.bin", "3,073")
    for name in ("data_batch_1", "data_batch_2"):
        (folder / f"{name}.bin").unlink()
    refused(folder, "data-incomplete", "test_batch.bin")


def test_cifar_100_has_two_labels(tmp_path: Path) -> None:
    (tmp_path / "train.bin").write_bytes(records(LABELS % 2, LABELS))
    (tmp_path / "test.bin").write_bytes(records(LABELS[:3] % 2, LABELS[:3]))
    (tmp_path / "fine_label_names.txt").write_text("apple\nbeaver\ncamel")
    (tmp_path / "coarse_label_names.txt").write_text("a\nb")
    arrays = read(tmp_path)
    assert arrays.class_names == ("apple", "beaver", "camel")
    assert arrays.labels.tolist() == [*LABELS, *LABELS[:3]]
    assert np.array_equal(pixels(arrays)[6:], COLOURED[:3].transpose(0, 2, 3, 1))
    assert "fine" in arrays.notices[0]


@pytest.mark.parametrize("names", [["data_batch_1", "data_batch_2", "batches.meta"], ["train", "test", "meta"]])
def test_cifars_pickles_are_never_opened(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"\x80\x03cos\nsystem\n.")
    refused(tmp_path, "no-images", "pickles", "binary version", "data_batch_1.bin")
