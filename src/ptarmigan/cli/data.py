"""Commands about the training images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Unpack

from ptarmigan.boundary import CALL, program, quote_path, say
from ptarmigan.cli.command import Switch, command, loading
from ptarmigan.cli.fields import DataFields
from ptarmigan.core.types import UserError, shorten


@command("check photos", "check photos --deep --html photos.html", "check photos --fix list.csv")
def check(
    data: Path | None = None,
    /,
    *,
    html: Path | None = None,
    json: Path | None = None,
    fail_on: Literal["error", "warning"] = "error",
    deep: Switch = False,
    fix: Path | None = None,
    **fields: Unpack[DataFields],
) -> int:
    """Look for what is wrong with DATA before training: files, labels, copies.  No file of it is changed.

    The exit status is 1 if there is a finding at or above --fail-on,
    and 2 if the data cannot be read.

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
        X.csv: also write a new list of all files, with columns that say which to keep and why; `train --labels` takes
        it
    """
    with loading():
        from ptarmigan.commands.check import check, print_check

    report = check(data, html=html, json=json, fail_on=fail_on, deep=deep, fix=fix, **fields)
    print_check(report)
    if len(CALL.get()) <= 3 and not (report.failed or report.left_out):  # without options, which `train` would need too
        say(f"next: {program()} train {quote_path(str(data)) + ' ' if data else ''}--time 30m")
    return int(report.failed)


@command("cache", "cache --clear 1a2b3c4d")
def cache(*pack: str, clear: Switch = False) -> int:
    """List the decoded images that are kept for each data set: how many, their size and when they were last used.

    The environment variable PTARMIGAN_CACHE moves them to another folder.
    PTARMIGAN_CACHE_LIMIT, such as 20GB, limits their total size: those that were
    unused for the longest time make room.  Your own images are never touched.

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
