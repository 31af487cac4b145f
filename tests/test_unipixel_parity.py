"""UniPixel against recordings of the original (PolyU-ChenLab/UniPixel 5c8e941 under transformers 4.53.3, float32)."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import unipixel_fixtures as fixtures  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForImageTextToText  # noqa: E402

import evqa  # noqa: E402, F401


@pytest.fixture(scope="module")
def parity(shared):
    return shared / "parity" / "unipixel"


@pytest.fixture(scope="module")
def inputs(parity):
    tensors = load_file(parity / "inputs.safetensors")
    return {k: v.float() if v.dtype == torch.float16 else v for k, v in tensors.items()}


@pytest.fixture(scope="module")
def outputs(parity):
    return load_file(parity / "outputs.safetensors")


@pytest.fixture(scope="module")
def published(parity, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    fixtures.write_published(folder, parity)
    return folder


def load(folder, **options):
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, **options).eval()


@pytest.fixture(scope="module")
def model(published):
    return load(published)


def close(actual, expected, tolerance):
    assert actual.shape == expected.shape
    assert (actual.double() - expected.double()).abs().max().item() < tolerance


def train_batch(inputs):
    batch = {
        name: inputs[f"train_{name}"]
        for name in ("input_ids", "attention_mask", "labels", "pixel_values_videos", "video_grid_thw",
                     "second_per_grid_ts")
    }  # fmt: skip
    batch["frames"] = [inputs["train_frames_0"], inputs["train_frames_1"]]
    batch["label_mask"] = [inputs["train_label_mask_0"], inputs["train_label_mask_1"]]
    for name in ("coords", "labels"):
        batch[f"point_{name}"] = [
            [inputs[f"train_point_{name}_0_0"], inputs[f"train_point_{name}_0_1"]],
            [inputs[f"train_point_{name}_1_0"]],
        ]
    batch["point_frames"] = [inputs["train_point_frames_0"], inputs["train_point_frames_1"]]
    return batch


def test_published_folder_loads_completely(published, parity):
    weights = load_file(published / "model.safetensors")
    model, info = AutoModelForImageTextToText.from_pretrained(published, dtype=torch.float32, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    from evqa.models.unipixel import to_published_name

    own = {to_published_name(name): tensor for name, tensor in model.state_dict().items()}
    assert sorted(own) == sorted(json.loads((parity / "saved_checkpoint_keys.json").read_text()))
    assert all(torch.equal(own[name], weights[name]) for name in weights)
    assert all(getattr(model.config, f"legacy_{name}") for name in ("mem_order", "rope_no_grad", "clock"))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("mode", ["bm0", "bm1"])
def test_training_step(published, parity, inputs, outputs, mode, attention):
    if f"train_{mode}_loss" not in outputs:
        pytest.skip(f"nothing is recorded for {mode}")
    model = load(published, attn_implementation=attention, sam2_batch_mode=mode == "bm1")
    out = model(**train_batch(inputs), output_masks=True)
    real = inputs["train_attention_mask"].bool()
    close(out.logits[real], outputs["train_logits"][real], 1e-4)
    close(out.lm_loss, outputs[f"train_{mode}_lm_loss"], 1e-4)
    close(out.loss, outputs[f"train_{mode}_loss"], 1e-4)
    for i in (0, 1):
        close(out.seg_tokens[i], outputs[f"train_{mode}_seg_tokens_{i}"], 1e-4)
        close(out.mask_logits[i], outputs[f"train_{mode}_low_res_masks_{i}"], 1e-3)
        close(out.object_scores[i], outputs[f"train_{mode}_obj_scores_{i}"], 1e-4)
        close(out.ious[i], outputs[f"train_{mode}_ious_{i}"], 1e-4)
        recorded = outputs[f"train_{mode}_loss_terms_{i}"]  # sums over frames; the last is the weighted sum
        terms = out.sample_losses[i] * len(inputs[f"train_frames_{i}"])
        close(terms, recorded[:4], 1e-4)
        close((terms * terms.new_tensor([100.0, 5, 5, 5])).sum(), recorded[4], 1e-3)

    out.loss.backward()
    if mode == "bm0":
        check_gradients(model, json.loads((parity / "train_bm0_grad_norms.json").read_text()))


def check_gradients(model, recorded):
    from evqa.models.unipixel import to_published_name

    recorded = {fixtures.published_name(name): norm for name, norm in recorded.items()}
    compared, wrong = 0, []
    for name, parameter in model.named_parameters():
        expected = recorded[to_published_name(name)]
        norm = -1.0 if parameter.grad is None else parameter.grad.norm().item()
        if expected > 1e-4:
            compared += 1
            if abs(norm - expected) > 1e-3 * expected:
                wrong.append((name, norm, expected))
        elif norm > 2e-4:
            wrong.append((name, norm, expected))
    assert compared == 378
    assert not wrong


def test_object_memory(model, inputs, outputs):
    names = ("input_ids", "attention_mask", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts")
    batch = {name: inputs[f"mem_{name}"] for name in names}
    with torch.no_grad():
        out = model(**batch, refer_mask=[inputs["mem_refer_mask"]])
    close(out.logits, outputs["mem_logits"], 1e-4)


def test_memory_order_of_new_models_differs(published, inputs, outputs):
    model = load(published, legacy_mem_order=False)
    names = ("input_ids", "attention_mask", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts")
    with torch.no_grad():
        out = model(**{n: inputs[f"mem_{n}"] for n in names}, refer_mask=[inputs["mem_refer_mask"]])
    assert (out.logits - outputs["mem_logits"]).abs().max() > 0.5


def infer(model, inputs, **options):
    with torch.no_grad():
        model.lm_head.weight[fixtures.SEG] = inputs["infer_lm_head_seg_row"]
    names = ("input_ids", "attention_mask", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts")
    return model.generate(
        **{name: inputs[f"infer_{name}"] for name in names}, frames=[inputs["infer_frames"]],
        frame_size=[(90, 120)], do_sample=False, max_new_tokens=6, return_mask_logits=True, **options,
    )  # fmt: skip


@pytest.mark.parametrize("fixed_steps", [False, True])
@pytest.mark.parametrize("case", ["bm0", "bm1", "absent"])
def test_generation(published, inputs, outputs, case, fixed_steps):
    found = [name for name in outputs if name.startswith(f"infer_{case}_")]
    if not found:
        pytest.skip(f"nothing is recorded for {case}")
    model = load(published, sam2_batch_mode=case == "bm1")
    model.runtime.fixed_steps = fixed_steps
    if case == "absent":
        with torch.no_grad():
            model.sam2.sam_mask_decoder.pred_obj_score_head.layers[2].bias -= 1.15
    out = infer(model, inputs)
    check_generation(out, outputs, f"infer_{case}_")


def check_generation(out, outputs, prefix):
    assert torch.equal(out.sequences, outputs[prefix + "generated_ids"])
    # The original makes one more object when the last logits, those after the last token, ask for <seg>; it has none.
    packed = outputs[prefix + "masks_packed"]
    frames, height, width = packed.shape[1], 90, 120
    masks = np.unpackbits(packed.numpy(), axis=-1)[..., :width].astype(bool)
    count = len(out.masks[0])
    assert out.masks[0].shape == (count, frames, height, width)
    assert count == len(masks) == len(out.seg_positions[0])
    assert (out.sequences[0, out.seg_positions[0]] == fixtures.SEG).all()
    wrong = (out.masks[0].numpy() != masks).sum()
    assert wrong / masks.size < 1e-5
    if prefix + "low_res_masks" in outputs:
        close(out.mask_logits[0], outputs[prefix + "low_res_masks"], 1e-3)
    if prefix + "obj_scores" in outputs:
        close(out.object_scores[0], outputs[prefix + "obj_scores"][..., 0], 1e-4)
