"""A stranger's file runs no code, reads nothing outside itself and takes no more memory than it brings."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle  # to make the malicious files
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import SMALL
from ptarmigan import compare, info, load
from ptarmigan.commands.replay import replay
from ptarmigan.commands.score_sources import open_training_data
from ptarmigan.config import Data, resolve
from ptarmigan.core.files import Damaged, load_json, save_json
from ptarmigan.core.log import read_log
from ptarmigan.core.tensor_files import load_tensors, save_tensors
from ptarmigan.core.types import UserError
from ptarmigan.data import open_dataset
from ptarmigan.data.cache import cache_folder
from ptarmigan.data.pack import ARRAYS
from ptarmigan.training import checkpoint
from ptarmigan.training.given import read_yaml
from ptarmigan.training.loop import train
from ptarmigan.training.run_folder import holder
from support import at_most, raises


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def raw(trap: Trap) -> bytes:
    return pickle.dumps(trap)


def as_torch(trap: Trap) -> bytes:
    file = io.BytesIO()
    torch.save({"weight": trap}, file)
    return file.getvalue()


def as_npy(trap: Trap) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.array([trap], object), allow_pickle=True)
    return file.getvalue()


def as_npz(trap: Trap) -> bytes:
    file = io.BytesIO()
    np.savez(file, arr_0=np.zeros((1, 16, 16), np.uint8), arr_1=np.array([trap], object))
    return file.getvalue()


def as_yaml(trap: Trap) -> bytes:
    return f"time: !!python/object/apply:os.mkdir [{trap.path}]\n".encode()


def as_postscript(trap: Trap) -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n"


PAYLOADS = [raw, as_torch, as_npy, as_npz, as_yaml, as_postscript]


@pytest.fixture(scope="module")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train(shapes, out=tmp_path_factory.mktemp("finished") / "run", **SMALL)


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trap]:
    """What must not spring, be it unpickled or run as the interpreter of PostScript that Pillow would call."""
    trap = Trap(tmp_path / "sprung")
    bait = tmp_path / "bin" / "gs"
    bait.parent.mkdir()
    bait.write_text(f"#!/bin/sh\nmkdir {trap.path}\n")
    bait.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bait.parent}:{os.environ['PATH']}")
    yield trap
    assert not trap.path.exists()


def idx(*shape: int) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)


def photographs(folder: Path, name: str, content: bytes) -> None:
    """Two classes of good images, and one file more."""
    for index in range(4):
        path = folder / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (40 * index, 0, 0)).save(path)
    (folder / "a" / name).write_bytes(content)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_reader_of_data_runs_a_malicious_file(payload: Callable[[Trap], bytes], trap: Trap, tmp_path: Path) -> None:
    content = payload(trap)
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with raises({as_npz: "data-invalid", as_torch: "data-incomplete"}.get(payload, "file-unreadable"), path):
        open_dataset(path, Data())
    for part in ("images-idx3", "labels-idx1"):
        folder = tmp_path / part
        folder.mkdir()
        (folder / "train-images-idx3-ubyte").write_bytes(idx(2, 16, 16) + bytes(512))
        (folder / "train-labels-idx1-ubyte").write_bytes(idx(2) + bytes([0, 1]))
        (folder / f"train-{part}-ubyte").write_bytes(content)
        with raises("file-unreadable", part):
            open_dataset(folder, Data())
    for ending in (".png", ".jpg", ".webp", ".bmp", ".gif"):
        folder = tmp_path / ending
        photographs(folder, f"x{ending}", content)
        assert any(f"x{ending} (" in notice for notice in open_dataset(folder, Data()).notices)
    with pytest.raises(UserError, match=r"x\.npz"):
        resolve(read_yaml(path))


@pytest.mark.parametrize("payload", [raw, *(pytest.param(payload, marks=pytest.mark.slow) for payload in PAYLOADS[1:])])
def test_no_reader_of_a_run_or_of_the_cache_runs_a_malicious_file(
    payload: Callable[[Trap], bytes], trap: Trap, shapes: Path, finished: Path, tmp_path: Path
) -> None:
    content = payload(trap)
    before = np.array(open_dataset(shapes, Data()).images)  # not mapped: the file is written over below
    for pack in (cache_folder() / "packs").iterdir():
        for name in (*[f"{array}.npy" for array in ARRAYS], "meta.json", "images"):
            (pack / name).write_bytes(content)
    assert np.array_equal(open_dataset(shapes, Data()).images, before)

    for file in sorted(path for path in finished.rglob("*") if path.is_file()):
        run = tmp_path / "run"
        shutil.copytree(finished, run)
        (run / file.relative_to(finished)).write_bytes(content)
        with suppress(UserError):
            load(run)
        with suppress(UserError):
            replay(run, at=24)
        train(shapes, out=run, **SMALL)
        assert (run / "generator" / "model.safetensors").read_bytes() == (
            finished / "generator" / "model.safetensors"
        ).read_bytes()
        shutil.rmtree(run)

    path = tmp_path / "x"
    path.write_bytes(content)
    for reader in (load_json, load_tensors):
        with pytest.raises(Damaged):
            reader(path)
    assert list(read_log(path)) == []
    assert holder(path) == "another process"


# --- memory -----------------------------------------------------------------------------------------------------


def npy(shape: str, descr: str = "|u1", body: bytes = b"") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + body


def npz(path: Path, **arrays: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return path


LIES = [
    "(1099511627776, 28, 28)", "(3, 1099511627776, 1099511627776)", "(-2, -28, 28)", "(2, -28, -28)", "(0, 28, 28)",
    "(2,)", "()", "(" + "1, " * 3000 + ")", "(2.5, 28, 28)", "__import__('os')", "[9] * 10 ** 9", "(10**12,)",
]  # fmt: skip


@pytest.mark.parametrize("shape", LIES)
def test_the_header_of_an_npz_is_checked_before_anything_is_read(shape: str, tmp_path: Path) -> None:
    good = npy("(2,)", body=bytes(2))
    with at_most(30):
        with pytest.raises(UserError, match=r"images\.npz \[arr_0\]"):
            open_dataset(npz(tmp_path / "images.npz", arr_0=npy(shape, body=bytes(1568)), arr_1=good), Data())
        images = npy("(2, 28, 28)", body=bytes(1568))
        with suppress(UserError):
            open_dataset(npz(tmp_path / "labels.npz", arr_0=images, arr_1=npy(shape, body=bytes(2))), Data())


@pytest.mark.parametrize("descr", ["<U100000000", "|V1000000000", "|O", "<c16", "<M8[s]", "|S9", "nonsense"])
def test_labels_of_another_kind_than_whole_numbers_are_not_read(descr: str, tmp_path: Path) -> None:
    images = npy("(2, 28, 28)", body=bytes(1568))
    path = npz(tmp_path / "x.npz", arr_0=images, arr_1=npy("(2,)", descr, bytes(32)))
    with at_most(30), pytest.raises(UserError, match=r"x\.npz"):
        open_dataset(path, Data())


def test_an_archive_that_lies_about_a_members_size_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", arr_0=npy("(4000000, 28, 28)", body=bytes(1568)), arr_1=npy("(2,)", body=bytes(2)))
    content = path.read_bytes()
    real, promised = (struct.pack("<I", size + len(npy("(4000000, 28, 28)"))) for size in (1568, 4000000 * 784))
    assert content.count(real) == 2
    path.write_bytes(content.replace(real, promised))
    with at_most(30), pytest.raises(UserError, match=r"x\.npz"):
        open_dataset(path, Data())


@pytest.mark.parametrize(
    "shape", [(2**32 - 1, 2**32 - 1, 2**32 - 1), (2, 2**32 - 1, 16), (2**31, 16, 16), (2,) * 255, ()]
)
@pytest.mark.parametrize("packed", [False, True])
def test_the_header_of_an_idx_file_is_checked_before_anything_is_read(
    shape: tuple[int, ...], packed: bool, tmp_path: Path
) -> None:
    for name, content in (("images-idx3", idx(*shape)), ("labels-idx1", idx(2) + bytes([0, 1]))):
        squeezed = gzip.compress(content) if packed else content
        (tmp_path / f"train-{name}-ubyte{'.gz' if packed else ''}").write_bytes(squeezed)
    with at_most(30), pytest.raises(UserError, match="images-idx3"):
        open_dataset(tmp_path, Data())


def test_a_picture_bomb_is_named_and_not_decoded(tmp_path: Path) -> None:
    side = 20_000
    squeezed = zlib.compressobj(9)
    rows = b"".join(squeezed.compress(bytes(side + 1)) for _ in range(side)) + squeezed.flush()
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    assert len(content) < 1e6
    photographs(tmp_path / "set", "bomb.png", content)
    with at_most(60):
        notices = open_dataset(tmp_path / "set", Data()).notices
    assert any("bomb.png (" in notice for notice in notices)


@pytest.mark.parametrize(
    "text",
    [
        "time: [&a [x,x,x,x,x,x,x,x,x], " + ", ".join(
            f"&{new} [{','.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ) + "]",  # a billion laughs
        "[" * 100_000,
        "batch: &a [*a]",
        "batch: 2020-13-45",
        "g_lr: 1" + "0" * 4000,
        "g_lr: 1" + "0" * 5000,
        "1: 2",
        "? [1, 2]\n: 3",
        "batch: .inf",
    ],
)  # fmt: skip
def test_absurd_yaml_is_refused_in_one_short_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with at_most(30), pytest.raises(UserError) as raised:
        resolve(read_yaml(tmp_path / "x.yaml"))
    assert len(str(raised.value)) < 1000
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "header",
    [
        b"{}", b"[" * 100_000, b'{"__metadata__": {"ptarmigan": "{}"}}', b'{"__metadata__": {"ptarmigan": "[]"}}',
        b'{"x": {"dtype": "F32", "shape": [1099511627776], "data_offsets": [0, 4398046511104]}}',
        b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}',
        b'{"x": {"dtype": "F32", "shape": [4611686018427387904, 8], "data_offsets": [0, 0]}}',
    ],
)  # fmt: skip
def test_absurd_headers_of_safetensors_are_damage(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for length in (len(header), 2**60, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", length) + header)
        with at_most(30), pytest.raises(Damaged):
            load_tensors(path)


@pytest.mark.parametrize(
    "change",
    [
        {"spec": None}, {"spec": {}}, {"spec": 3}, {"config": []}, {"config": {"recipe": ["auto"]}},
        {"config": {"network": "../../etc/passwd"}}, {"config": {"latent_dim": 65536, "width": 4096}},
        {"spec": {"height": 10**9, "width": 10**9, "channels": 1, "class_names": ["a"]}},
        {"spec": {"height": -1, "width": 16, "channels": 1, "class_names": ["a"]}},
        {"spec": {"height": 16, "width": 16, "channels": 10**6, "class_names": ["a"] * 3}},
        {"spec": {"height": "16", "width": 16, "channels": 1, "class_names": 7}},
        {"images_seen": None, "spec": {"height": 1.5, "width": 16, "channels": 1, "class_names": ["a"]}},
    ],
)  # fmt: skip
def test_a_strangers_generator_with_a_good_checksum_takes_no_more_than_its_file(
    change: dict[str, Any], finished: Path, tmp_path: Path
) -> None:
    tensors, meta = load_tensors(finished / "generator" / "model.safetensors")
    del meta["sha256"]
    save_tensors(tmp_path / "model.safetensors", tensors, {**meta, **change})
    with at_most(50), raises("file-damaged", tmp_path / "model.safetensors"):
        load(tmp_path)


def test_a_strangers_generator_in_another_type_is_refused(finished: Path, tmp_path: Path) -> None:
    tensors, meta = load_tensors(finished / "generator" / "model.safetensors")
    del meta["sha256"]
    tensors["project.weight"] = tensors["project.weight"].double()
    save_tensors(tmp_path / "model.safetensors", tensors, meta)
    with raises("file-damaged", "project.weight", "torch.float64", "torch.float32"):
        load(tmp_path)
    tensors["project.weight"] = tensors["project.weight"].float()[1:]
    save_tensors(tmp_path / "model.safetensors", tensors, meta)
    with raises("file-damaged", "project.weight", "(127, 10)", "(128, 10)"):
        load(tmp_path)


def test_a_generator_folder_is_read_from_one_file_alone(finished: Path, tmp_path: Path) -> None:
    """config.json and README.md are for readers: no path in them, and no link beside them, leads anywhere."""
    shutil.copytree(finished / "generator", tmp_path / "stranger")
    (tmp_path / "stranger" / "config.json").write_text(json.dumps({"network": "/etc/passwd"}))
    (tmp_path / "stranger" / "mine.py").write_text("raise SystemExit('run')")
    assert load(tmp_path / "stranger").sha256 == load(finished).sha256


def test_json_that_is_nested_too_deep_is_damage(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[" * 100_000)
    with pytest.raises(Damaged):
        load_json(tmp_path / "x.json")
    (tmp_path / "metrics.jsonl").write_text("[" * 100_000 + "\n" + json.dumps({"images_seen": 1}) + "\n")
    assert list(read_log(tmp_path / "metrics.jsonl")) == []


# --- files with a good checksum that ptarmigan did not write ------------------------------------------------------

MISSING: Any = object()


def changed(record: Any, place: str, value: Any) -> Any:
    """The record with another value at a place like `spec.height`."""
    key, _, rest = place.partition(".")
    if value is MISSING and not rest:
        return {name: entry for name, entry in record.items() if name != key}
    return {**record, key: changed(record[key], rest, value) if rest else value}


ODD_GENERATORS = [
    ("images_seen", MISSING), ("images_seen", "48"), ("images_seen", -1), ("images_seen", 2**70), ("fingerprint", 3),
    ("selection", None), ("spec", []), ("spec.height", 16384), ("spec.height", 16.5), ("spec.channels", 2),
    ("spec.class_names", []), ("spec.class_names", [1, 2, 3]), ("config", MISSING), ("config.recipe", ["auto"]),
    ("config.model", None), ("config.model.width", "wide"), ("config.model.width", 10**6),
    ("config.model.network", "gpt"), ("config.train.g_lr", {}),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value"), ODD_GENERATORS)
def test_an_odd_entry_of_a_generator_is_damage(place: str, value: Any, finished: Path, tmp_path: Path) -> None:
    tensors, meta = load_tensors(finished / "generator" / "model.safetensors")
    del meta["sha256"]
    save_tensors(tmp_path / "model.safetensors", tensors, changed(meta, place, value))
    with at_most(50), raises("file-damaged", tmp_path / "model.safetensors", place.rpartition(".")[2].split("_")[0]):
        load(tmp_path)
    with raises("file-damaged", tmp_path / "model.safetensors"):
        info(tmp_path)


@pytest.mark.parametrize("number", ["x", True, 1.0, [1], None, 2**70])
def test_an_odd_format_is_refused(number: Any, finished: Path, tmp_path: Path) -> None:
    tensors, meta = load_tensors(finished / "generator" / "model.safetensors")
    save_tensors(tmp_path / "model.safetensors", tensors, changed(changed(meta, "sha256", MISSING), "format", number))
    for reader in (load, info):
        with raises("file-format", tmp_path / "model.safetensors"):
            reader(tmp_path)


def report() -> dict[str, Any]:
    """The least that `score` writes."""
    interval = {"mean": 1.0, "low": 0.5, "high": 1.5}
    return {
        "figures": {"kid": dict.fromkeys(("held_out", "train", "floor", "excess"), interval)},
        "copies": {
            **dict.fromkeys(("authenticity", "distance_ratio", "closer_than_held_out"), interval),
            "authenticity_held_out": 0.5,
        },
        "notes": [],
        "protocol": {
            "frechet_is_called": "FD", "extractor": "E", "weights_sha256": "a" * 64, "input": "uint8",
            "images_a_set": 20, "sets": 2, "held_out_images": 27, "train_images": 60, "data_fingerprint": "f",
            "images_seen": 48, "seeds": [0, 1],
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("reports", MISSING), ("reports", []), ("reports.E", "good"), ("reports.E.figures.kid.held_out", 0.5),
        ("reports.E.figures.kid.excess", MISSING), ("reports.E.copies", {}), ("reports.E.protocol.seeds", []),
        ("reports.E.classes", {"a": {}}), ("generator", 7),
    ],
)  # fmt: skip
def test_odd_scores_do_not_hide_the_generator(place: str, value: Any, finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished / "generator", tmp_path / "model"))
    scores = {"generator": load(folder).sha256, "reports": {"E": report()}}
    save_json(folder / "scores.json", scores)
    assert load(folder).scores.keys() == {"E"}
    assert "KID" in info(folder)["scores"][0]
    save_json(folder / "scores.json", changed(scores, place, value))
    assert load(folder).scores == {}
    assert str(folder / "scores.json") in info(folder)["scores"]


ODD_RUNS = [
    ("tick", 0), ("tick", "8"), ("data", None), ("data.split", {}), ("data.fingerprint", MISSING), ("init", {}),
    ("precision", "fp8"), ("versions", []), ("spec.width", 1), ("config.train.batch", "many"), ("config.loss", MISSING),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value"), ODD_RUNS)
def test_an_odd_record_of_a_run_is_damage(place: str, value: Any, finished: Path, shapes: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    record = load_json(run / "config.json")
    save_json(run / "config.json", changed(record, place, value))
    with raises("file-damaged", run / "config.json"):
        compare(run, finished)
    (last,) = (run / "checkpoints").glob("*48.safetensors")
    tensors, meta = load_tensors(last)
    del meta["sha256"]
    save_tensors(last, tensors, changed(meta, f"record.{place}", value))
    with raises("file-damaged", last):
        load(last)
    found, faults = checkpoint.newest(run)  # goes on from the one before
    assert found is not None
    assert found.path.name == "000000024.safetensors"
    assert str(last) in faults[0]


def test_odd_progress_tensors_splits_owners_and_log_lines_are_damage(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    last = run / "checkpoints" / "000000048.safetensors"
    tensors, meta = load_tensors(last)
    del meta["sha256"]
    for value in ({"ends": "never"}, {"clock": "12:00"}, {"lr_scale": None}):
        save_tensors(last, tensors, meta | {"progress": value})
        assert str(last) in checkpoint.newest(run)[1][0]
    earlier = run / "checkpoints" / "000000024.safetensors"
    tensors, meta = load_tensors(earlier)
    del meta["sha256"]
    tensors["G.project.weight"] = tensors["G.project.weight"][1:]
    save_tensors(earlier, tensors, meta)
    last.unlink()
    with raises("file-damaged", earlier, "project.weight"):
        replay(run, at=40, out=tmp_path / "out")
    for owner in ({}, {"pid": 3}, {"pid": "3", "host": "a"}):
        save_json(tmp_path / "owner.json", owner)
        assert holder(tmp_path / "owner.json") == "another process"
    path = tmp_path / "metrics.jsonl"
    good = {"images_seen": 8, "attempt": 1, "select_kid": 0.5, "end": None}
    odd = [{"images_seen": True}, {"attempt": "1"}, {"select_kid": "low"}, {"end": [48]}, {"images_seen": -8}]
    path.write_text("".join(json.dumps(good | change) + "\n" for change in ({}, *odd)))
    assert list(read_log(path)) == [good]


@pytest.mark.parametrize(
    "split",
    [
        {}, {"hashes": torch.zeros(3, dtype=torch.uint64)},
        {"hashes": torch.zeros(3, dtype=torch.uint64), "part": torch.zeros(2, dtype=torch.uint8)},
        {"hashes": torch.zeros(3), "part": torch.zeros(3, dtype=torch.uint8)},
        {"hashes": torch.zeros(3, 1, dtype=torch.uint64), "part": torch.zeros(3, dtype=torch.uint8)},
    ],
)  # fmt: skip
def test_an_odd_split_is_damage(split: dict[str, torch.Tensor], finished: Path, shapes: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    save_tensors(run / "split.safetensors", split, {})
    with raises("file-damaged", run / "split.safetensors"):
        open_training_data(run, load(run), shapes, [], lambda *_: None)
