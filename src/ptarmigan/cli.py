"""Flags to functions: each command is the public function of its name, imported when it is called."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict, Unpack

from cyclopts import App, CycloptsError, Group, Parameter
from rich.console import Console

from ptarmigan.config import HELP, RECIPES, SECTIONS, TYPES, Scheduled
from ptarmigan.core.types import UserError
from ptarmigan.core.version import __version__

app = App(
    name="ptarmigan",
    help="Class-conditional image GANs whose losses are right.",
    version=__version__,
    version_flags=["--version"],
    help_flags=["--help", "-h"],
    suppress_keyboard_interrupt=False,  # main says so in its own words
)

if TYPE_CHECKING:

    class Fields(TypedDict, total=False):
        """Every field of the config is a flag of its name."""

else:
    GROUPS = {key: Group(name.capitalize()) for name, cls in SECTIONS.items() for key in cls.__dataclass_fields__}
    WORDS = {Scheduled: str, tuple[Scheduled, Scheduled]: tuple[str, str]}  # a number or A..B, which coerce tells apart
    FLAGS = {
        key: Annotated[WORDS.get(hint, hint), Parameter(help=HELP[key], group=GROUPS[key], negative_iterable=())]
        for key, hint in TYPES.items()
    }
    Fields = TypedDict("Fields", FLAGS, total=False)


@app.command
def train(
    data: Path | None = None,
    /,
    *,
    recipe: Annotated[
        str | None, Parameter(help=f"named settings: {', '.join(RECIPES)}; auto if none is given")
    ] = None,
    out: Annotated[Path | None, Parameter(help="run folder; one that exists goes on; else runs/NAME-NUMBER")] = None,
    config: Annotated[Path | None, Parameter(help="YAML file of fields; flags count above it")] = None,
    init: Annotated[
        Path | None, Parameter(name="--from", help="run or generator whose weights this run begins with")
    ] = None,
    **fields: Unpack[Fields],
) -> None:
    """Train a generator on DATA: a folder of class folders, an IDX folder or an .npz; else the embedded set."""
    from ptarmigan.training.loop import train

    train(data, recipe=recipe, out=out, config=config, init=init, **fields)


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
    """Draw images of named classes from MODEL: a run folder, a generator folder or a model.safetensors.

    Parameters
    ----------
    label
        a class by its name; may be given several times; every class if none is given
    n
        images a class
    seed
        image i of a class is a function of the seed and i alone
    out
        X.png, a row for each class; X.npz with arr_0, arr_1, class_names; or a folder of class folders
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
    """Report how far images of MODEL, or images that exist, are from held-out images of DATA, class by class.

    Parameters
    ----------
    model
        a run, a generator folder, a model.safetensors; or images in class folders or an .npz
    data
        the images that it was trained on; a run knows them
    n
        images a set; by default as many as are held out, from 1,000 to 5,000
    seeds
        independent sets, from which the intervals come
    extractor
        efficientnet-lite0, classifier (learnt from these classes on top of it) or inception (for the FID)
    weights
        the extractor's weights, where they are not in their usual place
    size
        of images that exist, as in `train`; a generator has its own
    cas
        also train classifiers on generated images
    time
        bound of the whole: fewer images are looked at rather than more time taken
    out
        a new folder for the report; by default it goes beside the generator, and into its model card
    device
        auto, cpu, cuda or mps
    """
    from ptarmigan.commands.score import score
    from ptarmigan.evaluation.report import show

    show(
        score(
            model,
            data,
            n=n,
            seeds=seeds,
            extractor=extractor,
            weights=weights,
            size=size,
            cas=cas,
            time=time,
            out=out,
            device=device,
        )
    )


@app.command
def compare(*runs: Path) -> None:
    """Compare RUNs by their scores: runs that differ in their seed alone as one, each figure with its interval.

    Parameters
    ----------
    runs
        two run folders or more; each config is compared with that of the first
    """
    from ptarmigan.commands.compare import compare, show

    show(compare(*runs))


@app.command
def info(model: Path, /) -> None:
    """Say what MODEL knows of itself: classes, size, recipe, images seen, scores."""
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
    """Rebuild one step of RUN and look inside: its batch, its fakes, its terms, every layer's values and gradients.

    Parameters
    ----------
    at
        images seen at the step; it is rebuilt from the checkpoint before it
    data
        where the training images are now, if they have moved
    loss
        the file of a run whose loss is one's own, as it was then
    out
        a new folder for pictures and numbers; by default RUN/private/replay-IMAGES
    device
        auto, cpu, cuda or mps; exact on that of the run
    """
    from ptarmigan.commands.replay import print_step, replay

    print_step(replay(run, at=at, data=data, loss=loss, out=out, device=device))


explaining = App(name="losses", help_flags=["--help", "-h"], version_flags=[])
app.command(explaining)


@explaining.default
def losses(name: str | None = None, /, *, plot: Path | None = None, page: Path | None = None) -> None:
    """Say what DCGAN's and ACGAN's losses exactly are, or explain the loss, penalty or recipe NAME.

    Parameters
    ----------
    plot
        X.svg or X.png: draw the losses of both players and their slopes over the logit instead
    page
        X.html: write all of it as one page instead, in English and Chinese, with figures that one can play with
    """
    from ptarmigan.handbook.entries import explain

    print(explain(name, plot=plot, page=page))


@explaining.command
def identify(*losses: str, kind: str | None = None, on: str | None = None) -> None:
    """Say which loss your code computes, and what is wrong with it: status 1 where something is.

    The file is run in a child process with limits of time and memory: run no file that you would not run yourself.
    Whether G is detached is seen where a function is given D, G and latents, and not from D's answers.

    Parameters
    ----------
    losses
        FILE.py, for all its losses, or FILE.py:FUNCTION; names of parameters are read: real, fake (D's answers),
        output and target, class_logits and labels, or D, G, images and z
    kind
        what names do not say: d or g (of real, fake), bce (of output, target), class (of class logits, labels)
    on
        logits or probabilities, where it cannot be seen
    """
    from ptarmigan.handbook.identify import identify

    answers = identify(*losses, kind=kind, on=on)
    print("\n".join(map(str, answers)))
    if not all(answer.right for answer in answers):
        sys.exit(1)


def main() -> None:
    """The command line: bad input ends in one line on standard error and status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name that the terminal cannot show is no reason to fall
            stream.reconfigure(errors="backslashreplace")
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        fail(str(error), 2)
    except UserError as error:
        if os.environ.get("RANK", "0") != "0" and not error.of_one_rank:  # under torchrun rank 0 says it
            sys.exit(error.status)
        fail(f"{error} [{error.code}]", error.status)
    except BrokenPipeError:  # whoever reads, say `| head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + 13)
    except KeyboardInterrupt:
        fail("interrupted", 130)


def fail(text: str, status: int) -> None:
    Console(stderr=True, emoji=False).print(
        f"ptarmigan: {text}", style="red", markup=False, highlight=False, soft_wrap=True
    )
    sys.exit(status)
