"""The sample benchmark that comes with evqa: our own short clips, questions and masks, for both tasks.

Made by ``dataset_scripts/st_evidence/sample/make_sample.py``; what it holds is in ``sample/README.md`` beside this.
"""

from __future__ import annotations

import functools
import gzip
import json
from pathlib import Path
from typing import Any

from evqa.types import FrameMask

__all__ = ["annotation_files", "folder", "list_rows"]

_OWN_COLUMNS = (
    "entry_id", "video_id", "fps", "num_frames", "duration", "height", "width", "question", "candidates", "answer",
    "segments", "temporal_options", "temporal_answer", "spatial_answer",
)  # fmt: skip
_METADATA = ("question_type", "evidence")


def folder() -> Path:
    """Where the sample's files are."""
    return Path(__file__).parent / "sample"


def annotation_files() -> list[Path]:
    """The files that rows are made from."""
    return [folder() / "entries.json", folder() / "masks.json.gz"]


def list_rows() -> list[_SampleRow]:
    """One item per question."""
    return [_SampleRow(entry) for entry in json.loads((folder() / "entries.json").read_text("utf-8"))]


@functools.cache
def _masks() -> dict[str, Any]:
    with gzip.open(folder() / "masks.json.gz", "rt", encoding="utf-8") as handle:
        return json.load(handle)


class _SampleRow:
    """One question, not yet read."""

    def __init__(self, entry: dict[str, Any]):
        self.entry = entry

    def read(self) -> dict[str, Any]:
        entry = self.entry
        masks: list[FrameMask] = [
            {
                "frame": mask["frame"],
                "time": mask["frame"] / entry["fps"],
                "rle": {"size": mask["rle"]["size"], "counts": mask["rle"]["counts"].encode("ascii")},
            }
            for mask in _masks()[entry["entry_id"]]
        ]
        return {
            **{name: entry[name] for name in _OWN_COLUMNS},
            "video": {"path": str(folder() / entry["video"]), "bytes": None},
            "answer_index": entry["candidates"].index(entry["answer"]),
            "masks": masks,
            "spatial_options": [str(folder() / path) for path in entry["spatial_options"]],
            "metadata": json.dumps({name: entry[name] for name in _METADATA}),
        }
