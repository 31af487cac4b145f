"""What follows the last training step: scores, the model, its card, the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evqa.report.table import score_table, to_json
from evqa.scoring import Scores
from evqa.training.card import write_card
from evqa.training.evaluation import BenchmarkEvaluation
from evqa.training.models import push_folder

__all__ = ["finish"]


def finish(trainer: Any, *, benchmark: Any | None, name: str, base: str, max_new_tokens: int = 128) -> Scores | None:
    """Answer and score a benchmark, save the model with its card, and push it if ``push_to_hub`` is set.

    Args:
        trainer: A :class:`~evqa.training.trainer.UniPixelTrainer` that has trained.
        benchmark: Rows, or ``None``: nothing is measured.
        name: Of the benchmark, for the card.
        base: What the run started from.
        max_new_tokens: Longest reply.

    Returns:
        The scores.
    """
    args, accelerator = trainer.args, trainer.accelerator
    folder, scores = Path(args.output_dir), None
    if benchmark is not None:
        evaluation = BenchmarkEvaluation(
            benchmark, batch_size=args.per_device_eval_batch_size, max_new_tokens=max_new_tokens
        )
        with trainer.model_for_generation() as model:
            predictions, scores = evaluation.scores(
                model, trainer.processing_class, rank=accelerator.process_index, world_size=accelerator.num_processes
            )
        if accelerator.is_main_process:
            with open(folder / "predictions.jsonl", "w", encoding="utf-8") as file:
                file.writelines(json.dumps(prediction.to_json()) + "\n" for prediction in predictions)
            (folder / "scores.json").write_text(json.dumps(to_json(scores), indent=1) + "\n", "utf-8")
            print(score_table({name: scores}))
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    whole = trainer.save_trained(base)
    if accelerator.is_main_process:
        write_card(
            folder, name=args.hub_model_id or folder.resolve().name, base=base, mixture=trainer.mixture.describe(),
            settings=args.to_dict(), scores={} if scores is None else {name: scores}, steps=trainer.state.global_step,
            whole=whole, trainable=trainable,
        )  # fmt: skip
        if args.push_to_hub:
            push_folder(args, folder, f"Trained for {trainer.state.global_step} steps")
    accelerator.wait_for_everyone()
    return scores
