"""What a model wrote -> what it said: answer, segments, referring expressions; or a named reason why not.

Rules, in order: a JSON object anywhere in the text; labelled prose ("Answer: B", "Segments: [[1, 2]]"); a reply that is
nothing but a letter or an option. A letter is never fished out of a sentence: "a man walks" does not answer A. What
cannot be read becomes a status of :data:`evqa.types.STATUSES`, not a guess.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from evqa.scoring.answers import LETTERS, match_candidate, match_letter
from evqa.types import Prediction, Segment

__all__ = ["Parsed", "parse_choice", "parse_expressions", "parse_generation", "parse_segments", "parse_time"]

_ANSWER_KEYS = ("answer", "final_answer", "choice", "option", "correct_answer")
_SEGMENT_KEYS = ("segments", "time_segments", "temporal_evidence", "evidence_segments", "time_segment")
_EXPRESSION_KEYS = ("referring_expressions", "ref_expressions", "expressions", "referring_expression", "objects")
_KNOWN_KEYS = frozenset(_ANSWER_KEYS + _SEGMENT_KEYS + _EXPRESSION_KEYS)

_FENCE = re.compile(r"```[a-zA-Z0-9_-]*\s*\n?(.*?)```", re.DOTALL)
_THINK = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_OPEN_THINK = re.compile(r"<think(?:ing)?>(?!.*</think)", re.DOTALL | re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\{(?:\\text\{)?([^{}]+)\}?\}")
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_ANSWER_LABEL = re.compile(
    r"\b(?P<final>final\s+)?(?:correct\s+|best\s+)?(?:answer|choice)\b[\s*_]*(?:is|:|=)[\s*_:]*", re.IGNORECASE
)
_LETTER_IS_RIGHT = re.compile(
    r"(?:^|[\n.;,]\s*)(?:(?:so|thus|hence|therefore),?\s+)?(?:[Oo]ption\s+)?\(?([A-Z])\)?\s+is\s+(?:the\s+)?(?:most\s+)?"
    r"(?:correct|right|best|answer)|\b(?:choose|chose|pick|select|go with)\s+(?:option\s+)?[(\"']?([A-Z])\b"
)
_SEGMENT_LABEL = re.compile(
    r"\b(?:time\s+segments?|segments?|temporal\s+evidence|timestamps?|time\s+spans?)\b[\s*_]*(?:is|are|:|=)",
    re.IGNORECASE,
)
_EXPRESSION_LABEL = re.compile(r"\b(?:referring\s+)?expressions?\b[\s*_]*(?:is|are|:|=)", re.IGNORECASE)
_CLOCK = r"\d+(?::\d{1,2}){1,2}(?:\.\d+)?"
_AMOUNT = rf"(?:{_CLOCK}|\d+(?:\.\d+)?\s*(?:%|s(?:ec(?:ond)?s?)?\b)?)"
_PAIR = re.compile(rf"[\[(]\s*({_AMOUNT})\s*,\s*({_AMOUNT})\s*[\])]", re.IGNORECASE)
_RANGE = re.compile(rf"(?<![\w.:])({_AMOUNT})\s*(?:-|–|—|to|until|and)\s*({_AMOUNT})(?![\w:])", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\b(?:I\s*(?:'m|am)\s+(?:sorry|unable|not able)|I\s+(?:cannot|can't|can not|won't)|as an AI\b|"
    r"unable to (?:view|see|watch|answer))",
    re.IGNORECASE,
)


@dataclasses.dataclass
class Parsed:
    """What was read from a text.

    Attributes:
        status: ``"ok"``, or one of ``empty_output, parse_failed, refused, truncated``; then nothing else is set.
        answer: The option's letter; the text itself if it fits no option; ``None`` if the text gives no answer.
        segments: ``[start, end]`` in seconds.
        expressions: Referring expressions, in order, each once.
        problems: What was found and could not be used.
    """

    status: str = "ok"
    answer: str | None = None
    segments: list[Segment] = dataclasses.field(default_factory=list)
    expressions: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)

    def as_prediction(self, entry_id: str, raw_text: str | None, **fields: Any) -> Prediction:
        """The same as a :class:`Prediction`, with the text it came from."""
        detail = "; ".join(self.problems) or None
        if self.status != "ok":
            return Prediction.failure(entry_id, self.status, detail or self.status, raw_text=raw_text, **fields)
        return Prediction(
            entry_id,
            answer=self.answer,
            segments=self.segments,
            referring_expressions=self.expressions,
            raw_text=raw_text,
            detail=detail,
            **fields,
        )


# ----------------------------------------------------------------------------------- the two tasks
def parse_generation(text: str | None, candidates: Sequence[str], *, duration: float | None = None) -> Parsed:
    """Read an answer with its evidence.

    Args:
        text: What the model wrote.
        candidates: The options in lettered order.
        duration: The clip's length in seconds; times given in percent need it.
    """
    text, status = _prepare(text)
    if status:
        return Parsed(status)
    found = _find_object(text)
    if found is not None:
        parsed = _from_object(found, candidates, duration)
    elif _cut_off(text):
        return Parsed("truncated", problems=["the text ends inside a JSON value"])
    else:
        parsed = _from_prose(text, candidates, duration)
    if parsed.answer is None and not parsed.segments and not parsed.expressions:
        refused = _REFUSAL.search(text)
        return Parsed("refused" if refused else "parse_failed", problems=[_excerpt(text)])
    return parsed


def parse_choice(text: str | None, count: int, candidates: Sequence[str] | None = None) -> Parsed:
    """Read the choice of one of ``count`` lettered options.

    Args:
        text: What the model wrote.
        count: Number of options; a letter beyond them is not a choice.
        candidates: The options' texts, where they have any.
    """
    text, status = _prepare(text)
    if status:
        return Parsed(status)
    options = list(candidates) if candidates is not None else None
    found = _find_object(text)
    if found is not None:
        answer = _choice(_first(found, _ANSWER_KEYS), count, options)
    elif _cut_off(text):
        return Parsed("truncated", problems=["the text ends inside a JSON value"])
    else:
        answer = _prose_answer(text, lambda said: _choice(said, count, options))
    if answer is None:
        return Parsed("refused" if _REFUSAL.search(text) else "parse_failed", problems=[_excerpt(text)])
    return Parsed(answer=answer)


def parse_segments(text: str | None, problems: list[str], *, duration: float | None = None) -> list[Segment]:
    """Read a reply that was asked for time segments alone; what cannot be used is told in ``problems``."""
    text, status = _prepare(text)
    if status:
        problems.append(f"segments: {status}")
        return []
    found = _find_object(text)
    value = _first(found, _SEGMENT_KEYS) if found else None
    if value is None:
        lists = [v for v in _json_values(text) if isinstance(v, list) and (not v or _looks_like_times(v, nested=False))]
        pairs = [list(match.groups()) for match in (*_PAIR.finditer(text), *_RANGE.finditer(text))]
        value = lists[0] if lists else pairs or None
    if value is None:
        problems.append(f"segments: {_excerpt(text)}")
    return _segments(value, duration, problems)


def parse_expressions(text: str | None, problems: list[str]) -> list[str]:
    """Read a reply that was asked for referring expressions alone; a list, or one per line."""
    text, status = _prepare(text)
    if status:
        problems.append(f"referring expressions: {status}")
        return []
    found = _find_object(text)
    if found:
        return _expressions(_first(found, _EXPRESSION_KEYS), problems)
    lists = [v for v in _json_values(text) if isinstance(v, list) and all(isinstance(i, (str, dict)) for i in v)]
    if lists:
        return _expressions(lists[0], problems)
    lines = [re.sub(r"^\s*(?:[-*•]|\d+[.)])\s*", "", line).strip(" \"'`.,") for line in text.splitlines()]
    return _expressions([line for line in lines if line], problems)


def _choice(said: Any, count: int, options: list[str] | None) -> str | None:
    if isinstance(said, list) and len(said) == 1:
        said = said[0]
    index = match_letter(said, count) if options is None else match_candidate(said, options)
    if index is None and options is None and isinstance(said, str):
        # "B. the second image": a letter with a remark, where options have no text to compare with.
        remark = re.match(r"\s*\(?([A-Z])\s*[).:](?:\s|$)", said)
        index = match_letter(remark[1], count) if remark else None
    return None if index is None else LETTERS[index]


# ---------------------------------------------------------------------------------------- text
def _prepare(text: str | None) -> tuple[str, str | None]:
    """The text without its thinking aloud, and a status if nothing is left to read."""
    if text is None or not text.strip():
        return "", "empty_output"
    text = _THINK.sub(" ", text)
    if _OPEN_THINK.search(text):
        return text, "truncated"
    return text.strip(), None if text.strip() else "empty_output"


def _excerpt(text: str) -> str:
    text = " ".join(text.split())
    return f"nothing to read in: {text[:80]}{'...' if len(text) > 80 else ''}"


def _first(found: dict[str, Any], keys: Sequence[str]) -> Any:
    lowered = {str(key).strip().lower().replace(" ", "_"): value for key, value in found.items()}
    return next((lowered[key] for key in keys if lowered.get(key) is not None), None)


def _find_object(text: str) -> dict[str, Any] | None:
    """The first JSON object with a key we know: fenced, bare, or the first item of a list."""
    for part in [*(_FENCE.findall(text)), text]:
        for value in _json_values(part):
            if isinstance(value, list) and value and isinstance(value[0], dict):
                value = value[0]
            if isinstance(value, dict) and _KNOWN_KEYS & {str(k).strip().lower().replace(" ", "_") for k in value}:
                return value
    return None


def _json_values(text: str) -> Iterator[Any]:
    """Every object or list in the text that can be read; trailing commas and Python quotes are forgiven."""
    decoder = json.JSONDecoder()
    position = 0
    while (start := min((p for p in (text.find("{", position), text.find("[", position)) if p >= 0), default=-1)) >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError):
            end = _closing(text, start)
            if end is None:
                position = start + 1
                continue
            value = _forgiving(text[start:end])
            if value is None:
                position = start + 1
                continue
        yield value
        position = end


def _closing(text: str, start: int) -> int | None:
    """Where the bracket at ``start`` is closed, strings left out of account; ``None`` if it is not."""
    depth, quote, i = 0, "", start
    while i < len(text):
        c = text[i]
        if quote:
            if c == "\\":
                i += 1
            elif c == quote:
                quote = ""
        elif c == '"' or (c == "'" and not (i and text[i - 1].isalnum())):
            quote = c
        elif c in "{[":
            depth += 1
        elif c in "}]":
            depth -= 1
            if depth == 0:
                return i + 1
        i += 1
    return None


def _forgiving(text: str) -> Any:
    text = re.sub(r",\s*([}\]])", r"\1", text)
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _cut_off(text: str) -> bool:
    """Whether a JSON object is begun and not closed: the answer may be half a word."""
    start = re.search(r"\{\s*[\"']", text)
    return start is not None and _closing(text, start.start()) is None


# --------------------------------------------------------------------------------------- reading
def _from_object(found: dict[str, Any], candidates: Sequence[str], duration: float | None) -> Parsed:
    parsed = Parsed()
    said = _first(found, _ANSWER_KEYS)
    if isinstance(said, list) and len(said) == 1:
        said = said[0]
    if isinstance(said, (str, int, float)) and str(said).strip():
        parsed.answer = _answer(said, candidates)
        if parsed.answer not in LETTERS[: len(candidates)]:
            parsed.problems.append(f"the answer {str(said)[:60]!r} is none of the options")
    elif said is not None:
        parsed.problems.append(f"the answer is a {type(said).__name__}")
    parsed.segments = _segments(_first(found, _SEGMENT_KEYS), duration, parsed.problems)
    parsed.expressions = _expressions(_first(found, _EXPRESSION_KEYS), parsed.problems)
    return parsed


def _from_prose(text: str, candidates: Sequence[str], duration: float | None) -> Parsed:
    parsed = Parsed()
    parsed.answer = _prose_answer(text, lambda said: _letter(said, candidates))
    label = _SEGMENT_LABEL.search(text)
    # Without a label only a list of pairs is taken for segments: any other number may mean anything.
    lists = [v for v in _json_values(text[label.end() :] if label else text) if isinstance(v, list) and v]
    numeric = [v for v in lists if _looks_like_times(v, nested=label is None)]
    if numeric:
        parsed.segments = _segments(numeric[0], duration, parsed.problems)
    elif label:
        after = text[label.end() :].split("\n\n")[0]
        pairs = [list(match.groups()) for match in (*_PAIR.finditer(after), *_RANGE.finditer(after))]
        parsed.segments = _segments(pairs or None, duration, parsed.problems)
    if label := _EXPRESSION_LABEL.search(text):
        texts = [
            v for v in _json_values(text[label.end() :]) if isinstance(v, list) and all(isinstance(i, str) for i in v)
        ]
        parsed.expressions = _expressions(texts[0] if texts else None, parsed.problems)
    return parsed


def _prose_answer(text: str, read: Any) -> str | None:
    """The last labelled answer, "final" ones first; or the whole reply, or its first line, if that is an answer."""
    labels = list(_ANSWER_LABEL.finditer(text))
    ends = [*(m.start() for m in labels[1:]), len(text)][: len(labels)]
    rests = [(m["final"], text[m.end() : end].split("\n")[0]) for m, end in zip(labels, ends, strict=True)]
    rests = [pair for pair in rests if pair[0]] or rests
    said = [m[1] for pattern in (_TAGGED, _BOXED) for m in list(pattern.finditer(text))[-1:]]
    said += [rest for _, rest in reversed(rests)]
    said += [m[1] or m[2] for m in reversed(list(_LETTER_IS_RIGHT.finditer(text)))]
    said += [text, text.strip().splitlines()[0]]
    for piece in said:
        # A label's line may go on after the answer: "Answer: B. The man is ..."; "Answer: B, because ...".
        for part in (piece, re.split(r"(?<=[^A-Z0-9 ])[.;]\s|,\s|\s+(?:because|since|as)\s", piece)[0]):
            letter = read(part.strip(" *_`"))
            if letter is not None:
                return letter
        start = re.match(r"[\s*_\"'(\[]*([A-Z])[)\]]?(?:[.,;:)]|\s+(?:because|since|as)\b)", piece)
        if piece != text and start and (letter := read(start[1])) is not None:
            return letter
    return None


def _letter(said: str, candidates: Sequence[str]) -> str | None:
    index = match_candidate(said, candidates)
    return None if index is None else LETTERS[index]


def _answer(said: Any, candidates: Sequence[str]) -> str:
    return _letter(said, candidates) or str(said).strip()


def _looks_like_times(value: list[Any], *, nested: bool) -> bool:
    if all(isinstance(item, (list, tuple, dict)) for item in value):
        return all(isinstance(item, dict) or len(item) == 2 for item in value)
    return not nested and all(isinstance(item, (int, float)) or parse_time(item) is not None for item in value)


def _segments(value: Any, duration: float | None, problems: list[str]) -> list[Segment]:
    if value is None:
        return []
    if isinstance(value, str):
        pairs = [list(match.groups()) for match in _RANGE.finditer(value)]
        value = pairs or next((v for v in _json_values(value) if isinstance(v, list)), [value])
    if isinstance(value, dict):
        value = [value]
    if value and not any(isinstance(item, (list, tuple, dict)) for item in value):
        if all(isinstance(item, str) and _RANGE.fullmatch(item.strip()) for item in value):
            value = [list(_RANGE.fullmatch(item.strip()).groups()) for item in value]  # type: ignore[union-attr]
        else:
            if len(value) % 2:
                problems.append("an odd number of times; the last one is dropped")
            value = [value[i : i + 2] for i in range(0, len(value) - 1, 2)]
    out: list[Segment] = []
    for item in value:
        if isinstance(item, dict):
            item = [
                _first(item, ("start", "start_time", "begin", "from")),
                _first(item, ("end", "end_time", "finish", "to")),
            ]
        if isinstance(item, str) and (match := _RANGE.fullmatch(item.strip())):
            item = list(match.groups())
        bounds = (
            [parse_time(v, duration) for v in item[:2]] if isinstance(item, (list, tuple)) and len(item) >= 2 else []
        )
        if len(bounds) != 2 or None in bounds:
            problems.append(f"malformed segment {item!r}")
        elif bounds[1] < bounds[0]:
            problems.append(f"segment {item!r} ends before it starts")
        else:
            if duration is not None and bounds[1] > duration + 0.5:
                problems.append(f"segment {item!r} ends after the clip ({duration:g} s)")
            out.append([bounds[0], bounds[1]])
    return out


def parse_time(value: Any, duration: float | None = None) -> float | None:
    """A moment in seconds.

    Args:
        value: A number; or text such as ``12.5``, ``12.5s``, ``1:05``, ``1:02:03.5``, ``1m 5s``, ``35%``.
        duration: The clip's length, which a percentage refers to.

    Returns:
        Seconds, or ``None`` if it is no finite, non-negative moment.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value) if math.isfinite(value) and value >= 0 else None
    if not isinstance(value, str):
        return None
    text = value.strip().lower()
    if re.fullmatch(_CLOCK, text):
        parts = [float(part) for part in text.split(":")]
        if any(part >= 60 for part in parts[1:]):
            return None
        return sum(part * 60**power for power, part in enumerate(reversed(parts)))
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text):
        return None if duration is None else float(match[1]) / 100 * duration
    if match := re.fullmatch(r"(\d+)\s*m(?:in(?:ute)?s?)?\s*(\d+(?:\.\d+)?)\s*s(?:ec(?:ond)?s?)?", text):
        return 60.0 * int(match[1]) + float(match[2])
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:s|sec|secs|seconds?)?", text):
        return float(match[1])
    return None


def _expressions(value: Any, problems: list[str]) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        problems.append(f"referring expressions are a {type(value).__name__}")
        return []
    texts = [
        _first(item, ("expression", "name", "text", "description")) if isinstance(item, dict) else item
        for item in value
    ]
    good = [text.strip() for text in texts if isinstance(text, str) and text.strip()]
    if len(good) < len(texts):
        problems.append(f"{len(texts) - len(good)} referring expressions are not text")
    return list(dict.fromkeys(good))
