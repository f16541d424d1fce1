"""Every code block of the pages runs, every link between them leads somewhere, and the site needs no network."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from ptarmigan import cli, resolve
from ptarmigan.config.values import parse_time
from ptarmigan.evaluation.features import EXTRACTORS, Extractor
from ptarmigan.training import loop

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MAKE = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
ENGLISH = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"}
SMALL: dict[str, Any] = dict(width=4, snapshots=1, live_images=10)


class Block(NamedTuple):
    line: int
    language: str  # as `python`; of a Sphinx directive as `{toctree}`
    code: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\S*)[^\n]*\n(.*?)^```$", text, re.DOTALL | re.M)
    return [Block(text.count("\n", 0, m.start()) + 1, m[1] or "console", m[2]) for m in found if m[1][:1] != "{"]


def commands(block: Block) -> list[list[str]]:
    """The words of each line, without comments and without the variables before a command."""
    lines = [shlex.split(line, comments=True) for line in block.code.replace("\\\n", " ").splitlines()]
    return [words[next(i for i, word in enumerate(words) if "=" not in word) :] for words in lines if words]


def file_name(block: Block) -> str | None:
    """`# mine.py` in a block's first line says that it is this file."""
    found = re.match(r"# ([\w-]+\.(?:py|yaml))\n", block.code)
    return found[1] if found else None


def arguments(words: list[str]) -> list[str] | None:
    """What a command line gives to ptarmigan; None where it is another program."""
    if Path(words[0]).name == "ptarmigan":
        return words[1:]
    if words[0] == "torchrun":
        return words[words.index("ptarmigan") + 1 :]
    return None


def check_other(words: list[str]) -> None:
    """A command that is not ours: what it names exists."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    match Path(words[0]).name, *words[1:]:
        case "make", target:
            assert target in MAKE
        case "python", "-m", "venv", ".venv":
            pass
        case "python", script, *_:
            assert (ROOT / script).is_file(), script
        case "pip", "install", *wanted:
            extras = {"."} | {f".[{extra}]" for extra in project["optional-dependencies"]}
            assert set(wanted) - {"-e"} <= extras | set(pinned)
        case "pytest", *rest:
            assert all((ROOT / word.split("::")[0]).exists() for word in rest if not word.startswith("-"))
        case "ruff" | "mypy" | "lint-imports", *_:
            pass
        case _:
            pytest.fail(f"no way to check the command {shlex.join(words)}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_of_a_kind_that_is_run_and_every_command_is_understood(page: Path) -> None:
    for block in blocks(page):
        at = f"{page.name}, line {block.line}"
        assert block.language in ("console", "python", "text", "tree", "yaml"), at
        if block.language == "python":
            compile(block.code, at, "exec")
        for words in commands(block) if block.language == "console" else []:
            ours = arguments(words)
            if ours is None:
                check_other(words)
            else:
                cli.app.parse_args(ours, print_error=False, exit_on_error=False)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/cat, photos/dog, birds/robin and birds/wren: grey squares of 16x16, 50 of each animal."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for folder, names, count in (
        ("photos/cat", ("tom", *map("cat{}".format, range(9))), 50),
        ("photos/dog", ("rex", *map("dog{}".format, range(9))), 50),
        ("birds/robin", ("robin",), 40),
        ("birds/wren", ("wren",), 40),
    ):
        (root / folder).mkdir(parents=True)
        for name in names:
            for i in range(1, count + 1):
                Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(root / folder / f"{name}-{i:02d}.png")
    return root


class Squares(nn.Module):
    """Features that cost nothing: the mean of each of 16 squares."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1 / 255), requires_grad=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(self.weight * pixels.mean(1, keepdim=True), 4).flatten(1)


def short(seconds: float) -> str:
    """A budget of images that grows with the time that a page gives."""
    return str(32 * (1 + round(seconds / 1800)))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, pictures: Path, tmp_path: Path) -> Path:
    """A folder with the data of the pages, where training and scoring take moments."""
    train = loop.train

    def briefly(data: Any = None, **given: Any) -> Path:
        time, images = given.pop("time", None), given.pop("images", None)
        seconds = 1800 if images else parse_time(time or "2m")
        return train(data, images=short(seconds or 0), **(SMALL | given))

    monkeypatch.setattr(loop, "train", briefly)
    fast = Extractor("EfficientNet-Lite0", "FD-EffNetLite0", "0" * 64, 16, 16, Squares())
    monkeypatch.setitem(EXTRACTORS, "efficientnet-lite0", lambda weights: fast)
    for name in ("photos", "birds"):
        (tmp_path / name).symlink_to(pictures / name)
    monkeypatch.setattr("uvicorn.Server.run", lambda *_: None)  # which ends at Ctrl-C
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> tuple[int, str]:
    """Run the command line in this process -> exit status, and all that it printed."""
    printed = io.StringIO()
    monkeypatch.setattr(sys, "argv", ["ptarmigan", *words])
    with redirect_stdout(printed), redirect_stderr(printed):
        try:
            cli.main()
            status = 0
        except SystemExit as leaving:
            status = int(leaving.code or 0)
    return status, printed.getvalue()


def shows(printed: str, wanted: str) -> bool:
    """`wanted` is in `printed`; ... stands for anything."""
    return bool(re.search(".*?".join(map(re.escape, wanted.strip().split("..."))), printed, re.DOTALL))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_one_after_the_other(page: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scope: dict[str, Any] = {"__name__": "page"}
    status, printed = 0, ""
    for block in blocks(page):
        at = f"{page.name}, line {block.line}"
        name = file_name(block)
        if name is not None:
            (small / name).write_text(block.code, encoding="utf-8")
        assert status == 0 or block.language == "text", f"{at}: the command before it failed: {printed}"
        match block.language:
            case "console":
                for words in commands(block):
                    assert status == 0, f"{at}: {printed}"
                    if words[0] != "torchrun" and (ours := arguments(words)) is not None:
                        status, printed = call(monkeypatch, ours)
            case "python":
                shown = io.StringIO()
                with redirect_stdout(shown), redirect_stderr(io.StringIO()):
                    exec(compile(block.code, at, "exec"), scope)
                for wanted in re.findall(r"^print\(.*\)  # (.+)$", block.code, re.M):
                    assert shows(shown.getvalue(), wanted), f"{at}: {shown.getvalue()}"
            case "text":
                assert shows(printed, block.code), f"{at}: {printed}"
                status = 0
            case "tree":
                assert all((small / line).exists() for line in block.code.split()), at
            case "yaml":
                resolve(yaml.safe_load(block.code))
    assert status == 0, printed


@pytest.mark.parametrize("page", [*PAGES, *(ROOT / name for name in sorted(ENGLISH))], ids=lambda page: page.stem)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]+`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("https://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 125
    assert max(map(len, lines)) <= 100


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-d", tmp_path / "trees"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [*command, ROOT / "docs", tmp_path / "site"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        fetched = re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"(?:https?:)?//[^>]*>", page.read_text()
        )
        assert not fetched, page
    for style in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style
