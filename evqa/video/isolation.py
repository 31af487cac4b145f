"""Decoding in a child process: a broken file or a decoder that hangs costs one error and nothing else.

Guarantees, on POSIX systems:

- a request ends within its time limit; a child that is still busy then is killed;
- a child that crashes or is killed costs the request that it was serving, and the next one gets a new child;
- a child ends when its parent does, however the parent ends; one that is killed leaves no zombie;
- what a decoder prints stays out of the terminal; its last lines are in the error.

The child is a plain interpreter, started anew: never forked, because the parent may own threads and a GPU. It
works inside ``multiprocessing`` workers, daemonic ones too, and after a fork each process starts children of
its own. Threads share up to ``_MOST`` children; a thread beyond those waits, which does not count against its
limit.

Not covered: memory. A clip that makes a decoder allocate without end is left to the system's limits.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

from evqa.errors import MissingDependencyError, VideoError
from evqa.video import wire
from evqa.video.info import VideoInfo
from evqa.video.source import anonymous_file

__all__ = ["probe", "read", "shutdown"]

_MOST = max(1, min(4, os.cpu_count() or 1))
_STARTUP = 120.0  # seconds for an interpreter and its imports, on a slow disk and a busy machine
_POLL = 0.25  # seconds between looks at a silent child: a dead one does not always close its socket
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def probe(request: dict[str, Any], descriptor: int | None, timeout: float | None) -> VideoInfo:
    """As :meth:`evqa.video.reading.Session.probe`, in a child; ``descriptor`` is the open file of a clip as bytes."""
    fields: dict[str, Any] = {}
    times = np.empty(0)
    for kind, _, body in _exchange(request, descriptor, timeout, lambda kind, number, length: bytearray(length)):
        if kind == wire.TIMES:
            times = np.frombuffer(body, np.float64).copy()
        else:
            fields = json.loads(body).get("info", fields)
    times.setflags(write=False)
    return VideoInfo(timestamps=times, **fields)


def read(request: dict[str, Any], descriptor: int | None, timeout: float | None) -> np.ndarray:
    """As :meth:`evqa.video.reading.Session.read`, in a child: uint8 ``[n, height, width, 3]``."""
    out = np.empty(0, np.uint8)
    slots: list[list[int]] = []

    def place(kind: bytes, number: int, length: int) -> Any:
        # Pixels go from the socket to their place in the result.
        return out[slots[number][0]].reshape(-1)

    for kind, number, body in _exchange(request, descriptor, timeout, place):
        if kind == wire.FRAME:
            for slot in slots[number][1:]:
                out[slot] = out[slots[number][0]]
        elif "shape" in (message := json.loads(body)):
            slots = message["slots"]
            out = np.empty((len(request["wanted"]), *message["shape"]), np.uint8)
    return out


def shutdown() -> None:
    """End this process's children. They come back with the next request; at exit this happens by itself."""
    with _pool.lock:
        idle, _pool.idle = _pool.idle, []
    for child in idle:
        child.end()


class _Lost(Exception):  # noqa: N818 - tells of a child that was gone before it took the request
    pass


def _exchange(
    request: dict[str, Any], descriptor: int | None, timeout: float | None, place: Any
) -> Iterator[tuple[bytes, int, Any]]:
    """Serve one request: yields kind, number and body of each message, up to the last."""
    for last_try in (False, True):
        pool = _pool
        with pool.room:
            child = pool.take("torchcodec" in request.get("backends", ()))
            try:
                yield from child.serve(request, descriptor, timeout, place)
                return
            except _Lost:
                # A child that sat idle was killed from outside. That says nothing about this clip.
                if last_try:
                    raise VideoError("the decoding process cannot be reached") from None
            finally:
                pool.give(child)


class _Child:
    """One decoding process; used by one thread at a time."""

    def __init__(self, torchcodec: bool) -> None:
        if not sys.executable:
            raise VideoError("cannot start a decoding process: where Python is, is not known; use isolate=False")
        self.idle = False
        self.torchcodec = torchcodec
        self.owner = os.getpid()
        self._notes = _scratch_file()
        self._socket, theirs = socket.socketpair()
        try:
            command = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); import evqa.video.worker as w; w.main()"
            self._process = subprocess.Popen(
                [sys.executable, "-c", command, json.dumps([str(entry) for entry in sys.path])],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._notes,
                # Libraries start a thread per core as they are imported: times every child, too many.
                env={**os.environ, **dict.fromkeys(_THREAD_VARIABLES, "1")},
            )
        except OSError as error:
            self._socket.close()
            raise VideoError(f"cannot start a decoding process ({error})") from None
        finally:
            theirs.close()
        _children.add(self)
        self._socket.settimeout(_POLL)
        self._ready = False
        self._enter("starting", _STARTUP)

    def serve(
        self, request: dict[str, Any], descriptor: int | None, timeout: float | None, place: Any
    ) -> Iterator[tuple[bytes, int, Any]]:
        """See :func:`_exchange`. Unless it ends well, the child is not used again."""
        used, self.idle = self._ready, False
        self._enter("starting", _STARTUP)
        if not self._ready:
            self._receive()
            self._ready = True
        try:
            self._socket.settimeout(_STARTUP)
            wire.send_json(self._socket, {**request, "limit": timeout, "attached": descriptor is not None})
            if descriptor is not None:
                socket.send_fds(self._socket, [b"\0"], [descriptor])
            self._socket.settimeout(_POLL)
            self._receive()
        except (VideoError, OSError):
            if used and self._process.poll() is not None:
                raise _Lost from None
            raise
        self._enter("decoding", timeout)
        while True:
            kind, number, body = self._receive(place)
            if kind == wire.JSON and "done" in json.loads(body):
                self.idle = True
                return
            yield kind, number, body

    def _enter(self, stage: str, limit: float | None) -> None:
        self._stage, self._limit = stage, limit
        self._deadline = None if limit is None else time.monotonic() + limit

    def _receive(self, place: Any = None) -> tuple[bytes, int, Any]:
        """The next message, its body written where ``place(kind, number, length)`` says.

        Raises:
            VideoError, MissingDependencyError: What the child reports, or what has become of it.
        """
        try:
            kind, number, length = wire.receive_header(self._fill)
            body = bytearray(length) if kind == wire.JSON else place(kind, number, length)
            view = memoryview(body).cast("B")
            if len(view) != length:
                raise ValueError(f"{length} bytes instead of {len(view)}")
            self._fill(view)
            message = json.loads(body) if kind == wire.JSON else {}
        except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
            # A decoder that a broken file has led astray can have written anywhere in its process.
            raise VideoError(f"the decoding process sent nonsense ({error})") from None
        if "error" in message:
            self.idle = True
            error_type = MissingDependencyError if message["missing"] else VideoError
            raise error_type(message["error"] + self._said())
        return kind, number, body

    def _fill(self, view: memoryview) -> None:
        while view:
            try:
                count = self._socket.recv_into(view)
            except TimeoutError:
                if self._process.poll() is not None:
                    raise VideoError(self._death()) from None
                if self._deadline is not None and time.monotonic() > self._deadline:
                    raise VideoError(self._overdue()) from None
                continue
            except OSError:
                count = 0
            if not count:
                raise VideoError(self._death())
            view = view[count:]
            if self._deadline is not None and time.monotonic() > self._deadline:
                raise VideoError(self._overdue())

    def _overdue(self) -> str:
        return f"{self._stage} took longer than {self._limit:g} s and was stopped" + self._said()

    def _death(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.returncode
        how = f"ended with code {code}"
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                how = f"was killed by {signal.Signals(-code).name}"
        return f"the decoding process {how} while {self._stage}" + self._said()

    def _said(self) -> str:
        """The last lines that the decoder printed, for the end of an error message."""
        size = os.fstat(self._notes).st_size
        text = os.pread(self._notes, 4096, max(0, size - 4096)).decode("utf-8", "replace")
        lines = [" ".join(line.split())[:200] for line in text.replace("\0", "").splitlines() if line.strip()]
        return f" (decoder: {' | '.join(lines[-3:])})" if lines else ""

    def end(self) -> None:
        """Kill the process and take its exit status: it has nothing to save."""
        if self.owner != os.getpid():
            return
        self._process.kill()
        self._socket.close()
        # A process that waits for a dead network disk cannot be killed yet; Popen takes its status later.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._close_notes()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def disown(self) -> None:
        """In a process forked from the owner: let go of the child without touching it."""
        self._socket.close()
        self._close_notes()
        self._process.returncode = 0  # Not ours to wait for.

    def _close_notes(self) -> None:
        if self._notes >= 0:
            os.close(self._notes)
            self._notes = -1


class _Pool:
    """The children of one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.room = threading.BoundedSemaphore(_MOST)
        self.idle: list[_Child] = []
        self._exit_hook = False

    def take(self, torchcodec: bool) -> _Child:
        """An idle child, or a new one.

        torchcodec gets children of its own: in a process that has loaded decord, whose libraries shadow those
            of
        every library loaded later, it fails or crashes on some codecs.
        """
        while True:
            with self.lock:
                child = next((child for child in self.idle if child.torchcodec == torchcodec), None)
                if child is None:
                    break
                self.idle.remove(child)
            if child.alive:
                return child
            child.end()
        self._end_at_exit()
        return _Child(torchcodec)

    def give(self, child: _Child) -> None:
        """Keep a child that ended its request well; end any other, and any beyond the number of children."""
        ended = [] if child.idle else [child]
        with self.lock:
            if child.idle:
                self.idle.append(child)
                ended, self.idle = self.idle[:-_MOST], self.idle[-_MOST:]
        for other in ended:
            other.end()

    def _end_at_exit(self) -> None:
        with self.lock:
            if self._exit_hook:
                return
            self._exit_hook = True
        from multiprocessing import parent_process, util

        if parent_process() is None:
            atexit.register(_at_exit)
        else:
            util.Finalize(None, _at_exit, exitpriority=0)  # multiprocessing's children skip atexit


def _scratch_file() -> int:
    descriptor = anonymous_file("evqa-stderr")
    if descriptor is None:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    return descriptor


def _at_exit() -> None:
    for child in list(_children):
        child.end()


def _after_fork() -> None:
    global _pool
    for child in list(_children):
        child.disown()
    _children.clear()
    _pool = _Pool()


_children: weakref.WeakSet[_Child] = weakref.WeakSet()
_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
