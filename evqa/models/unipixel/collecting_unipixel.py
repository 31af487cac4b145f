"""What is collected while text is generated and objects are tracked: states, and masks at the clips' sizes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from evqa.models.unipixel.sam2_unipixel import Prediction
from evqa.models.unipixel.sequence_unipixel import index_targets

__all__ = ["MaskWriter", "SegStates", "Segmentation"]

#: Pixels, of all objects and frames together, that are resized at a time: 256 MiB of logits.
_PIXELS = 2**26


@dataclasses.dataclass
class Segmentation:
    """Masks of a batch; fields as in :class:`UniPixelGenerateOutput`, and ``pointers`` ``[objects, frames, C]``."""

    masks: list[Any]
    object_scores: list[Tensor]
    mask_logits: list[Tensor] | None = None
    pointers: list[Tensor] | None = None


class SegStates:
    """Keeps the states from which ``<seg>`` tokens were predicted, and no others.

    A state is what enters the language model's last norm; the one in column ``i`` predicts the token in column
    ``i + 1``. Of the prompt those before a ``<seg>`` are kept, and of every call the last. A decoding loop that does
    not go through the model's modules (a replayed graph) must call :meth:`add` itself.

    Args:
        prompt_ids: ``[batch, length]``.
        prompt_mask: ``[batch, length]`` or ``None``.
        token: Id of ``<seg>``.
        after_prompt: Called when the prompt's states have come.
    """

    def __init__(
        self, prompt_ids: Tensor, prompt_mask: Tensor | None, token: int | None,
        after_prompt: Callable[[], None] | None = None,
    ):  # fmt: skip
        places = index_targets(prompt_ids, prompt_mask, token)
        self.wanted = [(row, column) for row, found in enumerate(places) for column in found.tolist()]
        self.next_column, self.after_prompt = 0, after_prompt
        self.kept: dict[tuple[int, int], Tensor] = {}
        self.last: dict[int, Tensor] = {}

    def add(self, states: Tensor) -> None:
        """States of the next columns, ``[batch, columns, C]``."""
        start, stop = self.next_column, self.next_column + states.shape[1]
        for row, column in self.wanted:
            if start <= column < stop:
                self.kept[row, column] = states[row, column - start].clone()
        self.last[stop - 1] = states[:, -1].clone()
        self.next_column = stop
        if start == 0 and self.after_prompt is not None:
            self.after_prompt()

    def at(self, row: int, column: int) -> Tensor:
        """The state ``[C]`` that predicted what stands in the column after this one."""
        return self.kept[row, column] if (row, column) in self.kept else self.last[column][row]


class MaskWriter:
    """Turns predictions, frame by frame, into masks at the clips' sizes in host memory.

    Args:
        owner: For each object the number of its sample, ascending.
        sizes: ``(height, width)`` of each sample's clip.
        form: ``"tensor"`` (bool), ``"rle"`` (COCO), or ``"none"``.
        logits, pointers: Whether to keep those.
        batch: Frames that are resized in one go.
    """

    def __init__(
        self, owner: Sequence[int], sizes: Sequence[tuple[int, int]], form: str, *, logits: bool, pointers: bool,
        batch: int,
    ):  # fmt: skip
        self.owner, self.sizes, self.form, self.batch = list(owner), list(sizes), form, batch
        self.keeps = {"logits": logits, "pointers": pointers}
        self.waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self.masks: list[list[Any]] = [[] for _ in sizes]  # per sample, per batch of frames
        self.scores: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.pointers: list[Tensor] = []

    def add(self, prediction: Prediction) -> None:
        """The next frame of all objects."""
        self.waiting.append((prediction.mask, prediction.scores[:, 0], prediction.pointer))  # not the candidates
        if len(self.waiting) == self.batch:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self.waiting:
            return
        logits, scores, pointers = (torch.stack(part, dim=1) for part in zip(*self.waiting, strict=True))
        self.waiting = []
        self.scores.append(scores.float().cpu())
        if self.keeps["logits"]:
            self.logits.append(logits.float().cpu())
        if self.keeps["pointers"]:
            self.pointers.append(pointers.float().cpu())
        for sample, size in enumerate(self.sizes):
            part = logits[_objects(self.owner, sample)]  # [objects, frames, S / 4, S / 4]
            if self.form == "none" or len(part) == 0:
                continue
            for few in part.split(max(1, _PIXELS // (len(part) * size[0] * size[1])), dim=1):
                full = F.interpolate(few.float(), tuple(size), mode="bilinear", align_corners=False)
                masks = (full > 0).cpu()  # [objects, frames, height, width]
                self.masks[sample].append(_as_rle(masks) if self.form == "rle" else masks)

    def finish(self) -> Segmentation:
        """Everything written, by sample."""
        self.flush()
        return Segmentation(
            masks=[self._joined(parts, size) for parts, size in zip(self.masks, self.sizes, strict=True)],
            object_scores=self._by_sample(self.scores),
            mask_logits=self._by_sample(self.logits) if self.keeps["logits"] else None,
            pointers=self._by_sample(self.pointers) if self.keeps["pointers"] else None,
        )

    def _joined(self, parts: list[Any], size: tuple[int, int]) -> Any:
        if self.form == "none":
            return None
        if self.form == "rle":
            return [[*itertools.chain(*chunks)] for chunks in zip(*parts, strict=True)] if parts else []
        return torch.cat(parts, dim=1) if parts else torch.zeros(0, 0, *size, dtype=torch.bool)

    def _by_sample(self, parts: list[Tensor]) -> list[Tensor]:
        joined = torch.cat(parts, dim=1)
        return [joined[_objects(self.owner, sample)] for sample in range(len(self.sizes))]


def _objects(owner: Sequence[int], sample: int) -> slice:
    start = sum(o < sample for o in owner)
    return slice(start, start + sum(o == sample for o in owner))


def _as_rle(masks: Tensor) -> list[list[dict]]:
    from evqa.masks import encode

    return [[encode(mask) for mask in frames] for frames in masks.numpy()]
