"""The command line as a user meets it: one clear line and status 2 for bad input, and nothing heavy for --help."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from unittest.mock import Mock

import pytest

import ptarmigan
from conftest import SMALL
from ptarmigan import UserError, cli
from ptarmigan.cli.help import COMMON
from ptarmigan.config import Config, override, resolve
from ptarmigan.config.checks import check_ranges
from ptarmigan.config.recipes import RECIPES
from ptarmigan.config.sections import BOUNDS, HELP, LOSSES, SECTIONS, TYPES, readable
from ptarmigan.training.given import read_yaml
from support import call, raises

COMMANDS = ("train", "sample", "score", "compare", "info", "replay", "losses")
FLAGS = [part for key, value in SMALL.items() for part in (f"--{key.replace('_', '-')}", str(value))]


def test_train_sample_and_info_from_the_command_line(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    status, out, _ = call(monkeypatch, capsys, "train", shapes, "--out", run, *FLAGS, "--g-betas", 0, 0.9)
    assert status == 0
    for line in (
        f"picture    {run / 'samples' / 'latest.png'}",
        f"generator  {run / 'generator'}",
        f"log        {run / 'metrics.jsonl'}",
    ):
        assert line in out
    assert f"ptarmigan sample {run} --class across -n 64" in out
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


BAD: dict[str, tuple[list[str], str | None, str]] = {  # arguments; code, or None if another file tests it; a fact
    "missing path": (["train", "{tmp}/nowhere"], None, "{tmp}/nowhere"),
    "empty folder": (["train", "{tmp}"], None, "{tmp}"),
    "size": (["train", "{data}", "--size", "12x64"], "value-out-of-range", "16x64"),
    "flag": (["train", "{data}", "--glr", "1"], "usage", "--g-lr"),
    "choice": (["train", "{data}", "--fit", "croop"], "unknown-name", "'crop'"),
    "number": (["train", "{data}", "--batch", "many"], "value-invalid", "batch"),
    "loss": (["train", "{data}", "--loss", "hinj"], "unknown-name", "'hinge'"),
    "recipe": (["train", "{data}", "--recipe", "acgam"], "unknown-name", "'acgan'"),
    "argument missing": (["sample"], "usage", "MODEL is missing"),
    "option missing": (["replay", "{tmp}"], "usage", "--at VALUE"),
    "time": (["train", "{data}", "--time", "soon"], "value-invalid", "1h30m"),
    "two budgets": (["train", "{data}", "--time", "1m", "--images", "2k"], "options-conflict", "2k"),
    "config missing": (["train", "{data}", "--config", "{tmp}/no.yaml"], None, "no.yaml"),
    "unwritable": (["train", "{data}", "--out", "/proc/run"], "file-unwritable", "/proc/run"),
    "no model": (["sample", "{tmp}/nowhere"], None, "{tmp}/nowhere"),
    "not a model to sample": (["sample", "{data}", "--out", "{tmp}/x.png"], None, "{data}"),
    "not a model": (["info", "{data}"], None, "{data}"),
    "one run": (["compare", "{tmp}"], None, ""),
    "no run": (["compare", "{tmp}", "{data}"], None, "{tmp}"),
    "losses": (["losses", "hinj"], "unknown-name", "'hinge'"),
    "plot": (["losses", "hinge", "--plot", "{tmp}/x.jpg"], "value-invalid", "x.jpg"),
    "no plot": (["losses", "r1", "--plot", "{tmp}/x.svg"], "unknown-name", "'r1'"),
    "page": (["losses", "--page", "{data}"], "value-invalid", "{data}"),
    "command": (["trian"], "usage", "train"),
    "lr": (["train", "{data}", "--g-lr", "fast"], "value-invalid", "g_lr"),
    "channels": (["train", "{data}", "--channels", "two"], "value-invalid", "4"),
    "one beta": (["train", "{data}", "--g-betas", "0.5"], "usage", "--g-betas: expected 2 values, and got 1"),
    "no value": (["train", "{data}", "--batch"], "usage", "--batch=VALUE"),
    "value of a switch": (["train", "{data}", "--flip", "yes"], "usage", "--no-flip"),
    "value of a switch turned off": (["train", "{data}", "--no-flip", "yes"], "usage", "write --flip,"),
    "plot at a folder": (["losses", "--plot", "."], "value-invalid", "plot.svg"),
    "plot at the root": (["losses", "--plot", "/"], "value-invalid", "/plot.svg"),
    "a long argument": (["train", "{data}", "--fit", 5000 * "x"], "value-invalid", "--fit: the value has 5,000"),
    "unquoted path": (["train", "my", "holiday photos"], "usage", "'holiday photos'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_status_2(
    case: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, code, fact = BAD[case]
    before = sorted(tmp_path.rglob("*"))
    status, out, err = call(monkeypatch, capsys, *(a.format(tmp=tmp_path, data=shapes) for a in arguments))
    assert status == 2
    assert re.fullmatch(rf"ptarmigan: [^\n]+ \[{code or '[a-z-]+'}\]\n", err), err
    assert fact.format(tmp=tmp_path, data=shapes) in err
    assert "Traceback" not in out + err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("score", "ptarmigan score MODEL [DATA] [OPTIONS]"),
        ("explore", "ptarmigan explore [RUNS...] [OPTIONS]"),
        ("interpolate", "ptarmigan interpolate MODEL --from IMAGE --to IMAGE [OPTIONS]"),
        ("losses identify", "ptarmigan losses identify [LOSSES...] [OPTIONS]"),
    ],
)
def test_the_first_line_of_a_help_page_names_the_arguments(
    command: str, usage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert usage in call(monkeypatch, capsys, *command.split(), "--help")[1].splitlines()[0]


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
    assert "--batch 3" in err
    assert err.endswith("[unknown-name]\n")
    for content in ("- 3\n", "a: [\n"):
        path.write_text(content)
        status, _, err = call(monkeypatch, capsys, "train", shapes, "--config", path)
        assert status == 2
        assert str(path) in err
    assert "line 2" in err


@pytest.mark.parametrize(
    ("content", "code", "facts"),
    [
        (b"batch: 8\nwidth: 4\nbatch: 16\n", "file-unreadable", ["line 3", "batch is given twice"]),
        (b"batch: 8\ntrain:\n  batch: 16\n", "options-conflict", ["batch is given twice"]),
        (b"r1: 1:30", "value-invalid", ["r1", "'1:30'"]),
        (b"seed: 0x10", "value-invalid", ["seed", "'0x10'"]),
        (b"batch: yes", "value-invalid", ["batch", "True"]),
        (b"channels: yes", "value-invalid", ["channels", "True"]),
        (b"batch: [8]", "value-invalid", ["batch", "['8']"]),
        (b"batch: " + b"9" * 5000, "value-invalid", ["batch"]),
        (b"train: 3", "value-invalid", ["train", "time"]),
        (b"train:\n  widht: 3", "unknown-name", ["train", "'widht'"]),
        (b"out: x", "unknown-name", ["--out"]),
        (b"? [a]\n: 3", "file-unreadable", ["line 1"]),
        (b"group: caf\xe9", "file-unreadable", ["UTF-8"]),
        (b"train:\n\tbatch: 8", "file-unreadable", ["line 2"]),
        (b"", "file-unreadable", ["batch: 64"]),
    ],
)
def test_a_fault_of_a_yaml_file_names_the_file_and_the_field(
    content: bytes, code: str, facts: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with raises(code, path, *facts) as caught:
        read_yaml(path)
    assert len(str(caught.value)) < 600


def test_the_config_json_of_a_run_runs_it_again(shapes: Path, tmp_path: Path) -> None:
    run = ptarmigan.train(shapes, out=tmp_path / "a", loss="lsgan", **SMALL)
    again = ptarmigan.train(config=run / "config.json", out=tmp_path / "b")
    assert (again / "generator/model.safetensors").read_bytes() == (run / "generator/model.safetensors").read_bytes()
    fields = read_yaml(run / "config.json")
    other = resolve(override(fields, {"time": "5s", "seed": 1}))
    assert (other.train.images, other.train.time, other.train.seed, other.loss.loss) == (None, "5s", 1, "least_squares")
    changed = tmp_path / "changed.json"
    changed.write_text((run / "config.json").read_text().replace('"batch": 8', '"batch": 9'))
    with raises("file-damaged", changed):
        read_yaml(changed)


def test_values_of_a_yaml_file_are_those_that_it_shows(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    text = "\ufefftrain:\r\n  seed: 010\r\n  g_lr: 1e-3\r\n  g_betas: [0, 0.9]\r\nmodel:\r\ndata: {flip: true, size: ~}"
    path.write_text(text + "\r\nchannels: 3\r\nr1: 0..1\r\nsplit: none\r\n", encoding="utf-8", newline="")
    assert read_yaml(path) == {
        "seed": 10, "g_lr": 1e-3, "g_betas": (0, 0.9), "flip": True, "channels": 3, "r1": (0, 1), "split": "none",
    }  # fmt: skip


def test_help_and_losses_do_not_import_torch() -> None:
    code = (
        "import sys; sys.argv = ['ptarmigan', *{arguments!r}]; from ptarmigan.cli import main\n"
        "try:\n    main()\nexcept SystemExit as leaving:\n    assert not leaving.code, leaving.code\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    for arguments in (
        ["--help"],
        ["train", "--help"],
        ["train", "--help-all"],
        ["check", "--help"],
        ["sample", "--help"],
        ["losses"],
        ["losses", "hinge"],
        ["losses", "identify", "--help"],
        ["--version"],
    ):
        subprocess.run([sys.executable, "-c", code.format(arguments=arguments)], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "command",
    [
        "train",
        "check",
        "sample",
        "interpolate",
        "invert",
        "directions",
        "info",
        "compare",
        "replay",
        "diagnose",
        "export",
        "losses",
        "identify",
    ],
)
def test_a_command_is_the_public_function_of_its_name_and_arguments(command: str) -> None:
    def shape(function: object) -> list[tuple[str, object]]:
        parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
        return [(p.name, str(p.default) if isinstance(p.default, Path) else p.default) for p in parameters]

    made = cli.app["losses"][command] if command == "identify" else cli.app[command]
    one, other = shape(made.default_command), shape(getattr(ptarmigan, {"losses": "explain"}.get(command, command)))
    if command == "replay":  # what is printed
        one.remove(("layers", False))
    if command == "diagnose":  # the exit status, and what is printed
        one.remove(("fail_on", None))
        one.remove(("watch", False))
    if command == "losses":  # its name may be several words
        (_, *one), (_, *other) = one, other
    assert one == other


def flags_in(text: str) -> list[str]:
    """The options that a help page lists, in its order; not those named in a description."""
    return re.findall(r"^│ {1,3}(?:-\w, )?(--[a-z0-9-]+)", text, re.MULTILINE)


def test_help_shows_what_people_use_and_help_all_every_field_by_section(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status, short, _ = call(monkeypatch, capsys, "train", "--help")
    assert status == 0
    assert tuple(flags_in(short)) == COMMON
    assert "ptarmigan train --help-all" in short
    assert max(map(len, short.splitlines())) <= 80
    status, long, _ = call(monkeypatch, capsys, "train", "--time", "1m", "--help-all")
    assert status == 0
    listed = [flag for flag in flags_in(long) if not flag.startswith("--no-")]
    assert listed == ["--recipe", "--out", "--config", "--from", *(f"--{key.replace('_', '-')}" for key in TYPES)]
    titles = re.findall(r"^╭─ (\w+) ", long, re.MULTILINE)
    assert titles == ["Arguments", "Run", *(name.capitalize() for name in SECTIONS)]


def test_help_all_shows_the_default_of_every_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = call(monkeypatch, capsys, "train", "--help-all")
    text = " ".join(line.strip("│ ") for line in out.splitlines())
    entries = re.split(r" (?=--(?!no-)[a-z0-9-]+ (?:--no|STR|PATH|INT|FLOAT|CHOICE))", " ".join(text.split()))[1:]
    without = [entry for entry in entries if "default: " not in entry]
    assert [entry.split()[0] for entry in without] == ["--config"]
    assert "[default: chosen by auto]" in next(entry for entry in entries if entry.startswith("--batch "))
    assert "[default: non_saturating]" in next(entry for entry in entries if entry.startswith("--loss "))


@pytest.mark.parametrize("words", [(), *((name,) for name in [*COMMANDS, "--install-completion"])], ids=" ".join)
def test_help_of_a_command_ends_with_an_example_and_help_is_a_command_too(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = call(monkeypatch, capsys, *words, "--help")
    assert status == 0
    assert re.search(rf"^  ptarmigan {' '.join(words)}", out.rpartition("Example")[2], re.MULTILINE)
    assert call(monkeypatch, capsys, "help", *words) == (0, out, "")


def test_completion_is_installed_for_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".bashrc").write_text("# mine")
    status, out, _ = call(monkeypatch, capsys, "--install-completion", "--shell", "bash")
    script = tmp_path / ".local/share/bash-completion/completions/ptarmigan"
    assert status == 0
    assert str(script) in out
    assert "--augment-p" in script.read_text()
    assert (tmp_path / ".bashrc").read_text().startswith("# mine\n")
    monkeypatch.setattr("cyclopts.completion.detect._extract_shell_name", lambda name: None)
    for variable in ("SHELL", "BASH_VERSION", "ZSH_VERSION", "FISH_VERSION"):
        monkeypatch.delenv(variable, raising=False)
    status, _, err = call(monkeypatch, capsys, "--install-completion")
    assert status == 2
    assert "--shell bash" in err


@pytest.mark.parametrize("columns", ["0", "1"])
def test_help_ends_on_a_terminal_without_columns(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    status, out, _ = call(monkeypatch, capsys, "train", "--help")
    assert status == 0
    assert max(map(len, out.splitlines()[:3])) > 5


def test_a_hidden_flag_is_read_as_a_shown_one(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = Mock(side_effect=UserError("enough", "stopped"))
    monkeypatch.setattr("ptarmigan.training.loop.train", train)
    call(monkeypatch, capsys, "train", shapes, "--g-modulation", "--r1=0..1", "--no-flip", "--g-betas", "0", ".9")
    assert {key: value for key, value in train.call_args.kwargs.items() if value is not None} == {
        "g_modulation": True, "r1": "0..1", "flip": False, "g_betas": ("0", ".9"),
    }  # fmt: skip


def test_the_public_names_are_there() -> None:
    for name in ptarmigan.__all__:
        assert getattr(ptarmigan, name) is not None
    with pytest.raises(AttributeError, match="'tarin'"):
        ptarmigan.tarin  # noqa: B018
    assert dir(ptarmigan) == sorted([*ptarmigan.__all__, "__version__"])  # what tab completion offers
    assert set(LOSSES) == set(ptarmigan.losses.OBJECTIVES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_a_recipe_is_resolves_again_to_itself(recipe: str) -> None:
    assert RECIPES[recipe].keys() <= TYPES.keys()
    config = resolve({"recipe": recipe, "size": "48x64", "g_betas": [0.5, 0.9]})
    assert resolve(asdict(config)) == config
    assert config.train.g_betas == (0.5, 0.9)


@pytest.mark.parametrize(
    ("given", "code", "facts"),
    [
        ({"batch": 1.5}, "value-invalid", ["batch", "a whole number", 1.5]),
        ({"batch": float("inf")}, "value-invalid", ["batch", "inf"]),
        ({"batch": 10**400}, "value-out-of-range", ["batch"]),
        ({"r1": 10**400}, "value-invalid", ["r1"]),
        ({"flip": "yes"}, "value-invalid", ["flip", "true or false", "'yes'"]),
        ({"g_betas": 0.5}, "value-invalid", ["g_betas", "two values, each a number or A..B", 0.5]),
        ({"g_betas": (0.5, 1.0)}, "value-out-of-range", ["g_betas", "from 0 to 0.999999", "(0.5, 1.0)"]),
        ({"channels": True}, "value-invalid", ["channels", "got True"]),
        ({"train": [1]}, "value-invalid", ["train", "time", "[1]"]),
        ({"channels": 2}, "value-invalid", ["channels", "one of 1, 3, 4", "got 2"]),
        ({"width": 0}, "value-out-of-range", ["width: expected a number from 1 to 4096, got 0"]),
        ({"dropout": 1.0}, "value-out-of-range", ["dropout", "from 0 to 0.95", "got 1.0"]),
        ({"seed": -1}, "value-out-of-range", ["seed", "from 0 to 9,223,372,036,854,775,807", "got -1"]),
        ({"g_lr": float("nan")}, "value-out-of-range", ["g_lr", "got nan"]),
        ({"live_images": 5}, "value-out-of-range", ["live_images", "got 5"]),
        ({"size": "12x64"}, "value-out-of-range", ["size", "12x64", "16x64"]),
        ({"size": "big"}, "value-invalid", ["size", "48x64", "'big'"]),
        ({"split": "80/30/5"}, "value-invalid", ["split", "100", "'80/30/5'"]),
        ({"split": "nan/5/5"}, "value-invalid", ["split", "'nan/5/5'"]),
        ({"images": "0"}, "value-invalid", ["images", "500k", "'0'"]),
        ({"images": "1.5"}, "value-invalid", ["images", "500k", "'1.5'"]),
        ({"time": "soon"}, "value-invalid", ["time", "1h30m", "'soon'"]),
        ({"group": "("}, "value-invalid", ["group", "'('"]),
        ({"time": "1m", "images": "2k"}, "options-conflict", ["time 1m", "images 2k"]),
        ({"smoothing": 0.9, "loss": "relativistic"}, "options-conflict", ["smoothing", "relativistic"]),
        ({"network": "rgan3"}, "unknown-name", ["network", "'rgan3'", "'r3gan'", "resnet"]),
        ({"recipe": "acgam"}, "unknown-name", ["recipe", "'acgam'", "'acgan'"]),
        ({"widht": 3}, "unknown-name", ["'widht'", "'width'"]),
        ({"train": {"widht": 3}}, "unknown-name", ["train", "'widht'", "ema_half_life"]),
    ],
)
def test_a_bad_value_names_the_field_what_was_expected_and_what_it_got(
    given: dict[str, object], code: str, facts: list[object]
) -> None:
    with raises(code, *facts):
        resolve(given)


def test_every_number_has_bounds_that_stand_in_its_help_and_hold_at_both_ends() -> None:
    numbers = [key for key, hint in TYPES.items() if numeric(hint)]
    assert numbers == [key for key in TYPES if key in BOUNDS]
    for key in numbers:
        low, high = BOUNDS[key]
        assert HELP[key].endswith((f"[{readable(low)} to {readable(high)}]", f"[{readable(low)} or more]"))
        section = next(name for name, cls in SECTIONS.items() if key in cls.__dataclass_fields__)
        for bound, outside in ((low, low - 1), (high, 2 * high + 1)):
            for value in (bound, outside):
                fields = replace(getattr(Config(), section), **{key: (0, value) if key.endswith("betas") else value})
                expected = raises("value-out-of-range", key) if value == outside else nullcontext()
                with expected:
                    check_ranges(replace(Config(), **{section: fields}))


def numeric(hint: Any) -> list[Any]:
    """int or float where values of this type are or hold numbers; a choice among numbers needs no bounds."""
    if hint in (int, float):
        return [hint]
    return [] if get_origin(hint) is Literal else [kind for part in get_args(hint) for kind in numeric(part)]


def test_budgets_and_sizes_are_read_as_written() -> None:
    from ptarmigan.config.values import parse_images, parse_size, parse_time

    assert [parse_time(text) for text in ("90s", "10m", "1h30m", "1.5m")] == [90, 600, 5400, 90]
    assert [parse_images(text) for text in ("500k", "2M", "1_000", "1.5k")] == [500_000, 2_000_000, 1000, 1500]
    assert [parse_size(text) for text in ("64", "48x64", "512x16")] == [(64, 64), (48, 64), (512, 16)]
    with raises("value-out-of-range", "16 to 512", "513x15", "512x16"):
        parse_size("513x15")
    assert [resolve({"batch": value}).train.batch for value in (64, 64.0, "64", "6.4e1")] == [64] * 4
    assert [resolve({"channels": value}).data.channels for value in (3, "3")] == [3] * 2
    assert [resolve({"seed": value}).train.seed for value in (2**63 - 1, str(2**63 - 1))] == [2**63 - 1] * 2


def test_a_stopped_run_is_resumed_by_the_command_that_is_printed(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ptarmigan.training.signals import Stopped

    run = tmp_path / "a run"
    stopped = Stopped("stopped at 24 images", signal.SIGINT, run)
    monkeypatch.setattr("ptarmigan.training.loop.train", Mock(side_effect=stopped))
    for given, resumed in (
        (["train", str(shapes)], ["train", str(shapes), "--out", str(run)]),
        (["train", f"--out={run}"], ["train", f"--out={run}"]),
    ):
        status, _, err = call(monkeypatch, capsys, *given)
        assert status == 128 + signal.SIGINT
        first, second = err.splitlines()
        assert first == f"ptarmigan: {stopped.text} [stopped]"
        assert shlex.split(second.partition(": ")[2]) == ["ptarmigan", *resumed]
    assert f"train(..., out={str(run)!r})" in str(stopped)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_ctrl_c_in_a_real_process_saves_and_the_command_it_prints_resumes(shapes: Path, tmp_path: Path) -> None:
    flags = [*FLAGS]
    flags[flags.index("--images") + 1] = "2000"
    command = [sys.executable, "-m", "ptarmigan", "train", str(shapes), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    run = tmp_path / "runs" / "shapes-1"
    deadline = time.monotonic() + 60
    while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    first, second = err.splitlines()
    assert re.fullmatch(r"ptarmigan: .*[\d,]+ images.* \[stopped\]", first)
    program, *arguments = shlex.split(second.partition(": ")[2])
    assert program in ("python", sys.executable)
    assert arguments == [*command[1:], "--out", str(run.relative_to(tmp_path))]
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert [path.name for path in run.parent.iterdir()] == [run.name]
    assert "resuming" in done
    assert '"finished": true' in (run / "metrics.jsonl").read_text()


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
