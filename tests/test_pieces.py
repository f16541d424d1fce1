"""A batch in parts has the gradient of the whole, through batch norm too; and memory that is short is met in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ptarmigan.training as training
from conftest import SMALL
from ptarmigan.files import load_json
from ptarmigan.networks.layers import BatchNorm
from ptarmigan.pieces import backward, forward, parts_of
from ptarmigan.probe import OutOfMemory
from ptarmigan.training import train


def network() -> nn.Module:
    """Three batch norms, one of them met twice."""
    torch.manual_seed(0)
    again = BatchNorm(4)
    layers = [
        nn.Conv2d(2, 4, 3), again, nn.Tanh(), nn.Conv2d(4, 4, 3), again, nn.Tanh(), nn.Conv2d(4, 3, 2),
        BatchNorm(3, running=False), nn.Tanh(),
    ]  # fmt: skip
    net = nn.Sequential(*layers).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) / 2)
    return net


X = torch.randn((7, 2, 8, 8), dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3 + 5
TARGET = torch.randn((7, 3, 3, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_parts_have_the_gradient_and_the_values_of_the_whole(size: int) -> None:
    net, parts = network(), parts_of(7, size)
    x = X.clone().requires_grad_()

    def terms(part: slice) -> dict[str, Tensor]:
        gap = net(x[part]) - TARGET[part]
        return {"square": gap.square().sum() / 7, "sine": gap.sin().sum() / 7}

    whole = backward(terms, parts_of(7, 0), net, [*net.parameters(), x])
    expected = [x.grad, *(parameter.grad for parameter in net.parameters())]
    x.grad = None
    net.zero_grad()
    got = backward(terms, parts, net, [*net.parameters(), x])
    for name in whole:
        torch.testing.assert_close(got[name], whole[name], rtol=1e-12, atol=0)
    for one, other in zip([x.grad, *(parameter.grad for parameter in net.parameters())], expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(forward(lambda part: net(x[part]), parts, net), net(x).detach(), rtol=1e-12, atol=1e-12)
    assert all(m.normalise is None for m in net.modules() if isinstance(m, BatchNorm))


def test_one_part_is_not_the_whole() -> None:
    """The test above can fail: with statistics of its own each part gives another gradient."""
    net = network()

    def gradient(parts: list[slice]) -> Tensor:
        net.zero_grad()
        for part in parts:
            ((net(X[part]) - TARGET[part]).square().sum() / 7).backward()
        return torch.cat([parameter.grad.flatten() for parameter in net.parameters() if parameter.grad is not None])

    assert not torch.allclose(gradient(parts_of(7, 3)), gradient(parts_of(7, 0)), rtol=1e-2)


def test_the_parts_of_a_batch() -> None:
    assert parts_of(7, 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert parts_of(7, 0) == parts_of(7, 7) == parts_of(7, 100) == [slice(0, 7)]


def test_a_network_is_given_back_whole_after_a_failure() -> None:
    net = network()

    def fail(part: slice) -> dict[str, Tensor]:
        net(X[part])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        backward(fail, parts_of(7, 3), net, list(net.parameters()))
    assert all(m.normalise is None for m in net.modules() if isinstance(m, BatchNorm))


# --- memory that is short ---------------------------------------------------------------------------------------


def short(monkeypatch: pytest.MonkeyPatch, most: int, error: Exception, only_in_the_run: bool = False) -> None:
    """Let steps that compute more than `most` images at once run out of memory."""
    real = training.advance

    def advance(state: Any, batches: Any) -> Any:
        if (state.controllers or not only_in_the_run) and (state.micro_batch or 8) > most:
            raise error
        return real(state, batches)

    monkeypatch.setattr(training, "advance", advance)


CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: 9 bytes")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), CPU, MemoryError()])
def test_what_fits_is_found_and_kept(
    error: Exception, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short(monkeypatch, 3, error)
    run = train(shapes, out=tmp_path / "run", **SMALL)
    assert load_json(run / "config.json")["micro_batch"] == 2
    train(shapes, out=run, **{**SMALL, "images": "96"})
    assert load_json(run / "config.json")["micro_batch"] == 2


def test_a_micro_batch_that_does_not_fit_names_the_one_to_try(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short(monkeypatch, 3, CPU)
    with pytest.raises(OutOfMemory, match="out of memory on cpu with 4 images at once: try --micro-batch 2"):
        train(shapes, out=tmp_path / "run", **SMALL, micro_batch=4)
    assert not (tmp_path / "run").exists()
    short(monkeypatch, 0, CPU)
    with pytest.raises(OutOfMemory, match="with 1 images at once: try a smaller --width or --size"):
        train(shapes, out=tmp_path / "run", **SMALL)


def test_memory_that_ends_in_mid_run_is_said_and_another_error_is_not_called_that(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        short(patch, 4, CPU, only_in_the_run=True)
        with pytest.raises(OutOfMemory, match="with 8 images at once: try --micro-batch 4"):
            train(shapes, out=tmp_path / "run", **SMALL)
    train(shapes, out=tmp_path / "run", **SMALL, micro_batch=4)  # the same run may go on in parts
    short(monkeypatch, 0, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        train(shapes, out=tmp_path / "other", **SMALL)
