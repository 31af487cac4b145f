"""Preparing entries ahead of the model: in threads, or in processes where preparing itself is Python's work.

A model that generates token by token keeps Python busy, and threads beside it wait for their turn. Worker processes
decode and preprocess without that wait. They hold a copy of the adapter without its model, ignore Ctrl-C (which is
for the run to handle) and end when the run ends, however it ends. Until they have started, which takes seconds, and
where they cannot, threads stand in for them. A worker that dies costs nothing but time: its entries are prepared in the
run's own process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any

from evqa.adapters.base import Adapter

__all__ = ["THREADS", "Preparers"]

# Two decode at a time: decoding itself uses several cores, and its result is held until the model takes it.
THREADS = 2


class Preparers:
    """Runs ``adapter.prepare`` for rows ahead of their turn; use as a context manager.

    Args:
        adapter: If its ``workers`` is above 0, so many processes do it, else two threads.
        rows: ``rows[index]`` is the row of an entry.
        task: ``gen`` or ``mcq``.
    """

    def __init__(self, adapter: Adapter, rows: Any, task: str):
        self._adapter, self._rows, self._task = adapter, rows, task
        self._threads: ThreadPoolExecutor | None = None
        self._pool: ProcessPoolExecutor | None = None
        self._started: Future | None = None  # done when the first worker has started, or could not
        self._workers = adapter.workers
        self.width = adapter.workers or THREADS

    def submit(self, index: int) -> Callable[[], tuple[Any, float]]:
        """Begin to prepare an entry.

        Returns:
            A function that waits for it and gives what ``prepare`` returned and how many seconds it took, or raises
            what it raised.
        """
        if self._workers:
            try:
                if self.start().done():
                    return _Waiting(self, index, self._pool.submit(_prepare, self._rows[index], self._task))
            except BrokenProcessPool:  # a worker died since the last entry
                self._replace()
        self._threads = self._threads or ThreadPoolExecutor(THREADS, "evqa-prepare")
        return self._threads.submit(self.here, index).result

    def here(self, index: int) -> tuple[Any, float]:
        """Prepare an entry in this process."""
        start = time.monotonic()
        return self._adapter.prepare(self._rows[index], self._task), time.monotonic() - start

    def start(self) -> Future:
        """Start the worker processes if they are not there; what it returns is done when one of them is at work."""
        if self._pool is None:
            # Spawned, never forked: this process owns threads and perhaps a GPU.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.width, context, _begin, (pickle.dumps(self._adapter),))
            self._started = self._pool.submit(_nothing)
            for _ in range(self.width - 1):  # each task starts one process
                self._pool.submit(_nothing)
        return self._started

    def _replace(self) -> None:
        """Forget broken workers; new ones are started with the next entry, unless these never came to work."""
        if self._started is not None and self._started.exception() is not None:
            warnings.warn("worker processes cannot be started; entries are prepared in threads", stacklevel=2)
            self._workers = 0
        self._pool = self._started = None

    def close(self) -> None:
        """Forget what has not begun, and let go of threads or processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._threads = None

    def __enter__(self) -> Preparers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Waiting:
    """An entry in a worker's hands; taken back if the worker dies."""

    def __init__(self, preparers: Preparers, index: int, future: Future):
        self._preparers, self._index, self._future = preparers, index, future

    def __call__(self) -> tuple[Any, float]:
        try:
            return self._future.result()
        except BrokenProcessPool:
            return self._preparers.here(self._index)


# --------------------------------------------------------------------------------- in the worker
_adapter: Adapter | None = None


def _begin(pickled: bytes) -> None:
    """Start of a worker."""
    global _adapter
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Where cores are few, the model's process goes first: it is what all others work for.
    with contextlib.suppress(AttributeError, OSError):
        os.nice(5)
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(1)  # workers beside a model: a pool of threads each would be too many
    _adapter = pickle.loads(pickled)


def _end_with_parent() -> None:
    # A killed parent cannot say goodbye, and the queue between us never closes: both sides hold both ends.
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _nothing() -> None:
    """A task that is done as soon as a worker has started."""


def _prepare(row: Any, task: str) -> tuple[Any, float]:
    start = time.monotonic()
    return _adapter.prepare(row, task), time.monotonic() - start
