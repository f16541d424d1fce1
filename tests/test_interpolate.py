"""`interpolate`: a walk begins and ends at images of `sample`, and leads through every class and latent between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ptarmigan import interpolate
from ptarmigan.generator.interpolate import along_sphere, images_between
from ptarmigan.generator.points import Points
from support import call, raises
from test_export import NAMES, generator_of


@pytest.mark.parametrize("kind", ["dcgan", "blocks", "unconditional", "r3gan odd"])
def test_a_walk_begins_and_ends_at_images_of_sample(kind: str, tmp_path: Path) -> None:
    generator = generator_of(tmp_path, kind)
    classes = kind != "unconditional"
    before = {name: tensor.clone() for name, tensor in generator.network.state_dict().items()}
    walk = images_between(generator, Points.sampled(generator, 2 * classes, 5), Points.sampled(generator, 0, 9), 33 + 2)
    for image, label, seed in ((walk[0], NAMES[2], 5), (walk[-1], NAMES[0], 9)):
        expected = generator.sample(label if classes else None, 1, seed=seed)[0][0]
        assert np.abs(image.astype(int) - expected).max() <= 1
    steps = np.abs(np.diff(walk.astype(float), axis=0)).mean((1, 2, 3))
    assert steps.min() > 0
    assert steps.max() < np.abs(walk[0].astype(float) - walk[-1]).mean() / 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.network.state_dict().items())


def test_half_way_between_two_classes_is_the_mean_of_their_embeddings(tmp_path: Path) -> None:
    generator = generator_of(tmp_path, "dcgan")
    middle = images_between(generator, Points.sampled(generator, 0, 4), Points.sampled(generator, 1, 4), 3)[1]
    table = generator.network.embedding.weight  # type: ignore[union-attr]
    table[2] = (table[0] + table[1]) / 2  # type: ignore[index, operator]
    assert np.abs(middle.astype(int) - generator.sample(NAMES[2], 1, seed=4)[0][0]).max() <= 1


def test_normal_latents_keep_their_length() -> None:
    first, last = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])
    torch.testing.assert_close(along_sphere(first, last, torch.tensor(0.5)), torch.full((2,), 3 / 2**0.5))
    torch.testing.assert_close(along_sphere(first, first, torch.tensor(0.3)), first)


def test_every_form_of_file_has_all_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = generator_of(tmp_path / "m", "blocks")
    walk = images_between(generator, Points.sampled(generator, 0, 0), Points.sampled(generator, 1, 3), 5)
    monkeypatch.chdir(tmp_path)
    for out in ("x.gif", "x.webp", "x.png", "x"):
        given = ["--from", "boot", "--to", "bag, small:3", "--frames", 5, "--out", out, "--device", "cpu"]
        assert call(monkeypatch, capsys, "interpolate", "m", *given)[:2] == (0, f"{out}\n")
    for name in ("x.gif", "x.webp"):
        with Image.open(name) as film:
            assert film.n_frames == 5
            assert film.size == (33, 17)
            film.seek(4)
            shown = np.asarray(film.convert("RGBA")).astype(int)
    solid = walk[4, :, :, 3] > 0
    assert (shown[solid] == walk[4][solid]).all()  # of the WebP
    assert [path.name for path in sorted(Path("x").iterdir())] == [f"{i:06d}.png" for i in range(5)]
    with Image.open("x/000004.png") as picture:
        assert (np.asarray(picture) == walk[4]).all()
    with Image.open("x.png") as picture:
        assert picture.size == (3 * 35 + 2, 2 * 19 + 2)


def test_what_cannot_be_walked_is_refused(tmp_path: Path) -> None:
    generator_of(tmp_path / "m", "dcgan")
    generator_of(tmp_path / "u", "unconditional")
    out = tmp_path / "x.gif"
    with raises("unknown-name", "cat", "boot"):
        interpolate(tmp_path / "m", init="cat", to="boot", out=out)
    with raises("value-invalid", "from", "boot:x"):
        interpolate(tmp_path / "m", init="boot:x", to="boot", out=out)
    with raises("value-invalid", "to", "boot"):
        interpolate(tmp_path / "u", init="1", to="boot", out=out)
    with raises("value-invalid", "from", "3"):
        interpolate(tmp_path / "m", init=3, to="boot", out=out)  # type: ignore[arg-type]
    with raises("value-out-of-range", "--frames"):
        interpolate(tmp_path / "m", init="boot", to="boot", frames=1, out=out)
    with raises("value-out-of-range", "--frames"):
        interpolate(tmp_path / "m", init="boot", to="boot", frames=10**9, out=out)
    with raises("value-invalid", "x.mp4"):
        interpolate(tmp_path / "m", init="boot", to="boot", out=tmp_path / "x.mp4")
    out.touch()
    with raises("file-exists", out):
        interpolate(tmp_path / "m", init="boot", to="boot", out=out)
