"""The answer about one loss, and in words; no torch needed."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from fractions import Fraction

from ptarmigan.handbook.entries import ENTRIES

WIDTH = 110
UNSEEN = "not to be seen from D's answers: whether G's images were detached, D(G(z).detach())"
SWAPPED, GIVEN = "its targets are swapped", "this is D's loss"  # how a pair with its labels turned over is known


@dataclass(frozen=True)
class Identity:
    """What one callable computes: `scale` times the loss `name` of losses.py, plus `offset`, for an image."""

    function: str
    name: str  # "unknown"; several where one formula is several losses', and + the class term's
    player: str  # D, G; "" of a class term, which both players share
    scale: float
    offset: float
    reduction: str  # none, mean or sum
    on: str  # logits or probabilities
    smoothing: float | None  # D's target for real images, where it is not 1
    class_weight: float | None  # of the class term
    what: str  # in words
    even: float | None = None  # its value at the equilibrium p = q, where that is one number
    wrong: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    code: str = ""  # the right lines, where something is wrong

    @property
    def right(self) -> bool:
        return not self.wrong

    def __str__(self) -> str:
        """The answer in words, at most 110 columns wide."""
        how = [
            self.what.replace(" + -", " - "),
            *([self.reduction] if self.reduction else []),
            f"x\N{NO-BREAK SPACE}{ratio(self.scale)}",
        ]
        if abs(self.offset) > 1e-4:
            how.append(f"offset\N{NO-BREAK SPACE}{self.offset:.4g}")
        if self.even is not None:
            how.append(f"{self.even:.4g}\N{NO-BREAK SPACE}at p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}q")
        end = "." if self.wrong else ": no loss known here." if self.name.startswith("unknown") else ": right."
        start = f"{self.function}: {'WRONG: ' if self.wrong else ''}"
        lines = _wrap(start + ", ".join(how) + end, "")
        for text in self.wrong:
            lines += _wrap(text, "  wrong  ")
        for number, line in enumerate(self.code.splitlines()):
            lines.append(("  want   " if number == 0 else "         ") + line)
        for text in self.notes:
            lines += _wrap(text, "  note   ")
        return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def _wrap(text: str, label: str) -> list[str]:
    text = text if text.endswith((".", "!", ")")) or not label else text + "."
    return textwrap.wrap(
        text, WIDTH, initial_indent=label, subsequent_indent=" " * max(len(label), 4), break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip


def ratio(x: float) -> str:
    """A factor as people write it: 1/2, 2, .37."""
    fraction = Fraction(x).limit_denominator(32)
    return str(fraction) if abs(float(fraction) - x) < 1e-6 * abs(x) and x else f"{x:.4g}"


def code_of(name: str, player: str) -> str:
    """The right line or lines from the handbook."""
    lines = ENTRIES[name].code.split("\n") if name in ENTRIES else []
    start = next((i for i, line in enumerate(lines) if line.startswith(f"L_{player} =")), None)
    if start is None:
        return ""
    end = next((i for i in range(start + 1, len(lines)) if not lines[i].startswith(" ")), len(lines))
    return "\n".join(lines[start:end])
