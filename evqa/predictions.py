"""Predictions in every form they are found in, as :class:`evqa.types.Prediction`.

Forms that are read:

- a run of ours: its folder, or one ``.jsonl`` of its records;
- the original release's generation results: ``{entry: {"video_id", "parsed_response": {"answer", "segments",
  "referring_expressions"}}}``;
- the schema that the original README describes: ``{entry: {"answer", "time_segments", "referring_expressions",
  "mask_dir"}}``;
- its MCQ results: ``{entry: {"answer", "gt_answer", "evidence_t", "gt_evidence_t", "evidence_s", ...}}``;
- mask folders ``<entry>/masks/%05d.png`` (or ``<entry>/%05d.png``).
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evqa import masks as rle_masks
from evqa import segments as seg
from evqa.errors import MaskError, PredictionError
from evqa.types import FrameMask, Prediction

__all__ = ["PredictionFile", "load_predictions", "read_mask_folder", "read_prediction"]

_MCQ_KEYS = {"gt_answer", "evidence_t", "gt_evidence_t", "evidence_s", "gt_evidence_s"}
_OWN_KEYS = {field.name for field in dataclasses.fields(Prediction)}


# ----------------------------------------------------------------------------------- one prediction
def read_prediction(entry_id: str, value: Any, *, file: Any = None) -> Prediction:
    """Read one entry's prediction, in whichever known form it is.

    A value that holds no answer because the system failed becomes a failure record; a value of no known form is an
    error, because scoring it as a wrong answer would hide a mistake in the file.

    Raises:
        PredictionError: The form is unknown or a field has an impossible type; names the entry and the file.
    """
    if isinstance(value, Prediction):
        if value.entry_id != entry_id:
            raise PredictionError(f"holds the prediction of {value.entry_id!r}", entry=entry_id, file=file)
        return value
    original = {"entry": value}
    if value is None:
        return Prediction.failure(entry_id, "missing", "the file holds null", original=original)
    if not isinstance(value, Mapping):
        raise PredictionError(
            f"a prediction must be an object, this is a {type(value).__name__}", entry=entry_id, file=file
        )
    if "parsed_response" in value:
        return _read_parsed_response(entry_id, value, original)
    if "time_segments" in value or "mask_dir" in value:
        return _typed(entry_id, value, segments=value.get("time_segments"))
    if _MCQ_KEYS & set(value):
        return Prediction(
            entry_id,
            answer=_scalar(value.get("answer")),
            temporal_choice=_scalar(value.get("evidence_t")),
            spatial_choice=_scalar(value.get("evidence_s")),
            raw_text=_scalar(value.get("raw_response")),
            original=original,
        )
    if value and set(value) <= _OWN_KEYS:
        if value.get("entry_id", entry_id) != entry_id:
            raise PredictionError(f"holds the prediction of {value['entry_id']!r}", entry=entry_id, file=file)
        if "status" in value:
            return Prediction.from_json({"entry_id": entry_id, **value}, file=file)
        return _own(entry_id, value, file)
    raise PredictionError(
        f"unknown form of prediction with the keys {sorted(map(str, value))}", entry=entry_id, file=file
    )


def _read_parsed_response(entry_id: str, value: Mapping[str, Any], original: dict[str, Any]) -> Prediction:
    parsed = value["parsed_response"]
    if isinstance(parsed, Mapping):
        prediction = _typed(entry_id, parsed, segments=parsed.get("segments"))
        prediction.original = original
        return prediction
    error = value.get("error")
    detail = str(error) if error else f"parsed_response is {json.dumps(parsed)[:80]}"
    return Prediction.failure(entry_id, "adapter_error" if error else "parse_failed", detail, original=original)


def _typed(entry_id: str, value: Mapping[str, Any], *, segments: Any) -> Prediction:
    usable, problems = seg.read(segments)
    expressions = value.get("referring_expressions")
    return Prediction(
        entry_id,
        answer=_scalar(value.get("answer")),
        segments=usable,
        referring_expressions=[e for e in expressions if isinstance(e, str) and e.strip()]
        if isinstance(expressions, list)
        else [],
        detail="; ".join(problems) or None,
    )


def _own(entry_id: str, value: Mapping[str, Any], file: Any) -> Prediction:
    """A dictionary with our field names, as somebody's own code would write it: segments may be in any form."""
    fields = {**value, "entry_id": entry_id, "status": "ok"}
    fields["segments"], problems = seg.read(value.get("segments"))
    fields["answer"] = _scalar(value.get("answer"))
    if problems:
        fields["detail"] = "; ".join(filter(None, [value.get("detail"), *problems]))
    return Prediction.from_json(fields, file=file)


def _scalar(value: Any) -> str | None:
    """An answer as text; a list or object is no answer."""
    return str(value) if isinstance(value, (str, int, float)) else None


# -------------------------------------------------------------------------------------- mask folders
def read_mask_folder(
    folder: str | os.PathLike, *, reading: str = "nonzero", exact_names: bool = False
) -> tuple[list[FrameMask], list[str]]:
    """Read predicted masks, one PNG a frame.

    Args:
        folder: Holds ``%05d.png``, numbered by frame.
        reading: See :func:`evqa.masks.from_png`.
        exact_names: Take only names of exactly five digits as frames, because the original evaluator pairs masks by
            file name. Otherwise any number of digits will do.

    Returns:
        The masks in order, and the problems. A file that cannot be read has ``rle=None``. A PNG whose name is not a
        frame number gets a negative frame, so that it belongs to no frame of the reference.
    """
    masks: list[FrameMask] = []
    problems: list[str] = []
    strays = 0
    for path in sorted(Path(folder).iterdir()):
        if path.suffix != ".png":
            continue
        if path.stem.isascii() and path.stem.isdigit() and (not exact_names or path.stem == f"{int(path.stem):05d}"):
            frame = int(path.stem)
        else:
            strays += 1
            frame = -strays
            problems.append(f"{path.name} is not named after a frame")
        try:
            rle = rle_masks.from_png(path, reading=reading)
        except MaskError as error:
            rle = None
            problems.append(f"{path.name}: {error.message}")
        masks.append({"frame": frame, "time": None, "rle": rle})
    return masks, problems


# ------------------------------------------------------------------------------------ a whole file
class PredictionFile(Mapping[str, Prediction]):
    """The predictions of one result file; masks are read from disk only when an entry is looked up.

    Args:
        entries: ``{entry id: value}`` in any known form.
        file: Where they come from; mask folders that entries name are looked up beside it.
        masks: Folder with ``<entry>/masks`` or ``<entry>``; wins over folders that entries name.
        exact: Read masks as the original evaluator does (see :func:`read_mask_folder`).
    """

    def __init__(
        self,
        entries: Mapping[str, Any],
        *,
        file: str | os.PathLike | None = None,
        masks: str | os.PathLike | None = None,
        exact: bool = False,
    ):
        self._entries = entries
        self._file = None if file is None else Path(file)
        self._masks = None if masks is None else Path(masks)
        self._exact = exact

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self._entries

    def __getitem__(self, entry_id: str) -> Prediction:
        value = self._entries[entry_id]
        prediction = read_prediction(entry_id, value, file=self._file)
        folder, problem = self._folder(entry_id, value)
        if folder is None:
            return dataclasses.replace(prediction, detail=_join(prediction.detail, problem)) if problem else prediction
        masks, problems = read_mask_folder(
            folder, reading="luminance" if self._exact else "nonzero", exact_names=self._exact
        )
        return dataclasses.replace(prediction, masks=masks, detail=_join(prediction.detail, *problems))

    def _folder(self, entry_id: str, value: Any) -> tuple[Path | None, str | None]:
        if self._masks is not None:
            for folder in (self._masks / entry_id / "masks", self._masks / entry_id):
                if folder.is_dir():
                    return folder, None
            return None, None
        named = _named_folder(value)
        if named is None:
            return None, None
        places = [Path(named)] if self._file is None else [self._file.parent / named, Path(named)]
        for place in places:
            if place.is_dir():
                return place, None
        return None, f"its mask folder {named} does not exist"


def _named_folder(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return None
    parsed = value.get("parsed_response")
    inner = parsed.get("mask_path") if isinstance(parsed, Mapping) else None
    for name in (value.get("mask_folder"), value.get("mask_dir"), inner):
        if isinstance(name, str) and name:
            return name
    return None


def _join(*parts: str | None) -> str | None:
    return "; ".join(part for part in parts if part) or None


def load_predictions(
    path: str | os.PathLike, *, masks: str | os.PathLike | None = None, exact: bool = False
) -> Mapping[str, Prediction]:
    """Open a prediction source.

    Args:
        path: A run folder of ours, a ``.jsonl`` of records, or a ``.json`` in a form of the original release.
        masks: Folder of mask PNGs for a ``.json``.
        exact: Read masks as the original evaluator does; for scoring under ``evqa-v1``.

    Returns:
        A mapping from entry id; entries are read when they are looked up.

    Raises:
        PredictionError: No such file, not JSON, an id twice, or not an object of entries; names the file.
    """
    from evqa.runlog import RunLog, read_records

    path = Path(path)
    if path.is_dir():
        return RunLog.open(path).predictions()
    if not path.exists():
        raise PredictionError("there is no such prediction file or run folder", file=path)
    if masks is not None and not Path(masks).is_dir():
        raise PredictionError("there is no such mask folder", file=masks)
    if path.suffix == ".jsonl":
        return read_records([path])
    entries = _load_json(path)
    if not isinstance(entries, dict):
        raise PredictionError(
            f"a result file is one object {{entry id: prediction}}, this is a {type(entries).__name__}", file=path
        )
    return PredictionFile(entries, file=path, masks=masks, exact=exact)


def _load_json(path: Path) -> Any:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise PredictionError(f"the key {twice!r} stands twice in one object", file=path)
        return out

    try:
        with open(path, encoding="utf-8") as handle:
            return json.load(handle, object_pairs_hook=no_duplicates)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PredictionError(f"not readable as JSON ({error}); is it cut off?", file=path) from None
