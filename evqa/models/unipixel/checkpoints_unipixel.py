"""Checkpoints that do not hold all weights: an adapter (LoRA), trained modules, or both, and a base below them.

A folder as the original writes it: ``adapter_config.json`` and ``adapter_model.safetensors`` (PEFT), and
``pytorch_model.safetensors`` with every other trained parameter; the base is named by ``base_model_path`` in
``config.json``. The original's files lack the random Fourier matrices (they are no parameters), so they mean something
only on the very base that they were trained on; :func:`save_adapter` writes those matrices too.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from evqa.errors import DataError, MissingDataError, MissingDependencyError
from evqa.models.unipixel.conversion_unipixel import _sam2_on_disk, load_sam2, read_sam2, to_module_name

__all__ = ["TRAINED_FILE", "is_partial", "load_checkpoint", "raise_missing", "save_adapter"]

#: Trained parameters that are no part of the adapter.
TRAINED_FILE = "pytorch_model.safetensors"
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_FULL_FILES = ("model.safetensors", "model.safetensors.index.json")
_HUB_OPTIONS = ("cache_dir", "force_download", "proxies", "token", "revision", "local_files_only", "subfolder")
_FOURIER = "positional_encoding_gaussian_matrix"


def raise_missing(names: Iterable[str], source: Any) -> None:
    """Raise :class:`DataError` for weights that a checkpoint lacks."""
    names = sorted(names)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    raise DataError(
        f"the checkpoint lacks {len(names)} weights: {', '.join(names[:5])}{more}; "
        "with allow_missing=True they would be drawn anew",
        file=source,
    )


def _find(source: Any, name: str, options: dict[str, Any]) -> str | None:
    """A file of a folder or a Hub repository, ``None`` if it is not there."""
    if os.path.isdir(source):
        path = os.path.join(source, options.get("subfolder") or "", name)
        return path if os.path.isfile(path) else None
    from transformers.utils import cached_file

    hub = {key: options[key] for key in _HUB_OPTIONS if options.get(key) is not None}
    return cached_file(
        str(source), name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_connection_errors=False, **hub,
    )  # fmt: skip


def is_partial(source: Any, options: dict[str, Any]) -> bool:
    """Whether this folder or repository holds an adapter or trained modules instead of all weights."""
    if any(_find(source, name, options) for name in _FULL_FILES):
        return False
    return any(_find(source, name, options) is not None for name in (_ADAPTER_FILES[0], TRAINED_FILE))


def load_checkpoint(
    source: str | os.PathLike[str],
    *,
    base_model_path: str | os.PathLike[str] | None = None,
    merge: bool = True,
    trainable: bool = False,
    config: Any = None,
    **options: Any,
) -> Any:
    """Load a folder with an adapter, trained modules, or both, onto its base.

    Args:
        source: Folder or Hub id.
        base_model_path: The base: a full UniPixel checkpoint, or Qwen2.5-VL (SAM 2 then comes from the config's
            ``sam2_checkpoint``). By default the ``base_model_path`` of the folder's config.
        merge: Merge the adapter into the weights and return the plain model. Not with ``trainable``.
        trainable: Return a PEFT model whose adapter and trained modules can be trained on.
        config: A configuration to use instead of the folder's.
        **options: For ``from_pretrained`` of the base (``dtype``, ``device_map``, ``attn_implementation``, ...).

    Returns:
        The model, or the PEFT model around it.

    Raises:
        MissingDataError: There is no base, or a file is not there.
        DataError: Weights that belong nowhere, or do not fit.
    """
    from safetensors.torch import load_file

    from evqa.models.unipixel.configuration_unipixel import UniPixelConfig

    hub = {key: options[key] for key in _HUB_OPTIONS if key in options}
    for unused in ("adapter_kwargs", "trust_remote_code", "_from_auto"):
        options.pop(unused, None)
    if config is None:
        config = UniPixelConfig.from_pretrained(source, **hub)
    base = base_model_path or config.base_model_path
    if base is None:
        raise MissingDataError(
            "this checkpoint holds an adapter or trained modules only, and names no base (base_model_path in "
            "config.json); pass base_model_path=",
            file=source,
        )
    wants_info = options.pop("output_loading_info", False)
    options.pop("allow_missing", None)
    model, fresh = _load_base(base, config, source, {k: v for k, v in options.items() if k not in _HUB_OPTIONS})

    trained = _find(source, TRAINED_FILE, hub)
    if trained is not None:
        weights = load_file(trained)
        if fresh and not any(name.endswith(_FOURIER) for name in weights):
            warnings.warn(
                f"{source}: the original leaves the random Fourier matrices out of such files, and the base is not the "
                "checkpoint that this was trained on; referring prompts (points, boxes) will not be understood",
                stacklevel=2,
            )
        put_trained(model, weights, trained)
    adapter = _find(source, _ADAPTER_FILES[0], hub)
    if adapter is not None:
        try:
            from peft import PeftModel
        except ImportError as error:
            raise MissingDependencyError(f'adapters need PEFT ({error}); pip install "evqa[model]"') from None
        if _find(source, _ADAPTER_FILES[1], hub) is None:
            raise MissingDataError(f"adapter_config.json has no {_ADAPTER_FILES[1]} beside it", file=source)
        peft = PeftModel.from_pretrained(model, os.path.dirname(adapter), is_trainable=trainable)
        model = peft.merge_and_unload() if merge and not trainable else peft
    info = {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set(), "error_msgs": []}
    return (model, info) if wants_info else model


def _load_base(base: Any, config: Any, source: Any, options: dict[str, Any]) -> tuple[Any, bool]:
    """The base model, and whether part of it was drawn anew (a plain Qwen2.5-VL)."""
    from transformers import PreTrainedConfig

    from evqa.models.unipixel.modeling_unipixel import UniPixelForConditionalGeneration

    if os.path.abspath(os.fspath(base)) == os.path.abspath(os.fspath(source)):
        raise DataError("base_model_path names the checkpoint itself, which does not hold all weights", file=source)
    try:
        kind = PreTrainedConfig.get_config_dict(base)[0].get("model_type")
    except OSError as error:
        raise MissingDataError(
            f"the base {os.fspath(base)!r} of this checkpoint cannot be read ({error}); pass base_model_path=",
            file=source,
        ) from None
    fresh = kind != config.model_type
    model = UniPixelForConditionalGeneration.from_pretrained(base, config=config, allow_missing=fresh, **options)
    if fresh and model.sam2 is not None:
        if config.sam2_checkpoint is None:
            raise MissingDataError(
                "the base is Qwen2.5-VL, and the config does not say where SAM 2's weights are (sam2_checkpoint)",
                file=source,
            )
        load_sam2(model, read_sam2(config.sam2_checkpoint), config.sam2_checkpoint)
    return model, fresh


def plain_name(name: str) -> str:
    """The name in the model of a weight in a file of trained modules, whatever PEFT or DDP put around it."""
    name = name.removeprefix("module.").removeprefix("base_model.model.")
    name = re.sub(r"\.(?:base_layer|original_module|modules_to_save\.\w+)(?=\.)", "", name)
    return to_module_name(name)


@torch.no_grad()
def put_trained(
    model: Any, weights: dict[str, torch.Tensor], source: Any, *, put: Callable[[Any, Any], Any] = torch.Tensor.copy_
) -> None:
    """Put trained modules into a model.

    Args:
        model: UniPixel.
        weights: By name.
        source: For messages.
        put: Fills the first tensor, which is the model's, from the second.

    Raises:
        DataError: A weight that the model does not have, or of another shape; names them.
    """
    own = model.state_dict()
    given = {plain_name(name): tensor for name, tensor in weights.items()}
    unknown = sorted(set(given) - set(own))
    shapes = sorted(name for name, tensor in given.items() if name in own and own[name].shape != tensor.shape)
    if unknown or shapes:
        raise DataError(
            f"{len(unknown)} weights belong nowhere in this model {unknown[:3]}, {len(shapes)} have another shape "
            f"{shapes[:3]}",
            file=source,
        )
    for name, tensor in given.items():
        put(own[name], tensor)


def save_adapter(
    model: Any,
    folder: str | os.PathLike[str],
    *,
    base_model_path: str | None = None,
    processor: Any = None,
    state_dict: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Save what was trained: the adapter, every other trainable parameter, and the Fourier matrices.

    The files are named and laid out as the original's, so that :func:`load_checkpoint` and the original read them.

    Args:
        model: A PEFT model around UniPixel, or UniPixel itself with some parameters trainable.
        folder: Made if need be.
        base_model_path: The base, for the config; by default where the model was loaded from.
        processor: Saved along.
        state_dict: The weights, where the model itself holds only parts of them (FSDP, ZeRO-3).
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    peft = hasattr(model, "peft_config")
    inner = model.get_base_model() if peft else model
    prefix = "base_model.model." if peft else ""
    wanted = {plain_name(n) for n, p in model.named_parameters() if p.requires_grad and ".lora_" not in n}
    wanted |= {name for name, _ in inner.named_buffers() if name.endswith(_FOURIER)}
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in (model.state_dict() if state_dict is None else state_dict).items():
        if ".original_module." not in name and ".lora_" not in name and plain_name(name) in wanted:
            tensors[prefix + _sam2_on_disk(plain_name(name))] = tensor.detach().cpu().contiguous().clone()
    tied = getattr(inner.config, "tie_word_embeddings", False)
    if tied:
        tensors.pop(prefix + "lm_head.weight", None)
    save_file(tensors, folder / TRAINED_FILE, metadata={"format": "pt"})
    if peft:
        model.save_pretrained(folder, save_embedding_layers=False, state_dict=state_dict)
    base = base_model_path or inner.config.base_model_path or inner.config._name_or_path or None
    config = json.loads(inner.config.to_json_string())
    config["base_model_path"] = base
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    if processor is not None:
        processor.save_pretrained(folder)
