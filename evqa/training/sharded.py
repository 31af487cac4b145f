"""Weights that are spread over ranks (FSDP2): made whole, filled from whole ones, and gradients that every rank has.

FSDP2 keeps a parameter as a ``DTensor``, of which each rank holds a part. Checkpoints are written from whole tensors,
into the same files as without FSDP: a run can go on with another number of ranks, or without FSDP.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch

__all__ = [
    "GradientsOnAllRanks",
    "is_spread",
    "local",
    "put",
    "spread_optimizer_state",
    "touched",
    "whole",
    "whole_optimizer_state",
    "whole_weights",
    "with_whole_weights",
]


def is_spread(tensor: Any) -> bool:
    """Whether each rank holds a part of it. Does not import torch's distributed tensors, which takes a second."""
    return hasattr(tensor, "full_tensor")


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a tensor, in the same memory; the tensor itself where it is not spread."""
    return tensor.to_local() if is_spread(tensor) else tensor


def whole(tensor: torch.Tensor, *, keep: bool) -> torch.Tensor | None:
    """A tensor brought together from all ranks, which must all come here, in host memory.

    Args:
        tensor: Spread or not.
        keep: ``False``: take part and return ``None``.
    """
    tensor = tensor.detach()
    full = tensor.full_tensor() if is_spread(tensor) else tensor
    return full.cpu() if keep else None


def _spread_like(full: torch.Tensor, like: Any) -> torch.Tensor:
    """A whole tensor, which every rank has, spread as another one is. No rank talks to another."""
    from torch.distributed.tensor import distribute_tensor

    full = full.to(like.device)
    return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def put(target: torch.Tensor, full: torch.Tensor) -> None:
    """Fill a tensor, spread or not, from a whole one, which every rank has."""
    local(target).copy_(local(_spread_like(full, target)) if is_spread(target) else full)


# ---------------------------------------------------------------------------------------- weights
def whole_weights(model: torch.nn.Module, *, keep: bool) -> dict[str, torch.Tensor]:
    """What is trained, and the buffers, whole and in host memory; frozen weights stay where they are.

    Args:
        model: All ranks must come here with theirs.
        keep: Whether this rank wants them; the others get none.
    """
    found: dict[str, torch.Tensor] = {}
    seen: dict[int, torch.Tensor | None] = {}  # tied weights have two names
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, torch.nn.Parameter) and not tensor.requires_grad:
            continue
        if id(tensor) not in seen:
            seen[id(tensor)] = whole(tensor, keep=keep)
        if keep:
            found[name] = seen[id(tensor)]
    return found


@contextlib.contextmanager
def with_whole_weights(model: torch.nn.Module, *, reshard: bool) -> Iterator[None]:
    """Every rank holds all weights for a while, and calls of modules are no collective operations.

    Ranks can then generate texts of different lengths.

    Args:
        model: As FSDP2 wrapped it.
        reshard: Whether layers spread their weights again after each forward pass in training.
    """
    from torch.distributed.fsdp import FSDPModule

    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
            # The outermost and single layers (embeddings, norm, head) keep their weights until they have gone backward.
            layered = unit is not model and any(True for _ in unit.children())
            unit.set_reshard_after_forward(reshard and layered, recurse=False)


# -------------------------------------------------------------------------------------- optimiser
def whole_optimizer_state(optimizer: torch.optim.Optimizer, *, keep: bool) -> dict[str, Any]:
    """The state of an optimiser as if there were one rank, in host memory. All ranks must come here.

    Args:
        optimizer: Over spread parameters.
        keep: Whether this rank wants it; the others get their own without tensors.
    """
    own = optimizer.state_dict()
    state = {
        number: {
            name: whole(value, keep=keep) if isinstance(value, torch.Tensor) else value
            for name, value in own["state"][number].items()
        }
        for number in sorted(own["state"])
    }
    return {**own, "state": state}


def spread_optimizer_state(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """A state as if there were one rank, for an optimiser over spread parameters. Every rank has it, whole."""
    state_dict = copy.copy(state_dict)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [n for group in state_dict["param_groups"] for n in group["params"]]
    by_number = dict(zip(numbers, parameters, strict=True))
    state_dict["state"] = {
        number: {name: _as_state_of(by_number[number], value) for name, value in values.items()}
        for number, values in state_dict["state"].items()
    }
    return state_dict


def _as_state_of(parameter: torch.Tensor, value: Any) -> Any:
    is_like = isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.dim() > 0
    return _spread_like(value, parameter) if is_like and is_spread(parameter) else value


# -------------------------------------------------------------------------------------- gradients
class GradientsOnAllRanks:
    """Gradients for the same parameters on every rank.

    A module that one rank used in a step and another did not (prompts for objects, memory of frames before) leaves the
    ranks with gradients for different parameters, and FSDP2 would reduce one's against another's. Parameters that any
    rank has used get a gradient of zeros on the others. Those that none has used keep none, as on one rank.

    Args:
        model: As FSDP2 wrapped it.
    """

    def __init__(self, model: torch.nn.Module):
        self.model = model
        self.group = torch.distributed.new_group(backend="gloo")  # in host memory: nobody waits for the device

    def __call__(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss, whose backward pass ends with it."""
        return _AtEnd.apply(loss, self._fill)

    def _fill(self) -> None:
        # Layers have reduced theirs by now, and every rank calls the same layers; the rest is not spread yet.
        here = [p for p in self.model.parameters() if p.requires_grad and not is_spread(p)]
        used = torch.tensor([p.grad is not None for p in here], dtype=torch.uint8)
        torch.distributed.all_reduce(used, op=torch.distributed.ReduceOp.MAX, group=self.group)
        for parameter, anywhere in zip(here, used.tolist(), strict=True):
            if anywhere and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)


class _AtEnd(torch.autograd.Function):
    """The same number; its backward pass asks for a call after all others and before FSDP's own, which come later."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor, call: Callable[[], None]) -> torch.Tensor:
        """See :class:`GradientsOnAllRanks`."""
        ctx.call = call
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """See :class:`GradientsOnAllRanks`."""
        torch.autograd.Variable._execution_engine.queue_callback(ctx.call)
        return gradient, None


def touched(loss: torch.Tensor, parameters: list[torch.nn.Parameter]) -> torch.Tensor:
    """The same loss, in whose backward pass all of these parameters get a gradient: zeros where they had no part.

    DeepSpeed sends gradients in the order in which they come, and needs the same ones on every rank.
    """
    return _Touched.apply(loss, *parameters)


class _Touched(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor, *parameters: torch.nn.Parameter) -> torch.Tensor:
        ctx.like = [(p.shape, p.dtype, p.device) for p in parameters]
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return gradient, *(
            torch.zeros((), dtype=dtype, device=device).expand(shape) for shape, dtype, device in ctx.like
        )
