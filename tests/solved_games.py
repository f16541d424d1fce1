"""Games with analytic solutions, played by the shipped step, for test_solved.py and tools/draw_games.py.

Networks are in float64 and learn by plain gradient descent.  Every update is made by `d_step` and `g_step`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ptarmigan.config import Config, Loss
from ptarmigan.core.types import Batch, DiscriminatorOutput, ImageSpec
from ptarmigan.game.state import TrainState
from ptarmigan.game.step import d_step, g_step
from ptarmigan.losses.adversarial import Objective, objective
from ptarmigan.losses.conditioning import ConditionalDiscriminator, Head
from support import GivenDraws

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
    """Two players and the whole data set.  G takes no latents: its images change only when it learns."""

    state: TrainState
    real: Batch

    @classmethod
    def create(cls, G: nn.Module, D: nn.Module, real: Batch, loss: Loss, rate: float, of: Objective) -> Game:
        opt_g, opt_d = (torch.optim.SGD(net.parameters(), lr=rate, fused=True) for net in (G, D))
        spec, config = ImageSpec(1, 1, 1, ("point",)), replace(Config(), loss=loss)
        return cls(TrainState(config, spec, G, D, G, opt_g, opt_d, of, torch.zeros(())), real)

    def move(self, alternate: bool = True) -> None:
        """Both shipped steps on one forward of G: D first, as in training, or both players from the same parameters."""
        fake = Batch(self.state.G(), self.real.labels)
        for step in (d_step, g_step) if alternate else (g_step, d_step):
            step(self.state, self.real, fake, GivenDraws())


# ---------------------------------------------------------------------------- the Dirac-GAN, and two Gaussians


class Points(nn.Module):
    """G(z) = mean + sd z.  With a single z, which is 0, only the mean is learnt."""

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


def game_on_a_line(z: Tensor, powers: int, loss: Loss, rate: float = 1.0) -> Game:
    """Data z [n] and G(z) = mean + sd z, each real paired with each fake; D is a polynomial, optimal for p = q."""
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

    With b, losses whose equilibrium logit is not 0 also have an equilibrium at p = q.
    """
    return game_on_a_line(torch.zeros(1, dtype=torch.float64), 1, loss, rate)


class Plane:
    """The plane (psi, theta) of the Dirac-GAN, with b fixed at the equilibrium logit."""

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
        """The change per unit of learning rate in a simultaneous step: minus each player's gradient of its own loss."""
        self.put(psi, theta)
        self.game.move(alternate=False)
        return (self.psi.item() - psi) / self.rate, (self.theta.item() - theta) / self.rate

    def path(self, psi: float, theta: float, steps: int) -> list[tuple[float, float]]:
        """(psi, theta) at the start and after each of `steps` shipped steps, D first."""
        self.put(psi, theta)
        places = [(psi, theta)]
        for _ in range(steps):
            self.game.move()
            places.append((self.psi.item(), self.theta.item()))
        return places


# ---------------------------------------------------------------------------- weighted places


class WeightedDiscriminator(ConditionalDiscriminator):
    """The shipped D and head on one-hot images.  Its logits are [N, 2]: the logit, and the weight of the image.

    An image [S + 1, 1, 1] holds a place in one-hot form and S times its probability.  With losses weighted by these,
    a batch of all pairs of places is exactly the game in expectation, and the weights are what G has to learn.
    """

    def __init__(self, places: int, classes: int, conditioning: str) -> None:
        super().__init__(nn.Identity(), places, classes, conditioning)
        self.double()
        weight_class_terms(self.head)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, images: Tensor, labels: Tensor, masks: object = None) -> DiscriminatorOutput:
        pixels = images.flatten(1)
        output: DiscriminatorOutput = self.head(pixels[:, :-1], labels)
        return output._replace(logits=torch.stack([output.logits, pixels[:, -1]], 1))


def weight_class_terms(head: Head) -> None:
    """Weight the class terms of a head: D's by the weights of the real and the fake image, G's by that of the fake."""
    of_d, of_g = head.d_term, head.g_term

    def d_term(real: DiscriminatorOutput, fake: DiscriminatorOutput, **given: Any) -> Tensor | None:
        term = of_d(real, fake, **given)
        return None if term is None else real.logits[:, 1] * fake.logits[:, 1] * term

    def g_term(fake: DiscriminatorOutput, **given: Any) -> Tensor | None:
        term = of_g(fake, **given)
        return None if term is None else fake.logits[:, 1] * term

    head.d_term, head.g_term = d_term, g_term


def weighted_objective(of: Objective) -> Objective:
    """The same losses for logits [N, 2]: the logit, and the weight."""

    def d(real: Tensor, fake: Tensor) -> Tensor:
        return real[:, 1] * fake[:, 1] * of.d(real=real[:, 0], fake=fake[:, 0])

    def g(fake: Tensor, real: Tensor | None = None) -> Tensor:
        if real is None:
            return fake[:, 1] * of.g(fake=fake[:, 0])
        return real[:, 1] * fake[:, 1] * of.g(real=real[:, 0], fake=fake[:, 0])

    return replace(of, d=d, g=g)


class PlaceGenerator(nn.Module):
    """G whose images are given places, each with its probability under `log_q` [K, S]."""

    def __init__(self, labels: Tensor, places: Tensor) -> None:
        super().__init__()
        self.labels, self.places = labels, places

    def log_q(self) -> Tensor:
        raise NotImplementedError

    def forward(self) -> Tensor:
        return place_images(self.log_q().exp(), self.labels, self.places)


def place_images(probabilities: Tensor, labels: Tensor, places: Tensor) -> Tensor:
    """Images [N, S + 1, 1, 1] of places, weighted by the probabilities [K, S] of the places in each class."""
    count = probabilities.shape[1]
    weights = count * probabilities[labels, places]
    return torch.cat([one_hot(places, count).double(), weights.unsqueeze(1)], 1).view(-1, count + 1, 1, 1)


def pairs(rows: Sequence[int], places: int) -> tuple[Tensor, Tensor, Tensor]:
    """Labels, places of the reals, places of the fakes: all pairs of places for each label in `rows`."""
    at = torch.arange(places)
    every = torch.cartesian_prod(torch.tensor(rows), at, at)
    return every[:, 0], every[:, 1], every[:, 2]


class TableGenerator(PlaceGenerator):
    """G that holds the probabilities of each class directly: softmax of a free table [K, S]."""

    def __init__(self, labels: Tensor, places: Tensor, table: Tensor) -> None:
        super().__init__(labels, places)
        self.table = nn.Parameter(table.clone())

    def log_q(self) -> Tensor:
        return self.table.log_softmax(1)


# ---------------------------------------------------------------------------- ACGAN on overlapping classes

GRID = torch.linspace(-8, 8, 81, dtype=torch.float64)
LOG_CELL = math.log(16 / 80)
STEPS = 60
REPAIRS = ("twin_classifier", "discriminative_classifier", "projection")


def log_classes(mean: Tensor, log_sd: Tensor) -> Tensor:
    """Log-probabilities [2, S] of the places in GRID under N(-mean, sd^2) and N(mean, sd^2)."""
    deviations = (GRID - torch.stack([-mean, mean]).unsqueeze(1)) / log_sd.exp()
    return -0.5 * deviations.square() - log_sd - 0.5 * math.log(2 * math.pi) + LOG_CELL


class NormalGenerator(PlaceGenerator):
    """G with the classes N(-mean, sd^2) and N(mean, sd^2)."""

    def __init__(self, labels: Tensor, places: Tensor, mean: float, sd: float) -> None:
        super().__init__(labels, places)
        self.mean = nn.Parameter(torch.tensor(mean, dtype=torch.float64))
        self.log_sd = nn.Parameter(torch.tensor(math.log(sd), dtype=torch.float64))

    def log_q(self) -> Tensor:
        return log_classes(self.mean, self.log_sd)


LOG_P = log_classes(torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64))


def overlapping_classes(conditioning: str, class_fake: bool, mean: float, sd: float, every_pair: bool = False) -> Game:
    """Two equally frequent classes N(+-1, 1) against G's N(+-mean, sd^2); G minimizes 2 JSD (minimax) + .5 CE.

    G's step needs each fake once, because minimax compares no pairs; D's terms are weighted by pairs and need all.
    """
    labels, reals, fakes = pairs((0, 1), len(GRID))
    if not every_pair:
        labels, reals, fakes = (column[reals == fakes] for column in (labels, reals, fakes))
    loss = Loss(loss="minimax", class_weight=0.5, class_fake=class_fake, **FREE)
    real = Batch(place_images(LOG_P.exp(), labels, reals), labels)
    D = WeightedDiscriminator(len(GRID), 2, conditioning)
    return Game.create(
        NormalGenerator(labels, fakes, mean, sd), D, real, loss, 1.0, weighted_objective(objective(loss))
    )


@torch.no_grad()
def set_best_discriminator(game: Game) -> None:
    """Set D to its optimum against the present G: log p/q, and the posteriors that its head has to learn."""
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


def resting_point(
    conditioning: str, class_fake: bool = True, mean: float = 1.0, sd: float = 1.0
) -> tuple[float, float]:
    """G's mean and sd after STEPS shipped steps from the given ones, each against the optimal D."""
    game = overlapping_classes(conditioning, class_fake, mean, sd)
    G = game.state.G
    for _ in range(STEPS):
        set_best_discriminator(game)
        g_step(game.state, game.real, Batch(G(), game.real.labels), GivenDraws())
    return G.mean.item(), G.log_sd.exp().item()
