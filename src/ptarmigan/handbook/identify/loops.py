"""Training loops: which .backward() calls belong to one loss, and the statements before them that make it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from ptarmigan.handbook.identify.signature import (
    PLAYERS,
    dotted,
    harmless_role,
    is_batch_size,
    player_of,
    side_of,
    words_of,
)
from ptarmigan.handbook.identify.syntax import SCOPES, Function, blocks_of, changed_names

CASTS = {"to", "cuda", "type", "float", "cpu"}


def is_stand_in(name: str, statement: ast.Assign | ast.AnnAssign) -> bool:
    """Whether the probe's own value takes the place of an assigned one: a batch size, a configuration."""
    is_made = isinstance(statement.value, ast.Call) or ast.unparse(statement.value or ast.Name("")) == "{}"
    return is_batch_size(name) or (is_made and harmless_role(name) == "config")


def assignment(name: str, value: ast.expr) -> ast.stmt:
    return ast.Assign([ast.Name(name, ast.Store())], value, lineno=getattr(value, "lineno", 1))


def out_of_place(statement: ast.Expr, name: str) -> ast.stmt:
    """x.fill_(1) as x = x.clone().fill_(1): what an earlier loss of the step saw stays as it was."""
    call = statement.value
    assert isinstance(call, ast.Call)
    if not isinstance(call.func, ast.Attribute) or not call.func.attr.endswith("_") or name.startswith("self."):
        return statement
    if call.func.attr == "copy_":
        return assignment(name, call.args[0])
    start = call.func  # of x.data.resize_(n).fill_(1)
    while isinstance(start.value, ast.Call) and isinstance(start.value.func, ast.Attribute):
        start = start.value.func
    start.value = ast.Call(ast.Attribute(ast.Name(name, ast.Load()), "clone", ast.Load()), [], [])
    return assignment(name, call)


def takes_data(statement: ast.stmt) -> bool:
    """Whether an assignment takes a part of a batch: images, _ = data, or data[0].to(device)."""
    value = getattr(statement, "value", None)
    for node in ast.walk(value) if value else []:
        if (
            isinstance(node, ast.Subscript)
            and isinstance(node.slice, ast.Constant)
            and (isinstance(node.slice.value, str) or {"data", "batch", "sample"} & set(words_of(dotted(node.value))))
            and not (is_batch_size(str(node.slice.value)) or harmless_role(dotted(node.value)) == "config")
            and not dotted(node.value).endswith(".shape")
        ):
            return True
    is_unpacked = isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Tuple)
    while isinstance(value, ast.Call | ast.Attribute):
        value = value.func if isinstance(value, ast.Call) else value.value
    is_part = (
        isinstance(value, ast.Subscript) and isinstance(value.value, ast.Name) and isinstance(value.slice, ast.Constant)
    )
    wrapped = getattr(statement, "value", None)
    while isinstance(wrapped, ast.Call) and (
        dotted(wrapped.func) == "Variable" or (isinstance(wrapped.func, ast.Attribute) and wrapped.func.attr in CASTS)
    ):
        wrapped = wrapped.args[0] if dotted(wrapped.func) == "Variable" else wrapped.func.value  # type: ignore[attr-defined]
    is_real = any(side_of(name) == "real" for name in changed_names(statement))
    if is_real and isinstance(wrapped, ast.Name) and isinstance(getattr(statement, "value", None), ast.Call):
        return True
    words = {word for name in changed_names(statement) for word in words_of(name)}
    if "randint(" in ast.unparse(statement) and words & {"labels", "label", "y", "c", "classes"}:
        return True
    if re.search(r"\b(rand|randn|uniform|normal)\(", ast.unparse(statement)) and (
        is_real or words & {"imgs", "images", "img"}
    ):
        return True
    return is_part or (is_unpacked and isinstance(value, ast.Name) and value is getattr(statement, "value", None))


def backward_calls(body: list[ast.stmt], function: str = "") -> Iterator[tuple[ast.stmt, ast.expr, ast.expr | None]]:
    """(statement, loss, factor) of each .backward() in the order of the source."""
    for statement in body:
        if isinstance(statement, SCOPES):
            continue
        blocks = blocks_of(statement)
        if any(blocks):
            for block in blocks:
                yield from backward_calls(block, function)
            continue
        if isinstance(statement, ast.Return) and function in ("training_step", "train_step"):
            value = statement.value
            value = value.args[0] if isinstance(value, ast.Call) and value.args else value
            if isinstance(value, ast.Dict):
                value = next((v for k, v in zip(value.keys, value.values, strict=True) if _is_word(k, "loss")), None)
            if value is not None and "loss" in dotted(value).lower():
                yield statement, value, None
        for node in ast.walk(statement):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner, attribute = node.func.value, node.func.attr
            if (
                attribute == "manual_backward"
                or (attribute == "gradient" and "tape" in dotted(owner))
                or (
                    attribute == "backward"
                    and node.args
                    and words_of(dotted(owner))[-1:]
                    in (["accelerator"], ["fabric"], ["engine"], ["self"], ["optimizer"])
                )
            ):
                yield statement, node.args[0], None
            elif attribute == "backward":
                if isinstance(owner, ast.Call) and dotted(owner.func).endswith(".scale") and owner.args:
                    owner = owner.args[0]
                yield statement, owner, node.args[0] if node.args else None


def _is_word(node: ast.expr | None, word: str) -> bool:
    return isinstance(node, ast.Constant) and node.value == word


def optimiser_steps(body: list[ast.stmt]) -> list[tuple[int, str]]:
    """(line, optimiser) of each .step()."""
    calls = [n for s in body for n in ast.walk(s) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    found = [(n.lineno, dotted(n.args[0] if n.args and n.func.attr == "step" else n.func.value))  # type: ignore[attr-defined]
             for n in calls if n.func.attr == "step"]  # type: ignore[attr-defined]  # fmt: skip
    return sorted(found)


def groups_of(roots: list[Any], body: list[ast.stmt]) -> list[list[Any]]:
    """The losses between two steps belong to one player, if the last of them comes after the others."""
    groups: list[list[Any]] = []
    steps = optimiser_steps(body)
    for root in roots:
        step = next((line for line, _ in steps if line >= root[0].lineno), 0)
        player = player_of(dotted(root[1]).rsplit(".")[-1])
        if groups and step:
            last = groups[-1][-1]
            same = next((line for line, _ in steps if line >= last[0].lineno), 0) == step
            same = same and player_of(dotted(last[1]).rsplit(".")[-1]) == player
            if same and last[0] in trail_before(body, root[0])[0]:
                groups[-1].append(root)
                continue
        groups.append([root])
    return groups


def player_after(body: list[ast.stmt], group: list[Any], function: Function | None) -> str | None:
    """The player whose optimiser steps next, or that the function's name shows."""
    optimiser = next((name for line, name in optimiser_steps(body) if line >= group[-1][0].lineno), "")
    for words in (words_of(optimiser), words_of(function.name if function else "")):
        for kind in ("d", "g"):
            if any(
                word in PLAYERS[kind] or (word[-1:] == kind and word[:-1] in ("opt", "optim", "optimizer"))
                for word in words
            ):
                return kind
    return None


def trail_before(body: list[ast.stmt], target: ast.stmt) -> tuple[list[ast.stmt], bool]:
    """The statements that run before `target`; loops that hold training steps count once."""
    before: list[ast.stmt] = []
    for statement in body:
        if statement is target:
            return before, True
        blocks = blocks_of(statement) if not isinstance(statement, SCOPES) else []
        for block in blocks:
            inner, found = trail_before(block, target)
            if found:
                return [*before, *inner], True
        if any(blocks) and any(True for block in blocks for _ in backward_calls(block)):
            for block in blocks:
                before += trail_before(block, target)[0]
        else:
            before.append(statement)
    return before, False
