"""Modules that a file imports and that are not here, and imports that a pasted fragment leaves out."""

from __future__ import annotations

import ast
import importlib.util
from typing import Any

from ptarmigan.handbook.identify.names import network_of

LIBRARIES = {"tensorflow", "keras", "tensorflow_addons", "tf_keras", "jax", "optax"}  # of which tensorflow has a part

USUAL = {  # imports that a pasted fragment leaves out
    "torch": "import torch", "nn": "from torch import nn", "F": "import torch.nn.functional as F",
    "math": "import math", "np": "import numpy as np", "random": "import random", "functools": "import functools",
    "autograd": "from torch import autograd", "grad": "from torch.autograd import grad",
    "Variable": "from torch.autograd import Variable", "Tensor": "from torch import FloatTensor as Tensor",
    "LongTensor": "from torch import LongTensor", "FloatTensor": "from torch import FloatTensor",
    "partial": "from functools import partial",
    "keras_loss": "from ptarmigan.handbook.identify.tensorflow import keras_loss",
}  # fmt: skip


def stand_in(module: str, name: str) -> Any:
    from ptarmigan.handbook.identify.unseen import Facts, Unknown

    net = network_of(name, strict=True) if name.islower() else None  # a class makes a network first
    return Unknown(Facts(name, net=net or "", base=name))


def import_path(statement: ast.stmt | None, name: str) -> str:
    """What an import binds to a name: keras.losses.Hinge; "" for another statement."""
    if not isinstance(statement, ast.Import | ast.ImportFrom):
        return ""
    one = next(one for one in statement.names if (one.asname or one.name.split(".")[0]) == name)
    return f"{getattr(statement, 'module', None) or ''}.{one.name}".strip(".")


def is_missing(statement: ast.stmt, name: str) -> bool:
    """Whether it imports a name from a module that is not installed, nor beside the file."""
    if isinstance(statement, ast.ImportFrom) and statement.level:
        return True  # the file is not run as a part of its package
    module = import_path(statement, name).split(".")[0]
    return bool(module) and importlib.util.find_spec(module) is None
