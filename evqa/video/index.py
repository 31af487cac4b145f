"""The one index that all decoders share: when each frame appears, and where decoding may start.

It is read by PyAV from the packets' headers, without decoding more than the first frame, and holds what the
container says after edit lists: frames cut off by one do not count, nor do hidden frames, nor frames before
the first one that can be decoded. A decoder only turns a place in this index into pixels, and must prove that
it counts as the index does.
"""

from __future__ import annotations

import dataclasses
import errno
from fractions import Fraction
from typing import Any

import numpy as np

from evqa.errors import MissingDependencyError, VideoError
from evqa.video.bitstream import clean_entry, is_hidden, length_prefix, missing_bytes
from evqa.video.info import VideoInfo

__all__ = ["Index", "build", "open_container"]

# Demuxers for files that hold one clip. Left out on purpose: playlists (hls, dash, concat), image patterns
# and the text formats, which open other files or addresses, or make a "clip" of anything.
_FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,gif,apng,mxf,rm,wtv,nut,ivf,swf,dv,webp_pipe"

# Decoders are accurate at entry points only where the container lists them.
_SEEKABLE = {"mov", "matroska"}


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """Where a clip's frames are. All arrays are in the order of presentation.

    Attributes:
        info: The clip's size and times.
        stamps: int64 ``[num_frames]``: presentation stamps in units of ``time_base``.
        time_base: Seconds per unit.
        group: int64 ``[num_frames]``: for each frame the last entry point that it can be decoded from.
        entries: int64 ``[entries, 2]``: presentation and decoding stamps of the entry points. Entry 0 stands
            for the start of the file and its stamps are not used.
        stream: Number of the video stream in the file.
        counted: The packets' stamps do not tell the order of presentation (AVI): frames are told apart by
            counting them from the start.
        closed: No frame shown before an entry point comes after it in the file.
        trouble: Why frame numbers of other decoders cannot be trusted, or ``None``.
    """

    info: VideoInfo
    stamps: np.ndarray
    time_base: Fraction
    group: np.ndarray
    entries: np.ndarray
    stream: int
    counted: bool
    closed: bool
    trouble: str | None

    @property
    def entry_numbers(self) -> np.ndarray:
        """int64 ``[entries]``: the place of the first frame that each entry point shows."""
        numbers = np.searchsorted(self.stamps, self.entries[:, 0])
        numbers[0] = 0
        return numbers

    def number(self, stamp: int | None) -> int | None:
        """The place of the frame with this presentation stamp, or ``None`` when the index has no such frame."""
        if stamp is None:
            return None
        at = int(np.searchsorted(self.stamps, stamp))
        return at if at < len(self.stamps) and self.stamps[at] == stamp else None


@dataclasses.dataclass
class _Packets:
    """Per packet that leads to a frame, in the order of the file."""

    pts: list[int | None] = dataclasses.field(default_factory=list)
    dts: list[int | None] = dataclasses.field(default_factory=list)
    duration: list[int] = dataclasses.field(default_factory=list)
    entry: list[bool] = dataclasses.field(default_factory=list)
    shown: list[bool] = dataclasses.field(default_factory=list)
    unclean: bool = False
    hidden: bool = False
    damaged: bool = False
    reason: str = ""


def open_container(path: str) -> Any:
    """Open a file with PyAV, as a clip and nothing else.

    Raises:
        MissingDependencyError: PyAV is not installed.
        VideoError: Not a video file.
    """
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(f'reading video needs PyAV ({error}); pip install "evqa[video]"') from None
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
    try:
        try:
            return av.open(path, options=options)
        except UnicodeDecodeError:  # A title in some old encoding; later versions of PyAV do not mind.
            return av.open(path, options=options, metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if missing := missing_bytes(path):
            raise VideoError(f"the file is cut short: {missing} bytes are missing at its end") from None
        reason = "no known kind of video file" if getattr(error, "errno", None) == errno.EINVAL else _reason(error)
        raise VideoError(f"not a video that can be read ({reason})") from None


def build(path: str, name: str) -> Index:
    """Read the index of a file.

    Args:
        path: The file.
        name: What to call it in :attr:`VideoInfo.path`.

    Raises:
        MissingDependencyError: PyAV is not installed.
        VideoError: No video in it, the file is cut short, or no frame can be decoded.
    """
    with open_container(path) as container:
        stream = container.streams.best("video")
        if stream is None:
            raise VideoError("the file holds no video stream")
        demuxer = container.format.name.split(",")[0]
        codec = stream.codec_context.codec
        codec = getattr(codec, "canonical_name", None) or codec.name
        packets, first = _demux(container, stream, codec)
        number, base, promised = stream.index, stream.time_base, stream.frames
        rate = stream.average_rate or stream.guessed_rate
    if not packets.pts:
        raise VideoError("the video stream holds no frames")
    complete = promised and len(packets.pts) >= promised and not packets.damaged
    if not complete and (missing := missing_bytes(path)):
        raise VideoError(f"the file is cut short: {missing} bytes are missing at its end")

    if first is None:
        raise VideoError(f"the video cannot be decoded ({packets.reason})")
    counted = demuxer == "avi" or first.pts is None or None in packets.pts
    pts = packets.dts if counted and None not in packets.dts else packets.pts
    if None in pts:
        raise VideoError("the video stream holds no timestamps")
    shown = np.array(packets.shown)
    pts = np.array(pts, np.int64)
    # A file cut out of a longer one begins with frames that need others: the clip starts where pictures do.
    visible = shown if counted else shown & (pts >= first.pts)
    if not visible.any():
        raise VideoError("the video stream holds no frames that are shown")
    stamps, last = np.unique(pts[visible], return_index=True)
    rotation = round(getattr(first, "rotation", 0) or 0) % 360
    height, width = (first.height, first.width) if rotation % 180 == 0 else (first.width, first.height)
    tick, lone = float(base), bool(rate) and len(stamps) == 1
    info = VideoInfo.from_times(
        name,
        (stamps - stamps[0]) * base.numerator / base.denominator,
        packets.duration[np.flatnonzero(visible)[last[-1]]] * tick or (float(1 / rate) if lone else None),
        height=height,
        width=width,
        tick=tick,
        rotation=rotation,
    )
    group, entries, closed = _entry_points(packets, pts, visible, stamps, last, counted)
    trouble = None
    if demuxer not in _SEEKABLE:
        trouble = f"seeking in {demuxer} files is not exact"
    elif counted:
        trouble = "its packets carry no presentation times"
    elif len(stamps) < visible.sum():
        trouble = "two of its frames have one timestamp"
    elif packets.hidden:
        trouble = "it holds hidden frames"
    elif packets.unclean:
        trouble = "its key frames are not all places to start decoding from"
    elif not visible.all():
        trouble = "some of its frames are not shown"
    return Index(info, stamps, base, group, entries, number, counted, closed, trouble)


def _demux(container: Any, stream: Any, codec: str) -> tuple[_Packets, Any]:
    """All packets, and the first frame that comes out of them."""
    import av

    prefix = length_prefix(codec, stream.codec_context.extradata)
    stream.codec_context.thread_count = 1  # More would decode more frames than one.
    out, first, reason = _Packets(), None, "no frame comes out"
    try:
        for packet in container.demux(stream):
            if first is None:
                try:
                    first = next(iter(packet.decode()), None)
                except av.error.FFmpegError as error:
                    reason = _reason(error)
            if not packet.size:
                continue
            key = bool(packet.is_keyframe)
            hidden = codec in ("vp8", "vp9") and is_hidden(codec, memoryview(packet))
            clean = key and clean_entry(codec, bytes(packet) if codec in ("h264", "hevc") else b"", prefix)
            out.pts.append(packet.pts)
            out.dts.append(packet.dts)
            out.duration.append(packet.duration or 0)
            out.entry.append(clean)
            out.shown.append(not hidden and not packet.is_discard)
            out.unclean |= key and not clean
            out.hidden |= hidden
            out.damaged |= bool(packet.is_corrupt)
    except av.error.FFmpegError as error:
        # What follows cannot be read; whether bytes are missing is looked at by the caller.
        out.damaged, reason = True, _reason(error)
    out.reason = reason
    return out, first


def _entry_points(
    packets: _Packets,
    pts: np.ndarray,
    visible: np.ndarray,
    stamps: np.ndarray,
    order: np.ndarray,
    counted: bool,
) -> tuple[np.ndarray, np.ndarray, bool]:
    """``group``, ``entries`` and ``closed`` of :class:`Index`."""
    rank = np.flatnonzero(visible)[order]  # place in the file of each presented frame
    entry = np.flatnonzero(np.array(packets.entry))
    entry = entry[entry > 0]
    none = np.zeros(len(stamps), np.int64), np.zeros((1, 2), np.int64)
    if counted or not len(entry):
        return *none, not counted
    entry_pts = pts[entry]
    if (np.diff(entry_pts) <= 0).any():
        return *none, False
    # A frame belongs to the last entry point before it both in the file and in time: "leading" frames, which
    # come after one in the file and are shown before it, may refer to what precedes it.
    by_file = np.searchsorted(entry, rank, side="right")
    by_time = np.searchsorted(entry_pts, stamps, side="right")
    entry_dts = [p if d is None else d for d, p in ((packets.dts[i], pts[i]) for i in entry)]
    entries = np.concatenate([none[1], np.stack([entry_pts, np.array(entry_dts, np.int64)], axis=1)])
    return np.minimum(by_file, by_time), entries, bool((by_file == by_time).all())


def _reason(error: BaseException) -> str:
    """FFmpeg's own words, without number and path."""
    return getattr(error, "strerror", None) or str(error)
