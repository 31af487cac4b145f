"""A folder of image files as a clip (:class:`evqa.types.FrameFolder`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from evqa.errors import VideoError
from evqa.video.info import VideoInfo, as_times

__all__ = ["folder_frames", "folder_info"]


def folder_info(request: dict[str, Any]) -> VideoInfo:
    """The size of the first image, and the folder's own times, which need not begin at 0.

    Raises:
        VideoError: No frames, times that do not increase or do not match the names, or a first image that
            cannot be read.
    """
    names, times = request["names"], as_times(request["times"])
    if not names or len(names) != len(times):
        raise VideoError(f"a folder of frames needs a time for each name: {len(names)} names, {len(times)} times")
    if times[0] < 0 or (np.diff(times) <= 0).any():
        raise VideoError("the times of a folder of frames start at 0 or later and increase")
    height, width, _ = _load(request, 0).shape
    return VideoInfo.from_times(request["name"], times, None, height=height, width=width)


def folder_frames(request: dict[str, Any], numbers: list[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Each number with its image: uint8 ``[height, width, 3]``, RGB."""
    for number in numbers:
        yield number, _load(request, number)


def _load(request: dict[str, Any], number: int) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    path = os.path.join(request["folder"], request["names"][number])
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise VideoError(f"the folder holds no {request['names'][number]!r}") from None
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise VideoError(f"the frame {request['names'][number]!r} cannot be read ({error})") from None
