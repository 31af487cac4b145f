"""What of UniPixel is trained: an adapter (LoRA) on its linear layers, whole modules, or everything.

The names of modules are those of the original's ``tuning_modules``:

=============  =======================================================================================
``embedding``  token embeddings and the language model's head
``projector``  the vision tower's merger
``ref``        projections of points and boxes, and the code of their time
``ref_enc``    their prompt encoder
``msk``        projection of object memories
``seg``        from the language model's state to prompts for SAM 2
``sam2``       SAM 2, whole
=============  =======================================================================================

and besides ``sam2_encoder`` and ``sam2_decoder`` (everything of SAM 2 but its image encoder), ``llm`` and ``vision``
(the language model and the vision tower, whole), ``all``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from evqa.errors import DataError

__all__ = ["LORA_TARGETS", "MODULES", "Tuning", "group_of", "plain_parameter_name", "prepare_for_training"]

#: Patterns of parameter names, as UniPixel itself names them.
MODULES: dict[str, str] = {
    "embedding": r"model\.language_model\.embed_tokens\.|lm_head\.",
    "projector": r"model\.visual\.merger\.",
    "ref": r"ref_proj(_single|_double)?\.|tem_(emb|proj)\.",
    "ref_enc": r"ref_encoder\.",
    "msk": r"msk_proj\.",
    "seg": r"seg_head\.",
    "sam2": r"sam2\.",
    "sam2_encoder": r"sam2\.image_encoder\.",
    "sam2_decoder": r"sam2\.(?!image_encoder\.)",
    "llm": r"model\.language_model\.(?!embed_tokens\.)",
    "vision": r"model\.visual\.",
    "all": r"",
}

_LLM, _VISION = r"model\.language_model\.layers\.\d+\.", r"model\.visual\.blocks\.\d+\."
_QKVO = {"llm": _LLM + r"self_attn\.[qkvo]_proj", "visual": _VISION + r"attn\.(qkv|proj)"}
_LINEAR = {
    "llm": _LLM + r"(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
    "visual": _VISION + r"(attn\.(qkv|proj)|mlp\.(gate|up|down)_proj)",
}

#: Where adapters go: patterns of whole module names. SAM 2 never has one.
LORA_TARGETS: dict[str, str] = {
    f"{kind}_{place}": "|".join(f"({part})" for part in parts)
    for kind, table in (("qkvo", _QKVO), ("linear", _LINEAR))
    for place, parts in (("llm", [table["llm"]]), ("visual", [table["visual"]]), ("all", list(table.values())))
}


@dataclasses.dataclass
class Tuning:
    """What is trained, and how.

    Attributes:
        modules: Names out of :data:`MODULES`.
        lora: Where adapters go, a name out of :data:`LORA_TARGETS`; ``None``: no adapters.
        lora_r, lora_alpha, lora_dropout: Rank, scale and dropout of the adapters.
        trained_dtype: Of the weights that are trained. ``float32`` keeps every small step; frozen weights stay as they
            were loaded.

    Raises:
        DataError: A name that is none, or nothing to train.
    """

    modules: Sequence[str] = ()
    lora: str | None = None
    lora_r: int = 128
    lora_alpha: int = 256
    lora_dropout: float = 0.1
    trained_dtype: str = "float32"

    def __post_init__(self) -> None:
        """Check the names."""
        self.modules = tuple(self.modules)
        if unknown := sorted(set(self.modules) - set(MODULES)):
            raise DataError(f"tuning_modules: {unknown} are none of {', '.join(MODULES)}")
        if self.lora is not None and self.lora not in LORA_TARGETS:
            raise DataError(f"lora_targets: {self.lora!r} is none of {', '.join(LORA_TARGETS)}")
        if self.lora is not None and not (self.lora_r >= 1 and 0 <= self.lora_dropout < 1):
            raise DataError(f"an adapter has a rank of at least 1 and a dropout in [0, 1), got {self}")
        if self.lora is None and not self.modules:
            raise DataError("nothing would be trained: name tuning_modules, lora_targets, or both")
        if self.lora is not None and (whole := {"llm", "vision", "all"} & set(self.modules)):
            raise DataError(
                f"lora_targets {self.lora!r} puts adapters on layers that tuning_modules {sorted(whole)} trains as a "
                "whole; use one of them"
            )
        if self.trained_dtype not in ("float32", "bfloat16"):
            raise DataError(f"trained_dtype is float32 or bfloat16, not {self.trained_dtype!r}")


def plain_parameter_name(name: str) -> str:
    """A parameter's name as UniPixel itself has it, whatever PEFT, DDP, FSDP or compilation put around it."""
    name = re.sub(r"(^|(?<=\.))(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.", "", name)
    return re.sub(r"\.(base_layer|original_module|modules_to_save\.\w+)(?=\.)", "", name).removeprefix(
        "base_model.model."
    )


def group_of(name: str) -> str:
    """Which group of learning rates a parameter belongs to: ``lora``, ``sam2_encoder``, ``sam2`` or ``base``."""
    name = plain_parameter_name(name)
    if ".lora_" in name:
        return "lora"
    if name.startswith("sam2.image_encoder."):
        return "sam2_encoder"
    return "sam2" if name.startswith("sam2.") else "base"


def matching(names: Iterable[str], modules: Sequence[str]) -> set[str]:
    """The parameter names (as given) that belong to these :data:`MODULES`."""
    patterns = [re.compile(MODULES[module]) for module in modules]
    return {name for name in names if any(p.match(plain_parameter_name(name)) for p in patterns)}


def prepare_for_training(model: Any, tuning: Tuning) -> Any:
    """Freeze a model but for what is to be trained.

    Args:
        model: UniPixel, or a PEFT model around it that is to be trained on (its adapter stays, ``tuning.lora`` must
            then be ``None``).
        tuning: What is trained.

    Returns:
        The model, or a PEFT model around it. Weights that are trained have ``tuning.trained_dtype``.

    Raises:
        DataError: The model lacks a named module, has tied heads that cannot be trained so, or has an adapter already.
    """
    is_peft = hasattr(model, "peft_config")
    if is_peft and tuning.lora is not None:
        raise DataError("the model has an adapter already: train on it (lora_targets null), or merge it first")
    inner = model.get_base_model() if is_peft else model
    names = [name for name, _ in inner.named_parameters()]
    for module in tuning.modules:
        if module != "all" and not matching(names, [module]):
            why = "it has no SAM 2" if getattr(inner, "sam2", None) is None else "it has no such weights"
            raise DataError(f"tuning_modules names {module!r}, but this model cannot train it: {why}")
    trained = {plain_parameter_name(name) for name in matching(names, tuning.modules)}
    if inner.config.tie_word_embeddings and "lm_head.weight" not in names:
        # One matrix under two names: it is among the parameters once, as the embedding, and both uses train it.
        head, embedding = inner.get_output_embeddings(), inner.get_input_embeddings()
        if head.weight is not embedding.weight:
            raise DataError("the config says that head and embeddings are tied, but the model holds two matrices")
    for parameter in inner.parameters():
        parameter.requires_grad_(False)
    if tuning.lora is not None:
        model = _add_adapter(inner, tuning)
    elif is_peft:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(".lora_" in name)
    for name, parameter in model.named_parameters():
        if plain_parameter_name(name) in trained:
            parameter.requires_grad_(True)
    dtype = getattr(torch, tuning.trained_dtype)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)
    return model


def _add_adapter(model: Any, tuning: Tuning) -> Any:
    from peft import LoraConfig, get_peft_model

    pattern = LORA_TARGETS[tuning.lora]
    config = LoraConfig(
        r=tuning.lora_r, lora_alpha=tuning.lora_alpha, lora_dropout=tuning.lora_dropout, bias="none",
        target_modules=pattern,
    )  # fmt: skip
    return get_peft_model(model, config, autocast_adapter_dtype=tuning.trained_dtype == "float32")
