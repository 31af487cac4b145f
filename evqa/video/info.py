"""What is known about a clip without its pixels, and which frame is on screen at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from evqa.errors import VideoError

__all__ = ["VideoInfo"]

#: How long a frame is taken to last when nothing says so: a lone frame of unknown duration.
NOMINAL_FRAME = 1 / 25

# A time may miss the start of "its" frame by rounding: containers store milliseconds (Matroska), decoders
# float32, annotations a few decimals. So a frame counts as begun this many seconds early.
_SLACK = 1e-3
_NOISE = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class VideoInfo:
    """A clip's size and its frames' times.

    Attributes:
        path: The file, or the name of a clip that was given as bytes.
        num_frames: Frames that are presented; hidden frames and those cut off by an edit list do not count.
        duration: Second at which the last frame ends.
        fps: Average frame rate: ``num_frames`` over the time that they cover.
        height, width: Pixels of a frame as shown, that is after rotation.
        timestamps: float64 ``[num_frames]``, seconds at which each frame appears: strictly increasing,
            read-only. The first is 0.0, except for a folder of frames, whose own times are kept.
        constant_rate: Whether all frames last equally long, but for the rounding of the container's clock.
        rotation: Degrees counter-clockwise by which stored frames are turned to be shown: 0, 90, 180 or 270.
            Frames are always returned turned.
    """

    path: str
    num_frames: int
    duration: float
    fps: float
    height: int
    width: int
    timestamps: np.ndarray = dataclasses.field(repr=False)
    constant_rate: bool
    rotation: int = 0

    @classmethod
    def from_times(
        cls,
        path: str,
        timestamps: np.ndarray,
        last: float | None,
        *,
        height: int,
        width: int,
        tick: float = 0.0,
        rotation: int = 0,
    ) -> VideoInfo:
        """Fill in what follows from the times.

        Args:
            path: See the class.
            timestamps: Seconds ``[num_frames]``, strictly increasing, at least one.
            last: Seconds that the last frame stays; ``None`` or 0: as long as the median frame.
            height: Pixels, as shown.
            width: Pixels, as shown.
            tick: Seconds to which the timestamps were rounded.
            rotation: See the class.
        """
        times = np.asarray(timestamps, np.float64)
        gaps = np.diff(times)
        if not last or last <= 0:
            last = float(np.median(gaps)) if len(gaps) else NOMINAL_FRAME
        times.setflags(write=False)
        duration = float(times[-1] + last)
        return cls(
            path=path,
            num_frames=len(times),
            duration=duration,
            fps=len(times) / (duration - float(times[0])),
            height=int(height),
            width=int(width),
            timestamps=times,
            constant_rate=_constant(times, tick),
            rotation=rotation,
        )

    def positions(self, times: Iterable[float] | float, *, tolerance: float | None = None) -> np.ndarray:
        """The number of the frame on screen at each time: int64 ``[n]``, counted from 0.

        For masks, which are numbered by frame; pixels are asked for by time (:func:`evqa.video.read_frames`).

        Args:
            times: Seconds.
            tolerance: Seconds after the clip's end that still mean the last frame; by default one average
                frame.

        Raises:
            VideoError: A time is not finite, before the first frame, or after the end by more than
                ``tolerance``.
        """
        if tolerance is None:
            tolerance = 1 / self.fps
        wanted = as_times(times)
        start = float(self.timestamps[0])
        outside = (wanted < start - _NOISE) | (wanted > self.duration + tolerance + _NOISE)
        if outside.any():
            raise VideoError(
                f"no frame at {_listing(wanted[outside])}: the clip shows frames from {start:g} s "
                f"to {self.duration:g} s",
                file=self.path,
            )
        found = np.searchsorted(self.starts(), wanted + _NOISE, side="right") - 1
        return np.clip(found, 0, None)

    def starts(self) -> np.ndarray:
        """Seconds from which a frame counts as on screen: its timestamp, less a slack for rounding.

        Float64 ``[num_frames]``, strictly increasing. The slack is 1 ms, or a quarter of the time since the
        frame before if that is less; the first frame has none.
        """
        gaps = np.diff(self.timestamps, prepend=self.timestamps[:1])
        return self.timestamps - np.minimum(_SLACK, gaps / 4)

    def to_json(self) -> dict[str, Any]:
        """Everything but the timestamps, JSON-ready."""
        return {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "timestamps"
        }


def as_times(times: Iterable[float] | float) -> np.ndarray:
    """Float64 ``[n]``; raises :class:`VideoError` for anything that is not a list of finite numbers."""
    try:
        values = np.atleast_1d(np.asarray(times if np.ndim(times) or np.isscalar(times) else list(times), float))
    except (TypeError, ValueError):
        raise VideoError(f"times are numbers of seconds, got {times!r}") from None
    if values.ndim != 1:
        raise VideoError(f"times are one list of seconds, got an array of shape {values.shape}")
    if not np.isfinite(values).all():
        raise VideoError(f"times are finite, got {_listing(values[~np.isfinite(values)])}")
    return values


def _constant(times: np.ndarray, tick: float) -> bool:
    if len(times) < 3:
        return True
    step = (times[-1] - times[0]) / (len(times) - 1)
    ideal = times[0] + step * np.arange(len(times))
    # A clock as coarse as the frames would hide a dropped frame: hence never more than a quarter of one.
    return bool(np.abs(times - ideal).max() <= min(tick, step / 4) + _NOISE)


def _listing(values: np.ndarray, most: int = 8) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:most])
    return f"{shown} s" if len(values) <= most else f"{shown}, … s ({len(values)} times)"
