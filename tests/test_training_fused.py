"""Fused operations of a training step against what they replace."""

from __future__ import annotations

import contextlib

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytest.importorskip("transformers")

from unipixel_fixtures import sample, small_model  # noqa: E402

from evqa.training.fused import fuse_adapters, fuse_norms  # noqa: E402
from evqa.training.tuning import Tuning, prepare_for_training  # noqa: E402


def tuned(dtype="float32", weights="float32", **options):
    """A model with an adapter that says something."""
    model = small_model().to(getattr(torch, weights))
    model = prepare_for_training(
        model, Tuning(["seg"], lora="qkvo_all", lora_r=4, lora_alpha=6, trained_dtype=dtype, **options)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model.train()


def gradients(model, context=contextlib.nullcontext, dtype=torch.float32):
    one = sample(0)
    one.pop("frames")
    one["pixel_values_videos"] = one["pixel_values_videos"].to(dtype)
    model.zero_grad()
    torch.manual_seed(0)
    with context():
        loss = model(**one, labels=one["input_ids"]).loss
    loss.backward()
    return loss.item(), {n: p.grad.float().clone() for n, p in model.named_parameters() if p.grad is not None}


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize(
    ("dtypes", "context", "tolerance"),
    [
        (("float32", "float32"), contextlib.nullcontext, 1e-5),
        (("bfloat16", "bfloat16"), contextlib.nullcontext, 0.03),
        (("float32", "bfloat16"), autocast, 0.03),
    ],
)
def test_adapters_say_the_same(dtypes, context, tolerance):
    model = tuned(*dtypes, lora_dropout=0.2)
    dtype = getattr(torch, dtypes[1])
    loss, expected = gradients(model, context, dtype)
    assert fuse_adapters(model) == 2 * 4 + 2 * 2  # q, k, v, o of two layers; qkv and proj of two blocks
    found_loss, found = gradients(model, context, dtype)
    assert found_loss == pytest.approx(loss, rel=tolerance)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 2 * tolerance * (gradient.norm() + 1e-2 * tolerance), name


def test_dtypes_that_differ_are_handled_as_before():
    layer = torch.nn.Linear(6, 6)
    model = torch.nn.Sequential(layer)
    model = peft.get_peft_model(model, peft.LoraConfig(target_modules=["0"], r=2, init_lora_weights=False)).eval()
    model.base_model.model[0].lora_A.bfloat16()
    model.base_model.model[0].lora_B.bfloat16()
    x = torch.randn(2, 3, 6)
    expected = model(x)
    fuse_adapters(model)
    assert model(x).dtype == expected.dtype
    assert torch.allclose(model(x), expected, atol=1e-2)


def test_other_states_of_an_adapter_do_what_they_did():
    def outputs(model):
        one = sample(0)
        one.pop("frames")
        found = []
        with torch.no_grad():
            found.append(model(**one).logits)
            with model.disable_adapter():
                found.append(model(**one).logits)
            model.add_adapter("other", model.peft_config["default"])
            model.base_model.set_adapter(["default", "other"])
            found.append(model(**one).logits)
            model.set_adapter("default")
            model.merge_adapter()
            found.append(model(**one).logits)
            model.unmerge_adapter()
        return found

    plain, fused = tuned().eval(), tuned().eval()
    fuse_adapters(fused)
    expected, found = outputs(plain), outputs(fused)
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() < 1e-4 * b.abs().max()


def test_norms_say_the_same():
    model = tuned(lora_dropout=0.0)
    loss, expected = gradients(model)
    assert fuse_norms(model) > 5
    found_loss, found = gradients(model)
    assert found_loss == pytest.approx(loss, rel=1e-5)
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-7, name
