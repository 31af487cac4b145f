"""One GPU, DDP, FSDP2 and ZeRO-2 side by side: the same training, through recipes/sft.py and recipes/accelerate/*.yaml.

    python benchmarks/multi_gpu.py                     # two GPUs of one host; under two minutes
    python benchmarks/multi_gpu.py --ways one fsdp2    # some of the ways
    python benchmarks/multi_gpu.py --cpu --steps 4     # two processes on a CPU; times mean nothing
    python benchmarks/multi_gpu.py --true-size         # speed and memory at 3B, random weights, a few steps

The tiny model learns from the sample benchmark: 21 entries in global batches of 4, so that the last one of an epoch is
a single entry, and one rank has nothing to learn in it. One GPU takes batches of 4, two take 2 each; in float32. Each
way runs in processes of its own. What is compared: the loss and the norm of its gradient at every step, and the weights
and logits of the final models, loaded with AutoModel in a fresh process.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

#: Way -> file in recipes/accelerate, number of processes, what accelerate calls it.
WAYS = {
    "one": ("single", 1, "NO"), "ddp": ("ddp", 2, "MULTI_GPU"), "fsdp2": ("fsdp2", 2, "FSDP"),
    "zero2": ("deepspeed_zero2", 2, "DEEPSPEED"), "zero3": ("deepspeed_zero3", 2, "DEEPSPEED"),
}  # fmt: skip
MIXTURE = """
seed: 42
frames: {{count: {frames}, policy: uniform}}
parts:
  - {{name: st_evidence, config: sample, split: "test[:{entries}]"}}
"""
#: What differs at most, of a value: sums in another order, and twenty steps that build on them.
TOLERANCE = 0.01


# ------------------------------------------------------------------------------------- one training
def child(way: str, out: Path, args: argparse.Namespace) -> None:
    """Train in this process, one of the ranks."""
    config, ranks, kind = WAYS[way]
    if args.cpu and kind in ("FSDP", "DEEPSPEED"):
        from cpu_ranks import spread_on_cpu

        spread_on_cpu(config)
    import torch
    from transformers import TrainerCallback
    from trl import TrlParser

    spec = importlib.util.spec_from_file_location("sft", ROOT / "recipes" / "sft.py")
    sft = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sft)
    if not args.true_size and hasattr(torch.backends.cudnn, "conv"):
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # --tf32 false leaves convolutions as they are
    cuda = torch.cuda.is_available() and not args.cpu
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter())

    class Trainer(sft.UniPixelTrainer):
        def train(self, *given: Any, **named: Any) -> Any:
            accelerator = self.accelerator
            distributed = str(accelerator.distributed_type).rsplit(".", 1)[-1]
            world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
            assert (world, accelerator.num_processes) == (ranks, ranks), f"{world} ranks, {ranks} were asked for"
            assert distributed == kind or (args.cpu and kind == "MULTI_GPU"), f"{distributed} instead of {kind}"
            self.add_callback(Clock())
            found = super().train(*given, **named)
            spread = sum(hasattr(p, "full_tensor") for p in self.model.parameters())
            assert (spread > 0) == (kind == "FSDP"), f"{spread} weights are spread"
            if kind == "DEEPSPEED":
                stage = self.model_wrapped.zero_optimization_stage()
                assert stage == int(way[-1]), f"ZeRO-{stage}"
            peak = (
                torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
            )
            peaks = accelerator.gather(torch.tensor([float(peak)], device=accelerator.device)).tolist()
            lines = [line for line in self.state.log_history if "loss" in line]
            facts = {
                "ranks": world, "type": distributed, "device": str(accelerator.device),
                "backend": torch.distributed.get_backend() if world > 1 else None, "spread": spread,
                "loss": [line["loss"] for line in lines], "grad_norm": [float(line["grad_norm"]) for line in lines],
                "seconds": statistics.median(b - a for a, b in itertools.pairwise(times[1:])),
                "peak": [round(p / 2**30, 2) for p in peaks],
                "card": torch.cuda.get_device_name() if cuda else "CPU",
            }  # fmt: skip
            if accelerator.is_main_process:
                (out / f"{way}.json").write_text(json.dumps(facts))
            return found

    sft.UniPixelTrainer = Trainer
    if args.true_size:
        sft.load_model, sft.finish = true_size_model, lambda *_, **__: None
    sft.main(*TrlParser((sft.ModelArguments, sft.DataArguments, sft.TrainingArguments)).parse_args_and_config(
        settings(way, out, args)
    ))  # fmt: skip


def settings(way: str, out: Path, args: argparse.Namespace) -> list[str]:
    """The command line of recipes/sft.py."""
    ranks = WAYS[way][1]
    # At true size every card has as much to do in every way.
    batch = 4 if args.true_size else 4 // ranks
    given = {
        "config": ROOT / "recipes" / "configs" / "tiny.yaml", "mixture": out / "mixture.yaml", "output_dir": out / way,
        "max_steps": args.steps, "per_device_train_batch_size": batch, "learning_rate": 3e-4, "save_dtype": "float32",
        "save_steps": args.steps // 2, "final_benchmark": "false", "disable_tqdm": "true", "resume": "never",
        "use_cpu": str(args.cpu and way in ("one", "ddp")).lower(), "tf32": "false",
    }  # fmt: skip
    if args.cpu:
        del given["tf32"]
    if args.true_size:
        given |= {
            "dtype": "bfloat16", "trained_dtype": "bfloat16", "lora_targets": "qkvo_all", "tf32": "true",
            "gradient_checkpointing": "true", "optim": "adamw_torch_fused", "save_strategy": "no",
            "bf16": str(way.startswith("zero")).lower(), "pad_to_multiple_of": 64, "model_name_or_path": "random-3B",
        }  # fmt: skip
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    modules = ["embedding", "ref", "ref_enc", "msk", "seg", "sam2"] if args.true_size else ["all"]
    return [*words, "--tuning_modules", *modules]


def true_size_model(arguments: Any, *, seed: int = 0) -> tuple[Any, Any]:
    """Qwen2.5-VL 3B with hiera-base+ at 768 of random weights, made on this rank's GPU, and a processor."""
    import torch
    from train_step import TEXT, VISION

    from evqa.models.unipixel import UniPixelConfig, UniPixelForConditionalGeneration, UniPixelSam2Config
    from evqa.models.unipixel import tiny_unipixel as small
    from evqa.training.tuning import prepare_for_training

    small._PATCH, small._SQUARE = 14, 768
    processor = small.tiny_processor()
    processor.min_pixels, processor.max_pixels = 250 * 28**2, 280 * 28**2  # of a frame
    config = small.tiny_config(processor.tokenizer).to_dict()
    config["text_config"].pop("layer_types", None)
    config["text_config"].update(TEXT, max_position_embeddings=128000, initializer_range=0.02)
    config["text_config"]["rope_parameters"] = {
        "rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6,
    }  # fmt: skip
    config["vision_config"].update(
        VISION, out_hidden_size=TEXT["hidden_size"], fullatt_block_indexes=[7, 15, 23, 31], tokens_per_second=2,
        window_size=112, spatial_patch_size=14, patch_size=14, initializer_range=0.02,
    )  # fmt: skip
    config["sam2_video_config"] = UniPixelSam2Config.from_preset("base_plus", image_size=768).to_dict()
    config["sam2_image_size"] = 768
    torch.manual_seed(seed)
    with torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))):
        model = UniPixelForConditionalGeneration._from_config(
            UniPixelConfig.from_dict(config), dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    return prepare_for_training(model, arguments.tuning()), processor


# ---------------------------------------------------------------------------------- what came of it
def check(out: Path, ways: list[str]) -> None:
    """Load what each way saved; compare its weights and logits with those of the first."""
    import torch
    from transformers import AutoModel

    import evqa  # noqa: F401 - teaches AutoModel what UniPixel is
    from evqa.models.unipixel import tiny

    start, first, found = tiny(42)[0].state_dict(), None, {}
    ids = torch.arange(20, 60)[None]
    for way in ways:
        model = AutoModel.from_pretrained(out / way, dtype=torch.float32).eval()
        weights = model.state_dict()
        with torch.no_grad():
            logits = model(input_ids=ids).logits
        first = first or (weights, logits)
        apart = sum(float((w - first[0][name]).double().square().sum()) for name, w in weights.items()) ** 0.5
        moved = sum(float((w - start[name]).double().square().sum()) for name, w in first[0].items()) ** 0.5
        checkpoints = sorted(path.name for path in (out / way).glob("checkpoint-*"))
        found[way] = {
            "apart": apart / moved, "logits": float((logits - first[1]).abs().max()), "checkpoints": checkpoints,
        }  # fmt: skip
    (out / "check.json").write_text(json.dumps(found))


def launch(command: list[str], name: str, out: Path, seconds: float, environment: dict[str, str]) -> tuple[bool, float]:
    """Run a command with a limit; whether it succeeded, and how long it took. Says why if it did not."""
    began = time.perf_counter()
    with open(out / f"{name}.log", "w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, start_new_session=True
        )
        try:
            code: int | None = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = None
            process.terminate()  # a launcher then ends its ranks, which are in sessions of their own
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    took = time.perf_counter() - began
    if code != 0:
        what = f"did not end within {seconds:.0f} s" if code is None else f"ended with {code}"
        lines = (out / f"{name}.log").read_text(errors="replace").splitlines()
        errors = [line for line in lines if "Error" in line and "ChildFailedError" not in line]
        print(f"\n---- {name} {what} after {took:.0f} s; errors:", *errors[:8], sep="\n")
        print("---- the end of what it said:")
        # What the launcher adds says only that a rank has ended.
        end = next((i for i, line in enumerate(lines) if "torch/distributed/elastic/" in line), len(lines))
        print(*lines[max(end - 40, 0) : end], "----", sep="\n", flush=True)
    return code == 0, took


def command_of(way: str, args: argparse.Namespace) -> list[str]:
    """How a user would start it."""
    config, ranks, _ = WAYS[way]
    own = [str(Path(__file__).resolve()), "--child", way, "--out", str(args.out), "--steps", str(args.steps)]
    own += ["--cpu"] * args.cpu + ["--true-size"] * args.true_size
    if ranks == 1:
        return [sys.executable, *own]
    if args.cpu:
        rendezvous = ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
        return [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks), *rendezvous, *own]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    file = str(ROOT / "recipes" / "accelerate" / f"{config}.yaml")
    return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", file, "--num_processes", str(ranks),
            "--main_process_port", port, *own]  # fmt: skip


def difference(one: list[float], other: list[float]) -> float:
    """The largest relative one."""
    if len(one) != len(other):
        return float("inf")
    return max(abs(a - b) / max(abs(a), 1e-12) for a, b in zip(one, other, strict=True))


def report(found: dict[str, dict], checked: dict[str, dict], args: argparse.Namespace) -> bool:
    """Print it; whether all is as it should be."""
    ways, good = list(found), bool(found)
    if ways and not args.true_size:
        print("\nstep " + "".join(f"{way:>12}" for way in ways) + "   (loss)")
        for step in range(args.steps):
            row = (found[way]["loss"][step] if step < len(found[way]["loss"]) else float("nan") for way in ways)
            print(f"{step + 1:4} " + "".join(f"{loss:12.5f}" for loss in row))
    print("\nway     ranks  type        s/step  peak GiB          loss apart  gradient  weights   logits")
    for way in ways:
        own = found[way]
        words = [f"{way:7} {own['ranks']:5}  {own['type']:10} {own['seconds']:7.3f}  {own['peak']!s:16}"]
        if not args.true_size:
            loss, norm = (difference(found[ways[0]][name], own[name]) for name in ("loss", "grad_norm"))
            more = checked.get(way)
            words += [f"{loss:12.1e} {norm:9.1e}"]
            words += [f"{more['apart']:8.1e} {more['logits']:8.1e}"] if more else ["  not loaded"]
            good &= loss < TOLERANCE and more is not None and more["apart"] < 10 * TOLERANCE
        print(*words)
    print(f"on {found[ways[0]]['card']}" if ways else "nothing ran")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["one", "ddp", "fsdp2", "zero2"])
    parser.add_argument("--steps", type=int, help="20; 6 at true size")
    parser.add_argument("--cpu", action="store_true", help="two processes on the CPU")
    parser.add_argument("--true-size", action="store_true", help="3B, random weights; nothing is saved")
    parser.add_argument("--timeout", type=float, default=240.0, help="seconds for each way")
    parser.add_argument("--out", type=Path, help="folder of logs and models; by default a temporary one")
    parser.add_argument("--child", choices=[*WAYS, "check"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.steps = args.steps or (6 if args.true_size else 20)
    if args.steps < 3:
        parser.error("three steps are the least: the first is no measure")
    if args.child == "check":
        check(args.out, args.ways)
        return 0
    if args.child:
        child(args.child, args.out, args)
        return 0
    if not args.cpu:
        import torch

        if torch.cuda.device_count() < 2:
            parser.error(f"two GPUs are needed, there are {torch.cuda.device_count()}; or give --cpu")
    with tempfile.TemporaryDirectory() as temporary:
        args.out = (args.out or Path(temporary)).resolve()
        args.out.mkdir(parents=True, exist_ok=True)
        frames, entries = (8, 48) if args.true_size else (4, 21)
        (args.out / "mixture.yaml").write_text(MIXTURE.format(frames=frames, entries=entries))
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": paths.rstrip(os.pathsep)}
        # What DeepSpeed compiles is locked while it does, and stays so if it is killed.
        environment["TORCH_EXTENSIONS_DIR"] = str(args.out / "extensions")
        found, checked, good = {}, {}, True
        for way in args.ways:
            shutil.rmtree(args.out / way, ignore_errors=True)  # of an earlier run into this folder
            (args.out / f"{way}.json").unlink(missing_ok=True)
            alone = {"CUDA_VISIBLE_DEVICES": "0"} if way == "one" and not args.cpu else {}
            done, took = launch(command_of(way, args), way, args.out, args.timeout, environment | alone)
            if (args.out / f"{way}.json").is_file():
                found[way] = json.loads((args.out / f"{way}.json").read_text())
            print(f"{way}: {'trained' if done else 'FAILED'} in {took:.0f} s with its start", flush=True)
            good &= done
        saved = [way for way in found if (args.out / way / "config.json").is_file()]
        if saved and not args.true_size:
            words = [sys.executable, str(Path(__file__).resolve()), "--child", "check", "--out", str(args.out)]
            done, took = launch([*words, "--ways", *saved], "check", args.out, args.timeout, environment)
            good &= done
            checked = json.loads((args.out / "check.json").read_text()) if done else {}
            print(f"loaded with AutoModel in a fresh process: {', '.join(checked) or 'none'} ({took:.0f} s)")
        good &= report(found, checked, args)
        print("all as on one GPU" if good and not args.true_size else "done" if good else "NOT ALL AS ON ONE GPU")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
