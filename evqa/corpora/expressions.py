"""``meta_expressions.json`` and ``mask_dict.json``: the form that most video segmentation corpora share.

``{"videos": {video: {"frames": [name, ...], "expressions": {id: {"exp": text, "obj_id": [...], "anno_id": [...]}}}}}``
lists the expressions (Seo et al., ECCV 2020; Ding et al., ICCV 2023); ``{anno_id: [mask of each frame]}`` holds the
masks. A frame's name is its file's without the suffix.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evqa.corpora.masklets import MaskDict
from evqa.corpora.segmentation import Clip, Expression, Track
from evqa.errors import DataError

__all__ = ["Video", "clip_of", "expressions_of", "masks_by_annotation", "read_json_strictly", "read_videos"]


@dataclasses.dataclass
class Video:
    """One video of a ``meta_expressions.json``, as it stands there."""

    video_id: str
    frames: list[str]
    expressions: dict[str, dict[str, Any]]
    record: dict[str, Any]
    fault: str | None = None


def read_json_strictly(file: Path) -> dict[str, Any]:
    """Read a JSON object in which no key stands twice, of which ``json.load`` would silently keep the last.

    Raises:
        DataError: Missing, damaged, not an object, or with a key that stands twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            raise DataError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} stands twice", file=file)
        return found

    try:
        with open(file, encoding="utf-8") as handle:
            value = json.load(handle, object_pairs_hook=unique)
    except FileNotFoundError:
        raise DataError("there is no such file", file=file) from None
    except DataError:
        raise
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"not readable as JSON ({error}); is it cut off?", file=file) from None
    if not isinstance(value, dict):
        raise DataError(f"a JSON object is needed, this is a {type(value).__name__}", file=file)
    return value


def read_videos(file: Path) -> list[Video]:
    """The videos of a ``meta_expressions.json``, in its order.

    Frames must be in the order of their names. Where they are not, the sources disagree on which mask belongs to which
    frame (the loaders that trained on them sort the names, the ReVOS evaluator does not), so the video's rows have a
    fault instead of a guess.

    Raises:
        DataError: Not readable, or not of this form; names video and file.
    """
    videos = read_json_strictly(file).get("videos")
    if not isinstance(videos, dict):
        raise DataError('there is no "videos" object in it', file=file)
    found = []
    for video_id, record in videos.items():
        expressions = record.get("expressions") if isinstance(record, dict) else None
        if not isinstance(expressions, dict):
            raise DataError(f'the video {video_id!r} has no "expressions" object', file=file)
        frames = record.get("frames")
        fault = None
        if not isinstance(frames, list) or not all(isinstance(name, str) for name in frames):
            frames, fault = [], "the video has no list of frames"
        elif len(set(frames)) < len(frames):
            fault = "a frame of the video is listed twice"
        elif frames != sorted(frames):
            fault = "the frames of the video are not in order, so it is not known which mask belongs to which"
        found.append(Video(video_id, frames, expressions, record, fault))
    return found


def clip_of(video: Video, file: Path, root: Path | None, suffix: str = ".jpg") -> Clip:
    """The clip of a video whose frames are files below ``root``; raises nothing."""
    height, width = video.record.get("height"), video.record.get("width")
    known = all(isinstance(side, int) and side > 0 for side in (height, width))
    names = [name if name.endswith(suffix) else name + suffix for name in video.frames]
    return Clip(video.video_id, names, file, root, (height, width) if known else None)


def expressions_of(
    videos: Sequence[Video],
    file: Path,
    root: Path | None,
    *,
    kind: str | Callable[[str], str] = "query",
    tracks: Callable[[Video, str, dict[str, Any]], list[Track] | None] = lambda *_: None,
    metadata: Callable[[Video, str, dict[str, Any]], Mapping[str, Any]] = lambda *_: {},
    make_clip: Callable[[Video], Clip] | None = None,
    change: Callable[[Expression, Video], None] | None = None,
) -> Iterator[Expression]:
    """One :class:`~evqa.corpora.segmentation.Expression` for each expression of each video.

    Args:
        videos: From :func:`read_videos`.
        file: The file they are from.
        root: Where the folders of frames are; ``None``: not here.
        kind: The kind of all expressions, or of an expression's text.
        tracks: Video, expression id and record -> its objects; may raise ``DataError``, which becomes the row's fault.
        metadata: Likewise -> what to keep beside the record's own fields, all of which are kept.
        make_clip: The clip of a video, where it is not a folder of frames.
        change: Called with each expression and its video.
    """
    for video in videos:
        clip = make_clip(video) if make_clip else clip_of(video, file, root)
        for expression_id, record in video.expressions.items():
            fault = video.fault
            text, objects, more = None, None, {}
            if not isinstance(record, dict):
                fault = fault or f"the expression is a {type(record).__name__}, not an object"
            else:
                text = record.get("exp")
                try:
                    objects = tracks(video, expression_id, record)
                    more = {k: v for k, v in record.items() if k != "exp"} | dict(
                        metadata(video, expression_id, record)
                    )
                except DataError as error:
                    fault = fault or error.message
            is_kind = kind if isinstance(kind, str) else kind(text if isinstance(text, str) else "")
            row = Expression(clip, expression_id, text, is_kind, objects=objects, metadata=more, fault=fault)
            if change is not None:
                change(row, video)
            yield row


def masks_by_annotation(masks: MaskDict | None, *, needed: bool) -> Callable[..., list[Track] | None]:
    """For :func:`expressions_of`: objects by ``obj_id`` and ``anno_id``, parallel lists, masks by ``anno_id``.

    Args:
        masks: Where the masks are; ``None``: they are not here, and objects have ``masks=None``.
        needed: Whether an expression must say what it refers to. The files of hidden test sets do not.
    """

    def tracks(video: Video, expression_id: str, record: dict[str, Any]) -> list[Track] | None:
        objects, annotations = record.get("obj_id"), record.get("anno_id")
        if objects is None and annotations is None and not needed:
            return None
        if not isinstance(objects, list) or not isinstance(annotations, list) or len(objects) != len(annotations):
            raise DataError(f"obj_id and anno_id must be lists of one length, got {objects!r} and {annotations!r}")
        if masks is not None and (lacking := [a for a in annotations if str(a) not in masks]):
            raise DataError(f"{masks.file.name} has no masks for annotation {lacking[0]!r}")
        return [
            Track(str(object_id), None if masks is None else masks.source(str(annotation)))
            for object_id, annotation in zip(objects, annotations, strict=True)
        ]

    return tracks
