"""Scores of ST-Evidence MCQ: the answer, one of 4 time spans, one of 4 marked regions."""

import evaluate

from evqa import evaluation
from evqa.scoring import score

_DESCRIPTION = """Accuracy and coverage of the three choices of ST-Evidence MCQ, pooled accuracy, and the share of
entries with all three right. Denominators come from the references."""

_INPUTS = """
Args:
    predictions: list of {"entry_id", "answer", "temporal_choice", "spatial_choice"}: letters; in any order.
    references: rows of evqa/st_evidence, config "mcq" or "sample".
    protocol: "strict" (default) or "evqa-v1".
    intervals: also return 95 % bootstrap intervals, clustered by video.
Returns:
    metrics in percent, counts, and the protocol's name.
Examples:
    >>> import evqa, evaluate
    >>> rows = evqa.load_dataset("evqa/st_evidence", "sample", split="test")
    >>> metric = evaluate.load("evqa/st_evidence_mcq")
    >>> said = [{"entry_id": r["entry_id"], "answer": r["answer"], "temporal_choice": "A", "spatial_choice": "A"}
    ...         for r in rows]
    >>> metric.compute(predictions=said, references=rows)["qa_accuracy"]
    100.0
"""

_CITATION = """@inproceedings{stevidence2026, title = {ST-Evidence}, booktitle = {ECCV}, year = {2026},
  note = {arXiv:2607.11862}}"""


class StEvidenceMcq(evaluation.EntryModule, evaluate.Metric):
    """See the description."""

    def _info(self):
        return evaluation.module_info(
            _DESCRIPTION,
            _CITATION,
            _INPUTS,
            evaluation.prediction_features(mcq=True),
            evaluation.reference_features(mcq=True),
        )

    def _compute(self, predictions, references, protocol="strict", intervals=False, bootstrap=1000, seed=0):
        predictions, references = self.rows(predictions, references)
        scores = score(
            predictions, references, protocol, task="mcq", bootstrap=bootstrap if intervals else 0, seed=seed
        )
        return evaluation.result(scores, intervals=intervals)
