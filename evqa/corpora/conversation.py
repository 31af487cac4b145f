"""What the multimodal instruction corpora share: conversations about an image, a video, or nothing but text.

Their files are JSON lists of ``{"id", "image" or "video", "conversations": [{"from": "human" or "gpt", "value"}]}``
(Liu et al., LLaVA, NeurIPS 2023), hundreds of thousands of records long. Records are found by their place in the file
and parsed one at a time (:mod:`evqa.corpora.json_index`); none stays in memory.

- ``entry_id`` is ``<file>/<place in the file>``: the source's ids are neither unique nor all of one type.
- A marker (``<image>``, ``<video>``) stays where it stands. A record about a video that marks it by ``<image>`` gets
  ``<video>``. A record with media and no marker is left as it is: the media come first.
- Media that are not there: if nothing of their folder is there (COCO was downloaded, OCR-VQA was not), rows have
  ``images=None`` or ``videos=None`` and one warning says so. If the folder is there and one file is not, the row cannot
  be read, and the error names the file.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from evqa.corpora.base import CorpusBuilder, CorpusConfig
from evqa.corpora.json_index import Span, index_elements, read_span
from evqa.corpora.media import relative, tree_stamp
from evqa.corpora.memory import remembered
from evqa.errors import DataError, EvqaError, MissingDataError
from evqa.types import Message

__all__ = ["ConversationConfig", "ConversationCorpus", "Source"]

logger = logging.getLogger(__name__)

ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
MARKERS = {"image": "<image>", "video": "<video>"}

# Records that are listed together: a list of a million records is then a few thousand items.
_GROUP = 256


@dataclasses.dataclass
class ConversationConfig(CorpusConfig):
    """Options of the conversation corpora.

    Attributes:
        files: Names of annotation files to read, separated by commas; default: the published names that are there.
        media_dir: A folder in which images and videos are looked for first.
    """

    files: str | None = None
    media_dir: str | None = None

    @property
    def file_names(self) -> list[str]:
        """``files``, taken apart."""
        return [name.strip() for name in (self.files or "").split(",") if name.strip()]


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the media of one annotation file are looked for, in this order; paths in records start from these."""

    file: Path
    images: tuple[Path, ...] = ()
    videos: tuple[Path, ...] = ()

    def roots(self, kind: str) -> tuple[Path, ...]:
        """The folders of ``"image"`` or ``"video"``."""
        return self.images if kind == "image" else self.videos


@dataclasses.dataclass(frozen=True, eq=False)
class _Group:
    """Some records that follow one another in a file; ``spans`` is int64 ``[records, 2]``."""

    source: Source
    first: int
    spans: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Record:
    """One record, not yet read."""

    source: Source
    number: int
    span: Span

    @property
    def entry(self) -> str:
        return f"{self.source.file.stem}/{self.number}"


class ConversationCorpus(CorpusBuilder):
    """Base of the conversation corpora; see the module's docstring."""

    BUILDER_CONFIG_CLASS = ConversationConfig
    record: ClassVar[str] = "conversation"

    def sources(self, root: Path, files: Sequence[Path]) -> list[Source]:
        """Where the media of each annotation file are."""
        raise NotImplementedError

    def extra_stamp(self, root: Path, files: Sequence[Path]) -> str:
        """See :meth:`evqa.corpora.base.CorpusBuilder.extra_stamp`."""
        roots = {place for source in self.sources(root, files) for place in (*source.images, *source.videos)}
        return "\n".join(f"{place}:{place.stat().st_mtime_ns}:{tree_stamp(place)}" for place in sorted(roots))

    def list_rows(self, root: Path, files: Sequence[Path]) -> Mapping[str, list[_Group]]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.list_rows`."""
        groups = []
        for source in self.sources(root, files):
            spans = index_elements(source.file)
            groups += [_Group(source, first, spans[first : first + _GROUP]) for first in range(0, len(spans), _GROUP)]
        return {"train": groups}

    def expand(self, row: _Group) -> list[_Record]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.expand`."""
        spans = row.spans.tolist()
        return [_Record(row.source, row.first + place, Span(start, end)) for place, (start, end) in enumerate(spans)]

    def read_row(self, row: _Record) -> tuple[str, dict[str, Any]]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.read_row`."""
        try:
            return row.entry, {"entry_id": row.entry, "corpus": self.corpus, **_read(row, self.corpus)}
        except EvqaError as error:
            error.entry = error.entry or row.entry
            error.file = error.file or os.fspath(row.source.file)
            raise

    def named_files(self, folder: Path) -> list[Path]:
        """The files that ``files=`` names.

        Raises:
            MissingDataError: One is not in the folder.
        """
        found = [folder / name for name in self.config.file_names]
        if missing := [path for path in found if not path.is_file()]:
            raise MissingDataError("there is no such annotation file", file=missing[0])
        return found

    def media_places(self, *places: Path) -> tuple[Path, ...]:
        """``media_dir=``, if given, and those of some folders that are there."""
        given = [Path(self.config.media_dir).expanduser().absolute()] if self.config.media_dir else []
        if given and not given[0].is_dir():
            raise MissingDataError("media_dir is not a folder", file=given[0])
        return tuple(place for place in dict.fromkeys([*given, *places]) if place.is_dir())


def _read(row: _Record, corpus: str) -> dict[str, Any]:
    value = read_span(row.source.file, row.span)
    if not isinstance(value, dict):
        raise DataError(f"a record is a {type(value).__name__}, not an object")
    names = {kind: _names(value.get(kind), kind) for kind in MARKERS}
    if names["image"] and names["video"]:
        raise DataError("the record names both an image and a video")
    messages = _messages(value.get("conversations"))
    for kind, marker in MARKERS.items():
        if names[kind]:
            _check_markers(messages, marker, len(names[kind]))
    source_id, duration = value.get("id"), value.get("duration")
    if duration is not None and (isinstance(duration, bool) or not isinstance(duration, (int, float))):
        raise DataError(f"duration must be a number of seconds, got {duration!r}")
    known = ("id", "image", "video", "conversations", "duration")
    metadata = {name: item for name, item in value.items() if name not in known}
    return {
        "source_id": None if source_id is None else str(source_id),
        "messages": messages,
        "image_names": names["image"],
        "video_names": names["video"],
        "images": _media(names["image"], row.source, "image", corpus),
        "videos": _media(names["video"], row.source, "video", corpus),
        "duration": None if duration is None else float(duration),
        "metadata": json.dumps({"file": row.source.file.name, **metadata}, ensure_ascii=False),
    }


def _names(value: Any, kind: str) -> list[str]:
    names = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise DataError(f"{kind} must be a path or a list of paths, got {value!r}")
    return names


def _messages(turns: Any) -> list[Message]:
    if not isinstance(turns, list) or not turns:
        raise DataError("conversations must be a list of turns")
    messages: list[Message] = []
    for number, turn in enumerate(turns):
        role = ROLES.get(turn.get("from")) if isinstance(turn, dict) else None
        if role is None or not isinstance(turn.get("value"), str):
            raise DataError(f"turn {number} must have a from ({', '.join(ROLES)}) and a text value: {str(turn)[:60]}")
        messages.append({"role": role, "content": turn["value"]})
    return messages


def _check_markers(messages: list[Message], marker: str, media: int) -> None:
    """As many markers as media, or none; ``<image>`` for a video is made ``<video>``."""
    found = sum(message["content"].count(marker) for message in messages if message["role"] == "user")
    other = MARKERS["image"]
    if not found and marker != other:
        found = sum(message["content"].count(other) for message in messages if message["role"] == "user")
        if found == media:
            for message in messages:
                if message["role"] == "user":
                    message["content"] = message["content"].replace(other, marker)
    if found not in (0, media):
        raise DataError(f"{found} markers for {media} {marker.strip('<>')}s: which stands for what cannot be told")


# ------------------------------------------------------------------------------------------- media
def _media(names: Sequence[str], source: Source, kind: str, corpus: str) -> list[dict[str, Any]] | None:
    """The files; ``None`` if their folders are not here."""
    found = []
    for name in names:
        inner = relative(name)
        if inner is None:
            raise DataError(f"the {kind} {name!r} is not a path inside the data")
        path = next((root / inner for root in source.roots(kind) if (root / inner).is_file()), None)
        if path is None:
            roots = source.roots(kind)
            if any(_is_here(root, inner.parts[0] if len(inner.parts) > 1 else "", kind) for root in roots):
                raise MissingDataError(f"the {kind} {name!r} is not in any of {', '.join(map(str, roots))}")
            _warn_once(corpus, kind, source, inner.parts[0] if len(inner.parts) > 1 else "")
            return None
        found.append({"path": os.path.abspath(path), "bytes": None})
    return found


_SUFFIXES = {
    "image": (".jpg", ".jpeg", ".png", ".gif", ".webp"),
    "video": (".mp4", ".webm", ".mkv", ".avi", ".mov", ".gif"),
}


@remembered(256)
def _is_here(root: Path, top: str, kind: str) -> bool:
    """Whether a root has the folder that a path starts with or, for a bare name, any file of the kind."""
    if top:
        return (root / top).is_dir()
    with os.scandir(root) as entries:
        return any(entry.name.lower().endswith(_SUFFIXES[kind]) for entry in entries)


@remembered(256)
def _warn_once(corpus: str, kind: str, source: Source, top: str) -> None:
    logger.warning(
        "%s: %s of %s in %s are not here (looked in %s): rows have %ss=None",
        corpus, f"{kind}s", source.file.name, repr(top) if top else "no folder",
        ", ".join(map(str, source.roots(kind))) or "no folder", kind,
    )  # fmt: skip
