"""`explore`: runs in a browser, live; only what is of the runs named, and training images only where that is wished."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import math
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ptarmigan.web.live
import ptarmigan.web.nearest
import ptarmigan.web.runs
from browser import CHROMIUM, Browser
from conftest import SMALL
from ptarmigan import explore, load, train
from ptarmigan.core.log import Metrics
from ptarmigan.web.explorer import Explorer
from ptarmigan.web.live import Live
from ptarmigan.web.nearest import Nearest
from ptarmigan.web.runs import described, find_runs, identifier
from support import call, raises, random_projection
from test_serve import TOKEN, Address, running

HOSTILE = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose class names are hostile, and whose images differ by class."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = (rng.integers(0, 90, (60, 16, 16)) + 150 * labels[:, None, None]).astype(np.uint8)
    folder = tmp_path_factory.mktemp("trained")
    np.savez(folder / "x.npz", arr_0=images, arr_1=labels, class_names=np.array([HOSTILE, "white"]))
    run: Path = train(folder / "x.npz", out=folder / "first", **SMALL)
    return run


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """A folder with two runs, a file and a folder that is no run."""
    folder = tmp_path / "runs"
    for name in ("first", "second <b>"):
        shutil.copytree(trained, folder / name)
    (folder / "notes").mkdir()
    (folder / "notes.txt").write_text("x")
    return folder


@contextmanager
def exploring(*given: Path, private: bool = False) -> Iterator[tuple[Address, Live]]:
    live = Live(given, private)
    live.look()
    explorer = Explorer(live, "cpu")
    with running(explorer.app(TOKEN), before_end=explorer.end) as at:
        yield at, live


def log(run: Path, images: int, **values: Any) -> None:
    Metrics(run / "metrics.jsonl").write(images, clock=99.0, images_per_second=1.0, end=None, **values)


# --- what a run is said to be ----------------------------------------------------------------------------------------


def test_runs_are_found_by_themselves_and_in_a_folder(runs: Path, tmp_path: Path) -> None:
    names = ["first", "second <b>"]
    assert [run.name for run in find_runs([runs]).values()] == names
    assert [run.name for run in find_runs([runs / names[1], runs]).values()] == names[::-1]
    assert find_runs([runs / "notes", runs / "notes.txt", tmp_path / "nothing", runs / "first" / "generator"]) == {}


def test_a_run_is_described(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs / "first"
    content = described(run, private=True)
    assert (content["name"], content["state"], content["images"]) == ("first", "finished", 48)
    assert content["verdict"].endswith("too early to judge")
    assert [grid["images"] for grid in content["grids"]] == sorted(int(p.stem) for p in run.glob("samples/0*.png"))
    clocks = [grid["clock"] for grid in content["grids"]]
    assert clocks == sorted(clocks)
    assert 0 < clocks[0] <= clocks[-1] == content["clock"]
    assert content["classes"] == [HOSTILE, "white"]
    assert (content["generator"], content["private"], content["copies"], content["scores"]) == (True, True, False, [])
    report = {"figures": {}, "copies": {}, "notes": [], "protocol": {}, "verdict": f"All {HOSTILE} are recognisable."}
    monkeypatch.setattr(
        ptarmigan.web.runs, "read_reports", lambda folder: {"x": report} if folder == run / "generator" else {}
    )
    assert described(run, private=False)["scores"] == [f"{report['verdict']} "]
    (run / "config.json").write_text("{}")
    assert "config.json" in described(run, private=False)["fault"]
    (run / "config.json").unlink()
    assert described(run, private=False)["state"] == "reading its images"
    shutil.rmtree(run)
    assert "config.json" in described(run, private=False)["fault"]


# --- the stream ------------------------------------------------------------------------------------------------------


def stream(at: Address) -> Iterator[dict[str, Any]]:
    """What the stream of events sends, as it comes."""
    with socket.create_connection(("127.0.0.1", at.port), timeout=30) as connection:
        connection.sendall(f"GET /{TOKEN}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        for line in connection.makefile(encoding="utf-8"):
            if line.startswith("data: "):
                yield json.loads(line[6:])


def test_the_stream_sends_each_run_and_then_what_changes(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptarmigan.web.live, "EVERY", 0.05)
    with exploring(runs) as (at, _):
        events = stream(at)
        assert [next(events)["name"] for _ in range(2)] == ["first", "second <b>"]
        log(runs / "first", 64, d_adv=1.0)
        changed = next(events)
        assert (changed["name"], changed["images"], changed["clock"]) == ("first", 64, 99.0)
        log(runs / "first", 48, d_adv=math.nan, select_kid=math.nan)
        assert next(events)["grids"][-1]["kid"] is None
        shutil.copytree(runs / "first", runs / "third")
        assert next(events)["name"] == "third"
    assert [*events] == []


def test_a_run_that_is_not_looked_at_costs_nothing(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptarmigan.web.live, "EVERY", 0.01)
    live = Live([runs], False)
    live.look()
    monkeypatch.setattr(live, "look", lambda: pytest.fail("nobody reads"))

    async def watch() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(live.watch(), 0.2)

    asyncio.run(watch())


def test_a_look_at_many_runs_ends_with_the_server(runs: Path) -> None:
    live = Live([runs], False)
    asyncio.run(live.end())
    live.look()
    assert live.states == {}


def test_a_run_that_was_killed_is_seen_to_be_stopped(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs / "first"
    log(run, 64, d_adv=1.0)
    live = Live([run], False)
    for locked, state in ((True, "training"), (True, "training"), (False, "stopped")):
        for module in ("generator.header", "web.live"):
            monkeypatch.setattr(f"ptarmigan.{module}.is_locked", lambda _, locked=locked: locked)
        live.look()
        (one,) = live.states.values()
        assert state in one.event.decode()
        assert one.version == (2 if state == "stopped" else 1)


# --- what is served --------------------------------------------------------------------------------------------------


def test_pages_and_pictures_of_a_run(runs: Path) -> None:
    run = runs / "first"
    with exploring(runs) as (at, _):
        here = f"/runs/{identifier(run)}"
        assert at.get("/").kind.startswith("text/html")
        assert at.get("/explore.js").kind.startswith("text/javascript")
        assert at.get("/explore.css").kind.startswith("text/css")
        assert at.get(f"{here}/grids/48.png").body == (run / "samples" / "000000048.png").read_bytes()
        assert at.get(f"{here}/charts.svg").body.startswith(b"<svg")
        for path in ("/", "/events", "/explore.js", f"{here}/play", f"{here}/grids/48.png", "/healthz"):
            assert at.get(path, "").status == 401
        assert at.get("/events", method="HEAD").status == 200


@pytest.mark.parametrize("page", ["play", "report"])
def test_a_page_runs_its_own_scripts_alone(page: str, runs: Path) -> None:
    with exploring(runs) as (at, _):
        answer = at.get(f"/runs/{identifier(runs / 'first')}/{page}")
        assert "script-src 'self';" in at.get("/").policy
    text = answer.body.decode()
    assert HOSTILE not in text
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    (allowed,) = re.findall("script-src ([^;]*);", answer.policy)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert allowed.split() == [f"'sha256-{digest}'", "'wasm-unsafe-eval'"]


def test_a_report_is_that_of_now(runs: Path) -> None:
    with exploring(runs) as (at, _):
        here = f"/runs/{identifier(runs / 'first')}/report"
        before = at.get(here).body
        assert at.get(here).body == before
        log(runs / "first", 64_000, d_adv=1.0)
        assert b"64,000" in at.get(here).body


def test_nothing_outside_of_the_runs_is_served(runs: Path, tmp_path: Path) -> None:
    run, secret = runs / "first", tmp_path / "secret.png"
    Image.new("L", (16, 16)).save(secret)
    (run / "samples" / "000000016.png").symlink_to(secret)
    (run / "private").mkdir()
    (run / "private" / "copies.png").symlink_to(secret)
    with exploring(run, private=True) as (at, _):
        here = f"/runs/{identifier(run)}"
        for path in (
            f"{here}/grids/16.png", f"{here}/grids/17.png", f"{here}/copies.png", f"{here}/grids/../../config.json",
            f"{here}/config.json", f"/runs/{identifier(runs / 'second <b>')}/grids/48.png", "/runs/x/play",
            f"/runs/{secret}", f"{here}/grids/%2e%2e%2f%2e%2e%2fsecret.png", f"{here}/grids/{800 * '9'}.png",
        ):  # fmt: skip
            assert at.get(path).status == 404, path


# --- training images -------------------------------------------------------------------------------------------------


def nearest(at: Address, run: Path, query: str = "class=white&seed=3&image=2") -> Any:
    """The answer once the training images are prepared."""
    while "waiting" in (answer := at.get(f"/runs/{identifier(run)}/nearest?{query}").json):
        pass
    return answer


def pixels(png: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def test_nearest_training_images(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, projection = runs / "first", random_projection()
    monkeypatch.setattr(ptarmigan.web.nearest, "load_extractor", lambda device: projection)
    with exploring(run, private=True) as (at, _):
        answer = nearest(at, run)
        assert (pixels(answer["image"]) == load(run).sample("white", 3, seed=3)[0][2, :, :, 0]).all()
        distances = [one["distance"] for one in answer["nearest"]]
        assert distances == sorted(distances)
        assert len(distances) == 8
        copied = answer["nearest"][5]["png"]
        monkeypatch.setattr(ptarmigan.web.nearest.Wanted, "draw", lambda *_: pixels(copied)[None, ..., None])
        again = nearest(at, run)["nearest"][0]
        assert (again["distance"], again["png"]) == (0, copied)
        assert at.get(f"/runs/{identifier(run)}/nearest?class=grey").json["code"] == "unknown-name"
        assert at.get(f"/runs/{identifier(run)}/nearest?n=1").json["code"] == "unknown-name"


def test_the_preparation_of_training_images_ends_with_the_server(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    projection, batches = replace(random_projection(), sha256=64 * "6"), []  # whose features are not cached yet
    monkeypatch.setattr(ptarmigan.web.nearest, "load_extractor", lambda device: projection)
    nearest = Nearest("cpu")

    def forward(*_: object) -> None:
        batches.append(1)
        nearest.end()

    projection.network.register_forward_hook(forward)
    assert "waiting" in nearest.of(runs / "first", "white", 0, 0)
    assert nearest.prepared is not None
    nearest.prepared.thread.join(30)
    assert len(batches) == 1  # of 60 images
    with raises("interrupted"):
        nearest.of(runs / "first", "white", 0, 0)


def test_training_images_that_are_gone_are_named(runs: Path, trained: Path) -> None:
    data = trained.parent / "x.npz"
    away = data.rename(data.with_name("y.npz"))
    try:
        with exploring(runs, private=True) as (at, _):
            answer = nearest(at, runs / "first")
    finally:
        away.rename(data)
    assert answer["code"] == "data-missing"
    assert str(data) in answer["text"]


def test_training_images_are_shown_only_with_private_and_on_this_machine(runs: Path) -> None:
    with exploring(runs) as (at, _):
        here = f"/runs/{identifier(runs / 'first')}"
        assert described(runs / "first", private=False)["classes"] == []
        for path in ("nearest?class=white", "copies.png"):
            assert (at.get(f"{here}/{path}").status, at.get(f"{here}/{path}").json["code"]) == (403, "not-private")
    with raises("options-conflict", "0.0.0.0"):
        explore(runs, private=True, host="0.0.0.0")


# --- the command -----------------------------------------------------------------------------------------------------


def test_a_folder_without_runs(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with raises("not-a-run", runs / "notes"):
        explore(runs, runs / "notes")
    monkeypatch.chdir(tmp_path / "runs" / "notes")
    status, _, err = call(monkeypatch, capsys, "explore")
    assert (status, "[not-a-run]" in err) == (2, True)


# --- the page --------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    """The page in a browser as wide as a telephone; afterwards its console must be empty."""
    projection = random_projection()
    monkeypatch.setattr(ptarmigan.web.nearest, "load_extractor", lambda device: projection)
    with exploring(runs, private=True) as (at, _), Browser(tmp_path / "profile") as browser:
        browser.look_like(390)
        browser.open(f"http://127.0.0.1:{at.port}/{TOKEN}/")
        browser.until("document.querySelectorAll('.card').length === 2")
        yield browser
        assert browser.complaints == []


def focus(page: Browser, selector: str) -> None:
    page.run(f"document.querySelector({json.dumps(selector)}).focus()")


def grids(run: Path) -> list[int]:
    return sorted(int(path.stem) for path in (run / "samples").glob("0*.png"))


def in_browser(test: Any) -> Any:
    return pytest.mark.slow(pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")(test))


@in_browser
def test_the_page_has_a_card_for_each_run_and_a_name_for_each_control(page: Browser) -> None:
    assert page.run("find('connection').textContent") == "Live"
    titles = page.run("[...document.querySelectorAll('.card h2')].map((e) => e.textContent)")
    assert titles == ["first", "second <b>"]
    assert page.run("document.documentElement.scrollWidth") <= 390
    unnamed = """[...document.querySelectorAll("a, button, input, select, img")].filter((e) => e.checkVisibility()
        && !e.textContent && !e.labels?.length && !e.alt && !e.ariaLabel).map((e) => e.outerHTML)"""
    assert page.run(unnamed) == []


@in_browser
def test_the_film_of_a_run_by_keys_and_its_charts(page: Browser, runs: Path) -> None:
    first, last = grids(runs / "first")
    focus(page, ".card [data-role=film]")
    page.press("ArrowLeft")
    shown = "find('grid').getAttribute('src')"
    assert f"grids/{first}.png" in page.run(shown)
    log(runs / "first", 64, d_adv=1.0)
    page.until("find('state').textContent.includes('64')")
    assert f"grids/{first}.png" in page.run(shown)  # it stays where one looks
    page.press("ArrowRight")
    assert f"grids/{last}.png" in page.run(shown)
    page.click(".card details summary")
    page.until("find('chart').complete && find('chart').naturalWidth > 0")


@in_browser
def test_runs_side_by_side(page: Browser, runs: Path) -> None:
    focus(page, "#place")
    page.press("ArrowLeft")
    shown = page.run("[...find('columns').querySelectorAll('img')].map((img) => img.src)")
    assert [Path(address).name for address in shown] == 2 * [f"{grids(runs / 'first')[0]}.png"]
    focus(page, "[data-role=chosen] input")
    page.press(" ")
    assert page.run("find('columns').children.length") == 1
    page.press(" ")
    focus(page, "#unit")
    page.press("ArrowDown")
    page.until("document.querySelector('output[for=place]').textContent.endsWith('s')")


@in_browser
def test_nearest_training_images_in_the_page(page: Browser) -> None:
    found = "document.querySelectorAll('.neighbours img').length === 9"
    focus(page, "[data-do=nearest]")
    page.press("Enter")
    page.until(found)
    focus(page, "#seed")
    page.type("-1")
    page.press("Enter")
    page.until("find('found').textContent.includes('seed')")
    (refused,) = page.complaints
    assert "status of 400" in refused
    page.complaints.clear()
    focus(page, "#seed")
    page.type("5")
    page.click("[data-do=next]")
    page.until(found)
    assert page.run("document.getElementById('image').value") == "1"
    page.click("[data-do=close]")
    assert page.run("document.activeElement.dataset.do") == "nearest"


@in_browser
def test_the_pages_of_a_run_work_under_their_policy(page: Browser) -> None:
    page.click("[data-role=play]")
    page.until("document.querySelector('[role=status]')?.textContent.startsWith('Drew')")
    page.run("history.back()")
    page.until("document.querySelectorAll('.card').length === 2")
    focus(page, "[data-role=report]")
    page.press("Enter")
    page.until("document.querySelector('.film input') !== null")
    focus(page, ".film input")
    before = page.run("document.querySelector('.film img').src")
    page.press("ArrowLeft")
    assert page.run("document.querySelector('.film img').src") != before
