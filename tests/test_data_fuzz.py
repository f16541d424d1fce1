"""Damaged image files of every format: each is decoded or named with a reason, soon and with little memory."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from ptarmigan.config import Data
from ptarmigan.data import open_dataset
from ptarmigan.data.decode import ImageHeader, Limits, TargetShape, decode, look, read_header
from ptarmigan.data.disk import Disk
from ptarmigan.data.workers import Failure, read_files
from support import at_most

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux"),
]
EACH = 60  # files of each format
WAYS = {  # of saving an image: mode, options
    "PNG": [("RGBA", {}), ("P", {}), ("1", {}), ("I;16", {})],
    "JPEG": [("RGB", {}), ("RGB", {"progressive": True}), ("CMYK", {})],
    "WEBP": [("RGB", {}), ("RGBA", {"lossless": True})],
    "BMP": [("RGB", {}), ("P", {}), ("1", {})],
    "GIF": [("P", {})],
    "TIFF": [("RGB", {"compression": kind}) for kind in ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits")]
    + [("1", {"compression": "group4"}), ("I;16", {})],
    "PPM": [("RGB", {}), ("L", {}), ("1", {})],
    "AVIF": [("RGB", {"speed": 10})],
}
SIDES = struct.pack("<HH", 80, 96), struct.pack(">II", 80, 96), struct.pack(">HH", 96, 80), b"80 96"
HUGE = struct.pack("<HH", 9000, 9000), struct.pack(">II", 9000, 9000), struct.pack(">HH", 9000, 9000), b"9000 9000"


def saved(kind: str, mode: str, options: dict[str, object], rng: np.random.Generator) -> bytes:
    image = Image.fromarray(rng.integers(0, 256, (24, 20, 4), np.uint8)).resize((80, 96))
    deep: NDArray[np.uint16] = rng.integers(0, 65536, (96, 80), np.uint16)
    content = io.BytesIO()
    (Image.fromarray(deep) if mode == "I;16" else image.convert(mode)).save(content, kind, **options)
    return content.getvalue()


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The bytes with up to 4 changes, most of them near the start; a PNG mostly with the right checksums."""
    out = bytearray(content)
    if rng.random() < 0.1:
        for sides, huge in zip(SIDES, HUGE, strict=True):
            out = bytearray(bytes(out).replace(sides, huge, 1))
    for _ in range(rng.randint(0, 4)):
        at = rng.randrange(min(len(out), 200) if rng.random() < 0.6 else len(out))
        length = rng.randint(1, 60)
        change = rng.randrange(6)
        if change < 2:
            out[at] = rng.choice((out[at] ^ 1 << rng.randrange(8), 0, 127, 128, 255))
        elif change == 2:
            out[at : at + 4] = rng.choice((bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"))
        elif change == 3:
            out[at:at] = rng.randbytes(length)
        elif change == 4:
            del out[at + 1 :]
        else:
            out[at : at + length] = out[:length]
    if content.startswith(b"\x89PNG") and rng.random() < 0.7:
        at = 8
        while (end := at + 8 + int.from_bytes(out[at : at + 4])) + 4 <= len(out):
            out[end : end + 4] = struct.pack(">I", zlib.crc32(out[at + 4 : end]))
            at = end + 4
    return bytes(out)


@pytest.mark.parametrize("kind", WAYS)
def test_a_damaged_file_is_decoded_or_named(kind: str, tmp_path: Path) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    rng, draws = random.Random(kind), np.random.default_rng(0)
    ways = [saved(kind, *way, draws) for way in WAYS[kind]]
    paths = [f"{i}.{kind.lower()}" for i in range(EACH)]
    for i, path in enumerate(paths):
        (tmp_path / path).write_bytes(mutated(ways[i % len(ways)], rng))
    (tmp_path / f"whole.{kind.lower()}").write_bytes(ways[0])
    with at_most(500):
        for work in (read_header, look, partial(decode, shape=TargetShape(32, 48, 3))):
            for path in paths:
                begun = time.process_time()
                (answer,) = read_files(Disk(tmp_path), [path], work, Limits())
                assert time.process_time() - begun < 10
                if isinstance(answer, Failure):
                    assert answer.reason
                    assert len(answer.reason) < 100
                elif isinstance(answer, ImageHeader):
                    assert answer.height * answer.width <= Data().max_pixels
        assert len(open_dataset(tmp_path, Data()).images) >= 1
