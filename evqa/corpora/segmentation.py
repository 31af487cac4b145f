"""What the video segmentation corpora share: one typed row per expression, with the masklet of every object.

A corpus derives a class from :class:`SegmentationCorpus` and lists an :class:`Expression` per row: a clip, a text, and
for each object where its masks are published (:mod:`evqa.corpora.masklets`). Everything else is done here: the frames
are found and counted, masks are read frame by frame and checked, and the row is a
:class:`evqa.types.SegmentationRow`. Nothing is decoded but label maps; frames stay paths.

What the rows keep, so that official metrics and every kind of training target can be made from them:

- objects are never united; a union is made where it is needed (:func:`evqa.corpora.reading.read_clip`);
- the whole clip: no crop, no sampling of frames, no expression left out, also where a training script leaves some out;
- "annotated, and the object is not there" (a mask without foreground) apart from "not annotated" (no mask);
- the source's own ids and everything it says about the expression, in ``metadata``.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from evqa import masks as rle_masks
from evqa._files import child
from evqa.corpora.base import CorpusBuilder, CorpusConfig
from evqa.corpora.masklets import ABSENT, FrameMasks, MaskSource
from evqa.corpora.memory import remembered
from evqa.errors import DataError, EvqaError, MaskError, MissingDataError
from evqa.types import FrameMask

__all__ = ["Clip", "Expression", "SegmentationCorpus", "Track", "homes", "media_root", "nothing_found"]

logger = logging.getLogger(__name__)

UNIPIXEL = "UniPixel-SFT-1M"


@dataclasses.dataclass(slots=True)
class Clip:
    """One video, shared by the expressions about it.

    Attributes:
        video_id: Its id, as published; may contain slashes.
        names: File names of its frames, in time order.
        file: The annotation file that lists it, for errors.
        root: The folder in which the folder ``video_id`` of frames is; ``None``: the frames are not here.
        size: Height and width, where the annotation states them.
        times: Seconds of the frames, where they are known.
        inside: What comes between ``video_id`` and the frame, such as ``images``.
        video: For clips that are decoded from a video: its file, ``None`` if it is not here.
        video_name: Its published path.
        frame_numbers: The number in the video of each of the row's frames; then there are no ``names``.
    """

    video_id: str
    names: Sequence[str]
    file: Path
    root: Path | None = None
    size: tuple[int, int] | None = None
    times: Sequence[float] | None = None
    inside: str = ""
    video: Path | None = None
    video_name: str | None = None
    frame_numbers: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.names) if self.frame_numbers is None else len(self.frame_numbers)

    def folder(self) -> Path | None:
        """Where the frames are; ``None`` if they are not here.

        Raises:
            DataError: ``video_id`` leads out of ``root``.
        """
        return None if self.root is None else child(self.root, self.video_id, *filter(None, [self.inside]))


@dataclasses.dataclass(slots=True)
class Track:
    """One object and where its masks are; ``None``: the source names it and publishes no masks."""

    object_id: str
    source: MaskSource | None


@dataclasses.dataclass(slots=True)
class Expression:
    """One row, not yet read.

    ``objects``: as in :class:`evqa.types.SegmentationRow`. ``fault``: why the row cannot be read; reported when it is
    read, so that one bad expression is one bad row.
    """

    clip: Clip
    expression_id: str
    text: Any
    kind: str
    answer: Any = None
    objects: Sequence[Track] | None = None
    regions: Sequence[tuple[str, MaskSource]] = ()
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fault: str | None = None


class SegmentationCorpus(CorpusBuilder):
    """Base of the video segmentation corpora; see the module's docstring."""

    BUILDER_CONFIG_CLASS = CorpusConfig
    record: ClassVar[str] = "segmentation"

    def expression(self, row: Any) -> Expression:
        """The expression of a listed row, for corpora whose rows are not listed as expressions.

        Such a row has an ``entry`` and a ``file``, for errors.
        """
        return row

    def finish(self, record: dict[str, Any]) -> Mapping[str, Any]:
        """What to add to a row's metadata once its masks are read."""
        return {}

    def read_row(self, row: Any) -> tuple[str, dict[str, Any]]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.read_row`."""
        entry = f"{row.clip.video_id}/{row.expression_id}" if isinstance(row, Expression) else row.entry
        file = row.clip.file if isinstance(row, Expression) else row.file
        try:
            expression = self.expression(row)
            file = expression.clip.file
            return entry, self._record(entry, expression)
        except EvqaError as error:
            error.entry = error.entry or entry
            error.file = error.file or os.fspath(file or "") or None
            raise

    def _record(self, entry: str, expression: Expression) -> dict[str, Any]:
        clip = expression.clip
        if expression.fault:
            raise DataError(expression.fault)
        text = _text(expression.text, "the expression", needed=True)
        if not len(clip):
            raise DataError("the video has no frames")
        frames, size = _frames(clip)
        if clip.size is None:  # polygons do not say how large their frame is
            clip = dataclasses.replace(clip, size=size)
        if expression.objects is None:
            objects = None
        else:
            read = [(track, track.source and track.source.read(clip)) for track in expression.objects]
            fallback = _mask_size([masks for _, masks in read if masks is not None]) or clip.size
            objects = [
                {"object_id": track.object_id, "masks": _frame_masks(masks, clip, fallback)} for track, masks in read
            ]
        regions = None
        if expression.regions and objects is not None:
            regions = [{"name": name, "masks": _region(source, clip)} for name, source in expression.regions]
            regions = [region for region in regions if region["masks"]]
        size = size or clip.size or _size_of(objects)
        record = {
            "entry_id": entry,
            "corpus": self.corpus,
            "video_id": clip.video_id,
            "expression_id": expression.expression_id,
            "expression": text,
            "kind": expression.kind,
            "answer": _text(expression.answer, "the answer"),
            "num_frames": len(clip),
            "height": size[0] if size else None,
            "width": size[1] if size else None,
            "frames": frames,
            "video": {"path": os.path.abspath(clip.video), "bytes": None} if clip.video is not None else None,
            "video_name": clip.video_name,
            "stride": _stride(clip.frame_numbers),
            "frame_numbers": None if clip.frame_numbers is None else list(clip.frame_numbers),
            "objects": objects,
            "regions": regions or None,
        }
        metadata = {**expression.metadata, **self.finish(record)}
        return {**record, "metadata": json.dumps(metadata, ensure_ascii=False)}


# ------------------------------------------------------------------------------------------ frames
def _frames(clip: Clip) -> tuple[dict[str, Any] | None, tuple[int, int] | None]:
    """The row's ``frames``, all of which are there, and their height and width."""
    if clip.frame_numbers is not None:
        return None, clip.size
    times = None if clip.times is None else list(clip.times)
    for name in clip.names:
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            raise DataError(f"a frame is named {name!r}, which is no file name")
    folder = clip.folder()
    if folder is None:
        return {"folder": None, "names": list(clip.names), "times": times}, None
    present = file_names(folder)
    if not present:
        raise MissingDataError("the folder of the video's frames is missing or empty", file=folder)
    if missing := [name for name in clip.names if name not in present]:
        raise MissingDataError(f"{len(missing)} of {len(clip)} frames are missing, {missing[0]} first", file=folder)
    # The size is in the file's first bytes; nothing is decoded.
    size = _image_size(folder / clip.names[0])
    return {"folder": os.path.abspath(folder), "names": list(clip.names), "times": times}, size


@remembered(4)
def file_names(folder: Path) -> frozenset[str]:
    """The names in a folder; none if there is no such folder."""
    try:
        return frozenset(entry.name for entry in os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except (OSError, ValueError) as error:
        raise DataError(f"the folder cannot be read ({error})", file=folder) from None


@remembered(4)
def _image_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"the frame is not a readable image ({error})", file=path) from None


def _stride(numbers: Sequence[int] | None) -> int | None:
    steps = {after - before for before, after in zip(numbers or [], (numbers or [])[1:], strict=False)}
    return steps.pop() if len(steps) == 1 else None


# ------------------------------------------------------------------------------------------- masks
def _frame_masks(masks: FrameMasks | None, clip: Clip, size: tuple[int, int] | None) -> list[FrameMask] | None:
    if masks is None:
        return None
    if len(masks) != len(clip):
        raise DataError(f"{len(masks)} masks for {len(clip)} frames")
    found: list[FrameMask] = []
    for frame, mask in enumerate(masks):
        if mask is None:
            continue
        if mask is ABSENT:
            size = size or _mask_size([masks])
            if size is None:
                raise MissingDataError(
                    "no object of the expression is in any frame, and without frames the size of the empty masks is "
                    "not known"
                )
            mask = rle_masks.empty(*size)
        time = None if clip.times is None else clip.times[frame]
        found.append({"frame": frame, "time": time, "rle": mask})
    sizes = {tuple(mask["rle"]["size"]) for mask in found}
    if len(sizes) > 1:
        raise MaskError(f"masks of one object differ in size: {sorted(sizes)}")
    return found


def _region(source: MaskSource, clip: Clip) -> list[FrameMask]:
    """Like an object's masks, but only of the frames in which there is something."""
    masks = [None if mask is ABSENT else mask for mask in source.read(clip) or []]
    return _frame_masks(masks, clip, None) if masks else []


def _mask_size(masklets: Iterable[FrameMasks]) -> tuple[int, int] | None:
    """The size of the first mask that has one."""
    for masks in masklets:
        for mask in masks:
            if mask is not None and mask is not ABSENT:
                return tuple(mask["size"])
    return None


def _size_of(objects: list[dict[str, Any]] | None) -> tuple[int, int] | None:
    return next((tuple(m["rle"]["size"]) for item in objects or [] for m in item["masks"] or []), None)


def _text(value: Any, what: str, *, needed: bool = False) -> str | None:
    if value is None and not needed:
        return None
    if not isinstance(value, str) or (needed and not value.strip()):
        raise DataError(f"{what} must be text, got {value!r}")
    return value.strip()


# ------------------------------------------------------------------------------------------ places
def homes(root: Path, *names: str) -> list[Path]:
    """Folders in which a corpus may lie: ``root`` itself, or one of ``names`` in it or in the ``data`` folder in it."""
    places = [root, *(base / name for base in (root, root / "data") for name in names)]
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def nothing_found(root: Path, places: Sequence[Path], wanted: Mapping[str, Sequence[str]]) -> MissingDataError:
    """The error for a folder that holds no known layout.

    Args:
        root: What the caller gave.
        places: The folders that were looked into.
        wanted: Whose layout -> the files that would tell it.
    """
    looked = "; ".join(f"{layout}: {' or '.join(files)}" for layout, files in wanted.items())
    return MissingDataError(
        f"no annotation files found; looked for {looked}; in {', '.join(map(str, places)) or 'no folder'}", file=root
    )


def media_root(candidates: Iterable[Path], video_ids: Iterable[str], what: str) -> Path | None:
    """The first folder that holds frames of any of the videos; ``None``, with a warning, if the data has no frames."""
    candidates = list(dict.fromkeys(candidates))
    tops = {video_id.split("/")[0] for video_id in video_ids} - {"", ".", ".."}
    for folder in candidates:
        if folder.is_dir() and any((folder / top).is_dir() for top in tops):
            return folder
    logger.warning(
        "%s comes without frames (none of its videos is in %s): rows name them and say folder=None",
        what, " or ".join(map(str, candidates)),
    )  # fmt: skip
    return None
