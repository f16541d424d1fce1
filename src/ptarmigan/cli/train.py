"""The command that trains."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Unpack

from cyclopts import Parameter

from ptarmigan.boundary import abandon_broken_streams, program, quote, quote_path, say
from ptarmigan.cli.command import command
from ptarmigan.cli.fields import OPTIONS, Fields, flag
from ptarmigan.cli.help import HELP_ALL
from ptarmigan.config.recipes import RECIPES
from ptarmigan.config.values import parse_images, parse_time
from ptarmigan.core.ranks_env import is_rank_0


@command(
    "train photos --time 30m",
    "train photos --size 48x64 --recipe acgan --out runs/acgan",
    help_flags=["--help", "-h", HELP_ALL],
    group_parameters=OPTIONS,
)
def train(
    data: Annotated[
        Path | None,
        Parameter(
            help="class folders or other images in a folder, archive, .npz or parquet files, or shards by URL, which "
            "are streamed; default: the embedded images of Fashion-MNIST"
        ),
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

    The same command with --out resumes a run that was stopped.  A longer budget
    extends a run that is finished.
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


def next_commands(run: Path) -> list[str]:
    """What to try after `train`: sample the class with the most training images, score where it works, export, and
    train for twice the budget."""
    from ptarmigan.commands.score_plan import MIN_IMAGES
    from ptarmigan.core.files import load_json

    record, folder = load_json(run / "config.json"), quote_path(str(run))
    names, data, train = record["spec"]["class_names"], record["data"], record["config"]["train"]
    counts = data.get("train_counts") or [0] * len(names)
    name = names[counts.index(max(counts))]
    given = f"--class={quote(name)}" if name.startswith("-") else f"--class {quote(name)}"
    of_class = "" if record["config"]["model"]["conditioning"] == "none" else f" {given}"
    commands = [f"sample {folder}{of_class} -n 64 --out {quote_path(f'{run.name}.png')}"]
    if min(data["split"]["train"], data["split"]["held-out"]) >= max(MIN_IMAGES, 10):
        commands.append(f"score {folder}")
    images, seconds = parse_images(train["images"]), round(2 * (parse_time(train["time"]) or 0))
    time = f"{seconds}s" if seconds % 60 else f"{seconds // 60}m"
    longer = f"--images {2 * images}" if images else f"--time {time}"
    config = quote_path(str(run / "config.json"))
    commands += [f"export {folder}", f"train --config {config} --out {folder} {longer}  # trains on, for better images"]
    return [f"{program()} {command}" for command in commands]
