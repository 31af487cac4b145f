"""Which weights are trained, and how fast: freezing, LoRA, and the groups of an optimiser.

The names of the parts are those of the original's ``tuning_modules``, with a few more.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from evqa.errors import SetupError

__all__ = ["LORA_TARGETS", "PARTS", "LoraSettings", "parameter_groups", "part_of", "prepare"]

#: Part -> which weights it is, by a pattern that their name begins with.
PARTS = {
    "llm": r"model\.language_model\.",
    "visual": r"model\.visual\.",
    "embedding": r"model\.language_model\.embed_tokens\.|lm_head\.",
    "projector": r"model\.visual\.merger\.",
    "ref": r"ref_proj|tem_",
    "ref_enc": r"ref_encoder\.",
    "msk": r"msk_proj\.",
    "seg": r"seg_head\.",
    "sam2": r"sam2\.",
    "sam2_rest": r"sam2\.(?!image_encoder\.)",
    "all": r"",
}

#: Query, key, value and output of attention in the language model and the vision tower, never in SAM 2.
LORA_TARGETS = (
    r"(.*\.)?model\.(language_model\.layers\.\d+\.self_attn\.[qkvo]_proj|visual\.blocks\.\d+\.attn\.(qkv|proj))"
)

_WRAPPERS = re.compile(r"^(?:module\.)?(?:_orig_mod\.)?(?:base_model\.model\.)?")


@dataclasses.dataclass(frozen=True)
class LoraSettings:
    """An adapter; ``r`` 0: none."""

    r: int = 0
    alpha: int = 256
    dropout: float = 0.1


def part_of(name: str) -> str:
    """``lora``, ``sam2_encoder``, ``sam2_rest`` or ``base``: the group whose learning rate a weight has."""
    if ".lora_" in name:
        return "lora"
    name = _WRAPPERS.sub("", name)
    if name.startswith("sam2."):
        return "sam2_encoder" if name.startswith("sam2.image_encoder.") else "sam2_rest"
    return "base"


def prepare(model: Any, tune: str, lora: LoraSettings | None = None) -> Any:
    """Freeze everything but some parts, and add an adapter.

    Args:
        model: UniPixel.
        tune: Parts, separated by commas (:data:`PARTS`); empty: none but the adapter.
        lora: The adapter, on :data:`LORA_TARGETS`.

    Returns:
        The model itself, or the PEFT model around it.

    Raises:
        SetupError: An unknown part, or nothing would be trained.
    """
    wanted = [part.strip() for part in tune.split(",") if part.strip()]
    if unknown := [part for part in wanted if part not in PARTS]:
        raise SetupError(f"unknown parts to tune {unknown}; known: {', '.join(PARTS)}")
    pattern = re.compile("|".join(f"(?:{PARTS[part]})" for part in wanted)) if wanted else None
    if lora is not None and lora.r:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(
            model,
            LoraConfig(
                r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, bias="none", target_modules=LORA_TARGETS
            ),
        )
    for name, weight in model.named_parameters():
        plain = _WRAPPERS.sub("", name)
        adapter = ".lora_" in name
        # The weight below an adapter is what the adapter stands in for.
        weight.requires_grad = adapter or bool(pattern and pattern.match(plain) and ".base_layer." not in plain)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise SetupError("nothing would be trained: name parts to tune, or give an adapter a rank")
    return model


def parameter_groups(
    model: Any, rates: Mapping[str, float | None], decayed: set[str], weight_decay: float
) -> list[dict[str, Any]]:
    """The optimiser's groups: each of :func:`part_of`, with and without weight decay; empty ones left out.

    Args:
        model: The model; frozen weights are in no group.
        rates: Learning rate by group; a group that is not named, or ``None``, has that of ``base``.
        decayed: Names of the weights that weight decay applies to.
        weight_decay: Of those.
    """
    groups: dict[tuple[str, bool], list[Any]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            groups.setdefault((part_of(name), name in decayed), []).append(weight)
    return [
        {
            "name": f"{part}{'' if decays else '_no_decay'}",
            "params": weights,
            "lr": rates["base"] if rates.get(part) is None else rates[part],
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (part, decays), weights in sorted(groups.items(), key=lambda item: item[0])
    ]
