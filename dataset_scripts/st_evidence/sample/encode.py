"""Clips as H.264 in MP4: small, playable in every browser, and the same bytes on every run."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

#: Constant quality of x264. Flat pictures stay clean at 21 and the clips stay small.
QUALITY = 21

# BT.709, limited range. The conversion is done here rather than by the encoder's scaler, so that the tags written
# into the stream are what was really applied and the colours do not depend on the scaler's build.
_KR, _KB = 0.2126, 0.0722
_LUMA = np.array([_KR, 1 - _KR - _KB, _KB])


def to_yuv420(picture: Image.Image) -> np.ndarray:
    """A picture as planar YUV 4:2:0, ``uint8[3/2 height, width]``."""
    colours = np.asarray(picture, dtype=np.float64) / 255
    height, width = colours.shape[:2]
    luma = colours @ _LUMA
    blue = (colours[..., 2] - luma) / (2 * (1 - _KB))
    red = (colours[..., 0] - luma) / (2 * (1 - _KR))
    planes = [16 + 219 * luma]
    for chroma in (blue, red):
        planes.append(128 + 224 * chroma.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)))
    flat = np.concatenate([np.rint(plane).ravel() for plane in planes]).astype(np.uint8)
    return flat.reshape(height * 3 // 2, width)


def write_clip(path: Path, pictures: Iterable[Image.Image], fps: int, *, preset: str = "veryslow") -> None:
    """Encode pictures of one size as a clip; a slower ``preset`` of x264 makes it smaller."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps)
        context = stream.codec_context
        context.pix_fmt = "yuv420p"
        context.time_base = Fraction(1, fps)
        context.thread_count = 1
        # 1 is BT.709 in all three registries, and 1 is the limited range.
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        # No B-frames: frames are stored in the order shown and the first one is at time 0 in every reader.
        context.options = {
            "crf": str(QUALITY),
            "preset": preset,
            "tune": "animation",
            "flags": "+bitexact",
            "x264-params": f"bframes=0:threads=1:lookahead-threads=1:sliced-threads=0:keyint={4 * fps}:scenecut=0",
        }
        for index, picture in enumerate(pictures):
            if index == 0:
                stream.width, stream.height = picture.size
            frame = av.VideoFrame.from_ndarray(to_yuv420(picture), format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
