"""The words of training conversations: what is asked of a row and how it is answered, named and versioned.

A set of templates has a list of wordings per situation, one of which is drawn per sample. A YAML file can replace any
list::

    name: mine
    version: "2"
    query: ["Where is {phrase}? Segment it."]

Placeholders: ``{phrase}`` (a noun phrase without article), ``{text}`` (a sentence as it stands), ``{clip}``
(``video`` or ``image``), ``{answer}``, and ``{seg}``: the ``<|seg|>`` tokens, with names where there are several.
A brace that is meant is doubled. The first wording of ``evidence`` is the benchmark's own
(:data:`evqa.prompts.GROUNDED`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import string
from collections.abc import Mapping
from pathlib import Path

from evqa.errors import DataError
from evqa.prompts import GROUNDED

__all__ = ["DEFAULT", "Templates", "load_templates"]

_WORDS: dict[str, tuple[str, ...]] = {
    # ---------------------------------------------------------------- asking for the masks of an expression
    "query": (
        "Segment the {phrase} in this {clip}.",
        "Find the {phrase} in the {clip} and give the mask.",
        "Which pixels of this {clip} belong to the {phrase}? Reply with a mask.",
        "I am looking for the {phrase}. Mark it in the {clip}.",
        "Outline the {phrase} wherever the {clip} shows it.",
        "Mask request for this {clip}: the {phrase}.",
    ),
    "sentence": (
        "{text} Reply with the segmentation mask.",
        "{text} Mark what is meant in the {clip}.",
        "{text} Show it as a mask.",
        "Segment what this is about: {text}",
        "{text} Answer with the mask and nothing else.",
    ),
    "question": (
        "{text} Answer, and segment the objects that your answer is about.",
        "{text} Reply in a few words and add the mask.",
        "{text} Say it and show it with a mask.",
        "Watch the {clip}. {text} Give the answer together with its mask.",
        "{text} Name the answer and mark it in the {clip}.",
    ),
    "explanatory": (
        "Segment the {phrase} in this {clip} and explain why.",
        "Mark the {phrase}, then give your reason.",
        "Give the mask of the {phrase} and say how it can be told.",
        "Which pixels are the {phrase}? Add an explanation.",
        "Find the {phrase} in the {clip}, mask it, and describe what you see.",
    ),
    "description": (
        "Segment the object that is described here: {text}",
        "Which object in the {clip} fits this description? Mark it. {text}",
        "Here is a description of one object: {text} Give its mask.",
        "Find what is described and return the mask. {text}",
        "{text} Segment the object described.",
    ),
    # ------------------------------------------------------------------------------ replying with masks
    "masks": (
        "It is {seg}.",
        "Here it is: {seg}.",
        "The mask is {seg}.",
        "Found: {seg}.",
        "This is what you asked for: {seg}.",
    ),
    "answer_masks": ("{answer} {seg}.",),
    "masks_answer": ("It is {seg}. {answer}", "The mask is {seg}. {answer}"),
    # ------------------------------------------------- asking for an answer with evidence; after the options
    "evidence": (
        GROUNDED.templates["gen"].rpartition("\n")[2],
        "Which option is right? Show when, as a list of [start, end] in seconds, and where, as masks.",
        "Choose an option and back it up: time segments in seconds first, then segmentation masks.",
        "Reply with the right letter, the seconds during which the proof can be seen, and its masks.",
        "Pick the right option. As evidence add [start, end] segments in seconds and the masks of what matters.",
    ),
    "evidence_time": (
        "Give the letter of the right option and the time segments in seconds that prove it.",
        "Which option is right, and when can that be seen? List [start, end] in seconds.",
        "Choose an option and add the seconds during which the proof can be seen.",
    ),
    "evidence_masks": (
        "Give the letter of the right option and the masks of the objects that prove it.",
        "Which option is right, and where can that be seen? Answer with masks.",
        "Choose an option and segment the objects that prove it.",
    ),
    "evidence_none": (
        "Give the letter of the right option.",
        "Which option is right? Reply with its letter.",
        "Choose one option by its letter.",
    ),
}

#: What may stand in a wording of each list.
_FIELDS: dict[str, frozenset[str]] = {
    "query": frozenset({"phrase", "clip"}),
    "sentence": frozenset({"text", "clip"}),
    "question": frozenset({"text", "clip"}),
    "explanatory": frozenset({"phrase", "clip"}),
    "description": frozenset({"text", "clip"}),
    "masks": frozenset({"seg"}),
    "answer_masks": frozenset({"answer", "seg"}),
    "masks_answer": frozenset({"answer", "seg"}),
    **dict.fromkeys(("evidence", "evidence_time", "evidence_masks", "evidence_none"), frozenset({"clip"})),
}
#: What must stand in it: a reply that loses its tokens would train nothing.
_NEEDED: dict[str, frozenset[str]] = {name: fields - {"clip"} for name, fields in _FIELDS.items()}


@dataclasses.dataclass(frozen=True)
class Templates:
    """Named, versioned wordings.

    Attributes:
        name, version: Go into the model card of what was trained with them.
        words: List of wordings by situation; the situations are those of this module's default.
    """

    name: str
    version: str
    words: Mapping[str, tuple[str, ...]]

    def describe(self) -> dict[str, str]:
        """Name, version and a hash of all wordings."""
        text = json.dumps({key: list(value) for key, value in self.words.items()}, sort_keys=True)
        return {"name": self.name, "version": self.version, "sha256": hashlib.sha256(text.encode()).hexdigest()[:16]}

    def render(self, situation: str, choice: float, **values: str) -> str:
        """One wording, filled in.

        Args:
            situation: Which list.
            choice: In [0, 1): which of its wordings.
            **values: Inserted as they are; braces in them mean nothing.
        """
        words = self.words[situation]
        return words[int(choice * len(words))].format(**values)


DEFAULT = Templates("evqa-training", "1", _WORDS)


def load_templates(path: str | os.PathLike[str] | None) -> Templates:
    """The default, or that with the lists of a YAML file in place of its own.

    Raises:
        DataError: Not such a file, an unknown list, an empty one, a placeholder that nothing fills, or one missing.
    """
    if path is None:
        return DEFAULT
    import yaml

    path = Path(path)
    try:
        value = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"the templates cannot be read ({error})", file=path) from None
    if not isinstance(value, dict) or not value.get("name") or not value.get("version"):
        raise DataError("a file of templates has a name, a version and lists of wordings", file=path)
    words = {key: item for key, item in value.items() if key not in ("name", "version")}
    for situation, wordings in words.items():
        if situation not in _WORDS:
            raise DataError(f"unknown list {situation!r}; known: {', '.join(_WORDS)}", file=path)
        if not isinstance(wordings, list) or not wordings or not all(isinstance(text, str) for text in wordings):
            raise DataError(f"{situation}: a list of at least one wording is needed", file=path)
        for text in wordings:
            _check(situation, text, path)
    return Templates(str(value["name"]), str(value["version"]), {**_WORDS, **{k: tuple(v) for k, v in words.items()}})


def _check(situation: str, text: str, path: Path) -> None:
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise DataError(f"{situation}: {error}; a brace that is meant is doubled", file=path) from None
    if unknown := fields - _FIELDS[situation]:
        raise DataError(
            f"{situation}: nothing fills {sorted(unknown)}; known: {', '.join(sorted(_FIELDS[situation]))}", file=path
        )
    if missing := _NEEDED[situation] - fields:
        raise DataError(f"{situation}: the wording {text!r} leaves out {sorted(missing)}", file=path)
