"""Binary masks as COCO run-length encoding (RLE), and the ways in and out of it.

An RLE is ``{"size": [height, width], "counts": bytes}``: run lengths in column-major order, starting with
background, packed into the printable string of the COCO API (Lin et al., ECCV 2014, ``maskApi.c``). It is the
form in which masks travel through evqa; arrays exist only where pixels are needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as coco

from evqa.errors import MaskError
from evqa.types import Rle

__all__ = [
    "area",
    "counts_to_runs",
    "decode",
    "empty",
    "encode",
    "from_palette_png",
    "from_png",
    "from_polygons",
    "is_empty",
    "normalize",
    "resize",
    "resize_runs",
    "runs_to_counts",
    "to_json",
    "to_palette_png",
    "to_png",
    "union",
]

# A mask larger than this is a mistake or an attack, not a video frame (16384 x 16384).
MAX_PIXELS = 1 << 28

# The palette of DAVIS 2017 (the Pascal VOC colour map), so that exported label maps look familiar.
_PALETTE_BITS = ((0, 3, 6), (1, 4, 7), (2, 5, 8))


# ------------------------------------------------------------------------------------------ codec
def counts_to_runs(counts: bytes | str, pixels: int | None = None) -> np.ndarray:
    """Unpack a COCO counts string into run lengths.

    Args:
        counts: The packed string: 6 bits a character from ``chr(48)``, bit 5 "more follows", bit 4 of the last
            character the sign; from the fourth value on each is the difference to the value two before.
        pixels: Height x width. When given, the runs must cover exactly so many pixels.

    Returns:
        int64 array of shape ``[runs]``: background, foreground, background, ...

    Raises:
        MaskError: The string is cut off, has characters outside the code, or does not cover ``pixels``.
    """
    data = counts.encode("ascii", "replace") if isinstance(counts, str) else bytes(counts)
    codes = np.frombuffer(data, dtype=np.uint8).astype(np.int64) - 48
    if codes.size == 0:
        runs = np.zeros(0, dtype=np.int64)
    else:
        if codes.min() < 0 or codes.max() > 63:
            raise MaskError("RLE counts hold a character outside the COCO code")
        last = (codes & 32) == 0
        if not last[-1]:
            raise MaskError("RLE counts are cut off in the middle of a number")
        ends = np.flatnonzero(last)
        starts = np.concatenate(([0], ends[:-1] + 1))
        place = np.arange(codes.size) - np.repeat(starts, ends - starts + 1)
        if place.max() > 6:  # 7 characters hold 35 bits: more than any mask needs
            raise MaskError("RLE counts hold a number that is too large")
        values = np.add.reduceat((codes & 31) << (5 * place), starts)
        width = 5 * (ends - starts + 1)
        negative = (codes[ends] & 16) != 0
        values = np.where(negative, values - (np.int64(1) << width), values)
        runs = values
        runs[1::2] = np.cumsum(values[1::2])
        runs[2::2] = np.cumsum(values[2::2])
    if runs.size and runs.min() < 0:
        raise MaskError("RLE counts hold a negative run length")
    if pixels is not None and int(runs.sum()) != pixels:
        raise MaskError(f"RLE counts cover {int(runs.sum())} pixels where the size says {pixels}")
    return runs


def runs_to_counts(runs: Sequence[int] | np.ndarray) -> bytes:
    """Pack run lengths into a COCO counts string; the inverse of :func:`counts_to_runs`.

    Ours and not pycocotools', whose packer writes past its buffer where a run has 2**24 pixels or more.
    """
    values = np.asarray(runs, dtype=np.int64)
    if values.size == 0:
        return b""
    deltas = values.copy()
    deltas[3:] -= values[1:-2]
    length = np.ones(deltas.size, dtype=np.int64)  # characters: the least k with a value in 5k signed bits
    for k in range(1, 7):
        half = np.int64(1) << (5 * k - 1)
        length[(deltas < -half) | (deltas >= half)] = k + 1
    ends = np.cumsum(length)
    place = np.arange(ends[-1]) - np.repeat(ends - length, length)
    codes = (np.repeat(deltas, length) >> (5 * place)) & 31
    codes[place < np.repeat(length, length) - 1] |= 32
    return (codes + 48).astype(np.uint8).tobytes()


def normalize(rle: Mapping[str, Any], *, entry: str | None = None, file: str | os.PathLike | None = None) -> Rle:
    """Bring any published spelling of an RLE to ``{"size": [h, w], "counts": bytes}`` and check it.

    Args:
        rle: ``counts`` may be packed bytes, a packed string, or a list of run lengths (uncompressed RLE).
        entry, file: Named in the error.

    Raises:
        MaskError: Not an RLE, or its runs do not cover exactly height x width pixels. pycocotools itself does not
            check this and writes past its buffer on a malformed string.
    """
    try:
        size = [int(v) for v in rle["size"]]
        counts = rle["counts"]
        if len(size) != 2 or min(size) < 0 or size[0] * size[1] > MAX_PIXELS:
            raise MaskError(f"impossible mask size {size}")
        if not isinstance(counts, (bytes, str)):
            runs = np.asarray(counts) if len(counts) else np.zeros(0, dtype=np.int64)
            if runs.ndim != 1 or not np.issubdtype(runs.dtype, np.integer) or (runs.size and runs.min() < 0):
                raise MaskError("uncompressed RLE counts must be a list of non-negative integers")
            if int(runs.sum()) != size[0] * size[1]:
                raise MaskError(f"RLE counts cover {int(runs.sum())} pixels where the size says {size[0] * size[1]}")
            return {"size": size, "counts": runs_to_counts(runs)}
        counts_to_runs(counts, size[0] * size[1])
    except MaskError as error:
        raise MaskError(error.message, entry=entry, file=file) from None
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise MaskError(f"not a COCO RLE ({type(error).__name__}: {error})", entry=entry, file=file) from None
    return {"size": size, "counts": counts.encode("ascii") if isinstance(counts, str) else bytes(counts)}


def to_json(rle: Rle) -> dict[str, Any]:
    """The same RLE with ``counts`` as text, as JSON files hold it."""
    counts = rle["counts"]
    return {
        "size": [int(v) for v in rle["size"]],
        "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
    }


# ------------------------------------------------------------------------------------- arrays
def encode(mask: np.ndarray) -> Rle:
    """Encode a mask.

    Args:
        mask: Shape ``[h, w]``, bool or any number; non-zero is foreground.

    Raises:
        MaskError: Not two-dimensional.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise MaskError(f"a mask has two dimensions, this has shape {mask.shape}")
    flat = (mask != 0).T.ravel()  # column by column
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], changes, [flat.size])))
    if flat.size == 0:
        runs = runs[:0]
    elif flat[0]:  # the first run is background, if need be of no pixels
        runs = np.concatenate(([0], runs))
    return {"size": [int(v) for v in mask.shape], "counts": runs_to_counts(runs)}


def decode(rle: Mapping[str, Any]) -> np.ndarray:
    """Decode an RLE, in any published spelling.

    Returns:
        bool array of shape ``[h, w]``.

    Raises:
        MaskError: The RLE is malformed.
    """
    rle = normalize(rle)
    height, width = rle["size"]
    runs = counts_to_runs(rle["counts"])
    return np.repeat(np.arange(runs.size) % 2 == 1, runs).reshape(width, height).T


def empty(height: int, width: int) -> Rle:
    """The mask of ``height`` x ``width`` pixels without foreground."""
    return {"size": [int(height), int(width)], "counts": runs_to_counts([height * width]) if height * width else b""}


def area(rle: Rle) -> int:
    """Number of foreground pixels."""
    return int(counts_to_runs(rle["counts"])[1::2].sum())


def is_empty(rle: Rle | None) -> bool:
    """Whether there is no foreground; an absent mask (``None``) has none."""
    return rle is None or area(rle) == 0


def union(rles: Iterable[Rle | None]) -> Rle | None:
    """Union of masks of one size; absent masks (``None``) add nothing.

    Returns:
        The union, or ``None`` when every mask is absent.

    Raises:
        MaskError: Sizes differ.
    """
    present = [normalize(rle) for rle in rles if rle is not None]
    if not present:
        return None
    sizes = {tuple(rle["size"]) for rle in present}
    if len(sizes) > 1:
        raise MaskError(f"cannot unite masks of different sizes {sorted(sizes)}")
    if len(present) == 1:
        return present[0]
    return encode(np.logical_or.reduce([decode(rle) for rle in present]))


def resize(rle: Rle, height: int, width: int) -> Rle:
    """Nearest-neighbour resize, sampling at pixel centres as PIL does."""
    if list(rle["size"]) == [height, width]:
        return rle
    rle = normalize(rle)
    runs = resize_runs(counts_to_runs(rle["counts"]), rle["size"], (height, width))
    return {"size": [int(height), int(width)], "counts": runs_to_counts(runs)}


def resize_runs(runs: np.ndarray, size: Sequence[int], target: Sequence[int]) -> np.ndarray:
    """Nearest-neighbour resize of run lengths, without decoding them.

    Args:
        runs: int64 ``[runs]``, from :func:`counts_to_runs`.
        size: Height and width that they cover.
        target: Height and width wanted.

    Returns:
        int64 ``[runs]``, as :func:`encode` would count them: none is empty but perhaps the first.
    """
    (height, width), (rows, columns) = size, target
    if not rows * columns:
        return np.zeros(0, dtype=np.int64)
    ends = np.cumsum(runs)
    starts, stops = ends[:-1:2], ends[1::2]  # of the foreground, counted down the columns
    wanted = ((np.arange(rows) + 0.5) * (height / rows)).astype(np.int64)
    above = np.searchsorted(wanted, np.arange(height + 1))  # wanted rows above a row
    # A run may go on through several columns: one piece for each.
    first, last = starts // max(height, 1), (stops - 1) // max(height, 1)
    parts = np.maximum(last - first + 1, 0)
    piece = np.repeat(np.arange(parts.size), parts)
    column = first[piece] + np.arange(piece.size) - np.repeat(np.cumsum(parts) - parts, parts)
    top = above[np.maximum(starts[piece] - column * height, 0)]
    bottom = above[np.minimum(stops[piece] - column * height, height)]
    seen = bottom > top
    column, top, bottom = column[seen], top[seen], bottom[seen]
    # The pieces of each wanted column, which may be asked for never, once or several times.
    source = ((np.arange(columns) + 0.5) * (width / columns)).astype(np.int64)
    begin, end = np.searchsorted(column, source, "left"), np.searchsorted(column, source, "right")
    many = end - begin
    piece = np.arange(many.sum()) + np.repeat(begin - (np.cumsum(many) - many), many)
    offset = np.repeat(np.arange(columns) * rows, many)
    edges = np.stack([offset + top[piece], offset + bottom[piece]], axis=1).ravel()
    joined = np.flatnonzero(edges[1:-1:2] == edges[2::2]) * 2 + 1  # one column's end is the next one's start
    edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    runs = np.diff(np.concatenate([[0], edges, [rows * columns]]))
    return runs if runs[-1] or runs.size == 1 else runs[:-1]


def from_polygons(exteriors: Sequence[Sequence], height: int, width: int, *, holes: Sequence[Sequence] = ()) -> Rle:
    """Rasterise polygons as the COCO API does.

    Args:
        exteriors: Polygons to fill, each ``[[x, y], ...]`` or flat ``[x, y, x, y, ...]``, in pixels.
        height, width: Size of the mask.
        holes: Polygons to cut out afterwards, in the same form.

    Raises:
        MaskError: A polygon has fewer than three points or is not made of finite numbers.
    """
    filled = _fill(exteriors, height, width)
    if holes:
        filled &= ~_fill(holes, height, width)
    return encode(filled)


def _fill(polygons: Sequence[Sequence], height: int, width: int) -> np.ndarray:
    flat = []
    for polygon in polygons:
        try:
            points = np.asarray(polygon, dtype=np.float64).ravel()
        except (TypeError, ValueError):
            raise MaskError("a polygon must be a list of numbers") from None
        if points.size < 6 or points.size % 2 or not np.isfinite(points).all():
            raise MaskError("a polygon needs at least three points of two finite numbers")
        flat.append(points.tolist())
    if not flat:
        return np.zeros((height, width), dtype=bool)
    return decode(coco.merge(coco.frPyObjects(flat, height, width)))


# --------------------------------------------------------------------------------------- files
def from_png(path: str | os.PathLike, *, reading: str = "nonzero") -> Rle:
    """Read a mask image.

    Args:
        path: An image file.
        reading: ``"nonzero"``: foreground is a non-zero palette index or grey value, or a colour other than black;
            fully transparent pixels are background. ``"luminance"``: the image is converted to grey first and any
            value above 0 is foreground, as the original ST-Evidence evaluator does; dark colours such as
            ``(0, 0, 4)`` then become background.

    Raises:
        MaskError: The file is missing or is not a readable image; the error names it.
    """
    with _open_image(path) as image:
        if reading == "luminance":
            return encode(np.asarray(image.convert("L")) > 0)
        if reading != "nonzero":
            raise ValueError(f"reading must be 'nonzero' or 'luminance', not {reading!r}")
        if image.mode in ("P", "L", "1", "I", "I;16", "F"):
            return encode(np.asarray(image) != 0)
        pixels = np.asarray(image.convert("RGBA"))
        return encode(pixels[..., :3].any(axis=2) & (pixels[..., 3] > 0))


def from_palette_png(path: str | os.PathLike, *, void: int | None = 255) -> dict[int, Rle]:
    """Read a label map (palette or grey PNG) into one mask per object.

    Args:
        path: An image file whose pixel value is the object's id; 0 is background.
        void: The value that marks pixels nobody labelled, left out of the result; ``None`` for no such value.
            A grey 0/255 mask of a single object needs ``void=None``.

    Returns:
        ``{object id: RLE}`` in ascending order of ids.

    Raises:
        MaskError: The file is missing, unreadable, or has colours instead of ids.
    """
    with _open_image(path) as image:
        if image.mode not in ("P", "L", "1", "I", "I;16"):
            raise MaskError(f"a label map must be a palette or grey image, this is {image.mode}", file=path)
        labels = np.asarray(image)
    return {int(i): encode(labels == i) for i in np.unique(labels) if i != 0 and i != void}


def to_png(rle: Rle, path: str | os.PathLike) -> None:
    """Write a mask as a grey PNG, background 0 and foreground 255: the form that ST-Evidence publishes."""
    Image.fromarray(decode(rle).astype(np.uint8) * 255).save(path)


def to_palette_png(objects: Mapping[int, Rle], path: str | os.PathLike) -> None:
    """Write objects as a DAVIS-style palette PNG; where objects overlap, the later one in the mapping wins.

    Args:
        objects: ``{object id: RLE}``, ids 1 to 254, all masks of one size.

    Raises:
        MaskError: No objects, an id out of range, or sizes that differ.
    """
    sizes = {tuple(rle["size"]) for rle in objects.values()}
    if len(sizes) != 1 or not all(1 <= i <= 254 for i in objects):
        raise MaskError("a label map needs masks of one size and object ids from 1 to 254", file=path)
    labels = np.zeros(sizes.pop(), dtype=np.uint8)
    for i, rle in objects.items():
        labels[decode(rle)] = i
    image = Image.fromarray(labels, mode=None)
    image.putpalette(_palette())
    image.save(path, format="PNG")


def _palette() -> list[int]:
    colours = []
    for index in range(256):
        for bits in _PALETTE_BITS:
            colours.append(sum(((index >> bit) & 1) << (7 - place) for place, bit in enumerate(bits)))
    return colours


def _open_image(path: str | os.PathLike) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else f"unreadable image ({error})"
        raise MaskError(reason, file=path) from None
    return image
