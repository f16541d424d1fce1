"""What each image file is: its format, its colours, how it is stored, and why it cannot be decoded."""

from __future__ import annotations

import io
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageCms

from ptarmigan.core.types import OnProgress, counted, natural
from ptarmigan.data.check.finding import Finding
from ptarmigan.data.decode import FORMATS, TO_UPRIGHT, ImageHeader, Limits, TargetShape, decode, look, read_header
from ptarmigan.data.index import FolderSource
from ptarmigan.data.scan import SUFFIXES
from ptarmigan.data.workers import pillow_without_warnings, reason_of

BATCH = 32  # files that a thread looks at before progress is reported
SAME_COLOUR = 8  # of 255: a profile that moves no colour further is that of sRGB
ORIENTATION = 274  # the EXIF tag
CUBE = (0, 64, 128, 192, 255)  # values of each channel of the colours that a profile is tried on
LEFT_OUT = "leaves them out"


class FileFacts(NamedTuple):
    """What is known of one file."""

    path: str
    header: ImageHeader | None  # None if it cannot be read
    failure: str = ""  # why it cannot be decoded, in few words
    bytes: int = 0
    mode: str = ""  # as Pillow names it: RGB, CMYK
    turned: bool = False  # its EXIF data say that it must be turned or mirrored
    profile: str = ""  # the name of its ICC profile, if that is not sRGB's
    transparent: bool = False


def look_at_files(
    source: FolderSource, decoded: set[int], max_pixels: int, shape: TargetShape, on_progress: OnProgress | None = None
) -> list[FileFacts]:
    """The facts of each file of a source, read in threads.

    decoded: the positions of the files that were decoded; the others are decoded here to learn why they cannot be.
    """
    limits, paths = Limits(max_pixels), source.paths

    def look_at(position: int) -> FileFacts:
        try:
            with source.open(position) as file:
                length = file.seek(0, os.SEEK_END)
                try:
                    return _facts(paths[position], length, file, limits, None if position in decoded else shape)
                except Exception as error:  # a damaged file can make Pillow raise anything
                    reason, detail = reason_of(error, file)
                    return FileFacts(paths[position], None, f"{detail}: {reason}" if detail else reason, length)
        except OSError as error:
            return FileFacts(paths[position], None, error.strerror or type(error).__name__, -1)

    facts: list[FileFacts] = []
    starts = range(0, len(paths), BATCH)
    with pillow_without_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(lambda at: [*map(look_at, range(at, min(at + BATCH, len(paths))))], starts):
            facts += found
            if on_progress is not None:
                on_progress("checking files", len(facts), len(paths))
    return facts


def _facts(path: str, length: int, file: IO[bytes], limits: Limits, shape: TargetShape | None) -> FileFacts:
    header = read_header(file, limits)
    file.seek(0)
    with Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
        # Pillow looks for the EXIF data of a PNG behind its pixels, and decodes them for that
        exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
        facts = FileFacts(
            path, header, "", length, image.mode, exif.get(ORIENTATION) in TO_UPRIGHT,
            _other_profile(image.info.get("icc_profile") or b"", image.mode),
        )  # fmt: skip
    if shape is not None:
        decode(file, shape, limits)
    if header.alpha:
        facts = facts._replace(transparent=look(file, limits).transparent)
    return facts


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


def file_findings(facts: Sequence[FileFacts], said: Callable[[str, str], str]) -> list[Finding]:
    """The findings about single files.

    said(pattern, text) is the notice of `train` that the pattern is found in, or else the text.
    """

    def found(
        code: str, severity: str, one: str, picked: list[FileFacts], train: str, remedy: str, detail: str = ""
    ) -> Finding | None:
        if not picked:
            return None
        names = [
            f"{file.path} ({text})" if detail and (text := getattr(file, detail)) else file.path for file in picked
        ]
        text = f"{counted(len(picked), 'file')}: {one}"
        drop = {file.path: file.failure for file in picked if file.failure}
        return Finding(code, severity, text, len(picked), tuple(names), train, remedy, drop=drop)

    broken: defaultdict[str, list[FileFacts]] = defaultdict(list)
    for file in facts:
        if file.failure:
            broken[_kind_of_failure(file)].append(file)
    good = [(file, file.header) for file in facts if file.header is not None and not file.failure]
    again = "copy them again from where they come from, or remove them"
    wrong_ending = [file for file, header in good if _ending_is_wrong(file.path, header.format)]
    findings = [
        found("file-empty", "error", "zero bytes", broken["empty"], LEFT_OUT, again),
        found("file-truncated", "error", "the end is missing", broken["truncated"], LEFT_OUT, again),
        found(
            "file-bomb", "error", "a header that promises too many pixels", broken["bomb"], LEFT_OUT,
            "remove them; --max-pixels NUMBER reads large scans that are genuine", "failure",
        ),
        found(
            "file-not-image", "error", "named as an image, but none", broken["not an image"], LEFT_OUT,
            "remove them, or download them again: a web page is often saved in an image's place",
        ),
        found("file-undecodable", "error", "cannot be decoded", broken["damaged"], LEFT_OUT, again, "failure"),
        found(
            "wrong-ending", "warning", "the ending is that of another format", wrong_ending,
            "reads them: their content decides", "rename them: other programs may refuse them",
        ),
        found(
            "profile-not-srgb", "warning", "a colour profile other than sRGB",
            [file for file, _ in good if file.profile],
            "takes their values as if they were sRGB, so that their colours shift",
            "export them as sRGB, for example by `magick FILE -profile sRGB.icc FILE`", "profile",
        ),
        found(
            "cmyk", "warning", "CMYK, the colours of print", [file for file, _ in good if file.mode == "CMYK"],
            "converts them to RGB without their profile, so that their colours shift", "export them as RGB",
        ),
        found(
            "animated", "note", "several frames or pages", [file for file, header in good if header.several],
            "uses the first frame or page only", "save the frames as files of their own, if all of them count",
        ),
        found(
            "16-bit", "note", "16 bits or more",
            [file for file, header in good if header.deep or header.deep_colour],
            said("of 16 bits or more", said("upper 8 bits", "converts them to 8 bits")),
            "--window LOW,HIGH sets another scale",
        ),
        found(
            "transparent", "note", "transparent pixels", [file for file, _ in good if file.transparent],
            said("have transparency", "puts them on white"), "--channels 3 puts them on white, --channels 4 keeps them",
        ),
        found(
            "exif-turned", "note", "turned or mirrored, as EXIF data say", [file for file, _ in good if file.turned],
            "turns them upright", "",
        ),
        _colliding_names([file.path for file in facts]),
    ]  # fmt: skip
    return [finding for finding in findings if finding is not None]


def _kind_of_failure(file: FileFacts) -> str:
    if file.bytes == 0:
        return "empty"
    if file.failure in ("truncated", "not an image"):
        return file.failure
    return "bomb" if "pixels than" in file.failure or " a side of more than" in file.failure else "damaged"


def _ending_is_wrong(path: str, format: str) -> bool:
    """Whether a file is named as an image of another format."""
    ending = os.path.splitext(path)[1].lower()
    return any(ending in endings for name, endings in SUFFIXES.items() if name != format)


def _colliding_names(paths: Sequence[str]) -> Finding | None:
    """Paths that are one path where case or the form of Unicode does not count, as on macOS and Windows."""
    same: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        same[unicodedata.normalize("NFC", path).casefold()].append(path)
    sets = sorted((sorted(names) for names in same.values() if len(names) > 1), key=lambda names: natural(names[0]))
    if not sets:
        return None
    count = sum(map(len, sets))
    text = f"{count:,} files: names that differ only in case or in the form of Unicode"
    return Finding(
        "names-collide", "warning", text, count, tuple(" and ".join(names) for names in sets),
        "reads each of them", "rename them: copied to macOS or Windows, one of them replaces the other",
    )  # fmt: skip
