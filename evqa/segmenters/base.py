"""What every segmenter is: frames and referring expressions in, one mask per expression and frame out.

A segmenter is one file in this package with a class derived from :class:`Segmenter` and the line
``SEGMENTER = TheClass``. Everything else (which clip, which frames, union, records, resuming) is the business of
:mod:`evqa.segmentation`.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from evqa._plugins import load_plugin, plugin_names
from evqa.types import Rle

__all__ = ["Segmenter", "load_segmenter", "segmenter_names"]


class Segmenter(abc.ABC):
    """Finds and tracks what referring expressions name.

    Subclasses take their options as keyword arguments of ``__init__`` with defaults; the command line passes them as
    ``--option name=value``. A model is loaded on first use or in ``__init__``, as suits it.

    Attributes:
        name: Name on the command line: the module's name.
        max_side: Longer side in pixels of the frames it is best given; ``None``: as they are.
    """

    name: ClassVar[str]
    max_side: int | None = None

    def settings(self) -> dict[str, Any]:
        """Everything about the segmenter that can change a mask, JSON-ready: it goes into the run's manifest."""
        return {}

    @abc.abstractmethod
    def segment(
        self, frames: np.ndarray, times: np.ndarray, expressions: Sequence[str], size: tuple[int, int]
    ) -> list[list[Rle]]:
        """Masks of what each expression names.

        The masks of an expression may not depend on which others are asked for, nor on any batch size.

        Args:
            frames: uint8 ``[T, h, w, 3]``, RGB, in order of time, possibly smaller than the clip.
            times: float64 ``[T]``, seconds of the frames from the start of the clip.
            expressions: At least one; each names one or more objects, and its mask is their union.
            size: ``(height, width)`` of the clip, and of the masks.

        Returns:
            One list per expression, in order, of one RLE per frame, each of ``size``; empty masks where nothing is
            found.

        Raises:
            SetupError: Nothing can be segmented: a package or a model is missing. The run stops.
            AdapterError: This clip cannot be segmented.
        """

    def close(self) -> None:  # noqa: B027 - nothing to let go of is the common case
        """Let go of the model."""


def segmenter_names() -> list[str]:
    """Names of the segmenters that come with evqa."""
    return plugin_names("segmenters")


def load_segmenter(spec: str, **options: Any) -> Segmenter:
    """Make a segmenter.

    Args:
        spec: ``name`` or ``name:model id``; the model id is passed as the option ``model``.
        options: Of the segmenter.

    Raises:
        AdapterError: No such segmenter, or an option that it does not have.
    """
    return load_plugin("segmenters", "segmenter", spec, options)
