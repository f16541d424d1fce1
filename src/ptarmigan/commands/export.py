"""`ptarmigan export`: a generator in a form that needs no ptarmigan, or on the Hugging Face Hub."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ptarmigan.core.console import Display, Terminal
from ptarmigan.core.files import check_absent, check_new_path, write_atomic
from ptarmigan.core.paths import user_path
from ptarmigan.core.types import UserError, printable, unknown
from ptarmigan.generator.directions import all_named
from ptarmigan.generator.export import share_generator
from ptarmigan.generator.generator import TrainedGenerator, load, new_folder
from ptarmigan.generator.header import find_generator
from ptarmigan.generator.hub import PREFIX, is_on_hub, pinned
from ptarmigan.sharing.hub import upload
from ptarmigan.sharing.onnx_file import onnx_file
from ptarmigan.sharing.page import page
from ptarmigan.sharing.torch_folder import add_programs

FORMS = {"html": "writing the page", "onnx": "writing the ONNX file", "torch": "writing the folder", "hub": "uploading"}


def export(
    model: str | Path,
    repo: str | None = None,
    *,
    to: str = "html",
    out: str | Path | None = None,
    license: str | None = None,
    directions: str | Path | Sequence[str | Path] | None = None,
    at: int | None = None,
) -> Path | str:
    """Write a generator as `to`; returns the path, or hf:user/name@commit for the Hub.

    html is one page that draws images in any browser without a network, onnx a file for onnxruntime, and torch a folder
    with a program of torch.export and a short file of plain PyTorch.  hub uploads the generator folder to the new
    repository `repo`.  `model` and `at` are as in `load`.  `out` is X.html, X.onnx or a folder, and new (default: named
    after `model`, in the current folder).  `license` says in words what others may do.  `directions` are files of the
    command `directions`: the page has a slider for each direction in them.  Raises UserError as `load` does, for
    another form (unknown-name) or ending (value-invalid), for an option of another form (options-conflict), if `out`
    exists (file-exists), for a generator that is too large for the form (model-too-large), for directions of another
    generator (generator-differs), where a library is missing (package-missing), if the export draws other images
    (export-differs), and as `sharing.hub.upload` does.
    """
    directions = [directions] if isinstance(directions, str | Path) else directions or ()
    check_options(to, repo, out, license, directions)
    model = user_path(model, "model")
    path = find_generator(model, at)
    license = None if license is None else printable(" ".join(license.split()))
    with Display(Terminal(stderr=True)) as display, display.doing(FORMS[to]):
        if repo is not None:
            return to_hub(path, repo, license, display)
        target = (
            Path(f"{name_of(model)}{'-torch' if to == 'torch' else f'.{to}'}") if out is None else user_path(out, "out")
        )
        if to == "torch":
            to_folder(path, target, license, display)
        elif to == "onnx":
            to_file(path, target, to, lambda generator: onnx_file(generator, license), display)
        else:
            argument = sample_argument(pinned(model, path) if is_on_hub(model) else model, at)
            to_file(path, target, to, lambda generator: with_sliders(generator, argument, directions), display)
    return target


def check_options(
    to: str, repo: str | None, out: str | Path | None, license: str | None, directions: Sequence[str | Path]
) -> None:
    """Raise UserError for a form that there is not, or for an option that the form does not take."""
    if to not in FORMS:
        raise unknown("--to", to, FORMS)
    if (to == "hub") != (repo is not None):
        text = "--to hub and the name of a repository go together: ptarmigan export MODEL --to hub user/name"
        raise UserError(text, "options-conflict")
    if to == "hub" and out is not None:
        raise UserError("--out names a file, and --to hub writes none: leave --out out", "options-conflict")
    if to == "html" and license is not None:
        raise UserError("--license is for --to onnx, torch and hub: a page does not show it", "options-conflict")
    if to != "html" and directions:
        raise UserError("--directions gives the sliders of a page, and is for --to html", "options-conflict")


def with_sliders(generator: TrainedGenerator, argument: str, directions: Sequence[str | Path]) -> bytes:
    """The page with a slider for each direction of the files; `argument` names the generator for `ptarmigan sample`."""
    named = [way._replace(move=in_command(Path(way.move))) for way in all_named(directions, generator)]
    return page(generator, argument, named).encode()


def to_file(path: Path, target: Path, to: str, form: Callable[[TrainedGenerator], bytes], display: Display) -> None:
    """Write the generator of a file as X.html or X.onnx, whose content `form` makes."""
    check_new_path(target, "out", f".{to}")
    content = form(load(path))
    write_atomic(target, content)
    checked = "it opens in any browser" if to == "html" else "onnxruntime drew the same images from it"
    display.say(f"{len(content) / 1e6:.1f} MB; it holds no training images, and {checked}")


def to_folder(path: Path, target: Path, license: str | None, display: Display) -> None:
    """Write the generator of a file as a folder for PyTorch."""
    check_absent(target, "out")
    with new_folder(target) as folder:
        add_programs(folder, share_generator(path, folder, license))
    display.say("the folder holds no training images, and PyTorch drew the same images from its two programs")


def to_hub(path: Path, repo: str, license: str | None, display: Display) -> str:
    """Upload the generator of a file; returns hf:user/name@commit."""
    with tempfile.TemporaryDirectory() as folder:
        share_generator(path, Path(folder), license, f"{PREFIX}{printable(repo)}")
        uploaded = upload(Path(folder), repo)
    display.say("the repository holds no training images; it is public, unless you made it private before")
    return uploaded


def name_of(model: Path) -> str:
    """What a file of this model is called."""
    if is_on_hub(model):
        return str(model).partition("@")[0].rpartition("/")[2]
    return model.resolve().name.removesuffix(".safetensors")


def sample_argument(model: Path, at: int | None) -> str:
    """The model as `ptarmigan sample` takes it; of a path outside the current folder the name alone."""
    given = in_command(model)
    given = shlex.quote(f"./{given}" if given.startswith("-") else given)
    return given if at is None else f"{given} --at {at}"


def in_command(path: Path) -> str:
    """A path as the page shows it: of one outside the current folder the name alone."""
    return path.name if path.is_absolute() or ".." in path.parts else str(path)
