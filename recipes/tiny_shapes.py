"""Teach a small UniPixel the drawn world of the sample benchmark, from random weights, in minutes on one GPU.

    python recipes/tiny_shapes.py --out runs/tiny_shapes --minutes 8

A plain PyTorch loop over the words, collator and loss of `recipes/sft.py`, made for clips this small: they are drawn
while it trains (other ones than the sample's), kept on the device and cut into patches there, and all questions about a
clip share one row. It trains for a given time, answers clips that it has not seen and the sample, and saves the weights
in bfloat16. Needs neither TRL nor `datasets`. Score what it made like any model:

    evqa run --model unipixel --option model=runs/tiny_shapes --data evqa/st_evidence:sample --out runs/shapes
"""

import argparse
import concurrent.futures
import json
import math
import time
from pathlib import Path

import torch
from drawn_clips import ClipRows, Collator, World, draws
from shapes_step import Step, to_device
from torch.utils.data import DataLoader

import evqa.models.unipixel as unipixel
from evqa.corpora import embedded
from evqa.models.unipixel.media_unipixel import Geometry, fit
from evqa.scoring import score
from evqa.training import load_templates
from evqa.training.benchmark import answer_rows

#: Frames that a clip can have.
LENGTHS = (54, 60)
TEMPLATES = Path(__file__).resolve().parent / "configs" / "templates" / "benchmark.yaml"

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--work", type=Path, default=Path("/tmp/tiny_shapes"), help="where clips wait to be taken in")
parser.add_argument("--clips", type=int, default=6000, help="most clips that are drawn: 9 MB of device memory each")
parser.add_argument("--first", type=int, default=400, help="training begins with so many clips; the rest come later")
parser.add_argument("--held-out", type=int, default=18, help="clips that are answered in the end and never trained on")
parser.add_argument("--minutes", type=float, default=8, help="of training; the learning rate ends at 0 then")
parser.add_argument("--steps", type=int, default=10**9, help="end after so many steps, if they come first")
parser.add_argument("--batch", type=int, default=32, help="clips a step")
parser.add_argument("--questions", type=int, default=3, help="of each clip")
parser.add_argument("--length", type=int, default=2624, help="tokens a row")
parser.add_argument("--move", type=int, default=8, help="shift clips by up to so many pixels of 256 x 144")
parser.add_argument("--tracked", type=int, default=4, help="frames of each clip that SAM 2 sees in a step")
parser.add_argument("--rate", type=float, default=1.5e-3)
parser.add_argument("--warmup", type=int, default=150, help="steps")
parser.add_argument("--mask-weight", type=float, default=0.2, help="of the mask loss against that of words")
parser.add_argument("--processes", type=int, default=9, help="that draw clips")
parser.add_argument("--workers", type=int, default=6, help="that make batches")
parser.add_argument("--compile", action="store_true", help="compile the layers of language model and vision tower")
parser.add_argument("--profile", type=int, default=0, help="print where so many steps spend their time, then go on")
parser.add_argument("--seed", type=int, default=0, help="of the weights and of the clips")
parser.add_argument("--no-scores", action="store_true", help="save the weights and score nothing")
parser.add_argument("--weights", type=Path, help="go on from what this recipe saved, instead of random weights")


def evaluate(model, processor, rows) -> dict[str, float]:
    """Strict scores, in float32."""
    model.eval()
    said = answer_rows(model, processor, rows, batch_size=16, max_new_tokens=320)
    found = score(said, rows, bootstrap=0)
    names = ("accuracy", "mIoU", "J&F", "EBA@0.5")
    scores = {name: round(found[name], 1) for name in names}
    return scores | {"failed": found["num_failed"], "entries": len(rows), "said": [one.raw_text for one in said[:4]]}


def compile_layers(model) -> list:
    """Compile what every token goes through; returns the layers, for :func:`plain_layers`."""
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 64
    layers = [*model.model.language_model.layers, *model.model.visual.blocks]
    for layer in layers:
        layer.forward = torch.compile(layer.forward, dynamic=False)
    return layers


def plain_layers(layers: list) -> None:
    """Undo :func:`compile_layers`: replies have other shapes at every token."""
    for layer in layers:
        del layer.forward


class Log:
    """Means over some steps, without a wait for the device in each."""

    def __init__(self, file: Path, device: str, every: int = 100):
        self.file, self.every, self.start = file, every, time.time()
        self.sums = torch.zeros(4, device=device)

    def step(self, step: int, terms: torch.Tensor, **more) -> None:
        """Add a step's terms."""
        self.sums += terms
        if step % self.every == 0:
            names = ("lm", "dice", "presence", "token_accuracy")
            means = {k: round(v / self.every, 4) for k, v in zip(names, self.sums.tolist(), strict=True)}
            self.sums.zero_()
            self.note({"step": step, "s": round(time.time() - self.start), **more, **means})

    def note(self, line: dict) -> None:
        """Print a line, and keep it."""
        print(json.dumps(line), flush=True)
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def main() -> None:
    """Data, model, training, scores."""
    args = parser.parse_args()
    for name in ("clips", "first", "batch", "questions", "tracked", "processes"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} is at least 1")
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
    square = model.config.sam2_image_size
    unseen = World(args.work / "unseen", f"held{args.seed}", pool, device, square)
    world = World(args.work / "train", f"train{args.seed}", pool, device, square)
    world.draw(range(args.first))
    unseen.draw(range(args.held_out))
    world.draw(range(args.first, args.clips))

    # Model: random weights, or earlier ones. Each frame is segmented from the prompt alone: evidence often enters late.
    if args.weights is not None:
        model = unipixel.UniPixelForConditionalGeneration.from_pretrained(args.weights, dtype=torch.float32)
    model.config.sam2_batch_mode = True
    model.to(device).train()
    grids = {n: (-(-n // 2), size[0] // geometry.patch, size[1] // geometry.patch) for n in LENGTHS}
    step = Step(model, processor, args.batch, args.tracked, args.questions, args.mask_weight, grids)
    layers = compile_layers(model) if args.compile else []
    while world.take_in() < min(args.first, args.clips):
        time.sleep(0.2)
    log = Log(args.out / "log.jsonl", device)
    log.note({"first_clips_s": round(time.time() - began), "clips": len(world.frames)})

    rows = ClipRows(world.work, processor, load_templates(TEMPLATES), args.tracked, args.questions, args.seed)
    loader = DataLoader(
        rows, batch_sampler=draws(world, args.batch, args.seed), num_workers=args.workers,
        collate_fn=Collator(processor, model.config, max_length=args.length, pad_to_multiple_of=args.length),
        prefetch_factor=4 if args.workers else None, pin_memory=device == "cuda",
    )  # fmt: skip
    profiler = torch.profiler.profile() if args.profile else None
    start = log.start = time.time()
    for number, collated in enumerate(loader, start=1):
        done = max((time.time() - start) / (args.minutes * 60), (number - 1) / args.steps)
        if done >= 1:
            break
        world.take_in(most=4)
        rate = args.rate * min(1.0, number / args.warmup) * 0.5 * (1 + math.cos(math.pi * done))
        batch = to_device(collated, world, geometry, size, step, args.move)
        terms = step(len(world.frames[collated["clips"][0]]), batch, rate)
        log.step(number, terms, clips=len(world.frames))
        if profiler is not None and number in (60, 60 + args.profile):
            _profile(profiler, number == 60)
    pool.shutdown(wait=False, cancel_futures=True)
    del loader

    # The end: weights in bfloat16, and scores of what will be shipped.
    plain_layers(layers)
    model = model.to(torch.bfloat16)
    model.runtime = type(model.runtime)()
    model.save_pretrained(args.out)
    processor.save_pretrained(args.out)
    model = model.float()
    results = {"steps": number - 1, "train_s": round(time.time() - start), "clips": len(world.frames)}
    if device == "cuda":
        results["peak_GiB"] = round(torch.cuda.max_memory_reserved() / 2**30, 1)
    if args.no_scores:
        log.note(results)
        return
    sample = [row.read() for row in embedded.list_rows(embedded.folder())["test"]]
    results["sample"] = evaluate(model, processor, sample)
    log.note(results)
    unseen.take_in()
    results["held_out"] = evaluate(model, processor, unseen.entries())
    results["total_s"] = round(time.time() - began)
    log.note(results)


def _profile(profiler, begin: bool) -> None:
    if begin:
        profiler.start()
        return
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    profiler.stop()
    order = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    print(profiler.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=60), flush=True)


if __name__ == "__main__":
    main()
