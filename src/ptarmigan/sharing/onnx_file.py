"""A generator as an ONNX file, for onnxruntime and for other programs that run ONNX."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from ptarmigan.core.types import COLOURS, UserError
from ptarmigan.core.version import __version__
from ptarmigan.generator.generator import TrainedGenerator
from ptarmigan.sharing.inference import IN_WORDS, check_parity, quiet, traced

MOST_WEIGHTS = 2_000_000_000  # bytes: a protocol buffer holds less than 2 GiB


def onnx_file(generator: TrainedGenerator, license: str | None) -> bytes:
    """The file: inputs z float32 [N, latent_dim] and labels int64 [N], output images float32 [N, C, H, W] in [-1, 1].

    onnxruntime has drawn the generator's images from it.  Raises UserError: package-missing without the extra `export`,
    model-too-large for more than 2 GB of weights, export-differs if onnxruntime draws other images.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # torch needs it
    except ImportError:
        text = "--to onnx needs onnx, onnxruntime and onnxscript: install them by pip install 'ptarmigan[export]'"
        raise UserError(text, "package-missing") from None
    weights = sum(tensor.nbytes for tensor in generator.network.state_dict().values())
    if weights > MOST_WEIGHTS:
        text = f"the generator has {weights / 1e9:,.1f} GB of weights, and an ONNX file holds at most 2 GB"
        raise UserError(f"{text}: export it with --to torch", "model-too-large")
    with quiet():
        program = torch.onnx.export(
            traced(generator), dynamo=True, verbose=False, input_names=["z", "labels"], output_names=["images"],
            dynamic_shapes={"z": {0: "batch"}, "labels": {0: "batch"}},
        )  # fmt: skip
    assert program is not None
    program.model.metadata_props.update(described(generator, license))
    content: bytes = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def draw(z: Tensor, labels: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"z": z.numpy(), "labels": labels.numpy()})[0])

    check_parity(generator, draw, "onnxruntime")
    return content


def described(generator: TrainedGenerator, license: str | None) -> dict[str, str]:
    """The file's metadata."""
    spec, model = generator.spec, generator.config.model
    conditional = model.conditional
    return {
        "class_names": json.dumps(list(spec.class_names) if conditional else []),
        "labels": "int64 [N], the place of a class in class_names" if conditional else "int64 [N], not read",
        "z": f"float32 [N, {model.latent_dim}], "
        + ("standard normal" if model.latent == "normal" else "uniform on (-1, 1)"),
        "images": IN_WORDS,
        "size": spec.size,
        "colour": COLOURS[spec.channels],
        "license": license or "not stated",
        "generator_sha256": generator.sha256,
        "made_by": f"ptarmigan {__version__}",
    }
