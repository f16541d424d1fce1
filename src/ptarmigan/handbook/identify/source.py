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
import re
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ptarmigan.core.types import unknown
from ptarmigan.handbook.identify import loops, syntax, tolerant
from ptarmigan.handbook.identify.code import Code
from ptarmigan.handbook.identify.instances import instances
from ptarmigan.handbook.identify.keras import expand_training
from ptarmigan.handbook.identify.missing import LIBRARIES, USUAL, import_path, is_missing, stand_in
from ptarmigan.handbook.identify.names import (
    CRITERIA,
    LOSS_NAMES,
    harmless_role,
    is_batch_size,
    is_loss_name,
    is_loss_step,
    network_of,
    words_of,
)
from ptarmigan.handbook.identify.signature import LossError, describe_error
from ptarmigan.handbook.identify.text import parsed, place, places
from ptarmigan.handbook.identify.uses import Uses, dotted, uses_of

UNSAFE = {"load", "open", "parse_args", "parse_known_args", "DataLoader", "ArgumentParser", "next", "iter", "input",
          "run", "train", "fit", "read", "imread", "download", "makedirs", "mkdir", "get", "init", "system", "exit",
          "Popen", "load_state_dict", "urlopen", "ImageFolder", "sleep"}  # fmt: skip
D_RETURNS = (  # field of Code, its value, and what the class of D shows
    ("on", "probabilities", lambda node: syntax.ends_in(node, "sigmoid")),
    ("on", "logits", lambda node: syntax.ends_in(node, "sigmoid", "linear", "conv2d")),
    ("bounded", True, lambda node: syntax.ends_in(node, "tanh", "hardtanh", "hardsigmoid", "softsign")),
    ("class_on", "probabilities", lambda node: syntax.ends_in(node, "softmax")),
    ("form", "column", syntax.returns_column),
)
Made = tuple[str, Callable[[], list[Code]]]  # the name of a loss, and what makes its codes


class Program:
    """A file's syntax tree, and the part of the module that was needed so far."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.tree = path, syntax.cleaned(parsed(text, str(path)))
        self.place = functools.partial(place, text.splitlines())
        expand_training(self.tree)
        self.scope: dict[str, Any] = {"__name__": f"ptarmigan_runs_{path.stem}", "__ptarmigan_place__": self.place}
        self.bound: dict[str, ast.stmt] = {}
        self.stars: list[str] = []
        self.failures: dict[str, str] = {}  # why a definition could not be executed
        for statement in syntax.flat_statements(self.tree.body):
            if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
                self.stars.append(statement.module or "")
            for name in syntax.stored_names(statement):
                self.bound.setdefault(name, statement)
        nodes = list(ast.walk(self.tree))
        self.often = Counter(n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        self.stored = syntax.assigned_names(self.tree) | {n.arg for n in nodes if isinstance(n, ast.arg)}
        for node in (n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)):
            self.bound = dict.fromkeys(syntax.stored_names(node), node) | self.bound
        self.free: dict[str, set[str]] = {}
        self.judged = set[str]()  # the definitions that are looked at as losses, whatever their names
        self.defining = set[str]()  # a class may read a global that is made of it
        calls = [dotted(n.func) for n in nodes if isinstance(n, ast.Call)]
        self.owners = {name.split(".")[0] for name in calls if "." in name and network_of(name.rsplit(".")[-1])}
        self.settings = syntax.settings_of(self.tree)
        networks = [s for s in self.tree.body if isinstance(s, ast.ClassDef) and network_of(s.name) == "D"]
        self.ends: dict[str, Any] = {}  # what the file's D returns
        for key, value, check in D_RETURNS:
            if networks and all(map(check, networks)):
                self.ends.setdefault(key, value)

    def imports(self) -> set[str]:
        """The imported names that definitions use."""
        used = set[str]().union(*(syntax.free_names(s) for s in self.bound.values() if isinstance(s, syntax.SCOPES)))
        return {name for name in used if isinstance(self.bound.get(name), ast.Import | ast.ImportFrom)}

    def need(self, names: Iterable[str]) -> set[str]:
        """Define these names in the scope; returns those, and those that they need, which have no definition."""
        open_names = set[str]()
        for name in sorted(names):
            statement = self.bound.get(name)
            if isinstance(statement, ast.Assign | ast.AnnAssign) and loops.is_stand_in(name, statement):
                open_names.add(name)
            elif name in self.defining:
                continue
            elif name in self.scope or hasattr(builtins, name):
                open_names |= self.free.get(name, set())
            elif isinstance(statement, ast.Import | ast.ImportFrom):
                self._import(name, statement)
            elif isinstance(statement, syntax.Function) and network_of(name, strict=True) and name not in self.judged:
                open_names.add(name)  # a network that is written as a function
            elif statement is None and name in USUAL:
                exec(USUAL[name], self.scope)
            elif statement is None and any(self._from_star(module, name) for module in self.stars):
                pass
            elif self._is_absent(name) and name[:2].istitle():
                self.scope[name] = stand_in("a module", name)
            elif statement is None or not self._is_definition(statement):
                open_names.add(name)
            else:
                self.defining.add(name)
                inner = self.need(syntax.free_names(statement) - {name})
                self.defining.remove(name)
                self.free[name] = inner
                if isinstance(statement, syntax.SCOPES):
                    open_names |= inner
                elif inner:
                    open_names.add(name)
                    continue
                if not self._defined(name, statement):
                    open_names.add(name)
        return open_names

    def run(self, statement: ast.stmt, local: dict[str, Any] | None = None) -> None:
        """Execute a statement; those of a definition may fail later, see `tolerant`."""
        self.scope.setdefault(tolerant.HERE, tolerant)
        exec(compile(ast.Module([tolerant.guarded(statement)], []), str(self.path), "exec"), self.scope, local)

    def _defined(self, name: str, statement: ast.stmt) -> bool:
        """Execute a definition; the names without one that its defaults read are not known."""
        for _ in range(9):
            try:
                self.run(statement)
                return True
            except NameError as error:
                self.failures[name], absent = f": {describe_error(error)}", str(error.name)
                self.scope[absent], self.free[absent] = stand_in("", absent), {absent}
            except Exception as error:
                self.failures[name] = f": {describe_error(error)}"
                break
        return False

    def _import(self, name: str, statement: ast.Import | ast.ImportFrom) -> None:
        one = next(a for a in statement.names if (a.asname or a.name.split(".")[0]) == name)
        module = statement.module or "" if isinstance(statement, ast.ImportFrom) else one.name
        single = copy.copy(statement)
        single.names = [one]
        try:
            self.run(single)
        except Exception:
            self.scope[name] = stand_in(module or one.name, one.name)
            if (module or one.name).split(".")[0] in LIBRARIES:
                self.scope[name] = importlib.import_module(f"{__package__}.tensorflow").imported(one.name)

    def _from_star(self, module: str, name: str) -> bool:
        with contextlib.suppress(Exception):
            self.scope[name] = getattr(importlib.import_module(module), name)
            return True
        return False

    def _is_absent(self, name: str) -> bool:
        """Whether a name comes from a module that is not here."""
        statement = self.bound.get(name)
        if statement is None and name and name not in self.stored | USUAL.keys() and not hasattr(builtins, name):
            return any(importlib.util.find_spec(module.split(".")[0] or "-") is None for module in self.stars)
        return statement is not None and is_missing(statement, name)

    def _is_definition(self, statement: ast.stmt) -> bool:
        if isinstance(statement, syntax.SCOPES):
            return True
        value = getattr(statement, "value", None)
        if ast.unparse(value or statement) == "None" and any(
            self.often[one] > 1 for one in syntax.stored_names(statement)
        ):
            return False  # it gets a value later
        return isinstance(statement, ast.Assign | ast.AnnAssign) and value is not None and self.is_safe(statement)

    def is_safe(self, statement: ast.stmt) -> bool:
        """Whether an assignment may be executed: it makes no network, reads no data and starts nothing."""
        value = getattr(statement, "value", None) or statement
        first = dotted(syntax.root_of(value))
        is_class = isinstance(self.bound.get(first), ast.ClassDef | ast.Import | ast.ImportFrom)
        is_sure = any(re.match(r"(self\.)?(net|model)_?[DG]\b|.*(generator|discriminator)$", one)
                      for one in syntax.changed_names(statement))  # fmt: skip
        asks_network = network_of(first) and not is_class and not is_sure and not re.match("[A-Z][a-z]{2}", first)
        is_array = first in ("np", "numpy", "torch") and "nn." not in ast.unparse(value)
        is_made = isinstance(value, ast.Call | ast.Tuple) and not asks_network and not is_array
        is_made = is_made and "Loss" not in ast.unparse(value)
        if is_made and any(network_of(one, True) for one in syntax.changed_names(statement)):
            return False
        calls = [n for n in ast.walk(value) if isinstance(n, ast.Call)]
        given = syntax.read_names(value) - {dotted(n.func) for n in calls} - {first}
        takes_data = network_of(first) or any(not harmless_role(name) and not name.isupper() for name in given)
        is_criterion = first[:1].isupper() and bool(CRITERIA & {*words_of(first)})
        is_criterion |= "losses" in import_path(self.bound.get(first), first).split(".")
        if isinstance(value, ast.Call) and not takes_data and self._is_absent(first) and not is_criterion:
            return False
        if self.owners & syntax.changed_names(statement):
            return False
        called = [syntax.called_name(node).strip("_") for node in calls]
        return not any(one in UNSAFE or re.match(r"(next|read|load|download)_", one) for one in called)

    # --- which losses there are ---

    def losses(self, names: list[str]) -> Iterator[Made]:
        """(name, what makes its codes) of each loss, or of those named.  Raises UserError for an unknown name."""
        for name in names:
            yield name, functools.partial(self.named, name)
        for statement in [] if names else syntax.flat_statements(self.tree.body):
            if isinstance(statement, syntax.Function):
                inner = [one for one in ast.walk(statement) if isinstance(one, syntax.Function)]
                trained = [one for one in inner if list(loops.backward_calls(one.body))]
                for one in trained:
                    yield from self.inline(one.body, one)
                is_loss = is_loss_name(statement.name) or (is_loss_step(statement.name) and syntax.asks_d(statement))
                if not trained and is_loss:
                    yield statement.name, functools.partial(self.named, statement.name)
            elif isinstance(statement, ast.ClassDef):
                yield from self._losses_of_class(statement)
            elif isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Lambda | ast.Call):
                is_partial = isinstance(statement.value, ast.Lambda) or dotted(statement.value.func).endswith("partial")
                for name in syntax.changed_names(statement):
                    if is_partial and is_loss_name(name):
                        yield name, functools.partial(self.named, name)
        if not names:
            yield from self.inline(self.tree.body, None)

    def _losses_of_class(self, node: ast.ClassDef) -> Iterator[Made]:
        methods = [one for one in node.body if isinstance(one, syntax.Function)]
        asking = {one.name for one in methods if is_loss_step(one.name) and syntax.asks_d(one, node)}
        outer = {one.name for one in methods if one.name in asking and asking & syntax.called_methods(one) - {one.name}}
        forward = [one for one in methods if one.name in ("forward", "__call__", "call")]
        inner = {dotted(n.func)[5:] for one in forward for n in ast.walk(one) if isinstance(n, ast.Call)}
        is_loss = bool(LOSS_NAMES.search(node.name)) and not network_of(node.name) and not syntax.networks_of(node)
        is_loss = is_loss or "loss" in node.name.lower()
        for method in methods:
            if list(loops.backward_calls(method.body, method.name)):
                yield from self.inline(method.body, method, node)
            elif method.name in ("forward", "__call__", "call") and is_loss:
                yield node.name, functools.partial(self.named, node.name)
            elif (is_loss and method.name in inner) or method.name in outer:
                continue  # a part of the whole
            elif method.name in asking or (is_loss_name(method.name) and method.name != "forward"):
                yield f"{node.name}.{method.name}", functools.partial(self.named, f"{node.name}.{method.name}")

    def public(self) -> list[str]:
        statements = syntax.flat_statements(self.tree.body)
        return [s.name for s in statements if isinstance(s, syntax.Function | ast.ClassDef)]

    def named(self, name: str) -> list[Code]:
        """The codes of FUNCTION, CLASS, CLASS("argument") or CLASS.METHOD; raises UserError."""
        found = re.fullmatch(r"(\w+)(\(.*\))?(?:\.(\w+))?", name, re.S)
        head, arguments, method = found.groups() if found else (name, None, None)
        node = self.bound.get(head)
        if node is None or isinstance(node, ast.Import | ast.ImportFrom):
            raise unknown("function", name, [s for s, _ in self.losses([])] or self.public())
        open_names = self._define(head)
        if isinstance(node, ast.ClassDef):
            return self._of_class(self.scope[head], node, arguments, method)
        return self._of_function(name, self.scope[head], node, open_names)

    def _define(self, name: str) -> set[str]:
        """Execute a definition; returns the names without one that it needs.  Raises LossError if it fails."""
        self.judged.add(name)
        open_names = self.need([name])
        if isinstance(self.bound[name], ast.ClassDef):
            self.need(open_names)
        if name not in self.scope:
            raise LossError(f"the definition of {name} cannot be executed{self.failures.get(name, '')}")
        return open_names

    def _of_function(self, name: str, function: Any, node: ast.stmt, open_names: set[str]) -> list[Code]:
        inner = {one.name: one for one in ast.walk(node) if isinstance(one, syntax.Function) and one is not node}
        if inner and not inspect.signature(function).parameters:  # it makes losses
            made = function()
            made = [one for one in (made if isinstance(made, tuple | list) else [made]) if callable(one)]
            return [
                self._code(f"{name}.{one.__name__}", one, uses_of(inner[one.__name__]), open_names)
                for one in made
                if one.__name__ in inner
            ]
        uses, unread = uses_of(node), syntax.changed_names(node) - syntax.read_names(node)
        for called in open_names & uses.called.keys():
            if close := difflib.get_close_matches(called, unread, 1):
                raise LossError(f"{called} is not defined; {close[0]} is assigned and never used: is it misspelt?")
        return [self._code(name, function, uses, open_names)]

    def _of_class(self, cls: Any, node: ast.ClassDef, arguments: str | None, method: str | None) -> list[Code]:
        methods = {one.name: one for one in node.body if isinstance(one, syntax.Function)}
        if method and not hasattr(cls, method):
            raise unknown("function", f"{node.name}.{method}", [f"{node.name}.{one}" for one in methods])
        key = method or ("__call__" if "__call__" in vars(cls) else "forward")
        part, whole, found = methods.get(key, node), uses_of(node), []
        for label, instance in instances(self, cls, node, arguments):
            uses = syntax.uses_of_method(part, node)
            uses.words |= whole.words
            uses.flags |= whole.flags
            outer = self.need(set[str]().union(*map(syntax.free_names, syntax.reached_methods(part, node))))
            outer |= self._attributes(instance, part, node)
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
            key for key in uses.words if key.startswith("self.") and type(made.get(key[5:])).__name__ == "Unknown"
        }
        names = {*outer, *inspect.signature(getattr(function, "forward", function)).parameters}
        ends = self.ends if any(network_of(one) == "D" for one in names) else {}
        absent = self._made_elsewhere() - ({*names} - outer if "inline" not in more else set())
        more |= {"settings": self.settings, "absent": absent}
        return Code(name, function, uses, tuple(sorted(outer)), place, **ends, **more)

    def _made_elsewhere(self) -> frozenset[str]:
        """The names, not of networks, of what a module makes that is not here and has no stand-in."""
        found = {name for name in self.bound if self._is_absent(name)}
        for n in ast.walk(self.tree):
            name = dotted(n.targets[0]) if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call) else ""
            if name and (name.startswith("self.") or self.bound.get(name) is n):
                found |= {name} if self._is_absent(dotted(syntax.root_of(n.value))) else set()  # type: ignore[attr-defined]
        held = {name: type(self.scope.get(name)).__name__ for name in found}
        return frozenset(name for name in found if held[name] in ("NoneType", "Unknown") and not network_of(name))

    def _attributes(self, instance: Any, part: ast.AST, node: ast.ClassDef) -> set[str]:
        """The attributes of self that have to be given: the networks, and what __init__ could not make."""
        attributes = [
            n for one in syntax.reached_methods(part, node) for n in ast.walk(one) if isinstance(n, ast.Attribute)
        ]
        made = {dotted(n) for n in attributes if isinstance(n.ctx, ast.Store)}
        read = {dotted(n) for n in attributes if isinstance(n.ctx, ast.Load)} - made
        owners = {".".join(name.split(".")[:2]) for name in read if name.count(".") > 1}  # self.x of self.x.y
        read = {name for name in read if name.startswith("self.") and name.count(".") == 1}
        read -= {f"self.{one.name}" for one in node.body if isinstance(one, syntax.Function)}
        held = {name: getattr(instance, name[5:], None) for name in uses_of(part).called}
        called = {name for name, value in held.items() if not callable(value) or type(value).__name__ == "Unknown"}
        called |= {name for name in owners if getattr(instance, name[5:], None) is None}
        return {name for name in read
                if network_of(name, True) or is_batch_size(name) or name in called or not hasattr(instance, name[5:])
                }  # fmt: skip

    # --- training loops ---

    def inline(
        self, body: list[ast.stmt], function: syntax.Function | None, node: ast.ClassDef | None = None
    ) -> Iterator[Made]:
        """The losses of a training loop: for each optimiser's step, the statements from which its gradients follow."""
        batches = [n.target for s in body for n in ast.walk(s) if isinstance(n, ast.For)]
        data = frozenset[str]().union(*map(syntax.assigned_names, batches))
        groups = loops.groups_of(list(loops.backward_calls(body, function.name if function else "")), body)
        for group, player in zip(groups, loops.players_of(groups, body, function), strict=True):
            known = loops.known_as(group)
            lines = sorted({statement.lineno for statement, _, _ in group})
            label = f"{known} ({places(self.place, lines)})"
            steps, live = loops.loss_statements(body, group, self.is_safe)
            asked = {dotted(n.func) for s in steps for n in ast.walk(s) if isinstance(n, ast.Call)}
            asked = {name for name in asked if network_of(name) == "D"}
            if node and "(self.parameters()" in ast.unparse(node) and any(name.startswith("self.") for name in asked):
                yield label, functools.partial(_refuse, "one optimiser minimises it in all parameters, D's and G's")
            elif asked:
                facts = {"kind": player, "steps_first": loops.step_between(body, group)}
                yield label, functools.partial(self._fragment, label, known, steps, live, node, data, facts)
            elif len(steps) > 2 and not any(is_loss_step(one) or is_loss_name(one) for one in self._called(steps)):
                yield label, functools.partial(_refuse, self._why_unjudged(steps))

    def _called(self, steps: list[ast.stmt]) -> set[str]:
        """The functions and methods of the file that statements call: they are judged by themselves."""
        calls = {dotted(n.func) for s in steps for n in ast.walk(s) if isinstance(n, ast.Call)}
        methods = {n.name for n in ast.walk(self.tree) if isinstance(n, syntax.Function)}
        return {name.removeprefix("self.") for name in calls} & methods

    def _why_unjudged(self, steps: list[ast.stmt]) -> str:
        """Why the loss of a training loop is not judged."""
        calls = [dotted(n.func) for s in steps for n in ast.walk(s) if isinstance(n, ast.Call)]
        calls = [name for name in calls if not name.startswith(("F.", "torch.", "nn."))]
        calls = [name for name in calls if name not in self.stored or name in self._made_elsewhere()]
        absent = [name for name in calls if re.search("(?i)loss|criterion", name.rsplit(".")[-1])]
        if not absent:
            return "no call of a discriminator is seen in what makes it"
        return f"it comes from {absent[-1]}, which is not here: give the file that defines it"

    def _fragment(
        self, label: str, name: str, steps: list[ast.stmt], live: set[str], node: ast.ClassDef | None,
        data: frozenset[str], facts: dict[str, Any]
    ) -> list[Code]:  # fmt: skip
        """A training loop's loss as a function of the networks and the data."""
        instance = None
        if node is not None:
            self._define(node.name)
            instance = instances(self, self.scope[node.name], node)[0][1]
        firsts: dict[str, ast.stmt] = {}
        for statement in steps:
            firsts = dict.fromkeys(syntax.changed_names(statement), statement) | firsts
        made = {one for one, statement in firsts.items() if one in live and one in syntax.read_names(statement)}
        inside = ast.parse(f"def {name}(): pass").body[0]
        assert isinstance(inside, ast.FunctionDef)
        inside.body = steps
        given = self.need(syntax.free_names(inside) - ({"self"} if node else set())) | made
        read_by_helpers = given & set[str]().union(*self.free.values())
        given -= read_by_helpers
        arguments = sorted(given, key=lambda one: ("DG".find(network_of(one) or " ") % 3, one))
        inside.args.args = [ast.arg(one, None) for one in ([*(["self"] if node else []), *arguments])]
        for one in ast.walk(inside):
            if "lineno" in one._attributes:
                one.lineno = one.end_lineno = getattr(one, "lineno", 1)  # type: ignore[attr-defined]
                one.col_offset = one.end_col_offset = 0  # type: ignore[attr-defined]
        scope: dict[str, Any] = {}
        self.run(inside, scope)
        loss = types.MethodType(scope[name], instance) if node else scope[name]
        outer = (self._attributes(instance, inside, node) if node else set()) | read_by_helpers
        uses = syntax.uses_of_method(inside, node) if node else uses_of(inside)
        uses.drawn = data
        return [self._code(label, loss, uses, outer, instance, inline=ast.unparse(inside), **facts)]


def _refuse(reason: str) -> list[Code]:
    raise LossError(reason)
