"""Runs whose scores are known, side by side: groups, means, intervals against scipy's, and what is refused."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

import ptarmigan
from conftest import SMALL
from ptarmigan.commands.compare import Estimate, compare, print_comparison
from ptarmigan.config import Data, resolve
from ptarmigan.core.files import make_folder
from ptarmigan.core.log import Metrics
from ptarmigan.data import Dataset, open_dataset
from ptarmigan.evaluation.features import EXTRACTORS
from ptarmigan.generator.export import export_generator, write_scores
from ptarmigan.networks import build_generator
from ptarmigan.training.run_folder import record_of, write_record
from support import call, raises, random_projection


def plain(value: float) -> dict[str, float]:
    return {"mean": value, "low": value, "high": value}


def row(value: float, floor: float = 0.25) -> dict[str, Any]:
    """A figure; its other columns are others, so that one taken for another is seen."""
    return {"held_out": plain(value), "train": plain(7), "floor": plain(floor), "excess": plain(value - floor)}


def report(kid: float) -> dict[str, Any]:
    """As `score` makes it; every figure in it is a function of `kid`."""
    return {
        "figures": {"frechet": row(100 * kid), "kid": row(kid), "coverage": row(1 - kid)},
        "classes": {
            "across": {"held_out_images": 12, "kid": row(2 * kid), "diversity": plain(0.5)},
            "down": {"held_out_images": 12, "kid": row(3 * kid), "diversity": plain(kid)},
            "blot": {"held_out_images": 3, "kid": {"train": plain(9)}, "diversity": plain(0)},
        },
        "accuracy": {"held_out": 0.9, "generated": plain(kid / 2)},
        "copies": {
            "authenticity": plain(0.7), "authenticity_held_out": 0.7, "distance_ratio": plain(1),
            "closer_than_held_out": plain(0), "c_t": plain(-kid),
        },
        "notes": [],
        "protocol": {
            "frechet_is_called": "FD-Projection", "extractor": "Projection", "weights_sha256": 64 * "a",
            "input": "uint8", "images_a_set": 20, "sets": 2, "held_out_images": 27, "train_images": 60,
            "data_fingerprint": "f", "images_seen": 48, "seeds": [0, 1],
        },
    }  # fmt: skip


class Runs:
    """Writes run folders as the program does."""

    def __init__(self, root: Path, dataset: Dataset) -> None:
        self.root, self.dataset = root, dataset

    def __call__(
        self,
        name: str,
        *reports: dict[str, Any],
        live: tuple[float, ...] = (0.5,),
        end: int | None = 48,
        bf16: bool = False,
        **fields: Any,
    ) -> Path:
        """A run that stands at 48 images, with a live score at its last snapshots."""
        run, spec, fingerprint = self.root / name, self.dataset.spec, self.dataset.fingerprint
        config = resolve({**SMALL, "split": "80/10/10", **fields})
        make_folder(run)
        write_record(run, record_of(config, {}, self.dataset, "shapes.npz", bf16, 0, 8), self.dataset)
        log = Metrics(run / "metrics.jsonl")
        for at, kid in enumerate(live):
            log.write(48 - 8 * (len(live) - 1 - at), select_kid=kid)
        log.write(48, end=end, adv=1.0)
        folder = run / "generator"
        export_generator(folder, build_generator(spec, config.model), config, spec, 48, fingerprint, "the last")
        for each in reports:
            write_scores(folder, ptarmigan.load(run), each)
        return run


@pytest.fixture
def runs(tmp_path: Path, shapes: Path) -> Runs:
    return Runs(tmp_path, open_dataset(shapes, Data(split="80/10/10")))


def refused(given: tuple[str | Path, ...], code: str, *facts: object) -> str:
    with raises(code, *facts) as raised:
        compare(*given)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_seeds_are_one_group_and_its_figures_have_students_interval(runs: Runs) -> None:
    kids = [0.3, 0.4, 0.8]
    found = compare(*(runs(f"r{seed}", report(kid), seed=seed) for seed, kid in enumerate(kids)))
    (group,) = found.groups
    assert (group.name, group.seeds, group.images_seen) == ("A", (0, 1, 2), (48, 48, 48))
    assert group.runs == tuple(str(runs.root / f"r{seed}") for seed in range(3))
    assert (found.choices, found.notes, group.differences) == ({}, (), {})
    assert all(fact in found.source for fact in ("Projection", "aaaaaaaa:", "20 images", "27 held-out images", "uint8"))
    expected = {
        "FD-Projection": [30, 40, 80],
        "KID": kids,
        "KID gap": [0.05, 0.15, 0.55],
        "coverage": [0.7, 0.6, 0.2],
        "class accuracy": [0.15, 0.2, 0.4],
        "diversity": [0.8 / 3, 0.9 / 3, 1.3 / 3],
        "C_T": [-0.3, -0.4, -0.8],
        "KID of across": [0.6, 0.8, 1.6],
        "KID of down": [0.9, 1.2, 2.4],
    }
    assert list(group.figures) == list(expected)
    for name, values in expected.items():
        low, high = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
        assert tuple(asdict(group.figures[name]).values()) == pytest.approx((np.mean(values), low, high))


def test_groups_differ_by_welchs_interval_from_the_first(runs: Runs) -> None:
    of = {"relativistic": [0.3, 0.4, 0.8], "hinge": [0.9, 1.0], "wasserstein": [0.35, 0.41]}
    names = [
        runs(f"{loss}-{seed}", report(kid), seed=seed, loss=loss)
        for loss, kids in of.items()
        for seed, kid in enumerate(kids)
    ]
    found = compare(*names[1:], names[0])
    first, *others = found.groups
    assert [group.name for group in found.groups] == ["A", "B", "C"]
    assert found.choices == {"loss": ("relativistic", "hinge", "wasserstein")}
    assert first.seeds == (1, 2, 0)
    for group, loss in zip(others, ("hinge", "wasserstein"), strict=True):
        assert list(group.differences) == list(first.figures)
        welch = scipy.stats.ttest_ind(of[loss], of["relativistic"], equal_var=False).confidence_interval(0.95)
        expected = np.mean(of[loss]) - np.mean(of["relativistic"]), *welch
        assert tuple(asdict(group.differences["KID"]).values()) == pytest.approx(expected)


def test_one_seed_has_no_interval_and_neither_has_a_difference_from_it(runs: Runs) -> None:
    names = [runs(f"a{seed}", report(0.2 + 0.2 * seed), seed=seed) for seed in range(2)]
    found = compare(*names, runs("b", report(0.7), seed=5, batch=16))
    assert found.groups[1].figures["KID"] == Estimate(0.7, None, None)
    assert found.groups[1].differences["KID"] == Estimate(pytest.approx(0.4), None, None)
    assert found.groups[0].figures["KID"].low is not None


def test_what_binds_no_run_makes_no_group_and_a_budget_does(runs: Runs) -> None:
    one = runs("one", report(0.2), seed=0)
    same = runs("same", report(0.3), seed=1, keep=9, retries=0, live_images=30, micro_batch=2, images="0.048k")
    longer = runs("longer", report(0.4), seed=1, images="2k")
    timed = runs("timed", report(0.4), seed=1, images=None, time="1m30s")
    found = compare(one, same, longer, timed)
    assert [group.runs for group in found.groups] == [(str(one), str(same)), (str(longer),), (str(timed),)]
    assert found.choices == {"time": (None, None, "90s"), "images": (48, 2000, None)}


def test_without_a_common_report_the_live_score_is_compared(runs: Runs) -> None:
    other = report(0.1)
    other["protocol"]["extractor"] = "Another"
    a = runs("a", report(0.1), other, live=(0.2, 0.5, 0.4), seed=0)
    b = runs("b", live=(0.9, 0.8, 0.6), seed=1)
    c = runs("c", other, live=(0.3,), seed=2)
    found = compare(a, b, c)
    figures = found.groups[0].figures
    assert figures["select KID, last"].mean == pytest.approx((0.4 + 0.6 + 0.3) / 3)
    assert figures["select KID, best"].mean == pytest.approx((0.2 + 0.6 + 0.3) / 3)
    assert len(figures) == 2
    assert "live" in found.source
    (note,) = found.notes
    assert all(fact in note for fact in ("Another", "`ptarmigan score RUN`", str(b)))
    assert str(a) not in note
    held_out = compare(a, c).source
    assert "live" not in held_out
    assert "Another" in held_out
    (note,) = compare(b, runs("d", seed=3)).notes
    assert f"{b}, {runs.root / 'd'}" in note


def test_a_live_score_that_the_run_went_back_from_does_not_count(runs: Runs) -> None:
    a, b = runs("a", live=(0.3, 0.05), seed=0), runs("b", live=(0.3, 0.2), seed=1)
    log = Metrics(a / "metrics.jsonl")
    log.write(40, back_from=48)
    log.write(44, end=48, adv=1.0)
    found = compare(a, b)
    assert found.groups[0].images_seen == (40, 48)
    assert found.groups[0].figures["select KID, best"].mean == pytest.approx((0.3 + 0.2) / 2)
    assert any(str(a) in note and "40 images" in note and "48" in note for note in found.notes)
    assert len(found.notes) == 3  # the two numbers of images differ, and no run has been scored
    other = compare(a, runs("c", live=(0.3, 0.2), images="2k"))
    assert "The budgets differ" in other.verdict
    assert len(other.notes) == 2  # the verdict says that the numbers of images differ
    Metrics(a / "metrics.jsonl").write(48, select_kid=0.1)
    again = compare(a, b)
    assert again.groups[0].figures["select KID, last"].mean == pytest.approx(0.15)
    assert len(again.notes) == 1  # that no run has been scored


def test_a_run_whose_end_is_not_planned_yet_is_said(runs: Runs) -> None:
    found = compare(runs("a", end=None), runs("b", seed=1))
    (note,) = found.notes[1:]
    assert str(runs.root / "a") in note
    assert "48 images" in note


def test_a_report_on_other_weights_does_not_count(runs: Runs) -> None:
    a, b = runs("a", report(0.1)), runs("b", report(0.2), seed=1)
    (a / "generator" / "scores.json").write_bytes((b / "generator" / "scores.json").read_bytes())
    (note,) = compare(a, b).notes
    assert "Projection" in note
    assert note.endswith(str(a))


def test_other_precision_and_versions_are_said(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    a = runs("a", report(0.1))
    monkeypatch.setattr("ptarmigan.training.run_folder.__version__", "9.9")
    b = runs("b", report(0.2), seed=1, bf16=True)
    precision, version = compare(a, b).notes
    assert f"fp32 in {a}, bf16 in {b}" in precision
    assert f"{ptarmigan.__version__} in {a}, 9.9 in {b}" in version


def test_a_figure_that_some_runs_lack_is_left_out_where_they_count(runs: Runs) -> None:
    poor = report(0.3)
    del poor["copies"]["c_t"], poor["accuracy"]["generated"]
    a = [runs("a0", report(0.2)), runs("a1", poor, seed=1)]
    b = runs("b", report(0.4), batch=16)
    found = compare(*a, b)
    assert "C_T" not in found.groups[0].figures
    assert found.groups[1].figures["C_T"].mean == -0.4
    assert "C_T" not in found.groups[1].differences
    assert "KID" in found.groups[1].differences
    (note,) = found.notes
    assert f"{a[0]}, {a[1]}" in note
    assert note.endswith("class accuracy, C_T")


def test_fewer_than_two_runs_are_refused_and_so_is_one_given_twice(runs: Runs) -> None:
    a = runs("a", report(0.1))
    for given in ((), (a,)):
        refused(given, "value-invalid", "at least 2 runs")
    refused((a, a.parent / "a" / ".." / "a"), "value-invalid", f"{a} ")


def test_what_is_no_run_is_refused(runs: Runs) -> None:
    a, b = runs("a", report(0.1)), runs("b", report(0.1), seed=1)
    refused((a, a / "generator" / "nowhere"), "not-a-run", a / "generator" / "nowhere")
    refused((b, a / "generator"), "not-a-run", a / "generator")
    (b / "config.json").write_text("{")
    refused((a, b), "file-damaged", b / "config.json", "`ptarmigan train`")


def test_one_config_and_one_seed_are_no_two_seeds(runs: Runs) -> None:
    a, b, c = runs("a", report(0.1)), runs("b", report(0.1), seed=1), runs("c", report(0.2), keep=7)
    text = refused((a, b, c), "same-seed", f"{a} and {c}", "seed 0", "--seed")
    assert f"{b} " not in text


def test_other_images_and_other_splits_are_refused_by_name(runs: Runs, tmp_path: Path) -> None:
    a, b = runs("a", report(0.1)), runs("b", report(0.1), seed=1)
    split = runs("split", report(0.1), seed=2, split="70/15/15")
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "noise.npz", arr_0=rng.integers(0, 255, (90, 16, 16), np.uint8), arr_1=np.arange(90) % 3)
    noise = Runs(tmp_path, open_dataset(tmp_path / "noise.npz", Data(split="80/10/10")))("noise", seed=3)
    refused((a, b, split, noise), "data-mismatch", f"{split}, {noise}:", f"{a},", "--split", "--group")
    grouped = runs("grouped", report(0.1), seed=4, group="[0-9]")
    for other in (split, grouped, noise):
        refused((a, other), "data-mismatch", f"{other}:")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weights_sha256", 64 * "b"),
        ("input", "uint8 images of 8x8"),
        ("images_a_set", 30),
        ("held_out_images", 8),
        ("train_images", 50),
        ("data_fingerprint", "other"),
    ],
)
def test_scores_by_another_protocol_are_refused_with_the_difference(runs: Runs, key: str, value: object) -> None:
    one, other = report(0.1), copy.deepcopy(report(0.2))
    other["protocol"][key] = value
    a, b, c = runs("a", one), runs("b", one, seed=1), runs("c", other, seed=2)
    facts = key.replace("_", " "), one["protocol"][key], a, value, c
    assert str(b) not in refused((a, b, c), "protocols-differ", *facts)


def test_runs_without_any_score_are_refused_with_what_to_do(runs: Runs) -> None:
    a, b = runs("a", report(0.1)), runs("b", live=(), seed=1)
    assert str(a) not in refused((a, b), "no-scores", b, "`ptarmigan score RUN`")


def test_a_person_sees_groups_choices_figures_and_verdicts_in_80_columns(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(runs.root)
    of = {"relativistic": [0.3, 0.31], "hinge": [0.3, 0.32], "wasserstein": [0.9, 0.91], "minimax": [0.01, 0.02]}
    for loss, kids in of.items():
        for seed, kid in enumerate(kids):
            runs(f"{loss}-{seed}", report(kid), seed=seed, loss=loss)
    runs("alone", report(0.5), loss="least_squares")
    names = [*(f"{loss}-{seed}" for loss in of for seed in range(2)), "alone"]
    status, out, err = call(monkeypatch, capsys, "compare", *names)
    assert (status, err) == (0, "")
    assert "B: seeds 0, 1; 48 images seen; hinge-0, hinge-1" in out
    tables = [line for line in out.splitlines() if line[:1] in "┃│"]
    assert max(map(len, tables)) <= 80
    cells = [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in tables]
    assert ["loss", "relativistic", "hinge", "wasserstein"] in cells
    assert ["loss", "minimax", "least_squares"] in cells
    assert ["", "A, 2 seeds", "B, 2 seeds", "C, 2 seeds"] in cells
    assert ["", "D, 2 seeds", "E, one seed"] in cells
    kid = [line for line in cells if line[0] == "KID"]
    assert kid[1] == ["KID", "0.01±0.06", "0.5"]
    assert [line[-1] for line in kid[2:]] == ["no difference shown", "higher", "lower", "one seed: no interval"]
    assert kid[3][1] == "0.60±0.03"
    assert "E: seed 0; 48 images seen; alone" in out
    assert "±: 95 %" in out


def test_no_interval_is_explained_where_there_is_none(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    poor = report(0.2)
    del poor["copies"]["c_t"]
    print_comparison(compare(runs("a", report(0.125)), runs("b", poor, batch=16)))
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if "C_T" in line]
    assert line.replace(" ", "") == "│C_T│-0.125│-│"
    assert "±" not in out


def test_what_is_found_is_json(runs: Runs) -> None:
    found = asdict(compare(runs("a", report(0.1)), runs("b", report(0.2), g_betas=(0.5, 0.9))))
    assert json.loads(json.dumps(found))["choices"] == {"g_betas": [[0.0, 0.99], [0.5, 0.9]]}


def test_runs_that_were_trained_and_scored_are_compared(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(EXTRACTORS, "efficientnet-lite0", lambda _: random_projection())
    monkeypatch.setattr("ptarmigan.evaluation.features.classifier.SAMPLES_SEEN", (10_000, 10_000))
    names = [tmp_path / str(seed) for seed in range(2)]
    for seed, run in enumerate(names):
        ptarmigan.train(shapes, out=run, **{**SMALL, "split": "60/0/40", "seed": seed})
        ptarmigan.score(run, n=20, seeds=2)
    capsys.readouterr()
    status, out, err = call(monkeypatch, capsys, "compare", *names)
    assert (status, err) == (0, "")
    assert all(fact in out for fact in ("Projection", "55555555", "20 images", "36 held-out images"))
    assert f"A: seeds 0, 1; 48 images seen; {names[0]}, {names[1]}" in out
    for figure in (
        "FD-Projection", "KID", "precision", "recall", "density", "coverage", "KID gap", "class accuracy",
        "diversity", "C_T", "KID of across", "KID of down", "KID of blot",
    ):  # fmt: skip
        assert f"│ {figure} " in out
    assert "note" not in out


def test_the_verdict_says_which_is_better_or_that_it_cannot_be_told(runs: Runs) -> None:
    of = {"relativistic": [0.3, 0.31], "hinge": [0.3, 0.32], "wasserstein": [0.9, 0.91], "minimax": [0.01, 0.02]}
    names = [
        runs(f"{loss}-{seed}", report(kid), seed=seed, loss=loss)
        for loss, kids in of.items()
        for seed, kid in enumerate(kids)
    ]
    found = compare(*names, runs("alone", report(0.5), loss="least_squares"))
    unclear, worse, better, alone = found.verdict.split(". ")
    assert "cannot be told whether B or A" in unclear
    assert worse.startswith("A is better than C: its KID is lower by 0.60±")
    assert better.startswith("D is better than A: its KID is lower by 0.29")
    assert "E or A" in alone
    assert "E has one seed" in alone
    assert str(found).startswith(found.verdict)
    shown = found._repr_html_()
    assert found.verdict in shown
    assert shown.count("<table>") == shown.count("</table>") > 3
    assert "one config" in compare(*names[:2]).verdict


def test_budgets_that_differ_come_first(runs: Runs) -> None:
    timed = runs("timed", report(0.1), images=None, time="285s")
    found = compare(timed, runs("counted", report(0.2), images="2k"))
    assert found.verdict.startswith("The budgets differ (A 285s, 48 images seen; B 2,000 images, 48 images seen)")
    assert "cannot be told" in found.verdict
    assert "budgets" not in compare(timed, runs("hinge", report(0.2), images=None, time="285s", loss="hinge")).verdict
