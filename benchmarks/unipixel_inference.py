"""Speed of UniPixel at true size with random weights: stage by stage, and from question to masks.

    python benchmarks/unipixel_inference.py                 # both ways of running, one after the other
    python benchmarks/unipixel_inference.py --plain         # the baseline alone: what transformers does by itself
    python benchmarks/unipixel_inference.py --only agreement  # what the fast way changes, and nothing else
    python benchmarks/unipixel_inference.py --tiny          # seconds on a CPU; the figures mean nothing

The workload: Qwen2.5-VL 3B with hiera-base+ at 768; the language model sees 32 frames of 28 x 38 patches, SAM 2 tracks
180 frames (uint8, 270 x 480, in host memory), 32 new tokens, the ``<seg>`` tokens in the prompt, masks at 270 x 480.
"Decode of video" reads such a clip from a file; the rest starts from its frames.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from evqa.models.unipixel import UniPixelConfig, UniPixelForConditionalGeneration, UniPixelSam2Config
from evqa.models.unipixel.collecting_unipixel import MaskWriter
from evqa.models.unipixel.encoding_unipixel import encode_clips, prepare_frames
from evqa.models.unipixel.runtime_unipixel import Runtime
from evqa.models.unipixel.tracking_unipixel import Tracker, track

TEXT = {
    "3b": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
           "num_key_value_heads": 2, "tie_word_embeddings": True, "vocab_size": 151936},
    "7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "tie_word_embeddings": False, "vocab_size": 152064},
    "tiny": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 1, "tie_word_embeddings": True, "vocab_size": 151936},
}  # fmt: skip


def build(args: argparse.Namespace) -> UniPixelForConditionalGeneration:
    text = TEXT["tiny" if args.tiny else args.size]
    head = text["hidden_size"] // text["num_attention_heads"]
    sections = [head // 8, head // 16 * 3, head // 16 * 3]
    vision = {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420}
    if args.tiny:
        vision = {"depth": 2, "hidden_size": 64, "num_heads": 2, "intermediate_size": 64}
    sam2 = UniPixelSam2Config.from_preset("tiny" if args.tiny else args.sam2, image_size=128 if args.tiny else 768)
    config = UniPixelConfig(
        text_config={
            **text, "max_position_embeddings": 128000,
            "rope_parameters": {"rope_type": "default", "mrope_section": sections, "rope_theta": 1e6},
        },
        vision_config={
            **vision, "out_hidden_size": text["hidden_size"], "fullatt_block_indexes": [7, 15, 23, 31],
            "tokens_per_second": 2, "window_size": 112, "spatial_patch_size": 14,
        },
        tie_word_embeddings=text["tie_word_embeddings"], sam2_video_config=sam2, image_token_id=151655,
        video_token_id=151656, vision_start_token_id=151652, vision_end_token_id=151653,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(args.device):
        model = UniPixelForConditionalGeneration._from_config(config, dtype=args.dtype, attn_implementation="sdpa")
    # Draw SAM 2 wide enough that masks depend on frames and prompts: default weights give constant ones.
    with torch.no_grad():
        for parameter in model.sam2.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
        model.sam2.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(3.0)
    return model.eval()


def workload(model, args: argparse.Namespace, objects: int) -> tuple[dict, dict]:
    """Inputs of ``generate``, those for the text and those for the masks."""
    config, (t, h, w) = model.config, args.grid
    draw = torch.Generator().manual_seed(1)
    ids = [config.vision_start_token_id, *[config.video_token_id] * (t * h * w // 4), config.vision_end_token_id]
    ids += torch.randint(0, 150000, (40,), generator=draw).tolist()
    for _ in range(objects):
        ids += [*torch.randint(0, 150000, (2,), generator=draw).tolist(), config.seg_token_id]
    ids += torch.randint(0, 150000, (4,), generator=draw).tolist()
    text = {
        "input_ids": torch.tensor([ids], device=args.device),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long, device=args.device),
        "pixel_values_videos": torch.randn(t * h * w, 1176, generator=draw).to(args.device, args.dtype),
        "video_grid_thw": torch.tensor([args.grid], device=args.device),
        "second_per_grid_ts": torch.tensor([2.0]),
    }
    clip = torch.randint(0, 256, (args.frames, 3, *args.frame_size), generator=draw, dtype=torch.uint8)
    return text, {"frames": [clip], "frame_size": [args.frame_size]}


class Clock:
    """Medians of timed functions, with the arithmetic that they do."""

    def __init__(self, args: argparse.Namespace, warm: int):
        self.cuda, self.repeats, self.warm = args.device == "cuda", args.repeats, warm
        self.rows: list[dict] = []

    def measure(self, function) -> float:
        for _ in range(self.warm):
            function()
        seconds = []
        for _ in range(self.repeats):
            self.sync()
            start = time.perf_counter()
            function()
            self.sync()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)

    def sync(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def row(self, name: str, seconds: float, per: int = 1, unit: str = "", flops: float = 0) -> None:
        rate = f"{flops / seconds / 1e12:7.1f} TFLOP/s" if flops else ""
        each = f"{seconds / per * 1e3:9.3f} ms/{unit}" if per > 1 else ""
        print(f"  {name:34s} {seconds:8.4f} s {each:22s} {rate}", flush=True)
        self.rows.append({"stage": name, "seconds": seconds, "per": per, "flops": flops})


def decode_of_video(args: argparse.Namespace, clock: Clock) -> None:
    """All frames of a clip of the workload's size: a moving texture of ours, in a file with a new name each time."""
    from evqa.video import installed_backends, probe, read_frames, write_clip

    if "pyav" not in installed_backends():
        print("  decode of video: skipped, no decoder is installed (pip install av)")
        return
    height, width = args.frame_size
    rows, columns = np.mgrid[:height, :width]
    pictures = (
        np.stack([columns + 3 * i, rows + 2 * i, rows + columns + i], axis=-1).astype(np.uint8)
        for i in range(args.frames)
    )
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        write_clip(clip, pictures, 6)
        times = [(i + 0.5) / 6 for i in range(args.frames)]
        names = iter(range(1000))

        def read() -> None:
            alias = clip.with_name(f"{next(names)}.mp4")
            alias.symlink_to(clip)
            probe(alias)
            assert len(read_frames(alias, times)) == args.frames

        read()  # a process of its own decodes: it starts once
        clock.row("decode of video", clock.measure(read), args.frames, "frame")


def count_flops(function) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        function()
    return float(counter.get_total_flops())


def arithmetic_of_text(model, args: argparse.Namespace) -> dict[str, float]:
    """Operations of the language model; the counter cannot count attention whose heads share keys."""
    text = model.config.text_config
    weights = sum(p.numel() for p in model.model.language_model.layers.parameters())
    tokens = workload(model, args, 1)[0]["input_ids"].shape[1]
    head = 2 * text.hidden_size * text.vocab_size
    attention = 4 * text.hidden_size * text.num_hidden_layers  # per query and key
    return {
        "prefill": 2.0 * weights * tokens + attention * tokens**2 / 2 + head,
        "decoding": args.new_tokens * (2.0 * weights + attention * tokens + head),
    }


def stages(model, args: argparse.Namespace, clock: Clock, flops: dict[str, float]) -> None:
    text, masks = workload(model, args, 1)
    ids, clip, sam2 = text["input_ids"], masks["frames"][0], model.sam2

    def timed(name, function, per=1, unit=""):
        if args.count and name not in flops:
            runtime, model.runtime = model.runtime, Runtime.plain()  # replayed graphs cannot be counted
            flops[name] = count_flops(function)
            model.runtime = runtime
        clock.row(name, clock.measure(function), per, unit, flops.get(name, 0))

    timed("vision tower", lambda: model._look(text["pixel_values_videos"], text["video_grid_thw"]))
    embeds = model.embed(ids, **{k: text[k] for k in ("pixel_values_videos", "video_grid_thw")})
    positions = model._positions(ids, embeds, None, None, None, text["video_grid_thw"], [2.0], None)
    timed(
        "prefill",
        lambda: model(inputs_embeds=embeds, position_ids=positions, use_cache=True, logits_to_keep=1),
        ids.shape[1], "token",
    )  # fmt: skip
    plain_text = {"input_ids": ids % 150000, "attention_mask": text["attention_mask"], "do_sample": False}
    few, many = (
        clock.measure(lambda n=n: model.generate(**plain_text, min_new_tokens=n, max_new_tokens=n))
        for n in (2, 2 + args.new_tokens)
    )
    clock.row("decoding", many - few, args.new_tokens, "token", flops.get("decoding", 0))
    part = clip[:16]
    timed(
        "frames to the device, resized",
        lambda: prepare_frames(part, sam2.config.image_size, ids.device, args.dtype), 16, "frame",
    )  # fmt: skip
    ready = prepare_frames(part, sam2.config.image_size, ids.device, args.dtype)
    timed("SAM 2 encoder", lambda: sam2.encode(ready), 16, "frame")
    for objects in args.objects:
        prompts = torch.randn(objects, 2, sam2.config.hidden_size, device=ids.device, dtype=args.dtype)
        features = encode_clips(sam2, [part], 0, 16, 16, ids.device, args.dtype)

        def tracking(prompts=prompts, features=features, objects=objects):
            from evqa.models.unipixel.fixed_tracking_unipixel import fixed_tracker

            if model.runtime.uses_fixed_steps(ids.device):
                tracker = fixed_tracker(sam2, prompts, [0] * objects, 1, 64, batch_mode=False)
            else:
                tracker = Tracker(sam2, prompts, None, 64)
            for i in range(64):
                tracker.step(features.map(lambda level, i=i: level[:, i % 16]))

        timed(f"tracking, {objects} object(s)", tracking, 64, "frame")
    (step,) = list(track(sam2, [clip[:1]], [0], prompts[:1], model.runtime))

    def returning():
        writer = MaskWriter([0], [args.frame_size], "tensor", logits=False, pointers=False, batch=16)
        for _ in range(args.frames):
            writer.add(step)
        writer.finish()

    timed("masks to the host, resized", returning, args.frames, "frame")


def whole(model, args: argparse.Namespace, clock: Clock) -> dict[str, float]:
    peaks = {}
    length = {"min_new_tokens": args.new_tokens, "max_new_tokens": args.new_tokens, "do_sample": False,
              "suppress_tokens": [model.config.seg_token_id]}  # fmt: skip
    for objects in (0, *args.objects):
        text, masks = workload(model, args, max(objects, 1))
        inputs = {**text, **(masks if objects else {})}
        if clock.cuda:
            torch.cuda.reset_peak_memory_stats()
        name = f"{objects} object(s), question to masks" if objects else "text only"
        clock.row(name, clock.measure(lambda inputs=inputs: model.generate(**inputs, **length)))
        if clock.cuda:
            peaks[name] = torch.cuda.max_memory_allocated() / 2**30
            print(f"    peak {peaks[name]:.1f} GiB")
    return peaks


@torch.no_grad()
def agreement(model, args: argparse.Namespace) -> dict[str, float]:
    """How far the two ways of running are apart, beside what bfloat16 itself does to the baseline."""
    text, masks = workload(model, args, 3)
    ids, found = text["input_ids"], {}
    tokens = [torch.randn(3, 2, model.sam2.config.hidden_size, device=ids.device, dtype=args.dtype)]
    clip = [masks["frames"][0][:40]]
    for name, runtime in (("plain", Runtime.plain()), ("fast", Runtime())):
        model.runtime = runtime
        for _ in range(3 if name == "fast" else 1):  # run, record, replay
            seen = model._look(text["pixel_values_videos"], text["video_grid_thw"]).pooler_output
            seen = seen if isinstance(seen, torch.Tensor) else torch.cat(list(seen))
            out = model.generate(
                **text, max_new_tokens=8, min_new_tokens=8, do_sample=False, frames=clip,
                frame_size=[args.frame_size], return_mask_logits=True,
            )  # fmt: skip
            segmented = model.segment(clip, tokens, [args.frame_size], return_mask_logits=True)
        found[name] = {
            "vision": seen.float(), "ids": out.sequences, "generated masks": out.mask_logits[0],
            "masks": segmented.mask_logits[0], "scores": segmented.object_scores[0],
        }  # fmt: skip
    exact = model.sam2.float()
    model.runtime = Runtime.plain()
    reference = model.segment(clip, [tokens[0].float()], [args.frame_size], return_mask_logits=True).mask_logits[0]
    model.sam2 = exact.to(args.dtype)
    plain, fast = found["plain"], found["fast"]

    def apart(a, b):
        return ((a - b).norm() / b.norm()).item()

    def overlap(a, b):
        a, b = a > 0, b > 0
        return ((a & b).sum() / (a | b).sum().clamp(min=1)).item()

    return {
        "vision, fast against plain": apart(fast["vision"], plain["vision"]),
        "generated ids that differ": (fast["ids"] != plain["ids"]).sum().item(),
        "masks, fast against plain": apart(fast["masks"], plain["masks"]),
        "masks, plain against float32": apart(plain["masks"], reference),
        "masks, fast against float32": apart(fast["masks"], reference),
        "IoU of masks, fast and plain": overlap(fast["masks"], plain["masks"]),
        "IoU of masks, plain and float32": overlap(plain["masks"], reference),
        "IoU of masks, fast and float32": overlap(fast["masks"], reference),
        "foreground": (plain["masks"] > 0).float().mean().item(),
    }


def profile(model, args: argparse.Namespace, file: Path) -> None:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    text, masks = workload(model, args, 1)
    sam2, ids = model.sam2, text["input_ids"]
    ready = prepare_frames(masks["frames"][0][:16], sam2.config.image_size, ids.device, args.dtype)
    prompts = torch.randn(1, 2, sam2.config.hidden_size, device=ids.device, dtype=args.dtype)
    parts = {
        "vision": lambda: model._look(text["pixel_values_videos"], text["video_grid_thw"]),
        "SAM 2 encoder, 16 frames": lambda: sam2.encode(ready),
        "SAM 2, 64 frames": lambda: list(track(sam2, [masks["frames"][0][:64]], [0], prompts, model.runtime)),
        "32 tokens": lambda: model.generate(
            input_ids=ids % 150000,
            attention_mask=text["attention_mask"],
            min_new_tokens=32,
            max_new_tokens=32,
            do_sample=False,
        ),
        "all": lambda: model.generate(**text, **masks, min_new_tokens=32, max_new_tokens=32, do_sample=False),
    }
    with file.open("w") as out:
        for name, function in parts.items():
            for _ in range(3):
                function()
            torch.cuda.synchronize()
            with record(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
                function()
                torch.cuda.synchronize()
            table = profiler.key_averages().table(
                sort_by="self_cuda_time_total", row_limit=30, max_name_column_width=80
            )
            print(f"==== {name}\n{table}", file=out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", action="store_true", help="only the baseline")
    parser.add_argument("--fast", action="store_true", help="only the default way of running")
    parser.add_argument("--size", choices=["3b", "7b"], default="3b")
    parser.add_argument("--sam2", default="base_plus")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--frames", type=int, default=180)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-count", dest="count", action="store_false", help="do not count arithmetic")
    parser.add_argument("--agreement", action="store_true", help="also compare the two ways of running")
    parser.add_argument(
        "--only", nargs="+", choices=["video", "stages", "whole", "agreement"], default=["video", "stages", "whole"]
    )
    parser.add_argument("--profile", type=Path, help="also write tables of kernels to this file")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    args.device = "cuda" if torch.cuda.is_available() else "cpu"
    args.dtype = torch.float32 if args.tiny and args.device == "cpu" else torch.bfloat16
    args.grid, args.frame_size = (16, 28, 38), (270, 480)
    if args.tiny:
        args.grid, args.frames, args.new_tokens, args.repeats = (2, 8, 12), 24, 4, 1

    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    import transformers

    print(f"{name}, torch {torch.__version__}, transformers {transformers.__version__}, {args.dtype}")
    model = build(args)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e9:.2f} billion parameters")
    report: dict = {"device": name, "torch": torch.__version__, "transformers": transformers.__version__}
    flops = arithmetic_of_text(model, args)
    if "video" in args.only:
        clock = Clock(args, 0)
        decode_of_video(args, clock)
        report["video"] = {"rows": clock.rows}
    ways = {
        "fast": (not args.plain, Runtime(), True, 3),  # run, record, replay
        "fast, SAM 2's encoder not beside the rest": (not args.plain, Runtime(overlap=False), False, 2),
        "plain": (not args.fast, Runtime.plain(), True, 1),
    }
    for label, (wanted, runtime, by_stage, warm) in ways.items():
        if not wanted or not {"stages", "whole"} & set(args.only):
            continue
        print(f"{label}:")
        model.runtime = runtime
        if args.tiny and args.device == "cpu" and label != "plain":
            model.runtime.fixed_steps = True
        clock = Clock(args, warm)
        if by_stage and "stages" in args.only:
            with torch.no_grad():
                stages(model, args, clock, flops)
        peaks = whole(model, args, clock) if "whole" in args.only else {}
        report[label] = {"rows": clock.rows, "peaks": peaks}
    if args.profile:
        profile(model, args, args.profile)
    if args.agreement or "agreement" in args.only:
        report["agreement"] = agreement(model, args)
        for what, value in report["agreement"].items():
            print(f"  {what:34s} {value:.5f}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
