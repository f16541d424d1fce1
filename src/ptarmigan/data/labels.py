"""Labels of image files that are not in folders of their own: from tables, or from a file beside each image."""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ptarmigan.config import Data
from ptarmigan.core.types import UserError, class_name, counted, natural, shorten
from ptarmigan.data.arrays import UNDECIDED, class_names_in, names_of_labels
from ptarmigan.data.layout import Group, Layout, promote, stem
from ptarmigan.data.parts import said_parts, words_of, words_of_part
from ptarmigan.data.scan import NAMED_AS_IMAGE
from ptarmigan.data.tables import Files, Named, listed, name_files, plain, read_table

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")  # always read
LISTS = (".json", ".txt", ".lst")  # read where they name an image
BESIDE = (".cls", ".txt", ".json")  # x.cls beside x.png
LABEL_NAMES = {
    "label", "labels", "labelname", "labelid", "class", "classname", "classid", "cls", "category", "categoryname",
    "categoryid", "target", "diagnosis", "dx", "species", "breed", "groundtruth", "标签", "类别",
}  # fmt: skip
SPLIT_NAMES = {"split", "subset", "set", "partition", "part", "phase", "usage"}
SPLITS = {"split", "splits", "partition"}  # in the names of tables
NO_LABELS = {"keep", "reason", "", "unnamed0", "index"}  # beside the columns of paths, parts and groups
NAME_FILES = ("classes.txt", "class_names.txt", "label_names.txt", "label_names")
KEPT = {"": True, "1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
MOST_BYTES = 4096  # of a file beside an image
MANY = 100  # rows from which on a label for each image is no class
HOT = {"0", "1", "0.0", "1.0", "-1", "-1.0"}  # in one-hot columns; some sets write -1 for 0
MOST_LISTS = 100  # of JSONs and texts that are searched for names of images
Read = Callable[[str], bytes]


@dataclass
class Labels:
    """What tables or files beside the images say about them."""

    where: str  # the tables, or the kind of files, for messages
    folder: str = ""  # of the table
    said: str = ""  # where in them the labels are; empty if there are none
    column: str = ""  # of the labels, if one is
    label: dict[str, str] = field(default_factory=dict)  # path -> label
    part: dict[str, int] = field(default_factory=dict)  # path -> part, of the files for which they say it
    group: dict[str, str] = field(default_factory=dict)  # path -> what `Data.group`, a column, says
    named: set[str] = field(default_factory=set)  # files that they name
    keeps: bool = False  # they say which files to keep
    rejected: set[str] = field(default_factory=set)  # files with keep 0
    missing: list[str] = field(default_factory=list)  # files that they name and that are not there
    of_part: int | None = None  # the part that the table's name says
    why_not: UserError | None = None  # why the labels are not certain


class Finder:
    """Finds the labels of the image files of a folder."""

    def __init__(self, images: Iterable[str], others: Iterable[str], read: Read, data: Data) -> None:
        self.files, self.others, self.read, self.data = Files(images), set(others), read, data
        self.unused: dict[str, str] = {}  # table -> why it gives no labels
        self.used: set[str] = set()  # files that were read for labels and names

    def given(self, content: bytes, where: str, folder: str) -> Labels:
        """The labels of the table that `--labels` names; raises UserError where they are not certain."""
        table, data = read_table(content, where, folder, self.files), self.data
        column = None if data.path_column is None else table.named(data.path_column, "path_column")
        named = name_files(table, self.files, column)
        if named is None or not (any(named.paths) or named.unclear):
            text = f"no column of {where} names the images" if column is None else f"column {column} names no image"
            example = next(iter(sorted(self.files.paths, key=natural)), "")
            text += f", which are called {example} and the like; its columns are {listed(table.columns)}"
            raise UserError(f"labels: {text}", "labels-invalid")
        if named.unclear:
            text = f"labels: {where} names {named.unclear[0]!r}, which may be {_either(self.files, named)}"
            raise UserError(f"{text}: write the path from the data folder on", "labels-invalid")
        found = self.of_table(named)
        if not (found.said or found.keeps or found.group):
            assert found.why_not is not None
            raise UserError(f"labels: {found.why_not}", found.why_not.code)
        return found

    def beside(self) -> Labels | None:
        """The labels of the tables in the folder, or of the files beside the images; None where there are none."""
        columns: dict[str, None] = {}
        found = [*self.tables_beside(columns)]
        self.check_columns(columns)
        for one, named in found:  # of few rows, such as test.csv, it may not be certain alone
            like = next(
                (other for other, by in found if other.column and by.table.columns == named.table.columns), None
            )
            if not one.said and like is not None:
                one.label, one.said, one.column = named.values(like.column), like.said, like.column
        useful = [one for one, _ in found if one.said or one.group or one.keeps]
        self.used |= {one.where for one in useful}
        for one, _ in found:
            if one not in useful and one.where.lower().endswith(TABLES):
                self.unused[one.where] = str(one.why_not)
        return self.merged(useful) or self.of_files_beside()

    def tables_beside(self, columns: dict[str, None]) -> Iterator[tuple[Labels, Named]]:
        """The tables in the folder that name images; all columns that are there are added to `columns`."""
        lists = 0
        stems = {stem(path) for path in self.files.paths} if self.others else set()
        for path in sorted(self.others, key=natural):
            ending = posixpath.splitext(path)[1].lower()
            lists += ending in LISTS
            if ending not in TABLES and (ending not in LISTS or lists > MOST_LISTS or stem(path) in stems):
                continue
            if path.rpartition("/")[2] in NAME_FILES:
                continue
            if "submission" in path.lower():
                self.unused[path] = f"{path} is not read, because its name says that its labels are to be filled in"
                continue
            try:
                table = read_table(self.read(path), path, posixpath.dirname(path), self.files)
                columns |= dict.fromkeys(table.columns)
                column = self.data.path_column if self.data.path_column in table.columns else None
                named = name_files(table, self.files, column)
                if named is None:
                    text = f"{path} has no column that names the images (its columns are {listed(table.columns)})"
                    raise UserError(text, "labels-invalid")
                if named.unclear:
                    text = f"{path} names {named.unclear[0]!r}, which may be {_either(self.files, named)}"
                    raise UserError(text, "labels-invalid")
                if ending not in (".txt", ".lst") or all(map(_has_ending, table.column(named.column))):
                    yield self.of_table(named), named
            except (UserError, OSError) as error:
                if ending in TABLES or getattr(error, "code", "") == "labels-several":
                    self.unused[path] = str(error)

    def check_columns(self, columns: dict[str, None]) -> None:
        """Raise UserError (unknown-name) if the user names a column that no table has."""
        for option in ("label_column", "path_column"):
            if (name := getattr(self.data, option)) is not None and name not in columns:
                if option == "label_column" and self.of_files_beside() is not None:
                    continue  # a key of the .json beside each image
                text = f"{option}: no table beside the images has the column {name!r}"
                text += f", but {listed(columns)}" if columns else "; name the table by --labels FILE"
                raise UserError(text, "unknown-name")

    def of_table(self, named: Named) -> Labels:
        table, data = named.table, self.data
        out = Labels(table.where, table.folder, named={path for path in named.paths if path}, missing=named.missing)
        out.of_part = words_of_part(stem(table.where))
        special = {named.column}
        for column in table.columns:
            values = [value.casefold() for value in table.column(column)]
            if plain(column) in SPLIT_NAMES:
                parts = {value: words_of_part(value) for value in table.column(column) if value}
                if parts and None not in parts.values():
                    special.add(column)
                    found = named.values(column).items()
                    out.part = {path: part for path, value in found if (part := parts.get(value)) is not None}
                elif all(map(_is_number, parts)):
                    special.add(column)  # 0, 1 and 2: not classes, and which is which is not said
            elif plain(column) == "keep":
                if unknown := sorted(set(values) - KEPT.keys()):
                    raise UserError(f"{table.where}: keep is {unknown[0]!r}: write 1 or 0", "labels-invalid")
                out.keeps = True
                out.rejected = {path for path, value in named.values(column).items() if not KEPT[value.casefold()]}
            elif column == data.group:
                special.add(column)
                out.group = named.values(column)
        try:
            out.label, columns = self.label_column(named, special)
            out.column = columns[0] if len(columns) == 1 else ""
            out.said = f"column {columns[0]}" if out.column else f"one-hot columns {shorten(columns, 3)}"
        except UserError as error:
            if data.labels is not None and data.label_column is not None:
                raise
            out.why_not = error
        return out

    def label_column(self, named: Named, special: set[str]) -> tuple[dict[str, str], list[str]]:
        """{path: label} and which columns these are from; raises UserError where that is not certain."""
        table, given = named.table, self.data.label_column
        if given is not None and (self.data.labels is not None or given in table.columns):
            column = table.named(given, "label_column")
            return named.values(column), [column]
        columns = [column for column in table.columns if column not in special and plain(column) not in NO_LABELS]
        called = [column for column in columns if plain(column) in LABEL_NAMES]
        labels = {column: named.values(column) for column in called}
        for column in called:
            if len(named.table.rows) >= MANY and len(set(labels[column].values())) > len(labels[column]) / 2:
                text = f"{table.where} has a label of its own for most images in the column {column}"
                raise UserError(f"{text}: give the images of a class one label", "labels-invalid")
        if called and all(_same_division(labels[called[0]], labels[column]) for column in called[1:]):
            column = next((column for column in called if not all(map(_is_number, labels[column].values()))), called[0])
            return labels[column], [column]
        if not called:
            if hot := _one_hot(named, columns):
                return hot
            divide = [column for column in columns if _divides(named.table.column(column))]
            ids = [column for column in columns if len(set(table.column(column))) == len(table.rows)]
            if len(divide) == 1 and len(columns) == 1 + len(ids):  # the others have a text of its own for each image
                values = named.values(divide[0])
                if SPLITS & {*map(str.lower, words_of(stem(table.where)))} and all(map(_is_number, values.values())):
                    text = f"{table.where} is called a split, so its numbers are taken for parts and not for labels"
                    raise UserError(f"{text}; --label-column {divide[0]} takes them for labels", "labels-invalid")
                return values, divide
            if not divide:
                text = f"{table.where} has no column of labels (its columns are {listed(table.columns)})"
                raise UserError(text, "labels-invalid")
            if len(divide) > 1 and all(set(table.column(column)) <= HOT for column in divide):
                text = f"{table.where} gives images several labels, or none, in the columns {listed(divide)}: an image"
                raise UserError(f"{text} needs one label; choose a column by --label-column", "labels-several")
        text = f"{table.where} has several columns that may be the label ({listed(called or columns)})"
        raise UserError(f"{text}: choose one by --label-column", "labels-invalid")

    def merged(self, found: list[Labels]) -> Labels | None:
        """One answer of several tables, such as train.csv and test.csv, if no image has two labels in them."""
        if not found:
            return None
        labelled = [one for one in found if one.said] or found
        where, said = (
            list(dict.fromkeys(texts)) for texts in zip(*((one.where, one.said) for one in labelled), strict=True)
        )
        out = Labels(shorten(where, 3), labelled[0].folder, " and ".join(said))
        by_name = len({one.of_part for one in labelled}) > 1
        for one in found:
            if by_name and one.of_part is not None:
                out.part |= dict.fromkeys(one.named, one.of_part)
            for path, label in one.label.items():
                if out.label.setdefault(path, label) != label:
                    text = f"{shorten(where, 3)} have different labels for {path}: choose one by --labels"
                    self.unused |= dict.fromkeys(where, text)
                    return None
            out.part |= one.part
            out.group |= one.group
            out.named |= one.named
            out.keeps |= one.keeps
            out.rejected |= one.rejected
            out.missing += one.missing
        return out

    def of_files_beside(self) -> Labels | None:
        """The labels in files such as x.cls beside x.png, if most of the images have one."""
        key = self.data.label_column
        for ending in BESIDE if key is None else (".json",):
            if not any(path.endswith(ending) for path in self.others):
                continue
            pairs = {
                path: label_file
                for path in self.files.paths
                for label_file in {posixpath.splitext(path)[0] + ending, until_first_dot(path) + ending}
                if label_file in self.others
            }
            if len(pairs) < 0.9 * len(self.files.paths):
                continue
            labels = {path: label_in(self.read(label_file), ending, key) for path, label_file in pairs.items()}
            found = {path: label for path, label in labels.items() if label}
            if len(found) < 0.9 * len(labels) or not 1 < len(set(found.values())) <= len(found) / 2:
                continue
            self.used |= set(pairs.values())
            said = "its label" if ending == ".json" else "its text"
            return Labels(f"a {ending} file beside each image", said=said, label=found, named=set(pairs))
        return None

    # --- the layout ------------------------------------------------------------------------------------------------

    def applied(self, labels: Labels, layout: Layout | None) -> Layout:
        """The layout with these labels in place of its own; raises UserError if they leave no image."""
        before = {path: group for group in layout.groups for path in group.paths} if layout else {}
        labelled = bool(labels.said)
        of = labels.label if labelled else {path: before[path].name for path in labels.named & before.keys()}
        taken = {path: label for path, label in of.items() if label and path not in labels.rejected}
        if not taken:
            raise UserError(f"labels: {labels.where} leaves no image with a label", "labels-invalid")
        names, order, renamed = self.names(taken, labels) if labelled else ({}, [], "")
        paths: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        for path, label in taken.items():
            part = labels.part.get(path, before[path].part if path in before else UNDECIDED)
            paths[names.get(label, label), part].append(path)
        groups = promote([Group(name, part, found) for (name, part), found in paths.items()])
        classes = {group.name for group in groups}
        images = counted(len(taken), "image")
        text = f"{images} of one class, {next(iter(classes))!r}" if len(classes) == 1 else ""
        text = text or f"{images} in {counted(len(classes), 'class')}"
        source = f"labels from {labels.where} ({labels.said})" if labelled else f"class folders and {labels.where}"
        facts = [f"{source}: {text}", renamed, *said_parts({group.part for group in groups})]
        understood, from_where = "; ".join(filter(None, facts)), labels.where if labelled else "the folders"
        return Layout(groups, understood, self.left_out(labels, of), len(classes) == 1, from_where, order)

    def names(self, taken: dict[str, str], labels: Labels) -> tuple[dict[str, str], list[str], str]:
        """The class name of each label, the classes in order, and what to say about the names."""
        distinct = set(taken.values())
        if not all(map(_is_number, distinct)):
            names = {label: class_name(label) for label in distinct}
            return names, sorted(set(names.values()), key=natural), ""
        number = {label: int(float(label)) for label in distinct}
        values = sorted(set(number.values()))
        folders = dict.fromkeys([labels.folder, ""])
        found = [posixpath.join(folder, name) for folder in folders for name in NAME_FILES]
        file = next((path for path in found if path in self.others), None)
        given: list[str] | dict[int, str] | None = None
        if file is not None:
            self.used.add(file)
            given = class_names_in(self.read(file))
        names_of, said = names_of_labels(values, given, file or "", labels.where)
        if isinstance(given, list):
            said = "; ".join(filter(None, [f"names from {file}", said]))
        by_value = dict(zip(values, names_of, strict=True))
        return {label: by_value[number[label]] for label in distinct}, names_of, said

    def left_out(self, labels: Labels, of: dict[str, str]) -> list[str]:
        """What is not used of the images, and what is missing, in sentences."""
        out = []
        unlabelled = labels.named - labels.rejected - {path for path, label in of.items() if label}
        for paths, why in (
            (self.files.paths - labels.named, f"that {labels.where} does not name"),
            (labels.rejected, f"with keep 0 in {labels.where}"),
            (unlabelled, f"without a label in {labels.where}" if labels.said else "outside class folders"),
        ):
            if paths:
                some = shorten(sorted(paths, key=natural), 3)
                out.append(f"left out: {counted(len(paths), 'image')} {why} ({some})")
        several = [path for path, label in of.items() if _is_several(label, known)] if (known := {*of.values()}) else []
        if several:
            some = f"{several[0]}: {of[several[0]]}"
            out.append(f"{counted(len(several), 'image')} with several labels ({some}): each such set is its own class")
        if labels.missing:
            some = shorten(sorted(dict.fromkeys(labels.missing), key=natural), 3)
            out.append(f"missing: {counted(len(set(labels.missing)), 'file')} that {labels.where} names ({some})")
        return out


def compared(labels: Labels, layout: Layout) -> tuple[str, str]:
    """What to say where the folders have classes and a table has labels too: (a fact that agrees, a notice)."""
    folder = {path: group.name for group in layout.groups for path in group.paths}
    common = sorted((path for path in folder if labels.label.get(path)), key=natural)
    if not common:
        return "", ""
    names = {class_name(labels.label[path]).casefold() for path in common}
    if len(names & {folder[path].casefold() for path in common}) * 2 >= len(names):
        meant = {name: name.casefold() for name in folder.values()}
    else:  # other words for the same classes, such as numbers: the most frequent label in each folder
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for path in common:
            counts[folder[path]][class_name(labels.label[path]).casefold()] += 1
        meant = {name: count.most_common(1)[0][0] for name, count in counts.items()}
    other = [path for path in common if class_name(labels.label[path]).casefold() != meant[folder[path]]]
    if not other and len(set(meant.values())) == len(meant):
        return f"the labels in {labels.where} agree", ""
    if len(set(meant.values())) < len(meant):
        text = f"the labels in {labels.where} ({labels.said}) divide the images otherwise"
    else:
        text = f"{labels.where} ({labels.said}) has another label for {len(other):,} of {counted(len(common), 'image')}"
        text += f" ({other[0]}: {labels.label[other[0]]})"
    return "", f"the classes are those of the folders, but {text}; --labels FILE uses the labels of a table instead"


def until_first_dot(path: str) -> str:
    """The name that WebDataset gives a sample: 0001 of 0001.left.png."""
    folder, _, name = path.rpartition("/")
    return posixpath.join(folder, name.partition(".")[0])


def label_in(content: bytes, ending: str, given: str | None) -> str:
    """The label in a file beside an image; '' if it holds something else, such as boxes or several lines."""
    try:
        text = content[:MOST_BYTES].decode("utf-8-sig").strip()
        if ending == ".json":
            found = json.loads(text)
            wanted = [given] if given is not None else [key for key in found if plain(key) in LABEL_NAMES]
            keys = [key for key in wanted if key in found] if isinstance(found, dict) else []
            return str(found[keys[0]]).strip() if keys and isinstance(found[keys[0]], str | int) else ""
    except (ValueError, RecursionError):
        return ""
    boxes = re.fullmatch(r"\S+(\s+-?[\d.]+){4,}", text)
    return "" if "\n" in text or boxes or len(text) > 200 else text


def _has_ending(path: str) -> bool:
    return path.lower().endswith(NAMED_AS_IMAGE)


def _is_number(label: str) -> bool:
    return re.fullmatch(r"-?\d{1,15}(\.0+)?", label) is not None


def _is_several(label: str, known: set[str]) -> bool:
    """Whether a label joins others that images have alone: 'rust|scab' beside 'rust' and 'scab'."""
    pieces = re.split(r"\s*[|;,]\s*|\s+", label)
    return len(pieces) > 1 and known.issuperset(pieces)


def _same_division(one: dict[str, str], other: dict[str, str]) -> bool:
    """Whether two columns divide the files in the same way, as the numbers and the names of the classes do."""
    pairs = {(one[path], other[path]) for path in one}
    return len(pairs) == len({first for first, _ in pairs}) == len({second for _, second in pairs})


def _divides(values: list[str]) -> bool:
    """Whether a column can be that of the labels: few texts for many images, and no measures such as 0.25."""
    found = [value for value in values if value]
    measures = all(re.fullmatch(r"-?\d*\.?\d+([eE][-+]?\d+)?", value) for value in found)
    return 1 < len(set(found)) <= len(found) / 2 and (not measures or all(map(_is_number, found)))


def _one_hot(named: Named, columns: Sequence[str]) -> tuple[dict[str, str], list[str]] | None:
    """The labels of columns of 0 and 1 of which exactly one is 1 in each row."""
    values: dict[str, dict[str, str]] = {}
    for column in columns:
        if set(named.table.column(column)) <= HOT:
            values[column] = named.values(column)
    hot = list(values)
    if len(hot) < 2:
        return None
    label: dict[str, str] = {}
    for path in values[hot[0]]:
        ones = [column for column in hot if float(values[column][path]) == 1]
        if len(ones) != 1:
            return None
        numbered = re.fullmatch(r".*\[(\d+)\]", ones[0])
        label[path] = numbered[1] if numbered else ones[0]
    return label, hot


def _either(files: Files, named: Named) -> str:
    found = sorted(files.find(named.unclear[0], named.table.folder), key=natural)
    return " or ".join(found[:2])
