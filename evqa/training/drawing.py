"""Predicted and true masks on frames, as pictures, to be looked at while a model is trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evqa import masks as rle_masks
from evqa.errors import EvqaError

__all__ = ["draw_entries", "draw_masks"]

logger = logging.getLogger(__name__)

_TRUE, _SAID = (0, 114, 255), (255, 120, 0)


def draw_masks(frame: np.ndarray, true: Any = None, said: Any = None) -> np.ndarray:
    """A frame with the true mask in blue and the predicted one in orange.

    Args:
        frame: uint8 ``[height, width, 3]``.
        true, said: RLE of the frame's size, or ``None``.

    Returns:
        uint8 ``[height, width, 3]``.
    """
    out = frame.astype(np.float32)
    for rle, colour in ((true, _TRUE), (said, _SAID)):
        if rle is not None:
            inside = rle_masks.decode(rle).astype(bool)
            out[inside] = 0.55 * out[inside] + 0.45 * np.array(colour, np.float32)
    return out.round().astype(np.uint8)


def draw_entries(rows: Any, predictions: Sequence[Any], count: int, folder: Path, *, frames: int = 4) -> list[Path]:
    """Draw the first entries that have masks: for each one picture, some of its frames side by side.

    Args:
        rows: Benchmark rows.
        predictions: One per row.
        count: At most so many pictures.
        folder: Where, ``<entry_id>.png``.
        frames: Frames of each, evenly spread over those that have a true mask.

    Returns:
        The files. An entry whose clip cannot be read is left out with a warning.
    """
    from PIL import Image

    from evqa.video import Clip

    written: list[Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    for row, prediction in zip(rows, predictions, strict=True):
        if len(written) == count:
            break
        true = {mask["frame"]: mask["rle"] for mask in row["masks"] or []}
        if not true:
            continue
        said = {mask["frame"]: mask["rle"] for mask in prediction.masks}
        shown = sorted(true)
        shown = [shown[i] for i in np.unique(np.linspace(0, len(shown) - 1, frames).round().astype(int))]
        try:
            clip = Clip(row["video"])
            pixels = clip.frames(clip.info.timestamps[shown])
        except EvqaError as error:
            logger.warning("the masks of %s are not drawn: %s", row["entry_id"], error)
            continue
        pictures = [draw_masks(f, true.get(t), said.get(t)) for f, t in zip(pixels, shown, strict=True)]
        path = folder / f"{row['entry_id'].replace('/', '_')}.png"
        Image.fromarray(np.concatenate(pictures, axis=1)).save(path)
        written.append(path)
    return written
