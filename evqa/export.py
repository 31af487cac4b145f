"""Predictions as the result files of the original release, so that its own scripts can read them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evqa import masks as rle_masks
from evqa._files import child, write_json
from evqa.errors import PredictionError
from evqa.scoring.choice import v1_entry
from evqa.scoring.inputs import iter_references
from evqa.types import Prediction

__all__ = ["export_original"]


def export_original(
    predictions: Mapping[str, Prediction], folder: str | os.PathLike, *, references: Any = None, task: str = "gen"
) -> Path:
    """Write predictions as the original release's files.

    Args:
        predictions: What to write.
        folder: Gets ``predictions.json`` and, for ``gen``, ``predictions/<entry>/masks/%05d.png``.
        references: Rows of the benchmark. Needed for ``mcq``, whose files carry the truth, and for ``video_id``.
        task: ``"gen"`` or ``"mcq"``.

    Returns:
        The path of ``predictions.json``.

    Raises:
        PredictionError: ``mcq`` without references, or an entry that the references do not hold.
        DataError: An entry's id would lead out of the folder.
    """
    folder = Path(folder)
    known = {} if references is None else {right.entry_id: right for right in iter_references(references)}
    if task == "mcq" and not known:
        raise PredictionError("MCQ files carry the truth: the references are needed to write them", file=folder)
    entries: dict[str, Any] = {}
    for entry_id in predictions:
        right = known.get(entry_id)
        if task == "gen":
            entries[entry_id] = _gen_entry(predictions[entry_id], right.cluster if right else None, folder)
        elif right is not None:
            entries[entry_id] = v1_entry(predictions[entry_id], right)
        else:
            raise PredictionError("the references do not hold this entry", entry=entry_id)
    write_json(folder / "predictions.json", entries)
    return folder / "predictions.json"


def _gen_entry(prediction: Prediction, video_id: str | None, folder: Path) -> dict[str, Any]:
    entry_id = prediction.entry_id
    entry: dict[str, Any] = {"video_id": video_id, "parsed_response": None}
    if prediction.failed:
        entry["error"] = f"{prediction.status}: {prediction.detail}"
    else:
        entry["parsed_response"] = {
            "answer": prediction.answer,
            "segments": prediction.segments,
            "referring_expressions": prediction.referring_expressions,
        }
    if prediction.masks:
        place = child(folder / "predictions", entry_id, "masks", entry=entry_id)
        place.mkdir(parents=True, exist_ok=True)
        for mask in prediction.masks:
            if mask["rle"] is not None and mask["frame"] >= 0:
                rle_masks.to_png(mask["rle"], place / f"{mask['frame']:05d}.png")
        entry["mask_folder"] = f"predictions/{entry_id}/masks"
    return entry
