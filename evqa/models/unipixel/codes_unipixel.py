"""Codes of positions: random Fourier for prompts and images, sine for memories; all in float32."""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor, nn

__all__ = ["FourierCode", "sine_code_1d", "sine_code_2d", "without_autocast"]


class FourierCode(nn.Module):
    """Random Fourier code of positions (Tancik et al., 2020): ``[sin, cos](2 pi (2 x - 1) G)``.

    ``G`` is drawn once and never trained, but it is part of the model: it is in every kind of checkpoint. It stays
    float32 when the model is cast, and so do the codes: in bfloat16 they would be off by up to 0.22.

    Args:
        dims: Coordinates per position.
        features: Half the size of a code.
    """

    def __init__(self, dims: int, features: int):
        super().__init__()
        matrix = torch.randn(dims, features, dtype=torch.float32)
        self.register_buffer("positional_encoding_gaussian_matrix", matrix)

    def _apply(self, fn, recurse=True):
        before = self.positional_encoding_gaussian_matrix
        super()._apply(fn, recurse)
        after = self.positional_encoding_gaussian_matrix
        if after.dtype != torch.float32:  # a cast: follow it to its device only
            self.positional_encoding_gaussian_matrix = before.to(after.device)
        return self

    def forward(self, positions: Tensor) -> Tensor:
        """Float32 code ``[..., 2 features]`` of positions ``[..., dims]`` in 0 ... 1."""
        with without_autocast(positions.device):
            angles = 2 * math.pi * ((2 * positions.float() - 1) @ self.positional_encoding_gaussian_matrix.float())
            return torch.cat([angles.sin(), angles.cos()], dim=-1)


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """No autocast on this device; without data (``meta``) there is none to switch off."""
    return contextlib.nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def sine_code_2d(size: int, channels: int, device: torch.device) -> Tensor:
    """Sine code of a square grid, float32 ``[size * size, channels]``: first half y, second half x."""
    # The small number is in the original: the last cell is not quite 2 pi.
    place = torch.arange(1, size + 1, dtype=torch.float32, device=device) / (size + 1e-6) * (2 * math.pi)
    half = channels // 2
    index = torch.arange(half, dtype=torch.float32, device=device)
    angles = place[:, None] / 10000.0 ** (2 * (index // 2) / half)  # [size, half]
    code = torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2).flatten(1)
    y, x = code[:, None].expand(size, size, half), code[None].expand(size, size, half)
    return torch.cat([y, x], dim=-1).flatten(0, 1)


def sine_code_1d(positions: Tensor, channels: int) -> Tensor:
    """Sine code of numbers ``[n]``, float32 ``[n, channels]``: first half sines, second half cosines."""
    half = channels // 2
    index = torch.arange(half, dtype=torch.float32, device=positions.device)
    angles = positions.float()[:, None] / 10000.0 ** (2 * (index // 2) / half)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
