"""The model at the start of a training run, and what is left of it at the end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from evqa.errors import DataError
from evqa.training.arguments import ModelArguments
from evqa.training.tuning import prepare_for_training
from evqa.video import parse_policy

__all__ = ["TINY", "load_model", "push_folder", "save_final"]

#: A small model of random weights, made on the spot.
TINY = "evqa/unipixel-tiny"


def load_model(arguments: ModelArguments, *, seed: int = 0) -> tuple[Any, Any]:
    """Load the model that is to be trained, frozen but for what is trained, and its processor.

    Args:
        arguments: Which, and what of it is trained.
        seed: Of new adapters.

    Returns:
        The model or a PEFT model around it, and its processor.

    Raises:
        DataError: A checkpoint that lacks weights, or settings that do not fit it.
    """
    dtype = getattr(torch, arguments.dtype, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise DataError(f"dtype is bfloat16, float32 or float16, not {arguments.dtype!r}")
    with _whole_on_every_rank():
        model, processor = _read(arguments, seed, dtype)
    if arguments.frame_policy is not None:
        try:
            parse_policy(arguments.frame_policy)
        except ValueError as error:
            raise DataError(f"frame_policy: {error}") from None
        processor.frame_policy = arguments.frame_policy
    tuning = arguments.tuning()
    torch.manual_seed(seed)  # new adapters, the same on every rank
    model = prepare_for_training(model, tuning)
    return model, processor


@contextlib.contextmanager
def _whole_on_every_rank() -> Iterator[None]:
    """Under ZeRO-3 transformers makes models in parts, whose values cannot be read while they are made; ours are read.

    DeepSpeed spreads the model later.
    """
    from transformers.integrations import deepspeed

    config = deepspeed._hf_deepspeed_config_weak_ref and deepspeed._hf_deepspeed_config_weak_ref()
    if config is None:
        yield
        return
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed.set_hf_deepspeed_config(config)


def _read(arguments: ModelArguments, seed: int, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model as it is, and its processor."""
    if arguments.model_name_or_path == TINY:
        from evqa.models.unipixel import tiny

        model, processor = tiny(seed)
        model = model.to(dtype)
        for name, value in arguments.config_overrides.items():
            if not hasattr(model.config, name) or name.startswith("sam2_video"):
                raise DataError(f"config_overrides: {TINY} is what it is but for simple switches, got {name!r}")
            setattr(model.config, name, value)
    else:
        from evqa.models.unipixel import UniPixelForConditionalGeneration, UniPixelProcessor

        options: dict[str, Any] = {"dtype": dtype, **arguments.config_overrides}
        if arguments.attn_implementation is not None:
            options["attn_implementation"] = arguments.attn_implementation
        if arguments.base_model_path is not None:
            options["base_model_path"] = arguments.base_model_path
        model = UniPixelForConditionalGeneration.from_pretrained(arguments.model_name_or_path, **options)
        processor = UniPixelProcessor.from_pretrained(arguments.model_name_or_path)
        processor.sam_image_size = model.config.sam2_image_size
    return model, processor


def save_final(
    model: Any,
    folder: str | os.PathLike[str],
    processor: Any,
    *,
    merge: bool,
    base: str | None,
    dtype: torch.dtype = torch.bfloat16,
    state_dict: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Save the trained model: whole, or what was trained and the name of its base.

    Args:
        model: UniPixel or a PEFT model around it. Where it is saved whole, it is merged and cast in memory too.
        folder: Where.
        processor: Saved along.
        merge: Save it whole, adapters merged into it.
        base: What a folder with the trained part alone is to be loaded onto.
        dtype: Of the weights of a whole model in its files; the trained part keeps its own.
        state_dict: The weights, where the model itself holds only parts of them (FSDP, ZeRO-3).

    Raises:
        DataError: The trained part alone, of a model that was made on the spot and cannot be loaded again; or merging
            an adapter whose base is spread over ranks.
    """
    if not merge:
        if base == TINY:
            raise DataError(f"{TINY} is made on the spot: a part of it could not be loaded again; set merge_adapter")
        from evqa.models.unipixel import save_adapter

        save_adapter(model, folder, base_model_path=base, processor=processor, state_dict=state_dict)
        return
    if hasattr(model, "peft_config"):
        if state_dict is not None:
            raise DataError("an adapter cannot be merged while FSDP or ZeRO-3 spreads its base: merge it afterwards")
        model = model.merge_and_unload()
    model.config.base_model_path = None
    Path(folder).mkdir(parents=True, exist_ok=True)
    if state_dict is None:
        model.to(dtype).save_pretrained(folder)
    else:
        # Fourier matrices stay float32, as in a model that is cast.
        kept = {name for name, _ in model.named_buffers()}
        model.save_pretrained(
            folder,
            state_dict={
                name: w if name in kept or not w.is_floating_point() else w.to(dtype) for name, w in state_dict.items()
            },
        )
    processor.save_pretrained(folder)


def push_folder(args: Any, folder: str | os.PathLike[str], message: str) -> None:
    """Upload a model's files; what belongs to the run (optimiser, checkpoints, pictures) stays here.

    Args:
        args: Training arguments: ``hub_model_id``, ``hub_token``, ``hub_private_repo``, ``hub_revision``.
        folder: A final model or a checkpoint.
        message: Of the commit.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=args.hub_token)
    name = args.hub_model_id or Path(args.output_dir).resolve().name
    repo = api.create_repo(name, private=args.hub_private_repo, exist_ok=True)
    api.upload_folder(
        repo_id=repo.repo_id, folder_path=folder, commit_message=message, revision=args.hub_revision,
        allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.txt", "README.md", "predictions.jsonl"],
        ignore_patterns=["checkpoint-*", ".checkpoint-*", "masks/*", "trainer_state.json", "evqa_checkpoint.json"],
        # Weights of an earlier commit in another form (a checkpoint's parts, where the final model is whole).
        delete_patterns=["*.safetensors", "*.safetensors.index.json", "adapter_config.json"],
    )  # fmt: skip
