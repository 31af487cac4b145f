"""The model's Space: an uploaded clip is answered, and what is shown is where it should be."""

from __future__ import annotations

import numpy as np
import pytest
from browsing import browser, expect, needs_browser
from make_data import box
from test_spaces import ROOT, start, visited

from evqa import masks
from evqa.adapters import Adapter, adapter_names, load_adapter
from evqa.errors import VideoError
from evqa.model_app import answer, examples, overlay
from evqa.types import Prediction

__all__ = ["browser", "start"]  # fixtures
pytest.importorskip("av")


class Scripted(Adapter):
    """Says what it was made with."""

    name = "scripted"

    def __init__(self, said):
        self.said = said

    def predict(self, rows, task):
        self.rows = rows
        if isinstance(self.said, Exception):
            raise self.said
        return [self.said]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from evqa.video import write_clip

    path = tmp_path_factory.mktemp("clip") / "grey.mp4"
    write_clip(path, np.full((12, 48, 64, 3), 90, np.uint8), 6.0)
    return str(path)


def test_masks_and_seconds_are_drawn_where_they_are(clip):
    from evqa.video import Clip

    rle = masks.encode(box(10, 8, 16, 12))
    said = Prediction(
        "upload", answer="B", segments=[[0.5, 1.5], [float("nan"), 1.0]], masks=[{"frame": 4, "time": None, "rle": rle}]
    )
    row = {"video": {"path": clip, "bytes": None}, "fps": 6.0, "duration": 2.0}
    frames = Clip(overlay(row, said)).frames((np.arange(12) + 0.5) / 6)
    assert frames.shape[:3] == (12, 58, 64)
    orange = (frames[..., 0].astype(int) - frames[..., 2]) > 50
    assert orange[4, 9:19, 11:25].mean() > 0.9
    assert not orange[4, :6].any()
    assert not orange[[3, 5], :46].any()
    bar = orange[0, 53]
    assert not bar[4:14].any()
    assert bar[18:46].all()
    assert not bar[50:].any()


def test_words_and_facts(clip):
    said = Prediction("upload", answer="b", segments=[[0.5, 1.5]], usage={"tokens": 7})
    adapter = Scripted(said)
    words, shown, facts = answer(adapter, clip, " what? ", "one\n\n two \nthree")
    assert "answer   (B) two" in words
    assert "seconds  0.5 to 1.5" in words
    assert shown.endswith(".mp4")
    assert facts == {"status": "ok", "answer": "b", "segments": [[0.5, 1.5]], "usage": {"tokens": 7}}
    (row,) = adapter.rows
    assert (row["question"], row["candidates"], row["num_frames"], row["width"]) == (
        "what?",
        ["one", "two", "three"],
        12,
        64,
    )
    words, shown, _ = answer(Scripted(Prediction.failure("upload", "refused", "``` I <b>cannot")), clip, "q", "a\nb")
    assert "No answer" in words
    assert words.count("```") == 2
    assert shown is None


@pytest.mark.parametrize(("change", "message"), [
    ({"clip": None}, "Upload a clip"), ({"question": " "}, "Ask a question"), ({"options": "one"}, "Give 2 to"),
    ({"question": "x" * 501}, "500 characters"), ({"options": "a\n" * 30}, "Give 2 to"), ({"clip": "/nowhere.mp4"}, "cannot be done"),
])  # fmt: skip
def test_what_a_visitor_gives_is_answered(clip, change, message):
    arguments = {"clip": clip, "question": "what?", "options": "a\nb", **change}
    words, shown, facts = answer(Scripted(Prediction("upload", answer="A")), **arguments)
    assert message in words
    assert (shown, facts) == (None, {})


def test_broken_uploads_and_adapter_errors(clip, tmp_path):
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 1000)
    assert "cannot be done" in answer(Scripted(Prediction("upload")), str(tmp_path / "junk.mp4"), "q", "a\nb")[0]
    assert "no memory" in answer(Scripted(VideoError("no memory")), clip, "q", "a\nb")[0]


@needs_browser
@pytest.mark.parametrize("model", ["chance", "unipixel:tiny"])
def test_clip_is_uploaded_and_answered(browser, start, model):
    if model.partition(":")[0] not in adapter_names():
        pytest.skip("no such adapter here")
    if model != "chance":
        pytest.importorskip("transformers")
    page = visited(browser, start(ROOT / "recipes" / "spaces" / "model" / "app.py", EVQA_MODEL=model))
    path, question, options = examples(1)[0]
    page.locator("input[type=file]").first.set_input_files(path, timeout=60_000)
    page.get_by_label("question").fill(question)
    page.get_by_label("options, one a line").fill(options)
    expect(page.locator("video").first).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#answer pre")).to_be_visible(timeout=180_000)
    text = page.locator("#answer").inner_text()
    if model == "chance":
        row = {"entry_id": "upload", "candidates": options.splitlines(), "duration": 10.0}
        letter = load_adapter("chance").predict([row], "gen")[0].answer
        assert f"answer   ({letter}) {options.splitlines()['ABCDEF'.index(letter)]}" in text
        assert "seconds  0.0 to 10.0" in text
        assert "masks    on 60 frames" in text
        expect(page.locator("#shown video")).to_be_visible(timeout=60_000)
        page.wait_for_function("() => document.querySelector('#shown video').readyState >= 2")
    assert page.problems == []
    page.close()
