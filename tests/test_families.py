"""r3gan and resnet: sizes, what their blocks compute, how they resample, where they start; spectral norm in any D."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from ptarmigan.config import Model, resolve
from ptarmigan.core.types import Batch, ImageSpec
from ptarmigan.data.batches import on_white_for_d
from ptarmigan.game.batch import generate_fakes
from ptarmigan.game.state import TrainState
from ptarmigan.game.step import d_step, g_step
from ptarmigan.generator.generator import generate_images
from ptarmigan.networks import build, build_generator, r3gan, resampling, resnet
from ptarmigan.networks.layers import (
    LEAK,
    SpectralConv2d,
    SpectralEmbedding,
    SpectralLinear,
    normalised,
    power_iteration,
    recalibrate_batch_norm,
    spectral_norm,
)  # fmt: skip
from support import GivenDraws, raises

NAMES = ("ant", "bee", "cat")
SMALL = Model(width=4, latent_dim=6, class_dim=5)
FAMILIES = {
    "r3gan": replace(SMALL, network="r3gan"),
    "resnet": replace(SMALL, network="resnet"),
    "sngan": replace(SMALL, network="resnet", d_norm="spectral"),
    "spectral dcgan": replace(SMALL, d_norm="spectral"),
}
Spectral = SpectralConv2d | SpectralLinear | SpectralEmbedding


def spec(height: int, width: int, channels: int = 1) -> ImageSpec:
    return ImageSpec(height, width, channels, NAMES)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def draws(model: Model, count: int = 4) -> tuple[Tensor, Tensor]:
    return numbers(count, model.latent_dim).float(), torch.arange(count) % len(NAMES)


def noise(of: ImageSpec, count: int = 4) -> Tensor:
    return numbers(count, of.channels, of.height, of.width, seed=1).tanh().float()


def stirred(net: nn.Module, size: float = 0.3) -> nn.Module:
    """With no weight at its first value: nothing is 0 any more."""
    with torch.no_grad():
        for seed, parameter in enumerate(net.parameters()):
            parameter.add_(
                size * numbers(*parameter.shape, seed=seed).to(parameter.dtype) / parameter[0].numel() ** 0.5
            )
    return net


# ---------------------------------------------------------------------------- sizes


SIDE = st.integers(16, 256)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(height=SIDE, width=SIDE, channels=st.sampled_from([1, 3, 4]), wide=st.integers(1, 5))
@example(height=512, width=512, channels=3, wide=1)
def test_any_height_and_width(name: str, height: int, width: int, channels: int, wide: int) -> None:
    model, of = replace(FAMILIES[name], width=wide, latent_dim=3, class_dim=2), spec(height, width, channels)
    G, D = build(of, model, 0)
    stirred(G)
    z, labels = draws(model, 2)
    with torch.no_grad():
        images = G(z, labels)
        seen = on_white_for_d(images)
        output = D(seen, labels)
        masks = [torch.ones(2, *shape) for shape in D.body.mask_shapes]
        assert torch.equal(D(seen, labels, masks).logits, output.logits)
    assert images.shape == (2, channels, height, width)
    assert output.logits.shape == (2,)
    assert output.features.shape == (2, D.body.features)
    assert torch.isfinite(output.logits).all()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [(16, 16), (17, 31), (28, 28), (41, 16)])
def test_every_pixel_counts_for_d_and_is_drawn_by_g(name: str, size: tuple[int, int]) -> None:
    of = spec(*size, 3)
    G, D = build(of, FAMILIES[name], 0)
    z, labels = draws(SMALL, 16)
    x = noise(of, 16).requires_grad_()
    assert torch.autograd.grad(D(x, labels).logits.sum(), x)[0].abs().amax((0, 1)).min() > 0
    assert G(z, labels).std(0).min() > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_twenty_eight_runs_as_28_14_7_4(name: str) -> None:
    model, of = FAMILIES[name], spec(28, 28)
    G, D = build(of, model, 0)
    maps = [(4, 14, 14), (8, 7, 7), (16, 4, 4)]
    assert D.body.mask_shapes == maps + [maps[-1]] * (model.network == "resnet")
    assert D.body.features == (16 if model.network == "resnet" else 16 * 4 * 4)
    if model.network == "dcgan":
        return
    places: list[tuple[int, ...]] = []
    for net in (G.blocks, D.body.blocks):
        for block in net:
            block.register_forward_hook(lambda module, inputs, output: places.append(tuple(output.shape[1:])))
    z, labels = draws(SMALL)
    D(G(z, labels), labels)
    rising = [(16, 4, 4), (8, 7, 7), (4, 14, 14)] if name == "r3gan" else [(8, 7, 7), (4, 14, 14), (4, 28, 28)]
    assert places == rising + D.body.mask_shapes


@pytest.mark.parametrize("name", FAMILIES)
def test_masks_multiply_each_stage(name: str) -> None:
    of = spec(16, 16)
    _, D = build(of, FAMILIES[name], 0)
    x, labels = noise(of, 2), torch.zeros(2, dtype=torch.int64)
    ones = [torch.ones(2, *shape) for shape in D.body.mask_shapes]
    plain = D(x, labels).features
    torch.testing.assert_close(D(x, labels, [*ones[:-1], 3 * ones[-1]]).features, 3 * plain)
    for place in range(len(ones)):
        assert not torch.equal(D(x, labels, [*ones[:place], 0 * ones[place], *ones[place + 1 :]]).features, plain)


# ---------------------------------------------------------------------------- independence, classes, seeds, precision


@pytest.mark.parametrize("name", FAMILIES)
def test_d_takes_each_sample_by_itself(name: str) -> None:
    """d logit_i / d image_j = 0 for i != j, which is what the penalties need."""
    of = spec(28, 28)
    _, D = build(of, FAMILIES[name], 0)
    stirred(D)
    x, labels = noise(of).requires_grad_(), torch.tensor([0, 1, 2, 0])
    reach = torch.stack(
        [torch.autograd.grad(logit, x, retain_graph=True)[0].abs().sum((1, 2, 3)) for logit in D(x, labels).logits]
    )
    assert reach.diagonal().min() > 0
    assert reach[~torch.eye(4, dtype=torch.bool)].max() == 0


def test_an_image_of_r3gan_never_depends_on_its_batch_and_one_of_resnet_only_in_training() -> None:
    of = spec(28, 28)
    z, labels = draws(SMALL, 64)
    for name in ("r3gan", "resnet"):
        G = stirred(build_generator(of, FAMILIES[name]))
        with torch.no_grad():
            apart = (G(z[:3], labels[:3]) - G(z, labels)[:3]).abs().max()
            recalibrate_batch_norm(G, [(z, labels)])
            settled = G(z, labels)
            G.eval()
            evaluated = (G(z[:3], labels[:3]) - G(z, labels)[:3]).abs().max()
        assert evaluated < 1e-5
        assert apart < 1e-5 if name == "r3gan" else apart > 0.01
        assert (G(z, labels) - settled).abs().max() < 0.05


@pytest.mark.parametrize("name", ["r3gan", "resnet"])
def test_the_class_changes_the_image_and_only_where_there_is_one(name: str) -> None:
    of, model = spec(28, 28), FAMILIES[name]
    z, labels = draws(model)
    with torch.no_grad():
        G = stirred(build_generator(of, model))
        before = G(z, labels)
        assert (before - G(z, (labels + 1) % 3)).abs().amax((1, 2, 3)).min() > 1e-3
        G.embedding.weight[1] += 1
        changed = (before - G(z, labels)).abs().amax((1, 2, 3)) > 1e-3
        # batch statistics carry a change to the other samples too
        assert changed.tolist() == [name == "resnet" or label == 1 for label in labels.tolist()]
        G = stirred(build_generator(of, replace(model, conditioning="none")))
        assert torch.equal(G(z, labels), G(z, (labels + 1) % 3))
    assert G.embedding is None


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("conditioning", ["none", "auxiliary_classifier", "projection"])
def test_weights_come_from_the_seed_alone(name: str, conditioning: str) -> None:
    model, of = replace(FAMILIES[name], conditioning=conditioning), spec(16, 16)

    def values(seed: int) -> dict[str, Tensor]:
        nets = build(of, model, seed)
        return {f"{i}.{key}": value.clone() for i, net in enumerate(nets) for key, value in net.state_dict().items()}

    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = values(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    again, other = values(3), values(4)
    assert all(value.dtype in (torch.float32, torch.int64) for value in first.values())
    assert all(torch.equal(first[key], again[key]) for key in first)
    alike = [key for key in first if torch.equal(first[key], other[key])]
    zero = ("bias", "project.weight", "modulate.weight") if name == "r3gan" else ("norm", "modulate", "source.u")
    assert all(any(part in key for part in (*zero, "source.u")) for key in alike), alike


@pytest.mark.parametrize("name", FAMILIES)
def test_images_and_logits_are_fp32_under_autocast(name: str) -> None:
    of, model = spec(20, 28), FAMILIES[name]
    G, D = build(of, model, 0)
    z, labels = draws(model)
    images, exact = G(z, labels), D(noise(of), labels).logits
    with torch.autocast("cpu", torch.bfloat16):
        low, logits = G(z, labels), D(noise(of), labels).logits
    assert low.dtype == logits.dtype == torch.float32
    assert 0 < (low - images).abs().max() < 0.2
    assert 0 < (logits - exact).abs().max() < 0.2
    assert G.double()(z.double(), labels).dtype == torch.float64


@pytest.mark.parametrize("name", FAMILIES)
def test_memory_format_changes_nothing(name: str) -> None:
    of, model = spec(21, 16, 3), FAMILIES[name]
    z, labels = draws(model)
    found = []
    for form in (torch.contiguous_format, torch.channels_last):
        G, D = build(of, model, 0)
        G, D = stirred(G.double().to(memory_format=form)), D.double().to(memory_format=form)
        images = G(z.double(), labels)
        found.append([images, D(images, labels).logits])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------------------- r3gan


def test_its_blocks_start_as_the_identity_and_d_as_a_linear_map() -> None:
    of, model = spec(28, 20), FAMILIES["r3gan"]
    G, D = build(of, model, 0)
    for block in [*G.blocks, *D.body.blocks]:
        x = torch.randn(2, block.expand.in_channels, 5, 6)
        assert torch.equal(block(x), x)
    x = noise(of, 2)

    def bent() -> float:
        return (D.body(2 * x[:1] - x[1:]) - (2 * D.body(x[:1]) - D.body(x[1:]))).abs().max().item()

    assert bent() < 1e-5
    stirred(D)
    assert bent() > 1e-3


@pytest.mark.parametrize("wide", [1, 7, 9, 24])
def test_a_block_is_an_inverted_bottleneck_of_whole_groups(wide: int) -> None:
    block = stirred(r3gan.Block(wide, 3)).double()
    assert block.mix.groups * 16 == block.mix.out_channels == block.expand.out_channels
    assert 0 <= block.mix.out_channels - 2 * wide < 16
    x = numbers(2, wide, 5, 4)
    # by hand: 1x1 convolutions as products over channels, the grouped one as a dense one of blocks
    dense = torch.block_diag(*[w.flatten(1) for w in block.mix.weight.view(block.mix.groups, 16, 16, 9)[:, :, :, 4]])
    with torch.no_grad():
        only = torch.zeros_like(block.mix.weight)
        only[:, :, 1, 1] = block.mix.weight[:, :, 1, 1]
        block.mix.weight.copy_(only)
        pixels = x.permute(0, 2, 3, 1)
        inside = F.leaky_relu(pixels @ block.expand.weight[:, :, 0, 0].T + block.expand.bias, LEAK)
        inside = F.leaky_relu(inside @ dense.T + block.mix.bias, LEAK)
        expected = pixels + inside @ block.project.weight[:, :, 0, 0].T
        torch.testing.assert_close(block(x).permute(0, 2, 3, 1), expected)


def test_first_values_keep_the_second_moment_through_a_block_and_a_network() -> None:
    torch.manual_seed(0)
    depth = 3
    block = r3gan.Block(256, depth)
    x = torch.randn(16, 256, 12, 12)
    with torch.no_grad():
        once = F.leaky_relu(block.expand(x), LEAK)
        twice = F.leaky_relu(block.mix(once), LEAK)[:, :, 1:-1, 1:-1]  # zeros around the map take some away
    assert once.square().mean().item() == pytest.approx(depth**-0.5, rel=0.03)
    assert twice.square().mean().item() == pytest.approx(1 / depth, rel=0.06)
    for layer, inputs in (
        (nn.Linear(300, 200), torch.randn(64, 300)),
        (nn.Conv2d(64, 96, 5), torch.randn(8, 64, 9, 9)),
    ):
        assert r3gan.scaled(layer)(inputs).square().mean().item() == pytest.approx(1, rel=0.05)
        assert not layer.bias.any()


@pytest.mark.parametrize("size", [28, 64, 256])
def test_no_stage_of_r3gan_blows_up_or_dies_out(size: int) -> None:
    """Second moments of successive maps at first, and with last convolutions as large as the others."""
    model, of = replace(FAMILIES["r3gan"], width=8, latent_dim=64), spec(size, size, 3)
    octaves = [F.interpolate(noise(spec(4 * 2**k, 4 * 2**k, 3), 16), (size, size), mode="bilinear") for k in range(3)]
    smooth = torch.stack([octave / 2**k for k, octave in enumerate(octaves)]).sum(0)
    for awake in (False, True):
        moments: dict[str, list[float]] = {}
        for name, net in zip("GD", build(of, model, 0), strict=True):
            track = moments.setdefault(name, [])
            for block in net.modules():
                if isinstance(block, r3gan.Block):
                    if awake:
                        r3gan.scaled(block.project)
                    block.register_forward_hook(
                        lambda module, inputs, output, track=track: track.append(output.square().mean().item())
                    )
            with torch.no_grad():
                net(*draws(model, 16)) if name == "G" else net.body(smooth)
        for name, track in moments.items():
            assert all(1 / 6 < later / earlier < 4 for earlier, later in pairwise(track)), (name, awake, track)


def test_both_networks_of_r3gan_by_hand_at_28() -> None:
    of, model = spec(28, 28), FAMILIES["r3gan"]
    G, D = (stirred(net).double() for net in build(of, model, 0))
    z, labels = draws(model)
    x = G.project(torch.cat([z.double(), G.embedding.weight[labels]], 1)).view(4, 16, 4, 4)
    x = F.conv2d(G.blocks[0](x), G.changes[0].weight)
    x = G.blocks[1](resampling.double(x)[:, :, :7, :7])
    x = G.blocks[2](resampling.double(F.conv2d(x, G.changes[1].weight)))
    x = F.conv2d(F.leaky_relu(resampling.double(x), LEAK), G.last.weight, G.last.bias, padding=1)
    torch.testing.assert_close(G(z.double(), labels), x)

    x = D.body.blocks[0](F.conv2d(x, D.body.first.weight, D.body.first.bias, stride=2, padding=1))
    x = D.body.blocks[1](F.conv2d(resampling.halve(x), D.body.changes[0].weight))
    x = F.conv2d(resampling.halve(F.pad(x, (0, 1, 0, 1))), D.body.changes[1].weight)
    torch.testing.assert_close(D.body(G(z.double(), labels)), D.body.blocks[2](x).flatten(1))


def test_its_images_leave_the_range_and_samples_are_clamped() -> None:
    of, model = spec(16, 16), FAMILIES["r3gan"]
    G = build_generator(of, model)
    with torch.no_grad():
        G.last.weight.mul_(20)
    z, labels = draws(model, 8)
    assert G(z, labels).abs().max() > 2
    pixels = generate_images(G, model, labels.numpy(), np.arange(8), seed=0)
    assert {0, 255} <= set(np.unique(pixels).tolist())


# ---------------------------------------------------------------------------- resampling


@pytest.mark.parametrize("size", [(6, 8), (5, 8), (7, 7)])
def test_doubling_is_the_transpose_of_halving(size: tuple[int, int]) -> None:
    x = numbers(2, 3, *size)
    small = resampling.halve(x)
    assert small.shape[2:] == tuple(-(-side // 2) for side in size)
    y = numbers(*small.shape, seed=1)
    back = resampling.double(y)[:, :, : size[0], : size[1]]
    assert (small * y).sum().item() == pytest.approx((x * back).sum().item() / 4, rel=1e-12)


def test_resampling_is_the_linear_filter_away_from_the_edges() -> None:
    x = numbers(2, 3, 12, 10)
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    doubled = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(resampling.double(x)[inner], doubled[inner])
    halved = F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False, antialias=True)
    torch.testing.assert_close(resampling.halve(x)[inner], halved[inner])
    flat = torch.full((1, 2, 9, 12), 0.7)
    for out in (resampling.halve(flat)[:, :, 1:-1, 1:-1], resampling.double(flat)[:, :, 1:-1, 1:-1]):
        torch.testing.assert_close(out, torch.full_like(out, 0.7))


def test_the_blur_is_a_triangle_with_zeros_beyond_the_edges() -> None:
    x = torch.zeros(1, 2, 4, 4)
    x[0, 0, 1, 1] = x[0, 1, 0, 0] = 16
    expected = torch.zeros(1, 2, 4, 4)
    expected[0, 0, :3, :3] = torch.tensor([[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    expected[0, 1, :2, :2] = torch.tensor([[4, 2], [2, 1]])
    torch.testing.assert_close(resampling.blur(x), expected)


@pytest.mark.parametrize("resample", [resampling.blur, resampling.halve, resampling.double])
def test_resampling_differentiates_any_number_of_times(resample: Callable[[Tensor], Tensor]) -> None:
    x = numbers(2, 3, 5, 4).requires_grad_()
    assert gradcheck(resample, x)
    assert gradgradcheck(resample, x)
    low = numbers(2, 8, 6, 6).bfloat16()
    assert resample(low).dtype == torch.bfloat16
    torch.testing.assert_close(resample(low).double(), resample(low.double()), rtol=2e-2, atol=2e-2)
    with torch.autocast("cpu", torch.bfloat16):
        (gradient,) = torch.autograd.grad(resample(y := low.float().requires_grad_()).sum(), y)
    torch.testing.assert_close(gradient, torch.autograd.grad(resample(y).sum(), y)[0], rtol=2e-2, atol=2e-2)


def test_repeating_and_averaging() -> None:
    x = numbers(2, 3, 4, 5).requires_grad_()
    near = F.interpolate(x, scale_factor=2, mode="nearest")
    for height, width in ((8, 10), (7, 9), (8, 9)):
        assert torch.equal(resnet.repeat(x, height, width), near[:, :, :height, :width])
    mean = resnet.mean_pool(x)
    assert mean.shape == (2, 3, 2, 3)
    torch.testing.assert_close(mean[..., :2], F.avg_pool2d(x[..., :4], 2))
    torch.testing.assert_close(mean[..., 2], x[..., 4].view(2, 3, 2, 2).mean(3))  # of the pixels that there are
    assert gradgradcheck(lambda x: resnet.repeat(x, 7, 9), x)
    assert gradgradcheck(resnet.mean_pool, x)


# ---------------------------------------------------------------------------- resnet


def test_conditional_batch_norm_is_batch_norm_with_each_samples_scale_and_shift() -> None:
    norm = resnet.ConditionalBatchNorm(3, 5).double()
    x, given_ = numbers(4, 3, 6, 5) * 2 + 1, numbers(4, 5, seed=1)
    plain = F.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(norm(x, given_), plain)  # at first
    stirred(norm)
    scale, shift = (given_ @ norm.modulate.weight.T).view(4, 2, 3, 1, 1).unbind(1)
    plain = plain * norm.norm.weight.view(3, 1, 1) + norm.norm.bias.view(3, 1, 1)
    torch.testing.assert_close(norm(x, given_), plain * (1 + scale) + shift)


def test_what_its_blocks_compute() -> None:
    up = stirred(resnet.UpBlock(3, 2, 5).double())
    x, given_ = numbers(4, 3, 3, 4), numbers(4, 5, seed=1)
    inside = F.interpolate(F.relu(up.norms[0](x, given_)), scale_factor=2)[:, :, :5]
    inside = F.conv2d(inside, up.convolutions[0].weight, padding=1)
    inside = F.conv2d(F.relu(up.norms[1](inside, given_)), up.convolutions[1].weight, padding=1)
    beside = F.conv2d(F.interpolate(x, scale_factor=2)[:, :, :5], up.shortcut.weight)
    torch.testing.assert_close(up(x, given_, 5, 8), inside + beside)

    for first, down in ((True, True), (False, True), (False, False)):
        block = stirred(resnet.DownBlock(3, 5 if down else 3, first=first, down=down).double())
        a, b = block.convolutions
        assert a.out_channels == (5 if first else 3)
        inside = F.conv2d(x if first else F.relu(x), a.weight, a.bias, padding=1)
        inside = F.conv2d(F.relu(inside), b.weight, b.bias, padding=1)
        beside = F.conv2d(x, block.shortcut.weight, block.shortcut.bias) if down else x  # 1x1 and a mean commute
        halved = F.avg_pool2d(F.pad(inside + beside, (0, 0, 0, 1), "replicate"), 2)
        torch.testing.assert_close(block(x), halved if down else inside + beside)


def test_its_features_are_the_sums_over_places_of_the_last_map() -> None:
    of = spec(20, 16)
    _, D = build(of, FAMILIES["resnet"], 0)
    maps: list[Tensor] = []
    D.body.blocks[-1].register_forward_hook(lambda module, inputs, output: maps.append(output))
    features = D.body(noise(of))
    torch.testing.assert_close(features, maps[0].clamp_min(0).sum((2, 3)))
    assert not D.body.blocks[-1].down


@pytest.mark.parametrize("name", FAMILIES)
def test_d_differentiates_twice(name: str) -> None:
    """What R1 needs, with respect to the image and to every weight."""
    of = spec(16, 16)
    _, D = build(of, replace(FAMILIES[name], width=1), 0)
    stirred(D).double()
    parameters = dict(D.named_parameters())
    images, labels = numbers(2, 1, 16, 16, seed=3).requires_grad_(), torch.tensor([0, 2])

    def logits(x: Tensor, *values: Tensor) -> Tensor:
        named = dict(zip(parameters, values, strict=True)) | dict(D.named_buffers())
        out: Tensor = torch.func.functional_call(D, named, (x, labels)).logits
        return out

    def penalty(x: Tensor, *values: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(logits(x, *values).sum(), x, create_graph=True)
        return gradient.square().sum()

    inputs = [images, *(value.detach().requires_grad_() for value in parameters.values())]
    assert gradcheck(logits, inputs, fast_mode=True)
    assert gradgradcheck(logits, inputs, fast_mode=True)
    assert gradcheck(penalty, inputs, fast_mode=True)


# ---------------------------------------------------------------------------- spectral norm


@pytest.mark.parametrize("shape", [(7, 5), (5, 12), (1, 9), (6, 3, 3, 3)])
def test_sigma_is_the_largest_singular_value_and_its_gradient_is_u_v(shape: tuple[int, ...]) -> None:
    layer = nn.Linear(shape[1], shape[0]) if len(shape) == 2 else nn.Conv2d(shape[1], shape[0], 3)
    layer = layer.double()
    with torch.no_grad():
        layer.weight.copy_(numbers(*shape))
    torch.manual_seed(0)
    spectral_norm(layer)
    layer = layer.double()
    for _ in range(500):
        power_iteration(layer)
    u, values, vh = torch.linalg.svd(layer.weight.detach().flatten(1), full_matrices=False)
    weight = layer.weight
    divided = normalised(weight, layer.u)
    assert (weight.detach() / divided.detach()).median().item() == pytest.approx(values[0].item(), rel=1e-6)
    torch.testing.assert_close(divided, weight / values[0], rtol=1e-6, atol=1e-9)
    assert torch.linalg.matrix_norm(divided.flatten(1), 2).item() == pytest.approx(1, rel=1e-6)
    sigma = (layer.u @ weight.flatten(1)).norm()
    torch.testing.assert_close(
        torch.autograd.grad(sigma, weight)[0].flatten(1), torch.outer(u[:, 0], vh[0]), rtol=1e-5, atol=1e-6
    )


def test_the_gradient_through_w_over_sigma_takes_u_and_v_as_constants() -> None:
    w, u = numbers(4, 6), F.normalize(numbers(4, seed=1), dim=0)
    v = F.normalize(u @ w, dim=0)
    mixed = numbers(4, 6, seed=2)

    def constant(w: Tensor) -> Tensor:
        return (mixed * w / (u @ w @ v)).sum()

    (shipped,) = torch.autograd.grad((mixed * normalised(wg := w.clone().requires_grad_(), u)).sum(), wg)
    step = 1e-6
    for i in range(4):
        for j in range(6):
            bump = torch.zeros_like(w)
            bump[i, j] = step
            slope = (constant(w + bump) - constant(w - bump)).item() / (2 * step)
            assert shipped[i, j].item() == pytest.approx(slope, abs=1e-8)
    assert normalised(w, u).dtype == torch.float64
    exact = normalised(w.float(), u.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(normalised(w.float(), u.float()), exact)


@pytest.mark.parametrize("conditioning", ["none", "auxiliary_classifier", "projection"])
@pytest.mark.parametrize("network", ["dcgan", "resnet"])
def test_every_weight_of_d_is_normalised_and_none_of_g(network: str, conditioning: str) -> None:
    """Whatever a weight is multiplied by, D stays the same; at step 0 sigma is near the largest singular value."""
    of, model = spec(16, 16), replace(SMALL, network=network, d_norm="spectral", conditioning=conditioning)
    G, D = build(of, model, 0)
    plain = build(of, replace(model, d_norm="none"), 0)
    for net, other in zip((G, D), plain, strict=True):  # the weights and their names are those without it
        assert net.state_dict().keys() - other.state_dict().keys() == {
            f"{name.removesuffix('.weight')}.u" for name, p in net.named_parameters() if p.ndim > 1 and net is D
        }
        assert all(torch.equal(value, net.state_dict()[name]) for name, value in other.state_dict().items())
    x, labels = noise(of), torch.tensor([0, 1, 2, 1])
    before = D(x, labels)
    with torch.no_grad():
        for name, parameter in D.named_parameters():
            if parameter.ndim > 1:
                part = D.get_submodule(name.removesuffix(".weight"))
                assert isinstance(part, Spectral)
                sigma = (parameter / normalised(parameter, part.u)).median().item()
                largest = torch.linalg.matrix_norm(parameter.flatten(1), 2).item()
                assert 0.9 * largest < sigma < largest * (1 + 1e-5)
                parameter.mul_(3)
    after = D(x, labels)
    torch.testing.assert_close(after.logits, before.logits)
    torch.testing.assert_close(after.features, before.features)
    if before.class_logits is not None:
        torch.testing.assert_close(after.class_logits, before.class_logits)
    assert not any(isinstance(part, Spectral) for part in G.modules())


def test_projection_is_the_product_with_the_normalised_matrix() -> None:
    of = spec(16, 16)
    _, D = build(of, FAMILIES["sngan"], 0)
    x, labels = noise(of), torch.tensor([0, 1, 2, 1])
    out = D(x, labels)
    source, embedding = D.head.source, D.head.embedding
    linear = out.features @ normalised(source.weight, source.u)[0] + source.bias
    torch.testing.assert_close(
        out.logits, linear + (normalised(embedding.weight, embedding.u)[labels] * out.features).sum(1)
    )


def state_of(**fields: Any) -> TrainState:
    given_ = {"width": 4, "batch": 7, "latent_dim": 6, "class_dim": 4, "images": "1M", **fields}
    return TrainState.create(resolve(given_), spec(16, 16), torch.device("cpu"))


@pytest.mark.parametrize("micro_batch", [0, 3])
@pytest.mark.parametrize("network", ["dcgan", "resnet"])
def test_u_moves_once_an_update_of_d_and_by_nothing_else(network: str, micro_batch: int) -> None:
    state = state_of(network=network, d_norm="spectral", loss="hinge", r1=0.1, r2=0.1)
    state.micro_batch = micro_batch
    labels = torch.arange(7) % 3
    real = Batch(noise(state.spec, 7), labels)
    z = draws(state.config.model, 7)[0]
    given = GivenDraws(z=z)

    def vectors() -> dict[str, Tensor]:
        return {name: value.clone() for name, value in state.D.named_buffers()}

    of_rank_one = {name for name, p in state.D.named_parameters() if p.ndim > 1 and min(p.flatten(1).shape) == 1}

    def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[bool]:
        return [torch.equal(one[u], other[u]) for u in one if u.replace(".u", ".weight") not in of_rank_one]

    for seed, u in enumerate(state.D.buffers()):  # far from where 20 turns have brought it
        u.copy_(F.normalize(numbers(len(u), seed=seed), dim=0))
    before = vectors()
    power_iteration(state.D)
    turned = vectors()
    for name, value in before.items():
        state.D.get_buffer(name).copy_(value)
    for _ in range(3):
        state.D(real.images, labels)
        state.D.eval()
        state.D(real.images, labels)
        state.D.train()
    assert all(equal(vectors(), before))
    assert not any(equal(turned, before))
    d_step(state, real, generate_fakes(state, labels, z), given)
    assert all(equal(vectors(), turned))
    g_step(state, real, generate_fakes(state, labels, z), given)
    assert all(equal(vectors(), turned))
    d_step(state, real, generate_fakes(state, labels, z), given)
    assert not any(equal(vectors(), turned))


def test_ranks_with_other_singular_vectors_are_told_apart() -> None:
    state = state_of(network="resnet", d_norm="spectral", loss="hinge", r1=0, r2=0)
    before = state.digest()
    assert state.digest() == before
    state.D.head.embedding.u.mul_(-1)
    assert state.digest() != before


# ---------------------------------------------------------------------------- refusals


def test_what_the_families_do_without() -> None:
    for norm in ("batch", "spectral"):
        with raises("options-conflict", f"d_norm {norm}", "r3gan", "--d-norm none"):
            resolve({"network": "r3gan", "d_norm": norm, "loss": "hinge", "r1": 0, "r2": 0})
    with raises("options-conflict", "weight_init dcgan", "r3gan", "--weight-init fan_in"):
        resolve({"network": "r3gan", "weight_init": "dcgan"})
    with raises("options-conflict", "d_norm batch", "resnet", "--d-norm spectral or none"):
        resolve({"network": "resnet", "d_norm": "batch", "loss": "hinge", "r1": 0, "r2": 0})
    with raises("unknown-name", "network", "'rgan3'", "dcgan, r3gan, resnet"):
        resolve({"network": "rgan3"})
    for network in ("dcgan", "r3gan", "resnet"):
        assert resolve({"network": network}).model.network == network
