"""The edge of the program: empty and odd arguments, output that cannot be written, and errors that no code foresaw."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from ptarmigan import UserError, boundary, cli
from ptarmigan.cli.train import next_commands
from ptarmigan.config import resolve
from ptarmigan.core.types import brief
from support import call, raises

TORCHRUN = {
    "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "1",
    "MASTER_ADDR": "localhost", "MASTER_PORT": "29500",
}  # fmt: skip
POSIX = pytest.mark.skipif(os.name != "posix", reason="descriptors and signals are POSIX's")


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (["train", ""], "an argument"),
        (["train", "{data}", "--out", ""], "--out"),
        (["train", "{data}", "--out="], "--out"),
        (["train", "{data}", "--from", ""], "--from"),
        (["train", "{data}", "--config", ""], "--config"),
        (["train", "{data}", "--loss", ""], "--loss"),
        (["train", "{data}", "--recipe", ""], "--recipe"),
        (["sample", ""], "an argument"),
        (["sample", "--", ""], "an argument"),
        (["sample", "{data}", "--class", ""], "--class"),
        (["compare", "{data}", ""], "an argument"),
        (["losses", ""], "an argument"),
    ],
)
def test_an_empty_argument_is_never_this_folder(
    given: list[str], what: str, shapes: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    status, _, err = call(monkeypatch, capsys, *(part.format(data=shapes) for part in given))
    assert status == 2
    assert re.fullmatch(rf"ptarmigan: {what}[: ].*\[value-invalid\]\n", err)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["1.5", "8.9", "1e400", "1" * 4000 + ".5", "nan", "many", "0x10"])
@pytest.mark.parametrize(
    "given",
    [["sample", "m", "--seed"], ["sample", "m", "-n"], ["score", "m", "-n"], ["score", "m", "--seeds"],
     ["replay", "m", "--at"], ["train", "m", "--batch"], ["train", "m", "--width"], ["train", "m", "--seed"]],
)  # fmt: skip
def test_a_whole_number_is_not_rounded(
    given: list[str], value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = call(monkeypatch, capsys, *given, value)
    assert status == 2
    field = given[-1].removeprefix("--") if given[0] == "train" else given[-1]
    assert re.fullmatch(rf"ptarmigan: {field}: .*\[value-invalid\]\n", err)
    assert len(err) < 200


@pytest.mark.parametrize(
    ("given", "code", "field"),
    [
        ({"images": "1" + "0" * 400}, "value-out-of-range", "images"),
        ({"images": "9" * 400 + "M"}, "value-out-of-range", "images"),
        ({"time": "1" + "0" * 400 + "s"}, "value-out-of-range", "time"),
        ({"size": "1" + "0" * 5000}, "value-invalid", "size"),
        ({"size": "64x" + "1" * 5000}, "value-invalid", "size"),
        ({"images": 10**5000}, "value-invalid", "images"),
        ({"batch": 10**5000}, "value-out-of-range", "batch"),
        ({"g_lr": 10**5000}, "value-invalid", "g_lr"),
        ({"batch": "1" + "0" * 5000}, "value-invalid", "batch"),
        ({"r1": "1e400..1"}, "value-out-of-range", "r1"),
        ({"loss": ""}, "value-invalid", "loss"),
    ],
)
def test_a_number_too_large_for_its_type_is_an_error_of_its_field(
    given: dict[str, object], code: str, field: str
) -> None:
    with raises(code, f"{field}: ") as caught:
        resolve(given)
    assert len(str(caught.value)) < 300


def ptarmigan(
    *arguments: str, redirect: str = "", unbuffered: bool = False, cwd: Path | None = None
) -> tuple[int, str]:
    """Run the command in a shell -> exit status, standard error."""
    command = f"{shlex.join([sys.executable, '-m', 'ptarmigan', *arguments])} {redirect}"
    environment = os.environ | {"PYTHONUNBUFFERED": "1" if unbuffered else ""}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, cwd=cwd)
    return done.returncode, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("arguments", [["losses", "hinge"], ["--help"], ["losses", "--help"]])
def test_output_that_cannot_be_written_is_one_line(arguments: list[str], unbuffered: bool) -> None:
    status, err = ptarmigan(*arguments, redirect="> /dev/full", unbuffered=unbuffered)
    assert status == 74
    assert re.fullmatch(r"ptarmigan: .*\[output-failed\]\n", err)


@POSIX
def test_a_reader_that_leaves_while_help_is_printed_is_no_error() -> None:
    assert ptarmigan("--help", redirect="| true; exit ${PIPESTATUS[0]}") == (141, "")


@POSIX
@pytest.mark.parametrize(
    ("redirect", "status"), [(">&-", 0), (">&- 2>&-", 0), ("nope 2>&-", 2), ("nope 2> /dev/full", 2), ("<&- >&-", 0)]
)
def test_streams_may_be_closed(redirect: str, status: int) -> None:
    assert ptarmigan("losses", redirect=redirect) == (status, "")


@POSIX
def test_a_file_never_gets_the_number_of_a_stream_that_is_closed(tmp_path: Path) -> None:
    code = (
        "from ptarmigan.boundary import open_missing_streams\n"
        "open_missing_streams()\n"
        "assert open('x', 'w').fileno() > 2\n"
        "print('not into x')\n"
    )
    command = shlex.join([sys.executable, "-c", code])
    subprocess.run(["bash", "-c", f"{command} <&- >&- 2>&-"], check=True, cwd=tmp_path)


@POSIX
def test_a_deleted_folder_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    inside = f"cd {shlex.quote(str(gone))} && rmdir {shlex.quote(str(gone))} && "
    command = inside + shlex.join([sys.executable, "-m", "ptarmigan", "info", "x"])
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(r"ptarmigan: .*\[path-not-found\]\n", done.stderr)


@pytest.mark.parametrize("cache", ["works", "is a file"])
def test_an_error_that_no_code_foresaw_is_one_line_and_a_report(
    cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("images_seen\nforged")

    folder = tmp_path / "cache"
    if cache == "is a file":
        folder.touch()
    monkeypatch.setenv("PTARMIGAN_CACHE", str(folder))
    monkeypatch.setenv("SECRET", "do not tell")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("ptarmigan.generator.header.info", fail)
    status, out, err = call(monkeypatch, capsys, "info", "some model")
    assert (status, out) == (70, "")
    line = re.fullmatch(r"ptarmigan: .*KeyError.* (\S+\.txt) \[internal-error\]\n", err)
    assert line
    report = Path(line[1])
    assert report.is_relative_to(folder) == (cache == "works")
    text = report.read_text(encoding="utf-8")
    assert "Traceback" in text
    assert "info 'some model'" in text
    assert "do not tell" not in text


@pytest.mark.parametrize(
    ("error", "code", "status", "fact"),
    [
        (PermissionError(13, "Permission denied", "/x/y"), "system-refused", 1, "/x/y"),
        (IsADirectoryError(21, "Is a directory", "r/metrics.jsonl"), "system-refused", 1, "r/metrics.jsonl"),
        (MemoryError(), "out-of-memory", 1, "memory"),
        (OverflowError("int too large"), "internal-error", 70, "OverflowError"),
        (RecursionError(), "internal-error", 70, "RecursionError"),
        (OSError(116, "Stale file handle"), "internal-error", 70, "Stale"),
        (KeyboardInterrupt(), "interrupted", 130, ""),
    ],
)
def test_whatever_is_raised_is_one_line(
    error: BaseException, code: str, status: int, fact: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("PTARMIGAN_CACHE", str(tmp_path))
    monkeypatch.setattr("ptarmigan.generator.header.info", Mock(side_effect=error))
    found, _, err = call(monkeypatch, capsys, "info", "x")
    assert found == status
    assert re.fullmatch(rf"ptarmigan: .*\[{code}\]\n", err)
    assert fact in err


@POSIX
def test_ctrl_c_while_the_command_line_is_imported_is_one_line() -> None:
    code = (
        "import signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'ptarmigan.cli': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from ptarmigan.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "ptarmigan: interrupted [interrupted]\n")


@POSIX
def test_ctrl_c_that_a_library_turns_into_another_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def half_imported(*_: object, **__: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise AttributeError("module 'numpy' has no attribute 'matrix'") from None

    monkeypatch.setattr("ptarmigan.generator.header.info", half_imported)
    status, _, err = call(monkeypatch, capsys, "info", "x")
    assert (status, err) == (130, "ptarmigan: interrupted [interrupted]\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def called(monkeypatch: pytest.MonkeyPatch, program: str, *arguments: str) -> None:
    monkeypatch.setattr(boundary, "CALL", Mock(get=lambda: (program, *arguments)))


def test_a_long_word_of_an_error_is_shortened() -> None:
    for text in ("x" * 10_000, "a b " + "1" * 400 + ": too long", "it's " + "é" * 300):
        assert len(brief(text)) < 200
    assert brief("/a/path" * 30 + " is plain") == "/a/path" * 30 + " is plain"


def test_the_hint_how_to_go_on_starts_this_program_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "ptarmigan").touch(mode=0o755)
    module = str(tmp_path / "ptarmigan" / "__main__.py")
    monkeypatch.setenv("PATH", str(tmp_path))
    for program, hint in (
        (str(tmp_path / "ptarmigan"), "ptarmigan"),
        ("/other place/bin/ptarmigan", "'/other place/bin/ptarmigan'"),
        (module, f"{sys.executable} -m ptarmigan"),
        ("/their/package/__main__.py", "ptarmigan"),
        ("/usr/bin/pytest", "ptarmigan"),
    ):
        called(monkeypatch, program, "train", "my photos")
        assert boundary.program() == hint
        assert boundary.resume_command(Path("runs/a")) == f"{hint} train 'my photos' --out runs/a"
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    called(monkeypatch, module)
    assert boundary.program() == "python -m ptarmigan"


def test_under_torchrun_the_hint_names_torchrun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torchrun").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    called(monkeypatch, "/x/ptarmigan/__main__.py", "train", "d", "--out=r")
    assert boundary.resume_command(Path("r")) == "torchrun --nproc-per-node 2 -m ptarmigan train d --out=r"
    monkeypatch.setenv("GROUP_WORLD_SIZE", "3")
    assert "--nnodes 3" in boundary.resume_command(Path("r"))
    monkeypatch.delenv("MASTER_PORT")
    assert "torchrun" not in boundary.resume_command(Path("r"))


def test_a_rank_left_in_the_environment_does_not_silence_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "1")
    status, _, err = call(monkeypatch, capsys, "info", "/nonexistent")
    assert status == 2
    assert err.endswith("[path-not-found]\n")


def test_arguments_may_be_passed_and_those_of_the_process_are_then_not_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somebody/else/__main__.py", "--help-all"])
    cli.main(["train", "--help"])
    assert "Options" in capsys.readouterr().out
    monkeypatch.setattr("ptarmigan.training.loop.train", Mock(side_effect=UserError("enough", "stopped")))
    with pytest.raises(SystemExit):
        cli.main(["train", "d"])
    assert "enough" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("counts", "split", "offered", "scored"),
    [
        ([3, 9, 0], {"train": 12, "held-out": 12}, "b", True),
        ([3, 9, 0], {"train": 12, "held-out": 9}, "b", False),
        ([3, 9, 0], {"train": 5, "held-out": 50}, "b", False),
        ([30, 9, 0], {"train": 39, "held-out": 20}, "--class=-a", True),
    ],
)
def test_what_is_offered_after_training_can_be_done(
    counts: list[int], split: dict[str, int], offered: str, scored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = {
        "spec": {"class_names": ["-a", "b", "c"]},
        "config": {"model": {"conditioning": "projection"}, "train": {"time": "10m", "images": None}},
        "data": {"split": split, "train_counts": counts},
    }
    monkeypatch.setattr("ptarmigan.core.files.load_json", lambda path: record)
    called(monkeypatch, "ptarmigan")
    sample, *rest = next_commands(Path("-r"))
    given = "--class=-a" if offered.startswith("--") else f"--class {offered}"
    assert sample == f"ptarmigan sample ./-r {given} -n 64 --out ./-r.png"
    *scores, export, longer = rest
    assert scores == ["ptarmigan score ./-r"] * scored
    assert export == "ptarmigan export ./-r"
    assert longer.startswith("ptarmigan train --config ./-r/config.json --out ./-r --time 20m")
