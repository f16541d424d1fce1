"""The fields of the config as options of `train` and `check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from cyclopts import Group, Parameter

from ptarmigan.cli.help import COMMON, Panel
from ptarmigan.config.recipes import default_in_words
from ptarmigan.config.sections import HELP, READING, SECTIONS, TYPES, Scheduled

if TYPE_CHECKING:
    from cyclopts import Token

OPTIONS = Group.create_ordered("Options", help_formatter=Panel(common=True))
RUN, *OF_SECTIONS = (
    Group.create_ordered(name.capitalize(), help_formatter=Panel(common=False)) for name in ("run", *SECTIONS)
)


def as_written(_: Any, tokens: Sequence[Token]) -> str | tuple[str, ...]:
    """The text of an option of `train`, which `resolve` reads as it reads YAML and Python's arguments."""
    first, *others = (token.value for token in tokens)
    return (first, *others) if others else first


def flag(name: str, text: str, section: Group = RUN, **more: Any) -> Parameter:
    """An option of `train`, in the panels that show it."""
    return Parameter(name, help=text, group=(OPTIONS, section) if name in COMMON else section, **more)


if TYPE_CHECKING:
    from ptarmigan.core.fields import DataFields as DataFields
    from ptarmigan.core.fields import Fields as Fields
else:
    # every field of the config is a flag of the same name
    # cyclopts takes one value for a number or A..B, two for a pair
    AS_TEXT = {Scheduled: (str, "FLOAT"), tuple[Scheduled, Scheduled]: (tuple[str, str], "FLOAT FLOAT")}

    def as_flag(key, section):
        hint, metavar = AS_TEXT.get(TYPES[key], (TYPES[key], None))
        name, converter = f"--{key.replace('_', '-')}", None if hint is bool else as_written
        more = dict(metavar=metavar, negative_iterable=(), converter=converter)
        shown = default_in_words(key) or False
        make = Parameter if section is None else flag
        text = {"help": HELP[key]} if section is None else {"text": HELP[key], "section": section}
        return Annotated[hint, make(name, **text, **more, show_default=shown)]

    SECTION_OF = {
        key: s for s, cls in zip(OF_SECTIONS, SECTIONS.values(), strict=True) for key in cls.__dataclass_fields__
    }
    Fields = TypedDict("Fields", {key: as_flag(key, section) for key, section in SECTION_OF.items()}, total=False)
    DataFields = TypedDict("DataFields", {key: as_flag(key, None) for key in READING}, total=False)
