"""Damage to the files of a run is named, and never gives another model."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ptarmigan.training.loop as training
from conftest import SMALL
from ptarmigan import load
from ptarmigan.core.files import Damaged, load_json, save_json
from ptarmigan.core.log import Metrics, damaged_lines, read_log
from ptarmigan.core.tensor_files import load_tensors
from ptarmigan.core.types import UserError
from ptarmigan.training import checkpoint
from ptarmigan.training.loop import train
from support import (
    at_step,
    raises,
)

READ_BACK = [
    "config.json", "metrics.jsonl", "split.safetensors", "checkpoints/000000024.safetensors",
    "checkpoints/000000048.safetensors", "generator/model.safetensors", "generator/config.json", "generator/README.md",
]  # fmt: skip


def hurt(path: Path, how: str, place: float, mask: int) -> None:
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    if how == "flip":
        content[at] ^= mask
        path.write_bytes(content)
    elif how == "delete":
        path.unlink()
    else:
        path.write_bytes(content[: at if how == "truncate" else 0])


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    st.sampled_from(READ_BACK),
    st.sampled_from(["flip", "flip", "truncate", "empty", "delete"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 255),
)
def test_damage_to_any_one_file_is_named_or_harmless_and_never_gives_another_model(
    shapes: Path,
    finished: Path,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    how: str,
    place: float,
    mask: int,
) -> None:
    run = tmp_path_factory.mktemp("damaged") / "run"
    shutil.copytree(finished, run)
    hurt(run / name, how, place, mask)
    expected, _ = load_tensors(finished / "generator" / "model.safetensors")

    if name == "generator/model.safetensors" and how != "flip":
        with pytest.raises(UserError) as caught:
            load(run)
        assert str(run) in str(caught.value)
    else:
        with suppress(Damaged):
            model = load(run)  # the right one, or none
            assert all(torch.equal(value, expected[key]) for key, value in model.network.state_dict().items())

    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Display, "say", lambda _, text: said.append(text))
        train(shapes, out=run, **SMALL)
    if name in ("config.json", "checkpoints/000000048.safetensors") and how != "delete":
        assert any(text.startswith("note: ") and name in text for text in said), said
    assert (run / "generator" / "model.safetensors").read_bytes() == (
        finished / "generator" / "model.safetensors"
    ).read_bytes()
    shutil.rmtree(run.parent)


def test_a_run_without_a_good_checkpoint_or_config_says_so_in_one_line(
    shapes: Path, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    for path in checkpoint.checkpoints(tmp_path / "run"):
        path.write_bytes(b"")
    with raises("no-good-checkpoint", "000000048.safetensors", "000000024.safetensors") as raised:
        train(shapes, out=tmp_path / "run", **SMALL)
    assert "\n" not in str(raised.value)
    for name in ("checkpoints", "generator", "samples"):
        shutil.rmtree(tmp_path / "run" / name)
    (tmp_path / "run" / "config.json").write_text("{")
    with raises("no-good-checkpoint", tmp_path / "run" / "config.json"):
        train(shapes, out=tmp_path / "run", **SMALL)


def test_a_deleted_config_is_restored_from_the_checkpoint(shapes: Path, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    train(shapes, out=tmp_path / "run", **SMALL)
    assert load_json(tmp_path / "run" / "config.json") == load_json(finished / "config.json")
    (tmp_path / "run" / "config.json").unlink()
    with raises("run-differs", "width is 4 in the run, 8 now"):
        train(shapes, out=tmp_path / "run", **{**SMALL, "width": 8})


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_record_says_when_it_is_not_what_was_written(tmp_path: Path, place: float, mask: int) -> None:
    record = {"a": [1, 2.5, None], "b": {"c": "text"}}
    save_json(tmp_path / "x.json", record)
    assert load_json(tmp_path / "x.json") == record
    hurt(tmp_path / "x.json", "flip", place, mask)
    with suppress(Damaged):
        assert load_json(tmp_path / "x.json") == record  # white space may change, nothing else


def test_a_damaged_line_of_the_log_is_counted_and_left_out_and_a_torn_one_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path)
    for images in (8, 16, 24):
        metrics.write(images, d_adv=0.5)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1].replace("images_seen", "images_\0een") + lines[2] + lines[2][:20])
    assert [line["images_seen"] for line in read_log(path)] == [8, 24]
    assert damaged_lines(path) == 2
    Metrics(path).write(32, d_adv=0.5)
    assert damaged_lines(path) == 1
    assert [(line["images_seen"], line["attempt"]) for line in read_log(path)] == [(8, 1), (24, 1), (32, 2)]


def test_a_record_that_is_removed_while_the_run_trains_is_written_again(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 2, lambda _: shutil.rmtree(tmp_path / "run"))
    run = train(shapes, out=tmp_path / "run", **SMALL)
    assert load_json(run / "config.json")["data"]["name"] == "shapes"
    train(shapes, out=run, **SMALL)


@pytest.mark.parametrize("fault", ["moments", "shape", "type", "more"])
def test_tensors_that_are_not_those_of_the_config_are_refused(
    fault: str, shapes: Path, finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    path = checkpoint.checkpoints(run)[-1]
    tensors, meta = load_tensors(path)
    name = next(key for key in tensors if key.startswith("opt_d.") and key.endswith(".exp_avg"))
    if fault == "moments":
        del tensors[name]
    elif fault == "shape":
        tensors[name] = tensors[name].flatten()[:1]
    elif fault == "type":
        tensors[name] = tensors[name].double()
    else:
        name = "opt_d.other"
        tensors[name] = torch.ones(1)
    checkpoint.save_tensors(path, tensors, {key: value for key, value in meta.items() if key != "sha256"})
    with raises("file-damaged", path, name):
        train(shapes, out=run, **{**SMALL, "images": "96"})
