"""The addresses of `ptarmigan serve`: images of one generator as PNG or JSON, and what the generator is."""

from __future__ import annotations

import io
import json
import math
import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ptarmigan.commands.sample import Drawing, check_truncation
from ptarmigan.core.types import MOST_NAMES, UserError, class_name, printable, shorten
from ptarmigan.core.version import __version__
from ptarmigan.generator.generator import (
    MAX_IMAGES,
    TrainedGenerator,
    drawing_text,
    grid_of,
    image_grid,
    memory_errors,
    png_text,
    write_png,
)
from ptarmigan.sharing.markup import asset
from ptarmigan.web.guard import guarded, healthz, only, whole
from ptarmigan.web.worker import Worker

MOST = 64  # images of one request
LAST_SEED = 2**63 - 1


class Wanted(NamedTuple):
    """The images of one class that a request asks for."""

    drawing: Drawing
    alone: bool  # one image by its number, in place of a grid of the first ones

    @classmethod
    def of(cls, request: Request, generator: TrainedGenerator) -> Wanted:
        """Raises UserError: value-invalid, value-out-of-range, unknown-name, options-conflict."""
        given = only(request, "class", "seed", "n", "image", "truncation", "format")
        if given("image") is not None and given("n") is not None:
            raise UserError("image is the number of one image, and n a number of images: give one", "options-conflict")
        drawing = Drawing(
            [label_of(generator, given("class"))],
            whole("n", given("n"), 1, MOST, 1),
            whole("seed", given("seed"), 0, LAST_SEED),
            whole("image", given("image"), 0, MAX_IMAGES - 1),
            truncation_of(generator, given("truncation")),
        )
        return cls(drawing, given("image") is not None)

    def draw(self, generator: TrainedGenerator) -> NDArray[np.uint8]:
        """The images of `ptarmigan sample`, uint8 [N, H, W, C]."""
        labels, n, _, first, _ = self.drawing
        with memory_errors():
            chunks = generator.chunks(labels, n, self.drawing.latents(generator, None), first)
            return np.concatenate([chunk.images for chunk in chunks])


def label_of(generator: TrainedGenerator, name: str | None) -> int:
    """The label of the class that a request names; raises UserError if there are classes and it names none of them."""
    if not generator.config.model.conditional:
        if name is not None:
            raise UserError("class: this generator has no classes; leave it out", "options-conflict")
        return 0
    if name is None:
        text = f"class is missing: name one of {shorten(classes_of(generator), MOST_NAMES)}"
        raise UserError(text, "value-invalid")
    return generator.spec.label(name)


def truncation_of(generator: TrainedGenerator, text: str | None) -> float:
    """By what the latents are multiplied; raises UserError."""
    if text is None:
        return 1.0
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,9})?", text):
        raise UserError(f"truncation: expected a number from 0 to 1, got {printable(text[:100])!r}", "value-invalid")
    check_truncation(generator, float(text))
    return float(text)


def served(generator: TrainedGenerator, token: str) -> Starlette:
    """The application of `ptarmigan serve`."""
    worker = Worker()

    async def sample(request: Request) -> Response:
        wanted = Wanted.of(request, generator)
        as_json = wants_json(request)
        images = await worker.compute(lambda: wanted.draw(generator))
        return as_list(generator, wanted, images) if as_json else as_picture(generator, wanted, images)

    async def model(request: Request) -> Response:
        only(request)
        return JSONResponse(described(generator))

    async def openapi(request: Request) -> Response:
        only(request)
        return JSONResponse(document(generator))

    handlers = {"/": openapi, "/openapi.json": openapi, "/v1/model": model, "/v1/sample": sample, "/healthz": healthz}
    return guarded([Route(path, handler) for path, handler in handlers.items()], token)


def wants_json(request: Request) -> bool:
    """Whether a request asks for JSON, by `format` or else by its Accept header; raises UserError (value-invalid)."""
    form = request.query_params.get("format")
    if form not in (None, "png", "json"):
        raise UserError(f"format: expected png or json, got {printable(form[:100])!r}", "value-invalid")
    accepted = request.headers.get("accept", "").lower()
    return form == "json" or (form is None and "application/json" in accepted and "image/" not in accepted)


def as_picture(generator: TrainedGenerator, wanted: Wanted, images: NDArray[np.uint8]) -> Response:
    """The PNG that `ptarmigan sample` writes: of one image as in a folder, of several as one picture."""
    (label,), _, seed, first, _ = wanted.drawing
    file, told = io.BytesIO(), wanted.drawing._replace(first=0).text(())
    if wanted.alone:
        told |= drawing_text(generator, [label], 1, seed) | {"first": first}
        write_png(image_grid(images, 1, gap=0), file, **told)
    else:
        picture, text = grid_of(generator, images, np.full(len(images), label), seed, **told)
        write_png(picture, file, **text)
    return Response(file.getvalue(), media_type="image/png")


def as_list(generator: TrainedGenerator, wanted: Wanted, images: NDArray[np.uint8]) -> Response:
    """Each image as a PNG in base64."""
    (label,), _, seed, first, truncation = wanted.drawing
    names = classes_of(generator)
    return JSONResponse({
        "class": names[label] if names else None,
        "seed": seed,
        "truncation": truncation,
        "generator": generator.sha256,
        "images": [{"image": index, "png": png_text(image)} for index, image in enumerate(images, first)],
    })  # fmt: skip


def described(generator: TrainedGenerator) -> dict[str, Any]:
    spec, model = generator.spec, generator.config.model
    return {
        "classes": classes_of(generator),
        "height": spec.height,
        "width": spec.width,
        "channels": spec.channels,
        "recipe": generator.config.recipe,
        "images_seen": generator.images_seen,
        "latent": model.latent,
        "parameters": sum(math.prod(weight.shape) for weight in generator.network.parameters()),
        "generator": generator.sha256,
        "most_images": MOST,
        "ptarmigan": __version__,
    }


def classes_of(generator: TrainedGenerator) -> list[str]:
    """The names of the classes as requests give them; [] without classes."""
    return [*map(class_name, generator.spec.class_names)] if generator.config.model.conditional else []


def document(generator: TrainedGenerator) -> dict[str, Any]:
    """The OpenAPI document, with the classes of this generator."""
    out: dict[str, Any] = json.loads(asset("explore/openapi.json"))
    out["info"]["version"] = __version__
    parameters = out["paths"]["/v1/sample"]["get"]["parameters"]
    of_class = next(parameter for parameter in parameters if parameter["name"] == "class")
    if names := classes_of(generator):
        of_class |= {"required": True, "schema": {"type": "string", "enum": names}}
    else:
        parameters.remove(of_class)
    return out
