"""Fine-tune a plain Qwen2.5-VL or Qwen3-VL to answer with segments and referring expressions, with stock TRL.

    accelerate launch recipes/sft_qwen_vl.py --model_name_or_path Qwen/Qwen2.5-VL-3B-Instruct \
        --data evqa/st_evidence:instruct_mask --data_dir /data/st-evidence-instruct --output_dir runs/qwen \
        --use_peft --lora_r 64 --lora_target_modules all-linear --bf16 --gradient_checkpointing

The model has no masks; `evqa run --model qwen2_5_vl:runs/qwen` asks what was trained here, and `evqa segment` turns its
expressions into masks. The training data need expressions for that: `instruct_mask` has them.
"""

from dataclasses import dataclass, field

from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import ModelConfig, SFTConfig, SFTTrainer, TrlParser, get_peft_config

import evqa
from evqa.training.vlm_collator import VideoChatCollator


@dataclass
class DataArguments:
    """The data."""

    data: str = field(default="evqa/st_evidence:instruct_mask", metadata={"help": "name:config"})
    data_dir: str | None = field(default=None, metadata={"help": "Folder of the published files."})
    split: str = field(default="train", metadata={"help": "Split or slice."})
    frames: str = field(default="uniform:8", metadata={"help": "Which frames are shown (docs: frame policies)."})
    max_side: int = field(default=448, metadata={"help": "Longer side of a frame, pixels."})


def main(model_args: ModelConfig, data_args: DataArguments, args: SFTConfig) -> None:
    """Data, model, training."""
    name, _, config = data_args.data.partition(":")
    rows = evqa.load_dataset(name, config or None, data_dir=data_args.data_dir, split=data_args.split)

    model = AutoModelForImageTextToText.from_pretrained(
        model_args.model_name_or_path, dtype=model_args.dtype, attn_implementation=model_args.attn_implementation
    )
    processor = AutoProcessor.from_pretrained(model_args.model_name_or_path)

    # Rows are decoded and encoded by the collator; TRL must neither prepare nor drop their columns.
    args.remove_unused_columns = False
    args.dataset_kwargs = {"skip_prepare_dataset": True}
    max_length, args.max_length = args.max_length, None
    trainer = SFTTrainer(
        model,
        args=args,
        train_dataset=rows,
        data_collator=VideoChatCollator(processor, data_args.frames, data_args.max_side, max_length),
        processing_class=processor,
        peft_config=get_peft_config(model_args),
    )
    trainer.train()
    trainer.save_model()
    if args.push_to_hub:
        trainer.push_to_hub()


if __name__ == "__main__":
    main(*TrlParser((ModelConfig, DataArguments, SFTConfig)).parse_args_and_config())
