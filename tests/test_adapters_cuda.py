"""Local families on a GPU, with tiny random models: every task, a batch against its entries alone. Skips without CUDA.

Clips are folders of images, so that no video decoder is needed; what surrounds this is in ``test_adapters_local.py``.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("pycocotools")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

import tiny_vlm  # noqa: E402
from cuda_fixtures import exact  # noqa: E402
from PIL import Image  # noqa: E402

from evqa.adapters import load_adapter  # noqa: E402

__all__ = ["exact"]  # fixtures

DEVICE = "cuda"
TASKS = (("gen", "single"), ("gen", "multi"), ("mcq", "single"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Four entries of two clips that differ in shape, rate and length, so that a batch is uneven in every way."""
    clips = []
    for name, (count, height, width), fps in (("wide", (12, 48, 64), 6.0), ("tall", (20, 80, 40), 4.0)):
        home = tmp_path_factory.mktemp(name)
        names = [f"{i:02d}.png" for i in range(count)]
        for i, file in enumerate(names):
            Image.fromarray(np.full((height, width, 3), 240 * i // count, np.uint8)).save(home / file)
        clips.append({"folder": str(home), "names": names, "times": [i / fps for i in range(count)]})
    pictures = [Image.new("RGB", (32, 24), colour) for colour in ("red", "blue", "green", "white")]
    return [
        {
            "entry_id": f"e{i}", "video_id": f"v{i % 2}", "video": clips[i % 2], "duration": (2.0, 5.0)[i % 2],
            "question": f"question {i}", "candidates": ["one", "two", "three", "four"],
            "temporal_options": [[[0.0, 0.1]], [[0.5, 1.3]], [[1.8, 1.9]], [[0.3, 0.4]]],
            "spatial_options": pictures[i:] + pictures[:i],
        }
        for i in range(4)
    ]  # fmt: skip


@pytest.mark.parametrize("family", sorted(tiny_vlm.BUILDERS))
def test_a_batch_on_the_gpu_says_what_its_entries_say_alone(rows, family, tmp_path):
    folder, name = tiny_vlm.save(family, tmp_path / family), family.removesuffix("_moe")
    pixels = {"min_pixels": 784, "max_pixels": 4096} if "qwen" in family or family == "video_llama_3" else {}
    texts = set()
    for task, mode in TASKS:
        model = load_adapter(
            f"{name}:{folder}", device=DEVICE, dtype="float32", frames="fps:2,max=6", max_tokens=6, workers=0,
            batch_size=4, mode=mode, **pixels,
        )  # fmt: skip
        together = model.predict([model.prepare(row, task) for row in rows], task)
        alone = [model.predict([model.prepare(row, task)], task)[0] for row in rows]
        for a, b in zip(together, alone, strict=True):
            assert (a.entry_id, a.status, a.raw_text, a.usage) == (b.entry_id, b.status, b.raw_text, b.usage)
            assert a.usage["output_tokens"] > 0
        texts |= {p.raw_text for p in alone}
    assert len(texts) >= 2  # it hears the question
    assert model._engine._model.device.type == DEVICE


def test_half_precision_is_the_default_on_a_gpu(rows, tmp_path):
    model = load_adapter(f"qwen2_5_vl:{tiny_vlm.save('qwen2_5_vl', tmp_path)}", device=DEVICE, max_tokens=4, workers=0)
    assert model.settings()["engine"]["dtype"] == "bfloat16"
    assert model.predict([model.prepare(rows[0], "gen")], "gen")[0].usage["output_tokens"] > 0
