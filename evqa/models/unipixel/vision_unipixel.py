"""The vision tower with attention over all windows at once.

Qwen2.5-VL's vision tower attends within windows of at most 64 patches, and in a few layers within whole frames. With
any attention but flash-attn's, transformers cuts the sequence and calls attention once per window: thousands of tiny
kernels. :class:`PackedVisionBlock` does the same in one call per layer (in half precision on CUDA, where torch has
attention over sequences of different lengths), or in one call per *length* of window anywhere else.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLVisionBlock
from transformers.utils.generic import is_flash_attention_requested
from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids, get_vision_window_index

from evqa.models.unipixel.split_attention_unipixel import has_varlen, varlen_attn

__all__ = ["PackedVisionBlock", "Segments", "VisionTables", "rms_norm", "vision_tables"]


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


class PackedVisionBlock(Qwen2_5_VLVisionBlock):
    """As its parent, with few and large kernels; with ``eager`` or flash-attn's attention exactly as its parent."""

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
            segments: What is known of the segments; ``None``: do what the parent does.
            **kwargs: For the parent.
        """
        mine = next((s for s in segments or () if s.bounds is cu_seqlens), None)
        config = self.attn.config
        if mine is None or is_flash_attention_requested(config) or config._attn_implementation == "eager":
            return super().forward(
                hidden_states, cu_seqlens=cu_seqlens, position_embeddings=position_embeddings, **kwargs
            )
        x = hidden_states
        x = x + self._attended(rms_norm(self.norm1, x), position_embeddings, mine)
        return x + aligned_mlp(self.mlp, rms_norm(self.norm2, x))

    def _attended(self, x: Tensor, position_embeddings: tuple[Tensor, Tensor], segments: Segments) -> Tensor:
        attn, length = self.attn, len(x)
        qkv = attn.qkv(x).view(length, 3, attn.num_heads, -1)  # [patches, 3, heads, head]
        cos, sin = (table[:, : table.shape[1] // 2].float() for table in position_embeddings)  # halves are the same
        (query, key), value = _turned(qkv[:, :2], torch.complex(cos, sin)).unbind(1), qkv[:, 2]
        return attn.proj(attend(query, key, value, segments, attn.scaling).reshape(length, -1))


# Wrappers (FSDP, device maps) look for the tower's blocks by this name.
PackedVisionBlock.__name__ = Qwen2_5_VLVisionBlock.__name__


def rms_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Qwen's RMS norm in one kernel on CUDA; elsewhere as it is.

    Rounds once where transformers rounds twice, before and after the product with the weight.
    """
    if not x.is_cuda or x.dtype != norm.weight.dtype or _watched(norm):
        return norm(x)
    return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)


def _watched(module: nn.Module) -> bool:
    """Whether something happens when the module is called: ZeRO brings weights, tests record what comes in."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def aligned_mlp(mlp: nn.Module, x: Tensor) -> Tensor:
    """Qwen's gated MLP, its width filled up with zeros to what matrix units like; the result is the same.

    The tower's 3,420 channels are no multiple of 8: products run at a third of their speed. Copying the weights takes
    a hundredth of what that saves.
    """
    layers = (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
    fill = -mlp.gate_proj.out_features % 64 if type(mlp.gate_proj) is nn.Linear else 0
    if not fill or not x.is_cuda or any(type(layer) is not nn.Linear or _watched(layer) for layer in layers):
        return mlp(x)
    gate, up = (
        F.linear(x, F.pad(layer.weight, (0, 0, 0, fill)), None if layer.bias is None else F.pad(layer.bias, (0, fill)))
        for layer in layers[:2]
    )
    return F.linear(mlp.act_fn(gate) * up, F.pad(mlp.down_proj.weight, (0, fill)), mlp.down_proj.bias)


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """Rotary embedding of ``[patches, ..., head]``, in float32 as in transformers, in three passes over memory.

    Args:
        x: What to turn; channel i turns with channel i + half a head.
        turn: Complex, ``[patches, head / 2]``.
    """
    pairs = torch.view_as_complex(x.unflatten(-1, (2, -1)).transpose(-1, -2).to(torch.float32).contiguous())
    turned = torch.view_as_real(pairs * turn.view(len(turn), *[1] * (x.dim() - 2), -1))
    return turned.transpose(-1, -2).to(x.dtype, memory_format=torch.contiguous_format).flatten(-2)


def attend(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> Tensor:
    """Attention within segments: ``[patches, heads, head]`` each, and so the result."""
    if segments.groups is None:
        shape = (segments.count, segments.longest)
        parts = (x.unflatten(0, shape).transpose(1, 2) for x in (query, key, value))
        return F.scaled_dot_product_attention(*parts, scale=scale).transpose(1, 2).flatten(0, 1)
    if query.dtype in (torch.float16, torch.bfloat16) and has_varlen(query.device):
        # Its default scale is ours.
        bounds, longest = segments.bounds, segments.longest
        return varlen_attn(query, key, value.contiguous(), bounds, bounds, longest, longest)
    out = torch.empty_like(query)
    for places in segments.groups:
        parts = (x[places].transpose(1, 2) for x in (query, key, value))  # [segments, heads, length, head]
        found = F.scaled_dot_product_attention(*parts, scale=scale).transpose(1, 2)
        out = out.index_put((places,), found)
    return out
