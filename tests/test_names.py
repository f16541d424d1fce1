"""Class names as users type them, and text from data as it is printed."""

from __future__ import annotations

import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptarmigan.boundary import quote
from ptarmigan.core.types import ImageSpec, check_whole, class_name, printable, unknown
from support import call, raises

NAMES = ("café", "Hund", "owl", "garçon")
SPEC = ImageSpec(32, 32, 3, NAMES)


@pytest.mark.parametrize(
    ("typed", "label"),
    [
        ("café", 0),
        (unicodedata.normalize("NFD", "café"), 0),
        ("caf\udce9", 0),  # bytes in Latin-1
        ("caf\udcc3\udca9", 0),  # bytes in UTF-8, in a locale that is ASCII
        ("cafe\udccc\udc81", 0),  # the same in NFD
        ("gar\udce7on", 3),
    ],
)
def test_a_class_is_found_in_whatever_form_its_name_is_typed(typed: str, label: int) -> None:
    assert SPEC.label(typed) == label
    stored = ImageSpec(32, 32, 3, tuple(unicodedata.normalize("NFD", name) for name in NAMES))
    assert stored.label(typed) == label


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("HUND", "Hund"), ("hun", "Hund"), ("cafés", "café"), ("Cafe", "café"), ("owls", "owl"), ("my owl here", "owl")],
)
def test_another_class_name_is_suggested_and_never_taken(typed: str, meant: str) -> None:
    with raises("unknown-name", f"did you mean {meant!r}?"):
        SPEC.label(typed)


def test_several_classes_stand_in_one_list() -> None:
    assert SPEC.labels("owl, Hund") == [2, 1]
    assert SPEC.labels("owl") == [2]
    assert ImageSpec(32, 32, 3, ("a,b", "a", "b")).labels("a,b") == [0]
    for given, wrong in (("owl,hund", "'hund'"), ("owl,", "''"), ("emu,cat", "'emu,cat'")):
        with raises("unknown-name", wrong):
            SPEC.labels(given)


@pytest.mark.parametrize("given", [None, 5, b"owl", ["owl"], {}])
def test_another_type_is_no_name(given: Any) -> None:
    with raises("value-invalid", "class: expected text"):
        SPEC.label(given)


@pytest.mark.parametrize("given", [None, 1.5, "3", b"3", [3], True])
def test_another_type_is_no_whole_number(given: object) -> None:
    with raises("value-invalid", "n: expected a whole number"):
        check_whole("n", given)
    check_whole("n", np.int32(3))


def test_many_names_are_never_all_listed() -> None:
    names = [f"breed-{number:03d}" for number in range(439)]
    assert "breed-438" in str(unknown("class", "breed-43", names))
    assert "419 more" in str(unknown("class", "!", names))
    for name in ("!", "breed-43", "x" * 100_000, ""):
        assert len(str(unknown("class", name, names))) < 600


def test_a_surrogate_that_no_byte_stands_for_is_a_name_that_can_be_written() -> None:
    class_name("a\ud800b").encode()


FORGED = "a\nptarmigan: all is well [stopped]\x1b[31m\u202e\u2028"


def test_text_from_data_cannot_forge_a_line_or_reach_the_terminal_raw(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from rich.table import Table

    from ptarmigan.commands import compare as compared
    from ptarmigan.core.terminal import Terminal, print_lines
    from ptarmigan.evaluation.report import Score, print_report

    many = [f"n{number}" for number in range(439)]
    shown = {"path": FORGED, "classes": [FORGED, *many], "images_seen": 1000}
    monkeypatch.setattr("ptarmigan.generator.header.info", lambda model, at: shown)
    status, out, _ = call(monkeypatch, capsys, "info", tmp_path)
    assert status == 0
    assert len(out.splitlines()) == 3
    assert "430 more" in out
    assert "n9" not in out
    status, _, err = call(monkeypatch, capsys, "train", f"nowhere{FORGED}")
    assert status == 2
    assert len(err.splitlines()) == 1
    Terminal().say(FORGED)
    print_lines(FORGED, Table("head"))
    monkeypatch.setattr("ptarmigan.evaluation.report.score_rows", lambda *_: [["score", "value"], [FORGED, "1"]])
    monkeypatch.setattr("ptarmigan.evaluation.report.class_rows", lambda report: [])
    monkeypatch.setattr("ptarmigan.evaluation.report.sentences", lambda report: [FORGED])
    print_report(Score(FORGED, {}, {}, {}, [], {}))  # type: ignore[typeddict-item]
    group = compared.Group("A", (FORGED,), (0,), (10,), {FORGED: compared.Estimate(1.0)}, {})
    compared.print_comparison(compared.Comparison(FORGED, "scores", (group,), {FORGED: (FORGED,)}, (FORGED,)))
    printed = err + out + capsys.readouterr().out
    assert not any(char in printed for char in "\x1b\u202e\u2028")
    assert not any(line.startswith("ptarmigan: all is well") for line in printed.splitlines())
    assert printable(FORGED) in printed


@pytest.mark.parametrize(
    "text", ["plain", "two words", "it's $HOME", FORGED, "caf\udce9", "back\\slash\n", "-x", "'\n'", "\x01" + "f0"]
)
def test_a_quoted_name_is_one_word_of_a_shell(text: str) -> None:
    word = quote(text)
    assert printable(word) == word
    shell = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert shell.stdout == text.encode(errors="surrogateescape")
