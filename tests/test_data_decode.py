"""One file to one array: every mode and format, rotation, frames, depth, fit; and what a set chooses."""

from __future__ import annotations

import os
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from ptarmigan.config import Data
from ptarmigan.data import decode as module
from ptarmigan.data import open_dataset
from ptarmigan.data.decode import (
    ImageHeader,
    Limits,
    Look,
    Memory,
    Refused,
    TargetShape,
    Values,
    Window,
    choose_window,
    share_cut,
    to_shape,
)
from support import at_most

AVIF = features.check("avif")
RNG = np.random.default_rng(0)
GREY, COLOUR, ALPHA = (RNG.integers(0, 256, s, np.uint8) for s in ((20, 24), (20, 24, 3), (20, 24, 4)))


def saved(folder: Path, name: str, image: Image.Image, **options: object) -> Path:
    path = folder / name
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def shape(channels: int, height: int = 20, width: int = 24, fit: str = "crop") -> TargetShape:
    return TargetShape(height, width, channels, fit)


def decode(path: Path, target: TargetShape) -> np.ndarray:
    with path.open("rb") as file:
        return module.decode(file, target, Limits())


def read_header(path: Path, limits: Limits | None = None) -> ImageHeader:
    with path.open("rb") as file:
        return module.read_header(file, limits or Limits())


def look(path: Path) -> Look:
    with path.open("rb") as file:
        return module.look(file, Limits())


def read_values(path: Path) -> Values:
    with path.open("rb") as file:
        return module.read_values(file, Limits())


# --- bit for bit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize(
    ("ending", "pixels", "channels"),
    [(ending, *kind) for ending in ("png", "bmp", "webp") for kind in ((GREY, 1), (COLOUR, 3))]
    + [("png", ALPHA, 4), ("webp", ALPHA, 4)],  # Pillow writes no alpha to BMP
)
def test_an_image_of_the_right_size_passes_untouched(
    tmp_path: Path, ending: str, fit: str, pixels: np.ndarray, channels: int
) -> None:
    if channels == 4 and ending != "png":
        pixels = np.dstack([pixels[..., :3], np.full((20, 24), 255, np.uint8)])
    options = {"lossless": True, "exact": True} if ending == "webp" else {}
    path = saved(tmp_path, f"x.{ending}", Image.fromarray(pixels), **options)
    if channels == 4 and ending == "webp":
        channels, pixels = 3, pixels[..., :3]  # opaque alpha is not stored
    out = decode(path, shape(channels, fit=fit))
    assert out.dtype == np.uint8
    assert (out == pixels.reshape(20, 24, channels)).all()


def test_grey_through_three_channels_and_back_is_exact(tmp_path: Path) -> None:
    path = saved(tmp_path, "x.png", Image.fromarray(GREY))
    colour = decode(path, shape(3))
    assert (colour == GREY[..., None]).all()
    assert (decode(saved(tmp_path, "y.png", Image.fromarray(colour)), shape(1))[..., 0] == GREY).all()


def test_cropping_without_scaling_keeps_the_pixels(tmp_path: Path) -> None:
    path = saved(tmp_path, "x.png", Image.fromarray(COLOUR))
    assert (decode(path, shape(3, 20, 20)) == COLOUR[:, 2:22]).all()
    odd = saved(tmp_path, "odd.png", Image.fromarray(COLOUR[:, :23]))
    assert (decode(odd, shape(3, 20, 20)) == COLOUR[:, 1:21]).all()


def test_padding_without_scaling_keeps_the_pixels(tmp_path: Path) -> None:
    path = saved(tmp_path, "x.png", Image.fromarray(COLOUR))
    out = decode(path, shape(3, 24, 24, "pad"))
    assert (out[2:22] == COLOUR).all()
    assert (decode(path, shape(3, 20, 30, "pad"))[:, 3:27] == COLOUR).all()


# --- modes -------------------------------------------------------------------------------------------------


def test_alpha_is_composed_on_white_unless_kept(tmp_path: Path) -> None:
    pixels = np.zeros((20, 24, 4), np.uint8)
    pixels[:, 12:] = (200, 100, 0, 255)
    pixels[:, 6:12] = (0, 0, 0, 128)
    path = saved(tmp_path, "x.png", Image.fromarray(pixels))
    assert read_header(path).alpha
    out = decode(path, shape(3))
    assert out[0, 0].tolist() == [255, 255, 255]
    assert out[0, 7].tolist() == [127, 127, 127]
    assert out[0, 13].tolist() == [200, 100, 0]
    assert (decode(path, shape(4)) == pixels).all()


def test_grey_with_alpha(tmp_path: Path) -> None:
    alpha = np.zeros((20, 24), np.uint8)
    alpha[:, 12:] = 255
    path = saved(tmp_path, "x.png", Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(alpha))))
    assert read_header(path) == ImageHeader(20, 24, colour=False, alpha=True, format="PNG")
    out = decode(path, shape(1))[..., 0]
    assert (out[:, :12] == 255).all()
    assert (out[:, 12:] == GREY[:, 12:]).all()


@pytest.mark.parametrize("ending", ["png", "gif"])
def test_palette_with_transparency(tmp_path: Path, ending: str) -> None:
    image = Image.new("P", (24, 20), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (0, 0, 12, 20))
    path = saved(tmp_path, f"x.{ending}", image, transparency=0)
    assert read_header(path).alpha
    assert read_header(path).colour
    out = decode(path, shape(3))
    assert out[0, 0].tolist() == [0, 0, 255]
    assert out[0, 20].tolist() == [255, 255, 255]  # transparent red is white paper
    assert decode(path, shape(4))[0, 20, 3] == 0


def test_palette_without_transparency_is_colour(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR).quantize(7)
    path = saved(tmp_path, "x.png", image)
    assert read_header(path) == ImageHeader(20, 24, colour=True, alpha=False, format="PNG")
    assert (decode(path, shape(3)) == np.asarray(image.convert("RGB"))).all()


def test_a_transparent_colour_of_an_rgb_png(tmp_path: Path) -> None:
    image = Image.new("RGB", (24, 20), (1, 2, 3))
    path = saved(tmp_path, "x.png", image, transparency=(1, 2, 3))
    assert read_header(path).alpha
    assert (decode(path, shape(3)) == 255).all()


def test_one_bit(tmp_path: Path) -> None:
    image = Image.fromarray(GREY > 127)
    path = saved(tmp_path, "x.png", image)
    assert not read_header(path).colour
    assert (decode(path, shape(1))[..., 0] == np.where(GREY > 127, 255, 0)).all()


def test_cmyk_jpeg(tmp_path: Path) -> None:
    path = saved(tmp_path, "x.jpg", Image.new("RGB", (24, 20), (250, 10, 10)).convert("CMYK"), quality=95)
    assert read_header(path).colour
    assert abs(decode(path, shape(3)).astype(int) - (250, 10, 10)).max() <= 4


def test_invisible_colours_do_not_bleed_when_shrinking(tmp_path: Path) -> None:
    pixels = np.zeros((40, 48, 4), np.uint8)
    pixels[:, :24] = (0, 255, 0, 0)  # invisible green
    pixels[:, 24:] = (255, 0, 0, 255)
    out = decode(saved(tmp_path, "x.png", Image.fromarray(pixels)), shape(4)).astype(int)
    visible = out[..., 3] > 16
    assert (out[visible][:, 1] <= 2).all()


# --- rotation, frames, depth -------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path: Path, orientation: int) -> None:
    """As a viewer shows it: the stored image is the upright one, turned by the inverse."""
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24], upright[:16, 24:], upright[16:, :24] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    view = {
        1: lambda x: x, 2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1), 6: lambda x: np.rot90(x, 1), 7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
        8: lambda x: np.rot90(x, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(view(upright)))
    path = saved(tmp_path, "x.jpg", stored, quality=95, subsampling=0, exif=exif)
    assert read_header(path)[:2] == (32, 48)
    out = decode(path, shape(3, 32, 48)).astype(int)
    corners = out[4, 4], out[4, 44], out[28, 4], out[28, 44]
    for corner, colour in zip(corners, ([255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]), strict=True):
        assert abs(corner - colour).max() < 12


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"MM\0*\0\0\0\x08\xff\xff\x01", b"no TIFF header"])
def test_damaged_exif_is_no_reason_to_lose_an_image(tmp_path: Path, exif: bytes) -> None:
    path = saved(tmp_path, "x.jpg", Image.fromarray(COLOUR), exif=b"Exif\0\0" + exif)
    without = saved(tmp_path, "y.jpg", Image.fromarray(COLOUR))
    assert read_header(path) == read_header(without)
    assert (decode(path, shape(3)) == decode(without, shape(3))).all()


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_first_frame_of_an_animation(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("RGB", (24, 20), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    options = {"lossless": True} if ending == "webp" else {}
    path = saved(tmp_path, f"x.{ending}", frames[0], save_all=True, append_images=frames[1:], **options)
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == 2
    assert (decode(path, shape(3)) == (255, 0, 0)).all()


# --- more than 8 bits ---------------------------------------------------------------------------------------


def test_sixteen_bit_by_a_given_window(tmp_path: Path) -> None:
    pixels = np.linspace(1000, 5000, 480).reshape(20, 24).astype(np.uint16)
    path = saved(tmp_path, "x.png", Image.fromarray(pixels))
    assert read_header(path) == ImageHeader(20, 24, colour=False, alpha=False, deep=True, format="PNG")
    out = decode(path, TargetShape(20, 24, 1, window=Window(0, 10000)))
    assert (out[..., 0] == np.rint(pixels * (255 / 10000))).all()
    assert decode(path, TargetShape(20, 24, 1, window=Window(2000, 4000)))[[0, -1], [0, -1], 0].tolist() == [0, 255]
    assert (decode(path, TargetShape(20, 24, 3, window=Window(0, 10000))) == out).all()


def test_a_constant_sixteen_bit_set_does_not_divide_by_zero(tmp_path: Path) -> None:
    path = saved(tmp_path, "x.png", Image.fromarray(np.full((20, 24), 7, np.uint16)))
    assert choose_window([read_values(path)]) == (7, 7)
    assert (decode(path, TargetShape(20, 24, 1, window=Window(7, 7))) == 0).all()


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_whole_numbers_of_32_bits_and_floats_below_zero_and_below_one(tmp_path: Path, kind: type) -> None:
    scale = 0.25 if kind is np.float32 else 200_000
    pixels = (np.linspace(-1, 3, 480) * scale).reshape(20, 24).astype(kind)
    path = saved(tmp_path, "x.tif", Image.fromarray(pixels))
    values = read_values(path)
    assert read_header(path).deep
    assert choose_window([values]) == pytest.approx((-scale, 3 * scale))
    out = decode(path, TargetShape(20, 24, 1, window=choose_window([values])))[..., 0]
    assert abs(out - np.linspace(0, 255, 480).reshape(20, 24)).max() <= 0.51


def test_pixels_that_are_no_numbers(tmp_path: Path) -> None:
    pixels = np.linspace(0, 1, 480).reshape(20, 24).astype(np.float32)
    pixels[0, :3] = np.nan, np.inf, -np.inf
    path = saved(tmp_path, "x.tif", Image.fromarray(pixels))
    values = read_values(path)
    assert not values.finite
    assert 0 < values.low < values.high == 1
    assert decode(path, TargetShape(20, 24, 1, window=Window(0, 1)))[0, :3, 0].tolist() == [0, 255, 0]
    nothing = saved(tmp_path, "y.tif", Image.fromarray(np.full((20, 24), np.nan, np.float32)))
    with pytest.raises(Refused):
        read_values(nothing)


def test_sixteen_bit_colour_is_known(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + bytes(range(24 * 6)) for _ in range(20))
    (tmp_path / "x.png").write_bytes(png(24, 20, 2, rows, depth=16))
    assert read_header(tmp_path / "x.png").deep_colour
    assert decode(tmp_path / "x.png", shape(3))[0, 1].tolist() == [6, 8, 10]
    assert not read_header(saved(tmp_path, "y.png", Image.fromarray(COLOUR))).deep_colour


# --- size and fit ------------------------------------------------------------------------------------------


def stripes(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.tile(np.array([0, 255], np.uint8), (height, width // 2)))


def test_shrinking_is_antialiased() -> None:
    out = to_shape(stripes(256, 256), TargetShape(32, 32, 1))
    assert (abs(out.astype(int) - 127.5) <= 8).all()  # nearest or plain bilinear give 0 or 255


def test_crop_keeps_the_centre_pad_the_whole_stretch_fills() -> None:
    pixels = np.full((64, 128), 100, np.uint8)
    pixels[:, 32:96] = 200  # the centre square
    image = Image.fromarray(pixels)
    crop, pad, stretch = (to_shape(image, TargetShape(32, 32, 1, fit))[..., 0] for fit in ("crop", "pad", "stretch"))
    assert (crop[:, 2:-2] == 200).all()
    assert (pad[:8] == 100).all()
    assert (pad[24:] == 100).all()
    assert pad[16, 16] == 200
    assert pad[16, 2] == 100
    assert (stretch[16, 10:22] == 200).all()
    assert stretch[16, 4] == stretch[16, 28] == 100


def test_pad_continues_the_edge() -> None:
    white = Image.new("RGB", (64, 32), "white")
    assert (to_shape(white, TargetShape(32, 32, 3, "pad")) == 255).all()
    clear = Image.new("RGBA", (64, 32), (9, 9, 9, 0))
    assert (to_shape(clear, TargetShape(32, 32, 4, "pad"))[..., 3] == 0).all()


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (17, 31), (33, 32), (300, 201)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_size_comes_out_in_shape(fit: str, size: tuple[int, int], channels: int) -> None:
    image = Image.new("RGB", size, (10, 200, 30))
    out = to_shape(image, TargetShape(32, 48, channels, fit))
    assert out.shape == (32, 48, channels)
    if channels == 3:
        assert (out == (10, 200, 30)).all()


def test_a_large_jpeg_shrinks_as_its_full_decoding_does(tmp_path: Path) -> None:
    """The decoder's own shrinking is a shortcut, not another picture."""
    y, x = np.mgrid[:900, :1200] / 100
    pixels = np.stack([127 + 120 * np.sin(x + y * k) for k in (0.3, 1, 2)], -1).astype(np.uint8)
    path = saved(tmp_path, "x.jpg", Image.fromarray(pixels), quality=92)
    for fit in ("crop", "pad", "stretch"):
        with Image.open(path) as image:
            full = to_shape(image.copy(), TargetShape(32, 32, 3, fit)).astype(int)
        assert abs(decode(path, TargetShape(32, 32, 3, fit)) - full).mean() < 1.5


def test_what_a_crop_cuts_off() -> None:
    assert share_cut(48, 96, TargetShape(48, 48, 1)) == 0.5
    assert share_cut(96, 48, TargetShape(48, 96, 1)) == 0.75
    assert share_cut(480, 960, TargetShape(48, 96, 1)) == 0


# --- what the pixels show ------------------------------------------------------------------------------------


def test_colour_and_transparency_are_judged_by_the_pixels(tmp_path: Path) -> None:
    big = np.repeat(np.repeat(GREY, 20, 0), 20, 1)
    grey = np.dstack([big] * 3)
    for name, pixels, options, expected in (
        ("grey.png", grey, {}, (False, False)),
        ("grey.jpg", grey, {"quality": 50}, (False, False)),
        ("grey.webp", grey, {"quality": 50}, (False, False)),
        ("colour.jpg", np.repeat(np.repeat(COLOUR, 20, 0), 20, 1), {}, (True, False)),
        ("colour.gif", COLOUR, {}, (True, False)),
        ("opaque.png", np.dstack([grey, np.full_like(big, 255)]), {}, (False, False)),
        ("clear.png", np.dstack([COLOUR, GREY]), {}, (True, True)),
    ):
        assert look(saved(tmp_path, name, Image.fromarray(pixels), **options)) == expected, name
    hidden = np.zeros((20, 24, 4), np.uint8)
    hidden[..., 0] = 200  # red that nobody sees
    assert look(saved(tmp_path, "hidden.png", Image.fromarray(hidden))) == (False, True)
    assert look(saved(tmp_path, "cmyk.jpg", Image.fromarray(COLOUR).convert("CMYK"))) == (True, False)
    speck = grey.copy()
    speck[7, 9] = 255, 0, 0  # one pixel of 192,000
    assert look(saved(tmp_path, "speck.png", Image.fromarray(speck))) == (False, False)


# --- formats -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "mode", "options", "near"),
    [
        ("tif", "RGB", {}, 0),
        ("tif", "RGB", {"compression": "tiff_lzw"}, 0),
        ("tif", "RGBA", {"compression": "tiff_adobe_deflate"}, 0),
        ("tif", "L", {}, 0),
        ("tif", "P", {}, 0),
        ("tif", "1", {"compression": "group4"}, 0),
        ("tif", "CMYK", {}, 0),
        ("tif", "YCbCr", {}, 2),
        ("tif", "LAB", {}, 10),
        ("ppm", "RGB", {}, 0),
        ("pgm", "L", {}, 0),
        ("pbm", "1", {}, 0),
        ("png", "1", {}, 0),
        ("png", "LA", {}, 0),
        ("jfif", "RGB", {"format": "JPEG", "quality": 95}, 12),
        ("jpg", "CMYK", {"quality": 95}, 12),
        ("bmp", "P", {}, 0),
        pytest.param("avif", "RGB", {"quality": 95}, 12, marks=pytest.mark.skipif(not AVIF, reason="not in Pillow")),
    ],
)
def test_formats_and_modes(tmp_path: Path, ending: str, mode: str, options: dict[str, object], near: int) -> None:
    y, x = np.mgrid[:20, :24]
    image = Image.fromarray(np.stack([10 * x, 12 * y, 100 + 5 * x], -1).astype(np.uint8))
    if mode == "LAB":
        image = ImageCms.profileToProfile(  # type: ignore[assignment]
            image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    else:
        image = image.convert(mode)
    path = saved(tmp_path, f"x.{ending}", image, **options)
    assert read_header(path).format == {
        "tif": "TIFF", "ppm": "PPM", "pgm": "PPM", "pbm": "PPM", "jfif": "JPEG", "jpg": "JPEG"
    }.get(ending, ending.upper())  # fmt: skip
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert abs(decode(path, shape(3)) - expected).max() <= near
    assert decode(path, shape(1)).shape == (20, 24, 1)


@pytest.mark.parametrize("ending", ["tif", "gif", "webp", "png", "mpo"])
def test_several_frames_are_known_and_the_first_is_used(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("RGB", (24, 20), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    path = saved(tmp_path, f"x.{ending}", frames[0], save_all=True, append_images=frames[1:])
    header = read_header(path)
    assert header.several == (ending != "mpo")  # a camera's, whose second frame is a preview
    assert header.format == {"tif": "TIFF", "mpo": "JPEG"}.get(ending, ending.upper())
    assert abs(decode(path, shape(3)).astype(int) - (255, 0, 0)).max() <= 2
    assert not read_header(saved(tmp_path, f"y.{ending}", frames[0])).several


def test_a_first_frame_smaller_than_its_canvas_lies_where_it_belongs(tmp_path: Path) -> None:
    content = bytearray(saved(tmp_path, "x.gif", Image.new("P", (12, 20))).read_bytes())
    content[6:8] = (24).to_bytes(2, "little")  # the width of the canvas
    place = content.index(b"\x2c") + 1  # of the frame
    content[place : place + 2] = (12).to_bytes(2, "little")
    (tmp_path / "x.gif").write_bytes(content)
    assert decode(tmp_path / "x.gif", shape(3)).shape == (20, 24, 3)


# --- damage and bombs ----------------------------------------------------------------------------------------


def png(width: int, height: int, kind: int, rows: bytes, depth: int = 8) -> bytes:
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def test_a_wrong_checksum_of_a_png_is_damage(tmp_path: Path) -> None:
    path = saved(tmp_path, "x.png", Image.fromarray(COLOUR))
    content = bytearray(path.read_bytes())
    assert decode(path, shape(3)).shape == (20, 24, 3)
    content[content.index(b"IEND") - 8] ^= 1  # the pixels' checksum, and no pixel
    path.write_bytes(content)
    with pytest.raises((OSError, SyntaxError)):
        decode(path, shape(3))


@pytest.mark.parametrize(
    "ending", ["png", "jpg", "webp", "gif", "bmp", "tif", "ppm", *(["avif"] if AVIF else [])]
)  # fmt: skip
@pytest.mark.parametrize("left", [0.5, 0.9])
def test_a_file_that_ends_too_early_is_refused(tmp_path: Path, ending: str, left: float) -> None:
    pixels = RNG.integers(0, 256, (90, 90, 3), np.uint8)
    path = saved(tmp_path, f"x.{ending}", Image.fromarray(pixels))
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content))])
    with pytest.raises((OSError, SyntaxError, Refused)):
        decode(path, shape(3))


@pytest.mark.parametrize(("width", "height", "kind"), [(9_000, 9_000, 6), (1, 80_000_000, 6), (9_000, 9_000, 0)])
def test_a_header_that_promises_more_than_the_file_can_hold(tmp_path: Path, width: int, height: int, kind: int) -> None:
    (tmp_path / "x.png").write_bytes(png(width, height, kind, bytes(100)))
    with at_most(20), pytest.raises(Refused):
        read_header(tmp_path / "x.png")
    with at_most(20), pytest.raises(Refused):
        decode(tmp_path / "x.png", shape(3))


def test_a_bmp_and_a_jpeg_that_promise_too_much(tmp_path: Path) -> None:
    content = bytearray(saved(tmp_path, "x.bmp", Image.fromarray(COLOUR)).read_bytes())
    content[18:26] = struct.pack("<II", 9000, 9000)
    (tmp_path / "x.bmp").write_bytes(content)
    content = bytearray(saved(tmp_path, "x.jpg", Image.fromarray(GREY)).read_bytes())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", 9000, 9000)
    (tmp_path / "x.jpg").write_bytes(content)
    for name in ("x.bmp", "x.jpg"):
        with at_most(20), pytest.raises(Refused):
            decode(tmp_path / name, shape(3))


def test_sides_and_pixels_are_bounded(tmp_path: Path) -> None:
    path = saved(tmp_path, "x.png", Image.new("L", (200, 100)))
    assert read_header(path, Limits(20_000)).height == 100
    with pytest.raises(Refused, match="--max-pixels 19999"):
        read_header(path, Limits(19_999))
    with pytest.raises(Refused):
        read_header(saved(tmp_path, "y.png", Image.new("1", (1, 65_536))))


def test_memory_is_shared_by_threads_and_a_large_request_waits_until_it_is_alone() -> None:
    memory, used, most = Memory(10), [0], [0]

    def work(count: int) -> None:
        with memory.hold(count):
            used[0] += min(count, 10)
            most[0] = max(most[0], used[0])
            time.sleep(0.001)
            used[0] -= min(count, 10)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [3, 99, 5, 4, 1, 10, 7] * 5))
    assert memory.free == 10
    assert 3 <= most[0] <= 10
    with pytest.raises(ValueError, match="no"), memory.hold(4):
        raise ValueError("no")
    assert memory.free == 10


def test_the_crop_stays_within_images_of_every_size() -> None:
    for height, width in ((19, 24), (28, 28), (64, 84)):
        target = TargetShape(height, width, 1, "crop")
        for side in range(16, 120):
            for other in (side, side + 8, 2 * side):
                image = Image.new("L", (other, side), 7)
                assert (module.to_shape(image, target) == 7).all()


@pytest.mark.slow
def test_large_images_are_decoded_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    content = png(9_000, 9_000, 6, bytes(9_000 * (1 + 9_000 * 4)))
    (tmp_path / "c").mkdir()
    for i in range(2):
        (tmp_path / f"c/{i}.png").write_bytes(content)
    with at_most(950):  # one takes 650 MiB
        assert len(open_dataset(tmp_path, Data()).images) == 2


def test_a_huge_image_with_next_to_nothing_in_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    Image.new("1", (1500, 1500)).save(path)
    assert read_header(path).height == 1500
    monkeypatch.setattr(module, "HUGE", 1500 * 1500 - 1)
    with pytest.raises(Refused, match="1,000 pixels"):
        read_header(path)
    monkeypatch.setattr(module, "EMPTY", 1500 * 1500 // path.stat().st_size + 1)
    assert read_header(path).width == 1500
