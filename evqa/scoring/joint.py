"""Scores that ask for the answer *and* its proof."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["EBA_THRESHOLDS", "GQA_IOP", "evidence_backed", "evidence_grid", "reaches"]

#: Thresholds of evidence-backed accuracy that are reported by name; :func:`evidence_grid` takes any.
EBA_THRESHOLDS = (0.3, 0.5, 0.7)

#: NExT-GQA's Acc@GQA asks for IoP of at least one half.
GQA_IOP = 0.5


def reaches(value: float, threshold: float) -> bool:
    """Whether a score reaches a threshold; 1e-9 of slack, so that 0.3 computed as 0.29999999999999993 does."""
    return value >= threshold - 1e-9


def evidence_backed(
    correct: bool, temporal_iou: float | None, jf: float | None, temporal_threshold: float, mask_threshold: float
) -> bool | None:
    """Whether an answer counts as backed by evidence: it is right AND tIoU >= theta_t AND J&F >= theta_s.

    Args:
        correct: The answer is right.
        temporal_iou, jf: Scores as fractions; ``None`` where the reference holds no such evidence, which then asks
            for nothing.

    Returns:
        ``None`` when the reference holds no evidence at all: the entry says nothing about grounding.
    """
    if temporal_iou is None and jf is None:
        return None
    return (
        correct
        and (temporal_iou is None or reaches(temporal_iou, temporal_threshold))
        and (jf is None or reaches(jf, mask_threshold))
    )


def evidence_grid(
    entries: Iterable[Mapping[str, float]], thresholds: Iterable[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
) -> dict[tuple[float, float], float]:
    """Evidence-backed accuracy over a grid of thresholds.

    Args:
        entries: Per-entry values as in :class:`evqa.scoring.EntryScore` (``accuracy``, ``mIoU``, ``J&F``).
        thresholds: Used for both the temporal and the mask side.

    Returns:
        ``{(theta_t, theta_s): percent}``; ``(0, 0)`` is the plain accuracy over the entries that have evidence.
    """
    thresholds = sorted(set(thresholds))
    entries = [values for values in entries if "accuracy" in values]
    grid = {}
    for theta_t in thresholds:
        for theta_s in thresholds:
            hits = [
                evidence_backed(values["accuracy"] == 1, values.get("mIoU"), values.get("J&F"), theta_t, theta_s)
                for values in entries
            ]
            asked = [hit for hit in hits if hit is not None]
            grid[theta_t, theta_s] = 100 * sum(asked) / len(asked) if asked else float("nan")
    return grid
