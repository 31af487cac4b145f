"""Training samples to a batch of the model: conversations encoded, padded, and everything that the device would have to
be asked for computed beforehand.

Reading positions, labels and counts off a batch on the accelerator would make the host wait for it in every step, so
they are made here, in the loader's worker: ``position_ids``, ``label_positions``, and the counts that losses are
divided by.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from evqa import masks as rle_masks
from evqa.errors import DataError, EvqaError
from evqa.models.unipixel.sequence_unipixel import HostInputs, rope_positions
from evqa.training.budget import Failure
from evqa.training.loading import Loaded
from evqa.training.sharing import branch_columns
from evqa.types import FrameMask
from evqa.video.info import VideoInfo
from evqa.video.sampling import Policy

__all__ = ["UniPixelCollator", "fill_messages", "frame_masks"]

_IGNORED = -100


@dataclasses.dataclass(frozen=True)
class _Chosen(Policy):
    """Frames that were chosen before."""

    numbers: tuple[int, ...]
    name: ClassVar[str] = "chosen"

    def positions(self, info: VideoInfo) -> np.ndarray:
        """See :meth:`evqa.video.Policy.positions`."""
        return np.asarray(self.numbers, dtype=np.int64)


@dataclasses.dataclass
class UniPixelCollator:
    """Collates :class:`~evqa.training.mixture.TrainingSample` for UniPixel.

    What it returns are arguments of the model's ``forward``, and besides ``report``, which the trainer takes out: which
    entries the batch has, of which data type, what failed, and how many tokens and samples with masks count.

    Attributes:
        processor: The model's :class:`~evqa.models.unipixel.UniPixelProcessor`.
        config: The model's configuration.
        max_length: A longer conversation is a failure, not cut: a cut would take masks from their ``<|seg|>``.
        pad_to_multiple_of: Rows are filled up to a multiple of so many tokens, so that shapes recur.
    """

    processor: Any
    config: Any
    max_length: int | None = None
    pad_to_multiple_of: int = 1

    def __call__(self, places: Sequence[Any]) -> dict[str, Any]:
        """Collate a batch.

        Args:
            places: :class:`~evqa.training.loading.Loaded`, or samples and failures as they are. A failed one is
                replaced by a stand-in, which counts for nothing.

        Raises:
            DataError: There are no places.
        """
        places = [place if isinstance(place, Loaded) else Loaded(place) for place in places]
        if not places:
            raise DataError("a batch has at least one place")
        encoded, failures = [self._encode(place) for place in places], []
        for place, own in zip(places, encoded, strict=True):
            if isinstance(own, Failure) and place.counts:
                failures.append(own)
        made = next((own for own in encoded if not isinstance(own, Failure)), None)
        if made is None:
            made = self._blank(places[0].sample)
        samples, counts = [], []
        for place, own in zip(places, encoded, strict=True):
            counts.append(place.counts and not isinstance(own, Failure))
            own = made if isinstance(own, Failure) else own
            samples.append(own if counts[-1] else {**own, "labels": [_IGNORED] * len(own["labels"])})
        batch = dict(self.processor.pad(samples, "right"))
        self._fill_up(batch)
        batch.pop("mm_token_type_ids", None)  # rotary positions are made here
        batch["position_ids"] = rope_positions(
            batch["input_ids"], batch["attention_mask"], self.config, None, batch.get("video_grid_thw"),
            batch.get("second_per_grid_ts"), batch.get("grid_times"),
        )  # fmt: skip
        for name in ("second_per_grid_ts", "grid_times", "frame_size"):
            batch.pop(name, None)
        if any("branches" in sample for sample in samples):
            batch["branches"], starts = branch_columns(samples, batch["input_ids"].shape[1])
            batch["position_ids"] = batch["position_ids"] - starts
        # Rows are filled up on the right: under causal attention no token that counts can see a filler, and attention
        # without a mask has faster kernels.
        length = int(batch.pop("attention_mask").sum())
        batch["label_positions"] = _label_positions(batch["labels"])
        batch["host"] = HostInputs(batch.pop("input_ids"), batch.pop("video_grid_thw", None))
        with_masks = [count and "label_mask" in sample for count, sample in zip(counts, samples, strict=True)]
        batch["mask_weights"] = [float(count) for count in counts]
        batch["report"] = {
            "entries": [getattr(place.sample, "entry_id", None) for place in places],
            "data_type": getattr(places[0].sample, "data_type", None),
            "tried": sum(place.counts for place in places),
            "failures": failures,
            "tokens": len(batch["label_positions"]),
            "masks": sum(with_masks),
            "length": length,
        }
        return batch

    def _fill_up(self, batch: dict[str, Any]) -> None:
        """Lengthen the rows to a length that recurs."""
        more = -batch["input_ids"].shape[1] % self.pad_to_multiple_of
        for name, filler in (
            ("input_ids", self.processor.tokenizer.pad_token_id), ("attention_mask", 0), ("labels", _IGNORED),
        ):  # fmt: skip
            batch[name] = torch.nn.functional.pad(batch[name], (0, more), value=filler)

    def _encode(self, place: Loaded) -> dict[str, Any] | Failure:
        sample = place.sample
        if isinstance(sample, Failure):
            return sample
        try:
            targets = frame_masks(sample)
            own = self.processor.encode(
                fill_messages(sample), targets=targets or None, labels=True,
                sam_frames=_Chosen(tuple(sample.tracked)) if targets else False, max_length=self.max_length,
            )  # fmt: skip
            if all(label == _IGNORED for label in own["labels"]):
                raise DataError("the conversation has no reply to learn")
        except EvqaError as error:
            return Failure(sample.entry_id, sample.corpus, str(error), sample.data_type)
        del own["clip"]
        return own

    def _blank(self, failure: Failure) -> dict[str, Any]:
        """A sample of nothing, for a batch in which everything failed; it has what others of its data type have."""
        seen = failure.data_type not in ("text", "unknown")
        segmented = failure.data_type in ("evidence", "segmentation")
        cell = self.processor.video_processor.patch_size * self.processor.video_processor.merge_size
        frames = np.zeros((2, 2 * cell, 2 * cell, 3), np.uint8)
        content = [{"type": "video", "video": frames, "fps": 1.0}] if seen else []
        reply = "<|seg|>" if segmented else "."
        own = self.processor.encode(
            [
                {"role": "user", "content": [*content, {"type": "text", "text": "?"}]},
                {"role": "assistant", "content": [{"type": "text", "text": reply}]},
            ],
            targets=[[]] if segmented else None, labels=True, sam_frames="same" if segmented else False,
        )  # fmt: skip
        del own["clip"]
        return own


def fill_messages(sample: Any) -> list[dict[str, Any]]:
    """The messages of a sample with its frames and images in their places."""
    images, messages = iter(sample.images), []
    for message in sample.conversation.messages:
        content = []
        for item in message["content"]:
            if item["type"] == "video":
                item = {"type": "video", "video": sample.frames, "times": sample.times}
            elif item["type"] == "image":
                item = {"type": "image", "image": next(images)}
            content.append(item)
        messages.append({"role": message["role"], "content": content})
    return messages


def frame_masks(sample: Any) -> list[list[FrameMask]]:
    """The masks of each target of a sample, at the size of its frames, numbered as these are."""
    if not sample.masks:
        return []
    height, width = sample.frames.shape[1:3]
    out = []
    for target in sample.masks:
        own: list[FrameMask] = []
        for number, rle in zip(sample.tracked, target, strict=True):
            if rle is not None:
                if tuple(rle["size"]) != (height, width):
                    rle = rle_masks.resize(rle, height, width)
                own.append({"frame": number, "time": None, "rle": rle})
        out.append(own)
    return out


def _label_positions(labels: torch.Tensor) -> torch.Tensor:
    """Where in the flattened batch a label is predicted: int64 ``[labelled tokens]``."""
    following = torch.nn.functional.pad(labels, (0, 1), value=_IGNORED)[:, 1:]
    return (following.flatten() != _IGNORED).nonzero()[:, 0]
