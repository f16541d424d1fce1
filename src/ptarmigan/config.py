"""What a user can choose: frozen dataclasses with a line of help for each field, named recipes, and the checks."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from ptarmigan.core.types import UserError, unknown


class Ramp(NamedTuple):
    """A value that moves over the budget, written A..B: a colon would be a number in base 60 to YAML."""

    first: float
    last: float

    def __format__(self, spec: str) -> str:
        return f"{self.first:{spec}}..{self.last:{spec}}"

    def __repr__(self) -> str:
        return f"{self}"


Scheduled = float | Ramp  # optim.at says what it is when


def option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Data:
    size: str | None = option(None, "height x width, as 64 or 48x64; else from the data: 28, 32, 48 or 64")
    channels: Literal[1, 3, 4] | None = option(None, "1 grey, 3 RGB, 4 RGBA; else the majority's")
    fit: Literal["crop", "pad", "stretch"] = option("crop", "how an image is brought to the size's shape")
    split: str = option("90/5/5", "percent for train/select/held-out; none: train on everything")
    group: str | None = option(None, "regular expression on a file's path; equal matches share a part")
    flip: bool = option(False, "mirror half of the training images left to right")
    augment: Literal["none", "gentle", "diffaugment", "ada"] = option(
        "none", "change what D sees, for few images: gentle a little, diffaugment a lot, ada as often as D overfits"
    )
    augment_p: Scheduled = option(1.0, "diffaugment: share of images that each change is made to; A..B: from A to B")


@dataclass(frozen=True)
class Model:
    network: Literal["dcgan", "r3gan", "resnet"] = option(
        "dcgan", "the family: dcgan is the fastest; r3gan has residual blocks and no norms; resnet is SNGAN's"
    )
    conditioning: Literal[
        "projection", "auxiliary_classifier", "twin_classifier", "discriminative_classifier", "reacgan", "none"
    ] = option("projection", "how D is told the class: see `ptarmigan losses`")
    width: int = option(32, "channels next to the image; they double at each stage away from it")
    latent_dim: int = option(100, "length of z")
    latent: Literal["normal", "uniform"] = option("normal", "distribution of z; uniform is on (-1, 1)")
    class_dim: int = option(64, "length of the class embedding that G gets beside z")
    d_norm: Literal["none", "batch", "spectral"] = option("none", "normalisation in D, or of its weights")
    least_side: int = option(4, "maps are halved while both of their sides stay at this or more")
    g_blocks: int = option(0, "dcgan: residual blocks in G at each size but the last before the image's")
    g_modulation: bool = option(
        False, "dcgan: z and the class scale and shift what the norms before G's doublings give"
    )
    dropout: float = option(0.0, "share of D's activations dropped after each stage")
    weight_init: Literal["fan_in", "dcgan"] = option("fan_in", "first weights: the family's fan-in rule, or N(0, .02)")


@dataclass(frozen=True)
class Loss:
    loss: str = option("relativistic", "adversarial loss: see `ptarmigan losses`; or FILE.py with your own")
    smoothing: float = option(1.0, "target for real images in the cross-entropy losses; .9 smooths, 1 does not")
    r1: Scheduled = option(
        0.2, "gamma of R1, the gradient penalty on real images; 0: off; A..B: from A to B over the budget"
    )
    r2: Scheduled = option(0.2, "gamma of R2, the same on generated images; 0: off; A..B: from A to B")
    penalty_every: int = option(1, "updates from one with R1 and R2, so many times as strong, to the next")
    gradient_penalty: float = option(0.0, "weight of WGAN-GP's penalty between real and fake; 10 is usual; 0: off")
    class_weight: float = option(1.0, "lambda, weight of the class term in both players' losses; .5 in reacgan's paper")
    class_fake: bool = option(True, "auxiliary_classifier: D's class term has generated images too")
    class_margin: float = option(0.98, "reacgan: cosine to the class's proxy, above which an image is not drawn to it")
    class_temperature: float = option(0.5, "reacgan: what cosines are divided by")


@dataclass(frozen=True)
class Train:
    time: str | None = option(None, "budget as 90s, 10m, 1h30m of training steps; 10m if no budget is given")
    images: str | None = option(None, "budget as a count of real images seen: 500k, 2M")
    batch: int = option(32, "real images a step, and as many fakes")
    micro_batch: int = option(0, "images computed at once: less memory, more time; 0: the batch, or what fits")
    g_lr: float = option(2e-3, "G's learning rate")
    d_lr: float = option(2e-3, "D's learning rate")
    g_betas: tuple[Scheduled, Scheduled] = option((0.0, 0.99), "G's Adam betas; A..B in place of one: from A to B")
    d_betas: tuple[Scheduled, Scheduled] = option((0.0, 0.99), "D's Adam betas; A..B in place of one: from A to B")
    d_steps: int = option(1, "updates of D for each of G")
    anneal: float = option(0.5, "share of the budget at whose end both rates have fallen linearly to 0; 0: never")
    ema_half_life: Scheduled = option(
        44e3, "images after which G's moving average has forgotten half; 0: no average; A..B: from A to B"
    )
    seed: int = option(0, "seed of every draw: weights, order, latents")
    device: Literal["auto", "cpu", "cuda", "mps"] = option("auto", "where to train")
    deterministic: bool = option(False, "the same bits each time on a GPU too, at some cost; a CPU does so anyway")
    precision: Literal["auto", "fp32", "bf16"] = option("auto", "auto: bf16 where a probe finds it faster")
    snapshots: int = option(20, "sample grids, checkpoints and generators written over the budget")
    live_images: int = option(250, "generated images scored at each snapshot against the select part; 0: none")
    retries: int = option(3, "times to go back to the last good checkpoint, at half the rates, from a value not finite")
    keep: int = option(3, "newest checkpoints kept, besides the first and every tenth")


@dataclass(frozen=True)
class Config:
    """Everything about a run that a user chooses; the shape of the images comes from the data."""

    recipe: str = "auto"
    data: Data = Data()
    model: Model = Model()
    loss: Loss = Loss()
    train: Train = Train()

    def flat(self) -> dict[str, Any]:
        """Field name -> value; names are unique over the four sections."""
        return {key: value for section in SECTIONS for key, value in asdict(getattr(self, section)).items()}


SECTIONS = {"data": Data, "model": Model, "loss": Loss, "train": Train}
TYPES: dict[str, Any] = {key: hint for cls in SECTIONS.values() for key, hint in get_type_hints(cls).items()}
HELP: dict[str, str] = {f.name: f.metadata["help"] for cls in SECTIONS.values() for f in fields(cls)}
RENAMED = {"init": "weight_init"}  # fields under the names that files of before have

BUDGET = ("time", "images")  # may change when a run is extended
UNTRACKED = (
    *BUDGET,
    "device",
    "micro_batch",
    "keep",
    "retries",
    "live_images",
)  # may differ between two runs of one command on a run folder

RECIPES: dict[str, dict[str, Any]] = {
    # Each field against others, with the same images and in the same time: studies/search.md.  choice.py decides the
    # rest, by the data, the device and the budget, and leaves the blocks out of a brief one.
    "auto": dict(loss="non_saturating", least_side=3, g_blocks=1, g_modulation=True, penalty_every=4),
    # Radford et al. 2016 (1511.06434), section 4: z uniform, 100; Adam 2e-4, beta1 .5; batch 128; N(0, .02); batch
    # norm in both.  Not verified against the paper's text: width 64 (the figure's G has 128 next to the image).
    "dcgan": dict(
        conditioning="none", width=64, latent="uniform", d_norm="batch", weight_init="dcgan",
        loss="non_saturating", r1=0.0, r2=0.0, batch=128,
        g_lr=2e-4, d_lr=2e-4, g_betas=(0.5, 0.999), d_betas=(0.5, 0.999), anneal=0.0, ema_half_life=0.0,
    ),
    # Odena et al. 2017 (1610.09585), appendix: Adam 2e-4 of {1, 2, 3}e-4, (.5, .999); batch 100; N(0, .02); leak .2;
    # dropout .5 in D; z 110; activation noise 0 of {0, .1, .2}.  Not verified against the paper's text: width 64,
    # the class as an embedding beside z.
    "acgan": dict(
        conditioning="auxiliary_classifier", width=64, latent_dim=110, d_norm="batch", dropout=0.5,
        weight_init="dcgan",
        loss="non_saturating", r1=0.0, r2=0.0, batch=100,
        g_lr=2e-4, d_lr=2e-4, g_betas=(0.5, 0.999), d_betas=(0.5, 0.999), anneal=0.0, ema_half_life=0.0,
    ),
}  # fmt: skip


def flatten(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, flat or in the sections of a YAML file, by field.

    Raises UserError with the nearest name for a field that its section has not.
    """
    flat: dict[str, Any] = {}
    for key, value in given.items():
        if key in SECTIONS and isinstance(value, Mapping):
            section = {RENAMED.get(name) or name: content for name, content in value.items()}
            for name in section:
                if name not in {f.name for f in fields(SECTIONS[key])}:
                    raise unknown(f"field in section {key!r}", str(name), [f.name for f in fields(SECTIONS[key])])
            flat |= section
        else:
            flat[RENAMED.get(key, key)] = value
    return flat


def resolve(given: Mapping[str, Any]) -> Config:
    """Recipe, then what was given (flat, or in the sections of a YAML file) -> Config, checked.

    Raises UserError with the nearest name for an unknown field, and with the reason for a bad value.
    """
    flat = flatten(given)
    recipe = str(flat.pop("recipe", "auto"))
    if recipe not in RECIPES:
        raise unknown("recipe", recipe, RECIPES)
    for key in flat:
        if key not in TYPES:
            near = difflib.get_close_matches(str(key), TYPES, n=1)
            raise UserError(
                f"unknown field {reprlib.repr(key)[:100]}"
                + (f": did you mean {near[0]!r}?" if near else f": fields are {', '.join(TYPES)}")
            )
    chosen = dict(RECIPES[recipe])
    if flat.get("network", "dcgan") != "dcgan":
        chosen = {key: value for key, value in chosen.items() if key not in (*OF_DCGAN, "least_side")}
    values = chosen | {key: coerce(key, value) for key, value in flat.items() if value is not None}
    sections = {
        name: replace(cls(), **{f.name: values[f.name] for f in fields(cls) if f.name in values})
        for name, cls in SECTIONS.items()
    }
    config = Config(recipe=recipe, **sections)
    check(config)
    return config


def config_of(record: Mapping[str, Any]) -> Config:
    """The config in a record of a run or a generator; raises UserError as `resolve` does.

    Fields that an older file lacks have the dataclasses' defaults, which do as was done before there was a choice, and
    not a recipe's.
    """
    config = record["config"]
    return resolve({**config, **{name: {**asdict(cls()), **config[name]} for name, cls in SECTIONS.items()}})


def coerce(key: str, value: Any) -> Any:
    """A value from YAML, JSON, Python or a flag, in the field's type; raises UserError naming the field."""
    fitted = fit(TYPES[key], value)
    if fitted is not None:
        return fitted
    wanted = " or ".join(
        f"one of {', '.join(map(str, get_args(k)))}" if get_origin(k) is Literal
        else "two numbers" if get_origin(k) is tuple
        else "A..B" if k is Ramp else getattr(k, "__name__", str(k))
        for k in kinds(TYPES[key]) if k is not type(None)
    )  # fmt: skip
    raise UserError(f"{key}: {reprlib.repr(value)[:100]} will not do: {wanted} is needed ({HELP[key]})")


def kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, type(int | str)) else (hint,)


def fit(hint: Any, value: Any) -> Any:
    """A value in the first type of a hint that it fits; None where it fits none."""
    for kind in kinds(hint):
        if get_origin(kind) is Literal and value in get_args(kind):
            return value
        if get_origin(kind) is tuple and isinstance(value, list | tuple) and len(value) == len(get_args(kind)):
            parts = tuple(fit(*pair) for pair in zip(get_args(kind), value, strict=True))
            if None not in parts:
                return parts
        elif kind is Ramp:
            ends = value.split("..", 1) if isinstance(value, str) else value
            if isinstance(ends, list | tuple) and len(ends) == 2:
                first, last = (fit(float, end) for end in ends)
                if first is not None and last is not None:
                    return first if first == last else Ramp(first, last)
        elif kind is bool and isinstance(value, bool):
            return value
        elif kind is str and isinstance(value, str | int) and not isinstance(value, bool):
            return str(value)
        elif kind in (int, float) and not isinstance(value, bool):
            try:
                number = float(value)  # YAML 1.1 reads 2e-3 as a string
            except (TypeError, ValueError, OverflowError):
                continue
            if kind is float or number.is_integer():
                return kind(number)
    return None


def check(config: Config) -> None:
    """Raise UserError where values do not go together or are out of range."""
    data, model, loss, train = config.data, config.model, config.loss, config.train
    parse_size(data.size)
    parse_split(data.split)
    parse_images(train.images)
    parse_time(train.time)
    if train.time and train.images:
        raise UserError("time and images are both given: one budget decides the end; leave one out")
    for key, low, high in (
        ("width", 1, 4096), ("latent_dim", 1, 65536), ("class_dim", 1, 65536), ("batch", 1, 1 << 20),
        ("micro_batch", 0, 1 << 20), ("least_side", 2, 4), ("g_blocks", 0, 16),
        ("d_steps", 1, 1000), ("snapshots", 1, 100_000), ("keep", 1, 100_000), ("retries", 0, 100),
        ("live_images", 0, 1_000_000), ("g_lr", 0, 1), ("d_lr", 0, 1), ("anneal", 0, 1),
        ("r1", 0, 1e9), ("r2", 0, 1e9), ("penalty_every", 1, 1000), ("gradient_penalty", 0, 1e9),
        ("class_weight", 0, 1e9), ("class_margin", 0, 1), ("class_temperature", 0.01, 100), ("ema_half_life", 0, 1e15),
        ("augment_p", 0, 1), ("dropout", 0, 0.95), ("smoothing", 0.5, 1), ("seed", 0, 2**63 - 1),
    ):  # fmt: skip
        value = config.flat()[key]
        if not all(low <= end <= high for end in ends_of(value)):
            raise UserError(f"{key}: {value} is out of range: {low} to {high} ({HELP[key]})")
    if 0 < train.live_images < 10:
        raise UserError(f"live_images: {train.live_images} are too few to score: 0, or 10 and more")
    for key in ("g_betas", "d_betas"):
        if not all(0 <= end < 1 for beta in getattr(train, key) for end in ends_of(beta)):
            raise UserError(f"{key}: {getattr(train, key)} is out of range: each from 0 to below 1")
    if data.augment_p != 1 and data.augment != "diffaugment":
        own = {"gentle": ", whose share is .5", "ada": ", which steers its own"}.get(data.augment, "")
        raise UserError(
            f"augment_p: {data.augment_p} means nothing to augment {data.augment}{own}; leave it out, or take "
            "--augment diffaugment"
        )
    if loss.loss not in LOSSES and not loss.loss.endswith(".py"):
        raise unknown("loss", loss.loss, [*LOSSES, "a .py file"])
    if loss.smoothing < 1 and loss.loss.endswith(".py"):
        raise UserError(f"smoothing: {loss.loss} has its own targets; smooth them there, and leave it out")
    if loss.smoothing < 1 and loss.loss not in ("minimax", "non_saturating"):
        raise UserError(
            f"smoothing: {loss.loss} has no cross-entropy target to smooth; take non_saturating or smoothing 1"
        )
    for key, conditionings in MEANT_FOR.items():
        value, default = getattr(loss, key), getattr(Loss(), key)
        if value != default and model.conditioning not in conditionings:
            raise UserError(
                f"{key}: {value} means nothing to conditioning {model.conditioning}; leave it out, or take "
                f"--conditioning {conditionings[0]}"
            )
    if model.conditioning == "reacgan" and train.micro_batch:
        raise UserError(
            "micro_batch: reacgan contrasts each image with the whole batch, which parts of it do not have; leave it "
            "out, or take a smaller --batch"
        )
    for key in OF_DCGAN:
        if getattr(model, key) and model.network != "dcgan":
            raise UserError(
                f"{key} goes with network dcgan, not {model.network}; leave it out, or take --network dcgan"
            )
    if model.network == "r3gan" and model.d_norm != "none":
        raise UserError(
            f"d_norm {model.d_norm} cannot go with network r3gan, whose blocks start at 0 and do without norms; take "
            "--d-norm none, or --network dcgan"
        )
    if model.network == "resnet" and model.d_norm == "batch":
        raise UserError("d_norm batch cannot go with network resnet, whose D has none; take --d-norm spectral or none")
    if model.network == "r3gan" and model.weight_init != "fan_in":
        raise UserError(
            f"weight_init {model.weight_init} cannot go with network r3gan: without norms, weights N(0, .02) leave "
            "nothing of an image after a few stages; take --weight-init fan_in, or --network dcgan"
        )
    if model.d_norm == "batch":
        coupled = [f"{key} {getattr(loss, key)}" for key in ("r1", "r2", "gradient_penalty") if getattr(loss, key)]
        if coupled:
            raise UserError(
                f"d_norm batch cannot go with {coupled[0]}: batch norm couples the samples, so the gradient of a sum "
                f"is no longer each sample's own gradient (R1 of a linear D behind batch norm is 0); take --d-norm none"
            )
        if loss.loss == "relativistic":
            raise UserError(
                "d_norm batch cannot go with the relativistic loss: each pair is compared through D, and batch norm "
                "lets D read the rest of the batch instead; take --d-norm none"
            )
    if data.group is not None:
        try:
            re.compile(data.group)
        except re.error as error:
            raise UserError(f"group: {data.group!r} is no regular expression: {error}") from None


def ends_of(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, Ramp) else (value,)


OF_DCGAN = ("g_blocks", "g_modulation")  # fields of Model that belong to one family

# Fields of Loss that belong to a conditioning.  Data of one class turn any of them into none, and projection took
# class_fake before there were others: files with it are there.
MEANT_FOR = {
    "class_fake": ("auxiliary_classifier", "projection", "none"),
    "class_margin": ("reacgan", "none"),
    "class_temperature": ("reacgan", "none"),
}

# Names alone: the functions stand in losses.py, which needs torch; a test holds the two equal.
LOSSES = (
    "minimax", "non_saturating", "least_squares", "least_squares_pearson", "hinge", "wasserstein", "relativistic",
)  # fmt: skip


def parse_size(text: str | None) -> tuple[int, int] | None:
    """'64' -> (64, 64), '48x64' -> (48, 64), height first; 16 to 256 each."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip())
    if not match:
        raise UserError(f"size: {text!r} is no size: write 64, or 48x64 for height x width")
    height, width = int(match[1]), int(match[2] or match[1])
    near = tuple(min(max(side, 16), 256) for side in (height, width))
    if near != (height, width):
        raise UserError(
            f"size: {height}x{width} cannot work, sides go from 16 to 256: the nearest that can is {near[0]}x{near[1]}"
        )
    return height, width


def parse_split(text: str) -> tuple[float, float, float] | None:
    """'90/5/5' -> shares for train, select and held-out that add up to 1; 'none' -> None."""
    if text == "none":
        return None
    try:
        shares = tuple(float(part) / 100 for part in text.split("/"))
    except ValueError:
        shares = ()
    if len(shares) != 3 or abs(sum(shares) - 1) > 1e-6 or min(shares) < 0 or shares[0] <= 0:
        raise UserError(f"split: {text!r} is no split: write three percentages that add up to 100, as 90/5/5, or none")
    return shares[0], shares[1], shares[2]


def parse_images(text: str | None) -> int | None:
    """'500k' -> 500_000, '2M' -> 2_000_000."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text.replace("_", "").strip())
    count = round(float(match[1]) * {"": 1, "k": 1e3, "m": 1e6}[match[2].lower()]) if match else 0
    if count < 1:
        raise UserError(f"images: {text!r} is no count of images: write 500k or 2M")
    return count


def parse_time(text: str | None) -> float | None:
    """'90s', '10m', '1h30m' -> seconds."""
    if text is None:
        return None
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    seconds = (
        sum(float(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0
    )
    if seconds <= 0:
        raise UserError(f"time: {text!r} is no length of time: write 90s, 10m or 1h30m")
    return seconds
