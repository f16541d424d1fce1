"""`export --to hub` and `hf:user/name`, against a local server that speaks the Hub's endpoints that they use."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest

import ptarmigan.generator.export
from conftest import SMALL
from ptarmigan import export, info, load, sample, score, train
from ptarmigan.generator.export import share_generator, write_scores
from support import call, raises
from test_export import generator_of

pytestmark = pytest.mark.filterwarnings("ignore:Use .content:DeprecationWarning")  # of huggingface_hub itself
TOKEN = "hf_of_me"


class Hub(ThreadingHTTPServer):
    """Repositories in memory, with what was asked of them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {"other/theirs": {"0" * 40: {"README.md": b"x"}}}
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.broken = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Add a commit with these files to a repository -> its name."""
        commits = self.repos.setdefault(repo, {})
        name = f"{len(commits):040x}"
        commits[name] = {**(list(commits.values()) or [{}])[-1], **files}
        return name


class Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, content: object = b"", status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self) -> None:
        path, body = self.path.split("?")[0], self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self.chunks()
        self.server.asked.append(f"{self.command} {path}")
        if self.server.broken:
            self.answer({"error": "down"}, 503)
        elif self.command in ("POST", "PUT") and self.headers.get("Authorization") not in (f"Bearer {TOKEN}", None):
            self.answer({"error": "no"}, 401, X_Error_Message="Invalid credentials in Authorization header")
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/(\w+/[\w-]+)(?:/revision/(.+))?", path):
            self.model(found[1], found[2])
        elif re.search("/preupload/main$", path):
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in files}
            self.answer({"files": [{"path": f, "uploadMode": modes[f], "shouldIgnore": False} for f in files]})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {
                    "oid": o["oid"],
                    "size": o["size"],
                    "actions": {"upload": {"href": f"{self.server.url}/lfs/{o['oid']}"}},
                }
                for o in json.loads(body)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})
        elif path.startswith("/lfs/"):
            self.server.objects[path[5:]] = body
            self.answer()
        elif found := re.fullmatch(r"/api/models/(\w+/[\w-]+)/commit/main", path):
            self.commit(found[1], [json.loads(line) for line in body.splitlines()])
        elif found := re.fullmatch(r"/(\w+/[\w-]+)/resolve/(\w+)/(.+)", path):
            self.file(*found.groups())
        else:
            self.answer({"error": path}, 404)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815

    def chunks(self) -> bytes:
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def create(self, asked: dict[str, Any]) -> None:
        owner = asked["organization"] or "me"
        repo = f"{owner}/{asked['name']}"
        known = repo in self.server.repos
        if owner != "me":
            self.answer({"error": "not yours"}, 403)
            return
        if not known:
            self.server.commit(repo, {".gitattributes": b""})
        self.answer({"url": f"{self.server.url}/{repo}"}, 409 if known else 200)

    def model(self, repo: str, revision: str | None) -> None:
        commits = self.server.repos.get(repo)
        if commits is None:
            self.answer({"error": "no"}, 404, X_Error_Code="RepoNotFound")
            return
        name = list(commits)[-1] if revision in (None, "main") else revision
        if name not in commits:
            self.answer({"error": "no"}, 404, X_Error_Code="RevisionNotFound")
            return
        self.answer({"id": repo, "sha": name, "siblings": [{"rfilename": file} for file in commits[name]]})

    def commit(self, repo: str, lines: list[dict[str, Any]]) -> None:
        values = [(line["key"], line["value"]) for line in lines]
        files = {v["path"]: base64.b64decode(v["content"]) for key, v in values if key == "file"}
        files |= {v["path"]: self.server.objects[v["oid"]] for key, v in values if key == "lfsFile"}
        name = self.server.commit(repo, files)
        self.answer({"commitUrl": f"{self.server.url}/{repo}/commit/{name}", "commitOid": name})

    def file(self, repo: str, revision: str, name: str) -> None:
        content = self.server.repos.get(repo, {}).get(revision, {}).get(name)
        if content is None:
            self.answer(status=404, X_Error_Code="EntryNotFound", X_Repo_Commit=revision)
            return
        self.answer(content, X_Repo_Commit=revision, ETag=f'"{hashlib.sha256(content).hexdigest()}"')


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    generator_of(tmp_path / "model", "auto")
    return tmp_path / "model"


def test_a_generator_goes_to_the_hub_and_comes_back(
    hub: Hub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(monkeypatch, capsys, "export", model, "me/things", "--to", "hub", "--license", "MIT")
    assert (status, out) == (0, f"hf:me/things@{1:040x}\n")
    assert "public" in err
    files = hub.repos["me/things"][f"{1:040x}"]
    assert {*files} == {".gitattributes", "README.md", "config.json", "model.safetensors"}
    assert files["model.safetensors"] == (model / "model.safetensors").read_bytes()
    card = files["README.md"].decode()
    assert card.startswith("---\nlicense: mit\n")
    for fact in ("hf:me/things", "Licence: MIT", "no training images", *("boot", "bag, small")):
        assert fact in card
    monkeypatch.chdir(tmp_path)
    for name, facts in (("hf:me/things", [f"hf:me/things@{1:040x}"]), (out.strip(), [])):
        _, path, err = call(monkeypatch, capsys, "sample", name, "--class", "boot", "-n", 2, "--seed", 5)
        for fact in facts:
            assert fact in err
        sample(model, label="boot", n=2, seed=5, out=(same := f"{path.strip()}.png"))
        assert Path(path.strip()).read_bytes() == Path(same).read_bytes()


def test_a_commit_that_is_here_needs_no_network(hub: Hub, model: Path, tmp_path: Path) -> None:
    named = str(export(model, "me/things", to="hub"))
    page = Path(export("hf:me/things", out=tmp_path / "x.html")).read_text(encoding="utf-8")
    assert f'"argument":"{named}"' in page
    before = load(named).sample("boot", 1)[0]
    hub.broken = True
    hub.asked.clear()
    assert (load(named).sample("boot", 1)[0] == before).all()
    assert info(named)["sha256"] == load(model).sha256
    assert not [line for line in hub.asked if "model.safetensors" in line]


def test_an_older_revision_is_still_there(hub: Hub, model: Path, tmp_path: Path) -> None:
    first = str(export(model, "me/things", to="hub"))
    generator_of(tmp_path / "newer", "smooth")
    hub.commit("me/things", {"model.safetensors": (tmp_path / "newer" / "model.safetensors").read_bytes()})
    assert load("hf:me/things").spec.height == 35
    assert load(first).spec.height == 32
    assert load("hf:me/things@main").spec.height == 35
    with raises("options-conflict", "--at"):
        load("hf:me/things", at=5)


def test_the_card_has_the_data_of_the_run_and_any_licence(
    hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"name": "things", "fingerprint": "", "split": {"train": 1234}, "train_counts": [1000, 200, 34]}
    monkeypatch.setattr(ptarmigan.generator.export, "load_run_record", lambda run: {"data": data})
    export(model, "me/run", to="hub", license="For my friends\nalone!")
    card = hub.repos["me/run"][f"{1:040x}"]["README.md"].decode()
    for fact in (
        "license: other\nlicense_name: for-my-friends-alone\n",
        "Licence: For my friends",
        "1,234",
        "`things`",
    ):
        assert fact in card
    assert "0. boot (1,000 training images)" in card
    data["fingerprint"] = "of other images"
    export(model, "me/other", to="hub")
    card = hub.repos["me/other"][f"{1:040x}"]["README.md"].decode()
    assert "things`" not in card
    assert "license:" not in card


def test_new_scores_keep_the_rest_of_the_card(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "shared"
    share_generator(model / "model.safetensors", folder, "mit", "hf:me/things")
    for scores in ("first scores", "second scores"):
        monkeypatch.setattr(ptarmigan.generator.export, "markdown", lambda report, text=scores: text)
        write_scores(folder, load(folder), {"protocol": {"extractor": "x"}})
    card = (folder / "README.md").read_text(encoding="utf-8")
    for fact in ("license: mit", "Licence: mit", "hf:me/things", "second scores"):
        assert card.count(fact) == 1
    assert "first scores" not in card
    assert "None yet" not in card


@pytest.mark.slow
def test_a_checkpoint_goes_to_the_hub_without_what_is_private(hub: Hub, shapes: Path, tmp_path: Path) -> None:
    run = train(shapes, out=tmp_path / "run", **SMALL)
    at = min(int(path.stem) for path in (run / "checkpoints").iterdir())
    named = str(export(run, "me/early", to="hub", at=at))
    content = b"".join(hub.repos["me/early"][f"{1:040x}"].values())
    assert b"30 training images" in content
    assert str(tmp_path).encode() not in content
    early, again = load(run, at=at), load(named)
    assert again.images_seen == early.images_seen == at
    assert (again.sample(n=1)[0] == early.sample(n=1)[0]).all()


@pytest.mark.parametrize(
    ("repo", "token", "code", "fact"),
    [
        ("me/things", None, "login-needed", "hf auth login"),
        ("me/things", "hf_wrong", "login-needed", "401"),
        ("other/new", TOKEN, "login-needed", "403"),
        ("other/theirs", TOKEN, "repo-taken", "README.md"),
        ("me/taken", TOKEN, "repo-taken", "model.safetensors"),
        ("a/b/c", TOKEN, "value-invalid", "user/name"),
    ],
)
def test_what_the_hub_does_not_take_is_refused(
    hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch, repo: str, token: str | None, code: str, fact: str
) -> None:
    hub.commit("me/taken", {"model.safetensors": b""})
    before = json.dumps({name: [*commits] for name, commits in hub.repos.items()})
    monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)
    with raises(code, fact) as caught:
        export(model, repo, to="hub")
    assert "hf_" not in str(caught.value).replace("HF_TOKEN", "")
    assert json.dumps({name: [*commits] for name, commits in hub.repos.items()}) == before


def test_what_the_server_and_the_disk_refuse_is_said(hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.broken = True
    for act in (lambda: export(model, "me/things", to="hub"), lambda: load("hf:me/things")):
        with raises("hub-failed", "503"):
            act()
    hub.broken = False
    named = str(export(model, "me/things", to="hub"))
    cache = model / "model.safetensors" / "no folder"
    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
        with raises("file-unwritable", cache):
            load(named)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    for act in (lambda: export(model, "me/things", to="hub"), lambda: load("hf:me/things")):
        with raises("hub-failed", "me/things", "network"):
            act()


@pytest.mark.parametrize(
    ("name", "code", "fact"),
    [
        ("hf:me/nothing", "repo-not-found", "me/nothing"),
        ("hf:me/pickles@v9", "repo-not-found", "revision"),
        ("hf:me/pickles", "no-generator", "model.safetensors"),
        ("hf:me/foreign", "file-damaged", "model.safetensors"),
        ("hf:me/damaged", "file-damaged", "SHA-256"),
        ("hf:", "value-invalid", "user/name"),
        ("hf:../etc", "value-invalid", "user/name"),
    ],
)
def test_a_repository_that_is_no_model_is_refused(hub: Hub, model: Path, name: str, code: str, fact: str) -> None:
    content = bytearray((model / "model.safetensors").read_bytes())
    content[-1] ^= 1
    hub.commit("me/pickles", {"pytorch_model.bin": b"\x80\x04."})
    hub.commit("me/foreign", {"model.safetensors": (2).to_bytes(8, "little") + b"{}"})
    hub.commit("me/damaged", {"model.safetensors": bytes(content)})
    with raises(code, fact):
        load(name)
    assert not [line for line in hub.asked if "pytorch_model.bin" in line]


def test_a_score_of_a_model_on_the_hub_is_not_written_into_the_hub_s_cache(
    hub: Hub, model: Path, tmp_path: Path
) -> None:
    named = str(export(model, "me/things", to="hub"))
    with raises("options-conflict", "--out"):
        score(named, model)
    with raises("no-images"):
        score(named, tmp_path / "hub", out=tmp_path / "scores")
    assert {path.name for path in (tmp_path / "hub").glob("models--*/snapshots/*/*")} == {"model.safetensors"}


@pytest.mark.slow
def test_the_environment_names_the_hub(hub: Hub, model: Path, tmp_path: Path) -> None:
    env = os.environ | {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN,
    }  # fmt: skip
    command = [sys.executable, "-m", "ptarmigan"]
    done = subprocess.run(
        [*command, "export", str(model), "me/things", "--to", "hub"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    out = tmp_path / "x.npz"
    done = subprocess.run(
        [*command, "sample", done.stdout.strip(), "-n", "1", "--out", str(out)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (np.load(out)["arr_0"] == load(model).sample(n=1)[0]).all()
