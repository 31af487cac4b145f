"""UniPixel for tests: a small random model, inputs for it, and the recordings of the original."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

IMAGE, VIDEO, REF, SEG, MEM = 150, 151, 200, 201, 202

#: The SAM 2 that the recordings call ``sam2_tiny``.
SAM2_TINY: dict[str, Any] = {
    "image_size": 128, "embed_dim": 16, "num_heads": 1, "stages": [1, 2, 3, 1], "global_attention_blocks": [4],
    "window_spec": [8, 4, 14, 7], "background_size": [7, 7], "drop_path_rate": 0.0, "hidden_size": 128,
    "memory_attention_layers": 2, "memory_feed_forward": 256, "memory_dropout": 0.0,
}  # fmt: skip


def published_name(name: str) -> str:
    """From the names of a module of transformers 4.53 to those that it writes."""
    if name.startswith("model.visual."):
        return name.removeprefix("model.")
    if name.startswith("model.language_model."):
        return "model." + name.removeprefix("model.language_model.")
    return name


def write_published(folder: Path, parity: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """The recorded model as a published folder, float32; returns its weights by published name."""
    config = json.loads((parity / "config" / "config.json").read_text())
    config.update({"sam2_video_config": SAM2_TINY, **changes})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    weights = {published_name(k): v.float() for k, v in load_file(parity / "state_dict.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return weights


def small_config(**changes: Any):
    """A configuration of a model of 0.4 million parameters; ``sam2=`` changes its SAM 2."""
    from evqa.models.unipixel import UniPixelConfig

    sam2 = {**SAM2_TINY, "image_size": 64, "hidden_size": 64, "memory_dim": 32, "embed_dim": 8, "stages": [1, 1, 1, 1],
            "global_attention_blocks": [2], "memory_attention_layers": 1, "memory_feed_forward": 64,
            "decoder_mlp_dim": 64, "iou_head_dim": 32, "memory_fuser_layers": 1,
            **changes.pop("sam2", {})}  # fmt: skip
    fields = {
        "text_config": {
            "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
            "num_hidden_layers": 2, "vocab_size": 208, "max_position_embeddings": 4096, "bos_token_id": 1,
            "eos_token_id": 2, "pad_token_id": 0,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1000000.0},
        },
        "vision_config": {
            "depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": 32,
            "fullatt_block_indexes": [1], "tokens_per_second": 2, "patch_size": 14, "spatial_patch_size": 14,
            "window_size": 112, "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        "image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": 152, "vision_end_token_id": 153,
        "ref_token_id": REF, "seg_token_id": SEG, "mem_token_id": MEM, "sam2_video_config": sam2,
        "tie_word_embeddings": False,
    }  # fmt: skip
    return UniPixelConfig(**{**fields, **changes})


def small_model(seed: int = 0, **changes: Any):
    """A random model whose masks depend on frames, prompts and memory; in ``eval`` mode."""
    from evqa.models.unipixel import UniPixelForConditionalGeneration

    torch.manual_seed(seed)
    model = UniPixelForConditionalGeneration(small_config(**changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Default weights are so small that every mask would be all but constant.
            if parameter.dim() > 1:
                parameter.normal_(std=1.2 * parameter[0].numel() ** -0.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.05)
        model.sam2.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(3.0)  # present
    return model


def sample(seed: int, *, grid=(2, 8, 12), frames: int = 4, size: int = 64, objects: int = 2, tail: int = 3) -> dict:
    """One sample: a text with a video and ``objects`` ``<seg>``, its patches, and a clip for SAM 2."""
    draw = torch.Generator().manual_seed(seed)
    t, h, w = grid
    ids = torch.randint(3, 140, (5,), generator=draw).tolist() + [152] + [VIDEO] * (t * h * w // 4) + [153]
    for _ in range(objects):
        ids += [*torch.randint(3, 140, (2,), generator=draw).tolist(), SEG]
    ids += torch.randint(3, 140, (tail,), generator=draw).tolist()
    return {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
        "pixel_values_videos": torch.randn(t * h * w, 1176, generator=draw),
        "video_grid_thw": torch.tensor([grid]),
        "second_per_grid_ts": torch.tensor([0.5]),
        "frames": [torch.randn(frames, 3, size, size, generator=draw)],
        "frame_size": [(40, 60)],
    }


def batched(samples: list[dict], side: str = "right") -> dict:
    """Samples as one batch, padded with 0 on one side."""
    length = max(s["input_ids"].shape[1] for s in samples)
    out: dict[str, Any] = {}
    for name in ("input_ids", "attention_mask"):
        rows = []
        for s in samples:
            short = length - s[name].shape[1]
            rows.append(torch.nn.functional.pad(s[name], (short, 0) if side == "left" else (0, short)))
        out[name] = torch.cat(rows)
    for name in ("pixel_values_videos", "video_grid_thw", "second_per_grid_ts"):
        out[name] = torch.cat([s[name] for s in samples])
    for name in ("frames", "frame_size", "label_mask"):
        if name in samples[0]:
            out[name] = [entry for s in samples for entry in s[name]]
    return out
