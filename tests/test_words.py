"""Words of other papers, libraries and tools: synonyms are taken, and for other words a sentence says what to use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conftest import SMALL
from ptarmigan import cli
from ptarmigan.config import resolve
from ptarmigan.config.sections import LOSSES
from ptarmigan.core.words import LOSS_NAMES, OTHER_OPTIONS, OTHERS, other_option, plain
from ptarmigan.handbook.entries import ENTRIES
from ptarmigan.training.loop import train
from support import call, raises


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


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("train d --batch-size 64", "use --batch 64"),
        ("train d --batch_size=64", "use --batch 64"),
        ("train d --epochs 10", "10 epochs of 10,000 images are --images 100k"),
        ("train d --steps 1500", "1,500 steps of batch 32 are --images 48k"),
        ("train d --kimg 25", "use --images 25k"),
        ("train d --lr=1e-4 --seed 1", "use --g-lr 1e-4 --d-lr 1e-4"),
        ("train d --resume", "use --out RUN"),
        ("train --data a/b", "ptarmigan train a/b"),
        ("train --mirror --size 64", "use --flip"),
        ("train d -b 8", "use --batch 8"),
        ("sample r -o x.png", "use --out x.png"),
        ("sample --ckpt r", "ptarmigan sample r"),
        ("sample r cat dog", "--class cat --class dog"),
        ("score r --gpu 0", "use --device cuda"),
        ("losses --loss hinge", "ptarmigan losses hinge"),
    ],
)
def test_an_option_of_another_tool_says_what_to_use(
    command: str, advice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(monkeypatch, capsys, *command.split())
    assert (status, out) == (2, "")
    assert advice in err
    assert err.endswith("[usage]\n")


def flags(command: str) -> set[str]:
    """The options of a command."""
    arguments = cli.app[command].assemble_argument_collection()
    return {name for argument in arguments for name in argument.names if name.startswith("-")}


@pytest.mark.parametrize("command", ["train", "sample", "score", "info", "replay", "losses"])
def test_advice_names_options_of_its_command_and_each_spelling_has_one(command: str) -> None:
    rows = [(names.split(), text) for commands, names, text in OTHER_OPTIONS if command in commands.split()]
    spellings, own = [name for names, _ in rows for name in names], flags(command)
    assert len(spellings) == len({*spellings})
    assert not own & {f"--{name}" for name in spellings}
    for (name, *_), _ in rows:
        text = other_option(command, name)
        assert text is not None
        assert {*re.findall(r"(?<= )--?[a-z][\w-]*", text)} <= own | {"--nproc-per-node", "-m"}


@pytest.mark.parametrize(
    ("given", "advice"),
    [({"batch_size": 64}, "--batch 64"), ({"resume": True}, "--out RUN"), ({"model": "resnet"}, "--network dcgan")],
)
def test_a_key_of_another_tool_says_what_to_use(given: dict[str, object], advice: str) -> None:
    with raises("value-invalid" if "model" in given else "unknown-name", *given, advice):
        resolve(given)
