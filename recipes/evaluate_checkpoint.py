"""Everything that a trained checkpoint is measured by, in one command: ST-Evidence (answers with evidence, and multiple
choice) and the referring sets.

    python recipes/evaluate_checkpoint.py runs/3b_base --out runs/3b_base/evaluation --data-root /data
    torchrun --nproc_per_node gpu recipes/evaluate_checkpoint.py runs/3b_base --out ... --data-root /data
    python recipes/evaluate_checkpoint.py tiny --out runs/tiny --sets gen --benchmark evqa/st_evidence:sample --limit 2

Each set can be stopped and gone on with: the same command again does what is missing. `summary.json` in the folder has
all numbers with their intervals; what could not be measured is named in it, and makes the exit code 1.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import evqa
from evqa import engine
from evqa.adapters.unipixel import UniPixel
from evqa.errors import EvqaError
from evqa.models.unipixel.inference_unipixel import UniPixelInference
from evqa.report.table import score_table
from evqa.scoring import EntryScore, score
from evqa.training.evaluation import load_benchmark
from evqa.training.referring import METRICS, score_referring, summarize

#: Set -> (corpus, options, folder below --data-root): the splits of the original's own evaluation.
REFERRING = {
    "revos": ("revos", {"split": "valid"}, "revos"),
    "mevis": ("mevis", {"split": "valid_u"}, "mevis"),
    "ref_davis17": ("ref_davis17", {"split": "valid"}, "ref_davis17"),
    "ref_sav": ("ref_sav", {"split": "train"}, "."),
    "groundmore": ("groundmore", {"split": "test"}, "groundmore"),
}


def main(args: argparse.Namespace) -> int:
    """Measure every set; 0 if all were."""
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    summary: dict[str, dict] = {}
    for name in args.sets:
        try:
            if name in REFERRING:
                summary[name] = referring(name, args, rank, world_size)
            else:
                summary[name] = benchmark(name, args, rank, world_size)
        except EvqaError as error:
            summary[name] = {"not_measured": str(error)}
    if rank == 0:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
        print(json.dumps(summary, indent=1))
    return int(any("not_measured" in numbers for numbers in summary.values()))


def benchmark(task: str, args: argparse.Namespace, rank: int, world_size: int) -> dict:
    """ST-Evidence, through the runner."""
    rows = load_benchmark(args.benchmark, args.split, task=task)
    adapter = UniPixel(
        args.checkpoint, base_model_path=args.base, max_tokens=args.max_tokens, batch_size=args.batch_size
    )
    run = engine.run(
        adapter, rows, args.out / task, task=task, limit=args.limit, rank=rank, world_size=world_size,
        data_name={"name": args.benchmark, "split": args.split},
    )  # fmt: skip
    if args.limit is not None:
        rows = rows.select(range(min(args.limit, len(rows))))
    scores = score(run.log.predictions(), rows, task=task)
    if rank == 0:
        print(score_table({task: scores}))
    return {**scores, "intervals": {name: list(pair) for name, pair in scores.intervals.items()}}


def referring(name: str, args: argparse.Namespace, rank: int, world_size: int) -> dict:
    """J and F of a referring set."""
    corpus, options, folder = REFERRING[name]
    rows = evqa.load_dataset(corpus, data_dir=str(args.data_root / folder), **options)
    if args.limit is not None:
        rows = rows.select(range(min(args.limit, len(rows))))
    inference = UniPixelInference(args.checkpoint, base_model_path=args.base)
    record = args.out / "referring" / f"{name}.rank{rank}.jsonl"
    entries: list[EntryScore] = score_referring(inference, rows, record, rank=rank, world_size=world_size)
    if world_size > 1:
        import torch.distributed as dist

        if not dist.is_initialized():
            dist.init_process_group("gloo")
        parts: list = [None] * world_size
        dist.all_gather_object(parts, entries)
        entries = [entry for part in parts for entry in part]
    numbers = summarize(entries)
    if rank == 0:
        print(name, "  ".join(f"{metric} {numbers[metric]:.1f}" for metric in METRICS))
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder or Hub id; `tiny` is a small model of random weights")
    parser.add_argument("--out", type=Path, required=True, help="where records and numbers go")
    parser.add_argument("--base", help="base of a checkpoint that holds an adapter or trained modules only")
    parser.add_argument("--sets", nargs="+", choices=["gen", "mcq", *REFERRING], default=["gen", "mcq", *REFERRING])
    parser.add_argument("--benchmark", default="evqa/st_evidence", help="name:config, or a folder of the release")
    parser.add_argument("--split", default="test")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="folder of the referring corpora")
    parser.add_argument("--limit", type=int, help="only the first so many rows of each set")
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=4)
    sys.exit(main(parser.parse_args()))
