"""One file to one array: every mode and format, rotation, frames, depth, fit; and what a set chooses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ptarmigan.config import Data
from ptarmigan.data.decode import ImageHeader, TargetShape, choose_shape, decode, read_header, to_shape, value_range

RNG = np.random.default_rng(0)
GREY, COLOUR, ALPHA = (RNG.integers(0, 256, s, np.uint8) for s in ((20, 24), (20, 24, 3), (20, 24, 4)))


def saved(folder: Path, name: str, image: Image.Image, **options: object) -> Path:
    path = folder / name
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def shape(channels: int, height: int = 20, width: int = 24, fit: str = "crop") -> TargetShape:
    return TargetShape(height, width, channels, fit)


def plain(height: int, width: int, colour: bool = True, alpha: bool = False) -> ImageHeader:
    return ImageHeader(height, width, colour, alpha, False)


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
    assert read_header(path) == ImageHeader(20, 24, colour=False, alpha=True, sixteen_bit=False)
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
    assert read_header(path) == ImageHeader(20, 24, colour=True, alpha=False, sixteen_bit=False)
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


def test_sixteen_bit_by_a_given_window(tmp_path: Path) -> None:
    pixels = np.linspace(1000, 5000, 480).reshape(20, 24).astype(np.uint16)
    path = saved(tmp_path, "x.png", Image.fromarray(pixels))
    assert read_header(path) == ImageHeader(20, 24, colour=False, alpha=False, sixteen_bit=True)
    assert value_range(path) == (1000, 5000)
    out = decode(path, TargetShape(20, 24, 1, window=(0, 10000)))
    assert (out[..., 0] == np.rint(pixels * (255 / 10000))).all()
    assert decode(path, TargetShape(20, 24, 1, window=(2000, 4000)))[[0, -1], [0, -1], 0].tolist() == [0, 255]
    assert (decode(path, TargetShape(20, 24, 3, window=(0, 10000))) == out).all()


def test_a_constant_sixteen_bit_set_does_not_divide_by_zero(tmp_path: Path) -> None:
    path = saved(tmp_path, "x.png", Image.fromarray(np.full((20, 24), 7, np.uint16)))
    assert (decode(path, TargetShape(20, 24, 1, window=(7, 7))) == 0).all()


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


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(28, 28)], (28, 28)),
        ([(31, 90)], (28, 28)),
        ([(32, 32), (500, 40), (33, 33)], (32, 32)),
        ([(48, 50)], (48, 48)),
        ([(64, 64)], (64, 64)),
        ([(1024, 768)], (64, 64)),
        ([(27, 40)], (27, 40)),
        ([(20, 24), (20, 24), (90, 90)], (20, 24)),
        ([(8, 900)], (16, 256)),
    ],
)  # fmt: skip
def test_size_from_the_data(sizes: list[tuple[int, int]], expected: tuple[int, int]) -> None:
    chosen = choose_shape([plain(*size) for size in sizes], Data())
    assert (chosen.height, chosen.width) == expected


def test_size_and_channels_and_fit_from_the_config() -> None:
    assert choose_shape([plain(28, 28)], Data(size="48x64", channels=1, fit="pad")) == TargetShape(48, 64, 1, "pad")


@pytest.mark.parametrize(
    ("kinds", "channels"),  # g grey, c colour, capital: with alpha
    [
        ("g", 1), ("ggc", 1), ("gc", 3), ("gcc", 3), ("Ccg", 3), ("Ggg", 1),
        ("CCc", 4), ("Cc", 3), ("GGg", 4), ("GCcc", 3), ("GGcC", 4),
    ],
)  # fmt: skip
def test_channels_by_the_majority(kinds: str, channels: int) -> None:
    headers = [plain(32, 32, colour=kind in "cC", alpha=kind.isupper()) for kind in kinds]
    assert choose_shape(headers, Data()).channels == channels
