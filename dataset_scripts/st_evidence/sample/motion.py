"""Motion: positions from keyframes. Only the four operations and ``math`` are used, so any machine agrees."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence


def smooth(u: float) -> float:
    """Ease in and out: 0 to 1 with zero speed at both ends."""
    u = min(1.0, max(0.0, u))
    return u * u * (3 - 2 * u)


def ramp(t: float, start: float, end: float) -> float:
    """How far ``t`` is between two moments, from 0 to 1, eased."""
    return smooth((t - start) / (end - start))


def path(t: float, keys: Sequence[tuple[float, ...]], *, ease: bool = False) -> tuple[float, ...]:
    """The value at ``t`` between keyframes ``(time, value, ...)``; constant before the first and after the last."""
    if t <= keys[0][0]:
        return keys[0][1:]
    for before, after in itertools.pairwise(keys):
        if t < after[0]:
            u = (t - before[0]) / (after[0] - before[0])
            u = smooth(u) if ease else u
            return tuple(a + (b - a) * u for a, b in zip(before[1:], after[1:], strict=True))
    return keys[-1][1:]


def wave(t: float, period: float, phase: float = 0.0) -> float:
    """A sine of the given period in seconds; ``phase`` in turns."""
    return math.sin(2 * math.pi * (t / period + phase))


def during(t: float, spans: Sequence[tuple[float, float]]) -> bool:
    """Whether ``t`` lies in one of the half-open spans."""
    return any(start <= t < end for start, end in spans)
