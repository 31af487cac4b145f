"""What all models on this machine share: conversations through the family's own processor and chat template, real
batches, and the choice of the engine that generates.

An entry is preprocessed alone, ahead of the model, and batches are put together from finished tensors. So what a model
is shown never depends on which entries happen to share its batch.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from evqa.adapters._chat import ChatAdapter, Frames, Prepared, Reply
from evqa.errors import AdapterError
from evqa.prompts import Picture, Text, Turn, VideoPart
from evqa.types import Prediction

__all__ = ["LocalAdapter", "Request", "check_remote_code", "fit_size", "video_metadata"]

# Video metadata hold times as whole frame numbers of a clip; of one with this rate, frame numbers are milliseconds.
_CLOCK = 1000


@dataclasses.dataclass
class Request:
    """A conversation as a family's processor takes it.

    Attributes:
        text: The rendered chat template, with one placeholder per image or video.
        images: PIL images or uint8 ``[h, w, 3]``, in order of their placeholders.
        videos: uint8 ``[T, h, w, 3]``, likewise.
        metadata: One per video; see :func:`video_metadata`.
        images_kwargs, videos_kwargs: For the processor.
        encoded: Its tensors, if it has been through the processor.
    """

    text: str
    images: list[Any]
    videos: list[np.ndarray]
    metadata: list[dict[str, Any]]
    images_kwargs: dict[str, Any]
    videos_kwargs: dict[str, Any]
    encoded: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class _Ready(Prepared):
    """An entry whose first messages have been through the processor."""

    requests: dict[str, Request] = dataclasses.field(default_factory=dict)


class LocalAdapter(ChatAdapter):
    """Asks a model on this machine.

    Args:
        model: Model id or folder.
        revision: Of the model on the Hub.
        frames: Sampling policy of the frames (:func:`evqa.video.parse_policy`).
        max_side: Longer side of a frame as it is decoded, before the processor resizes it.
        min_pixels, max_pixels: Least and most pixels of a frame as the model sees it, for families that take any size;
            default: the processor's. Frames are brought to their final size, in their own shape, as they are decoded.
        total_pixels: Most pixels of all frames of a clip together, likewise; ``min_pixels`` wins over it.
        mode, prompts, max_tokens: See :class:`ChatAdapter`.
        batch_size: Entries generated at once.
        workers: Processes that decode and preprocess ahead of the model; 0: threads of this process.
        engine: ``transformers`` or ``vllm``.
        device: ``cuda``, ``cpu``, ...; default: this rank's GPU if there is one. ``auto`` spreads a large model over
            all GPUs (one process only).
        dtype: ``auto``, ``bfloat16``, ``float16`` or ``float32``; ``auto`` is bfloat16 on a GPU, else float32.
        attention: Attention implementation, such as ``sdpa`` or ``flash_attention_2``.
        temperature: 0: greedy, and a batch gives the same answers as its entries one by one. Above 0 answers depend on
            the batch, because one stream of random numbers serves all of it.
        top_p: Nucleus, with a temperature.
        seed: Of sampling.
        trust_remote_code: Run code that comes with the model; a model of the Hub then needs a ``revision``.
        engine_options: Further arguments of the engine, such as ``{"tensor_parallel_size": 8}`` for vLLM.
    """

    #: Class in ``transformers`` that loads the model.
    model_class: ClassVar[str] = "AutoModelForImageTextToText"
    #: Whether the family takes frames of any size; else its processor brings them to the one it knows.
    any_size: ClassVar[bool] = False

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        frames: str = "fps:1,max=128",
        max_side: int | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        total_pixels: int | None = None,
        mode: str = "single",
        prompts: str | None = None,
        max_tokens: int = 1024,
        batch_size: int = 1,
        workers: int = 2,
        engine: str = "transformers",
        device: str | None = None,
        dtype: str = "auto",
        attention: str | None = None,
        temperature: float = 0.0,
        top_p: float | None = None,
        seed: int = 0,
        trust_remote_code: bool = False,
        engine_options: Mapping[str, Any] | None = None,
    ):
        super().__init__(model, frames=frames, max_side=max_side, mode=mode, prompts=prompts, max_tokens=max_tokens)
        check_remote_code(model, revision, trust_remote_code)
        if temperature < 0:
            raise AdapterError(f"option temperature: 0 or more, not {temperature}")
        self._pixels = {"min": min_pixels, "max": max_pixels, "total": total_pixels}
        self.batch_size = batch_size
        self.workers = workers
        self._revision = revision
        common = {
            "revision": revision, "dtype": dtype, "temperature": temperature, "top_p": top_p, "seed": seed,
            "trust_remote_code": trust_remote_code, "options": dict(engine_options or {}),
        }  # fmt: skip
        if engine == "transformers":
            from evqa.adapters._transformers import TransformersEngine

            self._engine: Any = TransformersEngine(
                model, self.model_class, device=device, attention=attention, **common
            )
        elif engine == "vllm":
            from evqa.adapters._vllm import VllmEngine

            self._engine = VllmEngine(model, images=self.images_per_entry(), **common)
        else:
            raise AdapterError(f"option engine: 'transformers' or 'vllm', not {engine!r}")
        self._processor = self._engine.processor

    def __getstate__(self) -> dict[str, Any]:
        """All but the model: what a worker needs to prepare entries."""
        return {**self.__dict__, "_engine": self._engine.encoder}

    def settings(self) -> dict[str, Any]:
        """See :meth:`Adapter.settings`."""
        return {
            **super().settings(),
            "revision": self._revision,
            "pixels": self._pixels,
            "engine": self._engine.settings(),
        }

    # ----------------------------------------------------------------------- what families differ in
    def video_content(self, entry: Prepared, request: Request) -> list[dict[str, Any]]:
        """The clip as items of a chat template's content; its pixels go into ``request``.

        Here: one video whose metadata tell the times of its frames. Families that take no metadata say the times in
        text beside the frames.
        """
        clip: Frames = entry.clip
        request.videos.append(clip.pixels)
        request.metadata.append(video_metadata(clip))
        if self.any_size:
            request.videos_kwargs["do_resize"] = False
        return [{"type": "video"}]

    def images_per_entry(self) -> int:
        """How many images a request can hold; engines reserve room for them."""
        return 4

    # ------------------------------------------------------------------------------- preprocessing
    def read_clip(self, row: Mapping[str, Any]) -> Frames:
        """Sampled frames, in the size in which the model will see them if it takes any."""
        if not self.any_size:
            return super().read_clip(row)
        from evqa.video import Clip

        clip = Clip(row["video"])
        times = self._policy.times(clip.info)
        processor = self._processor.video_processor
        bounds = self._pixels
        size = fit_size(
            clip.info.height,
            clip.info.width,
            factor=processor.patch_size * processor.merge_size,
            least=processor.size["shortest_edge"] if bounds["min"] is None else bounds["min"],
            most=min(
                processor.size["longest_edge"] if bounds["max"] is None else bounds["max"],
                sys.maxsize if bounds["total"] is None else bounds["total"] // len(times),
            ),
            max_side=self._max_side,
        )
        return Frames(clip.frames(times, size=size), times, clip.info.duration)

    def prepare(self, row: Mapping[str, Any], task: str) -> _Ready:
        """Read the clip and put the entry's first messages through the processor; see :meth:`Adapter.prepare`."""
        entry = super().prepare(row, task)
        requests: dict[str, Request] = {}
        for step in self.steps(task) if task == "mcq" else self.steps(task)[:1]:
            request = self.request(entry, [self.first_turn(entry, step)])
            self._engine.encode(request)
            for other in requests.values():
                _share(other.encoded, request.encoded)
            requests[request.text] = request
        return _Ready(entry.row, entry.clip, entry.duration, requests=requests)

    def request(self, entry: Prepared, turns: Sequence[Turn]) -> Request:
        """A conversation as the processor takes it."""
        request = Request("", [], [], [], {}, {})
        messages = []
        for turn in turns:
            content: list[dict[str, Any]] = []
            for part in turn.parts:
                if isinstance(part, Text):
                    content.append({"type": "text", "text": part.text})
                elif isinstance(part, Picture):
                    content += [{"type": "text", "text": f"\nImage {part.label}: "}, {"type": "image"}]
                    request.images.append(part.image)
                elif isinstance(part, VideoPart):
                    content += self.video_content(entry, request)
            messages.append({"role": turn.role, "content": content})
        request.text = self._processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return request

    def replies(
        self, requests: Sequence[tuple[Prepared, Sequence[Turn]]], *, max_tokens: int, schema: dict[str, Any] | None
    ) -> list[Reply]:
        """See :meth:`ChatAdapter.replies`."""
        ready = []
        for entry, turns in requests:
            request = self.request(entry, turns)
            ready.append(getattr(entry, "requests", {}).get(request.text) or request)
        return self._engine.generate(ready, max_tokens=max_tokens, schema=schema)

    def predict(self, rows: Sequence[Prepared], task: str) -> list[Prediction]:
        """See :meth:`Adapter.predict`; ``usage`` also tells how many frames were shown."""
        predictions = super().predict(rows, task)
        for entry, prediction in zip(rows, predictions, strict=True):
            prediction.usage["frames"] = len(entry.clip.times)
        return predictions

    def show_request(self, entry: Prepared, task: str) -> Any:
        """See :meth:`Adapter.show_request`: the text as the model gets it, and the shapes of what goes with it."""
        request = next(iter(entry.requests.values()))
        return {
            "text": request.text,
            "images": [list(np.shape(image)) for image in request.images],
            "videos": [list(video.shape) for video in request.videos],
            "metadata": request.metadata,
            "tensors": {key: list(getattr(value, "shape", ())) for key, value in (request.encoded or {}).items()},
        }

    def close(self) -> None:
        """Let go of the model."""
        self._engine.close()


def video_metadata(clip: Frames) -> dict[str, Any]:
    """The times of a clip's frames in the terms of ``transformers.video_utils.VideoMetadata``.

    Frame numbers over frame rate are the frames' seconds, to the millisecond and at any rate, constant or not; and the
    number of frames over that of the whole, times the rate, is the rate at which they were sampled.
    """
    times = np.asarray(clip.times, float)
    span = times[-1] - times[0]
    step = span / (len(times) - 1) if span > 0 else clip.duration or 1.0  # one frame stands for the whole clip
    return {
        "fps": float(_CLOCK),
        "frames_indices": [round(_CLOCK * t) for t in times],
        "total_num_frames": max(1, round(len(times) * step * _CLOCK)),
        "duration": float(clip.duration),
        "height": int(clip.pixels.shape[1]),
        "width": int(clip.pixels.shape[2]),
        "video_backend": "decord",
    }


def fit_size(
    height: int, width: int, *, factor: int, least: int, most: int, max_side: int | None = None
) -> tuple[int, int]:
    """A frame's size for a model that takes any: about its shape, both sides multiples of ``factor``.

    Args:
        height, width: Of the clip, in pixels.
        factor: Side of the patch that becomes one token.
        least, most: Bounds of ``height * width``; frames are enlarged only to reach ``least``, which wins over ``most``
            and over ``max_side``.
        max_side: Bound of the longer side.

    >>> fit_size(1080, 1920, factor=28, least=100352, most=602112)
    (588, 1008)
    >>> fit_size(48, 64, factor=28, least=0, most=602112)
    (56, 56)
    """
    scale = min(1.0, math.sqrt(most / (height * width)), (max_side or math.inf) / max(height, width))
    scale = max(scale, math.sqrt(least / (height * width)))
    rows, columns = (max(1, round(side * scale / factor)) for side in (height, width))
    # Rounding may leave the bounds: a row or column less or more, whichever keeps the shape better.
    while rows * columns * factor**2 > max(most, least) and rows * columns > 1:
        rows, columns = _step(rows, columns, height / width, -1)
    while rows * columns * factor**2 < least:
        rows, columns = _step(rows, columns, height / width, 1)
    return rows * factor, columns * factor


def _step(rows: int, columns: int, shape: float, by: int) -> tuple[int, int]:
    choices = [(rows + by, columns), (rows, columns + by)]
    return min((c for c in choices if min(c) >= 1), key=lambda c: abs(math.log(c[0] / c[1] / shape)))


def check_remote_code(model: str, revision: str | None, trusted: bool) -> None:
    """Code from the Hub runs only by an explicit wish, and only in the version that was looked at.

    Raises:
        AdapterError: The wish is there, but no revision.
    """
    from pathlib import Path

    if trusted and revision is None and not Path(model).is_dir():
        raise AdapterError(
            f"trust_remote_code runs code of {model!r} on this machine: pin it with the option revision=COMMIT"
        )


def _share(first: Mapping[str, Any] | None, second: dict[str, Any] | None) -> None:
    """Let two encodings of the same clip hold its pixels once."""
    import torch

    for key, value in (second or {}).items():
        other = (first or {}).get(key)
        if torch.is_tensor(value) and torch.is_tensor(other) and value.ndim > 1 and torch.equal(value, other):
            second[key] = other
