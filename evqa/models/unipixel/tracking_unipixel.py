"""Tracking: what SAM 2 does with a clip, for all objects of all clips of one length at once.

Frame 0 is decoded from the prompt tokens of the language model; every later frame from the memory of frames before it:
frame 0 and the last ``num_maskmem - 1``, and the pointers of frame 0 and the last ``max_object_pointers - 1``.

Three layers, each replaceable by a faster one of the same meaning:

- :class:`Memory` (plain) and :class:`FixedMemory` (fixed shapes, empty places masked): what is remembered;
- :class:`Tracker`: one step, ``frame features -> prediction``, without a host synchronisation;
- :func:`track`: encodes frames in batches and steps through them, with a bounded number of frames on the device.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from evqa.errors import VideoError
from evqa.models.unipixel.sam2_unipixel import FrameFeatures, Prediction, Tables, UniPixelSam2

__all__ = ["FixedMemory", "Memory", "Runtime", "Tracker", "prepare_frames", "track"]

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass
class Runtime:
    """How, not what: every switch that may change speed and memory, and nothing else (``model.runtime``).

    Attributes:
        encode_batch: Frames per call of SAM 2's image encoder.
        max_frames_in_flight: Frames whose features are on the device at a time; ``None``: all of the clip in training,
            64 otherwise. Device memory does not grow with the length of the clip beyond that.
        fixed_memory: Keep memories in tensors of fixed shape (:class:`FixedMemory`); no effect while gradients are
            recorded.
        checkpoint_losses: Recompute the full-size mask logits in the backward pass instead of storing them.
        supervised_logits: Given labels, make logits only where there is one; the output then holds none.
    """

    encode_batch: int = 16
    max_frames_in_flight: int | None = None
    fixed_memory: bool = False
    checkpoint_losses: bool = True
    supervised_logits: bool = False


# -------------------------------------------------------------------------------------- memory
@dataclasses.dataclass
class Recalled:
    """What memory attention attends to.

    Attributes:
        memory: ``[n, keys, m]``; the last ``unturned`` keys are object pointers.
        code: ``[1, keys, m]``, added to make them keys.
        unturned: See above.
        mask: Added to the scores, ``[1, 1, 1, keys]``; ``None``: every key counts.
    """

    memory: Tensor
    code: Tensor
    unturned: int
    mask: Tensor | None = None


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
        config, codes = self.sam2.config, self.sam2.maskmem_tpos_enc[:, 0, 0]  # [num_maskmem, m]
        first_memory, first_pointer = self.first
        memories, pointers = [first_memory, *self.memories], [first_pointer, *self.pointers]
        # Row k - 1 of the table is for the frame k before this one, the last row for frame 0, whatever its age.
        rows = [config.num_maskmem - 1, *range(len(self.memories) - 1, -1, -1)]
        frame_codes = torch.stack([self.tables.memory_code + codes[row] for row in rows]).flatten(0, 1)
        ages = torch.arange(len(pointers), 0, -1, device=first_pointer.device, dtype=torch.float32)
        ages[0] = self.time
        split, pointer_codes = split_pointers(self.sam2, torch.stack(pointers, dim=1), ages / self.oldest)
        return Recalled(
            memory=torch.cat([*memories, split], dim=1),
            code=torch.cat([frame_codes, pointer_codes])[None],
            unturned=split.shape[1],
        )


class FixedMemory:
    """As :class:`Memory`, in tensors that are made once and whose shapes never change.

    Empty places are masked, so that the result is the same up to rounding. Everything is computed from :attr:`time`,
    an integer on the device: a step that reads, decodes and writes is free of Python numbers and of host
    synchronisation, so it can be captured in a CUDA graph and replayed. For inference only: writing is in place.
    """

    def __init__(self, sam2: UniPixelSam2, tables: Tables, num_frames: int, num_objects: int):
        config, like = sam2.config, sam2.no_mem_embed
        self.sam2, self.tables = sam2, tables
        device, places = like.device, config.feature_size**2
        frames, pointers = config.num_maskmem, config.max_object_pointers
        self.memories = like.new_zeros(num_objects, frames, places, config.memory_dim)
        self.pointers = like.new_zeros(num_objects, pointers, config.hidden_size)
        self.time = torch.zeros((), dtype=torch.int64, device=device)
        self.oldest = torch.tensor(min(num_frames, pointers) - 1, dtype=torch.float32, device=device)
        # Place 0 is frame 0; in place i > 0 is the frame `age[i]` before the present one.
        self.memory_ages = torch.arange(frames, 0, -1, device=device)
        self.pointer_ages = torch.arange(pointers, 0, -1, device=device)
        with torch.no_grad():
            codes = tables.memory_code + sam2.maskmem_tpos_enc[:, 0].flip(0)  # [frames, h w, m]
            self.frame_codes = codes.flatten(0, 1)

    def write(self, memory: Tensor, pointer: Tensor) -> None:
        """Remember a frame: ``[n, h w, m]`` and ``[n, C]``. The first goes to place 0, others push the oldest out."""
        first = self.time == 0
        for bank, new in ((self.memories, memory), (self.pointers, pointer)):
            shifted = torch.cat([bank[:, :1], bank[:, 2:], new[:, None]], dim=1)[:, : bank.shape[1]]
            started = torch.cat([new[:, None], bank[:, 1:]], dim=1)
            bank.copy_(torch.where(first, started, shifted))
        self.time += 1

    def read(self) -> Recalled:
        """What the next frame attends to."""
        pointer_ages = torch.cat([self.time[None], self.pointer_ages[1:]])
        split, pointer_codes = split_pointers(self.sam2, self.pointers, pointer_ages / self.oldest)
        per_pointer = split.shape[1] // len(pointer_ages)
        # A place is filled once its frame lies after frame 0; pointers are at most `oldest` frames old.
        known = (self.memory_ages < self.time).index_fill(0, self.time.new_zeros(1), True)
        known_pointers = (self.pointer_ages < self.time) & (self.pointer_ages <= self.oldest)
        known_pointers = known_pointers.index_fill(0, self.time.new_zeros(1), True)
        known = torch.cat(
            [known.repeat_interleave(self.memories.shape[2]), known_pointers.repeat_interleave(per_pointer)]
        )
        mask = torch.zeros_like(known, dtype=split.dtype).masked_fill(~known, torch.finfo(split.dtype).min)
        return Recalled(
            memory=torch.cat([self.memories.flatten(1, 2), split], dim=1),
            code=torch.cat([self.frame_codes, pointer_codes])[None],
            unturned=split.shape[1],
            mask=mask[None, None, None],
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
    codes = sam2.pointer_code(ages).repeat_interleave(parts, dim=0)
    return pointers.unflatten(-1, (parts, width)).flatten(1, 2), codes


# ------------------------------------------------------------------------------------- tracker
class Tracker:
    """Follows ``n`` objects through one clip's length, a frame per :meth:`step`.

    Args:
        sam2: The model.
        prompts: Prompt tokens ``[n, tokens, C]``.
        num_frames: Frames in the clip.
        batch_mode: Every frame from the prompts alone, without memory.
        keep_absent: Leave the logits of absent objects as they are (losses need that).
        fixed: Use :class:`FixedMemory`.
    """

    def __init__(
        self,
        sam2: UniPixelSam2,
        prompts: Tensor,
        num_frames: int,
        *,
        batch_mode: bool = False,
        keep_absent: bool = False,
        fixed: bool = False,
    ):
        self.sam2, self.prompts, self.num_frames = sam2, prompts, num_frames
        self.batch_mode, self.keep_absent = batch_mode, keep_absent
        self.tables = sam2.tables(prompts.device, sam2.no_mem_embed.dtype)
        self.frame = 0
        self.memory: Memory | FixedMemory = (
            FixedMemory(sam2, self.tables, num_frames, len(prompts)) if fixed else Memory(sam2, self.tables, num_frames)
        )

    def step(self, frame: FrameFeatures) -> Prediction:
        """The next frame.

        Args:
            frame: Its features once per object, ``[n, ...]``.
        """
        first = self.frame == 0 or self.batch_mode
        prediction = self.first_step(frame) if first else self.next_step(frame)
        self.frame += 1
        if not self.batch_mode and self.frame < self.num_frames:  # nobody reads what the last frame leaves
            self.memory.write(self.sam2.remember(frame, prediction), prediction.pointer)
        return prediction

    def first_step(self, frame: FrameFeatures) -> Prediction:
        """A frame from the prompts alone."""
        features = frame.top + self.sam2.no_mem_embed.view(1, -1, 1, 1)
        return self.sam2.decode(features, frame, self.prompts, self.tables, keep_absent=self.keep_absent)

    def next_step(self, frame: FrameFeatures) -> Prediction:
        """A frame from memory alone."""
        recalled = self.memory.read()
        features = self.sam2.memory_attention(
            frame.top.flatten(2).transpose(1, 2), recalled.memory, recalled.code, self.tables, recalled.unturned,
            recalled.mask,
        )  # fmt: skip
        features = features.transpose(1, 2).reshape(frame.top.shape)
        return self.sam2.decode(features, frame, None, self.tables, keep_absent=self.keep_absent)


# ------------------------------------------------------------------------------------- a clip
def prepare_frames(frames: Tensor, size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Frames as SAM 2's image encoder takes them, ``[n, 3, size, size]`` on the device.

    Args:
        frames: ``[n, 3, size, size]`` floating: already resized and normalised. ``uint8 [n, 3, height, width]``:
            scaled to 0 ... 1, resized (bilinear, antialiased, aspect ratio given up) and normalised here, which moves
            fewer bytes to the device.
        size, device, dtype: What is wanted.
    """
    frames = frames.to(device, non_blocking=True)
    if frames.dtype == torch.uint8:
        frames = frames.float() / 255
        if frames.shape[-2:] != (size, size):
            frames = F.interpolate(frames, (size, size), mode="bilinear", align_corners=False, antialias=True)
        mean, std = (frames.new_tensor(v).view(3, 1, 1) for v in (_MEAN, _STD))
        frames = (frames - mean) / std
    return frames.to(dtype)


def check_frames(frames: Tensor, size: int, where: str) -> None:
    """Raise :class:`VideoError` unless these can be a clip's frames for SAM 2; ``where`` names them."""
    if not isinstance(frames, Tensor) or frames.dim() != 4 or frames.shape[1] != 3:
        shape = list(frames.shape) if isinstance(frames, Tensor) else type(frames).__name__
        raise VideoError(f"{where}: frames for SAM 2 are a tensor [frames, 3, height, width], got {shape}")
    if len(frames) == 0:
        raise VideoError(f"{where}: the clip has no frames")
    if frames.dtype != torch.uint8 and tuple(frames.shape[-2:]) != (size, size):
        raise VideoError(
            f"{where}: normalised frames must be {size} x {size} pixels (sam2_image_size), got "
            f"{frames.shape[-2]} x {frames.shape[-1]}; uint8 frames may have any size"
        )


def track(
    sam2: UniPixelSam2,
    clips: Sequence[Tensor],
    owner: Sequence[int],
    prompts: Tensor,
    runtime: Runtime,
    *,
    batch_mode: bool = False,
    keep_absent: bool = False,
    tracker_class: type[Tracker] = Tracker,
) -> Iterator[Prediction]:
    """Track all objects of several clips of one length; yields the prediction of each frame in turn.

    Frames are encoded once, in batches, whatever the number of objects. No more than ``max_frames_in_flight`` frames
    are on the device at a time; clips may lie in host memory.

    Args:
        sam2: The model.
        clips: Frames of each clip (:func:`prepare_frames`), all with the same number of frames.
        owner: For each object the number of its clip.
        prompts: Prompt tokens of each object, ``[n, tokens, C]``.
        runtime: Switches.
        batch_mode, keep_absent: See :class:`Tracker`.
        tracker_class: The tracker to use.
    """
    num_frames, device, dtype = len(clips[0]), prompts.device, sam2.no_mem_embed.dtype
    gradients = torch.is_grad_enabled()
    in_flight = runtime.max_frames_in_flight or (num_frames * len(clips) if gradients else 64)
    chunk = max(1, min(num_frames, in_flight // len(clips)))
    index = None if len(clips) == 1 else torch.tensor(list(owner), device=device)
    tracker = tracker_class(
        sam2, prompts, num_frames, batch_mode=batch_mode, keep_absent=keep_absent,
        fixed=runtime.fixed_memory and not gradients,
    )  # fmt: skip
    for start in range(0, num_frames, chunk):
        stop = min(start + chunk, num_frames)
        features = encode_clips(sam2, clips, start, stop, runtime.encode_batch, device, dtype)
        for t in range(stop - start):
            # [clips, ...] of this frame -> [n, ...]
            yield tracker.step(
                features.map(
                    lambda level, t=t: (
                        level[:, t].expand(len(prompts), -1, -1, -1)
                        if index is None
                        else level[:, t].index_select(0, index)
                    )
                )
            )
        del features


def encode_clips(
    sam2: UniPixelSam2, clips: Sequence[Tensor], start: int, stop: int, batch: int, device: torch.device,
    dtype: torch.dtype,
) -> FrameFeatures:  # fmt: skip
    """Features of frames ``start`` to ``stop`` of every clip, ``[clips, stop - start, ...]`` each."""
    size, frames = sam2.config.image_size, stop - start
    if len({(clip.dtype, clip.shape[2:]) for clip in clips}) == 1:
        pixels = clips[0][start:stop] if len(clips) == 1 else torch.cat([clip[start:stop] for clip in clips])
        parts = [sam2.encode(prepare_frames(part, size, device, dtype)) for part in pixels.split(batch)]
    else:
        parts = [
            sam2.encode(prepare_frames(part, size, device, dtype))
            for clip in clips
            for part in clip[start:stop].split(batch)
        ]
    levels = ([getattr(part, name) for part in parts] for name in ("top", "fine", "middle"))
    joined = FrameFeatures(*(level[0] if len(level) == 1 else torch.cat(level) for level in levels))
    return joined.map(lambda level: level.unflatten(0, (len(clips), frames)))
