"""The report: each figure is that of the metrics, and each planted fault is seen by the figure that is there for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from ptarmigan.commands.score_sources import allocate
from ptarmigan.evaluation import intervals, metrics
from ptarmigan.evaluation.evaluate import MIN_HELD_OUT, SUSPECTS, ComparedSets, FeatureSet, evaluate, labels_of
from ptarmigan.evaluation.features.classifier import chance_corrected, train_classifier
from ptarmigan.evaluation.verdict import LinearClassifier, judge
from test_metrics import prdc

NAMES = "ant", "bee", "cat"
CENTRES = torch.tensor([[4.0, 0, 0, 0, 0, 0], [0, 4, 0, 0, 0, 0], [0, 0, 4, 0, 0, 0]])


def drawn(count: int, seed: int, spread: float = 1.0, labels: np.ndarray | None = None) -> FeatureSet:
    """Three Gaussian classes in six dimensions."""
    labels = np.arange(count) % 3 if labels is None else labels
    noise = torch.randn((count, 6), generator=torch.Generator().manual_seed(seed))
    return FeatureSet(CENTRES[torch.from_numpy(labels)] + spread * noise, labels)


def sets_of(
    made: Callable[[int], FeatureSet] = lambda turn: drawn(240, 10 + turn), held: int = 300, count: int = 4
) -> ComparedSets:
    generated = [made(turn) for turn in range(count)]
    return ComparedSets(drawn(960, 1), drawn(held, 2), generated, generated, NAMES)


def quiet(_: str) -> None:
    pass


def note_with(report: dict[str, Any], *facts: str) -> str:
    """The one note that has all of these."""
    (note,) = (note for note in report["notes"] if all(fact in note for fact in facts))
    return str(note)


@pytest.fixture(autouse=True)
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptarmigan.evaluation.features.classifier.SAMPLES_SEEN", (12_500, 12_500))


@pytest.fixture(scope="module")
def same() -> dict[str, Any]:
    """Generated images that are distributed as the real ones."""
    return evaluate(sets_of(), quiet)


def test_each_figure_is_the_mean_of_its_metric_over_the_sets_with_its_interval(same: dict[str, Any]) -> None:
    sets = sets_of()
    held, seen = sets.held_out.features, sets.train.subsample(-1, 300).features
    made = [generated.features for generated in sets.generated]
    floors = [sets.train.subsample(turn, 240).features for turn in range(4)]
    of = {
        "kid": metrics.kid,
        "frechet": lambda a, b: metrics.frechet(metrics.gaussian(a), metrics.gaussian(b)),
        **{
            name: lambda a, b, name=name: getattr(prdc(a, b), name)
            for name in ("precision", "recall", "density", "coverage")
        },
    }
    assert set(same["figures"]) == set(of)
    for name, metric in of.items():
        columns = {
            "held_out": [metric(held, features) for features in made],
            "train": [metric(seen, features) for features in made],
            "floor": [metric(held, features) for features in floors],
        }
        columns["excess"] = np.subtract(columns["held_out"], columns["floor"]).tolist()
        assert set(same["figures"][name]) == set(columns)
        for column, values in columns.items():
            found = same["figures"][name][column]
            assert found["mean"] == pytest.approx(np.mean(values), rel=1e-5, abs=1e-6)
            low, high = ttest_1samp(values, 0).confidence_interval(0.95)
            assert (found["low"], found["high"]) == pytest.approx((low, high), rel=1e-4, abs=1e-6)


def test_where_nothing_is_wrong_the_only_note_is_that_classes_are_like_real_ones(same: dict[str, Any]) -> None:
    assert same["verdict"] == "Recognisable: ant, bee, cat. No copies found."
    assert same["notes"] == [note_with(same, "KID", "ant, bee, cat")]
    assert same["copies"]["closer_than_held_out"]["high"] < 0.02
    assert abs(same["copies"]["c_t"]["mean"]) < 1.5
    assert same["copies"]["authenticity"]["mean"] == pytest.approx(same["copies"]["authenticity_held_out"], abs=0.06)
    assert same["copies"]["distance_ratio"]["mean"] == pytest.approx(1, abs=0.05)
    assert same["accuracy"]["generated"]["mean"] == pytest.approx(same["accuracy"]["held_out"], abs=0.02)
    for entry in same["classes"].values():
        assert entry["diversity"]["mean"] == pytest.approx(1, abs=0.1)
        assert (entry["held_out_images"], entry["train_images"]) == (100, 320)


def test_swapped_labels_are_seen_by_the_classes_alone(same: dict[str, Any]) -> None:
    def swapped(turn: int) -> FeatureSet:
        sample = drawn(240, 10 + turn)
        assert sample.labels is not None
        return replace(sample, labels=np.array([1, 0, 2])[sample.labels])

    found = evaluate(sets_of(swapped), quiet)
    for figure, row in same["figures"].items():
        for column, value in row.items():
            assert found["figures"][figure][column] == pytest.approx(value, abs=1e-9)
    for name in ("ant", "bee"):
        assert found["classes"][name]["kid"]["excess"]["low"] > 1
        assert found["classes"][name]["accuracy"]["generated"]["high"] < 0.1
    for column, value in same["classes"]["cat"]["kid"].items():
        assert found["classes"]["cat"]["kid"][column] == pytest.approx(value, abs=1e-9)
    assert "Recognisable: cat. Weak: ant" in found["verdict"]
    assert [entry["call"] for entry in found["classes"].values()] == ["weak", "weak", "recognisable"]


def test_copies_of_training_images_are_seen_and_named() -> None:
    train = sets_of().train
    found = evaluate(sets_of(lambda turn: train.subsample(turn, 240)), quiet)["copies"]
    assert found["c_t"]["high"] < -3
    assert found["distance_ratio"]["high"] < 0.01
    assert found["authenticity"]["high"] < 0.01
    assert found["authenticity_held_out"] > 0.3
    assert len(found["suspects"]) == SUSPECTS
    assert len({suspect["train"] for suspect in found["suspects"]}) == SUSPECTS
    for suspect in found["suspects"]:
        copy = train.subsample(suspect["set"], 240).features[suspect["image"]]
        assert torch.equal(copy, train.features[suspect["train"]])


@pytest.mark.parametrize(("copied", "said"), [(24, True), (1, False)])
def test_a_tenth_of_copies_is_enough_to_be_said(copied: int, said: bool) -> None:
    train = sets_of().train

    def some_copied(turn: int) -> FeatureSet:
        sample = drawn(240, 10 + turn)
        features = sample.features.clone()
        features[:copied] = train.subsample(turn, 240).features[:copied]
        return replace(sample, features=features)

    found = evaluate(sets_of(some_copied), quiet)
    assert found["copies"]["closer_than_held_out"]["mean"] == pytest.approx(copied / 240, abs=0.02)
    assert any(f"{found['copies']['closer_than_held_out']['mean']:.0%}" in note for note in found["notes"]) is said


def test_a_collapse_is_said_and_a_real_variety_is_not() -> None:
    def few(turn: int) -> FeatureSet:
        sample = drawn(240, 10)
        places = np.arange(240) % 12  # twelve images, each twenty times
        return sample.take(places)

    found = evaluate(sets_of(few), quiet)
    recall = found["figures"]["recall"]
    assert "Little variety in ant, bee, cat." in found["verdict"]
    note_with(found, "recall", f"{recall['held_out']['mean']:.2f}", f"{recall['floor']['mean']:.2f}")


def test_a_class_is_told_apart_only_beyond_the_chance_of_so_many_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[float] = []
    real = intervals.interval

    def noted(values: list[float], level: float = 0.95) -> intervals.Interval:
        levels.append(level)
        return real(values, level)

    monkeypatch.setattr(intervals, "interval", noted)
    found = evaluate(sets_of(), quiet)
    assert levels.count(1 - 0.05 / 3) == 3
    assert [entry["told_apart"] for entry in found["classes"].values()] == [False] * 3


def test_the_suspects_are_the_nearest_to_their_training_image_for_what_is_usual_there(same: dict[str, Any]) -> None:
    sets = sets_of()
    train = sets.train.features
    apart = torch.cdist(train, train).fill_diagonal_(torch.inf).min(1).values
    ratios: dict[int, float] = {}  # training image -> the lowest of the generated images that are nearest to it
    for generated in sets.generated:
        far, at = torch.cdist(generated.features, train).min(1)
        for place, ratio in zip(at.tolist(), (far / apart[at]).tolist(), strict=True):
            ratios[place] = min(ratio, ratios.get(place, ratio))
    found = [suspect["ratio"] for suspect in same["copies"]["suspects"]]
    assert found == pytest.approx(sorted(ratios.values())[:SUSPECTS], rel=1e-3)


def test_a_generator_of_few_images_has_as_few_suspects() -> None:
    found = evaluate(sets_of(lambda turn: drawn(240, 10).take(np.arange(240) % 3)), quiet)
    assert len(found["copies"]["suspects"]) == 3
    assert "Little variety" in found["verdict"]


def test_a_class_of_few_images_is_unknown_whatever_is_generated() -> None:
    labels = np.arange(960) % 3
    labels[(labels == 2) & (np.arange(960) > 30)] = 0
    found = evaluate(replace(sets_of(), train=drawn(960, 1, labels=labels)), quiet)
    assert found["classes"]["cat"]["call"] == "unknown"
    assert "Unknown: cat (10 training images)" in found["verdict"]


def test_copies_are_in_the_verdict_and_too_few_held_out_images_cannot_show_any() -> None:
    train = sets_of().train
    assert "Copies: 100% of the images." in evaluate(sets_of(lambda turn: train.subsample(turn, 240)), quiet)["verdict"]
    assert "Copies: unknown (19 held-out images)." in evaluate(sets_of(held=19), quiet)["verdict"]


def test_what_is_left_out_of_a_linear_classifier_is_as_if_it_had_not_been_there() -> None:
    sample = drawn(60, 1, spread=3)
    whole = LinearClassifier(sample.features, labels_of(sample), 3)
    rest = np.delete(np.arange(60), 7)
    inputs = whole._inputs(sample.features)
    weights = torch.full((60, 1), 1 / 60, dtype=torch.float64)[rest]  # 20 of each of 3 classes
    target = torch.eye(3, dtype=torch.float64)[labels_of(sample)]
    penalty = torch.eye(inputs.shape[1], dtype=torch.float64)
    penalty[-1, -1] = 0  # of the intercept
    normal = inputs[rest].T @ (weights * inputs[rest]) + penalty
    expected = inputs[7] @ torch.linalg.solve(normal, inputs[rest].T @ (weights * target[rest]))
    assert torch.allclose(whole.left_out[7], expected)


def test_a_linear_classifier_of_few_samples_does_not_know_a_class_that_they_do_not_show() -> None:
    right = []
    for seed in range(4):
        labels = np.random.default_rng(seed).permutation(np.arange(50) % 10)
        features = torch.randn(50, 400, generator=torch.Generator().manual_seed(seed))
        right.append(LinearClassifier(features, labels, 10).left_out.argmax(1).numpy() == labels)
    assert np.mean(right) < 0.15


def test_accuracy_varies_by_the_set_and_not_by_the_class() -> None:
    def half(turn: int) -> FeatureSet:
        sample = drawn(240, 10 + turn)
        assert sample.labels is not None
        return replace(sample, labels=(sample.labels + turn) % 3)

    found = evaluate(sets_of(half, count=2), quiet)["accuracy"]["generated"]
    assert found["mean"] == pytest.approx(0.5, abs=0.02)
    assert found["high"] > 5  # Student's t of one degree of freedom


def test_a_class_that_is_recognised_too_rarely_is_called_weak() -> None:
    def mixed(turn: int) -> FeatureSet:
        sample = drawn(240, 10 + turn)
        assert sample.labels is not None
        wrong = (sample.labels == 1) & (np.arange(240) % 5 < 3)  # three of five bees show ants
        features = sample.features.clone()
        features[torch.from_numpy(wrong)] = sample.features[0]
        return replace(sample, features=features)

    found = evaluate(sets_of(mixed), quiet)
    assert {name: entry["call"] for name, entry in found["classes"].items()} == {
        "ant": "recognisable", "bee": "weak", "cat": "recognisable",
    }  # fmt: skip
    assert "Recognisable: ant, cat. Weak: bee" in found["verdict"]


def test_samples_that_are_too_easy_are_called_so() -> None:
    train = drawn(960, 1, spread=2.5)
    easy = [drawn(240, 10 + turn, spread=0.8) for turn in range(4)]
    found = evaluate(ComparedSets(train, drawn(300, 2, spread=2.5), easy, easy, NAMES), quiet)
    assert found["accuracy"]["generated"]["low"] > found["accuracy"]["held_out"]
    note_with(found, "too easy", "projection")


def test_a_class_of_few_held_out_images_is_measured_against_training_images_and_said() -> None:
    labels = np.array([0] * 150 + [1] * 150 + [2] * (MIN_HELD_OUT - 1))
    sets = replace(sets_of(), held_out=drawn(len(labels), 2, labels=labels))
    found = evaluate(sets, quiet)
    assert set(found["classes"]["cat"]["kid"]) == {"train"}
    assert set(found["classes"]["bee"]["kid"]) == {"train", "held_out", "floor", "excess"}
    assert note_with(found, str(MIN_HELD_OUT), "cat").endswith(": cat (9)")


def test_a_classifier_that_knows_too_little_is_no_judge() -> None:
    def noise(count: int, seed: int) -> FeatureSet:
        return drawn(count, seed, spread=60)

    made = [noise(240, 10 + turn) for turn in range(4)]
    found = evaluate(ComparedSets(noise(960, 1), noise(300, 2), made, made, NAMES), quiet)
    assert "generated" not in found["accuracy"]
    note_with(found, "no class accuracy", f"{found['accuracy']['held_out']:.0%}")


def test_a_class_that_was_not_generated_is_named_and_leaves_the_rest_a_number() -> None:
    found = evaluate(sets_of(lambda turn: drawn(240, turn, labels=np.arange(240) % 2)), quiet)
    assert note_with(found, "generated sets", "cat").endswith(": cat")
    assert np.isfinite(found["accuracy"]["generated"]["mean"])
    assert "kid" not in found["classes"]["cat"]


def test_classes_that_are_never_all_there_leave_no_accuracy() -> None:
    found = evaluate(sets_of(lambda turn: drawn(240, turn, labels=np.full(240, turn % 3))), quiet)
    assert note_with(found, "generated sets").endswith(": ant, bee, cat")
    assert "generated" not in found["accuracy"]


def test_a_class_of_equal_training_images_has_no_diversity_to_compare_with() -> None:
    train = drawn(960, 1)
    assert train.labels is not None
    train.features[torch.from_numpy(train.labels == 1)] = CENTRES[1]
    found = evaluate(replace(sets_of(), train=train), quiet)
    assert "diversity" not in found["classes"]["bee"]
    note_with(found, "diversity", "bee")


def test_features_far_from_all_that_a_classifier_learnt_stay_finite_in_size() -> None:
    features = torch.randn(300, 6)
    features[:, 0] = 0
    classifier = train_classifier(features, np.arange(300) % 3, 3)
    assert classifier.features(1e6 * torch.randn(50, 6)).max() < 1e3


def test_no_frechet_distance_with_fewer_images_than_its_dimensions_ask() -> None:
    assert "frechet" in evaluate(sets_of(lambda turn: drawn(7, turn)), quiet)["figures"]
    found = evaluate(sets_of(lambda turn: drawn(6, turn)), quiet)
    assert "frechet" not in found["figures"]
    note_with(found, "Fréchet", "6 features", "7 images", "6 generated")


def test_unknown_classes_leave_the_figures_over_all() -> None:
    found = evaluate(sets_of(lambda turn: replace(drawn(240, 10 + turn), labels=None)), quiet)
    assert set(found) == {"figures", "variety", "copies", "notes", "verdict"}
    assert found["verdict"] == "Like real images. No copies found."


@pytest.mark.slow
def test_a_classifier_of_generated_images_knows_real_ones_where_they_are_right() -> None:
    found = evaluate(sets_of(count=2), quiet, cas=True)["accuracy"]["cas"]
    assert found["generated"]["mean"] == pytest.approx(found["train"]["mean"], abs=0.03)
    assert found["train"]["mean"] > 0.95

    def shifted(turn: int) -> FeatureSet:
        sample = drawn(240, 10 + turn)
        assert sample.labels is not None
        return replace(sample, labels=(sample.labels + 1) % 3)

    found = evaluate(sets_of(shifted, count=2), quiet, cas=True)["accuracy"]["cas"]
    assert found["generated"]["mean"] < 0.05
    assert found["train"]["mean"] > 0.95


def test_draws_are_disjoint_until_all_are_used_and_never_twice_the_same() -> None:
    sample = FeatureSet(torch.arange(100.0)[:, None], np.arange(100))
    turns = [set(sample.subsample(turn, 30).features.flatten().tolist()) for turn in (-1, 0, 1, 2)]
    assert all(len(turn) == 30 for turn in turns)
    assert not turns[1] & turns[2] | turns[2] & turns[3] | turns[1] & turns[3] | turns[0] & turns[1]
    assert len(sample.subsample(3, 1000).features.unique()) == 100
    assert torch.equal(sample.subsample(1, 30).features, sample.subsample(1, 30).features)
    assert sorted(turns[1]) != list(range(30))  # as they come to hand would be class by class


def test_the_floors_draws_are_said_to_share_images_where_they_do(same: dict[str, Any]) -> None:
    assert not any("960" in note for note in same["notes"])
    note_with(evaluate(sets_of(lambda turn: drawn(300, turn)), quiet), "960", "1,200")


@given(st.integers(1, 2000), st.lists(st.integers(0, 1000), min_size=1, max_size=9).filter(any))
def test_shares_are_whole_and_the_nearest(n: int, counts: list[int]) -> None:
    shares = allocate(n, np.array(counts))
    assert shares.sum() == n
    assert (np.abs(shares - n * np.array(counts) / sum(counts)) < 1).all()
    assert all(share == 0 for share, count in zip(shares, counts, strict=True) if count == 0)


def test_skill_is_nothing_by_guessing_and_one_without_an_error() -> None:
    assert chance_corrected(0.25, 4) == 0
    assert chance_corrected(1.0, 4) == 1
    assert chance_corrected(0.625, 4) == 0.5


def interval_of(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}


@pytest.mark.parametrize(
    ("density", "recall", "variety", "verdict"),
    [
        (1.0, 0.8, 1.0, "Like real images. No copies found."),
        (0.4, 0.1, 1.0, "Details are unlike those of real images. No copies found."),
        (0.9, 0.1, 1.0, "Little of the variety of real images. No copies found."),
        (0.9, 0.8, 0.5, "Little of the variety of real images. No copies found."),
    ],
)
def test_without_classes_the_verdict_is_on_all_images(
    density: float, recall: float, variety: float, verdict: str
) -> None:
    figures = {
        name: {"held_out": interval_of(value), "floor": interval_of(floor)}
        for name, value, floor in (("density", density, 1), ("recall", recall, 0.8))
    }
    found: dict[str, Any] = {"figures": figures, "variety": interval_of(variety), "copies": {"found": False}}
    judge(found, 100)
    assert found["verdict"] == verdict


@pytest.mark.parametrize(
    ("recognised", "distance", "call"),
    [
        ((0.9, 0.8), 0.2, "recognisable"),
        ((0.3, 0.8), 0.2, "weak"),
        ((0.55, 0.8), 0.2, "unknown"),  # below .7 of it, but the intervals meet
        ((0.9, 0.8), 1.2, "weak"),
        ((0.9, 0.8), 0.9, "recognisable"),
        ((0.9, 0.4), 0.2, "unknown"),  # real ones are not recognised
        ((0.9, 0.8), None, "unknown"),  # they are not told from other classes
    ],
)
def test_a_class_is_called_by_what_is_recognised_and_by_its_distance(
    recognised: tuple[float, float], distance: float | None, call: str
) -> None:
    generated, real = map(interval_of, recognised)
    entry: dict[str, Any] = {"train_images": 30, "recognised": {"generated": generated, "real": real}}
    if distance is not None:
        entry["distance"] = interval_of(distance)
    figures = {name: {"held_out": interval_of(1), "floor": interval_of(1)} for name in ("density", "recall")}
    found: dict[str, Any] = {
        "figures": figures, "variety": interval_of(1), "copies": {"found": False}, "classes": {"ant": entry},
    }  # fmt: skip
    judge(found, 100)
    assert entry["call"] == call
    assert f"{call.capitalize()}: ant" in found["verdict"]
