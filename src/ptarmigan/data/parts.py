"""Which folders are parts of a data set: train, val and test, however they are written."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache

from ptarmigan.data.arrays import HELD_OUT, PART_WORDS, SELECT, UNDECIDED
from ptarmigan.data.storage import Folder

# Words that may stand beside a word of PART_WORDS: train_images, seg_train, Final_Test.
PLAIN_WORDS = {
    "set", "data", "dataset", "image", "images", "img", "imgs", "jpg", "jpeg", "png", "photos", "pictures", "files",
    "folder", "dir", "split", "part", "seg", "stage", "final", "resized", "cropped", "processed", "raw",
}  # fmt: skip
UNLABELLED = {"unlabeled", "unlabelled", "unsup", "unsupervised"}


def find_parts(folder: Folder) -> dict[str, int] | None:
    """{path of a sub-folder: its part} if the sub-folders are parts, else None.

    They are parts if training and other parts lie beside each other, whatever else does, or if all of them are named as
    parts.  A folder `train` beside others is a part if it alone has class folders, else a class: trains are a usual
    class.  One folder of any name that has class folders is the training part of those beside it, if all of these are
    named as val or test parts: flowers/ and flowers_test/.
    """
    if not folder.folders:
        return None
    subs = [sub for sub in folder.with_images() if not is_unlabelled(sub)]
    named = {sub.path: found for sub in subs if (found := part_and_rest(sub.name)) is not None}
    parts_of_rest: defaultdict[str, set[int]] = defaultdict(set)
    for part, rest in named.values():
        parts_of_rest["_".join(rest).lower()].add(part)
    # cars_train is a part only beside another part of cars, such as cars_test
    parts = {
        path: part for path, (part, rest) in named.items() if not rest or len(parts_of_rest["_".join(rest).lower()]) > 1
    }
    kinds = set(parts.values())
    if len(parts) == len(subs) or (UNDECIDED in kinds and len(kinds) > 1):
        return parts or None
    unnamed = [sub for sub in subs if sub.path not in named]
    if len(unnamed) == 1 < len(subs) and class_folders_in(unnamed[0]):
        words = {word.lower() for word in words_of(unnamed[0].name)}
        if all(part != UNDECIDED and words.issuperset(map(str.lower, rest)) for part, rest in named.values()):
            return {unnamed[0].path: UNDECIDED} | {path: part for path, (part, _) in named.items()}
    nested = any(len(sub.with_images()) > 1 for sub in subs if parts.get(sub.path) == UNDECIDED)
    return parts if nested and not any(sub.with_images() for sub in subs if sub.path not in parts) else None


def words_of_part(name: str) -> int | None:
    """The part that a name says, whatever else it says: train_labels."""
    found = part_and_rest(name)
    return None if found is None else found[0]


def part_of(name: str) -> int | None:
    """The part that a folder's name stands for, if it says nothing else."""
    found = part_and_rest(name)
    return None if found is None or found[1] else found[0]


@cache
def part_and_rest(name: str) -> tuple[int, tuple[str, ...]] | None:
    """The part that a folder's name stands for, and its other words; None if it names no part or several."""
    pieces = {re.sub(r"(?<=.)(set|data|images|imgs|集)$", "", word.lower()): word for word in words_of(name)}
    parts = {PART_WORDS[piece] for piece in pieces if piece in PART_WORDS}
    if len(parts) != 1:
        return None
    return parts.pop(), tuple(pieces[piece] for piece in pieces if piece not in PART_WORDS and piece not in PLAIN_WORDS)


def words_of(name: str) -> list[str]:
    """The words of a name: GTSRB_Final_Training, trainA -> GTSRB, Final, Training; train, A."""
    text = re.sub(r"(hold|held)[-_ ]out", r"\1out", name, flags=re.IGNORECASE)
    return re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))


def said_parts(parts: set[int]) -> list[str]:
    """What to say about the parts that the source names."""
    said = ((SELECT, "val is the select part"), (HELD_OUT, "test is held out"))
    return [words for part, words in said if part in parts]


def is_unlabelled(folder: Folder) -> bool:
    name = folder.name.lower()
    return any(word in name for word in UNLABELLED) and set(words_of(name)) <= UNLABELLED | PLAIN_WORDS


def class_folders_in(folder: Folder) -> list[Folder]:
    """The folders in a folder, or in the folder that it only wraps; none if there are no two."""
    while len(subs := folder.with_images()) == 1 and not folder.images:
        folder = subs[0]
    return subs if len(subs) > 1 else []
