"""A UniPixel with its processor on a device: what the runner's adapter and the segmenter share."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evqa._torch import pick_device, pick_dtype
from evqa.errors import AdapterError, EvqaError, MissingDependencyError, SetupError
from evqa.prompts import GROUNDED, load_prompts
from evqa.types import Rle

__all__ = ["UniPixelInference", "UniPixelSegmenter"]

#: Name of the small random model, instead of a folder or a Hub id.
TINY = "tiny"
# Enough of a file of weights to tell it from another: its header, and its end.
_SAMPLE = 1 << 16


class UniPixelInference:
    """Loads a checkpoint and generates.

    The processor is loaded at once, the model when it is first needed.

    Args:
        model: Folder or Hub id; or ``tiny``: :func:`evqa.models.unipixel.tiny`, random weights.
        revision: Of the Hub.
        base_model_path: For a checkpoint without all weights.
        device: ``cuda``, ``cpu``, ...; default: this rank's GPU if there is one. ``auto`` spreads the model over all
            GPUs.
        dtype: ``auto`` (bfloat16 on a GPU, else float32), ``bfloat16``, ``float16`` or ``float32``.
        attention: Attention implementation, such as ``sdpa``.
        clock: ``true`` or ``legacy`` times (:class:`.UniPixelConfig`); default: as the checkpoint says.
        min_pixels, max_pixels: Of a frame for the language model; default: as the checkpoint says.

    Raises:
        SetupError: It is not there, or is no UniPixel.
        AdapterError: An option that makes no sense.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        base_model_path: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        attention: str | None = None,
        clock: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
    ):
        if clock not in (None, "true", "legacy"):
            raise AdapterError(f"option clock: 'true' or 'legacy', not {clock!r}")
        self.name = model
        self.device = device if device == "auto" else pick_device(device)
        self.dtype = pick_dtype(dtype, "cuda" if device == "auto" else self.device)
        self._hub = {"revision": revision} if revision else {}
        self._base = {"base_model_path": base_model_path} if base_model_path else {}
        self._attention = {"attn_implementation": attention} if attention else {}
        self._tiny: Any = None
        self.processor = self._load_processor()
        if clock is not None:
            self.processor.legacy_clock = clock == "legacy"
        if min_pixels is not None:
            self.processor.min_pixels = min_pixels
        if max_pixels is not None:
            self.processor.max_pixels = max_pixels
        if not 0 < self.processor.min_pixels <= self.processor.max_pixels:
            raise AdapterError(
                f"pixels of a frame: 0 < min_pixels <= max_pixels, got {self.processor.min_pixels} and "
                f"{self.processor.max_pixels}"
            )

    def describe(self) -> dict[str, Any]:
        """What can change an answer, JSON-ready."""
        p = self.processor
        return {
            "model": self.name,
            **self._hub,
            **self._base,
            "weights": _weights_id(self.name),
            "dtype": str(self.dtype).removeprefix("torch."),
            **self._attention,
            "clock": "legacy" if p.legacy_clock else "true",
            "pixels": {"min": p.min_pixels, "max": p.max_pixels, "few_frames": p.few_frames},
            "sam_image_size": p.sam_image_size,
        }

    @functools.cached_property
    def model(self) -> Any:
        """The model, in evaluation mode on its device."""
        model = self._load_model() if self._tiny is None else self._tiny.to(self.device, self.dtype)
        model.config.legacy_clock = bool(self.processor.legacy_clock)
        return model.eval()

    def generate(
        self, samples: Sequence[Mapping[str, Any]], *, max_new_tokens: int, masks: bool, **options: Any
    ) -> list[Any]:
        """Replies to samples of :meth:`.UniPixelProcessor.encode`, in one batch.

        Args:
            samples: At least one.
            max_new_tokens: Limit of a reply.
            masks: Whether to track what its ``<|seg|>`` stand for.
            **options: For ``generate``.

        Returns:
            :class:`.Grounded` records, one per sample.
        """
        import torch

        inputs = self.processor.pad(samples, "left")
        # The clips for SAM 2 stay where they are: the model takes what it can hold, part by part.
        frames, sizes = inputs.data.pop("frames", None), inputs.data.pop("frame_size", None)
        inputs = inputs.to(self.model.device)
        if masks and frames is not None:
            options = {**options, "frames": frames, "frame_size": sizes, "mask_format": "rle"}
        with torch.inference_mode():
            output = self.model.generate(**inputs, max_new_tokens=max_new_tokens, **options)
        return self.processor.post_process(output, inputs)

    def close(self) -> None:
        """Let go of the model."""
        self._tiny = None
        self.__dict__.pop("model", None)

    def _load_processor(self) -> Any:
        try:
            from evqa.models.unipixel import UniPixelProcessor, tiny
        except ImportError as error:
            raise MissingDependencyError(f'UniPixel needs torch and transformers ({error}): "evqa[model]"') from None
        if self.name == TINY and not Path(TINY).exists():
            self._tiny, processor = tiny()
            return processor
        try:
            return UniPixelProcessor.from_pretrained(self.name, **self._hub)
        except (OSError, ValueError, EvqaError) as error:
            raise SetupError(f"the processor of {self.name!r} cannot be loaded ({_short(error)})") from None

    def _load_model(self) -> Any:
        from evqa.models.unipixel import UniPixelForConditionalGeneration

        placed = {"device_map": "auto"} if self.device == "auto" else {}
        try:
            model = UniPixelForConditionalGeneration.from_pretrained(
                self.name, dtype=self.dtype, **self._hub, **self._base, **self._attention, **placed
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, EvqaError) as error:
            raise SetupError(f"the model {self.name!r} cannot be loaded ({_short(error)})") from None
        return model if placed else model.to(self.device)


class UniPixelSegmenter:
    """Finds and tracks what referring expressions name, each expression asked for on its own.

    Args:
        model: As for :class:`UniPixelInference`.
        frames: Which of the given frames the language model sees; default: the processor's policy.
        prompts: A YAML file with another ``segment`` prompt (:func:`evqa.prompts.load_prompts`).
        max_tokens: Limit of a reply.
        max_side: Longer side of the frames it is best given.
        **options: For :class:`UniPixelInference`.
    """

    name = "unipixel"

    def __init__(
        self,
        model: str = "PolyU-ChenLab/UniPixel-3B",
        *,
        frames: str | None = None,
        prompts: str | None = None,
        max_tokens: int = 128,
        max_side: int | None = None,
        **options: Any,
    ):
        self._inference = UniPixelInference(model, **options)
        self._prompts = load_prompts(prompts, GROUNDED)
        self._frames = frames or self._inference.processor.frame_policy
        self._max_tokens = max_tokens
        self.max_side = max_side

    def settings(self) -> dict[str, Any]:
        """Everything about it that can change a mask, JSON-ready."""
        return {
            **self._inference.describe(),
            "prompts": self._prompts.describe(),
            "frames": self._frames,
            "max_tokens": self._max_tokens,
            "max_side": self.max_side,
        }

    def segment(self, frames: Any, times: Any, expressions: Sequence[str], size: tuple[int, int]) -> list[list[Rle]]:
        """Masks of what each expression names.

        Args:
            frames: uint8 ``[T, h, w, 3]``, in order of time, possibly smaller than the clip.
            times: Seconds ``[T]``.
            expressions: At least one; the mask of each is the union of all that the model segments for it.
            size: ``(height, width)`` of the clip, and of the masks.

        Returns:
            One list per expression of one RLE per frame; empty masks where the model segments nothing.
        """
        from evqa.masks import empty, union
        from evqa.models.unipixel.media_unipixel import FrameList

        processor = self._inference.processor
        clip = processor.read(FrameList(frames, times), frames=self._frames, sam_frames="every:1")
        out = []
        # One by one: in another batch bfloat16 rounds otherwise, and a mask may not depend on what else is asked for.
        for expression in expressions:
            text = self._prompts.render("segment", expression=expression)
            chat = [{"role": "user", "content": [{"type": "video", "video": clip}, {"type": "text", "text": text}]}]
            sample = processor.encode(chat, add_generation_prompt=True)
            sample["frame_size"] = tuple(size)
            said = self._inference.generate([sample], max_new_tokens=self._max_tokens, masks=True)[0]
            objects = [[mask["rle"] for mask in masks] for masks in said.objects]
            out.append([union(rles) for rles in zip(*objects, strict=True)] or [empty(*size)] * len(times))
        return out

    def close(self) -> None:
        """Let go of the model."""
        self._inference.close()


def _weights_id(name: str) -> str | None:
    """Tells two states of one folder apart, without reading gigabytes; ``None`` for what is not a folder."""
    if not os.path.isdir(name):
        return None
    digest = hashlib.sha256()
    for path in sorted(Path(name).glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}:".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE))
            file.seek(max(0, size - _SAMPLE))
            digest.update(file.read())
    return digest.hexdigest()[:16]


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
