"""SAM 3 video (Carion et al., 2025) through transformers: finds every instance of a noun phrase and tracks it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evqa import masks as rle_masks
from evqa._torch import load_pretrained, pick_device, pick_dtype
from evqa.segmenters.base import Segmenter
from evqa.types import Rle

__all__ = ["Sam3"]


class Sam3(Segmenter):
    """Detects and tracks with ``Sam3VideoModel``.

    Each expression gets a session of its own: within one session SAM 3 lets the objects of different prompts suppress
    one another, so a mask would depend on which other expressions are asked for. The price is that frames are encoded
    once per expression.

    SAM 3 reads at most 32 tokens of a phrase.

    Args:
        model: Model id or folder.
        revision: Of the model on the Hub.
        device: ``cuda``, ``cpu``, ...; default: a GPU if there is one.
        dtype: ``float32``, ``bfloat16``, ...; ``auto``: bfloat16 on a GPU, else float32.
        threshold: Least score of a detection; default: the model's.
        max_side: Longer side of the frames as they are decoded; the model resizes them to its own size.
    """

    name = "sam3"

    def __init__(
        self,
        model: str = "facebook/sam3",
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        threshold: float | None = None,
        max_side: int | None = 1008,
    ):
        import torch

        self._torch = torch
        self._device = pick_device(device)
        self._dtype = pick_dtype(dtype, self._device)
        self._id = model
        self._revision = revision
        self.max_side = max_side
        self._model, self._processor = load_pretrained(
            model, "Sam3VideoModel", processor="Sam3VideoProcessor", revision=revision, device=self._device,
            dtype=self._dtype,
        )  # fmt: skip
        if threshold is not None:
            self._model.score_threshold_detection = threshold
        self._threshold = self._model.score_threshold_detection

    def settings(self) -> dict[str, Any]:
        """See :meth:`Segmenter.settings`."""
        return {
            "model": self._id,
            "revision": self._revision,
            "dtype": str(self._dtype).removeprefix("torch."),
            "threshold": self._threshold,
            "max_side": self.max_side,
        }

    def segment(
        self, frames: np.ndarray, times: np.ndarray, expressions: Sequence[str], size: tuple[int, int]
    ) -> list[list[Rle]]:
        """See :meth:`Segmenter.segment`; the union of all instances that an expression finds."""
        video = self._processor.video_processor(videos=[frames], device=self._device, return_tensors="pt")
        return [self._track(video["pixel_values_videos"][0], expression, size) for expression in expressions]

    def _track(self, video: Any, expression: str, size: tuple[int, int]) -> list[Rle]:
        session = self._processor.init_video_session(inference_device=self._device, dtype=self._dtype)
        session.processed_frames = dict(enumerate(video.to(self._dtype)))  # [3, S, S] each, shared by all expressions
        session.video_height, session.video_width = size
        self._processor.add_text_prompt(session, expression)
        out: list[Rle | None] = [None] * len(video)
        for found in self._model.propagate_in_video_iterator(session):
            masks = self._processor.postprocess_outputs(session, found)["masks"]  # [instances, height, width] bool
            out[found.frame_idx] = rle_masks.encode(masks.any(dim=0).cpu().numpy()) if len(masks) else None
        return [rle_masks.empty(*size) if rle is None else rle for rle in out]

    def close(self) -> None:
        """Let go of the model."""
        self._model = None


SEGMENTER = Sam3
