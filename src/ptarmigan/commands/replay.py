"""A step of a run once more, looked at from inside: every draw is addressed, so what happened then happens again."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from ptarmigan.config import config_of
from ptarmigan.core import log
from ptarmigan.core.console import print_lines
from ptarmigan.core.devices import deterministic, pick_device
from ptarmigan.core.files import FORMAT, load_json, make_folder, write_atomic
from ptarmigan.core.types import DiscriminatorOutput, UserError
from ptarmigan.data import open_dataset
from ptarmigan.game.batch import train_batch
from ptarmigan.game.state import TrainState
from ptarmigan.generator.generator import image_grid, save_png, to_uint8
from ptarmigan.losses.custom import reopen
from ptarmigan.training import checkpoint
from ptarmigan.training.loop import feed


@dataclass
class Call:
    """One call of a layer: the root mean square of its output, and the norm of the loss's gradient there."""

    update: str  # whose update it serves: D or G
    layer: str  # as D.body.stages.0
    images: str  # what went through: real, fake, between, latents, or own, what the user's own loss gave to D
    activation: float
    gradient: float | None = None  # None where no gradient came back


@dataclass
class Step:
    """What `replay` found at one step of a run."""

    images_seen: int  # at its beginning
    checkpoint: str  # it was rebuilt from: a file's name, or the start
    terms: dict[str, float]  # by their names in metrics.jsonl
    calls: list[Call]
    weights: dict[str, tuple[float, float]]  # parameter -> its norm before the update, and that of its gradient
    not_finite: str | None  # what was the first not to be finite, and the image that fed it; None: all is finite
    batch: list[str]  # where each real image comes from
    out: str  # the folder of batch.png, fakes.png and step.json


def replay(
    run: str | Path,
    *,
    at: int,
    data: str | Path | None = None,
    loss: str | Path | None = None,
    out: str | Path | None = None,
    device: str = "auto",
) -> Step:
    """Rebuild the step in which `run` took its image number `at`, from the checkpoint before it, and look inside.

    Writes batch.png, fakes.png and step.json to `out`, by default RUN/private/replay-IMAGES, because the batch shows
    training images.  `data` says where the training images are now, if they have moved.  `loss` is the file of a run
    whose loss is one's own.  Exact on the device, build and thread count of the run, micro-batches aside; a step that
    the run went back from is shown as it was last taken.

    Raises UserError where there is no such step, where no good checkpoint is left before it (`keep` says how many
    stay), and where the images or the loss file are not those of the run.
    """
    run = Path(run)
    found, record, planned = before(run, at)
    config = config_of(record)
    loss_file = reopen(Path(loss) if loss else None, config, record.get("loss_sha256"), run)
    source = data or (None if record["data"]["source"] == "embedded" else record["data"]["source"])
    dataset = open_dataset(source, config.data)
    if dataset.fingerprint != record["data"]["fingerprint"]:
        raise UserError(
            f"data: {source or 'the embedded set'} has not the images of {run}: say where they are by --data"
        )
    state = TrainState.create(config, dataset.spec, pick_device(device), record["precision"] == "bf16", loss_file)
    if found is not None:
        checkpoint.restore(state, found)
    if not state.controllers.get("ends"):
        state.controllers |= planned
    first = at - (at - state.images_seen) % config.train.batch
    target = Path(out) if out else run / "private" / f"replay-{first:09d}"
    if target.exists() and any(target.iterdir()):
        raise UserError(f"out: {target} exists already and is not overwritten: name another --out, or remove it first")
    with deterministic(config.train.deterministic), feed(config, dataset, state.device) as batches:
        while state.images_seen < first:
            train_batch(state, batches)
        purposes = [
            *(f"order {extra}" for extra in range(1, config.train.d_steps)),
            "order",
        ]  # one for each update of D
        drawn = [batches.load(first, purpose) for purpose in purposes]
        files = [[dataset.origin(int(index)) for index in loaded.indices] for loaded in drawn]
        watch = Watch(state, files)
        norms = {name: parameter.norm().item() for name, parameter in watch.parameters()}
        with watch.listening():
            terms = {name: value.item() for name, value in train_batch(state, batches).items()}
    gradients = {name: parameter.grad for name, parameter in watch.parameters()}
    step = Step(
        first, found.path.name if found else "the start", terms, watch.calls,
        {name: (norm, gradients[name].norm().item()) for name, norm in norms.items()},  # type: ignore[union-attr]
        watch.not_finite or watch.backward, files[-1], str(target),
    )  # fmt: skip
    make_folder(target)
    columns = math.ceil(config.train.batch**0.5)
    for name, images in (("batch", drawn[-1].images), ("fakes", watch.fakes)):
        picture = image_grid(to_uint8(images.detach().nan_to_num(-1)), columns)
        save_png(picture, target / f"{name}.png", images_seen=first)
    write_atomic(target / "step.json", (json.dumps(asdict(step), indent=2) + "\n").encode())
    return step


def before(run: Path, at: int) -> tuple[checkpoint.Checkpoint | None, dict[str, Any], dict[str, Any]]:
    """The good checkpoint before image `at` (None: the start), the run's record, and how its first end was planned."""
    newest, _ = checkpoint.newest(run)
    controllers = newest.meta["controllers"] if newest is not None else {}
    ends = controllers.get("ends", [])
    if newest is not None:
        record = newest.meta["record"]
    elif (run / "config.json").exists():
        record = load_json(run / "config.json")
    else:
        raise UserError(f"{run} is no run of ptarmigan: name a folder that `ptarmigan train` made")
    logged = (line["images_seen"] for line in log.read(run / "metrics.jsonl"))  # as far as a run without an end goes
    last = (ends[-1] if ends else max(logged, default=config_of(record).train.batch)) - 1
    if not 0 <= at <= last:
        raise UserError(f"at: {at:,} is no image of this run; it goes from 0 to {last:,}")
    found, _ = checkpoint.newest(run, up_to=at)
    if (found.meta if found else record)["format"] < FORMAT:
        raise UserError(
            f"at: {run} took that step in ptarmigan {record['versions']['ptarmigan']}, whose networks began and learnt "
            "otherwise: replay it there"
        )
    if found is None and record.get("init"):
        raise UserError(f"at: no good checkpoint of {run} is left before {at:,}, and it began from another model")
    return found, record, {"ends": ends[:1], "settled": controllers.get("settled", 0)}


class Watch:
    """Hooks on every layer of both players for the length of one step."""

    def __init__(self, state: TrainState, files: list[list[str]]) -> None:
        self.state, self.files = state, files  # of the real batch of each update of D
        self.calls: list[Call] = []
        self.counts: Counter[tuple[int, str]] = Counter()
        self.updates = 0  # of D, so far
        self.fakes = torch.empty(0)
        self.not_finite: str | None = None  # first on the way forward
        self.backward: str | None = None  # first on the way back

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for player, network in (("D", self.state.D), ("G", self.state.G)):
            for name, parameter in network.named_parameters():
                yield f"{player}.{name}", parameter

    @contextmanager
    def listening(self) -> Iterator[None]:
        handles = [self.state.opt_d.register_step_post_hook(self._updated)]
        for player, network in (("D", self.state.D), ("G", self.state.G)):
            for name, module in network.named_modules():
                if module is network or not (list(module.children()) or isinstance(module, nn.Identity)):
                    layer = f"{player}.{name}".rstrip(".")
                    handles.append(
                        module.register_forward_hook(
                            lambda module, given, output, layer=layer: self._called(layer, module, given, output)
                        )
                    )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _updated(self, *_: object) -> None:
        self.updates += 1

    def _called(self, layer: str, module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        value = output.logits if isinstance(output, DiscriminatorOutput) else output
        for_g = self.updates == self.state.config.train.d_steps
        number = self.counts[self.updates, layer]
        self.counts[self.updates, layer] += 1
        seen = self._seen(layer, number, for_g)
        update = "G" if for_g else "D"
        calls = [
            Call(update, layer, images, part.detach().float().square().mean().sqrt().item())
            for images, part in zip(seen, value.chunk(len(seen)), strict=True)
        ]
        self.calls += calls
        if layer == "G":
            self.fakes = value
        if self.not_finite is None and (place := first_bad(value)) is not None:
            half, place = divmod(place, len(value) // len(seen))
            self.not_finite = self._words(layer, module, given, seen[half], place)
        if value.requires_grad:
            value.register_hook(lambda gradient: self._back(calls, gradient))

    def _seen(self, layer: str, number: int, for_g: bool) -> tuple[str, ...]:
        """The images that a layer's call of this number in an update is of; D's own update may see both at once."""
        if layer.startswith("G"):
            return ("latents",)
        calls: list[tuple[str, ...]]
        if for_g:
            calls = [("fake",), ("real",)] if self.state.objective.relativistic else [("fake",)]
        else:
            apart = self.state.config.model.d_norm == "batch"
            calls = [("real",), ("fake",)] if apart else [("real", "fake")]
            calls += [("between",)] * bool(self.state.config.loss.gradient_penalty)
        return calls[number] if number < len(calls) else ("own",)

    def _back(self, calls: list[Call], gradient: Tensor) -> None:
        for call, part in zip(calls, gradient.chunk(len(calls)), strict=True):
            call.gradient = part.float().norm().item()
            if self.backward is None and (place := first_bad(part)) is not None:
                self.backward = (
                    f"the gradient at {call.layer} in {call.update}'s update, at {self._fed(call.images, place)}"
                )

    def _words(self, layer: str, module: nn.Module, given: tuple[Any, ...], through: str, place: int) -> str:
        for name, parameter in module.named_parameters(recurse=False):
            if not torch.isfinite(parameter).all():
                return f"the weights of {layer} ({name}), seen at {self._fed(through, place)}"
        if any(isinstance(tensor, Tensor) and first_bad(tensor) is not None for tensor in given):
            return f"what went into {layer}: {self._fed(through, place)}"
        return f"the output of {layer}, from {self._fed(through, place)}"

    def _fed(self, through: str, place: int) -> str:
        """The image behind a place in the batch, in words."""
        if through == "real":
            files = self.files[min(self.updates, len(self.files) - 1)]  # G plays against the last batch
            return f"the real image {files[place]}"
        if through == "own":
            return f"the image number {place} that the loss file gave to D"
        return f"the {'pair' if through == 'between' else 'fake'} number {place} of the batch"


def first_bad(value: Tensor) -> int | None:
    """The first place in a batch whose values are not all finite."""
    good = torch.isfinite(value.detach()).flatten(1).all(1) if value.ndim > 1 else torch.isfinite(value.detach())
    return None if bool(good.all()) else int((~good).nonzero()[0, 0])


def show(step: Step) -> None:
    """A step as tables for a person."""

    print_lines(f"the step at {step.images_seen:,} images seen, from {step.checkpoint}")
    print_lines("  ".join(f"{name} {value:.4g}" for name, value in step.terms.items()))
    for update, columns in (("D", ("real", "fake", "between", "own")), ("G", ("latents", "fake", "real", "own"))):
        calls = [
            call for call in step.calls
            if (call.update == update and call.images != "latents") or (update == "G" and call.images == "latents")
        ]  # fmt: skip
        shown = [name for name in columns if any(call.images == name for call in calls)]
        print_lines(
            f"{update}'s update, each layer: root mean square of its output | norm of the loss's gradient in it"
        )
        table = Table("layer")
        for name in shown:
            table.add_column(name, justify="right")
        for layer in dict.fromkeys(call.layer for call in calls):
            cells = {call.images: call for call in calls if call.layer == layer}
            table.add_row(layer, *(cell(cells.get(name)) for name in shown))
        print_lines(table)
    print_lines("each parameter: its norm before the update, and that of its gradient")
    table = Table("parameter")
    for name in ("weight", "gradient"):
        table.add_column(name, justify="right")
    for name, (weight, gradient) in step.weights.items():
        table.add_row(name, f"{weight:.4g}", f"{gradient:.4g}")
    print_lines(table)
    print_lines(f"first not finite: {step.not_finite}" if step.not_finite else "every value of this step is finite")
    print_lines(f"its batch, its fakes and all numbers: {step.out}")


def cell(call: Call | None) -> str:
    if call is None:
        return ""
    return f"{call.activation:.3g} | " + ("-" if call.gradient is None else f"{call.gradient:.3g}")
