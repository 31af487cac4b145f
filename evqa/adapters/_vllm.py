"""Generation through vLLM's offline engine, where it is installed (``pip install vllm``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evqa.adapters._chat import Reply
from evqa.adapters._local import Request
from evqa.errors import MissingDependencyError, SetupError

__all__ = ["VllmEngine"]


class Encoder:
    """Only the processor, for its chat template: vLLM preprocesses by itself."""

    def __init__(self, processor: Any):
        self.processor = processor

    def encode(self, request: Request) -> None:
        """Nothing."""


class VllmEngine:
    """Hands rendered prompts with frames to ``vllm.LLM.generate``; vLLM preprocesses and batches by itself.

    Args:
        model, revision, trust_remote_code: Of ``vllm.LLM``.
        images: Most images in one prompt.
        dtype, temperature, top_p, seed: See :class:`evqa.adapters._local.LocalAdapter`.
        options: Further arguments of ``vllm.LLM``, such as ``tensor_parallel_size`` or ``max_model_len``.
    """

    def __init__(
        self,
        model: str,
        *,
        images: int,
        revision: str | None,
        dtype: str,
        temperature: float,
        top_p: float | None,
        seed: int,
        trust_remote_code: bool,
        options: dict[str, Any],
    ):
        try:
            import vllm
        except ImportError:
            raise MissingDependencyError('engine=vllm needs vLLM: pip install "evqa[vllm]"') from None
        from transformers import AutoProcessor

        self._vllm = vllm
        common = {"revision": revision, "trust_remote_code": trust_remote_code}
        try:
            self._model = vllm.LLM(
                model=model, dtype=dtype, seed=seed,
                **{"limit_mm_per_prompt": {"image": images, "video": 1}, **common, **options},
            )  # fmt: skip
            self.processor = AutoProcessor.from_pretrained(model, **common)
        except (OSError, ValueError, RuntimeError) as error:
            raise SetupError(f"vLLM cannot load {model!r} ({' '.join(str(error).split())[:400]})") from None
        self.encoder = Encoder(self.processor)
        self.encode = self.encoder.encode
        self._settings = {
            "name": "vllm", "dtype": dtype, "temperature": temperature, "top_p": top_p, "seed": seed,
            "options": options,
        }  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """What can change an answer."""
        return self._settings

    def generate(
        self, requests: Sequence[Request], *, max_tokens: int, schema: dict[str, Any] | None = None
    ) -> list[Reply]:
        """The model's next message in each of some conversations; a schema holds replies to its form."""
        options: dict[str, Any] = {"max_tokens": max_tokens, "temperature": self._settings["temperature"]}
        if self._settings["top_p"] is not None:
            options["top_p"] = self._settings["top_p"]
        if schema is not None and hasattr(self._vllm.sampling_params, "StructuredOutputsParams"):
            options["structured_outputs"] = self._vllm.sampling_params.StructuredOutputsParams(json=schema)
        outputs = self._model.generate(
            [_prompt(request) for request in requests],
            sampling_params=self._vllm.SamplingParams(**options),
            use_tqdm=False,
        )
        return [_reply(output) for output in outputs]

    def close(self) -> None:
        """Let go of the model."""
        self._model = None


def _prompt(request: Request) -> dict[str, Any]:
    data: dict[str, Any] = {}
    options = {**request.images_kwargs, **request.videos_kwargs}
    if request.images:
        data["image"] = [_picture(image) for image in request.images]
    if request.videos:
        # Frames with what is known of their times; they are sampled already.
        data["video"] = [
            (frames, {**metadata, "do_sample_frames": False})
            for frames, metadata in zip(request.videos, request.metadata, strict=True)
        ]
    prompt: dict[str, Any] = {"prompt": request.text, "multi_modal_data": data}
    if options:
        prompt["mm_processor_kwargs"] = options
    return prompt


def _picture(image: Any) -> Any:
    from PIL import Image

    return image.convert("RGB") if isinstance(image, Image.Image) else Image.fromarray(image)


def _reply(output: Any) -> Reply:
    said = output.outputs[0]
    usage = {"input_tokens": len(output.prompt_token_ids or ()), "output_tokens": len(said.token_ids)}
    return Reply(said.text, "length" if said.finish_reason == "length" else "stop", usage)
