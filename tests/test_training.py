"""A run: its files, its budget, and that a stopped and resumed run computes the same bits as an uninterrupted one."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ptarmigan.training.loop as loop
from conftest import SMALL
from ptarmigan.config import config_of, resolve
from ptarmigan.core import clock
from ptarmigan.core.clock import COMMAND, Clock
from ptarmigan.core.log import read_log
from ptarmigan.core.tensor_files import load_tensors
from ptarmigan.core.types import ImageSpec
from ptarmigan.data import open_dataset
from ptarmigan.game.optim import ema_decay, learning_rate
from ptarmigan.game.progress import Progress
from ptarmigan.game.state import TrainState
from ptarmigan.generator.generator import load
from ptarmigan.training import checkpoint, start
from ptarmigan.training.budget import steps_per_tick
from ptarmigan.training.loop import train
from ptarmigan.training.signals import Stopped
from support import at_step, before_steps, interrupt, raises, read_ticks


def newest(run: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    return load_tensors(checkpoint.checkpoints(run)[-1])


@pytest.fixture(scope="module")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train(shapes, out=tmp_path_factory.mktemp("finished") / "run", **SMALL)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run of one's own."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


SLOW = pytest.mark.slow
RUNS: dict[str, dict[str, Any]] = {
    "auto": {"g_blocks": 1},
    "brief auto": {},
    "acgan": {"recipe": "acgan", "ema_half_life": 100},
    "dcgan": {"recipe": "dcgan", "balance": True},
    "wgan-gp": {
        "loss": "wasserstein", "gradient_penalty": 10, "r1": 0, "r2": 0, "d_steps": 2, "flip": True, "balance": True,
    },
    "tac": {"conditioning": "twin_classifier"},
    "adc": {"conditioning": "discriminative_classifier", "loss": "hinge"},
    "reacgan": {"conditioning": "reacgan", "class_weight": 0.5},
    "r3gan": {"network": "r3gan"},
    "ramps": {
        "r1": "0.5..0.05", "r2": "0..0.4", "g_betas": (0, "0.9..0.99"), "d_betas": ("0.5..0", 0.9),
        "ema_half_life": "0.2..1.5", "augment": "diffaugment", "augment_p": "0..0.3",
    },
    "sngan": {"network": "resnet", "d_norm": "spectral", "loss": "hinge", "r1": 0, "r2": 0},
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [name if name in ("auto", "wgan-gp", "ramps") else pytest.param(name, marks=SLOW) for name in RUNS]
)
def test_stopped_at_step_3_of_6_and_resumed_is_the_same_run_bit_for_bit(
    name: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {**SMALL, **RUNS[name]}
    train(shapes, out=tmp_path / "whole", **fields)
    with monkeypatch.context() as patch:
        at_step(patch, 3, interrupt)
        with raises("stopped", 24, f"out={str(tmp_path / 'parts')!r}", kind=Stopped) as stopped:
            train(shapes, out=tmp_path / "parts", **fields)
    assert stopped.value.run == tmp_path / "parts"
    assert newest(tmp_path / "parts")[1]["images_seen"] == 24
    train(shapes, out=tmp_path / "parts", **fields)

    (tensors, meta), (resumed, resumed_meta) = newest(tmp_path / "whole"), newest(tmp_path / "parts")
    assert tensors.keys() == resumed.keys()
    assert all(torch.equal(tensors[key], resumed[key]) for key in tensors)
    for progress in (meta["progress"], resumed_meta["progress"]):
        del progress["clock"], progress["tick"]  # depend on the machine's speed
    assert meta["progress"] == resumed_meta["progress"]
    for file in ("generator/model.safetensors", "samples/000000048.png"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes()


def test_progress_is_the_same_after_json() -> None:
    progress = Progress(tick=8, clock=1.5, budget=["10m", None], ends=[48, 96], end_fixed_at=16, lr_scale=0.25)
    progress.rollbacks, progress.best_kid, progress.best_images, progress.kept = 2, 0.1, 24, [8]
    progress.moves = [[72, 104]]
    progress.best_error, progress.least_kid, progress.least_left_out, progress.scored_at = 0.01, 0.05, [0.04, 0.06], 48
    record = json.loads(json.dumps(asdict(progress)))
    assert Progress(**record) == progress


@pytest.mark.parametrize("name", ["tac", pytest.param("adc", marks=SLOW), pytest.param("reacgan", marks=SLOW)])
def test_a_conditioning_trains_both_players_logs_its_term_and_samples(name: str, shapes: Path, tmp_path: Path) -> None:
    run = train(shapes, out=tmp_path / "run", **SMALL, **RUNS[name])
    first, last = (load_tensors(path)[0] for path in checkpoint.checkpoints(run))
    heads = [key for key in first if key.startswith("D.head.")]
    assert len(heads) > 2
    still = {key for key in heads if torch.equal(first[key], last[key])}
    assert still <= {"D.head.source.bias"}  # a constant in D is nothing to a relativistic loss
    for line in read_ticks(run):
        assert {"d_class", "g_class"} <= line.keys()
    images, labels = load(run).sample("blot", n=3, seed=1)
    assert images.shape == (3, 16, 16, 1)
    assert labels.tolist() == [2, 2, 2]


def test_every_state_moves_and_another_seed_gives_another_run(shapes: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        train(shapes, out=tmp_path / str(seed), **SMALL, seed=seed)
    first, last = (load_tensors(path)[0] for path in checkpoint.checkpoints(tmp_path / "0"))
    still = [key for key in first if torch.equal(first[key], last[key])]
    # G's running statistics are the average's business, and a constant in D is nothing to a relativistic loss
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert [key for key in still if not key.endswith(statistics) and "source.bias" not in key] == []
    other = newest(tmp_path / "1")[0]
    assert not torch.equal(last["G.project.weight"], other["G.project.weight"])


def test_the_files_of_a_run(shapes: Path, tmp_path: Path) -> None:
    run = train(shapes, out=tmp_path / "run", **{**SMALL, "split": "80/10/10"})
    record = json.loads((run / "config.json").read_text())
    assert record["spec"]["class_names"] == ["across", "down", "blot"]
    assert record["data"]["split"] == {"train": 72, "select": 9, "held-out": 9}
    assert record["asked"]["batch"] == 8
    split, _ = load_tensors(run / "split.safetensors")
    assert split["part"].bincount().tolist() == [72, 9, 9]
    lines = list(read_log(run / "metrics.jsonl"))
    assert lines[-1]["images_seen"] == 48
    assert {"d_adv", "d_r1", "d_r2", "d_grad", "g_adv", "g_grad", "clock", "images_per_second", "end"} <= lines[
        0
    ].keys()
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["000000024.png", "000000048.png", "latest.png"]
    assert (run / "samples" / "latest.png").read_bytes() == (run / "samples" / "000000048.png").read_bytes()
    with Image.open(run / "samples" / "000000048.png") as picture:
        assert picture.size == (int(picture.text["margin"]) + 10 * 18 + 2, 3 * 18 + 2)  # type: ignore[attr-defined]  # rows = classes
        assert picture.text["classes"] == "across, down, blot"  # type: ignore[attr-defined]
        assert picture.text["seed"] == "0"  # type: ignore[attr-defined]
        assert picture.text["generator"] == load_tensors(run / "generator" / "model.safetensors")[1]["sha256"]  # type: ignore[attr-defined]
    card = (run / "generator" / "README.md").read_text()
    assert "class-conditional" in card
    assert "2. blot" in card
    assert not list(run.rglob("*.tmp"))


def test_the_same_command_on_a_finished_run_does_nothing(
    shapes: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [run / "metrics.jsonl", run / "generator" / "model.safetensors", *checkpoint.checkpoints(run)]
    before = [path.read_bytes() for path in files]
    capsys.readouterr()
    train(shapes, out=run, **SMALL)
    assert "finished at 48" in capsys.readouterr().out
    assert [path.read_bytes() for path in files] == before


def test_a_longer_budget_extends_a_run_and_anneals_again(shapes: Path, run: Path) -> None:
    train(shapes, out=run, **{**SMALL, "images": "96"})
    _, meta = newest(run)
    assert meta["images_seen"] == 96
    assert meta["progress"]["ends"] == [48, 96]
    assert learning_rate(1.0, 48, 48, 96, 0.5) == 1.0
    with raises("budget-spent", "images 40", 96):
        train(shapes, out=run, **{**SMALL, "images": "40"})


def test_an_unfinished_run_is_extended_by_moving_its_end(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 2, interrupt)
        with pytest.raises(Stopped):
            train(shapes, out=tmp_path / "run", **SMALL)
    train(shapes, out=tmp_path / "run", **{**SMALL, "images": "64"})
    assert newest(tmp_path / "run")[1]["progress"]["ends"] == [64]


def test_another_config_on_the_same_run_is_refused_with_the_difference(shapes: Path, run: Path) -> None:
    with raises("run-differs", run, "width is 4 in the run, 8 now", "r1 is 0.2 in the run, 0.3 now"):
        train(shapes, out=run, **{**SMALL, "width": 8, "r1": 0.3})


def test_other_images_on_the_same_run_are_refused(shapes: Path, run: Path, tmp_path: Path) -> None:
    with np.load(shapes) as arrays:
        np.savez(tmp_path / "other.npz", arr_0=255 - arrays["arr_0"], arr_1=arrays["arr_1"])
    with raises("run-differs", "images", shapes):
        train(tmp_path / "other.npz", out=run, **SMALL)


def test_a_run_is_not_taken_for_images(run: Path, tmp_path: Path) -> None:
    with raises("no-images", run, "--out", "--from"):
        train(run, out=tmp_path / "new", **SMALL)


def test_a_folder_that_is_no_run_is_left_alone(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("mine")
    with raises("not-a-run", tmp_path / "thesis"):
        train(shapes, out=tmp_path / "thesis", **SMALL)
    assert os.listdir(tmp_path / "thesis") == ["thesis.tex"]


def test_without_out_a_new_numbered_run_is_made(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert train(shapes, **SMALL) == Path("runs/shapes-1")
    assert train(shapes, **SMALL) == Path("runs/shapes-2")


def test_the_newest_good_checkpoint_is_used_when_one_is_damaged(
    shapes: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "generator" / "model.safetensors").read_bytes()
    path = checkpoint.checkpoints(run)[-1]
    blob = bytearray(path.read_bytes())
    blob[-5] ^= 1
    path.write_bytes(blob)
    (run / "generator" / "model.safetensors").unlink()
    train(shapes, out=run, **SMALL)
    assert "note: " in (out := capsys.readouterr().out)
    assert str(path) in out
    assert (run / "generator" / "model.safetensors").read_bytes() == before


def test_the_newest_checkpoints_are_kept_and_those_that_an_earlier_version_promised(tmp_path: Path) -> None:
    config = resolve({**SMALL, "width": 1})
    state = TrainState.create(config, ImageSpec(8, 8, 1, ("a", "b")), torch.device("cpu"))
    state.progress.kept = [16]
    for step in range(1, 7):
        state.images_seen = 8 * step
        path = checkpoint.save(tmp_path, state, {})
    assert [int(path.stem) // 8 for path in checkpoint.checkpoints(tmp_path)] == [2, 5, 6]
    (path.parent / "before-the-move.safetensors").write_bytes(b"mine")
    (path.parent / "000000008.safetensors.bak").write_bytes(b"mine")
    state.images_seen += 8
    checkpoint.save(tmp_path, state, {})
    assert len(list(path.parent.iterdir())) == 5


def test_the_size_of_a_checkpoint_is_known_before_the_first_step(run: Path) -> None:
    tensors, meta = newest(run)
    state = TrainState.create(config_of(meta["record"]), ImageSpec(**meta["record"]["spec"]), torch.device("cpu"))
    moments = sum(value.nbytes for name, value in tensors.items() if name.endswith(".step"))
    assert checkpoint.size(state) == sum(value.nbytes for value in tensors.values()) - moments


@pytest.mark.usefixtures("even_clock")
def test_one_class_is_unconditional_and_a_time_budget_fixes_its_end(shapes: Path, tmp_path: Path) -> None:
    with np.load(shapes) as arrays:
        np.savez(tmp_path / "one.npz", arr_0=arrays["arr_0"], arr_1=np.zeros(90, np.int64))
    fields = {key: value for key, value in SMALL.items() if key != "images"}
    run = train(tmp_path / "one.npz", out=tmp_path / "run", **fields, time="1s")
    tensors, meta = newest(run)
    assert "G.embedding.weight" not in tensors
    assert meta["images_seen"] == meta["progress"]["ends"][0]
    assert 0.3 < meta["progress"]["clock"] < 10
    ends = {line["end"] for line in read_ticks(run)} - {None}
    assert len(ends) == 1


def test_fields_of_a_conditioning_that_one_class_turns_off_do_not_lock_the_run(shapes: Path, tmp_path: Path) -> None:
    with np.load(shapes) as arrays:
        np.savez(tmp_path / "one.npz", arr_0=arrays["arr_0"], arr_1=np.zeros(90, np.int64))
    fields = {**SMALL, "conditioning": "reacgan", "class_margin": 0.9, "class_temperature": 0.3}
    run = train(tmp_path / "one.npz", out=tmp_path / "run", **fields)
    train(tmp_path / "one.npz", out=run, **{**fields, "images": "64"})
    assert newest(run)[1]["images_seen"] == 64
    assert load(run).config.model.conditioning == "none"


def test_a_conditioning_that_was_asked_for_is_not_dropped_in_silence(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(shapes) as arrays:
        np.savez(tmp_path / "one.npz", arr_0=arrays["arr_0"], arr_1=np.zeros(90, np.int64))
    notes = {}
    for name, fields in {"auto": {}, "recipe": {"recipe": "acgan"}, "field": {"conditioning": "reacgan"}}.items():
        train(tmp_path / "one.npz", out=tmp_path / name, **SMALL, **fields)
        out = capsys.readouterr().out
        notes[name] = [line for line in out.splitlines() if line.startswith("note: conditioning")]
    assert notes["auto"] == []
    assert "auxiliary_classifier" in notes["recipe"][0]
    assert "reacgan" in notes["field"][0]


def test_a_run_says_first_what_it_found_and_names_ten_classes_at_most(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    names = [f"kind{label:02d}" for label in range(12)]
    labels = np.repeat(np.arange(12), 3)
    images = rng.integers(0, 255, (36, 8, 8), np.uint8)
    np.savez(tmp_path / "many.npz", arr_0=images, arr_1=labels, class_names=np.array(names))
    for images_seen in ("8", "16"):
        train(tmp_path / "many.npz", out=tmp_path / "run", **{**SMALL, "images": images_seen})
        found, classes, *rest = capsys.readouterr().out.splitlines()
        assert found == open_dataset(tmp_path / "many.npz", resolve(SMALL).data).understood
        assert "kind00 (3), kind01 (3)" in classes
        assert "kind09 (3) and 2 more" in classes
        assert "kind10" not in classes
        assert not any("kind11" in line for line in rest)


def test_another_number_of_threads_is_said_when_a_run_resumes(
    shapes: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(shapes, out=run, **SMALL)
    assert "note: resuming" not in capsys.readouterr().out
    torch.set_num_threads(2)
    train(shapes, out=run, **SMALL)
    (note,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: resuming")]
    assert "2 threads instead of 1" in note


@pytest.mark.parametrize("name", ["data", "out", "config", "init"])
def test_an_empty_path_is_an_error(name: str) -> None:
    with raises("value-invalid", "from" if name == "init" else name):
        train(**{name: ""}, **SMALL)


def test_a_clock_counts_from_the_command_and_leaves_out_where_the_process_was_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])
    assert Clock().seconds() == 0
    token = COMMAND.set(80.0)
    try:
        watch = Clock()  # 20 seconds of imports
    finally:
        COMMAND.reset(token)
    for gap, shown in ((0.5, 20.5), (4.0, 24.5), (3600.0, 25.0), (0.5, 25.5), (5.0, 26.0)):
        now[0] += gap
        assert watch.seconds() == pytest.approx(shown)
    watch.add(-20)
    assert watch.seconds() == pytest.approx(6)


def test_an_open_clock_counts_an_operation_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "STOP_SECONDS", 0.2)
    monkeypatch.setattr(clock, "BEAT_SECONDS", 0.02)
    with Clock() as watch:
        time.sleep(0.5)
        assert watch.seconds() > 0.4


def test_a_stopped_run_keeps_its_time_budget(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, pause = itertools.count(), [0.0]
    even = SimpleNamespace(monotonic=lambda: 0.03 * next(looks) + pause[0])  # the same on any machine
    monkeypatch.setattr(clock, "time", even)
    monkeypatch.setattr(start, "snapshot_cost", lambda *_: (0.02, 0.02))
    fields = {key: value for key, value in SMALL.items() if key != "images"}

    def stop(_: Any) -> None:
        pause[0] = 3600.0

    at_step(monkeypatch, 3, stop)
    run = train(shapes, out=tmp_path / "run", **fields, time="4s")
    lines = read_ticks(run)
    assert 1.5 < lines[-1]["clock"] < 10
    assert lines[-1]["images_seen"] > 3 * 8


def test_a_random_state_of_the_caller_has_no_part_and_is_left_alone(shapes: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state()
    one = train(shapes, out=tmp_path / "one", **SMALL)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    two = train(shapes, out=tmp_path / "two", **SMALL)
    assert (one / "generator/model.safetensors").read_bytes() == (two / "generator/model.safetensors").read_bytes()


def test_what_lies_behind_transparency_does_not_train(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 4), np.uint8)
    images[:, :8, :, 3] = 0
    finals = []
    for behind in (0, 200):
        images[:, :8, :, :3] = behind
        np.savez(tmp_path / f"{behind}.npz", arr_0=images, arr_1=np.arange(60) % 3)
        run = train(tmp_path / f"{behind}.npz", out=tmp_path / f"run-{behind}", **SMALL)
        finals.append(load_tensors(run / "generator" / "model.safetensors")[0])
    assert all(torch.equal(value, finals[1][name]) for name, value in finals[0].items())


def test_the_learning_rate_is_constant_then_falls_to_zero() -> None:
    rates = [learning_rate(2.0, images, 100, 300, 0.5) for images in (100, 199, 200, 250, 299, 300)]
    assert rates == pytest.approx([2, 2, 2, 1, 0.02, 0])
    assert learning_rate(2.0, 10**9, 0, None, 0.5) == 2
    assert learning_rate(2.0, 299, 0, 300, 0.0) == 2


def test_the_average_forgets_half_in_its_half_life() -> None:
    assert ema_decay(10**9, 64, 64 * 10) ** 10 == pytest.approx(0.5)
    assert ema_decay(64 * 200, 64, 1e9) ** 10 == pytest.approx(0.5)  # early on: .05 of the images seen
    assert ema_decay(0, 64, 1e4) == 0
    assert ema_decay(10**6, 64, 0) == 0


@pytest.mark.parametrize(
    ("seconds", "fields", "steps"),
    [
        (0.06, {"images": "1M"}, 24),  # 25 in 1.5 seconds
        (0.06, {"images": "1M", "penalty_every": 1}, 25),
        (0.37, {"images": "1M"}, 4),
        (0.7, {"images": "1M"}, 2),
        (9.0, {"images": "1M"}, 1),
        (0.01, {"images": "1600", "batch": 10}, 8),  # a twentieth
        (0.01, {"images": "700", "batch": 10}, 3),
        (0.01, {"time": "3s"}, 4),  # 7 in a fortieth
    ],
)
def test_a_tick_is_about_a_second_and_a_half_and_a_multiple_of_penalty_every(
    seconds: float, fields: dict[str, Any], steps: int
) -> None:
    assert steps_per_tick(resolve(fields), seconds) == steps


@pytest.mark.parametrize("tick", [1, 3, 4, 8])
def test_the_log_has_the_mean_of_a_penalty_over_the_steps_where_it_was_due(
    tick: int, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "steps_per_tick", lambda *_: tick)
    steps: list[dict[str, float]] = []
    train_batch = loop.train_batch

    def step(state: Any, batches: Any, *play: Any) -> Any:
        terms = train_batch(state, batches, *play)
        if state.progress.tick:
            steps.append({name: value.item() for name, value in terms.items()})
        return terms

    monkeypatch.setattr(loop, "train_batch", step)
    fields = {**SMALL, "images": "128", "snapshots": 1, "live_images": 0, "penalty_every": 4, "r1": 1.0}
    run = train(shapes, out=tmp_path / "run", **fields)
    assert [place for place, terms in enumerate(steps) if terms["d_r1"]] == [0, 4, 8, 12]
    for line in read_ticks(run):
        end = line["images_seen"] // 8
        part = steps[(end - 1) // tick * tick : end]
        due = [terms["d_r1"] / 4 for terms in part if terms["d_r1"]]
        assert line.get("d_r1") == (pytest.approx(sum(due) / len(due)) if due else None)
        assert line["d_adv"] == pytest.approx(sum(terms["d_adv"] for terms in part) / len(part))


def test_deterministic_algorithms_are_asked_for_and_given_back(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    before_steps(monkeypatch, lambda _: seen.append(torch.are_deterministic_algorithms_enabled()))
    train(shapes, out=tmp_path / "run", **SMALL, deterministic=True)
    assert seen == [True] * 6
    assert not torch.are_deterministic_algorithms_enabled()
