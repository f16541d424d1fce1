"""Judge the losses of a file in a child process with limits on time and memory, each in a process of its own.

It is not a sandbox: the functions run with the user's rights.  The children write a report, one JSON object per line;
the functions' own output is discarded.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ptarmigan.core.paths import user_path
from ptarmigan.core.types import UserError, printable
from ptarmigan.handbook.identify.answer import Identity
from ptarmigan.handbook.identify.code import Code
from ptarmigan.handbook.identify.signature import LossError, describe_error
from ptarmigan.handbook.identify.source import Program
from ptarmigan.handbook.identify.text import read_source

SECONDS = 60
SECONDS_EACH = 15
GIBIBYTES = 4


def identify_file(target: str, kind: str | None, on: str | None) -> tuple[list[Identity], list[str]]:
    """The identities of the losses in FILE.py, FILE.ipynb or "-" (standard input), or of those named: FILE.py:F,G.

    Also returns a line on each loss that could not be judged.  Raises UserError if none could.
    """
    path, names = split_target(target)
    if str(path) != "-":
        path = user_path(path, "losses")
    order: dict[str, Any] = {"path": str(path), "names": names, "kind": kind, "on": on, "text": read_source(path)}
    print(printable(f"reading {path}"), file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        order |= {"report": str(report), "seconds": SECONDS, "each": SECONDS_EACH}
        status = _run_child(json.dumps(order), report)
        lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    try:
        return _read_report(path, [json.loads(line) for line in lines], status)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{path}: the report of the process that ran it is damaged", "report-damaged") from None


def split_target(target: str) -> tuple[Path, list[str]]:
    """FILE or FILE:NAME,NAME -> the file and the names; the colon of a drive letter belongs to the file."""
    name = r"[A-Za-z_]\w*(?:\([^()]*\))?(?:\.\w+)*"
    found = re.fullmatch(rf"(.+?):({name}(?:,{name})*)", target)
    if found is None or os.path.exists(target):
        return Path(target), []
    return Path(found[1]), re.findall(name, found[2])


def _run_child(order: str, report: Path) -> int | None:
    """The child's exit status; None if it ran out of time.  Says every two seconds which loss it is at."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", "from ptarmigan.handbook.identify.child_process import child_main; child_main()"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
        start_new_session=os.name == "posix", env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    given: str | None = order
    try:
        while time.monotonic() < began + SECONDS:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(given, timeout=2)
                return process.returncode
            given = None  # it is sent once
            text = f"still at {_last_place(report)}, {time.monotonic() - began:.0f} s"
            print(printable(text), file=sys.stderr, flush=True)
        return None
    finally:
        with contextlib.suppress(OSError):  # end the processes that it started, too
            os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
        process.wait()


def _last_place(report: Path) -> str:
    """What the child is at: its import, or a loss."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        items = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
        return str(next((item["at"] for item in reversed(items) if "at" in item), "its import"))
    return "its import"


def _read_report(path: Path, report: list[dict[str, Any]], status: int | None) -> tuple[list[Identity], list[str]]:
    """The identities in the report, and a line on each loss that was skipped.

    Raises UserError if the child failed or did not finish.
    """
    error = next((item for item in report if "error" in item), None)
    if error:
        raise UserError(f"{path}: {error['error']}", error["code"])
    if not any("done" in item for item in report):
        at = next((item["at"] for item in reversed(report) if "at" in item), "it")
        if status is None:
            raise UserError(f"{path}: {at} did not finish in {SECONDS} s", "child-timeout")
        raise UserError(f"{path}: {at} ended the process ({_ending(status)})", "child-died")
    skipped = [item for item in report if "skipped" in item]
    found = [_identity(item["identity"]) for item in report if "identity" in item]
    if skipped:  # the other player's loss may be among those
        pairs = {(one.owner, one.player) for one in found}
        found = [one if {(one.owner, "D"), (one.owner, "G")} <= pairs else one.turned_alone() for one in found]
    if not found:
        about: dict[str, Any] = next((item for item in report if "public" in item), {})
        public = about.get("public")
        for item in skipped:
            lines = f"not identified: {item['skipped']}{item['hint']}".split("\n")
            print(*map(printable, lines), sep="\n", file=sys.stderr)
        others = f"; it defines {', '.join(public[:8])}" if public else ""
        looked = (
            "a loss is a function or class with loss, hinge, bce or adv in its name, or stands before a .backward()"
        )
        reasons = next((item["skipped"].rsplit(": ")[-1] for item in skipped if ": install " in item["skipped"]), "")
        why = reasons or ("the reasons stand above" if skipped else looked)
        raise UserError(
            f"{path} has no loss that could be judged ({why}){others}; "
            f"name one, {path.name}:FUNCTION, or write def d_loss(real, fake) and def g_loss(fake), of D's outputs",
            "no-loss",
        )
    return found, [f"not identified: {item['skipped']}" for item in skipped]


def _identity(item: dict[str, Any]) -> Identity:
    turned = _identity(item["turned"]) if item["turned"] else None
    return Identity(
        **item | {key: tuple(item[key]) for key in ("faults", "wrong", "notes", "sides")} | {"turned": turned}
    )


def _ending(status: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name + (", perhaps out of memory" if -status == signal.SIGKILL else "")
    return f"status {status}"


def child_main() -> None:
    """Read the file that standard input names, identify its losses, and write the report."""
    order = json.loads(sys.stdin.read())
    until = time.monotonic() + order["seconds"] - 2
    with Path(order["report"]).open("a", encoding="utf-8") as report:

        def tell(**item: Any) -> None:
            report.write(json.dumps(item) + "\n")
            report.flush()

        _limit("RLIMIT_DATA", GIBIBYTES << 30)
        _limit("RLIMIT_CORE", 0)
        tell(at="its import")
        path = Path(order["path"])
        sys.argv, sys.stdin = [order["path"]], open(os.devnull, encoding="utf-8")  # noqa: SIM115
        sys.path.insert(0, str(path.resolve().parent))
        try:
            program = Program(path, order["text"])
            tell(public=program.public())
            losses = list(program.losses(order["names"]))
            _load_torch()
            program.need(program.imports())
        except UserError as error:
            tell(error=str(error), code=error.code)
            return
        except (Exception, SystemExit) as error:
            tell(error=f"it cannot be read: {describe_error(error)}", code="import-failed")
            return
        for name, make in losses:
            tell(at=name)
            _guarded(name, lambda name=name, make=make: _judge(name, make, order, tell), until, order, tell)  # type: ignore[misc]
        tell(done=True)


def _judge(name: str, make: Callable[[], list[Code]], order: dict[str, Any], tell: Callable[..., None]) -> None:
    """Write the answers on one loss, or why there is none, into the report."""
    from ptarmigan.handbook.identify.attempts import identify_code

    code = None
    try:
        for code in make():
            failures: list[UserError] = []
            for one in identify_code(code, order["kind"], order["on"], failures):
                tell(identity=asdict(one))
            for failure in failures:
                tell(skipped=str(failure), hint="")
    except (Exception, SystemExit) as error:
        known = isinstance(error, UserError)
        text = str(error) if known else describe_error(error)
        text = text if text.startswith(name.split(" ")[0]) else f"{name}: {text}"
        if order["names"]:
            tell(error=text, code=error.code if isinstance(error, UserError) else LossError.code)
            return
        hint = f"; as a function that you can mend and name:\n{code.inline}" if code and code.inline else ""
        tell(skipped=text, hint=hint)


def _guarded(
    name: str, judge: Callable[[], None], until: float, order: dict[str, Any], tell: Callable[..., None]
) -> None:
    """Run `judge` in a process of its own, so that what ends one loss leaves the others."""
    if not hasattr(os, "fork"):
        judge()
        return
    child = os.fork()
    if child == 0:
        _limit("RLIMIT_CPU", order["each"])
        judge()
        os._exit(0)

    def fail(text: str, code: str) -> None:
        tell(error=text, code=code) if order["names"] else tell(skipped=text, hint="")

    end = min(until, time.monotonic() + 2 * order["each"])  # a busy computer gives it half a core
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
        time.sleep(0.005)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        fail(f"{name} did not finish in {2 * order['each']} s", "child-timeout")
    elif (status := os.waitstatus_to_exitcode(ended[1])) == -getattr(signal, "SIGXCPU", 0):
        fail(f"{name} did not finish in {order['each']} s", "child-timeout")
    elif status:
        fail(f"{name} ended the process ({_ending(status)})", "child-died")


kept: Any = None


def _load_torch() -> None:
    """Import torch before the processes divide; its types with a precision of their own become the probe's."""
    import torch

    import ptarmigan.handbook.identify.attempts  # noqa: F401
    from ptarmigan.handbook.identify.sizes import unknown_sizes

    global kept
    kept = unknown_sizes()  # it ends with this object
    kept.__enter__()
    for name in ("FloatTensor", "HalfTensor"):
        setattr(torch.cuda, name, getattr(torch, name))


def _limit(what: str, value: int) -> None:
    """Limit a resource of this process, if the system allows it."""
    with contextlib.suppress(ImportError, ValueError, OSError, AttributeError):
        import resource

        resource.setrlimit(getattr(resource, what), (value, value))
