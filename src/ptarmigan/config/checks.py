"""What a config is checked for: bounds, values, and options that do not go together."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ptarmigan.config.sections import BOUNDS, LOSSES, OF_DCGAN, READ_BY, Loss, Model, readable
from ptarmigan.config.values import numbers_in, parse_images, parse_size, parse_split, parse_time, parse_window
from ptarmigan.core.types import UserError, shown, unknown
from ptarmigan.core.words import LOSS_NAMES, OTHERS, plain

if TYPE_CHECKING:
    from ptarmigan.config import Config


def conflict(text: str) -> UserError:
    return UserError(text, "options-conflict")


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
    if data.augment_p != 1 and data.augment != "diffaugment":  # gentle always uses 0.5, and ada adapts p itself
        raise conflict(
            f"augment_p: {data.augment_p} has no effect with augment {data.augment}; leave it out, or use "
            "--augment diffaugment"
        )


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
