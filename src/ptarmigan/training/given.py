"""What `train` was given: fields in a YAML file, a dict, a `Config` or the record of a run, and images in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from numbers import Real
from pathlib import Path
from typing import Any

import yaml

from ptarmigan.config import Config, config_of, convert_fields
from ptarmigan.core.files import load_json
from ptarmigan.core.paths import user_path
from ptarmigan.core.records import RunRecord, check
from ptarmigan.core.types import UserError
from ptarmigan.data import Dataset, recorded_data
from ptarmigan.training.source_model import BASE
from ptarmigan.training.warm_start import SCRATCH


def images_given(data: str | Path | Dataset | None, given: dict[str, Any]) -> Path | Dataset | None:
    """The path or the data set to train on, which may be made of arrays `images` and `labels`, then no fields."""
    images, labels = given.get("images"), given.get("labels")
    if isinstance(labels, str | os.PathLike):
        given["labels"], labels = os.fspath(labels), None
    if labels is not None or not (images is None or isinstance(images, str | Real)):
        if data is not None or images is None or isinstance(images, str | Real):
            text = "labels: give them with the array of images, as train(images=x, labels=y), and leave data out"
            raise UserError(text, "options-conflict")
        return Dataset.from_arrays(given.pop("images"), given.pop("labels", None))
    if data is None or isinstance(data, Dataset):
        return data
    if not isinstance(data, str | os.PathLike):
        text = f"data: expected a path or a Dataset, got {type(data).__name__}; for arrays write"
        raise UserError(f"{text} train(ptarmigan.Dataset.from_arrays(images, labels))", "value-invalid")
    return user_path(data, "data")


def fields_of(config: Path | Mapping[str, Any] | Config | None) -> dict[str, Any]:
    """The fields that `config` gives, as {field: value}, in which `recipe` may be; raises UserError."""
    if config is None:
        return {}
    if isinstance(config, Config):
        return {"recipe": config.recipe, **{key: value for key, value in config.flat().items() if key in config.asked}}
    return convert_fields(config) if isinstance(config, Mapping) else read_yaml(config)


class Loader(yaml.SafeLoader):
    """YAML whose values are text as it is written, but for true, false and null, and which has each key once.

    YAML 1.1 itself reads 10:30 as 630 and 010 as 8, and takes the last of equal keys.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  # the name is yaml's
        first: [(tag, written) for tag, written in resolvers if tag.rpartition(":")[2] in ("bool", "null", "merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Fields from a YAML file, flat or in sections, or all fields of a run from its config.json, as {field: value}.

    Raises UserError, which names the file: file-unreadable where it cannot be read or is not a mapping, and those of
    `convert_fields`.
    """
    if (record := read_run_config(path)) is not None:
        config, own_loss = config_of(record), str(record.get("asked", {}).get("loss"))
        fields = {"recipe": config.recipe, **config.flat()} | ({"loss": own_loss} if own_loss.endswith(".py") else {})
        return {key: value for key, value in fields.items() if value is not None}
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader)
    except OSError as error:
        raise UserError(f"config: cannot read {path}: {error.strerror}", "file-unreadable") from None
    except UnicodeDecodeError:
        raise UserError(f"config: {path} is not text in UTF-8; save it as UTF-8", "file-unreadable") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"config: {path} is not YAML: {yaml_fault(error)}", "file-unreadable") from None
    if not isinstance(content, dict):
        raise UserError(f"config: {path} must map fields to values, for example `batch: 64`", "file-unreadable")
    try:
        for key in ("out", "from", "config"):
            if key in content:
                raise UserError(f"{key} is not a field of a config; give --{key} on the command line", "unknown-name")
        fields = convert_fields(content)
        sections = [section for section in content.values() if isinstance(section, dict)]
        for key, value in content.items():
            if not isinstance(value, dict) and any(key in section for section in sections):
                raise UserError(f"{key} is given twice, alone and in a section", "options-conflict")
    except UserError as error:
        raise UserError(f"config: {path}: {error.text}", error.code) from None
    return fields


def read_run_config(path: Path) -> dict[str, Any] | None:
    """The record in the config.json of a run; None for another file.  Raises Damaged where it was changed."""
    if path.suffix != ".json":
        return None
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads(path.read_bytes())
        if isinstance(content, dict) and {"config", "data", "spec"} <= content.keys():
            record = load_json(path)
            check(path, record, RunRecord)
            return record
    return None


def of_run(config: Path, data: Path | Dataset | None, init: Path | None) -> tuple[Path | Dataset | None, Path | None]:
    """`data` and `init`, or those of the run whose config.json `config` is, where they are None."""
    record = read_run_config(config)
    if record is not None and data is None and (source := recorded_data(config.parent, record["data"]["source"])):
        data = Path(source)
    if record is not None and init is None:
        model = record["init"]["model"] if record.get("init") else str(SCRATCH)
        constants = {str(BASE): BASE, str(SCRATCH): SCRATCH}  # a record that has these names means no folder
        init = constants.get(model, Path(model))
    return data, init


def yaml_fault(error: Exception) -> str:
    """The line and what is wrong there, without the excerpt that yaml prints over several lines."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())
