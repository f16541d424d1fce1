"""Samples: the same latent for the same seed and index, whatever else is asked for; the three kinds of output."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

import ptarmigan.commands.sample as sampling
import ptarmigan.generator.generator as drawing
from conftest import SMALL
from ptarmigan import info, load, sample, train
from ptarmigan.commands.copies import CopyGuard
from ptarmigan.config import config_of, resolve
from ptarmigan.core.console import Display
from ptarmigan.core.tensor_files import load_tensors, save_tensors
from ptarmigan.core.terminal import Terminal
from ptarmigan.core.types import UserError
from ptarmigan.data import HELD_OUT, TRAIN, open_dataset
from ptarmigan.evaluation.features import EXTRACTORS
from ptarmigan.generator.grid_names import shown_name, write_names
from ptarmigan.generator.points import save_rows
from support import at_most, at_step, call, interrupt, raises, random_projection


def tree(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(shapes, out=tmp_path_factory.mktemp("runs") / "run", **SMALL)


@pytest.fixture(scope="module")
def unconditional(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(shapes, out=tmp_path_factory.mktemp("runs") / "dcgan", recipe="dcgan", **SMALL)


def test_an_image_is_a_function_of_seed_class_and_index(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = load(run)
    images, labels = generator.sample(n=6, seed=3)
    assert images.shape == (18, 16, 16, 1)
    assert images.dtype == np.uint8
    assert labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    alone, alone_labels = generator.sample("down", n=2, seed=3)
    assert np.array_equal(alone, images[6:8])
    assert alone_labels.tolist() == [1, 1]
    backwards, _ = generator.sample(["blot", "across"], n=1, seed=3)
    assert np.array_equal(backwards, images[[12, 0]])
    monkeypatch.setattr(drawing, "CHUNK", 5)
    parts, _ = generator.sample(n=6, seed=3)
    assert np.abs(parts.astype(int) - images).max() <= 1  # another batch may round another way
    assert not np.array_equal(generator.sample(n=6, seed=4)[0], images)
    assert len({image.tobytes() for image in images}) == 18


def test_a_run_its_generator_folder_and_its_file_are_one_model(run: Path, tmp_path: Path) -> None:
    images = [load(path).sample(n=2)[0] for path in (run, run / "generator", run / "generator" / "model.safetensors")]
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[0], images[2])


def test_a_generator_shows_itself_in_one_line(run: Path) -> None:
    shown = repr(load(run))
    assert len(shown) < 120
    for fact in ("16x16", "3 classes", "48 images"):
        assert fact in shown


def test_npz_is_the_adm_layout(run: Path, tmp_path: Path) -> None:
    sample(run, label=["blot"], n=3, seed=5, out=tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["arr_0"], load(run).sample("blot", 3, 5)[0])
        assert arrays["arr_1"].tolist() == [2, 2, 2]
        assert arrays["class_names"].tolist() == ["across", "down", "blot"]


def test_png_has_a_row_for_each_class(run: Path, tmp_path: Path) -> None:
    sample(run, n=4, out=tmp_path / "x.png")
    images, _ = load(run).sample(n=4)
    with Image.open(tmp_path / "x.png") as picture:
        pixels, margin = np.asarray(picture), int(picture.text["margin"])  # type: ignore[attr-defined]
    assert pixels.shape == (3 * 18 + 2, margin + 4 * 18 + 2)
    assert np.array_equal(pixels[18 + 2 : 18 + 18, margin + 2 : margin + 18], images[4, :, :, 0])
    for row in range(3):  # a name beside each
        assert (pixels[18 * row + 2 : 18 * row + 18, :margin] < 128).any()


def test_a_name_beside_a_row_is_short_and_has_only_what_the_font_can_draw() -> None:
    for name, shown in (
        ("ankle boot", "ankle boot"), ("caf\u00e9", "cafe"), ("\u732b", "class 7"), ("cat \U0001f408", "class 7"),
        ("", "class 7"), ("\n", "\\n"), ("x" * 21, "x" * 17 + "..."), ("x" * 20, "x" * 20),
    ):  # fmt: skip
        assert shown_name(name, 7) == shown


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_names_leave_the_images_as_they_are(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 24, 12, channels), np.uint8)
    grid = sampling.image_grid(images, 2)
    named, margin = write_names(grid, ["one", "two"], 24)
    assert margin > 0
    assert np.array_equal(np.asarray(named)[:, margin:], np.asarray(grid))
    beside = np.asarray(named)[:, :margin]
    opaque = beside[..., 3] > 128 if channels == 4 else beside.reshape(*beside.shape[:2], -1)[..., 0] < 128
    assert [opaque[2 + 26 * row : 26 + 26 * row].any() for row in range(2)] == [True, True]
    assert write_names(grid, ["one"], 8) == (grid, 0)


def test_the_rows_of_an_unconditional_generator_have_no_names(run: Path, tmp_path: Path) -> None:
    generator = load(run)
    model = replace(generator.config.model, conditioning="none")
    other = replace(generator, config=replace(generator.config, model=model))
    images, labels = generator.sample("blot", n=4)
    sampling.save_grid(other, images, labels, tmp_path / "x.png", 0)
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (2 * 18 + 2, 2 * 18 + 2)


def test_a_folder_gets_class_folders_that_can_be_trained_on(run: Path, tmp_path: Path) -> None:
    sample(run, n=2, out=tmp_path / "more" / "dir")
    files = sorted(str(path.relative_to(tmp_path / "more")) for path in (tmp_path / "more").rglob("*.png"))
    assert files == [f"dir/{name}/00000{i}.png" for name in ("across", "blot", "down") for i in (0, 1)]
    with Image.open(tmp_path / "more/dir/blot/000001.png") as picture:
        assert np.array_equal(np.asarray(picture), load(run).sample("blot", 2)[0][1, :, :, 0])


@pytest.mark.parametrize("name", ["x.png", "x.npz", "dir"])
def test_nothing_is_overwritten(name: str, run: Path, tmp_path: Path) -> None:
    sample(run, n=1, out=tmp_path / name)
    before = tree(tmp_path)
    with raises("file-exists", tmp_path / name):
        sample(run, n=1, out=tmp_path / name)
    assert tree(tmp_path) == before


def test_without_out_each_call_makes_a_new_picture(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("samples.png", "samples-2.png", "samples-3.png"):
        before = tree(tmp_path)
        status, out, _ = call(monkeypatch, capsys, "sample", run, "--class", "down,blot", "-n", 1)
        assert (status, out) == (0, f"{name}\n")
        assert {path: content for path, content in tree(tmp_path).items() if path.name != name} == before
    with Image.open("samples.png") as picture:
        assert picture.text["classes"] == "down, blot"  # type: ignore[attr-defined]


def test_out_of_range_numbers_and_other_endings_are_refused(run: Path, tmp_path: Path) -> None:
    generator = load(run)
    with raises("value-out-of-range", "-n 0"):
        generator.sample(n=0)
    for seed in (-1, 2**63):
        with raises("value-out-of-range", f"--seed {seed}"):
            generator.sample(n=1, seed=seed)
    with raises("value-invalid", tmp_path / "x.jpg", f"--out {tmp_path / 'x.png'}"):
        sample(run, n=1, out=tmp_path / "x.jpg")


def test_class_names_that_are_no_file_names_stay_inside_the_folder(run: Path, tmp_path: Path) -> None:
    generator = load(run)
    spec = sampling.ImageSpec(16, 16, 1, ("../../up", "t-shirt/top", ".."))
    evil = replace(generator, spec=spec)
    (tmp_path / "in").mkdir()
    sampling.save_folder(
        evil,
        [0, 1, 2],
        evil.chunks([0, 1, 2], 1, drawing.latents_of_seed(evil.config.model, 0)),
        tmp_path / "in" / "out",
        0,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    assert len(list((tmp_path / "in" / "out").glob("*/000000.png"))) == 3


ODD = ("caf\u00e9 " + "x" * 400, "new\nline\0", "\udce9\ud800", "Cat", "cat", "con.", "\u202e\U0001f43e", "")


def test_any_class_name_can_be_a_folder_and_stand_in_a_picture(run: Path, tmp_path: Path) -> None:
    names = sampling.folder_names(ODD)
    assert len({name.lower() for name in names}) == len(ODD)
    for name in names:
        (tmp_path / name).mkdir()
    assert sampling.folder_names(("caf\u00e9", "cafe", "snow \u96ea")) == ["caf\u00e9", "cafe", "snow \u96ea"]
    odd = replace(load(run), spec=sampling.ImageSpec(16, 16, 1, ODD[:3]))
    sampling.save_grid(odd, *odd.sample(n=1), tmp_path / "x.png", 0)
    with Image.open(tmp_path / "x.png") as picture:
        assert "caf\u00e9" in picture.text["classes"]  # type: ignore[attr-defined]


def test_a_class_is_found_in_any_form_of_unicode_and_drawn_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = replace(load(run), spec=sampling.ImageSpec(16, 16, 1, ("cafe\u0301", "b", "c")))
    assert generator.labels_of(["caf\u00e9", "b", "cafe\u0301"]) == [0, 1]
    status, _, err = call(
        monkeypatch, capsys, "sample", run, "--class", "blot", "--class", "blot", "-n", 1, "--out", tmp_path / "x.npz"
    )
    assert (status, "once" in err) == (0, True)
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["arr_1"].tolist() == [2]


def test_what_is_wrong_with_out_the_model_and_the_class_is_said_in_this_order(run: Path, tmp_path: Path) -> None:
    with raises("value-invalid", "x.jpg"):
        sample(tmp_path / "nowhere", label=["moth"], out=tmp_path / "x.jpg")
    with raises("path-not-found"):
        sample(tmp_path / "nowhere", label=["moth"], out=tmp_path / "x.png")
    with raises("unknown-name", "'moth'"):
        sample(run, label=["moth"], out=tmp_path / "x.png")
    with raises("value-invalid", "out"):
        sample(run, n=1, out=tmp_path / ("x" * 300 + ".png"))
    with raises("value-invalid", "model"):
        load(tmp_path / ("x" * 300))


def test_many_classes_are_a_choice_of_32_rows() -> None:
    assert sampling.grid_classes(3) == [0, 1, 2]
    rows = sampling.grid_classes(1000)
    assert (len(rows), rows[0], rows[-1]) == (32, 0, 999)
    steps = np.diff(rows)
    assert (steps.min(), steps.max()) == (32, 33)


def test_a_picture_of_many_classes_says_which_it_shows(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sampling, "MAX_ROWS", 2)
    monkeypatch.setattr(drawing, "MAX_ROWS", 2)
    assert call(monkeypatch, capsys, "sample", run, "-n", 1, "--out", tmp_path / "x.png")[2].count("2 of 3") == 1
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.height == 38
        assert picture.text["classes"] == "across, blot"  # type: ignore[attr-defined]
    named = call(monkeypatch, capsys, "sample", run, "--class", "down", "-n", 1, "--out", tmp_path / "y.png")
    assert named[2] == ""


def test_an_unknown_class_of_many_names_20_of_them(run: Path) -> None:
    names = tuple(f"n{index:04d}" for index in range(1000))
    with raises("unknown-name", "'zebra'", "and 980 more") as caught:
        replace(load(run), spec=sampling.ImageSpec(16, 16, 1, names)).sample("zebra")
    assert len(str(caught.value)) < 300


def test_what_has_no_room_is_refused_before_anything_is_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n, out in ((10**6, "x.png"), (10**19, "x.npz"), (10**9 + 1, "dir")):
        with raises("value-out-of-range", f"-n {n}"):
            sample(run, n=n, out=tmp_path / "new" / out)
    monkeypatch.setattr(sampling.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**6, 0, 10**6))
    for out in ("x.npz", "dir"):
        with at_most(100), raises("file-unwritable", tmp_path, "GB"):
            sample(run, n=10**9, out=tmp_path / "new" / out)
    assert list(tmp_path.iterdir()) == []


def test_images_are_written_in_parts(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "CHUNK", 4)
    sizes: list[int] = []
    forward = drawing.forward
    monkeypatch.setattr(drawing, "forward", lambda *a: (sizes.append(len(a[1])), forward(*a))[1])
    sample(run, n=5, seed=2, out=tmp_path / "x.npz")
    assert sizes == [4, 4, 4, 3]
    with np.load(tmp_path / "x.npz") as arrays:
        images, labels = load(run).sample(n=5, seed=2)
        assert np.array_equal(arrays["arr_0"], images)
        assert np.array_equal(arrays["arr_1"], labels)


def test_memory_that_does_not_suffice_is_said(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_little(*_: object) -> None:
        raise np._core._exceptions._ArrayMemoryError((10**10,), np.dtype(np.uint8))

    monkeypatch.setattr(drawing, "forward", too_little)
    with raises("out-of-memory"):
        sample(run, n=1, out=tmp_path / "x.png")
    with raises("out-of-memory"):
        load(run).sample(n=1)


def test_weights_and_pixels_that_are_not_finite_are_not_drawn(run: Path, tmp_path: Path) -> None:
    tensors, meta = load_tensors(run / "generator" / "model.safetensors")
    del meta["sha256"]
    huge = {name: tensor * 1e25 if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_tensors(tmp_path / "huge.safetensors", huge, meta)
    with raises("not-finite"):
        load(tmp_path / "huge.safetensors").sample(n=1)
    tensors["project.weight"][0, 0] = float("nan")
    save_tensors(tmp_path / "nan.safetensors", tensors, meta)
    with raises("model-invalid", tmp_path / "nan.safetensors", "project.weight"):
        load(tmp_path / "nan.safetensors")
    assert info(tmp_path / "nan.safetensors")["not_finite"] == ["project.weight"]
    assert "not_finite" not in info(run)


# --- checkpoints --------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_sampled_and_the_last_one_is_the_generator(run: Path, tmp_path: Path) -> None:
    last = run / "checkpoints" / "000000048.safetensors"
    images = load(run).sample(n=2)[0]
    for model, at in ((last, None), (run, 48), (run / "checkpoints", None), (run / "checkpoints", 48)):
        assert np.array_equal(load(model, at=at).sample(n=2)[0], images)
    earlier = load(run, at=24)
    assert (earlier.images_seen, earlier.fingerprint) == (24, load(run).fingerprint)
    assert not np.array_equal(earlier.sample(n=2)[0], images)
    sample(run, at=24, n=2, out=tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as arrays:
        assert np.array_equal(arrays["arr_0"], earlier.sample(n=2)[0])
    known, of_run = info(run, at=24), info(run)
    assert (known["images_seen"], known["parameters"]) == (24, of_run["parameters"])
    assert of_run["parameters"] == sum(parameter.numel() for parameter in earlier.network.parameters())


def test_a_checkpoint_that_there_is_not_is_answered_with_those_that_there_are(run: Path, tmp_path: Path) -> None:
    with raises("no-checkpoint", run, 25, "24, 48"):
        load(run, at=25)
    with raises("no-checkpoint", run / "generator"):
        load(run / "generator", at=24)
    with raises("path-not-found", tmp_path / "nowhere"):
        load(tmp_path / "nowhere", at=24)


def test_info_imports_no_torch_and_sample_no_compiler(run: Path, tmp_path: Path) -> None:
    for arguments, module in (
        (["info", run], "torch"),
        (["sample", run, "--out", tmp_path / "x.png"], "torch._dynamo"),
    ):
        code = f"import sys; sys.argv = {['ptarmigan', *map(str, arguments)]}; from ptarmigan.cli import main; main()\n"
        code += f"assert {module!r} not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_an_unknown_class_lists_the_known_ones(run: Path) -> None:
    with raises("unknown-name", "'blott'", "'blot'", "across, down, blot"):
        load(run).sample("blott")


def test_an_unconditional_generator_refuses_a_class(unconditional: Path) -> None:
    generator = load(unconditional)
    assert generator.sample(n=5)[0].shape == (5, 16, 16, 1)
    with raises("options-conflict", "'blot'", "recipe dcgan", "--recipe auto"):
        generator.sample("blot")


def test_a_generator_of_one_class_is_not_sent_to_the_recipe_that_it_has(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (24, 16, 16), np.uint8)
    np.savez(tmp_path / "one.npz", arr_0=images, arr_1=np.zeros(24, np.int64), class_names=np.array(["moth"]))
    generator = load(train(tmp_path / "one.npz", out=tmp_path / "run", **SMALL))
    with raises("options-conflict", "'cat'", "--class") as caught:
        generator.sample("cat")
    assert "--recipe" not in str(caught.value)


def test_info_says_what_a_model_knows(run: Path, unconditional: Path) -> None:
    known = info(run)
    assert known["classes"] == ["across", "down", "blot"]
    assert (known["size"], known["recipe"], known["images_seen"]) == ("16x16", "auto", 48)
    assert any(note.startswith("augmentation none: ") for note in known["notes"])
    assert info(unconditional)["classes"] == "none: unconditional"
    readable = json.loads((run / "generator" / "config.json").read_text())
    assert readable["sha256"] == known["sha256"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "header", "pickle"])
def test_a_damaged_generator_is_named_and_never_loaded(damage: str, run: Path, tmp_path: Path) -> None:
    blob = bytearray((run / "generator" / "model.safetensors").read_bytes())
    if damage == "truncate":
        blob = blob[: len(blob) // 2]
    elif damage == "flip":
        blob[-9] ^= 4
    elif damage == "empty":
        blob = bytearray()
    elif damage == "header":
        blob[40:60] = b"x" * 20
    else:
        blob = bytearray(b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.")
    path = tmp_path / "model.safetensors"
    path.write_bytes(blob)
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load(path)


def test_info_says_that_a_run_was_stopped_and_the_command_resumes_it(shapes: Path, tmp_path: Path) -> None:
    run = tmp_path / "a run"
    with pytest.MonkeyPatch.context() as patch, raises("stopped"):
        at_step(patch, 5, interrupt)
        train(shapes, out=run, **SMALL)
    text = info(run)["run"]
    assert text.startswith("stopped at 83% of its budget")
    with FileLock(run / ".lock"):
        assert info(run)["run"] == "training, at 83% of its budget"
    program, command, *options = shlex.split(text.partition(": ")[2])
    assert (program, command) == ("ptarmigan", "train")
    given = {key.removeprefix("--"): value for key, value in zip(options[::2], options[1::2], strict=True)}
    assert train(**given) == run  # type: ignore[arg-type]
    assert info(run)["run"] == "finished"
    log = run / "metrics.jsonl"
    last = json.loads(log.read_text().splitlines()[-1])
    score = {"images_seen": last["images_seen"], "attempt": last["attempt"], "select_kid": 0.5}
    log.write_text(log.read_text() + json.dumps(score) + "\n")
    assert info(run)["run"] == "finished"
    assert "run" not in info(run / "generator")


def test_a_name_from_a_file_is_printable_in_a_message(run: Path, tmp_path: Path) -> None:
    tensors, meta = load_tensors(run / "generator/model.safetensors")
    del meta["sha256"]
    save_tensors(tmp_path / "x.safetensors", {**tensors, "\x1b[31mred": tensors["project.weight"].clone()}, meta)
    with raises("file-damaged", "\\x1b[31mred") as caught:
        load(tmp_path / "x.safetensors")
    assert str(caught.value).isprintable()


def test_no_generator_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with raises("no-generator", tmp_path / "generator/model.safetensors", tmp_path / "model.safetensors"):
        load(tmp_path)
    with raises("path-not-found", tmp_path / "nowhere"):
        load(tmp_path / "nowhere")


def test_fields_that_a_file_lacks_are_as_before_them_and_not_the_recipes() -> None:
    config = asdict(resolve({"recipe": "auto", "g_lr": 1e-3}))
    del config["loss"]["penalty_every"], config["model"]["g_blocks"]
    old = config_of({"config": config})
    assert (old.loss.penalty_every, old.model.g_blocks, old.train.g_lr) == (1, 0, 1e-3)


# --- truncation, pictures drawn again, directions, copies ---------------------------------------------------------


def text_of(path: Path) -> dict[str, str]:
    with Image.open(path) as picture:
        return {str(key): str(value) for key, value in picture.info.items()}


def test_truncation_multiplies_the_latents(run: Path, unconditional: Path, tmp_path: Path) -> None:
    generator = load(run)
    sample(run, label=["down"], n=3, seed=4, truncation=0.5, out=tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as arrays:
        assert np.array_equal(arrays["arr_0"], generator.sample("down", z=0.5 * generator.latents(3, 4))[0])
    for value, code in (
        (-0.1, "value-out-of-range"),
        (1.5, "value-out-of-range"),
        (float("nan"), "value-out-of-range"),
    ):
        with raises(code, "truncation"):
            sample(run, truncation=value, out=tmp_path / "y.png")
    with raises("value-invalid", "truncation", "'half'"):
        sample(run, truncation="half", out=tmp_path / "y.png")  # type: ignore[arg-type]
    with raises("options-conflict", "truncation", "uniform"):
        sample(unconditional, truncation=0.5, out=tmp_path / "y.png")
    assert not (tmp_path / "y.png").exists()


def test_a_picture_is_drawn_again_with_what_else_is_asked_for(run: Path, tmp_path: Path) -> None:
    sample(run, label=["blot", "across"], n=3, seed=4, truncation=0.5, out=tmp_path / "x.png")
    sample(run, like=tmp_path / "x.png", out=tmp_path / "again.png")
    with Image.open(tmp_path / "x.png") as one, Image.open(tmp_path / "again.png") as other:
        assert np.array_equal(np.asarray(one), np.asarray(other))
    assert text_of(tmp_path / "again.png") == text_of(tmp_path / "x.png")
    sample(run, like=tmp_path / "x.png", label=["down"], seed=5, truncation=1.0, out=tmp_path / "other.npz")
    with np.load(tmp_path / "other.npz") as arrays:
        assert np.array_equal(arrays["arr_0"], load(run).sample("down", 3, 5)[0])


def test_one_image_of_a_folder_is_drawn_again_alone(run: Path, tmp_path: Path) -> None:
    sample(run, label=["down"], n=4, seed=6, out=tmp_path / "more")
    sample(run, like=tmp_path / "more/down/000002.png", out=tmp_path / "one")
    (again,) = (tmp_path / "one").rglob("*.png")
    assert again.relative_to(tmp_path / "one") == Path("down/000002.png")
    with Image.open(again) as one, Image.open(tmp_path / "more/down/000002.png") as other:
        assert np.array_equal(np.asarray(one), np.asarray(other))
    assert text_of(again) == text_of(tmp_path / "more/down/000002.png")


def test_a_picture_that_does_not_say_how_it_was_drawn_is_refused(
    run: Path, unconditional: Path, tmp_path: Path
) -> None:
    sample(run, n=1, out=tmp_path / "x.png")
    with raises("generator-differs", "like", tmp_path / "x.png"):
        sample(unconditional, like=tmp_path / "x.png", out=tmp_path / "y.png")
    with raises("file-unreadable", tmp_path / "none.png"):
        sample(run, like=tmp_path / "none.png", out=tmp_path / "y.png")
    text = text_of(tmp_path / "x.png")
    for damage in (
        {"labels": ""},
        {"labels": "0,3"},
        {"labels": "1,1"},
        {"n": "many"},
        {"first": "-1"},
        {"truncation": "x"},
        {"seed": ""},
    ):
        drawing.save_png(Image.new("L", (2, 2)), tmp_path / "odd.png", **text | damage)
        with raises("value-invalid", "like", tmp_path / "odd.png"):
            sample(run, like=tmp_path / "odd.png", out=tmp_path / "y.png")
    other = {"generator": load(unconditional).sha256}  # which draws one row
    drawing.save_png(Image.new("L", (2, 2)), tmp_path / "odd.png", **text | other)
    with raises("value-invalid", "like", tmp_path / "odd.png"):
        sample(unconditional, like=tmp_path / "odd.png", out=tmp_path / "y.png")
    drawing.save_png(Image.new("L", (2, 2)), tmp_path / "odd.png", **text | {"n": str(10**12)})
    with raises("value-out-of-range", "-n"):
        sample(run, like=tmp_path / "odd.png", out=tmp_path / "y.png")


def test_a_direction_moves_the_latents(run: Path, tmp_path: Path) -> None:
    generator = load(run)
    steps = torch.eye(6)[:2]
    save_rows(tmp_path / "d.safetensors", generator, directions=steps)
    moves = [f"{tmp_path / 'd.safetensors'}=2", f"{tmp_path / 'd.safetensors'}:1=-0.5"]
    sample(run, label=["down"], n=2, truncation=0.5, move=moves, out=tmp_path / "x.png")
    assert text_of(tmp_path / "x.png")["moves"] == "d.safetensors=2 d.safetensors:1=-0.5"
    sample(run, label=["down"], n=2, truncation=0.5, move=moves, out=tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as arrays:
        z = 0.5 * generator.latents(2) + 2 * steps[0] - 0.5 * steps[1]
        assert np.array_equal(arrays["arr_0"], generator.sample("down", z=z)[0])


def test_a_move_that_is_not_valid_is_refused(run: Path, unconditional: Path, tmp_path: Path) -> None:
    file = tmp_path / "d.safetensors"
    save_rows(file, load(run), directions=torch.eye(6))
    for move, code, fact in (
        ("smile=2", "value-invalid", "smile"),
        (f"{file}", "value-invalid", "FILE=AMOUNT"),
        (f"{file}=much", "value-invalid", "much"),
        (f"{file}=nan", "value-invalid", "nan"),
        (f"{file}:6=1", "value-out-of-range", "0 to 5"),
        (f"{tmp_path / 'none.safetensors'}=1", "file-unreadable", "none.safetensors"),
        (f"{run / 'generator' / 'model.safetensors'}=1", "file-damaged", "directions"),
    ):
        with raises(code, fact):
            sample(run, move=[move], out=tmp_path / "x.png")
    with raises("generator-differs", file):
        sample(unconditional, move=[f"{file}=1"], out=tmp_path / "x.png")


def test_uniform_latents_stay_in_their_range(unconditional: Path, tmp_path: Path) -> None:
    generator = load(unconditional)
    save_rows(tmp_path / "d.safetensors", generator, directions=torch.ones(1, 6))
    sample(unconditional, n=1, move=[f"{tmp_path / 'd.safetensors'}=5"], out=tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as arrays:
        assert np.array_equal(arrays["arr_0"], generator.sample(z=torch.ones(1, 6))[0])


class Marked(CopyGuard):
    """Takes the images with these first pixels for copies."""

    marks: frozenset[bytes] = frozenset()

    def copies(self, images: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return np.array([image.tobytes() in self.marks for image in images])


def test_a_copy_is_replaced_by_the_next_draw_of_its_index(run: Path, tmp_path: Path) -> None:
    generator = load(run)
    images, labels = generator.sample("down", 3)
    latents = drawing.latents_of_seed(generator.config.model, 0)
    guard = Marked(random_projection(), torch.zeros(2, 16), torch.ones(2), 1.0)
    second = generator.draw(labels[1:2], latents(np.array([1 + drawing.MAX_IMAGES])))
    third = generator.draw(labels[1:2], latents(np.array([1 + 2 * drawing.MAX_IMAGES])))
    guard.marks = frozenset([images[1].tobytes(), second[0].tobytes()])
    chunk = next(guard.without_copies(generator.chunks([1], 3, latents), generator, latents))
    assert np.array_equal(chunk.images, np.stack([images[0], third[0], images[2]]))
    assert chunk.indices.tolist() == [0, 1 + 2 * drawing.MAX_IMAGES, 2]
    assert guard.redrawn == 2


def test_a_generator_that_only_copies_is_given_up(run: Path) -> None:
    generator = load(run)
    latents = drawing.latents_of_seed(generator.config.model, 0)
    guard = CopyGuard(random_projection(), torch.zeros(2, 16), torch.ones(2), float("inf"))
    with raises("only-copies", "'down'", 20):
        next(guard.without_copies(generator.chunks([1], 3, latents), generator, latents))


def test_what_is_nearer_to_a_training_image_than_all_held_out_images_is_a_copy(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(EXTRACTORS, "efficientnet-lite0", lambda weights: random_projection())
    run = train(shapes, out=tmp_path / "run", **SMALL | {"split": "60/0/40", "images": "16"})
    with Display(Terminal(quiet=True)) as display:
        guard = CopyGuard.of(run, load(run), "recorded", "cpu", display)
        dataset = open_dataset(shapes, resolve(SMALL | {"split": "60/0/40"}).data)
        assert guard.copies(dataset.images[dataset.indices(TRAIN)]).all()
        assert not guard.copies(dataset.images[dataset.indices(HELD_OUT)]).any()
    capsys.readouterr()
    given = ["--reject-copies", "recorded", "-n", 2, "--out", tmp_path / "x.png", "--device", "cpu"]
    status, out, err = call(monkeypatch, capsys, "sample", run, *given)
    assert (status, out) == (0, f"{tmp_path / 'x.png'}\n")
    assert "replaced: 0" in err
    assert text_of(tmp_path / "x.png")["redrawn"] == "0"
    few = train(shapes, out=tmp_path / "few", **SMALL | {"split": "90/0/10", "images": "16"})
    with raises("too-few-images", "reject-copies"):
        sample(few, reject_copies="recorded", out=tmp_path / "y.png", device="cpu")
