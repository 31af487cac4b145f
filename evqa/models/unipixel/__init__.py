"""UniPixel: Qwen2.5-VL, and SAM 2.1 that tracks what the language model points at.

Liu et al., "UniPixel: Unified Object Referring and Segmentation for Pixel-Level Visual Reasoning", NeurIPS 2025; the
ST-Evidence models (Salesforce/ST-Evidence-3B, -7B) are the same architecture.

>>> from transformers import AutoModelForImageTextToText, AutoProcessor  # doctest: +SKIP
>>> import evqa
>>> model = AutoModelForImageTextToText.from_pretrained("PolyU-ChenLab/UniPixel-3B", dtype="auto")  # doctest: +SKIP
>>> processor = AutoProcessor.from_pretrained("PolyU-ChenLab/UniPixel-3B")  # doctest: +SKIP

Names below are loaded on first use; importing this package imports neither torch nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evqa._lazy import attach

if TYPE_CHECKING:
    from evqa.models.unipixel.checkpoints_unipixel import load_checkpoint, save_adapter
    from evqa.models.unipixel.configuration_unipixel import UniPixelConfig, UniPixelSam2Config
    from evqa.models.unipixel.conversion_unipixel import convert_checkpoint, to_module_name, to_published_name
    from evqa.models.unipixel.generation_unipixel import UniPixelGenerateOutput
    from evqa.models.unipixel.modeling_unipixel import UniPixelForConditionalGeneration, UniPixelOutput
    from evqa.models.unipixel.processing_unipixel import UniPixelProcessor
    from evqa.models.unipixel.runtime_unipixel import Runtime
    from evqa.models.unipixel.tiny_unipixel import tiny

_HOMES = {
    "Runtime": "runtime_unipixel",
    "UniPixelConfig": "configuration_unipixel",
    "UniPixelForConditionalGeneration": "modeling_unipixel",
    "UniPixelGenerateOutput": "generation_unipixel",
    "UniPixelOutput": "modeling_unipixel",
    "UniPixelProcessor": "processing_unipixel",
    "UniPixelSam2Config": "configuration_unipixel",
    "convert_checkpoint": "conversion_unipixel",
    "load_checkpoint": "checkpoints_unipixel",
    "save_adapter": "checkpoints_unipixel",
    "to_module_name": "conversion_unipixel",
    "to_published_name": "conversion_unipixel",
    "tiny": "tiny_unipixel",
}

__all__ = [
    "Runtime",
    "UniPixelConfig",
    "UniPixelForConditionalGeneration",
    "UniPixelGenerateOutput",
    "UniPixelOutput",
    "UniPixelProcessor",
    "UniPixelSam2Config",
    "convert_checkpoint",
    "load_checkpoint",
    "save_adapter",
    "tiny",
    "to_module_name",
    "to_published_name",
]

__getattr__, __dir__ = attach(__name__, _HOMES)
