"""SVG plots of the losses and their slopes over the logit, computed by training's own functions and autograd."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ptarmigan.config import Loss, resolve
from ptarmigan.config.recipes import RECIPES
from ptarmigan.config.sections import LOSSES
from ptarmigan.core import files
from ptarmigan.core.types import unknown
from ptarmigan.losses.adversarial import Objective, objective
from ptarmigan.losses.conditioning import classification_g, d2d_ce, discriminative_d, discriminative_g, twin_g

SMOOTHED = 0.9  # target for real images in the entry `smoothing`
CLASSES = 10
OTHERS = 28  # images of other classes in ReACGAN's batch
SPAN = {"least_squares": (-2.0, 3.0), "least_squares_pearson": (-3.0, 3.0), "hinge": (-4.0, 4.0)}  # of the logit

COLOURS = {"real": "#0b62a4", "fake": "#b45309", "generator": "#b23cc0", "other": "#8a8f98"}
DARK = {"real": "#7cc0ff", "fake": "#ffb163", "generator": "#f0a3ff", "other": "#9aa3ad"}
DASHES = {"real": "none", "fake": "9 5", "generator": "none", "other": "2 4"}  # distinct without colour
WIDTHS = {"real": 1.8, "fake": 1.8, "generator": 4.6, "other": 2.4}
WIDTH, HEIGHT, HEAD = 840, 250, 62  # width and height of a row of two panels; height of its heading


@dataclass(frozen=True)
class Player:
    """One curve: `loss` maps x [N] to losses [N]; `sign` is -1 if the player's own logit falls as x rises."""

    label: str
    style: str  # a key of COLOURS
    loss: Callable[[Tensor], Tensor]
    sign: float = 1.0
    has_value: bool = True  # False: its value equals another player's, so only its slope is drawn

    def value(self, x: Tensor) -> Tensor:
        return self.loss(x).detach() * torch.ones_like(x)

    def slope(self, x: Tensor) -> Tensor:
        """d loss / d logit at x [N], by autograd."""
        x = x.detach().requires_grad_()
        return self.sign * torch.autograd.grad(self.loss(x).sum(), x)[0]


@dataclass(frozen=True)
class Row:
    """One chart of values and one of slopes over the same axis."""

    title: str
    axis: str
    span: tuple[float, float]
    players: tuple[Player, ...]


def objective_named(name: str) -> Objective:
    """The objective of a loss or of `smoothing`."""
    return objective(Loss(loss="non_saturating", smoothing=SMOOTHED) if name == "smoothing" else Loss(loss=name))


def split_d(found: Objective) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """D's loss on a real image and on a fake: a(r) and b(f) with d(r, f) = a(r) + b(f).

    b is shifted so that its minimum is 0, or so that b(0) = 0 if only differences of logits have a meaning.  A
    relativistic d is not a sum of two terms; for it a(r) = d(r, 0) and b(f) = d(0, f).
    """
    zero = torch.zeros((), dtype=torch.float64)
    logits = torch.cat([torch.linspace(-20, 20, 41, dtype=torch.float64), torch.tensor([-1e3], dtype=torch.float64)])
    free = zero if found.equilibrium_logit is None else logits[found.d(real=zero, fake=logits).argmin()]
    rest = zero if found.relativistic else found.d(real=zero, fake=free)
    return lambda r: found.d(real=r, fake=free), lambda f: found.d(real=zero, fake=f) - rest


def adversarial_row(name: str) -> Row:
    """Both players' losses over the logit, or over r - f for a relativistic loss."""
    found = objective_named(name)
    if found.relativistic:
        zero = torch.zeros((), dtype=torch.float64)
        players = (
            Player("D on real", "real", lambda x: found.d(real=x, fake=zero)),
            Player("D on fake", "fake", lambda x: found.d(real=zero, fake=-x), sign=-1, has_value=False),
            Player("G on fake", "generator", lambda x: found.g(real=zero, fake=-x), sign=-1),
        )
        return Row(name, "r - f", (-6, 6), players)
    a, b = split_d(found)
    return Row(
        name,
        "logit",
        SPAN.get(name, (-6, 6)),
        (
            Player("D on real", "real", a),
            Player("D on fake", "fake", b),
            Player("G on fake", "generator", lambda f: found.g(fake=f)),
        ),
    )


def class_logits(x: Tensor, classes: int = CLASSES) -> Tensor:
    """Class logits [N, classes]: x [N] is that of class 0, which is requested, and the others are 0."""
    return F.pad(x.unsqueeze(1), (0, classes - 1))


def requested(x: Tensor) -> Tensor:
    """Labels [N] of class 0."""
    return torch.zeros(len(x), dtype=torch.int64)


def cross_entropy(x: Tensor, classes: int = CLASSES) -> Tensor:
    return classification_g(class_logits(x, classes), fake_labels=requested(x))


def twin_term(c: Tensor, t: Tensor) -> Tensor:
    """G's term in TAC over the logits of C and of its twin; one of them is a number [1]."""
    count = max(len(c), len(t))
    c, t = c.expand(count), t.expand(count)
    return twin_g(class_logits(c), class_logits(t), fake_labels=requested(c))


def discriminative_fake(x: Tensor) -> Tensor:
    """D's term in ADC over the logit of a fake, without that of the real image, whose logits are 0."""
    real, fake = class_logits(0 * x, 2 * CLASSES), class_logits(x, 2 * CLASSES)
    whole = discriminative_d(real, fake, real_labels=requested(x), fake_labels=requested(x))
    return whole - cross_entropy(0 * x, 2 * CLASSES)


def contrastive(x: Tensor) -> Tensor:
    """D2D-CE of images [N] whose cosine to their proxy is x and whose cosine to every other image is 0."""
    fields = resolve({}).loss
    others = F.one_hot(torch.arange(1, OTHERS + 1)).to(x.dtype)
    h = torch.cat([F.one_hot(torch.zeros(1, dtype=torch.int64), OTHERS + 1).to(x.dtype), others])
    out = []
    for cosine in x.unbind():
        proxy = torch.cat([F.pad(cosine.view(1, 1), (0, OTHERS)), others])
        d = d2d_ce(h, proxy, torch.arange(len(h)), margin=fields.class_margin, temperature=fields.class_temperature)
        out.append(d[0])
    return torch.stack(out)


CLASS_PLAYERS = {
    "auxiliary_classifier": (Player("D on real, D on fake and G on fake alike", "generator", cross_entropy),),
    "twin_classifier": (
        Player("D on real (C), on fake (T)", "real", cross_entropy),
        Player("G, over C's margin", "generator", lambda x: twin_term(x, x.new_zeros(1))),
        Player("G, over T's margin", "other", lambda x: twin_term(x.new_zeros(1), x)),
    ),
    "discriminative_classifier": (
        Player("D on real", "real", lambda x: cross_entropy(x, 2 * CLASSES)),
        Player("D on fake", "fake", discriminative_fake),
        Player(
            "G on fake", "generator",
            lambda x: discriminative_g(class_logits(x, 2 * CLASSES), fake_labels=requested(x)),
        ),
    ),
    "reacgan": (Player("D on real and G on fake alike", "generator", contrastive),),
}  # fmt: skip
NAMES = (*LOSSES, "smoothing", *CLASS_PLAYERS, *RECIPES)  # what can be plotted


def class_row(name: str) -> Row:
    """Both players' class terms over the logit of the requested class, with all other logits at 0."""
    if name == "reacgan":
        return Row(name, "cosine of the image to the proxy of its class", (-1, 1), CLASS_PLAYERS[name])
    axis = "logit of the requested class, the others 0"
    return Row(f"{name}, {CLASSES} classes", axis, (-6, 6), CLASS_PLAYERS[name])


def rows(name: str | None = None) -> list[Row]:
    """The rows of a loss, a class term or a recipe; without a name, those of DCGAN's and ACGAN's losses.

    Raises UserError, with the known names, for another name.
    """
    if name is None:
        source, minimax = adversarial_row("non_saturating"), adversarial_row("minimax").players[2]
        real, fake, g = source.players
        answers = (
            real, fake, Player("G on fake, non-saturating", g.style, g.loss),
            Player("G on fake, minimax", "other", minimax.loss),
        )  # fmt: skip
        source_row = Row("DCGAN and ACGAN, source loss", source.axis, source.span, answers)
        return [source_row, class_row("auxiliary_classifier")]
    if name not in NAMES:
        raise unknown("plot", name, NAMES)
    if name in RECIPES:
        config = resolve({"recipe": name})
        classed = [name for name in CLASS_PLAYERS if name == config.model.conditioning]
        return [adversarial_row(config.loss.loss), *map(class_row, classed)]
    return [class_row(name) if name in CLASS_PLAYERS else adversarial_row(name)]


# ---------------------------------------------------------------------------- drawing

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    style: str  # a key of COLOURS, or axis or grid
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Text:
    style: str  # title or label
    at: Point
    anchor: str  # start, middle or end
    text: str


Marks = list[Line | Text]
Box = tuple[float, float, float, float]  # left, top, right, bottom


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from low to high; their spacing is 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= rough)
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def panel(
    box: Box, title: str, axis: str, x: Tensor, curves: Sequence[tuple[str, Tensor]], least_span: float = 0.5
) -> Marks:
    """A chart of curves, given as (style, values), over x; its margins are in proportion to the span of the values."""
    left, top, right, bottom = box
    everything = torch.cat([y for _, y in curves])
    low, high = everything.min().item(), everything.max().item()
    pad = 0.06 * max(high - low, least_span)
    low, high = low - pad, high + pad

    def place(at: float, value: float) -> Point:
        across = (at - x[0].item()) / (x[-1] - x[0]).item()
        return left + (right - left) * across, bottom - (bottom - top) * (value - low) / (high - low)

    out: Marks = [Text("label", (left, top - 8), "start", title)]
    for tick in nice_ticks(low, high):
        y = place(x[0].item(), tick)[1]
        out += [Line("axis" if tick == 0 else "grid", ((left, y), (right, y)))]
        out += [Text("label", (left - 7, y + 4), "end", f"{tick:g}")]
    for tick in nice_ticks(x[0].item(), x[-1].item(), 6):
        at = place(tick, low)[0]
        out += [Line("axis" if tick == 0 else "grid", ((at, top), (at, bottom)))]
        out += [Text("label", (at, bottom + 17), "middle", f"{tick:g}")]
    out += [Text("label", ((left + right) / 2, bottom + 35), "middle", axis)]
    for style, values in sorted(curves, key=lambda curve: -WIDTHS[curve[0]]):  # thin over thick
        line = tuple(place(at, value) for at, value in zip(x.tolist(), values.tolist(), strict=True))
        out += [Line(style, line)]
    return out


def charts(row: Row, boxes: tuple[Box, Box], words: Callable[[str], str] = str, points: int = 241) -> list[Marks]:
    """The values and the slopes of a row, each in its box; `words` translates the labels."""
    low, high = row.span
    x = low + (high - low) * torch.arange(points, dtype=torch.float64) / (points - 1)  # linspace rounds per machine
    values = [(p.style, p.value(x)) for p in row.players if p.has_value]
    slopes = [(p.style, p.slope(x)) for p in row.players]
    titles = map(words, ("loss", f"its slope, d loss / d {row.axis.split()[0] if row.axis != 'r - f' else 'logit'}"))
    return [
        panel(box, title, words(row.axis), x, curves)
        for box, title, curves in zip(boxes, titles, (values, slopes), strict=True)
    ]


def draw_row(row: Row, top: float) -> Marks:
    """A row of WIDTH x (HEAD + HEIGHT) from y = `top`: its name, the legend and the two charts."""
    out: Marks = [Text("title", (46, top + 22), "start", row.title)]
    at = 46.0
    for player in row.players:
        out += [Line(player.style, ((at, top + 38), (at + 26, top + 38)))]
        out += [Text("label", (at + 32, top + 42), "start", player.label)]
        at += 58 + 6.6 * len(player.label)
    high, low = top + HEAD + 14, top + HEAD + HEIGHT - 46
    left, right = charts(row, ((46, high, WIDTH / 2 - 16, low), (WIDTH / 2 + 46, high, WIDTH - 16, low)))
    return out + left + right


def stack_rows(parts: Sequence[Row]) -> tuple[Marks, int]:
    """All rows, one below the other, and their total height."""
    step = HEAD + HEIGHT
    return [mark for i, row in enumerate(parts) for mark in draw_row(row, i * step + 8.0)], step * len(parts) + 12


def svg_elements(drawing: Marks) -> str:
    """Lines and texts as SVG elements, which the CSS classes style."""
    out = []
    for mark in drawing:
        if isinstance(mark, Line):
            at = " ".join(f"{round(x, 1):g},{round(y, 1):g}" for x, y in mark.points)
            out.append(f'<polyline class="{mark.style}" points="{at}"/>')
        else:
            x, y = (f"{round(value, 1):g}" for value in mark.at)
            end = "" if mark.anchor == "start" else f' text-anchor="{mark.anchor}"'
            out.append(f'<text class="{mark.style}" x="{x}" y="{y}"{end}>{html.escape(mark.text)}</text>')
    return "\n".join(out)


def svg(parts: Sequence[Row], name: str) -> str:
    """The plot of a loss as a standalone SVG."""
    look = "".join(f".{key}{{stroke-width:{WIDTHS[key]};stroke-dasharray:{DASHES[key]}}}" for key in COLOURS)
    return document(*stack_rows(parts), look, f"{name}: losses of both players and their slopes")


def document(drawing: Marks, height: int, look: str, label: str) -> str:
    """A standalone SVG, light or dark as the viewer's system is set; `look` is the CSS of the lines but for colours."""

    def theme(colours: dict[str, str], paper: str, ink: str, faint: str) -> str:
        lines = "".join(f".{key}{{stroke:{colour}}}" for key, colour in colours.items())
        return f".paper{{fill:{paper}}}text{{fill:{ink}}}.grid{{stroke:{faint}}}.axis{{stroke:{ink}}}{lines}"

    style = (
        "text{font:12px system-ui,sans-serif}.title{font-size:15px;font-weight:600}polyline{fill:none;"
        f"stroke-linejoin:round}}.axis,.grid{{stroke-width:.8}}{look}{theme(COLOURS, '#fff', '#1f2328', '#e3e6ea')}"
        f"@media(prefers-color-scheme:dark){{{theme(DARK, '#14171a', '#e6e9ed', '#2c3238')}}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{html.escape(label)}">\n<style>{style}</style>\n'
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>\n{svg_elements(drawing)}\n</svg>\n'
    )


def plot(name: str | None, out: str | Path) -> Path:
    """Draw the losses of both players and their slopes into `out`, X.svg, and return its path.

    Raises UserError for an unknown name, another ending, and an `out` that exists: no file is overwritten.
    """
    drawing = svg(rows(name), name or "DCGAN and ACGAN")
    path = files.check_new_path(Path(out), "plot", ".svg")
    files.write_atomic(path, drawing.encode())
    return path
