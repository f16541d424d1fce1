"""Words of other papers, libraries and tools, and what they are called here.

`--loss`, `--recipe`, `--conditioning` and `ptarmigan losses` share the words for losses.  A word is compared without
case, spaces, hyphens and underscores, and without "loss" at its end.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Other names of the losses.  BCE is non_saturating, as in almost all code: G's target is "real".
LOSS_NAMES = {
    "bce": "non_saturating", "binarycrossentropy": "non_saturating", "bcewithlogits": "non_saturating",
    "crossentropy": "non_saturating", "dcgan": "non_saturating", "gan": "non_saturating", "logistic": "non_saturating",
    "logisticnonsaturating": "non_saturating", "ns": "non_saturating", "nsgan": "non_saturating",
    "nonsaturatinggan": "non_saturating", "nonsaturatinglogistic": "non_saturating", "original": "non_saturating",
    "softplus": "non_saturating", "standard": "non_saturating", "vanilla": "non_saturating",
    "vanillagan": "non_saturating",
    "minmax": "minimax", "mm": "minimax", "mmgan": "minimax", "minimaxgan": "minimax", "saturating": "minimax",
    "saturatinggan": "minimax", "zerosum": "minimax",
    "l2": "least_squares", "leastsquare": "least_squares", "leastsquaresgan": "least_squares", "ls": "least_squares",
    "lsgan": "least_squares", "mse": "least_squares", "msegan": "least_squares",
    "pearson": "least_squares_pearson",
    "geometricgan": "hinge", "hingegan": "hinge",
    "critic": "wasserstein", "earthmover": "wasserstein", "emd": "wasserstein", "w1": "wasserstein",
    "wass": "wasserstein", "wassersteingan": "wasserstein", "wgan": "wasserstein",
    "relativisticgan": "relativistic", "relativisticpaired": "relativistic", "relativisticpairing": "relativistic",
    "rgan": "relativistic", "rpgan": "relativistic", "rsgan": "relativistic",
}  # fmt: skip


class Other(NamedTuple):
    """A word that is not the name of one loss."""

    entry: str  # of `ptarmigan losses`
    text: str  # what the word is, and the options to use


WGAN_GP = Other(
    "gradient_penalty",
    "WGAN-GP is a loss with a penalty: use --loss wasserstein --gradient-penalty 10 --r1 0 --r2 0",
)
PENALTY = Other(
    "gradient_penalty",
    "a gradient penalty is added to a loss: use --r1 0.2 for real images, --r2 0.2 for generated ones, or "
    "--gradient-penalty 10 for WGAN-GP's",
)
R1 = Other("r1", "R1 is a gradient penalty that is added to a loss: use --r1 0.2")
R2 = Other("r2", "R2 is a gradient penalty that is added to a loss: use --r2 0.2")
SMOOTHING = Other(
    "smoothing", "label smoothing changes the target of a cross-entropy loss: use --loss non_saturating --smoothing 0.9"
)
CGAN = Other(
    "projection", "every loss here works with classes: use --conditioning projection, or another of its values"
)
PROJECTION = Other("projection", "projection is how D uses the class: use --conditioning projection, with any loss")
ACGAN = Other(
    "acgan", "ACGAN is a recipe: use --recipe acgan, or --conditioning auxiliary_classifier with another recipe"
)
TAC = Other("twin_classifier", "TAC-GAN is a conditioning: use --conditioning twin_classifier, with any loss")
ADC = Other(
    "discriminative_classifier",
    "ADC-GAN is a conditioning: use --conditioning discriminative_classifier, with any loss",
)
REACGAN = Other("reacgan", "ReACGAN is a conditioning: use --conditioning reacgan --loss hinge")
CONTRAGAN = Other("reacgan", "ContraGAN is not here; ReACGAN is the nearest: use --conditioning reacgan --loss hinge")
RAGAN = Other(
    "relativistic",
    "relativistic average losses are not here; the nearest compares each real image with one generated image: use "
    "--loss relativistic",
)
SPECTRAL = Other("hinge", "spectral norm is used with the hinge loss: use --loss hinge --d-norm spectral")
SNGAN = Other("hinge", "SNGAN, SAGAN and BigGAN use hinge: use --loss hinge --d-norm spectral --network resnet")
STYLEGAN = Other("non_saturating", "StyleGAN's loss is non_saturating with R1: use --loss non_saturating --r1 1 --r2 0")
R3GAN = Other("relativistic", "R3GAN is a loss and a network: use --loss relativistic --network r3gan")
DRAGAN = Other(
    "gradient_penalty", "DRAGAN and WGAN-div are not here; WGAN-GP's penalty is the nearest: use --gradient-penalty 10"
)
AUGMENTATION = Other("ada", "augmentation changes the images that D sees: use --augment ada or --augment diffaugment")

OTHERS = {
    "wgangp": WGAN_GP, "wassersteingp": WGAN_GP, "wgangradientpenalty": WGAN_GP,
    "gradientpenalty": PENALTY, "gp": PENALTY,
    "r1": R1, "r1gp": R1, "r1penalty": R1, "r1regularization": R1, "r1regularisation": R1,
    "r2": R2, "r2penalty": R2, "r1r2": PENALTY,
    "smoothing": SMOOTHING, "labelsmoothing": SMOOTHING, "onesidedlabelsmoothing": SMOOTHING,
    "cgan": CGAN, "conditional": CGAN, "conditionalgan": CGAN,
    "projection": PROJECTION, "projectiongan": PROJECTION, "projectiondiscriminator": PROJECTION,
    "ac": ACGAN, "acgan": ACGAN, "auxiliaryclassifier": ACGAN, "auxiliaryclassifiergan": ACGAN,
    "tac": TAC, "tacgan": TAC, "twinclassifier": TAC,
    "adc": ADC, "adcgan": ADC, "discriminativeclassifier": ADC,
    "reacgan": REACGAN, "d2dce": REACGAN, "contragan": CONTRAGAN, "2c": CONTRAGAN,
    "ragan": RAGAN, "relativisticaverage": RAGAN, "ralsgan": RAGAN, "rahinge": RAGAN, "rahingegan": RAGAN,
    "spectralnorm": SPECTRAL, "spectralnormalization": SPECTRAL, "spectralnormalisation": SPECTRAL,
    "sngan": SNGAN, "sagan": SNGAN, "biggan": SNGAN,
    "stylegan": STYLEGAN, "stylegan2": STYLEGAN, "stylegan3": STYLEGAN, "r3gan": R3GAN,
    "dragan": DRAGAN, "wgandiv": DRAGAN,
    "ada": AUGMENTATION, "diffaug": AUGMENTATION, "diffaugment": AUGMENTATION,
}  # fmt: skip


def plain(word: str) -> str:
    """The word as the tables have it: 'WGAN-GP' -> 'wgangp', 'hinge loss' -> 'hinge'."""
    return re.sub(r"[\s_.-]+", "", word[:100].casefold()).removesuffix("loss")
