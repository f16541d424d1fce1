"""The newest grid of samples in the colours of a terminal, two pixels to a character."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from ptarmigan.core.types import ImageSpec
from ptarmigan.generator.grid_names import GAP

LEAST_SIDE = 14  # columns, and half as many lines, of an image: with fewer nothing is recognised
MOST_SIDE = 64
BELOW = 6  # lines that are left for what is below the picture


def preview(grid: Path, spec: ImageSpec, terminal: Console) -> Text | None:
    """The first images of a grid, as many as the terminal has room for; None where it shows no colours."""
    if not terminal.is_terminal or terminal.no_color or terminal.color_system not in ("256", "truecolor"):
        return None
    with Image.open(grid, formats=["PNG"]) as opened:
        left = int(opened.info.get("margin", 0))  # of the names
        picture = opened.convert("RGBA").crop((left, 0, opened.width, opened.height))
    width, height = spec.width + GAP, spec.height + GAP
    columns = min(picture.width // width, max(1, terminal.width // LEAST_SIDE))
    scale = min(terminal.width / (columns * width), MOST_SIDE / width)
    lines = max(1, int(2 * (terminal.height - BELOW) / (height * scale)))
    picture = picture.crop((0, 0, columns * width, min(picture.height // height, lines) * height))
    size = max(1, round(picture.width * scale)), max(2, round(picture.height * scale / 2) * 2)
    return half_blocks(picture.resize(size, Image.Resampling.BOX))


def half_blocks(picture: Image.Image) -> Text:
    """An RGBA picture of even height as text; its transparent pixels keep the terminal's background."""
    text = Text(no_wrap=True)
    rows = np.asarray(picture).tolist()
    for above, below in zip(rows[::2], rows[1::2], strict=True):
        for upper, lower in zip(map(colour, above), map(colour, below), strict=True):
            block = " " if not (upper or lower) else "▀" if upper else "▄"
            text.append(block, Style(color=upper or lower, bgcolor=lower if upper else None))
        text.append("\n")
    return text


def colour(pixel: list[int]) -> Color | None:
    """None for a pixel that is more transparent than not."""
    return Color.from_rgb(*pixel[:3]) if pixel[3] >= 128 else None
