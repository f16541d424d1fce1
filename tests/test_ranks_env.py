"""Ranks are believed only where all of torchrun's variables are there and make sense."""

from __future__ import annotations

import pytest

from ptarmigan.core.ranks_env import is_rank_0, under_torchrun

TORCHRUN = {
    "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "launched", "prints"),
    [
        ({}, True, False),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True, True),
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}, True, True),
        *(({name: None}, False, True) for name in TORCHRUN),
        *(({name: "abc"}, False, True) for name in TORCHRUN if name != "MASTER_ADDR"),
        ({"RANK": "2"}, False, True),
        ({"RANK": "-1"}, False, True),
        ({"WORLD_SIZE": "1" * 5000}, False, True),
        ({"WORLD_SIZE": "٢"}, False, True),
        ({"MASTER_PORT": "0"}, False, True),
        ({"MASTER_PORT": "65536"}, False, True),
    ],
)
def test_a_rank_is_believed_only_where_torchrun_set_all_of_it(
    changed: dict[str, str | None], launched: bool, prints: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (TORCHRUN | changed).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert (under_torchrun(), is_rank_0()) == (launched, prints)
