"""Quality on Fashion-MNIST at 28x28 against time: train, sample 1,000 a class, ask the judge, one JSON line a row.

    python benchmarks/quality.py auto --time 60s                    trained on the 60,000, judged on the 10,000
    python benchmarks/quality.py acgan --time 600s --g-lr 1e-4      any field of the config by its flag
    python benchmarks/quality.py --tune acgan --time 200s           trained on 50,000, judged on the other 10,000
    python benchmarks/quality.py --small auto --time 300s           trained on 100 of each class: does it copy?

A row that stands in the results already is not run again.  Only steps count as time; a timed row wants the machine to
itself, or with OMP_NUM_THREADS=1 a core.  `dcgan` knows no classes: its accuracy and diversity say nothing and are left
out.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from judge import CLASSES, DATA, Images, Judge, Labelled, Labels, read_idx
from ptarmigan import load, train
from ptarmigan.config import resolve
from ptarmigan.core.log import read
from ptarmigan.evaluation import metrics

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "quality.jsonl"
TUNING = 50_000  # training images that a tuning run sees; it is judged on the rest of the 60,000
SMALL = 100  # training images of each class that a run with --small sees


def main(arguments: list[str]) -> None:
    parts = [name for name in ("tune", "small") if f"--{name}" in arguments]
    recipe, *flags = [argument for argument in arguments if argument.removeprefix("--") not in parts]
    given = {flag[2:].replace("-", "_"): read_value(v) for flag, v in zip(flags[::2], flags[1::2], strict=True)}
    resolve({"recipe": recipe, **given})
    row = {"tune": "tune" in parts, **({"small": True} if "small" in parts else {}), "recipe": recipe, **given}
    if "time" in given:
        row["threads"] = torch.get_num_threads()
    done = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    if any(line["row"] == row for line in done):
        print(f"stands in {RESULTS} already: {row}")
        return
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    name = "-".join([*(parts or ["full"]), recipe, *(f"{key}={value}" for key, value in given.items())])
    judge = Judge.load()
    images, labels = read_idx(DATA, "train")
    chosen = np.arange(len(labels))
    if "tune" in parts:
        chosen = chosen[:TUNING]
    if "small" in parts:
        chosen = np.sort(np.concatenate([chosen[labels[chosen] == c][:SMALL] for c in range(len(CLASSES))]))
    data: Path = DATA
    if parts:
        data = HERE.parent / "runs" / f"fashion-{len(chosen)}.npz"
        data.parent.mkdir(exist_ok=True)
        if not data.exists():
            np.savez(data, arr_0=images[chosen], arr_1=labels[chosen].astype(np.int64))
    reference = (images[TUNING:], labels[TUNING:]) if "tune" in parts else None

    begun = time.time()
    run = train(data, recipe=recipe, out=HERE.parent / "runs" / name, split="none", **given)
    wall = time.time() - begun
    generator = load(run)
    conditional = generator.config.model.conditioning != "none"
    made, asked = generator.sample(n=1000 if conditional else 10_000, seed=1)
    score = judge.score(made, asked if conditional else np.arange(10_000) % 10, reference)
    if not conditional:
        score = {key: value for key, value in score.items() if "frechet" in key}
    if "small" in parts:
        score |= copies(judge, (images[chosen], labels[chosen]), made, asked)
    last = list(read(run / "metrics.jsonl"))[-1]
    line = {
        "row": row, "images_seen": generator.images_seen, "clock": round(last["clock"], 1), "wall": round(wall, 1),
        "score": score,
        "precision": json.loads((run / "config.json").read_text())["precision"],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "commit": commit,
    }  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line))


def read_value(text: str) -> str | bool:
    return {"true": True, "false": False}.get(text, text)


def copies(judge: Judge, learnt: Labelled, made: Images, asked: Labels) -> dict[str, Any]:
    """C_T, and the mean distance to the nearest training image as a share of the test images', by the judge."""
    train_set, test = judge.view(*learnt).features, judge.test.features
    generated = judge.view(made.reshape(len(made), 28, 28), asked).features
    far, held_far = (metrics.nearest(each, train_set)[0].mean().item() for each in (generated, test))
    return {"c_t": round(metrics.c_t(train_set, test, generated).z, 2), "distance_ratio": round(far / held_far, 3)}


if __name__ == "__main__":
    main(sys.argv[1:])
