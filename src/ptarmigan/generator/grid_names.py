"""Write the names of classes beside the rows of a grid of images."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from ptarmigan.core.types import printable

GAP = 2  # pixels between the images of a grid
LEAST_FONT, MOST_FONT = 10, 24  # pixels
MOST_CHARACTERS = 20  # of a name
INK: dict[str, int | tuple[int, ...]] = {  # the grey on transparent is legible on white and on black
    "L": 60, "RGB": (60, 60, 60), "RGBA": (118, 118, 118, 255),
}  # fmt: skip
PAPER: dict[str, int | tuple[int, ...]] = {"L": 255, "RGB": (255, 255, 255), "RGBA": (118, 118, 118, 0)}


def shown_name(name: str, label: int) -> str:
    """A class name as it stands beside its row: without accents and shortened.

    Pillow's font has no accents and no other scripts.  Where it lacks a character, the class has its number instead.
    """
    text = "".join(c for c in unicodedata.normalize("NFKD", printable(name)) if not unicodedata.combining(c))
    font = ImageFont.load_default(LEAST_FONT)
    missing = drawn("\U0010ffff", font)
    if not text.strip() or any(drawn(character, font) == missing for character in text):
        return f"class {label}"
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 3]}..."


def drawn(character: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> bytes:
    picture = Image.new("L", (2 * LEAST_FONT, 2 * LEAST_FONT))
    ImageDraw.Draw(picture).text((0, 0), character, fill=255, font=font)
    return picture.tobytes()


def write_names(grid: Image.Image, names: Sequence[str], height: int) -> tuple[Image.Image, int]:
    """The grid with a name left of each of its first rows, and the width that they take in pixels.

    The images are `height` pixels high.  Where a row is too low for a name, the grid stays as it is.
    """
    size = min(max(LEAST_FONT, height // 4), MOST_FONT)
    if height < size:
        return grid, 0
    font = ImageFont.load_default(size)
    margin = round(max(font.getlength(name) for name in names)) + 3 * GAP
    sheet = Image.new(grid.mode, (margin + grid.width, grid.height), PAPER[grid.mode])
    sheet.paste(grid, (margin, 0))
    draw = ImageDraw.Draw(sheet)
    for row, name in enumerate(names):
        middle = GAP + row * (height + GAP) + height / 2
        draw.text((margin - GAP, middle), name, fill=INK[grid.mode], font=font, anchor="rm")
    return sheet, margin
