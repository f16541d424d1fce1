"""Which files are images, and which class and part each belongs to; the table of docs/folders.md."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path

import pytest
from PIL import Image

from layouts import FORMATS, LAYOUTS, Understood, image, make, understand
from ptarmigan.config import Data
from ptarmigan.data import decode, open_dataset, scan
from ptarmigan.data.arrays import HELD_OUT
from ptarmigan.data.index import ArraySource, FolderSource, find_source
from ptarmigan.generator.generator import save_png
from support import raises

ROOT = Path(__file__).parents[1]


def source_of(folder: Path, *entries: str) -> FolderSource:
    make(folder, list(entries))
    source = find_source(folder)
    assert isinstance(source, FolderSource)
    return source


def of(folder: Path, *entries: str) -> Understood:
    make(folder, list(entries))
    return understand(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO and other file names here")
def test_the_table_in_the_docs_is_what_the_tool_makes() -> None:
    spec = importlib.util.spec_from_file_location("draw_layouts", ROOT / "tools" / "draw_layouts.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    page = tool.PAGE.read_text(encoding="utf-8")
    assert page.split(tool.BEGIN)[1].split(tool.END)[0] == tool.table()


@pytest.mark.parametrize("title", LAYOUTS)
def test_no_part_wrapper_or_litter_is_a_class_without_a_word(tmp_path: Path, title: str) -> None:
    found = of(tmp_path / "photos", *LAYOUTS[title])
    wrong = {"test", "val", "dev", "eval", "runs", "run", "archive", "@eadir", "$recycle.bin", "masks", "annotations"}
    assert not wrong & {name.lower() for name in found.classes}
    assert "train" not in found.classes or "train" in found.said[1]


# --- classes and parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", ["train", "Training", "TRAIN", "train_images", "trainset", "seg_train", "train2017"])
@pytest.mark.parametrize("test", ["test", "Testing", "eval", "evaluation"])
def test_the_names_of_parts(tmp_path: Path, train: str, test: str) -> None:
    found = of(tmp_path, f"{train}/{{cat,dog}}/*.png 2", f"{test}/{{cat,dog}}/*.png 1")
    assert found.classes == ("cat", "dog")
    assert found.parts == (4, 0, 2)


@pytest.mark.parametrize("name", ["train_station", "test tube", "steam-train", "evaluator", "developer", "valid_to"])
def test_a_part_in_a_longer_name_is_no_part(tmp_path: Path, name: str) -> None:
    assert of(tmp_path, f"{{bridge,tower,{name}}}/*.png 2").classes == tuple(sorted(["bridge", "tower", name]))


def test_names_of_different_things_are_no_parts_of_one(tmp_path: Path) -> None:
    found = of(tmp_path, "{night_train,test_tube,cup}/*.png 3")
    assert found.classes == ("cup", "night_train", "test_tube")
    assert found.parts == (9, 0, 0)


def test_parts_that_are_divided_again(tmp_path: Path) -> None:
    found = of(tmp_path, "training/{train,val}/{a,b}/*.png 2", "testing/testing/{a,b}/*.png 1")
    assert found.classes == ("a", "b")
    assert found.parts == (4, 4, 2)


def test_what_may_be_either_is_said(tmp_path: Path) -> None:
    found = of(tmp_path / "a", "{test,control}/*.png 5")
    assert found.classes == ("control", "test")
    assert "test" in found.said[1]
    found = of(tmp_path / "b", "{boat,train}/x/*.png 5")
    assert found.classes == ("boat", "train")
    assert "train" in found.said[1]
    assert of(tmp_path / "c", "train/{a,b}/*.png 5", "more/*.png 5").classes == ("a", "b")


def test_images_without_labels_are_counted_and_left_out(tmp_path: Path) -> None:
    found = of(tmp_path, "train/{cat,dog}/*.png 4", "test/*.png 3", "extra/*.png 2", "train/0.png", "cover.png")
    assert found.parts == (8, 0, 0)
    notices = " ".join(found.said[1:])
    assert all(fact in notices for fact in ("(test: 3)", "(extra: 2)", "2 images", "cover.png", "train/0.png"))


def test_the_training_part_needs_the_labels(tmp_path: Path) -> None:
    make(tmp_path, ["train/*.png 3", "test/{cat,dog}/*.png 3"])
    with raises("data-incomplete", "train/"):
        find_source(tmp_path)


def test_no_class_is_lost_where_no_part_is_called_train(tmp_path: Path) -> None:
    assert of(tmp_path / "a", "{val,test}/{cat,dog}/*.png 3").parts == (6, 0, 6)
    assert of(tmp_path / "b", "test/{cat,dog}/*.png 3").parts == (6, 0, 0)


def test_a_folder_with_the_same_classes_again_is_no_class(tmp_path: Path) -> None:
    found = of(tmp_path / "a", "{cat,dog,augmented/Cat,augmented/dog}/*.png 2")
    assert found.classes == ("cat", "dog")
    assert "(augmented: 4)" in found.said[1]
    assert of(tmp_path / "b", "{cat,dog}/{cat,dog}/*.png 2").classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("entry", "give"),
    [
        ("{color,grayscale,segmented}/{a,b,c}/*.png 2", "color"),
        ("{art/{dog,elk,owl},photo/{dog,elk,fox}}/*.png 2", "art"),
        ("{2019,2020}/{cat,dog}/*.png 2", "2019"),
        ("all/{fold1,fold2}/{0,1}/*.png 2", "all/fold1"),
        ("{Pruefung,Training}/{a,b}/*.png 2", "Training"),
        ("{large/large,small/small}/{a,b}/*.png 2", "large"),
        ("{x,y}/{train,test}/{a,b}/*.png 2", "x"),
        ("{v1/v1/train,v2/v2/train}/{a,b}/*.png 2", "v1"),
    ],
)
def test_the_same_folders_in_several_folders_may_be_the_classes(tmp_path: Path, entry: str, give: str) -> None:
    make(tmp_path, [entry])
    with raises("layout-unclear", f"{tmp_path.name}/{give}"):
        find_source(tmp_path)
    assert len(understand(tmp_path / give).classes) > 1


@pytest.mark.parametrize(
    "entry",
    [
        "{cat,dog}/{2019,2020}/*.png 2", "{cat,dog}/{s1,s2,s3}/*.png 2", "{cat,dog}/{images,thumbnails}/*.png 2",
        "{cat,dog}/{train,test}/*.png 2", "{cat/{tom,kit},dog/{rex,pug}}/*.png 2", "{cat/images,dog/images}/*.png 2",
        "{cat/{a,b,c,d,e,f},dog/{a,b,u,v,w,x,y,z}}/*.png 2",
    ],
)  # fmt: skip
def test_folders_that_class_folders_have_for_other_reasons(tmp_path: Path, entry: str) -> None:
    assert of(tmp_path, entry).classes == ("cat", "dog")


def test_one_folder_beside_its_test_part(tmp_path: Path) -> None:
    found = of(tmp_path / "a", "{rps/rps,rps-test-set/rps-test-set}/{rock,paper}/*.png 3", "rps-validation/*.png 2")
    assert (found.classes, found.parts) == (("paper", "rock"), (6, 0, 6))
    assert "(rps-validation: 2)" in found.said[1]
    assert of(tmp_path / "b", "tubes/{a,b}/*.png 3", "test tube/*.png 3").classes == ("test tube", "tubes")
    assert of(tmp_path / "c", "{control,test}/*.png 3").classes == ("control", "test")


def test_parts_of_different_things(tmp_path: Path) -> None:
    found = of(tmp_path / "a", "{trainA,trainB,testA,testB}/*.png 3")
    assert (found.classes, found.parts) == (("A", "B"), (6, 0, 6))
    assert len(of(tmp_path / "b", "{cars_train,cars_test}/*.png 3").classes) == 1
    assert len(of(tmp_path / "c", "{train,test,cars_train,cars_test}/*.png 3").classes) == 1


@pytest.mark.parametrize("name", ["unlabeled", "Unlabelled", "unlabeled_images", "unsup"])
def test_folders_named_as_unlabelled_are_no_classes(tmp_path: Path, name: str) -> None:
    for at, entry in enumerate(
        ("{cat,dog,X}/*.png 2", "{train/{cat,dog,X},test/{cat,dog}}/*.png 2", "{train,X}/*.png 2")
    ):
        found = of(tmp_path / f"{at}", entry.replace("X", name))
        assert found.classes in (("cat", "dog"), (str(at),))
        assert f"{name}: 2)" in found.said[1]
    assert of(tmp_path / "alone", f"{name}/*.png 2").parts == (2, 0, 0)


def test_masks_beside_their_images(tmp_path: Path) -> None:
    masks = ["a/x (1)_mask.png", "a/x (1)_mask_1.png", "a/y-seg.gif", "b/z_segmentation.png"]
    source = source_of(tmp_path, "a/x (1).png", "a/y.jpg", "b/z.jpg", "b/mask.png", "b/k_mask.png", *masks)
    assert source.paths == ("a/x (1).png", "a/y.jpg", "b/k_mask.png", "b/mask.png", "b/z.jpg")
    assert "4 images" in source.notices[0]
    assert masks[0] in source.notices[0]


def test_images_spread_over_numbered_folders(tmp_path: Path) -> None:
    sharded = "images_{001,002}/images", "x_part_{1,2}", "{00000,01000}", "{100APPLE,101_PANA}", "{2023-05-17,2023-06}"
    for at, folders in enumerate((*sharded, "{20230517,20230601}")):
        found = of(tmp_path / f"{at}", f"{folders}/*.png 3")
        assert (found.classes, found.parts[0]) == ((f"{at}",), 6)
        assert "numbered or dated folders" in found.said[0]
    for at, folders in enumerate(("{0,1000}", "class_{1,2}", "{00000,00001}", "{2019,2020}", "{2023-05-17,cat}")):
        assert len(of(tmp_path / f"no{at}", f"{folders}/*.png 3").classes) == 2


def test_names_in_another_case(tmp_path: Path) -> None:
    source = source_of(tmp_path / "a", "train/{Cat,Dog}/*.png 2", "test/{cat,DOG}/*.png 1")
    assert source.class_names == ("Cat", "Dog")
    assert source.labels[source.source_part == HELD_OUT].tolist() == [0, 1]
    assert all(fact in source.notices[0] for fact in ("cat is Cat", "DOG is Dog"))
    source = source_of(tmp_path / "b", "{train,test}/{A,a}/*.png 2")
    assert source.class_names == ("A", "a")
    assert "A, a" in source.notices[0]


def test_labels_follow_the_natural_order(tmp_path: Path) -> None:
    source = source_of(tmp_path, "{0,1,2,10,a1,a2,a10}/0.png")
    assert source.class_names == ("0", "1", "2", "10", "a1", "a2", "a10")
    assert [source.paths[i].split("/")[0] for i in source.labels.argsort()] == list(source.class_names)


def test_names_in_two_unicode_forms_and_not_in_unicode(tmp_path: Path) -> None:
    source = source_of(tmp_path, "caf\u00e9/0.png", "cafe\u0301/0.png", "th\udce9/0.png")
    assert source.class_names == ("caf\u00e9", "th\u00e9")
    assert len(source.paths) == 3
    assert source.class_names[0] in source.notices[0]
    for path in source.paths:
        assert (source.root / path).exists()


def test_one_folder_of_many_images_is_not_taken_for_a_wrapper(tmp_path: Path) -> None:
    """A class with images of its own and folders below is a class, whether or not others lie beside it."""
    assert of(tmp_path / "a", "dog/*.png 5", "dog/puppies/*.png 2").classes == ("dog",)
    assert of(tmp_path / "b", "{cat,dog}/*.png 5", "dog/{husky,poodle}/*.png 2").classes == ("cat", "dog")
    found = of(tmp_path / "c", "*.png 9", "more/{a,b}/*.png 2")
    assert found.classes == ("c",)
    assert "(more: 4)" in found.said[1]


# --- which files are images --------------------------------------------------------------------------------


def test_there_is_a_signature_for_each_format_that_is_read() -> None:
    assert set(scan.SIGNATURES) == set(decode.FORMATS) == set(scan.SUFFIXES)
    for form in set(decode.FORMATS) & set(Image.registered_extensions().values()):
        assert scan.IS_IMAGE.match(image(form)[:32]), form
    assert set(FORMATS.values()) <= set(decode.FORMATS)


@pytest.mark.parametrize("text", ["P1 is a text", "BMW is a car", "RIFFRAFF", "Python", "II", "", "%!PS-Adobe EPSF"])
def test_a_text_is_no_image(tmp_path: Path, text: str) -> None:
    make(tmp_path, ["cat/0.png"])
    (tmp_path / "cat/note").write_text(text)
    source = find_source(tmp_path)
    assert isinstance(source, FolderSource)
    assert source.paths == ("cat/0.png",)


def test_content_decides_and_a_name_alone_is_reported(tmp_path: Path) -> None:
    source = source_of(tmp_path, "a/*.dat 2", "a/x 1", "a/y.JPG = a text", "a/z.NEF = II*", "a/half.jpg.part = x")
    assert source.paths == ("a/0.dat", "a/1.dat", "a/x", "a/y.JPG")


def test_runs_in_any_state_are_no_data(tmp_path: Path) -> None:
    runs = ["r1/.ptarmigan-run", "r2/{config.json,metrics.jsonl}", "r3/config.json", "r3/checkpoints/"]
    export = ["gen/{config.json,model.safetensors}"]
    pictures = ["{r1,r2,r3}/samples/*.png 3", "gen/grid.png"]
    source = source_of(tmp_path, "*.png 4", *runs, *export, *pictures)
    assert source.paths == ("0.png", "1.png", "2.png", "3.png")
    assert "gen, r1, r2 and 1 more" in source.notices[-1]
    stamp = source.stamp
    assert source_of(tmp_path, "r4/.ptarmigan-run", "r4/samples/*.png 9").stamp == stamp
    assert source_of(tmp_path / "other", "{runs,config}/*.png 2").class_names == ("config", "runs")
    make(tmp_path / "r5", [".ptarmigan-run", "samples/0.png"])
    with raises("no-images", "r5"):
        find_source(tmp_path / "r5")


def test_drawings_are_refused_with_what_makes_pictures_of_them(tmp_path: Path) -> None:
    make(tmp_path, ["cat/0.svg", "dog/0.svg"])
    with raises("no-images", "2 .svg", "rsvg-convert"):
        find_source(tmp_path)


def test_pictures_that_sample_wrote_are_no_data_beside_others(tmp_path: Path) -> None:
    drawn = tmp_path / "data/samples/cat/0.png"
    source = source_of(tmp_path / "data", "{cat,dog}/*.png 2")
    drawn.parent.mkdir(parents=True)
    picture = Image.new("RGB", (32, 32))
    save_png(picture, drawn, seed=123456, generator="f" * 64)
    save_png(picture, tmp_path / "data/cat/grid.png", seed=0, classes="cat, dog" * 99, generator="f" * 64)
    again = find_source(tmp_path / "data")
    assert isinstance(again, FolderSource)
    assert again.paths == source.paths
    assert all(fact in again.notices[-1] for fact in ("2 pictures", "samples/cat/0.png", "cat/grid.png"))
    assert understand(tmp_path / "data/samples").classes == ("cat",)  # a folder of samples alone can be scored
    save_png(picture, tmp_path / "data/dog/other.png", seed=0, note="of another program")
    assert len(understand(tmp_path / "data").said) == len(again.notices) + 1
    assert understand(tmp_path / "data").parts[0] == 5
    (tmp_path / "data/replay-3").mkdir()
    save_png(picture, tmp_path / "data/replay-3/real.png", images_seen=123)
    save_png(picture, tmp_path / "data/copies.png", pairs="generated image, then its nearest training image")
    again = find_source(tmp_path / "data")
    assert "4 pictures" in again.notices[-1]


def test_links_stay_inside_and_each_file_is_read_once(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", ["b.png"])
    source = source_of(
        tmp_path / "data", "cat/*.png 2", "dog/0.png", ".store/deep/*.png 2",
        "dog/loop -> ..", "dog/self -> .", "cow -> cat", "dog/copy.png -> ../cat/0.png", "dog/out -> ../../elsewhere",
        "dog/out.png -> ../../elsewhere/b.png", "dog/gone.png -> nowhere", "dog/store -> ../.store/deep",
        "dog/round.png -> round.png",
    )  # fmt: skip
    assert source.class_names == ("cat", "dog")
    assert source.paths[2:] == ("dog/0.png", "dog/store/0.png", "dog/store/1.png")
    notices = " ".join(source.notices)
    assert all(fact in notices for fact in ("2 links out", "dog/out, dog/out.png", "4 links to", "2 broken links"))
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert understand(tmp_path / "link") == understand(tmp_path / "data")


def test_a_folder_of_links_that_leave_it_says_so(tmp_path: Path) -> None:
    make(tmp_path / "all", ["*.png 4"])
    make(tmp_path / "some", ["cat/0.png -> ../../all/0.png", "dog/1.png -> ../../all/1.png"])
    with raises("no-images", "2 links out", "cat/0.png"):
        find_source(tmp_path / "some")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO here")
def test_a_fifo_is_never_opened(tmp_path: Path) -> None:
    began = time.monotonic()
    source = source_of(
        tmp_path, "cat/0.png", "cat/pipe.png fifo", "cat/pipe fifo", "pipe.npz fifo", "l.png -> pipe.npz"
    )
    assert source.paths == ("cat/0.png",)
    assert "cat/pipe" in source.notices[-1]
    with raises("file-unreadable", "pipe.npz"):
        find_source(tmp_path / "pipe.npz")
    assert time.monotonic() - began < 5


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, ["{cat,dog}/*.png 2", "cat/noending"])
    whole = find_source(tmp_path).stamp
    with monkeypatch.context() as patch:
        opened = os.open

        def refuse(path: str, flags: int) -> int:
            if Path(path).name in ("0.png", "noending"):
                raise PermissionError(13, "Permission denied", path)
            return opened(path, flags)

        patch.setattr(os, "open", refuse)
        source = find_source(tmp_path)
    assert isinstance(source, FolderSource)
    assert source.stamp != whole
    assert source.paths == ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png")
    assert "(cat/noending: Permission denied)" in source.notices[-1]
    assert find_source(tmp_path).stamp == whole


# --- label files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["metadata.csv", "metadata.jsonl", "labels.csv", "dataset.json", "labels.txt", "list.txt", "a.xlsx", "x.tsv"],
)
def test_files_that_may_hold_labels_are_named(tmp_path: Path, name: str) -> None:
    found = of(tmp_path, "*.png 3", f"{name} = 0.png cat")
    assert name in found.said[1]
    assert len(found.said) == 2
    assert found.classes == (tmp_path.name,)


@pytest.mark.parametrize("ending", ["cls", "json", "txt", "xml"])
def test_labels_beside_each_image_are_counted(tmp_path: Path, ending: str) -> None:
    assert f"7 .{ending} files" in of(tmp_path, "*.jpg 7", f"*.{ending} 7").said[1]


def test_other_texts_are_no_labels(tmp_path: Path) -> None:
    assert "labels" not in " ".join(of(tmp_path, "{cat,dog}/*.png 3", "README.txt = hello", "LICENSE.txt").said)


def test_shards_beside_a_list_are_no_classes(tmp_path: Path) -> None:
    found = of(tmp_path / "set", "{00000,00001}/*.png 3", "dataset.json")
    assert found.classes == ("set",)
    assert "dataset.json" in found.said[1]
    assert of(tmp_path / "b", "{00000,00001}/*.png 3").classes == ("00000", "00001")


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
def test_archives_are_named(tmp_path: Path, name: str) -> None:
    make(tmp_path, [f"a/{name} = x", f"b/{name} = x", "b/cat/0.png"])
    with raises("no-images", name, "unpack"):
        find_source(tmp_path / "a" / name)
    with raises("no-images", "unpack"):
        find_source(tmp_path / "a")
    assert name in understand(tmp_path / "b").said[1]


def test_the_words_that_file_names_begin_with(tmp_path: Path) -> None:
    assert "cat, dog" in of(tmp_path / "a", "train/cat.*.jpg 6", "train/dog.*.jpg 6").said[1]
    assert len(of(tmp_path / "b", "img*.jpg 9").said) == 1
    assert len(of(tmp_path / "c", "{a,b,c,d,e,f}*.jpg 1").said) == 1


# --- the stamp ---------------------------------------------------------------------------------------------


def test_equal_names_sizes_and_times_are_told_apart(tmp_path: Path) -> None:
    for name, colour in (("a", (255, 0, 0)), ("b", (0, 0, 255))):
        (tmp_path / name / "x").mkdir(parents=True)
        for i in range(3):
            path = tmp_path / name / "x" / f"{i}.bmp"
            Image.new("RGB", (16, 16), colour).save(path)
            os.utime(path, (1, 1))
    assert find_source(tmp_path / "a").stamp != find_source(tmp_path / "b").stamp


def test_the_stamp_is_of_content_and_labels(tmp_path: Path) -> None:
    make(tmp_path / "a", ["{cat,dog}/*.png 2"])
    stamp = find_source(tmp_path / "a").stamp
    os.utime(tmp_path / "a/cat/0.png", ns=(1, 1))
    (tmp_path / "a").rename(tmp_path / "b")
    assert find_source(tmp_path / "b").stamp == stamp
    stamps = [stamp]
    for old, new in (("cat/0.png", "cat/9.png"), ("cat", "cow"), ("cow/1.png", "dog/2.png")):
        (tmp_path / "b" / old).rename(tmp_path / "b" / new)
        stamps.append(find_source(tmp_path / "b").stamp)
    assert len(set(stamps)) == 4


def test_large_files_are_sampled(tmp_path: Path) -> None:
    stamps = []
    for at in (None, 10, 1_500_010, 2_999_990):
        content = bytearray(b"\x89PNG\r\n\x1a\n" + bytes(3_000_000))
        if at:
            content[at] = 1
        (tmp_path / "x.png").write_bytes(content)
        os.utime(tmp_path / "x.png", (1, 1))
        stamps.append(find_source(tmp_path).stamp)
    os.utime(tmp_path / "x.png", (2, 2))
    stamps.append(find_source(tmp_path).stamp)
    assert len(set(stamps)) == 5


def test_array_files_are_stamped_by_their_bytes(tmp_path: Path) -> None:
    stamps = []
    for fill in (b"a", b"b"):
        (tmp_path / "train-images-idx3-ubyte").write_bytes(fill * 3_000_000)
        (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"")
        os.utime(tmp_path / "train-images-idx3-ubyte", (1, 1))
        stamps.append(find_source(tmp_path).stamp)
    assert len(set(stamps)) == 2


def test_several_sets_of_idx_files(tmp_path: Path) -> None:
    make(tmp_path / "two", ["{MNIST,Fashion}/train-{images-idx3,labels-idx1}-ubyte.gz = x"])
    with raises("layout-unclear", "Fashion, MNIST"):
        find_source(tmp_path / "two")
    make(tmp_path / "more", ["MNIST/raw/train-images-idx3-ubyte = x", "{cat,dog}/*.png 2"])
    found = understand(tmp_path / "more")
    assert found.classes == ("cat", "dog")
    assert "MNIST/raw/train-images-idx3-ubyte" in " ".join(found.said)


def test_documents_are_no_images_and_archives_and_labels_are_named(tmp_path: Path) -> None:
    documents = "{README,LICENSE,a.md,b.pdf,c.py,words.txt,d.json}"
    assert len(of(tmp_path / "a", "{cat,dog}/*.png 2", f"{documents} = x").said) == 1
    found = of(tmp_path / "b", "{cat,dog}/*.png 2", "{a.npz,b.h5,c.tfrec} = x", "setid.mat", "x.mp4", "annos.json = x")
    assert all("a.npz" in s or "setid.mat" in s or "1 .mp4" in s for s in found.said[1:])
    assert len(found.said) == 4


def test_labels_are_found_by_names_without_endings_and_in_folders_of_annotations(tmp_path: Path) -> None:
    assert "list.txt" in of(tmp_path / "a", "beagle_*.jpg 9", "list.txt = beagle_7 1 2").said[-1]
    assert len(of(tmp_path / "b", "*.jpg 9", "notes.txt = page 7").said) == 1
    found = of(tmp_path / "c", "JPEGImages/*.jpg 9", "Annotations/*.xml 9")
    assert "9 .xml files" in found.said[-1]


def test_idx_files_below(tmp_path: Path) -> None:
    make(tmp_path, ["MNIST/raw/train-{images-idx3,labels-idx1}-ubyte = x"])
    source = find_source(tmp_path)
    assert isinstance(source, ArraySource)
    assert source.root == tmp_path / "MNIST" / "raw"
    assert "MNIST/raw/" in source.understood
    make(tmp_path / "MNIST/raw", ["cover.png"])
    assert "1 image file " in find_source(tmp_path / "MNIST/raw").notices[0]


# --- paths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "~nosuchuser_/x", "a" * 300, "a\0b"])
def test_paths_that_are_none(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, ["cat/0.png"])
    with raises("value-invalid", "data"):
        find_source(path)


def test_progress_while_files_are_listed_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTARMIGAN_CACHE", str(tmp_path / "cache"))
    make(tmp_path / "set", ["{cat,dog}/*.png 150"])
    calls: list[tuple[str, int, int | None]] = []
    open_dataset(tmp_path / "set", Data(), lambda what, done, total: calls.append((what, done, total)))
    assert [call[1:] for call in calls if call[0] == "listing files"] == [(100, None), (200, None), (300, None)]
    read = [call[1:] for call in calls if call[0] == "reading files"]
    assert read == sorted(read)
    assert read[-1] == (300, 300)
