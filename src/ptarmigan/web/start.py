"""`ptarmigan serve` and `ptarmigan explore`: an address on this machine, until Ctrl-C."""

from __future__ import annotations

import errno
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ptarmigan.boundary import say
from ptarmigan.core.console import Display, Terminal
from ptarmigan.core.types import UserError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

LOOPBACK = "127.0.0.1"
PORTS = (*range(8470, 8480), 0)  # that are tried where none is named; 0 is any that is free
MOST_CONNECTIONS = 1000
LONGEST_HEAD = 16_384  # bytes of a request's headers


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

        generator = load(model, device, at=at)
    token = secrets.token_urlsafe(16)
    names = classes_of(generator)
    of_class = f"class={quote(names[0])}&" if names else ""
    run(served(generator, token), token, host, port, f"v1/sample?{of_class}seed=3&n=4")


def check_packages() -> None:
    """Raise UserError (package-missing) without the packages of the extra `explore`."""
    try:
        import starlette
        import uvicorn
    except ImportError as error:
        text = f"the server needs {error.name}: install it by pip install 'ptarmigan[explore]'"
        raise UserError(text, "package-missing") from None
    assert starlette
    assert uvicorn


def run(
    app: ASGIApp,
    token: str,
    host: str,
    port: int | None,
    example: str,
    before_end: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Answer requests until Ctrl-C or SIGTERM; `before_end` is called first then, and ends answers that have no end."""
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            if before_end is not None:
                await before_end()
            await super().shutdown(sockets)

    with open_socket(host, port) as listening:
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listening.getsockname()[1]}/{token}/"
        say(address)
        note = Terminal(stderr=True).say
        if not is_loopback(host):
            note(f"warning: {host} lets other machines in: whoever has this address can use the server, and what is ")
            note("sent is not encrypted")
        note(f"for example {address}{example}")
        note("Ctrl-C ends it")
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, server_header=False, ws="none", http="h11", loop="asyncio",
            timeout_graceful_shutdown=1, limit_concurrency=MOST_CONNECTIONS, h11_max_incomplete_event_size=LONGEST_HEAD,
        )  # fmt: skip
        with suppress(KeyboardInterrupt):  # which uvicorn raises again after it has ended
            Server(config).run([listening])


def open_socket(host: str, port: int | None) -> socket.socket:
    """A socket that listens; raises UserError: port-taken, value-invalid for a host that this machine does not have."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise UserError(
            f"host: {host[:100]} is not an address of this machine; try {LOOPBACK}", "value-invalid"
        ) from None
    for number in PORTS if port is None else (port,):
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((place[0], number, *place[2:]))
            listening.listen()
            return listening
        except OverflowError:
            listening.close()
            raise UserError(f"port: expected 0 to 65535, got {number}", "value-out-of-range") from None
        except OSError as error:
            listening.close()
            check_bind_error(error, host, number)
    raise UserError(f"port {port} is taken by another program: name another --port, or leave it out", "port-taken")


def check_bind_error(error: OSError, host: str, port: int) -> None:
    """Raise UserError unless the port is taken."""
    if error.errno == errno.EADDRINUSE:
        return
    if error.errno == errno.EACCES:
        raise UserError(f"port {port}: the system does not allow it; use one above 1023", "port-taken") from None
    raise UserError(f"host: cannot listen on {host}: {error.strerror}; try {LOOPBACK}", "value-invalid") from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
