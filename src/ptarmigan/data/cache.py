"""The cache folder: the packs in it, which of them are in use, and how much room they may take."""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from ptarmigan.core.files import write_atomic
from ptarmigan.core.paths import user_path
from ptarmigan.core.types import UserError, counted, shorten, shown

if sys.platform != "win32":
    import fcntl

A_DAY = 24 * 3600
JOURNAL = "journal"  # in a partial pack: what of it has been decoded; pack.py writes it
USED = "used"  # in a pack: the path of the data that it was last opened for; the time of that is the file's own
NAME = 8  # characters of a pack's key by which people name it
UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


def cache_folder() -> Path:
    """PTARMIGAN_CACHE if it is set, else `ptarmigan` in the system's folder for caches."""
    if chosen := os.environ.get("PTARMIGAN_CACHE"):
        return user_path(chosen, "PTARMIGAN_CACHE")
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or _home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = _home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or _home() / ".cache"
    return Path(base) / "ptarmigan"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        text = "your home folder is not known, so there is no place for the cache: set PTARMIGAN_CACHE to a folder"
        raise UserError(text, "value-invalid") from None


def cache_limit() -> int | None:
    """The bytes that packs may take: PTARMIGAN_CACHE_LIMIT, such as 20GB; None if it is not set, for no limit."""
    text = os.environ.get("PTARMIGAN_CACHE_LIMIT", "").strip()
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([kmgt]?)b?", text, re.IGNORECASE)
    if match is None:
        raise UserError(f"PTARMIGAN_CACHE_LIMIT: expected a size, as 20GB or 500MB, got {shown(text)}", "value-invalid")
    return int(float(match[1]) * UNITS[match[2].lower()])


@dataclass(frozen=True)
class CachedPack:
    """A finished pack in the cache, or the part of one that a process has written so far."""

    folder: Path
    data: str  # the path of the data that it was last opened for; empty if that is not known
    shape: tuple[int, ...] | None  # N, H, W, C; N alone for a list of shards; None for a pack that is not finished
    size: int  # bytes
    used: float  # when it was last opened, in seconds since 1970

    @property
    def name(self) -> str:
        """The beginning of its key."""
        return self.folder.name[:NAME]

    @property
    def in_use(self) -> bool:
        """Whether a process reads it or writes it; on Windows only `remove` knows."""
        with _to_remove(self.folder) as free:
            return not free

    def remove(self) -> bool:
        """Remove it unless it is in use; whether it was removed."""
        with _to_remove(self.folder) as free:
            if free:
                try:
                    remove_pack(self.folder)
                except PermissionError:  # Windows does not rename the folder of a file that is open
                    return False
        return free


def cached_packs() -> list[CachedPack]:
    """All packs in the cache, those that were not used for the longest time first."""
    packs = []
    for folder in (cache_folder() / "packs").glob("*"):
        with suppress(OSError):  # another process removes it
            files = {path.name: path.stat() for path in folder.iterdir()}
            shape, data = None, ""
            if not folder.suffix:
                with suppress(OSError, ValueError, KeyError, TypeError):
                    shape = tuple(json.loads((folder / "meta.json").read_text(encoding="utf-8"))["shape"])
            with suppress(OSError):
                data = (folder / USED).read_text(encoding="utf-8", errors="surrogateescape")
            size = sum(file.st_size for file in files.values())
            used = files[USED] if USED in files else folder.stat()
            packs.append(CachedPack(folder, data, shape, size, used.st_mtime))
    return sorted(packs, key=lambda pack: pack.used)


def make_room(needed: int, partial: Path) -> str | None:
    """Remove packs until the cache can take `needed` bytes more without passing its limit, and say what was removed.

    Those that were not used for the longest time go first, and those in use stay.  partial: the pack to be written.
    """
    limit = cache_limit()
    if limit is None:
        return None
    packs = cached_packs()
    over = sum(pack.size for pack in packs) + needed - limit
    removed = []
    for pack in packs:
        if over > 0 and pack.folder != partial and pack.remove():
            over -= pack.size
            removed.append(pack)
    text = []
    if removed:
        size, names = sum(pack.size for pack in removed), [pack.data or pack.name for pack in removed]
        text.append(
            f"removed the decoded images of {counted(len(removed), 'data set')} ({shorten(names, 3)}; "
            f"{in_bytes(size)}) from the cache, the longest unused first, because PTARMIGAN_CACHE_LIMIT is "
            f"{in_bytes(limit)}"
        )
    if over > 0:
        text.append(
            f"the cache takes {in_bytes(over)} more than PTARMIGAN_CACHE_LIMIT, {in_bytes(limit)}: what is left in it "
            "is in use"
        )
    return "; ".join(text) or None


def in_bytes(count: int) -> str:
    """A number of bytes as people write it: 1.2 GB, 0.35 MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


def mark_used(folder: Path, data: str) -> None:
    """Note that a pack is opened now, for the data at this path."""
    with suppress(UserError):  # a cache that may only be read
        write_atomic(folder / USED, data.encode("utf-8", "surrogateescape"))


def hold(images: IO[bytes]) -> None:
    """Show other processes that a pack is in use, while its file of images is open or mapped into memory."""
    if sys.platform != "win32":
        with suppress(OSError):  # a file system without locks
            fcntl.flock(images, fcntl.LOCK_SH)  # a map has a copy of the file's descriptor, which keeps the lock


@contextmanager
def _to_remove(folder: Path) -> Iterator[bool]:
    """Whether no process uses this pack; meanwhile none begins to."""
    if folder.suffix:
        with _alone(folder) as free:
            yield free
    elif sys.platform == "win32":
        yield True
    else:
        try:
            with open(folder / "images", "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield True
        except FileNotFoundError:
            yield True
        except OSError:
            yield False


def remove_pack(folder: Path) -> None:
    """Remove a pack if there is one; it is renamed first, so that no process reads one that is half removed."""
    trash = folder.with_name(_partial_name(folder))
    with suppress(FileNotFoundError):  # there is none, or another process removes it
        os.rename(folder, trash)
        shutil.rmtree(trash)


# --- partial packs ---------------------------------------------------------------------------------------------------


@contextmanager
def partial_pack(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` in which its pack is written: the one that a killed process left, or else a new one.

    A lock beside it, taken first, shows that the process lives, so other processes leave the folder alone.  At the end
    it is removed if it still exists, but not if the process is interrupted and some images have been decoded.
    """
    for left in _left_behind(folder.parent, of=folder):
        with _alone(left) as ours:
            if ours and _holds_images(left):
                with _removed_on_failure(left):
                    yield left
                return
    partial = folder.with_name(_partial_name(folder))
    with _alone(partial), _removed_on_failure(partial):
        partial.mkdir()
        yield partial


@contextmanager
def _removed_on_failure(partial: Path) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if not _holds_images(partial):
            shutil.rmtree(partial, ignore_errors=True)
        raise
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _alone(partial: Path) -> Iterator[bool]:
    """Take the lock of a partial pack; whether no other process had it, as far as the file system can tell."""
    lock = FileLock(partial.with_suffix(".lock"))
    free = False
    with suppress(OSError, Timeout, NotImplementedError):  # it is taken, or the file system has no locks
        lock.acquire(timeout=0)
        free = True
    try:
        yield free
    finally:
        if free:
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def remove_left_behind(packs: Path) -> None:
    """Remove the partial packs that dead processes left, and with which nobody has gone on for a day."""
    for partial in _left_behind(packs):
        with suppress(OSError), _alone(partial) as free:  # another process removes it
            if free and (_is_old(partial) or not _holds_images(partial)):
                shutil.rmtree(partial, ignore_errors=True)


def _left_behind(packs: Path, of: Path | None = None) -> list[Path]:
    """The partial packs of this machine, or those of one pack; and those of other machines without a change for a day.

    A process of this machine is dead when its lock is free.  Locks may not reach from one machine to another.
    """
    found = []
    for partial in packs.glob(f"{of.name if of else '*'}.*.tmp"):
        ours = partial.name.partition(".")[2].rpartition("-")[0].rpartition("-")[0] == _host()
        with suppress(OSError):
            if ours or _is_old(partial):
                found.append(partial)
    return found


def _is_old(partial: Path) -> bool:
    """Whether nobody has changed it for a day."""
    return time.time() - max(path.stat().st_mtime for path in (partial, *partial.iterdir())) > A_DAY


def _holds_images(partial: Path) -> bool:
    try:
        return (partial / JOURNAL).stat().st_size > 0
    except OSError:
        return False


def _partial_name(folder: Path) -> str:
    return f"{folder.name.partition('.')[0]}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"


def _host() -> str:
    return re.sub(r"[^\w-]", "_", platform.node())
