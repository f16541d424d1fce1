"""Recipe `auto`: choose fields for the data, the device and the budget, and give the reasons."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ptarmigan.config import Config
from ptarmigan.config.checks import check
from ptarmigan.config.sections import SECTIONS
from ptarmigan.core.types import ImageSpec, counted
from ptarmigan.networks.layers import sides

# Thresholds between the choices, each measured on Fashion-MNIST: studies/search.md
BLOCKS_FROM = 50_000  # images seen; below, blocks in G do not repay their time on a CPU
LARGE_BATCH_FROM = 100_000  # images seen; from here batch 64 and weaker penalties are better for the same time
WIDE_FROM = 500_000  # images seen; from here width 64 is better for the same images; not measured for the same GPU time
FEW_PER_CLASS = 200  # images; below, D may memorise them; measured at 100
SEEN_OFTEN = 50  # epochs; from here a small data set needs stronger penalties; measured at 50 and 100
GENTLE_FROM = 150  # epochs; from here gentle augmentation is worth its time on a CPU; measured at 100, 150 and 225
GENTLE_LARGE = 50  # epochs, the same for large images; measured at 36 and 79 at 64x64
SMALLER = 64  # pixels of the short side that is advised where a budget is too short for larger images
FROZEN = 2  # stages of D that keep the base model's weights; measured at 48x64 and 64x64
LARGE_PIXELS = 32 * 32  # above: D's rate, the penalties, batch 32, blocks, smooth; measured at 48x64 and 64x64


class Curve(NamedTuple):
    """Images seen by recipe `auto` until its samples looked so, judged by eye: docs/benchmarks.md."""

    height: int
    width: int
    colour: bool
    rough: int  # rough shapes, of their class
    recognisable: int  # most classes are recognisable at a glance
    good: int | None  # hard to tell from real images at a glance; None: not reached
    measured: int  # images seen, in all
    h200: float | None = None  # images/s of an H200 GPU; None: not measured


CURVES = (
    Curve(28, 28, False, 10_000, 57_000, 360_000, 560_000, 27_900),
    Curve(48, 64, True, 25_000, 100_000, None, 100_000),
    Curve(64, 64, True, 10_000, 43_500, None, 150_000, 28_400),
)


@dataclass(frozen=True)
class Setting:
    """What the choice depends on."""

    spec: ImageSpec
    counts: Collection[int]  # training images of each class
    device: str  # cpu, cuda or mps
    images: float  # an estimate of the images that the budget will see
    from_base: bool = False  # whether G and D start from the base model

    @property
    def large(self) -> bool:
        return self.spec.height * self.spec.width > LARGE_PIXELS

    @property
    def gentle_from(self) -> int:
        """The epochs from which gentle augmentation is worth its time."""
        return GENTLE_LARGE if self.large else GENTLE_FROM

    @property
    def few(self) -> bool:
        """Whether D could memorise the training images: there are few of them per class, and each is seen often."""
        total = sum(self.counts)
        return total < FEW_PER_CLASS * len(self.counts) and self.images >= SEEN_OFTEN * total


class Choice(NamedTuple):
    config: Config
    reasons: list[str]  # a line each for network, loss, batch and augmentation
    setting: Setting


def choose(config: Config, given: Collection[str], setting: Setting, of_model: Collection[str] = ()) -> Choice:
    """The config with the fields that `auto` chooses, except those in `given` and `of_model`, and the reasons.

    `of_model` are the fields of a warm start's model.

    Raises UserError if the choice conflicts with the given fields.
    """
    fields = {key: value for key, value in decide(config, given, setting).items() if key not in {*given, *of_model}}
    chosen = with_fields(config, fields)
    check(chosen)
    return Choice(chosen, reasons(chosen, given, of_model, setting), setting)


def decide(config: Config, given: Collection[str], setting: Setting) -> dict[str, Any]:
    """The fields that `auto` would choose if none were given, except that r1 and r2 follow a given augment.

    config/recipes.py has the rest of the recipe.  A resumed run keeps these fields, and augment_p.
    """
    images, large, few, on_cuda = setting.images, setting.large, setting.few, setting.device == "cuda"
    large_batch = images >= LARGE_BATCH_FROM and not large
    # on CUDA a step with augmentation is not recorded as a graph, and is several times slower
    gentle = few and images >= setting.gentle_from * sum(setting.counts) and not on_cuda
    augment = config.data.augment if "augment" in given else "gentle" if gentle else "none"
    if large:
        gamma = 1.5
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
        fields["resampling"] = "smooth" if config.model.network == "dcgan" else config.model.resampling
    if setting.from_base and config.model.network == "dcgan":
        fields["d_frozen"] = FROZEN
    return fields


def with_fields(config: Config, fields: dict[str, Any]) -> Config:
    """The config with other values in some of its fields."""
    sections = {
        name: replace(getattr(config, name), **{k: v for k, v in fields.items() if hasattr(cls, k)})
        for name, cls in SECTIONS.items()
    }
    return replace(config, **sections)


def reasons(config: Config, given: Collection[str], of_model: Collection[str], setting: Setting) -> list[str]:
    """A line each for network, loss, batch and augmentation: the choice, and the reason or who else set it."""

    def line(what: str, why: str, *fields: str) -> str:
        yours = [field for field in fields if field in given]
        if not yours and fields[0] in of_model:
            why = "as the model has it that the run starts from"
        return f"{what}: " + (f"{', '.join(yours)} as given" if yours else why)

    model, loss, train, data = config.model, config.loss, config.train, config.data
    height, width = sides(setting.spec, model)[-1]
    smooth = ", smooth resampling" if model.resampling == "smooth" else ""
    frozen = f", D's first {model.d_frozen} stages frozen" if model.d_frozen else ""
    blocks = ", no blocks in G" if model.network == "dcgan" and not model.g_blocks else ""
    penalties = " and ".join(f"{name} {value}" for name, value in (("R1", loss.r1), ("R2", loss.r2)) if value)
    share = f", a share of {data.augment_p}" if data.augment_p != 1 else ""
    return [
        line(
            f"network {model.network}, width {model.width}{blocks}{smooth}{frozen}, smallest maps {height}x{width}",
            why_width(model.width, setting) + (f"; blocks pay off from {BLOCKS_FROM:,} images seen" if blocks else ""),
            "network", "width", "g_blocks", "least_side", "resampling", "d_frozen",
        ),
        line(
            f"loss {loss.loss}, penalties {penalties or 'none'}, conditioning {model.conditioning}",
            "large images need strong penalties; with weaker ones their samples were speckled"
            if setting.large
            else "strong penalties keep D from memorising images that it sees many times"
            if setting.few
            else "both penalties keep D smooth; without them the samples were much worse",
            "loss", "r1", "r2", "conditioning",
        ),
        line(
            f"batch {train.batch}, learning rates {train.g_lr:g} for G and {train.d_lr:g} for D, falling to 0",
            why_batch(train.batch, setting),
            "batch", "g_lr", "d_lr", "anneal",
        ),
        line(f"augmentation {data.augment}{share}", why_augment(data.augment, setting, data.balance), "augment"),
    ]  # fmt: skip


def why_width(width: int, setting: Setting) -> str:
    if width > 32:
        return "a wider network learns more from each image, and a GPU is fast enough for it"
    if setting.device == "cuda":
        return f"a wider network pays off from {WIDE_FROM:,} images seen"
    return "a wider network learns more from each image, but not more in the same time"


def why_batch(batch: int, setting: Setting) -> str:
    if batch == 64:
        return f"it sees more images per second than batch 32, and is better from {LARGE_BATCH_FROM:,} images seen"
    if setting.large:
        return "a small batch gives more updates; with a lower rate for D large images get better"
    return f"a small batch gives more updates, which a budget below {LARGE_BATCH_FROM:,} images needs"


def why_augment(augment: str, setting: Setting, balance: bool) -> str:
    """How many images a class has and how often each is seen, and what follows from that."""
    counts = setting.counts
    mean, times = sum(counts) / len(counts), setting.images / sum(counts)
    fewest, most = min(counts), max(counts)
    of_class = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    often = "less than once" if times < 1 else "about once" if times < 1.5 else f"about {times:,.0f} times"
    text = f"{of_class} images per class, {'on average' if balance else 'each'} seen {often}"
    if augment != "none":
        return f"{text}: D would memorise them without it"
    if mean >= FEW_PER_CLASS:
        return f"{text}; gentle helps where the mean is below {FEW_PER_CLASS}"
    if setting.device == "cuda" and setting.few:
        return f"{text}; on a GPU it makes a step several times slower, so the penalties are stronger instead"
    return f"{text}; gentle helps from {setting.gentle_from} times"


def nearest_curve(spec: ImageSpec) -> Curve:
    """The curve that was measured nearest to the size of the images."""
    pixels, colour = spec.height * spec.width, spec.channels > 1
    return min(CURVES, key=lambda c: (abs(math.log(c.height * c.width / pixels)), c.colour != colour))


def expectation(setting: Setting, images_per_second: float) -> str:
    """When samples get recognisable at this speed, by the curve that was measured nearest to the images' size."""
    spec, curve = setting.spec, nearest_curve(setting.spec)
    pixels, colour = spec.height * spec.width, spec.channels > 1

    def after(images: int, rate: float = images_per_second) -> str:
        return rounded_time(images / rate)

    size, known = (
        f"{height}x{width} in {'colour' if coloured else 'grey'}"
        for height, width, coloured in ((spec.height, spec.width, colour), (curve.height, curve.width, curve.colour))
    )
    rate = f"{images_per_second:,.0f}" if images_per_second >= 10 else f"{images_per_second:.2g}"
    good = f"good ones in {after(curve.good)}" if curve.good else f"good ones take more than {after(curve.measured)}"
    text = (
        f"expect at {rate} images/s, {size}: rough shapes in {after(curve.rough)}, recognisable ones in "
        f"{after(curve.recognisable)}, {good}"
    )
    if setting.device == "cpu" and curve.h200 and size == known:
        text += f" (on an H200 GPU, recognisable in {after(curve.recognisable, curve.h200)})"
    if size != known:
        more = pixels > curve.height * curve.width or (colour and not curve.colour)
        text += f"; measured at {known} only{', so expect more' * more}"
    return text


def advice(setting: Setting) -> str | None:
    """A smaller size, if the budget ends before samples of this one get recognisable, by the same curve; else None."""
    spec, short = setting.spec, min(setting.spec.height, setting.spec.width)
    if short <= SMALLER or setting.images >= nearest_curve(spec).recognisable:
        return None
    height, width = (round(SMALLER * side / short) for side in (spec.height, spec.width))
    size = f"{height}" if height == width else f"{height}x{width}"
    return (
        f"the budget allows about {float(f'{setting.images:.2g}'):,.0f} images, too few for recognisable samples of "
        f"this size; give more --time, or --size {size}, with about {(short / SMALLER) ** 2:.2g} times as many images/s"
    )


def rounded_time(seconds: float) -> str:
    """A duration in words, with one or two digits, because it is an estimate."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= 1.5 * length or unit == "second":
            number = max(1, round(seconds / length))
            return counted(number if number < 20 else round(number, -1), unit)
    raise AssertionError
