"""The structure of the JSON that ptarmigan writes: headers of tensor files, the record of a run, scores, the log.

A checksum shows that a file is what someone wrote, not that it is what ptarmigan writes.  `check` is called after the
checksum was found good and before any entry is used.  Entries that no reader needs are left out here, and a file may
have more than these.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict, TypeVar

import msgspec

from ptarmigan.core.files import Damaged
from ptarmigan.core.types import LEAST_SIDE, MOST_SIDE

T = TypeVar("T")
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Side = Annotated[int, msgspec.Meta(ge=LEAST_SIDE, le=MOST_SIDE)]

WORDING = (  # patterns in messages of msgspec, and the words for them
    (r"Expected `(int|float)` >= ", "expected at least "),
    (r"Expected `(int|float)` <= ", "expected at most "),
    (r"Expected `array` of length >= (\d+)", r"expected a list of \1 or more"),
    ("Invalid enum value ", "unexpected value "),
    ("^Expected ", "expected "),
    (r"\bint\b", "a whole number"),
    (r"\bfloat\b", "a number"),
    (r"\bstr\b", "text"),
    (r"\barray\b", "a list"),
    (r"\bobject\b", "a table of entries"),
    (r" \| null\b", " or null"),
    ("`", ""),
)


class Spec(TypedDict):
    """An ImageSpec."""

    height: Side
    width: Side
    channels: Literal[1, 3, 4]
    class_names: Annotated[list[str], msgspec.Meta(min_length=1)]


class ConfigSections(TypedDict):
    """A Config, whose fields `config_of` checks."""

    recipe: str
    data: dict[str, Any]
    model: dict[str, Any]
    loss: dict[str, Any]
    train: dict[str, Any]


class GeneratorHeader(TypedDict):
    """The header of model.safetensors."""

    config: ConfigSections
    spec: Spec
    images_seen: Count
    fingerprint: str
    selection: str
    loss_sha256: NotRequired[str | None]
    sha256: str


Parts = TypedDict("Parts", {"train": Count, "select": Count, "held-out": Count})


class Source(TypedDict):
    """Where a run's images come from."""

    source: str
    name: str
    fingerprint: str
    split: Parts  # images in each part
    train_counts: NotRequired[list[Count]]  # of each class


class Init(TypedDict):
    """The model that a run started from."""

    model: str
    sha256: str
    recipe: str
    images_seen: Count
    has_discriminator: bool
    shape: dict[str, Any]


class Versions(TypedDict):
    ptarmigan: str
    torch: str


class RunRecord(TypedDict):
    """RUN/config.json, also in every checkpoint."""

    config: ConfigSections
    spec: Spec
    data: Source
    precision: Literal["fp32", "bf16"]
    micro_batch: Count
    tick: Positive
    init: NotRequired[Init | None]
    loss_sha256: NotRequired[str | None]
    notes: NotRequired[list[str]]  # what was found in the data, and the reasons for the settings
    versions: Versions


class CheckpointHeader(TypedDict):
    """The header of a checkpoint; `game.progress.Progress` is the structure of its progress."""

    images_seen: Count
    progress: dict[str, Any]
    record: RunRecord
    sha256: str


class Owner(TypedDict):
    """RUN/.owner.json: the process that trains."""

    pid: int
    host: str


class Interval(TypedDict):
    mean: float
    low: float
    high: float


class Columns(TypedDict):
    """A score over all classes, against each set of real images."""

    held_out: Interval
    train: Interval
    floor: Interval
    excess: Interval


class OfGenerated(TypedDict):
    generated: Interval
    held_out: float


class Recognised(TypedDict):
    """The share of a class's images that are recognised: of all generated ones, and of real ones."""

    generated: Interval
    real: Interval


class ClassKid(TypedDict):
    """The KID of one class; only `train` where few of its images were held out."""

    train: Interval
    held_out: NotRequired[Interval]
    floor: NotRequired[Interval]
    excess: NotRequired[Interval]


class OfClass(TypedDict):
    """The scores of one class."""

    held_out_images: Count
    train_images: NotRequired[Count]
    call: NotRequired[Literal["recognisable", "weak", "unknown"]]
    reason: NotRequired[str]
    kid: NotRequired[ClassKid]
    told_apart: NotRequired[bool]  # whether the KID excess is above 0 beyond chance
    distance: NotRequired[Interval]
    variety: NotRequired[Interval]
    diversity: NotRequired[Interval]
    recognised: NotRequired[Recognised]
    accuracy: NotRequired[OfGenerated]


class Cas(TypedDict):
    """The classification accuracy score, of generated and of real images."""

    generated: Interval
    train: Interval


class Accuracy(TypedDict):
    held_out: float | None
    generated: NotRequired[Interval]
    cas: NotRequired[Cas]


class Copies(TypedDict):
    found: NotRequired[bool]
    suspects: NotRequired[list[dict[str, Any]]]  # the set and index of an image, and its nearest training image
    c_t: NotRequired[Interval]
    c_t_null_deviation: NotRequired[float]
    authenticity: Interval
    authenticity_held_out: float
    distance_ratio: Interval
    closer_than_held_out: Interval


class Protocol(TypedDict):
    """How a report was made."""

    frechet_is_called: str
    extractor: str
    weights_sha256: str
    input: str
    images_a_set: Count
    sets: Count
    held_out_images: Count
    train_images: Count
    data_fingerprint: str


class GeneratorProtocol(Protocol):
    """How a report on a generator was made."""

    images_seen: Count
    seeds: Annotated[list[int], msgspec.Meta(min_length=1)]


class ScoreReport(TypedDict):
    """What `score` found for a generator."""

    verdict: NotRequired[str]
    figures: dict[str, Columns]
    variety: NotRequired[Interval]
    classes: NotRequired[dict[str, OfClass]]
    accuracy: NotRequired[Accuracy]
    copies: Copies
    notes: list[str]
    protocol: GeneratorProtocol


class Scores(TypedDict):
    """scores.json in a generator folder."""

    generator: str  # the SHA-256 of the generator that was scored
    reports: dict[str, ScoreReport]  # by extractor


class LogLine(TypedDict):
    """A line of RUN/metrics.jsonl; it also has the means of the loss terms by name."""

    images_seen: Count
    attempt: Count
    select_kid: NotRequired[float]
    select_kid_error: NotRequired[float]
    clock: NotRequired[float]
    findings: NotRequired[list[str]]
    end: NotRequired[int | None]


def fits(value: object, kind: type[Any]) -> bool:
    """Whether a value has the structure `kind`."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def check(path: Path, value: object, kind: type[T]) -> T:
    """The part of `value` that `kind` describes; raises Damaged, which names the file and the entry that is wrong."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        text = in_words(str(error))
        raise Damaged(f"{path} is damaged, or was not written by ptarmigan: {text}") from None


def in_words(text: str) -> str:
    """A message of msgspec in plain words, with the entry first."""
    fault, _, place = text.partition(" - at ")
    if fault.startswith("Object missing required field "):
        fault = f"the entry {fault.removeprefix('Object missing required field ')} is missing"
    else:
        for pattern, words in WORDING:
            fault = re.sub(pattern, words, fault)
    return f"{place.replace('`$.', '`')}: {fault}" if place.startswith("`$.") else fault
