"""Intervals of scores: over generation seeds, of a difference, of a share of images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from ptarmigan.core.types import UserError


class Interval(NamedTuple):
    mean: float
    low: float
    high: float


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of R >= 2 values, one for each independent generation seed, with its Student-t interval.

    mean +- t sd / sqrt(R), t the quantile of R - 1 degrees of freedom.  It estimates the expectation over seeds at the
    given N: it does not cover the bias at this N, another choice of reference samples, or another training run.
    """
    r = len(values)
    if r < 2:
        raise UserError(f"an interval needs the scores of at least 2 generation seeds, got {r}", "too-few-samples")
    if not all(map(math.isfinite, values)):
        raise UserError("a score is not finite: check the images and the network that generated them", "not-finite")
    mean = statistics.fmean(values)
    half = t_quantile(level, r - 1) * statistics.stdev(values) / math.sqrt(r)
    return Interval(mean, mean - half, mean + half)


def difference(values: Sequence[float], against: Sequence[float]) -> Interval:
    """The difference of two means with Welch's 95 % t interval (Welch 1947): of R >= 2 values and of S >= 2 others.

    The two spreads need not be equal: with a = var / R and b = var / S the half width is t sqrt(a + b), t the quantile
    of (a + b)^2 / (a^2 / (R - 1) + b^2 / (S - 1)) degrees of freedom, whole or not (Satterthwaite 1946).
    """
    a, b = (statistics.variance(of) / len(of) for of in (values, against))
    middle = statistics.fmean(values) - statistics.fmean(against)
    if a + b == 0:  # no spread at all, so the degrees of freedom are undefined
        return Interval(middle, middle, middle)
    share = a / (a + b)
    degrees = 1 / (share**2 / (len(values) - 1) + (1 - share) ** 2 / (len(against) - 1))
    half = t_quantile(0.95, degrees) * math.sqrt(a + b)
    return Interval(middle, middle - half, middle + half)


def wilson(share: float, n: int) -> Interval:
    """A share of n independent images, with its 95 % interval (Wilson 1927)."""
    z = 1.96
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n))


def t_quantile(level: float, degrees: float) -> float:
    """t with P(|T| <= t) = level for Student's T, found by bisection; 0 < level < 1, degrees >= 1."""
    low, high = 0.0, math.pi / 2  # t = sqrt(degrees) tan(angle)
    while low < (middle := (low + high) / 2) < high:
        inside = incomplete_beta(math.sin(middle) ** 2, math.cos(middle) ** 2, 1 / 2, degrees / 2)
        low, high = (middle, high) if inside < level else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def incomplete_beta(x: float, y: float, a: float, b: float) -> float:
    """I_x(a, b), the regularised incomplete beta function, x + y = 1, by a series of positive terms (DLMF 8.17.8)."""
    if x > (a + 1) / (a + b + 2):  # the series of the other tail converges faster
        return 1 - incomplete_beta(y, x, b, a)
    term = math.exp(math.lgamma(a + b) - math.lgamma(a + 1) - math.lgamma(b) + a * math.log(x) + b * math.log(y))
    total, n = 0.0, 0
    while total + term > total:
        total += term
        n += 1
        term *= x * (a + b + n - 1) / (a + n)
    return total
