"""Modules that a file imports and that are not here: stand-ins that can be inherited from, but not called."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from typing import Any

from ptarmigan.handbook.identify.names import LATENTS, words_of
from ptarmigan.handbook.identify.signature import LossError
from ptarmigan.handbook.identify.syntax import root_of
from ptarmigan.handbook.identify.uses import dotted

MOVES = {"variable", "var", "cuda", "device", "gpu", "tensor"}  # words of a function that returns its argument
COMPUTING = {"tensorflow", "keras", "jax", "flax", "scipy", "numpy", "einops"}  # a loss may be made by these
LIBRARIES = {*COMPUTING, "torchvision", "torchaudio", "monai", "pytorch_lightning", "lightning", "kornia",
             "accelerate", "transformers", "timm"}  # fmt: skip


class Missing(type):
    """The type of stand-ins for what cannot be imported: they can be inherited from, but not called."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return stand_in(cls.__dict__.get("module", "a module"), name)

    def __call__(cls, *given: Any, **named: Any) -> Any:
        if "module" not in vars(cls):  # a class of the user that inherits from it
            return super().__call__(*given, **named)
        torch, module, words = importlib.import_module("torch"), vars(cls)["module"], set(words_of(cls.__name__))
        if words & LATENTS and not named.keys() - {"device"}:  # they go into G, whose stub ignores them
            return torch.randn(16, 16)
        library, file = module.split(".")[0], module.replace(".", "/") + ".py"
        is_image = len(given) == 1 and getattr(given[0], "ndim", 0) > 1 and given[0][0].numel() > 8
        if given and (is_image or words & MOVES) and library not in COMPUTING:
            return given[0] if len(given) == 1 else given
        if library in LIBRARIES:
            raise LossError(f"it needs {library}, which cannot be imported here: install {library}")
        raise LossError(f"it needs {cls.__name__} of {file}, which is not here: put {file} beside the file")


def stand_in(module: str, name: str) -> Any:
    from torch import nn

    return Missing(
        name,
        (nn.Module,),
        {
            "module": module,
            "__init__": lambda self, *_, **__: nn.Module.__init__(self),
        },
    )


def is_missing(statement: ast.stmt) -> bool:
    """Whether it imports a module that is not installed, nor beside the file."""
    if isinstance(statement, ast.ImportFrom):
        if statement.level:
            return True  # the file is not run as a part of its package
        modules = [statement.module] if statement.module else []
    else:
        modules = [one.name for one in statement.names] if isinstance(statement, ast.Import) else []
    return any(importlib.util.find_spec(str(one).split(".")[0]) is None for one in modules)


def missing_library(tree: ast.Module) -> str:
    """TensorFlow, Keras or JAX, where a file without PyTorch imports it and it is not installed; else ""."""
    modules = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
            modules |= {name.split(".")[0] for name in names}
    found = next((name for name in ("tensorflow", "keras", "jax") if name in modules), "")
    return "" if "torch" in modules or not found or importlib.util.find_spec(found) else found


class Quiet(ast.NodeTransformer):
    """Without the calls of missing modules whose result is not used: they log."""

    def __init__(self, missing: set[str]) -> None:
        self.missing = missing

    def _is_missing(self, node: ast.AST) -> bool:
        return dotted(root_of(node)) in self.missing

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        is_call = isinstance(node.value, ast.Call) and self._is_missing(node.value)
        return ast.copy_location(ast.Pass(), node) if is_call else node

    def visit_With(self, node: ast.With) -> ast.stmt:
        self.generic_visit(node)
        node.items = [item for item in node.items if not self._is_missing(item.context_expr)]
        return node if node.items else ast.copy_location(ast.If(ast.Constant(True), node.body, []), node)
