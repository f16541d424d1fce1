"""What each image file is: its format, its colours, how it is stored, and why it cannot be decoded."""

from __future__ import annotations

import io
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageCms

from ptarmigan.core.types import OnProgress, counted, natural
from ptarmigan.data.check.finding import Finding, pictures_of
from ptarmigan.data.decode import (
    TO_UPRIGHT,
    ImageHeader,
    Limits,
    Refused,
    TargetShape,
    decode,
    header_of,
    look,
    opened,
    turn_of,
)
from ptarmigan.data.index import FolderSource
from ptarmigan.data.scan import SUFFIXES
from ptarmigan.data.workers import Failure, read_files

SAME_COLOUR = 8  # of 255: a profile that moves no colour further is that of sRGB
CUBE = (0, 64, 128, 192, 255)  # values of each channel of the colours that a profile is tried on
EMPTY = "zero bytes"
AGAIN = "copy them again from where they come from, or remove them"


class Facts(NamedTuple):
    """What is known of a file that can be decoded."""

    header: ImageHeader
    mode: str  # as Pillow names it: RGB, CMYK
    turned: bool  # its EXIF data say that it must be turned or mirrored
    profile: str  # the name of its ICC profile; "" if that is sRGB's, or if there is none
    transparent: bool


def look_at_files(
    source: FolderSource, decoded: set[str], max_pixels: int, shape: TargetShape, on_progress: OnProgress | None = None
) -> dict[str, Facts | Failure]:
    """The facts of each file of a source, or why it cannot be decoded; read in threads, since most is said by headers.

    decoded: the paths of the files that were decoded; the others are decoded here to learn why they cannot be.
    """
    place = source.storage.order or {}
    paths = sorted(dict.fromkeys(source.paths), key=lambda path: place.get(path, 0))
    found: dict[str, Facts | Failure] = {}
    for work, named in (
        (facts_of, [path for path in paths if path in decoded]),
        (partial(facts_of, shape=shape), [path for path in paths if path not in decoded]),
    ):
        answers = read_files(source.storage, named, work, Limits(max_pixels))
        for path, answer in zip(named, answers, strict=True):
            found[path] = answer
            if on_progress is not None:
                on_progress("checking files", len(found), len(paths))
    return {path: found[path] for path in source.paths}


def facts_of(file: IO[bytes], limits: Limits, shape: TargetShape | None = None) -> Facts:
    """The facts of a file; raises what `decode` raises, of its pixels only where a shape is given."""
    if not file.seek(0, os.SEEK_END):
        raise Refused(EMPTY)
    with opened(file, limits) as image:
        header, mode, turned = header_of(image), image.mode, turn_of(image) in TO_UPRIGHT
        profile = _other_profile(image.info.get("icc_profile") or b"", mode)
    if shape is not None:
        decode(file, shape, limits)
    return Facts(header, mode, turned, profile, header.alpha and look(file, limits).transparent)


@lru_cache(256)
def _other_profile(content: bytes, mode: str) -> str:
    """The name of an ICC profile that shows colours otherwise than sRGB does; '' for none, and for one of CMYK."""
    if not content or mode not in ("L", "LA", "P", "RGB", "RGBA"):
        return ""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        grey = profile.profile.xcolor_space.strip() == "GRAY"
        values = np.array(CUBE, np.uint8)
        cube = values[None, :] if grey else np.stack(np.meshgrid(values, values, values), -1).reshape(1, -1, 3)
        tried = Image.fromarray(cube)
        seen = ImageCms.profileToProfile(tried, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        assert seen is not None
        moved = np.abs(np.asarray(seen, np.int16) - np.asarray(tried.convert("RGB"), np.int16)).max()
        return "" if moved <= SAME_COLOUR else ImageCms.getProfileDescription(profile).strip() or "without a name"
    except (ImageCms.PyCMSError, OSError, ValueError):
        return "a profile that cannot be read"


class Fault(NamedTuple):
    """A reason for which files cannot be decoded."""

    code: str
    text: str
    said: str  # what the reasons of this fault contain
    remedy: str = AGAIN


class Trait(NamedTuple):
    """What is unusual about a file that can be decoded."""

    code: str
    severity: str
    text: str
    has: Callable[[str, Facts], object]  # (path, facts) -> whether a file has it; a text is named
    train: str
    remedy: str = ""


FAULTS = (
    Fault("file-empty", EMPTY, EMPTY),
    Fault("file-truncated", "the end is missing", "truncated"),
    Fault(
        "file-not-image", "named as an image, but none", "not an image",
        "remove them, or download them again: a web page is often saved in an image's place",
    ),
    Fault(
        "file-bomb", "too many pixels, by the file's header", "pixels",
        "--max-pixels NUMBER reads large images that are genuine; remove the others",
    ),
    Fault(
        "file-forbidden", "no permission to read", "Permission denied",
        "give yourself that permission (chmod u+r), or remove them",
    ),
    Fault("file-undecodable", "cannot be decoded", ""),
)  # fmt: skip
TRAITS = (
    Trait(
        "wrong-ending", "warning", "the ending is that of another format",
        lambda path, facts: _ending_is_wrong(path, facts.header.format), "reads them: their content decides",
        "rename them: other programs may refuse them",
    ),
    Trait(
        "profile-not-srgb", "warning", "a colour profile other than sRGB", lambda path, facts: facts.profile,
        "takes their values as if they were sRGB, so that their colours shift",
        "export them as sRGB, for example by `magick FILE -profile sRGB.icc FILE`",
    ),
    Trait(
        "cmyk", "warning", "CMYK, the colours of print", lambda path, facts: facts.mode == "CMYK",
        "converts them to RGB without their profile, so that their colours shift", "export them as RGB",
    ),
    Trait(
        "animated", "note", "several frames or pages", lambda path, facts: facts.header.several,
        "uses the first frame or page only", "save the frames as files of their own, if all of them count",
    ),
    Trait(
        "16-bit", "note", "16 bits or more", lambda path, facts: facts.header.deep or facts.header.deep_colour,
        "converts them to 8 bits", "--window LOW,HIGH sets another scale",
    ),
    Trait(
        "transparent", "note", "transparent pixels", lambda path, facts: facts.transparent, "",
        "--channels 3 puts them on white, --channels 4 keeps them",
    ),
    Trait(
        "exif-turned", "note", "turned or mirrored, as EXIF data say", lambda path, facts: facts.turned,
        "turns them upright",
    ),
)  # fmt: skip


def file_findings(
    found: Mapping[str, Facts | Failure], channels: int, notices: Sequence[str], index: Mapping[str, int]
) -> list[Finding]:
    """The findings about single files.

    channels: those that the images get in training.  notices: of `train`; one says how 16 bits become 8.
    index: path -> position in the data set.
    """
    failures = {path: failure for path, failure in found.items() if isinstance(failure, Failure)}
    findings = []
    for fault in FAULTS:
        picked = {path: failures.pop(path) for path in [*failures] if fault.said in failures[path].reason}
        if picked:
            why = {path: f"{one.detail}: {one.reason}" if one.detail else one.reason for path, one in picked.items()}
            names = tuple(path if text == fault.said else f"{path} ({text})" for path, text in why.items())
            text = f"{counted(len(picked), 'file')}: {fault.text}"
            findings.append(
                Finding(fault.code, "error", text, len(picked), names, "leaves them out", fault.remedy, drop=why)
            )
    for trait in TRAITS:
        has = {path: trait.has(path, facts) for path, facts in found.items() if isinstance(facts, Facts)}
        named = {path: f"{path} ({text})" if isinstance(text, str) else path for path, text in has.items() if text}
        if named:
            train = trait.train
            if trait.code == "16-bit":
                train = next((notice for notice in notices if "of 16 bits or more" in notice), train)
            elif trait.code == "transparent":
                train = "keeps the transparency" if channels == 4 else "puts them on white"
            text, names = f"{counted(len(named), 'file')}: {trait.text}", tuple(named.values())
            shown = pictures_of([*named], index)
            findings.append(Finding(trait.code, trait.severity, text, len(named), names, train, trait.remedy, shown))
    return findings + _colliding_names([*found])


def _ending_is_wrong(path: str, format: str) -> bool:
    """Whether a file is named as an image of another format."""
    ending = os.path.splitext(path)[1].lower()
    return any(ending in endings for name, endings in SUFFIXES.items() if name != format)


def _colliding_names(paths: Sequence[str]) -> list[Finding]:
    """Paths that are one path where case or the form of Unicode does not count, as on macOS and Windows."""
    same: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        same[unicodedata.normalize("NFC", path).casefold()].append(path)
    sets = sorted((sorted(names) for names in same.values() if len(names) > 1), key=lambda names: natural(names[0]))
    if not sets:
        return []
    count = sum(map(len, sets))
    text = f"{count:,} files: names that differ only in case or in the form of Unicode"
    names = tuple(" and ".join(of) for of in sets)
    remedy = "rename them: copied to macOS or Windows, one of them replaces the other"
    return [Finding("names-collide", "warning", text, count, names, "reads each of them", remedy)]
