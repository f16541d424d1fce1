"""`serve`: the images that `sample` draws, over HTTP; with the token alone, and with an answer to any request."""

from __future__ import annotations

import base64
import io
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from PIL import Image
from starlette.types import ASGIApp

from ptarmigan import load, resolve, sample, serve
from ptarmigan.core.types import ImageSpec
from ptarmigan.generator.export import export_generator
from ptarmigan.generator.generator import TrainedGenerator
from ptarmigan.networks import build
from ptarmigan.web.samples import served
from ptarmigan.web.server import Server, open_socket
from support import call, raises

TOKEN = "the-token-of-the-test"
NAMES = ("boot", "bag, small & <b>", "Schuh é")


class Answer(NamedTuple):
    status: int
    kind: str
    body: bytes
    policy: str  # of content

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def pixels(self) -> np.ndarray[Any, Any]:
        return np.asarray(Image.open(io.BytesIO(self.body)))


class Address(NamedTuple):
    port: int

    def get(self, path: str, token: str = f"/{TOKEN}", method: str = "GET", **headers: str) -> Answer:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, f"{token}{path}", headers=headers)
            answer = connection.getresponse()
            kind, policy = (answer.headers.get(name, "") for name in ("content-type", "content-security-policy"))
            return Answer(answer.status, kind, answer.read(), policy)

    def raw(self, request: bytes) -> bytes:
        """The answer to these bytes, or b""; it is waited for shortly where the headers have no end."""
        patience = 30 if b"\r\n\r\n" in request else 0.05
        with socket.create_connection(("127.0.0.1", self.port), timeout=patience) as connection:
            connection.sendall(request)
            parts = []
            with suppress(TimeoutError, ConnectionError):
                while part := connection.recv(65536):
                    parts.append(part)
                    connection.settimeout(0.2)  # the server may wait for another request
        return b"".join(parts)


@contextmanager
def running(app: ASGIApp, **settings: Any) -> Iterator[Address]:
    """A server of an application in a thread."""
    server = Server(app, **settings)
    with open_socket("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield Address(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()


def generator_of(folder: Path, **fields: Any) -> TrainedGenerator:
    config = resolve({"width": 4, "latent_dim": 6, "class_dim": 4, **fields})
    spec = ImageSpec(16, 24, 4, NAMES)
    network, _ = build(spec, config.model, seed=1)
    export_generator(folder, network, config, spec, 0, "", "")
    return load(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "model"
    generator_of(folder)
    return folder


@pytest.fixture(scope="module")
def address(model: Path) -> Iterator[Address]:
    with running(served(load(model), TOKEN)) as at:
        yield at


def test_an_answer_is_what_sample_writes(address: Address, model: Path, tmp_path: Path) -> None:
    name = NAMES[1]
    picture = sample(model, label=[name], n=5, seed=2**62 + 1, out=tmp_path / "x.png", device="cpu")
    answer = address.get(f"/v1/sample?class={quote(name)}&n=5&seed={2**62 + 1}")
    assert (answer.status, answer.kind) == (200, "image/png")
    assert answer.body == picture.read_bytes()
    folder = sample(model, label=[name], n=5, seed=7, out=tmp_path / "x", device="cpu")
    file = next(folder.glob("*/000003.png"))
    assert address.get(f"/v1/sample?class={quote(name)}&image=3&seed=7").body == file.read_bytes()
    listed = address.get(f"/v1/sample?class={quote(name)}&n=5&seed=7", accept="application/json").json
    assert (listed["class"], listed["seed"], listed["truncation"]) == (name, 7, 1)
    for number, one in enumerate(listed["images"]):
        file = next(folder.glob(f"*/{number:06d}.png"))
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["png"]))))
        assert one["image"] == number
        assert (drawn == np.asarray(Image.open(file))).all()


def test_truncation_multiplies_the_latents(address: Address, model: Path) -> None:
    generator = load(model)
    expected, _ = generator.sample("boot", z=0.5 * generator.latents(3, seed=4))
    for number in range(3):
        drawn = address.get(f"/v1/sample?class=boot&seed=4&image={number}&truncation=0.5").pixels
        assert (np.abs(drawn.astype(int) - expected[number]) <= 1).all()
    assert address.get("/v1/sample?class=boot&seed=4&n=3&truncation=1").body == address.get(
        "/v1/sample?class=boot&seed=4&n=3").body  # fmt: skip


@pytest.mark.parametrize(
    ("query", "status", "code", "fact"),
    [
        ("", 400, "value-invalid", "boot"),
        ("class=shoe", 400, "unknown-name", "shoe"),
        ("class=boot&class=boot", 400, "value-invalid", "class"),
        ("class=boot&n=0", 400, "value-out-of-range", "64"),
        ("class=boot&n=65", 400, "value-out-of-range", "64"),
        ("class=boot&n=1.5", 400, "value-invalid", "1.5"),
        ("class=boot&n=%EF%BC%93", 400, "value-invalid", "n:"),
        ("class=boot&seed=-1", 400, "value-out-of-range", "seed"),
        ("class=boot&seed=9223372036854775808", 400, "value-out-of-range", "seed"),
        ("class=boot&seed=" + 1500 * "9", 400, "value-invalid", "seed"),
        ("class=boot&image=1&n=2", 400, "options-conflict", "image"),
        ("class=boot&truncation=1.01", 400, "value-out-of-range", "1.01"),
        ("class=boot&truncation=nan", 400, "value-invalid", "nan"),
        ("class=boot&format=gif", 400, "value-invalid", "gif"),
        ("class=boot&sed=3", 400, "unknown-name", "sed"),
        ("class=" + 2000 * "x", 400, "value-invalid", "2,000"),
    ],
)
def test_a_request_that_is_not_valid_gets_a_code_and_words(
    query: str, status: int, code: str, fact: str, address: Address
) -> None:
    answer = address.get(f"/v1/sample?{query}")
    assert (answer.status, answer.json["code"]) == (status, code)
    assert fact in answer.json["text"]


def test_other_addresses_and_methods(address: Address) -> None:
    assert address.get("/healthz").json == {"status": "ok"}
    assert (address.get("/v2").status, address.get("/v2").json["code"]) == (404, "address-unknown")
    assert address.get("/healthz", method="POST").status == 405
    assert address.get("/v1/sample?class=boot", method="HEAD")[:3] == (200, "image/png", b"")
    assert address.get("", token=f"/{TOKEN}").status == 307


def test_nothing_is_answered_without_the_token(address: Address, capfd: pytest.CaptureFixture[str]) -> None:
    for path in ("/", "/healthz", "/v1/model", "/v1/sample?class=boot", "/openapi.json", "/nothing"):
        for token in ("", "/wrong", f"/{TOKEN}x", f"/{TOKEN[:-1]}", "/%F0%9F%A6%A2"):
            answer = address.get(path, token)
            assert (answer.status, answer.json["code"]) == (401, "token-wrong")
            assert TOKEN not in answer.body.decode()
    assert address.get("/healthz?token=x", "", authorization="Bearer x").status == 401
    assert address.get("/healthz", "", authorization=f"bearer {TOKEN}").status == 200
    assert address.get(f"/healthz?token={TOKEN}", "").status == 200
    assert address.get(f"/v1/sample?class=boot&token={TOKEN}", "").status == 200
    assert capfd.readouterr() == ("", "")


def test_a_generator_without_classes_and_with_uniform_latents(tmp_path: Path) -> None:
    generator = generator_of(tmp_path / "model", conditioning="none", latent="uniform")
    with running(served(generator, TOKEN)) as at:
        assert at.get("/v1/model").json["classes"] == []
        assert (at.get("/v1/sample?image=2&seed=5").pixels == generator.sample(n=3, seed=5)[0][2]).all()
        assert at.get("/v1/sample?class=boot").json["code"] == "options-conflict"
        assert at.get("/v1/sample?truncation=0.5").json["code"] == "options-conflict"
        assert at.get("/v1/sample?truncation=1.0").status == 200
        assert "class" not in [one["name"] for one in parameters(at)]


def parameters(at: Address) -> list[Any]:
    listed: list[Any] = at.get("/openapi.json").json["paths"]["/v1/sample"]["get"]["parameters"]
    return listed


def test_the_openapi_document_says_what_the_server_takes(address: Address) -> None:
    document = address.get("/openapi.json").json
    for path in document["paths"]:
        assert (
            address.get(path).json["code"] != "address-unknown"
            if path == "/v1/sample"
            else address.get(path).status == 200
        )
    listed = {one["name"]: one["schema"] for one in parameters(address)}
    taken = address.get("/v1/sample?bogus=1").json["text"].partition("takes ")[2].split(", ")
    assert {*listed} == {*taken}
    assert listed["class"]["enum"] == [*NAMES]
    for name in ("n", "seed", "image"):
        for bound, beyond in (("minimum", -1), ("maximum", 1)):
            at_bound = address.get(f"/v1/sample?class=boot&{name}={listed[name][bound]}")
            assert at_bound.status == 200, name
            assert address.get(f"/v1/sample?class=boot&{name}={listed[name][bound] + beyond}").status == 400
    assert {*address.get("/v1/model").json} == {*document["components"]["schemas"]["Model"]["properties"]}
    samples = address.get("/v1/sample?class=boot&format=json").json
    assert {*samples} == {*document["components"]["schemas"]["Samples"]["required"]}


def malformed(draws: random.Random) -> bytes:
    """A request with something wrong in its line, its headers, its address or its body."""
    good = f"GET /{TOKEN}/v1/sample?class=boot&seed=3&n=2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    content = bytearray(good)
    match draws.randrange(6):
        case 0:
            for _ in range(draws.randrange(1, 9)):
                content[draws.randrange(len(content))] = draws.randrange(256)
        case 1:
            content = content[: draws.randrange(len(content))]
        case 2:
            content = bytearray(draws.randbytes(draws.randrange(400)))
        case 3:
            value = quote(draws.randbytes(draws.randrange(60)))
            name = draws.choice(["class", "seed", "n", "image", "truncation", "format", "token", value])
            content = content.replace(b"seed=3", f"{name}={value}".encode())
        case 4:
            header = bytes(draws.choice(b"abc:; \t\x00\xff=,\r\n") for _ in range(draws.randrange(200)))
            name = draws.choice(
                [b"Authorization: Bearer ", b"Accept: ", b"Host: ", b"Content-Length: ", b"Transfer-Encoding: ", b""]
            )
            content = content.replace(b"Host: x", name + header)
        case 5:
            path = draws.choice(
                [
                    "/../../etc/passwd",
                    "/%2e%2e/%2e%2e/etc/passwd",
                    "//",
                    "/v1/sample/" + 3000 * "a",
                    "/v1/%00",
                    "/v1/sample;",
                ]
            )
            content = content.replace(b"/v1/sample", path.encode())
    return bytes(content)


def test_no_malformed_request_is_answered_by_an_error_of_the_server(address: Address) -> None:
    draws = random.Random(0)
    seen = set()
    for number in range(200):
        request = malformed(draws)
        answer = address.raw(request)
        assert not answer or answer.startswith(b"HTTP/1.1 "), request
        status = answer[9:12].decode()
        assert not status.startswith("5"), (number, request, answer)
        seen.add(status)
    assert {"", "200", "400", "401", "404"} <= seen
    assert address.get("/healthz").status == 200


def test_the_server_answers_while_it_draws(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, original = threading.Event(), threading.Event(), TrainedGenerator.draw

    def slow(*given: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return original(*given)

    monkeypatch.setattr(TrainedGenerator, "draw", slow)
    with running(served(load(model), TOKEN)) as at:
        answers: list[Answer] = []
        threads = [threading.Thread(target=lambda: answers.append(at.get("/v1/sample?class=boot"))) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert begun.wait(30)
        assert at.get("/healthz").status == 200
        go_on.set()
        for thread in threads:
            thread.join(30)
    assert [answer.status for answer in answers] == [200, 200, 200]


def test_an_error_of_ours_is_one_line_here_and_there(
    model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(TrainedGenerator, "draw", lambda *_: 1 / 0)
    with running(served(load(model), TOKEN)) as at:
        answer = at.get("/v1/sample?class=boot")
        assert (answer.status, answer.json["code"]) == (500, "internal-error")
        assert at.get("/healthz").status == 200
    err = capfd.readouterr().err
    assert "ZeroDivisionError" in err
    assert "Traceback" not in err


def test_a_port_that_is_taken(model: Path) -> None:
    with open_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with raises("port-taken", port):
            serve(model, port=port)
    with open_socket("127.0.0.1", None) as first, open_socket("127.0.0.1", None) as second:
        assert first.getsockname()[1] != second.getsockname()[1]
    with raises("value-out-of-range", "70000"):
        open_socket("127.0.0.1", 70000)
    for host in ("192.0.2.1", "no such host"):
        with raises("value-invalid", host):
            open_socket(host, 0)


def test_what_is_not_installed_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with raises("package-missing", "uvicorn", "ptarmigan[explore]"):
        serve(model)


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_another_host_is_warned_of(
    host: str, warned: bool, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Server, "run", lambda *_: None)
    status, out, err = call(monkeypatch, capsys, "serve", model, "--host", host)
    assert status == 0
    assert urlsplit(out.strip()).hostname == host
    assert f"open {out.strip()}v1/sample?class=boot&" in err
    assert ("warning" in err) == warned


@pytest.mark.slow
def test_ctrl_c_ends_the_command(model: Path) -> None:
    command = [sys.executable, "-m", "ptarmigan", "serve", str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        address = urlsplit(process.stdout.readline().strip())
        assert address.port
        at = Address(address.port)
        assert at.get("healthz", address.path).status == 200
        assert at.get("healthz", "/").status == 401
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert time.monotonic() - begun < 20  # 0.5 s on an idle machine
    assert process.returncode == 0
    assert "Traceback" not in err
    assert err.count(address.path) == 1  # in the example, and in no log
