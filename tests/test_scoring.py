"""`score`, from a run or a folder to a report, and the live score by which a run keeps its best generator.

All but one test use a random projection as the extractor.
"""

from __future__ import annotations

import html
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ptarmigan.commands.score as score_module
import ptarmigan.commands.score_plan as score_plan
import ptarmigan.commands.score_sources as score_sources
import ptarmigan.evaluation.features.cache as cache
import ptarmigan.training.outputs as outputs
import ptarmigan.training.snapshot as snapshot
from conftest import SMALL
from ptarmigan import info, load, sample, score, train
from ptarmigan.config import Data
from ptarmigan.core import console
from ptarmigan.core.files import load_json
from ptarmigan.core.log import read_log
from ptarmigan.core.tensor_files import load_tensors, save_tensors
from ptarmigan.data import open_dataset
from ptarmigan.evaluation.features import EXTRACTORS
from ptarmigan.evaluation.metrics import JackknifedKid
from ptarmigan.evaluation.report import Score, format_interval, markdown, print_report, score_rows, sentences
from ptarmigan.game.progress import Progress
from ptarmigan.training.checkpoint import newest
from ptarmigan.training.messages import finish
from ptarmigan.training.signals import Stopped
from support import interrupt_at, raises, random_projection

COUNTS = {"sky": 1200, "sea": 800, "sand": 500, "rock": 300, "moss": 140, "ice": 60}
SPLIT: dict[str, Any] = {**SMALL, "split": "80/10/10", "live_images": 12}
DIM = 160
PRETRAINED = EXTRACTORS["efficientnet-lite0"]


@pytest.fixture(scope="module", autouse=True)
def projection() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXTRACTORS, "efficientnet-lite0", lambda _: random_projection(DIM))
        patch.setattr("ptarmigan.evaluation.features.classifier.SAMPLES_SEEN", (10_000, 10_000))
        yield


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,000 colour images of 16x16 in 6 classes of uneven size, the smallest of 60: stripes of a class's own colour."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(6), list(COUNTS.values())))
    colours = np.array([(90, 150, 230), (20, 60, 140), (220, 190, 120), (110, 100, 95), (60, 120, 40), (215, 235, 245)])
    waves = np.sin(np.arange(16) * rng.uniform(0.3, 1.5, (3000, 1)) + rng.uniform(0, 6, (3000, 1)))
    images = colours[labels][:, None, None] + 40 * waves[:, :, None, None] + rng.normal(0, 8, (3000, 16, 16, 3))
    path = tmp_path_factory.mktemp("views") / "views.npz"
    images = images.clip(0, 255).astype(np.uint8)
    np.savez(path, arr_0=images, arr_1=labels, class_names=np.array(list(COUNTS)))
    return path


@pytest.fixture(scope="module")
def run(views: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train(views, out=tmp_path_factory.mktemp("runs") / "run", **{**SPLIT, "split": "90/5/5", "images": "160"})


@pytest.fixture(scope="module")
def tiny(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 90 images: 72 train it, 9 are held out."""
    torch.set_num_threads(1)
    return train(shapes, out=tmp_path_factory.mktemp("runs") / "tiny", **SPLIT)


@pytest.fixture
def few_of_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_sources, "MIN_PER_CLASS", 4)


@pytest.fixture(scope="module")
def report(run: Path) -> Score:
    return score(run, n=150, seeds=2, device="cpu")


def test_a_small_uneven_set_has_every_score_and_its_notes(
    report: Score, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.protocol["images_a_set"] == 150
    assert report.protocol["train_images"] == 2700
    assert report.protocol["held_out_images"] == 150
    assert report.protocol["generator_sha256"] == load(run).sha256
    assert set(report.classes) == set(COUNTS)
    ice = report.classes["ice"]
    assert (ice["held_out_images"], ice["train_images"]) == (3, 54)
    assert all(entry["call"] != "unknown" for entry in report.classes.values())  # 54 and more training images
    assert all(entry["recognised"]["real"]["mean"] > 0.7 for entry in report.classes.values())
    assert report.verdict.endswith("No copies found.")
    assert report.figures["kid"]["excess"]["low"] > 0.05  # 20 steps have taught it little
    assert abs(report.figures["kid"]["floor"]["mean"]) < 0.02
    assert report.accuracy["held_out"] > 0.9
    (few_images,) = (note for note in report.notes if "Fréchet" in note)
    assert all(number in few_images for number in (f"{DIM} features", f"{DIM + 1} images", "150 generated"))
    (few_held_out,) = (note for note in report.notes if "moss (7)" in note)
    assert "ice (3)" in few_held_out
    assert not any(name in few_held_out for name in ("sky", "sea", "sand", "rock"))
    assert any("told_apart" in entry for entry in report.classes.values())
    print_report(report)
    out = capsys.readouterr().out
    assert out.startswith(report.verdict)
    for text in ("your samples", "real images", "gap", "KID ↓", "ice", "2 sets (seeds 0 to 1) of 150 images"):
        assert text in out
    assert "diversity" not in out
    tables = out.removeprefix(report.verdict).split("\nrecognised:")[0]
    assert max(map(len, tables.splitlines())) <= 80
    print_report(report, details=True)
    assert "diversity" in capsys.readouterr().out
    assert "against training" in score_rows(report.record(), details=True)[0]
    assert report.verdict in str(report)
    shown = report._repr_html_()
    assert shown.count("<table>") == shown.count("</table>") == 2
    assert report.verdict in shown


def test_the_pretrained_extractor_goes_the_same_way(
    few_of_a_class: None, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXTRACTORS, "efficientnet-lite0", PRETRAINED)
    monkeypatch.setattr(score_plan, "images_per_second", lambda *_: 100.0)
    found = score(tiny, n=20, seeds=2, device="cpu", out=tmp_path / "report")
    assert found.protocol["extractor"] == "EfficientNet-Lite0"
    kid = found.figures["kid"]
    assert kid["held_out"]["mean"] > kid["floor"]["high"]


def test_names_say_what_they_are_not(
    few_of_a_class: None, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fid = replace(random_projection(6), score_name="FID")
    monkeypatch.setitem(EXTRACTORS, "inception", lambda _: fid)
    found = score(tiny, n=10, seeds=2, extractor="inception", cas=True, device="cpu", out=tmp_path / "report")
    assert found.protocol["frechet_is_called"] == "FID-9"  # the images of the smaller side
    assert "FID-9 ↓" in str(found)
    record = found.record()
    record["accuracy"] = {"held_out": 0.5, "cas": dict.fromkeys(("generated", "train"), found.variety)}
    assert any(line.startswith("CAS-Inception (") for line in sentences(record))
    record["protocol"] |= {"frechet_is_called": "FD-EffNetLite0"}
    assert any(line.startswith("CAS-EffNetLite0 (") for line in sentences(record))


def test_by_default_the_floors_sets_share_no_image(few_of_a_class: None, tiny: Path, tmp_path: Path) -> None:
    found = score(tiny, seeds=3, device="cpu", out=tmp_path / "report")
    assert found.protocol["images_a_set"] == found.protocol["train_images"] // 3
    assert not any("overlap" in note for note in found.notes)


def test_a_report_lies_beside_its_generator_and_in_its_card_and_no_training_image_does(
    report: Score, run: Path
) -> None:
    kept = load(run).scores[report.protocol["extractor"]]
    assert kept["figures"] == report.figures
    assert markdown(kept) in (run / "generator" / "README.md").read_text(encoding="utf-8")
    assert "KID" in info(run)["scores"][0]
    assert report.verdict in html.unescape((run / "report.html").read_text(encoding="utf-8"))
    assert sorted(path.name for path in (run / "generator").iterdir()) == [
        "README.md", "config.json", "model.safetensors", "scores.json",
    ]  # fmt: skip
    assert str(run.parent) not in (run / "generator" / "scores.json").read_text(encoding="utf-8")
    with Image.open(run / "private" / "copies.png") as picture:
        pairs = len(report.copies["suspects"])
        assert picture.size == (8 * 18 + 2, -(-pairs // 4) * 18 + 2)


def test_scores_of_other_weights_or_damaged_ones_are_not_shown(report: Score, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "generator", tmp_path / "one")
    assert load(tmp_path / "one").scores
    path = tmp_path / "one" / "scores.json"
    path.write_text(path.read_text().replace("0.", "1.", 1))
    assert not load(tmp_path / "one").scores
    shutil.copytree(run / "best", tmp_path / "other", ignore=shutil.ignore_patterns("scores.json"))
    shutil.copy(run / "generator" / "scores.json", tmp_path / "other")
    other = load(tmp_path / "other")
    assert bool(other.scores) == (other.sha256 == load(run).sha256)


def test_features_of_real_images_are_taken_from_the_cache_unless_they_are_damaged(
    few_of_a_class: None, tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[int] = []
    extract = cache.extract_in_blocks
    for module in (cache, score_module):
        monkeypatch.setattr(
            module,
            "extract_in_blocks",
            lambda extractor, count, *rest: (seen.append(count), extract(extractor, count, *rest))[1],
        )
    monkeypatch.setenv("PTARMIGAN_CACHE", str(tmp_path / "cache"))
    first = score(tiny, n=10, seeds=2, device="cpu", out=tmp_path / "a")
    train, held = (first.protocol[f"{part}_images"] for part in ("train", "held_out"))
    assert seen == [train, held, 12, 12, 12, 12, train]  # 4 of each of the 3 classes, of which 10 count for all
    assert first.protocol["images_a_set"] == 10
    seen.clear()
    again = score(tiny, n=10, seeds=2, device="cpu", out=tmp_path / "b")
    assert seen == 4 * [12]
    smallest = min((tmp_path / "cache" / "features").iterdir(), key=lambda path: path.stat().st_size)
    smallest.write_bytes(smallest.read_bytes()[:-1])
    seen.clear()
    mended = score(tiny, n=10, seeds=2, device="cpu", out=tmp_path / "c")
    assert seen == [held, *4 * [12]]
    for found in (again, mended):
        assert found.figures["kid"]["train"] == pytest.approx(first.figures["kid"]["train"], abs=1e-6)
    assert load_json(tmp_path / "c" / "scores.json")["figures"] == first.figures
    assert (tmp_path / "c" / "private" / "copies.png").is_file()
    assert not load(tiny).scores


def test_images_that_exist_are_scored_by_the_names_of_their_folders(views: Path, tmp_path: Path) -> None:
    with np.load(views) as arrays:
        images, labels, names = arrays["arr_0"], arrays["arr_1"], arrays["class_names"]
    for index in range(240):
        path = tmp_path / "made" / str(names[labels[index]]) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[index]).save(path)
    found = score(tmp_path / "made", views, seeds=2, device="cpu", out=tmp_path / "report")
    assert found.protocol["images_a_set"] == 120
    assert "seeds" not in found.protocol
    assert found.accuracy["generated"]["mean"] > 0.9
    assert abs(found.figures["kid"]["held_out"]["mean"]) < 0.02
    assert found.copies["authenticity"]["mean"] < found.copies["authenticity_held_out"] - 0.3  # they are real
    np.savez(tmp_path / "swapped.npz", arr_0=images[:240], arr_1=(labels[:240] + 1) % 6, class_names=names)
    swapped = score(tmp_path / "swapped.npz", views, seeds=2, device="cpu")
    assert swapped.accuracy["generated"]["mean"] < 0.1
    np.savez(tmp_path / "nameless.npz", arr_0=images[:240])
    nameless = score(tmp_path / "nameless.npz", views, seeds=2, device="cpu")
    assert nameless.classes is None
    assert any("nameless.npz" in note for note in nameless.notes)


def test_the_classifiers_own_features_allow_a_frechet_distance_of_few(run: Path, tmp_path: Path) -> None:
    found = score(run, n=150, seeds=2, extractor="classifier", device="cpu", out=tmp_path / "report")
    assert found.protocol["frechet_is_called"] == "FD-classifier"
    assert found.figures["frechet"]["excess"]["low"] > 0


def test_other_images_than_it_was_trained_on_are_said(
    few_of_a_class: None, shapes: Path, tiny: Path, tmp_path: Path
) -> None:
    with np.load(shapes) as arrays:
        changed = {**arrays, "arr_0": arrays["arr_0"].copy()}
        changed["arr_0"][::9] += 1
        np.savez(tmp_path / "changed.npz", **changed)
    found = score(tiny, tmp_path / "changed.npz", n=10, seeds=2, device="cpu", out=tmp_path / "report")
    assert any("10 of 90 images" in note for note in found.notes)
    shutil.copytree(tiny / "generator", tmp_path / "alone")
    for data, said in ((tmp_path / "changed.npz", True), (shapes, False)):
        found = score(tmp_path / "alone", data, n=10, seeds=2, device="cpu", out=tmp_path / f"other {said}")
        assert any("trained on" in note for note in found.notes) is said


def test_the_split_of_a_run_is_read_and_not_made_anew_in_whatever_order_its_images_come(
    few_of_a_class: None, shapes: Path, tiny: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny, tmp_path / "run")
    split, _ = load_tensors(tiny / "split.safetensors")
    held = torch.nonzero(split["part"] == 2)[:, 0]
    split["part"][held[:2]] = 0
    save_tensors(tmp_path / "run" / "split.safetensors", split, {})
    with np.load(shapes) as arrays:
        np.savez(
            tmp_path / "turned.npz",
            arr_0=arrays["arr_0"][::-1], arr_1=arrays["arr_1"][::-1], class_names=arrays["class_names"],
        )  # fmt: skip
    for place, data in enumerate((None, tmp_path / "turned.npz")):
        report = tmp_path / f"report{place}"
        found = score(tmp_path / "run", data, n=10, seeds=2, device="cpu", out=report)
        assert found.protocol["held_out_images"] == len(held) - 2
        assert not any("of 90 images" in note for note in found.notes)
    (tmp_path / "run" / "split.safetensors").write_bytes(b"")
    with raises("file-damaged", "split.safetensors", "ptarmigan train"):
        score(tmp_path / "run", n=10, seeds=2, device="cpu")


def test_a_generator_that_was_trained_on_meanwhile_gets_no_scores_of_other_weights(
    few_of_a_class: None, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny, tmp_path / "run")
    weights = tmp_path / "run" / "generator" / "model.safetensors"
    evaluate = score_module.evaluate

    def slowly(*arguments: Any) -> Any:
        tensors, meta = load_tensors(weights)
        del meta["sha256"]
        save_tensors(weights, tensors, {**meta, "images_seen": 1})
        return evaluate(*arguments)

    monkeypatch.setattr(score_module, "evaluate", slowly)
    found = score(tmp_path / "run", n=10, seeds=2, device="cpu")
    assert any(str(weights) in note for note in found.notes)
    assert not (weights.parent / "scores.json").exists()


def test_a_report_that_cannot_be_kept_is_still_given(few_of_a_class: None, tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "run")
    (tmp_path / "run" / "private").write_text("in the way")
    found = score(tmp_path / "run", n=10, seeds=2, device="cpu")
    assert any(str(tmp_path / "run" / "private") in note for note in found.notes)
    assert "kid" in found.figures


def test_training_images_do_not_enter_a_generator_folder(tiny: Path) -> None:
    out = tiny / "generator" / "more" / "report"
    with raises("value-invalid", out):
        score(tiny, out=out)
    assert not out.parent.exists()


def test_a_run_without_a_generator_is_no_folder_of_images(tiny: Path, shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "run", ignore=shutil.ignore_patterns("generator"))
    with raises("no-generator", tmp_path / "run"):
        score(tmp_path / "run", shapes)


def test_fewer_images_than_can_be_cut_into_sets_are_refused(views: Path, shapes: Path, tmp_path: Path) -> None:
    with np.load(shapes) as arrays:
        np.savez(tmp_path / "few.npz", arr_0=arrays["arr_0"][:9])
    with raises("too-few-images", "5 sets of 1 images", "at least 6", "--seeds"):
        score(tmp_path / "few.npz", shapes, device="cpu")
    with np.load(shapes) as arrays:
        np.savez(tmp_path / "one.npz", arr_0=arrays["arr_0"][:1])
    with raises("too-few-images", "5 sets of 0 images"):
        score(tmp_path / "one.npz", shapes, device="cpu")


def test_a_source_that_is_gone_is_named(few_of_a_class: None, shapes: Path, tmp_path: Path) -> None:
    shutil.copy(shapes, tmp_path / "mine.npz")
    run = train(tmp_path / "mine.npz", out=tmp_path / "run", **SPLIT)
    (tmp_path / "mine.npz").unlink()
    with raises("data-missing", run, tmp_path / "mine.npz"):
        score(run)
    score(run / "generator", shapes, n=10, seeds=2, device="cpu")
    assert (run / "private" / "copies.png").exists()


def test_a_run_without_its_record_is_said_to_lack_it(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    with raises("data-missing", tmp_path / "run" / "config.json"):
        score(tmp_path / "run")


def test_an_unconditional_generator_is_scored_over_all_classes(
    few_of_a_class: None, shapes: Path, tmp_path: Path
) -> None:
    fields = {**SPLIT, "recipe": "dcgan", "width": 4, "batch": 8, "balance": True}
    plain = train(shapes, out=tmp_path / "plain", **fields)
    found = score(plain, n=10, seeds=2, device="cpu")
    assert any("--balance" in note and "without classes" in note for note in found.notes)
    assert found.classes is None
    assert found.protocol["weights"] == "the last, no average"


@pytest.mark.parametrize(
    ("arguments", "code", "facts"),
    [
        ({"seeds": 1}, "value-out-of-range", ["seeds 1", "at least 2"]),
        ({"n": 3000}, "value-out-of-range", ["-n 3000", "6 to 2,700"]),
        ({"n": 5}, "value-out-of-range", ["-n 5", "6 to 2,700"]),
        ({"time": "1s", "n": 2000}, "time-too-short", ["1s", "100 images/s", "--time", "-n"]),
        ({"extractor": "efficientnet"}, "unknown-name", ["'efficientnet-lite0'"]),
        ({"extractor": "classifer"}, "unknown-name", ["'classifier'"]),
        ({"size": "32"}, "options-conflict", ["size 32", "16x16"]),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    run: Path, arguments: dict[str, Any], code: str, facts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_plan, "images_per_second", lambda *_: 100.0)
    with raises(code, *facts) as raised:
        score(run, device="cpu", **arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("time", "train", "sets"), [("90s", 2700, 3), ("60s", 1600, 3), ("33s", 150, 2)])
def test_less_time_means_fewer_training_images_and_then_fewer_sets(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, time: str, train: int, sets: int
) -> None:
    monkeypatch.setattr(score_plan, "images_per_second", lambda *_: 100.0)
    found = score(run, n=150, seeds=3, time=time, device="cpu", out=tmp_path / "report")
    assert (found.protocol["train_images"], found.protocol["sets"]) == (train, sets)
    assert any(f"{train:,} of 2,700" in note for note in found.notes) is (train < 2700)
    assert any("2 of 3 sets" in note for note in found.notes) is (sets == 2)


def test_what_cannot_be_compared_is_refused(run: Path, shapes: Path, views: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "generator", tmp_path / "generator")
    with raises("data-missing", tmp_path / "generator"):
        score(tmp_path / "generator")
    with raises("data-missing", views):
        score(views)
    with raises("path-not-found", tmp_path / "nowhere"):
        score(tmp_path / "nowhere", views)
    with raises("data-mismatch", "across, down, blot", "sky, sea"):
        score(run, shapes)
    with raises("file-exists", tmp_path, "--out"):
        score(run, out=tmp_path)
    whole = train(shapes, out=tmp_path / "whole", **SMALL)  # split none
    with raises("too-few-images", "90 and 0", "at least 6", "--split"):
        score(whole, device="cpu")


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (12.345, 0.5, "12.35±0.50"), (0.12345, 0.013, "0.123±0.013"), (-0.001, 0.05, "0.00±0.05"),
        (-0.0011, 0.0004, "-0.0011±0.0004"), (0.0, 0.0, "0±0"), (730.4541, 1e-9, "730.5±0"),
        (1.0, 3e-6, "1.000000±0.000003"),
    ],
)  # fmt: skip
def test_a_figure_has_the_digits_that_its_interval_is_worth(mean: float, half: float, text: str) -> None:
    assert format_interval({"mean": mean, "low": mean - half, "high": mean + half}) == text


# --- the live score ---------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MIN_SELECT", 5)


def live(run: Path) -> list[tuple[int, float]]:
    return [
        (line["images_seen"], line["select_kid"]) for line in read_log(run / "metrics.jsonl") if "select_kid" in line
    ]


def test_each_snapshot_is_scored_and_the_best_generator_kept(few: None, shapes: Path, tmp_path: Path) -> None:
    run = train(shapes, out=tmp_path / "run", **{**SPLIT, "snapshots": 6})
    scores = live(run)
    assert [images for images, _ in scores] == [8, 16, 24, 32, 40, 48]
    assert all(line["select_kid_error"] > 0 for line in read_log(run / "metrics.jsonl") if "select_kid" in line)
    best = load(run / "best")
    assert best.images_seen == newest(run)[0].progress.best_images
    assert best.selection == outputs.RULE
    assert load(run).selection == "the last"
    assert load(run).images_seen == 48
    assert outputs.RULE in (run / "best" / "config.json").read_text()
    assert len(sample(run / "best", n=2, out=tmp_path / "x.png").read_bytes()) > 0


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([1.0, 1.05, 1.08], 3),  # by chance the first is the lowest
        ([2.0, 1.0, 1.5, 1.6], 2),  # worse beyond noise since the second
        ([1.0, 1.13, 1.26], 2),  # a slow decline is measured from the lowest, not from the best
        ([1.0, 2.0, 1.01], 3),
    ],
)
def test_the_best_is_the_last_that_is_not_worse_than_the_lowest_beyond_noise(scores: list[float], best: int) -> None:
    progress, noise = Progress(), random.Random(0)
    for number, kid in enumerate(scores, 1):
        # the difference of two such scores has a standard error of about .06
        left_out = [kid + noise.gauss(0, 0.01) for _ in range(20)]
        snapshot.choose_best(progress, number, JackknifedKid(kid, left_out))
    assert progress.best_images == best
    assert progress.best_kid == scores[best - 1]
    assert progress.least_kid == min(scores)
    assert progress.scored_at == len(scores)


def test_a_run_of_an_older_version_keeps_its_best_until_a_snapshot_is_not_worse_beyond_noise() -> None:
    progress = Progress(best_kid=1.0, best_images=80)  # as older checkpoints have it, without the noise
    for number, kid, best in ((160, 2.0, 80), (240, 1.5, 80), (320, 1.01, 320), (400, 1.5, 320)):
        left_out = [kid + (-1) ** block * 0.01 for block in range(20)]
        snapshot.choose_best(progress, number, JackknifedKid(kid, left_out))
        assert progress.best_images == best
    assert progress.least_kid == 1.0


def test_the_end_says_whether_the_best_differs_from_the_last(tmp_path: Path) -> None:
    said: list[str] = []
    state = SimpleNamespace(images_seen=96, progress=Progress(best_kid=0.5, best_error=0.1, scored_at=96))
    for best, fact in ((96, "no snapshot before it is better beyond noise"), (48, "later ones are worse beyond noise")):
        state.progress.best_images = best
        finish(tmp_path, state, said.append)  # type: ignore[arg-type]
        assert any("0.5 (standard error 0.1)" in line and fact in line for line in said[-6:])


def test_a_resumed_run_keeps_the_same_best(
    few: None, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "NOISE", 0.0)
    fields = {**SPLIT, "snapshots": 6, "g_lr": 0.05}  # so wild that the best is not the last
    whole = train(shapes, out=tmp_path / "whole", **fields)
    assert load(whole / "best").images_seen < 48
    with monkeypatch.context() as patch:
        interrupt_at(patch, 24)
        with pytest.raises(Stopped):
            train(shapes, out=tmp_path / "parts", **fields)
    parts = train(shapes, out=tmp_path / "parts", **fields)
    for name in ("best", "generator"):
        file = f"{name}/model.safetensors"
        assert (whole / file).read_bytes() == (parts / file).read_bytes()
    assert live(whole) == [pair for pair in live(parts) if pair in live(whole)]


def test_without_a_select_part_or_where_it_is_not_asked_for_nothing_is_scored(shapes: Path, tmp_path: Path) -> None:
    for name, fields in (("none", SMALL), ("off", {**SPLIT, "live_images": 0}), ("few", SPLIT)):
        run = train(shapes, out=tmp_path / name, **fields)
        assert not live(run)
        assert not (run / "best").exists()


def test_new_weights_do_not_keep_the_scores_of_the_old(report: Score, views: Path, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    train(views, out=tmp_path / "run", **{**SPLIT, "split": "90/5/5", "images": "176"})
    assert not (tmp_path / "run" / "generator" / "scores.json").exists()
    card = (tmp_path / "run" / "generator" / "README.md").read_text(encoding="utf-8")
    assert not any(word in card for word in ("KID", "recall", "protocol"))
    assert json.loads((tmp_path / "run" / "generator" / "config.json").read_text())["images_seen"] == 176


def save_all(folder: Path, count: int, size: tuple[int, int], mode: str, suffix: str = "png") -> None:
    """Noise of a few greys, so that it is in colour only where the mode is."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for index in range(count):
        shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
        pixels = rng.integers(0, 256, shape).astype(np.uint8)
        image = Image.fromarray(pixels).convert("RGB") if mode == "grey RGB" else Image.fromarray(pixels)
        image.save(folder / f"{index}.{suffix}")


@pytest.mark.parametrize(
    ("size", "mode", "formats", "facts"),
    [
        ((40, 40), "RGB", ("PNG",), None),
        ((40, 40), "RGB", ("BMP", "PNG"), None),
        ((40, 40), "RGB", (), None),  # formats of arrays are not known
        ((40, 40), "RGB", ("JPEG",), ("JPEG", "PNG", "compression")),
        ((40, 40), "RGB", ("PNG", "WEBP"), ("PNG, WEBP",)),
        ((160, 160), "RGB", ("PNG",), None),  # both are shrunk to the size of the score
        ((20, 20), "RGB", ("PNG",), ("20x20", "40x40", "32x32")),
        ((60, 40), "RGB", ("PNG",), ("1.5", "1 times")),
        ((40, 40), "L", ("PNG",), ("grey", "colour")),
        ((40, 40), "grey RGB", ("PNG",), ("grey", "colour")),
    ],
)
def test_files_that_differ_in_more_than_what_they_show_are_said(
    size: tuple[int, int], mode: str, formats: tuple[str, ...], facts: tuple[str, ...] | None, tmp_path: Path
) -> None:
    save_all(tmp_path / "real" / "x", 12, (40, 40), "RGB")
    save_all(tmp_path / "made" / "x", 12, size, mode)
    real, made = (
        replace(open_dataset(tmp_path / name, Data(size="32", channels=3)), formats=kinds)
        for name, kinds in (("real", ("PNG",)), ("made", formats))
    )
    notes = score_sources.file_notes("made", made, "real", real)
    swapped = score_sources.file_notes("real", real, "made", made)
    assert len(notes) == len(swapped) == (facts is not None)
    for fact in facts or ():
        assert fact in notes[0]
        assert fact in swapped[0]


def test_arrays_are_compared_by_their_shape(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "grey.npz", arr_0=rng.integers(0, 256, (12, 20, 20)).astype(np.uint8))
    save_all(tmp_path / "real" / "x", 12, (40, 40), "RGB")
    grey, real = (open_dataset(tmp_path / name, Data(size="32", channels=1)) for name in ("grey.npz", "real"))
    enlarged, colour = score_sources.file_notes("grey.npz", grey, "real", real)
    assert "20x20" in enlarged
    assert "grey.npz is grey" in colour


def test_too_few_images_are_not_judged(tmp_path: Path) -> None:
    for name in ("made", "real"):
        save_all(tmp_path / name / "x", 40, (20, 20), "L")
    with raises("too-few-images", "judge", "2"):
        score(tmp_path / "made", tmp_path / "real", seeds=2, device="cpu")


def test_without_a_terminal_lines_say_what_takes_long(
    few_of_a_class: None,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(console, "SILENCE", 0)
    score(tiny, n=10, seeds=2, device="cpu", out=tmp_path / "scores")
    said = capsys.readouterr().err.splitlines()
    assert any(line.startswith("computing features of images: ") and " of " in line for line in said)
    assert any(line.startswith("comparing set 1 of 2") for line in said)
