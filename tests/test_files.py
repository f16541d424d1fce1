"""A file appears whole or not at all; an error of the system, the machine or a file has its code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from ptarmigan.core.devices import pick_device
from ptarmigan.core.files import (
    Damaged,
    check_new_path,
    load_json,
    make_folder,
    save_json,
    write_atomic,
)  # fmt: skip
from ptarmigan.core.log import Metrics, damaged_lines, read_log
from ptarmigan.core.records import LogLine, Owner, Spec, check
from ptarmigan.core.tensor_files import load_tensors, save_tensors
from ptarmigan.core.types import class_name, natural, printable
from support import raises


def test_bytes_and_a_writer(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"one")
    write_atomic(tmp_path / "a", b"two")
    write_atomic(tmp_path / "b", lambda file: file.write(b"three"))
    assert [(tmp_path / name).read_bytes() for name in "ab"] == [b"two", b"three"]
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"old")

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        assert (tmp_path / "a").read_bytes() == b"old"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_atomic(tmp_path / "a", fail)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_the_system_refuses_is_said(tmp_path: Path) -> None:
    with raises("file-unwritable", tmp_path / "absent" / "x", "No such file or directory"):
        write_atomic(tmp_path / "absent" / "x", b"")
    (tmp_path / "folder").mkdir()
    with raises("file-unwritable", tmp_path / "folder"):
        write_atomic(tmp_path / "folder", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "a"):
        with raises("file-unwritable", f"{tmp_path / 'file'} is not a folder", "--out"):
            make_folder(folder)
    (tmp_path / "link").symlink_to("nowhere")
    with raises("file-unwritable", f"{tmp_path / 'link'} is not a folder"):
        make_folder(tmp_path / "link")
    with raises("file-unwritable", tmp_path / "absent" / "metrics.jsonl"):
        metrics = Metrics(tmp_path / "absent" / "metrics.jsonl")
        metrics.write(8)
        metrics.close()


def test_a_new_file_has_the_right_ending_and_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.svg").touch()
    with raises("file-exists", "plot", tmp_path / "x.svg"):
        check_new_path(tmp_path / "x.svg", "plot", ".svg")
    with raises("value-invalid", "plot", tmp_path / "a" / "x.png", "X.svg"):
        check_new_path(tmp_path / "a" / "x.png", "plot", ".svg")
    assert check_new_path(tmp_path / "a" / "x.svg", "plot", ".svg").parent.is_dir()


def test_a_file_that_is_missing_damaged_foreign_or_of_a_newer_version_is_told_apart(tmp_path: Path) -> None:
    record, tensors = tmp_path / "x.json", tmp_path / "x.safetensors"
    for load, path in ((load_json, record), (load_tensors, tensors)):
        with raises("file-unreadable", path, kind=Damaged):
            load(path)
        path.write_bytes(b"{")
        with raises("file-damaged", path, kind=Damaged):
            load(path)
    record.write_text("{}")
    with raises("file-damaged", record, "sha256", kind=Damaged):
        load_json(record)
    save_json(record, {"a": 1})
    record.write_text(record.read_text().replace("1", "2", 1))
    with raises("file-damaged", record, "SHA-256", kind=Damaged):
        load_json(record)
    save_tensors(tensors, {"a": torch.ones(3)}, {"format": 99})
    with raises("file-format", tensors, 99):
        load_tensors(tensors)


def test_a_log_line_counts_if_it_is_a_json_object_with_images_seen(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    Metrics(path).write(8, d_adv=0.5)
    with path.open("a") as file:
        file.write('{"images_seen": 16, "attempt": 1, "d_adv": 0.25}\n')
        file.write('{"attempt": 1, "d_adv": 1.0}\n[24]\n{"images_seen": 32, "att\n')
    assert list(read_log(path)) == [
        {"images_seen": 8, "attempt": 1, "d_adv": 0.5}, {"images_seen": 16, "attempt": 1, "d_adv": 0.25},
    ]  # fmt: skip
    assert damaged_lines(path) == 3


def test_a_device_that_the_machine_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in (torch.cuda, torch.backends.mps):
        monkeypatch.setattr(backend, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with raises("device-missing", "cuda", "--device cpu"):
        pick_device("cuda")
    with raises("unknown-name", "'cudda'", "'cuda'"):
        pick_device("cudda")


def test_it_is_synced_before_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("sync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("name"), replace(a, b)))
    write_atomic(tmp_path / "a", b"x")
    assert events[:2] == ["sync", "name"]


def test_a_class_name_is_text_in_one_form() -> None:
    assert class_name("cafe\u0301") == class_name("caf\u00e9") == "caf\u00e9"
    assert class_name(b"caf\xe9".decode(errors="surrogateescape")) == "caf\u00e9"  # a folder of Latin-1 bytes


def test_printable_text_has_one_line_and_no_control_characters() -> None:
    assert printable("a\nptarmigan: done\x1b[2J\u202e") == "a\\nptarmigan: done\\x1b[2J\\u202e"
    assert printable("fine: caf\u00e9 \u96ea") == "fine: caf\u00e9 \u96ea"


def test_natural_order() -> None:
    names = ["2b", "10", "c10", "", "c", "a", "c2", "02", "2"]
    assert sorted(names, key=natural) == ["", "02", "2", "2b", "10", "a", "c", "c2", "c10"]


@pytest.mark.parametrize(
    ("value", "kind", "facts"),
    [
        ({"pid": 1}, Owner, ["`host`", "missing"]),
        ({"pid": "x", "host": "h"}, Owner, ["`pid`", "a whole number", "text"]),
        ([], Owner, ["a table of entries", "a list"]),
        ({"height": 16, "width": 513, "channels": 3, "class_names": ["a"]}, Spec, ["`width`", "at most 512"]),
        ({"height": 16, "width": 16, "channels": 2, "class_names": ["a"]}, Spec, ["`channels`", "value 2"]),
        ({"height": 16, "width": 16, "channels": 3, "class_names": []}, Spec, ["`class_names`", "1 or more"]),
        ({"images_seen": 1, "attempt": 0, "end": "x"}, LogLine, ["`end`", "a whole number or null"]),
    ],
)
def test_an_entry_of_the_wrong_kind_is_named_in_plain_words(value: Any, kind: type, facts: list[str]) -> None:
    with raises("file-damaged", "the file", *facts) as caught:
        check(Path("the file"), value, kind)
    for word in ("Expected", "Object", "`int`", "`str`", "`array`", "enum"):
        assert word not in str(caught.value)
