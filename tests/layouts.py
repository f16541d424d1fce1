"""Folder layouts that people have: tools/draw_layouts.py runs them for docs/folders.md, and the tests hold them to it.

A layout is a list of entries.  `{cat,dog}/*.png 20` is 20 images in each of two folders, `a -> b` is a link, `a = text`
is a file with that text, `a fifo` is a FIFO, and `a/` is an empty folder.  What an entry holds follows from its ending.
"""

from __future__ import annotations

import io
import os
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ptarmigan.core.types import UserError, printable
from ptarmigan.data.arrays import HELD_OUT, SELECT, UNDECIDED
from ptarmigan.data.index import FolderSource, find_source

FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".JPG": "JPEG", ".jpeg": "JPEG", ".JPEG": "JPEG", ".jfif": "JPEG", ".tif": "TIFF",
    ".nef": "TIFF", ".ppm": "PPM", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP", ".dat": "PNG", "": "JPEG",
}  # fmt: skip


class Understood(NamedTuple):
    """What a layout was understood to be: of an error, its text alone."""

    classes: tuple[str, ...]
    parts: tuple[int, int, int]  # images to divide, of the select part, held out
    said: tuple[str, ...]  # the sentence, then the notices


LAYOUTS: dict[str, list[str]] = {
    # classes
    "class folders": ["{cat,dog}/*.png 20"],
    "folders in class folders": ["{cat,dog}/{2023,2024}/*.png 10"],
    "one folder in each class folder": ["{cat,dog}/images/*.png 20"],
    "groups of classes": ["animals/{cat,dog}/*.png 10", "vehicles/{bus,car}/*.png 10"],
    "images in one folder": ["*.png 40"],
    "images in one folder, named by class": ["cat.*.jpg 20", "dog.*.jpg 20"],
    "images in one folder, named by number and class": ["{0,1,2,3,4}*_cat.jpg 2", "{0,1,2,3,4}*_dog.jpg 2"],
    "folders of a camera": ["DCIM/100APPLE/*.JPG 10", "DCIM/101APPLE/*.JPG 10", "DCIM/101APPLE/*.HEIC 2"],
    "folders of days": ["{2023-01-05,2023-02-11}/*.jpg 10"],
    "one class folder": ["cat/*.png 40"],
    "numbered folders": ["{0,1,2,10,11}/*.png 8"],
    "images beside class folders": ["{cat,dog}/*.png 20", "cover.png"],
    "a class folder without images": ["{cat,dog}/*.png 20", "owl/"],
    "one small folder beside many images": ["*.jpg 40", "small/*.jpg 3"],
    # parts
    "parts with class folders": ["{train,val,test}/{cat,dog}/*.png 10"],
    "Training and Test, and another folder": ["{Training,Test}/{apple,kiwi}/*.jpg 10", "test-multiple_fruits/*.jpg 3"],
    "parts without class folders": ["train/*.png 30", "test/*.png 10"],
    "a test part without labels": ["train/{cat,dog}/*.png 20", "test/*.png 10"],
    "a test part with a folder of no class": ["train/{cat,dog}/*.png 20", "test/unknown/*.png 10"],
    "dev and eval": ["{train,dev,eval}/{cat,dog}/*.png 10"],
    "TRAIN and TEST": ["{TRAIN,TEST}/{cat,dog}/*.png 10"],
    "a training part alone": ["train/{cat,dog}/*.png 20"],
    "no training part": ["{val,test}/{cat,dog}/*.png 10"],
    "train_images and test_images": ["train_images/*.png 30", "test_images/*.png 10"],
    "cars_train and cars_test": ["{cars_train/cars_train,cars_test/cars_test}/*.jpg 10"],
    "a wrapper in each part, and a part without labels": [
        "{seg_train/seg_train,seg_test/seg_test}/{forest,sea}/*.jpg 10", "seg_pred/seg_pred/*.jpg 5",
    ],
    "images below each class of one part alone": [
        "train/{n01443537,n01629819}/images/*.JPEG 10", "train/n01443537/n01443537_boxes.txt = 0.JPEG 0 0 9 9",
        "{val,test}/images/*.JPEG 5", "val/val_annotations.txt = 0.JPEG n01443537", "wnids.txt = n01443537",
    ],
    "parts by year, and annotations": ["{train2017,val2017}/*.jpg 10", "annotations/instances_val2017.json = {}"],
    "numbered classes, a test part without labels": [
        "Train/{0,1,10}/*.png 10", "Test/*.png 10", "Meta/*.png 3", "{Train,Test,Meta}.csv",
    ],
    "parts beside a copy of them": ["{train,test,chest_xray/train,chest_xray/test}/{NORMAL,PNEUMONIA}/*.jpeg 5"],
    "class folders beside a test part": ["{cat,dog,test/cat,test/dog}/*.png 10"],
    "class folders beside a test part without labels": ["{cat,dog,test}/*.png 10"],
    "parts in each class folder": ["{cat,dog}/{train,test}/*.png 10"],
    "the classes again in a folder beside them": ["{cat,dog,generated/cat,generated/dog}/*.png 10"],
    "a class named train": ["{boat,car,train}/*.png 10"],
    "classes named like parts": ["{valid,invalid}/*.png 10"],
    "a class in the test part alone": ["train/{a,b}/*.png 10", "test/{a,b,c}/*.png 5"],
    "defects in the test part alone": [
        "train/good/*.png 20", "test/{good,broken}/*.png 5", "ground_truth/broken/*.png 5",
    ],
    "a training part without labels": ["train/*.png 30", "test/{cat,dog}/*.png 10"],
    "a folder beside its test part": ["{flowers,flowers-test-set}/{rose,tulip}/*.png 10"],
    "domains in parts": ["{trainA,trainB,testA,testB}/*.jpg 10"],
    "images said to have no labels": ["{train,test}/{cat,dog}/*.png 10", "unlabeled/*.png 20"],
    # the same folders in several folders
    "set variants": ["{color,grayscale,segmented}/{apple,corn}/*.jpg 10"],
    "folds": ["{fold1,fold2}/{cat,dog}/*.png 10"],
    "several data sets": ["{100x100,original}/{Training,Test}/{apple,kiwi}/*.jpg 10"],
    # names
    "classes written in another case in the test part": ["train/{Cat,Dog}/*.png 10", "test/{cat,dog}/*.png 5"],
    "classes that differ in case": ["{A,a,b}/*.png 10"],
    "one name in two Unicode forms": ["caf\u00e9/*.png 10", "cafe\u0301/*.png 10", "tea/*.png 10"],
    "a name that is not UTF-8": ["caf\udce9/*.png 10", "tea/*.png 10"],
    # what lies around
    "a wrapper": ["archive/photos/{cat,dog}/*.png 20"],
    "a wrapper of images": ["images/*.png 40"],
    "images/ beside annotations": [
        "images/{001.Albatross,002.Auklet}/*.jpg 20", "attributes/a.txt = 1 2", "classes.txt = 1 001.Albatross",
    ],
    "images/ beside masks": ["images/*.jpg 40", "annotations/trimaps/*.png 40"],
    "images/ and masks/ in each class": ["{COVID,Normal}/{images,masks}/*.png 20", "COVID.metadata.xlsx"],
    "thumbnails beside images": ["images/*.jpg 20", "thumbnails/*.jpg 20"],
    "masks beside their images": ["{benign,malignant}/a*.png 10", "{benign,malignant}/a*_mask.png 10"],
    "images/ in a wrapper beside masks": ["birds/images/{wren,crow}/*.jpg 10", "segmentations/{wren,crow}/*.png 10"],
    "labels beside parts of images": ["images/{train,val}/*.jpg 10", "labels/{train,val}/*.txt 10"],
    "what systems leave": [
        "{cat,dog}/*.png 20", "{$RECYCLE.BIN,@eaDir,__MACOSX/cat,cat/@eaDir,.Trash-1000}/*.png 3", "cat/._0.png = x",
        "{cat/,}Thumbs.db", "{cat/,}desktop.ini",
    ],
    "runs beside the class folders": [
        "{cat,dog}/*.png 20", "runs/photos-1/{.ptarmigan-run,config.json}", "runs/photos-1/samples/*.png 3",
    ],
    "a run beside images": ["*.png 10", "run/{checkpoints/000.json,config.json}", "run/samples/*.png 20"],
    # labels in files
    "metadata.csv": ["*.png 4", "metadata.csv = file_name,label\n0.png,cat\n1.png,dog\n2.png,cat\n3.png,dog"],
    "labels.csv with ids and parts": [
        "images/*.png 6", "labels.csv = id;breed;split\n0;cat;train\n1;dog;train\n2;cat;val\n3;dog;test\n4;dog;train",
    ],
    "train.csv and test.csv": [
        "*.png 6", "train.csv = 0.png,cat\n1.png,dog\n2.png,cat\n3.png,dog", "test.csv = 4.png,cat\n5.png,dog",
    ],
    "one-hot columns": ["*.png 4", "truth.csv = image,cat,dog\n0,1,0\n1,0,1\n2,1,0\n3,0,1"],
    "columns of several labels": ["*.png 4", "truth.csv = image,cat,dog\n0,1,1\n1,0,1\n2,1,0\n3,0,0"],
    "several labels in a cell": [
        "*.png 6", "labels.csv = image,label\n0,rust\n1,scab\n2,rust scab\n3,rust\n4,scab\n5,scab",
    ],
    "several columns": ["*.png 4", "table.csv = image,age,sex\n0,20,f\n1,30,m\n2,20,m\n3,30,f"],
    "no column of labels": ["*.png 3", "captions.csv = image,text\n0.png,a cat\n1.png,a dog\n2.png,a hat"],
    "numbers named by classes.txt": [
        "*.png 4", "labels.txt = 0.png 0\n1.png 1\n2.png 0\n3.png 1", "classes.txt = cat\ndog",
    ],
    "numbers named in a JSON": [
        "*.png 4", "train.csv = image_id,label\n0.png,0\n1.png,1\n2.png,1\n3.png,0", 'map.json = {"0": "a", "1": "b"}',
    ],
    "a list of parts": ["*.png 4", "list_eval_partition.txt = 0.png 0\n1.png 0\n2.png 1\n3.png 1"],
    "parts by their usual names": [
        "*.png 6", "icml.csv = path,emotion,Usage\n0.png,sad,Training\n1.png,joy,Training\n2.png,sad,PublicTest\n"
        "3.png,joy,PrivateTest\n4.png,joy,Training\n5.png,sad,Training",
    ],
    "labels.csv beside class folders": [
        "{cat,dog}/*.png 2", "labels.csv = path,label\ncat/0.png,cat\ncat/1.png,cat\ndog/0.png,cat\ndog/1.png,dog",
    ],
    "images spread over numbered folders": [
        "images_part_1/a*.jpg 2", "images_part_2/b*.jpg 2", "metadata.csv = image_id,dx\na0,nv\na1,mel\nb0,nv\nb1,mel",
    ],
    "dataset.json and shards": [
        "{00000,00001}/*.png 2",
        'dataset.json = {"labels": [["00000/0.png", 0], ["00000/1.png", 1], ["00001/0.png", 1], ["00001/1.png", 0]]}',
    ],
    "a label file for each image": ["*.jpg 4", "{0,2}.cls = 0", "{1,3}.cls = 1"],
    "tables that are not read": ["*.png 4", "labels.xlsx", "labels.csv = a,b\n1,2,3"],
    # kinds of files
    "other endings": ["scan/*.tif 10", "sign/*.ppm 10", "web/*.jfif 10", "move/*.webp 10"],
    "no endings": ["{a,b}/* 20"],
    "endings that lie": ["cat/*.dat 10", "cat/notes.png = a text", "dog/*.png 10"],
    "raw photographs beside JPEGs": ["{cat,dog}/*.jpg 20", "{cat,dog}/*.nef 20"],
    "an archive beside class folders": ["{cat,dog}/*.png 20", "more.zip = PK"],
    "documents and a model": ["{cat,dog}/*.png 20", "{README.md,licence.txt,model.h5}"],
    "an archive alone": ["photos.zip = PK"],
    "IDX files below": ["MNIST/raw/train-{images-idx3,labels-idx1}-ubyte.gz"],
    "nothing": [],
    "a run": [".ptarmigan-run", "samples/*.png 3"],
    # links and the like
    "files that iCloud keeps online": ["{cat,dog}/*.jpg 10", "cat/.a.jpg.icloud = x"],
    "a link to the folder above": ["{cat,dog}/*.png 10", "dog/loop -> .."],
    "links to images elsewhere in the folder": [
        ".store/*.png 2", "cat/a.png -> ../.store/0.png", "dog/b.png -> ../.store/1.png",
    ],
    "a link that leaves the folder": ["{cat,dog}/*.png 10", "owl -> /usr"],
    "a broken link": ["{cat,dog}/*.png 10", "cat/gone.png -> nowhere.png"],
    "a FIFO": ["{cat,dog}/*.png 10", "cat/pipe.png fifo"],
}  # fmt: skip


def make(folder: Path, entries: list[str]) -> None:
    """Make the files of a layout; all images of one format are the same one."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        pattern, link, target = entry.partition(" -> ")
        pattern, _, text = pattern.partition(" = ")
        match = re.fullmatch(r"(.*?)(?: ([0-9]+|fifo))?", pattern, re.DOTALL)
        assert match is not None
        for name in expand(match[1]):
            for i in range(int(match[2]) if match[2] and match[2].isdecimal() else 1):
                path = folder / name.replace("*", str(i))
                path.parent.mkdir(parents=True, exist_ok=True)
                if link:
                    path.symlink_to(target)
                elif match[2] == "fifo":
                    os.mkfifo(path)
                elif name.endswith("/"):
                    path.mkdir()
                elif path.suffix in FORMATS and not text and not path.name.startswith("."):
                    path.write_bytes(image(FORMATS[path.suffix]))
                else:
                    path.write_text(text or "x")


def expand(pattern: str) -> list[str]:
    """'{a,b}/c' -> ['a/c', 'b/c']."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        return [pattern]
    return [
        name
        for choice in match[1].split(",")
        for name in expand(pattern[: match.start()] + choice + pattern[match.end() :])
    ]


@cache
def image(form: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(out, form)
    return out.getvalue()


def understand(folder: Path) -> Understood:
    """What `find_source` makes of a folder."""
    try:
        source = find_source(folder)
    except UserError as error:
        return Understood((), (0, 0, 0), (f"error: {error}",))
    if not isinstance(source, FolderSource):
        return Understood((), (0, 0, 0), (source.understood,))
    parts = tuple(int((source.source_part == part).sum()) for part in (UNDECIDED, SELECT, HELD_OUT))
    names = tuple(printable(name) for name in source.class_names)
    return Understood(names, parts, (source.understood, *source.notices))  # type: ignore[arg-type]
