"""Warm start: copy weights of another model into a new run, tensor by tensor.

Stages are matched by their distance from the image, at which networks for images of any size have the same channels.
The layers next to the image are converted from the model's colours to those of the run.  Classes are matched by name,
and a new class starts at the mean of the model's classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptarmigan.config import Config, Model, flatten
from ptarmigan.config.sections import OF_DCGAN
from ptarmigan.core import dist
from ptarmigan.core.types import COLOURS, ImageSpec, UserError, shorten
from ptarmigan.game.state import TrainState
from ptarmigan.networks import build, without_weights
from ptarmigan.networks.layers import FIRST_POWER_ITERATIONS, power_iteration, sides
from ptarmigan.training import checkpoint
from ptarmigan.training.auto import LARGE_PIXELS
from ptarmigan.training.run_folder import read_record
from ptarmigan.training.source_model import BASE, SourceModel, base_exists, stands_for

SHAPE_FIELDS = (
    "network", "width", "latent_dim", "class_dim", "least_side", "g_blocks", "g_modulation", "resampling", "latent",
    "size", "channels", "conditioning", "d_norm",
)  # fmt: skip
SCRATCH = Path("none")  # what --from calls random weights
BASE_PIXELS = 128 * 128  # up to which `auto` starts from the base; measured at 48x64 and 64x64
SHOWN = 3  # tensors named on the terminal; config.json names all


def starts_from_base(run: Path | None, config: Config, given: Set[str], spec: ImageSpec, device: str) -> bool:
    """Whether a run starts from BASE if no model is named: where that was measured to help.

    A run that has started keeps its start.  A new one takes the base with recipe `auto`, on a CPU, for images between
    32x32 and 128x128, if no field is given that the base's networks depend on.
    """
    try:
        record = read_record(run) if run is not None else None
    except UserError:  # `open_run` reports it
        return False
    if record is not None:
        return bool((record.get("init") or {}).get("model") == str(BASE))
    fits = not given & {*SHAPE_FIELDS} - {"size", "channels"}
    helps = config.recipe == "auto" and device == "cpu" and LARGE_PIXELS < spec.height * spec.width <= BASE_PIXELS
    return fits and helps and base_exists()


def shape_of(config: Config, spec: ImageSpec) -> dict[str, Any]:
    """The fields of a config on which the names and shapes of the tensors depend, with their values."""
    flat = config.flat() | {"size": spec.size, "channels": spec.channels}
    return {key: flat[key] for key in SHAPE_FIELDS}


@dataclass(frozen=True)
class WarmStart:
    """A model to start a run from, and what the run's record says about it."""

    record: dict[str, Any]  # JSON, `init` in the run's record: model, sha256 ... shape, and what `copy_into` adds
    source: SourceModel | None  # on rank 0; None if the run already has a checkpoint

    @classmethod
    def find(cls, model: Path, run: Path | None, asked: Mapping[str, Any]) -> WarmStart:
        """Open the model; `shape` in the record has the model's fields except those that were asked for.

        If `run` was started from the same model (the same path or SHA-256), the run's record is used; with the same
        path the model need not exist any more.  Raises UserError as `SourceModel.open` does, and if the model is the
        run itself.
        """
        source: SourceModel | None = None

        def find_on_first() -> dict[str, Any]:
            nonlocal source
            recorded: dict[str, Any] = {}
            if run is not None:
                if run.resolve() in (model.resolve(), *model.resolve().parents):
                    raise UserError(
                        f"from: {model} is {run} itself or a part of it: leave --from out to resume it, or name "
                        "another --out",
                        "options-conflict",
                    )
                recorded = (read_record(run) or {}).get("init") or {}
                if recorded.get("model") == str(model) and checkpoint.checkpoints(run):
                    return recorded
            source = SourceModel.open(model)
            return recorded if recorded.get("sha256") == source.sha256 else start_record(source, asked)

        record = dist.on_first(find_on_first)
        return cls(record, source)

    def copy_into(self, state: TrainState) -> dict[str, Any]:
        """On rank 0, copy the weights that fit into a new state; returns the record with a list of what was copied.

        Raises UserError if no kernel or matrix fits, or if the run needs the model's weights again because its
        checkpoints are lost and the model was not opened.
        """
        if dist.rank() > 0:
            return self.record
        if self.source is None:
            raise UserError(
                f"no good checkpoint is left with the weights from {self.record['model']} that the run started with: "
                "start a new run with another --out",
                "no-good-checkpoint",
            )
        return self.record | copy_weights(state, self.source)


def start_record(source: SourceModel, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a new run records about the model that it starts from, before anything is copied."""
    given = flatten(asked)
    own, network, path = set(given), source.config.model.network, source.path
    own.add("d_norm")  # depends on the loss
    if given.get("network", network) != network:
        own.update(OF_DCGAN)  # fields of one family alone
    if "recipe" in own:
        own.add("conditioning")  # it belongs to the loss, which the given recipe decides
    if stands_for(path, BASE):
        own.update(("size", "channels"))  # the base model starts runs on images of any size and colours
    return {
        "model": str(path.absolute() if path == BASE and not stands_for(path, BASE) else path),
        "sha256": source.sha256,
        "recipe": source.config.recipe,
        "images_seen": source.images_seen,
        "has_discriminator": source.has_discriminator,
        "shape": {key: value for key, value in shape_of(source.config, source.spec).items() if key not in own},
    }


def copy_weights(state: TrainState, source: SourceModel) -> dict[str, Any]:
    """Copy the tensors of `source` into G, its moving average and D; returns what was copied and what was not, as JSON.

    A tensor is copied if the model has one of its name and shape, where the stages of G are counted from the image and
    the model's layers at the image are converted to the colours of the run.  A tensor with a row per class is copied
    class by class, by name; the row of a new class is its own initial value plus the mean of the model's rows.  The
    moving average has the half-life of a new run, which is short while few images have been seen, so little of the
    source's own average is left after the first steps.

    Raises UserError if no kernel or matrix fits.
    """
    here, there = state.spec.class_names, source.spec.class_names
    dims = class_dims(state.spec, state.config.model)
    tensors = state.network_tensors()
    given = in_colours(source, state.spec.channels)
    deeper = len(sides(source.spec, source.config.model)) - len(sides(state.spec, state.config.model))
    results: dict[str, tuple[float, str]] = {}  # tensor -> the share that was copied, and why no more
    for key, tensor in tensors.items():
        found = given.get(counterpart(key, deeper))
        if key in dims:
            results[key] = copy_classes(tensor, found, dims[key], here, there)
        else:
            results[key] = copy_tensor(tensor, found)
    sizes = {key: tensor.numel() for key, tensor in tensors.items() if not key.startswith("ema.")}  # ema is as G is
    not_copied = {key: results[key][1] for key in sizes if results[key][1]}
    differing = differing_fields(state, source)
    check_fit([key for key in sizes if key not in dims and tensors[key].ndim > 1], not_copied, differing, source)
    check_frozen(state, not_copied, source)
    for _ in range(FIRST_POWER_ITERATIONS):
        power_iteration(state.D)  # u was computed from the weights before the copy
    return {
        "copied": [key for key in sizes if key not in not_copied and key not in dims],
        "copied_by_class": [key for key in sizes if key not in not_copied and key in dims],
        "not_copied": not_copied,
        "copied_share": sum(results[key][0] * size for key, size in sizes.items()) / sum(sizes.values()),
        "shared_classes": [name for name in here if name in there],
        "new_classes": [name for name in here if name not in there],
        "dropped_classes": [name for name in there if name not in here],
        "differing_fields": differing,
        "colours": [COLOURS[source.spec.channels], COLOURS[state.spec.channels]],
        "notes": list(source.notes),
    }


def check_fit(
    kernels: Sequence[str], not_copied: Mapping[str, str], differing: Mapping[str, Any], source: SourceModel
) -> None:
    """Raise UserError if no kernel or matrix was copied."""
    if not all(key in not_copied for key in kernels):
        return
    hint = f"; {flags(differing)} would give this network the model's shape" if differing else ""
    reasons = list_reasons({key: not_copied[key] for key in kernels})
    text = f"from: no weight of {source.path} fits this network: {reasons}{hint}"
    raise UserError(text, "model-does-not-fit")


def check_frozen(state: TrainState, not_copied: Mapping[str, str], source: SourceModel) -> None:
    """Raise UserError if a frozen tensor of D was not copied, so that it would stay as it was drawn."""
    drawn = {
        f"D.{name}": not_copied[f"D.{name}"]
        for name, parameter in state.D.named_parameters()
        if not parameter.requires_grad and f"D.{name}" in not_copied
    }
    if drawn:
        text = f"d_frozen: {state.config.model.d_frozen} keeps weights of {source.path} that do not fit this network"
        raise UserError(f"{text}: {list_reasons(drawn)}; use a smaller --d-frozen, or 0", "model-does-not-fit")


def counterpart(key: str, deeper: int) -> str:
    """The model's name of a tensor, where the model's networks have `deeper` stages more than these.

    G numbers its stages from the smallest map and D from the image.
    """
    player, layer, *rest = key.split(".")
    if player != "D" and rest and rest[0].isdecimal():
        rest[0] = str(int(rest[0]) + deeper)
    return ".".join((player, layer, *rest))


def in_colours(source: SourceModel, channels: int) -> dict[str, Tensor]:
    """The model's tensors for images of other channels: G's images are converted, and D sees images converted back.

    This is exact but for the tanh of a G that has one.
    """
    there, tensors = source.spec.channels, dict(source.tensors)
    if channels == there:
        return tensors
    shapes = differing_shapes(source.spec, replace(source.spec, channels=channels), source.config.model)
    for key, (shape, other) in shapes.items():
        dims = [dim for dim, size in enumerate(shape) if size != other[dim]]
        if key not in tensors or len(dims) > 1:  # a generator has no D
            continue
        by_channel = tensors[key].movedim(dims[0], 0)  # [channels, ...]
        if key.startswith("D."):
            matrix, _ = conversion(min(channels, 3), min(there, 3))  # D sees RGBA as RGB, and what it lies on
            converted = torch.tensordot(matrix.T, by_channel[:3], 1)
            more = other[dims[0]] - len(converted)  # what RGBA lies on, where it has no tensor of its own
            converted = torch.cat([converted, torch.zeros_like(converted[:more])])
        else:
            matrix, offset = conversion(there, channels)
            converted = torch.tensordot(matrix, by_channel, 1)
            if len(shape) == 1:
                converted += offset
        tensors[key] = converted.movedim(0, dims[0])
    return tensors


def conversion(of: int, to: int) -> tuple[Tensor, Tensor]:
    """The matrix [to, of] and the offset [to] that convert pixels in [-1, 1] of 1, 3 or 4 channels to others.

    Grey is the luma that Pillow computes; alpha is left out, or opaque.
    """
    to_rgb = {1: torch.ones(3, 1), 3: torch.eye(3), 4: torch.eye(3, 4)}
    from_rgb = {1: torch.tensor([[0.299, 0.587, 0.114]]), 3: torch.eye(3), 4: torch.eye(4, 3)}
    opaque = torch.tensor([0.0, 0.0, 0.0, 1.0]) if to == 4 and of != 4 else torch.zeros(to)
    return from_rgb[to] @ to_rgb[of], opaque


@torch.no_grad()
def copy_tensor(tensor: Tensor, source: Tensor | None) -> tuple[float, str]:
    """Copy `source` if it has the tensor's shape; returns the share that was copied, 0 or 1, and why none was."""
    if source is None:
        return 0.0, "missing in the model"
    if source.shape != tensor.shape:
        return 0.0, shapes_differ(source, tensor)
    tensor.copy_(source)
    return 1.0, ""


@torch.no_grad()
def copy_classes(
    tensor: Tensor, source: Tensor | None, dim: int | None, here: Sequence[str], there: Sequence[str]
) -> tuple[float, str]:
    """Copy the entries of shared classes along `dim`, which has one entry for each class, or several such blocks.

    A new class keeps its initial values, to which the mean over the source's classes is added.  If `dim` is None, no
    dimension is ordered by class, and the tensor is copied whole if the classes are the same.
    """
    if source is None or dim is None:
        return copy_tensor(tensor, source) if source is None or here == there else (0.0, "other classes")
    before, blocks, after = tensor.shape[:dim], tensor.shape[dim] // len(here), tensor.shape[dim + 1 :]
    if source.shape != (*before, blocks * len(there), *after):
        return 0.0, shapes_differ(source, tensor)
    rows = source.to(tensor.device).view(*before, blocks, -1, *after)
    own = tensor.view(*before, blocks, -1, *after)
    own += rows.mean(dim + 1, keepdim=True)
    both = [name for name in here if name in there]
    to, of = (
        torch.tensor([names.index(name) for name in both], dtype=torch.long, device=tensor.device)
        for names in (here, there)
    )
    own.index_copy_(dim + 1, to, rows.index_select(dim + 1, of))
    return len(both) / len(here), ""


def class_dims(spec: ImageSpec, model: Model) -> dict[str, int | None]:
    """{name in TrainState.tensors: dimension} for the tensors whose shape depends on the number of classes.

    The dimension has one entry for each class, or several blocks of such entries (ADC's real and generated classes);
    it is None if the shape depends on the number of classes in another way.
    """
    more = replace(spec, class_names=(*spec.class_names, ""))
    out: dict[str, int | None] = {}
    for key, (shape, wider) in differing_shapes(spec, more, model).items():
        dim, *others = (dim for dim, size in enumerate(shape) if wider[dim] != size)
        of_classes = not others and wider[dim] * spec.classes == shape[dim] * more.classes
        out[key] = dim if of_classes else None
    return out


def differing_shapes(spec: ImageSpec, other: ImageSpec, model: Model) -> dict[str, tuple[torch.Size, torch.Size]]:
    """{name in TrainState.tensors: its shape for each of two specs}, for the tensors whose shapes differ.

    Both networks are built on the meta device.
    """
    with without_weights():
        (g, d), (other_g, other_d) = build(spec, model, 0), build(other, model, 0)
    out: dict[str, tuple[torch.Size, torch.Size]] = {}
    for player, network, changed in (("G", g, other_g), ("ema", g, other_g), ("D", d, other_d)):
        shapes = {name: tensor.shape for name, tensor in changed.state_dict().items()}
        for name, tensor in network.state_dict().items():
            if name in shapes and tensor.shape != shapes[name]:
                out[f"{player}.{name}"] = tensor.shape, shapes[name]
    return out


def shapes_differ(source: Tensor, tensor: Tensor) -> str:
    there, here = ("x".join(map(str, each.shape)) or "a number" for each in (source, tensor))
    return f"its shape is {there} in the model, {here} here"


def differing_fields(state: TrainState, source: SourceModel) -> dict[str, Any]:
    """Shape fields whose value here is not the model's -> the model's value."""
    here, there = shape_of(state.config, state.spec), shape_of(source.config, source.spec)
    del here["channels"]  # they are converted
    if stands_for(source.path, BASE):
        del here["size"]  # it is for images of any size
    if state.spec.classes == 1:
        del here["conditioning"]  # there is nothing to condition on
    return {key: there[key] for key, value in here.items() if value != there[key]}


def describe_warm_start(init: dict[str, Any]) -> list[str]:
    """What a run copied from where, in a few lines for the terminal; its config.json has all of it."""
    what = "G and D" if init["has_discriminator"] else "G alone (a generator has no D, so D starts from scratch)"
    count = len(init["copied"]) + len(init["copied_by_class"])
    lines = [f"note: {sentence}" for sentence in init["notes"]]
    lines.append(
        f"warm start from {init['model']}{', which comes with ptarmigan' * (init['model'] == str(BASE))} (recipe "
        f"{init['recipe']}, {init['images_seen']:,} images seen), {what}: "
        f"copied {count} of {count + len(init['not_copied'])} tensors, {init['copied_share']:.0%} of the weights"
    )
    if shape := init["shape"]:
        lines.append(f"  settings from the model: {', '.join(f'{key} {value}' for key, value in shape.items())}")
    there, here = init["colours"]
    if there != here:
        lines.append(f"  the layers at the image are converted from {there} to {here}")
    if init["copied_by_class"]:
        parts = (
            ("copied by name", "shared_classes"),
            ("new, from the mean of the model's", "new_classes"),
            ("not needed", "dropped_classes"),
        )
        named = [f"{words}: {shorten(init[key])}" for words, key in parts if init[key]]
        lines.append(f"  classes {'; '.join(named)}")
    not_copied = {
        key: why for key, why in init["not_copied"].items() if init["has_discriminator"] or not key.startswith("D.")
    }
    if not_copied:
        lines.append(f"  not copied: {list_reasons(not_copied)}; config.json has the full list")
    if init["differing_fields"]:
        lines.append(f"  {flags(init['differing_fields'])} would give this network the model's shape")
    return lines


def list_reasons(not_copied: Mapping[str, str]) -> str:
    return shorten([f"{name} ({why})" for name, why in not_copied.items()], SHOWN)


def flags(fields: Mapping[str, Any]) -> str:
    """Fields as options of the command line: --width 4 --no-g-modulation."""
    words = [(key.replace("_", "-"), value) for key, value in fields.items()]
    return " ".join(
        f"--{'' if value else 'no-'}{name}" if isinstance(value, bool) else f"--{name} {value}" for name, value in words
    )
