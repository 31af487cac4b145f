"""Referring and reasoning video segmentation: a model's masks of every expression of a corpus, scored as J and F.

One expression at a time is asked for in the first wording of the training templates; SAM 2 sees every frame that is
annotated, the language model sixteen of them. Finished rows are recorded at once, so that the same call goes on where
another one was stopped.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from evqa.errors import DataError, EvqaError
from evqa.scoring import EntryScore, bootstrap_intervals, clip_jf
from evqa.training.conversations import converse
from evqa.training.frames import FrameSampling, candidates, generator, object_masks
from evqa.video import Clip
from evqa.video.info import VideoInfo
from evqa.video.sampling import Policy

__all__ = ["METRICS", "score_referring", "summarize"]

METRICS = ("J", "F", "J&F")


@dataclasses.dataclass(frozen=True)
class _Numbers(Policy):
    """Frames by their number in the clip."""

    numbers: tuple[int, ...]
    name: ClassVar[str] = "numbers"

    def positions(self, info: VideoInfo) -> np.ndarray:
        """See :meth:`evqa.video.Policy.positions`."""
        if self.numbers[-1] >= info.num_frames:
            raise DataError(f"frame {self.numbers[-1]} of a clip of {info.num_frames} frames", file=info.path)
        return np.asarray(self.numbers, np.int64)


def score_referring(
    inference: Any,
    rows: Sequence[Mapping[str, Any]],
    record: str | os.PathLike[str],
    *,
    rank: int = 0,
    world_size: int = 1,
    frames: int = 16,
    max_new_tokens: int = 64,
    assumed_fps: float = 6.0,
    progress: bool = True,
) -> list[EntryScore]:
    """Segment and score the expressions of a corpus.

    Args:
        inference: A :class:`~evqa.models.unipixel.inference_unipixel.UniPixelInference`.
        rows: Segmentation rows with masks.
        record: JSON-lines file of finished rows; what it holds is not done again. With several ranks each has its own.
        rank, world_size: Which rows are this process's.
        frames: Frames that the language model sees.
        max_new_tokens: Longest reply.
        assumed_fps: Of frames without a clock.
        progress: Show a bar on rank 0.

    Returns:
        Scores of this rank's rows, in their order. A row that failed, or whose reply has no ``<|seg|>``, scores as one
        without masks, with the reason among its problems.
    """
    from tqdm.auto import tqdm

    record = Path(record)
    record.parent.mkdir(parents=True, exist_ok=True)
    done = _read(record)
    sampling, out = FrameSampling(frames, "uniform"), []
    mine = range(rank, len(rows), world_size)
    for number in tqdm(mine, desc=record.stem, disable=not progress or rank > 0):
        row = rows[number]
        if row["entry_id"] not in done:
            entry = _score(inference, row, sampling, max_new_tokens, assumed_fps)
            done[row["entry_id"]] = entry
            with open(record, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry.to_json()) + "\n")
                file.flush()
                os.fsync(file.fileno())
        out.append(done[row["entry_id"]])
    return out


def summarize(entries: Sequence[EntryScore]) -> dict[str, Any]:
    """Means in percent, their intervals over videos, and counts."""
    if not entries:
        raise DataError("there is nothing to score")
    means = {name: 100 * float(np.mean([entry.values[name] for entry in entries])) for name in METRICS}
    return {
        **means,
        "intervals": {name: list(pair) for name, pair in bootstrap_intervals(entries, METRICS).items()},
        "num_expressions": len(entries),
        "num_failed": sum(entry.status != "ok" for entry in entries),
    }


def _read(record: Path) -> dict[str, EntryScore]:
    """Finished rows; a line that was being written when the process died is dropped, and its row done again."""
    done: dict[str, EntryScore] = {}
    if not record.exists():
        return done
    whole = record.read_bytes()
    if whole and not whole.endswith(b"\n"):
        whole = whole[: whole.rfind(b"\n") + 1]
        with open(record, "r+b") as file:
            file.truncate(len(whole))
    for line in whole.decode("utf-8").splitlines():
        try:
            entry = EntryScore(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise DataError(f"a line of the record cannot be read ({error})", file=record) from None
        done[entry.entry_id] = entry
    return done


def _score(
    inference: Any, row: Mapping[str, Any], sampling: FrameSampling, max_new_tokens: int, assumed_fps: float
) -> EntryScore:
    entry = EntryScore(row["entry_id"], str(row["video_id"]), "ok", dict.fromkeys(METRICS, 0.0))
    try:
        talk = converse(row, lambda: 0.0)
        shown = candidates(row, talk.targets)
        truth = object_masks(row, talk.targets, shown)[0]
        size = next(tuple(rle["size"]) for rle in truth if rle is not None)
    except (EvqaError, StopIteration) as error:
        entry.status = "input_error"
        entry.problems = [str(error) or "no object is visible in any frame"]
        return entry
    reference = [
        {"frame": t, "time": None, "rle": _empty(size) if rle is None else rle}
        for t, rle in zip(shown, truth, strict=True)
    ]
    entry.frames = len(reference)
    try:
        said = _segment(inference, row, talk, shown, sampling, max_new_tokens, assumed_fps)
    except EvqaError as error:
        entry.status, entry.problems = "input_error", [str(error)]
        return entry
    if not said:
        entry.status, entry.problems = "parse_failed", ["the reply names no object (<|seg|>)"]
        return entry
    found = clip_jf(said, reference)
    entry.problems = list(found.problems)
    entry.values = {"J": found.j, "F": found.f, "J&F": (found.j + found.f) / 2}
    return entry


def _segment(
    inference: Any, row: Mapping[str, Any], talk: Any, shown: list[int], sampling: FrameSampling, max_new_tokens: int,
    assumed_fps: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """Masks of a row's expression, numbered as its frames are."""
    folder, numbers = row.get("frames"), row.get("frame_numbers")
    if folder and folder.get("names"):
        times = folder["times"] or [i / assumed_fps for i in range(len(folder["names"]))]
        clip, numbers = Clip({**folder, "times": times}), None
    elif row.get("video"):
        clip = Clip(dict(row["video"]))
    else:
        raise DataError("neither frames nor the clip are at hand", entry=row["entry_id"])
    in_clip = [numbers[t] for t in shown] if numbers else shown
    seen = sampling.choose(in_clip, generator("frames", row["entry_id"]))
    read = inference.processor.read(clip, frames=_Numbers(tuple(seen)), sam_frames=_Numbers(tuple(in_clip)))
    content = [{**item, "video": read} if item["type"] == "video" else item for item in talk.messages[0]["content"]]
    sample = inference.processor.encode([{"role": "user", "content": content}], add_generation_prompt=True)
    said = inference.generate([sample], max_new_tokens=max_new_tokens, masks=True)[0]
    place = dict(zip(in_clip, shown, strict=True))
    return [{**mask, "frame": place[mask["frame"]]} for mask in said.masks] if said.objects else []


def _empty(size: tuple[int, int]) -> Any:
    from evqa import masks as rle_masks

    return rle_masks.empty(*size)
