"""The scores of one entry."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from evqa.errors import DataError, MaskError, PredictionError
from evqa.scoring import joint
from evqa.scoring.answers import answer_correct
from evqa.scoring.choice import choices, v1_choices, v1_entry
from evqa.scoring.grounding import FORMAT_ERRORS, segment_recall, temporal, v1_segments
from evqa.scoring.inputs import Reference
from evqa.scoring.protocols import EVQA_V1, STRICT, Protocol
from evqa.scoring.regions import ClipScore, clip_jf
from evqa.types import Prediction

__all__ = ["GEN_METRICS", "MCQ_METRICS", "EntryScore", "score_entry"]

THRESHOLDS = (0.3, 0.5)
RECALL_THRESHOLDS = (0.3, 0.5, 0.7)

#: The scores of the generation task that the original release reports, under either protocol.
GEN_METRICS = (
    "accuracy", "mIoU", "TIoU@0.3", "TIoU@0.5", "mIoP", "TIoP@0.3", "TIoP@0.5", "t_mean", "J", "F", "J&F",
)  # fmt: skip
#: The scores of the MCQ task, under either protocol.
MCQ_METRICS = (
    "qa_accuracy", "temporal_accuracy", "spatial_accuracy", "overall_accuracy",
    "qa_coverage", "temporal_coverage", "spatial_coverage",
)  # fmt: skip


@dataclasses.dataclass
class EntryScore:
    """The scores of one entry.

    Attributes:
        entry_id: The entry.
        cluster: Its video: entries of one video are not independent.
        status: The prediction's status, or ``"missing"``.
        values: Metric -> fraction. A metric that does not apply to the entry is not there: it is the reference that
            decides, except where ``evqa-v1`` lets the prediction decide.
        weights: Metric -> weight in the mean, where it is not 1.
        frames: Mask frames scored.
        problems: What was wrong with the prediction, in sentences.
        format_errors: ``evqa-v1`` only: what the original evaluator counts.
    """

    entry_id: str
    cluster: str
    status: str
    values: dict[str, float] = dataclasses.field(default_factory=dict)
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    frames: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)
    format_errors: dict[str, int] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value not in ({}, [])}


def score_entry(reference: Reference, prediction: Prediction | None, protocol: Protocol, task: str) -> EntryScore:
    """Score one entry.

    Args:
        reference: What is right.
        prediction: What the system said; ``None`` if it said nothing about this entry.
        protocol: ``strict`` or ``evqa-v1``.
        task: ``gen`` or ``mcq``.

    Raises:
        DataError: The reference's masks are malformed; in ``evqa-v1`` also whatever stops the original evaluator.
    """
    entry = EntryScore(reference.entry_id, reference.cluster, prediction.status if prediction else "missing")
    if prediction is not None and prediction.detail:
        entry.problems.append(prediction.detail)
    score_task = _SCORERS[task, protocol]
    score_task(entry, reference, prediction)
    return entry


# ---------------------------------------------------------------------------------------- gen
def _gen_strict(entry: EntryScore, reference: Reference, prediction: Prediction | None) -> None:
    # A failure record never scores, whatever else it carries.
    answered = prediction is not None and not prediction.failed
    said = prediction if answered else Prediction(reference.entry_id)
    values = entry.values
    iou = jf = None
    if reference.answer is not None:
        values["accuracy"] = float(answer_correct(said.answer, reference.answer, reference.candidates))
    if reference.segments:
        overlap = temporal(said.segments, reference.segments)
        iou = overlap["iou"]
        _temporal_values(values, iou, overlap["iop"], joint.reaches)
        precision, recall = overlap["precision"], overlap["recall"]
        values["t_precision"], values["t_recall"] = precision, recall
        values["t_f1"] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        for theta in RECALL_THRESHOLDS:
            values[f"R@{theta}"] = segment_recall(said.segments, reference.segments, theta - 1e-9)
    if reference.masks:
        clip = _clip(entry, reference, said, STRICT)
        if not answered:
            # No statement was made: frames where the reference is empty too are no agreement.
            values |= {"J": 0.0, "F": 0.0, "J&F": 0.0}
            clip = dataclasses.replace(clip, j=0.0, f=0.0, v_iou=0.0)
        jf = clip.jf
        if not math.isnan(clip.v_iou):
            values["vIoU"] = clip.v_iou
            for theta in THRESHOLDS:
                values[f"vIoU@{theta}"] = float(joint.reaches(clip.v_iou, theta))
    if "accuracy" in values:
        correct = values["accuracy"] == 1
        if iou is not None:
            values["Acc@GQA"] = float(correct and joint.reaches(values["mIoP"], joint.GQA_IOP))
        for theta in joint.EBA_THRESHOLDS:
            backed = joint.evidence_backed(correct, iou, jf, theta, theta)
            if backed is not None:
                values[f"EBA@{theta}"] = float(backed)


def _gen_v1(entry: EntryScore, reference: Reference, prediction: Prediction | None) -> None:
    answer, segments, present = None, None, False
    errors = dict.fromkeys(FORMAT_ERRORS, 0)
    answered = False
    if prediction is not None and prediction.original is not None:
        parsed = _v1_parsed(reference.entry_id, prediction.original["entry"])
        if parsed is not None:
            answered, answer, segments, present = (
                True,
                parsed.get("answer"),
                parsed.get("segments"),
                "segments" in parsed,
            )
    elif prediction is not None and not prediction.failed:
        answered, answer, segments, present = True, prediction.answer, prediction.segments, True
    if prediction is not None and not answered:
        errors["none_responses"] = 1
    usable: list[list[float]] = []
    if answered:
        usable, found = v1_segments(segments, present=present)
        errors = {name: errors[name] + found[name] for name in errors}
    entry.format_errors = {name: count for name, count in errors.items() if count}
    values = entry.values
    values["accuracy"] = float(answer_correct(answer, reference.answer, reference.candidates, EVQA_V1))
    overlap = temporal(usable, reference.segments or [], EVQA_V1)
    _temporal_values(values, overlap["iou"], overlap["iop"], lambda value, theta: value >= theta)
    if reference.masks is not None:
        _clip(entry, reference, prediction or Prediction(reference.entry_id), EVQA_V1)


def _v1_parsed(entry_id: str, value: Any) -> Mapping[str, Any] | None:
    parsed = value.get("parsed_response") if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping) or (parsed is not None and not isinstance(parsed, Mapping)):
        raise PredictionError(
            f"the original evaluator stops at this entry: an object is needed where it has {str(parsed)[:40]!r}; "
            "the strict protocol scores it as a failure",
            entry=entry_id,
        )
    return parsed


def _temporal_values(values: dict[str, float], iou: float, iop: float, reaches: Any) -> None:
    values["mIoU"] = iou
    values["mIoP"] = iop
    for theta in THRESHOLDS:
        values[f"TIoU@{theta}"] = float(reaches(iou, theta))
        values[f"TIoP@{theta}"] = float(reaches(iop, theta))
    values["t_mean"] = (iou + iop) / 2


def _clip(entry: EntryScore, reference: Reference, said: Prediction, protocol: Protocol) -> ClipScore:
    try:
        clip = clip_jf(said.masks, reference.masks or [], protocol)
    except MaskError as error:
        hint = "; the original evaluator drops all mask scores here" if protocol == EVQA_V1 else ""
        raise DataError(error.message + hint, entry=reference.entry_id) from None
    entry.frames = clip.frames
    entry.problems.extend(clip.problems)
    if not math.isnan(clip.j):
        entry.values |= {"J": clip.j, "F": clip.f, "J&F": clip.jf}
    return clip


# ---------------------------------------------------------------------------------------- mcq
def _mcq_strict(entry: EntryScore, reference: Reference, prediction: Prediction | None) -> None:
    said = prediction if prediction is not None and not prediction.failed else Prediction(reference.entry_id)
    counts = choices(said, reference)
    _choice_values(entry, counts)
    if all(asked for asked, _, _ in counts.values()):
        entry.values["all_three_accuracy"] = float(all(correct for _, _, correct in counts.values()))


def _mcq_v1(entry: EntryScore, reference: Reference, prediction: Prediction | None) -> None:
    if prediction is None:
        return  # the original evaluator sees the result file only: what is not in it does not exist
    value = prediction.original["entry"] if prediction.original is not None else None
    if not isinstance(value, Mapping):
        value = v1_entry(prediction, reference)
    _choice_values(entry, v1_choices(value))


def _choice_values(entry: EntryScore, counts: Mapping[str, tuple[int, int, int]]) -> None:
    for name, (asked, answered, correct) in counts.items():
        if asked:
            entry.values[f"{name}_accuracy"] = float(correct)
            entry.values[f"{name}_coverage"] = float(answered)
    total = sum(asked for asked, _, _ in counts.values())
    if total:
        # "overall" pools the questions of all three kinds, so an entry weighs as many questions as it asks.
        entry.values["overall_accuracy"] = sum(correct for _, _, correct in counts.values()) / total
        entry.weights["overall_accuracy"] = float(total)


_SCORERS = {
    ("gen", STRICT): _gen_strict,
    ("gen", EVQA_V1): _gen_v1,
    ("mcq", STRICT): _mcq_strict,
    ("mcq", EVQA_V1): _mcq_v1,
}
