"""UniPixel's trainer: TRL's ``SFTTrainer`` with the model's own loss.

What is different from the parent, and nothing else:

==========================  ==================================================================================
loss                        the model's: language, and all mask terms (the parent drops them without a word);
                            each a sum over the whole optimiser step divided by what the whole step holds, so
                            that ranks, accumulation and padding do not change it
batches                     those of :class:`~evqa.training.sampler.MixtureSampler`: one data type, equal work on
                            all ranks, the same for any number of ranks
optimiser                   learning rates by group (:mod:`evqa.training.optimizer`)
checkpoints                 what was trained, whole or not there (:mod:`evqa.training.resuming`)
evaluation                  a benchmark answered and scored, in place of a loss
==========================  ==================================================================================
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback
from trl.models import unwrap_model_for_generation

from evqa.errors import DataError
from evqa.models.unipixel.losses_unipixel import TERMS
from evqa.training.arguments import TrainingArguments
from evqa.training.budget import ErrorBudget
from evqa.training.fused import fuse_adapters, fuse_norms
from evqa.training.loading import RankBatches, TrainingLoader, WithStandIns
from evqa.training.master import MasterAdamW
from evqa.training.models import TINY
from evqa.training.optimizer import parameter_groups
from evqa.training.recomputing import recompute_only
from evqa.training.resuming import ResumableTrainer
from evqa.training.sampler import MixtureSampler
from evqa.training.sharded import GradientsOnAllRanks, touched, with_whole_weights
from evqa.training.tuning import plain_parameter_name

__all__ = ["UniPixelTrainer"]

_LOSSES = ("lm_loss", *(f"{name}_loss" for name in TERMS))


class UniPixelTrainer(ResumableTrainer):
    """Trains UniPixel on a mixture.

    Args:
        model: UniPixel as :func:`~evqa.training.tuning.prepare_for_training` returns it.
        args: Settings.
        mixture: The training data, a :class:`~evqa.training.mixture.Mixture`.
        data_collator: A :class:`~evqa.training.collator.UniPixelCollator`.
        processing_class: The model's processor.
        evaluation: Called with the trainer at every evaluation; returns numbers by name (without ``eval_``).
        run_facts: Kept in every checkpoint's manifest.
        **kwargs: As for ``SFTTrainer``.
    """

    _tag_names = ["evqa", "unipixel", "sft"]
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        mixture: Any,
        data_collator: Any,
        processing_class: Any,
        *,
        evaluation: Callable[[UniPixelTrainer], Mapping[str, float]] | None = None,
        run_facts: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        from datasets import Dataset

        if len(mixture) == 0:
            raise DataError("the mixture holds no samples; mixture.describe() says what was left out, and why")
        self.mixture = mixture
        self.evaluation = evaluation
        self.run_facts = dict(run_facts or {})
        self.budget = ErrorBudget(**mixture.config.errors, log=Path(args.output_dir) / "failed_samples.jsonl")
        self._sums: dict[str, torch.Tensor] = {}
        self._steps_summed = 0
        self._on_all_ranks: Callable[[torch.Tensor], torch.Tensor] | None = None
        # The parent takes tables of `datasets` only; it looks at the first row and never reads this one again.
        stand_in = Dataset.from_dict({"sample": [0]})
        if args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = True  # no batch uses everything, and ranks use different things
        if evaluation is not None and kwargs.get("eval_dataset") is None:
            kwargs["eval_dataset"] = stand_in
        super().__init__(
            model=model, args=args, data_collator=data_collator, train_dataset=stand_in,
            processing_class=processing_class, **kwargs,
        )  # fmt: skip
        self._check_saving()
        self.train_dataset = WithStandIns(mixture)
        self.unipixel.runtime.supervised_logits = True
        # A graph remembers where weights lie, and weights that are gathered for a step lie elsewhere in the next one.
        self.unipixel.runtime.graph_tracking = args.graph_tracking and not self._is_sharded
        fuse_norms(self.unipixel)
        fuse_adapters(self.unipixel)
        self.add_callback(_Recomputing(self))

    def _check_saving(self) -> None:
        """Refuse now what could not be saved in the end."""
        whole = self.args.merge_adapter or all(parameter.requires_grad for parameter in self.model.parameters())
        if self.run_facts.get("model") == TINY and not whole:
            raise DataError(f"{TINY} is made on the spot: a part of it could not be loaded again; set merge_adapter")
        if self.args.merge_adapter and self._is_sharded and hasattr(self.model, "peft_config"):
            raise DataError("merge_adapter: FSDP and ZeRO-3 spread the base; train without it and merge afterwards")
        if self.is_fsdp_enabled and not self.accelerator.is_fsdp2:
            raise DataError("fsdp_version must be 2: checkpoints and evaluation do not know the first one")

    @property
    def unipixel(self) -> Any:
        """The model itself, whatever is around it."""
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if hasattr(model, "peft_config") else model

    # ---------------------------------------------------------------------------------------- data
    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """Batches of the mixture for this rank."""
        args, ranks = self.args, self.accelerator.num_processes
        seed = args.seed if args.data_seed is None else args.data_seed
        sampler = MixtureSampler(self.mixture, args.per_device_train_batch_size * ranks, seed=seed)
        batches = RankBatches(
            sampler, rank=self.accelerator.process_index, world_size=ranks,
            batch_size=args.per_device_train_batch_size, drop_last=args.dataloader_drop_last,
        )  # fmt: skip
        if len(batches) == 0:
            raise DataError("no data type fills a global batch, and dataloader_drop_last leaves out smaller ones")
        return TrainingLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )

    def _prepare_input(self, data: Any) -> Any:
        """Without waiting for the device: batches lie in pinned memory."""
        if isinstance(data, torch.Tensor) and not self.is_deepspeed_enabled:
            return data.to(self.args.device, non_blocking=True)
        return super()._prepare_input(data)

    def num_examples(self, dataloader: Any) -> int:
        """Samples of an epoch."""
        return len(self.mixture)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The batches of one optimiser step, and what all of them on all ranks hold.

        Returns:
            Batches, and ``[tokens, samples with masks]``, float32 on the device, at least 1 each.
        """
        batches: list[dict[str, Any]] = []
        for _ in range(num_batches):
            batch = next(epoch_iterator, None)
            if batch is None:
                break
            batches.append(batch)
        if not batches:
            return batches, None
        self._forget_old_gradients()
        reports = [batch.pop("report") for batch in batches]
        self._count_failures(reports)
        counts = [float(sum(report[name] for report in reports)) for name in ("tokens", "masks")]
        totals = self.accelerator.reduce(torch.tensor(counts).to(device, non_blocking=True), reduction="sum")
        self._add("tokens", totals[0])
        self._add("masked_samples", totals[1])
        return batches, totals.clamp(min=1)

    def _count_failures(self, reports: list[dict[str, Any]]) -> None:
        """Spend the error budget; every rank counts its own samples, and the first to overspend stops the run."""
        tried = sum(report["tried"] for report in reports)
        self.budget.add(tried, [failure for report in reports for failure in report["failures"]])

    # ---------------------------------------------------------------------------------------- loss
    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The model's own loss on a part of a step.

        The value is this part's share of the step's loss, times the number of ranks, because DDP averages gradients:
        over all parts and ranks, gradients are those of one batch that holds everything.
        """
        if num_items_in_batch is None:
            raise DataError("the loss of UniPixel is that of whole optimiser steps: use get_batch_samples")
        outputs = model(
            **inputs, use_cache=False, num_items_in_batch=num_items_in_batch[0],
            num_masks_in_batch=num_items_in_batch[1],
        )  # fmt: skip
        for name in _LOSSES:
            if (term := getattr(outputs, name)) is not None:
                self._add(name, term.detach())
        if outputs.correct_tokens is not None:
            self._add("token_accuracy", outputs.correct_tokens / num_items_in_batch[0])
        loss = self._with_gradients_on_all_ranks(outputs.loss * self.accelerator.num_processes)
        return (loss, outputs) if return_outputs else loss

    def _with_gradients_on_all_ranks(self, loss: torch.Tensor) -> torch.Tensor:
        """Ranks use different modules in a step. DDP can find that out; FSDP and DeepSpeed must not notice."""
        plugin = self.accelerator.state.deepspeed_plugin if self.is_deepspeed_enabled else None
        sorts_out = plugin.zero_stage == 3 if plugin is not None else not self.is_fsdp_enabled
        if self.accelerator.num_processes == 1 or sorts_out:
            return loss
        if self._on_all_ranks is None and self.is_fsdp_enabled:
            self._on_all_ranks = GradientsOnAllRanks(self.model)
        elif self._on_all_ranks is None:
            # The layers of vision tower and language model are used by all ranks or by none.
            named = ((plain_parameter_name(name), p) for name, p in self.model.named_parameters() if p.requires_grad)
            own = [p for name, p in named if not name.startswith(("model.", "lm_head."))]
            self._on_all_ranks = lambda loss: touched(loss, own) if own else loss
        return self._on_all_ranks(loss)

    def _forget_old_gradients(self) -> None:
        """ZeRO-3 overwrites the gradients of what is used; what a step leaves out would be moved by its last ones."""
        if self.is_deepspeed_enabled:
            buffer = getattr(self.model_wrapped.optimizer, "grad_partitions_flat_buffer", None)
            if buffer is not None:
                buffer.zero_()

    def _add(self, name: str, value: torch.Tensor) -> None:
        """Sum up what is logged on the device, without waiting for it."""
        self._sums[name] = value.detach().float() + self._sums.get(name, 0.0)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """See ``Trainer``; the loss that is returned is this rank's share of the step's, for logging."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            self._steps_summed += 1
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of each term per step since the last time."""
        if self._steps_summed and "loss" in logs:
            names = sorted(self._sums)
            # Terms that one rank has and another has not (a stand-in has no masks) must still be one collective call.
            known = [*_LOSSES, "token_accuracy"]
            device = self.accelerator.device
            values = torch.stack([torch.as_tensor(self._sums.get(n, 0.0), device=device).float() for n in known])
            summed = self.accelerator.reduce(values, reduction="sum").tolist()
            present = set(names) | {n for n, value in zip(known, summed, strict=True) if value}
            for name, value in zip(known, summed, strict=True):
                if name in present:
                    logs[name] = value / self._steps_summed
            for name in ("tokens", "masked_samples"):
                logs[f"{name}_per_step"] = float(self._sums[name]) / self._steps_summed
            logs["failed_samples"] = self.budget.count
            self._sums.clear()
            self._steps_summed = 0
        self._metrics["train"].clear()
        self._metrics["eval"].clear()
        super().log(logs, start_time)

    # ----------------------------------------------------------------------------------- optimiser
    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """An optimiser with learning rates by group."""
        if self.optimizer is None:
            model = self.model if model is None else model
            chosen, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            if {"params", "model", "optimizer_dict"} & set(options) or not isinstance(chosen, type):
                raise DataError(f"optim {self.args.optim!r} makes its own groups of parameters; use another one")
            groups = parameter_groups(
                model, self.args.rates(), self.args.weight_decay, self.get_decay_parameter_names(model)
            )
            half = any(p.dtype in (torch.bfloat16, torch.float16) for group in groups for p in group["params"])
            if half and issubclass(chosen, torch.optim.AdamW) and not self.is_deepspeed_enabled:  # which keeps copies
                chosen, options = MasterAdamW, {k: v for k, v in options.items() if k in ("lr", "betas", "eps")}
            self.optimizer = chosen(groups, **options)
        return self.optimizer

    # ---------------------------------------------------------------------------------- evaluation
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Answer and score the benchmark; random states come out as they went in, so training does not notice."""
        if self.evaluation is None:
            raise DataError("there is nothing to evaluate: give evaluation to the trainer, or set eval_strategy to no")
        with _kept_random_states(), torch.no_grad():
            found = self.evaluation(self)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @contextlib.contextmanager
    def model_for_generation(self) -> Iterator[Any]:
        """The model as it is now, whole and ready to ``generate``, in the precision that it is trained in."""
        model, was_training = self.unipixel, self.unipixel.training
        runtime = model.runtime
        whole: contextlib.AbstractContextManager = contextlib.nullcontext()
        if self.is_fsdp_enabled and self.model_wrapped is self.model:
            plugin = self.accelerator.state.fsdp_plugin
            whole = with_whole_weights(self.model, reshard=bool(plugin.reshard_after_forward))
        with whole, unwrap_model_for_generation(self.model_wrapped, self.accelerator), self.accelerator.autocast():
            # A recorded graph would go on using the half-precision copies that autocast made of earlier weights.
            model.runtime = dataclasses.replace(runtime, fixed_steps=False, supervised_logits=False)
            model.eval()
            try:
                yield model
            finally:
                model.runtime = runtime
                model.train(was_training)


class _Recomputing(TrainerCallback):
    """Recompute only where ``checkpoint_modules`` says, once the parent has switched it on everywhere."""

    def __init__(self, trainer: UniPixelTrainer):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See ``TrainerCallback``."""
        if args.gradient_checkpointing:
            recompute_only(self.trainer.unipixel, args.checkpoint_modules)


@contextlib.contextmanager
def _kept_random_states() -> Iterator[None]:
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    devices = torch.cuda.random.get_rng_state_all() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.random.set_rng_state(cpu)
        if devices is not None:
            torch.cuda.random.set_rng_state_all(devices)
