"""The three choices of the MCQ task: the answer, one of 4 time spans, one of 4 marked regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evqa.scoring.answers import LETTERS, answer_correct, match_letter
from evqa.types import NUM_OPTIONS

__all__ = ["CHOICES", "choices", "v1_choices"]

#: Choice -> (its key in the original's MCQ files, the key of the truth there).
CHOICES = {
    "qa": ("answer", "gt_answer"),
    "temporal": ("evidence_t", "gt_evidence_t"),
    "spatial": ("evidence_s", "gt_evidence_s"),
}


def choices(
    *,
    answer: Any,
    temporal_choice: Any,
    spatial_choice: Any,
    candidates: Sequence[Any],
    right_answer: Any,
    temporal_answer: int | None,
    spatial_answer: int | None,
) -> dict[str, tuple[int, int, int]]:
    """Score one entry under ``strict``.

    Args:
        answer, temporal_choice, spatial_choice: What the system said; ``None`` for nothing.
        candidates, right_answer: The reference's options and the text of the right one.
        temporal_answer, spatial_answer: Index of the right option; ``None`` where the reference has no such choice.

    Returns:
        For each of ``qa``, ``temporal``, ``spatial``: ``(asked, answered, correct)``, each 0 or 1. ``asked`` comes
        from the reference alone: an entry cannot leave the denominator by not being answered. An evidence choice
        counts as answered if it is one of the letters; an answer if it is not empty.
    """
    asked = right_answer is not None
    out = {
        "qa": (
            int(asked),
            int(asked and answer is not None and str(answer).strip() != ""),
            int(asked and answer_correct(answer, right_answer, candidates)),
        )
    }
    for name, said, right in (
        ("temporal", temporal_choice, temporal_answer),
        ("spatial", spatial_choice, spatial_answer),
    ):
        letter = match_letter(said, NUM_OPTIONS)
        asked = right is not None
        out[name] = (int(asked), int(asked and letter is not None), int(asked and letter == right))
    return out


def v1_choices(entry: Mapping[str, Any]) -> dict[str, tuple[int, int, int]]:
    """Score one entry of an original MCQ result file as its evaluator does, with the truth that the file states.

    Returns:
        ``{choice: (total, valid, correct)}``: total if the truth is not empty, valid if the prediction is not empty,
        correct if both are equal without any normalisation.
    """
    out = {}
    for name, (said, right) in CHOICES.items():
        total = not _nothing(entry.get(right))
        valid = total and not _nothing(entry.get(said))
        out[name] = (int(total), int(valid), int(valid and entry[said] == entry[right]))
    return out


def v1_entry(
    *,
    answer: Any,
    temporal_choice: Any,
    spatial_choice: Any,
    candidates: Sequence[Any],
    right_answer: Any,
    temporal_answer: int | None,
    spatial_answer: int | None,
) -> dict[str, Any]:
    """The record that the original MCQ scripts would have written: the truth as letters, beside the prediction."""
    wanted = str(right_answer).strip().lower()
    texts = [str(candidate).strip().lower() for candidate in candidates]
    return {
        "answer": answer,
        "gt_answer": LETTERS[texts.index(wanted)] if wanted in texts else None,
        "evidence_t": temporal_choice,
        "gt_evidence_t": None if temporal_answer is None else LETTERS[temporal_answer],
        "evidence_s": spatial_choice,
        "gt_evidence_s": None if spatial_answer is None else LETTERS[spatial_answer],
    }


def _nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value in ("", "None"))
