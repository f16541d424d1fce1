"""Modules that a file imports and that are not here: stand-ins that can be inherited from, but not called."""

from __future__ import annotations

import ast
import importlib.util
from typing import Any

from ptarmigan.handbook.identify.names import network_of
from ptarmigan.handbook.identify.syntax import root_of
from ptarmigan.handbook.identify.uses import dotted

LIBRARIES = {"tensorflow", "keras", "tensorflow_addons", "tf_keras", "jax", "optax"}  # of which tensorflow has a part


def stand_in(module: str, name: str) -> Any:
    from ptarmigan.handbook.identify.unseen import Facts, Unknown

    net = network_of(name, strict=True) if name.islower() else None  # a class makes a network first
    return Unknown(Facts(name, net=net or "", base=name))


def is_missing(statement: ast.stmt) -> bool:
    """Whether it imports a module that is not installed, nor beside the file."""
    if isinstance(statement, ast.ImportFrom):
        if statement.level:
            return True  # the file is not run as a part of its package
        modules = [statement.module] if statement.module else []
    else:
        modules = [one.name for one in statement.names] if isinstance(statement, ast.Import) else []
    return any(importlib.util.find_spec(str(one).split(".")[0]) is None for one in modules)


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
