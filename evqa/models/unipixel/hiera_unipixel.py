"""SAM 2.1's image encoder, on the building blocks of transformers.

Letters in shape comments: ``n`` frames in a batch, ``C`` = ``hidden_size``, ``S`` = ``image_size``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig, Sam2VisionConfig
from transformers.models.sam2.modeling_sam2 import (
    Sam2HieraDetModel,
    Sam2MultiScaleAttention,
    Sam2MultiScaleBlock,
    Sam2VisionModel,
    do_pool,
    eager_attention_forward,
    window_partition,
    window_unpartition,
)

__all__ = ["ImageEncoder"]


class HieraAttention(Sam2MultiScaleAttention):
    """As its parent, without the second set of attention weights that the parent computes and drops."""

    def forward(self, hidden_states: Tensor, **kwargs) -> Tensor:
        """``[n, y, x, in]`` to ``[n, y', x', out]``."""
        n, height, width, _ = hidden_states.shape
        qkv = self.qkv(hidden_states).reshape(n, height * width, 3, self.num_attention_heads, -1)
        query, key, value = qkv.unbind(2)  # [n, y x, heads, head]
        if self.query_stride:
            query = do_pool(query.reshape(n, height, width, -1), self.query_stride)
            height, width = query.shape[1:3]
            query = query.reshape(n, height * width, self.num_attention_heads, -1)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        out, _ = attend(
            self, query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attention_mask=None,
            is_causal=False, scaling=self.scale,
        )  # fmt: skip
        return self.proj(out.reshape(n, height, width, -1))


class HieraBlock(Sam2MultiScaleBlock):
    """As its parent, with the stochastic depth that SAM 2 is trained with."""

    def __init__(self, config: Sam2HieraDetConfig, stage_idx: int, block_idx: int, total_block_idx: int):
        super().__init__(config, stage_idx, block_idx, total_block_idx)
        heads = config.num_attention_heads_per_stage[stage_idx]
        self.attn = HieraAttention(config, self.dim, self.dim_out, heads, query_stride=self.query_stride)

    def forward(self, hidden_states: Tensor, shares: Tensor | None = None, **kwargs) -> Tensor:
        """``[n, y, x, in]`` to ``[n, y', x', out]``.

        Args:
            hidden_states: See above.
            shares: What the block's two branches are multiplied by, ``[2, n, 1, 1, 1]``; ``None``: nothing.
            **kwargs: Of no use; accepted as the parent does.
        """
        residual = hidden_states
        hidden_states = self.layer_norm1(hidden_states)
        if self.dim != self.dim_out:
            residual = do_pool(self.proj(hidden_states), self.query_stride)
        window = self.window_size
        if window:
            hidden_states, padded = window_partition(hidden_states, window)
        hidden_states = self.attn(hidden_states)
        if window:
            height, width = residual.shape[1:3]
            if self.query_stride:  # the windows have shrunk with the pooled queries
                window = window // self.query_stride[0]
                padded = (height + -height % window, width + -width % window)
            hidden_states = window_unpartition(hidden_states, window, padded, (height, width))
        if shares is None:
            hidden_states = residual + hidden_states
            return hidden_states + self.mlp(self.layer_norm2(hidden_states))
        hidden_states = torch.addcmul(residual, hidden_states, shares[0])
        return torch.addcmul(hidden_states, self.mlp(self.layer_norm2(hidden_states)), shares[1])


class Hiera(Sam2HieraDetModel):
    """Hiera (Ryali et al., 2023) with our blocks; returns the four stages' outputs and nothing else."""

    def __init__(self, config: Sam2HieraDetConfig, drop_path_rate: float):
        super().__init__(config)
        self.drop_path_rate = drop_path_rate
        places = [(stage, block) for stage, n in enumerate(config.blocks_per_stage) for block in range(n)]
        self.blocks = nn.ModuleList(HieraBlock(config, stage, block, i) for i, (stage, block) in enumerate(places))
        self.post_init()

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """``[n, 3, S, S]`` to four ``[n, S / 2**(2 + i), S / 2**(2 + i), channels]``."""
        hidden_states = self.patch_embed(pixel_values)
        hidden_states = hidden_states + self._get_pos_embed(hidden_states.shape[1:3])
        shares = self._shares(hidden_states)
        stages = []
        for i, block in enumerate(self.blocks):
            hidden_states = block(hidden_states, None if shares is None else shares[i])
            if i in self.stage_ends:
                stages.append(hidden_states)
        return stages

    def _shares(self, x: Tensor) -> Tensor | None:
        """Stochastic depth, drawn for all blocks at once: ``[blocks, 2, n, 1, 1, 1]``, 0 for a branch left out."""
        if not self.training or self.drop_path_rate == 0:
            return None
        depth = len(self.blocks)
        rates = torch.linspace(0, self.drop_path_rate, depth, device=x.device).view(-1, 1, 1, 1, 1, 1)
        kept = torch.rand(depth, 2, len(x), 1, 1, 1, device=x.device) >= rates
        return (kept / (1 - rates)).to(x.dtype)


class ImageEncoder(Sam2VisionModel):
    """Hiera and its feature pyramid, without the position codes that the parent makes anew for every batch."""

    def __init__(self, config: Sam2VisionConfig, drop_path_rate: float):
        super().__init__(config)
        self.backbone = Hiera(config.backbone_config, drop_path_rate)

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """``[n, 3, S, S]`` to ``[n, C, S / 4, S / 4]``, ``[n, C, S / 8, S / 8]``, ``[n, C, S / 16, S / 16]``."""
        stages = self.backbone(pixel_values)
        levels: list[Tensor] = []
        for i in range(3, -1, -1):  # from coarse to fine
            level = self.neck.convs[3 - i](stages[i].permute(0, 3, 1, 2))
            if i in self.config.fpn_top_down_levels and i != 3:
                level = level + F.interpolate(levels[-1], scale_factor=2.0, mode="nearest")
            levels.append(level)
        return levels[:0:-1]  # the coarsest (stride 32) only feeds the next
