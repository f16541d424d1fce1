"""Training loops: which .backward() calls belong to one loss, and the statements before them that make it."""

from __future__ import annotations

import ast
import copy
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

from ptarmigan.handbook.identify import syntax
from ptarmigan.handbook.identify.names import (
    PLAYERS,
    harmless_role,
    is_batch_size,
    network_of,
    player_of,
    side_of,
    words_of,
)
from ptarmigan.handbook.identify.uses import dotted

WRAPPERS = {"accelerator", "fabric", "engine", "self", "optimizer"}  # whose backward takes the loss


def is_stand_in(name: str, statement: ast.Assign | ast.AnnAssign) -> bool:
    """Whether the probe's own value takes the place of an assigned one: a batch size, a configuration."""
    if isinstance(statement.value, ast.Dict) and statement.value.keys:
        return False
    is_made = isinstance(statement.value, ast.Call) or ast.unparse(statement.value or ast.Name("")) in ("{}", "None")
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


def takes_data(statement: ast.Assign | ast.AnnAssign) -> bool:
    """Whether an assignment takes a part of a batch: images, _ = data, or data[0].to(device); or draws images."""
    value, text, names = statement.value, ast.unparse(statement), syntax.changed_names(statement)
    if any(isinstance(n, ast.Call) and network_of(dotted(n.func)) for n in ast.walk(value or ast.Pass())):
        return False
    if any("loss" in name.lower() for name in names):
        return False
    if any(isinstance(node, ast.Subscript) and _is_of_batch(node) for node in ast.walk(value or ast.Pass())):
        return True
    is_real = any(side_of(name) == "real" for name in names)
    words = {word for name in names for word in words_of(name)}
    if isinstance(value, ast.Name):
        return isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Tuple)
    if "randint(" in text and words & {"labels", "label", "y", "c", "classes"}:
        return True
    if re.search(r"\b(rand|randn|uniform|normal)\(", text) and (is_real or words & {"imgs", "images", "img"}):
        return True
    part = syntax.root_of(value) if value else None
    return isinstance(part, ast.Subscript) and isinstance(part.value, ast.Name) and isinstance(part.slice, ast.Constant)


def _is_of_batch(node: ast.Subscript) -> bool:
    """batch["images"] or data[0], and not config["batch_size"]."""
    owner, key = dotted(node.value), node.slice.value if isinstance(node.slice, ast.Constant) else None
    if key is None or is_batch_size(str(key)) or harmless_role(owner) == "config" or owner.endswith(".shape"):
        return False
    return isinstance(key, str) or bool({"data", "batch", "sample"} & set(words_of(owner)))


def backward_calls(body: list[ast.stmt], function: str = "") -> Iterator[tuple[ast.stmt, ast.expr, ast.expr | None]]:
    """(statement, loss, factor) of each .backward() in the order of the source."""
    dicts = {dotted(s.targets[0]): s.value for s in body if isinstance(s, ast.Assign) and isinstance(s.value, ast.Dict)}
    for statement in body:
        if isinstance(statement, syntax.SCOPES):
            continue
        blocks = syntax.blocks_of(statement)
        if any(blocks):
            for block in blocks:
                yield from backward_calls(block, function)
            continue
        if isinstance(statement, ast.Return) and function in ("training_step", "train_step"):
            value = statement.value
            value = value.args[0] if isinstance(value, ast.Call) and value.args else value
            value = dicts.get(dotted(value), value)
            if isinstance(value, ast.Dict):
                value = next((v for k, v in zip(value.keys, value.values, strict=True) if _is_word(k, "loss")), None)
            if value is not None and "loss" in dotted(value).lower():
                yield statement, value, None
        for node in ast.walk(statement):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner, attribute = node.func.value, node.func.attr
            is_given = attribute == "minimize" or (attribute == "gradient" and _takes_variables(node))
            is_given |= attribute == "backward" and bool(WRAPPERS & {*words_of(dotted(owner))[-1:]})
            if (is_given and node.args) or attribute == "manual_backward":
                yield statement, node.args[0], None
            elif attribute == "backward":
                if isinstance(owner, ast.Call) and dotted(owner.func).endswith(".scale") and owner.args:
                    owner = owner.args[0]
                yield statement, owner, node.args[0] if node.args else None


def _takes_variables(call: ast.Call) -> bool:
    """Whether a tape's gradient is that of a network's parameters, and not of images."""
    return len(call.args) > 1 and bool(re.search(r"variables|weights|params|vars\b|theta", ast.unparse(call.args[1])))


def _is_word(node: ast.expr | None, word: str) -> bool:
    return isinstance(node, ast.Constant) and node.value == word


def optimiser_steps(body: list[ast.stmt]) -> list[tuple[int, str]]:
    """(line, optimiser) of each .step()."""
    calls = [n for s in body for n in ast.walk(s) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    names = ("step", "apply_gradients", "minimize")
    found = [(n.lineno, dotted(n.args[0] if n.args and n.func.attr == "step" else n.func.value))  # type: ignore[attr-defined]
             for n in calls if n.func.attr in names]  # type: ignore[attr-defined]  # fmt: skip
    return sorted(found)


def groups_of(roots: list[Any], body: list[ast.stmt]) -> list[list[Any]]:
    """The losses between two steps belong to one player, if the last of them comes after the others."""
    groups: list[list[Any]] = []
    steps = optimiser_steps(body)
    for root in roots:
        step = next((line for line, _ in steps if line >= root[0].lineno), 0)
        player = player_of(dotted(root[1]).rsplit(".")[-1])
        if groups and (step or player):
            last = groups[-1][-1]
            same = next((line for line, _ in steps if line >= last[0].lineno), 0) == step
            same = same and player_of(dotted(last[1]).rsplit(".")[-1]) == player
            same = same and zeroed_before(body, root) in ("", zeroed_before(body, last))
            if same and last[0] in trail_before(body, root[0])[0]:
                groups[-1].append(root)
                continue
        groups.append([root])
    return groups


def zeroed_before(body: list[ast.stmt], root: Any) -> str:
    """The optimiser or network whose gradients the statement right before a .backward() zeroes, or ""."""
    for block in (
        b for s in body for n in ast.walk(s) if isinstance(n, ast.stmt) for b in [*syntax.blocks_of(n), body]
    ):
        if root[0] in block[1:]:
            before = block[block.index(root[0]) - 1]
            call = before.value if isinstance(before, ast.Expr) else None
            is_zeroed = (
                isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "zero_grad"
            )
            return dotted(call.func.value) if is_zeroed else ""  # type: ignore[union-attr]
    return ""


def _is_zero_grad(call: ast.expr | None) -> bool:
    return isinstance(call, ast.Call) and dotted(call.func).endswith(".zero_grad")


def step_between(body: list[ast.stmt], group: list[Any]) -> str:
    """The optimiser that steps after a .backward() and before the one whose gradients were zeroed for it, or ""."""
    names = [name for line, name in optimiser_steps(body) if line >= group[-1][0].lineno]
    own = zeroed_before(body, group[0])
    return names[0] if own in names[1:] and names[0] != own else ""


def known_as(group: list[Any]) -> str:
    """The name of a group's first loss."""
    return dotted(group[0][1]).rsplit(".")[-1] or "loss"


def players_of(groups: list[list[Any]], body: list[ast.stmt], function: syntax.Function | None) -> list[str | None]:
    """The player of each group; of two groups the one that shows none belongs to the other player."""
    found = [_player_of(body, group, function) for group in groups]
    other = {"d": "g", "g": "d"}
    return [one or other.get(found[1 - i] or "") for i, one in enumerate(found)] if len(found) == 2 else found


def _player_of(body: list[ast.stmt], group: list[Any], function: syntax.Function | None) -> str | None:
    """The player that the loss's name shows, the optimiser that is zeroed for it or steps next, or the function."""
    optimiser = next((name for line, name in optimiser_steps(body) if line >= group[-1][0].lineno), "")
    player = player_of(known_as(group))
    if player in ("d", "g"):
        return player
    for words in map(words_of, (zeroed_before(body, group[0]), optimiser, function.name if function else "")):
        for kind in ("d", "g"):
            is_named = [word[-1:] == kind and word[:-1] in ("opt", "optim", "optimizer") for word in words]
            if any(is_named) or PLAYERS[kind] & {*words}:
                return kind
    return None


def trail_before(body: list[ast.stmt], target: ast.stmt) -> tuple[list[ast.stmt], bool]:
    """The statements that run before `target`; loops that hold training steps count once."""
    before: list[ast.stmt] = []
    for statement in body:
        if statement is target:
            return before, True
        blocks = syntax.blocks_of(statement) if not isinstance(statement, syntax.SCOPES) else []
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


def loss_statements(
    body: list[ast.stmt], group: list[Any], is_safe: Callable[[ast.stmt], bool]
) -> tuple[list[ast.stmt], set[str]]:
    """The statements that make a group's loss and return it, and the names that they read from outside."""
    parts: dict[ast.stmt, ast.expr] = {}
    for statement, value, factor in group:
        value = ast.BinOp(value, ast.Mult(), factor) if factor else value
        parts[statement] = ast.BinOp(parts[statement], ast.Add(), value) if statement in parts else value
    trail, _ = trail_before(body, group[-1][0])
    steps = [*trail, group[-1][0]]
    names = {statement: f"_part{number}" for number, statement in enumerate(steps) if statement in parts}
    steps = [assignment(names[s], parts[s]) if s in names else s for s in steps]
    loads: list[ast.expr] = [ast.Name(name, ast.Load()) for name in names.values()]
    total = functools.reduce(lambda a, b: ast.BinOp(a, ast.Add(), b), loads)
    needed = {*names.values()}
    kept = _slice(copy.deepcopy(steps), needed, is_safe)
    return [*kept, ast.Return(total)], {name for name in needed if "." not in name}


def _slice(statements: list[ast.stmt], needed: set[str], is_safe: Callable[[ast.stmt], bool]) -> list[ast.stmt]:
    """The statements that define the needed names; `needed` becomes the names that they read from outside."""
    kept: list[ast.stmt] = []
    given = set[str]()
    for statement in reversed(statements):
        targets = syntax.changed_names(statement)
        if not targets & needed or isinstance(statement, (*syntax.SCOPES, ast.Import, ast.ImportFrom)):
            continue
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            is_given = takes_data(statement) or all(is_stand_in(name, statement) for name in targets)
            if is_given or not is_safe(statement):
                given |= targets & needed  # an earlier value is not the one that the loss sees
                needed -= targets
                continue
        if isinstance(statement, ast.If | ast.With | ast.For | ast.While | ast.Try):
            statement = _prune(statement, needed, is_safe)
        elif isinstance(statement, ast.Expr):
            statement = out_of_place(statement, next(iter(targets)))
            needed |= syntax.read_names(statement)
        else:
            if isinstance(statement, ast.Assign):
                needed -= {name for target in statement.targets for name in syntax.assigned_names(target)}
            needed |= syntax.read_names(statement)
        kept.append(statement)
    needed |= given
    return kept[::-1]


def _prune(statement: ast.stmt, needed: set[str], is_safe: Callable[[ast.stmt], bool]) -> ast.stmt:
    """A compound statement with those statements of its blocks that define the needed names."""
    statement = copy.copy(statement)
    if isinstance(statement, ast.Try):
        statement = ast.If(ast.Constant(True), statement.body, [])
    if isinstance(statement, ast.With):
        statement.body = _slice(statement.body, needed, is_safe) or [ast.Pass()]
        needed |= set().union(*map(syntax.read_names, statement.items))
        return statement
    after = set(needed)
    if isinstance(statement, ast.For | ast.While):
        _slice(statement.body, after, is_safe)
        after |= needed
    for part in ("body", "orelse"):
        inner = set(after)
        block = _slice(getattr(statement, part), inner, is_safe)
        setattr(statement, part, block or ([ast.Pass()] if part == "body" else []))
        needed |= inner
    needed |= syntax.read_names(statement.iter if isinstance(statement, ast.For) else statement.test)  # type: ignore[attr-defined]
    needed -= syntax.assigned_names(statement.target) if isinstance(statement, ast.For) else set()
    return statement
