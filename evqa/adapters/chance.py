"""The floor: what a system scores that looks at nothing.

A random letter, the whole clip as the only segment, and a centre-prior mask: an ellipse over half the width and half
the height of every frame. Where the clip's length or size is not known there is no segment or no mask. Every table
needs this row, because a benchmark's chance level is seldom where one thinks.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evqa import masks as rle_masks
from evqa.adapters.base import Adapter
from evqa.scoring.answers import LETTERS
from evqa.types import NUM_OPTIONS, Prediction, Rle

__all__ = ["Chance"]


class Chance(Adapter):
    """Guesses.

    Args:
        seed: Of the letters. Each entry draws from its own generator, so an answer does not depend on which other
            entries are run, in what order, or on how many machines.
        extent: Width and height of the centre mask as a fraction of the frame's.
    """

    name = "chance"
    needs_images = False
    batch_size = 16

    def __init__(self, seed: int = 0, extent: float = 0.5):
        self._seed = seed
        self._extent = extent

    def settings(self) -> dict[str, Any]:
        """Seed and mask extent."""
        return {"seed": self._seed, "extent": self._extent}

    def predict(self, rows: Sequence[Mapping[str, Any]], task: str) -> list[Prediction]:
        """See :meth:`Adapter.predict`."""
        return [self._guess(row, task) for row in rows]

    def _guess(self, row: Mapping[str, Any], task: str) -> Prediction:
        entry = row["entry_id"]
        dice = random.Random(f"{self._seed}:{entry}")
        answer = LETTERS[dice.randrange(max(1, len(row["candidates"])))]
        if task == "mcq":
            return Prediction(
                entry,
                answer=answer,
                temporal_choice=LETTERS[dice.randrange(NUM_OPTIONS)],
                spatial_choice=LETTERS[dice.randrange(NUM_OPTIONS)],
            )
        segments = [[0.0, row["duration"]]] if row.get("duration") else []
        masks = []
        if row.get("height") and row.get("width") and row.get("num_frames"):
            centre = centre_mask(row["height"], row["width"], self._extent)
            masks = [{"frame": t, "time": None, "rle": centre} for t in range(row["num_frames"])]
        return Prediction(entry, answer=answer, segments=segments, masks=masks)


def centre_mask(height: int, width: int, extent: float) -> Rle:
    """An ellipse in the middle of the frame, ``extent`` of its height and width."""
    y = (np.arange(height) + 0.5) / height * 2 - 1
    x = (np.arange(width) + 0.5) / width * 2 - 1
    return rle_masks.encode(np.add.outer(y**2, x**2) <= extent**2)


ADAPTER = Chance
