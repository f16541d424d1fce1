"""The table of the losses that identify knows: their names, titles, formulas' shapes, and right code.

It imports neither torch nor numpy: the process that prints the answers has no use for them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ptarmigan.handbook.entries import ENTRIES


@dataclass(frozen=True)
class Family:
    """A loss by its name: the handbook's entries of it, joined by ", " where they share the formula."""

    name: str
    title: str  # {player} is discriminator or generator
    shape: str = ""  # of D's terms
    entry: str = ""  # the handbook's entry with the correct code, if it is not `name`
    promised: str = ""  # the pattern in a function's name that promises it


SHARED_D, SHARED_G = "minimax, non_saturating", "hinge, wasserstein"
FAMILIES = {family.name: family for family in (
    Family(SHARED_D, "the {player}'s cross-entropy loss", "cross_entropy", "non_saturating"),
    Family("minimax", "the saturating {player} loss", promised=r"(?<!non)(?<!non_)saturating"),
    Family("non_saturating", "the non-saturating {player} loss", promised=r"non_?sat"),
    Family("smoothing", "the {player}'s cross-entropy loss, real target {smoothing:.3g}"),
    Family("least_squares", "the least-squares {player} loss", "least_squares", promised=r"lsgan|least_?squares"),
    Family("least_squares_pearson", "the least-squares {player} loss of targets -1 and 1",
           promised=r"lsgan|least_?squares"),
    Family("hinge", "the hinge {player} loss", "hinge", promised="hinge"),
    Family("wasserstein", "the Wasserstein {player} loss", "linear", promised="wgan|wasserstein"),
    Family(SHARED_G, "the {player} loss of hinge and Wasserstein GANs", entry="hinge",
           promised="hinge|wgan|wasserstein"),
    Family("relativistic", "the relativistic {player} loss", promised="rpgan|relativistic"),
    Family("relativistic_average", "the relativistic average {player} loss", promised="ragan|relativistic"),
    Family("auxiliary_classifier", "the class cross-entropy"),
)}  # fmt: skip
OF_SHAPE = {family.shape: family for family in FAMILIES.values() if family.shape}
WORDS = {"cross_entropy": "cross-entropy", "least_squares": "least squares", "hinge": "a hinge", "linear": "a line"}
ON_PROBABILITIES = {  # the code of cross-entropy for who has probabilities
    "D": "L_D = -torch.log(real).mean() - torch.log(1 - fake).mean()",
    "G": "L_G = -torch.log(fake).mean()",
    "target": "F.binary_cross_entropy(output, target)",
}
WITH_TARGET = "F.binary_cross_entropy_with_logits(output, target)"
REMEDIES = {  # of what PyTorch stops
    "exchanged": "criterion(output, target)",
    "logits-in-bce": "nn.BCEWithLogitsLoss()",
    "target-shape": "target.view_as(output)",
    "one-class": "nn.BCEWithLogitsLoss()",
    "target-stops": "torch.full_like(output, 0.9)",
    "integer-targets": "torch.full((n,), 1.0)",
}
OF_CLASSES = "F.cross_entropy(class_logits, labels)"


def handbook_code(entry: str, player: str) -> str:
    """The player's lines in the handbook's code of a loss."""
    lines = ENTRIES[entry].code.split("\n") if entry in ENTRIES else []
    start = next((i for i, line in enumerate(lines) if line.startswith(f"L_{player} =")), None)
    if start is None:
        return ""
    end = next((i for i in range(start + 1, len(lines)) if not lines[i].startswith(" ")), len(lines))
    return "\n".join(lines[start:end])


def handbook_value(name: str, player: str) -> float | None:
    """The loss of a player at p = q, where that is one number."""
    entry = ENTRIES.get(name.split(", ")[-1 if player == "D" else 0])
    return next((value.value for value in entry.values if value.what == f"L_{player}"), None) if entry else None
