"""One image file -> one uint8 array [H,W,C] of the pack's shape."""

from __future__ import annotations

import ctypes
import math
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile

from ptarmigan.config import Data
from ptarmigan.config.values import parse_size
from ptarmigan.data import dicom
from ptarmigan.data.arrays import MAX_INFLATION

# Not every format that Pillow reads: it runs a PostScript interpreter on an EPS file, whatever the file's name.  PPM
# covers PBM, PGM and PNM; a Pillow without AVIF reads the others.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "DICOM")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
SIZES = (64, 48, 32, 28)
SMALLER = (24, 20, 16)  # short sides of images too long for the sizes above
LONGEST = 128  # pixels of the long side that is chosen from the data, where the short side can be reduced for it
SAME_ASPECT = 1.1  # aspects that differ by less than this factor count as equal: a crop to one cuts at most 9 %
AGREE = 0.8  # share of images of equal aspect from which on the size has it too
COLOURED = 0.05  # share of coloured images from which on colour is kept
THUMBNAIL = 64  # colour that is not visible in an image of this short side is not there
TINT = 8  # difference between the channels of a pixel, of 255, above which it is coloured
SAMPLED = 8192  # pixels of an image that its set's window is computed from
MAX_SIDE = 65_535  # pixels
HUGE = 1 << 25  # pixels, which take about 500 MB while they are decoded
EMPTY = 1000  # pixels that a byte stands for; photographs have fewer than 100, and of a huge image more is a bomb
DECODING_BYTES = 1 << 30  # memory for decoded images of all threads together; a larger image is decoded alone
LARGE = 1 << 26  # bytes of one image from which on they are given back to the system at once
TO_UPRIGHT = {  # EXIF orientation (tag 274) -> the transposition that makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Decoder -> the most bytes of pixels that a byte of the file can stand for.  A JPEG's block of 8x8 takes a bit or more.
INFLATION = {"raw": 1, "zip": MAX_INFLATION, "jpeg": 8 * 64}


class Refused(Exception):
    """An image that is not decoded.  Files with the same `reason` are counted together; `detail` is about this file."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


class Memory:
    """Bytes that several threads share; a request for more than there are waits until it is alone."""

    def __init__(self, size: int) -> None:
        self.size = self.free = size
        self.changed = threading.Condition()

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        count = min(count, self.size)
        with self.changed:
            self.changed.wait_for(lambda: self.free >= count)
            self.free -= count
        try:
            yield
        finally:
            if count >= LARGE:
                _return_freed_memory()
            with self.changed:
                self.free += count
                self.changed.notify_all()


@dataclass(frozen=True)
class Limits:
    """What bounds the memory of decoding; all threads share one."""

    max_pixels: int = Data().max_pixels
    memory: Memory = field(default_factory=lambda: Memory(DECODING_BYTES))


class ImageHeader(NamedTuple):
    """What is known of an image before its pixels are read; height and width are those of the upright image."""

    height: int
    width: int
    colour: bool  # its mode has colour; `look` says whether its pixels have
    alpha: bool  # its mode has transparency
    deep: bool = False  # one channel of 16 bits or more, or of floats
    format: str = ""
    several: bool = False  # it has several frames or pages
    deep_colour: bool = False  # colour of 16 bits, of which Pillow reads the upper 8


class Look(NamedTuple):
    """What the pixels of an image show."""

    coloured: bool
    transparent: bool


class Values(NamedTuple):
    """The values of a deep image."""

    low: float
    high: float
    sample: NDArray[np.float64]  # [at most SAMPLED], finite
    finite: bool  # all of them
    window: Window | None = None  # that the file itself states


class Window(NamedTuple):
    """The values of deep images that become 0 and 255."""

    low: float
    high: float


OF_16_BITS = Window(0, 65535)


@dataclass(frozen=True)
class TargetShape:
    """The shape that every image is converted to, and how it is fitted to it."""

    height: int
    width: int
    channels: int
    fit: str = "crop"
    window: Window = OF_16_BITS  # of all deep images of the data set


# --- open ------------------------------------------------------------------------------------------------------------


@contextmanager
def opened(file: IO[bytes], limits: Limits) -> Iterator[ImageFile.ImageFile]:
    """The image in a file, its pixels not read; raises Pillow's exceptions, or Refused if its size is not plausible."""
    Image.init()
    dicom.register()
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    with Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
        width, height = image.size
        if max(width, height) > MAX_SIDE:
            raise Refused(f"a side of more than {MAX_SIDE:,} pixels", f"{width}x{height}")
        if width * height > limits.max_pixels:
            raise Refused(f"more pixels than --max-pixels {limits.max_pixels} allows", f"{width * height:,} pixels")
        bits = 1 if image.mode in ("1", "L", "P") else 8  # or more
        inflation = INFLATION.get(image.tile[0][0]) if image.tile else None  # AVIF's tile is one of memory
        if inflation and image.format != "AVIF" and width * height * bits > 8 * inflation * length:
            raise Refused("its header promises more pixels than the file can hold", f"{width}x{height}")
        if width * height > max(HUGE, EMPTY * length):
            raise Refused(
                f"a huge image with more than {EMPTY:,} pixels for each byte of the file", f"{width}x{height}"
            )
        yield image


@contextmanager
def _loaded(file: IO[bytes], limits: Limits, ample: int | None = None) -> Iterator[ImageFile.ImageFile]:
    """The image of a file with its pixels, while its memory is reserved.

    ample: a short side in pixels that is enough: the JPEG decoder skips detail that resizing would average away.
    """
    with opened(file, limits) as image:
        need = 0
        if image.format in ("JPEG", "MPO"):
            if image.info.get("progressive"):  # libjpeg keeps the coefficients of the whole image, 16 bits each
                need = 6 * image.width * image.height
            if ample:
                image.draft(None, (ample, ample))
        heavy = image.format in ("WEBP", "AVIF") or image.has_transparency_data
        need += image.width * image.height * (16 if heavy else 8)  # decoded, and converted once or three times
        with limits.memory.hold(need):
            try:
                image.load()
                yield image
            finally:
                image.close()  # frees the pixels before the next image gets its share


def read_header(file: IO[bytes], limits: Limits) -> ImageHeader:
    """The header of an image file; raises Pillow's exceptions if it has none, or Refused."""
    with opened(file, limits) as image:
        return header_of(image)


def header_of(image: ImageFile.ImageFile) -> ImageHeader:
    """The header of an image whose pixels are not read."""
    height, width = image.height, image.width
    if turn_of(image) in (5, 6, 7, 8):
        height, width = width, height
    deep = _is_deep(image)
    grey = deep or image.mode in ("1", "L", "LA", "La")
    of_camera = image.format == "MPO"  # a JPEG; its other frames are previews or depth
    return ImageHeader(
        height,
        width,
        not grey,
        image.has_transparency_data and not deep,
        deep,
        "JPEG" if of_camera else str(image.format),
        not of_camera and bool(getattr(image, "is_animated", False)),
        not grey and bool(image.tile) and re.search(";16[BLN]", str(image.tile[0][3])) is not None,
    )


def turn_of(image: Image.Image) -> int:
    """The EXIF orientation of an image whose pixels are not read; 1 where it is said behind them, as a PNG may."""
    behind_pixels = image.format == "PNG" and "exif" not in image.info  # Pillow would decode them to look there
    return 1 if behind_pixels else _orientation(image)


def look(file: IO[bytes], limits: Limits) -> Look:
    """Whether an image is really coloured and really transparent, judged by a thumbnail of it."""
    with _loaded(file, limits, THUMBNAIL) as image:
        transparent = False
        small = _reduced(image, min(image.size) // THUMBNAIL)
        if small.has_transparency_data:
            small = small.convert("RGBA")
            transparent = small.getchannel("A").getextrema()[0] != 255
        small = _to_channels(small, 3)
        pixels = np.asarray(_reduced(small, min(small.size) // THUMBNAIL))
        return Look(bool((pixels.max(2) - pixels.min(2) > TINT).any()), transparent)


def read_values(file: IO[bytes], limits: Limits) -> Values:
    """The values of a deep image; raises Refused if none is finite."""
    with _loaded(file, limits) as image:
        pixels = np.asarray(image).ravel()
        good = np.isfinite(pixels)
        finite = bool(good.all())
        if not finite:
            pixels = pixels[good]
        if not len(pixels):
            raise Refused("no finite pixel")
        sample = pixels
        if len(pixels) > SAMPLED:
            sample = pixels[np.random.default_rng(0).integers(0, len(pixels), SAMPLED)]
        stated = Window(*image.info["window"]) if "window" in image.info else None
        return Values(float(pixels.min()), float(pixels.max()), sample.astype(np.float64), finite, stated)


# --- what a set has in common ----------------------------------------------------------------------------------------


def choose_size(sizes: Sequence[tuple[int, int]], data: Data) -> tuple[int, int]:
    """Height and width from the config, or from those of the images.

    The short side is the largest of 64, 48, 32 and 28 that is not above the median short side.  If at least 80 % of
    the images have the same aspect ratio, within 10 %, and it is not that of a square, the long side follows it, as a
    multiple of 4; where it would be above 128, the short side is smaller, down to 16.  Otherwise the size is a square.
    If the median short side is below 28, the median height and width are taken, each at least 16 and at most 256, or
    the median short side for both where at most half of the images have nearly the same aspect ratio.
    """
    if size := parse_size(data.size):
        return size
    height, width = np.array(sizes, float).T
    short = float(np.median(np.minimum(height, width)))
    aspect = np.log(width / height)
    middle = float(np.median(aspect))
    agree = (abs(aspect - middle) < math.log(SAME_ASPECT)).mean()
    if short < SIZES[-1]:
        least = (np.median(height), np.median(width)) if agree > 0.5 else (short, short)
        return min(max(int(least[0]), 16), 256), min(max(int(least[1]), 16), 256)
    side = next(side for side in SIZES if side <= short)
    if agree < AGREE or abs(middle) < math.log(SAME_ASPECT):
        return side, side
    ratio = math.exp(abs(middle))
    shorter = [s for s in (*SIZES, *SMALLER) if s <= side]
    side = next((s for s in shorter if s * ratio <= LONGEST), shorter[-1])
    long = min(4 * round(side * ratio / 4), 256)
    return (side, long) if middle > 0 else (long, side)


def choose_channels(looks: Sequence[Look], data: Data) -> int:
    """4 if more than half of the images are transparent, else 3 if at least 5 % are coloured, else 1."""
    if data.channels is not None:
        return data.channels
    transparent = sum(one.transparent for one in looks)
    coloured = sum(one.coloured for one in looks)
    return 4 if 2 * transparent > len(looks) else 3 if coloured and coloured >= COLOURED * len(looks) else 1


def choose_fit(channels: int, data: Data) -> str:
    """`fit`, or else pad where transparency is kept, because the added border is transparent as well, and crop."""
    return data.fit or ("pad" if channels == 4 else "crop")


def choose_window(values: Sequence[Values]) -> Window:
    """The least and the largest value, unless the middle 99.8 % of the pixels span less than half of that range.

    Then the window is that of the middle 99.8 %, so that a hot pixel does not make all images black.  A window that all
    of the files state is taken as it is.
    """
    if values[0].window is not None and all(one.window == values[0].window for one in values):
        return values[0].window
    least, largest = min(one.low for one in values), max(one.high for one in values)
    pool = np.concatenate([one.sample for one in values])
    low = float(np.percentile(pool, 0.1, method="higher"))
    high = float(np.percentile(pool, 99.9, method="lower"))
    return Window(low, high) if 0 < high - low < (largest - least) / 2 else Window(least, largest)


def share_cut(height: int, width: int, shape: TargetShape) -> float:
    """The share of an image's area that the largest centred crop of the shape's aspect ratio cuts off."""
    ratio = width * shape.height / (height * shape.width)
    return 1 - min(ratio, 1 / ratio)


# --- decode ----------------------------------------------------------------------------------------------------------


def decode(file: IO[bytes], shape: TargetShape, limits: Limits) -> NDArray[np.uint8]:
    """The first frame in a file, upright, as [H,W,C] of `shape`; raises Pillow's exceptions, or Refused, if damaged."""
    file.seek(0)
    if file.read(4) == b"\x89PNG":
        with opened(file, limits) as image:
            image.verify()  # the checksums, which decoding ignores
    ample = 4 * max(shape.height, shape.width)
    with _loaded(file, limits, None if shape.fit == "pad" else ample) as image:
        orientation = _orientation(image)
        upright: Image.Image = image
        if _is_deep(image):
            upright = Image.fromarray(_to_8_bit(np.asarray(image), shape.window))
        if image.width * image.height > 1 << 22:  # before the copies that follow
            upright = _reduced(upright, min(image.size) // (2 * ample))
        return to_shape(upright.transpose(TO_UPRIGHT[orientation]) if orientation in TO_UPRIGHT else upright, shape)


def to_shape(image: Image.Image, shape: TargetShape) -> NDArray[np.uint8]:
    """Any 8-bit image -> [H,W,C]; an image of the right size and mode is unchanged."""
    image = _to_channels(image, shape.channels)
    if image.size != (shape.width, shape.height):
        image = FITS[shape.fit](image, shape)
    return np.asarray(image).reshape(shape.height, shape.width, shape.channels)


def _to_channels(image: Image.Image, channels: int) -> Image.Image:
    """Keep alpha if there are 4 channels, else composite on white, the usual background of paper and web pages."""
    if image.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB") or image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if channels != 4:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == MODES[channels] else image.convert(MODES[channels])


# Lanczos keeps the most detail of Pillow's filters (all are antialiased when shrinking), and images of 28 to 64 pixels
# have little detail to lose.  NVIDIA's data set tools, whose results people compare with, use it too.  Pillow
# multiplies by alpha first, so colours of transparent pixels do not bleed in.


def _resize(image: Image.Image, width: int, height: int, box: tuple[float, float, float, float]) -> Image.Image:
    return image.resize((width, height), Image.Resampling.LANCZOS, box, reducing_gap=3.0)


def _stretch(image: Image.Image, shape: TargetShape) -> Image.Image:
    return _resize(image, shape.width, shape.height, (0, 0, image.width, image.height))


def _crop(image: Image.Image, shape: TargetShape) -> Image.Image:
    """The largest centred crop with the aspect ratio of the shape."""
    scale = min(image.width / shape.width, image.height / shape.height)
    # The product may be above the image's side by rounding, and Pillow refuses a box beyond the image
    width, height = min(scale * shape.width, image.width), min(scale * shape.height, image.height)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    if scale == 1:
        left, top = int(left), int(top)  # whole pixels, so nothing is blurred
    return _resize(image, shape.width, shape.height, (left, top, left + width, top + height))


def _pad(image: Image.Image, shape: TargetShape) -> Image.Image:
    """The whole image, centred on a background of the median colour of its border pixels."""
    scale = max(image.width / shape.width, image.height / shape.height)
    width = min(max(round(image.width / scale), 1), shape.width)
    height = min(max(round(image.height / scale), 1), shape.height)
    if (width, height) != image.size:
        image = _resize(image, width, height, (0, 0, image.width, image.height))
    pixels = np.asarray(image).reshape(height, width, shape.channels)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    out = np.empty((shape.height, shape.width, shape.channels), np.uint8)
    out[:] = np.median(edge, axis=0).astype(np.uint8)
    top, left = (shape.height - height) // 2, (shape.width - width) // 2
    out[top : top + height, left : left + width] = pixels
    return Image.fromarray(out[:, :, 0] if shape.channels == 1 else out)


FITS = {"crop": _crop, "pad": _pad, "stretch": _stretch}


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    """Means of factor x factor pixels; images whose values have no mean, such as those of a palette, as they are."""
    has_means = image.mode in ("LA", "RGBA", "CMYK") or (
        image.mode in ("L", "RGB") and not image.has_transparency_data  # one of its values stands for transparent
    )
    return image.reduce(factor) if has_means and factor > 1 else image


def _return_freed_memory() -> None:
    """Give freed memory back to the system: glibc keeps it for each thread separately."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None:
        trim(0)


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith(("I", "F"))


def _to_8_bit(pixels: NDArray[np.generic], window: Window) -> NDArray[np.uint8]:
    """16 bits or more, or floats -> 8 bits: the low value of the window becomes 0, the high one 255; NaN becomes 0."""
    low, high = window
    out = np.empty(pixels.shape, np.uint8)
    rows = max(1, (1 << 20) // pixels.shape[1])  # at once, which bounds the memory
    for start in range(0, len(pixels), rows):
        scaled = (pixels[start : start + rows].astype(np.float64) - low) * (255 / ((high - low) or 1))
        out[start : start + rows] = np.nan_to_num(np.rint(scaled).clip(0, 255))
    return out


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(274, 1))
    except Exception:  # the pixels may be fine although the EXIF data are damaged
        return 1
