"""Text, data and assets for pages of HTML."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files as resources

from ptarmigan.core.types import printable


def text(value: str) -> str:
    """Text for a page: on one line, without control characters, and never markup."""
    return escape(printable(value))


def as_json(value: object) -> str:
    """JSON for a script element, whose end it never holds."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def asset(path: str) -> str:
    """A text of the package's assets."""
    return (resources("ptarmigan") / "assets" / path).read_text(encoding="utf-8")
