"""Clips for UniPixel: which frames the language model sees, which SAM 2, and their pixels.

The two see different frames of one clip: the language model few, each cut into patches under a budget of pixels; SAM 2
as many as masks are wanted for. Both are read in one go.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evqa.errors import VideoError
from evqa.video.clip import Clip
from evqa.video.info import VideoInfo, as_times
from evqa.video.sampling import Policy, parse_policy

if TYPE_CHECKING:
    import torch

__all__ = ["ClipFrames", "FrameList", "Geometry", "fit", "open_clip", "patchify", "read_clip"]

#: A frame longer than this many times its width is a mistake (the limit of Qwen2-VL).
_MAX_ASPECT = 200


@dataclasses.dataclass(frozen=True, eq=False)
class ClipFrames:
    """What a model sees of one clip.

    Attributes:
        info: Size, length and times of the clip itself.
        patches: Float32 ``[grid_t * grid_h * grid_w, 3 * temporal_patch * patch * patch]``, for the language model.
        grid: ``(grid_t, grid_h, grid_w)``, patches in time, height, width.
        times: Float64 seconds of the language model's frames; the last temporal step of an odd number of frames holds
            its last frame twice.
        steps: Float64 ``[grid_t]``, seconds at which each temporal step begins.
        sam_frames: uint8 ``[frames, 3, height, width]`` for SAM 2, ``None`` if it sees nothing.
        sam_positions: int64 ``[frames]``: their numbers in the clip.
        sam_times: Float64 seconds of those.
    """

    info: VideoInfo
    patches: torch.Tensor | None
    grid: tuple[int, int, int]
    times: np.ndarray
    steps: np.ndarray
    sam_frames: torch.Tensor | None = None
    sam_positions: np.ndarray | None = None
    sam_times: np.ndarray | None = None

    @property
    def duration(self) -> float:
        """Length of the clip in seconds."""
        return self.info.duration


class FrameList:
    """Frames that were decoded before, with their times: a clip without a file.

    Args:
        frames: uint8 array ``[n, h, w, 3]``; or a sequence of RGB images of one size: PIL, paths, uint8 arrays
            ``[h, w, 3]``; or a uint8 tensor ``[n, 3, h, w]``.
        times: Seconds, strictly increasing, one per frame.
        fps: Instead of ``times``: frames evenly apart from 0 on.
        name: What errors call it.

    Raises:
        VideoError: No frames, frames of several sizes, or times that do not fit.
    """

    def __init__(
        self, frames: Any, times: Sequence[float] | None = None, *, fps: float | None = None, name: str = "<frames>"
    ):
        self._pixels = _stack(frames, name)
        count, height, width = self._pixels.shape[:3]
        if times is None:
            if fps is None and count > 1:
                raise VideoError(f"{count} frames come without their times: give times (seconds) or fps", file=name)
            if fps is not None and not (math.isfinite(fps) and fps > 0):
                raise VideoError(f"fps is a number above 0, got {fps!r}", file=name)
            times = np.arange(count) / (fps or 1.0)
        seconds = as_times(times)
        if len(seconds) != count:
            raise VideoError(f"{count} frames with {len(seconds)} times", file=name)
        if (np.diff(seconds) <= 0).any():
            raise VideoError("the times of frames are strictly increasing", file=name)
        last = None if fps is None else 1 / fps
        self.info = VideoInfo.from_times(name, seconds, last, height=height, width=width)

    def frames(self, times: Any, *, max_side: int | None = None) -> np.ndarray:
        """The frames on screen at ``times``; see :meth:`evqa.video.Clip.frames`."""
        chosen = self._pixels[self.info.positions(times)]
        longer = max(chosen.shape[1:3])
        if max_side is None or longer <= max_side:
            return chosen
        size = tuple(max(1, round(side * max_side / longer)) for side in chosen.shape[1:3])
        return _resize(_channels_first(chosen), size).permute(0, 2, 3, 1).numpy()


def open_clip(
    source: Any, *, times: Sequence[float] | None = None, fps: float | None = None, assumed_fps: float | None = None
) -> Any:
    """Anything that can be a clip, as something with ``info`` and ``frames``.

    Args:
        source: A :class:`evqa.video.Clip` or what it takes (path, bytes, folder of frames); or frames as
            :class:`FrameList` takes them; or one PIL image.
        times, fps: Of frames that come without.
        assumed_fps: Taken where frames come with neither.

    Raises:
        VideoError: None of these.
    """
    if isinstance(source, (Clip, FrameList)) or (hasattr(source, "info") and hasattr(source, "frames")):
        return source
    if isinstance(source, (str, bytes, bytearray, memoryview, os.PathLike, Mapping)):
        if times is not None or fps is not None:
            raise VideoError("times and fps are for lists of frames; a file has its own", file=str(source)[:200])
        return Clip(source)
    if hasattr(source, "convert") and hasattr(source, "size"):  # one PIL image
        source = [source]
    if times is None and fps is None and hasattr(source, "__len__") and len(source) > 1:
        fps = assumed_fps
    return FrameList(source, times, fps=fps)


def read_clip(
    clip: Any,
    *,
    frames: Policy | str,
    sam_frames: Policy | str | None,
    budget: Callable[[int], tuple[int, int]],
    geometry: Geometry,
    max_side: int | None = None,
) -> ClipFrames:
    """Read a clip for the model.

    Args:
        clip: From :func:`open_clip`.
        frames: Policy of the language model's frames.
        sam_frames: Policy of SAM 2's, ``"same"`` for the same frames, or ``None`` for none.
        budget: Number of frames -> least and most pixels of one for the language model.
        geometry: Of its patches.
        max_side: Shrink frames so that the longer side has at most this many pixels, as soon as they are decoded:
            for clips so large that their frames would not fit into memory.

    Raises:
        VideoError: The clip cannot be read.
    """
    import torch

    info = clip.info
    seen = parse_policy(frames).positions(info)
    if sam_frames is None:
        tracked = np.zeros(0, np.int64)
    else:
        tracked = seen if sam_frames == "same" else parse_policy(sam_frames).positions(info)
    wanted = np.union1d(seen, tracked)
    options = {} if max_side is None else {"max_side": max_side}
    pixels = torch.from_numpy(np.ascontiguousarray(clip.frames(info.timestamps[wanted], **options)))
    pixels = pixels.permute(0, 3, 1, 2)  # [wanted, 3, h, w] uint8
    size = fit(info.height, info.width, geometry.cell, *budget(len(seen)), name=info.path)
    chosen = pixels[torch.from_numpy(np.searchsorted(wanted, seen))]
    patches, grid = patchify(_resize(chosen, size), geometry)
    times = info.timestamps[seen]
    out = ClipFrames(info, patches, grid, times, times[:: geometry.temporal_patch])
    if sam_frames is None:
        return out
    return dataclasses.replace(
        out,
        sam_frames=pixels[torch.from_numpy(np.searchsorted(wanted, tracked))].contiguous(),
        sam_positions=tracked,
        sam_times=info.timestamps[tracked],
    )


# ---------------------------------------------------------------------------------------- patches
@dataclasses.dataclass(frozen=True)
class Geometry:
    """How frames become patches: the numbers of a ``Qwen2VLVideoProcessor``."""

    patch: int
    merge: int
    temporal_patch: int
    rescale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def cell(self) -> int:
        """Pixels along the side of what becomes one token."""
        return self.patch * self.merge

    @classmethod
    def of(cls, video_processor: Any) -> Geometry:
        """Read them off a video processor of transformers."""
        p = video_processor
        mean = tuple(p.image_mean) if p.do_normalize else (0.0, 0.0, 0.0)
        std = tuple(p.image_std) if p.do_normalize else (1.0, 1.0, 1.0)
        rescale = float(p.rescale_factor) if p.do_rescale else 1.0
        return cls(p.patch_size, p.merge_size, p.temporal_patch_size, rescale, mean, std)


def fit(height: int, width: int, cell: int, least: int, most: int, *, name: str | None = None) -> tuple[int, int]:
    """The size at which a frame is shown to the language model, as Qwen2-VL chooses it.

    Args:
        height, width: Of the clip.
        cell: Both sides become multiples of this.
        least, most: Pixels. The least wins over the multiple, the most does not cut a side below one cell.
        name: Of the clip, for the error.

    Raises:
        VideoError: A strip.
    """
    if max(height, width) > _MAX_ASPECT * min(height, width):
        raise VideoError(f"{height} x {width} pixels: the longer side is over {_MAX_ASPECT} times the other", file=name)
    h, w = round(height / cell) * cell, round(width / cell) * cell
    if h * w > most:
        shrink = math.sqrt(height * width / most)
        return tuple(max(cell, math.floor(side / shrink / cell) * cell) for side in (height, width))
    if h * w < least:
        grow = math.sqrt(least / (height * width))
        return tuple(math.ceil(side * grow / cell) * cell for side in (height, width))
    return h, w


def patchify(frames: torch.Tensor, geometry: Geometry) -> tuple[torch.Tensor, tuple[int, int, int]]:
    """Frames to patches, normalised, in the order of Qwen2-VL: cell by cell, the patches of a cell together.

    Args:
        frames: uint8 ``[n, 3, h, w]``, sides multiples of a cell. The last one is repeated up to whole temporal steps.
        geometry: Of the patches.

    Returns:
        Float32 ``[grid_t * grid_h * grid_w, 3 * temporal_patch * patch * patch]``, and the grid.
    """
    g = geometry
    if missing := -len(frames) % g.temporal_patch:
        import torch

        frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
    mean = frames.new_tensor(g.mean, dtype=_float32()).view(3, 1, 1)
    std = frames.new_tensor(g.std, dtype=_float32()).view(3, 1, 1)
    pixels = (frames.float() - mean / g.rescale) / (std / g.rescale)
    t, h, w = len(frames) // g.temporal_patch, frames.shape[2] // g.patch, frames.shape[3] // g.patch
    pixels = pixels.reshape(t, g.temporal_patch, 3, h // g.merge, g.merge, g.patch, w // g.merge, g.merge, g.patch)
    pixels = pixels.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return pixels.reshape(t * h * w, 3 * g.temporal_patch * g.patch**2), (t, h, w)


def _float32() -> Any:
    import torch

    return torch.float32


def _resize(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """uint8 ``[n, 3, h, w]`` to another size: bicubic, antialiased, as the processors of transformers do."""
    if tuple(frames.shape[-2:]) == tuple(size):
        return frames
    from torchvision.transforms.v2 import functional as tv

    return tv.resize(frames, list(size), interpolation=tv.InterpolationMode.BICUBIC, antialias=True)


# ----------------------------------------------------------------------------------------- frames
def _channels_first(pixels: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)


def _stack(frames: Any, name: str) -> np.ndarray:
    """uint8 ``[n, h, w, 3]`` of any form of decoded frames."""
    if hasattr(frames, "detach"):  # a tensor, channels first as everywhere in torch
        frames = frames.detach().cpu().numpy()
        frames = np.moveaxis(frames, 1, -1) if frames.ndim == 4 else frames
    if not isinstance(frames, np.ndarray):
        try:
            images = [_image(frame) for frame in frames]
        except (TypeError, ValueError, OSError) as error:
            raise VideoError(f"not a list of images ({error})", file=name) from None
        if len(sizes := {image.shape for image in images}) > 1:
            raise VideoError(f"frames of several sizes: {sorted(sizes)}", file=name)
        frames = np.stack(images) if images else np.zeros((0, 1, 1, 3), np.uint8)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise VideoError(f"frames are uint8 [n, height, width, 3], got {frames.dtype} {list(frames.shape)}", file=name)
    if 0 in frames.shape:
        raise VideoError(f"the clip has no frames (an array of shape {list(frames.shape)})", file=name)
    return frames


def _image(frame: Any) -> np.ndarray:
    if isinstance(frame, np.ndarray):
        return frame
    if hasattr(frame, "detach"):
        return np.moveaxis(frame.detach().cpu().numpy(), 0, -1)
    from PIL import Image

    if isinstance(frame, (str, os.PathLike)):
        with Image.open(frame) as opened:
            return np.asarray(opened.convert("RGB"))
    if isinstance(frame, Mapping):  # a row's undecoded datasets.Image
        import io

        with Image.open(io.BytesIO(frame["bytes"]) if frame.get("bytes") else frame["path"]) as opened:
            return np.asarray(opened.convert("RGB"))
    return np.asarray(frame.convert("RGB"))
