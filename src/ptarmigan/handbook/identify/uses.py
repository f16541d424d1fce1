"""What the source of a loss does with its names: it calls, tests, compares, iterates over or unpacks them."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any

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
    aliases: dict[str, str] = field(default_factory=dict)  # of y = x, or y = x.to(device)
    unpacked: dict[str, int] = field(default_factory=dict)  # how many values a call's result is unpacked into
    returned: list[str] = field(default_factory=list)  # the names in the tuple that it returns

    def inputs_of(self, network: str) -> set[str]:
        """The names that are handed to a network."""
        found = {a.id for c in self.called.get(network, ()) for a in c.args if isinstance(a, ast.Name)}
        for name in list(found):
            while (name := self.aliases.get(name, "")) and name not in found:
                found.add(name)
        return found


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
            uses.listed.add(dotted(n.value))
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
    return uses


def _read_call(uses: Uses, call: ast.Call) -> None:
    name = dotted(call.func).removesuffix(".forward").removesuffix(".module")
    last, arguments = name.rsplit(".")[-1], [dotted(argument) for argument in call.args]
    uses.called.setdefault(name, []).append(call)
    if name in ("zip", "enumerate"):
        uses.listed |= {*arguments}
    elif last in MAKERS:
        parts = [part for argument in call.args for part in getattr(argument, "elts", [argument])]
        uses.sizes |= {part.id for part in parts if isinstance(part, ast.Name)}
    elif name in ("float", "int", "bool") or last in ("full", "full_like", "new_full", "fill_"):
        given = [dotted(word.value) for word in call.keywords if word.arg == "fill_value"]
        uses.flags |= {*(given or arguments[-1:])}


def _read_assignment(uses: Uses, target: ast.expr, value: ast.expr) -> None:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Call):
        uses.unpacked[dotted(value.func)] = len(target.elts)
    while isinstance(value, ast.Call):  # y = Variable(x), or y = x.to(device)
        is_variable = dotted(value.func) == "Variable" and value.args
        value = value.args[0] if is_variable else getattr(value.func, "value", ast.Constant(None))
    if dotted(target) and dotted(value) != dotted(target):
        uses.aliases[dotted(target)] = dotted(value)


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
