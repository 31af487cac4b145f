"""UniPixel on disk: names, round trips, adapters, conversion, the Hub."""

from __future__ import annotations

import json
import os
import re

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402
from test_hub import hub, python  # noqa: E402, F401
from transformers import AutoModelForImageTextToText  # noqa: E402
from unipixel_fixtures import SAM2_TINY, sample, small_config, small_model  # noqa: E402

import evqa  # noqa: E402, F401
from evqa.errors import DataError, MissingDataError  # noqa: E402
from evqa.models.unipixel import (  # noqa: E402
    UniPixelForConditionalGeneration,
    convert_checkpoint,
    load_checkpoint,
    save_adapter,
    to_module_name,
    to_published_name,
)
from evqa.models.unipixel.configuration_unipixel import SAM2_PRESETS  # noqa: E402
from evqa.models.unipixel.conversion_unipixel import NEW_TOKENS, read_sam2, to_meta_name  # noqa: E402

#: What our small models have smaller than any SAM 2.1.
WIDE = {"hidden_size": 256, "memory_dim": 64, "memory_attention_layers": 4, "memory_feed_forward": 2048,
        "decoder_mlp_dim": 2048, "iou_head_dim": 256, "memory_fuser_layers": 2, "image_size": 128}  # fmt: skip
FOURIER = "positional_encoding_gaussian_matrix"


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def outputs(model):
    out = model.generate(**sample(0), max_new_tokens=3, do_sample=False, return_mask_logits=True)
    return out.sequences, out.mask_logits[0]


# ------------------------------------------------------------------------------------ full
def test_published_names_both_ways(shared):
    published = json.loads((shared / "parity" / "unipixel" / "saved_checkpoint_keys.json").read_text())
    assert len({to_module_name(name) for name in published}) == len(published)
    assert [to_published_name(to_module_name(name)) for name in published] == published


@pytest.mark.parametrize("tied", [False, True])
def test_saving_and_loading(tmp_path, tied):
    model = small_model(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    # Published layout: Qwen2.5-VL as transformers 4 wrote it, SAM 2 as Meta's; tied embeddings once.
    assert {"visual.patch_embed.proj.weight", "model.embed_tokens.weight", "model.norm.weight"} <= saved.keys()
    assert "sam2.image_encoder.trunk.blocks.0.attn.qkv.weight" in saved
    assert "sam2.memory_encoder.fuser.layers.0.weight" in saved
    assert ("lm_head.weight" in saved) != tied
    assert sum(name.endswith(FOURIER) for name in saved) == 3
    again, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert type(again) is UniPixelForConditionalGeneration
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert same(model, again)
    assert (again.lm_head.weight is again.get_input_embeddings().weight) == tied
    again.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == saved.keys()


def test_saved_as_published(shared, tmp_path):
    """Loading the recorded checkpoint and saving it gives exactly the names that the original wrote."""
    from unipixel_fixtures import write_published

    weights = write_published(tmp_path / "a", shared / "parity" / "unipixel")
    AutoModelForImageTextToText.from_pretrained(tmp_path / "a", dtype=torch.float32).save_pretrained(tmp_path / "b")
    saved = load_file(tmp_path / "b" / "model.safetensors")
    assert sorted(saved) == json.loads((shared / "parity" / "unipixel" / "saved_checkpoint_keys.json").read_text())
    assert all(torch.equal(saved[name], weights[name]) for name in weights)


def test_shards(tmp_path):
    model = small_model()
    model.save_pretrained(tmp_path, max_shard_size="300KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert same(model, UniPixelForConditionalGeneration.from_pretrained(tmp_path))


def test_half_precision_keeps_fourier_matrices(tmp_path):
    model = small_model()
    model.save_pretrained(tmp_path)
    half = UniPixelForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert half.dtype == torch.bfloat16
    for name, buffer in half.named_buffers():
        if name.endswith(FOURIER):
            assert buffer.dtype == torch.float32
            assert torch.equal(buffer, dict(model.named_buffers())[name])
    ids, masks = outputs(half)
    assert masks.isfinite().all()
    assert ids.shape == outputs(model)[0].shape
    half.save_pretrained(tmp_path / "half")
    assert same(half, UniPixelForConditionalGeneration.from_pretrained(tmp_path / "half", dtype="auto"))
    cast = small_model().bfloat16()
    assert cast.tem_pe.positional_encoding_gaussian_matrix.dtype == torch.float32


def test_device_map(tmp_path):
    pytest.importorskip("accelerate")
    model = small_model()
    model.save_pretrained(tmp_path)
    again = UniPixelForConditionalGeneration.from_pretrained(tmp_path, device_map="auto").eval()
    ids, masks = outputs(again.cpu() if again.device.type != "cpu" else again)
    assert torch.equal(ids, outputs(model)[0])
    assert (masks - outputs(model)[1]).abs().max() < 1e-4


def test_missing_weights_are_named(tmp_path):
    small_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["sam2.no_mem_embed"], weights["ref_proj.1.bias"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=rf"lacks 2 weights: ref_proj.1.bias, sam2.no_mem_embed.*{tmp_path.name}"):
        AutoModelForImageTextToText.from_pretrained(tmp_path)
    UniPixelForConditionalGeneration.from_pretrained(tmp_path, allow_missing=True)


# ---------------------------------------------------------------------------------- adapters
def adapted(model):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=r"model\.(language_model.*(q|k|v|o)_proj|visual.*attn\.(qkv|proj))"
    )
    model = peft.get_peft_model(model, config)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
            if ".seg_head." in name or ".sam2.memory_attention" in name or ".embed_tokens." in name:
                parameter.requires_grad_(True)
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.mark.parametrize("tied", [False, True])
def test_adapter_and_trained_modules(tmp_path, tied):
    small_model(tie_word_embeddings=tied).save_pretrained(tmp_path / "base")
    model = adapted(UniPixelForConditionalGeneration.from_pretrained(tmp_path / "base").eval())
    expected = outputs(model)
    model.get_base_model().runtime.fixed_steps = True
    assert (outputs(model)[1] - expected[1]).abs().max() < 1e-3  # also with an adapter that is not merged
    save_adapter(model, tmp_path / "adapter", base_model_path=str(tmp_path / "base"))
    files = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "pytorch_model.safetensors", "config.json"} <= files
    trained = load_file(tmp_path / "adapter" / "pytorch_model.safetensors")
    assert sum(name.endswith(FOURIER) for name in trained) == 3
    assert not any("lora" in name or "language_model.layers" in name for name in trained)
    for again in (
        AutoModelForImageTextToText.from_pretrained(tmp_path / "adapter"),
        load_checkpoint(tmp_path / "adapter", trainable=True),
    ):
        found = outputs(again.eval())
        assert torch.equal(found[0], expected[0])
        assert (found[1] - expected[1]).abs().max() < 1e-3
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "adapter")
    merged.save_pretrained(tmp_path / "merged")
    assert same(merged, AutoModelForImageTextToText.from_pretrained(tmp_path / "merged"))


def test_folder_as_the_original_writes_it(tmp_path):
    """No Fourier matrices, published config, names with PEFT's prefix."""
    small_model().save_pretrained(tmp_path / "base")
    base = UniPixelForConditionalGeneration.from_pretrained(tmp_path / "base").eval()
    model = adapted(base)
    expected = outputs(model)
    folder = tmp_path / "stage3"
    model.save_pretrained(folder)
    trained = {
        "base_model.model." + to_published_name(name.removeprefix("base_model.model.")): tensor.detach().clone()
        for name, tensor in model.named_parameters()
        if tensor.requires_grad and "lora_" not in name
    }
    save_file(trained, folder / "pytorch_model.safetensors")
    config = json.loads(small_config().to_json_string())
    config.pop("evqa_format")
    (folder / "config.json").write_text(
        json.dumps({**config, "base_model": "qwen2_5_vl", "conv_type": "chatml", "base_model_path": "/nowhere"})
    )
    with pytest.raises(MissingDataError, match="'/nowhere'.*pass base_model_path="):
        AutoModelForImageTextToText.from_pretrained(folder)
    found = outputs(AutoModelForImageTextToText.from_pretrained(folder, base_model_path=str(tmp_path / "base")).eval())
    assert torch.equal(found[0], expected[0])
    assert (found[1] - expected[1]).abs().max() < 1e-3


def test_trained_modules_that_do_not_fit(tmp_path):
    small_model().save_pretrained(tmp_path / "base")
    folder = tmp_path / "part"
    folder.mkdir()
    small_config(base_model_path=str(tmp_path / "base")).save_pretrained(folder)
    save_file(
        {"seg_head.1.weight": torch.zeros(3, 3), "nonsense": torch.zeros(1)}, folder / "pytorch_model.safetensors"
    )
    with pytest.raises(DataError, match=r"1 weights belong nowhere .*nonsense.*1 have another shape .*seg_head.1"):
        UniPixelForConditionalGeneration.from_pretrained(folder)


# -------------------------------------------------------------------------------- conversion
@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    """A small Qwen2.5-VL with its processor, as a folder."""
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

    from evqa.models.unipixel.tiny_unipixel import tiny_processor

    folder = tmp_path_factory.mktemp("qwen")
    processor = tiny_processor()
    tokenizer = processor.tokenizer
    config = small_config(sam2_video_config=None, sam2_image_size=None).to_dict()
    config["text_config"]["vocab_size"] = len(tokenizer) + 8
    config = {k: v for k, v in config.items() if k in ("text_config", "vision_config", "tie_word_embeddings")}
    from transformers import Qwen2_5_VLConfig

    torch.manual_seed(1)
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**config)).bfloat16()
    model.save_pretrained(folder)
    Qwen2_5_VLProcessor(
        processor.image_processor, tokenizer, processor.video_processor, chat_template=processor.chat_template
    ).save_pretrained(folder)
    return folder


def meta_file(path):
    """A file as Meta's, of random weights in our small size."""
    weights = small_model(7, sam2=SAM2_TINY).state_dict()
    named = {to_meta_name(to_published_name(name)): w for name, w in weights.items() if name.startswith("sam2.")}
    assert "memory_encoder.fuser.layers.0.gamma" in named
    assert "sam_prompt_encoder.point_embeddings.3.weight" in named
    torch.save({"model": named}, path)
    return weights


def test_fresh_checkpoint(tmp_path, qwen):
    weights = meta_file(tmp_path / "sam.pt")
    sizes = small_config(sam2=SAM2_TINY).sam2_video_config
    model, processor = convert_checkpoint(tmp_path / "sam.pt", qwen, tmp_path / "out", sam2=sizes, image_size=128)
    assert model.dtype == torch.bfloat16
    own = model.state_dict()
    for name, tensor in weights.items():
        if name.startswith("sam2."):
            assert torch.equal(own[name], tensor.to(own[name].dtype)), name
    for name, tensor in load_file(qwen / "model.safetensors").items():
        assert torch.equal(own[to_module_name(name)], tensor), name
    tokenizer = processor.tokenizer
    for token, field in zip(NEW_TOKENS, ("ref_token_id", "seg_token_id", "mem_token_id"), strict=True):
        assert tokenizer.convert_tokens_to_ids(token) == getattr(model.config, field)
    assert not model.config.legacy_mem_order
    # Heads start as the parts that they resemble, but for the Fourier matrix.
    assert torch.equal(model.msk_proj[0].weight, model.model.visual.merger.mlp[0].weight)
    ref, sam = model.ref_encoder, model.sam2.sam_prompt_encoder
    assert torch.equal(ref.not_a_point_embed.weight, sam.not_a_point_embed.weight)
    assert not torch.equal(*(getattr(e.pe_layer, FOURIER) for e in (ref, sam)))
    assert model.tem_proj.weight.std() > 0.01
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype="auto")
    assert same(model, again)
    assert type(__import__("transformers").AutoProcessor.from_pretrained(tmp_path / "out")) is type(processor)
    other, _ = convert_checkpoint(tmp_path / "sam.pt", qwen, sam2=sizes, image_size=128)
    assert same(model, other)  # seeded


def test_conversion_refuses(tmp_path, qwen):
    with pytest.raises(MissingDataError, match="no SAM 2 checkpoint here"):
        convert_checkpoint(tmp_path / "sam2.1_hiera_large.pt", qwen)
    (tmp_path / "sam2.1_hiera_large.pt").write_bytes(b"no")
    with pytest.raises(DataError, match="not a SAM 2 checkpoint of Meta's"):
        convert_checkpoint(tmp_path / "sam2.1_hiera_large.pt", qwen)
    with pytest.raises(DataError, match=r"unknown SAM 2 configuration 'mine\.pt'"):
        convert_checkpoint(tmp_path / "mine.pt", qwen)
    meta_file(tmp_path / "sam2.1_hiera_tiny.pt")
    with pytest.raises(DataError, match=r"not the weights of this SAM 2: \d+ missing"):
        convert_checkpoint(tmp_path / "sam2.1_hiera_tiny.pt", qwen, image_size=128)
    small_config().save_pretrained(tmp_path / "other")
    with pytest.raises(MissingDataError, match="Qwen2.5-VL cannot be read"):
        convert_checkpoint(tmp_path / "sam2.1_hiera_tiny.pt", tmp_path / "nothing")
    with pytest.raises(DataError, match="a Qwen2.5-VL is needed"):
        convert_checkpoint(tmp_path / "sam2.1_hiera_tiny.pt", tmp_path / "other")
    torch.save({"model": {"x": os.system}}, tmp_path / "evil.pt")
    with pytest.raises(DataError):  # pickled code does not run
        read_sam2(tmp_path / "evil.pt")


def test_convert_from_the_command_line(tmp_path, qwen, capsys):
    from evqa.cli import main

    file, out = tmp_path / "sam2.1_hiera_tiny.pt", tmp_path / "out"
    assert main(["convert", "--sam2", str(file), "--qwen", str(qwen), "--out", str(out)]) == 2
    assert re.search(r"no SAM 2 checkpoint here.*sam2\.1_hiera_tiny\.pt", capsys.readouterr().err)
    weights = small_model(sam2=SAM2_PRESETS["tiny"] | WIDE).state_dict()
    named = {to_meta_name(to_published_name(name)): w for name, w in weights.items() if name.startswith("sam2.")}
    torch.save({"model": named}, file)
    assert main(["convert", "--sam2", str(file), "--qwen", str(qwen), "--out", str(out), "--image-size", "128"]) == 0
    assert "parameters, SAM 2 at 128 pixels" in capsys.readouterr().out
    own = AutoModelForImageTextToText.from_pretrained(out, dtype="auto").state_dict()
    assert all(torch.equal(own[name], weights[name].to(own[name].dtype)) for name in own if name.startswith("sam2."))


# ----------------------------------------------------------------------------------- the Hub
def test_to_the_hub_and_back(hub, tmp_path):  # noqa: F811
    code = f"""
import sys; sys.path.insert(0, {str(os.path.dirname(__file__))!r})
import torch, evqa
from unipixel_fixtures import small_model
from transformers import AutoModel, AutoConfig
model = small_model()
model.push_to_hub("evqa/small-unipixel")
again = AutoModel.from_pretrained("evqa/small-unipixel")
a, b = model.state_dict(), again.state_dict()
assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
assert type(again) is type(model) and AutoConfig.from_pretrained("evqa/small-unipixel").sam2_image_size == 64
print("same")
"""
    assert python(code, hub, tmp_path).strip().endswith("same")
