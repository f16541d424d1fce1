"""A warm start: what a run copies from another model, class by class, and that it then is a run like any other."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ptarmigan.training.loop as training
from conftest import SMALL
from ptarmigan.commands import compare as compare_module
from ptarmigan.commands.replay import replay
from ptarmigan.config import Model, resolve
from ptarmigan.core.files import load_json
from ptarmigan.core.tensor_files import load_tensors
from ptarmigan.core.types import DiscriminatorOutput, ImageSpec, UserError
from ptarmigan.data.batches import with_ground
from ptarmigan.game.state import TrainState
from ptarmigan.losses import conditioning
from ptarmigan.training import checkpoint
from ptarmigan.training.loop import train
from ptarmigan.training.signals import Stopped
from ptarmigan.training.source_model import SourceModel
from ptarmigan.training.warm_start import (
    SHAPE_FIELDS,
    class_dims,
    copy_classes,
    copy_weights,
)
from support import at_step, before_steps, call, interrupt, plant_nan, raises

ONE_STEP = {**SMALL, "images": "8", "snapshots": 1}
SHAPELESS = {key: value for key, value in SMALL.items() if key not in ("width", "latent_dim", "class_dim")}
SHAPELESS_STEP = {**SHAPELESS, "images": "8", "snapshots": 1}
CLASS_ROWS = ("G.embedding.weight", "ema.embedding.weight", "D.head.embedding.weight")
NAMES = ("across", "down", "blot")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def acgan(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train(shapes, out=tmp_path_factory.mktemp("acgan") / "run", **SMALL, recipe="acgan")


def named(shapes: Path, folder: Path, *names: str) -> Path:
    """The same images with other classes, in another order."""
    with np.load(shapes) as arrays:
        labels = np.arange(len(arrays["arr_0"])) % len(names)
        path = folder / f"{'-'.join(names)}.npz"
        np.savez(path, arr_0=arrays["arr_0"], arr_1=labels, class_names=np.array(names))
    return path


def first(run: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return load_tensors(run / "checkpoints" / "000000000.safetensors")


def last(run: Path) -> dict[str, Tensor]:
    return load_tensors(checkpoint.checkpoints(run)[-1])[0]


def weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if not key.startswith("opt")}


def fresh(names: Sequence[str], **fields: Any) -> dict[str, Tensor]:
    """The weights of step 0 without a warm start."""
    return TrainState.create(resolve({**SMALL, **fields}), ImageSpec(16, 16, 1, tuple(names)), CPU).tensors()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# --- what is copied ---------------------------------------------------------------------------------------------


def test_all_is_copied_and_the_rows_of_classes_follow_their_names(shapes: Path, base: Path, tmp_path: Path) -> None:
    run = train(named(shapes, tmp_path, "blot", "across", "down"), out=tmp_path / "run", init=base, **SMALL)
    (tensors, meta), given = first(run), weights(last(base))
    assert not torch.equal(given["G.project.weight"], given["ema.project.weight"])
    assert tensors.keys() == given.keys()  # no moment
    for key, tensor in tensors.items():
        assert torch.equal(tensor, given[key][[2, 0, 1]] if key in CLASS_ROWS else given[key]), key
    assert meta["images_seen"] == 0
    init = load_json(run / "config.json")["init"]
    assert init == meta["record"]["init"]
    assert {*init["copied"], *init["copied_by_class"]} == {key for key in tensors if not key.startswith("ema.")}
    assert set(init["copied_by_class"]) == {*CLASS_ROWS} - {"ema.embedding.weight"}
    assert (init["not_copied"], init["copied_share"], init["differing_fields"]) == ({}, 1, {})
    assert (init["model"], init["images_seen"], init["has_discriminator"]) == (str(base), 48, True)
    assert init["sha256"] == load_tensors(checkpoint.checkpoints(base)[-1])[1]["sha256"]
    end = load_tensors(checkpoint.checkpoints(run)[-1])[1]
    assert (end["images_seen"], end["progress"]["ends"]) == (48, [48])


@pytest.mark.parametrize("names", [("new", "blot", "across", "down"), ("blot", "new", "other"), ("down", "across")])
def test_a_new_class_starts_at_the_mean_of_the_models_classes_and_its_own_initial_values(
    names: tuple[str, ...], shapes: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(named(shapes, tmp_path, *names), out=tmp_path / "run", init=base, **ONE_STEP)
    (tensors, meta), given, own = first(run), last(base), fresh(names)
    for key in CLASS_ROWS:
        for row, name in enumerate(names):
            expected = given[key][NAMES.index(name)] if name in NAMES else own[key][row] + given[key].mean(0)
            assert torch.equal(tensors[key][row], expected), (key, name)
    others = tensors.keys() - {*CLASS_ROWS}
    assert all(torch.equal(tensors[key], given[key]) for key in others)
    init = meta["record"]["init"]
    assert init["shared_classes"] == [name for name in names if name in NAMES]
    assert init["new_classes"] == [name for name in names if name not in NAMES]
    assert init["dropped_classes"] == [name for name in NAMES if name not in names]
    of_players = {key: value for key, value in tensors.items() if not key.startswith("ema.")}
    of_classes = sum(of_players[key].numel() for key in init["copied_by_class"])
    total = sum(value.numel() for value in of_players.values())
    assert init["copied_share"] == pytest.approx(1 - of_classes / total * len(init["new_classes"]) / len(names))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"warm start from {base}")]
    for fact in ("recipe auto", "48 images", "30 of 30 tensors"):
        assert fact in line


def test_with_no_class_in_common_every_class_starts_at_the_mean(shapes: Path, base: Path, tmp_path: Path) -> None:
    run = train(named(shapes, tmp_path, "x", "y"), out=tmp_path / "run", init=base, **ONE_STEP)
    (tensors, meta), given = first(run), last(base)
    assert all(torch.equal(tensors[key], fresh("xy")[key] + given[key].mean(0)) for key in CLASS_ROWS)
    init = meta["record"]["init"]
    of_players = {key: value for key, value in tensors.items() if not key.startswith("ema.")}
    of_classes = sum(of_players[key].numel() for key in CLASS_ROWS[::2])
    assert init["copied_share"] == pytest.approx(1 - of_classes / sum(value.numel() for value in of_players.values()))
    assert (init["shared_classes"], init["not_copied"]) == ([], {})


def test_the_rows_of_a_classifier_and_its_biases_follow_too(shapes: Path, acgan: Path, tmp_path: Path) -> None:
    data = named(shapes, tmp_path, "blot", "new", "down")
    run = train(data, out=tmp_path / "run", init=acgan, **ONE_STEP, recipe="acgan")
    tensors, given = first(run)[0], last(acgan)
    for key in ("D.head.classifier.weight", "D.head.classifier.bias", "G.embedding.weight"):
        assert torch.equal(tensors[key][[0, 2]], given[key][[2, 1]])
        own = fresh(("blot", "new", "down"), recipe="acgan")[key][1]
        assert torch.equal(tensors[key][1], own + given[key].mean(0))


@pytest.mark.parametrize("place", ["generator", "generator/model.safetensors"])
def test_from_a_generator_only_g_is_copied_and_a_line_says_so(
    place: str, shapes: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(shapes, out=tmp_path / "run", init=base / place, **ONE_STEP)
    tensors, given = first(run)[0], load_tensors(base / "generator" / "model.safetensors")[0]
    own = fresh(NAMES)
    for key, tensor in tensors.items():
        player, name = key.split(".", 1)
        assert torch.equal(tensor, own[key] if player == "D" else given[name]), key
    out = capsys.readouterr().out
    count = {player: sum(own[key].numel() for key in own if key.startswith(player)) for player in "GD"}
    share = count["G"] / (count["G"] + count["D"])
    assert "G alone" in out
    assert f"23 of 30 tensors, {share:.0%}" in out
    assert "not copied" not in out
    init = load_json(run / "config.json")["init"]
    assert init["not_copied"].keys() == {key for key in tensors if key.startswith("D.")}
    assert init["sha256"] == load_tensors(base / "generator" / "model.safetensors")[1]["sha256"]


def test_another_size_copies_what_has_the_same_shape_and_lists_the_rest(
    shapes: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(shapes, out=tmp_path / "run", init=base, **ONE_STEP, size="32")
    (tensors, meta), given = first(run), last(base)
    init = meta["record"]["init"]
    own = TrainState.create(resolve(SMALL), ImageSpec(32, 32, 1, NAMES), CPU).tensors()
    copied = set()
    for key, tensor in tensors.items():
        of_g = re.fullmatch(r"((?:G|ema)\.\w+\.)(\d+)(\..*)", key)  # one stage more here, before the first of the model
        there = f"{of_g[1]}{int(of_g[2]) - 1}{of_g[3]}" if of_g else key
        fits = there in given and given[there].shape == tensor.shape
        assert torch.equal(tensor, given[there] if fits else own[key]), key
        copied |= {key} if fits and not key.startswith("ema.") else set()
    assert {*init["copied"], *init["copied_by_class"]} == copied
    assert {"G.stages.1.weight", "G.stages.2.weight", "G.stages.2.bias", "G.blocks.1.0.conv.weight"} < copied
    assert {"D.body.stages.0.weight", "D.body.stages.1.weight"} < copied
    shapes_of = {"G.project.weight": ("128x10", "256x10"), "D.head.embedding.weight": ("3x128", "3x256")}
    assert all(each in init["not_copied"][key] for key, pair in shapes_of.items() for each in pair)
    assert "missing" in init["not_copied"]["D.body.stages.2.weight"]
    assert len(init["copied"]) + len(init["copied_by_class"]) + len(init["not_copied"]) == 45
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("  not copied: ")]
    for fact in ("G.project.weight", "128x10", "256x10", "G.blocks.0.0.norm.weight", "config.json"):
        assert fact in line
    assert "--size 16x16" in out


def test_classes_along_another_dimension_and_several_entries_a_class() -> None:
    here, there = ("b", "new", "a"), ("a", "b")
    tensor, given = torch.zeros(2, 3, 4), torch.arange(16.0).view(2, 2, 4)
    assert copy_classes(tensor, given, 1, here, there) == (2 / 3, "")
    assert torch.equal(tensor, torch.stack([given[:, 1], given.mean(1), given[:, 0]], 1))
    blocks = torch.zeros(2, 6)
    assert copy_classes(blocks, torch.arange(8.0).view(2, 4), 1, here, there) == (2 / 3, "")
    assert blocks.tolist() == [[1, 0.5, 0, 3, 2.5, 2], [5, 4.5, 4, 7, 6.5, 6]]
    pair = torch.zeros(4)
    for target, source, facts in (
        (tensor, given[:, :, :3], ("2x2x3", "2x3x4")),
        (blocks, torch.zeros(2, 2), ("2x2", "2x6")),
    ):
        share, why = copy_classes(target, source, 1, here, there)
        assert share == 0
        assert all(fact in why for fact in facts)
    for source, same in ((torch.ones(4), False), (None, False), (torch.ones(4), True)):
        share, why = copy_classes(pair, source, None, ("a", "b"), ("a", "b") if same else ("b", "a"))
        assert (share, bool(why), bool(pair.all())) == (same, not same, same)


def test_tensors_of_classes_are_found_whatever_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    class Head(nn.Module):
        def __init__(self, features: int, classes: int) -> None:
            super().__init__()
            self.source = nn.Linear(features, 1)
            self.columns, self.pairs = nn.Linear(classes, 3), nn.Linear(2, 2 * classes)
            self.beside = nn.Linear(classes + 3, classes + 3)
            self.table = nn.Parameter(torch.zeros(classes, classes))

        def forward(self, features: Tensor, labels: Tensor) -> DiscriminatorOutput:
            raise NotImplementedError

    monkeypatch.setitem(conditioning.HEADS, "projection", Head)  # type: ignore[arg-type]
    model = resolve({**SMALL, "width": 3, "class_dim": 3}).model  # as many as there are classes
    assert class_dims(ImageSpec(16, 16, 3, NAMES), model) == {
        "G.embedding.weight": 0, "ema.embedding.weight": 0, "D.head.columns.weight": 1, "D.head.pairs.weight": 0,
        "D.head.pairs.bias": 0, "D.head.beside.weight": None, "D.head.beside.bias": None, "D.head.table": None,
    }  # fmt: skip


@pytest.mark.parametrize("network", ["dcgan", "r3gan"])
def test_stages_are_matched_by_their_distance_from_the_image(network: str) -> None:
    config = resolve({**SMALL, "network": network, "least_side": 4})
    large, small = (TrainState.create(config, ImageSpec(side, side, 3, NAMES), CPU) for side in (64, 28))
    with torch.no_grad():
        for parameter in large.G.parameters():
            parameter.add_(torch.randn_like(parameter))
    found = copy_weights(small, of_state(large))
    for player, one, other in (("G", small.G, large.G), ("D", small.D.body, large.D.body)):
        for group in ("blocks", "stages", "norms", "changes"):
            pair = list(getattr(one, group, [])), list(getattr(other, group, []))
            for here, there in zip(*(parts if player == "D" else parts[::-1] for parts in pair), strict=False):
                assert same(here.state_dict(), there.state_dict()), (player, group)
    assert all(key.split(".")[1] in ("project", "head") for key in found["not_copied"])


def of_state(state: TrainState) -> SourceModel:
    return SourceModel(Path("model"), True, state.config, state.spec, 0, "", weights(state.tensors()), ())


@pytest.mark.parametrize("network", ["dcgan", "r3gan", "resnet"])
@pytest.mark.parametrize(("there", "here"), [(3, 1), (3, 4), (1, 3), (1, 4), (4, 3), (4, 1)])
def test_other_colours_keep_the_function_of_g_and_d(network: str, there: int, here: int) -> None:
    config = resolve({**SMALL, "network": network})
    model, run = (TrainState.create(config, ImageSpec(16, 16, channels, NAMES), CPU) for channels in (there, here))
    found = copy_weights(run, of_state(model))
    assert not {*found["not_copied"]} - {"D.body.ground.weight"}
    assert found["differing_fields"] == {}
    z, labels = torch.randn(3, config.model.latent_dim), torch.arange(3)

    def converted(images: Tensor, of: int, to: int) -> Tensor:
        rgb = images.expand(-1, 3, -1, -1) if of == 1 else images[:, :3]
        luma = (rgb * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True) if to == 1 else rgb
        return {1: luma, 3: rgb, 4: torch.cat([rgb, torch.ones_like(rgb[:, :1])], 1)}[to]

    with torch.no_grad():
        of_model, of_run = model.G(z, labels), run.G(z, labels)
        if network != "r3gan":  # before the tanh
            of_model, of_run = of_model.atanh(), of_run.atanh()
        assert torch.allclose(of_run, converted(of_model, there, here), atol=1e-4)
        images = torch.rand(3, min(here, 3), 16, 16) * 2 - 1
        as_model = converted(images, min(here, 3), min(there, 3))
        of_run = run.D.body(with_ground(images) if here == 4 else images)
        assert torch.allclose(model.D.body(with_ground(as_model) if there == 4 else as_model), of_run, atol=1e-5)


# --- the shape of the network -----------------------------------------------------------------------------------


def test_the_shape_is_the_models_where_no_other_was_asked_for(
    shapes: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = named(shapes, tmp_path, "a", "down")
    with np.load(data) as arrays:
        np.savez(data, arr_0=np.repeat(arrays["arr_0"], 2, 1), arr_1=arrays["arr_1"], class_names=arrays["class_names"])
    run = train(data, out=tmp_path / "run", init=base, **SHAPELESS_STEP)
    record = load_json(run / "config.json")
    assert record["init"]["shape"] == {
        "network": "dcgan", "width": 4, "latent_dim": 6, "class_dim": 4, "least_side": 3, "g_blocks": 1,
        "g_modulation": True, "resampling": "strided", "latent": "normal", "size": "16x16", "channels": 1,
        "conditioning": "projection",
    }  # fmt: skip
    assert record["init"]["copied_share"] > 0.9
    assert record["spec"]["height"] == 16
    line = "network dcgan, width 4, latent_dim 6, class_dim 4, least_side 3, g_blocks 1, g_modulation True,"
    assert (
        f"{line} resampling strided, latent normal, size 16x16, channels 1, conditioning projection\n"
        in capsys.readouterr().out
    )


def test_all_of_the_model_on_which_tensors_depend_is_in_the_shape() -> None:
    """Every field of Model except the noise in D, the initial weights and which of them stay."""
    assert {f.name for f in fields(Model)} - {*SHAPE_FIELDS} == {"dropout", "weight_init", "d_frozen"}
    assert {*SHAPE_FIELDS} - {f.name for f in fields(Model)} == {"size", "channels"}


@pytest.mark.parametrize("blocks", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_blocks_are_the_models_but_of_another_family_its_own(blocks: int, shapes: Path, tmp_path: Path) -> None:
    few = {**SMALL, "images": "8"}
    model = train(shapes, out=tmp_path / "model", **few, g_blocks=blocks)
    init = load_json(train(shapes, out=tmp_path / "run", init=model, **few) / "config.json")["init"]
    assert init["shape"]["g_blocks"] == blocks
    assert (init["not_copied"], init["copied_share"], init["differing_fields"]) == ({}, 1, {})
    record = load_json(train(shapes, out=tmp_path / "other", init=model, **few, network="r3gan") / "config.json")
    assert (record["config"]["model"]["g_blocks"], "g_blocks" in record["init"]["shape"]) == (0, False)
    named = train(shapes, out=tmp_path / "named", init=model, **few, network="dcgan")
    assert load_json(named / "config.json")["config"]["model"]["g_blocks"] == blocks


def test_what_is_asked_for_wins_in_flags_and_in_sections_of_a_file(shapes: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("model:\n  latent_dim: 9\n")
    run = train(shapes, out=tmp_path / "run", init=base, **SHAPELESS_STEP, class_dim=5, config=tmp_path / "x.yaml")
    record = load_json(run / "config.json")
    assert record["config"]["model"] | {"width": 4, "latent_dim": 9, "class_dim": 5} == record["config"]["model"]
    assert record["init"]["differing_fields"] == {"latent_dim": 6, "class_dim": 4}
    depend = {"G.embedding.weight", "G.project.weight", *(f"G.norms.{i}.modulate.weight" for i in range(2))}
    assert record["init"]["not_copied"].keys() == depend


def test_a_recipe_that_is_named_decides_the_conditioning_and_else_the_model(
    shapes: Path, base: Path, acgan: Path, tmp_path: Path
) -> None:
    kept = load_json(train(shapes, out=tmp_path / "kept", init=acgan, **SHAPELESS_STEP) / "config.json")
    assert kept["config"]["model"]["conditioning"] == "auxiliary_classifier"
    assert kept["config"]["loss"]["loss"] == "non_saturating"
    assert (kept["config"]["model"]["d_norm"], kept["init"]["differing_fields"]) == ("none", {"d_norm": "batch"})
    assert kept["init"]["recipe"] == "acgan"
    for named_by, more in (({"recipe": "acgan"}, {"d_norm": "none"}), ({"conditioning": "auxiliary_classifier"}, {})):
        run = train(shapes, out=tmp_path / next(iter(named_by)), init=base, **SHAPELESS_STEP, **named_by)
        record = load_json(run / "config.json")
        assert record["config"]["model"]["conditioning"] == "auxiliary_classifier"
        assert record["config"]["model"]["width"] == 4
        assert record["init"]["differing_fields"] == {"conditioning": "projection"} | more


def test_what_is_asked_for_may_need_the_models_conditioning(shapes: Path, tmp_path: Path) -> None:
    few = {**SHAPELESS, "conditioning": "reacgan", "images": "8"}
    model = train(shapes, out=tmp_path / "model", **few, width=4, latent_dim=6)
    data = named(shapes, tmp_path, "blot", "new", "down")
    fields = {key: value for key, value in few.items() if key != "conditioning"}
    run = train(data, out=tmp_path / "run", init=model, **fields, class_margin=0.9)
    proxies, given = (of["D.head.proxies.weight"] for of in (first(run)[0], last(model)))
    assert torch.equal(proxies[[0, 2]], given[[2, 1]])
    with raises("options-conflict", "class_margin: 0.9", "projection"):
        train(data, out=tmp_path / "run2", **fields, class_margin=0.9)
    with raises("unknown-name", "'widht'", "'width'"):
        train(data, out=tmp_path / "run2", init=model, **fields, widht=3)


def test_both_halves_of_adcs_classifier_follow_their_classes(shapes: Path, tmp_path: Path) -> None:
    fields = {**SMALL, "conditioning": "discriminative_classifier", "images": "8"}
    model = train(shapes, out=tmp_path / "model", **fields)
    run = train(named(shapes, tmp_path, "blot", "new", "down", "x"), out=tmp_path / "run", init=model, **fields)
    for key in ("D.head.classifier.weight", "D.head.classifier.bias"):
        tensor, given = first(run)[0][key], last(model)[key]
        assert torch.equal(tensor[[0, 2, 4, 6]], given[[2, 1, 5, 4]])
        assert not torch.equal(tensor[1], given[1])
    assert load_json(run / "config.json")["init"]["not_copied"] == {}


@pytest.mark.parametrize("there", ["none", "spectral"])
def test_spectral_norm_follows_the_weights_that_were_copied(there: str, base: Path) -> None:
    source = SourceModel.open(base)
    if there == "spectral":
        config = resolve({**SMALL, "d_norm": "spectral", "seed": 8})
        tensors = weights(TrainState.create(config, source.spec, CPU).tensors())
        tensors["D.head.embedding.weight"][1] *= 50
        source = replace(source, config=config, tensors=tensors)
    config, spec = resolve({**SMALL, "d_norm": "spectral"}), ImageSpec(16, 16, 1, ("down", "new", "blot", "other"))
    state = TrainState.create(config, spec, CPU)
    found = copy_weights(state, source)
    assert found["differing_fields"] == ({"d_norm": "none"} if there == "none" else {})
    assert any(name.endswith(".u") for name in (found["not_copied"] if there == "none" else found["copied"]))
    for name, part in state.D.named_modules():
        if hasattr(part, "u"):
            weight: Tensor = part.weight.detach().flatten(1)  # type: ignore[union-attr, operator]
            assert part.u.norm() == pytest.approx(1), name  # type: ignore[union-attr, operator]
            sigma = float(torch.linalg.svdvals(weight)[0])
            assert 0.97 * sigma < float((part.u @ weight).norm()) <= 1.0001 * sigma, name  # type: ignore[union-attr, operator]


def test_one_class_starts_from_a_model_of_several(shapes: Path, base: Path, tmp_path: Path) -> None:
    run = train(named(shapes, tmp_path, "down"), out=tmp_path / "run", init=base, **SHAPELESS)
    record = load_json(run / "config.json")
    assert record["config"]["model"]["conditioning"] == "none"
    shapes_of = {
        "G.project.weight": ("128x10", "128x6"),
        "G.norms.0.modulate.weight": ("16x10", "16x6"),
        "G.norms.1.modulate.weight": ("8x10", "8x6"),
    }
    not_copied = record["init"]["not_copied"]
    assert not_copied.keys() == shapes_of.keys()
    assert all(each in not_copied[key] for key, pair in shapes_of.items() for each in pair)
    assert record["init"]["differing_fields"] == {}


def test_frozen_stages_of_d_keep_the_models_weights_and_all_else_learns(
    shapes: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {**SHAPELESS, "d_frozen": 1}
    run = train(named(shapes, tmp_path, "blot", "new"), out=tmp_path / "run", init=base, **fields)
    before, after = first(run)[0], last(run)
    moved = {key for key, tensor in before.items() if not torch.equal(tensor, after[key])}
    stayed = {key for key in before if key.startswith("D.")} - moved
    assert stayed == {"D.body.stages.0.weight", "D.body.stages.0.bias"}
    assert not {key for key in after if key.startswith("opt_d.body.stages.0.")}
    step = replay(run, at=24)
    assert "D.body.stages.1.weight" in step.weights
    assert "D.body.stages.0.weight" not in step.weights
    with monkeypatch.context() as patch:
        at_step(patch, 3, interrupt)
        with pytest.raises(Stopped):
            train(named(shapes, tmp_path, "blot", "new"), out=tmp_path / "parts", init=base, **fields)
    assert same(after, last(train(named(shapes, tmp_path, "blot", "new"), out=tmp_path / "parts", init=base, **fields)))


# --- stopping and resuming --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, pytest.param(5, marks=pytest.mark.slow)])
def test_stopped_and_resumed_without_the_model_is_the_same_run_bit_for_bit(
    step: int, shapes: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(base, tmp_path / "model")
    data = named(shapes, tmp_path, "blot", "new", "down")
    train(data, out=tmp_path / "whole", init=tmp_path / "model", **SHAPELESS)

    def killed(_: object) -> None:
        raise ZeroDivisionError  # nothing is saved

    with monkeypatch.context() as patch:
        at_step(patch, step, killed if step == 1 else interrupt)
        with pytest.raises(ZeroDivisionError if step == 1 else Stopped):
            train(data, out=tmp_path / "parts", init=tmp_path / "model", **SHAPELESS)
    shutil.rmtree(tmp_path / "model")
    run = train(data, out=tmp_path / "parts", init=tmp_path / "model", **SHAPELESS)
    assert same(last(tmp_path / "whole"), last(run))
    assert same(first(tmp_path / "whole")[0], first(run)[0])
    for file in ("generator/model.safetensors", "samples/000000048.png"):
        assert (tmp_path / "whole" / file).read_bytes() == (run / file).read_bytes()
    assert load_json(tmp_path / "whole" / "config.json")["init"] == load_json(run / "config.json")["init"]
    (run / "config.json").write_text("{")
    train(data, out=run, init=tmp_path / "model", **{**SHAPELESS, "images": "64"})
    assert load_json(run / "config.json")["init"] == load_json(tmp_path / "whole" / "config.json")["init"]


def test_another_model_on_a_run_is_refused_with_the_difference_and_a_moved_one_is_the_same(
    shapes: Path, base: Path, acgan: Path, tmp_path: Path
) -> None:
    run = train(shapes, out=tmp_path / "run", init=base, **SMALL)
    sha256 = load_json(run / "config.json")["init"]["sha256"][:12]
    there = f"{base} (SHA-256 {sha256})"
    with raises("run-differs", there, f"{base / 'generator'} (SHA-256 "):
        train(shapes, out=run, init=base / "generator", **SMALL)
    with raises("run-differs", there, "from scratch", "--out"):
        train(shapes, out=run, **{**SMALL, "size": "16x16", "channels": 1})
    shutil.copytree(base, tmp_path / "moved")
    train(shapes, out=run, init=tmp_path / "moved", **{**SMALL, "images": "56"})
    assert load_json(run / "config.json")["init"]["model"] == str(base)
    plain = train(shapes, out=tmp_path / "plain", **SMALL)
    with raises("run-differs", "from scratch", there):
        train(shapes, out=plain, init=base, **SMALL)


def without_outputs(run: Path) -> None:
    """Remove what training wrote; what is left is the record of the run."""
    for name in ("checkpoints", "generator", "samples"):
        shutil.rmtree(run / name)


def test_without_its_checkpoints_a_run_starts_from_the_very_same_weights_or_not_at_all(
    shapes: Path, base: Path, acgan: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(base, model)
    run = train(shapes, out=tmp_path / "run", init=model, **SMALL)
    before = last(run)
    without_outputs(run)
    train(shapes, out=run, init=model, **SMALL)
    assert same(before, last(run))
    without_outputs(run)
    train(shapes, out=model, **{**SMALL, "images": "56"}, seed=5, ema_half_life=1e9)
    with raises("run-differs") as raised:
        train(shapes, out=run, init=model, **SMALL)
    assert str(raised.value).count(f"{model} (SHA-256 ") == 2
    shutil.rmtree(model)
    with pytest.raises(UserError) as missing:
        train(shapes, out=run, init=model, **SMALL)
    assert str(model) in str(missing.value)


def test_a_run_that_diverges_at_once_rolls_back_to_the_weights_it_started_with(
    shapes: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant_nan(monkeypatch, "weight", at=8, times=1)
    seen: list[Tensor] = []

    def note(state: Any) -> None:
        if not state.images_seen:
            seen.append(state.D.body.stages[0].weight.detach().clone())

    before_steps(monkeypatch, note)
    run = train(shapes, out=tmp_path / "run", init=base, **SMALL)
    assert "to 0 images" in capsys.readouterr().out
    assert len(seen) == 2
    assert all(torch.equal(weight, last(base)["D.body.stages.0.weight"]) for weight in seen)
    assert (run / "checkpoints" / "000000000.safetensors").exists()


def test_a_run_that_diverges_with_no_checkpoint_left_never_starts_from_other_weights(
    shapes: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 2, interrupt)
        with pytest.raises(Stopped):
            train(shapes, out=tmp_path / "run", init=base, **SMALL)
    plant_nan(monkeypatch, "weight", at=16, times=1)
    real = training.roll_back

    def robbed(job: Any, *rest: Any) -> Any:
        shutil.rmtree(job.run / "checkpoints")
        return real(job, *rest)

    monkeypatch.setattr(training, "roll_back", robbed)
    with raises("no-good-checkpoint", base):
        train(shapes, out=tmp_path / "run", init=base, **SMALL)


def test_a_step_is_replayed_from_the_copied_weights_or_not_at_all(shapes: Path, base: Path, tmp_path: Path) -> None:
    run = train(shapes, out=tmp_path / "run", init=base, **{**SMALL, "keep": 1, "snapshots": 3})
    assert [path.stem for path in checkpoint.checkpoints(run)] == ["000000000", "000000048"]
    step = replay(run, at=3, device="cpu")
    assert (step.checkpoint, step.images_seen) == ("000000000.safetensors", 0)
    given = last(base)["G.project.weight"].norm().item()
    assert step.weights["G.project.weight"][0] == given
    (run / "checkpoints" / "000000000.safetensors").unlink()
    with raises("no-good-checkpoint", "at", run, 3):
        replay(run, at=3, device="cpu")


@pytest.mark.slow
def test_runs_from_different_models_are_different_configs_to_compare(shapes: Path, base: Path, tmp_path: Path) -> None:
    fields = {**SMALL, "size": "16x16", "channels": 1}
    runs = [
        train(shapes, out=tmp_path / str(number), **fields, init=model)
        for number, model in enumerate((None, base / "generator", base))
    ]
    opened = [compare_module.RunRecord.open(run) for run in runs]
    assert len(compare_module.group_by_config(opened)) == 3
    again = train(shapes, out=tmp_path / "again", **fields, init=base, seed=1)
    assert len(compare_module.group_by_config([opened[-1], compare_module.RunRecord.open(again)])) == 1


@pytest.mark.slow
def test_two_ranks_start_with_what_the_first_copied(shapes: Path, base: Path, tmp_path: Path) -> None:
    arguments = ["train", shapes, "--from", base, "--out", tmp_path / "two"]
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in SHAPELESS.items()]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "ptarmigan"]
    done = subprocess.run([*launcher, *map(str, arguments), *flags], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("warm start from") == 1
    one = train(shapes, out=tmp_path / "one", init=base, **SHAPELESS)
    assert same(first(one)[0], first(tmp_path / "two")[0])
    assert last(tmp_path / "two").keys() == last(one).keys()  # it finished, so the ranks held the same weights


# --- as a user sees it ------------------------------------------------------------------------------------------


def test_from_the_command_line(
    shapes: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [part for key, value in SHAPELESS.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    data = named(shapes, tmp_path, "blot", "new", "across")
    status, out, _ = call(monkeypatch, capsys, "train", data, "--from", base, "--out", tmp_path / "run", *flags)
    assert status == 0
    lines = out.splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith(f"warm start from {base}")]
    assert "30 of 30 tensors, 97%" in lines[start]
    assert "network dcgan, width 4, " in lines[start + 1]
    for part in (": blot, across; ", ": new; ", ": down"):
        assert part in lines[start + 2]
    assert "not copied" not in out
    assert "would give" not in out
    status, out, _ = call(monkeypatch, capsys, "train", data, "--from", base, "--out", tmp_path / "run", *flags)
    assert status == 0
    assert "finished at 48" in out
    assert "warm start" not in out
    for arguments, message in {
        ("--from", base, "--width", 8): "--width 4 ",
        ("--from", tmp_path / "nowhere"): str(tmp_path / "nowhere"),
        ("--from", tmp_path): str(tmp_path),
    }.items():
        status, _, err = call(monkeypatch, capsys, "train", data, *arguments, "--out", tmp_path / "bad", *flags)
        assert status == 2
        assert err.startswith("ptarmigan: ")
        assert err.count("\n") == 1
        assert message in err
        assert not (tmp_path / "bad").exists()


def test_copying_leaves_the_source_alone(base: Path) -> None:
    source = SourceModel.open(base)
    before = {key: value.clone() for key, value in source.tensors.items()}
    state = TrainState.create(source.config, source.spec, CPU)
    found = copy_weights(state, source)
    assert same(before, source.tensors)
    assert same(weights(state.tensors()), source.tensors)
    assert found["notes"] == []
    with torch.no_grad():
        next(state.G.parameters()).add_(1)
    assert same(before, source.tensors)  # not the same memory
