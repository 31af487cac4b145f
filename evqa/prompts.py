"""What a model is asked: versioned templates, and conversations that every adapter turns into its own request format.

A prompt set has a name and a version, and both go into the run's manifest with a hash of its text. A YAML file can
replace any template::

    name: mine
    version: "2"
    gen: |
      Watch the clip ({duration}). {question}
      {options}
      ...

Placeholders: ``{question}``, ``{options}`` (one lettered line each), ``{duration}``, ``{choices}`` (the time spans or
image labels of an MCQ evidence question). A brace that is meant is doubled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from evqa.errors import DataError
from evqa.scoring.answers import LETTERS
from evqa.types import Segment

__all__ = [
    "DEFAULT",
    "GEN_SCHEMA",
    "GROUNDED",
    "Picture",
    "PromptSet",
    "Text",
    "Turn",
    "VideoPart",
    "grounded_reply",
    "lettered",
    "load_prompts",
    "span_text",
]


# ------------------------------------------------------------------------------------ conversations
@dataclasses.dataclass(frozen=True)
class Text:
    """Words."""

    text: str


@dataclasses.dataclass(frozen=True)
class VideoPart:
    """The entry's clip. What it looks like to a model is the adapter's business: frames with times, or the file."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """An option image with the label that it goes by; the label stands before the image, so that none can shift."""

    image: Any
    label: str


@dataclasses.dataclass(frozen=True)
class Turn:
    """One message."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[Text | VideoPart | Picture, ...]


# ----------------------------------------------------------------------------------------- templates
_QUESTION = """The video is {duration} long. Question: {question}
Options:
{options}
"""

_TEMPLATES = {
    "gen": _QUESTION
    + """
Answer the question and show the evidence:
- "answer": the letter of the right option.
- "segments": when the evidence can be seen, as [start, end] pairs in seconds from the start of the video; several \
pairs if it can be seen several times.
- "referring_expressions": for each object that proves the answer, one short phrase that tells it apart from \
everything else by how it looks; no words about time.

Reply with one JSON object of this form and nothing else:
{{"answer": "<letter>", "segments": [[<start>, <end>]], "referring_expressions": ["<phrase>"]}}""",
    "gen_answer": _QUESTION + "\nReply with the letter of the right option and nothing else.",
    "gen_segments": """When can the evidence for your answer be seen? Reply with a JSON list of [start, end] pairs in \
seconds from the start of the video and nothing else, for example [[1.0, 2.5]].""",
    "gen_expressions": """Which objects prove your answer? For each, give one short phrase that tells it apart from \
everything else by how it looks; no words about time. Reply with a JSON list of these phrases and nothing else.""",
    "gen_masks": _QUESTION + "\nPlease segment the objects in the video that prove the right answer.",
    "mcq_answer": _QUESTION + "\nReply with the letter of the right option and nothing else.",
    "mcq_temporal": _QUESTION
    + """
Which of these time spans shows the evidence for the right answer?
{choices}

Reply with the letter of the time span and nothing else.""",
    "mcq_spatial": _QUESTION
    + """
The images {choices} are frames of the video; in each, one region has a red outline. Which image outlines what proves \
the right answer? Reply with its letter and nothing else.""",
}

#: JSON schema of a ``gen`` reply, for providers with structured output.
GEN_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "segments": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
        "referring_expressions": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["answer", "segments", "referring_expressions"],
    "additionalProperties": False,
}


@dataclasses.dataclass(frozen=True)
class PromptSet:
    """Named, versioned templates.

    Attributes:
        name, version: Go into every run's manifest.
        templates: Template by step: ``gen``; ``gen_answer``, ``gen_segments``, ``gen_expressions``, ``gen_masks``;
            ``mcq_answer``, ``mcq_temporal``, ``mcq_spatial``; of :data:`GROUNDED` also ``segment``.
    """

    name: str
    version: str
    templates: Mapping[str, str]

    def render(self, step: str, **values: str) -> str:
        """The text of a step; ``values`` are inserted as they are, braces in them mean nothing."""
        return self.templates[step].format(**values)

    def describe(self) -> dict[str, str]:
        """Name, version and a hash of the text, for a manifest."""
        text = json.dumps(dict(self.templates), sort_keys=True)
        return {"name": self.name, "version": self.version, "sha256": hashlib.sha256(text.encode()).hexdigest()[:16]}


DEFAULT = PromptSet("evqa", "1.0", _TEMPLATES)

#: For models that write masks themselves, and are trained on :func:`grounded_reply`.
GROUNDED = PromptSet(
    "evqa-grounded",
    "1.0",
    {
        **{step: text for step, text in _TEMPLATES.items() if step.startswith("mcq_") or step == "gen_answer"},
        "gen": _QUESTION
        + """
Give the letter of the right option, the time segments in seconds that show the evidence as [start, end] pairs, and \
segment the objects that prove it.""",
        "gen_segments": """When can the evidence for your answer be seen? Give the time segments in seconds from the \
start of the video as [start, end] pairs.""",
        "gen_masks": "Which objects prove your answer? Segment them in the video.",
        "segment": "Segment in the video: {expression}",
    },
)

_ALLOWED = {"question", "options", "duration", "choices", "expression"}


def grounded_reply(
    letter: str, segments: Sequence[Segment], num_objects: int = 1, token: str = "<|seg|>", words: str | None = None,
    rationale: str | None = None,
) -> str:  # fmt: skip
    """The reply to ``gen`` of :data:`GROUNDED`, as a model is trained to give it and as it is parsed.

    Args:
        letter: Of the right option.
        segments: Seconds, written with one decimal.
        num_objects: How many masks: one for the union of all evidence, or one for each object.
        token: What stands for a mask.
        words: Say the option itself before its letter. A small model learns to say what it sees, and then to find the
            letter of what it said, much sooner than to find the letter of what it sees.
        rationale: Said before everything else: what the answer follows from.

    >>> grounded_reply("B", [[0.667, 4.667]])
    'Answer: B. Temporal Evidence: [[0.7, 4.7]]. Spatial Evidence: <|seg|>.'
    >>> grounded_reply("B", [[0.667, 4.667]], words="the blue car")
    'The evidence shows the blue car. Answer: B. Temporal Evidence: [[0.7, 4.7]]. Spatial Evidence: <|seg|>.'
    """
    said = f"{rationale} " if rationale else ""
    said += f"The evidence shows {words}. " if words else ""
    spans = ", ".join(f"[{start:.1f}, {end:.1f}]" for start, end in segments)
    return f"{said}Answer: {letter}. Temporal Evidence: [{spans}]. Spatial Evidence: {' '.join([token] * num_objects)}."


def load_prompts(path: str | os.PathLike | None, default: PromptSet = DEFAULT) -> PromptSet:
    """A set of prompts, or that of a YAML file; templates that the file leaves out are the default's.

    Raises:
        DataError: Not such a file, an unknown step, or a placeholder that nothing fills; names the file.
    """
    if path is None:
        return default
    import yaml

    path = Path(path)
    try:
        value = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"the prompts cannot be read ({error})", file=path) from None
    if not isinstance(value, dict) or not value.get("name") or not value.get("version"):
        raise DataError("a prompt file has a name, a version and templates", file=path)
    templates = {key: text for key, text in value.items() if key not in ("name", "version")}
    if unknown := set(templates) - set(default.templates):
        raise DataError(f"unknown steps {sorted(unknown)}; known: {', '.join(default.templates)}", file=path)
    for step, text in templates.items():
        try:
            fields = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
        except (ValueError, TypeError) as error:
            raise DataError(f"{step}: {error}; a brace that is meant is doubled", file=path) from None
        if fields - _ALLOWED:
            raise DataError(
                f"{step}: nothing fills {sorted(fields - _ALLOWED)}; known: {', '.join(sorted(_ALLOWED))}; "
                "a brace that is meant is doubled",
                file=path,
            )
    return PromptSet(str(value["name"]), str(value["version"]), {**default.templates, **templates})


def lettered(options: Sequence[str]) -> str:
    """One line per option: ``(A) text``."""
    return "\n".join(f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False))


def span_text(segments: Sequence[Segment]) -> str:
    """Time segments in words: ``1.0 s to 2.5 s, and 4.0 s to 6.0 s``."""
    return ", and ".join(f"{start:.1f} s to {end:.1f} s" for start, end in segments)
