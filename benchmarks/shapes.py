"""Draw a labelled data set of colour images that are not square: five shapes, each plain and striped.

    python benchmarks/shapes.py shapes.npz                    300 images of each of 10 classes, 48x64
    python benchmarks/shapes.py shapes/ -n 50 --seed 1        the same as class folders of PNGs
    python benchmarks/shapes.py shapes.npz --sheet sheet.png  also a sheet of ten of each

A class is a shape and a texture.  Place, size, rotation, colours, the width of the stripes and the background (a
gradient between two colours) vary within a class.  Images are drawn at four times their size and averaged.  Image i of
a class depends only on the seed, the class and i, so a longer set starts with a shorter one.  The same version of
Pillow draws the same bytes.
"""

from __future__ import annotations

import argparse
import colorsys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ptarmigan.generator.generator import image_grid, save_png

HEIGHT, WIDTH, FINE = 48, 64, 4
SHAPES = ("cross", "disc", "ring", "square", "triangle")
NAMES = [f"{shape}-{texture}" for shape in SHAPES for texture in ("plain", "striped")]  # sorted, like folders
HOLE = 0.55  # radius of a ring's hole over that of the ring
ARM = 0.3  # half the width of a cross's arm over its radius


def outline(shape: str) -> NDArray[np.float64]:
    """Corners [N, 2] of a shape inscribed in the unit circle."""
    if shape == "cross":
        long = (1 - ARM**2) ** 0.5
        arm = np.array([(long, -ARM), (long, ARM), (ARM, ARM)])
        quarter = np.array([(0, -1), (1, 0)])  # rotates a row by 90 degrees
        return np.concatenate([arm @ np.linalg.matrix_power(-quarter, turns) for turns in range(4)])
    corners = {"triangle": 3, "square": 4}.get(shape, 120)
    angles = 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def draw(label: int, index: int, seed: int) -> NDArray[np.uint8]:
    """Image `index` of a class, uint8 [HEIGHT, WIDTH, 3]."""
    rng = np.random.default_rng([seed, label, index])
    shape, texture = NAMES[label].split("-")
    radius = rng.uniform(10, 17)
    centre = [rng.uniform(radius + 1, side - 1 - radius) for side in (WIDTH, HEIGHT)]
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
    corners = (outline(shape) * radius @ rotation + centre) * FINE

    hue = rng.uniform()
    colour = hsv(hue, rng.uniform(0.6, 1), rng.uniform(0.75, 1))
    pale = hsv(hue + rng.uniform(-0.1, 0.1), rng.uniform(0, 0.15), 1)
    far = hue + rng.uniform(0.3, 0.7)  # of the background, which is also darker
    ends = [hsv(far + rng.uniform(-0.1, 0.1), rng.uniform(0.2, 0.8), rng.uniform(0.1, 0.55)) for _ in range(2)]

    down, right = np.mgrid[: HEIGHT * FINE, : WIDTH * FINE] / FINE
    slope = rng.uniform(0, 2 * np.pi)
    along = np.cos(slope) * (right - WIDTH / 2) + np.sin(slope) * (down - HEIGHT / 2)
    share = 0.5 + along / np.hypot(HEIGHT, WIDTH)
    ground = ends[0] + share[..., None] * (ends[1] - ends[0])

    period, phase = rng.uniform(5, 9), rng.uniform()
    across = np.cos(turn) * right + np.sin(turn) * down
    stripes = (across / period + phase) % 1 < 0.5
    filled = np.where(stripes[..., None] & (texture == "striped"), pale, colour)

    mask = Image.new("L", (WIDTH * FINE, HEIGHT * FINE))
    pen = ImageDraw.Draw(mask)
    pen.polygon([tuple(corner) for corner in corners], fill=1)
    if shape == "ring":
        pen.polygon([tuple(corner) for corner in corners * HOLE + np.array(centre) * FINE * (1 - HOLE)], fill=0)
    fine = np.where(np.asarray(mask, bool)[..., None], filled, ground)
    small = fine.reshape(HEIGHT, FINE, WIDTH, FINE, 3).mean((1, 3))
    return (small * 255).round().astype(np.uint8)


def hsv(hue: float, saturation: float, value: float) -> NDArray[np.float64]:
    """RGB [3] in [0, 1]."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="an .npz file, or a folder to hold class folders")
    parser.add_argument("-n", type=int, default=300, help="images a class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="a PNG of the first ten images of each class, one class a row")
    arguments = parser.parse_args()
    images = np.array([[draw(label, i, arguments.seed) for i in range(arguments.n)] for label in range(len(NAMES))])
    if arguments.out.suffix == ".npz":
        labels = np.repeat(np.arange(len(NAMES)), arguments.n)
        flat = images.reshape(-1, *images.shape[2:])
        np.savez(arguments.out, arr_0=flat, arr_1=labels, class_names=np.array(NAMES))
    else:
        for name, of_class in zip(NAMES, images, strict=True):
            folder = arguments.out / name
            folder.mkdir(parents=True, exist_ok=True)
            for i, image in enumerate(of_class):
                Image.fromarray(image).save(folder / f"{i:05d}.png")
    if arguments.sheet:
        few = images[:, :10]
        save_png(image_grid(few.reshape(-1, *few.shape[2:]), few.shape[1]), arguments.sheet)
    print(f"{arguments.out}: {arguments.n} images of each of {', '.join(NAMES)}, {HEIGHT}x{WIDTH}")


if __name__ == "__main__":
    main()
