"""The types that every package uses: the images' shape, a batch, D's output, and the error that users see."""

from __future__ import annotations

import difflib
import re
import reprlib
import textwrap
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


LEAST_SIDE, MOST_SIDE = 16, 512  # pixels of the height and the width that networks can be made for
COLOURS = {1: "grey", 3: "RGB", 4: "RGBA"}  # what images of so many channels are called
COLOURS_IN_WORDS = {1: "grey", 3: "colour", 4: "colour with transparency"}

OnProgress = Callable[[str, int, int | None], object]
"""What a slow task calls as it goes on: (what it does, items done, items in all or None where that is unknown)."""


class UserError(Exception):
    """A fault that the user can fix: one line that says what was wrong, where, and what to do.

    `code` names the kind of fault and stays the same when the wording changes (docs/errors.md lists all codes).  The
    command line prints the text and the code without a stack trace, and exits with `status`.
    """

    code = "user-error"
    status = 2
    of_one_rank = False  # may be raised on one of several ranks only, so that rank prints it
    run: Path | None = None  # the run folder, where the same command resumes the run

    def __init__(self, text: str, code: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.code = code or self.code

    def _render_traceback_(self) -> list[str]:
        """What IPython and notebooks show, in place of a stack trace."""
        return [f"{type(self).__name__}: {self} [{self.code}]"]

    def __str__(self) -> str:
        if self.run is None:
            return self.text
        return f"{self.text}; resume with train(..., out={str(self.run)!r})"


class OutputFailed(OSError):
    """Standard output or standard error cannot be written: its disk is full, or its reader has gone (EPIPE)."""


MOST_NAMES = 20  # that a message lists


def unknown(what: str, name: object, choices: Iterable[str]) -> UserError:
    """An error that suggests the nearest choice if there is one, and lists at most 20 choices."""
    if not isinstance(name, str):
        return UserError(f"{what}: expected text, got {shown(name)}", "value-invalid")
    choices, name = list(choices), name[:100]
    near = nearest(name, choices)
    hints = [f"did you mean {near!r}?"] if near is not None else []
    if near is None or len(choices) <= MOST_NAMES:
        hints.append(f"choose one of {shorten(choices, MOST_NAMES)}")
    return UserError(f"unknown {what} {name!r}: {' '.join(hints)}", "unknown-name")


def nearest(name: str, choices: list[str]) -> str | None:
    """The choice that `name` was probably meant to be.

    It is the same in another case, begins with the name, is similarly spelt, contains the name or is contained in it.
    """
    wanted = name.casefold()
    folded = {choice.casefold(): choice for choice in reversed(choices)}
    if wanted in folded or not wanted:
        return folded.get(wanted)
    begins = [choice for choice in folded if choice.startswith(wanted)] or difflib.get_close_matches(wanted, folded, 1)
    found = begins or [choice for choice in folded if wanted in choice or (len(choice) > 2 and choice in wanted)]
    return folded[min(found, key=lambda choice: abs(len(choice) - len(wanted)))] if found else None


def check_whole(what: str, value: object) -> None:
    """Raise UserError (value-invalid) if a value is not a whole number of Python or numpy."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise UserError(f"{what}: expected a whole number, got {shown(value)}", "value-invalid")


def class_name(name: str) -> str:
    """A class name as ptarmigan stores and compares it: in Unicode's form NFC, and always valid text.

    The system hands over bytes of a name that it cannot decode as surrogates (PEP 383): any that are not ASCII in the
    locale C, elsewhere those that are not UTF-8.  Such a name is read as UTF-8 if it is that, and else as Latin-1,
    which most of the others were written in.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        try:
            content = name.encode(errors="surrogateescape")
        except UnicodeEncodeError:  # a surrogate that no byte stands for
            content = name.encode(errors="replace")
        try:
            name = content.decode()
        except UnicodeDecodeError:
            name = content.decode("latin-1")
    return unicodedata.normalize("NFC", name)


def natural(name: str) -> tuple[object, ...]:
    """Sort key: numbers in names compare as numbers, so that 2 comes before 10 and a2 before a10."""
    pieces = re.split(r"([0-9]+)", name)
    return tuple(int(piece) if i % 2 else piece for i, piece in enumerate(pieces)), name


def shown(value: object) -> str:
    """A value as a message shows it, shortened; Python writes no number of more than 4,300 digits."""
    try:
        return reprlib.repr(value)[:100]
    except ValueError:
        return "a number of thousands of digits"


def brief(text: str) -> str:
    """The text with the middle left out of each word of more than 300 characters, such as a number of 1,000 digits."""
    return re.sub(r"(\S{100})\S{150,}(\S{50})", r"\1...\2", text)


def printable(text: str) -> str:
    """The text on one line and without control characters, so that a file or class name cannot forge output.

    Line breaks, terminal escapes, direction marks and lone surrogates are shown as Python escapes them.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def wrapped(text: str, columns: int) -> str:
    """The text in lines of at most so many columns, which break between words: a path or another long word stays whole.

    Lines after the first are indented by two more spaces than the first.
    """
    indent = " " * (len(text) - len(text.lstrip()) + 2)
    return textwrap.fill(text, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def shorten(names: list[str], most: int = 5) -> str:
    """The first names as a list in words: 'a, b, c and 4 more'."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def counted(number: int, what: str) -> str:
    """'1 image', '5,782 images', '2 classes'."""
    return f"{number:,} {what}{'' if number == 1 else 'es' if what.endswith('s') else 's'}"


@dataclass(frozen=True)
class ImageSpec:
    """The shape of the images and the names of the classes, both taken from the data."""

    height: int
    width: int
    channels: int  # 1 grey, 3 RGB, 4 RGBA
    class_names: tuple[str, ...]

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def size(self) -> str:
        """Height x width, as `--size` takes it: 48x64."""
        return f"{self.height}x{self.width}"

    def label(self, name: str) -> int:
        """The label of a class, whose name may be in any form of Unicode, or in bytes that the system could not decode.

        Raises UserError (unknown-name), which lists the classes.
        """
        if name in self.class_names:
            return self.class_names.index(name)
        names = [*map(class_name, self.class_names)]
        if not isinstance(name, str):
            raise unknown("class", name, names)
        if class_name(name) not in names:
            raise unknown("class", class_name(name), names)
        return names.index(class_name(name))

    def labels(self, given: str) -> list[int]:
        """The labels of one class or of several with commas between them; a class may have a comma in its name."""
        names = [*map(class_name, self.class_names)]
        parts = [part.strip() for part in given.split(",")] if isinstance(given, str) else []
        if len(parts) < 2 or class_name(given) in names or not {*map(class_name, parts)} & {*names}:
            return [self.label(given)]
        return [self.label(part) for part in parts]


class Batch(NamedTuple):
    images: Tensor  # [N, C, H, W] float in [-1, 1]; of RGBA the colours are those that are seen on white
    labels: Tensor  # [N] int64


class DiscriminatorOutput(NamedTuple):
    features: Tensor  # [N, F]
    logits: Tensor  # [N], real against fake
    # None unless the conditioning has them:
    class_logits: Tensor | None = None  # [N, K]; discriminative_classifier: [N, 2K], real then generated classes
    twin_logits: Tensor | None = None  # [N, K], from the classifier of generated images
    embedding: Tensor | None = None  # [N, E], unit vectors
    proxy: Tensor | None = None  # [N, E], unit vectors: the proxy of each image's label
