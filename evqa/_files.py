"""Small file operations that have to be right: whole-or-nothing writes, and paths that stay where they belong."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from evqa.errors import DataError

__all__ = ["LOCK", "child", "cleared", "fsync_folder", "write_atomic", "write_json"]

#: The name of the lock in a folder that :func:`cleared` guards.
LOCK = ".lock"


def write_atomic(path: str | os.PathLike, data: bytes | str) -> None:
    """Write a file so that a reader, or a restart after a crash, sees the old content or the new, never a part.

    The data goes to a temporary file in the same folder, reaches the disk, and is renamed over ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data.encode("utf-8") if isinstance(data, str) else data)
            out.flush()
            os.fsync(out.fileno())
        # mkstemp makes the file private to its owner; a result file is as public as any other file.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    fsync_folder(path.parent)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write readable JSON atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def fsync_folder(folder: str | os.PathLike) -> None:
    """Make a rename or a new file in a folder durable, where the system allows it."""
    with contextlib.suppress(OSError):  # folders cannot be opened on Windows
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def child(folder: str | os.PathLike, *parts: str, entry: str | None = None) -> Path:
    """``folder / parts``, refused if it would lie outside ``folder``.

    Raises:
        DataError: An absolute part or too many ``..``; ids come from files that we do not control.
    """
    base = Path(os.path.abspath(folder))
    path = Path(os.path.abspath(base.joinpath(*parts)))
    if path == base or base not in path.parents:
        raise DataError(f"the path {os.path.join(*parts)!r} leaves its folder", entry=entry, file=folder)
    return path


@contextlib.contextmanager
def cleared(folder: str | os.PathLike, ours: Collection[str], last: str) -> Iterator[Path]:
    """A folder for a page: empty, and ours alone while the context lasts.

    Args:
        folder: Made if need be. What a page of ours left in it is removed.
        ours: Names that we write; with anything else in it the folder is refused and nothing is touched.
        last: Of these, the name whose presence says that the page is whole; it is removed first.

    Raises:
        DataError: The folder holds something else, or another process is writing it.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # A kill can leave what write_atomic had not renamed yet.
    torn = tuple(f".{name}." for name in ours)
    known = {*ours, LOCK}
    if strangers := [name for name in os.listdir(folder) if name not in known and not name.startswith(torn)]:
        raise DataError(f"the folder holds something that is not ours ({sorted(strangers)[0]!r})", file=folder)
    try:
        with FileLock(folder / LOCK, timeout=0):
            for name in sorted(set(os.listdir(folder)) - {LOCK}, key=lambda name: name != last):
                path = folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            yield folder
    except Timeout:
        raise DataError("another process is writing this folder", file=folder) from None
    with contextlib.suppress(OSError):
        os.unlink(folder / LOCK)
