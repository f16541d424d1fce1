"""What several test files share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
from torch import Tensor

from ptarmigan import UserError


@contextmanager
def raises(code: str, *facts: object, kind: type[UserError] = UserError) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """Expect a UserError with this code whose text names each fact: a file, an option, a value; not its sentences."""
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code, caught.value
    for fact in facts:
        assert str(fact) in str(caught.value), caught.value


@dataclass(frozen=True)
class GivenDraws:
    """The draws of one update as a test wants them; a slice of it holds those of a part."""

    z: Tensor | None = None  # [N, Z]
    mix: Tensor | None = None  # [N]
    halves: tuple[list[Tensor], list[Tensor]] | None = None  # dropout masks for real and for fake
    change: Callable[[Tensor, str, slice], Tensor] = lambda images, half, part: images  # what D is shown
    random: Callable[[str, int], Tensor] | None = None  # purpose, count -> [N, count]
    part: slice = field(default_factory=lambda: slice(None))

    def __getitem__(self, part: slice) -> GivenDraws:
        return replace(
            self,
            z=None if self.z is None else self.z[part],
            mix=None if self.mix is None else self.mix[part],
            part=part,
        )

    def masks(self, half: str) -> list[Tensor] | None:
        if self.halves is None:
            return None
        return [mask[self.part] for mask in self.halves[half == "fake"]]

    def augment(self, images: Tensor, half: str) -> Tensor:
        return self.change(images, half, self.part)

    def uniforms(self, purpose: str, count: int) -> Tensor:
        assert self.random is not None
        return self.random(purpose, count)[self.part]
