"""Every script of benchmarks/, tools/ and studies/ runs on the CPU with tiny settings, or says what it needs."""

from __future__ import annotations

import gzip
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import judge
import mutate
import solved_games
from conftest import SMALL
from ptarmigan import train
from ptarmigan.evaluation.features import Extractor
from support import random_projection

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "kill": "test_signals.py",
    "failures": "test_diagnosis.py",
    "shapes": "test_shapes.py",
    "judge_shapes": "test_shapes.py",
    "draw_layouts": "test_data_layouts.py",
}
SLOW = pytest.mark.slow
LIBRARIES = {"textbook", "mutations", "equivalent"}  # of step.py, and of mutate.py
PER_CLASS = 13  # of the test images, and of what the judge scores

Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the main() of a script with arguments and changed constants; returns what it prints."""

    def run(name: str, *arguments: object, **constants: object) -> str:
        module = importlib.import_module(name)
        for constant, value in constants.items():
            monkeypatch.setattr(module, constant, value)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        module.main()
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four IDX files with 70 training and 13 test images of each class: a pattern for each class, and noise."""
    folder, rng = tmp_path_factory.mktemp("fashion"), np.random.default_rng(0)
    patterns = rng.integers(0, 200, (10, 28, 28))
    for part, each in (("train", 70), ("t10k", PER_CLASS)):
        labels = rng.permutation(np.repeat(np.arange(10, dtype=np.uint8), each))
        images = (patterns[labels] + rng.integers(0, 50, (len(labels), 28, 28))).astype(np.uint8)
        for array, kind in ((images, "images-idx3"), (labels, "labels-idx1")):
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(array), 1))
    return folder


def flags(*without: str) -> list[object]:
    """The small run of conftest.py as flags of quality.py and finetune.py, which set the split themselves."""
    fields = {name: value for name, value in SMALL.items() if name not in ("split", *without)}
    return [part for name, value in fields.items() for part in (f"--{name.replace('_', '-')}", value)]


def idx(array: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def small_judge(monkeypatch: pytest.MonkeyPatch, fashion: Path) -> dict[str, object]:
    """Let the judge take 130 samples of the small data set; returns the constants that scripts have copied from it."""
    constants = {"DATA": fashion, "PER_CLASS": PER_CLASS, "SAMPLES": 10 * PER_CLASS}
    for name, value in {**constants, "EMBEDDED": 0}.items():
        monkeypatch.setattr(judge, name, value)
    return constants


def test_every_script_has_a_smoke_test() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    for folder in ("benchmarks", "tools", "studies"):
        for path in (ROOT / folder).glob("*.py"):
            if path.stem in LIBRARIES:
                continue
            text = (
                (ROOT / "tests" / ELSEWHERE[path.stem]).read_text(encoding="utf-8") if path.stem in ELSEWHERE else here
            )
            assert f'"{path.stem}' in text or f"import {path.stem}" in text, f"no test runs {path.relative_to(ROOT)}"


# --- benchmarks -------------------------------------------------------------------------------------------


@SLOW
def test_step(run: Run) -> None:
    out = run("step", "--rounds", 2, BATCH=2, IMAGES=8)
    assert all(f"ratio {pair} " in out for pair in ("fp32/fp32", "bf16/bf16", "bf16/fp32"))
    assert out.count("ratio") == 5


@SLOW
def test_streams(run: Run, tmp_path: Path) -> None:
    trained = train(out=tmp_path / "run", **SMALL | {"images": "8"})
    assert "2 clients, 3 s: 0 ended early" in run("streams", trained, "--clients", 2, "--seconds", 3)


@SLOW
def test_loaded(run: Run) -> None:
    out = run("loaded", "--rounds", 1, "--seconds", 0.05, "--busy", 1, SETTINGS={"libgomp's default": {}, "train": {}})
    assert [float(line.split()[-1]) > 0 for line in out.splitlines()] == [True] * 3


@pytest.mark.parametrize(("script", "arguments"), [("gpu", []), ("many", ["configs.json"])])
def test_scripts_for_a_gpu_say_so(
    run: Run, script: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(SystemExit) as ended:
        run(script, *arguments)
    assert ended.value.code == 2
    assert "CUDA" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu(run: Run) -> None:
    assert run("gpu", "--seconds", 0.1, CASES=[("auto", 28, 1, 8)]).count("auto") == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_many(run: Run, tmp_path: Path, fashion: Path) -> None:
    fields = {"recipe": "auto", "images": "64", "width": 4, "batch": 8}
    (tmp_path / "configs.json").write_text(json.dumps([["one", fields], ["two", fields]]))
    run("many", tmp_path / "configs.json", "--out", tmp_path / "rows.jsonl", DATA=fashion, TUNING=200)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 2


@SLOW
@SLOW
def test_pack(run: Run) -> None:
    out = run("pack", "--images", 130, "--files", 30, "--rounds", 1)
    assert all(fact in out for fact in ("130 JPEGs", "listing 30 files", "a batch of 64", "streamed from shards"))


def test_metrics(run: Run) -> None:
    pytest.importorskip("sklearn")
    assert run("metrics", "--samples", 60, "--features", 8).count("plain") == 1


@SLOW
def test_planted(run: Run, fashion: Path, monkeypatch: pytest.MonkeyPatch, shapes: Path) -> None:
    import planted

    monkeypatch.setattr(planted, "load_extractor", random_projection)
    assert run("planted", "copies", fashion, "--images", 40, "--planted", 5).count(" of 5\n") == len(planted.COPIES)
    assert "precision" in run("planted", "labels", fashion, "--images", 120, "--seeds", 1)
    assert "few-images" in run("planted", "alarms", shapes)


@SLOW
def test_sizes(run: Run) -> None:
    import sizes

    kinds = {name: sizes.KINDS[name] | {"width": 4} for name in ("`auto`", "`dcgan`")}
    rows = run("sizes", "table", SIZES=(32,), KINDS=kinds).splitlines()[2:]
    assert [row.split(" | ")[1] for row in rows] == list(kinds)
    assert all(float(row.split(" | ")[4]) > 0 for row in rows)
    if sys.platform == "linux":
        assert run("sizes", "measure", MEASURED=[("`auto`", 32, 2)]).count("| 32 | 2 |") == 1


@SLOW
def test_scaling_of_one_process(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run("scaling", "bytes").count("exchanges") == 3
    assert float(run("scaling", "rate", "auto 28x28", "--seconds", 0.01)) > 0


@SLOW
def test_scaling_of_a_large_batch_and_of_two_ranks(run: Run) -> None:
    _, seconds = json.loads(run("scaling", "peak", "auto 28x28", "64"))
    assert seconds > 0
    import scaling

    assert scaling.rate([scaling.start("auto 28x28", ranks=2, threads=1, seconds=0.1)]) > 0


@pytest.mark.parametrize(
    "options",
    [
        ["--small", "auto"],
        *(pytest.param(options, marks=SLOW) for options in (["auto"], ["--tune", "auto"], ["dcgan"])),
    ],
)
def test_quality(run: Run, options: list[str], small_judge: dict[str, object], tmp_path: Path) -> None:
    constants = {**small_judge, "RUNS": tmp_path, "TUNING": 200, "SMALL": 10}
    arguments = [*options, "--results", tmp_path / "rows.jsonl", *flags()]
    line = json.loads(run("quality", *arguments, **constants).splitlines()[-1])
    assert line["images_seen"] == 48
    assert line["score"]["frechet"] > 0
    assert ("accuracy" in line["score"]) == ("auto" in options)
    assert ("c_t" in line["score"]) == ("--small" in options)
    assert "already" in run("quality", *arguments, **constants)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 1


@SLOW
def test_finetune(run: Run, small_judge: dict[str, object], tmp_path: Path) -> None:
    constants = {"DATA": small_judge["DATA"], "PER_CLASS": PER_CLASS, "RUNS": tmp_path, "FIRST": 200, "EACH": 5}
    fields = flags("images", "width", "latent_dim", "class_dim")  # the networks are those of the first run
    arguments = ["--before", 48, "--images", 16, "--seeds", 0, "--results", tmp_path / "rows.jsonl", *fields]
    run("finetune", *arguments, **constants)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["row"]["arm"] for row in rows] == ["cold", "generator", "run"]
    assert [bool(row["taken"]) for row in rows] == [False, True, True]


@SLOW
@pytest.mark.parametrize("model", ["flow", "auto"])
def test_flow(run: Run, shapes: Path, tmp_path: Path, model: str) -> None:
    arguments = [model, shapes, "--time", "2s", "--results", tmp_path / "rows.jsonl", "--methods", "euler", "heun"]
    arguments += ["--steps", 2, "--guidance", 1, 2, "--width", 16, "--batch", 8]
    constants = {"RUNS": tmp_path / "runs", "PER_SET": 30, "LEAST_SIDE": 4}
    run("flow", *arguments, **constants)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == (4 if model == "flow" else 1)
    assert all(row["ms_alone"] > 0 and row["kid"]["mean"] > -1 for row in rows)
    assert "already" in run("flow", *arguments, **constants)


@pytest.mark.slow
def test_judge(
    small_judge: dict[str, object], fashion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge.main(["--data", str(fashion), "train", "--out", str(tmp_path / "judge.safetensors")]) == 0
    assert "test accuracy" in capsys.readouterr().out
    assert judge.main(["--data", str(fashion), "sanity"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 6
    assert [float(value) for value in rows[0][-3::2]] == [0, 1]  # the test images against themselves


# --- tools ------------------------------------------------------------------------------------------------


def test_embed_writes_the_same_bytes_each_time(run: Run, fashion: Path, tmp_path: Path) -> None:
    written = []
    for _ in range(2):
        run("embed", fashion, ASSETS=tmp_path, COUNT=20)
        written.append((tmp_path / "fashion-mnist-10k.npz").read_bytes())
    assert written[0] == written[1]
    with np.load(tmp_path / "fashion-mnist-10k.npz") as arrays:
        assert arrays["arr_0"].shape == (20, 28, 28)
    licence = "FASHION-MNIST-LICENSE"
    assert (tmp_path / licence).read_bytes() == (ROOT / "src" / "ptarmigan" / "assets" / licence).read_bytes()


def test_parity_inception_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    import parity_inception

    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    monkeypatch.setattr(sys, "argv", ["parity_inception.py"])
    assert "torch-fidelity" in str(parity_inception.main())


@SLOW
def test_draw_games(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(solved_games, "STEPS", 1)
    run("draw_games", DOCS=tmp_path, TICKS=3, STEPS=2)
    assert {path.name for path in tmp_path.iterdir()} == {"phase-portraits.png", "acgan-shrinks.png"}


def test_mutate_lists_mutants_and_refuses_unknown_modules(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run("mutate", "losses.penalties", "--list").splitlines()
    assert len(lines) == len(set(lines)) > 50
    assert all(line.startswith("losses.penalties:") for line in lines)
    with pytest.raises(SystemExit) as ended:
        run("mutate", "losses.nowhere")
    assert ended.value.code == 2
    assert "losses.nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    "module",
    [pytest.param(name, marks=[] if name == "losses.penalties" else pytest.mark.slow) for name in mutate.TESTS],
)
def test_every_explanation_is_of_a_mutant_and_every_test_of_it_exists(module: str) -> None:
    keys = {mutant.key for mutant in mutate.mutants(module)}
    assert [key for key in mutate.EQUIVALENT if mutate.is_of(key, module) and key not in keys] == []
    for test in mutate.TESTS[module]:
        file, _, function = test.partition("::")
        assert f"def {function}" in (ROOT / "tests" / file).read_text(encoding="utf-8")


def test_every_explanation_is_of_a_module_that_is_mutated() -> None:
    assert [key for key in mutate.EQUIVALENT if not any(mutate.is_of(key, module) for module in mutate.TESTS)] == []


@SLOW
def test_mutate_kills_two_mutants() -> None:
    code = (
        "import itertools, mutate; every = mutate.mutants\n"
        "mutate.mutants = lambda name: itertools.islice(every(name), 2)\n"
        "mutate.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "losses.penalties"], cwd=ROOT / "tools", capture_output=True, text=True
    )
    assert "losses.penalties: 2/2 killed" in done.stdout, done.stdout + done.stderr


# --- studies ----------------------------------------------------------------------------------------------


@SLOW
def test_faults(run: Run, fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import faults

    projection = nn.Sequential(nn.Flatten(), nn.Linear(784, 8))
    monkeypatch.setattr(faults, "load_extractor", lambda: Extractor("Random", "FD-random", 64 * "0", 28, 8, projection))
    monkeypatch.setattr(faults, "memoize", lambda: None)  # it replaces functions of ptarmigan for good
    out = run(
        "faults", "--data", fashion, "--cache", tmp_path, SETS=2, EACH=14, TRAIN=28, HELD_OUT=13, POOL=21, CHOICE=16
    )
    assert out.count("| labels permuted |") == 3
    assert list(tmp_path.glob("faults-*.safetensors"))


def test_known_density(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    constants = {"DRAWS": 50, "BITS": (0.05, 0.1), "PICTURE": tmp_path / "known.png"}
    out = run("known_density", "--samples", 80, "--seeds", 2, **constants)
    assert len(out.splitlines()) == 2 + 1 + 4 * 2
    assert (tmp_path / "known.png").exists()


@SLOW
def test_sensitivity(run: Run, fashion: Path) -> None:
    out = run("sensitivity", fashion, SUBSETS=3, N=4)
    assert [line.split()[0] for line in out.splitlines()] == ["side", "96", "128", "160", "224"]


@SLOW
def test_extract(run: Run) -> None:
    assert run("extract", "--rounds", 2, "--images", 16, "--threads", 1).count("ratio") == 4


@SLOW
def test_convolution(run: Run) -> None:
    out = run("convolution", "--rounds", 1, MAPS=[(2, 8, 8, 8, 8, 4, 2)], STEPS=[("auto", 28, 28, 1, 8)])
    assert out.count("ratio") == 2
