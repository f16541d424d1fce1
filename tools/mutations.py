"""Every single change of a syntax tree: of a sign, operator, constant, condition, call, name or statement."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Sequence

NAMES = {"real": "fake", "r": "f", "x": "g", "real_labels": "fake_labels", "real_target": "fake_target", "D": "G"}
ATTRIBUTES = {
    "r1": "r2", "opt_d": "opt_g", "D": "G", "d": "g", "mean": "sum", "square": "abs", "logits": "class_logits",
    "real": "fake", "grad": "data", "logical_or_": "logical_and_", "relu": "silu",
}  # fmt: skip
for table in (NAMES, ATTRIBUTES):
    table.update({b: a for a, b in list(table.items())})
OPERATORS: dict[type[ast.operator], Sequence[type[ast.operator]]] = {
    ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult], ast.Pow: [ast.Mult],
}  # fmt: skip
COMPARISONS: dict[type[ast.cmpop], Sequence[type[ast.cmpop]]] = {
    ast.Lt: [ast.LtE, ast.GtE], ast.LtE: [ast.Lt, ast.Gt], ast.Gt: [ast.GtE, ast.LtE], ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is],
}  # fmt: skip
NO_VALUES = ("annotation", "returns", "decorator_list", "bases", "msg", "type_comment", "ctx")

Steps = tuple[tuple[str, int | None], ...]  # the path from the module to a node: fields, with an index in a list


def negated(node: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.USub(), node)


def numeric(node: ast.AST | None) -> bool:
    """Whether the node could be a number or a tensor."""
    return isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.BinOp | ast.Subscript)


def swapped(items: Sequence[ast.expr], i: int, j: int) -> list[ast.expr]:
    out = list(items)
    out[i], out[j] = out[j], out[i]
    return out


def without(items: Sequence[ast.AST], i: int) -> list[ast.AST]:
    return [*items[:i], *items[i + 1 :]]


def changed(node: ast.AST, **fields: object) -> ast.AST:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """Every single change of this node itself, not of its children."""
    yield from of_expression(node)
    yield from of_statement(node)


def of_expression(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.BinOp(left, op, right):
            for other in OPERATORS.get(type(op), ()):
                yield ast.BinOp(left, other(), right)
            yield from (left, right)
            if isinstance(op, ast.Add | ast.Sub | ast.Mult | ast.Div):
                yield ast.BinOp(negated(left), op, right)
        case ast.UnaryOp(_, operand):
            yield operand
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield from (ast.Constant(v) for v in dict.fromkeys((value + 1, 2 * value, -value, 0)) if v != value)
        case ast.Constant(str() as value):
            yield from (ast.Constant(v) for v in (("mean", "sum") if value == "none" else (value + "_",)))
        case ast.Compare(left, [op], right):
            yield from (ast.Compare(left, [other()], right) for other in COMPARISONS.get(type(op), ()))
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
            yield from values
        case ast.IfExp(test, body, orelse):
            yield from (body, orelse, ast.IfExp(test, orelse, body))
        case ast.Call(function, arguments, keywords):
            yield from calls(node, function, arguments, keywords)
        case ast.Dict(keys, values):
            yield from of_dict(keys, values)
        case ast.DictComp(_, value) if numeric(value):
            yield changed(node, value=negated(value))
        case ast.Tuple(elements, ast.Load()) | ast.List(elements, ast.Load()):
            for i in range(len(elements)):
                yield changed(node, elts=without(elements, i))
                if i:
                    yield changed(node, elts=swapped(elements, i - 1, i))
        case ast.Name(name, ast.Load()) if name in NAMES:
            yield ast.Name(NAMES[name], ast.Load())
        case ast.Attribute(value, name, ast.Load()) if name in ATTRIBUTES:
            yield ast.Attribute(value, ATTRIBUTES[name], ast.Load())


def of_dict(keys: list[ast.expr | None], values: list[ast.expr]) -> Iterator[ast.AST]:
    """The dict without an entry, with the sign of a value flipped, or with two values swapped."""
    for i, value in enumerate(values):
        yield ast.Dict(without(keys, i), without(values, i))
        if numeric(value):
            yield ast.Dict(keys, [*values[:i], negated(value), *values[i + 1 :]])
        if i:
            yield ast.Dict(keys, swapped(values, i - 1, i))


def of_statement(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.If(test):
            for new in (ast.UnaryOp(ast.Not(), test), ast.Constant(True), ast.Constant(False)):
                yield changed(node, test=new)
        case ast.Return(value) if numeric(value):
            yield ast.Return(negated(value))
        case ast.With(_, body):
            yield ast.If(ast.Constant(True), body, [])
        case ast.Assign(targets, value):
            if numeric(value):
                yield changed(node, value=negated(value))
            if not isinstance(targets[0], ast.Name | ast.Tuple):
                yield ast.Pass()
        case ast.Expr() | ast.Assert() | ast.For() | ast.AugAssign():
            yield ast.Pass()


def calls(
    node: ast.Call, function: ast.expr, arguments: list[ast.expr], keywords: list[ast.keyword]
) -> Iterator[ast.AST]:
    """The call without its function, without an argument, with two arguments swapped, or with a sign flipped."""
    if arguments:
        yield arguments[0]
    if isinstance(function, ast.Attribute):
        yield function.value
    for i, argument in enumerate(arguments):
        if len(arguments) > 1:
            yield changed(node, args=without(arguments, i))
        for j in range(i):
            yield changed(node, args=swapped(arguments, i, j))
        if numeric(argument):
            yield changed(node, args=[*arguments[:i], negated(argument), *arguments[i + 1 :]])
    values = [keyword.value for keyword in keywords]

    def renamed(new: Sequence[ast.expr]) -> list[ast.keyword]:
        return [ast.keyword(old.arg, value) for old, value in zip(keywords, new, strict=True)]

    for i, value in enumerate(values):
        yield changed(node, keywords=without(keywords, i))
        for j in range(i):
            yield changed(node, keywords=renamed(swapped(values, i, j)))
        if numeric(value):
            yield changed(node, keywords=renamed([*values[:i], negated(value), *values[i + 1 :]]))


def nodes(node: ast.AST, path: Steps = (), scope: str = "") -> Iterator[tuple[ast.AST, Steps, str]]:
    """Every node that takes part in the computation, with the path to it and the name of its function."""
    if isinstance(node, ast.Import | ast.ImportFrom) or is_alias(node, path) or is_docstring(node):
        return
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        scope = f"{scope}.{node.name}"
    yield node, path, scope
    for field, value in ast.iter_fields(node):
        if field in NO_VALUES:
            continue
        for i, child in enumerate(value) if isinstance(value, list) else ((None, value),):
            if isinstance(child, ast.AST):
                yield from nodes(child, (*path, (field, i)), scope)


def is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def is_alias(node: ast.AST, path: Steps) -> bool:
    """Whether the node is a type alias at module level: X = A | None."""
    return len(path) == 1 and isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp)


def replaced(tree: ast.Module, path: Steps, new: ast.AST) -> ast.Module:
    """A copy of the tree with the node at the end of the path replaced."""
    tree = copy.deepcopy(tree)
    at: ast.AST = tree
    for n, (field, i) in enumerate(path):
        held = getattr(at, field)
        if n == len(path) - 1:
            new = copy.deepcopy(new)
            if i is None:
                setattr(at, field, new)
            else:
                held[i] = new
        else:
            at = held if i is None else held[i]
    return ast.fix_missing_locations(tree)
