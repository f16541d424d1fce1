"""Find a trained file, check its header, and say what it records; without torch, so that `info` starts quickly."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from ptarmigan.config import Config, config_of
from ptarmigan.config.values import parse_time
from ptarmigan.core.files import Damaged, load_header, load_json
from ptarmigan.core.log import read_rows
from ptarmigan.core.paths import user_path
from ptarmigan.core.records import CheckpointHeader, GeneratorHeader, RunRecord, Scores, check
from ptarmigan.core.types import ImageSpec, UserError, check_whole, shorten
from ptarmigan.evaluation.report import headline
from ptarmigan.generator import hub

GENERATOR_FILES = ("generator/model.safetensors", "model.safetensors")  # in a run folder, and in a generator folder
AVERAGE = "ema."  # the names of the generator's tensors in a checkpoint start with it
NOT_AVERAGE = ("G.", "D.", "opt_g.", "opt_d.", "device_scalars.")  # the other tensors of a checkpoint
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # tensors of batch norm that are not parameters


class Header(NamedTuple):
    """What the header of a generator or of a checkpoint says about its generator."""

    config: Config
    spec: ImageSpec
    images_seen: int
    fingerprint: str  # of the data set that it was trained on; '' if not recorded
    selection: str  # how this generator was selected among those of its run
    sha256: str  # of the file


def header_of(path: Path, meta: dict[str, Any], of_checkpoint: bool = False) -> Header:
    """The `Header` of the generator that a generator file or a checkpoint holds, from the file's JSON.

    Raises Damaged if an entry is missing or invalid.
    """
    if of_checkpoint or "record" in meta:
        check(path, meta, CheckpointHeader)
        record = meta["record"]
        fingerprint, selection = record["data"]["fingerprint"], f"the checkpoint at {meta['images_seen']:,} images"
    else:
        check(path, meta, GeneratorHeader)
        record, fingerprint, selection = meta, meta["fingerprint"], meta["selection"]
    config, spec = config_and_spec(path, record)
    return Header(config, spec, meta["images_seen"], fingerprint, selection, meta["sha256"])


def config_and_spec(path: Path, record: Mapping[str, Any]) -> tuple[Config, ImageSpec]:
    """The config and image spec in a record whose structure was checked; raises Damaged if a field is not valid."""
    try:
        config = config_of(record)
    except UserError as error:
        raise Damaged(f"{path} has a config that this version cannot read: {error}") from None
    return config, ImageSpec(**{**record["spec"], "class_names": tuple(record["spec"]["class_names"])})


def load_run_record(run: Path) -> dict[str, Any]:
    """RUN/config.json; raises Damaged if it is missing, or is not as `train` wrote it, and OtherFormat."""
    path = run / "config.json"
    record = load_json(path)
    check(path, record, RunRecord)
    config_and_spec(path, record)
    return record


def find_generator(model: str | Path, at: int | None = None) -> Path:
    """The file of a generator: of a run folder, a generator folder, a folder of checkpoints, or the file itself.

    A model on the Hugging Face Hub, hf:user/name[@revision], is downloaded.  With `at` it is the run's checkpoint of
    that many images.  Raises UserError: path-not-found, no-generator, no-checkpoint, file-unreadable, options-conflict
    for `at` on the Hub, and as `hub.download`.
    """
    if hub.is_on_hub(model):
        if at is not None:
            raise UserError(f"at: {model} has no checkpoints: leave --at out, or name a revision", "options-conflict")
        model = hub.download(model)
    model = user_path(model, "model")
    tried = [*(user_path(model / name, "model") for name in GENERATOR_FILES), model]
    try:
        saved = checkpoints(model) or checkpoints(model.parent) * (model.name == "checkpoints")
        if at is not None and model.exists():
            check_whole("at", at)
            return checkpoint_at(model, saved, at)
        for path in tried:
            if path.is_file():
                return path
        found = model.exists()
    except OSError as error:  # a folder that may not be read, a name that is too long
        raise UserError(f"cannot read {model}: {error.strerror}", "file-unreadable") from None
    if not found:
        text = f"{model} does not exist: name a run, a generator folder or a .safetensors file"
        raise UserError(text, "path-not-found")
    if saved and model.name == "checkpoints":
        return saved[-1]
    text = f"{model} has no generator (neither {tried[0]} nor {tried[1]}); a run has one after its first snapshot"
    raise UserError(text, "no-generator")


def checkpoints(run: Path) -> list[Path]:
    """A run's checkpoints, oldest first."""
    paths = [path for path in (run / "checkpoints").glob("*.safetensors") if path.stem.isdecimal()]
    return sorted(paths, key=lambda path: int(path.stem))


def checkpoint_at(model: Path, saved: list[Path], at: int) -> Path:
    """The checkpoint of `at` images; raises UserError (no-checkpoint), which lists those that there are."""
    for path in saved:
        if int(path.stem) == at:
            return path
    if not saved:
        raise UserError(f"at: {model} has no checkpoints; name the folder of a run", "no-checkpoint")
    kept = shorten([f"{int(path.stem):,}" for path in saved], 20)
    raise UserError(f"at: {model} has no checkpoint at {at:,} images; it has those at {kept}", "no-checkpoint")


def read_scores(folder: Path, sha256: str) -> dict[str, Any]:
    """The reports in a generator folder, by extractor; {} if there are none, or they are of another generator.

    Raises Damaged for a scores.json that is not as `score` wrote it.
    """
    path = folder / "scores.json"
    if not path.exists():
        return {}
    record = load_json(path)
    check(path, record, Scores)
    reports: dict[str, Any] = record["reports"] if record["generator"] == sha256 else {}
    return reports


def state_of(run: Path) -> str | None:
    """Whether a run is finished, goes on or was stopped, and the command that resumes it; None for another folder."""
    rows = read_rows(run / "metrics.jsonl") if (run / "config.json").is_file() else {}
    trained = [row for row in rows.values() if "clock" in row]  # a live score can be the log's last line
    if not trained:
        return None
    last = trained[-1]
    if last.get("finished"):
        return "finished"
    config, _ = config_and_spec(run / "config.json", load_run_record(run))
    budget = parse_time(config.train.time)
    done, whole = (last["images_seen"], last["end"]) if last.get("end") else (last["clock"], budget)
    share = f"{min(done / whole, 0.99):.0%} of its budget" if whole else f"{last['images_seen']:,} images"
    if is_locked(run):
        return f"training, at {share}"
    file, out = shlex.quote(str(run / "config.json")), shlex.quote(str(run))
    return f"stopped at {share}; resume with: ptarmigan train --config {file} --out {out}"


def is_locked(run: Path) -> bool:
    """Whether a process trains in a run folder now."""
    if not (run / ".lock").is_file():
        return False
    try:
        with FileLock(run / ".lock", timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that only others may write to
        return False


def info(model: str | Path, *, at: int | None = None) -> dict[str, Any]:
    """What a generator records: path, classes, size, channels, recipe, loss, images seen, scores, SHA-256 and more.

    `model` and `at` are as in `load`.  Of a run, `run` says whether it is finished, goes on or was stopped, and `notes`
    are what was found in its data and the reasons for its settings.  `not_finite` names tensors with NaN or infinite
    values, if there are any.  The SHA-256 is checked, but not that the tensors fit the network, which `load` does.
    Raises UserError if there is no generator or it is damaged.
    """
    path = find_generator(model, at)
    contents = load_header(path)
    header = header_of(path, contents.meta)
    config, spec = header.config, header.spec
    try:
        reports = read_scores(path.parent, header.sha256)
        scores: list[str] | str = [f"{name}: {headline(report)}" for name, report in reports.items()] or "none yet"
    except Damaged as error:
        scores = str(error)
    state = state_of(Path(model))
    own = {name.removeprefix(AVERAGE): name for name in contents.shapes if not name.startswith(NOT_AVERAGE)}
    parameters = [contents.shapes[name] for name in own.values() if name.rpartition(".")[2] not in BUFFERS]
    faults = [name for name, stored in own.items() if stored in contents.not_finite]
    return {
        "path": str(path),
        "classes": list(spec.class_names) if config.model.conditional else "none: unconditional",
        "size": spec.size,
        "channels": spec.channels,
        "recipe": config.recipe,
        "loss": config.loss.loss,
        "conditioning": config.model.conditioning,
        "parameters": sum(map(math.prod, parameters)),
        "images_seen": header.images_seen,
        **({"run": state} if state else {}),
        "scores": scores,
        "sha256": header.sha256,
        **({"not_finite": faults} if faults else {}),
        **({"notes": load_run_record(Path(model)).get("notes", [])} if state else {}),
    }
