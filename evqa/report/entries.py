"""What the evidence page holds of one entry: a light part for list, filters and plots, and a full part of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evqa.scoring.answers import LETTERS, match_candidate, match_letter
from evqa.scoring.inputs import prediction_of
from evqa.scoring.protocols import STRICT
from evqa.types import NUM_OPTIONS, Prediction

__all__ = ["MASK_BUDGET", "TEXT_BUDGET", "confidence_of", "entry_data", "option_images"]

#: Characters of RLE that the page keeps per entry for the reference and for each run. Beyond it every second or
#: third frame (and so on) is kept, and the page says so; scores always use all frames.
MASK_BUDGET = 200_000

#: Characters of a system's own text that the page keeps per entry and run.
TEXT_BUDGET = 20_000

# The scores that list, filters and plots use. Those with a threshold keep every digit, so that a filter never disagrees
# with the table above it.
_EXACT = ("accuracy", "mIoU", "J&F", "qa_accuracy", "temporal_accuracy", "spatial_accuracy")
_ROUNDED = ("mIoP", "J", "F", "vIoU")


def entry_data(
    row: Mapping[str, Any],
    runs: Mapping[str, Mapping[str, Prediction]],
    scored: Mapping[str, Mapping[str, Any]],
    media: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two parts of an entry, JSON-ready.

    Args:
        row: Of the benchmark.
        runs: Name of a system -> its predictions.
        scored: Name of a system -> protocol -> :class:`evqa.scoring.Scores`.
        media: ``clip`` and ``poster``: paths in the page's folder, or ``None``.

    Returns:
        ``light``, which is in the page's index, and ``full``, which is read when the entry is looked at.
    """
    entry_id = row["entry_id"]
    metadata = json.loads(row.get("metadata") or "{}")
    masks = _masks(row.get("masks") or [])
    light = {
        "id": entry_id,
        "video_id": row["video_id"],
        **media,
        "fps": row.get("fps"),
        "duration": row.get("duration"),
        "size": [row["height"], row["width"]] if row.get("height") else None,
        "question": row["question"],
        "candidates": row["candidates"],
        "answer_index": row.get("answer_index"),
        "type": _tag(metadata.get("question_type")),
        "source": _tag(metadata.get("source")),
        "runs": [],
    }
    full: dict[str, Any] = {
        "truth": {"segments": row["segments"] or [], **masks},
        "size": masks["masks"][0]["s"] if masks["masks"] else None,
        "runs": [],
    }
    for name, predictions in runs.items():
        said = prediction_of(predictions, entry_id) or Prediction.failure(entry_id, "missing", "no prediction")
        scores = scored[name][STRICT].entry(entry_id)
        problems = scores.problems or ([said.detail] if said.detail else [])
        light["runs"].append(_said(said, scores.values, row["candidates"], len(problems)))
        full["runs"].append(
            {
                "segments": said.segments,
                **_masks(said.masks),
                "expressions": said.referring_expressions,
                "raw_text": _shortened(said.raw_text),
                "problems": problems,
            }
        )
    return light, full


def _said(said: Prediction, values: Mapping[str, float], candidates: Sequence[Any], problems: int) -> dict[str, Any]:
    out = {
        "status": said.status,
        "answer": said.answer,
        "answer_index": None if said.answer is None else match_candidate(said.answer, candidates),
        "temporal_index": match_letter(said.temporal_choice, NUM_OPTIONS),
        "spatial_index": match_letter(said.spatial_choice, NUM_OPTIONS),
        "problems": problems,
        "v": {
            **{name: values[name] for name in _EXACT if name in values},
            **{name: round(values[name], 4) for name in _ROUNDED if name in values},
        },
    }
    if (confidence := confidence_of(said)) is not None:
        out["confidence"] = confidence
    return out


def confidence_of(said: Prediction) -> float | None:
    """How sure the system says it is of its answer: ``usage["confidence"]``, a number from 0 to 1; else ``None``."""
    value = said.usage.get("confidence") if isinstance(said.usage, Mapping) else None
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or not 0 <= value <= 1
    ):
        return None
    return None if said.failed else float(value)


def _tag(value: Any) -> str | None:
    return str(value) if value else None


def _shortened(text: str | None) -> str | None:
    if text is None or len(text) <= TEXT_BUDGET:
        return text
    return f"{text[:TEXT_BUDGET]}\n… and {len(text) - TEXT_BUDGET:,} more characters, which the page leaves out"


def _masks(masks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The masks that can be drawn, thinned to :data:`MASK_BUDGET`.

    Returns:
        ``masks``; ``every``: one of how many frames is kept; ``hold``: for how many frames each mask is shown.
    """
    out = []
    for mask in masks:
        rle = mask["rle"]
        if rle is not None and mask["frame"] >= 0:
            counts = rle["counts"]
            text = counts.decode("ascii") if isinstance(counts, bytes) else counts
            out.append({"f": mask["frame"], "s": list(rle["size"]), "c": text})
    total = sum(len(mask["c"]) for mask in out)
    if total <= MASK_BUDGET:
        return {"masks": out, "every": 1, "hold": 1}
    frames = sorted({mask["f"] for mask in out})
    every = math.ceil(total / MASK_BUDGET)
    while True:  # frames differ in size: keep fewer until those that are kept fit
        kept = frames[::every]
        chosen = [mask for mask in out if mask["f"] in set(kept)]
        if sum(len(mask["c"]) for mask in chosen) <= MASK_BUDGET:
            return {"masks": chosen, "every": every, "hold": kept[1] - kept[0] if len(kept) > 1 else frames[-1] + 1}
        if every >= len(frames):
            return {"masks": [], "every": every, "hold": 1}  # even one frame is too large
        every = min(2 * every, len(frames))


def option_images(row: Mapping[str, Any], folder: Path, stem: str) -> dict[str, Any]:
    """The evidence choices of an MCQ entry; its images go to ``<folder>/<stem>_A.jpg`` and so on."""
    (folder / stem).parent.mkdir(exist_ok=True)
    paths = []
    for letter, image in zip(LETTERS, row["spatial_options"], strict=False):
        paths.append(f"{stem}_{letter}.jpg")
        image = image.convert("RGB")
        image.thumbnail((480, 480))
        image.save(folder / paths[-1], quality=85)
    return {
        "temporal_options": row["temporal_options"],
        "temporal_answer": row["temporal_answer"],
        "spatial_options": paths,
        "spatial_answer": row["spatial_answer"],
    }
