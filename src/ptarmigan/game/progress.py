"""Where a run stands in its budget: the part of the training state that is neither a tensor nor images seen."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Progress:
    """Plain numbers and lists, saved as JSON in every checkpoint and broadcast from rank 0."""

    tick: int = 0  # images between two ticks; 0 in the probe's throwaway states, which are not part of a run
    clock: float = 0.0  # seconds of the user's time that the run has taken, in all its calls
    budget: list[str | None] | None = None  # [time, images] as asked for when `ends` was last planned
    ends: list[int] = field(default_factory=list)  # planned ends, in images seen; extending a finished run adds one
    end_fixed_at: int = 0  # images seen when the first end was fixed; 0: it was known from the start
    moves: list[list[int]] = field(default_factory=list)  # [images seen, the end until then], where an end was moved
    lr_scale: float = 1.0  # factor of both learning rates; halved at each rollback
    rollbacks: int = 0  # times that the run rolled back from a NaN or infinite value
    best_kid: float | None = None  # live score of the generator in best/; None: no snapshot was scored
    best_error: float = 0.0  # its standard error
    best_images: int = 0  # images seen at that snapshot
    least_kid: float = 0.0  # lowest live score of a snapshot
    least_left_out: list[float] = field(default_factory=list)  # and what its noise is estimated from
    scored_at: int = 0  # images seen at the newest snapshot with a live score
    owed: int = 0  # images seen at a snapshot that a signal put off: it is made first when the run resumes
    shown_at: int = 0  # images seen at the newest snapshot with a grid of samples
    kept: list[int] = field(default_factory=list)  # images seen of checkpoints that are never deleted

    def take_best(self, other: Progress) -> None:
        """Copy what `other` says of the best generator and of the least score."""
        for name in ("best_kid", "best_error", "best_images", "least_kid", "least_left_out"):
            setattr(self, name, getattr(other, name))
