"""The first weights of a run from another model: tensors by their name and shape, the rows of classes by theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptarmigan.config import OF_DCGAN, Config, Model, flatten
from ptarmigan.core import dist
from ptarmigan.core.types import ImageSpec, UserError, shorten
from ptarmigan.game.state import TrainState
from ptarmigan.generator import generator as sampling
from ptarmigan.generator.generator import READ_ERRORS, assign_tensors, config_and_spec
from ptarmigan.networks import build
from ptarmigan.networks.layers import FIRST_POWER_ITERATIONS, power_iteration
from ptarmigan.training import checkpoint
from ptarmigan.training.run_folder import recorded

SHAPE = (
    "network", "width", "latent_dim", "class_dim", "least_side", "g_blocks", "g_modulation", "latent", "size",
    "channels", "conditioning", "d_norm",
)  # fmt: skip
SHOWN = 3  # tensors named on the terminal; config.json names all


@dataclass(frozen=True)
class Source:
    """A run's newest good checkpoint, or a generator, read and found to be what its own header says."""

    model: Path
    whole: bool  # a run, which has D and the live G; a generator is the average of G alone
    config: Config
    spec: ImageSpec
    images_seen: int
    sha256: str
    tensors: dict[str, Tensor]  # `G.`, `ema.` and `D.`, as TrainState.tensors names them
    notes: tuple[str, ...]  # a sentence for each damaged newer checkpoint

    @classmethod
    def open(cls, model: Path) -> Source:
        """Raises UserError where there is no model, it is damaged, or holds a value that is not finite."""
        source = cls.of_run(model) if checkpoint.checkpoints(model) else cls.of_generator(model)
        if not isinstance(source.images_seen, int):
            raise UserError(f"from: {model} does not say how many images it has seen: take another model")
        for name, tensor in source.tensors.items():
            if not torch.isfinite(tensor).all():
                raise UserError(f"from: {name} of {model} is not finite: take another model")
        return source

    @classmethod
    def of_run(cls, model: Path) -> Source:
        found, damaged = checkpoint.newest(model)
        if found is None:
            raise UserError(
                f"from: no good checkpoint is left in {model}: {'; '.join(damaged)}. To take its G alone, name "
                f"{model / 'generator'}"
            )
        try:
            config, spec = config_and_spec(found.meta["record"])
            with torch.device("meta"):
                networks = build(spec, config.model, config.train.seed)
            tensors: dict[str, Tensor] = {}
            for player, network in zip(("G", "D", "ema"), (*networks, networks[0]), strict=True):
                stem = f"{player}."
                own = {name.removeprefix(stem): t for name, t in found.tensors.items() if name.startswith(stem)}
                assign_tensors(network, own)
                tensors |= {stem + name: tensor for name, tensor in own.items()}
            images_seen = found.meta["images_seen"]
        except READ_ERRORS as error:
            raise UserError(f"{found.path} is no checkpoint that this ptarmigan can read: {error}") from None
        notes = tuple(f"{sentence}; {found.path.name} is used" for sentence in damaged)
        return cls(model, True, config, spec, images_seen, found.meta["sha256"], tensors, notes)

    @classmethod
    def of_generator(cls, model: Path) -> Source:
        given = sampling.load(model)
        state = given.network.state_dict()
        tensors = {f"{player}.{name}": tensor for player in ("G", "ema") for name, tensor in state.items()}
        return cls(model, False, given.config, given.spec, given.images_seen, given.sha256, tensors, ())

    def shape(self) -> dict[str, Any]:
        """Fields of the config on which its tensors depend, and what they mean."""
        size = f"{self.spec.height}x{self.spec.width}"
        flat = self.config.flat() | {"size": size, "channels": self.spec.channels}
        return {key: flat[key] for key in SHAPE}


@dataclass(frozen=True)
class Origin:
    """The model that a run begins from."""

    record: dict[str, Any]  # JSON, a part of the run's: model, sha256 ... shape; then what `give` says
    source: Source | None  # on rank 0, until the run has a checkpoint

    @classmethod
    def find(cls, model: Path, run: Path | None, asked: Mapping[str, Any]) -> Origin:
        """`shape` has those fields of the model's that were not asked for.

        Of a run that was begun from this very model (`--from` says the same, or leads to the same SHA-256) all comes
        from its record, and the model need not be there any more.  Raises UserError as `Source.open` does, and where
        the model is the run itself.
        """
        source: Source | None = None

        def looked() -> dict[str, Any]:
            nonlocal source
            begun: dict[str, Any] = {}
            if run is not None:
                if run.resolve() in (model.resolve(), *model.resolve().parents):
                    raise UserError(
                        f"from: {model} is {run} itself or a part of it: leave --from out to go on with it, or name "
                        "another --out"
                    )
                begun = (recorded(run) or {}).get("init") or {}
                if begun.get("model") == str(model) and checkpoint.checkpoints(run):
                    return begun
            source = Source.open(model)
            if begun.get("sha256") == source.sha256:
                return begun
            given = {key: value for key, value in flatten(asked).items() if value is not None}
            flat, network = set(given), source.config.model.network
            flat.add("d_norm")  # has to go with the loss
            if given.get("network", network) != network:
                flat.update(OF_DCGAN)  # are a family's own
            if "recipe" in flat:
                flat.add("conditioning")  # is a part of the loss, which a recipe that is named decides
            return {
                "model": str(model),
                "sha256": source.sha256,
                "recipe": source.config.recipe,
                "images_seen": source.images_seen,
                "whole": source.whole,
                "shape": {key: value for key, value in source.shape().items() if key not in flat},
            }

        record = dist.on_first(looked)
        return cls(record, source)

    def give(self, state: TrainState) -> dict[str, Any]:
        """Put what fits into a state of step 0; returns the record with what was taken and what not, and why.

        Other ranks than the first are left as they are.  Raises UserError where no kernel or matrix fits, and where the
        weights are needed once more and are not at hand.
        """
        if dist.rank() > 0:
            return self.record
        if self.source is None:
            raise UserError(
                f"no good checkpoint is left with the weights that the run began with, from {self.record['model']}: "
                "begin anew with another --out"
            )
        return self.record | take(state, self.source)


def take(state: TrainState, source: Source) -> dict[str, Any]:
    """Copy into G, the average and D what `source` has of them; returns what was taken and what not, in JSON.

    A tensor is taken where name and shape are the same.  One with places for classes is taken class by class, by name;
    the places of new classes keep their first values.  The average goes on as its half-life says, which is short
    while few images of this run are seen: little is left of the source's own after the first steps.

    Raises UserError where no kernel or matrix fits.
    """
    here, there = state.spec.class_names, source.spec.class_names
    dims = class_dims(state.spec, state.config.model)
    taken: list[str] = []
    by_class: list[str] = []
    left: dict[str, str] = {}  # tensor -> why
    kernels: list[str] = []
    whole = common = 0.0  # elements
    for player, network in (("G", state.G), ("ema", state.ema), ("D", state.D)):
        for name, tensor in network.state_dict().items():
            key = f"{player}.{name}"
            given = source.tensors.get(key)
            if key in dims:
                share, why = copy_classes(tensor, given, dims[key], here, there)
            else:
                share, why = copy(tensor, given)
            if player == "ema":
                continue
            whole, common = whole + tensor.numel(), common + share * tensor.numel()
            if why:
                left[key] = why
            else:
                (by_class if key in dims else taken).append(key)
            if key not in dims and tensor.ndim > 1:
                kernels.append(key)
    other = differing(state, source)
    if all(key in left for key in kernels):
        hint = f"; with {flags(other)} it would be as there" if other else ""
        raise UserError(
            f"from: nothing of {source.model} fits this network: {reasons({key: left[key] for key in kernels})}{hint}"
        )
    for _ in range(FIRST_POWER_ITERATIONS):
        power_iteration(state.D)  # its weights have changed under u
    return {
        "taken": taken,
        "by_class": by_class,
        "left": left,
        "share": common / whole,
        "classes": [name for name in here if name in there],
        "new_classes": [name for name in here if name not in there],
        "gone_classes": [name for name in there if name not in here],
        "other": other,
        "notes": list(source.notes),
    }


@torch.no_grad()
def copy(tensor: Tensor, given: Tensor | None) -> tuple[float, str]:
    """Copy `given` into a tensor of its shape; returns the share that was copied, 0 or 1, and why it was not."""
    if given is None:
        return 0.0, "missing there"
    if given.shape != tensor.shape:
        return 0.0, differ(given, tensor)
    tensor.copy_(given)
    return 1.0, ""


@torch.no_grad()
def copy_classes(
    tensor: Tensor, given: Tensor | None, dim: int | None, here: Sequence[str], there: Sequence[str]
) -> tuple[float, str]:
    """The same, of the classes in both alone, along `dim`: it has a block, or several, of one place for each class.

    Where `dim` is None there is no such order, and all is copied or nothing.
    """
    if given is None or dim is None:
        return copy(tensor, given) if given is None or here == there else (0.0, "other classes")
    before, blocks, after = tensor.shape[:dim], tensor.shape[dim] // len(here), tensor.shape[dim + 1 :]
    if given.shape != (*before, blocks * len(there), *after):
        return 0.0, differ(given, tensor)
    both = [name for name in here if name in there]
    if not both:
        return 0.0, "no class in common"
    to, of = (torch.tensor([names.index(name) for name in both]) for names in (here, there))
    rows = given.view(*before, blocks, -1, *after).index_select(dim + 1, of).to(tensor.device)
    tensor.view(*before, blocks, -1, *after).index_copy_(dim + 1, to.to(tensor.device), rows)
    return len(both) / len(here), ""


def class_dims(spec: ImageSpec, model: Model) -> dict[str, int | None]:
    """Tensors whose shape depends on the number of classes, by their names in TrainState.tensors -> the dimension.

    Along it there is a place for each class, or several: then all classes in each of several blocks, as ADC's y and
    K + y.  None where that is not so.  Found by building both networks, without memory, for one class more.
    """
    more = replace(spec, class_names=(*spec.class_names, ""))
    with torch.device("meta"):
        (g, d), (wider_g, wider_d) = build(spec, model, 0), build(more, model, 0)
    out: dict[str, int | None] = {}
    for player, network, wider in (("G", g, wider_g), ("ema", g, wider_g), ("D", d, wider_d)):
        shapes = {name: tensor.shape for name, tensor in wider.state_dict().items()}
        for name, tensor in network.state_dict().items():
            grown = [dim for dim, size in enumerate(tensor.shape) if shapes[name][dim] != size]
            if grown:
                (dim, *others), size = grown, tensor.shape[grown[0]]
                alone = not others and shapes[name][dim] * spec.classes == size * more.classes  # beside no other place
                out[f"{player}.{name}"] = dim if alone else None
    return out


def differ(there: Tensor, here: Tensor) -> str:
    first, second = ("x".join(map(str, tensor.shape)) or "a number" for tensor in (there, here))
    return f"shape differs: {first} there, {second} here"


def differing(state: TrainState, source: Source) -> dict[str, Any]:
    """Fields of SHAPE that are others here than there -> their value there."""
    spec, flat = state.spec, state.config.flat()
    flat |= {"size": f"{spec.height}x{spec.width}", "channels": spec.channels}
    if spec.classes == 1:
        del flat["conditioning"]  # one class is none to condition on
    return {key: value for key, value in source.shape().items() if key in flat and flat[key] != value}


def report(origin: dict[str, Any]) -> list[str]:
    """What a run took from where, in a few lines; its config.json has all of it."""
    what = "its G and D" if origin["whole"] else "its G alone (a generator has no D: D begins fresh)"
    count = len(origin["taken"]) + len(origin["by_class"])
    lines = [f"note: {sentence}" for sentence in origin["notes"]]
    lines.append(
        f"begins from {origin['model']}, recipe {origin['recipe']}, at {origin['images_seen']:,} images, {what}: "
        f"{count} of {count + len(origin['left'])} tensors, {origin['share']:.0%} of the weights"
    )
    if shape := origin["shape"]:
        lines.append(f"  as there: {', '.join(f'{key} {value}' for key, value in shape.items())}")
    if origin["by_class"]:
        parts = (("", "classes"), ("new here: ", "new_classes"), ("not here: ", "gone_classes"))
        named = [word + shorten(origin[key]) for word, key in parts if origin[key]]
        lines.append(f"  classes by name: {'; '.join(named)}")
    if left := {key: why for key, why in origin["left"].items() if origin["whole"] or not key.startswith("D.")}:
        lines.append(f"  not taken: {reasons(left)}; all in config.json")
    if origin["other"]:
        lines.append(f"  with {flags(origin['other'])} it would be as there")
    return lines


def reasons(left: Mapping[str, str]) -> str:
    return shorten([f"{name} ({why})" for name, why in left.items()], SHOWN)


def flags(fields: Mapping[str, Any]) -> str:
    """As the command line takes them: --width 4 --no-g-modulation."""
    words = [(key.replace("_", "-"), value) for key, value in fields.items()]
    return " ".join(
        f"--{'' if value else 'no-'}{name}" if isinstance(value, bool) else f"--{name} {value}" for name, value in words
    )
