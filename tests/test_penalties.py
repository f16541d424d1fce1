"""The penalties on D's gradient against closed forms, Jacobians and double differentiation, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from ptarmigan.losses.penalties import between, one_centred, squared_gradient_norm

N, SHAPE = 4, (2, 3, 2)
SIZE = math.prod(SHAPE)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


IMAGES = numbers(N, *SHAPE)
W1, W2 = numbers(5, SIZE, seed=1) / 3, numbers(5, seed=2)


def curved(images: Tensor, w1: Tensor = W1, w2: Tensor = W2) -> Tensor:
    """A small smooth D: logits [N]."""
    return (images.flatten(1) @ w1.T).tanh() @ w2


def test_r1_of_a_linear_discriminator_is_half_gamma_times_its_squared_slope() -> None:
    w, gamma = numbers(SIZE, seed=3), 0.4
    x = IMAGES.clone().requires_grad_()
    each = squared_gradient_norm(x.flatten(1) @ w + 5, x)
    torch.testing.assert_close(gamma / 2 * each, (gamma / 2 * (w @ w)).expand(N))


def test_r1_behind_batch_norm_is_nothing() -> None:
    """Why batch norm is refused: the sum of a normalised batch never changes, whatever the slope."""
    w = numbers(SIZE, seed=3)
    x = IMAGES.clone().requires_grad_()
    logits = F.batch_norm((x.flatten(1) @ w).unsqueeze(1), None, None, training=True).squeeze(1)
    assert squared_gradient_norm(logits, x).max() < 1e-20
    assert torch.autograd.functional.jacobian(lambda i: i.flatten(1) @ w, IMAGES).abs().max() > 1


def test_the_squared_norm_of_each_samples_own_gradient() -> None:
    x = IMAGES.clone().requires_grad_()
    each = squared_gradient_norm(curved(x), x)
    assert each.shape == (N,)
    for i in range(N):
        own = torch.autograd.functional.jacobian(curved, IMAGES[i : i + 1])
        assert each[i].item() == pytest.approx(own.square().sum().item())


def test_the_squared_norm_on_points_is_that_on_the_same_numbers_as_images() -> None:
    x, points = IMAGES.clone().requires_grad_(), IMAGES.flatten(1).requires_grad_()
    of_points = squared_gradient_norm(curved(points.view_as(IMAGES)), points)
    assert of_points.tolist() == pytest.approx(squared_gradient_norm(curved(x), x).tolist())


def test_the_gradient_penalty_is_zero_at_slope_one_and_quadratic_beside_it() -> None:
    x = IMAGES.clone().requires_grad_()
    w = numbers(SIZE, seed=3)
    for size in (0.25, 1.0, 3.0):
        each = one_centred(x.flatten(1) @ (size * w / w.norm()), x)
        torch.testing.assert_close(10 * each, torch.full((N,), 10 * (size - 1) ** 2, dtype=x.dtype))


def test_the_slope_that_ten_times_the_gradient_penalty_allows() -> None:
    """WGAN-GP with a linear D and a gap mu between the means: slope 1 + mu/20, where the gradient is 0."""
    mu = 0.7
    w = torch.tensor([1 + mu / 20], dtype=torch.float64, requires_grad=True)
    x = numbers(N, 1, 1, 1).requires_grad_()
    loss = -mu * w[0] + 10 * one_centred((x.flatten(1) * w).sum(1), x).mean()  # E f - E r = -mu w
    assert torch.autograd.grad(loss, w)[0].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_penalty_of_a_flat_discriminator_is_one_with_a_finite_slope(dtype: torch.dtype) -> None:
    w = torch.zeros(SIZE, dtype=dtype, requires_grad=True)
    x = IMAGES.to(dtype).requires_grad_()
    each = one_centred(x.flatten(1) @ w, x)
    torch.testing.assert_close(each, torch.ones(N, dtype=dtype), rtol=0, atol=1e-12)
    assert torch.autograd.grad(each.sum(), w)[0].isfinite().all()


@pytest.mark.parametrize("penalty", [squared_gradient_norm, one_centred])
def test_penalties_differentiate_twice(penalty: Callable[..., Tensor]) -> None:
    def of(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
        return penalty(curved(x, w1, w2), x)

    inputs = tuple(t.clone().requires_grad_() for t in (IMAGES[:2], W1[:3], W2[:3]))
    assert gradcheck(of, inputs)
    assert gradgradcheck(of, inputs)


def test_low_precision_gradients_are_summed_in_fp32() -> None:
    """1 + 4096 / 256^2 twos of bf16: a bf16 sum of the 4,096 small squares would stop short."""
    x = torch.zeros(1, 1, 64, 64, dtype=torch.bfloat16, requires_grad=True)
    w = torch.full((64, 64), 2.0**-8, dtype=torch.bfloat16)
    w[0, 0] = 1.0
    each = squared_gradient_norm((x * w).sum((1, 2, 3)), x)
    assert each.dtype == torch.float32
    assert each.item() == 1 + 4095 * 2.0**-16
    assert squared_gradient_norm(curved(y := IMAGES.clone().requires_grad_()), y).dtype == torch.float64


def test_between_draws_one_place_for_each_pair_and_cuts_it_off() -> None:
    real, fake = IMAGES.clone().requires_grad_(), numbers(N, *SHAPE, seed=4).requires_grad_()
    u = torch.tensor([0.0, 0.25, 0.6, 1.0], dtype=torch.float64)
    mixed = between(real, fake, u)
    for i in range(N):
        torch.testing.assert_close(mixed[i], u[i] * real[i] + (1 - u[i]) * fake[i])
    assert torch.equal(mixed[0], fake[0])
    assert torch.equal(mixed[3], real[3])
    assert mixed.is_leaf
    assert mixed.requires_grad
