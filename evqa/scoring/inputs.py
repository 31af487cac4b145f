"""References and predictions as scoring needs them, from the many forms they come in."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from evqa import segments as seg
from evqa.errors import DataError, PredictionError
from evqa.predictions import read_prediction
from evqa.types import FrameMask, Prediction, Segment, read_frame_masks

__all__ = ["Reference", "as_predictions", "iter_references"]

# Columns that scoring never looks at; decoding the option images would dominate the time of scoring.
_UNUSED = ("video", "spatial_options", "frames", "objects")
_ALIASES = {
    "candidates": ("candidates", "options"),
    "segments": ("segments", "segment", "temporal_evidence", "temp_evidence"),
    "video_id": ("video_id", "video"),
}


@dataclasses.dataclass(frozen=True)
class Reference:
    """What is right for one entry; ``None`` where the reference does not say."""

    entry_id: str
    cluster: str
    answer: str | None
    candidates: list[Any]
    segments: list[Segment] | None
    masks: list[FrameMask] | None
    temporal_answer: int | None
    spatial_answer: int | None


def iter_references(rows: Any) -> Iterator[Reference]:
    """Read reference rows one by one.

    Args:
        rows: An iterable of dictionaries: a dataset of ``evqa/st_evidence``, or rows of the published CSV with their
            literals unparsed. A mapping of entry id to row works too.

    Raises:
        DataError: A row without an id, an id twice, or a value that cannot be read; names the entry.
    """
    columns = getattr(rows, "column_names", None)
    if isinstance(columns, list) and hasattr(rows, "remove_columns"):
        rows = rows.remove_columns([name for name in columns if name in _UNUSED])
    if isinstance(rows, Mapping):
        rows = ({"entry_id": key, **row} for key, row in rows.items())
    seen: set[str] = set()
    for row in rows:
        if not isinstance(row, Mapping) or not isinstance(row.get("entry_id"), str):
            raise DataError(f"a reference row needs an entry_id, got {str(row)[:80]}")
        reference = _read(row)
        if reference.entry_id in seen:
            raise DataError("the reference holds this entry twice", entry=reference.entry_id)
        seen.add(reference.entry_id)
        yield reference


def _read(row: Mapping[str, Any]) -> Reference:
    entry = row["entry_id"]
    candidates = _literal(_first(row, "candidates"), entry, "candidates") or []
    raw_segments = _literal(_first(row, "segments"), entry, "segments")
    segments = None
    if raw_segments is not None:
        segments, problems = seg.read(raw_segments)
        if problems:
            raise DataError(f"reference segments cannot be read: {'; '.join(problems)}", entry=entry)
    masks = row.get("masks")
    try:
        masks = None if masks is None else read_frame_masks(masks)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"reference masks cannot be read ({error})", entry=entry) from None
    answer = row.get("answer")
    video = _first(row, "video_id")
    return Reference(
        entry_id=entry,
        cluster=video if isinstance(video, str) and video else entry,
        answer=None if answer is None else str(answer),
        candidates=list(candidates),
        segments=segments,
        masks=masks,
        temporal_answer=_index(row.get("temporal_answer"), entry, "temporal_answer"),
        spatial_answer=_index(row.get("spatial_answer"), entry, "spatial_answer"),
    )


def _first(row: Mapping[str, Any], name: str) -> Any:
    return next((row[alias] for alias in _ALIASES[name] if row.get(alias) is not None), None)


def _literal(value: Any, entry: str, column: str) -> Any:
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise DataError(f"{column} is not a Python literal: {value[:60]!r}", entry=entry) from None


def _index(value: Any, entry: str, column: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) and len(value.strip()) == 1:
        value = ord(value.strip().upper()) - ord("A")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 26:
        raise DataError(f"{column} must be an option's index, got {value!r}", entry=entry)
    return value


def as_predictions(predictions: Any) -> Mapping[str, Any]:
    """Predictions as a mapping from entry id, whatever they come as.

    Args:
        predictions: A mapping from entry id to a prediction, or an iterable of predictions with their ``entry_id``.

    Raises:
        PredictionError: A prediction without an id, or an id twice.
    """
    if isinstance(predictions, Mapping):
        return predictions
    if isinstance(predictions, (str, bytes)) or not isinstance(predictions, Iterable):
        raise PredictionError(f"predictions must be a mapping or a list, not a {type(predictions).__name__}")
    found: dict[str, Any] = {}
    for prediction in predictions:
        entry = prediction.entry_id if isinstance(prediction, Prediction) else _entry_of(prediction)
        if entry in found:
            raise PredictionError("there are two predictions for this entry", entry=entry)
        found[entry] = prediction
    return found


def _entry_of(prediction: Any) -> str:
    entry = prediction.get("entry_id") if isinstance(prediction, Mapping) else None
    if not isinstance(entry, str):
        raise PredictionError(f"a prediction needs an entry_id, got {str(prediction)[:80]}")
    return entry


def prediction_of(predictions: Mapping[str, Any], entry_id: str) -> Prediction | None:
    """The prediction for an entry, or ``None`` if there is none."""
    if entry_id not in predictions:
        return None
    return read_prediction(entry_id, predictions[entry_id])
