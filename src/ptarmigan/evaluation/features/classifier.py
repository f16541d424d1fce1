"""A small classifier of the user's own classes, on an extractor's features: does a sample show what was asked for?"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ptarmigan.data.batches import order

HIDDEN = 128
SEEN = 50_000, 500_000  # fewest and most samples seen in training; between them, EPOCHS of the set
EPOCHS = 20
BATCH = 250


class Classifier(nn.Module):
    """Features [N, F] of another extractor -> logits [N, K], through 128 rectified features of its own.

    Its inputs are centred and scaled by `mean` [F] and `deviation` [F] of those that it learns from.
    """

    def __init__(self, mean: Tensor, deviation: Tensor, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", 1 / deviation.clamp_min(1e-3 * float(deviation.mean()) + 1e-12))
        self.hidden = nn.Linear(len(mean), HIDDEN)
        self.logits = nn.Linear(HIDDEN, classes)

    def features(self, x: Tensor) -> Tensor:
        x = ((x - self.mean) * self.scale).clamp(-10, 10)  # type: ignore[operator]  # nothing known lies farther out
        x = F.dropout(x, 0.5, self.training)
        return F.relu(self.hidden(x))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.logits(F.dropout(self.features(x), 0.5, self.training))
        return logits


def fit(features: Tensor, labels: NDArray[np.int64], classes: int, seed: int = 0) -> Classifier:
    """Learn from features [N, F] with labels [N], each class drawn equally often, whatever its size.

    The seed fixes weights, order and dropout; on another machine or number of threads sums are rounded otherwise.
    A class without an example is never drawn.
    """
    seen = min(max(EPOCHS * len(labels), SEEN[0]), SEEN[1])
    steps = -(-seen // BATCH)
    members = [places for label in range(classes) if len(places := np.flatnonzero(labels == label))]
    each = -(-steps * BATCH // len(members))
    turns = [places[order(seed, f"classifier {i}", 0, each, len(places))] for i, places in enumerate(members)]
    drawn = np.stack(turns, 1).reshape(-1)
    target = torch.from_numpy(labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Classifier(features.mean(0), features.std(0), classes).train()
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.2)
        for step in range(steps):
            rows = drawn[step * BATCH : (step + 1) * BATCH]
            loss = F.cross_entropy(network(features[rows]), target[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network.eval().requires_grad_(False)


def accuracies(classifier: Classifier, features: Tensor, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """[K] the share of each class's samples that are named so; NaN for a class without one."""
    named = classifier(features).argmax(1).numpy()
    classes = classifier.logits.out_features
    with np.errstate(invalid="ignore"):
        return np.bincount(labels[named == labels], minlength=classes) / np.bincount(labels, minlength=classes)


def skill(accuracy: float, classes: int) -> float:
    """(accuracy - 1/K) / (1 - 1/K): 0 by guessing, 1 without an error."""
    return (accuracy - 1 / classes) / (1 - 1 / classes)
