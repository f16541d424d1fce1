"""The network families by name, and the G and D of a config."""

from __future__ import annotations

import torch
from torch import nn

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
    return generator, discriminator
