"""The counting kernel without a compiler: the functions of ``_native`` in numpy, equal to the last pixel.

A mask is a plane of bits, uint64 ``[lines, words]``: a line is one image column when the input is COCO RLE and
one image row when it is an array (nothing changes under transposition); bit i of word j is pixel ``64 j + i`` of
the line. Only the common bounding box is kept. Every line ends in zero words as wide as the tolerance, so that
shifting the whole plane as one long string of bits never carries a pixel into the next line.
"""

from __future__ import annotations

import math

import numpy as np

from evqa.errors import MaskError
from evqa.masks import MAX_PIXELS, counts_to_runs

# Bounds the tolerance radius, and so what one pair can cost; beyond what image and video formats allow.
MAX_SIDE = 1 << 16

Counts = bytes | str | None  # a COCO counts string; None is an empty mask

_WORD = np.dtype("<u8")
_EMPTY = (0,) * 7


def tolerance_radius(height: int, width: int) -> int:
    """Radius in pixels of the disk within which a boundary pixel counts as matched.

    The smallest integer not below 0.008 of the image diagonal (Perazzi et al., CVPR 2016), found in integers:
    the smallest r with ``(125 r)**2 >= height**2 + width**2``.
    """
    squared = -(-(height * height + width * width) // 15625)
    return math.isqrt(squared - 1) + 1 if squared else 0


def pair_rle(pred_counts: Counts, ref_counts: Counts, height: int, width: int) -> tuple[int, ...]:
    """The seven counts of a pair of masks, in the order of ``kernel.MaskCounts``.

    Raises:
        ValueError: A string is malformed or does not cover height x width pixels.
    """
    _check_size(height, width)
    return _pair_rle(pred_counts, ref_counts, height, width, "predicted mask", "reference mask")


def pair_bytes(pred: np.ndarray, ref: np.ndarray, height: int, width: int) -> tuple[int, ...]:
    """The seven counts of two arrays of one byte a pixel, non-zero is foreground.

    Raises:
        ValueError: An array has another size.
    """
    _check_size(height, width)
    pred, ref = (_pixels(mask, height, width) for mask in (pred, ref))
    if height * width == 0:
        return _EMPTY
    planes = np.zeros((2, height, -(-width // 64) * 8), dtype=np.uint8)
    for plane, mask in zip(planes, (pred, ref), strict=True):
        bits = np.packbits(mask, axis=1, bitorder="little")
        plane[:, : bits.shape[1]] = bits
    planes = planes.view(_WORD)
    either = planes[0] | planes[1]
    lines = np.flatnonzero(either.any(axis=1))
    if lines.size == 0:
        return _EMPTY
    words = np.flatnonzero(either.any(axis=0))
    # A boundary reaches one pixel further towards the start, in both directions.
    first, last = max(int(lines[0]) - 1, 0), int(lines[-1])
    low, high = max(int(words[0]) - 1, 0), int(words[-1])
    radius = tolerance_radius(height, width)
    frame = np.zeros((2, last - first + 1, high - low + 1 + -(-radius // 64)), dtype=_WORD)
    frame[:, :, : high - low + 1] = planes[:, first : last + 1, low : high + 1]
    edge = (width - 1) & 63 if high == planes.shape[2] - 1 else None
    return _count(frame, high - low + 1, radius, edge, last == height - 1)


def clip_rle(preds, refs, height: int, width: int) -> bytes:
    """:func:`pair_rle` of every pair of two sequences, as bytes of native int64 ``[n, 7]``."""
    _check_size(height, width)
    if len(preds) != len(refs):
        raise ValueError(f"a clip needs two masks a frame: {len(preds)} predicted, {len(refs)} reference")
    rows = [
        _pair_rle(pred, ref, height, width, f"predicted mask {i}", f"reference mask {i}")
        for i, (pred, ref) in enumerate(zip(preds, refs, strict=True))
    ]
    return np.asarray(rows, dtype=np.int64).tobytes()


def _pair_rle(
    pred_counts: Counts, ref_counts: Counts, height: int, width: int, pred_name: str, ref_name: str
) -> tuple[int, ...]:
    toggles = [
        _toggles(counts, height * width, name) for counts, name in ((pred_counts, pred_name), (ref_counts, ref_name))
    ]
    filled = [t for t in toggles if t.size]
    if not filled:
        return _EMPTY
    radius = tolerance_radius(height, width)
    first = max(min(int(t[0]) for t in filled) // height - 1, 0)
    last = (max(int(t[-1]) for t in filled) - 1) // height
    words = -(-height // 64)
    stride = words + -(-radius // 64)
    frame = np.zeros((2, last - first + 1, stride), dtype=_WORD)
    inside = np.full(stride, ~np.uint64(0), dtype=_WORD)
    inside[words:] = 0
    if height % 64:
        inside[words - 1] = (1 << height % 64) - 1
    for plane, positions in zip(frame, toggles, strict=True):
        _fill(plane, positions, height, first)
        plane &= inside
    return _count(frame, words, radius, (height - 1) & 63, last == width - 1)


def _toggles(counts: Counts, pixels: int, name: str) -> np.ndarray:
    """Start and end of every foreground run, in ascending order."""
    if counts is None:
        return np.zeros(0, dtype=np.int64)
    try:
        runs = counts_to_runs(counts, pixels)
    except MaskError as error:
        raise MaskError(f"{name}: {error.message}") from None
    ends = np.cumsum(runs)
    foreground = ends[: ends.size // 2 * 2].reshape(-1, 2)
    return foreground[foreground[:, 0] != foreground[:, 1]].ravel()


def _fill(plane: np.ndarray, toggles: np.ndarray, height: int, first: int) -> None:
    """Draw the runs: mark where the mask changes, then let every bit be the parity of the marks up to it.

    Runs that go on over the end of a line also fill the words between the lines; the caller clears those.
    """
    line, start = np.divmod(toggles, height)
    bit = (line - first) * (64 * plane.shape[1]) + start
    flat = plane.reshape(-1)
    word = bit >> 6
    inside = word < flat.size  # a run that ends with the last line needs no second mark
    np.bitwise_xor.at(flat, word[inside], np.uint64(1) << (bit[inside] & 63).astype(np.uint64))
    for step in (1, 2, 4, 8, 16, 32):
        flat ^= flat << np.uint64(step)
    carry = np.bitwise_xor.accumulate(flat >> np.uint64(63))
    flat[1:] ^= ~carry[:-1] + np.uint64(1)  # all ones where the bits so far are odd


def _count(frame: np.ndarray, words: int, radius: int, edge: int | None, at_last_line: bool) -> tuple[int, ...]:
    """Count in two planes ``[2, lines, stride]`` of which ``words`` words a line are the image.

    Args:
        edge: The bit, in word ``words - 1``, of the last pixel of a line, if the planes reach so far.
        at_last_line: Whether the last line of the planes is the image's.
    """
    area = [_popcount(plane) for plane in frame]
    intersection = _popcount(frame[0] & frame[1])
    pred, ref = (_boundary(plane, words, edge, at_last_line) for plane in frame)
    sizes = [_popcount(pred), _popcount(ref)]
    matched = [0, 0]
    if all(sizes):
        matched = [_popcount(pred & _dilate(ref, radius)), _popcount(ref & _dilate(pred, radius))]
    return (*area, intersection, *sizes, *matched)


def _boundary(mask: np.ndarray, words: int, edge: int | None, at_last_line: bool) -> np.ndarray:
    along = mask >> np.uint64(1)
    along[:, : words - 1] |= mask[:, 1:words] << np.uint64(63)
    if edge is not None:
        along[:, words - 1] |= mask[:, words - 1] & np.uint64(1 << edge)
    boundary = mask ^ along
    boundary[:-1] |= mask[:-1] ^ mask[1:]
    boundary[:-1] |= mask[:-1] ^ along[1:]
    if not at_last_line:
        boundary[-1] |= mask[-1]
    return boundary


def _dilate(boundary: np.ndarray, radius: int) -> np.ndarray:
    """The pixels within the disk of a set pixel; the words between the lines hold garbage afterwards.

    The disk is a union of segments along the lines. From the outermost line inwards the segments only grow, and
    so one plane of grown pixels serves all lines.
    """
    out = np.zeros_like(boundary)
    grown, scratch = boundary.copy(), np.empty_like(boundary)
    reach = 0
    for distance in range(radius, -1, -1):
        wanted = math.isqrt(radius * radius - distance * distance)
        while reach < wanted:
            step = min(wanted - reach, 2 * reach + 1, 63)  # a longer step would leave a gap
            _grow(grown, scratch, step)
            reach += step
        if distance == 0:
            out |= grown
        elif distance < len(out):
            out[distance:] |= grown[:-distance]
            out[:-distance] |= grown[distance:]
    return out


def _grow(plane: np.ndarray, scratch: np.ndarray, step: int) -> None:
    """Add to ``plane`` itself, shifted by ``step`` (1 to 63) pixels along the lines both ways."""
    source, target = plane.reshape(-1), scratch.reshape(-1)
    away, back = np.uint64(step), np.uint64(64 - step)
    np.left_shift(source, away, out=target)
    target |= source
    target[1:] |= source[:-1] >> back
    target[:-1] |= source[1:] << back
    source >>= away
    source |= target


def _popcount(words: np.ndarray) -> int:
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return int(np.bitwise_count(words).sum())
    return int.from_bytes(words.tobytes(), "little").bit_count()


def _pixels(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    pixels = np.frombuffer(mask, dtype=np.uint8) if not isinstance(mask, np.ndarray) else mask
    if pixels.dtype.itemsize != 1 or pixels.size != height * width:
        raise ValueError(f"a mask buffer must hold {height * width} pixels of one byte")
    return pixels.view(np.uint8).reshape(height, width)


def _check_size(height: int, width: int) -> None:
    if not (0 <= height <= MAX_SIDE and 0 <= width <= MAX_SIDE) or height * width > MAX_PIXELS:
        raise ValueError(f"impossible mask size {height} x {width}")
