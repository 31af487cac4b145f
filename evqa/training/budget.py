"""Samples that could not be made: records with a reason, counted, named, and too many of them stop the run.

Nothing takes the place of a failed sample: its batch is smaller by one (:class:`Failure` travels in its place), and the
budget says whether that may go on.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evqa.errors import DataError

__all__ = ["ErrorBudget", "Failure"]


@dataclasses.dataclass(frozen=True)
class Failure:
    """A sample that could not be made.

    Attributes:
        entry_id, corpus: Which one.
        reason: The error in words, with the file where it is known.
        data_type: What the sample would have been of.
    """

    entry_id: str
    corpus: str
    reason: str
    data_type: str


class ErrorBudget:
    """Counts failures against what was tried.

    Args:
        max_fraction: Of the samples tried; looked at from ``min_tried`` on.
        max_count: In all; ``None``: no limit of its own.
        min_tried: So many samples are tried before a fraction means anything.
        log: A JSON-lines file to which every failure is added, ``None`` for none.

    Raises:
        ValueError: A limit that is none.
    """

    def __init__(
        self,
        max_fraction: float = 0.01,
        max_count: int | None = None,
        *,
        min_tried: int = 200,
        log: str | os.PathLike[str] | None = None,
    ):
        if not 0 <= max_fraction <= 1 or (max_count is not None and max_count < 0) or min_tried < 1:
            raise ValueError(
                f"a budget is a fraction from 0 to 1, a count of at least 0 or none, and min_tried at least 1; got "
                f"{max_fraction!r}, {max_count!r}, {min_tried!r}"
            )
        self.max_fraction, self.max_count, self.min_tried = max_fraction, max_count, min_tried
        self.log = None if log is None else Path(log)
        self.tried = 0
        self.failed: collections.Counter[str] = collections.Counter()
        self.last: collections.deque[Failure] = collections.deque(maxlen=10)

    @property
    def count(self) -> int:
        """Failures so far."""
        return sum(self.failed.values())

    def add(self, tried: int, failures: Iterable[Failure] = ()) -> None:
        """Count a batch.

        Raises:
            DataError: The budget is spent; says how much failed, of which corpora, and names the last ones.
        """
        failures = list(failures)
        self.tried += tried
        for failure in failures:
            self.failed[failure.corpus] += 1
            self.last.append(failure)
        if failures and self.log is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with open(self.log, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(dataclasses.asdict(failure)) + "\n" for failure in failures)
        if not failures:
            return
        too_many = self.max_count is not None and self.count > self.max_count
        too_often = self.tried >= self.min_tried and self.count > self.max_fraction * self.tried
        if too_many or too_often:
            by_corpus = ", ".join(f"{name} {n}" for name, n in self.failed.most_common())
            names = "; ".join(f"{f.entry_id}: {f.reason}" for f in self.last)
            limit = f"{self.max_count} samples" if too_many else f"{self.max_fraction:.2%} of the samples"
            raise DataError(
                f"{self.count} of {self.tried} samples failed ({by_corpus}), more than the limit of {limit}. "
                f"The last: {names}"
            )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"tried": self.tried, "failed": dict(self.failed)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.tried, self.failed = int(state["tried"]), collections.Counter(state["failed"])
