"""PyTorch's functions that make tensors, so that they take Unknown sizes and values."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ptarmigan.handbook.identify.unseen import Unknown, flat, numeric, plain

OF_SIZES = ("ones", "zeros", "rand", "randn", "randint", "empty", "full", "normal", "arange")
MAKERS = (*OF_SIZES, "tensor", "as_tensor", "FloatTensor", "DoubleTensor", "LongTensor", "HalfTensor", "from_numpy")


class Legacy(type):
    """A type of tensors that makes them from Unknown sizes as well."""

    def __instancecheck__(cls, x: Any) -> bool:
        return isinstance(x, Tensor | Unknown)

    def __call__(cls, *given: Any, **named: Any) -> Any:
        return vars(cls)["make"](*given, **named)


def of_plain(maker: Callable[..., Any]) -> Callable[..., Any]:
    """A function that makes a tensor, with numbers in the place of Unknown sizes."""

    def make(*given: Any, **named: Any) -> Any:
        if len(given) == 1 and isinstance(given[0], Unknown | Tensor) and maker.__name__ not in OF_SIZES:
            return given[0]
        if maker.__name__ == "full" and isinstance(given[-1], Unknown):
            return maker(*map(plain, given[:-1]), numeric(given[-1]))
        return maker(*map(plain, given), **{k: plain(v) for k, v in named.items() if k != "device"})

    is_type = isinstance(maker, type)
    return Legacy(maker.__name__, (), {"make": staticmethod(make)}) if is_type else functools.wraps(maker)(make)


@contextlib.contextmanager
def unknown_sizes() -> Iterator[None]:
    """Let PyTorch make tensors from Unknown sizes."""
    before = {name: getattr(torch, name) for name in MAKERS}
    variable, parallel = torch.autograd.Variable, nn.parallel.data_parallel
    try:
        for name, maker in before.items():
            setattr(torch, name, of_plain(torch.DoubleTensor if name in ("FloatTensor", "HalfTensor") else maker))
        itself = Legacy("Variable", (), {"make": staticmethod(lambda x, *_, **__: x)})
        setattr(torch.autograd, "Variable", itself)  # noqa: B010
        setattr(nn.parallel, "data_parallel", lambda net, given, *_, **__: net(*flat([given])))  # noqa: B010
        yield
    finally:
        for name, maker in before.items():
            setattr(torch, name, maker)
        setattr(torch.autograd, "Variable", variable)  # noqa: B010
        setattr(nn.parallel, "data_parallel", parallel)  # noqa: B010
