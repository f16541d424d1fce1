"""LeCam regularisation of D, for few images: E (D(x) - a_F)^2 + E (D(G(z)) - a_R)^2 (Tseng et al. 2021, 2104.03310).

a_R and a_F are moving averages of D's mean logit on real and on generated images, as they stood before the update: D
is kept from holding the two further apart than they were.  It reads logits as they are, so the objective has to give
them a meaning: hinge or non_saturating, not relativistic or wasserstein.

    ptarmigan train photos/ --loss examples/lecam.py
"""

from torch import Tensor

from ptarmigan.losses.custom import Context

OBJECTIVE = "hinge"
WEIGHT = 0.01  # to be searched: it grows with the square of the logits
AVERAGES = {"real": 0.99, "fake": 0.99}  # name -> decay; 0 at first


def observe(ctx: Context) -> dict[str, Tensor]:
    return {"real": ctx.r.logits.mean(), "fake": ctx.f.logits.mean()}


def terms(ctx: Context) -> dict[str, Tensor]:
    if ctx.player == "g":
        return {}
    distances = (ctx.r.logits - ctx.averages["fake"]).square() + (ctx.f.logits - ctx.averages["real"]).square()
    return {"lecam": WEIGHT * distances}
