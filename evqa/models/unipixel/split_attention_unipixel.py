"""Attention of few queries to many keys, in parts that run beside each other.

Memory attention has one head and 2,304 queries (at 768 pixels) for 16,192 keys: FlashAttention gives each group of 64
queries to one multiprocessor, which leaves most of a large GPU idle. Here the keys are cut into parts, attended to at
once, and the parts' results weighed by their share of the softmax (Dao et al., "Flash-Decoding", 2023).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

try:  # torch 2.10 and newer
    from torch.nn.attention.varlen import AuxRequest, varlen_attn
except ImportError:
    varlen_attn = None

__all__ = ["has_varlen", "parts_for", "split_attention"]

_QUERIES = 64  # that one block of the kernel handles
_BLOCKS = 2  # that a multiprocessor runs at a time, with heads as wide as 256
_FEWEST_KEYS = 2048  # in a part: fewer are not worth the joining
_FEWEST_PARTS = 3  # fewer are no faster than what they replace


@functools.cache
def has_varlen(device: torch.device) -> bool:
    """Whether torch has attention over sequences of different lengths here: on NVIDIA GPUs from Ampere on."""
    if varlen_attn is None or device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def parts_for(query: Tensor, keys: int) -> int:
    """How many parts to cut the keys into; 1: use ordinary attention.

    Args:
        query: ``[n, heads, queries, head]``.
        keys: How many.
    """
    half = query.dtype in (torch.float16, torch.bfloat16)
    if not half or torch.is_grad_enabled() or not has_varlen(query.device):
        return 1
    n, heads, queries, _ = query.shape
    slots = _BLOCKS * torch.cuda.get_device_properties(query.device).multi_processor_count
    parts = min(slots // (n * heads * -(-queries // _QUERIES)), keys // _FEWEST_KEYS)
    return parts if parts >= _FEWEST_PARTS else 1


def split_attention(query: Tensor, key: Tensor, value: Tensor, parts: int) -> Tensor:
    """Attention, scores divided by the root of the head's width.

    Args:
        query: ``[n, heads, queries, head]``.
        key, value: ``[n, heads, keys, head]``.
        parts: Of :func:`parts_for`.

    Returns:
        ``[n, queries, heads, head]``.
    """
    n, heads, queries, head = query.shape
    keys = key.shape[2]
    query_bounds, key_bounds, longest = _bounds(n, queries, keys, parts, query.device)
    repeated = query.transpose(1, 2)[:, None].expand(n, parts, queries, heads, head).reshape(-1, heads, head)
    out, weights = varlen_attn(
        repeated, key.transpose(1, 2).reshape(-1, heads, head), value.transpose(1, 2).reshape(-1, heads, head),
        query_bounds, key_bounds, queries, longest, return_aux=AuxRequest(lse=True),
    )  # fmt: skip
    out = out.view(n, parts, queries, heads, head)
    share = weights.view(heads, n, parts, queries).softmax(2).permute(1, 2, 3, 0)  # [n, parts, queries, heads]
    return (out * share[..., None]).sum(1).to(query.dtype)


@functools.cache  # for good: graphs know where these tensors are
def _bounds(n: int, queries: int, keys: int, parts: int, device: torch.device) -> tuple[Tensor, Tensor, int]:
    """Where the parts of all objects begin, among queries and keys, and the length of the longest part."""
    cuts = [keys * part // parts for part in range(parts)]
    ends = [*cuts[1:], keys]
    with torch.inference_mode(False):
        query_bounds = torch.arange(n * parts + 1, dtype=torch.int32) * queries
        key_bounds = torch.tensor([o * keys + cut for o in range(n) for cut in cuts] + [n * keys], dtype=torch.int32)
        return query_bounds.to(device), key_bounds.to(device), max(e - c for c, e in zip(cuts, ends, strict=True))
