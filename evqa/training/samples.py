"""One row as a training sample: words, frames and masks.

Everything that is drawn for it depends on seed, epoch, part, entry and repeat alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from evqa.errors import DataError, EvqaError
from evqa.training.budget import Failure
from evqa.training.conversations import Conversation, converse, data_type
from evqa.training.frames import candidates, generator, object_masks, read_image, read_pixels
from evqa.types import Rle

if TYPE_CHECKING:
    from evqa.training.mixture import MixtureConfig, Part

__all__ = ["TrainingSample", "make_sample"]


@dataclasses.dataclass
class TrainingSample:
    """What a collator needs to know of a sample.

    Attributes:
        entry_id, corpus, data_type: Which row, and what it is of.
        conversation: Messages and targets.
        frames: uint8 ``[frames, height, width, 3]``, or ``None`` where there is no clip.
        times: Seconds of the frames. Where the source has no clock they follow from ``assumed_fps``.
        chosen: Their numbers in the row.
        tracked: Places of the frames that SAM 2 sees.
        images: uint8 ``[height, width, 3]`` each.
        masks: ``[targets][tracked]`` of RLE, ``None``: not in the frame. Of a size of their own.
        duration: Seconds of the clip, where it is known.
    """

    entry_id: str
    corpus: str
    data_type: str
    conversation: Conversation
    frames: np.ndarray | None = None
    times: list[float] | None = None
    chosen: list[int] = dataclasses.field(default_factory=list)
    tracked: list[int] = dataclasses.field(default_factory=list)
    images: list[np.ndarray] = dataclasses.field(default_factory=list)
    masks: list[list[Rle | None]] = dataclasses.field(default_factory=list)
    duration: float | None = None


def make_sample(
    row: Mapping[str, Any], part: Part, epoch: int, copy: int, config: MixtureConfig
) -> TrainingSample | Failure:
    """A row of a part as a training sample: words, frames and masks, drawn by seed, epoch, part, entry and repeat.

    Returns:
        The sample, or the record of why there is none.
    """
    entry = str(row.get("entry_id"))
    corpus = row.get("corpus") or part.name
    what = (config.seed, epoch, part.name, entry, copy)
    kind = "unknown"
    try:
        kind = data_type(row)
        talk = converse(
            row, generator("words", *what).random, templates=config.templates, style=config.style,  # type: ignore[arg-type]
            shuffle_options=config.shuffle_options, say_option=config.say_option,
            say_rationale=config.say_rationale,
        )  # fmt: skip
        sample = TrainingSample(entry, corpus, kind, talk, duration=row.get("duration"))
        if kind in ("evidence", "segmentation"):
            chosen = config.frames.choose(candidates(row, talk.targets), generator("frames", *what))
            sample.chosen = chosen
            if config.read_frames:
                sample.frames, sample.times = read_pixels(
                    row, chosen, max_side=config.frames.max_side, isolate=config.isolate, published=part.published
                )
            if sample.times is None:
                sample.times = [number / config.frames.assumed_fps for number in chosen]
            sample.tracked = config.frames.track(len(chosen), generator("tracked", *what))
            sample.masks = object_masks(row, talk.targets, [chosen[i] for i in sample.tracked])
        elif kind == "video":
            _add_clip(sample, row, config, generator("frames", *what))
        elif kind == "image":
            if row.get("images") is None:
                raise DataError(f"the images are not at hand: {', '.join(row['image_names'])}")
            sample.images = [read_image(image, config.frames.max_side) for image in row["images"]]
        return sample
    except EvqaError as error:
        return Failure(entry, corpus, str(error), kind)


def _add_clip(sample: TrainingSample, row: Mapping[str, Any], config: MixtureConfig, rng: np.random.Generator) -> None:
    if len(row["video_names"]) != 1:
        raise DataError(f"a conversation about {len(row['video_names'])} videos; one is all that a sample can have")
    if row.get("pixels"):
        chosen = config.frames.choose(list(range(row["num_frames"])), rng)
        sample.chosen = chosen
        if config.read_frames:
            sample.frames, sample.times = read_pixels(row, chosen)
        return
    if row.get("videos") is None:
        raise DataError(f"the video is not at hand: {row['video_names'][0]}")
    from evqa.video import Clip

    clip = Clip(dict(row["videos"][0]), isolate=config.isolate)
    chosen = config.frames.choose(list(range(clip.info.num_frames)), rng)
    sample.chosen = chosen
    times = clip.info.timestamps[chosen]
    sample.frames = clip.frames(times, max_side=config.frames.max_side)
    sample.times = [float(t) for t in times]
