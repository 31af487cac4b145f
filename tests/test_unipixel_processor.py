"""The processor of UniPixel: against Qwen2.5-VL's where they must agree, and its own: clocks, masks, prompts, labels."""

from __future__ import annotations

import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("torchvision")

from PIL import Image  # noqa: E402
from transformers import AutoProcessor, Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor  # noqa: E402
from transformers.models.qwen2_vl.video_processing_qwen2_vl import smart_resize  # noqa: E402

import evqa  # noqa: E402, F401
from evqa import masks as rle_masks  # noqa: E402
from evqa.errors import DataError, MaskError, VideoError  # noqa: E402
from evqa.models.unipixel.media_unipixel import FrameList, Geometry, fit  # noqa: E402
from evqa.models.unipixel.processing_unipixel import UniPixelProcessor  # noqa: E402
from evqa.models.unipixel.tiny_unipixel import tiny_processor, tiny_tokenizer  # noqa: E402
from evqa.video import Clip, write_clip  # noqa: E402

H, W = 54, 96


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 255, (10, H, W, 3), np.uint8)


@pytest.fixture(scope="module")
def file(frames, tmp_path_factory):
    pytest.importorskip("av")
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, frames, fps=6)
    return path


def ask(clip, text="What moves?", **item):
    return [{"role": "user", "content": [{"type": "video", "video": clip, **item}, {"type": "text", "text": text}]}]


def disc(x, y, radius=8):
    yy, xx = np.mgrid[:H, :W]
    return rle_masks.encode((yy - y) ** 2 + (xx - x) ** 2 < radius**2)


def track(*places, start=0, fps=6):
    return [{"frame": start + i, "time": (start + i) / fps, "rle": disc(*p)} for i, p in enumerate(places)]


# ------------------------------------------------------------------------------ what Qwen2.5-VL does
def published_parts():
    """Qwen2.5-VL's own processors with its sizes, and our tokenizer."""
    tokenizer = tiny_tokenizer()
    return Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor(), tokenizer.chat_template


def test_same_text_ids_and_pixels_as_qwen():
    ours, theirs = UniPixelProcessor(*published_parts()), Qwen2_5_VLProcessor(*published_parts())
    clip = np.random.default_rng(1).integers(0, 255, (7, 120, 200, 3), np.uint8)
    chat = ask(FrameList(clip, fps=2.0))
    got = ours.apply_chat_template(chat, tokenize=True, return_dict=True, add_generation_prompt=True)
    text = theirs.apply_chat_template(chat, add_generation_prompt=True)
    assert text == ours.apply_chat_template(chat, add_generation_prompt=True)
    budget = {"shortest_edge": ours.min_pixels, "longest_edge": ours.max_pixels}
    metadata = [{"fps": 2.0, "total_num_frames": 7, "frames_indices": list(range(7)), "duration": 3.5}]
    want = theirs(
        text=[text], videos=[torch.from_numpy(clip).permute(0, 3, 1, 2)], do_sample_frames=False, size=budget,
        video_metadata=metadata, return_tensors="pt",
    )  # fmt: skip
    for name in ("input_ids", "attention_mask", "video_grid_thw"):
        assert torch.equal(got[name], want[name]), name
    if "mm_token_type_ids" in want:
        assert torch.equal(got["mm_token_type_ids"], torch.as_tensor(want["mm_token_type_ids"]))
    # Theirs resizes with floating point rounding of its own version: a grey value of 255 at most.
    assert torch.allclose(got["pixel_values_videos"], want["pixel_values_videos"], atol=1e-5)
    assert got["second_per_grid_ts"] == [float(v) for v in want["second_per_grid_ts"]] == [1.0]


@pytest.mark.parametrize("size", [(216, 384), (27, 500), (1080, 1920), (33, 33), (500, 28), (14, 90)])
@pytest.mark.parametrize("budget", [(128 * 784, 256 * 784), (784, 784 * 4), (32 * 576, 60 * 576)])
def test_frame_size_is_that_of_qwen(size, budget):
    assert fit(*size, 28, *budget) == tuple(smart_resize(*size, 28, *budget))


def test_a_strip_is_refused():
    with pytest.raises(VideoError, match="200 times"):
        fit(10, 2100, 28, 784, 78400)


# --------------------------------------------------------------------------------- saving and loading
def test_round_trip(processor, tmp_path):
    changed = tiny_processor()
    changed.frame_policy, changed.max_pixels, changed.legacy_clock = "uniform:5", 20000, True
    changed.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is UniPixelProcessor
    for name in ("frame_policy", "sam_frame_policy", "min_pixels", "max_pixels", "few_frames", "sam_image_size",
                 "legacy_clock", "mask_threshold"):  # fmt: skip
        assert getattr(again, name) == getattr(changed, name), name
    text = "Answer: B. Temporal Evidence: [[0.7, 12.3]]. <|seg|> é 漢\t🙂\n  x"
    assert again.tokenizer(text).input_ids == processor.tokenizer(text).input_ids
    assert again.chat_template == processor.chat_template
    assert Geometry.of(again.video_processor) == Geometry.of(processor.video_processor)


@pytest.mark.parametrize("legacy", [True, False])
def test_published_repository(tmp_path, legacy):
    """Files as transformers 4 wrote them: a processor under another name, and what it lacks in config.json."""
    _image, tokenizer, _video, template = published_parts()
    tokenizer.save_pretrained(tmp_path)
    name = {"processor_class": "PatchedQwen2_5_VLProcessor"}
    sizes = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2, "min_pixels": 3136, "max_pixels": 12845056}
    for file, kind in (
        ("preprocessor_config.json", "image_processor"),
        ("video_preprocessor_config.json", "video_processor"),
    ):
        type_name = {"image_processor": "Qwen2VLImageProcessor", "video_processor": "Qwen2VLVideoProcessor"}[kind]
        (tmp_path / file).write_text(json.dumps({**name, **sizes, f"{kind}_type": type_name}))
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    config = {"model_type": "pixel_qwen2_5_vl", "sam2_config": "configs/sam2.1_hiera_b+", "sam2_image_size": 768}
    config |= {"base_model": "qwen2_5_vl", "conv_type": "chatml"} if legacy else {"evqa_format": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = AutoProcessor.from_pretrained(tmp_path)
    assert type(found) is UniPixelProcessor
    assert (found.sam_image_size, found.legacy_clock) == (768, legacy)
    assert found.budget(16) == (128 * 784, 256 * 784)
    found.save_pretrained(tmp_path / "again")
    assert AutoProcessor.from_pretrained(tmp_path / "again").legacy_clock is legacy


# ------------------------------------------------------------------------------------ clips and clocks
def test_any_form_of_clip(processor, frames, file, tmp_path):
    names = []
    for i, frame in enumerate(frames):
        names.append(f"{i:03}.png")
        Image.fromarray(frame).save(tmp_path / names[-1])
    times = (np.arange(10) / 6).tolist()
    forms = [
        ask(frames, times=times),
        ask(frames, fps=6),
        ask([Image.fromarray(frame) for frame in frames], times=times),
        ask([str(tmp_path / name) for name in names], times=times),
        ask(torch.from_numpy(frames).permute(0, 3, 1, 2), times=times),
        ask({"folder": str(tmp_path), "names": names, "times": times}),
    ]
    samples = [processor.encode(form) for form in forms]
    for sample in samples:
        assert torch.equal(sample["pixel_values_videos"], samples[0]["pixel_values_videos"])
        assert torch.equal(sample["frames"], torch.from_numpy(frames).permute(0, 3, 1, 2))
        assert sample["frame_size"] == (H, W)
    coded = [processor.encode(ask(form)) for form in (file, str(file), Clip(file), file.read_bytes())]
    for sample in coded:
        assert torch.equal(sample["pixel_values_videos"], coded[0]["pixel_values_videos"])
        assert sample["grid_times"] == samples[0]["grid_times"]
        assert len(sample["frames"]) == 10


def test_the_two_halves_see_different_frames(processor, frames):
    sample = processor.encode(ask(frames, fps=6), frames="fps:2", sam_frames="every:3")
    clip = sample["clip"]
    assert clip.times.tolist() == pytest.approx([0, 0.5, 1, 1.5])
    assert clip.sam_positions.tolist() == [0, 3, 6, 9]
    assert torch.equal(sample["frames"], torch.from_numpy(frames[[0, 3, 6, 9]]).permute(0, 3, 1, 2))
    assert sample["video_grid_thw"][0, 0] == 2
    same = processor.encode(ask(frames, fps=6), frames="uniform:4", sam_frames="same")["clip"]
    assert same.sam_times.tolist() == same.times.tolist()
    assert "frames" not in processor.encode(ask(frames, fps=6), sam_frames=False)


def test_true_times_and_the_assumed_clock(processor, frames):
    times = [0, 0.1, 1, 1.25, 3, 3.5, 7]  # variable rate, odd number
    sample = processor.encode(ask(frames[:7], times=times))
    assert sample["grid_times"] == [[0, 1, 3, 7]]
    assert sample["second_per_grid_ts"] == [pytest.approx(7 / 3)]
    legacy = tiny_processor()
    legacy.legacy_clock = True
    old = legacy.encode(ask(frames[:7], times=times))
    assert old["second_per_grid_ts"] == [1.0]
    assert "grid_times" not in old
    assert legacy.encode(ask(frames))["clip"].times[-1] == 4.5  # 2 frames a second assumed
    with pytest.raises(VideoError, match="without their times"):
        processor.encode(ask(frames))


def test_one_frame(processor, frames):
    sample = processor.encode(ask(frames[:1]))
    assert sample["video_grid_thw"][0, 0] == 1
    assert len(sample["frames"]) == 1
    assert sample["second_per_grid_ts"][0] > 0
    assert sample["grid_times"] == [[0.0]]
    image = processor.encode(
        [
            {
                "role": "user",
                "content": [
                    {"type": "image", "image": Image.fromarray(frames[0])},
                    {"type": "text", "text": "What moves?"},
                ],
            }
        ]
    )
    assert torch.equal(image["pixel_values_videos"], sample["pixel_values_videos"])
    assert image["input_ids"] == sample["input_ids"]


def test_budget_does_not_grow_with_the_number_of_frames():
    whole = UniPixelProcessor(*published_parts())
    clip = np.zeros((16, 480, 854, 3), np.uint8)
    cells = {
        n: int(whole.encode(ask(clip[:n], fps=6), sam_frames=False)["video_grid_thw"][0, 1:].prod()) // 4
        for n in (4, 8, 16)
    }
    assert 200 < cells[8] == cells[16] <= 256 < cells[4] <= 2 * 256
    assert [whole.budget(n)[1] // (256 * 784) for n in (1, 2, 3, 4, 5, 8, 9, 1000)] == [8, 4, 2, 2, 1, 1, 1, 1]


def test_large_frames_can_be_shrunk_as_they_come(processor):
    clip = np.zeros((4, 400, 600, 3), np.uint8)
    sample = processor.encode(ask(clip, fps=6), max_side=150)
    assert tuple(sample["frames"].shape) == (4, 3, 100, 150)
    assert sample["frame_size"] == (400, 600)


@pytest.mark.parametrize(
    ("clip", "item", "message"),
    [
        (np.zeros((0, 4, 4, 3), np.uint8), {"fps": 6}, "no frames"),
        ([], {"fps": 6}, "no frames"),
        (np.zeros((2, 4, 4, 3), np.float32), {"fps": 6}, "uint8"),
        (np.zeros((2, 4, 4), np.uint8), {"fps": 6}, "uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), {"times": [0, 0]}, "strictly increasing"),
        (np.zeros((2, 4, 4, 3), np.uint8), {"times": [0]}, "2 frames with 1 times"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)], {"fps": 6}, "several sizes"),
        ("nowhere.mp4", {}, "no such file"),
        (3, {}, "not a list of images"),
    ],
)
def test_bad_clips(processor, clip, item, message):
    with pytest.raises(VideoError, match=message):
        processor.encode(ask(clip, **item))


# ------------------------------------------------------------------------------------ labels and masks
def train(frames, answer="Answer: A. Spatial Evidence: <|seg|>.", **options):
    return [*ask(frames, fps=6, **options), {"role": "assistant", "content": answer}]


def test_only_the_assistants_words_are_learned(processor, frames):
    chat = [
        *train(frames[:2], "First.\nYes"),
        {"role": "user", "content": "And <then>?"},
        {"role": "assistant", "content": " Second."},
    ]
    sample = processor.encode(chat, labels=True)
    learned = [label for label in sample["labels"] if label != -100]
    assert processor.tokenizer.decode(learned) == "First.\nYes<|im_end|> Second.<|im_end|>"
    assert all(label in (-100, token) for label, token in zip(sample["labels"], sample["input_ids"], strict=True))
    # What is asked is what will be asked: the prompt is a prefix of the training sample.
    prompt = processor.encode(ask(frames[:2], fps=6), add_generation_prompt=True)["input_ids"]
    assert sample["input_ids"][: len(prompt)] == prompt
    assert sample["labels"][: len(prompt)] == [-100] * len(prompt)


def test_label_masks(processor, frames):
    places = [(20, 20), (30, 25), (40, 30)]
    sample = processor.encode(
        train(frames, "<|seg|> and <|seg|>"), targets=[track(*places, start=2), track((70, 40))], labels=True,
        sam_frames="every:2",
    )  # fmt: skip
    masks = sample["label_mask"]
    assert tuple(masks.shape) == (5, 2, 192, 192)
    assert masks.dtype == torch.bool
    assert masks.flatten(2).any(2).tolist() == [
        [False, True],
        [True, False],
        [True, False],
        [False, False],
        [False, False],
    ]
    y, x = (axis.double().mean().item() for axis in masks[1, 0].nonzero(as_tuple=True))
    assert (x + 0.5) * W / 192 - 0.5 == pytest.approx(20, abs=0.2)
    assert (y + 0.5) * H / 192 - 0.5 == pytest.approx(20, abs=0.2)
    area = masks[1, 0].sum().item() / 192**2
    assert area == pytest.approx(rle_masks.area(disc(20, 20)) / (H * W), rel=0.03)
    loose = tiny_processor()
    loose.mask_threshold = 0.0
    wide = loose.encode(train(frames), targets=[track(*places)], labels=True)["label_mask"]
    tight = processor.encode(train(frames), targets=[track(*places)], labels=True)["label_mask"]
    assert (wide & tight == tight).all()
    assert wide.sum() > tight.sum()


def test_masks_are_found_by_time_or_by_frame(processor, frames):
    by_time = [{"frame": 99, "time": 3 / 6, "rle": disc(20, 20)}]
    by_frame = [{"frame": 3, "time": None, "rle": disc(20, 20)}]
    for masks in (by_time, by_frame):
        found = processor.encode(train(frames), targets=[masks])["label_mask"]
        assert found.flatten(1).any(1).nonzero().flatten().tolist() == [3]


def test_points_and_boxes(processor, frames):
    text = "Which of <|ref|> and <|ref|>?"
    prompts = [{"point": [48, 27], "time": 0.9}, {"box": [0, 0, 96, 54]}]
    sample = processor.encode(ask(frames, text, fps=6), prompts=prompts, frames="every:2")
    assert sample["point_coords"][0].tolist() == [[[96.0, 96.0]]]
    assert sample["point_coords"][1].tolist() == [[[0.0, 0.0], [192.0, 192.0]]]
    assert [labels.tolist() for labels in sample["point_labels"]] == [[[1]], [[2, 3]]]
    assert sample["point_frames"] == [3, 0]  # shown are 0, 1/3, 2/3, 1, 4/3 s


def test_object_memory(processor, frames):
    text = "What does <|mem|> do to <|mem|>?"
    objects = [track((10, 10), (12, 10)), track((80, 40), start=3)]
    sample = processor.encode(ask(frames, text, fps=6), memories=objects)
    mask = sample["refer_mask"]
    t, h, w = sample["video_grid_thw"][0].tolist()
    assert tuple(mask.shape) == (t, 2, h // 2, w // 2)
    assert mask.flatten(2).any(2).tolist() == [
        [True, False],
        [False, True],
        [False, False],
        [False, False],
        [False, False],
    ]
    # A cell belongs to the object as soon as one of its pixels does.
    pixels = np.logical_or(rle_masks.decode(disc(10, 10)), rle_masks.decode(disc(12, 10)))
    expected = np.zeros(mask.shape[2:], bool)
    for y in range(expected.shape[0]):
        for x in range(expected.shape[1]):
            top, bottom = y * H // expected.shape[0], -(-(y + 1) * H // expected.shape[0])
            left, right = x * W // expected.shape[1], -(-(x + 1) * W // expected.shape[1])
            expected[y, x] = pixels[top:bottom, left:right].any()
    assert (mask[0, 0].numpy() == expected).all()
    said = processor.tokenizer.decode(sample["input_ids"])
    assert "What does <1>-<2> <|mem|> do to <3>-<4> <|mem|>?" in said


# ----------------------------------------------------------------------------------------- batches
def test_padding(processor, frames):
    samples = [
        processor.encode(train(frames), targets=[track((20, 20))], labels=True),
        processor.encode(
            [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there"}], labels=True
        ),
    ]
    for side in ("left", "right"):
        batch = processor.pad(samples, side)
        for row, sample in enumerate(samples):
            keep = batch["attention_mask"][row].bool()
            assert batch["input_ids"][row][keep].tolist() == sample["input_ids"]
            assert batch["labels"][row][keep].tolist() == sample["labels"]
            assert (batch["labels"][row][~keep] == -100).all()
        assert bool(batch["attention_mask"][1, 0]) == (side == "right")
        assert batch["label_mask"][1] is None
        assert batch["frames"][1] is None
        assert batch.clips[1] is None
    sent = pickle.loads(pickle.dumps(processor.pad(samples)))  # as a data loader's worker does
    assert sent.clips[0].sam_positions.tolist() == list(range(10))
    assert torch.equal(sent["label_mask"][0], samples[0]["label_mask"])
    cast = processor.pad(samples).to(torch.bfloat16)
    assert cast["grid_times"] == samples[0]["grid_times"]  # times are not rounded with the pixels
    assert cast["pixel_values_videos"].dtype == torch.bfloat16


def test_batched_template_is_the_singles(processor, frames):
    chats = [ask(frames[:4], "What?", fps=6), ask(frames, "Which one moves to the left?", fps=6)]
    both = processor.apply_chat_template(
        chats, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt"
    )
    assert not both["attention_mask"][0, 0]
    singles = [
        processor.apply_chat_template(c, tokenize=True, return_dict=True, add_generation_prompt=True) for c in chats
    ]
    assert torch.equal(torch.cat([one["pixel_values_videos"] for one in singles]), both["pixel_values_videos"])
    for row, one in enumerate(singles):
        assert both["input_ids"][row][both["attention_mask"][row].bool()].tolist() == one["input_ids"][0].tolist()


@pytest.mark.parametrize(
    ("chat", "options", "error", "message"),
    [
        (train, {"targets": []}, DataError, "1 <|seg|> in the text, but masks of 0 objects"),
        (train, {"targets": [track((9, 9)), track((9, 9))]}, DataError, "1 <|seg|> in the text, but masks of 2"),
        (train, {"prompts": [{"point": [1, 1]}]}, DataError, "0 <|ref|> in the text, but 1 points"),
        (train, {"memories": [track((9, 9))]}, DataError, "0 <|mem|> in the text, but masks of 1"),
        (train, {"targets": [[{"frame": 0, "time": None, "rle": rle_masks.empty(5, 5)}]]}, MaskError, "5 x 5 pixels on a clip of 54 x 96"),
        (train, {"targets": [[{"frame": 10, "time": None, "rle": disc(5, 5)}]]}, MaskError, "frame 10 of a clip of 10"),
        (train, {"targets": [[{"frame": 0, "time": 9.0, "rle": disc(5, 5)}]]}, MaskError, "no frame at 9 s"),
        (train, {"targets": [track((9, 9))], "sam_frames": False}, DataError, "sam_frames is False"),
        (train, {"max_length": 20}, DataError, "allowed are 20"),
    ],
)  # fmt: skip
def test_what_does_not_match_is_refused(processor, frames, chat, options, error, message):
    with pytest.raises(error) as caught:
        processor.encode(chat(frames), **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"point": [97, 1]}, "outside the frame of 96 x 54"),
        ({"point": [-1, 1]}, "outside"),
        ({"point": [1, 2, 3]}, "2 numbers"),
        ({"box": [50, 10, 20, 30]}, "upper left"),
        ({"point": [1, 1], "time": 5.0}, "5 s in a clip of"),
        ({"point": [1, 1], "box": [1, 1, 2, 2]}, "one point"),
        ({"point": [float("nan"), 1]}, "2 numbers"),
        ({}, "one point"),
    ],
)
def test_bad_prompts(processor, frames, prompt, message):
    with pytest.raises(DataError, match=message):
        processor.encode(ask(frames, "<|ref|>?", fps=6), prompts=[prompt])


@pytest.mark.parametrize("token", ["<|im_end|>", "<|video_pad|>", "<|image_pad|>", "<|im_start|>"])
def test_control_tokens_in_a_text_are_refused(processor, frames, token):
    with pytest.raises(DataError, match="control token"):
        processor.encode(ask(frames, f"x {token} y", fps=6))


def test_bad_messages(processor, frames):
    with pytest.raises(DataError, match="type 'audio'"):
        processor.encode([{"role": "user", "content": [{"type": "audio", "audio": "x"}]}])
    two = ask(frames, fps=6)
    two[0]["content"].insert(0, two[0]["content"][0])
    with pytest.raises(DataError, match="2 clips"):
        processor.encode(two)
    assert len(processor.encode(two, sam_frames=False)["video_grid_thw"]) == 2
    with pytest.raises(DataError, match="exactly one clip"):
        processor.encode([{"role": "user", "content": "<|ref|>"}], prompts=[{"point": [1, 1]}])


# ------------------------------------------------------------------------------------------- output
def test_post_process(processor, frames):
    inputs = processor.apply_chat_template(
        [ask(frames, fps=6), ask(frames[:2], fps=6)], tokenize=True, return_dict=True, add_generation_prompt=True,
        sam_frames="every:4",
    )  # fmt: skip

    texts = ("Answer: A <|seg|> <|seg|>.<|im_end|>", "this one never ends and goes on and on and on")
    said = [processor.tokenizer(text).input_ids for text in texts]
    longest = max(len(ids) for ids in said)
    new = torch.tensor([ids + [processor.tokenizer.pad_token_id] * (longest - len(ids)) for ids in said])
    masks = [torch.zeros(2, 3, H, W, dtype=torch.bool), torch.zeros(0, 1, H, W, dtype=torch.bool)]
    masks[0][0, 1, 10:20, 10:20] = True
    masks[0][1, 1, 15:30, 15:20] = True
    output = SimpleNamespace(
        sequences=torch.cat([inputs["input_ids"], new], dim=1),
        masks=masks,
        object_scores=[torch.tensor([[1.0, 2, 3], [4, 5, 6]]), torch.zeros(0, 1)],
    )
    first, second = processor.post_process(output, inputs)
    assert first.text == "Answer: A <|seg|> <|seg|>."
    assert first.complete
    assert first.num_tokens == 8
    assert second.text == texts[1]
    assert not second.complete
    assert [(mask["frame"], mask["time"]) for mask in first.objects[0]] == [
        (0, 0.0),
        (4, pytest.approx(4 / 6)),
        (8, pytest.approx(8 / 6)),
    ]
    union = first.masks
    assert (rle_masks.decode(union[1]["rle"]) == (masks[0][0, 1] | masks[0][1, 1]).numpy()).all()
    assert rle_masks.is_empty(union[0]["rle"])
    assert first.scores[1] == [4, 5, 6]
    assert second.objects == []
    assert second.masks == []
