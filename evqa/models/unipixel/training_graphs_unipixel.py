"""A part of a training step, forward and backward, as two CUDA graphs.

Tracking is a chain of thousands of small kernels that a host cannot launch as fast as a GPU runs them. Recorded once
for a shape, they cost one launch. What is needed for the backward pass stays in memory that belongs to the graphs:
nothing is recomputed, and dropout draws anew at every replay.
"""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from evqa.models.unipixel.graphs_unipixel import kept_for, urgent_stream, weights_key

__all__ = ["GraphedPart", "graphed_part", "rounded_up"]


class _Shared:
    """What the recorded parts of a model share: memory, and the knowledge of who is using it.

    Attributes:
        pool: Handle of the memory; ``None`` on the CPU.
        seen: Keys of parts that came up, the first time without being recorded.
        enabled: Off once a recording has failed.
        turn: The forward pass whose backward pass has not yet been, if it still can be.
    """

    def __init__(self, device: torch.device):
        self.pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self.seen: set[Hashable] = set()
        self.enabled = True
        self.turn: Any = None

    def busy(self) -> bool:
        return self.turn is not None and self.turn() is not None


class _Turn:
    """Lives as long as the backward pass of one forward pass can still come."""


class GraphedPart(nn.Module):
    """A function of tensors and a module's weights to one tensor, with its gradient, on tensors that never move.

    On the CPU the function is run as it is, on the same tensors.

    Args:
        module: Whose weights get gradients; leaves of its own are put in their place while recording.
        function: Called with the module and the inputs.
        inputs: Examples: shapes, and which of them get a gradient.
        names: Of the module's parameters that get gradients.
        shared: See :class:`_Shared`.
    """

    def __init__(
        self, module: nn.Module, function: Callable[..., Tensor], inputs: Sequence[Tensor], names: Sequence[str],
        shared: _Shared,
    ):  # fmt: skip
        super().__init__()
        self.module, self.function, self.names, self.shared = module, function, list(names), shared
        self.static = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
        self.result: Tensor | None = None
        self.gradient: Tensor | None = None
        self.gradients: list[Tensor | None] = []
        self.graphs: tuple[Any, Any] | None = None

    def forward(self, *inputs: Tensor) -> Tensor:
        """The function itself, as it is recorded."""
        return self.function(self.module, *inputs)

    def replay(self, *inputs: Tensor) -> Tensor:
        """The function's result for these inputs, with gradients for them and for the weights."""
        weights = dict(self.module.named_parameters())
        return _Replayed.apply(self, *inputs, *(weights[name] for name in self.names))

    def record(self) -> None:
        """Record both graphs."""
        device = self.static[0].device
        stream = urgent_stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.random.fork_rng([device]), torch.cuda.stream(stream):
            for _ in range(2):  # kernels are loaded and their libraries set up, which cannot be recorded
                self._run()
                self._run_back(torch.zeros_like(self.result))
        torch.cuda.current_stream(device).wait_stream(stream)
        self.result, self.gradients = None, []
        # Other threads (a loader that pins memory) may go on using CUDA.
        options = {"pool": self.shared.pool, "stream": stream, "capture_error_mode": "thread_local"}
        forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(forward, **options):
            self._run()
        self.gradient = torch.zeros_like(self.result)
        with torch.cuda.graph(backward, **options):
            self._run_back(self.gradient)
        self.result = self.result.detach()
        self.graphs = (forward, backward)

    def _run(self) -> None:
        weights = dict(self.module.named_parameters())
        # Leaves that nobody else knows: DDP, for one, keeps what belongs to the real ones on another stream.
        self.leaves = [weights[name].detach().requires_grad_() for name in self.names]
        named = {f"module.{name}": leaf for name, leaf in zip(self.names, self.leaves, strict=True)}
        with torch.enable_grad(), _uncached_autocast():
            self.result = torch.func.functional_call(self, named, tuple(self.static))

    def _run_back(self, gradient: Tensor) -> None:
        wanted = [x for x in self.static if x.requires_grad] + self.leaves
        found = iter(torch.autograd.grad(self.result, wanted, gradient, allow_unused=True))
        self.gradients = [next(found) if x.requires_grad else None for x in self.static] + list(found)

    def run(self, inputs: Sequence[Tensor]) -> Tensor:
        """Forward; the result is a copy."""
        with torch.no_grad():
            for place, value in zip(self.static, inputs, strict=True):
                place.copy_(value)
        if self.graphs is None:
            self._run()
        else:
            self.graphs[0].replay()
        return self.result.detach().clone()

    def run_back(self, gradient: Tensor) -> list[Tensor | None]:
        """Backward. Gradients of weights are copies, for they may be kept and added to; those of inputs are not."""
        if self.graphs is None:
            self._run_back(gradient)
        else:
            self.gradient.copy_(gradient)
            self.graphs[1].replay()
        count = len(self.static)
        ours = [g for g in self.gradients[count:] if g is not None]
        copies = [torch.empty_like(g) for g in ours]
        if ours:
            torch._foreach_copy_(copies, ours)
        kept = iter(copies)
        weights = [None if g is None else next(kept) for g in self.gradients[count:]]
        return [*(None if g is None else g.detach() for g in self.gradients[:count]), *weights]


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: GraphedPart, *tensors: Tensor) -> Tensor:
        ctx.part, ctx.turn = part, _Turn()
        part.shared.turn = weakref.ref(ctx.turn)
        return part.run(tensors[: len(part.static)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.turn is None:
            raise RuntimeError("the backward pass of a recorded part of the step can run once")
        gradients = ctx.part.run_back(gradient)
        ctx.turn = ctx.part.shared.turn = None
        return (None, *gradients)


@contextlib.contextmanager
def _uncached_autocast() -> Iterator[None]:
    """Autocast as it is, but for the copies of weights that it keeps: a graph must make its own each time."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def graphed_part(
    module: nn.Module,
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    key: tuple[Hashable, ...],
    without: Sequence[str] = (),
    keep: Any = None,
) -> GraphedPart | None:
    """The recorded part for these shapes, or ``None``: a shape's first time, or where nothing can be recorded.

    Args:
        module: Whose weights the function uses.
        function: See :class:`GraphedPart`; the same for the same key.
        inputs: The inputs, all on the module's device.
        key: What else the result depends on, beside shapes, weights' places and modes.
        without: Children of the module that the function does not use.
        keep: What the function finds elsewhere on the device and graphs remember the place of; part of the key.
    """
    if module._forward_hooks or module._forward_pre_hooks or hasattr(module, "_hf_hook"):
        return None
    children = [child for name, child in module.named_children() if name not in without]
    own = nn.ParameterList(module.parameters(recurse=False))
    weights, device = weights_key(*children, own), inputs[0].device
    if weights is None:
        return None
    names = [
        name for name, parameter in module.named_parameters()
        if parameter.requires_grad and not name.startswith(tuple(f"{child}." for child in without))
    ]  # fmt: skip
    autocast = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type)
    shapes = tuple((tuple(x.shape), x.dtype, x.requires_grad) for x in inputs)
    key = ("recorded part", weights, hash(tuple(names)), autocast, module.training, shapes, id(keep), *key)
    shared = kept_for(module, ("recorded parts share",), lambda: _Shared(device))
    if not shared.enabled or shared.busy():
        return None
    if key not in shared.seen:
        shared.seen.add(key)
        return None

    def make() -> GraphedPart | None:
        part = GraphedPart(module, function, inputs, names, shared)
        part.kept = keep
        try:
            if device.type == "cuda":
                part.record()
        except RuntimeError as error:
            shared.enabled = False
            warnings.warn(f"this step cannot be recorded as CUDA graphs and runs slower: {error}", stacklevel=2)
            torch.cuda.synchronize(device)
            return None
        return part

    return kept_for(module, key, make, at_most=8)


def rounded_up(count: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: so many shapes are recorded and no more."""
    size = 1
    while size < count:
        size *= 2
    return size * 3 // 4 if size >= 4 and count <= size * 3 // 4 else size
