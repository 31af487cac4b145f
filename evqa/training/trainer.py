"""UniPixel's trainer: TRL's ``SFTTrainer`` with the model's whole loss, our order of samples and whole checkpoints.

What ``SFTTrainer`` alone would do wrong here, and what is done instead:

- It asks the model for token probabilities alone, and the mask loss is lost without a word. Here both are computed.
- **The loss of a step is that of one large batch**: cross-entropy is the mean over all tokens to be learnt, each mask
  term the mean over all samples with masks, of all accumulated batches on all ranks. An optimiser step is therefore the
  same however a global batch is split.
- Batches come from :class:`~evqa.training.sampler.MixtureSampler`; a checkpoint counts when it is whole
  (:mod:`evqa.training.checkpoints`); failed samples are counted against a budget.
- ``evaluate`` answers benchmark entries and scores them with the real metrics.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate.data_loader import DataLoaderShard
from torch import Tensor
from torch.nn import functional as F
from trl import SFTConfig, SFTTrainer

from evqa.models.unipixel.checkpoints_unipixel import TRAINED_FILE, put_trained, save_adapter
from evqa.models.unipixel.losses_unipixel import TERMS, WEIGHTS
from evqa.scoring import metric_names, score
from evqa.training import checkpoints
from evqa.training.benchmark import answer_rows
from evqa.training.budget import ErrorBudget
from evqa.training.collator import NOT_FOR_THE_MODEL, MixtureCollator
from evqa.training.mixture import Mixture
from evqa.training.sampler import MixtureSampler
from evqa.training.tuning import parameter_groups
from evqa.types import Prediction

__all__ = ["UniPixelSFTConfig", "UniPixelTrainer"]

_BUDGET_FILE = "errors.jsonl"


@dataclasses.dataclass
class UniPixelSFTConfig(SFTConfig):
    """TRL's arguments, and a few more."""

    lora_learning_rate: float | None = dataclasses.field(
        default=None, metadata={"help": "Of the adapter; default: learning_rate."}
    )
    sam2_learning_rate: float | None = dataclasses.field(
        default=None, metadata={"help": "Of SAM 2; default: learning_rate."}
    )
    sam2_encoder_learning_rate: float | None = dataclasses.field(
        default=None, metadata={"help": "Of SAM 2's image encoder; default: sam2_learning_rate."}
    )
    pad_to_multiple: int = dataclasses.field(
        default=1, metadata={"help": "Fill rows up to a multiple of so many tokens, so that shapes repeat."}
    )
    eval_max_new_tokens: int = dataclasses.field(
        default=96, metadata={"help": "Limit of a reply to a benchmark entry during training."}
    )
    mean_objects_across_ranks: bool = dataclasses.field(
        default=False,
        metadata={
            "help": "Divide a sample's mask loss by the mean number of objects over ranks, as the original does. The "
            "loss then depends on how a global batch is split."
        },
    )

    def __post_init__(self) -> None:
        """Set what any run of this trainer needs."""
        self.remove_unused_columns = False
        self.dataset_kwargs = {"skip_prepare_dataset": True}
        if self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters = True  # a batch of words alone leaves SAM 2 without gradients
        super().__post_init__()


class UniPixelTrainer(SFTTrainer):
    """Trains UniPixel on a mixture.

    Args:
        model: UniPixel, or a PEFT model around it (:func:`evqa.training.tuning.prepare`).
        args: See :class:`UniPixelSFTConfig`.
        mixture: What is trained on.
        processor: Of the model; saved with every checkpoint.
        benchmark: Rows that ``evaluate`` answers; ``None``: there is nothing to evaluate on.
        **options: For ``SFTTrainer``: ``callbacks``, ``optimizers``.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Any,
        args: UniPixelSFTConfig,
        mixture: Mixture,
        processor: Any,
        *,
        benchmark: Any = None,
        **options: Any,
    ):
        from datasets import Dataset

        self.mixture, self.benchmark = mixture, benchmark
        self.budget = ErrorBudget(**mixture.config.errors, log=Path(args.output_dir) / _BUDGET_FILE)
        collator = MixtureCollator(processor, max_length=args.max_length, pad_to=args.pad_to_multiple)
        # SFTTrainer wants data sets of its own kind: numbers stand for ours.
        numbers = Dataset.from_dict({"place": range(len(mixture))})
        asked = None if benchmark is None else Dataset.from_dict({"entry": range(len(benchmark))})
        super().__init__(
            model=model, args=args, train_dataset=numbers, eval_dataset=asked, processing_class=processor,
            data_collator=collator, **options,
        )  # fmt: skip
        self._plain_model().mean_objects_across_ranks = args.mean_objects_across_ranks
        self._sums: dict[str, Tensor] = {}

    def _plain_model(self) -> Any:
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if hasattr(model, "peft_config") else model

    # ------------------------------------------------------------------------------------------ data
    def get_train_dataloader(self) -> DataLoaderShard:
        """This rank's batches, in the order of the mixture's sampler."""
        args = self.args
        sampler = MixtureSampler(
            self.mixture, args.per_device_train_batch_size, rank=args.process_index, world_size=args.world_size
        )
        workers = args.dataloader_num_workers
        options = {"persistent_workers": args.dataloader_persistent_workers} if workers else {}
        if workers and args.dataloader_prefetch_factor is not None:
            options["prefetch_factor"] = args.dataloader_prefetch_factor
        return DataLoaderShard(
            self.mixture, batch_sampler=sampler, collate_fn=self.data_collator, num_workers=workers,
            pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(), **options,
        )  # fmt: skip

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The batches of one step, and what their losses are divided by; failed samples are counted here."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in batches:
            self.budget.add(batch["tried"], batch["failures"])
        return batches, items

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor:
        """Tokens to be learnt and samples with masks, of all batches of a step on all ranks: float64 ``[2]``."""
        tokens = sum(int(batch["labels"][:, 1:].ne(-100).sum()) for batch in batch_samples)
        masks = sum(mask is not None for batch in batch_samples for mask in batch.get("label_mask") or ())
        counts = torch.tensor([tokens, masks], dtype=torch.float32).to(device, non_blocking=True)
        return self.accelerator.gather(counts[None]).sum(0) if self.args.world_size > 1 else counts

    # ------------------------------------------------------------------------------------------ loss
    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Any:
        """This batch's share of the step's loss; see the module's docstring."""
        labels, columns = inputs["labels"], inputs["logits_to_keep"]
        outputs = model(**{k: v for k, v in inputs.items() if k not in NOT_FOR_THE_MODEL}, use_cache=False)
        wanted = labels[:, 1:][:, columns]  # [batch, kept]
        entropy = F.cross_entropy(outputs.logits.flatten(0, 1).float(), wanted.flatten(), reduction="sum")
        terms = [term for term in outputs.sample_losses or () if term is not None]
        total = torch.stack(terms).sum(0) if terms else entropy.new_zeros(4)
        if num_items_in_batch is None:
            num_items_in_batch = entropy.new_tensor([int(wanted.ne(-100).sum()), len(terms)])
        tokens, masks = num_items_in_batch.clamp(min=1)
        loss = entropy / tokens + (total * total.new_tensor(WEIGHTS)).sum() / masks
        with torch.no_grad():
            self._note("lm_loss", entropy, wanted.ne(-100).sum())
            right = outputs.logits.argmax(-1).eq(wanted).sum()
            self._note("token_accuracy", right, wanted.ne(-100).sum())
            for name, value in zip(TERMS, total, strict=True):
                self._note(f"{name}_loss", value, total.new_tensor(len(terms)))
        if self.args.world_size > 1:
            loss = loss * self.args.world_size  # gradients are averaged over ranks
        return (loss, outputs) if return_outputs else loss

    def _note(self, name: str, total: Tensor, count: Tensor) -> None:
        pair = torch.stack([total.detach().double(), count.double()])
        self._sums[name] = self._sums[name] + pair if name in self._sums else pair

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; with the training loss come its terms, each the mean over what it is of since the last time."""
        if "loss" in logs and self._sums:
            pairs = torch.stack(list(self._sums.values()))  # [terms, 2]
            if self.args.world_size > 1:
                pairs = self.accelerator.gather(pairs[None]).sum(0)
            logs.update({n: t / c for n, (t, c) in zip(self._sums, pairs.tolist(), strict=True) if c})
            logs["failed_samples"] = self.budget.count
            self._sums = {}
        super().log(logs, start_time)

    # ------------------------------------------------------------------------------------- optimiser
    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """One group for each part of the model, with a learning rate of its own."""
        model = self.model if model is None else model
        if self.optimizer is None:
            args = self.args
            kind, options = self.get_optimizer_cls_and_kwargs(args, model)
            encoder = args.sam2_encoder_learning_rate
            rates = {
                "base": args.learning_rate,
                "lora": args.lora_learning_rate,
                "sam2_rest": args.sam2_learning_rate,
                "sam2_encoder": args.sam2_learning_rate if encoder is None else encoder,
            }
            decayed = set(self.get_decay_parameter_names(model))
            self.optimizer = kind(parameter_groups(model, rates, decayed, args.weight_decay), **options)
        return self.optimizer

    # ------------------------------------------------------------------------------------ evaluation
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Sequence[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Answer the benchmark's rows, shared out over ranks, and score them under the ``strict`` protocol."""
        model, was_training = self._plain_model(), self.model.training
        self.model.eval()
        rank, world = self.args.process_index, self.args.world_size
        own = (self.benchmark[i] for i in range(rank, len(self.benchmark), world))
        bf16 = self.args.bf16 and self.args.device.type == "cuda"
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16) if bf16 else contextlib.nullcontext():
            said = answer_rows(
                model, self.processing_class, own, batch_size=self.args.per_device_eval_batch_size,
                max_new_tokens=self.args.eval_max_new_tokens,
            )  # fmt: skip
        if world > 1:
            everything: list[Any] = [None] * world
            dist.all_gather_object(everything, [prediction.to_json() for prediction in said])
            said = [Prediction.from_json(record) for part in everything for record in part]
        found = score(said, self.benchmark, bootstrap=0)
        names = [name for name in metric_names("gen", "strict") if name in found]
        metrics = {f"{metric_key_prefix}_{name}": found[name] for name in (*names, "num_failed")}
        self.model.train(was_training)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # ----------------------------------------------------------------------------------- checkpoints
    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save, seal, and only then make room."""
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save and folder.exists():  # of a run that was resumed before this step
            (folder / checkpoints.MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(folder)
        self.accelerator.wait_for_everyone()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.seal(folder)
            checkpoints.rotate(folder.parent, limit)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """An adapter with the other trained weights and buffers, or all weights."""
        model = self.accelerator.unwrap_model(self.model)
        if not hasattr(model, "peft_config"):
            super()._save(output_dir, state_dict)
            return
        folder = self.args.output_dir if output_dir is None else output_dir
        save_adapter(model, folder, processor=self.processing_class)
        torch.save(self.args, Path(folder) / "training_args.bin")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Weights of a checkpoint. Files have the published names, which transformers' own way would pass over."""
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        from safetensors.torch import load_file

        model, folder = self.model if model is None else model, Path(resume_from_checkpoint)
        files = sorted(folder.glob("model*.safetensors")) or [folder / TRAINED_FILE]
        peft = hasattr(model, "peft_config")
        inner = model.get_base_model() if peft else model
        for file in files:
            put_trained(inner, load_file(file), file)
        inner.tie_weights()
        if peft:
            from peft import load_peft_weights, set_peft_model_state_dict

            set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
