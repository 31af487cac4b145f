"""Random models of every local family, a few thousand weights each, with a tokenizer of bytes; nothing is downloaded.

``save(family, folder)`` writes a folder that ``from_pretrained`` of transformers' own classes reads.
"""

from __future__ import annotations

import itertools
from pathlib import Path

SPECIAL = [
    "<pad>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
    "<image>", "<video>", "<img>", "</img>", "<IMG_CONTEXT>",
]  # fmt: skip
VOCABULARY = 256 + len(SPECIAL) + 1  # room for what a model is taught to say

_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == 'image' %}IMAGE"
    "{% elif c.type == 'video' %}VIDEO{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<|im_end|>", padding_side="left",
        extra_special_tokens={
            "image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "vision_start_token": "<|vision_start|>",
            "vision_end_token": "<|vision_end|>", "start_image_token": "<img>", "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
        },
    )  # fmt: skip


def _ids(tokenizer) -> dict[str, int]:
    return {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}


def _template(image: str, video: str) -> str:
    return _TEMPLATE.replace("IMAGE", image).replace("VIDEO", video)


def _text(model_type: str, **more) -> dict:
    return {
        "model_type": model_type, "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 8192,
        "head_dim": 16, "tie_word_embeddings": False, **more,
    }  # fmt: skip


def _qwen2_5_vl(tokenizer, ids):
    import transformers as t

    config = t.Qwen2_5_VLConfig(
        text_config=_text(
            "qwen2_5_vl_text", rope_parameters={"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
        ),
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32,
            "fullatt_block_indexes": [1], "window_size": 56, "tokens_per_second": 2,
        },
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    size = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    processor = t.Qwen2_5_VLProcessor(
        t.Qwen2VLImageProcessor(size=size), tokenizer, t.Qwen2VLVideoProcessor(size=size),
        chat_template=_template(
            "<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>"
        ),
    )  # fmt: skip
    return t.Qwen2_5_VLForConditionalGeneration(config), processor


def _qwen3(tokenizer, ids, *, experts: bool):
    import transformers as t

    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4, "mrope_interleaved": True}
    text = _text("qwen3_vl_moe_text" if experts else "qwen3_vl_text", rope_parameters=rope)
    if experts:
        text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "decoder_sparse_step": 1}
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32,
        "deepstack_visual_indexes": [0], "num_position_embeddings": 64, "patch_size": 16,
    }  # fmt: skip
    names = {
        "image_token_id": ids["<|image_pad|>"], "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"], "vision_end_token_id": ids["<|vision_end|>"],
    }  # fmt: skip
    config_class, model_class = (
        (t.Qwen3VLMoeConfig, t.Qwen3VLMoeForConditionalGeneration)
        if experts
        else (t.Qwen3VLConfig, t.Qwen3VLForConditionalGeneration)
    )
    size = {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
    processor = t.Qwen3VLProcessor(
        t.Qwen2VLImageProcessor(size=size, patch_size=16), tokenizer, t.Qwen3VLVideoProcessor(size=size),
        chat_template=_template(
            "<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>"
        ),
    )  # fmt: skip
    return model_class(config_class(text_config=text, vision_config=vision, **names)), processor


def _qwen3_vl(tokenizer, ids):
    return _qwen3(tokenizer, ids, experts=False)


def _qwen3_vl_moe(tokenizer, ids):
    return _qwen3(tokenizer, ids, experts=True)


def _video_llama_3(tokenizer, ids):
    import transformers as t

    config = t.VideoLlama3Config(
        text_config=_text("qwen2"),
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14,
        },
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
    )  # fmt: skip
    size = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    processor = t.VideoLlama3Processor(
        t.VideoLlama3ImageProcessor(size=size), tokenizer, t.VideoLlama3VideoProcessor(size=size),
        chat_template=_template("<|image_pad|>", "<|video_pad|>"),
    )  # fmt: skip
    return t.VideoLlama3ForConditionalGeneration(config), processor


def _internvl(tokenizer, ids):
    import transformers as t

    config = t.InternVLConfig(
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": [28, 28], "patch_size": [14, 14],
        },
        text_config=_text("qwen2"), image_token_id=ids["<IMG_CONTEXT>"], image_seq_length=1, tie_word_embeddings=False,
    )  # fmt: skip
    size = {"height": 28, "width": 28}
    processor = t.InternVLProcessor(
        t.GotOcr2ImageProcessor(size=size), tokenizer, t.InternVLVideoProcessor(size=size), image_seq_length=1,
        chat_template=_template("<IMG_CONTEXT>", "<|video_pad|>"),
    )  # fmt: skip
    return t.InternVLForConditionalGeneration(config), processor


def _llava_onevision(tokenizer, ids):
    import transformers as t

    config = t.LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "vision_use_head": False,
        },
        text_config=_text("qwen2"), image_token_index=ids["<|image_pad|>"], video_token_index=ids["<|video_pad|>"],
        image_grid_pinpoints=[[28, 28], [28, 56], [56, 28]], tie_word_embeddings=False,
    )  # fmt: skip
    size = {"height": 28, "width": 28}
    processor = t.LlavaOnevisionProcessor(
        t.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=[[28, 28], [28, 56], [56, 28]]), tokenizer,
        t.LlavaOnevisionVideoProcessor(size=size), num_image_tokens=4, vision_feature_select_strategy="full",
        chat_template=_template("<|image_pad|>", "<|video_pad|>"),
    )  # fmt: skip
    return t.LlavaOnevisionForConditionalGeneration(config), processor


BUILDERS = {
    "qwen2_5_vl": _qwen2_5_vl, "qwen3_vl": _qwen3_vl, "qwen3_vl_moe": _qwen3_vl_moe, "video_llama_3": _video_llama_3,
    "internvl": _internvl, "llava_onevision": _llava_onevision,
}  # fmt: skip


def _teach(model, chain: list[int]) -> None:
    """After each token of the chain comes the next: layers add nothing, so the last token alone decides."""
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")) and "visual" not in name and "vision" not in name:
            parameter.zero_()
    words = model.get_input_embeddings().weight.normal_()
    head = model.get_output_embeddings().weight.zero_()
    for last, following in itertools.pairwise(chain):
        head[following] = words[last]


def save(family: str, folder: Path, *, says: str | None = None) -> Path:
    """Write a model; with ``says`` one that always says just that text, as one token, whatever it is shown."""
    import torch

    tokenizer = _tokenizer()
    ids = _ids(tokenizer)
    if says is not None:
        tokenizer.add_tokens([says])
    torch.manual_seed(0)
    model, processor = BUILDERS[family](tokenizer, ids)
    with torch.no_grad():
        if says is not None:
            _teach(model, tokenizer.convert_tokens_to_ids(["Ċ", says, "<|im_end|>"]))
        else:  # larger weights: random answers that depend on what is asked and shown
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(20.0 if family == "internvl" else 8.0)
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids["<pad>"]
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
