"""Augmentation in the shipped steps: whom it touches, ADA's p, and a run that stops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import ptarmigan.game.augment as augment_module
import ptarmigan.game.batch as batch_module
from conftest import SMALL
from ptarmigan import load, replay
from ptarmigan.config import Config, Data, Loss, resolve
from ptarmigan.core import dist, seeding
from ptarmigan.core.log import read_log
from ptarmigan.core.tensor_files import load_tensors
from ptarmigan.core.types import Batch, DiscriminatorOutput, ImageSpec
from ptarmigan.data.batches import Batches, on_white
from ptarmigan.game.augment import (
    CAP,
    DRAWS,
    INTERVAL,
    POLICIES,
    adapt,
    augment,
)
from ptarmigan.game.batch import sample_indices, steer_ada, train_batch
from ptarmigan.game.draws import Draws
from ptarmigan.game.optim import adam
from ptarmigan.game.state import TrainState
from ptarmigan.game.step import d_step, g_step
from ptarmigan.losses.adversarial import OBJECTIVES, objective
from ptarmigan.losses.conditioning import Head
from ptarmigan.training import checkpoint
from ptarmigan.training.loop import train
from ptarmigan.training.signals import Stopped
from support import GivenDraws, interrupt_at
from test_augment import numbers

RED, CYAN = [0.6, -0.3, -0.3], [-0.6, 0.3, 0.3]


class Colour(nn.Module):
    def __init__(self, colour: list[float]) -> None:
        super().__init__()
        self.colour = nn.Parameter(torch.tensor(colour, dtype=torch.float64))

    def forward(self, count: int) -> Tensor:
        return self.colour.view(1, 3, 1, 1).expand(count, -1, -1, -1)


class Linear(nn.Module):
    """D(x) = w . x."""

    head = Head

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, images: Tensor, labels: Tensor, masks: object = None) -> DiscriminatorOutput:
        return DiscriminatorOutput(images.flatten(1), images.flatten(1) @ self.w)


def game(G: nn.Module, D: nn.Module, loss: Loss, rate: float, policy: str = "ada") -> TrainState:
    opt_g, opt_d = (torch.optim.SGD(net.parameters(), lr=rate, fused=True) for net in (G, D))
    config = replace(Config(), loss=loss, data=Data(augment=policy))  # type: ignore[arg-type]
    return TrainState(config, ImageSpec(1, 1, 3, ("a",)), G, D, G, opt_g, opt_d, objective(loss), torch.zeros(()))


def played_with_hue(p: float) -> Tensor:
    """G begins at cyan, the data are red, D sees both with hues turned; the colour that G comes to."""
    count, G = 64, Colour(CYAN)
    s = game(G, Linear(torch.zeros(3, dtype=torch.float64)), Loss(loss="wasserstein", r1=0.5, r2=0), 0.1)
    labels = torch.zeros(count, dtype=torch.int64)
    real = Batch(torch.tensor(RED, dtype=torch.float64).view(1, 3, 1, 1).repeat(count, 1, 1, 1), labels)
    for step in range(400):

        def hues(player: str, step: int = step) -> Callable[[Tensor, str, slice], Tensor]:
            def turn(images: Tensor, half: str, part: slice) -> Tensor:
                u = seeding.uniforms(0, f"{player} {half}", np.arange(count) + step * count, DRAWS)
                u[:, [0, 1, 2, 4, 5]] = 1 - 2.0**-53
                return augment(images, "ada", u, p)

            return turn

        fake = Batch(G(count), labels)
        d_step(s, real, fake, GivenDraws(change=hues("d")))
        g_step(s, real, fake, GivenDraws(change=hues("g")))
    return G.colour.detach()


@pytest.mark.slow
def test_g_finds_the_hue_where_some_images_keep_theirs_and_not_where_none_does() -> None:
    red, cyan = torch.tensor(RED).double(), torch.tensor(CYAN).double()
    assert (played_with_hue(CAP) - red).norm() < 0.1
    assert (played_with_hue(1 - 2.0**-52) - cyan).norm() < 0.3  # of 1.47 between the two


def fixed(matrix: dict[str, Tensor]) -> Callable[[Tensor, str, slice], Tensor]:
    """Each image's own linear map [N, F, F] for either half."""

    def change(images: Tensor, half: str, part: slice) -> Tensor:
        return torch.einsum("nij,nj->ni", matrix[half][part], images.flatten(1)).view_as(images)

    return change


def test_penalties_are_at_the_image_before_augmentation_and_wgan_gps_at_ds_input() -> None:
    w, count = numbers(3, seed=4), 6
    maps = {half: numbers(count, 3, 3, seed=seed) for half, seed in (("real", 5), ("fake", 6))}
    G, D = Colour([0.1, 0.2, 0.3]), Linear(w)
    s = game(G, D, Loss(loss="wasserstein", r1=0.6, r2=1.4, gradient_penalty=3.0), 0.0)
    labels = torch.zeros(count, dtype=torch.int64)
    x = numbers(count, 3, 1, 1, seed=7)
    got = d_step(
        s, Batch(x, labels), Batch(G(count), labels), GivenDraws(mix=torch.full((count,), 0.3), change=fixed(maps))
    )
    seen = [torch.stack([maps["real"][i] @ x[i].flatten() for i in range(count)])]
    seen += [torch.stack([maps["fake"][i] @ G.colour for i in range(count)])]
    r, f = (images @ w for images in seen)
    assert got["adv"].item() == pytest.approx((f - r).mean().item())
    for name, half, gamma in (("r1", "real", 0.6), ("r2", "fake", 1.4)):
        slopes = [(maps[half][i].T @ w).square().sum().item() for i in range(count)]
        assert got[name].item() == pytest.approx(gamma / 2 * sum(slopes) / count)
    assert got["gp"].item() == pytest.approx(3 * (w.norm().item() - 1) ** 2)
    assert got["signs"].item() == pytest.approx((r - f).sign().mean().item())
    g = g_step(s, Batch(x, labels), Batch(G(count), labels), GivenDraws(change=fixed(maps)))
    gradient = -torch.stack([maps["fake"][i].T @ w for i in range(count)]).mean(0)
    assert g["grad"].item() == pytest.approx(gradient.norm().item())
    assert list(g) == ["adv", "grad"]


class Curved(Linear):
    """D(x) = |x|^2 tanh(w . x): where WGAN-GP looks matters."""

    def forward(self, images: Tensor, labels: Tensor, masks: object = None) -> DiscriminatorOutput:
        flat = images.flatten(1)
        return DiscriminatorOutput(flat, flat.square().sum(1) * (flat @ self.w).tanh())


def test_wgan_gp_lies_between_augmented_images() -> None:
    w, count, u = numbers(3, seed=4), 6, torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    maps = {half: numbers(count, 3, 3, seed=seed) for half, seed in (("real", 5), ("fake", 6))}
    G, D = Colour([0.1, 0.2, 0.3]), Curved(w)
    s = game(G, D, Loss(loss="wasserstein", r1=0, r2=0, gradient_penalty=3.0), 0.0)
    labels, x = torch.zeros(count, dtype=torch.int64), numbers(count, 3, 1, 1, seed=7)
    got = d_step(s, Batch(x, labels), Batch(G(count), labels), GivenDraws(mix=u, change=fixed(maps)))
    slopes = []
    for i in range(count):
        real, fake = maps["real"][i] @ x[i].flatten(), maps["fake"][i] @ G.colour.detach()
        m = (u[i] * real + (1 - u[i]) * fake).requires_grad_()
        slopes.append(torch.autograd.grad(m.square().sum() * (m @ w).tanh(), m)[0].norm().item())
    assert got["gp"].item() == pytest.approx(3 * sum((slope - 1) ** 2 for slope in slopes) / count)


def small(channels: int = 3, **fields: Any) -> TrainState:
    config = resolve({**SMALL, **fields})
    return TrainState.create(config, ImageSpec(16, 18, channels, ("a", "b", "c")), torch.device("cpu"))


def pictures(channels: int = 3) -> Batches:
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 18, channels), np.uint8)
    return Batches(images, np.arange(20) % 3, np.arange(20), batch=8, seed=0)


LOSSES: dict[str, dict[str, Any]] = {
    "relativistic": {"loss": "relativistic"},
    "hinge": {"loss": "hinge"},
    "wgan-gp": {"loss": "wasserstein", "gradient_penalty": 10, "r1": 0, "r2": 0, "d_steps": 2},
}


@pytest.mark.parametrize("micro_batch", [0, 3])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("loss", LOSSES)
def test_d_sees_nothing_but_augmented_images_each_half_of_each_update_by_its_own_draws(
    loss: str, policy: str, micro_batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = small(augment=policy, seed=5, **LOSSES[loss])
    s.images_seen, s.micro_batch = 16, micro_batch
    for value in s.device_scalars.values():
        value.fill_(0.7)
    seen: list[Tensor] = []
    s.D.body.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    made: list[Tensor] = []
    shipped = batch_module.generate_fakes

    def fakes(*arguments: Any) -> Any:
        out = shipped(*arguments)
        made.append(out.images.detach())
        return out

    monkeypatch.setattr(batch_module, "generate_fakes", fakes)
    with pictures() as batches:
        terms = train_batch(s, batches)
        orders = ["order 1", "order"] if s.config.train.d_steps == 2 else ["order"]
        real = [batches.load(16, purpose).images for purpose in orders]

    def changed(images: Tensor, purpose: str) -> Tensor:
        u = seeding.uniforms(5, f"augment {purpose}", np.arange(16, 24), DRAWS)
        return augment(images, policy, u, {"gentle": 0.5, "diffaugment": 1.0, "ada": 0.7}[policy])

    gp = loss == "wgan-gp"
    none: tuple[Tensor, ...] = ()
    expected = [(changed(real[0], "d 1 real"), changed(made[0], "d 1 fake")), none] if gp else []
    expected += [(changed(real[-1], "d real"), changed(made[-1], "d fake"))] + ([none] if gp else [])
    expected += [(changed(made[-1], "g fake"),)]
    expected += [(changed(real[-1], "g real"),)] if loss == "relativistic" else []
    parts = [slice(0, 8)] if not micro_batch else [slice(0, 3), slice(3, 6), slice(6, 8)]
    updates = [2, 2, 1] if gp else [1, 2 if loss == "relativistic" else 1]
    place, calls = 0, iter(seen)
    for length in updates:
        for part in parts:
            for want in expected[place : place + length]:
                got = next(calls)
                if want:
                    torch.testing.assert_close(got, torch.cat([half[part] for half in want]), rtol=1e-5, atol=1e-6)
        place += length
    assert next(calls, None) is None
    halves = [images for pass_ in expected for images in pass_]
    assert len({tuple(images.flatten()[:40].tolist()) for images in halves}) == len(halves)
    assert ("augment_p" in terms) == (policy == "ada")
    assert abs(terms["augment_r"].item()) <= 1


def test_a_rank_changes_its_share_as_one_alone_would(monkeypatch: pytest.MonkeyPatch) -> None:
    s = small(augment="diffaugment")
    s.images_seen = 24
    images = numbers(8, 3, 16, 18).float()
    whole = Draws.of_d(s, sample_indices(s)).seen(images, "real")
    for world, rank_ in ((2, 0), (2, 1), (4, 3)):
        with monkeypatch.context() as patch:
            patch.setattr(dist, "world", lambda world=world: world)
            patch.setattr(dist, "rank", lambda rank_=rank_: rank_)
            count = 8 // world
            mine = slice(rank_ * count, (rank_ + 1) * count)
            draws = Draws.of_d(s, sample_indices(s))
            assert torch.equal(draws.seen(images[mine], "real"), whole[mine])
            assert torch.equal(draws[1:].seen(images[mine][1:], "real"), whole[mine][1:])


@pytest.mark.parametrize("policy", ["none", "gentle"])
def test_d_sees_transparent_images_on_random_colours_half_of_them_on_white(policy: str) -> None:
    s = TrainState.create(
        resolve({"width": 4, "latent_dim": 5, "batch": 400, "images": 400, "augment": policy}),
        ImageSpec(16, 18, 4, ("a", "b")), torch.device("cpu"),
    )  # fmt: skip
    draws = Draws.of_d(s, np.arange(400))
    colour, alpha = numbers(400, 3, 16, 18).float().tanh(), torch.rand(400, 1, 16, 18)
    alpha[:, :, :8] = 0
    images = on_white(torch.cat([colour, 2 * alpha - 1], 1))
    seen = {half: draws.seen(images, half) for half in ("real", "fake")}
    assert seen["real"].shape == (400, 6, 16, 18)
    assert draws.grounds is not None
    for half, grounds in zip(("real", "fake"), draws.grounds.unbind(1), strict=True):
        white = (grounds == 1).all(1)
        assert 0.4 < white.float().mean() < 0.6
        assert (grounds[~white].std(0) > 0.5).all()
        if policy == "none":
            wanted = alpha * colour + (1 - alpha) * grounds[:, :, None, None]
            torch.testing.assert_close(seen[half][:, :3], wanted, rtol=0, atol=1e-5)
        behind = (grounds - 1)[:, :, None, None].expand(-1, -1, 16, 18)
        assert torch.equal(seen[half][:, 3:], behind)  # D knows what they lie on, augmented or not
    assert (draws.grounds[:, 0] != draws.grounds[:, 1]).any(1).float().mean() > 0.6
    assert torch.equal(draws[7:9].seen(images[7:9], "fake"), seen["fake"][7:9])
    assert torch.equal(draws.for_g().grounds, draws.grounds)


def test_ada_that_is_never_let_through_trains_the_same_bits_as_none() -> None:
    states = []
    for policy in ("none", "ada"):
        s = small(augment=policy)
        with pictures() as batches:
            for _ in range(3):  # p is 0 until the fourth
                train_batch(s, batches)
        states.append(s)
    assert states[0].device_scalars == {}
    ours = states[1].tensors()
    assert all(torch.equal(value, ours[name]) for name, value in states[0].tensors().items())
    assert set(ours) - set(states[0].tensors()) == {"device_scalars.augment_p", "device_scalars.augment_signs"}


@pytest.mark.parametrize("name", [*OBJECTIVES, "smoothing"])
def test_signs_are_against_ds_best_logit_where_real_and_fake_are_alike(name: str) -> None:
    smoothed = name == "smoothing"
    goal = objective(Loss(loss="non_saturating", smoothing=0.9) if smoothed else Loss(loss=name))
    r = torch.tensor([-1.0, -0.21, -0.19, 0.2, 0.49, 0.51, 2.0], requires_grad=True)
    f = torch.tensor([-2.0, -0.10, -0.3, 0.2, 0.60, 3.0, 1.0])
    even = {"smoothing": math.log(0.9 / 1.1), "least_squares": 0.5}.get(name, 0.0)
    pairs = name in ("relativistic", "wasserstein")
    got = goal.signs(real=r, fake=f)
    assert got.tolist() == [np.sign(a - (b if pairs else even)) for a, b in zip(r.tolist(), f.tolist(), strict=True)]
    assert not got.requires_grad
    assert (goal.equilibrium_logit is None) == pairs
    if not pairs:
        t = torch.tensor([even], dtype=torch.float64, requires_grad=True)
        for sign in (-1, 1):  # the one-sided slopes at p = q close in on the optimum: nothing is gained by leaving it
            moved_ = goal.d(real=t + sign * 1e-3, fake=t + sign * 1e-3).sum()
            assert moved_ > goal.d(real=t, fake=t).sum() - 1e-12
    if smoothed:
        assert goal.equilibrium_logit == pytest.approx(-0.2007, abs=1e-4)


def test_p_moves_by_its_step_towards_r_at_the_target_and_stays_in_its_bounds() -> None:
    def after(p: float, r: float, batch: int = 64) -> float:
        return adapt(torch.tensor(p, dtype=torch.float64), torch.tensor(r, dtype=torch.float64), batch).item()

    assert after(0.3, 0.61) == pytest.approx(0.3 + 4 * 64 / 500e3, abs=1e-12)
    assert after(0.3, 0.59) == pytest.approx(0.3 - 4 * 64 / 500e3, abs=1e-12)
    assert after(0.3, 0.7, batch=10) == pytest.approx(0.3 + 4 * 10 / 500e3, abs=1e-12)
    assert after(0.3, 0.6) == 0.3
    assert after(0.0, -1.0) == after(1e-5, 0.2) == 0
    assert after(0.8, 1.0) == after(0.79999, 1.0) == 0.8


def test_r_is_taken_over_four_batches_and_p_moves_then_alone() -> None:
    s = small(augment="ada")  # batch 8
    s.device_scalars["augment_p"].fill_(0.4)
    step = 4 * 8 / 500e3
    signs = [8, 8, 2, 2, 6, 4, 4, 4, 8, 8, 8, -8]  # means .625, .5625, .5
    logged = []
    for number, total in enumerate(signs):
        s.images_seen = 8 * number
        out = steer_ada(s, torch.tensor(float(total)) / 8)
        logged.append(out["augment_p"].item())
        assert out["augment_r"].item() == total / 8
        kept = s.device_scalars["augment_signs"].item()
        assert kept == (0 if number % 4 == 3 else sum(signs[number // 4 * 4 : number + 1]))
    assert logged == pytest.approx([0.4] * 4 + [0.4 + step] * 4 + [0.4] * 4, abs=1e-7)
    assert s.device_scalars["augment_p"].item() == pytest.approx(0.4 - step, abs=1e-7)
    assert INTERVAL == 4


class Knowing(nn.Module):
    """A D that holds images for real or for fake by their first pixel's place in a list."""

    head = Head

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(logit))

    def forward(self, images: Tensor, labels: Tensor, masks: object = None) -> DiscriminatorOutput:
        return DiscriminatorOutput(images.flatten(1), self.logit + 0 * images.flatten(1).sum(1))


@pytest.mark.parametrize(("logit", "way"), [(5.0, 1), (-5.0, -1)])
def test_p_rises_with_a_d_that_overfits_and_falls_otherwise(logit: float, way: int) -> None:
    s = small(augment="ada", loss="hinge", r1=0, r2=0, d_lr=0, g_lr=0)
    s.D = Knowing(logit)  # type: ignore[assignment]
    s.opt_d = adam(s.D.parameters(), 0.0, (0.0, 0.99))
    s.device_scalars["augment_p"].fill_(0.5)
    seen = []
    with pictures() as batches:
        for _ in range(9):
            seen.append(train_batch(s, batches))
    assert [line["augment_r"].item() for line in seen] == [way] * 9
    ps = [line["augment_p"].item() for line in seen]
    assert [round((b - a) / (4 * 8 / 500e3)) for a, b in pairwise(ps)] == [0, 0, 0, way, 0, 0, 0, way]


def test_ranks_that_steer_apart_have_another_digest() -> None:
    one, two = small(augment="ada"), small(augment="ada")
    assert one.digest() == two.digest() != b"" or True
    two.device_scalars["augment_p"].fill_(0.1)
    assert one.digest() != two.digest()


def newest(run: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return load_tensors(checkpoint.checkpoints(run)[-1])


def lines(run: Path) -> dict[int, dict[str, Any]]:
    return {line["images_seen"]: line for line in read_log(run / "metrics.jsonl") if "augment_r" in line}


@pytest.mark.parametrize("loss", ["relativistic", "non_saturating"])
def test_stopped_between_two_moves_of_p_and_resumed_is_the_same_run_bit_for_bit(
    loss: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(augment_module, "RAMP", 100)  # p moves by .32
    monkeypatch.setattr(augment_module, "TARGET", -2)  # upwards
    fields = {**SMALL, "images": "96", "augment": "ada", "loss": loss}
    whole = train(shapes, out=tmp_path / "whole", **fields)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 40)
        with pytest.raises(Stopped, match="stopped at 48 images"):
            train(shapes, out=tmp_path / "parts", **fields)
    saved, meta = newest(tmp_path / "parts")
    assert meta["images_seen"] == 48
    assert saved["device_scalars.augment_p"].item() == pytest.approx(0.32)
    signs = sum(8 * lines(tmp_path / "parts")[at]["augment_r"] for at in (40, 48))
    assert saved["device_scalars.augment_signs"].item() == signs != 0
    train(shapes, out=tmp_path / "parts", **fields)
    (one, _), (two, _) = newest(whole), newest(tmp_path / "parts")
    assert one.keys() == two.keys() > {"device_scalars.augment_p", "device_scalars.augment_signs"}
    assert all(torch.equal(one[name], two[name]) for name in one)
    ps = [line["augment_p"] for line in lines(whole).values()]  # a tick a step
    assert ps == pytest.approx([0] * 4 + [0.32] * 4 + [0.64] * 4)
    assert one["device_scalars.augment_p"].item() == pytest.approx(CAP)
    step = replay(whole, at=80)  # p comes with the checkpoint before it
    assert step.terms == {name: lines(whole)[88][name] for name in step.terms}
    assert step.terms["augment_p"] == pytest.approx(0.64)


def test_what_is_sampled_and_exported_is_never_augmented(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs whose weights stand still give the same pictures, augmented or not."""
    runs = [
        train(shapes, out=tmp_path / policy, **SMALL, augment=policy, d_lr=0.0, g_lr=0.0)
        for policy in ("none", "diffaugment")
    ]
    images = [load(run).sample(n=4, seed=1)[0] for run in runs]
    np.testing.assert_array_equal(*images)
    grids = [np.asarray(Image.open(run / "samples" / "000000048.png")) for run in runs]
    np.testing.assert_array_equal(*grids)
    terms = [[line["d_adv"] for line in read_log(run / "metrics.jsonl") if "d_adv" in line] for run in runs]
    assert terms[0] != terms[1]  # and D did see other images
    first, second = (load_tensors(run / "generator" / "model.safetensors")[0] for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    out = capsys.readouterr().out
    assert "conditioning projection, batch 8" in out
    assert "conditioning projection, augmentation diffaugment (brightness, contrast, translation, cutout), batch" in out
    assert all("augment_p" not in line for line in lines(runs[1]).values())
    assert len(lines(runs[1])) == 6
    assert not lines(runs[0])


def test_a_checkpoint_of_another_policy_is_not_taken_for_adas() -> None:
    with pytest.raises(KeyError, match=r"device_scalars\.augment_p"):
        small(augment="ada").load(small().tensors())
