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
from torch.nn import functional as F

from evqa.models.unipixel.graphs_unipixel import Recorder, kept_for, weights_key
from evqa.models.unipixel.sam2_blocks_unipixel import FrameFeatures, Tables, rotated
from evqa.models.unipixel.sam2_unipixel import Prediction, UniPixelSam2
from evqa.models.unipixel.split_attention_unipixel import parts_for, split_attention
from evqa.models.unipixel.tracking_unipixel import from_prompts, per_object, split_pointers

__all__ = ["FixedMemory", "FixedTracker", "fixed_tracker"]


class FixedMemory:
    """As :class:`~evqa.models.unipixel.tracking_unipixel.Memory` with its attention, in tensors that are made once.

    A memory is turned into the keys and values of every layer when it is written, not each time that it is read: a
    key is a rotated projection of memory plus code, which is the sum of that of the memory and that of the code. Frame
    0 has a place of its own, the others take turns. What depends on the frame's number is computed from :attr:`time`
    and :attr:`oldest`, numbers on the device.

    Args:
        sam2: The model.
        tables: Of :meth:`UniPixelSam2.tables`.
        objects: How many.
    """

    def __init__(self, sam2: UniPixelSam2, tables: Tables, objects: int):
        config, like = sam2.config, sam2.no_mem_embed
        self.sam2, self.tables = sam2, tables
        self.frames, self.places, width = config.num_maskmem, config.feature_size**2, config.hidden_size
        self.per_pointer = width // config.memory_dim
        self.layers = list(sam2.memory_attention.layers)
        depth, most = len(self.layers), self.frames * self.places
        room = most + config.max_object_pointers * self.per_pointer  # pointers come after the memories
        self.keys = like.new_zeros(depth, objects, self.frames, self.places, width)
        self.values = like.new_zeros(depth, objects, room, width)
        self.code_keys = like.new_zeros(depth, self.frames, self.places, width)
        self.all_keys = like.new_zeros(objects, room, width)  # of one layer at a time
        self.pointers = like.new_zeros(objects, config.max_object_pointers, width)
        self.time = torch.zeros((), dtype=torch.int64, device=like.device)
        self.oldest = torch.zeros((), dtype=torch.float32, device=like.device)
        # In place i > 0 of the pointers is the frame `ages[i]` before the present one.
        self.ages = torch.arange(config.max_object_pointers, 0, -1, device=like.device, dtype=torch.float32)
        self.slots = torch.arange(self.frames, device=like.device)
        head = width // config.memory_attention_heads
        self.turn = tables.turn[:, None]  # [h w, 1, head / 2]
        self.split_heads = (config.memory_attention_heads, head)

    def start(self, num_frames: int) -> None:
        """Forget everything; the clip has so many frames."""
        self.time.zero_()
        self.oldest.fill_(min(num_frames, self.pointers.shape[1]) - 1)
        codes = self.tables.memory_code + self.sam2.maskmem_tpos_enc[:, 0].flip(0)  # [frames, h w, m]
        for layer, own in zip(self.layers, self.code_keys, strict=True):
            own.copy_(self._turned(F.linear(codes, layer.cross_attn_image.k_proj.weight)))

    def write(self, memory: Tensor, pointer: Tensor, first: bool) -> None:
        """Remember a frame: ``[n, h w, m]`` and ``[n, C]``. The first goes to place 0, others push the oldest out."""
        if first or self.frames > 1:
            # Frame t > 0 goes to place 1, 2, ..., frames - 1, 1, ...
            place = self.time[None] if first else 1 + (self.time[None] - 1) % max(1, self.frames - 1)
            for i, layer in enumerate(self.layers):
                attention = layer.cross_attn_image
                values = self.values[i, :, : self.frames * self.places].unflatten(1, (self.frames, self.places))
                self.keys[i].index_copy_(1, place, self._turned(attention.k_proj(memory))[:, None])
                values.index_copy_(1, place, attention.v_proj(memory)[:, None])
        if first:
            self.pointers[:, 0] = pointer
        else:
            self.pointers[:, 1:] = torch.cat([self.pointers[:, 2:], pointer[:, None]], dim=1)
        self.time += 1

    def attend(self, top: Tensor, frames: int, pointers: int) -> Tensor:
        """Condition features on memory.

        Args:
            top: ``[n, C, h, w]``.
            frames, pointers: How many are known, the first among them.

        Returns:
            ``[n, C, h, w]``.
        """
        known = frames * self.places
        # The code of a place follows from the age of what is there.
        ages = (self.time - self.slots[1:frames] - 1) % max(1, self.frames - 1) + 1
        codes = torch.cat([self.slots[:1], self.frames - ages])
        pointer_ages = torch.cat([self.time[None].float(), _known(self.ages, pointers, 0)[1:]])
        split, pointer_codes = split_pointers(self.sam2, _known(self.pointers, pointers, 1), pointer_ages / self.oldest)
        stop = known + split.shape[1]
        x = top.flatten(2).transpose(1, 2) + 0.1 * self.tables.query_code
        for i, layer in enumerate(self.layers):
            y = layer.layer_norm1(x)
            own = layer.self_attn
            x = x + own.o_proj(self._attended(self._turned(own.q_proj(y)), self._turned(own.k_proj(y)), own.v_proj(y)))
            cross, keys, values = layer.cross_attn_image, self.all_keys[:, :stop], self.values[i, :, :stop]
            torch.add(
                self.keys[i, :, :frames],
                self.code_keys[i].index_select(0, codes),
                out=self.all_keys[:, :known].unflatten(1, (frames, self.places)),
            )
            keys[:, known:] = cross.k_proj(split + pointer_codes)
            values[:, known:] = cross.v_proj(split)
            query = self._turned(cross.q_proj(layer.layer_norm2(x)))
            x = x + cross.o_proj(self._attended(query, keys, values))
            x = x + layer.linear2(F.relu(layer.linear1(layer.layer_norm3(x))))
        return self.sam2.memory_attention.layer_norm(x).transpose(1, 2).reshape(top.shape)

    def _attended(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """``[n, length, C]`` each; the queries' shape."""
        query_, key, value = (x.unflatten(-1, self.split_heads).transpose(1, 2) for x in (query, key, value))
        parts = parts_for(query_, key.shape[2])
        if parts > 1:
            return split_attention(query_, key, value, parts).reshape(query.shape)
        return F.scaled_dot_product_attention(query_, key, value).transpose(1, 2).reshape(query.shape)

    def _turned(self, x: Tensor) -> Tensor:
        """Rotary embedding of ``[..., h w, C]``, in float32."""
        return rotated(x.unflatten(-1, self.split_heads), self.turn).flatten(-2)


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
            known = (min(self.frame, self.memory.frames), min(self.frame, self.memory.pointers.shape[1]))
            found = self.record(known, lambda: self._next(*known))
        self.frame += 1
        return Prediction(*(getattr(found, field.name).clone() for field in dataclasses.fields(found)))

    def _first(self) -> Prediction:
        frame = per_object(self.inputs, self.owner, self.objects)
        found = from_prompts(self.sam2, frame, self.prompts, self.tables, keep_absent=False)
        return found if self.batch_mode else self._remembered(frame, found, first=True)

    def _next(self, frames: int, pointers: int) -> Prediction:
        frame = per_object(self.inputs, self.owner, self.objects)
        features = self.memory.attend(frame.top, frames, pointers)
        found = self.sam2("decode", features, frame, None, self.tables, keep_absent=False)
        return self._remembered(frame, found, first=False)

    def _remembered(self, frame: FrameFeatures, found: Prediction, first: bool) -> Prediction:
        self.memory.write(self.sam2("remember", frame, found), found.pointer, first)
        return found


def fixed_tracker(
    sam2: UniPixelSam2, prompts: Tensor, owner: Sequence[int], clips: int, num_frames: int, *, batch_mode: bool
) -> FixedTracker | None:
    """A started tracker for these objects, ``None`` where graphs cannot be used (:func:`weights_key`)."""
    weights = weights_key(sam2)
    adapted = any(hasattr(part, "merged_adapters") for part in sam2.modules())  # PEFT: projections are not plain
    if weights is None or adapted or sam2.training:
        return None
    tables = sam2.tables(prompts.device, sam2.no_mem_embed.dtype)
    key = ("tracker", weights, id(tables), tuple(owner), clips, prompts.shape[1], batch_mode)
    with torch.inference_mode(False), torch.no_grad():  # buffers outlive the mode that they are made in
        tracker = kept_for(sam2, key, lambda: FixedTracker(sam2, tables, owner, clips, prompts.shape[1], batch_mode))
    tracker.start(prompts, num_frames)
    return tracker
