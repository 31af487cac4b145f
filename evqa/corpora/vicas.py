"""ViCaS: captions with grounded phrases, here its language-guided segmentation (Athar et al., CVPR 2025).

Layouts, all with ``splits/<version>/{train,val,test}.json`` and ``video_frames/<video>/<frame>.jpg``, where a video is
six digits:

- the authors': ``annotations/<version>/<video>.json``, masks inside, by frame and track;
- UniPixel-SFT-1M's: one ``annotations/annotations_wo_masks_<version>.json`` and ``masks/<video>/<referral>.json``,
  ``[frame][object of the referral]``.

Splits: ``train``, ``val``, ``test``. A row is one ``object_referral`` (``expression_id`` is its place), its objects are
the referral's tracks. A track that a frame does not list is not in that frame, as the authors' evaluator reads it.
Frames were decoded at 30 per second and are named after their number (``videos_to_frames.sh``).

``metadata["is_gt"]`` lists the row's frames whose masks were drawn by people, one a second; the others are SAM 2's. The
authors evaluate on those frames alone: track mAP over objects kept apart (``vicas/evaluation``). Captions are long and
the same for all rows of a video: ``captions=True`` puts them into ``metadata``.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evqa.corpora.base import CorpusConfig, Terms, cache_folder
from evqa.corpora.json_index import Span, index_members, read_span
from evqa.corpora.masklets import ABSENT, FrameMasks, read_masks
from evqa.corpora.media import find_folder, media_stamp, tree_stamp
from evqa.corpora.memory import remembered
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
from evqa.corpora.tables import read_json
from evqa.errors import DataError, MissingDataError

__all__ = ["BUILDER", "ViCaS", "ViCaSConfig"]

logger = logging.getLogger(__name__)

FPS = 30.0

_SPLITS = ("train", "val", "test")
_CAPTIONS = (
    "caption_raw_en", "caption_parsed_en", "caption_raw_en_gpt", "caption_parsed_en_gpt", "caption_raw_cn",
    "reworded_en_captions",
)  # fmt: skip


@dataclasses.dataclass
class ViCaSConfig(CorpusConfig):
    """Options of ViCaS.

    Attributes:
        release: ``"v1.0"`` or ``"v0.1"``; by default the newest that is there.
        captions: Whether ``metadata`` holds the video's captions.
    """

    release: str | None = None
    captions: bool = False


class ViCaS(SegmentationCorpus):
    """Expressions of one or several objects, in clips of things that go wrong."""

    corpus = "vicas"
    homepage = "https://github.com/Ali2500/ViCaS"
    BUILDER_CONFIG_CLASS = ViCaSConfig
    licence = Terms(
        "CC; not for commercial use (the authors' terms of use)", "annotations",
        "Its authors publish the annotations and, for copyright reasons, not the clips, which are those of Oops.",
    )  # fmt: skip

    def annotation_files(self, root: Path) -> list[Path]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.annotation_files`."""
        places = homes(root, "vicas", "ViCaS")
        for home in places:
            releases = [self.config.release] if self.config.release else ["v1.0", "v0.1"]
            for release in releases:
                one = home / "annotations" / f"annotations_wo_masks_{release}.json"
                many = home / "annotations" / release
                if not one.is_file() and not many.is_dir():
                    continue
                splits = [home / "splits" / release / f"{split}.json" for split in _SPLITS]
                if not any(file.is_file() for file in splits):
                    raise MissingDataError(f"there is none of {', '.join(map(str, splits))}", file=home)
                # The authors' form is read where it is there: it is the source of the other.
                return [file for file in splits if file.is_file()] + ([] if many.is_dir() else [one])
        wanted = {"the authors": ["annotations/v1.0/"], UNIPIXEL: ["annotations/annotations_wo_masks_v1.0.json"]}
        raise nothing_found(root, places, wanted)

    def extra_stamp(self, root: Path, files: Sequence[Path]) -> str:
        """See :meth:`evqa.corpora.base.CorpusBuilder.extra_stamp`."""
        home, release = files[0].parents[2], files[0].parent.name
        trees = tree_stamp(home / "annotations" / release, suffix=".json") + tree_stamp(home / "masks")
        return media_stamp([home], (f"annotations/{release}", "masks", "video_frames")) + trees

    def list_rows(self, root: Path, files: Sequence[Path]) -> Mapping[str, list[_Video]]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.list_rows`."""
        home, release = files[0].parents[2], files[0].parent.name
        cache = cache_folder(self.corpus)
        one = next((file for file in files if file.parent.name == "annotations"), None)
        spans = index_members(one) if one is not None else {}
        masks = find_folder([home], ("masks",), cache) if one is not None else None
        frames = find_folder([home], ("video_frames",), cache) or home / "video_frames"
        splits: dict[str, list[_Video]] = {}
        for file in files:
            if file == one:
                continue
            listed = _read_split(file)
            if one is not None and (lacking := [video for video in listed if video not in spans]):
                raise DataError(f"the video {lacking[0]} of {file.stem} is not in it", file=one)
            here = media_root([frames], listed, f"{self.corpus} {file.stem}")
            # Which splits the repackaged masks cover is for the files to say.
            known = masks if masks and any((masks / video).is_dir() for video in listed) else None
            if one is not None and known is None:
                logger.warning("%s has no masks of %s: objects have masks=None", home / "masks", file.stem)
            splits[file.stem] = [
                _Video(
                    one or home / "annotations" / release / f"{video}.json",
                    spans.get(video), video, here, known, self.config.captions,
                )
                for video in listed
            ]  # fmt: skip
        return splits

    def expand(self, row: _Video) -> list[_Row]:
        """One row per referral; see :meth:`evqa.corpora.base.CorpusBuilder.expand`."""
        try:
            return [_Row(row, number) for number in range(len(_read(row.file, row.span)["object_referrals"]))]
        except DataError as error:
            error.entry = row.video
            raise

    def expression(self, row: _Row) -> Expression:
        """See :meth:`evqa.corpora.segmentation.SegmentationCorpus.expression`."""
        return row.read()


def _read_split(file: Path) -> list[str]:
    numbers = read_json(file, list)
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        raise DataError("a split must be a list of video numbers", file=file)
    if len(set(numbers)) < len(numbers):
        raise DataError("a video stands twice in the split", file=file)
    return [f"{number:06d}" for number in numbers]


@dataclasses.dataclass(frozen=True)
class _Video:
    """Where one video's annotation is."""

    file: Path
    span: Span | None
    video: str
    frames: Path | None
    masks: Path | None
    captions: bool


@remembered(2)
def _read(file: Path, span: Span | None) -> dict[str, Any]:
    """One video's annotation.

    Raises:
        DataError: Missing, damaged, or without the parts that rows are made of.
    """
    value = read_json(file) if span is None else read_span(file, span)
    referrals = value.get("object_referrals") if isinstance(value, dict) else None
    frames = value.get("segmentations") if isinstance(value, dict) else None
    for name, part in (("object_referrals", referrals), ("segmentations", frames)):
        if not isinstance(part, list) or not all(isinstance(item, dict) for item in part):
            raise DataError(f"{name} must be a list of objects", file=file)
    names = [item.get("filename") for item in frames]
    if not all(isinstance(name, str) and name.partition(".")[0].isdecimal() for name in names) or names != sorted(
        names
    ):
        raise DataError("segmentations must name their frames, numbers in order", file=file)
    return value


@dataclasses.dataclass(slots=True)
class _Row:
    """One referral, not yet read."""

    video: _Video
    number: int

    @property
    def entry(self) -> str:
        return f"{self.video.video}/{self.number}"

    @property
    def file(self) -> Path:
        return self.video.file

    def read(self) -> Expression:
        place = self.video
        value = _read(place.file, place.span)
        referral = value["object_referrals"][self.number]
        tracks = referral.get("track_ids")
        if not isinstance(tracks, list) or not all(isinstance(track, int) for track in tracks):
            raise DataError(f"track_ids must be a list of numbers, got {tracks!r}", file=place.file)
        names = [item["filename"] for item in value["segmentations"]]
        size = value.get("image_size")
        size = tuple(size) if isinstance(size, list) and [type(side) for side in size] == [int, int] else None
        times = [int(name.partition(".")[0]) / FPS for name in names]
        clip = Clip(place.video, names, place.file, place.frames, size, times)
        known = ("object_referrals", "segmentations", "image_size", *(() if place.captions else _CAPTIONS))
        metadata = {name: item for name, item in value.items() if name not in known}
        metadata["track_ids"] = tracks
        metadata["is_gt"] = [frame for frame, item in enumerate(value["segmentations"]) if item.get("is_gt") is True]
        return Expression(
            clip, str(self.number), referral.get("prompt"), "sentence",
            objects=[Track(str(track), self._source(track, column)) for column, track in enumerate(tracks)],
            metadata=metadata,
        )  # fmt: skip

    def _source(self, track: int, column: int) -> Any:
        place = self.video
        if place.span is None:
            return _VideoMasks(place.file, track)
        return place.masks and _ReferralMasks(place.masks / place.video / f"{self.number}.json", column)


@dataclasses.dataclass(frozen=True)
class _VideoMasks:
    """One track of the authors' form; see :class:`evqa.corpora.masklets.MaskSource`."""

    file: Path
    track: int

    def read(self, clip: Clip) -> FrameMasks:
        values = []
        for item in _read(self.file, None)["segmentations"]:
            tracks, rles = item.get("track_ids"), item.get("mask_rles")
            if not isinstance(tracks, list) or not isinstance(rles, list) or len(tracks) != len(rles):
                raise DataError(f"frame {item['filename']} has no mask_rles parallel to its track_ids", file=self.file)
            values.append(rles[tracks.index(self.track)] if self.track in tracks else None)
        return read_masks(values, clip.size, f"track {self.track}", self.file)


@dataclasses.dataclass(frozen=True)
class _ReferralMasks:
    """One object of a referral's own file; see :class:`evqa.corpora.masklets.MaskSource`."""

    file: Path
    column: int

    def read(self, clip: Clip) -> FrameMasks:
        frames = _read_referral(self.file)
        if len(frames) != len(clip):
            raise DataError(f"{len(frames)} frames of masks for a video of {len(clip)}", file=self.file)
        if any(not isinstance(frame, list) or len(frame) <= self.column for frame in frames if frame is not None):
            raise DataError(f"a frame has no mask of object {self.column} of the referral", file=self.file)
        values = [frame[self.column] if frame is not None else None for frame in frames]
        return [
            m if m is not None else ABSENT for m in read_masks(values, clip.size, f"object {self.column}", self.file)
        ]


@remembered(2)
def _read_referral(file: Path) -> list[Any]:
    if not file.is_file():
        raise MissingDataError("the masks of the referral are missing", file=file)
    return read_json(file, list)


BUILDER = ViCaS
