"""Operations of a training step with fewer kernels and fewer passes over memory; results are equal but for rounding."""

from __future__ import annotations

import types
from typing import Any

import torch
from torch.nn import functional as F

__all__ = ["fuse_adapters", "fuse_norms"]

_NORM = "Qwen2_5_VLRMSNorm"


def fuse_norms(model: Any) -> int:
    """Let every root-mean-square norm of Qwen2.5-VL use torch's kernel.

    transformers writes them out in six elementwise operations, each a pass over memory, in float32. The product with
    the weight is rounded once instead of twice; in float32 nothing differs.

    Returns:
        How many there are.
    """
    norms = [module for module in model.modules() if type(module).__name__ == _NORM]
    for norm in norms:
        norm.forward = types.MethodType(_norm, norm)
    return len(norms)


def _norm(norm: Any, hidden_states: Any) -> Any:
    weight = norm.weight
    if weight.dtype != hidden_states.dtype:
        weight = weight.to(hidden_states.dtype)
    return F.rms_norm(hidden_states, (hidden_states.shape[-1],), weight, norm.variance_epsilon)


def fuse_adapters(model: Any) -> int:
    """Let PEFT's LoRA layers add what the adapter says in the product that computes it.

    PEFT scales it and adds it in two passes over the layer's output, and as many when going back. Layers with anything
    but one plain adapter (DoRA, several at once, merged, switched off) do what they did.

    Returns:
        How many there are.
    """
    try:
        from peft.tuners.lora.layer import Linear
    except ImportError:
        return 0
    layers = [module for module in model.modules() if type(module) is Linear]
    for layer in layers:
        layer.forward = types.MethodType(_adapted, layer)
    return len(layers)


def _adapted(layer: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    plain = not (args or kwargs or layer.disable_adapters or layer.merged) and len(names) == 1
    if not plain or layer.lora_variant.get(names[0]) is not None:
        return type(layer).forward(layer, x, *args, **kwargs)
    down, up = layer.lora_A[names[0]], layer.lora_B[names[0]]
    if up.bias is not None or up._forward_hooks or up._forward_pre_hooks:  # ZeRO brings weights when a layer is called
        return type(layer).forward(layer, x)
    result = layer.base_layer(x)
    dropped, scale = layer.lora_dropout[names[0]](x), layer.scaling[names[0]]
    if x.dtype == result.dtype == down.weight.dtype == up.weight.dtype or torch.is_autocast_enabled(x.device.type):
        small = down(dropped).flatten(0, -2)
        return torch.addmm(result.flatten(0, -2), small, up.weight.t(), alpha=scale).view_as(result)
    said = up(down(dropped.to(down.weight.dtype)))
    return torch.add(result, said.to(result.dtype), alpha=scale)
