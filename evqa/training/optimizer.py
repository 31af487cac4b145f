"""Groups of parameters with learning rates of their own: everything else, adapters, SAM 2's encoder, SAM 2's rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from evqa.training.tuning import group_of, plain_parameter_name

__all__ = ["GROUPS", "parameter_groups"]

#: Groups in their order; each is split into weights that decay and weights that do not.
GROUPS = ("base", "lora", "sam2_encoder", "sam2")


def parameter_groups(
    model: Any, rates: Mapping[str, float], weight_decay: float, decaying: Collection[str]
) -> list[dict[str, Any]]:
    """The trainable parameters as an optimiser takes them.

    Args:
        model: Whatever has ``named_parameters``.
        rates: Learning rate of each of :data:`GROUPS`.
        weight_decay: Of the parameters that decay.
        decaying: Names of parameters that decay (biases and norms do not).

    Returns:
        Groups that have parameters, each ``{"params", "lr", "weight_decay", "name"}``, in a fixed order.
    """
    decaying = {plain_parameter_name(name) for name in decaying}
    found: dict[tuple[str, bool], list[Any]] = {(name, decays): [] for name in GROUPS for decays in (True, False)}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found[group_of(name), plain_parameter_name(name) in decaying].append(parameter)
    return [
        {
            "params": parameters,
            "lr": rates[name],
            "weight_decay": weight_decay if decays else 0.0,
            "name": name if decays else f"{name}_no_decay",
        }
        for (name, decays), parameters in found.items()
        if parameters
    ]
