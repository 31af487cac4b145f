"""Fine-tune UniPixel on a mixture of corpora; end with a checkpoint, its scores, and a card.

On one CPU, in minutes, without a download (a tiny model of random weights, on clips that come with evqa):

    accelerate launch --num_processes 1 recipes/sft.py --config recipes/configs/tiny.yaml

As the ST-Evidence models were trained, on all GPUs of a machine, or with ZeRO and FSDP:

    accelerate launch --config_file recipes/accelerate/ddp.yaml recipes/sft.py --config recipes/configs/3b_base.yaml \
        --data_root /data

The same command again goes on from the newest whole checkpoint; `--resume never` starts anew, `--resume FOLDER` goes on
from that one. Every field is an argument of transformers or TRL (`python recipes/sft.py --help`), or one of
evqa/training/arguments.py; what stands on the command line wins over the YAML file.
"""

import torch
from trl import TrlParser

from evqa.training import Mixture
from evqa.training.arguments import DataArguments, ModelArguments, TrainingArguments
from evqa.training.collator import UniPixelCollator
from evqa.training.evaluation import BenchmarkEvaluation, load_benchmark
from evqa.training.finish import finish
from evqa.training.models import load_model
from evqa.training.trainer import UniPixelTrainer


def main(model_args: ModelArguments, data_args: DataArguments, args: TrainingArguments) -> None:
    """Data, model, training, the end."""
    # Data: conversations, frames and masks out of every corpus that the mixture's YAML names.
    mixture = Mixture.from_yaml(data_args.mixture, data_args.data_root)
    benchmark = load_benchmark(data_args.benchmark, data_args.benchmark_split)

    # Model: frozen but for adapters and the modules that are tuned.
    model, processor = load_model(model_args, seed=args.seed)

    # Training: evaluated on the first entries of the benchmark, with the real metrics.
    trainer = UniPixelTrainer(
        model,
        args,
        mixture,
        UniPixelCollator(processor, model.config, args.max_length, args.pad_to_multiple_of or 1),
        processor,
        evaluation=BenchmarkEvaluation(
            benchmark,
            limit=data_args.benchmark_limit,
            batch_size=args.per_device_eval_batch_size,
            max_new_tokens=data_args.max_new_tokens,
            draw=args.log_masks,
        ),
        run_facts={"model": model_args.model_name_or_path},
    )
    trainer.train()

    # The end: all of the benchmark, the model, its card, and the Hub.
    rows = benchmark if data_args.final_benchmark else None
    finish(
        trainer,
        benchmark=rows,
        name=data_args.benchmark,
        base=model_args.model_name_or_path,
        max_new_tokens=data_args.max_new_tokens,
    )
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*TrlParser((ModelArguments, DataArguments, TrainingArguments)).parse_args_and_config())
