"""`invert` and `directions`: what a generator drew is found again, and directions change what they say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ptarmigan.commands.directions as commands
from ptarmigan import directions, interpolate, invert, sample
from ptarmigan.core.tensor_files import load_tensors
from ptarmigan.evaluation.features import EXTRACTORS
from ptarmigan.generator import inversion
from ptarmigan.generator.directions import all_named, closed_form, learn, shift_of
from ptarmigan.generator.generator import TrainedGenerator, image_grid, save_png
from ptarmigan.generator.inversion import invert_images
from ptarmigan.generator.points import Points, images_at, save_rows
from support import call, raises, random_projection
from test_export import NAMES, generator_of


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features that cost nothing, and few steps."""
    monkeypatch.setitem(EXTRACTORS, "efficientnet-lite0", lambda weights: random_projection())
    for name in ("FROM_STARTS", "FROM_BEST", "WITH_FEATURES"):
        monkeypatch.setattr(inversion, name, getattr(inversion, name)._replace(steps=3))


def invert_here(generator: TrainedGenerator, images: Any, seconds: float = 600) -> inversion.Found:
    return invert_images(generator, random_projection(), images, seconds, lambda *_: None)


def image_file(path: Path, generator: TrainedGenerator, label: str | None = None, seed: int = 9) -> Path:
    save_png(image_grid(generator.sample(label, 1, seed)[0], 1, gap=0), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dcgan", "blocks", "unconditional"])
def test_images_that_the_generator_drew_are_found_again(kind: str, tmp_path: Path) -> None:
    generator = generator_of(tmp_path, kind)
    images, labels = generator.sample(None, 2, seed=9)
    found = invert_here(generator, images)
    assert found.in_time
    assert np.median(found.pixels) < 3
    assert max(found.pixels) < 25  # another minimum
    best = np.argmin(found.pixels)
    assert found.features[best] < 0.1
    torch.testing.assert_close(found.points.classes.sum(1), torch.ones(len(images)))
    if kind != "unconditional":
        assert found.points.classes[best].argmax() == labels[best]
        assert found.points.classes[best].max() > 0.8
        assert found.classes is not None
    if kind == "blocks":  # uniform latents
        assert found.points.z.abs().max() <= 1
    drawn = images_at(generator.network, found.points).detach().add(1).mul(127.5).round().clamp(0, 255)
    assert np.abs(drawn.permute(0, 2, 3, 1).numpy() - found.images).max() <= 1


def test_a_search_ends_when_its_time_is_over(tmp_path: Path) -> None:
    generator = generator_of(tmp_path, "dcgan")
    found = invert_here(generator, generator.sample(NAMES[0], 1)[0], seconds=0)
    assert not found.in_time
    assert np.isfinite(found.pixels).all()


def test_latents_stay_among_those_that_sample_could_draw() -> None:
    z = torch.tensor([[30.0, 40.0], [3.0, 0.0]])
    uniform = z.clone()
    inversion.keep_usual(z, "normal")
    longest = math.sqrt(2) + inversion.BEYOND
    torch.testing.assert_close(z, torch.tensor([[0.6 * longest, 0.8 * longest], [3.0, 0.0]]))
    inversion.keep_usual(uniform, "uniform")
    assert uniform.tolist() == [[1, 1], [1, 0]]


@pytest.mark.usefixtures("quick")
def test_what_invert_keeps_is_where_a_walk_can_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = generator_of(tmp_path / "m", "blocks")
    monkeypatch.chdir(tmp_path)
    names = [str(image_file(tmp_path / f"{i}.png", generator, NAMES[i])) for i in (0, 1)]
    status, out, err = call(monkeypatch, capsys, "invert", "m", *names, "--device", "cpu")
    assert (status, out.splitlines()[-1]) == (0, "inverted.png")
    for name, line in zip(names, out.splitlines(), strict=False):
        assert line.startswith(f"{name}: ")
        assert "of 255" in line
    assert "inverted.safetensors:0" in err
    tensors, _ = load_tensors(tmp_path / "inverted.safetensors")
    assert tensors["z"].shape == (2, 10)
    assert tensors["classes"].shape == (2, 3)
    interpolate("m", init="inverted.safetensors:1", to="boot", frames=2, out="walk", device="cpu")
    height, width = generator.spec.height, generator.spec.width
    with Image.open("inverted.png") as pairs, Image.open("walk/000000.png") as first, Image.open(names[1]) as given:
        assert pairs.size == (2 * (width + 2) + 2, 2 * (height + 2) + 2)
        row = np.asarray(pairs)[height + 4 : 2 * height + 4]
        assert np.array_equal(row[:, 2 : width + 2], np.asarray(given))
        assert np.abs(row[:, width + 4 : 2 * width + 4].astype(int) - np.asarray(first)).max() <= 1
    with raises("value-out-of-range", "inverted.safetensors", "0 to 1"):
        interpolate("m", init="inverted.safetensors:2", to="boot", out="x.gif")
    other = generator_of(tmp_path / "other", "dcgan")
    assert other.sha256 != generator.sha256
    with raises("generator-differs", "from", "inverted.safetensors"):
        interpolate("other", init="inverted.safetensors", to="boot", out="x.gif")


@pytest.mark.usefixtures("quick")
def test_what_cannot_be_inverted_is_refused(tmp_path: Path) -> None:
    generator = generator_of(tmp_path / "m", "dcgan")
    good = image_file(tmp_path / "good.png", generator)
    (tmp_path / "text.png").write_text("no image")
    for image, code in ((tmp_path / "none.png", "file-unreadable"), (tmp_path / "text.png", "file-unreadable")):
        with raises(code, image):
            invert(tmp_path / "m", good, image, out=tmp_path / "x.png")
    with raises("file-unreadable", tmp_path):
        invert(tmp_path / "m", tmp_path, out=tmp_path / "x.png")
    with raises("value-out-of-range", "1 to 64", 65):
        invert(tmp_path / "m", *[good] * 65, out=tmp_path / "x.png")
    with raises("value-invalid", ".png"):
        invert(tmp_path / "m", good, out=tmp_path / "x.jpg")
    grid = sample(tmp_path / "m", label="boot", n=1, out=tmp_path / "grid.png", device="cpu")
    with raises("value-invalid", grid, "--out FOLDER"):
        invert(tmp_path / "m", grid, out=tmp_path / "x.png")
    (tmp_path / "x.safetensors").touch()
    with raises("file-exists", tmp_path / "x.safetensors"):
        invert(tmp_path / "m", good, out=tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


# --- directions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["auto", "resnet", "r3gan", "unconditional", "blocks"])
def test_the_closed_form_is_what_changes_the_first_layer_and_the_modulations_most(kind: str, tmp_path: Path) -> None:
    generator = generator_of(tmp_path, kind)
    steps = closed_form(generator, 8)
    variance = 1 / 3 if kind == "blocks" else 1.0  # of uniform or normal latents
    torch.testing.assert_close(steps @ steps.T, variance * torch.eye(8), atol=1e-5, rtol=0)
    assert (steps.gather(1, steps.abs().argmax(1, keepdim=True)) > 0).all()  # of a direction and its opposite, one
    taking = [p for p in generator.network.modules() if isinstance(p, nn.Linear) and p.in_features in (10, 15)]
    assert len(taking) == 1 + sum(name.endswith("modulate") for name, _ in generator.network.named_modules())

    def change(z: torch.Tensor) -> float:
        padded = [nn.functional.pad(z, (0, layer.in_features - 10)) for layer in taking]
        return float(sum((layer.weight @ z).square().sum() for layer, z in zip(taking, padded, strict=True)))

    changes = [change(step) for step in steps]
    assert changes == sorted(changes, reverse=True)
    others = variance**0.5 * nn.functional.normalize(torch.randn(200, 10), dim=1)
    assert changes[0] > max(change(other) for other in others)
    assert torch.equal(closed_form(generator, 8), steps)


def test_a_direction_is_learnt_from_examples(tmp_path: Path) -> None:
    generator = generator_of(tmp_path, "dcgan")
    generator.network.embedding.weight *= 4  # type: ignore[operator, union-attr]  # classes that differ much
    z, axis = generator.latents(40, seed=5), torch.eye(10)[3]
    toward, away = (generator.sample(None, z=z + amount * axis)[0] for amount in (2, -2))
    counted: list[tuple[int, int]] = []
    learnt = learn(generator, random_projection(), [0, 1, 2], toward, away, lambda *done: counted.append(done))
    assert torch.cosine_similarity(learnt.step[0], axis, 0) > 0.7
    assert learnt.share > 0.61  # 0.67, and 0.56 if differences between classes counted
    assert counted[-1] == (512, 512)
    noise = np.random.default_rng(0).integers(0, 256, (2, 40, 28, 28, 1), np.uint8)
    assert learn(generator, random_projection(), [1], *noise, lambda *_: None).step.norm() == pytest.approx(1)  # type: ignore[call-arg, misc]


@pytest.mark.usefixtures("quick")
def test_directions_are_shown_and_kept_for_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = generator_of(tmp_path / "m", "auto")
    monkeypatch.chdir(tmp_path)
    status, out, err = call(monkeypatch, capsys, "directions", "m", "--device", "cpu")
    assert (status, out) == (0, "directions.png\n")
    assert "--move directions.safetensors:0=2" in err
    with Image.open("directions.png") as picture:
        assert picture.height == 8 * 34 + 2
        assert picture.width > 15 * 34 + 2
    sample("m", n=1, move=["directions.safetensors:7=3"], label=[NAMES[0]], out="x.npz", device="cpu")
    (steps,) = load_tensors(tmp_path / "directions.safetensors")[0].values()
    with np.load("x.npz") as arrays:
        assert np.array_equal(arrays["arr_0"], generator.sample(NAMES[0], z=generator.latents(1) + 3 * steps[7])[0])
    monkeypatch.setattr(commands, "WEAK", 1.1)
    for side, seed in (("up", 1), ("down", 2)):
        sample("m", n=3, seed=seed, out=tmp_path / side, device="cpu")
    status, out, err = call(
        monkeypatch, capsys, "directions", "m", "--toward", "up", "--away", "down", "--out", "up.png", "--device", "cpu"
    )
    assert (status, out) == (0, "up.png\n")
    assert "too little to rely on" in err
    with Image.open("up.png") as picture:
        assert picture.height == 34 + 2


def test_a_direction_that_is_alone_in_its_file_has_the_name_of_the_file(tmp_path: Path) -> None:
    generator = generator_of(tmp_path / "model", "dcgan")
    steps = torch.randn(3, 10)
    save_rows(tmp_path / "three.safetensors", generator, directions=steps)
    save_rows(tmp_path / "smile.safetensors", generator, directions=steps[2:])
    named = all_named([tmp_path / "three.safetensors", tmp_path / "smile.safetensors"], generator)
    assert [way.name for way in named] == ["three 0", "three 1", "three 2", "smile"]
    for way in named:
        assert torch.equal(shift_of([f"{way.move}=2"], generator), 2 * way.step[None])


def test_rows_that_are_not_those_of_the_generator_are_refused(tmp_path: Path) -> None:
    generator = generator_of(tmp_path / "model", "dcgan")
    for name, steps in (("narrow", torch.ones(1, 9)), ("endless", torch.full((1, 10), math.inf))):
        save_rows(tmp_path / f"{name}.safetensors", generator, directions=steps)
        with raises("file-damaged", "directions", f"{name}.safetensors"):
            all_named([tmp_path / f"{name}.safetensors"], generator)


@pytest.mark.usefixtures("quick")
def test_examples_that_are_missing_or_few_are_refused(tmp_path: Path) -> None:
    generator = generator_of(tmp_path / "m", "dcgan")
    for side in ("up", "down"):
        (tmp_path / side).mkdir()
        image_file(tmp_path / side / "0.png", generator)
    with raises("options-conflict", "--toward", "--away"):
        directions(tmp_path / "m", toward=tmp_path / "up", out=tmp_path / "x.png")
    with raises("too-few-images", "toward", tmp_path / "up", 5):
        directions(tmp_path / "m", toward=tmp_path / "up", away=tmp_path / "down", out=tmp_path / "x.png")
    (tmp_path / "x.safetensors").touch()
    with raises("file-exists", tmp_path / "x.safetensors"):
        directions(tmp_path / "m", out=tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_a_mixture_of_classes_mixes_their_embeddings(tmp_path: Path) -> None:
    generator = generator_of(tmp_path, "auto")
    z = generator.latents(2)
    one_hot = Points(z, torch.eye(3)[[2, 0]])
    expected = generator.network(z, torch.tensor([2, 0]))
    torch.testing.assert_close(images_at(generator.network, one_hot), expected)
