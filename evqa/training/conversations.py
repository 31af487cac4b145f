"""A row of any corpus as a training conversation: what is asked, what is to be said, and what each ``<|seg|>`` means.

Only words are made here; frames and masks are the business of :mod:`evqa.training.frames` and
:mod:`evqa.training.mixture`. What a reply looks like:

==================================  ==================================================================================
row                                 reply
==================================  ==================================================================================
:class:`~evqa.types.Sample`,        ``Answer: B. Temporal Evidence: [[0.7, 4.7]]. Spatial Evidence: <|seg|>.``; what the
:class:`~evqa.types.InstructRow`    row has no annotation of is neither asked for nor said
:class:`~evqa.types.                ``It is <|seg|>.``, with the row's answer before or after it where it has one
SegmentationRow`
:class:`~evqa.types.                as it stands, every turn
ConversationRow`
==================================  ==================================================================================

``<|seg|>`` comes in two styles. ``merged``: one, which means the union of all objects, as the published models were
trained. ``per_object``: one for each, with its name where it has one (``the blue car <|seg|>, the tree <|seg|>``).
The labels and the form of the times are those of the ST-Evidence models, so that what reads their output reads this.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from evqa.errors import DataError
from evqa.prompts import GROUNDED, lettered
from evqa.scoring.answers import LETTERS
from evqa.training.templates import DEFAULT, Templates

__all__ = ["DATA_TYPES", "SEG_TOKEN", "STYLES", "Conversation", "converse", "data_type", "evidence_question"]

SEG_TOKEN = "<|seg|>"

#: How the masks of several objects are asked for.
STYLES = ("merged", "per_object")

#: What a batch is of. Rows of one type need the same parts of a model, so that ranks do equal work.
DATA_TYPES = {
    "evidence": "a question with options about a clip; answer, segments, masks",
    "segmentation": "an expression about a clip; masks",
    "video": "a conversation about a clip, in words",
    "image": "a conversation about images, in words",
    "text": "a conversation about nothing that can be seen",
}

_MARKER = re.compile(r"<(image|video)>")
_SPECIAL = re.compile(r"<\|[^|>]*\|>")
_ARTICLE = re.compile(r"^(?:the|an|a)\s+", re.IGNORECASE)
_ACRONYM = re.compile(r"^[A-Z][A-Z0-9]")


@dataclasses.dataclass(frozen=True)
class Conversation:
    """A row in words.

    Attributes:
        messages: As chat templates of transformers take them: ``{"role", "content": [{"type": "text", "text"} |
            {"type": "video"} | {"type": "image"}]}``. Replies of the assistant are what is learnt.
        targets: For each ``<|seg|>``, in order, the places in ``row["objects"]`` of the objects that it unites; ``()``
            for the one mask of a row whose reference is united already.
        data_type: One of :data:`DATA_TYPES`.
    """

    messages: tuple[dict[str, Any], ...]
    targets: tuple[tuple[int, ...], ...]
    data_type: str


def data_type(row: Mapping[str, Any]) -> str:
    """Which of :data:`DATA_TYPES` a row belongs to.

    Raises:
        DataError: It is no row of ours.
    """
    if "messages" in row:
        return "video" if row.get("video_names") else "image" if row.get("image_names") else "text"
    if "expression" in row:
        return "segmentation"
    if "question" in row and "candidates" in row:
        return "evidence"
    raise DataError(f"a row with columns {sorted(row)[:6]} is none of evqa's records", entry=row.get("entry_id"))


def converse(
    row: Mapping[str, Any],
    draw: Callable[[], float],
    *,
    templates: Templates = DEFAULT,
    style: Literal["merged", "per_object"] = "merged",
    shuffle_options: bool = False,
    say_option: bool = False,
    say_rationale: bool = False,
) -> Conversation:
    """Put a row into words.

    Args:
        row: Of any of evqa's records but predictions.
        draw: Gives a number in [0, 1) at each call: the choice of wordings and of the options' order.
        templates: The wordings.
        style: One ``<|seg|>`` for all objects, or one for each.
        shuffle_options: Put the options of a question into a random order.
        say_option: Let the reply say the right option before its letter, as
            :func:`evqa.prompts.grounded_reply` does with ``words``.
        say_rationale: Let the reply begin with the ``rationale`` in the row's metadata, where it has one.

    Raises:
        DataError: The row says nothing that can be learnt, or holds control tokens of the model in its text; names the
            entry.
    """
    if style not in STYLES:
        raise ValueError(f"style must be one of {STYLES}, not {style!r}")
    try:
        kind = data_type(row)
        if kind == "evidence":
            return _evidence(row, draw, templates, style, shuffle_options, say_option, say_rationale)
        if kind == "segmentation":
            return _segmentation(row, draw, templates, style)
        return _chat(row, kind)
    except DataError as error:
        error.entry = error.entry or row.get("entry_id")
        raise


# ------------------------------------------------------------------------------------------ evidence
def evidence_question(question: str, candidates: Sequence[str], duration: float | None, request: str) -> str:
    """The text of a question with its options, as :data:`evqa.prompts.GROUNDED` asks it, but for the request."""
    length = f"{duration:.1f} seconds" if duration else "of unknown length"
    text = GROUNDED.render("gen", question=question, options=lettered(candidates), duration=length)
    return f"{text.rpartition(chr(10))[0]}\n{request}"


def _evidence(
    row: Mapping[str, Any], draw: Callable[[], float], templates: Templates, style: str, shuffle: bool, say: bool,
    why: bool,
) -> Conversation:  # fmt: skip
    candidates, index = [str(text) for text in row["candidates"]], row["answer_index"]
    if index is None or not 0 <= index < len(candidates):
        raise DataError(f"the answer {row.get('answer')!r} is none of the {len(candidates)} options")
    if len(candidates) > len(LETTERS):
        raise DataError(f"{len(candidates)} options, and only {len(LETTERS)} letters")
    if shuffle:
        order = sorted(range(len(candidates)), key=lambda _: draw())
        candidates, index = [candidates[i] for i in order], order.index(index)
    segments = row.get("segments") or []
    targets, names = _evidence_targets(row, style)
    situation = {
        (True, True): "evidence", (True, False): "evidence_time", (False, True): "evidence_masks",
    }.get((bool(segments), bool(targets)), "evidence_none")  # fmt: skip
    request = templates.render(situation, draw(), clip="video")
    rationale = _rationale(row) if why else None
    reply = f"{_plain(rationale)} " if rationale else ""
    reply += f"The evidence shows {_plain(candidates[index])}. " if say else ""
    reply += f"Answer: {LETTERS[index]}."
    if segments:
        spans = ", ".join(f"[{start:.1f}, {end:.1f}]" for start, end in segments)
        reply += f" Temporal Evidence: [{spans}]."
    if targets:
        reply += f" Spatial Evidence: {_seg_text(names)}."
    options = [_plain(option) for option in candidates]
    text = evidence_question(_plain(row["question"]), options, row.get("duration"), request)
    return Conversation(_exchange("video", text, reply), targets, "evidence")


def _rationale(row: Mapping[str, Any]) -> Any:
    try:
        metadata = json.loads(row.get("metadata") or "{}")
    except (TypeError, ValueError) as error:
        raise DataError(f"the metadata are no JSON ({error})") from None
    if not isinstance(metadata, dict):
        raise DataError(f"the metadata are {type(metadata).__name__}, not an object")
    return metadata.get("rationale")


def _evidence_targets(row: Mapping[str, Any], style: str) -> tuple[tuple[tuple[int, ...], ...], list[str | None]]:
    objects = row.get("objects")
    if objects is None:  # a benchmark row: its reference is one mask per frame
        return (((),), [None]) if row.get("masks") else ((), [])
    shown = [i for i, item in enumerate(objects) if item["masks"]]
    if not shown:
        return (), []
    if style == "merged" or len(shown) == 1:
        return (tuple(shown),), [None]
    names = [_plain(objects[i].get("expression")) if objects[i].get("expression") else f"object {i + 1}" for i in shown]
    return tuple((i,) for i in shown), names


# -------------------------------------------------------------------------------------- segmentation
def _segmentation(row: Mapping[str, Any], draw: Callable[[], float], templates: Templates, style: str) -> Conversation:
    kind, text, answer = row["kind"], _plain(row["expression"]), row.get("answer")
    objects = row["objects"] or []
    shown = [i for i, item in enumerate(objects) if item["masks"]]
    if not shown:
        raise DataError("the expression has no object with masks, so there is nothing to learn")
    if style == "merged" or len(shown) == 1:
        targets, names = (tuple(shown),), [None]
    else:
        targets, names = tuple((i,) for i in shown), [None] * len(shown)
    if kind in ("question", "explanatory") and not answer:
        raise DataError(f"a row of kind {kind!r} needs an answer")
    if kind in ("query", "explanatory"):
        ask = templates.render(kind, draw(), phrase=noun_phrase(text), clip="video")
    elif kind in ("sentence", "question", "description"):
        if kind == "question" and not text.endswith(("?", ".", "!")):
            text += "?"
        ask = templates.render(kind, draw(), text=text, clip="video")
    else:
        raise DataError(f"unknown kind of expression {kind!r}")
    seg = _seg_text(names)
    if kind == "question":
        reply = templates.render("answer_masks", draw(), answer=_plain(answer), seg=seg)
    elif kind == "explanatory":
        reply = templates.render("masks_answer", draw(), answer=_plain(answer), seg=seg)
    else:
        reply = templates.render("masks", draw(), seg=seg)
    return Conversation(_exchange("video", ask, reply), targets, "segmentation")


def noun_phrase(text: str) -> str:
    """An expression as it goes after "the": without its article and final stop, its first letter small.

    >>> noun_phrase("A man in red.")
    'man in red'
    >>> noun_phrase("TV set on the left")
    'TV set on the left'
    """
    text = _ARTICLE.sub("", text.strip().rstrip(".").strip())
    return text if _ACRONYM.match(text) else text[:1].lower() + text[1:]


# -------------------------------------------------------------------------------------- conversation
def _chat(row: Mapping[str, Any], kind: str) -> Conversation:
    messages, found = [], {"image": 0, "video": 0}
    for message in row["messages"]:
        parts: list[dict[str, Any]] = []
        # Markers split the text: what stands between two of them is words.
        for number, piece in enumerate(_MARKER.split(message["content"])):
            if number % 2:
                found[piece] += 1
                parts.append({"type": piece})
            elif piece.strip():
                parts.append({"type": "text", "text": _plain(piece)})
        if message["role"] == "assistant" and any(part["type"] != "text" for part in parts):
            raise DataError("a reply holds an image or a video")
        if not parts:
            raise DataError(f"an empty turn of the {message['role']}")
        messages.append({"role": message["role"], "content": parts})
    if not messages or messages[-1]["role"] != "assistant":
        raise DataError("the conversation does not end with a reply")
    for name, count in found.items():
        given = len(row.get(f"{name}_names") or [])
        if given and not count:  # a source that marks nothing: its media come first
            first = next((m for m in messages if m["role"] == "user"), None)
            if first is None:
                raise DataError(f"no turn of the user that the {name} could belong to")
            first["content"][:0] = [{"type": name}] * given
        elif count != given:
            raise DataError(f"the text has {count} <{name}> markers, the row {given} {name}s")
    return Conversation(tuple(messages), (), kind)


# ------------------------------------------------------------------------------------------- helpers
def _exchange(clip: str, question: str, reply: str) -> tuple[dict[str, Any], ...]:
    return (
        {"role": "user", "content": [{"type": clip}, {"type": "text", "text": question}]},
        {"role": "assistant", "content": [{"type": "text", "text": reply}]},
    )


def _seg_text(names: Sequence[str | None]) -> str:
    """``<seg>``; ``<seg>, <seg> and <seg>``; ``the blue car <seg>, the tree <seg>``."""
    marked = [SEG_TOKEN if name is None else f"{name} {SEG_TOKEN}" for name in names]
    if len(marked) == 1 or any(name is not None for name in names):
        return ", ".join(marked)
    return f"{', '.join(marked[:-1])} and {marked[-1]}"


def _plain(text: Any) -> str:
    """The text, if it holds none of the model's control tokens: one more ``<|seg|>`` would shift every mask."""
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"text is needed, got {text!r}")
    if found := _SPECIAL.search(text):
        raise DataError(f"the text holds {found[0]!r}, a control token of the model")
    return text.strip()
