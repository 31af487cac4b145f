"""ST-Evidence and ST-Evidence-Instruct, and the sample benchmark that comes with evqa.

Published by Salesforce AI Research as ``Salesforce/ST-Evidence-Bench`` and ``Salesforce/ST-Evidence-Instruct``
(arXiv 2607.11862). Configs:

========================  ======================================================================
``gen``                   benchmark, generation: answer, segments, masks
``mcq``                   benchmark, choices: answer, one of 4 segments, one of 4 marked regions
``instruct_mask``         instruction set with tracked objects
``instruct_qa``           instruction set over ViCaS clips; needs ViCaS itself
``sample``                both benchmark tasks on our own short clips; needs no files
========================  ======================================================================
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from evqa.corpora import embedded, st_evidence_instruct
from evqa.corpora.base import CorpusBuilder, CorpusConfig, Terms, cache_folder
from evqa.corpora.media import ClipFinder, find_file, find_folder, media_stamp, read_reference_masks, relative
from evqa.corpora.tables import QUESTION_COLUMNS, Cells, read_csv, read_json
from evqa.errors import DataError, MissingDataError
from evqa.segments import read as read_segments
from evqa.types import features

__all__ = ["BUILDER", "StEvidence", "StEvidenceConfig"]

logger = logging.getLogger(__name__)

BENCH_REPO = "Salesforce/ST-Evidence-Bench"
INSTRUCT_REPO = "Salesforce/ST-Evidence-Instruct"
DEFAULT_FPS = 6.0  # masks are numbered in the published 6 fps clips

_VIDEO_FOLDERS = ("videos_6fps", "videos", "NextQA-Video")
_MASK_FOLDERS = ("masks", "mask_annos_latest_img")

_CITATION = """@inproceedings{stevidence2026,
  title = {ST-Evidence: spatio-temporal evidence for video question answering},
  booktitle = {ECCV}, year = {2026}, note = {arXiv:2607.11862}
}"""


@dataclasses.dataclass
class StEvidenceConfig(CorpusConfig):
    """Options of ST-Evidence.

    Attributes:
        probe: Read each clip's frame rate, length and size. ``None``: if a decoder is installed.
        masks: Read the masks. Without them a text-only use builds much faster.
        vicas_dir: ``instruct_qa``: where ViCaS is, if it is not linked into the data folder.
    """

    probe: bool | None = None
    masks: bool = True
    vicas_dir: str | None = None


class StEvidence(CorpusBuilder):
    """Builder of ``evqa/st_evidence``."""

    corpus = "st_evidence"
    BUILDER_CONFIG_CLASS = StEvidenceConfig
    BUILDER_CONFIGS = [
        StEvidenceConfig("gen", description="Benchmark: answer with segments and masks."),
        StEvidenceConfig("mcq", description="Benchmark: choose answer, segment and region."),
        StEvidenceConfig("instruct_mask", description="Instruction set with tracked objects."),
        StEvidenceConfig("instruct_qa", description="Instruction set over ViCaS clips."),
        StEvidenceConfig("sample", description="Our own small benchmark; nothing to download."),
    ]

    def _info(self) -> datasets.DatasetInfo:
        record = {"gen": "gen", "mcq": "mcq", "sample": "mcq"}.get(self.config.name, "instruct")
        columns = features(record)
        return datasets.DatasetInfo(
            description=self.config.description,
            features=columns,
            homepage="https://huggingface.co/datasets/Salesforce/ST-Evidence-Bench",
            license=self.terms(self.config.name).licence,
            citation=_CITATION,
        )

    @classmethod
    def terms(cls, config: str) -> Terms:
        """See :meth:`CorpusBuilder.terms`."""
        if config == "sample":
            return Terms("CC0-1.0", "media", "Made by the evqa developers.")
        reason = "Clips, and images cut from them, are those of the sets that the release took them from."
        return Terms("CC-BY-NC-4.0 (release); clips as their sources", "annotations", reason)

    def source_repo(self) -> str | None:
        """See :meth:`CorpusBuilder.source_repo`."""
        if self.config.name == "sample":
            return None
        return INSTRUCT_REPO if self.config.name.startswith("instruct") else BENCH_REPO

    @property
    def _sample_folder(self) -> Path:
        return embedded.folder() if self.config.data_dir is None else Path(self.config.data_dir)

    def download_patterns(self) -> list[str] | None:
        """See :meth:`CorpusBuilder.download_patterns`."""
        if self.config.name == "gen":
            return ["st_evidence_gen/*"]
        if self.config.name == "instruct_qa":
            return ["gen_qa/*"]
        if self.config.name == "instruct_mask":
            return ["gen_mask/*", "*.csv", "*.pkl", "masks*", "video_frames_6fps*"]
        return None  # mcq ships no clips of its own: it needs those of gen

    def extra_stamp(self, root: Path, files: Sequence[Path]) -> str:
        """Whether clips are probed depends on what is installed; what rows hold, on which media are there."""
        if self.config.name == "sample":
            return ""
        if self.config.name.startswith("instruct"):
            return st_evidence_instruct.stamp(self.config.name, root, files, self.config.vicas_dir)
        media = media_stamp(_roots(root, files[0].parent), (*_VIDEO_FOLDERS, *_MASK_FOLDERS, "options"))
        return f"probe={self._probe}\n{media}"

    @property
    def _probe(self) -> bool:
        if self.config.probe is not None:
            return self.config.probe
        return importlib.util.find_spec("av") is not None  # times and sizes are always read by PyAV

    def annotation_files(self, root: Path) -> list[Path]:
        """See :meth:`CorpusBuilder.annotation_files`."""
        name = self.config.name
        if name == "sample":
            return embedded.annotation_files(self._sample_folder)
        if name.startswith("instruct"):
            return st_evidence_instruct.annotation_files(name, root)
        task = f"st_evidence_{name}"
        table = _beside(root, task, f"{task}.csv")
        if name == "gen":
            return [table]
        return [table, *(table.parent / part for part in ("temp_options.json", "mask_options.json"))]

    def list_rows(self, root: Path, files: Sequence[Path]) -> Mapping[str, list[Any]]:
        """See :meth:`CorpusBuilder.list_rows`."""
        name = self.config.name
        if name == "sample":
            return embedded.list_rows(self._sample_folder)
        if name.startswith("instruct"):
            return st_evidence_instruct.list_rows(name, root, files, self.config.vicas_dir)
        rows = read_csv(files[0], columns=QUESTION_COLUMNS, optional=("video_id", "video_path", "segments"))
        home = files[0].parent
        roots = _roots(root, home)
        cache = cache_folder(self.corpus)
        clips = find_folder(roots, _VIDEO_FOLDERS, cache)
        if clips is None:
            logger.warning(
                "%s comes without clips (no %s, nor an archive of it): rows have video=None",
                home, " or ".join(_VIDEO_FOLDERS),
            )  # fmt: skip
        finder = ClipFinder(roots, clips)
        if name == "gen":
            masks = find_folder(roots, _MASK_FOLDERS, cache) if self.config.masks else None
            if masks is None and self.config.masks:
                logger.warning("%s comes without masks: rows have masks=None", home)
            return {"test": [_GenRow(row, finder, masks, self._probe) for row in rows]}
        temporal, spatial = read_json(files[1]), read_json(files[2])
        images = find_folder(roots, ("options",), cache)
        return {
            "test": [
                _McqRow(row, finder, self._probe, temporal.get(row.entry), _spatial(spatial, row.entry), images, files)
                for row in rows
            ]
        }

    def read_row(self, row: Any) -> tuple[str, dict[str, Any]]:
        """See :meth:`CorpusBuilder.read_row`."""
        record = row.read()
        return record["entry_id"], record


BUILDER = StEvidence


def _beside(root: Path, folder: str, name: str) -> Path:
    """A table in the layouts that exist: the release, one task's folder of it, and the original scripts' own."""
    places = [root / name, root / folder / name, root / folder / "data" / name, root / "data" / name]
    places.append(root / "benchmark" / folder / "data" / name)
    return find_file(places, name, root)


def _roots(root: Path, home: Path) -> list[Path]:
    """Where media may lie: beside the table, in the data folder, and, for mcq, in the folder of gen."""
    return list(dict.fromkeys([home, home / "data", root, root / "st_evidence_gen", home.parent / "st_evidence_gen"]))


# ---------------------------------------------------------------------------------------- benchmark
class _GenRow:
    """One question of ``gen``, not yet read."""

    def __init__(self, cells: Cells, finder: ClipFinder, masks: Path | None, probe: bool):
        self.cells = cells
        self.finder = finder
        self.masks = masks
        self.probe = probe

    def read(self) -> dict[str, Any]:
        record = _question(self.cells, self.finder, self.probe)
        entry = record["entry_id"]
        if self.masks is not None and (self.masks / entry).is_dir():
            record["masks"] = read_reference_masks(self.masks / entry, record["fps"] or DEFAULT_FPS, entry)
            if record["masks"] and record["height"] is None:
                record["height"], record["width"] = record["masks"][0]["rle"]["size"]
        return record


def _question(cells: Cells, finder: ClipFinder, probe: bool) -> dict[str, Any]:
    """The columns that both tasks share."""
    cells.check()
    entry, path, video_id = cells.entry, cells.text("video_path").strip(), cells.text("video_id").strip()
    if not path and not video_id:
        raise cells.error("the row names neither video_path nor video_id")
    clip = finder.find(path, video_id, entry)
    candidates = cells.candidates()
    answer, index = cells.answer(candidates)
    record = {
        "entry_id": entry,
        "video_id": video_id or Path(path).stem,
        "video": None if clip is None else {"path": str(clip), "bytes": None},
        "fps": None,
        "num_frames": None,
        "duration": None,
        "height": None,
        "width": None,
        "question": cells.text("question").strip(),
        "candidates": candidates,
        "answer": answer,
        "answer_index": index,
        "segments": cells.segments(),
        "masks": None,
        "metadata": cells.others(),
    }
    if clip is not None and probe:
        record |= _clip_facts(clip, entry)
    return record


def _clip_facts(clip: Path, entry: str) -> dict[str, Any]:
    from evqa.errors import VideoError
    from evqa.video import probe

    try:
        info = probe(clip)
    except VideoError as error:
        raise VideoError(error.message, entry=entry, file=error.file or clip) from None
    return {
        "fps": info.fps,
        "num_frames": info.num_frames,
        "duration": info.duration,
        "height": info.height,
        "width": info.width,
    }


class _McqRow:
    """One question of ``mcq``, not yet read."""

    def __init__(
        self,
        cells: Cells,
        finder: ClipFinder,
        probe: bool,
        temporal: Any,
        spatial: Any,
        images: Path | None,
        files: Sequence[Path],
    ):
        self.cells = cells
        self.finder = finder
        self.probe = probe
        self.temporal = temporal
        self.spatial = spatial
        self.images = images
        self.files = files

    def read(self) -> dict[str, Any]:
        record = _question(self.cells, self.finder, self.probe)
        entry = record["entry_id"]
        record |= _temporal_options(self.temporal, entry, self.files[1])
        record |= self._spatial_options(entry)
        if not record["segments"]:
            record["segments"] = record["temporal_options"][record["temporal_answer"]]
        return record

    def _spatial_options(self, entry: str) -> dict[str, Any]:
        options, answer = self.spatial or {}, None
        file = self.files[2]
        if "mcq_options" in options:
            paths, answer = options["mcq_options"], options.get("correct_answer")
        elif isinstance(options.get("options"), list) and all(
            isinstance(k, str) and k in options for k in options["options"]
        ):
            paths, answer = [options[key] for key in options["options"]], options.get("answer")
        else:
            raise DataError("mask_options has no options for the entry in a known form", entry=entry, file=file)
        if not isinstance(paths, list) or len(paths) != 4 or not all(isinstance(path, str) for path in paths):
            raise DataError(f"mask_options must name 4 images, got {str(paths)[:80]}", entry=entry, file=file)
        if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < 4:
            raise DataError(f"mask_options' answer must be 0 to 3, got {answer!r}", entry=entry, file=file)
        # A missing image must never shift the letters of the others: it is an error, not a shorter list.
        return {"spatial_options": [str(self._image(path, entry)) for path in paths], "spatial_answer": answer}

    def _image(self, path: str, entry: str) -> Path:
        inner = relative(path)
        if inner is None:
            raise DataError(f"the option image {path!r} lies outside the data", entry=entry, file=self.files[2])
        places = [self.files[2].parent / inner]
        if self.images is not None:
            parts = inner.parts
            places += [self.images / inner, self.images.joinpath(*parts[1:]), self.images.joinpath(*parts[-2:])]
        for place in places:
            if place.is_file():
                return place.absolute()
        tried = ", ".join(dict.fromkeys(map(str, places)))
        raise MissingDataError(f"the option image {path!r} is not there; looked for {tried}", entry=entry)


def _temporal_options(options: Any, entry: str, file: Path) -> dict[str, Any]:
    if not isinstance(options, dict):
        raise DataError("temp_options has nothing for the entry", entry=entry, file=file)
    choices = options.get("time_evidence_options")
    if not isinstance(choices, list) or len(choices) != 4:
        raise DataError(f"temp_options must hold 4 options, got {str(choices)[:80]}", entry=entry, file=file)
    read = [read_segments(choice) for choice in choices]
    if problems := [problem for _, found in read for problem in found]:
        raise DataError(f"temp_options cannot be read: {'; '.join(problems)}", entry=entry, file=file)
    letter = options.get("correct_answer")
    if not isinstance(letter, str) or len(letter.strip()) != 1 or letter.strip().upper() not in "ABCD":
        raise DataError(f"temp_options' correct_answer must be A to D, got {letter!r}", entry=entry, file=file)
    return {
        "temporal_options": [segments for segments, _ in read],
        "temporal_answer": "ABCD".index(letter.strip().upper()),
    }


def _spatial(options: Mapping[str, Any], entry: str) -> dict[str, Any] | None:
    """The region options of an entry: by key, or, in the older files, by the record's own entry_id."""
    found = options.get(entry)
    if found is None:
        found = next((v for v in options.values() if isinstance(v, dict) and v.get("entry_id") == entry), None)
    return found if isinstance(found, dict) else None
