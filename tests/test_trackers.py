"""Trackers get the log, the grids and the options, continue with a resumed run, and never end one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from conftest import SMALL
from ptarmigan import train
from ptarmigan.core.log import read_log
from ptarmigan.diagnosis.logs import event_values
from ptarmigan.sharing.trackers import TRACKERS, numbers
from support import plant_nan, raises


class Recorder:
    """A tracker that keeps what it is called with; `fails` names a method that raises."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.calls = fails, list[tuple[Any, ...]]()

    def _called(self, *call: Any) -> None:
        self.calls.append(call)
        if call[0] == self.fails:
            raise ValueError("no\nroom")

    def start(self, run: Path, config: Mapping[str, Any], images_seen: int) -> str:
        self._called("start", config["width"], images_seen)
        return "charts in the attic"

    def scalars(self, images_seen: int, values: Mapping[str, float]) -> None:
        self._called("scalars", images_seen, dict(values))

    def image(self, images_seen: int, picture: Image.Image) -> None:
        self._called("image", images_seen, picture.mode)

    def finish(self) -> None:
        self._called("finish")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setitem(TRACKERS, "recorder", lambda: made)
    return made


def test_a_tracker_gets_the_numbers_of_the_log_and_each_grid(
    recorder: Recorder, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(shapes, out=tmp_path / "run", tracker="recorder", **SMALL)
    assert "charts in the attic" in capsys.readouterr().out
    assert recorder.calls[0] == ("start", 4, 0)
    assert recorder.calls[-1] == ("finish",)
    tracked = [(seen, values) for name, seen, values in recorder.calls[1:-1] if name == "scalars"]
    logged = [(line.pop("images_seen"), line) for line in read_log(run / "metrics.jsonl")]
    assert tracked == [(seen, {k: v for k, v in numbers(line).items() if k != "attempt"}) for seen, line in logged]
    assert any("g_adv" in values for _, values in tracked)
    grids = [int(path.stem) for path in sorted((run / "samples").glob("0*.png"))]
    assert [call[1:] for call in recorder.calls if call[0] == "image"] == [(seen, "RGB") for seen in grids]


def test_a_rollback_starts_the_tracker_again(
    recorder: Recorder, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_nan(monkeypatch, "batch", at=32, times=1)
    train(shapes, out=tmp_path / "run", tracker="recorder", **SMALL)
    starts = [at for at, call in enumerate(recorder.calls) if call[0] == "start"]
    assert len(starts) == 2
    assert recorder.calls[starts[1] - 1] == ("finish",)
    assert recorder.calls[starts[1]][2] < 32


@pytest.mark.parametrize("method", ["start", "scalars", "image", "finish"])
def test_a_tracker_that_fails_is_noted_once_and_left_alone(
    method: str, recorder: Recorder, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder.fails = method
    train(shapes, out=tmp_path / "run", tracker="recorder", **SMALL)
    assert capsys.readouterr().out.count("ValueError: no room") == 1
    assert recorder.calls[-1][0] == method


def test_only_finite_numbers_are_tracked() -> None:
    values = {"a": 1, "b": 0.5, "finished": True, "findings": [], "diverged": "d_adv", "end": None, "c": float("nan")}
    assert numbers(values) == {"a": 1, "b": 0.5}


def test_a_tracker_that_is_not_there_is_told_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raises("unknown-name", "tensorboard", "wandb"):
        train(tmp_path / "missing", tracker="tensorbord")
    for name, package in (("tensorboard", "tensorboardX"), ("wandb", "wandb")):
        monkeypatch.setitem(sys.modules, package, None)
        with raises("package-missing", name):
            train(tmp_path / "missing", tracker=name)


def test_tensorboard_has_the_log_and_a_resumed_run_continues_it(shapes: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    run = tmp_path / "run"
    for images in ("48", "96"):
        train(shapes, out=run, tracker="tensorboard", **{**SMALL, "images": images})
    files = sorted((run / "tensorboard").iterdir())
    assert {path.suffix for path in files} == {".0", ".48"}  # also where both start in one second
    contents = [path.read_bytes() for path in files]
    tracked = {(step, tag): value for content in contents for step, tag, value in event_values(content)}
    for line in read_log(run / "metrics.jsonl"):
        if "g_adv" in line:
            assert tracked[line["images_seen"], "g_adv"] == pytest.approx(line["g_adv"])
    assert all(b"samples" in content and b"latent_dim" in content for content in contents)


def test_wandb_is_offline_without_a_login_and_continues_the_same_run(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inits, logs, finished = list[dict[str, Any]](), list[dict[str, Any]](), list[bool]()

    def init(**given: Any) -> SimpleNamespace:
        inits.append(given)
        return SimpleNamespace(
            dir=f"{given['dir']}/wandb/offline-1/files", define_metric=lambda *_, **__: None, log=logs.append,
            finish=lambda: finished.append(True),
        )  # fmt: skip

    package = SimpleNamespace(
        init=init, login=lambda prompt: False, Settings=lambda **_: None, Image=lambda picture: picture.size
    )
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for images in ("48", "96"):
        train(shapes, out=tmp_path / "run", tracker="wandb", **{**SMALL, "images": images})
    assert [(given["mode"], given["resume"], given["name"]) for given in inits] == [("offline", "allow", "run")] * 2
    assert inits[0]["id"] == inits[1]["id"] != ""
    assert inits[0]["config"]["width"] == 4
    assert all("images_seen" in line for line in logs)
    assert {"g_adv", "samples"} <= {name for line in logs for name in line}
    assert finished == [True, True]
    assert "wandb sync" in capsys.readouterr().out
