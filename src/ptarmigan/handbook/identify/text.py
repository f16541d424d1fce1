"""The Python text of a file, of a notebook's code cells or of standard input, and the places of its lines."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from ptarmigan.core.types import UserError

CELL = "# ptarmigan: code cell {}"


def parsed(text: str, path: str = "") -> ast.Module:
    """The syntax tree of Python 3, or of Python 2 as far as its tabs and print statements go."""
    try:
        return ast.parse(text, path)
    except SyntaxError:
        old = re.sub(r"(?m)^(\s*)print\b\s*[^(\s=].*$", r"\1pass", text.expandtabs(8))
        with contextlib.suppress(SyntaxError):
            return ast.parse(old, path)
        raise


def read_source(path: Path) -> str:
    """The Python text of a file, of standard input ("-"), or of the code cells of a notebook; raises UserError."""
    if str(path) == "-":
        return sys.stdin.read()
    if not path.is_file():
        raise UserError(f"{path} {'is not a file' if path.exists() else 'does not exist'}", "file-unreadable")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if path.suffix != ".ipynb":
        return text
    try:
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        sources = ["".join(cell["source"]) for cell in cells]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not a notebook: it has no list of cells", "file-unreadable") from None
    kept = []
    for number, source in enumerate(sources, 1):
        source = re.sub(r"(?m)^(\s*)(%{1,2}[a-z]|[!?]).*$", r"\1pass", source)
        with contextlib.suppress(SyntaxError):
            parsed(source)
            kept += [CELL.format(number), source]
    return "\n".join(kept)


def place(lines: list[str], line: int) -> str:
    """line 7, or in a notebook: code cell 3, line 7."""
    for i in range(line - 1, -1, -1):
        if marker := re.fullmatch(CELL.format(r"(\d+)"), lines[i]):
            return f"code cell {marker[1]}, line {line - 1 - i}"
    return f"line {line}"


def places(place: Callable[[int], str], lines: list[int]) -> str:
    """lines 7, 9, or in a notebook: code cell 3, line 7 and code cell 4, line 2."""
    found = [place(line) for line in lines]
    if len(lines) > 1 and found[0].startswith("line"):
        return f"lines {', '.join(map(str, lines))}"
    return " and ".join(found)
