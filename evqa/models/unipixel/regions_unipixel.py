"""Points, boxes and masks on a clip, as the model takes them.

All come in pixels and seconds of the clip itself. A mask is a list of :class:`evqa.types.FrameMask`; the frame that it
belongs to is found by its ``time``, or, where that is ``None``, by its ``frame``. A frame without a mask shows nothing
of the object.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evqa import masks as rle_masks
from evqa.errors import DataError, MaskError, VideoError
from evqa.models.unipixel.media_unipixel import ClipFrames
from evqa.types import FrameMask

if TYPE_CHECKING:
    import torch

__all__ = ["Memory", "label_masks", "memory", "points", "union"]


def _by_position(masks: Sequence[FrameMask], clip: ClipFrames, what: str) -> dict[int, np.ndarray]:
    """Decoded masks by frame number; several of one frame are united."""
    info, out = clip.info, {}
    for mask in masks:
        if mask["rle"] is None:
            continue
        size = tuple(mask["rle"]["size"])
        if size != (info.height, info.width):
            raise MaskError(
                f"{what}: a mask of {size[0]} x {size[1]} pixels on a clip of {info.height} x {info.width}",
                file=info.path,
            )
        try:
            time = mask.get("time")
            position = int(mask["frame"]) if time is None else int(info.positions([time])[0])
        except VideoError as error:
            raise MaskError(f"{what}: {error.message}", file=info.path) from None
        if not 0 <= position < info.num_frames:
            raise MaskError(f"{what}: a mask in frame {position} of a clip of {info.num_frames}", file=info.path)
        pixels = rle_masks.decode(mask["rle"])
        out[position] = out[position] | pixels if position in out else pixels
    return out


def label_masks(objects: Sequence[Sequence[FrameMask]], clip: ClipFrames, size: int, threshold: float) -> torch.Tensor:
    """The true masks of objects in the frames that SAM 2 sees.

    Args:
        objects: Masks of each object.
        clip: The clip, read with frames for SAM 2.
        size: Side of SAM 2's square.
        threshold: A pixel of the square belongs to the object when more than this part of it is covered.

    Returns:
        Bool ``[frames, objects, size, size]``.

    Raises:
        MaskError: A mask of another size than the clip, or outside of it.
    """
    import torch
    from torch.nn import functional as F

    out = torch.zeros(len(clip.sam_positions), len(objects), size, size, dtype=torch.bool)
    places = {int(position): t for t, position in enumerate(clip.sam_positions)}
    for k, masks in enumerate(objects):
        found = _by_position(masks, clip, f"object {k}")
        seen = [position for position in found if position in places]
        if not seen:
            continue
        stack = torch.from_numpy(np.stack([found[position] for position in seen])).float()[:, None]
        small = F.interpolate(stack, (size, size), mode="bilinear", align_corners=False, antialias=True)[:, 0]
        out[[places[position] for position in seen], k] = small > threshold
    return out


def points(
    prompts: Sequence[Mapping[str, Any]], clip: ClipFrames, size: int
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[int]]:
    """Points and boxes.

    Args:
        prompts: Each ``{"point": [x, y], "time": s}`` or ``{"box": [x1, y1, x2, y2], "time": s}``, pixels and seconds
            of the clip. Without a time: the first frame.
        clip: The clip.
        size: Side of SAM 2's square.

    Returns:
        Per prompt: coordinates ``[1, n, 2]`` in pixels of the square; labels ``[1, n]`` (1 a point, 2 and 3 the corners
        of a box); the number of the language model's frame that is nearest in time.

    Raises:
        DataError: Not such a prompt, or outside of the frame or the clip.
    """
    import torch

    info, coords, labels, frames = clip.info, [], [], []
    for k, prompt in enumerate(prompts):
        kinds = [kind for kind in ("point", "box") if prompt.get(kind) is not None]
        if len(kinds) != 1:
            raise DataError(f"prompt {k} is one point [x, y] or one box [x1, y1, x2, y2], got {dict(prompt)!r}")
        length = 2 if kinds[0] == "point" else 4
        where = np.asarray(prompt[kinds[0]], float)
        if where.shape != (length,) or not np.isfinite(where).all():
            raise DataError(f"prompt {k}: a {kinds[0]} is {length} numbers, got {prompt[kinds[0]]!r}")
        xy = where.reshape(-1, 2)
        if (xy < 0).any() or (xy > [info.width, info.height]).any():
            raise DataError(
                f"prompt {k}: {where.tolist()} lies outside the frame of {info.width} x {info.height} pixels",
                file=info.path,
            )
        if length == 4 and (xy[0] > xy[1]).any():
            raise DataError(f"prompt {k}: the first corner of a box is the upper left one, got {where.tolist()}")
        time = float(clip.times[0] if prompt.get("time") is None else prompt["time"])
        if not info.timestamps[0] <= time <= info.duration:
            raise DataError(f"prompt {k}: {time:g} s in a clip of {info.duration:g} s", file=info.path)
        scaled = xy * [size / info.width, size / info.height]
        coords.append(torch.tensor(scaled, dtype=torch.float32)[None])
        labels.append(torch.tensor([[1]] if length == 2 else [[2, 3]]))
        frames.append(int(np.abs(clip.times - time).argmin()))
    return coords, labels, frames


@dataclasses.dataclass(frozen=True)
class Memory:
    """Objects that a question is about.

    Attributes:
        mask: Bool ``[grid_t, objects, grid_h / merge, grid_w / merge]``.
        texts: Per object the numbers of the frames (from 1) of each temporal step that shows it, with ``<|mem|>``.
    """

    mask: torch.Tensor
    texts: list[str]


def memory(objects: Sequence[Sequence[FrameMask]], clip: ClipFrames, merge: int, token: str) -> Memory:
    """Masks of objects as the language model takes them: which of its cells, in which of its temporal steps.

    A cell belongs to an object as soon as a pixel of it does, in either frame of the step.

    Args:
        objects: Masks of each object.
        clip: The clip.
        merge: Patches along the side of a cell.
        token: ``<|mem|>``.

    Raises:
        MaskError: A mask of another size than the clip, or an object that none of the language model's frames shows.
    """
    import torch
    from torch.nn import functional as F

    steps, height, width = clip.grid[0], clip.grid[1] // merge, clip.grid[2] // merge
    positions = clip.info.positions(clip.times)
    per_step = -(-len(positions) // steps)
    out = torch.zeros(steps, len(objects), height, width, dtype=torch.bool)
    texts = []
    for k, masks in enumerate(objects):
        found = _by_position(masks, clip, f"object {k}")
        for n, position in enumerate(positions):
            if (pixels := found.get(int(position))) is not None:
                cells = F.adaptive_max_pool2d(torch.from_numpy(pixels).float()[None], (height, width))[0]
                out[n // per_step, k] |= cells > 0
        shown = [t for t in range(steps) if bool(out[t, k].any())]
        if not shown:
            raise MaskError(f"object {k}: none of the {len(positions)} frames that are shown has a mask of it")
        spans = [f"<{t * per_step + 1}>-<{min((t + 1) * per_step, len(positions))}> {token}" for t in shown]
        texts.append(" ".join(spans))
    return Memory(out, texts)


def union(objects: Sequence[Sequence[FrameMask]]) -> list[FrameMask]:
    """All objects as one: frame by frame the union of their masks, in order of frames."""
    frames: dict[int, list[FrameMask]] = {}
    for masks in objects:
        for mask in masks:
            frames.setdefault(mask["frame"], []).append(mask)
    return [
        {"frame": frame, "time": masks[0]["time"], "rle": rle_masks.union(mask["rle"] for mask in masks)}
        for frame, masks in sorted(frames.items())
    ]
