"""The fields of a run: frozen dataclasses with help and bounds beside each field."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, get_type_hints


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
    fit: Literal["crop", "pad", "stretch"] | None = option(
        None,
        "how an image of another shape is fitted to the size: cut the edges off, add borders, or distort; default: pad "
        "where transparency is kept, else crop",
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
    balance: bool = option(False, "draw every class equally often in training; default: every image equally often")
    flip: bool = option(False, "mirror each training image left to right with probability 0.5")
    augment: Literal["none", "gentle", "diffaugment", "ada"] = option(
        "none", "augment the images that D sees, against overfitting: gentle, stronger (diffaugment), adaptive (ada)"
    )
    augment_p: Scheduled = option(1.0, "diffaugment: probability of each change; A..B moves over the budget", 0, 1)


READING = tuple(key for key in Data.__dataclass_fields__ if key not in ("balance", "flip", "augment", "augment_p"))
"""The fields that say how images are read and divided; the others change them in each batch."""


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
    d_frozen: int = option(
        0, "dcgan: stages of D next to the image that keep the weights of --from, as in FreezeD; 0: all learn", 0, 8
    )
    dropout: float = option(0.0, "fraction of D's activations that are set to 0 after each stage", 0, 0.95)
    weight_init: Literal["fan_in", "dcgan"] = option(
        "fan_in", "distribution of the initial weights: by each layer's fan-in, or N(0, 0.02) as in DCGAN's paper"
    )

    @property
    def conditional(self) -> bool:
        """Whether G and D use the class."""
        return self.conditioning != "none"

    @property
    def g_inputs(self) -> int:
        """Dimensions of G's input: the latent and, if there are classes, the class embedding beside it."""
        return self.latent_dim + self.class_dim * self.conditional


OF_DCGAN = ("g_blocks", "g_modulation", "resampling", "d_frozen")  # fields of Model that the other families do not read


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
        "diverged", "unstable", "labels-random", "g-gradient-vanishes", "d-too-strong", "d-too-weak", "too-easy",
        "collapse", "class-ignored", "d-overfits", "copies", "colour-shift", "checkerboard", "far-from-real",
        "no-progress", "warning", "error",
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


# May differ between two commands on one run folder; where another `fit` changes the images, their fingerprint differs
UNTRACKED = (
    "fit",
    *BUDGET, "device", "micro_batch", "keep", "snapshots", "retries", "live_images", "stop_on", "tracker", "preview",
)  # fmt: skip


SECTIONS = {"data": Data, "model": Model, "loss": Loss, "train": Train}


TYPES: dict[str, Any] = {key: hint for cls in SECTIONS.values() for key, hint in get_type_hints(cls).items()}


DEFAULTS: dict[str, Any] = {f.name: f.default for cls in SECTIONS.values() for f in fields(cls)}


HELP: dict[str, str] = {f.name: f.metadata["help"] for cls in SECTIONS.values() for f in fields(cls)}


BOUNDS: dict[str, tuple[float, float]] = {
    f.name: f.metadata["bounds"] for cls in SECTIONS.values() for f in fields(cls) if f.metadata["bounds"]
}
