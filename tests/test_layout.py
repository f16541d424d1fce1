"""The file map and the table of errors are complete, nothing is pickled, and no file names a machine."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "ptarmigan"


def test_every_module_is_in_the_file_map() -> None:
    file_map = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in PACKAGE.rglob("*.py"):
        if not path.stem.startswith("__"):
            assert f"`{path.name}`" in file_map, f"docs/architecture.md lacks {path.relative_to(PACKAGE)}"


@cache
def trees() -> list[ast.Module]:
    return [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))]


def error_classes() -> dict[str, ast.ClassDef]:
    """UserError and the classes derived from it, by name."""
    classes = [node for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    found: dict[str, ast.ClassDef] = {}
    while new := [
        node for node in classes
        if node.name not in found
        and (node.name == "UserError" or {ast.unparse(base).split(".")[-1] for base in node.bases} & found.keys())
    ]:  # fmt: skip
        found |= {node.name: node for node in new}
    return found


def literals(node: ast.AST | None) -> list[str]:
    """The text that an expression is: one string, or either of `a if b else c`."""
    if isinstance(node, ast.IfExp):
        return literals(node.body) + literals(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def code_of_call(call: ast.Call) -> list[str]:
    """The code that a call of an error gives: its second argument, or `code=`."""
    named = next((keyword.value for keyword in call.keywords if keyword.arg == "code"), None)
    return literals(call.args[1] if len(call.args) > 1 else named)


def codes() -> set[str]:
    """Every code that the package raises, or that the command line prints by `fail`."""
    errors = error_classes()
    callers = {*errors, "fail"}
    calls = [node for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = [code for call in calls if ast.unparse(call.func).split(".")[-1] in callers for code in code_of_call(call)]
    del errors["UserError"]  # its default says that a raise lacks a code
    for node in (part for error in errors.values() for part in ast.walk(error)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "code":
            found += literals(node.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "super().__init__":
            found += code_of_call(node)
    return set(found)


def test_every_error_code_is_in_the_table_and_the_table_has_no_other() -> None:
    lines = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    listed = [row[0].strip("`") for row in rows]
    assert all(len(row) == 3 and all(row) for row in rows)
    assert len(listed) == len(set(listed))
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in listed)
    assert not codes() - set(listed), "docs/errors.md lacks a row"
    text = {node.value for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert not set(listed) - text, "docs/errors.md has a code that the package does not"


def test_every_user_error_has_a_code() -> None:
    coded = {name for name, node in error_classes().items() if "code = " in ast.unparse(node)} - {"UserError"}
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "UserError":
                assert len(node.args) > 1 or any(k.arg == "code" for k in node.keywords), ast.unparse(node)
    assert {"InvalidLossFile", "OutOfMemory"} <= coded


def names_of(node: ast.ImportFrom) -> set[str]:
    return {alias.name for alias in node.names}


def checked_loads(tree: ast.Module) -> int:
    """Calls of torch.load that take tensors alone, from bytes whose SHA-256 the statement before has checked."""
    load = "torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)"
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return sum(
        isinstance(check, ast.If)
        and ast.unparse(check.test) == "hashlib.sha256(content).hexdigest() != sha256"
        and isinstance(check.body[-1], ast.Raise)
        and isinstance(then, ast.AnnAssign)
        and then.value is not None
        and ast.unparse(then.value) == load
        for body in bodies
        for check, then in pairwise(body)
    )


def test_nothing_pickles_and_nothing_names_a_machine() -> None:
    scripts = [path for folder in ("benchmarks", "tools", "studies") for path in (ROOT / folder).glob("*.py")]
    for path in [*PACKAGE.rglob("*.py"), *scripts, ROOT / "README.md", ROOT / "Makefile"]:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text) if path.suffix == ".py" else ast.parse("")
        readings = [
            node
            for node in ast.walk(tree)
            if (isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save"))
            or (isinstance(node, ast.ImportFrom) and node.module == "torch" and {"load", "save"} & names_of(node))
        ]
        assert len(readings) == checked_loads(tree), f"{path} reads or writes what could be a pickle"
        for node in ast.walk(tree):
            # workers.py reads no file with pickle: it talks to the processes that it starts, over their pipes
            if isinstance(node, ast.Import | ast.ImportFrom) and path.name != "workers.py":
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "dill", "joblib", "shelve", "marshal"} & {name.split(".")[0] for name in names}, (
                    path
                )
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", path
        assert "index-url" not in text
        assert "/home/" not in text
        assert "/work/" not in text
