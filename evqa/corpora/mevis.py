"""MeViS: expressions about motion, often of several objects (Ding et al., ICCV 2023; second release TPAMI 2025).

Layout, of the authors and of UniPixel-SFT-1M alike: ``{train,valid_u,valid}/`` with ``meta_expressions.json``,
``JPEGImages/<video>/<frame>.jpg`` and, but for ``valid``, ``mask_dict.json``. A ``test`` folder with
``meta_expressions_release.json`` is read too.

Splits: ``train``, ``valid_u`` (for measuring at home), ``valid`` and ``test`` (masks are with the evaluation server:
``objects`` is null). The second release adds expressions that refer to nothing: ``objects`` is empty. J&F is the mean
over all frames of a row of the union of its objects (``tools/eval_mevis.py`` of the authors); every frame is annotated.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from evqa.corpora.base import Terms, cache_folder
from evqa.corpora.expressions import expressions_of, masks_by_annotation, read_videos
from evqa.corpora.masklets import MaskDict
from evqa.corpora.media import find_folder, media_stamp
from evqa.corpora.segmentation import UNIPIXEL, Expression, SegmentationCorpus, homes, media_root, nothing_found

__all__ = ["BUILDER", "MeViS"]

logger = logging.getLogger(__name__)

_SPLITS = ("train", "valid_u", "valid", "test")
_TEXTS = ("meta_expressions.json", "meta_expressions_release.json")
_MASKS = "mask_dict.json"


class MeViS(SegmentationCorpus):
    """Expressions about the motion of one or several objects."""

    corpus = "mevis"
    homepage = "https://github.com/henghuiding/MeViS"
    official = {
        "train": [{"videos": 1662, "rows": 23051}, {"videos": 1662, "rows": 27502}],
        "valid_u": [{"videos": 50, "rows": 793}, {"videos": 50, "rows": 907}],
        "valid": [{"videos": 140, "rows": 2236}, {"videos": 140, "rows": 2523}],
    }
    licence = Terms(
        "CC BY-NC-SA 4.0", "annotations", "The annotations may be shared alike for research; the clips are others'."
    )

    def annotation_files(self, root: Path) -> list[Path]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.annotation_files`."""
        places = homes(root, "mevis", "MeViS", "MeViS_release")
        for home in places:
            texts = [next((p for p in (home / split / t for t in _TEXTS) if p.is_file()), None) for split in _SPLITS]
            if any(texts):
                return [p for text in texts if text for p in (text, text.with_name(_MASKS)) if p.is_file()]
        wanted = [f"{split}/{_TEXTS[0]}" for split in _SPLITS[:3]]
        raise nothing_found(root, places, {f"the authors, {UNIPIXEL}": wanted})

    def extra_stamp(self, root: Path, files: Sequence[Path]) -> str:
        """See :meth:`evqa.corpora.base.CorpusBuilder.extra_stamp`."""
        return media_stamp([file.parent for file in files], ("JPEGImages",))

    def list_rows(self, root: Path, files: Sequence[Path]) -> Mapping[str, list[Expression]]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.list_rows`."""
        splits: dict[str, list[Expression]] = {}
        for file in files:
            if file.name == _MASKS:
                continue
            split, videos = file.parent.name, read_videos(file)
            cache = cache_folder(self.corpus)
            masks = MaskDict(file.with_name(_MASKS), cache) if file.with_name(_MASKS) in files else None
            if masks is None and split in ("train", "valid_u"):
                logger.warning("%s has no %s: objects have masks=None", file.parent, _MASKS)
            frames = find_folder([file.parent], ("JPEGImages",), cache) or file.parent / "JPEGImages"
            splits[split] = list(
                expressions_of(
                    videos, file, media_root([frames], (v.video_id for v in videos), f"{self.corpus} {split}"),
                    tracks=masks_by_annotation(masks, needed=masks is not None),
                    metadata=lambda video, *_: {"vid_id": video.record.get("vid_id")},
                )
            )  # fmt: skip
        return splits


BUILDER = MeViS
