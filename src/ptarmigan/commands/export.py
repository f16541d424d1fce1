"""`ptarmigan export`: a generator in a form that needs no ptarmigan."""

from __future__ import annotations

import shlex
from pathlib import Path

from ptarmigan.core.console import Display, Terminal
from ptarmigan.core.files import check_new_path, write_atomic
from ptarmigan.core.paths import user_path
from ptarmigan.core.types import unknown
from ptarmigan.generator.generator import load
from ptarmigan.sharing.page import page

FORMS = ("html",)


def export(model: str | Path, *, to: str = "html", out: str | Path | None = None, at: int | None = None) -> Path:
    """Write a generator as `to`: html, one page that draws images in any browser without a network; returns its path.

    `model` and `at` are as in `load`.  `out` is X.html, a new file (default: the name of `model` with that ending, in
    the current folder).  Raises UserError as `load` does, for another form (unknown-name) or ending (value-invalid),
    if `out` exists (file-exists), and for a generator of more than 100 MB (model-too-large).
    """
    if to not in FORMS:
        raise unknown("to", to, FORMS)
    model = user_path(model, "model")
    name = model.resolve().name.removesuffix(".safetensors")
    target = Path(f"{name}.{to}") if out is None else user_path(out, "out")
    with Display(Terminal(stderr=True)) as display, display.doing("writing the page"):
        content = page(load(model, at=at), sample_argument(model, at)).encode()
        write_atomic(check_new_path(target, "out", f".{to}"), content)
        display.say(f"{len(content) / 1e6:.1f} MB; it holds no training images, and opens in any browser")
    return target


def sample_argument(model: Path, at: int | None) -> str:
    """The model as `ptarmigan sample` takes it; of a path outside the current folder the name alone."""
    path = Path(model.name) if model.is_absolute() or ".." in model.parts else model
    given = shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))
    return given if at is None else f"{given} --at {at}"
