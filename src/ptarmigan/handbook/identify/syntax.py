"""What a syntax tree says: its statements, the names that they read and change, the layers in which a network ends."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator
from typing import Any

from ptarmigan.handbook.identify.uses import Uses, dotted, uses_of

DECORATORS = {"staticmethod", "classmethod", "property", "dataclass", "no_grad", "inference_mode", "contextmanager"}
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
RESHAPES = {"view", "squeeze", "reshape", "mean", "flatten"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def cleaned(tree: ast.Module) -> ast.Module:
    """The tree without annotations, and without decorators that change no value."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [dotted(d.func if isinstance(d, ast.Call) else d).rsplit(".")[-1] for d in node.decorator_list]
            node.decorator_list = [d for d, name in zip(node.decorator_list, names, strict=True) if name in DECORATORS]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
            for argument in ast.walk(node.args):
                if isinstance(argument, ast.arg):
                    argument.annotation = None
    return tree


def flat_statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, and those inside its if, try and with."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With):
            for block in blocks_of(statement):
                yield from flat_statements(block)


def blocks_of(statement: ast.stmt) -> list[list[ast.stmt]]:
    blocks = [getattr(statement, part, []) for part in ("body", "orelse", "finalbody")]
    return [*blocks, *(handler.body for handler in getattr(statement, "handlers", []))]


def assigned_names(node: ast.AST) -> set[str]:
    """The names and attributes of self to which a target assigns."""
    return {dotted(n) for n in ast.walk(node) if isinstance(getattr(n, "ctx", None), ast.Store) and dotted(n)}


def stored_names(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(a.asname or a.name.split(".")[0]) for a in statement.names} - {"*"}
    if isinstance(statement, SCOPES):
        return {statement.name}
    return changed_names(statement) if isinstance(statement, ast.Assign | ast.AnnAssign) else set()


def changed_names(statement: ast.stmt) -> set[str]:
    """The names that a statement changes, in place as well."""
    found = assigned_names(statement)
    for node in ast.walk(statement):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            found.add(dotted(node.value))
        call = node.value.func if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
        if isinstance(call, ast.Attribute) and re.fullmatch(r"append|extend|.*(?<!grad)_", call.attr):
            owner = call.value
            while isinstance(owner, ast.Call) and isinstance(owner.func, ast.Attribute):
                owner = owner.func.value  # x.resize_(n).fill_(1)
            found.add(dotted(owner).removesuffix(".data"))
    return found - {""}


def read_names(node: ast.AST) -> set[str]:
    return {dotted(n) for n in ast.walk(node) if isinstance(getattr(n, "ctx", None), ast.Load) and dotted(n)}


def free_names(node: ast.AST) -> set[str]:
    """The names that a statement or an expression reads and does not bind itself."""
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Load) else set()
    used = set[str]().union(*map(free_names, ast.iter_child_nodes(node)))
    if isinstance(node, (*SCOPES, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        inner = list(ast.walk(node))
        bound = {n.id for n in inner if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        bound |= {n.arg for n in inner if isinstance(n, ast.arg)}
        bound |= {n.name for n in inner if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler) and n.name}
        bound |= set().union(*(stored_names(n) for n in inner if isinstance(n, ast.Import | ast.ImportFrom)))
        used -= bound
    return used


def reached_methods(part: ast.AST, node: ast.ClassDef) -> list[ast.AST]:
    """A method, and the methods of its class that it calls."""
    methods = {f"self.{one.name}": one for one in node.body if isinstance(one, Function) and one.name != "__init__"}
    methods["self"] = methods.get("self.forward", methods.get("self.__call__"))  # type: ignore[assignment]
    found: list[ast.AST] = [part]
    for one in found:
        for n in ast.walk(one):
            method = methods.get(dotted(n.func)) if isinstance(n, ast.Call) else None
            if method is not None and method not in found:
                found.append(method)
    return found


def uses_of_method(part: ast.AST, node: ast.ClassDef) -> Uses:
    """The uses of names in a method, and the calls in the methods of its class that it calls."""
    uses = uses_of(part)
    for one in reached_methods(part, node):
        uses.called = uses_of(one).called | uses.called
    return uses


def settings_of(tree: ast.Module) -> dict[str, Any]:
    """The defaults of a command line that argparse reads."""
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            name = next(
                (a.value for a in node.args if isinstance(a, ast.Constant) and str(a.value).startswith("--")), ""
            )
            for word in node.keywords:
                if word.arg == "default" and name:
                    with contextlib.suppress(ValueError):
                        found[str(name).lstrip("-").replace("-", "_")] = ast.literal_eval(word.value)
    return found


def endings(node: ast.ClassDef) -> list[list[ast.Call]]:
    """For each part of what a network returns: the calls that make it, the last of them first."""
    methods = {one.name: one for one in node.body if isinstance(one, Function)}
    forward = methods.get("forward", methods.get("__call__", methods.get("call")))
    made = {dotted(n.targets[0]): n.value for n in ast.walk(node) if isinstance(n, ast.Assign)}

    def calls(value: ast.AST | None, seen: tuple[str, ...] = ()) -> list[ast.Call]:
        name = dotted(value)
        if name:
            return [] if name in seen else calls(made.get(name), (*seen, name))
        if not isinstance(value, ast.Call):
            return []
        if called_name(value) == "Sequential":
            layers = [n for n in value.args if isinstance(n, ast.Call)]
            if any(isinstance(n, ast.Starred) for n in value.args):
                layers = [n for n in ast.walk(node) if isinstance(n, ast.Call) and dotted(n.func).startswith("nn.")]
                layers = [n for n in layers if called_name(n) not in ("Sequential", "ModuleList")]
            layers = sorted(layers, key=lambda n: (n.lineno, n.col_offset), reverse=True)
            return [one for layer in layers[:2] for one in calls(layer, seen)]
        inner = calls(value.args[0], seen) if value.args else []
        if dotted(value.func).startswith("self.") or dotted(value.func) in made:
            return [*calls(value.func, seen), *inner]
        return [value, *(calls(value.func.value, seen) if called_name(value) in RESHAPES else inner)]  # type: ignore[attr-defined]

    returns = [n.value for n in ast.walk(forward) if isinstance(n, ast.Return)] if forward else []
    parts = [part for value in returns for part in getattr(value, "elts", [value])]
    return [calls(part) for part in parts]


def root_of(node: ast.AST) -> ast.AST:
    """x of x.a().b."""
    while isinstance(node, ast.Call | ast.Attribute):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node


def called_name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else dotted(call.func)


def ends_in(node: ast.ClassDef, *layers: str) -> bool:
    """Whether a part of what a network returns comes from one of these layers: Sigmoid, Softmax, Linear."""
    ends = [[called_name(one).lower() for one in calls if called_name(one) not in RESHAPES] for calls in endings(node)]
    return any(end[0] in map(str.lower, layers) for end in ends if end)


def returns_column(node: ast.ClassDef) -> bool:
    """Whether a network returns [N, 1]: it ends in a linear layer of one output, before a sigmoid perhaps."""
    ends = [calls[1:] if calls and called_name(calls[0]).lower() == "sigmoid" else calls for calls in endings(node)]
    return (
        len(ends) == 1 and bool(ends[0]) and bool(re.search(r"Linear\(.*\b1(, bias=\w+)?\)$", ast.unparse(ends[0][0])))
    )
