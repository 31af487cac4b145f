"""LV-VIS: instances of 1,196 categories (Wang et al., ICCV 2023); the expression is a category's name.

Layouts:

- the authors': ``{train,val}_instances.json`` in the form of YouTube-VIS 2019 (videos, annotations, categories), at the
  top, in the split's folder or in ``Annotations/``; frames in ``{train,val}/JPEGImages/`` or ``JPEGImages/<split>/``;
- VISA's: ``train/{meta_expressions,mask_dict}.json``, one expression per category in a video, made from the authors'
  annotations for training with text; UniPixel-SFT-1M's: both files at the top, frames in ``train/JPEGImages/``.

Splits: ``train`` and ``val``. The masks of ``test`` are not published, nor is any text, so it has no rows;
``image_val_instances.json`` (for single images) is not read. Where ``train`` is there in both forms, the one with
expressions is read. From the authors' form, a row is one category in one video, its objects are all instances of it.

Underscores of a category's name become spaces in the expression; the name as it stands is ``metadata["category"]``.
**The training set is not exhaustively annotated** (the authors' README): an object without a mask may be in the clip.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evqa.corpora.base import Terms, cache_folder
from evqa.corpora.expressions import Video, expressions_of, masks_by_annotation, read_videos
from evqa.corpora.json_index import Span, index_elements, index_members, read_span
from evqa.corpora.masklets import JsonMasks, MaskDict
from evqa.corpora.media import find_folder, media_stamp
from evqa.corpora.segmentation import (
    UNIPIXEL,
    Clip,
    Expression,
    SegmentationCorpus,
    Track,
    homes,
    media_root,
    nothing_found,
)
from evqa.errors import DataError

__all__ = ["BUILDER", "LvVis"]

logger = logging.getLogger(__name__)

_TEXT, _MASKS = "meta_expressions.json", "mask_dict.json"
_SPLITS = ("train", "val")


class LvVis(SegmentationCorpus):
    """All instances of a named category, from a large vocabulary."""

    corpus = "lv_vis"
    homepage = "https://github.com/haochenheheda/LVVIS"
    licence = Terms(
        "CC BY-NC-SA 4.0", "annotations", "The annotations may be shared alike for research; the clips are others'."
    )

    def annotation_files(self, root: Path) -> list[Path]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.annotation_files`."""
        places = homes(root, "lvvis", "LVVIS", "lv_vis", "LV-VIS")
        for home in places:
            text = next((p for p in (home / "train" / _TEXT, home / _TEXT) if p.is_file()), None)
            found = [] if text is None else [p for p in (text, text.with_name(_MASKS)) if p.is_file()]
            for split in _SPLITS:
                name = f"{split}_instances.json"
                folders = (home, home / split, home / "Annotations", home / "annotations")
                instances = next((folder / name for folder in folders if (folder / name).is_file()), None)
                if instances is not None and not (split == "train" and text is not None):
                    found.append(instances)
            if found:
                return found
        wanted = {
            "the authors": [f"{split}_instances.json" for split in _SPLITS],
            "VISA": [f"train/{_TEXT}"],
            UNIPIXEL: [_TEXT],
        }
        raise nothing_found(root, places, wanted)

    def extra_stamp(self, root: Path, files: Sequence[Path]) -> str:
        """See :meth:`evqa.corpora.base.CorpusBuilder.extra_stamp`."""
        return "\n".join(media_stamp(*_frames(file, split)) for file in files for split in _SPLITS)

    def list_rows(self, root: Path, files: Sequence[Path]) -> Mapping[str, list[Expression]]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.list_rows`."""
        cache = cache_folder(self.corpus)
        splits: dict[str, list[Expression]] = {}
        for file in files:
            if file.name == _TEXT:
                masks = MaskDict(file.with_name(_MASKS), cache) if file.with_name(_MASKS) in files else None
                if masks is None:
                    logger.warning("%s has no %s beside it: objects have masks=None", file, _MASKS)
                videos = read_videos(file)
                splits["train"] = list(
                    expressions_of(
                        videos, file, _root(file, "train", [video.video_id for video in videos]),
                        tracks=masks_by_annotation(masks, needed=masks is not None),
                        metadata=lambda video, _, record: {"category": record.get("exp")},
                        change=_with_spaces,
                    )
                )  # fmt: skip
            elif file.name != _MASKS:
                split = file.name.partition("_")[0]
                splits[split] = list(_instances(file, split))
        return splits


def _with_spaces(row: Expression, _: Video | None = None) -> None:
    if isinstance(row.text, str):
        row.text = row.text.replace("_", " ")


def _frames(file: Path, split: str) -> tuple[list[Path], tuple[str, ...]]:
    """Folders, and names in them, where the frames may be."""
    return [file.parent, file.parent.parent], (f"{split}/JPEGImages", f"JPEGImages/{split}", "JPEGImages")


def _root(file: Path, split: str, video_ids: Sequence[str]) -> Path | None:
    roots, names = _frames(file, split)
    unpacked = find_folder(roots, names, cache_folder(LvVis.corpus))
    candidates = [root / name for root in roots for name in names]
    return media_root([*([unpacked] if unpacked else []), *candidates], video_ids, f"lv_vis {split}")


# ------------------------------------------------------------------------- YouTube-VIS instances
@dataclasses.dataclass(frozen=True)
class _Instance:
    object_id: str
    source: JsonMasks


def _instances(file: Path, split: str) -> Iterator[Expression]:
    """One row for each category in a video."""
    parts = index_members(file)
    if lacking := [name for name in ("videos", "annotations", "categories") if name not in parts]:
        raise DataError(f"the file has no {lacking[0]!r}", file=file)
    names = {item.get("id"): item.get("name") for item in _records(file, parts["categories"])}
    videos = {item.get("id"): item for item in _records(file, parts["videos"])}
    found: dict[tuple[Any, Any], list[_Instance]] = {}
    # One at a time: the masks of all of them are not needed now, and are large.
    for start, end in index_elements(file, parts["annotations"]).tolist():
        span = Span(start, end)
        item = read_span(file, span)
        if not isinstance(item, dict):
            raise DataError(f"an annotation is a {type(item).__name__}, not an object", file=file)
        if item.get("video_id") not in videos or item.get("category_id") not in names:
            raise DataError(f"annotation {item.get('id')!r} is of a video or category that is not listed", file=file)
        object_id = str(item.get("id"))
        masks = JsonMasks(file, span, object_id, file, "segmentations")
        found.setdefault((item["video_id"], item["category_id"]), []).append(_Instance(object_id, masks))
    folders = {number: _folder(item, file) for number, item in videos.items()}
    root = _root(file, split, list(folders.values()))
    clips = {number: _clip(item, folders[number], file, root) for number, item in videos.items()}
    for (video, category), instances in found.items():
        clip, fault = clips[video]
        row = Expression(
            clip, str(category), names[category], "query", fault=fault,
            objects=[Track(item.object_id, item.source) for item in instances],
            metadata={"category": names[category], "category_id": category, "vid_id": video},
        )  # fmt: skip
        _with_spaces(row)
        yield row


def _records(file: Path, span: Span) -> list[dict[str, Any]]:
    value = read_span(file, span)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError("videos and categories must be lists of objects", file=file)
    return value


def _folder(item: Mapping[str, Any], file: Path) -> str:
    """``00000`` of ``00000/00012.jpg``."""
    names = item.get("file_names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"the video {item.get('id')!r} has no file_names", file=file)
    return names[0].rpartition("/")[0]


def _clip(item: Mapping[str, Any], folder: str, file: Path, root: Path | None) -> tuple[Clip, str | None]:
    names = [name.rpartition("/") for name in item["file_names"]]
    fault = None
    if any(parent != folder for parent, _, _ in names):
        fault = "the frames of the video are in more than one folder"
    height, width = item.get("height"), item.get("width")
    known = all(isinstance(side, int) and side > 0 for side in (height, width))
    return Clip(folder, [name for _, _, name in names], file, root, (height, width) if known else None), fault


BUILDER = LvVis
