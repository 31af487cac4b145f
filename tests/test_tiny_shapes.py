"""The recipe that draws its clips and keeps them on the device: its steps are those of the model and the collator."""

from __future__ import annotations

import concurrent.futures
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from evqa.training import load_templates

ROOT = Path(__file__).resolve().parents[1]


class AtOnce:
    """An executor without processes."""

    def submit(self, function, *arguments):
        future = concurrent.futures.Future()
        future.set_result(function(*arguments))
        return future


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The recipe's modules, the tiny model, and two drawn clips of one length."""
    from evqa.models.unipixel import tiny

    path = list(sys.path)
    sys.path.insert(0, str(ROOT / "recipes"))
    import drawn_clips
    import shapes_step

    model, processor = tiny()
    model.config.sam2_batch_mode = True
    world = drawn_clips.World(tmp_path_factory.mktemp("clips"), "test", AtOnce(), "cpu", model.config.sam2_image_size)
    world.draw(range(2))
    assert world.take_in() == 2
    templates = load_templates(ROOT / "recipes" / "configs" / "templates" / "benchmark.yaml")
    rows = drawn_clips.ClipRows(world.work, processor, templates, tracked=3, questions=2, seed=0, shift=False)
    yield drawn_clips, shapes_step, model, processor, world, rows
    sys.path[:] = path


def make_batch(parts, step, move=0):
    drawn_clips, shapes_step, model, processor, world, rows = parts
    collator = drawn_clips.Collator(processor, model.config, max_length=2432, pad_to_multiple_of=2432)
    own = [rows[name, number] for number, name in enumerate(sorted(world.frames))]
    geometry = shapes_step.Geometry.of(processor.video_processor)
    return own, shapes_step.to_device(collator(own), world, geometry, (120, 240), step, move)


@pytest.fixture(scope="module")
def step(parts):
    _, shapes_step, model, processor, _, _ = parts
    return shapes_step.Step(model, processor, 2, 3, 2, 0.3, {60: (30, 10, 20)})


def test_the_step_has_the_losses_of_the_model(parts, step):
    from evqa.models.unipixel.sequence_unipixel import HostInputs

    _, _, model, *_ = parts
    _, batch = make_batch(parts, step)
    assert set(batch.weights.tolist()) == {1.0, 3.0, 10.0}
    batch.weights.fill_(1.0)
    size = model.config.sam2_image_size
    with torch.no_grad():
        loss, (lm, dice, presence, accuracy) = step.losses(60, batch)
        model.runtime.supervised_logits = True
        expected = model(
            host=HostInputs(batch.ids, step.grids[60]), labels=batch.labels, branches=batch.branches,
            position_ids=batch.positions, pixel_values_videos=batch.patches,
            frames=list(batch.frames.unflatten(0, (2, 3))),
            label_mask=list(batch.masks.view(3, 2, 2, size, size).transpose(0, 1)), num_masks_in_batch=2,
        )  # fmt: skip
        model.runtime.supervised_logits = False
    assert float(batch.masks.sum()) > 500  # there is something to segment
    torch.testing.assert_close(lm, expected.lm_loss)
    torch.testing.assert_close(dice, expected.dice_loss)
    torch.testing.assert_close(presence, expected.presence_loss)
    torch.testing.assert_close(loss, lm + 0.3 * (expected.loss - expected.lm_loss))
    assert float(accuracy) == float(expected.correct_tokens) / int((batch.labels != -100).sum())


def test_a_step_changes_every_weight_that_it_should(parts):
    from evqa.models.unipixel import tiny

    _, shapes_step, _, processor, _, _ = parts
    model, _ = tiny(seed=1)
    model.config.sam2_batch_mode = True
    step = shapes_step.Step(model.train(), processor, 2, 3, 2, 0.3, {60: (30, 10, 20)})
    _, batch = make_batch(parts, step)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    first = step(60, batch, 1e-3)
    second = step(60, batch, 1e-3)
    assert second[0] < first[0]
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    # What only prompts, memories and tracking use is not part of this.
    unused = {name for name in set(before) - changed if name.split(".")[0] in ("model", "lm_head", "seg_head")}
    assert not unused
    assert any(name.startswith("sam2.image_encoder") for name in changed)


def test_pixels_and_masks_are_those_of_the_ordinary_way(parts, step):
    """What the device makes of the arrays is what the processor makes of the same clip, read as any other."""
    from evqa.models.unipixel.regions_unipixel import label_masks

    _, _, _, processor, world, _ = parts
    own, batch = make_batch(parts, step)
    entries = {entry["entry_id"]: entry for entry in world.entries()}
    same = seen = 0
    for row, (sample, name) in enumerate(zip(own, sorted(world.frames), strict=True)):
        frames = world.frames[name].permute(0, 2, 3, 1).numpy()
        clip = processor.read(frames, fps=6.0, sam_frames="every:1")
        patches = batch.patches.view(2, -1, batch.patches.shape[1])[row]
        torch.testing.assert_close(clip.patches, patches, atol=0.02, rtol=0)
        entry = next(e for e in entries.values() if e["video_id"] == name)
        video = processor.read(entry["video"], sam_frames="every:1")
        for k, regions in enumerate(sample["regions"]):
            match = [e for e in entries.values() if e["video_id"] == name and e["regions"] == regions]
            truth = label_masks([match[0]["masks"]], video, 192, 0.5)[sample["tracked"], 0]
            mine = batch.masks.view(3, 2, 2, 192, 192)[:, row, k]
            same += int((truth & mine).sum())
            seen += int((truth | mine).sum())
    assert seen > 1000
    assert same / seen > 0.9


def test_moving_a_clip_moves_its_masks_along(parts):
    _, shapes_step, *_ = parts
    frames = torch.zeros(2, 4, 3, 144, 256, dtype=torch.uint8)
    seen = torch.zeros(2, 4, 192, 192, dtype=torch.uint8)
    frames[..., 48:96, 64:128] = 200
    seen[..., 64:128, 48:96] = 7
    torch.manual_seed(3)
    moved, where = shapes_step.shifted(frames, seen, 8)
    assert not torch.equal(moved, frames)
    assert moved.shape == frames.shape
    assert where.shape == seen.shape
    for clip in range(2):
        y, x = (torch.nonzero(moved[clip, 0, 0] == 200).float().mean(0) / torch.tensor([144.0, 256.0])).tolist()
        v, u = (torch.nonzero(where[clip, 0] == 7).float().mean(0) / 192).tolist()
        assert abs(y - v) < 0.01
        assert abs(x - u) < 0.01


def test_letters_are_learnt_from_words_alone(parts):
    import random

    *_, rows = parts
    entry = {"entry_id": "street_1", "candidates": ["the bus", "the van", "the taxi"], "answer": "the van"}
    letters = set()
    for number in range(8):
        ask, reply = (turn["content"][-1]["text"] for turn in rows._letter(entry, random.Random(number)))
        assert f"({reply[8]}) the van\n" in ask
        letters.add(reply[8])
    assert len(letters) > 1


def test_batches_hold_clips_of_one_length(parts):
    drawn_clips, *_ = parts

    class Clips:
        lengths = {54: ["a", "b"], 60: ["c", "d", "e"]}

    found = drawn_clips.draws(Clips(), 3, 0)
    seen, numbers = set(), []
    for _ in range(20):
        batch = next(found)
        seen |= {frozenset(name for name, _ in batch)}
        numbers += [number for _, number in batch]
    assert all(names <= {"a", "b"} or names == {"c", "d", "e"} for names in seen)
    assert numbers == list(range(60))
    assert np.unique(numbers).size == 60


def test_a_clip_that_begins_later_tells_so(parts):
    import json

    drawn_clips, _, _, processor, world, rows = parts
    name = sorted(world.frames)[0]
    entries = [entry for entry in rows.told(name) if not entry["question"].startswith(drawn_clips.HALF)]
    possible = drawn_clips.shifts(entries)
    assert 0 in possible
    assert len(possible) > 1
    for later in possible:
        for entry in entries:
            moved = drawn_clips.shifted_entry(entry, later)
            frames, fps = entry["num_frames"], entry["fps"]
            pairs = list(zip(entry["segments"], moved["segments"], strict=True))
            told = [json.loads(e["metadata"])["rationale"] for e in (entry, moved)]
            was, now = ([tuple(map(float, t)) for t in drawn_clips._SPAN.findall(text)] for text in told)
            pairs += list(zip(was, now, strict=True))
            for (start, end), (new_start, new_end) in pairs:
                expected = [start if start == 0 else start + later / fps, end if end > 9.99 else end + later / fps]
                assert (new_start, new_end) == pytest.approx(expected, abs=0.11)  # written with one decimal, twice
                assert 0 <= new_start < new_end <= frames / fps
    shifting = drawn_clips.ClipRows(world.work, processor, rows.templates, tracked=3, questions=2, seed=0)
    shown = {tuple(shifting[name, number]["shown"]) for number in range(12)}
    assert len(shown) > 1
    assert all(list(order) == sorted(order) and len(order) == 60 for order in shown)
