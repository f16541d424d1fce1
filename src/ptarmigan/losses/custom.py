"""A loss of the user's own: one Python file, passed with `--loss FILE.py`.

The file defines OBJECTIVE: an Objective, or the name of a built-in one.  If only differences of an Objective's logits
have a meaning, it sets equilibrium_logit=None, so that ADA compares real with fake logits.  The file may also define

    terms(ctx) -> {name: Tensor [N]}        further terms, one value per sample, of the loss of ctx.player
    AVERAGES = {name: decay}                moving averages, which start at 0 and are saved in checkpoints
    observe(ctx) -> {name: Tensor []}       the value that each average moves towards after an update of D
    WHOLE_BATCH = True                      the terms compare the images of a batch, so it must not be split

Runs and generators record the file's name and SHA-256, but no path: the user passes the file each time.
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

from ptarmigan.config import Config
from ptarmigan.config.checks import check
from ptarmigan.core import dist
from ptarmigan.core.devices import out_of_memory
from ptarmigan.core.paths import user_path
from ptarmigan.core.types import DiscriminatorOutput, UserError, unknown
from ptarmigan.losses.adversarial import OBJECTIVES, Objective

RESERVED = ("adv", "class", "r1", "r2", "gp", "grad", "signs")  # names of the built-in terms
ADA_SCALARS = ("augment_p", "augment_signs")  # names of ADA's averages


@dataclass(frozen=True)
class Context:
    """The argument of `terms` and `observe`: N real and N fake images, a rank's share of the batch or a micro-batch."""

    player: str  # whose update it is: "d" or "g"
    images_seen: int  # before this step
    real_labels: Tensor  # [N] int64
    fake_labels: Tensor  # [N] int64, the classes that G was asked for
    real: Tensor  # [N, C, H, W] in [-1, 1], before augmentation; the colours of RGBA are those on white
    fake: Tensor  # the same; detached from G in D's update
    real_aug: Tensor | None  # [N, 1, 3 or 6, H, W], as D saw them; 6 for RGBA: with their ground; None where r is None
    fake_aug: Tensor
    r: DiscriminatorOutput | None  # D on real_aug; in G's update None unless relativistic, and without gradient
    f: DiscriminatorOutput  # D on fake_aug
    D: Callable[[Tensor, Tensor], DiscriminatorOutput]  # images [M, C, H, W] and labels [M], without dropout
    uniforms: Callable[[str, int], Tensor]  # purpose, count -> [N, count] in (0, 1), depending only on the sample
    averages: Mapping[str, Tensor]  # name -> [], before this update


class InvalidLossFile(UserError):
    """The file, or what it defines, is not valid."""

    code = "loss-file-invalid"


class LossFileFailed(UserError):
    """A function of the file failed in a step, perhaps on one rank only."""

    code = "loss-file-failed"
    of_one_rank = True


@dataclass(frozen=True)
class LossFile:
    """A file that has been executed.  Exceptions and invalid return values of its functions become UserErrors."""

    path: Path
    sha256: str
    objective: Objective
    averages: Mapping[str, float]  # name -> decay
    whole: bool  # the terms need the whole batch
    user_terms: Callable[[Context], Any] | None
    user_observe: Callable[[Context], Any] | None
    names: dict[str, list[str]] = field(default_factory=dict)  # player -> names of its terms, the same at each step

    @classmethod
    def open(cls, path: Path, sha256: str | None = None, remedy: str = "") -> LossFile:
        """Execute a file; every rank executes rank 0's.

        Raises UserError where the file is not valid.  A file whose SHA-256 is not the one given is not executed, and
        the UserError ends with `remedy`.
        """
        source = dist.on_first(lambda: read_loss_file(path)).encode()
        found = hashlib.sha256(source).hexdigest()
        if sha256 is not None and found != sha256:
            raise UserError(f"loss: {path} has SHA-256 {found[:12]}, but {remedy}", "loss-file-mismatch")
        defined = execute(path, source)
        functions: dict[str, Callable[[Context], Any] | None] = {}
        for name in ("terms", "observe"):
            function = defined.get(name)
            if function is not None and not callable(function):
                raise InvalidLossFile(
                    f"loss: {path}: {name} is of type {type(function).__name__}: define a function of ctx"
                )
            functions[name] = None if function is None else guarded(path, name, function)
        averages, whole = defined.get("AVERAGES", {}), defined.get("WHOLE_BATCH", False)
        check_averages(path, averages, functions["observe"] is not None)
        if not isinstance(whole, bool):
            raise InvalidLossFile(f"loss: {path}: WHOLE_BATCH is {whole!r}: set it to True or False")
        objective = objective_of(path, defined)
        return cls(path, found, objective, averages, whole, functions["terms"], functions["observe"])

    def terms(self, ctx: Context) -> dict[str, Tensor]:
        """The file's terms for one player, [N] each; {} where it has none."""
        if self.user_terms is None:
            return {}
        returned = self.user_terms(ctx)
        if not isinstance(returned, dict):
            raise LossFileFailed(
                f"loss: {self.path}: terms returned a {type(returned).__name__}: return a dict, name -> tensor [N]"
            )
        for name in returned:
            if not isinstance(name, str) or not name.isidentifier() or name in RESERVED:
                raise LossFileFailed(
                    f"loss: {self.path}: {name!r} cannot be the name of a term: use an identifier other than "
                    f"{', '.join(RESERVED)}"
                )
        names = self.names.setdefault(ctx.player, list(returned))
        if set(names) != set(returned):
            raise LossFileFailed(
                f"loss: {self.path}: terms returned {list(returned)} for {ctx.player}, but {names} before: return the "
                "same names at each step, with zeros where a term does not apply"
            )
        return {name: per_sample(self.path, f"term {name!r}", returned[name], ctx.f.logits) for name in names}

    def observe(self, ctx: Context) -> dict[str, Tensor]:
        """The values that the averages move towards, [] each; {} in G's update and where the file has no averages."""
        if self.user_observe is None or ctx.player == "g":
            return {}
        with torch.no_grad():
            returned = self.user_observe(ctx)
        if not isinstance(returned, dict) or set(returned) != set(self.averages):
            found = list(returned) if isinstance(returned, dict) else f"a {type(returned).__name__}"
            raise LossFileFailed(
                f"loss: {self.path}: observe returned {found}: return a dict with the names of AVERAGES, "
                f"{list(self.averages)}"
            )
        for name, value in returned.items():
            if not is_float_tensor(value, torch.Size(), ctx.f.logits):
                raise LossFileFailed(
                    f"loss: {self.path}: observe returned {described(value)} for {name!r}: return a float tensor [] on "
                    f"{ctx.f.logits.device}, such as .mean() returns"
                )
        return returned


def open_loss(config: Config) -> tuple[Config, LossFile | None]:
    """Open the loss file if the config names one; the returned config has the file's name without its folder.

    Raises UserError where the file is not valid or conflicts with another option.
    """
    if not config.loss.loss.endswith(".py"):
        return config, None
    file = LossFile.open(user_path(config.loss.loss, "loss"))
    if file.objective.relativistic:  # the constraints of the built-in relativistic loss apply
        check(replace(config, loss=replace(config.loss, loss="relativistic")))
    if file.whole and config.train.micro_batch:
        raise UserError(
            f"micro_batch: the terms of {file.path} need the whole batch (WHOLE_BATCH); leave --micro-batch out, or "
            "use a smaller --batch",
            "options-conflict",
        )
    if file.whole and dist.world() > 1:
        raise UserError(
            f"loss: the terms of {file.path} need the whole batch (WHOLE_BATCH), but each of {dist.world()} ranks has "
            "only a share of it: train on one rank",
            "options-conflict",
        )
    return replace(config, loss=replace(config.loss, loss=file.path.name)), file


def reopen(path: Path | None, config: Config, sha256: str | None, run: Path) -> LossFile | None:
    """The loss file of a run, which the user passes again; None for a built-in loss.

    Raises UserError where it is missing, and where it is another file, which is then not executed.
    """
    name = config.loss.loss
    if not name.endswith(".py"):
        if path is not None:
            raise UserError(f"loss: {run} uses the built-in loss {name}: leave --loss out", "loss-file-mismatch")
        return None
    recorded = f"{run} uses the loss file {name} (SHA-256 {str(sha256)[:12]})"
    if path is None:
        raise UserError(f"loss: {recorded}: pass that file with --loss FILE", "loss-file-missing")
    return LossFile.open(path, sha256 or "unknown", f"{recorded}: pass the file that the run was trained with")


def read_loss_file(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise UserError(
            f"loss: cannot read {path}: {error.strerror}; name a Python file, or one of {', '.join(OBJECTIVES)}",
            "file-unreadable",
        ) from None
    except UnicodeDecodeError:
        raise InvalidLossFile(f"loss: {path} is not text in UTF-8: name a Python file") from None


def execute(path: Path, source: bytes) -> dict[str, Any]:
    """Execute a file's hashed bytes and return what it defines; no bytecode is written beside the file."""
    spec = spec_from_file_location(f"loss file {path.name}", path)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module there
    try:
        exec(compile(source, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        raise InvalidLossFile(f"loss: {located(path, error)}") from error
    finally:
        del sys.modules[spec.name]
    return vars(module)


def objective_of(path: Path, defined: Mapping[str, Any]) -> Objective:
    """The file's OBJECTIVE, its two functions guarded."""
    found = defined.get("OBJECTIVE")
    if isinstance(found, str):
        if found not in OBJECTIVES:
            raise InvalidLossFile(f"loss: {path}: OBJECTIVE: {unknown('loss', found, OBJECTIVES)}")
        return OBJECTIVES[found]
    if not isinstance(found, Objective):
        raise InvalidLossFile(
            f"loss: {path} defines no OBJECTIVE: set it to a ptarmigan.losses.Objective, or to one of "
            f"{', '.join(OBJECTIVES)} as a string"
        )

    def of(player: str) -> Callable[..., Tensor]:
        what = f"OBJECTIVE.{player}"
        function = guarded(path, what, getattr(found, player))
        return lambda **logits: per_sample(path, what, function(**logits), logits["fake"])

    return replace(found, d=of("d"), g=of("g"))


def check_averages(path: Path, averages: Any, observed: bool) -> None:
    """Raise UserError where AVERAGES is not {name: decay}, or where observe or AVERAGES is missing."""
    if not isinstance(averages, dict):
        raise InvalidLossFile(
            f"loss: {path}: AVERAGES is of type {type(averages).__name__}: set it to a dict, name -> decay"
        )
    if bool(averages) != observed:
        one, other = ("AVERAGES", "observe(ctx)") if averages else ("observe", "AVERAGES = {name: decay}")
        raise InvalidLossFile(f"loss: {path}: {one} needs {other}: define both, or neither")
    for name, decay in averages.items():
        if not isinstance(name, str) or not name.isidentifier() or name in ADA_SCALARS:
            raise InvalidLossFile(
                f"loss: {path}: {name!r} cannot be the name of an average: use an identifier other than "
                f"{', '.join(ADA_SCALARS)}"
            )
        if not isinstance(decay, float | int) or not 0 <= decay < 1:
            raise InvalidLossFile(f"loss: {path}: decay of {name}: expected a number from 0 to below 1, got {decay!r}")


def guarded(path: Path, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the file whose exceptions become a UserError with file, line and exception."""

    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except UserError:
            raise
        except Exception as error:
            if out_of_memory(error):
                raise
            raise LossFileFailed(f"loss: {located(path, error, f', in {what}')}") from error

    return call


def located(path: Path, error: BaseException, where: str = "") -> str:
    """'FILE, line N: TypeError: ...'"""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines = [error.lineno]
    at = f", line {lines[-1]}" if lines else ""
    return f"{path}{at}{where}: {type(error).__name__}: {' '.join(str(error).split())}"


def per_sample(path: Path, what: str, value: Any, like: Tensor) -> Tensor:
    """`value` if it is a float tensor [N] on the device of the logits `like`; else raises UserError."""
    if not is_float_tensor(value, like.shape, like):
        raise LossFileFailed(
            f"loss: {path}: {what} is {described(value)}: return one value per sample, without .mean() or .sum(), as a "
            f"float tensor [{len(like)}] on {like.device}"
        )
    out: Tensor = value
    return out


def is_float_tensor(value: Any, shape: torch.Size, like: Tensor) -> bool:
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
