"""The package reads from the top down: imports point upward, and the README's file map is true."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "ptarmigan"
ORDER = [
    "contracts", "config", "seeding", "files", "devices", "dist", "convolution", "losses", "userfile", "conditioning",
    "penalties", "metrics", "log", "plotting", "mathml", "page", "handbook", "identifying", "data", "augment",
    "networks", "choice", "optim", "state", "checkpoint", "pieces", "step", "scorecard", "sampling", "features",
    "evaluate", "export", "advance", "graphs", "probe", "runs", "finetune", "saving", "telling", "training",
    "replaying", "supply", "scoring", "comparing", "cli", "__main__",
]  # fmt: skip


def test_imports_only_point_upward() -> None:
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if place == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("ptarmigan"):
                continue
            parts = (node.module or "").split(".")
            names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            for name in names:
                if name != "__version__":
                    assert ORDER.index(name) <= ORDER.index(place), f"{path.name} imports {name}, which stands below it"


def test_every_module_stands_in_the_order_and_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in PACKAGE.rglob("*.py"):
        if path.stem.startswith("__"):
            continue
        assert path.relative_to(PACKAGE).parts[0].removesuffix(".py") in ORDER
        assert f"`{path.name}`" in readme, f"README.md's file map lacks {path.name}"


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
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "benchmarks").glob("*.py"), ROOT / "README.md", ROOT / "Makefile"]:
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
