"""``mask_dict.pkl`` of Ref-YouTube-VOS and Ref-DAVIS17: masks under a running number, one entry per expression.

VISA (ECCV 2024), who made the published pickles, counts the expressions of ``sorted(videos)`` and, within a video, of
its expression ids sorted **as text**: 0, 1, 10, 11, 2, ... Counting in the order of the JSON file gives other masks to
expressions wherever a video has more than ten, and no length tells: the number of entries is the same. What tells is
that expressions of one object have the same masks. Both checks are made here, before any row is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evqa.corpora.expressions import Video
from evqa.corpora.masklets import MaskDict
from evqa.corpora.segmentation import Track
from evqa.errors import DataError

__all__ = ["ORDERS", "expression_set", "masks_by_number", "object_id"]

logger = logging.getLogger(__name__)

#: How expressions may be counted. ``text``: as the published pickles are; ``file``: as they stand in the JSON file.
ORDERS = ("text", "file")


def masks_by_number(
    masks: MaskDict, videos: Sequence[Video], order: str = "text"
) -> Callable[[Video, str, dict[str, Any]], list[Track]]:
    """For :func:`evqa.corpora.expressions.expressions_of`: the one object of an expression, masks by running number.

    Args:
        masks: The pickle.
        videos: All videos that it covers.
        order: One of :data:`ORDERS`.

    Raises:
        DataError: The pickle does not fit the expressions, or was counted in the other order; the error explains.
    """
    if order not in ORDERS:
        raise ValueError(f"mask_order must be one of {', '.join(ORDERS)}, not {order!r}")
    numbers = _count(videos, order)
    _check_length(masks, numbers)
    _check_order(masks, videos, order)

    def tracks(video: Video, expression_id: str, record: dict[str, Any]) -> list[Track]:
        return [Track(object_id(record), masks.source(numbers[video.video_id, expression_id]))]

    return tracks


def object_id(record: Mapping[str, Any]) -> str:
    """The object of an expression: text in the files, one per expression."""
    value = record.get("obj_id")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise DataError(f"obj_id must be one object's id, got {value!r}")
    return str(value)


def _count(videos: Sequence[Video], order: str) -> dict[tuple[str, str], str]:
    by_text = order == "text"
    numbers: dict[tuple[str, str], str] = {}
    for video in sorted(videos, key=lambda video: video.video_id) if by_text else videos:
        for expression_id in sorted(video.expressions) if by_text else video.expressions:
            numbers[video.video_id, expression_id] = str(len(numbers))
    return numbers


def _check_length(masks: MaskDict, numbers: Mapping[tuple[str, str], str]) -> None:
    if len(masks) != len(numbers):
        raise DataError(
            f"{len(masks)} masklets for {len(numbers)} expressions. Each expression has one, under a running number, "
            "so these two files do not belong together: are they of one split and one version?",
            file=masks.file,
        )
    if strangers := [number for number in numbers.values() if number not in masks]:
        raise DataError(f"there is no masklet {strangers[0]}; keys must count from 0", file=masks.file)


def _check_order(masks: MaskDict, videos: Sequence[Video], order: str) -> None:
    """Expressions of one object must have equal masks, in the order asked for."""
    if _agrees(masks, videos, order) is not False:
        return
    other = next(name for name in ORDERS if name != order)
    if _agrees(masks, videos, other):
        raise DataError(
            f"the masklets are counted in the order {other!r}: counted in the order {order!r}, expressions of one "
            f"object have different masks, and in the other they agree. Pass mask_order={other!r}",
            file=masks.file,
        )
    logger.warning(
        "%s: in neither order do all expressions of one object have the same masks; counted in the order %r",
        masks.file, order,
    )  # fmt: skip


def _agrees(masks: MaskDict, videos: Sequence[Video], order: str) -> bool | None:
    """Whether expressions of one object have equal masks; ``None``: the orders do not differ, or nothing can tell."""
    numbers, others = (_count(videos, name) for name in (order, *(name for name in ORDERS if name != order)))
    told = None
    for video in videos:
        keys = [(video.video_id, expression_id) for expression_id in video.expressions]
        if all(numbers[key] == others[key] for key in keys):
            continue
        seen: dict[str, bytes] = {}
        for key, record in zip(keys, video.expressions.values(), strict=True):
            try:
                name = object_id(record if isinstance(record, dict) else {})
            except DataError:  # reported when the row is read
                continue
            text = masks.text(numbers[key])
            if seen.setdefault(name, text) != text:
                return False
            told = True
    return told


def expression_set(video: Video, expression_id: str, per_object: int) -> int | None:
    """The place of an expression among the ``per_object`` of its object; ``None`` where ids do not count so."""
    if len(video.expressions) % per_object or {str(n) for n in range(len(video.expressions))} != set(video.expressions):
        return None
    return int(expression_id) % per_object
