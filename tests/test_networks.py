"""The guidelines of the DCGAN paper, each read off what the networks do; sizes; seeds; statistics; independence."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ptarmigan.config import Model, resolve
from ptarmigan.core.types import ImageSpec
from ptarmigan.data.batches import on_white_for_d
from ptarmigan.losses.conditioning import HEADS, ConditionalDiscriminator
from ptarmigan.networks import build, build_generator, resampling
from ptarmigan.networks.dcgan import Generator
from ptarmigan.networks.layers import LEAK, BatchNorm, initialise, recalibrate_batch_norm, sides, widths
from support import raises

SMALL = Model(width=4, latent_dim=6, class_dim=5)
NAMES = ("ant", "bee", "cat")
PAPER = resolve({"recipe": "dcgan"}).model


def spec(height: int, width: int, channels: int = 1) -> ImageSpec:
    return ImageSpec(height, width, channels, NAMES)


def draws(model: Model, count: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    z = torch.randn(count, model.latent_dim, generator=torch.Generator().manual_seed(seed))
    return z, torch.arange(count) % len(NAMES)


def noise(of: ImageSpec, count: int = 4) -> Tensor:
    shape = count, of.channels, of.height, of.width
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).tanh()


class Recorder(TorchDispatchMode):
    """The operations on the way, by their names in ATen, with their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[tuple[str, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ops.append((func.overloadpacket.__name__, args))
        return func(*args, **(kwargs or {}))

    def names(self) -> list[str]:
        """Those that compute; views, padding, casts and the lookups of labels left out."""
        short = {"native_batch_norm": "norm", "_native_batch_norm_legit": "norm", "convolution": "conv",
                 "mm": "linear", "addmm": "linear"}  # fmt: skip
        skip = {"t", "view", "_unsafe_view", "detach", "cat", "slice", "squeeze", "embedding", "alias", "_to_copy",
                "constant_pad_nd", "mul", "sum", "div", "add", "add_", "empty", "clone", "promote_types"}  # fmt: skip
        return [short.get(name, name) for name, _ in self.ops if name not in skip]


def recorded(net: nn.Module, *inputs: Tensor) -> Recorder:
    with torch.no_grad(), Recorder() as recorder:
        net(*inputs)
    return recorder


# ---------------------------------------------------------------------------- the paper's guidelines


@pytest.mark.parametrize("conditioning", HEADS)
def test_what_the_generator_computes(conditioning: str) -> None:
    """Linear, then norm, ReLU, convolution a stage: no pooling, no norm at the output, tanh at the end."""
    model = replace(SMALL, conditioning=conditioning)
    for size, stages in ((16, 2), (28, 3), (64, 4)):
        G, _ = build(spec(size, size), model, 0)
        assert recorded(G, *draws(model)).names() == ["linear"] + ["norm", "relu", "conv"] * stages + ["tanh"]


def test_blocks_in_g_stand_on_all_maps_but_the_last_and_change_nothing_at_first() -> None:
    model, of = replace(SMALL, g_blocks=2), spec(28, 28)
    G, _ = build(of, model, 0)
    residual = ["norm", "leaky_relu", "conv"] * 2
    stage = ["norm", "relu", "conv"]
    inputs = draws(model)
    assert recorded(G, *inputs).names() == ["linear"] + (residual + stage) * 2 + stage + ["tanh"]
    kernels = [args[1].shape[2] for name, args in recorded(G, *inputs).ops if name == "convolution"]
    assert kernels == [3, 3, 4, 3, 3, 4, 4]
    plain = build(of, SMALL, 0)[0]
    plain.load_state_dict({name: value for name, value in G.state_dict().items() if "blocks" not in name})
    torch.testing.assert_close(G(*inputs), plain(*inputs))
    with torch.no_grad():
        for name, parameter in G.named_parameters():
            if name.endswith("conv.weight"):
                parameter += 0.1
    x = noise(of, 4)[:, :1].expand(-1, model.width * 4, -1, -1)
    block = G.blocks[0][0].train()  # type: ignore[index]
    normal = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    inside = torch.where(normal > 0, normal, 0.2 * normal)
    by_hand = x + torch.conv2d(inside, block.conv.weight, padding=1)
    torch.testing.assert_close(block(x), by_hand)


@pytest.mark.parametrize("conditioning", ["projection", "none"])
def test_modulation_scales_and_shifts_each_norm_of_a_stage_and_changes_nothing_at_first(conditioning: str) -> None:
    model, of = replace(SMALL, g_blocks=1, g_modulation=True, conditioning=conditioning), spec(28, 28)
    G, plain = build(of, model, 0)[0], build(of, replace(model, g_modulation=False), 0)[0]
    z, labels = draws(model)
    shared = {name.replace("norm.", ""): value for name, value in G.state_dict().items() if "modulate" not in name}
    plain.load_state_dict({name if "blocks" not in name else name.replace("0.weight", "0.norm.weight"): value
                           for name, value in shared.items()}, strict=False)  # fmt: skip
    torch.testing.assert_close(G(z, labels), plain(z, labels))
    given = z if conditioning == "none" else torch.cat([z, G.embedding(labels)], 1)  # type: ignore[operator]
    assert len(G.norms) == 3  # type: ignore[arg-type]
    for norm in G.norms:  # type: ignore[union-attr]
        seen: list[Tensor] = []
        norm.register_forward_hook(lambda _, inputs, output, seen=seen: seen.extend((*inputs, output)))  # type: ignore[operator]
        with torch.no_grad():
            norm.modulate.weight.normal_(generator=torch.Generator().manual_seed(2))  # type: ignore[union-attr]
        G(z, labels)
        x, got, out = seen
        torch.testing.assert_close(got, given)
        scale, shift = (given @ norm.modulate.weight.T)[:, :, None, None].chunk(2, 1)  # type: ignore[union-attr]
        torch.testing.assert_close(out, norm.norm(x) * (1 + scale) + shift)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("network", "d_norm"),
    [("dcgan", "none"), ("dcgan", "spectral"), ("r3gan", "none"), ("resnet", "none"), ("resnet", "spectral")],
)
def test_d_sees_what_rgba_lies_on(network: str, d_norm: str) -> None:
    _, D = build(spec(17, 20, 4), replace(SMALL, network=network, d_norm=d_norm), 0)
    images, labels = torch.rand(2, 3, 17, 20) * 2 - 1, torch.zeros(2, dtype=torch.int64)
    grounds = torch.zeros(2, 3, 17, 20, requires_grad=True)
    logits = D(torch.cat([images, grounds], 1), labels).logits
    assert torch.isfinite(logits).all()
    assert torch.autograd.grad(logits.sum(), grounds)[0].abs().sum() > 0


def test_what_belongs_to_dcgan_alone() -> None:
    for key, value in (("g_blocks", 1), ("g_modulation", True), ("resampling", "smooth"), ("d_frozen", 1)):
        with raises("options-conflict", key, "r3gan", "--network dcgan"):
            resolve({"network": "r3gan", key: value})
        assert getattr(resolve({"network": "r3gan"}).model, key) == getattr(Model(), key)


def test_smooth_resampling_by_hand() -> None:
    """G doubles a map bilinearly before each 3x3 convolution, and D blurs the map before each stage but the first."""
    G, D = (net.double() for net in build(spec(28, 20, 3), replace(SMALL, resampling="smooth", g_blocks=0), 0))
    z, labels = draws(SMALL)
    x = G.project(torch.cat([z.double(), G.embedding.weight[labels]], 1)).view(4, *G.first)
    for norm, stage, (height, width) in zip(G.norms, G.stages, G.sides[1:], strict=True):
        assert stage.kernel_size == (3, 3)
        x = F.conv2d(resampling.double(F.relu(norm(x))), stage.weight, stage.bias, padding=1)[:, :, :height, :width]
    images = torch.tanh(x)
    torch.testing.assert_close(G(z.double(), labels), images)
    for place, stage in enumerate(D.body.stages):
        x = images if not place else resampling.blur(x)
        x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        x = F.leaky_relu(F.conv2d(x, stage.weight, stage.bias, stride=2, padding=1), LEAK)
    torch.testing.assert_close(D.body(images), x.flatten(1))


@pytest.mark.parametrize("size", [28, 32])
def test_maps_are_channels_last_all_the_way_forth_and_back(size: int) -> None:
    """Kernels that meet two layouts at once take a slow path."""
    model, of = replace(SMALL, g_blocks=1, g_modulation=True), spec(size, size)
    G, D = build(of, model, 0)
    for network in (G, D):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    z, labels = draws(model)
    with Recorder() as recorder:
        D(G(z, labels), labels).logits.sum().backward()
    maps = [
        (name, x)
        for name, args in recorder.ops
        if name.startswith(("convolution", "native_batch_norm", "relu", "threshold", "leaky_relu"))
        for x in args[:2]
        if isinstance(x, Tensor) and x.dim() == 4
    ]
    assert len(maps) > 60
    for name, x in maps:
        assert x.is_contiguous(memory_format=torch.channels_last), (name, x.shape)


@pytest.mark.parametrize("d_norm", ["batch", "none"])
def test_what_the_discriminator_computes(d_norm: str) -> None:
    """Convolution, norm (none at the input), LeakyReLU a stage, then the heads: no pooling, no hidden linear layer."""
    for conditioning, heads in (
        ("none", 1), ("projection", 1), ("auxiliary_classifier", 2), ("twin_classifier", 3),
        ("discriminative_classifier", 2),
    ):  # fmt: skip
        model = replace(SMALL, conditioning=conditioning, d_norm=d_norm)
        for size, stages in ((16, 2), (28, 3), (64, 4)):
            of = spec(size, size)
            _, D = build(of, model, 0)
            later = ["conv", "norm", "leaky_relu"] if d_norm == "batch" else ["conv", "leaky_relu"]
            got = recorded(D, noise(of), torch.zeros(4, dtype=torch.int64)).names()
            assert got == ["conv", "leaky_relu"] + later * (stages - 1) + ["linear"] * heads


def test_strides_kernels_and_leak() -> None:
    of = spec(32, 32, 3)
    G, D = build(of, PAPER, 0)
    for net, inputs in ((G, draws(PAPER)), (D, (noise(of), torch.zeros(4, dtype=torch.int64)))):
        ops = recorded(net, *inputs).ops
        convolutions = [args for name, args in ops if name == "convolution"]
        assert [args[3] for args in convolutions] == [[2, 2]] * 3  # stride
        assert [args[6] for args in convolutions] == [net is G] * 3  # transposed in G alone
        assert all(args[1].shape[2:] == (4, 4) for args in convolutions)  # divisible by the stride
        assert {args[1] for name, args in ops if name == "leaky_relu"} == (set() if net is G else {0.2})


def test_norms_normalise_by_the_batch() -> None:
    """Every norm's output, before its scale and shift, has mean 0 and variance 1 over the batch."""
    of = spec(32, 32, 3)
    G, D = build(of, replace(SMALL, d_norm="batch"), 0)
    seen: list[Tensor] = []
    for net in (G, D):
        for norm in net.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    G(*draws(SMALL, 8))
    D(noise(of, 8) * 3 + 1, torch.zeros(8, dtype=torch.int64))
    assert len(seen) == 3 + 2
    for output in seen:
        assert output.mean((0, 2, 3)).abs().max() < 1e-5
        assert (output.var((0, 2, 3), unbiased=False) - 1).abs().max() < 0.01


def test_the_recipes_first_values() -> None:
    """Weights N(0, .02), scales of norms N(1, .02), shifts and biases 0."""
    G, D = build(spec(64, 64, 3), PAPER, 5)
    weights = {"normal": [], "scale": []}
    for net in (G, D):
        for module in net.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if name == "bias":
                    assert not parameter.any()
                else:
                    weights["scale" if isinstance(module, nn.BatchNorm2d) else "normal"].append(parameter.flatten())
    for kind, mean in (("normal", 0.0), ("scale", 1.0)):
        values = torch.cat(weights[kind])
        deviation = 0.02 / math.sqrt(len(values))
        assert values.mean().item() == pytest.approx(mean, abs=5 * deviation)
        assert values.std().item() == pytest.approx(0.02, abs=5 * deviation)
    assert len(weights["scale"]) == 4 + 3


@pytest.mark.parametrize("dcgan", [False, True])
def test_embeddings_and_the_rest_start_by_the_rule_that_is_asked_for(dcgan: bool) -> None:
    layer = nn.Sequential(nn.Embedding(300, 40), nn.Conv2d(1, 8, 3), nn.Linear(4, 400, bias=False))
    before = [layer[1].weight.clone(), layer[2].weight.clone()]
    initialise(layer, dcgan, 0.5)
    assert layer[0].weight.std().item() == pytest.approx(0.02 if dcgan else 0.5, rel=0.1)
    assert layer[1].bias.any() != dcgan
    if dcgan:
        assert layer[2].weight.std().item() == pytest.approx(0.02, rel=0.1)
    else:
        assert torch.equal(layer[1].weight, before[0])
        assert torch.equal(layer[2].weight, before[1])
    G, D = build(spec(16, 16), replace(SMALL, weight_init="dcgan" if dcgan else "fan_in"), 0)
    assert G.embedding.weight.std().item() == pytest.approx(0.02 if dcgan else 0.3, rel=0.5)
    assert D.head.embedding.weight.std().item() == pytest.approx(0.02, rel=0.5)


# ---------------------------------------------------------------------------- sizes


SIDE = st.integers(16, 256)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(height=SIDE, width=SIDE, channels=st.sampled_from([1, 3, 4]), d_norm=st.sampled_from(["none", "batch"]))
@example(height=512, width=512, channels=3, d_norm="none")
def test_any_height_and_width(height: int, width: int, channels: int, d_norm: str) -> None:
    model, of = Model(width=1, latent_dim=3, class_dim=2, d_norm=d_norm), spec(height, width, channels)
    G, D = build(of, model, 0)
    z, labels = draws(model, 2)
    with torch.no_grad():
        images = G(z, labels)
        output = D(on_white_for_d(images), labels)
    assert images.shape == (2, channels, height, width)
    assert images.abs().max() < 1
    assert output.logits.shape == (2,)
    assert output.features.shape == (2, D.body.features)
    low = sides(of, model)[-1]
    assert min(low) >= 4
    assert min(low) < 8  # no further halving is possible


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (28, 28), (16, 256), (255, 33)])
def test_every_pixel_counts_for_d_and_is_drawn_by_g(size: tuple[int, int]) -> None:
    """What rounding up and cropping could lose: the last row and column."""
    of = spec(*size, 3)
    G, D = build(of, SMALL, 0)
    z, labels = draws(SMALL, 16)
    x = noise(of, 16).requires_grad_()
    assert torch.autograd.grad(D(x, labels).logits.sum(), x)[0].abs().amax((0, 1)).min() > 0
    assert G(z, labels).std(0).min() > 0


def test_twenty_eight_runs_as_28_14_7_4() -> None:
    of = spec(28, 28)
    assert sides(of, SMALL) == [(28, 28), (14, 14), (7, 7), (4, 4)]
    G, D = build(of, SMALL, 0)
    places: list[tuple[int, ...]] = []
    for net in (G.norms, D.body.norms):
        for norm in net:
            norm.register_forward_hook(lambda module, inputs, output: places.append(tuple(output.shape[1:])))
    z, labels = draws(SMALL)
    D(G(z, labels), labels)
    assert places == [(16, 4, 4), (8, 7, 7), (4, 14, 14), (4, 14, 14), (8, 7, 7), (16, 4, 4)]
    assert D.body.mask_shapes == places[3:]


@pytest.mark.parametrize(
    ("size", "least", "last"),
    [((48, 64), 4, (6, 8)), ((48, 64), 3, (3, 4)), ((28, 28), 3, (4, 4)), ((28, 28), 2, (2, 2)), ((40, 40), 3, (3, 3))],
)
def test_how_far_maps_are_halved_can_be_said(size: tuple[int, int], least: int, last: tuple[int, int]) -> None:
    of = spec(*size, 3)
    for network in ("dcgan", "r3gan", "resnet"):
        model = resolve({"network": network, "width": 4, "least_side": least}).model
        assert sides(of, model)[-1] == last
        G, D = build(of, model, 0)
        assert tuple(G.first[1:]) == last  # type: ignore[index]
        z, labels = draws(model)
        images = G(z, labels)
        assert images.shape == (4, 3, *size)
        assert D(images, labels).logits.shape == (4,)


def test_channels_double_away_from_the_image_at_most_eightfold() -> None:
    assert widths(replace(SMALL, width=3), 6) == [3, 6, 12, 24, 24, 24]
    G, D = build(spec(64, 64, 3), replace(SMALL, width=3), 0)
    assert [stage.out_channels for stage in D.body.stages] == [3, 6, 12, 24]
    assert [stage.in_channels for stage in G.stages] == [24, 12, 6, 3]


def test_masks_multiply_each_stage() -> None:
    of = spec(16, 16)
    _, D = build(of, SMALL, 0)
    x, labels = noise(of, 2), torch.zeros(2, dtype=torch.int64)
    shapes = D.body.mask_shapes
    ones = [torch.ones(2, *shape) for shape in shapes]
    plain = D(x, labels).features
    assert torch.equal(D(x, labels, ones).features, plain)
    assert torch.equal(D(x, labels, [ones[0], 3 * ones[1]]).features, 3 * plain)
    assert not torch.equal(D(x, labels, [0 * ones[0], ones[1]]).features, plain)


# ---------------------------------------------------------------------------- classes, independence, seeds


def test_the_class_changes_the_image_and_only_where_there_is_one() -> None:
    of = spec(28, 28)
    z, labels = draws(SMALL)
    G, _ = build(of, SMALL, 0)
    with torch.no_grad():
        assert (G(z, labels) - G(z, (labels + 1) % 3)).abs().amax((1, 2, 3)).min() > 1e-3
        G, D = build(of, replace(SMALL, conditioning="none"), 0)
        assert torch.equal(G(z, labels), G(z, (labels + 1) % 3))
        images = noise(of)
        assert torch.equal(D(images, labels).logits, D(images, (labels + 1) % 3).logits)
    assert isinstance(G, Generator)
    assert G.embedding is None


@pytest.mark.parametrize("conditioning", HEADS)
@pytest.mark.parametrize("d_norm", ["none", "batch"])
def test_a_norm_free_discriminator_takes_each_sample_by_itself(d_norm: str, conditioning: str) -> None:
    """d logit_i / d image_j = 0 for i != j, which is what the penalties need; batch norm breaks it."""
    of = spec(28, 28)
    _, D = build(of, replace(SMALL, d_norm=d_norm, conditioning=conditioning), 0)
    x, labels = noise(of).requires_grad_(), torch.tensor([0, 1, 2, 0])
    reach = torch.stack(
        [torch.autograd.grad(logit, x, retain_graph=True)[0].abs().sum((1, 2, 3)) for logit in D(x, labels).logits]
    )
    others = reach[~torch.eye(4, dtype=torch.bool)]
    assert reach.diagonal().min() > 0
    assert others.max() == 0 if d_norm == "none" else others.min() > 0


def state_of(nets: tuple[nn.Module, ConditionalDiscriminator]) -> dict[str, Tensor]:
    return {f"{i}.{name}": value for i, net in enumerate(nets) for name, value in net.state_dict().items()}


@pytest.mark.parametrize("init", ["fan_in", "dcgan"])
def test_weights_come_from_the_seed_alone(init: str) -> None:
    model, of = replace(SMALL, weight_init=init), spec(16, 16)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = state_of(build(of, model, 3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    again, other = state_of(build(of, model, 3)), state_of(build(of, model, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [n for n in first if n.endswith("weight") and (init == "dcgan" or "norms" not in n)]
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


def test_networks_are_made_in_fp32_on_the_cpu() -> None:
    for value in state_of(build(spec(16, 16), SMALL, 0)).values():
        assert value.device.type == "cpu"
        assert value.dtype in (torch.float32, torch.int64)


def test_images_are_fp32_under_autocast() -> None:
    G, _ = build(spec(16, 16), SMALL, 0)
    with torch.autocast("cpu", torch.bfloat16):
        assert G(*draws(SMALL)).dtype == torch.float32
    assert G.double()(draws(SMALL)[0].double(), draws(SMALL)[1]).dtype == torch.float64


# ---------------------------------------------------------------------------- batch statistics


def test_training_never_moves_the_running_statistics() -> None:
    G, D = build(spec(28, 28), replace(SMALL, d_norm="batch"), 0)
    before = {name: value.clone() for name, value in G.named_buffers()}
    z, labels = draws(SMALL)
    images = G(z, labels)
    D(images, labels)
    # (the count of batches is PyTorch's own and is read by nothing while the momentum is 0)
    for name, value in G.named_buffers():
        assert name.endswith("num_batches_tracked") or torch.equal(value, before[name])
    assert not list(D.buffers())


def test_settle_averages_the_statistics_over_batches() -> None:
    G = build_generator(spec(28, 28), SMALL)
    batches = [draws(SMALL, 8, seed) for seed in range(3)]
    inputs: list[Tensor] = []
    handle = G.norms[0].register_forward_hook(lambda module, given, output: inputs.append(given[0].detach()))
    for z, labels in batches:
        G(z, labels)
    handle.remove()
    mean = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
    variance = torch.stack([x.var((0, 2, 3)) for x in inputs]).mean(0)
    for training in (True, False, True):  # twice alike: nothing is left from before
        G.train(training)
        recalibrate_batch_norm(G, batches)
        torch.testing.assert_close(G.norms[0].running_mean, mean)
        torch.testing.assert_close(G.norms[0].running_var, variance)
        assert G.training == training
        assert all(norm.momentum == 0 for norm in G.norms)


def test_after_settling_an_image_does_not_depend_on_its_batch() -> None:
    G = build_generator(spec(28, 28), SMALL)
    z, labels = draws(SMALL, 64)
    with torch.no_grad():
        recalibrate_batch_norm(G, [(z, labels)])
        trained = G(z, labels)
        G.eval()
        together, alone = G(z, labels), G(z[:1], labels[:1])
    torch.testing.assert_close(alone, together[:1], rtol=1e-4, atol=1e-5)
    assert (together - trained).abs().max() < 0.02  # the unbiased variance is the only difference


def test_settle_leaves_a_network_without_such_norms_alone() -> None:
    layer = nn.Sequential(nn.BatchNorm2d(3))
    recalibrate_batch_norm(layer, [(torch.zeros(0), torch.zeros(0))])
    assert BatchNorm(3).momentum == 0
    assert layer[0].momentum == 0.1
