"""The classes of the drawn set: a name, and a function that draws one picture of it with everything else free."""

from __future__ import annotations

from collections.abc import Callable

import creatures
import forms
import glyphs
import surfaces
import things
from picture import Picture

CLASSES: dict[str, Callable[[Picture], None]] = dict(
    sorted((creatures.CLASSES | forms.CLASSES | glyphs.CLASSES | surfaces.CLASSES | things.CLASSES).items())
)
