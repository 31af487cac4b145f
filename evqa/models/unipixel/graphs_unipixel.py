"""CUDA graphs: a step of fixed shapes, recorded once and replayed without the cost of its many launches."""

from __future__ import annotations

import functools
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import nn

__all__ = ["Recorder", "kept_for", "side_stream", "urgent_stream", "weights_key"]


class _Kept:
    """Things made for a model (buffers, graphs), which go where it goes but never into a copy or a file of it."""

    def __init__(self) -> None:
        self.things: OrderedDict[Hashable, Any] = OrderedDict()

    def __deepcopy__(self, memo: dict) -> _Kept:
        return _Kept()

    def __reduce__(self) -> tuple[type[_Kept], tuple]:
        return _Kept, ()


@functools.cache  # every stream that multiplies matrices costs a workspace of 32 MiB
def urgent_stream(device: torch.device) -> torch.cuda.Stream:
    """Where graphs are recorded: their kernels go before those of other streams, for they are small and in a chain."""
    return torch.cuda.Stream(device, priority=-1)


@functools.cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """For work that can wait."""
    return torch.cuda.Stream(device)


def kept_for(model: nn.Module, key: Hashable, make: Callable[[], Any], *, at_most: int = 4) -> Any:
    """What was made for this model under this key, or is made now.

    ``key[0]`` is the kind of thing; of each kind those used last are kept, ``at_most`` of them.
    """
    kept = model.__dict__.setdefault("_kept", _Kept()).things
    if key not in kept:
        same = [other for other in kept if other[0] == key[0]]
        for other in same[: len(same) - at_most + 1]:
            del kept[other]
        kept[key] = make()
    kept.move_to_end(key)
    return kept[key]


def weights_key(*modules: nn.Module) -> int | None:
    """A number that changes when a recorded graph must not be used any more; ``None`` if none can be recorded.

    A graph knows addresses: new tensors for weights (another dtype or device, an adapter added or merged) make it
    wrong, new values in the same tensors do not. Modules with hooks, or wrapped by accelerate, do more than their
    kernels, and are not recorded.
    """
    parts: list[Hashable] = []
    for module in modules:
        for part in module.modules():
            if part._forward_hooks or part._forward_pre_hooks or hasattr(part, "_hf_hook"):
                return None
            if hasattr(part, "merged_adapters"):  # a layer of PEFT
                parts.append((part.disable_adapters, *part.active_adapters, "merged", *part.merged_adapters))
        tensors = [*module.parameters(), *module.buffers()]
        if len({tensor.device for tensor in tensors}) != 1:
            return None
        parts.extend(tensor.data_ptr() for tensor in tensors)
    return hash(tuple(parts))


class Recorder:
    """Calls functions without arguments, each always on the same tensors; replays them once they have been recorded.

    The first call of a function runs it as it is: kernels are loaded and their libraries set up, which cannot be
    recorded. The second records it. On the CPU every call runs it as it is. All graphs share their memory, so a result
    must be copied before the next call.

    Args:
        device: Where the tensors are.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.enabled = device.type == "cuda"
        self.pool = torch.cuda.graph_pool_handle() if self.enabled else None
        self.seen: set[Hashable] = set()
        self.graphs: dict[Hashable, tuple[Any, Any]] = {}

    def __call__(self, name: Hashable, function: Callable[[], Any]) -> Any:
        """The result of the function known by this name."""
        if name in self.graphs:
            graph, result = self.graphs[name]
            graph.replay()
            return result
        if not self.enabled or name not in self.seen:
            self.seen.add(name)
            return function()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads (a decoder of videos, a loader that pins memory) may go on using CUDA.
            stream = urgent_stream(self.device)
            with torch.cuda.graph(graph, pool=self.pool, stream=stream, capture_error_mode="thread_local"):
                result = function()
        except RuntimeError as error:
            self.enabled = False
            warnings.warn(f"this step cannot be recorded as a CUDA graph and runs slower: {error}", stacklevel=2)
            torch.cuda.synchronize(self.device)
            return function()
        self.graphs[name] = (graph, result)
        graph.replay()
        return result
