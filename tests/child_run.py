"""A run in a process of its own, for tests that kill it: ``child_run.py FOLDER [ENTRIES] [SECONDS PER ENTRY]``.

Prints ``started`` each time entries are taken up, and ``done`` or ``interrupted`` at the end.
"""

from __future__ import annotations

import sys
import time

from make_data import benchmark

from evqa.adapters.base import Adapter
from evqa.engine import run
from evqa.types import Prediction


class Slow(Adapter):
    """Answers from the entry's name alone, so that any two runs must agree; writes long records."""

    name = "slow"
    batch_size = 3

    def __init__(self, seconds: float):
        self._seconds = seconds

    def predict(self, rows, task):
        print("started", flush=True)
        time.sleep(self._seconds * len(rows))
        return [
            Prediction(r["entry_id"], answer="ABCD"[int(r["entry_id"][1:]) % 4], raw_text=r["question"] * 400)
            for r in rows
        ]


if __name__ == "__main__":
    folder = sys.argv[1]
    entries = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    result = run(Slow(seconds), benchmark(entries), folder, progress=False)
    print("interrupted" if result.interrupted else "done", flush=True)
