"""The three things that travel between modules, and the one error that users see."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class UserError(Exception):
    """A fault that the user can mend: one line that says what was wrong, where, and what to do.

    `code` names the kind of fault and stays the same when the wording changes.  The command line prints the line and
    the code without a stack trace, and exits with `status`.
    """

    code = "user-error"
    status = 2
    of_one_rank = False  # one of several ranks met it, and the others did not

    def __init__(self, text: str, code: str | None = None) -> None:
        super().__init__(text)
        self.code = code or self.code


def unknown(what: str, name: str, choices: Iterable[str]) -> UserError:
    """An error that lists the choices, and names the nearest one where there is one."""
    choices = list(choices)
    near = difflib.get_close_matches(name, choices, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {what} {name!r}: {hint}choose one of {', '.join(choices)}", "unknown-name")


def shorten(names: list[str], most: int = 5) -> str:
    """The first names as a list in words: 'a, b, c and 4 more'."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@dataclass(frozen=True)
class ImageSpec:
    """What the data decide: the shape of an image, and the classes by name."""

    height: int
    width: int
    channels: int  # 1 grey, 3 RGB, 4 RGBA
    class_names: tuple[str, ...]

    @property
    def classes(self) -> int:
        return len(self.class_names)

    def label(self, name: str) -> int:
        """The label of a class name; raises UserError with the known names."""
        if name not in self.class_names:
            raise unknown("class", name, self.class_names)
        return self.class_names.index(name)


class Batch(NamedTuple):
    images: Tensor  # [N, C, H, W] float in [-1, 1]
    labels: Tensor  # [N] int64


class DiscriminatorOutput(NamedTuple):
    features: Tensor  # [N, F]
    logits: Tensor  # [N], the source: real against fake
    # and where the conditioning has them:
    class_logits: Tensor | None = None  # [N, K]; [N, 2K] of discriminative_classifier, real classes before generated
    twin_logits: Tensor | None = None  # [N, K], of the classifier of generated images
    embedding: Tensor | None = None  # [N, E], of length 1
    proxy: Tensor | None = None  # [N, E], of length 1: that of the image's label
