"""`export --to onnx` and `--to torch`: other runtimes draw the generator's images, whatever the network."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ptarmigan import export, load
from ptarmigan.generator.generator import TrainedGenerator
from ptarmigan.networks import NETWORKS
from ptarmigan.sharing import inference, onnx_file, plain, program
from ptarmigan.sharing.inference import Inference, check_parity
from ptarmigan.sharing.plain import plain_file
from support import raises
from test_export import KINDS, NAMES, generator_of

LIMIT = 0.1 / 127.5  # a tenth of a level of a uint8 pixel


def expected(generator: TrainedGenerator, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    z, labels = generator.latents(n, seed=9), torch.arange(n) % len(NAMES)
    images = Inference(generator.network)(z, labels)
    assert images.std() > 0.1
    return z, labels, images


def test_every_network_can_be_drawn_by_the_page_and_by_the_plain_file() -> None:
    generators = {module.Generator for module in NETWORKS.values()}
    assert {*program.FAMILIES} == {*plain.FAMILIES} == generators


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_file_draws_the_generators_images(kind: str, tmp_path: Path) -> None:
    generator = generator_of(tmp_path, kind)
    code = plain_file(generator)
    (tmp_path / "generator.py").write_text(code)
    plain = runpy.run_path(str(tmp_path / "generator.py"))
    assert plain["CLASSES"] == [*NAMES]
    for n in (1, 4, 7):
        z, labels, images = expected(generator, n)
        torch.testing.assert_close(plain["generate"](z, labels), images, rtol=0, atol=LIMIT)
    lines = code.splitlines()
    assert len([line for line in lines if line]) <= 36
    assert max(map(len, lines)) <= 120
    assert "ptarmigan" not in code.replace('"ptarmigan"', "")


PLAIN = """
import sys
sys.modules["ptarmigan"] = None  # importing it fails
import numpy as np, torch
from generator import generate
given = np.load("given.npz")
z, labels = torch.from_numpy(given["z"]), torch.from_numpy(given["labels"])
program = torch.export.load("generator.pt2").module()
np.savez("drawn.npz", plain=generate(z, labels).numpy(), program=program(z, labels).numpy())
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["blocks", "smooth", "resnet", "r3gan odd", "unconditional"])
def test_the_folder_draws_without_ptarmigan(kind: str, tmp_path: Path) -> None:
    generator = generator_of(tmp_path / "model", kind)
    folder = Path(export(tmp_path / "model", to="torch", out=tmp_path / "folder", license="mit"))
    assert load(folder).sha256 == generator.sha256
    assert "Licence: mit" in (folder / "README.md").read_text(encoding="utf-8")
    with zipfile.ZipFile(folder / "generator.pt2") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    assert not [name for name, part in content.items() if b".pkl" in part or str(Path.cwd()).encode() in part]
    z, labels, images = expected(generator, 5)
    np.savez(folder / "given.npz", z=z, labels=labels)
    subprocess.run([sys.executable, "-c", PLAIN], cwd=folder, env={"OMP_NUM_THREADS": "1"}, check=True)
    drawn = np.load(folder / "drawn.npz")
    for name in ("plain", "program"):
        np.testing.assert_allclose(drawn[name], images, rtol=0, atol=LIMIT)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_onnxruntime_draws_the_generators_images(kind: str, tmp_path: Path) -> None:
    import onnxruntime

    generator = generator_of(tmp_path / "model", kind)
    path = export(tmp_path / "model", to="onnx", out=tmp_path / "x.onnx", license="mine alone")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["z", "labels"]
    for n in (1, 3, 64):
        z, labels, images = expected(generator, n)
        (drawn,) = session.run(["images"], {"z": z.numpy(), "labels": labels.numpy()})
        np.testing.assert_allclose(drawn, images, rtol=0, atol=LIMIT)
    (height, width, channels), fields = KINDS[kind]
    meta = session.get_modelmeta().custom_metadata_map
    assert json.loads(meta["class_names"]) == ([] if kind == "unconditional" else [*NAMES])
    assert (meta["size"], meta["license"]) == (f"{height}x{width}", "mine alone")
    assert meta["colour"] == {1: "grey", 3: "RGB", 4: "RGBA"}[channels]
    assert fields.get("latent", "normal") in meta["z"]
    assert meta["generator_sha256"] == generator.sha256
    assert str(Path.cwd()).encode() not in Path(path).read_bytes()


def test_other_images_are_noticed(tmp_path: Path) -> None:
    generator = generator_of(tmp_path, "dcgan")
    network = Inference(generator.network)
    check_parity(generator, network, "x")
    for wrong in (lambda z, labels: network(z, labels) + 0.002, lambda z, labels: network(z, labels) * torch.nan):
        with raises("export-differs", "x draws"):
            check_parity(generator, wrong, "x")
    with raises("export-differs", "4"):  # of another batch than the one it was made with
        check_parity(generator, lambda z, labels: network(z[:1].expand_as(z), labels), "x")


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_a_form_that_draws_other_images_is_not_kept(to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator_of(tmp_path / "model", "resnet")
    monkeypatch.setattr(inference, "TOLERANCE", -1)
    with raises("export-differs", "nothing was written"):
        export(tmp_path / "model", to=to, out=tmp_path / "new" / f"x{'.onnx' * (to == 'onnx')}")
    assert not list((tmp_path / "new").iterdir())


def test_what_no_runtime_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator_of(tmp_path / "model", "dcgan")
    (tmp_path / "x.onnx").touch()
    for out in (tmp_path / "x.onnx", tmp_path / "model"):
        with raises("file-exists", out.name):
            export(tmp_path / "model", to="onnx" if out.suffix else "torch", out=out)
    with raises("value-invalid", "x.pb"):
        export(tmp_path / "model", to="onnx", out=tmp_path / "x.pb")
    monkeypatch.setattr(onnx_file, "MOST_WEIGHTS", 1000)
    with raises("model-too-large", "--to torch"):
        export(tmp_path / "model", to="onnx", out=tmp_path / "y.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with raises("package-missing", "ptarmigan[export]"):
        export(tmp_path / "model", to="onnx", out=tmp_path / "y.onnx")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with raises("package-missing", "ptarmigan[hub]"):
        load("hf:user/name")
