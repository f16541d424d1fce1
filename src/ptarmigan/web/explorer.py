"""The addresses of `ptarmigan explore`: the page, what changes in the runs, and the pages and pictures of each run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ptarmigan.commands.export import sample_argument
from ptarmigan.commands.plot import draw
from ptarmigan.core.log import read_rows
from ptarmigan.core.types import UserError, printable
from ptarmigan.generator.generator import load
from ptarmigan.sharing import page, report
from ptarmigan.sharing.charts import curves_of
from ptarmigan.sharing.markup import asset
from ptarmigan.web.guard import guarded, only, whole, whole_page
from ptarmigan.web.live import Live
from ptarmigan.web.nearest import Nearest
from ptarmigan.web.runs import COPIES, GENERATOR, grid_path, inside, signature
from ptarmigan.web.samples import LAST_SEED
from ptarmigan.web.worker import Worker

ASSETS = {
    "/": ("explore.html", "text/html"),
    "/explore.js": ("explore.js", "text/javascript"),
    "/explore.css": ("explore.css", "text/css"),
}
OfRun = Callable[[Request, str, Path], Awaitable[Response]]


def explored(live: Live, token: str, device: str) -> Starlette:
    """The application of `ptarmigan explore`."""
    worker, nearest = Worker(), Nearest(device)

    async def events(request: Request) -> Response:
        only(request)
        return (
            Response() if request.method == "HEAD" else StreamingResponse(live.stream(), media_type="text/event-stream")
        )

    async def grid(request: Request, key: str, run: Path) -> Response:
        return FileResponse(grid_path(run, request.path_params["images"]), media_type="image/png")

    async def charts(request: Request, key: str, run: Path) -> Response:
        drawn = await worker.once(f"charts of {key}", signature(run, False), lambda: charts_of(run))
        return Response(drawn, media_type="image/svg+xml")

    async def told(request: Request, key: str, run: Path) -> Response:
        return whole_page(await worker.once("report", (key, signature(run, False)), lambda: report.page(run)))

    async def play(request: Request, key: str, run: Path) -> Response:
        version = key, inside(run, run / GENERATOR).stat().st_mtime_ns
        return whole_page(await worker.once("play", version, lambda: page.page(load(run), sample_argument(run, None))))

    async def neighbours(request: Request, key: str, run: Path) -> Response:
        check_private(live)
        given = only(request, "class", "seed", "image")
        seed, image = whole("seed", given("seed"), 0, LAST_SEED), whole("image", given("image"), 0, 10**9 - 1)
        return JSONResponse(await worker.compute(lambda: nearest.of(run, given("class"), seed, image)))

    async def copies(request: Request, key: str, run: Path) -> Response:
        check_private(live)
        return FileResponse(inside(run, run / COPIES), media_type="image/png")

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    @asynccontextmanager
    async def watching(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(live.watch())
        yield
        task.cancel()

    of_runs: dict[str, OfRun] = {
        "grids/{images:int}.png": grid, "charts.svg": charts, "report": told, "play": play, "nearest": neighbours,
        "copies.png": copies,
    }  # fmt: skip
    return guarded(
        [
            *(Route(path, of_asset(*named)) for path, named in ASSETS.items()),
            Route("/events", events),
            Route("/healthz", healthz),
            *(Route(f"/runs/{{key}}/{path}", of_run(live, handler)) for path, handler in of_runs.items()),
        ],
        token,
        watching,
    )


def of_asset(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = asset(f"explore/{name}")

    async def handler(_: Request) -> Response:
        return Response(content, media_type=kind)

    return handler


def of_run(live: Live, handler: OfRun) -> Callable[[Request], Awaitable[Response]]:
    """A handler of requests from one that also takes the run's identifier and folder."""

    async def handling(request: Request) -> Response:
        key = request.path_params["key"]
        return await handler(request, key, live.run(key))

    return handling


def check_private(live: Live) -> None:
    if not live.private:
        text = "training images are shown only where `ptarmigan explore` was started with --private"
        raise UserError(text, "not-private")


def charts_of(run: Path) -> str:
    """The run's log as an SVG; raises UserError (log-empty)."""
    if not (panels := curves_of(read_rows(run / "metrics.jsonl"))):
        raise UserError("the log has fewer than two lines to draw", "log-empty")
    return draw(printable(run.resolve().name), panels)
