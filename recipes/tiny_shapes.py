"""Teach a small UniPixel the drawn world of the sample benchmark, from random weights, in minutes on one GPU.

    python recipes/tiny_shapes.py --out runs/tiny_shapes --clips 1500 --minutes 7.5

A plain PyTorch loop over the same mixture, words and loss as `recipes/sft.py`, and faster for clips this small: they
are drawn while it trains (other ones than the sample's), kept on the device, and cut into patches there. It trains for
a given time, answers clips that it has not seen and the sample, and saves the weights in bfloat16. Needs neither TRL
nor `datasets`. Score what it made like any model:

    evqa run --model unipixel --option model=runs/tiny_shapes --data evqa/st_evidence:sample --out runs/shapes
"""

import argparse
import concurrent.futures
import functools
import json
import random
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

import evqa.models.unipixel as unipixel
from evqa import masks
from evqa.corpora import embedded
from evqa.models.unipixel.losses_unipixel import TERMS, WEIGHTS
from evqa.models.unipixel.media_unipixel import ClipFrames, FrameList, Geometry, fit, patchify
from evqa.prompts import lettered
from evqa.scoring import score
from evqa.scoring.answers import LETTERS
from evqa.training import FrameSampling, Mixture, MixtureConfig, MixtureSampler, Part, load_templates
from evqa.training.benchmark import answer_rows
from evqa.training.collator import UniPixelCollator
from evqa.video.info import VideoInfo

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "dataset_scripts" / "st_evidence" / "sample"))
import make_training  # noqa: E402

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--work", type=Path, default=Path("/tmp/tiny_shapes"), help="where the clips go: 6.6 MB each")
parser.add_argument("--clips", type=int, default=1500)
parser.add_argument("--first", type=int, default=240, help="training begins with so many clips; the rest come later")
parser.add_argument("--held-out", type=int, default=18, help="clips that are answered in the end and never trained on")
parser.add_argument("--minutes", type=float, default=7.5, help="of training; the learning rate ends at 0 then")
parser.add_argument("--batch", type=int, default=48)
parser.add_argument("--rate", type=float, default=1.5e-3)
parser.add_argument("--mask-weight", type=float, default=0.2, help="of the mask loss against that of words")
parser.add_argument("--processes", type=int, default=10, help="that draw clips")
parser.add_argument("--workers", type=int, default=5, help="that make batches")
parser.add_argument("--seed", type=int, default=0, help="of the weights and of the clips")
parser.add_argument("--weights", type=Path, help="go on from what this recipe saved, instead of random weights")


class Shapes:
    """Clips as they are drawn: rows for a mixture, and frames on the device.

    ``frames[video]``: uint8 ``[frames, 3, 144, 256]`` for SAM 2, and ``[frames, 3, 120, 240]`` for the language model.
    """

    def __init__(self, work: Path, seed: str, pool: concurrent.futures.Executor, device: str, size: tuple[int, int]):
        (work / "videos").mkdir(parents=True, exist_ok=True)
        self.work, self.device, self.size = work, device, size
        self.make = functools.partial(make_training.make_clip, work, seed, 2, True)
        self.pool, self.done, self.lock = pool, [], threading.Lock()
        self.asked, self.talks, self.letters, self.frames = [], [], [], {}

    def draw(self, count: int) -> None:
        """Ask for clips; they are taken in when they are there."""
        for number in range(count):
            self.pool.submit(self.make, number).add_done_callback(self._arrived)

    def _arrived(self, future: concurrent.futures.Future) -> None:
        if not future.cancelled():
            with self.lock:
                self.done.append(future)

    def take_in(self) -> int:
        """Put what has arrived among the rows and onto the device; the number of clips so far."""
        from torchvision.transforms.v2 import functional as tv

        with self.lock:
            arrived, self.done = self.done, []
        for future in arrived:
            made = future.result()
            path = self.work / "videos" / f"{made.talk['id']}.npy"
            pixels = torch.from_numpy(np.load(path)).permute(0, 3, 1, 2).contiguous().to(self.device)
            path.unlink()
            small = tv.resize(pixels, list(self.size), interpolation=tv.InterpolationMode.BICUBIC, antialias=True)
            self.frames[made.talk["id"]] = (pixels, small)
            for entry in made.entries:
                frames = [{**mask, "time": None} for mask in made.masks[entry["entry_id"]]]
                index = entry["candidates"].index(entry["answer"])
                self.asked.append({**entry, "pixels": "on the device", "masks": frames, "answer_index": index})
                self.letters += [letter_row(entry, number) for number in range(4)]
            turns = [
                {"role": {"human": "user", "gpt": "assistant"}[turn["from"]], "content": turn["value"]}
                for turn in made.talk["conversations"]
            ]
            self.talks.append(
                {
                    "entry_id": made.talk["id"], "messages": turns, "video_names": [made.talk["video"]],
                    "pixels": "on the device", "num_frames": len(pixels), "fps": entry["fps"],
                    "height": entry["height"], "width": entry["width"],
                }
            )  # fmt: skip
        return len(self.talks)


def letter_row(entry: dict, number: int) -> dict:
    """The answer is told; which letter is it? That is learnt sooner where nothing has to be seen for it."""
    name = f"{entry['entry_id']}/letter{number}"
    options = make_training.options.shuffled(entry["candidates"], random.Random(name))
    ask = f"The answer is: {entry['answer']}\nOptions:\n{lettered(options)}\nGive the letter of the right option."
    reply = f"Answer: {LETTERS[options.index(entry['answer'])]}."
    turns = [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]
    return {"entry_id": name, "messages": turns, "video_names": [], "image_names": []}


class Collator(UniPixelCollator):
    """The collator, but for the pixels: it says which clip and which frames, and the loop puts them in."""

    rows = None  # entry id -> row

    def __call__(self, places):
        """See the base."""
        batch = super().__call__(places)
        batch["report"]["clips"] = [
            (self.rows[place.entry_id].get("video_id", place.entry_id), place.tracked)
            for place in places
            if place.data_type != "text"
        ]
        return batch

    def _encode(self, place):
        sample, row = place.sample, self.rows[place.sample.entry_id]
        if sample.data_type == "text":
            return super()._encode(place)
        times = np.arange(row["num_frames"]) / row["fps"]
        info = VideoInfo.from_times("<drawn>", times, 1 / row["fps"], height=row["height"], width=row["width"])
        geometry = Geometry.of(self.processor.video_processor)
        budget = self.processor.budget(len(times))
        h, w = (side // geometry.patch for side in fit(info.height, info.width, geometry.cell, *budget))
        tracked = np.asarray(sample.tracked, np.int64)
        clip = ClipFrames(
            info, torch.zeros(0, 3 * geometry.temporal_patch * geometry.patch**2), (len(times) // 2, h, w), times,
            times[::2], torch.zeros(len(tracked), 0, dtype=torch.uint8) if sample.masks else None, tracked,
            times[tracked],
        )  # fmt: skip
        messages = [
            {**m, "content": [{"type": "video", "video": clip} if c["type"] == "video" else c for c in m["content"]]}
            for m in sample.conversation.messages
        ]
        targets = [
            [{"frame": f, "time": None, "rle": m} for f, m in zip(sample.tracked, own, strict=True) if m is not None]
            for own in sample.masks
        ]
        own = self.processor.encode(messages, targets=targets or None, labels=True)
        del own["clip"]
        return own


def fill_in(batch: dict, shapes: Shapes, geometry: Geometry) -> dict:
    """Move a batch to the device, and put the pixels of its clips into it."""
    clips = batch.pop("report")["clips"]
    batch = {name: _moved(value, shapes.device) for name, value in batch.items()}
    if clips:
        patches = [patchify(shapes.frames[video][1], geometry)[0] for video, _ in clips]
        batch["pixel_values_videos"] = torch.cat(patches)
    if "frames" in batch:
        batch["frames"] = [shapes.frames[video][0][torch.as_tensor(t, device=shapes.device)] for video, t in clips]
    return batch


def _moved(value, device):
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    return [_moved(item, device) for item in value] if isinstance(value, list) else value


def evaluate(model, processor, rows) -> dict[str, float]:
    """Strict scores, in float32."""
    model.eval()
    said = answer_rows(model, processor, rows, batch_size=16)
    found = score(said, rows, bootstrap=0)
    names = ("accuracy", "mIoU", "J&F", "EBA@0.5")
    return {name: round(found[name], 1) for name in names} | {"failed": found["num_failed"], "entries": len(rows)}


def as_entries(shapes: Shapes) -> list[dict]:
    """Rows as benchmark entries, with their clips, and masks of their size."""
    out = []
    for row in shapes.asked:
        clip = FrameList(shapes.frames[row["video_id"]][0], fps=row["fps"])
        height, width = clip.info.height, clip.info.width
        small = [{**mask, "rle": masks.resize(masks.normalize(mask["rle"]), height, width)} for mask in row["masks"]]
        out.append({**row, "video": clip, "masks": small, "height": height, "width": width})
    return out


def note(out: Path, line: dict) -> None:
    """Print a line of figures, and keep it."""
    print(json.dumps(line), flush=True)
    with open(out / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def main() -> None:
    """Data, model, training, scores."""
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    began = time.time()

    # The processes that draw are started before there is a device to be forked along.
    pool = concurrent.futures.ProcessPoolExecutor(args.processes)
    pool.submit(int).result()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    model, processor = unipixel.tiny(seed=args.seed)
    geometry = Geometry.of(processor.video_processor)
    size = fit(216, 384, geometry.cell, *processor.budget(60))
    unseen = Shapes(args.work, f"held{args.seed}", pool, device, size)
    shapes = Shapes(args.work, f"train{args.seed}", pool, device, size)
    unseen.draw(args.held_out)
    shapes.draw(args.clips)

    # Model: random weights, or earlier ones. Each frame is segmented from the prompt alone: evidence often enters late.
    if args.weights is not None:
        model = unipixel.UniPixelForConditionalGeneration.from_pretrained(args.weights, dtype=torch.float32)
    model.config.sam2_batch_mode = True
    model.to(device).train()
    model.runtime.supervised_logits = True
    sam2 = [w for n, w in model.named_parameters() if n.startswith("sam2.")]
    rest = [w for n, w in model.named_parameters() if not n.startswith("sam2.")]
    optimizer = torch.optim.AdamW(
        [{"params": rest}, {"params": sam2}], lr=args.rate, betas=(0.9, 0.95), weight_decay=0.02,
        fused=device == "cuda",
    )  # fmt: skip
    config = MixtureConfig(
        seed=args.seed, shuffle_options=True, say_option=True, read_frames=False, frames=FrameSampling(72, tracked=4),
        templates=load_templates(ROOT / "recipes" / "configs" / "templates" / "benchmark.yaml"),
    )  # fmt: skip
    while shapes.take_in() < min(args.first, args.clips):
        time.sleep(0.5)
    note(args.out, {"first_clips_s": round(time.time() - began), "clips": len(shapes.talks)})

    # Training: for so many minutes, whatever that is in steps; an epoch has the clips that were there at its start.
    start, seconds, step, epoch = time.time(), args.minutes * 60, 0, 0
    sums = torch.zeros(8, device=device)  # of three kinds of batches: losses, counts; dice, accuracy
    while time.time() - start < seconds:
        shapes.take_in()
        parts = [
            Part(list(shapes.asked), "shapes"),
            Part(list(shapes.talks), "talks", 2),
            Part(list(shapes.letters), "letters"),
        ]
        mixture = Mixture(parts, config)
        collator = Collator(processor, model.config, pad_to_multiple_of=64)
        collator.rows = {row["entry_id"]: row for row in (*shapes.asked, *shapes.talks, *shapes.letters)}
        sampler = MixtureSampler(mixture, args.batch)
        sampler.set_epoch(epoch)
        loader = DataLoader(
            mixture, batch_sampler=sampler, num_workers=args.workers, collate_fn=collator,
            prefetch_factor=8 if args.workers else None,
        )  # fmt: skip
        for batch in loader:
            elapsed = time.time() - start
            if elapsed >= seconds:
                break
            report = batch["report"]
            if report["failures"]:
                raise RuntimeError(report["failures"][0])
            rate = args.rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * elapsed / seconds))
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = fill_in(batch, shapes, geometry)
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
                kind = ("evidence", "video", "text").index(report["data_type"])
                sums[kind] += out.lm_loss
                sums[3 + kind] += 1
                if terms[0] is not None:
                    sums[6] += terms[1]
                    sums[7] += out.correct_tokens / max(1, report["tokens"])
            step += 1
            if step % 50 == 0:
                s = sums.tolist()
                sums.zero_()
                means = [total / max(1, count) for total, count in zip(s[:3], s[3:6], strict=True)]
                line = {
                    "step": step, "s": round(time.time() - start), "epoch": epoch, "clips": len(parts[1].rows),
                    **{f"lm_{n}": round(v, 4) for n, v in zip(("evidence", "talk", "letters"), means, strict=True)},
                    "dice": round(s[6] / max(1, s[3]), 4), "token_accuracy": round(s[7] / max(1, s[3]), 4),
                }  # fmt: skip
                note(args.out, line)
        epoch += 1
    pool.shutdown(wait=False, cancel_futures=True)

    # The end: weights in bfloat16, and scores of what will be shipped.
    model = model.to(torch.bfloat16)
    model.runtime.supervised_logits = False
    model.save_pretrained(args.out)
    processor.save_pretrained(args.out)
    model = model.float()
    results = {"steps": step, "train_s": round(time.time() - start), "clips": len(shapes.talks)}
    sample = [row.read() for row in embedded.list_rows(embedded.folder())["test"]]
    results["sample"] = evaluate(model, processor, sample)
    note(args.out, results)
    unseen.take_in()
    results["held_out"] = evaluate(model, processor, as_entries(unseen))
    results["total_s"] = round(time.time() - began)
    note(args.out, results)


if __name__ == "__main__":
    main()
