"""Run the user's file, and the stages signature -> ... -> answer, in a child process with limits on time and memory.

It is not a sandbox: the file runs with the user's rights.  The child writes a report, one JSON object per line; the
file's own output is discarded.
"""

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

from ptarmigan.core.paths import user_path
from ptarmigan.core.types import UserError, printable, unknown
from ptarmigan.handbook.identify.answer import Identity, identify_callable
from ptarmigan.handbook.identify.signature import describe_error

SECONDS = 60
GIBIBYTES = 4
LOSS_NAMES = re.compile(
    r"loss|criterion|bce|hinge|wgan|lsgan|adv|cross_?entropy|mse|critic|objective|(^|_)(d|g|class|cls|aux|ce)(_|$)",
    re.I,
)
ACTIONS = re.compile(r"(train|test|eval|fit|plot|show|save|load|make|build|init|sample|generate|update|run)(_|$)", re.I)


def identify_file(target: str, kind: str | None, on: str | None) -> list[Identity]:
    """The identities of the losses in FILE.py, or of FUNCTION, FUNCTION.METHOD or several in FILE.py:F,G.

    Prints to standard error that it runs the file.  Raises UserError if that fails, or if the file has no loss.
    """
    path, names = split_target(target)
    path = user_path(path, "losses")
    if not path.is_file():
        raise UserError(f"{path} {'is not a file' if path.exists() else 'does not exist'}", "file-unreadable")
    print(
        printable(f"running {path} in a child process with your rights, for at most {SECONDS} s and {GIBIBYTES} GiB"),
        file=sys.stderr, flush=True,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        order = {"path": str(path.resolve()), "names": names, "kind": kind, "on": on, "report": str(report)}
        status = _run_child(json.dumps(order))
        lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    try:
        return _read_report(path, [json.loads(line) for line in lines], status)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{path}: the report of the process that ran it is damaged", "report-damaged") from None


def split_target(target: str) -> tuple[Path, list[str]]:
    """FILE or FILE:NAME,NAME -> the file and the names; the colon of a drive letter belongs to the file."""
    found = re.fullmatch(r"(.+):([A-Za-z_][\w.]*(?:,[A-Za-z_][\w.]*)*)", target)
    if found is None or os.path.exists(target):
        return Path(target), []
    return Path(found[1]), found[2].split(",")


def _run_child(order: str) -> int | None:
    """The child's exit status; None if it ran out of time."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", "from ptarmigan.handbook.identify.child_process import child_main; child_main()"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
        start_new_session=os.name == "posix", env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        process.communicate(order, timeout=SECONDS)
        return process.returncode
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(OSError):  # end the processes that it started, too
            os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
        process.wait()


def _read_report(path: Path, report: list[dict[str, Any]], status: int | None) -> list[Identity]:
    """The identities in the report; raises UserError if the child failed or did not finish."""
    last = report[-1] if report else {}
    if "error" in last:
        raise UserError(f"{path}: {last['error']}", last["code"])
    if "done" not in last:
        at = next((item["at"] for item in reversed(report) if "at" in item), "it")
        if status is None:
            hint = "keep training out of it (if __name__ == ...)"
            raise UserError(f"{path}: {at} did not finish in {SECONDS} s; {hint}", "child-timeout")
        how = f"status {status}"
        with contextlib.suppress(ValueError):
            how = signal.Signals(-status).name + (", perhaps out of memory" if -status == signal.SIGKILL else "")
        raise UserError(f"{path}: {at} ended the process ({how})", "child-died")
    for item in report:
        if "skipped" in item:
            print(printable(f"not identified: {item['skipped']}"), file=sys.stderr)
    found = [item["identity"] for item in report if "identity" in item]
    if not found:
        raise UserError(f"{path} has no loss that can be identified; name one, {path.name}:FUNCTION", "no-loss")
    return [Identity(**item | {key: tuple(item[key]) for key in ("faults", "wrong", "notes")}) for item in found]


def child_main() -> None:
    """Load the file that standard input names, identify its losses, and write the report."""
    order = json.loads(sys.stdin.read())
    with Path(order["report"]).open("w", encoding="utf-8") as report:

        def tell(**item: Any) -> None:
            report.write(json.dumps(item) + "\n")
            report.flush()

        _limit_memory()
        tell(at="its import")
        sys.argv, sys.stdin = [order["path"]], open(os.devnull, encoding="utf-8")  # noqa: SIM115
        try:
            functions = list(chosen_losses(load_module(Path(order["path"])), order["names"]))
        except UserError as error:
            tell(error=str(error), code=error.code)
            return
        except (Exception, SystemExit) as error:
            tell(error=f"its import failed with {describe_error(error, load_module)}", code="import-failed")
            return
        for name, function in functions:
            tell(at=name)
            try:
                for one in identify_callable(function, name, order["kind"], order["on"]):
                    tell(identity=asdict(one))
            except UserError as error:
                if order["names"]:
                    tell(error=str(error), code=error.code)
                    return
                tell(skipped=str(error))
        tell(done=True)


def _limit_memory() -> None:
    """Limit this process's memory, if the system allows it."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (GIBIBYTES << 30, GIBIBYTES << 30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def load_module(path: Path) -> ModuleType:
    """The file as a module, with its own folder to import from."""
    name = f"ptarmigan_runs_{path.stem}"  # so that a file random.py does not shadow Python's module
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path.name} is not a Python file: its name has to end in .py", "file-unreadable")
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__ptarmigan_user__"] = True  # so that describe_error finds its lines
    sys.path.insert(0, str(path.parent))
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def chosen_losses(module: ModuleType, names: list[str]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The callables of these names, or else all that look like losses.  Raises UserError for an unknown name."""
    for name in names:
        found: Any = module
        for part in name.split("."):
            found = instance_of(found, name) if inspect.isclass(found) else found
            if not hasattr(found, part):
                raise unknown("function", name, [public for public, _ in _own_callables(module)])
            found = getattr(found, part)
        yield name, instance_of(found, name) if inspect.isclass(found) else found
    for name, value in [] if names else _own_callables(module):
        is_loss = bool(LOSS_NAMES.search(name))
        if not inspect.isclass(value):
            if is_loss and not (ACTIONS.match(name) and "loss" not in name.lower()):
                yield name, value
            continue
        methods = [key for key, member in vars(value).items() if inspect.isfunction(member) and key[0] != "_"]
        methods = [key for key in methods if LOSS_NAMES.search(key)]
        if not methods and not is_loss:
            continue
        with contextlib.suppress(UserError):
            instance = instance_of(value, name)
            if callable(instance) and is_loss:
                yield name, instance
            for method in methods:
                yield f"{name}.{method}", getattr(instance, method)


def _own_callables(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The public functions, classes, lambdas and partials that a file defines itself."""
    for name, value in vars(module).items():
        is_own = getattr(value, "__module__", None) == module.__name__ or isinstance(value, functools.partial)
        if not name.startswith("_") and callable(value) and is_own:
            yield name, value


def instance_of(cls: type, name: str) -> Any:
    """An instance of the user's class, made without arguments."""
    try:
        return cls()
    except Exception as error:
        raise UserError(
            f"{name}: cannot make an instance without arguments ({describe_error(error, cls)})", "no-instance"
        ) from None
