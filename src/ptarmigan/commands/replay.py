"""Repeat one step of a run and record what happened in every layer.

The repetition is exact, because random draws do not depend on earlier draws.
"""

from __future__ import annotations

import json
import math
import statistics
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
from ptarmigan.core.devices import deterministic, pick_device
from ptarmigan.core.files import check_absent, make_folder, write_atomic
from ptarmigan.core.log import read_log, read_rows
from ptarmigan.core.paths import no_run, user_path
from ptarmigan.core.terminal import print_lines
from ptarmigan.core.types import DiscriminatorOutput, UserError, check_whole
from ptarmigan.data import Dataset, open_dataset, recorded_data
from ptarmigan.data.batches import Batches
from ptarmigan.game.batch import train_batch
from ptarmigan.game.progress import Progress
from ptarmigan.game.state import TrainState
from ptarmigan.generator.generator import image_grid, save_png, to_uint8
from ptarmigan.generator.header import load_run_record
from ptarmigan.losses.custom import reopen
from ptarmigan.networks.layers import learning
from ptarmigan.training import checkpoint
from ptarmigan.training.setup import train_batches

AROUND = 10  # ticks before a step, and after it, with which it is compared
LEAST_TICKS = 5  # for a comparison
FAR = 4.0  # standard deviations of a step from the mean of the ticks


@dataclass
class Call:
    """One call of a layer: the root mean square of its output, and the norm of the loss's gradient at the output."""

    update: str  # D or G: whose update the call belongs to
    layer: str  # for example D.body.stages.0
    images: str  # its input: real, fake, between, latents, or own (what the user's own loss passed to D)
    activation: float
    gradient: float | None = None  # None if no gradient reached it


@dataclass
class ReplayedStep:
    """What `replay` found at one step of a run."""

    images_seen: int  # before it
    checkpoint: str  # the file name of the checkpoint that it was rebuilt from, or "the start"
    terms: dict[str, float]  # by their names in metrics.jsonl
    calls: list[Call]
    weights: dict[str, tuple[float, float]]  # parameter -> its norm before the update, and its gradient's norm
    unusual: list[str]  # a sentence for each term that is far from its values around this step
    ticks: int  # lines of metrics.jsonl around this step that it was compared with; 0: there are too few
    not_finite: str | None  # the first NaN or infinite value, and the image that caused it; None: all are finite
    batch: list[str]  # where each real image comes from
    out: str  # the folder of batch.png, fakes.png and step.json


def replay(
    run: str | Path,
    *,
    at: int,
    data: str | Path | Dataset | None = None,
    loss: str | Path | None = None,
    out: str | Path | None = None,
    device: str = "auto",
) -> ReplayedStep:
    """Repeat the step in which `run` used its image number `at`, from the checkpoint before it, and look inside.

    Writes batch.png, fakes.png and step.json to `out`, by default RUN/private/replay-IMAGES; it is private because the
    batch shows training images.  `data` says where the training images are now, if they have moved.  `loss` is the loss
    file of a run that used the user's own loss.  The step is exact on the device, build and thread count of the run,
    except with micro-batches.  A step that was repeated after a rollback is shown as it was last computed.

    Raises UserError if there is no such step, if no good checkpoint is left before it (see `keep`), or if the images or
    the loss file are not those of the run.
    """
    run = user_path(run, "run")
    found, record, progress = checkpoint_before(run, at)
    config = config_of(record)
    loss_file = reopen(None if loss is None else user_path(loss, "loss"), config, record.get("loss_sha256"), run)
    dataset = open_run_images(run, record, data)
    state = TrainState.create(config, dataset.spec, pick_device(device), record["precision"] == "bf16", loss_file)
    restore(state, found, progress)
    first = at - (at - state.images_seen) % config.train.batch
    target = user_path(out, "out") if out is not None else run / "private" / f"replay-{first:09d}"
    check_absent(target, "out")
    with deterministic(config.train.deterministic), train_batches(config, dataset, state.device) as batches:
        while state.images_seen < first:
            train_batch(state, batches)
        purposes = [*(f"order {extra}" for extra in range(1, config.train.d_steps)), "order"]  # of each update of D
        drawn = [batches.load(first, purpose) for purpose in purposes]
        watch = Watch(state, [[dataset.origin(int(index)) for index in loaded.indices] for loaded in drawn])
        terms = watch.step(batches)
    terms = state.means_where_due(terms, 1)
    ticks = ticks_around(run, first, config.train.batch)
    step = ReplayedStep(
        first, found.path.name if found else "the start", terms, watch.calls, watch.weights,
        unusual_terms(terms, ticks, record["tick"] // config.train.batch), len(ticks),
        watch.not_finite or watch.backward, watch.files[-1], str(target),
    )  # fmt: skip
    save_step(step, target, drawn[-1].images, watch.fakes)
    return step


def restore(state: TrainState, found: checkpoint.Checkpoint | None, progress: Progress) -> None:
    """Load the checkpoint, if there is one, and the plans that hold at the step, which may be newer than it."""
    if found is not None:
        checkpoint.restore(state, found)
    for name in ("ends", "end_fixed_at", "moves"):
        setattr(state.progress, name, getattr(progress, name))


def ticks_around(run: Path, first: int, batch: int) -> list[dict[str, float]]:
    """The log's lines around the step that starts at image `first`, without the one that has this step in its means.

    An empty list where there are too few.
    """
    rows = {at: row for at, row in read_rows(run / "metrics.jsonl").items() if "images_per_second" in row}
    before = [row for at, row in rows.items() if at <= first]
    after = [row for at, row in rows.items() if at >= first + batch][1:]
    ticks = before[-AROUND:] + after[:AROUND]
    return ticks if len(ticks) >= LEAST_TICKS else []


def unusual_terms(terms: dict[str, float], ticks: list[dict[str, float]], steps: int) -> list[str]:
    """A sentence for each term that is far from its means in the ticks, which are of `steps` steps each.

    A step varies sqrt(steps) times as much as the mean of a tick.
    """
    out = []
    for name, value in terms.items():
        means = [row[name] for row in ticks if name in row]
        if len(means) < LEAST_TICKS:
            continue
        mean, spread = statistics.fmean(means), statistics.stdev(means) * math.sqrt(steps)
        if abs(value - mean) > FAR * spread:
            out.append(f"{name} is {value:.3g}; around this step it is {mean:.3g}, and varies by {spread:.2g} a step")
    return out


def open_run_images(run: Path, record: dict[str, Any], data: str | Path | Dataset | None) -> Dataset:
    """The run's images, where they were or at `data`; raises UserError where those are other images."""
    source = data or recorded_data(run, record["data"]["source"])
    dataset = open_dataset(source, config_of(record).data)
    if dataset.fingerprint != record["data"]["fingerprint"]:
        raise UserError(
            f"data: {source or 'the embedded set'} does not hold the images of {run}: give their place with --data",
            "images-differ",
        )
    return dataset


def save_step(step: ReplayedStep, folder: Path, batch: Tensor, fakes: Tensor) -> None:
    """Write batch.png, fakes.png and step.json."""
    make_folder(folder)
    columns = math.ceil(len(batch) ** 0.5)
    for name, images in (("batch", batch), ("fakes", fakes)):
        picture = image_grid(to_uint8(images.detach().nan_to_num(-1)), columns)
        save_png(picture, folder / f"{name}.png", images_seen=step.images_seen)
    write_atomic(folder / "step.json", (json.dumps(asdict(step), indent=2) + "\n").encode())


def checkpoint_before(run: Path, at: int) -> tuple[checkpoint.Checkpoint | None, dict[str, Any], Progress]:
    """The newest good checkpoint at or before image `at` (None: the start), the run's record, its newest progress."""
    newest, _ = checkpoint.newest(run)
    if newest is not None:
        record, progress = newest.meta["record"], newest.progress
    elif (run / "config.json").exists():
        record, progress = load_run_record(run), Progress()
    else:
        raise no_run(run)
    logged = (line["images_seen"] for line in read_log(run / "metrics.jsonl"))  # the end of a run without a planned one
    last = (progress.ends[-1] if progress.ends else max(logged, default=config_of(record).train.batch)) - 1
    check_whole("at", at)
    if not 0 <= at <= last:
        raise UserError(f"at: {at:,} is not an image of this run, whose images are 0 to {last:,}", "value-out-of-range")
    found, _ = checkpoint.newest(run, up_to=at)
    if found is None and record.get("init"):
        raise UserError(
            f"at: no good checkpoint of {run} is left before {at:,}, and its start cannot be rebuilt, because the "
            "weights were those of another model",
            "no-good-checkpoint",
        )
    return found, record, progress


class Watch:
    """Hooks on every layer of G and D during one step."""

    def __init__(self, state: TrainState, files: list[list[str]]) -> None:
        self.state, self.files = state, files  # files: of the real batch of each update of D
        self.calls: list[Call] = []
        self.weights: dict[str, tuple[float, float]] = {}  # parameter -> its norm before the step, its gradient's
        self.counts: Counter[tuple[int, str]] = Counter()
        self.updates = 0  # of D, so far
        self.fakes = torch.empty(0)
        self.not_finite: str | None = None  # the first NaN or infinite value in a forward pass
        self.backward: str | None = None  # the same in a backward pass

    def step(self, batches: Batches) -> dict[str, float]:
        """Train on the next batch, and return its terms."""
        networks = (("D", self.state.D), ("G", self.state.G))
        learn = {f"{player}.{name}": of for player, network in networks for name, of in learning(network).items()}
        norms = {name: parameter.norm().item() for name, parameter in learn.items()}
        with self.attached():
            terms = {name: value.item() for name, value in train_batch(self.state, batches).items()}
        for name, parameter in learn.items():
            assert parameter.grad is not None
            self.weights[name] = norms[name], parameter.grad.norm().item()
        return terms

    @contextmanager
    def attached(self) -> Iterator[None]:
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
        inputs = self._inputs(layer, number, for_g)
        update = "G" if for_g else "D"
        calls = [
            Call(update, layer, images, part.detach().float().square().mean().sqrt().item())
            for images, part in zip(inputs, value.chunk(len(inputs)), strict=True)
        ]
        self.calls += calls
        if layer == "G":
            self.fakes = value
        if self.not_finite is None and (place := first_not_finite(value)) is not None:
            half, place = divmod(place, len(value) // len(inputs))
            self.not_finite = self._cause(layer, module, given, inputs[half], place)
        if value.requires_grad:
            value.register_hook(lambda gradient: self._gradient(calls, gradient))

    def _inputs(self, layer: str, number: int, for_g: bool) -> tuple[str, ...]:
        """What a layer's call `number` in an update gets as input; in D's update it may get real and fake together."""
        if layer.startswith("G"):
            return ("latents",)
        calls: list[tuple[str, ...]]
        if for_g:
            calls = [("fake",), ("real",)] if self.state.objective.relativistic else [("fake",)]
        else:
            separate = self.state.config.model.d_norm == "batch"
            calls = [("real",), ("fake",)] if separate else [("real", "fake")]
            calls += [("between",)] * bool(self.state.config.loss.gradient_penalty)
        return calls[number] if number < len(calls) else ("own",)

    def _gradient(self, calls: list[Call], gradient: Tensor) -> None:
        for call, part in zip(calls, gradient.chunk(len(calls)), strict=True):
            call.gradient = part.float().norm().item()
            if self.backward is None and (place := first_not_finite(part)) is not None:
                self.backward = (
                    f"the gradient at {call.layer} in {call.update}'s update, for {self._image(call.images, place)}"
                )

    def _cause(self, layer: str, module: nn.Module, given: tuple[Any, ...], images: str, place: int) -> str:
        for name, parameter in module.named_parameters(recurse=False):
            if not torch.isfinite(parameter).all():
                return f"the weights of {layer} ({name}), at {self._image(images, place)}"
        if any(isinstance(tensor, Tensor) and first_not_finite(tensor) is not None for tensor in given):
            return f"the input of {layer}: {self._image(images, place)}"
        return f"the output of {layer}, for {self._image(images, place)}"

    def _image(self, images: str, place: int) -> str:
        """The image at a place in the batch, in words."""
        if images == "real":
            files = self.files[min(self.updates, len(self.files) - 1)]  # G's update uses D's last batch
            return f"the real image {files[place]}"
        if images == "own":
            return f"image {place} that the loss file passed to D"
        return f"{'pair' if images == 'between' else 'fake'} {place} of the batch"


def first_not_finite(value: Tensor) -> int | None:
    """The first place in a batch whose values are not all finite."""
    good = torch.isfinite(value.detach()).flatten(1).all(1) if value.ndim > 1 else torch.isfinite(value.detach())
    return None if bool(good.all()) else int((~good).nonzero()[0, 0])


def print_step(step: ReplayedStep, layers: bool = False) -> None:
    """Print what is unusual in a step and its terms; with `layers` also tables of layers and parameters."""
    print_lines(f"the step at {step.images_seen:,} images seen, rebuilt from {step.checkpoint}", *conclusion(step))
    print_lines("terms: " + "  ".join(f"{name} {value:.4g}" for name, value in step.terms.items()))
    if layers:
        print_lines(*layer_tables(step), *parameter_table(step))
    more = "" if layers else "; --layers prints the numbers of each layer"
    print_lines(f"batch.png, fakes.png and step.json with all numbers: {step.out}{more}")


def conclusion(step: ReplayedStep) -> list[str]:
    """What is unusual in a step, a line each, or that nothing is."""
    if step.not_finite:
        return [f"the first NaN or infinite value is in {step.not_finite}", *step.unusual]
    if step.unusual:
        return [f"unusual: {sentence}" for sentence in step.unusual] + ["every value is finite"]
    if not step.ticks:
        return ["every value is finite; the log has too few lines around this step to say what is usual"]
    return [
        f"nothing unusual: every value is finite, and each term is as in the {step.ticks} lines of the log around it"
    ]


def layer_tables(step: ReplayedStep) -> Iterator[str | Table]:
    for update, columns in (("D", ("real", "fake", "between", "own")), ("G", ("latents", "fake", "real", "own"))):
        calls = [
            call for call in step.calls
            if (call.update == update and call.images != "latents") or (update == "G" and call.images == "latents")
        ]  # fmt: skip
        shown = [name for name in columns if any(call.images == name for call in calls)]
        yield f"{update}'s update, by layer: root mean square of the output | norm of the loss's gradient at the output"
        table = Table("layer")
        for name in shown:
            table.add_column(name, justify="right")
        for layer in dict.fromkeys(call.layer for call in calls):
            cells = {call.images: call for call in calls if call.layer == layer}
            table.add_row(layer, *(cell(cells.get(name)) for name in shown))
        yield table


def parameter_table(step: ReplayedStep) -> Iterator[str | Table]:
    yield "by parameter: norm before the update, norm of the gradient"
    table = Table("parameter")
    for name in ("weight", "gradient"):
        table.add_column(name, justify="right")
    for name, (weight, gradient) in step.weights.items():
        table.add_row(name, f"{weight:.4g}", f"{gradient:.4g}")
    yield table


def cell(call: Call | None) -> str:
    if call is None:
        return ""
    return f"{call.activation:.3g} | " + ("-" if call.gradient is None else f"{call.gradient:.3g}")
