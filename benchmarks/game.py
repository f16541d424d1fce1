"""Games small enough to be solved, played by the shipped step, and pictures of two of them.

    pip install -e '.[bench]'
    python benchmarks/game.py

Writes docs/phase-portraits.png, the Dirac-GAN under each loss with and without R1, and docs/acgan-shrinks.png, where
a generator of two overlapping classes ends under ACGAN and under what repaired it.  Networks are double and learn by
plain descent; every update is made by `d_step` and `g_step`.  tests/test_solved.py holds what the pictures show.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ptarmigan.config import Config, Loss
from ptarmigan.core.types import Batch, DiscriminatorOutput, ImageSpec
from ptarmigan.game.state import TrainState
from ptarmigan.game.step import d_step, g_step
from ptarmigan.losses.adversarial import Objective, objective
from ptarmigan.losses.conditioning import ConditionalDiscriminator, Head
from support import GivenDraws

DOCS = Path(__file__).parent.parent / "docs"
FREE = {"r1": 0.0, "r2": 0.0}
LOSSES = {
    **{
        name: Loss(loss=name, **FREE)
        for name in (
            "minimax", "non_saturating", "relativistic", "least_squares",
            "hinge", "wasserstein", "least_squares_pearson",
        )
    },
    "smoothing": Loss(loss="non_saturating", smoothing=0.9, **FREE),
}  # fmt: skip


@dataclass(frozen=True)
class Game:
    """Two players and all the data there are; G takes nothing and gives the same images until it learns."""

    state: TrainState
    real: Batch

    @classmethod
    def create(cls, G: nn.Module, D: nn.Module, real: Batch, loss: Loss, rate: float, of: Objective) -> Game:
        opt_g, opt_d = (torch.optim.SGD(net.parameters(), lr=rate, fused=True) for net in (G, D))
        spec, config = ImageSpec(1, 1, 1, ("point",)), replace(Config(), loss=loss)
        return cls(TrainState(config, spec, G, D, G, opt_g, opt_d, of, torch.zeros(())), real)

    def move(self, alternate: bool = True) -> None:
        """Both shipped steps on one forward of G: D first, as in training, or both from the same place."""
        fake = Batch(self.state.G(), self.real.labels)
        for step in (d_step, g_step) if alternate else (g_step, d_step):
            step(self.state, self.real, fake, GivenDraws())


# ---------------------------------------------------------------------------- the Dirac-GAN, and two Gaussians


class Points(nn.Module):
    """G(z) = mean + sd z, or where there is one z, which is 0, mean alone."""

    def __init__(self, z: Tensor) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.log_sd = nn.Parameter(torch.zeros((), dtype=torch.float64)) if len(z) > 1 else 0 * self.mean.detach()
        self.z = z

    def forward(self) -> Tensor:
        return (self.mean + self.log_sd.exp() * self.z).view(-1, 1, 1, 1)


class Powers(nn.Module):
    """Features x, ..., x^n."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, images: Tensor, masks: object = None) -> Tensor:
        return torch.cat([images.flatten(1) ** power for power in range(1, self.n + 1)], 1)


def on_a_line(z: Tensor, powers: int, loss: Loss, rate: float = 1.0) -> Game:
    """Data z [n], G(z) = mean + sd z, every real in a pair with every fake; D a polynomial, at its place at p = q."""
    n, of = len(z), objective(loss)
    G = Points(z.repeat(n))
    D = ConditionalDiscriminator(Powers(powers), powers, 1, "none").double()
    with torch.no_grad():
        D.head.source.weight.zero_()
        D.head.source.bias.fill_(of.equilibrium_logit or 0.0)
    real = Batch(z.repeat_interleave(n).view(-1, 1, 1, 1), torch.zeros(n * n, dtype=torch.int64))
    return Game.create(G, D, real, loss, rate, of)


def dirac(loss: Loss, rate: float = 1.0) -> Game:
    """Data at 0, G a point theta, D(x) = psi x + b (Mescheder et al. 2018, 1801.04406, definition 2.1, which has no b).

    With b the losses whose D has an even logit that is not 0 are at rest at p = q too.
    """
    return on_a_line(torch.zeros(1, dtype=torch.float64), 1, loss, rate)


class Plane:
    """The Dirac-GAN's plane (psi, theta), b held at the even logit."""

    def __init__(self, loss: Loss, rate: float) -> None:
        self.game, self.rate = dirac(loss, rate), rate
        source = self.game.state.D.head.source
        bias = source.bias.detach()
        del source.bias
        source.register_buffer("bias", bias)
        self.psi, self.theta = source.weight, self.game.state.G.mean

    def put(self, psi: float, theta: float) -> None:
        with torch.no_grad():
            self.psi.fill_(psi)
            self.theta.fill_(theta)

    def field(self, psi: float, theta: float) -> tuple[float, float]:
        """What a simultaneous step adds, for a rate of 1: minus each player's gradient of its own loss."""
        self.put(psi, theta)
        self.game.move(alternate=False)
        return (self.psi.item() - psi) / self.rate, (self.theta.item() - theta) / self.rate

    def path(self, psi: float, theta: float, steps: int) -> list[tuple[float, float]]:
        """(psi, theta) at the start and after each of so many shipped steps, D first."""
        self.put(psi, theta)
        places = [(psi, theta)]
        for _ in range(steps):
            self.game.move()
            places.append((self.psi.item(), self.theta.item()))
        return places


# ---------------------------------------------------------------------------- places with weights


class Weighed(ConditionalDiscriminator):
    """The shipped D and head on images of one lit pixel; beside each logit stands the weight that its image carries.

    An image [S + 1, 1, 1] is the place, one-hot, and S times its probability.  With the losses weighed so, a batch
    of every pair of places is the game in expectation, exactly, and its weights are what G has to learn.
    """

    def __init__(self, places: int, classes: int, conditioning: str) -> None:
        super().__init__(nn.Identity(), places, classes, conditioning)
        self.double()
        weigh(self.head)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, images: Tensor, labels: Tensor, masks: object = None) -> DiscriminatorOutput:
        pixels = images.flatten(1)
        output: DiscriminatorOutput = self.head(pixels[:, :-1], labels)
        return output._replace(logits=torch.stack([output.logits, pixels[:, -1]], 1))


def weigh(head: Head) -> None:
    """Weigh the class terms of a head, each pair by both its weights, G's by the fake's."""
    of_d, of_g = head.d_term, head.g_term

    def d_term(real: DiscriminatorOutput, fake: DiscriminatorOutput, **given: Any) -> Tensor | None:
        term = of_d(real, fake, **given)
        return None if term is None else real.logits[:, 1] * fake.logits[:, 1] * term

    def g_term(fake: DiscriminatorOutput, **given: Any) -> Tensor | None:
        term = of_g(fake, **given)
        return None if term is None else fake.logits[:, 1] * term

    head.d_term, head.g_term = d_term, g_term


def weighed(of: Objective) -> Objective:
    """The same pair of losses of logits [N, 2]: the logit, and the weight."""

    def d(real: Tensor, fake: Tensor) -> Tensor:
        return real[:, 1] * fake[:, 1] * of.d(real=real[:, 0], fake=fake[:, 0])

    def g(fake: Tensor, real: Tensor | None = None) -> Tensor:
        if real is None:
            return fake[:, 1] * of.g(fake=fake[:, 0])
        return real[:, 1] * fake[:, 1] * of.g(real=real[:, 0], fake=fake[:, 0])

    return replace(of, d=d, g=g)


class Density(nn.Module):
    """G that gives the places of its half of `pairs`, each with its probability under `log_q` [K, S]."""

    def __init__(self, labels: Tensor, places: Tensor) -> None:
        super().__init__()
        self.labels, self.places = labels, places

    def log_q(self) -> Tensor:
        raise NotImplementedError

    def forward(self) -> Tensor:
        return lit(self.log_q().exp(), self.labels, self.places)


def lit(probabilities: Tensor, labels: Tensor, places: Tensor) -> Tensor:
    """Images [N, S + 1, 1, 1] of these places, their weight from probabilities [K, S] of places in each class."""
    count = probabilities.shape[1]
    weights = count * probabilities[labels, places]
    return torch.cat([one_hot(places, count).double(), weights.unsqueeze(1)], 1).view(-1, count + 1, 1, 1)


def pairs(rows: Sequence[int], places: int) -> tuple[Tensor, Tensor, Tensor]:
    """Labels, places of the real, places of the fake: every pair of places for each label in `rows`."""
    at = torch.arange(places)
    every = torch.cartesian_prod(torch.tensor(rows), at, at)
    return every[:, 0], every[:, 1], every[:, 2]


class Table(Density):
    """G that knows each class's probabilities by heart: softmax of a free table [K, S]."""

    def __init__(self, labels: Tensor, places: Tensor, table: Tensor) -> None:
        super().__init__(labels, places)
        self.table = nn.Parameter(table.clone())

    def log_q(self) -> Tensor:
        return self.table.log_softmax(1)


# ---------------------------------------------------------------------------- where ACGAN leads overlapping classes

GRID = torch.linspace(-8, 8, 81, dtype=torch.float64)
LOG_CELL = math.log(16 / 80)
STEPS = 60
REPAIRS = ("twin_classifier", "discriminative_classifier", "projection")


def log_classes(mean: Tensor, log_sd: Tensor) -> Tensor:
    """log of the probabilities of the places in GRID [2, S] under N(-mean, sd^2) and N(mean, sd^2)."""
    deviations = (GRID - torch.stack([-mean, mean]).unsqueeze(1)) / log_sd.exp()
    return -0.5 * deviations.square() - log_sd - 0.5 * math.log(2 * math.pi) + LOG_CELL


class Normals(Density):
    """G of the classes N(+-mean, sd^2)."""

    def __init__(self, labels: Tensor, places: Tensor, mean: float, sd: float) -> None:
        super().__init__(labels, places)
        self.mean = nn.Parameter(torch.tensor(mean, dtype=torch.float64))
        self.log_sd = nn.Parameter(torch.tensor(math.log(sd), dtype=torch.float64))

    def log_q(self) -> Tensor:
        return log_classes(self.mean, self.log_sd)


LOG_P = log_classes(torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64))


def overlapping(conditioning: str, class_fake: bool, mean: float, sd: float, every_pair: bool = False) -> Game:
    """Classes N(+-1, 1) against G's N(+-mean, sd^2), of equal share: minimax, whose G descends 2 JSD, and .5 CE.

    G's step needs each fake once, for minimax looks at no pair; D's terms are weighed by pairs and need every pair.
    """
    labels, reals, fakes = pairs((0, 1), len(GRID))
    if not every_pair:
        labels, reals, fakes = (column[reals == fakes] for column in (labels, reals, fakes))
    loss = Loss(loss="minimax", class_weight=0.5, class_fake=class_fake, **FREE)
    real = Batch(lit(LOG_P.exp(), labels, reals), labels)
    D = Weighed(len(GRID), 2, conditioning)
    return Game.create(Normals(labels, fakes, mean, sd), D, real, loss, 1.0, weighed(objective(loss)))


@torch.no_grad()
def respond(game: Game) -> None:
    """Put D where it is best against G as it stands: log p/q, and the posteriors that its head is to learn."""
    head, log_q = game.state.D.head, game.state.G.log_q()
    p, q = LOG_P.logsumexp(0), log_q.logsumexp(0)
    both = torch.logaddexp(LOG_P, log_q) if game.state.config.loss.class_fake else LOG_P
    match type(head).__name__:
        case "Projection":
            head.embedding.weight.copy_(LOG_P - log_q)
            return
        case "AuxiliaryClassifier":
            head.classifier.weight.copy_(both)
        case "TwinClassifier":
            head.classifier.weight.copy_(LOG_P)
            head.twin.weight.copy_(log_q)
        case "DiscriminativeClassifier":
            head.classifier.weight.copy_(torch.cat([LOG_P, log_q]))
    head.source.weight.copy_((p - q).unsqueeze(0))


def rest(conditioning: str, class_fake: bool = True, mean: float = 1.0, sd: float = 1.0) -> tuple[float, float]:
    """G's mean and sd after STEPS shipped steps from there, each against the best D."""
    game = overlapping(conditioning, class_fake, mean, sd)
    G = game.state.G
    for _ in range(STEPS):
        respond(game)
        g_step(game.state, game.real, Batch(G(), game.real.labels), GivenDraws())
    return G.mean.item(), G.log_sd.exp().item()


# ---------------------------------------------------------------------------- pictures

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "0.75"
REACH, GAMMA, RATE = 2.0, 0.5, 0.1  # of the plane; of R1; of the paths
STARTS = ((0.0, 1.5), (0.0, -0.6))


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    torch.set_num_threads(1)
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    draw_portraits(plt, DOCS / "phase-portraits.png")
    draw_classes(plt, DOCS / "acgan-shrinks.png")


def draw_portraits(plt: Any, path: Path) -> None:
    figure, axes = plt.subplots(4, 4, figsize=(9.6, 10.2), sharex=True, sharey=True, layout="constrained")
    ticks = torch.linspace(-REACH, REACH, 15, dtype=torch.float64).tolist()
    for index, (name, loss) in enumerate(LOSSES.items()):
        for below, gamma in enumerate((0.0, GAMMA)):
            axis = axes[index // 4 * 2 + below, index % 4]
            plane = Plane(replace(loss, r1=gamma), RATE)
            field = torch.tensor([[plane.field(psi, theta) for psi in ticks] for theta in ticks])  # [theta, psi, 2]
            axis.streamplot(
                ticks, ticks, field[..., 0].numpy(), field[..., 1].numpy(),
                color=GREY, linewidth=0.7, arrowsize=0.7, density=0.9,
            )  # fmt: skip
            for start, colour in zip(STARTS, (BLUE, ORANGE), strict=True):
                psi, theta = zip(*plane.path(*start, steps=500), strict=True)
                axis.plot(psi, theta, ".", color=colour, markersize=1.6)
                axis.plot(*start, "o", color=colour, markersize=5)
            axis.plot(0, 0, "+", color="black", markersize=9)
            axis.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
            axis.set_title(f"{name}, R1" if gamma else name, loc="left", fontsize=9, fontweight="bold")
    for axis in axes[-1]:
        axis.set_xlabel("ψ, D's slope")
    for axis in axes[:, 0]:
        axis.set_ylabel("θ, G's point")
    save(figure, path)


def draw_classes(plt: Any, path: Path) -> None:
    ends = {
        "ACGAN, C on real and fake": rest("auxiliary_classifier", True),
        "ACGAN, C on real alone": rest("auxiliary_classifier", False),
        "projection, TAC, ADC": rest("projection", True, 1.3, 0.75),
    }
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 2.9), sharex=True, sharey=True, layout="constrained")
    x = torch.linspace(-4.5, 4.5, 300, dtype=torch.float64)

    def density(mean: float, sd: float) -> Tensor:
        return torch.exp(-0.5 * ((x - mean) / sd).square()) / (sd * math.sqrt(2 * math.pi))

    for axis, (name, (mean, sd)) in zip(axes, ends.items(), strict=True):
        for sign, colour in ((-1, BLUE), (1, ORANGE)):
            axis.fill_between(x, density(sign, 1.0), color=colour, alpha=0.2, lw=0)
            axis.plot(x, density(sign * mean, sd), color=colour, lw=1.8)
        axis.set_title(name, loc="left", fontsize=10, fontweight="bold")
        axis.text(0.02, 0.97, f"lines: G's, N(±{mean:.3f}, {sd:.3f}²)", transform=axis.transAxes, va="top")
        axis.text(0.02, 0.89, "filled: the data, N(±1, 1)", transform=axis.transAxes, va="top")
        axis.set(xlabel="x", ylim=(0, 0.68))
    axes[0].set_ylabel("density of each class")
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """In 64 colours, which is a quarter of the bytes."""
    memory = io.BytesIO()
    figure.savefig(memory, dpi=100)
    Image.open(memory).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
