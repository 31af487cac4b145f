"""Ref-YouTube-VOS: expressions of one object each (Seo et al., ECCV 2020).

Layouts, all with ``meta_expressions/{train,valid,test}/meta_expressions.json`` and ``<split>/JPEGImages/``:

- the authors': masks of ``train`` as label maps, ``train/Annotations/<video>/<frame>.png``, and ``train/meta.json``;
- VISA's: masks of ``train`` in ``train/mask_dict.pkl``; UniPixel-SFT-1M's: in ``mask_dict.pkl`` at the top. The pickle
  is counted as :mod:`evqa.corpora.numbered` explains.

Where both forms are there the label maps, the authors' own, are read.

Splits: ``train``, ``valid``, ``test``. The masks of ``valid`` and ``test`` are with the evaluation server: ``objects``
is null. The published file of ``valid`` lists 507 videos, of which 202 are ``valid`` and the others ``test``: the
videos of the file of ``test`` are left out or, without that file, those without a folder in ``valid/JPEGImages``.
Frames need not start at 0 nor be evenly apart. J&F is computed by the server on the mask of the one object.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evqa._files import child
from evqa.corpora.base import CorpusConfig, Terms, cache_folder
from evqa.corpora.expressions import Video, expressions_of, read_json_strictly, read_videos
from evqa.corpora.masklets import VOID, LabelMaps, MaskDict
from evqa.corpora.media import find_folder, media_stamp, tree_stamp
from evqa.corpora.numbered import masks_by_number, object_id
from evqa.corpora.segmentation import UNIPIXEL, Expression, SegmentationCorpus, Track, homes, media_root, nothing_found
from evqa.errors import DataError

__all__ = ["BUILDER", "RefYouTubeVos", "RefYouTubeVosConfig", "label_map_tracks", "with_void"]

logger = logging.getLogger(__name__)

_SPLITS = ("train", "valid", "test")
_PICKLE = "mask_dict.pkl"


@dataclasses.dataclass
class RefYouTubeVosConfig(CorpusConfig):
    """Options of corpora with numbered masks.

    Attributes:
        mask_order: How the pickle counts expressions; see :data:`evqa.corpora.numbered.ORDERS`.
    """

    mask_order: str = "text"


class RefYouTubeVos(SegmentationCorpus):
    """Expressions of one object each, in clips of YouTube-VOS."""

    corpus = "ref_youtube_vos"
    homepage = "https://youtube-vos.org/dataset/rvos/"
    BUILDER_CONFIG_CLASS = RefYouTubeVosConfig
    official = {"train": [{"videos": 3471, "rows": 12913}], "valid": [{"videos": 202}], "test": [{"videos": 305}]}
    licence = Terms("CC BY 4.0 (annotations)", "annotations", "The clips belong to those who put them on YouTube.")

    def annotation_files(self, root: Path) -> list[Path]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.annotation_files`."""
        places = homes(root, "ref_youtube_vos", "ref-youtube-vos", "Ref-YouTube-VOS", "Ref-Youtube-VOS", "rvos")
        for home in places:
            texts = [_text(home, split) for split in _SPLITS]
            if any(text.is_file() for text in texts):
                more = [home / "train" / "meta.json", home / "train" / _PICKLE, home / _PICKLE]
                return [file for file in [*texts, *more] if file.is_file()]
        wanted = [f"meta_expressions/{split}/meta_expressions.json" for split in _SPLITS]
        raise nothing_found(root, places, {f"the authors, VISA, {UNIPIXEL}": wanted})

    def extra_stamp(self, root: Path, files: Sequence[Path]) -> str:
        """See :meth:`evqa.corpora.base.CorpusBuilder.extra_stamp`."""
        home = _home(files)
        maps = tree_stamp(home / "train" / "Annotations")
        return maps + media_stamp([home / split for split in _SPLITS], ("JPEGImages", "Annotations"))

    def list_rows(self, root: Path, files: Sequence[Path]) -> Mapping[str, list[Expression]]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.list_rows`."""
        home, cache = _home(files), cache_folder(self.corpus)
        texts = {split: _text(home, split) for split in _SPLITS if _text(home, split) in files}
        splits: dict[str, list[Expression]] = {}
        for split, file in texts.items():
            videos = read_videos(file)
            frames = find_folder([home / split], ("JPEGImages",), cache) or home / split / "JPEGImages"
            if split == "valid":
                videos = _only_valid(videos, texts.get("test"), frames)
            tracks: Callable[..., list[Track] | None] = _not_published
            more, change = _nothing_more, None
            if split == "train":
                maps = find_folder([home / split], ("Annotations",), cache)
                pickled = next((path for path in (home / split / _PICKLE, home / _PICKLE) if path in files), None)
                if maps is not None:
                    tracks, change = label_map_tracks(maps), with_void(maps)
                elif pickled is not None:
                    tracks = masks_by_number(MaskDict(pickled, cache), videos, self.config.mask_order)
                else:
                    logger.warning("%s has neither Annotations nor %s: objects have masks=None", home / split, _PICKLE)
                    tracks = _without_masks
                more = _categories(home / "train" / "meta.json", files)
            root_of_frames = media_root([frames], (video.video_id for video in videos), f"{self.corpus} {split}")
            splits[split] = list(
                expressions_of(videos, file, root_of_frames, tracks=tracks, metadata=more, change=change)
            )
        return splits


def _text(home: Path, split: str) -> Path:
    return home / "meta_expressions" / split / "meta_expressions.json"


def _home(files: Sequence[Path]) -> Path:
    return files[0].parents[2]


def _only_valid(videos: list[Video], test: Path | None, frames: Path) -> list[Video]:
    if test is not None:
        others = {video.video_id for video in read_videos(test)}
        return [video for video in videos if video.video_id not in others]
    if frames.is_dir():
        here = [video for video in videos if (frames / video.video_id).is_dir()]
        if here:
            logger.info("%d of %d videos of the file of valid have frames in %s", len(here), len(videos), frames)
            return here
    logger.warning(
        "the file of valid lists the videos of test too; without meta_expressions/test and without valid/JPEGImages "
        "they cannot be told apart, so all %d are kept", len(videos),
    )  # fmt: skip
    return videos


def _not_published(*_: Any) -> None:
    return None


def _without_masks(_: Video, __: str, record: dict[str, Any]) -> list[Track]:
    return [Track(object_id(record), None)]


def _nothing_more(*_: Any) -> dict[str, Any]:
    return {}


def label_map_tracks(maps: Path) -> Callable[[Video, str, dict[str, Any]], list[Track]]:
    """For :func:`evqa.corpora.expressions.expressions_of`: the one object of an expression, masks in label maps."""

    def tracks(video: Video, _: str, record: dict[str, Any]) -> list[Track]:
        name = object_id(record)
        if not name.isdecimal():
            raise DataError(f"obj_id must be a number, which label maps hold, got {name!r}")
        return [Track(name, _maps(maps, video, int(name)))]

    return tracks


def with_void(maps: Path) -> Callable[[Expression, Video], None]:
    """For :func:`evqa.corpora.expressions.expressions_of`: the region of pixels that nobody labelled."""

    def change(row: Expression, video: Video) -> None:
        if row.fault is None and all(track.object_id != str(VOID) for track in row.objects or ()):
            row.regions = (("void", _maps(maps, video, VOID)),)

    return change


def _maps(maps: Path, video: Video, label: int) -> LabelMaps:
    return LabelMaps(child(maps, video.video_id), tuple(f"{frame}.png" for frame in video.frames), label)


def _categories(file: Path, files: Sequence[Path]) -> Callable[..., Mapping[str, Any]]:
    """The category of an expression's object, which ``meta.json`` of the authors says."""
    if file not in files:
        return _nothing_more
    videos = read_json_strictly(file).get("videos")
    if not isinstance(videos, dict):
        raise DataError('there is no "videos" object in it', file=file)

    def more(video: Video, _: str, record: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"category": videos[video.video_id]["objects"][object_id(record)]["category"]}
        except (KeyError, TypeError):
            raise DataError(f"{file} does not list the object") from None

    return more


BUILDER = RefYouTubeVos
