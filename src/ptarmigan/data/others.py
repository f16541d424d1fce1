"""What is said of files that are no images: tables that give no labels, archives, and files of other formats."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable

from ptarmigan.core.types import UserError, counted, shorten
from ptarmigan.data.decode import FORMATS
from ptarmigan.data.disk import Disk
from ptarmigan.data.idx import IDX_IMAGES
from ptarmigan.data.labels import TABLES
from ptarmigan.data.layout import ANNOTATION_FOLDERS, Layout, stem
from ptarmigan.data.scan import Scan
from ptarmigan.data.storage import Storage
from ptarmigan.data.tables import SPREADSHEETS

READ = ", ".join(FORMATS).replace("WEBP", "WebP")
SUPPORTED = f"expected class folders or images ({READ}), IDX files (train-images-idx3-ubyte[.gz]) or an .npz"
ARCHIVES = (
    ".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".parquet",
)  # fmt: skip
DATA_FILES = (".arrow", ".h5", ".hdf5", ".mdb", ".tfrecord", ".tfrec")
HINTS = (  # endings of files that are no images -> what to do
    ((".npz",), "give the path of the .npz file"),
    (ARCHIVES, "archives of these kinds are not read: unpack them first"),
    ((*DATA_FILES, ".mat"), "files of these kinds are not read: save the images in them as files, or as an .npz"),
    (TABLES, "pixels in tables are not read: save images and labels by numpy.savez, and give that .npz"),
    ((".heic", ".heif"), "export them as JPEG"),
    ((".svg",), "draw them as PNG, for example with `rsvg-convert -w 64 x.svg -o x.png`"),
)
LABEL_TABLES = (*TABLES, *SPREADSHEETS, ".mat")
LABEL_TEXTS = (".json", ".txt", ".xml", ".lst", ".yaml", ".yml", ".cls")
DOCUMENTS = (".md", ".rst", ".pdf", ".htm", ".html", ".doc", ".docx", ".rtf", ".log", ".py", ".ipynb", ".sh")
LABEL_WORDS = re.compile("label|class|anno|metadata|dataset|target|categor|attribute|caption", re.IGNORECASE)
SEARCHED_FILES = 100  # texts in which the names of image files are looked for
SEARCHED_BYTES = 1 << 16  # of each


def no_images(storage: Storage, found: Scan, others: list[str]) -> UserError:
    """The error for a folder or archive without a single image: what was looked for, and what was found."""
    kinds = Counter(map(_suffix, others))
    hint = ""
    if not isinstance(storage, Disk):
        if any(_suffix(path) in (*ARCHIVES, ".npz") or IDX_IMAGES.fullmatch(base(path)) for path in others):
            hint = " (arrays and archives in an archive are not read: unpack it, and give the file or folder in it)"
    else:
        hint = hint_for(kinds)
    text = f"{storage.root} has no images: {SUPPORTED}; found {_listed(kinds) or 'nothing'}{hint}"
    return UserError("; ".join([text, *found.notices]), "file-unreadable" if found.unreadable else "no-images")


def hint_for(endings: Iterable[str]) -> str:
    """What to do with files of these endings, in parentheses."""
    return next((f" ({hint})" for kinds, hint in HINTS if not set(kinds).isdisjoint(endings)), "")


def notices_of_others(storage: Storage, images: list[str], others: list[str], layout: Layout) -> list[str]:
    """On files that are no images: what may hold labels, such as labels.csv, what may hold images, and the rest."""
    names = {base(path) for path in images}
    stems = {stem(name) for name in names}
    names |= {name for name in stems if len(name) > 4}  # a short one, such as 17, stands in many texts
    tables: list[str] = []
    beside: Counter[str] = Counter()
    packed: list[str] = []
    kinds: Counter[str] = Counter()
    searched = 0
    for path in others:
        suffix = _suffix(path)
        if base(path).lower().startswith("readme"):
            continue
        if suffix in LABEL_TABLES + LABEL_TEXTS and stem(path) in stems:
            beside[suffix] += 1
        elif suffix in LABEL_TABLES:
            tables.append(path)
        elif suffix in (*ARCHIVES, *DATA_FILES, ".npz", ".npy") or IDX_IMAGES.fullmatch(base(path)):
            packed.append(path)
        elif suffix in LABEL_TEXTS:
            searched += 1
            if searched <= SEARCHED_FILES and _may_hold_labels(storage, path, names):
                tables.append(path)
        elif suffix not in DOCUMENTS and base(path).lower() != "license":
            kinds[suffix] += 1
    notices = []
    if tables or beside:
        found = tables + [f"{counted(n, f'{suffix} file')} named as images" for suffix, n in beside.most_common()]
        taken = f"the classes are those of {layout.classes_from}"
        if layout.one_class:
            taken = "all images are one class; to have classes, give a CSV with the path and the label of each image, "
            taken += "or sort the images into a folder for each class"
        notices.append(f"labels in files are not read ({shorten(found, 3)}): {taken}")
    if packed:
        notices.append(f"archives and arrays are not read ({shorten(packed, 3)})")
    if kinds:
        notices.append(f"left out: {counted(kinds.total(), 'file')} of other formats ({_listed(kinds)})")
    return notices


def _may_hold_labels(storage: Storage, path: str, image_names: set[str]) -> bool:
    """Whether a file's name or folder says that it holds labels, or its first bytes name an image file."""
    if LABEL_WORDS.search(stem(path)) or path.rpartition("/")[0].rpartition("/")[2].lower() in ANNOTATION_FOLDERS:
        return True
    try:
        with storage.open(path) as file:
            text = file.read(SEARCHED_BYTES).decode("utf-8", "replace")
    except OSError:
        return False
    return any(word in image_names for word in re.findall(r"[^\s,;:\"'/\\<>|\[\]{}()]+", text))


def _listed(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind or 'without an ending'}" for kind, count in kinds.most_common(5))


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def base(path: str) -> str:
    return path.rpartition("/")[2]
