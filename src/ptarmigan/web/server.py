"""The server itself: a socket, the address that is printed, and an end within two seconds at Ctrl-C."""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from ptarmigan.boundary import say
from ptarmigan.core.terminal import Terminal
from ptarmigan.core.types import UserError

PORTS = (*range(8470, 8480), 0)  # that are tried where none is named; 0 is any that is free
MOST_CONNECTIONS = 500  # a process may often open 1,024 files
LONGEST_HEAD = 16_384  # bytes of a request's headers


class Server(uvicorn.Server):
    """A server of one application; `before_end` is called when it is to end, and ends answers that have no end."""

    def __init__(self, app: ASGIApp, before_end: Callable[[], Awaitable[None]] | None = None) -> None:
        super().__init__(uvicorn.Config(
            app, log_level="critical", access_log=False, server_header=False, ws="none", http="h11", loop="asyncio",
            timeout_graceful_shutdown=1, limit_concurrency=MOST_CONNECTIONS, h11_max_incomplete_event_size=LONGEST_HEAD,
        ))  # fmt: skip
        self.before_end = before_end

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.before_end is not None:
            await self.before_end()
        await super().shutdown(sockets)

    def serve_until_ctrl_c(self, host: str, port: int | None, token: str, example: str = "") -> None:
        """Print the address, and answer requests until Ctrl-C or SIGTERM; `example` is what follows the address.

        Raises UserError as `open_socket` does.
        """
        with open_socket(host, port) as listening:
            name = f"[{host}]" if ":" in host else host
            address = f"http://{name}:{listening.getsockname()[1]}/{token}/"
            say(address)
            note = Terminal(stderr=True).say
            if not is_loopback(host):
                note(f"warning: with --host {host} whoever has this address can use the server; nothing is encrypted")
            opened = "it" if sys.stdout.isatty() and not example else f"{address}{example}"
            note(f"open {opened} in a browser; Ctrl-C ends the server")
            with suppress(KeyboardInterrupt):  # which uvicorn raises again after it has ended
                self.run([listening])


def open_socket(host: str, port: int | None) -> socket.socket:
    """A socket that listens; raises UserError: port-taken, value-invalid for a host that this machine does not have."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise UserError(
            f"host: {host[:100]} is not an address of this machine; try 127.0.0.1", "value-invalid"
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
    raise UserError(f"host: cannot listen on {host}: {error.strerror}; try 127.0.0.1", "value-invalid") from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
