"""What D sees: each transform, whom it touches, what it gives away, and ADA's p through a run that stops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

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
    GATES,
    HALF,
    INTERVAL,
    POLICIES,
    Change,
    adapt,
    augment,
    change,
    describe_policy,
)
from ptarmigan.game.batch import sample_indices, steer_ada, train_batch
from ptarmigan.game.draws import Draws
from ptarmigan.game.optim import adam
from ptarmigan.game.state import TrainState
from ptarmigan.game.step import d_step, g_step
from ptarmigan.losses.adversarial import OBJECTIVES, objective
from ptarmigan.losses.conditioning import Unconditional
from ptarmigan.training import checkpoint
from ptarmigan.training.loop import train
from ptarmigan.training.signals import Stopped
from support import GivenDraws, interrupt_at, raises

N, HEIGHT, WIDTH = 5, 17, 24  # neither square nor even
Array = NDArray[np.float64]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def uniforms(count: int = N, seed: int = 0) -> Tensor:
    return seeding.uniforms(seed, "test", np.arange(count), DRAWS)


# ---------------------------------------------------------------------------- each transform, one sample at a time


def moved(image: Array, down: int, right: int) -> Array:
    out = np.zeros_like(image)
    _, height, width = image.shape
    for i, j in product(range(height), range(width)):
        if 0 <= i + down < height and 0 <= j + right < width:
            out[:, i + down, j + right] = image[:, i, j]
    return out


def cut_out(image: Array, top: float, left: float) -> Array:
    out = image.copy()
    _, height, width = image.shape
    for i, j in product(range(height), range(width)):
        if top <= i < top + height // 2 and left <= j < left + width // 2:
            out[:, i, j] = 0
    return out


def turned(image: Array, saturation: float, hue: float) -> Array:
    axis = np.ones(3) / math.sqrt(3)
    onto = np.outer(axis, axis)
    matrix = onto + saturation * (np.eye(3) - onto) @ Rotation.from_rotvec(hue * axis).as_matrix()
    return np.einsum("dc,chw->dhw", matrix, image)


def by_loop(image: Array, values: list[float], made: list[bool]) -> Array:
    """One image through the pipeline; `made` says which of brightness, contrast, saturation, hue, move and cut are."""
    b, c, s, h, down, right, top, left = values
    out, colours = image.copy(), min(len(image), 3)
    colour = out[:colours]
    if made[0]:
        colour = colour + b
    if made[1]:
        colour = colour.mean() + c * (colour - colour.mean())
    if colours == 3:
        colour = turned(colour, s if made[2] else 1, h if made[3] else 0)
    out[:colours] = colour
    if made[4]:
        out = moved(out, int(down), int(right))
    return cut_out(out, top, left) if made[5] else out


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_pipeline_is_its_transforms_on_one_image_after_another(policy: str, channels: int, p: float) -> None:
    count = 40
    images, u = numbers(count, channels, HEIGHT, WIDTH).tanh(), uniforms(count)
    got = augment(images, policy, u, torch.tensor(p))
    values = torch.stack(change(policy, u[:, GATES:].T, HEIGHT, WIDTH)).T
    for i in range(count):
        made = [bool(gate < p) for gate in u[i, :GATES]]
        made[5] &= policy != "gentle"
        expected = by_loop(images[i].numpy(), values[i].tolist(), made)
        np.testing.assert_allclose(got[i].numpy(), expected, rtol=1e-12, atol=1e-12)
    if p == 0.5:
        assert (u[:, :GATES] < p).double().mean(0).sub(0.5).abs().max() < 0.3


def test_each_transform_alone() -> None:
    images, a, b = numbers(N, 3, HEIGHT, WIDTH), numbers(N, seed=1), numbers(N, seed=2)
    steps = torch.tensor([0, 2, -3, 30, -1]), torch.tensor([0, -24, 5, 0, 23])
    first = torch.tensor([0.0, -4, 15, math.inf, 3]), torch.tensor([0.0, 20, -11, 2, math.inf])
    for got, expected in (
        (augment_module.brightness(images, a), [x + v for x, v in zip(images, a, strict=True)]),
        (augment_module.contrast(images, a), [x.mean() + v * (x - x.mean()) for x, v in zip(images, a, strict=True)]),
        (
            augment_module.tint(images, a, b),
            [turned(x.numpy(), *v) for x, *v in zip(images, a.tolist(), b.tolist(), strict=True)],
        ),
        (
            augment_module.translation(images, *steps),
            [moved(x.numpy(), *map(int, v)) for x, *v in zip(images, *steps, strict=True)],
        ),
        (
            augment_module.cutout(images, *first),
            [cut_out(x.numpy(), *map(float, v)) for x, *v in zip(images, *first, strict=True)],
        ),
    ):
        np.testing.assert_allclose(got.numpy(), np.stack([np.asarray(x) for x in expected]), rtol=1e-12, atol=1e-12)


def test_a_turn_by_a_third_exchanges_the_colours() -> None:
    red = torch.tensor([1.0, -1, -1]).view(1, 3, 1, 1)
    third = torch.tensor([2 * math.pi / 3])
    once = augment_module.tint(red, torch.ones(1), third)
    torch.testing.assert_close(once.flatten(), torch.tensor([-1.0, 1, -1]))
    torch.testing.assert_close(augment_module.tint(once, torch.ones(1), third).flatten(), torch.tensor([-1.0, -1, 1]))
    assert augment_module.tint(red, torch.zeros(1), third).flatten().tolist() == pytest.approx([-1 / 3] * 3)


def test_alpha_moves_with_the_colours_and_keeps_its_values() -> None:
    images, u = numbers(N, 4, HEIGHT, WIDTH).tanh(), uniforms()
    values = change("ada", u[:, GATES:].T, HEIGHT, WIDTH)
    got = augment(images, "ada", u, 1.0)[:, 3:]
    geometry = augment_module.translation(images[:, 3:], values.down, values.right)
    assert torch.equal(got, augment_module.cutout(geometry, values.top, values.left))


# ---------------------------------------------------------------------------- the draws


def quantiles(count: int, value: int) -> Tensor:
    """[8, count]: one of the values runs evenly through (0, 1), the others rest at their middles."""
    u = torch.full((8, count), 0.5, dtype=torch.float64)
    u[value] = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return u


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("side", [16, 17, 23, 24, 32, 48, 63, 64, 256])
def test_moves_and_cuts_are_uniform_over_their_ranges(side: int, policy: str) -> None:
    k, cut = side // 8, side // 2
    if policy == "gentle":  # .3 of an eighth of the side, to the nearest pixel, and one at least
        k = {16: 1, 17: 1, 23: 1, 24: 1, 32: 1, 48: 2, 63: 2, 64: 2, 256: 10}[side]
    places = side + 1 - cut % 2
    for axis in (0, 1):
        shape = (side, 40) if axis == 0 else (40, side)
        moves = change(policy, quantiles(3 * (2 * k + 1), 4 + axis), *shape)[4 + axis]
        assert torch.equal(moves, torch.arange(-k, k + 1).repeat_interleave(3).double())
        cuts = change(policy, quantiles(3 * places, 6 + axis), *shape)[6 + axis]
        assert torch.equal(cuts, (torch.arange(places) - cut // 2).repeat_interleave(3).double())


def test_colours_are_drawn_as_the_papers_draw_them() -> None:
    count = 10_000
    q = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    diff = [change("diffaugment", quantiles(count, value), 16, 16)[value] for value in range(4)]
    assert [torch.allclose(a, b) for a, b in zip(diff, (q - 0.5, q + 0.5, 2 * q, 0 * q), strict=True)] == [True] * 4
    gentle = [change("gentle", quantiles(count, value), 16, 16)[value] for value in range(4)]
    ranges = (0.3 * q - 0.15, 0.85 + 0.3 * q, 0.7 + 0.6 * q, 0 * q)
    assert [torch.allclose(a, b) for a, b in zip(gentle, ranges, strict=True)] == [True] * 4
    ada = [change("ada", quantiles(count, value), 16, 16)[value] for value in range(4)]
    for values, sd in ((ada[0], 0.2), (ada[1].log2(), 0.5), (ada[2].log2(), 1.0)):
        assert values.mean().item() == pytest.approx(0, abs=1e-12)
        assert values.std().item() == pytest.approx(sd, rel=2e-3)
        assert values.pow(4).mean().item() == pytest.approx(3 * sd**4, rel=2e-2)  # normal
        assert (values.diff() > 0).all()
    assert torch.allclose(ada[3], math.pi * (2 * q - 1))
    assert all(torch.equal(a, torch.full_like(a, v)) for a, v in zip(
        change("ada", torch.full((8, 1), 0.5, dtype=torch.float64), 16, 16)[:6], (0, 1, 1, 0, 0, 0), strict=True
    ))  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("policy", POLICIES)
def test_at_p_0_nothing_changes_to_the_bit_and_at_p_1_everything_does(policy: str, channels: int) -> None:
    images = numbers(64, channels, HEIGHT, WIDTH).tanh().float()
    u = uniforms(64)
    for p in (0.0, torch.zeros(())):
        assert torch.equal(augment(images, policy, u, p), images)
    u[:, :GATES] = torch.tensor([1 - 2.0**-30, 2.0**-53] * 3, dtype=torch.float64)  # one rounds to 1 in float32
    assert torch.equal(augment(images, policy, u, torch.zeros(())), images)
    low = u.clone()
    low[:, :GATES] = 0.5
    assert torch.equal(augment(images, policy, u, torch.ones(())), augment(images, policy, low, torch.ones(())))
    assert not any(torch.equal(a, b) for a, b in zip(augment(images, policy, u, 1.0), images, strict=True))


def test_gates_are_apart_from_each_other() -> None:
    """Each transform is made where its own gate says so: six images, each with another one gate open."""
    image = numbers(1, 3, HEIGHT, WIDTH).tanh().expand(GATES, -1, -1, -1)
    u = torch.full((GATES, DRAWS), 0.9, dtype=torch.float64)
    u[:, :GATES] -= 0.8 * torch.eye(GATES, dtype=torch.float64)
    b, c, s, h, down, right, top, left = change("ada", u[:, GATES:].T, HEIGHT, WIDTH)
    still = torch.zeros(GATES), torch.ones(GATES)
    t, m = augment_module.tint, augment_module
    expected = [
        m.brightness(image, b), m.contrast(image, c), t(image, s, still[0]), t(image, still[1], h),
        m.translation(image, down, right), m.cutout(image, top, left),
    ]  # fmt: skip
    got = augment(image, "ada", u, 0.5)
    for number, want in enumerate(expected):
        torch.testing.assert_close(got[number], want[number], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_an_image_is_changed_alike_in_any_company(policy: str, channels: int) -> None:
    images = numbers(12, channels, 32, 32).tanh().float().contiguous(memory_format=torch.channels_last)
    u = uniforms(12)
    whole = augment(images, policy, u, 0.7)
    assert whole.is_contiguous(memory_format=torch.channels_last)  # as the networks want it
    other = torch.tensor([7, 3, 3, 11])
    assert torch.equal(augment(images[other], policy, u[other], 0.7), whole[other])
    for i in range(12):
        assert torch.equal(augment(images[i : i + 1], policy, u[i : i + 1], 0.7), whole[i : i + 1])


# ---------------------------------------------------------------------------- gradients


@pytest.mark.parametrize(
    "channels", [1, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("policy", POLICIES)
def test_first_and_second_gradients(policy: str, channels: int) -> None:
    images, u = numbers(2, channels, 8, 3).requires_grad_(), uniforms(2, seed=1)
    weights = numbers(2, channels, 8, 3, seed=3)

    def pipeline(x: Tensor) -> Tensor:
        return augment(x, policy, u, 1.0)

    def bent(x: Tensor) -> Tensor:
        return (weights * pipeline(x).tanh()).sum()

    assert gradcheck(pipeline, images)
    assert gradcheck(bent, images)
    assert gradgradcheck(bent, images)
    assert pipeline(images).ne(0).double().mean() > 0.5
    assert change(policy, u[:, GATES:].T, 8, 3).down.ne(0).any()


# ---------------------------------------------------------------------------- does it give away, or hide?


def transitions(states: Tensor, u: Tensor, p: float) -> Tensor:
    """[S, S] probability that state i [C, H, W] becomes state j, over the draws u [M, DRAWS], alike in weight."""
    count, draws = len(states), len(u)
    images = states.repeat_interleave(draws, 0)
    after = augment(images, "ada", u.repeat(count, 1), p).flatten(1)
    near = torch.cdist(after, states.flatten(1))
    assert near.min(1).values.max() < 1e-6  # nothing falls outside of the states
    ends = nn.functional.one_hot(near.argmin(1), count).double()
    return ends.view(count, draws, count).mean(1)


def draws(gate: int, p: float, **values: Tensor) -> Tensor:
    """All combinations of one gate's draws, of which a share p is let through, and of the values by their columns."""
    steps = 20
    gates = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    rows = torch.cartesian_prod(gates, *values.values()).reshape(-1, 1 + len(values))
    u = torch.full((len(rows), DRAWS), 1 - 2.0**-53, dtype=torch.float64)  # other gates stay shut where p < 1
    u[:, gate] = rows[:, 0]
    for place, name in enumerate(values):
        u[:, GATES + Change._fields.index(name)] = rows[:, 1 + place]
    assert (rows[:, 0] <= p).double().mean().item() == pytest.approx(p)
    return u


LEVELS = (0.2, 0.5, 0.75, CAP)


def rank(matrix: Tensor) -> int:
    return int(torch.linalg.matrix_rank(matrix, rtol=1e-9))


def middles(count: int) -> Tensor:
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


@pytest.mark.parametrize("width", [16, 17, 20, 23])
def test_moves_of_one_bright_pixel_on_grey_can_be_undone_up_to_the_cap(width: int) -> None:
    """The worst case: content that stays whole wherever it goes, on a ground that looks like what is moved in."""
    states = torch.cat([torch.eye(width), torch.zeros(1, width)]).double().view(-1, 1, 1, width)
    for p in LEVELS:
        matrix = transitions(states, draws(4, p, right=middles(2 * (width // 8) + 1)), p)
        assert rank(matrix) == width + 1
        assert torch.linalg.eigvals(matrix).real.min() > 1 - p - p / 4
    beyond = transitions(states, draws(4, 1.0, right=middles(2 * (width // 8) + 1)), 0.999_999)
    assert torch.linalg.eigvals(beyond).real.min() < 0  # between the cap and 1 some p cannot be undone


def test_all_black_and_grey_pictures_of_eight_pixels() -> None:
    """256 pictures, cropping included; three moves, so up to p < .75."""
    states = torch.tensor(list(product((0.0, -1.0), repeat=8)), dtype=torch.float64).view(-1, 1, 1, 8)
    assert rank(transitions(states, draws(4, 0.7, right=middles(3)), 0.7)) == 256
    assert rank(transitions(states, draws(4, 0.7, right=middles(3)), 0.0)) == 256


def test_moves_of_every_picture_lose_what_moves_of_some_keep() -> None:
    """Three moves at p = 1: two different sets of pictures look alike to D."""
    states = torch.cat([torch.eye(8), torch.zeros(1, 8)]).double().view(-1, 1, 1, 8)
    all_moved = draws(4, 1.0, right=middles(3))
    all_moved[:, [0, 1, 5]] = 1 - 2.0**-53
    matrix = transitions(states, all_moved, 1 - 2.0**-52)
    assert rank(matrix) < 9
    _, _, v = torch.linalg.svd(matrix.T)
    gap = v[-1]  # a difference of two distributions
    assert gap.abs().max() > 0.1
    assert (gap @ matrix).abs().max() < 1e-9
    kept = transitions(states, draws(4, 0.7, right=middles(3)), 0.7)
    assert (gap @ kept).abs().max() > 0.01


def test_cuts_can_be_undone_below_1() -> None:
    states = torch.tensor(list(product((0.0, 1.0), repeat=4)), dtype=torch.float64).view(-1, 1, 2, 2)
    for p in LEVELS:
        matrix = transitions(states, draws(5, p, top=middles(2), left=middles(2)), p)
        assert rank(matrix) == 16
        assert matrix.diagonal().min().item() == pytest.approx(1 - p)
    always = draws(5, 1.0, top=middles(2), left=middles(2))
    assert rank(transitions(states, always, 1 - 2.0**-52)) < 16


def test_turns_of_the_hue_leak_at_p_1_alone() -> None:
    count = 8
    angles = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    red = torch.tensor([0.6, -0.3, -0.3], dtype=torch.float64).view(1, 3, 1, 1).expand(count, -1, -1, -1)
    states = augment_module.tint(red, torch.ones(count, dtype=torch.float64), angles) + 0.1
    turns = torch.arange(1, count + 1, dtype=torch.float64) / count
    for p in LEVELS:
        matrix = transitions(states, draws(3, p, hue=turns), p)
        assert rank(matrix) == count
        torch.testing.assert_close(matrix, (1 - p) * torch.eye(count).double() + p / count)
    assert rank(transitions(states, draws(3, 1.0, hue=turns), 1 - 2.0**-52)) == 1


def test_what_the_cap_stands_on() -> None:
    """Moves by -k..k: least Fourier coefficient w -1/4 at k = 2, and above for larger k: 1 - p + p w is not below 0."""
    t = torch.linspace(0, math.pi, 100_001, dtype=torch.float64)
    least = {
        k: (1 + 2 * torch.stack([(j * t).cos() for j in range(1, k + 1)]).sum(0)).div(2 * k + 1).min().item()
        for k in range(1, 33)
    }
    assert least[1] == pytest.approx(-1 / 3)
    assert least[2] == pytest.approx(-1 / 4)
    assert all(value > -1 / 4 for k, value in least.items() if k > 2)
    assert all(1 - CAP + CAP * value > -1e-9 for k, value in least.items() if k > 1)
    assert {16 // 8, 256 // 8} == {2, 32}  # the smallest image that a config allows, and the largest


def test_what_gentle_does_can_be_undone() -> None:
    """1 - p + p w for each Fourier coefficient w of what it does: none is near 0 at p = 1/2, and some are at .9."""
    t = torch.linspace(0, 100, 1_001, dtype=torch.float64)
    coefficients = []
    for value in range(3):
        drawn = change("gentle", quantiles(2_000, value), 16, 16)[value]
        if value:
            drawn = drawn.log()  # factors add up as logarithms
        coefficients.append(torch.exp(1j * t * drawn.unsqueeze(1)).mean(0))
    for side in (28, 64, 256):
        far = int(change("gentle", quantiles(1_000, 4), side, side).down.max())
        k = torch.arange(-far, far + 1, dtype=torch.float64)
        coefficients.append(torch.exp(1j * t * k.unsqueeze(1)).mean(0))
    for w in coefficients:
        assert (1 - HALF + HALF * w).abs().min() > 0.333
        assert (1 - 0.9 + 0.9 * w).abs().min() < 0.15


def test_the_colours_have_positive_fourier_coefficients() -> None:
    for value in range(3):
        drawn = change("ada", quantiles(20_000, value), 16, 16)[value]
        drawn = drawn / 0.2 if value == 0 else drawn.log2()
        for t in (0.3, 1.0, 2.0, 3.0):
            sd = (1.0, 0.5, 1.0)[value]
            assert (t * drawn).cos().mean().item() == pytest.approx(math.exp(-((t * sd) ** 2) / 2), abs=1e-4)


# ---------------------------------------------------------------------------- in the shipped steps


class Colour(nn.Module):
    def __init__(self, colour: list[float]) -> None:
        super().__init__()
        self.colour = nn.Parameter(torch.tensor(colour, dtype=torch.float64))

    def forward(self, count: int) -> Tensor:
        return self.colour.view(1, 3, 1, 1).expand(count, -1, -1, -1)


class Linear(nn.Module):
    """D(x) = w . x."""

    head = Unconditional

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, images: Tensor, labels: Tensor, masks: object = None) -> DiscriminatorOutput:
        return DiscriminatorOutput(images.flatten(1), images.flatten(1) @ self.w)


def game(G: nn.Module, D: nn.Module, loss: Loss, rate: float, policy: str = "ada") -> TrainState:
    opt_g, opt_d = (torch.optim.SGD(net.parameters(), lr=rate, fused=True) for net in (G, D))
    config = replace(Config(), loss=loss, data=Data(augment=policy))  # type: ignore[arg-type]
    return TrainState(config, ImageSpec(1, 1, 3, ("a",)), G, D, G, opt_g, opt_d, objective(loss), torch.zeros(()))


RED, CYAN = [0.6, -0.3, -0.3], [-0.6, 0.3, 0.3]


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


# ---------------------------------------------------------------------------- r and p


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

    head = Unconditional

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


# ---------------------------------------------------------------------------- a run


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


# ---------------------------------------------------------------------------- words and choices


def test_the_names() -> None:
    assert describe_policy("ada", 3) == "ada (brightness, contrast, saturation, hue, translation, cutout)"
    assert describe_policy("diffaugment", 1) == "diffaugment (brightness, contrast, translation, cutout)"
    assert describe_policy("gentle", 1) == "gentle (brightness, contrast, translation)"
    assert describe_policy("gentle", 4) == "gentle (brightness, saturation, contrast, translation)"
    assert resolve({}).data.augment == "none"
    assert resolve({"augment": "ada"}).data.augment == "ada"
    with raises("unknown-name", "augment", "'adda'", "none, gentle, diffaugment, ada"):
        resolve({"augment": "adda"})
