"""Which candidate does an answer mean, and is it the right one?"""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from evqa.scoring.protocols import EVQA_V1, STRICT, Protocol, check_protocol

__all__ = ["LETTERS", "answer_correct", "match_candidate", "match_letter", "normalize_text"]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# The original evaluator maps these six letters and no more.
_V1_LETTERS = "ABCDEF"

_PREFIX = (
    r"(?:(?:the\s+)?(?:correct\s+|final\s+|best\s+)?(?:answer|option|choice|image|time\s+span)\b"
    r"\s*(?:is\b)?\s*[:=-]?\s*(?:option\s+)?)?"
)
_LETTER_ALONE = re.compile(rf"{_PREFIX}[\s\"'*`]*[(\[]?\s*([a-z])\s*[)\]]?[\s.,:;!\"'*`)]*", re.IGNORECASE)
_LETTER_AND_TEXT = re.compile(
    rf"{_PREFIX}[\s\"'*`]*(?:[(\[]\s*([a-z])\s*[)\]]|([a-z])\s*[).:]|([a-z])\s+[-–—])\s*(\S.*)",
    re.IGNORECASE | re.DOTALL,
)
_LABEL = re.compile(_PREFIX, re.IGNORECASE)
_NEXT_LABEL = re.compile(r"(?:^|\s)\(?([A-Z])[).:]\s")
_EDGE = " \t\r\n.,:;!?\"'`*()[]{}"


def normalize_text(text: str) -> str:
    """Text without what should not decide a comparison: case, Unicode width, runs of spaces, edge punctuation."""
    return " ".join(_clean(text).strip(_EDGE).casefold().split())


def match_candidate(predicted: Any, candidates: Sequence[Any]) -> int | None:
    """The index of the candidate that a short answer means, or ``None`` when it means none of them, or several.

    Read as a letter: ``B``, ``(b)``, ``B.``, ``Option B``, ``The answer is (B).``; as a letter with its text:
    ``B: a cat`` (a text that belongs to another candidate contradicts the letter: no match); as the text itself,
    ignoring case, width, spacing and edge punctuation. A capital letter is a label even where a candidate's text is
    that letter, because labels are what the question asks for; a lower-case letter is a label only if no candidate
    is spelled so.

    Args:
        predicted: The answer, usually a string. Whole floats such as ``2.0`` read as ``"2"``.
        candidates: The options in the order in which they were lettered.
    """
    text = _clean(predicted)
    if not text:
        return None
    options = [str(candidate).strip() for candidate in candidates]
    if text in options and not (len(text) == 1 and text in LETTERS[: len(options)]):
        return options.index(text)
    letter = match_letter(text, len(options))
    if letter is not None:
        return letter
    by_text = _unique_text_match(text, options)
    if by_text is None:
        by_text = _unique_text_match(_LABEL.sub("", text), options)
    if by_text is not None:
        return by_text
    if labelled := _LETTER_AND_TEXT.fullmatch(text):
        index = LETTERS.index((labelled[1] or labelled[2] or labelled[3]).upper())
        # "A. a dog B. a cat" repeats the options; it chooses none.
        other = any(m[1] in LETTERS[: len(options)] for m in _NEXT_LABEL.finditer(labelled[4]))
        if index < len(options) and not other:
            named = _unique_text_match(labelled[4], options)
            return index if named is None or normalize_text(options[named]) == normalize_text(options[index]) else None
    return None


def match_letter(predicted: Any, count: int) -> int | None:
    """The index of the letter that a short answer consists of, among the first ``count``; ``None`` if it is none.

    ``B``, ``(b)``, ``B.``, ``**B**``, ``Option B`` and ``Answer: B`` are letters; a sentence is not.
    """
    alone = _LETTER_ALONE.fullmatch(_clean(predicted))
    index = LETTERS.index(alone[1].upper()) if alone else count
    return index if index < count else None


def _clean(value: Any) -> str:
    if value is None or isinstance(value, (list, tuple, dict, set)):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = unicodedata.normalize("NFKC", str(value))
    return "".join(c for c in text if unicodedata.category(c) != "Cf").strip()  # Cf: zero-width characters


def _unique_text_match(text: str, options: Sequence[str]) -> int | None:
    wanted = normalize_text(text)
    if not wanted:
        return None
    matches = [i for i, option in enumerate(options) if normalize_text(option) == wanted]
    # Options that are spelled alike are the same answer; options that differ in case only are not.
    if matches and len({options[i] for i in matches}) == 1:
        return matches[0]
    return None


def answer_correct(
    predicted: Any, answer: Any, candidates: Sequence[Any] | str | None, protocol: Protocol = STRICT
) -> bool:
    """Whether an answer is right.

    Args:
        predicted: What the system answered: a letter, an option's text, or ``None`` for no answer.
        answer: The right option's text.
        candidates: The options, or the Python list literal that the published CSV holds. Without candidates the
            texts are compared.
        protocol: ``strict`` reads the answer with :func:`match_candidate`. ``evqa-v1`` maps a bare capital letter
            A-F to its option and then compares text exactly, so ``b``, ``B.`` and ``(B)`` are wrong.

    Returns:
        ``True`` or ``False``; an answer that cannot be read is wrong.
    """
    check_protocol(protocol)
    if protocol == EVQA_V1:
        return _v1_correct(predicted, answer, candidates)
    options = _literal(candidates) if isinstance(candidates, str) else list(candidates or [])
    right = str(answer).strip()
    if not options:
        return predicted is not None and normalize_text(str(predicted)) == normalize_text(right)
    index = match_candidate(predicted, options)
    if index is None:
        return False
    texts = [str(option).strip() for option in options]
    if right in texts:
        return texts[index] == right
    return normalize_text(texts[index]) == normalize_text(right)


def _v1_correct(predicted: Any, answer: Any, candidates: Any) -> bool:
    if predicted is None:
        return False
    options = _literal(candidates) if isinstance(candidates, str) else candidates
    if not isinstance(options, list):  # the original takes nothing but a list literal
        options = []
    text = str(predicted).strip()
    if text and len(text) == 1 and text in _V1_LETTERS and _V1_LETTERS.index(text) < len(options):
        text = str(options[_V1_LETTERS.index(text)])
    return text.strip() == str(answer).strip()


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
