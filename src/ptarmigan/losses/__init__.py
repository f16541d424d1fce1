"""The losses: per-sample functions of logits, class conditioning, gradient penalties, and a user's own loss file."""

from ptarmigan.losses.adversarial import (
    OBJECTIVES,
    Objective,
    cross_entropy_d,
    hinge_d,
    hinge_g,
    least_squares_d,
    least_squares_g,
    minimax_g,
    non_saturating_g,
    objective,
    relativistic_d,
    relativistic_g,
    softplus,
    wasserstein_d,
)
from ptarmigan.losses.conditioning import (
    classification_d,
    classification_g,
    d2d_ce,
    discriminative_d,
    discriminative_g,
    twin_g,
)
from ptarmigan.losses.penalties import between, one_centred, squared_gradient_norm

__all__ = [
    "OBJECTIVES", "Objective", "between", "classification_d", "classification_g", "cross_entropy_d", "d2d_ce",
    "discriminative_d", "discriminative_g", "hinge_d", "hinge_g", "least_squares_d", "least_squares_g", "minimax_g",
    "non_saturating_g", "objective", "one_centred", "relativistic_d", "relativistic_g", "softplus",
    "squared_gradient_norm", "twin_g", "wasserstein_d",
]  # fmt: skip
