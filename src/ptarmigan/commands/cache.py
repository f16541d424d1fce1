"""`ptarmigan cache`: list the decoded images that are kept, and remove them."""

from __future__ import annotations

import shutil
from datetime import datetime

from rich import box
from rich.table import Column, Table

from ptarmigan.core.terminal import print_lines
from ptarmigan.core.types import UserError, counted, printable, unknown
from ptarmigan.data.cache import CachedPack, cache_folder, cache_limit, cached_packs, in_bytes

FEATURES = "features"  # of real images, which `score` keeps


def list_cache() -> None:
    """Print each pack: its name, images, size, last use and the path of its data, the last used first."""
    packs, limit = cached_packs()[::-1], cache_limit()
    headings = "pack", "images", "size", "last used", Column("data", overflow="fold")
    table = Table(*headings, box=box.SIMPLE_HEAD, pad_edge=False)
    for pack in packs:
        images = f"{pack.shape[0]:,} of {'x'.join(map(str, pack.shape[1:]))}" if pack.shape else "not finished"
        images = f"{pack.shape[0]:,} in shards" if pack.shape and len(pack.shape) == 1 else images
        used = "in use" if pack.in_use else f"{datetime.fromtimestamp(pack.used):%Y-%m-%d %H:%M}"
        table.add_row(pack.name, images, in_bytes(pack.size), used, printable(pack.data or "not known"))
    total = in_bytes(sum(pack.size for pack in packs))
    of_limit = "no PTARMIGAN_CACHE_LIMIT is set" if limit is None else f"PTARMIGAN_CACHE_LIMIT is {in_bytes(limit)}"
    print_lines(
        *([table] if packs else []),
        f"{counted(len(packs), 'pack')} of decoded images in {cache_folder() / 'packs'}: {total}; {of_limit}",
    )
    if features := _features_bytes():
        print_lines(f"features of images, kept by `score`: {in_bytes(features)}")


def clear_cache(names: tuple[str, ...]) -> bool:
    """Remove the packs of these names, by default everything that is made anew when it is needed.

    A pack that a process uses stays.  Returns whether all were removed.  Raises UserError (unknown-name) if there is no
    pack of a name, before anything is removed.
    """
    packs = cached_packs()
    for name in names:
        if not any(_named(pack, name) for pack in packs):
            raise unknown("pack", name, [pack.name for pack in packs]) if packs else _empty(name)
    chosen = [pack for pack in packs if not names or any(_named(pack, name) for name in names)]
    removed = [pack for pack in chosen if pack.remove()]
    for pack in chosen:
        done = "removed" if pack in removed else "kept, because a process uses it:"
        print_lines(f"{done} {pack.name}, {in_bytes(pack.size)}, {pack.data or 'data not known'}")
    size = sum(pack.size for pack in removed)
    if not names and (features := _features_bytes()):
        shutil.rmtree(cache_folder() / FEATURES)
        size += features
        print_lines(f"removed the features of images, {in_bytes(features)}")
    print_lines(f"{in_bytes(size)} freed in {cache_folder()}")
    return len(removed) == len(chosen)


def _named(pack: CachedPack, name: str) -> bool:
    return pack.name == name or pack.folder.name == name


def _empty(name: str) -> UserError:
    return UserError(f"pack {name!r}: there is no pack in {cache_folder() / 'packs'}", "unknown-name")


def _features_bytes() -> int:
    return sum(path.stat().st_size for path in (cache_folder() / FEATURES).glob("*"))
