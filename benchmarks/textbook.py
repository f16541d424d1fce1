"""The DCGAN step that people copy, with which benchmarks/step.py compares.

Written from scratch in the customary form: fp32 (or bf16 under autocast), a sigmoid in D followed by BCELoss, tensors
of ones and zeros as labels, separate backward passes for the real and the fake half of D's batch, default Adam, and
both losses read by `.item()` every step.  Nothing else slows it down: one forward of G serves both players,
convolutions before a norm have no bias, activations work in place.  Imports nothing from ptarmigan.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

Z_DIM = 100


def generator(channels: int = 64, colours: int = 3) -> nn.Sequential:
    """[N, 100, 1, 1] -> [N, 3, 64, 64] in [-1, 1]."""
    widths = [8 * channels, 4 * channels, 2 * channels, channels]
    layers: list[nn.Module] = [nn.ConvTranspose2d(Z_DIM, widths[0], 4, 1, 0, bias=False)]
    for width, following in pairwise(widths):
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        layers += [nn.ConvTranspose2d(width, following, 4, 2, 1, bias=False)]
    layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels, colours, 4, 2, 1, bias=False), nn.Tanh())


def discriminator(channels: int = 64, colours: int = 3) -> nn.Sequential:
    """[N, 3, 64, 64] -> [N, 1, 1, 1], the probability that an image is real."""
    widths = [channels, 2 * channels, 4 * channels, 8 * channels]
    layers: list[nn.Module] = [
        nn.Conv2d(colours, channels, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2, inplace=True),
    ]
    for width, following in pairwise(widths):
        layers += [nn.Conv2d(width, following, 4, 2, 1, bias=False), nn.BatchNorm2d(following)]
        layers += [nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 0, bias=False), nn.Sigmoid())


def initialise(module: nn.Module) -> None:
    """Initial values of the paper: weights N(0, .02), gains of norms N(1, .02) (Radford et al. 2015, section 4)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


class TextbookStep:
    """Both networks, their optimizers, and one training step."""

    def __init__(self, device: str | torch.device = "cpu", lr: float = 2e-4, bf16: bool = False) -> None:
        self.device = torch.device(device)
        self.bf16 = bf16
        self.G = generator().apply(initialise).to(self.device)
        self.D = discriminator().apply(initialise).to(self.device)
        self.opt_g = torch.optim.Adam(self.G.parameters(), lr=lr, betas=(0.5, 0.999))
        self.opt_d = torch.optim.Adam(self.D.parameters(), lr=lr, betas=(0.5, 0.999))
        self.criterion = nn.BCELoss()

    def step(self, images: Tensor) -> tuple[float, float]:
        """images float32 [N, 3, 64, 64] in [-1, 1] -> the losses of D (the sum of both halves) and of G."""
        images = images.to(self.device)
        real_label = torch.ones(len(images), device=self.device)
        fake_label = torch.zeros(len(images), device=self.device)

        self.D.zero_grad()
        loss_real = self.criterion(self.answer(images), real_label)
        loss_real.backward()
        with self.autocast():
            fakes = self.G(torch.randn(len(images), Z_DIM, 1, 1, device=self.device))
        loss_fake = self.criterion(self.answer(fakes.detach()), fake_label)
        loss_fake.backward()
        loss_d = loss_real.item() + loss_fake.item()
        self.opt_d.step()

        self.G.zero_grad()
        loss_g = self.criterion(self.answer(fakes), real_label)
        loss_g.backward()
        self.opt_g.step()
        return loss_d, loss_g.item()

    def answer(self, images: Tensor) -> Tensor:
        """D's probabilities [N] in fp32, which BCELoss needs."""
        with self.autocast():
            found: Tensor = self.D(images).view(-1)
        return found.float()

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)
