"""What several test files share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ptarmigan import UserError


@contextmanager
def raises(code: str, *facts: object, kind: type[UserError] = UserError) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """Expect a UserError with this code whose text names each fact: a file, an option, a value; not its sentences."""
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code, caught.value
    for fact in facts:
        assert str(fact) in str(caught.value), caught.value
