"""How the trainer stops and goes on: whole checkpoints of what was trained, and what resuming from one demands."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import HubStrategy, rotate_checkpoints
from trl import SFTTrainer

from evqa.errors import DataError, TrainingError
from evqa.models.unipixel.checkpoints_unipixel import TRAINED_FILE, plain_name, put_trained, save_adapter
from evqa.training import checkpoints
from evqa.training.models import push_folder, save_final
from evqa.training.sharded import put, spread_optimizer_state, whole_optimizer_state, whole_weights
from evqa.training.tuning import plain_parameter_name

__all__ = ["ADAPTER_FILE", "ResumableTrainer", "load_trained"]

ADAPTER_FILE = "adapter_model.safetensors"


class ResumableTrainer(SFTTrainer):
    """``SFTTrainer`` whose checkpoints are whole or not there (:mod:`evqa.training.checkpoints`).

    Subclasses have ``mixture``, ``budget`` and ``run_facts``.
    """

    mixture: Any
    budget: Any
    run_facts: dict[str, Any]

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train. Which checkpoint to go on from: see :func:`~evqa.training.checkpoints.resolve_resume`.

        Args:
            resume_from_checkpoint: Instead of what the arguments say (``resume``, or transformers' own
                ``resume_from_checkpoint``).
            **kwargs: As in transformers.
        """
        given = (resume_from_checkpoint, self.args.resume_from_checkpoint, self.args.resume)
        resume = next(word for word in given if word is not None)
        found = [None]
        with checkpoints.only_run(self.args.output_dir, wanted=self.accelerator.is_main_process):
            if self.accelerator.is_main_process:
                found = [checkpoints.resolve_resume(resume, self.args.output_dir)]
                checkpoints.discard_incomplete(self.args.output_dir)
            if self.accelerator.num_processes > 1:  # all ranks start from what the first one found
                torch.distributed.broadcast_object_list(found)
            if found[0] is not None:
                self._check_same_data(found[0])
                self._load_budget(found[0])
            return super().train(resume_from_checkpoint=None if found[0] is None else str(found[0]), **kwargs)

    def _facts(self) -> dict[str, Any]:
        """What the samples and their order depend on, and what the run is."""
        words = json.dumps(self.mixture.describe(), sort_keys=True, default=str)
        return {
            **self.run_facts,
            "step": self.state.global_step,
            "global_batch": self.args.per_device_train_batch_size * self.accelerator.num_processes,
            "gradient_accumulation_steps": self.args.gradient_accumulation_steps,
            "data_seed": self.args.seed if self.args.data_seed is None else self.args.data_seed,
            "samples": self.mixture.type_sizes(),
            "mixture": hashlib.sha256(words.encode()).hexdigest()[:16],
            "budget": self.budget.state_dict(),
        }

    def _check_same_data(self, folder: Path) -> None:
        facts = json.loads((folder / checkpoints.MANIFEST).read_text("utf-8"))
        now = self._facts()
        names = ("global_batch", "gradient_accumulation_steps", "data_seed", "samples", "mixture")
        changed = [f"{n} was {facts.get(n)}, is {now[n]}" for n in names if facts.get(n) != now[n]]
        if changed:
            raise DataError(
                f"this checkpoint's run saw other samples, or in another order ({'; '.join(changed)}), so it cannot be "
                "gone on with exactly; use the same settings, or start a new run from these weights "
                "(model_name_or_path)",
                file=folder,
            )

    def _load_budget(self, folder: Path) -> None:
        self.budget.load_state_dict(json.loads((folder / checkpoints.MANIFEST).read_text("utf-8"))["budget"])

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the parent's card knows neither data nor scores (:mod:`evqa.training.card` does)."""

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging_root) if getattr(self, "_staging_root", None) else super()._get_output_dir(trial)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint aside, and give it its name when it is whole."""
        step, output_dir = self.state.global_step, Path(self.args.output_dir)
        staging, final = checkpoints.staging_folder(output_dir, step), output_dir / f"checkpoint-{step}"
        problem: BaseException | None = None
        push, self.args.push_to_hub = self.args.push_to_hub, False  # only what is whole
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            if self.args.should_save:
                shutil.rmtree(staging, ignore_errors=True)
                output_dir.mkdir(parents=True, exist_ok=True)
            self.accelerator.wait_for_everyone()
            self._staging_root = staging
            # The parent writes into <staging>/checkpoint-N.
            super()._save_checkpoint(model, trial)
        except Exception as error:
            problem = error
        finally:
            self._staging_root = None
            self.args.push_to_hub, self.args.save_total_limit = push, limit
        if self._anybody(problem is not None):
            self._give_up(staging, final, problem)
        try:
            if self.args.should_save:
                self._name_best(staging / final.name, staging, output_dir)
                checkpoints.commit_checkpoint(staging / final.name, final, self._facts())
                shutil.rmtree(staging, ignore_errors=True)
        except OSError as error:
            problem = error
        if self._anybody(problem is not None):
            self._give_up(staging, final, problem)
        if push:
            self._push_from_checkpoint(str(final))
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=str(output_dir), save_total_limit=limit,
                best_model_checkpoint=self.state.best_model_checkpoint, use_mtime=False,
            )  # fmt: skip

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Upload what is needed to load the model; the parent would leave out the modules that are trained whole."""
        if self.is_world_process_zero() and self.args.hub_strategy != HubStrategy.END:
            push_folder(self.args, checkpoint_folder, f"Step {self.state.global_step}")

    def _anybody(self, this_rank: bool) -> bool:
        """Whether it holds on any rank; they then stop together instead of waiting for one that has stopped."""
        flag = torch.tensor(float(this_rank), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, reduction="sum") > 0)

    def _give_up(self, staging: Path, final: Path, problem: BaseException | None) -> None:
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        last = checkpoints.find_checkpoint(self.args.output_dir)
        raise TrainingError(
            f"the checkpoint of step {self.state.global_step} could not be written"
            f"{f' ({problem})' if problem is not None else ' by another process'}; nothing of it is left. "
            f"{f'The run goes on from {last.name}' if last else 'The run has no checkpoint yet'} when it is started "
            "again",
            file=final,
        ) from problem

    def _name_best(self, folder: Path, staging: Path, output_dir: Path) -> None:
        """The state names the best checkpoint by where it was written; it will be elsewhere."""
        best = self.state.best_model_checkpoint
        if best is not None and Path(best).parent == staging:
            self.state.best_model_checkpoint = str(output_dir / Path(best).name)
            self.state.save_to_json(str(folder / TRAINER_STATE_NAME))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """See ``Trainer``. FSDP's parts are brought together for it, of what is trained alone."""
        if self.is_fsdp_enabled:
            self._save(output_dir, state_dict=whole_weights(self.model, keep=self.args.should_save))
        else:
            super().save_model(output_dir, _internal_call)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """See ``Trainer``. With FSDP the same files as without; the parent would also write all weights once more."""
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = whole_optimizer_state(self.optimizer, keep=self.args.should_save)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """See ``Trainer``."""
        if checkpoint is None or not self.is_fsdp_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        state = torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu", weights_only=True, mmap=True)
        self.optimizer.load_state_dict(spread_optimizer_state(self.optimizer, state))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Write what was trained; the base is not copied into every checkpoint."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        model = self.accelerator.unwrap_model(self.model)
        save_adapter(model, folder, processor=self.processing_class, state_dict=state_dict)
        (folder / "training_args.json").write_text(self.args.to_json_string() + "\n", "utf-8")

    def save_trained(self, base: str) -> bool:
        """Save the final model into ``output_dir``: whole with ``merge_adapter`` or where all of it was trained.

        Returns:
            Whether it is whole.
        """
        model = self.accelerator.unwrap_model(self.model)
        whole = self.args.merge_adapter or all(parameter.requires_grad for parameter in model.parameters())
        state_dict = None
        if self.is_fsdp_enabled:
            state_dict = whole_weights(self.model, keep=self.accelerator.is_main_process)
        elif self._is_sharded:
            state_dict = self.accelerator.get_state_dict(self.model_wrapped)
        if self.accelerator.is_main_process:
            save_final(
                model, self.args.output_dir, self.processing_class, merge=whole, base=base,
                dtype=getattr(torch, self.args.save_dtype), state_dict=state_dict,
            )  # fmt: skip
        self.accelerator.wait_for_everyone()
        return whole

    @property
    def _is_sharded(self) -> bool:
        """Whether each rank holds a part of the weights only."""
        if self.is_fsdp_enabled:
            return True
        plugin = self.accelerator.state.deepspeed_plugin if self.is_deepspeed_enabled else None
        return plugin is not None and plugin.zero_stage == 3

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Put back what :meth:`_save` wrote."""
        load_trained(self.accelerator.unwrap_model(self.model if model is None else model), resume_from_checkpoint)

    def _load_best_model(self) -> None:
        load_trained(self.accelerator.unwrap_model(self.model), self.state.best_model_checkpoint)


def load_trained(model: Any, folder: str | os.PathLike[str]) -> None:
    """Put the trained weights of a checkpoint into the model that is being trained: adapter, modules and buffers.

    Raises:
        DataError: A trainable weight that the checkpoint lacks, or one that does not fit; names them.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    is_peft = hasattr(model, "peft_config")
    weights = load_file(folder / TRAINED_FILE)
    put_trained(model.get_base_model() if is_peft else model, weights, folder / TRAINED_FILE, put=put)
    found = {plain_name(name) for name in weights}
    lacking = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and ".lora_" not in name and plain_parameter_name(name) not in found
    ]
    if is_peft:
        lacking += _load_adapter(model, load_file(folder / ADAPTER_FILE))
    if lacking:
        raise DataError(f"the checkpoint lacks {len(lacking)} weights that are trained: {lacking[:3]}", file=folder)


def _load_adapter(model: Any, weights: dict[str, torch.Tensor]) -> list[str]:
    """Put an adapter's weights, whole, into the active one of a model, spread or not; returns what lacks."""
    lacking = []
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            saved = weights.get(name.replace(f".{model.active_adapter}.", "."))  # as PEFT writes it
            if saved is None or saved.shape != parameter.shape:
                lacking.append(name)
            else:
                put(parameter, saved)
    return lacking
