"""Labels from tables and from files beside the images: which columns they are in, and what is said of the rest."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from layouts import make
from ptarmigan.config import Data
from ptarmigan.data import HELD_OUT, SELECT, open_dataset
from ptarmigan.data.arrays import UNDECIDED
from ptarmigan.data.index import FolderSource, find_source
from support import call, raises

PETS = ("cat", "dog")


def rows(count: int, row: Any, head: str = "") -> str:
    return "\n".join([*filter(None, [head]), *(row(i) for i in range(count))])


def labelled(folder: Path, *entries: str, **options: Any) -> FolderSource:
    make(folder, [*entries])
    source = find_source(folder, None, Data(**options))
    assert isinstance(source, FolderSource)
    return source


def of(source: FolderSource) -> dict[str, str]:
    return {path: source.class_names[label] for path, label in zip(source.paths, source.labels, strict=True)}


def simple(count: int, name: str = "{i}.png") -> str:
    return rows(count, lambda i: f"{name.format(i=i)},{PETS[i % 2]}", "file_name,label")


EXPECTED = {f"{i}.png": PETS[i % 2] for i in range(8)}


# --- how tables are written ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", simple(8)),
        ("any.csv", "\ufeff" + simple(8).replace(",", ";").replace("\n", "\r\n")),
        ("labels.tsv", simple(8).replace(",", "\t")),
        ("list.txt", rows(8, lambda i: f"{i}.png {PETS[i % 2]}")),
        ("train.csv", rows(8, lambda i: f"{i},{PETS[i % 2]}", "id,breed")),
        ("index.csv", rows(8, lambda i: f"{i},{i}.png,{PETS[i % 2]}", ",path,category")),
        ("windows.csv", rows(8, lambda i: f'"D:\\sets\\photos\\{i}.png","{PETS[i % 2]}"', "Image Path,Class")),
        ("above.csv", rows(8, lambda i: f"../photos/{i}.png,{PETS[i % 2]}", "image,y")),
        ("a.jsonl", rows(8, lambda i: f'{{"file_name": "{i}.png", "label": "{PETS[i % 2]}", "size": [8, 8]}}')),
        ("b.json", "[" + ",".join(f'{{"image": "{i}.png", "label": "{PETS[i % 2]}"}}' for i in range(8)) + "]"),
        ("c.json", "{" + ",".join(f'"{i}.png": "{PETS[i % 2]}"' for i in range(8)) + "}"),
        ("hot.csv", rows(8, lambda i: f"{i}.png,{1 - i % 2},{i % 2}.0", "image,cat,dog")),
        ("both.csv", rows(8, lambda i: f"{i}.png,{i % 2},{PETS[i % 2]}", "image,label,label_name")),
    ],
)
def test_tables_that_are_certain(tmp_path: Path, name: str, text: str) -> None:
    source = labelled(tmp_path / "photos", "*.png 8", f"{name} = {text}")
    assert of(source) == EXPECTED
    assert name in source.understood
    assert "8 images in 2 classes" in source.understood
    assert source.notices == ()


def test_a_file_that_is_called_as_a_column(tmp_path: Path) -> None:
    source = labelled(tmp_path, "*.png 8", "image.png", f"l.csv = {simple(8).replace('file_name', 'image')}")
    assert of(source) == EXPECTED


def test_utf_16_as_spreadsheets_write_it(tmp_path: Path) -> None:
    make(tmp_path, ["*.png 8"])
    (tmp_path / "a.csv").write_bytes(simple(8).replace(",", "\t").encode("utf-16"))
    assert of(labelled(tmp_path)) == EXPECTED


def test_stylegans_dataset_json(tmp_path: Path) -> None:
    names = [f"{i // 4:05d}/{i % 4}.png" for i in range(8)]
    pairs = ",".join(f'["{name}", {i % 3}]' for i, name in enumerate(names))
    shards = "{00000,00001}/*.png 4"
    source = labelled(tmp_path / "a", shards, f'dataset.json = {{"labels": [{pairs}]}}')
    assert of(source) == {name: str(i % 3) for i, name in enumerate(names)}
    vectors = ",".join(f'["{name}", {[int(k == i % 3) for k in range(3)]}]' for i, name in enumerate(names))
    assert of(labelled(tmp_path / "b", shards, f'dataset.json = {{"labels": [{vectors}]}}')) == of(source)
    assert labelled(tmp_path / "c", shards, 'dataset.json = {"labels": null}').class_names == ("c",)


def test_numbers_are_ordered_by_value_and_named(tmp_path: Path) -> None:
    table = rows(8, lambda i: f"{i}.png,{(10, 9)[i % 2]}.0", "image,label")
    assert labelled(tmp_path / "a", "*.png 8", f"l.csv = {table}").class_names == ("9", "10")
    named = labelled(tmp_path / "b", "*.png 8", f"l.csv = {table}", "classes.txt = 9 zebra\n10 ant\n11 owl")
    assert named.class_names == ("zebra", "ant")
    assert named.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert "classes.txt" in named.understood
    with raises("labels-invalid", "classes.txt", "3 names", "2 classes"):
        labelled(tmp_path / "c", "*.png 8", f"l.csv = {table}", "classes.txt = zebra\nant\nowl")


# --- parts, groups and rejected images -------------------------------------------------------------------------------


def parts(source: FolderSource) -> Counter[int]:
    return Counter(source.source_part.tolist())


def test_the_parts_of_a_table(tmp_path: Path) -> None:
    table = rows(8, lambda i: f"{i}.png,{i % 2},{('train', 'train', 'Val', 'test')[i // 2]}", "image,label,split")
    source = labelled(tmp_path / "a", "*.png 8", f"l.csv = {table}")
    assert parts(source) == {UNDECIDED: 4, SELECT: 2, HELD_OUT: 2}
    two = [f"train.csv = {simple(6)}", "test.csv = file_name,label\n6.png,cat\n7.png,dog"]
    source = labelled(tmp_path / "b", "*.png 8", *two)
    assert (parts(source), of(source)) == ({UNDECIDED: 6, HELD_OUT: 2}, EXPECTED)
    source = labelled(
        tmp_path / "c", "{train,test}/*.png 4", *(f"{p}/metadata.csv = {simple(4)}" for p in ("train", "test"))
    )
    assert parts(source) == {UNDECIDED: 4, HELD_OUT: 4}
    assert of(source)["test/1.png"] == "dog"


def test_groups_of_a_column_do_not_straddle(tmp_path: Path) -> None:
    table = rows(40, lambda i: f"{i}.png,{PETS[i % 2]},p{i % 8}", "image,label,patient")
    make(tmp_path / "set", [f"l.csv = {table}"])
    for i in range(40):
        (tmp_path / "set" / f"{i}.png").write_bytes(picture(i))
    data = open_dataset(tmp_path / "set", Data(group="patient", split="50/25/25"))
    part_of = {(int(Path(data.origin(i)).stem) % 8, data.part[i]) for i in range(40)}
    assert len(part_of) == 8
    assert len(set(data.part.tolist())) == 3
    assert "patient" in data.understood
    with raises("value-invalid", "group", "age"):
        open_dataset(tmp_path / "set", Data(group="age"))
    (tmp_path / "set" / "l.csv").write_text(table.replace("p3", ""))
    with raises("value-invalid", "group", "patient", "11.png"):
        open_dataset(tmp_path / "set", Data(group="patient"))


def picture(i: int) -> bytes:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("L", (28, 28), 5 * i).save(out, "PNG")
    return out.getvalue()


def test_the_groups_of_class_folders(tmp_path: Path) -> None:
    table = rows(8, lambda i: f"{PETS[i % 2]}/{i // 2}.png,p{i // 4}", "path,patient")
    source = labelled(tmp_path, "{cat,dog}/*.png 4", f"l.csv = {table}", group="patient")
    assert source.groups == ("p0", "p0", "p1", "p1") * 2


def test_a_list_of_what_to_keep(tmp_path: Path) -> None:
    table = rows(7, lambda i: f"{PETS[i % 2]}/{i // 2}.png,{PETS[i % 2]},{i > 1:d},copy", "path,label,keep,reason")
    folders = "{cat,dog}/*.png 4"
    make(tmp_path, [f"list.csv = {table}\nowl/1.png,owl,1,"])
    source = labelled(tmp_path / "set", folders, labels=str(tmp_path / "list.csv"))
    assert set(of(source)) == {"cat/1.png", "cat/2.png", "cat/3.png", "dog/1.png", "dog/2.png"}
    not_named, rejected, missing = source.notices
    assert "1 image that" in not_named
    assert "(dog/3.png)" in not_named
    assert "2 images with keep 0" in rejected
    assert "(owl/1.png)" in missing
    (tmp_path / "only.csv").write_text("path,keep\ncat/1.png,0\ncat/2.png,1\ndog/3.png,1\n")
    assert of(labelled(tmp_path / "set", labels=str(tmp_path / "only.csv"))) == {"cat/2.png": "cat", "dog/3.png": "dog"}
    (tmp_path / "bad.csv").write_text("path,label,keep\ncat/1.png,cat,perhaps\n")
    with raises("labels-invalid", "bad.csv", "'perhaps'"):
        labelled(tmp_path / "set", labels=str(tmp_path / "bad.csv"))


# --- what is not certain ---------------------------------------------------------------------------------------------

SEVERAL = rows(8, lambda i: f"{i}.png,{i // 3},{'mf'[i % 2]},{PETS[i // 2 % 2]}", "image,age,sex,kind")


def test_several_columns_are_listed_and_one_can_be_chosen(tmp_path: Path) -> None:
    source = labelled(tmp_path, "*.png 8", f"l.csv = {SEVERAL}")
    assert len(source.class_names) == 1
    assert all(fact in source.notices[0] for fact in ("l.csv", "age, sex, kind", "--label-column"))
    assert labelled(tmp_path, label_column="sex").class_names == ("f", "m")
    assert labelled(tmp_path, labels="l.csv", label_column="KIND").class_names == PETS
    with raises("labels-invalid", "l.csv", "age, sex, kind", "--label-column"):
        labelled(tmp_path, labels="l.csv")
    for options in ({"label_column": "size"}, {"labels": "l.csv", "path_column": "size"}):
        with raises("unknown-name", next(reversed(options)), "'size'", "sex"):
            labelled(tmp_path, **options)


@pytest.mark.parametrize(
    ("table", "facts"),
    [
        (rows(8, lambda i: f"{i}.png,a cat that is {i}", "image,text"), ["image, text"]),
        (rows(8, lambda i: f"x{i}.png,{i % 2}", "image,label"), ["image, label"]),
        ("image,label\n0.png,cat\n0.png,dog\n1.png,cat\n2.png,cat\n3.png,dog", ["0.png", "cat", "dog"]),
        ("image,label\n0.png,cat,dog", ["row 1", "3 values"]),
        ("image,image\n0.png,cat", ["'image'", "twice"]),
        (rows(8, lambda i: f"{i}.png,9,{8 + i % 2}", "image,height,width"), ["height, width"]),
        ("\0", ["x.csv"]),
    ],
)
def test_a_table_that_gives_no_labels_is_said_and_refused_where_it_is_asked_for(
    tmp_path: Path, table: str, facts: list[str]
) -> None:
    source = labelled(tmp_path, "*.png 8", f"x.csv = {table}")
    assert len(source.class_names) == 1
    assert all(fact in source.notices[0] for fact in ["x.csv", *facts])
    with raises("labels-invalid", "labels: ", "x.csv", *facts):
        labelled(tmp_path, labels="x.csv")


def test_a_name_that_may_be_several_files(tmp_path: Path) -> None:
    source = labelled(tmp_path, "a/{x,y}/*.png 4", "b/*.png 4", f"l.csv = {simple(4)}")
    assert "a/x/0.png" in source.notices[-1] or "labels in files are not read" in source.notices[-1]
    with raises("labels-invalid", "'0.png'", "a/x/0.png or a/y/0.png"):
        labelled(tmp_path, labels="l.csv")
    (tmp_path / "l.csv").write_text(simple(4, "y/{i}.png"))
    assert set(of(labelled(tmp_path, labels="l.csv"))) == {f"a/y/{i}.png" for i in range(4)}


def test_tables_that_contradict_each_other(tmp_path: Path) -> None:
    other = simple(8).replace("3.png,dog", "3.png,cat")
    source = labelled(tmp_path, "*.png 8", f"a.csv = {simple(8)}", f"b.csv = {other}")
    assert len(source.class_names) == 1
    assert all(fact in source.notices[0] for fact in ("a.csv, b.csv", "3.png", "--labels"))
    assert of(labelled(tmp_path, labels="a.csv")) == EXPECTED


def test_a_submission_to_fill_in_is_not_labels(tmp_path: Path) -> None:
    source = labelled(tmp_path, "*.png 8", f"sample_submission.csv = {simple(8)}")
    assert len(source.class_names) == 1
    assert "sample_submission.csv" in source.notices[0]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (lambda i: f"{PETS[i % 2]}/{i // 2}.png,{PETS[i % 2]}", "agree"),
        (lambda i: f"{PETS[i % 2]}/{i // 2}.png,{i % 2}", "agree"),
        (lambda i: f"{PETS[i % 2]}/{i // 2}.png,{PETS[i % 2 or i == 2]}", "1 of 8 images (cat/1.png: dog)"),
        (lambda i: f"{PETS[i % 2]}/{i // 2}.png,{'mf'[i // 2 % 2]}", "otherwise"),
    ],
)
def test_folders_and_a_table(tmp_path: Path, row: Any, said: str) -> None:
    source = labelled(tmp_path, "{cat,dog}/*.png 4", f"l.csv = {rows(8, row, 'path,label')}")
    assert source.labels.tolist() == [0] * 4 + [1] * 4
    assert said in " ".join([source.understood, *source.notices])
    assert "l.csv" in labelled(tmp_path, labels="l.csv").understood


def test_a_table_says_what_folders_do_not(tmp_path: Path) -> None:
    names = [f"{fold}/{kind}/{i}.png" for fold in ("f1", "f2") for kind in ("a", "b") for i in range(2)]
    with raises("layout-unclear"):
        labelled(tmp_path, "{f1,f2}/{a,b}/*.png 2")
    table = rows(8, lambda i: f"{names[i]},{PETS[i % 2]}", "path,label")
    assert set(of(labelled(tmp_path, f"l.csv = {table}")).values()) == set(PETS)


# --- files beside images ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["cls", "txt", "json"])
def test_a_label_file_beside_each_image(tmp_path: Path, ending: str) -> None:
    texts = [f'{{"label": "{PETS[i % 2]}"}}' if ending == "json" else f"{PETS[i % 2]}\n" for i in range(8)]
    source = labelled(tmp_path, "*.png 8", *(f"{i}.{ending} = {text}" for i, text in enumerate(texts)))
    assert of(source) == EXPECTED
    assert f".{ending} file beside each image" in source.understood
    assert source.notices == ()


@pytest.mark.parametrize("text", ["{i} 0.5 0.5 0.2 0.2", "a dog, number {i}", "cat\ndog{i}"])
def test_boxes_and_captions_are_no_labels(tmp_path: Path, text: str) -> None:
    files = (f"{i}.txt = {text.format(i=i % 2 if '0.5' in text else i)}" for i in range(8))
    source = labelled(tmp_path, "*.png 8", *files)
    assert len(source.class_names) == 1
    assert "8 .txt files" in source.notices[0]


# --- the option ------------------------------------------------------------------------------------------------------


def test_where_the_table_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "set", ["*.png 8", f"l.csv = {simple(8)}"])
    monkeypatch.chdir(tmp_path)
    for given in ("l.csv", "set/l.csv", "gone/l.csv", str(tmp_path / "set" / "l.csv")):
        assert of(labelled(tmp_path / "set", labels=given)) == EXPECTED
    (tmp_path / "l.csv").write_text(simple(4))
    assert len(of(labelled(tmp_path / "set", labels="l.csv"))) == 4
    with raises("path-not-found", "absent.csv", "set", "current folder"):
        labelled(tmp_path / "set", labels="absent.csv")
    with raises("options-conflict", "labels", ".npz"):
        find_source(None, None, Data(labels="l.csv"))


def test_labels_change_the_stamp(tmp_path: Path) -> None:
    stamp = labelled(tmp_path, "*.png 8", f"l.csv = {simple(8)}").stamp
    (tmp_path / "l.csv").write_text(simple(8).replace("cat", "owl"))
    assert labelled(tmp_path).stamp != stamp


@pytest.mark.slow
def test_a_run_remembers_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "set", [])
    for i in range(40):
        (tmp_path / "set" / f"{i}.png").write_bytes(picture(i))
    (tmp_path / "own.csv").write_text(rows(40, lambda i: f"{i}.png,{i // 3},{PETS[i % 2]}", "image,age,kind"))
    monkeypatch.chdir(tmp_path)
    options = "--width 4 --batch 8 --latent-dim 6 --class-dim 4 --precision fp32 --snapshots 2 --live-images 0"
    options += " --labels own.csv --label-column kind --split 50/25/25 --out run"
    train = ["train", "set", *options.split()]
    for command in (
        [*train, "--images", "64"],
        [*train, "--images", "96"],
        ["score", "run", "-n", "20"],
        ["replay", "run", "--at", "64"],
    ):
        status, out, err = call(monkeypatch, capsys, *command)
        assert status == 0, err
        assert command[0] != "train" or "own.csv (column kind)" in out + err
    assert str(tmp_path) not in (Path("run") / "generator" / "config.json").read_text()


# --- what looks like labels and is none ------------------------------------------------------------------------------


def coco(*categories: int) -> str:
    """A JSON as COCO writes it, of four images; further categories are those of objects in the first ones."""
    images = [{"id": i, "file_name": f"{i}.png", "license": 1 + i % 2} for i in range(4)]
    objects = [{"image_id": i % 4, "category_id": number} for i, number in enumerate(categories)]
    names = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return json.dumps({"images": images, "annotations": objects, "categories": names})


def test_cocos_json_labels_images_of_one_category(tmp_path: Path) -> None:
    one_each = labelled(tmp_path / "a", "*.png 4", f"animals.json = {coco(1, 2, 1, 2, 1)}")
    assert of(one_each) == {f"{i}.png": PETS[i % 2] for i in range(4)}
    several = labelled(tmp_path / "b", "*.png 4", f"animals.json = {coco(1, 2, 1, 2, 2)}")
    assert several.class_names == ("b",)  # and not the licences 1 and 2
    assert "1 of 4 images" in several.notices[0]
    with raises("labels-several", "animals.json", "1 of 4 images"):
        labelled(tmp_path / "b", labels="animals.json")


@pytest.mark.parametrize("damage", ['"id": 0, ', '"image_id": 0, ', '"name": "cat"'])
def test_a_damaged_coco_json_is_no_table(tmp_path: Path, damage: str) -> None:
    source = labelled(tmp_path, "*.png 4", f"animals.json = {coco(1, 2, 1, 2).replace(damage, '')}")
    assert len(source.class_names) == 1
    with raises("labels-invalid", "animals.json"):
        labelled(tmp_path, labels="animals.json")


@pytest.mark.parametrize(
    "table",
    [
        "list_eval_partition.csv = " + rows(8, lambda i: f"{i}.png,{i // 3}", "image_id,partition"),
        "list_eval_partition.txt = " + rows(8, lambda i: f"{i}.png {i // 3}"),
        "map.json = " + json.dumps({str(i): "abcd"[i // 2] for i in range(8)}),
    ],
)
def test_parts_and_names_of_numbers_are_no_classes(tmp_path: Path, table: str) -> None:
    assert len(labelled(tmp_path, "*.png 8", table).class_names) == 1


def test_a_table_called_a_split_may_hold_labels(tmp_path: Path) -> None:
    words = rows(8, lambda i: f"{i}.png,{PETS[i % 2]}", "id,kind")
    assert of(labelled(tmp_path / "a", "*.png 8", f"train_split.csv = {words}")) == EXPECTED
    numbers = rows(8, lambda i: f"{i}.png,{i % 2}", "id,kind")
    assert labelled(tmp_path / "b", "*.png 8", f"my_set.csv = {numbers}").class_names == ("0", "1")
    assert "--label-column kind" in labelled(tmp_path / "c", "*.png 8", f"split.csv = {numbers}").notices[0]


def test_columns_of_several_labels_are_refused_in_words(tmp_path: Path) -> None:
    table = rows(8, lambda i: f"{i}.png,{i % 2},{i // 2 % 2}", "image,cat,dog")
    source = labelled(tmp_path, "*.png 8", f"l.csv = {table}")
    assert len(source.class_names) == 1
    with raises("labels-several", "l.csv", "cat, dog", "--label-column"):
        labelled(tmp_path, labels="l.csv")
    assert labelled(tmp_path, labels="l.csv", label_column="dog").class_names == ("0", "1")


def test_several_labels_in_a_cell_are_said(tmp_path: Path) -> None:
    table = rows(9, lambda i: f"{i}.png,{('rust', 'scab', 'rust scab')[i % 3]}", "image,label")
    source = labelled(tmp_path, "*.png 9", f"l.csv = {table}")
    assert len(source.class_names) == 3
    assert "3 images" in source.notices[0]
    assert "rust scab" in source.notices[0]
    two_words = table.replace("rust scab", "no finding")
    assert labelled(tmp_path / "b", "*.png 9", f"l.csv = {two_words}").notices == ()


def test_a_spreadsheet_is_to_be_saved_as_csv(tmp_path: Path) -> None:
    make(tmp_path, ["*.png 4", "labels.xlsx = PK"])
    with raises("labels-invalid", "labels.xlsx", "CSV"):
        labelled(tmp_path, labels="labels.xlsx")


def test_the_first_line_that_excel_reads_is_no_row(tmp_path: Path) -> None:
    assert of(labelled(tmp_path, "*.png 8", f"l.csv = sep=;\n{simple(8).replace(',', ';')}")) == EXPECTED
