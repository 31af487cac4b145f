"""The sample benchmark that comes with evqa: our own short clips, questions and masks, for both tasks.

Made by ``dataset_scripts/st_evidence/sample/make_sample.py``; what it holds is in ``sample/README.md`` beside this.
A folder of the same form, such as ``make_training.py`` beside that script writes, is read with ``data_dir=``.
"""

from __future__ import annotations

import functools
import gzip
import json
from pathlib import Path
from typing import Any

from evqa.corpora.tables import read_json
from evqa.errors import DataError, MissingDataError
from evqa.types import FrameMask

__all__ = ["annotation_files", "folder", "list_rows"]

_OWN_COLUMNS = (
    "entry_id", "video_id", "fps", "num_frames", "duration", "height", "width", "question", "candidates", "answer",
    "segments", "temporal_options", "temporal_answer", "spatial_answer",
)  # fmt: skip
_METADATA = ("question_type", "evidence")
_OPTIONAL_METADATA = ("rationale",)


def folder() -> Path:
    """Where the sample's files are."""
    return Path(__file__).parent / "sample"


def annotation_files(root: Path) -> list[Path]:
    """The files that rows are made from.

    Raises:
        MissingDataError: They are not in the folder.
    """
    files = [root / "entries.json", root / "masks.json.gz"]
    if missing := [file.name for file in files if not file.is_file()]:
        raise MissingDataError(f"the folder holds no {' and no '.join(missing)}", file=root)
    return files


def list_rows(root: Path) -> dict[str, list[_SampleRow]]:
    """One item per question. What comes with evqa is a test split, any other folder a training split.

    Raises:
        DataError: The list of entries cannot be read.
    """
    entries = read_json(root / "entries.json", list)
    return {"test" if root == folder() else "train": [_SampleRow(entry, root) for entry in entries]}


@functools.lru_cache(maxsize=2)
def _masks(file: Path, stamp: int) -> dict[str, Any]:
    with gzip.open(file, "rt", encoding="utf-8") as handle:
        return json.load(handle)


class _SampleRow:
    """One question, not yet read."""

    def __init__(self, entry: dict[str, Any], root: Path):
        self.entry = entry
        self.root = root

    def read(self) -> dict[str, Any]:
        entry, file = self.entry, self.root / "masks.json.gz"
        try:
            found = _masks(file, file.stat().st_mtime_ns)[entry["entry_id"]]
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise DataError(f"no masks ({error!r})", entry=entry["entry_id"], file=file) from None
        masks: list[FrameMask] = [
            {
                "frame": mask["frame"],
                "time": mask["frame"] / entry["fps"],
                "rle": {"size": mask["rle"]["size"], "counts": mask["rle"]["counts"].encode("ascii")},
            }
            for mask in found
        ]
        return {
            **{name: entry[name] for name in _OWN_COLUMNS},
            "video": {"path": str(self.root / entry["video"]), "bytes": None},
            "answer_index": entry["candidates"].index(entry["answer"]),
            "masks": masks,
            "spatial_options": [str(self.root / path) for path in entry["spatial_options"]],
            "metadata": json.dumps(
                {name: entry[name] for name in _METADATA}
                | {name: entry[name] for name in _OPTIONAL_METADATA if name in entry}
            ),
        }
