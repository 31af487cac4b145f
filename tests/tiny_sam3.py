"""A SAM 3 video model with random weights and a tokenizer of single characters, small enough to run in a test."""

from __future__ import annotations

from pathlib import Path

SIZE, PATCH, WIDTH = 112, 14, 128  # 128 and not less: object pointers are split into memories of 64 channels
GRID = SIZE // PATCH


def _vision() -> dict:
    backbone = {
        "model_type": "sam3_vit_model", "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": SIZE, "patch_size": PATCH, "window_size": 4, "global_attn_indexes": [1],
        "pretrain_image_size": SIZE,
    }  # fmt: skip
    return {
        "fpn_hidden_size": WIDTH,
        "backbone_feature_sizes": [[4 * GRID, 4 * GRID], [2 * GRID, 2 * GRID], [GRID, GRID]],
        "backbone_config": backbone,
    }


def save(folder: Path) -> Path:
    import torch
    from transformers import (
        CLIPTokenizer,
        Sam2VideoVideoProcessor,
        Sam3ImageProcessor,
        Sam3VideoConfig,
        Sam3VideoModel,
        Sam3VideoProcessor,
    )

    small = {"hidden_size": WIDTH, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = Sam3VideoConfig(
        detector_config={
            "model_type": "sam3", "vision_config": _vision(), "geometry_encoder_config": small,
            "detr_encoder_config": small, "detr_decoder_config": {**small, "num_queries": 4},
            "mask_decoder_config": {"hidden_size": WIDTH, "num_attention_heads": 2},
            "text_config": {
                "model_type": "clip_text_model", "vocab_size": 300, "hidden_size": WIDTH, "intermediate_size": 64,
                "projection_dim": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32,
                "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
            },
        },
        tracker_config={
            "model_type": "sam3_tracker_video", "image_size": SIZE, "vision_config": _vision(),
            "prompt_encoder_config": {"hidden_size": WIDTH, "patch_size": PATCH, "mask_input_channels": 4},
            "mask_decoder_config": {"hidden_size": WIDTH, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": WIDTH},
            "memory_attention_hidden_size": WIDTH, "memory_attention_num_layers": 1,
            "memory_attention_feed_forward_hidden_size": 64, "memory_attention_rope_feat_sizes": [GRID, GRID],
            "memory_encoder_hidden_size": WIDTH, "memory_encoder_output_channels": 64, "mask_downsampler_embed_dim": WIDTH,
            "memory_fuser_num_layers": 1, "memory_fuser_embed_dim": WIDTH, "memory_fuser_intermediate_dim": 64,
        },
        low_res_mask_size=4 * GRID, hotstart_delay=2, hotstart_unmatch_thresh=2, hotstart_dup_thresh=2,
        # Random weights are sure of nothing: everything found counts.
        score_threshold_detection=0.0, new_det_thresh=0.0,
    )  # fmt: skip
    config.image_size = SIZE
    torch.manual_seed(0)
    Sam3VideoModel(config).save_pretrained(folder)
    vocabulary = {"<pad>": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}
    for code in range(33, 127):
        for token in (chr(code), chr(code) + "</w>"):
            vocabulary[token] = len(vocabulary)
    size = {"height": SIZE, "width": SIZE}
    Sam3VideoProcessor(
        image_processor=Sam3ImageProcessor(size=size, mask_size={"height": 4 * GRID, "width": 4 * GRID}),
        video_processor=Sam2VideoVideoProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3),
        tokenizer=CLIPTokenizer(vocab=vocabulary, merges=[], unk_token="<|endoftext|>", pad_token="<pad>"),
    ).save_pretrained(folder)
    return folder
