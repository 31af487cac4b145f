"""The decoding process: answers requests on its standard input, a socket, one at a time, until that closes.

Started by :mod:`evqa.video.isolation` as a plain interpreter. It must never outlive its parent, so it leaves
when the socket closes, when its parent process changes, and when a request takes longer than the parent waits
for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

from evqa.errors import EvqaError, MissingDependencyError
from evqa.video import wire

__all__ = ["main"]


def main() -> None:
    """Serve requests until the parent is gone."""
    sock = socket.socket(fileno=os.dup(0))
    # What a library prints is kept apart from the messages; what reads standard input gets nothing.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this process.
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()

    from evqa.video.reading import Session

    session = Session(keep_open=True)
    try:
        wire.send_json(sock, {"ready": True})
        while True:
            request, descriptor = _receive(sock)
            _quiet()
            try:
                _answer(sock, session, request)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                if descriptor is not None:
                    os.close(descriptor)
    except (EOFError, OSError):
        os._exit(0)


def _receive(sock: socket.socket) -> tuple[dict[str, Any], int | None]:
    """A request, and the open file of a clip that came as bytes."""
    _, _, length = wire.receive_header(lambda view: wire.receive_exactly(sock, view))
    body = bytearray(length)
    wire.receive_exactly(sock, memoryview(body))
    request = json.loads(body)
    if not request.pop("attached"):
        return request, None
    _, (descriptor, *_), _, _ = socket.recv_fds(sock, 1, 1)
    return {**request, "path": f"/proc/self/fd/{descriptor}"}, descriptor


def _answer(sock: socket.socket, session: Any, request: dict[str, Any]) -> None:
    try:
        _load_decoders(request)
        wire.send_json(sock, {"started": True})
        if request["limit"]:
            # The parent ends this process at the limit. If the parent has died meanwhile, the system does,
            # even while a decoder holds the interpreter's lock.
            signal.setitimer(signal.ITIMER_REAL, request["limit"] + 5)
        if "wanted" in request:
            shape, slots, frames = session.read(request)
            wire.send_json(sock, {"shape": shape, "slots": slots})
            for number, pixels in frames:
                wire.send(sock, wire.FRAME, number, pixels)
        else:
            info = session.probe(request)
            wire.send_json(sock, {"info": info.to_json()})
            wire.send(sock, wire.TIMES, 0, info.timestamps)
        wire.send_json(sock, {"done": True})
    except ConnectionError:
        raise  # The parent is gone.
    except Exception as error:
        _refuse(sock, error)


def _refuse(sock: socket.socket, error: Exception) -> None:
    message = error.message if isinstance(error, EvqaError) else f"{type(error).__name__}: {error}"
    missing = isinstance(error, MissingDependencyError)
    wire.send_json(sock, {"error": message, "missing": missing})


def _load_decoders(request: dict[str, Any]) -> None:
    """Import what decoding needs before its time limit starts: torch alone can take longer than a clip."""
    if "folder" in request:
        return
    # PyAV first: decord makes its libraries global, and libraries loaded after it may bind to them.
    import av

    # FFmpeg's own words go to standard error, whose last lines the parent adds to an error message.
    av.logging.set_level(av.logging.ERROR)
    av.logging.restore_default_callback()
    for name in request["backends"] if "wanted" in request else ():
        # A failure is said again, with the name of the backend, when that is opened.
        with contextlib.suppress(ImportError, OSError, RuntimeError):
            if name == "decord":
                import decord  # noqa: F401
            elif name == "torchcodec":
                import torchcodec.decoders  # noqa: F401


def _quiet() -> None:
    """Forget what was written to standard error for the request before."""
    sys.stderr.flush()
    os.lseek(2, 0, os.SEEK_SET)
    os.ftruncate(2, 0)


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)
