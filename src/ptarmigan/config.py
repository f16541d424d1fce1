"""The options of a run: frozen dataclasses with help and bounds beside each field, the recipes, and the checks."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from ptarmigan.core.types import LEAST_SIDE, MOST_SIDE, UserError, shown, unknown
from ptarmigan.core.words import LOSS_NAMES, OTHERS, other_option, plain

if TYPE_CHECKING:
    from typing import Unpack

    from ptarmigan.core.fields import FieldsButLoss


class Ramp(NamedTuple):
    """A value that moves from `first` to `last` over the budget.  Users write A..B; YAML reads A:B as base 60."""

    first: float
    last: float

    def __format__(self, spec: str) -> str:
        return f"{self.first:{spec}}..{self.last:{spec}}"

    def __repr__(self) -> str:
        return f"{self}"


Scheduled = float | Ramp  # game.optim.at gives its value at a place in the budget


def has_ramp(value: Any) -> bool:
    """Whether a value is a ramp, or a tuple that holds one."""
    return isinstance(value, Ramp) or (isinstance(value, tuple) and any(map(has_ramp, value)))


def readable(number: float) -> str:
    """A bound as people read it: 4096, 1,048,576, 0.95."""
    return f"{number:,}" if number >= 10_000 else str(number)


def option(default: Any, text: str, low: float | None = None, high: float | None = None) -> Any:
    """A field with its help text and, for a number, the smallest and largest value allowed.

    The help leaves out a bound of 10^9 or more, which only guards against overflow.
    """
    if low is None or high is None:
        return field(default=default, metadata={"help": text, "bounds": None})
    text += f" [{readable(low)} " + ("or more]" if high >= 10**9 else f"to {readable(high)}]")
    return field(default=default, metadata={"help": text, "bounds": (low, high)})


def conflict(text: str) -> UserError:
    return UserError(text, "options-conflict")


# --- the images ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Data:
    labels: str | None = option(
        None,
        "table of paths and labels (CSV, TSV, JSON, JSON Lines), here or in the data folder; default: one in the data "
        "folder, if there are no class folders",
    )
    label_column: str | None = option(None, "column of the table with the labels; default: found by its name")
    path_column: str | None = option(None, "column of the table with the images; default: found by its values")
    size: str | None = option(
        None,
        "height x width in pixels, 64 or 48x64, each 16 to 512; default: near the images' own, short side at most 64",
    )
    channels: Literal[1, 3, 4] | None = option(None, "1 grey, 3 RGB, 4 RGBA; default: what the images' pixels show")
    fit: Literal["crop", "pad", "stretch"] = option(
        "crop", "how an image of another shape is fitted to the size: cut the edges off, add borders, or distort"
    )
    window: str | None = option(
        None, "LOW,HIGH: values of images of 16 bits or more that become black and white; default: from all of them"
    )
    max_pixels: int = option(89_478_485, "most pixels of an image; larger images are left out", 1, 1 << 32)
    split: str | None = option(
        None,
        "percentages of the images for the train, select and held-out parts, or none to train on all; default: 90/5/5 "
        "without the parts that would be too small to be of use",
    )
    group: str | None = option(
        None,
        "column of a table beside the images, or regular expression for their paths: images whose text there is the "
        "same stay in one part of the split; default: no groups",
    )
    balance: bool = option(
        False, "draw every class equally often; default: in proportion to its training images, as scores always do"
    )
    flip: bool = option(False, "mirror each training image left to right with probability 0.5")
    augment: Literal["none", "gentle", "diffaugment", "ada"] = option(
        "none", "augment the images that D sees, against overfitting: gentle, stronger (diffaugment), adaptive (ada)"
    )
    augment_p: Scheduled = option(1.0, "diffaugment: probability of each change; A..B moves over the budget", 0, 1)


READING = tuple(key for key in Data.__dataclass_fields__ if key not in ("balance", "flip", "augment", "augment_p"))
"""The fields that say how images are read and divided; the others change them in each batch."""


def check_data(config: Config) -> None:
    data = config.data
    parse_size(data.size)
    parse_window(data.window)
    if data.split is not None:
        parse_split(data.split)
    try:
        re.compile(data.group or "")
    except re.error as error:
        raise UserError(f"group: expected a regular expression, got {data.group!r}: {error}", "value-invalid") from None
    if data.augment_p != 1 and data.augment != "diffaugment":  # gentle has 0.5, and ada controls its own
        raise conflict(
            f"augment_p: {data.augment_p} has no effect with augment {data.augment}; leave it out, or use "
            "--augment diffaugment"
        )


# --- the networks ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    network: Literal["dcgan", "r3gan", "resnet"] = option(
        "dcgan", "family of G and D: dcgan is fastest; r3gan has residual blocks without norms; resnet is SNGAN's"
    )
    conditioning: Literal[
        "projection", "auxiliary_classifier", "twin_classifier", "discriminative_classifier", "reacgan", "none"
    ] = option("projection", "how D uses the class: see `ptarmigan losses`")
    width: int = option(
        32, "channels of G's and D's largest maps; each halving of a map doubles them, up to eightfold", 1, 4096
    )
    latent_dim: int = option(100, "dimensions of the latent z", 1, 65536)
    latent: Literal["normal", "uniform"] = option("normal", "distribution of z; uniform is on (-1, 1)")
    class_dim: int = option(64, "dimensions of the class embedding that G gets beside z", 1, 65536)
    d_norm: Literal["none", "batch", "spectral"] = option(
        "none", "normalisation in D: batch norm of its features, or spectral norm of its weights"
    )
    least_side: int = option(4, "halve maps while both sides stay at this many pixels or more", 2, 4)
    g_blocks: int = option(0, "dcgan: residual blocks in G before each doubling of its maps but the last", 0, 16)
    g_modulation: bool = option(False, "dcgan: compute the scale and shift of G's batch norms from z and the class")
    resampling: Literal["strided", "smooth"] = option(
        "strided",
        "dcgan: how maps are doubled in G and halved in D: by strided convolutions alone, as in DCGAN's paper, or "
        "smooth, with a low-pass filter at each, which leaves no chessboard pattern in the images",
    )
    dropout: float = option(0.0, "fraction of D's activations that are set to 0 after each stage", 0, 0.95)
    weight_init: Literal["fan_in", "dcgan"] = option(
        "fan_in", "distribution of the initial weights: by each layer's fan-in, or N(0, 0.02) as in DCGAN's paper"
    )


OF_DCGAN = ("g_blocks", "g_modulation", "resampling")  # fields of Model that the other families do not read


def check_networks(config: Config) -> None:
    model = config.model
    for key in OF_DCGAN:
        if getattr(model, key) != getattr(Model(), key) and model.network != "dcgan":
            raise conflict(
                f"{key} works with network dcgan only, not with {model.network}; leave it out, or use --network dcgan"
            )
    if model.network == "r3gan" and model.d_norm != "none":
        raise conflict(
            f"d_norm {model.d_norm} does not work with network r3gan, whose blocks start as the identity and need no "
            "norms; use --d-norm none, or --network dcgan"
        )
    if model.network == "r3gan" and model.weight_init != "fan_in":
        raise conflict(
            f"weight_init {model.weight_init} does not work with network r3gan: without norms, the signal vanishes "
            "after a few stages of weights N(0, 0.02); use --weight-init fan_in, or --network dcgan"
        )
    if model.network == "resnet" and model.d_norm == "batch":
        raise conflict(
            "d_norm batch does not work with network resnet, whose D has no batch norm; use --d-norm spectral or none"
        )


# --- the losses ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loss:
    loss: str = option("relativistic", "adversarial loss: a name from `ptarmigan losses`, or FILE.py with your own")
    smoothing: float = option(
        1.0, "D's target for real images in the cross-entropy losses; 0.9 smooths the label, 1 does not", 0.5, 1
    )
    r1: Scheduled = option(
        0.2, "gamma of R1, the gradient penalty on real images; 0: off; A..B moves over the budget", 0, 10**9
    )
    r2: Scheduled = option(
        0.2, "gamma of R2, the gradient penalty on generated images; 0: off; A..B moves over the budget", 0, 10**9
    )
    penalty_every: int = option(1, "apply R1 and R2 every N updates of D, scaled by N", 1, 1000)
    gradient_penalty: float = option(
        0.0, "weight of WGAN-GP's penalty between real and generated images; 10 is usual; 0: off", 0, 10**9
    )
    class_weight: float = option(
        1.0, "lambda, the weight of the class term in the losses of G and D; ReACGAN's paper uses 0.5", 0, 10**9
    )
    class_fake: bool = option(True, "auxiliary_classifier: D's class term includes generated images")
    class_margin: float = option(
        0.98, "reacgan: cosine similarity of an image and its class proxy above which the loss ignores the pair", 0, 1
    )
    class_temperature: float = option(0.5, "reacgan: divisor of the cosine similarities", 0.01, 100)


# Names only: the functions are in losses/adversarial.py, which needs torch.  A test checks that the two agree.
LOSSES = (
    "minimax", "non_saturating", "least_squares", "least_squares_pearson", "hinge", "wasserstein", "relativistic",
)  # fmt: skip

# The conditionings that read a field of Loss.  On data of one class each of them becomes none.
READ_BY = {
    "class_fake": ("auxiliary_classifier", "none"),
    "class_margin": ("reacgan", "none"),
    "class_temperature": ("reacgan", "none"),
}


def named_loss(word: str) -> str:
    """The loss that a name from another paper or library means: 'lsgan' -> 'least_squares'; any other word as it is."""
    ours = {plain(name): name for name in LOSSES}
    return ours.get(plain(word)) or LOSS_NAMES.get(plain(word), word)


def unknown_value(key: str, word: str, choices: Iterable[Any]) -> UserError:
    """An error for a value that is none of the choices; it says what to use if the word is known as something else."""
    choices = [*map(str, choices)]
    if plain(word) in map(plain, choices):
        return unknown(key, word, choices)
    if (other := OTHERS.get(plain(word))) is not None:
        return UserError(f"{key}: {other.text}", "unknown-name")
    if named_loss(word) in LOSSES:
        return UserError(f"{key}: {word!r} is a loss: use --loss {named_loss(word)}", "unknown-name")
    return unknown(key, word, choices)


def check_losses(config: Config) -> None:
    loss, name = config.loss, config.loss.loss
    custom = name.endswith(".py")
    if name not in LOSSES and not custom:
        raise unknown_value("loss", name, [*LOSSES, "a .py file"])
    if loss.smoothing < 1 and custom:
        raise conflict(f"smoothing: {name} sets its own targets; leave smoothing out, and smooth the targets there")
    if loss.smoothing < 1 and name not in ("minimax", "non_saturating"):
        raise conflict(
            f"smoothing: {name} has no cross-entropy target to smooth; use --loss non_saturating, or --smoothing 1"
        )
    for key, conditionings in READ_BY.items():
        if getattr(loss, key) != getattr(Loss(), key) and config.model.conditioning not in conditionings:
            raise conflict(
                f"{key}: {getattr(loss, key)} has no effect with conditioning {config.model.conditioning}; leave it "
                f"out, or use --conditioning {conditionings[0]}"
            )


def check_batch_norm(config: Config) -> None:
    """Batch norm in D makes each logit a function of the whole batch."""
    if config.model.d_norm != "batch":
        return
    for key in ("r1", "r2", "gradient_penalty"):
        if value := getattr(config.loss, key):
            raise conflict(
                f"d_norm batch does not work with {key} {value}: batch norm couples the samples, so the gradient of "
                "their sum is no longer each sample's own (R1 of a linear D behind batch norm is 0); use --d-norm "
                "none"
            )
    if config.loss.loss == "relativistic":
        raise conflict(
            "d_norm batch does not work with the relativistic loss, which compares pairs of logits: through batch norm "
            "each logit depends on the rest of the batch; use --d-norm none"
        )


# --- training --------------------------------------------------------------------------------------------------------

BETA = 0.999_999  # the largest beta allowed: at 1, Adam's moments would never change


@dataclass(frozen=True)
class Train:
    time: str | None = option(
        None, "budget of time from the command to its end: 90s, 10m, 1h30m, or seconds; default: 10m without --images"
    )
    images: str | None = option(None, "budget in real images that training sees: 500k or 2M; default: --time")
    batch: int = option(32, "real images in each update, with as many generated ones", 1, 1 << 20)
    micro_batch: int = option(
        0, "images computed at once: fewer need less memory and more time; 0: the whole batch, or what fits", 0, 1 << 20
    )
    g_lr: float = option(2e-3, "learning rate of G", 0, 1)
    d_lr: float = option(2e-3, "learning rate of D", 0, 1)
    g_betas: tuple[Scheduled, Scheduled] = option(
        (0.0, 0.99), "Adam's two betas for G; either may be A..B, which moves over the budget", 0, BETA
    )
    d_betas: tuple[Scheduled, Scheduled] = option(
        (0.0, 0.99), "Adam's two betas for D; either may be A..B, which moves over the budget", 0, BETA
    )
    d_steps: int = option(1, "updates of D for each update of G", 1, 1000)
    anneal: float = option(
        0.5, "last fraction of the budget over which both learning rates fall linearly to 0; 0: never", 0, 1
    )
    ema_half_life: Scheduled = option(
        44e3, "half-life in images of the moving average of G; 0: no average; A..B moves over the budget", 0, 10**15
    )
    seed: int = option(0, "seed of every random draw: initial weights, order of the images, latents", 0, 2**63 - 1)
    device: Literal["auto", "cpu", "cuda", "mps"] = option(
        "auto", "device to train on; auto takes the first of cuda, mps, cpu that this machine has"
    )
    deterministic: bool = option(False, "same bits in every run on a GPU, at some cost in speed; always so on a CPU")
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto", "number format of the networks' arithmetic; auto measures both and takes the faster"
    )
    snapshots: int | None = option(
        None,
        "most times to write samples, a checkpoint and a generator; default: as many as take 5 % of the time, at most "
        "20",
        1, 100_000,
    )  # fmt: skip
    live_images: int = option(
        250, "generated images scored by KID at each snapshot, to pick the best generator; 0: off, else at least 10",
        0, 1_000_000,
    )  # fmt: skip
    retries: int = option(
        3, "on NaN or infinity, roll back to the last checkpoint and halve the learning rates, at most N times", 0, 100
    )
    stop_on: Literal[
        "diverged", "labels-random", "g-gradient-vanishes", "d-too-strong", "d-too-weak", "collapse", "class-ignored",
        "d-overfits", "copies", "colour-shift", "checkerboard", "no-progress", "warning",
        "error",
    ] | None = option(
        None, "stop at a snapshot with this finding of `diagnose`, or with an error, or a warning; default: never"
    )  # fmt: skip
    tracker: str | None = option(
        None, "also send the log and the grids to tensorboard (a folder in the run) or wandb; default: to neither"
    )
    preview: bool = option(True, "show the newest grid at each snapshot where the output is a terminal with colours")
    keep: int = option(
        2, "newest checkpoints to keep; `sample --at` and `replay` need those of earlier steps", 1, 100_000
    )


BUDGET = ("time", "images")  # may change when a run is extended
# May differ between two commands on one run folder
UNTRACKED = (
    *BUDGET, "device", "micro_batch", "keep", "snapshots", "retries", "live_images", "stop_on", "tracker", "preview",
)  # fmt: skip


def check_train(config: Config) -> None:
    train = config.train
    parse_time(train.time)
    parse_images(train.images)
    if train.time and train.images:
        raise conflict(
            f"time {train.time} and images {train.images} are both given, and only one budget can end the run: leave "
            "one out"
        )
    if 0 < train.live_images < 10:
        raise UserError(
            f"live_images: expected 0, or at least 10, the fewest that can be scored, got {train.live_images}",
            "value-out-of-range",
        )
    if train.micro_batch and config.model.d_norm == "batch":
        raise conflict(
            f"micro_batch: {train.micro_batch} does not work with batch norm in D, which normalises by the whole "
            "batch; leave it out, or use --d-norm spectral or none"
        )
    if train.micro_batch and config.model.conditioning == "reacgan":
        raise conflict(
            f"micro_batch: {train.micro_batch} does not work with conditioning reacgan, whose class term compares each "
            "image with the whole batch; leave it out, or use a smaller --batch"
        )


# --- the config ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, init=False)
class Config:
    """Everything about a run that a user chooses; the shape of the images comes from the data.

    `Config(batch=16)` takes fields by name, as `resolve` does: the others are the recipe's.  It may also be made of
    sections, of which one that is left out has its own defaults.
    """

    recipe: str = "auto"
    data: Data = Data()
    model: Model = Model()
    loss: Loss = Loss()
    train: Train = Train()

    def __init__(
        self,
        recipe: str = "auto",
        data: Data | None = None,
        model: Model | None = None,
        loss: Loss | str | None = None,
        train: Train | None = None,
        **fields: Unpack[FieldsButLoss],
    ) -> None:
        sections: dict[str, Any] = {"data": data, "model": model, "loss": loss, "train": train}
        sections = {key: value for key, value in sections.items() if value is not None}
        if sections and not fields and all(isinstance(value, SECTIONS[key]) for key, value in sections.items()):
            asked = frozenset(key for value in sections.values() for key in asdict(value))
        else:
            whole = resolve({**sections, **fields, "recipe": recipe})
            sections, asked = {key: getattr(whole, key) for key in SECTIONS}, whole.asked
        for key, cls in SECTIONS.items():
            object.__setattr__(self, key, sections.get(key, cls()))
        object.__setattr__(self, "recipe", recipe)
        object.__setattr__(self, "_asked", asked)

    @property
    def asked(self) -> frozenset[str]:
        """The names of the fields that were given; recipe `auto` chooses others for the data."""
        asked: frozenset[str] = self.__dict__["_asked"]
        return asked

    def flat(self) -> dict[str, Any]:
        """Field name -> value; names are unique over the four sections."""
        return {key: value for section in SECTIONS for key, value in asdict(getattr(self, section)).items()}


SECTIONS = {"data": Data, "model": Model, "loss": Loss, "train": Train}
TYPES: dict[str, Any] = {key: hint for cls in SECTIONS.values() for key, hint in get_type_hints(cls).items()}
DEFAULTS: dict[str, Any] = {f.name: f.default for cls in SECTIONS.values() for f in fields(cls)}
HELP: dict[str, str] = {f.name: f.metadata["help"] for cls in SECTIONS.values() for f in fields(cls)}
BOUNDS: dict[str, tuple[float, float]] = {
    f.name: f.metadata["bounds"] for cls in SECTIONS.values() for f in fields(cls) if f.metadata["bounds"]
}


def numbers_in(value: Any) -> list[float]:
    """The numbers in a value: one for a plain number, both ends for a ramp, those of both members for a pair."""
    if value is None:
        return []
    return [number for part in value for number in numbers_in(part)] if isinstance(value, tuple) else [value]


def check_ranges(config: Config) -> None:
    """Each number is within the bounds beside its field."""
    flat = config.flat()
    for key, (low, high) in BOUNDS.items():
        if not all(low <= number <= high for number in numbers_in(flat[key])):
            wanted = "numbers" if isinstance(flat[key], tuple) else "a number"
            raise UserError(
                f"{key}: expected {wanted} from {readable(low)} to {readable(high)}, got {shown(flat[key])}",
                "value-out-of-range",
            )


def check(config: Config) -> None:
    """Raise UserError if a value is out of range or two fields conflict."""
    for one in (check_ranges, check_data, check_networks, check_losses, check_batch_norm, check_train):
        one(config)


RECIPES: dict[str, dict[str, Any]] = {
    # Each value was compared with others on the same images for the same training time: studies/search.md.
    # training/auto.py sets the other fields from the data, the device and the budget, and sets g_blocks to 0 if the
    # budget is short.
    "auto": dict(loss="non_saturating", least_side=3, g_blocks=1, g_modulation=True, penalty_every=4),
    # After Radford et al. 2016 (1511.06434), section 4: z uniform, 100; Adam 2e-4, beta1 .5; batch 128; N(0, .02);
    # batch norm in both.  Differs: width 64, where the paper's figure has 128 channels next to the image; the budget
    # and the size of the images.  Not verified against the paper's text: Adam's beta2 .999, its usual value.
    "dcgan": dict(
        conditioning="none", width=64, latent="uniform", d_norm="batch", weight_init="dcgan",
        loss="non_saturating", r1=0.0, r2=0.0, batch=128,
        g_lr=2e-4, d_lr=2e-4, g_betas=(0.5, 0.999), d_betas=(0.5, 0.999), anneal=0.0, ema_half_life=0.0,
    ),
    # After Odena et al. 2017 (1610.09585), appendix: Adam 2e-4 of {1, 2, 3}e-4, (.5, .999); batch 100; N(0, .02); leak
    # .2; dropout .5 in D; z 110; activation noise 0 of {0, .1, .2}.  Differs: DCGAN's networks in place of the
    # appendix's; the non-saturating source loss, where the paper's G maximises L_C - L_S.  Not verified against the
    # paper's text: width 64, z normal, the class as a learned embedding beside z, class weight 1.
    "acgan": dict(
        conditioning="auxiliary_classifier", width=64, latent_dim=110, d_norm="batch", dropout=0.5,
        weight_init="dcgan",
        loss="non_saturating", r1=0.0, r2=0.0, batch=100,
        g_lr=2e-4, d_lr=2e-4, g_betas=(0.5, 0.999), d_betas=(0.5, 0.999), anneal=0.0, ema_half_life=0.0,
    ),
}  # fmt: skip

# What recipe `auto` chooses from the data, the device and the budget (training/auto.py)
CHOSEN = ("width", "g_blocks", "batch", "d_lr", "r1", "r2", "augment", "augment_p", "resampling")


def default_in_words(key: str) -> str | None:
    """The value of a field under recipe `auto` where it is not given; None where its help says it."""
    if key in CHOSEN:
        return "chosen by auto"
    value = RECIPES["auto"].get(key, DEFAULTS[key])
    if isinstance(value, bool):
        return "on" if value else "off"
    parts = value if isinstance(value, tuple) else () if value is None else (value,)
    return " ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts) or None


# --- from the user's options to a config -----------------------------------------------------------------------------


def flatten(given: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten options that may be nested in sections, as in a YAML file: {field name: value}.

    Raises UserError: unknown-name, which suggests the nearest name, for a field that its section does not have;
    value-invalid for a section that holds no fields.
    """
    flat: dict[str, Any] = {}
    for key, value in given.items():
        if key in SECTIONS and value is None:
            continue
        if key in SECTIONS and isinstance(value, Mapping):
            names = [f.name for f in fields(SECTIONS[key])]
            for name in value:
                if name not in names:
                    raise unknown_field(f"{key} field", name, value[name], names)
            flat |= value
        elif key in SECTIONS and key not in TYPES:  # loss is a section and a field
            example, other = fields(SECTIONS[key])[0].name, other_option("train", key, value)
            text = f"{key}: expected fields, such as {example}, got {shown(value)}"
            raise UserError(f"{text}; {other}" if other else text, "value-invalid")
        else:
            flat[key] = value
    return flat


def unknown_field(what: str, name: Any, value: Any, choices: Iterable[str]) -> UserError:
    """An error for a field that does not exist; it says what to use if other tools have an option of this name."""
    if (other := other_option("train", str(name), value)) is not None:
        return UserError(f"{name}: {other}", "unknown-name")
    return unknown(what, str(name), choices)


def resolve(given: Mapping[str, Any]) -> Config:
    """The checked Config of the recipe's fields, overridden by those given (flat, or in sections as in a YAML file).

    A value None counts as not given.  Raises UserError: unknown-name, which suggests the nearest name, value-invalid,
    value-out-of-range or options-conflict.
    """
    fields_given = convert_fields(given)
    recipe = fields_given.pop("recipe", "auto")
    chosen = dict(RECIPES[recipe])
    if fields_given.get("network", "dcgan") != "dcgan":
        chosen = {key: value for key, value in chosen.items() if key not in (*OF_DCGAN, "least_side")}
    values = chosen | fields_given
    if "loss" in values:
        values["loss"] = named_loss(values["loss"])
    sections = {
        name: replace(cls(), **{f.name: values[f.name] for f in fields(cls) if f.name in values})
        for name, cls in SECTIONS.items()
    }
    config = Config(recipe=recipe, **sections)
    check(config)
    object.__setattr__(config, "_asked", frozenset(fields_given))
    return config


def convert_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are given, flat and converted to the types of their fields; `recipe` may be one of them.

    A value None counts as not given.  Raises UserError: unknown-name, value-invalid.
    """
    if not isinstance(given, Mapping):
        raise UserError(f"options: expected a mapping of fields to values, got {shown(given)}", "value-invalid")
    flat = {key: value for key, value in flatten(given).items() if value is not None}
    for key in flat:
        if key not in (*TYPES, "recipe"):
            raise unknown_field("field", key, flat[key], TYPES)
    if str(flat.get("recipe", "auto")) not in RECIPES:
        raise unknown_value("recipe", str(flat["recipe"]), RECIPES)
    return {key: value if key == "recipe" else convert_field(key, value) for key, value in flat.items()}


def override(fields: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with those given in their place; a budget of time replaces one of images, and the other way."""
    replaced = BUDGET if any(key in given for key in BUDGET) else ()
    return {key: value for key, value in fields.items() if key not in replaced} | {**given}


def config_of(record: Mapping[str, Any]) -> Config:
    """The config in the record of a run or of a generator; raises UserError as `resolve` does.

    A field that an older file lacks gets the dataclass's default, not the recipe's: the default keeps the behaviour
    from before the field existed.
    """
    config = record["config"]
    return resolve({**config, **{name: {**asdict(cls()), **config[name]} for name, cls in SECTIONS.items()}})


def convert_field(key: str, value: Any) -> Any:
    """Convert a value from YAML, JSON, Python or a flag to the field's type; raises UserError naming the field."""
    found = convert(TYPES[key], value)
    if found is not None:
        return found
    if get_origin(TYPES[key]) is Literal and isinstance(value, str):
        raise unknown_value(key, value, get_args(TYPES[key]))
    raise UserError(f"{key}: expected {in_words(TYPES[key])}, got {shown(value)}", "value-invalid")


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union other than None; for any other hint, the hint itself."""
    kinds = get_args(hint) if get_origin(hint) in (Union, type(int | str)) else (hint,)
    return tuple(kind for kind in kinds if kind is not type(None))


KINDS = {bool: "true or false", int: "a whole number", float: "a number", Ramp: "A..B", str: "text"}


def in_words(hint: Any) -> str:
    """A type in words, for a message."""
    return " or ".join(
        f"one of {', '.join(map(str, get_args(kind)))}" if get_origin(kind) is Literal
        else f"two values, each {in_words(get_args(kind)[0])}" if get_origin(kind) is tuple
        else KINDS[kind]
        for kind in alternatives(hint)
    )  # fmt: skip


def convert(hint: Any, value: Any) -> Any:
    """The value converted to the first type of the hint that accepts it; None if none does."""
    for kind in alternatives(hint):
        if get_origin(kind) is Literal and not isinstance(value, bool):
            for choice in get_args(kind):
                if value == choice or value == str(choice):
                    return choice
        if get_origin(kind) is tuple and isinstance(value, list | tuple) and len(value) == len(get_args(kind)):
            parts = tuple(convert(*pair) for pair in zip(get_args(kind), value, strict=True))
            if None not in parts:
                return parts
        elif kind is Ramp:
            ends = value.split("..", 1) if isinstance(value, str) else value
            if isinstance(ends, list | tuple) and len(ends) == 2:
                first, last = (convert(float, end) for end in ends)
                if first is not None and last is not None:
                    return first if first == last else Ramp(first, last)
        elif kind is bool and isinstance(value, bool):
            return value
        elif kind is str and isinstance(value, str | int | float) and not isinstance(value, bool):
            with suppress(ValueError):  # a number of more than 4,300 digits
                return str(value) or None
        elif kind in (int, float) and not isinstance(value, bool):
            number = as_number(kind, value)
            if number is not None:
                return number
    return None


def as_number(kind: type[int] | type[float], value: Any) -> int | float | None:
    """Convert a number or its text (YAML 1.1 reads 2e-3 as text) to `kind`; an int stays exact above 2^53."""
    for read in (int, float) if kind is int and isinstance(value, int | str) else (float,):
        with suppress(TypeError, ValueError, OverflowError):
            number = read(value)
            if kind is float or number == int(number):
                return kind(number)
    return None


def parse_size(text: str | None) -> tuple[int, int] | None:
    """'64' -> (64, 64), '48x64' -> (48, 64), height first; LEAST_SIDE to MOST_SIDE pixels each."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", text.strip())
    if not match:
        raise UserError(
            f"size: expected a side, as 64, or height x width, as 48x64, got {shown(text)}", "value-invalid"
        )
    height, width = int(match[1]), int(match[2] or match[1])
    near = tuple(min(max(side, LEAST_SIDE), MOST_SIDE) for side in (height, width))
    if near != (height, width):
        raise UserError(
            f"size: expected sides from {LEAST_SIDE} to {MOST_SIDE} pixels, got {height}x{width}; the nearest size "
            f"allowed is {near[0]}x{near[1]}",
            "value-out-of-range",
        )
    return height, width


def parse_window(text: str | None) -> tuple[float, float] | None:
    """'0,4095' -> (0.0, 4095.0), the lower value first."""
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise UserError(f"window: expected LOW,HIGH with LOW below HIGH, as 0,4095, got {text!r}", "value-invalid")
    return low, high


def parse_split(text: str) -> tuple[float, float, float] | None:
    """'90/5/5' -> shares for train, select and held-out that add up to 1; 'none' -> None."""
    if text == "none":
        return None
    try:
        shares = tuple(float(part) / 100 for part in text.split("/"))
    except ValueError:
        shares = ()
    if len(shares) != 3 or not abs(sum(shares) - 1) <= 1e-6 or min(shares) < 0 or shares[0] <= 0:
        raise UserError(
            f"split: expected three percentages that add up to 100, as 90/5/5, or none, got {text!r}", "value-invalid"
        )
    return shares[0], shares[1], shares[2]


MOST_BUDGET = 10**15  # images or seconds; counts of images stay exact as floats


def parse_images(text: str | None) -> int | None:
    """'500k' -> 500_000, '2M' -> 2_000_000."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+(?=[kKmM]))?)([kKmM]?)", text.replace("_", "").strip())
    count = float(match[1]) * {"": 1, "k": 1e3, "m": 1e6}[match[2].lower()] if match else 0
    if round(min(count, 1)) < 1:
        raise UserError(f"images: expected a number of images, as 500k or 2M, got {shown(text)}", "value-invalid")
    if count > MOST_BUDGET:
        raise UserError(f"images: expected at most {MOST_BUDGET:,}, got {shown(text)}", "value-out-of-range")
    return round(count)


NUMBER = r"(\d+(?:\.\d+)?)"
TIME = re.compile(
    rf"(?:{NUMBER}\s*(?:h|hrs?|hours?))?\s*(?:{NUMBER}\s*(?:m|mins?|minutes?))?\s*(?:{NUMBER}\s*(?:s|secs?|seconds?))?",
    re.IGNORECASE,
)


def parse_time(text: str | float | None) -> float | None:
    """'90s', '10m', '5 min', '1h30m', and '90' or 90 for seconds -> seconds."""
    if text is None:
        return None
    written = str(text).strip() if isinstance(text, str | int | float) else ""
    match = TIME.fullmatch(f"{written}s" if re.fullmatch(NUMBER, written) else written)
    parts = match.groups() if match else ()
    seconds = sum(float(part or 0) * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if seconds <= 0:
        raise UserError(
            f"time: expected a length of time, as 90s, 10m or 1h30m, or seconds, got {shown(text)}", "value-invalid"
        )
    if seconds > MOST_BUDGET:
        raise UserError(f"time: expected at most {MOST_BUDGET:,} s, got {shown(text)}", "value-out-of-range")
    return seconds
