"""The values of fields: how they are read from text, YAML, Python and flags."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from typing import Any, Literal, Union, get_args, get_origin

from ptarmigan.config.sections import Ramp
from ptarmigan.core.types import LEAST_SIDE, MOST_SIDE, UserError, shown


def numbers_in(value: Any) -> list[float]:
    """The numbers in a value: one for a plain number, both ends for a ramp, those of both members for a pair."""
    if value is None:
        return []
    return [number for part in value for number in numbers_in(part)] if isinstance(value, tuple) else [value]


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
