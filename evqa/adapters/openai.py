"""GPT and o-series models, and every server that speaks the OpenAI chat API: vLLM, SGLang, ``transformers serve``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any

from evqa.adapters._api import Budget, Prices, data_url, jpeg, redacted, retry_after, shortened, without_secrets
from evqa.adapters._chat import ChatAdapter, Prepared, Reply
from evqa.errors import AdapterError, MissingDependencyError, SetupError, TransientError
from evqa.prompts import Picture, Text, Turn, VideoPart

__all__ = ["OpenAi"]

# Models that think before they answer take another name for the token limit, and no temperature.
_REASONING = re.compile(r"^(?:o\d|gpt-5)")
# Codes of a 400 by which a server declines what it is asked, rather than not understanding it.
_DECLINED = {"content_filter", "content_policy_violation"}
_TOKENS_PER_IMAGE = 1000  # a guess that is corrected after each reply


class OpenAi(ChatAdapter):
    """Asks an OpenAI-compatible server, showing it frames with their times.

    The key is read from ``OPENAI_API_KEY`` and goes nowhere else: not into the manifest, a record or an error.

    Args:
        model: The model's id.
        base_url: Another server than OpenAI's. It needs no key.
        frames: Sampling policy; the original showed at most 32 frames at 1 fps.
        max_side: Longer side of a frame; aspect is kept.
        mode, prompts, max_tokens: See :class:`ChatAdapter`.
        temperature: Left out for models that take none.
        structured: Hold ``gen`` replies to a JSON schema. ``None``: with OpenAI's own server only.
        concurrency: Requests at the same time.
        requests_per_minute, tokens_per_minute: Limits of this process.
        prices: YAML price table (:class:`evqa.adapters._api.Prices`), for costs in the records and ``--max-cost``.
        timeout: Seconds for one request.
        seed: Passed on where the server takes one.
    """

    name = "openai"

    def __init__(
        self,
        model: str = "gpt-4o",
        *,
        base_url: str | None = None,
        frames: str = "fps:1,max=32",
        max_side: int | None = 512,
        mode: str = "single",
        prompts: str | None = None,
        max_tokens: int = 4096,
        temperature: float | None = 0.0,
        structured: bool | None = None,
        concurrency: int = 8,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        prices: str | None = None,
        timeout: float = 300.0,
        seed: int | None = None,
    ):
        super().__init__(
            model, frames=frames, max_side=max_side, mode=mode, prompts=prompts, max_tokens=max_tokens
        )  # fmt: skip
        try:
            import openai
        except ImportError:
            raise MissingDependencyError(
                'the openai adapter needs the openai package: pip install "evqa[api]"'
            ) from None
        self._openai = openai
        self._key = os.environ.get("OPENAI_API_KEY")
        if not self._key and base_url is None:
            raise SetupError("OPENAI_API_KEY is not set; a server of your own is named by base_url")
        # Retries are the engine's: it counts them, records them and keeps to the pauses.
        self._client = openai.OpenAI(api_key=self._key or "none", base_url=base_url, timeout=timeout, max_retries=0)
        self._base_url = base_url
        self._reasoning = bool(_REASONING.match(model))
        self._temperature = None if self._reasoning else temperature
        self._structured = base_url is None if structured is None else structured
        self._seed = seed
        self._budget = Budget(requests_per_minute, tokens_per_minute)
        self._prices = Prices(prices)
        self.has_prices = self._prices.knows(model)
        self.concurrency = concurrency

    def settings(self) -> dict[str, Any]:
        """See :meth:`Adapter.settings`."""
        return {
            **super().settings(),
            "server": without_secrets(self._base_url) if self._base_url else "api.openai.com",
            "temperature": self._temperature,
            "structured": self._structured,
            "seed": self._seed,
        }

    def replies(
        self, requests: Sequence[tuple[Prepared, Sequence[Turn]]], *, max_tokens: int, schema: dict[str, Any] | None
    ) -> list[Reply]:
        """See :meth:`ChatAdapter.replies`."""
        return [self._reply(self.request(entry, turns, max_tokens, schema)) for entry, turns in requests]

    def request(
        self, entry: Prepared, turns: Sequence[Turn], max_tokens: int, schema: dict[str, Any] | None
    ) -> dict[str, Any]:
        """The arguments of ``chat.completions.create``."""
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": turn.role, "content": _content(turn, entry)} for turn in turns],
            "max_completion_tokens" if self._reasoning else "max_tokens": max_tokens,
        }
        if self._temperature is not None:
            request["temperature"] = self._temperature
        if self._seed is not None:
            request["seed"] = self._seed
        if schema is not None and self._structured:
            request["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "evidence", "strict": True, "schema": schema},
            }
        return request

    def show_request(self, entry: Prepared, task: str) -> Any:
        """See :meth:`Adapter.show_request`."""
        turns, schema = self.first_request(entry, task)
        return shortened(self.request(entry, turns, self._max_tokens, schema))

    def _reply(self, request: dict[str, Any]) -> Reply:
        guess = len(json.dumps(shortened(request))) // 4 + _TOKENS_PER_IMAGE * str(request).count("data:image")
        self._budget.take(guess)
        try:
            answer = self._client.chat.completions.create(**request)
        except self._openai.OpenAIError as error:
            if getattr(error, "code", None) in _DECLINED:
                return Reply(redacted(str(getattr(error, "message", error)), self._key)[:400], "refusal")
            raise self._translated(error) from None
        except ValueError as error:  # the client lets the JSON of half a reply through
            raise TransientError(
                f"the server's reply cannot be read: {redacted(str(error), self._key)[:200]}"
            ) from None
        reply = self._read_reply(answer)
        self._budget.settle(guess, sum(reply.usage.get(key, 0) for key in ("input_tokens", "output_tokens")))
        self._prices.add_cost(self.model, reply.usage)
        return reply

    @staticmethod
    def _read_reply(answer: Any) -> Reply:
        """A reply out of whatever a server calls one: fields may be missing or of the wrong type."""
        choices = getattr(answer, "choices", None)
        message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
        if message is None:
            raise TransientError(f"the server's reply holds no message: {redacted(str(answer))[:120]}")
        usage = getattr(answer, "usage", None)
        counts = {
            ours: getattr(usage, theirs, None)
            for ours, theirs in (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens"))
        }
        found = {key: value for key, value in counts.items() if isinstance(value, int)}
        finish = getattr(choices[0], "finish_reason", None)
        refusal = getattr(message, "refusal", None)
        if refusal or finish == "content_filter":
            return Reply(refusal or getattr(message, "content", None), "refusal", found)
        content = getattr(message, "content", None)
        text = content if isinstance(content, str) or content is None else str(content)
        return Reply(text, "length" if finish == "length" else "stop", found)

    def _translated(self, error: Exception) -> AdapterError:
        """An error of the client as one of ours: to be tried again, final for this entry, or final for the run."""
        api = self._openai
        text = redacted(" ".join(str(error).split()), self._key)[:400]
        code = getattr(error, "code", None)
        if isinstance(error, api.RateLimitError) and code != "insufficient_quota":
            return TransientError(text, retry_after=retry_after(error.response.headers))
        if isinstance(
            error, (api.AuthenticationError, api.PermissionDeniedError, api.NotFoundError, api.RateLimitError)
        ):
            return SetupError(text)
        passing = isinstance(error, (api.InternalServerError, api.APIConnectionError))  # the latter: time-outs too
        if passing or getattr(error, "status_code", None) in (408, 409, 425):
            headers = getattr(getattr(error, "response", None), "headers", {})
            return TransientError(text, retry_after=retry_after(headers))
        if isinstance(error, api.APIResponseValidationError):
            return TransientError(f"the server's reply cannot be read: {text}")
        return AdapterError(text)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _content(turn: Turn, entry: Prepared) -> Any:
    if all(isinstance(part, Text) for part in turn.parts):
        return "\n".join(part.text for part in turn.parts)
    content: list[dict[str, Any]] = []
    for part in turn.parts:
        if isinstance(part, Text):
            content.append({"type": "text", "text": part.text})
        elif isinstance(part, Picture):
            content += [{"type": "text", "text": f"Image {part.label}:"}, _image(part.image)]
        elif isinstance(part, VideoPart):
            # The time stands before its frame: a model cannot know it otherwise.
            for time, pixels in zip(entry.clip.times, entry.clip.pixels, strict=True):
                content += [{"type": "text", "text": f"{time:.1f} s:"}, _image(pixels)]
    return content


def _image(image: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(jpeg(image))}}


ADAPTER = OpenAi
