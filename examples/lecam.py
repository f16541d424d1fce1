"""LeCam regularisation of D, for few images: E (D(x) - a_F)^2 + E (D(G(z)) - a_R)^2 (Tseng et al. 2021, 2104.03310).

a_R and a_F are moving averages of D's mean logit on real and on generated images before the update.  The term keeps D
from moving the two means further apart.  It needs an objective in which a single logit has a meaning: hinge or
non_saturating, not relativistic or wasserstein.

    ptarmigan train photos/ --loss examples/lecam.py
"""

from torch import Tensor

from ptarmigan.losses.custom import Context

OBJECTIVE = "hinge"
WEIGHT = 0.01  # search for it: the term grows with the square of the logits
AVERAGES = {"real": 0.99, "fake": 0.99}  # name -> decay; they start at 0


def observe(ctx: Context) -> dict[str, Tensor]:
    return {"real": ctx.r.logits.mean(), "fake": ctx.f.logits.mean()}


def terms(ctx: Context) -> dict[str, Tensor]:
    if ctx.player == "g":
        return {}
    distances = (ctx.r.logits - ctx.averages["fake"]).square() + (ctx.f.logits - ctx.averages["real"]).square()
    return {"lecam": WEIGHT * distances}
