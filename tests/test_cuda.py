"""What holds on a CUDA device; where there is none, nothing here is tested, and the summary says so."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import SMALL
from ptarmigan import load, train
from ptarmigan.config import resolve
from ptarmigan.core.devices import deterministic
from ptarmigan.core.types import ImageSpec
from ptarmigan.data.batches import Batches
from ptarmigan.game.batch import eager_step, train_batch
from ptarmigan.game.cuda_graph import GraphStep
from ptarmigan.game.state import TrainState
from ptarmigan.training.signals import Stopped
from support import interrupt_at

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

SPEC = ImageSpec(20, 16, 3, ("a", "b", "c"))
KINDS: dict[str, dict[str, Any]] = {
    "auto": {},
    "dcgan": {"recipe": "dcgan"},
    "spectral": {"d_norm": "spectral", "loss": "hinge", "r1": 0, "r2": 0},
    "r3gan": {"network": "r3gan"},
    "wgan-gp": {"loss": "wasserstein", "r1": 0, "r2": 0, "gradient_penalty": 10},
}


def made(device: str, **given: Any) -> tuple[TrainState, Batches]:
    """A small state of step 0 and its batches."""
    config = resolve({"width": 8, "batch": 8, "images": "1M", "latent_dim": 6, "class_dim": 4, **given})
    images = np.random.default_rng(0).integers(0, 256, (50, 20, 16, 3), np.uint8)
    batches = Batches(images, np.arange(50) % 3, np.arange(5, 50), batch=8, seed=0, flip=True, device=device)
    return TrainState.create(config, SPEC, torch.device(device)), batches


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_the_cpus(kind: str) -> None:
    found = []
    for device in ("cpu", "cuda"):
        state, batches = made(device, **KINDS[kind])
        with batches, torch.backends.cudnn.flags(allow_tf32=False):
            found.append({name: value.item() for name, value in train_batch(state, batches).items()})
    assert found[1] == pytest.approx(found[0], rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_recorded_step_does_what_a_played_one_does_bit_for_bit(kind: str) -> None:
    digests = []
    with deterministic(True):
        for by in (eager_step, GraphStep()):
            state, batches = made("cuda", **KINDS[kind])
            with batches:
                for _ in range(40):
                    train_batch(state, batches, by)
            digests.append(state.digest())
            if isinstance(by, GraphStep):
                assert set(by.recorded) == ({True, False} if state.config.loss.penalty_every > 1 else {True})
    assert digests[0] == digests[1]


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_the_host_waits_for_nothing_between_ticks() -> None:
    for by in (eager_step, GraphStep()):
        state, batches = made("cuda")
        with batches:
            step = partial(train_batch, state, batches, by)
            for _ in range(20):
                step()
            torch.cuda.set_sync_debug_mode("error")
            try:
                for _ in range(20):
                    step()
            finally:
                torch.cuda.set_sync_debug_mode("default")


def test_images_on_the_device_are_those_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    host, there = made("cpu")[1], made("cuda")[1]
    assert there.resident is not None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 10))
    elsewhere = made("cuda")[1]
    assert elsewhere.resident is None
    for batches in (there, elsewhere):
        for at in (0, 8, 40):
            torch.testing.assert_close(batches.load(at).images.cpu(), host.load(at).images, rtol=0, atol=2e-7)
            assert torch.equal(batches.load(at).labels.cpu(), host.load(at).labels)
    for batches in (host, there, elsewhere):
        batches.close()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_run_ends_as_a_whole_one(
    precision: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = SMALL | dict(device="cuda", deterministic=True, precision=precision, images="320", live_images=0)
    whole = train(shapes, out=tmp_path / "whole", **given)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 240)
        with pytest.raises(Stopped):
            train(shapes, out=tmp_path / "parts", **given)
    parts = train(shapes, out=tmp_path / "parts", **given)
    file = "generator/model.safetensors"
    assert (whole / file).read_bytes() == (parts / file).read_bytes()
    images, labels = load(parts).sample("blot", n=4, seed=3)
    assert images.shape == (4, 16, 16, 1)
    assert labels.tolist() == [2] * 4
