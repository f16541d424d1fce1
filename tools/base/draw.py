"""Draw a labelled set of colour pictures, which the base models are trained on.

    python tools/base/draw.py base.npz --images 120000 --size 64     all classes, on every core
    python tools/base/draw.py few.npz --images 3000 --sheet few.png  also a sheet of ten of each class

Textures, shaded solids, shapes, characters, faces, hands, figures, animals, plants, flags, clothes and things, all
drawn by the code of classes.py.  Picture i is of class i modulo the number of classes, and depends only on the seed
and i, so a longer set starts with a shorter one.  The same versions of NumPy and Pillow draw the same bytes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from classes import CLASSES
from numpy.typing import NDArray
from picture import Picture
from PIL import Image

NAMES = tuple(CLASSES)
CHUNK = 500  # pictures that a process draws at a time
SHEET = 10  # pictures of a class on the sheet


def draw(index: int, size: int, seed: int) -> NDArray[np.uint8]:
    """Picture `index`, uint8 [size, size, 3]."""
    picture = Picture(size, np.random.default_rng([seed, index]))
    CLASSES[NAMES[index % len(NAMES)]](picture)
    return picture.finished()


def draw_chunk(start: int, images: int, size: int, seed: int) -> NDArray[np.uint8]:
    return np.stack([draw(i, size, seed) for i in range(start, min(start + CHUNK, images))])


def draw_all(images: int, size: int, seed: int, processes: int) -> Iterator[NDArray[np.uint8]]:
    """All pictures in order, in chunks; the number of processes does not change them."""
    part = partial(draw_chunk, images=images, size=size, seed=seed)
    with multiprocessing.Pool(processes) as pool:
        yield from pool.imap(part, range(0, images, CHUNK))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="an .npz file")
    parser.add_argument("--images", type=int, default=120_000)
    parser.add_argument("--size", type=int, default=64, help="pixels of a side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sheet", type=Path, help="a PNG of the first ten pictures of each class")
    arguments = parser.parse_args()
    size = arguments.size
    images = np.empty((arguments.images, size, size, 3), np.uint8)
    started, done = time.perf_counter(), 0
    for chunk in draw_all(arguments.images, size, arguments.seed, arguments.processes):
        images[done : done + len(chunk)] = chunk
        done += len(chunk)
        print(f"\r{done:,} of {len(images):,} pictures, {time.perf_counter() - started:.0f} s", end="", flush=True)
    print()
    np.savez(arguments.out, images=images, labels=np.arange(len(images)) % len(NAMES), class_names=np.array(NAMES))
    if arguments.sheet:
        save_sheet(images, arguments.sheet)
    print(f"{arguments.out}: {len(images):,} pictures of {len(NAMES)} classes, {size}x{size}")


def save_sheet(images: NDArray[np.uint8], path: Path) -> None:
    """The first pictures of each class side by side, two classes to a row."""
    each = [images[label :: len(NAMES)][:SHEET] for label in range(len(NAMES))]
    rows = [np.concatenate(list(of_class), 1) for of_class in each]
    rows += [np.zeros_like(rows[0])] * (len(rows) % 2)
    wide = [np.concatenate([one, other], 1) for one, other in zip(rows[::2], rows[1::2], strict=True)]
    Image.fromarray(np.concatenate(wide)).save(path)


if __name__ == "__main__":
    main()
