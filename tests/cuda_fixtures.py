"""For tests on a GPU."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def exact():
    """For a module that imports it: products in float32 are in float32."""
    import torch

    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
