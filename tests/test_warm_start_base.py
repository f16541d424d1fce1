"""The model that comes with ptarmigan: what starts from it, and a base that is missing or does not fit."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import SMALL
from ptarmigan.config import resolve
from ptarmigan.core.files import load_json
from ptarmigan.core.types import ImageSpec
from ptarmigan.training import source_model
from ptarmigan.training.loop import train
from ptarmigan.training.warm_start import (
    starts_from_base,
)
from support import raises
from test_warm_start import NAMES, ONE_STEP, SHAPELESS_STEP, first, last, named


@pytest.fixture
def packed(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run `base` as the model that comes with ptarmigan."""
    path = tmp_path / "assets" / "base.safetensors"
    path.parent.mkdir()
    monkeypatch.setattr(sys, "argv", ["pack.py", str(base), "--out", str(path)])
    load_tool("pack").main()
    monkeypatch.setattr(source_model, "BASE_FILE", path)
    monkeypatch.chdir(tmp_path)
    return path


def load_tool(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "tools" / "base" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_auto_starts_from_the_base_for_large_images_unless_told_otherwise(
    packed: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {**SHAPELESS_STEP, "size": "40"}
    (tmp_path / "base").mkdir()  # a folder of this name changes nothing: nobody named it
    run = train(shapes, out=tmp_path / "run", **fields)
    assert "warm start from base" in capsys.readouterr().out
    record = load_json(run / "config.json")
    why = "as the model has it that the run starts from"
    assert f"network dcgan, width 4, D's first 2 stages frozen, smallest maps 3x3: {why}" in record["notes"]
    assert record["init"]["model"] == "base"
    assert "width" not in record["asked"]
    train(shapes, out=run, **{**fields, "images": "16"})  # goes on without --from
    assert "16 images" in capsys.readouterr().out
    again = train(config=run / "config.json", out=tmp_path / "again")
    assert load_json(again / "config.json")["init"]["model"] == "base"
    (tmp_path / "base").rmdir()
    fields |= {"width": 4}
    train(shapes, out=tmp_path / "scratch", init="none", **fields)
    train(shapes, out=tmp_path / "scratch", **{**fields, "images": "16"})  # a run keeps its start
    with raises("run-differs", "base"):
        train(shapes, out=tmp_path / "scratch", **fields, init="base")
    (tmp_path / "none").mkdir()  # a folder called `none` is not what --from none means
    repeated = train(config=tmp_path / "scratch" / "config.json", out=tmp_path / "repeated")
    assert load_json(repeated / "config.json")["init"] is None


@pytest.mark.parametrize(
    ("asked", "size", "device", "starts"),
    [
        ({}, (40, 40), "cpu", True), ({"batch": 8, "size": "33x32"}, (33, 32), "cpu", True),
        ({}, (32, 32), "cpu", False), ({}, (129, 128), "cpu", False), ({}, (40, 40), "cuda", False),
        ({"recipe": "dcgan"}, (40, 40), "cpu", False), ({"width": 4}, (40, 40), "cpu", False),
        ({"network": "resnet"}, (40, 40), "cpu", False), ({"d_norm": "spectral"}, (40, 40), "cpu", False),
    ],
)  # fmt: skip
def test_what_starts_from_the_base(
    asked: dict[str, Any], size: tuple[int, int], device: str, starts: bool, packed: Path
) -> None:
    spec = ImageSpec(*size, 3, NAMES)
    assert starts_from_base(None, resolve(asked), asked.keys(), spec, device) is starts
    packed.unlink()  # an installation without the file
    assert starts_from_base(None, resolve(asked), asked.keys(), spec, device) is False


def test_the_base_is_for_images_of_any_shape_and_its_networks_are_of_half_precision(
    packed: Path, shapes: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {**SHAPELESS_STEP, "size": "32", "channels": 4}
    run = train(named(shapes, tmp_path, "x", "down"), out=tmp_path / "run", init="base", **fields)
    record = load_json(run / "config.json")
    assert (record["spec"]["height"], record["spec"]["channels"]) == (32, 4)
    assert record["init"]["model"] == "base"
    assert record["init"]["colours"] == ["grey", "RGBA"]
    assert record["init"]["shape"].keys().isdisjoint({"size", "channels"})
    assert record["config"]["model"]["width"] == 4
    (tensors, _), given = first(run), last(base)
    for player in ("G", "ema"):
        half = given["ema.stages.0.weight"].half().float()
        assert torch.equal(tensors[f"{player}.stages.1.weight"], half)
    assert torch.equal(tensors["D.body.stages.1.weight"], given["D.body.stages.1.weight"].half().float())
    out = capsys.readouterr().out
    for fact in ("warm start from base, which comes with ptarmigan (", "48 images"):
        assert fact in out
    told = "\n".join(record["notes"])
    for fact in ("48 images", "from grey to RGBA", "down"):
        assert fact in told
    assert "--size" not in out
    packed.unlink()  # a run does not need it again
    train(named(shapes, tmp_path, "x", "down"), out=run, init="base", **{**fields, "images": "16"})


def test_a_folder_named_base_comes_before_the_base(packed: Path, shapes: Path, base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "base")
    run = train(shapes, out=tmp_path / "run", init="base", **ONE_STEP)
    assert "size" in load_json(run / "config.json")["init"]["shape"]


def test_a_base_that_is_missing_damaged_or_does_not_fit_is_refused(packed: Path, shapes: Path, tmp_path: Path) -> None:
    with raises("model-does-not-fit", "base", "--width 4"):
        train(shapes, out=tmp_path / "run", init="base", **{**SMALL, "width": 8})
    packed.write_bytes(packed.read_bytes()[:-1])
    with raises("model-invalid", packed):
        train(shapes, out=tmp_path / "run", init="base", **SMALL)
    packed.unlink()
    with raises("path-not-found", "base"):
        train(shapes, out=tmp_path / "run", init="base", **SMALL)
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_too_large_or_not_a_run_is_not_packed(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = load_tool("pack")
    monkeypatch.setattr(pack, "MOST_BYTES", 1000)
    for run, fact in ((base, "MB"), (tmp_path, str(tmp_path))):
        monkeypatch.setattr(sys, "argv", ["pack.py", str(run), "--out", str(tmp_path / "x.safetensors")])
        with pytest.raises(SystemExit) as ended:
            pack.main()
        assert ended.value.code == 2
        assert fact in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()
