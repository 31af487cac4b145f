"""UniPixel for the auto classes of transformers; :mod:`evqa._hooks` calls this when *they* are imported.

The configuration is registered by name, the processor when ``processing_auto`` is imported. The model's code takes
seconds to import, so its class is registered when a :class:`~evqa.models.unipixel.UniPixelConfig` is first made: no
auto class can be asked for the model of a configuration before there is one.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from types import ModuleType

__all__ = ["MODEL_CLASSES", "register", "register_models"]

#: Auto classes that know the model, where the installed transformers has them.
MODEL_CLASSES = ("AutoModel", "AutoModelForImageTextToText", "AutoModelForMultimodalLM")

_models_done = False


def register() -> None:
    """Teach ``AutoConfig`` and ``AutoProcessor``, each as soon as it is there; twice changes nothing."""
    auto = sys.modules.get("transformers.models.auto.configuration_auto")
    if auto is not None and hasattr(auto, "AutoConfig"):
        _register_config(auto)
    auto = sys.modules.get("transformers.models.auto.processing_auto")
    if auto is not None and hasattr(auto, "AutoProcessor"):
        # A transformers without what UniPixel is made of must work for everything else. And when a module of ours is
        # half done, because its import has led here, it is heard of again when it is complete.
        with contextlib.suppress(ImportError, AttributeError):
            _register_processor(auto)


def _register_config(module: ModuleType) -> None:
    """By name, as transformers knows its own: nothing is imported until a UniPixel configuration is asked for.

    Importing it here would be a circle: transformers imports ``configuration_auto`` in the middle of others.
    """
    mapping, kind = module.CONFIG_MAPPING, "pixel_qwen2_5_vl"
    mapping._mapping[kind] = "UniPixelConfig"
    mapping._modules[kind] = importlib.import_module("evqa.models.unipixel")  # which is lazy itself


def _register_processor(module: ModuleType) -> None:
    from evqa.models.unipixel.configuration_unipixel import UniPixelConfig
    from evqa.models.unipixel.processing_unipixel import UniPixelProcessor

    module.AutoProcessor.register(UniPixelConfig, UniPixelProcessor, exist_ok=True)
    # Processors under other names (published repositories call theirs PatchedQwen2_5_VLProcessor) are found by class.
    others = getattr(sys.modules[UniPixelProcessor.__module__], "OTHER_NAMES", {})
    for config_class, processor_class in others.items():
        module.AutoProcessor.register(config_class, processor_class, exist_ok=True)


def register_models() -> None:
    """Teach :data:`MODEL_CLASSES`, once.

    Raises:
        ImportError: torch, or a part of transformers that the model is made of, is not installed.
    """
    global _models_done
    if _models_done:
        return
    _models_done = True  # before the import below, which could make a configuration
    try:
        auto = importlib.import_module("transformers.models.auto.modeling_auto")
        from evqa.models.unipixel.modeling_unipixel import UniPixelForConditionalGeneration as Model
    except BaseException:
        _models_done = False
        raise
    for name in MODEL_CLASSES:
        if hasattr(auto, name):
            getattr(auto, name).register(Model.config_class, Model, exist_ok=True)
