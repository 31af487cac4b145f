"""What all chat models share: the steps of a task, what is read out of each reply, and the second try after a cut.

A chat adapter derives from :class:`ChatAdapter` and implements :meth:`ChatAdapter.replies`. Decoding happens in
:meth:`ChatAdapter.prepare`, which the engine runs ahead of the model.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from evqa.adapters.base import Adapter, frame_policy
from evqa.errors import AdapterError, MissingDataError
from evqa.parsing import Parsed, parse_choice, parse_expressions, parse_generation, parse_segments
from evqa.prompts import GEN_SCHEMA, Picture, Text, Turn, VideoPart, lettered, load_prompts, span_text
from evqa.types import NUM_OPTIONS, Prediction

__all__ = ["ChatAdapter", "Frames", "Prepared", "Reply"]


@dataclasses.dataclass(frozen=True)
class Frames:
    """Frames of a clip: uint8 ``[n, h, w, 3]`` RGB, their seconds, and the clip's length in seconds."""

    pixels: np.ndarray
    times: np.ndarray
    duration: float


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An entry with its clip as the adapter wants it.

    ``replies`` holds what the model has said so far. When a step fails and the entry is tried again, it goes on from
    there: no reply is paid for twice, and none that was paid for is forgotten.
    """

    row: Mapping[str, Any]
    clip: Any
    duration: float | None
    replies: dict[str, Reply] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Reply:
    """What a model wrote in one turn.

    Attributes:
        text: As it came.
        finish: ``stop``; ``length``: cut at the token limit; ``refusal``: declined, ``text`` may say why.
        usage: ``input_tokens``, ``output_tokens``, ``cost`` and whatever else the provider tells.
    """

    text: str | None
    finish: Literal["stop", "length", "refusal"] = "stop"
    usage: dict[str, Any] = dataclasses.field(default_factory=dict)


class ChatAdapter(Adapter):
    """Asks a chat model.

    Args:
        model: The model's id.
        frames: Sampling policy of the frames (:func:`evqa.video.parse_policy`).
        max_side: Longer side of a frame in pixels; frames are never enlarged and keep their shape.
        mode: ``single``: one turn that asks for a JSON object. ``multi``: answer, then segments, then expressions.
        prompts: A YAML file with other prompts (:func:`evqa.prompts.load_prompts`).
        max_tokens: Limit of a reply. A reply that is cut is asked for once more with twice as much.
    """

    def __init__(
        self,
        model: str,
        *,
        frames: str = "uniform:32",
        max_side: int | None = 768,
        mode: str = "single",
        prompts: str | None = None,
        max_tokens: int = 2048,
    ):
        if mode not in ("single", "multi"):
            raise AdapterError(f"mode must be 'single' or 'multi', not {mode!r}")
        self._policy = frame_policy(frames)
        self.model = model
        self._max_side = max_side
        self._mode = mode
        self._prompts = load_prompts(prompts)
        self._max_tokens = max_tokens

    def settings(self) -> dict[str, Any]:
        """Model, prompts, frames and limits."""
        return {
            "model": self.model,
            "mode": self._mode,
            "prompts": self._prompts.describe(),
            "frames": self._policy.describe(),
            "max_side": self._max_side,
            "max_tokens": self._max_tokens,
        }

    # ------------------------------------------------------------------------- to be implemented
    @abc.abstractmethod
    def replies(
        self, requests: Sequence[tuple[Prepared, Sequence[Turn]]], *, max_tokens: int, schema: dict[str, Any] | None
    ) -> list[Reply]:
        """The model's next message in each of some conversations.

        Args:
            requests: Entry and conversation so far, the last turn being the user's.
            max_tokens: Limit of each reply.
            schema: JSON schema that the reply should follow, for models that can be held to one.

        Raises:
            TransientError, SetupError, AdapterError: See :meth:`Adapter.predict`.
        """

    # -------------------------------------------------------------------------------- the clip
    def prepare(self, row: Mapping[str, Any], task: str) -> Prepared:
        """Read the clip; see :meth:`Adapter.prepare`."""
        if not row.get("video"):
            raise MissingDataError("the data comes without this entry's clip", entry=row["entry_id"])
        clip = self.read_clip(row)
        return Prepared(row, clip, getattr(clip, "duration", None) or row.get("duration"))

    def read_clip(self, row: Mapping[str, Any]) -> Any:
        """The clip as the model takes it; here: sampled frames with their times.

        Returns:
            :class:`Frames`; other adapters may return another form, with a ``duration`` in seconds if they know it.
        """
        from evqa.video import Clip

        clip = Clip(row["video"])
        pixels, times = clip.sample(self._policy, max_side=self._max_side)
        return Frames(pixels, times, clip.info.duration)

    # -------------------------------------------------------------------------------- the steps
    def predict(self, rows: Sequence[Prepared], task: str) -> list[Prediction]:
        """See :meth:`Adapter.predict`; ``rows`` are what :meth:`prepare` made."""
        if task == "mcq":
            return self._mcq(rows)
        return self._single(rows) if self._mode == "single" else self._multi(rows)

    def steps(self, task: str) -> tuple[str, ...]:
        """The prompts that a task goes through."""
        if task == "mcq":
            return ("mcq_answer", "mcq_temporal", "mcq_spatial")
        return ("gen",) if self._mode == "single" else ("gen_answer", "gen_segments", "gen_expressions")

    def first_request(self, entry: Prepared, task: str) -> tuple[list[Turn], dict[str, Any] | None]:
        """The first conversation that an entry needs, and the schema that goes with it."""
        step = self.steps(task)[0]
        return [self.first_turn(entry, step)], GEN_SCHEMA if step == "gen" else None

    def spent(self, row: Prepared) -> dict[str, Any]:
        """See :meth:`Adapter.spent`."""
        total: dict[str, Any] = {}
        for reply in row.replies.values():
            _add(total, reply.usage)
        return total

    def first_turn(self, entry: Prepared, step: str) -> Turn:
        """The user's first message of a step: the clip, then the text, then any option images."""
        row = entry.row
        duration = f"{entry.duration:.1f} seconds" if entry.duration else "of unknown length"
        values = {"question": row["question"], "options": lettered(row["candidates"]), "duration": duration}
        pictures: list[Text | Picture] = []
        if step == "mcq_temporal":
            values["choices"] = lettered([span_text(option) for option in row["temporal_options"]])
        elif step == "mcq_spatial":
            images = row["spatial_options"]
            letters = [chr(65 + i) for i in range(len(images))]
            values["choices"] = ", ".join(letters)
            pictures = [Picture(image, letter) for image, letter in zip(images, letters, strict=True)]
        return Turn("user", (VideoPart(), Text(self._prompts.render(step, **values)), *pictures))

    def _single(self, entries: Sequence[Prepared]) -> list[Prediction]:
        requests = [(entry, [self.first_turn(entry, "gen")]) for entry in entries]
        out = []
        for entry, reply in zip(entries, self._ask("gen", requests, GEN_SCHEMA), strict=True):
            parsed = self._read(
                reply, lambda text, e=entry: parse_generation(text, e.row["candidates"], duration=e.duration)
            )
            out.append(parsed.as_prediction(entry.row["entry_id"], reply.text, usage=reply.usage))
        return out

    def _multi(self, entries: Sequence[Prepared]) -> list[Prediction]:
        """Answer, segments, expressions in one conversation; what fails late does not undo what came before."""
        chats = [[self.first_turn(entry, "gen_answer")] for entry in entries]
        results = [Parsed() for _ in entries]
        texts: list[list[str]] = [[] for _ in entries]
        usages: list[dict[str, Any]] = [{} for _ in entries]
        alive = list(range(len(entries)))
        for step in self.steps("gen"):
            if step != "gen_answer":
                for i in alive:
                    chats[i].append(Turn("user", (Text(self._prompts.render(step)),)))
            replies = self._ask(step, [(entries[i], chats[i]) for i in alive], None) if alive else []
            for i, reply in zip(list(alive), replies, strict=True):
                _add(usages[i], reply.usage)
                texts[i].append(reply.text or "")
                chats[i].append(Turn("assistant", (Text(reply.text or ""),)))
                if not self._take(step, reply, entries[i], results[i]):
                    alive.remove(i)
        return [
            result.as_prediction(entry.row["entry_id"], "\n\n".join(text), usage=usage)
            for entry, result, text, usage in zip(entries, results, texts, usages, strict=True)
        ]

    def _take(self, step: str, reply: Reply, entry: Prepared, result: Parsed) -> bool:
        """Put one step's reply into the result; whether the conversation is worth going on with."""
        if step == "gen_answer":
            candidates = entry.row["candidates"]
            parsed = self._read(reply, lambda text: parse_choice(text, len(candidates), candidates))
            result.status, result.answer, result.problems = parsed.status, parsed.answer, parsed.problems
            return parsed.status == "ok"
        if reply.finish != "stop":
            result.problems.append(f"{step}: {_FINISH[reply.finish]}")
            return False
        if step == "gen_segments":
            result.segments = parse_segments(reply.text, result.problems, duration=entry.duration)
        else:
            result.expressions = parse_expressions(reply.text, result.problems)
        return True

    def _mcq(self, entries: Sequence[Prepared]) -> list[Prediction]:
        """Three questions of their own; each fails or succeeds alone, and an entry fails if all three do."""
        fields = {"mcq_answer": "answer", "mcq_temporal": "temporal_choice", "mcq_spatial": "spatial_choice"}
        found: list[dict[str, Any]] = [{} for _ in entries]
        problems: list[list[str]] = [[] for _ in entries]
        statuses: list[list[str]] = [[] for _ in entries]
        texts: list[list[str]] = [[] for _ in entries]
        usages: list[dict[str, Any]] = [{} for _ in entries]
        for step, field in fields.items():
            requests = [(entry, [self.first_turn(entry, step)]) for entry in entries]
            for i, reply in enumerate(self._ask(step, requests, None)):
                candidates = entries[i].row["candidates"] if step == "mcq_answer" else None
                count = len(candidates) if candidates else NUM_OPTIONS
                parsed = self._read(reply, lambda text, n=count, c=candidates: parse_choice(text, n, c))
                found[i][field] = parsed.answer
                statuses[i].append(parsed.status)
                problems[i] += [f"{field}: {parsed.status}; {problem}" for problem in parsed.problems]
                texts[i].append(f"{field}: {reply.text or ''}")
                _add(usages[i], reply.usage)
        out = []
        for i, entry in enumerate(entries):
            raw, detail = "\n\n".join(texts[i]), "; ".join(problems[i]) or None
            if "ok" in statuses[i]:
                out.append(Prediction(entry.row["entry_id"], **found[i], raw_text=raw, detail=detail, usage=usages[i]))
            else:
                status = statuses[i][0]
                out.append(
                    Prediction.failure(entry.row["entry_id"], status, detail or status, raw_text=raw, usage=usages[i])
                )
        return out

    # ------------------------------------------------------------------------------- the replies
    def _ask(
        self, step: str, requests: Sequence[tuple[Prepared, Sequence[Turn]]], schema: dict[str, Any] | None
    ) -> list[Reply]:
        """Replies; those that were cut at the token limit are asked for once more with twice as many tokens."""
        self._fill(step, self._max_tokens, requests, schema)
        cut = [request for request in requests if request[0].replies[step].finish == "length"]
        again = f"{step}, once more"
        self._fill(again, 2 * self._max_tokens, cut, schema)
        out = []
        for entry, _ in requests:
            first, second = entry.replies[step], entry.replies.get(again)
            usage: dict[str, Any] = {}
            for reply in filter(None, (second, first)):
                _add(usage, reply.usage)
            out.append(dataclasses.replace(second or first, usage=usage))
        return out

    def _fill(
        self,
        name: str,
        max_tokens: int,
        requests: Sequence[tuple[Prepared, Sequence[Turn]]],
        schema: dict[str, Any] | None,
    ) -> None:
        """Ask for the replies that are not there yet."""
        missing = [request for request in requests if name not in request[0].replies]
        if missing:
            for (entry, _), reply in zip(
                missing, self.replies(missing, max_tokens=max_tokens, schema=schema), strict=True
            ):
                entry.replies[name] = reply

    @staticmethod
    def _read(reply: Reply, parse: Any) -> Parsed:
        if reply.finish != "stop":
            status = {"length": "truncated", "refusal": "refused"}[reply.finish]
            return Parsed(status, problems=[_FINISH[reply.finish]])
        return parse(reply.text)


_FINISH = {"length": "the reply was cut at the token limit, twice", "refusal": "the model declined"}


def _add(total: dict[str, Any], usage: Mapping[str, Any]) -> None:
    for key, value in usage.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            total[key] = total.get(key, 0) + value
        else:
            total.setdefault(key, value)
