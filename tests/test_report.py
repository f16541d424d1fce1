"""The report of a run: what the page says, what it never shows, its size, and that it never ends a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import SMALL
from ptarmigan import Dataset, report, train
from ptarmigan.core.files import load_header, save_json
from ptarmigan.core.log import Metrics
from ptarmigan.diagnosis.findings import Finding
from ptarmigan.diagnosis.story import Event
from ptarmigan.sharing import film
from ptarmigan.sharing.report import page, remedy_html, story_section, table_html
from support import call, raises

HOSTILE = "<script>alert(1)</script>"
MEAN = {"mean": 0.5, "low": 0.4, "high": 0.6}


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a class whose name is markup."""
    with np.load(shapes) as stored:
        data = Dataset.from_arrays(stored["arr_0"], stored["arr_1"], [HOSTILE, "down", "blot"])
    return train(data, out=tmp_path_factory.mktemp("runs") / "run<1>", **SMALL)


def shown(html: str) -> str:
    """The words of a page, without its styles and scripts."""
    return re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", html, flags=re.DOTALL)


def test_training_writes_a_page_of_the_whole_run(run: Path) -> None:
    html = (run / "report.html").read_text()
    words = shown(html)
    for fact in (
        "run&lt;1&gt;",
        "48 images seen",
        "finished",
        "90 train",
        "adversarial loss",
        "--config",
        "latent_dim",
    ):
        assert fact in words, fact
    assert 'src="http' not in html
    assert html == page(run)


def test_a_name_is_never_markup(run: Path) -> None:
    html = page(run)
    assert html.count("<script") == 3  # the template's own
    assert "run<1>" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_only_generated_images_are_shown(run: Path) -> None:
    (run / "private").mkdir()
    Image.new("L", (16, 16)).save(run / "private" / "copies.png")
    assert page(run).count("data:image") == len(list((run / "samples").glob("0*.png")))
    assert page(run) == (run / "report.html").read_text()
    shown_privately = report(run, private=True)
    assert shown_privately == run / "private" / "report.html"
    assert shown_privately.read_text().count("data:image") == page(run).count("data:image") + 1


def test_findings_are_told_with_their_evidence_and_remedy(run: Path, tmp_path: Path) -> None:
    assert "There are no findings" in page(run)
    assert "Not known without scored samples: collapse" in shown(page(run))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((run / "config.json").read_bytes())
    assert "Nothing is logged yet" in page(broken)
    metrics = Metrics(broken / "metrics.jsonl")
    for at in range(8, 4000, 80):
        metrics.write(at, d_adv=1e-4, g_adv=9.0, clock=at / 100)
    assert "in 39s, not finished" in shown(page(broken))
    metrics.write(4000, clock=40.0, findings=["d-too-strong"], select_kid=1.5, select_kid_error=0.25, colour_gap=0.3)
    html = page(broken)
    for fact in (
        "d-too-strong: D is too strong",
        "since ",
        "--d-lr",
        "KID 1.5 ± 0.5",
        "in 40s until the last snapshot",
    ):
        assert fact in shown(html), fact
    assert "verdict error" in html
    assert "Not known" not in html
    assert "<code>ptarmigan train" in html
    assert remedy_html("train <longer>") == "train &lt;longer&gt;"


def test_what_another_finding_explains_has_no_remedy_of_its_own() -> None:
    effect = Event(Finding("d-too-weak", "error", "weak", "above 1", "d_adv", "--d-lr 0.08"), 8, 16)
    cause = Event(Finding("diverged", "error", "large", "above 10", "d_adv", "--d-lr 0.002"), 8, explained=[effect])
    html = story_section([cause, effect], {16: {"findings": []}}, judged=True)
    assert "--d-lr 0.002" in html
    assert "0.08" not in html
    assert "0.08" in story_section([effect], {16: {"findings": []}}, judged=True)


def test_the_scores_are_shown_with_their_intervals_and_the_worst_class(run: Path) -> None:
    assert "Not scored yet" in page(run)
    columns = dict.fromkeys(("held_out", "train", "floor", "excess"), MEAN)
    of_class = {"held_out_images": 3, "train_images": 30}
    report: dict[str, Any] = {
        "verdict": "Weak: down.", "figures": {"kid": columns}, "notes": [],
        "classes": {
            "down": {**of_class, "distance": MEAN},
            HOSTILE: {**of_class, "distance": {"mean": 1.5, "low": 1.4, "high": 1.6}},
        },
        "copies": {
            "authenticity": MEAN, "authenticity_held_out": 0.5, "distance_ratio": MEAN, "closer_than_held_out": MEAN,
        },
        "protocol": {
            "frechet_is_called": "FD", "extractor": "x", "weights_sha256": "0" * 64, "input": "x", "images_a_set": 1,
            "sets": 1, "held_out_images": 1, "train_images": 1, "data_fingerprint": "x", "images_seen": 48,
            "seeds": [0],
        },
    }  # fmt: skip
    sha256 = load_header(run / "generator" / "model.safetensors").meta["sha256"]
    scores = run / "generator" / "scores.json"
    save_json(scores, {"generator": sha256, "reports": {"Projection": report}})
    words = shown(page(run))
    for fact in ("Weak: down.", "Worst class: &lt;script&gt;", "0.50±0.10"):
        assert fact in words, fact
    scores.write_text("{}")
    assert "scores.json is damaged" in shown(page(run))
    scores.unlink()


def test_a_long_table_of_classes_opens_by_a_click() -> None:
    few, many = ([["class", "images"], *([f"c{number}", "9"] for number in range(count))] for count in (20, 21))
    assert "<details>" not in table_html(few)
    assert "<summary>21 classes" in table_html(many)


def test_a_film_of_many_large_grids_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film, "MOST_BYTES", 5000)
    (tmp_path / "samples").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (128, 96, 4), np.uint8)
    for number in range(1, 101):
        Image.fromarray(noise if number % 2 else noise[:8, :8]).save(tmp_path / "samples" / f"{number:09d}.png")
    (tmp_path / "samples" / "000000101.png").write_bytes(b"torn")
    shown = film.film(tmp_path)
    assert [*shown.frames] == list(range(1, 101, 8))
    assert shown.left_out == 101 - 14
    for frame in shown.frames.values():
        assert len(frame.content) <= 5000
        assert frame.size == (96, 128)
        assert frame.scale < 1
    assert film.MOST_FRAMES * film.MOST_BYTES * 4 / 3 < 4.1e6


def test_a_report_that_cannot_be_written_never_ends_a_run(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train(shapes, out=out, **SMALL)
    (out / "report.html").unlink()
    (out / "report.html").mkdir()
    (out / "report.html" / "mine").touch()
    assert train(shapes, out=out, **{**SMALL, "images": "96"}) == out
    assert "not written: the report" in capsys.readouterr().out


def test_the_command_writes_the_report_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "report.html").unlink()
    assert call(monkeypatch, capsys, "report", run) == (0, f"{run / 'report.html'}\n", "")
    assert report(run, out=tmp_path / "x.html").read_text() == (run / "report.html").read_text()
    with raises("file-exists", tmp_path / "x.html"):
        report(run, out=tmp_path / "x.html")
    with raises("value-invalid", "x.pdf"):
        report(run, out=tmp_path / "x.pdf")
    with raises("not-a-run", tmp_path):
        report(tmp_path)


def test_a_grid_is_a_png_of_the_run_itself(tmp_path: Path) -> None:
    samples = tmp_path / "run" / "samples"
    samples.mkdir(parents=True)
    picture = Image.new("RGB", (64, 64), "red")
    picture.save(tmp_path / "other.png")
    (samples / "000000008.png").symlink_to(tmp_path / "other.png")
    picture.save(samples / "000000016.png", "BMP")
    picture.save(samples / "000000024.png")
    assert [*film.film(tmp_path / "run").frames] == [24]


def test_what_is_transparent_is_shown_on_white() -> None:
    assert film.on_white(Image.new("RGBA", (1, 1), (9, 9, 9, 0))).getpixel((0, 0)) == (255, 255, 255)
