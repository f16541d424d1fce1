"""Settings of the documentation: `make docs` builds it to docs/_build/html, which a browser opens without a network."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

from ptarmigan import __version__
from ptarmigan.config.sections import HELP, SECTIONS

project = "ptarmigan"
author = "The ptarmigan developers"
copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
smartquotes = False  # docstrings hold code
html_theme = "furo"
html_title = f"ptarmigan {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sphinx = False

OPTIONS = "<!-- every option, from config/sections.py -->"  # in options.md


def options() -> str:
    """The fields of a Config as Markdown tables, a section each."""
    lines = []
    for name, section in SECTIONS.items():
        lines += [f"## {name.capitalize()}", "", "| option | default | meaning |", "|---|---|---|"]
        for field in fields(section):
            flag = f"--{field.name.replace('_', '-')}"
            default = "" if field.default is None else f"`{field.default}`"
            meaning = HELP[field.name].replace("|", r"\|")
            lines.append(f"| `{flag}` | {default} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


def prepare_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Insert the tables of options; show links to files outside the site as plain paths."""

    def named(link: re.Match[str]) -> str:
        text, path = link[1], link[2]
        return f"`{path}`" if path.endswith(text.strip("`")) else f"{text} (`{path}`)"

    text = re.sub(r"\[([^\]]+)\]\(\.\./([^)#]+)[^)]*\)", named, source[0])
    source[0] = text.replace(OPTIONS, options())


def plain(line: str) -> str:
    """A line of text with `code` in it, as reStructuredText."""
    parts = re.split(r"`+([^`]+)`+", line)  # text, code, text, ...
    text = [re.sub(r"([\\*|_])", r"\\\1", part) for part in parts[::2]]
    code = [f"\\ ``{part}``\\ " for part in parts[1::2]] + [""]
    return "".join(a + b for a, b in zip(text, code, strict=True))


def prepare_docstring(app: Sphinx, kind: str, name: str, found: Any, choices: Any, lines: list[str]) -> None:
    """Docstrings are plain text with `code` in it and indented examples; write them as reStructuredText."""
    out = []
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("    "):
            out += ["::", "", line] if not before.startswith("    ") else [line]
        else:
            out.append(plain(line))
    lines[:] = out
    if kind == "class":  # the fields of a dataclass or a named tuple, whose comments say what they are
        source = inspect.getsource(found)
        lines.append("")
        for field, hint, comment in re.findall(r"^    (\w+): ([^=#\n]+?) *(?:=[^#\n]*)?(?:# (.+))?$", source, re.M):
            lines.append(f"- ``{field}`` (``{hint}``)" + f": {plain(comment)}" * bool(comment))
        lines.append("")


def drop_signature(app: Sphinx, kind: str, *_: Any) -> tuple[str, str] | None:
    """That of a dataclass repeats its fields."""
    return ("", "") if kind == "class" else None


def show_math(translator: Any, node: nodes.math) -> None:
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def show_display_math(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (show_math, None), (show_display_math, None))
    app.add_lexer("tree", TextLexer)  # a list of files
    app.connect("source-read", prepare_page)
    app.connect("autodoc-process-docstring", prepare_docstring)
    app.connect("autodoc-process-signature", drop_signature)
