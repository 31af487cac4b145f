"""The parts of SAM 2.1 but its image encoder, on the building blocks of transformers.

The blocks there (:mod:`transformers.models.sam2`, :mod:`transformers.models.sam2_video`) are plain differentiable
modules. Where one here differs from its parent, its docstring says why. Names of weights are the published ones, up
to the rules of :mod:`evqa.models.unipixel.conversion_unipixel`.

Letters in shape comments: ``n`` objects or frames in a batch, ``C`` = ``hidden_size``, ``m`` = ``memory_dim``,
``h w`` = the stride-16 feature map, ``S`` = ``image_size``.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.sam2.modeling_sam2 import eager_attention_forward
from transformers.models.sam2_video.configuration_sam2_video import Sam2VideoMaskDecoderConfig
from transformers.models.sam2_video.modeling_sam2_video import (
    Sam2VideoLayerNorm,
    Sam2VideoMaskDecoder,
    Sam2VideoMemoryEncoder,
)

from evqa.models.unipixel.codes_unipixel import FourierCode
from evqa.models.unipixel.configuration_unipixel import UniPixelSam2Config

__all__ = [
    "FrameFeatures",
    "MaskDecoder",
    "MemoryAttention",
    "MemoryEncoder",
    "Mlp",
    "PromptEncoder",
    "Tables",
    "rotated",
]


@dataclasses.dataclass
class Tables:
    """What is the same for every frame and object: made once per device and dtype, see :meth:`UniPixelSam2.tables`.

    Attributes:
        image_code: Fourier code of the feature map for the mask decoder, ``[1, C, h, w]``.
        query_code: Sine code of the feature map for memory attention, ``[h w, C]``.
        memory_code: Sine code of a memory, ``[h w, m]``.
        turn: The rotary embedding, by which adjacent channels turn together: complex64 ``[h w, head / 2]``.
    """

    image_code: Tensor
    query_code: Tensor
    memory_code: Tensor
    turn: Tensor


@dataclasses.dataclass
class FrameFeatures:
    """Encoded frames, or those of one frame once per object.

    Attributes:
        top: ``[n, C, h, w]``, stride 16.
        fine: ``[n, C / 8, 4 h, 4 w]``, stride 4, projected for the mask decoder.
        middle: ``[n, C / 4, 2 h, 2 w]``, stride 8, projected for the mask decoder.
    """

    top: Tensor
    fine: Tensor
    middle: Tensor

    def __len__(self) -> int:
        return len(self.top)

    def map(self, function: Callable[[Tensor], Tensor]) -> FrameFeatures:
        """Every level through ``function``."""
        return FrameFeatures(function(self.top), function(self.fine), function(self.middle))


# -------------------------------------------------------------------------------- prompt encoder
class PromptEncoder(nn.Module):
    """SAM's prompt encoder: points and boxes to tokens. Parameter names are the published ones.

    Our own because its Fourier codes must be float32, and because published files hold four point embeddings where
    transformers has one matrix. The mask branch is never used; its weights are part of the files.
    """

    def __init__(self, config: UniPixelSam2Config):
        super().__init__()
        width, channels = config.hidden_size, 16
        self.image_size = config.image_size
        self.pe_layer = FourierCode(2, width // 2)
        #: negative point, positive point, first and second corner of a box
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, width) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, width)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, channels // 4, kernel_size=2, stride=2),
            Sam2VideoLayerNorm(channels // 4, data_format="channels_first"),
            nn.GELU(),
            nn.Conv2d(channels // 4, channels, kernel_size=2, stride=2),
            Sam2VideoLayerNorm(channels, data_format="channels_first"),
            nn.GELU(),
            nn.Conv2d(channels, width, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, width)

    def forward(self, points: Tensor, labels: Tensor) -> Tensor:
        """Tokens of prompts, a padding token last.

        Args:
            points: Float ``[n, points, 2]``, x and y in pixels of the square image.
            labels: Integer ``[n, points]``: 0 negative, 1 positive, 2 and 3 the corners of a box.

        Returns:
            ``[n, points + 1, C]``.
        """
        # + 0.5: a pixel's coordinates mean its centre.
        code = self.pe_layer((points.float() + 0.5) / self.image_size)  # [n, points, C] float32
        kinds = torch.cat([embedding.weight for embedding in self.point_embeddings])  # [4, C]
        tokens = code.to(kinds.dtype) + kinds[labels.long()]
        padding = self.not_a_point_embed.weight.expand(len(points), 1, -1)
        return torch.cat([tokens, padding], dim=1)

    def image_code(self, size: int) -> Tensor:
        """Fourier code of a feature map, float32 ``[1, C, size, size]``."""
        place = (torch.arange(size, device=self.pe_layer.positional_encoding_gaussian_matrix.device) + 0.5) / size
        y, x = torch.meshgrid(place, place, indexing="ij")
        return self.pe_layer(torch.stack([x, y], dim=-1)).permute(2, 0, 1)[None]


# -------------------------------------------------------------------------------------- memory
class RotaryAttention(nn.Module):
    """Attention of memory attention: rotary queries and keys; the last keys (object pointers) are not turned."""

    def __init__(self, config: UniPixelSam2Config, key_dim: int, legacy_no_grad: bool):
        super().__init__()
        width = config.hidden_size
        self.config = config
        self.heads = config.memory_attention_heads
        self.scaling = (width // self.heads) ** -0.5
        self.dropout_p = config.memory_dropout
        # The original turns queries and keys under `no_grad`, so no gradient reaches what makes them.
        self.legacy_no_grad = legacy_no_grad
        self.is_causal = False
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(key_dim, width)
        self.v_proj = nn.Linear(key_dim, width)
        self.o_proj = nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, turn: Tensor, unturned: int) -> Tensor:
        """Attend.

        Args:
            query: ``[n, h w, C]``.
            key, value: ``[n, frames * h w + unturned, key_dim]``.
            turn: See :class:`Tables`.
            unturned: How many of the last keys have no place.
        """
        n, places = query.shape[:2]
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [n, heads, length, head]
            for projection, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        turned = key.shape[2] - unturned
        query = self._turned(query, turn)
        placed = key[:, :, :turned].unflatten(2, (-1, places))  # [n, heads, frames, h w, head]
        placed = self._turned(placed, turn).flatten(2, 3)
        key = torch.cat([placed, key[:, :, turned:]], dim=2) if unturned else placed
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        out, _ = attend(
            self, query, key, value, attention_mask=None, scaling=self.scaling, is_causal=False,
            dropout=self.dropout_p if self.training else 0.0,
        )  # fmt: skip
        return self.o_proj(out.reshape(n, places, -1))

    def _turned(self, x: Tensor, turn: Tensor) -> Tensor:
        turned = rotated(x, turn)
        return turned.detach() if self.legacy_no_grad else turned


def rotated(x: Tensor, turn: Tensor) -> Tensor:
    """Rotary embedding of ``[..., h w, head]`` in float32, in three passes over memory; see :class:`Tables`."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)


class MemoryAttentionLayer(GradientCheckpointingLayer):
    """Self-attention over the frame, attention to the memories, feed-forward."""

    def __init__(self, config: UniPixelSam2Config, legacy_no_grad: bool):
        super().__init__()
        width, dropout = config.hidden_size, config.memory_dropout
        self.self_attn = RotaryAttention(config, width, legacy_no_grad)
        self.cross_attn_image = RotaryAttention(config, config.memory_dim, legacy_no_grad)
        self.linear1 = nn.Linear(width, config.memory_feed_forward)
        self.linear2 = nn.Linear(config.memory_feed_forward, width)
        self.layer_norm1, self.layer_norm2, self.layer_norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout, self.dropout1, self.dropout2, self.dropout3 = (nn.Dropout(dropout) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor, keys: Tensor, turn: Tensor, unturned: int) -> Tensor:
        """See :meth:`MemoryAttention.forward`; ``keys`` is memory plus code."""
        y = self.layer_norm1(x)
        x = x + self.dropout1(self.self_attn(y, y, y, turn, 0))
        y = self.layer_norm2(x)
        x = x + self.dropout2(self.cross_attn_image(y, keys, memory, turn, unturned))
        # Dropout before ReLU is the same as after it, and leaves one tensor for the backward pass instead of two.
        y = self.linear2(F.relu(self.dropout(self.linear1(self.layer_norm3(x)))))
        return x + self.dropout3(y)


class MemoryAttention(nn.Module):
    """Conditions a frame's features on what is remembered of an object.

    Our own and not transformers': there the rotary table is tied to a fixed grid, the memory width to 64, and the
    layers are not checkpointed; nor could the original's detached queries be had.
    """

    def __init__(self, config: UniPixelSam2Config, legacy_no_grad: bool):
        super().__init__()
        self.layers = nn.ModuleList(
            MemoryAttentionLayer(config, legacy_no_grad) for _ in range(config.memory_attention_layers)
        )
        self.layer_norm = nn.LayerNorm(config.hidden_size)

    def forward(self, features: Tensor, memory: Tensor, code: Tensor, tables: Tables, unturned: int) -> Tensor:
        """Condition features.

        Args:
            features: ``[n, h w, C]``.
            memory: ``[n, keys, m]``: memories of ``h w`` keys each, then ``unturned`` keys of object pointers.
            code: What is added to make them keys, ``[1 or n, keys, m]``.
            tables: Of :meth:`UniPixelSam2.tables`.
            unturned: See above.

        Returns:
            ``[n, h w, C]``.
        """
        x, keys = features + 0.1 * tables.query_code, memory + code
        for layer in self.layers:
            x = layer(x, memory, keys, tables.turn, unturned)
        return self.layer_norm(x)


class MemoryEncoder(Sam2VideoMemoryEncoder):
    """As its parent, without the sine code that the parent makes anew for every frame."""

    def forward(self, vision_features: Tensor, masks: Tensor) -> Tensor:
        """``[n, C, h, w]`` and ``[n, 1, S, S]`` to ``[n, m, h, w]``."""
        for layer in self.mask_downsampler.layers:
            masks = layer.activation(_norm_over_channels(layer.layer_norm, layer.conv(masks)))
        fused = self.feature_projection(vision_features) + self.mask_downsampler.final_conv(masks)
        return self.projection(self.memory_fuser(fused))


def _norm_over_channels(norm: Sam2VideoLayerNorm, x: Tensor) -> Tensor:
    """Layer norm over the channels of ``[n, channels, h, w]``.

    torch's kernel gives a block of threads to every pixel, of which a mask has 147,456 with 4 channels each; with so
    few channels sums over planes are several times faster.
    """
    if not x.is_cuda or x.shape[1] > 16 or torch.is_grad_enabled():
        return norm(x)
    wide = x.float()
    variance, mean = torch.var_mean(wide, dim=1, keepdim=True, correction=0)
    scale = norm.weight.float()[:, None, None] * torch.rsqrt(variance + norm.eps)
    return ((wide - mean) * scale + norm.bias[:, None, None]).to(x.dtype)


class Mlp(nn.Module):
    """Linear layers with ReLU between; parameter names are the published ones.

    Args:
        sizes: Widths, from input to output.
        sigmoid: End with a sigmoid.
    """

    def __init__(self, *sizes: int, sigmoid: bool = False):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.sigmoid = sigmoid

    def forward(self, x: Tensor) -> Tensor:
        """``[..., first size]`` to ``[..., last size]``."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        x = self.layers[-1](x)
        return x.sigmoid() if self.sigmoid else x


class MaskDecoder(Sam2VideoMaskDecoder):
    """As its parent, with heads whose parameter names are the published ones.

    In transformers those heads have names (``layers.0``) that on disk belong to other layers of the same heads: a
    checkpoint in one layout would be read as the other without an error.
    """

    def __init__(self, config: Sam2VideoMaskDecoderConfig):
        super().__init__(config)
        width, hidden = config.hidden_size, config.iou_head_hidden_dim
        masks = self.num_mask_tokens
        self.output_hypernetworks_mlps = nn.ModuleList(Mlp(width, width, width, width // 8) for _ in range(masks))
        self.iou_prediction_head = Mlp(width, *[hidden] * (config.iou_head_depth - 1), masks, sigmoid=True)
        self.pred_obj_score_head = Mlp(width, width, width, 1)
