"""Runs of every kind of adapter in a process of their own, for tests that kill it.

Imported once by multiprocessing's fork server, so that a killed process is replaced in milliseconds.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from make_data import benchmark

# All that takes long to import is imported here, before the fork.
import evqa.video.clip  # noqa: F401
from evqa import masks
from evqa.adapters import load_adapter
from evqa.engine import run
from evqa.segmentation import SegmentationStep
from evqa.segmenters import Segmenter

for name in ("openai.resources.chat", "google.genai", "evqa.adapters._transformers", "datasets"):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
with contextlib.suppress(ImportError):
    from transformers import (  # noqa: F401
        AutoModelForImageTextToText,
        AutoProcessor,
        VideoLlama3ForConditionalGeneration,
        VideoLlama3Processor,
        VideoLlama3VideoProcessor,
    )


class Slow(Segmenter):
    """Outlines as many columns as the expression has letters."""

    name = "slow"

    def segment(self, frames, times, expressions, size):
        time.sleep(0.02)
        out = []
        for text in expressions:
            mask = np.zeros(size, bool)
            mask[:, : len(text)] = True
            out.append([masks.encode(mask)] * len(frames))
        return out


def rows(clip: str, count: int) -> list[dict[str, Any]]:
    from PIL import Image

    picture = Image.new("RGB", (32, 24), "red")
    video = {"path": clip, "bytes": None}
    return [{**row, "video": video, "spatial_options": [picture] * 4} for row in benchmark(count)]


def work(kind: str, clip: str, count: int, folder: str, where: dict[str, str], environment: dict[str, str]) -> None:
    """Run ``kind`` over ``count`` entries into ``folder``; ``where`` tells of servers, models and earlier runs."""
    os.environ.update(environment)
    task = "mcq" if kind.endswith("mcq") else "gen"
    options: dict[str, Any] = {}
    if kind.startswith("openai"):
        adapter: Any = load_adapter("openai:m", base_url=where["openai"], frames="uniform:2", concurrency=4)
    elif kind == "gemini":
        adapter = load_adapter("gemini", base_url=where["gemini"], concurrency=4)
    elif kind == "local":
        adapter = load_adapter(
            f"video_llama_3:{where['local']}", device="cpu", frames="uniform:2", max_tokens=2, min_pixels=784,
            max_pixels=1600, batch_size=3, workers=0,
        )  # fmt: skip
    elif kind == "segment":
        adapter = SegmentationStep(Slow(), Path(where["source"]))
    else:
        adapter = load_adapter(kind)
        options["batch_size"] = 2
    run(adapter, rows(clip, count), folder, task=task, progress=False, **options)
