"""A film of a run: its grids of samples, compressed so that a page can hold them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from ptarmigan.core.types import counted
from ptarmigan.sharing.markup import text

MOST_FRAMES = 24
MOST_BYTES = 3_000_000 // MOST_FRAMES  # of a frame
QUALITY = 80  # of WebP
SMALL = 450  # pixels of a grid's width, up to which it is shown at twice its size


class Frame(NamedTuple):
    """A picture, compressed."""

    size: tuple[int, int]  # width and height of the picture itself in pixels
    scale: float  # of the frame, 1 for the picture's own size
    content: bytes  # a WebP

    def html(self, words: str) -> str:
        """The image element; small pictures are shown at twice their size."""
        zoom = 2 if self.size[0] <= SMALL else 1
        width, height = (zoom * side for side in self.size)
        small = " class=small" * (zoom > 1)
        return f'<img src="{self.address}" width="{width}" height="{height}" alt="{text(words)}"{small}>'

    @property
    def address(self) -> str:
        return f"data:image/webp;base64,{base64.b64encode(self.content).decode()}"


class Film(NamedTuple):
    frames: dict[int, Frame]  # images seen -> the grid at that snapshot, in their order
    left_out: int  # grids between the first and the last that have no frame


def film(run: Path) -> Film:
    """The grids of RUN/samples; of more than MOST_FRAMES the last and every second, or every fourth, and so on.

    A grid that cannot be read is left out, and so is a link, which may lead out of the run.
    """
    paths = (run / "samples").glob("*.png")
    grids = sorted(path for path in paths if path.stem.isdecimal() and not path.is_symlink())
    step = 1
    while len(grids) > step * (MOST_FRAMES - 1):
        step *= 2
    shown = [path for place, path in enumerate(grids) if place % step == 0 or place == len(grids) - 1]
    frames = {int(path.stem): frame for path in shown if (frame := frame_of(path)) is not None}
    return Film(frames, len(grids) - len(shown))


def frame_of(path: Path) -> Frame | None:
    """A picture as a frame; None where it cannot be read."""
    try:
        return compressed(path, path.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(4 * MOST_FRAMES)
def compressed(path: Path, changed: int) -> Frame:
    """A picture as a frame of at most MOST_BYTES, at half its size or less where that is needed.

    `changed` is the time at which the file was written: a page is written at each snapshot, and frames are kept.
    """
    with Image.open(path, formats=["PNG"]) as opened:
        picture = on_white(opened)
    size = picture.size
    while len(content := webp(picture)) > MOST_BYTES:
        picture = picture.reduce(2)
    return Frame(size, picture.width / size[0], content)


def on_white(picture: Image.Image) -> Image.Image:
    """The picture without transparency, which would need more bytes than the colours."""
    paper = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(paper, picture.convert("RGBA")).convert("RGB")


def webp(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=QUALITY, method=2)  # a higher method takes 4 times as long and saves 3 %
    return file.getvalue()


def film_section(shown: Film, caption: Callable[[int], str]) -> str:
    """The last grid, with what `caption(images_seen)` says of it, and a slider through all, which the script shows."""
    if not shown.frames:
        return "<p>There is no grid of samples yet.</p>"
    last = max(shown.frames)
    notes = ["The grids are compressed; those in samples/ are exact."]
    if shown.left_out:
        notes.append(f"{counted(shown.left_out, 'grid')} between them are left out, so that the page stays small.")
    if any(frame.scale < 1 for frame in shown.frames.values()):
        notes.append("Some are at half their size or less.")
    return (
        f'<figure class="film"><div class="frame">{shown.frames[last].html(f"Generated images, {caption(last)}")}</div>'
        f"<figcaption>{text(caption(last))}</figcaption>"
        '<div class="controls" hidden><button type="button">Play</button>'
        '<input type="range" min="0" step="1" aria-label="snapshot"></div></figure>'
        f'<p class="soft">{" ".join(notes)}</p>'
    )


def film_data(shown: Film, caption: Callable[[int], str]) -> list[dict[str, Any]]:
    """What the slider shows; the page has the last grid already."""
    return [
        {"seen": seen, "text": caption(seen)} | ({"src": frame.address} if seen < max(shown.frames) else {})
        for seen, frame in shown.frames.items()
    ]
