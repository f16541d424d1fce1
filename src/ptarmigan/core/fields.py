"""The options of a run as keyword arguments, for type checkers: the fields of `config.Config` by name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypedDict

from numpy.typing import ArrayLike

Scheduled = float | str | tuple[float, float]  # a number, or one that moves over the budget: "A..B" or (A, B)


class DataFields(TypedDict, total=False):
    """The fields that say how images are read and divided, as `check` takes them."""

    labels: str | Path | ArrayLike
    label_column: str
    path_column: str
    size: str | int
    channels: Literal[1, 3, 4]
    fit: Literal["crop", "pad", "stretch"]
    window: str
    max_pixels: int
    split: str
    group: str


class FieldsButLoss(DataFields, total=False):
    """Every field but `loss`, which is a section of `Config` as well."""

    balance: bool
    flip: bool
    augment: Literal["none", "gentle", "diffaugment", "ada"]
    augment_p: Scheduled
    network: Literal["dcgan", "r3gan", "resnet"]
    conditioning: Literal[
        "projection", "auxiliary_classifier", "twin_classifier", "discriminative_classifier", "reacgan", "none"
    ]
    width: int
    latent_dim: int
    latent: Literal["normal", "uniform"]
    class_dim: int
    d_norm: Literal["none", "batch", "spectral"]
    least_side: int
    g_blocks: int
    g_modulation: bool
    resampling: Literal["strided", "smooth"]
    d_frozen: int
    dropout: float
    weight_init: Literal["fan_in", "dcgan"]
    smoothing: float
    r1: Scheduled
    r2: Scheduled
    penalty_every: int
    gradient_penalty: float
    class_weight: float
    class_fake: bool
    class_margin: float
    class_temperature: float
    time: str | float
    images: str | int | ArrayLike
    batch: int
    micro_batch: int
    g_lr: float
    d_lr: float
    g_betas: tuple[Scheduled, Scheduled]
    d_betas: tuple[Scheduled, Scheduled]
    d_steps: int
    anneal: float
    ema_half_life: Scheduled
    seed: int
    device: Literal["auto", "cpu", "cuda", "mps"]
    deterministic: bool
    precision: Literal["auto", "fp32", "bf16"]
    snapshots: int
    live_images: int
    retries: int
    stop_on: Literal[
        "diverged", "unstable", "labels-random", "g-gradient-vanishes", "d-too-strong", "d-too-weak", "too-easy",
        "collapse", "class-ignored", "d-overfits", "copies", "colour-shift", "checkerboard", "far-from-real",
        "no-progress", "warning", "error",
    ]  # fmt: skip
    tracker: str
    preview: bool
    keep: int


class Fields(FieldsButLoss, total=False):
    """Every field, as `train` takes it."""

    loss: str
