"""Temporal grounding: how well predicted segments cover the moments that prove the answer."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from evqa import segments as seg
from evqa.scoring.protocols import EVQA_V1, STRICT, Protocol, check_protocol

__all__ = ["FORMAT_ERRORS", "segment_recall", "temporal", "v1_segments"]

#: What the original evaluator counts while it reads predicted segments.
FORMAT_ERRORS = ("none_responses", "parse_errors", "empty_segments", "malformed_segments")


def temporal(predicted: Any, reference: Any, protocol: Protocol = STRICT) -> dict[str, float]:
    """Overlap of predicted and reference time segments.

    With P and G the moments covered by prediction and reference, and ``|.|`` seconds: IoU = ``|P n G| / |P u G|``,
    IoP = precision = ``|P n G| / |P|`` (NExT-GQA, Xiao et al., CVPR 2024, arXiv 2309.01327), recall =
    ``|P n G| / |G|``.

    Args:
        predicted: Segments in any form that :func:`evqa.segments.read` takes, ``[[start, end], ...]`` in seconds.
        reference: ``[[start, end], ...]`` in seconds, or the list literal that the published CSV holds. A literal
            is read in the release's own grammar, a list of lists; anything else in it is no reference.
        protocol: ``strict`` takes each side as a set of moments, so that repeating or overlapping segments change
            nothing and every score lies in [0, 1]; segments that are not finite or end before they start are
            dropped. ``evqa-v1`` adds up all pairs and all lengths as they stand, like the original evaluator: the
            scores can exceed 1.

    Returns:
        ``{"iou", "iop", "precision", "recall"}``, each a fraction. All are 0 if either side covers nothing.
    """
    check_protocol(protocol)
    if isinstance(reference, str):
        try:
            reference = ast.literal_eval(reference)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            reference = []
        reference = _v1_reference(reference)
    if protocol == EVQA_V1:
        return _v1_temporal(v1_segments(predicted)[0], _v1_reference(reference))
    p, g = seg.merge(seg.read(predicted)[0]), seg.merge(seg.read(reference)[0])
    length_p, length_g = seg.measure(p), seg.measure(g)
    common = seg.measure(seg.intersection(p, g))
    precision = min(1.0, common / length_p) if length_p > 0 else 0.0
    recall = min(1.0, common / length_g) if length_g > 0 else 0.0
    union = length_p + length_g - common
    # Rounding of the sums must not lift a perfect score above 1.
    return {
        "iou": min(1.0, common / union) if common > 0 else 0.0,
        "iop": precision,
        "precision": precision,
        "recall": recall,
    }


def segment_recall(predicted: Any, reference: Any, threshold: float) -> float:
    """R@IoU: the share of reference segments that a predicted segment of their own meets with IoU >= threshold.

    The recall of moment retrieval (Gao et al., TALL, ICCV 2017, arXiv 1705.02101) carried over to questions with
    several segments: both sides are merged first and matched one to one, as many as possible.

    Returns:
        A fraction; 0 when the reference is empty.
    """
    p, g = seg.merge(seg.read(predicted)[0]), seg.merge(seg.read(reference)[0])
    if not g:
        return 0.0
    edges = [[j for j, b in enumerate(p) if _pair_iou(a, b) >= threshold] for a in g]
    owner: dict[int, int] = {}

    def assign(i: int, seen: set[int]) -> bool:
        for j in edges[i]:
            if j not in seen:
                seen.add(j)
                if j not in owner or assign(owner[j], seen):
                    owner[j] = i
                    return True
        return False

    return sum(assign(i, set()) for i in range(len(g))) / len(g)


def _pair_iou(a: Sequence[float], b: Sequence[float]) -> float:
    common = min(a[1], b[1]) - max(a[0], b[0])
    return common / (max(a[1], b[1]) - min(a[0], b[0])) if common > 0 else 0.0


# ----------------------------------------------------------------------------------------- evqa-v1
def v1_segments(value: Any, *, present: bool = True) -> tuple[list[list[float]], dict[str, int]]:
    """Read predicted segments as the original evaluator does.

    Args:
        value: What stands under ``segments``.
        present: Whether there was such a key at all.

    Returns:
        The segments it goes on with, and the counts of :data:`FORMAT_ERRORS` it would add.
    """
    errors = dict.fromkeys(FORMAT_ERRORS, 0)
    if not present or value == []:
        errors["empty_segments"] = 1
        return [], errors
    if not isinstance(value, list):
        errors["parse_errors"] = 1
        return [], errors
    if all(isinstance(item, (int, float)) for item in value):
        return [[float(value[i]), float(value[i + 1])] for i in range(0, len(value) - 1, 2)], errors
    out = []
    for item in value:
        try:
            if isinstance(item, (list, tuple)) and len(item) >= 2:
                out.append([float(item[0]), float(item[1])])
                continue
            if isinstance(item, dict):
                keys = ("start", "end") if "start" in item and "end" in item else ("start_time", "end_time")
                out.append([float(item[keys[0]]), float(item[keys[1]])])
                continue
        except (KeyError, TypeError, ValueError):
            pass
        errors["malformed_segments"] += 1
    return out, errors


def _v1_reference(value: Any) -> list[list[float]]:
    out = []
    for item in value if isinstance(value, list) else []:
        if isinstance(item, list) and len(item) >= 2:
            try:
                out.append([float(item[0]), float(item[1])])
            except (TypeError, ValueError):
                continue
    return out


def _v1_temporal(p: list[list[float]], g: list[list[float]]) -> dict[str, float]:
    # The order of the arguments of max() and min(), and of the additions, decides what NaN does and the last bit.
    if not p or not g:
        return {"iou": 0.0, "iop": 0.0, "precision": 0.0, "recall": 0.0}
    common = 0.0
    for a in g:
        for b in p:
            common += max(0, min(a[1], b[1]) - max(a[0], b[0]))
    length_p = sum(max(0, end - start) for start, end in p)
    length_g = sum(max(0, end - start) for start, end in g)
    union = length_g + length_p - common
    precision = common / length_p if length_p > 0 else 0.0
    return {
        "iou": common / union if union > 0 else 0.0,
        "iop": precision,
        "precision": precision,
        "recall": common / length_g if length_g > 0 else 0.0,
    }
