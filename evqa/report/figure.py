"""One entry as a figure for a paper: a strip of frames with both masks for each run, and the time line below.

Drawn by matplotlib: text and outlines stay vectors in the PDF, and the same entry gives the same bytes.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evqa import masks as rle_masks
from evqa.errors import DataError, EvqaError, MissingDependencyError
from evqa.scoring.answers import LETTERS, match_candidate
from evqa.scoring.entries import score_entry
from evqa.scoring.inputs import iter_references, prediction_of
from evqa.scoring.protocols import STRICT
from evqa.types import FrameMask, Prediction

__all__ = ["FORMATS", "write_figure"]

FORMATS = ("pdf", "png")
_TRUTH = "#1d4ed8"
_RUNS = ("#b23a0a", "#0b625b", "#a21caf", "#3f660c", "#7f5107", "#5b5f6b")  # as on the page
_WIDTH = 7.0  # inches: the text width of a two-column paper
_LINE = 0.17  # inches a line of text
_LANE = 0.16  # inches a lane of the time line
_MOST_PIXELS = 480  # on the longer side of a frame: a strip shows no more
_FALLBACK_FPS = 6.0
_STYLE = {"font.family": "DejaVu Sans", "font.size": 8, "pdf.fonttype": 42, "hatch.linewidth": 0.5}


def write_figure(
    runs: Mapping[str, Mapping[str, Prediction]],
    row: Mapping[str, Any],
    path: str | os.PathLike,
    *,
    frames: int = 5,
    formats: Sequence[str] = FORMATS,
    dpi: int = 200,
) -> list[Path]:
    """Write the figure of an entry.

    Args:
        runs: Name of a system -> its predictions by entry; one strip each.
        row: The entry, a row of the benchmark.
        path: Where to; each format's suffix is added, or takes the place of ``.pdf`` or ``.png``.
        frames: How many frames the strip has.
        formats: Of :data:`FORMATS`.
        dpi: Dots per inch of the PNG.

    Returns:
        The files written.

    Raises:
        DataError: No run, fewer than one frame, or a format that is not known.
        MissingDependencyError: matplotlib is not installed.
    """
    if not runs:
        raise DataError("there is no run to draw", entry=row["entry_id"])
    if frames < 1:
        raise DataError(f"a strip has at least one frame, not {frames}", entry=row["entry_id"])
    if unknown := set(formats) - set(FORMATS):
        raise DataError(f"unknown format {sorted(unknown)[0]!r}; known: {', '.join(FORMATS)}", entry=row["entry_id"])
    try:
        import matplotlib
    except ImportError:
        raise MissingDependencyError('figures need matplotlib: pip install "evqa[report]"') from None
    said = {
        name: prediction_of(predictions, row["entry_id"])
        or Prediction.failure(row["entry_id"], "missing", "no prediction")
        for name, predictions in runs.items()
    }
    out = []
    with matplotlib.rc_context(_STYLE):
        figure = _draw(row, said, frames)
        for suffix in formats:
            target = Path(path)
            target = target.with_name(f"{target.name.removesuffix('.pdf').removesuffix('.png')}.{suffix}")
            target.parent.mkdir(parents=True, exist_ok=True)
            # No date and no version in the file: the same entry gives the same bytes.
            metadata = {"CreationDate": None, "Producer": None} if suffix == "pdf" else {"Software": None}
            figure.savefig(target, dpi=dpi, metadata=metadata)
            out.append(target)
    return out


def _draw(row: Mapping[str, Any], said: Mapping[str, Prediction], count: int) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = _frames(row, list(said.values()), count)
    height, width = shown[0][2].shape[:2]
    lines = _words(row, said)
    strip = (_WIDTH - 0.7) / len(shown) * height / width
    top = 0.08 + _LINE * len(lines)
    lanes = _LANE * (1 + len(said)) + 0.34
    total = top + len(said) * (strip + 0.12) + 0.1 + lanes
    figure = Figure(figsize=(_WIDTH, total))
    FigureCanvasAgg(figure)
    for number, (text, colour, weight) in enumerate(lines):
        y = 1 - (0.05 + _LINE * number) / total
        figure.text(0.09, y, text, color=colour, weight=weight, va="top", parse_math=False)
    y = total - top
    for run, (name, prediction) in enumerate(said.items()):
        y -= strip + 0.12
        colour = _RUNS[run % len(_RUNS)]
        figure.text(0.045, (y + strip / 2) / total, _short(name, 18), color=colour, rotation=90, ha="center",
                    va="center", parse_math=False)  # fmt: skip
        for place, (frame, time, pixels) in enumerate(shown):
            left = (0.63 + place * (_WIDTH - 0.7) / len(shown)) / _WIDTH
            axes = figure.add_axes((left, y / total, 0.97 * (_WIDTH - 0.7) / len(shown) / _WIDTH, strip / total))
            _frame(axes, pixels, _mask(row.get("masks"), frame), _mask(prediction.masks, frame), colour)
            if run == 0:
                axes.set_title(f"{time:.1f} s", fontsize=6.5, pad=1.5, color="#444")
    axes = figure.add_axes((0.63 / _WIDTH, 0.26 / total, (_WIDTH - 0.76) / _WIDTH, (lanes - 0.34) / total))
    _timeline(axes, row, said, [time for _, time, _ in shown])
    return figure


# ------------------------------------------------------------------------------------------- frames
def _fps(row: Mapping[str, Any]) -> float:
    return row.get("fps") or _FALLBACK_FPS


def _frames(row: Mapping[str, Any], said: Sequence[Prediction], count: int) -> list[tuple[int, float, np.ndarray]]:
    """Frames spread evenly over those that the reference marks: frame, second, and uint8 ``[height, width, 3]``."""
    marked = sorted({mask["frame"] for mask in row.get("masks") or [] if mask["frame"] >= 0})
    if not marked:
        spans = row.get("segments") or [[0.0, _duration(row, said)]]
        times = np.concatenate([np.arange(start, end, 1 / _fps(row)) for start, end in spans])
        marked = sorted({int(time * _fps(row) + 1e-6) for time in times}) or [0]
    chosen = [marked[i] for i in np.unique(np.linspace(0, len(marked) - 1, count).round().astype(int))]
    times = [frame / _fps(row) for frame in chosen]
    pixels = _pixels(row, times)
    if pixels is None:
        height, width = _size(row)
        pixels = np.full((len(chosen), height, width, 3), 24, np.uint8)
    return list(zip(chosen, times, map(_smaller, pixels), strict=True))


def _pixels(row: Mapping[str, Any], times: Sequence[float]) -> np.ndarray | None:
    """The clip's frames; ``None`` where there is no clip or nothing that decodes it: masks are then drawn on black."""
    video = row.get("video")
    if not video or not (video.get("bytes") or video.get("path")):
        return None
    from evqa.video import Clip

    try:
        clip = Clip(video)
        last = clip.info.duration - 1e-3
        return clip.frames([min(time + 0.25 / _fps(row), last) for time in times])
    except EvqaError:
        return None


def _size(row: Mapping[str, Any]) -> tuple[int, int]:
    for mask in row.get("masks") or []:
        if mask["rle"] is not None:
            return tuple(mask["rle"]["size"])
    return (row.get("height") or 360, row.get("width") or 640)


def _smaller(pixels: np.ndarray) -> np.ndarray:
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
    return np.asarray(image)


def _mask(masks: Sequence[FrameMask] | None, frame: int) -> np.ndarray | None:
    """bool ``[height, width]`` of one frame; ``None`` where there is no mask, or one that cannot be read."""
    for mask in masks or []:
        if mask["frame"] == frame and mask["rle"] is not None:
            try:
                return rle_masks.decode(mask["rle"]).astype(bool)
            except EvqaError:
                return None
    return None


def _frame(axes: Any, pixels: np.ndarray, truth: np.ndarray | None, said: np.ndarray | None, colour: str) -> None:
    from PIL import Image

    axes.imshow(pixels, interpolation="lanczos", aspect="auto")
    axes.set_axis_off()
    height, width = pixels.shape[:2]
    for mask, tone, hatch in ((truth, _TRUTH, None), (said, colour, "//////")):
        if mask is None or not mask.any():
            continue
        small = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height))) / 255.0
        small = np.pad(small, 1)  # so that an outline closes at the frame's edge
        x, y = np.arange(-1, width + 1), np.arange(-1, height + 1)
        axes.contourf(x, y, small, [0.5, 1.5], colors=[tone], alpha=0.4 if hatch is None else 0.15)
        if hatch is not None:
            stripes = axes.contourf(x, y, small, [0.5, 1.5], colors="none", hatches=[hatch])
            stripes.set_edgecolor(tone)
            stripes.set_linewidth(0.0)
        axes.contour(x, y, small, [0.5], colors=[tone], linewidths=0.9)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


# ------------------------------------------------------------------------------------ text and time
def _words(row: Mapping[str, Any], said: Mapping[str, Prediction]) -> list[tuple[str, str, str]]:
    """Lines above the strips: text, colour, weight."""
    lines = [(line, "black", "bold") for line in textwrap.wrap(row["question"], 92)[:3]]
    right = row.get("answer_index")
    if row.get("answer") is not None:
        letter = "" if right is None else f"({LETTERS[right]}) "
        lines.append((_short(f"reference: {letter}{row['answer']}", 110), _TRUTH, "normal"))
    reference = next(iter_references([{k: v for k, v in row.items() if k != "video"}]))
    for run, (name, prediction) in enumerate(said.items()):
        scores = score_entry(reference, prediction, STRICT, "gen").values
        parts = [_answer(prediction, row["candidates"])]
        for key, word in (("mIoU", "tIoU"), ("J&F", "J&F")):
            if key in scores:
                parts.append(f"{word} {100 * scores[key]:.1f}")
        verdict = {1.0: ", right", 0.0: ", wrong"}.get(scores.get("accuracy", -1.0), "")
        parts[0] += verdict
        lines.append((_short(f"{name}: {'; '.join(parts)}", 120), _RUNS[run % len(_RUNS)], "normal"))
    return lines


def _answer(prediction: Prediction, candidates: Sequence[str]) -> str:
    if prediction.failed:
        return f"failed ({prediction.status})"
    if prediction.answer is None:
        return "no answer"
    index = match_candidate(prediction.answer, candidates)
    return prediction.answer if index is None else f"({LETTERS[index]}) {candidates[index]}"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _duration(row: Mapping[str, Any], said: Sequence[Prediction]) -> float:
    ends = [end for side in (row.get("segments") or [], *(one.segments for one in said)) for _, end in side]
    ends += [(mask["frame"] + 1) / _fps(row) for mask in row.get("masks") or []]
    return row.get("duration") or max([1.0, *(end for end in ends if np.isfinite(end))])


def _timeline(axes: Any, row: Mapping[str, Any], said: Mapping[str, Prediction], times: Sequence[float]) -> None:
    duration = _duration(row, list(said.values()))
    lanes = [("reference", _TRUTH, None, row.get("segments") or [])]
    lanes += [(n, _RUNS[i % len(_RUNS)], "//////", p.segments) for i, (n, p) in enumerate(said.items())]
    for place, (_, colour, hatch, segments) in enumerate(lanes):
        axes.axhspan(place - 0.38, place + 0.38, color="#eef1f5", linewidth=0)
        spans = [(start, min(end, duration) - start) for start, end in segments if np.isfinite(start + end)]
        face = colour if hatch is None else "none"
        axes.broken_barh(spans, (place - 0.38, 0.76), facecolor=face, edgecolor=colour, hatch=hatch, linewidth=0.7)
    for time in times:
        axes.axvline(time, color="#222", linewidth=0.6, linestyle=(0, (2, 2)))
    axes.set_xlim(0, duration)
    axes.set_ylim(len(lanes) - 0.5, -0.5)
    axes.set_yticks(range(len(lanes)))
    axes.set_yticklabels([_short(name, 10) for name, *_ in lanes], fontsize=6)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.tick_params(length=0, pad=2, labelsize=6)
    axes.tick_params(axis="x", length=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} s")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_linewidth(0.5)
