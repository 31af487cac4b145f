"""Write frames as a clip that every browser plays."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from evqa.errors import MissingDependencyError, VideoError

__all__ = ["write_clip"]


def write_clip(
    path: str | os.PathLike[str], frames: Iterable[np.ndarray], fps: float | Fraction, *, crf: int = 20
) -> None:
    """Write an MP4 file: H.264, yuv420p, BT.709, index in front, a key frame every 2 seconds at least.

    The same frames give the same bytes on any machine with the same FFmpeg: one thread, no dates, no version
    strings of FFmpeg's muxer. The file appears complete or not at all.

    Frames of odd height or width cannot be stored so: the last row or column is repeated once, and the clip
    is a pixel larger than the frames.

    Args:
        path: The file; replaced if it exists.
        frames: uint8 ``[height, width, 3]`` each, RGB, all of one size, at least one; or an array
            ``[n, height, width, 3]``.
        fps: Frames per second.
        crf: x264's constant rate factor: 0 (lossless up to colour conversion) to 51; 18 looks like the
            original.

    Raises:
        VideoError: No frames, frames of another type or of two sizes, or an encoder that refuses.
        ValueError: ``fps`` or ``crf`` out of range.
        MissingDependencyError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(f'writing video needs PyAV ({error}); pip install "evqa[video]"') from None
    rate = Fraction(fps).limit_denominator(1001)
    if not 0 < rate <= 1000:
        raise ValueError(f"fps is above 0 and at most 1000, got {fps!r}")
    if not 0 <= crf <= 51:
        raise ValueError(f"crf is from 0 to 51, got {crf!r}")
    path = os.fspath(path)
    descriptor, unfinished = tempfile.mkstemp(
        prefix=".writing-", suffix=".mp4", dir=os.path.dirname(os.path.abspath(path))
    )
    os.close(descriptor)
    try:
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        with av.open(unfinished, "w", format="mp4", options=options) as container:
            _encode(container, frames, rate, crf)
        # A temporary file is private; a clip is a file like any other.
        os.chmod(unfinished, 0o666 & ~_umask())
        os.replace(unfinished, path)
    except av.error.FFmpegError as error:
        raise VideoError(f"the clip cannot be written ({error})", file=path) from None
    except VideoError as error:
        error.file = path
        raise
    finally:
        if os.path.exists(unfinished):
            os.unlink(unfinished)


def _encode(container, frames: Iterable[np.ndarray], rate: Fraction, crf: int) -> None:
    import av
    from av.video.reformatter import ColorRange, Colorspace

    stream, shape = None, None
    for number, pixels in enumerate(frames):
        pixels = np.asarray(pixels)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise VideoError(f"frame {number} is {pixels.dtype} {list(pixels.shape)}, not uint8 [height, width, 3]")
        if stream is None:
            shape = pixels.shape
            stream = container.add_stream("libx264", rate=rate)
            stream.height, stream.width = (side + side % 2 for side in shape[:2])
            stream.pix_fmt = "yuv420p"
            stream.time_base = 1 / rate
            context = stream.codec_context
            context.thread_count = 1
            context.gop_size = max(1, round(2 * rate))
            context.options = {"crf": str(crf), "preset": "medium", "flags": "+bitexact"}
            # Said in the file, because players guess BT.601 or BT.709 from the size otherwise.
            context.colorspace = Colorspace.ITU709
            context.color_primaries = context.color_trc = 1  # BT.709
            context.color_range = ColorRange.MPEG
        elif pixels.shape != shape:
            raise VideoError(f"frame {number} is {list(pixels.shape)}, the first one {list(shape)}")
        padding = [(0, side % 2) for side in shape[:2]] + [(0, 0)]
        frame = av.VideoFrame.from_ndarray(np.pad(pixels, padding, mode="edge"), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        frame.pts, frame.time_base = number, 1 / rate
        container.mux(stream.encode(frame))
    if stream is None:
        raise VideoError("a clip needs at least one frame")
    container.mux(stream.encode(None))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
