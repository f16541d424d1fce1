"""`export`: the page draws what `sample` draws, in Node and in a real browser, whatever the network."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import ptarmigan.sharing.page
from browser import CHROMIUM, Browser
from ptarmigan import export, load, resolve, sample
from ptarmigan.core import seeding
from ptarmigan.core.types import ImageSpec
from ptarmigan.generator.export import export_generator
from ptarmigan.generator.generator import TrainedGenerator
from ptarmigan.generator.points import save_rows
from ptarmigan.networks import build
from ptarmigan.networks.layers import BatchNorm
from ptarmigan.sharing.markup import asset
from ptarmigan.sharing.page import page
from support import call, raises

NODE = shutil.which("node")
NAMES = ("boot", "bag, small", "</script><b>")
KINDS: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {
    "dcgan": ((28, 28, 1), {"g_blocks": 0, "g_modulation": False}),
    "auto": ((32, 32, 3), {}),
    "blocks": ((17, 33, 4), {"g_blocks": 2, "g_modulation": False, "latent": "uniform"}),
    "smooth": ((35, 48, 4), {"resampling": "smooth"}),
    "unconditional": ((16, 16, 3), {"conditioning": "none"}),
    "resnet": ((48, 64, 3), {"network": "resnet"}),
    "resnet odd": ((19, 22, 1), {"network": "resnet"}),
    "r3gan": ((48, 64, 4), {"network": "r3gan"}),
    "r3gan odd": ((28, 35, 1), {"network": "r3gan"}),
}


def generator_of(folder: Path, kind: str) -> TrainedGenerator:
    """A generator whose weights are random, also those that training starts at 0, with norms that do something."""
    (height, width, channels), fields = KINDS[kind]
    config = resolve(fields | {"width": 6, "latent_dim": 10, "class_dim": 5})
    spec = ImageSpec(height, width, channels, NAMES)
    network, _ = build(spec, config.model, seed=1)
    draws = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, part in network.named_modules():
            if isinstance(part, BatchNorm):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.normal_(0, 0.3, generator=draws)
                part.running_var.uniform_(0.3, 2, generator=draws)
                part.bias.normal_(0, 0.3, generator=draws)
            elif isinstance(part, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                part.weight.normal_(
                    0, (0.3 if name.endswith("modulate") else 1) / part.weight[0].numel() ** 0.5, generator=draws
                )
                if part.bias is not None:
                    part.bias.normal_(0, 0.2, generator=draws)
    export_generator(folder, network, config, spec, 0, "", "")
    return load(folder)


def embedded(text: str, name: str) -> str:
    found = re.search(rf'<script type="[^"]+" id="{name}">(.*?)</script>', text, re.DOTALL)
    assert found
    return found[1]


def in_node(code: str, *given: object) -> Any:
    """What an expression of latents.js and network.js gives; `given` is its list of values."""
    program = f"{asset('page/latents.js')}\n{asset('page/network.js')}\nconst given = {json.dumps(given)};\n"
    assert NODE
    done = subprocess.run(
        [NODE, "-"], input=f"{program}console.log(JSON.stringify({code}));", capture_output=True, text=True, check=True,
        timeout=120,
    )  # fmt: skip
    return json.loads(done.stdout)


DRAW = """(() => {
  const [model, weights, seed, label, script] = given, bytes = Uint8Array.from(atob(weights), (c) => c.charCodeAt(0));
  const network = new Network(model, bytes, 5), size = model.class_dim;
  if (script) network.kernel = kernelInScript(network.memory);
  else if (network.kernel.name !== "0") throw Error("no WebAssembly");
  const of = network.embedding ? network.embedding.subarray(label * size, (label + 1) * size) : [];
  const points = [0, 1, 2, 3, 4].map((i) => ({ z: latents(BigInt(seed), i, model.latent_dim, model.latent), of }));
  return network.draw(points).map((pixels) => [...pixels]);
})()"""


def compare(drawn: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    """Images [N, H, W, 4] of the page, and [N, H, W, C]: within 1/255 for 99.9 % of the pixels."""
    channels = expected.shape[-1]
    assert expected.std() > 10
    shown = np.repeat(expected, 3, -1) if channels == 1 else expected
    if channels < 4:
        assert (drawn[..., 3] == 255).all()
        shown = np.concatenate([shown, np.full_like(expected[..., :1], 255)], -1)
    assert (np.abs(drawn.astype(int) - shown) <= 1).mean() > 0.999


@pytest.mark.skipif(NODE is None, reason="needs node")
@pytest.mark.parametrize("kind", [*KINDS, "saturated"])
def test_the_page_draws_what_sample_draws(kind: str, tmp_path: Path) -> None:
    generator = generator_of(tmp_path, "resnet odd" if kind == "saturated" else kind)
    if kind == "saturated":  # nine of ten pixels; with weights of half precision, 99.4 % are within 1/255
        generator.network.last.weight *= 30  # type: ignore[operator, union-attr]
    text = page(generator, "m")
    model, weights = json.loads(embedded(text, "model")), embedded(text, "weights")
    label = None if kind == "unconditional" else "bag, small"
    expected, _ = generator.sample(label, 5, seed=2**62 + 3)
    drawn = in_node(DRAW, model, weights, str(2**62 + 3), 1, kind == "auto")
    compare(np.array(drawn, np.uint8).reshape(5, *expected.shape[1:3], 4), expected)


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_latents_are_those_of_sample() -> None:
    wanted = [(kind, *at) for kind in ("normal", "uniform") for at in ((0, 0), (3, 7), (2**63 - 1, 123_456))]
    given = [(str(seed), index, kind) for kind, seed, index in wanted]
    drawn = in_node("given.map(([seed, index, kind]) => [...latents(BigInt(seed), index, 201, kind)])", *given)
    expected = [seeding.latents(seed, "sample", np.array([index]), 201, kind)[0] for kind, seed, index in wanted]
    torch.testing.assert_close(torch.tensor(drawn), torch.stack(expected), rtol=2e-7, atol=1e-12)


PROBE = """<script>
const faults = [];
addEventListener("error", (event) => faults.push(event.message));
addEventListener("unhandledrejection", (event) => faults.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => faults.push(event.violatedDirective));
(async () => {
  const settled = async () => {
    do await new Promise((done) => setTimeout(done, 100)); while (due);
  };
  const input = (id, value) => {
    find(id).value = value;
    find(id).dispatchEvent(new Event("input"));
    find(id).dispatchEvent(new Event("change"));
  };
  const told = {};
  await settled();
  const classes = document.querySelectorAll('[data-role="classes"] button');
  told.classes = [...classes].map((button) => button.textContent);
  if (classes.length) classes[1].click();
  input("#seed", "3");
  await settled();
  tiles[7].click();
  told.pixels = chosen.pixels.map((image) => [...image]);
  told.large = [...chosen.large];
  told.caption = find('[data-role="caption"]').textContent;
  told.command = find('[data-role="command"]').textContent;
  told.png = (await png(chosen.large, model.width, model.height, { picture: "x" })).flatMap((part) => [...part]);
  told.sheet = (await png(...sheet(), {})).flatMap((part) => [...part]);
  tiles[7].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
  told.focused = tiles.indexOf(document.activeElement);
  if (classes.length) {
    input("#other", "2");
    input("#share", "100");
    await settled();
    told.mixed = chosen.pixels.map((image) => [...image]);
    told.hidden = find('[data-if="command"]').hidden;
    input("#other", "-1");
    await settled();
  }
  input("#move-1", "1.5");
  input("#move-0", "-3");
  await settled();
  told.moved = chosen.pixels.map((image) => [...image]);
  told.moving = find('[data-role="command"]').textContent;
  told.moves = drawingText(0, 1).moves;
  told.directions = [...document.querySelectorAll('[data-role="directions"] label')].map((e) => e.textContent);
  find('[data-do="unmoved"]').click();
  await settled();
  told.unmoved = [find('output[for="move-0"]').textContent, find("#move-1").value, drawingText(0, 1).moves];
  find('[data-do="from"]').click();
  tiles[2].click();
  input("#walked", "0");
  told.start = [...chosen.large];
  input("#walked", "100");
  told.end = [...chosen.large];
  find('[data-do="stop-walk"]').click();
  input("#seed", "-1");
  told.fault = find("#seed-fault").textContent;
  if (model.latent === "normal") {
    input("#variety", "0");
    input("#seed", "4");
    await settled();
    told.typical = chosen.pixels.map((image) => [...image]);
    input("#variety", "70");
    await settled();
    told.varied = chosen.pixels.map((image) => [...image]);
    told.truncated = find('[data-role="command"]').textContent;
    told.text = drawingText(7, 1);
    told.text.seed = String(told.text.seed);
  }
  told.unnamed = [...document.querySelectorAll("button, input, select, canvas")].filter((e) =>
    !e.textContent && !e.labels?.length && !e.getAttribute("aria-label") && !e.getAttribute("aria-labelledby")
    && !e.closest("button")).map((e) => e.outerHTML);
  told.faults = faults;
  document.body.append(Object.assign(document.createElement("pre"), { id: "told", textContent: JSON.stringify(told) }));
})();
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("kind", ["dcgan", "auto", "smooth", "blocks", "unconditional", "resnet", "r3gan"])
def test_every_control_of_the_page_works_in_a_browser(kind: str, tmp_path: Path) -> None:
    generator = generator_of(tmp_path / "model", kind)
    steps = torch.randn(2, generator.config.model.latent_dim, generator=torch.Generator().manual_seed(1))
    save_rows(tmp_path / "my ways.safetensors", generator, directions=steps)
    path = export(tmp_path / "model", out=tmp_path / "x.html", directions=[tmp_path / "my ways.safetensors"])
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    with Browser(tmp_path / "profile") as browser:
        browser.open(path.as_uri())
        browser.until("document.getElementById('told') !== null")
        told = json.loads(browser.run("document.getElementById('told').textContent"))
    conditional = kind != "unconditional"
    size = generator.spec.height, generator.spec.width

    def images(name: str) -> NDArray[np.uint8]:
        return np.array(told[name], np.uint8).reshape(-1, *size, 4)

    assert told["faults"] == []
    assert told["unnamed"] == []
    assert told["classes"] == ([*NAMES] if conditional else [])
    expected, _ = generator.sample(NAMES[1] if conditional else None, 16, seed=3)
    compare(images("pixels"), expected)
    assert (images("large")[0] == images("pixels")[7]).all()
    assert told["caption"].endswith("set 3, picture 7")
    assert told["focused"] == 11
    words = shlex.split(told["command"])
    assert words[:3] == ["ptarmigan", "sample", "model"]
    assert words[3:] == [*(["--class", NAMES[1]] if conditional else []), "-n", "16", "--seed", "3", "--out", "set-3"]
    channels = generator.spec.channels
    saved = Image.open(io.BytesIO(bytes(told["png"])))
    assert saved.mode == {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    assert (np.asarray(saved).reshape(*size, -1) == images("large")[0, :, :, :channels]).all()
    assert saved.info["picture"] == "x"
    sheet = np.asarray(Image.open(io.BytesIO(bytes(told["sheet"])))).reshape(4 * (size[0] + 2) + 2, -1, channels)
    assert (sheet[2 : 2 + size[0], 2 : 2 + size[1]] == images("pixels")[0, :, :, :channels]).all()
    if conditional:
        compare(images("mixed"), generator.sample(NAMES[2], 16, seed=3)[0])
        assert told["hidden"]
    z = generator.latents(16, 3) - 3 * steps[0] + 1.5 * steps[1]
    z = z if generator.config.model.latent == "normal" else z.clamp(-1, 1)
    compare(images("moved"), generator.sample(NAMES[1] if conditional else None, z=z)[0])
    words = shlex.split(told["moving"])
    assert [words[i + 1] for i, word in enumerate(words) if word == "--move"] == [
        "my ways.safetensors:0=-3", "my ways.safetensors:1=1.5",
    ]  # fmt: skip
    assert told["moves"] == "my ways.safetensors:0=-3 my ways.safetensors:1=1.5"
    assert told["directions"] == ["my ways 0", "my ways 1"]
    assert told["unmoved"] == ["0", "0", None]
    assert (np.abs(images("start")[0].astype(int) - images("pixels")[11]) <= 1).all()
    assert (np.abs(images("end")[0].astype(int) - images("pixels")[2]) <= 1).all()
    assert str(2**63 - 1) in told["fault"]
    if generator.config.model.latent == "normal":
        assert (images("typical") == images("typical")[:1]).all()
        assert "--truncation 0.7 " in told["truncated"]
        compare(
            images("varied"), generator.sample(NAMES[1] if conditional else None, z=0.7 * generator.latents(16, 4))[0]
        )
        assert told["text"] == {"labels": int(conditional), "seed": "4", "n": 1, "first": 7, "truncation": 0.7}


def test_the_command_writes_one_file_that_asks_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = generator_of(tmp_path / "my run", "dcgan")
    monkeypatch.chdir(tmp_path)
    status, out, err = call(monkeypatch, capsys, "export", "my run")
    assert (status, out) == (0, "my run.html\n")
    assert "MB" in err
    text = Path("my run.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|\bsrc=|url\(|@import|\bfetch\(|XMLHttp", text.replace(embedded(text, "weights"), ""))
    assert "default-src 'none'" in text
    assert str(tmp_path) not in text
    assert "</script><b>" not in text
    weights = len(embedded(text, "weights"))
    assert len(text) - weights < 60_000
    assert weights < 3.2 * sum(p.numel() for p in generator.network.parameters())
    model = json.loads(embedded(text, "model"))
    assert model["argument"] == "'my run'"
    out_folder = tmp_path / "set"
    sample("my run", label=["bag, small"], n=1, out=out_folder)
    assert (out_folder / model["classes"][1]["folder"]).is_dir()
    with raises("file-exists", "my run.html"):
        export("my run")
    again = export(tmp_path / "my run", out="again.html").read_text(encoding="utf-8")
    assert json.loads(embedded(again, "model"))["argument"] == "'my run'"


def test_what_no_page_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator_of(tmp_path / "model", "dcgan")
    with raises("unknown-name", "pdf", "html"):
        export(tmp_path / "model", to="pdf")
    for options in (
        {"to": "hub"}, {"to": "hub", "repo": "a/b", "out": "x"}, {"to": "onnx", "repo": "a/b"}, {"license": "mit"},
        {"to": "onnx", "directions": "x.safetensors"},
    ):  # fmt: skip
        with raises("options-conflict", "--to"):
            export(tmp_path / "model", **options)
    with raises("value-invalid", "x.png"):
        export(tmp_path / "model", out=tmp_path / "x.png")
    with raises("path-not-found", "nothing"):
        export(tmp_path / "nothing", out=tmp_path / "x.html")
    save_rows(tmp_path / "d.safetensors", generator_of(tmp_path / "other", "auto"), directions=torch.ones(1, 10))
    with raises("generator-differs", "directions", "d.safetensors"):
        export(tmp_path / "model", out=tmp_path / "x.html", directions=tmp_path / "d.safetensors")
    monkeypatch.setattr(ptarmigan.sharing.page, "MOST_WEIGHTS", 1000)
    with raises("model-too-large", "--to onnx"):
        export(tmp_path / "model", out=tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()
