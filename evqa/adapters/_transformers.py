"""Generation through transformers: encodings of single entries, padded on the left into one batch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from evqa._torch import load_pretrained, pick_device, pick_dtype
from evqa.adapters._chat import Reply
from evqa.adapters._local import Request
from evqa.errors import SetupError

__all__ = ["TransformersEngine"]

# Tensors with one value per token of the text; all others hold one row per image, frame, patch or video.
_PER_TOKEN = {"input_ids": None, "attention_mask": 0, "mm_token_type_ids": 0, "token_type_ids": 0}


class Encoder:
    """Puts conversations through a family's processor; knows no model, and can be sent to another process."""

    def __init__(self, processor: Any, dtype: Any):
        self.processor, self._dtype = processor, dtype
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Without the lock, which no other process could share."""
        return {"processor": self.processor, "_dtype": self._dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """With a lock of its own."""
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def encode(self, request: Request) -> dict[str, Any]:
        """Tensors of one conversation, on the CPU; kept in the request."""
        if request.encoded is None:
            videos = {**request.videos_kwargs, "do_sample_frames": False} if request.videos else {}
            if videos and hasattr(self.processor.video_processor, "cap_pixels_per_frame"):
                videos["cap_pixels_per_frame"] = False  # sizes are ours; unset, some releases warn
            if request.videos and request.metadata:
                videos["video_metadata"] = [dict(one) for one in request.metadata]
            # Tokenizers may not be entered by two threads at once.
            with self._lock:
                features = self._features(request, videos)
            request.encoded = {key: self._tensor(value) for key, value in features.items() if key != "video_metadata"}
        return request.encoded

    def _features(self, request: Request, videos: dict[str, Any]) -> Any:
        return self.processor(
            text=[request.text],
            images=[request.images] if request.images else None,
            videos=request.videos or None,
            return_tensors="pt",
            **({"images_kwargs": request.images_kwargs} if request.images and request.images_kwargs else {}),
            **({"videos_kwargs": videos} if videos else {}),
        )

    def _tensor(self, value: Any) -> Any:
        import torch

        value = torch.as_tensor(value)
        # Pixels in the model's own format are half the memory that waits for the model.
        return value.to(self._dtype) if value.is_floating_point() and value.ndim > 1 else value


class TransformersEngine:
    """Loads a model with its processor and generates.

    Args:
        model, model_class, revision, trust_remote_code: See :func:`evqa._torch.load_pretrained`.
        device, dtype, attention, temperature, top_p, seed: See :class:`evqa.adapters._local.LocalAdapter`.
        options: Further arguments of ``from_pretrained``.
    """

    def __init__(
        self,
        model: str,
        model_class: str,
        *,
        revision: str | None,
        device: str | None,
        dtype: str,
        attention: str | None,
        temperature: float,
        top_p: float | None,
        seed: int,
        trust_remote_code: bool,
        options: dict[str, Any],
    ):
        import torch

        self._torch = torch
        where = device if device == "auto" else pick_device(device)
        self._dtype = pick_dtype(dtype, "cuda" if where == "auto" else where)
        extra = {**options, **({} if attention is None else {"attn_implementation": attention})}
        self._model, self.processor = load_pretrained(
            model, model_class, device=where, dtype=self._dtype, revision=revision,
            trust_remote_code=trust_remote_code, **extra,
        )  # fmt: skip
        self.encoder = Encoder(self.processor, self._dtype)
        self.encode = self.encoder.encode
        self._temperature, self._top_p, self._seed = temperature, top_p, seed
        self._options = options
        generation = self._model.generation_config
        ends = generation.eos_token_id
        self._ends = set([ends] if isinstance(ends, int) else ends or [])
        tokenizer = self.processor.tokenizer
        self._pad = next(
            (i for i in (tokenizer.pad_token_id, generation.pad_token_id, *self._ends) if i is not None), None
        )
        if self._pad is None:
            raise SetupError(f"the model {model!r} has neither a padding nor an end token")
        self._repetition = generation.repetition_penalty

    def settings(self) -> dict[str, Any]:
        """What can change an answer."""
        config = self._model.config
        return {
            "name": "transformers",
            "architecture": type(self._model).__name__,
            "commit": getattr(config, "_commit_hash", None),
            "dtype": str(self._dtype).removeprefix("torch."),
            "attention": getattr(config, "_attn_implementation", None),
            "temperature": self._temperature,
            "top_p": self._top_p,
            "seed": self._seed if self._temperature else None,
            "repetition_penalty": self._repetition,
            "options": self._options,
        }

    def generate(
        self, requests: Sequence[Request], *, max_tokens: int, schema: dict[str, Any] | None = None
    ) -> list[Reply]:
        """The model's next message in each of some conversations; a schema is not enforced."""
        encoded = [self.encode(request) for request in requests]
        replies: list[Reply | None] = [None] * len(requests)
        for group in _groups(encoded):
            found = self._batch([encoded[i] for i in group], max_tokens)
            for i, reply in zip(group, found, strict=True):
                replies[i] = reply
        return [reply for reply in replies if reply is not None]

    def _batch(self, encoded: Sequence[dict[str, Any]], max_tokens: int) -> list[Reply]:
        torch = self._torch
        batch = self._collated(encoded)
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if self._temperature > 0:
            sampling = {"do_sample": True, "temperature": self._temperature, "top_p": self._top_p, "top_k": None}
            torch.manual_seed(self._seed)
        with torch.inference_mode():
            ids = self._model.generate(**batch, max_new_tokens=max_tokens, pad_token_id=self._pad, **sampling)
        new = ids[:, batch["input_ids"].shape[1] :].tolist()
        return [
            self._reply(row, int(one["attention_mask"].sum()), max_tokens)
            for row, one in zip(new, encoded, strict=True)
        ]

    def _reply(self, ids: list[int], prompt: int, max_tokens: int) -> Reply:
        """Text of new tokens up to the end token; without one the reply was cut."""
        end = next((i for i, token in enumerate(ids) if token in self._ends), None)
        said = ids if end is None else ids[:end]
        text = self.processor.tokenizer.decode(said, skip_special_tokens=True)
        usage = {"input_tokens": prompt, "output_tokens": len(said) + (end is not None)}
        return Reply(text, "stop" if end is not None or len(ids) < max_tokens else "length", usage)

    def _collated(self, encoded: Sequence[dict[str, Any]]) -> dict[str, Any]:
        torch = self._torch
        longest = max(one["input_ids"].shape[1] for one in encoded)
        batch = {}
        for key in encoded[0]:
            parts = [one[key] for one in encoded]
            if key in _PER_TOKEN:
                fill = self._pad if key == "input_ids" else _PER_TOKEN[key]
                parts = [torch.nn.functional.pad(p, (longest - p.shape[1], 0), value=fill) for p in parts]
            batch[key] = torch.cat(parts).to(self._model.device)
        return batch

    def close(self) -> None:
        """Let go of the model."""
        self._model = None


def _groups(encoded: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Which encodings can share a batch: those whose tensors differ in length only (of text, or in rows)."""
    groups: dict[Any, list[int]] = {}
    for i, one in enumerate(encoded):
        key = tuple(sorted((name, tuple(value.shape[1:])) for name, value in one.items() if name not in _PER_TOKEN))
        groups.setdefault(key, []).append(i)
    return list(groups.values())
