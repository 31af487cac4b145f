"""UniPixel, small and random: batches, padding, tracking, generation, checkpoints. Nothing here needs data."""

from __future__ import annotations

import dataclasses

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import unipixel_fixtures as fixtures  # noqa: E402
from unipixel_fixtures import SEG, batched, sample, small_config, small_model  # noqa: E402

import evqa  # noqa: E402, F401
from evqa.errors import DataError, MaskError, VideoError  # noqa: E402
from evqa.models.unipixel import UniPixelConfig, UniPixelForConditionalGeneration, UniPixelSam2Config  # noqa: E402


@pytest.fixture(scope="module")
def model():
    return small_model()


def worst(a, b):
    assert a.shape == b.shape
    return (a.float() - b.float()).abs().max().item() if a.numel() else 0.0


def with_labels(one, seed, objects=2):
    draw = torch.Generator().manual_seed(seed)
    frames, size = len(one["frames"][0]), one["frames"][0].shape[-1]
    masks = torch.zeros(frames, objects, size, size, dtype=torch.bool)
    for t in range(frames):
        for k in range(objects):
            y, x = torch.randint(0, size - 20, (2,), generator=draw).tolist()
            masks[t, k, y : y + 20, x : x + 15] = True
    masks[-1, 0] = False  # absent
    labels = one["input_ids"].clone()
    labels[:, :-8] = -100
    return {**one, "label_mask": [masks], "labels": labels}


# -------------------------------------------------------------------------------- configuration
def test_auto_classes_know_it(tmp_path):
    import transformers

    small_config().save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert type(config) is UniPixelConfig
    for name in ("AutoModel", "AutoModelForImageTextToText", "AutoModelForMultimodalLM"):
        assert type(getattr(transformers, name).from_config(config)) is UniPixelForConditionalGeneration


@pytest.mark.parametrize("name", ["configs/sam2.1_hiera_b+", "base_plus", "sam2.1_hiera_base_plus.pt", "b+"])
def test_spellings_of_a_sam2(name):
    config = UniPixelConfig(sam2_config=name, sam2_image_size=768)
    assert config.sam2_video_config.stages == [2, 3, 16, 3]
    assert config.sam2_video_config.image_size == 768


def test_unknown_sam2_is_named():
    with pytest.raises(DataError, match="'configs/sam3_huge'.*tiny, small, base_plus, large"):
        UniPixelConfig(sam2_config="configs/sam3_huge")


def test_sizes_that_do_not_fit():
    with pytest.raises(DataError, match="image_size must be a multiple of 32, got 100"):
        UniPixelSam2Config(image_size=100)
    with pytest.raises(DataError, match=r"sam2_image_size is 512.*image_size is 64"):
        small_config(sam2_image_size=512)


def test_switches_follow_the_origin(tmp_path):
    published = {"base_model": "qwen2_5_vl", "conv_type": "chatml", "sam2_config": "configs/sam2.1_hiera_t"}
    names = ("legacy_mem_order", "legacy_rope_no_grad", "legacy_clock")
    old, new = UniPixelConfig.from_dict(published), UniPixelConfig(sam2_config="tiny")
    assert all(getattr(old, name) for name in names)
    assert not any(getattr(new, name) for name in names)
    # A round trip keeps them, whatever they are; one can be set when loading.
    for config in (old, new, UniPixelConfig.from_dict({**published, "legacy_clock": False})):
        config.save_pretrained(tmp_path)
        again = UniPixelConfig.from_pretrained(tmp_path)
        assert [getattr(again, n) for n in names] == [getattr(config, n) for n in names]
    assert UniPixelConfig.from_pretrained(tmp_path, legacy_clock=True).legacy_clock


def test_no_sam2_no_masks():
    model = UniPixelForConditionalGeneration(small_config(sam2_video_config=None, sam2_image_size=None)).eval()
    one = sample(0)
    ids = model.generate(**{k: v for k, v in one.items() if k not in ("frames", "frame_size")}, max_new_tokens=2)
    assert ids.shape[1] == one["input_ids"].shape[1] + 2
    with pytest.raises(DataError, match="makes no masks"):
        model.generate(**one, max_new_tokens=2)


# ------------------------------------------------------------------------------ batch = singles
SAMPLES = [
    sample(1, grid=(2, 8, 12), frames=4, objects=2),
    sample(2, grid=(1, 8, 8), frames=3, objects=1, tail=9),
    sample(3, grid=(3, 12, 8), frames=4, objects=3, tail=0),
]


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_batch_is_its_samples(model, side):
    singles = [with_labels(one, i, n) for i, (one, n) in enumerate(zip(SAMPLES, (2, 1, 3), strict=True))]
    batch = batched(singles, side)
    batch["labels"] = torch.where(batch["attention_mask"].bool(), batch["input_ids"], -100)
    with torch.no_grad():
        out = model(**batch, output_masks=True)
        alone = [model(**one, output_masks=True) for one in singles]
    for i, one in enumerate(alone):
        real = batch["attention_mask"][i].bool()
        assert worst(out.logits[i][real], one.logits[0]) < 2e-5
        assert worst(out.seg_tokens[i], one.seg_tokens[0]) < 2e-5
        assert worst(out.mask_logits[i], one.mask_logits[0]) < 1e-4
        assert worst(out.object_scores[i], one.object_scores[0]) < 2e-5
        assert worst(out.sample_losses[i], one.sample_losses[0]) < 2e-5
    assert worst(out.focal_loss, torch.stack([one.focal_loss for one in alone]).mean()) < 1e-5
    assert worst(out.presence_loss, torch.stack([one.presence_loss for one in alone]).mean()) < 1e-5


def test_samples_without_masks_in_the_batch(model):
    singles = [with_labels(SAMPLES[0], 0), SAMPLES[1], with_labels(SAMPLES[2], 2, 3)]
    batch = batched([{**one, "label_mask": one.get("label_mask", [None])} for one in singles])
    batch["frames"][1] = None
    with torch.no_grad():
        out = model(**batch)
        alone = [model(**singles[i]).sample_losses[0] for i in (0, 2)]
    assert out.sample_losses[1] is None
    assert worst(torch.stack([out.sample_losses[0], out.sample_losses[2]]), torch.stack(alone)) < 2e-5
    assert out.loss.isfinite()


@pytest.mark.parametrize("side", ["right", "left"])
def test_generating_for_a_batch(model, side):
    options = {"max_new_tokens": 5, "do_sample": False, "return_mask_logits": True}
    out = model.generate(**batched(SAMPLES, side), **options)
    for i, one in enumerate(SAMPLES):
        alone = model.generate(**one, **options)
        length = alone.sequences.shape[1]
        assert torch.equal(out.sequences[i, -length:], alone.sequences[0])
        assert worst(out.mask_logits[i], alone.mask_logits[0]) < 1e-4
        assert worst(out.object_scores[i], alone.object_scores[0]) < 1e-4
        assert (out.masks[i] != alone.masks[0]).float().mean() < 1e-4
        assert (out.sequences[i, out.seg_positions[i]] == SEG).all()


def test_object_order_does_not_matter(model):
    tokens = torch.randn(4, 2, 64)
    clip = SAMPLES[0]["frames"]
    order = [2, 0, 3, 1]
    there = model.segment(clip, [tokens], [(40, 60)], return_mask_logits=True)
    back = model.segment(clip, [tokens[order]], [(40, 60)], return_mask_logits=True)
    assert worst(there.mask_logits[0][order], back.mask_logits[0]) < 1e-4
    for k in range(4):  # and one at a time
        alone = model.segment(clip, [tokens[k : k + 1]], [(40, 60)], return_mask_logits=True)
        assert worst(alone.mask_logits[0][0], there.mask_logits[0][k]) < 1e-4
    assert worst(there.mask_logits[0][0], there.mask_logits[0][1]) > 0.1  # they are not all the same


# -------------------------------------------------------------------------------------- tracking
def test_memory_of_fixed_shape_is_the_same(model, monkeypatch):
    clip = [torch.randn(21, 3, 64, 64, generator=torch.Generator().manual_seed(0))]  # beyond both memories
    tokens = [torch.randn(3, 2, 64)]
    plain = dataclasses.replace(model.runtime, fixed_steps=False)
    found = []
    for runtime in (plain, dataclasses.replace(plain, fixed_steps=True)):
        monkeypatch.setattr(model, "runtime", runtime)
        found.append(model.segment(clip, tokens, [(40, 60)], return_mask_logits=True))
    assert worst(found[0].mask_logits[0], found[1].mask_logits[0]) < 1e-4
    assert worst(found[0].object_scores[0], found[1].object_scores[0]) < 1e-4


def test_what_is_kept_for_a_model_goes_with_it():
    import copy
    import gc
    import pickle
    import weakref

    model = small_model()
    model.runtime.fixed_steps = True
    options = {"max_new_tokens": 3, "do_sample": False, "return_mask_logits": True}
    first = model.generate(**SAMPLES[0], **options)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with torch.no_grad():
            other.model.visual.merger.mlp[0].weight.mul_(2)  # its own weights, not those that were recorded
            other.sam2.no_mem_embed.add_(1)
        assert worst(other.generate(**SAMPLES[0], **options).mask_logits[0], first.mask_logits[0]) > 1e-3
    assert worst(model.generate(**SAMPLES[0], **options).mask_logits[0], first.mask_logits[0]) == 0
    gone = weakref.ref(model)
    del model, other
    gc.collect()
    assert gone() is None


def test_memory_matters(model):
    """Otherwise the tests of memory above would prove nothing."""
    clip = torch.randn(12, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    other = clip.clone()
    other[5] += 1
    tokens = [torch.randn(1, 2, 64)]
    a, b = (model.segment([c], tokens, [(40, 60)], return_mask_logits=True).mask_logits[0] for c in (clip, other))
    assert worst(a[:, :5], b[:, :5]) == 0
    assert worst(a[:, 11], b[:, 11]) > 1e-3


@pytest.mark.parametrize("in_flight", [1, 3, 7, 100])
def test_streaming_a_long_clip(model, in_flight):
    clip = [torch.randn(10, 3, 64, 64, generator=torch.Generator().manual_seed(0))]
    tokens = [torch.randn(2, 2, 64, generator=torch.Generator().manual_seed(1))]
    whole = model.segment(clip, tokens, [(40, 60)], return_mask_logits=True)
    parts = model.segment(clip, tokens, [(40, 60)], return_mask_logits=True, max_frames_in_flight=in_flight)
    assert worst(whole.mask_logits[0], parts.mask_logits[0]) < 1e-4


def test_never_more_frames_in_flight_than_asked(model, monkeypatch):
    seen = []
    encode = model.sam2.encode
    monkeypatch.setattr(type(model.sam2), "encode", lambda sam2, frames: seen.append(len(frames)) or encode(frames))
    model.segment([torch.randn(11, 3, 64, 64)], [torch.randn(1, 2, 64)], [(9, 9)], max_frames_in_flight=4)
    assert sum(seen) == 11
    assert max(seen) <= 4


def test_batch_mode_looks_at_each_frame_alone(model):
    model = small_model(sam2_batch_mode=True)
    clip, tokens = torch.randn(6, 3, 64, 64), [torch.randn(2, 2, 64)]
    order = [3, 0, 5, 1, 2, 4]
    there = model.segment([clip], tokens, [(40, 60)], return_mask_logits=True).mask_logits[0]
    back = model.segment([clip[order]], tokens, [(40, 60)], return_mask_logits=True).mask_logits[0]
    assert worst(there[:, order], back) < 1e-4


def test_absent_objects_have_empty_masks():
    model = small_model()
    with torch.no_grad():
        model.sam2.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(-50)
    out = model.generate(**SAMPLES[0], max_new_tokens=2, do_sample=False, return_mask_logits=True)
    assert (out.object_scores[0] < 0).all()
    assert not out.masks[0].any()
    assert (out.mask_logits[0] == -1024).all()


def test_uint8_frames_are_resized_and_normalised(model):
    from torchvision.transforms.v2 import functional as tv

    clip = torch.randint(0, 256, (3, 3, 50, 90), dtype=torch.uint8)
    ready = tv.normalize(
        tv.resize(clip.float() / 255, [64, 64], antialias=True), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    tokens = [torch.randn(1, 2, 64)]
    raw = model.segment([clip], tokens, return_mask_logits=True)
    done = model.segment([ready], tokens, [(50, 90)], return_mask_logits=True)
    assert raw.masks[0].shape == (1, 3, 50, 90)
    assert worst(raw.mask_logits[0], done.mask_logits[0]) < 1e-4


def test_one_frame_is_a_clip(model):
    one = sample(5, grid=(1, 8, 8), frames=1)
    out = model.generate(**one, max_new_tokens=2, do_sample=False)
    assert out.masks[0].shape == (2, 1, 40, 60)


# ---------------------------------------------------------------------------------------- vision
@pytest.mark.parametrize("grids", [[(1, 8, 8)], [(2, 10, 14), (1, 8, 8), (3, 6, 22)], [(1, 2, 2)]])
def test_all_windows_at_once_is_the_same(grids):
    model = small_model().train()
    pixels = torch.randn(sum(t * h * w for t, h, w in grids), 1176)
    weights = None
    found = []
    for packed in (False, True):
        model.runtime = dataclasses.replace(model.runtime, packed_vision=packed)
        out = model._look(pixels, torch.tensor(grids)).pooler_output
        out = out if isinstance(out, torch.Tensor) else torch.cat(list(out))
        weights = torch.linspace(-1, 1, out.numel()).view_as(out) if weights is None else weights
        model.zero_grad()
        (out * weights).sum().backward()
        found.append((out, model.model.visual.blocks[0].attn.qkv.weight.grad.clone()))
    assert worst(found[0][0], found[1][0]) < 1e-5
    assert worst(found[0][1], found[1][1]) < 1e-3 * found[0][1].abs().max()


# ------------------------------------------------------------------------------------ generation
def test_masks_follow_the_generated_text():
    model = small_model(3)
    one = sample(4, objects=1)
    torch.manual_seed(0)
    options = {"max_new_tokens": 24, "do_sample": True, "sequence_bias": {(SEG,): 5.0}}
    out = model.generate(**one, **options, return_mask_logits=True)
    columns = out.seg_positions[0]
    assert len(columns) == (out.sequences[0] == SEG).sum() > 3
    # Teacher forcing of the same text gives the same prompts, hence the same masks.
    given = {**one, "input_ids": out.sequences, "attention_mask": torch.ones_like(out.sequences)}
    with torch.no_grad():
        tokens = model(**given).seg_tokens
    again = model.segment(one["frames"], tokens, one["frame_size"], return_mask_logits=True)
    assert worst(out.mask_logits[0], again.mask_logits[0]) < 1e-3


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("new_tokens", [1, 20])
def test_decoding_in_fixed_shapes_is_the_same(monkeypatch, side, new_tokens):
    from evqa.models.unipixel import decoding_unipixel

    monkeypatch.setattr(decoding_unipixel, "ROOM", 4)  # make it grow
    monkeypatch.setattr(decoding_unipixel, "NEW_TOKENS", 4)
    calls = []
    decode = decoding_unipixel.decode
    monkeypatch.setattr(
        "evqa.models.unipixel.generation_unipixel.decode", lambda *a, **k: calls.append(1) or decode(*a, **k)
    )
    model = small_model(3)
    for options in (
        {"do_sample": False, "sequence_bias": {(SEG,): 2.0}},
        {"do_sample": True, "sequence_bias": {(SEG,): 5.0}, "top_k": 20, "eos_token_id": [77, 78, 79]},
        {"do_sample": True, "num_return_sequences": 2},
    ):
        found = []
        for fixed in (False, True):
            model.runtime = dataclasses.replace(model.runtime, fixed_steps=fixed)
            torch.manual_seed(1)
            found.append(
                model.generate(**batched(SAMPLES, side), max_new_tokens=new_tokens, return_mask_logits=True, **options)
            )
        assert torch.equal(found[0].sequences, found[1].sequences)
        assert found[0].sequences.shape[1] > batched(SAMPLES)["input_ids"].shape[1]
        for plain, fixed in zip(*(one.mask_logits for one in found), strict=True):
            assert worst(plain, fixed) < 2e-4
    assert len(calls) == 3


def test_several_answers_to_one_question(model):
    out = model.generate(**SAMPLES[0], max_new_tokens=4, do_sample=True, num_return_sequences=3)
    assert len(out.sequences) == len(out.masks) == 3
    assert worst(out.object_scores[0][:2], out.object_scores[2][:2]) < 1e-4  # the prompt's objects


def test_masks_as_rle(model, monkeypatch):
    from evqa.masks import decode
    from evqa.models.unipixel import collecting_unipixel

    monkeypatch.setattr(collecting_unipixel, "_PIXELS", 2 * 40 * 60 * 3)  # three frames of two objects at a time

    dense = model.generate(**SAMPLES[0], max_new_tokens=1, do_sample=False)
    rle = model.generate(**SAMPLES[0], max_new_tokens=1, do_sample=False, mask_format="rle")
    assert len(rle.masks[0]) == len(dense.masks[0])
    for masks, coded in zip(dense.masks[0], rle.masks[0], strict=True):
        assert len(coded) == len(masks) == 4
        assert all(torch.equal(mask, torch.from_numpy(decode(c)).bool()) for mask, c in zip(masks, coded, strict=True))


def test_text_only(model):
    one = {k: v for k, v in SAMPLES[0].items() if k not in ("frames", "frame_size")}
    ids = model.generate(**one, max_new_tokens=3, do_sample=False)
    with_masks = model.generate(**SAMPLES[0], max_new_tokens=3, do_sample=False)
    assert torch.equal(ids, with_masks.sequences)


def test_generate_can_return_everything(model):
    out = model.generate(
        **SAMPLES[0], max_new_tokens=3, do_sample=False, return_dict_in_generate=True, output_scores=True
    )
    assert len(out.generation.scores) == 3
    assert torch.equal(out.generation.sequences, out.sequences)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_beams": 2}, "beam search"), ({"prompt_lookup_num_tokens": 2}, "assisted"), ({"mask_format": "png"}, "png")],
)
def test_what_generate_refuses(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.generate(**SAMPLES[0], max_new_tokens=2, **options)


# -------------------------------------------------------------------------------------- training
def test_losses_by_hand():
    """Against a plain computation with numpy of what SAM 2's training defines."""
    import numpy as np

    from evqa.models.unipixel.losses_unipixel import frame_terms
    from evqa.models.unipixel.sam2_unipixel import Prediction

    draw = np.random.default_rng(0)
    logits, ious, scores = draw.normal(size=(3, 3, 8, 8)) * 3, draw.uniform(size=(3, 3)), draw.normal(size=(3, 1))
    truth = draw.uniform(size=(3, 8, 8)) > 0.6
    truth[2] = False
    given = [torch.tensor(x, dtype=torch.float32) for x in (logits, ious, scores)]
    found = frame_terms(Prediction(*given, given[0][:, 0], given[0][:, 0, 0]), torch.tensor(truth)).numpy()
    for i in range(3):
        p, t = 1 / (1 + np.exp(-logits[i])), truth[i].astype(float)
        chance = np.where(truth[i], p, 1 - p)
        focal = (-np.where(truth[i], 0.25, 0.75) * (1 - chance) ** 2 * np.log(chance)).mean((1, 2))
        dice = 1 - (2 * (p * t).sum((1, 2)) + 1) / (p.sum((1, 2)) + t.sum() + 1)
        best = (100 * focal + 5 * dice).argmin()
        hard = logits[i] > 0
        real = (hard & truth[i]).sum((1, 2)) / np.maximum((hard | truth[i]).sum((1, 2)), 1)
        presence = np.log1p(np.exp(-scores[i, 0] if i < 2 else scores[i, 0]))
        expected = [focal[best], dice[best], np.abs(ious[i] - real).mean(), presence]
        if i == 2:  # absent: nothing but its presence counts
            expected[:3] = 0, 0, 0
        assert np.allclose(found[i], expected, atol=1e-5)


def test_memories_in_raster_order():
    """What a new model pools is the mean of the very patches under the mask."""
    model = small_model()
    grid, states = torch.tensor([[2, 8, 12]]), []
    pixels = torch.randn(192, 1176)
    hook = model.msk_proj.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    ids = torch.tensor([[152, *[fixtures.VIDEO] * 48, 153, fixtures.MEM]])
    mask = torch.zeros(2, 1, 4, 6, dtype=torch.bool)
    mask[1, 0, 2, 3:5] = True
    with torch.no_grad():
        model(input_ids=ids, pixel_values_videos=pixels, video_grid_thw=grid, refer_mask=[mask])
        hook.remove()
        # The merger's own output, which transformers puts back in raster order, of one patch is its MLP's.
        seen = model._look(pixels, grid).pooler_output
        seen = seen if isinstance(seen, torch.Tensor) else torch.cat(list(seen))
        one = torch.zeros(2, 1, 4, 6, dtype=torch.bool)
        one[1, 0, 2, 3] = True
        hook = model.msk_proj.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
        model(input_ids=ids, pixel_values_videos=pixels, video_grid_thw=grid, refer_mask=[one])
        hook.remove()
        assert worst(model.model.visual.merger.mlp(states[1])[0], seen.view(2, 4, 6, -1)[1, 2, 3]) < 1e-5
    assert worst(states[0], states[1]) > 0.01


@pytest.mark.parametrize("seconds", [1.0, 2.0])  # older versions drop parts of a second
def test_positions_of_short_clips_are_those_of_transformers(model, seconds):
    """They part where a clip lasts longer than it is wide; see ``rope_positions``."""
    one = sample(0, grid=(2, 8, 12))
    types = (one["input_ids"] == fixtures.VIDEO).long() * 2
    theirs, _ = model.model.get_rope_index(
        one["input_ids"], mm_token_type_ids=types, video_grid_thw=one["video_grid_thw"],
        second_per_grid_ts=[seconds], attention_mask=one["attention_mask"],
    )  # fmt: skip
    embeds = model.get_input_embeddings()(one["input_ids"])
    mine = model._positions(one["input_ids"], embeds, None, None, None, one["video_grid_thw"], [seconds], None)
    assert torch.equal(mine, theirs)


def test_fixed_shapes_in_half_precision():
    """The fast way is as far from the plain one as bfloat16 is from float32."""
    clip = [torch.randn(21, 3, 64, 64, generator=torch.Generator().manual_seed(0))]
    tokens = [torch.randn(2, 2, 64, generator=torch.Generator().manual_seed(1))]
    found = {}
    for name, dtype, fixed in (
        ("exact", torch.float32, False),
        ("plain", torch.bfloat16, False),
        ("fast", torch.bfloat16, True),
    ):
        model = small_model().to(dtype)
        model.runtime.fixed_steps = fixed
        found[name] = model.segment(clip, tokens, [(40, 60)], return_mask_logits=True).mask_logits[0]
    noise = (found["plain"] - found["exact"]).norm()
    assert noise > 0
    assert (found["fast"] - found["exact"]).norm() < 1.5 * noise
    assert (found["fast"] - found["plain"]).norm() < 1.5 * noise


def test_gradient_checkpointing_changes_nothing():
    one = with_labels(SAMPLES[0], 0)
    gradients = []
    for checkpointing in (False, True):
        model = small_model().train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model(**one).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert len(gradients[0]) > 100
    for name, gradient in gradients[0].items():
        assert worst(gradient, gradients[1][name]) <= 1e-4 * max(1.0, gradient.abs().max().item()), name


def test_every_part_learns():
    """Without the original's detached rotary queries, every trained parameter gets a gradient."""
    one = with_labels(SAMPLES[0], 0)
    one["input_ids"] = one["input_ids"].clone()
    one["input_ids"][0, 1] = fixtures.REF
    one["input_ids"][0, 2] = fixtures.MEM
    one["refer_mask"] = [torch.zeros(2, 1, 4, 6, dtype=torch.bool)]
    one["refer_mask"][0][0, 0, 1:3, 1:3] = True
    one.update(
        point_coords=[[torch.tensor([[[30.0, 20.0]]])]], point_labels=[[torch.tensor([[1]])]], point_frames=[[1]]
    )
    model = small_model().train()
    model(**one).loss.backward()
    without = {n for n, p in model.named_parameters() if p.grad is None}
    assert all(
        any(part in name for part in ("mask_downsampl", "mask_downscal", "no_mem_pos_enc", "ref_proj_double",
                                      "ref_encoder.no_mask", "no_obj", "point_embed"))
        for name in without
    ), without  # fmt: skip
    assert model.sam2.memory_attention.layers[0].cross_attn_image.q_proj.weight.grad.abs().sum() > 0


def test_labels_can_be_a_subset_of_objects():
    model = small_model(sample_objects=1).train()
    out = model(**with_labels(SAMPLES[0], 0), output_masks=True)
    assert out.mask_logits[0].shape[1] == 1
    assert model.eval()(**with_labels(SAMPLES[0], 0), output_masks=True).mask_logits[0].shape[1] == 2


# --------------------------------------------------------------------------------- bad input
def bad(model, message, error=DataError, generate=False, **changes):
    with pytest.raises(error, match=message):
        (model.generate if generate else model)(**{**with_labels(SAMPLES[0], 0), **changes})


def test_bad_input_is_named(model):
    frames, size = SAMPLES[0]["frames"][0], (40, 60)
    bad(model, "sample 0: the clip has no frames", VideoError, frames=[frames[:0]])
    bad(model, "sample 0: the clip has no frames", VideoError, True, frames=[frames[:0]])
    bad(model, r"sample 0: normalised frames must be 64 x 64 .*32 x 64", VideoError, frames=[frames[:, :, :32]])
    bad(model, "label_mask of sample 0 has no objects", MaskError, label_mask=[torch.zeros(4, 0, 64, 64)])
    bad(model, r"label_mask of sample 0 has shape \[4, 2, 32, 64\]", MaskError, label_mask=[torch.zeros(4, 2, 32, 64)])
    bad(model, r"sample 0 has 2 <\|seg\|>.*3 masks", label_mask=[torch.zeros(4, 3, 64, 64)])
    bad(model, "frames has 2 entries for a batch of 1", frames=[frames, frames])
    bad(model, "frames has 2 entries for a batch of 1", generate=True, frames=[frames, frames], frame_size=[size, size])
    bad(model, r"frame_size of sample 0.*\(0, 60\)", generate=True, frame_size=[(0, 60)])
    bad(model, "grids", video_grid_thw=torch.tensor([[2, 8, 16]]))
    bad(model, "sample 0 has a label_mask but no frames", frames=[None])
    bad(model, "label_mask was given without the frames", frames=None)


def test_bad_prompts_are_named(model):
    ids = SAMPLES[0]["input_ids"].clone()
    ids[0, 1] = fixtures.REF
    good = {
        "input_ids": ids, "point_coords": [[torch.tensor([[[30.0, 20.0]]])]],
        "point_labels": [[torch.tensor([[1]])]], "point_frames": [[1]],
    }  # fmt: skip
    model(**{**SAMPLES[0], **good})
    bad(model, r"prompt 0 of sample 0: \[30.0, 99.0\] lies outside the frame of 64 x 64",
        **{**good, "point_coords": [[torch.tensor([[[30.0, 99.0]]])]]})  # fmt: skip
    bad(model, "prompt 0 of sample 0: frame 4 of a video with 4 frames", **{**good, "point_frames": [[4]]})
    bad(model, r"one point .* or one box .*got labels \[2\]", **{**good, "point_labels": [[torch.tensor([[2]])]]})
    bad(model, r"sample 0 has 0 <\|ref\|> but 1 prompts", **{**good, "input_ids": SAMPLES[0]["input_ids"]})
    mask = torch.zeros(2, 1, 4, 5, dtype=torch.bool)
    bad(model, r"refer_mask of sample 0 has shape \[2, 1, 4, 5\]", MaskError, refer_mask=[mask])
    bad(model, r"sample 0 has 0 <\|mem\|> but 1", refer_mask=[torch.ones(2, 1, 4, 6, dtype=torch.bool)[:, :, :, :] &
        torch.tensor([True, False])[:, None, None, None]])  # fmt: skip
