"""Where the masks of one object are published, and how they become one entry per frame.

A *source* is small and can be handed to another process. Its ``read`` gives, for each frame of a clip, an RLE,
:data:`ABSENT` (annotated, and nothing of the object is there) or ``None`` (not annotated); or ``None`` altogether
where the masks are not published.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from filelock import FileLock
from PIL import Image

from evqa import masks as rle_masks
from evqa.corpora.archives import load_plain_pickle
from evqa.corpora.json_index import Span, index_members, read_span
from evqa.corpora.memory import remembered
from evqa.errors import DataError, MaskError
from evqa.types import Rle

if TYPE_CHECKING:
    from evqa.corpora.segmentation import Clip

__all__ = ["ABSENT", "Absent", "JsonMasks", "LabelMaps", "MaskDict", "MaskSource", "read_mask"]

# Rows come grouped by video, and expressions of one video share objects.
_REMEMBERED_MASKLETS = 32
_REMEMBERED_VIDEOS = 2


class Absent(enum.Enum):
    """The type of :data:`ABSENT`."""

    ABSENT = "absent"


#: The frame is annotated, and the object is not in it.
ABSENT = Absent.ABSENT

FrameMasks = Sequence["Rle | Absent | None"]


class MaskSource(Protocol):
    """What an object's masks are read from."""

    def read(self, clip: Clip) -> FrameMasks | None:
        """One item per frame of the clip; see the module.

        Raises:
            DataError: Malformed; the error names the file.
        """


def read_mask(value: Any, size: tuple[int, int] | None) -> Rle | Absent:
    """One frame's mask in any published form.

    Args:
        value: ``None``, or nothing; an RLE whose counts are bytes, text or a list; a list of RLEs; or polygons, each
            a flat ``[x, y, x, y, ...]``. Lists are united.
        size: ``(height, width)``, which polygons do not carry.

    Raises:
        MaskError: Anything else.
    """
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return ABSENT
    if isinstance(value, Mapping):
        return rle_masks.normalize(value)
    if isinstance(value, (list, tuple)) and all(part is None or isinstance(part, Mapping) for part in value):
        parts = [rle_masks.normalize(part) for part in value if part is not None]
        return rle_masks.union(parts) or ABSENT
    if isinstance(value, (list, tuple)) and all(isinstance(part, (list, tuple)) for part in value):
        if size is None:
            raise MaskError("polygons need the height and width of the video, which the annotation does not state")
        return rle_masks.from_polygons(value, *size)
    raise MaskError(f"neither an RLE nor polygons: {str(value)[:60]}")


# ------------------------------------------------------------------------------------------- JSON
@dataclasses.dataclass(frozen=True)
class JsonMasks:
    """One member of a ``mask_dict``: a list with one mask per frame.

    Attributes:
        file: A JSON file.
        span: Where in it the list stands.
        key: Its key, for errors.
        published: The file that errors name: ``file``, or the pickle that it was made from.
        field: The list's name, where the member is an object that holds it.
    """

    file: Path
    span: Span
    key: str
    published: Path
    field: str | None = None

    def read(self, clip: Clip) -> FrameMasks | None:
        """See :class:`MaskSource`."""
        return _json_masks(self, len(clip), clip.size)


@remembered(_REMEMBERED_MASKLETS)
def _json_masks(source: JsonMasks, frames: int, size: tuple[int, int] | None) -> FrameMasks | None:
    value = read_span(source.file, source.span)
    if source.field is not None:
        value = value.get(source.field) if isinstance(value, dict) else value
    if value is None:
        return None
    if not isinstance(value, list):
        what = f"a {type(value).__name__}, not a list"
        raise DataError(f"the masks under {source.key!r} are {what}", file=source.published)
    if len(value) != frames:
        raise DataError(
            f"{len(value)} masks under {source.key!r} for a video of {frames} frames: "
            "the masks and the expressions do not belong together",
            file=source.published,
        )
    return read_masks(value, size, source.key, source.published)


def read_masks(values: Sequence[Any], size: tuple[int, int] | None, key: str, file: Path) -> FrameMasks:
    """:func:`read_mask` of each frame; the error names key, frame and file."""
    found = []
    for number, value in enumerate(values):
        try:
            found.append(read_mask(value, size))
        except MaskError as error:
            raise MaskError(f"the mask of frame {number} under {key!r}: {error.message}", file=file) from None
    return found


class MaskDict:
    """A file of masklets: ``mask_dict.json``, or the pickle of the same content.

    Only the places of its members are kept. A pickle cannot be read in parts, so it is written as JSON into the cache
    once, under a name made from its path, size and time.

    Args:
        file: ``.json`` or ``.pkl``.
        cache: Where JSON made from pickles is kept.
        field: See :class:`JsonMasks`.

    Raises:
        DataError: Not readable, or not an object of lists.
    """

    def __init__(self, file: Path, cache: Path, field: str | None = None):
        self.file = file
        self._field = field
        self._text = _as_json(file, cache) if file.suffix == ".pkl" else file
        try:
            self.spans = index_members(self._text)
        except DataError as error:
            raise DataError(error.message, file=file) from None

    def __len__(self) -> int:
        return len(self.spans)

    def __contains__(self, key: object) -> bool:
        return key in self.spans

    def source(self, key: str) -> JsonMasks:
        """The masks under a key; ``KeyError`` without."""
        return JsonMasks(self._text, self.spans[key], key, self.file, self._field)

    def text(self, key: str) -> bytes:
        """The masks as they are written, to be compared."""
        start, end = self.spans[key]
        with open(self._text, "rb") as handle:
            handle.seek(start)
            return handle.read(end - start).strip()


def _as_json(file: Path, cache: Path) -> Path:
    try:
        info = file.stat()
    except OSError:
        raise DataError("there is no such file", file=file) from None
    key = hashlib.sha256(f"{file.absolute()}\0{info.st_size}\0{info.st_mtime_ns}".encode()).hexdigest()[:16]
    target = cache / f"{file.stem}-{key}.json"
    if target.is_file():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.is_file():  # another process was faster
            return target
        value = load_plain_pickle(file)
        if not isinstance(value, dict) or not all(isinstance(name, (str, int)) for name in value):
            raise DataError(f"a dictionary of masks is needed, this is a {type(value).__name__}", file=file)
        unfinished = Path(f"{target}.incomplete")
        try:
            with open(unfinished, "w", encoding="utf-8") as out:
                out.write("{")
                for number, name in enumerate(list(value)):
                    # What has been written is let go of at once: there are hundreds of megabytes.
                    text = json.dumps(value.pop(name), default=_bytes_as_text)
                    out.write(f"{',' if number else ''}\n{json.dumps(str(name))}: {text}")
                out.write("\n}\n")
            os.replace(unfinished, target)
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"the pickle holds what masks do not ({error})", file=file) from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                unfinished.unlink()
    return target


def _bytes_as_text(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("ascii")
    raise TypeError(type(value).__name__)


# ------------------------------------------------------------------------------------- label maps
VOID = 255


@dataclasses.dataclass(frozen=True)
class LabelMaps:
    """One object in the label maps of a video: PNGs whose pixel is an object's id.

    Attributes:
        folder: Where they are.
        names: One file name per frame; ``None``: the frame is not annotated.
        object_id: The object's id; :data:`VOID` for the pixels that nobody labelled.

    Where all maps of a video are grey and hold nothing but 0 and 255, there is one object, of id 1, and no void: the
    form of DAVIS 2016. Otherwise 255 marks pixels that nobody labelled, unless an object has that id.
    """

    folder: Path
    names: tuple[str | None, ...]
    object_id: int

    def read(self, clip: Clip) -> FrameMasks:
        """See :class:`MaskSource`."""
        maps = _label_maps(self.folder, self.names)
        return [None if found is None else found.get(self.object_id, ABSENT) for found in maps]


@remembered(_REMEMBERED_VIDEOS)
def _label_maps(folder: Path, names: tuple[str | None, ...]) -> list[dict[int, Rle] | None]:
    """Of each frame: id -> mask."""
    maps: list[dict[int, Rle] | None] = []
    single = True
    for name in names:
        if name is None:
            maps.append(None)
            continue
        labels, grey = _labels(folder / name)
        ids = np.unique(labels).tolist()
        single = single and grey and set(ids) <= {0, VOID}
        maps.append({i: rle_masks.encode(labels == i) for i in ids if i != 0})
    if single and any(maps):
        maps = [None if found is None else {1: found[VOID]} if found else {} for found in maps]
    return maps


def _labels(path: Path) -> tuple[np.ndarray, bool]:
    """The ids, and whether the image is grey rather than of a palette."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1", "I", "I;16"):
                raise MaskError(f"a label map must be a palette or grey image, this is {image.mode}", file=path)
            labels = np.asarray(image)
            return (labels.astype(np.uint8) * VOID, True) if image.mode == "1" else (labels, image.mode == "L")
    except MaskError:
        raise
    except FileNotFoundError:
        raise MaskError("there is no such file", file=path) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MaskError(f"unreadable image ({error})", file=path) from None
