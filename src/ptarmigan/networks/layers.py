"""What the network families share: sizes, batch norm, spectral norm and the initial weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptarmigan.config import Model
from ptarmigan.core import dist
from ptarmigan.core.conv import Conv2d
from ptarmigan.core.devices import autocast
from ptarmigan.core.types import ImageSpec

LEAK = 0.2
FIRST_POWER_ITERATIONS = 20  # power iterations before the first step


def sides(spec: ImageSpec, model: Model) -> list[tuple[int, int]]:
    """Height and width at each stage, from the image's down to the last that keeps both at `least_side` or more."""
    out = [(spec.height, spec.width)]
    while min(half := (-(-out[-1][0] // 2), -(-out[-1][1] // 2))) >= model.least_side:
        out.append(half)
    return out


def seen_channels(spec: ImageSpec) -> int:
    """The channels of the images that D is given: those of RGBA lie on a colour, which it is given too."""
    return 6 if spec.channels == 4 else spec.channels


def widths(model: Model, stages: int) -> list[int]:
    """Channels after each stage away from the image: doubled at each stage, up to 8 times the width."""
    return [model.width * min(2**stage, 8) for stage in range(stages)]


def pad_to_even(x: Tensor) -> Tensor:
    """A map [N, C, H, W] padded by one row or column of zeros where a side is odd."""
    odd_h, odd_w = x.shape[2] % 2, x.shape[3] % 2
    return F.pad(x, (0, odd_w, 0, odd_h)) if odd_h or odd_w else x


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that in training normalises by the whole batch, including the other ranks' shares of it.

    With micro-batches it normalises each part separately.  Training does not update its running statistics: sampling
    uses the moving average of the weights, for which `recalibrate_batch_norm` computes them.
    """

    def __init__(self, channels: int, *, running: bool = True) -> None:
        super().__init__(channels, momentum=0.0, track_running_stats=running)
        self.over_ranks = False  # set by `over_ranks` for networks that every rank runs at once

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.momentum is None:  # sampling, or `recalibrate_batch_norm`
            return super().forward(x)
        if not self.over_ranks:
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        full = x.to(torch.promote_types(x.dtype, torch.float32))
        centred = full - dist.mean(full.mean((0, 2, 3))).view(1, -1, 1, 1)
        variance = dist.mean(centred.square().mean((0, 2, 3)))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)


class ConditionalBatchNorm(nn.Module):
    """norm(x) (1 + s(given)) + t(given); s and t are linear and start at 0 (de Vries et al. 2017)."""

    def __init__(self, channels: int, inputs: int) -> None:
        super().__init__()
        self.norm = BatchNorm(channels)
        self.modulate = nn.Linear(inputs, 2 * channels, bias=False)
        nn.init.zeros_(self.modulate.weight)

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        """x [N, C, H, W], given [N, inputs]."""
        scale, shift = self.modulate(given)[:, :, None, None].chunk(2, 1)
        out: Tensor = self.norm(x) * (1 + scale) + shift
        return out


def over_ranks(network: nn.Module) -> None:
    """Make batch norm take its statistics over all ranks."""
    for part in network.modules():
        if isinstance(part, BatchNorm):
            part.over_ranks = dist.world() > 1


@torch.no_grad()
def recalibrate_batch_norm(generator: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set every running mean and variance in G to the average over batches of (z [N, Z], labels [N])."""
    forget_batch_norm(generator)
    norms = batch_norms(generator)
    if not norms:
        return
    training = generator.training
    generator.train()
    try:
        for norm in norms:
            norm.momentum = None  # a cumulative average
        for z, labels in batches:
            generator(z, labels)
    finally:
        generator.train(training)
        for norm in norms:
            norm.momentum = 0.0


def batch_norms(generator: nn.Module) -> list[BatchNorm]:
    return [module for module in generator.modules() if isinstance(module, BatchNorm)]


def forget_batch_norm(generator: nn.Module) -> None:
    """Mark the running means and variances in G as missing: `num_batches_tracked` is 0."""
    for norm in batch_norms(generator):
        norm.reset_running_stats()


def has_batch_norm_statistics(generator: nn.Module) -> bool:
    """Whether every running mean and variance in G was computed."""
    return all(norm.num_batches_tracked for norm in batch_norms(generator))


def learning(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, by name: all that are not frozen."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def initialise(module: nn.Module, dcgan: bool, of_class: float) -> None:
    """Initialise class embeddings as N(0, `of_class`) and leave the rest to PyTorch's fan-in rule, or follow DCGAN.

    DCGAN (Radford et al. 2016, section 4): weights and embeddings N(0, .02), scales of norms N(1, .02), biases 0.
    """
    for part in module.modules():
        if dcgan and isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, 0.0, 0.02)
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, 0.0, of_class)
        elif dcgan and isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)
        if dcgan and isinstance(bias := getattr(part, "bias", None), Tensor):
            nn.init.zeros_(bias)


def normalised(weight: Tensor, u: Tensor) -> Tensor:
    """W / sigma, with sigma = |W' u| and W flattened to [out, in]; u [out] of unit length is a constant.

    Where u is W's first left singular vector, sigma is its largest singular value, and with v = W' u / sigma its
    gradient is u v' (Miyato et al. 2018, eq. 8 to 11).  Computed in the weight's own precision.
    """
    with autocast(weight.device, False):
        out: Tensor = weight / (u @ weight.flatten(1)).norm()
    return out


class SpectralConv2d(Conv2d):
    u: Tensor

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self._conv_forward(x, normalised(self.weight, self.u), self.bias)
        return out


class SpectralLinear(nn.Linear):
    u: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, normalised(self.weight, self.u), self.bias)


class SpectralEmbedding(nn.Embedding):
    u: Tensor

    def forward(self, labels: Tensor) -> Tensor:
        return F.embedding(labels, normalised(self.weight, self.u))


SPECTRAL: dict[type[nn.Module], type[SpectralConv2d | SpectralLinear | SpectralEmbedding]] = {
    Conv2d: SpectralConv2d,
    nn.Conv2d: SpectralConv2d,
    nn.Linear: SpectralLinear,
    nn.Embedding: SpectralEmbedding,
}


def spectral_norm(network: nn.Module) -> None:
    """Make every layer divide its weight by the weight's largest singular value; each layer gets a buffer u [out].

    The weights keep their names.  u starts at random and is refined by FIRST_POWER_ITERATIONS power iterations.
    """
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear | nn.Embedding):
            part.__class__ = SPECTRAL[type(part)]
            part.register_buffer("u", F.normalize(torch.randn_like(part.weight.detach().flatten(1)[:, 0]), dim=0))
    for _ in range(FIRST_POWER_ITERATIONS):
        power_iteration(network)


@torch.no_grad()
def power_iteration(network: nn.Module) -> None:
    """One power iteration in every spectrally normalised layer: u <- W W' u, scaled to unit length.

    Forward passes do not change u, so it is the same on every rank and with any micro-batch size.
    """
    for part in network.modules():
        if isinstance(part, SpectralConv2d | SpectralLinear | SpectralEmbedding):
            weight = part.weight.flatten(1)
            part.u.copy_(F.normalize(weight @ (part.u @ weight), dim=0))
