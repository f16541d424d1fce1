"""The file map is complete, nothing is pickled, and no file names a machine."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "ptarmigan"


def test_every_module_is_in_the_file_map() -> None:
    file_map = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in PACKAGE.rglob("*.py"):
        if not path.stem.startswith("__"):
            assert f"`{path.name}`" in file_map, f"docs/architecture.md lacks {path.relative_to(PACKAGE)}"


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
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "dill", "joblib", "shelve", "marshal"} & {name.split(".")[0] for name in names}, (
                    path
                )
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", path
        assert "index-url" not in text
        assert "/home/" not in text
        assert "/work/" not in text
