"""UniPixel and the imports of transformers: in any order, and without making anything slower or breaking it."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("transformers")
pytest.importorskip("torch")

ORDERS = {
    "AutoModel first": "import evqa; from transformers import AutoModel, AutoConfig, AutoProcessor",
    "AutoProcessor first": "import evqa; from transformers import AutoProcessor, AutoModel, AutoConfig",
    "evqa last": "from transformers import AutoModel, AutoProcessor, AutoConfig; import evqa",
}


@pytest.mark.parametrize("order", ORDERS)
def test_auto_classes_know_us_whatever_comes_first(order):
    code = f"""
{ORDERS[order]}
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.processing_auto import processor_class_from_name
assert CONFIG_MAPPING["pixel_qwen2_5_vl"].__module__.startswith("evqa."), "config"
for name in ("UniPixelProcessor", "PatchedQwen2_5_VLProcessor"):
    assert processor_class_from_name(name).__module__.startswith("evqa."), name
config = AutoConfig.for_model("pixel_qwen2_5_vl")
assert type(config) in AutoModel._model_mapping, "model"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_nothing_of_ours_is_imported_for_other_models():
    code = """
import sys, evqa
from transformers import AutoConfig, AutoTokenizer
assert AutoConfig.for_model("bert").model_type == "bert"
assert not any(name.startswith("evqa.models.unipixel.") and "auto_" not in name for name in sys.modules)
assert "torch" not in sys.modules or "transformers.models.sam2_video.modeling_sam2_video" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
