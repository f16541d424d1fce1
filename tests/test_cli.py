"""The command line as a user meets it: one clear line and status 2 for bad input, and nothing heavy for --help."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ptarmigan
from conftest import SMALL
from ptarmigan import cli
from ptarmigan.config import LOSSES, RECIPES, TYPES, UserError, resolve

FLAGS = [part for key, value in SMALL.items() for part in (f"--{key.replace('_', '-')}", str(value))]


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Run the command in this process -> exit status, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["ptarmigan", *map(str, arguments)])
    try:
        cli.main()
        status = 0
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_train_sample_and_info_from_the_command_line(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    status, out, _ = call(monkeypatch, capsys, "train", shapes, "--out", run, *FLAGS, "--g-betas", 0, 0.9)
    assert status == 0
    for line in (
        f"pictures   {run / 'samples'}",
        f"generator  {run / 'generator'}",
        f"log        {run / 'metrics.jsonl'}",
    ):
        assert line in out
    assert f"ptarmigan sample {run} --class blot" in out
    status, out, _ = call(
        monkeypatch,
        capsys,
        "sample",
        run,
        "--class",
        "blot",
        "--class",
        "down",
        "-n",
        2,
        "--seed",
        3,
        "--out",
        tmp_path / "x.png",
    )
    assert (status, out.strip()) == (0, str(tmp_path / "x.png"))
    status, out, _ = call(monkeypatch, capsys, "info", run)
    assert status == 0
    assert "across, down, blot" in out


BAD = {
    "missing path": (["train", "{tmp}/nowhere"], "does not exist"),
    "empty folder": (["train", "{tmp}"], ""),
    "size": (["train", "{data}", "--size", "12x64"], "the nearest that can is 16x64"),
    "flag": (["train", "{data}", "--glr", "1"], "Did you mean --g-lr?"),
    "choice": (["train", "{data}", "--fit", "croop"], "crop"),
    "number": (["train", "{data}", "--batch", "many"], "--batch"),
    "loss": (["train", "{data}", "--loss", "hinj"], "did you mean 'hinge'?"),
    "recipe": (["train", "{data}", "--recipe", "acgam"], "did you mean 'acgan'?"),
    "time": (["train", "{data}", "--time", "soon"], "write 90s, 10m or 1h30m"),
    "two budgets": (["train", "{data}", "--time", "1m", "--images", "2k"], "one budget"),
    "config missing": (["train", "{data}", "--config", "{tmp}/no.yaml"], "no.yaml"),
    "unwritable": (["train", "{data}", "--out", "/proc/run"], "/proc/run"),
    "no model": (["sample", "{tmp}/nowhere"], "does not exist"),
    "out": (["sample", "{data}", "--out", "{tmp}/x.jpg"], "none of X.png, X.npz and a folder"),
    "not a model": (["info", "{data}"], "cannot read"),
    "one run": (["compare", "{tmp}"], "two runs or more"),
    "no run": (["compare", "{tmp}", "{data}"], "is no run of ptarmigan"),
    "losses": (["losses", "hinj"], "did you mean 'hinge'?"),
    "plot": (["losses", "hinge", "--plot", "{tmp}/x.jpg"], "[value-invalid]"),
    "no plot": (["losses", "r1", "--plot", "{tmp}/x.svg"], "unknown plot 'r1'"),
    "page": (["losses", "--page", "{data}"], "is no X.html"),
    "command": (["trian"], "train"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_status_2(
    case: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = BAD[case]
    before = sorted(tmp_path.rglob("*"))
    status, out, err = call(monkeypatch, capsys, *(a.format(tmp=tmp_path, data=shapes) for a in arguments))
    assert status == 2
    assert err.startswith("ptarmigan: ")
    assert err.count("\n") == 1, err
    assert expected in err
    assert "Traceback" not in out + err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_yaml_file_sets_fields_flags_count_above_it_and_a_wrong_key_gets_a_suggestion(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("recipe: acgan\ntrain:\n  g_lr: 1e-3\n  d_steps: 2\nr1: 0\n")
    status, out, _ = call(
        monkeypatch, capsys, "train", shapes, "--config", path, "--out", tmp_path / "a", *FLAGS, "--d-steps", 1
    )
    assert status == 0
    assert "recipe acgan" in out
    record = (tmp_path / "a" / "config.json").read_text()
    assert '"g_lr": 0.001' in record
    assert '"d_steps": 1' in record
    path.write_text("train:\n  batchsize: 3\n")
    status, _, err = call(monkeypatch, capsys, "train", shapes, "--config", path)
    assert status == 2
    assert "did you mean 'batch'?" in err
    path.write_text("- 3\n")
    assert "has to map fields to values" in call(monkeypatch, capsys, "train", shapes, "--config", path)[2]
    path.write_text("a: [\n")
    assert "is no YAML" in call(monkeypatch, capsys, "train", shapes, "--config", path)[2]


def test_help_and_losses_do_not_import_torch() -> None:
    code = (
        "import sys; sys.argv = ['ptarmigan', *{arguments!r}]; from ptarmigan.cli import main\n"
        "try:\n    main()\nexcept SystemExit as leaving:\n    assert not leaving.code, leaving.code\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    for arguments in (
        ["--help"],
        ["train", "--help"],
        ["sample", "--help"],
        ["losses"],
        ["losses", "hinge"],
        ["losses", "identify", "--help"],
        ["--version"],
    ):
        subprocess.run([sys.executable, "-c", code.format(arguments=arguments)], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("command", ["train", "sample", "info", "compare", "replay", "losses", "identify"])
def test_a_command_is_the_public_function_of_its_name_and_arguments(command: str) -> None:
    def shape(function: object) -> list[tuple[str, object]]:
        parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
        return [(p.name, str(p.default) if isinstance(p.default, Path) else p.default) for p in parameters]

    assert shape(getattr(cli, command)) == shape(getattr(ptarmigan, {"losses": "explain"}.get(command, command)))


def test_every_field_is_a_flag(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = call(monkeypatch, capsys, "train", "--help")
    for key in TYPES:
        assert f"--{key.replace('_', '-')} " in out


def test_the_public_names_are_there() -> None:
    for name in ptarmigan.__all__:
        assert getattr(ptarmigan, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'tarin'"):
        ptarmigan.tarin  # noqa: B018
    assert set(LOSSES) == set(ptarmigan.losses.OBJECTIVES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_a_recipe_is_resolves_again_to_itself(recipe: str) -> None:
    from dataclasses import asdict

    assert RECIPES[recipe].keys() <= TYPES.keys()
    config = resolve({"recipe": recipe, "size": "48x64", "g_betas": [0.5, 0.9]})
    assert resolve(asdict(config)) == config
    assert config.train.g_betas == (0.5, 0.9)


def test_a_field_is_known_by_the_name_that_older_files_have() -> None:
    for older in ({"init": "dcgan"}, {"model": {"init": "dcgan"}}):
        assert resolve(older).model.weight_init == "dcgan"
    assert resolve({"recipe": "dcgan"}).model.weight_init == "dcgan"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch": 1.5}, "batch: 1.5 will not do: int is needed"),
        ({"flip": "yes"}, "flip: 'yes' will not do: bool is needed"),
        ({"g_betas": 0.5}, "g_betas: 0.5 will not do: two numbers is needed"),
        ({"g_betas": (0.5, 1.0)}, "out of range"),
        ({"channels": 2}, "channels: 2 will not do: one of 1, 3, 4"),
        ({"dropout": 1.0}, "dropout: 1.0 is out of range: 0 to 0.95"),
        ({"split": "80/30/5"}, "three percentages that add up to 100"),
        ({"images": "0"}, "no count of images"),
        ({"group": "("}, "no regular expression"),
        ({"smoothing": 0.9, "loss": "relativistic"}, "relativistic has no cross-entropy target to smooth"),
        ({"g_lr": float("nan")}, "g_lr: nan is out of range"),
    ],
)
def test_a_bad_value_names_the_field_and_the_remedy(given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as raised:
        resolve(given)
    assert message in str(raised.value)


def test_budgets_and_sizes_are_read_as_written() -> None:
    from ptarmigan.config import parse_images, parse_size, parse_time

    assert [parse_time(text) for text in ("90s", "10m", "1h30m", "1.5m")] == [90, 600, 5400, 90]
    assert [parse_images(text) for text in ("500k", "2M", "1_000", "1.5k")] == [500_000, 2_000_000, 1000, 1500]
    assert [parse_size(text) for text in ("64", "48x64")] == [(64, 64), (48, 64)]


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_ctrl_c_in_a_real_process_saves_and_the_same_command_goes_on(shapes: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ptarmigan", "train", str(shapes), "--out", str(tmp_path / "run"), *FLAGS]
    command[command.index("--images") + 1] = "4000"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"all saved; to go on: ptarmigan train {shapes} --out {tmp_path / 'run'}" in err
    assert "Traceback" not in err
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "goes on at" in done
    assert "trained for" in done


def test_a_reader_that_leaves_early_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ptarmigan", "losses"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141
