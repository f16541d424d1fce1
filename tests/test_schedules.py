"""Schedules: a value is a function of images seen, and the step uses it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import ptarmigan.game.draws as draws_module
from conftest import SMALL
from ptarmigan import replay
from ptarmigan.config import Config, Loss, Train, config_of, resolve
from ptarmigan.config.sections import HELP, TYPES, Ramp, Scheduled
from ptarmigan.core.files import load_json
from ptarmigan.core.tensor_files import load_tensors
from ptarmigan.core.types import Batch, ImageSpec
from ptarmigan.data import open_dataset
from ptarmigan.game.batch import eager_step, train_batch
from ptarmigan.game.cuda_graph import make_step
from ptarmigan.game.optim import adam, at
from ptarmigan.game.state import TrainState
from ptarmigan.game.step import d_step
from ptarmigan.generator.generator import load
from ptarmigan.losses.adversarial import objective
from ptarmigan.training import budget, checkpoint, start
from ptarmigan.training.budget import plan_end, snapshots_due
from ptarmigan.training.loop import train
from ptarmigan.training.setup import train_batches
from support import GivenDraws, call, raises, read_ticks
from test_augment_steps import Linear

CPU = torch.device("cpu")
RAMPS: dict[str, Any] = {
    "r1": "0.5..0.05", "r2": [0, 0.4], "g_betas": (0, "0.9..0.99"), "d_betas": ("0.5..0", 0.9),
    "ema_half_life": "0.2..1.5", "augment": "diffaugment", "augment_p": "0..0.3",
}  # fmt: skip


# --- the value ------------------------------------------------------------------------------------------------------


def test_a_ramp_goes_from_its_first_value_to_its_last_by_half_a_cosine() -> None:
    ramp = Ramp(0.5, 0.05)
    assert (at(ramp, 100, 100, 300), at(ramp, 300, 100, 300), at(ramp, 400, 100, 300)) == (0.5, 0.05, 0.05)
    assert at(ramp, 200, 100, 300) == pytest.approx(0.275, abs=1e-15)
    assert at(ramp, 150, 100, 300) == pytest.approx(0.05 + 0.45 * (2 + math.sqrt(2)) / 4, abs=1e-15)
    assert at(ramp, 10**9, 0, None) == 0.5  # far from an end that is not known
    assert [at(7.0, images, 0, 300) for images in (0, 150, 300)] == [7, 7, 7]


@given(
    st.floats(0, 1e9), st.floats(0, 1e9), st.integers(0, 10**9), st.integers(1, 10**9),
    st.lists(st.integers(0, 2 * 10**9), min_size=2),
)  # fmt: skip
def test_a_ramp_never_turns_back_and_stays_between_its_ends(
    first: float, last: float, start: int, length: int, places: list[int]
) -> None:
    values = [at(Ramp(first, last), images, start, start + length) for images in sorted(places)]
    rounding = 1e-15 * max(first, last)
    low, high = min(first, last) - rounding, max(first, last) + rounding
    assert all(low <= value <= high for value in values)
    steps = [(after - before) * (last - first) for before, after in pairwise(values)]
    assert all(step >= -rounding * abs(last - first) for step in steps)


def small(**fields: Any) -> TrainState:
    config = resolve({**SMALL, "network": "dcgan", **fields})
    return TrainState.create(config, ImageSpec(16, 16, 1, ("across", "down", "blot")), CPU)


def test_extending_a_finished_run_starts_its_ramps_again_and_a_moved_end_moves_them() -> None:
    state, ramp = small(), Ramp(0.5, 0.05)

    def values(*places: int) -> list[float]:
        out = []
        for images in places:
            state.images_seen = images
            out.append(state.now(ramp))
        return out

    assert values(0, 24) == [0.5, 0.5]  # no end yet
    state.images_seen = 0
    plan_end(state, state.config.train)
    assert state.progress.ends == [48]
    assert values(0, 24, 48) == pytest.approx([0.5, 0.275, 0.05])
    plan_end(state, replace(state.config.train, images="96"))
    assert state.progress.ends == [48, 96]
    assert values(48, 72, 96) == pytest.approx([0.5, 0.275, 0.05])
    state.images_seen = 72
    plan_end(state, replace(state.config.train, images="144"))
    assert values(96) == pytest.approx([0.275])


def test_before_a_time_budget_fixes_its_end_a_state_has_none() -> None:
    state, ramp = small(r1="0.5..0.05"), Ramp(0.5, 0.05)
    train_for = Train(time="100s", batch=8)
    plan_end(state, train_for)
    state.images_seen, state.progress.clock = 160, 4.9
    plan_end(state, train_for)
    assert (state.end, state.now(ramp)) == (None, 0.5)
    state.progress.clock = 5.0
    plan_end(state, train_for)
    assert (state.end, state.progress.end_fixed_at) == (3200, 160)
    assert state.now(ramp) == at(ramp, 160, 0, 3200) < 0.5
    state.images_seen = 152
    assert (state.end, state.now(ramp)) == (None, 0.5)
    state.images_seen, state.progress.clock = 3200, 100.0
    plan_end(state, replace(train_for, time="200s"))
    assert (state.start, state.progress.end_fixed_at) == (3200, 160)


@pytest.mark.parametrize(
    ("fields", "share"),
    [
        ({}, 0.5),
        ({"anneal": 0.75}, 0.25),
        ({"anneal": 1.0}, 0.05),
        ({"anneal": 0.0}, 0.5),
        ({"anneal": 0.2}, 0.5),
        ({"g_betas": (0, "0.9..0.99")}, 0.05),
        ({"ema_half_life": "100..1000"}, 0.05),
    ],
)
def test_a_time_budgets_end_is_fixed_when_schedules_need_it_and_at_half_at_the_latest(
    fields: dict[str, Any], share: float
) -> None:
    """The later it is fixed, the better a machine whose speed varies keeps to the time."""
    state = small(images=None, time="100s", **fields)
    plan_end(state, state.config.train)
    state.images_seen = 1000 * 8
    state.progress.clock = 100 * share - 0.01
    plan_end(state, state.config.train)
    assert state.end is None
    state.progress.clock = 100 * share
    plan_end(state, state.config.train)
    assert state.end == pytest.approx(8000 / share, abs=8)
    state.images_seen += 8
    state.progress.clock += 50  # it stays as it is
    end = state.end
    plan_end(state, state.config.train)
    assert state.end == end


def test_a_finished_run_that_gets_far_more_time_keeps_its_first_end() -> None:
    """Its learning rates fell towards it, and a replay needs it."""
    state = small(images=None, time="10s")
    plan_end(state, state.config.train)
    state.images_seen, state.progress.clock = 800, 5.0
    plan_end(state, state.config.train)
    assert state.progress.ends == [1600]
    state.images_seen, state.progress.clock = 1600, 10.0
    plan_end(state, replace(state.config.train, time="1000s"))
    assert (state.progress.ends, state.progress.end_fixed_at) == ([1600, 160_000], 800)


def test_a_finished_run_that_gets_almost_no_more_time_makes_one_step() -> None:
    state = small(images=None, time="600s")
    plan_end(state, state.config.train)
    state.images_seen, state.progress.clock = 800, 300.0
    plan_end(state, state.config.train)
    state.images_seen, state.progress.clock = 1600, 599.9999
    plan_end(state, replace(state.config.train, time="10m"))
    assert state.progress.ends == [1600, 1608]
    assert snapshots_due(state) == 0


# --- the step ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize(("images", "gammas"), [(0, (0.5, 0.0)), (200, (0.275, 0.2)), (400, (0.05, 0.4))])
def test_gamma_of_a_linear_d_is_that_of_the_place_in_the_budget(
    images: int, gammas: tuple[float, float], every: int
) -> None:
    """R1 and R2 are gamma/2 |w|^2 each, and both together pull w by their gamma w."""
    w = torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64)
    D, G, rate, n = Linear(w.clone()), Linear(w.clone()), 0.1, 4
    loss = Loss(loss="wasserstein", r1=Ramp(0.5, 0.05), r2=Ramp(0.0, 0.4), penalty_every=every)
    config = Config(loss=loss, train=Train(batch=10))
    opt_g, opt_d = (torch.optim.SGD(net.parameters(), lr=rate, fused=True) for net in (G, D))
    state = TrainState(config, ImageSpec(1, 1, 3, ("a",)), G, D, G, opt_g, opt_d, objective(loss), torch.zeros(()))  # type: ignore[arg-type]
    state.images_seen, state.progress.ends = images, [400]
    labels = torch.zeros(n, dtype=torch.int64)
    real, fake = (Batch(torch.randn(n, 3, 1, 1, dtype=torch.float64), labels) for _ in range(2))
    terms = d_step(state, real, fake, GivenDraws())
    for name, gamma in zip(("r1", "r2"), gammas, strict=True):
        assert terms[name].item() == pytest.approx(every * gamma / 2 * w.square().sum().item(), rel=1e-12)
    slope = (fake.images - real.images).mean(0).flatten() + every * sum(gammas) * w
    torch.testing.assert_close(D.w.detach(), w - rate * slope, rtol=1e-12, atol=1e-12)


def test_a_ramp_from_or_to_0_is_a_term_of_every_step_where_it_is_due(shapes: Path, tmp_path: Path) -> None:
    run = train(shapes, out=tmp_path / "run", **SMALL, r1="0..0.2", r2="0.2..0", penalty_every=2)
    lines = read_ticks(run)
    assert len(lines) == 6
    assert [{"d_r1", "d_r2"} <= line.keys() for line in lines] == [True, False] * 3
    assert lines[0]["d_r1"] == 0
    assert lines[2]["d_r1"] > 0 < lines[0]["d_r2"]


@pytest.mark.parametrize("images", [0, 16, 24, 40])
def test_a_step_uses_the_value_of_each_schedule(images: int, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = small(**RAMPS)
    state.images_seen, state.progress.ends = images, [48]
    seen: list[float] = []
    shipped = draws_module.augment

    def augment(images: Tensor, policy: str, u: Tensor, p: float) -> Tensor:
        seen.append(p)
        return shipped(images, policy, u, p)

    monkeypatch.setattr(draws_module, "augment", augment)
    dataset = open_dataset(shapes, state.config.data, lambda *_: None)
    before = [parameter.clone() for parameter in state.ema.parameters()]
    with train_batches(state.config, dataset, CPU) as batches:
        train_batch(state, batches)
    done = (1 - math.cos(math.pi * images / 48)) / 2
    assert state.opt_g.param_groups[0]["betas"] == pytest.approx((0, 0.9 + 0.09 * done))
    assert state.opt_d.param_groups[0]["betas"] == pytest.approx((0.5 - 0.5 * done, 0.9))
    assert seen == pytest.approx([0.3 * done] * 3)  # both halves of D's update, and G's fakes
    decay = 0.5 ** (8 / (0.2 + 1.3 * done)) if images else 0.0  # below .05 of the images from the second step on
    for average, old, live in zip(state.ema.parameters(), before, state.G.parameters(), strict=True):
        torch.testing.assert_close(average, torch.lerp(old, live, 1 - decay))


def test_adam_corrects_by_the_beta_of_the_step_where_betas_move() -> None:
    """m, v with the betas of each step; divided by 1 - beta^t with that of step t, as `adam` says."""
    w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = adam([w], 0.1, (Ramp(0.5, 0.1), Ramp(0.9, 0.99)))
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.9)
    x, m, v = w.detach().clone(), torch.zeros_like(w), torch.zeros_like(w)
    for t in range(1, 6):
        b1, b2 = 0.5 - 0.08 * t, 0.9 + 0.018 * t
        optimizer.param_groups[0]["betas"] = (b1, b2)
        w.grad = torch.tensor([0.3 * t, math.sin(t)], dtype=torch.float64)
        m, v = b1 * m + (1 - b1) * w.grad, b2 * v + (1 - b2) * w.grad.square()
        x = x - 0.1 * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + 1e-8)
        optimizer.step()
    torch.testing.assert_close(w.detach(), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("moving", ["r1", "r2", "g_betas", "d_betas", "ema_half_life"])
def test_a_step_whose_numbers_move_is_not_recorded(moving: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph has gammas and betas as they were; the average is made beside it."""
    states = [small(), small(**{moving: RAMPS[moving]})]
    monkeypatch.setattr(TrainState, "device", torch.device("cuda"))
    assert [make_step(state) is eager_step for state in states] == [False, moving != "ema_half_life"]


@pytest.mark.slow
@pytest.mark.usefixtures("even_clock")
def test_a_step_before_a_time_budgets_end_was_fixed_is_rebuilt_exactly(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "steps_per_tick", lambda *_: 1)
    fields = {key: value for key, value in SMALL.items() if key != "images"}
    run = train(shapes, out=tmp_path / "run", **fields, time="3s", r1="50..0.5", live_images=0)
    first = int(checkpoint.checkpoints(run)[0].stem)
    fixed = load_tensors(checkpoint.checkpoints(run)[-1])[1]["progress"]["end_fixed_at"]
    assert 0 < fixed < first
    lines = {line["images_seen"]: line for line in read_ticks(run)}  # by the images at a step's end
    for images in (fixed - 8, fixed, first - 8):
        step = replay(run, at=images, out=tmp_path / str(images))
        assert step.checkpoint == "the start"
        assert step.terms == {name: lines[images + 8][name] for name in step.terms}


@pytest.mark.slow
@pytest.mark.usefixtures("even_clock")
def test_a_step_is_rebuilt_exactly_before_and_after_the_end_was_fixed(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rates fall from there on: earlier checkpoints do not know the end, and the steps after it need it."""
    monkeypatch.setattr(start, "steps_per_tick", lambda *_: 1)
    fields = {key: value for key, value in SMALL.items() if key != "images"}
    monkeypatch.setattr(budget, "SNAPSHOT_SHARE", 1.0)
    run = train(shapes, out=tmp_path / "run", **fields | dict(time="5s", snapshots=4, keep=9, live_images=0))
    saved = [load_tensors(path)[1] for path in checkpoint.checkpoints(run)]
    fixed, (end,), moves = (saved[-1]["progress"][key] for key in ("end_fixed_at", "ends", "moves"))
    first_end = moves[0][1] if moves else end  # a machine that slows down moves the end
    knew = [bool(meta["progress"]["ends"]) for meta in saved]
    assert knew[0] is False
    assert knew[-1] is True
    lines = {line["images_seen"]: line for line in read_ticks(run)}
    assert [lines[images]["end"] for images in (fixed - 8, fixed)] == [None, first_end]
    for images in (fixed - 8, fixed, fixed + 8):
        step = replay(run, at=images, out=tmp_path / str(images))
        assert step.terms == {name: lines[images + 8][name] for name in step.terms}
    assert lines[end]["finished"] is True


# --- how they are written ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("0.5..0.05", Ramp(0.5, 0.05)), (".5..5e-2", Ramp(0.5, 0.05)), ("1...5", Ramp(1, 0.5)), ("2..0", Ramp(2, 0)),
        ("0 .. 10", Ramp(0, 10)), ([0.5, 0.05], Ramp(0.5, 0.05)), (["5e-1", 0], Ramp(0.5, 0)),
        (Ramp(0.5, 0.05), Ramp(0.5, 0.05)), ("0.3", 0.3), ("0.3..0.3", 0.3), ([0, 0], 0.0), (3, 3.0),
    ],
)  # fmt: skip
def test_a_ramp_is_read_as_written(written: Any, read: Scheduled) -> None:
    for value in (written, yaml.safe_load(f"r1: {written}")["r1"] if isinstance(written, str) else written):
        found = resolve({"r1": value}).loss.r1
        assert (found, type(found)) == (read, type(read))


def test_a_config_with_ramps_is_the_same_after_json_and_a_file_without_the_fields_has_none() -> None:
    config = resolve(RAMPS)
    assert config.train.g_betas == (0.0, Ramp(0.9, 0.99))
    assert config.data.augment_p == Ramp(0, 0.3)
    assert config_of({"config": json.loads(json.dumps(asdict(config)))}) == config
    older = asdict(resolve({}))
    del older["data"]["augment_p"]
    assert config_of({"config": older}) == resolve({})
    assert not any(isinstance(value, Ramp) for value in resolve({}).flat().values())


def test_ramps_from_the_command_line_are_in_the_record_the_help_and_the_difference(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [part for key, value in SMALL.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    flags += ["--r1", "0.5..0.05", "--g-betas", "0", "0.9..0.99"]
    command = ("train", shapes, "--out", tmp_path / "run", *flags)
    status, _, err = call(monkeypatch, capsys, *command)
    assert status == 0, err
    record = load_json(tmp_path / "run" / "config.json")
    assert (record["config"]["loss"]["r1"], record["config"]["train"]["g_betas"]) == ([0.5, 0.05], [0, [0.9, 0.99]])
    assert load(tmp_path / "run").config.loss.r1 == Ramp(0.5, 0.05)
    assert "finished at 48 images" in call(monkeypatch, capsys, *command)[1]
    _, _, err = call(monkeypatch, capsys, *command[:-5], "--r1", "0.5..0.01", "--g-betas", "0", "0.9..0.95")
    for fact in ("r1", "0.5..0.05", "0.5..0.01", "g_betas", "(0.0, 0.9..0.99)", "(0.0, 0.9..0.95)"):
        assert fact in err
    assert all("A..B" in HELP[key] for key, hint in TYPES.items() if Ramp in get_args(hint) or "betas" in key)
    assert f"{Ramp(44e3, 1e3):g}" == "44000..1000"


@pytest.mark.parametrize(
    ("given", "code", "facts"),
    [
        ({"r1": "0.5..-1"}, "value-out-of-range", ["r1", "from 0 to 1,000,000,000", "0.5..-1.0"]),
        ({"r1": "-1..0.5"}, "value-out-of-range", ["r1", "-1.0..0.5"]),
        ({"r1": "0..inf"}, "value-out-of-range", ["r1", "0.0..inf"]),
        ({"r2": "nan..1"}, "value-out-of-range", ["r2", "nan..1.0"]),
        ({"r1": "0.5.."}, "value-invalid", ["r1", "a number or A..B", "'0.5..'"]),
        ({"r1": "x"}, "value-invalid", ["r1: expected a number or A..B, got 'x'"]),
        ({"r1": "1..2..3"}, "value-invalid", ["r1", "'1..2..3'"]),
        ({"r1": "0.5:0.05"}, "value-invalid", ["r1", "a number or A..B", "'0.5:0.05'"]),
        ({"r1": [1]}, "value-invalid", ["r1", "[1]"]),
        ({"r1": [1, 2, 3]}, "value-invalid", ["r1", "[1, 2, 3]"]),
        ({"r1": [True, 2]}, "value-invalid", ["r1", "[True, 2]"]),
        ({"g_betas": "0..0.9"}, "value-invalid", ["g_betas", "two values, each a number or A..B", "'0..0.9'"]),
        ({"g_betas": [0, "0.9..x"]}, "value-invalid", ["g_betas", "[0, '0.9..x']"]),
        ({"g_betas": [0, "0.9..1"]}, "value-out-of-range", ["g_betas", "from 0 to 0.999999", "(0.0, 0.9..1.0)"]),
        ({"d_betas": ["1..0", 0.9]}, "value-out-of-range", ["d_betas", "(1.0..0.0, 0.9)"]),
        ({"ema_half_life": "1..-1"}, "value-out-of-range", ["ema_half_life", "1.0..-1.0"]),
        ({"g_lr": "1e-3..1e-4"}, "value-invalid", ["g_lr", "a number", "'1e-3..1e-4'"]),
        ({"g_lr": [1e-3, 1e-4]}, "value-invalid", ["g_lr", "[0.001, 0.0001]"]),
        ({"augment_p": "0..1.1", "augment": "diffaugment"}, "value-out-of-range", ["augment_p", "0.0..1.1", "0 to 1"]),
        ({"augment_p": 0.5}, "options-conflict", ["augment_p", 0.5, "augment none", "--augment diffaugment"]),
        ({"augment_p": "0..0.5", "augment": "ada"}, "options-conflict", ["augment_p", "0.0..0.5", "augment ada"]),
        ({"augment_p": 0.5, "augment": "gentle"}, "options-conflict", ["augment_p", 0.5, "augment gentle"]),
        (
            {"d_norm": "batch", "loss": "hinge", "r1": "0..0.1", "r2": 0},
            "options-conflict",
            ["d_norm batch", "r1 0.0..0.1", "--d-norm none"],
        ),
    ],
)
def test_a_ramp_that_is_not_valid_is_refused(given: dict[str, Any], code: str, facts: list[object]) -> None:
    with raises(code, *facts):
        resolve(given)
