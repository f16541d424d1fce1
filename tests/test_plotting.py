"""`ptarmigan losses --plot`: the curves are the loss functions, and the picture shows the curves."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ptarmigan.config import resolve
from ptarmigan.config.recipes import RECIPES
from ptarmigan.config.sections import LOSSES
from ptarmigan.handbook.entries import explain
from ptarmigan.handbook.figures import (
    CLASS_PLAYERS,
    CLASSES,
    COLOURS,
    DARK,
    NAMES,
    OTHERS,
    Line,
    Text,
    nice_ticks,
    objective_named,
    panel,
    plot,
    rows,
    split_d,
    stack_rows,
    svg_elements,
)
from support import raises

X = torch.tensor([-5.3, -1.7, -0.6, 0.2, 0.9, 2.4, 4.8], dtype=torch.float64)
COSINES = torch.tensor([-0.9, -0.2, 0.4, 0.97, 0.99], dtype=torch.float64)


def s(x: torch.Tensor) -> torch.Tensor:
    return torch.log1p(x.exp())


ONE = torch.ones_like(X)
EXPECTED = {  # (value, d/d own logit) of D on real, D on fake, G on fake, written down by hand
    "minimax": [(s(-X), -(-X).sigmoid()), (s(X), X.sigmoid()), (-s(X), -X.sigmoid())],
    "non_saturating": [(s(-X), -(-X).sigmoid()), (s(X), X.sigmoid()), (s(-X), -(-X).sigmoid())],
    "smoothing": [
        (0.9 * s(-X) + 0.1 * s(X), X.sigmoid() - 0.9), (s(X), X.sigmoid()), (s(-X), -(-X).sigmoid()),
    ],
    "least_squares": [((X - 1) ** 2 / 2, X - 1), (X**2 / 2, X), ((X - 1) ** 2 / 2, X - 1)],
    "least_squares_pearson": [((X - 1) ** 2 / 2, X - 1), ((X + 1) ** 2 / 2, X + 1), (X**2 / 2, X)],
    "hinge": [((1 - X).clamp(min=0), -(X < 1).double()), ((1 + X).clamp(min=0), (X > -1).double()), (-X, -ONE)],
    "wasserstein": [(-X, -ONE), (X, ONE), (-X, -ONE)],
    "relativistic": [(s(-X), -(-X).sigmoid()), (s(-X), (-X).sigmoid()), (s(X), -X.sigmoid())],
}  # fmt: skip
MARGIN = (s(math.log(CLASSES - 1) - X), -(math.log(CLASSES - 1) - X).sigmoid())  # -log of the softmax's share
TWICE = math.log(2 * CLASSES - 1)
EXPECTED |= {
    "auxiliary_classifier": [MARGIN],
    "twin_classifier": [
        MARGIN, (MARGIN[0] - math.log(CLASSES), MARGIN[1]), (math.log(CLASSES) - MARGIN[0], -MARGIN[1]),
    ],
    "discriminative_classifier": [
        (s(TWICE - X), -(TWICE - X).sigmoid()), (s(X - TWICE) + TWICE, (X - TWICE).sigmoid()), (-X, -ONE),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_the_curves_are_the_losses_and_their_slopes(name: str) -> None:
    (row,) = rows(name)
    assert len(row.players) == len(EXPECTED[name])
    for player, (value, slope) in zip(row.players, EXPECTED[name], strict=True):
        torch.testing.assert_close(player.value(X), value, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(player.slope(X), slope, rtol=1e-12, atol=1e-12)


def test_the_curve_of_reacgan() -> None:
    (row,) = rows("reacgan")
    a = (COSINES - 0.98).clamp(max=0) / 0.5
    torch.testing.assert_close(row.players[0].value(COSINES), torch.log(a.exp() + OTHERS) - a)
    share = a.exp() / (a.exp() + OTHERS)
    torch.testing.assert_close(row.players[0].slope(COSINES), torch.where(COSINES < 0.98, (share - 1) / 0.5, 0.0))


@pytest.mark.parametrize("name", [name for name in (*LOSSES, "smoothing") if name != "relativistic"])
def test_ds_loss_is_the_sum_of_its_halves(name: str) -> None:
    found = objective_named(name)
    a, b = split_d(found)
    torch.testing.assert_close(a(X) + b(X.flip(0)), found.d(real=X, fake=X.flip(0)), rtol=1e-12, atol=1e-12)
    least = b(torch.linspace(-30, 30, 601, dtype=torch.float64)).min().item()
    assert least == (-30 if name == "wasserstein" else pytest.approx(0, abs=1e-12))  # a fake at its best costs nothing


def test_saturation_is_in_the_picture() -> None:
    """At the left edge the slope of minimax is 0 and that of the non-saturating loss -1."""
    source, of_class = rows(None)
    left = torch.tensor([source.span[0]], dtype=torch.float64)
    by_label = {player.label: player.slope(left).item() for player in source.players}
    assert by_label["G on fake, minimax"] == pytest.approx(0, abs=0.01)
    assert by_label["G on fake, non-saturating"] == pytest.approx(-1, abs=0.01)
    assert of_class.title == rows("auxiliary_classifier")[0].title


def test_what_can_be_plotted() -> None:
    assert set(NAMES) == {*LOSSES, "smoothing", *CLASS_PLAYERS, *RECIPES}
    assert [row.title.split(",")[0] for row in rows("acgan")] == ["non_saturating", "auxiliary_classifier"]
    assert [row.title for row in rows("dcgan")] == ["non_saturating"]
    for recipe in RECIPES:
        assert rows(recipe)[0].title == resolve({"recipe": recipe}).loss.loss
    for name in ("projection", "r1", "hinj"):
        with raises("unknown-name", repr(name), "minimax"):
            rows(name)


def test_a_curve_lies_where_the_ticks_say() -> None:
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)
    drawing = panel((10, 20, 110, 220), "title", "axis", x, [("real", x**2 - 1)])
    ticks = {mark.text: mark for mark in drawing if isinstance(mark, Text)}
    (curve,) = (mark for mark in drawing if isinstance(mark, Line) and mark.style == "real")
    (zero_y,) = (m.points[0][1] for m in drawing if isinstance(m, Line) and m.style == "axis" and m.points[0][0] == 10)
    assert [point[0] for point in curve.points] == pytest.approx([10, 35, 60, 85, 110])
    assert curve.points[1][1] == pytest.approx(zero_y)  # x = -1: 0
    assert curve.points[0][1] == pytest.approx(ticks["3"].at[1] - 4)
    assert ticks["-2"].at[0] == 10
    assert 20 < curve.points[0][1] < curve.points[2][1] < 220  # upward is more


def test_thin_curves_are_drawn_on_thick_ones() -> None:
    """Where two players have the same loss, both curves are visible."""
    drawn = [m.style for m in stack_rows(rows("non_saturating"))[0] if isinstance(m, Line) and len(m.points) > 2]
    assert drawn == ["generator", "real", "fake"] * 2


def test_ticks_are_round_and_inside() -> None:
    assert nice_ticks(-6, 6, 6) == [-6, -4, -2, 0, 2, 4, 6]
    assert nice_ticks(-1.06, 1.06) == pytest.approx([-1, -0.5, 0, 0.5, 1])
    assert nice_ticks(0.01, 0.26) == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25])


@pytest.mark.parametrize("name", [None, *NAMES])
def test_an_svg_is_well_formed_and_holds_every_curve(name: str | None, tmp_path: Path) -> None:
    path = plot(name, tmp_path / "new" / "x.svg")
    root = ET.fromstring(path.read_text(encoding="utf-8"))
    lines = [node for node in root.iter() if node.tag.endswith("polyline")]
    curves = [line for line in lines if len(line.attrib["points"].split()) > 2]
    players = [player for row in rows(name) for player in row.players]
    assert len(curves) == sum(1 + player.has_value for player in players)
    texts = {node.text for node in root.iter() if node.tag.endswith("text")}
    assert {player.label for player in players} <= texts
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    for line in lines:
        for x, y in (map(float, point.split(",")) for point in line.attrib["points"].split()):
            assert 0 <= x <= width
            assert 0 <= y <= height
    style = next(node.text for node in root.iter() if node.tag.endswith("style")) or ""
    for used in {line.attrib["class"] for line in lines}:
        assert style.count(f".{used}{{stroke:") + style.count(f".{used},") >= 2 or used in ("axis", "grid")
    assert COLOURS.keys() == DARK.keys()
    assert "http" not in re.sub(r'xmlns="[^"]*"', "", path.read_text(encoding="utf-8"))


def test_text_is_escaped() -> None:
    assert svg_elements([Text("label", (1, 2), "middle", "a < b & c")]) == (
        '<text class="label" x="1" y="2" text-anchor="middle">a &lt; b &amp; c</text>'
    )


def test_explain_plots_and_never_overwrites(tmp_path: Path) -> None:
    out = tmp_path / "hinge.svg"
    assert explain("hinge", plot=out) == str(out)
    before = out.read_bytes()
    with raises("file-exists", "plot", out):
        explain("hinge", plot=out)
    assert out.read_bytes() == before
    for name in ("x.png", "x.jpg", "x"):
        with raises("value-invalid", tmp_path / name, "x.svg"):
            explain("hinge", plot=tmp_path / name)
    with raises("unknown-name", "'hinj'", "'hinge'"):
        explain("hinj", plot=tmp_path / "x.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["hinge.svg"]


def test_the_class_terms_use_cross_entropy_over_all_classes() -> None:
    """The curve at 0 is the loss of a head whose logits are all 0."""
    zero = torch.zeros(1, dtype=torch.float64)
    known = F.cross_entropy(torch.zeros(1, CLASSES, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)).item()
    assert rows("auxiliary_classifier")[0].players[0].value(zero).item() == pytest.approx(known)
