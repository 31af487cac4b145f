"""UniPixel for the auto classes of transformers; :mod:`evqa._hooks` calls this when *they* are imported.

Configuration and processor are registered at once, they are light. The model's code takes seconds to import, so its
class is registered when a :class:`~evqa.models.unipixel.UniPixelConfig` is first made: no auto class can be asked for
the model of a configuration before there is one.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["MODEL_CLASSES", "register_config", "register_models", "register_processor"]

#: Auto classes that know the model, where the installed transformers has them.
MODEL_CLASSES = ("AutoModel", "AutoModelForImageTextToText", "AutoModelForMultimodalLM")

_models_done = False


def register_config(module: ModuleType) -> None:
    """Teach ``AutoConfig``; ``module`` is ``transformers.models.auto.configuration_auto``."""
    try:
        from evqa.models.unipixel.configuration_unipixel import UniPixelConfig
    except ImportError:  # a transformers that has not what UniPixel is made of must work for everything else
        return
    module.AutoConfig.register(UniPixelConfig.model_type, UniPixelConfig, exist_ok=True)


def register_processor(module: ModuleType) -> None:
    """Teach ``AutoProcessor``; ``module`` is ``transformers.models.auto.processing_auto``."""
    try:
        from evqa.models.unipixel import processing_unipixel as processing
        from evqa.models.unipixel.configuration_unipixel import UniPixelConfig
    except ImportError:
        return
    module.AutoProcessor.register(UniPixelConfig, processing.UniPixelProcessor, exist_ok=True)
    # Processors under other names (published repositories call theirs PatchedQwen2_5_VLProcessor) are found by class.
    for config_class, processor_class in getattr(processing, "OTHER_NAMES", {}).items():
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
