"""Write the table of docs/folders.md: folder layouts, and what ptarmigan understands each of them to be.

    python tools/draw_layouts.py

Makes every layout of tests/layouts.py in a temporary folder and lists it; tests/test_data_layouts.py checks that the
table in the page is what this tool makes.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from layouts import LAYOUTS, make, understand
from ptarmigan.core.types import printable

PAGE = Path(__file__).parents[1] / "docs" / "folders.md"
BEGIN, END = "<!-- made by tools/draw_layouts.py -->\n", "<!-- end -->\n"


def main() -> None:
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.split(END)[1], encoding="utf-8")


def table() -> str:
    """The rows in Markdown.  All folders are called `photos`, so that no message names a temporary folder."""
    lines = [
        "| you have | in `photos/` | classes | images to divide, select, held-out | what `train` says |",
        "|---|---|---|---|---|",
    ]
    here = Path.cwd()
    for title, entries in LAYOUTS.items():
        with tempfile.TemporaryDirectory() as temporary:
            os.chdir(temporary)
            try:
                make(Path("photos"), entries)
                found = understand(Path("photos"))
            finally:
                os.chdir(here)
        cells = [
            title,
            "<br>".join(f"`{printable(entry)}`" for entry in entries),
            ", ".join(found.classes),
            ", ".join(map(str, found.parts)) if found.classes else "",
            "<br>".join(escape(text) for text in found.said),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text as Markdown shows it literally."""
    text = printable(text).replace("|", r"\|").replace("<", "&lt;")
    return text.replace("_", r"\_").replace("*", r"\*").replace("[", r"\[").replace("$", r"\$")


if __name__ == "__main__":
    main()
