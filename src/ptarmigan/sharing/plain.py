"""A generator as one short file of plain PyTorch, which reads the generator's own model.safetensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ptarmigan.generator.generator import TrainedGenerator
from ptarmigan.networks import dcgan, r3gan, resnet
from ptarmigan.sharing.inference import IN_WORDS

HEAD = '''\
"""Draws the images of model.safetensors with torch and safetensors alone.

images = generate(z, labels): z float32 [N, {latent_dim}], {latents}; labels int64 [N]{labels};
images {images}.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open

with safe_open(Path(__file__).with_name("model.safetensors"), "pt") as file:
    w = {{name: file.get_tensor(name) for name in file.keys()}}
    CLASSES = json.loads(file.metadata()["ptarmigan"])["spec"]["class_names"]
'''
CONV = """
def conv(x, name, **options):
    return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), **options)
"""
NORM = """
def norm(x, name):
    return F.batch_norm(x, *(w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))
"""
MODULATED = """
def modulated(x, name, z):
    scale, shift = F.linear(z, w[f"{name}.modulate.weight"])[:, :, None, None].chunk(2, 1)
    return norm(x, f"{name}.norm") * (1 + scale) + shift
"""
DOUBLE = """
def double(x):
    kernel = x.new_tensor([1, 2, 1]) / 4
    x = F.interpolate(x, scale_factor=2)
    return F.conv2d(x, kernel.outer(kernel).expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])
"""


def plain_file(generator: TrainedGenerator) -> str:
    """Python code whose `generate(z, labels)` draws the generator's images: tens of lines, without ptarmigan."""
    network, model = generator.network, generator.config.model
    conditional = model.conditional
    helpers, body = FAMILIES[type(network)](network)
    head = HEAD.format(
        latent_dim=model.latent_dim,
        latents="standard normal" if model.latent == "normal" else "uniform on (-1, 1)",
        labels=", places in CLASSES" if conditional else ", not read",
        images=IN_WORDS,
    )
    channels, height, width = network.first  # type: ignore[misc]
    start = ['z = torch.cat([z, w["embedding.weight"][labels]], 1)'] if conditional else []
    start.append(f'x = F.linear(z, w["project.weight"], w.get("project.bias")).view(-1, {channels}, {height}, {width})')
    start.append(f"for i, (height, width) in enumerate({network.sides[1:]}):")  # type: ignore[index]
    lines = ["", "def generate(z, labels):", *(f"    {line}" for line in [*start, *body])]
    return "\n".join([head, *(f"{helper.rstrip()}\n" for helper in helpers), *lines, ""])


def of_dcgan(network: Any) -> tuple[list[str], list[str]]:
    helpers, body = [NORM], []
    if network.modulation:
        helpers.append(MODULATED)
    count = len(network.blocks[0])
    if count or network.smooth:
        helpers.append(CONV)
    if count:
        body += [
            f"    for j in range({count} if i < {len(network.stages) - 1} else 0):",
            '        inside = F.leaky_relu(norm(x, f"blocks.{i}.{j}.norm"), 0.2)',
            '        x = x + conv(inside, f"blocks.{i}.{j}.conv", padding=1)',
        ]
    called = 'modulated(x, f"norms.{i}", z)' if network.modulation else 'norm(x, f"norms.{i}")'
    body.append(f"    x = F.relu({called})")
    if network.smooth:
        helpers.append(DOUBLE)
        body.append('    x = conv(double(x), f"stages.{i}", padding=1)[:, :, :height, :width]')
    else:
        body += [
            '    x = F.conv_transpose2d(x, w[f"stages.{i}.weight"], w.get(f"stages.{i}.bias"), stride=2, padding=1)',
            "    x = x[:, :, :height, :width]",
        ]
    return helpers, [*body, "return torch.tanh(x)"]


def of_r3gan(network: Any) -> tuple[list[str], list[str]]:
    return [CONV, DOUBLE], [
        '    inside = F.leaky_relu(conv(x, f"blocks.{i}.expand"), 0.2)',
        f'    inside = conv(inside, f"blocks.{{i}}.mix", padding=1, groups=inside.shape[1] // {r3gan.GROUP})',
        '    x = x + conv(F.leaky_relu(inside, 0.2), f"blocks.{i}.project")',
        '    if f"changes.{i}.weight" in w:',
        '        x = conv(x, f"changes.{i}")',
        "    x = double(x)[:, :, :height, :width]",
        'return conv(F.leaky_relu(x, 0.2), "last", padding=1).clamp(-1, 1)',
    ]


def of_resnet(network: Any) -> tuple[list[str], list[str]]:
    return [CONV, NORM, MODULATED], [
        '    inside = F.relu(modulated(x, f"blocks.{i}.norms.0", z))',
        "    inside = F.interpolate(inside, scale_factor=2)[:, :, :height, :width]",
        '    inside = conv(inside, f"blocks.{i}.convolutions.0", padding=1)',
        '    inside = F.relu(modulated(inside, f"blocks.{i}.norms.1", z))',
        '    inside = conv(inside, f"blocks.{i}.convolutions.1", padding=1)',
        '    x = F.interpolate(conv(x, f"blocks.{i}.shortcut"), scale_factor=2)[:, :, :height, :width] + inside',
        'return torch.tanh(conv(F.relu(norm(x, "norm")), "last", padding=1))',
    ]


FAMILIES: dict[type, Callable[[Any], tuple[list[str], list[str]]]] = {
    dcgan.Generator: of_dcgan, r3gan.Generator: of_r3gan, resnet.Generator: of_resnet,
}  # fmt: skip
