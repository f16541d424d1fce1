"""Build the page that `ptarmigan losses --page` copies: the losses in English and Chinese, as one HTML file.

    pip install -e '.[tools]'
    cd tools && python -m losses_page.build [OUT]        # without OUT: src/ptarmigan/assets/losses.html

The prose in en.html and zh.html has no number that can be computed and no formula of a loss.  It has marks instead:
`$TeX$` and `$$TeX$$`; `[[n KEY]]` or `[[n KEY FORMAT]]`, an entry of `numbers`; `[[formula NAME]]` and `[[code NAME]]`,
of the handbook, whose test executes both; `[[loop]]`, the training loop of docs/losses.md, which a test runs;
`[[figure NAME]]`; `[[options]]`, the list of losses; and `[[proof PATH NAME ... | PATH NAME ...]]`, the functions and
the tests behind a claim, whose existence a test checks.
"""

from __future__ import annotations

import html
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from math_core import LatexToMathML

from losses_page.computed import (
    ADVERSARIAL,
    DIRAC,
    GRID,
    PERFECT,
    acgan_equilibrium,
    log_joint,
    numbers,
    recorded_runs,
    tables,
)
from ptarmigan.core.version import __version__
from ptarmigan.handbook.entries import ENTRIES, read_handbook
from ptarmigan.handbook.figures import Box, Marks, charts, panel, rows, svg_elements

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "src" / "ptarmigan" / "assets" / "losses.html"
LANGUAGES = {"en": "en", "zh": "zh-Hans"}
UNBROKEN = r"\$[^$\n]+\$(?: = \[\[n [^\]]+\]\][,.;:)，。；：、）]*|[,.;:)，。；：、）”]+)"  # no line break inside these
MACROS = {
    "E": r"\mathbb{E}", "op": r"\operatorname{#1}", "abs": r"\left|#1\right|", "norm": r"\left\|#1\right\|",
    "paren": r"\left(#1\right)", "bracket": r"\left[#1\right]", "angle": r"\left\langle#1\right\rangle",
}  # fmt: skip


def mathml(tex: str, display: bool = False) -> str:
    r"""TeX with MACROS -> a <math> element; `&` and `\\` align equations.  Raises LatexError for unknown TeX."""
    tex = " ".join(tex.split())
    lines = tex.replace("& +", "& {} +")  # a sum that continues: without {} the plus would be a sign
    aligned = rf"\begin{{aligned}}{lines}\end{{aligned}}" if "&" in tex else tex
    found = LatexToMathML(macros=MACROS, fancy_error=False).convert_with_local_state(aligned, displaystyle=display)
    found = re.sub(r' style="[^"]*"', "", found).replace("0.16666667em", "0.167em")  # page.css aligns the cells
    # Fonts that are not made for mathematics would raise a prime twice if it were a superscript.
    found = re.sub(r"<msup>(<mi>\w</mi>)<mo>′</mo></msup>", r'\1<mo lspace="0" rspace="0">′</mo>', found)
    return found.replace("<math", f'<math alttext="{html.escape(tex)}"', 1)


def handbook_tex(formula: str) -> str:
    """A formula of the handbook, which a test executes as Python, as TeX."""
    for pattern, tex in (
        (r"\|grad_(\w) D\((.+?)\)\|", r"\\norm{\\nabla_\1 D(\2)}"),
        (r"\bE ", r"\\E\\,"),
        (r"1/2 \* ", r"\\frac{1}{2} "),
        (r"gamma/2", r"\\frac{\\gamma}{2}"),
        (r"\blam \* ", r"\\lambda "),
        (r" \* ", r"\\,"),
        (r"sqrt\((\w+)\)", r"\\sqrt{\1}"),
        (r"\bh_(\w+)", r"h_{\\text{\1}}"),
        (r"\bR([12])\b", r"R_\1"),
        (r"\b(CE|GP|max|sign|dot|source|embedding|weight)\b", r"\\op{\1}"),
    ):
        formula = re.sub(pattern, tex, formula)
    return formula


def shown(value: float, form: str = ".3f") -> str:
    """A number as the prose prints it: a true minus sign, and no sign before a zero."""
    if math.isinf(value):
        return "−∞" if value < 0 else "∞"
    text = format(value, form)
    return text.lstrip("-") if not text.strip("-0.") else text.replace("-", "−")


def figure(name: str, word: Callable[[str], str]) -> str:
    """The values and the slopes of a loss side by side, or stacked on a narrow screen."""
    box = (44.0, 30.0, 404.0, 204.0)
    if name == "shrinking":
        keys, label = [("real", "data"), ("generator", "where G converges")], "where G converges"
        pictures = [shrunk(fakes, box, word) for fakes in (False, True)]
    elif name in recorded_runs():
        keys, label = [("real", "D"), ("generator", "G")], "losses and KID over a run"
        pictures = run_charts(name, box, word)
    else:
        row = rows(None)[0] if name == "answers" else rows(name)[-1]
        keys, label = [(player.style, player.label) for player in row.players], "loss and slope"
        pictures = charts(row, (box, box), word, points=97)
    legend = "".join(
        f'<span class="key"><svg viewBox="0 0 28 8" aria-hidden="true"><path class="{style}" d="M1 4H27"/></svg>'
        f"{html.escape(word(who))}</span>"
        for style, who in keys
    )
    drawn = "".join(
        f'<svg class="chart" viewBox="0 0 414 246" aria-hidden="true">{svg_elements(marks)}</svg>' for marks in pictures
    )
    return (
        f'<figure role="img" aria-label="{html.escape(f"{name}: {word(label)}")}"><div class="keys">{legend}</div>'
        f'<div class="pair">{drawn}</div></figure>'
    )


def shrunk(fakes: bool, box: Box, word: Callable[[str], str]) -> Marks:
    """The densities of two overlapping classes, and of the classes to which ACGAN's generator converges."""
    visible = GRID.abs() <= 4.5
    curves = [
        (style, density)
        for style, theta in (("real", PERFECT), ("generator", acgan_equilibrium(fakes)))
        for density in log_joint(theta).exp()[:, visible]
    ]
    return panel(box, word("C learns from both" if fakes else "C learns from real images"), "x", GRID[visible], curves)


def run_charts(name: str, box: Box, word: Callable[[str], str]) -> list[Marks]:
    """The losses of both players over a recorded run, and the KID at its snapshots."""
    run = {key: torch.tensor(values, dtype=torch.float64) for key, values in recorded_runs()[name].items()}
    axis = word("images seen, in thousands")
    losses = [("real", run["d_adv"]), ("generator", run["g_adv"])]
    return [
        panel(box, word("loss"), axis, run["images"], losses),
        panel(box, word("KID of the samples"), axis, run["kid_images"], [("real", run["kid"])]),
    ]


def training_loop() -> str:
    """The first Python block of docs/losses.md."""
    found = re.search(r"^```python\n(.*?)^```$", (ROOT / "docs" / "losses.md").read_text(encoding="utf-8"), re.S | re.M)
    assert found
    return found[1].rstrip()


def display(tex: str) -> str:
    return f'<div class="formula" tabindex="0">{mathml(tex, display=True)}</div>'


def formula(name: str) -> str:
    """The formulas of an entry of the handbook, aligned at their equals signs."""
    lines = [handbook_tex(line).replace(" = ", " &= ", 1) for line in ENTRIES[name].formulas]
    lines = [line.replace(r" + \lambda", r" \\ & + \lambda") if len(line) > 60 else line for line in lines]
    return display(r" \\ ".join(lines))


def proof(given: str) -> str:
    """The functions and tests behind a claim, as `PATH NAME ... | PATH NAME ...` names them."""
    groups = [part.split() for part in given.split("|")]
    cited = "".join(
        f"<li><code>{path}</code> " + " ".join(f'<code class="name">{name}</code>' for name in names) + "</li>"
        for path, *names in groups
    ).replace("_", "_<wbr>")
    return f'<ul class="proof">{cited}</ul>'


def fill(text: str, language: str, of: dict[str, float]) -> str:
    """A template with its marks replaced; raises KeyError, ValueError or LatexError for an unknown mark."""
    dictionary = json.loads(asset("figures.zh.json"))
    questions = read_handbook("en").groups["questions"]

    def word(english: str) -> str:
        return str(dictionary[english]) if language == "zh" else english

    def value(given: str) -> str:
        key, *form = given.split()
        return shown(of[key], *form)

    def inline(tex: str) -> str:
        return mathml(re.sub(r"\[\[n ([^\]]+)\]\]", lambda found: value(found[1]), tex))

    fillers: dict[str, Callable[[str], str]] = {
        "n": lambda given: f'<span class="n">{value(given)}</span>',
        "version": lambda _: __version__,
        "formula": formula,
        "code": lambda name: f"<pre><code>{html.escape(questions[name].code)}</code></pre>",
        "loop": lambda _: f"<pre><code>{html.escape(training_loop())}</code></pre>",
        "figure": lambda name: figure(name, word),
        "options": lambda which: "".join(f"<option>{name}</option>" for name in (DIRAC if which else ADVERSARIAL)),
        "proof": proof,
    }
    text = re.sub(r"\$\$(.+?)\$\$", lambda found: display(found[1]), text, flags=re.DOTALL)
    text = re.sub(UNBROKEN, r'<span class="together">\g<0></span>', text)
    text = re.sub(r"\$(.+?)\$", lambda found: inline(found[1]), text, flags=re.DOTALL)
    text = re.sub(r"\[\[(\w+) ?([^\]]*)\]\]", lambda found: fillers[found[1]](found[2]), text)
    return re.sub(r'\b(id|for|aria-labelledby|href)="(#?)([a-z][\w-]*)"', rf'\1="\2{language}-\3"', text)


def asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def build() -> str:
    """The whole page."""
    of = numbers()
    parts = {
        "style": asset("page.css"),
        "script": asset("maths.js") + asset("page.js"),
        "data": json.dumps(tables(), separators=(",", ":")),
        "version": __version__,
        **{language: fill(asset(f"{language}.html"), language, of) for language in LANGUAGES},
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], asset("page.html"))


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else PAGE).write_text(build(), encoding="utf-8", newline="\n")
