"""Scores: answers, time segments, masks, choices, and what they say together.

Pure numpy; nothing here knows of Hugging Face. The ``evaluate`` modules in ``metrics/`` are thin shells over it.
"""

from evqa.scoring.aggregate import Scores, breakdown, metric_groups, metric_names, score
from evqa.scoring.answers import answer_correct, match_candidate
from evqa.scoring.entries import EntryScore
from evqa.scoring.grounding import segment_recall, temporal
from evqa.scoring.joint import evidence_grid
from evqa.scoring.protocols import PROTOCOLS
from evqa.scoring.regions import ClipScore, clip_jf, jf
from evqa.scoring.uncertainty import bootstrap_intervals, compare, mcnemar

__all__ = [
    "PROTOCOLS",
    "ClipScore",
    "EntryScore",
    "Scores",
    "answer_correct",
    "bootstrap_intervals",
    "breakdown",
    "clip_jf",
    "compare",
    "evidence_grid",
    "jf",
    "match_candidate",
    "mcnemar",
    "metric_groups",
    "metric_names",
    "score",
    "segment_recall",
    "temporal",
]
