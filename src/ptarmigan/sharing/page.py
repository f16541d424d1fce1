"""A page that draws a generator's images in a browser: one HTML file, without network."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Sequence

from ptarmigan.core.types import COLOURS_IN_WORDS, UserError, printable, shorten
from ptarmigan.generator.directions import Named
from ptarmigan.generator.generator import TrainedGenerator, folder_names
from ptarmigan.sharing.markup import as_json, asset, text
from ptarmigan.sharing.program import Program

SCRIPTS = ("latents.js", "network.js", "page.js")
MOST_WEIGHTS = 100_000_000  # bytes; base64 adds a third


def page(generator: TrainedGenerator, argument: str, directions: Sequence[Named] = ()) -> str:
    """The page; `argument` is what `ptarmigan sample` needs before the options, so that it draws the same pictures.

    It has a slider for each of `directions`.  Raises UserError (model-too-large) for more than 100 MB of them.
    """
    program, spec = Program(generator.network), generator.spec
    if len(program.weights) > MOST_WEIGHTS:
        fault = f"the generator has {len(program.weights) / 1e6:,.0f} MB of weights, and a page holds at most"
        raise UserError(f"{fault} {MOST_WEIGHTS / 1e6:.0f} MB: use --to onnx, or `ptarmigan serve`", "model-too-large")
    of_classes = f" of {shorten([*spec.class_names], 3)}" if generator.config.model.conditional else ""
    parts = {
        "title": text(f"Draw pictures{of_classes}"),
        "style": asset("page/page.css"),
        "facts": f"Pictures of {spec.height} x {spec.width} pixels, {COLOURS_IN_WORDS[spec.channels]}.",
        "sha256": generator.sha256[:12],
        "model": as_json(described(generator, program, argument, directions)),
        "weights": base64.b64encode(program.weights).decode(),
        "script": "\n".join(asset(f"page/{name}") for name in SCRIPTS),
    }
    return re.sub(r"\[\[(\w+)\]\]", lambda found: parts[found[1]], asset("page/page.html"))


def described(
    generator: TrainedGenerator, program: Program, argument: str, directions: Sequence[Named]
) -> dict[str, object]:
    """What the scripts of the page need to know of the generator, beside its weights."""
    spec, model = generator.spec, generator.config.model
    names = spec.class_names if model.conditional else ()
    return {
        "argument": argument,
        "classes": [
            {"name": printable(name), "option": option(name), "folder": folder}
            for name, folder in zip(names, folder_names(names), strict=True)
        ],
        "height": spec.height,
        "width": spec.width,
        "channels": spec.channels,
        "latent": model.latent,
        "latent_dim": model.latent_dim,
        "class_dim": model.class_dim,
        "sha256": generator.sha256,
        "directions": [
            {"name": way.name, "move": way.move, "option": f"--move {shlex.quote(way.move)}", "step": way.step.tolist()}
            for way in directions
        ],
        "embedding": program.embedding,
        "steps": program.steps,
    }


def option(name: str) -> str:
    """A class as an option of `ptarmigan sample`."""
    return f"--class={shlex.quote(name)}" if name.startswith("-") else f"--class {shlex.quote(name)}"
