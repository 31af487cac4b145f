"""Configuration of UniPixel: the published flat form and ours, and the sizes of SAM 2.

A published ``config.json`` names a SAM 2 by its hydra file (``sam2_config``); ours holds every size
(``sam2_video_config``). Both load; what is saved holds both, so that the original code can read it too.
"""

from __future__ import annotations

import contextlib
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLConfig

from evqa.errors import DataError
from evqa.models.unipixel.auto_unipixel import register_models

try:  # transformers 5.17 and before has no specifications of sub-configs, only their classes
    from transformers.configuration_utils import SubConfigSpec
except ImportError:
    SubConfigSpec = None

__all__ = ["SAM2_PRESETS", "UniPixelConfig", "UniPixelSam2Config", "sam2_preset"]

#: Written into every config that we save. A config without it comes from somewhere else.
FORMAT = 1

#: Sizes of the Hiera encoders of SAM 2.1 (Ravi et al., 2024; ``sam2/configs/sam2.1/*.yaml``). Stochastic depth is in
#: none of the inference files; 0.1 for base+ is that of the training file, which UniPixel uses.
SAM2_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "embed_dim": 96, "num_heads": 1, "stages": [1, 2, 7, 2], "global_attention_blocks": [5, 7, 9],
        "window_spec": [8, 4, 14, 7], "background_size": [7, 7], "drop_path_rate": 0.0,
    },
    "small": {
        "embed_dim": 96, "num_heads": 1, "stages": [1, 2, 11, 2], "global_attention_blocks": [7, 10, 13],
        "window_spec": [8, 4, 14, 7], "background_size": [7, 7], "drop_path_rate": 0.0,
    },
    "base_plus": {
        "embed_dim": 112, "num_heads": 2, "stages": [2, 3, 16, 3], "global_attention_blocks": [12, 16, 20],
        "window_spec": [8, 4, 14, 7], "background_size": [14, 14], "drop_path_rate": 0.1,
    },
    "large": {
        "embed_dim": 144, "num_heads": 2, "stages": [2, 6, 36, 4], "global_attention_blocks": [23, 33, 43],
        "window_spec": [8, 4, 16, 8], "background_size": [7, 7], "drop_path_rate": 0.1,
    },
}  # fmt: skip

_SPELLINGS = {"t": "tiny", "s": "small", "b+": "base_plus", "l": "large", "base+": "base_plus"}


def sam2_preset(name: str) -> str:
    """The preset that a name means.

    Args:
        name: ``"base_plus"``, ``"b+"``, ``"configs/sam2.1_hiera_b+"``, ``"sam2.1_hiera_base_plus.pt"``, and the like.

    Raises:
        DataError: None of the four SAM 2.1 models.
    """
    short = name.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".yaml").removesuffix(".pt")
    for prefix in ("sam2.1_hiera_", "sam2.1-hiera-", "hiera_"):
        short = short.removeprefix(prefix)
    short = _SPELLINGS.get(short, short).replace("-", "_")
    if short not in SAM2_PRESETS:
        raise DataError(
            f"unknown SAM 2 configuration {name!r} (field sam2_config): SAM 2.1 has {', '.join(SAM2_PRESETS)}; "
            "for any other give its sizes as sam2_video_config"
        )
    return short


@strict
class UniPixelSam2Config(PreTrainedConfig):
    """Sizes of the SAM 2.1 inside UniPixel; the defaults are hiera-base+.

    Our own fields, not those of ``Sam2VideoConfig``: those were renamed between versions of transformers, and a saved
    checkpoint must load in all of them.

    Args:
        image_size: Side of the square that frames are resized to, pixels; a multiple of 32.
        embed_dim: Channels of the first Hiera stage; every further stage has twice as many.
        num_heads: Attention heads of the first stage; every further stage has twice as many.
        stages: Blocks in each of the four stages.
        global_attention_blocks: Blocks (counted over all stages) that attend over the whole image.
        window_spec: Window side of each stage, in its own tokens.
        background_size: Height and width of the stored position embedding.
        drop_path_rate: Stochastic depth of the last block in training, falling linearly to 0 at the first.
        hidden_size: Channels after the neck: of prompts, mask decoder and pointers.
        memory_dim: Channels of a memory; must divide ``hidden_size``.
        memory_attention_layers: Layers of memory attention.
        memory_feed_forward: Width of their feed-forward part.
        memory_dropout: Dropout in memory attention, in training.
        rope_theta: Base of its rotary embedding.
        memory_fuser_layers: Blocks of the memory encoder.
        decoder_heads: Heads of the mask decoder.
        decoder_mlp_dim: Width of its feed-forward part.
        iou_head_dim: Width of the head that predicts IoU.
        num_maskmem: Frames of memory, the first frame included.
        max_object_pointers: Frames whose object pointers are attended to, the first frame included.
        sigmoid_scale, sigmoid_bias: How mask probabilities are scaled before they are remembered.
        initializer_range: Standard deviation of new weights.
    """

    model_type = "unipixel_sam2"
    base_config_key = "sam2_video_config"

    image_size: int = 1024
    embed_dim: int = 112
    num_heads: int = 2
    stages: list[int] | tuple[int, ...] = (2, 3, 16, 3)
    global_attention_blocks: list[int] | tuple[int, ...] = (12, 16, 20)
    window_spec: list[int] | tuple[int, ...] = (8, 4, 14, 7)
    background_size: list[int] | tuple[int, ...] = (14, 14)
    drop_path_rate: float | int = 0.1
    hidden_size: int = 256
    memory_dim: int = 64
    memory_attention_layers: int = 4
    memory_attention_heads: int = 1
    memory_feed_forward: int = 2048
    memory_dropout: float | int = 0.1
    rope_theta: float | int = 10000.0
    memory_fuser_layers: int = 2
    decoder_heads: int = 8
    decoder_mlp_dim: int = 2048
    iou_head_dim: int = 256
    num_maskmem: int = 7
    max_object_pointers: int = 16
    sigmoid_scale: float | int = 20.0
    sigmoid_bias: float | int = -10.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        """Check that the sizes fit together."""
        for name in ("stages", "global_attention_blocks", "window_spec", "background_size"):
            setattr(self, name, list(getattr(self, name)))
        super().__post_init__(**kwargs)
        problem = None
        if self.image_size < 32 or self.image_size % 32:
            problem = f"image_size must be a multiple of 32, got {self.image_size}"
        elif len(self.stages) != 4 or len(self.window_spec) != 4:
            problem = f"stages and window_spec need four numbers each, got {self.stages} and {self.window_spec}"
        elif (self.image_size // 4) % self.window_spec[0]:
            problem = f"image_size / 4 must be a multiple of the first window {self.window_spec[0]}"
        elif self.hidden_size % self.memory_dim:
            problem = f"memory_dim {self.memory_dim} must divide hidden_size {self.hidden_size}"
        elif self.num_maskmem < 1 or self.max_object_pointers < 2:
            problem = (
                "num_maskmem must be at least 1 and max_object_pointers at least 2, got "
                f"{self.num_maskmem} and {self.max_object_pointers}"
            )
        if problem:
            raise DataError(f"SAM 2 configuration: {problem}")

    @classmethod
    def from_preset(cls, name: str, **changes: Any) -> UniPixelSam2Config:
        """One of the SAM 2.1 models (:func:`sam2_preset` reads the name), with changes."""
        return cls(**{**SAM2_PRESETS[sam2_preset(name)], **changes})

    @property
    def stage_dims(self) -> list[int]:
        """Channels of the four Hiera stages."""
        return [self.embed_dim * 2**i for i in range(4)]

    @property
    def feature_size(self) -> int:
        """Side of the coarsest feature map that is used (stride 16)."""
        return self.image_size // 16


@strict
class UniPixelConfig(Qwen2_5_VLConfig):
    """Configuration of :class:`~evqa.models.unipixel.UniPixelForConditionalGeneration`.

    Fields up to ``conv_type`` are those of published files. Further ones come from Qwen2.5-VL.

    Args:
        sam2_video_config: Sizes of SAM 2. Built from ``sam2_config`` and ``sam2_image_size`` when absent; with neither
            there is no SAM 2 and no masks.
        sam2_config: Name of a SAM 2.1 (:func:`sam2_preset`).
        sam2_image_size: Side of the square that SAM 2 sees, pixels (published models: 768).
        sam2_hidden_tokens: Prompt tokens for SAM 2 per ``<seg>``.
        sam2_batch_mode: Segment every frame on its own, without memory.
        sam2_enable_decoder: ``False``: no masks, though there is a SAM 2 (training stage 1).
        sample_objects: In training, supervise at most so many random ``<seg>`` per sample; -1: all.
        ref_token_id, seg_token_id, mem_token_id: Ids of ``<|ref|>``, ``<|seg|>``, ``<|mem|>``.
        base_model_path: What the original code loads below an adapter.
        sam2_checkpoint, sam2_apply_postprocessing, sam2_inference_mode, base_model, conv_type: Kept for the original
            code; not used here.
        legacy_mem_order: Pool ``<mem>`` features in the vision tower's window order, as published weights were trained
            (their masks are in raster order, so the wrong patches are pooled).
        legacy_rope_no_grad: Let no gradient through the rotary embedding of memory attention, as the original code.
        legacy_clock: Take whole seconds per temporal step of the video positions, as transformers 4 does, and let the
            processor assume 2 frames a second.
            The three are on when a published config is loaded, and off otherwise.
        evqa_format: Marks a config written by evqa.
    """

    model_type = "pixel_qwen2_5_vl"
    if SubConfigSpec is not None:
        sub_configs_defaults = {
            **Qwen2_5_VLConfig.sub_configs_defaults,
            "sam2_video_config": SubConfigSpec(UniPixelSam2Config, optional=True),
        }
    else:
        sub_configs = {**Qwen2_5_VLConfig.sub_configs, "sam2_video_config": UniPixelSam2Config}

    sam2_video_config: dict | PreTrainedConfig | None = None
    sam2_config: str | None = None
    sam2_checkpoint: str | None = None
    sam2_image_size: int | None = None
    sam2_hidden_tokens: int = 2
    sam2_batch_mode: bool = False
    sam2_apply_postprocessing: bool = False
    sam2_enable_decoder: bool = True
    sam2_inference_mode: bool = False
    sample_objects: int = -1
    ref_token_id: int | None = 151665
    seg_token_id: int | None = 151666
    mem_token_id: int | None = 151667
    base_model: str | None = None
    base_model_path: str | None = None
    conv_type: str | None = None
    legacy_mem_order: bool | None = None
    legacy_rope_no_grad: bool | None = None
    legacy_clock: bool | None = None
    evqa_format: int | None = None

    def __post_init__(self, **kwargs):
        """Resolve SAM 2 and the switches; ``kwargs`` are fields of Qwen2.5-VL in their published, flat form."""
        # Only the original code writes these two fields, and only evqa its mark: that tells where a config is from.
        published = self.evqa_format is None and (self.base_model is not None or self.conv_type is not None)
        self.base_model, self.conv_type = self.base_model or "qwen2_5_vl", self.conv_type or "chatml"
        for name in ("legacy_mem_order", "legacy_rope_no_grad", "legacy_clock"):
            if getattr(self, name) is None:
                setattr(self, name, published)
        self.evqa_format = FORMAT
        self._resolve_sam2()
        super().__post_init__(**kwargs)
        with contextlib.suppress(ImportError):  # without torch there are configurations, but no models
            register_models()

    def _resolve_sam2(self) -> None:
        given = self.sam2_video_config
        if isinstance(given, dict):
            given = UniPixelSam2Config(**{"image_size": self.sam2_image_size or 1024, **given})
        elif given is None and self.sam2_config is not None:
            given = UniPixelSam2Config.from_preset(self.sam2_config, image_size=self.sam2_image_size or 1024)
        if given is not None:
            if self.sam2_image_size not in (None, given.image_size):
                raise DataError(
                    f"sam2_image_size is {self.sam2_image_size}, but sam2_video_config.image_size is {given.image_size}"
                )
            self.sam2_image_size = given.image_size
        self.sam2_video_config = given

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> UniPixelConfig:
        """As in transformers; besides, our own fields among ``kwargs`` take part in building the config.

        Older transformers sets them afterwards, when SAM 2 has been built from the old ones.
        """
        ours = {name: kwargs.pop(name) for name in list(kwargs) if name in _OWN_FIELDS}
        config_dict = {**config_dict, **ours}
        if "sam2_image_size" in ours and isinstance(config_dict.get("sam2_video_config"), dict):
            config_dict["sam2_video_config"] = {
                **config_dict["sam2_video_config"], "image_size": ours["sam2_image_size"]
            }  # fmt: skip
        return super().from_dict(config_dict, **kwargs)


_OWN_FIELDS = frozenset(UniPixelConfig.__annotations__)
