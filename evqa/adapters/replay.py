"""Predictions that somebody made elsewhere, brought into a run: our own log or the original release's result files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evqa.adapters.base import Adapter
from evqa.predictions import load_predictions
from evqa.types import Prediction

__all__ = ["Replay"]


class Replay(Adapter):
    """Reads predictions from a file.

    Args:
        model: The file or run folder; see :func:`evqa.predictions.load_predictions` for the forms.
        masks: Folder of mask PNGs that belongs to it.
        exact: Read masks as the original evaluator does.
    """

    name = "replay"
    needs_images = False
    batch_size = 16

    def __init__(self, model: str | os.PathLike, masks: str | os.PathLike | None = None, exact: bool = False):
        self._path = Path(model)
        self._masks = None if masks is None else Path(masks)
        self._exact = exact
        self._predictions = load_predictions(self._path, masks=self._masks, exact=exact)

    def settings(self) -> dict[str, Any]:
        """The file's name and content hash, so that a changed file is not taken for the same run."""
        files = sorted((self._path / "records").glob("*.jsonl")) if self._path.is_dir() else [self._path]
        digest = hashlib.sha256()
        for file in files:
            with open(file, "rb") as handle:
                for block in iter(lambda: handle.read(1 << 20), b""):
                    digest.update(block)
        return {
            "file": self._path.name,
            "sha256": digest.hexdigest(),
            "masks": None if self._masks is None else self._masks.name,
            "exact": self._exact,
        }

    def predict(self, rows: Sequence[Mapping[str, Any]], task: str) -> list[Prediction]:
        """See :meth:`Adapter.predict`."""
        return [
            self._predictions[row["entry_id"]]
            if row["entry_id"] in self._predictions
            else Prediction.failure(row["entry_id"], "missing", f"{self._path.name} holds nothing for this entry")
            for row in rows
        ]


ADAPTER = Replay
