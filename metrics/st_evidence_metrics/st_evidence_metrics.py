"""Scores of ST-Evidence generation: answer, time segments, masks, and all of them together."""

import evaluate

from evqa import evaluation
from evqa.scoring import score

_DESCRIPTION = """Scores answers that come with evidence: accuracy, temporal IoU and IoP, J&F of masks, and
evidence-backed accuracy, under the protocol "strict" or "evqa-v1" (the original evaluator's)."""

_INPUTS = """
Args:
    predictions: list of {"entry_id", "answer", "segments": [[start, end], ...] in seconds,
        "masks": [{"frame", "rle": {"size": [h, w], "counts"}}, ...]}, in any order; entries may be missing.
    references: rows of evqa/st_evidence.
    protocol: "strict" (default) or "evqa-v1".
    intervals: also return 95 % bootstrap intervals, clustered by video.
Returns:
    metrics in percent, counts, and the protocol's name.
Examples:
    >>> import evqa, evaluate
    >>> rows = evqa.load_dataset("evqa/st_evidence", "sample", split="test")
    >>> metric = evaluate.load("evqa/st_evidence_metrics")
    >>> said = [{"entry_id": r["entry_id"], "answer": r["answer"], "segments": r["segments"], "masks": r["masks"]}
    ...         for r in rows]
    >>> metric.compute(predictions=said, references=rows)["EBA@0.5"]
    100.0
"""

_CITATION = """@inproceedings{stevidence2026, title = {ST-Evidence}, booktitle = {ECCV}, year = {2026},
  note = {arXiv:2607.11862}}"""


class StEvidenceMetrics(evaluation.EntryModule, evaluate.Metric):
    """See the description."""

    def _info(self):
        return evaluation.module_info(
            _DESCRIPTION, _CITATION, _INPUTS, evaluation.prediction_features(), evaluation.reference_features()
        )

    def _compute(self, predictions, references, protocol="strict", intervals=False, bootstrap=1000, seed=0):
        predictions, references = self.rows(predictions, references)
        scores = score(
            predictions, references, protocol, task="gen", bootstrap=bootstrap if intervals else 0, seed=seed
        )
        return evaluation.result(scores, intervals=intervals)
