"""UniPixel: each expression is asked for in words, and what its ``<|seg|>`` stand for is tracked."""

from __future__ import annotations

from evqa.models.unipixel.inference_unipixel import UniPixelSegmenter
from evqa.segmenters.base import Segmenter

__all__ = ["UniPixel"]


class UniPixel(UniPixelSegmenter, Segmenter):
    """See :class:`evqa.models.unipixel.inference_unipixel.UniPixelSegmenter`, which takes the options."""


SEGMENTER = UniPixel
