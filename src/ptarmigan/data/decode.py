"""One image file -> one uint8 array [H,W,C] of the pack's shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from ptarmigan.config import Data, parse_size

# Not every format that Pillow reads: it runs a PostScript interpreter on an EPS file, whatever the file's name.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
SIZES = (28, 32, 48, 64)
TO_UPRIGHT = {  # EXIF orientation (tag 274) -> the transposition that makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageHeader(NamedTuple):
    """What is known of an image before its pixels are read; height and width are those of the upright image."""

    height: int
    width: int
    colour: bool
    alpha: bool
    sixteen_bit: bool  # 16-bit grey; Pillow itself reduces 16-bit colour to the upper 8 bits


@dataclass(frozen=True)
class TargetShape:
    """The shape that every image is converted to, and how it is fitted to it."""

    height: int
    width: int
    channels: int
    fit: str = "crop"
    window: tuple[int, int] = (0, 65535)  # darkest and brightest value in all 16-bit images of the data set


def read_header(path: Path) -> ImageHeader:
    """The header of an image file; raises Pillow's exceptions if it has none."""
    with Image.open(path, formats=FORMATS) as image:
        height, width = image.height, image.width
        if _orientation(image) in (5, 6, 7, 8):
            height, width = width, height
        sixteen_bit = image.mode.startswith(("I", "F"))
        grey = sixteen_bit or image.mode in ("1", "L", "LA", "La")
        return ImageHeader(height, width, not grey, image.has_transparency_data and not sixteen_bit, sixteen_bit)


def value_range(path: Path) -> tuple[int, int]:
    """Darkest and brightest value of a 16-bit image."""
    with Image.open(path, formats=FORMATS) as image:
        pixels = np.asarray(image)
        return int(pixels.min()), int(pixels.max())


def choose_shape(headers: Sequence[ImageHeader], data: Data) -> TargetShape:
    """The shape from the config; what the config leaves open is chosen from the images.

    Size: a square with the largest side of 28, 32, 48 and 64 that is not above the median short side; if that median
    is below 28, the median height and width, each at least 16 and at most 256.  Channels: 4 if more than half of the
    images have alpha, else 3 if at least half are in colour, else 1.
    """
    size = parse_size(data.size)
    if size is None:
        short = float(np.median([min(h.height, h.width) for h in headers]))
        if short >= SIZES[0]:
            size = (max(side for side in SIZES if side <= short),) * 2
        else:
            sides = (np.median([h.height for h in headers]), np.median([h.width for h in headers]))
            size = (min(max(int(sides[0]), 16), 256), min(max(int(sides[1]), 16), 256))
    channels = data.channels
    if channels is None:
        count = Counter((h.alpha, h.colour) for h in headers)
        alpha = sum(n for (has, _), n in count.items() if has)
        colour = sum(n for (_, has), n in count.items() if has)
        channels = 4 if 2 * alpha > len(headers) else 3 if 2 * colour >= len(headers) else 1
    return TargetShape(*size, channels, data.fit)


def decode(path: Path, shape: TargetShape) -> NDArray[np.uint8]:
    """The first frame of a file, upright, as [H,W,C] of `shape`; raises Pillow's exceptions if it is damaged."""
    with Image.open(path, formats=FORMATS) as image:
        orientation = _orientation(image)
        if isinstance(image, ImageFile.ImageFile) and image.format == "JPEG" and shape.fit != "pad":
            ample = 4 * max(shape.height, shape.width)
            image.draft(None, (ample, ample))  # the JPEG decoder skips detail that resizing would average away
        upright: Image.Image = image
        if image.mode.startswith(("I", "F")):
            upright = Image.fromarray(_to_8_bit(np.asarray(image), shape.window))
        return to_shape(upright.transpose(TO_UPRIGHT[orientation]) if orientation in TO_UPRIGHT else upright, shape)


def to_shape(image: Image.Image, shape: TargetShape) -> NDArray[np.uint8]:
    """Any 8-bit image -> [H,W,C]; an image of the right size and mode is unchanged."""
    image = _to_channels(image, shape.channels)
    if image.size != (shape.width, shape.height):
        image = FITS[shape.fit](image, shape)
    return np.asarray(image).reshape(shape.height, shape.width, shape.channels)


def _to_channels(image: Image.Image, channels: int) -> Image.Image:
    """Keep alpha if there are 4 channels, else composite on white, the usual background of paper and web pages."""
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
    width, height = scale * shape.width, scale * shape.height
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


def _to_8_bit(pixels: NDArray[np.generic], window: tuple[int, int]) -> NDArray[np.uint8]:
    """16 bits -> 8 bits: the darkest value of the window becomes 0, the brightest 255."""
    low, high = window
    scaled = (pixels.astype(np.float64) - low) * (255 / max(1, high - low))
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(274, 1))
    except Exception:  # the pixels may be fine although the EXIF data are damaged
        return 1
