"""Facts that only the compressed bytes tell: clean entry points, hidden frames, files cut short.

Containers mark more packets as key frames than a decoder can start from: an H.264 stream with intra refresh
has "key frames" after which the picture is complete only a second later, and no decoder says so. Frames read
after a seek to one of those carry the right timestamp and the wrong pixels. Hence this look at the packets
themselves.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

__all__ = ["clean_entry", "is_hidden", "length_prefix", "missing_bytes"]

_H264_SLICE, _H264_IDR, _H264_SEI = 1, 5, 6
_SEI_RECOVERY_POINT = 6


def length_prefix(codec: str, extradata: bytes | None) -> int | None:
    """Bytes of the length before each unit of an H.264 or HEVC packet; ``None``: units follow start codes."""
    if not extradata or extradata[0] != 1:
        return None
    at = 4 if codec == "h264" else 21
    return (extradata[at] & 3) + 1 if len(extradata) > at else None


def clean_entry(codec: str, packet: bytes, prefix: int | None) -> bool:
    """Whether a decoder that starts at this key packet shows it and everything after it (in time) correctly.

    Args:
        codec: FFmpeg's name of the codec.
        packet: The packet's bytes.
        prefix: What :func:`length_prefix` says.

    Returns:
        ``False`` for an H.264 or HEVC packet that needs earlier ones. Other codecs have no such key frames.
    """
    if codec not in ("h264", "hevc"):
        return True
    recovers = False
    for unit in _units(packet, prefix):
        if codec == "hevc":
            kind = (unit[0] >> 1) & 0x3F
            if kind <= 31:  # A picture: the types 16 to 23 are those that decoding can start from.
                return 16 <= kind <= 23
            continue
        kind = unit[0] & 0x1F
        if kind == _H264_SEI:
            recovers = recovers or _recovers_at_once(unit)
        elif _H264_SLICE <= kind <= _H264_IDR:
            return kind == _H264_IDR or recovers
    return False


def is_hidden(codec: str, packet: bytes | memoryview) -> bool:
    """Whether a VP8 or VP9 packet holds a frame that is only referred to and never shown."""
    if not packet:
        return False
    if codec == "vp8":
        return not packet[0] & 0x10
    if codec == "vp9" and packet[0] >> 6 == 2 and packet[-1] >> 5 != 6:  # 6: several frames, the last one shown
        profile = (packet[0] >> 5 & 1) | (packet[0] >> 3 & 2)
        show_existing, show = (0x08, 0x02) if profile < 3 else (0x04, 0x01)
        return not packet[0] & (show_existing | show)
    return False


def missing_bytes(path: str) -> int:
    """How many bytes an MP4 or Matroska file lacks at its end, by its own headers; 0 for any other file."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(64)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
            at = 0
            while at + 8 <= size:
                file.seek(at)
                box = file.read(16)
                length, kind = struct.unpack(">I4s", box[:8])
                if length == 1 and len(box) == 16:
                    length = struct.unpack(">Q", box[8:])[0]
                if length < 8:  # 0: up to the end of the file. Anything else is padding after the last box.
                    return 0
                at += length
                if at > size:
                    return at - size if kind in (b"mdat", b"moov", b"moof") else 0
        elif head[:4] == b"\x1a\x45\xdf\xa3":
            length, at = _vint(head, 4)
            if length is not None and head[at + length : at + length + 4] == b"\x18\x53\x80\x67":
                body, at = _vint(head, at + length + 4)
                if body is not None:  # None: written live, the size is not known.
                    return max(0, at + body - size)
    return 0


def _vint(data: bytes, at: int) -> tuple[int | None, int]:
    """A Matroska length and the position after it; ``None`` for "unknown"."""
    if at >= len(data) or not data[at]:
        return None, at
    extra = 8 - data[at].bit_length()
    value = int.from_bytes(data[at : at + 1 + extra], "big") - (1 << (7 * (extra + 1)))
    return (None if value == (1 << (7 * (extra + 1))) - 1 else value), at + 1 + extra


def _units(packet: bytes, prefix: int | None) -> Iterator[bytes]:
    if prefix is not None:
        at = 0
        while at + prefix < len(packet):
            length = int.from_bytes(packet[at : at + prefix], "big")
            at += prefix
            if length:
                yield packet[at : at + min(length, 64)]
            at += length
        return
    at = packet.find(b"\0\0\1")
    while 0 <= at < len(packet) - 3:
        yield packet[at + 3 : at + 67]
        at = packet.find(b"\0\0\1", at + 3)


def _recovers_at_once(unit: bytes) -> bool:
    """Whether an SEI unit says that the picture is complete from this frame on."""
    at = 1
    while at + 2 < len(unit):
        numbers = []
        for _ in range(2):  # Payload type and size: bytes of 255 add up, the first other one ends the number.
            value = 0
            while at < len(unit) and unit[at] == 255:
                value += 255
                at += 1
            if at >= len(unit):
                return False
            numbers.append(value + unit[at])
            at += 1
        kind, length = numbers
        if kind == _SEI_RECOVERY_POINT and at < len(unit):
            return bool(unit[at] & 0x80)  # Exp-Golomb 0 is a single 1 bit: no frames to wait for.
        at += length
    return False
