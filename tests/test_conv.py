"""Convolutions by matrix products: torch's own values, gradients and theirs; where they are taken; what is spared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from ptarmigan.config import resolve
from ptarmigan.core import conv as convolution
from ptarmigan.core.conv import Conv2d, ConvTranspose2d, Shape, slope
from ptarmigan.core.types import Batch, ImageSpec
from ptarmigan.game.batch import generate_fakes
from ptarmigan.game.state import TrainState
from ptarmigan.game.step import d_step, g_step
from ptarmigan.losses.penalties import squared_gradient_norm
from support import GivenDraws

# height, width, kernel, stride, padding: those of the networks, and some that no network has
SHAPES = [Shape(8, 6, 4, 2, 1), Shape(4, 3, 3, 1, 1), Shape(5, 4, 1, 1, 0), Shape(7, 9, 3, 2, 1), Shape(6, 8, 2, 2, 0)]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def form(of: Shape) -> dict[str, Tensor]:
    """g, w and x of a convolution from 2 channels to 3."""
    x, w = numbers(2, 2, of.height, of.width), numbers(3, 2, of.kernel, of.kernel, seed=1)
    y = F.conv2d(x, w, None, of.stride, of.padding)
    return {"g": numbers(*y.shape, seed=2), "w": w, "x": x}


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Take the matrix products for every map of bf16 or float64, or for none."""
    return lambda yes: monkeypatch.setattr(
        convolution, "matrix_product_is_faster", lambda x, *_: yes and x.dtype != torch.float32
    )


@pytest.fixture
def correlations(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The gradients of weights by matrix products, as they are found."""
    found: list[Tensor] = []

    def kept(*arguments: Any) -> Tensor:
        found.append(convolution.correlation(*arguments))
        return found[-1]

    monkeypatch.setitem(convolution.SLOPES, "w", kept)
    return found


@pytest.mark.parametrize("of", SHAPES)
def test_each_slope_is_the_gradient_of_the_form(of: Shape) -> None:
    tensors = form(of)
    leaves = {name: value.clone().requires_grad_() for name, value in tensors.items()}
    value = (leaves["g"] * F.conv2d(leaves["x"], leaves["w"], None, of.stride, of.padding)).sum()
    for name, expected in zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True):
        torch.testing.assert_close(slope(name, of, **tensors), expected)


@pytest.mark.parametrize("of", SHAPES)
@pytest.mark.parametrize("name", ["g", "w", "x"])
def test_slopes_have_gradients_and_these_have_theirs(name: str, of: Shape) -> None:
    others = [key for key in "gwx" if key != name]
    inputs = [form(of)[key].requires_grad_() for key in others]

    def by(*given: Tensor) -> Tensor:
        return slope(name, of, **dict(zip(others, given, strict=True)))

    assert gradcheck(by, inputs)
    assert gradgradcheck(by, inputs)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
def test_layers_are_torchs(kind: type[nn.Module], bias: bool, everywhere: Callable[[bool], None]) -> None:
    layer = kind(2, 3, 4, stride=2, padding=1, bias=bias).double()
    found = []
    for yes in (False, True):
        everywhere(yes)
        x = numbers(2, 2, 8, 6).requires_grad_()
        out = layer(x)
        (first,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        found.append([out, first, *torch.autograd.grad(first.square().sum() + out.sum(), [x, *layer.parameters()])])
    for own, theirs in zip(*found, strict=True):
        torch.testing.assert_close(own, theirs)


def test_groups_are_torchs_alone(everywhere: Callable[[bool], None], correlations: list[Tensor]) -> None:
    everywhere(True)
    layer = Conv2d(4, 4, 3, padding=1, groups=2).double()
    x = numbers(2, 4, 5, 5)
    out = layer(x)
    out.sum().backward()
    torch.testing.assert_close(out, F.conv2d(x, layer.weight, layer.bias, padding=1, groups=2))
    assert not correlations


def test_where_the_product_is_taken(monkeypatch: pytest.MonkeyPatch, correlations: list[Tensor]) -> None:
    def taken(layer: nn.Module, x: Tensor) -> bool:
        correlations.clear()
        layer.to(x.dtype)(x).sum().backward()
        return bool(correlations)

    for amx in (True, False):
        monkeypatch.setattr(convolution, "has_amx", lambda amx=amx: amx)
        assert taken(Conv2d(2, 128, 4, stride=2, padding=1), torch.ones(1, 2, 16, 16).bfloat16()) == amx
        assert taken(ConvTranspose2d(128, 2, 4, stride=2, padding=1), torch.ones(1, 128, 8, 8).bfloat16()) == amx
        # 9x8 places are too many, and 127 channels too few
        assert not taken(Conv2d(2, 128, 4, stride=2, padding=1), torch.ones(1, 2, 18, 16).bfloat16())
        assert not taken(ConvTranspose2d(128, 2, 4, stride=2, padding=1), torch.ones(1, 128, 9, 8).bfloat16())
        assert not taken(Conv2d(128, 127, 3, padding=1), torch.ones(1, 128, 4, 4).bfloat16())
        assert not taken(ConvTranspose2d(127, 128, 4, stride=2, padding=1), torch.ones(1, 127, 4, 4).bfloat16())
        assert not taken(Conv2d(2, 128, 3, padding=1), torch.ones(1, 2, 4, 4))


def test_in_bf16_the_product_errs_about_as_much_as_torchs_gradient() -> None:
    of = Shape(8, 8, 4, 2, 1)
    x, w, g = numbers(16, 32, 8, 8), numbers(128, 32, 4, 4), numbers(16, 128, 4, 4, seed=2)
    cast = {name: value.bfloat16().to(memory_format=torch.channels_last) for name, value in (("x", x), ("g", g))}
    exact = slope("w", of, g=cast["g"].double(), x=cast["x"].double())
    weight = w.bfloat16().requires_grad_()
    (theirs,) = torch.autograd.grad(F.conv2d(cast["x"], weight, None, 2, 1), weight, cast["g"])
    own = (slope("w", of, **cast).double() - exact).abs().max()
    assert own <= 1.5 * (theirs.double() - exact).abs().max()
    assert own < exact.abs().max() / 100


GAMES = {
    "auto": {"recipe": "auto"},
    "dcgan": {"recipe": "dcgan"},
    "spectral": {"d_norm": "spectral", "loss": "hinge", "penalty_every": 1},
    "in parts": {"micro_batch": 3},
}


def played(game: str, bf16: bool = False) -> TrainState:
    """Two steps of each player on 16x16, the first of them with R1 and R2 where the game has these; one in bf16."""
    config = resolve({"width": 4, "batch": 4, "latent_dim": 6, "class_dim": 5, "images": "100", **GAMES[game]})
    state = TrainState.create(config, ImageSpec(16, 16, 1, ("a", "b")), torch.device("cpu"), bf16)
    state.micro_batch = config.train.micro_batch
    dtype = torch.float32 if bf16 else torch.float64
    for network in (state.G, state.D):
        network.to(dtype)
    labels = torch.tensor([0, 1, 1, 0])
    for step in range(1 if bf16 else 2):
        z = numbers(4, 6, seed=10 + step).to(dtype)
        real = Batch(numbers(4, 1, 16, 16, seed=step).tanh().to(dtype), labels)
        fake, draws = generate_fakes(state, labels, z), GivenDraws(z=z)
        d_step(state, real, fake, draws)
        g_step(state, real, fake, draws)
        state.images_seen += 4
    return state


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("game", GAMES)
def test_a_step_is_the_same_either_way(
    game: str, bf16: bool, everywhere: Callable[[bool], None], correlations: list[Tensor]
) -> None:
    """In float64; and as it is shipped, weights in fp32 and maps in bf16, where gradients agree as far as bf16 goes."""
    states = []
    for yes in (False, True):
        everywhere(yes)
        states.append(played(game, bf16).tensors())
        assert bool(correlations) == yes
    for name, value in states[0].items():
        if bf16:
            if name.endswith(".exp_avg"):  # the gradient's share
                assert (states[1][name] - value).norm() <= 0.1 * value.norm() + 1e-6, name
        else:
            torch.testing.assert_close(states[1][name], value, rtol=1e-7, atol=1e-9, msg=name)


def test_what_asks_for_no_weights_finds_none(everywhere: Callable[[bool], None], correlations: list[Tensor]) -> None:
    """R1's own slope, whose gradient in the weights stays torch's."""
    everywhere(True)
    layer = Conv2d(2, 3, 4, stride=2, padding=1).double()
    x = numbers(2, 2, 8, 8).requires_grad_()
    penalty = squared_gradient_norm(layer(x).tanh().sum((1, 2, 3)), x).sum()
    assert not correlations
    (own,) = torch.autograd.grad(penalty, layer.weight, retain_graph=True)
    assert correlations
    everywhere(False)
    (theirs,) = torch.autograd.grad(squared_gradient_norm(layer(x).tanh().sum((1, 2, 3)), x).sum(), layer.weight)
    torch.testing.assert_close(own, theirs)
    torch.autograd.grad(penalty, layer.weight)  # and the next call is not spared what it asks for


def test_a_step_of_g_finds_no_gradient_of_ds_weights(
    everywhere: Callable[[bool], None], correlations: list[Tensor]
) -> None:
    everywhere(True)
    state = played("auto")
    of_g = sum(isinstance(part, Conv2d | ConvTranspose2d) for part in state.G.modules())
    labels, real = torch.tensor([0, 1]), numbers(2, 1, 16, 16).tanh()
    correlations.clear()
    g_step(state, Batch(real, labels), Batch(state.G(numbers(2, 6), labels), labels), GivenDraws())
    assert len(correlations) == of_g

    def fail(**_: Tensor) -> Tensor:
        raise MemoryError

    state.objective = replace(state.objective, g=fail)
    with pytest.raises(MemoryError):
        g_step(state, Batch(real, labels), Batch(state.G(numbers(2, 6), labels), labels), GivenDraws())
    correlations.clear()
    d_step(state, Batch(real, labels), Batch(state.G(numbers(2, 6), labels), labels), GivenDraws())
    assert correlations  # D's own step is not spared what it asks for
