"""The benchmark during training: the model as it is answers entries and is scored as anything else is.

Greedy, one turn, the words of :data:`evqa.prompts.GROUNDED`. For a run with a log, retries and other models there is
:mod:`evqa.engine` with the adapter ``unipixel``; this is the short way for a model that is in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evqa.errors import EvqaError
from evqa.parsing import parse_generation
from evqa.prompts import GROUNDED, lettered
from evqa.types import Prediction

__all__ = ["answer_rows"]


def answer_rows(
    model: Any,
    processor: Any,
    rows: Iterable[Mapping[str, Any]],
    *,
    batch_size: int = 8,
    max_new_tokens: int = 96,
    mask_frames: str = "every:1",
) -> list[Prediction]:
    """Answers with segments and masks.

    Args:
        model: UniPixel, in evaluation mode on its device.
        processor: Of the model.
        rows: Of the benchmark (:class:`evqa.types.Sample`), with clips.
        batch_size: Entries generated at once.
        max_new_tokens: Limit of a reply.
        mask_frames: Which frames get masks (:func:`evqa.video.parse_policy`).

    Returns:
        One prediction per row; an entry whose clip cannot be read is a failure record.
    """
    found: list[Prediction] = []
    waiting: list[tuple[Mapping[str, Any], dict[str, Any]]] = []
    for row in rows:
        try:
            waiting.append((row, _encode(processor, row, mask_frames)))
        except EvqaError as error:
            found.append(Prediction.failure(row["entry_id"], "input_error", str(error)))
        if len(waiting) == batch_size:
            found += _answer(model, processor, waiting, max_new_tokens)
            waiting = []
    return found + (_answer(model, processor, waiting, max_new_tokens) if waiting else [])


def _encode(processor: Any, row: Mapping[str, Any], mask_frames: str) -> dict[str, Any]:
    clip = processor.read(row["video"], sam_frames=mask_frames)
    text = GROUNDED.render(
        "gen", question=row["question"], options=lettered(row["candidates"]), duration=f"{clip.duration:.1f} seconds"
    )
    content = [{"type": "video", "video": clip}, {"type": "text", "text": text}]
    return processor.encode([{"role": "user", "content": content}], add_generation_prompt=True)


def _answer(
    model: Any, processor: Any, waiting: Sequence[tuple[Mapping[str, Any], dict[str, Any]]], max_new_tokens: int
) -> list[Prediction]:
    inputs = processor.pad([sample for _, sample in waiting], padding_side="left")
    clips = inputs.clips
    inputs = inputs.to(model.device)
    inputs.clips = clips
    # Each rank for itself: it holds all weights while it answers, and has another number of entries than others.
    alone = {"synced_gpus": False}
    output = model.generate(**inputs, mask_format="rle", max_new_tokens=max_new_tokens, do_sample=False, **alone)
    out = []
    for (row, _), clip, said in zip(waiting, clips, processor.post_process(output, inputs), strict=True):
        parsed = parse_generation(said.text, row["candidates"], duration=clip.duration)
        if not said.complete and parsed.answer is None:
            parsed.status = "truncated"
        out.append(parsed.as_prediction(row["entry_id"], said.text, **({"masks": said.masks} if said.masks else {})))
    return out
