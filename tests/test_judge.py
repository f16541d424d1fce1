"""The figures of benchmarks/judge.py against closed forms, and its errors."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

import judge
from judge import Judge, JudgeError
from support import raises

BALANCED = np.repeat(np.arange(10), 1000)
BLANK = np.zeros((10_000, 28, 28), np.uint8)


@pytest.fixture(scope="module")
def loaded() -> Judge:
    return Judge.load()


def few(seed: int, a_class: int = 20) -> judge.Labelled:
    """Noise images, each class with its own brightness."""
    labels = np.repeat(np.arange(10), a_class)
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 28, 28))
    return (pixels * (labels[:, None, None] + 1) // 10).astype(np.uint8), labels


def rotation(size: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))[0]


def test_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    blob = bytearray(judge.WEIGHTS.read_bytes())
    blob[-1] ^= 1
    (tmp_path / "judge.safetensors").write_bytes(blob)
    with raises("file-damaged", hashlib.sha256(blob).hexdigest(), judge.SHA256, kind=JudgeError):
        Judge.load(tmp_path / "judge.safetensors")
    with raises("file-unreadable", "absent.safetensors", kind=JudgeError):
        Judge.load(tmp_path / "absent.safetensors")


def test_weights_are_small() -> None:
    assert judge.WEIGHTS.stat().st_size < 2e6


@pytest.mark.parametrize("turn", [torch.eye(16, dtype=torch.float64), rotation(16, 0)], ids=["diagonal", "rotated"])
def test_frechet_of_commuting_gaussians(turn: torch.Tensor) -> None:
    """Covariances with common axes: |gap|^2 + sum (sqrt a - sqrt b)^2, whatever the axes."""
    generator = torch.Generator().manual_seed(1)
    a, b, gap = torch.rand(3, 16, dtype=torch.float64, generator=generator)
    a[:4] = 0  # dead features
    found = judge.frechet(gap, turn @ a.diag() @ turn.T, torch.zeros(16), turn @ b.diag() @ turn.T)
    assert found == pytest.approx(float(gap.square().sum() + (a.sqrt() - b.sqrt()).square().sum()), rel=1e-6)


def test_frechet_of_two_dimensions_that_do_not_commute() -> None:
    """For 2x2, Tr (S1 S2)^1/2 = sqrt(Tr S1 S2 + 2 sqrt det S1 S2), by Cayley and Hamilton."""
    first = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    second = torch.tensor([[1.0, -0.4], [-0.4, 3.0]], dtype=torch.float64)
    product = first @ second
    root = (product.trace() + 2 * product.det().sqrt()).sqrt()
    expected = float(first.trace() + second.trace() - 2 * root)
    zero = torch.zeros(2)
    assert judge.frechet(zero, first, zero, second) == pytest.approx(expected, rel=1e-12)
    assert judge.frechet(zero, second, zero, first) == pytest.approx(expected, rel=1e-12)


def test_frechet_agrees_with_the_matrix_root() -> None:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(2, 400, 24, dtype=torch.float64, generator=generator) @ rotation(24, 3)
    features[1] = features[1] * torch.linspace(0.2, 2, 24) + 0.3
    (mean1, cov1), (mean2, cov2) = judge.gaussian(features[0]), judge.gaussian(features[1])
    root = torch.linalg.eigvals(cov1 @ cov2).real.sqrt().sum()  # of a matrix that is not symmetric: another way
    expected = float((mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * root)
    assert judge.frechet(mean1, cov1, mean2, cov2) == pytest.approx(expected, rel=1e-9)
    assert np.allclose(cov1.numpy(), np.cov(features[0].numpy().T))


def test_spread_counts_every_pair_once() -> None:
    """Points 0, 1, 3 on a line: distances 1, 2, 3."""
    points = torch.tensor([0.0, 1.0, 3.0]).repeat(10)[:, None] * torch.arange(1.0, 11).repeat_interleave(3)[:, None]
    found = judge.spread(points, torch.arange(10).repeat_interleave(3))
    assert torch.allclose(found, 2 * torch.arange(1.0, 11, dtype=torch.float64))


def test_a_set_against_itself(loaded: Judge) -> None:
    view = loaded.view(*few(0))
    figures = judge.compare(view, view)
    assert figures["diversity"] == 1
    assert figures["frechet"] == pytest.approx(0, abs=1e-3)
    assert figures["accuracy"] == figures["accuracy_reference"]
    assert {row["diversity"] for row in figures["per_class"].values()} == {1.0}


def test_a_trailing_channel_and_the_order_of_samples_do_not_matter(loaded: Judge) -> None:
    images, labels = few(1)
    reference = loaded.view(*few(2))
    order = np.random.default_rng(3).permutation(len(labels))
    plain = judge.compare(loaded.view(images, labels), reference)
    other = judge.compare(loaded.view(images[order][..., None], labels[order]), reference)
    assert other["frechet"] == pytest.approx(plain["frechet"], abs=1e-4)
    assert other["accuracy"] == plain["accuracy"]
    assert other["diversity"] == pytest.approx(plain["diversity"], abs=1e-4)


def test_too_few_or_unbalanced_samples_are_refused(loaded: Judge) -> None:
    with raises("wrong-count", 9999, 10000, 1000, kind=JudgeError):
        loaded.score(BLANK[1:], BALANCED[1:])
    with raises("wrong-count", "[1001, 999, 1000", kind=JudgeError):
        loaded.score(BLANK, np.where(np.arange(10_000) == 1000, 0, BALANCED))


@pytest.mark.parametrize(
    ("images", "labels", "code", "fact"),
    [
        (BLANK.astype(np.float32), BALANCED, "wrong-type", "float32"),
        (np.zeros((10_000, 32, 32), np.uint8), BALANCED, "wrong-shape", "[10000, 32, 32]"),
        (BLANK, BALANCED[1:], "wrong-type", "int64 [9999]"),
        (BLANK, BALANCED / 1, "wrong-type", "float64"),
        (BLANK, BALANCED + 1, "value-out-of-range", "1 to 10"),
    ],
)
def test_samples_of_another_kind_are_refused(
    loaded: Judge, images: judge.Images, labels: judge.Labels, code: str, fact: str
) -> None:
    with raises(code, fact, kind=JudgeError):
        loaded.score(images, labels)


def test_a_small_reference_is_refused(loaded: Judge) -> None:
    with raises("wrong-count", 120, 128, kind=JudgeError):
        loaded.score(BLANK, BALANCED, reference=few(0, a_class=12))


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "half.npz", arr_0=BLANK[::2], arr_1=BALANCED[::2])
    np.savez(tmp_path / "nameless.npz", images=BLANK[:1])
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 cut short")
    for name, facts in [
        ("half.npz", ["5000", "[wrong-count]"]),
        ("nameless.npz", ["nameless.npz", "arr_0", "[file-unreadable]"]),
        ("broken.npz", ["broken.npz", "[file-unreadable]"]),
        ("absent.npz", ["absent.npz", "[file-unreadable]"]),
    ]:
        assert judge.main(["score", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert all(fact in error for fact in facts), error
        assert error.count("\n") == 1


def test_the_folder_of_real_images_is_named_where_it_is_missing(tmp_path: Path) -> None:
    with raises("no-images", tmp_path, "dataset-fashion-mnist", kind=JudgeError):
        judge.read_idx(tmp_path, "t10k")
