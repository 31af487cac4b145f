"""From predictions and references to one table of numbers with error bars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from evqa.errors import DataError
from evqa.scoring.entries import GEN_METRICS, MCQ_METRICS, EntryScore, score_entry
from evqa.scoring.grounding import FORMAT_ERRORS
from evqa.scoring.inputs import Reference, as_predictions, iter_references, prediction_of
from evqa.scoring.protocols import EVQA_V1, PROTOCOLS, STRICT, Protocol, check_protocol
from evqa.scoring.uncertainty import bootstrap_intervals
from evqa.types import TASKS

__all__ = ["Scores", "breakdown", "metric_groups", "metric_names", "score", "summarize"]

_GEN_GROUPS = {
    "as in the release": GEN_METRICS,
    "answer with its proof": ("Acc@GQA", "EBA@0.3", "EBA@0.5", "EBA@0.7"),
    "time": ("t_precision", "t_recall", "t_f1", "R@0.3", "R@0.5", "R@0.7"),
    "time and place": ("vIoU", "vIoU@0.3", "vIoU@0.5"),
}
_MCQ_GROUPS = {"as in the release": MCQ_METRICS, "answer with its proof": ("all_three_accuracy",)}


def metric_groups(task: str, protocol: Protocol = STRICT) -> dict[str, tuple[str, ...]]:
    """The metrics of a task under a protocol, by what they say, in the order in which they are printed."""
    check_protocol(protocol)
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
    groups = _GEN_GROUPS if task == "gen" else _MCQ_GROUPS
    if protocol == EVQA_V1:  # the original evaluator knows no others
        return {"as in the release": groups["as in the release"]}
    return dict(groups)


def metric_names(task: str, protocol: Protocol = STRICT) -> tuple[str, ...]:
    """All metrics of a task under a protocol."""
    return tuple(name for names in metric_groups(task, protocol).values() for name in names)


class Scores(dict):
    """A dictionary of scores: metrics in percent, counts, and the protocol that made them.

    Attributes:
        entries: One :class:`EntryScore` per entry of the reference.
        intervals: ``{metric: (low, high)}`` in percent, from a bootstrap over videos; empty if none was asked for.
        format_errors: ``evqa-v1`` only: what the original evaluator counts while reading.
        extra: Ids that were predicted but are not in the reference; they are not scored.
    """

    def __init__(
        self,
        numbers: Mapping[str, Any],
        *,
        entries: Sequence[EntryScore] = (),
        intervals: Mapping[str, tuple[float, float]] | None = None,
        extra: Sequence[str] = (),
    ):
        super().__init__(numbers)
        self.entries = list(entries)
        self._by_id = {entry.entry_id: entry for entry in self.entries}
        self.intervals = dict(intervals or {})
        self.extra = list(extra)
        self.format_errors = {
            name: sum(entry.format_errors.get(name, 0) for entry in self.entries) for name in FORMAT_ERRORS
        }

    @property
    def protocol(self) -> str:
        """The protocol's name."""
        return self["protocol"]

    @property
    def task(self) -> str:
        """``gen`` or ``mcq``."""
        return self["task"]

    @property
    def complete(self) -> bool:
        """Whether every entry of the reference was answered and every answer could be scored as it was given."""
        return not (self["num_missing"] or self["num_failed"] or self["num_with_problems"])

    def entry(self, entry_id: str) -> EntryScore:
        """The scores of one entry."""
        return self._by_id[entry_id]

    def metrics(self) -> dict[str, float]:
        """The metrics alone, without counts and names."""
        return {name: self[name] for name in metric_names(self.task, self.protocol) if name in self}


def score(
    predictions: Any,
    references: Any,
    protocol: Protocol = STRICT,
    *,
    task: str | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    on_entry: Callable[[EntryScore], None] | None = None,
) -> Scores:
    """Score predictions against a reference.

    Both are read one entry at a time, so memory does not grow with the masks.

    Args:
        predictions: ``{entry id: prediction}`` or a list of predictions: :class:`evqa.types.Prediction`, dictionaries
            with its fields, or entries of the original release's result files.
        references: Rows of the benchmark (a dataset, a list of dictionaries, or CSV rows).
        protocol: ``strict`` or ``evqa-v1``; see :mod:`evqa.scoring.protocols`.
        task: ``gen`` or ``mcq``; by default ``mcq`` if a prediction chooses among evidence options, else ``gen``.
        bootstrap: Resamplings for the 95 % intervals; 0 for none.
        seed: Of the bootstrap.
        on_entry: Called after each entry, for progress.

    Returns:
        :class:`Scores`: metrics in percent (:func:`metric_names`; a metric that applies to no entry is left out), and
        ``num_samples, num_missing, num_failed, num_with_problems, num_with_segments, num_with_masks, num_frames,
        num_extra``.

    Raises:
        DataError: The reference is empty, has an id twice or cannot be read.
        PredictionError: A prediction has no known form.
    """
    check_protocol(protocol)
    predictions = as_predictions(predictions)
    task = task or _guess_task(predictions)
    names = metric_names(task, protocol)
    entries: list[EntryScore] = []
    for reference in iter_references(references):
        entry = score_entry(reference, prediction_of(predictions, reference.entry_id), protocol, task)
        entries.append(entry)
        if on_entry is not None:
            on_entry(entry)
    if not entries:
        raise DataError("the reference holds no entries: there is nothing to score")
    known = {entry.entry_id for entry in entries}
    extra = [entry_id for entry_id in predictions if entry_id not in known]
    if (task, protocol) == ("mcq", EVQA_V1):
        # The original evaluator reads the truth from the result file: there, an entry of no benchmark counts too.
        for entry_id in extra:
            nowhere = Reference(entry_id, entry_id, None, [], None, None, None, None)
            entries.append(score_entry(nowhere, prediction_of(predictions, entry_id), protocol, task))
    intervals = bootstrap_intervals(entries, names, resamples=bootstrap, seed=seed) if bootstrap else {}
    numbers = summarize(entries, task, protocol)
    numbers["num_extra"] = len(extra)
    return Scores(numbers, entries=entries, intervals=intervals, extra=extra)


def _guess_task(predictions: Mapping[str, Any]) -> str:
    for entry_id in predictions:
        prediction = prediction_of(predictions, entry_id)
        if prediction is not None and not prediction.failed:
            original = prediction.original["entry"] if prediction.original else {}
            chosen = prediction.temporal_choice or prediction.spatial_choice
            return "mcq" if chosen or (isinstance(original, Mapping) and "gt_answer" in original) else "gen"
    return "gen"


def summarize(entries: Sequence[EntryScore], task: str, protocol: Protocol) -> dict[str, Any]:
    """Means over entries in percent, and counts; ``entries`` may be any subset."""
    numbers: dict[str, Any] = {"protocol": protocol, "protocol_version": PROTOCOLS[protocol], "task": task}
    for name in metric_names(task, protocol):
        values = np.array([e.values[name] for e in entries if name in e.values], dtype=np.float64)
        weights = np.array([e.weights.get(name, 1.0) for e in entries if name in e.values], dtype=np.float64)
        if values.size:
            # numpy's plain mean where weights are 1: its order of additions decides the last bit.
            mean = np.mean(values) if (weights == 1).all() else (values * weights).sum() / weights.sum()
            numbers[name] = float(mean) * 100
    statuses = [entry.status for entry in entries]
    numbers["num_samples"] = len(entries)
    numbers["num_missing"] = statuses.count("missing")
    numbers["num_failed"] = sum(status not in ("ok", "missing") for status in statuses)
    numbers["num_with_problems"] = sum(bool(e.problems) and e.status == "ok" for e in entries)
    if task == "gen":
        numbers["num_with_segments"] = sum("mIoU" in entry.values for entry in entries)
        numbers["num_with_masks"] = sum("J" in entry.values for entry in entries)
        numbers["num_frames"] = sum(entry.frames for entry in entries)
    return numbers


def breakdown(scores: Scores, groups: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same scores for each group of entries.

    Args:
        scores: Of the whole set.
        groups: Entry id -> group, for example a column of the benchmark.

    Returns:
        ``{group: numbers}``, the groups in order of their names; entries without a group go to ``"(none)"``.
    """
    groups = dict(groups)
    members: dict[str, list[EntryScore]] = {}
    for entry in scores.entries:
        group = groups.get(entry.entry_id)
        members.setdefault("(none)" if group is None else str(group), []).append(entry)
    return {group: summarize(members[group], scores.task, scores.protocol) for group in sorted(members)}
