"""`plot`: the log of a run as an SVG, drawn from its last attempt."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from conftest import SMALL
from ptarmigan import plot, train
from ptarmigan.core.log import Metrics, read_rows
from ptarmigan.sharing.charts import POINTS, curves_of
from support import call, raises

SVG = "{http://www.w3.org/2000/svg}"


def write(log: Path, *lines: dict[str, Any]) -> None:
    """Append lines as another attempt."""
    metrics = Metrics(log)
    for line in lines:
        metrics.write(**line)


def test_a_run_is_drawn_with_a_panel_for_each_kind_of_term(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(shapes, out=tmp_path / "run<1>", **SMALL)
    monkeypatch.chdir(tmp_path)
    status, out, _ = call(monkeypatch, capsys, "plot", run)
    assert (status, out.splitlines()[-1]) == (0, "run<1>.svg")
    root = ElementTree.parse(tmp_path / "run<1>.svg").getroot()
    texts = [text.text for text in root.iter(f"{SVG}text")]
    for text in ("run<1>", "adversarial loss", "d_adv", "g_adv", "gradient penalties", "norm of the gradient"):
        assert text in texts
    height = float(root.attrib["viewBox"].split()[3])
    for line in root.iter(f"{SVG}polyline"):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= 840
            assert 0 <= y <= height
    with raises("file-exists", "run<1>.svg"):
        plot(run)


def test_the_last_attempt_is_drawn(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    write(log, *({"images_seen": at, "d_adv": 1.0} for at in (8, 16, 24, 32)))
    write(log, {"images_seen": 16, "back_from": 32}, {"images_seen": 20, "d_adv": 2.0}, {"images_seen": 28, "d_adv": 3})
    assert list(read_rows(log)) == [8, 16, 20, 28]
    assert curves_of(read_rows(log))["adversarial loss"]["d_adv"] == ([8, 16, 20, 28], [1, 1, 2, 3])


def test_scores_have_their_noise_and_long_curves_few_points(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    write(
        log,
        *({"images_seen": 8 * at, "g_lecam": float(at % 2), "d_adv": float("nan")} for at in range(1, 2 * POINTS + 1)),
        *({"images_seen": 8 * at, "select_kid": 0.5, "select_kid_error": 0.1} for at in (4900, 5000)),
    )
    panels = curves_of(read_rows(log))
    assert panels["lecam"]["g_lecam"][1] == [0.5] * POINTS
    assert "adversarial loss" not in panels
    assert [values for _, values in panels["live score"].values()] == [
        [0.5, 0.5], pytest.approx([0.3, 0.3]), pytest.approx([0.7, 0.7]),
    ]  # fmt: skip
    assert plot(log.parent, out=tmp_path / "x.svg").read_text().count("±2 standard errors") == 1


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with raises("not-a-run", tmp_path):
        plot(tmp_path, out=tmp_path / "x.svg")
    write(tmp_path / "metrics.jsonl", {"images_seen": 8, "d_adv": 1.0})
    with raises("log-empty", tmp_path / "metrics.jsonl"):
        plot(tmp_path, out=tmp_path / "x.svg")
    write(tmp_path / "metrics.jsonl", {"images_seen": 16, "d_adv": 1.0})
    with raises("value-invalid", tmp_path / "x.png"):
        plot(tmp_path, out=tmp_path / "x.png")
    assert plot(tmp_path, out=tmp_path / "x.svg").exists()


def test_values_that_no_run_logs_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", *({"images_seen": at, "d_adv": 1.0} for at in (8, 16)))
    write(
        tmp_path / "metrics.jsonl",
        {"images_seen": 24, "d_adv": 10**400, "g_adv": float("inf")},
        {"images_seen": 32, "select_kid": 1.0, "select_kid_error": "none"},  # a damaged line
        {"images_seen": 40, "select_kid": 1.0, "d_adv": -1e308},
    )
    assert curves_of(read_rows(tmp_path / "metrics.jsonl")) == {"adversarial loss": {"d_adv": ([8, 16], [1, 1])}}
