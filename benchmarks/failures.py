"""Planted failures: how often the diagnosis names the fault of a run, and how often it finds one in a healthy run.

    python benchmarks/failures.py train --runs 4     until there are so many of each kind on each set of images
    python benchmarks/failures.py judge              print the tables of docs/diagnosis.md from the results
    python benchmarks/failures.py others --programs tools/bin
                                                     what two other tools, installed there, say of the same logs

A planted failure is a run of the shipped trainer with one thing changed: options, or one function replaced while it
trains.  The log of each run is a line of results/failures.jsonl.  The limits were set on the runs of even seeds; rates
are of the odd ones, with Wilson's 95 % intervals.  The kinds with the fewest runs come first, so that `train` may be
stopped at any time.  results/healthy.jsonl has the logs of longer runs of recipe `auto`,
which were made for other purposes.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ptarmigan.data.batches
import ptarmigan.networks.dcgan
import ptarmigan.training.loop
import ptarmigan.training.setup
import ptarmigan.training.snapshot
import ptarmigan.training.start
import shapes
from ptarmigan import train
from ptarmigan.core import seeding
from ptarmigan.core.log import read_rows
from ptarmigan.data import HELD_OUT, TRAIN, Dataset
from ptarmigan.diagnosis.columns import Log
from ptarmigan.diagnosis.story import events, now
from ptarmigan.evaluation.intervals import wilson
from ptarmigan.training.loop import Diverged

RESULTS = Path(__file__).parent / "results" / "failures.jsonl"
LONGER = RESULTS.with_name("healthy.jsonl")
FIELDS: dict[str, Any] = dict(width=16, latent_dim=32, batch=16, precision="fp32", snapshots=4, live_images=128)
DATA: dict[str, dict[str, Any]] = {"fashion": {}, "shapes": dict(size="32", fit="pad")}
UPDATES = 625  # of G in a run, unless its kind says more
HALVES = ("even seeds", "odd seeds")  # the limits were set on the first
MOST_LINES = 30  # of a log that are kept
NOISE = 3.0  # standard errors above its least live score, at which a run with a good recipe may end as healthy
COLUMNS = ("attempt", "clock", "images_per_second", "end", "findings")  # of a log that are not kept
BATCH_NORM = 256  # images for the statistics of batch norm, fewer than `train` uses, because it is done six times
NO_PENALTY: dict[str, Any] = dict(r1=0.0, r2=0.0)
LONG: dict[str, Any] = dict(updates=1125)


@contextmanager
def changed(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value(before))
    try:
        yield
    finally:
        setattr(module, name, before)


def latents(change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    return changed(seeding, "latents", lambda before: lambda *given, **named: change(before(*given, **named)))


def two_of(z: torch.Tensor) -> torch.Tensor:
    """One of two latents for each sample."""
    both = torch.stack([torch.linspace(-1, 1, z.shape[1]), torch.linspace(1, -1, z.shape[1])])
    return both[(z[:, 0] > 0).long()]


def data_set(change: Callable[[Dataset], Dataset]) -> Any:
    return changed(ptarmigan.training.setup, "open_dataset", lambda before: lambda *a, **k: change(before(*a, **k)))


def shuffled(dataset: Dataset) -> Dataset:
    return replace(dataset, labels=np.random.default_rng(0).permutation(dataset.labels))


def only(count: int) -> Callable[[Dataset], Dataset]:
    def few(dataset: Dataset) -> Dataset:
        part = dataset.part.copy()
        part[dataset.indices(TRAIN)[:: -(-len(dataset.indices(TRAIN)) // count)]] = 9
        part[part == TRAIN] = HELD_OUT
        return replace(dataset, part=np.where(part == 9, TRAIN, part).astype(np.uint8))

    return few


def kernel_3() -> Any:
    def of(before: Any) -> Any:
        return lambda a, b, kernel, stride, padding, bias: before(a, b, 3, stride=stride, padding=0, bias=bias)

    return changed(ptarmigan.networks.dcgan, "ConvTranspose2d", of)


def two_classes() -> Any:
    """G draws one of two classes whatever it is asked for; D knows what it was asked for."""
    return changed(
        ptarmigan.networks.dcgan.Generator,
        "forward",
        lambda before: lambda self, z, labels: before(self, z, labels % 2),
    )


def unit_range() -> Any:
    return changed(ptarmigan.data.batches, "to_float", lambda before: lambda images: before(images).add_(1).div_(2))


D_RATE = ("diverged", "unstable", "d-too-strong")
G_RATE = ("diverged", "unstable", "d-too-weak", "g-gradient-vanishes", "collapse")

# kind -> the options that are changed, what replaces a function, and the findings that name the fault
KINDS: dict[str, tuple[dict[str, Any], Callable[[], Any] | None, tuple[str, ...]]] = {
    "D's learning rate 50x": (dict(d_lr=0.1), None, ("d-too-strong", "diverged")),
    "D's rate 10x, no penalties": (dict(d_lr=2e-2, **NO_PENALTY), None, D_RATE),
    "dcgan, D's rate 100x": (dict(recipe="dcgan", d_lr=2e-2), None, D_RATE),
    "acgan, D's rate 100x": (dict(recipe="acgan", d_lr=2e-2), None, D_RATE),
    "dcgan, D's rate 500x": (dict(recipe="dcgan", d_lr=0.1), None, D_RATE),
    "acgan, D's rate 500x": (dict(recipe="acgan", d_lr=0.1), None, D_RATE),
    "G's rate 50x": (dict(g_lr=0.1), None, G_RATE),
    "dcgan, G's rate 100x": (dict(recipe="dcgan", g_lr=2e-2), None, G_RATE),
    "acgan, G's rate 100x": (dict(recipe="acgan", g_lr=2e-2), None, G_RATE),
    "dcgan, G's rate 500x": (dict(recipe="dcgan", g_lr=0.1), None, G_RATE),
    "acgan, G's rate 500x": (dict(recipe="acgan", g_lr=0.1), None, G_RATE),
    "both learning rates 100x": (dict(d_lr=0.2, g_lr=0.2), None, ("diverged",)),
    "large steps with momentum": (
        dict(d_lr=1e-2, g_lr=1e-2, g_betas=(0.9, 0.99), d_betas=(0.9, 0.99), **NO_PENALTY), None,
        ("diverged", "unstable"),
    ),
    "minimax, G's rate / 100": (
        dict(loss="minimax", g_lr=2e-5, **NO_PENALTY), None, ("g-gradient-vanishes", "d-too-strong"),
    ),
    "G's rate / 100": (dict(g_lr=2e-5, **NO_PENALTY), None, ("d-too-strong",)),
    "D is not trained": (dict(d_lr=1e-6), None, ("d-too-weak",)),
    "no bound on a Wasserstein D": (dict(loss="wasserstein", **NO_PENALTY), None, ("diverged",)),
    "two latents": ({}, lambda: latents(two_of), ("collapse",)),
    "no latents": ({}, lambda: latents(torch.zeros_like), ("collapse",)),
    "two classes": (LONG, two_classes, ("class-ignored",)),
    "D is not told the class": (
        dict(conditioning="auxiliary_classifier", class_weight=0.0, **LONG), None, ("class-ignored",),
    ),
    "labels shuffled": ({}, lambda: data_set(shuffled), ("labels-random",)),
    "trained on 40 images": (NO_PENALTY, lambda: data_set(only(40)), ("d-overfits", "copies")),
    "trained on 200 images": (
        dict(width=16, **NO_PENALTY, **LONG), lambda: data_set(only(200)), ("d-overfits", "copies"),
    ),
    "kernel of 3, stride of 2": (LONG, kernel_3, ("checkerboard",)),
    "images on [0, 1]": ({}, unit_range, ("colour-shift",)),
    "class weight 20 in ACGAN": (dict(conditioning="auxiliary_classifier", class_weight=20.0), None, ("too-easy",)),
    "auxiliary classifier in auto": (
        dict(conditioning="auxiliary_classifier", **LONG), None, ("too-easy", "collapse"),
    ),
}  # fmt: skip
HEALTHY: dict[str, dict[str, Any]] = {
    "auto": {},
    "auto, 3 times as long": LONG,
    "G's rate 10x": dict(g_lr=2e-2),  # this and the next two do no harm in so short a run
    "G's rate 10x, no penalties": dict(g_lr=2e-2, **NO_PENALTY),
    "both learning rates 10x": dict(d_lr=2e-2, g_lr=2e-2),
    "dcgan": dict(recipe="dcgan", updates=1000),
    "acgan": dict(recipe="acgan", updates=1000),
    "hinge, spectral norm": dict(loss="hinge", d_norm="spectral", **NO_PENALTY),
    "relativistic": dict(loss="relativistic"),
}


def rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def images_of(data: str, folder: str) -> Path | None:
    """The embedded images, or those of shapes.py, 300 of each class, drawn once."""
    if data == "fashion":
        return None
    path = Path(folder, "shapes.npz")
    if path.exists():
        return path
    images = np.array([[shapes.draw(label, i, 0) for i in range(300)] for label in range(len(shapes.NAMES))])
    flat = images.reshape(-1, *images.shape[2:])
    np.savez(path, arr_0=flat, arr_1=np.repeat(np.arange(len(shapes.NAMES)), 300), class_names=np.array(shapes.NAMES))
    return path


def measure(data: str, path: Path | None, kind: str, seed: int) -> dict[str, Any]:
    changes, plant, _ = KINDS.get(kind) or (HEALTHY[kind], None, ())
    given = FIELDS | DATA[data] | changes
    given["images"] = given["batch"] * given.pop("updates", UPDATES)
    with tempfile.TemporaryDirectory() as folder, plant() if plant else nullcontext():
        run, failed = Path(folder, "run"), None
        try:
            train(path, out=run, seed=seed, **given)
        except Diverged as error:
            failed = error.code
        config = json.loads((run / "config.json").read_text())["config"]
        fields = {
            key: value for section in config.values() if isinstance(section, dict) for key, value in section.items()
        }
        lines = [*read_rows(run / "metrics.jsonl").values()]
    rows = [{key: rounded(value) for key, value in line.items() if key not in COLUMNS} for line in thinned(lines)]
    return {"data": data, "kind": kind, "seed": seed, "failed": failed, "fields": fields, "rows": rows}


def thinned(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most MOST_LINES lines of a log, besides those of its snapshots and rollbacks."""
    every = -(-len(lines) // MOST_LINES)
    return [line for at, line in enumerate(lines) if at % every == 0 or {"select_kid", "retry", "diverged"} & {*line}]


def done(path: Path = RESULTS) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def next_run(runs: int) -> tuple[str, str, int] | None:
    """The images, the kind and the seed of a run of the kind that has the fewest; None where all have enough.

    A good recipe has few until it has twice as many as a planted kind.
    """
    seeds = {pair: set[int]() for pair in product((*KINDS, *HEALTHY), DATA)}
    for row in done():
        seeds[row["kind"], row["data"]].add(row["seed"])

    def count(pair: tuple[str, str]) -> tuple[bool, float, int]:
        of_kind = sum(len(seeds[pair[0], data]) for data in DATA)
        return len(seeds[pair]) >= runs, of_kind / (2 if pair[0] in HEALTHY else 1), len(seeds[pair])

    kind, data = min(seeds, key=count)
    left = {*range(runs)} - seeds[kind, data]
    return (data, kind, min(left)) if left else None


def named(row: dict[str, Any]) -> list[str]:
    """The findings that hold at the end of a run, the worst first, without notes."""
    log = Log.of_run({line["images_seen"]: line for line in row["rows"]}, row["fields"], "run")
    return [finding.name for finding in now(events(log)) if finding.severity != "note"]


def place(row: dict[str, Any]) -> int | None:
    """Where the fault of a planted failure is named: 1 for first; None where it is not."""
    return next((place for place, name in enumerate(named(row), 1) if name in KINDS[row["kind"]][2]), None)


def result(row: dict[str, Any]) -> str:
    """How the diagnosis does on a run, in a word and with what it says first instead."""
    first = next(iter(named(row)), "healthy")
    if row["kind"] in HEALTHY and not was_good(row):
        return f"got worse: {first}"
    if row["kind"] in HEALTHY:
        return first if first == "healthy" else f"alarm: {first}"
    return {None: f"missed: {first}", 1: "first", 2: "second"}.get(place(row), "later")


def was_good(row: dict[str, Any]) -> bool:
    """Whether a run ended with a live score as good as its best but for noise; True where it has none."""
    scores = [(line["select_kid"], line["select_kid_error"]) for line in row["rows"] if "select_kid" in line]
    if not scores:
        return True
    (least, error), (last, last_error) = min(scores), scores[-1]
    return last - least <= NOISE * math.hypot(error, last_error)


def share(count: int, of: int) -> str:
    """A count with Wilson's interval."""
    low, high = wilson(count / of, of)[1:] if of else (0.0, 1.0)
    return f"{count} of {of} ({max(low, 0):.0%} to {high:.0%})"


def rates(rows: list[dict[str, Any]]) -> str:
    """The cells of a line: how often a fault is named first, and first or second, and how often a healthy run is."""
    planted = [place(row) for row in rows if row["kind"] in KINDS]
    alarms = [bool(named(row)) for row in rows if row["kind"] in HEALTHY and was_good(row)]
    first, second = planted.count(1), planted.count(2)
    cells = ((first, planted), (first + second, planted), (sum(alarms), alarms))
    return " | ".join(share(count, len(of)) for count, of in cells)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each kind and data set, and a table of the rates over the runs of each half."""
    lines = [f"| run | images | {' | '.join(HALVES)} |", "|---|---|---|---|"]
    for kind, data in product((*KINDS, *HEALTHY), DATA):
        of = [row for row in rows if (row["kind"], row["data"]) == (kind, data)]
        cells = [counted([result(row) for row in of if row["seed"] % 2 == half]) for half in range(2)]
        if of:
            lines.append(f"| {kind} | {data} | {' | '.join(cell or 'not run' for cell in cells)} |")
    lines += ["", "| runs | named first | first or second | healthy ones with an alarm |", "|---|---|---|---|"]
    for half, name in enumerate(HALVES):
        lines.append(f"| {name} | {rates([row for row in rows if row['seed'] % 2 == half])} |")
    longer = [bool(named(row)) for row in done(LONGER)]
    return [*lines, f"| longer runs |  |  | {share(sum(longer), len(longer))} |"]


def others(rows: list[dict[str, Any]], programs: Path) -> list[str]:
    """A line for each kind: what runmedic and trainspotter say of the losses and gradients of its logs."""
    lines = ["| run | logs | runmedic | trainspotter |", "|---|---|---|---|"]
    for kind in (*KINDS, *HEALTHY):
        logs = [row["rows"] for row in rows if row["kind"] == kind]
        if logs:
            cells = [counted([tool(programs, *command, rows=log) for log in logs]) for command in TOOLS]
            lines.append(f"| {kind} | {len(logs)} | {' | '.join(cells)} |")
    return lines


TOOLS = (("runmedic", "diagnose", "--json"), ("trainspotter", "analyze", "--output=json"))
NAMES = {"images_seen": "step", "d_adv": "d_loss", "g_adv": "g_loss", "d_grad": "d_grad_norm", "g_grad": "g_grad_norm"}


def tool(programs: Path, name: str, *options: str, rows: list[dict[str, Any]]) -> str:
    """What a tool finds in a log, each once, in its order; "nothing" where it finds nothing."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log.csv")
        with log.open("w") as file:
            table = csv.writer(file)
            table.writerow(NAMES.values())
            table.writerows([row.get(column) for column in NAMES] for row in rows if "d_adv" in row)
        said = json.loads(subprocess.run([programs / name, *options, log], capture_output=True, check=True).stdout)
    found = (said[0] if isinstance(said, list) else said)["findings"]
    return ", ".join(dict.fromkeys(one.get("check") or one["detector"] for one in found)) or "nothing"


def counted(texts: list[str]) -> str:
    """Each text once, with how often it occurs."""
    return "; ".join(f"{text} ({count})" for text, count in Counter(texts).most_common())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "judge", "others"])
    parser.add_argument("--runs", type=int, default=4, help="of each kind on each set of images")
    parser.add_argument("--programs", type=Path, help="folder of the programs runmedic and trainspotter")
    given = parser.parse_args()
    if given.what == "judge":
        print(*table(done()), sep="\n")
        return
    if given.what == "others":
        print(*others(done(), given.programs), sep="\n")
        return
    torch.set_num_threads(1)
    os.environ["PTARMIGAN_PROBE_SECONDS"] = "0"
    ptarmigan.training.snapshot.STATISTICS_IMAGES = BATCH_NORM
    ptarmigan.training.start.snapshot_cost = lambda state, live: (0.1, 0.1)  # seconds, so little that all are taken
    with tempfile.TemporaryDirectory() as folder:
        while (wanted := next_run(given.runs)) is not None:
            data, kind, seed = wanted
            row = measure(data, images_of(data, folder), kind, seed)
            with RESULTS.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
