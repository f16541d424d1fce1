"""A file appears whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pytest

from ptarmigan.core.files import write_atomic
from ptarmigan.core.types import UserError


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
    with pytest.raises(UserError, match=r"cannot write .*absent.x: No such file or directory"):
        write_atomic(tmp_path / "absent" / "x", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*folder: "):
        write_atomic(tmp_path / "folder", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_it_is_synced_before_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("sync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("name"), replace(a, b)))
    write_atomic(tmp_path / "a", b"x")
    assert events[:2] == ["sync", "name"]
