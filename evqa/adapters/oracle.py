"""The ceiling: the reference itself, said as an answer. It must score 100; if it does not, the benchmark or a metric
is broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evqa.adapters.base import Adapter
from evqa.scoring.answers import LETTERS, match_candidate
from evqa.types import Prediction

__all__ = ["Oracle"]


class Oracle(Adapter):
    """Repeats what the reference says is right."""

    name = "oracle"
    sees_reference = True
    needs_images = False
    batch_size = 16

    def predict(self, rows: Sequence[Mapping[str, Any]], task: str) -> list[Prediction]:
        """See :meth:`Adapter.predict`."""
        return [self._repeat(row, task) for row in rows]

    def _repeat(self, row: Mapping[str, Any], task: str) -> Prediction:
        index = row.get("answer_index")
        if index is None and row["answer"] is not None:
            index = match_candidate(row["answer"], row["candidates"])
        answer = row["answer"] if index is None else LETTERS[index]
        if task == "mcq":
            return Prediction(
                row["entry_id"],
                answer=answer,
                temporal_choice=_letter(row["temporal_answer"]),
                spatial_choice=_letter(row["spatial_answer"]),
            )
        return Prediction(row["entry_id"], answer=answer, segments=row["segments"], masks=row["masks"] or [])


def _letter(index: int | None) -> str | None:
    return None if index is None else LETTERS[index]


ADAPTER = Oracle
