"""The generator folder: weights, a readable config and a model card, in the Hugging Face Hub's layout."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from ptarmigan.config import Config
from ptarmigan.core.files import make_folder, save_json, save_tensors, write_atomic
from ptarmigan.core.types import ImageSpec
from ptarmigan.evaluation.report import markdown
from ptarmigan.generator.generator import Generator


def export_generator(
    folder: Path,
    generator: nn.Module,
    config: Config,
    spec: ImageSpec,
    images_seen: int,
    fingerprint: str,
    selection: str,
    loss_sha256: str | None = None,
) -> str:
    """Write model.safetensors, config.json and README.md; returns the SHA-256 of the generator.

    All that `load` needs is in model.safetensors, so the three can never disagree; the other two are for readers.
    Scores of other weights that lay there go.
    """
    make_folder(folder)
    choices = asdict(config)
    choices["train"] |= {"time": None, "images": None, "device": "auto"}  # a machine's, not the model's
    meta = {
        "config": choices,
        "spec": asdict(spec),
        "images_seen": images_seen,
        "fingerprint": fingerprint,
        "selection": selection,
        "loss_sha256": loss_sha256,  # of the user's own loss, None where it was a built-in one
    }
    sha256 = save_tensors(folder / "model.safetensors", generator.state_dict(), meta)
    write_atomic(folder / "config.json", (json.dumps({**meta, "sha256": sha256}, indent=2) + "\n").encode())
    write_atomic(folder / "README.md", card(config, spec, images_seen, sha256, {}).encode(errors="backslashreplace"))
    (folder / "scores.json").unlink(missing_ok=True)
    return sha256


def write_scores(folder: Path, generator: Generator, report: dict[str, Any]) -> None:
    """Put a report into scores.json, beside those of other extractors on this generator, and into the model card."""
    reports = generator.scores | {report["protocol"]["extractor"]: report}
    save_json(folder / "scores.json", {"generator": generator.sha256, "reports": reports})
    text = card(generator.config, generator.spec, generator.images_seen, generator.sha256, reports)
    write_atomic(folder / "README.md", text.encode(errors="backslashreplace"))


def card(config: Config, spec: ImageSpec, images_seen: int, sha256: str, reports: dict[str, Any]) -> str:
    """The model card: Markdown with the Hub's front matter."""
    kind = {1: "grey", 3: "RGB", 4: "RGBA"}[spec.channels]
    conditional = config.model.conditioning != "none"
    classes = "\n".join(f"{label}. {' '.join(name.split())}" for label, name in enumerate(spec.class_names))
    asked = f" --class {json.dumps(spec.class_names[0])}" if conditional else ""
    told = "a class-conditional generator" if conditional else "an unconditional generator"
    scored = "\n\n".join(map(markdown, reports.values())) or "None were computed for this one."
    return f"""---
library_name: ptarmigan
tags: [gan, image-generation]
---
# {kind} images of {spec.height}x{spec.width}

This is {told}, trained by ptarmigan: recipe `{config.recipe}`, loss `{config.loss.loss}`, conditioning
`{config.model.conditioning}`, network `{config.model.network}` of width {config.model.width}; {images_seen:,} training
images seen.  No training image is in this folder.

    ptarmigan sample FOLDER{asked} -n 16 --seed 0 --out samples.png

## Classes
{classes}

## Scores
{scored}

SHA-256 of weights and choices: `{sha256}`
"""
