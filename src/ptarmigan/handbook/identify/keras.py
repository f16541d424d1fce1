"""Keras's train_on_batch as statements that the other stages read: a loss, and its .backward()."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ptarmigan.handbook.identify.names import network_of
from ptarmigan.handbook.identify.syntax import blocks_of
from ptarmigan.handbook.identify.uses import dotted

METHOD = "train_on_batch"


def expand_training(tree: ast.Module) -> None:
    """Put `d_loss1 = keras_loss(loss, target, D(x)); d_loss1.backward()` in the place of D.train_on_batch(x, target).

    A model that is not D is taken to be G and D combined: its output is D(G(x)).
    """
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    if not any(_method(n) == METHOD for n in calls):
        return
    losses = dict(_compiled(calls))
    models = [dotted(n.func.value) for n in calls]  # type: ignore[attr-defined]
    trained = [name for name, n in zip(models, calls, strict=True) if _method(n) == METHOD]
    d = next((name for name in trained if network_of(name) == "D"), "")
    g = next((name for name in models if network_of(name) == "G"), "generator")
    if not d:
        return
    number = 0
    for node in ast.walk(tree):
        for block in _blocks(node):
            for statement in list(block):
                found = [
                    n for n in ast.walk(statement) if isinstance(n, ast.Call) and n in calls and _method(n) == METHOD
                ]
                if any(blocks_of(statement)):
                    continue
                for call in found:
                    number += 1
                    model = dotted(call.func.value)  # type: ignore[attr-defined]
                    lines = _lines(call, model, d, g, losses.get(model) or next(iter(losses.values()), None), number)
                    at = block.index(statement) + 1
                    block[at:at] = [ast.copy_location(line, statement) for line in lines]
    ast.fix_missing_locations(tree)


def _method(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _blocks(node: ast.AST) -> list[list[ast.stmt]]:
    return blocks_of(node) if isinstance(node, ast.stmt | ast.Module) else []


def _compiled(calls: list[ast.Call]) -> Iterator[tuple[str, ast.expr]]:
    """(model, loss) of each MODEL.compile(loss=...)."""
    for call in calls:
        if _method(call) == "compile":
            loss = next((word.value for word in call.keywords if word.arg == "loss"), None)
            loss = loss or (call.args[1] if len(call.args) > 1 else None)
            if loss is not None:
                yield dotted(call.func.value), loss  # type: ignore[attr-defined]


def _lines(call: ast.Call, model: str, d: str, g: str, loss: ast.expr | None, number: int) -> list[ast.stmt]:
    words = {word.arg: word.value for word in call.keywords}
    x, target = [*call.args[:2], *(words[key] for key in ("x", "y") if key in words)][:2]
    is_d = network_of(model) == "D"
    name = f"{'d' if is_d else 'g'}_loss{number}"
    given, wanted, kind = (ast.unparse(node or ast.Constant("binary_crossentropy")) for node in (x, target, loss))
    output = f"{model}({given})" if is_d else f"{d}({g}({given}))"
    return ast.parse(f"{name} = keras_loss({kind}, {wanted}, {output})\n{name}.backward()").body
