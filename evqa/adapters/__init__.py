"""Model adapters: one file each; see :mod:`evqa.adapters.base`."""

from evqa.adapters.base import Adapter, adapter_names, load_adapter

__all__ = ["Adapter", "adapter_names", "load_adapter"]
