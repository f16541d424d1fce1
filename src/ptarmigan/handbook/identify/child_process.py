"""Somebody's file, run in a child process with limits of time and memory; it is not a sandbox."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from ptarmigan.core.types import UserError
from ptarmigan.handbook.identify.answer import Identity
from ptarmigan.handbook.identify.signature import describe

SECONDS = 60
GIBIBYTES = 4
LOSSY = re.compile(
    r"loss|criterion|bce|hinge|wgan|lsgan|adv|cross_?entropy|mse|critic|objective|(^|_)(d|g|class|cls|aux|ce)(_|$)",
    re.I,
)
DOING = re.compile(r"(train|test|eval|fit|plot|show|save|load|make|build|init|sample|generate|update|run)(_|$)", re.I)


def identify_file(target: str, kind: str | None, on: str | None) -> list[Identity]:
    """The identities of the losses in FILE.py, or of FUNCTION, FUNCTION.METHOD or several in FILE.py:F,G.

    Says on standard error that the file is run.  Raises UserError where it cannot be, or has no loss.
    """
    path, names = split(target)
    if not path.is_file():
        raise UserError(f"{path} does not exist" if not path.exists() else f"{path} is no file")
    print(
        f"running {path} in a child process, with your rights, for {SECONDS} s and {GIBIBYTES} GiB at most",
        file=sys.stderr, flush=True,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        order = {"path": str(path.resolve()), "names": names, "kind": kind, "on": on, "report": str(report)}
        status = _run(json.dumps(order))
        lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    try:
        return _answers(path, [json.loads(line) for line in lines], status)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{path}: it wrote into the report of the process that runs it") from None


def _answers(path: Path, told: list[dict[str, Any]], status: int | None) -> list[Identity]:
    """What the child told, item by item; raises UserError where it did not come to its end."""
    if told and "error" in told[-1]:
        raise UserError(f"{path}: {told[-1]['error']}")
    if not told or "done" not in told[-1]:
        at = next((item["at"] for item in reversed(told) if "at" in item), "it")
        if status is None:
            raise UserError(
                f"{path}: {at} was not done after {SECONDS} s: keep training out of it (if __name__ == ...)"
            )
        raise UserError(f"{path}: {at} ended the process ({_ending(status)})")
    for item in told:
        if "skipped" in item:
            print(f"not identified: {item['skipped']}", file=sys.stderr)
    found = [item["identity"] for item in told if "identity" in item]
    if not found:
        raise UserError(f"{path} has no loss that could be identified: name one, {path.name}:FUNCTION")
    return [Identity(**item | {key: tuple(item[key]) for key in ("wrong", "notes")}) for item in found]


def split(target: str) -> tuple[Path, list[str]]:
    """FILE or FILE:NAME,NAME -> the file and the names; a drive letter's colon is part of the file."""
    found = re.fullmatch(r"(.+):([A-Za-z_][\w.]*(?:,[A-Za-z_][\w.]*)*)", target)
    if found is None or Path(target).exists():
        return Path(target), []
    return Path(found[1]), found[2].split(",")


def _run(order: str) -> int | None:
    """The child's exit status; None where its time was up.  What it prints goes nowhere."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", "from ptarmigan.handbook.identify.child_process import child; child()"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
        start_new_session=os.name == "posix", env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        process.communicate(order, timeout=SECONDS)
        return process.returncode
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(OSError):  # whatever it has started ends with it
            os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
        process.wait()


def _ending(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name + (", perhaps for memory" if -status == signal.SIGKILL else "")
    return f"status {status}"


def child() -> None:
    """Load the file that standard input names, identify what was asked for, and write a report line by line."""
    order = json.loads(sys.stdin.read())
    with Path(order["report"]).open("w", encoding="utf-8") as report:

        def tell(**item: Any) -> None:
            report.write(json.dumps(item) + "\n")
            report.flush()

        _limit()
        tell(at="its import")
        sys.argv, sys.stdin = [order["path"]], open(os.devnull, encoding="utf-8")  # noqa: SIM115
        try:
            module = load(Path(order["path"]))
            functions = list(chosen(module, order["names"]))
        except UserError as error:
            tell(error=str(error))
            return
        except (Exception, SystemExit) as error:
            tell(error=f"its import ended in {describe(error, load)}")
            return
        if functions:
            from ptarmigan.handbook.identify.answer import identify_each  # and torch, which takes seconds
        for name, function in functions:
            tell(at=name)
            try:
                for one in identify_each(function, name, order["kind"], order["on"]):
                    tell(identity=asdict(one))
            except UserError as error:
                tell(**{"error" if order["names"] else "skipped": str(error)})
                if order["names"]:
                    return
        tell(done=True)


def _limit() -> None:
    """Bound this process's memory, where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (GIBIBYTES << 30, GIBIBYTES << 30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def load(path: Path) -> ModuleType:
    """The file as a module, with its own folder to import from."""
    name = f"ptarmigan_runs_{path.stem}"  # a random.py must not stand in for Python's
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path.name} is no Python file: its name has to end in .py")
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__ptarmigan_user__"] = True  # so that an error is told with its line
    sys.path.insert(0, str(path.parent))
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def chosen(module: ModuleType, names: list[str]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The callables of these names, or all that could be losses.  Raises UserError for a name that is not there."""
    for name in names:
        found: Any = module
        for part in name.split("."):
            if inspect.isclass(found):
                found = made(found, name)
            if not hasattr(found, part):
                there = ", ".join(public for public, _ in own(module)) or "none"
                raise UserError(f"{name} is not there: choose one of {there}")
            found = getattr(found, part)
        yield name, made(found, name) if inspect.isclass(found) else found
    if not names:
        for name, value in own(module):
            if not inspect.isclass(value):
                if LOSSY.search(name) and not (DOING.match(name) and "loss" not in name.lower()):
                    yield name, value
                continue
            members = [key for key, member in vars(value).items() if inspect.isfunction(member)]
            methods = [key for key in members if LOSSY.search(key) and not key.startswith("_")]
            if not methods and not LOSSY.search(name):
                continue
            with contextlib.suppress(UserError):
                thing = made(value, name)
                if callable(thing) and LOSSY.search(name):
                    yield name, thing
                for method in methods:
                    yield f"{name}.{method}", getattr(thing, method)


def own(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The public callables that a file defines itself: functions, classes, lambdas and partials, not its imports."""
    for name, value in vars(module).items():
        made_here = getattr(value, "__module__", None) == module.__name__ or isinstance(value, functools.partial)
        if not name.startswith("_") and callable(value) and made_here:
            yield name, value


def made(cls: type, name: str) -> Any:
    """An instance of somebody's class, made without arguments."""
    try:
        return cls()
    except Exception as error:
        raise UserError(f"{name}: an instance cannot be made without arguments ({describe(error, cls)})") from None
