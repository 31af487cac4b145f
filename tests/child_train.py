"""A training process of its own, to be killed, or to be one of several ranks.

python child_train.py FOLDER plain|kill-in-step|kill-in-save|ranks
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
from training_fixtures import losses, make_mixture, make_trainer
from transformers import TrainerCallback

import evqa  # noqa: F401
from evqa.training import checkpoints

#: What is run, here and by the tests that compare with it.
RESUMED = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "num_train_epochs": 1}
RANKS = {"max_steps": 4, "optim": "sgd", "learning_rate": 0.01, "save_strategy": "steps", "save_steps": 2}


class _Killed(TrainerCallback):
    """SIGKILL to oneself between the forward pass and the optimiser of a step."""

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == 4:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_in_save() -> None:
    """SIGKILL to oneself in the second save, when some of its files are on disk."""
    flush, calls = os.fsync, []

    def fsync(descriptor):
        if (folder / "out" / ".checkpoint-4.incomplete").exists():
            calls.append(descriptor)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return flush(descriptor)

    checkpoints.os = type("os", (), {**vars(os), "fsync": staticmethod(fsync)})


if __name__ == "__main__":
    folder, mode = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    if mode == "ranks":
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        mixture = make_mixture(folder / f"data{rank}", evidence=5, text=3)
        trainer = make_trainer(folder / "out", mixture, **RANKS)
        assert trainer.accelerator.num_processes == world == 2
        trainer.train()
        if rank == 0:
            (folder / "losses.json").write_text(json.dumps(losses(trainer)))
            torch.save({n: p.detach() for n, p in trainer.unipixel.named_parameters()}, folder / "weights.pt")
        (folder / f"world-{rank}").write_text(str(torch.distributed.get_world_size()))
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    elif mode == "devices":
        rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        mixture = make_mixture(folder / f"data{world}-{rank}", evidence=10, text=6, segmentation=6)
        trainer = make_trainer(
            folder / sys.argv[3], mixture, lora=True, max_steps=20, per_device_train_batch_size=4 // world,
            save_strategy="steps", save_steps=10, gradient_checkpointing=False,
        )  # fmt: skip
        assert trainer.accelerator.num_processes == world
        trainer.train()
        if rank == 0:
            found = losses(trainer)
            print(sys.argv[3], world, trainer.accelerator.distributed_type, [round(line["loss"], 3) for line in found])
            (folder / f"{sys.argv[3]}.json").write_text(json.dumps(found))
            last = checkpoints.find_checkpoint(folder / sys.argv[3])
            print(sys.argv[3], last.name, sorted(path.name for path in last.iterdir()))
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
    else:
        mixture = make_mixture(folder, evidence=8)
        trainer = make_trainer(folder / "out", mixture, lora=True, sam2={"memory_dropout": 0.1}, **RESUMED)
        if mode == "kill-in-step":
            trainer.add_callback(_Killed())
        elif mode == "kill-in-save":
            kill_in_save()
        trainer.train()
