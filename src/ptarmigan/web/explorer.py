"""The addresses of `ptarmigan explore`: the page, what changes in the runs, and the pages and pictures of each run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from ptarmigan.commands.export import sample_argument
from ptarmigan.commands.plot import draw
from ptarmigan.core.log import read_rows
from ptarmigan.core.types import UserError, printable
from ptarmigan.generator.generator import MAX_IMAGES, load
from ptarmigan.sharing import page, report
from ptarmigan.sharing.charts import curves_of
from ptarmigan.sharing.markup import asset
from ptarmigan.training.outputs import samples_path
from ptarmigan.web.guard import guarded, healthz, only, whole, whole_page
from ptarmigan.web.live import Live
from ptarmigan.web.nearest import Nearest
from ptarmigan.web.runs import COPIES, GENERATOR, inside, signature
from ptarmigan.web.samples import LAST_SEED
from ptarmigan.web.worker import Worker

ASSETS = {
    "/": ("explore.html", "text/html"),
    "/explore.js": ("explore.js", "text/javascript"),
    "/explore.css": ("explore.css", "text/css"),
}
OfRun = Callable[[Request, Path], Awaitable[Response]]


class Explorer:
    """The handlers of the requests to `ptarmigan explore`."""

    def __init__(self, live: Live, device: str) -> None:
        self.live, self.worker, self.nearest = live, Worker(), Nearest(device)

    def app(self, token: str) -> Starlette:
        return guarded(self.routes(), token, self.watching)

    async def end(self) -> None:
        """End what would go on after the server."""
        self.nearest.end()
        await self.live.end()

    def routes(self) -> list[BaseRoute]:
        of_runs: dict[str, OfRun] = {
            "grids/{images:int}.png": self.grid, "charts.svg": self.charts, "report": self.report, "play": self.play,
            "nearest": self.neighbours, "copies.png": self.copies,
        }  # fmt: skip
        return [
            *(Route(path, of_asset(*named)) for path, named in ASSETS.items()),
            *(Route(f"/runs/{{key}}/{path}", self.of_run(handler)) for path, handler in of_runs.items()),
            Route("/events", self.events),
            Route("/healthz", healthz),
        ]

    @asynccontextmanager
    async def watching(self, _: Starlette) -> AsyncIterator[None]:
        """Look for what is new while the server runs."""
        task = asyncio.create_task(self.live.watch())
        yield
        task.cancel()

    def of_run(self, handler: OfRun) -> Callable[[Request], Awaitable[Response]]:
        """A handler of requests from one that also takes the run's folder."""

        async def handling(request: Request) -> Response:
            return await handler(request, self.live.run(request.path_params["key"]))

        return handling

    async def events(self, request: Request) -> Response:
        if request.method == "HEAD":  # the stream has no end
            return Response()
        return StreamingResponse(self.live.stream(), media_type="text/event-stream")

    async def grid(self, request: Request, run: Path) -> Response:
        return FileResponse(inside(run, samples_path(run, request.path_params["images"])), media_type="image/png")

    async def charts(self, _: Request, run: Path) -> Response:
        drawn = await self.worker.once(f"charts of {run}", signature(run), lambda: charts_of(run))
        return Response(drawn, media_type="image/svg+xml")

    async def report(self, _: Request, run: Path) -> Response:
        return whole_page(await self.worker.once("report", (run, signature(run)), lambda: report.page(run)))

    async def play(self, _: Request, run: Path) -> Response:
        version = run, inside(run, run / GENERATOR).stat().st_mtime_ns
        text = await self.worker.once("play", version, lambda: page.page(load(run), sample_argument(run, None)))
        return whole_page(text)

    async def neighbours(self, request: Request, run: Path) -> Response:
        self.check_private()
        given = only(request, "class", "seed", "image")
        seed = whole("seed", given("seed"), 0, LAST_SEED)
        image = whole("image", given("image"), 0, MAX_IMAGES - 1)
        return JSONResponse(await self.worker.compute(lambda: self.nearest.of(run, given("class"), seed, image)))

    async def copies(self, _: Request, run: Path) -> Response:
        self.check_private()
        return FileResponse(inside(run, run / COPIES), media_type="image/png")

    def check_private(self) -> None:
        """Raise UserError (not-private) where no training image may be shown."""
        if not self.live.private:
            text = "training images are shown only where `ptarmigan explore` was started with --private"
            raise UserError(text, "not-private")


def of_asset(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = asset(f"explore/{name}")

    async def handler(_: Request) -> Response:
        return Response(content, media_type=kind)

    return handler


def charts_of(run: Path) -> str:
    """The run's log as an SVG; raises UserError (log-empty)."""
    if not (panels := curves_of(read_rows(run / "metrics.jsonl"))):
        raise UserError("the log has fewer than two lines to draw", "log-empty")
    return draw(printable(run.resolve().name), panels)
