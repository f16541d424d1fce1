"""Class-conditional image GANs whose losses are right.

`train`, `load(...).sample(...)`, `info`, `explain` are the commands of the same names (`explain` is `losses` there, and
`identify` is `losses identify`); `losses` is the module of the adversarial losses; `Config` and `resolve` say what can
be chosen.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptarmigan import losses as losses
    from ptarmigan.comparing import compare as compare
    from ptarmigan.config import Config as Config
    from ptarmigan.config import resolve as resolve
    from ptarmigan.contracts import UserError as UserError
    from ptarmigan.handbook import explain as explain
    from ptarmigan.identifying import identify as identify
    from ptarmigan.replaying import replay as replay
    from ptarmigan.sampling import info as info
    from ptarmigan.sampling import load as load
    from ptarmigan.sampling import sample as sample
    from ptarmigan.scoring import score as score
    from ptarmigan.training import train as train

__version__ = "0.1.0"

_HOMES = {
    "Config": "config", "resolve": "config", "UserError": "contracts", "explain": "handbook", "load": "sampling",
    "sample": "sampling", "info": "sampling", "replay": "replaying", "identify": "identifying", "score": "scoring",
    "compare": "comparing", "train": "training",
}  # fmt: skip
__all__ = [*_HOMES, "losses"]


def __getattr__(name: str) -> Any:
    """Public names are looked up when they are first asked for, so that importing ptarmigan does not import torch."""
    if name == "losses":
        return importlib.import_module("ptarmigan.losses")
    if name in _HOMES:
        return getattr(importlib.import_module(f"ptarmigan.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ptarmigan' has no attribute {name!r}")
