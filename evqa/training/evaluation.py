"""A benchmark answered by the model that is being trained, and scored with the real metrics.

What is asked is the first wording of the training templates; frames are those of the processor's policies. Every rank
answers its share of the entries, and all get the same numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from evqa.errors import EvqaError, VideoError
from evqa.parsing import parse_generation
from evqa.runlog import shard
from evqa.scoring import Scores, score
from evqa.training.conversations import evidence_question
from evqa.training.templates import DEFAULT, Templates
from evqa.types import Prediction

__all__ = ["BenchmarkEvaluation", "answer_rows", "load_benchmark"]

#: What is shown in a training log; all metrics are in the final table.
HEADLINE = ("accuracy", "mIoU", "J&F", "EBA@0.5")


def load_benchmark(spec: str, split: str = "test") -> Any:
    """Benchmark rows: ``evqa/st_evidence:sample``, ``evqa/st_evidence`` (downloads), or a folder in the release's layout.

    Raises:
        EvqaError: It cannot be read.
    """
    import evqa

    name, _, config = spec.partition(":")
    if Path(spec).is_dir():
        return evqa.load_dataset("st_evidence", "gen", data_dir=spec, split=split)
    return evqa.load_dataset(name.removeprefix("evqa/"), config or "gen", split=split)


@torch.no_grad()
def answer_rows(
    model: Any,
    processor: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    batch_size: int = 4,
    max_new_tokens: int = 128,
    templates: Templates = DEFAULT,
) -> list[Prediction]:
    """Answer benchmark rows, greedily.

    Args:
        model: UniPixel, in ``eval`` mode.
        processor: Its processor.
        rows: Rows of the benchmark (``gen``); what is right is not looked at.
        batch_size: Entries per call of ``generate``.
        max_new_tokens: Longest reply.
        templates: Whose first ``evidence`` wording is asked.

    Returns:
        One prediction per row. An entry whose clip cannot be read is a failure record.
    """
    request = templates.render("evidence", 0.0, clip="video")
    out: dict[int, Prediction] = {}
    encoded: list[tuple[int, Mapping[str, Any], dict[str, Any]]] = []

    def flush() -> None:
        if encoded:
            inputs = processor.pad([sample for _, _, sample in encoded], "left")
            output = model.generate(
                **inputs.to(model.device), max_new_tokens=max_new_tokens, do_sample=False, mask_format="rle"
            )
            for (place, row, _), said in zip(encoded, processor.post_process(output, inputs), strict=True):
                out[place] = _prediction(row, said)
            encoded.clear()

    for place, row in enumerate(rows):
        text = evidence_question(row["question"], row["candidates"], request)
        content = [{"type": "video", "video": row["video"]}, {"type": "text", "text": text}]
        try:
            sample = processor.encode([{"role": "user", "content": content}], add_generation_prompt=True)
        except EvqaError as error:
            status = "input_error" if isinstance(error, VideoError) else "adapter_error"
            out[place] = Prediction.failure(row["entry_id"], status, str(error))
            continue
        encoded.append((place, row, sample))
        if len(encoded) == batch_size:
            flush()
    flush()
    return [out[place] for place in range(len(out))]


def _prediction(row: Mapping[str, Any], said: Any) -> Prediction:
    text = said.text
    if not said.complete:
        return Prediction.failure(row["entry_id"], "truncated", "the reply was cut at max_new_tokens", raw_text=text)
    # Masks are read from the model's tokens; the words around them are read from the text without them.
    parsed = parse_generation(text.replace("<|seg|>", ""), row["candidates"], duration=row.get("duration"))
    prediction = parsed.as_prediction(row["entry_id"], text)
    return prediction if prediction.failed else dataclasses.replace(prediction, masks=said.masks)


class BenchmarkEvaluation:
    """The ``evaluation`` of :class:`~evqa.training.trainer.UniPixelTrainer`.

    Args:
        rows: Benchmark rows.
        limit: Only the first so many.
        batch_size, max_new_tokens, templates: See :func:`answer_rows`.
        draw: Draw the masks of so many entries each time, into ``output_dir/masks``.
    """

    def __init__(
        self,
        rows: Any,
        *,
        limit: int | None = None,
        batch_size: int = 4,
        max_new_tokens: int = 128,
        templates: Templates = DEFAULT,
        draw: int = 0,
    ):
        self.rows = rows if limit is None else rows.select(range(min(limit, len(rows))))
        self.options = {"batch_size": batch_size, "max_new_tokens": max_new_tokens, "templates": templates}
        self.draw = draw

    def scores(
        self, model: Any, processor: Any, *, rank: int = 0, world_size: int = 1, bootstrap: int = 1000
    ) -> tuple[list[Prediction], Scores]:
        """Answer this rank's share, gather all, score.

        Returns:
            All predictions, in the order of the rows, and their scores under the ``strict`` protocol.
        """
        mine = list(shard(range(len(self.rows)), rank, world_size))
        said = list(zip(mine, answer_rows(model, processor, [self.rows[i] for i in mine], **self.options), strict=True))
        if world_size > 1:
            gathered: list[Any] = [None] * world_size
            torch.distributed.all_gather_object(gathered, said)
            said = [pair for part in gathered for pair in part]
        predictions = [prediction for _, prediction in sorted(said, key=lambda pair: pair[0])]
        return predictions, score(predictions, self.rows, task="gen", bootstrap=bootstrap)

    def __call__(self, trainer: Any) -> dict[str, float]:
        """Headline metrics in percent, and the part of the entries that was not answered."""
        accelerator = trainer.accelerator
        with trainer.model_for_generation() as model:
            predictions, scores = self.scores(
                model, trainer.processing_class, rank=accelerator.process_index, world_size=accelerator.num_processes,
                bootstrap=0,
            )  # fmt: skip
        if self.draw and accelerator.is_main_process:
            from evqa.training.drawing import draw_entries

            folder = Path(trainer.args.output_dir) / "masks" / f"step-{trainer.state.global_step}"
            draw_entries(self.rows, predictions, self.draw, folder)
        found = {name: scores[name] for name in HEADLINE if name in scores}
        return {**found, "failed": 100 * scores["num_failed"] / scores["num_samples"]}
