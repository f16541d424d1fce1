"""The results of PyTorch's functions and of a tensor's methods for Unknown values."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ptarmigan.handbook.identify.names import side_of, words_of
from ptarmigan.handbook.identify.signature import LossError
from ptarmigan.handbook.identify.stand_ins import WITH_TARGET, is_score
from ptarmigan.handbook.identify.unseen import (
    CLEAR,
    NOW,
    SUMS,
    Facts,
    Unknown,
    binary,
    flat,
    made,
    numeric,
    plain,
    shown_name,
)

MAKERS = ("ones", "zeros", "rand", "randn", "randint", "empty", "full", "normal", "arange", "tensor", "as_tensor")
NEW_TENSORS = re.compile(r"new_(full|ones|zeros|empty|tensor)|fill_|(zero|normal|uniform)_|random_")
OF_CLASSES = {"cross_entropy", "nll_loss", "gather", "one_hot", "getitem", "embedding", "index_select"}


def made_tensor(name: str, *given: Any, **named: Any) -> Any:
    """What a method of an Unknown tensor makes: x.new_full(size, 1.0), x.fill_(1.0)."""
    last = (*given, *named.values())[-1] if given or named else 0
    if name in ("normal_", "uniform_", "random_", "new_empty"):
        return torch.randn(())
    return torch.full((), {"new_ones": 1.0, "new_zeros": 0.0, "zero_": 0.0}.get(name, numeric(last)))


def _gradient(outputs: Any, inputs: Any, is_alive: bool) -> Unknown:
    """The gradient of D's outputs, or of a loss, in images or in the weights of a layer."""
    now, known = NOW[-1], set[str]().union(*NOW[-1].asked.values())
    facts = [x.facts for x in flat([inputs]) if isinstance(x, Unknown)]
    if not any(one.kind or one.base in known for one in facts):
        return Unknown(Facts("gradient.weight"))  # of a layer, as in an adaptive weight
    now.note_slope(outputs)
    return made("gradient penalty", inputs, penalty=(1, is_alive), kind="")


def torch_call(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """A function of PyTorch that was given an Unknown."""
    name, now = func.__name__.strip("_"), NOW[-1]
    parts = list(flat([*args, *kwargs.values()]))
    scores = [x for x in parts if is_score(x)]
    if name in SUMS:
        a, b = args[:2]
        if name.startswith("r"):
            name, a, b = name[1:], b, a
        return binary({"div": "truediv", "true_divide": "truediv"}.get(name, name.removeprefix("i")), a, b)
    if name.endswith("_like"):
        return func(torch.zeros(()), *map(numeric, args[1:]), **{k: v for k, v in kwargs.items() if k == "fill_value"})
    if name == "grad":
        of = args[1] if len(args) > 1 else kwargs["inputs"]
        is_alive = bool(kwargs.get("create_graph", args[4] if len(args) > 4 else False))
        found = _gradient(args[0] if args else kwargs["outputs"], of, is_alive)
        return (found,) * (len(of) if isinstance(of, list | tuple) else 1)
    if name in OF_CLASSES and now.labels is not None and (scores or name == "one_hot"):
        return func(*(now.labels if isinstance(x, Unknown) else x for x in args), **kwargs)
    if name == "fill" and isinstance(args[0], Tensor):
        return func(args[0], numeric(args[1]))
    if name in WITH_TARGET and is_score(args[0]):
        return func(
            args[0],
            target_of(args[0], args[1]),
            *map(numeric, args[2:]),
            **{k: numeric(v) for k, v in kwargs.items() if k not in ("weight", "pos_weight")},
        )
    if name in MAKERS:
        return func(*map(plain, args), **{k: v for k, v in kwargs.items() if not isinstance(v, Unknown)})
    if name == "cat" and (len(args) < 2 or args[1] == 0) and not kwargs.get("dim"):
        return torch.cat([numeric(x) for x in args[0]]) if scores else made("cat", *args, rows=tuple(args[0]))
    if name in ("to", "type", "type_as", "expand_as", "view_as", "reshape_as"):
        return args[0]
    if scores and not isinstance(args[0], Unknown) and name not in ("where", "cat", "stack", "matmul", "bmm"):
        return func(args[0], *map(numeric, args[1:]), **{k: numeric(v) for k, v in kwargs.items()})
    if name == "lerp":
        return made(name, *args, kind="mixed")
    return made(name if scores else next((x.facts.name for x in parts if isinstance(x, Unknown)), name), *args)


def target_of(output: Tensor, target: Any) -> Any:
    """The target of D's output as a tensor or a flag; raises LossError where an Unknown does not show its value."""
    now, words = NOW[-1], {*words_of(shown_name(target.facts))} if isinstance(target, Unknown) else set()
    if output.ndim == 2 and output.shape[1] > 1 and now.labels is not None:
        return nn.functional.one_hot(now.labels, output.shape[1]).to(output.dtype)
    if words and not side_of(shown_name(target.facts)) and not words & CLEAR:
        raise LossError(f"it needs the value of {target.facts.name}, D's target")
    return torch.full_like(output, numeric(target)) if isinstance(target, Unknown) else target
