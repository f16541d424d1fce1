"""Models that a run cannot start from: damaged, of a stranger, of another shape."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import SMALL
from ptarmigan.core.tensor_files import load_tensors, save_tensors
from ptarmigan.core.types import UserError
from ptarmigan.training import checkpoint
from ptarmigan.training.loop import train
from ptarmigan.training.source_model import SourceModel
from support import at_most, raises
from test_warm_start import first


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"width": 8}, "--width 4 "),
        ({"width": 8, "g_modulation": False}, "--width 4 --g-modulation "),
        ({"width": 8, "latent_dim": 7}, "--width 4 --latent-dim 6 "),
    ],
)
def test_where_nothing_fits_a_hint_names_the_options_that_would_and_nothing_stays(
    change: dict[str, Any], hint: str, shapes: Path, base: Path, tmp_path: Path
) -> None:
    with raises("model-does-not-fit", base, "G.project.weight", hint) as raised:
        train(shapes, out=tmp_path / "run", init=base, **{**SMALL, **change})
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_weights_that_d_does_not_start_with_cannot_be_frozen(shapes: Path, base: Path, tmp_path: Path) -> None:
    for model in (None, base / "generator"):
        with raises("options-conflict", "d_frozen", "--from"):
            train(shapes, out=tmp_path / "run", init=model, **SMALL, d_frozen=1)
    with raises("model-does-not-fit", "d_frozen: 3", base, "D.body.stages.2.weight", "smaller --d-frozen"):
        train(shapes, out=tmp_path / "run", init=base, **{**SMALL, "least_side": 2}, d_frozen=3)
    assert not list(tmp_path.iterdir())


def test_a_damaged_model_is_refused_and_an_older_good_checkpoint_is_used_with_a_note(
    shapes: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(base, model)
    older, newest = checkpoint.checkpoints(model)
    content = bytearray(newest.read_bytes())
    content[-5] ^= 1
    newest.write_bytes(content)
    run = train(shapes, out=tmp_path / "run", init=model, **SMALL)
    assert torch.equal(first(run)[0]["D.body.stages.0.weight"], load_tensors(older)[0]["D.body.stages.0.weight"])
    out = capsys.readouterr().out
    (note,) = [line for line in out.splitlines() if line.startswith(f"note: {newest}")]
    assert older.name in note
    (line,) = [line for line in out.splitlines() if line.startswith(f"warm start from {model}")]
    assert "24 images" in line
    older.write_bytes(b"")
    with raises("no-good-checkpoint", "from", newest, older, model / "generator"):
        train(shapes, out=tmp_path / "other", init=model, **SMALL)
    (model / "generator" / "model.safetensors").write_bytes(content)
    with raises("file-damaged", model / "generator" / "model.safetensors"):
        train(shapes, out=tmp_path / "other", init=model / "generator", **SMALL)
    with pytest.raises(UserError) as raised:
        train(shapes, out=tmp_path / "other", init=tmp_path / "nowhere", **SMALL)
    assert str(tmp_path / "nowhere") in str(raised.value)
    assert not (tmp_path / "other").exists()


def forged(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, tensors, {key: value for key, value in meta.items() if key != "sha256"})
    return path.parent.parent if path.parent.name == "checkpoints" else path


@pytest.mark.parametrize(
    "change",
    [
        {"spec": None}, {"spec": 3}, {"config": []}, {"config": {"network": "../../etc/passwd"}},
        {"config": {"latent_dim": 65536, "width": 4096}},
        {"spec": {"height": 10**9, "width": 10**9, "channels": 1, "class_names": ["a"]}},
        {"spec": {"height": 16, "width": 16, "channels": 1, "class_names": 7}},
    ],
)  # fmt: skip
def test_a_strangers_checkpoint_takes_no_more_than_its_file(change: dict[str, Any], base: Path, tmp_path: Path) -> None:
    tensors, meta = load_tensors(checkpoint.checkpoints(base)[-1])
    path = tmp_path / "x" / "checkpoints" / "000000048.safetensors"
    model = forged(path, tensors, meta | {"record": meta["record"] | change})
    with at_most(50), raises("no-good-checkpoint", "000000048.safetensors"):
        SourceModel.open(model)


def test_a_checkpoint_that_lacks_a_player_a_class_or_its_header_is_refused(base: Path, tmp_path: Path) -> None:
    tensors, meta = load_tensors(checkpoint.checkpoints(base)[-1])
    path = tmp_path / "x" / "checkpoints" / "000000048.safetensors"
    for player in ("G.", "D.", "ema."):
        lacking = {key: value for key, value in tensors.items() if not key.startswith(player)}
        with raises("model-invalid", path):
            SourceModel.open(forged(path, lacking, meta))
    more = meta["record"] | {"spec": meta["record"]["spec"] | {"class_names": ["a"] * 4}}
    with at_most(50), raises("model-invalid", path):
        SourceModel.open(forged(path, tensors, meta | {"record": more}))
    for key in ("record", "images_seen"):
        with raises("no-good-checkpoint", path):
            SourceModel.open(forged(path, tensors, {name: value for name, value in meta.items() if name != key}))


def test_a_model_that_is_not_finite_or_does_not_say_how_old_it_is_is_refused(base: Path, tmp_path: Path) -> None:
    for where, path, name in (
        (
            checkpoint.checkpoints(base)[-1],
            tmp_path / "x" / "checkpoints" / "000000048.safetensors",
            "D.head.source.bias",
        ),
        (base / "generator" / "model.safetensors", tmp_path / "x.safetensors", "stages.1.bias"),
    ):
        tensors, meta = load_tensors(where)
        with raises("no-good-checkpoint" if name.startswith("D") else "file-damaged", path, "images_seen"):
            SourceModel.open(forged(path, tensors, meta | {"images_seen": None}))
        with raises("model-invalid", name):
            SourceModel.open(forged(path, tensors | {name: torch.tensor([torch.nan])}, meta))


def test_a_pickle_is_no_model(shapes: Path, tmp_path: Path) -> None:
    path = tmp_path / "x" / "checkpoints" / "000000048.safetensors"
    path.parent.mkdir(parents=True)
    torch.save({"x": torch.zeros(1)}, path)
    with raises("no-good-checkpoint", path):
        train(shapes, out=tmp_path / "run", init=tmp_path / "x", **SMALL)


def test_the_run_itself_is_not_a_model_to_start_from(shapes: Path, base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "run")
    for part in (".", "generator", "generator/model.safetensors"):
        with raises("options-conflict", "--from", tmp_path / "run"):
            train(shapes, out=tmp_path / "run", init=tmp_path / "x" / ".." / "run" / part, **SMALL)
