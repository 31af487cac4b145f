"""What is measured around a training step: its parts, waits and memory, and what the chip can do."""

from __future__ import annotations

import time
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import torch


def to_device(value: Any, device: str) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    return [to_device(v, device) for v in value] if isinstance(value, list) else value


class Parts:
    """Where the time of a step goes, from events around the calls of modules (on the device's clock)."""

    def __init__(self, model: Any, cuda: bool):
        self.cuda, self.marks = cuda, []
        named = {
            "vision tower": model.model.visual,
            "language model": model.model.language_model,
            "SAM 2 encoder": model.sam2.image_encoder,
        }
        for name, module in named.items():
            module.register_forward_pre_hook(lambda *_, name=name: self.mark(name, "begin"))
            module.register_forward_hook(lambda *_, name=name: self.mark(name, "end"))

    def mark(self, name: str, edge: str) -> None:
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append((name, edge, event))
        else:
            self.marks.append((name, edge, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """Of one step, then forget it. Calls while going backward are recomputation, and count as that."""
        if not self.marks:
            return {}
        if self.cuda:
            torch.cuda.synchronize()
        first, found, open_at = self.marks[0][2], defaultdict(float), {}
        for name, edge, at in self.marks:
            now = first.elapsed_time(at) / 1e3 if self.cuda else at - first
            if edge == "begin":
                open_at[name] = now
            elif name in open_at:
                found[name] += now - open_at.pop(name)
        self.marks = []
        return dict(found)


def graph_memory() -> int:
    """Bytes that graphs keep for themselves beside what torch calls allocated."""
    own = [s for s in torch.cuda.memory_snapshot() if tuple(s.get("segment_pool_id", (0, 0))) != (0, 0)]
    return sum(segment["total_size"] - segment["allocated_size"] for segment in own)


def pinned(value: Any) -> Any:
    """As a loader with ``pin_memory`` hands it over."""
    if isinstance(value, torch.Tensor):
        return value.pin_memory()
    if isinstance(value, dict):
        return {name: pinned(entry) for name, entry in value.items()}
    return [pinned(entry) for entry in value] if isinstance(value, list) else value


def compile_layers(model: Any, parts: tuple[str, ...]) -> Any:
    """Compile the layers that repeat, one graph for each kind; returns what undoes it."""
    blocks = {
        "vision": model.model.visual.blocks, "llm": model.model.language_model.layers,
        "sam2_encoder": model.sam2.image_encoder.backbone.blocks,
    }  # fmt: skip
    layers = [layer for part in parts for layer in blocks[part]]
    if layers:
        import torch._dynamo

        torch._dynamo.config.recompile_limit = 64  # SAM 2's encoder has eight kinds of blocks
    for layer in layers:
        layer.compile()

    def undo() -> None:
        for layer in layers:
            layer._compiled_call_impl = None

    return undo


def host_waits(step: Any) -> dict[str, int]:
    """Where in a step the host waits for the device."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = Counter(f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message).lower())
    return dict(places.most_common())


def chip_rate(size: int = 8192) -> float:
    """Operations a second of a large product of bfloat16 matrices: what can be had at most."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        a @ b
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(30):
        a @ b
    end.record()
    torch.cuda.synchronize()
    return 30 * 2.0 * size**3 / (start.elapsed_time(end) / 1e3)


def device_time(step: Any, file: Path, title: str) -> tuple[float, int]:
    """Seconds that the kernels of a step take, and how many there are; a table of them is added to the file."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        step()
        torch.cuda.synchronize()
    averages = found.key_averages()
    table = averages.table(sort_by="self_device_time_total", row_limit=70, max_name_column_width=110)
    with file.open("a") as out:
        out.write(f"{title}\n{table}\n")
    kernels = [row for row in averages if row.self_device_time_total > 0]
    return sum(row.self_device_time_total for row in kernels) / 1e6, sum(row.count for row in kernels)
