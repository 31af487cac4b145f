"""GroundMoRe: questions about motion, answered in words and masks (Deng et al., CVPR 2025).

Layouts: the authors' ``trainval.json`` and ``test_v2.json`` (or ``{train,val,test}_meta.json`` of the first version)
with clips in ``groundmore_v2/``, ``groundmore_videos/`` or directly beside them; UniPixel-SFT-1M's
``{trainval,test}_v2.json`` with clips in ``annotations/``. In both a clip is ``<video>/images/*.jpg`` and
``<video>/masks/*.png``, label maps named as the images are.

Splits: ``train`` (the authors' "trainval"), ``test``; of the first version also ``val``.

- A clip's id ends in ``_MMSS_MMSS``, its start and end in the source video; clips have 6 frames per second. Frames are
  in the order of the numbers in their names, and frame number *n* is at *n* / 6 s.
- The times of an action are clock times in the source video. ``metadata["action"]`` is the same in seconds from the
  clip's start; ``metadata["action_frames"]`` the first and last frame number that the authors' evaluator counts as
  inside, ``6 start`` and ``6 end - 1``.
- A frame without a label map has no mask in the row. The evaluator takes it, and every frame outside the action, as
  empty; UniPixel trains on the frames that have a map. :func:`evaluation_targets` applies the former.
- ``obj_id`` may name several objects ("1, 2"); the authors' evaluator then fails, UniPixel unites them.

The benchmark is J&F over 20 frames spread over the clip, by ``metadata["q_type"]`` and over all
(``evaluate_groundmore.py``; it lists the frames unsorted, which is repaired here): :func:`evaluation_targets`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evqa import masks as rle_masks
from evqa._files import child
from evqa.corpora.base import cache_folder
from evqa.corpora.expressions import read_json_strictly
from evqa.corpora.masklets import VOID, LabelMaps
from evqa.corpora.media import find_folder, media_stamp, tree_stamp
from evqa.corpora.memory import remembered
from evqa.corpora.segmentation import (
    UNIPIXEL,
    Clip,
    Expression,
    SegmentationCorpus,
    Track,
    file_names,
    homes,
    media_root,
    nothing_found,
)
from evqa.errors import DataError, MissingDataError
from evqa.types import Rle

__all__ = ["BUILDER", "GroundMoRe", "evaluation_targets"]

logger = logging.getLogger(__name__)

FPS = 6.0
EVALUATED_FRAMES = 20

#: Split -> the names of its file, the second version's first.
_FILES = {
    "train": ("trainval_v2.json", "trainval.json", "train_meta.json"),
    "val": ("val_meta.json",),
    "test": ("test_v2.json", "test_meta.json", "groundmore_test.json"),
}
_MEDIA = ("annotations", "groundmore_v2", "groundmore_videos", "groundmore_v1", ".")
_CLOCK = re.compile(r"(\d{2})(\d{2})_(\d{2})(\d{2})$")
_NUMBER = re.compile(r"\D*(\d+)")


class GroundMoRe(SegmentationCorpus):
    """Questions about motion, with the objects that answer them."""

    corpus = "groundmore"
    homepage = "https://github.com/dengandong/GroundMoRe"

    def annotation_files(self, root: Path) -> list[Path]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.annotation_files`."""
        places = homes(root, "groundmore", "GroundMoRe")
        for home in places:
            found = [next((home / n for n in names if (home / n).is_file()), None) for names in _FILES.values()]
            if any(found):
                return [file for file in found if file is not None]
        wanted = {UNIPIXEL: [_FILES["train"][0], _FILES["test"][0]], "the authors": [_FILES["train"][1]]}
        raise nothing_found(root, places, wanted)

    def extra_stamp(self, root: Path, files: Sequence[Path]) -> str:
        """See :meth:`evqa.corpora.base.CorpusBuilder.extra_stamp`."""
        home = files[0].parent
        return media_stamp([home], _MEDIA) + "".join(tree_stamp(home / name, depth=2) for name in _MEDIA)

    def list_rows(self, root: Path, files: Sequence[Path]) -> Mapping[str, list[_Row]]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.list_rows`."""
        home = files[0].parent
        unpacked = find_folder([home], _MEDIA[:-1], cache_folder(self.corpus))
        splits: dict[str, list[_Row]] = {}
        for file in files:
            videos = read_json_strictly(file).get("videos")
            if not isinstance(videos, dict):
                raise DataError('there is no "videos" object in it', file=file)
            places = [*([unpacked] if unpacked else []), *(home / name for name in _MEDIA)]
            rows: list[_Row] = []
            split = next(name for name, names in _FILES.items() if file.name in names)
            clips = media_root(places, videos, f"{self.corpus} {split}")
            if clips is None:
                logger.warning("%s: %s is left out: nothing but the clips' folders lists their frames", file, split)
                continue
            for video_id, record in videos.items():
                questions = record.get("questions") if isinstance(record, dict) else None
                if not isinstance(questions, dict):
                    raise DataError(f'the video {video_id!r} has no "questions" object', file=file)
                rows += [_Row(file, clips, video_id, key, item) for key, item in questions.items()]
            splits[split] = rows
        if not splits:
            raise MissingDataError(
                "the clips are not here, and nothing but their folders lists their frames", file=home
            )
        return splits

    def expression(self, row: _Row) -> Expression:
        """See :meth:`evqa.corpora.segmentation.SegmentationCorpus.expression`."""
        return row.read()


@dataclasses.dataclass(slots=True)
class _Row:
    """One question, not yet read."""

    file: Path
    clips: Path
    video_id: str
    key: str
    item: Any

    @property
    def entry(self) -> str:
        return f"{self.video_id}/{self.key}"

    def read(self) -> Expression:
        if not isinstance(self.item, dict):
            raise DataError(f"the question is a {type(self.item).__name__}, not an object", file=self.file)
        if self.clips is None:
            raise MissingDataError(
                "its frames are listed nowhere but in their folder, which is not here", file=self.file
            )
        images, maps = _listing(child(self.clips, self.video_id))
        times = [number / FPS for number, _ in images]
        names = [name for _, name in images]
        clip = Clip(self.video_id, names, self.file, self.clips, times=times, inside="images")
        folder = child(self.clips, self.video_id, "masks")
        of_frames = tuple(f"{stem}.png" if (stem := Path(name).stem) in maps else None for name in names)
        objects = [Track(str(number), LabelMaps(folder, of_frames, number)) for number in self._objects()]
        question = self.item.get("question")
        if isinstance(question, str) and question.strip() and not question.strip().endswith("?"):
            question = question.strip() + "?"
        void = () if any(track.object_id == str(VOID) for track in objects) else (VOID,)
        return Expression(
            clip, self.key, question, "question", self.item.get("answer"), objects,
            regions=[("void", LabelMaps(folder, of_frames, label)) for label in void],
            metadata={**{k: v for k, v in self.item.items() if k not in ("question", "answer")}, **self._action()},
        )  # fmt: skip

    def _objects(self) -> list[int]:
        value = self.item.get("obj_id")
        parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else [str(value)]
        if isinstance(value, bool) or not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
            raise DataError(f"obj_id must be one or more different numbers, got {value!r}", file=self.file)
        return [int(part) for part in parts]

    def _action(self) -> dict[str, Any]:
        """The clip's and the action's times, in seconds."""
        clock = _CLOCK.search(self.video_id)
        if clock is None:
            raise DataError("the clip's id does not end in its times, _MMSS_MMSS", file=self.file)
        minutes_and_seconds = [int(part) for part in clock.groups()]
        start = minutes_and_seconds[0] * 60 + minutes_and_seconds[1]
        end = minutes_and_seconds[2] * 60 + minutes_and_seconds[3]
        action = [_seconds(self.item.get(name), name, self.file) - start for name in ("action_start", "action_end")]
        return {
            "clip_start": start,
            "clip_end": end,
            "action": action,
            "action_frames": [int(action[0] * FPS), int(action[1] * FPS) - 1],
        }


def _seconds(value: Any, field: str, file: Path) -> int:
    """``m:ss`` or ``h:mm:ss``."""
    parts = value.split(":") if isinstance(value, str) else []
    if not 1 <= len(parts) <= 3 or not all(part.strip().isdecimal() for part in parts):
        raise DataError(f"{field} must be a clock time, m:ss or h:mm:ss, got {value!r}", file=file)
    return sum(int(part) * 60**place for place, part in enumerate(reversed(parts)))


@remembered(4)
def _listing(folder: Path) -> tuple[list[tuple[int, str]], frozenset[str]]:
    """Number and name of each image, in the order of the numbers; names without suffix of the label maps."""
    images = []
    for name in file_names(folder / "images"):
        if name.lower().endswith((".jpg", ".jpeg")):
            number = _NUMBER.match(name)
            if number is None:
                raise DataError(f"the image {name!r} has no number in its name", file=folder)
            images.append((int(number[1]), name))
    if not images:
        raise MissingDataError('the clip has no images; on_error="skip" leaves such rows out', file=folder / "images")
    images.sort()
    if len({number for number, _ in images}) < len(images):
        raise DataError("two images of the clip have one number", file=folder / "images")
    maps = frozenset(Path(name).stem for name in file_names(folder / "masks") if name.endswith(".png"))
    if strangers := maps - {Path(name).stem for _, name in images}:
        raise DataError(f"the label map {min(strangers)!r} has no image of its name", file=folder / "masks")
    return images, maps


def evaluation_targets(row: Mapping[str, Any]) -> list[tuple[int, Rle | None]]:
    """The frames and masks that the benchmark scores a row of ``test`` by.

    Args:
        row: A :class:`evqa.types.SegmentationRow` of this corpus.

    Returns:
        20 pairs of a place in the row's frames and the union of the objects there; ``None``: empty, because there is
        no label map or the frame is outside the action. Places repeat where the clip has fewer frames.

    Raises:
        DataError: The row has no masks.
    """
    if row["objects"] is None or any(item["masks"] is None for item in row["objects"]):
        raise DataError("the row has no masks", entry=row["entry_id"])
    first, last = json.loads(row["metadata"])["action_frames"]
    by_frame: dict[int, list[Rle]] = {}
    for item in row["objects"]:
        for mask in item["masks"]:
            by_frame.setdefault(mask["frame"], []).append(mask["rle"])
    places = np.linspace(0, row["num_frames"] - 1, num=EVALUATED_FRAMES, dtype=int).tolist()
    numbers = [round(row["frames"]["times"][place] * FPS) for place in places]
    return [
        (place, rle_masks.union(by_frame.get(place, [])) if first <= number <= last else None)
        for place, number in zip(places, numbers, strict=True)
    ]


BUILDER = GroundMoRe
