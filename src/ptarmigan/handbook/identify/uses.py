"""What the source of a loss does with its names: it calls, tests, compares, iterates over or unpacks them."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import Any

from ptarmigan.handbook.identify.names import harmless_role, network_of

RESHAPES = {"view", "squeeze", "reshape", "mean", "flatten", "repeat", "expand", "size", "permute", "unsqueeze"}
MAKERS = ("randn", "rand", "ones", "zeros", "randint", "normal")  # of tensors, from sizes


@dataclass
class Uses:
    """What the source of a loss does with its names; an attribute of self is written "self.x"."""

    text: str = ""
    called: dict[str, list[ast.Call]] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)  # tested, or compared with a number
    optional: set[str] = field(default_factory=set)  # compared with None
    sizes: set[str] = field(default_factory=set)  # of tensors that it makes
    listed: set[str] = field(default_factory=set)  # iterated over
    words: dict[str, list[str]] = field(default_factory=dict)  # compared with these strings
    results: dict[str, str] = field(default_factory=dict)  # the function whose result a name is
    unpacked: dict[str, int] = field(default_factory=dict)  # how many values a call's result is unpacked into
    is_autoencoder: bool = False  # D's output is compared with D's input
    drawn: frozenset[str] = frozenset()  # the names that a training loop gives its batches
    returned: list[str] = field(default_factory=list)  # the names in the tuple that it returns


def dotted(node: ast.AST | None) -> str:
    """a.b.c of a name or an attribute, else ""."""
    if isinstance(node, ast.Attribute):
        start = dotted(node.value)
        return f"{start}.{node.attr}" if start else ""
    return node.id if isinstance(node, ast.Name) else ""


def uses_of(node: ast.AST) -> Uses:
    """Read the uses of names in a function or a class."""
    uses, checked = Uses(ast.unparse(node)), {""}
    for n in ast.walk(node):
        if isinstance(n, ast.Call):
            _read_call(uses, n)
            checked |= {dotted(n.args[0])} if dotted(n.func) == "isinstance" else set()
        elif isinstance(n, ast.For | ast.comprehension):
            uses.listed.add(dotted(n.iter))
        elif isinstance(n, ast.Subscript) and isinstance(n.value, ast.Dict):
            uses.words.setdefault(dotted(n.slice), []).extend(_strings(n.value.keys))
        elif isinstance(n, ast.Subscript) and isinstance(n.slice, ast.Constant | ast.UnaryOp):
            uses.listed.add(dotted(n.value) or dotted(getattr(n.value, "func", None)))
        elif isinstance(n, ast.Compare):
            _read_comparison(uses, n)
        elif isinstance(n, ast.If | ast.IfExp | ast.Assert):
            tests = n.test.values if isinstance(n.test, ast.BoolOp) else [n.test]
            uses.flags |= {dotted(test.operand if isinstance(test, ast.UnaryOp) else test) for test in tests}
        elif isinstance(n, ast.Assign):
            _read_assignment(uses, n.targets[0], n.value)
        elif isinstance(n, ast.Return) and isinstance(n.value, ast.Tuple):
            uses.returned = [dotted(part).rsplit(".")[-1] for part in n.value.elts]
    uses.listed -= checked
    uses.is_autoencoder = _compares_with_input(node)
    return uses


def _compares_with_input(node: ast.AST) -> bool:
    """Whether D's output is compared with D's input, as where D is an autoencoder: D(x) - x, or criterion(D(x), x)."""
    asked: dict[str, str] = {}  # what D is asked about, by its answer
    nodes = list(ast.walk(node))
    for n in nodes:
        call = n.value if isinstance(n, ast.Assign) else n
        if isinstance(call, ast.Call) and len(call.args) == 1 and network_of(dotted(call.func)) == "D":
            asked[ast.unparse(n.targets[0] if isinstance(n, ast.Assign) else call)] = _undetached(call.args[0])
    pairs = [(n.left, n.right) for n in nodes if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Sub)]
    pairs += [(n.args[0], n.args[1]) for n in nodes if isinstance(n, ast.Call) and len(n.args) == 2
              and not harmless_role(dotted(n.func)) and "grad" not in dotted(n.func)]  # fmt: skip
    return any(asked.get(_undetached(a)) == _undetached(b) or asked.get(_undetached(b)) == _undetached(a)
               for a, b in pairs)  # fmt: skip


def _undetached(value: ast.expr) -> str:
    return ast.unparse(value).removesuffix(".detach()").removesuffix(".data")


def _read_call(uses: Uses, call: ast.Call) -> None:
    of = call.func.value if isinstance(call.func, ast.Subscript) else call.func  # netsD[i](x)
    name = re.sub(r"(?<!^self)\.forward$|\.module$", "", dotted(of))
    last = call.func.attr if isinstance(call.func, ast.Attribute) else name
    arguments = [dotted(argument) for argument in call.args]
    uses.called.setdefault(name, []).append(call)
    if name in ("zip", "enumerate"):
        uses.listed |= {*arguments}
    elif last in MAKERS:
        parts = [part for argument in call.args for part in getattr(argument, "elts", [argument])]
        uses.sizes.update(part.id for part in parts if isinstance(part, ast.Name))
    elif name in ("float", "int", "bool") or last in ("full", "full_like", "new_full", "fill_"):
        given = [dotted(word.value) for word in call.keywords if word.arg == "fill_value"]
        uses.flags |= {*(given or arguments[-1:])}


def _read_assignment(uses: Uses, target: ast.expr, value: ast.expr) -> None:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, part in zip(target.elts, value.elts, strict=False):
            _read_assignment(uses, one, part)
        return
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Call):
        uses.unpacked[dotted(value.func)] = len(target.elts)
    if isinstance(value, ast.Call):
        uses.results[dotted(target)] = dotted(value.func)


def _read_comparison(uses: Uses, n: ast.Compare) -> None:
    name, other = dotted(n.left), n.comparators[0]
    if isinstance(n.left, ast.Call) and isinstance(n.left.func, ast.Attribute):  # mode.lower() == "hinge"
        name = dotted(n.left.func.value)
    parts = other.elts if isinstance(other, ast.Tuple | ast.List | ast.Set) else [other]
    if words := _strings(parts):
        uses.words.setdefault(name, []).extend(words)
    elif isinstance(other, ast.Constant) and other.value is None:
        uses.optional.add(name)
    elif name and all(isinstance(part, ast.Constant) for part in parts):
        uses.flags.add(name)


def _strings(nodes: Any) -> list[str]:
    return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
