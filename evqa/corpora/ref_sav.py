"""Ref-SAV: descriptions of objects of SA-V (Yuan et al., Sa2VA, 2025; videos and masks: Ravi et al., SAM 2, 2024).

Layouts:

- ``train``: one JSON file, ``Ref-SAV.json`` of the authors or the filtered ``Ref-SAV-Min-Ratio-0.3.json`` of
  UniPixel-SFT-1M, that names for each video its file and its SA-V annotation. SA-V itself is looked for beside it: the
  published path below the file's folder or the folder above, with and without its first part (UniPixel puts ``sav/`` in
  its place), or below ``sav_dir``;
- ``valid``: ``meta_expressions_valid.json`` and ``mask_dict.json`` (as MeViS) in ``valid/``, ``ref_sav_eval/`` or the
  corpus' folder; videos in ``videos/<first 7 letters>/<video>.mp4`` beside them, or in SA-V's ``sav_train``.

Rows are decoded from videos. SA-V annotates every fourth frame of its 24 fps videos: a row's frame *t* is frame 4 *t*
of the video (``stride`` 4), at 6 per second. In ``valid`` a frame's name is its number in the video. An object is the
*k*-th of each frame's list of masks; SA-V writes a mask without foreground where the object is not there, so every
frame is annotated. The benchmark computes J&F over all frames of a row.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evqa.corpora.base import CorpusConfig, Terms, cache_folder
from evqa.corpora.expressions import Video, expressions_of, masks_by_annotation, read_json_strictly, read_videos
from evqa.corpora.masklets import FrameMasks, MaskDict, read_masks
from evqa.corpora.media import media_stamp, relative, tree_stamp
from evqa.corpora.memory import remembered
from evqa.corpora.segmentation import (
    UNIPIXEL,
    Clip,
    Expression,
    SegmentationCorpus,
    Track,
    homes,
    nothing_found,
)
from evqa.corpora.tables import read_json
from evqa.errors import DataError, MissingDataError

__all__ = ["BUILDER", "RefSav", "RefSavConfig", "SavMasklet"]

logger = logging.getLogger(__name__)

STRIDE = 4
FPS = 24.0

_TRAIN = ("Ref-SAV.json", "Ref-SAV-Min-Ratio-0.3.json")
_TEXT, _MASKS = "meta_expressions_valid.json", "mask_dict.json"


@dataclasses.dataclass
class RefSavConfig(CorpusConfig):
    """Options of Ref-SAV.

    Attributes:
        sav_dir: Where SA-V is (the folder with ``sav_train``), if it is not beside the annotation file.
        train_file: Name of the annotation file of ``train``, where there are several.
    """

    sav_dir: str | None = None
    train_file: str | None = None


class RefSav(SegmentationCorpus):
    """Long descriptions of single objects, in videos of SA-V."""

    corpus = "ref_sav"
    homepage = "https://huggingface.co/datasets/Dense-World/Sa2VA-Training"
    BUILDER_CONFIG_CLASS = RefSavConfig
    licence = Terms(
        "SA-V: CC BY 4.0; descriptions: not stated", "nothing",
        "The descriptions' authors (Sa2VA) state no licence for them, so the right to pass them on is theirs.",
    )  # fmt: skip

    def annotation_files(self, root: Path) -> list[Path]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.annotation_files`."""
        places = homes(root, "ref_sav", "video_datas", "ref_sav_eval")
        asked = self.config.train_file
        train = [home / name for home in places for name in ([asked] if asked else _TRAIN) if (home / name).is_file()]
        if len(train) > 1:
            names = " and ".join(map(str, train))
            raise DataError(f"there are {names}; say which with train_file=", file=root)
        inner = [place for home in places for place in (home, home / "valid", home / "ref_sav_eval")]
        valid = [place / _TEXT for place in dict.fromkeys(inner) if (place / _TEXT).is_file()][:1]
        found = [*train, *valid, *(file.with_name(_MASKS) for file in valid if file.with_name(_MASKS).is_file())]
        if found:
            return found
        wanted = {"train of the authors": [asked or _TRAIN[0]], f"train of {UNIPIXEL}": [asked or _TRAIN[1]]}
        raise nothing_found(root, places, {**wanted, "valid": [_TEXT, f"valid/{_TEXT}"]})

    def extra_stamp(self, root: Path, files: Sequence[Path]) -> str:
        """See :meth:`evqa.corpora.base.CorpusBuilder.extra_stamp`."""
        places = self._sav_places(files[0])
        trees = "".join(tree_stamp(place / name) for place in places for name in ("sav_train", "videos"))
        return media_stamp(places, ("sav_train", "videos")) + trees

    def list_rows(self, root: Path, files: Sequence[Path]) -> Mapping[str, list[Any]]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.list_rows`."""
        splits: dict[str, list[Any]] = {}
        for file in files:
            if file.name == _TEXT:
                splits["valid"] = self._valid(file, files)
            elif file.name != _MASKS:
                splits["train"] = self._train(file)
        return splits

    def expression(self, row: Any) -> Expression:
        """See :meth:`evqa.corpora.segmentation.SegmentationCorpus.expression`."""
        return row if isinstance(row, Expression) else row.read()

    def _sav_places(self, file: Path) -> list[Path]:
        given = [Path(self.config.sav_dir).expanduser().absolute()] if self.config.sav_dir else []
        near = [file.parent, file.parent.parent]
        return [*given, *(place for base in near for place in (base / "sav", base, base / "sam_v_full"))]

    def _train(self, file: Path) -> list[_TrainRow]:
        rows = []
        places = self._sav_places(file)
        here = any((place / "sav_train").is_dir() for place in places)
        if not here:
            raise MissingDataError(
                "the masks of train are those of SA-V, and its sav_train is not here; link it beside the file or pass "
                f"sav_dir=. Looked in {_list(places)}",
                file=file,
            )
        records = read_json_strictly(file)
        for video_id, record in records.items():
            objects = record.get("objects") if isinstance(record, dict) else None
            if not isinstance(objects, dict):
                raise DataError(f'the video {video_id!r} has no "objects" object', file=file)
            paths = (record.get("video_path"), record.get("anno_path"))
            rows += [_TrainRow(file, places, video_id, paths, key, item) for key, item in objects.items()]
        if rows and not any(_is_there(row.paths[0], places) for row in rows):
            _warn_without_videos("train", places)
            rows = [dataclasses.replace(row, videos=False) for row in rows]
        return rows

    def _valid(self, file: Path, files: Sequence[Path]) -> list[Expression]:
        videos = read_videos(file)
        masks = MaskDict(file.with_name(_MASKS), cache_folder(self.corpus)) if file.with_name(_MASKS) in files else None
        if masks is None:
            logger.warning("%s has no %s beside it: objects have masks=None", file, _MASKS)
        places = [file.parent / "videos", *(place / "sav_train" for place in self._sav_places(file))]
        places += [place / "sav_train" for place in self._sav_places(file.parent)]
        clips = [_video_file(places, video.video_id) for video in videos]
        if not any(clips):
            _warn_without_videos("valid", places)
        found = {video.video_id: clip for video, clip in zip(videos, clips, strict=True)}

        def make_clip(video: Video) -> Clip:
            if any(found.values()) and found[video.video_id] is None:
                video.fault = (
                    video.fault or f"the video is not there; looked for {_name(video.video_id)} in {_list(places)}"
                )
            numbers = [int(name) for name in video.frames if name.isdecimal()]
            if len(numbers) != len(video.frames):
                video.fault = video.fault or "the frames are not named after their numbers in the video"
            height, width = video.record.get("height"), video.record.get("width")
            size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
            return Clip(
                video.video_id, [], file, size=size, times=[number / FPS for number in numbers],
                video=found[video.video_id], video_name=f"sav_train/{_name(video.video_id)}", frame_numbers=numbers,
            )  # fmt: skip

        return list(
            expressions_of(
                videos, file, None, kind="description",
                tracks=masks_by_annotation(masks, needed=masks is not None), make_clip=make_clip,
            )
        )  # fmt: skip


def _warn_without_videos(split: str, places: Sequence[Path]) -> None:
    logger.warning("ref_sav %s comes without videos (looked in %s): rows have video=None", split, _list(places))


def _list(places: Sequence[Path]) -> str:
    return ", ".join(map(str, places))


def _name(video_id: str) -> str:
    """``sav_055/sav_055000.mp4``: videos lie in folders of a thousand."""
    return f"{video_id[:7]}/{video_id}.mp4"


def _video_file(places: Sequence[Path], video_id: str) -> Path | None:
    inner = relative(_name(video_id))
    if inner is None:
        return None
    return next((place / inner for place in places if (place / inner).is_file()), None)


# ------------------------------------------------------------------------------------------- train
@dataclasses.dataclass(slots=True)
class _TrainRow:
    """One description of ``train``, not yet read."""

    file: Path
    places: Sequence[Path]
    video_id: str
    paths: tuple[Any, Any]
    key: str
    item: Any
    videos: bool = True

    @property
    def entry(self) -> str:
        return f"{self.video_id}/{self.key}"

    def read(self) -> Expression:
        video = self._need("video_path", self.paths[0]) if self.videos else None
        annotation = self._need("anno_path", self.paths[1])
        facts = _read_sav(annotation)
        item = self.item if isinstance(self.item, dict) else {}
        problem = None
        if not isinstance(self.item, dict) or not self.key.isdecimal():
            problem = "an object of a video must be a record under a number"
        elif item.get("video_id", self.video_id) != self.video_id or str(item.get("obj_id", self.key)) != self.key:
            problem = f"the record says it is object {item.get('obj_id')!r} of {item.get('video_id')!r}"
        elif facts["video_id"] != self.video_id:
            problem = f"{annotation} is the annotation of {facts['video_id']!r}"
        elif int(self.key) >= facts["objects"]:
            problem = f"there is no object {self.key} among the {facts['objects']} of {annotation}"
        numbers = list(range(0, facts["frames"] * STRIDE, STRIDE))
        clip = Clip(
            self.video_id, [], self.file, size=facts["size"], times=[number / facts["fps"] for number in numbers],
            video=video, video_name=self.paths[0], frame_numbers=numbers,
        )  # fmt: skip
        metadata = {name: value for name, value in item.items() if name != "formated"}
        if not problem:
            metadata["sav"] = _of_object(facts["about"], int(self.key), facts["objects"])
            metadata["sav"] |= {"annotation": str(self.paths[1]), "video_duration": facts["duration"]}
        source = None if problem else SavMasklet(annotation, int(self.key))
        return Expression(
            clip, self.key, item.get("formated"), "description", objects=[Track(self.key, source)],
            metadata=metadata, fault=problem,
        )  # fmt: skip

    def _need(self, field: str, published: Any) -> Path:
        found = _find(published, self.places)
        if found is None:
            raise MissingDataError(
                f"{field} {published!r} is not there, also without its first part, in any of {_list(self.places)}"
            )
        return found


def _find(published: Any, places: Sequence[Path]) -> Path | None:
    """A published path, with or without its first part, below one of the places.

    Raises:
        DataError: It is not a path that stays below the place it starts from.
    """
    inner = relative(published) if isinstance(published, str) else None
    if inner is None:
        raise DataError(f"video_path and anno_path must be paths inside the data, got {published!r}")
    tails = [Path(*inner.parts[1:]), inner] if len(inner.parts) > 1 else [inner]
    return next((place / tail for place in places for tail in tails if (place / tail).is_file()), None)


def _is_there(published: Any, places: Sequence[Path]) -> bool:
    try:
        return _find(published, places) is not None
    except DataError:  # reported when the row is read
        return False


@dataclasses.dataclass(frozen=True)
class SavMasklet:
    """One object of an SA-V annotation file.

    Attributes:
        file: ``<video>_manual.json`` or ``<video>_auto.json``.
        number: The object's place in each frame's list.
    """

    file: Path
    number: int

    def read(self, clip: Clip) -> FrameMasks:
        """See :class:`evqa.corpora.masklets.MaskSource`."""
        frames = _read_sav(self.file)["masklet"]
        size = clip.size
        return read_masks([frame[self.number] for frame in frames], size, f"object {self.number}", self.file)


@remembered(2)
def _read_sav(file: Path) -> dict[str, Any]:
    """What rows need of an SA-V annotation.

    Raises:
        DataError: Its parts contradict one another: unequal numbers of objects, or not every fourth frame annotated.
    """
    value = read_json(file)
    masklet = value.get("masklet")
    if not isinstance(masklet, list) or not masklet or not all(isinstance(frame, list) for frame in masklet):
        raise DataError("masklet must be a list of frames, each a list of objects' masks", file=file)
    counts = {len(frame) for frame in masklet}
    if len(counts) > 1:
        raise DataError(f"frames list different numbers of objects: {sorted(counts)}", file=file)
    try:
        # SA-V writes these whole numbers as floats.
        total, height, width = (int(value[f"video_{name}"]) for name in ("frame_count", "height", "width"))
        duration = float(value["video_duration"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"video_frame_count, _height, _width or _duration cannot be read ({error!r})", file=file
        ) from None
    if math.ceil(total / STRIDE) != len(masklet):
        raise DataError(
            f"{len(masklet)} annotated frames for a video of {total}, where every fourth is annotated", file=file
        )
    return {
        "video_id": value.get("video_id"),
        "masklet": masklet,
        "frames": len(masklet),
        "objects": counts.pop(),
        "size": (height, width),
        "duration": duration,
        "fps": total / duration if duration > 0 else FPS,
        "about": {name: item for name, item in value.items() if name.startswith("masklet_") and isinstance(item, list)},
    }


def _of_object(about: Mapping[str, list[Any]], number: int, objects: int) -> dict[str, Any]:
    """SA-V's own figures of one object; the scores of automatic masks are per frame and stay in the file."""
    lists = {name: values for name, values in about.items() if len(values) == objects}
    return {name: values[number] for name, values in lists.items() if not isinstance(values[number], list)}


BUILDER = RefSav
