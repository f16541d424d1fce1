"""Commands that judge a run or say what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ptarmigan.boundary import say
from ptarmigan.cli.command import Count, Model, Switch, Texts, Whole, WholeOrNone, command, loading
from ptarmigan.core.types import UserError, brief, shorten


@command("score runs/photos-1", "score runs/photos-1 --extractor inception -n 5000")
def score(
    model: Path,
    data: Path | None = None,
    /,
    *,
    n: Count = None,
    seeds: Whole = 5,
    extractor: str = "efficientnet-lite0",
    weights: Path | None = None,
    size: str | None = None,
    cas: Switch = False,
    time: str = "15m",
    out: Path | None = None,
    device: str = "auto",
    details: Switch = False,
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
        number of generated images in each set; default: as many as are held out, from 1,000 to 5,000, or with few
        training images their number divided by --seeds
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
        time budget: 90s, 15m or 1h; where it is too short for all images, fewer are scored
    out
        new folder for the report; default: beside the generator, with a summary in its model card
    device
        auto, cpu, cuda or mps
    details
        also print the scores against training images, and KID and diversity of each class
    """
    with loading():
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
    with loading():
        from ptarmigan.commands.compare import compare, print_comparison

    print_comparison(compare(*runs))


@command("info runs/photos-1")
def info(model: Model, /, *, at: WholeOrNone = None) -> None:
    """Print what MODEL records: classes, size, recipe, images seen, scores.

    Parameters
    ----------
    at
        describe the run's checkpoint after this many images; default: the last generator
    """
    from ptarmigan.generator.header import info

    found = info(model, at=at)
    notes = found.pop("notes", [])
    for key, value in found.items():
        text = shorten(value, 10) if isinstance(value, list) else f"{value:,}" if isinstance(value, int) else value
        say(brief(f"{key.replace('_', ' '):<13} {text}"))
    if notes:
        say("notes", *(f"  {note}" for note in notes), wrap=True)


@command("replay runs/photos-1 --at 12800", needed="--at IMAGES")
def replay(
    run: Path,
    /,
    *,
    at: Whole,
    data: Path | None = None,
    loss: Path | None = None,
    out: Path | None = None,
    device: str = "auto",
    layers: Switch = False,
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
    with loading():
        from ptarmigan.commands.replay import print_step, replay

    print_step(replay(run, at=at, data=data, loss=loss, out=out, device=device), layers)


@command("diagnose runs/photos-1", "diagnose --samples out/ --data photos/", "diagnose log.csv --fail-on error")
def diagnose(
    log: Path | None = None,
    /,
    *,
    samples: Path | None = None,
    data: Path | None = None,
    map: Texts = None,
    watch: Switch = False,
    fail_on: Literal["note", "warning", "error"] | None = None,
) -> int:
    """Say what went wrong in a run, since when, and what to do about it.

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
        follow a run that trains: say this again at each snapshot, until the run ends or Ctrl-C
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


@command("plot runs/photos-1")
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
def report(run: Path, /, *, out: Path | None = None, private: Switch = False) -> None:
    """Write the report of RUN as one page: its samples, findings, log, scores, data and options.

    `train` writes it at each snapshot, and this command writes it as the run is now.
    It shows no training image.

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
