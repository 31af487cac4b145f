"""Which rows of a corpus are trained on, told without reading a mask or a frame."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from evqa.errors import DataError
from evqa.training.conversations import DATA_TYPES, data_type

__all__ = ["Filters", "scan"]

_BLOCK = 2048
#: What a decision needs. ``objects`` is looked at in Arrow's own form: its masks stay where they are.
_LIGHT = (
    "entry_id", "num_frames", "duration", "answer", "answer_index", "messages", "video_names", "image_names",
    "expression", "question", "candidates", "kind",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Filters:
    """What is left out. ``None``: no limit.

    Attributes:
        min_frames, max_frames: Frames of a row, where the row says how many it has.
        max_seconds: Length of its clip, where the row says it.
        max_words: Words of its answer, or of the first reply of a conversation.

    Rows without anything to learn are always left out: an expression about no object, or without masks (a test split),
    and a question whose answer is none of its options.
    """

    min_frames: int | None = None
    max_frames: int | None = None
    max_seconds: float | None = None
    max_words: int | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0):
                raise ValueError(f"{field.name} is a number of at least 0 or none, got {value!r}")

    def reason(self, row: Mapping[str, Any], has_masks: bool) -> str | None:
        """Why a row is left out; ``None``: it is not.

        Args:
            row: Without its masks.
            has_masks: Whether any object of it has masks.
        """
        if "expression" in row and not has_masks:
            return "no masks"
        if "candidates" in row and row.get("answer_index") is None:
            return "the answer is none of the options"
        frames, seconds = row.get("num_frames"), row.get("duration")
        if frames is not None:
            if self.min_frames is not None and frames < self.min_frames:
                return "too few frames"
            if self.max_frames is not None and frames > self.max_frames:
                return "too many frames"
        if self.max_seconds is not None and seconds is not None and seconds > self.max_seconds:
            return "too long"
        if self.max_words is not None and len(_answer(row).split()) > self.max_words:
            return "too many words"
        return None


def _answer(row: Mapping[str, Any]) -> str:
    if "messages" in row:
        return next((m["content"] for m in row["messages"] if m["role"] == "assistant"), "")
    return row.get("answer") or ""


def row_has_masks(row: Mapping[str, Any]) -> bool:
    """Whether any object of a row has masks."""
    return any(item["masks"] for item in row.get("objects") or [])


def scan(rows: Any, filters: Filters) -> tuple[np.ndarray, np.ndarray, Counter[str]]:
    """Look at every row.

    Args:
        rows: A ``datasets.Dataset``, or a sequence of rows.
        filters: What to leave out.

    Returns:
        Numbers of the rows that are kept, int64 ``[kept]``; the data type of each, int64 ``[kept]``, as its place in
        :data:`~evqa.training.conversations.DATA_TYPES`; and how many were left out for each reason.
    """
    kept, types = [], []
    dropped: Counter[str] = Counter()
    order = {name: number for number, name in enumerate(DATA_TYPES)}
    blocks = _table_blocks(rows) if hasattr(rows, "select_columns") else _plain_blocks(rows)
    number = 0
    for block, has_masks in blocks:
        for row, masks in zip(block, has_masks, strict=True):
            reason = filters.reason(row, masks)
            if reason is None:
                kept.append(number)
                types.append(order[data_type(row)])
            else:
                dropped[reason] += 1
            number += 1
    return np.array(kept, np.int64), np.array(types, np.int64), dropped


def _plain_blocks(rows: Any) -> Any:
    for number in range(len(rows)):
        yield [rows[number]], [row_has_masks(rows[number])]


def _table_blocks(rows: Any) -> Any:
    names = [name for name in (*_LIGHT, "objects") if name in rows.column_names]
    if not names:
        raise DataError(f"rows with columns {rows.column_names[:6]} are none of evqa's records")
    tables = rows.select_columns(names).with_format("arrow")
    for start in range(0, len(rows), _BLOCK):
        table = tables[start : start + _BLOCK]
        light = table.select([name for name in table.column_names if name != "objects"])
        if "objects" in table.column_names:
            has_masks = np.concatenate([_with_masks(chunk) for chunk in table.column("objects").chunks] or [[]])
        else:
            has_masks = np.zeros(len(table), bool)
        yield light.to_pylist(), has_masks.tolist()


def _with_masks(objects: Any) -> np.ndarray:
    """Which rows of an Arrow column ``list<struct<..., masks: list<...>>>`` have an object with masks: bool."""
    import pyarrow.compute as pc

    counts = pc.list_value_length(objects).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    masks = pc.struct_field(objects.flatten(), "masks")  # flatten leaves out null rows and what lies before the slice
    some = pc.list_value_length(masks).fill_null(0).to_numpy(zero_copy_only=False) > 0
    owner = np.repeat(np.arange(len(counts)), counts)
    out = np.zeros(len(counts), bool)
    out[owner[some]] = True
    return out
