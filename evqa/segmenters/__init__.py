"""Referring expressions -> masks: one file per segmenter; see :mod:`evqa.segmenters.base`."""

from evqa.segmenters.base import Segmenter, load_segmenter, segmenter_names

__all__ = ["Segmenter", "load_segmenter", "segmenter_names"]
