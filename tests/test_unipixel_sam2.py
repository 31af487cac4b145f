"""The SAM 2 half with the same weights in two other implementations: transformers' own, and Meta's ``sam2`` package."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch import nn  # noqa: E402
from unipixel_fixtures import SAM2_TINY  # noqa: E402

from evqa.models.unipixel import UniPixelSam2Config  # noqa: E402
from evqa.models.unipixel.conversion_unipixel import load_sam2, to_meta_name, to_published_name  # noqa: E402
from evqa.models.unipixel.runtime_unipixel import Runtime  # noqa: E402
from evqa.models.unipixel.sam2_unipixel import UniPixelSam2, _block_configs  # noqa: E402
from evqa.models.unipixel.tracking_unipixel import track  # noqa: E402

SIZE, CELLS = 128, 8


def widened(module, seed=0):
    """Weights so wide that every part shows in the result."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.3)
    return module.eval()


@pytest.fixture(scope="module")
def ours():
    sam2 = widened(UniPixelSam2(UniPixelSam2Config(**SAM2_TINY)))
    with torch.no_grad():
        sam2.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(0.5)
    return sam2


def close(a, b, tolerance=2e-5):
    assert a.shape == b.shape
    assert (a - b).abs().max() < tolerance * max(1.0, b.abs().max().item())


# ------------------------------------------------------------------------------- transformers
@torch.no_grad()
def test_blocks_of_transformers(ours):
    from transformers.models.sam2.modeling_sam2 import Sam2VisionModel
    from transformers.models.sam2_video.modeling_sam2_video import (
        Sam2VideoMaskDecoder,
        Sam2VideoMemoryAttention,
        Sam2VideoMemoryEncoder,
    )

    vision, decoder, memory = _block_configs(ours.config)
    torch.manual_seed(1)
    frames = torch.randn(2, 3, SIZE, SIZE)

    encoder = Sam2VisionModel(vision).eval()
    encoder.load_state_dict(ours.image_encoder.state_dict())
    theirs = encoder(frames).fpn_hidden_states
    mine = ours.image_encoder(frames)
    for level in theirs:
        close(next(x for x in mine if x.shape == level.shape), level)

    memory_encoder = Sam2VideoMemoryEncoder(memory).eval()
    memory_encoder.load_state_dict(ours.memory_encoder.state_dict())
    top, mask = torch.randn(2, 128, CELLS, CELLS), torch.randn(2, 1, SIZE, SIZE) * 5
    close(ours.memory_encoder(top, mask), memory_encoder(top, mask)[0])

    memory.memory_attention_hidden_size = 128
    memory.memory_attention_num_layers = ours.config.memory_attention_layers
    memory.memory_attention_feed_forward_hidden_size = ours.config.memory_feed_forward
    memory.memory_attention_rope_feat_sizes = [CELLS, CELLS]
    memory.memory_attention_dropout = memory.memory_attention_rope_dropout = 0.0
    memory._attn_implementation = "sdpa"
    attention = Sam2VideoMemoryAttention(memory).eval()
    attention.load_state_dict(ours.memory_attention.state_dict(), strict=False)
    tables = ours.tables(torch.device("cpu"), torch.float32)
    keys = 3 * CELLS**2 + 4
    features, memories, codes = torch.randn(2, CELLS**2, 128), torch.randn(2, keys, 64), torch.randn(1, keys, 64)
    theirs = attention(
        features.transpose(0, 1),
        memories.transpose(0, 1),
        tables.query_code[:, None].expand(-1, 2, -1),
        codes.expand(2, -1, -1).transpose(0, 1),
        num_object_pointer_tokens=4,
    )
    close(ours.memory_attention(features, memories, codes, tables, 4), theirs.reshape(2, CELLS**2, 128))

    mask_decoder = Sam2VideoMaskDecoder(decoder).eval()
    renamed = {}
    for name, weight in ours.sam_mask_decoder.state_dict().items():
        if name.startswith(("output_hypernetworks_mlps", "iou_prediction_head", "pred_obj_score_head")):
            for old, new in (("layers.0.", "proj_in."), ("layers.1.", "layers.0."), ("layers.2.", "proj_out.")):
                if old in name:
                    name = name.replace(old, new)
                    break
        renamed[name] = weight
    mask_decoder.load_state_dict(renamed)
    inputs = {
        "image_embeddings": top, "image_positional_embeddings": tables.image_code,
        "sparse_prompt_embeddings": torch.randn(2, 1, 4, 128), "dense_prompt_embeddings": torch.randn(1, 128, 1, 1),
        "multimask_output": True,
        "high_resolution_features": [torch.randn(2, 16, 32, 32), torch.randn(2, 32, 16, 16)],
    }  # fmt: skip
    for mine, theirs in zip(ours.sam_mask_decoder(**inputs), mask_decoder(**inputs), strict=True):
        close(mine, theirs)


# -------------------------------------------------------------------------------------- Meta's
@pytest.fixture(scope="module")
def meta(ours):
    """Meta's model with our weights; both directions of the conversion are in between."""
    pytest.importorskip("sam2", reason="Meta's sam2 package is not installed")
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
    from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine
    from sam2.modeling.sam.transformer import RoPEAttention
    from sam2.modeling.sam2_base import SAM2Base

    c, width = ours.config, ours.config.hidden_size
    sine = lambda channels: PositionEmbeddingSine(channels, normalize=True, temperature=10000)  # noqa: E731
    rope = {"rope_theta": 10000.0, "feat_sizes": [CELLS, CELLS], "embedding_dim": width, "num_heads": 1,
            "downsample_rate": 1, "dropout": 0.0}  # fmt: skip
    model = SAM2Base(
        image_encoder=ImageEncoder(
            scalp=1,
            trunk=Hiera(
                embed_dim=c.embed_dim, num_heads=c.num_heads, stages=c.stages, window_spec=c.window_spec,
                global_att_blocks=c.global_attention_blocks, window_pos_embed_bkg_spatial_size=c.background_size,
            ),
            neck=FpnNeck(
                position_encoding=sine(width), d_model=width, backbone_channel_list=c.stage_dims[::-1],
                fpn_top_down_levels=[2, 3], fpn_interp_model="nearest",
            ),
        ),
        memory_attention=MemoryAttention(
            d_model=width, pos_enc_at_input=True, num_layers=c.memory_attention_layers,
            layer=MemoryAttentionLayer(
                activation="relu", dim_feedforward=c.memory_feed_forward, dropout=0.0, pos_enc_at_attn=False,
                d_model=width, pos_enc_at_cross_attn_keys=True, pos_enc_at_cross_attn_queries=False,
                self_attention=RoPEAttention(**rope),
                cross_attention=RoPEAttention(**rope, rope_k_repeat=True, kv_in_dim=c.memory_dim),
            ),
        ),
        memory_encoder=MemoryEncoder(
            out_dim=c.memory_dim, in_dim=width, position_encoding=sine(c.memory_dim),
            mask_downsampler=MaskDownSampler(embed_dim=width, kernel_size=3, stride=2, padding=1),
            fuser=Fuser(CXBlock(dim=width, kernel_size=7, padding=3, layer_scale_init_value=1e-6, use_dwconv=True),
                        num_layers=2),
        ),
        num_maskmem=7, image_size=SIZE, sigmoid_scale_for_mem_enc=20.0, sigmoid_bias_for_mem_enc=-10.0,
        use_mask_input_as_output_without_sam=True, directly_add_no_mem_embed=True, no_obj_embed_spatial=True,
        use_high_res_features_in_sam=True, multimask_output_in_sam=True, iou_prediction_use_sigmoid=True,
        use_obj_ptrs_in_encoder=True, add_tpos_enc_to_obj_ptrs=True, proj_tpos_enc_in_obj_ptrs=True,
        use_signed_tpos_enc_to_obj_ptrs=True, only_obj_ptrs_in_the_past_for_eval=True, pred_obj_scores=True,
        pred_obj_scores_mlp=True, fixed_no_obj_ptr=True, multimask_output_for_tracking=True,
        use_multimask_token_for_obj_ptr=True, multimask_min_pt_num=0, multimask_max_pt_num=1,
        use_mlp_for_obj_ptr_proj=True,
    ).eval()  # fmt: skip
    named = {
        to_meta_name(to_published_name("sam2." + name)): weight.clone() for name, weight in ours.state_dict().items()
    }
    model.load_state_dict(named)  # strict: these are the names in Meta's files
    return model


@pytest.mark.parametrize(("name", "short"), [("tiny", "t"), ("small", "s"), ("base_plus", "b+"), ("large", "l")])
def test_sizes_of_meta(name, short):
    """Our presets against the files that come with Meta's package."""
    yaml = pytest.importorskip("yaml")
    package = pytest.importorskip("sam2", reason="Meta's sam2 package is not installed")
    from pathlib import Path

    file = Path(package.__file__).parent / "configs" / "sam2.1" / f"sam2.1_hiera_{short}.yaml"
    model = yaml.safe_load(file.read_text())["model"]
    trunk, mine = model["image_encoder"]["trunk"], UniPixelSam2Config.from_preset(name)
    defaults = {"num_heads": 2, "stages": [2, 3, 16, 3], "global_att_blocks": [12, 16, 20],
                "window_pos_embed_bkg_spatial_size": [14, 14], "window_spec": [8, 4, 14, 7]}  # fmt: skip
    trunk = {**defaults, **trunk}  # base+ leaves out what is the default of the class
    assert mine.embed_dim == trunk["embed_dim"]
    assert mine.num_heads == trunk["num_heads"]
    assert mine.stages == trunk["stages"]
    assert mine.global_attention_blocks == trunk["global_att_blocks"]
    assert mine.background_size == trunk["window_pos_embed_bkg_spatial_size"]
    assert mine.window_spec == trunk["window_spec"]
    attention = model["memory_attention"]
    assert (mine.hidden_size, mine.memory_attention_layers) == (attention["d_model"], attention["num_layers"])
    assert mine.memory_feed_forward == attention["layer"]["dim_feedforward"]
    assert mine.memory_dim == model["memory_encoder"]["out_dim"]
    assert mine.num_maskmem == model["num_maskmem"]
    assert mine.sigmoid_scale == model["sigmoid_scale_for_mem_enc"]
    assert mine.sigmoid_bias == model["sigmoid_bias_for_mem_enc"]


@torch.no_grad()
def test_weights_of_meta_load(ours, meta):
    holder = nn.Module()
    holder.sam2 = UniPixelSam2(UniPixelSam2Config(**SAM2_TINY))
    from evqa.models.unipixel.conversion_unipixel import _from_meta

    load_sam2(holder, {_from_meta(name): weight for name, weight in meta.state_dict().items()}, "memory")
    assert all(
        torch.equal(a, b) for a, b in zip(holder.sam2.state_dict().values(), ours.state_dict().values(), strict=True)
    )


@torch.no_grad()
def test_encoder_and_prompts_of_meta(ours, meta):
    torch.manual_seed(2)
    frames = torch.randn(2, 3, SIZE, SIZE)
    out = meta.forward_image(frames)
    mine = ours.encode(frames)
    for level, theirs in zip((mine.fine, mine.middle, mine.top), out["backbone_fpn"], strict=True):
        close(level, theirs)
    tables = ours.tables(torch.device("cpu"), torch.float32)
    close(tables.query_code, out["vision_pos_enc"][-1][0].flatten(1).T)
    close(tables.image_code, meta.sam_prompt_encoder.get_dense_pe())

    points, labels = torch.rand(2, 2, 2) * SIZE, torch.tensor([[2, 3], [1, 0]])
    sparse, _ = meta.sam_prompt_encoder(points=(points, labels), boxes=None, masks=None)
    close(ours.sam_prompt_encoder(points, labels), sparse)


@torch.no_grad()
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("presence", [0.5, -0.2])
def test_tracking_of_meta(ours, meta, presence, fixed):
    """Twenty frames without prompt tokens: SAM 2 itself, with both memories more than full; two clips at once."""
    for model in (ours, meta):
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(presence)
    clips = [torch.randn(20, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(i)) for i in (3, 4)]
    runtime = Runtime(fixed_steps=fixed)
    mine = [
        (p.mask.clone(), p.scores.clone(), p.pointer.clone())
        for p in track(ours, clips, [0, 1], torch.zeros(2, 0, 128), runtime)
    ]
    absent = 0
    for i, clip in enumerate(clips):
        outputs = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
        for t, frame in enumerate(clip):
            _, features, codes, sizes = meta._prepare_backbone_features(meta.forward_image(frame[None]))
            found = meta.track_step(
                frame_idx=t, is_init_cond_frame=t == 0, current_vision_feats=features, current_vision_pos_embeds=codes,
                feat_sizes=sizes, point_inputs=None, mask_inputs=None, output_dict=outputs, num_frames=len(clip),
            )  # fmt: skip
            outputs["cond_frame_outputs" if t == 0 else "non_cond_frame_outputs"][t] = found
            absent += int(found["object_score_logits"] < 0)
            mask, score, pointer = (value[i : i + 1] for value in mine[t])
            close(score, found["object_score_logits"], 1e-3)
            close(pointer, found["obj_ptr"], 1e-3)
            close(mask[:, None], found["pred_masks"], 1e-3)
    assert (absent > 0) == (presence < 0)
