"""Paths that users give: what cannot be one is an error with a code, whatever the system says."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from ptarmigan.core.paths import user_path
from ptarmigan.data.cache import cache_folder
from support import raises

POSIX = pytest.mark.skipif(os.name != "posix", reason="these files are POSIX's")


@pytest.mark.parametrize("given", ["", "a\0b", "~nosuchuser/x", "x" * 300, "x/" * 3000, "\ud800"])
def test_text_that_cannot_be_a_path_is_an_error(given: str) -> None:
    with raises("value-invalid", "out: ") as caught:
        user_path(given, "out")
    assert len(str(caught.value)) < 400


@POSIX
@pytest.mark.parametrize("kind", ["pipe", "loop", "socket", "device"])
def test_what_is_neither_a_file_nor_a_folder_is_not_opened(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("/dev/zero" if kind == "device" else kind)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to("loop")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(kind)
    with raises("file-unreadable", "config: ", path):
        user_path(path, "config")


@pytest.mark.parametrize("given", [None, 5, b"run", ["run"], True])
def test_another_type_is_no_path(given: Any) -> None:
    with raises("value-invalid", "model: "):
        user_path(given, "model")


@POSIX
def test_a_config_may_come_through_a_pipe(tmp_path: Path) -> None:
    from ptarmigan.training.given import read_yaml

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=["batch: 8"])
    writer.start()
    assert read_yaml(user_path(pipe, "config", pipe=True)) == {"batch": 8}
    writer.join()


@POSIX
def test_a_folder_of_another_user_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with raises("file-unreadable", "model: ", tmp_path / "x", "Permission denied"):
        user_path(tmp_path / "x", "model")


def test_a_path_that_can_be_used_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "file").touch()
    assert user_path("~/file", "data") == tmp_path / "file"
    assert user_path("~", "data") == tmp_path
    for absent in (tmp_path / "absent", tmp_path / "file" / "below"):
        assert user_path(absent, "data") == absent


@POSIX
def test_the_cache_needs_a_home_or_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", Mock(side_effect=RuntimeError("no home")))
    monkeypatch.delenv("PTARMIGAN_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with raises("value-invalid", "PTARMIGAN_CACHE"):
        cache_folder()
