"""What `auto` chooses: by the budget and the device, never against what was asked, said in four lines, and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conftest import SMALL
from ptarmigan import train
from ptarmigan.config import resolve
from ptarmigan.core.files import load_json
from ptarmigan.core.types import ImageSpec, UserError
from ptarmigan.training.auto import BRIEF, BY_HEART, FEW, LONG, OFTEN, WIDE, choose

SPEC = ImageSpec(28, 28, 1, tuple("0123456789"))


def chosen(
    images: float, device: str = "cpu", fewest: int = 5000, spec: ImageSpec = SPEC, **asked: Any
) -> dict[str, Any]:
    choice = choose(resolve(asked), asked, spec, [fewest - 1, fewest + 1], device, images)
    assert len(choice.reasons) == 4
    return choice.config.flat() | {"said": "\n".join([*choice.reasons, choice.expected])}


def test_a_long_budget_takes_larger_batches_and_a_weaker_penalty() -> None:
    short, long = chosen(LONG - 1), chosen(LONG)
    assert [short[key] for key in ("batch", "r1", "r2")] == [32, 0.2, 0.2]
    assert [long[key] for key in ("batch", "r1", "r2")] == [64, 0.1, 0.1]
    assert "batch 64" in long["said"]
    assert "R1 0.1 and R2 0.1" in long["said"]


def test_a_brief_budget_has_no_blocks_in_g_unless_they_are_asked_for() -> None:
    brief, longer = chosen(BRIEF - 1), chosen(BRIEF)
    assert (brief["g_blocks"], longer["g_blocks"]) == (0, 1)
    assert (
        f"no blocks in G, maps halved to 4x4: wider ones were better image by image, but not minute by minute; "
        f"blocks pay from {BRIEF:,} images seen on\n" in brief["said"]
    )
    assert "blocks" not in longer["said"]
    assert chosen(BRIEF - 1, "cuda")["g_blocks"] == 1
    asked = chosen(BRIEF - 1, g_blocks=2)
    assert asked["g_blocks"] == 2
    assert "maps halved to 4x4: g_blocks as you asked" in asked["said"]
    assert "no blocks" not in chosen(BRIEF - 1, network="r3gan")["said"]  # which has blocks of its own


def test_a_gpu_takes_twice_the_width_where_the_budget_is_long() -> None:
    assert chosen(WIDE, "cuda")["width"] == 64
    assert chosen(WIDE - 1, "cuda")["width"] == chosen(10 * WIDE, "cpu")["width"] == 32
    assert f"from {WIDE:,} images seen on" in chosen(WIDE - 1, "cuda")["said"]


def test_of_large_images_d_learns_more_slowly_in_small_batches_and_g_has_blocks_whatever_the_budget() -> None:
    small, large = ImageSpec(32, 32, 3, tuple("0123456789")), ImageSpec(25, 41, 3, tuple("0123456789"))
    for images in (BRIEF - 1, LONG, 10 * WIDE):
        found = chosen(images, spec=large)
        assert [found[key] for key in ("batch", "g_blocks", "g_lr", "d_lr", "r1")] == [32, 1, 2e-3, 1e-3, 0.4]
        assert (
            "batch 32, rates 0.002 for G and 0.001 for D, falling to 0 at the end: more updates, and a slower D"
            in found["said"]
        )
        assert chosen(images, spec=small)["d_lr"] == 2e-3
        assert "slower D" not in chosen(images, spec=small)["said"]
    assert chosen(LONG, spec=small)["batch"] == 64
    assert chosen(LONG, spec=large, g_lr=1e-3)["d_lr"] == 1e-3
    asked = chosen(LONG, spec=large, d_lr=3e-3, r1=0.2)
    assert [asked[key] for key in ("d_lr", "r1", "r2")] == [3e-3, 0.2, 0.4]
    assert "rates 0.002 for G and 0.003 for D, falling to 0 at the end: d_lr as you asked" in asked["said"]


def test_what_was_asked_for_stands_and_is_said() -> None:
    found = chosen(10 * WIDE, "cuda", width=20, batch=16, r1=0.0)
    assert [found[key] for key in ("width", "batch", "r1", "r2")] == [20, 16, 0.0, 0.2]
    assert "maps halved to 4x4: width as you asked" in found["said"]
    assert "batch as you asked" in found["said"]
    assert "R2 0.2" in found["said"]


def test_of_few_images_d_sees_changed_ones_unless_it_was_asked_otherwise() -> None:
    seen = OFTEN * 2 * (FEW - 1)  # of both classes
    learnt = BY_HEART * 2 * (FEW - 1)
    few, seldom = chosen(learnt, fewest=FEW - 1), chosen(seen - 1, fewest=FEW - 1)
    enough = chosen(2 * learnt, fewest=FEW)
    assert (few["augment"], few["augment_p"], few["r1"], few["r2"]) == ("gentle", 1, 0.4, 0.4)
    assert "augmentation gentle: 199 images a class; changed a little" in few["said"]
    for images in (seen, learnt - 1):
        found = chosen(images, fewest=FEW - 1)
        assert (found["augment"], found["r1"], found["r2"]) == ("none", 1.0, 1.0)
        assert "changed" not in found["said"]
        assert "of 1,000 images alone, some 210,000 seen gave 7.1" in found["said"]
    assert "R1 0.4 and R2 0.4, projection: D, which sees each image so often" in few["said"]
    assert "of 1,000 images alone, some 210,000 seen gave 4.8" in few["said"]
    assert learnt < LONG
    long = chosen(LONG, fewest=FEW - 1)
    assert (long["batch"], long["r1"], long["augment"]) == (64, 0.4, "gentle")
    assert chosen(LONG, fewest=FEW - 1, augment="none")["r1"] == 1.0
    plate = ImageSpec(48, 64, 3, SPEC.class_names)
    for images, augment in ((seen, "none"), (learnt, "gentle")):
        found = chosen(images, fewest=FEW - 1, spec=plate)
        assert (found["augment"], found["r1"]) == (augment, 0.4)
    recorded = chosen(learnt, "cuda", fewest=FEW - 1)
    assert (recorded["augment"], recorded["r1"]) == ("none", 1.0)
    for found in (enough, seldom):
        assert "of 1,000 images alone" not in found["said"]
        assert (found["augment"], found["augment_p"]) == ("none", 1)
        assert found["r1"] == found["r2"] < 0.4
    assert "augmentation none: 200 images a class\n" in enough["said"]
    for asked in ({"augment": "ada"}, {"augment": "none"}, {"augment": "diffaugment"}):
        found = chosen(seen, fewest=FEW - 1, **asked)
        gamma = 1.0 if asked["augment"] == "none" else 0.4
        assert (found["augment"], found["augment_p"], found["r1"]) == (asked["augment"], 1, gamma)
        assert "augment as you asked" in found["said"]
    assert chosen(seen, fewest=FEW - 1, augment="diffaugment", augment_p=0.7)["augment_p"] == 0.7


def test_the_expectation_is_of_the_nearest_budget() -> None:
    assert ["rough" in chosen(2e4)["said"], "clear" in chosen(1e5)["said"], "glance" in chosen(1e7)["said"]] == [
        True
    ] * 3


def test_a_run_keeps_what_was_chosen_when_its_budget_grows(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("ptarmigan.training.auto.LONG", 64)
    given = {key: value for key, value in SMALL.items() if key != "batch"} | dict(live_images=0)
    run = train(shapes, out=tmp_path / "run", **given)
    said = capsys.readouterr().out
    assert "batch 32" in said
    assert "expect:" in said
    train(shapes, out=run, **given | dict(images="96"))
    assert "expect:" not in capsys.readouterr().out
    assert load_json(run / "config.json")["config"]["train"]["batch"] == 32
    with pytest.raises(UserError, match="batch 32 there, 64 here"):
        train(shapes, out=run, **given | dict(images="128", batch=64))
    other = train(shapes, out=tmp_path / "other", **given | dict(images="64"))
    assert load_json(other / "config.json")["config"]["train"]["batch"] == 64
    train(shapes, out=other, **given | dict(images="192"))  # and not 32, which the recipe begins with
    assert load_json(other / "config.json")["config"]["train"]["batch"] == 64
    timed = train(shapes, out=tmp_path / "timed", **given | dict(images=None, time="1s"))
    assert load_json(timed / "config.json")["config"]["train"]["batch"] == 64


def test_a_run_stays_what_auto_was_when_it_began(shapes: Path, tmp_path: Path) -> None:
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
    with pytest.raises(UserError, match="loss relativistic there, hinge here"):
        train(shapes, out=run, **SMALL | dict(images="128"), loss="hinge")


def test_other_recipes_choose_nothing(shapes: Path, tmp_path: Path, capsys: Any) -> None:
    train(shapes, recipe="dcgan", out=tmp_path / "run", **SMALL, live_images=0)
    assert "expect:" not in capsys.readouterr().out
