"""Spatial grounding: region similarity J and boundary F of masks, per frame and per clip.

Definitions: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation",
CVPR 2016; the boundary tolerance is 0.008 of the image diagonal, as in the DAVIS 2017 evaluation code.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from evqa import masks as rle_masks
from evqa.errors import MaskError
from evqa.scoring.kernel import count_clip, count_pair
from evqa.scoring.protocols import EVQA_V1, STRICT
from evqa.types import FrameMask, Rle

__all__ = ["ClipScore", "FrameProtocol", "clip_jf", "jf"]

FrameProtocol = Literal["strict", "evqa-v1", "davis"]


def jf(predicted: Any, reference: Any, protocol: FrameProtocol = STRICT, *, void: Any = None) -> tuple[float, float]:
    """Region similarity J and boundary measure F of one frame.

    J is the intersection over union of the regions. F is the harmonic mean of boundary precision and recall, where
    a boundary pixel counts as found if one of the other boundary lies within the tolerance.

    Args:
        predicted, reference: A COCO RLE dictionary or an array of shape ``[h, w]`` (non-zero is foreground).
        protocol: The protocols differ only where a mask is empty or a size is wrong.
            ``strict`` and ``evqa-v1``: two empty masks score (1, 1), one empty mask (0, 0).
            ``davis`` (the DAVIS 2017, UniPixel and TrackEval code): as above, but a mask that fills the frame has no
            boundary either, so against an empty one F is 1. Sizes that differ are an error, except in ``evqa-v1``,
            which does not look at the size when a mask is empty and broadcasts one-row and one-column masks.
        void: Pixels that nobody labelled, in either form; they are taken out of both masks.

    Returns:
        ``(J, F)``, float64, bit-identical to the public implementations.

    Raises:
        MaskError: Malformed masks, or sizes that differ.
    """
    if protocol not in (STRICT, EVQA_V1, "davis"):
        raise ValueError(f"unknown protocol {protocol!r}; known: strict, evqa-v1, davis")
    if void is not None:
        keep = ~_array(void)
        predicted, reference = _array(predicted), _array(reference)
        if not predicted.shape == reference.shape == keep.shape:
            raise MaskError(f"masks and void have different sizes {predicted.shape}, {reference.shape}, {keep.shape}")
        predicted, reference = predicted & keep, reference & keep
    if protocol == EVQA_V1 and _size(predicted) != _size(reference):
        return _v1_mismatch(_array(predicted), _array(reference))
    j, f = _from_counts(np.asarray([count_pair(predicted, reference)], dtype=np.int64), protocol)
    return float(j[0]), float(f[0])


def _from_counts(counts: np.ndarray, protocol: FrameProtocol) -> tuple[np.ndarray, np.ndarray]:
    """J and F of ``[n, 7]`` counts; every operation in float64 and in the order of the public code."""
    pred, ref, common, pred_edge, ref_edge, pred_hit, ref_hit = counts.astype(np.float64).T
    union = pred + ref - common
    with np.errstate(divide="ignore", invalid="ignore"):
        j = np.where(union > 0, common / union, 1.0)
        # Where one boundary is empty, no pixel of the other can be near it: the other side scores 0.
        precision = np.where(pred_edge > 0, pred_hit / pred_edge, 1.0)
        recall = np.where(ref_edge > 0, ref_hit / ref_edge, 1.0)
        total = precision + recall
        f = np.where(total > 0, 2 * precision * recall / total, 0.0)
    if protocol != "davis":
        one_empty = (pred == 0) != (ref == 0)
        j = np.where(one_empty, 0.0, j)
        f = np.where(one_empty, 0.0, f)
    return j, f


# ------------------------------------------------------------------------------------------ clips
@dataclasses.dataclass(frozen=True)
class ClipScore:
    """Scores of one clip.

    Attributes:
        j, f: Means over the scored frames; NaN when no frame was scored.
        frames: How many frames were scored.
        v_iou: ``1 / |S_u| * sum of IoU over S_i``: S_u are the frames where the reference or the prediction has a
            mask with foreground, S_i those where both have (VidSTG, Zhang et al., CVPR 2020, arXiv 2001.06891,
            with masks for boxes). It punishes masks outside the reference's frames. NaN when S_u is empty.
        spurious_frames: Frames with predicted foreground that the reference does not list; not scored in J and F.
        problems: What was wrong with the predicted masks.
    """

    j: float
    f: float
    frames: int
    v_iou: float
    spurious_frames: int
    problems: tuple[str, ...] = ()

    @property
    def jf(self) -> float:
        """J&F, the mean of J and F."""
        return (self.j + self.f) / 2


def clip_jf(
    predicted: Sequence[FrameMask], reference: Sequence[FrameMask], protocol: Literal["strict", "evqa-v1"] = STRICT
) -> ClipScore:
    """Mean J and F of one clip.

    Several masks of one frame are united.

    Args:
        predicted: The system's masks. ``rle`` may be ``None`` for a file that could not be read.
        reference: The annotated masks.
        protocol: ``strict`` scores exactly the frames that the reference lists: a missing, unreadable, malformed or
            wrongly sized prediction is an empty mask (and a problem). ``evqa-v1`` scores exactly the frames that the
            *prediction* lists, against black where the reference has none, and leaves out unreadable files.

    Raises:
        MaskError: The reference is malformed; or, in ``evqa-v1``, sizes differ, where the original evaluator drops
            all mask scores of all entries.
    """
    if protocol == EVQA_V1:
        return _clip_v1(predicted, reference)
    truth = _by_frame(reference)
    sizes = {tuple(rle["size"]) for rle in truth.values()}
    if len(sizes) > 1:
        raise MaskError(f"reference masks have different sizes {sorted(sizes)}")
    if not truth:
        return ClipScore(math.nan, math.nan, 0, math.nan, 0)
    height, width = sizes.pop()
    frames = sorted(truth)
    wanted = [truth[t] for t in frames]

    def count(check: bool) -> tuple[np.ndarray, int, list[str]]:
        guess, problems = _usable(predicted, height, width, check=check)
        counts = count_clip([guess.get(t) for t in frames], wanted, height, width)
        spurious = sum(1 for t, rle in guess.items() if t not in truth and not rle_masks.is_empty(rle))
        return counts, spurious, problems

    try:
        counts, spurious, problems = count(check=False)
    except MaskError:  # checking each mask costs as much as counting: only where one is malformed
        counts, spurious, problems = count(check=True)
    j, f = _from_counts(counts, STRICT)
    both = (counts[:, 0] > 0) & (counts[:, 1] > 0)
    either = int(((counts[:, 0] > 0) | (counts[:, 1] > 0)).sum()) + spurious
    return ClipScore(
        j=float(np.mean(j)),
        f=float(np.mean(f)),
        frames=len(frames),
        v_iou=float(j[both].sum() / either) if either else math.nan,
        spurious_frames=spurious,
        problems=tuple(problems),
    )


def _by_frame(masks: Sequence[FrameMask]) -> dict[int, Rle]:
    found: dict[int, Rle] = {}
    for mask in masks:
        if mask["rle"] is None:
            raise MaskError(f"the reference mask of frame {mask['frame']} is missing")
        t = mask["frame"]
        found[t] = mask["rle"] if t not in found else rle_masks.union([found[t], mask["rle"]])
    return found


def _usable(
    predicted: Sequence[FrameMask], height: int, width: int, *, check: bool
) -> tuple[dict[int, Rle], list[str]]:
    """The masks that can be scored, by frame, and one sentence per kind of thing that cannot."""
    found: dict[int, Rle] = {}
    unreadable: list[str] = []
    wrong_size: dict[tuple[int, int], list[str]] = {}
    for mask in predicted:
        t, rle = mask["frame"], mask["rle"]
        try:
            if rle is None:
                raise MaskError("unreadable")
            if tuple(rle["size"]) != (height, width):
                wrong_size.setdefault(tuple(rle["size"]), []).append(str(t))
                continue
            if check or t in found:
                rle = rle_masks.normalize(rle)
        except MaskError:
            unreadable.append(str(t))
            continue
        found[t] = rle if t not in found else rle_masks.union([found[t], rle])
    problems = []
    if unreadable:
        problems.append(f"unreadable masks, scored as empty: frames {_some(unreadable)}")
    for size, frames in wrong_size.items():
        problems.append(
            f"masks of {size[0]}x{size[1]} where the reference has {height}x{width}, scored as empty: "
            f"frames {_some(frames)}"
        )
    return found, problems


def _some(items: Sequence[str], most: int = 8) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


# ----------------------------------------------------------------------------------------- evqa-v1
def _clip_v1(predicted: Sequence[FrameMask], reference: Sequence[FrameMask]) -> ClipScore:
    truth = _by_frame(reference)
    js, fs = [], []
    for mask in predicted:
        if mask["rle"] is None:
            continue
        guess = rle_masks.normalize(mask["rle"])
        # A frame without a reference file is black in the size of the prediction.
        j, f = jf(guess, truth.get(mask["frame"]) or rle_masks.empty(*guess["size"]), EVQA_V1)
        js.append(j)
        fs.append(f)
    if not js:
        nothing = math.nan if predicted else 0.0  # only unreadable files: left out; no files at all: zero
        return ClipScore(nothing, nothing, 0, math.nan, 0)
    return ClipScore(float(np.mean(js)), float(np.mean(fs)), len(js), math.nan, 0)


def _v1_mismatch(predicted: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Two masks of different sizes, as numpy arithmetic in the original evaluator treats them."""
    if not predicted.any() and not reference.any():
        return 1.0, 1.0
    if not predicted.any() or not reference.any():
        return 0.0, 0.0
    try:
        common = np.logical_and(predicted, reference).sum()
        union = np.logical_or(predicted, reference).sum()
    except ValueError:
        raise MaskError(f"masks have different sizes {predicted.shape} and {reference.shape}") from None
    p_edge, r_edge = _boundary(predicted), _boundary(reference)
    n_p, n_r = int(p_edge.sum()), int(r_edge.sum())
    j = float(common / union)
    if n_p == 0 or n_r == 0:
        return j, float(n_p == n_r)
    radius = math.ceil(0.008 * np.linalg.norm(predicted.shape))
    precision = (p_edge * _dilate(r_edge, radius)).sum() / n_p
    recall = (r_edge * _dilate(p_edge, radius)).sum() / n_r
    return j, float(2 * precision * recall / (precision + recall)) if precision + recall > 0 else 0.0


def _boundary(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])


def _dilate(edge: np.ndarray, radius: int) -> np.ndarray:
    out = np.zeros_like(edge)
    height, width = edge.shape
    for y, x in np.argwhere(edge):
        for dy in range(-min(radius, y), min(radius, height - 1 - y) + 1):
            reach = math.isqrt(radius * radius - dy * dy)
            out[y + dy, max(0, x - reach) : x + reach + 1] = True
    return out[:height, :width]


def _size(mask: Any) -> tuple[int, ...]:
    return tuple(mask["size"]) if isinstance(mask, Mapping) else np.asarray(mask).shape


def _array(mask: Any) -> np.ndarray:
    return rle_masks.decode(mask) if isinstance(mask, Mapping) else np.asarray(mask) != 0
