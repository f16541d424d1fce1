"""A small classifier of the user's classes on an extractor's features, which tests whether samples show their class."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ptarmigan.data.batches import shuffled_order

HIDDEN = 128
SAMPLES_SEEN = 50_000, 500_000  # limits of the samples seen in training, which is otherwise EPOCHS of the set
EPOCHS = 20
BATCH = 250


class Classifier(nn.Module):
    """Features [N, F] of an extractor -> logits [N, K], through 128 features of its own (after a ReLU).

    Inputs are normalised by `mean` [F] and `deviation` [F], those of the training features.
    """

    def __init__(self, mean: Tensor, deviation: Tensor, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", 1 / deviation.clamp_min(1e-3 * float(deviation.mean()) + 1e-12))
        self.hidden = nn.Linear(len(mean), HIDDEN)
        self.logits = nn.Linear(HIDDEN, classes)

    def features(self, x: Tensor) -> Tensor:
        x = ((x - self.mean) * self.scale).clamp(-10, 10)  # type: ignore[operator]  # training features lie inside
        x = F.dropout(x, 0.5, self.training)
        return F.relu(self.hidden(x))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.logits(F.dropout(self.features(x), 0.5, self.training))
        return logits


def train_classifier(features: Tensor, labels: NDArray[np.int64], classes: int, seed: int = 0) -> Classifier:
    """Train on features [N, F] with labels [N]; each class is drawn equally often, whatever its size.

    The seed fixes weights, order and dropout; another machine or number of threads may round sums differently.
    A class without samples is never drawn.
    """
    seen = min(max(EPOCHS * len(labels), SAMPLES_SEEN[0]), SAMPLES_SEEN[1])
    steps = -(-seen // BATCH)
    members = [indices for label in range(classes) if len(indices := np.flatnonzero(labels == label))]
    per_class = -(-steps * BATCH // len(members))
    orders = [shuffled_order(seed, f"classifier {i}", 0, per_class, len(of)) for i, of in enumerate(members)]
    sequence = np.stack([of[order] for of, order in zip(members, orders, strict=True)], 1).reshape(-1)
    target = torch.from_numpy(labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Classifier(features.mean(0), features.std(0), classes).train()
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.2)
        for step in range(steps):
            rows = sequence[step * BATCH : (step + 1) * BATCH]
            loss = F.cross_entropy(network(features[rows]), target[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network.eval().requires_grad_(False)


def class_accuracies(classifier: Classifier, features: Tensor, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """[K] the share of each class's samples that are classified correctly; NaN for a class without samples."""
    predicted = classifier(features).argmax(1).numpy()
    classes = classifier.logits.out_features
    with np.errstate(invalid="ignore"):
        return np.bincount(labels[predicted == labels], minlength=classes) / np.bincount(labels, minlength=classes)


def chance_corrected(accuracy: float, classes: int) -> float:
    """(accuracy - 1/K) / (1 - 1/K): 0 for guessing, 1 for no errors."""
    return (accuracy - 1 / classes) / (1 - 1 / classes)
