"""A step of a run is repeated exactly, and the cause of a NaN in it is named."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ptarmigan.commands.replay as replay_module
import ptarmigan.game.batch as batch_module
from conftest import SMALL
from ptarmigan import cli, replay
from ptarmigan.commands.replay import conclusion
from ptarmigan.config import Data, resolve
from ptarmigan.core.log import read_log
from ptarmigan.core.tensor_files import load_tensors, save_tensors
from ptarmigan.core.types import Batch
from ptarmigan.data import open_dataset
from ptarmigan.training import checkpoint
from ptarmigan.training.loop import train
from ptarmigan.training.outputs import exported
from ptarmigan.training.setup import train_batches
from support import raises

CPU = torch.device("cpu")
LONG = {**SMALL, "images": "96", "snapshots": 4, "keep": 10}


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train(shapes, out=tmp_path_factory.mktemp("runs") / "run", **LONG, g_blocks=1)


@pytest.mark.parametrize(
    "recipe", ["acgan", *(pytest.param(name, marks=pytest.mark.slow) for name in ("auto", "dcgan"))]
)
def test_the_terms_are_those_of_the_log_to_the_last_bit(recipe: str, shapes: Path, tmp_path: Path) -> None:
    run = train(shapes, out=tmp_path / "run", **LONG, recipe=recipe)
    (line,) = [line for line in read_log(run / "metrics.jsonl") if line["images_seen"] == 64]  # a tick a step
    step = replay(run, at=56)
    assert step.checkpoint == "000000048.safetensors"
    assert step.terms == {name: line[name] for name in step.terms}
    assert {name for name in line if name[:2] in ("d_", "g_")} == set(step.terms)
    assert {name[2:] for name in step.terms} >= {"adv", "grad"}
    assert step.not_finite is None


def test_before_the_first_checkpoint_it_begins_at_the_start_and_within_a_batch_at_its_beginning(run: Path) -> None:
    step = replay(run, at=11, out=run.parent / "early")
    assert (step.checkpoint, step.images_seen) == ("the start", 8)
    (line,) = [line for line in read_log(run / "metrics.jsonl") if line["images_seen"] == 16]
    assert step.terms == {name: line[name] for name in step.terms}


def test_what_it_writes_and_says(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    for more in ([], ["--layers", "--out", str(run / "again")]):
        monkeypatch.setattr(sys, "argv", ["ptarmigan", "replay", str(run), "--at", "40", *more])
        cli.main()
        out = capsys.readouterr().out
        for text in ("40 images seen", "000000024.safetensors", "d_adv", "every value is finite"):
            assert text in out
        assert "unusual" in out.splitlines()[1]
        for text in ("D.body.stages.0", "G.project", "by parameter"):
            assert (text in out) == bool(more)
    folder = run / "private" / "replay-000000040"
    assert sorted(path.name for path in folder.iterdir()) == ["batch.png", "fakes.png", "step.json"]
    with Image.open(folder / "batch.png") as picture:
        assert picture.size == (3 * 18 + 2, 3 * 18 + 2)
    record = json.loads((folder / "step.json").read_text())
    assert len(record["batch"]) == 8
    assert all(text.startswith("image ") for text in record["batch"])
    with raises("file-exists", folder):
        replay(run, at=40)


def test_norms_are_those_of_the_step(run: Path) -> None:
    """Against the checkpoint's weights, and against the log's norm of all gradients."""
    step = replay(run, at=24, out=run.parent / "norms")
    begin, _ = load_tensors(run / "checkpoints" / "000000024.safetensors")
    for name, (weight, gradient) in step.weights.items():
        assert weight == pytest.approx(begin[name].norm().item(), rel=1e-5)
        assert gradient > 0 or name == "D.head.source.bias"
    total = sum(gradient**2 for name, (_, gradient) in step.weights.items() if name.startswith("D.")) ** 0.5
    assert total == pytest.approx(step.terms["d_grad"], rel=1e-5)
    by_name = {(call.update, call.layer, call.images): call for call in step.calls}
    assert len(by_name) == len(step.calls)
    logits = by_name["D", "D", "real"]
    # non-saturating, at logits near 0: dL/dr = -sigmoid(-r)/N and dL/df = sigmoid(f)/N are both near 1/2N
    assert logits.gradient is not None
    assert logits.gradient == pytest.approx(by_name["D", "D", "fake"].gradient, rel=0.2)
    assert 0.1 / 8**0.5 < logits.gradient < 1 / 8**0.5
    assert ("G", "D", "real") not in by_name  # only a relativistic G looks at real images
    assert by_name["G", "D", "fake"].gradient is not None


def test_a_term_is_unusual_where_it_is_far_from_the_ticks_around(run: Path, tmp_path: Path) -> None:
    step = replay(run, at=40, out=tmp_path / "a")
    assert step.ticks == 11  # a tick a step, without its own
    assert conclusion(step)[0].startswith("nothing unusual") == (not step.unusual)
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    log = copy / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for number, line in enumerate(lines):
        line["g_adv"] = 1e3 if line["images_seen"] == 48 else 50 + 0.1 * (number % 2)
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    step = replay(copy, at=40, out=tmp_path / "b")
    (sentence,) = [text for text in step.unusual if text.startswith("g_adv ")]
    assert f"{step.terms['g_adv']:.3g}" in sentence
    assert "50" in sentence
    assert conclusion(step)[0].startswith("unusual: ")
    assert replay_module.unusual_terms({"g_adv": 51.0}, [{"g_adv": 50 + 0.1 * (k % 2)} for k in range(9)], 1)
    assert not replay_module.unusual_terms({"g_adv": 51.0}, [{"g_adv": 50 + 0.1 * (k % 2)} for k in range(9)], 100)
    log.write_text("\n".join(json.dumps(line) for line in lines[:4]) + "\n")
    assert replay(copy, at=40, out=tmp_path / "c").ticks == 0


def poisoned(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    real = batch_module.real_batch

    def batch(*arguments: Any) -> Batch:
        found = real(*arguments)
        found.images[5] = float("nan")
        return found

    update = replay_module.train_batch

    def advance(state: Any, batches: Any, *play: Any) -> Any:
        if state.images_seen == 40:
            if where == "image":
                monkeypatch.setattr(batch_module, "real_batch", batch)
            elif where == "weight":
                state.D.body.stages[1].weight.data[0, 0, 0, 0] = float("inf")
            else:
                state.D.head.source.weight.register_hook(lambda gradient: gradient * float("nan"))
        return update(state, batches, *play)

    monkeypatch.setattr(replay_module, "train_batch", advance)


def test_the_image_the_layer_or_the_gradient_that_is_not_finite_is_named(
    run: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        poisoned(patch, "image")
        step = replay(run, at=40, out=tmp_path / "a")
    assert step.not_finite == f"the input of D.body.stages.0: the real image {step.batch[5]}"
    assert step.batch[5].endswith(f"of {shapes}")
    with monkeypatch.context() as patch:
        poisoned(patch, "weight")
        step = replay(run, at=40, out=tmp_path / "b")
    assert step.not_finite is not None
    assert step.not_finite.startswith("the weights of D.body.stages.1 (weight), at the real image image")


def test_a_file_is_named_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for name in ("left", "right"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).save(tmp_path / "data" / name / f"{number}.png")
    run = train(tmp_path / "data", out=tmp_path / "run", **{**LONG, "size": "16"})
    poisoned(monkeypatch, "image")
    step = replay(run, at=40)
    assert step.not_finite is not None
    path = Path(step.not_finite.partition("the real image ")[2])
    assert path.exists()
    assert path.parent.parent == tmp_path / "data"


def test_each_update_of_d_names_the_images_of_its_own_batch(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(shapes, out=tmp_path / "run", **LONG, d_steps=2)
    whole = replay(run, at=40, out=tmp_path / "whole")
    poisoned(monkeypatch, "image")  # in the extra update first
    step = replay(run, at=40, out=tmp_path / "extra")
    with train_batches(
        resolve({**LONG, "d_steps": 2}), dataset := open_dataset(shapes, Data(split="none")), CPU
    ) as batches:
        expected = dataset.origin(int(batches.load(40, "order 1").indices[5]))
    assert step.not_finite == f"the input of D.body.stages.0: the real image {expected}"
    assert expected != whole.batch[5]


def test_what_cannot_be_replayed_is_refused(run: Path, shapes: Path, tmp_path: Path) -> None:
    for at in (-1, 96):
        with raises("value-out-of-range", "at", at, "0 to 95"):
            replay(run, at=at)
    with raises("not-a-run", tmp_path):
        replay(tmp_path, at=0)
    with np.load(shapes) as arrays:
        np.savez(tmp_path / "other.npz", arr_0=255 - arrays["arr_0"], arr_1=arrays["arr_1"])
    with raises("images-differ", tmp_path / "other.npz", run, "--data"):
        replay(run, at=0, data=tmp_path / "other.npz")


def test_a_run_whose_end_is_not_fixed_yet_goes_as_far_as_its_log(run: Path, tmp_path: Path) -> None:
    stopped = Path(shutil.copytree(run, tmp_path / "run"))
    for path in checkpoint.checkpoints(stopped):
        tensors, meta = load_tensors(path)
        del meta["progress"]["ends"], meta["sha256"]
        save_tensors(path, tensors, meta)
    with raises("value-out-of-range", "at", 96, "0 to 95"):
        replay(stopped, at=96, out=tmp_path / "out")
    assert replay(stopped, at=95, out=tmp_path / "out").images_seen == 88


def test_nothing_of_the_run_is_touched(run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in [*checkpoint.checkpoints(run), run / "metrics.jsonl"]}
    replay(run, at=72, out=tmp_path / "out")
    assert all(path.read_bytes() == content for path, content in before.items())
    assert exported(run / "generator", 1)
