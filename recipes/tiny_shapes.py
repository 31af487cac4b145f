"""Teach a small UniPixel the drawn world of the sample benchmark, from random weights, in minutes on one GPU.

    python recipes/tiny_shapes.py --out runs/tiny_shapes --clips 1600 --minutes 7

A plain PyTorch loop over the same mixture, collator and loss as `recipes/sft.py`, short enough to be read: it makes its
clips on the spot (other ones than the sample's), trains for a given time, answers clips that it has not seen, and saves
the weights in bfloat16. It needs neither TRL nor `datasets`. Score what it made with

    evqa run --model unipixel --option model=runs/tiny_shapes --data evqa/st_evidence:sample --out runs/shapes
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

import evqa.models.unipixel as unipixel
from evqa import masks
from evqa.corpora import embedded
from evqa.models.unipixel.losses_unipixel import TERMS, WEIGHTS
from evqa.models.unipixel.media_unipixel import FrameList
from evqa.scoring import score
from evqa.training import FrameSampling, Mixture, MixtureConfig, MixtureSampler, Part, load_templates
from evqa.training.benchmark import answer_rows
from evqa.training.collator import UniPixelCollator

ROOT = Path(__file__).resolve().parents[1]

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--work", type=Path, default=Path("/tmp/tiny_shapes"), help="where the clips go: 6.6 MB each")
parser.add_argument("--clips", type=int, default=1600)
parser.add_argument("--minutes", type=float, default=7.0, help="of training; the learning rate ends at 0 then")
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--rate", type=float, default=1.5e-3)
parser.add_argument("--mask-weight", type=float, default=0.2)
parser.add_argument("--workers", type=int, default=14)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--held-out", type=int, default=36, help="clips that are answered in the end and never trained on")


def make_rows(work: Path, clips: int, seed: str, processes: int) -> tuple[list[dict], list[dict]]:
    """Draw clips; questions with options, segments and masks, and conversations, as rows of a mixture."""
    sys.path.insert(0, str(ROOT / "dataset_scripts" / "st_evidence" / "sample"))
    import make_training

    (work / "videos").mkdir(parents=True, exist_ok=True)
    asked, talks = [], []
    for made in make_training.make_clips(work, range(clips), seed=seed, processes=processes, samples=2, decoded=True):
        for entry in made.entries:
            pixels = str(work / "videos" / f"{entry['video_id']}.npy")
            frames = [{**mask, "time": mask["frame"] / entry["fps"]} for mask in made.masks[entry["entry_id"]]]
            index = entry["candidates"].index(entry["answer"])
            asked.append({**entry, "pixels": pixels, "masks": frames, "answer_index": index})
        turns = [
            {"role": {"human": "user", "gpt": "assistant"}[turn["from"]], "content": turn["value"]}
            for turn in made.talk["conversations"]
        ]
        talks.append(
            {
                "entry_id": made.talk["id"], "corpus": "talks", "messages": turns, "video_names": [made.talk["video"]],
                "pixels": pixels, "num_frames": entry["num_frames"], "fps": entry["fps"],
            }
        )  # fmt: skip
    return asked, talks


def evaluate(model, processor, rows, device) -> dict[str, float]:
    """Strict scores on rows whose clips are arrays or files."""
    model.eval()
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        said = answer_rows(model, processor, rows, batch_size=16)
    model.train()
    found = score(said, rows, bootstrap=0)
    names = ("accuracy", "mIoU", "J&F", "EBA@0.5")
    return {name: round(found[name], 1) for name in names} | {"failed": found["num_failed"]}


def held_out(row: dict) -> dict:
    """A row as a benchmark entry whose clip is an array; masks at the array's size."""
    clip = FrameList(np.load(row["pixels"]), fps=row["fps"])
    height, width = clip.info.height, clip.info.width
    small = [{**mask, "rle": masks.resize(masks.normalize(mask["rle"]), height, width)} for mask in row["masks"]]
    return {**row, "video": clip, "masks": small, "height": height, "width": width}


def main() -> None:
    """Data, model, training, scores."""
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True
    args.out.mkdir(parents=True, exist_ok=True)
    log = args.out / "log.jsonl"
    began = time.time()

    # Data: clips with other numbers than the sample's, and a few that are never trained on.
    asked, talks = make_rows(args.work, args.clips, f"train{args.seed}", args.workers + 2)
    unseen = [held_out(row) for row in make_rows(args.work, args.held_out, f"held{args.seed}", args.workers + 2)[0]]
    config = MixtureConfig(
        seed=args.seed, shuffle_options=True, isolate=False, frames=FrameSampling(72, tracked=4),
        templates=load_templates(ROOT / "recipes" / "configs" / "templates" / "benchmark.yaml"),
    )  # fmt: skip
    mixture = Mixture([Part(asked, "shapes"), Part(talks, "talks", 2)], config)
    note(log, {"made_s": round(time.time() - began), **mixture.type_sizes()})

    # Model: random weights. Each frame is segmented from the prompt alone: evidence often enters late.
    model, processor = unipixel.tiny(seed=args.seed)
    model.config.sam2_batch_mode = True
    model.to(device).train()
    model.runtime.supervised_logits = True
    sam2 = [w for n, w in model.named_parameters() if n.startswith("sam2.")]
    rest = [w for n, w in model.named_parameters() if not n.startswith("sam2.")]
    optimizer = torch.optim.AdamW(
        [{"params": rest}, {"params": sam2}], lr=args.rate, betas=(0.9, 0.95), weight_decay=0.02,
        fused=device == "cuda",
    )  # fmt: skip

    # Training: for so many minutes, whatever that is in steps.
    start, seconds, step, epoch = time.time(), args.minutes * 60, 0, 0
    sums = torch.zeros(6, device=device)
    while (elapsed := time.time() - start) < seconds:
        sampler = MixtureSampler(mixture, args.batch)
        sampler.set_epoch(epoch)
        loader = DataLoader(
            mixture, batch_sampler=sampler, num_workers=args.workers, pin_memory=device == "cuda",
            collate_fn=UniPixelCollator(processor, model.config, pad_to_multiple_of=64),
            prefetch_factor=4 if args.workers else None,
        )  # fmt: skip
        for batch in loader:
            elapsed = time.time() - start
            if elapsed >= seconds:
                break
            report = batch.pop("report")
            if report["failures"]:
                raise RuntimeError(report["failures"][0])
            rate = args.rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * elapsed / seconds))
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = to_device(batch, device)
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                out = model(
                    **batch, use_cache=False, num_items_in_batch=max(1, report["tokens"]),
                    num_masks_in_batch=max(1, report["masks"]),
                )  # fmt: skip
            terms = [getattr(out, f"{name}_loss") for name in TERMS]
            loss = out.lm_loss
            if terms[0] is not None:
                loss = loss + args.mask_weight * sum(w * term for w, term in zip(WEIGHTS, terms, strict=True))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(rest, 1.0)
            torch.nn.utils.clip_grad_norm_(sam2, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                kind = 0 if terms[0] is not None else 1
                sums[kind] += out.lm_loss
                sums[2 + kind] += 1
                if kind == 0:
                    sums[4] += terms[1]
                    sums[5] += out.correct_tokens / max(1, report["tokens"])
            step += 1
            if step % 50 == 0:
                s = sums.tolist()
                line = {
                    "step": step, "s": round(time.time() - start), "epoch": epoch,
                    "lm_evidence": round(s[0] / max(1, s[2]), 4), "lm_talk": round(s[1] / max(1, s[3]), 4),
                    "dice": round(s[4] / max(1, s[2]), 4), "token_accuracy": round(s[5] / max(1, s[2]), 4),
                }  # fmt: skip
                sums.zero_()
                note(log, line)
        epoch += 1

    # The end: weights in bfloat16, and scores of what will be shipped.
    model = model.to(torch.bfloat16)
    model.runtime.supervised_logits = False
    model.save_pretrained(args.out)
    processor.save_pretrained(args.out)
    model = model.float()
    results = {"steps": step, "train_s": round(time.time() - start), "clips": args.clips}
    results["held_out"] = evaluate(model, processor, unseen, device)
    note(log, results)
    sample = [row.read() for row in embedded.list_rows(embedded.folder())["test"]]
    results["sample"] = evaluate(model, processor, sample, device)
    results["total_s"] = round(time.time() - began)
    note(log, results)


def note(log: Path, line: dict) -> None:
    """Print a line of figures, and keep it."""
    print(json.dumps(line), flush=True)
    with open(log, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def to_device(value, device):
    """Tensors of a batch, wherever they are in it."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_device(item, device) for item in value)
    return value


if __name__ == "__main__":
    main()
