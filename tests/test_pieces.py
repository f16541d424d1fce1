"""A batch in parts has the gradient of the whole, through batch norm and the shipped steps too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ptarmigan.config import resolve
from ptarmigan.core import dist
from ptarmigan.core.types import Batch, ImageSpec
from ptarmigan.game.micro_batch import backward, forward, parts_of
from ptarmigan.game.state import TrainState
from ptarmigan.game.step import d_step, g_step
from ptarmigan.networks.layers import BatchNorm, power_iteration


def network() -> nn.Module:
    """Three batch norms, one of them met twice."""
    torch.manual_seed(0)
    again = BatchNorm(4)
    layers = [
        nn.Conv2d(2, 4, 3), again, nn.Tanh(), nn.Conv2d(4, 4, 3), again, nn.Tanh(), nn.Conv2d(4, 3, 2),
        BatchNorm(3, running=False), nn.Tanh(),
    ]  # fmt: skip
    net = nn.Sequential(*layers).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) / 2)
    return net


X = torch.randn((7, 2, 8, 8), dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3 + 5
TARGET = torch.randn((7, 3, 3, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_parts_have_the_gradient_and_the_values_of_the_whole(size: int) -> None:
    net, parts = network(), parts_of(7, size)
    x = X.clone().requires_grad_()

    def terms(part: slice) -> dict[str, Tensor]:
        gap = net(x[part]) - TARGET[part]
        return {"square": gap.square().sum() / 7, "sine": gap.sin().sum() / 7}

    whole = backward(terms, parts_of(7, 0), net, [*net.parameters(), x])
    expected = [x.grad, *(parameter.grad for parameter in net.parameters())]
    x.grad = None
    net.zero_grad()
    got = backward(terms, parts, net, [*net.parameters(), x])
    for name in whole:
        torch.testing.assert_close(got[name], whole[name], rtol=1e-12, atol=0)
    for one, other in zip([x.grad, *(parameter.grad for parameter in net.parameters())], expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(forward(lambda part: net(x[part]), parts, net), net(x).detach(), rtol=1e-12, atol=1e-12)
    assert all(m.normalise is None for m in net.modules() if isinstance(m, BatchNorm))


def test_one_part_is_not_the_whole() -> None:
    """The test above can fail: with statistics of its own each part gives another gradient."""
    net = network()

    def gradient(parts: list[slice]) -> Tensor:
        net.zero_grad()
        for part in parts:
            ((net(X[part]) - TARGET[part]).square().sum() / 7).backward()
        return torch.cat([parameter.grad.flatten() for parameter in net.parameters() if parameter.grad is not None])

    assert not torch.allclose(gradient(parts_of(7, 3)), gradient(parts_of(7, 0)), rtol=1e-2)


def test_the_parts_of_a_batch() -> None:
    assert parts_of(7, 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert parts_of(7, 0) == parts_of(7, 7) == parts_of(7, 100) == [slice(0, 7)]


def test_a_network_is_given_back_whole_after_a_failure() -> None:
    net = network()

    def fail(part: slice) -> dict[str, Tensor]:
        net(X[part])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        backward(fail, parts_of(7, 3), net, list(net.parameters()))
    assert all(m.normalise is None for m in net.modules() if isinstance(m, BatchNorm))


# --- the shipped steps ------------------------------------------------------------------------------------------

LABELS = torch.tensor([0, 1, 2, 2, 1, 0, 1])
ASKED = torch.tensor([1, 2, 0, 1, 2, 2, 0])
GAMES: dict[str, dict[str, Any]] = {
    "auto": {},
    "acgan": {"recipe": "acgan"},
    "dcgan": {"recipe": "dcgan"},
    "r3gan": {"network": "r3gan"},
    "sngan": {"network": "resnet", "d_norm": "spectral", "loss": "hinge", "r1": 0, "r2": 0},
}


def played(game: str, micro_batch: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Terms and gradients of one step of each player, in float64."""
    given = {**GAMES[game], "width": 4, "batch": 7, "latent_dim": 6, "class_dim": 4, "images": "1M", "g_lr": 0}
    state = TrainState.create(resolve({**given, "d_lr": 0}), ImageSpec(16, 16, 1, ("a", "b", "c")), torch.device("cpu"))
    state.G.double()
    state.D.double()
    for _ in range(500):  # to where another turn changes nothing
        power_iteration(state.D)
    state.micro_batch = micro_batch
    draw = torch.Generator().manual_seed(3)
    for parameter in state.G.parameters():  # what begins at 0 would have no part in it
        if not parameter.any():
            parameter.data.normal_(0, 0.1, generator=draw)
    real = Batch(torch.randn((7, 1, 16, 16), generator=draw, dtype=torch.float64).tanh(), LABELS)
    z = torch.randn((7, state.config.model.latent_dim), generator=draw, dtype=torch.float64)
    shapes: Any = state.D.body.mask_shapes
    halves = [[torch.rand((7, *shape), generator=draw, dtype=torch.float64) for shape in shapes] for _ in range(2)]

    def drop(part: slice) -> Any:
        return tuple([mask[part] for mask in half] for half in halves)

    def make(part: slice) -> Tensor:
        images: Tensor = state.G(z[part], ASKED[part])
        return images

    terms: dict[str, Tensor] = {}
    for _ in range(2):  # the second time shows that the first left no gradient behind
        parts = parts_of(7, micro_batch)
        fake = Batch(forward(make, parts, state.G) if micro_batch else make(slice(None)), ASKED)
        d = d_step(state, real, fake, drop)
        g = g_step(state, real, fake, drop, make if micro_batch else None)
        now = {f"d_{name}": value for name, value in d.items()} | {f"g_{name}": value for name, value in g.items()}
        for name, value in terms.items():
            torch.testing.assert_close(now[name], value, rtol=1e-9, atol=1e-12)
        terms = now
    assert not state.found_inf
    networks = {"D": state.D, "G": state.G}
    named = {f"{key}.{name}": p for key, network in networks.items() for name, p in network.named_parameters()}
    return terms, {name: parameter.grad for name, parameter in named.items() if parameter.grad is not None}


@pytest.mark.parametrize("game", GAMES)
def test_a_step_in_parts_is_the_step(game: str) -> None:
    whole, parts = played(game, 0), played(game, 3)
    for one, other in zip(whole, parts, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(other[name], one[name], rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n} {m}")


def test_gradients_and_terms_are_averaged_over_ranks_before_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = played("auto", 0)

    def as_if_the_other_rank_had_zeros(tensors: list[Tensor]) -> None:
        for tensor in tensors:
            tensor.div_(2)

    monkeypatch.setattr(dist, "average_", as_if_the_other_rank_had_zeros)
    halved, _ = played("auto", 0)
    for name, value in whole.items():
        torch.testing.assert_close(halved[name], value / 2, rtol=1e-9, atol=0)
