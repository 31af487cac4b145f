"""Checkpoints that are whole or do not count.

A folder ``checkpoint-<step>`` is written file by file. When all of them are on the disk, ``complete.json`` is written
last, with the size of every file. A folder without it, or with a file of another size, is a save that was killed or
found the disk full: it is never resumed from, and never makes room by deleting a whole one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

from evqa.errors import SetupError

__all__ = ["MANIFEST", "checkpoint_to_resume", "is_complete", "last_checkpoint", "rotate", "seal", "set_aside"]

MANIFEST = "complete.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def seal(folder: str | os.PathLike[str]) -> None:
    """Declare a checkpoint complete: every file is flushed to the disk, then the manifest appears at once."""
    folder = Path(folder)
    sizes = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            sizes[path.relative_to(folder).as_posix()] = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
    partial = folder / f".{MANIFEST}.partial"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump({"files": sizes}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / MANIFEST)


def is_complete(folder: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint was sealed and every file still has its size."""
    folder = Path(folder)
    try:
        sizes = json.loads((folder / MANIFEST).read_text("utf-8"))["files"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _checkpoints(folder: str | os.PathLike[str]) -> list[tuple[int, Path]]:
    folder = Path(folder)
    if not folder.is_dir():
        return []
    found = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir())
    return sorted((int(match[1]), path) for match, path in found if match)


def last_checkpoint(output_dir: str | os.PathLike[str]) -> Path | None:
    """The complete checkpoint of the latest step; ``None`` if there is none."""
    return next((path for _, path in reversed(_checkpoints(output_dir)) if is_complete(path)), None)


def checkpoint_to_resume(mode: str, output_dir: str | os.PathLike[str]) -> Path | None:
    """What a run starts from.

    Args:
        mode: ``"auto"``: the last complete checkpoint in ``output_dir``, or the beginning if there is none.
            ``"scratch"``: the beginning; checkpoints that are there are to be put aside (:func:`set_aside`).
            Anything else: this folder, which must be a complete checkpoint.
        output_dir: Of the run.

    Raises:
        SetupError: The folder is not a complete checkpoint.
    """
    if mode == "scratch":
        return None
    if mode == "auto":
        return last_checkpoint(output_dir)
    folder = Path(mode)
    if not is_complete(folder):
        raise SetupError(
            f"{folder} is no complete checkpoint"
            if folder.is_dir()
            else f"there is no checkpoint {folder}; 'auto' and 'scratch' are the other ways to start"
        )
    return folder


def set_aside(output_dir: str | os.PathLike[str]) -> Path | None:
    """Move the checkpoints of an earlier run into a folder beside them, so that none is taken for this run's."""
    found = _checkpoints(output_dir)
    if not found:
        return None
    place = Path(output_dir) / time.strftime("before-%Y%m%d-%H%M%S")
    number = 0
    while place.exists():
        number += 1
        place = place.with_name(f"{place.name.split('.')[0]}.{number}")
    place.mkdir()
    for _, path in found:
        os.replace(path, place / path.name)
    return place


def rotate(output_dir: str | os.PathLike[str], keep: int | None) -> None:
    """Delete all but the last ``keep`` complete checkpoints, and every incomplete one older than the last complete."""
    if not keep or keep < 1:
        return
    found = _checkpoints(output_dir)
    whole = [path for _, path in found if is_complete(path)]
    latest = max((step for step, path in found if path in whole), default=-1)
    for step, path in found:
        if (path in whole and path not in whole[-keep:]) or (path not in whole and step < latest):
            # The manifest goes first: a deletion that is interrupted must not leave something that looks whole.
            (path / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(path)
