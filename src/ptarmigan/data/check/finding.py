"""What a check finds: one kind of fault or peculiarity, the images that have it, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ptarmigan.core.types import shorten

SEVERITIES = ("error", "warning", "note")
EXAMPLES = 3  # paths that a sentence names
SHOWN = 24  # sets of pictures of one finding


@dataclass(frozen=True)
class Finding:
    """One kind of fault in a data set.

    error: the images are lost, or labels or scores are wrong.  warning: the images are likely to make the result worse.
    note: `train` converts the images, and nothing is wrong with them.
    """

    code: str  # in kebab-case; stays the same when the wording changes
    severity: str  # one of SEVERITIES
    text: str  # what was found and how often
    count: int
    where: tuple[str, ...] = ()  # the paths, or for arrays the positions, of all that have it
    train: str = ""  # what `train` does about it
    remedy: str = ""  # what mends it
    pictures: tuple[tuple[int, ...], ...] = ()  # indices of the images to show, one tuple for each of the first `where`
    captions: tuple[str, ...] = ()  # what else is said of each tuple of `pictures`
    drop: dict[str, str] = field(default_factory=dict)  # path -> why `--fix` leaves it out

    @property
    def examples(self) -> str:
        return shorten([*self.where], EXAMPLES)


def by_severity(findings: Sequence[Finding]) -> list[Finding]:
    """Errors first, then warnings, then notes; of one severity, the most frequent first."""
    return sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), -finding.count))


def pictures_of(paths: Sequence[str], index: Mapping[str, int]) -> tuple[tuple[int, ...], ...]:
    """The first SHOWN of the images at paths, each alone; index: path -> position in the data set, if it is there."""
    return tuple((index[path],) if path in index else () for path in paths[:SHOWN])
