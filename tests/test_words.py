"""Words of other papers, libraries and tools: what means one of ours is taken, and the rest says what to use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conftest import SMALL
from ptarmigan.config import LOSSES, resolve
from ptarmigan.core.words import LOSS_NAMES, OTHERS, plain
from ptarmigan.handbook.entries import ENTRIES
from ptarmigan.training.loop import train
from support import raises


@pytest.mark.parametrize(
    ("word", "loss"),
    [
        ("lsgan", "least_squares"),
        ("LSGAN", "least_squares"),
        ("wgan", "wasserstein"),
        ("bce", "non_saturating"),
        ("cross-entropy", "non_saturating"),
        ("vanilla", "non_saturating"),
        ("non-saturating", "non_saturating"),
        ("Hinge loss", "hinge"),
        ("rpgan", "relativistic"),
        ("min-max", "minimax"),
    ],
)
def test_another_name_of_a_loss_is_taken(word: str, loss: str) -> None:
    assert resolve({"loss": word}).loss.loss == loss


@pytest.mark.parametrize(
    ("given", "fact"),
    [
        ({"loss": "wgan-gp"}, "--loss wasserstein --gradient-penalty 10"),
        ({"loss": "R1"}, "--r1 0.2"),
        ({"loss": "label smoothing"}, "--smoothing 0.9"),
        ({"loss": "cgan"}, "--conditioning projection"),
        ({"loss": "ragan"}, "--loss relativistic"),
        ({"recipe": "wgan"}, "--loss wasserstein"),
        ({"recipe": "DCGAN"}, "did you mean 'dcgan'"),
        ({"conditioning": "ac-gan"}, "--conditioning auxiliary_classifier"),
        ({"network": "stylegan"}, "--loss non_saturating --r1 1"),
    ],
)
def test_a_word_for_something_else_says_which_option_to_use(given: dict[str, str], fact: str) -> None:
    with raises("unknown-name", fact):
        resolve(given)


def test_the_tables_of_words_are_consistent() -> None:
    assert {*LOSS_NAMES.values()} <= {*LOSSES}
    assert not LOSS_NAMES.keys() & OTHERS.keys()
    assert all(word == plain(word) for word in (*LOSS_NAMES, *OTHERS))
    assert not {*map(plain, LOSSES)} & (LOSS_NAMES.keys() | OTHERS.keys())
    assert {other.entry for other in OTHERS.values()} <= ENTRIES.keys()


@pytest.mark.parametrize("text", sorted({other.text for other in OTHERS.values()}))
def test_the_options_that_a_text_names_are_valid(text: str) -> None:
    options = re.findall(r"--([\w-]+) ([\w.]*\w)", text)
    assert options
    for name, value in options:
        resolve({name.replace("-", "_"): value})
    if " or " not in text:  # all of them together
        resolve({name.replace("-", "_"): value for name, value in options})


def test_training_says_which_loss_was_taken(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(shapes, out=tmp_path / "a", loss="lsgan", **SMALL | {"images": "8"})
    assert "loss lsgan is least_squares here" in capsys.readouterr().out
    train(shapes, out=tmp_path / "a", loss="least-squares", **SMALL | {"images": "8"})  # the same run
