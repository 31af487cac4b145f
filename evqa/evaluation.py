"""What the ``evaluate`` modules in ``metrics/`` share: rows of any benchmark made to fit the declared features.

``evaluate`` stores what it is given in Arrow and takes neither ``None`` nor unknown columns. These helpers let users
pass dataset rows and predictions as they are, and give back ``None`` where it was.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import evaluate
from datasets import Features, List, Value

from evqa.errors import PredictionError
from evqa.predictions import read_prediction
from evqa.scoring.inputs import as_predictions
from evqa.scoring.protocols import check_protocol

__all__ = ["EntryModule", "SampleModule", "restore"]

logger = logging.getLogger(__name__)

_MISSING = "missing"


def conform(value: Any, feature: Any) -> Any:
    """A value in the shape of a feature: unknown keys left out, ``None`` replaced by an empty value of its type."""
    if isinstance(feature, Mapping):
        value = value if isinstance(value, Mapping) else {}
        return {key: conform(value.get(key), inner) for key, inner in feature.items()}
    if isinstance(feature, List):
        return [conform(item, feature.feature) for item in ([] if value is None else value)]
    if value is not None:
        return str(value) if feature.dtype == "string" else value
    return {"string": "", "binary": b"", "float64": math.nan}.get(feature.dtype, -1)


def restore(value: Any, feature: Any) -> Any:
    """The inverse of :func:`conform`: empty values of scalars become ``None`` again."""
    if isinstance(feature, Mapping):
        return {key: restore(value[key], inner) for key, inner in feature.items()}
    if isinstance(feature, List):
        return [restore(item, feature.feature) for item in value]
    if isinstance(feature, Value):
        if feature.dtype == "float64" and isinstance(value, float) and math.isnan(value):
            return None
        if (feature.dtype == "string" and value == "") or (feature.dtype == "int32" and value == -1):
            return None
    return value


class SampleModule(evaluate.Metric):
    """A metric over predictions and references in the same order."""

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """See ``evaluate.EvaluationModule.add_batch``; ``None`` and further columns are allowed."""
        columns = self.features
        super().add_batch(
            predictions=None if predictions is None else [conform(p, columns["predictions"]) for p in predictions],
            references=None if references is None else [conform(r, columns["references"]) for r in references],
            **kwargs,
        )

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """See ``evaluate.EvaluationModule.add``."""
        self.add_batch(predictions=[prediction], references=[reference], **kwargs)


class EntryModule(SampleModule):
    """A metric over benchmark entries: predictions are matched to references by ``entry_id``.

    The references are the denominator: an entry without a prediction counts as missing, a prediction without an entry
    is left out with a warning.
    """

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """See ``evaluate.EvaluationModule.add_batch``; the two need not have one order or length."""
        if predictions is None or references is None:
            raise PredictionError("both predictions and references are needed")
        columns = getattr(references, "column_names", None)
        if isinstance(columns, list) and hasattr(references, "select_columns"):
            references = references.select_columns([c for c in columns if c in self.features["references"]])
        references = list(references)
        given = as_predictions(predictions)
        known = [reference["entry_id"] for reference in references]
        if extra := sorted(set(given) - set(known)):
            logger.warning("%d predictions are for no reference, %r first: not scored", len(extra), extra[0])
        aligned = [
            dataclasses.asdict(read_prediction(entry, given[entry]))
            if entry in given
            else {"entry_id": entry, "status": _MISSING}
            for entry in known
        ]
        super().add_batch(predictions=aligned, references=references, **kwargs)

    def rows(self, predictions: Sequence[Any], references: Sequence[Any]) -> tuple[list[dict], list[dict]]:
        """What was added, as :func:`evqa.scoring.score` takes it."""
        said, right = self.features["predictions"], self.features["references"]
        restored = [restore(p, said) for p in predictions]
        truth = [restore(r, right) for r in references]
        for row in truth:
            if "masks" in row and not row["masks"]:
                row["masks"] = None  # Arrow rows of evaluate cannot tell "no masks" from "not annotated"
        return [p for p in restored if p["status"] != _MISSING], truth


def result(scores: Any, *, intervals: bool) -> dict[str, Any]:
    """Scores as the plain dictionary that ``compute`` returns."""
    out = dict(scores)
    if intervals:
        out["intervals"] = {name: list(bounds) for name, bounds in scores.intervals.items()}
    return out


def reference_features(*, mcq: bool = False) -> dict[str, Any]:
    """Columns of a reference row that scores use."""
    from evqa.types import features

    record = features("mcq" if mcq else "gen")
    names = ["entry_id", "video_id", "candidates", "answer"]
    names += ["temporal_answer", "spatial_answer"] if mcq else ["segments", "masks"]
    return {name: record[name] for name in names}


def prediction_features(*, mcq: bool = False) -> dict[str, Any]:
    """Columns of a prediction that scores use."""
    from evqa.types import features

    record = features("prediction")
    names = ["entry_id", "answer", "status"]
    names += ["temporal_choice", "spatial_choice"] if mcq else ["segments", "masks"]
    return {name: record[name] for name in names}


def module_info(description: str, citation: str, inputs: str, predictions: Any, references: Any) -> Any:
    """An ``evaluate.MetricInfo`` of these features."""
    return evaluate.MetricInfo(
        description=description,
        citation=citation,
        inputs_description=inputs,
        features=Features({"predictions": predictions, "references": references}),
        homepage="https://github.com/evqa/evqa",
    )


__all__ += ["check_protocol", "conform", "module_info", "prediction_features", "reference_features", "result"]
