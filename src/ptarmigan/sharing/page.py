"""A page that draws a generator's images in a browser: one HTML file, without network."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from collections.abc import Sequence
from importlib.resources import files as resources

from ptarmigan.core.types import UserError, printable, shorten
from ptarmigan.generator.directions import Named
from ptarmigan.generator.generator import TrainedGenerator, folder_names
from ptarmigan.sharing.program import Program

SCRIPTS = ("latents.js", "network.js", "page.js")
MOST_WEIGHTS = 100_000_000  # bytes; base64 adds a third


def page(generator: TrainedGenerator, argument: str, directions: Sequence[Named] = ()) -> str:
    """The page; `argument` is what `ptarmigan sample` needs before the options, so that it draws the same pictures.

    It has a slider for each of `directions`.  Raises UserError (model-too-large) for more than 100 MB of them.
    """
    program, spec, model = Program(generator.network), generator.spec, generator.config.model
    if len(program.weights) > MOST_WEIGHTS:
        text = f"the generator has {len(program.weights) / 1e6:,.0f} MB of weights, and a page holds at most"
        raise UserError(f"{text} {MOST_WEIGHTS / 1e6:.0f} MB: use --to onnx, or `ptarmigan serve`", "model-too-large")
    names = [] if program.embedding is None else [*spec.class_names]
    of = "images" if not names else shorten([*map(printable, names)], 3)
    kind = {1: "grey", 3: "colour", 4: "colour with transparency"}[spec.channels]
    described = {
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
    parts = {
        "title": html.escape(f"Draw pictures of {of}" if names else "Draw pictures"),
        "style": asset("page.css"),
        "facts": f"Pictures of {spec.height} x {spec.width} pixels, {kind}.",
        "sha256": generator.sha256[:12],
        "model": json.dumps(described).replace("<", "\\u003c"),  # a class name may have </script> in it
        "weights": base64.b64encode(program.weights).decode(),
        "script": "\n".join(map(asset, SCRIPTS)),
    }
    return re.sub(r"\[\[(\w+)\]\]", lambda found: parts[found[1]], asset("page.html"))


def asset(name: str) -> str:
    return (resources("ptarmigan") / "assets" / "page" / name).read_text(encoding="utf-8")


def option(name: str) -> str:
    """A class as an option of `ptarmigan sample`."""
    return f"--class={shlex.quote(name)}" if name.startswith("-") else f"--class {shlex.quote(name)}"
