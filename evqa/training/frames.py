"""Which frames of a row a model is shown, their pixels, and the masks that go with them.

A row numbers its frames from 0 (:class:`evqa.types.SegmentationRow`); a choice is a sorted list of such numbers.
Seconds come along wherever the source has a clock, so that a model can be told when each frame is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evqa import masks as rle_masks
from evqa.corpora.reading import PublishedFrames, read_frames
from evqa.errors import DataError, MissingDataError, VideoError
from evqa.types import Rle

__all__ = ["FrameSampling", "candidates", "generator", "object_masks", "read_pixels"]


def generator(*what: Any) -> np.random.Generator:
    """Random numbers that depend on the arguments' text alone: the same in every process, order and version of numpy.

    PCG64 seeded by SHA-256; only ``random()`` and functions of it should be drawn, whose stream numpy keeps.
    """
    digest = hashlib.sha256(json.dumps([str(item) for item in what]).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


@dataclasses.dataclass(frozen=True)
class FrameSampling:
    """How many frames are shown, and which.

    Attributes:
        count: How many; a pair ``(least, most)`` draws the number anew for every sample. A clip with fewer gives all.
        policy: ``"random"``: one at random out of each of ``count`` near-equal parts of the clip. ``"uniform"``: evenly
            spread, the first and the last included.
        max_side: Shrink frames so that their longer side has at most so many pixels; ``None``: as they are.
        tracked: SAM 2 sees so many of them, one at random out of each of as many parts; ``None``: all.
        assumed_fps: Rate of the row's frames where the source has no clock.

    Raises:
        ValueError: Settings that are none.
    """

    count: int | tuple[int, int] = 8
    policy: str = "random"
    max_side: int | None = None
    tracked: int | None = None
    assumed_fps: float = 6.0

    def __post_init__(self) -> None:
        """Check the settings."""
        least, most = self.bounds if isinstance(self.count, (tuple, list)) or _whole(self.count) else (0, 0)
        if not (_whole(least) and _whole(most) and 1 <= least <= most):
            raise ValueError(f"count is a number of frames, at least 1, or (least, most); got {self.count!r}")
        if self.policy not in ("random", "uniform"):
            raise ValueError(f"policy is 'random' or 'uniform', not {self.policy!r}")
        for name in ("max_side", "tracked"):
            value = getattr(self, name)
            if value is not None and not (_whole(value) and value >= 1):
                raise ValueError(f"{name} is a whole number, at least 1, or none; got {value!r}")
        if not self.assumed_fps > 0:
            raise ValueError(f"assumed_fps is a number above 0, got {self.assumed_fps!r}")

    @property
    def bounds(self) -> tuple[int, int]:
        """Least and most frames."""
        return (self.count, self.count) if _whole(self.count) else tuple(self.count)  # type: ignore[return-value]

    def choose(self, frames: Sequence[int], rng: np.random.Generator) -> list[int]:
        """A choice out of frames that may be shown, in their order.

        Args:
            frames: Sorted numbers, at least one.
            rng: Drawn from once for a varying count and once per frame for ``"random"``.
        """
        least, most = self.bounds
        wanted = least if least == most else least + int(rng.random() * (most - least + 1))
        total = len(frames)
        if total <= wanted:
            return list(frames)
        if self.policy == "uniform":
            if wanted == 1:
                return [frames[(total - 1) // 2]]
            return [frames[i] for i in np.linspace(0, total - 1, wanted).round().astype(int)]
        return [frames[i] for i in _one_of_each_part(total, wanted, rng)]

    def track(self, shown: int, rng: np.random.Generator) -> list[int]:
        """Which of the frames shown SAM 2 sees: their places among them, sorted."""
        if self.tracked is None or self.tracked >= shown:
            return list(range(shown))
        return _one_of_each_part(shown, self.tracked, rng)


def _one_of_each_part(total: int, parts: int, rng: np.random.Generator) -> list[int]:
    edges = np.arange(parts + 1) * total // parts
    return (edges[:-1] + (rng.random(parts) * np.diff(edges)).astype(int)).tolist()


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# ------------------------------------------------------------------------------------- which frames
def candidates(row: Mapping[str, Any], targets: Sequence[Sequence[int]]) -> list[int]:
    """The frames of a row that may be shown.

    For expressions only those in which every object of the targets was annotated: where nobody looked, a model must
    not learn that there is nothing. Evidence is annotated wherever it can be seen, so there every frame counts.

    Raises:
        DataError: There are none.
    """
    total = row.get("num_frames")
    if total is None:
        total = _clip(row["video"], True).info.num_frames if row.get("video") else 0
    if "expression" in row:
        found = set(range(total))
        for place in {place for target in targets for place in target}:
            found &= {mask["frame"] for mask in row["objects"][place]["masks"]}
        if not found:
            raise DataError("no frame in which every object of the expression is annotated")
        return sorted(found)
    if not total:
        raise DataError("the clip has no frames")
    return list(range(total))


# ------------------------------------------------------------------------------------------- pixels
def read_pixels(
    row: Mapping[str, Any],
    chosen: Sequence[int],
    *,
    max_side: int | None = None,
    isolate: bool = True,
    published: PublishedFrames | None = None,
) -> tuple[np.ndarray, list[float] | None]:
    """Frames of a row.

    Args:
        row: With ``frames`` (files), ``video``, or ``pixels``: the path of a ``.npy`` file of all its frames, uint8
            ``[frames, height, width, 3]``, ``fps`` a second.
        chosen: Numbers of the row's frames, sorted.
        max_side: As in :class:`FrameSampling`.
        isolate: Decode clips in a child process (:mod:`evqa.video.isolation`).
        published: Where the frames of published rows are.

    Returns:
        uint8 ``[frames, height, width, 3]``, RGB, and the seconds of each; ``None`` where the source has no clock.

    Raises:
        MissingDataError: The frames are not at hand.
        DataError, VideoError: They cannot be read, or differ in size.
    """
    if row.get("pixels"):
        return _from_array(row["pixels"], row["fps"], chosen)
    folder = row.get("frames")
    if folder and folder.get("names"):
        return _from_folder(row, folder, chosen, max_side, published)
    video = row.get("video")
    if not video or (video.get("path") is None and video.get("bytes") is None):
        name = row.get("video_name")
        raise MissingDataError(f"neither frames nor the clip{f' {name}' if name else ''} are at hand")
    clip = _clip(video, isolate)
    numbers = row.get("frame_numbers")
    wanted = [numbers[i] for i in chosen] if numbers else list(chosen)
    times = clip.info.timestamps
    if wanted[-1] >= len(times):
        raise VideoError(f"frame {wanted[-1]} of a clip of {len(times)} frames", file=video.get("path"))
    times = times[wanted]
    return clip.frames(times, max_side=max_side), [float(t) for t in times]


def _clip(video: Mapping[str, Any], isolate: bool) -> Any:
    from evqa.video import Clip

    return Clip(dict(video), isolate=isolate)


def _from_array(path: str, fps: float, chosen: Sequence[int]) -> tuple[np.ndarray, list[float]]:
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        return np.ascontiguousarray(pixels[list(chosen)]), [number / fps for number in chosen]
    except (OSError, ValueError, IndexError) as error:
        raise VideoError(f"the frames cannot be read ({error})", file=path) from None


def _from_folder(
    row: Mapping[str, Any],
    folder: Mapping[str, Any],
    chosen: Sequence[int],
    max_side: int | None,
    published: PublishedFrames | None,
) -> tuple[np.ndarray, list[float] | None]:
    if published is not None and row["video_id"] not in published:
        published = None
    if published is None and not folder.get("folder"):
        raise MissingDataError("the row's frames are not at hand")
    size = None
    if max_side is not None:
        height, width = row.get("height"), row.get("width")
        if (not height or not width) and published is None:
            height, width = read_image(os.path.join(folder["folder"], folder["names"][chosen[0]])).shape[:2]
        if height and width and max(height, width) > max_side:
            size = tuple(max(1, round(side * max_side / max(height, width))) for side in (height, width))
    plain = {**row, "frame_numbers": None, "num_frames": len(folder["names"])}
    times = folder.get("times") or []
    known = [times[i] for i in chosen] if times else []
    pixels = read_frames(plain, chosen, size, published=published)
    return pixels, known if known and all(t is not None for t in known) else None


def read_image(source: Any, max_side: int | None = None) -> np.ndarray:
    """An image as uint8 ``[height, width, 3]``, RGB.

    Args:
        source: A path, or the ``{"path", "bytes"}`` of an ``Image(decode=False)`` column.
        max_side: As in :class:`FrameSampling`.

    Raises:
        MissingDataError: There is no such file.
        VideoError: It is not a readable image.
    """
    import io

    from PIL import Image, UnidentifiedImageError

    path = source
    if isinstance(source, Mapping):
        path = io.BytesIO(source["bytes"]) if source.get("bytes") is not None else source.get("path")
    named = source.get("path") if isinstance(source, Mapping) else source
    try:
        with Image.open(path) as image:
            if max_side is not None and max(image.size) > max_side:
                image.draft("RGB", (max_side, max_side))  # a JPEG is decoded at a fraction of its size
            image = image.convert("RGB")
            if max_side is not None and max(image.size) > max_side:
                scale = max_side / max(image.size)
                size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
                image = image.resize(size, Image.Resampling.BICUBIC)
            return np.asarray(image)
    except FileNotFoundError:
        raise MissingDataError("there is no such image", file=named) from None
    except (
        OSError,
        ValueError,
        SyntaxError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
        AttributeError,
    ) as e:
        raise VideoError(f"the image cannot be read ({e})", file=named) from None


# -------------------------------------------------------------------------------------------- masks
def object_masks(
    row: Mapping[str, Any], targets: Sequence[Sequence[int]], chosen: Sequence[int]
) -> list[list[Rle | None]]:
    """The true mask of each target in each frame.

    Args:
        row: Of any record with masks.
        targets: As in :class:`evqa.training.conversations.Conversation`.
        chosen: Numbers of the row's frames.

    Returns:
        ``[targets][frames]``; ``None``: nothing of it is in the frame.

    Raises:
        MaskError: A mask is malformed, or masks that are united differ in size.
    """
    out = []
    for target in targets:
        sources = [row["objects"][place]["masks"] for place in target] if target else [row["masks"]]
        by_frame: dict[int, list[Rle]] = {}
        for masks in sources:
            for mask in masks:
                by_frame.setdefault(mask["frame"], []).append(mask["rle"])
        out.append([rle_masks.union(by_frame.get(frame, ())) for frame in chosen])
    return out
