"""A rival that is not a GAN: class-conditional flow matching, trained for the same time on the same data as `auto`.

    python benchmarks/flow.py flow DATA --time 600s                       train, sample in every way, judge
    python benchmarks/flow.py flow DATA --time 600s --lr 2e-3 --patch 1   with other settings of the model
    python benchmarks/flow.py auto DATA --time 600s                       what it is compared with, judged alike;
                                                                          so is any other recipe

DATA is what `ptarmigan train` takes; `embedded` is the embedded set.  Both train on the train part of the same split
and are judged by `ptarmigan score`: KID against held-out images with the interval, and the class accuracy.  A UNet of
about the weights of auto's G and D together learns v(x, t, class) = x1 - x0 at x = (1 - t) x0 + t x1, with noise x0 and
images x1 (Lipman et al. 2023, 2210.02747; Liu et al. 2023, 2209.03003).  Samples are solutions of dx/dt = v from t = 0
to 1 by Euler's or Heun's method, with classifier-free guidance (Ho and Salimans 2022, 2207.12598).

Writes one JSON line for each way of sampling, with the milliseconds of a sample, in batches and alone.  A row that is
in the results already is not run again.  A timed row needs the machine to itself.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ptarmigan import load, score, train
from ptarmigan.config import Data, resolve
from ptarmigan.config.values import parse_time
from ptarmigan.core.types import ImageSpec
from ptarmigan.data import Dataset, open_dataset
from ptarmigan.data.batches import Batches
from ptarmigan.game.optim import update_ema
from ptarmigan.generator.generator import TrainedGenerator, image_grid, save_png, to_uint8
from ptarmigan.networks import build, without_weights
from quality import append, is_done, provenance

HERE = Path(__file__).parent
RUNS = HERE.parent / "runs"
SETS, PER_SET = 3, 500  # images that are judged
AT_ONCE = 100  # images in one call of the network when sampling
DROPPED = 0.1  # share of the classes that training hides, for guidance
GROUPS = 8  # of group norm
LEAST_SIDE = 7  # of the smallest map
HALF_LIFE = 0.05  # of the moving average, as a share of the images seen so far


# --- the network ------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """x + two 3x3 convolutions, the second of a map that is scaled and shifted by what is known of t and the class."""

    def __init__(self, inputs: int, outputs: int, known: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, channels) for channels in (inputs, outputs))
        self.first, self.second = (nn.Conv2d(c, outputs, 3, padding=1) for c in (inputs, outputs))
        self.modulate = nn.Linear(known, 2 * outputs)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        inside = self.first(F.silu(self.norms[0](x)))
        scale, shift = self.modulate(known)[:, :, None, None].chunk(2, 1)
        out: Tensor = self.shortcut(x) + self.second(F.silu(self.norms[1](inside) * (1 + scale) + shift))
        return out


class Attention(nn.Module):
    """x + self-attention over the places of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.within = nn.MultiheadAttention(channels, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        places = self.norm(x).flatten(2).transpose(1, 2)
        seen, _ = self.within(places, places, places, need_weights=False)
        return x + seen.transpose(1, 2).reshape(x.shape)


class UNet(nn.Module):
    """x [N, C, H, W], t [N] in [0, 1], labels [N], where the number of classes means none -> velocity [N, C, H, W]."""

    def __init__(self, spec: ImageSpec, width: int, patch: int) -> None:
        super().__init__()
        self.patch, self.width, known = patch, width, 4 * width
        places, side = spec.channels * patch**2, min(spec.height, spec.width) // patch
        channels = [width]
        while side % 2 == 0 and side // 2 >= LEAST_SIDE:
            side //= 2
            channels.append(min(2 * channels[-1], 4 * width))
        self.multiple = patch * 2 ** (len(channels) - 1)  # of the sides of the images
        self.time = nn.Sequential(nn.Linear(width, known), nn.SiLU(), nn.Linear(known, known))
        self.classes = nn.Embedding(spec.classes + 1, known)
        self.enter = nn.Conv2d(places, width, 3, padding=1)
        pairs = list(zip([width, *channels], channels, strict=False))
        self.down = nn.ModuleList(Residual(a, b, known) for a, b in pairs)
        self.middle = nn.ModuleList([Residual(channels[-1], channels[-1], known), Attention(channels[-1])])
        self.up = nn.ModuleList(Residual(2 * b, a, known) for a, b in reversed(pairs))
        self.leave = nn.Sequential(nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Conv2d(width, places, 3, padding=1))
        nn.init.zeros_(self.leave[2].weight)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        rates = torch.exp(-math.log(1e4) * torch.arange(self.width // 2, device=x.device) / (self.width // 2))
        angles = 1000 * t[:, None] * rates
        known = F.silu(self.time(torch.cat([angles.cos(), angles.sin()], 1)) + self.classes(labels))
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple), "replicate")
        x = self.enter(F.pixel_unshuffle(x, self.patch))
        kept = []
        for stage, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if stage else x, known)
            kept.append(x)
        x = self.middle[1](self.middle[0](x, known))
        for stage, block in enumerate(self.up):
            x = block(torch.cat([x, kept.pop()], 1), known)
            x = F.interpolate(x, scale_factor=2) if stage < len(self.up) - 1 else x
        return F.pixel_shuffle(self.leave(x), self.patch)[:, :, :height, :width]


def weights_in(*networks: nn.Module) -> int:
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def matching_width(spec: ImageSpec, patch: int) -> int:
    """The width of a UNet with about as many weights as auto's G and D have together for such images."""
    with without_weights():
        wanted = weights_in(*build(spec, resolve({}).model, 0))
        return min(range(16, 129, 8), key=lambda width: abs(weights_in(UNet(spec, width, patch)) - wanted))


# --- training and sampling --------------------------------------------------------------------------------------


def flow_loss(network: UNet, images: Tensor, labels: Tensor) -> Tensor:
    """The squared error of the velocity from noise to images [N, C, H, W], at a random time of each."""
    t = torch.sigmoid(torch.randn(len(images), device=images.device))  # most errors are made in the middle
    noise = torch.randn_like(images)
    hidden = torch.where(
        torch.rand(len(images), device=images.device) < DROPPED, network.classes.num_embeddings - 1, labels
    )
    velocity = network(noise + t[:, None, None, None] * (images - noise), t, hidden)
    return F.mse_loss(velocity.float(), images - noise)


def fit(dataset: Dataset, settings: argparse.Namespace, device: torch.device) -> tuple[UNet, dict[str, Any]]:
    """Train for `settings.time`; returns the moving average of the network, and what was seen."""
    torch.manual_seed(settings.seed)
    spec, patch = dataset.spec, settings.patch or (1 if max(dataset.spec.height, dataset.spec.width) <= 32 else 2)
    width = settings.width or matching_width(spec, patch)
    network = UNet(spec, width, patch).to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(network)
    adam = torch.optim.Adam(network.parameters(), settings.lr, betas=(0.9, 0.99), fused=device.type == "cuda")
    bf16 = torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16)
    budget, begun, seen, losses, told = parse_time(settings.time), time.monotonic(), 0, [], 0.0
    assert budget
    with Batches(
        dataset.images, dataset.labels, dataset.indices(), batch=settings.batch, seed=settings.seed, flip=settings.flip,
        device=device,
    ) as batches:  # fmt: skip
        while (done := (time.monotonic() - begun) / budget) < 1:
            batch = batches.load(seen)
            images, labels = batch.images, batch.labels.to(device)
            with bf16:
                loss = flow_loss(network, images, labels)
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            rate = settings.lr * min(1, (seen + settings.batch) / 5000) * min(1, 2 * (1 - done))  # as auto: falls to 0
            for group in adam.param_groups:
                group["lr"] = rate
            adam.step()
            seen += len(images)
            update_ema(average, network, 0.5 ** (len(images) / (HALF_LIFE * seen)))
            losses.append(loss.detach())
            if time.monotonic() - told > 5:
                told, recent = time.monotonic(), torch.stack(losses[-100:]).mean()
                print(f"{done:4.0%}  {seen:,} images  loss {recent:.4f}", flush=True)
    tenths = [round(float(part.mean()), 4) for part in torch.stack(losses).tensor_split(10)]
    return average.eval(), {
        "images_seen": seen, "clock": round(time.monotonic() - begun, 1), "width": width, "patch": patch,
        "weights": weights_in(network), "losses": tenths,
    }  # fmt: skip


@torch.no_grad()
def solve(network: UNet, x: Tensor, labels: Tensor, method: str, steps: int, guidance: float) -> Tensor:
    """Follow the velocity from noise x [N, C, H, W] at t = 0 to images at t = 1."""

    def velocity(x: Tensor, t: float) -> Tensor:
        times = torch.full((len(x),), t, device=x.device)
        if guidance == 1:
            return network(x, times, labels)
        none = torch.full_like(labels, network.classes.num_embeddings - 1)
        both = network(torch.cat([x, x]), torch.cat([times, times]), torch.cat([labels, none]))
        conditional, free = both.chunk(2)
        return free + guidance * (conditional - free)

    for step in range(steps):
        begin, end = step / steps, (step + 1) / steps
        slope = velocity(x, begin)
        ahead = x + slope / steps
        x = ahead if method == "euler" else x + (slope + velocity(ahead, end)) / (2 * steps)
    return x


Sampler = Callable[[NDArray[np.int64]], NDArray[np.uint8]]  # labels [N] -> images uint8 [N, H, W, C]


def flow_sampler(network: UNet, spec: ImageSpec, method: str, steps: int, guidance: float) -> Sampler:
    device = next(network.parameters()).device

    def sample(labels: NDArray[np.int64]) -> NDArray[np.uint8]:
        draw = torch.Generator().manual_seed(1)
        parts = []
        for some in torch.from_numpy(labels).to(device).split(AT_ONCE):
            noise = torch.randn(len(some), spec.channels, spec.height, spec.width, generator=draw).to(device)
            parts.append(to_uint8(solve(network, noise, some, method, steps, guidance)))
        return np.concatenate(parts)

    return sample


def gan_sampler(generator: TrainedGenerator) -> Sampler:
    device = next(generator.network.parameters()).device

    @torch.no_grad()
    def sample(labels: NDArray[np.int64]) -> NDArray[np.uint8]:
        parts = zip(
            generator.latents(len(labels), 1).to(device).split(AT_ONCE),
            torch.from_numpy(labels).to(device).split(AT_ONCE),
            strict=True,
        )
        return np.concatenate([to_uint8(generator.network(z, some)) for z, some in parts])

    return sample


# --- judging ----------------------------------------------------------------------------------------------------


def judged(sample: Sampler, dataset: Dataset, size: str | None, out: Path) -> dict[str, Any]:
    """The scores of samples whose classes are as frequent as those of the training images, and their cost."""
    spec = dataset.spec
    known = dataset.labels[dataset.indices()]
    labels = np.sort(known[np.linspace(0, len(known) - 1, SETS * PER_SET).astype(np.int64)])
    labels = np.random.default_rng(0).permutation(labels)
    begun = time.perf_counter()
    images = sample(labels)
    of_batch = time.perf_counter() - begun
    begun = time.perf_counter()
    for label in range(3):
        sample(np.array([label % spec.classes]))
    alone = (time.perf_counter() - begun) / 3
    out.parent.mkdir(parents=True, exist_ok=True)
    shown = np.repeat(np.arange(min(spec.classes, 12)), 8)
    save_png(image_grid(sample(shown), 8), out.with_suffix(".png"))
    np.savez(out, arr_0=images, arr_1=labels, class_names=np.array(spec.class_names))
    report = score(out, dataset, n=PER_SET, seeds=SETS, size=size)
    accuracy = report.accuracy
    return {
        "kid": report.figures["kid"]["held_out"],
        "accuracy": accuracy and {key: value for key, value in accuracy.items() if key != "cas"},
        "variety": report.variety,
        "ms_of_a_batch": round(1000 * of_batch / len(images), 3),
        "ms_alone": round(1000 * alone, 2),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="flow, or a recipe of `ptarmigan train`")
    parser.add_argument("data", help="what `ptarmigan train` takes, or embedded")
    parser.add_argument("--time", default="600s")
    parser.add_argument("--size", help="HxW of the images; default: as `ptarmigan train` chooses")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate of Adam")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, help="of the UNet; default: about the weights of auto's G and D together")
    parser.add_argument("--patch", type=int, help="pixels of a side that are one place; default: 1 up to 32x32, else 2")
    parser.add_argument("--flip", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--methods", nargs="+", choices=("euler", "heun"), default=["euler", "heun"])
    parser.add_argument("--steps", nargs="+", type=int, default=[8, 16, 32, 64])
    parser.add_argument("--guidance", nargs="+", type=float, default=[1.0, 1.5, 2.5])
    parser.add_argument("--results", type=Path, default=HERE / "results" / "flow.jsonl")
    return parser.parse_args()


def main() -> None:
    settings = arguments()
    of_model = ("lr", "batch", "width", "patch", "bf16") if settings.model == "flow" else ()
    row = {key: getattr(settings, key) for key in ("model", "data", "time", "size", "seed", "flip", *of_model)}
    row |= {"data": Path(settings.data).stem, "threads": torch.get_num_threads()}
    ways: list[dict[str, Any]] = [{}]
    if settings.model == "flow":
        every = product(settings.methods, settings.steps, settings.guidance)
        ways = [{"method": method, "steps": steps, "guidance": guidance} for method, steps, guidance in every]
    ways = [way for way in ways if not is_done(row | way, settings.results)]
    if not ways:
        print(f"already in {settings.results}: {row}")
        return
    data = None if settings.data == "embedded" else Path(settings.data)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = "-".join(["flow", *(f"{key}={value}" for key, value in row.items() if value not in (None, False))])
    if settings.model == "flow":
        dataset = open_dataset(data, Data(size=settings.size))
        network, seen = fit(dataset, settings, device)
    else:
        options = {"size": settings.size, "time": settings.time, "seed": settings.seed, "flip": settings.flip}
        options["recipe"] = settings.model
        generator = load(train(data, out=RUNS / name, **options))
        dataset = open_dataset(data, generator.config.data)
        rows = map(json.loads, (RUNS / name / "metrics.jsonl").read_text().splitlines())
        last = [row for row in rows if "clock" in row][-1]
        seen = {"images_seen": last["images_seen"], "clock": round(last["clock"], 1)}
    for way in ways:
        sample = flow_sampler(network, dataset.spec, **way) if settings.model == "flow" else gan_sampler(generator)
        out = RUNS / "-".join([name, *map(str, way.values()), "samples.npz"])
        line = {"row": row | way, **seen, **judged(sample, dataset, settings.size, out), **provenance()}
        append(line, settings.results)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
