"""What `train` says of a check before it starts: what is wrong of all that can be found in moments."""

from __future__ import annotations

import numpy as np

from ptarmigan.data import Dataset
from ptarmigan.data.check.finding import by_severity
from ptarmigan.data.check.images import class_findings, equal_findings, first_equal, flat_findings, flat_images

LOOKED_AT = 20_000  # images, so that training does not wait for it


def summary(dataset: Dataset, balance: bool) -> list[str]:
    """A sentence for each finding that is more than a note; none where nothing is wrong."""
    looked_at = dataset.images[:LOOKED_AT] if isinstance(dataset.images, np.ndarray) else dataset.images[:0]
    of_images = equal_findings(dataset, first_equal(dataset)) + flat_findings(dataset, flat_images(looked_at))
    wrong = [finding for finding in of_images if finding.severity != "note"]
    found = by_severity(wrong + class_findings(dataset, balance))
    lines = [f"{finding.text} ({finding.examples}); {finding.remedy}" for finding in found]
    if wrong or any("cannot be decoded" in notice for notice in dataset.notices):
        lines.append("`ptarmigan check` of the same images names all that is wrong, and what mends it")
    return lines
