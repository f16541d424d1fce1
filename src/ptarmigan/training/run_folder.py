"""The run folder: create it, lock it, check that a command may resume it, and write its record."""

from __future__ import annotations

import itertools
import os
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout

from ptarmigan.config import Config, config_of
from ptarmigan.config.recipes import CHOSEN, RECIPES
from ptarmigan.config.sections import UNTRACKED
from ptarmigan.core import dist
from ptarmigan.core.files import FORMAT, Damaged, load_json, make_folder, save_json
from ptarmigan.core.records import Owner, check
from ptarmigan.core.tensor_files import save_tensors
from ptarmigan.core.types import UserError, counted
from ptarmigan.core.version import __version__
from ptarmigan.data import Dataset
from ptarmigan.generator.header import load_run_record
from ptarmigan.training import checkpoint
from ptarmigan.training.checkpoint import Checkpoint

MARKER = ".ptarmigan-run"  # the file that names a folder as a run
TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")  # names of the unfinished files of `write_atomic`
FOLDERS = (".", "checkpoints", "samples", "generator", "best")  # those of a run to which training writes


def new_run(name: str) -> Path:
    """Make the first free runs/NAME-NUMBER; making it claims the name, so runs that begin at once get one each."""
    runs = Path("runs")
    make_folder(runs)
    try:
        numbers = [path.name.removeprefix(f"{name}-") for path in runs.iterdir() if path.name.startswith(f"{name}-")]
        for number in itertools.count(max((int(n) for n in numbers if n.isdecimal()), default=0) + 1):
            with suppress(FileExistsError):
                (runs / f"{name}-{number}").mkdir()
                return runs / f"{name}-{number}"
    except OSError as error:
        raise UserError(
            f"cannot make a folder in {runs}: {error.strerror}; name one with --out", "file-unwritable"
        ) from None
    raise AssertionError


@contextmanager
def lock(run: Path, say: Callable[[str], None], made: bool = False) -> Iterator[None]:
    """Make the run folder if it is missing, lock it, and remove unfinished files that a killed process left.

    The system releases the lock when the process ends, however it ends; RUN/.owner.json only names the process.  A run
    that saves nothing leaves no folder, if it was made here or, with `made`, just before.  Raises UserError if another
    process holds the lock (with its pid and host), or if the folder is not a run; then nothing in it is changed.
    """
    # `explore` and `info` take the lock for a moment to see whether a run goes on
    file_lock, owner, marker = FileLock(run / ".lock", timeout=0.5), run / ".owner.json", run / MARKER
    made = check_is_run_or_vacant(run) or made
    make_folder(run)
    try:
        file_lock.acquire()
    except Timeout:
        raise UserError(
            f"{run} is in use by {holder(owner)}: stop it or let it finish, or name another folder with --out",
            "run-locked",
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot lock {run}: {error.strerror}; name another folder with --out", "file-unwritable"
        ) from None
    try:
        if owner.exists():
            say(f"note: {holder(owner)} exited without releasing the run; resuming from its last checkpoint")
        remove_leftovers(run)
        if not marker.exists():
            save_json(marker, {"format": FORMAT})
        save_json(owner, {"pid": os.getpid(), "host": platform.node()})
        yield
    finally:
        with suppress(OSError):
            owner.unlink(missing_ok=True)
        file_lock.release()
        with suppress(OSError):
            if {path.name for path in run.iterdir()} <= {".lock", MARKER}:
                marker.unlink(missing_ok=True)
                (run / ".lock").unlink(missing_ok=True)
                if made:
                    run.rmdir()


def check_is_run_or_vacant(run: Path) -> bool:
    """Whether the folder is still to be made; raises UserError if it exists and is neither a run nor empty."""
    try:
        missing = not run.exists()
        usable = missing or (run.is_dir() and (is_vacant(run) or is_run(run)))
    except OSError as error:
        raise UserError(
            f"cannot look into {run}: {error.strerror}; name another folder with --out", "file-unreadable"
        ) from None
    if not usable:
        raise UserError(f"{run} exists and is not a run of ptarmigan: name another folder with --out", "not-a-run")
    return missing


def is_run(run: Path) -> bool:
    """Whether training made the folder: it has our marker, or a sealed config.json or checkpoint of before markers."""
    for name in (MARKER, "config.json"):
        with suppress(Damaged):  # or missing
            load_json(run / name)
            return True
    return checkpoint.newest(run)[0] is not None


def is_vacant(folder: Path) -> bool:
    """Whether a folder is empty, but for what a start leaves that was killed before the marker was written."""
    marker_parts = f".{MARKER}."
    return all(
        (path.name == ".lock" and not path.stat().st_size)
        or (path.name.startswith(marker_parts) and TEMPORARY.fullmatch(path.name))
        for path in folder.iterdir()
    )


def remove_leftovers(run: Path) -> None:
    """Remove the unfinished files that a killed process left in the folders that training writes."""
    for folder in (run / name for name in FOLDERS):
        with suppress(OSError):  # the folder is missing, or nothing may be removed from it
            for path in list(folder.iterdir()):
                if TEMPORARY.fullmatch(path.name) and path.is_file():
                    path.unlink()


def holder(owner: Path) -> str:
    """Who holds a run, in words."""
    try:
        return "process {pid} on {host}".format(**check(owner, load_json(owner), Owner))
    except Damaged:
        return "another process"


def read_record(run: Path) -> dict[str, Any] | None:
    """A run's record, from config.json or, where that is missing or damaged, from the newest good checkpoint."""
    try:
        return load_run_record(run)
    except Damaged:  # or missing
        found, _ = checkpoint.newest(run)
    record: dict[str, Any] | None = found.meta["record"] if found else None
    return record


def recorded_auto(run: Path) -> dict[str, Any] | None:
    """The fields of recipe `auto` as they were when the run started; None without a run or a good record of it."""
    try:
        record = read_record(run)
        flat = config_of(record).flat() if record else {}
    except UserError:  # `open_run` reports it
        return None
    if record is None:
        return None
    custom_loss = str(flat["loss"]).endswith(".py")  # which the user passes again
    return {key: flat[key] for key in (*CHOSEN, *RECIPES["auto"]) if not (custom_loss and key == "loss")}


class OpenedRun(NamedTuple):
    record: dict[str, Any] | None  # as `record_of` made it; None for a new run
    found: Checkpoint | None  # the newest good one
    notes: list[str]  # a sentence for each damaged file


def open_run(
    run: Path,
    config: Config,
    dataset: Dataset,
    init: dict[str, Any] | None = None,
    loss_sha256: str | None = None,
) -> OpenedRun:
    """Open a run if there is one; its record comes from the newest good checkpoint, or else from config.json.

    `init` is the record of the warm start that was asked for, `loss_sha256` the hash of the user's own loss.  Raises
    UserError if the run has another config, loss file, data or warm start (it names the differences), or if it has
    checkpoints but no good one.
    """
    found, notes = newest_good(run)
    record: dict[str, Any] | None = None
    try:
        record = load_run_record(run) if found or (run / "config.json").exists() else None
    except Damaged as error:
        if found is None:
            raise UserError(
                f"{error}, and there is no checkpoint yet: start a new run with another --out", "no-good-checkpoint"
            ) from None
        notes.append(f"{error}; restored from {found.path}")
    if found is not None:
        record = found.meta["record"]
    if record is not None and (differences := differences_from(record, config, dataset, init, loss_sha256)):
        file = f", including --loss with the same {config_of(record).loss.loss}" if record.get("loss_sha256") else ""
        raise UserError(
            f"cannot resume {run}: {'; '.join(differences)}. Name another --out, or repeat the options that the run "
            f"was started with{file}",
            "run-differs",
        )
    if found is not None and (note := machine_changed(record or {})):
        notes.append(note)
    return OpenedRun(record, found, notes)


def newest_good(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """A run's newest good checkpoint, None for a new run, and a sentence for each damaged newer one.

    Raises UserError if there are checkpoints and none is good, or outputs without a checkpoint.
    """
    found, notes = checkpoint.newest(run)
    if notes and found is None:
        raise UserError(
            f"no good checkpoint is left in {run}: {'; '.join(notes)}. Start a new run with another --out",
            "no-good-checkpoint",
        )
    if found is not None:
        notes = [f"{sentence}; using {found.path.name}" for sentence in notes]
    if found is None and (kept := [name for name in ("generator", "best", "samples") if any_in(run / name)]):
        raise UserError(
            f"{run} has no checkpoint, and a new run in it would overwrite its {' and '.join(kept)}: name another "
            f"--out{f', with --from {run} to start from its generator' if kept[0] == 'generator' else ''}",
            "no-good-checkpoint",
        )
    return found, notes


def any_in(folder: Path) -> bool:
    """Whether a folder holds a file that was written whole."""
    return folder.is_dir() and any(not TEMPORARY.fullmatch(path.name) for path in folder.iterdir())


def machine_changed(record: dict[str, Any]) -> str | None:
    """A note if the run was last trained with other threads or ranks, which may change results in their last bits."""
    was, now = record.get("machine", {}), this_machine()
    changes = [
        f"{counted(now[f'{what}s'], what)} instead of {was[f'{what}s']}"
        for what in ("thread", "rank")
        if was.get(f"{what}s", now[f"{what}s"]) != now[f"{what}s"]
    ]
    if not changes:
        return None
    return f"resuming with {' and '.join(changes)}: the results may differ in their last bits from an unstopped run's"


def this_machine() -> dict[str, Any]:
    return {"system": platform.platform(), "threads": torch.get_num_threads(), "ranks": dist.world()}


def differences_from(
    record: dict[str, Any], config: Config, dataset: Dataset, init: dict[str, Any] | None, loss_sha256: str | None
) -> list[str]:
    """Each difference between what is asked for now and the run's record, in words."""
    was = config_of(record)
    old, new = {"recipe": was.recipe, **was.flat()}, {"recipe": config.recipe, **config.flat()}
    old["loss"], new["loss"] = loss_named(was, record.get("loss_sha256")), loss_named(config, loss_sha256)
    differences = [
        f"{key} is {old[key]} in the run, {new[key]} now"
        for key in new
        if key not in UNTRACKED and old[key] != new[key]
    ]
    if (old_start := start_named(record.get("init"))) != (new_start := start_named(init)):
        differences.insert(0, f"the run started {old_start}, not {new_start}")
    if record["data"]["fingerprint"] != dataset.fingerprint:
        differences.append(f"the run was trained on other images, from {record['data']['source']}")
    return differences


def start_named(init: dict[str, Any] | None) -> str:
    return f"from {init['model']} (SHA-256 {init['sha256'][:12]})" if init else "from scratch"


def loss_named(config: Config, sha256: str | None) -> str:
    """The loss in words; a user's own loss is identified by its content, not by its path."""
    return f"{config.loss.loss} (SHA-256 {sha256[:12]})" if sha256 else config.loss.loss


def record_of(
    config: Config,
    asked: dict[str, Any],
    dataset: Dataset,
    source: str,
    bf16: bool,
    micro_batch: int,
    tick: int,
    init: dict[str, Any] | None = None,
    loss_sha256: str | None = None,
) -> dict[str, Any]:
    """The fields given for a run and those decided from them: RUN/config.json, also stored in every checkpoint."""
    return {
        "format": FORMAT,
        "asked": asked,
        "config": asdict(config),
        "spec": asdict(dataset.spec),
        "data": {
            "source": source,
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "split": dataset.counts(),
            "train_counts": list(dataset.class_counts().values()),
        },
        "precision": "bf16" if bf16 else "fp32",
        "micro_batch": micro_batch,
        "tick": tick,
        "init": init,
        "loss_sha256": loss_sha256,
        "versions": {"ptarmigan": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": this_machine(),
    }


def write_record(run: Path, record: dict[str, Any], dataset: Dataset) -> None:
    """Write RUN/config.json, and the part of each image to RUN/split.safetensors."""
    split = {"hashes": torch.from_numpy(dataset.hashes), "part": torch.from_numpy(dataset.part)}
    save_tensors(run / "split.safetensors", split, {})
    save_json(run / "config.json", record)
