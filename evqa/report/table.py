"""Scores as text, for a terminal and for a result file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from evqa.scoring.aggregate import Scores, metric_groups

__all__ = ["breakdown_table", "score_table", "to_json"]


def _align(rows: Sequence[Sequence[str]]) -> str:
    """Columns under one another: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def score_table(results: Mapping[str, Scores]) -> str:
    """One column per result, one line per metric, each number with its 95 % interval.

    Args:
        results: Title of the column -> scores; all of one task.
    """
    first = next(iter(results.values()))
    rows = [["percent", *(cell for title in results for cell in (title, ""))]]
    for group, names in metric_groups(first.task).items():
        lines = []
        for name in names:
            if any(name in scores for scores in results.values()):
                cells = [(_number(s.get(name)), _interval(s.intervals.get(name))) for s in results.values()]
                lines.append([f"  {name}", *(text for pair in cells for text in pair)])
        if lines:
            rows += [[group, *[""] * (len(rows[0]) - 1)], *lines]
    return _align(rows) + "\n\n" + "\n".join(f"{title}: {counts_line(scores)}" for title, scores in results.items())


def counts_line(scores: Scores) -> str:
    """How many entries and what became of them."""
    videos = len({entry.cluster for entry in scores.entries})
    few = " (so few that the intervals are too narrow)" if scores.intervals and videos < 20 else ""
    parts = [f"{scores['num_samples']} entries of {videos} videos{few}"]
    if scores.task == "gen":
        parts.append(f"{scores['num_frames']} mask frames")
    for key, word in (
        ("num_missing", "missing"), ("num_failed", "failed"), ("num_with_problems", "with problems"),
        ("num_extra", "predicted but not in the reference"),
    ):  # fmt: skip
        if scores[key]:
            parts.append(f"{scores[key]} {word}")
    if any(scores.format_errors.values()):
        errors = ", ".join(f"{count} {name}" for name, count in scores.format_errors.items() if count)
        parts.append(f"format errors: {errors}")
    return ", ".join(parts)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _interval(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f"[{bounds[0]:.1f}, {bounds[1]:.1f}]"


def breakdown_table(groups: Mapping[str, Mapping[str, Any]], task: str, protocol: str) -> str:
    """One line per group, one column per main metric."""
    if task == "gen":
        names = ["accuracy", "mIoU", "t_mean", "J&F"] + (["EBA@0.3", "EBA@0.5"] if protocol == "strict" else [])
    else:
        names = ["qa_accuracy", "temporal_accuracy", "spatial_accuracy", "overall_accuracy"]
    rows = [["group", "entries", *names]]
    for group, numbers in groups.items():
        rows.append([group, str(numbers["num_samples"]), *(_number(numbers.get(name)) for name in names)])
    return _align(rows)


def to_json(scores: Scores) -> str:
    """Everything about a score, as the text of a JSON file."""
    value = {
        **scores,
        "intervals": {name: list(bounds) for name, bounds in scores.intervals.items()},
        "format_errors": scores.format_errors if scores.protocol != "strict" else {},
        "extra": scores.extra,
        "entries": [entry.to_json() for entry in scores.entries],
    }
    return json.dumps(_finite(value), indent=1, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    """NaN and infinity are no JSON: they become null."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
