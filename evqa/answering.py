"""How entries become predictions: prepared ahead, answered in batches or at once, retried, or failed by name."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import random
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from evqa.adapters.base import Adapter
from evqa.errors import AdapterError, DataError, EvqaError, SetupError, TransientError, VideoError
from evqa.prefetch import Preparers
from evqa.types import Prediction

__all__ = ["answer"]

_LONGEST_PAUSE = 60.0


def answer(
    adapter: Adapter,
    rows: Any,
    entries: Sequence[tuple[str, int]],
    task: str,
    *,
    batch_size: int,
    retries: int,
    sleep: Callable[[float], None] = time.sleep,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Prediction]:
    """Answer entries; memory is bounded, however many there are.

    One entry's fault costs that entry: a clip that cannot be prepared is left out of its batch, and a batch that fails
    as a whole is answered entry by entry.

    Args:
        adapter: The model. If its ``concurrency`` is above 1, so many batches are prepared and answered at the same
            time; otherwise the next batch, and an entry more for each preparer, is prepared while one is answered.
        rows: ``rows[index]`` is the row of an entry.
        entries: Id and index of each entry.
        task: ``gen`` or ``mcq``.
        batch_size: Entries per call of the adapter.
        retries: How often a transient failure is tried again.
        sleep: How to wait between tries.
        stopping: Asked before each batch is begun; once true, what is being answered is still yielded, and no more.

    Yields:
        One prediction per entry, as they are finished.

    Raises:
        SetupError: The adapter can answer nothing.
    """
    job = _Job(adapter, rows, task, retries, sleep)
    if adapter.concurrency > 1:
        starts = itertools.takewhile(lambda _: not stopping(), range(0, len(entries), batch_size))
        yield from _at_once(job, (entries[i : i + batch_size] for i in starts), adapter.concurrency)
    else:
        yield from _ahead(job, entries, batch_size, stopping)


def _at_once(job: _Job, batches: Iterator[Sequence[tuple[str, int]]], many: int) -> Iterator[Prediction]:
    with ThreadPoolExecutor(many, "evqa-answer") as pool:
        running: set[Future] = set()
        try:
            while True:
                while len(running) < many and (batch := next(batches, None)) is not None:
                    running.add(pool.submit(job.whole, batch))
                if not running:
                    return
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield from future.result()
        finally:  # also when the caller stops early: what has not begun is not begun
            for future in running:
                future.cancel()


def _ahead(
    job: _Job, entries: Sequence[tuple[str, int]], batch_size: int, stopping: Callable[[], bool]
) -> Iterator[Prediction]:
    """Answer batch after batch while the next entries are prepared.

    Ready or in work are a batch more than is being answered, and one entry for each preparer: so a long clip keeps
    neither the other preparers nor the model waiting.
    """
    with Preparers(job.adapter, job.rows, job.task) as preparers:
        left = iter(entries)
        waiting: collections.deque[tuple[str, Callable[[], tuple[Any, float]]]] = collections.deque()

        def fill() -> None:
            for entry, index in itertools.islice(left, batch_size + preparers.width - len(waiting)):
                waiting.append((entry, preparers.submit(index)))

        fill()
        while waiting and not stopping():
            batch = [waiting.popleft() for _ in range(min(batch_size, len(waiting)))]
            fill()
            yield from job.prepared(batch)


@dataclasses.dataclass(frozen=True)
class _Job:
    """What answering any batch of a run needs to know."""

    adapter: Adapter
    rows: Any
    task: str
    retries: int
    sleep: Callable[[float], None]

    def prepare(self, index: int) -> tuple[Any, float]:
        """The prepared entry, and how long that took."""
        start = time.monotonic()
        return self.adapter.prepare(self.rows[index], self.task), time.monotonic() - start

    def whole(self, batch: Sequence[tuple[str, int]]) -> list[Prediction]:
        """Prepare and answer a batch in this thread."""
        return self.prepared([(entry, functools.partial(self.prepare, index)) for entry, index in batch])

    def prepared(self, batch: Sequence[tuple[str, Callable[[], tuple[Any, float]]]]) -> list[Prediction]:
        """Answer a batch, given functions that return each prepared entry; in the order of the batch."""
        found: dict[str, Prediction] = {}
        ready: list[tuple[str, Any, float]] = []
        for entry, prepare in batch:
            try:
                ready.append((entry, *prepare()))
            except Exception as error:
                found[entry] = _failure(entry, error)
        for prediction in self._predict(ready, self.retries) if ready else []:
            found[prediction.entry_id] = prediction
        return [found[entry] for entry, _ in batch]

    def _predict(self, ready: Sequence[tuple[str, Any, float]], retries: int) -> list[Prediction]:
        wanted = [entry for entry, _, _ in ready]
        start = time.monotonic()
        try:
            predictions = self._checked(self.adapter.predict([row for _, row, _ in ready], self.task), wanted)
        except Exception as error:
            if len(ready) > 1 and not isinstance(error, SetupError):
                return [prediction for one in ready for prediction in self._predict([one], retries)]
            if isinstance(error, TransientError) and retries > 0:
                self.sleep(_pause(error, self.retries - retries))
                return self._predict(ready, retries - 1)
            predictions = [dataclasses.replace(_failure(wanted[0], error), usage=self.adapter.spent(ready[0][1]))]
        seconds = (time.monotonic() - start) / len(ready)
        return [
            p if p.seconds is not None else dataclasses.replace(p, seconds=preparing + seconds)
            for p, (_, _, preparing) in zip(predictions, ready, strict=True)
        ]

    def _checked(self, predictions: Any, wanted: Sequence[str]) -> list[Prediction]:
        got = [getattr(prediction, "entry_id", None) for prediction in predictions]
        if got != list(wanted):
            # Outputs attributed to the wrong entries would be scored without a sound.
            raise AdapterError(f"adapter {self.adapter.name!r} answered {got} where {list(wanted)} were asked")
        return list(predictions)


def _pause(error: TransientError, tries: int) -> float:
    """Seconds to wait: what the server asks for, else 1, 2, 4, ... with jitter: threads must not march in step."""
    if error.retry_after is not None:
        return error.retry_after
    return min(_LONGEST_PAUSE, 2.0**tries) * random.uniform(0.5, 1.5)


def _failure(entry: str, error: Exception) -> Prediction:
    if isinstance(error, SetupError):
        raise error
    if isinstance(error, TransientError):
        return Prediction.failure(entry, "transient_error", str(error))
    if isinstance(error, (VideoError, DataError)):
        return Prediction.failure(entry, "input_error", str(error))
    if isinstance(error, EvqaError):
        return Prediction.failure(entry, "adapter_error", str(error))
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
    return Prediction.failure(entry, "adapter_error", text)
