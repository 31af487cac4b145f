"""How sure are we of a number, and is one system really better than another?

Entries of one video are not independent, so whole videos are resampled (cluster bootstrap; Davison and Hinkley,
"Bootstrap Methods and their Application", 1997, section 3.8). Two systems are compared on the same resamples
(paired bootstrap; Koehn, EMNLP 2004), and their accuracies also by McNemar's test (1947; Dietterich, 1998).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from evqa.errors import DataError
from evqa.scoring.entries import EntryScore

__all__ = ["bootstrap_intervals", "compare", "mcnemar"]

_BATCH = 256  # resamples drawn at a time: bounds memory at _BATCH x videos numbers


def _sums(entries: Sequence[EntryScore], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sum of weighted values and of weights per video, each float64 of shape ``[videos, metrics]``."""
    order: dict[str, int] = {}
    for entry in entries:
        order.setdefault(entry.cluster, len(order))
    values = np.zeros((len(order), len(names)))
    weights = np.zeros_like(values)
    for entry in entries:
        row = order[entry.cluster]
        for column, name in enumerate(names):
            if name in entry.values:
                weight = entry.weights.get(name, 1.0)
                values[row, column] += weight * entry.values[name]
                weights[row, column] += weight
    return values, weights


def _draws(videos: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each video is drawn, in batches of shape ``[resamples, videos]``."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, _BATCH):
        size = min(_BATCH, resamples - start)
        yield generator.multinomial(videos, np.full(videos, 1 / videos), size=size).astype(np.float64)


def _ratio(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(weights > 0, values / weights, np.nan)


def bootstrap_intervals(
    entries: Sequence[EntryScore],
    names: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the mean scores, clustered by video.

    With very few videos (under about 20) such intervals are too narrow; read them as a lower bound of the doubt.

    Args:
        entries: Scored entries.
        names: The metrics.
        resamples: Number of bootstrap resamples.
        seed: The same seed gives the same intervals.
        confidence: Coverage.

    Returns:
        ``{metric: (low, high)}`` in percent, for the metrics that apply to at least one entry.
    """
    values, weights = _sums(entries, names)
    means = np.concatenate([_ratio(draw @ values, draw @ weights) for draw in _draws(len(values), resamples, seed)])
    tail = 100 * (1 - confidence) / 2
    out = {}
    for column, name in enumerate(names):
        drawn = means[:, column]
        drawn = drawn[~np.isnan(drawn)]
        if drawn.size:
            low, high = np.percentile(drawn, [tail, 100 - tail])
            out[name] = (100 * float(low), 100 * float(high))
    return out


def compare(
    a: Any, b: Any, *, resamples: int = 10000, seed: int = 0, confidence: float = 0.95
) -> dict[str, dict[str, float]]:
    """Paired comparison of two systems on the same entries.

    Args:
        a, b: :class:`evqa.scoring.Scores` of the two, made with one protocol on one reference.
        resamples, seed, confidence: Of the clustered, paired bootstrap.

    Returns:
        For each metric: ``a`` and ``b`` in percent, ``difference`` = b - a in points, its interval ``low`` and
        ``high``, and the two-sided bootstrap ``p``. Accuracies also have ``mcnemar_p``, ``only_a`` and ``only_b``
        (entries that only one of them has right); McNemar's test takes entries as independent.

    Raises:
        DataError: Other protocol, task or entries.
    """
    if (a.protocol, a.task) != (b.protocol, b.task):
        raise DataError(f"cannot compare {a.protocol}/{a.task} with {b.protocol}/{b.task}")
    entries_a = {entry.entry_id: entry for entry in a.entries}
    entries_b = {entry.entry_id: entry for entry in b.entries}
    if set(entries_a) != set(entries_b):
        odd = sorted(set(entries_a) ^ set(entries_b))
        raise DataError(f"the two were scored on different references; {len(odd)} entries differ", entry=odd[0])
    names = [name for name in a.metrics() if name in b]
    ordered_b = [entries_b[entry_id] for entry_id in entries_a]
    values_a, weights_a = _sums(list(entries_a.values()), names)
    values_b, weights_b = _sums(ordered_b, names)
    differences = np.concatenate(
        [
            _ratio(draw @ values_b, draw @ weights_b) - _ratio(draw @ values_a, draw @ weights_a)
            for draw in _draws(len(values_a), resamples, seed)
        ]
    )
    tail = 100 * (1 - confidence) / 2
    out: dict[str, dict[str, float]] = {}
    for column, name in enumerate(names):
        drawn = differences[:, column]
        drawn = drawn[~np.isnan(drawn)]
        if not drawn.size:
            continue
        low, high = np.percentile(drawn, [tail, 100 - tail])
        # One is added to both counts: a p-value of exactly zero cannot come from finitely many resamples.
        extreme = min((drawn <= 0).sum(), (drawn >= 0).sum())
        out[name] = {
            "a": a[name],
            "b": b[name],
            "difference": b[name] - a[name],
            "low": 100 * float(low),
            "high": 100 * float(high),
            "p": min(1.0, 2 * (float(extreme) + 1) / (drawn.size + 1)),
        }
        if name.endswith("accuracy") and name != "overall_accuracy":
            right_a = [entry.values.get(name) for entry in entries_a.values()]
            right_b = [entry.values.get(name) for entry in ordered_b]
            pairs = [(x, y) for x, y in zip(right_a, right_b, strict=True) if x is not None and y is not None]
            only_a, only_b = sum(x > y for x, y in pairs), sum(y > x for x, y in pairs)
            out[name] |= {"only_a": only_a, "only_b": only_b, "mcnemar_p": mcnemar(only_a, only_b)}
    return out


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar test.

    Args:
        only_a, only_b: How many entries only the one, only the other system has right.

    Returns:
        The p-value: twice the lower tail of a fair binomial over the entries on which they disagree, at most 1.
    """
    n, k = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    # In logarithms: 2**-n underflows for a few thousand disagreements.
    terms = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(k + 1)]
    top = max(terms)
    return min(1.0, 2 * math.exp(top) * math.fsum(math.exp(term - top) for term in terms))
