"""What `ptarmigan losses [NAME]` prints, in English or Chinese.

It explains every loss in words, formulas and PyTorch.  For each problem in training it says what people see, what
causes it, what the log shows and what to try.

The entries are data: assets/losses/facts.toml has what both languages share, en.toml and zh.toml have the texts.
tests/test_handbook.py executes every formula and line of code, and checks every number against the functions that
training uses.  Nothing here imports torch.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from rich.cells import cell_len

from ptarmigan.config import resolve
from ptarmigan.config.recipes import RECIPES
from ptarmigan.core import words
from ptarmigan.core.paths import user_path
from ptarmigan.core.types import UserError, unknown

WIDTH = 80
INDENT = 10
LANGUAGES = ("en", "zh")
SAME = {  # word -> the one by which names are compared
    "discriminator": "d", "critic": "d", "generator": "g", "zero": "0", "colour": "color", "artefact": "artifact",
    "gray": "grey", "identical": "same", "sample": "image", "picture": "image",
}  # fmt: skip
FILLERS = {"", "a", "all", "an", "are", "is", "my", "the", "why"}
PIECE = re.compile(  # text that must not be broken: a word or a Chinese character, with its punctuation
    r" *[“（]*(?:[^\s“”\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]+|\S)[”，。；：、？！）]*"
)


@dataclass(frozen=True)
class Value:
    """A number to compare with your own run, printed as 'what = value (exact)'."""

    what: str
    value: float
    exact: str = ""


@dataclass(frozen=True)
class Entry:
    """The text about one loss; empty fields are not printed."""

    title: str
    words: str
    formulas: tuple[str, ...]  # Python except for ^ and "E x", the mean of x
    code: str  # PyTorch on the names in [variables] of the texts
    wrong: tuple[str, ...]
    textbook: tuple[str, ...] = ()  # the formulas as papers print them, where D is a probability
    paper: str = ""
    flags: str = ""  # the command-line flags that choose it
    best: str = ""  # the optimal D at each point, and the value of its loss
    values: tuple[Value, ...] = ()  # at the equilibrium p = q, with the optimal D
    values_note: str = ""
    marks: tuple[Value, ...] = ()  # other numbers worth recognising
    slope: tuple[str, float, float] | None = None  # dL_G/df, and its limits at f = -inf and +inf
    slope_note: str = ""
    rising: str = ""
    use: str = ""


@dataclass(frozen=True)
class Problem:
    """The text about something that goes wrong in training."""

    title: str
    looks: str
    causes: str
    log: str  # what the columns of metrics.jsonl show
    remedy: str
    paper: str
    names: tuple[str, ...]  # other words for it


@dataclass(frozen=True)
class Handbook:
    """All entries and texts in one language."""

    groups: dict[str, dict[str, Entry]]  # questions, losses, class, penalties, images, recipes, averages, scores
    problems: dict[str, Problem]
    synonyms: dict[str, str]  # another name, beside those in core/words.py -> the entry or problem
    near: dict[str, str]  # the name of something without an entry, beside those in core/words.py -> the nearest entry
    texts: dict[str, Any]

    @property
    def entries(self) -> dict[str, Entry]:
        """All entries except the three questions."""
        return {
            name: entry for group, found in self.groups.items() if group != "questions" for name, entry in found.items()
        }


def _words_of(text: str) -> list[str]:
    """The words of a text without case, hyphens and words that say nothing."""
    found = re.split(r"[\s_-]+", unicodedata.normalize("NFKC", text).casefold().strip(" ?!.？！。"))
    return [word for word in found if word not in FILLERS]


def _plain(text: str) -> str:
    """The words of a text as names are compared: as `_words_of`, without plurals, and one word for each meaning."""
    found = _words_of(text)
    singular = (word if len(word) < 4 or word.endswith(("ss", "us")) else word.removesuffix("s") for word in found)
    return " ".join(SAME.get(word, word) for word in singular)


@cache
def read_handbook(lang: str) -> Handbook:
    """Combine facts.toml with the texts of a language."""
    facts, texts = _load("facts"), _load(lang)
    synonyms, near = ({_plain(name): of for name, of in facts.pop(table).items()} for table in ("synonyms", "near"))
    problems = {
        name: Problem(**texts["problems"][name], paper=found["paper"], names=tuple(found["names"]))
        for name, found in facts.pop("problems").items()
    }
    synonyms |= {_plain(word): name for name, problem in problems.items() for word in (name, *problem.names)}
    translated = texts.get("numbers", {})

    def entry(name: str, facts: dict[str, Any]) -> Entry:
        found = facts | texts["entries"][name]
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in found.items()
        }
        for key in {"values", "marks"} & fields.keys():
            fields[key] = tuple(Value(translated.get(what, what), *number) for what, *number in fields[key])
        return Entry(**fields)

    return Handbook(
        {group: {name: entry(name, found) for name, found in named.items()} for group, named in facts.items()},
        problems, synonyms, near, texts,
    )  # fmt: skip


def asset(name: str) -> bytes:
    """The content of one of the package's assets."""
    return (resources("ptarmigan") / "assets" / name).read_bytes()


def _load(name: str) -> dict[str, Any]:
    return tomllib.loads(asset(f"losses/{name}.toml").decode())


ENTRIES = read_handbook("en").entries


def explain(
    name: str | None = None,
    *,
    plot: str | Path | None = None,
    page: str | Path | None = None,
    lang: str | None = None,
) -> str:
    """Explain a loss, conditioning, penalty, recipe or problem; without a name, the losses of DCGAN and ACGAN.

    Other usual names are found too: lsgan, "mode collapse", "D loss is zero".  A first sentence says so where the entry
    is only the nearest one, as for SNGAN.

    Returns text of at most 80 columns in `lang`, en or zh; by default in the language of the environment variables
    LC_ALL, LC_MESSAGES or LANG.  `plot`, X.svg, instead draws the losses and their slopes into that file, with English
    labels; `page`, X.html, instead copies the page of all losses in both languages there.  The paths are returned then.
    Raises UserError for an unknown name or language, for another ending, and for a file that exists: no file is
    overwritten.
    """
    book = read_handbook(_language(lang))
    if name is not None and not isinstance(name, str):
        raise unknown("loss", name, book.entries)
    note = ""
    if name is not None:
        name, note = _find(name, book)
    if plot is not None or page is not None:
        return _write(name, plot, page)
    if name is None:
        return _render_questions(book)
    heading = ["\n".join(_wrap(note, width=WIDTH))] if note else []
    render = _render_problem if name in book.problems else _render_entry
    return "\n\n".join([*heading, render(name, book)])


def _find(name: str, book: Handbook) -> tuple[str, str]:
    """The entry or problem that is meant, and a sentence where it is only the nearest one; raises UserError.

    It is the one of this name, or else of the longest known name that occurs in it, or else of the known name with the
    most words that all occur in it.
    """
    known = {_plain(entry): entry for entry in book.entries} | book.synonyms
    asked = _plain(name)
    if asked in known:
        return known[asked], ""
    typed = _words_of(name)
    if found := _other_word(typed, book):
        return found
    inside = [
        word for word in {**known, **book.near} if re.search(rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])", asked)
    ]
    longest = max(inside, key=len, default="")
    runs = [typed[i:j] for i in range(len(typed)) for j in range(i + 1, len(typed) + 1)]
    names = [run for run in runs if len("".join(run)) > len(longest) and (len(run) > 1 or run[0].endswith("gan"))]
    for run in sorted(names, key=lambda run: -len("".join(run))):
        if found := _other_word(run, book):
            return found
    if longest in known:
        return known[longest], ""
    if longest:
        return book.near[longest], book.texts["near"].format(name=longest, entry=book.near[longest])
    scattered = [word for word in known if " " in word and {*asked.split()}.issuperset(word.split())]
    if scattered:
        return known[max(scattered, key=lambda word: len(word.split()))], ""
    close = difflib.get_close_matches(asked, known, n=1)
    hint = f"did you mean {known[close[0]]!r}? " if close else ""
    choices = f"losses: {', '.join(book.entries)}; problems: {', '.join(book.problems)}"
    raise UserError(f"unknown loss or problem {name[:100]!r}: {hint}choose one of the {choices}", "unknown-name")


def _other_word(typed: list[str], book: Handbook) -> tuple[str, str] | None:
    """What core/words.py knows of a name: the entry, and a sentence where the name is not just another one for it."""
    word = words.plain(" ".join(typed))
    if word in words.LOSS_NAMES:
        return words.LOSS_NAMES[word], ""
    if word not in words.OTHERS:
        return None
    entry = words.OTHERS[word].entry
    return entry, book.texts["near"].format(name=" ".join(typed), entry=entry)


def _render_questions(book: Handbook) -> str:
    """The losses of DCGAN and ACGAN."""
    questions = book.groups["questions"].values()
    parts = ["\n".join(_wrap(book.texts["players"] + book.texts["intro"], width=WIDTH))]
    parts += [f"{question.title}\n\n{_render(question, book)}" for question in questions]
    parts += ["\n".join(_wrap(book.texts["notation"], width=WIDTH))]
    parts += [_variables("\n".join(question.code for question in questions), book), _names(book)]
    return "\n\n".join(parts)


def _render_entry(name: str, book: Handbook) -> str:
    entry = book.entries[name]
    parts = ["\n".join([*_wrap(f"{name}: {entry.title}", width=WIDTH), *_wrap(entry.paper, width=WIDTH)])]
    parts += [_render(entry, book, _equivalent(name, book))]
    if name not in {**book.groups["averages"], **book.groups["scores"]}:
        parts += ["\n".join(_wrap(book.texts["players"] + book.texts["notation"], width=WIDTH))]
    return "\n\n".join([*parts, _variables(entry.code, book)])


def _render_problem(name: str, book: Handbook) -> str:
    problem, labels = book.problems[name], book.texts["labels"]
    lines = [_beside(labels[field], _wrap(getattr(problem, field))) for field in ("looks", "causes", "log", "remedy")]
    heading = "\n".join([*_wrap(f"{name}: {problem.title}", width=WIDTH), *_wrap(problem.paper, width=WIDTH)])
    others = ", ".join(other for other in book.problems if other != name)
    footer = "\n".join(_wrap(book.texts["problem"].format(others=others), width=WIDTH))
    return "\n\n".join([heading, "\n".join(lines), footer])


def _language(lang: str | None) -> str:
    """`lang`, or the language of the first of LC_ALL, LC_MESSAGES and LANG that is set."""
    if lang is None:
        locale = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
        return "zh" if locale.lower().startswith("zh") else "en"
    if lang not in LANGUAGES:
        raise unknown("language", lang, LANGUAGES)
    return lang


def _write(name: str | None, plot: str | Path | None, page: str | Path | None) -> str:
    """Write the plot and the page; returns their paths, one per line."""
    from ptarmigan.core import files
    from ptarmigan.handbook import figures  # it imports torch, which the text does not need

    if page and name:
        raise UserError(f"page: the page explains every loss, so leave out --page or {name!r}", "options-conflict")
    written = [] if plot is None else [figures.plot(name, user_path(plot, "plot"))]
    if page is not None:
        written.append(files.check_new_path(user_path(page, "page"), "page", ".html"))
        files.write_atomic(written[-1], asset("losses.html"))
    return "\n".join(map(str, written))


def _render(entry: Entry, book: Handbook, equivalent: str = "") -> str:
    """The fields of an entry, each beside its label; empty fields are omitted."""
    slope = ""
    if entry.slope:
        formula, low, high = entry.slope
        slope = book.texts["slope"].format(formula=formula, low=low, high=high)
    sections = {
        "words": _wrap(entry.words),
        "textbook": list(entry.textbook),
        "formulas": list(entry.formulas),
        "code": entry.code.splitlines(),
        "best": _wrap(entry.best),
        "values": [_number(value) for value in entry.values] + _wrap(entry.values_note),
        "marks": [_number(value) for value in entry.marks],
        "slope": _wrap(slope + entry.slope_note),
        "rising": _wrap(entry.rising),
        "use": _wrap(entry.use),
        "wrong": [line for text in entry.wrong for line in _wrap(text, bullet="- ")],
        "flags": _wrap(entry.flags) + _wrap(equivalent),
    }
    return "\n".join(_beside(book.texts["labels"][field], lines) for field, lines in sections.items() if lines)


def _number(value: Value) -> str:
    shown = f"{value.value:.4g}"
    return f"{value.what} = {shown}" + (f" ({value.exact})" if value.exact not in ("", shown) else "")


def _wrap(text: str, bullet: str = "", width: int = WIDTH - INDENT) -> list[str]:
    """Lines of at most `width` columns; a Chinese character takes two."""
    lines, line = [], bullet
    for piece in PIECE.findall(text):
        if cell_len(line + piece) > width:
            lines.append(line)
            line, piece = " " * len(bullet), piece.lstrip()
        line += piece
    return [*lines, line] if text else []


def _beside(label: str, lines: list[str]) -> str:
    """Lines indented by the margin; the label stands in the margin of the first."""
    margins = [label + " " * (INDENT - cell_len(label)), *[" " * INDENT] * (len(lines) - 1)]
    return "\n".join(margin + line for margin, line in zip(margins, lines, strict=True))


def _variables(code: str, book: Handbook) -> str:
    """The meaning of the names that the code uses without defining them."""
    names = set(re.findall(r"\w+", code)) - set(re.findall(r"^(\w+) =", code, re.MULTILINE))
    return "\n".join(_beside(name, _wrap(text)) for name, text in book.texts["variables"].items() if name in names)


def _names(book: Handbook) -> str:
    lines = [
        _beside(book.texts["labels"][group], _wrap(", ".join(entries)))
        for group, entries in book.groups.items()
        if group != "questions"
    ]
    lines.append(_beside(book.texts["labels"]["problems"], _wrap(", ".join(book.problems))))
    return "\n".join([*_wrap(book.texts["own"], width=WIDTH), book.texts["ask"], *lines])


def _equivalent(name: str, book: Handbook) -> str:
    """The flags that a recipe is equivalent to, read from config/recipes.py."""
    if name not in RECIPES:
        return ""
    flat = resolve({"recipe": name}).flat()
    keys = ["loss", "conditioning", "r1", "r2"]
    keys += ["class_weight"] if flat["conditioning"] == "auxiliary_classifier" else []
    values = [f"{flat[key]:g}" if isinstance(flat[key], float) else str(flat[key]) for key in keys]
    flags = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in zip(keys, values, strict=True))
    return str(book.texts["auto" if name == "auto" else "recipe"].format(flags=flags))
