"""Differentiable augmentation of every image that D sees, real and fake, in the updates of D and of G.

G's images are augmented only on their way to D, so G learns whether augmented fakes match augmented real images.  That
implies that the images themselves match wherever the augmentation is invertible as a map of distributions (Karras et
al. 2020, section 2.2).  Under ADA each transform is skipped with probability 1 - p, and it is invertible:
- a hue rotation by a uniform angle, for p < 1: its Fourier coefficients are 1 - p, and 1 for colours without hue;
- brightness, contrast and saturation, normal or log-normal, for any p: all Fourier coefficients are positive;
- cutout, for p < 1: it only removes content, so its matrix is triangular, with at least 1 - p on the diagonal;
- translation by -k..k pixels, up to p = .8, which is why p is capped there.  Content that stays inside the image moves
  by a Toeplitz matrix; its eigenvalues are above 1 - p + p w, where w is the minimum of (1 + 2 cos t + ... + 2 cos kt)
  / (2k + 1): -1/4 for k = 2 and more for larger k; k is at least 2 from 16 pixels on.  Cropped content is triangular.
gentle applies each transform with p = 1/2: a coefficient w becomes (1 + w) / 2, whose absolute value is at least 1/3.
DiffAugment with `augment_p` 1 changes every image, so none of this holds for it.

Cut-out and moved-in pixels are 0, mid grey, in all channels.  Few pictures have exactly that background, so D can see a
move; black would hide it on the black background of many data sets.  Colours may leave [-1, 1], since clamping is not
invertible.  Nothing is resampled, and every backward pass is deterministic: it sums in a fixed order.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

POLICIES = {
    "gentle": ("brightness", "saturation", "contrast", "translation"),
    "diffaugment": ("brightness", "saturation", "contrast", "translation", "cutout"),
    "ada": ("brightness", "contrast", "saturation", "hue", "translation", "cutout"),
}
COLOURED = ("saturation", "hue")  # transforms that do not change grey images
# Uniforms per sample: one per transform decides whether it is applied, one per value of Change decides how.
GATES, DRAWS = 6, 14
GENTLE, HALF = 0.3, 0.5  # gentle: its ranges as a share of DiffAugment's, and its p
TARGET, CAP = 0.6, 0.8  # target of D's mean sign on training images; maximum of p
INTERVAL, RAMP = 4, 500_000  # batches between two changes of p; images in which p can go from 0 to 1


class Change(NamedTuple):
    """The parameters of the transforms, [N] each."""

    brightness: Tensor  # added
    contrast: Tensor  # factor
    saturation: Tensor  # factor
    hue: Tensor  # radians
    down: Tensor  # whole pixels
    right: Tensor
    top: Tensor  # first row and column of the cut-out; infinity for none
    left: Tensor


NEUTRAL = (0.0, 1.0, 1.0, 0.0, 0.0, 0.0, math.inf, math.inf)  # leaves an image unchanged, bit for bit
GATE_OF = (0, 1, 2, 3, 4, 4, 5, 5)


def augment(images: Tensor, policy: str, u: Tensor, p: Tensor | float) -> Tensor:
    """Apply each transform of the policy to images [N, C, H, W] in [-1, 1] with probability p, by the uniforms u.

    `u` is [N, DRAWS] float64 on the CPU; p is [] on the images' device, or a number.  Each image depends on its own
    draws alone.  Differentiable any number of times.
    """
    height, width = images.shape[2:]
    values = torch.stack(change(policy, u[:, GATES:].T, height, width))
    gates = u[:, :GATES].T[list(GATE_OF)]
    neutral = u.new_tensor(NEUTRAL).view(-1, 1).expand_as(values)
    values, gates, neutral = torch.stack([values, gates, neutral]).to(images.dtype).to(images.device)
    made = Change(*torch.where(gates <= p, values, neutral))  # <=, since a draw may round to 1, and none is 0
    colour, alpha = images[:, :3], images[:, 3:]
    colour = contrast(brightness(colour, made.brightness), made.contrast)
    if colour.shape[1] == 3:
        colour = tint(colour, made.saturation, made.hue)
    images = torch.cat([colour, alpha], 1) if alpha.shape[1] else colour
    images = translation(images, made.down, made.right)
    return cutout(images, made.top, made.left) if "cutout" in POLICIES[policy] else images


def change(policy: str, u: Tensor, height: int, width: int) -> Change:
    """Uniforms [8, N] -> the parameters of each transform of the policy, where it is applied.

    diffaugment: Zhao et al. 2020, policy "color,translation,cutout" as in its code.  gentle: the same with .3 times
    its ranges, at least 1 pixel of translation, and no cutout.  ada: integer translation, colour and cutout of Karras
    et al. 2020, appendix B, without flips, quarter turns and luma flips, which change what many images mean, and
    without transforms that resample.  In all policies contrast scales about the image's mean; ada draws translation
    and cutout as DiffAugment does.
    """
    if policy == "ada":
        normal = torch.special.ndtri(u[:3])
        colour = [0.2 * normal[0], (0.5 * normal[1]).exp2(), normal[2].exp2(), math.pi * (2 * u[3] - 1)]
    else:
        colour = [u[0] - 0.5, u[1] + 0.5, 2 * u[2], torch.zeros_like(u[3])]
    if policy == "gentle":
        colour = [still + GENTLE * (value - still) for value, still in zip(colour, NEUTRAL, strict=False)]
    moves, cuts = [], []
    for move, cut, side in zip(u[4:6], u[6:8], (height, width), strict=True):
        far = max(1, round(GENTLE * side / 8)) if policy == "gentle" else side // 8
        moves.append((move * (2 * far + 1)).floor() - far)
        box = side // 2
        cuts.append((cut * (side + 1 - box % 2)).floor() - box // 2)
    return Change(*colour, *moves, *cuts)


def per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def brightness(images: Tensor, added: Tensor) -> Tensor:
    return images + per_image(added)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Each image's deviations from its mean, times a factor."""
    return images + per_image(factor - 1) * (images - images.mean((1, 2, 3), keepdim=True))


def tint(images: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Rotate colours [N, 3, H, W] by `hue` about the grey axis, and scale their distances from it by `saturation`.

    Rodrigues' formula for k = x - grey, which is perpendicular to the axis v: cos k + sin (v x k).
    """
    near, across = (saturation * hue.cos() - 1).view(-1, 1, 1), (saturation * hue.sin() / math.sqrt(3)).view(-1, 1, 1)
    red, green, blue = images.unbind(1)
    grey = (red + green + blue) / 3
    turned = [
        colour + near * (colour - grey) + across * (before - after)
        for colour, before, after in ((red, blue, green), (green, red, blue), (blue, green, red))
    ]
    return torch.stack(turned, -1).permute(0, 3, 1, 2)


def translation(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Move images by whole pixels; pixels that enter are 0."""
    out: Tensor = _Translation.apply(images, down.long(), right.long())  # type: ignore[no-untyped-call]
    return out


class _Translation(torch.autograd.Function):
    """The adjoint of a shift is the opposite shift, so no pass needs a scatter-add, whose order varies on a GPU."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, down: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(down, right)
        count, channels, height, width = images.shape
        rows, in_rows = _sources(down, height)
        columns, in_columns = _sources(right, width)
        first = torch.arange(count, device=images.device).view(-1, 1, 1) * (height * width)
        pixels = (first + rows.unsqueeze(2) * width + columns.unsqueeze(1)).flatten()
        moved = images.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, pixels)
        moved = moved.view(count, height, width, channels).permute(0, 3, 1, 2)
        return moved.masked_fill_(~(in_rows.unsqueeze(2) & in_columns.unsqueeze(1)).unsqueeze(1), 0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        down, right = ctx.saved_tensors
        return translation(gradient, -down, -right), None, None


def _sources(move: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """[N, side] the row or column that each one comes from, and whether it is inside the image."""
    places = torch.arange(side, device=move.device) - move.view(-1, 1)
    return places.clamp(0, side - 1), (places >= 0) & (places < side)


def cutout(images: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Set a box of half the height and half the width to 0; a part of it may lie outside the image."""
    height, width = images.shape[2:]
    cut = _cut(top, height).unsqueeze(2) & _cut(left, width).unsqueeze(1)
    return images * (~cut).unsqueeze(1).to(images.dtype)


def _cut(first: Tensor, side: int) -> Tensor:
    """[N, side] whether a row or column is one of the side // 2 that start at `first`."""
    places, first = torch.arange(side, device=first.device), first.view(-1, 1)
    return (places >= first) & (places < first + side // 2)


def adapt(p: Tensor, r: Tensor, batch: int) -> Tensor:
    """ADA's p after INTERVAL batches: p + sign(r - .6) 4B / 500k, in [0, .8] (Karras et al. 2020, section 3).

    r [] is the mean sign of D on the training images of those batches: 1 where D has memorised them, 0 where it cannot
    tell them from fakes.
    """
    return (p + torch.sign(r - TARGET) * (INTERVAL * batch / RAMP)).clamp(0, CAP)


def describe_policy(policy: str, channels: int) -> str:
    """'ada (brightness, ...)': a policy and the transforms that change images with this many channels."""
    made = [name for name in POLICIES[policy] if channels > 1 or name not in COLOURED]
    return f"{policy} ({', '.join(made)})"
