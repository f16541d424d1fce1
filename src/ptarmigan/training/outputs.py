"""What is made from a checkpoint: the generator, the grid of samples, the best generator and the report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ptarmigan.core.console import Display
from ptarmigan.core.files import Damaged, load_header, make_folder, write_atomic
from ptarmigan.core.types import UserError
from ptarmigan.data import Dataset
from ptarmigan.game.state import TrainState
from ptarmigan.generator.export import export_generator
from ptarmigan.generator.generator import TrainedGenerator, generate_images, grid_classes, save_grid
from ptarmigan.generator.header import header_of
from ptarmigan.sharing.report import NAME as REPORT
from ptarmigan.sharing.report import page

GRID_COLUMNS = 10
LATEST = "latest.png"  # a copy of the newest grid
LAST = "the last"  # how a generator of the run was selected
BEST = "the best generator"
RULE = "the last snapshot whose KID to the select part is not above the least by more than its noise"

Failures = dict[str, Exception]  # what could not be written -> why


def write_outputs(run: Path, state: TrainState, dataset: Dataset, display: Display) -> Failures:
    """Write what is made from the newest checkpoint, as far as it is missing: generator, grid of samples, best;
    and the report of the run.

    Where one cannot be written, the others are written all the same; returns those that failed.
    """
    progress, seen = state.progress, state.images_seen
    failed: Failures = {}
    with attempted("the generator", failed), display.doing("writing the generator"):
        if not exported(run / "generator", seen):
            export_average(run / "generator", state, dataset, LAST)
    with attempted("the grid of samples", failed), display.doing("writing the grid of samples"):
        if progress.shown_at == seen and not samples_path(run, seen).exists():
            if "the generator" in failed:  # whose SHA-256 the grid names
                raise failed["the generator"]
            save_samples(run, state, dataset)
    with attempted(BEST, failed):
        if progress.best_kid is not None and progress.best_images == seen and not exported(run / "best", seen):
            export_average(run / "best", state, dataset, RULE)
    with attempted("the report", failed), display.doing("writing the report"):
        write_atomic(run / REPORT, page(run).encode())
    return failed


@contextmanager
def attempted(what: str, failed: Failures) -> Iterator[None]:
    """Add an exception of the block to `failed`."""
    try:
        yield
    except Exception as error:
        failed[what] = error


def describe_failures(failed: Failures) -> str:
    """What could not be written and why, with each of the system's reasons once."""
    reasons: dict[object, str] = {}
    for error in failed.values():
        reasons.setdefault(getattr(error.__cause__, "errno", None) or str(error), reason(error))
    return f"not written: {', '.join(failed)} ({'; '.join(reasons.values())})"


def reason(error: Exception) -> str:
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def samples_path(run: Path, images_seen: int) -> Path:
    return run / "samples" / f"{images_seen:09d}.png"


def save_samples(run: Path, state: TrainState, dataset: Dataset) -> None:
    """Write RUN/samples/IMAGES.png and latest.png: images of fixed latents, a row for each class or for 32 of them."""
    config = state.config
    sha256 = load_header(run / "generator" / "model.safetensors").meta["sha256"]
    generator = TrainedGenerator(
        state.ema, config, state.spec, state.images_seen, dataset.fingerprint, LAST, {}, sha256
    )
    conditional, seed = config.model.conditional, config.train.seed
    n = GRID_COLUMNS if conditional else GRID_COLUMNS**2
    classes = np.array(grid_classes(state.spec.classes) if conditional else [0])
    labels = np.repeat(classes, n)
    images = generate_images(state.ema, config.model, labels, np.tile(np.arange(n), len(classes)), seed)
    latest = run / "samples" / LATEST
    make_folder(latest.parent)
    save_grid(generator, images, labels, latest, seed)  # first, because the numbered file says that both are there
    write_atomic(samples_path(run, state.images_seen), latest.read_bytes())


def export_average(folder: Path, state: TrainState, dataset: Dataset, selection: str) -> str:
    """Write the moving average of G, whose batch norm statistics must be up to date; returns its SHA-256."""
    return export_generator(
        folder, state.ema, state.config, state.spec, state.images_seen, dataset.fingerprint, selection,
        state.loss_file.sha256 if state.loss_file else None,
    )  # fmt: skip


def exported(folder: Path, images_seen: int) -> bool:
    """Whether a generator folder is whole, and of at least so many images seen."""
    try:
        path = folder / "model.safetensors"
        header = header_of(path, load_header(path).meta)
        texts = [(folder / name).read_text(encoding="utf-8", errors="replace") for name in ("config.json", "README.md")]
        return header.images_seen >= images_seen and all(header.sha256 in text for text in texts)
    except (Damaged, OSError):
        return False


@contextmanager
def noted(what: str, display: Display) -> Iterator[None]:
    """Note an exception of something that a run can do without."""
    try:
        yield
    except Exception as error:
        display.say(f"note: {what} failed, and training goes on: {reason(error)}")
