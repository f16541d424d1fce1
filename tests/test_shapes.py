"""The drawn data set is the same each time and in both formats, `train` reads it, and its judge works."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import judge_shapes
import shapes as drawn
from ptarmigan.config import Data
from ptarmigan.data import open_dataset


def test_an_image_depends_on_its_seed_class_and_number_alone() -> None:
    images = [drawn.draw(*at) for at in ((3, 1, 0), (3, 1, 0), (3, 1, 1), (3, 2, 0), (2, 1, 0))]
    assert [np.array_equal(images[0], image) for image in images] == [True, True, False, False, False]
    assert not np.array_equal(images[0][0, 0], images[4][0, 0])  # the backgrounds differ too
    assert (images[0].shape, images[0].dtype) == ((48, 64, 3), np.uint8)


@pytest.mark.parametrize("shape", drawn.SHAPES)
def test_outlines_fill_the_unit_circle(shape: str) -> None:
    corners = drawn.outline(shape)
    assert np.hypot(*corners.T).max() == pytest.approx(1)
    assert corners.mean(0) == pytest.approx([0, 0], abs=1e-12)
    x, y = corners.T
    area = (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2
    long = (1 - drawn.ARM**2) ** 0.5
    known = {"square": 2, "triangle": 3 * 3**0.5 / 4, "cross": 8 * drawn.ARM * long - 4 * drawn.ARM**2}
    assert abs(area) == pytest.approx(known.get(shape, np.pi), rel=1e-3)


def test_folders_and_the_npz_are_one_data_set_of_ten_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for out in ("few.npz", "few"):
        monkeypatch.setattr(
            sys, "argv", ["shapes.py", str(tmp_path / out), "-n", "2", "--sheet", str(tmp_path / "s.png")]
        )
        drawn.main()
    options = Data(size="48x64", split="none")
    one, two = (open_dataset(tmp_path / out, options, lambda *_: None) for out in ("few.npz", "few"))
    assert one.spec == two.spec
    assert (one.spec.height, one.spec.width, one.spec.channels, len(one.spec.class_names)) == (48, 64, 3, 10)
    assert sorted(drawn.NAMES) == [*one.spec.class_names]
    assert np.array_equal(one.images, two.images)
    assert one.labels.tolist() == two.labels.tolist()
    assert (tmp_path / "s.png").exists()


@pytest.mark.slow
def test_the_judge_of_the_set_puts_noise_farther_from_it_than_its_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in dict(MADE=tmp_path / "judge.safetensors", A_CLASS=30, HELD=100, EPOCHS=6, BATCH=20).items():
        monkeypatch.setattr(judge_shapes, name, value)
    labels = np.repeat(np.arange(10), 10)
    real = np.array([drawn.draw(label, i, 5) for i, label in enumerate(labels)])
    np.savez(tmp_path / "real.npz", arr_0=real, arr_1=labels)
    np.savez(tmp_path / "turned.npz", arr_0=real, arr_1=(labels + 1) % 10)
    noise = np.random.default_rng(0).integers(0, 256, real.shape, np.uint8)
    np.savez(tmp_path / "noise.npz", arr_0=noise, arr_1=labels)
    for names in (("real", "turned", "noise"), ("real",)):  # the second time by the same classifier, not trained again
        monkeypatch.setattr(sys, "argv", ["judge_shapes.py", *(str(tmp_path / f"{name}.npz") for name in names)])
        judge_shapes.main()
    *_, own, turned, noise_line, again = capsys.readouterr().out.splitlines()
    assert own == again
    figures = [
        [float(figure) for figure in re.findall(r"[\d.]+", line.split(".npz: ")[1])]
        for line in (own, turned, noise_line)
    ]
    assert 3 * figures[0][0] < figures[2][0]
    assert figures[0][0] == figures[1][0]
    assert figures[0][3] > 0.8  # textures are easy
    assert figures[0][1] + figures[1][1] <= 1
    assert figures[1][3] == pytest.approx(1 - figures[0][3], abs=1e-3)  # the next class has the other texture
