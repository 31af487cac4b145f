"""The way in: probe a clip, read its frames at times."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from evqa.errors import EvqaError, VideoError
from evqa.video import isolation
from evqa.video.backends import candidates
from evqa.video.info import VideoInfo, as_times
from evqa.video.sampling import Policy, parse_policy
from evqa.video.source import local_file, source_request

__all__ = ["Clip", "probe", "read_frames"]

#: Whether clips are decoded in a process of their own unless asked otherwise: wherever the system can do it.
ISOLATE = os.name == "posix"


def probe(
    source: Any, *, backend: str | None = None, timeout: float | None = 30.0, isolate: bool = ISOLATE
) -> VideoInfo:
    """Read a clip's size and the times of its frames. Only its first frame is decoded.

    Args:
        source: As for :func:`read_frames`.
        backend: Checked as for :func:`read_frames`; the times are the same for all.
        timeout: As for :func:`read_frames`.
        isolate: As for :func:`read_frames`.

    Raises:
        VideoError, MissingDependencyError, ValueError: As for :func:`read_frames`.
    """
    with _opened(source, backend, timeout) as (request, descriptor):
        if isolate:
            return isolation.probe(request, descriptor, timeout)
        from evqa.video.reading import Session

        return Session().probe(request)


def read_frames(
    source: Any,
    times: Iterable[float] | float,
    *,
    tolerance: float | None = None,
    max_side: int | None = None,
    size: tuple[int, int] | None = None,
    backend: str | None = None,
    timeout: float | None = 60.0,
    isolate: bool = ISOLATE,
) -> np.ndarray:
    """Read the frames on screen at given times.

    Args:
        source: A path; the clip's bytes; the ``{"path", "bytes"}`` of a ``datasets.Video(decode=False)``
            column; or a folder of images, ``{"folder", "names", "times"}`` (:class:`evqa.types.FrameFolder`).
        times: Seconds, in any order, repeats allowed. The frame at ``t`` is the last whose timestamp is not
            after ``t``; a frame that starts within 1 ms after ``t`` counts as started
            (:meth:`evqa.video.VideoInfo.starts`).
        tolerance: Seconds after the clip's end that still give the last frame; by default one average frame.
        max_side: Shrink frames so that the longer side has at most this many pixels; never enlarges.
        size: ``(height, width)`` to resize frames to; not together with ``max_side``. Resizing is bicubic
            with antialiasing, the same behind every backend. Pixels are taken as square.
        backend: ``"decord"``, ``"pyav"`` or ``"torchcodec"``: that one, or an error where it cannot return
            the right frames. By default decord where it can, else PyAV. All give the same frames. For
            one of your own see :mod:`evqa.video.backends`.
        timeout: Seconds for the decoding, after which it is stopped; ``None``: no limit. Only with
            ``isolate``.
        isolate: Decode in a child process (:mod:`evqa.video.isolation`). ``False`` is for clips that are
            known to be sound: a decoder that hangs or crashes takes this process along.

    Returns:
        uint8 ``[len(times), height, width, 3]``, RGB, in the order of ``times``, turned as the clip is shown.

    Raises:
        VideoError: Not a clip, cut short, a time outside of it, a frame that cannot be decoded, the time
            limit, or a decoder that crashed. The message has the decoder's last words.
        MissingDependencyError: The decoder is not installed.
        ValueError: Unknown backend, or a size that is none.
    """
    if max_side is not None and size is not None:
        raise ValueError("give max_side or size, not both")
    if max_side is not None and int(max_side) < 1:
        raise ValueError(f"max_side is at least 1, got {max_side!r}")
    if size is not None and (len(size) != 2 or min(int(side) for side in size) < 1):
        raise ValueError(f"size is (height, width), each at least 1, got {size!r}")
    with _opened(source, backend, timeout) as (request, descriptor):
        wanted = as_times(times)
        request.update(
            wanted=wanted.tolist(),
            tolerance=None if tolerance is None else float(tolerance),
            max_side=None if max_side is None else int(max_side),
            size=None if size is None else [int(side) for side in size],
        )
        if isolate:
            return isolation.read(request, descriptor, timeout)
        from evqa.video.reading import Session

        shape, slots, frames = Session().read(request)
        out = np.empty((len(wanted), *shape), np.uint8)
        for number, pixels in frames:
            out[slots[number]] = pixels
        return out


class Clip:
    """A clip that is asked more than once: its probe is kept.

    Args:
        source: As for :func:`read_frames`.
        backend: As for :func:`read_frames`.
        timeout: Seconds for each request.
        isolate: As for :func:`read_frames`.
    """

    def __init__(
        self,
        source: Any,
        *,
        backend: str | None = None,
        timeout: float | None = 60.0,
        isolate: bool = ISOLATE,
    ) -> None:
        """Read nothing yet."""
        self.source = source
        self._settings = {"backend": backend, "timeout": timeout, "isolate": isolate}

    @functools.cached_property
    def info(self) -> VideoInfo:
        """The clip's size and times; raises as :func:`probe` does."""
        return probe(self.source, **self._settings)

    def frames(self, times: Iterable[float] | float, **settings: Any) -> np.ndarray:
        """The frames at ``times``: :func:`read_frames`, with this clip's settings unless others are given."""
        return read_frames(self.source, times, **{**self._settings, **settings})

    def sample(self, policy: Policy | str, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
        """The frames that a policy chooses, and their times.

        Args:
            policy: A policy, or its text (:func:`evqa.video.parse_policy`).
            **settings: As for :meth:`frames`.

        Returns:
            Frames as from :func:`read_frames`, and float64 seconds, one per frame.
        """
        times = parse_policy(policy).times(self.info)
        return self.frames(times, **settings), times


@contextlib.contextmanager
def _opened(source: Any, backend: str | None, timeout: float | None) -> Iterator[tuple[dict[str, Any], int | None]]:
    """A request for this source, and the descriptor to pass along with it; errors gain the clip's name."""
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout is a number of seconds above 0, or None, got {timeout!r}")
    request, data = source_request(source)
    try:
        with contextlib.ExitStack() as stack:
            descriptor = None
            if "folder" not in request:
                request["backends"] = list(candidates(backend))
            if data is not None:
                descriptor, request["path"] = stack.enter_context(local_file(data))
            yield request, descriptor
    except EvqaError as error:
        if error.file is None:
            error.file = request["name"]
        raise
    except OSError as error:
        raise VideoError(f"the clip cannot be read ({error})", file=request["name"]) from None
