"""What several test files share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ptarmigan import UserError, cli


@contextmanager
def raises(code: str, *facts: object, kind: type[UserError] = UserError) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """Expect a UserError with this code whose text names each fact: a file, an option, a value; not its sentences."""
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code, caught.value
    for fact in facts:
        assert str(fact) in str(caught.value), caught.value


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Run the command in this process -> exit status, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["ptarmigan", *map(str, arguments)])
    try:
        cli.main()
        status = 0
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    out, err = capsys.readouterr()
    return status, out, err
