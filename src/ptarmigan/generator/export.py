"""The generator folder: weights, a readable config and a model card, in the Hugging Face Hub's layout."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from ptarmigan.config import Config
from ptarmigan.core.files import Damaged, load_header, make_folder, save_json, write_atomic
from ptarmigan.core.tensor_files import save_tensors
from ptarmigan.core.types import COLOURS, ImageSpec
from ptarmigan.evaluation.report import markdown
from ptarmigan.generator.generator import TrainedGenerator, load
from ptarmigan.generator.header import load_run_record

HUB_LICENCES = (  # the names that the Hub knows and that models often have
    "apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-sa-4.0", "cc0-1.0", "gpl-3.0",
    "mit", "openrail",
)  # fmt: skip
SCORES = re.compile(r"\n## Scores\n.*?\nSHA-256 of weights and config: [^\n]*", re.DOTALL)  # of a model card


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

    `load` takes weights and config from model.safetensors alone; the other two files are for people.  A scores.json of
    earlier weights is removed.
    """
    make_folder(folder)
    values = asdict(config)
    values["train"] |= {"time": None, "images": None, "device": "auto"}  # these describe a training run, not the model
    if config.data.labels is not None:  # a generator is shared, and its maker's folders are nobody's business
        values["data"]["labels"] = Path(config.data.labels).name
    meta = {
        "config": values,
        "spec": asdict(spec),
        "images_seen": images_seen,
        "fingerprint": fingerprint,
        "selection": selection,
        "loss_sha256": loss_sha256,  # of the user's loss file, None for a built-in loss
    }
    sha256 = save_tensors(folder / "model.safetensors", generator.state_dict(), meta)
    write_atomic(folder / "config.json", (json.dumps({**meta, "sha256": sha256}, indent=2) + "\n").encode())
    write_atomic(
        folder / "README.md", model_card(config, spec, images_seen, sha256, {}).encode(errors="backslashreplace")
    )
    (folder / "scores.json").unlink(missing_ok=True)
    return sha256


def write_scores(folder: Path, generator: TrainedGenerator, report: dict[str, Any]) -> None:
    """Add a report to scores.json, which keeps those of other extractors on this generator, and to the model card."""
    reports = generator.scores | {report["protocol"]["extractor"]: report}
    save_json(folder / "scores.json", {"generator": generator.sha256, "reports": reports})
    text = model_card(generator.config, generator.spec, generator.images_seen, generator.sha256, reports)
    with suppress(OSError, UnicodeDecodeError):  # keep what else the card says, such as a licence
        old = (folder / "README.md").read_text(encoding="utf-8")
        (new,) = SCORES.findall(text)
        text = SCORES.sub(lambda _: new, old) if SCORES.search(old) else text
    write_atomic(folder / "README.md", text.encode(errors="backslashreplace"))


def share_generator(path: Path, folder: Path, license: str | None, name: str = "FOLDER") -> TrainedGenerator:
    """Write the generator of a file or checkpoint as a generator folder for others; returns the generator in it.

    Its model card has the licence that the maker stated, and the data that the run of `path` recorded.  `name` is what
    `ptarmigan sample` calls the model.
    """
    generator, meta = load(path), load_header(path).meta
    config, spec, images_seen = generator.config, generator.spec, generator.images_seen
    loss_sha256 = meta.get("record", meta).get("loss_sha256")
    sha256 = export_generator(
        folder, generator.network, config, spec, images_seen, generator.fingerprint, generator.selection, loss_sha256
    )
    if generator.scores:
        save_json(folder / "scores.json", {"generator": sha256, "reports": generator.scores})
    data = data_of(path, generator.fingerprint)
    text = model_card(config, spec, images_seen, sha256, generator.scores, data, license, name)
    write_atomic(folder / "README.md", text.encode(errors="backslashreplace"))
    return load(folder)


def data_of(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """What the run of a generator or checkpoint recorded of its data; None where there is no such run."""
    with suppress(Damaged):
        data: dict[str, Any] = load_run_record(path.parent.parent)["data"]
        return data if data["fingerprint"] == fingerprint else None
    return None


def on_one_line(name: str) -> str:
    return " ".join(name.split())


def class_list(spec: ImageSpec, data: dict[str, Any] | None) -> str:
    """The classes in the order of their labels, with the number of training images where it is known."""
    lines = [f"{label}. {on_one_line(name)}" for label, name in enumerate(spec.class_names)]
    counts = (data or {}).get("train_counts", [])
    if len(counts) == len(lines):
        lines = [f"{line} ({count:,} training images)" for line, count in zip(lines, counts, strict=True)]
    return "\n".join(lines)


def licence_lines(license: str) -> str:
    """The licence in the front matter of the Hub, which takes the names that it knows, and any other as `other`."""
    known = license.lower()
    if known in HUB_LICENCES:
        return f"license: {known}\n"
    return f"license: other\nlicense_name: {re.sub(r'[^a-z0-9.]+', '-', known).strip('-.') or 'own'}\n"


def model_card(
    config: Config,
    spec: ImageSpec,
    images_seen: int,
    sha256: str,
    reports: dict[str, Any],
    data: dict[str, Any] | None = None,
    license: str | None = None,
    name: str = "FOLDER",
) -> str:
    """The model card: Markdown with the front matter of the Hugging Face Hub."""
    conditional = config.model.conditional
    model = "a class-conditional generator" if conditional else "an unconditional generator"
    option = f" --class {json.dumps(spec.class_names[0])}" if conditional else ""
    scores = "\n\n".join(map(markdown, reports.values())) or "None yet: run `ptarmigan score`."
    source = f"It was trained on {data['split']['train']:,} images of `{on_one_line(data['name'])}`.\n" if data else ""
    return f"""---
{licence_lines(license) if license else ""}library_name: ptarmigan
tags: [gan, image-generation]
---
# {COLOURS[spec.channels]} images of {spec.size}

This is {model}, trained by ptarmigan: recipe `{config.recipe}`, loss `{config.loss.loss}`, conditioning
`{config.model.conditioning}`, network `{config.model.network}` of width {config.model.width}; {images_seen:,} training
images seen.  This folder contains no training images.

    ptarmigan sample {name}{option} -n 16 --seed 0 --out samples.png

{source}Licence: {license or "its maker stated none"}.

## Classes
{class_list(spec, data)}

## Scores
{scores}

SHA-256 of weights and config: `{sha256}`
"""
