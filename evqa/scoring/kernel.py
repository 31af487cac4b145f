"""Pixel counts behind region similarity J and boundary accuracy F: integers only.

Definition: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation",
CVPR 2016, with the boundary and the tolerance of the DAVIS 2017 evaluation code:

- the boundary of a mask is the set of pixels that differ from their right, lower or lower right neighbour (at
  the last row and column the neighbour is the pixel's own value: a mask that fills the frame has no boundary);
- a boundary pixel is matched if a boundary pixel of the other mask lies within the tolerance, a disk of radius
  :func:`tolerance_radius`. Several pixels may match the same one, as in the original, which dilates.

Two implementations give the same integers: ``native`` (C, used when it is built) and ``portable`` (numpy).
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evqa import masks
from evqa.errors import MaskError, MissingDependencyError
from evqa.scoring import _portable
from evqa.scoring._portable import MAX_SIDE, tolerance_radius

try:
    from evqa.scoring import _native
except ImportError:  # no compiler where evqa was installed
    _native = None

__all__ = ["MaskCounts", "backend", "count_clip", "count_pair", "tolerance_radius", "use_backend"]

_chosen: contextvars.ContextVar[str | None] = contextvars.ContextVar("evqa_mask_kernel", default=None)


class MaskCounts(NamedTuple):
    """Pixel counts of a predicted and a reference mask, from which J and F follow.

    J = intersection / (pred_area + ref_area - intersection). Boundary precision = pred_matched / pred_boundary
    and boundary recall = ref_matched / ref_boundary; F is their harmonic mean.
    """

    pred_area: int
    ref_area: int
    intersection: int
    pred_boundary: int
    ref_boundary: int
    pred_matched: int  # predicted boundary pixels within the tolerance of a reference boundary pixel
    ref_matched: int  # reference boundary pixels within the tolerance of a predicted boundary pixel


def count_pair(predicted: Mapping[str, Any] | Any, reference: Mapping[str, Any] | Any) -> MaskCounts:
    """Counts of one pair of masks.

    Args:
        predicted, reference: A COCO RLE (``size``, and ``counts`` as bytes, text or a list of run lengths), or an
            array of shape ``[h, w]``, bool or any real number, where non-zero is foreground. One may be an RLE
            and the other an array. Masks without pixels (``h * w == 0``) are allowed: all counts are 0.

    Raises:
        MaskError: Not a mask, a malformed RLE, or two masks of different sizes.
    """
    pred, pred_size = _read_mask(predicted, "predicted mask")
    ref, ref_size = _read_mask(reference, "reference mask")
    if pred_size != ref_size:
        raise MaskError(f"the predicted mask is {_by(pred_size)}, the reference mask {_by(ref_size)}")
    height, width = ref_size
    module = _module()
    try:
        if isinstance(pred, np.ndarray) and isinstance(ref, np.ndarray):
            if pred.flags.fnc and ref.flags.fnc:
                # Nothing changes under transposition, and so column-major arrays need no copy.
                pred, ref, height, width = pred.T, ref.T, width, height
            pred, ref = np.ascontiguousarray(pred), np.ascontiguousarray(ref)
            return MaskCounts._make(module.pair_bytes(pred, ref, height, width))
        pred, ref = (masks.encode(mask)["counts"] if isinstance(mask, np.ndarray) else mask for mask in (pred, ref))
        return MaskCounts._make(module.pair_rle(pred, ref, height, width))
    except ValueError as error:
        raise _mask_error(error) from None


def count_clip(
    predicted: Sequence[Mapping[str, Any] | None],
    reference: Sequence[Mapping[str, Any] | None],
    height: int,
    width: int,
) -> np.ndarray:
    """Counts of all frames of a clip, frame by frame.

    Args:
        predicted, reference: One COCO RLE a frame as :func:`count_pair` takes it; ``None`` is an empty mask.
        height, width: Size of the clip in pixels.

    Returns:
        int64 array of shape ``[n, 7]``; the columns are the fields of :class:`MaskCounts`.

    Raises:
        MaskError: Sequences of different lengths; a mask that is malformed or not of the clip's size. The
            message names its index.
    """
    if len(predicted) != len(reference):
        raise MaskError(f"a clip needs two masks a frame, got {len(predicted)} predicted, {len(reference)} reference")
    height, width = _check_size((height, width), "clip")
    pred = [_read_counts(rle, height, width, "predicted", i) for i, rle in enumerate(predicted)]
    ref = [_read_counts(rle, height, width, "reference", i) for i, rle in enumerate(reference)]
    try:
        counts = _module().clip_rle(pred, ref, height, width)
    except ValueError as error:
        raise _mask_error(error) from None
    return np.frombuffer(counts, dtype=np.int64).reshape(-1, len(MaskCounts._fields)).copy()


def backend() -> str:
    """The implementation in use here: ``"native"`` or ``"portable"``."""
    return _chosen.get() or ("portable" if _native is None else "native")


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Use one implementation within a ``with`` block, for tests and benchmarks; other threads keep theirs.

    Raises:
        ValueError: Unknown name.
        MissingDependencyError: The native implementation is not built.
    """
    if name not in ("native", "portable"):
        raise ValueError(f"unknown backend {name!r}; known: native, portable")
    if name == "native" and _native is None:
        raise MissingDependencyError("the native mask kernel is not built: it needs a C compiler at install time")
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def _module():
    return _native if backend() == "native" else _portable


def _read_mask(mask: Any, name: str) -> tuple[Any, tuple[int, int]]:
    """``(counts, size)`` of an RLE, or ``(array of one byte a pixel, size)``."""
    if isinstance(mask, Mapping):
        try:
            size, counts = mask["size"], mask["counts"]
        except KeyError as error:
            raise MaskError(f"{name}: not a COCO RLE, it has no {error}") from None
        size = _check_size(size, name)
        return _packed(counts, size, name), size
    try:
        array = np.asarray(mask)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MaskError(f"{name}: not an array ({error})") from None
    if array.ndim != 2 or array.dtype.kind not in "buif":
        what = f"{array.dtype} of shape {array.shape}" if array.shape else type(mask).__name__
        raise MaskError(f"{name}: must be a COCO RLE or a numeric array of shape [h, w], this is {what}")
    if array.dtype.itemsize != 1:
        array = array != 0
    return array, _check_size(array.shape, name)


def _read_counts(rle: Any, height: int, width: int, side: str, index: int) -> bytes | str | None:
    if rle is None:
        return None
    try:
        size, counts = rle["size"], rle["counts"]
        same = len(size) == 2 and size[0] == height and size[1] == width
    except (KeyError, TypeError, IndexError):
        raise MaskError(f"{side} mask {index}: not a COCO RLE") from None
    if not same:
        raise MaskError(f"{side} mask {index}: is {_by(size)}, the clip is {height} x {width}")
    return _packed(counts, (height, width), f"{side} mask {index}")


def _packed(counts: Any, size: tuple[int, int], name: str) -> bytes | str:
    """Counts as the backends take them; they check packed strings themselves."""
    if isinstance(counts, (bytes, str)):
        return counts
    if isinstance(counts, (bytearray, memoryview)):
        return bytes(counts)
    try:
        return masks.normalize({"size": size, "counts": counts})["counts"]
    except MaskError as error:
        raise MaskError(f"{name}: {error.message}") from None


def _check_size(size: Any, name: str) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in size)
    except (TypeError, ValueError, OverflowError):
        raise MaskError(f"{name}: the size must be [height, width], not {size!r}") from None
    if not (0 <= height <= MAX_SIDE and 0 <= width <= MAX_SIDE) or height * width > masks.MAX_PIXELS:
        raise MaskError(f"{name}: impossible size {height} x {width}")
    return height, width


def _by(size: Sequence[Any]) -> str:
    return " x ".join(str(side) for side in size)


def _mask_error(error: ValueError) -> MaskError:
    return error if isinstance(error, MaskError) else MaskError(str(error))
