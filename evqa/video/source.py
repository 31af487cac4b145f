"""What callers may pass as a clip, turned into something that a decoder can open."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from evqa.errors import VideoError

__all__ = ["anonymous_file", "local_file", "source_request"]

_FORMS = (
    "a clip is a path, bytes, the {'path', 'bytes'} of a Video(decode=False) column, "
    "or a folder of frames {'folder', 'names', 'times'}"
)


def source_request(source: Any) -> tuple[dict[str, Any], bytes | None]:
    """Check a source, without reading it.

    Returns:
        A request as in :mod:`evqa.video.reading`, and the clip's bytes where it came as bytes (the request
        then lacks ``path``).

    Raises:
        VideoError: Not a form of source, or a path that is no file.
    """
    if isinstance(source, Mapping):
        if source.get("folder") is not None:
            return _folder(source), None
        if source.get("bytes") is not None:
            return _bytes(source["bytes"], source.get("path"))
        source = source.get("path")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _bytes(source, None)
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if isinstance(path, str):
            return {"name": path, "path": _file(path)}, None
    raise VideoError(f"{_FORMS}; got {type(source).__name__}")


def _bytes(data: Any, name: str | None) -> tuple[dict[str, Any], bytes]:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise VideoError(f"{_FORMS}; got bytes of type {type(data).__name__}", file=name)
    if not len(data):
        raise VideoError("the clip is empty: it has no bytes", file=name)
    return {"name": name or "<bytes>", "transient": True}, data


def _folder(source: Mapping[str, Any]) -> dict[str, Any]:
    folder = os.path.abspath(os.fspath(source["folder"]))
    if not os.path.isdir(folder):
        raise VideoError("no such folder of frames", file=folder)
    try:
        names = [str(name) for name in source["names"]]
        times = np.asarray(source["times"], float).tolist()
    except (KeyError, TypeError, ValueError) as error:
        raise VideoError(f"{_FORMS} ({error!r})", file=folder) from None
    return {"name": folder, "folder": folder, "names": names, "times": times}


def _file(path: str) -> str:
    """An absolute path: FFmpeg would read ``name:rest`` as a protocol."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        hint = "; fetch it first, only local files are read" if "://" in path else ""
        raise VideoError(f"no such file{hint}", file=path) from None
    except (OSError, ValueError) as error:
        raise VideoError(f"the file cannot be read ({error})", file=path) from None
    if stat.S_ISDIR(found.st_mode):
        raise VideoError("this is a folder; a folder of frames is given as {'folder', 'names', 'times'}", file=path)
    if not stat.S_ISREG(found.st_mode):
        # Opening a pipe would block, and no clip can be sought in one.
        raise VideoError("this is not a regular file", file=path)
    if not found.st_size:
        raise VideoError("the file is empty", file=path)
    return os.path.abspath(path)


def anonymous_file(name: str) -> int | None:
    """The descriptor of a new file in memory without a place in a folder; ``None`` where there are none."""
    try:
        return os.memfd_create(name)
    except (AttributeError, OSError):  # Linux only, and not allowed in every container.
        return None


@contextlib.contextmanager
def local_file(data: bytes) -> Iterator[tuple[int | None, str]]:
    """Bytes as a file, so that every decoder reads them alike: its descriptor, or ``None``, and its path.

    Where the system has them it is an anonymous file in memory: nothing to clean up, whatever happens.
    """
    descriptor = anonymous_file("evqa-clip")
    if descriptor is not None:
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            yield descriptor, f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    file = tempfile.NamedTemporaryFile(prefix="evqa-clip-", delete=False)  # noqa: SIM115 - closed before use
    try:
        with file:
            file.write(data)
        yield None, file.name
    finally:
        os.unlink(file.name)
