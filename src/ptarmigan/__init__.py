"""Class-conditional image GANs whose losses are right.

`train`, `check`, `sample`, `interpolate`, `invert`, `directions`, `score`, `compare`, `info`, `plot`, `diagnose`,
`report`, `replay`, `export`, `serve`, `explore` and `identify` do what the commands of the same names do, and `explain`
does what the command `losses` does.  `load` opens a generator, whose `sample` returns images.  `losses` is the package
of loss functions.  `Dataset` holds images, also of arrays in memory.  `Config` and `resolve` hold the options of a run.
`UserError` is every error that a user can fix.
"""

from __future__ import annotations

import importlib

from ptarmigan.core.openmp import bound_spinning
from ptarmigan.core.version import __version__ as __version__

bound_spinning()  # before anything imports torch

_HOMES = {
    "Config": "config",
    "resolve": "config",
    "Dataset": "data",
    "UserError": "core.types",
    "explain": "handbook.entries",
    "identify": "handbook.identify",
    "load": "generator.generator",
    "sample": "commands.sample",
    "interpolate": "generator.interpolate",
    "invert": "commands.invert",
    "directions": "commands.directions",
    "info": "generator.header",
    "train": "training.loop",
    "check": "commands.check",
    "score": "commands.score",
    "compare": "commands.compare",
    "export": "commands.export",
    "serve": "web.start",
    "explore": "web.start",
    "plot": "commands.plot",
    "diagnose": "commands.diagnose",
    "report": "commands.report",
    "replay": "commands.replay",
}
__all__ = [*_HOMES, "losses"]


def __dir__() -> list[str]:
    """What tab completion offers: the public names, which are not imported yet."""
    return [*__all__, "__version__"]


def __getattr__(name: str) -> object:
    """Import a public name at its first use, so that `import ptarmigan` does not import torch."""
    if name == "losses":
        return importlib.import_module("ptarmigan.losses")
    if name in _HOMES:
        return getattr(importlib.import_module(f"ptarmigan.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ptarmigan' has no attribute {name!r}")
