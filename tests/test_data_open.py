"""open_dataset: a path to a split, named, fingerprinted set, and the sentences a user reads on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from ptarmigan.commands import score_plan
from ptarmigan.config import Data
from ptarmigan.core.types import ImageSpec
from ptarmigan.data import HELD_OUT, SELECT, TRAIN, Dataset, open_dataset, pack, read
from ptarmigan.data.check.summary import summary
from ptarmigan.data.split import MIN_HELD_OUT, MIN_SELECT
from ptarmigan.training import snapshot
from support import raises

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTARMIGAN_CACHE", str(tmp_path / "cache"))


def noise(*shape: int) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, shape or (28, 28), np.uint8))


def put(path: Path, image: Image.Image | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or noise()).save(path, **options)  # type: ignore[arg-type]
    return path


def said(path: Path, data: Data = Data()) -> list[str]:  # noqa: B008
    """What `train` says of the images before it starts."""
    dataset = open_dataset(path, data)
    return [*dataset.notices, *summary(dataset, data.balance)]


def two_classes(folder: Path, count: int = 10) -> Path:
    for i in range(count):
        for name in ("cat", "dog"):
            put(folder / name / f"p{i % 5}_{i:03}.png")
    return folder


def test_the_embedded_set() -> None:
    data = open_dataset(None, Data())
    assert data.name == "fashion-mnist"
    assert data.spec.classes == 10
    assert (data.spec.height, data.spec.width, data.spec.channels) == (28, 28, 1)
    assert data.images.shape == (10_000, 28, 28, 1)
    assert [len(data.indices(part)) for part in (TRAIN, SELECT, HELD_OUT)] == [9000, 500, 500]
    assert data.notices == ()
    assert data.fewer_than(64) is None
    asset = np.load(Path(__file__).parents[1] / "src/ptarmigan/assets/fashion-mnist-10k.npz")
    assert (data.images[..., 0] == asset["arr_0"]).all()
    assert (data.labels == asset["arr_1"]).all()
    assert np.bincount(data.labels[data.indices(HELD_OUT)]).min() >= 46
    again = open_dataset(None, Data())
    assert again.fingerprint == data.fingerprint
    assert (again.part == data.part).all()


def test_a_folder_of_mixed_photos(tmp_path: Path) -> None:
    """Unequal sizes, four formats, three modes: one shape, and every image in its class."""
    exif = Image.Exif()
    exif[274] = 6
    put(tmp_path / "set/red/a.jpg", Image.new("RGB", (100, 50), (255, 0, 0)), exif=exif)
    put(tmp_path / "set/red/b.webp", Image.new("RGB", (60, 90), (255, 0, 0)), lossless=True)
    put(tmp_path / "set/red/c.gif", Image.new("RGB", (49, 49), (255, 0, 0)))
    put(tmp_path / "set/grey/a.bmp", Image.new("L", (70, 55), 128))
    put(tmp_path / "set/grey/b.png", Image.new("RGBA", (70, 55), (128, 128, 128, 255)))
    data = open_dataset(tmp_path / "set", Data())
    assert data.spec == ImageSpec(48, 48, 3, ("grey", "red"))
    assert abs(data.images[data.labels == 0].astype(int) - 128).max() <= 1
    assert abs(data.images[data.labels == 1].astype(int) - (255, 0, 0)).max() <= 2


def test_files_that_cannot_be_decoded_are_named_and_counted(tmp_path: Path) -> None:
    folder = two_classes(tmp_path / "set")
    whole = put(folder / "cat/truncated.png", noise(60, 60, 3)).read_bytes()
    (folder / "cat/truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "cat/empty.png").write_bytes(b"")
    (folder / "dog/text.png").write_text("I am a text")
    put(folder / "dog/bomb.png", Image.new("1", (110, 110)))
    put(folder / "dog/bigger.png", Image.new("1", (300, 300)))
    (folder / "dog/link.png").symlink_to(folder / "nowhere")
    (folder / "dog/folder.png").mkdir()
    data = open_dataset(folder, Data(max_pixels=10_000))
    assert len(data.images) == 20
    link, notice = data.notices[:2]
    assert "1 broken link (dog/link.png)" in link
    assert all(fact in notice for fact in ("5 of 25 files", "2 not an image", "2 more pixels than --max-pixels 10000"))
    assert all(fact in notice for fact in ("cat/empty.png (", "dog/bigger.png (90,000 pixels", "1 truncated"))
    assert open_dataset(folder, Data(max_pixels=10_000)).notices == data.notices  # from the cache as well
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_class_without_a_decodable_image_is_left_out_aloud(tmp_path: Path) -> None:
    folder = two_classes(tmp_path / "set")
    (folder / "ant").mkdir()
    (folder / "ant/x.png").write_text("no")
    data = open_dataset(folder, Data())
    assert data.spec.class_names == ("cat", "dog")
    assert np.bincount(data.labels).tolist() == [10, 10]
    assert any("1 class, ant" in notice for notice in data.notices)


def test_no_decodable_file_is_an_error_that_names_some(tmp_path: Path) -> None:
    (tmp_path / "set/cat").mkdir(parents=True)
    for i in range(5):
        (tmp_path / f"set/cat/{i}.png").write_text("no")
    with raises("no-images", tmp_path / "set", "cat/0.png (", "and 2 more"):
        open_dataset(tmp_path / "set", Data())
    for i in (3, 4):
        (tmp_path / f"set/cat/{i}.png").unlink()
    with raises("no-images", "cat/2.png (") as raised:
        open_dataset(tmp_path / "set", Data())
    assert "more" not in str(raised.value)
    put(tmp_path / "half/cat/x.png", noise(50, 50, 3))
    half = (tmp_path / "half/cat/x.png").read_bytes()
    (tmp_path / "half/cat/x.png").write_bytes(half[:1000])  # its header is whole
    with raises("no-images", tmp_path / "half", "x.png ("):
        open_dataset(tmp_path / "half", Data())


def test_sixteen_bit_images_share_one_window(tmp_path: Path) -> None:
    for i, (low, high) in enumerate([(1000, 2000), (1500, 3000)]):
        pixels = np.linspace(low, high, 784).reshape(28, 28).astype(np.uint16)
        put(tmp_path / f"set/x/{i}.png", Image.fromarray(pixels))
    put(tmp_path / "set/x/8.png", Image.new("L", (28, 28), 77))  # 8 bit stays what it is
    data = open_dataset(tmp_path / "set", Data())
    images = data.images[..., 0]
    assert images[0].min() == 0
    assert images[0].max() == round(255 / 2)
    assert images[1].min() == round(255 / 4)
    assert images[1].max() == 255
    assert (images[2] == 77).all()
    assert all(fact in data.notices[0] for fact in ("2 images of 16 bit", "1000", "3000"))


def test_alpha_is_kept_where_most_have_it_and_said(tmp_path: Path) -> None:
    for i in range(3):
        put(tmp_path / f"set/x/{i}.png", noise(28, 28, 4))
    put(tmp_path / "set/x/3.png", noise(28, 28, 3))
    data = open_dataset(tmp_path / "set", Data())
    assert data.spec.channels == 4
    assert (data.images[3, ..., 3] == 255).all()
    assert "--channels 3" in data.notices[0]
    assert open_dataset(tmp_path / "set", Data(channels=3)).spec.channels == 3


def test_arrays_are_brought_to_a_size_too(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (30, 40, 50, 3), np.uint8)
    np.savez(tmp_path / "x.npz", arr_0=images, arr_1=np.arange(30) % 3)
    data = open_dataset(tmp_path / "x.npz", Data())
    assert data.images.shape == (30, 32, 40, 3)
    assert data.name == "x"
    grey = open_dataset(tmp_path / "x.npz", Data(size="40x50", channels=1))
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])
    assert (grey.images[..., 0] == expected).all()


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_arrays(tmp_path: Path, channels: int) -> None:
    images = RNG.integers(0, 256, (8, 40, 40, channels), np.uint8)
    np.savez(tmp_path / "x.npz", arr_0=images, arr_1=np.arange(8) % 2)
    data = open_dataset(tmp_path / "x.npz", Data())
    assert data.images.shape == (8, 32, 32, channels)
    for out, image in zip(data.images, images, strict=True):
        resized = Image.fromarray(image.squeeze()).resize((32, 32), Image.Resampling.LANCZOS)
        assert (out.squeeze() == np.asarray(resized)).all()


def test_duplicates_do_not_straddle_even_across_classes(tmp_path: Path) -> None:
    folder = two_classes(tmp_path / "set", 40)
    copies = [(folder / f"cat/p{i % 5}_{i:03}.png").read_bytes() for i in range(15)]
    for i, content in enumerate(copies):
        (folder / f"dog/copy{i}.png").write_bytes(content)
        (folder / f"cat/copy{i}.png").write_bytes(content)
    data = open_dataset(folder, Data(split="60/20/20"))
    for key in np.unique(data.hashes):
        assert len(np.unique(data.part[data.hashes == key])) == 1
    assert {*data.part[data.labels == 0]} == {*data.part[data.labels == 1]} == {0, 1, 2}


def test_groups_do_not_straddle(tmp_path: Path) -> None:
    folder = two_classes(tmp_path / "set")
    data = open_dataset(folder, Data(group=r"p\d", split="60/20/20"))
    patient = np.array([i % 5 for _ in range(2) for i in sorted(range(10), key=lambda i: (i % 5, i))])
    assert [len(np.unique(data.part[patient == p])) for p in range(5)] == [1] * 5
    assert np.bincount(data.part).tolist() == [12, 4, 4]
    with raises("options-conflict", "--group"):
        open_dataset(None, Data(group="x"))
    with raises("value-invalid", "group", "'q'", "cat/p0_000.png"):
        open_dataset(folder, Data(group="q"))


def test_split_none_and_the_sources_own_test_part(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (60, 28, 28), np.uint8)
    labels = np.arange(20)[:, None] % 2
    parts = {"train": images[:20], "val": images[20:40], "test": images[40:]}
    both = {f"{k}_images": v for k, v in parts.items()} | {f"{k}_labels": labels for k in parts}
    np.savez(tmp_path / "m.npz", **both)
    assert np.bincount(open_dataset(tmp_path / "m.npz", Data()).part).tolist() == [20, 20, 20]
    none = open_dataset(tmp_path / "m.npz", Data(split="none"))
    assert np.bincount(none.part).tolist() == [40, 0, 20]
    assert (none.part[40:] == HELD_OUT).all()
    both["test_images"][:3] = both["train_images"][:3]
    np.savez(tmp_path / "leak.npz", **both)
    (leak,) = (line for line in said(tmp_path / "leak.npz") if "in the train part" in line)
    assert all(fact in leak for fact in ("3 held-out images", "image 0 and image 40", "scores will be better"))


def test_groups_that_the_sources_own_parts_divide_are_said(tmp_path: Path) -> None:
    for part, patients in (("train", "aab"), ("test", "bc")):
        for i, patient in enumerate(patients):
            put(tmp_path / part / "cat" / f"{patient}-{i}.png")
    (shared,) = (line for line in said(tmp_path, Data(group=r"\w-")) if "group" in line)
    assert "1 of 3 training images" in shared
    assert not any("group" in line for line in said(tmp_path, Data(group=r"\w-\d.png")))


def test_what_small_sets_hold_back(tmp_path: Path) -> None:
    """A part is made where it is of use, unless it was asked for."""

    def opened(count: int, classes: int = 1, split: str | None = None) -> Dataset:
        np.savez(tmp_path / "x.npz", arr_0=images[:count], arr_1=np.arange(count) % classes)
        return open_dataset(tmp_path / "x.npz", Data(split=split))

    images = RNG.integers(0, 256, (1000, 28, 28), np.uint8)
    for count, classes, split, parts in (
        (10, 2, "100/0/0", [10, 0, 0]), (189, 1, "100/0/0", [189, 0, 0]), (200, 1, "95/0/5", [190, 0, 10]),
        (100, 10, "95/0/5", [90, 0, 10]), (300, 100, "100/0/0", [300, 0, 0]), (1000, 1, "90/5/5", [900, 50, 50]),
    ):  # fmt: skip
        data = opened(count, classes)
        assert (data.split, list(data.counts().values())) == (split, parts)
        said = [notice for notice in data.notices if "--split 90/5/5" in notice]
        assert len(said) == (split != "90/5/5")
        assert all(f"{count:,} images" in notice for notice in said)
        again = opened(count, classes, split)
        assert (again.part == data.part).all()  # a run that names the split as recorded has the same parts
        assert again.split == split
    assert list(opened(10, 2, "90/5/5").counts().values()) == [6, 2, 2]
    assert opened(10, 2, "none").split == "none"


def test_the_parts_are_of_use_to_those_that_read_them() -> None:
    assert MIN_SELECT == snapshot.MIN_SELECT
    assert MIN_HELD_OUT >= score_plan.MIN_IMAGES


def test_a_sources_own_parts_do_not_depend_on_the_number_of_images(tmp_path: Path) -> None:
    images, labels = RNG.integers(0, 256, (80, 28, 28), np.uint8), np.arange(80) % 2
    np.savez(tmp_path / "x.npz", x_train=images[:75], y_train=labels[:75], x_test=images[75:], y_test=labels[75:])
    data = open_dataset(tmp_path / "x.npz", Data())
    assert list(data.counts().values()) == [75, 0, 5]
    assert (data.part[75:] == HELD_OUT).all()
    assert any("no images are set aside" in notice and "75" in notice for notice in data.notices)


def test_a_class_of_which_only_the_test_part_has_images_is_left_out_aloud(tmp_path: Path) -> None:
    for part, names in (("train", "ac"), ("test", "abc"), ("val", "bcd")):
        for i in range(4):
            for name in names:
                put(tmp_path / "set" / part / name / f"{i}.png")
    (tmp_path / "set/train/e").mkdir()
    (tmp_path / "set/train/e/0.png").write_text("not an image")
    put(tmp_path / "set/test/e/0.png")
    data = open_dataset(tmp_path / "set", Data())
    assert data.spec.class_names == ("a", "c")
    assert data.class_counts() == {"a": 4, "c": 4}
    assert data.labels.tolist() == [0] * 8 + [1] * 12
    assert len(data.images) == 20
    assert [pack.content_hash(image) for image in data.images] == data.hashes.tolist()
    for i in range(20):
        assert (np.asarray(Image.open(data.origin(i))) == data.images[i, ..., 0]).all()
    assert any("left out" in notice and "b (8), d (4), e (1)" in notice for notice in data.notices)


def test_one_image_in_two_classes_is_said(tmp_path: Path) -> None:
    folder = two_classes(tmp_path / "set", 40)
    for i in range(3):
        (folder / f"dog/copy{i}.png").write_bytes((folder / f"cat/p{i}_{i:03}.png").read_bytes())
    (conflict,) = (line for line in said(folder) if "more than one class" in line)
    assert conflict.startswith("3 images")
    assert all(f"cat/p{i}_{i:03}.png and dog/copy{i}.png" in conflict for i in range(3))
    folder = two_classes(tmp_path / "other", 50)
    for copies in (1, 2):  # of 101 and of 102 images
        (folder / f"dog/copy{copies}.png").write_bytes((folder / "dog/p0_000.png").read_bytes())
        lines = [line for line in said(folder) if "the same pixels" in line]
        assert [line.split()[0] for line in lines] == ["2"] * (copies == 2)


def test_a_thousand_classes_are_never_listed_whole(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (2000, 8, 8), np.uint8)
    labels = np.repeat(np.arange(1000), 2)
    np.savez(
        tmp_path / "x.npz", x_train=images[:1000], y_train=labels[:1000] * 2, x_test=images[1000:],
        y_test=labels[1000:] * 2,
    )  # fmt: skip
    data = open_dataset(tmp_path / "x.npz", Data())
    assert data.spec.classes == 500
    assert len(data.understood) < 300
    assert all(len(line) < 300 for line in said(tmp_path / "x.npz"))
    with raises("unknown-name", "and 480 more") as caught:
        data.spec.label("zebra")
    assert len(str(caught.value)) < 400


def test_a_set_of_test_images_alone_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "set/train/cat/1.png").write_text("no image")
    put(tmp_path / "set/test/cat/2.png")
    with raises("too-few-images", tmp_path / "set", "train/cat/1.png"):
        open_dataset(tmp_path / "set", Data())


def test_small_classes_are_told_what_to_expect(tmp_path: Path) -> None:
    folder = two_classes(tmp_path / "set", 120)
    assert said(folder, Data(split="90/5/5")) == []
    put(folder / "eel/1.png")
    put(folder / "eel/2.png")
    data = open_dataset(folder, Data(split="90/5/5"))
    assert data.part[data.labels == 2].tolist() == [TRAIN, TRAIN]
    share, few, unequal = said(folder, Data(split="90/5/5"))
    assert "--balance" in unequal
    assert ": eel;" in share
    assert all(fact in few for fact in ("100 training images", "1 of 3 classes", "(eel: 2)", "--flip"))
    count = len(data.indices())
    assert data.fewer_than(count) is None
    warning = data.fewer_than(300) or ""
    assert f"{count} training images" in warning
    assert "300" in warning


def test_a_hundred_images_a_class_are_enough_and_long_lists_are_cut(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (793, 28, 28), np.uint8)
    np.savez(tmp_path / "x.npz", arr_0=images, arr_1=np.repeat(np.arange(8), [100] + [99] * 7))
    (few,) = said(tmp_path / "x.npz", Data(split="none"))
    assert "7 of 8 classes" in few
    assert "(1: 99, 2: 99, 3: 99 and 4 more)" in few
    np.savez(tmp_path / "y.npz", arr_0=images[:397], arr_1=np.repeat(np.arange(4), [100] + [99] * 3))
    assert "(1: 99, 2: 99, 3: 99)" in said(tmp_path / "y.npz", Data(split="none"))[0]


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    folder = two_classes(tmp_path / "set")
    first = open_dataset(folder, Data()).fingerprint
    folder.rename(tmp_path / "moved")
    (tmp_path / "moved/cat/p0_000.png").touch()
    assert open_dataset(tmp_path / "moved", Data(split="80/10/10")).fingerprint == first
    assert open_dataset(tmp_path / "moved", Data(size="32")).fingerprint != first
    (tmp_path / "moved/cat").rename(tmp_path / "moved/cow")
    renamed = open_dataset(tmp_path / "moved", Data()).fingerprint
    put(tmp_path / "moved/cow/p0_000.png")
    assert len({first, renamed, open_dataset(tmp_path / "moved", Data()).fingerprint}) == 3


def test_many_files_do_not_pile_up_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded images are alive for two chunks at most, and for what waits for its turn, whatever their number."""
    monkeypatch.setattr("ptarmigan.data.read.CHUNK", 4)
    monkeypatch.setattr("ptarmigan.data.workers.BATCH", 4)
    monkeypatch.setattr("ptarmigan.data.workers.IN_FLIGHT", 8)
    folder = two_classes(tmp_path / "set", 40)

    alive, most = 0, 0
    decode = read.decode

    class Counted(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def counted(*args: object, **options: object) -> np.ndarray:
        nonlocal alive, most
        alive, out = alive + 1, decode(*args, **options).view(Counted)  # type: ignore[arg-type]
        most = max(most, alive)
        return out

    monkeypatch.setattr(read, "decode", counted)
    assert len(open_dataset(folder, Data()).images) == 80
    assert most <= 2 * 4 + 8 + 4


def test_classes_of_unequal_size_are_named_with_what_training_does_about_it(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (1310, 28, 28), np.uint8)
    names = np.array(["cat", "dog", "eel"])
    np.savez(tmp_path / "x.npz", arr_0=images, arr_1=np.repeat([0, 1, 2], [1100, 110, 100]), class_names=names)
    (unequal,) = said(tmp_path / "x.npz", Data(split="none"))
    assert all(fact in unequal for fact in ("cat, has 11 times", "smallest, eel", "(eel: 100)", "--balance"))
    (balanced,) = said(tmp_path / "x.npz", Data(split="none", balance=True))
    assert all(fact in balanced for fact in ("eel is seen 11 times as often", "of cat", "scores"))
    np.savez(tmp_path / "y.npz", arr_0=images[:1200], arr_1=np.repeat([0, 1, 2], [1000, 100, 100]))
    assert said(tmp_path / "y.npz", Data(split="none")) == []
    np.savez(tmp_path / "z.npz", arr_0=images[:200], arr_1=np.repeat([0, 1], 100))
    (equal,) = said(tmp_path / "z.npz", Data(split="none", balance=True))
    assert "as often" not in equal
    np.savez(tmp_path / "one.npz", arr_0=images[:100])
    assert "--balance changes nothing" in str(said(tmp_path / "one.npz", Data(balance=True)))
