"""Files of format 1 are read, and a file of another format is refused by its name and both formats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import SMALL
from ptarmigan import load, replay, train
from ptarmigan.config import Data
from ptarmigan.core.files import FORMAT, load_json, save_json
from ptarmigan.core.tensor_files import load_tensors, save_tensors
from ptarmigan.core.types import ImageSpec
from ptarmigan.data import open_dataset
from ptarmigan.evaluation.features import Extractor
from ptarmigan.evaluation.features.cache import cached_features
from ptarmigan.training import checkpoint
from support import raises

GOLDEN = Path(__file__).parent / "golden"


def test_a_generator_of_format_1_is_read_and_samples_the_same_images() -> None:
    generator = load(GOLDEN / "generator-1.safetensors")
    assert generator.spec == ImageSpec(16, 18, 3, ("boot", "bag"))
    assert generator.images_seen == 40
    images, labels = generator.sample(n=1, seed=3)
    assert labels.tolist() == [0, 1]
    assert np.abs(images.astype(int) - np.load(GOLDEN / "generator-1-seed3.npy")).max() <= 1


def of_format(path: Path, number: int) -> None:
    """The same file, as another version would have written it."""
    if path.suffix == ".json":
        save_json(path, load_json(path) | {"format": number})
    else:
        tensors, meta = load_tensors(path)
        del meta["sha256"]
        save_tensors(path, tensors, meta | {"format": number})


@pytest.fixture(scope="module")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train(shapes, out=tmp_path_factory.mktemp("finished") / "run", **SMALL)


@pytest.mark.parametrize("number", [FORMAT - 1, FORMAT + 1])
def test_a_file_of_another_format_is_named_with_both_formats(
    number: int, finished: Path, shapes: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    facts = f"format {number}", f"format {FORMAT}"
    for name in ("config.json", "checkpoints/000000048.safetensors"):
        of_format(run / name, number)
        with raises("file-format", run / name, *facts):
            train(shapes, out=run, **SMALL)
    with raises("file-format", run / "checkpoints" / "000000048.safetensors", *facts):
        replay(run, at=24)
    of_format(run / "generator" / "model.safetensors", number)
    with raises("file-format", run / "generator" / "model.safetensors", *facts):
        load(run)
    with raises("file-format", *facts):
        train(shapes, out=tmp_path / "other", init=run, **SMALL)


def test_a_file_that_names_no_format_or_a_strange_one_is_refused(finished: Path, tmp_path: Path) -> None:
    for number in ("1", [1], None):
        path = Path(shutil.copy(finished / "generator" / "model.safetensors", tmp_path / "model.safetensors"))
        of_format(path, number)  # type: ignore[arg-type]
        with raises("file-format", path):
            load(path)


def test_cached_features_of_another_format_are_computed_again(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTARMIGAN_CACHE", str(tmp_path))

    network = nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, 5))
    extractor = Extractor("random", "FD-random", "0" * 64, 16, 5, network)
    dataset = open_dataset(shapes, Data(split="none"), lambda *_: None)
    first = cached_features(extractor, dataset, np.arange(4))
    (path,) = (tmp_path / "features").iterdir()
    of_format(path, FORMAT + 1)
    assert torch.equal(cached_features(extractor, dataset, np.arange(4)), first)
    assert load_tensors(path)[1]["format"] == FORMAT


def test_a_checkpoint_is_progress_and_record_in_json_beside_its_tensors(finished: Path) -> None:
    found, damaged = checkpoint.newest(finished)
    assert found is not None
    assert not damaged
    assert found.meta.keys() == {"format", "images_seen", "progress", "record", "sha256"}
    assert found.meta["record"] == load_json(finished / "config.json")
    progress = json.loads(json.dumps(found.meta["progress"]))
    assert (progress["ends"], progress["budget"], progress["moves"]) == ([48], [None, "48"], [])
