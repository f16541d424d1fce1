"""Samples: the same latent for the same seed and index, whatever else is asked for; the three kinds of output."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ptarmigan.generator.generator as sampling
from conftest import SMALL
from ptarmigan import info, load, sample, train
from ptarmigan.config import config_of, resolve
from ptarmigan.core.types import UserError
from support import raises


def tree(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(shapes, out=tmp_path_factory.mktemp("runs") / "run", **SMALL)


@pytest.fixture(scope="module")
def unconditional(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(shapes, out=tmp_path_factory.mktemp("runs") / "dcgan", recipe="dcgan", **SMALL)


def test_an_image_is_a_function_of_seed_class_and_index(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = load(run)
    images, labels = generator.sample(n=6, seed=3)
    assert images.shape == (18, 16, 16, 1)
    assert images.dtype == np.uint8
    assert labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    alone, alone_labels = generator.sample("down", n=2, seed=3)
    assert np.array_equal(alone, images[6:8])
    assert alone_labels.tolist() == [1, 1]
    backwards, _ = generator.sample(["blot", "across"], n=1, seed=3)
    assert np.array_equal(backwards, images[[12, 0]])
    monkeypatch.setattr(sampling, "CHUNK", 5)
    parts, _ = generator.sample(n=6, seed=3)
    assert np.abs(parts.astype(int) - images).max() <= 1  # another batch may round another way
    assert not np.array_equal(generator.sample(n=6, seed=4)[0], images)
    assert len({image.tobytes() for image in images}) == 18


def test_a_run_its_generator_folder_and_its_file_are_one_model(run: Path, tmp_path: Path) -> None:
    images = [load(path).sample(n=2)[0] for path in (run, run / "generator", run / "generator" / "model.safetensors")]
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[0], images[2])


def test_a_generator_shows_itself_in_one_line(run: Path) -> None:
    shown = repr(load(run))
    assert len(shown) < 120
    for fact in ("16x16", "3 classes", "48 images"):
        assert fact in shown


def test_npz_is_the_adm_layout(run: Path, tmp_path: Path) -> None:
    sample(run, label=["blot"], n=3, seed=5, out=tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["arr_0"], load(run).sample("blot", 3, 5)[0])
        assert arrays["arr_1"].tolist() == [2, 2, 2]
        assert arrays["class_names"].tolist() == ["across", "down", "blot"]


def test_png_has_a_row_for_each_class(run: Path, tmp_path: Path) -> None:
    sample(run, n=4, out=tmp_path / "x.png")
    images, _ = load(run).sample(n=4)
    with Image.open(tmp_path / "x.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (3 * 18 + 2, 4 * 18 + 2)
    assert np.array_equal(pixels[18 + 2 : 18 + 18, 2:18], images[4, :, :, 0])


def test_a_folder_gets_class_folders_that_can_be_trained_on(run: Path, tmp_path: Path) -> None:
    sample(run, n=2, out=tmp_path / "more" / "dir")
    files = sorted(str(path.relative_to(tmp_path / "more")) for path in (tmp_path / "more").rglob("*.png"))
    assert files == [f"dir/{name}/00000{i}.png" for name in ("across", "blot", "down") for i in (0, 1)]
    with Image.open(tmp_path / "more/dir/blot/000001.png") as picture:
        assert np.array_equal(np.asarray(picture), load(run).sample("blot", 2)[0][1, :, :, 0])


@pytest.mark.parametrize("name", ["x.png", "x.npz", "dir"])
def test_nothing_is_overwritten(name: str, run: Path, tmp_path: Path) -> None:
    sample(run, n=1, out=tmp_path / name)
    before = tree(tmp_path)
    with raises("file-exists", tmp_path / name):
        sample(run, n=1, out=tmp_path / name)
    assert tree(tmp_path) == before


def test_out_of_range_numbers_and_other_endings_are_refused(run: Path, tmp_path: Path) -> None:
    generator = load(run)
    with raises("value-out-of-range", "-n 0"):
        generator.sample(n=0)
    for seed in (-1, 2**63):
        with raises("value-out-of-range", f"--seed {seed}"):
            generator.sample(n=1, seed=seed)
    with raises("value-invalid", tmp_path / "x.jpg"):
        sample(run, n=1, out=tmp_path / "x.jpg")


def test_class_names_that_are_no_file_names_stay_inside_the_folder(run: Path, tmp_path: Path) -> None:
    generator = load(run)
    spec = sampling.ImageSpec(16, 16, 1, ("../../up", "t-shirt/top", ".."))
    evil = replace(generator, spec=spec)
    images, labels = evil.sample(n=1)
    (tmp_path / "in").mkdir()
    sampling.save_folder(evil, images, labels, tmp_path / "in" / "out", 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    assert len(list((tmp_path / "in" / "out").glob("*/000000.png"))) == 3


def test_an_unknown_class_lists_the_known_ones(run: Path) -> None:
    with raises("unknown-name", "'blott'", "'blot'", "across, down, blot"):
        load(run).sample("blott")


def test_an_unconditional_generator_refuses_a_class(unconditional: Path) -> None:
    generator = load(unconditional)
    assert generator.sample(n=5)[0].shape == (5, 16, 16, 1)
    with raises("options-conflict", "'blot'", "recipe dcgan", "--recipe auto"):
        generator.sample("blot")


def test_a_generator_of_one_class_is_not_sent_to_the_recipe_that_it_has(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (24, 16, 16), np.uint8)
    np.savez(tmp_path / "one.npz", arr_0=images, arr_1=np.zeros(24, np.int64), class_names=np.array(["moth"]))
    generator = load(train(tmp_path / "one.npz", out=tmp_path / "run", **SMALL))
    with raises("options-conflict", "'cat'", "--class") as caught:
        generator.sample("cat")
    assert "--recipe" not in str(caught.value)


def test_info_says_what_a_model_knows(run: Path, unconditional: Path) -> None:
    known = info(run)
    assert known["classes"] == ["across", "down", "blot"]
    assert (known["size"], known["recipe"], known["images_seen"]) == ("16x16", "auto", 48)
    assert info(unconditional)["classes"] == "none: unconditional"
    readable = json.loads((run / "generator" / "config.json").read_text())
    assert readable["sha256"] == known["sha256"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "header", "pickle"])
def test_a_damaged_generator_is_named_and_never_loaded(damage: str, run: Path, tmp_path: Path) -> None:
    blob = bytearray((run / "generator" / "model.safetensors").read_bytes())
    if damage == "truncate":
        blob = blob[: len(blob) // 2]
    elif damage == "flip":
        blob[-9] ^= 4
    elif damage == "empty":
        blob = bytearray()
    elif damage == "header":
        blob[40:60] = b"x" * 20
    else:
        blob = bytearray(b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.")
    path = tmp_path / "model.safetensors"
    path.write_bytes(blob)
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load(path)


def test_no_generator_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with raises("no-generator", tmp_path / "generator/model.safetensors", tmp_path / "model.safetensors"):
        load(tmp_path)
    with raises("path-not-found", tmp_path / "nowhere"):
        load(tmp_path / "nowhere")


def test_fields_that_a_file_lacks_are_as_before_them_and_not_the_recipes() -> None:
    config = asdict(resolve({"recipe": "auto", "g_lr": 1e-3}))
    del config["loss"]["penalty_every"], config["model"]["g_blocks"]
    old = config_of({"config": config})
    assert (old.loss.penalty_every, old.model.g_blocks, old.train.g_lr) == (1, 0, 1e-3)
