"""Probing and decoding in this process. :mod:`evqa.video.worker` does it in a process of its own.

A *request* is a JSON-ready dictionary, because it crosses a process boundary:

``{"name": str, "path": str}`` for a file, ``{"name": str, "folder": str, "names": [...], "times": [...]}``
for a folder of frames; for frames also ``"wanted"`` (seconds), ``"tolerance"``, ``"max_side"``, ``"size"`` and
``"backends"``.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np

from evqa.errors import VideoError
from evqa.video import index as indexing
from evqa.video.backends import Backend, Unfit, load
from evqa.video.folder import folder_frames, folder_info
from evqa.video.info import VideoInfo

__all__ = ["Session"]

_INDEXES = 64


class Session:
    """Reads clips; remembers the indexes of files seen lately and, if asked to, the last open decoder.

    Args:
        keep_open: Keep the last decoder open. Only for a process that never forks: decoders own threads.
    """

    def __init__(self, *, keep_open: bool = False) -> None:
        """Start with nothing remembered."""
        self._indexes: OrderedDict[tuple, indexing.Index] = OrderedDict()
        self._keep_open = keep_open
        self._last: tuple[tuple, Backend] | None = None

    def probe(self, request: dict[str, Any]) -> VideoInfo:
        """The clip's size and times.

        Raises:
            VideoError: Not a clip that can be read.
        """
        if "folder" in request:
            return folder_info(request)
        return self._index(request).info

    def read(
        self, request: dict[str, Any]
    ) -> tuple[tuple[int, int, int], list[list[int]], Iterator[tuple[int, np.ndarray]]]:
        """The frames at ``request["wanted"]``.

        Returns:
            The shape ``(height, width, 3)`` of every frame; for each distinct frame the places in the request
            that it fills; and an iterator of (number of the distinct frame, uint8 pixels), in any order.

        Raises:
            VideoError: Here and while iterating.
        """
        info = self.probe(request)
        numbers = info.positions(request["wanted"], tolerance=request.get("tolerance"))
        distinct, inverse = np.unique(numbers, return_inverse=True)
        slots: list[list[int]] = [[] for _ in distinct]
        for slot, which in enumerate(inverse.ravel().tolist()):
            slots[which].append(slot)
        height, width = target_size(info.height, info.width, request.get("max_side"), request.get("size"))
        return (height, width, 3), slots, self._frames(request, info, distinct.tolist(), (height, width))

    def _frames(
        self, request: dict[str, Any], info: VideoInfo, numbers: list[int], size: tuple[int, int]
    ) -> Iterator[tuple[int, np.ndarray]]:
        if not numbers:
            return
        which = {number: at for at, number in enumerate(numbers)}
        source = folder_frames(request, numbers) if "folder" in request else self._decoded(request, numbers)
        for number, pixels in source:
            if pixels.shape != (info.height, info.width, 3) and not request.get("size"):
                raise VideoError(
                    f"the frame at {info.timestamps[number]:g} s is {pixels.shape[0]} x {pixels.shape[1]} (height x "
                    f"width), the clip {info.height} x {info.width}; ask for one size"
                )
            yield which[number], resized(pixels, size)

    def _decoded(self, request: dict[str, Any], numbers: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Frames from the first backend that is fit; what one leaves undone, the next one does."""
        index, left, refusals = self._index(request), dict.fromkeys(numbers), []
        for name in request["backends"]:
            try:
                for number, pixels in self._backend(name, request, index).frames(list(left)):
                    yield number, pixels
                    left.pop(number, None)
            except (Unfit, ImportError) as refusal:
                refusals.append(f"{name}: {refusal}")
            else:
                if not left:
                    return
                refusals.append(f"{name}: returned too few frames")
            self._last = None
        advice = "" if len(request["backends"]) > 1 or request["backends"][0] == "pyav" else "; try backend=None"
        raise VideoError(f"the clip cannot be decoded ({'; '.join(refusals)}){advice}")

    def _index(self, request: dict[str, Any]) -> indexing.Index:
        key = _identity(request)
        if key is None:
            return indexing.build(request["path"], request["name"])
        if key not in self._indexes:
            self._indexes[key] = indexing.build(request["path"], request["name"])
        self._indexes.move_to_end(key)
        while len(self._indexes) > _INDEXES:
            self._indexes.popitem(last=False)
        return self._indexes[key]

    def _backend(self, name: str, request: dict[str, Any], index: indexing.Index) -> Backend:
        key = _identity(request)
        if self._last is not None and self._last[0] == (name, key):
            return self._last[1]
        self._last = None  # First let go of the old one: never two clips' buffers at a time.
        backend = load(name)(request["path"], index)
        if self._keep_open and key is not None:
            self._last = (name, key), backend
        return backend


def _identity(request: dict[str, Any]) -> tuple | None:
    """What tells one state of a file from another; ``None``: not a file that stays (bytes)."""
    if request.get("transient"):
        return None
    try:
        found = os.stat(request["path"])
    except OSError as error:
        raise VideoError(f"the file cannot be read ({error.strerror})") from None
    return request["path"], request["name"], found.st_ino, found.st_size, found.st_mtime_ns


def target_size(
    height: int, width: int, max_side: int | None, size: tuple[int, int] | list[int] | None
) -> tuple[int, int]:
    """Height and width of the frames to return."""
    if size:
        return int(size[0]), int(size[1])
    if max_side and max(height, width) > max_side:
        scale = max_side / max(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))
    return height, width


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The same resizing behind every decoder: bicubic, with antialiasing."""
    if pixels.shape[:2] == size:
        return np.ascontiguousarray(pixels)
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC))
