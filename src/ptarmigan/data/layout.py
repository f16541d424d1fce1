"""Understand a folder's layout: which folders are classes, which are parts, and which images are left out."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from ptarmigan.core.types import UserError, class_name, natural, shorten
from ptarmigan.data.arrays import HELD_OUT, PART_WORDS, SELECT, UNDECIDED
from ptarmigan.data.scan import Folder, counted

# Words that may stand beside a word of the above: train_images, seg_train, Final_Test.
PLAIN_WORDS = {
    "set", "data", "dataset", "image", "images", "img", "imgs", "jpg", "jpeg", "png", "photos", "pictures", "files",
    "folder", "dir", "split", "part", "seg", "stage", "final", "resized", "cropped", "processed", "raw",
}  # fmt: skip
IMAGE_FOLDERS = {"image", "images", "img", "imgs", "jpegimages"}
ANNOTATION_FOLDERS = {
    "annotation", "annotations", "attributes", "ground_truth", "groundtruth", "gt", "labels", "mask", "masks",
    "segmentation", "segmentations", "segmentationclass", "segmentationobject", "trimaps",
}  # fmt: skip


class Group(NamedTuple):
    """Images of one class and part."""

    name: str  # of the class, as `class_name` gives it
    part: int  # SELECT, HELD_OUT or UNDECIDED
    paths: list[str]


@dataclass
class Layout:
    """What a folder of images was understood to be."""

    groups: list[Group] = field(default_factory=list)
    understood: str = ""
    notices: list[str] = field(default_factory=list)
    one_class: bool = False  # there are no class folders


def understand(tree: Folder, name: str) -> Layout:
    """The classes and parts of a scanned folder with at least one image; `name` is that of a class without a folder.

    Raises UserError if the training part has no class folders although other parts have.
    """
    return _Reader(tree, name).read()


class _Reader:
    def __init__(self, tree: Folder, name: str) -> None:
        self.tree, self.name = tree, name
        self.layout = Layout()
        self.loose: list[str] = []  # images outside class folders
        self.extra: list[Folder] = []  # folders beside those that are taken
        self.empty: list[str] = []  # folders without images beside class folders
        self.unlabelled: list[Folder] = []  # parts without class folders where others have them
        self.deeper: list[str] = []  # class folders with several folders in them
        self.spellings: defaultdict[str, set[str]] = defaultdict(set)  # of a class name, as folders have it

    def read(self) -> Layout:
        masks = self.set_annotations_aside()
        level = self.look_through(self.tree)
        parts = find_parts(level)
        subs = _with_images(level)
        if parts is not None:
            kind = self.read_parts(level, parts)
        elif not subs or _is_sharded(level) or (len(subs) == 1 and len(level.images) > len(subs[0].all_images())):
            kind = self.read_flat(level)
        else:
            kind = self.read_classes(level, subs)
        self.layout.groups = [group for group in self.layout.groups if group.paths]
        self.promote()
        self.merge_names()
        self.say(kind, masks)
        return self.layout

    # --- the kinds of level -------------------------------------------------------------------------------------

    def read_parts(self, level: Folder, parts: dict[str, int]) -> str:
        """A level of parts, with class folders or loose images in each; returns what it is, in words."""
        self.loose += level.images
        found_parts = sorted(self.inside_parts(level, parts), key=lambda found: _rank(found[1]))
        folders = [sub for sub, _, _ in found_parts]
        classes = [_with_images(inner) for _, _, inner in found_parts]
        if not any(classes):
            for _, part, inner in found_parts:
                self.layout.groups.append(Group(self.own_name(level), part, inner.images))
            self.layout.one_class = True
            return f"images under {_joined(folders)}, without class folders"
        trained = [sub for sub, part, _ in found_parts if part == found_parts[0][1]]
        known = {
            _folded(found.name) for sub, subs in zip(folders, classes, strict=True) if sub in trained for found in subs
        }
        if not known:
            text = (
                f"{_joined(trained)} has no class folders, but other parts have: sort its images into class folders "
                "or give the folder of one part alone"
            )
            raise UserError(text, "data-incomplete")
        labelled = []
        for (sub, part, inner), subs in zip(found_parts, classes, strict=True):
            if not known & {_folded(found.name) for found in subs}:  # loose images, or folders that are no classes
                self.unlabelled.append(sub)
                continue
            labelled.append(sub)
            self.loose += inner.images
            self.empty += _without_images(inner)
            for found in subs:
                self.take(found, part)
        return f"class folders under {_joined(labelled)}"

    def inside_parts(self, level: Folder, parts: dict[str, int]) -> list[tuple[Folder, int, Folder]]:
        """(folder of a part, the part, the folder in it with class folders or images); a part may be divided again."""
        found: list[tuple[Folder, int, Folder]] = []
        for sub in _with_images(level):
            if sub.path not in parts:
                self.extra.append(sub)
                continue
            part, inner = parts[sub.path], self.look_through(sub, in_part=True)
            if (deeper := find_parts(inner)) is None:
                found.append((sub, part, inner))
            else:
                for lower, lower_part, innermost in self.inside_parts(inner, deeper):
                    found.append((lower, lower_part if part == UNDECIDED else part, innermost))
        return found

    def read_flat(self, level: Folder) -> str:
        """Images without class folders."""
        self.layout.one_class = True
        paths = level.all_images() if _is_sharded(level) else level.images
        if not _is_sharded(level):
            self.extra += _with_images(level)
        self.layout.groups.append(Group(self.own_name(level), UNDECIDED, paths))
        return f"images{_within(level)} without class folders"

    def read_classes(self, level: Folder, subs: list[Folder]) -> str:
        """Class folders.  Each may be divided into parts; other parts than the training part may lie beside them."""
        self.loose += level.images
        self.empty += _without_images(level)
        classes = [sub for sub in subs if _part(sub.name) in (None, UNDECIDED)]
        if len(classes) < 2:
            classes = subs
        names = {_folded(sub.name) for sub in classes}
        copies = {sub.path for sub in classes if _is_copy(sub, names)}
        classes = [sub for sub in classes if sub.path not in copies]
        known = {_folded(sub.name) for sub in classes}
        paths = {sub.path for sub in classes}
        divided_by: list[str] = []
        for sub in subs:
            if sub.path in copies:
                self.extra.append(sub)
                continue
            if sub.path in paths:
                divided_by += self.read_class(sub)
                continue
            inside = _with_images(self.look_through(sub, in_part=True))
            if known & {_folded(folder.name) for folder in inside}:
                part = _part(sub.name)
                assert part is not None
                divided_by.append(sub.name)
                for folder in inside:
                    self.take(folder, part)
            else:
                self.unlabelled.append(sub)
        if doubtful := [sub.path for sub in classes if _part(sub.name) is not None]:
            self.layout.notices.append(
                f"taken as classes although named like parts: {shorten(doubtful)} (parts are folders such as train and "
                "test beside each other)"
            )
        divided = f", with parts {', '.join(dict.fromkeys(divided_by))}" if divided_by else ""
        return f"class folders{_within(level)}{divided}"

    def read_class(self, sub: Folder) -> list[str]:
        """One class folder; returns the names of the parts that it is divided into."""
        parts, name = find_parts(sub), class_name(sub.name)
        if parts is None or UNDECIDED not in parts.values():
            self.take(sub, UNDECIDED)
            return []
        self.layout.groups.append(Group(name, UNDECIDED, sub.images))
        for folder in _with_images(sub):
            if folder.path in parts:
                self.layout.groups.append(Group(name, parts[folder.path], folder.all_images()))
            else:
                self.extra.append(folder)
        return [folder.name for folder in _with_images(sub) if folder.path in parts]

    def take(self, folder: Folder, part: int) -> None:
        """All images in and below a class folder."""
        name, inside = class_name(folder.name), _with_images(folder)
        self.spellings[name].add(folder.name)
        self.layout.groups.append(Group(name, part, folder.all_images()))
        if len(inside) > 1:
            self.deeper.append(f"{folder.path} ({shorten([sub.name for sub in inside], 3)})")

    def look_through(self, folder: Folder, in_part: bool = False) -> Folder:
        """Go down through folders that only wrap others: archive/photos/cat -> archive/photos.

        `in_part`: inside a part, a single folder that is named as a part only wraps it: seg_test/seg_test/sea.
        """
        while (sub := self.wrapped(folder, in_part)) is not None:
            parts = find_parts(folder)
            if parts is not None and not (in_part and len(parts) == 1):
                break
            self.loose += folder.images
            self.extra += [other for other in _with_images(folder) if other is not sub]
            folder = sub
        return folder

    def wrapped(self, folder: Folder, in_part: bool) -> Folder | None:
        """The folder that holds everything that counts in `folder`, if one does."""
        subs = _with_images(folder)
        containers = [sub for sub in subs if sub.name.lower() in IMAGE_FOLDERS and len(_with_images(sub)) > 1]
        if len(containers) == 1 and not any(_with_images(sub) for sub in subs if sub is not containers[0]):
            return containers[0]
        if len(subs) != 1 or len(folder.images) > len(subs[0].all_images()):
            return None
        sub = subs[0]
        inside = _with_images(sub)
        if not inside:
            says_nothing = sub.name.lower() in IMAGE_FOLDERS or _folded(sub.name) == _folded(folder.name or self.name)
            return sub if says_nothing or (in_part and _part_and_rest(sub.name) is not None) else None
        below = sum(len(deeper.all_images()) for deeper in inside)
        if sub.images and (len(inside) == 1 or len(sub.images) > below):
            return None  # a class with folders of its own
        return sub

    def set_annotations_aside(self) -> list[Folder]:
        """Take masks and the like, where their folder lies beside one of images or of a part, out of the tree."""
        aside: list[Folder] = []
        for folder in self.tree.walk():
            names = {sub.name.lower() for sub in folder.folders}
            if names & IMAGE_FOLDERS or any(_part(name) == UNDECIDED for name in names):
                aside += [sub for sub in _with_images(folder) if sub.name.lower() in ANNOTATION_FOLDERS]
                folder.folders = [sub for sub in folder.folders if sub.name.lower() not in ANNOTATION_FOLDERS]
        return aside

    # --- names --------------------------------------------------------------------------------------------------

    def own_name(self, level: Folder) -> str:
        """The name of a class without a folder of its own: that of the nearest folder whose name says what it holds."""
        for piece in reversed(level.path.split("/")):
            if piece and piece.lower() not in IMAGE_FOLDERS and _part(piece) is None:
                return class_name(piece)
        return class_name(self.name)

    def promote(self) -> None:
        """Without a training part, the part that comes nearest to it is divided as if it named none."""
        first = min((group.part for group in self.layout.groups), key=_rank)
        groups = self.layout.groups
        self.layout.groups = [g._replace(part=UNDECIDED if g.part == first else g.part) for g in groups]

    def merge_names(self) -> None:
        """A class is written as the training part writes it; another part may write it in another case."""
        trained = {group.name for group in self.layout.groups if group.part == UNDECIDED}
        by_fold = {_folded(name): name for name in sorted(trained, reverse=True)}
        merged: dict[str, str] = {}
        for i, group in enumerate(self.layout.groups):
            if group.name not in trained and (same := by_fold.get(_folded(group.name))):
                merged[group.name] = same
                self.layout.groups[i] = group._replace(name=same)
        if merged:
            pairs = [f"{name} is {same}" for name, same in merged.items()]
            self.layout.notices.append(f"taken as one class, because their names differ only in case: {shorten(pairs)}")
        if same_text := sorted(name for name, spelt in self.spellings.items() if len(spelt) > 1):
            self.layout.notices.append(
                f"taken as one class, because their names are the same text: {shorten(same_text)}"
            )
        folds = Counter(_folded(name) for name in trained)
        if alike := sorted(name for name in trained if folds[_folded(name)] > 1):
            self.layout.notices.append(f"kept apart, although their names differ only in case: {shorten(alike)}")

    # --- the sentence and the notices ---------------------------------------------------------------------------

    def say(self, kind: str, masks: list[Folder]) -> None:
        groups, notices = self.layout.groups, self.layout.notices
        images = counted(sum(len(group.paths) for group in groups), "image")
        names = {group.name for group in groups}
        if self.layout.one_class:
            text = f"{kind}: {images} of one class, {next(iter(names))!r}"
        else:
            text = f"{kind}: {images} in {counted(len(names), 'class')}"
        parts = {group.part for group in groups}
        said = ((SELECT, "val is the select part"), (HELD_OUT, "test is held out"))
        self.layout.understood = "; ".join([text, *(words for part, words in said if part in parts)])
        for folders, why in (
            (self.unlabelled, "without labels"),
            (self.extra, "in other folders"),
            (masks, "in folders of annotations"),
        ):
            if folders:
                numbers = [len(folder.all_images()) for folder in folders]
                texts = [f"{folder.path}: {number:,}" for folder, number in zip(folders, numbers, strict=True)]
                notices.append(f"left out: {counted(sum(numbers), 'image')} {why} ({shorten(texts)})")
        if self.loose:
            notices.append(
                f"left out: {counted(len(self.loose), 'image')} outside class folders ({shorten(self.loose, 3)})"
            )
        if self.empty:
            notices.append(f"left out: {counted(len(self.empty), 'folder')} without images ({shorten(self.empty)})")
        if self.deeper:
            notices.append(f"folders inside class folders are not taken as classes: {shorten(self.deeper, 3)}")
        if self.layout.one_class and (words := name_words(groups[0].paths)):
            notices.append(
                f"file names begin with {shorten(words)}: if these are classes, sort the images into a folder for each"
            )


def find_parts(folder: Folder) -> dict[str, int] | None:
    """{path of a sub-folder: its part} if the sub-folders are parts, else None.

    They are parts if training and other parts lie beside each other, whatever else does, or if all of them are named as
    parts.  A folder `train` beside others is a part if it alone has class folders, else a class: trains are a usual
    class.
    """
    subs = _with_images(folder)
    named = {sub.path: found for sub in subs if (found := _part_and_rest(sub.name)) is not None}
    parts_of_rest: defaultdict[tuple[str, ...], set[int]] = defaultdict(set)
    for part, rest in named.values():
        parts_of_rest[rest].add(part)
    # cars_train is a part only beside another part of cars, such as cars_test
    parts = {path: part for path, (part, rest) in named.items() if not rest or len(parts_of_rest[rest]) > 1}
    kinds = set(parts.values())
    if not parts or len(parts) == len(subs) or (UNDECIDED in kinds and len(kinds) > 1):
        return parts or None
    nested = any(len(_with_images(sub)) > 1 for sub in subs if parts.get(sub.path) == UNDECIDED)
    return parts if nested and not any(_with_images(sub) for sub in subs if sub.path not in parts) else None


@cache
def _part_and_rest(name: str) -> tuple[int, tuple[str, ...]] | None:
    """The part that a folder's name stands for, and what else it says; None if it names no part or several."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    pieces = [re.sub(r"(?<=.)(set|data|images|imgs)$", "", word.lower()) for word in words]
    parts = {PART_WORDS[piece] for piece in pieces if piece in PART_WORDS}
    if len(parts) != 1:
        return None
    return parts.pop(), tuple(piece for piece in pieces if piece not in PART_WORDS and piece not in PLAIN_WORDS)


def _part(name: str) -> int | None:
    """The part that a folder's name stands for, if it says nothing else."""
    found = _part_and_rest(name)
    return None if found is None or found[1] else found[0]


def name_words(paths: list[str]) -> list[str]:
    """The words that file names begin with, if they are few and each begins many: cat.0.jpg, dog.0.jpg -> cat, dog."""
    stems = [path.rpartition("/")[2].rpartition(".")[0] or path.rpartition("/")[2] for path in paths]
    words = Counter(re.sub(r"[\W_]*\(?[0-9]+\)?$", "", stem) for stem in stems)
    if 2 <= len(words) <= len(paths) / 5 and min(words.values()) >= 5 and all(re.search(r"[^\W\d_]", w) for w in words):
        return sorted(words, key=natural)
    return []


def _is_sharded(level: Folder) -> bool:
    """Numbered folders beside a dataset.json are shards, not classes."""
    subs = _with_images(level)
    has_list = any(path.rpartition("/")[2].lower() == "dataset.json" for path in level.others)
    return has_list and bool(subs) and all(sub.name.isdecimal() for sub in subs)


def _is_copy(folder: Folder, classes: set[str]) -> bool:
    """Whether a folder beside classes holds the same classes again: cat, dog and generated/cat, generated/dog."""
    inside = {_folded(sub.name) for sub in _with_images(folder)}
    return len(inside) > 1 and inside <= classes - {_folded(folder.name)}


def _with_images(folder: Folder) -> list[Folder]:
    return [sub for sub in folder.folders if any(deeper.images for deeper in sub.walk())]


def _without_images(folder: Folder) -> list[str]:
    return [sub.path for sub in folder.folders if not any(deeper.images or deeper.unlisted for deeper in sub.walk())]


def _rank(part: int) -> int:
    return (UNDECIDED, SELECT, HELD_OUT).index(part)


def _folded(name: str) -> str:
    return class_name(name).casefold()


def _within(level: Folder) -> str:
    return f" in {level.path}/" if level.path else ""


def _joined(folders: list[Folder]) -> str:
    """'train/, val/ and test/'."""
    *names, last = [f"{folder.path}/" for folder in folders]
    return f"{', '.join(names)} and {last}" if names else last
