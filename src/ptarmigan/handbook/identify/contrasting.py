"""ReACGAN's class term, known by its margin and temperature: the one class term that compares images of a batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ptarmigan.handbook.identify.callables import Array, Loss, Setup
from ptarmigan.handbook.identify.curves import ClassTerm
from ptarmigan.losses.conditioning import contrast

LABELS = ("labels", "labels_real", "labels_fake")
Batch = Callable[..., dict[str, Array]]


def fit_contrast(loss: Loss, setup: Setup, batch: Batch) -> tuple[ClassTerm | None, str]:
    """The term and its reduction, where the loss is D2D-CE (Kang et al. 2021) of embedding, proxy and labels.

    Image 0 is alone in its class and opposite to all others, which sit on their proxies.  Its loss is then
    log(1 + n e^-a), a = min(cos - margin, 0) / temperature: two cosines give both.  Random batches then decide.
    """
    n, there = setup.size - 1, batch(loss, setup)
    values: Array = np.array([_opposed(loss, setup, there, cosine) for cosine in (-1.0, -0.9, 1.0)])
    for reduction in ("none",) if values.ndim == 2 else ("mean", "sum"):
        first = values[:, 0] if values.ndim == 2 else values * (setup.size if reduction == "mean" else 1)
        above = first - first[2] + np.log1p(n)
        if (above[:2] <= np.log1p(n) + 1e-9).any():
            continue
        a = -np.log(np.expm1(above[:2]) / n)
        temperature = 0.1 / (a[1] - a[0])
        margin = -1.0 - a[0] * temperature
        batches = [batch(loss, setup, seed=seed) for seed in (1, 2, 3)]
        if all(_agrees(loss, setup, there, margin, temperature, reduction) for there in batches):
            return ClassTerm("contrast", 1.0, detail=f"margin {margin:.4g}, temperature {temperature:.4g}"), reduction
    return None, "mean"


def _opposed(loss: Loss, setup: Setup, there: dict[str, Array], cosine: float) -> Array:
    """The loss with image 0 at this cosine of its proxy, and nothing else to pay for."""
    axis = np.eye(there["proxy"].shape[1])[0]
    rows = np.tile(-axis, (setup.size, 1))
    rows[0] = axis
    labels = np.ones(setup.size)
    labels[0] = 0
    proxy = np.tile(-axis, (len(there["proxy"]), 1))
    proxy[0] = cosine * axis
    proxy[0, 1] = np.sqrt(1 - cosine**2)
    return loss(setup, there | {"embedding": rows, "proxy": proxy} | dict.fromkeys(LABELS, labels)).value


def _agrees(
    loss: Loss, setup: Setup, there: dict[str, Array], margin: float, temperature: float, reduction: str
) -> bool:
    labels, proxy = torch.tensor(there["labels"]).long(), torch.tensor(there["proxy"])
    proxy = proxy[labels] if loss.per_class else proxy
    known = contrast(torch.tensor(there["embedding"]), proxy, labels, margin=margin, temperature=temperature).numpy()
    want = {"none": known, "mean": known.mean(), "sum": known.sum()}[reduction]
    here = loss(setup, there | dict.fromkeys(LABELS, there["labels"])).value
    alike = loss(setup, there | dict.fromkeys(LABELS, 0 * there["labels"])).value  # of one class: the term is 0
    return bool(np.abs(here - alike - want).max() <= 1e-5 * (1 + np.abs(want).max()))
