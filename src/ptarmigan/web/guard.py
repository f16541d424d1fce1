"""What stands before every answer: the token, the longest request, headers that a browser obeys, errors as JSON."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from ptarmigan.boundary import report_unforeseen
from ptarmigan.core.types import UserError, printable

LONGEST = 2000  # characters of a path, and of a query
STATUS = {  # of HTTP, by the code of an error; 409 for any other, which is a fault of the files, not of the request
    "value-invalid": 400, "value-out-of-range": 400, "unknown-name": 400, "options-conflict": 400,
    "token-wrong": 401, "not-private": 403, "address-unknown": 404, "path-not-found": 404, "no-generator": 404,
    "log-empty": 404, "data-missing": 404, "out-of-memory": 503,
}  # fmt: skip
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",  # the address has the token
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}


def guarded(routes: Sequence[BaseRoute], token: str, lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """An application that answers requests with the token; an error is JSON, {code, text}, with a status of HTTP."""
    handlers = {UserError: of_user, HTTPException: of_http, Exception: unforeseen}
    guard = Middleware(Guard, token=token)
    return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers, lifespan=lifespan)


class Guard:
    """Lets a request to another application if it has the token, and puts HEADERS on the answer.

    The token is the first part of the path, so that a page's relative addresses have it too; or the value of `token` in
    the query; or in the header `Authorization: Bearer TOKEN`.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the start and the end of the server
            await self.app(scope, receive, send)
            return
        answer: ASGIApp = self.app
        first, slash, rest = scope["path"][1:].partition("/")
        if len(scope["path"]) > LONGEST or len(scope["query_string"]) > LONGEST:
            answer = refused(UserError(f"the address is longer than {LONGEST:,} characters", "value-invalid"))
        elif self.is_token(first):
            scope = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}
            answer = self.app if slash else RedirectResponse(f"/{first}/")
        elif not self.is_token(given_token(Request(scope))):
            text = "the token is missing or wrong: use the address that ptarmigan printed when it started"
            answer = refused(UserError(text, "token-wrong"))
        await answer(scope, receive, with_headers(send))

    def is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(errors="replace"), self.token)


def given_token(request: Request) -> str:
    """The token in the header of a request or in its query; '' without one."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token if kind.lower() == "bearer" else request.query_params.get("token", "")


def with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending


def whole_page(text: str) -> Response:
    """A page that holds its own styles and scripts, of which it may run these alone."""
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    policy = (
        f"default-src 'none'; script-src {allowed} 'wasm-unsafe-eval'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(text, headers={"content-security-policy": policy})


def refused(error: UserError, status: int | None = None) -> JSONResponse:
    return JSONResponse(
        {"code": error.code, "text": printable(str(error))}, STATUS.get(error.code, 409) if status is None else status
    )


async def healthz(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def of_user(_: Request, error: Exception) -> Response:
    assert isinstance(error, UserError)
    return refused(error)


async def of_http(request: Request, error: Exception) -> Response:
    """An address or a method that the application does not have."""
    assert isinstance(error, HTTPException)
    text = f"{request.method} {request.url.path[:100]} is not an address of this server"
    return refused(UserError(text, "address-unknown"), error.status_code)


async def unforeseen(_: Request, error: Exception) -> Response:
    report_unforeseen(error)
    return refused(UserError("an error that ptarmigan did not foresee; the terminal says more", "internal-error"), 500)


def only(request: Request, *names: str) -> Callable[[str], str | None]:
    """The query of a request as a function of the name, None where it is not given.

    Raises UserError: unknown-name for a parameter that is not in `names`, value-invalid for one that is given twice.
    """
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in (*names, "token"):
            text = f"unknown parameter {printable(name[:100])!r}: this address takes {', '.join(names) or 'none'}"
            raise UserError(text, "unknown-name")
        if given.count(name) > 1:
            raise UserError(f"{name} is given {given.count(name)} times, and once is allowed", "value-invalid")
    return request.query_params.get


def whole(name: str, text: str | None, default: int, most: int, least: int = 0) -> int:
    """A whole number of a query; raises UserError (value-invalid, value-out-of-range)."""
    if text is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,20}", text):
        raise UserError(f"{name}: expected a whole number, got {printable(text[:100])!r}", "value-invalid")
    if not least <= int(text) <= most:
        raise UserError(f"{name}: expected {least:,} to {most:,}, got {text}", "value-out-of-range")
    return int(text)
