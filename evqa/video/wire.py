"""Messages between the decoding process and its parent, over a socket.

A message is a header (kind, a number, the length of what follows) and a body: JSON (``J``), the timestamps of
a clip as float64 (``T``), or one frame's pixels (``F``, with the frame's number). Nothing is unpickled: a
decoder that a broken file has taken over can send wrong pixels, not code.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from typing import Any

__all__ = ["FRAME", "JSON", "TIMES", "receive_exactly", "receive_header", "send", "send_json"]

JSON, TIMES, FRAME = b"J", b"T", b"F"

_HEADER = struct.Struct("!cIQ")


def send(sock: socket.socket, kind: bytes, number: int, body: Any) -> None:
    """Send one message; ``body`` is anything with a contiguous buffer."""
    view = memoryview(body).cast("B")
    sock.sendall(_HEADER.pack(kind, number, len(view)))
    sock.sendall(view)


def send_json(sock: socket.socket, value: Any) -> None:
    """Send one JSON message."""
    send(sock, JSON, 0, json.dumps(value).encode())


def receive_header(read: Callable[[memoryview], None]) -> tuple[bytes, int, int]:
    """Kind, number and length of the next message."""
    header = bytearray(_HEADER.size)
    read(memoryview(header))
    return _HEADER.unpack(header)


def receive_exactly(sock: socket.socket, view: memoryview) -> None:
    """Fill ``view``; :class:`EOFError` when the other side is gone."""
    while view:
        count = sock.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
