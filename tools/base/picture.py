"""A picture being drawn: shapes in an object's own coordinates, filled in one style, over a background.

A shape is an array of corners [N, 2] in the unit square [-1, 1]^2, with y pointing down.  The pose of the picture maps
it to pixels.  Masks are drawn at FINE times the size and averaged, so edges are soft; colours and shading are computed
at the size of the picture, as RGB in [0, 1].
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = NDArray[np.float32]
Colour = Array  # RGB [3], or a field [S, S, 3]
FINE = 4
FLAT, GRADIENT, OUTLINE, GRAIN = range(4)  # styles of a picture


def points(values: object) -> Array:
    return np.asarray(values, np.float32)


WHITE, DARK = points((1, 1, 1)), points((0.12, 0.1, 0.1))


def hsv(hue: float, saturation: float, value: float) -> Array:
    return points(colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(max(value, 0), 1)))


@cache
def grid(size: int) -> tuple[Array, Array]:
    """x and y of the pixels' centres [S, S], from -1 to 1."""
    ticks = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    return np.broadcast_to(ticks, (size, size)), np.broadcast_to(ticks[:, None], (size, size))


@cache
def frequencies(size: int) -> Array:
    """The distance from zero of each frequency of a real FFT [S, S // 2 + 1], with 1 at zero."""
    distance = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)) * size
    distance[0, 0] = 1
    return distance.astype(np.float32)


# --- outlines -----------------------------------------------------------------------------------------------


def arc(cx: float, cy: float, rx: float, ry: float, start: float = 0, end: float = 360, count: int = 40) -> Array:
    """Points of an ellipse from one angle to another, in degrees clockwise from the right."""
    angles = np.linspace(np.radians(start), np.radians(end), count)
    return points(np.stack([cx + rx * np.cos(angles), cy + ry * np.sin(angles)], 1))


def spline(control: object, closed: bool = False, count: int = 8) -> Array:
    """A smooth curve through points [N, 2] (Catmull and Rom, 1974)."""
    p = points(control)
    p = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    t = np.linspace(0, 1, count, endpoint=False, dtype=np.float32)[:, None, None]
    a, b, c, d = p[:-3], p[1:-2], p[2:-1], p[3:]
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))  # [count, N, 2]
    curve = curve.transpose(1, 0, 2).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])


def polygon(corners: int, inner: float = 1.0, turn: float = -90) -> Array:
    """A regular polygon, or a star whose inner corners are at `inner` of the radius."""
    count = corners if inner == 1 else 2 * corners
    angles = np.radians(turn) + 2 * np.pi * np.arange(count) / count
    radius = np.where(np.arange(count) % 2, inner, 1.0)
    return points(np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1))


def rectangle(left: float, top: float, right: float, bottom: float) -> Array:
    return points([(left, top), (right, top), (right, bottom), (left, bottom)])


def mirrored(half: object) -> Array:
    """A closed outline from its right half, which runs from the top to the bottom."""
    right = points(half)
    return np.concatenate([right, right[::-1] * points([-1, 1])])


# --- the picture ----------------------------------------------------------------------------------------------


class Picture:
    """Layers of filled shapes over a background; everything that is free is drawn from `rng`."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size, self.rng = size, rng
        self.x, self.y = grid(size)
        self.ink = np.zeros((size, size, 3), np.float32)  # premultiplied with alpha
        self.alpha = np.zeros((size, size), np.float32)
        self.style = int(rng.choice(4, p=(0.35, 0.35, 0.15, 0.15)))
        self.light = points([rng.uniform(-1, 1), rng.uniform(-1, -0.4)])  # where the light comes from
        self.contrast = rng.uniform(0.15, 0.55)
        self.pose()

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return float(self.rng.uniform(low, high))

    def maybe(self, share: float = 0.5) -> bool:
        return bool(self.rng.random() < share)

    def count(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def pose(self, turn: float = 12, mirror: bool = True, scale: tuple[float, float] = (0.6, 0.97)) -> None:
        """Draw a random pose: size, rotation by up to `turn` degrees, a slight stretch, and a position."""
        size, angle = self.uniform(*scale), np.radians(self.uniform(-turn, turn))
        stretch = np.exp(self.rng.normal(0, 0.07, 2)).clip(0.85, 1.1)
        flip = -1 if mirror and self.maybe() else 1
        cos, sin = np.cos(angle), np.sin(angle)
        self.matrix = points([[cos, -sin], [sin, cos]]) @ np.diag(points(stretch * size * [flip, 1]))
        self.shift = points(self.rng.uniform(-1, 1, 2) * (1 - size) * 0.9)
        inverse = np.linalg.inv(self.matrix)
        x, y = self.x - self.shift[0], self.y - self.shift[1]
        self.u = inverse[0, 0] * x + inverse[0, 1] * y  # the object's coordinates of each pixel [S, S]
        self.v = inverse[1, 0] * x + inverse[1, 1] * y
        self.unit = size * self.size / 2  # pixels in one unit of the object

    def fine(self, shape: Array) -> list[tuple[float, float]]:
        pixels = (shape @ self.matrix.T + self.shift + 1) * (self.size * FINE / 2)
        return [(x, y) for x, y in pixels.tolist()]

    # --- masks [S, S] in [0, 1] ---

    def mask(self, *shapes: Array, holes: Sequence[Array] = ()) -> Array:
        fine = Image.new("L", (self.size * FINE, self.size * FINE))
        pen = ImageDraw.Draw(fine)
        for shape in shapes:
            pen.polygon(self.fine(shape), fill=255)
        for hole in holes:
            pen.polygon(self.fine(hole), fill=0)
        return np.asarray(fine.reduce(FINE), np.float32) / 255

    def strokes(self, *lines: Array, width: float, round_ends: bool = True) -> Array:
        fine = Image.new("L", (self.size * FINE, self.size * FINE))
        pen = ImageDraw.Draw(fine)
        thick = max(2, round(width * self.unit * FINE))
        for line in lines:
            corners = self.fine(points(line))
            pen.line(corners, fill=255, width=thick, joint="curve")
            for x, y in (corners[0], corners[-1]) if round_ends else ():
                r = thick / 2
                pen.ellipse((x - r, y - r, x + r, y + r), fill=255)
        return np.asarray(fine.reduce(FINE), np.float32) / 255

    # --- colours ---

    def colour(self, saturation: tuple[float, float] = (0.1, 1.0), value: tuple[float, float] = (0.25, 1.0)) -> Array:
        if self.maybe(0.12):
            return hsv(0, 0, self.uniform(*value))  # a grey
        return hsv(self.uniform(), self.uniform(*saturation), self.uniform(*value))

    def bright(self) -> Array:
        return self.colour((0.5, 1.0), (0.7, 1.0))

    def skin(self) -> Array:
        """Yellow, or a tone from pale to dark brown; seldom any colour."""
        if self.maybe(0.1):
            return self.colour()
        if self.maybe(0.4):
            return hsv(self.uniform(0.1, 0.15), self.uniform(0.6, 0.9), 1)
        return hsv(self.uniform(0.04, 0.09), self.uniform(0.25, 0.65), self.uniform(0.35, 1))

    def fur(self) -> Array:
        return hsv(self.uniform(0.04, 0.12), self.uniform(0, 0.7), self.uniform(0.25, 1))

    def noise(self, power: float = 1.0) -> Array:
        """Noise [S, S] with the amplitude 1 / frequency^power, mean 0 and deviation 1."""
        spectrum = np.fft.rfft2(self.rng.standard_normal((self.size, self.size), np.float32))
        spectrum /= frequencies(self.size) ** power
        spectrum[0, 0] = 0
        noise = np.fft.irfft2(spectrum, (self.size, self.size)).astype(np.float32)
        return noise / (noise.std() + 1e-8)

    def between(self, one: Colour, other: Colour, share: Array) -> Array:
        """A field that goes from one colour at share 0 to the other at share 1."""
        return one + np.clip(share, 0, 1)[..., None] * (other - one)

    # --- filling ---

    def fill(self, mask: Array, colour: Colour, outline: Array | None = None) -> None:
        """Lay a colour over what has been drawn, where the mask is; a flat colour is shaded in the picture's style."""
        if colour.ndim == 1 and self.style in (GRADIENT, GRAIN):
            slope = self.light[0] * self.u + self.light[1] * self.v
            tone = self.contrast * slope if self.style == GRADIENT else 0.1 * self.contrast * self.noise(0.7)
            colour = np.clip(colour * (1 + tone[..., None]), 0, 1)
        self.alpha += mask * (1 - self.alpha)
        self.ink += mask[..., None] * (colour - self.ink)
        if outline is not None and self.style == OUTLINE:
            edge = self.strokes(np.concatenate([outline, outline[:1]]), width=0.05)
            self.fill(edge, np.zeros(3, np.float32) + 0.1)

    def shape(self, shape: Array, colour: Colour) -> None:
        self.fill(self.mask(shape), colour, shape)

    def line(self, line: object, width: float, colour: Colour) -> None:
        self.fill(self.strokes(points(line), width=width), colour)

    def oval(self, cx: float, cy: float, rx: float, ry: float | None = None, colour: Colour | None = None) -> None:
        self.shape(arc(cx, cy, rx, rx if ry is None else ry), self.colour() if colour is None else colour)

    def ball(self, cx: float, cy: float, rx: float, ry: float, colour: Array, shine: bool = True) -> None:
        """An ellipse with the light and shadow of a solid, whatever the style."""
        a, b = (self.u - cx) / rx, (self.v - cy) / ry
        depth = np.sqrt(np.maximum(0, 1 - a * a - b * b))
        light = np.append(self.light, 0.8) / np.linalg.norm(np.append(self.light, 0.8))
        facing = np.maximum(0, a * light[0] + b * light[1] + depth * light[2])[..., None]
        field = colour * (0.35 + 0.75 * facing)
        if shine:
            field = field + 0.6 * facing**20
        self.fill(self.mask(arc(cx, cy, rx, ry)), np.clip(field, 0, 1).astype(np.float32))

    def blurred(self, mask: Array, times: int) -> Array:
        for _ in range(times):
            mask = (mask + np.roll(mask, 1, 0) + np.roll(mask, -1, 0)) / 3
            mask = (mask + np.roll(mask, 1, 1) + np.roll(mask, -1, 1)) / 3
        return mask

    # --- backgrounds ---

    def background(self) -> Array:
        """RGB [S, S, 3]: white in a third of the pictures, one colour in a sixth, else a gradient or a texture."""
        kind = self.uniform()
        one, other = self.colour((0, 0.8), (0.1, 1)), self.colour((0, 0.8), (0.1, 1))
        if kind < 0.36:
            return np.ones((self.size, self.size, 3), np.float32)
        if kind < 0.52:
            return np.broadcast_to(one, (self.size, self.size, 3)).copy()
        angle = self.uniform(0, 2 * np.pi)
        along = np.cos(angle) * self.x + np.sin(angle) * self.y
        if kind < 0.7:
            return self.between(one, other, 0.5 + 0.5 * along)
        if kind < 0.78:
            centre = self.rng.uniform(-0.7, 0.7, 2)
            return self.between(one, other, np.hypot(self.x - centre[0], self.y - centre[1]) / 1.5)
        if kind < 0.9:
            return self.between(one, other, 0.5 + 0.25 * self.noise(self.uniform(0.8, 2)))
        if kind < 0.95:
            return self.between(one, other, 0.5 + 2 * np.sin(along * self.uniform(5, 20)))
        horizon = self.uniform(-0.2, 0.6)  # a floor and a wall
        return self.between(one, other, (self.y - horizon) * self.size / 2 + 0.5)

    def finished(self) -> NDArray[np.uint8]:
        """Compose the layers over the background; uint8 [S, S, 3]."""
        ground = self.background()
        for _ in range(3):  # another one, where the object can hardly be seen
            if np.abs(self.ink - self.alpha[..., None] * ground).mean() > 0.15 * self.alpha.mean():
                break
            ground = self.background()
        if self.maybe(0.35):  # a soft shadow on what is behind
            shift = self.count(1, max(1, self.size // 16))
            shadow = self.blurred(np.roll(self.alpha, (shift, -int(np.sign(self.light[0])) * shift), (0, 1)), 3)
            ground = ground * (1 - self.uniform(0.2, 0.5) * shadow[..., None])
        whole = self.ink + (1 - self.alpha[..., None]) * ground
        return np.rint(np.clip(whole, 0, 1) * 255).astype(np.uint8)


def family(name: str, draw: Callable[[str, Picture], None], kinds: str) -> dict[str, Callable[[Picture], None]]:
    """A class NAME-KIND for each of the kinds, which spaces separate."""
    return {f"{name}-{kind}": partial(draw, kind) for kind in kinds.split()}
