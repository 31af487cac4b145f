"""The small model that comes with evqa: its sizes, its tokenizer, its files, and that it learns."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("torchvision")

from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: E402

import evqa  # noqa: E402
from evqa import masks as rle_masks  # noqa: E402
from evqa.corpora import embedded  # noqa: E402
from evqa.models.unipixel import tiny  # noqa: E402
from evqa.models.unipixel.media_unipixel import FrameList  # noqa: E402
from evqa.parsing import parse_generation  # noqa: E402
from evqa.prompts import GROUNDED, grounded_reply, lettered  # noqa: E402


@pytest.fixture(scope="module")
def made():
    return tiny()


def test_the_name_is_the_function_whatever_was_imported_before():
    import importlib

    importlib.import_module("evqa.models.unipixel.tiny_unipixel")
    assert callable(importlib.import_module("evqa.models.unipixel").tiny)


@pytest.mark.parametrize("words", [None, "the blue car", "3", "between two visits of the pink fish"])
@pytest.mark.parametrize("segments", [[[0.667, 4.667]], [[0.5, 2.0], [7.25, 9.5]], []])
def test_what_a_model_is_trained_to_say_is_what_is_read(words, segments):
    candidates = ["the red car", words or "the bus", "a truck"]
    parsed = parse_generation(grounded_reply("B", segments, 2, words=words), candidates, duration=10.0)
    assert (parsed.status, parsed.answer) == ("ok", "B")
    assert parsed.segments == [[round(start, 1), round(end, 1)] for start, end in segments]
    assert not parsed.problems


def test_size(made):
    model, _ = made
    assert sum(parameter.numel() for parameter in model.parameters()) <= 4_000_000
    assert not model.training


def test_the_seed_makes_the_weights_and_nothing_else(made):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    same, other = tiny()[0], tiny(seed=1)[0]
    assert torch.equal(torch.random.get_rng_state(), before)
    for (name, a), b, c in zip(
        made[0].state_dict().items(), same.state_dict().values(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
        if a.numel() > 1 and a.float().std() > 0:
            assert not torch.equal(a, c), name


@given(st.text())
@settings(deadline=None, max_examples=60)
def test_any_text_is_spelled_exactly(made, text):
    tokenizer = made[1].tokenizer
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert all(0 <= token < made[0].config.text_config.vocab_size for token in ids)


def test_words_of_the_sample_world_are_tokens_and_digits_stand_alone(made):
    tokenizer = made[1].tokenizer
    entries = json.loads((embedded.folder() / "entries.json").read_text())
    words = {word for e in entries for text in [e["question"], *e["candidates"]] for word in text.strip("?").split()}
    words = {word for word in words if not word.isdigit() and word.isalpha()}
    assert len(words) > 100
    assert {word for word in words if len(tokenizer.tokenize(f" {word}")) > 1} == set()
    assert tokenizer.tokenize("12.50") == ["1", "2", ".", "5", "0"]
    assert tokenizer.convert_tokens_to_ids("<|seg|>") == made[0].config.seg_token_id


def test_files(made, tmp_path):
    model, processor = made
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model.float()
    assert sum(path.stat().st_size for path in tmp_path.glob("*.safetensors")) <= 8_000_000
    again = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32)
    assert AutoProcessor.from_pretrained(tmp_path).sam_image_size == model.config.sam2_image_size
    bits = {name: tensor.to(torch.bfloat16).float() for name, tensor in model.state_dict().items()}
    for name, tensor in again.state_dict().items():
        expected = model.state_dict()[name] if "gaussian_matrix" in name else bits[name]
        assert torch.equal(tensor, expected) or torch.equal(tensor, bits[name]), name
    assert again.config.legacy_clock is False


def test_neighbouring_steps_are_one_position_apart(made):
    """Clips have six frames a second, and a temporal step has two: a third of a second is what must be told apart."""
    from evqa.models.unipixel.sequence_unipixel import rope_positions

    model, processor = made
    clip = FrameList(np.zeros((12, 54, 96, 3), np.uint8), fps=6)
    inputs = processor.apply_chat_template(question(clip, ["a", "b"]), tokenize=True, return_dict=True)
    positions = rope_positions(
        inputs["input_ids"], None, model.config, None, inputs["video_grid_thw"], inputs["second_per_grid_ts"],
        inputs["grid_times"],
    )  # fmt: skip
    seen = positions[:, 0][:, inputs["input_ids"][0] == model.config.video_token_id]
    times = seen[0] - seen[0].min()
    assert times.unique().tolist() == [0, 1, 2, 3, 4, 5]


def test_prompts_and_memories_reach_the_model(made):
    """Another point, another time of it, or another mask: other logits; what is left alone gives the same."""
    model, processor = made
    frames = np.random.default_rng(0).integers(0, 255, (8, 54, 96, 3), np.uint8)
    chat = [
        {
            "role": "user",
            "content": [
                {"type": "video", "video": frames, "fps": 6},
                {"type": "text", "text": "Does <|ref|> hit <|mem|>?"},
            ],
        }
    ]

    def logits(point=(20, 20), time=0.0, corner=0):
        pixels = np.zeros((54, 96), bool)
        pixels[:20, corner : corner + 20] = True
        masks = [{"frame": 2, "time": 2 / 6, "rle": rle_masks.encode(pixels)}]
        sample = processor.encode(chat, prompts=[{"point": point, "time": time}], memories=[masks], sam_frames=False)
        with torch.no_grad():
            return model(**processor.pad([sample])).logits

    base = logits()
    assert torch.equal(base, logits())
    for change in ({"point": (80, 40)}, {"time": 1.0}, {"corner": 60}):
        assert (base - logits(**change)).abs().max() > 1e-4, change


def question(clip, options, answer=None, segments=(), ask="Which block comes?"):
    text = GROUNDED.render("gen", question=ask, options=lettered(options), duration="2.0 seconds")
    chat = [{"role": "user", "content": [{"type": "video", "video": clip}, {"type": "text", "text": text}]}]
    if answer is not None:
        chat.append({"role": "assistant", "content": grounded_reply("AB"[answer], segments)})
    return chat


def world():
    """Two clips of one question: a red block from 0.5 s on the left, a blue one from 1.0 s on the right."""
    clips, targets, answers, segments = [], [], [0, 1], [[[0.5, 1.5]], [[1.0, 2.0]]]
    for colour, x, start in (((220, 40, 40), 12, 3), ((40, 60, 220), 60, 6)):
        frames = np.full((12, 54, 96, 3), 90, np.uint8)
        masks = []
        for t in range(start, start + 6):
            pixels = np.zeros((54, 96), bool)
            pixels[18:38, x + t : x + t + 20] = True
            frames[t][pixels] = colour
            masks.append({"frame": t, "time": t / 6, "rle": rle_masks.encode(pixels)})
        clips.append(FrameList(frames, fps=6))
        targets.append(masks)
    return clips, targets, answers, segments


def test_it_learns_answers_times_and_masks():
    """Two questions by heart in a few dozen steps, text and masks."""
    asks = ("Which block comes in on the left?", "Which block comes last?")
    model, processor = tiny()
    processor.min_pixels = 12 * 24**2  # cells: the frames are small
    clips, targets, answers, segments = world()
    options = ["red", "blue"]
    seen = {"frames": "every:2", "sam_frames": "every:6"}  # of SAM 2 two: without the object, and with it
    batch = processor.pad(
        [
            processor.encode(question(c, options, a, s, ask), targets=[m], labels=True, **seen)
            for c, a, s, m, ask in zip(clips, answers, segments, targets, asks, strict=True)
        ]
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98))
    torch.manual_seed(0)
    model.train()
    for step in range(120):
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (step + 1) / 10)
        out = model(**batch)
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if out.lm_loss.item() < 0.01 and out.dice_loss.item() < 0.08 and out.presence_loss.item() < 0.1:
            break
    model.eval()
    inputs = processor.apply_chat_template(
        [question(clip, options, ask=ask) for clip, ask in zip(clips, asks, strict=True)],
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        **seen,
    )
    said = processor.post_process(model.generate(**inputs, max_new_tokens=60, mask_format="rle"), inputs)
    assert [one.text for one in said] == [grounded_reply("AB"[a], s) for a, s in zip(answers, segments, strict=True)]
    for one, masks in zip(said, targets, strict=True):
        truth = {mask["frame"]: mask["rle"] for mask in masks}
        absent, present = one.masks
        assert (absent["frame"], present["frame"]) == (0, 6)
        assert rle_masks.is_empty(absent["rle"])
        assert evqa.scoring.jf(rle_masks.decode(present["rle"]), rle_masks.decode(truth[6]))[0] > 0.6
