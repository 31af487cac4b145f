"""Qwen3-VL (2025), dense and mixture of experts. Each pair of frames is preceded by its time in seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from evqa.adapters._chat import Frames
from evqa.adapters._local import LocalAdapter

__all__ = ["Qwen3Vl"]


class Qwen3Vl(LocalAdapter):
    """See :class:`LocalAdapter` for the arguments; the defaults are the original baseline's model and frames."""

    name = "qwen3_vl"
    any_size = True

    def __init__(
        self,
        model: str = "Qwen/Qwen3-VL-8B-Instruct",
        *,
        frames: str = "fps:1,max=768",
        min_pixels: int | None = 128 * 32 * 32,
        max_pixels: int | None = 768 * 32 * 32,
        total_pixels: int | None = 2 * 24576 * 32 * 32,
        **options: Any,
    ):
        super().__init__(
            model, frames=frames, min_pixels=min_pixels, max_pixels=max_pixels, total_pixels=total_pixels, **options
        )

    def read_clip(self, row: Mapping[str, Any]) -> Frames:
        """Sampled frames; a lone frame is shown twice, because the processor takes no fewer than two."""
        clip = super().read_clip(row)
        if len(clip.pixels) > 1:
            return clip
        return dataclasses.replace(clip, pixels=np.repeat(clip.pixels, 2, 0), times=np.repeat(clip.times, 2))


ADAPTER = Qwen3Vl
