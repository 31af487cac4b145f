"""The recipe that keeps its clips on the device: its batches are those of the ordinary collator."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from evqa.training import FrameSampling, Mixture, MixtureConfig, Part
from evqa.training.collator import UniPixelCollator

ROOT = Path(__file__).resolve().parents[1]


class AtOnce:
    """An executor without processes."""

    def submit(self, function, *arguments):
        future = concurrent.futures.Future()
        future.set_result(function(*arguments))
        return future


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("tiny_shapes", ROOT / "recipes" / "tiny_shapes.py")
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = path


def test_clips_on_the_device_make_the_batches_of_the_collator(recipe, tmp_path):
    from evqa.models.unipixel import tiny

    model, processor = tiny()
    geometry = recipe.Geometry.of(processor.video_processor)
    size = recipe.fit(216, 384, geometry.cell, *processor.budget(60))
    shapes = recipe.Shapes(tmp_path, "test", AtOnce(), "cpu", size)
    shapes.draw(1)
    assert shapes.take_in() == 1
    config = MixtureConfig(seed=1, shuffle_options=True, read_frames=False, frames=FrameSampling(72, tracked=8))
    mixture = Mixture([Part(shapes.asked, "shapes"), Part(shapes.talks, "talks")], config)
    collator = recipe.Collator(processor, model.config)
    collator.rows = {row["entry_id"]: row for row in (*shapes.asked, *shapes.talks)}
    (video,) = shapes.frames
    np.save(tmp_path / "clip.npy", shapes.frames[video][0].permute(0, 2, 3, 1).numpy())
    rows = [[{**row, "pixels": str(tmp_path / "clip.npy")} for row in part] for part in (shapes.asked, shapes.talks)]
    plain = Mixture([Part(rows[0], "shapes"), Part(rows[1], "talks")], dataclasses.replace(config, read_frames=True))
    seen = 0
    for places in ([0, 1], [len(shapes.asked)]):
        fast = recipe.fill_in(collator([mixture[i] for i in places]), shapes, geometry)
        slow = UniPixelCollator(processor, model.config)([plain[i] for i in places])
        slow.pop("report")
        assert set(fast) == set(slow)
        for name in ("labels", "position_ids", "label_positions"):
            assert torch.equal(fast[name], slow[name]), name
        for own, other in zip(vars(fast["host"]).values(), vars(slow["host"]).values(), strict=True):
            assert torch.equal(own, other)
        torch.testing.assert_close(fast["pixel_values_videos"], slow["pixel_values_videos"])
        for own, other in zip(fast.get("frames", ()), slow.get("frames", ()), strict=True):
            assert torch.equal(own, other)
        for own, other in zip(fast.get("label_mask", ()), slow.get("label_mask", ()), strict=True):
            # The slow way has made the masks as small as the clip first.
            same = (own == other).float().mean()
            assert same > 0.995
            seen += int(own.sum())
    assert seen > 100  # pixels of true masks


def test_letters_are_learnt_from_words_alone(recipe):
    entry = {"entry_id": "street_1", "candidates": ["the bus", "the van", "the taxi"], "answer": "the van"}
    rows = [recipe.letter_row(entry, number) for number in range(8)]
    letters = set()
    for row in rows:
        ask, reply = (turn["content"] for turn in row["messages"])
        assert f"({reply[8]}) the van\n" in ask
        letters.add(reply[8])
    assert len(letters) > 1
    assert set(Mixture([Part(rows, "letters")]).type_sizes()) == {"text"}
