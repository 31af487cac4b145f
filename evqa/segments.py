"""Time segments: lists of ``[start, end]`` in seconds, and the set algebra that scores need."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from evqa.types import Segment

__all__ = ["clip", "contains", "intersection", "measure", "merge", "read"]

_KEYS = (("start", "end"), ("start_time", "end_time"))


def read(value: Any) -> tuple[list[Segment], list[str]]:
    """Read segments from any form that systems write, and say what could not be used.

    Forms: ``[[s, e], ...]``, ``[{"start": s, "end": e}, ...]``, ``[{"start_time": s, "end_time": e}, ...]`` and the
    flat ``[s, e, s, e, ...]``. Numbers may be numeric strings inside pairs and objects. Clock times ("01:30") are
    the business of :mod:`evqa.parsing`, not of this function.

    Returns:
        The usable segments in the order given, and one sentence per thing dropped: a value that is not a list, an
        odd tail, a malformed item, a bound that is not finite, an end before its start. ``None`` reads as no
        segments and no problem. Segments of length zero are kept; they measure nothing.
    """
    if value is None:
        return [], []
    if not isinstance(value, (list, tuple)):
        return [], [f"segments are a {type(value).__name__}, not a list"]
    problems: list[str] = []
    items: Sequence[Any] = value
    if value and all(isinstance(item, (int, float)) for item in value):
        if len(value) % 2:
            problems.append("a flat list of times has an odd length; the last one is dropped")
        items = [value[i : i + 2] for i in range(0, len(value) - 1, 2)]
    segments: list[Segment] = []
    for item in items:
        bounds = _bounds(item)
        if bounds is None:
            problems.append(f"malformed segment {item!r}")
        elif not all(map(math.isfinite, bounds)):
            problems.append(f"segment {item!r} is not finite")
        elif bounds[1] < bounds[0]:
            problems.append(f"segment {item!r} ends before it starts")
        else:
            segments.append(bounds)
    return segments, problems


def _bounds(item: Any) -> Segment | None:
    if isinstance(item, dict):
        for start, end in _KEYS:
            if start in item and end in item:
                item = (item[start], item[end])
                break
    if not isinstance(item, (list, tuple)) or len(item) < 2:
        return None
    try:
        return [float(item[0]), float(item[1])]
    except (TypeError, ValueError, OverflowError):
        return None


def merge(segments: Iterable[Sequence[float]]) -> list[Segment]:
    """The same set of moments as sorted, disjoint segments of positive length."""
    merged: list[Segment] = []
    for start, end in sorted((float(s), float(e)) for s, e in segments if e > s):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return merged


def measure(segments: Iterable[Sequence[float]]) -> float:
    """Seconds covered, each moment counted once."""
    return sum(end - start for start, end in merge(segments))


def intersection(a: Iterable[Sequence[float]], b: Iterable[Sequence[float]]) -> list[Segment]:
    """The moments that lie in both, as sorted, disjoint segments."""
    first, second = merge(a), merge(b)
    out: list[Segment] = []
    i = j = 0
    while i < len(first) and j < len(second):
        start, end = max(first[i][0], second[j][0]), min(first[i][1], second[j][1])
        if end > start:
            out.append([start, end])
        if first[i][1] < second[j][1]:
            i += 1
        else:
            j += 1
    return out


def clip(segments: Iterable[Sequence[float]], start: float, end: float) -> list[Segment]:
    """The parts within ``[start, end]``."""
    return intersection(segments, [[start, end]])


def contains(segments: Iterable[Sequence[float]], time: float) -> bool:
    """Whether a moment lies in one of the segments, bounds included."""
    return any(start <= time <= end for start, end in segments)
