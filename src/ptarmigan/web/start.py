"""`ptarmigan serve` and `ptarmigan explore`; starlette and uvicorn are imported once they are known to be there."""

from __future__ import annotations

import importlib
import secrets
from pathlib import Path
from urllib.parse import quote

from ptarmigan.core.console import Display, Terminal
from ptarmigan.core.paths import user_path
from ptarmigan.core.types import UserError

LOOPBACK = "127.0.0.1"


def serve(
    model: str | Path,
    *,
    port: int | None = None,
    host: str = LOOPBACK,
    at: int | None = None,
    device: str = "auto",
) -> None:
    """Serve a generator to other programs over HTTP until Ctrl-C: /v1/sample, /v1/model, /openapi.json, /healthz.

    `model`, `at` and `device` are as in `sample`.  The first line on standard output is the address, with the token
    that every request needs.  Raises UserError: package-missing, port-taken, value-invalid for a host that this machine
    does not have, and as `load` does.
    """
    check_packages()
    with Display(Terminal(stderr=True)) as display, display.doing("loading the generator"):
        from ptarmigan.generator.generator import load
        from ptarmigan.web.samples import classes_of, served
        from ptarmigan.web.server import Server

        generator = load(model, device, at=at)
    token = secrets.token_urlsafe(16)
    names = classes_of(generator)
    of_class = f"class={quote(names[0])}&" if names else ""
    example = f"v1/sample?{of_class}seed=3&n=4"
    Server(served(generator, token)).serve_until_ctrl_c(host, port, token, example)


def explore(
    *runs: str | Path,
    port: int | None = None,
    host: str = LOOPBACK,
    device: str = "auto",
    private: bool = False,
) -> None:
    """Show runs in a browser until Ctrl-C, also while they train: verdicts, charts, grids, scores; draw pictures.

    `runs` are run folders and folders of runs (default: the folder runs).  With `private` the page also shows training
    images, those nearest to a generated one.  The first line on standard output is the address.  Raises UserError:
    package-missing, port-taken, value-invalid, not-a-run where there is no run, and options-conflict for `private` on
    an address that other machines reach.
    """
    check_packages()
    from ptarmigan.web.server import Server, is_loopback

    if private and not is_loopback(host):
        text = f"private: training images are shown on this machine alone, and {host} lets other machines in"
        raise UserError(f"{text}; leave --host or --private out", "options-conflict")
    given = [user_path(run, "run") for run in runs or ("runs",)]
    with Display(Terminal(stderr=True)) as display, display.doing("reading the runs"):
        from ptarmigan.web.explorer import Explorer
        from ptarmigan.web.live import Live
        from ptarmigan.web.runs import find_runs

        for path in given:
            if not find_runs([path]):
                text = f"{path} is neither a run nor a folder of runs: name a folder that `ptarmigan train` made"
                raise UserError(text, "not-a-run")
        live = Live(given, private)
        live.look()
    token = secrets.token_urlsafe(16)
    explorer = Explorer(live, device)
    Server(explorer.app(token), explorer.end).serve_until_ctrl_c(host, port, token)


def check_packages() -> None:
    """Raise UserError (package-missing) without the packages of the extra `explore`."""
    for name in ("starlette", "uvicorn"):
        try:
            importlib.import_module(name)
        except ImportError:
            text = f"the server needs {name}: install it by pip install 'ptarmigan[explore]'"
            raise UserError(text, "package-missing") from None
