"""What the families share: sizes, batch norm whose statistics move only when told to, the weights' first values."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptarmigan import dist
from ptarmigan.config import Model
from ptarmigan.contracts import ImageSpec

LEAK = 0.2


def sides(spec: ImageSpec) -> list[tuple[int, int]]:
    """Height and width at each stage, from the image's down to the last that keeps both at 4 or more."""
    out = [(spec.height, spec.width)]
    while min(half := (-(-out[-1][0] // 2), -(-out[-1][1] // 2))) >= 4:
        out.append(half)
    return out


def widths(model: Model, stages: int) -> list[int]:
    """Channels after each stage away from the image: doubling, at most eightfold as in DCGAN's paper."""
    return [model.width * min(2**stage, 8) for stage in range(stages)]


def even(x: Tensor) -> Tensor:
    """A map [N, C, H, W] with one more row or column of zeros where a side is odd, ready to be halved."""
    odd_h, odd_w = x.shape[2] % 2, x.shape[3] % 2
    return F.pad(x, (0, odd_w, 0, odd_h)) if odd_h or odd_w else x


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that normalises by the whole batch in training, the other ranks' shares included.

    It never moves its running statistics by itself: `settle` computes them for the weights as they are, since under
    a moving average no others belong to them.
    """

    def __init__(self, channels: int, *, running: bool = True) -> None:
        super().__init__(channels, momentum=0.0, track_running_stats=running)
        self.over_ranks = False  # set by `over_ranks` for networks that every rank runs at once
        self.normalise: Callable[[BatchNorm, Tensor], Tensor] | None = None  # set by pieces.py for a part of a batch

    def forward(self, x: Tensor) -> Tensor:
        if self.normalise is not None:
            return self.normalise(self, x)
        if not self.training or self.momentum is None:  # sampling, or `settle`
            return super().forward(x)
        if not self.over_ranks:
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        full = x.to(torch.promote_types(x.dtype, torch.float32))
        centred = full - dist.mean(full.mean((0, 2, 3))).view(1, -1, 1, 1)
        variance = dist.mean(centred.square().mean((0, 2, 3)))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)


def over_ranks(network: nn.Module) -> None:
    """Let batch norms take their statistics over the ranks, where there are several."""
    for part in network.modules():
        if isinstance(part, BatchNorm):
            part.over_ranks = dist.world() > 1


@torch.no_grad()
def settle(generator: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set every running mean and variance in G to the average over batches of (z [N, Z], labels [N])."""
    norms = [m for m in generator.modules() if isinstance(m, BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
    training = generator.training
    generator.train()
    for z, labels in batches:
        generator(z, labels)
    generator.train(training)
    for norm in norms:
        norm.momentum = 0.0


def initialise(module: nn.Module, dcgan: bool) -> None:
    """First values: class embeddings N(0, .02), and the rest by PyTorch's fan-in rule or as DCGAN's paper has it.

    Small embeddings let z, which is N(0, 1), speak first.
    DCGAN's (Radford et al. 2016, section 4): weights N(0, .02), scales of norms N(1, .02), biases 0.
    """
    for part in module.modules():
        if isinstance(part, nn.Embedding) or (dcgan and isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)):
            nn.init.normal_(part.weight, 0.0, 0.02)
        elif dcgan and isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)
        if dcgan and isinstance(bias := getattr(part, "bias", None), Tensor):
            nn.init.zeros_(bias)
