"""The command line: each command is the public function of its name, imported when it is called."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, Unpack

from cyclopts import (
    App,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    UnknownOptionError,
    UnusedCliTokensError,
)

from ptarmigan.boundary import (
    CALL,
    abandon_broken_streams,
    check_arguments,
    check_current_folder,
    fail,
    noting_interrupts,
    open_missing_streams,
    program,
    quote,
    quote_path,
    say,
)
from ptarmigan.boundary import report as report_error
from ptarmigan.config import HELP, READING, RECIPES, SECTIONS, TYPES, Scheduled, as_number, default_in_words
from ptarmigan.core.ranks_env import is_rank_0
from ptarmigan.core.types import UserError, brief, shorten, shown
from ptarmigan.core.version import __version__
from ptarmigan.core.words import other_option

if TYPE_CHECKING:
    from cyclopts import Token
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions


class Prose:
    """A panel of a help page, its texts without the line breaks of their docstring."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        from cyclopts.help.formatters import DefaultFormatter
        from rich.text import Text

        for entry in panel.entries:
            text = getattr(entry.description, "primary_renderable", None)
            if isinstance(text, Text):
                entry.description.primary_renderable = Text(" ".join(text.plain.split()))
        DefaultFormatter()(console, options, panel)

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        from cyclopts.help.formatters import DefaultFormatter

        DefaultFormatter().render_usage(console, options, usage)


app = App(
    name="ptarmigan",
    help="Class-conditional image GANs whose losses are right.",
    version=__version__,
    version_flags=["--version"],
    help_flags=["--help", "-h"],
    help_epilogue="Examples:\n  ptarmigan train photos --time 30m\n  ptarmigan help sample",
    help_formatter=Prose(),
    help_format="plaintext",  # rich needs longer to import its Markdown than to print the help
    suppress_keyboard_interrupt=False,  # main reports it
)

HELP_ALL = "--help-all"
COMMON = (  # the options that `train --help` shows, in this order
    "--recipe", "--out", "--time", "--images", "--size", "--augment", "--from", "--config", "--device", "--seed",
)  # fmt: skip


class Panel:
    """A panel of `train`'s help: the common options without --help-all, a section of all options with it."""

    def __init__(self, common: bool) -> None:
        self.common = common

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        from cyclopts.help.formatters import DefaultFormatter

        if self.common == (HELP_ALL in CALL.get()):
            return
        if self.common:
            panel.entries.sort(key=lambda entry: COMMON.index(entry.names[0]))
        DefaultFormatter()(console, options, panel)
        if self.common:
            console.print(f"All options, by section: ptarmigan train {HELP_ALL}")


OPTIONS = Group.create_ordered("Options", help_formatter=Panel(common=True))
RUN, *OF_SECTIONS = (
    Group.create_ordered(name.capitalize(), help_formatter=Panel(common=False)) for name in ("run", *SECTIONS)
)


def examples(*commands: str) -> str:
    """The end of a help page."""
    return "\n".join(["Example:" if len(commands) == 1 else "Examples:", *(f"  ptarmigan {line}" for line in commands)])


def command(*commands: str, **options: Any) -> Callable[[Any], Any]:
    """Make a function a command, whose help ends with examples; commands are listed as they are defined."""
    make: Callable[[Any], Any] = app.command(help_epilogue=examples(*commands), sort_key=len([*app]), **options)
    return make


def whole(_: Any, tokens: Sequence[Token]) -> int:
    """Read a whole number; cyclopts itself would round 1.5 to 2."""
    token = tokens[0]
    number = as_number(int, token.value)
    if number is None:
        raise UserError(f"{token.keyword}: expected a whole number, got {shown(token.value)}", "value-invalid")
    return int(number)


def as_written(_: Any, tokens: Sequence[Token]) -> str | tuple[str, ...]:
    """The text of an option of `train`, which `resolve` reads as it reads YAML and Python's arguments."""
    first, *others = (token.value for token in tokens)
    return (first, *others) if others else first


def flag(name: str, text: str, section: Group = RUN, **more: Any) -> Parameter:
    """An option of `train`, in the panels that show it."""
    return Parameter(name, help=text, group=(OPTIONS, section) if name in COMMON else section, **more)


FLAGS_WITHOUT_VALUE = {key for key, hint in TYPES.items() if hint is bool}

if TYPE_CHECKING:
    from ptarmigan.core.fields import DataFields, Fields
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


@command(
    "train photos --time 30m",
    "train photos --size 48x64 --recipe acgan --out runs/acgan",
    help_flags=["--help", "-h", HELP_ALL],
    usage="Usage: ptarmigan train [DATA] [OPTIONS]",
)
def train(
    data: Annotated[
        Path | None,
        Parameter(help="folder of class folders, IDX folder or .npz; default: the embedded images of Fashion-MNIST"),
    ] = None,
    /,
    *,
    recipe: Annotated[str | None, flag("--recipe", f"named settings: {', '.join(RECIPES)}; default: auto")] = None,
    out: Annotated[
        Path | None, flag("--out", "run folder; an existing run is resumed; default: runs/NAME-NUMBER")
    ] = None,
    config: Annotated[
        Path | None, flag("--config", "YAML file of options, or the config.json of a run to repeat; flags override it")
    ] = None,
    init: Annotated[
        Path | None,
        flag("--from", "run or generator to take the initial weights from, `base` or `none`; default: chosen by auto"),
    ] = None,
    **fields: Unpack[Fields],
) -> None:
    """Train a generator on the images of DATA, then print where it is and what to do next.

    The same command resumes a run that was stopped; a longer budget extends one that is finished.
    """
    from ptarmigan.core.console import Display, Terminal

    with Display(Terminal(quiet=not is_rank_0())) as display, display.doing("loading PyTorch", at_once=True):
        from ptarmigan.training.loop import train

    try:
        run = train(data, recipe=recipe, out=out, config=config, init=init, **fields)
        if is_rank_0():
            with suppress(OSError):
                say("next:", *(f"  {command}" for command in next_commands(run)))
    finally:
        abandon_broken_streams()  # a run ends by its own result, also where nobody reads what it prints


@command("check photos", "check photos --deep --html photos.html", "check photos --fix list.csv")
def check(
    data: Path | None = None,
    /,
    *,
    html: Path | None = None,
    json: Path | None = None,
    fail_on: Literal["error", "warning"] = "error",
    deep: Annotated[bool, Parameter(negative=())] = False,
    fix: Path | None = None,
    **fields: Unpack[DataFields],
) -> int:
    """Look for what is wrong with DATA before training: files, labels, copies; nothing of it is changed.

    The exit status is 1 if there is a finding at or above --fail-on, and 2 if the data cannot be read.

    Parameters
    ----------
    data
        the images, as for `train`; default: the embedded images of Fashion-MNIST
    html
        X.html: also write the report as a page with pictures, a new file
    json
        X.json: also write the report as JSON, a new file
    fail_on
        error or warning
    deep
        also look for wrong labels, by features of the images; takes minutes
    fix
        X.csv: also write a list of path, label, keep and reason, a new file that `train --labels` takes
    """
    from ptarmigan.core.console import Display, Terminal

    with Display(Terminal(stderr=True)) as display, display.doing("loading PyTorch"):
        from ptarmigan.commands.check import check, print_check

    report = check(data, html=html, json=json, fail_on=fail_on, deep=deep, fix=fix, **fields)
    print_check(report)
    return int(report.failed)


# options that several commands share
OF_MODEL = (
    "run folder, generator folder, model.safetensors, a checkpoint of a run, or hf:user/name[@revision] on the Hub"
)
Model = Annotated[Path, Parameter(help=OF_MODEL)]
At = Annotated[
    int | None,
    Parameter(converter=whole, help="use the run's checkpoint after this many images; default: the last generator"),
]
Device = Annotated[str, Parameter(help="auto, cpu, cuda or mps")]


@command(
    "sample runs/photos-1",
    "sample runs/photos-1 --class cat -n 64 --seed 1 --out cats.png",
    "sample runs/photos-1 --like cats.png --truncation 0.7",
)
def sample(
    model: Model,
    /,
    *,
    label: Annotated[list[str] | None, Parameter(name="--class", negative_iterable=())] = None,
    n: Annotated[int | None, Parameter(name="-n", converter=whole)] = None,
    seed: Annotated[int | None, Parameter(converter=whole)] = None,
    truncation: float | None = None,
    move: Annotated[list[str] | None, Parameter(negative_iterable=())] = None,
    like: Path | None = None,
    reject_copies: str | None = None,
    out: Path | None = None,
    at: At = None,
    device: Device = "auto",
) -> None:
    """Generate images of MODEL's classes and save them.

    Parameters
    ----------
    label
        name of a class, or several names with commas between them; may be given several times; default: all classes
    n
        number of images of each class; default: 16
    seed
        seed of the latents: image i of a class depends on the seed and i only; default: 0
    truncation
        from 0 to 1: latents are multiplied by it, so that images vary less and are more typical; default: 1
    move
        FILE:NUMBER=AMOUNT, to change the images along a direction of `ptarmigan directions`; may be given several times
    like
        X.png that ptarmigan saved: draw it again, with what the other options change
    reject_copies
        the training images, or `recorded` for those that the run recorded: draw an image again that is nearer to one
        of them than every held-out image is
    out
        X.png with one row a class; X.npz with arr_0 (images), arr_1 (labels) and class_names; or a folder of class
        folders; default: a new samples.png, samples-2.png ...
    """
    from ptarmigan.commands.sample import sample

    path = sample(
        model, label=label, n=n, seed=seed, truncation=truncation, move=move, like=like,
        reject_copies=reject_copies, out=out, at=at, device=device,
    )  # fmt: skip
    say(str(path))


@command(
    "interpolate runs/photos-1 --from cat --to dog:7 --out walk.gif",
    "interpolate runs/photos-1 --from inverted.safetensors:0 --to dog",
)
def interpolate(
    model: Model,
    /,
    *,
    init: Annotated[str, Parameter(name="--from")],
    to: str,
    frames: Annotated[int, Parameter(converter=whole)] = 60,
    out: Path | None = None,
    at: At = None,
    device: Device = "auto",
) -> None:
    """Save the images on the way from one image of MODEL to another, of the same class or of two.

    Parameters
    ----------
    init
        CLASS or CLASS:SEED, the first image that `sample` draws of it; SEED for a generator without classes; or
        X.safetensors:NUMBER, an image that `invert` found
    to
        the same for the last image
    frames
        number of images, both ends included
    out
        X.gif or X.webp, an animation; X.png, all images side by side; or a folder; default: a new
        walk.gif
    """
    from ptarmigan.generator.interpolate import interpolate

    say(str(interpolate(model, init=init, to=to, frames=frames, out=out, at=at, device=device)))


@command("invert runs/photos-1 mycat.jpg", "invert runs/photos-1 a.png b.png --out found.png")
def invert(
    model: Model,
    /,
    *images: Path,
    out: Path | None = None,
    time: str = "2m",
    at: At = None,
    device: Device = "auto",
) -> None:
    """Find the latents and the mixture of classes from which MODEL draws images most like IMAGES.

    Beside the picture, X.safetensors keeps them for `interpolate --from X.safetensors:0`.

    Parameters
    ----------
    images
        image files
    out
        X.png, with a row for each image: the given one, then the one that was found; default: a new inverted.png
    time
        time after which the search ends with what it has found, for all images together: 90s, 2m or 1h
    """
    from ptarmigan.commands.invert import invert

    picture, sentences = invert(model, *images, out=out, time=time, at=at, device=device)
    say(*sentences, str(picture))


@command(
    "directions runs/photos-1", "directions runs/photos-1 --class cat --toward kittens --away old-cats --out kitten.png"
)
def directions(
    model: Model,
    /,
    *,
    label: Annotated[list[str] | None, Parameter(name="--class", negative_iterable=())] = None,
    toward: Path | None = None,
    away: Path | None = None,
    out: Path | None = None,
    at: At = None,
    device: Device = "auto",
) -> None:
    """Find directions along which the images of MODEL change in one way, and show them.

    Beside the picture, X.safetensors keeps them for `sample --move X.safetensors:0=2`, where 0 is the number of the
    direction and 2 how far to move.

    Parameters
    ----------
    label
        name of a class, or several names with commas between them: look at samples of these; default: all classes
    toward
        folder of images that samples are to become more like; default: the directions that change images most
    away
        folder of images that samples are to become less like
    out
        X.png, with a row for each direction: three images, each at five places along it; default: a new directions.png
    """
    from ptarmigan.commands.directions import directions

    say(str(directions(model, label=label, toward=toward, away=away, out=out, at=at, device=device)))


@command("score runs/photos-1", "score runs/photos-1 --extractor inception -n 5000")
def score(
    model: Path,
    data: Path | None = None,
    /,
    *,
    n: Annotated[int | None, Parameter(name="-n", converter=whole)] = None,
    seeds: Annotated[int, Parameter(converter=whole)] = 5,
    extractor: str = "efficientnet-lite0",
    weights: Path | None = None,
    size: str | None = None,
    cas: Annotated[bool, Parameter(negative=(), show_default="off")] = False,
    time: str = "15m",
    out: Path | None = None,
    device: str = "auto",
    details: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Score generated images against held-out images of DATA, over all classes and for each class.

    Parameters
    ----------
    model
        run folder, generator folder, model.safetensors or hf:user/name[@revision]; or existing images in class folders
        or an .npz
    data
        the images that the generator was trained on; default: those that the run recorded
    n
        number of generated images in each set; default: as many as are held out, from 1,000 to 5,000; where there
        are few, the training images divided by --seeds
    seeds
        number of independent sets of images, from which the intervals are computed
    extractor
        network that maps images to features: efficientnet-lite0, classifier (trained on these classes on top of it)
        or inception (for the FID)
    weights
        file of the extractor's weights; default: its usual place
    size
        height x width to which existing images are fitted, as in `train`; not for a generator, which has its own
    cas
        also train a classifier of the extractor's features on generated images and test it on real ones
    time
        time budget: 90s, 15m or 1h; fewer images are scored where that is needed to keep it
    out
        new folder for the report; default: beside the generator, with a summary in its model card
    device
        auto, cpu, cuda or mps
    details
        also print the scores against training images, and KID and diversity of each class
    """
    from ptarmigan.commands.score import score
    from ptarmigan.evaluation.report import print_report

    report = score(
        model, data, n=n, seeds=seeds, extractor=extractor, weights=weights, size=size, cas=cas, time=time, out=out,
        device=device,
    )  # fmt: skip
    print_report(report, details)


@command("compare runs/photos-1 runs/photos-2")
def compare(*runs: Path) -> None:
    """Compare the scores of RUNS; runs that differ only in their seed form one group with an interval.

    Parameters
    ----------
    runs
        two or more run folders; each is compared with the first
    """
    from ptarmigan.commands.compare import compare, print_comparison

    print_comparison(compare(*runs))


@command("info runs/photos-1")
def info(model: Model, /, *, at: Annotated[int | None, Parameter(converter=whole)] = None) -> None:
    """Print what MODEL records: classes, size, recipe, images seen, scores.

    Parameters
    ----------
    at
        describe the run's checkpoint after this many images; default: the last generator
    """
    from ptarmigan.generator.header import info

    for key, value in info(model, at=at).items():
        text = shorten(value, 10) if isinstance(value, list) else f"{value:,}" if isinstance(value, int) else value
        say(brief(f"{key.replace('_', ' '):<13} {text}"))


@command("replay runs/photos-1 --at 12800")
def replay(
    run: Path,
    /,
    *,
    at: Annotated[int, Parameter(converter=whole)],
    data: Path | None = None,
    loss: Path | None = None,
    out: Path | None = None,
    device: str = "auto",
    layers: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Compute one training step of RUN again and say what is unusual in it; save its batch, fakes and all numbers.

    Parameters
    ----------
    run
        run folder
    at
        images seen at the step, which is computed from the last checkpoint before it
    data
        where the training images are now, if they were moved
    loss
        the loss file, unchanged, of a run that used your own loss
    out
        new folder for pictures and numbers; default: RUN/private/replay-IMAGES
    device
        auto, cpu, cuda or mps; the step is exact on the device of the run
    layers
        also print the activations and gradients of each layer, and the norms of each parameter
    """
    from ptarmigan.commands.replay import print_step, replay

    print_step(replay(run, at=at, data=data, loss=loss, out=out, device=device), layers)


@command(
    "export runs/photos-1", "export runs/photos-1 --to onnx", "export runs/photos-1 --to hub me/photos --license mit"
)
def export(
    model: Model,
    repo: str | None = None,
    /,
    *,
    to: str = "html",
    out: Path | None = None,
    license: str | None = None,
    directions: Annotated[list[Path] | None, Parameter(negative_iterable=())] = None,
    at: Annotated[int | None, Parameter(converter=whole)] = None,
) -> None:
    """Write MODEL as a page for any browser, for other runtimes, or to the Hugging Face Hub.

    Parameters
    ----------
    repo
        user/name of the new repository, with --to hub
    to
        html: one page that draws images, also on a phone and without a network; onnx: a file for onnxruntime; torch: a
        folder with a program of torch.export and a short file of plain PyTorch; hub: upload the generator to REPO
    out
        X.html, X.onnx or a folder, and new; default: named after MODEL, in the current folder
    license
        what others may do with the generator, such as mit or cc-by-4.0; goes into its model card or metadata
    directions
        X.safetensors of `ptarmigan directions`: the page gets a slider for each; may be given several times
    at
        export the run's checkpoint after this many images; default: the last generator
    """
    from ptarmigan.commands.export import export

    say(str(export(model, repo, to=to, out=out, license=license, directions=directions or (), at=at)))


@command("explore", "explore runs/photos-1 runs/photos-2")
def explore(
    *runs: Path,
    port: Annotated[int | None, Parameter(converter=whole)] = None,
    host: str = "127.0.0.1",
    device: str = "auto",
    private: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Show RUNS in a browser, also while they train: verdicts, charts, grids, scores; draw with their generators.

    It prints an address of this machine with a token, without which nothing is answered, and ends at Ctrl-C.

    Parameters
    ----------
    runs
        run folders, or folders of runs; default: runs
    port
        default: 8470, or the next one that is free
    host
        address to listen on; any but 127.0.0.1 may let other machines in
    device
        device that finds nearest images: auto, cpu, cuda or mps
    private
        also show training images, those nearest to a generated one; on this machine alone
    """
    from ptarmigan.web.start import explore

    explore(*runs, port=port, host=host, device=device, private=private)


@command("serve runs/photos-1", "serve runs/photos-1 --port 8000")
def serve(
    model: Path,
    /,
    *,
    port: Annotated[int | None, Parameter(converter=whole)] = None,
    host: str = "127.0.0.1",
    at: Annotated[int | None, Parameter(converter=whole)] = None,
    device: str = "auto",
) -> None:
    """Serve images of MODEL to other programs over HTTP, as PNG or JSON, until Ctrl-C.

    It prints an address of this machine with a token, without which nothing is answered.

    Parameters
    ----------
    model
        run folder, generator folder, model.safetensors or a checkpoint of a run
    port
        default: 8470, or the next one that is free
    host
        address to listen on; any but 127.0.0.1 may let other machines in
    at
        serve the run's checkpoint after this many images; default: the last generator
    device
        auto, cpu, cuda or mps
    """
    from ptarmigan.web.start import serve

    serve(model, port=port, host=host, at=at, device=device)


@app.command
def plot(run: Path, /, *, out: Path | None = None) -> None:
    """Draw the log of RUN over the images seen: the losses, penalties, gradients and live scores.

    Parameters
    ----------
    run
        run folder, of a finished run or of one that still trains
    out
        X.svg, a new file; default: the run's name with the ending .svg, in the current folder
    """
    from ptarmigan.commands.plot import plot

    say(str(plot(run, out=out)))


@command("report runs/photos-1", "report runs/photos-1 --out photos.html")
def report(run: Path, /, *, out: Path | None = None, private: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Write the report of RUN as one page: its samples, findings, log, scores, data and options.

    `train` writes it at each snapshot; this command adds the scores of `score`.  It shows no training image.

    Parameters
    ----------
    run
        run folder, of a finished run or of one that still trains
    out
        X.html, a new file; default: RUN/report.html, which is replaced
    private
        also show training images: those that `score` found near to generated ones; default: RUN/private/report.html
    """
    from ptarmigan.commands.report import report

    say(str(report(run, out=out, private=private)))


@command("diagnose runs/photos-1", "diagnose --samples out/ --data photos/", "diagnose log.csv --fail-on error")
def diagnose(
    log: Path | None = None,
    /,
    *,
    samples: Path | None = None,
    data: Path | None = None,
    map: Annotated[list[str] | None, Parameter(negative_iterable=())] = None,
    watch: Annotated[bool, Parameter(negative=())] = False,
    fail_on: Literal["note", "warning", "error"] | None = None,
) -> int:
    """Tell what went wrong in a run, since when, what else that explains, and what to do.

    Parameters
    ----------
    log
        run folder, of a finished run or of one that still trains; or the log of another tool: JSON lines, StyleGAN's
        stats.jsonl, CSV or a folder of TensorBoard's event files
    samples
        the images of any generator, in class folders or an .npz; with or without the log of the tool that trained it
    data
        the images that the generator of --samples was trained on
    map
        NAME=COLUMN for a column that is not recognised, such as d_loss=COLUMN or g_loss=COLUMN; may be given several
        times
    watch
        follow a run that trains: tell it again at each snapshot, until the run ends or Ctrl-C
    fail_on
        exit with status 1 if a finding of this severity or a worse one holds at the end of the log
    """
    from ptarmigan.commands.diagnose import diagnose, print_each, story

    if watch:
        if log is None or samples or data or map:
            raise UserError("--watch follows a run: name its folder, without other options", "options-conflict")
        diagnosis = print_each(log)
    else:
        diagnosis = diagnose(log, map=map, samples=samples, data=data)
        say(*story(diagnosis))
    return int(diagnosis.fails(fail_on))


@command("cache", "cache --clear 1a2b3c4d")
def cache(*pack: str, clear: Annotated[bool, Parameter(negative=(), show_default="off")] = False) -> int:
    """List the decoded images that are kept for each data set: how many, their size and when they were last used.

    The environment variable PTARMIGAN_CACHE moves them to another folder.  PTARMIGAN_CACHE_LIMIT, such as 20GB, sets
    their total size: the longest unused make room for new ones.  Your own images are never touched.

    Parameters
    ----------
    pack
        with --clear: names of the packs to remove, as the list shows them; default: all
    clear
        remove the packs, and without names the features that `score` keeps; exit status 1 if a process uses one
    """
    from ptarmigan.commands.cache import clear_cache, list_cache

    if clear:
        return 0 if clear_cache(pack) else 1
    if pack:
        raise UserError(f"to remove {shorten([*pack])}, add --clear: ptarmigan cache --clear PACK", "usage")
    list_cache()
    return 0


explaining = App(
    name="losses",
    help_flags=["--help", "-h"],
    version_flags=[],
    help_epilogue=examples("losses", "losses hinge"),
    sort_key=len([*app]),
)
app.command(explaining)


@explaining.default
def losses(
    *name: str,
    plot: Path | None = None,
    page: Path | None = None,
    lang: str | None = None,
) -> None:
    """Explain DCGAN's and ACGAN's losses, or the loss, penalty or recipe NAME, or a problem, such as mode collapse.

    Parameters
    ----------
    name
        a loss, penalty, recipe or problem, in one word or several; default: the losses of DCGAN and ACGAN
    plot
        X.svg: instead draw both players' losses and their slopes over the logit
    page
        X.html: instead copy the page that explains all losses in English and Chinese, with interactive figures
    lang
        en or zh; by default the language of LC_ALL, LC_MESSAGES or LANG
    """
    from ptarmigan.handbook.entries import explain

    say(*explain(" ".join(name) or None, plot=plot, page=page, lang=lang).split("\n"))


@explaining.command(help_epilogue=examples("losses identify my_loss.py"))
def identify(*losses: str, kind: str | None = None, on: str | None = None) -> int:
    """Identify the loss that your code computes and report mistakes in it; exit status 1 if there are any.

    Only the imports, constants and definitions that the losses need are run,
    with your rights, in a child process that gets 60 s and 4 GiB; training code is not run.
    Do not name a file that you would not run yourself.

    Whether G is detached is checked only if a function takes D, G and latents,
    not if it takes D's outputs.

    Parameters
    ----------
    losses
        FILE.py or FILE.ipynb for all its losses, those inside a training loop too, FILE.py:FUNCTION,
        'FILE.py:CLASS("argument")', or - for standard input; parameters are recognised by their names: real and fake
        (D's outputs), output and target, class_logits and labels, or D, G, images and z
    kind
        role of the function, if its names do not show it: d or g (takes real, fake), bce (takes output, target) or
        class (takes class logits, labels)
    on
        logits or probabilities, if the function does not show which it takes
    """
    from ptarmigan.handbook.identify import identify

    answers = identify(*losses, kind=kind, on=on)
    say(*repr(answers).split("\n"))
    return 0 if all(answer.right for answer in answers) else 1


@app.command(name="--install-completion", help_epilogue=examples("--install-completion"))
def install_completion(*, shell: Literal["bash", "zsh", "fish", "powershell"] | None = None) -> None:
    """Let the tab key complete commands and options in the shell.

    Parameters
    ----------
    shell
        the shell; default: the one that this command is given in
    """
    from cyclopts.completion.detect import ShellDetectionError, detect_shell

    try:
        shell = shell or detect_shell()
        path = app.install_completion(shell=shell)
    except ShellDetectionError:
        text = "it is not clear which shell this is; add --shell bash, zsh, fish or powershell"
        raise UserError(text, "value-invalid") from None
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}", "file-unwritable") from None
    loaded = {
        "bash": "; .bashrc loads it",
        "zsh": "; .zshrc adds its folder to fpath, and must run compinit after that",
    }
    say(f"wrote {path}{loaded.get(shell, '')}", "open a new shell: the tab key completes ptarmigan's options there")


def next_commands(run: Path) -> list[str]:
    """What to try after `train`: sample the class with the most training images, score where it works, and losses."""
    from ptarmigan.commands.score import MIN_IMAGES
    from ptarmigan.core.files import load_json

    record = load_json(run / "config.json")
    names, data = record["spec"]["class_names"], record["data"]
    counts = data.get("train_counts") or [0] * len(names)
    name = names[counts.index(max(counts))]
    given = f"--class={quote(name)}" if name.startswith("-") else f"--class {quote(name)}"
    of_class = "" if record["config"]["model"]["conditioning"] == "none" else f" {given}"
    commands = [f"sample {quote_path(str(run))}{of_class} -n 64 --out {quote_path(f'{run.name}.png')}"]
    if min(data["split"]["train"], data["split"]["held-out"]) >= max(MIN_IMAGES, 10):
        commands.append(f"score {quote_path(str(run))}")
    return [f"{program()} {command}" for command in [*commands, "losses"]]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line on these arguments, by default those of the process.

    A UserError becomes one line on standard error and the error's exit status; so does any other exception, whose
    traceback goes to a file.
    """
    CALL.set(tuple(sys.argv) if arguments is None else ("ptarmigan", *arguments))
    open_missing_streams()
    try:
        with noting_interrupts() as interrupts:
            status = run([*CALL.get()[1:]])
    except CycloptsError as error:
        status = fail(usage(error), "usage", 2)
    except (Exception, KeyboardInterrupt) as error:
        status = report_error(KeyboardInterrupt() if interrupts and not isinstance(error, UserError) else error)
    finally:
        abandon_broken_streams()
    if status:
        sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run a command -> exit status."""
    check_current_folder()
    check_arguments(arguments)
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    console = None
    if not arguments or {*app.help_flags, *app.version_flags, HELP_ALL} & {*arguments}:
        from ptarmigan.core.terminal import Terminal

        console = Terminal()
    status: int | None = app(
        arguments, console=console, exit_on_error=False, print_error=False, result_action="return_value"
    )
    if sys.stdout is not None:
        sys.stdout.flush()
    return status or 0


def usage(error: CycloptsError) -> str:
    """What is wrong with the words of a command, and what to write."""
    command, given = "".join([*(error.command_chain or ())][:1]), [*CALL.get()]
    if isinstance(error, UnknownOptionError):
        name = (error.token.keyword or error.token.value).split("=")[0]
        if other := other_option(command, name, value_of(name, given)):
            return f"{name}: {other}"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        first = error.unused_tokens[0]
        if command == "sample":
            classes = " ".join(f"--class {quote(name)}" for name in error.unused_tokens)
            return f"unexpected argument: {shlex.join(error.unused_tokens)}; a class is named by an option: {classes}"
        before = given[given.index(first) - 1] if first in given else ""
        text = f"unexpected argument: {shlex.join(error.unused_tokens)}"
        if before.removeprefix("--").removeprefix("no-").replace("-", "_") in FLAGS_WITHOUT_VALUE:
            positive = before.replace("--no-", "--")
            return f"{text}; {before} takes no value: write {positive}, or {positive.replace('--', '--no-')}"
        return f"{text}; put text with spaces in quotes, and repeat an option for each value"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name, count = error.argument.name, error.argument.token_count()[0]
        values = "a value" if count == 1 else f"{count} values, and got {len(error.tokens_so_far)}"
        return f"{name}: expected {values}; write {name}=VALUE if the value begins with -"
    return str(error)


def value_of(option: str, given: list[str]) -> str | None:
    """The value of an option on the command line, or None."""
    for word, following in zip(given, [*given[1:], "-"], strict=True):
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
        if word == option and not following.startswith("-"):
            return following
    return None
