"""Tracking in tensors that never change their shapes or places, so that every step can be replayed as a CUDA graph.

The same numbers as :class:`~evqa.models.unipixel.tracking_unipixel.Tracker`, for inference only. A frame attends to as
many memories as there are: the first frames are steps of their own, and from the moment that both memories are full
(frame 16) there is one step for all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from evqa.models.unipixel.graphs_unipixel import Recorder, kept_for, weights_key
from evqa.models.unipixel.sam2_blocks_unipixel import FrameFeatures, Tables
from evqa.models.unipixel.sam2_unipixel import Prediction, UniPixelSam2
from evqa.models.unipixel.tracking_unipixel import Recalled, from_memory, from_prompts, per_object, split_pointers

__all__ = ["FixedMemory", "FixedTracker", "fixed_tracker"]


class FixedMemory:
    """As :class:`~evqa.models.unipixel.tracking_unipixel.Memory`, in tensors that are made once.

    Place 0 holds frame 0, the last place the frame before the present one. What depends on the frame's number is
    computed from :attr:`time` and :attr:`oldest`, numbers on the device.

    Args:
        sam2: The model.
        tables: Of :meth:`UniPixelSam2.tables`.
        objects: How many.
    """

    def __init__(self, sam2: UniPixelSam2, tables: Tables, objects: int):
        config, like = sam2.config, sam2.no_mem_embed
        self.sam2 = sam2
        self.memories = like.new_zeros(objects, config.num_maskmem, config.feature_size**2, config.memory_dim)
        self.pointers = like.new_zeros(objects, config.max_object_pointers, config.hidden_size)
        self.time = torch.zeros((), dtype=torch.float32, device=like.device)
        self.oldest = torch.zeros((), dtype=torch.float32, device=like.device)
        # In place i > 0 is the frame `ages[i]` before the present one.
        self.ages = torch.arange(config.max_object_pointers, 0, -1, device=like.device, dtype=torch.float32)
        self.memory_code = tables.memory_code
        self.codes = torch.empty_like(self.memories[0])  # [frames, h w, m]

    def start(self, num_frames: int) -> None:
        """Forget everything; the clip has so many frames."""
        self.time.zero_()
        self.oldest.fill_(min(num_frames, self.pointers.shape[1]) - 1)
        self.codes.copy_(self.memory_code + self.sam2.maskmem_tpos_enc[:, 0].flip(0))  # which training may change

    def write(self, memory: Tensor, pointer: Tensor, first: bool) -> None:
        """Remember a frame: ``[n, h w, m]`` and ``[n, C]``. The first goes to place 0, others push the oldest out."""
        for bank, new in ((self.memories, memory), (self.pointers, pointer)):
            if first or bank.shape[1] == 1:
                bank[:, 0] = new if first else bank[:, 0]
            else:
                bank[:, 1:] = torch.cat([bank[:, 2:], new[:, None]], dim=1)
        self.time += 1

    def read(self, frames: int, pointers: int) -> Recalled:
        """What the next frame attends to, when so many frames and pointers are known, the first among them."""
        ages = torch.cat([self.time[None], _known(self.ages, pointers, 0)[1:]])
        split, pointer_codes = split_pointers(self.sam2, _known(self.pointers, pointers, 1), ages / self.oldest)
        return Recalled(
            memory=torch.cat([_known(self.memories, frames, 1).flatten(1, 2), split], dim=1),
            code=torch.cat([_known(self.codes, frames, 0).flatten(0, 1), pointer_codes])[None],
            unturned=split.shape[1],
        )


def _known(bank: Tensor, count: int, dim: int) -> Tensor:
    """The first place and the last ``count - 1``."""
    size = bank.shape[dim]
    if count == size:
        return bank
    return torch.cat([bank.narrow(dim, 0, 1), bank.narrow(dim, size - count + 1, count - 1)], dim=dim)


class FixedTracker:
    """As :class:`~evqa.models.unipixel.tracking_unipixel.Tracker`; made once for any clips of a batch of one shape.

    Args:
        sam2: The model.
        tables: Of :meth:`UniPixelSam2.tables`.
        owner: For each object the number of its clip.
        clips: Number of clips.
        tokens: Prompt tokens per object.
        batch_mode: Every frame from the prompts alone.
    """

    def __init__(
        self, sam2: UniPixelSam2, tables: Tables, owner: Sequence[int], clips: int, tokens: int, batch_mode: bool
    ):
        like, config = sam2.no_mem_embed, sam2.config
        self.sam2, self.batch_mode, self.objects = sam2, batch_mode, len(owner)
        self.owner = None if clips == 1 else torch.tensor(list(owner), device=like.device)
        self.tables = tables
        self.record = Recorder(like.device)
        size, width = config.feature_size, config.hidden_size
        self.prompts = like.new_zeros(len(owner), tokens, width)
        self.inputs = FrameFeatures(
            like.new_zeros(clips, width, size, size),
            like.new_zeros(clips, width // 8, 4 * size, 4 * size),
            like.new_zeros(clips, width // 4, 2 * size, 2 * size),
        )
        self.memory = FixedMemory(sam2, self.tables, len(owner))
        self.frame = 0

    def start(self, prompts: Tensor, num_frames: int) -> None:
        """Begin clips of so many frames."""
        self.prompts.copy_(prompts)
        self.memory.start(num_frames)
        self.frame = 0

    def step(self, frames: FrameFeatures) -> Prediction:
        """The next frame of every clip, ``[clips, ...]``; the result is a copy."""
        for buffer, value in zip(vars(self.inputs).values(), vars(frames).values(), strict=True):
            buffer.copy_(value)
        if self.frame == 0 or self.batch_mode:
            found = self.record("first", self._first)
        else:
            known = (min(self.frame, self.memory.memories.shape[1]), min(self.frame, self.memory.pointers.shape[1]))
            found = self.record(known, lambda: self._next(*known))
        self.frame += 1
        return Prediction(*(getattr(found, field.name).clone() for field in dataclasses.fields(found)))

    def _first(self) -> Prediction:
        frame = per_object(self.inputs, self.owner, self.objects)
        found = from_prompts(self.sam2, frame, self.prompts, self.tables, keep_absent=False)
        return found if self.batch_mode else self._remembered(frame, found, first=True)

    def _next(self, frames: int, pointers: int) -> Prediction:
        frame = per_object(self.inputs, self.owner, self.objects)
        found = from_memory(
            self.sam2, frame, self.memory.read(frames, pointers), self.tables, keep_absent=False, split=True
        )
        return self._remembered(frame, found, first=False)

    def _remembered(self, frame: FrameFeatures, found: Prediction, first: bool) -> Prediction:
        self.memory.write(self.sam2("remember", frame, found), found.pointer, first)
        return found


def fixed_tracker(
    sam2: UniPixelSam2, prompts: Tensor, owner: Sequence[int], clips: int, num_frames: int, *, batch_mode: bool
) -> FixedTracker | None:
    """A started tracker for these objects, ``None`` where graphs cannot be used (:func:`weights_key`)."""
    weights = weights_key(sam2)
    if weights is None or sam2.training:
        return None
    tables = sam2.tables(prompts.device, sam2.no_mem_embed.dtype)
    key = ("tracker", weights, id(tables), tuple(owner), clips, prompts.shape[1], batch_mode)
    with torch.inference_mode(False), torch.no_grad():  # buffers outlive the mode that they are made in
        tracker = kept_for(sam2, key, lambda: FixedTracker(sam2, tables, owner, clips, prompts.shape[1], batch_mode))
    tracker.start(prompts, num_frames)
    return tracker
