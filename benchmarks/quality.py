"""Quality on Fashion-MNIST at 28x28 against time: train, sample 1,000 a class, judge, write one JSON line a row.

    python benchmarks/quality.py auto --time 60s                    trained on the 60,000, judged on the 10,000
    python benchmarks/quality.py acgan --time 600s --g-lr 1e-4      any config field by its flag
    python benchmarks/quality.py --tune acgan --time 200s           trained on 50,000, judged on the other 10,000
    python benchmarks/quality.py --small auto --time 300s           trained on 100 of each class: does it copy?

A row that is in the results already is not run again.  `--time` is that on the clock; the rows of earlier commits
counted steps alone.  A timed row needs the machine, or with OMP_NUM_THREADS=1 a core, to
itself.  `dcgan` knows no classes, so its accuracy and diversity are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from judge import CLASSES, DATA, PER_CLASS, SAMPLES, Images, Judge, Labelled, Labels, read_idx
from ptarmigan import load, train
from ptarmigan.config import resolve
from ptarmigan.core.log import read_log
from ptarmigan.evaluation import metrics
from ptarmigan.generator.generator import TrainedGenerator

HERE = Path(__file__).parent
RUNS = HERE.parent / "runs"
TUNING = 50_000  # training images of a run with --tune; it is judged on the rest of the 60,000
SMALL = 100  # training images of each class of a run with --small


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("recipe")
    parser.add_argument("--tune", action="store_true", help="train on 50,000 and judge on the other 10,000")
    parser.add_argument("--small", action="store_true", help="train on 100 images of each class")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "quality.jsonl")
    arguments, rest = parser.parse_known_args()
    tune, small, recipe = arguments.tune, arguments.small, arguments.recipe
    given = config_fields(rest, recipe)
    row = {"tune": tune, **({"small": True} if small else {}), "recipe": recipe, **given}
    if "time" in given:
        row["threads"] = torch.get_num_threads()
    if is_done(row, arguments.results):
        print(f"already in {arguments.results}: {row}")
        return
    judge = Judge.load(data=DATA)
    images, labels = read_idx(DATA, "train")
    chosen = training_images(labels, tune, small)
    data = saved(images[chosen], labels[chosen]) if tune or small else DATA
    parts = [name for name, used in (("tune", tune), ("small", small)) if used] or ["full"]
    name = "-".join([*parts, recipe, *(f"{key}={value}" for key, value in given.items())])
    begun = time.time()
    run = train(data, recipe=recipe, out=RUNS / name, split="none", **given)
    wall = time.time() - begun
    reference = (images[TUNING:], labels[TUNING:]) if tune else None
    score = judged(judge, load(run), reference, (images[chosen], labels[chosen]) if small else None)
    last = [row for row in read_log(run / "metrics.jsonl") if "clock" in row][-1]
    line = {
        "row": row, "images_seen": load(run).images_seen, "clock": round(last["clock"], 1), "wall": round(wall, 1),
        "score": score,
        "precision": json.loads((run / "config.json").read_text())["precision"],
        **provenance(),
    }  # fmt: skip
    append(line, arguments.results)
    print(json.dumps(line))


def training_images(labels: Labels, tune: bool, small: bool) -> NDArray[np.int64]:
    """The indices of the images of the train part that a run learns from."""
    chosen = np.arange(TUNING if tune else len(labels))
    if small:
        chosen = np.sort(np.concatenate([chosen[labels[chosen] == c][:SMALL] for c in range(len(CLASSES))]))
    return chosen


def saved(images: Images, labels: Labels) -> Path:
    """An .npz of these images, which are written once."""
    data = RUNS / f"fashion-{len(images)}.npz"
    data.parent.mkdir(exist_ok=True)
    if not data.exists():
        np.savez(data, arr_0=images, arr_1=labels.astype(np.int64))
    return data


def judged(
    judge: Judge, generator: TrainedGenerator, reference: Labelled | None, learnt: Labelled | None
) -> dict[str, Any]:
    """The scores of samples; of an unconditional generator the distances alone.  learnt: look for copies of these."""
    conditional = generator.config.model.conditional
    made, asked = generator.sample(n=PER_CLASS if conditional else SAMPLES, seed=1)
    score = judge.score(made, asked if conditional else np.arange(SAMPLES) % len(CLASSES), reference)
    if not conditional:
        score = {key: value for key, value in score.items() if "frechet" in key}
    return score | (copies(judge, learnt, made, asked) if learnt else {})


def config_fields(flags: list[str], recipe: str | None = None) -> dict[str, str | bool]:
    """Config fields from flags such as --g-lr 1e-4, checked."""
    values = {"true": True, "false": False}
    fields = {
        flag[2:].replace("-", "_"): values.get(value, value)
        for flag, value in zip(flags[::2], flags[1::2], strict=True)
    }
    resolve({**({"recipe": recipe} if recipe else {}), **fields})
    return fields


def is_done(row: dict[str, Any], results: Path) -> bool:
    """Whether the results have this row already."""
    return results.exists() and any(json.loads(line)["row"] == row for line in results.read_text().splitlines())


def append(line: dict[str, Any], results: Path) -> None:
    results.parent.mkdir(exist_ok=True)
    with results.open("a") as file:
        file.write(json.dumps(line) + "\n")


def provenance() -> dict[str, str]:
    """The machine and the commit of a row."""
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True, cwd=HERE).strip()
    return {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "commit": commit}


def copies(judge: Judge, learnt: Labelled, made: Images, asked: Labels) -> dict[str, Any]:
    """C_T, and the mean distance to the nearest training image over that of the test images, by the judge."""
    train_set, test = judge.view(*learnt).features, judge.test.features
    generated = judge.view(made.reshape(len(made), 28, 28), asked).features
    centres = metrics.k_means(train_set, 10, seed=0)
    far, held_far = (metrics.nearest(each, train_set)[0] for each in (generated, test))
    cell, held_cell = (metrics.nearest_centre(each, centres) for each in (generated, test))
    c_t = metrics.c_t(held_far, held_cell, far, cell).z
    return {"c_t": round(c_t, 2), "distance_ratio": round(far.mean().item() / held_far.mean().item(), 3)}


if __name__ == "__main__":
    main()
