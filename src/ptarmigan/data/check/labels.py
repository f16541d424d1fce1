"""Labels that are likely to be wrong, judged by features of the images.

A linear classifier is trained on four fifths of the images and says how well each label of the last fifth fits; this is
done five times.  As in confident learning (Northcutt, Jiang and Chuang, 2021), a label is doubted where the classifier
prefers another and gives the label itself far less than it gives the images of that class on average.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

FOLDS = 5
DECAY = 3e-4  # of the weights
STEPS = 30  # of L-BFGS
DOUBTED = 0.05  # of the mean probability that the images of a class give their label
LEAST = 2 * FOLDS  # images of a class; the labels of a smaller one are not judged


class Doubts(NamedTuple):
    """Labels that are likely wrong, the least probable first."""

    indices: NDArray[np.int64]  # [M]
    better: NDArray[np.int64]  # [M] the label that the classifier prefers
    probability: NDArray[np.float64]  # [M] that it gives that label


def doubtful_labels(features: Tensor, labels: NDArray[np.int64], keys: NDArray[np.uint64]) -> Doubts:
    """Judge the labels [N] by features [N, F]; images with equal keys [N] are in one fold, so that no copy helps."""
    counts = np.bincount(labels)
    judged = np.flatnonzero(counts[labels] >= LEAST)
    known, target = np.unique(labels[judged], return_inverse=True)
    if len(known) < 2:
        return Doubts(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    x = features[torch.from_numpy(judged)]
    x = (x - x.mean(0)) / (x.std(0) + 1e-6) / x.shape[1] ** 0.5
    fold = (keys[judged] % np.uint64(FOLDS)).astype(np.int64)
    probability = np.zeros((len(judged), len(known)))
    for held in range(FOLDS):
        inside, outside = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
        if len(inside) and len(outside):
            weight, bias = fit_linear(x[torch.from_numpy(inside)], torch.from_numpy(target[inside]), len(known))
            logits = x[torch.from_numpy(outside)] @ weight + bias
            probability[outside] = logits.softmax(1).numpy()
    rows = np.arange(len(judged))
    given = probability[rows, target]
    usual = np.bincount(target, given) / np.bincount(target)
    preferred = probability.argmax(1)
    wrong = np.flatnonzero((preferred != target) & (given < DOUBTED * usual[target]))
    wrong = wrong[np.argsort(given[wrong], kind="stable")]
    return Doubts(judged[wrong], known[preferred[wrong]], probability[wrong, preferred[wrong]])


def fit_linear(x: Tensor, target: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weights [F, K] and biases [K] of multinomial logistic regression with weight decay."""
    weight = torch.zeros(x.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x @ weight + bias, target) + DECAY / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
