"""The run folder: made new, or opened again by the same command; its budget, planned and extended."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from filelock import FileLock, Timeout

from ptarmigan.config import RECIPES, UNTRACKED, Config, Ramp, Train, config_of, parse_images, parse_time
from ptarmigan.core import dist
from ptarmigan.core.files import FORMAT, Damaged, load_json, make_folder, save_json, save_tensors
from ptarmigan.core.types import UserError
from ptarmigan.core.version import __version__
from ptarmigan.data import Dataset
from ptarmigan.game.state import TrainState
from ptarmigan.training import checkpoint
from ptarmigan.training.auto import CHOSEN
from ptarmigan.training.checkpoint import Checkpoint

SETTLED = (0.05, 0.5)  # shares of a time budget between which its end is fixed as an image count
DEFAULT_TIME = "10m"


def read_yaml(path: Path) -> dict[str, Any]:
    """Fields from a YAML file, flat or in sections; raises UserError where it is missing or is no mapping."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"config: cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"config: {path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"config: {path} has to map fields to values, as `batch: 64`")
    return content


def new_run(name: str) -> Path:
    """The first runs/NAME-NUMBER that is free."""
    numbers = [path.name.removeprefix(f"{name}-") for path in Path("runs").glob(f"{name}-*")]
    return Path("runs") / f"{name}-{max((int(n) for n in numbers if n.isdecimal()), default=0) + 1}"


@contextmanager
def lock(run: Path, say: Callable[[str], None]) -> Iterator[None]:
    """The run folder, made if it is missing, for this process alone; what a killed one left half written is removed.

    The system lets go of the lock when its process ends, however it ends; RUN/.owner.json only says whose it is.
    Raises UserError where the folder is in use, with pid and host, and where it is no run.
    """
    lock, owner = FileLock(run / ".lock", timeout=0), run / ".owner.json"
    if run.exists() and not (run.is_dir() and (is_run(run) or not any(run.iterdir()))):
        raise UserError(f"{run} exists and is no run of ptarmigan: name another folder with --out")
    make_folder(run)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{run} is in use by {holder(owner)}: let it end or stop it, or name another folder with --out"
        ) from None
    except OSError as error:
        raise UserError(f"cannot lock {run}: {error.strerror}; name another folder with --out") from None
    try:
        if owner.exists():
            say(f"note: {holder(owner)} ended without a word; its run goes on from what it saved")
        for left in run.rglob(".*.tmp"):
            left.unlink()
        save_json(owner, {"pid": os.getpid(), "host": platform.node()})
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # where nothing came of it, nothing stays
            if {path.name for path in run.iterdir()} == {".lock"}:
                (run / ".lock").unlink()
                run.rmdir()


def is_run(run: Path) -> bool:
    return any((run / name).exists() for name in (".lock", "config.json", "checkpoints"))


def holder(owner: Path) -> str:
    """Who holds a run, in words."""
    try:
        return "process {pid} on {host}".format(**load_json(owner))
    except (Damaged, KeyError):
        return "another process"


class Opened(NamedTuple):
    record: dict[str, Any] | None  # as `record_of` made it; None for a new run
    found: Checkpoint | None
    damaged: list[str]  # a sentence for each damaged file


def recorded(run: Path) -> dict[str, Any] | None:
    """The record of a run, if there is one: from config.json, where that is damaged from the newest good checkpoint."""
    try:
        return load_json(run / "config.json")
    except Damaged:  # or not there
        found, _ = checkpoint.newest(run)
    record: dict[str, Any] | None = found.meta["record"] if found else None
    return record


def chosen_before(run: Path) -> dict[str, Any] | None:
    """What `auto` chose for a run and was when it began, by field; None where there is no run, or no good record."""
    try:
        record = recorded(run)
        flat = config_of(record).flat() if record else {}
    except (UserError, KeyError, TypeError):  # said by `open_run`
        return None
    if record is None:
        return None
    own = str(flat["loss"]).endswith(".py")  # that is passed anew each time
    return {key: flat[key] for key in (*CHOSEN, *RECIPES["auto"]) if not (own and key == "loss")}


def open_run(
    run: Path,
    config: Config,
    dataset: Dataset,
    init: dict[str, Any] | None = None,
    loss_sha256: str | None = None,
) -> Opened:
    """What there is of a run; its record comes from the newest good checkpoint, before there is one from config.json.

    `init` is the record of the model that it is to begin from, `loss_sha256` that of the user's own loss.  Raises
    UserError with the difference where it was begun with another config, another loss file, other data or another
    model, and where there are checkpoints but none is good.
    """
    found, damaged = checkpoint.newest(run)
    if damaged and found is None:
        raise UserError(f"no good checkpoint is left in {run}, begin anew with another --out: {'; '.join(damaged)}")
    if found is not None:
        damaged = [f"{sentence}; {found.path.name} is used" for sentence in damaged]
    record: dict[str, Any] | None = None
    try:
        record = load_json(run / "config.json") if found or (run / "config.json").exists() else None
    except Damaged as error:
        if found is None:
            raise UserError(f"{error}, and there is no checkpoint yet: begin anew with another --out") from None
        damaged.append(f"{error}; it is written anew from {found.path}")
    if found is not None:
        record = found.meta["record"]
    if record is None:
        return Opened(None, None, damaged)
    then, loss_then = config_of(record), record.get("loss_sha256")
    old, new = {"recipe": then.recipe, **then.flat()}, {"recipe": config.recipe, **config.flat()}
    old["loss"], new["loss"] = loss_named(then, loss_then), loss_named(config, loss_sha256)
    differences = [
        f"{key} {old[key]} there, {new[key]} here" for key in new if key not in UNTRACKED and old[key] != new[key]
    ]
    if (was := begun_from(record.get("init"))) != (now := begun_from(init)):
        differences.insert(0, f"from {was} there, from {now} here")
    if record["data"]["fingerprint"] != dataset.fingerprint:
        differences.append(f"other images ({record['data']['source']} there)")
    if differences:
        file = f", --loss with the same {then.loss.loss} included" if loss_then else ""
        raise UserError(
            f"{run} was begun otherwise: {'; '.join(differences)}. Name another --out, or give what it was begun "
            f"with{file}"
        )
    return Opened(record, found, damaged)


def begun_from(init: dict[str, Any] | None) -> str:
    return f"{init['model']} (SHA-256 {init['sha256'][:12]})" if init else "the seed"


def loss_named(config: Config, sha256: str | None) -> str:
    """The loss in words, of which one's own is known by its content alone."""
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
    """What a run was asked for and what came of it: RUN/config.json, and a part of every checkpoint."""
    return {
        "format": FORMAT,
        "asked": asked,
        "config": asdict(config),
        "spec": asdict(dataset.spec),
        "data": {"source": source, "name": dataset.name, "fingerprint": dataset.fingerprint, "split": dataset.counts()},
        "precision": "bf16" if bf16 else "fp32",
        "micro_batch": micro_batch,
        "tick": tick,
        "init": init,
        "loss_sha256": loss_sha256,
        "versions": {"ptarmigan": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": {"system": platform.platform(), "threads": torch.get_num_threads(), "ranks": dist.world()},
    }


def write_record(run: Path, record: dict[str, Any], dataset: Dataset) -> None:
    """RUN/config.json, and the split image by image in RUN/split.safetensors."""
    split = {"hashes": torch.from_numpy(dataset.hashes), "part": torch.from_numpy(dataset.part)}
    save_tensors(run / "split.safetensors", split, {})
    save_json(run / "config.json", record)


def plan(state: TrainState, train: Train) -> None:
    """Fix or extend the end of training, in images seen, as the budget asks.

    A time budget's end is fixed at the speed seen until then, once `settled_after` of it is spent, so that schedules
    and resumes agree; the clock counts steps alone.  A finished run gets a new end after its last, and its learning
    rate starts again; an unfinished one has its last end moved.  Both are fixed at once, at the speed so far.
    """
    controllers, seen = state.controllers, state.images_seen
    ends: list[int] = controllers.setdefault("ends", [])
    clock: float = controllers.setdefault("clock", 0.0)
    budget = [train.time, train.images]
    changed = controllers.get("budget") not in (None, budget)
    if ends and not changed:
        return
    seconds, images = parse_time(train.time), parse_images(train.images)
    if images is None:
        assert seconds is not None
        if changed and clock >= seconds:
            raise UserError(f"time {train.time}: {clock:.0f}s of training are done already; give a longer budget")
        controllers["budget"] = budget
        if not seen or (not ends and clock < settled_after(state.config) * seconds):
            ends.clear()
            return
        images = max(seen + bool(ends), round(seen + seen / clock * (seconds - clock)))
    elif changed and images <= seen:
        raise UserError(f"images {train.images}: {seen:,} have been seen already; give a larger budget")
    controllers["budget"] = budget
    end = seen + math.ceil((images - seen) / train.batch) * train.batch
    if seen and not ends:
        controllers["settled"] = seen  # no schedule has known the end before
    if ends and seen < ends[-1]:
        ends.pop()
    ends.append(end)


def settled_after(config: Config) -> float:
    """The share of a time budget after which its end is fixed: where learning rates begin to fall.

    A machine's speed changes, so not before they need it; but before half, since a run that is stopped ends bit for bit
    as a whole one from there on alone, and early where a field moves from the beginning.
    """
    early, late = SETTLED
    return early if any(map(moves, config.flat().values())) else min(late, max(early, 1 - config.train.anneal))


def moves(value: Any) -> bool:
    """A field's value is a ramp, or has one."""
    return isinstance(value, Ramp) or (isinstance(value, tuple) and any(map(moves, value)))
