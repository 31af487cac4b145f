"""UniPixel on a GPU: steps replayed as graphs, also of training, attention over all windows, and memory.

Skips without CUDA.
"""

from __future__ import annotations

import dataclasses

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from cuda_fixtures import exact  # noqa: E402
from unipixel_fixtures import SEG, batched, sample, small_model  # noqa: E402

from evqa.models.unipixel.runtime_unipixel import Runtime  # noqa: E402

__all__ = ["exact"]  # fixtures

FAST, PLAIN = Runtime(), Runtime.plain()


def on_gpu(inputs):
    return {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}


def run(model, runtime, inputs, **options):
    model.runtime = runtime
    torch.manual_seed(0)
    return model.generate(**on_gpu(inputs), return_mask_logits=True, max_new_tokens=24, **options)


def same(a, b, tolerance=2e-3):
    assert torch.equal(a.sequences, b.sequences)
    for x, y in zip(a.mask_logits, b.mask_logits, strict=True):
        assert x.shape == y.shape
        assert (x - y).abs().max() < tolerance


@pytest.mark.parametrize("sampled", [False, True])
def test_graphs_give_what_plain_steps_give(sampled):
    model = small_model(3).cuda()
    options = {"do_sample": sampled, "sequence_bias": {(SEG,): 3.0}}
    # Again and again: what is run, what is recorded and what is replayed must be the same, whatever came before.
    for seed in (0, 1, 2, 0):
        one = sample(seed, frames=22, objects=2)
        same(run(model, PLAIN, one, **options), run(model, FAST, one, **options))
    for seed in (3, 4, 5):
        batch = batched([sample(seed, frames=5, objects=1), sample(seed + 9, grid=(1, 8, 8), frames=5, objects=3)])
        same(run(model, PLAIN, batch, **options), run(model, FAST, batch, **options))


def test_graphs_follow_the_weights():
    model, one = small_model(3).cuda(), sample(0, frames=9)
    for _ in range(3):
        run(model, FAST, one, do_sample=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)  # in place, as an optimiser does
    same(run(model, PLAIN, one, do_sample=False), run(model, FAST, one, do_sample=False), 2e-2)
    model = model.double().float()  # the same values elsewhere
    same(run(model, PLAIN, one, do_sample=False), run(model, FAST, one, do_sample=False), 2e-2)


def test_steps_are_really_replayed(monkeypatch):
    model, one = small_model(3).cuda(), sample(0, frames=30, objects=1)
    replays = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: replays.append(1) or replay(graph))
    run(model, FAST, one, do_sample=False)
    run(model, FAST, one, do_sample=False)
    replays.clear()
    run(model, FAST, one, do_sample=False)
    assert len(replays) >= 30 + 23


def test_windows_at_once_in_half_precision():
    model = small_model().cuda().bfloat16().train()
    grids = [(2, 10, 14), (1, 8, 8)]
    pixels = torch.randn(sum(t * h * w for t, h, w in grids), 1176, device="cuda")
    found = []
    for runtime in (PLAIN, FAST):
        model.runtime = runtime
        out = torch.cat([torch.as_tensor(x) for x in (model._look(pixels, torch.tensor(grids).cuda()).pooler_output,)])
        model.zero_grad()
        out.float().square().mean().backward()
        found.append((out.float(), model.model.visual.blocks[0].attn.qkv.weight.grad.float()))
    for plain, fast in zip(*found, strict=True):
        assert (plain - fast).norm() < 0.02 * plain.norm()


def test_memory_does_not_grow_with_the_clip():
    model = small_model().cuda()
    tokens = [torch.randn(2, 2, 64, device="cuda")]
    peaks = []
    for frames in (64, 64, 64, 640):  # the first two also record
        clip = [torch.randn(frames, 3, 64, 64)]
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        model.runtime = dataclasses.replace(FAST, max_frames_in_flight=32)
        model.segment(clip, tokens, [(40, 60)], mask_format="none")
        peaks.append(torch.cuda.max_memory_allocated())
    # The masks' resized logits of a flush and the features in flight, not one byte per frame: 576 more frames would
    # be 576 x (64 x 16 + 8 x 256 + 16 x 64) x 4 = 9 MiB of features alone.
    assert peaks[3] - peaks[2] < 2 * 2**20


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_recorded_training_is_plain_training(dropout, monkeypatch):
    """Also with dropout: what is recorded draws the same numbers, anew at every replay."""
    from test_unipixel_training_graphs import RECORDED, batch, same, step

    replays, replay = [], torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: replays.append(1) or replay(graph))
    model = small_model(sam2={"memory_dropout": dropout, "drop_path_rate": 2 * dropout}).cuda().train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for seed in range(4):
        inputs = on_gpu(batch(seed))
        same(step(model, RECORDED, inputs), step(model, PLAIN, inputs), 2e-4)
    assert len(replays) == 6  # seen once; then forward and backward each time
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.02)  # in place, as an optimiser does
    inputs = on_gpu(batch(7))
    same(step(model, RECORDED, inputs), step(model, PLAIN, inputs), 2e-4)
    if dropout:
        losses = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            losses.append(model(**inputs).loss.item())
        assert losses[0] != pytest.approx(losses[1], rel=1e-6)


def test_recorded_training_in_half_precision():
    from test_unipixel_training_graphs import RECORDED, batch, step

    model = small_model().cuda().bfloat16().train()
    for seed in range(3):
        inputs = on_gpu(batch(seed))
        inputs["pixel_values_videos"] = inputs["pixel_values_videos"].bfloat16()
        (losses, gradients), (expected, others) = step(model, RECORDED, inputs), step(model, PLAIN, inputs)
        assert losses == pytest.approx(expected, rel=0.02, abs=2e-3)
        assert gradients.keys() == others.keys()
