"""Names of weights on disk and in the model, and fresh checkpoints from Meta's and Qwen's.

On disk the names are those that the original writes: Qwen2.5-VL in its layout of transformers 4 (``visual.*``,
``model.layers.*``) and SAM 2 in Meta's, but for one key (``gamma`` became ``weight``, because transformers 4 rewrote
it). In the model they follow transformers 5. Both directions are the rules below, one path segment a rule, and they
hold for every size of model. :func:`register` teaches them to ``from_pretrained`` and ``save_pretrained``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from evqa.errors import DataError, MissingDataError

__all__ = ["META_SAM2", "convert_checkpoint", "register", "to_meta_name", "to_module_name", "to_published_name"]

#: Names of Meta's SAM 2.1 files and the model that each holds.
META_SAM2 = {
    "sam2.1_hiera_tiny.pt": "tiny",
    "sam2.1_hiera_small.pt": "small",
    "sam2.1_hiera_base_plus.pt": "base_plus",
    "sam2.1_hiera_large.pt": "large",
}

_BLOCK = r"image_encoder\.trunk\.blocks\.\d+"
_OUR_BLOCK = r"image_encoder\.backbone\.blocks\.\d+"
_MEMORY = r"memory_attention\.layers\.\d+"
_DECODER = r"sam_mask_decoder"
_LAYER = _DECODER + r"\.transformer\.layers\.\d+"
_FUSER = r"memory_encoder\.fuser\.layers\.\d+"
_OUR_FUSER = r"memory_encoder\.memory_fuser\.layers\.\d+"
_SAMPLER = r"memory_encoder\.mask_downsampler"
_ATTENTION = r"(?:self_attn|cross_attn_token_to_image|cross_attn_image_to_token|cross_attn_image)"

# (what precedes on disk, what precedes in the model, segment on disk, segment in the model), inside `sam2.`. A rule
# applies where the name starts with the first (or second) pattern, followed by the segment.
_SAM2_RULES: list[tuple[str, str, str, str]] = [
    (_BLOCK, _OUR_BLOCK, "norm1", "layer_norm1"),
    (_BLOCK, _OUR_BLOCK, "norm2", "layer_norm2"),
    (_BLOCK, _OUR_BLOCK, "mlp.layers.0", "mlp.proj_in"),
    (_BLOCK, _OUR_BLOCK, "mlp.layers.1", "mlp.proj_out"),
    (r"image_encoder\.trunk", r"image_encoder\.backbone", "patch_embed.proj", "patch_embed.projection"),
    *((_MEMORY, _MEMORY, f"norm{i}", f"layer_norm{i}") for i in (1, 2, 3)),
    (rf"{_MEMORY}\.{_ATTENTION}", rf"{_MEMORY}\.{_ATTENTION}", "out_proj", "o_proj"),
    ("memory_attention", "memory_attention", "norm", "layer_norm"),
    *((_LAYER, _LAYER, f"norm{i}", f"layer_norm{i}") for i in (1, 2, 3, 4)),
    (_LAYER, _LAYER, "mlp.layers.0", "mlp.proj_in"),
    (_LAYER, _LAYER, "mlp.layers.1", "mlp.proj_out"),
    (rf"{_LAYER}\.{_ATTENTION}", rf"{_LAYER}\.{_ATTENTION}", "out_proj", "o_proj"),
    (rf"{_DECODER}\.transformer\.final_attn_token_to_image",) * 2 + ("out_proj", "o_proj"),
    (rf"{_DECODER}\.transformer",) * 2 + ("norm_final_attn", "layer_norm_final_attn"),
    (_DECODER, _DECODER, "output_upscaling.0", "upscale_conv1"),
    (_DECODER, _DECODER, "output_upscaling.1", "upscale_layer_norm"),
    (_DECODER, _DECODER, "output_upscaling.3", "upscale_conv2"),
    ("memory_encoder", "memory_encoder", "pix_feat_proj", "feature_projection"),
    ("memory_encoder", "memory_encoder", "out_proj", "projection"),
    *((_SAMPLER, _SAMPLER, f"encoder.{3 * i}", f"layers.{i}.conv") for i in range(4)),
    *((_SAMPLER, _SAMPLER, f"encoder.{3 * i + 1}", f"layers.{i}.layer_norm") for i in range(4)),
    (_SAMPLER, _SAMPLER, "encoder.12", "final_conv"),
    (_FUSER, _OUR_FUSER, "weight", "scale"),
    (_FUSER, _OUR_FUSER, "dwconv", "depthwise_conv"),
    (_FUSER, _OUR_FUSER, "norm", "layer_norm"),
    (_FUSER, _OUR_FUSER, "pwconv1", "pointwise_conv1"),
    (_FUSER, _OUR_FUSER, "pwconv2", "pointwise_conv2"),
]
# Names of the folders themselves: disk, model.
_SAM2_FOLDERS = [
    ("image_encoder.trunk.", "image_encoder.backbone."),
    ("memory_encoder.fuser.", "memory_encoder.memory_fuser."),
]

_COMPILED = [
    (
        re.compile(rf"({disk}\.){re.escape(a)}(?=\.|$)"), rf"\g<1>{b}",
        re.compile(rf"({model}\.){re.escape(b)}(?=\.|$)"), rf"\g<1>{a}",
    )
    for disk, model, a, b in _SAM2_RULES
]  # fmt: skip
_NECK = (re.compile(r"(image_encoder\.neck\.convs\.\d+\.)conv\."), re.compile(r"(image_encoder\.neck\.convs\.\d+\.)"))


def to_module_name(name: str) -> str:
    """The name in the model of a weight on disk; a name that is the model's own already stays."""
    if name.startswith("visual."):
        return "model." + name
    if name.startswith("model.") and not name.startswith(("model.visual.", "model.language_model.")):
        return "model.language_model." + name.removeprefix("model.")
    if not name.startswith("sam2."):
        return name
    inner = name.removeprefix("sam2.")
    for pattern, replacement, _, _ in _COMPILED:
        renamed, count = pattern.subn(replacement, inner, count=1) if pattern.match(inner) else (inner, 0)
        if count:
            inner = renamed
            break
    else:
        inner = _NECK[0].sub(r"\1", inner)
    for disk, ours in _SAM2_FOLDERS:
        if inner.startswith(disk):
            inner = ours + inner.removeprefix(disk)
    return "sam2." + inner


def to_published_name(name: str) -> str:
    """The name on disk of a weight of the model; the inverse of :func:`to_module_name`."""
    if name.startswith("model.visual."):
        return name.removeprefix("model.")
    if name.startswith("model.language_model."):
        return "model." + name.removeprefix("model.language_model.")
    return _sam2_on_disk(name)


def _sam2_on_disk(name: str) -> str:
    if not name.startswith("sam2."):
        return name
    inner = name.removeprefix("sam2.")
    for _, _, pattern, replacement in _COMPILED:
        if pattern.match(inner):
            inner = pattern.sub(replacement, inner, count=1)
            break
    else:
        inner = _NECK[1].sub(r"\1conv.", inner)
    for disk, ours in _SAM2_FOLDERS:
        if inner.startswith(ours):
            inner = disk + inner.removeprefix(ours)
    return "sam2." + inner


def to_meta_name(name: str) -> str:
    """The name in Meta's files of a published name ``sam2.*``."""
    return re.sub(r"^(memory_encoder\.fuser\.layers\.\d+)\.weight$", r"\1.gamma", name.removeprefix("sam2."))


def _from_meta(name: str) -> str:
    return "sam2." + re.sub(r"^(memory_encoder\.fuser\.layers\.\d+)\.gamma$", r"\1.weight", name)


# --------------------------------------------------------------------------------- transformers
_registered = False


def register() -> None:
    """Teach transformers to rename when it loads and saves our model. Doing it twice changes nothing."""
    global _registered
    if _registered:
        return
    from transformers.conversion_mapping import register_checkpoint_conversion_mapping
    from transformers.core_model_loading import WeightRenaming

    class UniPixelRenaming(WeightRenaming):
        """All our rules as one transform; its patterns are never looked at."""

        __slots__ = ("to_disk",)

        def __init__(self, to_disk: bool = False):
            super().__init__("name of a UniPixel weight on disk", "name of a UniPixel weight in the model")
            self.to_disk = to_disk

        def rename_source_key(self, source_key: str) -> tuple[str, str | None]:
            renamed = (to_published_name if self.to_disk else to_module_name)(source_key)
            # "Used" from the first key on, so that saving goes the way back whatever the layout that was loaded.
            self._was_used = True
            return renamed, self.source_patterns[0] if renamed != source_key else None

        def reverse_transform(self) -> UniPixelRenaming:
            return UniPixelRenaming(not self.to_disk)

        def __deepcopy__(self, memo: dict) -> UniPixelRenaming:
            return UniPixelRenaming(self.to_disk)

    register_checkpoint_conversion_mapping("UniPixelForConditionalGeneration", [UniPixelRenaming()], overwrite=True)
    _registered = True


# --------------------------------------------------------------------------- fresh checkpoints
#: Tokens that UniPixel adds, in this order.
NEW_TOKENS = ("<|ref|>", "<|seg|>", "<|mem|>")


def read_sam2(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Weights of one of Meta's SAM 2.1 files, under their published names (``sam2.*``).

    Only tensors are read from the file; it cannot run code.

    Raises:
        MissingDataError: No such file.
        DataError: Not such a file.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingDataError("there is no SAM 2 checkpoint here", file=path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        weights = content["model"]
        return {_from_meta(name): tensor for name, tensor in weights.items()}
    except Exception as error:
        raise DataError(f"not a SAM 2 checkpoint of Meta's ({type(error).__name__}: {error})", file=path) from None


def convert_checkpoint(
    sam2_checkpoint: str | os.PathLike[str],
    qwen_folder: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    sam2: str | Any = None,
    image_size: int = 768,
    hidden_tokens: int = 2,
    dtype: torch.dtype | str = "auto",
    seed: int = 0,
    **save_options: Any,
) -> tuple[Any, Any]:
    """A fresh UniPixel from Meta's SAM 2.1 and Qwen2.5-VL: what training starts from.

    Args:
        sam2_checkpoint: ``sam2.1_hiera_base_plus.pt`` or another SAM 2.1 of Meta's.
        qwen_folder: Folder or Hub id of Qwen2.5-VL, 3B or 7B (Instruct).
        output: Folder to write to; ``None``: do not write.
        sam2: Which SAM 2.1 it is (:func:`~evqa.models.unipixel.configuration_unipixel.sam2_preset`, or a
            :class:`~evqa.models.unipixel.UniPixelSam2Config`); by default read from the file's name.
        image_size: Side of the square that SAM 2 is to see.
        hidden_tokens: Prompt tokens for SAM 2 per ``<seg>``.
        dtype: Of the weights; by default that of Qwen's.
        seed: Of the heads that neither has, and of the Fourier matrices.
        **save_options: For ``save_pretrained`` (``max_shard_size``, ...).

    Returns:
        The model and its processor. Every weight of Qwen's and of Meta's file is in the model unchanged, but for the
        three embedding rows of the new tokens when the matrix had no spare rows.

    Raises:
        MissingDataError, DataError: The files are not there, or are not what they should be; names the weights that
            are missing, left over, or of another shape.
    """
    from transformers import AutoProcessor
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLConfig

    from evqa.models.unipixel.configuration_unipixel import UniPixelConfig, UniPixelSam2Config, sam2_preset
    from evqa.models.unipixel.modeling_unipixel import UniPixelForConditionalGeneration
    from evqa.models.unipixel.processing_unipixel import UniPixelProcessor

    name = None
    if isinstance(sam2, UniPixelSam2Config):
        sizes = UniPixelSam2Config(**{**sam2.to_dict(), "image_size": image_size})
    else:
        name = sam2_preset(os.path.basename(os.fspath(sam2_checkpoint)) if sam2 is None else sam2)
        sizes = UniPixelSam2Config.from_preset(name, image_size=image_size)
    weights = read_sam2(sam2_checkpoint)
    try:
        kind = PreTrainedConfig.get_config_dict(qwen_folder)[0].get("model_type")
    except OSError as error:
        raise MissingDataError(f"Qwen2.5-VL cannot be read: {error}", file=qwen_folder) from None
    if kind != Qwen2_5_VLConfig.model_type:
        raise DataError(f"a Qwen2.5-VL is needed, and this is of model_type {kind!r}", file=qwen_folder)
    qwen = Qwen2_5_VLConfig.from_pretrained(qwen_folder).to_dict()
    for field in ("model_type", "architectures", "transformers_version", "dtype"):
        qwen.pop(field, None)

    base = AutoProcessor.from_pretrained(qwen_folder)
    tokenizer = base.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": list(NEW_TOKENS)}, replace_extra_special_tokens=False)
    places = zip(("ref_token_id", "seg_token_id", "mem_token_id"), NEW_TOKENS, strict=True)
    ids = {field: tokenizer.convert_tokens_to_ids(token) for field, token in places}
    config = UniPixelConfig(
        **qwen, **ids, sam2_video_config=sizes, sam2_hidden_tokens=hidden_tokens, sam2_config=_HYDRA_NAMES.get(name)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, info = UniPixelForConditionalGeneration.from_pretrained(
            qwen_folder, config=config, dtype=dtype, allow_missing=True, output_loading_info=True
        )
        lost = [key for key in info["missing_keys"] if key.startswith(("model.", "lm_head."))]
        if lost or info["unexpected_keys"]:
            raise DataError(
                f"not Qwen2.5-VL: missing {sorted(lost)[:5]}, left over {sorted(info['unexpected_keys'])[:5]}",
                file=qwen_folder,
            )
        load_sam2(model, weights, sam2_checkpoint)
        model.initialize_new_parameters()
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer))  # new rows start as the mean of the old
    processor = UniPixelProcessor(
        image_processor=base.image_processor, tokenizer=tokenizer, video_processor=base.video_processor,
        chat_template=base.chat_template, sam_image_size=image_size, legacy_clock=False,
    )  # fmt: skip
    if output is not None:
        model.save_pretrained(output, **save_options)
        processor.save_pretrained(output)
    return model, processor


_HYDRA_NAMES = {
    "tiny": "configs/sam2.1_hiera_t", "small": "configs/sam2.1_hiera_s", "base_plus": "configs/sam2.1_hiera_b+",
    "large": "configs/sam2.1_hiera_l",
}  # fmt: skip


@torch.no_grad()
def load_sam2(model: Any, weights: dict[str, torch.Tensor], source: str | os.PathLike[str]) -> None:
    """Put weights under published names (:func:`read_sam2`) into a model's SAM 2, all of them.

    Raises:
        DataError: Some are missing, left over, or of another shape.
    """
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("sam2.")}
    given = {to_module_name(name): tensor for name, tensor in weights.items()}
    missing, extra = sorted(set(own) - set(given)), sorted(set(given) - set(own))
    shapes = [n for n in own if n in given and own[n].shape != given[n].shape]
    if missing or extra or shapes:
        raise DataError(
            f"not the weights of this SAM 2: {len(missing)} missing {missing[:3]}, {len(extra)} left over {extra[:3]}, "
            f"{len(shapes)} of another shape {shapes[:3]}",
            file=source,
        )
    for name, tensor in own.items():
        tensor.copy_(given[name])
