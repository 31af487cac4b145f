"""What everything that runs a local model shares: device, number format, and loading from the Hub or a folder."""

from __future__ import annotations

from typing import Any

from evqa.errors import AdapterError, MissingDependencyError, SetupError

__all__ = ["load_pretrained", "pick_device", "pick_dtype"]


def _torch() -> Any:
    try:
        import torch
        import transformers  # noqa: F401 - both or neither
    except ImportError:
        raise MissingDependencyError('local models need torch and transformers: pip install "evqa[model]"') from None
    return torch


def pick_device(device: str | None) -> str:
    """The device asked for; else this rank's GPU, Apple's, or the CPU.

    Under ``torchrun`` a rank takes the GPU that ``LOCAL_RANK`` names.
    """
    import os

    torch = _torch()
    if device is None:
        if torch.cuda.is_available():
            return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return str(torch.device(device))
    except RuntimeError as error:
        raise AdapterError(f"option device: {str(error).splitlines()[0]}") from None


def pick_dtype(dtype: str, device: str) -> Any:
    """A ``torch.dtype`` by name; ``auto``: bfloat16 on a GPU, else float32."""
    torch = _torch()
    if dtype == "auto":
        return torch.bfloat16 if device.startswith("cuda") else torch.float32
    value = getattr(torch, dtype, None)
    if not isinstance(value, torch.dtype) or not value.is_floating_point:
        raise AdapterError(f"option dtype: 'auto', 'float32', 'bfloat16' or 'float16', not {dtype!r}")
    return value


def load_pretrained(
    model: str,
    model_class: str,
    *,
    device: str,
    dtype: Any,
    processor: str = "AutoProcessor",
    revision: str | None = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> tuple[Any, Any]:
    """A model in evaluation mode on its device, and its processor.

    Args:
        model: Model id or folder.
        model_class, processor: Names in ``transformers``.
        device: As :func:`pick_device` gives it; ``auto`` spreads the model over all GPUs (needs accelerate).
        dtype: ``torch.dtype`` of the weights.
        revision: Of the model on the Hub.
        trust_remote_code: Run code that comes with the model.
        options: Further arguments of the model's ``from_pretrained``.

    Raises:
        SetupError: It cannot be loaded, or some of its weights are not in the checkpoint: they would be random.
    """
    import transformers

    classes = []
    for name in (model_class, processor):
        if not hasattr(transformers, name):
            raise SetupError(f"transformers {transformers.__version__} has no {name}; a newer version may")
        classes.append(getattr(transformers, name))
    common = {"revision": revision, "trust_remote_code": trust_remote_code}
    placed = {"device_map": "auto"} if device == "auto" else {}
    try:
        found, info = classes[0].from_pretrained(
            model, dtype=dtype, output_loading_info=True, **common, **placed, **options
        )
        made = classes[1].from_pretrained(model, **common)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        raise SetupError(f"the model {model!r} cannot be loaded ({' '.join(str(error).split())[:400]})") from None
    if info["missing_keys"]:
        names = ", ".join(sorted(info["missing_keys"])[:3])
        raise SetupError(
            f"the model {model!r} lacks {len(info['missing_keys'])} weights of {type(found).__name__} ({names}, ...): "
            "they would be random"
        )
    if not placed:
        found = found.to(device)
    return found.eval(), made
