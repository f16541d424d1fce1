"""Flat shapes and solids."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from picture import Array, Picture, arc, hsv, mirrored, points, polygon, spline

# --- flat shapes ------------------------------------------------------------------------------------------------


def flat(shape: Callable[[Picture], Array], turn: float, p: Picture) -> None:
    p.pose(turn=turn)
    corners, colour = shape(p), p.colour()
    if p.maybe(0.2):
        p.shape(corners * 1.12, p.colour())
    p.shape(corners, colour)
    if p.maybe(0.25):
        p.fill(p.mask(corners * p.uniform(0.5, 0.8)), p.colour())


def ring(p: Picture) -> None:
    p.pose(turn=90)
    hole = p.uniform(0.4, 0.8)
    p.fill(p.mask(arc(0, 0, 1, 1), holes=[arc(0, 0, hole, hole)]), p.colour())


def crescent(p: Picture) -> None:
    p.pose(turn=60)
    p.fill(p.mask(arc(0, 0, 1, 1), holes=[arc(p.uniform(0.3, 0.6), 0, 0.9, 0.9)]), p.bright())


def target(p: Picture) -> None:
    p.pose()
    colours, count = (p.colour(), p.colour()), p.count(3, 6)
    for i in range(count):
        p.oval(0, 0, 1 - i / count, colour=colours[i % 2])


def sun(p: Picture) -> None:
    colour, rays, inner = hsv(p.uniform(0.05, 0.16), p.uniform(0.6, 1), 1), p.count(8, 16), p.uniform(0.55, 0.75)
    p.shape(polygon(rays, inner), colour * p.uniform(0.8, 1))
    p.oval(0, 0, inner - 0.08, colour=colour)


def gear(p: Picture) -> None:
    p.pose(turn=45)
    teeth, depth = p.count(7, 12), p.uniform(0.75, 0.88)
    turns = np.repeat(np.arange(teeth), 4) + np.tile([0, 0.12, 0.5, 0.62], teeth)
    radius = np.tile([depth, 1, 1, depth], teeth)
    angles = 2 * np.pi * turns / teeth
    outline = points(np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1))
    p.fill(p.mask(outline, holes=[arc(0, 0, 0.35, 0.35)]), hsv(p.uniform(), p.uniform(0, 0.4), p.uniform(0.3, 0.9)))


HEART = mirrored(spline([(0, -0.45), (0.3, -0.85), (0.75, -0.85), (1, -0.4), (0.75, 0.15), (0, 0.95)]))
DROP = mirrored(spline([(0, -1), (0.35, -0.3), (0.65, 0.25), (0.5, 0.8), (0, 1)]))
ARROW = points([(-1, -0.25), (0.2, -0.25), (0.2, -0.7), (1, 0), (0.2, 0.7), (0.2, 0.25), (-1, 0.25)])
BOLT = points([(0.2, -1), (-0.6, 0.15), (-0.1, 0.15), (-0.3, 1), (0.6, -0.25), (0.1, -0.25), (0.5, -1)])
CHEVRON = points([(-0.9, -0.3), (0, 0.4), (0.9, -0.3), (0.9, 0.2), (0, 0.9), (-0.9, 0.2)])
BUBBLE = np.concatenate([arc(0, -0.15, 1, 0.75, -230, 100), points([(-0.5, 1)])])
PLUS = points([(-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1), (1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1)]) / 3.2  # fmt: skip  # noqa: E501
CLOUD = np.concatenate([arc(-0.55, 0.15, 0.45, 0.4, 90, 250), arc(-0.1, -0.2, 0.5, 0.5, 190, 330),
                        arc(0.5, 0.1, 0.5, 0.45, 280, 450)])  # fmt: skip
FLAT: dict[str, tuple[Callable[[Picture], Array], float]] = {
    "disc": (lambda p: arc(0, 0, 1, 1), 0),
    "ellipse": (lambda p: arc(0, 0, 1, p.uniform(0.4, 0.7)), 90),
    "half-disc": (lambda p: arc(0, 0, 1, 1, 0, 180), 180),
    "pie": (lambda p: np.concatenate([arc(0, 0, 1, 1, 0, p.uniform(200, 320)), points([(0, 0)])]), 180),
    "triangle": (lambda p: polygon(3), 180),
    "square": (lambda p: polygon(4), 90),
    "diamond": (lambda p: polygon(4) * points([p.uniform(0.5, 0.7), 1]), 5),
    "pentagon": (lambda p: polygon(5), 180),
    "hexagon": (lambda p: polygon(6), 180),
    "star-4": (lambda p: polygon(4, p.uniform(0.3, 0.5)), 20),
    "star-5": (lambda p: polygon(5, p.uniform(0.38, 0.55)), 25),
    "star-8": (lambda p: polygon(8, p.uniform(0.5, 0.8)), 25),
    "plus": (lambda p: PLUS, 50),
    "arrow": (lambda p: ARROW * points([1, p.uniform(0.7, 1.2)]), 180),
    "chevron": (lambda p: CHEVRON, 180),
    "heart": (lambda p: HEART, 20),
    "drop": (lambda p: DROP, 20),
    "bolt": (lambda p: BOLT, 20),
    "cloud": (lambda p: CLOUD, 5),
    "speech-bubble": (lambda p: BUBBLE, 5),
    "blob": (lambda p: spline(polygon(7) * p.rng.uniform(0.45, 1, (7, 1)), closed=True), 180),
}


# --- solids -----------------------------------------------------------------------------------------------------


def ground_shadow(p: Picture, width: float = 0.9) -> None:
    cast = p.mask(arc(-0.3 * float(np.sign(p.light[0])), 0.85, width, 0.2))
    p.fill(p.blurred(cast, 2) * p.uniform(0.2, 0.5), np.zeros(3, np.float32))


def sphere(p: Picture) -> None:
    ground_shadow(p)
    p.ball(0, 0, 0.9, 0.9, p.colour())


def egg(p: Picture) -> None:
    p.pose(turn=90)
    p.ball(0, 0, 0.65, 0.95, p.colour())


def torus(p: Picture) -> None:
    p.pose(turn=90)
    hole, flat = p.uniform(0.3, 0.5), p.uniform(0.55, 1)
    radius = np.hypot(p.u, p.v / flat)
    middle, half = (1 + hole) / 2, (1 - hole) / 2
    across = np.clip((radius - middle) / half, -1, 1)  # the normal's part that points away from the middle
    towards = (p.u * p.light[0] + p.v * p.light[1]) / (radius + 1e-6)
    shade = 0.55 + 0.45 * across * towards + 0.25 * np.sqrt(1 - across**2)
    field = np.clip(p.colour()[None, None] * shade[..., None], 0, 1)
    p.fill(p.mask(arc(0, 0, 1, flat), holes=[arc(0, 0, hole, hole * flat)]), field)


def rounded(top: float, p: Picture) -> None:
    """A cylinder, or a cone where the top is narrow."""
    p.pose(turn=25)
    ground_shadow(p, 0.7)
    colour, flat, side = p.colour(), p.uniform(0.15, 0.3), 0.65
    half = (top + (side - top) * (p.v + 0.8) / 1.5).clip(0.05)
    across = (p.u / half).clip(-1, 1)
    facing = across * p.light[0] + np.sqrt(1 - across**2) * 0.7
    body = np.concatenate([points([(-top, -0.8), (top, -0.8)]), arc(0, 0.7, side, side * flat, 0, 180)])
    p.fill(p.mask(body), np.clip(colour * (0.35 + 0.7 * facing.clip(0))[..., None], 0, 1))
    if top > 0.1:
        p.fill(p.mask(arc(0, -0.8, top, top * flat)), np.clip(colour * p.uniform(0.9, 1.2), 0, 1))


BOX = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing="ij")).reshape(3, 8).T
BOX_FACES = ((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5))
PYRAMID = np.array([(-1, 0.8, -1), (1, 0.8, -1), (1, 0.8, 1), (-1, 0.8, 1), (0, -1, 0)])
PYRAMID_FACES = ((0, 1, 2, 3), (0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4))
GEM = np.array([(0, -1.2, 0), (1, 0, 0), (0, 0, 1), (-1, 0, 0), (0, 0, -1), (0, 1.2, 0)])
GEM_FACES = tuple((pole, 1 + i, 1 + (i + 1) % 4) for pole in (0, 5) for i in range(4))


def faceted(
    corners: Array, faces: tuple[tuple[int, ...], ...], stretch: tuple[float, float, float], p: Picture
) -> None:
    """A convex solid, turned in space, each face as light as it faces the light."""
    p.pose(turn=8)
    if p.maybe():
        ground_shadow(p, 0.75)
    colour, yaw, pitch = p.colour(), p.uniform(0, 2 * np.pi), p.uniform(0.2, 0.9)
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    at = points(corners * np.array(stretch) @ about_y.T @ about_x.T)  # z points towards the viewer
    at *= 0.95 / float(np.hypot(at[:, 0], at[:, 1]).max())
    light = np.append(p.light, 0.7) / np.linalg.norm(np.append(p.light, 0.7))
    for face in faces:
        a, b, c = at[face[0]], at[face[1]], at[face[2]]
        normal = np.cross(b - a, c - a)
        normal /= np.linalg.norm(normal) + 1e-9
        if normal @ (at[list(face)].mean(0) - at.mean(0)) < 0:
            normal = -normal
        if normal[2] > 0:
            tone = 0.4 + 0.7 * max(0.0, float(normal @ light))
            p.shape(at[list(face), :2], np.clip(colour * tone, 0, 1).astype(np.float32))


SOLIDS: dict[str, Callable[[Picture], None]] = {
    "sphere": sphere, "egg": egg, "torus": torus, "cylinder": partial(rounded, 0.65), "cone": partial(rounded, 0.03),
    "bucket": partial(rounded, 0.4), "cube": partial(faceted, BOX, BOX_FACES, (1, 1, 1)),
    "slab": partial(faceted, BOX, BOX_FACES, (1, 0.3, 0.8)), "pillar": partial(faceted, BOX, BOX_FACES, (0.4, 1, 0.4)),
    "pyramid": partial(faceted, PYRAMID, PYRAMID_FACES, (1, 1, 1)), "gem": partial(faceted, GEM, GEM_FACES, (1, 1, 1)),
}  # fmt: skip
CLASSES: dict[str, Callable[[Picture], None]] = (
    {name: partial(flat, shape, turn) for name, (shape, turn) in FLAT.items()}
    | SOLIDS
    | {"ring": ring, "crescent": crescent, "target": target, "sun": sun, "gear": gear}
)
