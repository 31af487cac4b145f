"""Reading ST-Evidence-Instruct: ``gen_mask`` (tracked objects) and ``gen_qa`` (questions over ViCaS clips)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evqa import masks as rle_masks
from evqa import segments as seg
from evqa.corpora.archives import load_plain_pickle
from evqa.corpora.base import cache_folder
from evqa.corpora.media import find_file, find_folder, media_stamp
from evqa.corpora.memory import remembered
from evqa.corpora.tables import QUESTION_COLUMNS, Cells, read_csv, read_json
from evqa.errors import DataError, MaskError, MissingDataError
from evqa.types import EvidenceObject, FrameFolder, FrameMask, Rle

__all__ = ["annotation_files", "list_rows"]

DEFAULT_FPS = 6.0
BOX_SCALE = 1000.0  # bbox_norm counts thousandths of the frame

_COLUMNS = {**QUESTION_COLUMNS, "mask_evidence": ("mask_evidence",), "split": ("split",)}
_MASK_FOLDERS = ("masks", "masks_all_clevrer_gdino_refined")
_FRAME_FOLDER = "video_frames_6fps"
_VICAS_ANNOTATIONS = Path("annotations", "v1.0")
_OPTION_LINE = re.compile(r"\(([A-Z])\)\s*(.*)")


def _places(root: Path, task: str) -> list[Path]:
    bases = [root, root / "data", root / "st-evidence-instruct", root / "data" / "st-evidence-instruct"]
    inner = [Path(task)] if task == "gen_mask" else [Path(task) / "vicas", Path(task), Path("vicas")]
    return [base / part for base in bases for part in [Path(), *inner]]


def annotation_files(config: str, root: Path) -> list[Path]:
    """See :meth:`evqa.corpora.base.CorpusBuilder.annotation_files`."""
    if config == "instruct_qa":
        name = "st_evidence_vicas.csv"
        return [find_file([place / name for place in _places(root, "gen_qa")], name, root)]
    names = ("st_evidence.csv", "st_evidence_meta.pkl")
    for place in _places(root, "gen_mask"):
        found = [place / name for name in names if (place / name).is_file()]
        if found:
            return found
    tried = ", ".join(str(place / name) for place in _places(root, "gen_mask")[:2] for name in names)
    raise MissingDataError(f"neither st_evidence.csv nor st_evidence_meta.pkl found; looked for {tried}", file=root)


def list_rows(config: str, root: Path, files: Sequence[Path], vicas_dir: str | None) -> Mapping[str, list[Any]]:
    """See :meth:`evqa.corpora.base.CorpusBuilder.list_rows`."""
    rows = _qa_rows(root, files[0], vicas_dir) if config == "instruct_qa" else _mask_rows(files)
    splits: dict[str, list[Any]] = {}
    for row in rows:
        splits.setdefault(row.split, []).append(row)
    return splits


def stamp(config: str, root: Path, files: Sequence[Path], vicas_dir: str | None) -> str:
    """Which media are there; see :meth:`evqa.corpora.base.CorpusBuilder.extra_stamp`."""
    home = files[0].parent
    if config == "instruct_mask":
        return media_stamp([home], (*_MASK_FOLDERS, _FRAME_FOLDER))
    return media_stamp(_vicas_places(root, home, vicas_dir), (str(_VICAS_ANNOTATIONS), "video_frames"))


def _split(cells: Cells) -> str:
    return cells.text("split").strip() or "train"


# ------------------------------------------------------------------------------------- gen_mask
def _mask_rows(files: Sequence[Path]) -> list[_MaskRow]:
    home = files[0].parent
    cache = cache_folder("st_evidence")
    masks = find_folder([home], _MASK_FOLDERS, cache)
    frames = find_folder([home], (_FRAME_FOLDER,), cache)
    table = next((path for path in files if path.suffix == ".csv"), None)
    pickled = next((path for path in files if path.suffix == ".pkl"), None)
    optional = ("video_id", "segments", "mask_evidence", "split")
    cells = read_csv(table, columns=_COLUMNS, optional=optional) if table else []
    meta = _read_meta(pickled) if pickled else {}
    rows = [_MaskRow(row.entry, row, meta.get(row.entry), home, masks, frames, pickled) for row in cells]
    known = {row.entry for row in cells}
    rows += [_MaskRow(e, None, item, home, masks, frames, pickled) for e, item in meta.items() if e not in known]
    return rows


def _read_meta(path: Path) -> dict[str, dict[str, Any]]:
    items = load_plain_pickle(path)
    if not isinstance(items, list):
        raise DataError(f"a list of records is needed, this is a {type(items).__name__}", file=path)
    meta: dict[str, dict[str, Any]] = {}
    for number, item in enumerate(items):
        entry = item.get("entry_id") if isinstance(item, dict) else None
        if not isinstance(entry, str):
            raise DataError(f"record {number} has no entry_id", file=path)
        if entry in meta:
            raise DataError("the entry_id stands twice", entry=entry, file=path)
        meta[entry] = item
    return meta


class _MaskRow:
    """One row of ``gen_mask``, not yet read."""

    def __init__(
        self,
        entry: str,
        cells: Cells | None,
        meta: dict[str, Any] | None,
        home: Path,
        masks: Path | None,
        frames: Path | None,
        pickled: Path | None,
    ):
        self.entry = entry
        self.cells = cells
        self.meta = meta or {}
        self.home = home
        self.masks = masks
        self.frames = frames
        self.pickled = pickled
        self.split = _split(cells) if cells else "train"

    def read(self) -> dict[str, Any]:
        if self.cells is not None:
            self.cells.check()
        annotation, file = self._annotation()
        fps = _number(annotation.get("fps", DEFAULT_FPS), "fps", self.entry, file)
        height, width = (annotation.get(name) for name in ("height", "width"))
        objects = _objects(annotation, height, width, fps, self.entry, file)
        if not any(item["masks"] for item in objects):
            objects += self._merged_masks(fps)
        if height is None and objects and objects[0]["masks"]:
            height, width = objects[0]["masks"][0]["rle"]["size"]
        path = self.cells.text("video_path").strip() if self.cells else str(annotation.get("video_path", ""))
        name = str(self.meta.get("video_name") or os.path.splitext(path)[0])
        frames = self._frames(name, fps)
        return {
            "entry_id": self.entry,
            "video_id": (self.cells.text("video_id").strip() if self.cells else "") or Path(name).name,
            "video": None,
            "fps": fps,
            "num_frames": len(frames["names"]) or None,
            "duration": len(frames["names"]) / fps if frames["names"] else None,
            "height": height,
            "width": width,
            "frames": frames,
            **(_question(self.cells) if self.cells else self._pickled_question()),
            "objects": objects,
            "metadata": self.cells.others() if self.cells else json.dumps({"video_name": name}),
        }

    def _annotation(self) -> tuple[dict[str, Any], Path | None]:
        if self.masks is not None and (self.masks / f"{self.entry}.json").is_file():
            file = self.masks / f"{self.entry}.json"
            return read_json(file), file
        if self.meta.get("mask_rle_path"):
            return {}, self.pickled
        place = "no masks folder" if self.masks is None else str(self.masks / f"{self.entry}.json")
        raise MissingDataError(f"no masks: looked for {place} and a mask_rle_path", entry=self.entry, file=self.home)

    def _merged_masks(self, fps: float) -> list[EvidenceObject]:
        """The one merged object of ``mask_rle_path``: ``[object][frame][region]`` of RLE or null."""
        name = self.meta.get("mask_rle_path")
        if not name:
            return []
        # The published paths are relative to the author's folders: their tail is what we have.
        parts = Path(str(name)).parts
        places = [
            self.home.joinpath(*parts[-n:]) for n in range(len(parts), 0, -1) if not Path(*parts[-n:]).is_absolute()
        ]
        places += [self.masks / parts[-1]] if self.masks else []
        file = find_file(places, "mask_rle_path", self.home)
        value = read_json(file, list)
        found: list[EvidenceObject] = []
        for number, track in enumerate(value):
            masks: list[FrameMask] = []
            for frame, regions in enumerate(track if isinstance(track, list) else []):
                present = [_rle(rle, self.entry, file) for rle in regions or [] if rle]
                if present:
                    masks.append({"frame": frame, "time": frame / fps, "rle": rle_masks.union(present)})
            found.append({"object_id": f"merged_{number}", "expression": None, "boxes": [], "masks": masks})
        return found

    def _frames(self, name: str, fps: float) -> FrameFolder:
        if self.frames is None:
            return {"folder": "", "names": [], "times": []}
        places = [self.frames / name, self.frames / Path(name).name]
        folder = next((place for place in places if place.is_dir()), None)
        if folder is None:
            raise MissingDataError(
                f"the frames of {name!r} are not there; looked for {', '.join(map(str, places))}", entry=self.entry
            )
        names = sorted(entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(".jpg"))
        total = self.meta.get("total_frames", len(names))
        wanted = [f"frame_{i:04d}.jpg" for i in range(total)]
        if missing := sorted(set(wanted) - set(names)):
            raise MissingDataError(
                f"{len(missing)} of {total} frames are missing, {missing[0]} first", entry=self.entry, file=folder
            )
        return {"folder": str(folder.absolute()), "names": wanted, "times": [i / fps for i in range(total)]}

    def _pickled_question(self) -> dict[str, Any]:
        """Question, options, answer and segments out of the training texts, which are all that the pickle holds."""
        text, target = str(self.meta.get("question_with_options", "")), str(self.meta.get("answer_with_evidence", ""))
        question, _, options = text.partition("\nOptions:")
        candidates = [m[2].strip() for line in options.splitlines() if (m := _OPTION_LINE.fullmatch(line.strip()))]
        letter = re.search(r"Answer:\s*\(?([A-Z])\b", target)
        index = ord(letter[1]) - ord("A") if letter else -1
        if not 0 <= index < len(candidates):
            raise DataError(
                "question_with_options and answer_with_evidence do not fit", entry=self.entry, file=self.pickled
            )
        times = re.search(r"Temporal Evidence:\s*(\[\[.*?\]\])", target)
        segments, problems = seg.read(json.loads(times[1])) if times else ([], [])
        if problems:
            raise DataError(f"temporal evidence cannot be read: {problems[0]}", entry=self.entry, file=self.pickled)
        return {
            "question": question.strip(),
            "candidates": candidates,
            "answer": candidates[index],
            "answer_index": index,
            "segments": segments,
        }


def _question(cells: Cells) -> dict[str, Any]:
    candidates = cells.candidates()
    answer, index = cells.answer(candidates)
    return {
        "question": cells.text("question").strip(),
        "candidates": candidates,
        "answer": answer,
        "answer_index": index,
        "segments": cells.segments(),
    }


def _objects(
    annotation: Mapping[str, Any], height: Any, width: Any, fps: float, entry: str, file: Path | None
) -> list[EvidenceObject]:
    found: list[EvidenceObject] = []
    for number, item in enumerate(annotation.get("evidence_objects") or []):
        if not isinstance(item, dict):
            raise DataError(f"evidence object {number} is not an object", entry=entry, file=file)
        if height is None or width is None:
            raise DataError("evidence objects need the frame's width and height", entry=entry, file=file)
        masks = []
        for mask in item.get("masks") or []:
            shape = mask.get("mask") or {}
            try:
                rle = rle_masks.from_polygons(
                    _polygons(shape.get("exterior")), height, width, holes=_polygons(shape.get("holes"))
                )
            except MaskError as error:
                raise MaskError(f"frame {mask.get('frame')}: {error.message}", entry=entry, file=file) from None
            masks.append({"frame": int(mask["frame"]), "time": int(mask["frame"]) / fps, "rle": rle})
        boxes = []
        for prompt in item.get("prompts") or []:
            box = prompt.get("bbox_norm")
            if not isinstance(box, list) or len(box) != 4:
                raise DataError(f"bbox_norm must be [x1, y1, x2, y2], got {box!r}", entry=entry, file=file)
            scale = (width / BOX_SCALE, height / BOX_SCALE) * 2
            boxes.append(
                {
                    "time": prompt.get("timestamp"),
                    "frame": prompt.get("frame"),
                    "box": [_number(v, "bbox_norm", entry, file) * s for v, s in zip(box, scale, strict=True)],
                }
            )
        expression = item.get("ref_expression")
        found.append({"object_id": str(number), "expression": expression, "boxes": boxes, "masks": masks})
    return found


def _polygons(value: Any) -> list[Any]:
    """A polygon, or a list of them, as a list of polygons: the files have both."""
    if not value:
        return []
    first = value[0]
    if isinstance(first, (int, float)):
        return [value]  # flat x, y, x, y
    return [value] if first and isinstance(first[0], (int, float)) and len(first) == 2 else list(value)


def _number(value: Any, what: str, entry: str, file: Path | None) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"{what} must be a number, got {value!r}", entry=entry, file=file)
    return float(value)


def _rle(value: Any, entry: str, file: Path) -> Rle:
    return rle_masks.normalize(value, entry=entry, file=file)


# --------------------------------------------------------------------------------------- gen_qa
def _qa_rows(root: Path, table: Path, vicas_dir: str | None) -> list[_QaRow]:
    optional = ("video_path", "segments", "split")
    cells = read_csv(table, columns=_COLUMNS, optional=optional)
    places = _vicas_places(root, table.parent, vicas_dir)
    home = next((p for p in places if (p / _VICAS_ANNOTATIONS).is_dir()), None)
    if home is None:
        raise MissingDataError(
            "instruct_qa asks about clips of ViCaS, which the release does not hold. From "
            "https://github.com/Ali2500/ViCaS it needs annotations/v1.0/<video id, 6 digits>.json and "
            "video_frames/<video id, 6 digits>/<frame>.jpg; link them into the data folder or pass vicas_dir=. Looked "
            f"for annotations/v1.0 in {', '.join(map(str, places))}",
            file=table,
        )
    frames = next((p / "video_frames" for p in [home, *places] if (p / "video_frames").is_dir()), None)
    return [_QaRow(row, home / _VICAS_ANNOTATIONS, frames) for row in cells]


def _vicas_places(root: Path, home: Path, vicas_dir: str | None) -> list[Path]:
    given = [Path(vicas_dir).expanduser().absolute()] if vicas_dir else []
    return list(dict.fromkeys([*given, home, home / "vicas", home.parent / "vicas", root, root / "vicas"]))


@remembered(8)  # rows come grouped by video
def _vicas(file: Path) -> dict[str, Any]:
    return read_json(file)


class _QaRow:
    """One row of ``gen_qa``, not yet read."""

    def __init__(self, cells: Cells, annotations: Path, frames: Path | None):
        self.cells = cells
        self.annotations = annotations
        self.frames = frames
        self.split = _split(cells)

    def read(self) -> dict[str, Any]:
        cells = self.cells
        cells.check()
        entry = cells.entry
        number = cells.text("video_id").strip()
        if not number.isdigit():
            raise cells.error(f"video_id must be a ViCaS number, got {number!r}")
        file = self.annotations / f"{int(number):06d}.json"
        if not file.is_file():
            raise MissingDataError("the ViCaS annotation of the clip is missing", entry=entry, file=file)
        annotation = _vicas(file)
        frames = [item.get("filename") for item in annotation.get("segmentations") or []]
        if not frames or not all(isinstance(name, str) for name in frames):
            raise DataError("the ViCaS annotation has no segmentations with file names", entry=entry, file=file)
        size = annotation.get("image_size") or [None, None]
        return {
            "entry_id": entry,
            "video_id": number,
            "video": None,
            "fps": None,
            "num_frames": len(frames),
            "duration": None,
            "height": size[0],
            "width": size[1],
            "frames": self._frame_folder(f"{int(number):06d}", frames),
            **_question(cells),
            "objects": self._tracks(annotation, file),
            "metadata": cells.others(),
        }

    def _frame_folder(self, video: str, names: Sequence[str]) -> FrameFolder:
        # ViCaS gives no clock for its frames, so their times are unknown rather than guessed.
        times = [None] * len(names)
        if self.frames is None:
            return {"folder": "", "names": list(names), "times": times}
        folder = self.frames / video
        have = set(os.listdir(folder)) if folder.is_dir() else set()
        if missing := [name for name in names if name not in have]:
            raise MissingDataError(
                f"{len(missing)} of {len(names)} ViCaS frames are missing, {missing[0]} first",
                entry=self.cells.entry,
                file=folder,
            )
        return {"folder": str(folder.absolute()), "names": list(names), "times": times}

    def _tracks(self, annotation: Mapping[str, Any], file: Path) -> list[EvidenceObject]:
        entry = self.cells.entry
        wanted = self.cells.literal("mask_evidence") or []
        if not isinstance(wanted, (list, tuple)) or not all(isinstance(t, int) for t in wanted):
            raise self.cells.error(f"mask_evidence must be a list of track numbers, got {str(wanted)[:60]!r}")
        expressions = {
            tuple(item.get("track_ids") or ()): item.get("prompt") for item in annotation.get("object_referrals") or []
        }
        found: list[EvidenceObject] = []
        for track in wanted:
            masks: list[FrameMask] = []
            for frame, item in enumerate(annotation["segmentations"]):
                tracks = item.get("track_ids") or []
                if track not in tracks:  # a track may be absent from a frame
                    continue
                rles = item.get("mask_rles")
                if not isinstance(rles, list) or len(rles) != len(tracks):
                    raise DataError(
                        "the ViCaS annotation has no mask_rles beside its track_ids; is it the version without masks?",
                        entry=entry, file=file,
                    )  # fmt: skip
                masks.append({"frame": frame, "time": None, "rle": _rle(rles[tracks.index(track)], entry, file)})
            if not masks:
                raise DataError(f"track {track} has no mask in any frame", entry=entry, file=file)
            found.append(
                {"object_id": str(track), "expression": expressions.get((track,)), "boxes": [], "masks": masks}
            )
        return found
