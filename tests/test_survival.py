"""What a run survives: a kill, a second process, damage to its files, a full disk, a NaN."""

from __future__ import annotations

import io
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ptarmigan.training.loop as training
import ptarmigan.training.signals as signals
from conftest import SMALL
from ptarmigan import load
from ptarmigan.core import console
from ptarmigan.core.console import Display, Terminal
from ptarmigan.core.files import Damaged, load_json, save_json, write_atomic
from ptarmigan.core.log import Metrics, damaged_lines, read_log, read_rows
from ptarmigan.core.tensor_files import load_tensors
from ptarmigan.core.types import UserError
from ptarmigan.generator import export
from ptarmigan.generator.header import state_of
from ptarmigan.training import checkpoint, outputs, snapshot, start
from ptarmigan.training.loop import Diverged, train
from ptarmigan.training.run_folder import lock, new_run
from ptarmigan.training.signals import Stopped
from support import at_step, before_steps, interrupt, interrupt_at, plant_nan, raises, random_projection

ROOT = Path(__file__).parent.parent


def flags(**fields: Any) -> list[str]:
    return [f"--{key.replace('_', '-')}={value}" for key, value in {**SMALL, **fields}.items()]


def command(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ptarmigan", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def until(condition: Callable[[], Any]) -> None:
    for _ in range(12000):
        if condition():
            return
        time.sleep(0.05)
    raise TimeoutError


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_happened() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "kill.py"), "--kills", "4"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 kills, ")
    assert "0 runs compared" not in done.stdout


@pytest.mark.slow
def test_two_ctrl_c_leave_a_good_checkpoint(shapes: Path, tmp_path: Path) -> None:
    process = command("train", shapes, "--out", tmp_path / "run", *flags(images="1M", snapshots=100000))
    until(lambda: checkpoint.checkpoints(tmp_path / "run"))
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    status, _, err = ended(process)
    assert status == 130
    assert err.startswith("ptarmigan: ")
    assert "Traceback" not in err
    found, bad = checkpoint.newest(tmp_path / "run")
    assert found is not None
    assert not bad


# --- output and signals -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("redirection", ["> /dev/full 2> err", "2> err | head -n 1", "> /dev/full 2>&1"])
def test_a_run_whose_output_cannot_be_written_ends_by_its_own_result(
    redirection: str, shapes: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "ptarmigan", "train", str(shapes), "--out", "run", *flags()]
    done = subprocess.run(["bash", "-o", "pipefail", "-c", f"{shlex.join(words)} {redirection}"], cwd=tmp_path)
    assert done.returncode == 0
    if "err" in redirection:
        assert (tmp_path / "err").read_text() == ""
    assert [path.stem for path in checkpoint.checkpoints(tmp_path / "run")] == ["000000024", "000000048"]


class Refusing(io.StringIO):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def write(self, _: str) -> int:
        raise self.error


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "full"), ValueError("closed"), UnicodeError()])
def test_a_display_swallows_the_faults_of_its_stream(error: Exception, terminal: bool) -> None:
    stream = Terminal()
    stream.file = Refusing(error)
    stream._force_terminal = terminal
    with Display(stream) as display:
        with display.doing("working"):
            display.say("a line")
        display.preparing("reading", 1, 2)
        display.tick(8, 0.5, 1.0, 1.0, {"d_adv": 1.0})


def test_a_terminal_shows_the_beginning_of_a_note_and_breaks_lines_between_words() -> None:
    note, path = "3 files are left out (a.png, b.png)", "/a/path/that/is/wider/than/the/screen"
    for is_terminal, lines in (
        (False, [f"note: {note}", f"saved as {path}"]),
        (True, ["note: 3 files are left out", "  ...", "saved as", f"  {path}"]),
    ):
        stream = Terminal()
        stream.file, stream._force_terminal, stream.width = io.StringIO(), is_terminal, 26
        display = Display(stream)
        display.note(note)
        display.say(f"saved as {path}")
        assert stream.file.getvalue().splitlines() == lines


def test_two_threads_do_not_print_at_once() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow:
        def __rich_console__(self, *_: object) -> Iterator[str]:
            begun.set()
            go_on.wait(10)
            yield "a picture"

    stream = Terminal()
    stream.file = io.StringIO()
    display = Display(stream)
    threads = [threading.Thread(target=display.show, args=[Slow()])]
    threads[0].start()
    assert begun.wait(10)
    threads.append(threading.Thread(target=display.say, args=["a line"]))
    threads[1].start()
    threads[1].join(0.1)
    go_on.set()
    for thread in threads:
        thread.join()
    assert stream.file.getvalue().splitlines() == ["a picture", "a line"]


@pytest.mark.parametrize(("rate", "shown"), [(0.31, "0.3/s"), (9.5, "9.5/s"), (23.4, "23/s"), (2345.6, "2,346/s")])
def test_the_speed_of_large_images_is_not_shown_as_0(rate: float, shown: str) -> None:
    stream = Terminal()
    stream.file = printed = io.StringIO()
    with Display(stream) as display:
        display.tick(8, 0.5, rate, 1.0, {})
    assert f"8 images  {shown}  1s left" in printed.getvalue()


def test_a_bar_shows_how_long_a_task_will_take_and_training_says_it_itself() -> None:
    display = Display(Terminal())
    for done in (1, 2):
        display.preparing("reading", done, 40)
    assert re.search(r"reading.*2 of 40 +0:00:0", console.in_text(display.live.renderable))
    display._remove("reading")
    display.shows_bar = True
    for share in (0.1, 0.2):
        display.tick(8, share, 1.0, 9.0, {})
    shown = console.in_text(display.live.renderable)
    assert "9s left" in shown
    assert "0:0" not in shown


def test_short_ticks_do_not_flood_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [10.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    stream = Terminal()
    stream.file = io.StringIO()
    display = Display(stream)
    for step in range(1, 101):
        clock[0] += 0.01
        display.tick(step, step / 100, 1.0, 1.0, {})
    lines = stream.file.getvalue().splitlines()
    assert len(lines) == 3
    assert "100 images" in lines[-1]


def test_nothing_that_takes_long_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    stream = Terminal()
    stream.file = io.StringIO()
    display = Display(stream)

    def printed() -> list[str]:
        lines = stream.file.getvalue().splitlines()  # type: ignore[attr-defined]
        stream.file = io.StringIO()
        return list(lines)

    with display.doing("measuring"):
        for clock[0] in (1.6, 1.8, 3.0, 4.2):
            display._break_silence()
        assert printed() == ["measuring, 2s so far", "measuring, 4s so far"]
        for clock[0], done in ((5.0, 10), (6.5, 1200), (7.0, 1300)):
            display.preparing("reading images", done, 5000)
        assert printed() == ["reading images: 1,200 of 5,000"]
        display.preparing("reading images", 5000, 5000)
        clock[0] = 9.0
        display._break_silence()
        assert printed() == ["measuring, 2s so far"]
    clock[0] = 20.0
    display._break_silence()
    assert printed() == []
    display.training()  # whose ticks may take long
    display.tick(8, 0.1, 1.0, 1.0, {})
    for clock[0] in (20.5, 22.0, 24.0):
        display._break_silence()
    assert printed()[1:] == ["training, 2s so far", "training, 4s so far"]
    with display.doing("saving", at_once=True):
        assert printed() == ["saving"]


@pytest.mark.parametrize("name", ["SIGHUP", "SIGQUIT", "SIGUSR1", "SIGXCPU"])
def test_every_signal_that_ends_a_process_saves(
    name: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = getattr(signal, name)
    at_step(monkeypatch, 2, lambda _: os.kill(os.getpid(), number))
    with raises("stopped", kind=Stopped) as stopped:
        train(shapes, out=tmp_path / "run", **SMALL)
    assert stopped.value.status == 128 + number
    assert checkpoint.checkpoints(tmp_path / "run")[-1].stem == "000000016"
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM", "SIGUSR2"])
def test_a_signal_before_the_first_step_leaves_nothing(
    name: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = getattr(signal, name)
    monkeypatch.setattr(start, "probe_job", lambda *_: signal.raise_signal(number))
    with raises("stopped", name, kind=Stopped) as stopped:
        train(shapes, out=tmp_path / "run", **SMALL)
    assert stopped.value.status == 128 + number
    assert not (tmp_path / "run").exists()
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_signal_that_is_passed_on_twice_counts_once_and_a_later_one_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: clock[0])
    with signals.catch_signals() as received:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGINT)
        assert received == [signal.SIGINT]
        clock[0] = 101.5
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def scored(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a live score at each of its two snapshots."""
    with pytest.MonkeyPatch.context() as patch:
        return train_scored(shapes, tmp_path_factory.mktemp("scored") / "run", patch)


def train_scored(shapes: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(snapshot, "MIN_SELECT", 2)
    monkeypatch.setattr(snapshot.features, "load_extractor", lambda **_: random_projection())
    return train(shapes, out=out, **{**SMALL, "split": "60/40/0", "live_images": 10})


def interrupt_in_snapshot(monkeypatch: pytest.MonkeyPatch, images_seen: int, function: str) -> None:
    """Ctrl-C at the first call of `function` in the snapshot at so many images seen."""
    real, in_snapshot = getattr(snapshot, function), list[Any]()
    save_snapshot = snapshot.save_snapshot

    def save(job: Any, state: Any, *arguments: Any) -> Any:
        in_snapshot[:] = [state]
        return save_snapshot(job, state, *arguments)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if in_snapshot and in_snapshot[0].images_seen == images_seen:
            in_snapshot.clear()
            interrupt(None)
        return real(*arguments, **options)

    monkeypatch.setattr(training, "save_snapshot", save)
    monkeypatch.setattr(snapshot, function, interrupted)


@pytest.mark.parametrize("images_seen", [24, 48])
@pytest.mark.parametrize("function", ["settle_batch_norm", "generate_images"])
def test_a_snapshot_that_ctrl_c_stops_is_made_when_the_run_resumes(
    function: str, images_seen: int, shapes: Path, scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_in_snapshot(patch, images_seen, function)
        with raises("stopped", kind=Stopped):
            train_scored(shapes, run, patch)
    assert newest(run).progress.owed == images_seen
    assert not (run / "samples" / f"{images_seen:09d}.png").exists()
    assert load(run).images_seen == images_seen
    assert "stopped" in (state_of(run) or "")
    train_scored(shapes, run, monkeypatch)
    assert state_of(run) == "finished"
    assert_same_run(run, scored)


@pytest.mark.parametrize("function", ["d_logits", "write_outputs"])
def test_a_snapshot_that_is_nearly_made_is_finished_and_not_saved_twice(
    function: str, shapes: Path, scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, saved = tmp_path / "run", list[int]()
    save = checkpoint.save
    with monkeypatch.context() as patch:
        patch.setattr(
            checkpoint, "save", lambda run, state, record: saved.append(state.images_seen) or save(run, state, record)
        )
        interrupt_in_snapshot(patch, 24, function)
        with raises("stopped", kind=Stopped):
            train_scored(shapes, run, patch)
    assert saved == [24]
    assert not newest(run).progress.owed
    train_scored(shapes, run, monkeypatch)
    assert_same_run(run, scored)


def test_a_second_signal_after_the_state_was_saved_loses_nothing(
    shapes: Path, scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, settle = tmp_path / "run", snapshot.settle_batch_norm

    def interrupt_again(state: Any, *arguments: Any) -> None:
        if state.images_seen == 32:
            raise KeyboardInterrupt
        settle(state, *arguments)

    with monkeypatch.context() as patch:
        interrupt_at(patch, 24)
        patch.setattr(snapshot, "settle_batch_norm", interrupt_again)
        with raises("stopped", "32 images", kind=Stopped):
            train_scored(shapes, run, patch)
    assert newest(run).path.stem == "000000032"
    assert load(run).images_seen == 24
    with raises("no-generator", newest(run).path, "batch norm"):
        load(run, at=32)
    train_scored(shapes, run, monkeypatch)
    assert_same_run(run, scored)


def newest(run: Path) -> checkpoint.Checkpoint:
    found, damaged = checkpoint.newest(run)
    assert found is not None
    assert not damaged
    return found


def assert_same_run(run: Path, other: Path) -> None:
    """Bit for bit, but for what the clock says."""
    for file in (
        "generator/model.safetensors",
        "best/model.safetensors",
        "samples/000000024.png",
        "samples/latest.png",
    ):
        assert (run / file).read_bytes() == (other / file).read_bytes()
    one, two = newest(run).tensors, newest(other).tensors
    assert all(torch.equal(one[name], two[name]) for name in one.keys() | two.keys())
    for row, expected in zip(logged(run), logged(other), strict=True):
        assert row.keys() == expected.keys()
        assert {k: (v, expected[k]) for k, v in row.items() if v != expected[k]} == {}


def logged(run: Path) -> list[dict[str, Any]]:
    others = {"clock", "images_per_second", "attempt", "movement"}  # movement is from a snapshot of the same call
    rows = read_rows(run / "metrics.jsonl").values()
    return [{name: value for name, value in row.items() if name not in others} for row in rows]


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with signals.catch_signals() as received:
            signal.raise_signal(signal.SIGHUP)
            assert received == []
    finally:
        signal.signal(signal.SIGHUP, before)


# --- a second process -------------------------------------------------------------------------------------------


def test_a_run_is_locked_for_one_process_at_a_time_which_the_error_names(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with lock(run, print):
        with raises("run-locked", run, os.getpid(), os.uname().nodename), lock(run, print):
            raise AssertionError
        assert (run / ".owner.json").exists()
        (run / "checkpoints").mkdir()
    notes: list[str] = []
    save_json(run / ".owner.json", {"pid": 4321, "host": "elsewhere"})
    with lock(run, notes.append):
        assert load_json(run / ".owner.json")["pid"] == os.getpid()
    assert not (run / ".owner.json").exists()
    (note,) = notes
    assert "process 4321 on elsewhere" in note


@pytest.mark.slow
def test_a_second_process_is_refused_with_pid_and_host_and_the_first_continues(shapes: Path, tmp_path: Path) -> None:
    first = command("train", shapes, "--out", tmp_path / "run", *flags(images="1M"))
    until((tmp_path / "run" / "metrics.jsonl").exists)
    status, _, err = ended(command("train", shapes, "--out", tmp_path / "run", *flags(images="1M")))
    assert status == 2
    assert "[run-locked]" in err
    assert f"process {first.pid} on {os.uname().nodename}" in err
    assert len(err.strip().splitlines()) == 1
    assert first.poll() is None
    first.kill()
    first.communicate()
    process = command("train", shapes, "--out", tmp_path / "run", *flags(images="1M"))
    assert process.stdout is not None
    while f"process {first.pid} on" not in (line := process.stdout.readline()):
        assert line, "the stale lock was not recognised"
    while "left" not in process.stdout.readline():  # it trains
        pass
    process.send_signal(signal.SIGTERM)
    status, _, err = ended(process)
    assert status == 128 + signal.SIGTERM
    assert "[stopped]" in err
    assert not (tmp_path / "run" / ".owner.json").exists()


def test_what_a_killed_process_left_half_written_is_removed_and_nothing_else(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with lock(run, print):
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / ".000000024.safetensors.1-0123abcd.tmp").write_bytes(b"half")
        (run / "note.tmp").write_text("mine")
    with lock(run, print):
        assert [path.name for path in (run / "checkpoints").iterdir()] == []
        assert (run / "note.tmp").read_text() == "mine"


def test_a_run_that_saved_nothing_leaves_no_folder_but_one_that_was_there(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock(tmp_path / "run", print):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    with pytest.raises(ZeroDivisionError), lock(tmp_path / "mine", print):
        raise ZeroDivisionError
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize(
    "files",
    [
        {"checkpoints/notes.txt": "mine"},
        {"checkpoints/000000024.safetensors": "not ours"},
        {"config.json": "{}", ".notes.tmp": "mine"},
        {"config.json": '{"sha256": "0"}'},
        {".lock": "1234", "a/b/.syncthing.movie.mkv.tmp": "half"},
        {"generator/config.json": "{}"},
        {".ptarmigan-run": "{}"},
    ],
)
def test_a_folder_of_another_is_refused_and_nothing_in_it_changes(files: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).write_text(text)
    before = sorted((tmp_path / "x").rglob("*"))
    with raises("not-a-run", tmp_path / "x"), lock(tmp_path / "x", print):
        raise AssertionError
    assert sorted((tmp_path / "x").rglob("*")) == before
    assert all((tmp_path / "x" / name).read_text() == text for name, text in files.items())


@pytest.mark.parametrize("proof", ["config.json", "checkpoints"])
def test_a_run_of_before_markers_is_known_by_what_it_holds(proof: str, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / ".ptarmigan-run").unlink()
    if proof == "config.json":
        shutil.rmtree(tmp_path / "run" / "checkpoints")
    else:
        (tmp_path / "run" / "config.json").unlink()
    with lock(tmp_path / "run", print):
        assert (tmp_path / "run" / ".ptarmigan-run").exists()


def test_what_a_start_left_that_was_killed_at_once_is_used_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    (tmp_path / "run" / "..ptarmigan-run.12-0123abcd.tmp").write_text("{")
    with lock(tmp_path / "run", print):
        names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {".lock", ".owner.json", ".ptarmigan-run"}


def test_a_run_without_its_checkpoints_is_not_begun_anew_over_its_generator(
    shapes: Path, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    before = (tmp_path / "run" / "generator" / "model.safetensors").read_bytes()
    with raises("no-good-checkpoint", tmp_path / "run", "generator", "--out"):
        train(shapes, out=tmp_path / "run", **SMALL)
    assert (tmp_path / "run" / "generator" / "model.safetensors").read_bytes() == before


def test_runs_that_begin_at_once_get_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(new_run, ["a"] * 24))
    assert sorted(runs) == sorted(Path(f"runs/a-{number}") for number in range(1, 25))
    (tmp_path / "file").mkdir()
    monkeypatch.chdir(tmp_path / "file")
    (tmp_path / "file" / "runs").touch()
    with raises("file-unwritable", "runs", "--out"):
        new_run("a")


# --- damage -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train(shapes, out=tmp_path_factory.mktemp("finished") / "run", **SMALL)


READ_BACK = [
    "config.json", "metrics.jsonl", "split.safetensors", "checkpoints/000000024.safetensors",
    "checkpoints/000000048.safetensors", "generator/model.safetensors", "generator/config.json", "generator/README.md",
]  # fmt: skip


def hurt(path: Path, how: str, place: float, mask: int) -> None:
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    if how == "flip":
        content[at] ^= mask
        path.write_bytes(content)
    elif how == "delete":
        path.unlink()
    else:
        path.write_bytes(content[: at if how == "truncate" else 0])


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    st.sampled_from(READ_BACK),
    st.sampled_from(["flip", "flip", "truncate", "empty", "delete"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 255),
)
def test_damage_to_any_one_file_is_named_or_harmless_and_never_gives_another_model(
    shapes: Path,
    finished: Path,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    how: str,
    place: float,
    mask: int,
) -> None:
    run = tmp_path_factory.mktemp("damaged") / "run"
    shutil.copytree(finished, run)
    hurt(run / name, how, place, mask)
    expected, _ = load_tensors(finished / "generator" / "model.safetensors")

    if name == "generator/model.safetensors" and how != "flip":
        with pytest.raises(UserError) as caught:
            load(run)
        assert str(run) in str(caught.value)
    else:
        with suppress(Damaged):
            model = load(run)  # the right one, or none
            assert all(torch.equal(value, expected[key]) for key, value in model.network.state_dict().items())

    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Display, "say", lambda _, text: said.append(text))
        train(shapes, out=run, **SMALL)
    if name in ("config.json", "checkpoints/000000048.safetensors") and how != "delete":
        assert any(text.startswith("note: ") and name in text for text in said), said
    assert (run / "generator" / "model.safetensors").read_bytes() == (
        finished / "generator" / "model.safetensors"
    ).read_bytes()
    shutil.rmtree(run.parent)


def test_a_run_without_a_good_checkpoint_or_config_says_so_in_one_line(
    shapes: Path, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    for path in checkpoint.checkpoints(tmp_path / "run"):
        path.write_bytes(b"")
    with raises("no-good-checkpoint", "000000048.safetensors", "000000024.safetensors") as raised:
        train(shapes, out=tmp_path / "run", **SMALL)
    assert "\n" not in str(raised.value)
    for name in ("checkpoints", "generator", "samples"):
        shutil.rmtree(tmp_path / "run" / name)
    (tmp_path / "run" / "config.json").write_text("{")
    with raises("no-good-checkpoint", tmp_path / "run" / "config.json"):
        train(shapes, out=tmp_path / "run", **SMALL)


def test_a_deleted_config_is_restored_from_the_checkpoint(shapes: Path, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    train(shapes, out=tmp_path / "run", **SMALL)
    assert load_json(tmp_path / "run" / "config.json") == load_json(finished / "config.json")
    (tmp_path / "run" / "config.json").unlink()
    with raises("run-differs", "width is 4 in the run, 8 now"):
        train(shapes, out=tmp_path / "run", **{**SMALL, "width": 8})


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_record_says_when_it_is_not_what_was_written(tmp_path: Path, place: float, mask: int) -> None:
    record = {"a": [1, 2.5, None], "b": {"c": "text"}}
    save_json(tmp_path / "x.json", record)
    assert load_json(tmp_path / "x.json") == record
    hurt(tmp_path / "x.json", "flip", place, mask)
    with suppress(Damaged):
        assert load_json(tmp_path / "x.json") == record  # white space may change, nothing else


def test_a_damaged_line_of_the_log_is_counted_and_left_out_and_a_torn_one_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path)
    for images in (8, 16, 24):
        metrics.write(images, d_adv=0.5)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1].replace("images_seen", "images_\0een") + lines[2] + lines[2][:20])
    assert [line["images_seen"] for line in read_log(path)] == [8, 24]
    assert damaged_lines(path) == 2
    Metrics(path).write(32, d_adv=0.5)
    assert damaged_lines(path) == 1
    assert [(line["images_seen"], line["attempt"]) for line in read_log(path)] == [(8, 1), (24, 1), (32, 2)]


# --- a disk that is full or fails -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_write_that_fails_midway_stops_the_run_in_one_line_and_the_last_checkpoint_stays_good(
    shapes: Path, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    size = (tmp_path / "run" / "checkpoints" / "000000048.safetensors").stat().st_size
    limit = size // 2  # bytes a file may have: the kernel refuses the rest of the next checkpoint
    process = command(
        "train", shapes, "--out", tmp_path / "run", *flags(images="96"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    status, _, err = ended(process)
    assert status == 2
    (line, hint) = err.strip().splitlines()
    assert "[file-unwritable]" in line
    assert "File too large" in line
    assert str(tmp_path / "run") in hint
    assert not list((tmp_path / "run").rglob("*.tmp"))
    assert (tmp_path / "run" / "checkpoints" / "000000048.safetensors").stat().st_size == size
    found, bad = checkpoint.newest(tmp_path / "run")
    assert found is not None
    assert found.meta["images_seen"] == 48
    assert not bad
    load(tmp_path / "run")


def test_older_checkpoints_go_only_after_the_new_one_is_whole(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    real = checkpoint.save_tensors

    def watched(path: Path, *rest: Any) -> str:
        before = [old.stem for old in checkpoint.checkpoints(tmp_path / "run")]
        result = real(path, *rest)
        seen.append([*before, *[old.stem for old in checkpoint.checkpoints(tmp_path / "run")]])
        return result

    monkeypatch.setattr(checkpoint, "save_tensors", watched)
    run = train(shapes, out=tmp_path / "run", **{**SMALL, "keep": 1, "snapshots": 3})
    assert seen[2] == ["000000032", "000000032", "000000048"]
    assert [path.stem for path in checkpoint.checkpoints(run)] == ["000000048"]


@pytest.mark.parametrize("name", ["samples", "generator", "best"])
def test_a_snapshot_whose_files_cannot_be_written_saves_the_checkpoint_and_goes_on(
    name: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    fields = {**SMALL, "split": "60/40/0", "live_images": 10}
    monkeypatch.setattr(snapshot, "MIN_SELECT", 2)
    monkeypatch.setattr(snapshot.features, "load_extractor", lambda **_: random_projection())
    whole = train(shapes, out=tmp_path / "whole", **fields)

    run = tmp_path / "run"
    at_step(monkeypatch, 2, lambda _: (run / name).write_text("in the way"))
    if name == "generator":
        with raises("file-unwritable", run / "generator"):
            train(shapes, out=run, **fields)
    else:
        train(shapes, out=run, **fields)
    notes = [line for line in capsys.readouterr().out.splitlines() if f"{run / name} is not a folder" in line]
    assert len(notes) == 2  # one of each snapshot
    assert [path.stem for path in checkpoint.checkpoints(run)] == ["000000024", "000000048"]
    (run / name).unlink()
    train(shapes, out=run, **fields)
    missing = [Path("samples/000000048.png"), Path("generator/model.safetensors")]
    for file in missing:
        assert (run / file).read_bytes() == (whole / file).read_bytes()


def test_a_full_disk_gives_one_note_a_snapshot(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def full(path: Path, *_: Any) -> str:
        error = OSError(28, "No space left on device")
        raise UserError(f"cannot write {path}: {error.strerror}", "file-unwritable") from error

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_tensors", full)
        patch.setattr(export, "save_tensors", full)
        with raises("file-unwritable", run / "checkpoints" / "000000048.safetensors"):
            train(shapes, out=run, **{**SMALL, "snapshots": 3})
    notes = [line for line in capsys.readouterr().out.splitlines() if "No space left" in line]
    assert len(notes) == 2
    for line in notes:
        assert line.count("No space left") == 1
        assert "checkpoint, the generator, the grid of samples" in line
    train(shapes, out=run, **{**SMALL, "snapshots": 3})
    assert [path.stem for path in checkpoint.checkpoints(run)] == ["000000032", "000000048"]


def test_a_score_that_fails_does_not_end_the_run(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def fail(*_: Any) -> float:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(snapshot, "MIN_SELECT", 2)
    monkeypatch.setattr(snapshot.features, "load_extractor", lambda **_: random_projection())
    monkeypatch.setattr(snapshot.LiveScore, "score", fail)
    run = train(shapes, out=tmp_path / "run", **{**SMALL, "split": "60/40/0"})
    assert "could not create a primitive" in capsys.readouterr().out
    assert len(checkpoint.checkpoints(run)) == 2


@pytest.mark.parametrize("at", ["generator", "README.md", "samples"])
def test_a_run_that_dies_after_its_checkpoint_writes_what_is_missing_when_it_resumes(
    at: str, shapes: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        real = outputs.export_generator if at != "samples" else outputs.save_grid

        def die(*arguments: Any) -> Any:
            if at == "README.md":
                real(*arguments)
                (arguments[0] / "README.md").unlink()
            raise KeyboardInterrupt

        patch.setattr(outputs, "save_grid" if at == "samples" else "export_generator", die)
        with pytest.raises(KeyboardInterrupt):
            train(shapes, out=tmp_path / "run", **SMALL)
    assert [path.stem for path in checkpoint.checkpoints(tmp_path / "run")] == ["000000024"]
    at_step(monkeypatch, 1, interrupt)
    with raises("stopped", kind=Stopped):
        train(shapes, out=tmp_path / "run", **SMALL)
    file = "samples/000000024.png"
    assert (tmp_path / "run" / file).read_bytes() == (finished / file).read_bytes()
    train(shapes, out=tmp_path / "run", **SMALL)
    file = "generator/model.safetensors"
    assert (tmp_path / "run" / file).read_bytes() == (finished / file).read_bytes()


def test_a_log_that_cannot_be_written_is_kept_until_it_can(tmp_path: Path) -> None:
    path, said = tmp_path / "metrics.jsonl", list[str]()
    Metrics(path).write(8)
    path.rename(tmp_path / "aside")
    path.mkdir()
    metrics = Metrics(path, said.append)
    metrics.write(16, d_adv=0.5)
    metrics.new_attempt()
    metrics.write(24)
    assert len(said) == 1
    assert str(path) in said[0]
    with raises("file-unwritable", path, "2 lines"):
        metrics.close()
    path.rmdir()
    (tmp_path / "aside").rename(path)
    metrics.write(32)
    metrics.close()
    assert [(line["images_seen"], line["attempt"]) for line in read_log(path)] == [(8, 1), (16, 2), (24, 3), (32, 3)]


def test_half_a_line_on_a_full_disk_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path)
    metrics.write(8)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        metrics.write(16)
        assert path.read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    metrics.close()
    assert [line["images_seen"] for line in read_log(path)] == [8, 16]


def test_a_run_whose_log_cannot_be_written_is_saved_and_ends_with_an_error(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with lock(tmp_path / "run", print):
        (tmp_path / "run" / "metrics.jsonl").mkdir()
    with raises("file-unwritable", "metrics.jsonl"):
        train(shapes, out=tmp_path / "run", **SMALL)
    assert load(tmp_path / "run").images_seen == 48


def no_room(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let the system refuse so many checkpoints."""
    save, left = checkpoint.save_tensors, [times]

    def refuse(path: Path, *given: Any) -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise UserError(f"cannot write {path}: {os.strerror(28)}", "file-unwritable")
        return save(path, *given)

    monkeypatch.setattr(checkpoint, "save_tensors", refuse)


def test_training_goes_on_where_a_checkpoint_cannot_be_written(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    no_room(monkeypatch, times=1)
    run = train(shapes, out=tmp_path / "run", **{**SMALL, "snapshots": 2})
    assert [path.stem for path in checkpoint.checkpoints(run)] == ["000000048"]
    assert str(run / "checkpoints" / "000000024.safetensors") in capsys.readouterr().out


def test_a_last_checkpoint_that_cannot_be_written_ends_in_an_error_and_the_command_resumes(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    at_step(monkeypatch, 5, lambda _: no_room(monkeypatch, times=1))
    with raises("file-unwritable", "000000048.safetensors", "48 images") as failed:
        train(shapes, out=run, **{**SMALL, "snapshots": 2})
    assert failed.value.run == run
    assert load(run).images_seen == 48
    train(shapes, out=run, **{**SMALL, "snapshots": 2})
    assert [path.stem for path in checkpoint.checkpoints(run)] == ["000000024", "000000048"]


def test_a_record_that_is_removed_while_the_run_trains_is_written_again(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 2, lambda _: shutil.rmtree(tmp_path / "run"))
    run = train(shapes, out=tmp_path / "run", **SMALL)
    assert load_json(run / "config.json")["data"]["name"] == "shapes"
    train(shapes, out=run, **SMALL)


@pytest.mark.parametrize("fault", ["moments", "shape", "type", "more"])
def test_tensors_that_are_not_those_of_the_config_are_refused(
    fault: str, shapes: Path, finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    path = checkpoint.checkpoints(run)[-1]
    tensors, meta = load_tensors(path)
    name = next(key for key in tensors if key.startswith("opt_d.") and key.endswith(".exp_avg"))
    if fault == "moments":
        del tensors[name]
    elif fault == "shape":
        tensors[name] = tensors[name].flatten()[:1]
    elif fault == "type":
        tensors[name] = tensors[name].double()
    else:
        name = "opt_d.other"
        tensors[name] = torch.ones(1)
    checkpoint.save_tensors(path, tensors, {key: value for key, value in meta.items() if key != "sha256"})
    with raises("file-damaged", path, name):
        train(shapes, out=run, **{**SMALL, "images": "96"})


@given(st.integers(0, 300))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_space_at_any_byte_leaves_the_old_file(tmp_path: Path, room: int) -> None:
    path = tmp_path / "a"
    write_atomic(path, b"old")

    def fill(file: Any) -> None:
        file.write(b"x" * min(room, 256))
        if room < 256:
            raise OSError(28, os.strerror(28))

    if room < 256:
        with raises("file-unwritable", path, "No space left on device"):
            write_atomic(path, fill)
        assert path.read_bytes() == b"old"
    else:
        write_atomic(path, fill)
        assert path.read_bytes() == b"x" * 256
    assert [left.name for left in tmp_path.iterdir()] == ["a"]
    path.unlink()


# --- NaN --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "term"), [("batch", "d_adv"), ("weight", "d_adv"), ("gradient", "d_grad"), ("average", "ema.")]
)
def test_a_run_rolls_back_with_half_the_rates_and_says_so(
    where: str, term: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    plant_nan(monkeypatch, where, at=32, times=1)
    rates: list[tuple[int, float]] = []
    update = training.train_batch

    def noted(state: Any, batches: Any, *play: Any) -> Any:
        out = update(state, batches, *play)
        rates.append((state.images_seen, state.opt_g.param_groups[0]["lr"]))
        return out

    monkeypatch.setattr(training, "train_batch", noted)
    run = train(shapes, out=tmp_path / "run", **SMALL, anneal=0, g_lr=1e-3)
    out = capsys.readouterr().out
    (note,) = [line for line in out.splitlines() if line.startswith(f"note: {term}")]
    for fact in ("24 images", "0.5", "1 of at most 3"):
        assert fact in note
    lines = list(read_log(run / "metrics.jsonl"))
    assert any(str(line.get("diverged", "")).startswith(term) for line in lines)
    (rollback,) = [line for line in lines if "back_from" in line]
    assert (rollback["images_seen"], rollback["retry"], rollback["lr_scale"]) == (24, 1, 0.5)
    assert rates[-3:] == [(32, 5e-4), (40, 5e-4), (48, 5e-4)]
    tensors, meta = load_tensors(checkpoint.checkpoints(run)[-1])
    assert meta["images_seen"] == 48
    assert meta["progress"]["rollbacks"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_before_the_first_checkpoint_a_run_rolls_back_to_its_start(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_nan(monkeypatch, "gradient", at=8, times=2)
    run = train(shapes, out=tmp_path / "run", **SMALL)
    back = [line for line in read_log(run / "metrics.jsonl") if "back_from" in line]
    assert [(line["images_seen"], line["lr_scale"]) for line in back] == [(0, 0.5), (0, 0.25)]
    assert load_tensors(checkpoint.checkpoints(run)[-1])[1]["images_seen"] == 48


def test_after_its_retries_a_run_stops_and_a_killed_one_remembers_how_many_it_had(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_nan(monkeypatch, "gradient", at=32, times=100)
    for _ in range(2):
        with raises("diverged", "d_grad", "2 rollbacks", "000000024.safetensors", kind=Diverged):
            train(shapes, out=tmp_path / "run", **SMALL, retries=2)
    assert len([line for line in read_log(tmp_path / "run" / "metrics.jsonl") if "retry" in line]) == 2
    with raises("diverged", "d_grad", kind=Diverged) as raised:
        train(shapes, out=tmp_path / "other", **SMALL, retries=0)
    assert "rollback" not in str(raised.value)


def test_stopping_between_rollbacks_changes_nothing(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        plant_nan(patch, "gradient", at=32, times=1)
        whole = train(shapes, out=tmp_path / "whole", **SMALL)

    def stop(state: Any) -> None:
        if state.images_seen == 32 and state.progress.rollbacks:
            interrupt(state)

    with monkeypatch.context() as patch:
        plant_nan(patch, "gradient", at=32, times=1)
        before_steps(patch, stop)
        with raises("stopped", kind=Stopped):
            train(shapes, out=tmp_path / "parts", **SMALL)
    parts = train(shapes, out=tmp_path / "parts", **SMALL)
    file = "generator/model.safetensors"
    assert (whole / file).read_bytes() == (parts / file).read_bytes()


@pytest.mark.parametrize("at", [16, 32])
def test_a_signal_in_the_step_that_diverges_stops_the_run_after_the_rollback(
    at: int, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_nan(monkeypatch, "gradient", at=at, times=1)
    at_step(monkeypatch, at // SMALL["batch"] + 1, interrupt)
    with raises("stopped", kind=Stopped) as stopped:
        train(shapes, out=tmp_path / "run", **SMALL)
    assert stopped.value.status == 128 + signal.SIGINT
    assert newest(tmp_path / "run").progress.rollbacks == 1


# --- determinism ------------------------------------------------------------------------------------------------


def test_deterministic_algorithms_are_asked_for_and_given_back(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    before_steps(monkeypatch, lambda _: seen.append(torch.are_deterministic_algorithms_enabled()))
    train(shapes, out=tmp_path / "run", **SMALL, deterministic=True)
    assert seen == [True] * 6
    assert not torch.are_deterministic_algorithms_enabled()
