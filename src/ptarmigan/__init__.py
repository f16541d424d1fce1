"""Class-conditional image GANs whose losses are right.

`train`, `sample`, `score`, `compare`, `info`, `plot`, `replay` and `identify` do what the commands of the same names
do, and `explain` does what the command `losses` does.  `load` opens a generator, whose `sample` returns images.
`losses` is the package of loss functions.  `Config` and `resolve` hold the options of a run.  `UserError` is every
error that a user can fix.
"""

from __future__ import annotations

import importlib

from ptarmigan.core.openmp import bound_spinning
from ptarmigan.core.version import __version__ as __version__

bound_spinning()  # before anything imports torch

TYPE_CHECKING = False  # type checkers take it as true; importing typing would delay the handler of Ctrl-C
if TYPE_CHECKING:
    from typing import Any

    from ptarmigan import losses as losses
    from ptarmigan.commands.compare import compare as compare
    from ptarmigan.commands.plot import plot as plot
    from ptarmigan.commands.replay import replay as replay
    from ptarmigan.commands.score import score as score
    from ptarmigan.config import Config as Config
    from ptarmigan.config import resolve as resolve
    from ptarmigan.core.types import UserError as UserError
    from ptarmigan.generator.generator import load as load
    from ptarmigan.generator.generator import sample as sample
    from ptarmigan.generator.header import info as info
    from ptarmigan.handbook.entries import explain as explain
    from ptarmigan.handbook.identify import identify as identify
    from ptarmigan.training.loop import train as train

_HOMES = {
    "Config": "config",
    "resolve": "config",
    "UserError": "core.types",
    "explain": "handbook.entries",
    "identify": "handbook.identify",
    "load": "generator.generator",
    "sample": "generator.generator",
    "info": "generator.header",
    "train": "training.loop",
    "score": "commands.score",
    "compare": "commands.compare",
    "plot": "commands.plot",
    "replay": "commands.replay",
}
__all__ = [*_HOMES, "losses"]


def __dir__() -> list[str]:
    """What tab completion offers: the public names, which are not imported yet."""
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that `import ptarmigan` does not import torch."""
    if name == "losses":
        return importlib.import_module("ptarmigan.losses")
    if name in _HOMES:
        return getattr(importlib.import_module(f"ptarmigan.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ptarmigan' has no attribute {name!r}")
