"""The recipes: named settings."""

from __future__ import annotations

from typing import Any

from ptarmigan.config.sections import DEFAULTS

RECIPES: dict[str, dict[str, Any]] = {
    # Each value was compared with others on the same images for the same training time: studies/search.md.
    # training/auto.py sets the other fields from the data, the device and the budget, and sets g_blocks to 0 if the
    # budget is short.
    "auto": dict(loss="non_saturating", least_side=3, g_blocks=1, g_modulation=True, penalty_every=4),
    # After Radford et al. 2016 (1511.06434), section 4: z uniform, 100; Adam 2e-4, beta1 .5; batch 128; N(0, .02);
    # batch norm in both.  Differs: width 64, where the paper's figure has 128 channels next to the image; the budget
    # and the size of the images.  Not verified against the paper's text: Adam's beta2 .999, its usual value.
    "dcgan": dict(
        conditioning="none", width=64, latent="uniform", d_norm="batch", weight_init="dcgan",
        loss="non_saturating", r1=0.0, r2=0.0, batch=128,
        g_lr=2e-4, d_lr=2e-4, g_betas=(0.5, 0.999), d_betas=(0.5, 0.999), anneal=0.0, ema_half_life=0.0,
    ),
    # After Odena et al. 2017 (1610.09585), appendix: Adam 2e-4 of {1, 2, 3}e-4, (.5, .999); batch 100; N(0, .02); leak
    # .2; dropout .5 in D; z 110; activation noise 0 of {0, .1, .2}.  Differs: DCGAN's networks in place of the
    # appendix's; the non-saturating source loss, where the paper's G maximises L_C - L_S.  Not verified against the
    # paper's text: width 64, z normal, the class as a learned embedding beside z, class weight 1.
    "acgan": dict(
        conditioning="auxiliary_classifier", width=64, latent_dim=110, d_norm="batch", dropout=0.5,
        weight_init="dcgan",
        loss="non_saturating", r1=0.0, r2=0.0, batch=100,
        g_lr=2e-4, d_lr=2e-4, g_betas=(0.5, 0.999), d_betas=(0.5, 0.999), anneal=0.0, ema_half_life=0.0,
    ),
}  # fmt: skip


# What recipe `auto` chooses from the data, the device and the budget (training/auto.py)
CHOSEN = ("width", "g_blocks", "batch", "d_lr", "r1", "r2", "augment", "augment_p", "resampling", "d_frozen")


def default_in_words(key: str) -> str | None:
    """The value of a field under recipe `auto` where it is not given; None where its help says it."""
    if key in CHOSEN:
        return "chosen by auto"
    value = RECIPES["auto"].get(key, DEFAULTS[key])
    if isinstance(value, bool):
        return "on" if value else "off"
    parts = value if isinstance(value, tuple) else () if value is None else (value,)
    return " ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts) or None
