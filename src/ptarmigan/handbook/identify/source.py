"""Stage 1 of source -> signature -> call -> measure -> diagnose -> answer: the losses of a file, without running it.

A Program holds the syntax tree.  Of the module's statements it executes the imports, constants and definitions that a
loss needs, and nothing else.  The statements of a training loop from which a `.backward()` follows become a function.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import copy
import difflib
import functools
import importlib.util
import inspect
import json
import re
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptarmigan.core.types import UserError, unknown
from ptarmigan.handbook.identify.loops import (
    assignment,
    backward_calls,
    groups_of,
    is_stand_in,
    out_of_place,
    player_after,
    takes_data,
    trail_before,
)
from ptarmigan.handbook.identify.missing import Quiet, is_missing, stand_in
from ptarmigan.handbook.identify.signature import (
    LossError,
    Uses,
    describe_error,
    dotted,
    is_batch_size,
    network_of,
    player_of,
    uses_of,
)
from ptarmigan.handbook.identify.syntax import (
    SCOPES,
    Function,
    assigned_names,
    changed_names,
    cleaned,
    ends_in,
    flat_statements,
    free_names,
    reached_methods,
    read_names,
    returns_column,
    settings_of,
    stored_names,
)

LOSS_NAMES = re.compile(
    r"loss|criterion|bce|hinge|gan(?!ize)|adv|cross_?entropy|mse|critic|objective|cost|err[dg]?(_|$)|saturating|minimax|"
    r"wasserstein|least_?squares|relativistic|discriminator_|generator_|(^|_)(d|g|class|cls|aux|ce)(_|$)",
    re.I,
)
ACTIONS = re.compile(
    r"(train|test|eval|fit|make|build|init|sample|update|run|main|define|create|get|weights)(_|$)", re.I
)
UNSAFE = {"load", "open", "parse_args", "parse_known_args", "DataLoader", "ArgumentParser", "next", "iter",
          "input",
          "run", "train", "fit", "read", "imread", "download", "makedirs", "mkdir", "get", "init", "system", "exit",
          "Popen", "load_state_dict", "urlopen", "ImageFolder", "sleep"}  # fmt: skip
D_RETURNS = (  # field of Code, its value, and what the class of D shows
    ("on", "probabilities", lambda node: ends_in(node, "sigmoid")),
    ("on", "logits", lambda node: ends_in(node, "sigmoid", "linear", "conv2d")),
    ("class_on", "probabilities", lambda node: ends_in(node, "softmax")),
    ("form", "column", returns_column),
)
CELL = "# ptarmigan: code cell {}"
USUAL = {  # imports that a pasted fragment leaves out
    "torch": "import torch", "nn": "from torch import nn", "F": "import torch.nn.functional as F",
    "math": "import math",
    "np": "import numpy as np", "autograd": "from torch import autograd", "random": "import random",
    "Variable": "from torch.autograd import Variable", "grad": "from torch.autograd import grad",
    "Tensor": "from torch import FloatTensor as Tensor", "LongTensor": "from torch import LongTensor",
    "FloatTensor": "from torch import FloatTensor", "partial": "from functools import partial",
    "functools": "import functools",
}  # fmt: skip


@dataclass
class Code:
    """A loss in a file, or one that is given: what to call, and the names that it reads from outside."""

    name: str
    function: Callable[..., Any]
    uses: Uses = field(default_factory=Uses)
    outer: tuple[str, ...] = ()  # names of globals, or "self.x", that are given like parameters
    place: Callable[[str, Any], None] = lambda name, value: None  # sets one of them
    kind: str | None = None  # the player, where its statements show it
    on: str | None = None  # "probabilities", where D's definition ends in a sigmoid; "logits", where in a linear layer
    class_on: str | None = None  # the same, where its class output ends in a softmax
    form: str = ""  # "column", where D's definition ends in a linear layer of one output
    inline: str = ""  # the statements of a training loop, as a function
    data: frozenset[str] = frozenset()  # the names of the batches that its loops draw
    settings: dict[str, Any] = field(default_factory=dict)  # the defaults of the command line
    fixed: dict[str, Any] = field(default_factory=dict)  # the values of outer names that the source compares with words

    def choices(self) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
        """(word, fixed, settings) for each word with which a configuration that is not known is compared."""
        for name, words in self.uses.words.items():
            start, _, last = name.rpartition(".")
            if name in self.outer:
                return [(word, {name: word}, self.settings) for word in dict.fromkeys(words)]
            if start in self.outer and last not in self.settings:
                return [(word, {}, self.settings | {last: word}) for word in dict.fromkeys(words)]
        return [("", {}, self.settings)]


def code_of(function: Any, name: str) -> Code:
    """A callable of this process; its source is read where it can be found."""
    owner = getattr(function, "func", function)
    owner = owner if inspect.isroutine(owner) else next((c for c in type(owner).__mro__ if "__call__" in vars(c)), None)
    if not inspect.isroutine(owner):
        is_module = str(getattr(owner, "__module__", "")).startswith("torch")
        owner = getattr(type(function), "forward", None) if is_module else getattr(owner, "__call__", None)  # noqa: B004
    with contextlib.suppress(OSError, TypeError, SyntaxError):
        return Code(name, function, uses_of(ast.parse(inspect.cleandoc("\n" + inspect.getsource(owner)))))
    return Code(name, function)


def read_source(path: Path) -> str:
    """The Python text of a file, of standard input ("-"), or of the code cells of a notebook; raises UserError."""
    if str(path) == "-":
        import sys

        return sys.stdin.read()
    if not path.is_file():
        raise UserError(f"{path} {'is not a file' if path.exists() else 'does not exist'}", "file-unreadable")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if path.suffix != ".ipynb":
        return text
    try:
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        sources = ["".join(cell["source"]) for cell in cells]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not a notebook: it has no list of cells", "file-unreadable") from None
    kept = []
    for number, source in enumerate(sources, 1):
        lines = ["pass" if line.lstrip()[:1] in ("%", "!", "?") else line for line in source.splitlines()]
        with contextlib.suppress(SyntaxError):
            ast.parse("\n".join(lines))
            kept += [CELL.format(number), re.sub(r"(?m)^(\s*)([%!?].*)$", r"\1pass", source)]
    return "\n".join(kept)


class Program:
    """A file's syntax tree, and the part of the module that was needed so far."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.tree = path, cleaned(ast.parse(text, str(path)))
        self.lines = text.splitlines()
        self.scope: dict[str, Any] = {"__name__": f"ptarmigan_runs_{path.stem}", "__ptarmigan_place__": self.place}
        self.bound: dict[str, ast.stmt] = {}
        self.stars: list[str] = []
        for statement in flat_statements(self.tree.body):
            if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
                self.stars.append(statement.module or "")
            for name in stored_names(statement):
                self.bound.setdefault(name, statement)
        self.free: dict[str, set[str]] = {}
        Quiet({name for name, s in self.bound.items() if is_missing(s)}).visit(self.tree)
        ast.fix_missing_locations(self.tree)
        self.settings = settings_of(self.tree)
        networks = [s for s in self.tree.body if isinstance(s, ast.ClassDef) and network_of(s.name) == "D"]
        self.ends: dict[str, Any] = {}  # what the file's D returns
        for key, value, check in D_RETURNS:
            if networks and all(map(check, networks)):
                self.ends.setdefault(key, value)

    def place(self, line: int) -> str:
        """line 7, or in a notebook: code cell 3, line 7."""
        for i in range(line - 1, -1, -1):
            if marker := re.fullmatch(CELL.format(r"(\d+)"), self.lines[i]):
                return f"code cell {marker[1]}, line {line - 1 - i}"
        return f"line {line}"

    def imports(self) -> set[str]:
        """The imported names that definitions use."""
        used = set[str]().union(*(free_names(s) for s in self.bound.values() if isinstance(s, SCOPES)))
        return {name for name in used if isinstance(self.bound.get(name), ast.Import | ast.ImportFrom)}

    def need(self, names: Iterable[str], only_imports: bool = False) -> set[str]:
        """Define these names in the scope; returns those, and those that they need, which have no definition."""
        open_names = set[str]()
        for name in sorted(names):
            statement = self.bound.get(name)
            if isinstance(statement, ast.Assign | ast.AnnAssign) and is_stand_in(name, statement):
                open_names.add(name)
            elif name in self.scope or hasattr(builtins, name):
                open_names |= self.free.get(name, set())
            elif isinstance(statement, ast.Import | ast.ImportFrom):
                self._import(name, statement)
            elif statement is None and name in USUAL:
                exec(USUAL[name], self.scope)
            elif statement is None and any(self._from_star(module, name) for module in self.stars):
                pass
            elif statement is None or not self._is_definition(statement):
                open_names.add(name)
            elif not isinstance(statement, SCOPES) or not only_imports:
                self.free[name] = set()
                inner = self.need(free_names(statement) - {name}, only_imports)
                self.free[name] = inner
                if isinstance(statement, SCOPES):
                    open_names |= inner
                elif inner:
                    open_names.add(name)
                    continue
                try:
                    self._run(statement)
                except Exception:
                    open_names.add(name)
        return open_names

    def _run(self, statement: ast.stmt, local: dict[str, Any] | None = None) -> None:
        exec(compile(ast.Module([statement], []), str(self.path), "exec"), self.scope, local)

    def _import(self, name: str, statement: ast.Import | ast.ImportFrom) -> None:
        one = next(a for a in statement.names if (a.asname or a.name.split(".")[0]) == name)
        module = statement.module or "" if isinstance(statement, ast.ImportFrom) else one.name
        single = copy.copy(statement)
        single.names = [one]
        try:
            self._run(single)
        except Exception:
            self.scope[name] = stand_in(module or one.name, one.name)

    def _from_star(self, module: str, name: str) -> bool:
        with contextlib.suppress(Exception):
            self.scope[name] = getattr(importlib.import_module(module), name)
            return True
        return False

    def _is_definition(self, statement: ast.stmt) -> bool:
        if isinstance(statement, SCOPES):
            return True
        value = getattr(statement, "value", None)
        return isinstance(statement, ast.Assign | ast.AnnAssign) and value is not None and self.is_safe(statement)

    def is_safe(self, statement: ast.stmt) -> bool:
        """Whether an assignment may be executed: it makes no network, reads no data and starts nothing."""
        value = getattr(statement, "value", None) or statement
        first = value
        while isinstance(first, ast.Call | ast.Attribute):
            first = first.func if isinstance(first, ast.Call) else first.value
        is_network = isinstance(first, ast.Name) and network_of(first.id) and not re.match("[A-Z][a-z]{2}", first.id)
        made = isinstance(self.bound.get(dotted(first)), ast.ClassDef | ast.Import | ast.ImportFrom)
        is_network = is_network and not made
        if (
            isinstance(value, ast.Call | ast.Tuple)
            and not is_network
            and any(network_of(one, True) for one in changed_names(statement))
        ):
            return False
        for node in ast.walk(value):
            if not isinstance(node, ast.Call):
                continue
            name = dotted(node.func) or (node.func.attr if isinstance(node.func, ast.Attribute) else "")
            last = name.rsplit(".")[-1].strip("_")
            if last in UNSAFE or re.match(r"(next|read|load|download)_", last):
                return False
        return True

    # --- which losses there are ---

    def losses(self, names: list[str]) -> Iterator[tuple[str, Callable[[], list[Code]]]]:
        """(name, what makes its codes) of each loss, or of those named.  Raises UserError for an unknown name."""
        for name in names:
            yield name, functools.partial(self.named, name)
        for statement in [] if names else flat_statements(self.tree.body):
            if isinstance(statement, Function):
                loops = [
                    one for one in ast.walk(statement) if isinstance(one, Function) and list(backward_calls(one.body))
                ]
                for one in loops:
                    yield from self.inline(one.body, one)
                if loops:
                    continue
                if _is_loss(statement.name):
                    yield statement.name, functools.partial(self.named, statement.name)
            elif isinstance(statement, ast.ClassDef):
                yield from self._losses_of_class(statement)
            elif isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Lambda | ast.Call):
                is_partial = isinstance(statement.value, ast.Lambda) or dotted(statement.value.func).endswith("partial")
                for name in changed_names(statement):
                    if is_partial and _is_loss(name):
                        yield name, functools.partial(self.named, name)
        if not names:
            yield from self.inline(self.tree.body, None)

    def _losses_of_class(self, node: ast.ClassDef) -> Iterator[tuple[str, Callable[[], list[Code]]]]:
        methods = [one for one in node.body if isinstance(one, Function)]
        forward = [one for one in methods if one.name in ("forward", "__call__", "call")]
        inner = {dotted(n.func)[5:] for one in forward for n in ast.walk(one) if isinstance(n, ast.Call)}
        is_loss = bool(LOSS_NAMES.search(node.name)) and not network_of(node.name) and not _networks(node)
        is_loss = is_loss or "loss" in node.name.lower()
        for method in methods:
            if list(backward_calls(method.body, method.name)):
                yield from self.inline(method.body, method, node)
            elif method.name in ("forward", "__call__", "call") and is_loss:
                yield node.name, functools.partial(self.named, node.name)
            elif is_loss and method.name in inner:
                continue  # a part of the whole
            elif method.name[0] != "_" and method.name != "forward" and _is_loss(method.name):
                yield f"{node.name}.{method.name}", functools.partial(self.named, f"{node.name}.{method.name}")

    def public(self) -> list[str]:
        return [
            s.name for s in flat_statements(self.tree.body) if isinstance(s, SCOPES) and not isinstance(s, ast.Lambda)
        ]

    def named(self, name: str) -> list[Code]:
        """The codes of FUNCTION, CLASS, CLASS("argument") or CLASS.METHOD; raises UserError."""
        head, arguments, method = re.fullmatch(r"(\w+)(\(.*\))?(?:\.(\w+))?", name, re.S).groups()  # type: ignore[union-attr]
        node = self.bound.get(head)
        if node is None or isinstance(node, ast.Import | ast.ImportFrom):
            raise unknown("function", name, [s for s, _ in self.losses([])] or self.public())
        if not isinstance(node, ast.ClassDef):
            open_names = self.need([head])
            if head not in self.scope:
                raise LossError("it is not defined where the file's constants and definitions alone are executed")
            inner = [one for one in ast.walk(node) if isinstance(one, Function) and one is not node]
            if inner and not inspect.signature(self.scope[head]).parameters:  # it makes losses
                made = self.scope[head]()
                made = [one for one in (made if isinstance(made, tuple | list) else [made]) if callable(one)]
                nodes = {one.name: one for one in inner}
                return [
                    self._code(f"{name}.{one.__name__}", one, uses_of(nodes[one.__name__]), open_names)
                    for one in made
                    if one.__name__ in nodes
                ]
            uses = uses_of(node)
            unread = changed_names(node) - read_names(node)
            for called in open_names & uses.called.keys():
                if close := difflib.get_close_matches(called, unread, 1):
                    raise LossError(f"{called} is not defined; {close[0]} is assigned and never used: is it misspelt?")
            return [self._code(name, self.scope[head], uses, open_names)]
        self.need(self.need([head]))
        if head not in self.scope:
            raise LossError("it is not defined where the file's constants and definitions alone are executed")
        cls, found = self.scope[head], []
        if method and not hasattr(cls, method):
            raise unknown("function", name, [f"{head}.{one.name}" for one in node.body if isinstance(one, Function)])
        for label, instance in self.instances(cls, node, arguments):
            key = method or ("__call__" if "__call__" in vars(cls) else "forward")
            part = next((one for one in node.body if isinstance(one, Function) and one.name == key), node)
            uses, whole = uses_of(part), uses_of(node)
            uses.words |= whole.words
            uses.flags |= whole.flags
            for one in reached_methods(part, node):
                uses.called |= uses_of(one).called | uses.called
            outer = self.need(free_names(part)) | self._attributes(instance, part, node)
            label = f"{label}.{method}" if method else label
            found.append(self._code(label, getattr(instance, key), uses, outer, instance))
        return found

    def _code(
        self, name: str, function: Any, uses: Uses, outer: Iterable[str], instance: Any = None, **more: Any
    ) -> Code:
        def place(key: str, value: Any) -> None:
            if key.startswith("self."):
                with contextlib.suppress(Exception):
                    vars(instance).get("_modules", {}).pop(key[5:], None)
                    setattr(instance, key[5:], value)
            else:
                self.scope[key] = value

        made = vars(instance) if instance is not None else {}
        outer = {*outer} | {
            key for key in uses.words if key.startswith("self.") and type(made.get(key[5:])).__name__ == "Config"
        }
        names = {*outer, *inspect.signature(getattr(function, "forward", function)).parameters}
        ends = self.ends if any(network_of(one) == "D" for one in names) else {}
        return Code(name, function, uses, tuple(sorted(outer)), place, settings=self.settings, **ends, **more)

    def _attributes(self, instance: Any, part: ast.AST, node: ast.ClassDef) -> set[str]:
        """The attributes of self that have to be given: the networks, and what __init__ could not make."""
        attributes = [n for one in reached_methods(part, node) for n in ast.walk(one) if isinstance(n, ast.Attribute)]
        made = {dotted(n) for n in attributes if isinstance(n.ctx, ast.Store)}
        read = {dotted(n) for n in attributes if isinstance(n.ctx, ast.Load)} - made
        read = {name for name in read if name.startswith("self.") and name.count(".") == 1}
        read -= {f"self.{one.name}" for one in node.body if isinstance(one, Function)}
        called = {name for name in uses_of(part).called if not callable(getattr(instance, name[5:], None))}
        return {name for name in read
                if network_of(name, True) or is_batch_size(name) or name in called or not hasattr(instance, name[5:])
                }  # fmt: skip

    def instances(self, cls: Any, node: ast.ClassDef, arguments: str | None = None) -> list[tuple[str, Any]]:
        """(label, instance) of a class: with the arguments told, else with each choice that the source shows."""
        if arguments:
            return [(f"{cls.__name__}{arguments}", eval(f"_cls{arguments}", self.scope | {"_cls": cls}))]
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
        found = []
        for choice in choices:
            label = cls.__name__ + (f"({next(iter(choice.values()))!r})" if choice else "").replace("'", '"')
            try:
                found.append((label, self._instance(cls, node, [p.name for p in needed], choice)))
            except Exception as error:
                if len(choices) == 1:
                    raise LossError(f"an instance cannot be made: {describe_error(error, cls)}") from None
        return found

    def _instance(self, cls: Any, node: ast.ClassDef, needed: list[str], choice: dict[str, Any]) -> Any:
        """An instance; if a class owns networks, or needs what is not known, with those attributes that can be made."""
        from ptarmigan.handbook.identify.call import harmless

        values = {name: harmless(name, self.settings) for name in needed} | choice
        if not _networks(node) and "retrained" not in ast.unparse(node):
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
                    is_layer = bool(re.search(r"\bnn\.|Loss\(", ast.unparse(statement)))
                    is_wanted = is_layer and bool(names) and not any(hasattr(instance, name) for name in names)
                is_network = any(network_of(name, True) for name in changed_names(statement))
                if is_wanted and not is_network and self.is_safe(statement):
                    with contextlib.suppress(Exception):
                        self.need(free_names(statement))
                        self._run(statement, local)
        return instance

    # --- training loops ---

    def inline(
        self, body: list[ast.stmt], function: Function | None, node: ast.ClassDef | None = None
    ) -> Iterator[tuple[str, Callable[[], list[Code]]]]:
        """The losses of a training loop: for each optimiser's step, the statements from which its gradients follow."""
        for group in groups_of(list(backward_calls(body, function.name if function else "")), body):
            lines = sorted({statement.lineno for statement, _, _ in group})
            known = dotted(group[0][1]).rsplit(".")[-1] or "loss"
            where = ", ".join(map(self.place, lines))
            if len(lines) > 1 and "cell" not in where:
                where = f"lines {', '.join(map(str, lines))}"
            maker = functools.partial(self._fragment, f"{known} ({where})", known, body, group, function, node)
            if self._asks_a_network(body, group):
                yield f"{known} ({where})", maker

    def _asks_a_network(self, body: list[ast.stmt], group: list[Any]) -> bool:
        function = self._statements(body, group)
        calls = [dotted(n.func) for s in function for n in ast.walk(s) if isinstance(n, ast.Call)]
        return any(network_of(call) == "D" for call in calls)

    def _statements(self, body: list[ast.stmt], group: list[Any]) -> list[ast.stmt]:
        parts: dict[ast.stmt, ast.expr] = {}
        for statement, value, factor in group:
            value = ast.BinOp(value, ast.Mult(), factor) if factor else value
            parts[statement] = ast.BinOp(parts[statement], ast.Add(), value) if statement in parts else value
        trail, _ = trail_before(body, group[-1][0])
        steps: list[ast.stmt] = []
        for number, statement in enumerate([*trail, group[-1][0]]):
            if statement in parts:
                steps.append(assignment(f"_part{number}", parts[statement]))
            else:
                steps.append(statement)
        wanted = {name for s in steps for name in changed_names(s) if name.startswith("_part")}
        names: list[ast.expr] = [ast.Name(name, ast.Load()) for name in sorted(wanted, key=lambda n: int(n[5:]))]
        total = functools.reduce(lambda a, b: ast.BinOp(a, ast.Add(), b), names)
        kept = self._slice(steps, wanted)
        self.live = {name for name in wanted if "." not in name}
        return [*kept, ast.Return(total)]

    def _slice(self, statements: list[ast.stmt], needed: set[str]) -> list[ast.stmt]:
        """The statements that define the needed names; `needed` becomes the names that they read from outside."""
        kept: list[ast.stmt] = []
        for statement in reversed(statements):
            targets = changed_names(statement)
            if not targets & needed or isinstance(statement, (*SCOPES, ast.Import, ast.ImportFrom)):
                continue
            if isinstance(statement, ast.Assign | ast.AnnAssign) and (
                not self.is_safe(statement)
                or takes_data(statement)
                or all(is_stand_in(name, statement) for name in targets)
            ):
                continue
            if isinstance(statement, ast.If | ast.With | ast.For | ast.While | ast.Try):
                statement = self._prune(statement, needed)
            elif isinstance(statement, ast.Expr):
                statement = out_of_place(statement, next(iter(targets)))
                needed |= read_names(statement)
            else:
                if isinstance(statement, ast.Assign):
                    needed -= {name for target in statement.targets for name in assigned_names(target)}
                needed |= read_names(statement)
            kept.append(statement)
        return kept[::-1]

    def _prune(self, statement: ast.stmt, needed: set[str]) -> ast.stmt:
        """A compound statement with those statements of its blocks that define the needed names."""
        statement = copy.copy(statement)
        if isinstance(statement, ast.Try):
            statement = ast.If(ast.Constant(True), statement.body, [])
        if isinstance(statement, ast.With):
            statement.body = self._slice(statement.body, needed) or [ast.Pass()]
            needed |= set().union(*map(read_names, statement.items))
            return statement
        after = set(needed)
        if isinstance(statement, ast.For | ast.While):
            self._slice(statement.body, after)
            after |= needed
        for part in ("body", "orelse"):
            inner = set(after)
            block = self._slice(getattr(statement, part), inner)
            setattr(statement, part, block or ([ast.Pass()] if part == "body" else []))
            needed |= inner
        needed |= read_names(statement.iter if isinstance(statement, ast.For) else statement.test)  # type: ignore[attr-defined]
        needed -= assigned_names(statement.target) if isinstance(statement, ast.For) else set()
        return statement

    def _fragment(
        self,
        label: str,
        known: str,
        body: list[ast.stmt],
        group: list[Any],
        function: Function | None,
        node: ast.ClassDef | None,
    ) -> list[Code]:
        """A training loop's loss as a function of the networks and the data."""
        steps = [copy.deepcopy(statement) for statement in self._statements(body, group)]
        name = re.sub(r"\W", "_", known)
        instance = None
        if node is not None:
            self.need(self.need([node.name]))
            instance = next(iter(self.instances(self.scope[node.name], node)))[1]
        firsts = {name: next(s for s in steps if name in changed_names(s)) for s in steps for name in changed_names(s)}
        made = {name for name, s in firsts.items() if name in self.live and name in read_names(s)}
        inside = ast.parse(f"def {name}(): pass").body[0]
        assert isinstance(inside, ast.FunctionDef)
        inside.body = steps
        taken = self.need(free_names(inside) - {"self"})
        arguments = sorted(taken | made, key=lambda one: ("DG".find(network_of(one) or " ") % 3, one))
        inside.args.args = [ast.arg(one, None) for one in ([*(["self"] if node else []), *arguments])]
        for one in ast.walk(inside):
            if "lineno" in one._attributes:
                one.lineno = one.end_lineno = getattr(one, "lineno", 1)  # type: ignore[attr-defined]
                one.col_offset = one.end_col_offset = 0  # type: ignore[attr-defined]
        scope: dict[str, Any] = {}
        self._run(inside, scope)
        loss = types.MethodType(scope[name], instance) if node else scope[name]
        outer = self._attributes(instance, inside, node) if node else set()
        player = player_of(known) if player_of(known) in ("d", "g") else player_after(body, group, function)
        uses = uses_of(inside)
        for one in reached_methods(inside, node) if node else []:
            uses.called = uses_of(one).called | uses.called
        loops = [n.target for s in body for n in ast.walk(s) if isinstance(n, ast.For)]
        data = frozenset().union(*map(assigned_names, loops))
        return [self._code(label, loss, uses, outer, instance, kind=player, inline=ast.unparse(inside), data=data)]


def _networks(node: ast.ClassDef) -> set[str]:
    """The attributes of self that the methods of a class call as networks."""
    calls = {dotted(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}
    return {name for name in calls if name.startswith("self.") and network_of(name)}


def _is_loss(name: str) -> bool:
    is_named = bool(LOSS_NAMES.search(name)) or "penalty" in name.lower()
    is_action = bool(ACTIONS.match(name)) and "loss" not in name.lower()
    return is_named and not is_action and not re.match(r"_|(plot|show|save|load|log|print)_", name)
