"""Speed and memory of a training step at true size with random weights, part by part.

    python benchmarks/train_step.py                      # each way of running in turn
    python benchmarks/train_step.py --ways plain half    # some of them
    python benchmarks/train_step.py --tiny               # seconds on a CPU; the figures mean nothing

The workload: Qwen2.5-VL 3B with hiera-base+ at 768, a batch of 4 samples of 8 frames (28 x 38 patches for the language
model; uint8, 480 x 854, for SAM 2) with 2 objects each, 4,616 tokens in all; adapters of rank 128 on q, k, v, o of
language model and vision tower, and embeddings, head, ref, msk, seg modules and SAM 2 trained whole; gradients clipped;
AdamW. A step is all of it: forward, backward, clipping, optimiser. Batches lie in host memory, as a loader gives them.

Ways of running: ``plain``, what transformers does by itself, recomputing everywhere; ``autocast``, evqa's shortcuts and
float32 weights where they are trained; ``half``, bfloat16 weights with float32 copies in the optimiser;
``tracker-kept``, ``sam-kept``, ``llm-kept``, ``both-kept``: as ``half``, without recomputing there; ``graphed``: as
``half``, tracking and its losses replayed as CUDA graphs (``graph_tracking``), which recompute nothing;
``graphed-autocast``, ``graphed-half-llm``, ``graphed-llm``: the same with float32 weights, with every second layer of
the language model kept, with all of them kept; ``compiled``: ``half``, layers of the two towers compiled by torch;
``graphed-compiled``: ``graphed``, blocks of SAM 2's encoder compiled.

With ``graphed`` the peak counts the graphs' own memory whole, whether or not torch calls it allocated.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import torch
from step_measures import (
    Parts,
    chip_rate,
    compile_layers,
    device_time,
    graph_memory,
    host_waits,
    pinned,
    to_device,
)

from evqa.models.unipixel import UniPixelConfig, UniPixelForConditionalGeneration, UniPixelSam2Config
from evqa.models.unipixel.runtime_unipixel import Runtime
from evqa.models.unipixel.sequence_unipixel import HostInputs, rope_positions
from evqa.training.fused import fuse_adapters, fuse_norms
from evqa.training.master import MasterAdamW
from evqa.training.optimizer import parameter_groups
from evqa.training.recomputing import recompute_only
from evqa.training.tuning import Tuning, prepare_for_training

RATES = {"base": 2e-5, "lora": 2e-5, "sam2": 5e-6, "sam2_encoder": 5e-6}


@dataclasses.dataclass(frozen=True)
class Way:
    """A way of running.

    Attributes:
        dtype: Of trained weights.
        recomputed: Where, as :func:`evqa.training.recomputing.shares_of` takes it.
        graphs: Tracking and its losses as CUDA graphs.
        compiled: Parts whose layers torch compiles.
    """

    dtype: str = "bfloat16"
    recomputed: tuple[str, ...] = ("vision", "llm", "sam2_encoder", "sam2_tracker")
    graphs: bool = False
    compiled: tuple[str, ...] = ()


WAYS = {
    "plain": Way("float32"),
    "autocast": Way("float32"),
    "half": Way(),
    "tracker-kept": Way(recomputed=("vision", "llm", "sam2_encoder")),
    "sam-kept": Way(recomputed=("vision", "llm")),
    "llm-kept": Way(recomputed=("vision", "sam2_encoder", "sam2_tracker")),
    "both-kept": Way(recomputed=("vision",)),
    "graphed": Way(graphs=True),
    "graphed-autocast": Way("float32", graphs=True),
    "graphed-half-llm": Way(recomputed=("vision", "llm:0.5", "sam2_encoder"), graphs=True),
    "graphed-llm": Way(recomputed=("vision", "sam2_encoder"), graphs=True),
    "compiled": Way(compiled=("vision", "llm")),
    "graphed-compiled": Way(graphs=True, compiled=("sam2_encoder",)),
}
TEXT = {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
        "num_key_value_heads": 2, "vocab_size": 151936}  # fmt: skip
SMALL_TEXT = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2,
              "num_key_value_heads": 1, "vocab_size": 151936}  # fmt: skip
VISION = {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420}
SMALL_VISION = {"depth": 2, "hidden_size": 64, "num_heads": 2, "intermediate_size": 64}


def build(args: argparse.Namespace) -> Any:
    text, vision = (SMALL_TEXT, SMALL_VISION) if args.tiny else (TEXT, VISION)
    head = text["hidden_size"] // text["num_attention_heads"]
    config = UniPixelConfig(
        text_config={
            **text, "max_position_embeddings": 128000, "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default", "mrope_section": [head // 8, head // 16 * 3, head // 16 * 3], "rope_theta": 1e6,
            },
        },
        vision_config={
            **vision, "out_hidden_size": text["hidden_size"], "fullatt_block_indexes": [7, 15, 23, 31],
            "tokens_per_second": 2, "window_size": 112, "spatial_patch_size": 14,
        },
        tie_word_embeddings=True, image_token_id=151655, video_token_id=151656, vision_start_token_id=151652,
        vision_end_token_id=151653,
        sam2_video_config=UniPixelSam2Config.from_preset(
            "tiny" if args.tiny else "base_plus", image_size=128 if args.tiny else 768
        ),
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(args.device):
        return UniPixelForConditionalGeneration._from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")


def tune(model: Any) -> Any:
    tuning = Tuning(
        ["embedding", "ref", "ref_enc", "msk", "seg", "sam2"], lora="qkvo_all", lora_r=128, lora_alpha=256,
        lora_dropout=0.1, trained_dtype="bfloat16",
    )  # fmt: skip
    return prepare_for_training(model, tuning).train()


def make_batch(model: Any, args: argparse.Namespace) -> dict[str, Any]:
    """A batch as the collator makes it."""
    config, (t, h, w), samples = model.config, args.grid, args.samples
    draw = torch.Generator().manual_seed(1)
    length = args.length // samples
    rows, labels = [], []
    for _ in range(samples):
        head = [config.vision_start_token_id, *[config.video_token_id] * (t * h * w // 4), config.vision_end_token_id]
        reply = torch.randint(0, 150000, (28,), generator=draw).tolist()
        reply[12] = reply[20] = config.seg_token_id
        words = torch.randint(0, 150000, (length - len(head) - len(reply),), generator=draw).tolist()
        rows.append(head + words + reply)
        labels.append([-100] * (len(head) + len(words)) + reply)
    ids, labels = torch.tensor(rows), torch.tensor(labels)
    grid = torch.tensor([args.grid] * samples)
    size = config.sam2_image_size
    following = torch.nn.functional.pad(labels, (0, 1), value=-100)[:, 1:].flatten()
    masks = torch.zeros(samples, args.frames, 2, size, size, dtype=torch.bool)
    for i in range(samples):
        for f in range(args.frames):
            masks[i, f, 0, size // 8 + 4 * f : size // 2, size // 8 : size // 2] = True
            masks[i, f, 1, size // 2 :, size // 3 + 4 * f : size // 2 + 4 * f] = True
    return {
        "host": HostInputs(ids, grid),
        "position_ids": rope_positions(ids, None, config, None, grid, [1.0] * samples, None),
        "labels": labels,
        "label_positions": (following != -100).nonzero()[:, 0],
        "pixel_values_videos": torch.randn(samples * t * h * w, 1176, generator=draw),
        "frames": [
            torch.randint(0, 256, (args.frames, 3, *args.frame_size), generator=draw, dtype=torch.uint8)
            for _ in range(samples)
        ],
        "label_mask": list(masks),
        "mask_weights": [1.0] * samples,
    }


def set_recomputing(model: Any, where: tuple[str, ...]) -> None:
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    recompute_only(model, where)


def choose(way: str, peft: Any, args: argparse.Namespace) -> None:
    """Let the model run that way, from its first weights."""
    model, chosen = peft.get_base_model(), WAYS[way]
    trained = [p for p in peft.parameters() if p.requires_grad]
    for parameter, before in zip(trained, args.initial, strict=True):
        parameter.data = before.to(parameter.device, getattr(torch, chosen.dtype), copy=True)
        parameter.grad = None
    set_recomputing(model, chosen.recomputed)
    if way == "plain":
        model.runtime = Runtime.plain()
        for module in peft.modules():
            module.__dict__.pop("forward", None)  # what an earlier way has fused
    else:
        model.runtime = Runtime(supervised_logits=True, graph_tracking=chosen.graphs)
        fuse_norms(model)
        fuse_adapters(model)


def run(way: str, peft: Any, args: argparse.Namespace, parts: Parts) -> dict[str, Any]:
    model, cuda, plain = peft.get_base_model(), args.device == "cuda", way == "plain"
    choose(way, peft, args)
    dtype = WAYS[way].dtype
    batch = make_batch(model, args)
    if cuda:
        batch = pinned(batch)
    if plain:  # as a stock trainer hands it over: everything on the device, and looked up there
        host = batch.pop("host")
        for name in ("label_positions", "mask_weights"):
            batch.pop(name)
        batch.update(input_ids=host.input_ids, video_grid_thw=host.video_grid_thw,
                     attention_mask=torch.ones_like(host.input_ids))  # fmt: skip
    decaying = [n for n, p in peft.named_parameters() if p.dim() > 1]
    groups = parameter_groups(peft, RATES, 0.0, decaying)
    optimizer = (
        MasterAdamW(groups) if dtype == "bfloat16" else torch.optim.AdamW(groups, **({"fused": True} if cuda else {}))
    )
    trained = [p for p in peft.parameters() if p.requires_grad]
    context = torch.autocast(args.device, torch.bfloat16) if dtype == "float32" else contextlib.nullcontext()
    tokens = torch.tensor(float((batch["labels"] != -100).sum()), device=args.device)
    masked = torch.tensor(float(args.samples), device=args.device)
    restore = compile_layers(model, WAYS[way].compiled)

    def step() -> torch.Tensor:
        parts.mark("whole step", "begin")
        parts.mark("forward", "begin")
        inputs = {name: to_device(value, args.device) for name, value in batch.items()}
        counts = {} if plain else {"num_items_in_batch": tokens, "num_masks_in_batch": masked}
        with context:
            output = peft(**inputs, **counts, use_cache=False)
        parts.mark("forward", "end")
        parts.mark("backward", "begin")
        output.loss.backward()
        parts.mark("backward", "end")
        parts.mark("optimiser", "begin")
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        parts.mark("optimiser", "end")
        parts.mark("whole step", "end")
        return output.loss.detach()

    first = loss_without_dropout(peft, batch, context, args)
    torch.manual_seed(0)
    times, found, losses = [], [], []
    for i in range(args.warm + args.repeats):
        if len(times) > 1 and sum(times) > args.patience:
            break
        if i == args.warm and cuda:
            torch.cuda.reset_peak_memory_stats()
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        losses.append(step())
        if cuda:
            torch.cuda.synchronize()
        if i >= args.warm:
            times.append(time.perf_counter() - start)
            found.append(parts.seconds())
        else:
            parts.seconds()
    waits = host_waits(step) if cuda and args.waits and not plain else None
    busy = device_time(step, args.profiled, f"a step of {way}") if args.profiled and cuda else None
    parts.seconds()
    result = {
        "way": way, "seconds": statistics.median(times), "all": times,
        "parts": {name: statistics.median(f.get(name, 0.0) for f in found) for name in found[0]},
        "peak_gib": (torch.cuda.max_memory_allocated() + graph_memory()) / 2**30 if cuda else None,
        "loss": first, "losses": [float(loss) for loss in losses], "trained": sum(p.numel() for p in trained),
        "waits": waits, "busy": busy,
    }  # fmt: skip
    restore()
    model.sam2.__dict__.pop("_kept", None)  # graphs and their memory
    return result


@torch.no_grad()
def loss_without_dropout(peft: Any, batch: dict[str, Any], context: Any, args: argparse.Namespace) -> float:
    """The loss before the first step: the same for all ways, but for rounding."""
    peft.eval()
    with context:
        loss = float(peft(**{n: to_device(v, args.device) for n, v in batch.items()}, use_cache=False).loss)
    peft.train()
    return loss


def count_operations(args: argparse.Namespace) -> float:
    """Floating-point operations of forward and backward without recomputation, counted by torch without a device.

    Attention counts in full, also where it is causal; what is no matrix product, attention or convolution does not.
    """
    from torch.utils.flop_counter import FlopCounterMode

    args = argparse.Namespace(**{**vars(args), "device": "meta"})
    peft = tune(build(args))
    args.initial = [p.detach() for p in peft.parameters() if p.requires_grad]
    choose("both-kept", peft, args)
    set_recomputing(peft.get_base_model(), ())
    inputs = {name: to_device(value, "meta") for name, value in make_batch(peft.get_base_model(), args).items()}
    counter = FlopCounterMode(display=False)
    with counter:
        peft(**inputs, num_items_in_batch=1, num_masks_in_batch=1, use_cache=False).loss.backward()
    return float(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["plain", "autocast", "half", "graphed"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warm", type=int, default=2)
    parser.add_argument("--patience", type=float, default=20.0, help="no further repeats of a way after these seconds")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--waits", action="store_true", help="list where the host waits for the device")
    parser.add_argument("--operations", type=float, help="TFLOP of a step; counted when absent, which takes a minute")
    parser.add_argument("--profile", type=Path, help="add the kernels of a step of the last way to this file")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    args.grid, args.samples, args.frames, args.length, args.frame_size = (4, 28, 38), 4, 8, 4616, (480, 854)
    if args.tiny:
        args.grid, args.samples, args.frames, args.length, args.frame_size = (1, 4, 8), 2, 2, 120, (48, 64)
    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}", flush=True)
    start = time.perf_counter()
    model = build(args)
    peft = tune(model)
    args.initial = [p.detach().to("cpu", copy=True) for p in peft.parameters() if p.requires_grad]
    parts = Parts(model, args.device == "cuda")
    trained = sum(p.numel() for p in peft.parameters() if p.requires_grad)
    total = sum(p.numel() for p in peft.parameters())
    print(f"{trained:,} of {total:,} weights trained; built in {time.perf_counter() - start:.1f} s", flush=True)
    operations = count_operations(args) if args.operations is None else args.operations * 1e12
    rate = chip_rate() if args.device == "cuda" else None
    print(f"a step is {operations / 1e12:.2f} TFLOP, recomputation not counted", flush=True)
    if rate:
        print(f"the chip: {rate / 1e12:.0f} TFLOP/s in a product of large bfloat16 matrices", flush=True)
    results = []
    for i, way in enumerate(args.ways):
        args.profiled = args.profile if i == len(args.ways) - 1 else None
        try:
            result = run(way, peft, args, parts)
        except torch.OutOfMemoryError as error:
            print(f"{way}: out of memory ({str(error)[:120]})", flush=True)
            continue
        results.append(result)
        for parameter in peft.parameters():
            parameter.grad = None
        if args.device == "cuda":
            torch.cuda.empty_cache()
        peak = f"{result['peak_gib']:6.1f} GiB" if result["peak_gib"] is not None else ""
        seconds, named = result["seconds"], ("vision tower", "language model", "SAM 2 encoder")
        shown = {**result["parts"]}
        shown["tracking, losses"] = shown.get("forward", 0) - sum(shown.get(part, 0) for part in named)
        print(f"\n{way:17s} {seconds:7.3f} s a step  {peak}  loss {result['loss']:.4f}", flush=True)
        share = f", {100 * operations / seconds / rate:.0f} % of what the chip can do" if rate else ""
        steps = " ".join(f"{t:.3f}" for t in result["all"])
        print(f"  {operations / seconds / 1e12:.0f} TFLOP/s{share}; steps {steps}")
        print("  losses " + " ".join(f"{loss:.3f}" for loss in result["losses"]))
        order = (*named, "tracking, losses", "forward", "backward", "optimiser")
        print("  " + ", ".join(f"{part} {shown[part]:.3f}" for part in order if part in shown), flush=True)
        if result["busy"]:
            print(f"  {result['busy'][0]:.3f} s of kernels, {result['busy'][1]} of them")
        if result["waits"]:
            print(f"  the host waits {sum(result['waits'].values())} times: {result['waits']}")
        if args.json:
            args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
