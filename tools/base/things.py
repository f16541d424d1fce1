"""Plants, flags, dials, clothes and things."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from picture import DARK, WHITE, Array, Picture, arc, family, hsv, mirrored, points, polygon, rectangle, spline
from surfaces import sharp

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


class Flag(NamedTuple):
    """A flag before its design is drawn on it."""

    high: float  # height over width
    cloth: Array  # the mask of the whole flag
    waved: Callable[[float, float, float, float], Array]  # left, top, right, bottom -> the outline of that part
    colours: tuple[Array, Array, Array]  # the first is that of the cloth


def rows(p: Picture, of: Flag) -> None:
    bands = p.count(2, 6)
    for i in range(1, bands):
        p.fill(p.mask(of.waved(-1, -1 + 2 * i / bands, 1, 1)), of.colours[i % (3 if bands < 4 else 2)])


def columns(p: Picture, of: Flag) -> None:
    p.fill(p.mask(of.waved(-1 / 3, -1, 1, 1)), of.colours[1])
    p.fill(p.mask(of.waved(1 / 3, -1, 1, 1)), of.colours[2])


def cross(p: Picture, of: Flag) -> None:
    x = p.uniform(-0.35, 0)
    for wide, colour in zip((0.2, 0.1), of.colours[1:], strict=True):
        upright, across = of.waved(x - wide, -1, x + wide, 1), of.waved(-1, -wide / of.high, 1, wide / of.high)
        p.fill(p.mask(upright, across), colour)


def saltire(p: Picture, of: Flag) -> None:
    for wide, colour in zip((0.3, 0.13), of.colours[1:], strict=True):
        lines = [np.array([(-1, -s * of.high), (1, s * of.high)]) for s in (-1, 1)]
        p.fill(np.minimum(of.cloth, p.strokes(*lines, width=wide)), colour)


def canton(p: Picture, of: Flag) -> None:
    for i in range(1, 7):
        p.fill(p.mask(of.waved(-1, -1 + 2 * i / 7, 1, 1)), of.colours[i % 2])
    p.fill(p.mask(of.waved(-1, -1, -0.1, 0.15)), of.colours[2])
    for x, y in p.rng.uniform((-0.9, -0.9), (-0.2, 0), (8, 2)):
        p.fill(p.mask(polygon(5, 0.4) * points(0.09) + points([x, y * of.high])), WHITE)


def disc(p: Picture, of: Flag) -> None:
    if p.maybe(0.3):
        p.fill(p.mask(of.waved(-1, 0, 1, 1)), of.colours[2])
    at, size = points([p.uniform(-0.3, 0.1), 0]), p.uniform(0.25, 0.42)
    sign = polygon(5, 0.4) if p.maybe(0.4) else arc(0, 0, 1, 1)
    p.fill(p.mask(sign * points(size) + at), of.colours[1])


def hoist(p: Picture, of: Flag) -> None:
    p.fill(p.mask(of.waved(-1, 0, 1, 1)), of.colours[1])
    tip = points([(-1, -of.high), (p.uniform(-0.4, 0), 0), (-1, of.high)])
    p.fill(np.minimum(of.cloth, p.mask(tip)), of.colours[2])


DESIGNS = {design.__name__: design for design in (rows, columns, cross, saltire, canton, disc, hoist)}


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
    cloth = p.mask(waved(-1, -1, 1, 1))
    p.fill(cloth, one)
    DESIGNS[kind](p, Flag(high, cloth, waved, (one, two, three)))
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


CLASSES: dict[str, Callable[[Picture], None]] = (
    {"leaf": leaf, "flower": flower, "mushroom": mushroom, "grass": grass}
    | family("tree", tree, "round fir palm")
    | family("fruit", fruit, "apple cherries grapes")
    | family("flag", flag, " ".join(DESIGNS))
    | family("garment", garment, "shirt dress trousers shoe boot bag")
    | {"clock": clock, "gauge": gauge, "house": house, "car": car, "boat": boat, "cup": cup, "bottle": bottle}
    | {"lamp": lamp, "umbrella": umbrella, "key": key, "eye": eye, "book": book, "chair": chair}
)
