"""What `auto` chooses: by data, budget and device, never against what was given; with its reasons; kept on resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conftest import SMALL
from ptarmigan import train
from ptarmigan.config import resolve
from ptarmigan.core.files import load_json
from ptarmigan.core.types import ImageSpec
from ptarmigan.training.auto import (
    BLOCKS_FROM,
    CURVES,
    FEW_PER_CLASS,
    FROZEN,
    GENTLE_FROM,
    LARGE_BATCH_FROM,
    SEEN_OFTEN,
    WIDE_FROM,
    Choice,
    Setting,
    advice,
    choose,
    expectation,
    rounded_time,
)
from support import raises

SPEC = ImageSpec(28, 28, 1, tuple("0123456789"))


NETWORK, LOSS, BATCH, AUGMENT = range(4)  # of the lines that say why


def choice_of(
    images: float, device: str = "cpu", fewest: int = 5000, spec: ImageSpec = SPEC, *, base: bool = False, **asked: Any
) -> Choice:
    choice = choose(resolve(asked), asked, Setting(spec, [fewest - 1, fewest + 1], device, images, base))
    assert len(choice.reasons) == 4
    return choice


def chosen(*arguments: Any, **fields: Any) -> dict[str, Any]:
    return choice_of(*arguments, **fields).config.flat()


def asked_for(line: str) -> str:
    """The fields that a line says were asked for."""
    return line.rpartition(": ")[2].removesuffix(" as given") if line.endswith(" as given") else ""


def test_a_long_budget_takes_larger_batches_and_a_weaker_penalty() -> None:
    short, long = choice_of(LARGE_BATCH_FROM - 1), choice_of(LARGE_BATCH_FROM)
    assert [short.config.flat()[key] for key in ("batch", "r1", "r2")] == [32, 0.2, 0.2]
    assert [long.config.flat()[key] for key in ("batch", "r1", "r2")] == [64, 0.1, 0.1]
    assert "batch 64" in long.reasons[BATCH]
    assert "R1 0.1 and R2 0.1" in long.reasons[LOSS]
    assert f"{LARGE_BATCH_FROM:,}" in long.reasons[BATCH]


def test_a_brief_budget_has_no_blocks_in_g_unless_they_are_asked_for() -> None:
    brief, longer = choice_of(BLOCKS_FROM - 1), choice_of(BLOCKS_FROM)
    assert (brief.config.model.g_blocks, longer.config.model.g_blocks) == (0, 1)
    for fact in ("no blocks in G", "4x4", f"{BLOCKS_FROM:,}"):
        assert fact in brief.reasons[NETWORK]
    assert "blocks" not in longer.reasons[NETWORK]
    assert chosen(BLOCKS_FROM - 1, "cuda")["g_blocks"] == 1
    asked = choice_of(BLOCKS_FROM - 1, g_blocks=2)
    assert asked.config.model.g_blocks == 2
    assert asked_for(asked.reasons[NETWORK]) == "g_blocks"
    other = choice_of(BLOCKS_FROM - 1, network="r3gan")  # which has blocks of its own
    assert "no blocks" not in other.reasons[NETWORK]


def test_a_gpu_takes_twice_the_width_where_the_budget_is_long() -> None:
    assert chosen(WIDE_FROM, "cuda")["width"] == 64
    assert chosen(WIDE_FROM - 1, "cuda")["width"] == chosen(10 * WIDE_FROM, "cpu")["width"] == 32
    assert f"{WIDE_FROM:,}" in choice_of(WIDE_FROM - 1, "cuda").reasons[NETWORK]


def test_for_large_images_d_learns_more_slowly_in_small_batches_and_g_has_blocks_whatever_the_budget() -> None:
    small, large = ImageSpec(32, 32, 3, tuple("0123456789")), ImageSpec(25, 41, 3, tuple("0123456789"))
    for images in (BLOCKS_FROM - 1, LARGE_BATCH_FROM, 10 * WIDE_FROM):
        choice = choice_of(images, spec=large)
        fields = [choice.config.flat()[key] for key in ("batch", "g_blocks", "g_lr", "d_lr", "r1")]
        assert fields == [32, 1, 2e-3, 1e-3, 1.5]
        assert "speckled" in choice.reasons[LOSS]
        assert choice.config.model.resampling == "smooth"
        assert "smooth resampling" in choice.reasons[NETWORK]
        assert "batch 32, learning rates 0.002 for G and 0.001 for D" in choice.reasons[BATCH]
        other = choice_of(images, spec=small)
        assert (other.config.train.d_lr, other.config.model.resampling) == (2e-3, "strided")
        assert "smooth" not in other.reasons[NETWORK]
        assert choice.reasons[BATCH].partition(": ")[2] != other.reasons[BATCH].partition(": ")[2]
    assert chosen(LARGE_BATCH_FROM, spec=small)["batch"] == 64
    assert chosen(LARGE_BATCH_FROM, spec=large, g_lr=1e-3)["d_lr"] == 1e-3
    asked = choice_of(LARGE_BATCH_FROM, spec=large, d_lr=3e-3, r1=0.2)
    assert [asked.config.flat()[key] for key in ("d_lr", "r1", "r2")] == [3e-3, 0.2, 1.5]
    assert "rates 0.002 for G and 0.003 for D" in asked.reasons[BATCH]
    assert asked_for(asked.reasons[BATCH]) == "d_lr"
    assert chosen(LARGE_BATCH_FROM, spec=large, network="r3gan")["resampling"] == "strided"
    assert chosen(LARGE_BATCH_FROM, spec=large, resampling="strided")["resampling"] == "strided"


def test_from_the_base_the_first_stages_of_d_stay_as_they_are() -> None:
    choice = choice_of(10, base=True)
    assert choice.config.model.d_frozen == FROZEN
    assert f"D's first {FROZEN} stages frozen" in choice.reasons[NETWORK]
    assert asked_for(choice_of(10, base=True, d_frozen=1).reasons[NETWORK]) == "d_frozen"
    for other in (choice_of(10), choice_of(10, base=True, d_frozen=0), choice_of(10, base=True, network="r3gan")):
        assert other.config.model.d_frozen == 0
        assert "frozen" not in other.reasons[NETWORK].removesuffix("d_frozen as given")


def test_what_was_asked_for_stays_and_is_said() -> None:
    choice = choice_of(10 * WIDE_FROM, "cuda", width=20, batch=16, r1=0.0)
    assert [choice.config.flat()[key] for key in ("width", "batch", "r1", "r2")] == [20, 16, 0.0, 0.2]
    assert [asked_for(line) for line in choice.reasons] == ["width", "r1", "batch", ""]
    assert "R2 0.2" in choice.reasons[LOSS]


def test_for_few_images_d_sees_changed_ones_unless_it_was_asked_otherwise() -> None:
    seen = SEEN_OFTEN * 2 * (FEW_PER_CLASS - 1)  # of both classes
    memorised = GENTLE_FROM * 2 * (FEW_PER_CLASS - 1)
    few = choice_of(memorised, fewest=FEW_PER_CLASS - 1)
    fields = few.config.flat()
    assert [fields[key] for key in ("augment", "augment_p", "r1", "r2")] == ["gentle", 1, 0.4, 0.4]
    assert "augmentation gentle: 198 to 200 images per class, each seen about 150 times: " in few.reasons[AUGMENT]
    for images in (seen, memorised - 1):
        choice = choice_of(images, fewest=FEW_PER_CLASS - 1)
        fields = choice.config.flat()
        assert (fields["augment"], fields["r1"], fields["r2"]) == ("none", 1.0, 1.0)
        assert choice.reasons[AUGMENT].startswith("augmentation none: 198 to 200 images per class, each seen about ")
        assert f"from {GENTLE_FROM} times" in choice.reasons[AUGMENT]
    assert memorised < LARGE_BATCH_FROM
    long = chosen(LARGE_BATCH_FROM, fewest=FEW_PER_CLASS - 1)
    assert (long["batch"], long["r1"], long["augment"]) == (64, 0.4, "gentle")
    assert chosen(LARGE_BATCH_FROM, fewest=FEW_PER_CLASS - 1, augment="none")["r1"] == 1.0
    plate = ImageSpec(48, 64, 3, SPEC.class_names)
    for images, augment in ((seen - 1, "none"), (seen, "gentle")):
        fields = chosen(images, fewest=FEW_PER_CLASS - 1, spec=plate)
        assert (fields["augment"], fields["r1"]) == (augment, 1.5)
    assert "gentle helps from 50 times" in choice_of(10, fewest=FEW_PER_CLASS - 1, spec=plate).reasons[AUGMENT]
    assert "memorising" in few.reasons[LOSS]
    on_cuda = chosen(memorised, "cuda", fewest=FEW_PER_CLASS - 1)
    assert (on_cuda["augment"], on_cuda["r1"]) == ("none", 1.0)
    enough, seldom = choice_of(2 * memorised, fewest=FEW_PER_CLASS), choice_of(seen - 1, fewest=FEW_PER_CLASS - 1)
    for choice in (enough, seldom):
        fields = choice.config.flat()
        assert (fields["augment"], fields["augment_p"]) == ("none", 1)
        assert fields["r1"] == fields["r2"] < 0.4
    assert enough.reasons[AUGMENT].startswith("augmentation none: 199 to 201 images per class, each seen about ")
    assert f"below {FEW_PER_CLASS}" in enough.reasons[AUGMENT]
    for images, often in ((199, "less than once;"), (400, "about once;"), (800, "about 2 times;")):
        assert f"each seen {often}" in choice_of(images, fewest=FEW_PER_CLASS).reasons[AUGMENT]
    assert few.reasons[LOSS].partition(": ")[2] != enough.reasons[LOSS].partition(": ")[2]
    for asked in ({"augment": "ada"}, {"augment": "none"}, {"augment": "diffaugment"}):
        choice = choice_of(seen, fewest=FEW_PER_CLASS - 1, **asked)
        fields = choice.config.flat()
        gamma = 1.0 if asked["augment"] == "none" else 0.4
        assert (fields["augment"], fields["augment_p"], fields["r1"]) == (asked["augment"], 1, gamma)
        assert asked_for(choice.reasons[AUGMENT]) == "augment"
    assert chosen(seen, fewest=FEW_PER_CLASS - 1, augment="diffaugment", augment_p=0.7)["augment_p"] == 0.7


def expected(height: int, width: int, channels: int, rate: float, device: str = "cpu") -> str:
    spec = ImageSpec(height, width, channels, SPEC.class_names)
    return expectation(Setting(spec, [5000] * 10, device, 1e5), rate)


def test_the_expectation_is_the_measured_curve_at_the_speed_of_this_run() -> None:
    for curve in CURVES:
        rate = curve.rough / 120
        text = expected(curve.height, curve.width, 3 if curve.colour else 1, rate)
        assert f"{rate:,.0f} images/s, {curve.height}x{curve.width} in {'colour' if curve.colour else 'grey'}: " in text
        assert "rough shapes in 2 minutes" in text
        assert f"recognisable ones in {rounded_time(curve.recognisable / rate)}" in text
        reached = rounded_time((curve.good or curve.measured) / rate)
        assert f"good ones {'in' if curve.good else 'take more than'} {reached}" in text
        assert ("H200" in text) == bool(curve.h200)
        assert "measured" not in text
    assert "H200" not in expected(28, 28, 1, 100, "cuda")


@pytest.mark.parametrize(
    ("shape", "measured", "more"),
    [
        ((256, 256, 3), "64x64 in colour", True), ((32, 32, 1), "28x28 in grey", True),
        ((28, 28, 3), "28x28 in grey", True), ((64, 64, 1), "64x64 in colour", False),
        ((60, 60, 4), "64x64 in colour", False),
    ],
)  # fmt: skip
def test_the_expectation_says_where_the_size_was_not_measured(
    shape: tuple[int, int, int], measured: str, more: bool
) -> None:
    text = expected(*shape, 100)
    assert f"{shape[0]}x{shape[1]} in {'colour' if shape[2] > 1 else 'grey'}: " in text
    assert f"measured at {measured} only" in text
    assert "H200" not in text
    assert ("expect more" in text) == more


@pytest.mark.parametrize(
    ("shape", "images", "facts"),
    [
        ((256, 256, 3), 430.0, ["430 images", "--size 64,", "16 times"]),
        ((100, 140, 3), 12_345.0, ["12,000 images", "--size 64x90", "2.4 times"]),
        ((256, 256, 3), 43_500.0, []), ((64, 64, 3), 430.0, []), ((28, 28, 1), 430.0, []),
    ],
)  # fmt: skip
def test_a_smaller_size_is_advised_where_the_budget_is_too_short_for_a_large_one(
    shape: tuple[int, int, int], images: float, facts: list[str]
) -> None:
    line = advice(Setting(ImageSpec(*shape, SPEC.class_names), [5000] * 10, "cpu", images))
    assert bool(line) == bool(facts)
    assert all(fact in line for fact in facts)


def test_every_measured_curve_is_in_the_benchmarks() -> None:
    page = (Path(__file__).parent.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for curve in CURVES:
        good = f"{curve.good:,}" if curve.good else f"not by {curve.measured:,}"
        size = f"{curve.height}x{curve.width} {'colour' if curve.colour else 'grey'}"
        assert f"| {size} | {curve.rough:,} | {curve.recognisable:,} | {good} |" in page


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 second"),
        (52, "50 seconds"),
        (119, "2 minutes"),
        (5400, "2 hours"),
        (9e5, "10 days"),
        (80, "80 seconds"),
    ],
)
def test_an_expected_time_has_the_digits_of_an_estimate(seconds: float, text: str) -> None:
    assert rounded_time(seconds) == text


def test_a_run_keeps_what_was_chosen_when_its_budget_grows(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("ptarmigan.training.auto.LARGE_BATCH_FROM", 64)
    given = {key: value for key, value in SMALL.items() if key != "batch"} | dict(live_images=0)
    run = train(shapes, out=tmp_path / "run", **given)
    said = capsys.readouterr().out
    assert "batch 32" in said
    assert "expect at " in said
    train(shapes, out=run, **given | dict(images="96"))
    assert "expect at " not in capsys.readouterr().out
    assert load_json(run / "config.json")["config"]["train"]["batch"] == 32
    with raises("run-differs", "batch is 32 in the run, 64 now"):
        train(shapes, out=run, **given | dict(images="128", batch=64))
    other = train(shapes, out=tmp_path / "other", **given | dict(images="64"))
    assert load_json(other / "config.json")["config"]["train"]["batch"] == 64
    train(shapes, out=other, **given | dict(images="192"))  # and not 32, the recipe's default
    assert load_json(other / "config.json")["config"]["train"]["batch"] == 64


@pytest.mark.slow
def test_a_time_budget_is_converted_to_images_at_the_speed_of_a_probe(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {key: value for key, value in SMALL.items() if key not in ("batch", "images")} | dict(live_images=0)
    for threshold, batch in ((64, 64), (10**9, 32)):
        monkeypatch.setattr("ptarmigan.training.auto.LARGE_BATCH_FROM", threshold)
        run = train(shapes, out=tmp_path / str(batch), **given, time="1s")
        assert load_json(run / "config.json")["config"]["train"]["batch"] == batch


def test_a_run_keeps_what_auto_was_when_it_started(shapes: Path, tmp_path: Path) -> None:
    was = dict(loss="relativistic", g_blocks=0, g_modulation=False, least_side=4, penalty_every=1, d_lr=3e-3)
    was |= dict(augment="diffaugment", augment_p=0.2)
    run = train(shapes, out=tmp_path / "run", **SMALL, **was)
    train(shapes, out=run, **SMALL | dict(images="96"))
    record = load_json(run / "config.json")
    assert {
        key: record["config"][part][key]
        for part in ("data", "model", "loss", "train")
        for key in was
        if key in record["config"][part]
    } == was
    with raises("run-differs", "loss is relativistic in the run, hinge now"):
        train(shapes, out=run, **SMALL | dict(images="128"), loss="hinge")


def test_other_recipes_choose_nothing(shapes: Path, tmp_path: Path, capsys: Any) -> None:
    train(shapes, recipe="dcgan", out=tmp_path / "run", **SMALL, live_images=0)
    assert "expect at " not in capsys.readouterr().out
