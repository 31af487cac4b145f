"""Ref-DAVIS17: DAVIS 2017 with expressions (Khoreva, Rohrbach, Schiele, ACCV 2018).

Layouts:

- the authors': ``davis_text_annotations/Davis17_annot{1,2}{,_full_video}.txt`` beside ``DAVIS/``, in which are
  ``JPEGImages/480p``, ``Annotations_unsupervised/480p`` and ``ImageSets/2017/{train,val}.txt``;
- converted by ReferFormer: ``meta_expressions/{train,valid}/`` and ``{train,valid}/{JPEGImages,Annotations}/``;
- VISA's and UniPixel-SFT-1M's: the same expressions, masks in ``{train,valid}/mask_dict.pkl`` (counted as
  :mod:`evqa.corpora.numbered` explains), frames in ``DAVIS/JPEGImages/480p/`` or ``<split>/JPEGImages/``.

Where pickles and label maps are both there the label maps, the authors' own, are read; only those of the
semi-supervised challenge (``DAVIS/Annotations/480p``) come after the pickles, which were not made from them. Splits:
``train``, ``valid``.

Each object has four expressions: two annotators, each having seen the first frame, then the whole video. Ids count
objects by fours: ``metadata["annotator"]`` is 1 or 2, ``metadata["seen"]`` ``"first_frame"`` or ``"full_video"``, and
``metadata["set"]`` 0 to 3 in that order. The benchmark computes J&F for each set alone, over all its rows, and reports
the mean of the four. Every frame is annotated. Five objects of the published pickles are in no frame; they are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evqa.corpora.base import Terms, cache_folder
from evqa.corpora.expressions import Video, expressions_of, read_videos
from evqa.corpora.masklets import MaskDict
from evqa.corpora.media import find_folder, media_stamp, tree_stamp
from evqa.corpora.numbered import expression_set, masks_by_number
from evqa.corpora.ref_youtube_vos import RefYouTubeVosConfig, label_map_tracks, with_void
from evqa.corpora.segmentation import UNIPIXEL, Expression, SegmentationCorpus, homes, media_root, nothing_found
from evqa.errors import DataError

__all__ = ["BUILDER", "RefDavis17"]

logger = logging.getLogger(__name__)

_SPLITS = ("train", "valid")
_PICKLE = "mask_dict.pkl"
_TEXTS = "davis_text_annotations"
#: In the order of the expression sets. The second annotator's files are Latin-1.
_SETS = {
    "Davis17_annot1.txt": ("utf-8", 1, "first_frame"),
    "Davis17_annot1_full_video.txt": ("utf-8", 1, "full_video"),
    "Davis17_annot2.txt": ("latin-1", 2, "first_frame"),
    "Davis17_annot2_full_video.txt": ("latin-1", 2, "full_video"),
}
#: Misspelt in the text files.
_NAMES = {"clasic-car": "classic-car", "dog-scale": "dogs-scale", "motor-bike": "motorbike"}


class RefDavis17(SegmentationCorpus):
    """Four expressions for each object of DAVIS 2017."""

    corpus = "ref_davis17"
    homepage = (
        "https://davischallenge.org/davis2017/code.html and https://www.mpi-inf.mpg.de/departments/computer-vision-and-"
        "machine-learning/research/video-segmentation/video-object-segmentation-with-language-referring-expressions"
    )
    BUILDER_CONFIG_CLASS = RefYouTubeVosConfig
    official = {"train": [{"videos": 60}], "valid": [{"videos": 30}]}
    licence = Terms(
        "DAVIS: BSD-3-Clause; expressions: not stated", "nothing",
        "The expressions' authors (MPI) state no licence, so the right to pass them on is theirs.",
    )  # fmt: skip

    def annotation_files(self, root: Path) -> list[Path]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.annotation_files`."""
        places = homes(root, "ref_davis17", "ref-davis", "ref-davis17", "davis17")
        for home in places:
            found = [file for split in _SPLITS if (file := _meta(home, split)).is_file()]
            if found:
                pickles = [home / split / _PICKLE for split in _SPLITS]
                return [*found, *(file for file in pickles if file.is_file())]
            if (home / _TEXTS).is_dir() and (home / "DAVIS").is_dir():
                wanted = [home / _TEXTS / name for name in _SETS]
                sets = [home / "DAVIS" / "ImageSets" / "2017" / f"{split}.txt" for split in ("train", "val")]
                if missing := [file for file in [*wanted, *sets] if not file.is_file()]:
                    raise DataError("the authors' layout is not whole: there is no such file", file=missing[0])
                return [*wanted, *sets]
        wanted_names = {
            "the authors": [f"{_TEXTS}/ beside DAVIS/"],
            f"ReferFormer, VISA, {UNIPIXEL}": [f"meta_expressions/{split}/meta_expressions.json" for split in _SPLITS],
        }
        raise nothing_found(root, places, wanted_names)

    def extra_stamp(self, root: Path, files: Sequence[Path]) -> str:
        """See :meth:`evqa.corpora.base.CorpusBuilder.extra_stamp`."""
        home = _home(files)
        maps = [home / split / "Annotations" for split in _SPLITS]
        maps += [home / "DAVIS" / name / "480p" for name in ("Annotations_unsupervised", "Annotations")]
        own = media_stamp([home / split for split in _SPLITS], ("JPEGImages", "Annotations"))
        names = ("JPEGImages/480p", "Annotations_unsupervised/480p", "Annotations/480p")
        return own + media_stamp([home / "DAVIS"], names) + "".join(map(tree_stamp, maps))

    def list_rows(self, root: Path, files: Sequence[Path]) -> Mapping[str, list[Expression]]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.list_rows`."""
        home, cache = _home(files), cache_folder(self.corpus)
        if files[0].parent.name == _TEXTS:
            listed = _from_texts(home, files)
        else:
            listed = {split: (file, read_videos(file)) for split in _SPLITS if (file := _meta(home, split)) in files}
        splits: dict[str, list[Expression]] = {}
        for split, (file, videos) in listed.items():
            places = [home / split / "JPEGImages", home / "DAVIS" / "JPEGImages" / "480p"]
            frames = media_root(places, (video.video_id for video in videos), f"{self.corpus} {split}")
            davis, pickled = home / "DAVIS", home / split / _PICKLE
            maps = find_folder([home / split], ("Annotations",), cache)
            maps = maps or find_folder([davis], ("Annotations_unsupervised/480p",), cache)
            if maps is None and pickled not in files:
                maps = find_folder([davis], ("Annotations/480p",), cache)
            change = None
            if maps is not None:
                tracks, change = label_map_tracks(maps), with_void(maps)
            elif pickled in files:
                tracks = masks_by_number(MaskDict(pickled, cache), videos, self.config.mask_order)
            else:
                raise DataError(f"{split} has neither label maps (Annotations) nor {_PICKLE}", file=home)
            splits[split] = list(
                expressions_of(videos, file, frames, tracks=tracks, metadata=_who_wrote_it, change=change)
            )
        return splits


def _meta(home: Path, split: str) -> Path:
    return home / "meta_expressions" / split / "meta_expressions.json"


def _home(files: Sequence[Path]) -> Path:
    return files[0].parents[1] if files[0].parent.name == _TEXTS else files[0].parents[2]


def _who_wrote_it(video: Video, expression_id: str, _: dict[str, Any]) -> dict[str, Any]:
    number = expression_set(video, expression_id, len(_SETS))
    if number is None:
        return {}
    _, annotator, seen = list(_SETS.values())[number]
    return {"annotator": annotator, "seen": seen, "set": number}


def _from_texts(home: Path, files: Sequence[Path]) -> dict[str, tuple[Path, list[Video]]]:
    """The authors' text files, numbered as ReferFormer's conversion numbers them."""
    sets = [_read_texts(file) for file in files[: len(_SETS)]]
    splits = {}
    for split, file in zip(_SPLITS, files[len(_SETS) :], strict=True):
        videos = []
        for video_id in file.read_text("utf-8").split():
            folder = home / "DAVIS" / "JPEGImages" / "480p" / video_id
            names = sorted(path.stem for path in folder.glob("*.jpg"))
            fault = None if names else f"the video has no frames in {folder}"
            # As the conversion does: objects in the order of their ids as text, one of each file at a time.
            listed = [sorted(texts.get(video_id, []), key=lambda item: item["obj_id"]) for texts in sets]
            counts = [len(items) for items in listed]
            if len(set(counts)) > 1:
                logger.warning(
                    "%s: the four text files have %s expressions; like ReferFormer's conversion, %d of each are read",
                    video_id, ", ".join(map(str, counts)), min(counts),
                )  # fmt: skip
            items = [item for group in zip(*listed, strict=False) for item in group]
            if not items:
                items, fault = [{"exp": None, "obj_id": "0"}], "the text files have no expressions for the video"
            expressions = {str(number): item for number, item in enumerate(items)}
            videos.append(Video(video_id, names, expressions, {}, fault))
        splits[split] = (file, videos)
    return splits


def _read_texts(file: Path) -> dict[str, list[dict[str, str]]]:
    """Video -> its expressions, of lines ``<video> <object> "<expression>"``."""
    found: dict[str, list[dict[str, str]]] = {}
    try:
        text = file.read_text(_SETS[file.name][0])
    except UnicodeDecodeError as error:
        raise DataError(f"not readable as text ({error})", file=file) from None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        parts = line.split(maxsplit=2)
        if len(parts) != 3 or not parts[1].isdecimal() or not parts[2].startswith('"'):
            raise DataError(f'line {number} is not <video> <object> "<expression>": {line[:60]!r}', file=file)
        expression = " ".join(parts[2].split())[1:].removesuffix('"')
        found.setdefault(_NAMES.get(parts[0], parts[0]), []).append({"exp": expression, "obj_id": parts[1]})
    return found


BUILDER = RefDavis17
