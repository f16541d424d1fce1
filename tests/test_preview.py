"""The newest grid on a terminal: what is drawn, how much of it, and where nothing is."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from conftest import SMALL
from ptarmigan.core.types import ImageSpec
from ptarmigan.sharing.preview import half_blocks, preview
from support import call

RED, BLUE, CLEAR = [255, 0, 0, 255], [0, 0, 255, 255], [9, 9, 9, 0]


def terminal(width: int = 80, height: int = 24, **options: object) -> Console:
    given = {"force_terminal": True, "color_system": "truecolor", **options}
    return Console(file=io.StringIO(), width=width, height=height, legacy_windows=False, **given)


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Ten columns and six rows of 16x16 images."""
    path = tmp_path / "grid.png"
    Image.new("RGB", (182, 110), "red").save(path)
    return path


def test_two_pixels_make_a_character_and_clear_ones_keep_the_background() -> None:
    picture = Image.fromarray(np.array([[RED, RED, CLEAR, CLEAR], [BLUE, CLEAR, BLUE, CLEAR]], np.uint8))
    text = half_blocks(picture)
    assert text.plain == "▀▀▄ \n"
    colours = [(span.style.color, span.style.bgcolor) for span in text.spans if not isinstance(span.style, str)]
    names = [tuple(each and each.name for each in pair) for pair in colours]
    assert names == [("#ff0000", "#0000ff"), ("#ff0000", None), ("#0000ff", None)]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 60), (20, 10), (1, 1)])
def test_the_picture_fits_the_terminal(grid: Path, width: int, height: int) -> None:
    text = preview(grid, ImageSpec(16, 16, 3, ("a",)), terminal(width, height))
    assert text is not None
    lines = text.plain.splitlines()
    assert all(len(line) <= width for line in lines)
    assert 1 <= len(lines) <= max(height - 6, 10)


def test_only_so_many_images_are_shown_that_each_is_recognised(tmp_path: Path) -> None:
    halves = Image.new("RGB", (182, 110), "red")
    halves.paste("blue", (90, 0, 182, 110))  # five columns of each
    halves.save(tmp_path / "grid.png")
    for width, blue in ((80, False), (140, True)):
        text = preview(tmp_path / "grid.png", ImageSpec(16, 16, 3, ("a",)), terminal(width))
        assert text is not None
        colours = {span.style.color.name for span in text.spans if span.style.color}
        assert ("#0000ff" in colours) == blue


@pytest.mark.parametrize("options", [{"force_terminal": False}, {"color_system": None}, {"no_color": True}])
def test_nothing_is_shown_without_a_terminal_or_colours(grid: Path, options: dict[str, object]) -> None:
    assert preview(grid, ImageSpec(16, 16, 3, ("a",)), terminal(**options)) is None


def test_training_shows_it_on_a_terminal_alone(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    assert "▀" not in call(monkeypatch, capsys, "train", shapes, "--out", tmp_path / "a", *options)[1]
    for name, value in {"FORCE_COLOR": "1", "COLORTERM": "truecolor", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "▀" in call(monkeypatch, capsys, "train", shapes, "--out", tmp_path / "b", *options)[1]
    status, out, _ = call(monkeypatch, capsys, "train", shapes, "--out", tmp_path / "c", *options, "--no-preview")
    assert (status, "▀" in out) == (0, False)
