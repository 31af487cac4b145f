"""Where activations are recomputed in the backward pass instead of kept, part by part and layer by layer."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from evqa.errors import DataError

__all__ = ["RECOMPUTED", "recompute_only", "shares_of"]

#: Parts of the model whose activations can be recomputed.
RECOMPUTED = ("vision", "llm", "sam2_encoder", "sam2_tracker")

#: Prefixes of module names, the longest first -> part.
_PREFIXES = (
    ("model.visual", "vision"), ("model.language_model", "llm"), ("sam2.image_encoder", "sam2_encoder"),
    ("sam2", "sam2_tracker"),
)  # fmt: skip


def shares_of(parts: Collection[str]) -> dict[str, float]:
    """``["vision", "llm:0.5"]`` as ``{"vision": 1.0, "llm": 0.5}``: the share of each part's layers that recompute.

    Raises:
        DataError: A part that is none, twice, or with a share that is none.
    """
    shares: dict[str, float] = {}
    for entry in parts:
        name, _, given = str(entry).partition(":")
        try:
            share = float(given) if given else 1.0
        except ValueError:
            share = -1.0
        if name not in RECOMPUTED:
            raise DataError(f"checkpoint_modules: {entry!r} is none of {', '.join(RECOMPUTED)}")
        if name in shares or not 0 <= share <= 1:
            raise DataError(f"checkpoint_modules: {entry!r} is given twice or has no share of layers from 0 to 1")
        shares[name] = share
    return shares


def recompute_only(model: Any, parts: Collection[str] | Mapping[str, float]) -> None:
    """Let a model that recomputes everywhere do so in these parts alone.

    Args:
        model: UniPixel, with ``gradient_checkpointing_enable`` called.
        parts: As :func:`shares_of` takes or returns them. Of a share of 0.5 every second layer recomputes.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    shares = parts if isinstance(parts, Mapping) else shares_of(parts)
    counted = dict.fromkeys(RECOMPUTED, 0)
    for name, module in model.named_modules():
        part = next((part for prefix, part in _PREFIXES if name.startswith(prefix)), None)
        if part is None or not hasattr(module, "gradient_checkpointing"):
            continue
        share = shares.get(part, 0.0)
        module.gradient_checkpointing = share > 0
        if isinstance(module, GradientCheckpointingLayer):
            number = counted[part] = counted[part] + 1
            module.gradient_checkpointing = math.floor(number * share) > math.floor((number - 1) * share)
