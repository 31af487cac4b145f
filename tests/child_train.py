"""A training process of its own, to be killed, or to be one of several ranks.

python child_train.py FOLDER plain|kill-in-step|kill-in-save|ranks|devices|sharded
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
from evqa.training.sharded import whole_weights

#: What is run, here and by the tests that compare with it.
RESUMED = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "num_train_epochs": 1}
SHARDED = {"max_steps": 4, "optim": "adamw_torch", "save_strategy": "steps", "save_steps": 2, "lora": True,
           "eval_strategy": "steps", "eval_steps": 1, "max_grad_norm": 0.5}  # fmt: skip
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


class HalfMasked:
    """Leaves masks to the first two of four samples: one of two ranks then calls SAM 2, and the other does not."""

    def __init__(self, collator, first):
        self.collator, self.first = collator, first

    def __call__(self, places):
        batch = self.collator(places)
        if "frames" in batch:
            for i in range(len(batch["frames"])):
                if self.first + i >= 2:
                    batch["frames"][i] = batch["label_mask"][i] = None
            batch["report"]["masks"] = sum(mask is not None for mask in batch["label_mask"])
        return batch


def spoken(trainer):
    """An evaluation in which every rank calls the model another number of times."""
    with trainer.model_for_generation() as model:
        for _ in range(1 + trainer.accelerator.process_index):
            model.generate(input_ids=torch.arange(20, 24)[None], max_new_tokens=2, synced_gpus=False)
    return {"spoken": 1.0}


def sharded(output, mixture, *, first=0, **settings):
    """A trainer without dropout whose samples use different modules."""
    trainer = make_trainer(output, mixture, evaluation=spoken, **{**SHARDED, **settings})
    trainer.data_collator = HalfMasked(trainer.data_collator, first)
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return trainer


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
    elif mode == "sharded":
        from cpu_ranks import spread_on_cpu

        spread_on_cpu("fsdp2")
        rank = int(os.environ["RANK"])
        mixture = make_mixture(folder / f"data{rank}", evidence=8, text=4)
        settings = {"dtype": sys.argv[3], "use_cpu": False, "max_steps": int(sys.argv[4])}
        trainer = sharded(folder / "out", mixture, first=2 * rank, **settings)
        trainer.train()
        assert sum(hasattr(p, "full_tensor") for p in trainer.model.parameters()) > 100
        whole = whole_weights(trainer.model, keep=rank == 0)
        if rank == 0:
            (folder / "losses.json").write_text(json.dumps(losses(trainer)))
            torch.save(whole, folder / "weights.pt")
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
