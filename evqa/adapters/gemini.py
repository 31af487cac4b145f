"""Gemini models, by key or through Vertex AI: the clip goes as a file, and the model samples it itself."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import mimetypes
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evqa.adapters._api import Budget, Prices, jpeg, redacted, retry_after, shortened
from evqa.adapters._chat import ChatAdapter, Prepared, Reply
from evqa.errors import AdapterError, MissingDependencyError, SetupError, TransientError
from evqa.prompts import Picture, Text, Turn, VideoPart
from evqa.types import Prediction

__all__ = ["Gemini"]

# A request may hold 20 MB, base64 and prompt included.
_MOST_INLINE = 14 << 20
_UPLOAD_PATIENCE = 300.0
_TOKENS_PER_SECOND = 300  # of video; a guess that is corrected after each reply
_DECLINED = {"SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "RECITATION", "SPII", "IMAGE_SAFETY"}


@dataclasses.dataclass
class _Clip:
    """A clip's bytes, its length if it is known, and the handle of its upload while there is one."""

    data: bytes
    mime: str
    duration: float | None
    upload: Any = None


class Gemini(ChatAdapter):
    """Asks Gemini.

    The key is read from ``GEMINI_API_KEY`` or ``GOOGLE_API_KEY``; Vertex AI takes the account of the machine. Neither
    goes into the manifest, a record or an error.

    Args:
        model: The model's id.
        fps: How many frames a second the model is to look at.
        mode, prompts, max_tokens: See :class:`ChatAdapter`.
        temperature: Of sampling.
        thinking_budget: Tokens for thinking; ``None`` leaves it to the model, 0 turns it off where that is possible.
        vertex_project, vertex_location: Use Vertex AI.
        base_url: Another endpoint.
        inline_limit: Bytes up to which a clip is sent within the request; larger ones are uploaded first and deleted
            afterwards. Vertex AI takes no uploads.
        concurrency, requests_per_minute, tokens_per_minute, prices, timeout, seed: As for :class:`OpenAi`.
    """

    name = "gemini"

    def __init__(
        self,
        model: str = "gemini-2.5-pro",
        *,
        fps: float = 1.0,
        mode: str = "single",
        prompts: str | None = None,
        max_tokens: int = 8192,
        temperature: float | None = 0.1,
        thinking_budget: int | None = None,
        vertex_project: str | None = None,
        vertex_location: str = "us-central1",
        base_url: str | None = None,
        inline_limit: int = _MOST_INLINE,
        concurrency: int = 4,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        prices: str | None = None,
        timeout: float = 600.0,
        seed: int | None = None,
    ):
        super().__init__(model, mode=mode, prompts=prompts, max_tokens=max_tokens)
        try:
            from google import genai
            from google.genai import errors, types
        except ImportError:
            raise MissingDependencyError('the gemini adapter needs google-genai: pip install "evqa[api]"') from None
        self._types, self._errors = types, errors
        self._key = os.environ.get("GEMINI_API_KEY") or os.environ.get("GOOGLE_API_KEY")
        options = types.HttpOptions(base_url=base_url, timeout=int(1000 * timeout))
        if vertex_project is not None:
            self._client = genai.Client(
                vertexai=True, project=vertex_project, location=vertex_location, http_options=options
            )
        elif self._key:
            self._client = genai.Client(api_key=self._key, http_options=options)
        else:
            raise SetupError("neither GEMINI_API_KEY nor GOOGLE_API_KEY is set, and no vertex_project is given")
        self._fps = fps
        self._temperature = temperature
        self._thinking = thinking_budget
        self._vertex = vertex_project is not None
        self._inline_limit = inline_limit
        self._budget = Budget(requests_per_minute, tokens_per_minute)
        self._prices = Prices(prices)
        self.has_prices = self._prices.knows(model)
        self._seed = seed
        self.concurrency = concurrency

    def settings(self) -> dict[str, Any]:
        """See :meth:`Adapter.settings`."""
        common = super().settings()
        return {
            **{key: common[key] for key in ("model", "mode", "prompts", "max_tokens")},
            "frames": {"policy": "sampled by the server", "fps": self._fps},
            "server": "vertex" if self._vertex else "gemini",
            "temperature": self._temperature,
            "thinking_budget": self._thinking,
            "seed": self._seed,
        }

    # --------------------------------------------------------------------------------- the clip
    def read_clip(self, row: Any) -> _Clip:
        """The clip's file."""
        video = row["video"]
        data = video.get("bytes")
        if data is None:
            try:
                data = Path(video["path"]).read_bytes()
            except OSError as error:
                raise AdapterError(f"the clip cannot be read ({error.strerror})", file=video["path"]) from None
        mime = mimetypes.guess_type(video.get("path") or "clip.mp4")[0] or "video/mp4"
        if len(data) > self._inline_limit and self._vertex:
            raise AdapterError(
                f"the clip has {len(data)} bytes: too many to send along, and Vertex AI takes no uploads"
            )
        return _Clip(data, mime, row.get("duration"))

    def _uploaded(self, data: bytes, mime: str) -> Any:
        with self._translating():
            file = self._client.files.upload(file=io.BytesIO(data), config={"mime_type": mime})
            end = time.monotonic() + _UPLOAD_PATIENCE
            while _name(file.state) == "PROCESSING" and time.monotonic() < end:
                time.sleep(1.0)
                file = self._client.files.get(name=file.name)
        if _name(file.state) != "ACTIVE":
            raise TransientError(f"the uploaded clip is {_name(file.state)}")
        return file

    def predict(self, rows: Sequence[Prepared], task: str) -> list[Prediction]:
        """See :meth:`Adapter.predict`; a clip too large to be sent along is uploaded, and deleted in any case."""
        large = [entry.clip for entry in rows if len(entry.clip.data) > self._inline_limit]
        try:
            for clip in large:
                clip.upload = self._uploaded(clip.data, clip.mime)
            return super().predict(rows, task)
        finally:
            for clip in large:
                if clip.upload is not None:
                    with contextlib.suppress(Exception):  # the server deletes what is left after two days
                        self._client.files.delete(name=clip.upload.name)
                clip.upload = None

    # ------------------------------------------------------------------------------ the request
    def replies(
        self, requests: Sequence[tuple[Prepared, Sequence[Turn]]], *, max_tokens: int, schema: dict[str, Any] | None
    ) -> list[Reply]:
        """See :meth:`ChatAdapter.replies`."""
        return [self._reply(entry, self.request(entry, turns, max_tokens, schema)) for entry, turns in requests]

    def request(
        self, entry: Prepared, turns: Sequence[Turn], max_tokens: int, schema: dict[str, Any] | None
    ) -> dict[str, Any]:
        """The arguments of ``models.generate_content``."""
        types = self._types
        config: dict[str, Any] = {
            "max_output_tokens": max_tokens, "temperature": self._temperature, "seed": self._seed,
        }  # fmt: skip
        if schema is not None:
            config |= {"response_mime_type": "application/json", "response_json_schema": schema}
        if self._thinking is not None:
            config["thinking_config"] = types.ThinkingConfig(thinking_budget=self._thinking)
        contents = [
            types.Content(
                role="model" if turn.role == "assistant" else "user",
                parts=[part for one in turn.parts for part in self._parts(one, entry)],
            )
            for turn in turns
        ]
        return {"model": self.model, "contents": contents, "config": types.GenerateContentConfig(**config)}

    def _parts(self, part: Text | VideoPart | Picture, entry: Prepared) -> list[Any]:
        types = self._types
        if isinstance(part, Text):
            return [types.Part(text=part.text)]
        if isinstance(part, Picture):
            image = types.Blob(data=jpeg(part.image), mime_type="image/jpeg")
            return [types.Part(text=f"Image {part.label}:"), types.Part(inline_data=image)]
        clip: _Clip = entry.clip
        sampling = types.VideoMetadata(fps=self._fps)
        if clip.upload is not None:
            file = types.FileData(file_uri=clip.upload.uri, mime_type=clip.mime)
            return [types.Part(file_data=file, video_metadata=sampling)]
        return [types.Part(inline_data=types.Blob(data=clip.data, mime_type=clip.mime), video_metadata=sampling)]

    def show_request(self, entry: Prepared, task: str) -> Any:
        """See :meth:`Adapter.show_request`."""
        turns, schema = self.first_request(entry, task)
        request = self.request(entry, turns, self._max_tokens, schema)
        return shortened(
            {
                "model": request["model"],
                "contents": [content.model_dump(exclude_none=True) for content in request["contents"]],
                "config": request["config"].model_dump(exclude_none=True),
            }
        )

    def _reply(self, entry: Prepared, request: dict[str, Any]) -> Reply:
        guess = int(_TOKENS_PER_SECOND * (entry.duration or 60)) + 1000
        self._budget.take(guess)
        with self._translating():
            answer = self._client.models.generate_content(**request)
        reply = self._read_reply(answer)
        self._budget.settle(guess, sum(reply.usage.get(key, 0) for key in ("input_tokens", "output_tokens")))
        self._prices.add_cost(self.model, reply.usage)
        return reply

    @staticmethod
    def _read_reply(answer: Any) -> Reply:
        usage, found = answer.usage_metadata, {}
        if usage is not None:
            found["input_tokens"] = usage.prompt_token_count or 0
            found["output_tokens"] = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
        if not answer.candidates:
            reason = _name(getattr(answer.prompt_feedback, "block_reason", None))
            if reason:
                return Reply(f"blocked: {reason}", "refusal", found)
            raise TransientError("the server's reply holds no candidate")
        candidate = answer.candidates[0]
        parts = (candidate.content.parts if candidate.content else None) or []
        text = "".join(part.text for part in parts if part.text and not part.thought) or None
        finish = _name(candidate.finish_reason)
        if finish in _DECLINED:
            return Reply(text or f"blocked: {finish}", "refusal", found)
        return Reply(text, "length" if finish == "MAX_TOKENS" else "stop", found)

    @contextlib.contextmanager
    def _translating(self) -> Any:
        """Errors of the client as ours: to be tried again, final for this entry, or final for the run."""
        try:
            yield
        except self._errors.APIError as error:
            text = redacted(" ".join(str(error).split()), self._key)[:400]
            if error.code in (401, 403, 404) or "API_KEY_INVALID" in str(error):
                raise SetupError(text) from None
            if error.code in (408, 429) or error.code >= 500:
                raise TransientError(text, retry_after=_pause(error)) from None
            raise AdapterError(text) from None
        except (OSError, ValueError) as error:  # cut connections, time-outs, and replies that are half a reply
            raise TransientError(redacted(f"{type(error).__name__}: {error}", self._key)[:400]) from None
        except Exception as error:
            # The transport's own errors have no common base that the client exports.
            if type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "aiohttp", "requests"):
                raise TransientError(redacted(f"{type(error).__name__}: {error}", self._key)[:400]) from None
            raise

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _name(value: Any) -> str | None:
    """The name of an enumeration's member, or the text that stands in its place."""
    return None if value is None else str(getattr(value, "name", value))


def _pause(error: Any) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    asked = retry_after(headers)
    if asked is not None:
        return asked
    match = re.search(r"['\"]retryDelay['\"]:\s*['\"](\d+(?:\.\d+)?)s['\"]", str(getattr(error, "details", "")))
    return float(match[1]) if match else None


ADAPTER = Gemini
