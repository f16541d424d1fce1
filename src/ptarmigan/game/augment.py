"""Differentiable augmentation of all that D looks at, real and fake alike, in its own update and in G's.

G's images are changed on their way to D alone, so G learns whether changed fakes and changed real images agree.  That
says whether the images themselves do where the change, as a map of distributions, can be undone (Karras et al. 2020,
section 2.2).  Under ADA each transform is left out with probability 1 - p, and what it does can be undone:
- a turn of the hue by any angle alike, where p < 1: its Fourier coefficients are 1 - p, and 1 for what has no hue;
- brightness, contrast and saturation, normal or log-normal, always: all Fourier coefficients are positive;
- cutout, where p < 1: a cut only takes away, so its matrix is triangular, with 1 - p or more on the diagonal;
- translation by -k..k pixels, up to p = .8, which is why p stops there.  Content that stays whole moves by a Toeplitz
  matrix; its eigenvalues are above 1 - p + p w, w the least value of (1 + 2 cos t + ... + 2 cos kt) / (2k + 1), which
  is -1/4 for k = 2 and more for larger k; k is 2 or more at 16 pixels and more.  What is cropped is triangular again.
gentle makes each transform with p = 1/2: a coefficient w becomes (1 + w) / 2, whose absolute value is a third or more.
DiffAugment changes every image, where `augment_p` is 1, so none of this holds for it.

What is cut out or moved in is 0, mid grey, in all channels.  Hardly any picture's ground has just that value, so a move
can be seen for what it is; black would hide it on the black ground of many data sets.  Colours may leave [-1, 1], since
clamping could not be undone.  Nothing is resampled, and no backward pass adds up in an order of the device's choice.
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
COLOURED = ("saturation", "hue")  # grey images have neither
# Uniforms a sample: one for each transform, whether it is made, and then how, one for each value of Change.
GATES, DRAWS = 6, 14
GENTLE, HALF = 0.3, 0.5  # gentle's ranges as a share of DiffAugment's, and its p
TARGET, CAP = 0.6, 0.8  # of D's mean sign on training images, and of p
INTERVAL, RAMP = 4, 500_000  # batches between two moves of p, and images in which p could go from 0 to 1


class Change(NamedTuple):
    """How each image is changed, [N] each."""

    brightness: Tensor  # added
    contrast: Tensor  # factor
    saturation: Tensor  # factor
    hue: Tensor  # radians
    down: Tensor  # whole pixels
    right: Tensor
    top: Tensor  # first row cut out, and first column; beyond the image: none is
    left: Tensor


NEUTRAL = (0.0, 1.0, 1.0, 0.0, 0.0, 0.0, math.inf, math.inf)  # leaves an image as it is, to the bit
GATE_OF = (0, 1, 2, 3, 4, 4, 5, 5)


def augment(images: Tensor, policy: str, u: Tensor, p: Tensor | float) -> Tensor:
    """Images [N, C, H, W] in [-1, 1], each transform of the policy made with probability p by the uniforms u.

    `u` [N, DRAWS] float64 on the CPU; p [] on the images' device, or a number.  Each image is changed by its own draws
    alone.  Differentiable any number of times.
    """
    height, width = images.shape[2:]
    values = torch.stack(change(policy, u[:, GATES:].T, height, width))
    gates = u[:, :GATES].T[list(GATE_OF)]
    neutral = torch.tensor(NEUTRAL, dtype=u.dtype).view(-1, 1).expand_as(values)
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
    """Uniforms [8, N] -> what the policy does to each image where its gates let it.

    diffaugment: Zhao et al. 2020, policy "color,translation,cutout" as its code has it.  gentle: the same within .3 of
    its ranges, a pixel and more of translation, and no cutout.  ada: integer translation, colour and cutout of Karras
    et al. 2020, appendix B, without flips, quarter turns and luma flips, which change what many images mean, and
    without what resamples.  For all, contrast is about the image's mean; ada draws translation and cutout as
    DiffAugment does.
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
    """Deviations from each image's mean times its factor."""
    return images + per_image(factor - 1) * (images - images.mean((1, 2, 3), keepdim=True))


def tint(images: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Colours [N, 3, H, W] turned by `hue` about the axis of greys, and their distances from it times `saturation`.

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
    """Images moved by whole pixels, 0 where nothing came from."""
    out: Tensor = _Translation.apply(images, down.long(), right.long())  # type: ignore[no-untyped-call]
    return out


class _Translation(torch.autograd.Function):
    """The adjoint of a move is the move back: no scattered sums, whose order a GPU does not keep."""

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
    """[N, side] the place that each row or column comes from, and whether it is in the image."""
    places = torch.arange(side, device=move.device) - move.view(-1, 1)
    return places.clamp(0, side - 1), (places >= 0) & (places < side)


def cutout(images: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """0 in a box of half the height and half the width, as much of it as lies in the image."""
    height, width = images.shape[2:]
    cut = _cut(top, height).unsqueeze(2) & _cut(left, width).unsqueeze(1)
    return images * (~cut).unsqueeze(1).to(images.dtype)


def _cut(first: Tensor, side: int) -> Tensor:
    """[N, side] whether a row or column is one of the side // 2 from `first` on."""
    places, first = torch.arange(side, device=first.device), first.view(-1, 1)
    return (places >= first) & (places < first + side // 2)


def adapt(p: Tensor, r: Tensor, batch: int) -> Tensor:
    """ADA's p after INTERVAL batches: p + sign(r - .6) 4B / 500k, in [0, .8] (Karras et al. 2020, section 3).

    r [] is the mean over them of the sign of D on training images: 1 where D knows them all by heart, 0 where it
    cannot tell.
    """
    return (p + torch.sign(r - TARGET) * (INTERVAL * batch / RAMP)).clamp(0, CAP)


def words(policy: str, channels: int) -> str:
    """'ada (brightness, ...)': a policy and what it does to images of so many channels."""
    made = [name for name in POLICIES[policy] if channels > 1 or name not in COLOURED]
    return f"{policy} ({', '.join(made)})"
