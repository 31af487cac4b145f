"""The three choices of the MCQ task: the answer, one of 4 time spans, one of 4 marked regions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evqa.scoring.answers import LETTERS, answer_correct, match_letter
from evqa.scoring.inputs import Reference
from evqa.types import NUM_OPTIONS, Prediction

__all__ = ["CHOICES", "choices", "v1_choices", "v1_entry"]

#: Choice -> (its key in the original's MCQ files, the key of the truth there).
CHOICES = {
    "qa": ("answer", "gt_answer"),
    "temporal": ("evidence_t", "gt_evidence_t"),
    "spatial": ("evidence_s", "gt_evidence_s"),
}


def choices(said: Prediction, right: Reference) -> dict[str, tuple[int, int, int]]:
    """Score one entry under ``strict``.

    Returns:
        For each of ``qa``, ``temporal``, ``spatial``: ``(asked, answered, correct)``, each 0 or 1. ``asked`` comes
        from the reference alone: an entry cannot leave the denominator by not being answered. An evidence choice
        counts as answered if it is one of the letters; an answer if it is not empty.
    """
    asked = right.answer is not None
    out = {
        "qa": (
            int(asked),
            int(asked and said.answer is not None and said.answer.strip() != ""),
            int(asked and answer_correct(said.answer, right.answer, right.candidates)),
        )
    }
    for name, choice, answer in (
        ("temporal", said.temporal_choice, right.temporal_answer),
        ("spatial", said.spatial_choice, right.spatial_answer),
    ):
        letter = match_letter(choice, NUM_OPTIONS)
        asked = answer is not None
        out[name] = (int(asked), int(asked and letter is not None), int(asked and letter == answer))
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


def v1_entry(said: Prediction, right: Reference) -> dict[str, Any]:
    """The record that the original MCQ scripts would have written: the truth as letters, beside the prediction."""
    wanted = str(right.answer).strip().lower()
    texts = [str(candidate).strip().lower() for candidate in right.candidates]
    return {
        "answer": said.answer,
        "gt_answer": LETTERS[texts.index(wanted)] if wanted in texts else None,
        "evidence_t": said.temporal_choice,
        "gt_evidence_t": None if right.temporal_answer is None else LETTERS[right.temporal_answer],
        "evidence_s": said.spatial_choice,
        "gt_evidence_s": None if right.spatial_answer is None else LETTERS[right.spatial_answer],
    }


def _nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value in ("", "None"))
