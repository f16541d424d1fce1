"""Textures over the whole picture, and landscapes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from picture import WHITE, Array, Picture, arc, family, hsv, points, polygon, spline

# --- textures, over the whole picture ---------------------------------------------------------------------------


def cover(p: Picture, share: Array) -> None:
    """Two colours, mixed by a field; a third of the pictures are shaded by noise."""
    field = p.between(p.colour(), p.colour(), share)
    if p.maybe(0.35):
        field = np.clip(field * (1 + 0.12 * p.noise(1)[..., None]), 0, 1)
    p.fill(np.ones_like(p.alpha), field)


def turned(p: Picture) -> tuple[Array, Array]:
    """Coordinates [S, S] across the picture, turned, of a scale between 1 and 3."""
    angle, scale = p.uniform(0, np.pi), p.uniform(1, 3)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return cos * p.x + sin * p.y + p.uniform(0, 2), cos * p.y - sin * p.x + p.uniform(0, 2)


def sharp(p: Picture, wave: Array) -> Array:
    """0 or 1 by the sign of a wave, with soft edges."""
    down, right = np.gradient(wave)
    return np.clip(wave / (np.hypot(down, right) + 1e-3) + 0.5, 0, 1)


def checker(p: Picture) -> None:
    u, v = turned(p)
    cover(p, sharp(p, np.sin(4 * u) * np.sin(4 * v)))


def stripes(p: Picture) -> None:
    u, _ = turned(p)
    cover(p, sharp(p, np.sin(5 * u) + p.uniform(-0.6, 0.6)))


def waves(p: Picture) -> None:
    u, v = turned(p)
    cover(p, sharp(p, np.sin(5 * u + p.uniform(0.8, 2) * np.sin(3 * v))))


def zigzag(p: Picture) -> None:
    u, v = turned(p)
    cover(p, sharp(p, np.sin(5 * u + p.uniform(1, 3) * np.abs((1.5 * v) % 2 - 1))))


def plaid(p: Picture) -> None:
    u, v = turned(p)
    p.fill(np.ones_like(p.alpha), np.broadcast_to(p.colour(), p.ink.shape))
    for _ in range(p.count(3, 6)):
        band = sharp(p, np.sin((u if p.maybe() else v) * p.count(2, 4) * 1.5 + p.uniform(0, 6)) - p.uniform(0, 0.9))
        p.fill(band * p.uniform(0.3, 0.7), p.colour())


def dots(p: Picture) -> None:
    u, v = turned(p)
    cover(p, sharp(p, np.cos(4 * u) + np.cos(4 * v) - p.uniform(0.2, 1.2)))


def mesh(p: Picture) -> None:
    u, v = turned(p)
    cover(p, sharp(p, np.maximum(np.cos(5 * u), np.cos(5 * v)) - p.uniform(0.7, 0.92)))


def scales(p: Picture) -> None:
    u, v = turned(p)
    row = np.floor(2 * v)
    across, down = (2 * u + row % 2 * 0.5) % 1 - 0.5, 2 * v - row
    cover(p, 1.3 * np.abs(np.hypot(across, down) - 0.2))


def weave(p: Picture) -> None:
    u, v = turned(p)
    over = (np.floor(2.5 * u) + np.floor(2.5 * v)) % 2
    cover(p, np.where(over > 0, np.abs(np.sin(2.5 * np.pi * u)), np.abs(np.sin(2.5 * np.pi * v))) * (0.6 + 0.4 * over))


def bricks(p: Picture) -> None:
    p.pose(turn=6)
    row = np.floor(3 * p.v)
    gaps = np.minimum(np.abs((1.5 * p.u + row % 2 * 0.5) % 1 - 0.5) * 2, np.abs((3 * p.v) % 1 - 0.5))
    tone = np.sin(12.9 * row + 78.2 * np.floor(1.5 * p.u + row % 2 * 0.5)) * 0.15
    brick = np.clip(hsv(p.uniform(0, 0.1), p.uniform(0.2, 0.8), p.uniform(0.4, 0.9)) * (1 + tone[..., None]), 0, 1)
    mortar = hsv(0.1, 0.1, p.uniform(0.2, 0.95))
    p.fill(np.ones_like(p.alpha), p.between(brick, mortar, (gaps - 0.4) * 14))


def wood(p: Picture) -> None:
    u, v = turned(p)
    rings = np.sin(9 * (u + 0.25 * p.noise(2)) + 0.3 * v) * 0.5 + 0.5
    light = hsv(p.uniform(0.05, 0.1), p.uniform(0.4, 0.8), p.uniform(0.5, 0.95))
    p.fill(np.ones_like(p.alpha), p.between(light, light * p.uniform(0.4, 0.8), rings + 0.1 * p.noise(0.3)))


def marble(p: Picture) -> None:
    u, _ = turned(p)
    cover(p, np.abs(np.sin(2 * u + 1.5 * p.noise(1.6))) ** 0.5)


def noise(power: float, p: Picture) -> None:
    field = np.stack([p.noise(power) for _ in range(3)], -1) * p.uniform(0.03, 0.12) if p.maybe() else 0
    mixed = p.between(p.colour(), p.colour(), 0.5 + p.uniform(0.15, 0.4) * p.noise(power))
    p.fill(np.ones_like(p.alpha), np.clip(mixed + field, 0, 1))


def gradient(kind: str, p: Picture) -> None:
    p.pose(scale=(0.5, 0.9))
    angle = np.arctan2(p.v, p.u) / (2 * np.pi) + 0.5
    share = {"linear": 0.5 + p.u * 0.6, "radial": np.hypot(p.u, p.v) * 0.8, "conic": 1 - np.abs(2 * angle - 1)}[kind]
    cover(p, share)


def rainbow(p: Picture) -> None:
    p.pose(turn=15)
    radius = np.hypot(p.u, p.v - 0.8)
    for i in range(7):
        band = p.mask(arc(0, 0.8, 1.3 - i * 0.1, 1.3 - i * 0.1, 180, 360))
        p.fill(band, hsv(i * 0.125, p.uniform(0.7, 1), 1))
    p.fill((radius < 0.6) * p.alpha, p.colour((0, 0.4), (0.7, 1)))


def cells(p: Picture) -> None:
    """The nearest of scattered points decides the colour (Voronoi)."""
    seeds = p.rng.uniform(-1.1, 1.1, (p.count(8, 30), 2))
    squared = (p.x[..., None] - seeds[:, 0]) ** 2 + (p.y[..., None] - seeds[:, 1]) ** 2
    order = np.sort(squared, -1)
    base = p.colour()
    tones = np.clip(base * p.rng.uniform(0.6, 1.4, (len(seeds), 1)), 0, 1).astype(np.float32)
    edge = np.clip((np.sqrt(order[..., 1]) - np.sqrt(order[..., 0])) * p.size / 4, 0, 1)
    p.fill(np.ones_like(p.alpha), tones[squared.argmin(-1)] * (0.3 + 0.7 * edge[..., None]).astype(np.float32))


def dead_leaves(corners: int, p: Picture) -> None:
    """Shapes of all sizes that hide each other (Matheron 1968; Lee, Mumford and Huang 2001)."""
    hue, free = p.uniform(), p.uniform(0.05, 0.6)
    p.fill(np.ones_like(p.alpha), np.broadcast_to(p.colour(), p.ink.shape))
    for _ in range(p.count(25, 45)):
        radius = 0.12 / np.sqrt(p.uniform(0.02, 1))
        at = points(p.rng.uniform(-1.3, 1.3, 2))
        leaf = arc(0, 0, 1, p.uniform(0.7, 1), count=24) if corners == 0 else polygon(corners, turn=p.uniform(0, 360))
        colour = hsv(hue + p.uniform(-free, free), p.uniform(0.1, 0.9), p.uniform(0.2, 1))
        p.fill(p.mask(leaf * points(radius) + at), colour)


def spiral(p: Picture) -> None:
    p.pose(turn=180)
    t = np.linspace(0.05, 1, 70)
    turns = p.uniform(2, 4) * 2 * np.pi * t
    p.line(np.stack([t * np.cos(turns), t * np.sin(turns)], 1) * 0.95, p.uniform(0.07, 0.15), p.colour())


def scribble(p: Picture) -> None:
    for _ in range(p.count(1, 4)):
        p.line(spline(p.rng.uniform(-1, 1, (p.count(4, 9), 2))), p.uniform(0.04, 0.2), p.colour())


def hatch(p: Picture) -> None:
    angle, colour = p.uniform(0, np.pi), p.colour()
    along = points([np.cos(angle), np.sin(angle)])
    lines = [at + np.outer([-0.3, 0.3], along) for at in points(p.rng.uniform(-1.2, 1.2, (p.count(40, 90), 2)))]
    p.fill(np.ones_like(p.alpha), np.broadcast_to(p.colour(), p.ink.shape))
    p.fill(p.strokes(*lines, width=p.uniform(0.03, 0.09), round_ends=False), colour)


# --- landscapes -------------------------------------------------------------------------------------------------


def sky(p: Picture) -> None:
    hue = p.uniform(0.5, 0.65) if p.maybe(0.7) else p.uniform(0, 0.12)
    low, high = hsv(hue, p.uniform(0, 0.4), 1), hsv(hue, p.uniform(0.4, 1), p.uniform(0.5, 1))
    p.fill(np.ones_like(p.alpha), p.between(high, low, p.y * 0.5 + 0.5))


def clouds(p: Picture) -> None:
    sky(p)
    p.fill(np.clip(p.noise(1.8) * 0.8 + p.uniform(-0.2, 0.3), 0, 1), WHITE)


def hills(p: Picture) -> None:
    p.pose(turn=2, scale=(0.98, 1))
    sky(p)
    if p.maybe(0.6):
        p.oval(p.uniform(-0.8, 0.8), p.uniform(-0.8, -0.1), p.uniform(0.12, 0.25), colour=hsv(0.12, 0.5, 1))
    hue = p.uniform(0.2, 0.4) if p.maybe(0.7) else p.uniform()
    for i in range(p.count(2, 4)):
        ticks = np.linspace(-1.3, 1.3, 7)
        tops = p.rng.uniform(-0.25, 0.15, 7) + i * 0.3
        ridge = np.stack([ticks, tops], 1)
        ridge = spline(ridge) if p.maybe(0.6) else points(ridge)
        p.shape(np.concatenate([ridge, points([(1.3, 3), (-1.3, 3)])]), hsv(hue, 0.3 + 0.15 * i, p.uniform(0.35, 0.8)))


def sea(p: Picture) -> None:
    sky(p)
    horizon = p.uniform(-0.4, 0.3)
    depth = np.maximum(p.y - horizon, 1e-3)
    ripple = np.sin(6 / (depth + 0.15) * 3 + 2 * p.noise(1.2)) * 0.15
    water = np.clip(hsv(p.uniform(0.48, 0.62), 0.7, p.uniform(0.4, 0.9)) * (1 + ripple[..., None]), 0, 1)
    p.fill(np.clip((p.y - horizon) * p.size / 2 + 0.5, 0, 1), water)


def night(p: Picture) -> None:
    p.fill(np.ones_like(p.alpha), p.between(hsv(p.uniform(0.55, 0.8), 0.8, 0.08), hsv(0.65, 0.7, 0.35), p.y + 0.3))
    for x, y in p.rng.uniform(-1.1, 1.1, (p.count(15, 40), 2)):
        p.fill(p.mask(arc(x, y, r := p.uniform(0.01, 0.05), r, count=8)), WHITE)
    if p.maybe(0.6):
        moon = arc(0.4, -0.4, 0.3, 0.3)
        p.fill(p.mask(moon, holes=[arc(0.52, -0.45, 0.27, 0.27)] if p.maybe() else []), hsv(0.14, 0.3, 1))


CLASSES: dict[str, Callable[[Picture], None]] = {
    "checker": checker, "stripes": stripes, "waves": waves, "zigzag": zigzag, "plaid": plaid, "dots": dots,
    "mesh": mesh, "scales": scales, "weave": weave, "bricks": bricks, "wood": wood, "marble": marble, "cells": cells,
    "noise-rough": partial(noise, 0.6), "noise-pink": partial(noise, 1.0), "noise-smooth": partial(noise, 2.0),
    "dead-leaves-round": partial(dead_leaves, 0), "dead-leaves-square": partial(dead_leaves, 4), "hatch": hatch,
    "rainbow": rainbow, "spiral": spiral, "scribble": scribble,
    "clouds": clouds, "hills": hills, "sea": sea, "night": night,
} | family("gradient", gradient, "linear radial conic")  # fmt: skip
