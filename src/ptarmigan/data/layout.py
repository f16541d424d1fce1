"""Understand a folder's layout: which folders are classes, which are parts, and which images are left out."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

from ptarmigan.core.types import UserError, class_name, counted, natural, shorten
from ptarmigan.data.arrays import UNDECIDED
from ptarmigan.data.parts import (
    PLAIN_WORDS,
    class_folders_in,
    find_parts,
    is_unlabelled,
    part_and_rest,
    part_of,
    said_parts,
    words_of,
)
from ptarmigan.data.storage import Folder

IMAGE_FOLDERS = {"image", "images", "img", "imgs", "jpegimages", "jpg", "jpeg", "png"}
ANNOTATION_FOLDERS = {
    "annotation", "annotations", "attributes", "ground_truth", "groundtruth", "gt", "labels", "mask", "masks",
    "segmentation", "segmentations", "segmentationclass", "segmentationobject", "thumbnails", "thumbs", "trimaps",
}  # fmt: skip
# x_mask.png beside x.png
MASK = re.compile(r"(.+)[-_. ](masks?|seg|segmentation|gt|ground_?truth|trimap|matte)([-_. ]?[0-9]+)?", re.IGNORECASE)
# A set that is spread over numbered folders says one of these words in their names: images_001, photos_part_1.
SHARD_WORDS = {"image", "images", "img", "imgs", "part", "shard", "batch", "chunk", "fold"}
# Folders of a camera (101APPLE), and of days and months (2023-05-17, 20230517, 2023-05).
OF_CAMERA = re.compile(r"[1-9]\d\d[A-Z_][0-9A-Z_]{4}|(19|20)\d\d([-_.]\d\d){1,2}|(19|20)\d{6}")


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
    one_class: bool = False
    classes_from: str = "the folders"
    order: list[str] = field(default_factory=list)  # of the classes, where it is not the natural one of their names


def understand(tree: Folder, name: str) -> Layout:
    """The classes and parts of a scanned folder with at least one image; `name` is that of a class without a folder.

    Raises UserError if the training part has no class folders although other parts have, or if it is not certain which
    level of folders is that of the classes.
    """
    return _Reader(tree, name).read()


class _Reader:
    def __init__(self, tree: Folder, name: str) -> None:
        self.tree, self.name = tree, name
        self.layout = Layout()
        self.loose: list[str] = []  # images outside class folders
        self.masks: list[str] = []  # images beside those that they are masks of
        self.extra: list[Folder] = []  # folders beside those that are taken
        self.empty: list[str] = []  # folders without images beside class folders
        self.unlabelled: list[Folder] = []  # parts without class folders where others have them
        self.deeper: list[str] = []  # class folders that contain several folders
        self.spellings: defaultdict[str, set[str]] = defaultdict(set)  # of a class name, as folders have it

    def read(self) -> Layout:
        annotations = self.set_annotations_aside()
        level = self.look_through(self.tree)
        parts = find_parts(level)
        subs = level.with_images()
        if parts is not None:
            kind = self.read_parts(level, parts)
        elif not subs or _is_sharded(level) or (len(subs) == 1 and len(level.images) > len(subs[0].all_images())):
            kind = self.read_flat(level)
        else:
            kind = self.read_classes(level)
        self.layout.groups = promote([group for group in self.layout.groups if group.paths])
        self.merge_names()
        self.say(kind, annotations)
        return self.layout

    # --- the kinds of level -------------------------------------------------------------------------------------

    def read_parts(self, level: Folder, parts: dict[str, int]) -> str:
        """A level of parts, with class folders or loose images in each; returns what it is, in words."""
        self.loose += level.images
        found_parts = sorted(self.inside_parts(level, parts), key=itemgetter(1))
        folders = [sub for sub, _, _ in found_parts]
        classes = [self.class_folders(inner) for _, _, inner in found_parts]
        if not any(classes):
            rests = ["_".join(words[1]) if (words := part_and_rest(sub.name)) else "" for sub in folders]
            several = len(set(rests)) > 1 and all(rests)  # trainA and trainB hold different things
            for (_, part, inner), rest in zip(found_parts, rests, strict=True):
                name = class_name(rest) if several else self.own_name(level)
                self.layout.groups.append(Group(name, part, inner.images))
            return f"images under {_joined(folders)}, " + ("each a class" if several else "without class folders")
        trained = [sub for sub, part, _ in found_parts if part == found_parts[0][1]]
        known = {
            _folded(found.name) for sub, subs in zip(folders, classes, strict=True) if sub in trained for found in subs
        }
        if not known:
            text = (
                f"{_joined(trained)} has no class folders, but other parts do: sort its images into class folders, "
                "or give the folder of one part"
            )
            raise UserError(text, "data-incomplete")
        labelled = []
        for (sub, part, inner), subs in zip(found_parts, classes, strict=True):
            if not known & {_folded(found.name) for found in subs}:  # loose images, or folders that are not classes
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
        for sub in level.with_images():
            if sub.path not in parts:
                (self.unlabelled if is_unlabelled(sub) else self.extra).append(sub)
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
        if not _is_sharded(level):
            self.extra += level.with_images()
            self.layout.groups.append(Group(self.own_name(level), UNDECIDED, level.images))
            return f"images{_within(level)} without class folders"
        self.layout.groups.append(Group(self.own_name(level), UNDECIDED, level.all_images()))
        shards = shorten([sub.path for sub in level.with_images()], 3)
        return f"images in numbered or dated folders, which are not classes ({shards})"

    def read_classes(self, level: Folder) -> str:
        """Class folders.  Each may be divided into parts; other parts than the training part may lie beside them."""
        self.loose += level.images
        self.empty += _without_images(level)
        subs = self.class_folders(level)
        classes = [sub for sub in subs if part_of(sub.name) in (None, UNDECIDED)]
        if len(classes) < 2:
            classes = subs
        self.check_level(classes)
        known = {_folded(sub.name) for sub in classes}
        paths = {sub.path for sub in classes}
        divided_by: list[str] = []
        for sub in subs:
            if sub.path in paths:
                divided_by += self.read_class(sub)
                continue
            inside = self.look_through(sub, in_part=True).with_images()
            if known & {_folded(folder.name) for folder in inside}:
                part = part_of(sub.name)
                assert part is not None
                divided_by.append(sub.name)
                for folder in inside:
                    self.take(folder, part)
            else:
                self.unlabelled.append(sub)
        if doubtful := [sub.path for sub in classes if part_of(sub.name) is not None]:
            self.layout.notices.append(
                f"taken as classes, although their names are those of parts: {shorten(doubtful)} (only folders such as "
                "train and test beside each other are parts)"
            )
        divided = f" and parts ({', '.join(dict.fromkeys(divided_by))})" if divided_by else ""
        return f"class folders{_within(level)}{divided}"

    def class_folders(self, level: Folder) -> list[Folder]:
        """The folders of a level, without copies of the level itself and images that are said to have no labels."""
        subs = level.with_images()
        names = {_folded(sub.name) for sub in subs}
        copies = [sub for sub in subs if _is_copy(sub, names) and part_of(sub.name) in (None, UNDECIDED)]
        unlabelled = [sub for sub in subs if is_unlabelled(sub)] if len(subs) > 1 else []
        self.extra += copies
        self.unlabelled += unlabelled
        return [sub for sub in subs if sub not in copies and sub not in unlabelled]

    def check_level(self, classes: list[Folder]) -> None:
        """Raise UserError where the folders inside the class folders may as well be the classes.

        They may be if several class folders hold the same folders, as set variants and domains do (colour/cat and
        grey/cat), or if one has a training part with class folders, as a data set has.  Folders inside that are only
        numbered are not classes (cat/2023 and dog/2023), and neither are folders of images.
        """
        names = {_folded(sub.name) for sub in classes}
        inside = {sub.path: _inside(sub) for sub in classes}
        if sets := [sub for sub in classes if inside[sub.path][1]]:
            text = f"{sets[0].path}/ in {self.name} has parts and class folders of its own, but other folders beside "
            text += f"it: give one data set, such as {self.name}/{sets[0].path}"
            raise UserError(text, "layout-unclear")
        counts = Counter(name for found, _ in inside.values() for name in found)
        shared = {name for name, count in counts.items() if count > 1}
        repeating = [sub for sub in classes if len(inside[sub.path][0] & shared) > 1]
        if 2 * len(repeating) <= len(classes) or 2 * len(shared) < len(counts) or shared <= names:
            return
        if shared & (IMAGE_FOLDERS | ANNOTATION_FOLDERS) or (_is_numbered(shared) and not _is_numbered(names)):
            return
        best = max(repeating, key=lambda sub: (part_of(sub.name) == UNDECIDED, len(sub.all_images())))
        found = [sub.name for sub in class_folders_in(best) if _folded(sub.name) in shared]
        raise UserError(
            f"{shorten([sub.path for sub in repeating], 3)} in {self.name} hold folders of the same names "
            f"({shorten(found, 3)}), so it is not certain which of them are the classes: give one of the outer "
            f"folders, such as {self.name}/{best.path}, to train on its inner ones, or move the images up out of the "
            "inner folders to train on the outer ones",
            "layout-unclear",
        )

    def read_class(self, sub: Folder) -> list[str]:
        """One class folder; returns the names of the parts that it is divided into."""
        parts, name = find_parts(sub), class_name(sub.name)
        if parts is None or UNDECIDED not in parts.values():
            self.take(sub, UNDECIDED)
            return []
        self.layout.groups.append(Group(name, UNDECIDED, sub.images))
        for folder in sub.with_images():
            if folder.path in parts:
                self.layout.groups.append(Group(name, parts[folder.path], folder.all_images()))
            else:
                self.extra.append(folder)
        return [folder.name for folder in sub.with_images() if folder.path in parts]

    def take(self, folder: Folder, part: int) -> None:
        """All images in and below a class folder."""
        name, inside = class_name(folder.name), class_folders_in(folder)
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
            self.extra += [other for other in folder.with_images() if other is not sub]
            folder = sub
        return folder

    def wrapped(self, folder: Folder, in_part: bool) -> Folder | None:
        """The folder that holds everything that counts in `folder`, if one does."""
        subs = folder.with_images()
        containers = [sub for sub in subs if sub.name.lower() in IMAGE_FOLDERS and len(sub.with_images()) > 1]
        if len(containers) == 1 and not any(sub.with_images() for sub in subs if sub is not containers[0]):
            return containers[0]
        if len(subs) != 1 or len(folder.images) > len(subs[0].all_images()):
            return None
        sub = subs[0]
        inside = sub.with_images()
        if not inside:
            says_nothing = sub.name.lower() in IMAGE_FOLDERS or _folded(sub.name) == _folded(folder.name or self.name)
            return sub if says_nothing or (in_part and part_and_rest(sub.name) is not None) else None
        below = sum(len(deeper.all_images()) for deeper in inside)
        if sub.images and (len(inside) == 1 or len(sub.images) > below):
            return None  # a class with folders of its own
        return sub

    def set_annotations_aside(self) -> list[Folder]:
        """Take masks and the like, folders and images beside those that they belong to, out of the tree."""
        aside: list[Folder] = []
        for folder in self.tree.walk():
            beside = [sub for sub in folder.folders if sub.name.lower() not in ANNOTATION_FOLDERS]
            if len(beside) < len(folder.folders):
                names = {sub.name.lower() for sub in beside}
                deeper = {lower.name.lower() for sub in beside for lower in sub.folders}
                if (names | deeper) & IMAGE_FOLDERS or any(part_of(name) == UNDECIDED for name in names):
                    aside += [sub for sub in folder.with_images() if sub not in beside]
                    folder.folders = beside
            stems = {stem(path) for path in folder.images}
            masks = {path for path in folder.images if (of := MASK.fullmatch(stem(path))) and of[1] in stems}
            self.masks += sorted(masks, key=natural)
            folder.images = [path for path in folder.images if path not in masks]
        return aside

    # --- names --------------------------------------------------------------------------------------------------

    def own_name(self, level: Folder) -> str:
        """The name of a class without a folder of its own: that of the nearest folder whose name says what it holds."""
        for piece in reversed(level.path.split("/")):
            words = {word.lower() for word in words_of(piece)}
            if words - IMAGE_FOLDERS - PLAIN_WORDS and part_of(piece) is None:
                return class_name(piece)
        return class_name(self.name)

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

    def say(self, kind: str, annotations: list[Folder]) -> None:
        groups, notices = self.layout.groups, self.layout.notices
        images = counted(sum(len(group.paths) for group in groups), "image")
        names = {group.name for group in groups}
        if len(names) == 1:
            self.layout.one_class = True
            text = f"{kind}: {images} of one class, {next(iter(names))!r}"
        else:
            text = f"{kind}: {images} in {counted(len(names), 'class')}"
        self.layout.understood = "; ".join([text, *said_parts({group.part for group in groups})])
        for folders, why in (
            (self.unlabelled, "without labels"),
            (self.extra, "in other folders"),
            (annotations, "in folders of annotations or thumbnails"),
        ):
            if folders:
                numbers = [len(folder.all_images()) for folder in folders]
                texts = [f"{folder.path}: {number:,}" for folder, number in zip(folders, numbers, strict=True)]
                notices.append(f"left out: {counted(sum(numbers), 'image')} {why} ({shorten(texts)})")
        if self.loose:
            notices.append(
                f"left out: {counted(len(self.loose), 'image')} outside class folders ({shorten(self.loose, 3)})"
            )
        if self.masks:
            notices.append(
                f"left out: {counted(len(self.masks), 'image')} named as masks of others beside them "
                f"({shorten(self.masks, 3)})"
            )
        if self.empty:
            notices.append(f"left out: {counted(len(self.empty), 'folder')} without images ({shorten(self.empty)})")
        if self.deeper:
            text = f"folders inside class folders are not taken as classes: {shorten(self.deeper, 3)}"
            notices.append(f"{text}; if they are, move all of them into one folder")
        if self.layout.one_class and (words := name_words(groups[0].paths)):
            notices.append(
                f"file names contain {shorten(words)}: if these are classes, sort the images into a folder for each"
            )


def promote(groups: list[Group]) -> list[Group]:
    """Without a training part, the part that comes nearest to it is divided as if it named none."""
    first = min(group.part for group in groups)  # UNDECIDED, or else SELECT, or else HELD_OUT
    return [group._replace(part=UNDECIDED if group.part == first else group.part) for group in groups]


def name_words(paths: list[str]) -> list[str]:
    """The words before or behind the numbers of file names, if they are few: cat.0.jpg and 0_dog.jpg -> cat, dog."""
    for number in (r"[\W_]*\(?[0-9]+\)?$", r"^[\W\d_]+|[\W\d_]+$"):
        words = Counter(re.sub(number, "", stem(path)) for path in paths)
        several = 2 <= len(words) <= len(paths) / 5 and min(words.values()) >= 5
        if several and all(re.search(r"[^\W\d_]", word) for word in words):
            return sorted(words, key=natural)
    return []


def stem(path: str) -> str:
    """A file's name without its ending."""
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def _is_sharded(level: Folder) -> bool:
    """Whether the folders only divide many images: 00000 and 01000, part_1 and part_2, any numbers and dataset.json."""
    subs = level.with_images()
    if len(subs) < 2 or any(class_folders_in(sub) for sub in subs):
        return False
    names = [sub.name for sub in subs]
    if all(map(OF_CAMERA.fullmatch, names)):
        return True
    if all(name.isdecimal() for name in names):
        has_list = any(path.rpartition("/")[2].lower() == "dataset.json" for path in level.others)
        return has_list or all(len(name) > 3 and int(name) % 1000 == 0 for name in names)
    return _is_numbered(names) and not SHARD_WORDS.isdisjoint(word.lower() for word in words_of(names[0]))


def _is_numbered(names: Iterable[str]) -> bool:
    """Whether only numbers tell the names apart: 2019 and 2020, fold1 and fold2."""
    return len({re.sub("[0-9]+", "", name).casefold() for name in names}) == 1


def _inside(folder: Folder) -> tuple[set[str], bool]:
    """The names of the folders in a folder that could be classes, and whether these lie in a training part there."""
    while len(subs := folder.with_images()) == 1 and not folder.images:
        folder = subs[0]
    parts = find_parts(folder)
    if parts is None:
        return {_folded(sub.name) for sub in subs}, False
    in_train = [sub for part in subs if parts.get(part.path) == UNDECIDED for sub in class_folders_in(part)]
    return {_folded(sub.name) for sub in in_train}, bool(in_train)


def _is_copy(folder: Folder, classes: set[str]) -> bool:
    """Whether a folder beside classes holds the same classes again: cat, dog and generated/cat, generated/dog."""
    inside = {_folded(sub.name) for sub in folder.with_images()}
    return len(inside) > 1 and inside <= classes - {_folded(folder.name)}


def _without_images(folder: Folder) -> list[str]:
    return [sub.path for sub in folder.folders if not any(deeper.images or deeper.unlisted for deeper in sub.walk())]


def _folded(name: str) -> str:
    return class_name(name).casefold()


def _within(level: Folder) -> str:
    return f" in {level.path}/" if level.path else ""


def _joined(folders: list[Folder]) -> str:
    """'train/, val/ and test/'."""
    *names, last = [f"{folder.path}/" for folder in folders]
    return f"{', '.join(names)} and {last}" if names else last
