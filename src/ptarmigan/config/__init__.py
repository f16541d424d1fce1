"""The options of a run as one checked `Config`, from the recipe and what the user gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from ptarmigan.config.checks import check, named_loss, unknown_value
from ptarmigan.config.recipes import RECIPES
from ptarmigan.config.sections import BUDGET, OF_DCGAN, SECTIONS, TYPES
from ptarmigan.config.sections import Data as Data
from ptarmigan.config.sections import Loss as Loss
from ptarmigan.config.sections import Model as Model
from ptarmigan.config.sections import Train as Train
from ptarmigan.config.values import alternatives, convert, in_words
from ptarmigan.core.types import UserError, shown, unknown
from ptarmigan.core.words import other_option

if TYPE_CHECKING:
    from typing import Unpack

    from ptarmigan.core.fields import FieldsButLoss


@dataclass(frozen=True, init=False)
class Config:
    """Everything about a run that a user chooses; the shape of the images comes from the data.

    `Config(batch=16)` takes fields by name, as `resolve` does: the others are the recipe's.  It may also be made of
    sections, of which one that is left out has its own defaults.
    """

    recipe: str = "auto"
    data: Data = Data()
    model: Model = Model()
    loss: Loss = Loss()
    train: Train = Train()

    def __init__(
        self,
        recipe: str = "auto",
        data: Data | None = None,
        model: Model | None = None,
        loss: Loss | str | None = None,
        train: Train | None = None,
        **fields: Unpack[FieldsButLoss],
    ) -> None:
        sections: dict[str, Any] = {"data": data, "model": model, "loss": loss, "train": train}
        sections = {key: value for key, value in sections.items() if value is not None}
        if sections and not fields and all(isinstance(value, SECTIONS[key]) for key, value in sections.items()):
            asked = frozenset(key for value in sections.values() for key in asdict(value))
        else:
            whole = resolve({**sections, **fields, "recipe": recipe})
            sections, asked = {key: getattr(whole, key) for key in SECTIONS}, whole.asked
        for key, cls in SECTIONS.items():
            object.__setattr__(self, key, sections.get(key, cls()))
        object.__setattr__(self, "recipe", recipe)
        object.__setattr__(self, "_asked", asked)

    @property
    def asked(self) -> frozenset[str]:
        """The names of the fields that the user gave.  Recipe `auto` may choose the others."""
        asked: frozenset[str] = self.__dict__["_asked"]
        return asked

    def flat(self) -> dict[str, Any]:
        """Field name -> value; names are unique over the four sections."""
        return {key: value for section in SECTIONS for key, value in asdict(getattr(self, section)).items()}


def flatten(given: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten options that may be nested in sections, as in a YAML file: {field name: value}, without values None.

    Raises UserError: unknown-name, which suggests the nearest name, for a field that its section does not have;
    value-invalid for a section that holds no fields.
    """
    flat: dict[str, Any] = {}
    for key, value in given.items():
        if key in SECTIONS and isinstance(value, Mapping):
            names = [f.name for f in fields(SECTIONS[key])]
            for name in value:
                if name not in names:
                    raise unknown_field(f"{key} field", name, value[name], names)
            flat |= value
        elif value is not None and key in SECTIONS and key not in TYPES:  # loss is a section and a field
            example, other = fields(SECTIONS[key])[0].name, other_option("train", key, value)
            text = f"{key}: expected fields, such as {example}, got {shown(value)}"
            raise UserError(f"{text}; {other}" if other else text, "value-invalid")
        else:
            flat[key] = value
    return {key: value for key, value in flat.items() if value is not None}


def unknown_field(what: str, name: Any, value: Any, choices: Iterable[str]) -> UserError:
    """An error for a field that does not exist; it says what to use if other tools have an option of this name."""
    if (other := other_option("train", str(name), value)) is not None:
        return UserError(f"{name}: {other}", "unknown-name")
    return unknown(what, str(name), choices)


def resolve(given: Mapping[str, Any]) -> Config:
    """The checked Config of the recipe's fields, overridden by those given (flat, or in sections as in a YAML file).

    A value None counts as not given.  Raises UserError: unknown-name, which suggests the nearest name, value-invalid,
    value-out-of-range or options-conflict.
    """
    fields_given = convert_fields(given)
    recipe = fields_given.pop("recipe", "auto")
    chosen = dict(RECIPES[recipe])
    if fields_given.get("network", "dcgan") != "dcgan":
        chosen = {key: value for key, value in chosen.items() if key not in (*OF_DCGAN, "least_side")}
    values = chosen | fields_given
    if "loss" in values:
        values["loss"] = named_loss(values["loss"])
    sections = {
        name: replace(cls(), **{f.name: values[f.name] for f in fields(cls) if f.name in values})
        for name, cls in SECTIONS.items()
    }
    config = Config(recipe=recipe, **sections)
    check(config)
    object.__setattr__(config, "_asked", frozenset(fields_given))
    return config


def convert_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are given, flat and converted to the types of their fields; `recipe` may be one of them.

    A value None counts as not given.  Raises UserError: unknown-name, value-invalid.
    """
    if not isinstance(given, Mapping):
        raise UserError(f"options: expected a mapping of fields to values, got {shown(given)}", "value-invalid")
    flat = flatten(given)
    for key in flat:
        if key not in (*TYPES, "recipe"):
            raise unknown_field("field", key, flat[key], TYPES)
    if str(flat.get("recipe", "auto")) not in RECIPES:
        raise unknown_value("recipe", str(flat["recipe"]), RECIPES)
    return {key: value if key == "recipe" else convert_field(key, value) for key, value in flat.items()}


def override(fields: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with those given in their place; a budget of time replaces one of images, and the other way."""
    replaced = BUDGET if any(key in given for key in BUDGET) else ()
    return {key: value for key, value in fields.items() if key not in replaced} | {**given}


def config_of(record: Mapping[str, Any]) -> Config:
    """The config in the record of a run or of a generator; raises UserError as `resolve` does.

    A field that an older file lacks gets the dataclass's default, not the recipe's: the default keeps the behaviour
    from before the field existed.
    """
    config = record["config"]
    return resolve({**config, **{name: {**asdict(cls()), **config[name]} for name, cls in SECTIONS.items()}})


def convert_field(key: str, value: Any) -> Any:
    """Convert a value from YAML, JSON, Python or a flag to the field's type; raises UserError naming the field."""
    found = convert(TYPES[key], value)
    if found is not None:
        return found
    (kind, *_) = alternatives(TYPES[key])
    names = [choice for choice in get_args(kind) if isinstance(choice, str)] if get_origin(kind) is Literal else []
    if names and isinstance(value, str):
        raise unknown_value(key, value, names)
    raise UserError(f"{key}: expected {in_words(TYPES[key])}, got {shown(value)}", "value-invalid")
