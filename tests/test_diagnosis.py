"""The diagnosis: each finding from the columns of a log, the story over time, other tools' logs, and live in a run."""

from __future__ import annotations

import importlib
import json
import math
import shlex
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch

import failures
from conftest import SMALL
from ptarmigan import diagnose, resolve, train
from ptarmigan.commands import diagnose_samples
from ptarmigan.config import Train
from ptarmigan.config.recipes import RECIPES
from ptarmigan.core.log import read_rows
from ptarmigan.core.tensor_files import load_tensors
from ptarmigan.data.batches import to_float
from ptarmigan.diagnosis import columns as module
from ptarmigan.diagnosis.columns import UNDECIDED, Log
from ptarmigan.diagnosis.findings import KINDS, SEVERITIES, Finding, findings, is_wanted, verdict
from ptarmigan.diagnosis.samples import Reference, class_distance, d_gap, nyquist_share, shrink
from ptarmigan.diagnosis.story import events, now
from ptarmigan.losses import OBJECTIVES
from ptarmigan.training import snapshot
from support import call, raises, random_projection

command = importlib.import_module("ptarmigan.commands.diagnose")  # the package has a function of the same name
LN2 = math.log(2)
FIELDS = resolve({"batch": 8}).flat()
IMAGES = np.arange(1, 21) * 1000.0


def log(columns: dict[str, Any], **fields: Any) -> Log:
    """20 rows of 1,000 images each; a number is the value of every row."""
    whole = {name: np.broadcast_to(np.asarray(value, float), 20) for name, value in columns.items()}
    return Log(IMAGES, whole, FIELDS | fields, end=21_000.0, run="runs/x")


SPIKE = [1.0] * 9 + [15.0] + [1.0] * 10
PLANTED: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # finding, columns that have it, columns just inside of the limit, fields
    ("diverged", {"d_grad": 101.0}, {"d_grad": 99.0}, {}),
    ("diverged", {"d_adv": 3.1 * 2 * LN2}, {"d_adv": 1.1 * 2 * LN2}, {}),
    ("diverged", {"g_adv": [1.0] * 19 + [math.inf]}, {"g_adv": 1.0}, {}),
    ("diverged", {"retry": [math.nan] * 19 + [1.0]}, {"retry": math.nan}, {}),
    ("diverged", {"d_adv": SPIKE, "select_kid": [0.1] * 9 + [0.2] * 11},
     {"d_adv": SPIKE, "select_kid": [0.1] * 9 + [0.2] * 10 + [0.09]}, {}),
    ("diverged", {"d_adv": SPIKE, "select_kid": [math.nan] * 12 + [1.0] * 8}, {"d_adv": SPIKE}, {}),
    ("unstable", {"d_adv": [1.0, 1.2] * 10}, {"d_adv": [1.0, 1.15] * 10}, {"d_lr": 2e-2}),
    ("unstable", {"d_adv": [0.1, 0.4] * 10}, {"d_adv": [0.1, 0.35] * 10}, {}),
    ("unstable", {"d_adv": [0.1, 0.4] * 10}, {"d_adv": [1.0] * 14 + [9.0] + [1.0] * 5}, {"d_lr": 2e-2}),
    ("d-too-strong", {"d_adv": 0.03 * 2 * LN2}, {"d_adv": 0.04 * 2 * LN2}, {}),
    ("d-too-strong", {"d_adv": 0.03 * LN2}, {"d_adv": 0.04 * LN2}, {"loss": "relativistic"}),
    ("d-too-strong", {"d_adv": 0.33}, {"d_adv": 0.5}, {"smoothing": 0.9, "loss": "non_saturating"}),
    ("d-too-weak", {"d_adv": 1.2 * 2 * LN2}, {"d_adv": 1.1 * 2 * LN2}, {}),
    ("g-gradient-vanishes", {"g_adv": -0.009}, {"g_adv": -0.011}, {"loss": "minimax"}),
    ("g-gradient-vanishes", {"g_grad": [1.0] * 10 + [9e-4] * 10}, {"g_grad": [1.0] * 10 + [2e-3] * 10}, {}),
    ("collapse", {"variety": 0.45}, {"variety": [0.4] * 19 + [0.55]}, {}),
    ("labels-random", {"real_accuracy": 0.05}, {"real_accuracy": 0.2}, {}),
    ("class-ignored", {"real_accuracy": 0.8, "class_accuracy": 0.2}, {"real_accuracy": 0.8, "class_accuracy": 0.3},
     {}),
    ("too-easy", {"g_class": 0.02, "d_class": 1.0}, {"g_class": 0.04, "d_class": 1.0},
     {"conditioning": "auxiliary_classifier"}),
    ("d-overfits", {"d_gap": 0.6}, {"d_gap": [0.6] * 19 + [0.4]}, {}),
    ("copies", {"copying": 0.5}, {"copying": 0.7}, {}),
    ("colour-shift", {"colour_gap": 0.2}, {"colour_gap": 0.05}, {}),
    ("checkerboard", {"nyquist": 12.0}, {"nyquist": 9.0}, {}),
    ("far-from-real", {"select_kid": 1.1}, {"select_kid": [1.1] * 19 + [0.9]}, {}),
    ("no-progress", {"select_kid": 1.0, "select_kid_error": 0.1},
     {"select_kid": 20 - np.arange(20), "select_kid_error": 0.1}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "columns", "inside", "fields"), PLANTED)
def test_each_finding_holds_beyond_its_limit_alone(
    name: str, columns: dict[str, Any], inside: dict[str, Any], fields: dict[str, Any]
) -> None:
    found = findings(log(columns, **fields))
    assert [finding.name for finding in found] == [name]
    assert set(found[0].source.split(", ")) <= {*columns, "diverged"}
    assert found[0].severity in SEVERITIES
    assert findings(log(inside, **fields)) == []


def test_every_finding_is_planted_and_can_be_named_to_stop_on() -> None:
    assert {name for name, *_ in PLANTED} == {*KINDS}
    choices = {choice for part in get_args(get_type_hints(Train)["stop_on"]) for choice in get_args(part)}
    assert choices == {*KINDS, "warning", "error"}
    for name, kind in KINDS.items():
        assert len(kind.verdict.split()) <= 8
        assert {*kind.explains} < {*KINDS} - {name}


def test_a_run_is_healthy_where_enough_samples_were_judged() -> None:
    once = [math.nan] * 19 + [0.01]
    whole = log({"d_adv": 1.0, "colour_gap": once})
    assert verdict(log({"d_adv": 1.0, "colour_gap": 0.01}), []) == "healthy"
    assert verdict(log({"d_adv": 1.0}), []) == "no fault in the losses"
    assert "too early" in verdict(whole, [])
    assert verdict(replace(whole, end=20_000.0), []) == "healthy"  # it has finished
    spoilt = log({"d_adv": 1.0, "colour_gap": once, "variety": [math.nan] * 19 + [0.1]})
    assert findings(spoilt) == []
    assert [finding.name for finding in findings(replace(spoilt, end=20_000.0))] == ["collapse"]
    assert "too early" in verdict(replace(whole, end=20_000.0, fields=FIELDS | {"batch": 128}), [])


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("given", [{}, {"loss": "relativistic", "d_norm": "none"}, {"augment": "diffaugment"}])
def test_every_remedy_is_a_command_that_is_valid(recipe: str, given: dict[str, Any]) -> None:
    config = resolve({"recipe": recipe, "batch": 8, **given})
    for _, columns, _, fields in PLANTED:
        for finding in findings(log(columns, **config.flat() | fields)):
            if not finding.remedy.startswith("ptarmigan train"):
                continue
            words = shlex.split(finding.remedy)
            assert words[2:4] == ["--config", "runs/x/config.json"]
            options: dict[str, list[str]] = {}
            for word in words[4:]:
                options.setdefault(word, []) if word.startswith("--") else options[[*options][-1]].append(word)
            chosen = {
                name[2:].replace("-", "_"): tuple(values) if len(values) > 1 else values[0] if values else True
                for name, values in options.items()
            }
            assert chosen
            resolve({"recipe": recipe, **given, **fields, **chosen})


def remedy(columns: dict[str, Any], **fields: Any) -> str:
    (found,) = findings(log(columns, **fields))
    return found.remedy


def test_a_remedy_changes_the_rate_or_the_penalty_that_is_at_fault() -> None:
    diverged, strong = {"d_grad": 101.0}, {"d_adv": 0.01}
    assert "--d-lr 0.002 " in remedy(diverged, d_lr=0.1, g_lr=2e-3)
    assert "--g-lr 0.002 " in remedy(diverged, d_lr=2e-3, g_lr=0.1)
    assert "--g-lr 0.001 --d-lr 0.0005 " in remedy(diverged, d_lr=2e-3, g_lr=4e-3)
    assert remedy(strong, d_lr=2e-3, r1=0.2, r2=0.0).endswith("--d-lr 0.0005 --r1 0.8 --r2 0.2")
    assert remedy(strong, r1=(0.1, 2.0), r2=0.0, d_norm="batch").endswith("--r1 8 --r2 0.2 --d-norm none")
    assert remedy({"d_adv": 1.2 * 2 * LN2}, d_lr=1e-4, g_lr=2e-3).endswith("--d-lr 0.002")


def test_batch_norm_leaves_the_size_of_ds_gradient_free() -> None:
    assert findings(log({"d_grad": 990.0}, d_norm="batch")) == []
    for size, norm in ((1010.0, "batch"), (110.0, "spectral")):
        assert [finding.name for finding in findings(log({"d_grad": size}, d_norm=norm))] == ["diverged"]


def test_a_rate_that_is_far_too_large_is_lowered_and_a_free_d_is_bound() -> None:
    jumps, free = {"d_adv": [1.0, 1.2] * 10}, {"r1": 0.0, "r2": 0.0}
    assert remedy(jumps, d_lr=2e-2).endswith(".json --d-lr 0.002")
    assert remedy(jumps, g_lr=2e-4, d_lr=1e-3, d_norm="batch", **free).endswith(".json --d-lr 0.0002")
    assert remedy(jumps, d_lr=2e-2, g_lr=2e-2, **free).endswith("--g-lr 0.002 --d-lr 0.002 --r1 0.2 --r2 0.2")
    assert remedy({"variety": 0.4}, g_lr=2e-2, d_lr=2e-3).endswith(".json --g-lr 0.002")
    assert remedy({"d_adv": 0.01}, g_lr=2e-2, d_lr=2e-3).endswith(".json --g-lr 0.002")
    assert remedy({"d_adv": 1.2 * 2 * LN2}, g_lr=2e-2, d_lr=2e-3).endswith(".json --g-lr 0.002")


def test_a_d_that_cannot_decide_is_too_weak_where_the_samples_are_poor() -> None:
    for share, score, names in (
        (0.98, 1.1, ["d-too-weak", "far-from-real"]), (0.98, 0.9, []), (0.96, 1.1, ["far-from-real"]),
    ):  # fmt: skip
        assert [finding.name for finding in findings(log({"d_adv": share * 2 * LN2, "select_kid": score}))] == names


def test_a_score_is_not_called_poor_before_g_had_time() -> None:
    poor = log({"select_kid": 1.1})
    assert findings(poor.until(4000)) == []
    assert findings(replace(poor, fields=FIELDS | {"batch": 64})) == []
    assert findings(replace(poor, fields=FIELDS | {"g_lr": 2e-4})) == []


def test_the_remedy_of_overfitting_is_a_stronger_augmentation() -> None:
    for augment, after in (("none", "diffaugment"), ("gentle", "diffaugment"), ("diffaugment", "ada")):
        assert remedy({"d_gap": 0.9}, augment=augment).endswith(f"--augment {after}")
    assert "--augment-p 1" in remedy({"d_gap": 0.9}, augment="diffaugment", augment_p=0.5)
    assert "--config" not in remedy({"d_gap": 0.9}, augment="ada")
    assert remedy({"colour_gap": 0.9}, augment="ada").endswith("--augment gentle")
    assert "--config" not in remedy({"colour_gap": 0.9}, augment="none")


@pytest.mark.parametrize("name", UNDECIDED)
def test_the_loss_of_a_d_that_cannot_decide_is_that_of_equal_outputs(name: str) -> None:
    loss = OBJECTIVES[name]
    same = torch.full((1,), loss.equilibrium_logit or 0.0)
    assert float(loss.d(real=same, fake=same)) == pytest.approx(UNDECIDED[name])


def test_a_short_log_is_not_judged() -> None:
    early = Log.of_run({seen: {"d_adv": 0.0} for seen in range(100, 2100, 100)}, FIELDS, "x")
    assert findings(early) == []
    rows = {seen: {"images_seen": seen, "d_adv": 0.0, "variety": 0.1} for seen in (100, 2000)}
    short = Log.of_run(rows, FIELDS, "x").until(100)
    assert findings(short) == []
    assert verdict(short, []) != "healthy"
    rows |= {seen: {"images_seen": seen, "d_adv": 0.0} for seen in (2040, 2080, 2120)}
    assert [finding.name for finding in findings(Log.of_run(rows, FIELDS, "x"))] == ["d-too-strong", "collapse"]
    large = Log.of_run(rows, FIELDS | {"batch": 128}, "x")  # 16 updates
    assert [finding.name for finding in findings(large)] == ["d-too-strong"]


def test_a_g_that_learns_slowly_is_given_more_time_to_show_its_classes() -> None:
    ignored = {"real_accuracy": 0.8, "class_accuracy": 0.1}  # after 2,500 updates
    assert [finding.name for finding in findings(log(ignored, g_lr=1e-3))] == ["class-ignored"]
    assert findings(log(ignored, g_lr=2e-4)) == []
    assert findings(log({"colour_gap": 0.2}, g_lr=2e-4)) == []
    assert [finding.name for finding in findings(log({"colour_gap": 0.3}, g_lr=2e-4))] == ["colour-shift"]


def test_the_worst_finding_comes_first_and_a_severity_means_it_or_worse() -> None:
    found = findings(log({"nyquist": 12.0, "variety": 0.2, "select_kid": 1.0, "select_kid_error": 0.1}))
    assert [finding.severity for finding in found] == ["error", "warning", "note"]
    assert verdict(log({}), found) == KINDS["collapse"].verdict
    error, warning, note = found
    for wanted, finding, is_it in (
        ("error", error, True), ("error", warning, False), ("warning", error, True), ("warning", note, False),
        ("checkerboard", warning, True), ("copies", warning, False),
    ):  # fmt: skip
        assert is_wanted(finding, wanted) == is_it


def test_the_story_says_since_when_and_what_explains_what() -> None:
    strong, usual = [0.01] * 8, [1.2] * 8
    told = events(log({
        "d_adv": [*usual[:4], *strong, *usual], "variety": [0.9] * 6 + [0.3] * 14, "colour_gap": [0.5] * 20,
    }))  # fmt: skip
    story = {event.finding.name: event for event in told}
    assert [event.finding.name for event in told] == ["colour-shift", "d-too-strong", "collapse"]
    assert (story["d-too-strong"].since, story["d-too-strong"].until) == (6000, 14000)
    assert (story["collapse"].since, story["collapse"].until) == (8000, None)
    assert [event.finding.name for event in story["d-too-strong"].explained] == ["collapse"]
    assert [finding.name for finding in now(told)] == ["collapse", "colour-shift"]


def test_the_logs_of_planted_failures_are_judged_as_the_docs_say() -> None:
    docs = (Path(__file__).parents[1] / "docs" / "diagnosis.md").read_text()
    assert [line for line in failures.table(failures.done()) if line not in docs.splitlines()] == []


@pytest.mark.parametrize("row", failures.done(failures.LONGER), ids=lambda row: f"{row['data']}, {len(row['rows'])}")
def test_the_logs_of_longer_runs_that_were_good_have_no_alarm(row: Any) -> None:
    assert failures.named(row) == []


# --- statistics of samples -------------------------------------------------------------------------------------------


def reference(images: Any, labels: Any, train: Any = None) -> Reference:
    extract = random_projection(64)
    small = torch.empty(0, 0) if train is None else shrink(train)
    return Reference(images, extract(images), labels, int(labels.max()) + 1, small)


def drawn(count: int, seed: int) -> tuple[Any, Any]:
    """Grey images of 16x16 in 3 classes: a mean of the class, and smooth noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    coarse = rng.normal(0, 25, (count, 8, 8, 1)).repeat(2, 1).repeat(2, 2)
    means = np.random.default_rng(9).normal(128, 40, (3, 4, 4, 1)).repeat(4, 1).repeat(4, 2)
    return (means[labels] + coarse + rng.normal(0, 2, (count, 16, 16, 1))).clip(0, 255).astype(np.uint8), labels


def test_statistics_of_images_of_the_same_distribution_are_those_of_real_ones() -> None:
    (real, labels), (fake, asked), (trained, _) = drawn(240, 0), drawn(240, 1), drawn(240, 2)
    of = reference(real, labels, trained)
    found = of.statistics(fake, random_projection(64)(fake), asked)
    for name in ("variety", "nyquist", "copying"):
        assert found[name] == pytest.approx(1, abs=0.1), name
    assert found["colour_gap"] < 0.02
    assert found["class_accuracy"] == pytest.approx(found["real_accuracy"], abs=0.05) == pytest.approx(1, abs=0.05)
    assert "movement" not in found
    again = of.statistics(fake, random_projection(64)(fake), asked)
    assert again["movement"] == 0


def test_statistics_show_what_they_are_made_to_show() -> None:
    (real, labels), (trained, train_labels) = drawn(240, 0), drawn(240, 2)
    of, extract = reference(real, labels, trained), random_projection(64)

    def statistic(name: str, images: Any, asked: Any) -> float:
        return of.statistics(images, extract(images), asked)[name]

    assert statistic("copying", trained, train_labels) == 0
    assert statistic("class_accuracy", trained, (train_labels + 1) % 3) == pytest.approx(-0.5, abs=0.05)
    first = trained[[0, 1, 2]][train_labels]  # one image of each class
    assert statistic("variety", first, train_labels) == pytest.approx(0, abs=1e-3)
    assert statistic("colour_gap", (trained // 2) + 128, train_labels) > 0.3
    squares = np.indices((16, 16)).sum(0)[None, :, :, None] % 2 * 30
    assert statistic("nyquist", (trained.clip(0, 220) + squares).astype(np.uint8), train_labels) > 4


def test_distances_are_between_different_images_of_a_class() -> None:
    features = torch.tensor([[0.0], [3.0], [50.0]])
    assert class_distance(features, np.array([0, 0, 1])) == pytest.approx(3)
    assert class_distance(features, np.array([0, 1, 2])) is None


def test_copies_are_looked_for_at_16_pixels() -> None:
    images, _ = drawn(3, 0)
    assert torch.equal(shrink(images), to_float(torch.from_numpy(images)).flatten(1))
    assert shrink(images.repeat(2, 1).repeat(2, 2)).shape == (3, 256)


def test_the_share_of_the_finest_pattern_is_exact() -> None:
    rows, columns = np.indices((17, 16))
    for wave, share in (((rows + columns) % 2, 1), (columns % 2, 1), (columns // 2 % 2, 0)):
        assert nyquist_share((wave * 200).astype(np.uint8)[None, :, :, None]) == pytest.approx(share, abs=1e-6)
    assert nyquist_share(np.zeros((2, 8, 8, 1), np.uint8)) == 0


def test_d_gap_is_0_without_overfitting_and_1_where_d_takes_unseen_images_for_fakes() -> None:
    noise = torch.linspace(-1, 1, 100)
    for unseen, gap in ((2.0, 0.0), (-2.0, 1.0), (0.0, 0.5)):
        assert d_gap(noise + 2, noise + unseen, noise - 2) == pytest.approx(gap)
    assert d_gap(noise, noise, noise) is None
    assert d_gap(noise - 2, noise, noise + 2) is None


# --- logs of other tools ---------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def part(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def event(step: int, tag: str, value: float, tensor: bool) -> bytes:
    """A record of an event file, with a scalar as PyTorch writes it, or as a tensor as TensorFlow 2 does."""
    number = struct.pack("<f", value)
    inner = part(8, varint(1 << 3) + varint(1) + part(4, number)) if tensor else varint(2 << 3 | 5) + number
    record = (
        varint(1 << 3 | 1) + struct.pack("<d", 0.5) + varint(2 << 3) + varint(step)
        + part(5, part(1, part(1, tag.encode()) + inner))
    )  # fmt: skip
    return struct.pack("<Q", len(record)) + b"\0" * 4 + record + b"\0" * 4


D = [1.38] * 10 + [0.01] * 30


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "stats.jsonl", "events", "events of tensors"])
def test_logs_of_other_tools_are_read(kind: str, tmp_path: Path) -> None:
    path, unit = tmp_path / f"log.{kind}", "steps"
    if kind in ("csv", "tsv"):
        mark = "," if kind == "csv" else "\t"
        path.write_text(mark.join(["Step", "D loss", "note"]) + "\n" + "".join(
            f"{100 * at}{mark}{value}{mark}x\n" for at, value in enumerate(D)
        ))  # fmt: skip
    elif kind == "jsonl":
        lines = [json.dumps({"iter": 100 * at, "train": {"loss_D": value}}) for at, value in enumerate(D)]
        path.write_text("\n".join([*lines[:5], "{torn", *lines[5:]]))
    elif kind == "stats.jsonl":
        unit = "images"
        path.write_text("\n".join(
            json.dumps({
                "Loss/D/loss": {"num": 4, "mean": value, "std": 0.1}, "Progress/kimg": {"num": 1, "mean": at, "std": 0},
                "timestamp": 1.0,
            })
            for at, value in enumerate(D)
        ))  # fmt: skip
    else:
        path.mkdir()
        content = b"".join(event(100 * at, "Loss/D", value, "tensors" in kind) for at, value in enumerate(D))
        (path / "events.out.tfevents.1.host").write_bytes(content + event(9999, "Loss/D", 1.0, False)[:-9])
    found = diagnose(path)
    assert found.log.unit == unit
    assert found.log.columns["d_adv"] == pytest.approx(D)
    assert found.log.at[-1] == (39_000 if unit == "images" else 3900)
    assert [finding.name for finding in found.findings] == ["d-too-strong"]
    assert "--" not in found.findings[0].remedy
    assert {"collapse", "class-ignored", "copies", "no-progress"} <= {*found.unknown}


PRINTED = {  # what scripts print: the line, and the unit that the log is told in
    "tutorials": ("Epoch [{at}/200] d_loss: {d:.4f} g_loss: {g:.4f}", "epochs"),
    "PyTorch's example": (
        "[{of}/25][{at}/782]\tLoss_D: {d:.4f}\tLoss_G: {g:.4f}\tD(x): 0.6\tD(G(z)): 0.4 / 0.3",
        "lines",
    ),
    "several in an epoch": ("[Epoch {of}/200] [Batch {at}/938] [D loss: {d:f}] [G loss: {g:f}]", "lines"),
    "Keras scripts": ("{at} [D loss: {d:f}, acc.: 50.00%] [G loss: {g:f}]", "lines"),
    "logging": ("2024-03-01 12:00:10,123 - INFO - step {at} | d_loss = {d:.3e} | g_loss = {g:.3e}", "steps"),
    "dictionaries": ("{{'loss_d': {d}, 'loss_g': {g}, 'iters': {at}}}", "steps"),
    "colours": ("\x1b[32mstep {at}\x1b[0m d_loss={d} g_loss={g}", "steps"),
}


@pytest.mark.parametrize("kind", PRINTED)
def test_the_lines_that_a_script_prints_are_a_log(kind: str, tmp_path: Path) -> None:
    line, unit = PRINTED[kind]
    path = tmp_path / "train.log"
    lines = [line.format(at=at, of=at // 10, d=value, g=9 + at) for at, value in enumerate(D)]
    path.write_text("\n".join(["Namespace(lr=0.0002, b1=0.5)", "Using device: cuda", "", *lines]))
    found = diagnose(path)
    assert found.log.columns["d_adv"] == pytest.approx(D)
    assert found.log.columns["g_adv"] == pytest.approx(np.arange(9, 49))
    assert found.log.unit == unit
    assert [finding.name for finding in found.findings] == ["d-too-strong"]


def test_rows_are_told_in_the_order_of_their_steps(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,d_loss\n20,0.2\n,9\n10,0.1\n30,0.3\n")
    log = diagnose(path).log
    assert (log.at.tolist(), log.columns["d_adv"].tolist()) == ([10, 20, 30], [0.1, 0.2, 0.3])


def test_a_log_of_powershell_is_read(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_text("\n".join(f"step {at} d_loss: {value}" for at, value in enumerate(D)), encoding="utf-16")
    assert diagnose(path).log.columns["d_adv"][1:] == pytest.approx(D[1:])


def test_a_progress_bar_is_a_log(tmp_path: Path) -> None:
    path = tmp_path / "bar.log"
    path.write_text(
        "\r".join(f"Epoch 3: {at}%|#| {at}/40 [00:01<00:09, 5.0it/s, loss_D={d}]" for at, d in enumerate(D))
    )
    assert diagnose(path).log.columns["d_adv"] == pytest.approx(D)


@pytest.mark.parametrize("kind", ["Lightning", "wandb", "history", "list"])
def test_the_exports_of_other_tools_are_read(kind: str, tmp_path: Path) -> None:
    path, unit = tmp_path / "log.csv", "steps"
    if kind == "Lightning":  # a row for each loss, and the means of the epochs
        rows = [f",{value},{at // 10},,{at}\n,,{at // 10},{at},{at}" for at, value in enumerate(D)]
        rows[9:40:10] = [f"{row}\n1.0,,0,,{9 + 10 * of}" for of, row in enumerate(rows[9:40:10])]
        path.write_text("\n".join(["d_loss_epoch,d_loss_step,epoch,g_loss_step,step", *rows]))
    elif kind == "wandb":
        rows = [f'"{at}","{value}","0","9"' for at, value in enumerate(D)]
        path.write_text("\n".join(['"Step","dcgan-7 - d_loss","dcgan-7 - d_loss__MIN","dcgan-7 - d_loss__MAX"', *rows]))
    else:
        unit = "lines"
        path.write_text(json.dumps({"d_loss": D} if kind == "history" else [{"d_loss": value} for value in D]))
    found = diagnose(path)
    assert found.log.columns["d_adv"] == pytest.approx(D)
    assert (found.log.unit, found.log.at[-1]) == (unit, 39)
    assert [finding.name for finding in found.findings] == ["d-too-strong"]


def test_a_table_of_several_runs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wandb.csv"
    path.write_text("Step,a-1 - d_loss,b-2 - d_loss\n" + "\n".join(f"{at},{value},1.0" for at, value in enumerate(D)))
    with raises("log-unclear", path, "a-1 - d_loss"):
        diagnose(path)
    assert diagnose(path, map=["d_loss=a-1 - d_loss"]).verdict == KINDS["d-too-strong"].verdict


def test_printed_lines_without_a_known_loss_list_what_they_have(tmp_path: Path) -> None:
    path = tmp_path / "pix2pix.log"
    path.write_text(
        "==== Training Loss ====\n" + "\n".join(f"(iters: {at}) G_GAN: 1.0 D_real: {d}" for at, d in enumerate(D))
    )
    with raises("columns-unknown", path, "G_GAN", "D_real"):
        diagnose(path)
    assert diagnose(path, map=["d_loss=D_real"]).log.columns["d_adv"] == pytest.approx(D)


def test_a_loss_that_is_not_known_to_be_a_cross_entropy_is_not_judged_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("d_loss\n" + "\n".join(map(str, [0.5] * 10 + [0.01] * 30)))
    found = diagnose(path)
    assert found.findings == []
    assert "d-too-strong" in found.unknown
    path.write_text("d_loss\n" + "\n".join(map(str, [0.5] * 30 + ["nan"] * 5)))
    assert [finding.name for finding in diagnose(path).findings] == ["diverged"]


def test_columns_are_mapped_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b\n" + "\n".join(f"{at},{value}" for at, value in enumerate(D)))
    with raises("columns-unknown", path, "a, b"):
        diagnose(path)
    assert diagnose(path, map=["d_loss=b", "step=a"]).verdict == KINDS["d-too-strong"].verdict
    status, out, _ = call(monkeypatch, capsys, "diagnose", path, "--map", "d_loss=b", "--fail-on", "error")
    assert status == 1
    assert KINDS["d-too-strong"].verdict in out.splitlines()[0]
    assert "without samples" in out.splitlines()[-1]
    with raises("unknown-name", "c", "a, b"):
        diagnose(path, map="d_loss=c")
    with raises("value-invalid", "d_loss"):
        diagnose(path, map="d_loss")


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    with raises("path-not-found", tmp_path / "none"):
        diagnose(tmp_path / "none")
    with raises("log-empty", tmp_path):
        diagnose(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "two" / name).mkdir(parents=True)
        (tmp_path / "two" / name / "events.out.tfevents.1").write_bytes(event(1, "d_loss", 1.0, False))
    with raises("log-unclear", tmp_path / "two" / "a"):
        diagnose(tmp_path / "two")
    for name, content in (("x.csv", b""), ("x.jsonl", b"{\n"), ("x.tfevents", b"\x05\0\0\0\0\0\0\0" + b"\xff" * 17)):
        (tmp_path / name).write_bytes(content)
        with raises("log-empty", tmp_path / name):
            diagnose(tmp_path / name)
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(3000))
    with raises("columns-unknown", tmp_path / "noise"):
        diagnose(tmp_path / "noise")


# --- samples of any generator ----------------------------------------------------------------------------------------


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes an .npz of labelled images and returns its path."""
    monkeypatch.setattr(diagnose_samples, "load_extractor", lambda: random_projection(64))

    def save(name: str, images: Any, labels: Any) -> Path:
        path = tmp_path / f"{name}.npz"
        np.savez(path, arr_0=images, arr_1=labels, class_names=np.array(["a", "b", "c"]))
        return path

    return save


def test_samples_of_any_generator_are_judged(sets: Any) -> None:
    real, labels = drawn(480, 0)
    data = sets("data", real, labels)
    fakes, asked = drawn(120, 1)
    healthy = diagnose(samples=sets("healthy", fakes, asked), data=data)
    assert (healthy.verdict, healthy.log.at[-1], healthy.findings) == ("healthy", 120, [])
    assert {"d-too-strong", "no-progress"} <= {*healthy.unknown}
    one_of_each = real[:3][asked]
    for name, images, of in (
        ("copies", real[:120], labels[:120]), ("collapse", one_of_each, asked),
        ("class-ignored", fakes, (asked + 1) % 3), ("colour-shift", fakes // 2 + 100, asked),
    ):  # fmt: skip
        found = diagnose(samples=sets(name, images, of), data=data)
        assert name in [finding.name for finding in found.findings]
        assert "--config" not in found.findings[0].remedy


def test_samples_are_judged_together_with_a_log_of_another_tool(sets: Any, tmp_path: Path) -> None:
    log, (real, labels) = tmp_path / "log.csv", drawn(480, 0)
    log.write_text("d_loss\n" + "\n".join(map(str, D)))
    found = diagnose(log, samples=sets("x", real[:3][labels[:60]], labels[:60]), data=sets("data", real, labels))
    assert {"d-too-strong", "collapse"} <= {finding.name for finding in found.findings}
    told = {event.finding.name: event for event in found.events}
    assert told["d-too-strong"].since < told["collapse"].since == 39
    assert "collapse" in [event.finding.name for event in told["d-too-strong"].explained]


def test_samples_that_cannot_be_judged_are_refused(
    sets: Any, tmp_path: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, labels = drawn(480, 0)
    data, few = sets("data", images, labels), sets("few", images[:20], labels[:20])
    with raises("too-few-images", few, "20"):
        diagnose(samples=few, data=data)
    with raises("too-few-images", few, "20"):
        diagnose(samples=data, data=few)
    with raises("data-missing", "--data"):
        diagnose(samples=few)
    with raises("usage", "--samples"):
        diagnose()
    with raises("options-conflict", "--samples"):
        diagnose(tmp_path / "log.csv", data=data)
    assert call(monkeypatch, capsys, "diagnose", "--samples", few, "--data", data)[0] == 2
    run = train(shapes, out=tmp_path / "run", **SMALL)
    with raises("options-conflict", run, "--samples"):
        diagnose(run, samples=data, data=data)


# --- in a run --------------------------------------------------------------------------------------------------------


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Fields of a small run whose snapshots are scored, at no cost, and judged after a few images."""
    monkeypatch.setattr(snapshot, "MIN_SELECT", 2)
    monkeypatch.setattr(snapshot.features, "load_extractor", lambda **_: random_projection())
    monkeypatch.setattr(module, "LEAST_IMAGES", 8)
    monkeypatch.setattr(module, "LEAST_UPDATES", 2)
    return {**SMALL, "split": "60/40/0", "snapshots": 3, "live_images": 30}


def test_each_snapshot_has_statistics_a_verdict_and_findings(
    scored: dict[str, Any], shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = train(shapes, out=tmp_path / "run", **scored)
    assert sum(line.startswith("verdict at") for line in capsys.readouterr().out.splitlines()) == 3
    rows = [row for row in read_rows(run / "metrics.jsonl").values() if "findings" in row]
    assert len(rows) == 3
    names = {"variety", "class_accuracy", "real_accuracy", "colour_gap", "nyquist", "copying"}
    for row in rows:
        assert names <= {*row}
    found = diagnose(run)
    assert [finding.name for finding in found.findings] == rows[-1]["findings"]
    assert found.verdict in call(monkeypatch, capsys, "diagnose", run)[1].splitlines()[0]


def test_the_diagnosis_changes_nothing_of_a_run(scored: dict[str, Any], shapes: Path, tmp_path: Path) -> None:
    (first, _), (second, _) = (
        load_tensors(train(shapes, out=tmp_path / name, **scored | given) / "checkpoints" / "000000048.safetensors")
        for name, given in (("with", {}), ("without", {"live_images": 0}))
    )
    assert {*first} == {*second}
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_a_run_stops_on_a_finding(
    scored: dict[str, Any], shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    fault = Finding("collapse", "error", "images differ by 0.2", "below 0.5", "variety", "ptarmigan train --r1 1")
    monkeypatch.setattr(snapshot, "findings", lambda log: [fault] if log.at[-1] > 20 else [])
    with raises("stopped-on-finding", "32 images", "collapse", "--r1 1"):
        train(shapes, out=tmp_path / "run", **scored, stop_on="error")
    train(shapes, out=tmp_path / "run", **scored, stop_on="copies")
    assert '"finished": true' in (tmp_path / "run" / "metrics.jsonl").read_text()
    options = [f"--{name.replace('_', '-')}={value}" for name, value in scored.items()]
    status, _, error = call(
        monkeypatch, capsys, "train", shapes, "--out", tmp_path / "other", *options, "--stop-on", "collapse"
    )
    assert status == 1
    assert "[stopped-on-finding]" in error


def test_a_diagnosis_that_fails_does_not_end_the_run(
    scored: dict[str, Any], shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no such column")

    monkeypatch.setattr(snapshot, "findings", fail)
    run = train(shapes, out=tmp_path / "run", **scored)
    assert "no such column" in capsys.readouterr().out
    assert "select_kid" in (run / "metrics.jsonl").read_text()


def test_a_run_that_trains_is_followed_until_it_ends(
    scored: dict[str, Any], shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = train(shapes, out=tmp_path / "run", **scored)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    snapshots = [at for at, line in enumerate(lines, 1) if "findings" in line]
    growing = iter([0, 2, *(at for at in snapshots for _ in range(2)), None])  # None: the process has ended

    def grow(_: Path) -> bool:
        count = next(growing)
        (run / "metrics.jsonl").write_text("".join(lines[:count]))
        return count is not None

    monkeypatch.setattr(command, "is_locked", grow)
    monkeypatch.setattr(command, "POLL_SECONDS", 0)
    capsys.readouterr()
    status, out, _ = call(monkeypatch, capsys, "diagnose", run, "--watch")
    verdicts = [line for line in out.splitlines() if line.startswith("verdict")]
    assert status == 0
    assert len(verdicts) == len(snapshots) + 2  # also where it is first seen, and at its end
    assert verdicts[-1] == verdicts[-2]
    status, _, error = call(monkeypatch, capsys, "diagnose", run, "--watch", "--map", "d_loss=x")
    assert (status, "[options-conflict]" in error) == (2, True)
    log = tmp_path / "log.csv"
    log.write_text("d_loss\n" + "\n".join(map(str, D)))
    monkeypatch.setattr(command, "is_locked", lambda _: False)
    assert "[options-conflict]" in call(monkeypatch, capsys, "diagnose", log, "--watch")[2]
