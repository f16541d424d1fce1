"""The losses as one page, in English and Chinese: prose from assets/losses, every number and curve from the functions.

The prose holds no number that can be computed and no formula of a loss.  It holds marks, which `write` fills:
`$TeX$` and `$$TeX$$`; `[[n KEY]]` or `[[n KEY FORMAT]]`, a figure of `numbers`; `[[formula NAME]]` and `[[code NAME]]`,
of the handbook, whose test runs both; `[[figure NAME]]`; `[[options]]`, the losses to choose from; and
`[[proof PATH NAME ... | PATH NAME ...]]`, the functions and the tests behind a claim, which a test looks up.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptarmigan.config import LOSSES, resolve
from ptarmigan.core import files
from ptarmigan.core.version import __version__
from ptarmigan.handbook.figures import CLASSES, OTHERS, SMOOTHED, Box, Marks, charts, chosen, halves, marks, panel, rows
from ptarmigan.handbook.mathml import mathml, of_handbook
from ptarmigan.losses.adversarial import minimax_g
from ptarmigan.losses.conditioning import classification_g, contrast, discriminative_g, twin_g

LANGUAGES = {"en": "en", "zh": "zh-Hans"}
ADVERSARIAL = (*LOSSES, "smoothing")
DIRAC = ("non_saturating", "minimax", "relativistic", "hinge", "wasserstein")  # those that rest at a logit of 0
EXAMPLE = (0.7, 1.3)  # mean and standard deviation of q beside p = N(0, 1)
FAR = 1e9  # a logit for the limits at infinity
CLOSED_UP = (
    r"\$[^$\n]+\$(?: = \[\[n [^\]]+\]\][,.;:)，。；：、）]*|[,.;:)，。；：、）”]+)"  # a line must not end inside
)
STEP, REACH = 0.1, 20.0  # of the tables that the script reads


# ---------------------------------------------------------------------------- what is computed


def slope(of: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(of(x).sum(), x)[0]


def of_g(name: str) -> Callable[[Tensor], Tensor]:
    """G's loss on a fake's logit; where it is relativistic, beside a real image of logit 0."""
    found = chosen(name)
    return (lambda f: found.g(real=torch.zeros_like(f), fake=f)) if found.relativistic else lambda f: found.g(fake=f)


def best(name: str, log_ratio: Tensor) -> Tensor:
    """D* where log(p/q) has these values: the logit at which p a'(D) + q b'(D) changes its sign, by bisection.

    A relativistic D* is known up to a constant, which is left out: log(p/q) itself, as its own test has it.
    """
    found = chosen(name)
    if found.relativistic:
        return log_ratio
    a, b = halves(found)
    p, q = log_ratio.sigmoid(), (-log_ratio).sigmoid()
    low, high = torch.full_like(log_ratio, -64.0), torch.full_like(log_ratio, 64.0)
    for _ in range(70):
        middle = (low + high) / 2
        rise = p * slope(a, middle) + q * slope(b, middle)
        low, high = torch.where(rise <= 0, middle, low), torch.where(rise >= 0, middle, high)
    return (low + high) / 2


def tables() -> dict[str, Any]:
    """Of each loss what the script draws from: both players' losses and slopes over the logit, D* over log(p/q)."""
    x = torch.linspace(-REACH, REACH, round(2 * REACH / STEP) + 1, dtype=torch.float64)
    out: dict[str, Any] = {"from": -REACH, "step": STEP, "losses": {}}
    for name in ADVERSARIAL:
        found = chosen(name)
        parts = dict(zip(("real", "fake"), halves(found), strict=True)) | {"g": of_g(name)}
        table: dict[str, Any] = {"pairs": found.relativistic, "potential": name == "wasserstein"}
        for key, part in parts.items():
            table |= {key: rounded(part(x) * torch.ones_like(x)), f"{key}_slope": rounded(slope(part, x))}
        if not table["potential"]:
            table["best"] = rounded(best(name, x))
            table["jumps"] = best(name, x).diff().max().item() > 2 * STEP  # hinge's, between the values at 0 and beside
        out["losses"][name] = table
    return out | {"dirac": DIRAC, "example": EXAMPLE}


def rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.7g}") + 0.0 for value in values.tolist()]


def numbers() -> dict[str, float]:
    """Every figure in the prose, from the functions that train."""
    zero = torch.zeros(1, dtype=torch.float64)
    out: dict[str, float] = {}
    for name in ADVERSARIAL:
        a, b = halves(chosen(name))
        g, rest = of_g(name), zero if name == "wasserstein" else best(name, zero)
        pair = (a(rest - rest) if chosen(name).relativistic else a(rest) + b(rest)).item()
        low, high = slope(g, torch.tensor([-FAR, FAR], dtype=torch.float64)).tolist()
        low, high = (math.copysign(math.inf, value) if abs(value) > 1e6 else value for value in (low, high))
        out |= {f"{name}.logit": rest.item(), f"{name}.d": pair, f"{name}.g": g(rest).item()}
        out |= {f"{name}.low": low, f"{name}.high": high, f"{name}.turn": abs(slope(g, rest).item())}
        out[f"{name}.example"] = example(name)
    out["half"] = out["non_saturating.d"] / 2
    a, b = halves(chosen("smoothing"))
    most = best("smoothing", torch.tensor([REACH * 2], dtype=torch.float64))
    out |= {"alpha": SMOOTHED, "beta": 1 - SMOOTHED, "smoothing.most": most.item(), "smoothing.floor": a(most).item()}
    out |= {"ratio": SMOOTHED / (1 - SMOOTHED), "example.mean": EXAMPLE[0], "example.sd": EXAMPLE[1]}
    label = torch.zeros(1, dtype=torch.int64)
    sure = torch.cat([torch.full((1, 1), FAR), torch.zeros(1, CLASSES - 1)], 1).double()
    out["softmax"] = classification_g(sure.softmax(1), fake_labels=label).item()
    out["ignorant"] = classification_g(0 * sure, fake_labels=label).item()
    out |= {"ignorant.d": out["non_saturating.d"] + 2 * out["ignorant"]}
    out |= {"ignorant.g": out["non_saturating.g"] + out["ignorant"]}
    out |= classes()
    fields = resolve({}).loss
    everyone = torch.eye(OTHERS + 1, dtype=torch.float64)
    floor = contrast(
        everyone, everyone, torch.arange(OTHERS + 1), margin=fields.class_margin, temperature=fields.class_temperature
    )
    out |= {"margin": fields.class_margin, "temperature": fields.class_temperature, "contrast": floor.max().item()}
    return out | {"K": CLASSES, "others": OTHERS}


GRID = torch.linspace(-10, 10, 801, dtype=torch.float64)
CELL = 20 / 800
PERFECT = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)  # mean, log sd and shift of the data: classes N(+-1, 1)


def normal(mean: Tensor | float, sd: Tensor | float, x: Tensor = GRID) -> Tensor:
    """log N(x; mean, sd^2)"""
    sd = torch.as_tensor(sd, dtype=torch.float64)
    return -0.5 * ((x - mean) / sd).square() - sd.log() - 0.5 * math.log(2 * math.pi)


def example(name: str) -> float:
    """L_D at D* of p = N(0, 1) and q = EXAMPLE, by quadrature."""
    log_p, log_q = normal(0.0, 1.0), normal(*EXAMPLE)
    p, q = log_p.exp(), log_q.exp()
    found = chosen(name)
    a, b = halves(found)
    potential = ((q - p).cumsum(0).sign() * CELL).cumsum(0)  # up where q has more mass to the left than p, else down
    D = potential if name == "wasserstein" else best(name, log_p - log_q)
    if found.relativistic:
        return (p[:, None] * q * found.d(real=D[:, None], fake=D)).sum().item() * CELL**2
    return (p * a(D) + q * b(D)).sum().item() * CELL


def both(theta: Tensor) -> Tensor:
    """log q(x, y) of classes N(+-mean + shift, sd^2), half of the images each [2, x]; theta = mean, log sd, shift."""
    mean, log_sd, shift = theta
    return torch.stack([normal(sign * mean + shift, log_sd.exp()) for sign in (-1, 1)]) - math.log(2)


def class_cost(conditioning: str, fake: Tensor, fakes: bool = False) -> Tensor:
    """G's class term at (y, x) [2, x] against the best heads, the data being N(+-1, 1); `fake` is log q(x, y) [2, x].

    C is p(y|x), or of the mixture of p and q with `fakes`.
    """
    real = both(PERFECT)
    c = torch.logaddexp(real, fake) if fakes else real
    terms = {
        "auxiliary_classifier": lambda y: classification_g(c.T, fake_labels=y),
        "twin_classifier": lambda y: twin_g(real.T, fake.T, fake_labels=y),
        "discriminative_classifier": lambda y: discriminative_g(torch.cat([real, fake]).T, fake_labels=y),
    }
    return torch.stack([terms[conditioning](torch.full((len(GRID),), y)) for y in (0, 1)])


def pull(theta: Tensor, cost: Callable[[Tensor], Tensor]) -> Tensor:
    """d/d theta of E_q cost, which is a function of log q(x, y); what of it is held still, `cost` detaches."""
    theta = theta.detach().requires_grad_()
    fake = both(theta)
    return torch.autograd.grad((fake.exp() * cost(fake)).sum() * CELL, theta)[0]


def settled(fakes: bool, held: bool = True) -> Tensor:
    """Where G comes to rest under 2 JSD + 1/2 of ACGAN's class term, from q = p on: mean, log sd, shift (0).

    D and C are at their best; C is `held` still while G moves, as in training, or follows it.
    """
    real = both(PERFECT)

    def cost(fake: Tensor) -> Tensor:
        still = fake.detach()
        source = minimax_g(real.logsumexp(0) - still.logsumexp(0))
        return source + class_cost("auxiliary_classifier", still if held else fake, fakes) / 2

    theta = PERFECT
    for _ in range(300):
        step = pull(theta, cost)
        theta = theta - 0.5 * step
        if step.abs().max() < 1e-7:
            break
    return theta


def of_class(conditioning: str, fake: Tensor) -> Tensor:
    return class_cost(conditioning, fake.detach())


def classes() -> dict[str, float]:
    """ACGAN's fault in figures, and its absence in TAC and ADC."""
    fake = both(PERFECT)
    out = {"entropy": (fake.exp() * class_cost("auxiliary_classifier", fake)).sum().item() * CELL}
    for name in ("auxiliary_classifier", "twin_classifier", "discriminative_classifier"):
        found = pull(PERFECT, partial(of_class, name))
        out |= dict(zip((f"{name}.mean", f"{name}.log_sd", f"{name}.shift"), found.tolist(), strict=True))
    for key, fakes, held in (("of_real", False, True), ("of_both", True, True), ("of_sum", True, False)):
        mean, log_sd, _ = settled(fakes, held).tolist()
        out |= {f"{key}.mean": mean, f"{key}.sd": math.exp(log_sd)}
    ndtr = torch.special.ndtr
    out["accuracy"] = ndtr(PERFECT[0]).item()
    out["accuracy.settled"] = ndtr(torch.tensor(out["of_both.mean"] / out["of_both.sd"], dtype=torch.float64)).item()
    return out


# ---------------------------------------------------------------------------- what is written


def shown(value: float, form: str = ".3f") -> str:
    """A figure as the prose has it, with a true minus and no sign before a zero."""
    if math.isinf(value):
        return "−∞" if value < 0 else "∞"
    text = format(value, form)
    return text.lstrip("-") if not text.strip("-0.") else text.replace("-", "−")


def figure(name: str, word: Callable[[str], str]) -> str:
    """Values and slopes of a loss side by side, or under one another where the screen is narrow."""
    box = (44.0, 30.0, 404.0, 204.0)
    if name == "shrinking":
        keys, label = [("real", "data"), ("generator", "where G settles")], "where G settles"
        pictures = [shrunk(fakes, box, word) for fakes in (False, True)]
    else:
        row = rows(None)[0] if name == "answers" else rows(name)[-1]
        keys, label = [(player.style, player.label) for player in row.players], "loss and slope"
        pictures = charts(row, (box, box), word, points=121)
    legend = "".join(
        f'<span class="key"><svg viewBox="0 0 28 8" aria-hidden="true"><path class="{style}" d="M1 4H27"/></svg>'
        f"{html.escape(word(who))}</span>"
        for style, who in keys
    )
    drawn = "".join(f'<svg class="chart" viewBox="0 0 414 246" aria-hidden="true">{marks(p)}</svg>' for p in pictures)
    return (
        f'<figure role="img" aria-label="{html.escape(f"{name}: {word(label)}")}"><div class="keys">{legend}</div>'
        f'<div class="pair">{drawn}</div></figure>'
    )


def shrunk(fakes: bool, box: Box, word: Callable[[str], str]) -> Marks:
    """The densities of two overlapping classes, and of those that ACGAN makes of them."""
    there = GRID.abs() <= 4.5
    curves = [
        (style, density)
        for style, theta in (("real", PERFECT), ("generator", settled(fakes)))
        for density in both(theta).exp()[:, there]
    ]
    return panel(box, word("C learns from both" if fakes else "C learns from real images"), "x", GRID[there], curves)


def fill(
    text: str, language: str, formulas: Mapping[str, tuple[str, ...]], code: Mapping[str, str], of: dict[str, float]
) -> str:
    """A template with its marks replaced; raises KeyError or ValueError for one that means nothing."""
    dictionary = json.loads(asset("figures.zh.json"))

    def word(english: str) -> str:
        return str(dictionary[english]) if language == "zh" else english

    def value(given: str) -> str:
        key, *form = given.split()
        return shown(of[key], *form)

    def math(tex: str, display: bool = False) -> str:
        return mathml(re.sub(r"\[\[n ([^\]]+)\]\]", lambda found: value(found[1]), tex), display)

    def display(tex: str) -> str:
        return f'<div class="formula" tabindex="0">{math(tex, display=True)}</div>'

    def formula(name: str) -> str:
        lines = [of_handbook(line).replace(" = ", " &= ", 1) for line in formulas[name]]
        lines = [line.replace(r" + \lambda", r" \\ & + \lambda") if len(line) > 60 else line for line in lines]
        return display(r" \\ ".join(lines))

    def proof(given: str) -> str:
        groups = [part.split() for part in given.split("|")]
        cited = "".join(
            f"<li><code>{path}</code> " + " ".join(f'<code class="name">{name}</code>' for name in names) + "</li>"
            for path, *names in groups
        ).replace("_", "_<wbr>")
        return f'<ul class="proof">{cited}</ul>'

    fillers: dict[str, Callable[[str], str]] = {
        "n": lambda given: f'<span class="n">{value(given)}</span>',
        "version": lambda _: __version__,
        "formula": formula,
        "code": lambda name: f"<pre><code>{html.escape(code[name])}</code></pre>",
        "figure": lambda name: figure(name, word),
        "options": lambda which: "".join(f"<option>{name}</option>" for name in (DIRAC if which else ADVERSARIAL)),
        "proof": proof,
    }
    text = re.sub(r"\$\$(.+?)\$\$", lambda found: display(found[1]), text, flags=re.DOTALL)
    text = re.sub(CLOSED_UP, r'<span class="together">\g<0></span>', text)
    text = re.sub(r"\$(.+?)\$", lambda found: math(found[1]), text, flags=re.DOTALL)
    text = re.sub(r"\[\[(\w+) ?([^\]]*)\]\]", lambda found: fillers[found[1]](found[2]), text)
    return re.sub(r'\b(id|for|aria-labelledby|href)="(#?)([a-z][\w-]*)"', rf'\1="\2{language}-\3"', text)


def asset(name: str) -> str:
    return (resources("ptarmigan") / "assets" / "losses" / name).read_text(encoding="utf-8")


def build(formulas: Mapping[str, tuple[str, ...]], code: Mapping[str, str]) -> str:
    """The whole page; formulas and lines of code by name, as the handbook has them."""
    of = numbers()
    parts = {
        "style": asset("page.css"),
        "script": asset("maths.js") + asset("page.js"),
        "data": json.dumps(tables(), separators=(",", ":")),
        "version": __version__,
        **{language: fill(asset(f"{language}.html"), language, formulas, code, of) for language in LANGUAGES},
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], asset("page.html"))


def write(out: str | Path, formulas: Mapping[str, tuple[str, ...]], code: Mapping[str, str]) -> Path:
    """Write the page to `out`, X.html, and return its path.

    Raises UserError for another ending and an `out` that exists: nothing is overwritten.
    """
    path = files.check_new_path(Path(out), "page", (".html",))
    files.write_atomic(path, build(formulas, code).encode())
    return path
