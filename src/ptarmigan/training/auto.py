"""What `auto` takes for these data, this device and this budget, with its reasons.

Each rule was measured, on Fashion-MNIST: studies/search.md has the figures.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from typing import Any, NamedTuple

from ptarmigan.config import SECTIONS, Config, check
from ptarmigan.core.types import ImageSpec
from ptarmigan.networks.layers import sides

BRIEF = 50_000  # images seen up to which blocks in G cost a CPU more time than they are worth
LONG = 100_000  # images seen from which a batch of 64 and a weaker penalty are better, minute by minute
WIDE = 500_000  # images seen after which twice the width is better image by image; what it costs a GPU is not measured
FEW = 200  # images a class, below which D may learn them by heart; measured at 100
OFTEN = 50  # times that each image is seen, from which D of few images is held back more; measured at 50 and 100
BY_HEART = 150  # times from which changing them a little pays for what it costs a CPU; measured at 100, 150 and 225
LARGE = 32 * 32  # pixels above which D is slower than G, batches stay at 32 and G has blocks; measured at 48x64

# What `choose` decides, or once did, which runs begun then go on with; the rest of the recipe stands in config.py
CHOSEN = ("width", "g_blocks", "batch", "d_lr", "r1", "r2", "augment", "augment_p")

# Images seen, the Fréchet distance there on Fashion-MNIST (docs/benchmarks.md, studies/search.md), how samples look
EXPECTED = (
    (10_000, 125, "rough shapes"),
    (21_000, 51, "rough, but of their class"),
    (57_000, 17, "clear classes"),
    (360_000, 2.8, "hard to tell at a glance"),
    (560_000, 2.3, "hard to tell at a glance"),
)


class Choice(NamedTuple):
    config: Config
    reasons: list[str]  # four lines
    expected: str


def choose(
    config: Config, given: Collection[str], spec: ImageSpec, counts: Collection[int], device: str, images: float
) -> Choice:
    """The config with what `auto` decides, but for the fields that were `given`.

    `counts` are the training images of each class, `device` is cpu, cuda or mps, and `images` are about how many the
    budget will see.  Raises UserError where the choice cannot go with what was given.
    """
    long, wide = images >= LONG and not large(spec), device == "cuda" and images >= WIDE
    # on CUDA a step with augmentation is no recorded graph, and several times slower
    pays = few(counts, images) and images >= BY_HEART * sum(counts) and device != "cuda"
    augment = config.data.augment if "augment" in given else "gentle" if pays else "none"
    if large(spec):
        gamma = 0.4
    elif few(counts, images):
        gamma = 1.0 if augment == "none" else 0.4
    else:
        gamma = 0.1 if long else 0.2
    fields: dict[str, Any] = {
        "width": 64 if wide else 32, "batch": 64 if long else 32, "r1": gamma, "r2": gamma, "augment": augment
    }  # fmt: skip
    if device == "cpu" and images < BRIEF and not large(spec):
        fields["g_blocks"] = 0
    if large(spec):
        fields["d_lr"] = 1e-3
    if not (config.loss.r1 and config.loss.r2):  # one that was switched off stays so, and leaves the other as it is
        del fields["r1"], fields["r2"]
    chosen = replaced(config, {key: value for key, value in fields.items() if key not in given})
    check(chosen)
    return Choice(chosen, reasons(chosen, given, spec, counts, device, images), expected(chosen, images, spec, counts))


def few(counts: Collection[int], images: float) -> bool:
    """D can learn the training images by heart: there are few in a class on average, and each is seen often."""
    return sum(counts) < FEW * len(counts) and images >= OFTEN * sum(counts)


def large(spec: ImageSpec) -> bool:
    return spec.height * spec.width > LARGE


def replaced(config: Config, fields: dict[str, Any]) -> Config:
    """The config with other values in some of its fields."""
    sections = {
        name: replace(getattr(config, name), **{k: v for k, v in fields.items() if hasattr(cls, k)})
        for name, cls in SECTIONS.items()
    }
    return replace(config, **sections)


def reasons(
    config: Config, given: Collection[str], spec: ImageSpec, counts: Collection[int], device: str, images: float
) -> list[str]:
    """A line for the network, the game, the batch and the images, each with why, or with who decided."""

    def line(what: str, why: str, *fields: str) -> str:
        yours = [field for field in fields if field in given]
        return f"{what}: " + (f"{', '.join(yours)} as you asked" if yours else why)

    model, loss, train = config.model, config.loss, config.train
    height, across = sides(spec, model)[-1]
    if model.width > 32:
        wide = "wider ones were better image by image, and a GPU has room for them"
    elif device == "cuda":
        wide = f"wider ones pay from {WIDE:,} images seen on"
    else:
        wide = "wider ones were better image by image, but not minute by minute"
    blocks = ""
    if model.network == "dcgan" and not model.g_blocks:
        blocks, wide = ", no blocks in G", f"{wide}; blocks pay from {BRIEF:,} images seen on"
    penalty = " and ".join(f"{name} {value}" for name, value in (("R1", loss.r1), ("R2", loss.r2)) if value)
    batch = (
        f"more images a second than 32, and better from {LONG:,} images on"
        if train.batch == 64
        else "more updates, and a slower D, which left a grain on large images at G's rate"
        if large(spec)
        else f"more updates, which a budget of under {LONG:,} images wants"
    )
    augment = config.data.augment + (f", a share of {config.data.augment_p}" if config.data.augment_p != 1 else "")
    return [
        line(
            f"network {model.network}, width {model.width}{blocks}, maps halved to {height}x{across}",
            wide,
            "network",
            "width",
            "g_blocks",
            "least_side",
        ),
        line(
            f"{loss.loss} loss, {penalty or 'no penalty'}, {model.conditioning.replace('_', ' ')}",
            "D, which sees each image so often, learns fewer by heart under strong penalties"
            if few(counts, images)
            else "without penalties the distance was 25 times as large, with an auxiliary classifier 3 times",
            "loss",
            "r1",
            "r2",
            "conditioning",
        ),
        line(
            f"batch {train.batch}, rates {train.g_lr:g} for G and {train.d_lr:g} for D, falling to 0 at the end",
            batch,
            "batch",
            "g_lr",
            "d_lr",
            "anneal",
        ),
        line(
            f"augmentation {augment}",
            f"{sum(counts) / len(counts):,.0f} images a class"
            + ("; changed a little, samples come nearer to unseen images" if augment == "gentle" else ""),
            "augment",
        ),
    ]


def expected(config: Config, images: float, spec: ImageSpec, counts: Collection[int]) -> str:
    """What about so many images gave on Fashion-MNIST."""
    seen, distance, looks = min(EXPECTED, key=lambda row: abs(math.log(row[0] / images)))
    but = "" if max(spec.height, spec.width) <= 32 else "; larger images want many more"
    if few(counts, images):
        but += f"; of 1,000 images alone, some 210,000 seen gave {4.8 if config.data.augment == 'gentle' else 7.1}"
    return (
        f"expect: {seen:,} images seen gave a Fréchet distance of {distance:g} on Fashion-MNIST, where real images "
        f"have .53 and ten minutes of acgan 77: {looks}{but}"
    )
