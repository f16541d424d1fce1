"""Where to compute: a look at the machine."""

from __future__ import annotations

import torch

from ptarmigan.contracts import UserError, unknown


def pick_device(name: str) -> torch.device:
    """The device of a name; auto: CUDA, then Apple's MPS, then the CPU.  Raises UserError where it is missing."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, found in there.items() if found)
    if name not in there:
        raise unknown("device", name, ["auto", *there])
    if not there[name]:
        raise UserError(
            f"device: no {name} on this machine; it has {', '.join(d for d, found in there.items() if found)}"
        )
    return torch.device(name)
