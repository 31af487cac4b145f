"""Tiny clips whose frames carry their number as a barcode, and decoders that misbehave.

The decoders are loaded by the decoding process as ``backend="video_fixtures:Name"``, the documented way to bring
a backend of one's own.
"""

from __future__ import annotations

import os
import pathlib
import signal
import sys
import time
from fractions import Fraction

import numpy as np

from evqa.video.backends import Backend, PyAV

HEIGHT, WIDTH, BLOCK, BITS = 48, 64, 16, 12


def frame(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A moving texture with ``number`` in black and white blocks, 12 bits: uint8 [height, width, 3]."""
    rows, columns = np.mgrid[:height, :width]
    out = np.stack([columns * 3 + number * 5, rows * 4 + number * 3, rows + columns + number * 7], axis=-1) % 256
    for bit in range(BITS):
        y, x = divmod(bit, WIDTH // BLOCK)
        out[y * BLOCK : (y + 1) * BLOCK, x * BLOCK : (x + 1) * BLOCK] = 255 * (number >> bit & 1)
    return out.astype(np.uint8)


def number_of(pixels: np.ndarray) -> int:
    """Read the barcode."""
    value = 0
    for bit in range(BITS):
        y, x = divmod(bit, WIDTH // BLOCK)
        block = pixels[y * BLOCK + 4 : y * BLOCK + 12, x * BLOCK + 4 : x * BLOCK + 12]
        value |= int(block.mean() > 127) << bit
    return value


def make(
    path: pathlib.Path,
    *,
    frames: int = 60,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: Fraction | int = 25,
    gop: int = 20,
    stamps: list[int] | None = None,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    height: int = HEIGHT,
    width: int = WIDTH,
    rotate: int = 0,
) -> pathlib.Path:
    """Encode frames 0, 1, ... with PyAV; ``stamps`` are their presentation stamps in ``time_base``."""
    import av

    time_base = time_base or 1 / Fraction(rate)
    with av.open(str(path), "w", options=container or {}) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.gop_size = gop
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = stream.time_base = time_base
        stream.codec_context.options = {"crf": "16", **(options or {})}
        if rotate:
            stream.set_display_rotation(rotate)
        for i in range(frames):
            picture = av.VideoFrame.from_ndarray(frame(i, height, width), format="rgb24").reformat(format=pix_fmt)
            picture.pts, picture.time_base = (stamps[i] if stamps else i), time_base
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


def remux(source: pathlib.Path, path: pathlib.Path, *, shift: int = 0, first: int = 0) -> pathlib.Path:
    """Copy packets, from packet ``first`` on, with their stamps moved by ``shift`` ticks of the source."""
    import av

    with av.open(str(source)) as given, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for i, packet in enumerate(given.demux(video=0)):
            if packet.size and i >= first:
                packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                out.mux(packet)
    return path


def hide(path: pathlib.Path, number: int) -> pathlib.Path:
    """Mark one frame of a VP8 file as not shown, in place."""
    import av

    with av.open(str(path)) as container:
        packet = bytes([packet for packet in container.demux(video=0) if packet.size][number])
    data = path.read_bytes()
    assert data.count(packet) == 1
    path.write_bytes(data.replace(packet, bytes([packet[0] & ~0x10]) + packet[1:]))
    return path


# ------------------------------------------------------------------------------- decoders that misbehave
class Hanging(Backend):
    """Never returns. Says who and where it is first, for tests that kill it from outside."""

    name = "hanging"

    def __init__(self, path, index):
        if note := os.environ.get("EVQA_TEST_NOTE"):
            pathlib.Path(note).write_text(str(os.getpid()))

    def frames(self, numbers):
        while True:
            time.sleep(3600)
        yield


class Crashing(Hanging):
    """Dies of a segmentation fault after some last words."""

    def frames(self, numbers):
        os.write(2, b"last words\n")
        os.kill(os.getpid(), signal.SIGSEGV)
        yield


class Leaving(Hanging):
    """Ends the process in the middle of a request."""

    def frames(self, numbers):
        yield numbers[0], frame(0)
        os._exit(3)


class Noisy(PyAV):
    """Prints where a user would see it."""

    def frames(self, numbers):
        print("noise on stdout", flush=True)
        print("noise on stderr", file=sys.stderr, flush=True)
        os.write(1, b"more noise\n")
        yield from super().frames(numbers)


class Complaining(Hanging):
    """Prints and then refuses."""

    def frames(self, numbers):
        os.write(1, b"a complaint\n")
        os.write(2, b"another\n")
        raise RuntimeError("this decoder is broken")
        yield


class OneShort(PyAV):
    """Returns too few frames."""

    def frames(self, numbers):
        yield from super().frames(numbers[:-1])
