"""A loss of the user's own in one file, which is passed each time: no path that a run or a generator names is opened.

The file has OBJECTIVE, an Objective (equilibrium_logit=None where only differences of logits mean anything, which ADA
asks) or the name of a built-in one, and where it wants them

    terms(ctx) -> {name: Tensor [N]}        more terms, a value a sample, of D's loss or of G's, as ctx.player says
    AVERAGES = {name: decay}                moving averages, 0 at first, a checkpoint's part
    observe(ctx) -> {name: Tensor []}       what each is moved towards after an update of D
    WHOLE_BATCH = True                      they compare the images of a batch, which may not come in parts
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptarmigan.config import Config, check
from ptarmigan.core import dist
from ptarmigan.core.devices import out_of_memory
from ptarmigan.core.types import DiscriminatorOutput, UserError, unknown
from ptarmigan.losses.adversarial import OBJECTIVES, Objective

TAKEN = ("adv", "class", "r1", "r2", "gp", "grad", "signs")  # the names of the steps' own values
ADA_SCALARS = ("augment_p", "augment_signs")  # averages of ADA's


@dataclass(frozen=True)
class Context:
    """What `terms` and `observe` are given: N images of each half, a rank's share of the batch or a part of it."""

    player: str  # whose update it is: "d" or "g"
    images_seen: int  # before this step
    real_labels: Tensor  # [N] int64
    fake_labels: Tensor  # [N] int64, the classes that G was asked for
    real: Tensor  # [N, C, H, W] in [-1, 1], before augmentation
    fake: Tensor  # the same; detached from G in D's update
    real_aug: Tensor | None  # [N, C, H, W], as D saw them; None where r is
    fake_aug: Tensor
    r: DiscriminatorOutput | None  # D on real_aug; in G's update without gradient, and None unless relativistic
    f: DiscriminatorOutput  # D on fake_aug
    D: Callable[[Tensor, Tensor], DiscriminatorOutput]  # images [M, C, H, W] and labels [M], without dropout
    uniforms: Callable[[str, int], Tensor]  # purpose, count -> [N, count] in (0, 1), addressed by sample
    averages: Mapping[str, Tensor]  # name -> [], as they stood before this update


class InFile(UserError):
    """Something that the file did in a step, which other ranks need not have met."""

    of_one_rank = True


@dataclass(frozen=True)
class LossFile:
    """A file that was run once, its functions guarded: what they raise or return amiss is a UserError that says where.

    `terms` and `observe` do just as the file's, and give {} where it has none.
    """

    path: Path
    sha256: str
    objective: Objective
    averages: Mapping[str, float]  # name -> decay
    whole: bool  # its terms need the whole batch
    of_terms: Callable[[Context], Any] | None
    of_observe: Callable[[Context], Any] | None
    names: dict[str, list[str]] = field(default_factory=dict)  # player -> names of its terms, the same at each step

    @classmethod
    def open(cls, path: Path, sha256: str | None = None, otherwise: str = "") -> LossFile:
        """Run a file, rank 0's on every rank; raises UserError where it will not do.

        Where a SHA-256 is given and the file's is another it is not run, and the UserError says `otherwise`.
        """
        source = dist.on_first(lambda: read(path)).encode()
        found = hashlib.sha256(source).hexdigest()
        if sha256 is not None and found != sha256:
            raise UserError(f"loss: {path} has SHA-256 {found[:12]}, and {otherwise}")
        have = run(path, source)
        functions: dict[str, Callable[[Context], Any] | None] = {}
        for name in ("terms", "observe"):
            function = have.get(name)
            if function is not None and not callable(function):
                raise UserError(f"loss: {path}: {name} is a {type(function).__name__}: write a function of ctx")
            functions[name] = None if function is None else guarded(path, name, function)
        averages, whole = have.get("AVERAGES", {}), have.get("WHOLE_BATCH", False)
        check_averages(path, averages, functions["observe"] is not None)
        if not isinstance(whole, bool):
            raise UserError(f"loss: {path}: WHOLE_BATCH is {whole!r}: write True or False")
        return cls(path, found, objective(path, have), averages, whole, functions["terms"], functions["observe"])

    def terms(self, ctx: Context) -> dict[str, Tensor]:
        """The file's terms of a player, [N] each."""
        if self.of_terms is None:
            return {}
        given, like = self.of_terms(ctx), ctx.f.logits
        if not isinstance(given, dict):
            raise InFile(f"loss: {self.path}: terms gives a {type(given).__name__}: return a dict, name -> tensor [N]")
        for name in given:
            if not isinstance(name, str) or not name.isidentifier() or name in TAKEN:
                raise InFile(
                    f"loss: {self.path}: a term cannot be called {name!r}: take a word that is none of "
                    f"{', '.join(TAKEN)}"
                )
        names = self.names.setdefault(ctx.player, list(given))
        if set(names) != set(given):
            raise InFile(
                f"loss: {self.path}: terms gives {list(given)} to {ctx.player}, and gave {names} before: return the "
                "same names at each step, zeros where there is nothing"
            )
        return {name: per_sample(self.path, f"the term {name!r}", given[name], like) for name in names}

    def observe(self, ctx: Context) -> dict[str, Tensor]:
        """What the averages are moved towards, [] each; {} in G's update."""
        if self.of_observe is None or ctx.player == "g":
            return {}
        with torch.no_grad():
            given = self.of_observe(ctx)
        if not isinstance(given, dict) or set(given) != set(self.averages):
            found = list(given) if isinstance(given, dict) else f"a {type(given).__name__}"
            raise InFile(
                f"loss: {self.path}: observe gives {found}: return a dict with the names of AVERAGES, "
                f"{list(self.averages)}"
            )
        for name, value in given.items():
            if not good(value, torch.Size(), ctx.f.logits):
                raise InFile(
                    f"loss: {self.path}: observe gives {described(value)} for {name!r}: return one number on "
                    f"{ctx.f.logits.device}, a float tensor [], as .mean() does"
                )
        return given


def open_loss(config: Config) -> tuple[Config, LossFile | None]:
    """The file of the loss that is asked for by its path, if it is one; the config then has the file's name alone.

    Raises UserError where the file will not do, and where it does not go with the rest.
    """
    if not config.loss.loss.endswith(".py"):
        return config, None
    file = LossFile.open(Path(config.loss.loss))
    if file.objective.relativistic:  # what holds for the built-in one
        check(replace(config, loss=replace(config.loss, loss="relativistic")))
    if file.whole and config.train.micro_batch:
        raise UserError(
            f"micro_batch: the terms of {file.path} need the whole batch (WHOLE_BATCH), which parts of it do not have; "
            "leave it out, or take a smaller --batch"
        )
    if file.whole and dist.world() > 1:
        raise UserError(
            f"loss: the terms of {file.path} need the whole batch (WHOLE_BATCH), of which each of {dist.world()} ranks "
            "has a share: train on one"
        )
    return replace(config, loss=replace(config.loss, loss=file.path.name)), file


def reopen(path: Path | None, config: Config, sha256: str | None, run: Path) -> LossFile | None:
    """The loss file of a run, passed once more, if its loss is one's own.

    Raises UserError where it is not passed, or is another, which is not run then.
    """
    name = config.loss.loss
    if not name.endswith(".py"):
        if path is not None:
            raise UserError(f"loss: {run} was begun with the loss {name}, which is no file's: leave --loss out")
        return None
    begun = f"{run} was begun with the loss of a file, {name} (SHA-256 {str(sha256)[:12]})"
    if path is None:
        raise UserError(f"loss: {begun}: pass that file again, by --loss FILE")
    return LossFile.open(path, sha256 or "unknown", f"{begun}: pass the file as it was then")


def read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise UserError(
            f"loss: cannot read {path}: {error.strerror}; name a Python file, or one of {', '.join(OBJECTIVES)}"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"loss: {path} is no text in UTF-8: name a Python file") from None


def run(path: Path, source: bytes) -> dict[str, Any]:
    """What a file defines.  Run from its bytes, so that just what was hashed is run and no bytecode is left beside."""
    spec = spec_from_file_location(f"loss file {path.name}", path)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for their own
    try:
        exec(compile(source, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        raise UserError(f"loss: {told(path, error)}") from error
    finally:
        del sys.modules[spec.name]
    return vars(module)


def objective(path: Path, have: Mapping[str, Any]) -> Objective:
    """OBJECTIVE, its two functions guarded."""
    found = have.get("OBJECTIVE")
    if isinstance(found, str):
        if found not in OBJECTIVES:
            raise UserError(f"loss: {path}: OBJECTIVE: {unknown('loss', found, OBJECTIVES)}")
        return OBJECTIVES[found]
    if not isinstance(found, Objective):
        raise UserError(
            f"loss: {path} has no OBJECTIVE: write one, a ptarmigan.losses.Objective, or one of "
            f"{', '.join(OBJECTIVES)} as a string"
        )

    def of(player: str) -> Callable[..., Tensor]:
        what = f"OBJECTIVE.{player}"
        function = guarded(path, what, getattr(found, player))
        return lambda **logits: per_sample(path, what, function(**logits), logits["fake"])

    return replace(found, d=of("d"), g=of("g"))


def check_averages(path: Path, averages: Any, observed: bool) -> None:
    """Raise UserError where AVERAGES is not {name: decay}, or stands alone."""
    if not isinstance(averages, dict):
        raise UserError(f"loss: {path}: AVERAGES is a {type(averages).__name__}: write a dict, name -> decay")
    if bool(averages) != observed:
        lacks = "AVERAGES has no observe(ctx)" if averages else "observe has no AVERAGES = {name: decay}"
        raise UserError(f"loss: {path}: {lacks} beside it: write both, or neither")
    for name, decay in averages.items():
        if not isinstance(name, str) or not name.isidentifier() or name in ADA_SCALARS:
            raise UserError(
                f"loss: {path}: an average cannot be called {name!r}: take a word that is none of "
                f"{', '.join(ADA_SCALARS)}"
            )
        if not isinstance(decay, float | int) or not 0 <= decay < 1:
            raise UserError(f"loss: {path}: the decay of {name}, {decay!r}, is out of range: from 0 to below 1")


def guarded(path: Path, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the file, whose exceptions become a UserError with file, line and exception."""

    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except UserError:
            raise
        except Exception as error:
            if out_of_memory(error):
                raise
            raise InFile(f"loss: {told(path, error, f', in {what}')}") from error

    return call


def told(path: Path, error: BaseException, where: str = "") -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines = [error.lineno]
    at = f", line {lines[-1]}" if lines else ""
    return f"{path}{at}{where}: {type(error).__name__}: {' '.join(str(error).split())}"


def per_sample(path: Path, what: str, value: Any, like: Tensor) -> Tensor:
    """`value` if it is [N], a float a sample on the device of the logits `like`; else a UserError."""
    if not good(value, like.shape, like):
        raise InFile(
            f"loss: {path}: {what} is {described(value)}: return a value a sample, with no .mean() or .sum(), as a "
            f"float tensor [{len(like)}] on {like.device}"
        )
    out: Tensor = value
    return out


def good(value: Any, shape: torch.Size, like: Tensor) -> bool:
    return (
        isinstance(value, Tensor)
        and value.shape == shape
        and value.is_floating_point()
        and value.device == like.device
    )  # fmt: skip


def described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)} on {value.device}"
