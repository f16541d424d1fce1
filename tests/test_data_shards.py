"""WebDataset shards and parquet files: their images, labels and parts."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from ptarmigan import score
from ptarmigan.config import Data
from ptarmigan.data.arrays import SELECT, UNDECIDED
from ptarmigan.data.index import FolderSource, find_source, may_hold_data
from support import raises
from test_data_archives import png, to_tar


def shard(path: Path, first: int = 0, image: str = "png", mode: str = "w") -> Path:
    contents = {}
    for i in range(first, first + 8):
        contents |= {f"{i:04d}.{image}": png(i), f"{i:04d}.cls": str(i % 2).encode()}
    path.parent.mkdir(exist_ok=True)
    return to_tar(path, contents, mode)


def found(path: Path, **options: Any) -> FolderSource:
    source = find_source(path, data=Data(**options))
    assert isinstance(source, FolderSource)
    return source


def labels(source: FolderSource) -> list[str]:
    """The class of each image, in the order of their numbers."""
    out = {}
    for i, label in enumerate(source.labels):
        with source.open(i) as file:
            out[file.read()] = source.class_names[label]
    return [out[png(seed)] for seed in range(len(out))]


def test_a_shard_and_a_folder_of_shards(tmp_path: Path) -> None:
    one = shard(tmp_path / "set" / "pets-train-000.tar")
    assert labels(found(one)) == ["0", "1"] * 4
    shard(tmp_path / "set" / "pets-train-001.tar", 8)
    assert labels(found(tmp_path / "set" / "pets-train-{000..001}.tar")) == ["0", "1"] * 8
    shard(tmp_path / "set" / "pets-val-000.tar", 16)
    (tmp_path / "set" / "classes.txt").write_text("cat\ndog\n")
    source = found(tmp_path / "set")
    assert labels(pickle.loads(pickle.dumps(source))) == ["cat", "dog"] * 12
    assert sorted(source.source_part.tolist()) == [UNDECIDED] * 16 + [SELECT] * 8
    assert "24 images in 2 classes" in source.understood
    with raises("path-not-found", "pets-train-002.tar"):
        found(tmp_path / "set" / "pets-train-{000..002}.tar")


def test_compressed_shards_and_names_with_dots(tmp_path: Path) -> None:
    shard(tmp_path / "set" / "a-0.tar.gz", mode="w:gz")
    shard(tmp_path / "set" / "a-1.tar.gz", 8, mode="w:gz")
    assert labels(found(tmp_path / "set")) == ["0", "1"] * 8
    assert labels(found(shard(tmp_path / "dots.tar", image="left.png"))) == ["0", "1"] * 4


def test_a_key_of_json_is_the_label(tmp_path: Path) -> None:
    contents = {}
    for i in range(8):
        content = json.dumps({"label": "xy"[i % 2], "mood": "ab"[i // 4]}).encode()
        contents |= {f"{i}.png": png(i), f"{i}.json": content}
    path = to_tar(tmp_path / "x.tar", contents)
    assert labels(found(path)) == ["x", "y"] * 4
    assert labels(found(path, label_column="mood")) == ["a"] * 4 + ["b"] * 4
    with raises("unknown-name", "species"):
        found(path, label_column="species")


def test_score_takes_the_patterns_that_train_takes(tmp_path: Path) -> None:
    pattern = shard(tmp_path / "x-0.tar").with_name("x-{0..0}.tar")
    with raises("data-missing", pattern):  # and not path-not-found
        score(pattern)
    assert may_hold_data("s3://bucket/x.tar")
    assert not may_hold_data(tmp_path / "absent")


def parquet(path: Path, first: int = 0, names: list[str] | None = None, **columns: list[Any]) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"bytes": png(i), "path": f"{i}.png"} for i in range(first, first + 8)]
    table = pa.table({"image": rows, **(columns or {"label": [i % 2 for i in range(8)]})})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=3)
    return path


def test_parquet_files_of_the_hub(tmp_path: Path) -> None:
    data = tmp_path / "pets" / "data"
    one = parquet(data / "train-00000-of-00002.parquet", 0, ["cat", "dog"])
    assert labels(found(one)) == ["cat", "dog"] * 4
    parquet(data / "train-00001-of-00002.parquet", 8, ["cat", "dog"])
    parquet(data / "validation-00000-of-00001.parquet", 16, ["cat", "dog"])
    source = found(tmp_path / "pets")
    assert labels(pickle.loads(pickle.dumps(source))) == ["cat", "dog"] * 12
    assert sorted(source.source_part.tolist()) == [UNDECIDED] * 16 + [SELECT] * 8
    assert all(fact in source.understood for fact in ("column label", "24 images in 2 classes"))


def test_the_label_column_of_parquet(tmp_path: Path) -> None:
    columns = {"kind": ["a", "b"] * 4, "coarse_label": ["x"] * 4 + ["y"] * 4, "fine_label": ["p", "q"] * 4}
    path = parquet(tmp_path / "x.parquet", **columns)
    assert labels(found(path, label_column="coarse_label")) == ["x"] * 4 + ["y"] * 4
    with raises("unknown-name", "zzz", "coarse_label"):
        found(path, label_column="zzz")
    assert labels(found(parquet(tmp_path / "y.parquet", label=["b", "a"] * 4))) == ["b", "a"] * 4


def test_rows_of_parquet_without_an_image_are_left_out(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = [png(0), png(1), png(2), None, b"no image", png(3)]
    pq.write_table(pa.table({"image": images, "label": ["a", "b"] * 3}), tmp_path / "x.parquet")
    source = found(tmp_path / "x.parquet")
    assert labels(source) == ["a", "b", "a", "b"]
    assert any("000003" in notice for notice in source.notices)


def test_damaged_parquet_and_none_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1" + bytes(99))
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
        with raises("package-missing", "x.parquet", "ptarmigan[parquet]"):
            find_source(path)
    pytest.importorskip("pyarrow")
    with raises("file-unreadable", "x.parquet"):
        find_source(path)
