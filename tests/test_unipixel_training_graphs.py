"""Tracking and its losses as a recorded part of a training step: on the CPU all of it but the recording."""

from __future__ import annotations

import copy
import dataclasses

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from unipixel_fixtures import batched, sample, small_model  # noqa: E402

from evqa.models.unipixel import training_graphs_unipixel as graphs  # noqa: E402
from evqa.models.unipixel.runtime_unipixel import Runtime  # noqa: E402

TERMS = ("loss", "lm_loss", "focal_loss", "dice_loss", "iou_loss", "presence_loss")
RECORDED = Runtime(graph_tracking=True)


def batch(seed, objects=(2, 1), frames=(4, 4)):
    """Samples with masks and labels."""
    draw, samples = torch.Generator().manual_seed(seed), []
    for i, (count, length) in enumerate(zip(objects, frames, strict=True)):
        one = sample(seed + i, frames=length, objects=count)
        masks = torch.rand(length, count, 1, 1, generator=draw) > 0.3
        one["label_mask"] = [masks & (torch.rand(length, count, 64, 64, generator=draw) > 0.7)]
        samples.append(one)
    out = batched(samples)
    return {**out, "labels": out["input_ids"].masked_fill(out["attention_mask"] == 0, -100)}


def step(model, runtime, inputs):
    """Losses and gradients of a step; weights stay."""
    model.runtime = runtime
    model.zero_grad()
    torch.manual_seed(0)
    out = model(**inputs)
    out.loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return [getattr(out, name).item() for name in TERMS], gradients


def same(found, expected, tolerance=1e-5):
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert (found[1][name] - gradient).norm() <= 20 * tolerance * (gradient.norm() + 1e-2), name


@pytest.fixture
def replays(monkeypatch):
    """How often a recorded part has run."""
    counted, run = [], graphs.GraphedPart.run
    monkeypatch.setattr(graphs.GraphedPart, "run", lambda part, inputs: counted.append(part) or run(part, inputs))
    return counted


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_recorded_step_is_the_plain_step(replays, checkpointing):
    model = small_model(sam2={"memory_dropout": 0.1, "drop_path_rate": 0.2}).train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for seed in range(3):
        inputs = batch(seed)
        same(step(model, RECORDED, inputs), step(model, Runtime(), inputs))
    assert len(replays) == 2  # the first time it was only seen
    assert len(set(replays)) == 1
    assert any(getattr(m, "gradient_checkpointing", False) for m in model.sam2.modules()) == checkpointing


def test_under_autocast(replays):
    model = small_model().train()
    with torch.autocast("cpu", torch.bfloat16):
        for seed in range(3):
            inputs = batch(seed)
            same(step(model, RECORDED, inputs), step(model, Runtime(), inputs), 1e-3)
    assert len(replays) == 2
    same(step(model, RECORDED, inputs), step(model, Runtime(), inputs))
    assert len(replays) == 2  # without it another recording


def test_objects_are_filled_up(replays):
    model = small_model().train()
    for seed, objects in enumerate(((3, 2), (2, 4), (4, 2), (1, 4))):  # 5 and 6 objects have one shape
        inputs = batch(seed, objects)
        same(step(model, RECORDED, inputs), step(model, Runtime(), inputs), 1e-4)
    assert len(replays) == 3
    assert len(set(replays)) == 1
    assert [graphs.rounded_up(n) for n in (1, 2, 3, 4, 5, 6, 7, 9, 13, 17)] == [1, 2, 3, 4, 6, 6, 8, 12, 16, 24]


def test_weights_that_change_or_move_are_followed(replays):
    model = small_model().train()
    for seed in range(2):
        step(model, RECORDED, batch(seed))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.05)
    same(step(model, RECORDED, batch(3)), step(model, Runtime(), batch(3)))
    assert len(replays) == 2
    for parameter in model.parameters():  # as another dtype or device does
        parameter.data = parameter.data.clone() * 0.9
    model.sam2.memory_attention.requires_grad_(False)
    for seed in range(2):
        same(step(model, RECORDED, batch(seed)), step(model, Runtime(), batch(seed)))
    assert len(replays) == 3


def test_gradients_add_up(replays):
    model = small_model().train()
    model.runtime = RECORDED
    model(**batch(9)).loss.backward()
    expected = {n: 0.0 for n, p in model.named_parameters()}
    for seed in (1, 2):
        for name, gradient in step(model, Runtime(), batch(seed))[1].items():
            expected[name] = expected[name] + gradient
    model.zero_grad()
    model.runtime = RECORDED
    for seed in (1, 2):
        model(**batch(seed)).loss.backward()
    assert len(replays) == 2
    same(([], {n: p.grad for n, p in model.named_parameters() if p.grad is not None}),
         ([], {n: g for n, g in expected.items() if not isinstance(g, float)}))  # fmt: skip


def test_two_forward_passes_before_one_backward(replays):
    model = small_model().train()
    step(model, RECORDED, batch(0))
    expected = step(model, Runtime(), batch(1)), step(model, Runtime(), batch(2))
    model.runtime = RECORDED
    model.zero_grad()
    first, second = model(**batch(1)), model(**batch(2))  # the second finds the tensors taken
    (first.loss + second.loss).backward()
    assert len(replays) == 1
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    summed = {n: g + expected[1][1][n] for n, g in expected[0][1].items()}
    same(([first.loss.item(), second.loss.item()], found), ([e[0][0] for e in expected], summed))
    del first, second
    abandoned = model(**batch(1))
    assert len(replays) == 2
    del abandoned  # never gone back through
    step(model, RECORDED, batch(3))
    assert len(replays) == 3


def test_what_is_not_recorded(replays):
    model = small_model().train()
    for inputs in (batch(0, frames=(4, 3)),) * 2:  # clips of two lengths
        same(step(model, RECORDED, inputs), step(model, Runtime(), inputs))
    for _ in range(2):
        same(step(model, dataclasses.replace(RECORDED, max_frames_in_flight=2), batch(0)),
             step(model, Runtime(), batch(0)), 1e-4)  # fmt: skip
    model.config.sam2_batch_mode = True
    for _ in range(2):
        same(step(model, RECORDED, batch(0)), step(model, Runtime(), batch(0)))
    model.config.sam2_batch_mode = False
    model.runtime = RECORDED
    with torch.no_grad():
        for _ in range(2):
            assert torch.isfinite(model(**batch(0)).loss)
    handle = model.sam2.memory_encoder.register_forward_hook(lambda *_: None)
    for _ in range(2):
        step(model, RECORDED, batch(0))
    handle.remove()
    assert not replays


def test_copies_of_the_model_have_their_own(replays):
    model = small_model().train()
    for _ in range(2):
        step(model, RECORDED, batch(0))
    other = copy.deepcopy(model)
    same(step(other, RECORDED, batch(1)), step(model, RECORDED, batch(1)))
    assert len(replays) == 2
