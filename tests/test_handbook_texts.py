"""The texts of `ptarmigan losses` in both languages, the problems, and the words by which people ask."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import SMALL
from ptarmigan import train
from ptarmigan.config import resolve
from ptarmigan.config.recipes import RECIPES
from ptarmigan.config.sections import LOSSES, TYPES
from ptarmigan.core import words
from ptarmigan.core.log import read_log
from ptarmigan.handbook.entries import ENTRIES, LANGUAGES, Entry, explain, read_handbook
from ptarmigan.losses.conditioning import (
    HEADS,
)
from support import call, raises
from test_handbook import PROBLEMS, english


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("name", [None, *ENTRIES])
def test_a_page_fits_any_terminal(name: str | None, lang: str) -> None:
    text = explain(name, lang=lang)
    assert text.isascii() == (lang == "en")  # a pipe on Windows may support nothing else
    assert max(map(columns, text.splitlines())) <= 80
    assert len(text.splitlines()) <= (60 if name else 115)
    assert not re.search(r"[ \t]$|\n\n\n", text, re.MULTILINE)


def test_an_unknown_name_lists_the_choices() -> None:
    with raises("unknown-name", "'hinj'", "'hinge'", "minimax", "auto"):
        explain("hinj")
    with raises("unknown-name", "'fr'", "en, zh"):
        explain(lang="fr")


HAN = re.compile(r"[\u4e00-\u9fff]")


def columns(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)


@pytest.mark.parametrize(
    ("environment", "lang"),
    [
        ({}, "en"), ({"LANG": "zh_CN.UTF-8"}, "zh"), ({"LANG": "de_DE.UTF-8"}, "en"), ({"LANG": "C"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "en_GB.UTF-8"}, "en"),
        ({"LANG": "en_GB.UTF-8", "LC_MESSAGES": "zh_TW"}, "zh"),
        ({"LC_ALL": "C", "LC_MESSAGES": "zh_CN", "LANG": "zh_CN"}, "en"),
        ({"LC_ALL": "", "LANG": "zh"}, "zh"),
    ],
)  # fmt: skip
def test_the_language_is_that_of_the_environment_unless_it_is_given(
    environment: dict[str, str], lang: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(key, raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    for name in (None, "hinge"):
        assert explain(name) == explain(name, lang=lang)
        assert bool(HAN.search(explain(name))) == (lang == "zh")
        assert explain(name, lang="en") != explain(name, lang="zh")


def texts(entry: Entry) -> Iterator[tuple[str, str]]:
    """Each text of an entry that is translated, with its field."""
    for field in ("title", "words", "best", "values_note", "slope_note", "rising", "use"):
        yield field, getattr(entry, field)
    for i, text in enumerate(entry.wrong):
        yield f"wrong {i}", text


def both_languages() -> Iterator[tuple[str, Entry, Entry]]:
    one, other = (read_handbook(lang).groups for lang in LANGUAGES)
    assert one.keys() == other.keys()
    for group in one:
        assert one[group].keys() == other[group].keys()
        for name in one[group]:
            yield name, one[group][name], other[group][name]


def test_every_entry_has_both_languages_and_shares_formulas_and_numbers() -> None:
    for name, en, zh in both_languages():
        for field in ("paper", "flags", "textbook", "formulas", "code", "slope"):
            assert getattr(en, field) == getattr(zh, field)
        for field in ("values", "marks"):
            one, other = getattr(en, field), getattr(zh, field)
            assert [(value.value, value.exact) for value in one] == [(value.value, value.exact) for value in other]
            for value, translated in zip(one, other, strict=True):
                assert HAN.search(translated.what) or translated.what == value.what in ("L_D", "L_G", "r = f")
        assert len(en.wrong) == len(zh.wrong), name
    en, zh = (read_handbook(lang).texts for lang in LANGUAGES)
    assert en.keys() == zh.keys() - {"numbers"}
    for table in ("labels", "variables", "entries", "problems"):
        assert en[table].keys() == zh[table].keys()
    used = {value.what for _, entry, _ in both_languages() for value in (*entry.values, *entry.marks)}
    assert set(zh["numbers"]) == used - {"L_D", "L_G", "r = f"}


NUMBER = re.compile(r"(?<![\w.])(?:\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?|\.\d+)")

FORMULA = re.compile(r"[^\s\u3000-\u303f\u4e00-\u9fff\uff00-\uffef“”][ -~]*")


def test_both_languages_state_the_same_numbers_and_formulas() -> None:
    for name, en, zh in both_languages():
        for (field, one), (same, other) in zip(texts(en), texts(zh), strict=True):
            assert field == same
            assert bool(one) == bool(other), f"{name}: {field}"
            if one:
                assert HAN.search(other), f"{name}: {field}"
                assert sorted(NUMBER.findall(one)) == sorted(NUMBER.findall(other)), f"{name}: {field}"
            for formula in FORMULA.findall(other.replace("真/假", "")):
                if re.search(r"[=^|/*_]|--", formula):
                    assert formula.strip(" ()") in one, f"{name}: {field}: {formula}"
    en, zh = (read_handbook(lang).texts for lang in LANGUAGES)
    for key, text in en["variables"].items():
        assert sorted(NUMBER.findall(text)) == sorted(NUMBER.findall(zh["variables"][key]))
    for key in ("slope", "recipe", "auto"):
        assert re.findall(r"\{.+?\}", en[key]) == re.findall(r"\{.+?\}", zh[key])


@pytest.mark.parametrize("name", [None, *ENTRIES])
def test_chinese_is_set_as_chinese(name: str | None) -> None:
    text = "".join(line.strip() for line in explain(name, lang="zh").splitlines())
    if "判别器" in text:
        assert text.count("鉴别器") == text.count("判别器（又称鉴别器）") == 1
        assert text.index("判别器（又称鉴别器）") == text.index("判别器")
    for _, entry in texts_of(name):
        assert not re.search(r"[\u4e00-\u9fff][,;:?!]", entry)  # full-width punctuation
        assert not re.search(r"[\u4e00-\u9fff][A-Za-z0-9]|[A-Za-z0-9][\u4e00-\u9fff]", entry)  # a space between
    for line in explain(name, lang="zh").splitlines():
        assert not re.match(r"\s*[，。；：、？！）”]|.*[“（]$", line)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_wrapping_loses_nothing(lang: str) -> None:
    groups = read_handbook(lang).groups
    for name in (None, *ENTRIES):
        page = "".join(explain(name, lang=lang).split())
        entries = groups["questions"].values() if name is None else [read_handbook(lang).entries[name]]
        for entry in entries:
            for _, text in texts(entry):
                assert "".join(text.split()) in page


def texts_of(name: str | None) -> list[tuple[str, str]]:
    groups = read_handbook("zh").groups
    found = groups["questions"].values() if name is None else [read_handbook("zh").entries[name]]
    return [item for entry in found for item in texts(entry)]


FIELDS = ("title", "looks", "causes", "log", "remedy")


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_is_short_and_complete(name: str, lang: str) -> None:
    problem, text = read_handbook(lang).problems[name], explain(name, lang=lang)
    assert text.startswith(f"{name}: ")
    for field in FIELDS:
        assert "".join(getattr(problem, field).split()) in "".join(text.split())
        assert 1 <= len(re.findall(r"\S", getattr(problem, field))) <= 220
    for line in text.splitlines():
        assert columns(line) <= 80
        assert not re.match(r"\s*[，。；：、？！）”]|.*[“（]$", line)
    assert len(text.splitlines()) <= 20
    assert problem.paper
    assert text.isascii() == (lang == "en")


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_says_the_same_in_both_languages(name: str) -> None:
    en, zh = (read_handbook(lang).problems[name] for lang in LANGUAGES)
    for field in FIELDS:
        one, other = getattr(en, field), getattr(zh, field)
        assert HAN.search(other)
        assert sorted(NUMBER.findall(one)) == sorted(NUMBER.findall(other)), field
        for pattern in (r"--[a-z0-9-]+", r"`.+?`", r"[a-z]+_[a-z_]+", r"\w+/(?:\w+\.png)?"):
            assert set(re.findall(pattern, one, re.ASCII)) == set(re.findall(pattern, other, re.ASCII)), field
        assert not re.search(r"[\u4e00-\u9fff][,;:?!]|[\u4e00-\u9fff][A-Za-z0-9]|[A-Za-z0-9][\u4e00-\u9fff]", other)


@pytest.fixture(scope="module")
def logged(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The columns of metrics.jsonl in two runs that together have every term, and those that need more than a run."""
    found = {"select_kid", "select_kid_error", "d_gap", "diverged", "retry", "lr_scale"}
    games: tuple[dict[str, Any], ...] = (
        {"conditioning": "auxiliary_classifier", "augment": "ada"},
        {"loss": "wasserstein", "gradient_penalty": 10, "r1": 0, "r2": 0},
    )
    for number, fields in enumerate(games):
        run = train(shapes, out=tmp_path_factory.mktemp("runs") / str(number), **{**SMALL, "images": "16"}, **fields)
        found |= {column for line in read_log(run / "metrics.jsonl") for column in line}
    return found


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_names_columns_options_and_values_that_exist(name: str, logged: set[str]) -> None:
    problem = PROBLEMS[name]
    text = " ".join(getattr(problem, field) for field in FIELDS)
    for column in re.findall(r"\b(?:[dg]|augment|select|lr)_[a-z0-9]+(?:_[a-z]+)*\b", text):
        assert column in logged | PROBLEMS.keys(), column
    for option in re.findall(r"(?<!\S)--([a-z0-9-]+)", text):
        assert option.replace("-", "_") in {*TYPES, "recipe", "out", "at"}, option
    for option, value in re.findall(r"--([a-z0-9-]+) ([a-z][a-z0-9_]+|[\d.]+(?:e-?\d+)?)(?=[ ,;.]|$)", text):
        key, value = option.replace("-", "_"), value.rstrip(".")
        if key in TYPES and key not in ("g_betas", "d_betas", "channels") and (value[0].isdigit() or value in CHOICES):
            resolve({key: value})
    assert all(other in explain(name, lang="en") for other in PROBLEMS)


CHOICES = {*LOSSES, *RECIPES, *HEADS, "none", "gentle", "diffaugment", "ada", "r3gan", "resnet", "fp32"}


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("checkerboard artifacts", "checkerboard"), ("棋盘格", "checkerboard"), ("mode collapse", "mode_collapse"),
        ("Mode-Collapse", "mode_collapse"), ("模式崩溃", "mode_collapse"), ("出现模式崩溃怎么办？", "mode_collapse"),
        ("NaN", "nan"), ("Why is my loss NaN?", "nan"), ("D near 0", "d_too_strong"),
        ("d loss zero", "d_too_strong"), ("discriminator loss is zero", "d_too_strong"),
        ("overfitting", "memorisation"), ("memorization", "memorisation"), ("过拟合", "memorisation"),
        ("vanishing gradient", "vanishing_gradient"), ("梯度消失", "vanishing_gradient"),
        ("loss does not go down", "loss_not_falling"), ("same image for every class", "class_ignored"),
        ("blurry images", "blurry"), ("grainy", "grain"), ("washed out", "colours"),
        ("lsgan", "least_squares"), ("LSGAN loss", "least_squares"), ("wgan", "wasserstein"),
        ("WGAN-GP", "gradient_penalty"), ("hinge-gan", "hinge"), ("AC-GAN", "acgan"),
        ("least squares", "least_squares"), ("r1 regularization", "r1"), ("diffaugment", "ada"),
    ],
)  # fmt: skip
def test_the_words_that_people_use_are_found(words: str, name: str) -> None:
    assert explain(words, lang="en") == english(name)
    assert explain(words, lang="zh") == explain(name, lang="zh")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("checkerbord", "checkerboard"), ("mode colapse", "mode_collapse"), ("overfiting", "memorisation"),
        ("wassertein", "wasserstein"),
    ],
)  # fmt: skip
def test_a_name_that_is_near_is_suggested(words: str, name: str) -> None:
    with raises("unknown-name", repr(words), repr(name), "mode_collapse", "least_squares"):
        explain(words)


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize(
    ("typed", "entry"),
    [
        ("softplus", "non_saturating"), ("bce", "non_saturating"), ("cross-entropy", "non_saturating"),
        ("vanilla", "non_saturating"), ("Vanilla GAN loss", "non_saturating"), ("lsgan", "least_squares"),
        ("what is lsgan", "least_squares"), ("rpgan", "relativistic"), ("WGAN", "wasserstein"),
        ("wgan-gp", "gradient_penalty"), ("label smoothing", "smoothing"), ("DCGAN", "dcgan"), ("r1", "r1"),
        ("projection", "projection"), ("projection discriminator", "projection"), ("geometric gan", "hinge"),
    ],
)  # fmt: skip
def test_another_name_for_a_loss_is_answered_as_its_own(typed: str, entry: str, lang: str) -> None:
    assert explain(typed, lang=lang) == explain(entry, lang=lang)


@pytest.mark.parametrize(
    ("typed", "entry"),
    [
        ("cgan", "projection"), ("conditional GAN", "projection"), ("SNGAN", "hinge"), ("RaLSGAN", "relativistic"),
        ("relativistic average gan", "relativistic"), ("stylegan2", "non_saturating"), ("交叉熵", "non_saturating"),
        ("infogan", "auxiliary_classifier"),
    ],
)  # fmt: skip
def test_what_has_no_entry_is_answered_by_the_nearest_and_says_so(typed: str, entry: str) -> None:
    for lang in LANGUAGES:
        note, rest = explain(typed, lang=lang).split("\n\n", 1)
        assert rest == explain(entry, lang=lang)
        assert entry in note


def test_every_word_of_the_table_is_answered() -> None:
    for table, entries in (("LOSS_NAMES", words.LOSS_NAMES), ("OTHERS", {k: v.entry for k, v in words.OTHERS.items()})):
        for word, entry in entries.items():
            if word not in {*ENTRIES, *read_handbook("en").synonyms}:  # dcgan is a recipe here, saturating a problem
                answer = explain(word, lang="en")
                assert answer.endswith(english(entry)), f"{table}: {word}"


def test_every_other_name_leads_to_an_entry_and_to_one_alone() -> None:
    book = read_handbook("en")
    assert {*book.synonyms.values(), *book.near.values()} <= {*ENTRIES, *PROBLEMS}
    words = [word for problem in PROBLEMS.values() for word in problem.names]
    assert len(words) == len(set(words))
    assert not book.synonyms.keys() & book.near.keys()
    for problem, entry in PROBLEMS.items():
        for word in entry.names:
            assert explain(word, lang="en").startswith(f"{problem}: "), word


def test_several_words_need_no_quotes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for typed in (["mode", "collapse"], ["mode collapse"]):
        status, out, _ = call(monkeypatch, capsys, "losses", *typed, "--lang", "en")
        assert status == 0
        assert out == english("mode_collapse") + "\n"


@pytest.mark.parametrize(
    ("typed", "entry"),
    [
        ("d_loss goes to zero", "d_too_strong"),
        ("The D loss converges to 0", "d_too_strong"),
        ("discriminator accuracy 100%", "d_too_strong"),
        ("generator_loss zero", "d_too_weak"),
        ("critic loss stuck", "d_too_weak"),
        ("loss_g explodes", "nan"),
        ("grid artefact", "checkerboard"),
        ("weird color", "colours"),
        ("all samples identical", "mode_collapse"),
        ("D的损失为零", "d_too_strong"),
        ("生成器损失为0", "d_too_weak"),
        ("图片都一样", "mode_collapse"),
        ("梯度惩罚", "gradient_penalty"),
    ],
)
def test_words_in_another_order_or_form_find_their_entry(typed: str, entry: str) -> None:
    assert explain(typed, lang="en").startswith(f"{entry}: ")


def test_an_unknown_name_of_any_length_is_a_short_error() -> None:
    with raises("unknown-name") as caught:
        explain("x" * 100_000)
    assert len(str(caught.value)) < 1000
