"""README.md and README.zh-CN.md say the same: block by block the same code, numbers, names, links and tables."""

from __future__ import annotations

import re
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HAN = re.compile(r"[\u4e00-\u9fff]")
CODE = r"`([^`]+)`"
LINK = r"\]\(([^)]+)\)"
NUMBER = r"\.?\d+(?:[.,]\d+)*"
NAME = r"[\w*-]*(?:[/\\_=]|\.(?=[A-Za-z]))[\w./\\*=_-]*\w"  # a path, a file, an option with its value


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    """Paragraphs, headings, lists, tables and fenced code, in order; a blank line in code parts nothing."""
    return [block.strip("\n") for block in re.findall(r"^```.*?^```$|^(?!```)\S.*?(?=\n\n|\Z)", text, re.DOTALL | re.M)]


def facts(text: str) -> list[list[str]]:
    """What a translation leaves as it is, in any order: code, links, names and numbers (spelled ones are words)."""
    code = [" ".join(span.split()) for span in re.findall(CODE, text)]
    words = re.sub(CODE, " ", text)
    return [sorted(found) for found in (code, *(re.findall(mark, words, re.A) for mark in (LINK, NAME, NUMBER)))]


def skeleton(block: str) -> list[object]:
    """A block without its words."""
    if block.startswith("```"):
        parts = [line.partition("# ") for line in block.splitlines()]
        return [(code.rstrip(), bool(mark), facts(comment)) for code, mark, comment in parts]
    if block.startswith("|"):
        return [[facts(cell) for cell in line.split("|")] for line in block.splitlines()]
    return [re.findall(r"^(?:#+ |!\[)", block, re.M), *facts(block)]


def differences(english: str, chinese: str) -> list[tuple[str, str]]:
    pairs = zip_longest(blocks(english), blocks(chinese), fillvalue="")
    return [(one, other) for one, other in pairs if skeleton(one) != skeleton(other)]


def test_both_readmes_say_the_same() -> None:
    links = "[简体中文](README.zh-CN.md)", "[English](README.md)"
    assert differences(read("README.md"), read("README.zh-CN.md")) == [links]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"\n\|[^\n]+\|(?=\n\n)", ""),  # the last row of a table
        (r" \|(?=\n\|---)", " | |"),  # a column of one row
        (r"\d(?= \|)", r"\g<0>7"),  # a number in a table
        (r" \d+\.\d+", r"\g<0>7"),  # a number in a paragraph
        (r"(?<=```console\n)ptarmigan [^\n]+\n", ""),  # a command
        (r"(?<= -n )\d+", r"\g<0>7"),  # an option's value
        (r"(?<=# )\w+/", "x/"),  # a path in a comment
        (r"(?<=,)000(?=.* Fashion)", "001"),  # a number in a comment
        (r" +# [^\n\d/]+\n", "\n"),  # a comment
        (r"`--\w+", r"\g<0>s"),  # a flag in a paragraph
        (r"\(docs/", "(doc/"),  # where a link leads
        (r"\]\(docs/", "] (docs/"),  # a link
        (r"\n!\[", "\n["),  # a picture
        (r"\n## ", "\n### "),  # a heading's level
        (r"\n## [^\n]+\n", "\n"),  # a heading
        (r"\n(?=2\. )", "\n\n"),  # one list made two
        (r"```python", "```"),  # a language
        (r"\n\n(?:(?!\n\n)[\s\S])+\Z", "\n"),  # the last paragraph
    ],
)
@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_a_difference_is_found(name: str, old: str, new: str) -> None:
    changed, count = re.subn(old, new, read(name), count=1)
    assert count == 1
    assert differences(read(name), changed)


def test_the_chinese_is_chinese_and_the_english_has_none() -> None:
    assert not HAN.search(read("README.md").replace("[简体中文]", ""))
    for block in blocks(read("README.zh-CN.md"))[2:]:
        words = re.sub(LINK, "]", block)
        if not block.startswith(("```", "|")):
            assert len(HAN.findall(words)) > len(re.findall("[A-Za-z]+", re.sub(CODE, "", words))), block
        assert not re.search(r"[\u4e00-\u9fff](?:[,;:?!(]|[A-Za-z])|[A-Za-z][\u4e00-\u9fff]", words), block
