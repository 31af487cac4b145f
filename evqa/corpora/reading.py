"""Pixels and masks of a segmentation row: the one place where they are decoded.

>>> from evqa.corpora.reading import read_clip
>>> clip = read_clip(row, positions=[0, 4, 9], size=(768, 768))  # doctest: +SKIP
>>> clip.frames.shape, clip.masks.shape                          # doctest: +SKIP
((3, 768, 768, 3), (2, 3, 768, 768))

A position counts the row's frames from 0 (``FrameMask.frame``). Rows that were published carry no files: their frames
are in the corpus' ``frames`` config, which :class:`PublishedFrames` opens.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from evqa import masks as rle_masks
from evqa.errors import DataError, EvqaError, MaskError, MissingDataError

__all__ = ["ClipArrays", "PublishedFrames", "read_clip", "read_frames", "read_masks"]

Resize = Literal["pil", "torch"]


@dataclasses.dataclass(frozen=True)
class ClipArrays:
    """Some frames of a row, and the objects in them.

    Attributes:
        positions: int64 ``[frames]``.
        frames: uint8 ``[frames, height, width, 3]``, RGB.
        object_ids: Those of the row, in its order.
        masks: bool ``[objects, frames, height, width]``; ``None`` where the row has no masks.
        annotated: bool ``[objects, frames]``: whether the source says where the object is in this frame. Where it
            does not, the mask is empty and means nothing.
    """

    positions: np.ndarray
    frames: np.ndarray
    object_ids: list[str]
    masks: np.ndarray | None
    annotated: np.ndarray | None

    @property
    def union(self) -> np.ndarray | None:
        """bool ``[frames, height, width]``: all objects together."""
        return None if self.masks is None else self.masks.any(axis=0)


class PublishedFrames:
    """The frames of a published corpus, by video.

    Args:
        rows: The ``frames`` config of the corpus (:mod:`evqa.corpora.publishing`), a ``datasets.Dataset``.
    """

    def __init__(self, rows: Any):
        self._rows = rows.with_format(None)
        self._places = {video: number for number, video in enumerate(rows["video_id"])}

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._places

    def read(self, video_id: str, names: Sequence[str]) -> list[bytes]:
        """The files of some frames of a video.

        Raises:
            MissingDataError: The video, or a frame of it, was not published.
        """
        if video_id not in self._places:
            raise MissingDataError(f"the frames of the video {video_id!r} were not published")
        row = self._rows[self._places[video_id]]
        files = dict(zip(row["names"], row["images"], strict=True))
        if missing := [name for name in names if name not in files]:
            raise MissingDataError(f"frame {missing[0]} of the video {video_id!r} was not published")
        return [files[name]["bytes"] for name in names]


def read_clip(
    row: Mapping[str, Any],
    positions: Sequence[int],
    size: tuple[int, int] | None = None,
    *,
    root: str | os.PathLike | None = None,
    published: PublishedFrames | None = None,
    resize: Resize | None = None,
) -> ClipArrays:
    """Frames and masks of a row at some positions.

    Args:
        row: A :class:`evqa.types.SegmentationRow`.
        positions: In any order, repeats allowed.
        size: ``(height, width)`` to bring frames and masks to; default: the frames' own.
        root, published, resize: See :func:`read_frames`.

    Raises:
        DataError, VideoError: See :func:`read_frames` and :func:`read_masks`.
    """
    frames = read_frames(row, positions, size, root=root, published=published, resize=resize)
    masks, annotated = read_masks(row, positions, (frames.shape[1], frames.shape[2]))
    return ClipArrays(
        np.asarray(positions, dtype=np.int64), frames, [item["object_id"] for item in row["objects"] or []],
        masks, annotated,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------ frames
def read_frames(
    row: Mapping[str, Any],
    positions: Sequence[int],
    size: tuple[int, int] | None = None,
    *,
    root: str | os.PathLike | None = None,
    published: PublishedFrames | None = None,
    resize: Resize | None = None,
) -> np.ndarray:
    """Frames of a row.

    Args:
        row: A :class:`evqa.types.SegmentationRow`.
        positions: In any order, repeats allowed.
        size: ``(height, width)`` to resize to, bicubic with antialiasing; default: the frames' own.
        root: The data's folder, for published rows whose ``frames.folder`` starts from there.
        published: The frames of published rows.
        resize: What resizes: ``"torch"`` is five times as fast as ``"pil"`` and may differ by a few grey levels.
            Default: torch, where it is installed.

    Returns:
        uint8 ``[positions, height, width, 3]``, RGB; its memory may be laid out otherwise (channels first), as decoders
        leave it.

    Raises:
        DataError: A position outside of the row, an unreadable frame, frames that differ in size without ``size``.
        MissingDataError: The row came without frames, or a frame is gone.
        VideoError: The row's frames are in a video that cannot be decoded.
    """
    entry = row["entry_id"]
    numbers = [int(position) for position in positions]
    if not numbers:
        raise DataError("no positions are asked for", entry=entry)
    if wrong := [number for number in numbers if not 0 <= number < row["num_frames"]]:
        raise DataError(f"there is no frame {wrong[0]} among the row's {row['num_frames']}", entry=entry)
    if row["frame_numbers"] is not None:
        return _of_video(row, numbers, size)
    if resize not in (None, *get_args(Resize)):
        raise ValueError(f"resize must be one of {', '.join(get_args(Resize))}, not {resize!r}")
    resize = resize or ("torch" if _has_torch() else "pil")
    distinct = sorted(set(numbers))
    pixels = []
    for name, data in _files(row, distinct, root, published):
        try:
            pixels.append(_decode(data, size, resize))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            problem = f"the frame is not a readable image ({_first_line(error)})"
            raise DataError(problem, entry=entry, file=name) from None
    sizes = sorted({one.shape[:2] for one in pixels})
    if size is None and len(sizes) > 1:
        raise DataError(f"the frames differ in size: {sizes}; pass size=", entry=entry)
    if size is None or sizes == [tuple(size)]:
        frames = np.stack(pixels)
    elif len(sizes) == 1:  # at once: half the copies
        frames = _resized(np.stack(pixels), size)
    else:
        frames = np.concatenate([_resized(np.array(one)[None], size) for one in pixels])
    places = [distinct.index(number) for number in numbers]
    return frames if places == list(range(len(distinct))) else frames[places]


def _files(
    row: Mapping[str, Any],
    numbers: Sequence[int],
    root: str | os.PathLike | None,
    published: PublishedFrames | None,
) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each frame."""
    frames = row["frames"]
    names = [frames["names"][number] for number in numbers]
    if published is not None and row["video_id"] in published:
        yield from zip(names, published.read(row["video_id"], names), strict=True)
        return
    if frames["folder"] is None:
        raise MissingDataError("the row came without frames", entry=row["entry_id"])
    folder = os.path.join(os.fspath(root or ""), frames["folder"])
    if not os.path.isabs(folder) and root is None:
        raise MissingDataError(
            "the row was published without frames: pass root=, the folder of the data, or published=",
            entry=row["entry_id"], file=frames["folder"],
        )  # fmt: skip
    for name in names:
        path = os.path.join(folder, name)
        try:
            with open(path, "rb") as handle:
                data = handle.read()
        except OSError as error:
            raise MissingDataError(
                f"the frame cannot be read ({error.strerror})", entry=row["entry_id"], file=path
            ) from None
        yield path, data


def _of_video(row: Mapping[str, Any], numbers: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
    if row["video"] is None:
        raise MissingDataError("the row came without its video", entry=row["entry_id"])
    from evqa.video import read_frames as read_video_frames

    wanted = [row["frame_numbers"][number] for number in numbers]
    try:
        times = _timestamps(row["video"])
        if max(wanted) >= len(times):
            raise DataError(
                f"the row needs frame {max(wanted)} of a video of {len(times)} frames", file=row["video"]["path"]
            )
        return read_video_frames(row["video"], times[wanted], size=size)
    except EvqaError as error:
        error.entry = error.entry or row["entry_id"]
        raise


def _timestamps(video: Mapping[str, Any]) -> np.ndarray:
    from evqa.video import probe

    return probe(video).timestamps


@functools.cache
def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def _decode(data: bytes, size: tuple[int, int] | None, resize: Resize) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        if size is not None:
            # Decodes at half the size, where that is still twice as large as asked for: the difference is not seen.
            image.draft("RGB", (2 * size[1], 2 * size[0]))
        pixels = image.convert("RGB")
    if resize == "pil" and size is not None and pixels.size != (size[1], size[0]):
        pixels = pixels.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(pixels)


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``[frames, h, w, 3]`` of another size, by torch."""
    import torch

    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2)  # [frames, 3, h, w]
    resized = torch.nn.functional.interpolate(planes, size=tuple(size), mode="bicubic", antialias=True)
    return resized.permute(0, 2, 3, 1).numpy()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


# ------------------------------------------------------------------------------------------- masks
def read_masks(
    row: Mapping[str, Any], positions: Sequence[int], size: tuple[int, int] | None = None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Masks of every object of a row.

    Args:
        row: A :class:`evqa.types.SegmentationRow`.
        positions: In any order, repeats allowed.
        size: ``(height, width)`` to bring the masks to, by the nearest pixel; default: the row's.

    Returns:
        ``masks``, bool ``[objects, positions, height, width]``, and ``annotated``, bool ``[objects, positions]``, as in
        :class:`ClipArrays`; ``(None, None)`` where the split or one of the objects has no published masks.

    Raises:
        MaskError: A malformed mask.
        DataError: Neither ``size`` nor the row says how large masks are.
    """
    objects = row["objects"]
    if objects is None or any(item["masks"] is None for item in objects):
        return None, None
    size = size or (row["height"] and (row["height"], row["width"]))
    if not size:
        raise DataError("the row does not say how large it is: pass size=", entry=row["entry_id"])
    height, width = size
    numbers = [int(position) for position in positions]
    # [objects, positions, width, height]: run lengths go down the columns
    masks = np.zeros((len(objects), len(numbers), width, height), dtype=bool)
    annotated = np.zeros(masks.shape[:2], dtype=bool)
    for one, item in enumerate(objects):
        by_frame = {mask["frame"]: mask["rle"] for mask in item["masks"]}
        for at, number in enumerate(numbers):
            if (rle := by_frame.get(number)) is not None:
                annotated[one, at] = True
                try:
                    _draw(rle, masks[one, at])
                except MaskError as error:
                    raise MaskError(error.message, entry=row["entry_id"]) from None
    return masks.swapaxes(2, 3), annotated


def _draw(rle: Mapping[str, Any], target: np.ndarray) -> None:
    """Decode into ``[width, height]``, by the nearest pixel, as :func:`evqa.masks.resize` samples."""
    height, width = rle["size"]
    runs = rle_masks.counts_to_runs(rle["counts"], height * width)
    if (width, height) != target.shape:
        runs = rle_masks.resize_runs(runs, (height, width), target.shape[::-1])
    target[...] = np.repeat(np.arange(runs.size) % 2 == 1, runs).reshape(target.shape)
