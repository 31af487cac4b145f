"""From places in the index to pixels: PyAV, decord and torchcodec behind one interface.

A backend is opened on a file and its :class:`~evqa.video.index.Index` and yields RGB frames. It must prove
that its frames are those of the index, or refuse the clip with :class:`Unfit`: PyAV and torchcodec return a
timestamp with each frame; decord counts frames, so it is used only where its count, its timestamps and the
structure of the clip leave no room for another count.

``backend=None`` means decord where it is installed and fit, else PyAV. A name means that backend or an error.
A name of the form ``"package.module:Class"`` is a backend of your own; it is imported in the process that
decodes.
"""

from __future__ import annotations

import abc
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from evqa.errors import MissingDependencyError, VideoError
from evqa.video.index import Index, open_container

__all__ = ["Backend", "Decord", "PyAV", "TorchCodec", "Unfit", "candidates", "installed_backends", "load"]

# Many decoding processes share a machine (data loader workers, ranks): a few threads each is enough.
_THREADS = min(4, os.cpu_count() or 1)

# Frames that PyAV would rather decode and drop than seek, which empties the decoder's pipeline.
_JUMP = 16

# Frames that a decoder hands over at once, so that a long request does not sit in memory twice.
_CHUNK_BYTES = 64 << 20


class Unfit(Exception):  # noqa: N818 - a reason to try the next backend, not an error of the user's
    """This backend cannot return the right frames of this clip; the message says why."""


class Backend(abc.ABC):
    """One clip, opened by one decoder.

    Args:
        path: A local file.
        index: Its index.

    Raises:
        Unfit: Here or in :meth:`frames`.
        ImportError: The decoder cannot be loaded.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def __init__(self, path: str, index: Index) -> None:
        """Open the clip."""

    @abc.abstractmethod
    def frames(self, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames.

        Args:
            numbers: Places in the index, sorted, without repeats.

        Yields:
            Each number once, in any order, with its frame: uint8 ``[height, width, 3]``, RGB, as shown.
        """


class PyAV(Backend):
    """FFmpeg through PyAV. Frames are known by their timestamps, so every clip that has an index is fit."""

    name = "pyav"

    def __init__(self, path: str, index: Index) -> None:
        """See :class:`Backend`."""
        self._path, self._index = path, index
        self._container: Any = None

    def frames(self, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """See :meth:`Backend.frames`."""
        missed: list[int] = []
        yield from self._read(numbers, missed, seek=True)
        if missed and len(self._index.entries) > 1:
            # An entry point that promised too much. From the start, nothing is left out.
            again, missed = missed, []
            yield from self._read(again, missed, seek=False)
        if missed:
            times = ", ".join(f"{self._index.info.timestamps[number]:g}" for number in missed[:8])
            raise Unfit(f"{len(missed)} frames cannot be decoded, at {times} s")

    def _read(self, numbers: Sequence[int], missed: list[int], *, seek: bool) -> Iterator[tuple[int, np.ndarray]]:
        group = self._index.group if seek else np.zeros_like(self._index.group)
        starts = self._index.entry_numbers
        left = list(reversed(numbers))
        while left:
            entry = int(group[left[-1]])
            for number, frame in self._decode(entry):
                while left and left[-1] < number:
                    missed.append(left.pop())
                if left and left[-1] == number:
                    if entry and frame.is_corrupt:
                        missed.append(left.pop())
                    else:
                        yield left.pop(), _rgb(frame, self._index.info.rotation)
                # Only a later entry point is worth a seek: this one may have been reached from further back.
                if not left or (group[left[-1]] > entry and starts[group[left[-1]]] - number > _JUMP):
                    break
            else:
                missed.extend(reversed(left))
                left.clear()

    def _decode(self, entry: int) -> Iterator[tuple[int, Any]]:
        """Frames of the index, with their numbers, from an entry point on."""
        import av

        count = 0
        for packet in self._packets(entry):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                continue  # A damaged packet: the frames that it takes along are missed by the caller.
            for frame in frames:
                number = count if self._index.counted else self._index.number(frame.pts)
                count += 1
                if number is not None and number < len(self._index.stamps):
                    yield number, frame

    def _packets(self, entry: int) -> Iterator[Any]:
        import av

        pts, dts = (int(stamp) for stamp in self._index.entries[entry])
        packets = None
        # Some demuxers look an entry point up by one of its stamps and some by the other. Which frame a seek
        # has really reached shows in the first packet.
        for stamp in (pts, dts) if entry else ():
            container, stream = self._open()
            try:
                container.seek(stamp, stream=stream, backward=True)
                packets = container.demux(stream)
                first = next(packets, None)
            except av.error.FFmpegError:
                first = None
            if first is not None and first.pts is not None and first.pts <= pts and first.is_keyframe:
                yield first
                break
        else:
            container, stream = self._open(rewind=True)
            packets = container.demux(stream)
        try:
            yield from packets
        except av.error.FFmpegError:
            return  # The file breaks off here.

    def _open(self, *, rewind: bool = False) -> tuple[Any, Any]:
        if self._container is None or rewind:
            self._container = open_container(self._path)
            stream = self._container.streams.best("video")
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = _THREADS
        return self._container, self._container.streams.best("video")


class Decord(Backend):
    """The ``decord`` module (from the ``decord2`` distribution)."""

    name = "decord"

    def __init__(self, path: str, index: Index) -> None:
        """See :class:`Backend`."""
        import decord

        info = index.info
        if index.trouble:
            raise Unfit(index.trouble)
        if not index.closed:
            # After a seek, decord counts the leading frames of an open group of pictures as later ones.
            raise Unfit("its groups of pictures are open")
        if info.rotation:
            raise Unfit("it is shown rotated")
        try:
            # No tolerance: decord shall say so when it repeats a frame in place of one it cannot decode.
            self._reader = decord.VideoReader(path, decord.cpu(0), num_threads=_THREADS, fault_tol=1e-9)
            count = len(self._reader)
            times = np.asarray(self._reader.get_frame_timestamp(range(count)), np.float64)[:, 0]
        except Exception as error:
            raise Unfit(_brief(error)) from None
        if count != info.num_frames:
            raise Unfit(f"it counts {count} frames instead of {info.num_frames}")
        _compare(times - times[0], info.timestamps, np.spacing(np.float32(abs(times[-1]))))

    def frames(self, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """See :meth:`Backend.frames`."""
        first = self._chunk(numbers[:1])
        yield numbers[0], first[0]
        step = max(1, _CHUNK_BYTES // first[0].nbytes)
        for start in range(1, len(numbers), step):
            chunk = numbers[start : start + step]
            yield from zip(chunk, self._chunk(chunk), strict=True)

    def _chunk(self, numbers: Sequence[int]) -> np.ndarray:
        try:
            return self._reader.get_batch(list(numbers)).asnumpy()
        except Exception as error:
            raise Unfit(_brief(error)) from None


class TorchCodec(Backend):
    """``torchcodec``; needs FFmpeg's libraries on the system. Its timestamps are checked frame by frame."""

    name = "torchcodec"

    def __init__(self, path: str, index: Index) -> None:
        """See :class:`Backend`."""
        if "decord" in sys.modules and "torchcodec" not in sys.modules:
            # decord makes its libraries global, and those that torchcodec loads later bind to them.
            raise Unfit("decord is loaded in this process and breaks it; use isolate=True")
        try:
            from torchcodec.decoders import VideoDecoder
        except (OSError, RuntimeError) as error:  # Its own libraries do not load: usually no FFmpeg.
            raise ImportError(_brief(error)) from None
        if index.trouble:
            raise Unfit(index.trouble)
        try:
            self._decoder = VideoDecoder(
                path, stream_index=index.stream, dimension_order="NHWC", num_ffmpeg_threads=_THREADS
            )
        except Exception as error:
            raise Unfit(_brief(error)) from None
        if len(self._decoder) != index.info.num_frames:
            raise Unfit(f"it counts {len(self._decoder)} frames instead of {index.info.num_frames}")
        self._index = index

    def frames(self, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """See :meth:`Backend.frames`."""
        info = self._index.info
        start = float(self._index.stamps[0] * Fraction(self._index.time_base))
        step = max(1, _CHUNK_BYTES // (info.height * info.width * 3))
        for at in range(0, len(numbers), step):
            chunk = list(numbers[at : at + step])
            try:
                batch = self._decoder.get_frames_at(chunk)
                times, pixels = batch.pts_seconds.numpy() - start, batch.data.numpy()
            except Exception as error:
                raise Unfit(_brief(error)) from None
            _compare(times, info.timestamps[chunk], 1e-6)
            yield from zip(chunk, pixels, strict=True)


_BACKENDS: dict[str, tuple[type[Backend], str]] = {
    "decord": (Decord, "decord"),
    "pyav": (PyAV, "av"),
    "torchcodec": (TorchCodec, "torchcodec"),
}


def installed_backends() -> tuple[str, ...]:
    """Names of the backends whose packages are installed, in order of preference; nothing is imported."""
    return tuple(name for name, (_, module) in _BACKENDS.items() if importlib.util.find_spec(module))


def candidates(backend: str | None) -> tuple[str, ...]:
    """Which backends to try, in this order.

    Args:
        backend: A name, ``"module:Class"``, or ``None`` for the default.

    Raises:
        ValueError: Unknown name.
        MissingDependencyError: PyAV, which reads every index, or the backend asked for is not installed.
    """
    if backend is not None and backend not in _BACKENDS and ":" not in backend:
        raise ValueError(f"unknown video backend {backend!r}; known: {', '.join(_BACKENDS)}, or module:Class")
    installed = installed_backends()
    for needed in ("pyav", backend):
        if needed in _BACKENDS and needed not in installed:
            extra = "torchcodec" if needed == "torchcodec" else '"evqa[video]"'
            raise MissingDependencyError(f"reading video needs the module {_BACKENDS[needed][1]}; pip install {extra}")
    # PyAV knows each frame by its timestamp: what it cannot find, no other decoder finds.
    return (backend,) if backend else tuple(name for name in ("decord", "pyav") if name in installed)


def load(name: str) -> type[Backend]:
    """The class behind a name that :func:`candidates` gave."""
    if name in _BACKENDS:
        return _BACKENDS[name][0]
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise VideoError(f"cannot load the video backend {name!r}: {error}") from None


def _rgb(frame: Any, rotation: int) -> np.ndarray:
    pixels = frame.to_ndarray(format="rgb24")
    return np.rot90(pixels, rotation // 90) if rotation else pixels


def _compare(times: np.ndarray, expected: np.ndarray, rounding: float) -> None:
    """Refuse a decoder whose timestamps are not those of the index."""
    off = np.abs(times - expected)
    if not (off <= 2 * rounding + 1e-6).all():
        worst = int(np.argmax(off))
        raise Unfit(f"it places the frame of {expected[worst]:g} s at {times[worst]:g} s")


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}…"
