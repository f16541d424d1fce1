"""What a set of images is like: its classes, sizes, equal and nearly equal images, and images of one colour."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ptarmigan.core.types import LEAST_SIDE, OnProgress, counted
from ptarmigan.data import HELD_OUT, TRAIN, Dataset
from ptarmigan.data.check.finding import SHOWN, Finding, pictures_of
from ptarmigan.data.check.near import MOST_IMAGES, groups_of, in_blocks, near_pairs
from ptarmigan.data.decode import TargetShape, share_cut
from ptarmigan.data.index import FolderSource
from ptarmigan.data.read import CUT
from ptarmigan.data.stream import StreamedImages

FEW_IMAGES = 100  # training images of a class; with fewer, a GAN mostly memorises them
UNEQUAL = 10  # times the training images of the smallest class that the largest has; from here it is said
MANY_COPIES = 0.01  # of the images are copies of others; fewer are a note
FLAT = 2.0  # standard deviation of the pixels, of 255, below which an image shows nothing
SAMPLED = 4  # every fourth pixel of every fourth row shows that most images are not flat
MUCH = 0.15  # of the area that is cut off
ENLARGED = 1.5  # times as large as it is; less is hardly seen
TOGETHER = 4  # pictures of one set

# Notices of `train` whose facts are in findings that name every file
COVERED = re.compile(
    "cannot be decoded|are cropped to|first frame or page|upper 8 bits|of 16 bits or more|have transparency"
)


def places(dataset: Dataset) -> list[str]:
    """[N] the path of each image in its folder, or its position in an array."""
    source = dataset.source
    if isinstance(source, FolderSource):
        return [source.paths[position] for position in dataset.source_indices]
    return [f"image {position}" for position in dataset.source_indices]


def class_findings(dataset: Dataset, balance: bool) -> list[Finding]:
    """Few training images of a class, and classes of very different size, which `--balance` makes up for."""
    counts = dataset.class_counts()
    findings = []
    if few := {name: count for name, count in counts.items() if count < FEW_IMAGES}:
        findings.append(
            Finding("few-images", "warning", f"fewer than {FEW_IMAGES} training images in {len(few):,} of "
                    f"{counted(len(counts), 'class')}", len(few), tuple(f"{name}: {n:,}" for name, n in few.items()),
                    "trains on them",
                    "with few, samples copy the training images or look alike; use more, or --flip if mirrored images "
                    "are valid")
        )  # fmt: skip
    least, most = min(counts.values()), max(counts.values())
    if most > UNEQUAL * least and not balance:
        names = sorted(counts, key=lambda name: counts[name])
        small = [name for name in names if most > UNEQUAL * counts[name]]
        more = "add images to the small classes"
        findings.append(
            Finding("imbalance", "warning", f"the largest class, {names[-1]}, has {most / max(least, 1):.3g} times the "
                    f"training images of the smallest, {names[0]}", len(small),
                    tuple(f"{name}: {counts[name]:,}" for name in small),
                    "draws each image equally often, so that the small classes are seen seldom",
                    more if isinstance(dataset.images, StreamedImages)
                    else f"--balance draws each class equally often; or {more}")
        )  # fmt: skip
    return findings


def size_findings(
    sizes: Sequence[tuple[int, int]], paths: Sequence[str], shape: TargetShape, index: Mapping[str, int]
) -> list[Finding]:
    """What the crop cuts off, and images that are enlarged.

    sizes: (height, width) of each path.  index: path -> position in the data set.
    """
    findings = []
    cut = np.array([share_cut(*size, shape) if shape.fit == "crop" else 0 for size in sizes])
    cropped = [int(at) for at in np.argsort(-cut, kind="stable") if cut[at] > CUT]
    if cropped:
        mean = cut[cropped].mean()
        findings.append(
            Finding("cropped", "warning" if mean > MUCH else "note", f"{counted(len(cropped), 'image')}: edges cut off",
                    len(cropped), tuple(f"{paths[at]} ({100 * cut[at]:.0f} % of its area)" for at in cropped),
                    f"crops them to {shape.height}x{shape.width}; on average {100 * mean:.2g} % of the area is lost",
                    "--fit pad or --fit stretch keeps all of it; --size HEIGHTxWIDTH sets another shape",
                    pictures_of([paths[at] for at in cropped], index))
        )  # fmt: skip
    scale = [max(shape.height / height, shape.width / width) for height, width in sizes]
    small = sorted((at for at, by in enumerate(scale) if by > ENLARGED), key=lambda at: -scale[at])
    if small:
        findings.append(
            Finding("enlarged", "warning", f"{counted(len(small), 'image')}: much smaller than "
                    f"{shape.height}x{shape.width}", len(small),
                    tuple(f"{paths[at]} ({sizes[at][0]}x{sizes[at][1]})" for at in small),
                    f"enlarges them to {shape.height}x{shape.width}, which blurs them",
                    "leave them out" + ", or train at a smaller --size" * (min(shape.height, shape.width) > LEAST_SIDE),
                    pictures_of([paths[at] for at in small], index))
        )  # fmt: skip
    return findings


def flat_images(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """[N] whether an image [N, H, W, C] has nearly one colour."""
    some = images[:, ::SAMPLED, ::SAMPLED]
    # N pixels have a standard deviation of at least sqrt(n / N) times that of n of them
    flat: NDArray[np.bool_] = deviations(some) < FLAT * (images[:1].size / max(1, some[:1].size)) ** 0.5
    doubtful = np.flatnonzero(flat)
    flat[doubtful] = deviations(images, doubtful) < FLAT
    return flat


def deviations(images: NDArray[np.uint8], indices: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    """[N] the standard deviation of the pixels of images [N, H, W, C] on white, in the channel where it is largest."""
    parts = [pixels.std((2, 3)).max(1) for _, pixels in in_blocks(images, indices)]
    return np.concatenate([np.empty(0, np.float32), *parts])


def image_findings(dataset: Dataset, on_progress: OnProgress | None = None) -> tuple[list[Finding], NDArray[np.int64]]:
    """The findings about equal, nearly equal and empty images; and [N] the group of nearly equal images of each image,
    as the least index in it."""
    least, every = first_equal(dataset), np.arange(len(dataset.labels))
    assert isinstance(dataset.images, np.ndarray)  # `check` refuses streams
    flat = flat_images(dataset.images)
    single = np.flatnonzero((least == every) & ~flat)
    findings = equal_findings(dataset, least) + flat_findings(dataset, flat)
    if len(single) > MOST_IMAGES:
        text = f"near duplicates are looked for in the first {MOST_IMAGES:,} of {len(single):,} images"
        findings.append(Finding("near-not-looked-for", "note", text, len(single) - MOST_IMAGES))
        single = single[:MOST_IMAGES]
    pairs = single[near_pairs(dataset.images[single], on_progress)]
    findings += near_findings(dataset, _sets(groups_of(pairs, len(every))))
    return findings, groups_of(np.concatenate([pairs, np.stack([least, every], 1)]), len(every))


def first_equal(dataset: Dataset) -> NDArray[np.int64]:
    """[N] the first image with the same pixels, which is the image itself if no other before it has them."""
    _, first, same = np.unique(dataset.hashes, return_index=True, return_inverse=True)
    return first[same]


def equal_findings(dataset: Dataset, least: NDArray[np.int64]) -> list[Finding]:
    """Equal images of several classes, of one class, and of the train and held-out parts.

    least: [N] of `first_equal`.
    """
    equal = _sets(least)
    mixed = [of for of in equal if _classes(dataset, of) > 1]
    copies = [of for of in equal if _classes(dataset, of) == 1]
    extra = sum(len(of) - 1 for of in copies)
    leaked = [of for of in equal if _leaks(dataset, of)]
    where, part = places(dataset), dataset.part

    def all_but_one(of: list[int]) -> dict[int, str]:
        kept = min(of, key=lambda at: (part[at] == TRAIN, at))  # one outside the train part if there is one
        return {at: f"equal to {where[kept]}" for at in of if at != kept}

    return [
        *_of_sets(
            dataset, "label-conflict", "error", f"{counted(len(mixed), 'image')}: in more than one class", mixed,
            "trains on each copy with its own label, and the labels contradict each other",
            "remove the copies in the wrong classes",
            lambda of: dict.fromkeys(of, "equal to an image of another class"),
        ),
        *_of_sets(
            dataset, "duplicates", "warning" if extra > MANY_COPIES * len(least) else "note",
            f"{counted(extra, 'image')}: the same pixels as another image of the class", copies,
            "counts each of them; copies stay in one part of the split, unless the source names the parts",
            "remove them", all_but_one,
        ),
        *_of_sets(
            dataset, "leak", "error", f"{counted(len(leaked), 'held-out image')}: also in the train part", leaked,
            "keeps the parts that the source names",
            "remove the copies from the train part, or scores will be better than they should be",
            lambda of: {at: "equal to a held-out image" for at in of if part[at] == TRAIN},
        ),
    ]  # fmt: skip


def flat_findings(dataset: Dataset, flat: NDArray[np.bool_]) -> list[Finding]:
    """Images of nearly one colour; flat: [N] whether an image is one."""
    sets = [[int(at)] for at in np.flatnonzero(flat)]
    return _of_sets(
        dataset, "flat", "warning", f"{counted(len(sets), 'image')}: nearly one colour", sets, "trains on them",
        "remove them, unless they belong to their class", lambda of: {of[0]: "nearly one colour"},
    )  # fmt: skip


def near_findings(dataset: Dataset, sets: list[list[int]]) -> list[Finding]:
    """Sets of nearly equal images in several classes, in one class, and in the train and held-out parts."""
    across = [of for of in sets if _classes(dataset, of) > 1]
    within = [of for of in sets if _classes(dataset, of) == 1]
    leaked = [of for of in sets if _leaks(dataset, of)]
    train = "trains on all of them, and counts them as different images"
    of_files = isinstance(dataset.source, FolderSource)
    return [
        *_of_sets(
            dataset, "near-duplicates-across-classes", "warning",
            f"{counted(len(across), 'group')} of nearly equal images in different classes", across, train,
            "look at them: one of the labels may be wrong",
        ),
        *_of_sets(
            dataset, "near-duplicates", "note", f"{counted(len(within), 'group')} of nearly equal images", within,
            train, "keep one of each group, if they are copies",
        ),
        *_of_sets(
            dataset, "near-leak", "warning",
            f"{counted(len(leaked), 'group')} of nearly equal images in the train and held-out parts", leaked,
            "keeps them where they are, so that scores may be better than they should be",
            "keep each group in one part: `check DATA --fix X.csv`, then `train DATA --labels X.csv --group group`"
            if of_files else "take the copies out of the arrays",
        ),
    ]  # fmt: skip


def _of_sets(
    dataset: Dataset, code: str, severity: str, text: str, sets: list[list[int]], train: str, remedy: str,
    drop: Callable[[list[int]], dict[int, str]] = lambda _: {},
) -> list[Finding]:  # fmt: skip
    """One finding about sets of images, none where there is no set; drop(set): index -> why `--fix` leaves it out."""
    if not sets:
        return []
    where, names = places(dataset), dataset.spec.class_names
    captions = [", ".join(dict.fromkeys(names[dataset.labels[at]] for at in of)) for of in sets[:SHOWN]]
    return [
        Finding(
            code, severity, text, len(sets), tuple(" and ".join(where[at] for at in of[:TOGETHER]) for of in sets),
            train, remedy, tuple(tuple(of[:TOGETHER]) for of in sets[:SHOWN]),
            tuple(captions) if any(_classes(dataset, of) > 1 for of in sets) else (),
            {where[at]: why for of in sets for at, why in drop(of).items()},
        )
    ]  # fmt: skip


def _classes(dataset: Dataset, of: list[int]) -> int:
    return len({*dataset.labels[of].tolist()})


def _leaks(dataset: Dataset, of: list[int]) -> bool:
    return {TRAIN, HELD_OUT} <= {*dataset.part[of].tolist()}


def _sets(least: NDArray[np.int64]) -> list[list[int]]:
    """The sets of two or more positions with the same value, each ascending."""
    members: defaultdict[int, list[int]] = defaultdict(list)
    counts = np.bincount(least, minlength=len(least))
    for at in np.flatnonzero(counts[least] > 1):
        members[int(least[at])].append(int(at))
    return list(members.values())


def why_size(sizes: Sequence[tuple[int, int]], shape: TargetShape, asked: bool) -> str:
    """Why the images get the size that they get, in words."""
    text = f"{shape.height}x{shape.width}"
    if asked:
        return f"{text}, as --size says"
    short = float(np.median([min(size) for size in sizes]))
    if len({*sizes}) == 1 and sizes[0] == (shape.height, shape.width):
        return f"{text}, as all images are"
    aspects = "" if shape.height == shape.width else ", and most images share this aspect ratio"
    return f"{text}, because the median of the short sides is {short:g} pixels{aspects}"


def notice_findings(dataset: Dataset) -> list[Finding]:
    """What `train` says that no other finding does; a warning where it is about files that are not read."""
    of_files = len(dataset.source.notices)  # these come first
    return [
        Finding("notice", "warning" if place < of_files or notice.startswith("left out") else "note", notice, 1)
        for place, notice in enumerate(dataset.notices)
        if not COVERED.search(notice)
    ]


def class_bars(dataset: Dataset) -> list[tuple[str, int, int, int]]:
    """(name, training, select and held-out images) of each class."""
    table = np.zeros((dataset.spec.classes, 3), np.int64)
    np.add.at(table, (dataset.labels, dataset.part), 1)
    return [(name, int(a), int(b), int(c)) for name, (a, b, c) in zip(dataset.spec.class_names, table, strict=True)]
