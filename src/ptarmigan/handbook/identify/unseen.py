"""Values that the source does not show: images, networks, configurations, and what missing modules make.

An Unknown takes part in every operation and remembers what it was made of, so the code of a loss runs without them.
D's outputs alone are tensors.  Whether D is asked about real or generated images follows from what reaches it.
"""

from __future__ import annotations

import dis
import operator
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ptarmigan.handbook.identify.missing import LIBRARIES
from ptarmigan.handbook.identify.names import (
    CRITERIA,
    ends_network,
    harmless_role,
    is_batch_size,
    network_of,
    side_of,
    words_of,
)
from ptarmigan.handbook.identify.signature import NUMBERS, LossError
from ptarmigan.handbook.identify.stand_ins import Setup, harmless, is_score

KINDS = ("", "real", "made", "fake", "mixed")  # of images, the strongest last; made: by an unknown function
MAKERS = ("ones", "zeros", "rand", "randn", "randint", "empty", "full", "normal", "arange", "tensor", "as_tensor")
VERBS = re.compile(
    r"(?i)_*(prepare|make|build|init|create|save|load|plot|show|log|train|test|eval|fit|update|optimi[sz]e|set|reset|"
    r"compute|calc|freeze|unfreeze|clip|zero|step|toggle)(?![a-z])"
)
MOVES = {"variable", "var", "cuda", "device", "gpu", "tensor"}  # words of a function that returns its argument
OF_MODULES = re.compile(r"(to|cuda|cpu|type|apply|train|eval|load_state_dict|requires_grad_|set_.*|register_.*|init.*)")
CLEAR = {"valid", "ones", "one", "zeros", "zero", "true"}  # words of a target that show its value
OF_CLASSES = {"cross_entropy", "nll_loss", "gather", "one_hot", "getitem", "embedding", "index_select"}
PREDICTED = re.compile(r"(^|_)(hat|pred|out|rec|recon|est|enhanced|decoded|synth)[a-z]*(_|$)")  # names of what G made
SUMS = {"add", "sub", "rsub", "mul", "div", "true_divide", "iadd", "isub", "imul", "rdiv", "rtruediv", "truediv"}


@dataclass
class Trace:
    """One call of a loss: the values that D returns in it, and a record of what the loss did with them."""

    setup: Setup
    leaves: dict[str, Tensor]
    shifts: dict[str, Tensor] = field(default_factory=dict)  # D's parameters: one for each role, 0
    labels: Tensor | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    sides: dict[str, str] = field(default_factory=dict)  # the side of each kind of images that does not show it
    answers: int = 1  # how many values D returns
    asked: dict[str, dict[str, None]] = field(default_factory=dict)  # what D was asked: kind -> names
    extras: dict[str, None] = field(default_factory=dict)  # the names of terms that were added to D's
    calls: dict[str, None] = field(default_factory=dict)  # the functions that were called and are not here
    criteria: dict[str, str] = field(default_factory=dict)  # those that are not here -> what they were taken to be
    fixed: dict[str, Any] = field(default_factory=dict)  # name -> the value that stands for an unknown weight or target
    guesses: dict[str, None] = field(default_factory=dict)  # those of which the names do not show the number
    slopes: dict[bool, Tensor] = field(default_factory=dict)  # 0, in the place of penalties with and without a graph
    answers_given: list[Tensor] = field(default_factory=list)  # D's outputs
    penalty_faults: set[str] = field(default_factory=set)  # points or of-loss
    asked_g: bool = False
    tolerant: bool = False  # whether a statement without D's outputs may fail
    lost: dict[str, str] = field(default_factory=dict)  # what those that failed would have made -> why

    def answer(self, parts: list[Any]) -> Any:
        """What D returns for these arguments."""
        if any(isinstance(part, Tensor) and part.requires_grad for part in parts):
            return parts[0]  # a head on another network's output
        unknown = [part for part in parts if isinstance(part, Unknown)]
        if rows := next((part.facts.rows for part in unknown if part.facts.rows), ()):
            return torch.cat([self.answer([row]) for row in rows])
        if self.answers == 4 and len(unknown) == 2:  # real_scales, fake_scales, features, features = D(real, fake)
            halves = zip(unknown, ("real", "fake"), strict=True)
            pair = [self.answer([Unknown(replace(part.facts, kind=side))]) for part, side in halves]
            return [pair[0][0]], [pair[1][0]], *[Unknown(Facts("D's features"))] * 2
        merged = made("D", *parts).facts
        if merged.kind == "mixed":
            self.penalty_faults |= {"points"} if merged.outside else set()
            return Unknown(replace(merged, name="D's output for a mixture of real and fake images"))
        images = [part.facts for part in unknown if part.facts.kind == merged.kind]
        image = next((one for one in images if PREDICTED.search(one.base)), (images or [merged])[0])
        self.asked.setdefault(merged.kind, {})[image.base] = None
        side = self.sides.get(image.base) or self.sides.get(merged.kind, "fake" if merged.kind == "fake" else "real")
        if side not in self.leaves:
            return Unknown(Facts("D's output"))
        return self._outputs(side, merged.detached)

    def _outputs(self, side: str, detached: bool) -> Any:
        def output(role: str) -> Tensor:
            leaf = self.leaves[role]
            value = leaf.detach() + self.shifts[role]
            return value if detached else value + (leaf - leaf.detach())

        setup, logits = self.setup, output(side)
        self.answers_given.append(logits.sigmoid() if setup.on == "probabilities" else logits)
        source = setup.shaped(self.answers_given[-1])
        features = Unknown(Facts("D's features", side, detached=detached))
        if setup.head == "class":
            c = output(f"class_{side}")
            return source, c.softmax(1) if setup.class_on == "probabilities" else c
        if self.answers > 2:
            return source, *[features] * (self.answers - 1)
        return {
            "features": (source, features),
            "both": (logits.sigmoid(), source),
            "logits": (source, logits.sigmoid()),
            "maps": (source, [features]),
            "first": (features, source),
        }.get(setup.head, source)

    def note_slope(self, outputs: Any) -> None:
        """Note whether what a penalty differentiates is a loss: its slope in D's outputs differs between images."""
        for x in filter(is_score, flat([outputs] if self.answers_given else [])):
            found = torch.autograd.grad(x.sum(), self.answers_given, retain_graph=True, allow_unused=True)
            if any(slope is not None and slope.std() > 1e-6 * slope.abs().mean() for slope in found):
                self.penalty_faults.add("of-loss")

    def term(self, facts: Facts) -> Tensor | float:
        """A term that the loss adds to D's: 0, and named."""
        if facts.scored:
            raise needs(facts)
        if facts.name.startswith("D's output for"):
            raise LossError("it uses D's output for a mixture of real and fake images")
        name = facts.name.removeprefix("self.").replace("()", "")
        self.extras["a gradient penalty" if facts.penalty else name] = None
        if not facts.penalty or not facts.penalty[0]:
            return 0.0
        return facts.penalty[0] * self.slopes.setdefault(facts.penalty[1], torch.zeros((), requires_grad=True))

    def number(self, facts: Facts, is_weight: bool = False) -> float:
        """The number in the place of a weight, or of a target whose name shows it."""
        if facts.scored:
            raise needs(facts)
        last = shown_name(facts)
        words, side = {*words_of(last)}, side_of(last)
        is_clear = bool(side or words & CLEAR or harmless_role(last))
        value = 0.0 if side == "fake" or words & {"zeros", "zero"} or harmless_role(last) == "zero" else 1.0
        value = 1.0 if is_weight or harmless_role(last) == "weight" else value
        self.fixed[facts.name] = value
        if not is_clear:
            self.guesses[facts.name] = None
        return value


@dataclass(frozen=True)
class Facts:
    """What an Unknown was made of."""

    name: str
    kind: str = ""
    net: str = ""  # D or G, or other
    base: str = ""  # the name of the images that it comes from
    detached: bool = False
    scored: bool = False  # made from D's outputs
    scaled: bool = False  # multiplied by random numbers
    outside: bool = False  # of which some are not in [0, 1]
    penalty: tuple[int, bool] | None = None  # a gradient: the sign of its term, and whether it has a graph
    rows: tuple[Any, ...] = ()  # the batches that were joined
    owner: Any = None  # x of x.method
    cause: LossError | None = None  # why what was made from D's outputs is not known


NOW: list[Trace] = [Trace(Setup(), {})]  # the last is that of the present run


def shown_name(facts: Facts) -> str:
    """label of batch.label.float()."""
    return re.sub(r"(\.\w+\(\))+$", "", facts.name).rsplit(".")[-1]


def needs(facts: Facts) -> LossError:
    """Why a loss cannot be judged: it gives D's outputs to a function that is not here."""
    if facts.cause:
        return facts.cause
    library = facts.name.split(".")[0]
    advice = f": install {library}" if library in LIBRARIES else ""
    return LossError(f"it needs {facts.name}, which is not here, for D's outputs{advice}")


def flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from flat(value)
        elif isinstance(value, dict):
            yield from flat(value.values())
        else:
            yield value


def is_output(x: Any) -> bool:
    """Whether a value is made of D's outputs, or not known and made of them."""
    return is_score(x) or (isinstance(x, Unknown) and bool(x.facts.scored))


def network_named(name: str) -> str:
    """D or G, if a name is that of a network and not of what is done with one."""
    last = name.rsplit(".")[-1]
    return "" if VERBS.match(last) else network_of(last) or ""


def made(name: str, *given: Any, **more: Any) -> Unknown:
    """What an operation makes of these values."""
    parts = list(flat(given))
    facts = [part.facts for part in parts if isinstance(part, Unknown)]
    kind = max((one.kind for one in facts), key=KINDS.index, default="")
    strongest = [one for one in facts if one.kind == kind]
    result = Facts(
        name,
        kind,
        base=next((one.base for one in strongest if one.base), ""),
        detached=bool(strongest) and all(one.detached for one in strongest),
        scored=any(one.scored for one in facts) or any(map(is_score, parts)),
        cause=next((one.cause for one in facts if one.cause), None),
        scaled=any(one.scaled for one in facts),
        outside=any(one.outside for one in facts),
        penalty=next((one.penalty for one in facts if one.penalty), None),
    )
    return Unknown(replace(result, **more))


class Unknown:
    """A value that the source does not show."""

    def __init__(self, facts: Facts) -> None:
        self.__dict__["facts"] = facts

    def __getattr__(self, name: str) -> Any:
        name, now, facts = str(name), NOW[-1], self.__dict__["facts"]
        if name.startswith("__"):
            raise AttributeError(name)
        if not facts.kind and name in now.settings:
            return now.settings[name]
        if is_batch_size(name):
            return now.setup.size
        known = {"shape": torch.Size((now.setup.size, 3, 28, 28)), "ndim": 4, "dtype": now.setup.dtype,
                 "is_cuda": False, "device": torch.device("cpu"), "requires_grad": False}  # fmt: skip
        if name in known:
            return known[name]
        if name == "data":
            return Unknown(replace(facts, detached=True))
        net = "" if ends_network(name) else network_named(name) or facts.net
        kind = "fake" if side_of(name) == "fake" and facts.kind == "real" else facts.kind  # of a batch with "fake"
        return Unknown(
            replace(facts, name=f"{facts.name}.{name}", net=net, kind=kind, base=facts.base or name, owner=self)
        )

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            value = getattr(self, key)
            is_image = isinstance(value, Unknown) and not value.facts.net
            kind = side_of(key) or (value.facts.kind if is_image else "")
            return Unknown(replace(value.facts, base=key, kind=kind)) if is_image else value
        return Unknown(replace(self.facts, rows=()))

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __call__(self, *given: Any, **named: Any) -> Any:
        from ptarmigan.handbook.identify.criteria import judged_at_its_name
        from ptarmigan.handbook.identify.operations import NEW_TENSORS, made_tensor

        now, facts = NOW[-1], self.facts
        last, parts = facts.name.rsplit(".")[-1], list(flat([*given, *named.values()]))
        has_scores = any(map(is_score, parts))
        if facts.owner is None and last[:1].isupper() and not has_scores and len(last) > 2:
            if network_named(last) and not facts.net:
                return Unknown(replace(facts, name=f"{last}()", net=network_named(last)))  # Discriminator(...)
            if CRITERIA & {*words_of(last)}:  # GANLoss("lsgan")
                return Unknown(replace(facts, name=f"{last}({', '.join(x for x in parts if isinstance(x, str))})"))
        if facts.owner is not None and (value := self._of_method(last, given)) is not None:
            return value
        if NEW_TENSORS.fullmatch(last):
            return made_tensor(last, *given, **named)
        if parts and is_score(parts[0]) and {*words_of(last)} & {"activation", "act", "transform", "augment"}:
            now.fixed[facts.name] = "the identity"
            return parts[0]
        if len(parts) == 1 and isinstance(parts[0], Tensor) and MOVES & {*words_of(last)} and not facts.net:
            return parts[0]
        if CRITERIA & {*words_of(last)} and has_scores and not facts.net:
            return judged_at_its_name(now, facts.name, given, named)
        return self._answer(last, list(given), parts)

    def _of_method(self, last: str, given: tuple[Any, ...]) -> Any:
        """What a method of a tensor or of a module returns, or None."""
        owner = self.facts.owner
        if last == "keys":  # **x
            return []
        if last in ("size", "dim"):
            return owner.shape[given[0]] if given else owner.shape if last == "size" else 4
        if last in ("detach", "requires_grad_", "clone", "retain_grad"):
            return Unknown(replace(owner.facts, detached=True)) if last == "detach" else owner
        return owner if self.facts.net and OF_MODULES.fullmatch(last) else None

    def _answer(self, last: str, given: list[Any], parts: list[Any]) -> Any:
        """What D, G or a function that is not here makes of images."""
        now, facts = NOW[-1], self.facts
        images = [x for x in parts if isinstance(x, Unknown) or is_score(x) or (isinstance(x, Tensor) and x.ndim > 1)]
        if facts.net == "D" and images and words_of(last)[-1:] != ["loss"]:
            return made("penalty", *given, penalty=None) if "penalty" in last else now.answer(parts)
        is_cut = not torch.is_grad_enabled()
        if facts.net == "G" and (given or last in ("sample", "forward")):
            now.asked_g = True
            return Unknown(Facts(facts.name, "fake", base=facts.name, detached=last == "predict" or is_cut))
        now.calls[facts.name] = None
        if harmless_role(last) == "weight":  # a weight that is made from the losses or their gradients
            return Unknown(Facts(facts.name + "()"))
        result = made(facts.name + "()", facts.owner, *parts)
        if len(parts) == 1 and isinstance(parts[0], Unknown) and parts[0].facts.rows:
            return Unknown(replace(result.facts, rows=tuple(map(self, parts[0].facts.rows))))
        if side_of(last) == "fake":
            return Unknown(replace(result.facts, kind="fake", base=facts.name, detached=is_cut))
        is_function = images and result.facts.kind in ("", "real") and not (facts.owner and facts.owner.facts.kind)
        return Unknown(replace(result.facts, kind="made")) if is_function else result

    def __iter__(self) -> Iterator[Any]:
        frame = sys._getframe(1)
        code, at = frame.f_code.co_code, frame.f_lasti
        count = code[at + 1] if dis.opname[code[at]] == "UNPACK_SEQUENCE" else 1
        return iter([self[0] for _ in range(count)])

    def __next__(self) -> Any:
        return self[0]

    def __len__(self) -> int:
        return 10 if "class" in self.facts.name else NOW[-1].setup.size

    __int__ = __len__

    def __index__(self) -> int:
        return len(self) if is_batch_size(self.facts.base) else 2  # of a loop, or a size beside the batch's

    def __array__(self, *given: Any, **named: Any) -> Any:
        return np.ones(NOW[-1].setup.size)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = func.__name__
        if name.endswith("_like"):
            return func(np.ones(len(self)), *args[1:])
        is_joined = name in ("concatenate", "vstack") and not kwargs.get("axis", args[1] if len(args) > 1 else 0)
        return made(name, *args, rows=tuple(args[0])) if is_joined else made(name, *args)

    def __array_ufunc__(self, ufunc: Any, method: str, *given: Any, **named: Any) -> Any:
        name = {"multiply": "mul", "subtract": "sub"}.get(ufunc.__name__, ufunc.__name__)
        return binary(name, *given) if name in SUMS and len(given) == 2 else made(name, *given)

    def __float__(self) -> float:
        return NOW[-1].number(self.facts)

    def __bool__(self) -> bool:
        return NOW[-1].setup.truth

    def __contains__(self, key: Any) -> bool:
        return NOW[-1].setup.truth

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *given: Any) -> None:
        pass

    def __mro_entries__(self, bases: Any) -> tuple[type, ...]:
        return (nn.Module,)

    def __format__(self, form: str) -> str:
        return str(self.facts.name)

    def __hash__(self) -> int:
        return id(self)

    def __neg__(self) -> Unknown:
        return _turned(self)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from ptarmigan.handbook.identify.operations import torch_call

        return torch_call(func, args, kwargs or {})


def unknown_argument(name: str) -> Any:
    """A value for an argument of a constructor."""
    return harmless(name) if harmless_role(name) in NUMBERS else Unknown(Facts(name, base=name))


def _turned(x: Unknown) -> Unknown:
    penalty = x.facts.penalty
    return Unknown(replace(x.facts, penalty=(-penalty[0], penalty[1]))) if penalty else x


def _compare(name: str, x: Unknown, other: Any) -> Any:
    """x % 2 == 0 holds, and whether x > 1 holds is tried both ways."""
    if isinstance(other, Tensor):
        return made("a mask", x, other)
    return (name == "eq") != isinstance(other, str) if name in ("eq", "ne") else NOW[-1].setup.truth


def binary(name: str, a: Any, b: Any) -> Any:
    """a + b, a - b, a * b or a / b, one of which is Unknown."""
    now, x = NOW[-1], a if isinstance(a, Unknown) else b
    score = next((one for one in (a, b) if is_score(one)), None)
    is_term = x.facts.penalty or {"loss", "penalty", "reg"} & {*words_of(x.facts.name)}
    if score is not None and name in ("add", "sub") and (score.ndim == 0 or is_term):
        term = now.term(x.facts)
        return getattr(operator, name)(a if a is score else term, b if b is score else term)
    if score is not None and name in ("mul", "truediv", "pow"):
        number = now.number(x.facts, is_weight=True)
        return getattr(operator, name)(a if a is score else number, b if b is score else number)
    both = [one.facts for one in (a, b) if isinstance(one, Unknown)]
    label = f"{a:g} - {x.facts.name}" if name == "sub" and isinstance(a, int | float) else x.facts.name
    result = made(name if score is not None else label, a, b)
    kinds = {one.kind for one in both}
    if len(both) == 2 and name in ("add", "sub") and "fake" in kinds | ({"fake"} if "made" in kinds else set()):
        is_mixture = name == "sub" or all(one.scaled for one in both)
        are_two = len(kinds - {""}) == 2 or all(one.scaled for one in both)
        result = Unknown(replace(result.facts, kind="mixed")) if are_two and is_mixture else result
    if name == "mul":
        draws = {"alpha", "eps", "epsilon", "t"} & {word for one in both for word in words_of(one.name)}
        drawn = [one for one in (a, b) if isinstance(one, Tensor) and one.numel() > 1]
        is_outside = any(one.min() < 0 or one.max() > 1 for one in drawn)
        result = Unknown(replace(result.facts, scaled=bool(drawn or draws) or result.facts.scaled,
                                 outside=is_outside or result.facts.outside))  # fmt: skip
    if (name == "sub" and x is b and a is not x) or (name == "mul" and any(_is_negative(one) for one in (a, b))):
        return _turned(result)
    if name == "pow" and result.facts.penalty:
        return Unknown(replace(result.facts, penalty=(1, result.facts.penalty[1])))
    return result


def _is_negative(x: Any) -> bool:
    return isinstance(x, int | float) and x < 0


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"):
    setattr(Unknown, f"__{_name}__", lambda a, b, name=_name: binary(name, a, b))
    setattr(Unknown, f"__r{_name}__", lambda a, b, name=_name: binary(name, b, a))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Unknown, f"__{_name}__", lambda a, b, name=_name: _compare(name, a, b))


def plain(x: Any) -> Any:
    """A number in the place of an Unknown size."""
    if isinstance(x, list | tuple):
        return type(x)(map(plain, x)) if type(x) in (list, tuple) else x
    return len(x) if isinstance(x, Unknown) else x


def numeric(x: Any) -> Any:
    return NOW[-1].number(x.facts) if isinstance(x, Unknown) else x
