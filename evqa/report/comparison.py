"""Many systems in one table: intervals, paired tests against the first, and the floor and ceiling of the benchmark.

A system that never gives masks has no mask scores: its cells are empty, not 0. Under ``strict`` an entry without masks
counts as 0, which is right for a system that gives them and misses some, and says nothing about one that gives none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evqa.errors import DataError
from evqa.report.table import _align, _finite
from evqa.scoring import Scores, compare, metric_names, score
from evqa.types import Prediction

__all__ = ["FORMATS", "MAIN_METRICS", "Comparison", "compare_systems"]

#: What a table shows unless other metrics are named.
MAIN_METRICS = {
    "gen": ("accuracy", "mIoU", "t_mean", "J&F", "Acc@GQA", "EBA@0.3", "EBA@0.5"),
    "mcq": ("qa_accuracy", "temporal_accuracy", "spatial_accuracy", "overall_accuracy", "all_three_accuracy"),
}

# With fewer, a bootstrap over videos is too sure of itself (see evqa.scoring.uncertainty).
FEW_VIDEOS = 20

# Which parts of a prediction a metric speaks of; a metric that is not here speaks of the answer alone.
_NEEDS = (
    (re.compile(r"J|F|J&F"), {"masks"}),
    (re.compile(r"vIoU.*"), {"masks"}),
    (re.compile(r"EBA@.*"), {"answer", "segments", "masks"}),
    (re.compile(r"Acc@GQA"), {"answer", "segments"}),
    (re.compile(r"mIo.*|TIo.*|t_.*|R@.*"), {"segments"}),
    (re.compile(r"temporal_accuracy"), {"temporal_choice"}),
    (re.compile(r"spatial_accuracy"), {"spatial_choice"}),
    (re.compile(r"(?:overall|all_three)_accuracy"), {"answer", "temporal_choice", "spatial_choice"}),
)
_PARTS = ("answer", "segments", "masks", "temporal_choice", "spatial_choice")


class _Watched(Mapping[str, Prediction]):
    """Predictions that remember which parts any of them had, so that a file is read once."""

    def __init__(self, predictions: Mapping[str, Prediction]):
        self._predictions = predictions
        self.parts = {"answer"}  # what every system is asked for: one that never answers has 0, not nothing

    def __len__(self) -> int:
        return len(self._predictions)

    def __iter__(self) -> Iterator[str]:
        return iter(self._predictions)

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self._predictions

    def __getitem__(self, entry_id: str) -> Prediction:
        prediction = self._predictions[entry_id]
        self.parts |= {part for part in _PARTS if getattr(prediction, part)}
        return prediction


class _Live(Mapping[str, Prediction]):
    """What an adapter that needs no model says, made as it is asked for."""

    def __init__(self, adapter: Any, rows: Any, task: str):
        from evqa.engine import View

        self._adapter, self._rows, self._task = adapter, View(adapter, rows), task
        ids = rows["entry_id"] if hasattr(rows, "column_names") else [row["entry_id"] for row in rows]
        self._index = {entry: i for i, entry in enumerate(ids)}

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __getitem__(self, entry_id: str) -> Prediction:
        return self._adapter.predict([self._rows[self._index[entry_id]]], self._task)[0]


class Comparison:
    """Scores of several systems and their differences from the first.

    Attributes:
        systems: ``{name: Scores}``, ``chance`` first and ``oracle`` last where they were asked for.
        given: ``{name: parts of a prediction that the system ever gives}``.
        baseline: The system that the others are compared with.
        tests: ``{name: {metric: numbers of evqa.scoring.compare, and "p_holm"}}`` for all but baseline and bounds.
        metrics: What the tables show.
    """

    def __init__(
        self,
        systems: Mapping[str, Scores],
        given: Mapping[str, set[str]],
        metrics: Sequence[str],
        *,
        bounds: Sequence[str] = (),
        resamples: int = 10000,
    ):
        self.systems, self.given, self.metrics = dict(systems), dict(given), list(metrics)
        self.bounds = tuple(bounds)
        compared = [name for name in systems if name not in bounds]
        self.baseline = compared[0]
        self.videos = len({entry.cluster for entry in systems[self.baseline].entries})
        self.tests = {name: self._tests(name, resamples) for name in compared[1:]}
        _holm([line for lines in self.tests.values() for line in lines.values()])

    def _tests(self, name: str, resamples: int) -> dict[str, dict[str, float]]:
        found = compare(self.systems[self.baseline], self.systems[name], resamples=resamples) if resamples else {}
        both = [m for m in self.metrics if self.has(self.baseline, m) and self.has(name, m)]
        return {metric: dict(found[metric]) for metric in both if metric in found}

    def has(self, name: str, metric: str) -> bool:
        """Whether a system gives what a metric speaks of."""
        needs = next((needs for pattern, needs in _NEEDS if pattern.fullmatch(metric)), {"answer"})
        return metric in self.systems[name] and needs <= self.given[name]

    # ------------------------------------------------------------------------------------- as text
    def render(self, form: str) -> str:
        """The table in one of :data:`FORMATS`."""
        return FORMATS[form](self)

    def _cell(self, name: str, metric: str, *, dash: str, interval: str) -> str:
        if not self.has(name, metric):
            return dash
        scores = self.systems[name]
        text = f"{scores[metric]:.1f}"
        if metric in scores.intervals:
            low, high = scores.intervals[metric]
            text += interval.format(low=low, high=high)
        return text + ("*" if self.significant(name, metric) else "")

    def significant(self, name: str, metric: str) -> bool:
        """Whether the difference from the baseline survives Holm's correction at 5 %; never so on very few videos."""
        return self.videos >= FEW_VIDEOS and self.tests.get(name, {}).get(metric, {}).get("p_holm", 1.0) < 0.05

    def _rows(self, *, dash: str, interval: str) -> list[list[str]]:
        return [
            [name, *(self._cell(name, metric, dash=dash, interval=interval) for metric in self.metrics)]
            for name in self.systems
        ]

    def notes(self) -> list[str]:
        """What a reader has to know about the table."""
        first = self.systems[self.baseline]
        out = [
            f"Percent, protocol {first.protocol} {first['protocol_version']}, task {first.task}, "
            f"{first['num_samples']} entries of {self.videos} videos; 95 % intervals from a bootstrap over videos."
        ]
        if self.videos < FEW_VIDEOS:
            out.append(f"Fewer than {FEW_VIDEOS} videos: intervals are too narrow, p too small, and no star is given.")
        elif self.tests:
            out.append(
                f"*: differs from {self.baseline} at 5 %, paired bootstrap, Holm's correction over all tests shown."
            )
        if any(not self.has(name, metric) for name in self.systems for metric in self.metrics):
            out.append("-: the system does not give what this metric speaks of.")
        for name, scores in self.systems.items():
            words = (("num_missing", "missing"), ("num_failed", "failed"), ("num_with_problems", "with problems"))
            parts = [f"{scores[key]} {word}" for key, word in words if scores[key]]
            if parts:
                out.append(f"{name}: {', '.join(parts)} of {scores['num_samples']} entries.")
        return out

    def text(self) -> str:
        """For a terminal: the table, then each system against the baseline."""
        blocks = [_align([["percent", *self.metrics], *self._rows(dash="-", interval=" [{low:.1f}, {high:.1f}]")])]
        for name, lines in self.tests.items():
            if not lines:
                continue
            rows = [[f"{name} - {self.baseline}", "difference", "", "p", "p (Holm)", "McNemar p"]]
            for metric, line in lines.items():
                mcnemar = f"{line['mcnemar_p']:.4f}" if "mcnemar_p" in line else ""
                interval = f"[{line['low']:+.1f}, {line['high']:+.1f}]"
                rows.append(
                    [
                        f"  {metric}",
                        f"{line['difference']:+.1f}",
                        interval,
                        f"{line['p']:.4f}",
                        f"{line['p_holm']:.4f}",
                        mcnemar,
                    ]
                )
            blocks.append(_align(rows))
        return "\n\n".join([*blocks, "\n".join(self.notes())]) + "\n"

    def markdown(self) -> str:
        """A table for a README or a pull request."""
        rows = self._rows(dash="-", interval=" [{low:.1f}, {high:.1f}]")
        cells = [["", *self.metrics], ["---", *["---:"] * len(self.metrics)], *rows]
        lines = [
            "| " + " | ".join(cell.replace("|", "\\|").replace("*", "\\*") for cell in row) + " |" for row in cells
        ]
        return "\n".join([*lines, "", *(f"{note.replace('*', chr(92) + '*')}  " for note in self.notes())]) + "\n"

    def latex(self) -> str:
        """A table for a paper; needs the package booktabs."""
        rows = self._rows(dash="--", interval=r" {{\scriptsize [{low:.1f}, {high:.1f}]}}")
        body = [" & ".join([_tex(row[0]), *(cell.replace("*", "$^*$") for cell in row[1:])]) + r" \\" for row in rows]
        if self.bounds:
            after = [i for i, name in enumerate(self.systems) if name == "chance"]
            before = [i for i, name in enumerate(self.systems) if name == "oracle"]
            for at in sorted({*(i + 1 for i in after), *before}, reverse=True):
                body.insert(at, r"\midrule")
        return "\n".join(
            [
                *(f"% {note}" for note in self.notes()),
                rf"\begin{{tabular}}{{l{'r' * len(self.metrics)}}}",
                r"\toprule",
                " & ".join(["", *map(_tex, self.metrics)]) + r" \\",
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
            ]
        ) + "\n"  # fmt: skip

    def json(self) -> str:
        """All numbers; a metric that a system does not give is ``null``."""
        value = {
            "baseline": self.baseline,
            "notes": self.notes(),
            "systems": {
                name: {
                    "metrics": {
                        m: scores[m] if self.has(name, m) else None for m in metric_names(scores.task, scores.protocol)
                    },
                    "intervals": {m: list(b) for m, b in scores.intervals.items() if self.has(name, m)},
                    **{key: number for key, number in scores.items() if key.startswith(("num_", "protocol", "task"))},
                    "against_baseline": self.tests.get(name),
                }
                for name, scores in self.systems.items()
            },
        }
        return json.dumps(_finite(value), indent=1, ensure_ascii=False) + "\n"


FORMATS = {
    "text": Comparison.text, "markdown": Comparison.markdown, "latex": Comparison.latex, "json": Comparison.json,
}  # fmt: skip


def compare_systems(
    systems: Mapping[str, Mapping[str, Prediction]],
    references: Any,
    protocol: str = "strict",
    *,
    task: str = "gen",
    metrics: Sequence[str] | None = None,
    bounds: bool = True,
    bootstrap: int = 1000,
) -> Comparison:
    """Score several systems on one reference.

    Args:
        systems: ``{name: {entry id: prediction}}``; the others are compared with the first.
        references: Rows of the benchmark.
        protocol: ``strict`` or ``evqa-v1``.
        task: ``gen`` or ``mcq``.
        metrics: What tables show; default: :data:`MAIN_METRICS`.
        bounds: Add the rows ``chance`` and ``oracle``, made from the references.
        bootstrap: Resamplings for intervals; ten times as many for paired tests; 0: neither.

    Raises:
        DataError: No system, a metric that the protocol does not have, or a name that is taken by a bound.
    """
    from evqa.adapters import load_adapter

    if not systems:
        raise DataError("there is nothing to compare")
    known = metric_names(task, protocol)
    if unknown := [metric for metric in metrics or () if metric not in known]:
        raise DataError(f"{protocol}/{task} has no metric {unknown[0]!r}; it has {', '.join(known)}")
    shown = metrics or [metric for metric in MAIN_METRICS[task] if metric in known]
    # A run of chance or oracle that is given takes the place of the row that would be made.
    made = [name for name in ("chance", "oracle") if bounds and name not in systems]
    sources = dict(systems)
    for name in made:
        sources[name] = _Live(load_adapter(name), references, task)
    order = [n for n in made if n == "chance"] + list(systems) + [n for n in made if n == "oracle"]
    scores: dict[str, Scores] = {}
    given: dict[str, set[str]] = {}
    for name in order:
        watched = _Watched(sources[name])
        scores[name] = score(watched, references, protocol, task=task, bootstrap=bootstrap)
        given[name] = watched.parts
    return Comparison(scores, given, shown, bounds=made, resamples=10 * bootstrap)


def _holm(lines: Sequence[dict[str, float]]) -> None:
    """Put ``p_holm`` beside each ``p``: Holm's step-down correction (1979) over all of them."""
    highest = 0.0
    for rank, line in enumerate(sorted(lines, key=lambda line: line["p"])):
        highest = max(highest, min(1.0, (len(lines) - rank) * line["p"]))
        line["p_holm"] = highest


def _md(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def _tex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, "\\" + c if c in "&%$#_{}" else c) for c in text)
