"""Each transform of what D sees: its draws, its gradients, and what it gives away."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

import ptarmigan.game.augment as augment_module
from ptarmigan.config import resolve
from ptarmigan.core import seeding
from ptarmigan.game.augment import (
    CAP,
    DRAWS,
    GATES,
    HALF,
    POLICIES,
    Change,
    augment,
    change,
    describe_policy,
)
from support import raises

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
