"""Preparing ahead, answering at the same time, bounded, and each fault charged to its own entry."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures.process import BrokenProcessPool

import pytest
from make_data import benchmark

from evqa.adapters import Adapter
from evqa.answering import answer
from evqa.engine import run
from evqa.errors import SetupError, TransientError, VideoError
from evqa.prefetch import Preparers
from evqa.types import Prediction


class Watched(Adapter):
    """Notes when it prepares and when it answers."""

    name = "watched"

    def __init__(self, *, concurrency=1, batch_size=1, broken=(), seconds=0.0):
        self.concurrency, self.batch_size = concurrency, batch_size
        self._broken, self._seconds = broken, seconds
        self.events = []
        self.held = self.most_held = self.answering = self.most_answering = 0
        self._lock = threading.Lock()

    def prepare(self, row, task):
        with self._lock:
            self.events.append(("prepare", row["entry_id"]))
            self.held += 1
            self.most_held = max(self.most_held, self.held)
        if row["entry_id"] in self._broken:
            with self._lock:
                self.held -= 1
            raise VideoError("broken", file="x.mp4")
        return dict(row, prepared=True)

    def predict(self, rows, task):
        with self._lock:
            self.answering += 1
            self.most_answering = max(self.most_answering, self.answering)
            self.events.append(("answer", tuple(row["entry_id"] for row in rows)))
        time.sleep(self._seconds)
        assert all(row["prepared"] for row in rows)
        with self._lock:
            self.answering -= 1
            self.held -= len(rows)
        return [Prediction(row["entry_id"], answer="A") for row in rows]


def entries(rows):
    return [(row["entry_id"], i) for i, row in enumerate(rows)]


def all_of(adapter, rows, **options):
    options = {"batch_size": adapter.batch_size, "retries": 0, **options}
    return list(answer(adapter, rows, entries(rows), "gen", **options))


def test_the_next_batch_is_prepared_while_one_is_answered():
    adapter = Watched(batch_size=2, seconds=0.05)
    got = all_of(adapter, benchmark(12))
    assert [p.entry_id for p in got] == [f"e{i:03d}" for i in range(12)]
    first_answer = adapter.events.index(("answer", ("e000", "e001")))
    second_answer = adapter.events.index(("answer", ("e002", "e003")))
    assert ("prepare", "e002") in adapter.events[:second_answer]
    assert ("prepare", "e006") not in adapter.events[: first_answer + 1]
    assert adapter.most_held <= 6  # the batch in work and two ahead at the most, however many entries there are
    assert adapter.most_answering == 1


def test_one_slow_clip_does_not_keep_the_others_from_being_prepared():
    """Also with single entries: two are ready while the second preparer is still at the slow one."""

    class Slow(Watched):
        def prepare(self, row, task):
            if row["entry_id"] == "e001":
                time.sleep(0.2)
            return super().prepare(row, task)

    adapter = Slow()
    all_of(adapter, benchmark(8))
    prepared = [who for kind, who in adapter.events if kind == "prepare"]
    assert prepared.index("e001") >= 3


def test_where_workers_cannot_start_threads_stand_in():
    class Unwelcome(Watched):
        workers = 2

        def __reduce__(self):
            return os._exit, (1,)

    with Preparers(Unwelcome(), benchmark(3), "gen") as preparers:
        assert preparers.submit(0)()[0]["prepared"]  # nobody waits for workers
        with pytest.raises(BrokenProcessPool):
            preparers.start().result(60)
        with pytest.warns(UserWarning, match="cannot be started"):
            again = preparers.submit(1)
        assert again()[0]["entry_id"] == "e001"
        assert preparers.submit(2)()[0]["entry_id"] == "e002"


def test_stopping_leaves_what_was_only_prepared():
    adapter = Watched(batch_size=2)
    stop = iter([False, False, True])
    rows = benchmark(20)
    got = list(answer(adapter, rows, entries(rows), "gen", batch_size=2, retries=0, stopping=lambda: next(stop)))
    assert [p.entry_id for p in got] == ["e000", "e001", "e002", "e003"]


def test_a_clip_that_cannot_be_prepared_is_left_out_of_its_batch():
    adapter = Watched(batch_size=4, broken={"e001", "e006"})
    got = {p.entry_id: p for p in all_of(adapter, benchmark(8))}
    assert [e for e, p in got.items() if p.failed] == ["e001", "e006"]
    assert got["e001"].status == "input_error"
    assert ("answer", ("e000", "e002", "e003")) in adapter.events  # the rest of the batch stays a batch


@pytest.mark.parametrize("many", [3, 8])
def test_at_the_same_time_and_bounded(many):
    adapter = Watched(concurrency=many, seconds=0.03, broken={"e004"})
    got = all_of(adapter, benchmark(30))
    assert sorted(p.entry_id for p in got) == [f"e{i:03d}" for i in range(30)]
    assert 2 <= adapter.most_answering <= many
    assert adapter.most_held <= many
    assert sum(p.failed for p in got) == 1


@pytest.mark.parametrize("many", [1, 4])
def test_stopping_finishes_what_is_in_work(many):
    adapter = Watched(concurrency=many, seconds=0.02)
    seen = []
    stop = [False]
    for prediction in answer(
        adapter, benchmark(30), entries(benchmark(30)), "gen", batch_size=1, retries=0, stopping=lambda: stop[0]
    ):
        seen.append(prediction.entry_id)
        stop[0] = len(seen) >= 5
    answered = [entry for kind, who in adapter.events if kind == "answer" for entry in who]
    assert sorted(seen) == sorted(answered)  # nothing that was answered is thrown away
    assert 5 <= len(seen) <= 5 + many + 1


@pytest.mark.parametrize("many", [1, 4])
def test_setup_errors_end_everything(many, tmp_path):
    class Wrong(Watched):
        def predict(self, rows, task):
            raise SetupError("wrong key")

    with pytest.raises(SetupError):
        run(Wrong(concurrency=many), benchmark(20), tmp_path, progress=False)


def test_threads_retry_on_their_own():
    class Flaky(Watched):
        tries = 0

        def predict(self, rows, task):
            with self._lock:
                self.tries += 1
                first = rows[0]["entry_id"] not in self.__dict__.setdefault("seen", set())
                self.seen.add(rows[0]["entry_id"])
            if first:
                raise TransientError("busy", retry_after=0.0)
            return super().predict(rows, task)

    adapter = Flaky(concurrency=5)
    got = all_of(adapter, benchmark(20), retries=1)
    assert not any(p.failed for p in got)
    assert adapter.tries == 40
