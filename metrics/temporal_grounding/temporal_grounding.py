"""How well predicted time segments cover the moments that prove an answer."""

import datasets
import evaluate

from evqa import evaluation
from evqa.scoring import segment_recall, temporal

_DESCRIPTION = """Temporal IoU, IoP (precision) and recall of sets of segments, and R@IoU. "strict" takes segments as
sets of moments; "evqa-v1" adds up all pairs as the original ST-Evidence evaluator does and can exceed 100."""

_INPUTS = """
Args:
    predictions: list of segment lists, [[start, end], ...] in seconds.
    references: list of segment lists.
    protocol: "strict" (default) or "evqa-v1".
Returns:
    mIoU, TIoU@0.3, TIoU@0.5, mIoP, TIoP@0.3, TIoP@0.5, t_mean, t_recall in percent; R@0.3, R@0.5, R@0.7 under
    "strict"; num_samples.
Examples:
    >>> import evqa, evaluate
    >>> metric = evaluate.load("evqa/temporal_grounding")
    >>> metric.compute(predictions=[[[0, 5]]], references=[[[0, 10]]])["mIoU"]
    50.0
"""


class TemporalGrounding(evaluation.SampleModule, evaluate.Metric):
    """See the description."""

    def _info(self):
        segments = datasets.List(datasets.List(datasets.Value("float64")))
        return evaluation.module_info(_DESCRIPTION, "", _INPUTS, segments, segments)

    def _compute(self, predictions, references, protocol="strict"):
        pairs = list(zip(predictions, references, strict=True))
        overlaps = [temporal(said, right, protocol) for said, right in pairs]
        slack = 1e-9 if protocol == "strict" else 0.0

        def mean(values):
            return 100 * sum(values) / len(pairs)

        out = {"mIoU": mean([o["iou"] for o in overlaps]), "mIoP": mean([o["iop"] for o in overlaps])}
        for theta in (0.3, 0.5):
            out[f"TIoU@{theta}"] = mean([o["iou"] >= theta - slack for o in overlaps])
            out[f"TIoP@{theta}"] = mean([o["iop"] >= theta - slack for o in overlaps])
        out["t_mean"] = (out["mIoU"] + out["mIoP"]) / 2
        out["t_recall"] = mean([o["recall"] for o in overlaps])
        if protocol == "strict":
            for theta in (0.3, 0.5, 0.7):
                out[f"R@{theta}"] = mean([segment_recall(said, right, theta - slack) for said, right in pairs])
        return {**out, "num_samples": len(pairs), "protocol": protocol}
