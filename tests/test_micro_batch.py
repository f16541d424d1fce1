"""A batch in parts has the gradient of the whole, also through the shipped steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ptarmigan.config import resolve
from ptarmigan.core import dist
from ptarmigan.core.types import Batch, ImageSpec
from ptarmigan.game.batch import generate_fakes
from ptarmigan.game.micro_batch import Part, accumulate, slices, split
from ptarmigan.game.state import TrainState
from ptarmigan.game.step import d_step, g_step
from ptarmigan.networks.layers import BatchNorm, power_iteration
from support import GivenDraws, raises

X = torch.randn((7, 2, 8, 8), dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3 + 5
TARGET = torch.randn((7, 3, 3, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def network(norm: bool) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), BatchNorm(4) if norm else nn.Tanh(), nn.Tanh(), nn.Conv2d(4, 3, 4), nn.Tanh()]
    return nn.Sequential(*layers).double()


def gradients(net: nn.Module, size: int) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Means of two terms, and the gradients in the images and the weights, from parts of at most `size`."""
    x, labels = X.clone().requires_grad_(), torch.zeros(7)
    parts = split(Batch(x, labels), Batch(TARGET, labels), GivenDraws(), size)  # type: ignore[arg-type]

    def terms(part: Part) -> dict[str, Tensor]:
        gap = (net(part.real.images) - part.fake.images).flatten(1)
        return {"square": gap.square().sum(1), "sine": gap.sin().sum(1)}

    net.zero_grad()
    means = accumulate(terms, parts, [*net.parameters(), x])
    return means, [p.grad.clone() for p in (*net.parameters(), x) if p.grad is not None]


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_parts_have_the_gradient_and_the_values_of_the_whole(size: int) -> None:
    net = network(norm=False)
    for one, other in zip(gradients(net, 0), gradients(net, size), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-12)


def test_batch_norm_normalises_part_by_part() -> None:
    """So the test above can fail: with batch norm, parts have other gradients than the whole."""
    net = network(norm=True)
    assert not torch.allclose(gradients(net, 3)[1][0], gradients(net, 0)[1][0], rtol=1e-2)


def test_the_parts_of_a_batch() -> None:
    assert slices(7, 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert slices(7, 0) == slices(7, 7) == slices(7, 100) == [slice(0, 7)]


@pytest.mark.parametrize("recipe", ["dcgan", "acgan"])
def test_batch_norm_in_d_is_refused(recipe: str) -> None:
    with raises("options-conflict", "micro_batch", "batch norm"):
        resolve({"recipe": recipe, "micro_batch": 16})


# --- the shipped steps ------------------------------------------------------------------------------------------

LABELS = torch.tensor([0, 1, 2, 2, 1, 0, 1])
ASKED = torch.tensor([1, 2, 0, 1, 2, 2, 0])
GAMES: dict[str, dict[str, Any]] = {
    "auto": {},
    "acgan": {"recipe": "acgan", "d_norm": "none"},
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
    masks = [[torch.rand((7, *shape), generator=draw, dtype=torch.float64) for shape in shapes] for _ in range(2)]
    draws = GivenDraws(z=z, halves=(masks[0], masks[1]))
    terms: dict[str, Tensor] = {}
    for _ in range(2):  # the second time shows that the first left no gradient behind
        fake = generate_fakes(state, ASKED, z)
        if not micro_batch:  # the whole batch at once, of images that have the statistics of each part
            fake = Batch(torch.cat([state.G(z[part], ASKED[part]) for part in slices(7, 3)]), ASKED)
        assert fake.images.requires_grad == (not micro_batch)
        d, g = d_step(state, real, fake, draws), g_step(state, real, fake, draws)
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


def test_under_bf16_both_networks_compute_in_bf16() -> None:
    config = resolve({"width": 4, "batch": 4, "latent_dim": 6, "class_dim": 4, "images": "1k"})
    state = TrainState.create(config, ImageSpec(16, 16, 1, ("a", "b")), torch.device("cpu"), bf16=True)
    seen: dict[str, set[torch.dtype]] = {"G": set(), "D": set()}
    for name, network in (("G", state.G), ("D", state.D.body)):
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.register_forward_hook(lambda _, __, out, name=name: seen[name].add(out.dtype))
    z, labels = torch.randn(4, 6), torch.tensor([0, 1, 1, 0])
    real, fake = Batch(torch.randn(4, 1, 16, 16), labels), generate_fakes(state, labels, z)
    d_step(state, real, fake, GivenDraws(z=z))
    g_step(state, real, fake, GivenDraws(z=z))
    assert seen == {"G": {torch.bfloat16}, "D": {torch.bfloat16}}
