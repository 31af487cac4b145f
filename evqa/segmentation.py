"""Step two: the referring expressions of a run -> masks, as a run of its own.

The new run holds every record of the first one, with masks. It is written by the same engine, so it can be killed,
continued, split over ranks and scored like any other; a clip is either wholly done or not in the log.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evqa import masks as rle_masks
from evqa.adapters.base import Adapter, frame_policy
from evqa.errors import AdapterError
from evqa.predictions import load_predictions
from evqa.runlog import RunLog
from evqa.segmenters import Segmenter
from evqa.types import FrameMask, Prediction, Rle

__all__ = ["MODES", "SegmentationStep", "joined", "nearest_frames", "track"]

#: ``separate``: each expression on its own. ``concat``: all of an entry in one sentence.
MODES = ("separate", "concat")


@dataclasses.dataclass(frozen=True)
class _Work:
    """An entry of the first run; without frames if there is nothing to segment."""

    prediction: Prediction
    frames: np.ndarray | None = None
    times: np.ndarray | None = None
    positions: np.ndarray | None = None
    info: Any = None


class SegmentationStep(Adapter):
    """Adds masks to the predictions of a run.

    Args:
        segmenter: What finds the objects.
        source: A run folder or prediction file whose entries have referring expressions.
        mode: One of :data:`MODES`.
        frames: Which frames are segmented (:func:`evqa.video.parse_policy`). Frames between them get the mask of the
            one that is nearest in time, so that every frame of the clip has a mask at any rate.
    """

    name = "segment"
    tasks = ("gen",)
    needs_images = False

    def __init__(self, segmenter: Segmenter, source: Any, *, mode: str = "separate", frames: str = "every:1"):
        if mode not in MODES:
            raise AdapterError(f"mode is {' or '.join(MODES)}, not {mode!r}")
        self._policy = frame_policy(frames)
        self._segmenter = segmenter
        self._source = Path(source)
        self._predictions = load_predictions(self._source)
        self._mode = mode

    def settings(self) -> dict[str, Any]:
        """Segmenter, mode, frames, and what the first run was."""
        if self._source.is_dir():
            manifest = RunLog.open(self._source).manifest
            source = {key: manifest.get(key) for key in ("task", "adapter", "data")}
        else:
            source = {"file": self._source.name, "sha256": hashlib.sha256(self._source.read_bytes()).hexdigest()}
        return {
            "segmenter": {"name": self._segmenter.name, **self._segmenter.settings()},
            "mode": self._mode,
            "frames": self._policy.describe(),
            "source": source,
        }

    def missing(self, entries: Sequence[str]) -> list[str]:
        """Those of some entries that the first run does not hold."""
        return [entry for entry in entries if entry not in self._predictions]

    def prepare(self, row: Mapping[str, Any], task: str) -> _Work:
        """Decode the clip of an entry that has something to segment; see :meth:`Adapter.prepare`."""
        from evqa.video import Clip

        entry = row["entry_id"]
        if entry not in self._predictions:
            raise AdapterError("the first run holds nothing for this entry", entry=entry, file=self._source)
        prediction = self._predictions[entry]
        if prediction.failed or not expressions_of(prediction):
            return _Work(prediction)
        if not row.get("video"):
            raise AdapterError("the data comes without this entry's clip", entry=entry)
        clip = Clip(row["video"])
        positions = self._policy.positions(clip.info)
        times = clip.info.timestamps[positions]
        return _Work(prediction, clip.frames(times, max_side=self._segmenter.max_side), times, positions, clip.info)

    def predict(self, rows: Sequence[_Work], task: str) -> list[Prediction]:
        """See :meth:`Adapter.predict`; a failure of the first run stays the failure that it is."""
        return [self._segmented(work) for work in rows]

    def _segmented(self, work: _Work) -> Prediction:
        prediction = work.prediction
        if prediction.failed:
            return prediction
        if work.frames is None:
            note = "; ".join(filter(None, (prediction.detail, "no referring expressions to segment")))
            return dataclasses.replace(prediction, detail=note)
        expressions = expressions_of(prediction)
        if self._mode == "concat":
            expressions = [joined(expressions)]
        size = (work.info.height, work.info.width)
        found = self._segmenter.segment(work.frames, work.times, expressions, size)
        self._check(found, len(expressions), len(work.times), size)
        nearest = nearest_frames(work.times, work.info.timestamps)
        union = [rle_masks.union(frame) for frame in zip(*found, strict=True)]
        usage = {**prediction.usage, "frames_segmented": len(work.times)}
        if prediction.seconds is not None:
            usage["answer_seconds"] = prediction.seconds  # what the engine measures now is the segmentation
        return dataclasses.replace(
            prediction,
            masks=track(union, nearest, work.info.timestamps),
            expression_masks=[
                {"expression": text, "masks": track(rles, nearest, work.info.timestamps)}
                for text, rles in zip(expressions, found, strict=True)
            ],
            usage=usage,
            seconds=None,
        )

    def _check(self, found: Any, expressions: int, frames: int, size: tuple[int, int]) -> None:
        if len(found) != expressions or any(len(rles) != frames for rles in found):
            raise AdapterError(f"segmenter {self._segmenter.name!r} did not return a mask per expression and frame")
        if any(tuple(rle["size"]) != size for rles in found for rle in rles):
            raise AdapterError(f"segmenter {self._segmenter.name!r} returned masks that are not {size[0]} x {size[1]}")

    def close(self) -> None:
        """Let go of the model."""
        self._segmenter.close()


def expressions_of(prediction: Prediction) -> list[str]:
    """The expressions that can be asked for: no blanks, each once, in order."""
    texts = [text.strip() for text in prediction.referring_expressions if isinstance(text, str)]
    return list(dict.fromkeys(text for text in texts if text))


def joined(expressions: Sequence[str]) -> str:
    """Expressions in one sentence: ``a, b and c``."""
    *others, last = expressions
    return f"{', '.join(others)} and {last}" if others else last


def nearest_frames(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each wanted time the number of the nearest of ``times`` (sorted); of two equally near, the earlier."""
    right = np.clip(np.searchsorted(times, wanted), 1, max(1, len(times) - 1))
    left = right - 1
    right = np.minimum(right, len(times) - 1)
    return np.where(wanted - times[left] <= times[right] - wanted, left, right)


def track(masks: Sequence[Rle | None], nearest: np.ndarray, timestamps: np.ndarray) -> list[FrameMask]:
    """A mask for every frame of a clip: ``masks[nearest[frame]]``, with the frame's number and second."""
    return [
        {"frame": frame, "time": float(timestamps[frame]), "rle": masks[which]}
        for frame, which in enumerate(nearest.tolist())
    ]
