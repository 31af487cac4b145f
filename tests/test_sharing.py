"""Several questions about one clip in one row: the same losses, logits and gradients as in rows of their own."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import numpy as np
import torch

from evqa.errors import DataError
from evqa.models.unipixel.sequence_unipixel import branch_mask
from evqa.training.collator import UniPixelCollator
from evqa.training.loading import Loaded
from evqa.training.sharing import PADDING_BRANCH, branch_columns, share_clip

QUESTIONS = [
    ("Which?", "Answer: B. Spatial Evidence: <|seg|>."),
    ("How many times is it seen?", "Two."),
    ("Who?", "A."),
]


@pytest.fixture(scope="module")
def tiny_model():
    from evqa.models.unipixel import tiny

    model, processor = tiny()
    model.config.sam2_batch_mode = True
    model.runtime.supervised_logits = True
    return model.train(), processor


def encode(processor, frames, question, reply, mask=None):
    content = [{"type": "video", "video": frames, "fps": 2.0}, {"type": "text", "text": question}]
    messages = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": [{"type": "text", "text": reply}]},
    ]
    sample = processor.encode(messages, labels=True, targets=mask, sam_frames="same" if mask else False)
    return {name: value for name, value in sample.items() if name != "clip"}


@pytest.fixture(scope="module")
def samples(tiny_model):
    from evqa import masks

    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (4, 96, 144, 3), dtype=np.uint8)
    box = np.zeros((96, 144), bool)
    box[20:70, 30:90] = True
    target = [[{"frame": t, "time": None, "rle": masks.encode(box)} for t in range(4)]]
    _, processor = tiny_model
    return [encode(processor, frames, q, r, target if "<|seg|>" in r else None) for q, r in QUESTIONS]


class Given(UniPixelCollator):
    """Takes samples that are encoded already."""

    def _encode(self, place):
        return place.sample


def run(model, processor, samples, multiple=1):
    batch = Given(processor, model.config, pad_to_multiple_of=multiple)([Loaded(sample) for sample in samples])
    report = batch.pop("report")
    model.zero_grad()
    out = model(**batch, use_cache=False, num_items_in_batch=1, num_masks_in_batch=1)
    out.loss.backward()
    gradient = {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}
    return out, report, gradient


@pytest.mark.parametrize("multiple", [1, 64])
def test_branches_have_the_losses_of_separate_rows(tiny_model, samples, multiple):
    model, processor = tiny_model
    shared = share_clip(samples, processor.tokenizer.convert_tokens_to_ids("<|vision_end|>"))
    out, report, gradient = run(model, processor, [shared, samples[1]], multiple)
    sums, words, totals = {}, 0.0, {}
    for sample in [*samples, samples[1]]:
        one, own, grads = run(model, processor, [sample])
        words += float(one.lm_loss.detach())
        for name in ("focal_loss", "dice_loss", "iou_loss", "presence_loss"):
            if getattr(one, name) is not None:
                sums[name] = float(getattr(one, name).detach())
        totals |= {name: totals.get(name, 0) + grad for name, grad in grads.items()}
        report["tokens"] -= own["tokens"]
    assert report["tokens"] == 0
    assert float(out.lm_loss.detach()) == pytest.approx(words, rel=1e-5)
    for name, value in sums.items():
        assert float(getattr(out, name).detach()) == pytest.approx(value, rel=1e-4), name
    assert set(gradient) == set(totals)
    for name, grad in gradient.items():
        torch.testing.assert_close(grad, totals[name], rtol=2e-3, atol=2e-4 * float(totals[name].abs().max() + 1e-3))


def test_a_branch_sees_the_beginning_and_itself():
    branches = torch.tensor([[0, 0, 1, 1, 2, PADDING_BRANCH]])
    expected = torch.tensor(
        [
            [1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0],
            [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 1, 0], [1, 1, 0, 0, 0, 1],
        ]
    ).bool()  # fmt: skip
    assert torch.equal(branch_mask(branches)[0, 0], expected)


def test_rows_of_one_question_stay_as_they_are(tiny_model, samples):
    """A batch with and without branches; a row without is one long beginning."""
    branches, starts = branch_columns([samples[1], {"input_ids": [1], "branches": [0], "branch_starts": [0]}], 128)
    assert branches[0, : len(samples[1]["input_ids"])].eq(0).all()
    assert branches[0, len(samples[1]["input_ids"]) :].eq(PADDING_BRANCH).all()
    assert starts.eq(0).all()


def test_what_cannot_be_shared_is_refused(tiny_model, samples):
    _, processor = tiny_model
    end = processor.tokenizer.convert_tokens_to_ids("<|vision_end|>")
    other = {**samples[1], "input_ids": [5, *samples[1]["input_ids"][1:]]}
    with pytest.raises(DataError, match="sample 1 does not begin as sample 0"):
        share_clip([samples[0], other], end)
    with pytest.raises(DataError, match="no token 77777"):
        share_clip(samples, 77777)
    learnt = {**samples[0], "labels": [4] * len(samples[0]["labels"])}
    with pytest.raises(DataError, match="learnt once"):
        share_clip([learnt, samples[1]], end)


def test_another_clip_of_the_same_size_is_refused(tiny_model, samples):
    """Its tokens are the same placeholders: only pixels, times and frames tell it from the first one."""
    _, processor = tiny_model
    end = processor.tokenizer.convert_tokens_to_ids("<|vision_end|>")
    for name, other in (
        ("pixel_values_videos", samples[1]["pixel_values_videos"] + 1), ("grid_times", [torch.tensor([0.0, 9.0])]),
    ):  # fmt: skip
        assert name in samples[1]
        with pytest.raises(DataError, match=f"sample 1 shows another clip than sample 0: its {name} differ"):
            share_clip([samples[0], {**samples[1], name: other}], end)
    other = {**samples[0], "frames": samples[0]["frames"].flip(0)}
    with pytest.raises(DataError, match="sample 2 has other frames for SAM 2 than sample 0"):
        share_clip([samples[0], samples[1], other], end)


def test_branches_need_positions_and_no_mask(tiny_model, samples):
    model, _ = tiny_model
    ids = torch.tensor([samples[1]["input_ids"]])
    inputs = {"input_ids": ids, "pixel_values_videos": samples[1]["pixel_values_videos"]}
    inputs["video_grid_thw"] = samples[1]["video_grid_thw"]
    with pytest.raises(DataError, match="branches come with position_ids"):
        model(**inputs, branches=torch.zeros_like(ids))
