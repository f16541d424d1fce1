"""What the families share: batch norm whose statistics move only when told to, and the weights' first values."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class FrozenBatchNorm(nn.BatchNorm2d):
    """Batch norm that normalises by the batch in training and never moves its running statistics by itself.

    `settle` computes them for the weights as they are; under a moving average no others belong to them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=0.0)


@torch.no_grad()
def settle(generator: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set every running mean and variance in G to the average over batches of (z [N, Z], labels [N])."""
    norms = [m for m in generator.modules() if isinstance(m, FrozenBatchNorm)]
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
