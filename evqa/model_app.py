"""The Gradio app of a model's Space: upload a clip, ask, and see the answer, the seconds and the masks."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evqa import masks as rle_masks
from evqa.adapters.base import Adapter
from evqa.errors import EvqaError, MissingDependencyError
from evqa.scoring.answers import LETTERS, match_candidate
from evqa.types import Prediction

__all__ = ["answer", "build", "overlay"]

MOST_SECONDS = 180.0
MOST_PIXELS = 3840 * 2160
MOST_TEXT = 500  # characters of a question or an option
_SIDE = 854  # of the clip that is shown, on its longer side
_MOST_FPS = 30.0
_CHUNK = 32  # frames decoded at a time: bounds memory
_ORANGE = np.array([234, 88, 12], np.float32)
_BAR = 10  # pixels of the time line below the picture


def answer(adapter: Adapter, clip: str | None, question: str, options: str) -> tuple[str, str | None, dict[str, Any]]:
    """Ask the model about a clip.

    Args:
        adapter: The model.
        clip: Path of the clip.
        question: In words.
        options: One a line; at least two.

    Returns:
        What to tell the visitor, as Markdown; the clip with masks and segments drawn in, or ``None``; and the
        prediction as JSON, without its masks. What is wrong with the input is told, too.
    """
    candidates = [line.strip() for line in (options or "").splitlines() if line.strip()]
    if not clip:
        return "Upload a clip first.", None, {}
    if not (question or "").strip():
        return "Ask a question.", None, {}
    if not 2 <= len(candidates) <= len(LETTERS):
        return f"Give 2 to {len(LETTERS)} options, one a line.", None, {}
    if max(map(len, [question, *candidates])) > MOST_TEXT:
        return f"The question and each option may have {MOST_TEXT} characters.", None, {}
    try:
        row = _row(clip, question.strip(), candidates)
        if row["duration"] > MOST_SECONDS or row["height"] * row["width"] > MOST_PIXELS:
            return f"The clip may last {MOST_SECONDS:.0f} s and have {MOST_PIXELS:,} pixels.", None, {}
        (said,) = adapter.predict([adapter.prepare(row, "gen")], "gen")
        shown = None if said.failed else overlay(row, said)
    except EvqaError as error:
        return f"It cannot be done.\n\n{_block(error.message)}", None, {}
    facts = {key: value for key, value in said.to_json().items() if key not in ("masks", "entry_id", "original")}
    return _words(said, candidates), shown, facts


def _row(clip: str, question: str, candidates: list[str]) -> dict[str, Any]:
    from evqa.video import probe

    info = probe(clip)
    return {
        "entry_id": "upload", "video_id": "upload", "video": {"path": os.fspath(clip), "bytes": None}, "fps": info.fps,
        "num_frames": info.num_frames, "duration": info.duration, "height": info.height, "width": info.width,
        "question": question, "candidates": candidates, "metadata": "{}",
    }  # fmt: skip


def _block(text: str) -> str:
    return "```text\n" + text.replace("```", "'''")[:3000] + "\n```"


def _words(said: Prediction, candidates: Sequence[str]) -> str:
    if said.failed:
        return f"**No answer** ({said.status}).\n\n{_block(said.detail or said.raw_text or '')}"
    index = match_candidate(said.answer, candidates) if said.answer else None
    chosen = "none of the options" if index is None else f"({LETTERS[index]}) {candidates[index]}"
    times = ", ".join(f"{start:.1f} to {end:.1f}" for start, end in said.segments)
    masks = len({mask["frame"] for mask in said.masks if mask["rle"] and not rle_masks.is_empty(mask["rle"])})
    lines = [f"answer   {chosen}", f"seconds  {times or 'none given'}", f"masks    on {masks} frames"]
    if said.detail:
        lines.append(f"note     {said.detail}")
    return _block("\n".join(lines))


def overlay(row: dict[str, Any], said: Prediction) -> str:
    """The clip with the masks drawn in and the segments on a bar below; the path of an MP4 file."""
    from evqa.video import write_clip

    rate = min(row["fps"] or _MOST_FPS, _MOST_FPS)
    path = Path(tempfile.mkdtemp(prefix="evqa-answer-")) / "answer.mp4"
    write_clip(path, _drawn(row, said, rate), rate, crf=23)
    return str(path)


def _drawn(row: dict[str, Any], said: Prediction, rate: float) -> Iterator[np.ndarray]:
    from evqa.video import Clip

    clip = Clip(row["video"])
    times = np.arange(max(1, int(row["duration"] * rate))) / rate
    by_frame: dict[int, list[Any]] = {}
    for mask in said.masks:
        if mask["rle"] is not None:
            by_frame.setdefault(mask["frame"], []).append(mask["rle"])
    for start in range(0, len(times), _CHUNK):
        part = times[start : start + _CHUNK]
        for time, frame in zip(part, clip.frames(part), strict=True):
            picture = _smaller(frame)
            for rle in by_frame.get(int(time * (row["fps"] or rate) + 1e-3), []):
                picture = _painted(picture, rle)
            yield np.concatenate([picture, _bar(picture.shape[1], time, row["duration"], said)])


def _smaller(frame: np.ndarray) -> np.ndarray:
    from PIL import Image

    image = Image.fromarray(frame)
    image.thumbnail((_SIDE, _SIDE))
    return np.asarray(image)


def _painted(picture: np.ndarray, rle: Any) -> np.ndarray:
    from PIL import Image

    height, width = picture.shape[:2]
    mask = np.asarray(Image.fromarray(rle_masks.decode(rle).astype(np.uint8)).resize((width, height))).astype(bool)
    inside = mask.copy()
    inside[1:-1, 1:-1] &= mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    out = picture.astype(np.float32)
    out[mask] = 0.5 * out[mask] + 0.5 * _ORANGE
    out[mask & ~inside] = _ORANGE
    return out.astype(np.uint8)


def _bar(width: int, time: float, duration: float, said: Prediction) -> np.ndarray:
    bar = np.full((_BAR, width, 3), 225, np.uint8)
    for start, end in said.segments:
        if np.isfinite(start + end):
            left, right = (int(np.clip(second / duration, 0, 1) * width) for second in (start, end))
            bar[:, left : max(right, left + 1)] = _ORANGE.astype(np.uint8)
    place = min(width - 2, int(time / duration * width))
    bar[:, place : place + 2] = 20
    return bar


def examples(count: int = 3) -> list[list[str]]:
    """Clip, question and options of the first entries of the sample that ask different things of different clips."""
    import evqa

    rows = evqa.load_dataset("st_evidence", "sample", split="test").remove_columns(["spatial_options", "masks"])
    out: dict[str, list[str]] = {}
    clips: set[str] = set()
    for row in rows:
        if row["video_id"] not in clips and row["question"] not in out:
            clips.add(row["video_id"])
            out[row["question"]] = [row["video"]["path"], row["question"], "\n".join(row["candidates"])]
        if len(out) == count:
            break
    return list(out.values())


def build(adapter: Adapter, *, title: str, about: str = "") -> Any:
    """The app, a ``gradio.Blocks``.

    Args:
        adapter: The model; it is asked by one visitor at a time.
        title: Heading.
        about: What the visitor should know about the model, as Markdown.

    Raises:
        MissingDependencyError: gradio is not installed.
    """
    try:
        import gradio as gr
    except ImportError:
        raise MissingDependencyError("the model's app needs gradio: pip install gradio") from None

    def ask(clip: str | None, question: str, options: str) -> tuple[str, Any, str]:
        words, shown, facts = answer(adapter, clip, question, options)
        return words, shown, json.dumps(facts, indent=1, ensure_ascii=False)

    # What visitors upload and what is made for them is deleted after an hour.
    with gr.Blocks(title=title, delete_cache=(600, 3600)) as app:
        gr.Markdown(f"# {title}\n{about}")
        with gr.Row():
            with gr.Column():
                clip = gr.Video(label="clip", sources=["upload"])
                question = gr.Textbox(label="question")
                options = gr.Textbox(label="options, one a line", lines=4)
                button = gr.Button("Ask", variant="primary")
            with gr.Column():
                words = gr.Markdown(elem_id="answer")
                shown = gr.Video(label="masks, and on the bar below the seconds", elem_id="shown", autoplay=True)
                with gr.Accordion("As JSON", open=False):
                    facts = gr.Code(language="json", label="prediction")
        gr.Examples(examples(), [clip, question, options])
        button.click(ask, [clip, question, options], [words, shown, facts], concurrency_limit=1)
    return app
