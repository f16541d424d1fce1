"""All that training changes: two networks, their optimizers, the moving average of G, images seen, and progress."""

from __future__ import annotations

import copy
import hashlib
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ptarmigan.config import Config
from ptarmigan.config.sections import Scheduled
from ptarmigan.core.devices import autocast
from ptarmigan.core.types import ImageSpec
from ptarmigan.game.optim import adam, at
from ptarmigan.game.progress import Progress
from ptarmigan.losses.adversarial import Objective, objective
from ptarmigan.losses.conditioning import ConditionalDiscriminator
from ptarmigan.losses.custom import ADA_SCALARS, LossFile
from ptarmigan.networks import build
from ptarmigan.networks.layers import learning, over_ranks


@dataclass
class TrainState:
    config: Config
    spec: ImageSpec
    G: nn.Module
    D: ConditionalDiscriminator
    ema: nn.Module
    opt_g: torch.optim.Optimizer
    opt_d: torch.optim.Optimizer
    objective: Objective
    found_inf: Tensor  # [] float on the device: 1 once a term or a gradient was not finite
    bf16: bool = False
    micro_batch: int = 0  # images computed at once; 0: the whole batch
    images_seen: int = 0
    progress: Progress = field(default_factory=Progress)
    device_scalars: dict[str, Tensor] = field(default_factory=dict)  # [] each: ADA's, a custom loss's
    loss_file: LossFile | None = None  # the user's own loss

    @classmethod
    def create(
        cls,
        config: Config,
        spec: ImageSpec,
        device: torch.device,
        bf16: bool = False,
        loss_file: LossFile | None = None,
    ) -> TrainState:
        """The state before the first step, with weights that depend on the seed alone."""
        train = config.train
        G, D = build(spec, config.model, train.seed)
        for network in (G, D):
            network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = copy.deepcopy(G).eval().requires_grad_(False)
        for network in (G, D):
            over_ranks(network)
        names = [*(ADA_SCALARS if config.data.augment == "ada" else ()), *(loss_file.averages if loss_file else ())]
        return cls(
            config, spec, G, D, average,
            adam(learning(G).values(), train.g_lr, train.g_betas),
            adam(learning(D).values(), train.d_lr, train.d_betas),
            loss_file.objective if loss_file else objective(config.loss), torch.zeros((), device=device), bf16,
            device_scalars={name: torch.zeros((), device=device) for name in names}, loss_file=loss_file,
        )  # fmt: skip

    @property
    def device(self) -> torch.device:
        return self.found_inf.device

    @property
    def budgets_done(self) -> int:
        """How many of the planned ends are reached, without the last."""
        return sum(end <= self.images_seen for end in self.progress.ends[:-1])

    @property
    def end(self) -> int | None:
        """Images seen at which training ends; None up to the step at which a time budget fixed it.

        In a replay it is the end that held at the step: it may have been moved, and the run extended, later.  A move
        is where it was made, and the end before it.
        """
        progress, seen = self.progress, self.images_seen
        if not progress.ends or seen < progress.end_fixed_at:
            return None
        last = progress.ends[self.budgets_done]
        return next((end for at, end in progress.moves if seen < at < last), last)

    @property
    def start(self) -> int:
        """Images seen at which the current budget started: the end of the budget before it, or 0."""
        return [0, *self.progress.ends][self.budgets_done]

    @property
    def penalised(self) -> bool:
        """Whether R1 or R2 is applied in D's next update."""
        loss, step = self.config.loss, self.images_seen // self.config.train.batch
        return bool(loss.r1 or loss.r2) and step % loss.penalty_every == 0

    def means_where_due(self, means: dict[str, float], steps: int) -> dict[str, float]:
        """The terms' means over the last `steps` steps, those of R1 and R2 over the steps where these were due.

        Between them R1 and R2 are 0, and where they are due they are scaled by `penalty_every`: the scale is taken out.
        They are left out where no step had them.
        """
        every, step = self.config.loss.penalty_every, self.images_seen // self.config.train.batch
        due = sum(earlier % every == 0 for earlier in range(step - steps, step))
        lazy = {name: mean * steps / (due * every) for name, mean in means.items() if due and name in ("d_r1", "d_r2")}
        return {name: lazy.get(name, mean) for name, mean in means.items() if due or name not in ("d_r1", "d_r2")}

    def now(self, value: Scheduled) -> float:
        """The value at this step of a field that may be a ramp."""
        return at(value, self.images_seen, self.start, self.end)

    def autocast(self) -> AbstractContextManager[Any]:
        return autocast(self.device, self.bf16)

    def tensors(self) -> dict[str, Tensor]:
        """All but `progress` and `images_seen`, by names that start with G, D, ema, opt_g, opt_d or device_scalars."""
        out = {f"device_scalars.{name}": value for name, value in self.device_scalars.items()} | self.network_tensors()
        for prefix, optimizer, module in (("opt_g", self.opt_g, self.G), ("opt_d", self.opt_d, self.D)):
            for name, parameter in learning(module).items():
                out |= {f"{prefix}.{name}.{key}": value for key, value in optimizer.state[parameter].items()}
        return out

    def network_tensors(self) -> dict[str, Tensor]:
        """Those of G, D and ema."""
        networks = (("G", self.G), ("D", self.D), ("ema", self.ema))
        return {f"{prefix}.{name}": value for prefix, module in networks for name, value in module.state_dict().items()}

    def digest(self) -> bytes:
        """SHA-256 of what must be equal on all ranks: weights, D's singular vectors, G's average, device scalars."""
        sha = hashlib.sha256()
        weights = (*self.G.parameters(), *self.D.state_dict().values(), *self.ema.parameters())
        for tensor in (*weights, *self.device_scalars.values()):
            sha.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return sha.digest()

    def load(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `tensors`; raises KeyError or RuntimeError where names or shapes differ."""
        for name, value in self.device_scalars.items():
            value.copy_(tensors[f"device_scalars.{name}"])
        for prefix, module in (("G", self.G), ("D", self.D), ("ema", self.ema)):
            module.load_state_dict({n[len(prefix) + 1 :]: v for n, v in tensors.items() if n.startswith(f"{prefix}.")})
        for prefix, optimizer, module in (("opt_g", self.opt_g, self.G), ("opt_d", self.opt_d, self.D)):
            moments: dict[str, dict[str, Tensor]] = {name: {} for name in learning(module)}
            for full_name, value in tensors.items():
                if full_name.startswith(f"{prefix}."):
                    name, _, key = full_name.removeprefix(f"{prefix}.").rpartition(".")
                    moments[name][key] = value
            for name, parameter in learning(module).items():
                optimizer.state[parameter] = {  # moments in the parameter's own memory format
                    key: torch.empty_like(parameter).copy_(value)
                    if value.shape == parameter.shape
                    else value.to(parameter.device, copy=True)
                    for key, value in moments[name].items()
                }
