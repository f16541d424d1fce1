"""Run by test_ranks.py, alone or under torchrun: some steps of the game in float64, from a state and to a state.

ranks_worker.py DATA STEPS FROM|- TO RECIPE...     (FROM and TO: folders with RECIPE.safetensors)
ranks_worker.py hang DATA RUN                      (train with a short timeout)
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn

import ptarmigan.game.batch as advance_module
from ptarmigan.config import resolve
from ptarmigan.core import dist
from ptarmigan.core.tensor_files import load_tensors, save_tensors
from ptarmigan.core.types import Batch
from ptarmigan.data import open_dataset
from ptarmigan.game.batch import train_batch
from ptarmigan.game.state import TrainState
from ptarmigan.losses.custom import open_loss
from ptarmigan.training.loop import train
from ptarmigan.training.setup import train_batches

SMALL: dict[str, Any] = dict(width=4, batch=8, images="1M", precision="fp32", latent_dim=6, class_dim=4, split="none")
GAMES: dict[str, dict[str, Any]] = {  # without batch norm, so that parts of a batch give the same trajectory
    "wgan-gp": {
        "network": "r3gan",
        "loss": "wasserstein",
        "gradient_penalty": 10,
        "r1": 0,
        "r2": 0,
        "d_steps": 2,
        "flip": True,
        "balance": True,
        "augment": "diffaugment",
        "augment_p": "0..1",
        "g_betas": (0, "0.99..0.95"),
        "ema_half_life": "0.2..1.5",
    },
    "ada": {"network": "r3gan", "augment": "ada", "loss": "non_saturating"},
    "lecam": {"network": "r3gan", "loss": str(Path(__file__).parent.parent / "examples" / "lecam.py"), "d_steps": 2},
    "r3gan": {"network": "r3gan", "r1": "0.2..0"},
}
WHOLE: dict[str, dict[str, Any]] = {  # batch norm or a loss that sees the whole batch
    "auto": {},
    "dcgan": {"recipe": "dcgan"},
    "acgan": {"recipe": "acgan"},
    "sngan": {"network": "resnet", "d_norm": "spectral", "loss": "hinge", "r1": 0, "r2": 0},
    "reacgan": {"conditioning": "reacgan", "class_margin": 0.1},
}


def in_float64(network: nn.Module) -> None:
    network.double()

    def cast(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in arguments)

    network.register_forward_pre_hook(cast)


def real_batch(*arguments: Any) -> Batch:
    """The shipped one's images in float64, so that penalties are too."""
    batch = SHIPPED(*arguments)
    return Batch(batch.images.double(), batch.labels)


SHIPPED = advance_module.real_batch


def play(name: str, data: Path, steps: int, begin: str, to: Path) -> None:
    config, loss_file = open_loss(resolve({**SMALL, **(GAMES | WHOLE)[name]}))
    dataset = open_dataset(data, config.data, lambda *_: None)
    state = TrainState.create(config, dataset.spec, torch.device("cpu"), loss_file=loss_file)
    state.progress.ends = [400]  # ramps are on their way
    state.micro_batch = int(os.environ.get("MICRO_BATCH", "0"))
    for network in (state.G, state.D, state.ema):
        in_float64(network)
    for average in loss_file.averages if loss_file else ():
        state.device_scalars[average] = state.device_scalars[average].double()
    if begin != "-":
        tensors, meta = load_tensors(Path(begin) / f"{name}.safetensors")
        state.load(tensors)
        state.images_seen = meta["images_seen"]
    elif "augment_p" in state.device_scalars:
        state.device_scalars["augment_p"].fill_(0.5)
    with train_batches(config, dataset, state.device) as batches:
        terms = [train_batch(state, batches) for _ in range(steps)]
    assert not state.found_inf
    if dist.rank() == 0:
        out = state.tensors() | {f"term.{key}": value for key, value in terms[-1].items()}
        save_tensors(to / f"{name}.safetensors", out, {"images_seen": state.images_seen})


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "hang":
        dist.TIMEOUT, dist.PATIENCE, dist.LOOK = timedelta(seconds=5), 1.0, 0.1
        train(sys.argv[2], out=sys.argv[3], **{**SMALL, "snapshots": 100_000})
    else:
        data, steps, begin, to, *names = sys.argv[1:]
        advance_module.real_batch = real_batch
        with dist.ranks(torch.device("cpu")):
            for name in names:
                play(name, Path(data), int(steps), begin, Path(to))
