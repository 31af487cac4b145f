"""A benchmark answered by the model that is being trained, and scored with the real metrics.

Every rank answers its share of the entries, and all get the same numbers. The answering itself is
:mod:`evqa.training.benchmark`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from evqa.runlog import shard
from evqa.scoring import Scores, score
from evqa.training.benchmark import answer_rows
from evqa.types import Prediction

__all__ = ["BenchmarkEvaluation", "load_benchmark"]

#: What is shown in a training log; all metrics are in the final table.
HEADLINE = ("accuracy", "mIoU", "J&F", "EBA@0.5")


def load_benchmark(spec: str, split: str = "test", *, task: str = "gen") -> Any:
    """Benchmark rows: ``evqa/st_evidence:sample``, ``evqa/st_evidence`` (downloads), or a folder of the release.

    Raises:
        EvqaError: It cannot be read.
    """
    import evqa

    name, _, config = spec.partition(":")
    if Path(spec).is_dir():
        return evqa.load_dataset("st_evidence", task, data_dir=spec, split=split)
    return evqa.load_dataset(name.removeprefix("evqa/"), config or task, split=split)


class BenchmarkEvaluation:
    """The ``evaluation`` of :class:`~evqa.training.trainer.UniPixelTrainer`.

    Args:
        rows: Benchmark rows.
        limit: Only the first so many.
        batch_size, max_new_tokens, mask_frames: See :func:`~evqa.training.benchmark.answer_rows`.
        draw: Draw the masks of so many entries each time, into ``output_dir/masks``.
    """

    def __init__(
        self,
        rows: Any,
        *,
        limit: int | None = None,
        batch_size: int = 4,
        max_new_tokens: int = 128,
        mask_frames: str = "every:1",
        draw: int = 0,
    ):
        self.rows = rows if limit is None else rows.select(range(min(limit, len(rows))))
        self.options = {"batch_size": batch_size, "max_new_tokens": max_new_tokens, "mask_frames": mask_frames}
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
