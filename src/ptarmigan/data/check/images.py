"""What a set of images is like: its classes, sizes, equal and nearly equal images, and images of one colour."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ptarmigan.core.types import OnProgress, counted
from ptarmigan.data import FEW_IMAGES, HELD_OUT, TRAIN, Dataset
from ptarmigan.data.check.finding import Finding
from ptarmigan.data.check.near import BLOCK, MOST_IMAGES, groups_of, near_pairs, on_white
from ptarmigan.data.decode import TargetShape, share_cut
from ptarmigan.data.index import FolderSource

FLAT = 2.0  # standard deviation of the pixels, of 255, below which an image shows nothing
MANY = 0.01  # of the images are copies of others
UNEQUAL = 10  # times as many training images in the largest class as in the smallest
MUCH = 0.15  # of the area that is cut off
ENLARGED = 1.5  # times as large as it is; less is hardly seen
SHOWN = 24  # pictures of one finding

Said = Callable[[str, str], str]  # (pattern, text) -> the notice of `train` that the pattern is found in, or the text


def places(dataset: Dataset) -> list[str]:
    """[N] the path of each image in its folder, or its position in an array."""
    source = dataset.source
    if isinstance(source, FolderSource):
        return [source.paths[position] for position in dataset.source_indices]
    return [f"image {position}" for position in dataset.source_indices]


def class_findings(dataset: Dataset) -> list[Finding]:
    """Few training images of a class, and classes of very different size."""
    counts = dataset.class_counts()
    findings = []
    if few := {name: count for name, count in counts.items() if count < FEW_IMAGES}:
        findings.append(
            Finding("few-images", "warning", f"fewer than {FEW_IMAGES} training images in {len(few):,} of "
                    f"{counted(len(counts), 'class')}", len(few), tuple(f"{name} ({n:,})" for name, n in few.items()),
                    "trains on them; samples will copy the training images or look alike",
                    "use more images, or --flip if mirrored images are valid")
        )  # fmt: skip
    least, most = min(counts.values()), max(counts.values())
    if most > UNEQUAL * least:
        names = sorted(counts, key=lambda name: counts[name])
        small = [name for name in names if most > UNEQUAL * counts[name]]
        findings.append(
            Finding("imbalance", "warning", f"the largest class, {names[-1]}, has {most / max(least, 1):.3g} times the "
                    f"training images of the smallest, {names[0]}", len(small),
                    tuple(f"{name} ({counts[name]:,})" for name in small),
                    "draws each image equally often, so that the small classes are seen seldom",
                    "--balance draws each class equally often; or add images to the small classes")
        )  # fmt: skip
    return findings


def size_findings(
    sizes: Sequence[tuple[int, int]], paths: Sequence[str], shape: TargetShape, said: Said
) -> list[Finding]:
    """What the crop cuts off, and images that are enlarged; sizes: (height, width) of each path."""
    findings = []
    if cropped := said("are cropped to", ""):
        cut = np.array([share_cut(height, width, shape) for height, width in sizes])
        order = [int(at) for at in np.argsort(-cut, kind="stable") if cut[at] > 0.03]
        findings.append(
            Finding("cropped", "warning" if cut[order].mean() > MUCH else "note",
                    f"{counted(len(order), 'image')}: edges cut off", len(order),
                    tuple(f"{paths[at]} ({100 * cut[at]:.0f} % of its area)" for at in order),
                    cropped.split(" (--fit")[0],
                    "--fit pad or --fit stretch keeps all of it; --size HEIGHTxWIDTH sets another shape")
        )  # fmt: skip
    scale = [max(shape.height / height, shape.width / width) for height, width in sizes]
    small = sorted((at for at, by in enumerate(scale) if by > ENLARGED), key=lambda at: -scale[at])
    if small:
        findings.append(
            Finding("enlarged", "warning", f"{counted(len(small), 'image')}: much smaller than "
                    f"{shape.height}x{shape.width}", len(small),
                    tuple(f"{paths[at]} ({sizes[at][0]}x{sizes[at][1]})" for at in small),
                    f"enlarges them to {shape.height}x{shape.width}, which blurs them",
                    "leave them out, or train at a smaller --size")
        )  # fmt: skip
    return findings


def flat_images(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """[N] whether an image [N, H, W, C] has nearly one colour."""
    step = max(1, BLOCK // max(1, images[:1].size))
    parts = [on_white(images[at : at + step]).std((1, 2)).max(1) < FLAT for at in range(0, len(images), step)]
    return np.concatenate([np.empty(0, bool), *parts])


def image_findings(dataset: Dataset, on_progress: OnProgress | None = None) -> tuple[list[Finding], NDArray[np.int64]]:
    """The findings about equal, nearly equal and empty images; and [N] the group of nearly equal images of each image,
    as the least index in it."""
    where, labels, names = places(dataset), dataset.labels, dataset.spec.class_names
    findings: list[Finding] = []

    def say(
        code: str, severity: str, text: str, sets: list[list[int]], train: str, remedy: str,
        drop: Callable[[list[int]], dict[int, str]] = lambda _: {},
    ) -> None:  # fmt: skip
        if sets:
            of_class = len({labels[at] for members in sets for at in members}) > 1
            findings.append(
                Finding(code, severity, text, len(sets), tuple(" and ".join(where[at] for at in of[:4]) for of in sets),
                        train, remedy, tuple(tuple(of[:4]) for of in sets[:SHOWN]),
                        tuple(", ".join(dict.fromkeys(names[labels[at]] for at in of)) for of in sets[:SHOWN])
                        if of_class else (),
                        {where[at]: why for of in sets for at, why in drop(of).items()})
            )  # fmt: skip

    _, first, same = np.unique(dataset.hashes, return_index=True, return_inverse=True)
    equal = _sets(first[same])
    mixed = [of for of in equal if len({labels[at] for at in of}) > 1]
    copies = [of for of in equal if len({labels[at] for at in of}) == 1]
    extra = sum(len(of) - 1 for of in copies)
    say(
        "label-conflict", "error", f"{counted(len(mixed), 'image')}: in more than one class", mixed,
        "trains on each copy with its own label, and the labels contradict each other",
        "remove the copies in the wrong classes",
        lambda of: dict.fromkeys(of, "equal to an image of another class"),
    )  # fmt: skip
    say(
        "duplicates", "warning" if extra > MANY * len(labels) else "note",
        f"{counted(len(copies), 'image')}: {extra:,} more with the same pixels in the class", copies,
        "counts an image as often as it is there; copies are in one part of the split, unless the source names parts",
        "remove the copies",
        lambda of: {at: f"equal to {where[min(of, key=_part_first(dataset))]}" for at in of
                    if at != min(of, key=_part_first(dataset))},
    )  # fmt: skip
    leaked = [of for of in equal if {TRAIN, HELD_OUT} <= {int(dataset.part[at]) for at in of}]
    say(
        "leak", "error", f"{counted(len(leaked), 'held-out image')}: also in the train part", leaked,
        "keeps the parts that the source names, so that scores will be better than they should be",
        "remove the copies from the train part",
        lambda of: {at: "equal to a held-out image" for at in of if dataset.part[at] == TRAIN},
    )  # fmt: skip
    assert isinstance(dataset.images, np.ndarray)  # `check` refuses streams
    flat = flat_images(dataset.images)
    empty = [[int(at)] for at in np.flatnonzero(flat)]
    say(
        "flat", "warning", f"{counted(len(empty), 'image')}: nearly one colour", empty,
        "trains on them", "remove them, unless they belong to their class", lambda of: {of[0]: "nearly one colour"},
    )  # fmt: skip
    single = np.flatnonzero((first[same] == np.arange(len(labels))) & ~flat)
    if len(single) > MOST_IMAGES:
        findings.append(
            Finding("near-not-looked-for", "note", f"near duplicates are looked for in the first {MOST_IMAGES:,} of "
                    f"{len(single):,} images", len(single) - MOST_IMAGES)
        )  # fmt: skip
        single = single[:MOST_IMAGES]
    pairs = single[near_pairs(dataset.images[single], on_progress)]
    group = groups_of(np.concatenate([pairs, np.stack([first[same], np.arange(len(labels))], 1)]), len(labels))
    similar = _sets(groups_of(pairs, len(labels)))
    train = "trains on all of them, and counts them as different images"
    for across in (True, False):
        sets = [of for of in similar if (len({labels[at] for at in of}) > 1) is across]
        code = "near-duplicates-across-classes" if across else "near-duplicates"
        text = f"{counted(len(sets), 'group')} of nearly equal images" + " in different classes" * across
        remedy = (
            "look at them: one of the labels may be wrong" if across else "keep one of each group, if they are copies"
        )
        say(code, "warning" if across else "note", text, sets, train, remedy)
    split = [of for of in similar if {TRAIN, HELD_OUT} <= {int(dataset.part[at]) for at in of}]
    say(
        "near-leak", "warning", f"{counted(len(split), 'group')} of nearly equal images in train and held-out parts",
        split, "keeps them where they are, so that scores may be better than they should be",
        "keep each group in one part: check DATA --fix X.csv, then train DATA --labels X.csv --group group"
        if isinstance(dataset.source, FolderSource) else "take the copies out of the arrays",
    )  # fmt: skip
    return findings, group


def _part_first(dataset: Dataset) -> Callable[[int], tuple[bool, int]]:
    """A key that puts images outside the train part first: of two copies, that one is kept."""
    return lambda at: (bool(dataset.part[at] == TRAIN), at)


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


def notice_findings(notices: Iterable[str], source: int) -> list[Finding]:
    """What `train` says that no other finding does; the first `source` notices are about files that are not read."""
    return [
        Finding("notice", "warning" if place < source else "note", notice, 1) for place, notice in enumerate(notices)
    ]


def class_bars(dataset: Dataset) -> list[tuple[str, int, int, int]]:
    """(name, training, select and held-out images) of each class."""
    table = np.zeros((dataset.spec.classes, 3), np.int64)
    np.add.at(table, (dataset.labels, dataset.part), 1)
    return [(name, int(a), int(b), int(c)) for name, (a, b, c) in zip(dataset.spec.class_names, table, strict=True)]
