"""SAM 2.1 as UniPixel uses it: all its weights, and what is done with them for one frame.

Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024. What drives SAM 2 in transformers is for inference
with one object at a time, so :mod:`evqa.models.unipixel.tracking_unipixel` drives it instead. Its parts are in
:mod:`evqa.models.unipixel.hiera_unipixel` and :mod:`evqa.models.unipixel.sam2_blocks_unipixel`; letters in shape
comments are explained there.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig, Sam2VisionConfig
from transformers.models.sam2_video.configuration_sam2_video import Sam2VideoConfig, Sam2VideoMaskDecoderConfig
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoMemoryFuserCXBlock

from evqa.models.unipixel.codes_unipixel import FourierCode, sine_code_1d, sine_code_2d, without_autocast
from evqa.models.unipixel.configuration_unipixel import UniPixelSam2Config
from evqa.models.unipixel.hiera_unipixel import ImageEncoder
from evqa.models.unipixel.sam2_blocks_unipixel import (
    FrameFeatures,
    MaskDecoder,
    MemoryAttention,
    MemoryEncoder,
    Mlp,
    PromptEncoder,
    Tables,
)

__all__ = ["NO_OBJECT", "Prediction", "UniPixelSam2"]

#: Mask logit of an object that is not in the frame.
NO_OBJECT = -1024.0


@dataclasses.dataclass
class Prediction:
    """What SAM 2 finds in a frame, for ``n`` objects.

    Attributes:
        masks: Logits of the three candidates, ``[n, 3, S / 4, S / 4]``.
        ious: Their predicted IoU, ``[n, 3]``.
        scores: Logit that the object is in the frame, ``[n, 1]``.
        mask: The candidate of the greatest predicted IoU, ``[n, S / 4, S / 4]``.
        pointer: Summary of the object, ``[n, C]``.
    """

    masks: Tensor
    ious: Tensor
    scores: Tensor
    mask: Tensor
    pointer: Tensor


class UniPixelSam2(PreTrainedModel):
    """All weights of SAM 2.1, and what is done with them for one frame. No state: that is the tracker's.

    Args:
        config: Sizes.
        legacy_rope_no_grad: See :class:`~evqa.models.unipixel.UniPixelConfig`.
    """

    config: UniPixelSam2Config
    base_model_prefix = "sam2"
    main_input_name = "frames"
    _no_split_modules = ["UniPixelSam2"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: UniPixelSam2Config, legacy_rope_no_grad: bool = False):
        super().__init__(config)
        vision, decoder, memory = _block_configs(config)
        width = config.hidden_size
        self.image_encoder = ImageEncoder(vision, config.drop_path_rate)
        self.sam_prompt_encoder = PromptEncoder(config)
        self.sam_mask_decoder = MaskDecoder(decoder)
        self.memory_attention = MemoryAttention(config, legacy_rope_no_grad)
        self.memory_encoder = MemoryEncoder(memory)
        self.obj_ptr_proj = Mlp(width, width, width, width)
        self.obj_ptr_tpos_proj = nn.Linear(width, config.memory_dim)
        self.maskmem_tpos_enc = nn.Parameter(torch.zeros(config.num_maskmem, 1, 1, config.memory_dim))
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, width))
        self.no_obj_ptr = nn.Parameter(torch.zeros(1, width))
        self.no_obj_embed_spatial = nn.Parameter(torch.zeros(1, config.memory_dim))
        # In every checkpoint, used by none of UniPixel's paths.
        self.no_mem_pos_enc = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_downsample = nn.Conv2d(1, 1, kernel_size=4, stride=4)
        self._tables: dict[tuple, Tables] = {}
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FourierCode):
            init.normal_(module.positional_encoding_gaussian_matrix)
        elif isinstance(module, Sam2VideoMemoryFuserCXBlock):
            init.constant_(module.scale, 1e-6)
        elif isinstance(module, UniPixelSam2):
            for parameter in (
                module.maskmem_tpos_enc, module.no_mem_embed, module.no_obj_ptr, module.no_obj_embed_spatial,
                module.no_mem_pos_enc,
            ):  # fmt: skip
                init.trunc_normal_(parameter, std=0.02)

    def use_attention(self, implementation: str | None) -> None:
        """Let every block use this attention function; :meth:`set_attn_implementation` cannot see all of them."""
        for module in self.modules():
            config = getattr(module, "config", None)
            if config is not None and config is not self.config:
                config._attn_implementation_internal = implementation

    def tables(self, device: torch.device, dtype: torch.dtype) -> Tables:
        """The position tables for this device and dtype, made once (again if the Fourier matrix has changed)."""
        matrix = self.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
        key = (device, dtype, matrix.data_ptr(), matrix._version)
        if key not in self._tables:
            config, size = self.config, self.config.feature_size
            with torch.no_grad(), torch.inference_mode(False), without_autocast(device):
                head = config.hidden_size // config.memory_attention_heads
                frequencies = config.rope_theta ** -(
                    torch.arange(0, head, 4, device=device, dtype=torch.float32)[: head // 4] / head
                )
                place = torch.arange(size * size, device=device)
                angles = torch.cat(
                    [(place % size)[:, None] * frequencies, (place // size)[:, None] * frequencies], dim=-1
                )
                self._tables = {
                    key: Tables(
                        image_code=self.sam_prompt_encoder.image_code(size).to(device, dtype),
                        query_code=sine_code_2d(size, config.hidden_size, device).to(dtype),
                        memory_code=sine_code_2d(size, config.memory_dim, device).to(dtype),
                        turn=torch.polar(torch.ones_like(angles), angles),
                    )
                }
        return self._tables[key]

    # ---------------------------------------------------------------------------------- one frame
    def forward(self, do: str, *args: Any, **kwargs: Any) -> Any:
        """Call one of ``encode``, ``decode``, ``remember``, ``attend``, ``without_memory``, ``frame_codes``,
        ``pointer_code``: all that needs weights.

        What wraps modules to bring their weights (FSDP, offloading by accelerate) does so when ``forward`` is called.
        """
        return getattr(self, do)(*args, **kwargs)

    def encode(self, frames: Tensor) -> FrameFeatures:
        """Encode normalised frames ``[n, 3, S, S]``."""
        fine, middle, top = self.image_encoder(frames.to(self.no_mem_embed.dtype))
        return FrameFeatures(
            top, self.sam_mask_decoder.conv_s0(fine).contiguous(), self.sam_mask_decoder.conv_s1(middle).contiguous()
        )

    def decode(
        self, features: Tensor, frame: FrameFeatures, prompts: Tensor | None, tables: Tables, *, keep_absent: bool
    ) -> Prediction:
        """Masks of objects in a frame.

        Args:
            features: ``[n, C, h, w]``, conditioned on memory or on having none.
            frame: The frame once per object.
            prompts: Prompt tokens ``[n, tokens, C]``; ``None``: memory alone says which object is meant.
            tables: Of :meth:`tables`.
            keep_absent: Leave the mask logits of an absent object as they are (training).
        """
        n = len(features)
        # Without a click SAM 2 gets one "not a point", and its prompt encoder pads with another.
        sparse = self.sam_prompt_encoder.not_a_point_embed.weight.expand(n, 2, -1)
        if prompts is not None:
            sparse = torch.cat([sparse, prompts], dim=1)
        masks, ious, tokens, scores = self.sam_mask_decoder(
            image_embeddings=features,
            image_positional_embeddings=tables.image_code,
            sparse_prompt_embeddings=sparse[:, None],
            dense_prompt_embeddings=self.sam_prompt_encoder.no_mask_embed.weight[..., None, None],
            multimask_output=True,
            high_resolution_features=[frame.fine, frame.middle],
        )
        masks, ious, tokens, scores = masks[:, 0], ious[:, 0], tokens[:, 0], scores[:, 0]
        present = scores > 0  # [n, 1]
        if not keep_absent:
            masks = torch.where(present[..., None, None], masks, NO_OBJECT)
        best = ious.argmax(dim=-1)[:, None]  # [n, 1]
        mask = masks.take_along_dim(best[..., None, None], dim=1)[:, 0]
        token = tokens.take_along_dim(best[..., None], dim=1)[:, 0]
        pointer = torch.where(present, self.obj_ptr_proj(token), self.no_obj_ptr)
        return Prediction(masks, ious, scores, mask, pointer)

    def without_memory(self, top: Tensor) -> Tensor:
        """A frame's features ``[n, C, h, w]`` where there is no memory to condition them on."""
        return top + self.no_mem_embed.view(1, -1, 1, 1)

    def frame_codes(self) -> Tensor:
        """Codes of how long ago a frame was, ``[num_maskmem, m]``; a copy, since weights may go after the call."""
        return self.maskmem_tpos_enc[:, 0, 0].clone()

    def attend(self, top: Tensor, memory: Tensor, code: Tensor, tables: Tables, unturned: int) -> Tensor:
        """A frame's features ``[n, C, h, w]`` conditioned on memory; see :class:`MemoryAttention`."""
        features = self.memory_attention(top.flatten(2).transpose(1, 2), memory, code, tables, unturned)
        return features.transpose(1, 2).reshape(top.shape)

    def remember(self, frame: FrameFeatures, prediction: Prediction) -> Tensor:
        """What is kept of a frame and the mask found in it: ``[n, h w, m]``."""
        size, config = self.config.image_size, self.config
        mask = F.interpolate(prediction.mask[:, None].float(), (size, size), mode="bilinear", align_corners=False)
        mask = mask.sigmoid() * config.sigmoid_scale + config.sigmoid_bias
        memory = self.memory_encoder(frame.top, mask.to(frame.top.dtype))  # [n, m, h, w]
        absent = (prediction.scores <= 0).to(memory.dtype)[..., None, None]
        memory = memory + absent * self.no_obj_embed_spatial[..., None, None]
        return memory.flatten(2).transpose(1, 2)

    def pointer_code(self, ages: Tensor) -> Tensor:
        """Temporal codes of object pointers: ages ``[n]`` (1: as old as any can be) to ``[n, m]``."""
        code = sine_code_1d(ages, self.config.hidden_size)
        return self.obj_ptr_tpos_proj(code.to(self.obj_ptr_tpos_proj.weight.dtype))


def _block_configs(
    config: UniPixelSam2Config,
) -> tuple[Sam2VisionConfig, Sam2VideoMaskDecoderConfig, Sam2VideoConfig]:
    """Our sizes as configurations of transformers' image encoder, mask decoder and memory encoder."""
    dims, size, width = config.stage_dims, config.image_size, config.hidden_size
    backbone = Sam2HieraDetConfig(
        hidden_size=config.embed_dim,
        num_attention_heads=config.num_heads,
        image_size=[size, size],
        window_positional_embedding_background_size=config.background_size,
        blocks_per_stage=config.stages,
        embed_dim_per_stage=dims,
        num_attention_heads_per_stage=[config.num_heads * 2**i for i in range(4)],
        window_size_per_stage=config.window_spec,
        global_attention_blocks=config.global_attention_blocks,
        initializer_range=config.initializer_range,
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=dims[::-1],
        backbone_feature_sizes=[[size // s, size // s] for s in (4, 8, 16)],
        fpn_hidden_size=width,
        initializer_range=config.initializer_range,
    )
    decoder = Sam2VideoMaskDecoderConfig(
        hidden_size=width,
        mlp_dim=config.decoder_mlp_dim,
        num_attention_heads=config.decoder_heads,
        iou_head_hidden_dim=config.iou_head_dim,
        dynamic_multimask_via_stability=False,
    )
    memory = Sam2VideoConfig(
        image_size=size,
        memory_encoder_hidden_size=width,
        memory_encoder_output_channels=config.memory_dim,
        mask_downsampler_embed_dim=width,
        memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=4 * width,
        memory_fuser_num_layers=config.memory_fuser_layers,
    )
    for block in (vision, backbone, decoder, memory):
        block._attn_implementation = config._attn_implementation
    return vision, decoder, memory
