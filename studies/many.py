"""Quality of many configs at once on one CUDA device: each trains by recorded steps on its own stream.

    python studies/many.py CONFIGS.json [--out ROWS.jsonl] [--at-once 8] [--seconds 300]

CONFIGS.json is a list of [name, fields]; the fields of each include `images`.  A name that starts with "test" trains on
the 60,000 and is judged on the 10,000 test images; any other trains on the first 50,000 and is judged on the other
10,000.  The small kernels of one run leave most of a GPU idle, so eight runs take hardly longer than one.

Latents and positions in the data are drawn on the device by a seed and not by address, so that the host keeps up with
eight runs.  A row is therefore a run like that of `train`, but not the same run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptarmigan.config import resolve
from ptarmigan.config.values import parse_images
from ptarmigan.core import seeding
from ptarmigan.core.types import Batch, ImageSpec
from ptarmigan.data.batches import to_float
from ptarmigan.game.cuda_graph import GraphStep
from ptarmigan.game.optim import ema_decay, learning_rate, set_rate, update_ema
from ptarmigan.game.state import TrainState
from ptarmigan.networks.layers import recalibrate_batch_norm

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from judge import CLASSES, DATA, Judge, Labelled, read_idx

CUDA = torch.device("cuda")
SPEC = ImageSpec(28, 28, 1, CLASSES)
TUNING = 50_000


class Job:
    """The training of one config: images [M, 28, 28, 1] uint8 and labels [M] on the device."""

    def __init__(self, name: str, fields: dict[str, Any], images: Tensor, labels: Tensor) -> None:
        self.name, self.fields, self.images, self.labels = name, fields, images, labels
        self.config = resolve(fields)
        self.state = TrainState.create(self.config, SPEC, CUDA)
        self.end = parse_images(self.config.train.images) or 0
        self.by, self.stream = GraphStep(), torch.cuda.Stream()
        self.drawn = torch.Generator(CUDA).manual_seed(1000 + self.config.train.seed)

    def step(self) -> None:
        state, train = self.state, self.config.train
        with torch.cuda.stream(self.stream):
            for optimizer, lr in ((state.opt_d, train.d_lr), (state.opt_g, train.g_lr)):
                set_rate(optimizer, learning_rate(lr, state.images_seen, 0, self.end, train.anneal))
            at = torch.randint(len(self.labels), (train.batch,), device=CUDA, generator=self.drawn)
            z = torch.randn(train.batch, self.config.model.latent_dim, device=CUDA, generator=self.drawn)
            self.by(state, Batch(to_float(self.images[at]), self.labels[at]), z, None)
            half_life = state.now(train.ema_half_life)
            update_ema(state.ema, state.G, ema_decay(state.images_seen, train.batch, half_life))
            state.images_seen += train.batch

    @torch.no_grad()
    def sample(self) -> Labelled:
        """Sample 1,000 images of each class."""
        model, G = self.config.model, self.state.ema if self.config.train.ema_half_life else self.state.G

        def z(purpose: str, first: int) -> Tensor:
            return seeding.latents(0, purpose, np.arange(first, first + 500), model.latent_dim, model.latent).to(CUDA)

        recalibrate_batch_norm(G, [(z("settle", 500 * i), torch.arange(500, device=CUDA) % 10) for i in range(20)])
        G.eval()
        labels = torch.arange(10_000, device=CUDA) // 1000
        parts = [G(z("sample", 500 * i), labels[500 * i : 500 * i + 500]) for i in range(20)]
        images = ((torch.cat(parts) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)[:, 0]
        return images.cpu().numpy(), labels.cpu().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", type=Path, metavar="CONFIGS.json")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "many.jsonl")
    parser.add_argument("--at-once", type=int, default=8, help="runs that train side by side")
    parser.add_argument("--seconds", type=float, default=300.0, help="stop after this time")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("needs a CUDA device")
    queue: list[tuple[str, dict[str, Any]]] = [
        (name, fields) for name, fields in json.loads(arguments.configs.read_text())
    ]
    judge, (pixels, classes) = Judge.load(data=DATA), read_idx(DATA, "train")
    images, labels = torch.from_numpy(pixels[..., None]).to(CUDA), torch.from_numpy(classes).to(CUDA)
    split = pixels[TUNING:], classes[TUNING:]
    jobs: list[Job] = []
    begun = time.perf_counter()
    while (queue or jobs) and time.perf_counter() - begun < arguments.seconds:
        while queue and len(jobs) < arguments.at_once:
            name, fields = queue.pop(0)
            some = slice(None if name.startswith("test") else TUNING)
            jobs.append(Job(name, fields, images[some], labels[some]))
        for job in list(jobs):
            job.step()
            if job.state.images_seen >= job.end:
                jobs.remove(job)
                torch.cuda.synchronize()
                score = judge.score(*job.sample(), None if job.name.startswith("test") else split)
                row = {"name": job.name, "fields": job.fields, "images_seen": job.state.images_seen, "score": score}
                with arguments.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(job.name, f"{score['frechet']:.2f} {score['accuracy']:.3f} {score['diversity']:.3f}", flush=True)
    for left in [*(job.name for job in jobs), *(name for name, _ in queue)]:
        print(f"not finished in time: {left}")


if __name__ == "__main__":
    main()
