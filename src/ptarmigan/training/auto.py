"""Recipe `auto`: choose fields for the data, the device and the budget, and give the reasons."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ptarmigan.config import SECTIONS, Config, check
from ptarmigan.core.types import ImageSpec
from ptarmigan.networks.layers import sides

# Thresholds between the choices, each measured on Fashion-MNIST: studies/search.md
BLOCKS_FROM = 50_000  # images seen; below, blocks in G do not repay their time on a CPU
LARGE_BATCH_FROM = 100_000  # images seen; from here batch 64 and weaker penalties are better for the same time
WIDE_FROM = 500_000  # images seen; from here width 64 is better for the same images; not measured for the same GPU time
FEW_PER_CLASS = 200  # images; below, D may memorise them; measured at 100
SEEN_OFTEN = 50  # epochs; from here a small data set needs stronger penalties; measured at 50 and 100
GENTLE_FROM = 150  # epochs; from here gentle augmentation is worth its time on a CPU; measured at 100, 150 and 225
LARGE_PIXELS = 32 * 32  # above: a lower rate for D, batches of 32, blocks in G; measured at 48x64


class Measured(NamedTuple):
    """The Fréchet distance of generated to held-out Fashion-MNIST images."""

    run: str
    images_seen: int
    distance: float  # lower is better
    source: str
    samples: str = ""  # how they look


MEASURED = (
    Measured("auto", 10_000, 125, "docs/benchmarks.md", "rough shapes"),
    Measured("auto", 21_000, 51, "docs/benchmarks.md", "rough, but of their class"),
    Measured("auto", 57_000, 17, "docs/benchmarks.md", "clear classes"),
    Measured("auto", 360_000, 2.8, "docs/benchmarks.md", "hard to tell from real images at a glance"),
    Measured("auto", 560_000, 2.3, "studies/search.md", "hard to tell from real images at a glance"),
    Measured("1,000 training images, no augmentation", 210_000, 7.1, "docs/benchmarks.md"),
    Measured("1,000 training images, augmentation gentle", 210_000, 4.8, "docs/benchmarks.md"),
    Measured("10 minutes of acgan", 240_700, 77, "docs/benchmarks.md"),
    Measured("real images", 0, 0.53, "docs/benchmarks.md"),
)


# A resumed run keeps the fields that `decide` sets, and augment_p.  config.py has the rest of the recipe.
@dataclass(frozen=True)
class Setting:
    """What the choice depends on."""

    spec: ImageSpec
    counts: Collection[int]  # training images of each class
    device: str  # cpu, cuda or mps
    images: float  # an estimate of the images that the budget will see

    @property
    def large(self) -> bool:
        return self.spec.height * self.spec.width > LARGE_PIXELS

    @property
    def few(self) -> bool:
        """Whether D could memorise the training images: there are few of them per class, and each is seen often."""
        total = sum(self.counts)
        return total < FEW_PER_CLASS * len(self.counts) and self.images >= SEEN_OFTEN * total


class Choice(NamedTuple):
    config: Config
    reasons: list[str]  # four lines
    expected: str


def choose(config: Config, given: Collection[str], setting: Setting) -> Choice:
    """The config with the fields that `auto` chooses, except those in `given`, and the reasons.

    Raises UserError if the choice conflicts with the given fields.
    """
    fields = {key: value for key, value in decide(config, given, setting).items() if key not in given}
    chosen = with_fields(config, fields)
    check(chosen)
    return Choice(chosen, reasons(chosen, given, setting), expectation(chosen, setting))


def decide(config: Config, given: Collection[str], setting: Setting) -> dict[str, Any]:
    """The fields that `auto` would choose if none were given, except that r1 and r2 follow a given augment."""
    images, large, few, on_cuda = setting.images, setting.large, setting.few, setting.device == "cuda"
    large_batch = images >= LARGE_BATCH_FROM and not large
    # on CUDA a step with augmentation is not recorded as a graph, and is several times slower
    gentle = few and images >= GENTLE_FROM * sum(setting.counts) and not on_cuda
    augment = config.data.augment if "augment" in given else "gentle" if gentle else "none"
    if large:
        gamma = 0.4
    elif few:
        gamma = 1.0 if augment == "none" else 0.4
    else:
        gamma = 0.1 if large_batch else 0.2
    fields: dict[str, Any] = {
        "width": 64 if on_cuda and images >= WIDE_FROM else 32,
        "batch": 64 if large_batch else 32,
        "augment": augment,
    }
    if config.loss.r1 and config.loss.r2:  # where one was switched off, both stay as they are
        fields |= {"r1": gamma, "r2": gamma}
    if setting.device == "cpu" and images < BLOCKS_FROM and not large:
        fields["g_blocks"] = 0
    if large:
        fields["d_lr"] = 1e-3
    return fields


def with_fields(config: Config, fields: dict[str, Any]) -> Config:
    """The config with other values in some of its fields."""
    sections = {
        name: replace(getattr(config, name), **{k: v for k, v in fields.items() if hasattr(cls, k)})
        for name, cls in SECTIONS.items()
    }
    return replace(config, **sections)


def reasons(config: Config, given: Collection[str], setting: Setting) -> list[str]:
    """One line each for network, loss, batch and augmentation: the choice, and the reason or that the user set it."""

    def line(what: str, why: str, *fields: str) -> str:
        yours = [field for field in fields if field in given]
        return f"{what}: " + (f"{', '.join(yours)} as given" if yours else why)

    model, loss, train, data = config.model, config.loss, config.train, config.data
    height, width = sides(setting.spec, model)[-1]
    blocks = ", no blocks in G" if model.network == "dcgan" and not model.g_blocks else ""
    penalties = " and ".join(f"{name} {value}" for name, value in (("R1", loss.r1), ("R2", loss.r2)) if value)
    share = f", a share of {data.augment_p}" if data.augment_p != 1 else ""
    return [
        line(
            f"network {model.network}, width {model.width}{blocks}, maps halved to {height}x{width}",
            why_width(model.width, setting) + (f"; blocks pay off from {BLOCKS_FROM:,} images seen" if blocks else ""),
            "network", "width", "g_blocks", "least_side",
        ),
        line(
            f"{loss.loss} loss, {penalties or 'no penalty'}, {model.conditioning.replace('_', ' ')}",
            "strong penalties keep D from memorising a small data set that it sees many times" if setting.few
            else "without the penalties, or with an auxiliary classifier, the distance was several times larger",
            "loss", "r1", "r2", "conditioning",
        ),
        line(
            f"batch {train.batch}, learning rates {train.g_lr:g} for G and {train.d_lr:g} for D, falling to 0",
            why_batch(train.batch, setting),
            "batch", "g_lr", "d_lr", "anneal",
        ),
        line(
            f"augmentation {data.augment}{share}",
            f"{sum(setting.counts) / len(setting.counts):,.0f} images per class"
            + ("; gentle augmentation brings samples closer to unseen images" if data.augment == "gentle" else ""),
            "augment",
        ),
    ]  # fmt: skip


def why_width(width: int, setting: Setting) -> str:
    if width > 32:
        return "wider networks are better after the same number of images, and a GPU is fast enough for them"
    if setting.device == "cuda":
        return f"wider networks pay off from {WIDE_FROM:,} images seen"
    return "wider networks are better after the same number of images, but not after the same time"


def why_batch(batch: int, setting: Setting) -> str:
    if batch == 64:
        return f"more images per second than batch 32, and better from {LARGE_BATCH_FROM:,} images seen"
    if setting.large:
        return "more updates; a lower rate for D, because at G's rate large images were grainy"
    return f"more updates, which a budget below {LARGE_BATCH_FROM:,} images needs"


def expectation(config: Config, setting: Setting) -> str:
    """What to expect: the result that the nearest measured budget gave on Fashion-MNIST."""
    of = {row.run: row for row in MEASURED if row.run != "auto"}
    nearest = min(
        (row for row in MEASURED if row.run == "auto"),
        key=lambda row: abs(math.log(row.images_seen / setting.images)),
    )
    text = (
        f"expect: {nearest.samples}; on Fashion-MNIST, {nearest.images_seen:,} images seen gave a Fréchet distance of "
        f"{nearest.distance:g} (real images {of['real images'].distance:g}, "
        f"10 minutes of acgan {of['10 minutes of acgan'].distance:g})"
    )
    if max(setting.spec.height, setting.spec.width) > 32:
        text += "; larger images need many more"
    if setting.few:
        changed = "augmentation gentle" if config.data.augment == "gentle" else "no augmentation"
        row = of[f"1,000 training images, {changed}"]
        text += f"; with {row.run}, {row.images_seen:,} seen gave {row.distance:g}"
    return text
