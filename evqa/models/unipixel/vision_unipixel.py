"""Attention of the vision tower over all windows at once.

Qwen2.5-VL's vision tower attends within windows of at most 64 patches, and in a few layers within whole frames. With
any attention but flash-attn's, transformers cuts the sequence and calls attention once per window: thousands of tiny
kernels. :class:`PackedVisionAttention` is the same attention in one call per layer (in half precision on CUDA, where
torch has attention over sequences of different lengths), or in one call per *length* of window anywhere else.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLVisionAttention
from transformers.utils.generic import is_flash_attention_requested
from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids, get_vision_window_index

try:  # torch 2.10 and newer
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    varlen_attn = None

__all__ = ["PackedVisionAttention", "Segments", "VisionTables", "vision_tables"]


@dataclasses.dataclass(frozen=True)
class Segments:
    """A sequence cut into segments that attend within themselves.

    Attributes:
        bounds: int32 ``[segments + 1]``: where each begins, and the end.
        longest: Length of the longest.
        groups: For each length that occurs the places of its segments, int64 ``[segments of it, length]``; ``None``
            in place of these when all segments have one length.
        count: Number of segments.
    """

    bounds: Tensor
    longest: int
    groups: tuple[Tensor, ...] | None
    count: int

    @classmethod
    def of(cls, bounds: Tensor, device: torch.device) -> Segments:
        """From bounds, preferably in host memory."""
        lengths = bounds.diff().long().cpu()
        starts = bounds[:-1].long().cpu()
        kinds = lengths.unique().tolist()
        groups = None
        if len(kinds) > 1:
            groups = tuple((starts[lengths == n, None] + torch.arange(n)).to(device) for n in kinds)
        return cls(bounds.to(device, torch.int32), kinds[-1], groups, len(lengths))


@dataclasses.dataclass(frozen=True)
class VisionTables:
    """What the vision tower needs to know of the grids in a batch; see :func:`vision_tables`.

    Attributes:
        window_index: The merged patches in the order of the tower's windows, int64 ``[patches / 4]``.
        position_ids: Row and column of each patch, int64 ``[patches, 2]``.
        windows, frames: Segments of the two kinds of layers.
    """

    window_index: Tensor
    position_ids: Tensor
    windows: Segments
    frames: Segments

    def arguments(self) -> dict[str, Any]:
        """For the tower's ``forward``, which would compute the first four anew."""
        return {
            "window_index": self.window_index,
            "position_ids": self.position_ids,
            "cu_window_seqlens": self.windows.bounds,
            "cu_seqlens": self.frames.bounds,
            "segments": (self.windows, self.frames),
        }


@functools.lru_cache(maxsize=16)
def vision_tables(
    grids: tuple[tuple[int, int, int], ...], merge: int, window: int, patch: int, device: torch.device
) -> VisionTables:
    """Tables for these grids (time, height, width in patches), made in host memory and kept: shapes recur."""
    with torch.inference_mode(False):
        grid = torch.tensor(grids)
        index, bounds = get_vision_window_index(grid, spatial_merge_size=merge, window_size=window, patch_size=patch)
        return VisionTables(
            window_index=index.to(device),
            position_ids=get_vision_position_ids(grid, merge).to(device),
            windows=Segments.of(bounds, device),
            frames=Segments.of(get_vision_cu_seqlens(grid), device),
        )


class PackedVisionAttention(Qwen2_5_VLVisionAttention):
    """As its parent, over all segments at once.

    With ``eager`` or flash-attn's attention, or without ``segments``, it does what its parent does.
    """

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        segments: tuple[Segments, ...] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """``[patches, width]`` to the same.

        Args:
            hidden_states: Patches in the tower's order.
            cu_seqlens: Bounds of the segments of this layer; one of those in ``segments``.
            position_embeddings: Cosine and sine, ``[patches, head]`` each.
            segments: What is known of the segments; ``None``: let the parent find out.
            **kwargs: For the parent.
        """
        mine = next((s for s in segments or () if s.bounds is cu_seqlens), None)
        plain = is_flash_attention_requested(self.config) or self.config._attn_implementation == "eager"
        if mine is None or plain:
            return super().forward(
                hidden_states, cu_seqlens=cu_seqlens, position_embeddings=position_embeddings, **kwargs
            )
        length = len(hidden_states)
        query, key, value = (
            self.qkv(hidden_states).view(length, 3, self.num_heads, -1).unbind(1)
        )  # [patches, heads, head]
        query, key = (_turned(x, *position_embeddings) for x in (query, key))
        out = attend(query, key, value, mine, self.scaling)
        return self.proj(out.reshape(length, -1))


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of ``[patches, heads, head]``, in float32 as in transformers, with fewer passes over memory."""
    half = x.shape[-1] // 2
    cos, sin = cos[:, None, :half].float(), sin[:, None, :half].float()  # both halves are the same
    a, b = x[..., :half], x[..., half:]
    # Mixed products are computed in float32: no converted copy is written first.
    return torch.cat([(a * cos - b * sin).to(x.dtype), (b * cos + a * sin).to(x.dtype)], dim=-1)


def attend(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> Tensor:
    """Attention within segments: ``[patches, heads, head]`` each, and so the result."""
    if segments.groups is None:
        shape = (segments.count, segments.longest)
        parts = (x.unflatten(0, shape).transpose(1, 2) for x in (query, key, value))
        return F.scaled_dot_product_attention(*parts, scale=scale).transpose(1, 2).flatten(0, 1)
    if varlen_attn is not None and query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        # Its default scale is ours.
        bounds, longest = segments.bounds, segments.longest
        return varlen_attn(query, key, value.contiguous(), bounds, bounds, longest, longest)
    out = torch.empty_like(query)
    for places in segments.groups:
        parts = (x[places].transpose(1, 2) for x in (query, key, value))  # [segments, heads, length, head]
        found = F.scaled_dot_product_attention(*parts, scale=scale).transpose(1, 2)
        out = out.index_put((places,), found)
    return out
