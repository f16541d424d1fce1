"""Whether torchrun started this process, read from the environment without torch."""

from __future__ import annotations

import os


def under_torchrun() -> bool:
    """Whether the environment describes one of several processes, or the only one, that torchrun started.

    RANK or WORLD_SIZE alone may be left over from another job, so a rank is believed only where all of RANK,
    WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are set and make sense together.
    """
    numbers = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")]
    if not os.environ.get("MASTER_ADDR") or not all(number.isascii() and number.isdigit() for number in numbers):
        return False
    if max(map(len, numbers)) > 9:
        return False
    rank, world, local, port = map(int, numbers)
    return rank < world and local < world and 0 < port < 65_536


def is_rank_0() -> bool:
    """Whether this is the process that prints: rank 0 under torchrun, or the only one."""
    return not under_torchrun() or int(os.environ["RANK"]) == 0
