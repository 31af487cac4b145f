"""Samples to batches, and a batch's output to records: the tensor side of the processor."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from transformers.feature_extraction_utils import BatchFeature

from evqa.errors import MaskError
from evqa.models.unipixel import regions_unipixel as regions
from evqa.models.unipixel.media_unipixel import ClipFrames
from evqa.types import FrameMask

__all__ = ["Grounded", "UniPixelInputs", "frame_masks", "pad_samples", "supervised_labels"]

_IGNORED = -100
# Keys of a batch that hold one item per sample, whatever its size; the others are tensors.
_LISTS = ("frames", "frame_size", "point_coords", "point_labels", "point_frames", "refer_mask", "label_mask")


class UniPixelInputs(BatchFeature):
    """Inputs of the model for a batch.

    Attributes:
        clips: Per sample the :class:`~evqa.models.unipixel.media_unipixel.ClipFrames` that is segmented, without its
            pixels, or ``None``.
    """

    clips: list[ClipFrames | None]

    def __getstate__(self) -> dict[str, Any]:
        """What a data loader's worker sends: the parent would leave out ``clips``."""
        return {"data": self.data, "clips": self.clips}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """See :meth:`__getstate__`."""
        self.data, self.clips = state["data"], state["clips"]


@dataclasses.dataclass
class Grounded:
    """What the model said about one sample.

    Attributes:
        text: The new text, without control tokens; ``<|seg|>`` stays in it.
        objects: For each ``<|seg|>`` of prompt and text the masks, in every frame that SAM 2 saw, at the clip's size.
        scores: For each object and frame the logit that the object is in it.
        complete: Whether the text came to its end by itself.
        num_tokens: Number of new tokens.
    """

    text: str
    objects: list[list[FrameMask]] = dataclasses.field(default_factory=list)
    scores: list[list[float]] = dataclasses.field(default_factory=list)
    complete: bool = True
    num_tokens: int = 0

    @property
    def masks(self) -> list[FrameMask]:
        """All objects as one."""
        return regions.union(self.objects)


def pad_samples(
    samples: Sequence[Mapping[str, Any]], padding_side: str, pad_token_id: int, video_token_id: int
) -> UniPixelInputs:
    """See :meth:`.UniPixelProcessor.pad`."""
    import torch

    if padding_side not in ("left", "right") or not samples:
        raise ValueError(f"a batch has samples and a padding side, left or right; got {padding_side!r}")
    longest = max(len(sample["input_ids"]) for sample in samples)

    def rows(values: Sequence[Sequence[int]], filler: int) -> Any:
        out = torch.full((len(values), longest), filler, dtype=torch.long)
        for row, own in zip(out, values, strict=True):
            row[longest - len(own) if padding_side == "left" else 0 :][: len(own)] = torch.as_tensor(own)
        return out

    all_ids = [sample["input_ids"] for sample in samples]
    ids = rows(all_ids, pad_token_id)
    data: dict[str, Any] = {"input_ids": ids, "attention_mask": rows([[1] * len(own) for own in all_ids], 0)}
    data["mm_token_type_ids"] = 2 * (ids == video_token_id).long()
    if any("labels" in sample for sample in samples):
        if not all("labels" in sample for sample in samples):
            raise ValueError("a batch has labels for all of its samples or for none")
        data["labels"] = rows([sample["labels"] for sample in samples], _IGNORED)
    seen = [sample for sample in samples if "pixel_values_videos" in sample]
    if seen:
        data["pixel_values_videos"] = torch.cat([sample["pixel_values_videos"] for sample in seen])
        data["video_grid_thw"] = torch.cat([sample["video_grid_thw"] for sample in seen])
        # Plain numbers: a cast of the batch to bfloat16 must not round the clock.
        for name in ("second_per_grid_ts", "grid_times"):
            if name in seen[0]:
                data[name] = [value for sample in seen for value in sample[name]]
    for name in _LISTS:
        if any(name in sample for sample in samples):
            data[name] = [sample.get(name) for sample in samples]
    inputs = UniPixelInputs(data)
    clips = [sample.get("clip") for sample in samples]
    inputs.clips = [clip and dataclasses.replace(clip, patches=None, sam_frames=None) for clip in clips]
    return inputs


def supervised_labels(text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Ids of the assistant's texts and of the ends of its turns, the rest ignored."""
    spans, start = [], 0
    head, end = "<|im_start|>assistant\n", "<|im_end|>"
    while (found := text.find(head, start)) >= 0:
        first = found + len(head)
        closed = text.find(end, first)
        start = len(text) if closed < 0 else closed + len(end)
        spans.append((first, start))
    out, span = [], 0
    for token, (begin, _) in zip(ids, offsets, strict=True):
        while span < len(spans) and begin >= spans[span][1]:
            span += 1
        out.append(token if span < len(spans) and begin >= spans[span][0] else _IGNORED)
    return out


def frame_masks(masks: Any, clip: ClipFrames) -> list[FrameMask]:
    """Masks of one object, frame by frame: RLE, or a bool tensor ``[frames, height, width]``."""
    from evqa.masks import encode

    if len(masks) != len(clip.sam_positions):
        raise MaskError(f"{len(masks)} masks for {len(clip.sam_positions)} frames")
    return [
        {"frame": int(frame), "time": float(time), "rle": mask if isinstance(mask, Mapping) else encode(mask.numpy())}
        for frame, time, mask in zip(clip.sam_positions, clip.sam_times, masks, strict=True)
    ]
