"""The model that a warm start copies from: a run, a generator, or the base model that comes with ptarmigan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ptarmigan.config import Config
from ptarmigan.core.files import Damaged
from ptarmigan.core.tensor_files import load_tensors
from ptarmigan.core.types import ImageSpec, UserError
from ptarmigan.generator import generator as sampling
from ptarmigan.generator.header import config_and_spec, header_of
from ptarmigan.networks import build, without_weights
from ptarmigan.training import checkpoint

BASE = Path("base")  # what --from calls the model that comes with ptarmigan
BASE_FILE = Path(__file__).parents[1] / "assets" / "base.safetensors"  # tools/base/pack.py writes it


def stands_for(path: Path, name: Path) -> bool:
    """Whether a path means the constant `name`: it is that object, or equals it and no file or folder has that name."""
    return path is name or (path == name and not path.exists())


def base_exists() -> bool:
    """Whether this installation has the model that comes with ptarmigan."""
    return BASE_FILE.exists()


@dataclass(frozen=True)
class SourceModel:
    """The model to start from: a run's newest good checkpoint, a generator, checked against its header, or the base."""

    path: Path
    has_discriminator: bool  # a run has D and the live G; a generator has the moving average of G alone
    config: Config
    spec: ImageSpec
    images_seen: int
    sha256: str
    tensors: dict[str, Tensor]  # those of G, ema and D, by their names in TrainState.tensors
    notes: tuple[str, ...]  # a sentence for each damaged newer checkpoint

    @classmethod
    def open(cls, path: Path) -> SourceModel:
        """Read a model; raises UserError if there is none, it is damaged, or it has a NaN or infinite value.

        The path `base` is the model that comes with ptarmigan, unless there is a file or folder of this name.
        """
        if stands_for(path, BASE):
            return cls.from_base()
        source = cls.from_run(path) if checkpoint.checkpoints(path) else cls.from_generator(path)
        if name := sampling.first_not_finite(source.tensors):
            raise UserError(f"from: {name} in {path} has NaN or infinite values: name another model", "model-invalid")
        return source

    @classmethod
    def from_run(cls, run: Path) -> SourceModel:
        found, damaged = checkpoint.newest(run)
        if found is None:
            raise UserError(
                f"from: no good checkpoint is left in {run}: {'; '.join(damaged)}. To start from its G alone, name "
                f"{run / 'generator'}",
                "no-good-checkpoint",
            )
        try:
            config, spec = config_and_spec(found.path, found.meta["record"])
            with without_weights():
                G, D = build(spec, config.model, config.train.seed)
            tensors: dict[str, Tensor] = {}
            for player, network in (("G", G), ("D", D), ("ema", G)):
                prefix = f"{player}."
                own = {name.removeprefix(prefix): t for name, t in found.tensors.items() if name.startswith(prefix)}
                sampling.assign_tensors(found.path, network, own)
                tensors |= {prefix + name: tensor for name, tensor in own.items()}
        except Damaged as error:
            raise UserError(f"from: {error}", "model-invalid") from None
        notes = tuple(f"{sentence}; using {found.path.name}" for sentence in damaged)
        return cls(run, True, config, spec, found.meta["images_seen"], found.meta["sha256"], tensors, notes)

    @classmethod
    def from_generator(cls, path: Path) -> SourceModel:
        generator = sampling.load(path)
        state = generator.network.state_dict()
        tensors = {f"{player}.{name}": tensor for player in ("G", "ema") for name, tensor in state.items()}
        return cls(
            path, False, generator.config, generator.spec, generator.images_seen, generator.sha256, tensors, ()
        )  # fmt: skip

    @classmethod
    def from_base(cls) -> SourceModel:
        """The model that comes with ptarmigan: the moving average of G, and D, stored in fp16."""
        if not base_exists():
            text = "from: this installation of ptarmigan has no base model: leave --from out, or name a run"
            raise UserError(text, "path-not-found")
        try:
            stored, meta = load_tensors(BASE_FILE)
            header = header_of(BASE_FILE, meta)
        except Damaged as error:
            raise UserError(f"from: {error}: install ptarmigan again", "model-invalid") from None
        tensors = {name: tensor.float() for name, tensor in stored.items()}
        tensors |= {f"ema.{name[2:]}": tensor for name, tensor in tensors.items() if name.startswith("G.")}
        return cls(BASE, True, header.config, header.spec, header.images_seen, header.sha256, tensors, ())
