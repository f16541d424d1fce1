"""The classes of the drawn set: a name, and a function that draws one picture of it with everything else free."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from picture import Array, Picture, arc, hsv, mirrored, points, polygon, rectangle, spline

WHITE, DARK = points((1, 1, 1)), points((0.12, 0.1, 0.1))

# Strokes of the characters, x from -6 to 6 and y from -10 to 10, downward; ~ before a smooth curve.
GLYPHS = {
    "a": "-6,10 0,-10 6,10|-4,4 4,4",
    "b": "-5,-10 -5,10|~-5,-10 1,-10 5,-8 5,-3 1,-1 -5,-1|~-5,-1 2,-1 6,1 6,8 2,10 -5,10",
    "c": "~6,-6 3,-10 -3,-10 -6,-5 -6,5 -3,10 3,10 6,6",
    "d": "-5,-10 -5,10|~-5,-10 1,-10 6,-5 6,5 1,10 -5,10",
    "e": "5,-10 -5,-10 -5,10 5,10|-5,0 3,0",
    "f": "5,-10 -5,-10 -5,10|-5,-1 3,-1",
    "g": "~6,-6 3,-10 -3,-10 -6,-5 -6,5 -3,10 3,10 6,6|6,6 6,1 1,1",
    "h": "-5,-10 -5,10|5,-10 5,10|-5,0 5,0",
    "i": "0,-10 0,10|-3,-10 3,-10|-3,10 3,10",
    "j": "~4,-10 4,5 2,9 -2,10 -5,6",
    "k": "-5,-10 -5,10|5,-10 -5,1|-2,-1 5,10",
    "l": "-4,-10 -4,10 5,10",
    "m": "-7,10 -7,-10 0,3 7,-10 7,10",
    "n": "-5,10 -5,-10 5,10 5,-10",
    "o": "~0,-10 -5,-7 -6,0 -5,7 0,10 5,7 6,0 5,-7 0,-10",
    "p": "-5,10 -5,-10|~-5,-10 2,-10 6,-7 6,-3 2,0 -5,0",
    "q": "~0,-10 -5,-7 -6,0 -5,7 0,10 5,7 6,0 5,-7 0,-10|2,5 7,11",
    "r": "-5,10 -5,-10|~-5,-10 2,-10 6,-7 6,-3 2,0 -5,0|0,0 6,10",
    "s": "~5,-7 2,-10 -3,-10 -5,-6 -3,-2 3,1 5,5 3,10 -2,10 -6,7",
    "t": "-6,-10 6,-10|0,-10 0,10",
    "u": "~-5,-10 -5,4 -3,9 0,10 3,9 5,4 5,-10",
    "v": "-6,-10 0,10 6,-10",
    "w": "-8,-10 -4,10 0,-4 4,10 8,-10",
    "x": "-6,-10 6,10|6,-10 -6,10",
    "y": "-6,-10 0,0 6,-10|0,0 0,10",
    "z": "-6,-10 6,-10 -6,10 6,10",
    "0": "~0,-10 -4,-7 -5,0 -4,7 0,10 4,7 5,0 4,-7 0,-10|3,-6 -3,6",
    "1": "-4,-6 0,-10 0,10|-4,10 4,10",
    "2": "~-5,-6 -3,-10 3,-10 5,-6 3,-1 -5,10|-5,10 6,10",
    "3": "~-5,-8 -1,-10 4,-9 4,-3 -1,-1|~-1,-1 5,1 5,8 0,10 -5,8",
    "4": "3,10 3,-10 -6,4 6,4",
    "5": "5,-10 -4,-10 -5,-2|~-5,-2 1,-3 5,1 4,8 -1,10 -5,8",
    "6": "~4,-9 0,-10 -4,-5 -5,3 -2,10 3,9 5,4 2,-1 -2,0 -5,4",
    "7": "-5,-10 6,-10 -2,10",
    "8": "~0,-1 -4,-4 -3,-9 0,-10 3,-9 4,-4 0,-1 -5,3 -4,9 0,10 4,9 5,3 0,-1",
    "9": "~5,-4 2,0 -2,1 -5,-4 -3,-9 2,-10 5,-3 4,5 0,10 -4,9",
    "question": "~-5,-6 -3,-10 3,-10 5,-6 3,-1 0,1 0,4|0,9 0,10",
    "hash": "-3,-10 -5,10|5,-10 3,10|-7,-4 7,-4|-7,4 7,4",
}


# --- characters -------------------------------------------------------------------------------------------------


def glyph(strokes: str, p: Picture) -> None:
    p.pose(turn=8, mirror=False)
    ink = p.colour()
    if p.maybe(0.3):  # on a badge
        badge = (polygon(4, turn=-45) * 1.35, arc(0, 0, 1.05, 1.05), polygon(6))[p.count(0, 2)]
        p.shape(badge, ink)
        ink = WHITE if ink.mean() < 0.6 else DARK
        p.matrix = p.matrix * 0.65
        p.unit *= 0.65
    slant, width = p.uniform(-0.15, 0.15), p.uniform(0.12, 0.36)
    lines = []
    for stroke in strokes.split("|"):
        corners = points([pair.split(",") for pair in stroke.removeprefix("~").split()]) / 11
        corners[:, 0] -= slant * corners[:, 1]
        lines.append(spline(corners) if stroke[0] == "~" else corners)
    if p.maybe(0.25):
        p.fill(p.strokes(*lines, width=width + 0.15), p.colour())
    p.fill(p.strokes(*lines, width=width, round_ends=p.maybe()), ink)


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


# --- faces and bodies -------------------------------------------------------------------------------------------


def eyes(p: Picture, x: float = 0.36, y: float = -0.2, wink: bool = False) -> None:
    size, white = p.uniform(0.08, 0.16), p.maybe(0.3)
    for side in (-1, 1):
        if wink and side > 0:
            p.line(arc(x, y, 0.18, 0.12, 200, 340, 12), 0.08, DARK)
            continue
        if white:
            p.oval(side * x, y, size * 1.7, size * 1.9, WHITE)
        p.oval(side * x, y, size, size * p.uniform(1, 1.4), DARK)


def mouth(p: Picture, kind: str) -> None:
    width, y = p.uniform(0.3, 0.5), p.uniform(0.3, 0.42)
    if kind in ("smile", "wink"):
        p.line(arc(0, y - 0.1, width, width * 0.7, 20, 160, 16), 0.09, DARK)
    elif kind == "sad":
        p.line(arc(0, y + 0.35, width, width * 0.8, 205, 335, 16), 0.09, DARK)
    elif kind == "calm":
        p.line([(-width, y), (width, y)], 0.09, DARK)
    elif kind == "surprised":
        p.oval(0, y + 0.1, p.uniform(0.13, 0.22), p.uniform(0.18, 0.3), hsv(0, 0.5, 0.3))
    else:  # an open, laughing mouth
        p.shape(arc(0, y - 0.1, width * 1.15, width * 1.2, 0, 180, 24), hsv(0, 0.6, 0.3))
        if p.maybe(0.6):
            p.fill(p.mask(rectangle(-width * 0.9, y - 0.1, width * 0.9, y + 0.02)), WHITE)
        if p.maybe(0.5):
            p.oval(0, y + 0.28, width * 0.5, 0.14, hsv(0.98, 0.6, 0.9))


def face(kind: str, p: Picture) -> None:
    p.pose(turn=10)
    colour = p.skin()
    p.ball(0, 0, 0.95, 0.95, colour, shine=False) if p.maybe(0.3) else p.oval(0, 0, 0.95, colour=colour)
    if p.maybe(0.2):
        for side in (-0.6, 0.6):
            p.fill(p.mask(arc(side, 0.2, 0.2, 0.13)) * 0.6, hsv(0.98, 0.6, 1))
    eyes(p, wink=kind == "wink")
    if p.maybe(0.3) or kind == "cross":
        tilt = 0.14 if kind == "cross" else p.uniform(-0.1, 0.05)
        for side in (-1, 1):
            p.line([(side * 0.55, -0.5 - tilt), (side * 0.2, -0.5 + tilt)], 0.08, DARK)
    mouth(p, "sad" if kind == "cross" else kind)


def hair(p: Picture, colour: Array) -> None:
    p.shape(arc(0, -0.3, 0.62, 0.62, 180, 360), colour)
    if p.maybe():
        for side in (-1, 1):
            p.line([(side * 0.52, -0.3), (side * 0.52, p.uniform(0, 0.5))], 0.22, colour)


def person(hat: str, p: Picture) -> None:
    """Head and shoulders."""
    p.pose(turn=4)
    skin, coat, dark = p.skin(), p.colour(), hsv(p.uniform(0.02, 0.12), p.uniform(0.2, 0.8), p.uniform(0.1, 0.7))
    if p.maybe(0.4):
        p.oval(0, -0.1, 0.68, 0.75, dark)  # hair behind the head
    p.shape(mirrored(spline([(0, 0.45), (0.45, 0.5), (0.85, 0.7), (0.95, 1.1)])), coat)
    p.line([(0, 0.2), (0, 0.5)], 0.35, skin * 0.92)
    if p.maybe():
        p.shape(points([(-0.3, 0.48), (0.3, 0.48), (0, 0.95)]), WHITE if p.maybe() else p.colour())
    p.oval(0, -0.2, 0.52, 0.6, skin)
    size = p.uniform(0.05, 0.08)
    for side in (-1, 1):
        p.oval(side * 0.2, -0.2, size, size * 1.2, DARK)
    p.line(arc(0, 0.05, 0.18, 0.12, 20, 160, 10), 0.06, hsv(0, 0.6, 0.45))
    accent = p.colour()
    if hat == "hair":
        hair(p, dark)
    elif hat == "helmet":
        p.shape(arc(0, -0.4, 0.66, 0.55, 180, 360), accent)
        p.line([(-0.72, -0.4), (0.72, -0.4)], 0.1, accent * 0.8)
    elif hat == "tall":
        p.shape(rectangle(-0.45, -1.05, 0.45, -0.5), accent)
        p.line([(-0.7, -0.5), (0.7, -0.5)], 0.12, accent * 0.85)
    else:  # a hood
        p.fill(p.mask(arc(0, -0.2, 0.75, 0.85), holes=[arc(0, -0.12, 0.48, 0.55)]), accent)


def figure(kind: str, p: Picture) -> None:
    """A whole body of capsules: standing, walking, or with the arms raised."""
    p.pose(turn=6)
    skin, coat, legs = p.skin(), p.colour(), p.colour()
    stride = p.uniform(0.3, 0.5) if kind == "walking" else p.uniform(0.1, 0.25)
    hand = {"standing": (0.4, 0.35), "walking": (0.5, 0.1), "arms-up": (0.55, -0.85)}[kind]
    for side in (-1, 1):
        knee = side * stride * 0.7
        p.line([(side * 0.1, 0.25), (knee, 0.6), (side * stride, 0.95)], 0.2, legs)
        p.line([(side * stride, 0.97), (side * stride + 0.12, 0.97)], 0.12, DARK)
    p.line([(0, -0.3), (0, 0.2)], 0.42, coat)
    for side in (-1, 1):
        p.line([(side * 0.18, -0.38), (side * 0.42, (hand[1] - 0.3) / 2), (side * hand[0], hand[1])], 0.15, coat)
        p.oval(side * hand[0], hand[1], 0.09, colour=skin)
    p.oval(0, -0.72, 0.22, 0.25, skin)
    p.shape(arc(0, -0.76, 0.24, 0.24, 180, 360), hsv(p.uniform(0, 0.12), 0.6, p.uniform(0.1, 0.7)))


def hand(fingers: tuple[bool, ...], p: Picture) -> None:
    """A palm, and five fingers that are straight or folded; the thumb comes first."""
    p.pose(turn=25)
    skin = p.skin()
    shade, nail = np.clip(skin * 0.8, 0, 1), np.clip(skin * 1.15, 0, 1)
    if p.maybe(0.4):
        p.line([(0, 0.7), (p.uniform(-0.2, 0.2), 1.1)], 0.62, p.colour())  # a sleeve
    for i, straight in enumerate(fingers[1:]):
        x, spread = -0.33 + 0.22 * i, (i - 1.5) * p.uniform(0.06, 0.14)
        tip = (x + spread, -0.95 + 0.12 * abs(i - 1.2)) if straight else (x, -0.12)
        p.line([(x, 0.1), tip], 0.26, shade)
        p.line([(x, 0.1), tip], 0.21, skin)
        if straight and p.maybe(0.3):
            p.oval(tip[0], tip[1], 0.06, 0.07, nail)
    p.shape(spline([(-0.48, 0), (0, -0.1), (0.46, 0), (0.42, 0.6), (0, 0.85), (-0.42, 0.6)], closed=True), skin)
    thumb = (-0.95, -0.25) if fingers[0] else (0.15, 0.25)
    p.line([(-0.35, 0.45), (-0.6 if fingers[0] else -0.2, 0.2), thumb], 0.28, shade)
    p.line([(-0.35, 0.45), (-0.6 if fingers[0] else -0.2, 0.2), thumb], 0.22, skin)


HANDS = {
    "open": (True,) * 5,
    "fist": (False,) * 5,
    "pointing": (False, True, False, False, False),
    "two-fingers": (False, True, True, False, False),
    "thumb": (True, False, False, False, False),
    "horns": (False, True, False, False, True),
}


# --- animals ----------------------------------------------------------------------------------------------------


def animal_face(kind: str, p: Picture) -> None:
    p.pose(turn=8)
    fur = p.fur()
    inner, muzzle = np.clip(fur * 0.75, 0, 1), np.clip(fur * 0.6 + 0.4, 0, 1)
    ears: dict[str, Callable[[int], Array]] = {
        "cat": lambda s: points([(s * 0.25, -0.55), (s * 0.75, -1), (s * 0.85, -0.2)]),
        "bear": lambda s: arc(s * 0.6, -0.6, 0.3, 0.3),
        "rabbit": lambda s: arc(s * 0.35, -0.75, 0.17, 0.45),
        "dog": lambda s: arc(s * 0.8, -0.1, 0.2, 0.5),
        "pig": lambda s: points([(s * 0.3, -0.6), (s * 0.95, -0.8), (s * 0.75, -0.2)]),
    }
    if kind == "pig":
        fur, inner, muzzle = (hsv(0.96, p.uniform(0.2, 0.5), tone) for tone in (1, 0.8, 0.85))
    for side in (-1, 1):
        ear = ears[kind](side)
        p.shape(ear, fur)
        p.fill(p.mask((ear - ear.mean(0)) * points(0.55) + ear.mean(0)), inner)
    size = 0.7 if kind == "rabbit" else 0.82
    p.oval(0, 0.15, size, size * 0.95, fur)
    if p.maybe(0.3):  # fur: short strokes from the middle outwards
        turn = p.rng.uniform(0, 2 * np.pi, 40)
        ends = p.rng.uniform(0.3, 0.8, (40, 1)) * np.stack([np.cos(turn), np.sin(turn)], 1) * size + [0, 0.15]
        lines = [np.stack([end * 0.82, end]) for end in ends]
        p.fill(p.strokes(*lines, width=0.03), inner)
    eyes(p, 0.32, 0)
    p.oval(0, 0.48, 0.36, 0.26, muzzle)
    if kind == "pig":
        for side in (-0.13, 0.13):
            p.oval(side, 0.46, 0.07, 0.1, inner * 0.5)
    else:
        p.shape(points([(-0.12, 0.36), (0.12, 0.36), (0, 0.5)]), DARK)
        p.line(arc(0, 0.5, 0.2, 0.15, 15, 165, 12), 0.05, DARK)
    if kind == "cat":
        whiskers = [np.array([(s * 0.3, 0.45), (s * 0.95, 0.45 + d)]) for s in (-1, 1) for d in (-0.12, 0.05, 0.22)]
        p.fill(p.strokes(*whiskers, width=0.03), DARK)


def beast(kind: str, p: Picture) -> None:
    """An animal on four legs, from the side."""
    p.pose(turn=6)
    coat = p.fur() if p.maybe(0.8) else p.colour()
    far = np.clip(coat * 0.7, 0, 1)
    long, thick = {"horse": (0.75, 0.17), "sheep": (0.4, 0.13), "elephant": (0.5, 0.28), "dog": (0.5, 0.15)}[kind]
    body = (0.6, 0.42) if kind in ("elephant", "sheep") else (0.58, 0.27)
    for tone, shift in ((far, 0.13), (coat, 0)):
        for x in (-0.42, 0.34):
            p.line([(x + shift, 0.2), (x + shift + p.uniform(-0.1, 0.1), 0.3 + long * 0.85)], thick, tone)
    p.line([(0.5, 0), (0.75, p.uniform(-0.3, 0.1)), (0.85, p.uniform(-0.5, 0.4))], 0.08, coat)
    p.ball(0, 0.1, *body, coat, shine=False) if p.maybe() else p.oval(0, 0.1, *body, coat)
    if kind == "sheep":
        for angle in np.linspace(0, 2 * np.pi, 11):
            p.oval(0.55 * np.cos(angle), 0.1 + 0.35 * np.sin(angle), 0.18, colour=coat)
        coat = far * 0.6
    if p.maybe(0.3) and kind != "sheep":
        for x, y in p.rng.uniform((-0.4, -0.05), (0.4, 0.25), (5, 2)):
            p.oval(x, y, p.uniform(0.05, 0.13), colour=far)
    head = (-0.72, -0.45) if kind in ("horse", "dog") else (-0.68, -0.1)
    p.line([(-0.45, 0), head], 0.3 if kind != "horse" else 0.24, coat)
    p.oval(*head, 0.26, 0.2, coat)
    if kind == "elephant":
        p.oval(*head, 0.32, 0.32, coat)
        p.line(spline([(-0.85, 0), (-0.97, 0.35), (-0.85, 0.7)]), 0.13, coat)
        p.oval(-0.5, -0.1, 0.2, 0.28, far)
    else:
        p.line([(head[0] - 0.05, head[1] + 0.03), (head[0] - 0.22, head[1] + 0.1)], 0.18, coat)
        p.line([(head[0] + 0.12, head[1] - 0.12), (head[0] + 0.16, head[1] - 0.3)], 0.1, far)
    p.oval(head[0] - 0.08, head[1] - 0.05, 0.045, colour=DARK)


def bird(p: Picture) -> None:
    p.pose(turn=12)
    coat, wing = p.colour(), p.colour()
    for x in (-0.05, 0.12):
        p.line([(x, 0.4), (x, 0.9)], 0.05, hsv(0.09, 0.8, 0.8))
    p.shape(points([(0.35, 0), (1, p.uniform(-0.3, 0.3)), (0.9, 0.4), (0.3, 0.3)]), wing)
    p.oval(0, 0.15, 0.55, 0.42, coat)
    p.oval(-0.4, -0.4, 0.3, colour=coat)
    p.shape(points([(-0.62, -0.5), (-0.98, -0.32), (-0.62, -0.25)]), hsv(p.uniform(0.05, 0.14), 0.9, 1))
    p.oval(-0.46, -0.46, 0.06, colour=DARK)
    p.shape(spline([(-0.2, 0), (0.35, 0), (0.6, 0.4), (0.1, 0.35)], closed=True), wing)


def fish(p: Picture) -> None:
    p.pose(turn=15)
    coat, fin = p.colour(), p.colour()
    high = p.uniform(0.35, 0.6)
    p.shape(points([(0.45, 0), (1, -0.5), (0.85, 0), (1, 0.5)]), fin)
    p.shape(points([(-0.2, -high * 0.8), (0.2, -high - 0.35), (0.35, -high * 0.6)]), fin)
    p.shape(np.concatenate([arc(-0.15, 0, 0.8, high, 0, 360)]), coat)
    if p.maybe():
        for x in (-0.1, 0.15, 0.4):
            p.line(arc(x - 0.2, 0, 0.2, high * 0.75, -60, 60, 10), 0.06, fin)
    p.oval(-0.6, -0.1, 0.1, colour=WHITE)
    p.oval(-0.62, -0.1, 0.05, colour=DARK)


def butterfly(p: Picture) -> None:
    p.pose(turn=30)
    wing, spot = p.colour(), p.colour()
    for cx, cy, rx, ry in ((0.5, -0.35, 0.48, 0.5), (0.42, 0.4, 0.36, 0.4)):
        for side in (-1, 1):
            p.oval(side * cx, cy, rx, ry, wing)
            p.oval(side * cx, cy, rx * 0.5, ry * 0.5, spot)
    p.line([(0, -0.5), (0, 0.6)], 0.14, DARK)
    for side in (-1, 1):
        p.line(spline([(0, -0.5), (side * 0.1, -0.8), (side * 0.3, -0.95)]), 0.04, DARK)


def snake(p: Picture) -> None:
    p.pose(turn=180)
    x = np.linspace(-0.9, 0.9, 30)
    path = np.stack([x, p.uniform(0.25, 0.5) * np.sin(p.uniform(4, 7) * x)], 1)
    coat = p.colour()
    p.line(path, 0.26, coat)
    for x, y in path[4::4]:
        p.oval(x, y, 0.06, colour=coat * 0.6)
    p.oval(path[0, 0], path[0, 1], 0.2, 0.17, coat)
    p.oval(path[0, 0], path[0, 1] - 0.06, 0.05, colour=DARK)


def spider(p: Picture) -> None:
    p.pose(turn=180)
    coat = p.colour(value=(0.1, 0.7))
    for side in (-1, 1):
        for i in range(4):
            y = -0.5 + i * 0.33
            p.line([(0, y * 0.3), (side * 0.5, y * 0.6 - 0.15), (side * 0.95, y + 0.15)], 0.07, coat)
    p.oval(0, 0.25, 0.35, 0.42, coat)
    p.oval(0, -0.25, 0.22, colour=np.clip(coat * 1.3, 0, 1))


def fur_ball(p: Picture) -> None:
    coat = p.fur()
    dark = np.clip(coat * p.uniform(0.5, 0.8), 0, 1)
    turn = p.rng.uniform(0, 2 * np.pi, 130)
    ends = np.sqrt(p.rng.uniform(0.1, 1, (130, 1))) * np.stack([np.cos(turn), np.sin(turn)], 1)
    droop = points([0, 0.12])
    p.oval(0, 0, 0.8, colour=coat)
    for tone, part in ((coat, ends[:70]), (dark, ends[70:])):
        p.fill(p.strokes(*[np.stack([end * 0.75, end * 0.95 + droop]) for end in part], width=0.04), tone)


# --- plants -----------------------------------------------------------------------------------------------------


def green(p: Picture) -> Array:
    if p.maybe(0.25):
        return hsv(p.uniform(0, 0.15), p.uniform(0.5, 1), p.uniform(0.5, 1))  # autumn
    return hsv(p.uniform(0.2, 0.42), p.uniform(0.4, 0.9), p.uniform(0.3, 0.8))


def leaf(p: Picture) -> None:
    p.pose(turn=180)
    colour, wide = green(p), p.uniform(0.3, 0.65)
    p.line([(0, 0.6), (0, 1)], 0.07, colour * 0.7)
    p.shape(mirrored(spline([(0, -1), (wide, -0.2), (wide * 0.8, 0.4), (0, 0.75)])), colour)
    veins = [np.array([(0, y + 0.25), (s * wide * 0.75, y)]) for y in (-0.5, -0.15, 0.2) for s in (-1, 1)]
    p.fill(p.strokes(np.array([(0, -0.8), (0, 0.7)]), *veins, width=0.04), np.clip(colour * 1.35, 0, 1))


def tree(kind: str, p: Picture) -> None:
    p.pose(turn=4)
    crown, trunk = green(p), hsv(0.07, p.uniform(0.4, 0.8), p.uniform(0.25, 0.55))
    p.shape(points([(-0.1, 0), (0.1, 0), (0.16, 1), (-0.16, 1)]), trunk)
    if kind == "fir":
        for y in (0.55, 0.1, -0.35):
            wide = 0.45 + 0.3 * (y + 0.35)
            p.shape(points([(0, y - 0.65), (wide, y + 0.1), (-wide, y + 0.1)]), np.clip(crown * (1 + 0.1 * y), 0, 1))
    elif kind == "palm":
        for angle in np.linspace(-200, 20, 7):
            x, y = np.cos(np.radians(angle)), np.sin(np.radians(angle))
            p.line(spline([(0, 0), (x * 0.5, y * 0.6 - 0.1), (x * 0.9, y * 0.5 + 0.25)]), 0.14, crown)
    else:
        for x, y in p.rng.uniform((-0.45, -0.65), (0.45, 0), (p.count(5, 9), 2)):
            p.oval(x, y, p.uniform(0.25, 0.45), colour=np.clip(crown * p.uniform(0.85, 1.15), 0, 1))


def flower(p: Picture) -> None:
    p.pose(turn=10)
    petal, petals = p.bright(), p.count(5, 9)
    p.line(spline([(0, -0.2), (p.uniform(-0.2, 0.2), 0.4), (0, 1)]), 0.09, green(p))
    if p.maybe(0.6):
        p.oval(0.3, 0.6, 0.28, 0.12, green(p))
    for angle in 2 * np.pi * np.arange(petals) / petals:
        p.oval(0.33 * np.cos(angle), -0.4 + 0.33 * np.sin(angle), 0.24, colour=petal)
    p.oval(0, -0.4, 0.2, colour=hsv(0.12, 0.8, p.uniform(0.5, 1)))


def mushroom(p: Picture) -> None:
    p.shape(spline([(-0.25, 0.1), (0.25, 0.1), (0.35, 0.9), (-0.35, 0.9)], closed=True), hsv(0.1, 0.15, 0.95))
    cap = p.colour()
    p.shape(arc(0, 0.15, 0.95, 0.95, 180, 360), cap)
    for x, y in ((-0.45, -0.2), (0.1, -0.5), (0.5, -0.1), (-0.05, 0)):
        p.oval(x, y, p.uniform(0.08, 0.16), colour=WHITE)


def grass(p: Picture) -> None:
    p.pose(turn=0)
    colour = green(p)
    for x in p.rng.uniform(-1.1, 1.1, p.count(15, 35)):
        lean = p.uniform(-0.4, 0.4)
        blade = spline([(x, 1.2), (x + lean * 0.3, 0.4), (x + lean, p.uniform(-0.9, 0.2))])
        p.line(blade, p.uniform(0.04, 0.1), np.clip(colour * p.uniform(0.6, 1.3), 0, 1))


def fruit(kind: str, p: Picture) -> None:
    p.pose(turn=15)
    p.line(spline([(0, -0.5), (0.05, -0.8), (0.2, -0.95)]), 0.08, hsv(0.07, 0.6, 0.35))
    if kind == "apple":
        p.ball(0, 0.15, 0.8, 0.75, hsv(p.uniform(-0.05, 0.3), 0.85, 0.95))
        p.oval(0.35, -0.7, 0.28, 0.12, green(p))
    elif kind == "cherries":
        for x in (-0.45, 0.45):
            p.line(spline([(0.1, -0.95), (x * 0.6, -0.3), (x, 0.3)]), 0.06, green(p))
            p.ball(x, 0.45, 0.42, 0.42, hsv(p.uniform(-0.06, 0.03), 0.9, 0.85))
    else:  # grapes
        colour = hsv(p.uniform(0.7, 0.85) if p.maybe(0.7) else 0.25, 0.6, 0.7)
        for row, count in enumerate((4, 3, 2, 1)):
            for i in range(count):
                p.ball((i - (count - 1) / 2) * 0.42, -0.35 + row * 0.38, 0.24, 0.24, colour)


# --- flags and dials --------------------------------------------------------------------------------------------


def flag(kind: str, p: Picture) -> None:
    p.pose(turn=0, mirror=False, scale=(0.75, 0.98))
    high, amount, phase = p.uniform(0.55, 0.75), p.uniform(0, 0.09) * p.maybe(0.7), p.uniform(0, 6)
    t = np.linspace(-1, 1, 24)

    def waved(left: float, top: float, right: float, bottom: float) -> Array:
        x = left + (right - left) * (t + 1) / 2
        wave = amount * np.sin(3.5 * x + phase)
        return points(
            np.concatenate([np.stack([x, top * high + wave], 1), np.stack([x, bottom * high + wave], 1)[::-1]])
        )

    one, two, three = (p.bright() if p.maybe(0.75) else p.colour() for _ in range(3))
    if p.maybe(0.5):
        two = WHITE
    whole = waved(-1, -1, 1, 1)
    cloth = p.mask(whole)
    p.fill(cloth, one)
    if kind == "rows":
        bands = p.count(2, 6)
        for i in range(1, bands):
            p.fill(p.mask(waved(-1, -1 + 2 * i / bands, 1, 1)), (one, two, three)[i % (3 if bands < 4 else 2)])
    elif kind == "columns":
        p.fill(p.mask(waved(-1 / 3, -1, 1, 1)), two)
        p.fill(p.mask(waved(1 / 3, -1, 1, 1)), three)
    elif kind == "cross":
        x = p.uniform(-0.35, 0)
        for wide, colour in ((0.2, two), (0.1, three)):
            p.fill(p.mask(waved(x - wide, -1, x + wide, 1), waved(-1, -wide / high, 1, wide / high)), colour)
    elif kind == "saltire":
        for wide, colour in ((0.3, two), (0.13, three)):
            lines = [np.array([(-1, -s * high), (1, s * high)]) for s in (-1, 1)]
            p.fill(np.minimum(cloth, p.strokes(*lines, width=wide)), colour)
    elif kind == "canton":
        for i in range(1, 7):
            p.fill(p.mask(waved(-1, -1 + 2 * i / 7, 1, 1)), (one, two)[i % 2])
        p.fill(p.mask(waved(-1, -1, -0.1, 0.15)), three)
        for x, y in p.rng.uniform((-0.9, -0.9), (-0.2, 0), (8, 2)):
            p.fill(p.mask(polygon(5, 0.4) * points(0.09) + points([x, y * high])), WHITE)
    elif kind == "disc":
        if p.maybe(0.3):
            p.fill(p.mask(waved(-1, 0, 1, 1)), three)
        at, size = points([p.uniform(-0.3, 0.1), 0]), p.uniform(0.25, 0.42)
        sign = polygon(5, 0.4) if p.maybe(0.4) else arc(0, 0, 1, 1)
        p.fill(p.mask(sign * points(size) + at), two)
    else:  # a triangle at the hoist
        p.fill(p.mask(waved(-1, 0, 1, 1)), two)
        tip = points([(-1, -high), (p.uniform(-0.4, 0), 0), (-1, high)])
        p.fill(np.minimum(cloth, p.mask(tip)), three)
    if amount:
        folds = np.cos(3.5 * p.u + phase)
        p.ink *= 1 + 0.2 * np.clip(folds, -1, 1)[..., None] * p.alpha[..., None]
        p.ink = np.minimum(p.ink, p.alpha[..., None])


def clock(p: Picture) -> None:
    p.pose(turn=3)
    rim, dial = p.colour(), WHITE if p.maybe(0.7) else p.colour()
    ink = DARK if dial.mean() > 0.4 else WHITE
    p.oval(0, 0, 0.98, colour=rim)
    p.oval(0, 0, p.uniform(0.78, 0.9), colour=dial)
    ticks = 12 if p.maybe(0.7) else 4
    for angle in 2 * np.pi * np.arange(ticks) / ticks:
        way = np.array([np.cos(angle), np.sin(angle)])
        p.line([way * 0.63, way * 0.72], 0.05, ink)
    hour = p.uniform(0, 2 * np.pi)
    for angle, length, wide in ((hour, 0.36, 0.1), (hour * 12, 0.58, 0.07)):
        p.line([(0, 0), (length * np.sin(angle), -length * np.cos(angle))], wide, ink)
    p.oval(0, 0, 0.07, colour=ink)


def gauge(p: Picture) -> None:
    p.pose(turn=3)
    p.shape(arc(0, 0.4, 0.98, 0.98, 180, 360), p.colour())
    p.shape(arc(0, 0.4, 0.8, 0.8, 180, 360), WHITE)
    for i in range(5):
        start = 180 + 36 * i
        p.line(arc(0, 0.4, 0.66, 0.66, start + 3, start + 33, 8), 0.16, hsv(0.33 * i / 4, 0.8, 0.9))
    angle = p.uniform(np.pi, 2 * np.pi)
    p.line([(0, 0.4), (0.6 * np.cos(angle), 0.4 + 0.6 * np.sin(angle))], 0.07, DARK)


# --- clothes and things -----------------------------------------------------------------------------------------


def garment(kind: str, p: Picture) -> None:
    p.pose(turn=4, scale=(0.75, 0.98))
    colour, wide = p.colour(), p.uniform(0.42, 0.6)
    reach = p.uniform(0.1, 0.9)  # how far down the sleeves go
    sleeves = [[(s * wide * 0.85, -0.75), (s * (wide + 0.25), -0.3 + reach * 0.4), (s * (wide + 0.3), reach)]
               for s in (-1, 1)]  # fmt: skip
    if kind == "shirt":
        p.fill(p.strokes(*[spline(sleeve) for sleeve in sleeves], width=0.3, round_ends=False), colour * 0.9)
        shape = mirrored([(0.2, -0.95), (wide, -0.85), (wide, 0.95)])
    elif kind == "dress":
        shape = mirrored(spline([(0.15, -0.9), (0.35, -0.8), (0.28, -0.2), (p.uniform(0.4, 0.8), 0.95)]))
    elif kind == "trousers":
        split, hem = p.uniform(0.05, 0.15), p.uniform(0.3, 0.55)
        shape = mirrored([(0, -0.95), (0.42, -0.95), (hem, 0.95), (split + 0.05, 0.95), (0, -0.3)])
    elif kind == "shoe":
        shape = spline(
            [(-0.95, 0.35), (-0.9, 0.05), (-0.2, -0.15), (0.3, -0.55), (0.85, -0.5), (0.9, 0.4)], closed=True
        )
    elif kind == "boot":
        shape = spline([(-0.9, 0.8), (-0.85, 0.4), (-0.1, 0.1), (0, -0.9), (0.65, -0.9), (0.7, 0.8)], closed=True)
    else:  # a bag
        p.line(arc(0, -0.2, 0.45, p.uniform(0.4, 0.75), 180, 360), 0.1, colour * 0.8)
        shape = mirrored([(0, -0.2), (0.75, -0.2), (0.9, 0.8), (0, 0.85)])
    p.shape(shape, colour)
    inside = p.mask(shape)
    if kind in ("shoe", "boot"):
        bottom = 0.38 if kind == "shoe" else 0.78
        p.line([(-0.88, bottom), (0.85, bottom)], 0.12, p.colour())
    look = p.uniform()
    if look < 0.25:
        p.fill(np.minimum(inside, sharp(p, np.sin(9 * (p.u if p.maybe() else p.v)))), p.colour())
    elif look < 0.4:
        p.fill(inside * np.clip(p.noise(0.8) * 0.3, 0, 0.5), p.colour())
    elif look < 0.6 and kind in ("shirt", "dress"):
        p.line([(0, -0.9), (0, 0.9)], 0.05, DARK)
    elif look < 0.75:
        p.oval(0, 0, 0.2, colour=p.colour())


def house(p: Picture) -> None:
    p.pose(turn=2)
    wall, roof = p.colour(), p.colour()
    p.shape(rectangle(-0.7, -0.1, 0.7, 0.95), wall)
    p.shape(points([(-0.95, -0.1), (0, -0.95), (0.95, -0.1)]), roof)
    p.shape(rectangle(-0.15, 0.4, 0.2, 0.95), p.colour())
    for x in (-0.5, 0.35):
        p.shape(rectangle(x, 0.1, x + 0.25, 0.35), hsv(0.5, 0.3, 1) if p.maybe() else hsv(0.14, 0.5, 1))


def car(p: Picture) -> None:
    p.pose(turn=3)
    paint = p.colour()
    p.shape(points([(-0.55, 0), (-0.3, -0.5), (0.35, -0.5), (0.6, 0)]), paint)
    p.shape(points([(-0.45, 0), (-0.25, -0.4), (0.3, -0.4), (0.48, 0)]), hsv(0.55, 0.3, 0.9))
    p.shape(rectangle(-0.95, 0, 0.95, 0.4), paint)
    for x in (-0.5, 0.5):
        p.oval(x, 0.42, 0.24, colour=DARK)
        p.oval(x, 0.42, 0.11, colour=hsv(0, 0, 0.7))


def boat(p: Picture) -> None:
    p.pose(turn=6)
    p.line([(0, 0.4), (0, -0.95)], 0.07, hsv(0.08, 0.6, 0.4))
    p.shape(points([(0.08, -0.9), (0.75, 0.25), (0.08, 0.25)]), p.colour())
    p.shape(points([(-0.08, -0.7), (-0.6, 0.25), (-0.08, 0.25)]), p.colour())
    p.shape(points([(-0.95, 0.4), (0.95, 0.4), (0.6, 0.85), (-0.6, 0.85)]), p.colour())


def cup(p: Picture) -> None:
    colour = p.colour()
    p.fill(p.mask(arc(0.6, 0, 0.38, 0.38), holes=[arc(0.6, 0, 0.22, 0.22)]), colour)
    p.shape(points([(-0.7, -0.6), (0.6, -0.6), (0.45, 0.8), (-0.55, 0.8)]), colour)
    p.oval(-0.05, -0.6, 0.65, 0.15, hsv(0.07, 0.6, 0.35))


def bottle(p: Picture) -> None:
    p.pose(turn=20)
    p.shape(mirrored(spline([(0.16, -0.95), (0.16, -0.4), (0.42, -0.1), (0.42, 0.9), (0, 0.95)])), p.colour())
    p.shape(rectangle(-0.4, 0.15, 0.4, 0.6), WHITE if p.maybe() else p.colour())
    p.shape(rectangle(-0.2, -1, 0.2, -0.8), p.colour())


def lamp(p: Picture) -> None:
    p.ball(0, -0.2, 0.6, 0.65, hsv(p.uniform(0.1, 0.17), p.uniform(0.2, 0.9), 1))
    p.shape(rectangle(-0.3, 0.4, 0.3, 0.85), hsv(0, 0, p.uniform(0.4, 0.8)))
    for y in (0.5, 0.65, 0.8):
        p.line([(-0.3, y), (0.3, y - 0.06)], 0.06, DARK)


def umbrella(p: Picture) -> None:
    p.pose(turn=20)
    one, other = p.colour(), p.colour()
    p.line(np.concatenate([points([(0, -0.9)]), arc(0.15, 0.75, 0.15, 0.15, 180, 0, 10)]), 0.08, DARK)
    p.shape(arc(0, 0, 0.98, 0.85, 180, 360), one)
    p.fill(p.mask(arc(0, 0, 0.5, 0.85, 180, 360), holes=[arc(0, 0, 0.18, 0.85, 180, 360)]), other)


def key(p: Picture) -> None:
    p.pose(turn=180)
    metal = hsv(p.uniform(0.08, 0.15), p.uniform(0.1, 0.9), p.uniform(0.5, 1))
    p.fill(p.mask(arc(-0.55, 0, 0.42, 0.42), holes=[arc(-0.55, 0, 0.2, 0.2)]), metal)
    p.line([(-0.15, 0), (0.95, 0)], 0.16, metal)
    for x in (0.6, 0.85):
        p.line([(x, 0), (x, 0.3)], 0.13, metal)


def eye(p: Picture) -> None:
    p.pose(turn=10)
    lids = np.concatenate([arc(0, 0.45, 1.05, 0.95, 205, 335), arc(0, -0.45, 1.05, 0.95, 25, 155)])
    p.shape(lids, WHITE)
    p.ball(0, 0, 0.4, 0.4, p.colour(), shine=False)
    p.oval(0, 0, 0.2, colour=DARK)
    p.oval(-0.1, -0.12, 0.07, colour=WHITE)
    p.line(arc(0, 0.45, 1.05, 0.95, 205, 335), 0.07, DARK)


def book(p: Picture) -> None:
    p.pose(turn=8)
    cover = p.colour()
    for side in (-1, 1):
        p.shape(points([(0, -0.5), (side * 0.95, -0.65), (side * 0.95, 0.6), (0, 0.75)]), cover)
        p.shape(points([(0, -0.45), (side * 0.85, -0.6), (side * 0.85, 0.5), (0, 0.65)]), WHITE)
        for y in np.linspace(-0.3, 0.35, 5):
            p.line([(side * 0.15, y), (side * 0.7, y - 0.08)], 0.04, hsv(0, 0, 0.6))


def chair(p: Picture) -> None:
    p.pose(turn=4)
    timber = p.colour()
    for x, top in ((-0.5, 0.2), (0.5, 0.2), (-0.35, 0.1), (0.65, 0.1)):
        p.line([(x, top), (x, 0.95)], 0.1, timber * 0.8)
    p.shape(points([(-0.6, 0.3), (0.5, 0.3), (0.75, 0.05), (-0.4, 0.05)]), timber)
    p.shape(rectangle(-0.42, -0.95, 0.72, -0.35), timber)
    for x in (-0.36, 0.66):
        p.line([(x, -0.9), (x, 0.1)], 0.1, timber)


TEXTURES: dict[str, Callable[[Picture], None]] = {
    "checker": checker, "stripes": stripes, "waves": waves, "zigzag": zigzag, "plaid": plaid, "dots": dots,
    "mesh": mesh, "scales": scales, "weave": weave, "bricks": bricks, "wood": wood, "marble": marble, "cells": cells,
    "noise-rough": partial(noise, 0.6), "noise-pink": partial(noise, 1.0), "noise-smooth": partial(noise, 2.0),
    "dead-leaves-round": partial(dead_leaves, 0), "dead-leaves-square": partial(dead_leaves, 4),
    "hatch": hatch, "clouds": clouds, "hills": hills, "sea": sea, "night": night, "grass": grass,
}  # fmt: skip
SOLIDS: dict[str, Callable[[Picture], None]] = {
    "sphere": sphere, "egg": egg, "torus": torus, "cylinder": partial(rounded, 0.65), "cone": partial(rounded, 0.03),
    "bucket": partial(rounded, 0.4), "cube": partial(faceted, BOX, BOX_FACES, (1, 1, 1)),
    "slab": partial(faceted, BOX, BOX_FACES, (1, 0.3, 0.8)), "pillar": partial(faceted, BOX, BOX_FACES, (0.4, 1, 0.4)),
    "pyramid": partial(faceted, PYRAMID, PYRAMID_FACES, (1, 1, 1)), "gem": partial(faceted, GEM, GEM_FACES, (1, 1, 1)),
}  # fmt: skip
OTHERS: dict[str, Callable[[Picture], None]] = {
    "ring": ring, "crescent": crescent, "target": target, "sun": sun, "gear": gear, "rainbow": rainbow,
    "spiral": spiral, "scribble": scribble, "bird": bird, "fish": fish, "butterfly": butterfly, "snake": snake,
    "spider": spider, "fur-ball": fur_ball, "leaf": leaf, "flower": flower, "mushroom": mushroom, "clock": clock,
    "gauge": gauge, "house": house, "car": car, "boat": boat, "cup": cup, "bottle": bottle, "lamp": lamp,
    "umbrella": umbrella, "key": key, "eye": eye, "book": book, "chair": chair,
}  # fmt: skip


def family(name: str, draw: Callable[[str, Picture], None], kinds: str) -> dict[str, Callable[[Picture], None]]:
    return {f"{name}-{kind}": partial(draw, kind) for kind in kinds.split()}


CLASSES: dict[str, Callable[[Picture], None]] = dict(
    sorted(
        (
            TEXTURES
            | SOLIDS
            | OTHERS
            | {name: partial(flat, shape, turn) for name, (shape, turn) in FLAT.items()}
            | {f"glyph-{name}": partial(glyph, strokes) for name, strokes in GLYPHS.items()}
            | {f"hand-{name}": partial(hand, fingers) for name, fingers in HANDS.items()}
            | family("gradient", gradient, "linear radial conic")
            | family("face", face, "smile sad calm surprised laugh wink cross")
            | family("person", person, "hair helmet tall hood")
            | family("figure", figure, "standing walking arms-up")
            | family("animal-face", animal_face, "cat bear rabbit dog pig")
            | family("beast", beast, "horse sheep elephant dog")
            | family("tree", tree, "round fir palm")
            | family("fruit", fruit, "apple cherries grapes")
            | family("flag", flag, "rows columns cross saltire canton disc hoist")
            | family("garment", garment, "shirt dress trousers shoe boot bag")
        ).items()
    )
)
