"""The records that flow through evqa, and the ``datasets.Features`` of each: the contract.

Conventions, without exception:

- time is in **seconds from the start of the clip**;
- a segment is ``[start, end]`` with ``start < end``;
- a mask is a COCO RLE of the clip's own height x width (see :mod:`evqa.masks`);
- a choice is kept as its **index** (0-based) in the reference and as text in a prediction.

Rows are plain dictionaries, as the ``datasets`` library gives them; the ``TypedDict`` classes below name their
columns. :class:`Prediction` is what a system says about one row.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from evqa.errors import PredictionError

if TYPE_CHECKING:
    from datasets import Features

__all__ = [
    "KINDS",
    "NUM_OPTIONS",
    "STATUSES",
    "TASKS",
    "ConversationRow",
    "EvidenceObject",
    "ExpressionMasks",
    "FrameFolder",
    "FrameMask",
    "InstructRow",
    "McqSample",
    "Message",
    "ObjectMasklet",
    "Prediction",
    "Region",
    "Rle",
    "Sample",
    "Segment",
    "SegmentationRow",
    "Task",
    "features",
]

#: ``gen``: answer + segments + masks. ``mcq``: choose the answer, one of 4 segments, one of 4 regions.
TASKS = ("gen", "mcq")
Task = Literal["gen", "mcq"]

#: How many time spans and how many regions an MCQ entry offers.
NUM_OPTIONS = 4

#: What can become of an entry. Everything but ``ok`` is a failure: counted as one, and never an answer.
STATUSES = {
    "ok": "answered",
    "empty_output": "the system returned no text",
    "parse_failed": "the text holds no answer that can be read",
    "refused": "the system declined to answer",
    "truncated": "the text ends at the token limit before the answer is complete",
    "input_error": "the entry's video or images could not be read",
    "adapter_error": "the adapter failed and a retry would not help",
    "transient_error": "the adapter kept failing after every retry",
    "missing": "the prediction source holds nothing for this entry",
}

#: What the text of a :class:`SegmentationRow` is.
KINDS = {
    "query": "a noun phrase that names objects",
    "sentence": "a sentence or question that implies objects; the masks are the whole answer",
    "question": "a question with an answer in words, and the masks of the objects it is about",
    "explanatory": "a query whose answer in words explains the masks",
    "description": "one or more sentences that describe an object",
}

#: ``[start, end]`` in seconds.
Segment = list[float]


class Rle(TypedDict):
    """COCO run-length encoding: ``size`` is ``[height, width]``, ``counts`` the packed string as bytes."""

    size: list[int]
    counts: bytes


class FrameMask(TypedDict):
    """One frame's mask.

    ``frame`` counts from 0 in the clip that the masks were made on; ``time`` is its second. ``rle`` is ``None``
    only in predictions read from disk, for a file that exists and cannot be read.
    """

    frame: int
    time: float | None
    rle: Rle | None


class ExpressionMasks(TypedDict):
    """What one referring expression names, frame by frame; kept beside the union of all."""

    expression: str
    masks: list[FrameMask]


class _Question(TypedDict, total=False):
    entry_id: str
    video_id: str
    video: dict[str, Any] | None
    fps: float | None
    num_frames: int | None
    duration: float | None
    height: int | None
    width: int | None
    question: str
    candidates: list[str]
    answer: str
    answer_index: int | None
    segments: list[Segment]
    metadata: str


class Sample(_Question, total=False):
    """One benchmark question (configs ``gen``, ``mcq`` and ``sample`` of ``evqa/st_evidence``).

    ``masks`` is ``None`` when the reference holds no masks for the entry, which is not the same as an empty list.
    A frame that the reference does not list was not annotated. ``answer_index`` is ``None`` where no candidate is
    spelled like the answer. ``metadata`` is a JSON object with every published column that has no place of its own.
    """

    masks: list[FrameMask] | None


class McqSample(Sample, total=False):
    """A :class:`Sample` with its two evidence choices: 4 lists of segments and 4 images of a marked region."""

    temporal_options: list[list[Segment]]
    temporal_answer: int
    spatial_options: list[Any]
    spatial_answer: int


class EvidenceObject(TypedDict):
    """One object that proves an answer: its expression, the boxes it was found by, and its masklet.

    Boxes are ``[x1, y1, x2, y2]`` in pixels.
    """

    object_id: str
    expression: str | None
    boxes: list[dict[str, Any]]
    masks: list[FrameMask]


class FrameFolder(TypedDict):
    """Frames on disk: ``folder`` joined with each of ``names``, in time order; ``times`` are their seconds.

    ``folder`` is absolute in rows built from files, relative to the corpus' folder in published rows, and ``None``
    where the data came without frames. ``times`` is ``None`` where the source gives its frames no clock.
    """

    folder: str | None
    names: list[str]
    times: list[float] | None


class InstructRow(_Question, total=False):
    """One row of ST-Evidence-Instruct (configs ``instruct_mask`` and ``instruct_qa``); each object kept apart."""

    frames: FrameFolder
    objects: list[EvidenceObject]


class ObjectMasklet(TypedDict):
    """One object's masks over the frames of its row.

    A listed frame whose ``rle`` has no foreground is annotated: the object is not there. A frame that is not listed
    was not annotated. ``masks`` is ``None`` where the source names the object and publishes no masks of it.
    """

    object_id: str
    masks: list[FrameMask] | None


class Region(TypedDict):
    """Pixels that belong to no single object of the row.

    ``"void"``: nobody labelled them; ``"foreground"``: every object annotated in the video (ReVOS robustness).
    """

    name: str
    masks: list[FrameMask]


class SegmentationRow(TypedDict, total=False):
    """One expression about one clip, with the masklet of each object it refers to.

    ``entry_id`` is ``video_id/expression_id``, unique in its split. The row's frames are ``frames`` (files), or the
    frames ``frame_numbers`` of ``video``, ``stride`` apart where that is constant; ``video_name`` is its published
    path. ``FrameMask.frame`` is the place in this list, from 0. ``height`` and ``width`` are those of the frames, which
    masks need not share. ``objects`` is ``None`` where the split publishes no annotation, and empty where the source
    says that the expression refers to nothing. ``metadata`` is JSON with whatever else the source says.
    """

    entry_id: str
    corpus: str
    video_id: str
    expression_id: str
    expression: str
    kind: Literal["query", "sentence", "question", "explanatory", "description"]
    answer: str | None
    num_frames: int
    height: int | None
    width: int | None
    frames: FrameFolder | None
    video: dict[str, Any] | None
    video_name: str | None
    stride: int | None
    frame_numbers: list[int] | None
    objects: list[ObjectMasklet] | None
    regions: list[Region] | None
    metadata: str


class Message(TypedDict):
    """One turn; ``<image>`` and ``<video>`` stand in ``content`` where the source has them."""

    role: Literal["system", "user", "assistant"]
    content: str


class ConversationRow(TypedDict, total=False):
    """One conversation about images, a video, or nothing but text.

    ``entry_id`` is ours and unique in its split; ``source_id`` is the source's, which need not be. ``image_names`` and
    ``video_names`` are the published paths; ``images`` and ``videos`` the files, ``{"path", "bytes"}`` each, in the
    same order: ``None`` where they are not at hand, empty where there are none. A marker stands for each medium, or for
    none: then the media come before the first turn. Without media, ``<image>`` in a text is text. ``duration`` is in
    seconds.
    """

    entry_id: str
    corpus: str
    source_id: str | None
    messages: list[Message]
    image_names: list[str]
    video_names: list[str]
    images: list[Any] | None
    videos: list[Any] | None
    duration: float | None
    metadata: str


@dataclasses.dataclass
class Prediction:
    """What a system said about one entry.

    Attributes:
        entry_id: The entry.
        answer: The answer as the system gave it: a letter or an option's text. ``None``: no answer.
        segments: ``[start, end]`` pairs in seconds.
        masks: One mask per frame; a frame that is not listed has no mask.
        temporal_choice, spatial_choice: MCQ: the letter chosen.
        referring_expressions: The objects that the system named as evidence.
        expression_masks: The masks of each referring expression, where they are known; ``masks`` is their union.
        raw_text: Everything the system wrote, so that it can be parsed again.
        status: ``"ok"`` or the named failure (:data:`STATUSES`).
        detail: Why it failed, or what had to be repaired, for a reader.
        usage: Tokens, frames, cost: whatever the adapter can tell.
        seconds: Wall-clock time that this entry took.
        original: ``{"entry": value}``, the value exactly as it stood in a result file of the original release; the
            ``evqa-v1`` protocol reads this where it exists, because its quirks depend on the unparsed form.
    """

    entry_id: str
    answer: str | None = None
    segments: list[Segment] = dataclasses.field(default_factory=list)
    masks: list[FrameMask] = dataclasses.field(default_factory=list)
    temporal_choice: str | None = None
    spatial_choice: str | None = None
    referring_expressions: list[str] = dataclasses.field(default_factory=list)
    expression_masks: list[ExpressionMasks] = dataclasses.field(default_factory=list)
    raw_text: str | None = None
    status: str = "ok"
    detail: str | None = None
    usage: dict[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float | None = None
    original: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check the fields whose misuse would change a score without a sound."""
        if not isinstance(self.entry_id, str) or not self.entry_id:
            raise PredictionError(f"a prediction needs an entry id, got {self.entry_id!r}")
        if self.status not in STATUSES:
            raise PredictionError(f"unknown status {self.status!r}; known: {', '.join(STATUSES)}", entry=self.entry_id)

    @property
    def failed(self) -> bool:
        """Whether this is a failure record."""
        return self.status != "ok"

    @classmethod
    def failure(cls, entry_id: str, status: str, detail: str, **fields: Any) -> Prediction:
        """A failure record: it has a reason and no answer."""
        return cls(entry_id=entry_id, status=status, detail=detail, **fields)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; fields that say nothing are left out."""
        out: dict[str, Any] = {"entry_id": self.entry_id, "status": self.status}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in out and value is not None and value != [] and value != {}:
                out[field.name] = value
        if self.masks:
            out["masks"] = [_mask_to_json(mask) for mask in self.masks]
        if self.expression_masks:
            out["expression_masks"] = [
                {"expression": one["expression"], "masks": [_mask_to_json(mask) for mask in one["masks"]]}
                for one in self.expression_masks
            ]
        return out

    @classmethod
    def from_json(cls, record: Mapping[str, Any], *, file: Any = None) -> Prediction:
        """Read what :meth:`to_json` wrote.

        Raises:
            PredictionError: Unknown fields or wrong types; the error names the entry and the file.
        """
        if not isinstance(record, Mapping):
            raise PredictionError(f"a prediction is a JSON object, got {type(record).__name__}", file=file)
        known = {field.name for field in dataclasses.fields(cls)}
        entry = record.get("entry_id")
        entry = entry if isinstance(entry, str) else None
        if unknown := set(record) - known:
            raise PredictionError(f"unknown fields {sorted(unknown)}", entry=entry, file=file)
        values = dict(record)
        try:
            values["masks"] = read_frame_masks(values.get("masks"))
            values["expression_masks"] = [
                {"expression": str(one["expression"]), "masks": read_frame_masks(one["masks"])}
                for one in values.get("expression_masks") or []
            ]
            values["segments"] = [[float(s), float(e)] for s, e in values.get("segments") or []]
            return cls(**values)
        except PredictionError as error:
            raise PredictionError(error.message, entry=entry, file=file) from None
        except (KeyError, TypeError, ValueError) as error:
            raise PredictionError(f"malformed prediction ({error})", entry=entry, file=file) from None


def read_frame_masks(value: Any) -> list[FrameMask]:
    """Masks of a JSON record or dataset row.

    Args:
        value: A list of :class:`FrameMask` dictionaries, or a mapping from frame to RLE, where a frame is a number or
            a file name such as ``00012.png``. A name that is no number gets a negative frame: it belongs to no frame
            of any reference.

    Raises:
        KeyError, TypeError, ValueError: Anything else.
    """
    if not isinstance(value, Mapping):
        return [read_frame_mask(mask) for mask in value or []]
    masks = []
    for number, (name, rle) in enumerate(value.items()):
        stem = str(name).removesuffix(".png")
        frame = int(stem) if stem.isascii() and stem.isdigit() else -1 - number
        masks.append(read_frame_mask({"frame": frame, "rle": rle}))
    return masks


def read_frame_mask(mask: Mapping[str, Any]) -> FrameMask:
    """One mask of a JSON record or dataset row; ``counts`` may be text or bytes. Runs are not checked here."""
    rle = mask["rle"]
    if rle is not None:
        counts = rle["counts"]
        height, width = rle["size"]
        rle = {
            "size": [int(height), int(width)],
            "counts": counts.encode("ascii") if isinstance(counts, str) else bytes(counts),
        }
    time = mask.get("time")
    if time is not None and not math.isfinite(time):
        raise ValueError(f"mask time {time}")
    return {"frame": int(mask["frame"]), "time": None if time is None else float(time), "rle": rle}


def _mask_to_json(mask: FrameMask) -> dict[str, Any]:
    rle = mask["rle"]
    return {**mask, "rle": None if rle is None else {"size": list(rle["size"]), "counts": _text(rle["counts"])}}


def _text(counts: bytes | str) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts


# -------------------------------------------------------------------------------------- features
def features(record: str) -> Features:
    """The ``datasets.Features`` of a record.

    Args:
        record: ``"gen"``, ``"mcq"``, ``"instruct"``, ``"segmentation"``, ``"conversation"``, ``"frames"`` (the
            frames of one published video, as bytes), or ``"prediction"`` (what the ``evaluate`` modules take).

    Raises:
        KeyError: Unknown record.
    """
    from datasets import Features

    from evqa._features import columns

    return Features(columns(record))
