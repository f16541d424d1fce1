"""Statements that may fail: what a loss does not depend on (logs, process groups, files) need not work here.

`guarded` rewrites each statement of a function so that `lost` decides what a failure means.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Mapping
from typing import Any

from ptarmigan.handbook.identify.names import network_of, side_of
from ptarmigan.handbook.identify.signature import LossError, Stops, describe_error
from ptarmigan.handbook.identify.syntax import SCOPES, Function, blocks_of, changed_names, read_names
from ptarmigan.handbook.identify.uses import dotted

HERE = "__ptarmigan__"  # the name of this module where the rewritten code runs


def guarded(statement: ast.stmt) -> ast.stmt:
    """A copy of a definition in which a statement that fails calls `lost` with its error."""
    statement = copy.deepcopy(statement)
    for node in list(ast.walk(statement)):
        if isinstance(node, Function):
            prelude = ast.parse(_prelude(node)).body
            node.body = [*(ast.copy_location(one, node.body[0]) for one in prelude), *_block(node.body)]
    return ast.fix_missing_locations(statement)


def _here(name: str) -> ast.expr:
    return ast.Attribute(ast.Name(HERE, ast.Load()), name, ast.Load())


def _prelude(node: Function) -> str:
    """Code that binds the names which only a branch binds."""
    statements = [s for s in node.body if not isinstance(s, SCOPES)]
    sure = set[str]().union(*(changed_names(s) for s in statements if not any(blocks_of(s))))
    stored = {n.id for s in statements for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    declared = {name for n in ast.walk(node) if isinstance(n, ast.Global | ast.Nonlocal) for name in n.names}
    names = sorted(stored - sure - declared - {n.arg for n in ast.walk(node.args) if isinstance(n, ast.arg)})
    bound = "".join(f"{name} = {HERE}.unknown({name!r}); " for name in names)
    return f"if {HERE}.is_tolerant(): {bound}" if names else ""


def is_tolerant() -> bool:
    from ptarmigan.handbook.identify.unseen import NOW

    return NOW[-1].tolerant


def unknown(name: str) -> Any:
    from ptarmigan.handbook.identify.unseen import Facts, Unknown

    return Unknown(Facts(name, side_of(name) or "", base=name))


def _block(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        heads = [statement] if isinstance(statement, ast.If | ast.For) else getattr(statement, "items", [])[:1]
        for head in heads:
            part = next(key for key in ("test", "iter", "context_expr") if hasattr(head, key))
            value = getattr(head, part)
            made = ast.Assign([ast.Name("__part__", ast.Store())], value)
            yield _guard(ast.copy_location(made, value))
            setattr(head, part, ast.copy_location(ast.Name("__part__", ast.Load()), value))
        if isinstance(statement, ast.If | ast.For | ast.While | ast.With):
            statement.body = list(_block(statement.body))
            if not isinstance(statement, ast.With):
                statement.orelse = list(_block(statement.orelse))
        is_simple = isinstance(statement, ast.Assign | ast.AugAssign | ast.Expr | ast.Return | ast.Assert)
        is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        yield _guard(statement) if is_simple and not is_text else statement


def _guard(statement: ast.stmt) -> ast.stmt:
    calls = [dotted(n.func) for n in ast.walk(statement) if isinstance(n, ast.Call)]
    asks = any(network_of(name, strict=True) == "D" for name in calls)
    targets: list[ast.expr] = statement.targets if isinstance(statement, ast.Assign) else []
    added: list[ast.expr] = [statement.target] if isinstance(statement, ast.AugAssign) else []
    label = ast.unparse([*targets, *added, ast.Name("")][0])
    is_mutation = isinstance(statement, ast.Expr) and bool(changed_names(statement))
    is_needed = is_mutation or isinstance(statement, ast.Return)
    reads = ast.Tuple([ast.Constant(name) for name in sorted(read_names(statement))], ast.Load())
    named = [ast.keyword("label", ast.Constant(label)), ast.keyword("asks", ast.Constant(asks)),
             ast.keyword("is_needed", ast.Constant(is_needed))]  # fmt: skip
    named += [ast.keyword("before", _loaded(one)) for one in added]
    given = [ast.Name("__error__", ast.Load()), ast.Call(ast.Name("locals", ast.Load()), [], []), reads]
    value = ast.Call(_here("lost"), given, named)
    handler: ast.stmt = ast.Return(value) if isinstance(statement, ast.Return) else ast.Expr(value)
    if targets or added:
        handler = ast.Assign(copy.deepcopy(targets or added), value)
    ast.copy_location(handler, statement)
    handlers = [ast.ExceptHandler(ast.Name("Exception", ast.Load()), "__error__", [handler])]
    return ast.copy_location(ast.Try([statement], handlers, [], []), statement)


def _loaded(target: ast.expr) -> ast.expr:
    loaded = copy.deepcopy(target)
    loaded.ctx = ast.Load()  # type: ignore[attr-defined]
    return loaded


def lost(
    error: Exception, local: Mapping[str, Any], reads: tuple[str, ...], *, label: str, asks: bool, is_needed: bool,
    before: Any = None,
) -> Any:  # fmt: skip
    """The value that a failed statement is given; raises the error again where there can be none.

    The value is an Unknown, or `before` if the statement was to add to it.  If D's outputs take part in it, the error
    is raised where the loss uses the value.
    """
    from ptarmigan.handbook.identify import unseen

    now, trace = unseen.NOW[-1], error.__traceback__
    if not now.tolerant or isinstance(error, Stops):
        raise error
    seen = [_value(local, name) for name in reads]
    while trace is not None and (trace := trace.tb_next) is not None:
        seen += trace.tb_frame.f_locals.values()
    if asks or isinstance(error, LossError) or any(unseen.is_output(one) for one in unseen.flat(seen)):
        if is_needed or not label:
            raise error
        cause = error if isinstance(error, LossError) else LossError(describe_error(error))
        return unseen.Unknown(unseen.Facts(label, scored=True, cause=cause))
    now.lost.setdefault(label, describe_error(error))
    return unknown(label) if before is None else before


def _value(local: Mapping[str, Any], name: str) -> Any:
    """The value of a.b.c among local names."""
    first, *rest = name.split(".")
    value = local.get(first)
    for part in rest:
        value = vars(value).get(part) if hasattr(value, "__dict__") else None
    return value
