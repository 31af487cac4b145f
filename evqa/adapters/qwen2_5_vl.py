"""Qwen2.5-VL (Bai et al., 2025). Time reaches it as the clock of its rotary positions, from the frames' rate."""

from __future__ import annotations

from typing import Any

from evqa.adapters._local import LocalAdapter

__all__ = ["Qwen25Vl"]


class Qwen25Vl(LocalAdapter):
    """See :class:`LocalAdapter` for the arguments; the defaults are the original baseline's model and frames.

    Rotary positions know one rate per clip: frames of a clip with a varying rate are placed at equal distances.
    """

    name = "qwen2_5_vl"
    any_size = True

    def __init__(
        self,
        model: str = "Qwen/Qwen2.5-VL-7B-Instruct",
        *,
        frames: str = "fps:1,max=768",
        min_pixels: int | None = 128 * 28 * 28,
        max_pixels: int | None = 768 * 28 * 28,
        total_pixels: int | None = 2 * 24576 * 28 * 28,
        **options: Any,
    ):
        super().__init__(
            model, frames=frames, min_pixels=min_pixels, max_pixels=max_pixels, total_pixels=total_pixels, **options
        )


ADAPTER = Qwen25Vl
