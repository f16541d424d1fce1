"""A loss file trains as exactly as a built-in loss, runs only if it is passed, and its errors are one line each."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import ptarmigan.training.loop as training
import support
from conftest import SMALL
from ptarmigan import info, load, replay
from ptarmigan.commands.compare import RunRecord, config_choices
from ptarmigan.config import Config, Data, resolve
from ptarmigan.core import dist, seeding
from ptarmigan.core.log import read_log
from ptarmigan.core.tensor_files import load_tensors
from ptarmigan.core.types import Batch, ImageSpec
from ptarmigan.data import open_dataset
from ptarmigan.game.batch import generate_fakes, sample_indices, train_batch
from ptarmigan.game.draws import Draws
from ptarmigan.game.micro_batch import slices
from ptarmigan.game.state import TrainState
from ptarmigan.game.step import d_step, g_step
from ptarmigan.losses import custom
from ptarmigan.losses.custom import LossFile, open_loss
from ptarmigan.networks.layers import power_iteration
from ptarmigan.training import checkpoint, probe
from ptarmigan.training.loop import train
from ptarmigan.training.probe import report_out_of_memory, smaller_micro_batch
from ptarmigan.training.setup import train_batches
from ptarmigan.training.signals import Stopped
from support import GivenDraws, interrupt_at, raises, read_ticks

LECAM = Path(__file__).parent.parent / "examples" / "lecam.py"
CPU, F64 = torch.device("cpu"), torch.float64
LONG = {**SMALL, "images": "96", "snapshots": 4, "keep": 10}
FLAGS = [part for key, value in SMALL.items() for part in (f"--{key.replace('_', '-')}", str(value))]
LABELS, ASKED = torch.tensor([0, 1, 2, 2, 1, 0, 1]), torch.tensor([1, 2, 0, 1, 2, 2, 0])

# All that a file may hold, in the losses of both players: an objective of its own, calls of D, draws, averages.
RICH = """
from __future__ import annotations

from dataclasses import dataclass

import torch
from ptarmigan.losses import Objective


@dataclass
class Weights:
    far: float = .3


OBJECTIVE = Objective(lambda real, fake: (1 - real).relu() + (1 + fake).relu(), lambda fake: -fake)
AVERAGES = {"gap": .5, "seen": .9}


def observe(ctx):
    return {"gap": ctx.r.logits.mean() - ctx.f.logits.mean(), "seen": ctx.fake_aug.square().mean()}


def terms(ctx):
    u = ctx.uniforms("noise", ctx.real[0].numel()).view_as(ctx.real)
    y, images = (ctx.real_labels, ctx.real) if ctx.player == "d" else (ctx.fake_labels, ctx.fake)
    answer = (ctx.r or ctx.f).logits if ctx.player == "d" else ctx.f.logits
    try:
        again = ctx.D(images + u / 10, y).logits
    except Exception:  # a file may do so
        again = answer
    consistent = (again - answer).square()
    return {"same": Weights().far * consistent, "steered": ctx.averages["gap"] * ctx.f.logits.sin()}
"""


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """How fast a step is is nothing to these tests."""
    monkeypatch.setattr(probe, "PROBE_SECONDS", 0.0)


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def state_of(path: Path, **fields: Any) -> TrainState:
    """In float64, of width 4, its spectral norms settled."""
    given = {"width": 4, "batch": 7, "latent_dim": 6, "class_dim": 4, "images": "1M", "g_lr": 0, "d_lr": 0, **fields}
    config, file = open_loss(resolve({**given, "loss": str(path)}))
    state = TrainState.create(config, ImageSpec(16, 16, 1, ("a", "b", "c")), CPU, loss_file=file)
    state.G.double()
    state.D.double()
    state.device_scalars = {name: value.double() for name, value in state.device_scalars.items()}
    for _ in range(500):
        power_iteration(state.D)
    return state


def batches() -> tuple[Batch, Tensor]:
    draw = torch.Generator().manual_seed(3)
    real = torch.randn((7, 1, 16, 16), generator=draw, dtype=torch.float64).tanh()
    return Batch(real, LABELS), torch.randn((7, 6), generator=draw, dtype=torch.float64)


def play(state: TrainState, steps: int = 1) -> dict[str, Tensor]:
    """Steps of both players on one batch; returns the terms of the last, and the gradients."""
    real, z = batches()

    draws, out = replace(Draws.of_d(state, sample_indices(state)), z=z), {}
    for _ in range(steps):
        fake = generate_fakes(state, ASKED, z)
        out = {f"d_{name}": value for name, value in d_step(state, real, fake, draws).items()}
        out |= {f"g_{name}": value for name, value in g_step(state, real, fake, draws).items()}
    assert not state.found_inf
    for player, network in (("D", state.D), ("G", state.G)):
        out |= {f"{player}.{n}": p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    return out


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


# --- LeCam, the example -----------------------------------------------------------------------------------------


def test_lecam_is_its_formula_with_the_averages_of_the_step_before() -> None:
    """Value, gradient and averages by hand, for two steps whose averages are other ones."""
    state = state_of(LECAM, r1=0, r2=0)
    state.device_scalars = {"real": torch.tensor(0.4, dtype=F64), "fake": torch.tensor(-0.3, dtype=F64)}
    real, z = batches()
    fake = Batch(state.G(z, ASKED).detach(), ASKED)
    a_real, a_fake = 0.4, -0.3
    for _ in range(2):
        r, f = state.D(real.images, LABELS).logits, state.D(fake.images, ASKED).logits
        lecam = 0.01 * ((r - a_fake) ** 2).mean() + 0.01 * ((f - a_real) ** 2).mean()
        wanted = torch.autograd.grad((1 - r).relu().mean() + (1 + f).relu().mean() + lecam, list(state.D.parameters()))
        got = d_step(state, real, fake, GivenDraws())
        assert got.keys() == {"adv", "lecam", "grad"}
        assert got["lecam"].item() == pytest.approx(lecam.item(), rel=1e-12)
        for parameter, gradient in zip(state.D.parameters(), wanted, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-14)
        assert g_step(state, real, Batch(state.G(z, ASKED), ASKED), GivenDraws()).keys() == {"adv", "grad"}
        a_real, a_fake = 0.99 * a_real + 0.01 * r.mean().item(), 0.99 * a_fake + 0.01 * f.mean().item()
        assert state.device_scalars["real"].item() == pytest.approx(a_real, rel=1e-12)
        assert state.device_scalars["fake"].item() == pytest.approx(a_fake, rel=1e-12)
    assert abs(r.mean().item() - f.mean().item()) > 1e-3  # the two are told apart


def test_averages_begin_at_0_and_move_after_each_update_of_d(shapes: Path, tmp_path: Path) -> None:
    """Two updates of D a step: the second, which is logged, has what the first has left."""
    path = write(
        tmp_path,
        "OBJECTIVE = 'hinge'\nAVERAGES = {'count': .5}\n"
        "def observe(ctx):\n    return {'count': ctx.averages['count'] * 0 + 1}\n"
        "def terms(ctx):\n    return {'count': ctx.averages['count'] + 0 * ctx.f.logits}\n",
    )
    run = train(shapes, out=tmp_path / "run", **LONG, loss=str(path), d_steps=2)
    counts = [(line["d_count"], line["g_count"]) for line in read_ticks(run)]
    assert counts[:2] == [(0.5, 0.75), (0.875, 0.9375)]
    tensors, _ = load_tensors(checkpoint.checkpoints(run)[0])
    assert tensors["device_scalars.count"].shape == ()


@pytest.mark.parametrize("rich", [False, True])
def test_stopped_and_resumed_is_the_same_run_bit_for_bit(
    rich: bool, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, RICH) if rich else LECAM
    fields = {**SMALL, "loss": str(path), "augment": "ada" if rich else "none"}
    train(shapes, out=tmp_path / "whole", **fields)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 16)
        with pytest.raises(Stopped):
            train(shapes, out=tmp_path / "parts", **fields)
    train(shapes, out=tmp_path / "parts", **fields)
    whole, parts = (load_tensors(checkpoint.checkpoints(tmp_path / run)[-1])[0] for run in ("whole", "parts"))
    assert whole.keys() == parts.keys() > {"device_scalars.gap" if rich else "device_scalars.real"}
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert whole["device_scalars.gap" if rich else "device_scalars.real"] != 0
    file = "generator/model.safetensors"
    assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes()


@pytest.mark.parametrize("rich", [False, True])
@pytest.mark.parametrize("recipe", ["auto", "dcgan"])
def test_a_step_is_replayed_to_the_last_bit(rich: bool, recipe: str, shapes: Path, tmp_path: Path) -> None:
    path = write(tmp_path, RICH) if rich else LECAM
    run = train(shapes, out=tmp_path / "run", **LONG, recipe=recipe, loss=str(path))
    (line,) = [line for line in read_log(run / "metrics.jsonl") if line["images_seen"] == 64]
    step = replay(run, at=56, loss=path)
    assert step.checkpoint == "000000048.safetensors"
    assert step.terms == {name: line[name] for name in step.terms}
    assert {"d_same", "g_same", "d_steered", "g_steered"} <= line.keys() if rich else {"d_lecam"} <= line.keys()
    for update, halves in (("D", {"real", "fake"}), ("G", {"fake"})):
        through = {call.images for call in step.calls if (call.update, call.layer) == (update, "D")}
        assert through == halves | ({"own"} if rich else set())
    assert step.not_finite is None


def test_a_run_that_goes_back_goes_on_with_the_file(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped, times = training.train_batch, [0]

    def failing(state: Any, given: Any, *play: Any) -> Any:
        if state.progress.tick and state.images_seen == 40 and not times[0]:
            times[0] = 1
            state.found_inf.fill_(1)
        return shipped(state, given, *play)

    monkeypatch.setattr(training, "train_batch", failing)
    run = train(shapes, out=tmp_path / "run", **LONG, loss=str(LECAM))
    lines = list(read_log(run / "metrics.jsonl"))
    assert any(line.get("retry") == 1 for line in lines)
    assert "d_lecam" in read_ticks(run)[-1]
    assert load_tensors(checkpoint.checkpoints(run)[-1])[0]["device_scalars.real"] != 0


def weights(run: Path) -> dict[str, Tensor]:
    tensors, _ = load_tensors(checkpoint.checkpoints(run)[-1])
    return {key: value for key, value in tensors.items() if not key.startswith("device_scalars.")}


def test_with_weight_0_a_run_is_that_without_a_file_to_the_last_bit(shapes: Path, tmp_path: Path) -> None:
    off = write(tmp_path, LECAM.read_text().replace("WEIGHT = 0.01", "WEIGHT = 0.0"))
    runs = {"none": "hinge", "off": str(off), "on": str(LECAM)}
    found = {name: weights(train(shapes, out=tmp_path / name, **SMALL, loss=loss)) for name, loss in runs.items()}
    assert found["none"].keys() == found["off"].keys()
    assert all(torch.equal(found["none"][key], found["off"][key]) for key in found["none"])
    assert not torch.equal(found["on"]["D.head.source.weight"], found["off"]["D.head.source.weight"])


def test_an_objective_of_ones_own_is_the_built_in_one_of_its_formula(shapes: Path, tmp_path: Path) -> None:
    text = (
        "from ptarmigan.losses import Objective, relativistic_d, relativistic_g\n"
        "OBJECTIVE = Objective(relativistic_d, relativistic_g, relativistic=True, equilibrium_logit=None)\n"
    )
    one = weights(train(shapes, out=tmp_path / "own", **SMALL, loss=str(write(tmp_path, text)), augment="ada"))
    other = weights(train(shapes, out=tmp_path / "shipped", **SMALL, loss="relativistic", augment="ada"))
    assert all(torch.equal(one[key], other[key]) for key in one)


# --- parts, ranks, draws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rich", [False, True])
def test_micro_batches_give_the_values_gradients_and_averages_of_the_whole(rich: bool, tmp_path: Path) -> None:
    path = write(tmp_path, RICH) if rich else LECAM
    whole, parts = (state_of(path, network="r3gan") for _ in range(2))
    parts.micro_batch = 3
    same(play(whole, steps=3), play(parts, steps=3))
    same(whole.device_scalars, parts.device_scalars)
    assert all(value.abs() > 1e-6 for value in whole.device_scalars.values())


def test_what_ranks_observe_is_averaged_over_them(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = state_of(LECAM)
    play(whole)

    def as_if_the_other_rank_had_zeros(tensors: list[Tensor]) -> None:
        for tensor in tensors:
            tensor.div_(2)

    monkeypatch.setattr(dist, "average_", as_if_the_other_rank_had_zeros)
    halved = state_of(LECAM)
    play(halved)
    for name, value in whole.device_scalars.items():
        assert halved.device_scalars[name].item() == pytest.approx(value.item() / 2, rel=1e-9)


def test_terms_of_a_whole_batch_refuse_parts_and_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "OBJECTIVE = 'hinge'\nWHOLE_BATCH = True\n")
    with raises("options-conflict", "micro_batch", path, "WHOLE_BATCH"):
        open_loss(resolve({"loss": str(path), "micro_batch": 4}))
    assert smaller_micro_batch(state_of(path)) == 0
    assert smaller_micro_batch(state_of(LECAM)) == 3
    with raises("out-of-memory", "--batch"), report_out_of_memory(state_of(path)):
        raise MemoryError
    monkeypatch.setattr(dist, "world", lambda: 2)
    monkeypatch.setattr(dist, "on_first", lambda action: action())
    with raises("options-conflict", path, "2 ranks"):
        open_loss(resolve({"loss": str(path)}))


def test_memory_that_runs_out_in_the_file_is_no_fault_of_the_file(tmp_path: Path) -> None:
    for error in ("MemoryError()", 'RuntimeError("DefaultCPUAllocator: can\'t allocate memory")'):
        path = write(tmp_path, f"OBJECTIVE = 'hinge'\ndef terms(ctx):\n    raise {error}\n")
        state = state_of(path)
        with raises("out-of-memory", "--micro-batch 3"), report_out_of_memory(state):
            play(state)


def test_draws_are_each_samples_own_and_inside_the_open_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of(LECAM)
    draws = Draws.of_d(state, sample_indices(state))
    whole = draws.uniforms("noise", 5)
    assert (whole.shape, whole.dtype) == ((7, 5), torch.float32)
    torch.testing.assert_close(
        torch.cat([draws[part].uniforms("noise", 5) for part in slices(7, 3)]), whole, rtol=0, atol=0
    )
    state.images_seen = 3  # sample 3 of before is sample 0 now
    later = Draws.of_d(state, sample_indices(state)).uniforms("noise", 5)
    torch.testing.assert_close(later[:4], whole[3:], rtol=0, atol=0)
    state.images_seen = 0
    for other in (draws.for_g().uniforms("noise", 5), draws.uniforms("other", 5)):
        assert not torch.isclose(other, whole).any()
    edge = torch.full((7, 5), 1 - 2.0**-53, dtype=torch.float64)
    monkeypatch.setattr(seeding, "uniforms", lambda *_: edge)
    assert edge.float().max() == 1
    assert draws.uniforms("noise", 5).max() < 1


def test_each_update_of_d_and_g_has_draws_of_its_own(shapes: Path, tmp_path: Path) -> None:
    """The draws of a step, and those of another, as terms in the log."""
    text = "OBJECTIVE = 'hinge'\ndef terms(ctx):\n    return {'u': ctx.uniforms('a', 1)[:, 0]}\n"
    path = write(tmp_path, text)
    config, file = open_loss(resolve({**SMALL, "loss": str(path), "d_steps": 2, "batch": 8}))
    dataset = open_dataset(shapes, Data(split="none"))
    found: list[float] = []
    state = TrainState.create(config, dataset.spec, CPU, loss_file=file)
    assert file is not None
    shipped = file.terms

    def noting(ctx: custom.Context) -> dict[str, Tensor]:
        out = shipped(ctx)
        found.append(out["u"].mean().item())
        return out

    object.__setattr__(file, "terms", noting)
    with train_batches(config, dataset, CPU) as given:
        for _ in range(2):
            terms = train_batch(state, given)
    assert len(set(found)) == len(found) == 2 * 3
    assert [terms["d_u"].item(), terms["g_u"].item()] == pytest.approx(found[-2:], rel=1e-6)


def test_what_a_file_does_to_the_averages_it_is_given_changes_nothing(tmp_path: Path) -> None:
    text = RICH.replace("def terms(ctx):\n", "def terms(ctx):\n    ctx.averages['gap'].add_(5)\n")
    state = state_of(write(tmp_path, text))
    play(state)
    meddled = state.device_scalars["gap"].item()
    state = state_of(write(tmp_path, RICH))
    play(state)
    assert state.device_scalars["gap"].item() == pytest.approx(meddled, rel=1e-12)


@pytest.mark.parametrize("relativistic", [False, True])
def test_the_context_is_what_the_step_has(relativistic: bool, tmp_path: Path) -> None:
    state = state_of(write(tmp_path, f"OBJECTIVE = '{'relativistic' if relativistic else 'hinge'}'\n"))
    state.images_seen = 70
    seen: list[custom.Context] = []
    assert state.loss_file is not None
    object.__setattr__(state.loss_file, "terms", lambda ctx: seen.append(ctx) or {})
    real, z = batches()
    fake = Batch(state.G(z, ASKED), ASKED)

    def augment(images: Tensor, half: str, part: slice) -> Tensor:
        return images * (2 if half == "real" else 3)

    expected = state.D(2 * real.images, LABELS).logits, state.D(3 * fake.images, ASKED).logits
    d_step(state, real, fake, GivenDraws(change=augment))
    g_step(state, real, fake, GivenDraws(change=augment))
    d, g = seen
    for ctx, player in ((d, "d"), (g, "g")):
        assert (ctx.player, ctx.images_seen) == (player, 70)
        assert torch.equal(ctx.real_labels, LABELS)
        assert torch.equal(ctx.fake_labels, ASKED)
        assert torch.equal(ctx.real, real.images)
        assert torch.equal(ctx.fake, fake.images)
        assert torch.equal(ctx.fake_aug, 3 * fake.images)
        torch.testing.assert_close(ctx.f.logits, expected[1], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(ctx.D(3 * fake.images, ASKED).logits, expected[1], rtol=1e-9, atol=1e-12)
        if player == "d" or relativistic:
            assert ctx.r is not None
            assert ctx.real_aug is not None
            assert torch.equal(ctx.real_aug, 2 * real.images)
            torch.testing.assert_close(ctx.r.logits, expected[0], rtol=1e-9, atol=1e-12)
            assert ctx.r.logits.requires_grad == (player == "d")
        else:
            assert ctx.r is ctx.real_aug is None
    with pytest.raises(AttributeError):
        d.player = "g"  # type: ignore[misc]
    with pytest.raises(TypeError):
        d.averages["a"] = torch.zeros(())  # type: ignore[index]


# --- records ----------------------------------------------------------------------------------------------------


def test_the_file_is_held_by_name_and_hash_and_never_run_again_unasked(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the run the file becomes a trap: all that reads the run goes on without it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    folder = tmp_path / "secret"
    folder.mkdir()
    path, trap = write(folder, LECAM.read_text()), tmp_path / "run was run"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    run = train(shapes, out=tmp_path / "run", **SMALL, loss=str(path))
    assert [entry.name for entry in folder.iterdir()] == ["mine.py"]  # no bytecode beside it
    assert not any("mine" in name or "loss file" in name for name in sys.modules)
    _, meta = load_tensors(run / "generator" / "model.safetensors")
    record = load_tensors(checkpoint.checkpoints(run)[-1])[1]["record"]
    for found in (meta, record, json.loads((run / "config.json").read_text())):
        assert found["loss_sha256"] == sha256
        assert found["config"]["loss"]["loss"] == "mine.py"
    assert "secret" not in "".join(file.read_text() for file in (run / "generator").glob("*.[jm]*"))

    write(folder, f"open({str(trap)!r}, 'w')\n")
    assert info(run)["loss"] == "mine.py"
    load(run).sample("blot", n=2)
    RunRecord.open(run)
    with raises("loss-file-missing", run, "mine.py", sha256[:12], "--loss FILE"):
        replay(run, at=40)
    with raises("loss-file-mismatch", path, run, sha256[:12]):
        replay(run, at=40, loss=path)
    with raises("run-differs", f"loss is mine.py (SHA-256 {sha256[:12]}) in the run, non_saturating now", "--loss"):
        train(shapes, out=run, **SMALL)
    train(shapes, out=tmp_path / "tuned", init=run, **SMALL)
    assert not trap.exists()

    other = write(tmp_path, LECAM.read_text() + "# changed\n")
    with raises("run-differs", f"loss is mine.py (SHA-256 {sha256[:12]}) in the run, mine.py (SHA-256 "):
        train(shapes, out=run, **SMALL, loss=str(other))
    with raises("loss-file-mismatch", "hinge"):
        replay(train(shapes, out=tmp_path / "plain", **SMALL, loss="hinge"), at=40, loss=other)
    elsewhere = write(tmp_path, LECAM.read_text())
    train(shapes, out=run, **{**SMALL, "images": "64"}, loss=str(elsewhere))  # its place is nothing to it
    assert checkpoint.checkpoints(run)[-1].stem == "000000064"


def test_a_record_without_the_hash_gives_no_file_leave(shapes: Path, tmp_path: Path) -> None:
    with raises("loss-file-mismatch", LECAM):
        custom.reopen(LECAM, resolve({"loss": "mine.py"}), None, tmp_path)


def test_runs_of_two_files_of_one_name_are_two_groups(shapes: Path, tmp_path: Path) -> None:
    found = []
    for name, tail in (("a", ""), ("b", "# other\n")):
        (tmp_path / name).mkdir()
        path = write(tmp_path / name, LECAM.read_text() + tail)
        found.append(
            config_choices(RunRecord.open(train(shapes, out=tmp_path / f"run {name}", **SMALL, loss=str(path))))
        )
    assert {key for key in found[0] if found[0][key] != found[1][key]} == {"loss"}


# --- the command line -------------------------------------------------------------------------------------------

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return partial(support.call, monkeypatch, capsys)


def test_from_the_command_line(call: Call, shapes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    status, out, _ = call("train", shapes, "--out", run, *FLAGS, "--loss", LECAM)
    assert status == 0
    assert "recipe auto: lecam.py loss" in out
    assert "d_lecam" in out
    status, out, _ = call("info", run)
    assert (status, "lecam.py" in out) == (0, True)
    assert call("sample", run, "-n", 1, "--out", tmp_path / "x.png")[0] == 0
    assert "is finished" in call("train", shapes, "--out", run, *FLAGS, "--loss", LECAM)[1]
    for arguments in (("train", shapes, "--out", run, *FLAGS), ("replay", run, "--at", 8)):
        status, _, err = call(*arguments)
        assert (status, err.count("\n")) == (2, 1)
        assert "lecam.py" in err
        assert "--loss" in err
    status, out, _ = call("replay", run, "--at", 8, "--loss", LECAM)
    assert (status, "d_lecam" in out) == (0, True)
    assert "--loss FILE.py" in call("losses")[1]


def test_in_a_yaml_file(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(json.dumps({"loss": {"loss": str(LECAM), "r1": 0}}))
    run = train(shapes, config=tmp_path / "run.yaml", out=tmp_path / "run", **SMALL)
    assert "d_lecam" in next(iter(read_log(run / "metrics.jsonl")))


H = "OBJECTIVE = 'hinge'\n"
A = H + "AVERAGES = {'a': .5}\n"
FAULTS = {  # a file -> facts that the error names
    "missing": (None, "{path}"),
    "empty": ("", "OBJECTIVE"),
    "no objective": ("OBJECTIVE = 3", "OBJECTIVE"),
    "class": ("from ptarmigan.losses import Objective as OBJECTIVE", "OBJECTIVE"),
    "unknown": ("OBJECTIVE = 'hinj'", "OBJECTIVE", "'hinj'", "'hinge'"),
    "syntax": ("x = 1\ndef (:", "{path}, line 2: SyntaxError"),
    "import": ("\nimport no_such_module", "{path}, line 2: ModuleNotFoundError", "'no_such_module'"),
    "raises": ("def f():\n    return 1 / 0\nf()", "{path}, line 2: ZeroDivisionError: division by zero"),
    "leaves": ("import sys\nsys.exit()", "{path}, line 2: SystemExit"),
    "null": ("\0", "{path}"),
    "terms no function": (H + "terms = 3", "terms", "int"),
    "terms raises": (H + "def terms(ctx):\n    return ctx.nothing", "{path}, line 3, in terms: AttributeError"),
    "below": (H + "def terms(ctx):\n    return ctx.f.logits.view(3)", "{path}, line 3, in terms: RuntimeError"),
    "in place": (H + "def terms(ctx): return {'a': ctx.f.logits.exp().mul_(2)}", "{path}", "gradient computation"),
    "terms of none": (H + "def terms(): return {}", "{path}, in terms: TypeError"),
    "no dict": (H + "def terms(ctx): return ctx.f.logits", "terms", "Tensor"),
    "mean": (H + "def terms(ctx): return {'a': ctx.f.logits.mean()}", "'a'", "float32 [] on cpu", "tensor [8] on cpu"),
    "shape": (H + "def terms(ctx): return {'a': ctx.fake}", "'a' is float32 [8, 1, 16, 16] on cpu"),
    "no tensor": (H + "def terms(ctx): return {'a': .5}", "'a' is a float"),
    "whole numbers": (H + "def terms(ctx): return {'a': ctx.real_labels}", "'a' is int64 [8] on cpu"),
    "device": (H + "def terms(ctx): return {'a': ctx.f.logits.to('meta')}", "'a' is float32 [8] on meta"),
    **{f"taken {name}": (H + f"def terms(ctx): return {{'{name}': ctx.f.logits}}", f"'{name}'", "term")
       for name in ("adv", "class", "r1", "r2", "gp", "grad", "signs", "a b", "")},
    "names change": (H + "def terms(ctx): return {f'a{ctx.images_seen % 16}': ctx.f.logits}", "['a8']", "['a0']"),
    "d mean": ("from ptarmigan.losses import *\nOBJECTIVE = Objective(lambda real, fake: real.mean(), hinge_g)",
               "OBJECTIVE.d is float32 [] on cpu"),
    "g mean": ("from ptarmigan.losses import *\nOBJECTIVE = Objective(hinge_d, lambda fake: -fake.mean())",
               "OBJECTIVE.g is float32 [] on cpu"),
    "d raises": ("from ptarmigan.losses import *\nOBJECTIVE = Objective(lambda real, fake: 1 / 0, hinge_g)",
                 "{path}, line 2, in OBJECTIVE.d: ZeroDivisionError"),
    "d names": ("from ptarmigan.losses import *\nOBJECTIVE = Objective(lambda r, f: f - r, hinge_g)",
                "{path}, in OBJECTIVE.d: TypeError"),
    "averages": (H + "AVERAGES = ['a']\ndef observe(ctx): return {}", "AVERAGES", "list"),
    "no observe": (A, "AVERAGES", "observe(ctx)"),
    "no averages": (H + "def observe(ctx): return {}", "observe", "AVERAGES = {{name: decay}}"),
    "decay": (H + "AVERAGES = {'a': 1}\ndef observe(ctx): return {}", "decay of a", "got 1"),
    "decay text": (H + "AVERAGES = {'a': '.9'}\ndef observe(ctx): return {}", "decay of a", "got '.9'"),
    "average taken": (H + "AVERAGES = {'augment_p': .9}\ndef observe(ctx): return {}", "'augment_p'", "average"),
    "observes nothing": (A + "def observe(ctx): return {}", "observe", "[]", "['a']"),
    "observes no dict": (A + "def observe(ctx): return 3", "observe", "int"),
    "observes [N]": (A + "def observe(ctx): return {'a': ctx.f.logits}", "float32 [8] on cpu for 'a'"),
    "observes a float": (A + "def observe(ctx): return {'a': 1.0}", "a float for 'a'"),
    "observe raises": (A + "def observe(ctx):\n    raise ValueError('so\\nit is')", "in observe: ValueError: so it is"),
    "read only": (A + "def observe(ctx):\n    ctx.averages['a'] = 0", "{path}, line 4, in observe: TypeError"),
    "whole": (H + "WHOLE_BATCH = 'yes'", "WHOLE_BATCH", "'yes'"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_of_the_file_is_one_line_that_names_it(case: str, call: Call, shapes: Path, tmp_path: Path) -> None:
    text, *facts = FAULTS[case]
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    status, out, err = call("train", shapes, "--out", tmp_path / "run", *FLAGS, "--loss", path)
    assert status == 2, out
    assert err.startswith("ptarmigan: loss: ")
    assert str(path) in err
    assert err.count("\n") == 1, err
    assert all(fact.format(path=path) in err for fact in facts), err
    assert err.rstrip().endswith(("[loss-file-invalid]", "[loss-file-failed]", "[file-unreadable]"))
    assert "Traceback" not in out + err
    assert not (tmp_path / "run" / "checkpoints").exists() or case == "names change"


def test_an_error_with_words_of_its_own_keeps_them(tmp_path: Path) -> None:
    """As RankLost, which D's batch norm may raise within the file's call of it."""
    text = "from ptarmigan import UserError\nOBJECTIVE = 'hinge'\ndef terms(ctx):\n    raise UserError('so it is')\n"
    with raises("user-error", "so it is"):
        play(state_of(write(tmp_path, text)))


def test_a_file_that_is_no_text(call: Call, shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_bytes(b"\xff\xfe")
    assert "[loss-file-invalid]" in call("train", shapes, "--loss", tmp_path / "mine.py")[2]
    (tmp_path / "mine.py").write_bytes(b"\xef\xbb\xbfOBJECTIVE = 'hinge'\r\n")  # as some editors write it
    assert LossFile.open(tmp_path / "mine.py").objective.relativistic is False


def test_the_order_of_terms_is_that_of_the_first_step(tmp_path: Path) -> None:
    text = (
        "OBJECTIVE = 'hinge'\ndef terms(ctx):\n    out = {'a': ctx.f.logits, 'b': ctx.f.logits}\n"
        "    return out if ctx.images_seen else dict(reversed(out.items()))\n"
    )
    state = state_of(write(tmp_path, text))
    first = list(play(state))
    state.images_seen = 7
    assert list(play(state)) == first
    assert first.index("d_b") < first.index("d_a")


@pytest.mark.parametrize(
    ("fields", "fact"),
    [({"smoothing": 0.9}, "smoothing"), ({"d_norm": "batch", "r1": 0, "r2": 0}, "d_norm batch")],
)
def test_what_does_not_go_with_a_file_is_refused(fields: dict[str, Any], fact: str, tmp_path: Path) -> None:
    path = write(tmp_path, "OBJECTIVE = 'relativistic'")
    with raises("options-conflict", fact):
        open_loss(resolve({"loss": str(path), **fields}))
    config, file = open_loss(Config())
    assert (config, file) == (Config(), None)
