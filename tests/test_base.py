"""The set that base models are trained on: every class can be drawn, picture by picture alike, and `train` reads it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from ptarmigan.config import Data
from ptarmigan.data import open_dataset


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "tools" / "base"))
    return importlib.import_module("draw")


def test_every_class_can_be_drawn_and_its_pictures_differ_from_each_other(draw: ModuleType) -> None:
    assert len(draw.NAMES) >= 100
    assert tuple(sorted(draw.NAMES)) == draw.NAMES
    pictures = np.stack([draw.draw(i, 32, 0) for i in range(2 * len(draw.NAMES))])
    assert (pictures.shape[1:], pictures.dtype) == ((32, 32, 3), np.uint8)
    assert len(np.unique(pictures.reshape(len(pictures), -1), axis=0)) == len(pictures)
    assert all(picture.std() > 2 for picture in pictures)  # none is blank


def test_a_picture_depends_on_its_number_and_the_seed_alone(draw: ModuleType) -> None:
    one, again, seeded = draw.draw(12, 16, 3), draw.draw(12, 16, 3), draw.draw(12, 16, 4)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, seeded)


def test_the_file_is_a_set_of_classes_that_train_reads_and_processes_do_not_change_it(
    draw: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(draw, "CHUNK", 100)
    out, sheet = tmp_path / "set.npz", tmp_path / "sheet.png"
    arguments = [out, "--images", 2 * len(draw.NAMES), "--size", 16, "--seed", 3, "--processes", 2, "--sheet", sheet]
    monkeypatch.setattr(sys, "argv", ["draw.py", *map(str, arguments)])
    draw.main()
    assert f"{len(draw.NAMES)} classes" in capsys.readouterr().out
    dataset = open_dataset(out, Data(size="16", split="none"))
    assert (dataset.spec.height, dataset.spec.channels, dataset.spec.class_names) == (16, 3, draw.NAMES)
    for i in (0, 12, 101, 249):
        assert np.array_equal(dataset.images[i], draw.draw(i, 16, 3))
        assert draw.NAMES[dataset.labels[i]] == draw.NAMES[i % len(draw.NAMES)]
    with Image.open(sheet) as picture:
        assert picture.size == (2 * 2 * 16, -(-len(draw.NAMES) // 2) * 16)
