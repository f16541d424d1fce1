"""Faces and bodies of people and animals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from picture import DARK, WHITE, Array, Picture, arc, family, hsv, mirrored, points, rectangle, spline

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


CLASSES: dict[str, Callable[[Picture], None]] = (
    {f"hand-{name}": partial(hand, fingers) for name, fingers in HANDS.items()}
    | family("face", face, "smile sad calm surprised laugh wink cross")
    | family("person", person, "hair helmet tall hood")
    | family("figure", figure, "standing walking arms-up")
    | family("animal-face", animal_face, "cat bear rabbit dog pig")
    | family("beast", beast, "horse sheep elephant dog")
    | {"bird": bird, "fish": fish, "butterfly": butterfly, "snake": snake, "spider": spider, "fur-ball": fur_ball}
)
