"""Training samples as one batch of UniPixel's inputs; runs in the data loader's workers.

Every place of a batch is filled: a sample that failed, and a place without one, become a *blank*: two words that
nothing is learnt from. So batches keep their size on every rank, and the failures travel along to be counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from evqa import masks as rle_masks
from evqa.errors import EvqaError
from evqa.training.budget import Failure
from evqa.training.mixture import TrainingSample
from evqa.types import FrameMask
from evqa.video.sampling import Policy

if TYPE_CHECKING:
    from evqa.models.unipixel import UniPixelProcessor
    from evqa.video.info import VideoInfo

__all__ = ["NOT_FOR_THE_MODEL", "MixtureCollator"]

_IGNORED = -100

#: Keys of a batch that are for the trainer.
NOT_FOR_THE_MODEL = ("labels", "failures", "tried", "entry_ids", "data_type")


@dataclasses.dataclass(frozen=True)
class _Chosen(Policy):
    """Frames that were chosen before."""

    numbers: tuple[int, ...]
    name: ClassVar[str] = "chosen"

    def positions(self, info: VideoInfo) -> np.ndarray:
        """See :meth:`evqa.video.Policy.positions`."""
        return np.asarray(self.numbers, dtype=np.int64)


class MixtureCollator:
    """``collate_fn`` of a data loader over a mixture.

    Args:
        processor: Of the model.
        max_length: Most tokens of a sample; a longer one is a failure. It is never cut: a clip would lose its end.
        pad_to: Rows are filled up to a multiple of so many tokens, so that shapes repeat.
    """

    def __init__(self, processor: UniPixelProcessor, *, max_length: int | None = None, pad_to: int = 1):
        self.processor, self.max_length, self.pad_to = processor, max_length, pad_to

    def __call__(self, samples: Sequence[TrainingSample | Failure | None]) -> dict[str, Any]:
        """The batch.

        Returns:
            The model's inputs; ``labels``; ``logits_to_keep``: int64, the columns in which any row has something to
            learn (what their logits predict stands in the next column); and for the trainer ``failures``
            (:class:`~evqa.training.budget.Failure`), ``tried`` (samples, failed or not), ``entry_ids``, ``data_type``.
        """
        import torch

        encoded, failures, entries, kinds = [], [], [], []
        for sample in samples:
            if isinstance(sample, TrainingSample):
                entries.append(sample.entry_id)
                kinds.append(sample.data_type)
                sample = self._encode(sample)
            if isinstance(sample, Failure):
                failures.append(sample)
            encoded.append(sample if isinstance(sample, dict) else self._blank())
        if self.pad_to > 1:
            _fill_up(encoded[0], max(len(one["input_ids"]) for one in encoded), self.pad_to, self.processor)
        batch = dict(self.processor.pad(encoded))  # a plain dictionary: without the clips that it was made from
        learnt = batch["labels"][:, 1:].ne(_IGNORED)
        columns = learnt.any(0).nonzero()[:, 0]
        batch["logits_to_keep"] = columns if len(columns) else torch.zeros(1, dtype=torch.long)
        tried = sum(sample is not None for sample in samples)
        kind = kinds[0] if kinds else None
        return {**batch, "failures": failures, "tried": tried, "entry_ids": entries, "data_type": kind}

    def _encode(self, sample: TrainingSample) -> dict[str, Any] | Failure:
        tracks = bool(sample.masks)
        images = iter(sample.images)
        messages = []
        for message in sample.conversation.messages:
            content = []
            for part in message["content"]:
                if part["type"] == "video":
                    part = {"type": "video", "video": sample.frames, "times": sample.times}
                elif part["type"] == "image":
                    part = {"type": "image", "image": next(images)}
                content.append(part)
            messages.append({"role": message["role"], "content": content})
        try:
            return self.processor.encode(
                messages, targets=_targets(sample) if tracks else None, labels=True,
                sam_frames=_Chosen(tuple(sample.tracked)) if tracks else False, max_length=self.max_length,
            )  # fmt: skip
        except EvqaError as error:
            return Failure(sample.entry_id, sample.corpus, str(error), sample.data_type)

    def _blank(self) -> dict[str, Any]:
        chat = [{"role": "user", "content": "."}, {"role": "assistant", "content": "."}]
        made = self.processor.encode(chat, labels=True, sam_frames=False)
        return {**made, "labels": [_IGNORED] * len(made["labels"])}


def _targets(sample: TrainingSample) -> list[list[FrameMask]]:
    """Masks of each target in the tracked frames, at the size of the frames."""
    height, width = sample.frames.shape[1:3]
    return [
        [
            {"frame": place, "time": None, "rle": rle_masks.resize(mask, height, width)}
            for place, mask in zip(sample.tracked, masks, strict=True)
            if mask is not None
        ]
        for masks in sample.masks
    ]


def _fill_up(sample: dict[str, Any], longest: int, multiple: int, processor: Any) -> None:
    """Lengthen one sample, and so the batch, to a multiple; what is added is attended to by nothing that is learnt."""
    more = -longest % multiple + longest - len(sample["input_ids"])
    sample["input_ids"] = [*sample["input_ids"], *[processor.tokenizer.pad_token_id] * more]
    sample["labels"] = [*sample["labels"], *[_IGNORED] * more]
