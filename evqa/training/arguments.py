"""What a training run can be told: TRL's and transformers' own arguments, and the few that UniPixel adds.

Read by ``trl.TrlParser`` from the command line, from a YAML file (``--config``), or both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trl import SFTConfig

from evqa.errors import DataError
from evqa.training.optimizer import GROUPS
from evqa.training.recomputing import RECOMPUTED, shares_of
from evqa.training.tuning import LORA_TARGETS, MODULES, Tuning

__all__ = ["RECOMPUTED", "DataArguments", "ModelArguments", "TrainingArguments"]

#: Settings of TRL and transformers that this trainer would not heed -> their values when nobody sets them.
_WITHOUT_EFFECT = {
    "label_smoothing_factor": 0.0,
    "loss_type": "nll",
    "use_liger_kernel": False,
    "auto_find_batch_size": False,
    "train_sampling_strategy": "random",
    "assistant_only_loss": False,
}


@dataclass
class ModelArguments:
    """The model, and what of it is trained."""

    model_name_or_path: str = field(
        default="evqa/unipixel-tiny",
        metadata={
            "help": "Checkpoint folder or Hub id. `evqa/unipixel-tiny`: small, random weights, made on the spot."
        },
    )
    base_model_path: str | None = field(
        default=None, metadata={"help": "For a checkpoint that holds an adapter or trained modules only: its base."}
    )
    dtype: str = field(default="bfloat16", metadata={"help": "Of the frozen weights: bfloat16, float32 or float16."})
    attn_implementation: str | None = field(default=None, metadata={"help": "As in transformers."})
    lora_targets: str | None = field(
        default=None, metadata={"help": f"Where adapters go: {', '.join(LORA_TARGETS)}; none by default."}
    )
    lora_r: int = field(default=128, metadata={"help": "Rank of the adapters."})
    lora_alpha: int = field(default=256, metadata={"help": "Scale of the adapters."})
    lora_dropout: float = field(default=0.1, metadata={"help": "Dropout of the adapters."})
    tuning_modules: list[str] = field(
        default_factory=list, metadata={"help": f"Modules that are trained whole, out of: {', '.join(MODULES)}."}
    )
    trained_dtype: str = field(
        default="float32", metadata={"help": "Of the weights that are trained: float32 keeps every small step."}
    )
    config_overrides: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "Fields of the model's config: sam2_image_size, sam2_enable_decoder, sample_objects, ..."},
    )

    frame_policy: str | None = field(
        default=None,
        metadata={
            "help": "Which frames the trained model is shown wherever it is used (fps:1, uniform:16): saved in its "
            "processor. As the model says when absent; what it is shown in training, the mixture says."
        },
    )

    def tuning(self) -> Tuning:
        """The part that says what is trained.

        Raises:
            DataError: Names that are none.
        """
        return Tuning(
            modules=self.tuning_modules, lora=self.lora_targets, lora_r=self.lora_r, lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout, trained_dtype=self.trained_dtype,
        )  # fmt: skip


@dataclass
class DataArguments:
    """The data."""

    mixture: str = field(default="", metadata={"help": "YAML file of the training mixture."})
    data_root: str | None = field(
        default=None, metadata={"help": "Folder of the corpora; by default that of the mixture's file."}
    )
    benchmark: str = field(
        default="evqa/st_evidence:sample",
        metadata={"help": "What is answered and scored while training and after it: `name:config`, or a folder."},
    )
    benchmark_split: str = field(default="test", metadata={"help": "Of the benchmark: test, test[:100], ..."})
    benchmark_limit: int | None = field(
        default=None, metadata={"help": "Only the first so many entries of it while training."}
    )
    max_new_tokens: int = field(default=128, metadata={"help": "Longest reply to an entry of the benchmark."})
    final_benchmark: bool = field(
        default=True, metadata={"help": "Answer and score all of it after training, and put the table on the card."}
    )


@dataclass
class TrainingArguments(SFTConfig):
    """TRL's ``SFTConfig`` with learning rates by group, and defaults without which UniPixel does not train."""

    lora_learning_rate: float | None = field(
        default=None, metadata={"help": "Of the adapters; learning_rate when absent."}
    )
    sam2_learning_rate: float | None = field(
        default=None, metadata={"help": "Of SAM 2 but for its image encoder; learning_rate when absent."}
    )
    sam2_encoder_learning_rate: float | None = field(
        default=None, metadata={"help": "Of SAM 2's image encoder; sam2_learning_rate when absent."}
    )
    resume: str = field(
        default="auto",
        metadata={"help": "auto: the newest whole checkpoint of output_dir, if any; never: from the start; or a path."},
    )
    merge_adapter: bool = field(
        default=False, metadata={"help": "Save the final model whole, adapters merged, instead of what was trained."}
    )
    save_dtype: str = field(
        default="bfloat16", metadata={"help": "Of the weights of a final model that is saved whole."}
    )
    checkpoint_modules: list[str] = field(
        default_factory=lambda: ["vision", "llm", "sam2_encoder", "sam2_tracker"],
        metadata={
            "help": f"Where gradient_checkpointing recomputes: any of {', '.join(RECOMPUTED)}; llm:0.5 is every second "
            "layer of that."
        },
    )
    graph_tracking: bool = field(
        default=False,
        metadata={"help": "Track and compute the mask losses in CUDA graphs: fewer launches for more memory."},
    )
    log_masks: int = field(
        default=0, metadata={"help": "Draw the masks of so many entries at each evaluation, into output_dir/masks."}
    )
    # Below are SFTConfig's own, with other defaults.
    max_length: int | None = field(
        default=40960, metadata={"help": "A longer conversation is left out and counted as failed; it is never cut."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must be false: samples are no columns."})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "A loss that is NaN is shown as NaN; the filter also waits for the device."}
    )
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "As in transformers."})
    save_total_limit: int | None = field(default=3, metadata={"help": "Checkpoints that are kept."})

    def __post_init__(self) -> None:
        """Set what the trainer needs, and check the rest."""
        # Batches come from the mixture, which TRL must not prepare.
        self.dataset_kwargs = {**(self.dataset_kwargs or {}), "skip_prepare_dataset": True}
        super().__post_init__()
        if self.remove_unused_columns:
            raise DataError("remove_unused_columns must be false: training samples have no columns")
        if self.packing or self.padding_free:
            raise DataError("packing and padding_free are for text; samples with clips are batched and padded")
        for name, usual in _WITHOUT_EFFECT.items():
            if getattr(self, name, usual) != usual:
                raise DataError(
                    f"{name} would change nothing here, so it is refused: the loss and the batches are our own"
                )
        if self.resume_from_checkpoint is not None and self.resume != "auto":
            raise DataError(
                f"resume is {self.resume!r} and resume_from_checkpoint {self.resume_from_checkpoint!r}: give one of "
                "them"
            )
        if self.save_dtype not in ("bfloat16", "float16", "float32"):
            raise DataError(f"save_dtype is bfloat16, float16 or float32, not {self.save_dtype!r}")
        shares_of(self.checkpoint_modules)

    def rates(self) -> dict[str, float]:
        """The learning rate of each group of parameters."""
        sam2 = self.learning_rate if self.sam2_learning_rate is None else self.sam2_learning_rate
        given = {
            "base": self.learning_rate,
            "lora": self.lora_learning_rate,
            "sam2": sam2,
            "sam2_encoder": sam2 if self.sam2_encoder_learning_rate is None else self.sam2_encoder_learning_rate,
        }
        return {name: self.learning_rate if given[name] is None else given[name] for name in GROUPS}
