"""Checkpoints that are whole or not there.

What is promised: a folder named ``checkpoint-N`` was written completely. It is written under another name, its files
are flushed to disk, a manifest with the size of each is added, and then it is renamed. A process that is killed, or a
disk that is full, leaves a folder ``.checkpoint-N.incomplete``, which is never resumed from and is removed when the
next one is written. The manifest catches what a rename cannot: a folder that was copied in part, or truncated later.

The file system of ``output_dir`` must rename folders atomically (every local one does, and so does NFS).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evqa.errors import DataError, MissingDataError, TrainingError

__all__ = [
    "MANIFEST",
    "check_checkpoint",
    "commit_checkpoint",
    "discard_incomplete",
    "find_checkpoint",
    "list_checkpoints",
    "only_run",
    "resolve_resume",
    "staging_folder",
]

logger = logging.getLogger(__name__)

#: The last file that is written.
MANIFEST = "evqa_checkpoint.json"
_NAME = re.compile(r"checkpoint-(\d+)")
_INCOMPLETE = re.compile(r"\.checkpoint-\d+\.incomplete")


def staging_folder(output_dir: str | os.PathLike[str], step: int) -> Path:
    """Where the checkpoint of a step is written before it is complete."""
    return Path(output_dir) / f".checkpoint-{step}.incomplete"


def commit_checkpoint(staging: Path, final: Path, facts: dict[str, Any]) -> None:
    """Make a written folder a checkpoint: flush it, add the manifest, rename it.

    Args:
        staging: The folder, complete but for its manifest.
        final: Its name from now on. A checkpoint of this name is replaced.
        facts: Kept in the manifest.

    Raises:
        OSError: The disk refuses; nothing of this name is there then.
    """
    files = {}
    for path in _files(staging):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        files[path.relative_to(staging).as_posix()] = path.stat().st_size
    manifest = staging / MANIFEST
    with open(manifest, "w", encoding="utf-8") as file:
        json.dump({**facts, "files": files}, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    for folder in sorted({path.parent for path in _files(staging)}):
        _fsync_folder(folder)
    if final.exists():
        shutil.rmtree(final)
    os.rename(staging, final)
    _fsync_folder(final.parent)


def check_checkpoint(folder: str | os.PathLike[str]) -> str | None:
    """Why a folder cannot be resumed from; ``None``: it can."""
    folder = Path(folder)
    if not folder.is_dir():
        return "it is not there"
    try:
        files = json.loads((folder / MANIFEST).read_text("utf-8"))["files"]
    except FileNotFoundError:
        return f"it has no {MANIFEST}, which is written last"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its {MANIFEST} cannot be read ({error})"
    for name, size in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is not there"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, {size} were written"
    return None


def list_checkpoints(output_dir: str | os.PathLike[str]) -> list[tuple[int, Path]]:
    """Folders named as checkpoints, whole or not: ``(step, folder)``, the oldest first."""
    folder = Path(output_dir)
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted((step, path) for step, path in found if path.is_dir())


def find_checkpoint(output_dir: str | os.PathLike[str]) -> Path | None:
    """The newest checkpoint that is whole, ``None`` if there is none. Others are named in a warning."""
    for _, path in reversed(list_checkpoints(output_dir)):
        problem = check_checkpoint(path)
        if problem is None:
            return path
        logger.warning("not resuming from %s: %s", path, problem)
    return None


def resolve_resume(resume: str | bool | None, output_dir: str | os.PathLike[str]) -> Path | None:
    """What the user's word for resuming means.

    Args:
        resume: ``"auto"``, ``True`` or ``None``: the newest whole checkpoint of ``output_dir``, or from the start if
            there is none. ``"never"`` or ``False``: from the start; ``output_dir`` must hold no checkpoints, so that
            old and new ones cannot mix. Anything else: this very checkpoint.
        output_dir: Of the run.

    Raises:
        MissingDataError: The checkpoint asked for is not there or not whole.
        DataError: From the start into a folder with checkpoints.
    """
    if resume in ("auto", "true", "True", True, None):
        return find_checkpoint(output_dir)
    if resume in ("never", "false", "False", False):
        if checkpoints := list_checkpoints(output_dir):
            raise DataError(
                f"a run from the start was asked for, but output_dir holds {len(checkpoints)} checkpoints "
                f"({checkpoints[-1][1].name} is the newest): remove them, or give another output_dir",
                file=output_dir,
            )
        return None
    problem = check_checkpoint(resume)
    if problem is not None:
        raise MissingDataError(f"cannot resume from this checkpoint: {problem}", file=resume)
    return Path(resume)


@contextlib.contextmanager
def only_run(output_dir: str | os.PathLike[str], *, wanted: bool = True) -> Iterator[None]:
    """Hold the folder of a run: two runs would take each other's unfinished checkpoints away.

    The operating system lets go of it when the process ends, however it ends.

    Args:
        output_dir: Made if need be.
        wanted: ``False``: do nothing (another rank holds it).

    Raises:
        TrainingError: Another process holds it.
    """
    if not wanted:
        yield
        return
    from filelock import FileLock, Timeout

    Path(output_dir).mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(output_dir) / ".run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise TrainingError("another process is training into this folder", file=output_dir) from None
    try:
        yield
    finally:
        lock.release()


def discard_incomplete(output_dir: str | os.PathLike[str]) -> None:
    """Remove what interrupted saves left behind."""
    folder = Path(output_dir)
    if folder.is_dir():
        for path in folder.iterdir():
            if _INCOMPLETE.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _fsync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # a platform that does not open folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        logger.debug("%s cannot be flushed: %s", folder, error)
    finally:
        os.close(descriptor)
