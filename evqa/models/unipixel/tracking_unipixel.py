"""Tracking: what SAM 2 does with a clip, for all objects of all clips of one length at once.

Frame 0 is decoded from the prompt tokens of the language model; every later frame from the memory of frames before it:
frame 0 and the last ``num_maskmem - 1``, and the pointers of frame 0 and the last ``max_object_pointers - 1``.

:func:`track` encodes frames in batches and steps through them, with a bounded number of frames on the device. A step
is that of :class:`Tracker`, or, where no gradients are recorded, the same in tensors of fixed shapes
(:mod:`evqa.models.unipixel.fixed_tracking_unipixel`).
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from evqa.models.unipixel.encoding_unipixel import FrameFeed
from evqa.models.unipixel.runtime_unipixel import Runtime
from evqa.models.unipixel.sam2_blocks_unipixel import FrameFeatures, Tables
from evqa.models.unipixel.sam2_unipixel import Prediction, UniPixelSam2

__all__ = ["Memory", "Recalled", "Tracker", "from_memory", "from_prompts", "per_object", "split_pointers", "track"]


# -------------------------------------------------------------------------------------- memory
@dataclasses.dataclass
class Recalled:
    """What memory attention attends to.

    Attributes:
        memory: ``[n, keys, m]``; the last ``unturned`` keys are object pointers.
        code: ``[1, keys, m]``, added to make them keys.
        unturned: See above.
    """

    memory: Tensor
    code: Tensor
    unturned: int


class Memory:
    """Memories of ``n`` objects as a list; the first frames attend to fewer keys.

    Args:
        sam2: The model.
        tables: Of :meth:`UniPixelSam2.tables`.
        num_frames: Length of the clip. The age of a pointer is counted in parts of the most pointers that a clip of
            this length can have.
    """

    def __init__(self, sam2: UniPixelSam2, tables: Tables, num_frames: int):
        config = sam2.config
        self.sam2, self.tables, self.time = sam2, tables, 0
        self.oldest = min(num_frames, config.max_object_pointers) - 1
        self.first: tuple[Tensor, Tensor] | None = None
        self.memories: deque[Tensor] = deque(maxlen=config.num_maskmem - 1)
        self.pointers: deque[Tensor] = deque(maxlen=self.oldest)

    def write(self, memory: Tensor, pointer: Tensor) -> None:
        """Remember a frame: ``[n, h w, m]`` and ``[n, C]``."""
        if self.first is None:
            self.first = (memory, pointer)
        else:
            self.memories.append(memory)
            self.pointers.append(pointer)
        self.time += 1

    def read(self) -> Recalled:
        """What the next frame attends to. There must have been a first frame."""
        config, codes = self.sam2.config, self.sam2("frame_codes")  # [num_maskmem, m]
        first_memory, first_pointer = self.first
        memories, pointers = [first_memory, *self.memories], [first_pointer, *self.pointers]
        # Row k - 1 of the table is for the frame k before this one, the last row for frame 0, whatever its age.
        rows = [config.num_maskmem - 1, *range(len(self.memories) - 1, -1, -1)]
        frame_codes = torch.stack([self.tables.memory_code + codes[row] for row in rows]).flatten(0, 1)
        # Made on the device: nothing is waited for, and a recorded step can make them again.
        ages = torch.arange(len(pointers), 0, -1, dtype=torch.float32, device=first_pointer.device)
        ages[:1].fill_(self.time)
        split, pointer_codes = split_pointers(self.sam2, torch.stack(pointers, dim=1), ages / self.oldest)
        return Recalled(
            memory=torch.cat([*memories, split], dim=1),
            code=torch.cat([frame_codes, pointer_codes])[None],
            unturned=split.shape[1],
        )


def split_pointers(sam2: UniPixelSam2, pointers: Tensor, ages: Tensor) -> tuple[Tensor, Tensor]:
    """Object pointers as keys of memory attention: each becomes ``C / m`` tokens.

    Args:
        sam2: The model.
        pointers: ``[n, p, C]``.
        ages: Float ``[p]``, 1: as old as any can be.

    Returns:
        Keys ``[n, p C / m, m]`` and what is added to them, ``[p C / m, m]``.
    """
    width = sam2.config.memory_dim
    parts = pointers.shape[-1] // width
    codes = sam2("pointer_code", ages).repeat_interleave(parts, dim=0)
    return pointers.unflatten(-1, (parts, width)).flatten(1, 2), codes


# ------------------------------------------------------------------------------------- tracker
class Tracker:
    """Follows objects through clips of one length, a frame per :meth:`step`.

    Args:
        sam2: The model.
        prompts: Prompt tokens of each object, ``[n, tokens, C]``.
        owner: For each object the number of its clip; ``None``: there is one clip.
        num_frames: Frames in each clip.
        keep_absent: Leave the logits of absent objects as they are (losses need that).
    """

    def __init__(
        self, sam2: UniPixelSam2, prompts: Tensor, owner: Tensor | None, num_frames: int, *, keep_absent: bool = False
    ):
        self.sam2, self.prompts, self.owner, self.num_frames = sam2, prompts, owner, num_frames
        self.keep_absent = keep_absent
        self.tables = sam2.tables(prompts.device, sam2.no_mem_embed.dtype)
        self.memory = Memory(sam2, self.tables, num_frames)
        self.frame = 0

    def step(self, frames: FrameFeatures) -> Prediction:
        """The next frame of every clip.

        Args:
            frames: Its features, ``[clips, ...]``.
        """
        frame = per_object(frames, self.owner, len(self.prompts))
        if self.frame == 0:
            prediction = from_prompts(self.sam2, frame, self.prompts, self.tables, self.keep_absent)
        else:
            prediction = from_memory(self.sam2, frame, self.memory.read(), self.tables, self.keep_absent)
        self.frame += 1
        if self.frame < self.num_frames:  # nobody reads what the last frame leaves
            self.memory.write(self.sam2("remember", frame, prediction), prediction.pointer)
        return prediction


def per_object(frames: FrameFeatures, owner: Tensor | None, objects: int) -> FrameFeatures:
    """Features ``[clips, ...]`` once per object, ``[n, ...]``."""
    if owner is None:
        return frames.map(lambda level: level.expand(objects, -1, -1, -1))
    return frames.map(lambda level: level.index_select(0, owner))


def from_prompts(
    sam2: UniPixelSam2, frame: FrameFeatures, prompts: Tensor, tables: Tables, keep_absent: bool
) -> Prediction:
    """A frame from the prompts alone."""
    features = sam2("without_memory", frame.top)
    return sam2("decode", features, frame, prompts, tables, keep_absent=keep_absent)


def from_memory(
    sam2: UniPixelSam2,
    frame: FrameFeatures,
    recalled: Recalled,
    tables: Tables,
    keep_absent: bool,
) -> Prediction:
    """A frame from memory alone."""
    features = sam2("attend", frame.top, recalled.memory, recalled.code, tables, recalled.unturned)
    return sam2("decode", features, frame, None, tables, keep_absent=keep_absent)


def track(
    sam2: UniPixelSam2,
    clips: Sequence[Tensor],
    owner: Sequence[int],
    prompts: Tensor,
    runtime: Runtime,
    *,
    batch_mode: bool = False,
    keep_absent: bool = False,
    feed: FrameFeed | None = None,
) -> Iterator[Prediction]:
    """Track all objects of several clips of one length; yields the prediction of each frame in turn.

    Frames are encoded once, in batches, whatever the number of objects. No more than ``max_frames_in_flight`` frames
    are on the device at a time; clips may lie in host memory. A prediction is valid until the next is asked for.

    Args:
        sam2: The model.
        clips: Frames of each clip, as :func:`~evqa.models.unipixel.encoding_unipixel.prepare_frames` takes
            them, the same number of each.
        owner: For each object the number of its clip.
        prompts: Prompt tokens of each object, ``[n, tokens, C]``.
        runtime: Switches.
        batch_mode: Every frame from the prompts alone, without memory.
        keep_absent: See :class:`Tracker`.
        feed: One that was begun for these clips before.
    """
    like = sam2.no_mem_embed
    prompts = prompts.to(like.device, like.dtype)
    feed = FrameFeed(sam2, clips, runtime) if feed is None else feed
    feed.prefetch()
    tracker = None
    if runtime.uses_fixed_steps(like.device) and not torch.is_grad_enabled() and not keep_absent:
        from evqa.models.unipixel.fixed_tracking_unipixel import fixed_tracker  # which is made of the parts above

        tracker = fixed_tracker(sam2, prompts, owner, len(clips), feed.num_frames, batch_mode=batch_mode)
    if tracker is None:
        index = None if len(clips) == 1 else torch.tensor(list(owner)).to(like.device, non_blocking=True)
        if batch_mode:
            yield from _segment(sam2, feed, prompts, index, keep_absent)
            return
        tracker = Tracker(sam2, prompts, index, feed.num_frames, keep_absent=keep_absent)
    for frame in feed:
        yield tracker.step(frame)


def _segment(
    sam2: UniPixelSam2, feed: FrameFeed, prompts: Tensor, owner: Tensor | None, keep_absent: bool
) -> Iterator[Prediction]:
    """Every frame from the prompts alone: as no frame waits for another, those of a chunk are decoded together."""
    tables = sam2.tables(prompts.device, sam2.no_mem_embed.dtype)
    owner = torch.zeros(len(prompts), dtype=torch.long, device=prompts.device) if owner is None else owner
    for features in feed.chunks():
        count = features.top.shape[1]
        places = (owner * count + torch.arange(count, device=owner.device)[:, None]).flatten()  # frame by frame
        frames = features.map(lambda level, places=places: level.flatten(0, 1).index_select(0, places))
        found = from_prompts(sam2, frames, prompts.repeat(count, 1, 1), tables, keep_absent)
        parts = [getattr(found, field.name).chunk(count) for field in dataclasses.fields(found)]
        yield from (Prediction(*values) for values in zip(*parts, strict=True))
