"""The binary version of CIFAR-10 and CIFAR-100: records of one or two labels and an image of 3x32x32 bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptarmigan.core.types import OnProgress, UserError
from ptarmigan.data.arrays import (
    HELD_OUT,
    UNDECIDED,
    ArrayInMemory,
    Arrays,
    StoredArray,
    Table,
    assemble,
    read_class_names,
)

CIFAR_IMAGES = re.compile(r"data_batch_[0-9]+\.bin|test_batch\.bin|train\.bin|test\.bin")
CIFAR_NAMES = re.compile(r"batches\.meta\.txt|fine_label_names\.txt")
CIFAR_PICKLES = re.compile(r"data_batch_[0-9]+|test_batch|batches\.meta|train|test|meta")
PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Records(StoredArray):
    """The images [N,3,32,32] of records that begin with `skip` bytes of labels."""

    skip: int = 1

    def records(self) -> Iterator[NDArray[Any]]:
        """Chunks [M,skip+PIXELS] in order."""
        shape = (self.shape[0], self.skip + PIXELS)
        yield from StoredArray(self.where, shape, self.dtype, self.open).chunks()

    def chunks(self) -> Iterator[NDArray[Any]]:
        yield from (chunk[:, self.skip :].reshape(-1, *self.shape[1:]) for chunk in self.records())


def read_cifar(folder: Path, names: list[str], on_progress: OnProgress | None = None) -> Arrays:
    """The training batches, then the test batch, which is held out; of CIFAR-100's two labels, the fine one.

    Raises UserError: data-incomplete without a training batch, file-damaged for a file of another length.
    """
    files = sorted(name for name in names if CIFAR_IMAGES.fullmatch(name))
    train = [name for name in files if not name.startswith("test")]
    if not train:
        text = f"{folder} holds only a test part ({files[0]}): the training files are missing"
        raise UserError(text, "data-incomplete")
    fine = "train.bin" in train
    tables = []
    for name in [*train, *(name for name in files if name not in train)]:
        images = _open(folder / name, 2 if fine else 1)
        labels = np.concatenate([chunk[:, images.skip - 1] for chunk in images.records()])
        part = HELD_OUT if name not in train else UNDECIDED
        tables.append(Table(images, ArrayInMemory.of(f"the labels of {images.where}", labels), part))
    names_file = "fine_label_names.txt" if fine else "batches.meta.txt"
    class_names = read_class_names(folder / names_file) if names_file in names else None
    notices = ["of the two labels of each image the fine one is the class; the coarse one is not used"] if fine else []
    found = [Path(table.images.where).name for table in tables]
    return assemble(tables, class_names, str(folder / names_file), found, notices, on_progress=on_progress)


def _open(path: Path, skip: int) -> Records:
    count, rest = divmod(path.stat().st_size, skip + PIXELS)
    if rest or not count:
        text = f"{path} has {path.stat().st_size:,} bytes, not a number of records of {skip + PIXELS:,} bytes"
        raise UserError(f"{text}: it is damaged, or not one of CIFAR-{100 if skip == 2 else 10}", "file-damaged")
    return Records(str(path), (count, 3, 32, 32), np.dtype(np.uint8), lambda: path.open("rb"), skip=skip)


def check_no_pickles(folder: Path, names: list[str]) -> None:
    """Raise UserError (no-images) if the files are those of CIFAR's Python version."""
    if len([name for name in names if CIFAR_PICKLES.fullmatch(name)]) < 3:
        return
    raise UserError(
        f"{folder} holds the Python version of CIFAR, pickles, which may run any program when they are loaded: "
        "download its binary version, whose files are called data_batch_1.bin or train.bin, and give that folder",
        "no-images",
    )
