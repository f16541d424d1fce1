"""Stage 6 of source -> ... -> answer: combine the verdicts into one Identity, in words.

Importing this module does not import torch: the parent process only prints what the child process found.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from ptarmigan.handbook.identify.families import (
    FAMILIES,
    OF_CLASSES,
    ON_PROBABILITIES,
    WITH_TARGET,
    handbook_code,
    handbook_value,
)
from ptarmigan.handbook.identify.sentences import SENTENCES
from ptarmigan.handbook.identify.signature import LossError

if TYPE_CHECKING:
    from ptarmigan.handbook.identify.diagnose import Diagnosis
    from ptarmigan.handbook.identify.measure import Measurement
    from ptarmigan.handbook.identify.verdicts import Verdict

WIDTH = 110
OTHER = "not an adversarial loss"
AUTOENCODER = "the loss of an autoencoder as D (EBGAN, BEGAN), which compares D(x) with x; it is not judged here"
SQUARES = "least_squares_pearson"
MOVED = {"target", "margin", "uneven-halves", "smoothed-fakes", "flipped"}  # notes on another value at equilibrium
TARGET_TITLES = {
    "non_saturating": "cross-entropy", "smoothing": "cross-entropy", "least_squares": "least squares",
    "hinge": "the hinge loss", "wasserstein": "the Wasserstein loss",
}  # fmt: skip


@dataclass(frozen=True)
class Identity:
    """What one callable computes for an image: `scale` times the handbook's loss `name`, plus `offset`."""

    function: str
    name: str  # or "unknown"; "A, B" if both share the formula; followed by " + " and the class term's name
    player: str  # D, G; "" for a class term, which both players share
    scale: float
    offset: float
    reduction: str  # none, mean, sum or other
    on: str  # logits or probabilities
    smoothing: float | None  # D's target for real images, where it is not 1
    class_weight: float | None  # of the class term, relative to D's outputs
    what: str  # in words
    equilibrium_value: float | None = None  # the loss where p = q, where that is one number
    faults: tuple[str, ...] = ()  # codes of what is wrong
    wrong: tuple[str, ...] = ()  # the same in words
    notes: tuple[str, ...] = ()
    code: str = ""  # the correct code, if something is wrong
    sides: tuple[str, ...] = ()  # the outputs of D that it depends on
    turned: Identity | None = None  # the same if both players exchange the labels, where that is better

    def turned_alone(self) -> Identity:
        """The answer where the other player's loss was not judged."""
        return replace(self.turned, notes=(SENTENCES["turned-alone"], *self.turned.notes)) if self.turned else self

    @property
    def owner(self) -> str:
        """The class that it belongs to, or ""."""
        return self.function.split(" ")[0].rpartition(".")[0]

    @property
    def right(self) -> bool:
        return not self.wrong

    def __str__(self) -> str:
        """The answer in words, at most 110 columns wide."""
        known = not self.name.startswith("unknown")
        state = "WRONG: " if self.wrong else "Right: " if known else ""
        what = self.what.replace(" + -", " - ")
        if known and self.equilibrium_value is not None and not self.wrong:
            what += f"; {self.equilibrium_value:.4g} at equilibrium"
        lines = _wrap(f"{self.function}: {state}{what}.", "")
        for text in self.wrong:
            lines += _wrap(text, "  wrong  ")
        for number, line in enumerate(self.code.splitlines()):
            lines.append(("  want   " if number == 0 else "         ") + line)
        for text in self.notes:
            lines += _wrap(text, "  note   ")
        return "\n".join(lines)


def _wrap(text: str, label: str) -> list[str]:
    text = text if text.endswith((".", ")")) or not label else text + "."
    return textwrap.wrap(
        text, WIDTH, initial_indent=label, subsequent_indent=" " * max(len(label), 4), break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip


def ratio(x: float) -> str:
    """A factor as people write it: 1/2, 2, 0.37."""
    fraction = Fraction(x).limit_denominator(32)
    return str(fraction) if abs(float(fraction) - x) < 1e-6 * abs(x) and x else f"{x:.4g}"


def other(name: str, what: str = OTHER) -> Identity:
    """The answer on what is no adversarial loss."""
    return Identity(name, "unknown", "", 0.0, 0.0, "mean", "logits", None, None, what)


def compose(seen: Measurement, diagnosis: Diagnosis, function: str, is_turned: bool = False) -> Identity:
    """Combine the verdicts on the parts of a loss into one answer."""
    source, found = diagnosis.source, diagnosis.faults
    name, what, class_weight = _named(diagnosis)
    if seen.coupled == "other" and not found:
        name = "unknown"
    if any(code == "flat" for code, _ in found):
        if seen.loss.code.inline or seen.loss.trace.calls:
            raise LossError("no output of D reaches it here")
        if "grad(" in seen.loss.code.uses.text or seen.gradients.penalty or seen.loss.trace.extras:
            return other(function)
        if seen.varies:
            raise LossError("it is constant where all images are equal, and not elsewhere")
    if is_turned:  # targets as the user wrote them
        found = [(code, {k: 1 - v if k in ("target", "real", "fake") and isinstance(v, float) else v
                         for k, v in facts.items()}) for code, facts in found]  # fmt: skip
    faults = dict.fromkeys((code, SENTENCES[code].format(**facts)) for code, facts in found)
    on = seen.setup.on if source else seen.setup.class_on
    where = f", on {'lists of ' if seen.setup.form in ('scales', 'nested', 'pairs') else ''}{on}"
    live = tuple(key for key, term in seen.terms.items() if term is None or term.shape != "flat")
    return Identity(
        function=function,
        name=name,
        player=diagnosis.player,
        scale=abs((source or diagnosis.classes[0]).scale),
        offset=0.0 if "unknown" in name else seen.offset + (source.shift if source else 0.0),
        reduction=" and ".join(sorted(set(seen.reductions.values()))),
        on=on,
        smoothing=source.smoothing if source else None,
        class_weight=class_weight,
        what=what if name.startswith("unknown") else what + where,
        equilibrium_value=_equilibrium_value(seen, diagnosis),
        faults=tuple(code for code, _ in faults),
        wrong=tuple(sentence for _, sentence in faults),
        notes=tuple(dict.fromkeys(SENTENCES[code].format(**facts) for code, facts in diagnosis.notes)),
        code=_right_code(seen, diagnosis) if faults and not is_turned else "",
        sides=(seen.half,) if seen.half else live,
        turned=compose(seen, diagnosis.turned, function, True) if diagnosis.turned else None,
    )


def _named(diagnosis: Diagnosis) -> tuple[str, str, float | None]:
    """The name of a loss, the same in words, and the weight of its class term relative to D's outputs."""
    source, classes, player = diagnosis.source, diagnosis.classes, diagnosis.player
    names, titles, class_weight = [], [], None
    if source:
        names.append(source.name)
        titles.append(_title(source, player))
    if classes:
        chosen = min(classes, key=lambda part: part.name != "unknown")
        live = next((part.scale for part in classes if part.scale), None)
        class_weight = round(live / source.scale, 9) if live and source and source.scale else None
        names.append(chosen.name)
        is_unknown = bool(source) and chosen.name == "unknown"
        title = "a class term that is not known here" if is_unknown else _title(chosen, player)
        titles.append(title if class_weight in (None, 1) else f"{ratio(class_weight)} x {title}")
    return " + ".join(names), " + ".join(titles[:1] if names[0] == "unknown" else titles), class_weight


def _title(part: Verdict, player: str) -> str:
    if part.name == "unknown":
        return f"not a loss known here{': ' if part.what else ''}{part.what}"
    whose = {"D": "discriminator", "G": "generator"}.get(part.owner or player, "")
    title = FAMILIES[part.name].title.format(player=whose, smoothing=part.smoothing or 0)
    if part.targets:
        title = f"{TARGET_TITLES.get(part.entry, title)} of D's output and {part.targets}"
    title += part.form
    return f"the {part.half} half of {title}" if part.half and not part.owner else title


def _equilibrium_value(seen: Measurement, diagnosis: Diagnosis) -> float | None:
    """The handbook's value at p = q, at this scale, of a loss that has both halves."""
    source, player = diagnosis.source, diagnosis.player
    if source is None or source.faults or source.smoothing or diagnosis.classes or "output@1" in seen.terms:
        return None
    if (len(seen.terms) < 2 and player == "D") or source.form:
        return None
    if source.shift or ((seen.loss.has_networks or seen.loss.trace.extras) and abs(seen.offset) > 1e-4):
        return None  # drift, or a penalty, whose value depends on the stub networks
    if MOVED & {code for code, _ in source.notes}:
        return None
    value = handbook_value(source.name, player)
    return None if value is None else round(source.scale * value + seen.offset, 9) + 0.0


def _right_code(seen: Measurement, diagnosis: Diagnosis) -> str:
    """The correct code, on probabilities where the user's is."""
    source, player = diagnosis.source, diagnosis.player
    entries = [part.entry for part in diagnosis.classes]
    if source is None:
        return OF_CLASSES if entries[0] == "auxiliary_classifier" else handbook_code(entries[0], "D")
    is_cross_entropy = source.entry in ("", "non_saturating", "minimax", "smoothing")
    if seen.setup.on == "probabilities" and is_cross_entropy:
        lines = (
            [ON_PROBABILITIES["target" if "output@1" in seen.terms else player or "D"]]
            if source.faults or not entries
            else []
        )
        return "\n".join(lines + [OF_CLASSES] * any(part.faults for part in diagnosis.classes))
    if "output@1" in seen.terms and is_cross_entropy:
        return WITH_TARGET
    if not entries:
        return handbook_code(source.entry or "non_saturating", player)
    class_entry = next((entry for entry in entries if entry != "auxiliary_classifier"), "auxiliary_classifier")
    with_class = handbook_code(class_entry, player)
    if is_cross_entropy:
        return with_class
    return f"{handbook_code(source.entry, player)}\n# and the class term as in: {with_class.splitlines()[-1].strip()}"


def compare_players(found: list[Identity], is_whole: bool = True) -> list[Identity]:
    """Revise answers by what only a pair shows: labels that both exchange, or G's target equal to D's for fakes.

    A half of D's loss is said to be alone only where all losses of the file were judged (`is_whole`).
    """
    owners = dict.fromkeys(one.owner for one in found)
    if len(owners) > 1:
        return [
            one for owner in owners for one in compare_players([one for one in found if one.owner == owner], is_whole)
        ]
    of_d = [one for one in found if one.player == "D"]
    of_g = [one for one in found if one.player == "G"]
    absent = {"real", "fake"} - {side for one in of_d for side in one.sides}
    answers, once = list[Identity](), SENTENCES["float32"]
    for one in found:
        one = _beside(one, of_d, of_g)
        if is_whole and one.player == "D" and one.right and set(one.sides) <= {"real", "fake"} and len(absent) == 1:
            half = f"the {one.sides[0]} half"
            note = SENTENCES["half-alone"].format(half=half, other=min(absent))
            one = replace(one, what=one.what.replace(half, f"only {half}", 1), notes=(*one.notes, note))
        if any(once in other.notes for other in answers):
            one = replace(one, notes=tuple(note for note in one.notes if note != once))
        answers.append(one)
    return answers


def _beside(one: Identity, of_d: list[Identity], of_g: list[Identity]) -> Identity:
    """An answer, beside those on both players."""
    is_square = one.player == "G" and one.name == SQUARES and one.right  # its target 0 lies on either side
    is_relativistic = bool(of_d) and all(other.name.startswith("relativistic") for other in of_d)
    is_plain = all(g.name.split(" + ")[0] in FAMILIES and "relativistic" not in g.name for g in of_g)
    if is_relativistic and is_plain and one.player == "G" and one.right:
        right_code = handbook_code(of_d[0].name.split(" + ")[0], "G")
        return replace(one, faults=("plain-g",), wrong=(SENTENCES["plain-g"],), notes=(), code=right_code)
    others = of_g if one.player == "D" else of_d
    is_exchanged = any((other.turned or (other.player == "G" and other.name == SQUARES)) and
                       _families(other) & _families(one) for other in others)  # fmt: skip
    if one.turned and is_exchanged:
        return replace(one.turned, notes=(SENTENCES["both-swapped"], *one.turned.notes))
    if is_square and any(d.turned and "least_squares" in d.turned.name for d in of_d):
        return replace(one, notes=(SENTENCES["both-swapped"],))
    if is_square and any(d.name == "least_squares" and d.right for d in of_d):
        where, helps = " on generated images, whose target is 0", "a G that minimises it helps D"
        wrong = SENTENCES["other-player"].format(owner="D", where=where, helps=helps)
        right_code = handbook_code("least_squares", "G")
        return replace(one, faults=("other-player",), wrong=(wrong,), notes=(), code=right_code)
    return one


def _families(one: Identity) -> set[str]:
    """The names that the losses of its pair may have."""
    found = {*one.name.split(" + ")[0].split(", "), *(one.turned.name.split(", ") if one.turned else ())}
    squares, entropy = {"least_squares", SQUARES}, {"minimax", "non_saturating", "smoothing"}
    return found | next((family for family in (squares, entropy) if family & found), set())
