"""UniPixel for the auto classes of transformers; :mod:`evqa._hooks` calls this when *they* are imported.

Configuration and processor are registered at once, they are light. The model's code takes seconds to import, so its
class is registered when a :class:`~evqa.models.unipixel.UniPixelConfig` is first made: no auto class can be asked for
the model of a configuration before there is one.
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
    """Teach ``AutoConfig`` and ``AutoProcessor``, each as soon as it and our class are there; twice changes nothing."""
    modeling = sys.modules.get("transformers.models.auto.modeling_auto")
    if modeling is not None and not hasattr(modeling, "AutoModel"):
        return  # it is being imported, and our configuration's parent would look into it; we are called when it is done
    for auto, teach in (("configuration_auto", _register_config), ("processing_auto", _register_processor)):
        module = sys.modules.get(f"transformers.models.auto.{auto}")
        # A transformers without what UniPixel is made of must work for everything else. And a module of ours whose
        # import has led here is half done: it is heard of again when it is complete.
        with contextlib.suppress(ImportError):
            if module is not None:
                teach(module)


def _register_config(module: ModuleType) -> None:
    from evqa.models.unipixel.configuration_unipixel import UniPixelConfig

    module.AutoConfig.register(UniPixelConfig.model_type, UniPixelConfig, exist_ok=True)


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
