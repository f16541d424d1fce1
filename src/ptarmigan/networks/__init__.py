"""The network families by name, and the G and D of a config."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ptarmigan.config import Model
from ptarmigan.core.types import ImageSpec
from ptarmigan.losses.conditioning import ConditionalDiscriminator
from ptarmigan.networks import dcgan, r3gan, resnet
from ptarmigan.networks.layers import initialise, spectral_norm

# Initial standard deviations of the class embeddings.  G's are concatenated with z, which is N(0, 1); D's are added to
# the source logit's weights, whose standard deviation is 1 / sqrt(3 F), .013 for F = 2048.
OF_CLASS_G, OF_CLASS_D = 0.3, 0.02

NETWORKS = {"dcgan": dcgan, "r3gan": r3gan, "resnet": resnet}


def build_generator(spec: ImageSpec, model: Model) -> nn.Module:
    """G on the CPU in fp32: (z [N, Z], labels [N]) -> images [N, C, H, W]; the caller clamps them to [-1, 1]."""
    generator: nn.Module = NETWORKS[model.network].Generator(spec, model)
    return generator


@contextmanager
def without_weights() -> Iterator[None]:
    """Build networks on the meta device: their tensors have names, shapes and types, and take no memory."""
    with torch.device("meta"), _NoDraws():
        yield


class _NoDraws(TorchFunctionMode):
    """Leave out `normal_`, for which torch imports its compiler on the meta device; that takes 2 seconds."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return None if func.__name__ == "normal_" else func(*args, **(kwargs or {}))


def build(spec: ImageSpec, model: Model, seed: int) -> tuple[nn.Module, ConditionalDiscriminator]:
    """G and D on the CPU in fp32, initialised from the seed alone; torch's global random state is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = build_generator(spec, model)
        body = NETWORKS[model.network].Body(spec, model)
        discriminator = ConditionalDiscriminator(body, body.features, spec.classes, model.conditioning)
        for network, of_class in ((generator, OF_CLASS_G), (discriminator, OF_CLASS_D)):
            initialise(network, model.weight_init == "dcgan", of_class)
        if model.d_norm == "spectral":
            spectral_norm(discriminator)
    for stage in body.stages[: model.d_frozen] if model.d_frozen else ():
        stage.requires_grad_(False)
    return generator, discriminator
