"""What a syntax tree says: its statements, the names that they read and change, the layers in which a network ends."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator
from typing import Any

from ptarmigan.handbook.identify.names import network_of
from ptarmigan.handbook.identify.uses import RESHAPES, Uses, dotted, uses_of

DECORATORS = {"staticmethod", "classmethod", "property", "dataclass", "no_grad", "inference_mode", "contextmanager"}
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
TYPED = re.compile(r"float|double|half|long|int|bool|dtype|type|like")  # .to() changes more than the device
NEUTRAL = re.compile(r"autocast|profile|record_function|detect_anomaly|accumulate\(|no_sync|amp\.")
HIDDEN = re.compile(r"(?i)relu|norm|elu|swish|dropout|pool")  # layers inside a network
WRAPPERS = {"DataParallel", "DistributedDataParallel", "DDP"}  # of networks
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Plain(ast.NodeTransformer):
    """Without what changes no value: annotations, most decorators, moves to a device, Variable, autocast."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.name = _unmangled(node.name)
        named = [(dotted(d.func if isinstance(d, ast.Call) else d).rsplit(".")[-1], d) for d in node.decorator_list]
        node.decorator_list = [decorator for name, decorator in named if name in DECORATORS]
        if isinstance(node, Function):
            node.returns = None
            if node.args.kwarg and f"{node.args.kwarg.arg}['" in ast.unparse(node):  # def forward(self, **batch)
                node.args.args.append(node.args.kwarg)
                node.args.kwarg = None
        return node

    visit_AsyncFunctionDef = visit_ClassDef = visit_FunctionDef  # type: ignore[assignment]  # noqa: N815

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        node.attr = _unmangled(node.attr)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        more = [*node.args, *(word.value for word in node.keywords if word.arg not in ("non_blocking", "volatile"))]
        is_wrapped = dotted(node.func).rsplit(".")[-1] in WRAPPERS or dotted(node.func) == "torch.compile"
        if (dotted(node.func).rsplit(".")[-1] == "Variable" and len(more) == 1) or is_wrapped:
            return node.args[0] if node.args else node
        if dotted(node.func) == "torch.Tensor":
            node.func.attr = "FloatTensor"  # type: ignore[attr-defined]
        if dotted(node.func).startswith("torch.") or called_name(node).startswith("new_"):
            node.keywords = [
                word for word in node.keywords if word.arg not in ("device", "pin_memory", "requires_grad")
            ]
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        is_move = name in ("cuda", "cpu", "half", "bfloat16")
        is_move |= name == "to" and not TYPED.search(" ".join(map(ast.unparse, more)))
        return node.func.value if is_move else node  # type: ignore[attr-defined]

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        target = node.targets[0]
        if ast.unparse(target) == ast.unparse(node.value):
            return ast.copy_location(ast.Pass(), node)  # self.D = self.D.cuda()
        if not isinstance(target, ast.Attribute) or target.attr != "requires_grad":
            return node
        asked = ast.Call(ast.Attribute(target.value, "requires_grad_", ast.Load()), [], [])
        is_on = isinstance(node.value, ast.Constant) and node.value.value is True
        return ast.copy_location(ast.Expr(asked) if is_on else ast.Pass(), node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        self.generic_visit(node)
        is_log = isinstance(node.value, ast.Call) and called_name(node.value) == "append"
        is_log = is_log and ".data[0]" in ast.unparse(node)  # which today's PyTorch refuses
        return ast.copy_location(ast.Pass(), node) if is_log else node

    def visit_With(self, node: ast.With) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        texts = {item: ast.unparse(item.context_expr) for item in node.items}
        node.items = [item for item, text in texts.items() if not NEUTRAL.search(text)]
        return node if node.items else ast.copy_location(ast.If(ast.Constant(True), node.body, []), node)


def _unmangled(name: str) -> str:
    """_name of __name, which Python renames in a class."""
    return name[1:] if name.startswith("__") and not name.endswith("__") else name


def cleaned(tree: ast.Module) -> ast.Module:
    """The tree without what changes no value."""
    Plain().visit(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            _name_networks(node)
    _name_trained(tree)
    return ast.fix_missing_locations(tree)


def _name_networks(node: ast.ClassDef) -> None:
    """Let the names in a class show what is D and what is G: self.m = Discriminator(), or self(x) in the class of D."""
    names: dict[str, str] = {}
    for n in ast.walk(node):
        if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call) and dotted(n.targets[0]).startswith("self."):
            maker, name = called_name(n.value), dotted(n.targets[0])
            if maker[:1].isupper() and len(maker) > 2 and network_of(maker) and not network_of(name):
                new = _free("discriminator" if network_of(maker) == "D" else "generator", node)
                names[name] = new + "_x" * [*names.values()].count(new)
    forward = next((one for one in node.body if isinstance(one, Function) and one.name == "forward"), node)
    returned = [n.value for n in ast.walk(forward) if isinstance(n, ast.Return)]
    is_d = returned and all(isinstance(n, ast.Call) and network_of(dotted(n.func)) == "D" for n in returned)
    if network_of(node.name) == "D" or is_d:
        names |= {"self": "discriminator", "self.forward": "discriminator"}
    for n in ast.walk(node):
        if isinstance(n, ast.Attribute) and names.get(dotted(n)) and dotted(n) != "self.forward":
            n.attr = names[dotted(n)]
        elif isinstance(n, ast.Call) and dotted(n.func) in ("self", "self.forward") and dotted(n.func) in names:
            n.func = ast.parse("self.discriminator", mode="eval").body


def _name_trained(tree: ast.Module) -> None:
    """Let the name of D show it, where all other networks with an optimiser are G by their names."""
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and called_name(n) == "parameters"]
    trained = {dotted(n.func).removesuffix(".parameters") for n in calls} - {"", "self"}
    unclear = [name for name in trained if network_of(name) is None]
    called = {dotted(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    if len(unclear) != 1 or len(trained) < 2 or unclear[0] not in called or any(map(_is_d, trained)):
        return
    last, new = unclear[0].rsplit(".")[-1], _free("discriminator", tree)
    for n in ast.walk(tree):
        for key in ("id", "attr", "arg"):
            if getattr(n, key, None) == last:
                setattr(n, key, new)


def _free(name: str, node: ast.AST) -> str:
    """The name of a network that a class or a file does not use yet."""
    return f"{name}_x" if name in {getattr(n, "attr", getattr(n, "id", "")) for n in ast.walk(node)} else name


def _is_d(name: str) -> bool:
    return network_of(name) == "D"


def flat_statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, and those inside its if, try and with."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With):
            for block in blocks_of(statement):
                yield from flat_statements(block)


def blocks_of(statement: ast.stmt | ast.Module) -> list[list[ast.stmt]]:
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
        if isinstance(call, ast.Attribute) and re.fullmatch(r"append|extend|.*_", call.attr):
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


def called_methods(part: ast.AST) -> set[str]:
    return {dotted(n.func).removeprefix("self.") for n in ast.walk(part) if isinstance(n, ast.Call)}


def asks_d(part: ast.AST, node: ast.ClassDef | None = None) -> bool:
    """Whether a function, or a method of a class, returns something and asks a network D."""
    parts = reached_methods(part, node) if node else [part]
    calls = [n for one in parts for n in ast.walk(one) if isinstance(n, ast.Call)]
    has_value = any(isinstance(n, ast.Return) and n.value for n in ast.walk(part))
    return has_value and any(network_of(dotted(n.func)) == "D" for n in calls)


def networks_of(node: ast.ClassDef) -> set[str]:
    """The attributes of self that the methods of a class call as networks."""
    calls = {dotted(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}
    return {name for name in calls if name.startswith("self.") and network_of(name)}


def uses_of_method(part: ast.AST, node: ast.ClassDef) -> Uses:
    """The uses of names in a method, and the calls in the methods of its class that it calls."""
    uses = uses_of(part)
    for one in reached_methods(part, node):
        uses.called = uses_of(one).called | uses.called
    return uses


def settings_of(tree: ast.Module) -> dict[str, Any]:
    """The defaults of a command line that argparse reads."""
    found: dict[str, Any] = {}
    made = {dotted(n.targets[0]): n.value for n in tree.body if isinstance(n, ast.Assign) and dotted(n.targets[0])}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            name = next(
                (a.value for a in node.args if isinstance(a, ast.Constant) and str(a.value).startswith("--")), ""
            )
            for word in node.keywords:
                if word.arg == "default" and name:
                    with contextlib.suppress(ValueError):
                        found[str(name).lstrip("-").replace("-", "_")] = ast.literal_eval(
                            made.get(dotted(word.value), word.value)
                        )
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
        if method := methods.get(dotted(value.func).removeprefix("self.")):
            ways = [calls(n.value, (*seen, method.name)) for n in ast.walk(method) if isinstance(n, ast.Return)]
            lasts = [way for way in ways if way and not HIDDEN.search(called_name(way[0]))]
            return lasts[0] if lasts and method.name not in seen else inner
        if dotted(value.func).startswith("self.") or dotted(value.func) in made:
            own = calls(value.func, seen)
            return [*own, *inner] if own else []
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
