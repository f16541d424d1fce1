"""The value of a warm start on 1,000 images: `train --from` compared with training from scratch, by the judge.

    python benchmarks/finetune.py                            every row that is not in the results yet
    python benchmarks/finetune.py --images 30k --seeds 0     one budget, one seed
    python benchmarks/finetune.py --g-lr 1e-3 --d-lr 1e-3    any config field of the three runs by its flag

One run trains on eight classes of the first 50,000 training images of Fashion-MNIST.  Then three runs train on 100
images of each of all ten classes, taken from the other 10,000, over the same budget: `cold` from scratch, `generator`
from the first run's G, `run` from its G and D.  Each is judged once, 1,000 images a class, against the 10,000 test
images.  The two classes that the first run has not seen are also reported apart.  Writes one JSON line a row.  Budgets
are numbers of images, so other work on the machine does not matter.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from judge import CLASSES, DATA, PER_CLASS, Judge, read_idx
from ptarmigan import load, train
from quality import append, config_fields, is_done, provenance

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "finetune.jsonl"
RUNS = HERE.parent / "runs"
UNSEEN = ("Dress", "Ankle boot")
FIRST = 50_000  # training images from which the first run takes its classes
EACH = 100  # images of each class, from the rest, to fine-tune on
ARMS = ("cold", "generator", "run")


def data_sets() -> tuple[Path, Path]:
    """The data of the first run and of the three others, as .npz files that are written once."""
    before, after = RUNS / "finetune-before.npz", RUNS / "finetune-1000.npz"
    if not (before.exists() and after.exists()):
        RUNS.mkdir(exist_ok=True)
        images, labels = read_idx(DATA, "train")
        known = np.flatnonzero([name not in UNSEEN for name in CLASSES])
        rows = np.flatnonzero(np.isin(labels[:FIRST], known))
        few = FIRST + np.concatenate([np.flatnonzero(labels[FIRST:] == label)[:EACH] for label in range(len(CLASSES))])
        renumbered = np.searchsorted(known, labels[rows])
        names = np.array(CLASSES)
        np.savez(before, arr_0=images[rows], arr_1=renumbered.astype(np.int64), class_names=names[known])
        np.savez(after, arr_0=images[few], arr_1=labels[few].astype(np.int64), class_names=names)
    return before, after


def measure(row: dict[str, Any], before: Path, after: Path, given: dict[str, str]) -> dict[str, Any]:
    """Train the run of a row, or resume it, and judge it."""
    first = train(before, out=RUNS / f"finetune-before-{row['before']}", images=row["before"], split="none")
    init = {"cold": None, "generator": first / "generator", "run": first}[row["arm"]]
    name = "-".join(["finetune", *(f"{key}={value}" for key, value in row.items())])
    run = train(after, out=RUNS / name, init=init, images=row["images"], seed=row["seed"], split="none", **given)
    images, labels = load(run).sample(n=PER_CLASS, seed=1)
    score = Judge.load(data=DATA).score(images, labels)
    taken = json.loads((run / "config.json").read_text())["init"]
    return {
        "row": row,
        "taken": taken and round(taken["copied_share"], 4),
        "score": score,
        "unseen": {name: score["per_class"][name] for name in UNSEEN},
        **provenance(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--before", default="400k", help="budget of the first run, in images")
    parser.add_argument("--images", nargs="+", default=["10k", "30k", "100k"], help="budgets of the three")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments, rest = parser.parse_known_args()
    given = config_fields(rest)
    before, after = data_sets()
    for seed in arguments.seeds:
        for images in arguments.images:
            for arm in arguments.arms:
                row = {"before": arguments.before, "arm": arm, "images": images, "seed": seed, **given}
                if is_done(row, arguments.results):
                    continue
                line = measure(row, before, after, given)
                append(line, arguments.results)
                score = line["score"]
                print(
                    f"{row}: Fréchet {score['frechet']}, accuracy {score['accuracy']}, diversity {score['diversity']}"
                )


if __name__ == "__main__":
    main()
