"""Accuracy of multiple-choice answers, read the way a person would."""

import datasets
import evaluate

from evqa import evaluation
from evqa.scoring import answer_correct

_DESCRIPTION = """Accuracy of answers to multiple-choice questions. "strict" reads "B", "(b)", "B." and the option's
text alike; "evqa-v1" maps a bare capital letter and compares text exactly."""

_INPUTS = """
Args:
    predictions: list of answers: a letter or an option's text; None for no answer.
    references: list of {"answer": text of the right option, "candidates": [options]}.
    protocol: "strict" (default) or "evqa-v1".
Returns:
    accuracy in percent, and num_samples.
Examples:
    >>> import evqa, evaluate
    >>> metric = evaluate.load("evqa/qa_accuracy")
    >>> right = {"answer": "a cat", "candidates": ["a dog", "a cat"]}
    >>> metric.compute(predictions=["(b)", "a dog"], references=[right, right])
    {'accuracy': 50.0, 'num_samples': 2, 'protocol': 'strict'}
"""


class QaAccuracy(evaluation.SampleModule, evaluate.Metric):
    """See the description."""

    def _info(self):
        text = datasets.Value("string")
        return evaluation.module_info(
            _DESCRIPTION, "", _INPUTS, text, {"answer": text, "candidates": datasets.List(text)}
        )

    def _compute(self, predictions, references, protocol="strict"):
        evaluation.check_protocol(protocol)
        right = [
            answer_correct(said or None, reference["answer"], reference["candidates"], protocol)
            for said, reference in zip(predictions, references, strict=True)
        ]
        return {"accuracy": 100 * sum(right) / len(right), "num_samples": len(right), "protocol": protocol}
