"""What the images of a set have in common: size, channels, window; and what is said of it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ptarmigan.config import Data, Model, resolve
from ptarmigan.core.types import ImageSpec
from ptarmigan.data import open_dataset
from ptarmigan.data.decode import (
    Look,
    Values,
    choose_channels,
    choose_size,
    choose_window,
)
from ptarmigan.networks import build
from support import at_most, raises
from test_data_decode import ALPHA, COLOUR, GREY, png, saved


def values_of(*images: np.ndarray) -> list[Values]:
    return [Values(float(x.min()), float(x.max()), x.ravel().astype(float), True) for x in images]


def test_the_window_is_exact_where_the_range_is_used_and_robust_where_it_is_not() -> None:
    even = np.linspace(100, 4000, 40_000)
    assert choose_window(values_of(even)) == (100, 4000)
    hot = even.copy()
    hot[[7, 9]] = 65535, 0
    assert choose_window(values_of(even, hot)) == pytest.approx((104, 3996), abs=5)
    spot = np.zeros(40_000)
    spot[3] = 900  # nearly all pixels are equal: the rest is what there is to see
    assert choose_window(values_of(spot)) == (0, 900)


@pytest.mark.parametrize(
    ("sizes", "expected"),  # height, width
    [
        ([(28, 28)], (28, 28)),
        ([(32, 32), (500, 40), (33, 33)], (32, 32)),
        ([(48, 50)], (48, 48)),
        ([(64, 64)], (64, 64)),
        ([(48, 96)], (48, 96)),
        ([(96, 48)], (96, 48)),
        ([(1024, 768)], (84, 64)),
        ([(1080, 1920), (720, 1280)], (64, 112)),
        ([(40, 60)] * 8 + [(60, 40)] * 2, (32, 48)),
        ([(40, 60)] * 7 + [(60, 40)] * 3, (32, 32)),
        ([(31, 90)], (28, 80)),
        ([(200, 2000)], (16, 160)),
        ([(2000, 50)], (256, 16)),
        ([(27, 40)], (27, 40)),
        ([(20, 24), (20, 24), (90, 90)], (20, 24)),
        ([(8, 900)], (16, 256)),
        ([(20, 20), (20, 20), (20, 30), (20, 30)], (20, 20)),
    ],
)  # fmt: skip
def test_size_from_the_data(sizes: list[tuple[int, int]], expected: tuple[int, int]) -> None:
    assert choose_size(sizes, Data()) == expected


@pytest.mark.parametrize("network", ["dcgan", "r3gan", "resnet"])
@pytest.mark.parametrize("sides", [(28, 80), (112, 64), (16, 160), (256, 16), (24, 112), (84, 64), (20, 100)])
def test_every_network_has_the_sizes_that_are_chosen(network: str, sides: tuple[int, int]) -> None:
    for least_side in (2, 3, 4):
        model = Model(network=network, width=1, latent_dim=2, class_dim=2, least_side=least_side)  # type: ignore[arg-type]
        generator, discriminator = build(ImageSpec(*sides, 1, ("a", "b")), model, seed=0)
        images = generator(torch.zeros(2, 2), torch.tensor([0, 1]))
        assert images.shape == (2, 1, *sides)
        assert discriminator(images, torch.tensor([0, 1])).logits.shape == (2,)


def test_size_and_channels_from_the_config() -> None:
    assert choose_size([(28, 28)], Data(size="48x64")) == (48, 64)
    assert choose_channels([Look(True, True)], Data(channels=1)) == 1


@pytest.mark.parametrize(
    ("kinds", "channels"),  # g grey, c colour, capital: with alpha
    [
        ("g", 1), ("ggc", 3), ("gc", 3), ("Ccg", 3), ("Ggg", 1), (20 * "g" + "c", 1), (19 * "g" + "c", 3),
        ("CCc", 4), ("Cc", 3), ("GGg", 4), ("GCcc", 3), ("GGcC", 4),
    ],
)  # fmt: skip
def test_channels_by_what_the_pixels_show(kinds: str, channels: int) -> None:
    looks = [Look(coloured=kind in "cC", transparent=kind.isupper()) for kind in kinds]
    assert choose_channels(looks, Data()) == channels


def notices_of(folder: Path, images: list[np.ndarray], data: Data = Data(), ending: str = "png") -> list[str]:  # noqa: B008
    """What is said of a set of these images, apart from their number."""
    (folder / "c").mkdir(parents=True)
    for i, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / f"c/{i:03}.{ending}")
    return [notice for notice in open_dataset(folder, data).notices if "set aside" not in notice]


def test_what_becomes_of_colour_is_said_with_counts(tmp_path: Path) -> None:
    def said(*facts: object, of: list[np.ndarray], channels: int) -> None:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        (notice,) = notices_of(folder, of)
        assert all(str(fact) in notice for fact in facts), notice
        assert open_dataset(folder, Data()).spec.channels == channels

    as_colour = np.dstack([GREY] * 3)
    said("31 of 60", "--channels 1", of=[GREY] * 31 + [COLOUR] * 29, channels=3)
    said("2 of 60", "--channels 3", of=[GREY] * 58 + [COLOUR] * 2, channels=1)
    said("9 of 9", of=[as_colour] * 9, channels=1)
    said("2 of 9", "--channels 4", of=[COLOUR] * 7 + [ALPHA] * 2, channels=3)
    said("5 of 9", "--channels 3", of=[COLOUR] * 4 + [ALPHA] * 5, channels=4)
    opaque = np.dstack([COLOUR, np.full((20, 24), 255, np.uint8)])
    assert notices_of(tmp_path / "opaque", [opaque] * 9) == []
    assert open_dataset(tmp_path / "opaque", Data()).spec.channels == 3


def test_a_large_set_is_judged_by_a_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptarmigan.data.read.LOOKED_AT", 10)
    (notice,) = notices_of(tmp_path / "set", [GREY] * 20 + [COLOUR] * 20)
    assert "5 of 10" in notice
    assert "40" in notice


def test_transparent_images_are_padded_so_that_nothing_is_cut_off(tmp_path: Path) -> None:
    wide, square = np.zeros((48, 96, 4), np.uint8), np.zeros((48, 48, 4), np.uint8)
    wide[8:40, :, 0], wide[8:40, :, 3] = 200, 255
    square[16:32, 16:32, 3] = 255
    images = [wide, *[square] * 3]
    (notice,) = notices_of(tmp_path / "sprites", images)
    assert "4 of 4 images have transparency" in notice
    assert open_dataset(tmp_path / "sprites", Data()).images[0][..., 3].mean() == 255 / 3
    assert "cropped" in notices_of(tmp_path / "cropped", images, Data(fit="crop"))[1]


def test_what_the_crop_cuts_is_said(tmp_path: Path) -> None:
    wide, square = np.zeros((48, 96), np.uint8), np.zeros((48, 48), np.uint8)
    assert notices_of(tmp_path / "wide", [wide] * 9) == []
    (notice,) = notices_of(tmp_path / "forced", [wide] * 9, Data(size="48"))
    assert all(fact in notice for fact in ("48x48", "50 %", "9 of 9", "--fit pad", "--fit stretch", "--size"))
    (notice,) = notices_of(tmp_path / "mixed", [wide, *[square] * 3])
    assert all(fact in notice for fact in ("50 %", "1 of 4"))
    assert notices_of(tmp_path / "rounded", [np.zeros((300, 400), np.uint8)] * 9) == []  # 64x84 cuts 1.6 %
    assert notices_of(tmp_path / "padded", [wide, *[square] * 3], Data(fit="pad")) == []


def test_a_hot_pixel_does_not_darken_the_set(tmp_path: Path) -> None:
    ramp = np.linspace(100, 2500, 480).reshape(20, 24).astype(np.uint16)
    hot = ramp.copy()
    hot[3, 3] = 65535
    (notice,) = notices_of(tmp_path / "set", [hot, *[ramp] * 9])
    assert all(fact in notice for fact in ("10 images of 16 bits", "99.8 %", "65535", "--window"))
    assert open_dataset(tmp_path / "set", Data()).images.mean() == pytest.approx(127, abs=2)
    (notice,) = notices_of(tmp_path / "given", [hot, *[ramp] * 9], Data(window="0,4095"))
    assert "4095" in notice
    assert open_dataset(tmp_path / "given", Data(window="0,4095")).images[1].max() == round(2500 / 4095 * 255)


@pytest.mark.parametrize("window", ["5", "a,b", "3,3", "9,1", "nan,2", "0,inf", "1,2,3"])
def test_a_window_is_two_values(window: str) -> None:
    with raises("value-invalid", "window", "0,4095"):
        resolve({"window": window})
    assert resolve({"window": "-5,3.5"}).data.window == "-5,3.5"


def test_frames_and_deep_colour_are_said_and_the_formats_counted(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (28, 28), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    (tmp_path / "c").mkdir()
    for i in range(3):
        saved(tmp_path / "c", f"{i}.gif", frames[0], save_all=True, append_images=frames[1:])
    rows = b"".join(b"\0" + bytes(range(28 * 6)) for _ in range(28))
    (tmp_path / "c/x.png").write_bytes(png(28, 28, 2, rows, depth=16))
    data = open_dataset(tmp_path, Data())
    assert data.formats == ("GIF", "PNG")
    assert any("3 files" in notice for notice in data.notices)
    assert any("1 image " in notice and "16 bits" in notice for notice in data.notices)


def test_bombs_are_left_out_in_little_memory(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    for i in range(2):
        (tmp_path / f"c/bomb{i}.png").write_bytes(png(1, 80_000_000, 6, bytes(100)))
    with at_most(60):
        assert notices_of(tmp_path / "d", [COLOUR] * 4) == []
        os.replace(tmp_path / "c", tmp_path / "d/c2")
        notices = open_dataset(tmp_path / "d", Data()).notices
    assert any("2 of 6 files" in notice and "bomb0.png (" in notice for notice in notices)
