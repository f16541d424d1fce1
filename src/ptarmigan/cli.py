"""The command line: each command is the public function of its name, imported when it is called."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypedDict, Unpack

from cyclopts import App, CycloptsError, Group, Parameter, UnusedCliTokensError

from ptarmigan.config import HELP, RECIPES, SECTIONS, TYPES, Scheduled
from ptarmigan.core.types import UserError
from ptarmigan.core.version import __version__

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

app = App(
    name="ptarmigan",
    help="Class-conditional image GANs whose losses are right.",
    version=__version__,
    version_flags=["--version"],
    help_flags=["--help", "-h"],
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

        if self.common == (HELP_ALL in sys.argv):
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


def flag(name: str, text: str, section: Group = RUN, **more: Any) -> Parameter:
    """An option of `train`, in the panels that show it."""
    return Parameter(name, help=text, group=(OPTIONS, section) if name in COMMON else section, **more)


if TYPE_CHECKING:

    class Fields(TypedDict, total=False):
        """Every field of the config is a flag of the same name."""

else:
    # A number or A..B is text here; `resolve` tells them apart
    AS_TEXT = {Scheduled: (str, "FLOAT"), tuple[Scheduled, Scheduled]: (tuple[str, str], "FLOAT FLOAT")}

    FLAGS = {}
    for section, cls in zip(OF_SECTIONS, SECTIONS.values(), strict=True):
        for key in cls.__dataclass_fields__:
            hint, metavar = AS_TEXT.get(TYPES[key], (TYPES[key], None))
            name = f"--{key.replace('_', '-')}"
            FLAGS[key] = Annotated[hint, flag(name, HELP[key], section, metavar=metavar, negative_iterable=())]
    Fields = TypedDict("Fields", FLAGS, total=False)


@app.command(help_flags=["--help", "-h", HELP_ALL])
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
    config: Annotated[Path | None, flag("--config", "YAML file of options; flags override it")] = None,
    init: Annotated[Path | None, flag("--from", "run or generator to take the initial weights from")] = None,
    **fields: Unpack[Fields],
) -> None:
    """Train a generator on the images of DATA, then print where it is and what to do next.

    The same command resumes a run that was stopped; a longer budget extends one that is finished.
    """
    from ptarmigan.training.loop import train

    run = train(data, recipe=recipe, out=out, config=config, init=init, **fields)
    if is_rank_0():
        print("\n".join(["next:", *(f"  {command}" for command in next_commands(run))]))


@app.command
def sample(
    model: Path,
    /,
    *,
    label: Annotated[list[str] | None, Parameter(name="--class", negative_iterable=())] = None,
    n: Annotated[int, Parameter(name="-n")] = 16,
    seed: int = 0,
    out: Path = Path("samples.png"),
    device: str = "auto",
) -> None:
    """Generate images of MODEL's classes and save them.

    Parameters
    ----------
    model
        run folder, generator folder or model.safetensors
    label
        name of a class; may be given several times; default: all classes
    n
        number of images of each class
    seed
        seed of the latents: image i of a class depends on the seed and i only
    out
        X.png with one row a class; X.npz with arr_0 (images), arr_1 (labels) and class_names; or a folder of class
        folders
    device
        auto, cpu, cuda or mps
    """
    from ptarmigan.generator.generator import sample

    print(sample(model, label=label, n=n, seed=seed, out=out, device=device))


@app.command
def score(
    model: Path,
    data: Path | None = None,
    /,
    *,
    n: Annotated[int | None, Parameter(name="-n")] = None,
    seeds: int = 5,
    extractor: str = "efficientnet-lite0",
    weights: Path | None = None,
    size: str | None = None,
    cas: Annotated[bool, Parameter(negative=())] = False,
    time: str = "15m",
    out: Path | None = None,
    device: str = "auto",
) -> None:
    """Score generated images against held-out images of DATA, over all classes and for each class.

    Parameters
    ----------
    model
        run folder, generator folder or model.safetensors; or existing images in class folders or an .npz
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
        also train a classifier on generated images and test it on real ones (classification accuracy score)
    time
        time budget: 90s, 15m or 1h; fewer images are scored where that is needed to keep it
    out
        new folder for the report; default: beside the generator, with a summary in its model card
    device
        auto, cpu, cuda or mps
    """
    from ptarmigan.commands.score import score
    from ptarmigan.evaluation.report import print_report

    report = score(
        model, data, n=n, seeds=seeds, extractor=extractor, weights=weights, size=size, cas=cas, time=time, out=out,
        device=device,
    )  # fmt: skip
    print_report(report)


@app.command
def compare(*runs: Path) -> None:
    """Compare the scores of RUNS; runs that differ only in their seed form one group with an interval.

    Parameters
    ----------
    runs
        two or more run folders; each is compared with the first
    """
    from ptarmigan.commands.compare import compare, print_comparison

    print_comparison(compare(*runs))


@app.command
def info(model: Path, /) -> None:
    """Print what MODEL records: classes, size, recipe, images seen, scores.

    Parameters
    ----------
    model
        run folder, generator folder or model.safetensors
    """
    from ptarmigan.generator.generator import info

    for key, value in info(model).items():
        shown = ", ".join(value) if isinstance(value, list) else f"{value:,}" if isinstance(value, int) else value
        print(f"{key.replace('_', ' '):<13} {shown}")


@app.command
def replay(
    run: Path,
    /,
    *,
    at: int,
    data: Path | None = None,
    loss: Path | None = None,
    out: Path | None = None,
    device: str = "auto",
) -> None:
    """Compute one training step of RUN again and show its batch, fakes, loss terms, activations and gradients.

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
    """
    from ptarmigan.commands.replay import print_step, replay

    print_step(replay(run, at=at, data=data, loss=loss, out=out, device=device))


explaining = App(name="losses", help_flags=["--help", "-h"], version_flags=[])
app.command(explaining)


@explaining.default
def losses(
    name: str | None = None,
    /,
    *,
    plot: Path | None = None,
    page: Path | None = None,
    lang: str | None = None,
) -> None:
    """Explain DCGAN's and ACGAN's losses, or the loss, penalty or recipe NAME.

    Parameters
    ----------
    plot
        X.svg: instead draw both players' losses and their slopes over the logit
    page
        X.html: instead copy the page that explains all losses in English and Chinese, with interactive figures
    lang
        en or zh; by default the language of LC_ALL, LC_MESSAGES or LANG
    """
    from ptarmigan.handbook.entries import explain

    print(explain(name, plot=plot, page=page, lang=lang))


@explaining.command
def identify(*losses: str, kind: str | None = None, on: str | None = None) -> None:
    """Identify the loss that your code computes and report mistakes in it; exit status 1 if there are any.

    Of a file, the imports, constants and definitions that its losses need run in a child process with limits on time
    and memory, and training does not; do not name a file that you would not run yourself.
    Whether G is detached is checked only if a function takes D, G and latents, not if it takes D's outputs.

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
    print("\n".join(map(str, answers)))
    if not all(answer.right for answer in answers):
        sys.exit(1)


def next_commands(run: Path) -> list[str]:
    """What to try after `train`: sample, score where images were held out, and losses."""
    from ptarmigan.core.files import load_json

    record = load_json(run / "config.json")
    name = shlex.quote(record["spec"]["class_names"][-1])
    of_class = "" if record["config"]["model"]["conditioning"] == "none" else f" --class {name}"
    commands = [f"sample {shlex.quote(str(run))}{of_class} -n 64 --out {shlex.quote(run.name)}.png"]
    if record["data"]["split"]["held-out"] >= 10:
        commands.append(f"score {shlex.quote(str(run))}")
    return [f"{program()} {command}" for command in [*commands, "losses"]]


def resume_command(run: Path) -> str:
    """The command that was given, with --out naming its run folder."""
    arguments = sys.argv[1:]
    if not any(argument.split("=")[0] == "--out" for argument in arguments):
        arguments += ["--out", str(run)]
    return f"{program()} {shlex.join(arguments)}"


def program() -> str:
    """`ptarmigan`, or the path that it was called by if the shell would not find this program by that name."""
    called = sys.argv[0]
    if Path(called).stem != "ptarmigan" or shutil.which("ptarmigan") == str(Path(called).absolute()):
        return "ptarmigan"
    return shlex.quote(called)


def is_rank_0() -> bool:
    """Whether this is the process that prints: rank 0, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def main() -> None:
    """Run the command line.  A UserError becomes one line on standard error and the error's exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # escape what the terminal's encoding lacks, instead of failing
            stream.reconfigure(errors="backslashreplace")
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except UnusedCliTokensError as error:
        extra = shlex.join(error.unused_tokens or [])
        fail(f"unexpected argument: {extra}; put a path with spaces in quotes", "usage", 2)
    except CycloptsError as error:
        fail(str(error), "usage", 2)
    except UserError as error:
        if not is_rank_0() and not error.of_one_rank:
            sys.exit(error.status)
        if error.run is None:
            fail(str(error), error.code, error.status)
        fail(error.text, error.code, error.status, f"resume with: {resume_command(error.run)}")
    except BrokenPipeError:  # the reader, for example `| head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + 13)
    except KeyboardInterrupt:
        fail("interrupted", "interrupted", 130)


def fail(text: str, code: str, status: int, *hints: str) -> NoReturn:
    from ptarmigan.core.console import Terminal

    terminal = Terminal(stderr=True)
    for line in (f"ptarmigan: {text} [{code}]", *hints):
        terminal.say(line, style="red")
    sys.exit(status)
