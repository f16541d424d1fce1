"""Quality on Fashion-MNIST at 28x28 against time: train, sample 1,000 a class, ask the judge, one JSON line a row.

    python benchmarks/fashion.py auto --time 60s                    trained on the 60,000, judged on the 10,000
    python benchmarks/fashion.py acgan --time 600s --g-lr 1e-4      any field of the config by its flag
    python benchmarks/fashion.py --tune acgan --time 200s           trained on 50,000, judged on the other 10,000

A row that stands in the results already is not run again.  Only steps count as time; a timed row wants the machine
to itself.  `dcgan` knows no classes: its accuracy and diversity say nothing and are left out.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from judge import DATA, Judge, read_idx
from ptarmigan import load, train
from ptarmigan.config import resolve
from ptarmigan.log import read

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "fashion.jsonl"
TUNING = 50_000  # training images that a tuning run sees; it is judged on the rest of the 60,000


def main(arguments: list[str]) -> None:
    tune = "--tune" in arguments
    recipe, *flags = [argument for argument in arguments if argument != "--tune"]
    given = {flag[2:].replace("-", "_"): value for flag, value in zip(flags[::2], flags[1::2], strict=True)}
    resolve({"recipe": recipe, **given})
    row = {"tune": tune, "recipe": recipe, **given}
    done = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    if any(line["row"] == row for line in done):
        print(f"stands in {RESULTS} already: {row}")
        return
    name = "-".join(["tune" if tune else "full", recipe, *(f"{key}={value}" for key, value in given.items())])
    judge = Judge.load()
    reference = None
    data: Path = DATA
    if tune:
        images, labels = read_idx(DATA, "train")
        data, reference = HERE.parent / "runs" / "fashion-50k.npz", (images[TUNING:], labels[TUNING:])
        data.parent.mkdir(exist_ok=True)
        if not data.exists():
            np.savez(data, arr_0=images[:TUNING], arr_1=labels[:TUNING].astype(np.int64))
    begun = time.time()
    run = train(data, recipe=recipe, out=HERE.parent / "runs" / name, split="none", **given)
    wall = time.time() - begun
    generator = load(run)
    conditional = generator.config.model.conditioning != "none"
    images, labels = generator.sample(n=1000 if conditional else 10_000, seed=1)
    score = judge.score(images, labels if conditional else np.arange(10_000) % 10, reference)
    if not conditional:
        score = {key: value for key, value in score.items() if "frechet" in key}
    last = list(read(run / "metrics.jsonl"))[-1]
    line = {
        "row": row, "images_seen": generator.images_seen, "clock": round(last["clock"], 1), "wall": round(wall, 1),
        "score": score,
        "precision": json.loads((run / "config.json").read_text())["precision"],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "commit": subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip(),
    }  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line))


if __name__ == "__main__":
    main(sys.argv[1:])
