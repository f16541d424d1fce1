"""Instances of the file's classes: with each choice that the source shows, or with what can be made of __init__."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import re
from typing import TYPE_CHECKING, Any

from ptarmigan.handbook.identify.names import network_of
from ptarmigan.handbook.identify.signature import LossError, describe_error
from ptarmigan.handbook.identify.syntax import Function, changed_names, free_names, networks_of, stored_names
from ptarmigan.handbook.identify.uses import dotted, uses_of

if TYPE_CHECKING:
    from ptarmigan.handbook.identify.source import Program


def instances(program: Program, cls: Any, node: ast.ClassDef, arguments: str | None = None) -> list[tuple[str, Any]]:
    """(label, instance) of a class: with the arguments told, else with each choice that the source shows."""
    if arguments:
        return [(f"{cls.__name__}{arguments}", eval(f"_cls{arguments}", program.scope | {"_cls": cls}))]
    try:
        needed = [p for p in inspect.signature(cls).parameters.values() if p.default is p.empty and p.kind < 2]
    except (TypeError, ValueError):
        needed = []
    uses = uses_of(node)
    alias = {dotted(n.value) or dotted(getattr(getattr(n.value, "func", None), "value", None)): dotted(n.targets[0])
             for n in ast.walk(node) if isinstance(n, ast.Assign)}  # fmt: skip
    choices: list[dict[str, Any]] = [{}]
    for p in needed:
        words = dict.fromkeys(uses.words.get(p.name, []) + uses.words.get(alias.get(p.name, ""), []))
        if words and choices == [{}]:
            choices = [{p.name: word} for word in words]
    found, failure = [], ""
    for choice in choices:
        label = cls.__name__ + (f"({next(iter(choice.values()))!r})" if choice else "").replace("'", '"')
        try:
            found.append((label, _instance(program, cls, node, [p.name for p in needed], choice)))
        except Exception as error:
            failure = describe_error(error)
    if found:
        return found
    raise LossError(f"an instance cannot be made: {failure}")


def _instance(program: Program, cls: Any, node: ast.ClassDef, needed: list[str], choice: dict[str, Any]) -> Any:
    """An instance; if a class owns networks, or needs what is not known, with those attributes that can be made."""
    from ptarmigan.handbook.identify.unseen import unknown_argument

    values = {name: unknown_argument(name) for name in needed} | choice
    if not networks_of(node) and "retrained" not in ast.unparse(node):
        with contextlib.suppress(Exception):
            return cls(**values)
    instance = cls.__new__(cls)
    with contextlib.suppress(Exception):
        importlib.import_module("torch.nn").Module.__init__(instance)
    methods = [one for one in node.body if isinstance(one, Function)]
    defaults = {p.name: p.default for p in inspect.signature(cls).parameters.values() if p.default is not p.empty}
    local = {"self": instance} | defaults | values
    for method in sorted(methods, key=lambda one: one.name != "__init__"):
        for statement in method.body:
            names = {name[5:] for name in stored_names(statement) if name.startswith("self.")}
            if method.name == "__init__":
                is_wanted = isinstance(statement, ast.Assign | ast.AnnAssign | ast.If)
            else:
                is_layer = bool(re.search(r"\bnn\.|Loss\(|\blosses\.|Crossentropy\(", ast.unparse(statement)))
                is_wanted = is_layer and bool(names) and not any(hasattr(instance, name) for name in names)
            is_network = any(network_of(name, True) for name in changed_names(statement))
            if is_wanted and not is_network and program.is_safe(statement):
                with contextlib.suppress(Exception):
                    program.need(free_names(statement))
                    program.run(statement, local)
    return instance
