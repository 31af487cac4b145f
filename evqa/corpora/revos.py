"""ReVOS: referring and reasoning expressions, and expressions of things that are not there (Yan et al., ECCV 2024).

Layouts: the authors' ``ReVOS/`` with ``JPEGImages/<video>/<frame>.jpg``, and UniPixel-SFT-1M's ``revos/`` with the
frames directly in ``<video>/``; in both, ``meta_expressions_{train,valid}_.json``, ``mask_dict.json`` and
``mask_dict_foreground.json`` lie at the top. A video's id may hold a slash: ``<source>/<name>``.

Splits: ``train``, ``valid`` and, where its file is there, ``train_sub``. Metrics (``tools/eval_revos.py`` of VISA):

- ``metadata["type_id"]`` is 0 for referring, 1 for reasoning, 2 for expressions that refer to nothing (``objects`` is
  empty). J, F, per-pixel accuracy and robustness are means over frames, then over rows of type 0 and of type 1;
  "overall" is the mean of the two;
- robustness, ``max(0, 1 - |prediction outside the objects| / |foreground|)`` per frame, is computed for every row and
  needs all objects annotated in the video: the region ``foreground``, which rows of ``valid`` carry. It is as large as
  the masks themselves; ``foreground=False`` leaves it out.

Clips from TAO are long and visible for a part. The authors of UniPixel train on the span from the first to the last
frame in which an object of the expression is visible. Rows hold the whole clip and ``metadata["visible"]``, that span
as ``[first, last]``: a crop here would change the numbers of frames that the metric counts, and one object's span says
nothing about another's. A training recipe crops (:func:`evqa.corpora.reading.read_clip` takes positions).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evqa import masks as rle_masks
from evqa.corpora.base import CorpusConfig, Terms, cache_folder
from evqa.corpora.expressions import Video, expressions_of, masks_by_annotation, read_videos
from evqa.corpora.masklets import MaskDict
from evqa.corpora.media import find_folder, media_stamp
from evqa.corpora.segmentation import UNIPIXEL, Expression, SegmentationCorpus, homes, media_root, nothing_found

__all__ = ["BUILDER", "ReVOS", "ReVOSConfig"]

logger = logging.getLogger(__name__)

_TEXTS = {f"meta_expressions_{split}_.json": split for split in ("train", "valid", "train_sub")}
_MASKS, _FOREGROUND = "mask_dict.json", "mask_dict_foreground.json"


@dataclasses.dataclass
class ReVOSConfig(CorpusConfig):
    """Options of ReVOS.

    Attributes:
        foreground: Whether rows of ``valid`` carry the region ``foreground``.
    """

    foreground: bool = True


class ReVOS(SegmentationCorpus):
    """Expressions that take reasoning, next to plain ones and ones that refer to nothing."""

    corpus = "revos"
    homepage = "https://github.com/cilinyan/ReVOS-api"
    BUILDER_CONFIG_CLASS = ReVOSConfig
    licence = Terms(
        "CC BY-NC-SA 4.0", "annotations",
        "The annotations may be shared alike for research; the clips are those of MOSE, MeViS, LV-VIS, OVIS, TAO "
        "and UVO.",
    )  # fmt: skip

    def annotation_files(self, root: Path) -> list[Path]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.annotation_files`."""
        places = homes(root, "revos", "ReVOS")
        for home in places:
            texts = [home / name for name in _TEXTS if (home / name).is_file()]
            if texts:
                return [*texts, *(home / name for name in (_MASKS, _FOREGROUND) if (home / name).is_file())]
        raise nothing_found(root, places, {f"the authors, {UNIPIXEL}": list(_TEXTS)[:2]})

    def extra_stamp(self, root: Path, files: Sequence[Path]) -> str:
        """See :meth:`evqa.corpora.base.CorpusBuilder.extra_stamp`."""
        return media_stamp([files[0].parent], ("JPEGImages", "."))

    def list_rows(self, root: Path, files: Sequence[Path]) -> Mapping[str, list[Expression]]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.list_rows`."""
        home, cache = files[0].parent, cache_folder(self.corpus)
        masks = MaskDict(home / _MASKS, cache) if home / _MASKS in files else None
        if masks is None:
            logger.warning("%s has no %s: objects have masks=None", home, _MASKS)
        foreground = None
        if self.config.foreground and home / _FOREGROUND in files:
            foreground = MaskDict(home / _FOREGROUND, cache, field="masks_rle")
        elif self.config.foreground:
            logger.warning("%s has no %s: robustness cannot be computed from the rows", home, _FOREGROUND)
        official = find_folder([home], ("JPEGImages",), cache)

        def more(row: Expression, video: Video) -> None:
            if foreground is not None and video.video_id in foreground:
                row.regions = (("foreground", foreground.source(video.video_id)),)

        splits: dict[str, list[Expression]] = {}
        for file in files:
            if (split := _TEXTS.get(file.name)) is None:
                continue
            videos = read_videos(file)
            frames = media_root([official or home], (video.video_id for video in videos), f"{self.corpus} {split}")
            splits[split] = list(
                expressions_of(
                    videos, file, frames,
                    kind=lambda text: "sentence" if text.strip().endswith("?") else "query",
                    tracks=masks_by_annotation(masks, needed=True),
                    metadata=_metadata,
                    change=more if split == "valid" else None,
                )
            )  # fmt: skip
        return splits

    def finish(self, record: dict[str, Any]) -> dict[str, Any]:
        """See :meth:`evqa.corpora.segmentation.SegmentationCorpus.finish`."""
        frames = [
            mask["frame"]
            for item in record["objects"] or []
            for mask in item["masks"] or []
            if not rle_masks.is_empty(mask["rle"])
        ]
        return {"visible": [min(frames), max(frames)] if frames else None}


def _metadata(video: Video, _: str, record: Mapping[str, Any]) -> dict[str, Any]:
    names = {0: "referring", 1: "reasoning", 2: "no object"}
    found = {"vid_id": video.record.get("vid_id"), "source": video.video_id.partition("/")[0]}
    return found | {"type": names.get(record.get("type_id"))}


BUILDER = ReVOS
