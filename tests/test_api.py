"""The Python interface: arrays as data, configs, names that type checkers and editors know, and notebooks."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch

import ptarmigan
from conftest import SMALL
from ptarmigan import Config, Dataset, load, replay, resolve, score, train
from ptarmigan.config import Train, convert_field
from ptarmigan.config.sections import TYPES
from ptarmigan.config.values import alternatives
from ptarmigan.core.console import Display
from ptarmigan.core.fields import Fields
from ptarmigan.core.terminal import Terminal
from ptarmigan.training.run_folder import read_record
from support import raises

ROOT = Path(__file__).parents[1]
IMAGES = np.random.default_rng(0).integers(0, 256, (90, 16, 16), np.uint8)
LABELS = np.arange(90) % 3


# --- names -----------------------------------------------------------------------------------------------------------


def test_editors_and_type_checkers_see_the_public_names() -> None:
    stub = ast.parse((ROOT / "src" / "ptarmigan" / "__init__.pyi").read_text(encoding="utf-8"))
    named = {
        alias.asname: node.module for node in ast.walk(stub) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert named.keys() == {*ptarmigan.__all__, "__version__"}
    for name, home in ptarmigan._HOMES.items():
        assert named[name] == f"ptarmigan.{home}"


def test_the_fields_that_type_checkers_know_are_those_of_the_config() -> None:
    hints = get_type_hints(Fields)
    assert hints.keys() == TYPES.keys()
    for key, hint in TYPES.items():
        (known,) = [alternatives(hints[key])] if key != "images" else [(str,)]
        for kind in alternatives(hint):
            if get_origin(kind) is Literal:
                assert get_args(kind) in [get_args(one) for one in known], key
            elif get_origin(kind) is not tuple and kind in (bool, int, float, str):
                assert kind in known, key


@pytest.mark.slow
def test_mypy_finds_a_misspelt_field_and_a_wrong_type(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import ptarmigan\n"
        "ptarmigan.train('photos', batch=3, r1='0..1', time=30, loss='hinge')\n"
        "ptarmigan.train('photos', batchh=3)\n"
        "ptarmigan.Config(batch='x')\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", "--no-incremental"]
    done = subprocess.run(
        [*command, "--follow-imports=silent", path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    faults = [line.split(": error: ") for line in done.stdout.splitlines() if ": error: " in line]
    assert [where.rsplit(":", 1)[1] for where, _ in faults] == ["3", "4"], done.stdout
    assert "batchh" in faults[0][1]
    assert "batch" in faults[1][1]


# --- configs ---------------------------------------------------------------------------------------------------------


def test_a_config_takes_fields_by_name() -> None:
    assert Config(batch=16, loss="hinge") == resolve({"batch": 16, "loss": "hinge"})
    assert Config() == resolve({})
    assert Config(recipe="acgan", width=8) == resolve({"recipe": "acgan", "width": 8})
    assert Config(train=Train(batch=3)).train.batch == 3
    with raises("unknown-name", "batchh", "'batch'"):
        Config(**{"batchh": 3})
    with raises("value-invalid", "train"):
        Config(train=Train(), width=8)


def test_train_takes_a_config_a_dict_and_a_file_alike(tmp_path: Path) -> None:
    fields = {"batch": 4, "g_lr": 1e-3}
    (tmp_path / "fields.yaml").write_text("batch: 4\ng_lr: 1e-3\n", encoding="utf-8")
    small = {key: value for key, value in SMALL.items() if key != "batch"}
    data = Dataset.from_arrays(IMAGES, LABELS)
    records = [
        read_record(train(data, out=tmp_path / str(number), config=given, **(small | {"images": "8"})))
        for number, given in enumerate((Config(**fields), fields, tmp_path / "fields.yaml"))
    ]
    assert all(record is not None and record["config"] == records[0]["config"] for record in records)
    assert records[0]["config"]["train"]["batch"] == 4
    assert set(records[0]["asked"]) == {"recipe", *small, "batch", "g_lr"}  # so that auto may choose the others
    config = load(tmp_path / "0").config
    assert config.asked == {key for key, value in config.flat().items() if value is not None}
    assert replace(Config(batch=4), recipe="auto").asked == set(TYPES)
    with raises("unknown-name", "batchh"):
        train(data, config={"batchh": 3})
    with raises("value-invalid", "config"):
        train(data, config=3)  # type: ignore[arg-type]


# --- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        IMAGES[..., None],
        IMAGES[:, None],
        torch.from_numpy(IMAGES),
        torch.from_numpy(IMAGES)[:, None],
        IMAGES.tolist(),
        IMAGES.astype(np.int64),
        IMAGES[::-1][::-1],
    ],
    ids=lambda given: f"{type(given).__name__}",
)
def test_arrays_and_tensors_are_one_data_set(given: Any) -> None:
    expected, found = Dataset.from_arrays(IMAGES, LABELS), Dataset.from_arrays(given, torch.from_numpy(LABELS))
    assert found.fingerprint == expected.fingerprint
    assert np.array_equal(found.images[..., 0], IMAGES)
    assert found.spec.class_names == ("0", "1", "2")


def test_arrays_are_the_data_set_of_an_npz_of_them(shapes: Path) -> None:
    from ptarmigan.config import Data
    from ptarmigan.data import open_dataset

    with np.load(shapes) as file:
        images, labels, names = file["arr_0"], file["arr_1"], file["class_names"]
    expected = open_dataset(shapes, Data())
    for found in (Dataset.from_arrays(images, labels, names), Dataset.from_arrays(images, labels, names.tolist())):
        assert found.fingerprint == expected.fingerprint
        assert np.array_equal(found.part, expected.part)
    assert Dataset.from_arrays(images, names[labels]).spec.class_names == ("across", "blot", "down")
    words = np.array(names[labels].tolist(), dtype=object)  # as pandas has them
    assert Dataset.from_arrays(images, words).spec.class_names == ("across", "blot", "down")
    assert Dataset.from_arrays(images).spec.class_names == ("images",)


@pytest.mark.parametrize(
    ("arguments", "code", "facts"),
    [
        ((IMAGES / 255, LABELS), "data-invalid", ["images", "float64", "rint(images * 255)"]),
        ((IMAGES / 127.5 - 1, LABELS), "data-invalid", ["rint((images + 1) * 127.5)"]),
        ((IMAGES * 2.0, LABELS), "data-invalid", ["510", "uint8"]),
        ((IMAGES // 200, LABELS), "data-invalid", ["images", "0 to 1"]),
        ((IMAGES, LABELS[:5]), "data-invalid", ["labels", "5", "90"]),
        ((IMAGES, LABELS + 0.5), "labels-invalid", ["labels", "whole"]),
        ((IMAGES, [None] * 90), "data-invalid", ["labels"]),
        ((IMAGES, LABELS, ["a"]), "labels-invalid", ["class_names", "3 classes"]),
        ((IMAGES, LABELS, "abc"), "labels-invalid", ["class_names"]),
        ((IMAGES, LABELS, ["a", "a", "b"]), "labels-invalid", ["class_names", "'a'"]),
        ((IMAGES[0], LABELS[:1]), "data-invalid", ["images", "[16, 16]"]),
        ((IMAGES.reshape(90, -1), LABELS), "data-invalid", ["[90, 256]"]),
        (([IMAGES[0], IMAGES[1, :3]], [0, 1]), "data-invalid", ["images", "[16, 16]", "[3, 16]"]),
        (([[[1], [1, 2]]], LABELS), "data-invalid", ["images"]),
        ((object(), LABELS), "data-invalid", ["images"]),
    ],
)
def test_other_arrays_are_refused_with_what_to_do(arguments: Any, code: str, facts: list[str]) -> None:
    with raises(code, *facts):
        Dataset.from_arrays(*arguments)


def test_a_run_on_arrays_resumes_with_the_same_ones_and_scores_ask_for_them(tmp_path: Path) -> None:
    run, images = tmp_path / "run", IMAGES.copy()
    data = Dataset.from_arrays(images, LABELS)
    train(data, out=run, **SMALL)
    record = read_record(run)
    assert record is not None
    assert record["data"]["source"] == "arrays in memory"
    for ask in (lambda: score(run), lambda: replay(run, at=8)):
        with raises("data-missing", run, "from_arrays", "savez"):
            ask()
    assert replay(run, at=8, data=data).terms
    train(data, out=run, **(SMALL | {"images": "64"}))
    assert load(run).images_seen == 64
    images[0] = 0  # the data set holds the caller's array
    with raises("run-differs", "arrays in memory"):
        train(data, out=run, **SMALL)


def test_train_takes_images_and_labels(tmp_path: Path) -> None:
    small = {key: value for key, value in SMALL.items() if key != "images"}
    run = train(images=IMAGES, labels=LABELS, time="0.1s", size=20, out=tmp_path / "run", **small)
    assert (load(run).spec.height, load(run).spec.classes) == (20, 3)
    for arguments in ({"images": IMAGES, "data": "photos"}, {"labels": LABELS}, {"images": "5k", "labels": LABELS}):
        with raises("options-conflict", "labels"):
            train(**arguments)
    with raises("value-invalid", "data", "from_arrays"):
        train(IMAGES)  # type: ignore[arg-type]


# --- a generator -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PTARMIGAN_PROBE_SECONDS", "0")
        patch.setenv("PTARMIGAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        return train(Dataset.from_arrays(IMAGES, LABELS), out=tmp_path_factory.mktemp("runs") / "run", **SMALL)


def test_latents_of_ones_own_are_drawn(run: Path) -> None:
    generator = load(run)
    z = generator.latents(3, seed=5)
    assert z.shape == (3, 6)
    images, labels = generator.sample(["2", "0"], z=z)
    by_seed, _ = generator.sample(["2", "0"], n=3, seed=5)
    assert np.array_equal(images, by_seed)
    assert labels.tolist() == [2, 2, 2, 0, 0, 0]
    assert np.array_equal(generator.sample("2", z=z.numpy()[1:2])[0], by_seed[1:2])
    direct = generator.network(z, torch.tensor([2, 2, 2]))
    assert np.array_equal(direct.add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy(), by_seed[:3])
    assert not direct.requires_grad
    assert not generator.network.training


@pytest.mark.parametrize(
    "z", [torch.zeros(3, 5), torch.zeros(6), torch.zeros(0, 6), torch.full((2, 6), torch.nan), "z"]
)
def test_latents_of_another_shape_are_refused(run: Path, z: Any) -> None:
    with raises("value-invalid", "z", "[N, 6]"):
        load(run).sample("0", z=z)


# --- notebooks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What a notebook is told to show; IPython is not installed with ptarmigan."""
    calls: list[tuple[str, str]] = []

    class DisplayHandle:
        def display(self, data: dict[str, str], raw: bool) -> None:
            calls.append(("display", data["text/plain"]))

        def update(self, data: dict[str, str], raw: bool) -> None:
            calls.append(("update", data["text/plain"]))

    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(DisplayHandle=DisplayHandle))  # type: ignore[arg-type]
    monkeypatch.setenv("FORCE_COLOR", "1")  # as ipykernel sets it
    return calls


def test_a_notebook_has_one_bar_that_is_replaced_and_plain_lines(
    shown: list[tuple[str, str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Display(Terminal()) as display:
        display.say("reading")
        for share in (0.25, 0.5):
            display.tick(8, share, 10.0, 3.0, {"d_adv": 1.25})
            wait_for(lambda share=share: any(f"{share:.0%}" in text for _, text in shown))
    assert [kind for kind, _ in shown[:2]] == ["display", "update"]
    assert "d_adv 1.25" in shown[0][1]
    assert shown[-1] == ("update", "")  # the bar is removed
    assert capsys.readouterr().out == "reading\n"  # no escapes, and no line for each tick


def wait_for(true: Callable[[], bool]) -> None:
    import time

    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_error_and_an_answer_look_as_at_the_terminal() -> None:
    with raises("unknown-name") as caught:
        Config(**{"batchh": 3})
    (line,) = caught.value._render_traceback_()
    assert "[unknown-name]" in line
    answers = ptarmigan.identify(lambda fake: (-fake).mean(), kind="g")
    assert repr(answers) == str(answers[0])


def test_a_field_converts_as_its_type_says() -> None:
    assert convert_field("r1", (0.0, 1.0)) == convert_field("r1", "0..1")
    assert convert_field("size", 64) == "64"
