"""What a loss returned, as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from ptarmigan.handbook.identify.signature import LossError, NotAdversarial, SeveralLosses
from ptarmigan.handbook.identify.terms import Array
from ptarmigan.handbook.identify.unseen import Unknown, needs


def loss_value(out: Any, size: int) -> Array:
    """What a loss returned, as [] or [N]; raises LossError or SeveralLosses."""
    if isinstance(out, Unknown):
        if out.facts.scored:
            raise needs(out.facts)
        what = "it is a gradient penalty alone" if out.facts.penalty else "no output of D reaches it here"
        raise NotAdversarial(what)
    if isinstance(out, tuple | list | dict):
        raise SeveralLosses(out)
    if isinstance(out, Tensor):
        out = out.detach().double().numpy()
    elif hasattr(out, "__array__"):  # of TensorFlow or JAX
        out = np.asarray(out)
    if not isinstance(out, int | float | np.ndarray | np.number) or isinstance(out, bool):
        raise LossError(f"it returns {out if out is None else type(out).__name__}, not a number")
    if type(out) in (int, float) and out == 0:
        raise LossError(
            "it returns the number 0 here: nothing was added to it, as where a loop runs over an empty list"
        )
    value = np.asarray(out)
    if value.dtype.kind not in "fiu":
        raise LossError(f"it returns an array of {value.dtype}, not of numbers")
    value = value.astype(np.float64)
    if value.size == 1 and (size != 1 or value.ndim == 0):
        return value.reshape(())
    rest = value.shape[1:]
    is_map = len(rest) in (2, 3) and rest[0] in (1, rest[-1]) and rest[-2] == rest[-1] < 28
    if value.shape[0] == size and (rest in ((), (1,)) or is_map):
        return np.asarray(value.reshape(size, -1).mean(1))
    raise LossError(
        f"it returns {list(value.shape)} for a batch of {size}; a loss is one number, or one for each image "
        f"([{size}] with [{size}, 1] broadcasts to [{size}, {size}])"
    )
