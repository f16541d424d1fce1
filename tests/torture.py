"""A folder of healthy images with planted faults, for the tests of `ptarmigan check` and its page of docs."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

EACH = 4  # faults of each kind
CLASSES = ("bark", "cloud")
SIDE = 40


def healthy(seed: int, side: int = SIDE) -> Image.Image:
    """A smooth coloured texture, unlike that of another seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def swapped_profile() -> bytes:
    """The profile of sRGB with red and green exchanged."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = content.index(b"rXYZ"), content.index(b"gXYZ")
    content[red : red + 4], content[green : green + 4] = content[green : green + 4], content[red : red + 4]
    return bytes(content)


def bomb() -> bytes:
    """A PNG of a few bytes whose header promises 60,000 x 60,000 pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0")
    return (
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
            for chunk in (head, b"IDAT" + body, b"IEND")
        )
    )  # fmt: skip


def damaged(image: Image.Image) -> bytes:
    """A PNG one byte of whose pixels was changed."""
    content = bytearray(encoded(image))
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


def turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return encoded(image, "JPEG", quality=95, exif=exif)


def animated(image: Image.Image) -> bytes:
    return encoded(image, "GIF", save_all=True, append_images=[image.rotate(90), image.rotate(180)])


def deep(image: Image.Image) -> bytes:
    return encoded(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257))


def with_hole(image: Image.Image) -> bytes:
    pixels = np.asarray(image.convert("RGBA")).copy()
    pixels[:12, :12, 3] = 0
    return encoded(Image.fromarray(pixels))


# ways to store a healthy image, all of them without a fault
HEALTHY: tuple[tuple[str, Callable[[Image.Image], bytes]], ...] = (
    (".png", encoded),
    (".png", lambda image: encoded(image.convert("RGBA"))),
    (
        ".png",
        lambda image: encoded(image, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()),
    ),
    (".jpeg", lambda image: encoded(image, "JPEG", quality=95, progressive=True)),
    (".webp", lambda image: encoded(image, "WEBP", lossless=True)),
)

# code of the finding -> the ending of the file and its content, made from a healthy image
FILES: dict[str, tuple[str, Callable[[Image.Image], bytes]]] = {
    "file-empty": (".png", lambda image: b""),
    "file-truncated": (".jpg", lambda image: encoded(image, "JPEG", quality=95)[:-200]),
    "file-not-image": (".jpg", lambda image: b"<!doctype html><title>404</title>not found" * 9),
    "file-undecodable": (".png", damaged),
    "file-bomb": (".png", lambda image: bomb()),
    "wrong-ending": (".jpg", encoded),
    "profile-not-srgb": (".png", lambda image: encoded(image, icc_profile=swapped_profile())),
    "cmyk": (".jpg", lambda image: encoded(image.convert("CMYK"), "JPEG", quality=95)),
    "animated": (".gif", animated),
    "16-bit": (".png", deep),
    "transparent": (".png", with_hole),
    "exif-turned": (".jpg", turned),
}


def build(root: Path, count: int = 60) -> dict[str, set[str]]:
    """Write `count` healthy images of each class and the faults; returns the paths that each finding must name."""
    seed = iter(range(10**6))
    planted: dict[str, set[str]] = {}

    def put(path: str, content: bytes) -> str:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
        return path

    for name in CLASSES:
        for number in range(count):
            ending, save = HEALTHY[number % len(HEALTHY)]
            put(f"{name}/{number:03}{ending}", save(healthy(next(seed))))
    for code, (ending, make) in FILES.items():
        for number in range(EACH):
            path = f"{CLASSES[number % 2]}/{code}-{number}{ending}"
            planted.setdefault(code, set()).add(put(path, make(healthy(next(seed)))))
    for number in range(EACH):
        of, other = (CLASSES[(number + i) % 2] for i in range(2))
        image = healthy(next(seed))
        same = [put(f"{of}/twin-{number}.png", encoded(image)), put(f"{of}/twin-{number}b.png", encoded(image))]
        planted.setdefault("duplicates", set()).update(same)
        image = healthy(next(seed))
        same = [put(f"{of}/both-{number}.png", encoded(image)), put(f"{other}/both-{number}.png", encoded(image))]
        planted.setdefault("label-conflict", set()).update(same)
        image = healthy(next(seed))
        box = (1, 1, SIDE - 1, SIDE - 1)  # a crop by 5 % of the sides
        alike = [encoded(image, "JPEG", quality=80), encoded(image.resize((SIDE, SIDE), box=box))][number % 2]
        same = [
            put(f"{of}/near-{number}.png", encoded(image)),
            put(f"{of}/near-{number}b{('.jpg', '.png')[number % 2]}", alike),
        ]
        planted.setdefault("near-duplicates", set()).update(same)
        colour = Image.new("RGB", (SIDE, SIDE), (40 * number, 200, 90))
        planted.setdefault("flat", set()).add(put(f"{of}/flat-{number}.png", encoded(colour)))
        same = [put(f"{of}/{name}-{number}.png", encoded(healthy(next(seed)))) for name in ("Shot", "shot")]
        planted.setdefault("names-collide", set()).update(same)
    return planted
