"""The report of `ptarmigan check` as one HTML page without network: charts, and pictures of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ptarmigan.core.types import brief, counted, printable
from ptarmigan.data.check.finding import Finding
from ptarmigan.data.check.images import places
from ptarmigan.generator.generator import png_text
from ptarmigan.sharing.markup import text

if TYPE_CHECKING:
    from ptarmigan.commands.check import CheckReport

WIDTH = 360  # of a chart: that of a telephone, so that its text is never smaller than it is drawn
ROW, NAMES, NUMBERS = 22, 110, 56  # height of a bar with its gap, widths of what stands beside it
BARS = 200  # classes that get a bar
BINS = 24
LISTED = 200  # paths of a finding
LONGEST = 18  # characters of a class name beside a bar

STYLE = """
:root{color-scheme:light dark;--bg:#fbfaf8;--card:#fff;--ink:#22262b;--soft:#5a626c;--line:#dcd9d3;
--error:#a3211b;--warning:#8a5200;--note:#2b5f86;--train:#2b5f86;--select:#c0792a;--held:#4c8a5b}
@media(prefers-color-scheme:dark){:root{--bg:#16181b;--card:#1f2226;--ink:#e8e6e2;--soft:#a7aeb7;--line:#363b41;
--error:#ff8d84;--warning:#f2b25c;--note:#8cc3ee;--train:#6fb0e0;--select:#e8a45c;--held:#7fc190}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:68rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.5rem;margin:0 0 .25rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}p{margin:.25rem 0}
.soft,figcaption,dt{color:var(--soft)}
a{color:var(--note)}:focus-visible{outline:3px solid var(--note);outline-offset:2px;border-radius:4px}
.charts{display:flex;flex-wrap:wrap;gap:1rem 2.5rem}.charts svg{width:100%;max-width:26rem;height:auto;display:block}
svg text{fill:var(--ink);font:12px system-ui,sans-serif}svg .axis{fill:var(--soft)}
.train{fill:var(--train)}.select{fill:var(--select)}.held{fill:var(--held)}
.key{display:flex;gap:1rem;flex-wrap:wrap;font-size:.85rem}.key i{display:inline-block;width:.8em;height:.8em;
margin-right:.35em;border-radius:2px}
details{background:var(--card);border:1px solid var(--line);border-left:5px solid var(--note);border-radius:6px;
margin:.6rem 0;padding:0 .9rem}
details.error{border-left-color:var(--error)}details.warning{border-left-color:var(--warning)}
summary{cursor:pointer;padding:.65rem 0;font-weight:600;overflow-wrap:anywhere}
summary b{text-transform:uppercase;font-size:.75rem;letter-spacing:.05em;margin-right:.6em}
.error b{color:var(--error)}.warning b{color:var(--warning)}.note b{color:var(--note)}
code{font-size:.85rem;color:var(--soft)}dl{margin:0 0 .8rem;display:grid;
grid-template-columns:max-content 1fr;gap:.1rem 1rem}dd{margin:0;overflow-wrap:anywhere}
@media(max-width:40rem){dl{grid-template-columns:1fr}dd{margin:0 0 .35rem}}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:.8rem;margin:.4rem 0 1rem;
padding:0;list-style:none}
figure{margin:0}figure div{display:flex;flex-wrap:wrap;gap:3px}
img{width:64px;height:64px;object-fit:contain;image-rendering:pixelated;background:#fff;border:1px solid var(--line)}
figcaption{font-size:.75rem;overflow-wrap:anywhere}
.paths{max-height:16rem;overflow:auto;margin:.2rem 0 1rem;padding-left:1.2rem;font-size:.85rem;overflow-wrap:anywhere}
"""
PARTS = (("train", "train"), ("select", "select"), ("held", "held-out"))


def page(report: CheckReport) -> str:
    """The page as text."""
    where = places(report.dataset)
    parts = "".join(
        f'<span><i style="background:var(--{style})"></i>{count:,} {name}</span>'
        for (style, name), count in zip(PARTS, report.dataset.counts().values(), strict=True)
        if count
    )
    charts = [("Images by class", class_chart(report.classes))]
    if len({*report.sizes}) > 1:
        charts.append(("Short side of the images, in pixels", side_chart(report.sizes)))
    drawn = "".join(f"<section><h2>{text(title)}</h2>{chart}</section>" for title, chart in charts)
    found = "".join(finding_block(report, finding, where) for finding in report.findings)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{text(report.data)}: {text(report.verdict)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{text(report.data)}</h1><p><strong>{text(report.verdict)}</strong></p>"
        f'<p>{text(report.understood)}</p><p class="soft">In training: {text(report.size)}.</p>'
        f'<p class="key">{parts}</p><div class="charts">{drawn}</div>'
        f"<h2>Findings</h2>{found or '<p>None.</p>'}</main></body></html>\n"
    )


def finding_block(report: CheckReport, finding: Finding, where: Sequence[str]) -> str:
    """One finding, which opens and closes; those that are no notes are open."""
    terms = (("What train does", finding.train), ("What mends it", finding.remedy))
    facts = "".join(f"<dt>{name}</dt><dd>{text(value)}</dd>" for name, value in terms if value)
    shown = len(finding.pictures)  # these have their paths as captions
    captions = [f"{path} ({caption})" for path, caption in zip(finding.where, finding.captions, strict=False)]
    pictures = "".join(
        f"<li>{figure(report, group, caption, where)}</li>"
        for group, caption in zip(finding.pictures, captions or finding.where, strict=False)
    )
    listed = "".join(f"<li>{text(path)}</li>" for path in finding.where[shown : shown + LISTED])
    if len(finding.where) > shown + LISTED:
        listed += f"<li>and {len(finding.where) - shown - LISTED:,} more</li>"
    return (
        f'<details class="{finding.severity}"{" open" * (finding.severity != "note")}><summary>'
        f"<b>{finding.severity}</b>{text(finding.text)} <code>{finding.code}</code></summary>"
        + (f"<dl>{facts}</dl>" if facts else "")
        + (f'<ul class="pictures">{pictures}</ul>' if pictures else "")
        + (f'<ul class="paths" tabindex="0" aria-label="paths">{listed}</ul>' if listed else "")
        + "</details>"
    )


def figure(report: CheckReport, group: Sequence[int], caption: str, where: Sequence[str]) -> str:
    """The images of a group beside each other, as `train` sees them."""
    names, pixels = [brief(where[at]) for at in group], report.dataset.images
    images = "".join(
        f'<img src="data:image/png;base64,{png_text(pixels[at])}" alt="{text(name)}" title="{text(name)}">'
        for at, name in zip(group, names, strict=True)
    )
    return f"<figure><div>{images}</div><figcaption>{text(brief(caption))}</figcaption></figure>"


def class_chart(classes: Sequence[tuple[str, int, int, int]]) -> str:
    """A bar for each class, divided into its parts."""
    most = max(sum(counts) for _, *counts in classes)
    shown, marks = classes[:BARS], []
    for row, (name, *counts) in enumerate(shown):
        y, x = row * ROW, float(NAMES)
        short = printable(name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…")
        marks.append(f'<text x="{NAMES - 8}" y="{y + 14}" text-anchor="end">{escape(short)}</text>')
        for (style, _), count in zip(PARTS, counts, strict=True):
            width = (WIDTH - NAMES - NUMBERS) * count / most
            marks.append(
                f'<rect class="{style}" x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="{ROW - 8}"></rect>'
            )
            x += width
        marks.append(f'<text class="axis" x="{x + 6:.1f}" y="{y + 14}">{sum(counts):,}</text>')
    if len(classes) > BARS:
        marks.append(f'<text x="0" y="{len(shown) * ROW + 14}">and {len(classes) - BARS:,} more classes</text>')
    label = f"Images of each of {counted(len(classes), 'class')}"
    return chart("".join(marks), (len(shown) + (len(classes) > BARS)) * ROW, label)


def side_chart(sizes: Sequence[tuple[int, int]]) -> str:
    """A histogram of the short sides."""
    short = np.array([min(size) for size in sizes])
    counts, _ = np.histogram(short, BINS, (short.min(), short.max() + 1))
    step, height = WIDTH / BINS, 120
    bars = "".join(
        f'<rect class="train" x="{at * step:.1f}" y="{height * (1 - count / counts.max()):.1f}" '
        f'width="{step - 2:.1f}" height="{height * count / counts.max():.1f}"></rect>'
        for at, count in enumerate(counts)
    )
    low = f'<text class="axis" x="0" y="{height + 16}">{short.min():,}</text>'
    high = f'<text class="axis" x="{WIDTH}" y="{height + 16}" text-anchor="end">{short.max():,}</text>'
    return chart(bars + low + high, height + 22, "Histogram of the short sides of the images")


def chart(marks: str, height: int, label: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{text(label)}">{marks}</svg>'
