"""AdamW for weights in half precision: it keeps a float32 copy of each, and works on that.

A step of 2e-5 on a weight of 0.05 is lost when the weight is bfloat16, whose next number is 0.0002 away. The model
computes with the half-precision weights, without autocast and its conversions; the steps add up in the copies. This is
what DeepSpeed does for bfloat16, without DeepSpeed. Memory per weight: 2 bytes, 2 for its gradient, 12 here; as much as
float32 weights need under autocast (4, 4 and 8).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim.adamw import adamw

from evqa.training.sharded import local

__all__ = ["MasterAdamW"]


class MasterAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter, 2019) with float32 copies of the weights.

    Args:
        params: Parameters or groups of them, of any floating dtype.
        lr, betas, eps, weight_decay: As in ``torch.optim.AdamW``.
        fused: One kernel per dtype and device instead of several; ``None``: on CUDA.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        fused: bool | None = None,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "fused": fused})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; parameters without a gradient are left alone."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            if not trained:
                continue
            # Each number for itself: where FSDP spreads the weights, a rank's own part of them is all that is needed.
            states = [{name: local(value) for name, value in self._state_of(p).items()} for p in trained]
            copies = [state["master"] for state in states]
            gradients = [torch.empty_like(copy) for copy in copies]
            torch._foreach_copy_(gradients, [local(p.grad) for p in trained])
            cuda = trained[0].is_cuda
            adamw(
                copies,
                gradients,
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                foreach=not (cuda if group["fused"] is None else group["fused"]),
                fused=cuda if group["fused"] is None else group["fused"],
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )
            torch._foreach_copy_([local(p) for p in trained], copies)
        return loss

    def _state_of(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        state = self.state[parameter]
        if not state:
            state["master"] = parameter.detach().to(torch.float32, copy=True)
            state["exp_avg"] = torch.zeros_like(state["master"])
            state["exp_avg_sq"] = torch.zeros_like(state["master"])
            # On the device where the fused kernel wants it; nobody reads it on the host.
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, but that the float32 state stays float32, which torch would cast to the parameters' dtype."""
        super().load_state_dict(state_dict)
        places = [p for group in self.param_groups for p in group["params"]]
        numbers = [n for group in state_dict["param_groups"] for n in group["params"]]
        for parameter, number in zip(places, numbers, strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                self.state[parameter][name] = value.to(parameter.device, torch.float32, copy=True)
